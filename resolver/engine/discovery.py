"""Discovery of designated resolvers (RFC 9462): how a client of this server finds its encrypted transports.

A client that knows an address asks for `_dns.resolver.arpa` (§4); one that knows the name, for `_dns.NAME` (§5). Both
get the same records, in ServiceMode, and their target is always the name: "." and `resolver.arpa` are forbidden (§4).
What the records lead to must not give another policy by port or path alone, since whoever is on the way can change
both (§7): only endpoints that every client may use belong here, and no token ever does.

Addresses go along as hints and as additional records (§4), so that no client needs anybody else to find them
(RFC 8484 §10). The name's own A and AAAA records are not served: RFC 9462 does not ask for it, they are in the zone of
whoever owns the name, and an unsigned copy would be bogus to a client that validates a signed zone.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from resolver.wire import name as names
from resolver.wire.codes import Rclass, Rcode, Rtype
from resolver.wire.message import Answer
from resolver.wire.svcb import Alpn, service_parameters

DNS_LABEL: Final = b"\x04_dns"
BY_ADDRESS: Final = names.from_text("_dns.resolver.arpa")
# Seconds. A client keeps to what it found as long, and asks no sooner where it found nothing it could verify (§4.2); so
# a mistake in the configuration is mended in five minutes.
DISCOVERY_TTL: Final = 300


@dataclass(frozen=True, slots=True)
class Discovery:
    """The encrypted transports of this server, as its clients see them; ports are None where there is none.

    Attributes:
        name: Wire form; the certificate holds it, and the addresses that clients are given (§4.2).
        addresses: Those that clients reach, which need not be those listened on.
        path: Of DNS over HTTPS, without a token.
    """

    name: bytes
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    doh: int | None = None
    doh3: int | None = None
    dot: int | None = None
    doq: int | None = None
    path: str = "/dns-query"

    @property
    def by_name(self) -> bytes:
        """The name that a client asks for that knows the server's (RFC 9461 §3)."""
        return DNS_LABEL + self.name

    def answer(self) -> Answer | None:
        """The records for either name; None where nothing is encrypted.

        The first is what is preferred: HTTP as in the RFC's own example (§5), since it gets through more networks.
        """
        target = self.name
        endpoints = self._endpoints()
        if not endpoints:
            return None
        records = [
            (
                b"\xc0\x0c",
                Rtype.SVCB,
                # A TargetName is never compressed (RFC 9460 §2.2).
                priority.to_bytes(2, "big") + target + service_parameters(alpns, port, self.path, self.addresses),
            )
            for priority, (port, alpns) in enumerate(endpoints, 1)
        ]
        additional = [(target, Rtype.A if one.version == 4 else Rtype.AAAA, one.packed) for one in self.addresses]
        body = bytearray()
        ttls = []
        for owner, rtype, octets in (*records, *additional):
            body += owner + int(rtype).to_bytes(2, "big") + int(Rclass.IN).to_bytes(2, "big")
            ttls.append((len(body), DISCOVERY_TTL))
            body += DISCOVERY_TTL.to_bytes(4, "big") + len(octets).to_bytes(2, "big") + octets
        return Answer(int(Rcode.NOERROR), (len(records), 0, len(additional)), bytes(body), tuple(ttls))

    def _endpoints(self) -> list[tuple[int, tuple[Alpn, ...]]]:
        """Ports, and what is spoken there: HTTP on its own, since it alone needs a path."""
        found: dict[tuple[bool, int], list[Alpn]] = {}
        for alpn, port in ((Alpn.H2, self.doh), (Alpn.H3, self.doh3), (Alpn.DOT, self.dot), (Alpn.DOQ, self.doq)):
            if port is not None:
                found.setdefault((alpn.is_http, port), []).append(alpn)
        return [(port, tuple(alpns)) for (_, port), alpns in found.items()]
