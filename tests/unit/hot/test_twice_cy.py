"""What was filled in before is learned when it is filled in again, and what nobody asks for twice is not."""

import ctypes
import struct
from collections.abc import Callable
from types import ModuleType

import pytest

from tests.support.window import ALICE, STAMP, Window

Hot = Callable[[str], ModuleType]
compiled = pytest.mark.parametrize("hot", ["compiled"], indirect=True)  # plain Python passes on what is met again
SLOTS = 64
HEADER = b"\1\0\0\1" + bytes(6)
SOA = b"\xc0\x0c\0\6\0\1\0\0\0\x3c\0\x26\xc0\x0c\6nobody\7invalid\0" + bytes(20)


class Room:
    """Memory at an address."""

    def __init__(self, octets: int) -> None:
        self.octets = ctypes.create_string_buffer(octets)
        self.at = ctypes.addressof(self.octets)

    def numbers(self, first: int, *numbers: int) -> None:
        """Write numbers of 64 bits, from one on."""
        struct.pack_into(f"<{len(numbers)}Q", self.octets, 8 * first, *numbers)


class Learner:
    """What memos are told."""

    def __init__(self) -> None:
        self.told = b""

    def learn(self, records: bytes, octets: int) -> None:
        """Take records."""
        self.told += records[:octets]


class Batch:
    """The rooms of a batch in which every slot is filled in."""

    def __init__(self, module: ModuleType) -> None:
        self.slots, self.sizes, self.marks, self.memo_of = (Room(8 * SLOTS) for _ in range(4))
        self.keys, self.arena, self.hits = Room(module.KEY_OCTETS * SLOTS), Room(4096 * SLOTS), Room(4096 * SLOTS)
        self.repeats = module.Repeats(
            self.slots.at, self.keys.at, self.sizes.at, self.marks.at, self.memo_of.at, self.arena.at, self.hits.at
        )
        self.key_octets = module.KEY_OCTETS

    def learn(self, answers: list[Learner], asked: list[tuple[int, bytes, bytes, bytes, int]], cell: int = 3) -> int:
        """Fill in (memo, key, reply, tail of the hit, hash); in the room for hits seven octets stand before theirs."""
        hits = bytes(7)
        for k, (memo, key, reply, tail, mark) in enumerate(asked):
            slot = SLOTS - 1 - k
            self.slots.numbers(k, slot)
            self.sizes.numbers(k, len(key) if len(key) <= self.key_octets else 0)
            self.marks.numbers(slot, mark)
            self.memo_of.numbers(slot, memo)
            ctypes.memmove(self.keys.at + self.key_octets * k, key, min(len(key), self.key_octets))
            ctypes.memmove(self.arena.at + 4096 * slot, b"id" + reply, 2 + len(reply))
            hits += (struct.pack("<I", 36 + len(tail)) + STAMP + bytes(28) + tail) if reply else b""
        ctypes.memmove(self.hits.at, hits, len(hits))
        places = struct.pack(f"<{2 * len(asked)}Q", *[cell] * (2 * len(asked)))
        lengths = struct.pack(f"<{len(asked)}q", *[2 + len(one[2]) if one[2] else 0 for one in asked])
        return int(self.repeats.learn(answers, len(asked), places, lengths, 7))


def record(key: bytes, reply: bytes, tail: bytes, cell: int = 3) -> bytes:
    """What a memo is told of one answer."""
    prefix = struct.pack("<I", 36 + len(tail))
    head = struct.pack("<ddIHHHH4s", float("inf"), 0.0, cell, len(key), len(reply), 0, len(tail), prefix)
    whole = head + key + reply + tail
    return whole + bytes(-len(whole) % 8)


@compiled
def test_the_second_time_it_is_learned(hot: Hot) -> None:
    """With what was said and recorded; each by the memo that its client is answered from."""
    batch, answers = Batch(hot("_twice_cy")), [Learner(), Learner()]
    asked = [(k % 2, b"key %d" % k, b"reply %d" % k, b"tail" * k, k << 40 | k << 8) for k in range(1, 60)]

    assert batch.learn(answers, asked) == 0
    assert [one.told for one in answers] == [b"", b""]
    assert batch.learn(answers, asked) == 59
    for number, one in enumerate(answers):
        assert one.told == b"".join(record(*parts[:3]) for memo, *parts, _ in asked if memo == number)


@compiled
def test_what_was_not_filled_in_is_not_learned(hot: Hot) -> None:
    """Nor is what has too long a key, or what no counter is told of."""
    batch, answers = Batch(hot("_twice_cy")), [Learner()]
    asked = [
        (0, b"first", b"", b"", 1 << 40 | 1 << 8),
        (0, b"k" * 289, b"reply", b"tail", 2 << 40 | 2 << 8),
        (0, b"k" * 288, b"reply", b"tail", 3 << 40 | 3 << 8),
    ]
    assert [batch.learn(answers, asked) for _ in range(2)] == [0, 1]
    assert answers[0].told == record(b"k" * 288, b"reply", b"tail")
    assert batch.learn(answers, asked[2:], cell=1 << 40) == 0


@compiled
def test_of_two_in_one_place_one_is_learned_and_then_the_other(hot: Hot) -> None:
    """However they are asked in turn."""
    batch, answers = Batch(hot("_twice_cy")), [Learner()]
    two = [(0, b"one", b"reply", b"", 1 << 40), (0, b"two", b"reply", b"", 3 << 40)]
    learned: set[bytes] = set()
    for _ in range(12):
        for one in two:
            if one[1] not in learned and batch.learn(answers, [one]):
                learned.add(one[1])
    assert learned == {b"one", b"two"}


@compiled
def test_the_longest_of_a_whole_batch_are_learned(hot: Hot) -> None:
    """More octets than are handed over at one time."""
    batch, answers = Batch(hot("_twice_cy")), [Learner()]
    asked = [(0, bytes((k,)) * 288, b"r" * 510, b"t" * 4000, (k + 1) << 40 | (k + 1) << 8) for k in range(SLOTS)]

    batch.learn(answers, asked)

    assert batch.learn(answers, asked) == SLOTS
    assert answers[0].told == b"".join(record(*parts) for _, *parts, _ in asked)


def query(name: bytes, number: int) -> bytes:
    """A query of type A, with what no template's answer keeps: AA and TC set, as no honest client would."""
    return struct.pack(">H", number) + b"\7" + HEADER[1:] + name + b"\0\1\0\1"


def test_it_is_said_again_as_it_was_filled_in(hot: Hot) -> None:
    """The same octets, hits and counts, however often; in other bits of the header it is another question."""
    batch, names, templates = hot("_batch_cy"), hot("_names_cy"), hot("_templates_cy")
    memo = batch.ViewMemo(1000, names.NameTable(names.build({b"\6listed\7example\0": 0})))
    parts = (b"1\tphones\tudp\t", b"\tA\tsuffix ", b"\tNXDOMAIN")
    said = templates.Template(3, b"\0\1\0\0\0\1\0\0", SOA, True, True, 3, parts)
    memo.file(templates.template_key(0, 1, 1, templates.NO_OPT), said)
    window = Window(batch)
    asked = [query(b"\5name%d\6listed\7example\0" % k, k) for k in range(4)]
    seen = []
    for _ in range(5):
        n = window.receive([(ALICE, octets) for octets in asked])
        hits = window.batch.answer({ALICE: memo}, n, 0.0, STAMP)
        assert window.batch.outcome()[1] == []
        seen.append(([octets for _, _, octets, _ in window.send()], hits))
    assert seen == seen[:1] * len(seen)
    assert window.counts.tolist() == [0, 0, 0, 4 * len(seen), *[0] * 12]
    assert memo.size() <= 8
    assert window.batch.learned() <= 4
    assert window.batch.learned() == 0

    other = [octets[:2] + b"\1" + octets[3:] for octets in asked]
    n = window.receive([(ALICE, octets) for octets in other])
    window.batch.answer({ALICE: memo}, n, 0.0, STAMP)
    assert [octets[2] for _, _, octets, _ in window.send()] == [0x81] * window.batch.outcome()[0]
