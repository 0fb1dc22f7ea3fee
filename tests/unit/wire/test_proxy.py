"""The PROXY protocol, version 2: any octets are a header, the beginning of one, or an error."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.wire.proxy import MOST_OCTETS, SIGNATURE, Carried, Proxied, ProxyError, crc32c, read_header
from tests.support.build import mutations

V4 = bytes([192, 0, 2, 1, 198, 51, 100, 7]) + (40000).to_bytes(2, "big") + (853).to_bytes(2, "big")
CLIENT6, SERVER6 = (socket.inet_pton(socket.AF_INET6, text) for text in ("2001:db8::1", "2001:db8::53"))
V6 = CLIENT6 + SERVER6 + V4[8:]
MAPPED = b"".join(bytes(10) + b"\xff\xff" + V4[i : i + 4] for i in (0, 4)) + V4[8:]


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def tls(shown: int, verify: int, *inner: bytes) -> bytes:
    return tlv(0x20, bytes([shown]) + verify.to_bytes(4, "big") + b"".join(inner))


def header(family: int = 0x11, rest: bytes = V4, command: int = 0x21) -> bytes:
    return SIGNATURE + bytes([command, family]) + len(rest).to_bytes(2, "big") + rest


def summed(rest: bytes, wrong: int = 0) -> bytes:
    """A header whose last value is its checksum."""
    octets = header(rest=rest + tlv(3, bytes(4)))
    return octets[:-4] + (crc32c(octets) ^ wrong).to_bytes(4, "big")


CN = tlv(0x22, "Zoé's phone".encode())
FULL = V4 + tlv(1, b"dot") + tlv(2, b"T1.DNS.example.org") + tlv(4, b"\0\0") + tls(7, 0, tlv(0x21, b"TLSv1.3"), CN)
FULL += tlv(0xE0, b"a-token") + tlv(5, b"unique") + tlv(0xEE, b"\xff")
GOOD = {
    "tcp over IPv4": header(),
    "udp over IPv4": header(0x12),
    "tcp over IPv6": header(0x21, V6),
    "udp over IPv6": header(0x22, V6),
    "everything": header(rest=FULL),
    "checksum": summed(FULL),
    "local": header(0, b"", 0x20),
    "local, with a block to skip": header(0xFF, b"whatever", 0x20),
    "unspecified": header(0, b"whatever"),
    "unspecified protocol": header(0x10, b""),
    "unix": header(0x31, bytes(216)),
}


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        ("tcp over IPv4", (False, V4[:4], 40000, V4[4:8], 853, Carried.STREAM)),
        ("udp over IPv4", (False, V4[:4], 40000, V4[4:8], 853, Carried.DGRAM)),
        ("tcp over IPv6", (False, CLIENT6, 40000, SERVER6, 853, Carried.STREAM)),
        ("udp over IPv6", (False, CLIENT6, 40000, SERVER6, 853, Carried.DGRAM)),
        ("local", (True, b"", 0, b"", 0, None)),
        ("local, with a block to skip", (True, b"", 0, b"", 0, None)),
        ("unspecified", (True, b"", 0, b"", 0, None)),
        ("unspecified protocol", (True, b"", 0, b"", 0, None)),
        ("unix", (True, b"", 0, b"", 0, None)),
    ],
)
def test_a_header_says_who_asks_whom(octets: str, expected: tuple[object, ...]) -> None:
    """Addresses and ports as in §2.2; where it names no address of a network, the connection's own counts."""
    found = read_header(GOOD[octets] + b"\0\x1dquery")

    assert found is not None
    assert found.length == len(GOOD[octets])
    ends = (found.source, found.source_port, found.destination, found.destination_port)
    assert (found.is_local, *ends, found.carried) == expected


@pytest.mark.parametrize("octets", ["everything", "checksum"])
def test_what_the_client_showed_the_proxy_is_read(octets: str) -> None:
    """Server name in lower case, ALPN, the name in its certificate, the token; values that mean nothing are skipped."""
    found = read_header(GOOD[octets])

    assert found is not None
    shown = (found.authority, found.alpn, found.common_name, found.token)
    assert shown == ("t1.dns.example.org", "dot", "Zoé's phone", "a-token")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (tls(7, 0, CN), "Zoé's phone"),
        (tls(5, 0, CN), "Zoé's phone"),  # shown when the session was made that this connection resumes
        (tls(3, 0, CN), "Zoé's phone"),
        (tls(1, 0, CN), None),
        (tls(7, 10, CN), None),
        (tls(7, 0x01000000, CN), None),
        (tls(7, 0), None),
        (tls(7, 0, tlv(0x22, b"")), None),
    ],
    ids=["shown", "session", "connection", "none shown", "not verified", "high octet", "no name", "empty name"],
)
def test_a_certificate_counts_only_where_it_was_shown_and_verified(value: bytes, expected: str | None) -> None:
    """`verify` is zero without a certificate too, so it proves nothing by itself (§2.2.6)."""
    found = read_header(header(rest=V4 + value))

    assert found is not None
    assert found.common_name == expected


def test_an_ipv4_client_in_ipv6_clothes_is_an_ipv4_client() -> None:
    """A proxy writes mixed families like this; the client's network is the one of IPv4."""
    found = read_header(header(0x21, MAPPED))

    assert found is not None
    assert (found.source, found.destination) == (V4[:4], V4[4:8])


def test_no_block_of_a_local_connection_is_believed() -> None:
    """A health check of the proxy has no token, whatever stands behind it (§2.2)."""
    assert read_header(header(0x11, FULL, 0x20)) == Proxied(16 + len(FULL))


WRONG = {
    "no signature": (b"GET / HTTP/1.1\r\n\r\n", "signature"),
    "version 1": (b"PROXY TCP4 192.0.2.1 198.51.100.7 40000 853\r\n", "signature"),
    "another version": (header(command=0x11), "version 1"),
    "another command": (header(command=0x22), "command 2"),
    "another family": (header(0x41), "0x41"),
    "another protocol": (header(0x13), "0x13"),
    "too short for its addresses": (header(0x21, V4), "too short"),
    "no room for ports": (header(rest=V4[:10]), "too short"),
    "too long": (header(rest=bytes(MOST_OCTETS)), "more than 4096"),
    "value over the end": (header(rest=V4 + b"\2\0\5host"), "over the end"),
    "value without a length": (header(rest=V4 + b"\2\0"), "over the end"),
    "TLS value too short": (header(rest=V4 + tlv(0x20, bytes(4))), "over the end"),
    "value in TLS over the end": (header(rest=V4 + tls(7, 0, b"\x22\0\5a")), "over the end"),
    "no UTF-8": (header(rest=V4 + tlv(2, b"\xff")), "no UTF-8"),
    "two names": (header(rest=V4 + tlv(2, b"a") + tlv(2, b"b")), "two values of type 0x02"),
    "two tokens": (header(rest=V4 + tlv(0xE0, b"a") + tlv(0xE0, b"a")), "two values of type 0xe0"),
    "two certificates": (header(rest=V4 + tls(7, 0, CN, CN)), "two values of type 0x22"),
    "wrong checksum": (summed(FULL, wrong=1), "wrong checksum"),
    "checksum of another size": (header(rest=V4 + tlv(3, b"\0\0\0")), "four octets"),
}


@pytest.mark.parametrize(("octets", "why"), WRONG.values(), ids=WRONG)
def test_what_is_no_header_is_refused(octets: bytes, why: str) -> None:
    """With a word on why, for the log."""
    with pytest.raises(ProxyError, match=why):
        read_header(octets)


@pytest.mark.parametrize("octets", GOOD.values(), ids=GOOD)
def test_a_torn_header_waits_for_its_rest(octets: bytes) -> None:
    """Every part of a good header is its beginning, and none of them is refused or believed."""
    assert {read_header(octets[:k]) for k in range(len(octets))} == {None}


def test_what_can_be_no_header_is_refused_at_its_first_wrong_octet() -> None:
    """A connection that speaks something else is not waited for."""
    for k in range(len(SIGNATURE)):
        with pytest.raises(ProxyError):
            read_header(SIGNATURE[:k] + b"\xff")


def test_the_checksum_is_castagnolis() -> None:
    """The check value of the catalogues, and RFC 3720 §B.4 over 32 octets."""
    known = {b"123456789": 0xE3069283, bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E}

    assert {octets: crc32c(octets) for octets in known} == known


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=64).map(lambda rest: SIGNATURE + rest)))
def test_any_octets_are_a_header_a_beginning_or_an_error(octets: bytes) -> None:
    """Never anything else."""
    check(octets)


@given(mutations(list(GOOD.values())))
def test_broken_headers_are_headers_beginnings_or_errors(octets: bytes) -> None:
    """Never anything else, and never more than was sent."""
    check(octets)


def check(octets: bytes) -> None:
    try:
        found = read_header(octets)
    except ProxyError:
        return
    if found is not None:
        assert found.length <= len(octets)
        assert len(found.source) == len(found.destination) or {len(found.source), len(found.destination)} == {4, 16}
        assert found.is_local == (found.source == b"")
        assert read_header(octets[: found.length]) == found
