"""Questions relayed from the batch, as buffers; what comes of them is in `tests/unit/engine/test_relaying.py`."""

import ctypes
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from resolver.engine.cache import Entry, cache_key
from resolver.hot._memo_cy import Answers
from resolver.observe.record import sockaddr
from resolver.wire.message import Answer, write_query
from tests.support.build import RD, TO_QUESTION, opt, policy, query, record, reply
from tests.support.peers import skip_or_fail
from tests.support.upstream import Slots

Hot = Callable[[str], ModuleType]
LOCAL = b"\5local\0"
ADDRESS = record(TO_QUESTION, 1, b"\xc0\0\2\1")
CONTROL = b"an IP_PKTINFO message, aligned  "
DRAWN = b"".join(n.to_bytes(2, "big") for n in range(500, 580))


@pytest.fixture
def relaying(hot: Hot) -> ModuleType:
    """The compiled module, or the end of the test."""
    module = hot("_relay_cy")
    if not module.relays():
        pytest.skip("plain Python relays nothing")
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


@dataclass
class Rig:
    """A relay, the window in front of it and the socket behind it."""

    module: ModuleType
    address: str = "192.0.2.7"
    most: tuple[int, int] = (100, 100)
    memo: Memo = field(default_factory=Memo)
    waiting: dict[int, Any] = field(default_factory=dict)
    said: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    again: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    settled: list[tuple[list[Any], int]] = field(default_factory=list)
    forgotten: list[bytes] = field(default_factory=list)
    adopted: list[tuple[bytes, object, float]] = field(default_factory=list)
    entries: dict[bytes, Entry] = field(default_factory=dict)
    under_way: dict[bytes, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        is_6 = ":" in self.address
        self.asked, self.names, self.controls = Slots(512), Slots(28), Slots(64)
        self.headers = mmap.mmap(-1, 64 * 64)
        self.late, self.late_names, self.late_controls = Slots(512), Slots(28), Slots(64)
        self.late_headers = mmap.mmap(-1, 64 * 64)
        self.out, self.replies = Slots(512), Slots(2048)
        self.counts = memoryview(bytearray(8 * 8)).cast("Q")
        self.outlet = self.module.Outlet(
            (self.asked.at, self.names.at, self.controls.at, _at(self.headers), 0),
            (self.late.at, self.late_names.at, self.late_controls.at, _at(self.late_headers), self.late.vectors_at),
            (512, 28, 64), is_6, self._send, lambda *what: self.again.append(what),
        )  # fmt: skip
        lane = self.module.Lane(policy().table, self.memo, False, lambda qtype, rcode: (1, 2))
        self.shelf = Answers(1 << 20)
        self.relay = self.module.Relay(
            self.entries, self.shelf, self.forgotten.append, {}, self.under_way, self.most,
            {LOCAL: None}, frozenset({LOCAL}), self.counts, 3, (0, 86400, 3600),
            lambda memo: lane, self._adopt, lambda *what: self.settled.append(what),
        )  # fmt: skip

    def _send(self, ready: int) -> None:
        words = memoryview(self.late_headers).cast("Q")
        for k in range(ready):
            said = self.late.octets(k, self.late.vectors[2 * k + 1])
            self.said.append((said, self.late_names.octets(k, 28), self.late_controls.octets(k, words[8 * k + 5])))

    def _adopt(self, key: bytes, upstream: object, started: float) -> object:
        self.adopted.append((key, upstream, started))
        return self

    def offer(self, *packets: bytes, now: float = 100.0) -> list[int]:
        """Receive datagrams and offer them all."""
        words, lengths = memoryview(self.headers).cast("Q"), memoryview(self.headers).cast("I")
        for i, packet in enumerate(packets):
            self.asked.put(i, packet)
            self.names.put(i, sockaddr(self.address, 4000 + i))
            self.controls.put(i, CONTROL)
            words[8 * i + 5] = len(CONTROL)
            lengths[16 * i + 14] = len(packet)
        packed = sockaddr(self.address, 1)
        source = packed[8:24] if ":" in self.address else packed[4:8]
        rest: list[int] = self.relay.offer(self.outlet, list(range(len(packets))), {source: self.memo}, "upstream", now)
        return rest

    def write(self, drawn: bytes = DRAWN, ready: int = 0) -> list[bytes]:
        """Write what is staged; the queries."""
        count = self.relay.write((self.out.at, self.out.vectors_at, 512), ready, self.waiting, drawn, 7.0)
        return [self.out.octets(k, self.out.vectors[2 * k + 1]) for k in range(ready, count)]

    def take(self, *replies: bytes, now: float = 100.5) -> list[int]:
        """Receive replies."""
        for k, octets in enumerate(replies):
            self.replies.put(k, octets)
        rest: list[int] = self.relay.take(
            (self.replies.at, 2048), self.replies.received, len(replies), self.waiting, lambda upstream: False, now
        )
        return rest


def _at(room: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(room))


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
    rig = Rig(relaying)
    asked = query("wWw.example.ORG", 28, flags=RD | (0x10 if cd else 0), additional=(opt(do=do, octets=4096),))

    assert rig.offer(asked) == []
    (sent,) = rig.write()

    assert sent == write_query(b"\3www\7example\3org\0", 28, 500, do=do, cd=cd, edns=True, udp_octets=1232)
    ((waiter, octets, due),) = rig.waiting.values()
    assert (octets, due) == (sent, 7.0)
    assert rig.under_way == {cache_key(b"\3www\7example\3org\0", 28, do=do, cd=cd): waiter}


def test_an_id_that_is_taken_is_drawn_again(relaying: ModuleType) -> None:
    """What the randomness does not suffice for stays staged."""
    rig = Rig(relaying)
    rig.waiting[500] = rig.waiting[501] = ("somebody", b"", 0.0)
    assert rig.offer(query("a.example"), query("b.example")) == []

    assert [octets[:2] for octets in rig.write(DRAWN[:6])] == [(502).to_bytes(2, "big")]
    assert rig.relay.is_staged()
    assert [octets[:2] for octets in rig.write(DRAWN[6:], ready=1)] == [(503).to_bytes(2, "big")]
    assert not rig.relay.is_staged()


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_a_reply_leaves_to_who_asked_from_where_he_asked(relaying: ModuleType, address: str) -> None:
    """With the sender's address, port and control message, under his id and in his letters; all that is counted."""
    rig = Rig(relaying, address)
    first, second = query("wWw.example.org", message_id=1), query("www.EXAMPLE.org", additional=(opt(),), message_id=2)
    assert rig.offer(first, second) == []
    (sent,) = rig.write()
    assert len(rig.relay) == 2

    assert rig.take(reply(sent, [ADDRESS], [], [opt()])) == []

    assert rig.said == [
        (reply(first, [ADDRESS]), sockaddr(address, 4000), CONTROL),
        (reply(second, [ADDRESS], [], [opt()]), sockaddr(address, 4001), CONTROL),
    ]
    assert (len(rig.relay), rig.waiting, rig.under_way) == (0, {}, {})
    assert rig.counts.tolist()[:4] == [0, 2, 0, 2]
    assert rig.settled == [([("upstream", 100.0, 1)], 2)]
    kept = rig.shelf.find(cache_key(b"\3www\7example\3org\0", 1, do=False, cd=False))
    assert kept == (400.5, 100.5, 0, reply(sent, [ADDRESS], [], [opt()]))


def test_what_a_memo_learns_is_laid_out_as_it_reads_it(relaying: ModuleType) -> None:
    """Times, counter, sizes; then the query and the reply less their ids, and the TTLs with their places."""
    rig = Rig(relaying)
    asked = query()
    rig.offer(asked)
    (sent,) = rig.write()
    rig.take(reply(sent, [ADDRESS]))

    (learned,) = rig.memo.learned
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
    rig = Rig(relaying)
    key = cache_key(b"\3www\7example\3org\0", 1, do=False, cd=False)
    rig.entries[key] = Entry(Answer(0), 0.0, expires, 0, retry_at)

    assert rig.offer(query()) == ([] if is_asked else [0])
    if is_asked:
        rig.take(reply(rig.write()[0], [ADDRESS]))
        assert rig.forgotten == [key]


def test_what_was_relayed_is_known_until_it_expires(relaying: ModuleType) -> None:
    """From then on it is asked again."""
    rig = Rig(relaying)
    rig.offer(query())
    rig.take(reply(rig.write()[0], [ADDRESS]))

    assert rig.offer(query("WWW.example.org"), now=400.0) == [0]
    assert rig.offer(query("WWW.example.org"), now=401.0) == []
    rig.take(reply(rig.write()[0], [ADDRESS]), now=402.0)
    assert rig.shelf.find(*rig.forgotten)[:2] == (702.0, 402.0)


def test_who_is_not_ours_is_left_alone(relaying: ModuleType) -> None:
    """Replies under ids that nobody waits for, of others' questions, too short, or to another question."""
    rig = Rig(relaying)
    rig.offer(query("a.example"))
    (sent,) = rig.write()
    rig.waiting[77] = ("somebody", b"", 0.0)
    other = reply(query("b.example", message_id=500), [ADDRESS])

    assert rig.take(reply(query(message_id=9)), reply(query(message_id=77)), b"\1\xf4", other) == [0, 1, 2, 3]
    assert rig.take(reply(sent, [ADDRESS])) == []
    assert set(rig.waiting) == {77}


def test_a_question_that_is_handed_over_takes_its_clients_along(relaying: ModuleType) -> None:
    """Each begins again; replies go to the forwarder's question from then on."""
    rig = Rig(relaying)
    packets = [query("a.example", message_id=1), query("A.example", message_id=2)]
    rig.offer(*packets)
    rig.write()
    ((waiter, _, _),) = rig.waiting.values()

    assert waiter.hand_over() is rig
    assert waiter.hand_over() is rig

    assert rig.adopted == [(cache_key(b"\1a\7example\0", 1, do=False, cd=False), "upstream", 100.0)]
    assert [(packet, address) for packet, address, _ in rig.again] == [
        (packet, sockaddr(rig.address, 4000 + k)) for k, packet in enumerate(packets)
    ]
    assert {control for _, _, control in rig.again} == {CONTROL}
    assert len(rig.relay) == 0


def test_a_closed_lane_answers_nobody(relaying: ModuleType) -> None:
    """Its replies are the pipeline's to judge."""
    rig = Rig(relaying)
    rig.offer(query())
    (sent,) = rig.write()
    rig.relay.close_lanes()

    assert rig.take(reply(sent, [ADDRESS])) == [0]
    assert rig.said == []


def test_there_is_a_limit_to_questions_and_to_who_waits(relaying: ModuleType) -> None:
    """What is beyond is passed on."""
    rig = Rig(relaying, most=(2, 3))
    packets = [query(f"{label}.example") for label in "aabbcc"]

    assert rig.offer(*packets) == [3, 4, 5]


def test_who_can_not_be_asked_is_told(relaying: ModuleType) -> None:
    """A socket that can not be opened hands all that is staged over."""
    failed: list[OSError] = []
    rig = Rig(relaying)
    rig.fail = failed.append  # type: ignore[attr-defined]
    rig.offer(query("a.example"), query("b.example"))

    error = OSError("no descriptor")
    rig.relay.give_up(error)

    assert failed == [error, error]
    assert (len(rig.again), rig.relay.is_staged()) == (2, False)
