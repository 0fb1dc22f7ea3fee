"""Messages as values: a `Query` from a client's bytes, an `Answer` from an upstream's.

The invariant of this room: any bytes either become a value or raise `WireError`, never anything else. A WireError
carries what the reply needs (RCODE, question, whether there was an OPT), or says that silence is the answer.

Questions are kept as the client wrote them: the reply repeats those octets, letter case included
(draft-vixie-dnsext-dns0x20), while `qname` is the lower-cased name that everything else is about.
"""

from dataclasses import dataclass

from resolver.hot import _scan_cy as scan
from resolver.wire.codes import EdnsOption, Rcode, Rtype

HEADER_OCTETS = 12
_RDATA_AFTER = 6  # octets from a record's TTL to its RDATA (RFC 1035 §4.1.3)
MIN_UDP_OCTETS = 512  # RFC 1035 §4.2.1; smaller EDNS sizes are read as this (RFC 6891 §6.2.3)

# Header bits of the third and fourth octet, read as one number (RFC 1035 §4.1.1, RFC 4035 §3).
QR = 0x8000
OPCODE = 0x7800
AA = 0x0400
TC = 0x0200
RD = 0x0100
RA = 0x0080
AD = 0x0020
CD = 0x0010


@dataclass(slots=True)
class Query:
    """One question, as asked.

    `question` is QNAME, QTYPE and QCLASS as the client wrote them; it is empty where no single question could be read.
    `udp_octets` is the largest UDP answer that the client takes: what its OPT says, at least 512. `options` are the
    codes of the options in it.
    """

    id: int
    flags: int
    question: bytes
    qname: bytes
    qtype: int
    qclass: int
    has_opt: bool
    udp_octets: int
    do: bool
    has_options: bool
    options: frozenset[int]

    @property
    def wants_nsid(self) -> bool:
        """Whether the server is asked for its identity (RFC 5001 §2.1)."""
        return EdnsOption.NSID in self.options

    @property
    def opcode(self) -> int:
        """The kind of query (RFC 1035 §4.1.1)."""
        return (self.flags & OPCODE) >> 11


class WireError(Exception):
    """Bytes that are no query this resolver answers normally.

    Attributes:
        rcode: What to answer, or None for silence.
        query: As much of the query as could be read, for the reply; None with silence.
        reason: One word or two for the counter.
    """

    def __init__(self, rcode: Rcode | None, query: Query | None, reason: str) -> None:
        super().__init__(reason)
        self.rcode = rcode
        self.query = query
        self.reason = reason


def read_query(message: bytes) -> Query:
    """Read a client's message.

    Raises:
        WireError: FORMERR for what is not well formed or holds no single question (RFC 9619 §4), NOTIMP for another
            opcode or a meta-type, REFUSED for a zone transfer, BADVERS for an EDNS version above 0 (RFC 6891 §6.1.3);
            silence for what is too short to have a header and for responses, since answering a response could start a
            loop.
    """
    outcome, question_end, opt = scan.scan_query(message)
    if outcome == scan.NOT_A_QUERY:
        raise WireError(None, None, "short" if len(message) < HEADER_OCTETS else "response")
    flags = message[2] << 8 | message[3]
    qname, qtype, qclass, question = b"\0", 0, 0, b""
    if question_end:
        question = message[HEADER_OCTETS:question_end]
        qname = question[:-4].lower()
        qtype = question[-4] << 8 | question[-3]
        qclass = question[-2] << 8 | question[-1]
    udp_octets, do, options, version = MIN_UDP_OCTETS, False, _NO_OPTIONS, 0
    rdlength = 0
    if opt:
        udp_octets = max(MIN_UDP_OCTETS, message[opt + 2] << 8 | message[opt + 3])
        version = message[opt + 5]
        do = message[opt + 6] >= 0x80
        rdlength = message[opt + 8] << 8 | message[opt + 9]
        if rdlength:
            options = _options(message, opt + 10, opt + 10 + rdlength)
    query = Query(
        message[0] << 8 | message[1], flags, question, qname, qtype, qclass,
        bool(opt), udp_octets, do, rdlength > 0, options,
    )  # fmt: skip
    if flags & OPCODE:
        raise WireError(Rcode.NOTIMP, query, "opcode")
    if outcome != scan.WELL_FORMED or not question_end:
        raise WireError(Rcode.FORMERR, query, "malformed")
    if version:
        raise WireError(Rcode.BADVERS, query, "edns version")
    if qtype in (Rtype.AXFR, Rtype.IXFR):
        raise WireError(Rcode.REFUSED, query, "zone transfer")
    if message[6] | message[7] | message[8] | message[9]:
        raise WireError(Rcode.FORMERR, query, "malformed")  # a standard query carries only a question (RFC 1034 §3.7.1)
    if qtype in _NO_QUESTION or qclass == 0:
        raise WireError(Rcode.FORMERR, query, "malformed")
    if qtype in _NOT_IMPLEMENTED:
        raise WireError(Rcode.NOTIMP, query, "meta type")
    return query


# Type 0 is reserved (RFC 6895 §3.1), OPT is never asked for (RFC 6891 §6.1.1).
_NO_QUESTION = frozenset({0, int(Rtype.OPT)})
_NOT_IMPLEMENTED = frozenset({int(Rtype.TKEY), int(Rtype.TSIG), int(Rtype.MAILA), int(Rtype.MAILB)})


_NO_OPTIONS: frozenset[int] = frozenset()


def _options(message: bytes, start: int, end: int) -> frozenset[int]:
    found = set()
    i = start
    while i + 4 <= min(end, len(message)):
        found.add(message[i] << 8 | message[i + 1])
        i += 4 + (message[i + 2] << 8 | message[i + 3])
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class ExtendedError:
    """One Extended DNS Error (RFC 8914 §2): INFO-CODE and EXTRA-TEXT."""

    code: int
    text: str = ""


@dataclass(slots=True)
class Answer:
    """What DNS says to one question, whoever asks it.

    Nothing changes it; it is not frozen because one is made for each question that is asked.

    `body` is everything after the question, less the OPT record. Compression pointers in it count from the start of a
    message whose question stands at octet 12, so it fits behind any spelling of the same question.
    """

    rcode: int
    counts: tuple[int, int, int] = (0, 0, 0)
    body: bytes = b""
    ttls: tuple[tuple[int, int], ...] = ()  # (offset in body, seconds) of each TTL field
    authentic: bool = False
    errors: tuple[ExtendedError, ...] = ()
    negative_ttl: int | None = None  # how long "no such name" or "no such data" holds (RFC 2308 §5); None: not negative
    aliases: tuple[bytes, ...] = ()  # names that QNAME is an alias of, in the order the CNAME records lead to them
    targets: tuple[bytes, ...] = ()  # other names the answer leads to: of DNAME, SVCB and HTTPS
    addresses: tuple[bytes, ...] = ()  # of A and AAAA, and the address hints of SVCB and HTTPS; 4 or 16 octets each
    truncated: bool = False  # says nothing over UDP but to come back over TCP


@dataclass(slots=True)
class Reply:
    """An upstream's message, checked and taken apart."""

    answer: Answer
    truncated: bool
    has_opt: bool


def write_query(qname: bytes, qtype: int, message_id: int, *, do: bool, cd: bool, edns: bool, udp_octets: int) -> bytes:
    """A recursive query for class IN, as an upstream gets it.

    AD is set to say that we understand it in the reply (RFC 6840 §5.7).
    """
    flags = RD | AD | (CD if cd else 0)
    head = (
        message_id.to_bytes(2, "big")
        + flags.to_bytes(2, "big")
        + (b"\0\1\0\0\0\0\0\1" if edns else b"\0\1\0\0\0\0\0\0")
    )
    question = qname + qtype.to_bytes(2, "big") + b"\0\1"
    if not edns:
        return head + question
    opt = b"\0\0\x29" + udp_octets.to_bytes(2, "big") + (b"\0\0\x80\0" if do else b"\0\0\0\0") + b"\0\0"
    return head + question + opt


def read_reply(message: bytes, query: bytes) -> Reply:
    """Check an upstream's message against the query it must belong to, and take it apart.

    The id and the question must be the ones that were sent (RFC 5452 §9.1); the transport has already checked address
    and port. Where a record of the reply is not well formed the whole reply is refused.

    Raises:
        WireError: Not a reply to this query, or not well formed.
    """
    question_end = HEADER_OCTETS
    while query[question_end]:
        question_end += query[question_end] + 1
    question_end += 5
    if len(message) < HEADER_OCTETS or message[:2] != query[:2]:
        raise WireError(None, None, "wrong id")
    flags = message[2] << 8 | message[3]
    if not flags & QR or flags & OPCODE:
        raise WireError(None, None, "not a response")
    rcode = flags & 15
    if message[4:6] == b"\0\0" and rcode and len(message) == HEADER_OCTETS:
        # Old servers answer an error with a bare header; it can only stand for an error, never for data.
        return Reply(Answer(rcode), bool(flags & TC), False)
    # Letter case is for QNAME only: in QTYPE and QCLASS an octet that looks like a letter is a number.
    question = message[HEADER_OCTETS : question_end - 4].lower() + message[question_end - 4 : question_end]
    if message[4:6] != b"\0\1" or question != query[HEADER_OCTETS:question_end]:
        raise WireError(None, None, "wrong question")
    truncated = bool(flags & TC)
    qtype = message[question_end - 4] << 8 | message[question_end - 3]
    outcome, counts, body, ttls, opt, links, targets, addresses, negative_ttl, has_data = scan.read_records(
        message, question_end, qtype
    )
    if outcome != scan.WHOLE:
        if truncated and outcome == scan.BROKEN_OFF:
            return Reply(Answer(rcode), True, False)  # cut in the middle of a record: asked again over TCP
        raise WireError(None, None, "malformed")
    errors: tuple[ExtendedError, ...] = ()
    if opt[0]:
        rcode |= message[opt[0]] << 4
        errors = _read_errors(message, opt[0] + _RDATA_AFTER, opt[1])
    negative = rcode == Rcode.NXDOMAIN or (rcode == Rcode.NOERROR and not has_data)
    chain: list[bytes] = []
    others = targets
    if links:
        aliases: dict[bytes, bytes] = {}
        for owner, target in links:
            aliases.setdefault(owner, target)
        at_name = query[HEADER_OCTETS : question_end - 4]
        while at_name in aliases:
            at_name = aliases.pop(at_name)  # each is followed once, so that a loop of them ends
            chain.append(at_name)
        others = [*aliases.values(), *targets]
    answer = Answer(
        rcode,
        counts,
        body,
        ttls,
        bool(flags & AD),
        errors,
        max(negative_ttl, 0) if negative else None,
        tuple(chain),
        tuple(others),
        tuple(addresses),
    )
    return Reply(answer, truncated, opt[0] > 0)


def _read_errors(message: bytes, start: int, end: int) -> tuple[ExtendedError, ...]:
    if start == end:
        return ()
    found = []
    i = start
    while i + 4 <= end:
        octets = message[i + 2] << 8 | message[i + 3]
        stop = i + 4 + octets
        if stop > end:
            raise WireError(None, None, "malformed")
        if message[i] << 8 | message[i + 1] == EdnsOption.EDE and octets >= 2:
            text = message[i + 6 : stop].rstrip(b"\0").decode("utf-8", "replace")
            found.append(ExtendedError(message[i + 4] << 8 | message[i + 5], text))
        i = stop
    if i != end:
        raise WireError(None, None, "malformed")
    return tuple(found)
