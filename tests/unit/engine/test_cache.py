"""The answer cache: how long, how much, and what not."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.engine.cache import FAILURE_TTL, Cache, CacheTerms, cache_key, is_failure
from resolver.engine.relaying import make_shelf
from resolver.hot._relay_cy import relays
from resolver.wire.codes import Rcode
from resolver.wire.message import Answer
from tests.support.build import query
from tests.support.peers import skip_or_fail

NOW = 1000.0


def answer(*ttls: int, negative_ttl: int | None = None, padding: int = 0) -> Answer:
    """An answer whose body is nothing but TTLs, and padding."""
    body = b"".join(ttl.to_bytes(4, "big") for ttl in ttls) + bytes(padding)
    return Answer(
        int(Rcode.NOERROR), body=body, ttls=tuple((4 * i, ttl) for i, ttl in enumerate(ttls)), negative_ttl=negative_ttl
    )


def ttls_of(made: Answer) -> list[int]:
    """The TTLs as they stand in the octets."""
    return [int.from_bytes(made.body[at : at + 4], "big") for at, _ in made.ttls]


@pytest.mark.parametrize(
    ("terms", "stored", "life", "ttls"),
    [
        (CacheTerms(), answer(300), 300, [300]),
        (CacheTerms(), answer(300, 60, 90), 60, [300, 60, 90]),
        (CacheTerms(max_ttl=100), answer(300, 60), 60, [100, 60]),
        (CacheTerms(max_ttl=100), answer(300, 200), 100, [100, 100]),
        (CacheTerms(min_ttl=30), answer(5, 60), 30, [30, 60]),
        (CacheTerms(), answer(3600, negative_ttl=600), 600, [600]),
        (CacheTerms(), answer(60, negative_ttl=600), 60, [60]),
        (CacheTerms(max_negative_ttl=100), answer(3600, negative_ttl=600), 100, [100]),
        (CacheTerms(min_ttl=30, max_negative_ttl=10), answer(5, negative_ttl=5), 10, [10]),
    ],
)
def test_an_answer_lives_as_long_as_its_shortest_ttl_within_the_bounds(
    terms: CacheTerms, stored: Answer, life: int, ttls: list[int]
) -> None:
    """Lower and upper bounds hold for the entry and for each TTL that clients see (RFC 2308 §5 for "no")."""
    cache = Cache(terms)

    entry = cache.put(b"k", stored, NOW)

    assert entry.expires == NOW + life
    assert ttls_of(entry.answer) == ttls == [ttl for _, ttl in entry.answer.ttls]
    assert cache.get(b"k", NOW + life - 0.001) is entry


@pytest.mark.parametrize(
    ("terms", "stored"),
    [
        (CacheTerms(), answer(0)),
        (CacheTerms(), answer(300, 0)),
        (CacheTerms(min_ttl=60), answer(0)),
        (CacheTerms(), answer(negative_ttl=0)),
        (CacheTerms(), answer(300, negative_ttl=0)),
        (CacheTerms(max_negative_ttl=0), answer(300, negative_ttl=300)),
        (CacheTerms(size=500), answer(300)),
    ],
    ids=["TTL 0", "one TTL 0", "TTL 0 and a lower bound", "no SOA", "SOA of 0", "negative caching off", "too large"],
)
def test_what_may_not_be_kept_is_given_once(terms: CacheTerms, stored: Answer) -> None:
    """The entry comes back for whoever waits, and the cache stays empty."""
    cache = Cache(terms)

    entry = cache.put(b"k", stored, NOW)

    assert len(entry.answer.body) == len(stored.body)
    assert (cache.get(b"k", NOW), len(cache), cache.octets) == (None, 0, 0)


def test_a_newer_answer_that_may_not_be_kept_ends_the_older_one() -> None:
    """An upstream that now says something else with TTL 0 has taken back what it said before."""
    cache = Cache(CacheTerms())
    cache.put(b"k", answer(60), NOW)

    cache.put(b"k", answer(0), NOW + 61)

    assert cache.get(b"k", NOW + 61) is None
    assert cache.octets == 0


@pytest.mark.parametrize(
    ("max_stale", "after", "is_there"),
    [(3600, 60, True), (3600, 3659.9, True), (3600, 3660, False), (0, 59.9, True), (0, 60, False)],
)
def test_an_expired_entry_stays_as_stale_data_for_a_while(max_stale: float, after: float, is_there: bool) -> None:
    """It is there until max_stale is over; 0 is not a moment longer than its TTL."""
    cache = Cache(CacheTerms(max_stale=max_stale))
    cache.put(b"k", answer(60), NOW)

    assert (cache.get(b"k", NOW + after) is not None) == is_there


def test_stale_data_carries_the_ttl_for_stale_data() -> None:
    """Every TTL is the configured one, not that of old (RFC 8767 §4)."""
    cache = Cache(CacheTerms(stale_answer_ttl=17))
    entry = cache.put(b"k", answer(60, 90), NOW)

    assert ttls_of(cache.stale(entry)) == [17, 17]
    assert ttls_of(entry.answer) == [60, 90]


def test_what_was_used_longest_ago_goes_first() -> None:
    """Room is made by least recent use, not by age."""
    probe = Cache(CacheTerms())
    each = probe.put(b"k", answer(60), NOW).octets
    cache = Cache(CacheTerms(size=3 * each))
    for key in (b"1", b"2", b"3"):
        cache.put(key, answer(60), NOW)

    cache.get(b"1", NOW)
    cache.put(b"4", answer(60), NOW)

    assert [key for key in (b"1", b"2", b"3", b"4") if cache.get(key, NOW)] == [b"1", b"3", b"4"]


steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "get"]),
        st.integers(0, 9),
        st.lists(st.integers(0, 100), max_size=4),
        st.integers(0, 3000),
        st.floats(0, 100, allow_nan=False),
    ),
    max_size=60,
)


@given(size=st.integers(1, 8000), taken=steps)
def test_the_cache_never_holds_more_than_its_size(
    size: int, taken: list[tuple[str, int, list[int], int, float]]
) -> None:
    """After any step the octets are within the bound, and are the sum over the entries that can still be had."""
    cache = Cache(CacheTerms(size=size, max_stale=50))
    now = NOW
    for verb, number, ttls, padding, passed in taken:
        now += passed
        key = bytes([number])
        if verb == "put":
            cache.put(key, answer(*ttls, padding=padding), now)
        else:
            cache.get(key, now)
        assert 0 <= cache.octets <= size
    held = [entry for n in range(10) if (entry := cache.get(bytes([n]), now))]
    assert cache.octets == sum(entry.octets for entry in held)
    assert len(cache) == len(held)
    assert all(entry.octets > len(entry.answer.body) for entry in held)


def on_shelf(cache: Cache, shelf: Any, number: int) -> None:
    """Put a reply on a compiled shelf, as the relay does."""
    key = cache_key(b"\x08%08d\0" % number, 1, do=False, cd=False)
    message = query(key[:-3]) + bytes(100)
    head = struct.pack("<ddIHHHH4s", NOW + 60, NOW, 0, len(key), len(message), 1, 0, bytes(4))
    record = head + key + message + struct.pack("<II", 2, 60)
    record += bytes(-len(record) % 8)
    shelf.learn(record, len(record))
    cache.make_room()


def test_a_full_shelf_lets_go_a_part_of_what_it_holds() -> None:
    """Never all of it at one time, and never does it hold more than the cache may."""
    if not relays():
        skip_or_fail("resolver.hot is not compiled (Debian packages gcc and libc6-dev, then tests/run)")
    shelf = make_shelf()
    cache = Cache(CacheTerms(size=1 << 18), shelf)
    held = []
    for number in range(5000):
        on_shelf(cache, shelf, number)
        held.append(len(cache))
        assert cache.octets <= 1 << 18

    full = max(held)
    assert full < 5000
    assert min(held[held.index(full) :]) >= full // 3


def test_a_failure_is_remembered_for_seconds_and_ends_with_an_answer() -> None:
    """For FAILURE_TTL, which RFC 9520 §3.2 wants between 1 s and 5 min; an answer ends it at once."""
    cache = Cache(CacheTerms())
    failed = Answer(int(Rcode.SERVFAIL))
    assert 1 <= FAILURE_TTL <= 300

    cache.put_failure(b"k", failed, NOW)

    assert cache.failure(b"k", NOW + FAILURE_TTL - 0.01) is failed
    assert cache.failure(b"other", NOW) is None
    assert cache.failure(b"k", NOW + FAILURE_TTL) is None

    cache.put_failure(b"k", failed, NOW)
    cache.put(b"k", answer(60), NOW)
    assert cache.failure(b"k", NOW) is None


def test_failures_are_bounded_in_number() -> None:
    """A flood of names that nobody can resolve costs a bounded number of entries; the oldest goes."""
    cache = Cache(CacheTerms())
    failed = Answer(int(Rcode.SERVFAIL))
    count = 10_000

    for n in range(count):
        cache.put_failure(n.to_bytes(4, "big"), failed, NOW)

    remembered = sum(cache.failure(n.to_bytes(4, "big"), NOW) is failed for n in range(count))
    assert 1000 <= remembered < count
    assert cache.failure((count - 1).to_bytes(4, "big"), NOW) is failed


def test_do_and_cd_are_filed_apart() -> None:
    """The same question with and without DNSSEC records, checked or not, has four different answers."""
    keys = {cache_key(b"\1a\0", 1, do=do, cd=cd) for do in (False, True) for cd in (False, True)}

    assert len(keys | {cache_key(b"\1a\0", 2, do=False, cd=False), cache_key(b"\1b\0", 1, do=False, cd=False)}) == 6


@pytest.mark.parametrize("rcode", list(Rcode))
def test_only_answers_to_the_question_are_no_failures(rcode: Rcode) -> None:
    """NOERROR, NXDOMAIN and YXDOMAIN (a DNAME too long) say something about the name; the rest about the server."""
    assert is_failure(rcode) == (rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN, Rcode.YXDOMAIN))
