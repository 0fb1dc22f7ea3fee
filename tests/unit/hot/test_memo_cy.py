"""Ready answers in memory of their own: what is filed, found, let go and aged, beside a model of dicts."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.window import ALICE, BOB, SLOTS, STAMP, Window

Hot = Callable[[str], ModuleType]
PROPERTY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

HEADER = bytes(range(10))
NEVER = float("inf")


def key_of(number: int) -> bytes:
    """A datagram less its id, none like any other, of many lengths."""
    return HEADER + b"%d" % number + b"q" * (number % 77)


def record(
    key: bytes,
    reply: bytes,
    until: float = NEVER,
    stored: float = 0.0,
    cell: int = 3,
    ttls: tuple[tuple[int, int], ...] = (),
    prefix: bytes = bytes(4),
    tail: bytes = b"",
) -> bytes:
    """One answer as `ViewMemo.learn` takes it."""
    head = struct.pack("<ddIHHHH4s", until, stored, cell, len(key), len(reply), len(ttls), len(tail), prefix)
    whole = head + key + reply + b"".join(struct.pack("<II", *ttl) for ttl in ttls) + tail
    return whole + bytes(-len(whole) % 8)


def ask(window: Window, memo: object, keys: list[bytes], now: float = 0.0) -> list[bytes | None]:
    """What is known of each: the reply less its id, or None."""
    said: list[bytes | None] = []
    for first in range(0, len(keys), SLOTS):
        some = keys[first : first + SLOTS]
        n = window.receive([(ALICE, b"\1\2" + key) for key in some])
        window.batch.answer({ALICE: memo}, n, now, STAMP)
        passed = window.batch.outcome()[1]
        replies = [octets for _, _, octets, _ in window.send()]
        assert all(octets[:2] == b"\1\2" for octets in replies)
        said += [None if slot in passed else replies.pop(0)[2:] for slot in range(len(some))]
    return said


@dataclass
class Model:
    """Two dicts."""

    half: int
    young: dict[bytes, tuple[bytes, float]] = field(default_factory=dict)
    old: dict[bytes, tuple[bytes, float]] = field(default_factory=dict)
    young_size: int = 0
    old_size: int = 0

    def put(self, key: bytes, reply: bytes, until: float) -> None:
        """File an answer."""
        if key not in self.young:
            if self.young_size >= self.half:
                self.halve()
            self.young_size += 1 + len(reply) // 512
        self.young[key] = (reply, until)

    def halve(self) -> None:
        """Let the old half go."""
        self.old, self.young, self.old_size, self.young_size = self.young, {}, self.young_size, 0

    def ask(self, key: bytes, now: float) -> bytes | None:
        """What is known."""
        reply, until = self.young.get(key) or self.old.get(key) or (b"", now)
        return reply if until > now else None


NUMBERS = st.integers(0, 60)
REPLIES = st.sampled_from([10, 11, 30, 90, 400, 511, 512, 1100, 4094])
STEPS = st.one_of(
    st.tuples(st.just("put"), NUMBERS, REPLIES, st.sampled_from([NEVER, 5.0, 50.0])),
    st.tuples(st.just("learn"), st.lists(st.tuples(NUMBERS, REPLIES), min_size=1, max_size=8)),
    st.tuples(st.just("halve")),
    st.tuples(st.just("ask"), st.lists(NUMBERS, min_size=1, max_size=12), st.sampled_from([0.0, 6.0, 60.0])),
)


@PROPERTY
@given(st.integers(0, 40), st.lists(STEPS, max_size=60))
def test_it_knows_what_two_dicts_would_know(hot: Hot, entries: int, steps: list[tuple]) -> None:  # type: ignore[type-arg]
    """Whatever was filed, filed anew longer or shorter, let go, or has expired."""
    module = hot("_batch_cy")
    memo, window, model = module.ViewMemo(entries), Window(module), Model(max(1, entries // 2))
    for turn, step in enumerate(steps):
        if step[0] == "put":
            _, number, octets, until = step
            key = key_of(number)
            reply = (key[:40] + b"%d!" % turn).ljust(octets, b"r")[:octets]
            ttls = () if until == NEVER else ((octets - 4, 7),)
            memo.put(key, module.Ready(reply, 3, until, until, ttls, b"", b""))
            model.put(key, reply, until)
        elif step[0] == "learn":
            filed = [(key_of(number), bytes((turn,)) * octets) for number, octets in step[1]]
            octets = b"".join(record(key, reply) for key, reply in filed)
            memo.learn(octets + b"what lies behind", len(octets))
            for key, reply in filed:
                model.put(key, reply, NEVER)
        elif step[0] == "halve":
            memo.halve()
            model.halve()
        else:
            keys = [key_of(number) for number in step[1]]
            # `stored` is `until`: no age is above zero while an answer holds.
            assert ask(window, memo, keys, step[2]) == [model.ask(key, step[2]) for key in keys]
        assert (memo.size(), memo.old_half()) == (model.young_size + model.old_size, model.old_size)


def test_many_are_known_while_the_table_grows(hot: Hot) -> None:
    """Thousands, each with an answer of its own, looked for at many sizes of the table; and nothing else is."""
    module = hot("_batch_cy")
    memo, window = module.ViewMemo(100_000), Window(module)
    keys = [key_of(number) for number in range(6000)]
    for first in range(0, 6000, 500):
        octets = b"".join(record(key, key[10:] + b" said") for key in keys[first : first + 500])
        memo.learn(octets, len(octets))
        known = [key[10:] + b" said" for key in keys[: first + 500 : 7]]
        assert ask(window, memo, keys[: first + 500 : 7]) == known
        assert ask(window, memo, keys[first + 500 :: 97]) == [None] * len(keys[first + 500 :: 97])
    assert ask(window, memo, keys) == [key[10:] + b" said" for key in keys]


@pytest.mark.parametrize("reply", [b"", b"short", HEADER, HEADER + b"12", HEADER + b"12qq rest", b"other octets, all"])
def test_what_a_reply_repeats_of_the_question_stands_already(hot: Hot, reply: bytes) -> None:
    """Shorter than a header, as long as the question, or longer: it is said as it was."""
    module = hot("_batch_cy")
    memo = module.ViewMemo(10)
    memo.put(HEADER + b"12qq", module.Ready(reply, 3, NEVER, 0.0, (), b"hit!", b"tail"))

    window = Window(module)

    assert ask(window, memo, [HEADER + b"12qq"]) == [reply]
    n = window.receive([(ALICE, b"\1\2" + HEADER + b"12qq")])
    assert window.batch.answer({ALICE: memo}, n, 0.0, STAMP) == b"hit!" + STAMP + window.sockaddr(ALICE) + b"tail"


@pytest.mark.parametrize("now", [100.0, 100.99, 101.0, 107.5, 499.0])
def test_what_was_learned_ages_as_what_was_put(hot: Hot, now: float) -> None:
    """Every TTL, from the moment it was stored at, not below zero."""
    module = hot("_batch_cy")
    reply = HEADER + b"0" + struct.pack(">III", 300, 2, 0) + b"end"
    ttls = ((11, 300), (15, 2), (19, 0))
    learned, put = module.ViewMemo(10), module.ViewMemo(10)
    octets = record(key_of(0), reply, 500.0, 100.0, 3, ttls)
    learned.learn(octets, len(octets))
    put.put(key_of(0), module.Ready(reply, 3, 500.0, 100.0, ttls, b"", b""))

    left = [max(0, seconds - int(now - 100)) for _, seconds in ttls]
    expected = [HEADER + b"0" + struct.pack(">III", *left) + b"end"]

    assert ask(Window(module), learned, [key_of(0)], now) == ask(Window(module), put, [key_of(0)], now) == expected
    assert ask(Window(module), learned, [key_of(0)], 500.0) == [None]


GOOD = record(key_of(0), HEADER + b"0 said")
LONG = record(key_of(1), HEADER + b"1 said", prefix=b"hit:", tail=b"t" * 70)


@pytest.mark.parametrize("octets", range(len(GOOD), len(GOOD + LONG) - 7))
def test_octets_that_end_within_a_record_are_refused(hot: Hot, octets: int) -> None:
    """What is behind them is not looked at; what came before is known."""
    module = hot("_batch_cy")
    memo = module.ViewMemo(10)
    if octets == len(GOOD):
        memo.learn(GOOD + LONG, octets)
    else:
        with pytest.raises(ValueError, match="end within a record"):
            memo.learn(GOOD + LONG, octets)
    assert ask(Window(module), memo, [key_of(0), key_of(1)]) == [HEADER + b"0 said", None]


@pytest.mark.parametrize(
    "octets",
    [
        record(key_of(0), bytes(4095)),
        record(key_of(0), b"said", tail=bytes(4097)),
        record(key_of(0), b"said", 5.0),
        record(key_of(0), b"said", 5.0, ttls=((1, 7),)),
        record(key_of(0), b"said", 5.0, ttls=((0xFFFFFFFF, 7),)),
        record(key_of(0), b"said", 5.0, ttls=((0, 1 << 31),)),
        record(b"", b"said"),
        record(key_of(0), b"said") + b"\0",
    ],
    ids=["reply", "tail", "no TTL", "TTL beyond", "TTL far beyond", "TTL too long", "no key", "rest"],
)
def test_what_is_no_answer_is_refused(hot: Hot, octets: bytes) -> None:
    """The compiled loop copies by these sizes without asking again."""
    with pytest.raises(ValueError, match=r"."):
        hot("_batch_cy").ViewMemo(10).learn(octets, len(octets))


def test_more_octets_than_there_are_are_refused(hot: Hot) -> None:
    """However many are said to be in use."""
    with pytest.raises(ValueError, match="end within a record"):
        hot("_batch_cy").ViewMemo(10).learn(GOOD, len(GOOD) + 64)


def test_what_is_filed_anew_for_ever_takes_no_more_memory(hot: Hot) -> None:
    """A few questions whose answers are learned over and over, longer and shorter."""
    module = hot("_batch_cy")
    memo = module.ViewMemo(1000)
    rounds = [
        b"".join(record(key_of(k), b"r" * (100 + 37 * (k + turn) % 3000)) for k in range(64)) for turn in range(9)
    ]
    for octets in rounds:
        memo.learn(octets, len(octets))
    before = resident()
    for _ in range(200):
        for octets in rounds:
            memo.learn(octets, len(octets))
    assert resident() - before < 16 << 20  # all that was filed is some 180 MB
    assert memo.size() <= 1000


def test_what_is_let_go_gives_its_memory_back(hot: Hot) -> None:
    """Both halves, and whole memos."""
    module = hot("_batch_cy")
    octets = b"".join(record(key_of(k), bytes(500)) for k in range(2000))
    memo = module.ViewMemo(4000)
    memo.learn(octets, len(octets))
    before = resident()
    for _ in range(60):
        memo.learn(octets, len(octets))
        memo.halve()
        module.ViewMemo(4000).learn(octets, len(octets))
    assert resident() - before < 32 << 20  # all that was filed is some 130 MB


@pytest.fixture
def shelf(hot: Hot) -> Any:
    """Answers that are asked for by their keys, as the cache does; compiled builds have some."""
    module = hot("_memo_cy")
    if not module.recites():
        pytest.skip("plain Python has none")
    return module.Answers(1 << 20)


def test_what_is_filed_is_found_by_its_key_until_it_is_forgotten(shelf: Any) -> None:
    """Whole, whatever of it the key repeats; in both halves."""
    said = b"\x81\x80" + key_of(5)[2:] + b" and more"
    filed = {key_of(n): said + b"%d" % n for n in range(40)}
    records = b"".join(record(key, reply, 9.0 + n, 1.0, n, ((0, 8),)) for n, (key, reply) in enumerate(filed.items()))
    shelf.learn(records, len(records))
    shelf.halve()

    assert shelf.find(b"nobody's") is None
    for n, (key, reply) in enumerate(filed.items()):
        assert shelf.find(key) == (9.0 + n, 1.0, n, reply)
    again = record(key_of(3), b"\x81\x80 once more", 50.0, 2.0, 7, ((2, 48),))
    shelf.learn(again, len(again))
    assert shelf.find(key_of(3)) == (50.0, 2.0, 7, b"\x81\x80 once more")
    assert shelf.count() == 41
    shelf.forget(key_of(3))
    shelf.forget(b"nobody's")
    assert shelf.find(key_of(3)) is None
    assert shelf.find(key_of(4)) is not None


def test_many_keys_are_screened_at_one_time(shelf: Any) -> None:
    """0 where nothing is filed, 1 where it has expired, 2 where it is known; among many that fall on one place."""
    for first in range(0, 3000, 100):
        records = b"".join(
            record(key_of(n), b"\x81\x80" + bytes(20), 5.0 if n % 3 else 20.0, 1.0, 0, ((2, 4),))
            for n in range(first, first + 100)
        )
        shelf.learn(records, len(records))
        if first == 1500:
            shelf.halve()
    for first in range(0, 6000, 64):
        numbers = range(first, first + 64)
        words = struct.pack("<64q", *(len(key_of(n)) for n in numbers))
        shelf.screen(b"".join(key_of(n).ljust(264, b"\0") for n in numbers), words, 64, 10.0)
        assert struct.unpack("<64q", words) == tuple(0 if n >= 3000 else 1 if n % 3 else 2 for n in numbers)


def test_it_says_how_much_memory_it_holds(shelf: Any) -> None:
    """None at first; it grows with what is filed, and halves give it back."""
    assert (shelf.octets(), shelf.count()) == (0, 0)
    records = b"".join(record(key_of(n), b"\x81\x80" + bytes(200)) for n in range(1000))
    shelf.learn(records, len(records))

    assert len(records) <= shelf.octets() <= 4 * len(records)
    shelf.halve()
    shelf.halve()
    assert (shelf.octets(), shelf.count()) == (0, 0)


def resident() -> int:
    """Octets of memory that this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_two_views_in_turn_are_answered_each_from_its_own(hot: Hot) -> None:
    """More datagrams than are looked up at a time, from two clients, one after the other."""
    module = hot("_batch_cy")
    window = Window(module, slots=200)
    memos = {ALICE: module.ViewMemo(1000), BOB: module.ViewMemo(1000)}
    for who, memo in memos.items():
        for number in range(0, 200, 3):
            memo.put(key_of(number), module.Ready(key_of(number) + who, 3, NEVER, 0.0, (), b"hit:", who))
    asked = [((ALICE, BOB)[number % 2], b"\0\1" + key_of(number)) for number in range(200)]

    hits = window.batch.answer(memos, window.receive(asked), 0.0, STAMP)

    said = [(who, octets) for who, _, octets, _ in window.send()]
    known = [(who, octets) for number, (who, octets) in enumerate(asked) if number % 3 == 0]
    assert said == [(who, octets + who) for who, octets in known]
    assert window.batch.outcome() == (67, [number for number in range(200) if number % 3], 67)
    assert len(hits) == 67 * (40 + 4)


def sip(octets: bytes, key: tuple[int, int], c: int, d: int) -> int:
    """SipHash-c-d as the paper says it."""
    mask = (1 << 64) - 1
    v = [
        key[0] ^ 0x736F6D6570736575,
        key[1] ^ 0x646F72616E646F6D,
        key[0] ^ 0x6C7967656E657261,
        key[1] ^ 0x7465646279746573,
    ]

    def turn(word: int, by: int) -> int:
        return (word << by | word >> 64 - by) & mask

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = v[0] + v[1] & mask
            v[1] = turn(v[1], 13) ^ v[0]
            v[0] = turn(v[0], 32)
            v[2] = v[2] + v[3] & mask
            v[3] = turn(v[3], 16) ^ v[2]
            v[0] = v[0] + v[3] & mask
            v[3] = turn(v[3], 21) ^ v[0]
            v[2] = v[2] + v[1] & mask
            v[1] = turn(v[1], 17) ^ v[2]
            v[2] = turn(v[2], 32)

    whole = octets + bytes(7 - len(octets) % 8) + bytes((len(octets) & 0xFF,))
    for at in range(0, len(whole), 8):
        word = int.from_bytes(whole[at : at + 8], "little")
        v[3] ^= word
        rounds(c)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(d)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_keys_are_hashed_by_siphash_1_3(hot: Hot) -> None:
    """Of any length, under the key of the process; the function it is compared with gives the paper's example."""
    module = hot("_memo_cy")
    example = int.from_bytes(bytes(range(8)), "little"), int.from_bytes(bytes(range(8, 16)), "little")
    assert sip(bytes(range(15)), example, 2, 4) == 0xA129CA6149BE45E5
    if not module.recites():
        return
    answers = module.Answers(1)
    for octets in (bytes(range(256)) * 2)[:300], b"":
        for end in range(len(octets) + 1):
            assert answers.mark_of(octets[:end]) == sip(octets[:end], module.KEY, 1, 3)
