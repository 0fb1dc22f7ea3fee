"""Questions relayed from the batch by plain Python, as buffers; what comes of them is in
`tests/unit/engine/test_relaying.py`."""

import pytest

from resolver.engine.cache import Entry, cache_key
from resolver.hot import relay_plain
from resolver.hot.relay_shapes import Shelf
from resolver.observe.record import sockaddr
from resolver.wire.message import Answer, write_query
from tests.support.build import RD, opt, query, reply
from tests.support.plain import load_uncompiled
from tests.support.rig import ADDRESS, CONTROL, DRAWN, Rig

WWW = cache_key(b"\3www\7example\3org\0", 1, do=False, cd=False)


def rig_of(monkeypatch: pytest.MonkeyPatch, address: str = "192.0.2.7", most: tuple[int, int] = (100, 100)) -> Rig:
    """A plain relay, with a plain memo whatever is compiled."""
    batch = load_uncompiled("resolver.hot._batch_cy")
    monkeypatch.setattr(relay_plain, "Ready", batch.Ready)
    memo = batch.ViewMemo(1000)
    module = load_uncompiled("resolver.hot._relay_cy")
    return Rig(module, relay_plain.Relay, Shelf(), memo, address, most, ("suffix chat.example",))


@pytest.mark.parametrize(("do", "cd"), [(False, False), (True, True)])
def test_a_query_is_written_as_the_forwarder_writes_it(monkeypatch: pytest.MonkeyPatch, do: bool, cd: bool) -> None:
    """Lower-cased, with our own OPT, under an id that was drawn; the reply is waited for."""
    rig = rig_of(monkeypatch)
    asked = query("wWw.example.ORG", 28, flags=RD | (0x10 if cd else 0), additional=(opt(do=do, octets=4096),))

    assert rig.offer(asked) == []
    (sent,) = rig.write()

    assert sent == write_query(b"\3www\7example\3org\0", 28, 500, do=do, cd=cd, edns=True, udp_octets=1232)
    ((waiter, octets, due),) = rig.waiting.values()
    assert (octets, due) == (sent, 7.0)
    assert rig.under_way == {cache_key(b"\3www\7example\3org\0", 28, do=do, cd=cd): waiter}


def test_an_id_that_is_taken_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the randomness does not suffice for stays staged, as does what there is no slot for."""
    rig = rig_of(monkeypatch)
    rig.waiting[500] = rig.waiting[501] = ("somebody", b"", 0.0)
    assert rig.offer(*[query(f"{label}.example") for label in "abcd"]) == []

    assert [octets[:2] for octets in rig.write(DRAWN[:6])] == [(502).to_bytes(2, "big")]
    assert rig.relay.is_staged()
    assert [octets[:2] for octets in rig.write(DRAWN[6:], ready=62)] == [(n).to_bytes(2, "big") for n in (503, 504)]
    assert rig.relay.is_staged()
    assert [octets[:2] for octets in rig.write(DRAWN[10:])] == [(505).to_bytes(2, "big")]
    assert not rig.relay.is_staged()


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_a_reply_leaves_to_who_asked_from_where_he_asked(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """With the sender's address, port and control message, under his id and in his letters; all that is counted."""
    rig = rig_of(monkeypatch, address)
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
    assert rig.settled == [([("upstream", 100.0, 1)], [(100.0, 2)], 2)]
    assert rig.shelf.find(WWW) == (400.5, 100.5, 0, reply(sent, [ADDRESS], [], [opt()]))
    assert (rig.memo.young[first[2:]].until, rig.memo.young[first[2:]].cell) == (400.5, 2)


def test_more_replies_than_slots_leave_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many at a time as there are slots, whatever stands ready there already."""
    rig = rig_of(monkeypatch)
    rig.outlet.claim()
    packets = [query("www.example.org", message_id=n) for n in range(64)]
    rig.offer(*packets)

    rig.take(reply(rig.write()[0], [ADDRESS]))

    assert [said for said, _, _ in rig.said[1:]] == [reply(packet, [ADDRESS]) for packet in packets]
    assert rig.outlet.is_empty()


@pytest.mark.parametrize(
    ("expires", "retry_at", "is_asked"),
    [(99.0, 0.0, True), (100.0, 100.0, True), (100.5, 0.0, False), (99.0, 101.0, False)],
)
def test_what_is_kept_is_asked_again_when_it_is_stale(
    monkeypatch: pytest.MonkeyPatch, expires: float, retry_at: float, is_asked: bool
) -> None:
    """Unless a refresh failed lately; the new answer takes the place of the old."""
    rig = rig_of(monkeypatch)
    rig.entries[WWW] = Entry(Answer(0), 0.0, expires, 0, retry_at)

    assert rig.offer(query()) == ([] if is_asked else [0])
    if is_asked:
        rig.take(reply(rig.write()[0], [ADDRESS]))
        assert rig.forgotten == [WWW]


def test_what_was_relayed_is_answered_with_until_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever spelling, aged, learned by the memo and counted as its answer; from then on it is asked again."""
    rig = rig_of(monkeypatch)
    rig.offer(query())
    rig.take(reply(rig.write()[0], [ADDRESS]))
    rig.said.clear()
    again = query("WWW.example.org")

    assert rig.offer(again, now=110.7) == []
    aged = ADDRESS[:6] + (290).to_bytes(4, "big") + ADDRESS[10:]
    assert rig.said == [(reply(again, [aged]), sockaddr(rig.address, 4000), CONTROL)]
    assert (rig.counts.tolist()[:4], rig.settled[1:]) == ([0, 1, 1, 1], [([], [], 1)])
    assert rig.memo.young[again[2:]].until == 400.5
    assert not rig.relay.is_staged()

    assert rig.offer(again, now=401.0) == []
    assert rig.relay.is_staged()


def test_a_policy_that_came_meanwhile_judges_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What leads to a listed name is the pipeline's, whoever it was fetched for."""
    rig = rig_of(monkeypatch)
    alias = b"\xc0\x0c\0\5\0\1\0\0\1\x2c\0\x0e\4chat\7example\0"
    rig.shelf.keep(WWW, 100.0, 400.0, False, reply(query(), [alias]))

    assert rig.offer(query()) == [0]


def test_who_is_not_ours_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies under ids that nobody waits for, of others' questions, too short, or to another question."""
    rig = rig_of(monkeypatch)
    rig.offer(query("a.example"))
    (sent,) = rig.write()
    rig.waiting[77] = ("somebody", b"", 0.0)
    other = reply(query("b.example", message_id=500), [ADDRESS])

    assert rig.take(reply(query(message_id=9)), reply(query(message_id=77)), b"\1\xf4", other) == [0, 1, 2, 3]
    assert rig.take(reply(sent, [ADDRESS])) == []
    assert set(rig.waiting) == {77}


def test_a_question_that_is_handed_over_takes_its_clients_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each begins again; replies go to the forwarder's question from then on."""
    rig = rig_of(monkeypatch)
    packets = [query("a.example", message_id=1), query("A.example", message_id=2)]
    rig.offer(*packets)
    (sent,) = rig.write()
    ((waiter, _, _),) = rig.waiting.values()

    assert waiter.hand_over() is rig
    assert waiter.hand_over() is rig

    assert rig.adopted == [(cache_key(b"\1a\7example\0", 1, do=False, cd=False), "upstream", 100.0)]
    assert rig.again == [(packet, sockaddr(rig.address, 4000 + k), CONTROL, 100.0) for k, packet in enumerate(packets)]
    assert len(rig.relay) == 0
    assert rig.take(reply(sent, [ADDRESS])) == [0]


def test_a_closed_lane_answers_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its replies are the pipeline's to judge."""
    rig = rig_of(monkeypatch)
    rig.offer(query())
    (sent,) = rig.write()
    rig.relay.close_lanes()

    assert rig.take(reply(sent, [ADDRESS])) == [0]
    assert rig.said == []


def test_there_is_a_limit_to_questions_and_to_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond is passed on."""
    rig = rig_of(monkeypatch, most=(2, 3))
    packets = [query(f"{label}.example") for label in "aabbcc"]

    assert rig.offer(*packets) == [3, 4, 5]


def test_who_can_not_be_asked_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that can not be opened hands all that is staged over."""
    failed: list[OSError] = []
    rig = rig_of(monkeypatch)
    rig.fail = failed.append  # type: ignore[attr-defined]
    rig.offer(query("a.example"), query("b.example"))

    error = OSError("no descriptor")
    rig.relay.give_up(error)

    assert failed == [error, error]
    assert (len(rig.again), rig.relay.is_staged()) == (2, False)
