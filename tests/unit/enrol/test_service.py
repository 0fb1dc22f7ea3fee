"""The service's document: what is written becomes the service; what is wrong is told at its place."""

from ipaddress import ip_address, ip_network

import pytest

from resolver.enrol.profile import CARRIER_DOMAINS, EnrolError, Service
from resolver.enrol.service import read_service
from resolver.policy.source import PolicyError
from tests.support.enrolled import PUBLIC_KEY

WHOLE = f"""\
organisation: Example Agency
identifier: org.example.dns
doh: https://dns.example.org/dns-query/{{token}}
dot: "{{token}}.dns.example.org"
addresses: [192.0.2.53, "2001:db8::53"]
authorities: [ca.pem]
search_domains: [corp.example.org]
excluded_domains: [printers.example.org]
captive_domains: [captive.apple.com]
excluded_networks: [Train Wi-Fi]
profile_url: https://mdm.example.org/{{token}}
wireguard: {{endpoint: "vpn.example.org:51820", public_key: {PUBLIC_KEY}, networks: [10.0.0.0/8]}}
openvpn: {{server: vpn.example.org, port: 443, protocol: tcp}}
ikev2: {{server: vpn.example.org, pools: [10.9.0.0/16]}}
android_vpn: {{package: org.example.vpn}}
"""


def read(text: str) -> Service:
    return read_service(text.encode(), "service.yaml", lambda name: (name.encode(),))


def test_every_value_arrives() -> None:
    """All that may be written is in the service."""
    service = read(WHOLE)

    assert service.organisation == "Example Agency"
    assert service.doh == "https://dns.example.org/dns-query/{token}"
    assert service.dot == "{token}.dns.example.org"
    assert service.addresses == (ip_address("192.0.2.53"), ip_address("2001:db8::53"))
    assert service.authorities == (b"ca.pem",)
    assert service.search_domains == ("corp.example.org",)
    assert service.excluded_domains == ("printers.example.org",)
    assert service.carrier_domains == CARRIER_DOMAINS
    assert service.excluded_networks == ("Train Wi-Fi",)
    assert service.profile_url == "https://mdm.example.org/{token}"
    assert service.wireguard is not None
    assert service.wireguard.networks == (ip_network("10.0.0.0/8"),)
    assert service.openvpn is not None
    assert (service.openvpn.port, service.openvpn.is_tcp) == (443, True)
    assert service.ikev2 is not None
    assert service.ikev2.pools == (ip_network("10.9.0.0/16"),)
    assert service.android_vpn is not None


def test_little_is_needed() -> None:
    """Organisation and identifier; the rest has defaults."""
    assert read("organisation: A\nidentifier: org.a\n") == Service("A", "org.a")


@pytest.mark.parametrize(
    ("line", "place", "mend"),
    [
        ("doh: https://dns.example.org/dns-query", "3:6", "{token} once"),
        ("dot: dns.example.org", "3:6", "does not begin with {token}"),
        ("addresses: [dns.example.org]", "3:13", "192.0.2.53"),
        ("serach_domains: [a.example]", "3:1", 'did you mean "search_domains"'),
        ("search_domains: [A.example]", "3:18", "lower case"),
        ("search_domains: [1]", "3:18", "in quotes"),
        ("openvpn: {server: vpn.example.org, port: 0}", "3:42", "1 to 65535"),
        ("openvpn: {server: vpn.example.org, protocol: sctp}", "3:46", "udp or tcp"),
        ("wireguard: {endpoint: 'vpn.example.org:1', public_key: x}", "3:56", "44 characters"),
        ("android_vpn: {package: vpn}", "3:24", "org.example.vpn"),
        ("ikev2: {pools: []}", "3:8", "server"),
    ],
)
def test_a_mistake_is_told_at_its_line_and_column(line: str, place: str, mend: str) -> None:
    """As in all other documents, with what to write instead."""
    with pytest.raises(PolicyError) as caught:
        read(f"organisation: A\nidentifier: org.a\n{line}\n")

    assert str(caught.value).startswith(f"service.yaml:{place}:")
    assert mend in str(caught.value)


def test_all_mistakes_come_at_once() -> None:
    """One run tells them all."""
    with pytest.raises(PolicyError) as caught:
        read("identifier: x\ndoh: x\n")

    assert len(caught.value.problems) == 3


def test_an_authority_that_can_not_be_read_is_an_error() -> None:
    """What reading it says is passed on."""

    def refuse(name: str) -> tuple[bytes, ...]:
        raise EnrolError(name)

    with pytest.raises(EnrolError, match=r"ca\.pem"):
        read_service(WHOLE.encode(), "service.yaml", refuse)
