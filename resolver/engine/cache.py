"""Answers of upstreams, kept for as long as they say.

The cache knows nothing of clients or policy: every answer taken from it is judged again for the client who asks, so a
new rule acts at once and no verdict is ever shared. Its size is bounded in octets; what was used longest ago goes
first.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Protocol

from resolver.wire.codes import Rcode
from resolver.wire.message import Answer, read_reply

_ENTRY_OVERHEAD = 600  # octets of objects around an entry, measured with tracemalloc on CPython 3.11
FAILURE_TTL = 5.0  # seconds a resolution failure is remembered; RFC 9520 §3.2 wants between 1 and 300
_MAX_FAILURES = 4096


@dataclass(frozen=True, slots=True)
class CacheTerms:
    """How long answers are kept. Seconds, but for `size`, which is in octets."""

    size: int = 64 * 1024 * 1024
    min_ttl: float = 0
    max_ttl: float = 86400
    max_negative_ttl: float = 3600
    max_stale: float = 86400
    stale_answer_ttl: int = 30


@dataclass(slots=True)
class Entry:
    """An answer and its time: stored at, fresh until, and (after a failed refresh) not to be asked for again before."""

    answer: Answer
    stored: float
    expires: float
    octets: int
    retry_at: float = 0.0


def cache_key(qname: bytes, qtype: int, *, do: bool, cd: bool) -> bytes:
    """What an answer is filed under: with and without DNSSEC records, and checked or not, are different answers."""
    return qname + qtype.to_bytes(2, "big") + bytes((do << 1 | cd,))


def read_key(key: bytes) -> tuple[bytes, int, bool, bool]:
    """What a `cache_key` was made of: QNAME, QTYPE, DO and CD."""
    return key[:-3], key[-3] << 8 | key[-2], bool(key[-1] & 2), bool(key[-1] & 1)


class Shelf(Protocol):
    """Replies that were relayed, as they came (`hot.Answers`)."""

    def find(self, key: bytes) -> tuple[float, float, int, bytes] | None:
        """When one expires, when it was stored (monotonic seconds), whether its AD is believed, and the message."""
        ...

    def forget(self, key: bytes) -> None:
        """Have it be found expired long since."""
        ...

    def halve(self) -> None:
        """Let go what was put there first."""
        ...

    def octets(self) -> int:
        """How much memory it holds."""
        ...

    def young_octets(self) -> int:
        """How much of it the next `halve` keeps for certain."""
        ...

    def count(self) -> int:
        """How many replies there are."""
        ...


class Cache:
    """Entries by key, least recently used first.

    What was relayed lies on a shelf of its own; it is taken apart if somebody asks for it by any other datagram than
    the one that the hot memo knows, which is seldom. An entry goes before what lies there under its key.
    """

    def __init__(self, terms: CacheTerms, shelf: Shelf | None = None) -> None:
        self.terms = terms
        self.shelf = shelf
        self._entry_octets = 0
        self.entries: OrderedDict[bytes, Entry] = OrderedDict()
        self.failures: OrderedDict[bytes, tuple[float, Answer]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.entries) + (self.shelf.count() if self.shelf is not None else 0)

    @property
    def octets(self) -> int:
        """How much memory it takes."""
        return self._entry_octets + (self.shelf.octets() if self.shelf is not None else 0)

    def get(self, key: bytes, now: float) -> Entry | None:
        """The entry for a key, fresh or stale (compare `expires` with now), or None."""
        entry = self.entries.get(key)
        if entry is None:
            entry = self._take_from_shelf(key)
        if entry is None:
            return None
        if entry.expires + self.terms.max_stale <= now:
            self.forget(key)
            return None
        if key in self.entries:  # it may have been too large to be kept
            self.entries.move_to_end(key)
        return entry

    def put(self, key: bytes, answer: Answer, now: float) -> Entry:
        """Keep an answer, its TTLs clamped, and return the entry; one that may not be cached is returned but not kept.

        An answer lives as long as the shortest TTL in it; one that says "no" as long as RFC 2308 §5 says, and not at
        all where it came without the SOA that would tell.
        """
        answer, life = self._clamped(answer)
        entry = Entry(answer, now, now + life, _octets(key, answer))
        self.failures.pop(key, None)
        self.forget(key)  # even where the new answer may not be kept: what it replaces is true no longer
        if life > 0:
            self._keep(key, entry)
        return entry

    def forget(self, key: bytes) -> None:
        """Let go what is kept under a key."""
        self._drop(key)
        if self.shelf is not None:
            self.shelf.forget(key)

    def make_room(self) -> None:
        """Let go what was used longest ago until all fits; of the shelf rather, while it holds the larger half."""
        shelf, most = self.shelf, self.terms.size
        # In time, since to let a half go that is all there is would let all of it go.
        if shelf is not None and shelf.young_octets() > most // 2:
            shelf.halve()
        while self.octets > most:
            if shelf is not None and (shelf.octets() > most // 2 or not self.entries):
                shelf.halve()
            else:
                self._drop(next(iter(self.entries)))

    def _keep(self, key: bytes, entry: Entry) -> None:
        if entry.octets <= self.terms.size:
            self.entries[key] = entry
            self._entry_octets += entry.octets
            self.make_room()

    def _clamped(self, answer: Answer) -> tuple[Answer, int]:
        """The answer with its TTLs as they may be, and for how long it is kept."""
        terms = self.terms
        seconds = [ttl for _, ttl in answer.ttls]
        shortest, longest = (min(seconds), max(seconds)) if seconds else (0, 0)
        if answer.negative_ttl is None:
            cap, life = int(terms.max_ttl), shortest
        else:
            cap = int(terms.max_negative_ttl)
            life = min(answer.negative_ttl, shortest) if seconds else answer.negative_ttl
        least = int(terms.min_ttl)
        if life and life < least:
            life = least
        if life > cap:
            life = cap
        floor, ceiling = least if life else 0, cap if answer.negative_ttl is None else life
        if shortest < floor or longest > ceiling:
            answer = _with_ttls(answer, tuple((at, min(max(ttl, floor), ceiling)) for at, ttl in answer.ttls))
        return answer, life

    def _take_from_shelf(self, key: bytes) -> Entry | None:
        """Take a reply apart that was kept as it came."""
        found = self.shelf.find(key) if self.shelf is not None else None
        if found is None:
            return None
        expires, stored, is_trusted, message = found
        answer, _ = self._clamped(read_reply(message, message).answer)
        if not is_trusted:
            answer.authentic = False
        entry = Entry(answer, stored, expires, _octets(key, answer))
        self._keep(key, entry)
        return entry

    def put_failure(self, key: bytes, answer: Answer, now: float) -> None:
        """Remember that nobody could answer, so that a storm of retries stays here (RFC 9520 §3.2)."""
        self.failures[key] = (now + FAILURE_TTL, answer)
        self.failures.move_to_end(key)
        if len(self.failures) > _MAX_FAILURES:
            self.failures.popitem(last=False)

    def failure(self, key: bytes, now: float) -> Answer | None:
        """The remembered failure for a key, while it counts."""
        held = self.failures.get(key)
        if held is None:
            return None
        if held[0] <= now:
            del self.failures[key]
            return None
        return held[1]

    def stale(self, entry: Entry) -> Answer:
        """An expired entry's answer with the TTL that stale data is given (RFC 8767 §4)."""
        ttls = tuple((at, self.terms.stale_answer_ttl) for at, _ in entry.answer.ttls)
        return _with_ttls(entry.answer, ttls)

    def _drop(self, key: bytes) -> None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            self._entry_octets -= entry.octets


def _octets(key: bytes, answer: Answer) -> int:
    octets = len(key) + len(answer.body) + 80 * len(answer.ttls) + _ENTRY_OVERHEAD
    for led_to in (answer.aliases, answer.targets, answer.addresses):
        for one in led_to:
            octets += len(one)
    return octets


def _with_ttls(answer: Answer, ttls: tuple[tuple[int, int], ...]) -> Answer:
    if ttls == answer.ttls:
        return answer
    body = bytearray(answer.body)
    for at, ttl in ttls:
        body[at : at + 4] = ttl.to_bytes(4, "big")
    return replace(answer, body=bytes(body), ttls=ttls)


def is_failure(rcode: int) -> bool:
    """Whether an upstream's RCODE says that it could not, or would not, find out."""
    return rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN, Rcode.YXDOMAIN)
