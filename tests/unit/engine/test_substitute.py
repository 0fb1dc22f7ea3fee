"""What stands in the place of an answer that policy withholds: every action, met by every trigger, at every link."""

from itertools import product

import dns.message
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.engine.cache import Entry
from resolver.engine.substitute import alias_target, policy_answer, rewritten_answer
from resolver.policy.documents import Action, Basis, Mode
from resolver.policy.judge import Verdict
from resolver.policy.terms import NO_APP, AppEntry, OrderEntry, ZoneEntry, ZoneKind
from resolver.policy.zone import LocalRecord, Reach, Rule, Trigger
from resolver.wire import name as names
from resolver.wire.codes import Ede, Rtype
from resolver.wire.compose import error_answer, write_reply
from resolver.wire.message import Answer, ExtendedError, read_query, read_reply
from tests.support.build import policy
from tests.support.house import ask
from tests.support.upstream import reply

TERMS = policy().terms
QNAME = names.from_text("www.example.org")
LINKS = (names.from_text("b.example.net"), names.from_text("c.example.net"))
GARDEN = names.from_text("garden.example.com")
SOA_RDATA = names.from_text("ns.vendor.example") + names.from_text("host.vendor.example")
SOA_RDATA += b"".join(n.to_bytes(4, "big") for n in (42, 3600, 900, 86400, 33))
ZONE = ZoneEntry(
    "zone:rpz.example", ZoneKind.RPZ, (), Mode.ENFORCE, (),
    soa=(names.from_text("rpz.example"), LocalRecord(6, 77, SOA_RDATA)),
)  # fmt: skip
LIST = ZoneEntry("list:names", ZoneKind.LIST, (), Mode.ENFORCE, ())
ORDER = OrderEntry("order-1", "A ban", "Une interdiction", Basis.OUTSIDE_AUTHORITY, ((0.0, 1e12),))
DATA = (
    LocalRecord(int(Rtype.A), 20, b"\xc0\0\2\x50"),
    LocalRecord(int(Rtype.A), 20, b"\xc0\0\2\x51"),
    LocalRecord(int(Rtype.TXT), 30, b"\6policy"),
)
TO_GARDEN = (LocalRecord(int(Rtype.CNAME), 20, GARDEN),)
WILD = (LocalRecord(int(Rtype.CNAME), 20, b"\1*" + GARDEN),)

QTYPES = ["A", "AAAA", "TXT", "HTTPS", "CNAME", "ANY", "DS", "RRSIG", "TYPE65280"]
ACTIONS = [
    (Action.NXDOMAIN, ()),
    (Action.NODATA, ()),
    (Action.REFUSED, ()),
    (Action.SINKHOLE, ()),
    (Action.TCP_ONLY, ()),
    (Action.LOCAL_DATA, DATA),
    (Action.LOCAL_DATA, TO_GARDEN),
    (Action.LOCAL_DATA, WILD),
]


def verdict(
    action: Action,
    records: tuple[LocalRecord, ...] = (),
    *,
    holder: OrderEntry | ZoneEntry = ZONE,
    link: int = 0,
    trigger: Trigger = Trigger.QNAME,
    subject: bytes | None = None,
) -> Verdict:
    """A verdict on a link of the chain QNAME -> b -> c."""
    judged = subject or (QNAME, *LINKS)[link]
    network = "" if trigger in (Trigger.QNAME, Trigger.NSDNAME) else "192.0.2.0/24"
    app = AppEntry("chat", "Chat") if isinstance(holder, OrderEntry) else NO_APP
    return Verdict(
        action, Mode.ENFORCE, holder, app, (holder.id,), 2, judged, 0, Reach.EXACT, trigger, network, "",
        Rule(action, records), "", link, judged,
    )  # fmt: skip


def given_to(found: Answer, qtype: str = "A", rclass: str = "IN", do: bool = False) -> dns.message.Message:
    """The reply over TCP, as dnspython reads it."""
    query = read_query(ask("www.example.org", qtype, rclass=rclass, do=do))
    return dns.message.from_wire(write_reply(query, found, over_udp=False))


def said(
    verdict: Verdict, qtype: str = "A", rclass: str = "IN", aliases: tuple[bytes, ...] = LINKS
) -> dns.message.Message:
    query = read_query(ask("www.example.org", qtype, rclass=rclass))
    return given_to(policy_answer(query, verdict, TERMS, 7, aliases), qtype, rclass)


def shown(section: list[dns.rrset.RRset]) -> list[str]:
    return [f"{rrset.name} {dns.rdatatype.to_text(rrset.rdtype)} {rdata}" for rrset in section for rdata in rrset]


EXPECTED = {Action.NXDOMAIN: "NXDOMAIN", Action.REFUSED: "REFUSED"}
CHAIN = ["www.example.org. CNAME b.example.net.", "b.example.net. CNAME c.example.net."]
OWNERS = ["www.example.org.", "b.example.net.", "c.example.net."]


@pytest.mark.parametrize("qtype", QTYPES)
@pytest.mark.parametrize(("action", "records"), ACTIONS)
def test_every_action_by_every_trigger_at_every_link(
    action: Action, records: tuple[LocalRecord, ...], qtype: str
) -> None:
    """RCODE, the links before it, its records of the type asked for, SOA and EDE of the zone; never AD, no RRSIG."""
    for trigger, link, rclass in product(Trigger, range(3), ("IN", "CH", "ANY")):
        check(action, records, trigger, link, qtype, rclass)


def check(
    action: Action, records: tuple[LocalRecord, ...], trigger: Trigger, link: int, qtype: str, rclass: str
) -> None:
    """One of them."""
    one = verdict(action, records, link=link, trigger=trigger)
    if rclass == "IN" and alias_target(one, read_query(ask("www.example.org", qtype))) is not None:
        return  # told with what the target has: below

    message = said(one, qtype, rclass)

    assert dns.rcode.to_text(message.rcode()) == EXPECTED.get(action, "NOERROR")
    (error,) = message.options
    forged = action in (Action.SINKHOLE, Action.LOCAL_DATA)
    assert (error.code, error.text) == (Ede.FORGED_ANSWER if forged else Ede.BLOCKED, "zone:rpz.example")
    assert not message.flags & 0x0020
    assert [rrset for rrset in message.answer if rrset.rdtype == dns.rdatatype.RRSIG] == []
    if rclass != "IN" or action in (Action.REFUSED, Action.TCP_ONLY):
        assert (message.answer, message.authority, message.additional) == ([], [], [])
        return
    (soa,) = message.additional
    assert (soa.name.to_text(), soa.ttl, soa[0].serial) == ("rpz.example.", 33, 42)
    made = shown(message.answer)
    assert made[:link] == CHAIN[:link]
    own = [
        record
        for rtype, text in {
            Action.SINKHOLE: [("A", "192.0.2.250"), ("AAAA", "2001:db8::250")],
            Action.LOCAL_DATA: [
                (dns.rdatatype.to_text(r.rtype), dns.rdata.from_wire("IN", r.rtype, r.rdata, 0, len(r.rdata)).to_text())
                for r in records
            ],
        }.get(action, [])
        if qtype == rtype or (qtype == "ANY" and action is Action.LOCAL_DATA)
        for record in [f"{OWNERS[link]} {rtype} {text}"]
    ]
    assert made[link:] == [record.replace("\\*", "*").replace(" *.", f" {OWNERS[link]}") for record in own]
    assert message.authority == []


@pytest.mark.parametrize("qtype", QTYPES)
@pytest.mark.parametrize("link", [0, 2])
def test_an_order_shows_nothing_of_the_chain(link: int, qtype: str) -> None:
    """The answer of an order is the same whatever upstreams say, with an SOA of its own form."""
    message = said(verdict(Action.NXDOMAIN, holder=ORDER, link=link), qtype)

    assert (message.answer, message.additional) == ([], [])
    assert shown(message.authority) == ["www.example.org. SOA www.example.org. nobody.invalid. 7 3600 1200 604800 60"]
    assert message.options[0].text == "order order-1, app chat"


@pytest.mark.parametrize("action", [Action.NXDOMAIN, Action.NODATA])
@pytest.mark.parametrize("link", [0, 1])
def test_a_zone_without_soa_lends_the_form_of_an_order(action: Action, link: int) -> None:
    """So that the answer can be cached (RFC 2308 §3)."""
    message = said(verdict(action, holder=LIST, link=link))

    assert [rrset.rdtype for rrset in message.authority] == [dns.rdatatype.SOA]
    assert (message.answer, message.additional) == ([], [])


def test_tcp_only_says_so_and_nothing_else() -> None:
    """TC over UDP; over TCP it never comes to this."""
    query = read_query(ask("www.example.org"))

    reply = dns.message.from_wire(
        write_reply(query, policy_answer(query, verdict(Action.TCP_ONLY), TERMS, 7), over_udp=True)
    )

    assert reply.flags & 0x0200
    assert (reply.rcode(), reply.answer, reply.additional) == (0, [], [])


# ---- aliases --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("qtype", "follows"), [(qtype, qtype not in ("CNAME", "ANY")) for qtype in QTYPES])
@pytest.mark.parametrize("rclass", ["IN", "CH"])
def test_an_alias_is_followed_unless_it_was_asked_for_itself(qtype: str, follows: bool, rclass: str) -> None:
    """CNAME and ANY get the alias alone; another class has no aliases."""
    query = read_query(ask("www.example.org", qtype, rclass=rclass))

    assert alias_target(verdict(Action.LOCAL_DATA, TO_GARDEN), query) == (
        GARDEN if follows and rclass == "IN" else None
    )
    assert alias_target(verdict(Action.LOCAL_DATA, DATA), query) is None
    assert alias_target(verdict(Action.NXDOMAIN), query) is None


labels = st.lists(st.integers(1, 63), min_size=1, max_size=6)


@given(labels, labels)
def test_a_wildcard_target_takes_the_judged_name_in_or_is_too_long(subject: list[int], target: list[int]) -> None:
    """Up to 255 octets it is the name with the target behind it; above it is YXDOMAIN, for every type."""
    name = b"".join(bytes([n]) + b"a" * n for n in subject) + b"\0"
    behind = b"".join(bytes([n]) + b"b" * n for n in target) + b"\0"
    if max(len(name), len(behind)) > 250:
        return
    one = verdict(Action.LOCAL_DATA, (LocalRecord(5, 20, b"\1*" + behind),), subject=name)
    query = read_query(ask("www.example.org"))

    found = alias_target(one, query)

    fits = len(name) - 1 + len(behind) <= 255
    assert found == (name[:-1] + behind if fits else None)
    for qtype in ("A", "CNAME", "ANY"):
        if not fits:
            message = said(one, qtype, aliases=())
            assert (dns.rcode.to_text(message.rcode()), message.answer) == ("YXDOMAIN", [])
            assert message.additional[0].name.to_text() == "rpz.example."


def found(lines: list[str], authority: list[str] | None = None, rcode: str = "NOERROR", qtype: str = "A") -> Entry:
    """What an upstream says about garden.example.com."""
    packet = ask("garden.example.com", qtype)
    octets = reply(dns.message.from_wire(packet), lines, authority or [], rcode, flags=0x00A0)
    return Entry(read_reply(octets, packet).answer, 0.0, 60.0, 0)


@pytest.mark.parametrize("link", [0, 1, 2])
def test_an_alias_is_told_with_what_its_target_has(link: int) -> None:
    """The links, the alias, then the target's records, aged; without signatures and never authentic, whatever came."""
    entry = found([
        "garden.example.com 60 IN CNAME deep.example.com.",
        "garden.example.com 60 IN RRSIG CNAME 13 3 60 20300401000000 20300301000000 1 example.com. c2ln",
        "deep.example.com 50 IN A 192.0.2.9",
    ])  # fmt: skip
    assert entry.answer.authentic
    query = read_query(ask("www.example.org", do=True))

    answer = rewritten_answer(query, verdict(Action.LOCAL_DATA, TO_GARDEN, link=link), GARDEN, entry, 45, LINKS, TERMS)

    message = given_to(answer, do=True)
    assert shown(message.answer) == [
        *CHAIN[:link],
        f"{OWNERS[link]} CNAME garden.example.com.",
        "garden.example.com. CNAME deep.example.com.",
        "deep.example.com. A 192.0.2.9",
    ]
    assert [rrset.ttl for rrset in message.answer] == [*[60] * link, 20, 15, 5]
    assert [rrset.name.to_text() for rrset in message.additional] == ["rpz.example."]
    assert not message.flags & 0x0020


@pytest.mark.parametrize("rcode", ["NOERROR", "NXDOMAIN"])
def test_an_alias_of_what_is_not_there_is_told_alone(rcode: str) -> None:
    """With the target's RCODE, as in any chain (RFC 6604 §3)."""
    entry = found([], ["example.com 60 IN SOA ns.example.com. host.example.com. 1 2 3 4 5"], rcode)
    query = read_query(ask("www.example.org"))

    message = given_to(rewritten_answer(query, verdict(Action.LOCAL_DATA, TO_GARDEN), GARDEN, entry, 0, (), TERMS))

    assert dns.rcode.to_text(message.rcode()) == rcode
    assert shown(message.answer) == ["www.example.org. CNAME garden.example.com."]


def test_an_alias_of_what_nobody_can_say_is_a_failure_with_both_reasons() -> None:
    """The client learns whose alias it was, and why there is no answer."""
    failure = error_answer(2, ExtendedError(Ede.NO_REACHABLE_AUTHORITY, "silent"))
    query = read_query(ask("www.example.org"))

    message = given_to(rewritten_answer(query, verdict(Action.LOCAL_DATA, TO_GARDEN), GARDEN, failure, 0, (), TERMS))

    assert dns.rcode.to_text(message.rcode()) == "SERVFAIL"
    assert [option.text for option in message.options] == ["zone:rpz.example", "silent"]
