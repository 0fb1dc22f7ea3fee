"""The registries this resolver speaks, by IANA name ("Domain Name System (DNS) Parameters").

Only codes that some line of the product acts on or prints are listed; every other number is carried through untouched
(RFC 3597 §3) and printed as TYPE123 or CLASS123 (RFC 3597 §5).
"""

from enum import IntEnum


class Opcode(IntEnum):
    """What kind of message it is (RFC 1035 §4.1.1). All but QUERY are answered NOTIMP."""

    QUERY = 0
    IQUERY = 1
    STATUS = 2
    NOTIFY = 4
    UPDATE = 5
    DSO = 6


class Rcode(IntEnum):
    """Response codes. BADVERS needs the OPT record's upper eight bits (RFC 6891 §6.1.3)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    YXDOMAIN = 6
    YXRRSET = 7
    NXRRSET = 8
    NOTAUTH = 9
    NOTZONE = 10
    BADVERS = 16
    BADCOOKIE = 23


class Rclass(IntEnum):
    """Classes (RFC 6895 §3.2)."""

    IN = 1
    CH = 3
    HS = 4
    NONE = 254
    ANY = 255


class Rtype(IntEnum):
    """RR types and QTYPEs that are acted on, or common enough to be printed and counted by name."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    HINFO = 13
    MX = 15
    TXT = 16
    AAAA = 28
    SRV = 33
    NAPTR = 35
    DNAME = 39
    OPT = 41
    DS = 43
    RRSIG = 46
    NSEC = 47
    DNSKEY = 48
    NSEC3 = 50
    TLSA = 52
    SVCB = 64
    HTTPS = 65
    SPF = 99
    TKEY = 249
    TSIG = 250
    IXFR = 251
    AXFR = 252
    MAILB = 253
    MAILA = 254
    ANY = 255
    CAA = 257


class EdnsOption(IntEnum):
    """EDNS option codes that are understood; all others are ignored (RFC 6891 §6.1.2)."""

    NSID = 3
    KEEPALIVE = 11  # RFC 7828
    PADDING = 12  # RFC 7830
    EDE = 15


class Ede(IntEnum):
    """INFO-CODEs of Extended DNS Errors (RFC 8914 §4 and the IANA registry)."""

    OTHER = 0
    STALE_ANSWER = 3
    FORGED_ANSWER = 4
    CACHED_ERROR = 13
    NOT_READY = 14
    BLOCKED = 15
    CENSORED = 16
    FILTERED = 17
    PROHIBITED = 18
    STALE_NXDOMAIN_ANSWER = 19
    NOT_AUTHORITATIVE = 20
    NOT_SUPPORTED = 21
    NO_REACHABLE_AUTHORITY = 22
    NETWORK_ERROR = 23
    INVALID_DATA = 24

    @property
    def meaning(self) -> str:
        """The registry's name for the code, for people."""
        return _EDE_MEANING[self]


_EDE_MEANING = {
    Ede.OTHER: "Other Error",
    Ede.STALE_ANSWER: "Stale Answer",
    Ede.FORGED_ANSWER: "Forged Answer",
    Ede.CACHED_ERROR: "Cached Error",
    Ede.NOT_READY: "Not Ready",
    Ede.BLOCKED: "Blocked",
    Ede.CENSORED: "Censored",
    Ede.FILTERED: "Filtered",
    Ede.PROHIBITED: "Prohibited",
    Ede.STALE_NXDOMAIN_ANSWER: "Stale NXDOMAIN Answer",
    Ede.NOT_AUTHORITATIVE: "Not Authoritative",
    Ede.NOT_SUPPORTED: "Not Supported",
    Ede.NO_REACHABLE_AUTHORITY: "No Reachable Authority",
    Ede.NETWORK_ERROR: "Network Error",
    Ede.INVALID_DATA: "Invalid Data",
}

_RTYPE_NAMES = {int(t): t.name for t in Rtype}
_RCODE_NAMES = {int(r): r.name for r in Rcode}


def rtype_text(rtype: int) -> str:
    """The type's mnemonic, or TYPE123 (RFC 3597 §5)."""
    return _RTYPE_NAMES.get(rtype) or f"TYPE{rtype}"


def rtype_from_text(text: str) -> int:
    """The type's number for a mnemonic or TYPE123, any case.

    Raises:
        ValueError: Neither.
    """
    upper = text.upper()
    if upper in Rtype.__members__:
        return int(Rtype[upper])
    if upper.startswith("TYPE") and upper[4:].isascii() and upper[4:].isdigit() and int(upper[4:]) < 65536:
        return int(upper[4:])
    raise ValueError(f"unknown RR type {text!r}; write a mnemonic such as A or HTTPS, or TYPE65 (RFC 3597 §5)")


def rcode_text(rcode: int) -> str:
    """The RCODE's mnemonic, or RCODE123."""
    return _RCODE_NAMES.get(rcode) or f"RCODE{rcode}"


# Types that get a metric label of their own. Everything else is `other`, so that no client can make labels (one per
# number) by asking for all 65,536 types.
_COUNTED_TYPES = {
    Rtype.A, Rtype.AAAA, Rtype.HTTPS, Rtype.SVCB, Rtype.PTR, Rtype.TXT, Rtype.MX, Rtype.SRV, Rtype.NS, Rtype.SOA,
    Rtype.CNAME, Rtype.DS, Rtype.DNSKEY, Rtype.ANY,
}  # fmt: skip
_TYPE_CLASS = {int(t): t.name for t in _COUNTED_TYPES}


def rtype_class(rtype: int) -> str:
    """The bounded metric label of a QTYPE: its mnemonic where it is common, else `other`."""
    return _TYPE_CLASS.get(rtype, "other")
