"""Plain questions and plain replies as plain Python reads them, and where the replies are kept; for `relay_plain.py`.

How a question looks around its name, and how a reply begins, few have of their own: each way is read once, and looked
up afterwards (`Shape`).
"""

import struct
from itertools import islice

from resolver.hot._relay_cy import MOST_OCTETS
from resolver.hot._scan_cy import OUTLINE_NAMES, OUTLINE_TTLS, read_name, skip_name
from resolver.hot._templates_cy import OPT_OCTETS, QUESTION_AND_OPT, shape_of

Head = tuple[int, int, int, bytes, bytes, int]
"""Of a reply: how many records it has, a section; with what the answer begins behind its id, where the reply has no
OPT, and where it has one; QTYPE and RCODE, as `Lane.cells` has them."""

Places = tuple[tuple[int, int], ...]
"""Of each TTL in an answer, less its id: offset, seconds."""

Body = tuple[int, Places, int, int, bool, int | None, list[bytes]]
"""Of a reply: where the records end that are kept; its TTLs; the shortest and the longest; whether there is an OPT; for
how many seconds "no" holds, None where there is what was asked for; the names that the answer section leads to."""

_IN = _ONE = b"\0\1"
_TO_QNAME = 0xC00C  # a pointer (RFC 1035 §4.1.4)
_LEADS_ON = frozenset({5, 39, 64, 65})  # CNAME, DNAME, SVCB, HTTPS
_OPT = b"\0\0\x29"  # of the root
_OUR_OPT = _OPT + MOST_OCTETS.to_bytes(2, "big")
_LEAST_OCTETS = 512  # that every client takes (RFC 1035 §4.2.1)
_HEADS = 64  # of replies, a shape
_LONGEST_TTL = 0x7FFFFFFF  # RFC 2181 §8
_KEPT_OCTETS = 150  # of objects around a reply that is kept, measured with tracemalloc on CPython 3.11
_LET_GO = 1024  # replies at one time
_SEAL = struct.Struct("<ddB")  # stored, expires (monotonic seconds), whether its AD bit is believed
_record = struct.Struct(">HHIH").unpack_from  # TYPE, CLASS, TTL, RDLENGTH
_pointed = struct.Struct(">HHHIH").unpack_from  # the same behind a pointer
_number = struct.Struct(">I").unpack_from
unseal = _SEAL.unpack_from
SEAL_OCTETS = _SEAL.size


class Shelf:
    """Replies that were relayed, as they came, by the cache's key; those that were put there first go first."""

    def __init__(self) -> None:
        # Each behind a seal, all in one `bytes`, since a tuple would be looked at by each garbage collection.
        self.replies: dict[bytes, bytes] = {}
        self._octets = 0

    def keep(self, key: bytes, stored: float, expires: float, is_trusted: bool, reply: bytes) -> None:
        """Put a reply there; there is none under its key."""
        sealed = self.replies[key] = _SEAL.pack(stored, expires, is_trusted) + reply
        self._octets += len(key) + len(sealed) + _KEPT_OCTETS

    def find(self, key: bytes) -> tuple[float, float, int, bytes] | None:
        """When one expires, when it was stored (monotonic seconds), whether its AD is believed, and the message."""
        sealed = self.replies.get(key)
        if sealed is None:
            return None
        stored, expires, is_trusted = unseal(sealed)
        return expires, stored, is_trusted, sealed[SEAL_OCTETS:]

    def forget(self, key: bytes) -> None:
        """Let one go."""
        sealed = self.replies.pop(key, None)
        if sealed is not None:
            self._octets -= len(key) + len(sealed) + _KEPT_OCTETS

    def halve(self) -> None:
        """Let go some of what was put there first; not half of it at one time, which would take long."""
        for key in list(islice(self.replies, _LET_GO)):
            self.forget(key)

    def octets(self) -> int:
        """How much memory it holds."""
        return self._octets

    def young_octets(self) -> int:
        """None of it is let go in halves."""
        return 0

    def count(self) -> int:
        """How many replies there are."""
        return len(self.replies)


class Shape:
    """What a plain question asks for, but for its name; and what replies to it begin with, by how the upstream's do."""

    __slots__ = ("heads", "key_end", "limit", "opt", "qtype", "query_end", "query_head", "trusted_heads", "wants_ad")

    def __init__(self, around: bytes) -> None:
        """Read it.

        Args:
            around: A plain question's octets but for id and QNAME.
        """
        record = around[14:]
        do = bool(record) and record[7] & 0x80
        cd = around[1] & 0x10
        self.qtype = around[10] << 8 | around[11]
        self.limit = min(max(_LEAST_OCTETS, record[3] << 8 | record[4]), MOST_OCTETS) if record else _LEAST_OCTETS
        self.opt = _OUR_OPT + bytes((0, 0, do, 0, 0, 0)) if record else b""
        self.wants_ad = bool(do or around[1] & 0x20)
        # The cache's key: QNAME, QTYPE, whether DNSSEC records are wanted, whether unchecked data will do.
        self.key_end = around[10:12] + bytes((do >> 6 | cd >> 4,))
        # RD; AD, to say that we understand it (RFC 6840 §5.7); CD.
        self.query_head = bytes((1, 0x20 | cd)) + QUESTION_AND_OPT
        self.query_end = around[10:12] + _IN + _OUR_OPT + bytes((0, 0, do, 0, 0, 0))
        self.heads: dict[bytes, Head] = {}
        self.trusted_heads: dict[bytes, Head] = {}

    def read(self, header: bytes, is_trusted: bool) -> Head | None:
        """What the header of an upstream's reply, less the id, comes to; None where the reply is not plain."""
        rcode = header[1] & 15
        # A reply to a query, whole, that does not fail, to one question.
        if header[0] & 0xFA != 0x80 or rcode not in (0, 3) or header[2:4] != _ONE:
            return None
        answers, authorities, additional = struct.unpack(">HHH", header[4:])
        if answers + authorities + additional > OUTLINE_TTLS + 1:
            return None
        ad = header[1] & 0x20 if is_trusted and self.wants_ad else 0
        said = bytes((0x81, 0x80 | self.query_head[1] & 0x10 | rcode | ad)) + header[2:8]
        own = 1 if self.opt else 0
        with_opt = said + max(additional - 1 + own, 0).to_bytes(2, "big")
        heads = self.trusted_heads if is_trusted else self.heads
        if len(heads) >= _HEADS:
            heads.clear()
        head = heads[header] = (
            answers, authorities, additional, said + (additional + own).to_bytes(2, "big"), with_opt,
            self.qtype << 4 | rcode,
        )  # fmt: skip
        return head


def read_shape(around: bytes) -> Shape | None:
    """The shape of a question by its octets but for id and QNAME; None where it is not plain."""
    if len(around) not in (14, 14 + OPT_OCTETS) or not around[0] & 1 or shape_of(around) < 0:
        return None
    # Neither a type that is never asked for, nor a meta-type, nor ANY: these are answered here, or not at all.
    qtype = around[10] << 8 | around[11]
    return None if qtype in (0, 41) or 249 <= qtype <= 255 else Shape(around)


def read_body(reply: bytes, start: int, head: Head, qtype: int, parents: set[bytes]) -> Body | None:
    """What `_scan_cy.outline` says of a plain reply; None for one that is not plain.

    Args:
        reply: The whole message; its question is well formed and lower-cased.
        start: Where its question ends.
        head: What its header comes to.
        qtype: The type that was asked for.
        parents: Names that are well formed.
    """
    first_additional = head[0] + head[1]
    records = first_additional + head[2]
    places: list[tuple[int, int]] = []
    names: list[bytes] = []
    shortest, longest, negative = _LONGEST_TTL, 0, 0
    has_data = has_opt = False
    i = start
    try:
        for k in range(records):
            if k >= first_additional and reply.startswith(_OPT, i):
                if k < records - 1 or reply[i + 5] or reply[i + 9] or reply[i + 10]:
                    return None  # it says something, or something follows it
                has_opt = True
                break
            owner, rtype, _, ttl, octets = _pointed(reply, i)
            if owner == _TO_QNAME:
                i += 12
            else:
                at = owner & 0x3FFF
                if owner > _TO_QNAME and reply[at : start - 4] in parents:
                    i += 2
                elif read_name(reply, i):
                    i = skip_name(reply, i, True)
                else:
                    return None
                rtype, _, ttl, octets = _record(reply, i)
                i += 10
            if ttl > _LONGEST_TTL or rtype == 41:
                return None
            if ttl < shortest:
                shortest = ttl
            if ttl > longest:
                longest = ttl
            places.append((i - 8, ttl))
            if k < head[0]:
                if rtype == qtype:
                    has_data = True
                if rtype in _LEADS_ON:
                    at = i if rtype < 64 else i + 2
                    name = read_name(reply, at)
                    if not name or not at < skip_name(reply, at, True) <= i + octets:
                        return None
                    if rtype < 64 or name != b"\0":  # "." stands for the owner, or for "no service" (RFC 9460 §2.5)
                        names.append(name)
            elif rtype == 6 and octets >= 22 and k < first_additional:  # SOA: two names and five numbers
                minimum = _number(reply, i + octets - 4)[0]
                negative = ttl if ttl < minimum else minimum
            i += octets
    except (IndexError, struct.error):
        return None
    if i + (OPT_OCTETS if has_opt else 0) != len(reply) or len(places) > OUTLINE_TTLS or len(names) > OUTLINE_NAMES:
        return None
    is_negative = not has_data or head[5] & 15
    return i, tuple(places), shortest if places else 0, longest, has_opt, negative if is_negative else None, names


def clamped(octets: bytes, places: Places, start: int, floor: int, ceiling: int) -> tuple[bytes, Places]:
    """Records with TTLs that are neither below a floor nor above a ceiling; `start` is what places count too much."""
    within = tuple((at, min(max(ttl, floor), ceiling)) for at, ttl in places)
    mended = bytearray(octets)
    for at, ttl in within:
        mended[at - start : at - start + 4] = ttl.to_bytes(4, "big")
    return bytes(mended), within
