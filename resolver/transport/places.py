"""How many connections there may be, in all and from one address, and who has to go when all places are taken.

Every transport that keeps connections counts them here. When all places are taken, the connection that has been idle
longest makes room, so half-open ones lock nobody out; one that is busy is never put out to make room.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

SWEEP_SECONDS = 1.0
DRAIN_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class PlaceTerms:
    """Limits; `idle_timeout` in seconds. `per_client` 0 stands for no limit."""

    connections: int = 1024
    per_client: int = 256
    idle_timeout: float = 10.0


class Guest(Protocol):
    """A connection, as far as its place is concerned. Compared and hashed by identity."""

    host: str
    active_at: float

    @property
    def is_busy(self) -> bool:
        """Whether answers to whole messages are still to come."""
        ...

    def expire(self) -> None:
        """Close after too long without a whole message in or an answer out, unless busy."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Places:
    """The places of one worker's connections of one kind."""

    def __init__(self, loop: asyncio.AbstractEventLoop, terms: PlaceTerms, now: Callable[[], float]) -> None:
        """Set up, with all places free.

        Args:
            loop: The worker's.
            terms: Limits.
            now: Monotonic seconds.
        """
        self._loop = loop
        self._terms = terms
        self._now = now
        self._guests: OrderedDict[Guest, None] = OrderedDict()  # least recently active first
        self._per_client: dict[str, int] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._guests)

    def __iter__(self) -> Iterator[Guest]:
        return iter(list(self._guests))

    def admit(self, guest: Guest) -> bool:
        """Take a connection in, if need be in the place of the one that was idle longest; False: there is no place."""
        terms = self._terms
        held = self._per_client.get(guest.host, 0)
        if terms.per_client and held >= terms.per_client and not self._evict(guest.host):
            return False
        if len(self._guests) >= terms.connections and not self._evict(None):
            return False
        self._guests[guest] = None
        self._per_client[guest.host] = self._per_client.get(guest.host, 0) + 1
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        return True

    def release(self, guest: Guest) -> None:
        """Let a connection's place go; one that has none is none the worse for it."""
        if self._guests.pop(guest, self) is self:
            return
        left = self._per_client[guest.host] - 1
        if left:
            self._per_client[guest.host] = left
        else:
            del self._per_client[guest.host]

    def touch(self, guest: Guest) -> None:
        """Note that a connection did something useful just now."""
        if guest in self._guests:
            self._guests.move_to_end(guest)

    async def drain(self, patience: float) -> None:
        """Wait until nobody is busy any longer, or so many seconds have passed."""
        end = self._now() + patience
        while any(guest.is_busy for guest in self._guests) and self._now() < end:
            await asyncio.sleep(DRAIN_LOOK_SECONDS)

    def close(self) -> None:
        """Look after nobody any longer."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _evict(self, host: str | None) -> bool:
        for guest in self._guests:
            if not guest.is_busy and (host is None or guest.host == host):
                self.evicted += 1
                guest.abort()
                self.release(guest)
                return True
        return False

    def _sweep(self) -> None:
        deadline = self._now() - self._terms.idle_timeout
        for guest in list(self._guests):
            if guest.active_at > deadline:
                break  # ordered by activity: all that follow are younger
            guest.expire()
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep) if self._guests else None
