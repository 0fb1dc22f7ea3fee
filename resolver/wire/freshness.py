"""How long a reply may be kept by who does not look into it: the freshness that HTTP is told (RFC 8484 §5.1).

A stranger's octets may come in (an upstream's answer is passed on): whatever they are, the outcome is a number or None.
"""

import struct

from resolver.hot import _scan_cy as scan
from resolver.wire.codes import Rcode, Rtype
from resolver.wire.message import HEADER_OCTETS, TC

_COUNTS = struct.Struct(">2xHxxHH")  # flags, ANCOUNT, NSCOUNT (RFC 1035 §4.1.1)
_RECORD = struct.Struct(">H2xIH")  # TYPE, CLASS, TTL, RDLENGTH (RFC 1035 §4.1.3)
_SOA_OCTETS = 22  # two names and five numbers of four octets each, MINIMUM last (RFC 1035 §3.3.13)
_TTL_SIGN = 0x8000_0000


def lowest_ttl(message: bytes) -> int | None:
    """Return for how many seconds a reply may be kept, or None if nothing in it says so.

    That is the smallest TTL in the answer section. Where it says that something does not exist, with or without an
    alias before it, the SOA record in the authority section counts as well, for the lesser of its TTL and its MINIMUM
    (RFC 2308 §5). Failures, cut-off replies and malformed ones say nothing.

    Args:
        message: A whole reply, from its header on.
    """
    if len(message) < HEADER_OCTETS:
        return None
    flags, answers, authorities = _COUNTS.unpack_from(message)
    if flags & TC or flags & 15 not in (Rcode.NOERROR, Rcode.NXDOMAIN):
        return None
    at = HEADER_OCTETS
    for _ in range(message[4] << 8 | message[5]):
        at = scan.skip_name(message, at, False) + 4
        if at < HEADER_OCTETS:
            return None
    lowest: int | None = None
    octets = len(message)
    for number in range(answers + authorities):
        at = scan.skip_name(message, at, True)
        if at < 0 or at + 10 > octets:
            return None
        rtype, ttl, rdlength = _RECORD.unpack_from(message, at)
        at += 10 + rdlength
        if at > octets:
            return None
        if ttl & _TTL_SIGN:
            ttl = 0  # RFC 2181 §8
        if number >= answers:
            if rtype != Rtype.SOA or rdlength < _SOA_OCTETS:
                continue
            ttl = min(ttl, int.from_bytes(message[at - 4 : at], "big"))
        if lowest is None or ttl < lowest:
            lowest = ttl
    return lowest
