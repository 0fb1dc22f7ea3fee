"""The header in which a proxy says whose connection or datagram it passes on: the PROXY protocol, version 2.

The text is HAProxy's `doc/proxy-protocol.txt`, cited by its sections. Only the binary form is read; whether a header is
expected at all is for whoever listens to know, by who sends (§5): it is never guessed from the octets.

Any octets are a header, the beginning of one, or a ProxyError. What a header says of a client's name, certificate and
token decides whose policy holds, so one that says it twice is refused rather than read one way or the other.
"""

from dataclasses import dataclass
from enum import IntEnum

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FIXED_OCTETS = 16
# §2.2 has the whole block smaller than an MSS; certificates' names and tokens stay far below this, and so does what a
# connection can make us keep before it has said who it is.
MOST_OCTETS = 4096
MAPPED = bytes(10) + b"\xff\xff"  # before an IPv4 address written as IPv6 (RFC 4291 §2.5.5.2)


class ProxyError(Exception):
    """Octets that are no header of this protocol; the message says in a few words why."""


class Carried(IntEnum):
    """What the client speaks with the proxy (§2.2)."""

    STREAM = 1
    DGRAM = 2


@dataclass(frozen=True, slots=True)
class Proxied:
    """A header, read.

    Attributes:
        length: Octets of the header; the client's own begin behind them.
        is_local: The connection is the proxy's own, or from where no address says anything: the sender's address
            counts, and all that follows here is empty.
        source: The client's address, 4 or 16 octets; an IPv4 address in IPv6's clothes is unclothed.
        source_port: Its port.
        destination: The address that the client asked.
        destination_port: Its port.
        carried: Stream or datagram.
        authority: The host name that the client called: of TLS, its server name; in lower case (§2.2.2).
        alpn: The protocol that the client speaks, as in TLS (§2.2.1).
        common_name: Of the client's certificate, if it showed one and the proxy verified it (§2.2.6).
        token: What the proxy found behind the path of a client's DoH, if its configuration sends it.
    """

    length: int
    is_local: bool = True
    source: bytes = b""
    source_port: int = 0
    destination: bytes = b""
    destination_port: int = 0
    carried: Carried | None = None
    authority: str | None = None
    alpn: str | None = None
    common_name: str | None = None
    token: str | None = None


class _Command(IntEnum):
    LOCAL = 0
    PROXY = 1


_INET, _INET6, _UNIX = 1, 2, 3
_MOST_PROTOCOL = 2
_ALPN, _AUTHORITY, _CRC32C, _SSL = 0x01, 0x02, 0x03, 0x20
_SSL_CN = 0x22
_TOKEN = 0xE0  # of the range for applications (§2.2.8)
_READ = frozenset({_ALPN, _AUTHORITY, _CRC32C, _SSL, _TOKEN, _SSL_CN})
_CERTIFICATE_SHOWN = 0x02 | 0x04  # over this connection, or when the TLS session that it resumes was made (§2.2.6)
_CRC_OCTETS = 4


def read_header(octets: bytes) -> Proxied | None:
    """Read the header at the start of a connection or a datagram; None: more octets are needed.

    In a datagram, which brings no more, None means that it holds no whole header.

    Args:
        octets: From the first one received on; what stands behind the header is left alone.

    Raises:
        ProxyError: No header begins like this, or it contradicts itself.
    """
    if octets[: len(SIGNATURE)] != SIGNATURE[: len(octets)]:
        raise ProxyError("no signature")
    if len(octets) > 12 and octets[12] >> 4 != 2:
        raise ProxyError(f"version {octets[12] >> 4}")
    if len(octets) > 12 and octets[12] & 15 > _Command.PROXY:
        raise ProxyError(f"unassigned command {octets[12] & 15}")
    if len(octets) < FIXED_OCTETS:
        return None
    length = FIXED_OCTETS + int.from_bytes(octets[14:16], "big")
    if length > MOST_OCTETS:
        raise ProxyError(f"{length} octets, more than {MOST_OCTETS}")
    if octets[12] & 15 == _Command.LOCAL:
        return Proxied(length) if len(octets) >= length else None  # the family is not looked at, nor anything else
    family, protocol = octets[13] >> 4, octets[13] & 15
    if family > _UNIX or protocol > _MOST_PROTOCOL:
        raise ProxyError(f"unspecified family or protocol {octets[13]:#04x}")
    width = {_INET: 4, _INET6: 16}.get(family, 0)
    start = FIXED_OCTETS + 2 * width + 4
    if width and protocol and length < start:
        raise ProxyError("too short for its addresses")
    if len(octets) < length:
        return None
    if not width or not protocol:
        return Proxied(length)
    found = _read_tlvs(octets, start, length)
    if _CRC32C in found:
        _check_crc(octets[:length], found[_CRC32C])
    addresses = octets[FIXED_OCTETS:start]
    return Proxied(
        length,
        False,
        _unclothed(addresses[:width]),
        int.from_bytes(addresses[-4:-2], "big"),
        _unclothed(addresses[width : 2 * width]),
        int.from_bytes(addresses[-2:], "big"),
        Carried(protocol),
        _lower(_text(octets, found, _AUTHORITY)),
        _text(octets, found, _ALPN),
        _common_name(octets, found),
        _text(octets, found, _TOKEN),
    )


def _read_tlvs(octets: bytes, start: int, end: int) -> dict[int, tuple[int, int]]:
    """Where the values stand that are read here, by type: (first octet, past the last one)."""
    found: dict[int, tuple[int, int]] = {}
    while start < end:
        stop = start + 3 + int.from_bytes(octets[start + 1 : start + 3], "big")
        if start + 3 > end or stop > end:
            raise ProxyError("a value runs over the end")
        kind = octets[start]
        if kind in _READ:
            if kind in found:
                raise ProxyError(f"two values of type {kind:#04x}")
            found[kind] = start + 3, stop
        start = stop
    return found


def _text(octets: bytes, found: dict[int, tuple[int, int]], kind: int) -> str | None:
    if kind not in found:
        return None
    start, stop = found[kind]
    try:
        return octets[start:stop].decode() or None
    except UnicodeDecodeError:
        raise ProxyError(f"the value of type {kind:#04x} is no UTF-8") from None


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


def _common_name(octets: bytes, found: dict[int, tuple[int, int]]) -> str | None:
    if _SSL not in found:
        return None
    start, stop = found[_SSL]
    if stop - start < 5:
        raise ProxyError("a value runs over the end")
    shown, verify = octets[start], octets[start + 1 : start + 5]
    # `verify` is zero as well where no certificate was shown, so both are looked at.
    if not shown & _CERTIFICATE_SHOWN or any(verify):
        return None
    return _text(octets, _read_tlvs(octets, start + 5, stop), _SSL_CN)


def _check_crc(header: bytes, where: tuple[int, int]) -> None:
    """§2.2.3: taken over the whole header, its own octets as zeros."""
    start, stop = where
    if stop - start != _CRC_OCTETS:
        raise ProxyError("the checksum has not four octets")
    if crc32c(header[:start] + bytes(_CRC_OCTETS) + header[stop:]) != int.from_bytes(header[start:stop], "big"):
        raise ProxyError("wrong checksum")


def crc32c(octets: bytes) -> int:
    """The checksum with Castagnoli's polynomial (RFC 3720 §12.1), which RFC 4960 Appendix B describes for SCTP."""
    crc = 0xFFFFFFFF
    for octet in octets:
        crc = _CRC_TABLE[(crc ^ octet) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _crc_row(octet: int) -> int:
    for _ in range(8):
        octet = octet >> 1 ^ (0x82F63B78 if octet & 1 else 0)
    return octet


_CRC_TABLE = tuple(_crc_row(octet) for octet in range(256))


def _unclothed(address: bytes) -> bytes:
    return address[12:] if len(address) == 16 and address.startswith(MAPPED) else address
