"""Where the parts of a DNS message begin and end (RFC 1035 §4.1), found without making an object per part.

Every function takes bytes that a stranger wrote. It returns what it found or says that the bytes are no such thing;
it never raises, never reads past the end and never walks a name for ever: a compression pointer must point before the
name that holds it, which both forbids loops and is all that RFC 1035 §4.1.4 allows ("a prior occurrence").

All of it is in one file, whatever its lines, since what is compiled here is called for each part of a message.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resolver.hot import cython_shim as cython
else:
    try:
        import cython
    except ModuleNotFoundError:
        from resolver.hot import cython_shim as cython

    if cython.compiled:
        from cython.cimports.cpython.bytes import PyBytes_AS_STRING

# Octets of a name that are plain: a hit record repeats them as they are, but for letter case.
PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
OUTLINE_TTLS = 64  # records of a reply that `outline` tells of
OUTLINE_NAMES = 16  # names that it tells of
OUTLINE_WORDS = 9 + OUTLINE_TTLS

# Outcomes of scan_query, in the order in which they are looked for.
WELL_FORMED = 0
NOT_A_QUERY = 1  # too short for a header, or a response: answered with silence
MALFORMED = 2  # answered FORMERR

OPT = 41
_ROOT = b"\0"

# Outcomes of read_records.
WHOLE = 0
BROKEN_OFF = 1  # the message is not well formed to its end
MISSHAPEN = 2  # a record says what none can say

Records = tuple[
    int,  # the outcome; with one but WHOLE all else is empty
    tuple[int, int, int],  # how many records are kept, a section
    bytes,  # the octets of these, one after another; TTLs above 2**31 - 1 are 0 (RFC 2181 §8)
    tuple[tuple[int, int], ...],  # (offset in them, seconds) of each TTL
    tuple[int, int],  # where the OPT record's TTL field begins, and where the record ends; (0, 0) for none
    list[tuple[bytes, bytes]],  # (owner, target) of each CNAME in the answer section
    list[bytes],  # other names that the answer section leads to: of DNAME, SVCB and HTTPS
    list[bytes],  # addresses in it: of A and AAAA, and the hints of SVCB and HTTPS
    int,  # seconds that "no such name" or "no such data" holds (RFC 2308 §5), -1 where no SOA tells
    bool,  # whether it has records of the type that was asked for
]
_BROKEN_OFF: Records = (BROKEN_OFF, (0, 0, 0), b"", (), (0, 0), [], [], [], -1, False)
_MISSHAPEN: Records = (MISSHAPEN, (0, 0, 0), b"", (), (0, 0), [], [], [], -1, False)


def is_compiled() -> bool:
    """Whether this module runs as machine code."""
    return bool(cython.compiled)


@cython.boundscheck(False)
@cython.wraparound(False)
@cython.ccall
def skip_name(message: bytes, start: cython.Py_ssize_t, pointers: cython.bint) -> cython.Py_ssize_t:
    """The offset just past the name at `start`, or -1 if there is no well-formed name.

    Args:
        message: The whole message.
        start: Where the name begins.
        pointers: Whether compression pointers are allowed (not in a question, where nothing comes before it).
    """
    end: cython.Py_ssize_t = len(message)
    i: cython.Py_ssize_t = start
    octets: cython.Py_ssize_t = 1
    n: cython.Py_ssize_t
    target: cython.Py_ssize_t
    if i < 0:
        return -1
    while i < end:
        n = message[i]
        if n == 0:
            return i + 1
        if n < 64:
            i += n + 1
            octets += n + 1
            if octets > 255:
                return -1
        elif n >= 192 and pointers:
            if i + 1 >= end:
                return -1
            target = (n & 63) << 8 | message[i + 1]
            return i + 2 if 12 <= target < start else -1  # no name stands in the header
        else:
            return -1  # 0b01 and 0b10 label types are not in use (RFC 6891 §5)
    return -1


@cython.boundscheck(False)
@cython.wraparound(False)
@cython.ccall
def read_name(message: bytes, start: cython.Py_ssize_t) -> bytes:
    """The lower-cased, uncompressed wire form of the name at `start`, or b"" if there is no well-formed name."""
    end: cython.Py_ssize_t = len(message)
    i: cython.Py_ssize_t = start
    limit: cython.Py_ssize_t = start  # a pointer must lead before the piece of the name that holds it
    octets: cython.Py_ssize_t = 1
    n: cython.Py_ssize_t
    parts: list[bytes] = []
    if i < 0:
        return b""
    while i < end:
        n = message[i]
        if n == 0:
            parts.append(b"\0")
            return b"".join(parts).lower()
        if n < 64:
            octets += n + 1
            if octets > 255 or i + n >= end:
                return b""
            parts.append(message[i : i + n + 1])
            i += n + 1
        elif n >= 192:
            if i + 1 >= end:
                return b""
            i = (n & 63) << 8 | message[i + 1]
            if i >= limit or i < 12:
                return b""
            limit = i
        else:
            return b""
    return b""


@cython.boundscheck(False)
@cython.wraparound(False)
@cython.ccall
def scan_query(message: bytes) -> tuple[int, int, int]:
    """Find the question and the OPT record of a query.

    Returns:
        (outcome, question_end, opt_start): `question_end` is the offset past the one question, or 0 where no single
        question could be read; `opt_start` is the offset of the OPT record's TYPE field, or 0 where none was reached.
        A malformed message keeps what was found before the fault, so that the FORMERR can echo it.
    """
    end: cython.Py_ssize_t = len(message)
    i: cython.Py_ssize_t = 12
    question_end: cython.Py_ssize_t = 0
    opt_start: cython.Py_ssize_t = 0
    questions: cython.int
    records: cython.int
    additional: cython.int
    rtype: cython.int
    k: cython.int
    owner: cython.Py_ssize_t
    stop: cython.Py_ssize_t
    option_octets: cython.Py_ssize_t
    faulty: cython.bint = False
    if end < 12 or message[2] & 0x80:
        return NOT_A_QUERY, 0, 0
    questions = message[4] << 8 | message[5]
    additional = message[10] << 8 | message[11]
    records = (message[6] << 8 | message[7]) + (message[8] << 8 | message[9]) + additional
    for k in range(questions):
        i = skip_name(message, i, False)
        if i < 0 or i + 4 > end:
            return MALFORMED, question_end if questions == 1 else 0, opt_start
        i += 4
        question_end = i
    if questions != 1:
        question_end = 0
    for k in range(records):
        owner = i
        i = skip_name(message, i, True)
        if i < 0 or i + 10 > end:
            return MALFORMED, question_end, opt_start
        rtype = message[i] << 8 | message[i + 1]
        stop = i + 10 + (message[i + 8] << 8 | message[i + 9])
        if stop > end:
            return MALFORMED, question_end, opt_start or (i if rtype == OPT else 0)
        if rtype == OPT:
            # RFC 6891 §6.1.1: at most one, in the additional section; §6.1.2: owned by the root.
            if opt_start or message[owner] != 0 or k < records - additional:
                faulty = True
            opt_start = opt_start or i
            i += 10
            while i < stop:  # options fill the RDATA exactly
                if i + 4 > stop:
                    faulty = True
                    break
                option_octets = message[i + 2] << 8 | message[i + 3]
                i += 4 + option_octets
            if i != stop:
                faulty = True
        i = stop
    if faulty or i != end:
        return MALFORMED, question_end, opt_start
    return WELL_FORMED, question_end, opt_start


@cython.boundscheck(False)
@cython.wraparound(False)
@cython.ccall
def scan_records(message: bytes, start: cython.Py_ssize_t) -> list[tuple[int, int, int, int, int, int]] | None:
    """Walk every record after the question of a reply.

    Returns:
        One (section, type_offset, rtype, rdata_start, rdata_end, owner) per record, in order; section is 0 answer,
        1 authority, 2 additional; `owner` is where the owner name begins. None for a message that is not well formed to
        its end.
    """
    end: cython.Py_ssize_t = len(message)
    i: cython.Py_ssize_t = start
    owner: cython.Py_ssize_t
    stop: cython.Py_ssize_t
    section: cython.int
    k: cython.int
    found: list[tuple[int, int, int, int, int, int]] = []
    for section in range(3):
        for k in range(message[6 + 2 * section] << 8 | message[7 + 2 * section]):
            owner = i
            i = skip_name(message, i, True)
            if i < 0 or i + 10 > end:
                return None
            stop = i + 10 + (message[i + 8] << 8 | message[i + 9])
            if stop > end:
                return None
            found.append((section, i, message[i] << 8 | message[i + 1], i + 10, stop, owner))
            i = stop
    if i != end:
        return None
    return found


@cython.boundscheck(False)
@cython.wraparound(False)
@cython.ccall
def _is_name(message: bytes, start: cython.Py_ssize_t) -> cython.bint:
    """Whether `read_name` finds a name at `start`."""
    end: cython.Py_ssize_t = len(message)
    i: cython.Py_ssize_t = start
    limit: cython.Py_ssize_t = start
    octets: cython.Py_ssize_t = 1
    n: cython.Py_ssize_t
    while 0 <= i < end:
        n = message[i]
        if n == 0:
            return True
        if n < 64:
            octets += n + 1
            i += n + 1
            if octets > 255 or i > end:
                return False
        elif n >= 192:
            if i + 1 >= end:
                return False
            i = (n & 63) << 8 | message[i + 1]
            if i >= limit or i < 12:
                return False
            limit = i
        else:
            return False
    return False


@cython.boundscheck(False)
@cython.wraparound(False)
@cython.ccall
def read_records(message: bytes, start: cython.Py_ssize_t, qtype: cython.int) -> Records:
    """Take the records of an upstream's reply apart, in as far as later steps ask for it.

    Types are written as numbers, since a name of the module is an object that each comparison would look up.

    Args:
        message: The whole message.
        start: Where its question ends, behind the header.
        qtype: The type that was asked for.
    """
    end: cython.Py_ssize_t = len(message)
    i: cython.Py_ssize_t = start
    owner: cython.Py_ssize_t
    stop: cython.Py_ssize_t
    rdata: cython.Py_ssize_t
    body_end: cython.Py_ssize_t = end
    opt: cython.Py_ssize_t = 0
    opt_end: cython.Py_ssize_t = 0
    section: cython.int
    rtype: cython.int
    k: cython.int
    ttl: cython.longlong
    minimum: cython.longlong
    negative: cython.longlong = -1
    answers: cython.int = 0
    authorities: cython.int = 0
    additional: cython.int = 0
    has_data: cython.bint = False
    ttls: list[tuple[int, int]] = []
    aliases: list[tuple[bytes, bytes]] = []
    targets: list[bytes] = []
    addresses: list[bytes] = []
    too_long: list[int] = []
    if start < 12 or end < start:
        return _BROKEN_OFF
    # First to the end: where that is not reached, nothing of it counts. So no index below leads out of the message.
    for section in range(3):
        for k in range(message[6 + 2 * section] << 8 | message[7 + 2 * section]):
            i = skip_name(message, i, True)
            if i < 0 or i + 10 > end:
                return _BROKEN_OFF
            i += 10 + (message[i + 8] << 8 | message[i + 9])
            if i > end:
                return _BROKEN_OFF
    if i != end:
        return _BROKEN_OFF
    i = start
    for section in range(3):
        for k in range(message[6 + 2 * section] << 8 | message[7 + 2 * section]):
            owner = i
            i = skip_name(message, i, True)
            rtype = message[i] << 8 | message[i + 1]
            rdata = i + 10
            stop = rdata + (message[i + 8] << 8 | message[i + 9])
            if rtype == 41:
                # OPT. RFC 6891 §6.1.1: at most one, in the additional section; §6.1.2: owned by the root.
                if opt or section != 2 or message[owner] != 0:
                    return _MISSHAPEN
                opt = i + 4
                opt_end = stop
                body_end = owner
                i = stop
                continue
            if opt:  # what follows an OPT may hold pointers past it; additional records may be left out
                i = stop
                continue
            if not _is_name(message, owner):
                return _MISSHAPEN
            ttl = message[i + 4]
            ttl = ttl << 24 | message[i + 5] << 16 | message[i + 6] << 8 | message[i + 7]
            if ttl > 0x7FFFFFFF:  # RFC 2181 §8
                ttl = 0
                too_long.append(i + 4 - start)
            ttls.append((i + 4 - start, ttl))
            if section == 0:
                answers += 1
                if rtype == qtype or qtype == 255:  # ANY
                    has_data = True
                if rtype in (1, 28):  # A, AAAA
                    if stop - rdata == (4 if rtype == 1 else 16):
                        addresses.append(message[rdata:stop])
                elif rtype in (5, 39):  # CNAME, DNAME
                    name = _name_in(message, rdata, stop)
                    if not name:
                        return _MISSHAPEN
                    if rtype == 5:
                        aliases.append((read_name(message, owner), name))
                    else:
                        targets.append(name)
                elif rtype in (64, 65):  # SVCB, HTTPS
                    name = _name_in(message, rdata + 2, stop)
                    if not name:
                        return _MISSHAPEN
                    if name != _ROOT:  # "." stands for the owner, or for "no service" (RFC 9460 §2.5)
                        targets.append(name)
                    _take_hints(message, rdata + 2, stop, addresses)
            elif section == 1:
                authorities += 1
                if rtype == 6 and stop - rdata >= 22:  # SOA: two names and five numbers
                    minimum = message[stop - 4]
                    minimum = minimum << 24 | message[stop - 3] << 16 | message[stop - 2] << 8 | message[stop - 1]
                    negative = ttl if ttl < minimum else minimum
            else:
                additional += 1
            i = stop
    body = message[start:body_end]
    if too_long:
        mended = bytearray(body)
        for place in too_long:
            mended[place : place + 4] = bytes(4)
        body = bytes(mended)
    return (
        WHOLE,
        (answers, authorities, additional),
        body,
        tuple(ttls),
        (opt, opt_end),
        aliases,
        targets,
        addresses,
        negative,
        True if has_data else False,  # noqa: SIM210 - compiled, it is a C number that would be told as one
    )


@cython.ccall
def _name_in(message: bytes, start: cython.Py_ssize_t, end: cython.Py_ssize_t) -> bytes:
    """The name at `start`, uncompressed and lower-cased; b"" where none ends at `end` or before."""
    past: cython.Py_ssize_t
    if start >= end:
        return b""
    past = skip_name(message, start, True)
    if past < 0 or past > end:
        return b""
    return read_name(message, start)


@cython.boundscheck(False)
@cython.wraparound(False)
@cython.ccall
def _take_hints(
    message: bytes, start: cython.Py_ssize_t, end: cython.Py_ssize_t, addresses: list[bytes]
) -> cython.void:
    """Take the ipv4hint and ipv6hint of an SVCB or HTTPS record whose TargetName begins at `start` (RFC 9460 §7.3)."""
    i: cython.Py_ssize_t = skip_name(message, start, True)
    stop: cython.Py_ssize_t
    at: cython.Py_ssize_t
    key: cython.int
    width: cython.int
    while i >= 0 and i + 4 <= end:
        key = message[i] << 8 | message[i + 1]
        stop = i + 4 + (message[i + 2] << 8 | message[i + 3])
        width = 4 if key == 4 else 16 if key == 6 else 0
        if width and stop <= end:
            at = i + 4
            while at + width <= stop:
                addresses.append(message[at : at + width])
                at += width
        i = stop


@cython.ccall
def age(octets: bytes, ttls: tuple[tuple[int, int], ...], elapsed: cython.long) -> bytes:
    """The same octets with each TTL less by `elapsed` seconds, not below zero.

    Args:
        octets: A message, or a part of one.
        ttls: (offset, seconds) of every TTL field in it, as they stood at age 0.
        elapsed: Whole seconds since then.
    """
    if elapsed <= 0 or not ttls:
        return octets
    out = bytearray(octets)
    for offset, seconds in ttls:
        left = seconds - elapsed
        out[offset : offset + 4] = (left if left > 0 else 0).to_bytes(4, "big")
    return bytes(out)


@cython.boundscheck(False)
@cython.wraparound(False)
def outline(
    message: bytes, start: cython.Py_ssize_t, qtype: cython.int, told: bytes, names: bytes, sizes: bytes
) -> cython.Py_ssize_t:
    """Say of a plain reply what `read_records` says of any, in buffers, so that no object is made.

    A reply is plain if it is whole, says NOERROR or NXDOMAIN to one question, if every record of it is well formed, and
    if its OPT, where it has one, stands at its end and says nothing.

    Args:
        message: The whole message; its question is known to end at `start`.
        start: Where its question ends, behind the header.
        qtype: The type that was asked for.
        told: Room for `OUTLINE_WORDS` numbers (i64): octets of the records that are kept, from `start` on; how many
            these are, a section; seconds that "no" holds, -1 where no SOA tells; whether there are records of the type
            asked for; the shortest and the longest TTL, in seconds; how many TTLs, and where each begins, counted from
            `start`.
        names: Room for the names that the answer section leads to (of CNAME, DNAME, SVCB and HTTPS), lower-cased, 256
            octets each.
        sizes: Room for four numbers (i64) a name, of which the first is its size.

    Returns:
        How many names it leads to; -1 for a reply that is not plain, or too long to be told.
    """
    if cython.compiled:
        said: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(told))
        size: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(sizes))
        room: cython.p_uchar = cython.cast(cython.p_uchar, PyBytes_AS_STRING(names))
        octets: cython.p_const_uchar = cython.cast(cython.p_const_uchar, PyBytes_AS_STRING(message))
        end: cython.Py_ssize_t = len(message)
        i: cython.Py_ssize_t = start
        owner: cython.Py_ssize_t
        rdata: cython.Py_ssize_t
        stop: cython.Py_ssize_t
        target: cython.Py_ssize_t
        section: cython.int
        rtype: cython.int
        k: cython.int
        ttl: cython.longlong
        minimum: cython.longlong
        shortest: cython.longlong = 0
        longest: cython.longlong = 0
        ttls: cython.int = 0
        held: cython.int = 0
        has_opt: cython.bint = False
        if start < 17 or end < start or not octets[2] & 0x80 or octets[2] & 0x7A or octets[3] & 15 not in (0, 3):
            return -1  # too short, a query, another opcode, truncated, or a failure
        said[4] = -1
        said[5] = 0
        for section in range(3):
            said[1 + section] = 0
            for k in range(octets[6 + 2 * section] << 8 | octets[7 + 2 * section]):
                owner = i
                i = skip_name(message, i, True)
                if has_opt or i < 0 or i + 10 > end:
                    return -1
                rtype = octets[i] << 8 | octets[i + 1]
                rdata = i + 10
                stop = rdata + (octets[i + 8] << 8 | octets[i + 9])
                if stop > end:
                    return -1
                if rtype == 41:
                    if section != 2 or octets[owner] or octets[i + 4] or stop != rdata:
                        return -1
                    has_opt = True
                    said[0] = owner - start
                    i = stop
                    continue
                if ttls == 64 or not _is_name(message, owner):
                    return -1
                ttl = octets[i + 4]
                ttl = ttl << 24 | octets[i + 5] << 16 | octets[i + 6] << 8 | octets[i + 7]
                if ttl > 0x7FFFFFFF:
                    return -1
                if ttls == 0 or ttl < shortest:
                    shortest = ttl
                if ttl > longest:
                    longest = ttl
                said[9 + ttls] = i + 4 - start
                ttls += 1
                said[1 + section] += 1
                if section == 0:
                    if rtype == qtype:
                        said[5] = 1
                    if rtype in (5, 39, 64, 65):  # CNAME, DNAME, SVCB, HTTPS
                        if rtype >= 64:
                            rdata += 2
                        if held == 16 or rdata >= stop:
                            return -1
                        target = skip_name(message, rdata, True)
                        if target < 0 or target > stop:
                            return -1
                        target = _unpack(octets, end, rdata, room + 256 * held)
                        if target < 0:
                            return -1
                        if rtype < 64 or target > 1:  # "." stands for the owner, or for "no service" (RFC 9460 §2.5)
                            size[4 * held] = target
                            held += 1
                elif section == 1 and rtype == 6 and stop - rdata >= 22:  # SOA: two names and five numbers
                    minimum = octets[stop - 4]
                    minimum = minimum << 24 | octets[stop - 3] << 16 | octets[stop - 2] << 8 | octets[stop - 1]
                    said[4] = ttl if ttl < minimum else minimum
                i = stop
        if i != end:
            return -1
        if not has_opt:
            said[0] = end - start
        said[6] = shortest
        said[7] = longest
        said[8] = ttls
        return held
    return -1


def read_plain(
    places: bytes, lengths: bytes, count: cython.Py_ssize_t, names: bytes, words: bytes, shapes: bytes
) -> cython.Py_ssize_t:
    """Read the plain ones of many queries, in buffers, so that no object is made.

    A query is plain if it asks one question of class IN, with no other record than an OPT of version 0 without options,
    and if its name is written in letters, digits, hyphens and underscores.

    Args:
        places: Of each query: where its octets begin in memory (u64); every other number is somebody else's.
        lengths: Of each: how many octets (i64).
        count: How many queries.
        names: Room for their names, lower-cased, 256 octets each.
        words: Room for four numbers (i64) a name, of which the first is its size.
        shapes: Room for two numbers (i64) a name: the number of its query; from the lowest bit on 2 bits that say
            whether there is an OPT (1), and one that wants DNSSEC records (2), 16 bits of QTYPE, RD, CD, and how many
            labels the name has.

    Returns:
        How many of them are plain; they stand one after another.
    """
    asked: cython.Py_ssize_t = 0
    if cython.compiled:
        place: cython.p_ulonglong = cython.cast(cython.p_ulonglong, PyBytes_AS_STRING(places))
        length: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(lengths))
        size: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(words))
        told: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(shapes))
        room: cython.p_uchar = cython.cast(cython.p_uchar, PyBytes_AS_STRING(names))
        shape: cython.longlong
        k: cython.Py_ssize_t
        for k in range(count):
            shape = _read_plain(
                cython.cast(cython.p_const_uchar, place[2 * k]), length[k], room + 256 * asked, size + 4 * asked
            )
            if shape >= 0:
                told[2 * asked] = k
                told[2 * asked + 1] = shape
                asked += 1
    return asked


if cython.compiled:
    # What a plain octet of a name is lower-cased; 0 for any other.
    _lower = cython.declare(cython.uchar[256])
    _octet = cython.declare(cython.int)
    for _octet in range(256):
        _lower[_octet] = 0
    for _octet in PLAIN:
        _lower[_octet] = _octet | 0x20 if 0x41 <= _octet <= 0x5A else _octet

    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.cfunc
    @cython.exceptval(check=False)
    def _read_plain(
        datagram: cython.p_const_uchar, size: cython.Py_ssize_t, name: cython.p_uchar, octets: cython.p_longlong
    ) -> cython.longlong:
        """The shape of a plain query, or -1."""
        i: cython.Py_ssize_t = 0
        j: cython.Py_ssize_t
        end: cython.Py_ssize_t
        last: cython.Py_ssize_t = size - 17
        opt: cython.longlong = 0
        labels: cython.longlong = 0
        tail: cython.p_const_uchar
        if size < 17 or datagram[2] & 0xF8 or datagram[5] != 1 or datagram[11] > 1:
            return -1
        if datagram[4] | datagram[6] | datagram[7] | datagram[8] | datagram[9] | datagram[10]:
            return -1
        if datagram[11]:
            last -= 11
        if not 0 < last < 255:
            return -1
        tail = datagram + 12 + last
        if tail[0] or tail[3] or tail[4] != 1:
            return -1
        if datagram[11]:
            if tail[5] | tail[6] or tail[7] != 41 or tail[11] | tail[14] | tail[15]:
                return -1
            opt = 2 if tail[12] & 0x80 else 1
        while i < last:
            end = i + 1 + datagram[12 + i]
            if datagram[12 + i] == 0 or datagram[12 + i] > 63 or end > last:
                return -1
            name[i] = datagram[12 + i]
            for j in range(i + 1, end):
                name[j] = _lower[datagram[12 + j]]
                if name[j] == 0:
                    return -1
            labels += 1
            i = end
        name[last] = 0
        octets[0] = last + 1
        opt |= cython.cast(cython.longlong, tail[1]) << 10 | cython.cast(cython.longlong, tail[2]) << 2
        return opt | (datagram[2] & 1) << 18 | (datagram[3] >> 4 & 1) << 19 | labels << 20

    @cython.cfunc
    @cython.exceptval(check=False)
    def _unpack(
        message: cython.p_const_uchar, end: cython.Py_ssize_t, start: cython.Py_ssize_t, room: cython.p_uchar
    ) -> cython.Py_ssize_t:
        """Write out what `read_name` returns; the octets written, or -1 if there is no well-formed name."""
        i: cython.Py_ssize_t = start
        limit: cython.Py_ssize_t = start
        octets: cython.Py_ssize_t = 0
        n: cython.Py_ssize_t
        k: cython.Py_ssize_t
        while i < end:
            n = message[i]
            if n == 0:
                room[octets] = 0
                return octets + 1
            if n < 64:
                if octets + n + 2 > 255 or i + n >= end:
                    return -1
                room[octets] = n
                for k in range(1, n + 1):
                    room[octets + k] = message[i + k] | 0x20 if 65 <= message[i + k] <= 90 else message[i + k]
                octets += n + 1
                i += n + 1
            elif n >= 192:
                if i + 1 >= end:
                    return -1
                i = (n & 63) << 8 | message[i + 1]
                if i >= limit or i < 12:
                    return -1
                limit = i
            else:
                return -1
        return -1
