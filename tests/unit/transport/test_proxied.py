"""Whose a proxied message is."""

import ipaddress

import pytest

from resolver.observe.record import sockaddr
from resolver.policy.client import Client, Credentials, Transport
from resolver.transport.proxied import behind_proxy, without_header
from resolver.wire.proxy import SIGNATURE

PROXY = Client(b"\x7f\0\0\1", sockaddr("127.0.0.1", 4000), Transport.UDP, "phones")


def header(source: str, port: int, *tlvs: tuple[int, bytes], command: int = 1) -> bytes:
    """A header of the PROXY protocol as its text lays it out (§2.2)."""
    address = ipaddress.ip_address(source)
    family = 0x12 if address.version == 4 else 0x22
    rest = address.packed * 2 + port.to_bytes(2, "big") + (53).to_bytes(2, "big")
    rest += b"".join(bytes([kind]) + len(octets).to_bytes(2, "big") + octets for kind, octets in tlvs)
    return SIGNATURE + bytes([0x20 | command, family]) + len(rest).to_bytes(2, "big") + rest


@pytest.mark.parametrize("source", ["192.0.2.7", "2001:db8::7"])
def test_the_client_is_whom_the_proxy_names(source: str) -> None:
    """Address and port for policy and evidence; the listener's group stays."""
    found = without_header(header(source, 40000) + b"query", PROXY, sockaddr)
    packed = ipaddress.ip_address(source).packed
    assert found == (b"query", Client(packed, sockaddr(source, 40000), Transport.UDP, "phones", proxied=True))


def test_what_the_client_showed_the_proxy_it_showed_us() -> None:
    """Server name and token."""
    octets = header("192.0.2.7", 1, (0x02, b"ABC.dns.example.org"), (0xE0, b"t0ken"))
    found = behind_proxy(octets, PROXY, sockaddr)
    assert found is not None
    assert found[1].credentials == Credentials(server_name="abc.dns.example.org", path_token="t0ken")


def test_the_proxys_own_messages_are_its_own_and_taught_to_no_memo() -> None:
    """LOCAL: its health check. The memo sees datagrams before their header is read off."""
    found = without_header(header("192.0.2.7", 1, command=0) + b"query", PROXY, sockaddr)
    assert found is not None
    assert (found[0], found[1].address, found[1].is_batched) == (b"query", PROXY.address, False)


@pytest.mark.parametrize("octets", [b"", b"a query without a header", header("192.0.2.7", 1)[:20]])
def test_a_datagram_without_a_whole_header_is_nobodys(octets: bytes) -> None:
    """It is not answered as the proxy's own: that would hold a client to the proxy's rules."""
    assert without_header(octets, PROXY, sockaddr) is None
