"""Batches answered from the memo: what leaves, in what order, to whom; the same plain and compiled."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.window import ALICE, BOB, SLOT, SLOTS, SOCKADDR, STAMP, STRANGER, Window

Hot = Callable[[str], ModuleType]
PROPERTY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

ASKED = bytes(range(10)) + b"question"  # a datagram less its id; what stands in it is no concern of the memo
SAID = b"\x81\x80" + bytes(8) + b"question and answer"


def ready(hot: ModuleType, reply: bytes = SAID, **changes: object) -> object:
    """An answer that only a policy change ends, counted in cell 3, no hit."""
    terms = {"cell": 3, "until": float("inf"), "stored": 0.0, "ttls": (), "hit_prefix": b"", "hit_tail": b""}
    return hot.Ready(reply, *(terms | changes).values())


def memo_with(hot: ModuleType, **answers: object) -> object:
    """A memo that knows ASKED."""
    memo = hot.ViewMemo(1000)
    memo.put(ASKED, ready(hot, **answers))
    return memo


@pytest.mark.parametrize("family_is_6", [False, True])
def test_what_was_learned_is_said_again_under_the_new_id(hot: Hot, family_is_6: bool) -> None:
    """Byte for byte, to the address and port that asked."""
    module = hot("_batch_cy")
    window = Window(module, family_is_6)
    client = b"\x20\x01\x0d\xb8" + bytes(11) + b"\1" if family_is_6 else ALICE
    n = window.receive([(client, b"\x12\x34" + ASKED), (client, b"\xfe\xdc" + ASKED)])

    hits = window.batch.answer({client: memo_with(module)}, n, 0.0, STAMP)

    assert list(window.send()) == [
        (client, 5353, b"\x12\x34" + SAID, -1),
        (client, 5354, b"\xfe\xdc" + SAID, -1),
    ]
    assert hits == b""
    assert window.batch.outcome() == (2, [], 0)
    assert window.counts[3] == 2
    assert sum(window.counts) == 2


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\1",
        b"\1\2",
        (b"\1\2" + ASKED)[:11],
        b"\1\2" + ASKED + b"\0",
        b"\1\2" + ASKED[:-1],
        b"\1\2" + ASKED.upper(),
    ],
)
def test_anything_else_is_passed_on(hot: Hot, datagram: bytes) -> None:
    """One octet more, less or other, and it is the pipeline's; so is what is too short for a header."""
    module = hot("_batch_cy")
    window = Window(module)
    n = window.receive([(ALICE, datagram)])

    assert window.batch.answer({ALICE: memo_with(module)}, n, 0.0, STAMP) == b""
    assert window.batch.outcome() == (0, [0], 0)
    assert sum(window.counts) == 0


def test_each_client_is_answered_from_the_memo_of_his_view(hot: Hot) -> None:
    """The same question, another view, another answer; a client without a known view is passed on."""
    module = hot("_batch_cy")
    window = Window(module)
    sources = {ALICE: memo_with(module, reply=SAID + b" a"), BOB: memo_with(module, reply=SAID + b" b")}
    n = window.receive([(BOB, b"\0\1" + ASKED), (STRANGER, b"\0\2" + ASKED), (ALICE, b"\0\3" + ASKED)])

    window.batch.answer(sources, n, 0.0, STAMP)

    assert [(address, octets) for address, _, octets, _ in window.send()] == [
        (BOB, b"\0\1" + SAID + b" b"),
        (ALICE, b"\0\3" + SAID + b" a"),
    ]
    assert window.batch.outcome()[1] == [1]


def test_replies_of_the_roof_come_behind_the_ready_ones(hot: Hot) -> None:
    """Each from the slot it stands in, with the address and control message of that slot."""
    module = hot("_batch_cy")
    window = Window(module, controls=True)
    n = window.receive(
        [(STRANGER, b"\0\0" + ASKED), (ALICE, b"\0\1" + ASKED), (BOB, b"\0\2x"), (ALICE, b"\0\3" + ASKED)]
    )
    window.batch.answer({ALICE: memo_with(module)}, n, 0.0, STAMP)
    for slot in window.batch.outcome()[1]:
        window.arena[SLOT * slot : SLOT * slot + 5] = b"roof%d" % slot
        window.batch.add(slot, 5)

    assert list(window.send()) == [
        (ALICE, 5354, b"\0\1" + SAID, 1),
        (ALICE, 5356, b"\0\3" + SAID, 3),
        (STRANGER, 5353, b"roof0", 0),
        (BOB, 5355, b"roof2", 2),
    ]
    assert [window.batch.slot(k) for k in range(4)] == [1, 3, 0, 2]

    # The next batch begins with the headers as this one left them.
    n = window.receive([(ALICE, b"\1\0" + ASKED), (ALICE, b"\1\1" + ASKED), (ALICE, b"\1\2" + ASKED)])
    window.batch.answer({ALICE: memo_with(module)}, n, 0.0, STAMP)
    assert [(port, octets[:2], slot) for _, port, octets, slot in window.send()] == [
        (5353, b"\1\0", 0),
        (5354, b"\1\1", 1),
        (5355, b"\1\2", 2),
    ]


@pytest.mark.parametrize(
    ("now", "left"), [(100.0, 300), (100.9, 300), (101.0, 299), (350.5, 50), (399.99, 1), (400.0, None), (1e6, None)]
)
def test_an_answer_ages_and_then_is_no_more(hot: Hot, now: float, left: int | None) -> None:
    """The TTL runs down from the moment of storing; at `until` the question is passed on."""
    module = hot("_batch_cy")
    window = Window(module)
    reply = SAID + (300).to_bytes(4, "big") + b"rdata"
    memo = memo_with(module, reply=reply, until=400.0, stored=100.0, ttls=((len(SAID), 300),))
    n = window.receive([(ALICE, b"\0\1" + ASKED)])
    window.batch.answer({ALICE: memo}, n, now, STAMP)

    said = [octets for _, _, octets, _ in window.send()]
    assert said == ([] if left is None else [b"\0\1" + SAID + left.to_bytes(4, "big") + b"rdata"])
    assert window.batch.outcome()[1] == ([0] if left is None else [])


@PROPERTY
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2**31 - 1) | st.integers(0, 20)), min_size=1, max_size=6),
    st.binary(max_size=3),
    st.floats(0, 1e9),
    st.lists(st.floats(0, 100) | st.floats(0, 2**32), min_size=1, max_size=5).map(sorted),
)
def test_every_ttl_runs_down_as_in_the_pipeline(
    hot: Hot, gaps: list[tuple[int, int]], end: bytes, stored: float, ages: list[float]
) -> None:
    """By the same function, to the same rounding, whatever was said in between; the other octets stay."""
    module, scan = hot("_batch_cy"), hot("_scan_cy")
    reply, ttls = bytes(10), []
    for gap, seconds in gaps:
        ttls.append((len(reply) + gap, seconds))
        reply += b"\xff" * gap + seconds.to_bytes(4, "big")
    reply += end
    memo = memo_with(module, reply=reply, ttls=tuple(ttls), stored=stored, until=1e12)
    for age in ages:
        now = stored + age
        window = Window(module)
        n = window.receive([(ALICE, b"\1\2" + ASKED)])
        window.batch.answer({ALICE: memo}, n, now, STAMP)
        ((_, _, said, _),) = window.send()
        assert said[2:] == scan.age(reply, tuple(ttls), int(now - stored))


@pytest.mark.parametrize("ttl", [(16, 300), (-1, 300), (4, -1), (4, 1 << 31), (1 << 40, 1)])
def test_a_ttl_outside_the_reply_is_refused(hot: Hot, ttl: tuple[int, int]) -> None:
    """The compiled loop writes where it says."""
    with pytest.raises(ValueError, match="a TTL"):
        ready(hot("_batch_cy"), reply=bytes(19), ttls=(ttl,), until=5.0)


def test_an_answer_ages_from_what_it_was_not_from_what_it_became(hot: Hot) -> None:
    """Asked at many moments, each answer has the TTL of its moment, to the second."""
    module = hot("_batch_cy")
    window = Window(module)
    memo = memo_with(module, reply=SAID + (300).to_bytes(4, "big"), until=400.0, stored=100.0, ttls=((len(SAID), 300),))
    ttls = []
    for now in (100.0, 110.0, 110.999999, 111.0, 150.5, 399.0):
        window.batch.answer({ALICE: memo}, window.receive([(ALICE, b"\0\1" + ASKED)]), now, STAMP)
        ttls += [int.from_bytes(octets[-4:], "big") for _, _, octets, _ in window.send()]

    assert ttls == [300, 290, 290, 289, 250, 1]


def test_hits_are_joined_in_the_order_of_the_datagrams(hot: Hot) -> None:
    """Prefix, time, the client's sockaddr, tail; an answer without a rule leaves none."""
    module = hot("_batch_cy")
    window = Window(module)
    memo = module.ViewMemo(1000)
    memo.put(ASKED, ready(module, hit_prefix=b"one<", hit_tail=b">", cell=1))
    memo.put(ASKED + b"2", ready(module))
    memo.put(ASKED + b"3", ready(module, hit_prefix=b"two[", hit_tail=b"]", cell=2))
    datagrams = [(ALICE, ASKED + b"3"), (ALICE, ASKED + b"2"), (STRANGER, ASKED), (ALICE, ASKED), (ALICE, ASKED)]
    n = window.receive([(address, b"\0\1" + octets) for address, octets in datagrams])

    hits = window.batch.answer({ALICE: memo}, n, 0.0, STAMP)

    sockaddrs = [window.sockaddr(ALICE, 5353 + slot) for slot in (0, 3, 4)]
    assert hits == b"".join([
        b"two[", STAMP, sockaddrs[0], b"]", b"one<", STAMP, sockaddrs[1], b">", b"one<", STAMP, sockaddrs[2], b">",
    ])  # fmt: skip
    assert window.batch.outcome() == (4, [2], 3)
    assert window.counts.tolist()[:5] == [0, 2, 1, 1, 0]


def test_a_batch_full_of_the_longest_hits_is_recorded_whole(hot: Hot) -> None:
    """As many as there are slots, each as long as a hit may be; and the batch after it too."""
    module = hot("_batch_cy")
    window = Window(module)
    tail = bytes(range(256)) * (module.TAIL_OCTETS // 256)
    memo = memo_with(module, hit_prefix=b"long", hit_tail=tail)
    for _ in range(2):
        hits = window.batch.answer({ALICE: memo}, window.receive([(ALICE, b"\0\1" + ASKED)] * SLOTS), 0.0, STAMP)
        assert hits == b"".join(b"long" + STAMP + window.sockaddr(ALICE, 5353 + i) + tail for i in range(SLOTS))


def test_the_newer_half_of_what_was_learned_is_known(hot: Hot) -> None:
    """Room for twenty: the last ten are always there, there are never more than twenty, and the eldest are gone."""
    module = hot("_batch_cy")
    window = Window(module)
    memo = module.ViewMemo(20)
    keys = [ASKED + bytes((i,)) for i in range(100)]
    for i, key in enumerate(keys):
        memo.put(key, ready(module))
        known = []
        for chunk in range(0, i + 1, SLOTS):
            asked = [(ALICE, b"\0\1" + learned) for learned in keys[chunk : min(i + 1, chunk + SLOTS)]]
            window.batch.answer({ALICE: memo}, window.receive(asked), 0.0, STAMP)
            known += [chunk + slot for slot in range(len(asked)) if slot not in window.batch.outcome()[1]]
        assert known == list(range(i + 1 - len(known), i + 1))
        assert min(i + 1, 10) <= len(known) == memo.size() <= 20


def test_what_was_let_go_can_be_learned_again(hot: Hot) -> None:
    """And a newer answer to the same question takes the place of the one before, in whichever half that stands."""
    module = hot("_batch_cy")
    window = Window(module)
    memo = module.ViewMemo(4)
    for i in range(10):
        memo.put(ASKED, ready(module, reply=SAID + bytes((i,))))
        memo.put(b"other%d" % i, ready(module))
        window.batch.answer({ALICE: memo}, window.receive([(ALICE, b"\0\1" + ASKED)]), 0.0, STAMP)
        assert [octets for _, _, octets, _ in window.send()] == [b"\0\1" + SAID + bytes((i,))]


def test_a_memo_holds_at_least_one_answer(hot: Hot) -> None:
    """However small it is told to be."""
    module = hot("_batch_cy")
    memo = module.ViewMemo(0)
    memo.put(ASKED, ready(module))
    window = Window(module)
    window.batch.answer({ALICE: memo}, window.receive([(ALICE, b"\0\1" + ASKED)]), 0.0, STAMP)

    assert window.batch.outcome()[0] == 1


@dataclass
class Model:
    """What a batch does, told in five lines."""

    known: dict[bytes, dict[bytes, tuple[bytes, int, bytes]]]
    sent: list[tuple[bytes, int, bytes]] = field(default_factory=list)
    passed: list[int] = field(default_factory=list)
    hits: int = 0

    def answer(self, datagrams: list[tuple[bytes, bytes]]) -> None:
        """Answer one batch."""
        for i, (address, octets) in enumerate(datagrams):
            found = self.known.get(address, {}).get(octets[2:])
            if found is None or len(octets) < 12:
                self.passed.append(i)
                continue
            reply, _, hit = found
            self.sent.append((address, 5353 + i, octets[:2] + reply))
            self.hits += bool(hit)


KEYS = [ASKED, ASKED + b"2", ASKED + b"3"]
REPLIES = st.tuples(st.binary(min_size=10, max_size=40), st.integers(0, 15), st.sampled_from([b"", b"hit:"]))
KNOWN = st.dictionaries(st.sampled_from([ALICE, BOB]), st.dictionaries(st.sampled_from(KEYS), REPLIES))
DATAGRAMS = st.tuples(
    st.sampled_from([ALICE, BOB, STRANGER]),
    st.sampled_from([b"\0\1" + KEYS[0], b"\0\2" + KEYS[1], b"\0\3" + KEYS[2], b"x"]),
)


@PROPERTY
@given(KNOWN, st.lists(st.lists(DATAGRAMS, max_size=SLOTS), max_size=4))
def test_any_mix_leaves_in_order_and_to_the_right_address(
    hot: Hot, known: dict[bytes, dict[bytes, tuple[bytes, int, bytes]]], batches: list[list[tuple[bytes, bytes]]]
) -> None:
    """Over several batches on the same buffers: replies, what is passed on, hits, counters."""
    module = hot("_batch_cy")
    window = Window(module)
    sources = {}
    for address, answers in known.items():
        sources[address] = module.ViewMemo(1000)
        for key, (reply, cell, hit) in answers.items():
            sources[address].put(key, ready(module, reply, cell=cell, hit_prefix=hit, hit_tail=hit))
    total = 0
    for datagrams in batches:
        model = Model(known)
        model.answer(datagrams)
        hits = window.batch.answer(sources, window.receive(datagrams), 0.0, STAMP)
        total += len(model.sent)

        assert [(address, port, octets) for address, port, octets, _ in window.send()] == model.sent
        assert window.batch.outcome() == (len(model.sent), model.passed, model.hits)
        assert len(hits) == model.hits * (4 + len(STAMP) + SOCKADDR + 4)
    assert sum(window.counts) == total
