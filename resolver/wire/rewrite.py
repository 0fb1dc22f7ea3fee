"""Answers taken apart into records and put together anew, where policy changes a part of what an upstream said.

A record here stands alone: no name in it is compressed, so it can be put into any message.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from resolver.hot import _scan_cy as scan
from resolver.wire.codes import Rcode, Rtype
from resolver.wire.message import HEADER_OCTETS, Answer, ExtendedError

_TO_QUESTION = b"\xc0\x0c"  # a compression pointer to the question's name
_MANDATORY, _ECH = 0, 5  # SvcParamKeys of IANA's registry

# Types whose RDATA holds names that may be compressed, or that old software compresses (RFC 3597 §4): octets before the
# names, and how many names. What follows them is copied.
_NAMES_IN = {
    int(Rtype.NS): (0, 1),
    int(Rtype.CNAME): (0, 1),
    int(Rtype.SOA): (0, 2),
    int(Rtype.PTR): (0, 1),
    int(Rtype.MX): (2, 1),
    int(Rtype.DNAME): (0, 1),
    int(Rtype.SRV): (6, 1),
    int(Rtype.SVCB): (2, 1),
    int(Rtype.HTTPS): (2, 1),
    **dict.fromkeys((3, 4, 7, 8, 9), (0, 1)),  # MD MF MB MG MR
    **dict.fromkeys((14, 17), (0, 2)),  # MINFO RP
    **dict.fromkeys((18, 21, 36), (2, 1)),  # AFSDB RT KX
    24: (18, 1),  # SIG
    26: (2, 2),  # PX
    30: (0, 1),  # NXT
}
_NAPTR = 35


@dataclass(frozen=True, slots=True)
class Record:
    """A resource record of class IN: names in wire form, TTL in seconds."""

    owner: bytes
    rtype: int
    ttl: int
    rdata: bytes


def answer_records(qname: bytes, answer: Answer) -> list[Record]:
    """The records of an answer's ANSWER section; one that can not be taken out of its message is left out."""
    message = _message(qname, answer)
    ttls = dict(answer.ttls)
    start = HEADER_OCTETS + len(qname) + 4
    found = []
    for section, at, rtype, rdata, end, owner in scan.scan_records(message, start) or []:
        if section:
            break
        name = scan.read_name(message, owner)
        octets = _whole(message, rtype, rdata, end)
        if name and octets is not None:
            found.append(Record(name, rtype, ttls.get(at + 4 - start, 0), octets))
    return found


def _message(qname: bytes, answer: Answer) -> bytes:
    """A message with the answer in its place, for offsets and pointers to mean what they mean."""
    counts = b"".join(count.to_bytes(2, "big") for count in answer.counts)
    return b"\0\0\x80\0\0\1" + counts + qname + b"\0\1\0\1" + answer.body


def _whole(message: bytes, rtype: int, rdata: int, end: int) -> bytes | None:
    before, count = _NAMES_IN.get(rtype, (0, 0))
    if rtype == _NAPTR:  # order and preference, then three strings, then a name (RFC 3403 §4.1)
        before, count = 4, 1
        for _ in range(3):
            if rdata + before >= end:
                return None
            before += message[rdata + before] + 1
    out = message[rdata : rdata + before]
    i = rdata + before
    for _ in range(count):
        name = scan.read_name(message, i)
        i = scan.skip_name(message, i, True)
        if not name or not 0 <= i <= end:
            return None
        out += name
    return out + message[i:end]


def records_to_answer(
    qname: bytes,
    rcode: int,
    answers: Sequence[Record],
    authority: Sequence[Record] = (),
    additional: Sequence[Record] = (),
    errors: tuple[ExtendedError, ...] = (),
) -> Answer:
    """An answer that holds just these records, in the order given."""
    body = bytearray()
    ttls = []
    for record in (*answers, *authority, *additional):
        body += _TO_QUESTION if record.owner == qname else record.owner
        ttls.append((len(body) + 4, record.ttl))
        body += record.rtype.to_bytes(2, "big") + b"\0\1" + record.ttl.to_bytes(4, "big")
        body += len(record.rdata).to_bytes(2, "big") + record.rdata
    counts = (len(answers), len(authority), len(additional))
    return Answer(int(rcode), counts, bytes(body), tuple(ttls), errors=errors)


def chain_records(qname: bytes, aliases: Iterable[bytes], ttl: int) -> list[Record]:
    """The CNAME records that lead from a name through all its aliases."""
    found = []
    owner = qname
    for alias in aliases:
        found.append(Record(owner, int(Rtype.CNAME), ttl, alias))
        owner = alias
    return found


def without_ech(qname: bytes, answer: Answer) -> Answer:
    """The answer less every `ech` parameter of SVCB and HTTPS, and less the signatures that would no longer hold.

    Returns:
        The answer itself where it has none; else one with its ANSWER section alone.
    """
    records = answer_records(qname, answer)
    kept = [
        replace(record, rdata=_less_ech(record.rdata)) if record.rtype in (Rtype.SVCB, Rtype.HTTPS) else record
        for record in records
        if record.rtype != Rtype.RRSIG
    ]
    if answer.rcode != Rcode.NOERROR or [one for one in records if one.rtype != Rtype.RRSIG] == kept:
        return answer
    made = records_to_answer(qname, answer.rcode, kept)
    return replace(answer, counts=made.counts, body=made.body, ttls=made.ttls, authentic=False)


def _less_ech(rdata: bytes) -> bytes:
    start = scan.skip_name(rdata, 2, False)
    if start < 0:
        return rdata
    params = []
    i = start
    while i + 4 <= len(rdata):
        stop = i + 4 + (rdata[i + 2] << 8 | rdata[i + 3])
        params.append((rdata[i] << 8 | rdata[i + 1], rdata[i + 4 : stop]))
        i = stop
    if i != len(rdata) or all(key != _ECH for key, _ in params):
        return rdata
    out = rdata[:start]
    for key, octets in params:
        if key == _MANDATORY:
            # A key that is mandatory and not there would make the record void (RFC 9460 §8).
            keys = [octets[at : at + 2] for at in range(0, len(octets), 2)]
            octets = b"".join(one for one in keys if int.from_bytes(one, "big") != _ECH)
        if key != _ECH and (octets or key != _MANDATORY):
            out += key.to_bytes(2, "big") + len(octets).to_bytes(2, "big") + octets
    return out
