"""Replies as bytes. The one place where a reply is put together, whatever it says and however it travels."""

from functools import lru_cache

import dnslib

from resolver.wire.codes import EdnsOption, Rclass, Rcode, Rtype
from resolver.wire.message import AD, CD, HEADER_OCTETS, OPCODE, QR, RA, RD, TC, Answer, ExtendedError, Query

# The largest UDP message we send or ask for: it crosses IPv6's minimum MTU unfragmented (RFC 8200 §5).
UDP_OCTETS = 1232
TCP_OCTETS = 65535
PADDING_BLOCK = 468  # octets; the length of a padded reply is a multiple of it (RFC 8467 §4.1)
LOCAL_TTL = 10800  # seconds, of what is served here and nowhere else (RFC 6303 §3)
_SOA_TIMES = (3600, 1200, 604800)  # refresh, retry, expire (RFC 6303 §3)
_OPT_OCTETS = 11  # an OPT record without options (RFC 6891 §6.1.2)
_EXTRA_TEXT_OCTETS = 160  # EXTRA-TEXT is for people and must not crowd out the answer (RFC 8914 §2)


def write_reply(
    query: Query,
    answer: Answer,
    *,
    over_udp: bool,
    nsid: bytes = b"",
    encrypted: bool = False,
    keepalive: float | None = None,
) -> bytes:
    """Put a reply together.

    Header bits: QR and RA set, AA clear, opcode, RD and CD as asked; AD only where the answer is authentic and the
    client can read it (RFC 6840 §5.8). An OPT goes back to every query that had one (RFC 6891 §6.1.1), with NSID where
    asked (RFC 5001 §2.2), the answer's Extended DNS Errors, and padding where the query had some and the length tells
    something that is hidden otherwise (RFC 7830 §4). What does not fit is cut to the question and an OPT, with TC set,
    since a part of an RRset is of no use to anybody (RFC 2181 §9).

    Args:
        query: What was asked; its question octets are repeated as they came.
        answer: What to say.
        over_udp: Whether the reply is bound by a datagram's size.
        nsid: This server's identity, sent where the query asked for it.
        encrypted: Whether the reply travels encrypted.
        keepalive: For how many seconds the client's connection may be idle, told where it asked (RFC 7828 §3.3.2);
            None where that is not for the message to say.
    """
    limit = min(query.udp_octets, UDP_OCTETS) if over_udp else TCP_OCTETS
    room = limit - HEADER_OCTETS - len(query.question)
    opt = _opt(query, answer, nsid, keepalive, room) if query.has_opt else b""
    flags = QR | RA | (query.flags & (OPCODE | RD | CD)) | answer.rcode & 15
    if answer.authentic and (query.do or query.flags & AD):
        flags |= AD
    body, counts = answer.body, answer.counts
    if len(body) + len(opt) > room or (answer.truncated and over_udp):
        flags |= TC
        body, counts = b"", (0, 0, 0)
    if encrypted and EdnsOption.PADDING in query.options:
        opt = _padded(opt, limit - room + len(body), limit)
    return b"".join((
        query.id.to_bytes(2, "big"),
        flags.to_bytes(2, "big"),
        b"\0\1" if query.question else b"\0\0",
        counts[0].to_bytes(2, "big"),
        counts[1].to_bytes(2, "big"),
        (counts[2] + (1 if opt else 0)).to_bytes(2, "big"),
        query.question,
        body,
        opt,
    ))  # fmt: skip


def _opt(query: Query, answer: Answer, nsid: bytes, keepalive: float | None, room: int) -> bytes:
    offered = [(EdnsOption.NSID, nsid)] if nsid and query.wants_nsid else []
    if keepalive is not None and EdnsOption.KEEPALIVE in query.options:
        # In units of 100 milliseconds (RFC 7828 §3.1).
        offered.append((EdnsOption.KEEPALIVE, min(65535, int(keepalive * 10)).to_bytes(2, "big")))
    for error in answer.errors:
        text = error.text.encode()[:_EXTRA_TEXT_OCTETS].decode("utf-8", "ignore").encode()
        offered.append((EdnsOption.EDE, error.code.to_bytes(2, "big") + text))
    options = b""
    for code, octets in offered:
        # One that does not fit is left out: an upstream may send more errors than an OPT can hold.
        if _OPT_OCTETS + len(options) + 4 + len(octets) <= room:
            options += code.to_bytes(2, "big") + len(octets).to_bytes(2, "big") + octets
    return b"".join((
        b"\0\0\x29",
        UDP_OCTETS.to_bytes(2, "big"),
        (answer.rcode >> 4).to_bytes(1, "big"),  # upper bits of the RCODE, then version 0 (RFC 6891 §6.1.3)
        b"\0\x80\0" if query.do else b"\0\0\0",  # the DO bit is copied (RFC 3225 §3)
        len(options).to_bytes(2, "big"),
        options,
    ))  # fmt: skip


def _padded(opt: bytes, before: int, limit: int) -> bytes:
    """An OPT, which ends the message `before` octets into it, with padding up to the next whole block."""
    octets = before + len(opt) + 4
    missing = min(-octets % PADDING_BLOCK, limit - octets)
    if missing < 0:
        return opt
    options = int.from_bytes(opt[9:11], "big") + 4 + missing
    padding = EdnsOption.PADDING.to_bytes(2, "big") + missing.to_bytes(2, "big") + bytes(missing)
    return opt[:9] + options.to_bytes(2, "big") + opt[11:] + padding


def error_answer(rcode: int, *errors: ExtendedError) -> Answer:
    """An answer that says only that there is none."""
    return Answer(int(rcode), errors=errors)


@lru_cache(maxsize=256)
def rdata(rtype: Rtype, text: str) -> bytes:
    """RDATA in wire form, of the few types that we make ourselves.

    Args:
        rtype: A, AAAA, PTR, NS or TXT; or SOA, of a zone that is served here and nowhere else (see `negative_answer`).
        text: Address, name or text; for SOA the zone's name.
    """
    if rtype is Rtype.SOA:
        made = dnslib.SOA(text, "nobody.invalid", (1, *_SOA_TIMES, LOCAL_TTL))
    else:
        made = {
            Rtype.A: dnslib.A,
            Rtype.AAAA: dnslib.AAAA,
            Rtype.PTR: dnslib.PTR,
            Rtype.NS: dnslib.NS,
            Rtype.TXT: dnslib.TXT,
        }[rtype](text)
    buffer = dnslib.DNSBuffer()
    made.pack(buffer)
    return bytes(buffer.data)


def records_answer(
    records: list[tuple[Rtype, bytes]],
    ttl: int,
    errors: tuple[ExtendedError, ...] = (),
    rclass: Rclass = Rclass.IN,
) -> Answer:
    """NOERROR with one RR of our own per entry, all owned by the question's name.

    Args:
        records: Type and RDATA; the owner is written as a pointer to the question.
        ttl: Seconds.
        errors: Extended DNS Errors to go with it.
        rclass: Of the records.
    """
    body = bytearray()
    ttls = []
    for rtype, octets in records:
        ttls.append((len(body) + 6, ttl))
        body += b"\xc0\x0c" + int(rtype).to_bytes(2, "big") + int(rclass).to_bytes(2, "big") + ttl.to_bytes(4, "big")
        body += len(octets).to_bytes(2, "big") + octets
    return Answer(int(Rcode.NOERROR), (len(records), 0, 0), bytes(body), tuple(ttls), errors=errors)


def negative_answer(
    rcode: int, apex_offset: int, ttl: int, serial: int, errors: tuple[ExtendedError, ...] = ()
) -> Answer:
    """NXDOMAIN or NODATA with the SOA that lets it be cached (RFC 2308 §3).

    The SOA, of class IN, is that of a zone served here and nowhere else, in the form RFC 6303 §3 gives for such zones:
    MNAME is the zone's own name, RNAME is nobody.invalid.

    Args:
        rcode: NXDOMAIN, or NOERROR for NODATA.
        apex_offset: Where in QNAME's wire form the zone's name begins; the SOA's owner is a pointer to it.
        ttl: Seconds for which the answer may be cached; SOA TTL and MINIMUM alike.
        serial: The SOA's serial.
    """
    pointer = (0xC000 | (HEADER_OCTETS + apex_offset)).to_bytes(2, "big")
    times = b"".join(n.to_bytes(4, "big") for n in (serial & 0xFFFFFFFF, *_SOA_TIMES, ttl))
    octets = pointer + b"\6nobody\7invalid\0" + times
    body = pointer + b"\0\6\0\1" + ttl.to_bytes(4, "big") + len(octets).to_bytes(2, "big") + octets
    return Answer(int(rcode), (0, 1, 0), body, ((6, ttl),), errors=errors, negative_ttl=ttl)
