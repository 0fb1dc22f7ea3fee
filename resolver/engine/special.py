"""Names that have no business on the wire, answered here.

Special-use names (RFC 6761 and its registry), the reverse zones of addresses that mean nothing beyond a network
(RFC 6303, RFC 7793), the names of discovery (RFC 9462 §4 to §6.4), questions of class CHAOS about this server, what it
knows of who asks (`whoami.interdict.test`), and QTYPE ANY (RFC 8482 §4.2). Nothing in this file ever reaches an
upstream; the configuration may hand a name back (`special_use.forward`), as a site with its own reverse zones must.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final

from resolver.engine.discovery import BY_ADDRESS, Discovery
from resolver.wire import name as names
from resolver.wire.codes import Rclass, Rcode, Rtype
from resolver.wire.compose import LOCAL_TTL, error_answer, negative_answer, rdata, records_answer
from resolver.wire.message import Answer, Query

_ANY_TTL = 3600
_GENERATION = names.from_text("generation.server")
WHOAMI: Final = names.from_text("whoami.interdict.test")
_STRING_OCTETS = 255  # the most that one string of TXT holds (RFC 1035 §3.3)


class _Kind(Enum):
    NOTHING = "a domain that does not exist, its top included"
    EMPTY = "a zone that holds nothing but its apex"
    NODATA = "a zone whose every name exists and holds nothing"
    DISCOVERY = "the name by which clients that know this server's find its transports"
    LOCALHOST = "the loopback names"
    IPV4ONLY = "ipv4only.arpa, by which hosts find a NAT64"
    LOOPBACK4 = "the reverse zone of 127/8"
    LOOPBACK6 = "the reverse name of ::1"
    IPV4ONLY_REVERSE = "the reverse names of ipv4only.arpa's addresses"
    FORWARD = "not special at this site"


_IP6 = ".ip6.arpa"
_ZONES = {
    _Kind.NOTHING: [
        "invalid", "test",  # RFC 6761 §6.4, §6.2
        "onion",  # RFC 7686 §2
        "alt",  # RFC 9476 §2
        "local",  # RFC 6762 §22.1
    ],
    _Kind.EMPTY: [
        "home.arpa",  # RFC 8375 §4
        "interdict.test",  # below a name that is nobody's (RFC 6761 §6.2), with `whoami` in it
        # RFC 6303 §4.1 to §4.6
        "10.in-addr.arpa", *(f"{n}.172.in-addr.arpa" for n in range(16, 32)), "168.192.in-addr.arpa",
        "0.in-addr.arpa", "254.169.in-addr.arpa", "2.0.192.in-addr.arpa", "100.51.198.in-addr.arpa",
        "113.0.203.in-addr.arpa", "255.255.255.255.in-addr.arpa",
        ".".join("0" * 32) + _IP6, "d.f" + _IP6,
        "8.e.f" + _IP6, "9.e.f" + _IP6, "a.e.f" + _IP6, "b.e.f" + _IP6, "8.b.d.0.1.0.0.2" + _IP6,
        *(f"{n}.100.in-addr.arpa" for n in range(64, 128)),  # RFC 7793 §2.1
    ],
    _Kind.NODATA: ["resolver.arpa"],  # RFC 9462 §6.4
    _Kind.LOCALHOST: ["localhost"],  # RFC 6761 §6.3
    _Kind.IPV4ONLY: ["ipv4only.arpa"],  # RFC 8880 §7.1
    _Kind.LOOPBACK4: ["127.in-addr.arpa"],
    _Kind.LOOPBACK6: ["1." + ".".join("0" * 31) + _IP6],
    _Kind.IPV4ONLY_REVERSE: ["170.0.0.192.in-addr.arpa", "171.0.0.192.in-addr.arpa"],
}  # fmt: skip

# RFC 8482 §4.2: one HINFO RRset whose CPU field names the RFC and whose OS field is empty.
_RFC8482 = b"\x07RFC8482\x00"


class SpecialNames:
    """What this server answers by itself, whatever the upstreams say."""

    def __init__(
        self,
        forward: tuple[bytes, ...],
        identity: str,
        version: str,
        generation: Callable[[], str],
        discovery: Discovery | None = None,
    ) -> None:
        """Set up.

        Args:
            forward: Wire names that are not special at this site, with everything below them.
            identity: What `id.server` says (RFC 4892 §2).
            version: What `version.server` says.
            generation: Tells what `generation.server` says: which policy is in force.
            discovery: How clients find the encrypted transports; None for not at all.
        """
        self._zones = {names.from_text(text): kind for kind, texts in _ZONES.items() for text in texts}
        self._found = discovery.answer() if discovery is not None else None
        self._found_at = {BY_ADDRESS}
        if discovery is not None and self._found is not None:
            self._found_at.add(discovery.by_name)
            self._zones[discovery.by_name] = _Kind.DISCOVERY
        self._zones.update(dict.fromkeys(forward, _Kind.FORWARD))
        # Most names end as none of these does, and that is quickly seen.
        self._tops = tuple({_top(zone) for zone in self._zones})
        self._chaos = {
            names.from_text("id.server"): identity,
            names.from_text("hostname.bind"): identity,
            names.from_text("version.server"): version,
            names.from_text("version.bind"): version,
        }
        self._generation = generation

    def names(self) -> dict[bytes, object]:
        """The names that are answered here or handed back to the upstreams, with all below them, in wire form."""
        return dict(self._zones)

    def tops(self) -> frozenset[bytes]:
        """The last labels of these, in wire form with the root's."""
        return frozenset(self._tops)

    def answer(
        self, query: Query, whoami: Callable[[], tuple[str, ...]] = tuple, *, discovers: bool = True
    ) -> Answer | None:
        """The answer to a question that is never forwarded, or None.

        Args:
            query: What is asked.
            whoami: Tells what is known of who asks, a text a record; called for no other name. Nothing: no records.
            discovers: Whether the client is told of the encrypted transports.
        """
        if query.qclass == Rclass.CH:
            return self._chaos_answer(query)
        if query.qclass != Rclass.IN:
            return error_answer(Rcode.NOTIMP)
        kind, offset = self._find(query.qname)
        if kind is not _Kind.FORWARD:
            if discovers and query.qtype == Rtype.SVCB and query.qname in self._found_at and self._found is not None:
                return self._found
            if query.qname == WHOAMI:
                return _whoami_answer(query, offset, whoami)
            return _answer(kind, query, offset)
        if query.qtype == Rtype.ANY:
            return records_answer([(Rtype.HINFO, _RFC8482)], _ANY_TTL)
        return None

    def _find(self, qname: bytes) -> tuple[_Kind, int]:
        if not qname.endswith(self._tops):
            return _Kind.FORWARD, 0
        i = 0
        while (n := qname[i]) != 0:
            kind = self._zones.get(qname[i:])
            if kind is not None:
                return kind, i
            i += n + 1
        return _Kind.FORWARD, 0

    def _chaos_answer(self, query: Query) -> Answer:
        text = self._generation() if query.qname == _GENERATION else self._chaos.get(query.qname)
        if text is None:
            return error_answer(Rcode.REFUSED)
        if query.qtype not in (Rtype.TXT, Rtype.ANY):
            return Answer(int(Rcode.NOERROR))
        text = text.encode()[:_STRING_OCTETS].decode("utf-8", "ignore")
        return records_answer([(Rtype.TXT, rdata(Rtype.TXT, text))], 0, rclass=Rclass.CH)


def _top(zone: bytes) -> bytes:
    """The last label of a name, with the root's; of the root that alone."""
    i = 0
    while zone[i] and zone[i + zone[i] + 1]:
        i += zone[i] + 1
    return zone[i:]


def _answer(kind: _Kind, query: Query, offset: int) -> Answer:
    """Answer from a special zone whose apex begins at `offset` of QNAME."""
    qtype = query.qtype
    is_apex = offset == 0 and kind not in (_Kind.NOTHING, _Kind.LOCALHOST)  # of these two nothing is a zone
    apex = names.to_text(query.qname[offset:])
    exists = kind in (_Kind.NODATA, _Kind.LOCALHOST) or is_apex
    found: list[tuple[Rtype, str]] = []
    if is_apex and kind is not _Kind.DISCOVERY:  # a name in somebody's zone, and no zone
        found += [(Rtype.SOA, apex), (Rtype.NS, apex)]
    if kind is _Kind.LOCALHOST:
        found += [(Rtype.A, "127.0.0.1"), (Rtype.AAAA, "::1")]
    elif kind is _Kind.IPV4ONLY and is_apex:
        found += [(Rtype.A, "192.0.0.170"), (Rtype.A, "192.0.0.171")]
    elif kind is _Kind.LOOPBACK6 and is_apex:
        found.append((Rtype.PTR, "localhost"))
    elif kind is _Kind.LOOPBACK4 and names.to_text(query.qname) == "1.0.0.127.in-addr.arpa":
        exists = True
        found.append((Rtype.PTR, "localhost"))
    elif kind is _Kind.IPV4ONLY_REVERSE and is_apex:
        found.append((Rtype.PTR, "ipv4only.arpa"))
    asked = [(rtype, rdata(rtype, text)) for rtype, text in found if qtype in (rtype, Rtype.ANY)]
    if asked:
        return records_answer(asked, LOCAL_TTL)
    return negative_answer(Rcode.NOERROR if exists else Rcode.NXDOMAIN, offset, LOCAL_TTL, 1)


def _whoami_answer(query: Query, offset: int, whoami: Callable[[], tuple[str, ...]]) -> Answer:
    texts = whoami() if query.qtype in (Rtype.TXT, Rtype.ANY) else ()
    if not texts:
        return negative_answer(Rcode.NOERROR, offset, 0, 1)
    # It is about one client at one moment, so nobody may keep it.
    return records_answer([(Rtype.TXT, _strings(text)) for text in texts], 0)


def _strings(text: str) -> bytes:
    """RDATA of TXT: a text in as many strings as it takes (RFC 1035 §3.3.14)."""
    octets = text.encode("utf-8", "backslashreplace")
    parts = [octets[i : i + _STRING_OCTETS] for i in range(0, len(octets), _STRING_OCTETS)] or [b""]
    return b"".join(bytes((len(part),)) + part for part in parts)
