"""Places: bounded, and given to whoever needs them more."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.transport.places import Places, PlaceTerms


class Guest:
    """A connection that says itself whether it is busy."""

    def __init__(self, host: str = "192.0.2.1", at: float = 0.0, busy: bool = False) -> None:
        self.host, self.active_at, self.is_busy = host, at, busy
        self.ended = ""

    def expire(self) -> None:
        self.ended = "expired"

    def abort(self) -> None:
        self.ended = "aborted"


def with_places(
    terms: PlaceTerms, story: Callable[[Places], Awaitable[None]], now: Callable[[], float] = float
) -> None:
    """Play a story on a loop."""

    async def play() -> None:
        places = Places(asyncio.get_running_loop(), terms, now)
        try:
            await story(places)
        finally:
            places.close()

    asyncio.run(play())


def test_who_was_idle_longest_makes_room() -> None:
    """Least recently active first; what it did later keeps a connection in."""

    async def story(places: Places) -> None:
        first, second, third = Guest(), Guest(), Guest()
        assert places.admit(first)
        assert places.admit(second)
        places.touch(first)
        assert places.admit(third)
        assert (second.ended, first.ended, len(places), places.evicted) == ("aborted", "", 2, 1)

    with_places(PlaceTerms(connections=2), story)


def test_who_is_busy_is_not_put_out() -> None:
    """Rather a newcomer is turned away."""

    async def story(places: Places) -> None:
        busy = Guest(busy=True)
        assert places.admit(busy)
        assert not places.admit(Guest())
        assert busy.ended == ""

    with_places(PlaceTerms(connections=1), story)


def test_one_address_takes_places_from_itself_alone() -> None:
    """Its own oldest goes, however idle those of others are."""

    async def story(places: Places) -> None:
        other, own, new = Guest("192.0.2.2"), Guest(), Guest()
        assert all(places.admit(guest) for guest in (other, own, new))
        assert (other.ended, own.ended) == ("", "aborted")

    with_places(PlaceTerms(per_client=1), story)


def test_only_who_was_idle_too_long_is_expired() -> None:
    """The sweep ends when nobody is left to look after, and begins again with the next."""
    now = 0.0

    async def story(places: Places) -> None:
        nonlocal now
        old, young = Guest(at=0.0), Guest(at=6.0)
        places.admit(old)
        places.admit(young)
        now = 10.0
        async with asyncio.timeout(10):
            while not old.ended:
                await asyncio.sleep(0.01)
        assert (old.ended, young.ended) == ("expired", "")

    with_places(PlaceTerms(idle_timeout=5.0), story, lambda: now)


@given(st.lists(st.tuples(st.sampled_from("atr"), st.integers(0, 5), st.integers(0, 2)), max_size=60))
def test_no_story_takes_more_places_than_there_are(steps: list[tuple[str, int, int]]) -> None:
    """Whoever comes, goes and comes again: counts by address add up, and nobody has two places."""

    async def story(places: Places) -> None:
        guests = [Guest(f"192.0.2.{n % 3}") for n in range(6)]
        inside: set[Guest] = set()
        for step, which, _ in steps:
            guest = guests[which]
            if step == "a" and guest not in inside:
                guest.ended = ""
                if places.admit(guest):
                    inside.add(guest)
            elif step == "t":
                places.touch(guest)
            else:
                places.release(guest)
                inside.discard(guest)
            inside = {one for one in inside if not one.ended}
            assert set(places) == inside
            assert len(places) <= 3
            assert all(sum(one.host == host for one in inside) <= 2 for host in {one.host for one in inside})

    with_places(PlaceTerms(connections=3, per_client=2), story)


@pytest.mark.parametrize("times", [1, 2])
def test_a_place_is_let_go_once(times: int) -> None:
    """Who has none is none the worse for it."""

    async def story(places: Places) -> None:
        guest = Guest()
        places.admit(guest)
        for _ in range(times):
            places.release(guest)
        assert len(places) == 0
        assert places.admit(Guest())

    with_places(PlaceTerms(connections=1), story)


@pytest.mark.parametrize("busy", [True, False])
def test_the_busy_are_waited_for_and_not_for_ever(busy: bool) -> None:
    """As soon as nobody is, or when the patience is over."""

    async def story(places: Places) -> None:
        guest = Guest(busy=True)
        places.admit(guest)
        if not busy:
            asyncio.get_running_loop().call_soon(setattr, guest, "is_busy", False)
        async with asyncio.timeout(10):
            await places.drain(0.05 if busy else 1e9)

    with_places(PlaceTerms(), story, time.monotonic)
