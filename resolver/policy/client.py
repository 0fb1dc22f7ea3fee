"""Who asks, by which transport, and what it showed of itself.

A transport makes one `Client` a connection (of HTTP, one for each path and authorization that comes over it) and hands
it in with every message; whose device it is, `register.py` finds out.
"""

import math
from dataclasses import dataclass
from enum import StrEnum


class Transport(StrEnum):
    """How a message came: the words of hits and metrics."""

    UDP = "udp"
    TCP = "tcp"
    DOT = "dot"  # RFC 7858
    DOH = "doh"  # RFC 8484 over HTTP/2 or HTTP/1.1
    DOQ = "doq"  # RFC 9250
    DOH3 = "doh3"  # RFC 8484 over HTTP/3

    @property
    def is_encrypted(self) -> bool:
        """Whether nobody on the way can read along, so that the length of a message is worth hiding (RFC 8467)."""
        return self not in (Transport.UDP, Transport.TCP)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client showed of itself. What it did not show is None, or empty.

    Attributes:
        certificate: The names in a client certificate that was verified: of its subjectAltName, then of its subject.
        path_token: What followed the path of DoH.
        bearer: The bearer token of the HTTP authorization (RFC 6750 §2.1).
        server_name: The name that it called us by in TLS (RFC 6066 §3), in lower case.
        until: When its certificate ends, in Unix seconds: a connection, or a session that is resumed, may outlive it.
    """

    certificate: tuple[str, ...] = ()
    path_token: str | None = None
    bearer: str | None = None
    server_name: str | None = None
    until: float = math.inf


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks, and how.

    Attributes:
        address: 4 or 16 octets.
        sockaddr: The 28 octets that go into hit records.
        transport: How it asks.
        listener: The group that all who come by this listener belong to, if one was configured.
        credentials: What it showed of itself, if anything.
        proxied: Whether a proxy passes on what it asks: its messages then begin with a header.
        device: The name of the device that it was recognised as; empty where it was not, or not yet.
    """

    address: bytes
    sockaddr: bytes
    transport: Transport
    listener: str | None = None
    credentials: Credentials | None = None
    device: str = ""
    proxied: bool = False

    @property
    def is_batched(self) -> bool:
        """Whether its messages are datagrams that the hot memo sees first, and knows again."""
        return self.transport is Transport.UDP and not self.proxied

    @property
    def over_udp(self) -> bool:
        """Whether replies are bound by a datagram's size."""
        return self.transport is Transport.UDP
