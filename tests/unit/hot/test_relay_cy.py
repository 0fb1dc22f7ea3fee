"""Questions relayed from the batch, as buffers; what comes of them is in `tests/unit/engine/test_relaying.py`."""

import struct
from collections.abc import Callable
from types import ModuleType

import pytest

from resolver.engine.cache import Entry, cache_key
from resolver.hot._memo_cy import Answers
from resolver.observe.record import sockaddr
from resolver.wire.message import Answer, write_query
from tests.support.build import RD, opt, query, reply
from tests.support.peers import skip_or_fail
from tests.support.rig import ADDRESS, CONTROL, DRAWN, Rig

Hot = Callable[[str], ModuleType]


@pytest.fixture
def relaying(hot: Hot) -> ModuleType:
    """The compiled module, or the end of the test."""
    module = hot("_relay_cy")
    if not module.relays():
        pytest.skip("plain Python has a relay of its own")
    if module.__file__.endswith(".py"):
        skip_or_fail("resolver.hot._relay_cy is not compiled (Debian packages gcc and libc6-dev, then tests/run)")
    return module


class Memo:
    """A memo that writes down what it learns."""

    def __init__(self) -> None:
        self.learned: list[bytes] = []

    def learn(self, records: bytes, octets: int) -> None:
        """Take records."""
        self.learned.append(bytes(records[:octets]))


def rig(relaying: ModuleType, address: str = "192.0.2.7", most: tuple[int, int] = (100, 100)) -> Rig:
    """A rig of the compiled build."""
    return Rig(relaying, relaying.Relay, Answers(1 << 20), Memo(), address, most)


def test_an_outlet_sends_what_stands_ready_when_it_is_full(hot: Hot) -> None:
    """Or when it is told to; of nothing it sends nothing."""
    sent: list[int] = []
    rooms = (0, 0, 0, 0, 0)
    outlet = hot("_relay_cy").Outlet(rooms, rooms, (512, 28, 64), False, sent.append, lambda *what: None)

    outlet.flush()
    slots = [outlet.claim() for _ in range(65)]
    assert (outlet.is_empty(), sent) == (False, [64])
    outlet.flush()

    assert slots == [*range(64), 0]
    assert (outlet.is_empty(), sent) == (True, [64, 1])


def test_a_lane_seeks_a_counter_once(hot: Hot) -> None:
    """And holds no more of them than it can."""
    sought: list[tuple[int, int]] = []
    lane = hot("_relay_cy").Lane(None, None, False, lambda *what: sought.append(what) or (len(sought), 0))

    assert lane.cells_of(1, 0) == (1, 0)
    for qtype in range(5000):
        lane.cells_of(qtype, 3)
    assert len(sought) == 5001


@pytest.mark.parametrize(("do", "cd"), [(False, False), (True, True)])
def test_a_query_is_written_as_the_forwarder_writes_it(relaying: ModuleType, do: bool, cd: bool) -> None:
    """Lower-cased, with our own OPT, under an id that was drawn; the reply is waited for."""
    built = rig(relaying)
    asked = query("wWw.example.ORG", 28, flags=RD | (0x10 if cd else 0), additional=(opt(do=do, octets=4096),))

    assert built.offer(asked) == []
    (sent,) = built.write()

    assert sent == write_query(b"\3www\7example\3org\0", 28, 500, do=do, cd=cd, edns=True, udp_octets=1232)
    ((waiter, octets, due),) = built.waiting.values()
    assert (octets, due) == (sent, 7.0)
    assert built.under_way == {cache_key(b"\3www\7example\3org\0", 28, do=do, cd=cd): waiter}


def test_an_id_that_is_taken_is_drawn_again(relaying: ModuleType) -> None:
    """What the randomness does not suffice for stays staged."""
    built = rig(relaying)
    built.waiting[500] = built.waiting[501] = ("somebody", b"", 0.0)
    assert built.offer(query("a.example"), query("b.example")) == []

    assert [octets[:2] for octets in built.write(DRAWN[:6])] == [(502).to_bytes(2, "big")]
    assert built.relay.is_staged()
    assert [octets[:2] for octets in built.write(DRAWN[6:], ready=1)] == [(503).to_bytes(2, "big")]
    assert not built.relay.is_staged()


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_a_reply_leaves_to_who_asked_from_where_he_asked(relaying: ModuleType, address: str) -> None:
    """With the sender's address, port and control message, under his id and in his letters; all that is counted."""
    built = rig(relaying, address)
    first, second = query("wWw.example.org", message_id=1), query("www.EXAMPLE.org", additional=(opt(),), message_id=2)
    assert built.offer(first, second) == []
    (sent,) = built.write()
    assert len(built.relay) == 2

    assert built.take(reply(sent, [ADDRESS], [], [opt()])) == []

    assert built.said == [
        (reply(first, [ADDRESS]), sockaddr(address, 4000), CONTROL),
        (reply(second, [ADDRESS], [], [opt()]), sockaddr(address, 4001), CONTROL),
    ]
    assert (len(built.relay), built.waiting, built.under_way) == (0, {}, {})
    assert built.counts.tolist()[:4] == [0, 2, 0, 2]
    assert built.settled == [([("upstream", 100.0, 1)], [(100.0, 2)], 2)]
    kept = built.shelf.find(cache_key(b"\3www\7example\3org\0", 1, do=False, cd=False))
    assert kept == (400.5, 100.5, 0, reply(sent, [ADDRESS], [], [opt()]))


def test_what_a_memo_learns_is_laid_out_as_it_reads_it(relaying: ModuleType) -> None:
    """Times, counter, sizes; then the query and the reply less their ids, and the TTLs with their places."""
    built = rig(relaying)
    asked = query()
    built.offer(asked)
    (sent,) = built.write()
    built.take(reply(sent, [ADDRESS]))

    (learned,) = built.memo.learned
    said = reply(asked, [ADDRESS])[2:]
    until, stored, cell, key_octets, octets, ttls, tail, prefix = struct.unpack_from("<ddIHHHH4s", learned)
    assert (until, stored, cell, tail, prefix) == (400.5, 100.5, 2, 0, b"\0" * 4)
    assert learned[32 : 32 + key_octets + octets] == asked[2:] + said
    place, ttl = struct.unpack_from("<II", learned, 32 + key_octets + octets)
    assert (ttls, ttl, said[place : place + 4]) == (1, 300, (300).to_bytes(4, "big"))
    assert len(learned) % 8 == 0


@pytest.mark.parametrize(
    ("expires", "retry_at", "is_asked"),
    [(99.0, 0.0, True), (100.0, 100.0, True), (100.5, 0.0, False), (99.0, 101.0, False)],
)
def test_what_is_kept_is_asked_again_when_it_is_stale(
    relaying: ModuleType, expires: float, retry_at: float, is_asked: bool
) -> None:
    """Unless a refresh failed lately; the new answer takes the place of the old."""
    built = rig(relaying)
    key = cache_key(b"\3www\7example\3org\0", 1, do=False, cd=False)
    built.entries[key] = Entry(Answer(0), 0.0, expires, 0, retry_at)

    assert built.offer(query()) == ([] if is_asked else [0])
    if is_asked:
        built.take(reply(built.write()[0], [ADDRESS]))
        assert built.forgotten == [key]


def test_what_was_relayed_is_known_until_it_expires(relaying: ModuleType) -> None:
    """From then on it is asked again."""
    built = rig(relaying)
    built.offer(query())
    built.take(reply(built.write()[0], [ADDRESS]))

    assert built.offer(query("WWW.example.org"), now=400.0) == [0]
    assert built.offer(query("WWW.example.org"), now=401.0) == []
    built.take(reply(built.write()[0], [ADDRESS]), now=402.0)
    assert built.shelf.find(*built.forgotten)[:2] == (702.0, 402.0)


def test_who_is_not_ours_is_left_alone(relaying: ModuleType) -> None:
    """Replies under ids that nobody waits for, of others' questions, too short, or to another question."""
    built = rig(relaying)
    built.offer(query("a.example"))
    (sent,) = built.write()
    built.waiting[77] = ("somebody", b"", 0.0)
    other = reply(query("b.example", message_id=500), [ADDRESS])

    assert built.take(reply(query(message_id=9)), reply(query(message_id=77)), b"\1\xf4", other) == [0, 1, 2, 3]
    assert built.take(reply(sent, [ADDRESS])) == []
    assert set(built.waiting) == {77}


def test_a_question_that_is_handed_over_takes_its_clients_along(relaying: ModuleType) -> None:
    """Each begins again; replies go to the forwarder's question from then on."""
    built = rig(relaying)
    packets = [query("a.example", message_id=1), query("A.example", message_id=2)]
    built.offer(*packets)
    built.write()
    ((waiter, _, _),) = built.waiting.values()

    assert waiter.hand_over() is built
    assert waiter.hand_over() is built

    assert built.adopted == [(cache_key(b"\1a\7example\0", 1, do=False, cd=False), "upstream", 100.0)]
    assert [(packet, address) for packet, address, _, _ in built.again] == [
        (packet, sockaddr(built.address, 4000 + k)) for k, packet in enumerate(packets)
    ]
    assert {(control, begun) for _, _, control, begun in built.again} == {(CONTROL, 100.0)}
    assert len(built.relay) == 0


def test_a_closed_lane_answers_nobody(relaying: ModuleType) -> None:
    """Its replies are the pipeline's to judge."""
    built = rig(relaying)
    built.offer(query())
    (sent,) = built.write()
    built.relay.close_lanes()

    assert built.take(reply(sent, [ADDRESS])) == [0]
    assert built.said == []


def test_there_is_a_limit_to_questions_and_to_who_waits(relaying: ModuleType) -> None:
    """What is beyond is passed on."""
    built = rig(relaying, most=(2, 3))
    packets = [query(f"{label}.example") for label in "aabbcc"]

    assert built.offer(*packets) == [3, 4, 5]


def test_who_can_not_be_asked_is_told(relaying: ModuleType) -> None:
    """A socket that can not be opened hands all that is staged over."""
    failed: list[OSError] = []
    built = rig(relaying)
    built.fail = failed.append  # type: ignore[attr-defined]
    built.offer(query("a.example"), query("b.example"))

    error = OSError("no descriptor")
    built.relay.give_up(error)

    assert failed == [error, error]
    assert (len(built.again), built.relay.is_staged()) == (2, False)


class Forgetful(Memo):
    """A memo that has no memory left."""

    def learn(self, records: bytes, octets: int) -> None:
        """Fail."""
        raise MemoryError


def test_what_can_not_be_learned_is_answered_all_the_same(relaying: ModuleType) -> None:
    """The replies leave, nobody is left waiting, and the next turn is not hurt by it."""
    built = Rig(relaying, relaying.Relay, Answers(1 << 20), Forgetful())
    built.offer(query("a.example"), query("A.example"))
    with pytest.raises(MemoryError):
        built.take(reply(built.write()[0], [ADDRESS]))

    assert (len(built.said), len(built.relay), built.under_way) == (2, 0, {})
    built.memo.__class__ = Memo
    built.memo.learned = []
    built.offer(query("b.example"))
    assert built.take(reply(built.write()[0], [ADDRESS])) == []
    assert (len(built.said), len(built.memo.learned)) == (3, 1)


def test_many_who_wait_for_one_question_are_let_go_one_by_one(relaying: ModuleType) -> None:
    """However long the chain of them is."""
    built = rig(relaying, most=(100, 1 << 20))
    for _ in range(2000):
        assert built.offer(*[query("a.example")] * 60) == []
    assert built.take(reply(built.write()[0], [ADDRESS])) == []

    assert (len(built.said), len(built.relay)) == (120_000, 0)


def test_a_reply_that_fits_nobody_is_not_read(relaying: ModuleType) -> None:
    """It is the pipeline's, which asks over TCP."""
    built = rig(relaying)
    built.offer(query(additional=(opt(octets=4096),)))
    (sent,) = built.write()

    assert built.take(reply(sent, [ADDRESS] * 76)) == [0]
    assert built.take(reply(sent, [ADDRESS] * 60)) == []
