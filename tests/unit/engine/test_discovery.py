"""Discovery of designated resolvers: what a client finds, as dnspython reads it."""

from ipaddress import ip_address

import dns.message
import dns.rcode
import pytest

from resolver.engine.discovery import DISCOVERY_TTL, Discovery
from resolver.engine.special import SpecialNames
from resolver.wire import name as names
from resolver.wire.compose import write_reply
from resolver.wire.message import read_query
from tests.support.house import ask

NAME = names.from_text("dns.example.org")
ALL = Discovery(
    NAME, (ip_address("192.0.2.53"), ip_address("2001:db8::53")), doh=443, doh3=443, dot=853, doq=853, path="/q"
)
HTTP = 'dns.example.org. alpn="h2,h3" ipv4hint="192.0.2.53" ipv6hint="2001:db8::53" dohpath="/q{?dns}"'
TLS = 'dns.example.org. alpn="dot,doq" ipv4hint="192.0.2.53" ipv6hint="2001:db8::53"'


def said(
    name: str, rtype: str = "SVCB", discovery: Discovery | None = ALL, forward: tuple[str, ...] = ()
) -> dns.message.Message | None:
    """What is said here to a question, or None where it is forwarded."""
    special = SpecialNames(tuple(map(names.from_text, forward)), "node-1", "1", str, discovery)
    query = read_query(ask(name, rtype))
    answer = special.answer(query)
    return None if answer is None else dns.message.from_wire(write_reply(query, answer, over_udp=True))


def records(message: dns.message.Message | None) -> list[str]:
    assert message is not None
    return [rr.to_text() for rrset in message.answer for rr in rrset]


@pytest.mark.parametrize("name", ["_dns.resolver.arpa", "_DNS.Resolver.ARPA", "_dns.dns.example.org"])
def test_all_transports_are_told_under_both_names(name: str) -> None:
    """RFC 9462 §4 and §5: ServiceMode, the server's own name as target, addresses as hints and beside it."""
    message = said(name)

    assert message is not None
    assert records(message) == [f"1 {HTTP}", f"2 {TLS}"]
    assert [(rrset.name.to_text(), rr.to_text()) for rrset in message.additional for rr in rrset] == [
        ("dns.example.org.", "192.0.2.53"),
        ("dns.example.org.", "2001:db8::53"),
    ]
    assert {rrset.name for rrset in message.answer} == {message.question[0].name}
    assert {rrset.ttl for rrset in (*message.answer, *message.additional)} == {DISCOVERY_TTL}


@pytest.mark.parametrize(
    ("discovery", "expected"),
    [
        (Discovery(NAME, dot=853), ['1 dns.example.org. alpn="dot"']),
        (Discovery(NAME, dot=8853, doq=853),
         ['1 dns.example.org. alpn="dot" port="8853"', '2 dns.example.org. alpn="doq"']),
        (Discovery(NAME, doh=8443), ['1 dns.example.org. alpn="h2" port="8443" dohpath="/dns-query{?dns}"']),
        (Discovery(NAME, doh=443, dot=443),
         ['1 dns.example.org. alpn="h2" dohpath="/dns-query{?dns}"', '2 dns.example.org. alpn="dot" port="443"']),
        (Discovery(NAME, doh3=443, doh=8443),
         ['1 dns.example.org. alpn="h2" port="8443" dohpath="/dns-query{?dns}"',
          '2 dns.example.org. alpn="h3" dohpath="/dns-query{?dns}"']),
    ],
)  # fmt: skip
def test_ports_are_told_where_they_are_not_the_usual_ones(discovery: Discovery, expected: list[str]) -> None:
    """What shares a port shares a record; the path goes with HTTP alone (RFC 9461 §4.2, §5)."""
    assert records(said("_dns.resolver.arpa", discovery=discovery)) == expected


@pytest.mark.parametrize("discovery", [None, Discovery(NAME, (ip_address("192.0.2.53"),))])
def test_where_nothing_is_encrypted_there_is_no_data(discovery: Discovery | None) -> None:
    """RFC 9462 §4: a clear sign that there is no designated resolver; and the name by name is its owner's."""
    message = said("_dns.resolver.arpa", discovery=discovery)

    assert message is not None
    assert (message.rcode(), message.answer, len(message.authority)) == (dns.rcode.NOERROR, [], 1)
    assert said("_dns.dns.example.org", discovery=discovery) is None


@pytest.mark.parametrize(
    ("name", "rtype"),
    [
        *[("_dns.resolver.arpa", rtype) for rtype in ("A", "AAAA", "HTTPS", "TXT", "ANY", "NS", "SOA")],
        *[("_dns.dns.example.org", rtype) for rtype in ("A", "HTTPS", "ANY", "NS", "SOA")],
        *[("resolver.arpa", rtype) for rtype in ("A", "AAAA", "SVCB")],
        ("a.resolver.arpa", "SVCB"),
        ("_853._dns.resolver.arpa", "SVCB"),
    ],
)
def test_other_questions_there_have_no_data(name: str, rtype: str) -> None:
    """RFC 9462 §6.4: no data, with an SOA, and never an upstream."""
    message = said(name, rtype)

    assert message is not None
    assert (message.rcode(), message.answer) == (dns.rcode.NOERROR, [])
    (soa,) = message.authority
    assert message.question[0].name.is_subdomain(soa.name)


@pytest.mark.parametrize("rtype", ["A", "AAAA", "HTTPS", "SVCB"])
def test_the_servers_own_name_is_its_zones(rtype: str) -> None:
    """Its addresses are asked of the zone's owner: an unsigned copy would be bogus to who validates."""
    assert said("dns.example.org", rtype) is None


def test_a_site_may_publish_the_records_itself() -> None:
    """`special_use.forward` hands the name back; so a signed zone can hold signed records."""
    assert said("_dns.dns.example.org", forward=("_dns.dns.example.org",)) is None
    assert records(said("_dns.resolver.arpa", forward=("_dns.dns.example.org",)))


def test_many_addresses_are_asked_for_again_over_tcp() -> None:
    """What does not fit a datagram is not cut in the middle of an RRset."""
    many = Discovery(NAME, tuple(ip_address(f"2001:db8::{i}") for i in range(1, 40)), dot=853)
    message = said("_dns.resolver.arpa", discovery=many)

    assert message is not None
    assert message.flags & dns.flags.TC


def test_who_comes_by_a_listener_of_a_group_is_told_of_none() -> None:
    """By what is told it would leave the group, and the orders that bind it there."""
    special = SpecialNames((), "node-1", "1", str, ALL)
    query = read_query(ask("_dns.resolver.arpa", "SVCB"))
    answer = special.answer(query, discovers=False)
    assert answer is not None
    assert (answer.rcode, answer.counts[0]) == (0, 0)
