"""Service parameters: a library of others reads them as they are meant."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.wire.svcb import Alpn, service_parameters


def read(octets: bytes) -> str:
    """What dnspython makes of them, in an SVCB record of priority 1 and target "." """
    wire = b"\0\1\0" + octets
    return dns.rdata.from_wire("IN", "SVCB", wire, 0, len(wire)).to_text().removeprefix("1 . ")


HINTS = (ip_address("2001:db8::53"), ip_address("192.0.2.53"), ip_address("192.0.2.54"))


@pytest.mark.parametrize(
    ("alpns", "port", "hints", "expected"),
    [
        ([Alpn.DOT], 853, (), 'alpn="dot"'),
        ([Alpn.DOT, Alpn.DOQ], 853, (), 'alpn="dot,doq"'),
        ([Alpn.H2, Alpn.DOT], None, (), 'alpn="h2,dot" dohpath="/dns-query{?dns}"'),
        ([Alpn.DOT], 8853, (), 'alpn="dot" port="8853"'),
        ([Alpn.H2, Alpn.H3], 443, (), 'alpn="h2,h3" dohpath="/dns-query{?dns}"'),
        ([Alpn.H2], 853, (), 'alpn="h2" port="853" dohpath="/dns-query{?dns}"'),
        ([Alpn.DOQ], 443, (), 'alpn="doq" port="443"'),
        ([Alpn.H3], 8443, HINTS, 'alpn="h3" port="8443" ipv4hint="192.0.2.53,192.0.2.54" ipv6hint="2001:db8::53" '
         'dohpath="/dns-query{?dns}"'),
    ],
)  # fmt: skip
def test_parameters_are_read_as_they_are_meant(
    alpns: list[Alpn], port: int | None, hints: tuple[IPv4Address | IPv6Address, ...], expected: str
) -> None:
    """The port only where it is not the default one, the path only for HTTP, addresses by family."""
    assert read(service_parameters(alpns, port, "/dns-query", hints)) == expected


def test_the_octets_are_those_of_the_standard() -> None:
    """RFC 9460 §2.2: key, length, value; RFC 9461 §5: the path as a template."""
    assert service_parameters([Alpn.H2], 443, "/q", ()) == b"\0\1\0\3\2h2" + b"\0\7\0\10/q{?dns}"


@given(
    st.lists(st.sampled_from(Alpn), min_size=1, unique=True),
    st.integers(1, 65535),
    st.lists(st.ip_addresses(), max_size=6),
)
def test_keys_ascend_whatever_is_said(alpns: list[Alpn], port: int, hints: list[IPv4Address | IPv6Address]) -> None:
    """A client refuses them in any other order (RFC 9460 §2.2); dnspython too."""
    octets = service_parameters(alpns, port, "/dns-query", hints)
    keys, i = [], 0
    while i < len(octets):
        keys.append(int.from_bytes(octets[i : i + 2], "big"))
        i += 4 + int.from_bytes(octets[i + 2 : i + 4], "big")

    assert keys == sorted(set(keys))
    assert read(octets).startswith("alpn=")
