"""The path of a query: what is decided where, what the memo may learn, and that it never says anything else."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resolver.engine.forwarder import ForwarderTerms
from resolver.engine.pipeline import Wanted
from resolver.observe.cells import read
from resolver.policy import source
from resolver.policy.additions import Exemption
from resolver.policy.client import Client, Transport
from resolver.policy.documents import Action, Basis, Mode
from resolver.policy.generation import Generation
from resolver.policy.judge import is_settled, judge_query
from resolver.policy.register import Device, Entry, Proof, Register, digest_of, write_register
from resolver.policy.terms import ZoneKind
from resolver.policy.zone import Rule
from resolver.wire import name as names
from resolver.wire.codes import Ede
from tests.support.clock import START_AT, FakeClock, run
from tests.support.house import BAN, Held, House, app, ask, client, generation, house, rpz, zone_of
from tests.support.stories import compare, use
from tests.support.upstream import FakeExchange, React, Said, fails, records, reply, silent

CHAT = app("chat", "chat.example", "=only.example")
ZONE = {
    "www.example.org A": ["www.example.org 60 IN A 192.0.2.1"],
    "short.example.org A": ["short.example.org 2 IN A 192.0.2.2"],
    "zero.example.org A": ["zero.example.org 0 IN A 192.0.2.3"],
    "cloak.example.org A": ["cloak.example.org 20 IN CNAME im.chat.example", "im.chat.example 20 IN A 192.0.2.4"],
    "cloak.example.org HTTPS": ["cloak.example.org 20 IN HTTPS 1 im.chat.example alpn=h2"],
    "big.example.org TXT": [f"big.example.org 30 IN TXT {'x' * 200}{n}" for n in range(10)],
    "a.only.example A": ["a.only.example 60 IN A 192.0.2.5"],
}


@pytest.fixture(autouse=True, params=[True, False], ids=["without a task", "in a task"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstreams are asked in both ways, with the same outcome."""
    monkeypatch.setattr(FakeExchange, "posts", request.param)


def answering(table: dict[str, list[str]] | None = None) -> FakeExchange:
    """An upstream that answers at once, so that asking it takes no time."""
    return FakeExchange(records(table or ZONE, delay=0))


def read_reply(octets: bytes | None) -> dns.message.Message:
    assert octets is not None
    return dns.message.from_wire(octets)


def edes(message: dns.message.Message) -> list[int]:
    return [int(option.code) for option in message.options if isinstance(option, dns.edns.EDEOption)]


# ---- a settled verdict ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rtype", ["A", "AAAA", "HTTPS", "SVCB", "TXT", "MX", "NS", "SOA", "DS", "ANY", "TYPE65280"])
@pytest.mark.parametrize("name", ["chat.example", "CHAT.Example", "a.b.chat.example", "only.example"])
def test_a_banned_name_is_never_asked_of_an_upstream(name: str, rtype: str) -> None:
    """NXDOMAIN with the policy zone's SOA and an Extended DNS Error, for every QTYPE, and nobody else is asked."""
    built = house(answering())

    message = run(built.clock, built.ask(name, rtype))

    assert message.rcode() == dns.rcode.NXDOMAIN
    assert edes(message) == [Ede.CENSORED]
    (soa,) = message.authority
    assert (soa.name.to_text(True).lower(), soa.ttl) == (name.lower().removeprefix("a.b."), 30)
    assert built.questions() == []


@pytest.mark.parametrize("name", ["a.only.example", "chat.example.org", "notchat.example", "example"])
def test_a_name_that_only_resembles_a_banned_one_is_forwarded(name: str) -> None:
    """Exact rules cover one name; suffixes end at a label's boundary."""
    built = house(answering())

    run(built.clock, built.ask(name))

    assert built.questions() == [f"{name} A"]


@pytest.mark.parametrize(
    ("action", "rtype", "rcode", "answer", "ede"),
    [
        (Action.NXDOMAIN, "A", "NXDOMAIN", [], Ede.CENSORED),
        (Action.NODATA, "A", "NOERROR", [], Ede.CENSORED),
        (Action.REFUSED, "A", "REFUSED", [], Ede.CENSORED),
        (Action.SINKHOLE, "A", "NOERROR", ["192.0.2.80"], Ede.FORGED_ANSWER),
        (Action.SINKHOLE, "AAAA", "NOERROR", ["2001:db8::80"], Ede.FORGED_ANSWER),
        (Action.SINKHOLE, "HTTPS", "NOERROR", [], Ede.FORGED_ANSWER),
    ],
)
def test_each_action_has_its_answer(action: Action, rtype: str, rcode: str, answer: list[str], ede: Ede) -> None:
    """What stands in the answer's place, and on whose word (RFC 8914 §4.5, §4.17)."""
    built = house(answering(), policy=generation(Held([CHAT], action=action)))

    message = run(built.clock, built.ask("chat.example", rtype))

    assert dns.rcode.to_text(message.rcode()) == rcode
    assert [rr.to_text() for rrset in message.answer for rr in rrset] == answer
    assert edes(message) == [ede]
    (hit,) = built.hits()
    assert (hit.action, hit.rcode, hit.ede, hit.qtype, hit.mode) == (action.value, rcode, int(ede), rtype, "enforce")


def test_ones_own_policy_says_blocked() -> None:
    """EDE 15 where nobody else imposes the order (RFC 8914 §4.16)."""
    built = house(policy=generation(Held([CHAT], basis=Basis.OWN_POLICY)))

    assert edes(run(built.clock, built.ask("chat.example"))) == [Ede.BLOCKED]


@pytest.mark.parametrize("times", [1, 3])
def test_drop_is_silence_and_a_hit_each_time(times: int) -> None:
    """The client hears nothing; the evidence does."""
    built = house(answering(), policy=generation(Held([CHAT], action=Action.DROP)))

    async def story() -> list[bytes | None]:
        return [await built.answer(ask("chat.example")) for _ in range(times)]

    assert run(built.clock, story()) == [None] * times
    assert [(hit.action, hit.rcode, hit.ede) for hit in built.hits()] == [("drop", "", None)] * times
    assert built.questions() == []


def test_an_observed_order_changes_nothing_but_the_evidence() -> None:
    """The answer is the upstream's; the hit says observe, and what the client really got."""
    zone = {"chat.example A": ["chat.example 60 IN A 192.0.2.9"]}
    built = house(answering(zone), policy=generation(Held([CHAT], mode=Mode.OBSERVE)))

    message = run(built.clock, built.ask("chat.example"))

    assert message.answer[0][0].to_text() == "192.0.2.9"
    assert edes(message) == []
    (hit,) = built.hits()
    assert (hit.mode, hit.rcode, hit.ede) == ("observe", "NOERROR", None)


@pytest.mark.parametrize("rtype", ["A", "HTTPS"])
def test_an_allowed_name_that_leads_to_a_banned_one_is_withheld(rtype: str) -> None:
    """CNAME and HTTPS targets are judged like names that were asked for; from the cache as well as fresh."""
    built = house(answering())

    async def story() -> list[dns.message.Message]:
        return [await built.ask("cloak.example.org", rtype) for _ in range(2)]

    for message in run(built.clock, story()):
        assert message.rcode() == dns.rcode.NXDOMAIN
        assert message.authority[0].name.to_text(True) == "cloak.example.org"
        assert message.answer == []
    assert [hit.rule for hit in built.hits()] == ["suffix chat.example"] * 2
    assert built.questions() == [f"cloak.example.org {rtype}"]


def test_rd_clear_does_not_get_round_an_order_nor_into_the_cache() -> None:
    """A banned name stays banned; what others asked is not told (cache snooping)."""
    built = house(answering())

    async def story() -> list[dns.message.Message]:
        await built.ask("www.example.org")
        return [await built.ask(name, rd=False) for name in ("chat.example", "www.example.org", "localhost")]

    banned, cached, local = run(built.clock, story())
    assert banned.rcode() == dns.rcode.NXDOMAIN
    assert (cached.rcode(), edes(cached)) == (dns.rcode.REFUSED, [Ede.NOT_AUTHORITATIVE])
    assert local.answer[0][0].to_text() == "127.0.0.1"


# ---- who asks -------------------------------------------------------------------------------------------------------


def test_a_stranger_is_refused_and_learns_nothing_of_the_orders() -> None:
    """Banned or not, the same refusal, and no hit."""
    built = house(answering(), policy=generation(BAN, allowed=["198.51.100.0/24"]))
    stranger = client("203.0.113.9")

    async def story() -> list[bytes | None]:
        return [await built.answer(ask(name), stranger) for name in ("chat.example", "news.example")]

    first, second = run(built.clock, story())
    assert first is not None
    assert second is not None
    assert first[:12] == second[:12]
    assert edes(read_reply(first)) == [Ede.PROHIBITED]
    assert (built.hits(), built.questions()) == ([], [])


GROUPS = {"phones": ["198.51.100.0/24", "2001:db8:1::/48"], "lab": ["198.51.100.128/25"], "desk": ["203.0.113.0/24"]}


@pytest.mark.parametrize(
    ("address", "rcode"),
    [
        ("198.51.100.7", "NXDOMAIN"),
        ("198.51.100.200", "REFUSED"),
        ("203.0.113.9", "NOERROR"),
        ("192.0.2.200", "NOERROR"),
        ("2001:db8:1::7", "NXDOMAIN"),
        ("2001:db8:2::7", "NOERROR"),
    ],
)
@pytest.mark.parametrize("warmed", [False, True], ids=["cold", "after all the others"])
def test_groups_never_share_a_verdict(address: str, rcode: str, warmed: bool) -> None:
    """Each client gets what its own group's orders say, whoever asked before (longest network first)."""
    policy = generation(
        Held([CHAT], id="order-1", groups=["phones"]),
        Held([CHAT], id="order-2", groups=["lab"], action=Action.REFUSED),
        groups=GROUPS,
    )
    built = house(answering({"chat.example A": ["chat.example 60 IN A 192.0.2.9"]}), policy=policy)
    others = ("203.0.113.9", "198.51.100.7", "198.51.100.200", "2001:db8:1::7")

    async def story() -> dns.message.Message:
        for other in others if warmed else ():
            await built.ask("chat.example", who=client(other))
        return await built.ask("chat.example", who=client(address))

    assert dns.rcode.to_text(run(built.clock, story()).rcode()) == rcode


# ---- policy that changes --------------------------------------------------------------------------------------------


def test_an_order_that_begins_while_a_query_waits_is_applied_to_its_answer() -> None:
    """The answer is judged by what is in force when it leaves."""
    effective = START_AT + 1
    built = house(
        FakeExchange(records({"chat.example A": ["chat.example 60 IN A 192.0.2.9"]}, delay=2.0)),
        policy=generation(Held([CHAT], effective=effective)), terms=ForwarderTerms(try_timeout=3, deadline=4),
    )  # fmt: skip

    message = run(built.clock, built.ask("chat.example"))

    assert message.rcode() == dns.rcode.NXDOMAIN
    assert built.clock.at() >= effective


@pytest.mark.parametrize("has_stale", [False, True])
def test_an_order_that_begins_while_the_upstreams_are_silent_is_applied_too(has_stale: bool) -> None:
    """Neither stale data nor a failure is given for a name that was banned meanwhile."""
    exchange = answering({"chat.example A": ["chat.example 60 IN A 192.0.2.9"]})
    built = house(exchange, policy=generation(Held([CHAT], effective=START_AT + 101)))

    async def story() -> dns.message.Message:
        if has_stale:
            await built.ask("chat.example")
        exchange.react = silent
        built.clock.advance(100)
        return await built.ask("chat.example")

    message = run(built.clock, story())

    assert message.rcode() == dns.rcode.NXDOMAIN
    assert edes(message) == [Ede.CENSORED]


# ---- what fails -----------------------------------------------------------------------------------------------------


def test_stale_data_is_given_when_upstreams_are_silent_and_at_once_the_next_time() -> None:
    """Within 1.8 s the first time, then for 30 s without asking again (RFC 8767 §5); then fresh again."""
    exchange = answering()
    built = house(exchange)

    async def story() -> list[tuple[float, dns.message.Message]]:
        told = []
        await built.ask("www.example.org")
        exchange.react = silent
        built.clock.advance(61)
        for _ in range(2):
            before = built.clock.now()
            message = await built.ask("www.example.org")
            told.append((built.clock.now() - before, message))
        exchange.react = records(ZONE, delay=0)
        built.clock.advance(31)
        told.append((0.0, await built.ask("www.example.org")))
        return told

    (first_wait, first), (second_wait, second), (_, fresh) = run(built.clock, story())
    assert 0 < first_wait <= 1.8
    assert second_wait == 0
    for message in (first, second):
        assert (message.answer[0].ttl, edes(message)) == (30, [Ede.STALE_ANSWER])
    assert (fresh.answer[0].ttl, edes(fresh)) == (60, [])


def test_stale_nxdomain_says_that_it_is_stale() -> None:
    """EDE 19 for a "no" (RFC 8914 §4.20)."""
    exchange = answering()
    built = house(exchange)

    async def story() -> dns.message.Message:
        await built.ask("gone.example.org")
        exchange.react = fails()
        built.clock.advance(400)
        return await built.ask("gone.example.org")

    message = run(built.clock, story())
    assert (message.rcode(), edes(message)) == (dns.rcode.NXDOMAIN, [Ede.STALE_NXDOMAIN_ANSWER])


def test_stale_data_is_judged_like_any_other() -> None:
    """A name that leads to a banned one is withheld however old its answer is."""
    exchange = answering()
    built = house(exchange)

    async def story() -> dns.message.Message:
        await built.ask("cloak.example.org")
        exchange.react = fails()
        built.clock.advance(61)
        return await built.ask("cloak.example.org")

    assert run(built.clock, story()).rcode() == dns.rcode.NXDOMAIN


def test_a_failure_names_its_reason_and_is_remembered() -> None:
    """SERVFAIL with EDE; the second question stays here (RFC 9520 §3.2)."""
    exchange = FakeExchange(fails("SERVFAIL"))
    built = house(exchange)

    async def story() -> list[dns.message.Message]:
        return [await built.ask("www.example.org") for _ in range(2)]

    first, second = run(built.clock, story())
    assert (first.rcode(), edes(first)) == (dns.rcode.SERVFAIL, [Ede.NETWORK_ERROR])
    assert (second.rcode(), edes(second)) == (dns.rcode.SERVFAIL, [Ede.NETWORK_ERROR, Ede.CACHED_ERROR])
    assert len(exchange.asked) == 1


def test_without_upstreams_banned_names_are_answered_all_the_same() -> None:
    """No network, no upstream: policy needs neither."""
    built = house()

    async def story() -> list[dns.message.Message]:
        return [await built.ask(name) for name in ("chat.example", "www.example.org")]

    banned, allowed = run(built.clock, story())
    assert banned.rcode() == dns.rcode.NXDOMAIN
    assert (allowed.rcode(), edes(allowed)) == (dns.rcode.SERVFAIL, [Ede.NOT_READY])


def test_too_many_questions_under_way_are_refused_at_once() -> None:
    """The limit answers with SERVFAIL instead of memory."""
    built = house(FakeExchange(silent), terms=ForwarderTerms(pending=3))

    async def story() -> list[dns.message.Message]:
        return await asyncio.gather(*(built.ask(f"n{n}.example.org") for n in range(5)))

    messages = run(built.clock, story())
    assert [m.rcode() for m in messages] == [dns.rcode.SERVFAIL] * 5
    assert Counter(code for m in messages for code in edes(m)) == {Ede.NO_REACHABLE_AUTHORITY: 3, Ede.OTHER: 2}


def test_stale_data_is_given_when_too_many_questions_are_under_way() -> None:
    """Old data is better than none in an overload too (RFC 8767 §4); it is given at once and counted as stale."""
    exchange = answering()
    built = house(exchange, terms=ForwarderTerms(pending=1))

    async def story() -> tuple[dns.message.Message, float]:
        await built.ask("www.example.org")
        built.clock.advance(61)
        exchange.react = silent
        other = asyncio.create_task(built.ask("other.example.org"))
        await asyncio.sleep(0)
        before = built.clock.now()
        message = await built.ask("www.example.org")
        waited = built.clock.now() - before
        await other
        return message, waited

    message, waited = run(built.clock, story())
    assert (dns.rcode.to_text(message.rcode()), edes(message), waited) == ("NOERROR", [Ede.STALE_ANSWER], 0)
    assert message.answer[0][0].to_text() == "192.0.2.1"
    assert built.counts("query")["udp", "everyone", "A", "NOERROR", "stale", "", "", "", ""] == 1


@pytest.mark.parametrize(
    ("name", "begins", "rcode", "ede", "source"),
    [
        ("new.example.org", False, "SERVFAIL", Ede.OTHER, "local"),
        ("www.example.org", False, "NOERROR", Ede.STALE_ANSWER, "stale"),
        ("cloak.example.org", False, "NXDOMAIN", Ede.CENSORED, "policy"),
        ("www.example.org", True, "NXDOMAIN", Ede.CENSORED, "policy"),
        ("new.example.org", True, "NXDOMAIN", Ede.CENSORED, "policy"),
    ],
)
def test_a_query_with_no_room_to_wait_is_answered_at_once(
    name: str, begins: bool, rcode: str, ede: Ede, source: str
) -> None:
    """With stale data or SERVFAIL, judged like any other answer by what is in force by then, and counted."""
    later = Held([app("org", "example.org")], id="order-2", effective=START_AT + 200)
    built = house(answering(), policy=generation(BAN, later))

    async def story() -> Wanted:
        for warmed in ("www.example.org", "cloak.example.org"):
            await built.ask(warmed)
        built.clock.advance(100)
        wanted = built.pipeline.begin(ask(name), client())
        assert isinstance(wanted, Wanted)
        return wanted

    wanted = run(built.clock, story())
    asked, before = built.questions(), Counter(built.counts("query"))
    built.clock.advance(100 if begins else 0)
    message = read_reply(built.pipeline.busy(wanted))

    assert (dns.rcode.to_text(message.rcode()), edes(message)) == (rcode, [ede])
    assert [text for option in message.options for text in [option.text] if rcode == "SERVFAIL"] == (
        ["too many questions under way"] if rcode == "SERVFAIL" else []
    )
    (counted,) = (Counter(built.counts("query")) - before).elements()
    assert (counted[3], counted[4]) == (rcode, source)
    assert built.questions() == asked


@pytest.mark.parametrize("rclass", ["CH", "HS", "NONE", "ANY"])
@pytest.mark.parametrize("rtype", ["A", "AAAA", "TXT"])
@pytest.mark.parametrize(
    ("action", "rcode", "ede"),
    [
        (Action.NXDOMAIN, "NXDOMAIN", Ede.CENSORED),
        (Action.NODATA, "NOERROR", Ede.CENSORED),
        (Action.REFUSED, "REFUSED", Ede.CENSORED),
        (Action.SINKHOLE, "NOERROR", Ede.FORGED_ANSWER),
    ],
)
def test_a_ban_in_another_class_is_told_without_records(
    rclass: str, rtype: str, action: Action, rcode: str, ede: Ede
) -> None:
    """An order binds in every class; SOA and addresses of class IN have no place in an answer of another."""
    built = house(answering(), policy=generation(Held([CHAT], action=action)))
    packet = ask("chat.example", rtype, rclass=rclass)

    message = read_reply(run(built.clock, built.answer(packet)))

    assert dns.message.from_wire(packet).is_response(message)
    assert (dns.rcode.to_text(message.rcode()), edes(message)) == (rcode, [ede])
    assert (message.answer, message.authority, message.additional) == ([], [], [])


@pytest.mark.parametrize(
    ("packet", "rcode"),
    [
        (b"", None),
        (b"\0" * 11, None),
        (ask("www.example.org")[:2] + b"\x81" + ask("www.example.org")[3:], None),
        (b"\0\1\1\0\0\1\0\0\0\0\0\0", "FORMERR"),
        (ask("www.example.org")[:-3], "FORMERR"),
        (dns.message.make_query("example.org", "SOA", id=1).to_wire()[:2] + b"\x28\0\0\0\0\0\0\0\0\0", "NOTIMP"),
        (ask("example.org", "AXFR"), "REFUSED"),
        (ask("chat.example", "A", rclass="HS"), "NXDOMAIN"),
        (ask("www.example.org", "A", rclass="HS"), "NOTIMP"),
    ],
    ids=["empty", "short", "response", "no question", "cut", "update", "transfer", "banned in HS", "class HS"],
)
def test_what_is_no_ordinary_query_has_its_answer_too(packet: bytes, rcode: str | None) -> None:
    """Silence for what is no query; the RCODE that says why for the rest; upstreams hear of none of it."""
    built = house(answering())

    octets = run(built.clock, built.answer(packet))

    assert (None if octets is None else dns.rcode.to_text(octets[3] & 15)) == rcode
    assert built.questions() == []


def test_every_query_is_counted_once() -> None:
    """By transport, group, class of QTYPE, RCODE, source, and the rule it met."""
    built = house(answering())

    async def story() -> None:
        for _ in range(2):
            await built.ask("www.example.org")
        await built.ask("chat.example", "TYPE4711")
        await built.ask("localhost", "AAAA", who=client(transport="tcp"))
        await built.answer(b"\0" * 12)
        await built.answer(b"")

    run(built.clock, story())

    assert {key: n for key, n in built.counts("query").items() if n} == {
        ("udp", "everyone", "A", "NOERROR", "upstream", "", "", "", ""): 1,
        ("udp", "everyone", "A", "NOERROR", "cache", "", "", "", ""): 1,
        ("udp", "everyone", "other", "NXDOMAIN", "policy", "order-1", "chat", "nxdomain", "enforce"): 1,
        ("tcp", "everyone", "AAAA", "NOERROR", "special", "", "", "", ""): 1,
        ("udp", "", "other", "FORMERR", "error", "", "", "", ""): 1,
    }
    assert built.counts("dropped") == {("udp", "short"): 1}
    assert built.counts("cache") == {("miss",): 1, ("hit",): 1}


def test_a_hit_is_spooled_before_its_answer_is_there() -> None:
    """Who has the answer can rely on the evidence."""
    built = house(answering())

    outcome = built.pipeline.begin(ask("chat.example"), client("2001:db8::7", 4242, "tcp"))

    assert isinstance(outcome, bytes)
    (hit,) = built.hits()
    assert hit._asdict() == {
        "time_us": int(START_AT * 1e6), "client": "2001:db8::7", "port": 4242, "generation": 1, "group": "everyone",
        "transport": "tcp", "qname": "chat.example", "qtype": "A", "order": "order-1", "app": "chat",
        "rule": "suffix chat.example", "action": "nxdomain", "rcode": "NXDOMAIN", "ede": 16, "mode": "enforce",
        "device": "",
    }  # fmt: skip


def test_ttls_age_with_the_cache() -> None:
    """What is left of the TTL, in whole seconds; an answer never outlives it."""
    built = house(answering())

    async def story() -> list[int]:
        seen = []
        for passed in (0, 0.5, 0.6, 58, 0.8, 0.2):
            built.clock.advance(passed)
            seen.append((await built.ask("www.example.org")).answer[0].ttl)
        return seen

    assert run(built.clock, story()) == [60, 60, 59, 1, 1, 60]


# ---- the memo says what the pipeline says ---------------------------------------------------------------------------

QUERIES = [
    ask(name, rtype, **how)
    for name, rtype, how in [
        ("chat.example", "A", {}),
        ("chat.example", "A", {"edns": False}),
        ("chat.example", "HTTPS", {"do": True}),
        ("CHAT.example", "A", {}),
        ("x.chat.example", "AAAA", {"cd": True}),
        ("only.example", "A", {"rd": False}),
        ("a.only.example", "A", {}),
        ("www.example.org", "A", {}),
        ("www.example.org", "A", {"edns": False}),
        ("wWw.eXample.org", "A", {"payload": 4096}),
        ("www.example.org", "A", {"do": True, "ad": True}),
        ("www.example.org", "A", {"rd": False}),
        ("www.example.org", "ANY", {}),
        ("www.example.org", "TXT", {}),
        ("short.example.org", "A", {}),
        ("zero.example.org", "A", {}),
        ("cloak.example.org", "A", {}),
        ("cloak.example.org", "HTTPS", {}),
        ("big.example.org", "TXT", {"payload": 512}),
        ("big.example.org", "TXT", {"payload": 4096}),
        ("gone.example.org", "A", {}),
        ("localhost", "A", {}),
        ("1.0.0.127.in-addr.arpa", "PTR", {}),
        ("id.server", "TXT", {"rclass": "CH"}),
        ("example.org", "AXFR", {}),
    ]
]
QUERIES += [
    QUERIES[0][:-3],
    QUERIES[7] + b"\0",
    QUERIES[7][:2] + b"\x81" + QUERIES[7][3:],
    QUERIES[7][:4] + b"\0\2" + QUERIES[7][6:],
    b"",
    b"\0" * 12,
    dns.message.make_query("chat.example", "A", use_edns=0, options=[dns.edns.GenericOption(3, b"")]).to_wire(),
    dns.message.make_query("www.example.org", "A", use_edns=1).to_wire(),
]
CLIENTS = [client("198.51.100.7"), client("198.51.100.200"), client("203.0.113.9"), client("198.51.100.7", 50000)]
POLICIES = [
    generation(BAN, allowed=["198.51.100.0/24"], serial=1),
    generation(
        Held([CHAT], groups=["phones"], effective=START_AT + 90),
        Held([app("www", "www.example.org")], id="order-2", groups=["lab"], action=Action.SINKHOLE),
        Held([app("big", "big.example.org")], id="order-3", groups=["phones"], mode=Mode.OBSERVE),
        groups=GROUPS, serial=2,
    ),
]  # fmt: skip
UPSTREAMS: list[React] = [
    records(ZONE, delay=0),
    records({**ZONE, "cloak.example.org A": ["cloak.example.org 5 IN A 192.0.2.44"]}, delay=0),
    fails("SERVFAIL", delay=0),
]

batches = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from(QUERIES), st.sampled_from(CLIENTS), st.booleans()), min_size=1, max_size=8),
        st.sampled_from([0.0, 0.0, 0.0, 0.3, 1.0, 2.0, 19.5, 61.0, 400.0]),
        st.sampled_from([None] * 6 + [0, 1]),
        st.sampled_from([None] * 6 + [0, 1, 2]),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=batches)
def test_the_memo_answers_as_the_pipeline_would(
    hot: "object", monkeypatch: pytest.MonkeyPatch, story: list[tuple]
) -> None:  # type: ignore[type-arg]
    """Byte for byte, hit for hit and count for count, whatever was asked, whenever, under whatever policy."""
    module = hot("_batch_cy")  # type: ignore[operator]
    use(module, monkeypatch)

    run(FakeClock(), compare(module, story, POLICIES, UPSTREAMS))


def test_the_memo_answers_at_all(hot: "object", monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above compares something: what was asked before is answered by the memo."""
    module = hot("_batch_cy")  # type: ignore[operator]
    use(module, monkeypatch)
    lasting = [ask("chat.example"), ask("www.example.org"), ask("localhost"), ask("gone.example.org")]
    batch = [(packet, CLIENTS[0], True) for packet in lasting]

    path = run(FakeClock(), compare(module, [(batch, 0.0, None, None)] * 3, POLICIES, UPSTREAMS))

    assert path.answered == 2 * len(lasting)


@pytest.mark.parametrize(
    "packet",
    [
        ask("cloak.example.org"),
        ask("zero.example.org"),
        ask("www.example.org", rd=False),
        dns.message.make_query(
            "chat.example", "A", use_edns=0, options=[dns.edns.GenericOption(10, b"x" * 8)]
        ).to_wire(),
    ],
    ids=["decided by an answer", "TTL 0", "RD clear", "with an option"],
)
def test_the_memo_does_not_learn_what_may_be_untrue_the_next_time(
    packet: bytes, hot: "object", monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verdict on an alias ends with the alias, options differ from query to query, TTL 0 is for one use."""
    module = hot("_batch_cy")  # type: ignore[operator]
    use(module, monkeypatch)

    path = run(FakeClock(), compare(module, [([(packet, CLIENTS[0], True)], 0.0, None, None)] * 3, POLICIES, UPSTREAMS))

    assert path.answered == 0


def test_a_query_over_tcp_teaches_the_memo_nothing() -> None:
    """Its answer may be longer than a datagram's."""
    built = house(answering())

    run(built.clock, built.ask("chat.example", who=client(transport="tcp")))

    assert built.policy.ready_answers() == 0


def test_begin_says_what_is_wanted() -> None:
    """Without waiting, a query that needs an upstream is handed back with what was found out."""
    built = house(answering())

    wanted = built.pipeline.begin(ask("www.example.org"), client())

    assert isinstance(wanted, Wanted)
    assert (wanted.query.qtype, wanted.view.group, wanted.stale, wanted.verdict) == (1, "everyone", None, None)


def test_counters_of_the_memo_are_in_the_same_memory() -> None:
    """A cell that the pipeline names is the one that the memo adds to."""
    built = house(answering())

    run(built.clock, built.ask("chat.example"))

    ready = [key for key in read(built.octets) if key[0] == "query" and key[5] == "ready"]
    assert ready == [("query", "udp", "everyone", "A", "NXDOMAIN", "ready", "order-1", "chat", "nxdomain", "enforce")]


def test_a_reply_that_names_the_question_in_capitals_is_the_clients_spelling() -> None:
    """The question comes back as it was sent, letter by letter, from the cache too."""
    built = house(FakeExchange(lambda query, transport: [Said(reply(query, ["www.example.org 60 IN A 192.0.2.1"]), 0)]))

    async def story() -> list[bytes]:
        await built.ask("www.example.org")
        octets = await built.answer(ask("WwW.eXaMpLe.OrG"))
        assert octets is not None
        return [octets]

    (octets,) = run(built.clock, story())
    assert b"\x03WwW\x07eXaMpLe\x03OrG" in octets


# ---- zones ----------------------------------------------------------------------------------------------------------

BY_ADDRESS = rpz("32.9.100.51.198.rpz-ip CNAME rpz-passthru.\n32.5.100.51.198.rpz-ip A 192.0.2.80\n", "first.example")
BY_NAME = rpz("late.example.org CNAME .\n", "second.example")
BY_SERVER = rpz("ns.bad.example.rpz-nsdname CNAME .\n32.53.100.51.198.rpz-nsip CNAME *.\n")
NS_ZONE = {
    **ZONE,
    "example.org NS": ["example.org 300 IN NS ns.good.example."],
    "ns.good.example A": ["ns.good.example 300 IN A 192.0.2.53"],
    "evil.example NS": ["evil.example 300 IN NS ns.bad.example."],
    "www.evil.example A": ["www.evil.example 60 IN A 192.0.2.9"],
    "to-evil.example.org A": [
        "to-evil.example.org 60 IN CNAME www.evil.example.",
        "www.evil.example 60 IN A 192.0.2.9",
    ],
}


@pytest.mark.parametrize("broken", [silent, fails("SERVFAIL")], ids=["silent", "SERVFAIL"])
@pytest.mark.parametrize("moment", ["no answer", "remembered failure", "stale", "stale again", "no room"])
def test_a_verdict_that_waits_for_an_answer_acts_where_none_comes(broken: React, moment: str) -> None:
    """An earlier zone might have let the answer pass; where there is none, the name is withheld."""
    table = {"late.example.org A": ["late.example.org 60 IN A 192.0.2.9"]}
    built = house(answering(table), policy=generation(zones=[BY_ADDRESS, BY_NAME]))

    async def story() -> dns.message.Message:
        if moment.startswith("stale"):
            await built.ask("late.example.org")
            built.clock.advance(61)
        built.exchanges[0].react = broken
        if moment in ("remembered failure", "stale again"):
            await built.ask("late.example.org")
        if moment == "no room":
            wanted = built.pipeline.begin(ask("late.example.org"), client())
            assert isinstance(wanted, Wanted)
            return read_reply(built.pipeline.busy(wanted))
        return await built.ask("late.example.org")

    message = run(built.clock, story())

    assert (message.rcode(), edes(message)) == (dns.rcode.NXDOMAIN, [Ede.BLOCKED])
    assert message.additional[0].name.to_text() == "second.example."
    assert {hit.action for hit in built.hits()} == {"nxdomain"}


def test_a_verdict_that_waits_gives_way_to_an_earlier_zones_word_on_the_answer() -> None:
    """Zone order is by zone, whatever the trigger; from the cache as fresh."""
    table = {"late.example.org A": ["late.example.org 60 IN A 198.51.100.9"]}
    built = house(answering(table), policy=generation(zones=[BY_ADDRESS, BY_NAME]))

    async def story() -> list[dns.message.Message]:
        return [await built.ask("late.example.org") for _ in range(2)]

    for message in run(built.clock, story()):
        assert message.answer[0][0].to_text() == "198.51.100.9"
        assert edes(message) == []


@pytest.mark.parametrize("delayed", ["answer", "name servers"])
def test_a_zone_that_comes_into_force_while_a_query_waits_is_applied(delayed: str) -> None:
    """Whether it waits for the answer or for the name servers behind it."""
    before, after = (
        rpz("ns.bad.example.rpz-nsdname CNAME .\n", "a.example"),
        rpz("www.example.org CNAME *.\n", "b.example"),
    )
    knows = records(NS_ZONE, delay=0)

    def react(query: dns.message.Message, transport: str) -> list[Said]:
        slow = (query.question[0].rdtype == dns.rdatatype.NS) is (delayed == "name servers")
        return [Said(said.what, 0.5 if slow else 0) for said in knows(query, transport)]

    built = house(FakeExchange(react), policy=generation(zones=[before]))

    async def story() -> dns.message.Message:
        asking = asyncio.ensure_future(built.ask("www.example.org"))
        await asyncio.sleep(0.2)
        built.policy.swap(generation(zones=[after], serial=2), built.clock.at())
        return await asking

    message = run(built.clock, story())

    assert message.additional[0].name.to_text() == "b.example."
    assert [hit.generation for hit in built.hits()] == [2]


def test_name_servers_are_looked_up_anew_where_a_new_zone_wants_to_know_more() -> None:
    """What the zone before it wanted, names alone, is not enough to judge addresses by."""
    knows = records(NS_ZONE, delay=0)

    def react(query: dns.message.Message, transport: str) -> list[Said]:
        slow = query.question[0].rdtype == dns.rdatatype.NS
        return [Said(said.what, 0.5 if slow else 0) for said in knows(query, transport)]

    built = house(FakeExchange(react), policy=generation(zones=[rpz("ns.other.example.rpz-nsdname CNAME .\n")]))

    async def story() -> dns.message.Message:
        asking = asyncio.ensure_future(built.ask("www.example.org"))
        await asyncio.sleep(0.2)
        built.policy.swap(generation(zones=[rpz("24.0.2.0.192.rpz-nsip CNAME .\n")], serial=2), built.clock.at())
        return await asking

    assert run(built.clock, story()).rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize("known", [False, True], ids=["no answer at hand", "stale answer at hand"])
def test_without_room_to_look_name_servers_up_nothing_passes_unjudged(known: bool) -> None:
    """SERVFAIL, and not old data that may have to be withheld."""
    built = house(answering(NS_ZONE), policy=generation(zones=[BY_SERVER]))

    async def story() -> Wanted:
        if known:
            await built.ask("www.evil.example")
            built.clock.advance(61)
        wanted = built.pipeline.begin(ask("www.evil.example"), client())
        assert isinstance(wanted, Wanted)
        return wanted

    message = read_reply(built.pipeline.busy(run(built.clock, story())))

    assert (message.rcode(), edes(message)) == (dns.rcode.SERVFAIL, [Ede.OTHER])


def test_without_room_to_follow_policys_own_alias_the_answer_is_servfail() -> None:
    """And never what stands behind the name that was asked for."""
    built = house(answering(), policy=generation(zones=[rpz("www.example.org CNAME garden.example.net.\n")]))

    wanted = built.pipeline.begin(ask("www.example.org"), client())

    assert isinstance(wanted, Wanted)
    assert read_reply(built.pipeline.busy(wanted)).rcode() == dns.rcode.SERVFAIL
    assert built.questions() == []
    assert [(hit.order, hit.rcode) for hit in built.hits()] == [("zone:rpz.example", "SERVFAIL")]


@pytest.mark.parametrize("name", ["www.example.org", "www.evil.example", "to-evil.example.org", "gone.example.org"])
def test_the_memo_does_not_learn_what_name_servers_had_a_part_in(
    name: str, hot: "object", monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may change before the answer expires."""
    module = hot("_batch_cy")  # type: ignore[operator]
    use(module, monkeypatch)
    policy = generation(zones=[BY_SERVER])
    story = [([(ask(name), CLIENTS[0], True)], 0.0, None, None)] * 3

    path = run(FakeClock(), compare(module, story, [policy], [records(NS_ZONE, delay=0), *UPSTREAMS[1:]]))

    assert path.answered == 0


def test_a_name_that_the_operator_allows_is_learned_though_zones_judge_name_servers(
    hot: "object", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that a zone knows matters for it; nor for a name that is withheld as it was asked for."""
    module = hot("_batch_cy")  # type: ignore[operator]
    use(module, monkeypatch)
    allow = zone_of(Rule(Action.PASSTHRU), "www.evil.example", id_="rule:open", kind=ZoneKind.RULE)
    policy = generation(BAN, zones=[allow, BY_SERVER])
    batch = [(ask(name), CLIENTS[0], True) for name in ("www.evil.example", "chat.example")]

    path = run(FakeClock(), compare(module, [(batch, 0.0, None, None)] * 3, [policy], [records(NS_ZONE, delay=0)]))

    assert path.answered == 4


SPARED = """{
    "id": "lab", "devices": ["198.51.100.200"], "apps": ["chat"], "reason": "law-enforcement", "grantor": "CIO",
    "granted": "2030-03-17T17:47:40Z", "expires": "2030-03-17T17:50:00Z"
}"""
ZONED_POLICIES = [
    generation(
        BAN,
        zones=[
            rpz(
                "tcp.example.org CNAME rpz-tcp-only.\ndrop.example.org CNAME rpz-drop.\n"
                "*.data.example.org A 192.0.2.80\nalias.example.org CNAME www.example.org.\n"
                "spared.data.example.org CNAME rpz-passthru.\n"
                "32.7.100.51.198.rpz-client-ip CNAME rpz-passthru.\n32.200.100.51.198.rpz-client-ip CNAME *.\n"
            ),
            rpz("32.9.100.51.198.rpz-ip CNAME .\nlate.example.org CNAME .\n", "second.example", groups=("lab",)),
        ],
        groups={**GROUPS, "everyone": ["0.0.0.0/0", "::/0"]}, strip_ech=["lab"], serial=3,
    ),
    generation(
        Held([CHAT], groups=["phones", "lab"]),
        zones=[rpz("www.example.org CNAME .\n", mode=Mode.OBSERVE), BY_ADDRESS, BY_NAME],
        exemptions=[source.read(SPARED, "lab", Exemption)],
        groups=GROUPS, serial=4,
    ),
    generation(zones=[BY_SERVER], serial=5),
    generation(
        BAN,
        zones=[
            zone_of(Rule(Action.NODATA, spares=(names.from_text("big.example.org"),)), "example.org", "evil.example"),
            zone_of(Rule(Action.REFUSED, qtypes=(28,)), "org", id_="list:six"),
            zone_of(Rule(Action.NXDOMAIN), "evil.example", "www.evil.example", id_="list:two"),
        ],
        groups={**GROUPS, "everyone": ["0.0.0.0/0", "::/0"]}, serial=6,
    ),
]  # fmt: skip
ZONED_TABLE = {
    **NS_ZONE,
    "tcp.example.org A": ["tcp.example.org 60 IN A 192.0.2.7"],
    "late.example.org A": ["late.example.org 20 IN A 198.51.100.9"],
    "chat.example A": ["chat.example 20 IN A 192.0.2.8"],
    "ech.example.org HTTPS": ["ech.example.org 20 IN HTTPS 1 . alpn=h2 ech=AAT+DQAA"],
    "inside.example.org A": ["inside.example.org 20 IN A 198.51.100.5"],
}
ZONED_QUERIES = [
    ask(name, rtype, **how)
    for name, rtype, how in [
        ("tcp.example.org", "A", {}),
        ("drop.example.org", "A", {}),
        ("a.data.example.org", "A", {}),
        ("a.data.example.org", "TXT", {"do": True}),
        ("spared.data.example.org", "A", {}),
        ("alias.example.org", "A", {}),
        ("alias.example.org", "CNAME", {}),
        ("late.example.org", "A", {}),
        ("inside.example.org", "A", {}),
        ("ech.example.org", "HTTPS", {}),
        ("ech.example.org", "HTTPS", {"edns": False}),
        ("chat.example", "A", {}),
        ("www.example.org", "A", {}),
        ("www.evil.example", "A", {}),
        ("a.www.evil.example", "A", {}),
        ("b.www.evil.example", "A", {}),
        ("evil.example", "A", {}),
        ("www.example.org", "AAAA", {}),
        ("x.big.example.org", "TXT", {}),
        ("y.big.example.org", "AAAA", {}),
        ("to-evil.example.org", "A", {}),
        ("localhost", "A", {}),
    ]
]
ZONED_CLIENTS = [*CLIENTS, client("198.51.100.9")]
zoned_batches = st.lists(
    st.tuples(
        st.lists(
            st.tuples(st.sampled_from(ZONED_QUERIES), st.sampled_from(ZONED_CLIENTS), st.booleans()),
            min_size=1,
            max_size=8,
        ),
        st.sampled_from([0.0, 0.0, 0.0, 0.3, 1.0, 2.0, 19.5, 61.0, 400.0]),
        st.sampled_from([None] * 4 + [0, 1, 2, 3]),
        st.sampled_from([None] * 6 + [0, 1]),
    ),
    max_size=10,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=zoned_batches)
def test_the_memo_answers_as_the_pipeline_would_under_zones(
    hot: "object", monkeypatch: pytest.MonkeyPatch, story: list[tuple]
) -> None:  # type: ignore[type-arg]
    """As above: with triggers on clients, exemptions, TCP-only, local data, stripped ECH, and answers that decide."""
    module = hot("_batch_cy")  # type: ignore[operator]
    use(module, monkeypatch)

    run(
        FakeClock(),
        compare(module, story, ZONED_POLICIES, [records(ZONED_TABLE, delay=0), fails(delay=0)]),
    )


@settings(max_examples=100, deadline=None)
@given(
    policy=st.sampled_from([*POLICIES, *ZONED_POLICIES]),
    asked=st.lists(
        st.tuples(
            st.sampled_from([
                "chat.example", "x.chat.example", "www.example.org", "cloak.example.org", "a.data.example.org",
                "alias.example.org", "late.example.org", "tcp.example.org", "to-evil.example.org", "big.example.org",
            ]),
            st.sampled_from(["A", "HTTPS", "NS", "TXT"]),
            st.sampled_from([*ZONED_CLIENTS, client("198.51.100.200", transport="tcp")]),
            st.sampled_from([0.0, 61.0, 100.0]),
        ),
        min_size=1, max_size=5,
    ),
)  # fmt: skip
def test_what_is_settled_never_reaches_an_upstream(
    policy: Generation, asked: list[tuple[str, str, Client, float]]
) -> None:
    """Neither as a question, nor as a name server's zone, nor as the target of an alias of policy's own."""
    built = house(answering(ZONED_TABLE), policy=policy)

    async def story() -> None:
        for name, rtype, who, passed in asked:
            built.clock.advance(passed)
            before = len(built.questions())
            built.policy.turn(built.clock.at())
            view = policy.view_of(who.address, built.clock.at())
            verdict = judge_query(names.from_text(name), view, dns.rdatatype.from_text(rtype))
            settled = is_settled(verdict, view) and (verdict is None or verdict.action is not Action.TCP_ONLY)
            await built.answer(ask(name, rtype), who)
            new = built.questions()[before:]
            if settled and verdict is not None and not verdict.rule_held.records:
                assert new == []
            for question in new:
                other = judge_query(names.from_text(question.split()[0]), view)
                assert not is_settled(other, view) or (other is not None and other.action is Action.TCP_ONLY)

    run(built.clock, story())


PHONE_7 = Device(7, "phone-7", "phones")
DEVICES = Register(memoryview(write_register([Entry(digest_of(Proof.TOKEN, "abc"), PHONE_7)], 1)))
TWO_GROUPS = {"everyone": ("0.0.0.0/0", "::/0"), "phones": ()}


def enrolled(*orders: Held, allowed: Sequence[str] = ("0.0.0.0/0", "::/0")) -> House:
    """A house that knows phone-7 by its token."""
    built = house(answering(), policy=generation(*orders, groups=TWO_GROUPS, allowed=allowed))
    built.policy.enrol(DEVICES)
    return built


def test_a_recognised_device_is_held_to_its_groups_orders_and_its_hits_carry_its_name() -> None:
    """The same address without a token is nobody's, and held to the orders of its network."""
    built = enrolled(Held([app("chat", "only.example")], groups=["phones"]))

    async def story() -> list[int]:
        found = [
            await built.ask("a.only.example", who=client(transport="doh", path_token="abc")),
            await built.ask("a.only.example", who=client(transport="doh")),
        ]
        return [message.rcode() for message in found]

    assert run(built.clock, story()) == [dns.rcode.NXDOMAIN, dns.rcode.NOERROR]
    (hit,) = built.hits()
    assert (hit.device, hit.group, hit.transport) == ("phone-7", "phones", "doh")
    asked = [key[:2] for key, count in built.counts("query").items() if count]
    assert asked == [("doh", "phones"), ("doh", "everyone")]


def test_who_shows_a_token_in_vain_is_refused_and_counted() -> None:
    """With the reason (RFC 8914 §4.19); nothing is asked of anybody for it, and no order is told about."""
    built = enrolled(BAN)

    async def story() -> dns.message.Message:
        return await built.ask("chat.example", who=client(transport="doh", bearer="made-up"))

    found = run(built.clock, story())
    assert (found.rcode(), edes(found)) == (dns.rcode.REFUSED, [Ede.PROHIBITED])
    assert (built.hits(), built.questions()) == ([], [])
    assert built.counts("unknown_devices") == {("bearer",): 1}


def test_a_device_that_is_revoked_while_it_waits_is_refused() -> None:
    """The upstream's answer comes too late for it."""
    built = enrolled()

    async def story() -> dns.message.Message:
        waiting = asyncio.ensure_future(built.ask("www.example.org", who=client(transport="dot", path_token="abc")))
        while not built.questions():
            await asyncio.sleep(0)
        built.policy.enrol(Register(memoryview(write_register([], 2))))
        return await waiting

    assert run(built.clock, story()).rcode() == dns.rcode.REFUSED


def test_a_recognised_device_is_answered_from_outside_the_allowed_networks() -> None:
    """And nobody else is."""
    built = enrolled(allowed=("192.0.2.0/24",))

    async def story() -> list[int]:
        clients = client(transport="doh", path_token="abc"), client(transport="doh")
        return [(await built.ask("www.example.org", who=who)).rcode() for who in clients]

    assert run(built.clock, story()) == [dns.rcode.NOERROR, dns.rcode.REFUSED]


def test_when_a_device_was_seen_is_told() -> None:
    """By its number, once a query; who is not recognised is seen by nobody."""
    seen: list[tuple[int, float]] = []
    built = house(answering(), policy=generation(groups=TWO_GROUPS), seen=lambda number, at: seen.append((number, at)))
    built.policy.enrol(DEVICES)

    async def story() -> None:
        await built.ask("www.example.org", who=client(transport="doh", path_token="abc"))
        await built.ask("www.example.org", who=client(transport="doh"))

    run(built.clock, story())
    assert seen == [(7, START_AT)]


def test_who_asks_who_he_is_is_told_and_nobody_else_after_him() -> None:
    """Two clients with the same view ask over UDP: what the memo learned of the first would be said to the second."""
    built = enrolled(BAN)

    async def story() -> list[set[str]]:
        found = [await built.ask("whoami.interdict.test", "TXT", client(f"198.51.100.{n}")) for n in (7, 8)]
        return [{string.decode() for rdata in message.answer[0] for string in rdata.strings} for message in found]

    first, second = run(built.clock, story())
    assert {"client=198.51.100.7", "group=everyone", "orders=order-1", "transport=udp"} <= first
    assert "client=198.51.100.8" in second
    assert built.policy.ready_answers() == 0


@pytest.mark.parametrize(
    ("transport", "padded", "idle"), [("udp", 0, None), ("tcp", 0, 300), ("dot", 1, 100), ("doh", 1, None)]
)
def test_a_reply_is_padded_where_it_travels_encrypted_and_tells_the_idle_time_where_there_is_one(
    transport: str, padded: int, idle: int | None
) -> None:
    """RFC 7830 §4 and RFC 7828 §3.3.2; for a datagram or a stream of HTTP no idle time is told."""
    built = house(answering(), keepalive={Transport.TCP: 30.0, Transport.DOT: 10.0})
    query = dns.message.make_query("www.example.org", "A", use_edns=0)
    query.use_edns(0, options=[dns.edns.GenericOption(11, b""), dns.edns.GenericOption(12, bytes(9))])

    async def story() -> bytes | None:
        return await built.answer(query.to_wire(), client(transport=transport))

    reply = run(built.clock, story())
    assert reply is not None
    told = {option.otype: option.to_wire() or b"" for option in dns.message.from_wire(reply).options}
    assert (12 in told, len(reply) % 468 == 0) == (bool(padded), bool(padded))
    assert told.get(11) == (None if idle is None else idle.to_bytes(2, "big"))


def test_who_is_refused_is_told_nothing_of_the_policy() -> None:
    """Neither by the page nor by name: which policy, which server."""
    built = enrolled(BAN, allowed=("192.0.2.0/24",))
    stranger = built.pipeline.coverage(client("198.51.100.7", transport="doh"))
    assert (stranger.group, stranger.orders, stranger.generation, stranger.node) == ("", (), "", "")
