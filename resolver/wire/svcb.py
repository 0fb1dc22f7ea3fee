"""Service parameters: how a service is reached, as SVCB records, DHCP and router advertisements say it.

One encoding for all of them (RFC 9460 §2.2; RFC 9463 §3.1.5). It is written here, and read by clients alone.
"""

from collections.abc import Iterable
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv6Address


class Alpn(StrEnum):
    """The protocols that carry DNS encrypted, as IANA registers them ("TLS ALPN Protocol IDs")."""

    DOT = "dot"  # RFC 7858
    DOQ = "doq"  # RFC 9250 §4.1
    H2 = "h2"  # RFC 9113 §3.1
    H3 = "h3"  # RFC 9114 §3.2

    @property
    def default_port(self) -> int:
        """Where a client connects to unless a record says otherwise (RFC 9461 §4.2)."""
        return 443 if self.is_http else 853

    @property
    def is_http(self) -> bool:
        """Whether it is HTTP that carries DNS, so that a path is needed (RFC 9461 §5)."""
        return self in (Alpn.H2, Alpn.H3)


class SvcParam(IntEnum):
    """Keys of service parameters (RFC 9460 §14.3.2, RFC 9461 §5)."""

    ALPN = 1
    PORT = 3
    IPV4HINT = 4
    IPV6HINT = 6
    DOHPATH = 7


def service_parameters(
    alpns: Iterable[Alpn], port: int | None, path: str, hints: Iterable[IPv4Address | IPv6Address] = ()
) -> bytes:
    """Write SvcParams, keys in ascending order (RFC 9460 §2.2).

    Args:
        alpns: What is spoken there; at least one.
        port: Left out where it is the default one of all of them; None where each is at its own.
        path: Of DNS over HTTPS, such as `/dns-query`; written as a URI Template (RFC 9461 §5), for HTTP alone.
        hints: Addresses (RFC 9460 §7.3).
    """
    spoken, addresses = tuple(alpns), tuple(hints)
    found = {SvcParam.ALPN: b"".join(bytes((len(alpn),)) + alpn.encode() for alpn in spoken)}
    if port is not None and any(alpn.default_port != port for alpn in spoken):
        found[SvcParam.PORT] = port.to_bytes(2, "big")
    for key, version in ((SvcParam.IPV4HINT, 4), (SvcParam.IPV6HINT, 6)):
        if octets := b"".join(address.packed for address in addresses if address.version == version):
            found[key] = octets
    if any(alpn.is_http for alpn in spoken):
        found[SvcParam.DOHPATH] = f"{path}{{?dns}}".encode()
    return b"".join(
        key.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value for key, value in sorted(found.items())
    )
