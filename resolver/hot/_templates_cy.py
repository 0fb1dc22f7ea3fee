"""Answers with gaps where the name stands: what is said of a listed name, ready for all names below it.

What the pipeline said about one name that a claim set holds, it says about all of them, but for the name itself. Where
`engine/templates.py` finds that so, the answer is kept as a `Template` under the claim set and the type and kind of OPT
that were asked for. A name that nobody asked for yet is then looked up in the table of names, and the gaps are filled:
in the reply with pointers to the listed name (RFC 1035 §4.1.4), in the hit record with the name's text.

What is filled in is one question of class IN, without EDNS options, its name written in letters, digits, hyphens and
underscores. All else is passed on.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resolver.hot import cython_shim as cython
    from resolver.hot._names_cy import SCREENED, SCREENED_OCTETS, SCREENED_WORDS, NameTable, screens
    from resolver.hot._scan_cy import PLAIN
else:
    try:
        import cython
    except ModuleNotFoundError:
        from resolver.hot import cython_shim as cython
    from resolver.hot._names_cy import SCREENED, SCREENED_OCTETS, SCREENED_WORDS, screens
    from resolver.hot._scan_cy import PLAIN, read_plain

    if cython.compiled:
        from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_GET_SIZE
        from cython.cimports.libc.string import memcpy

NO_OPT, WITH_OPT, WITH_DO = range(3)  # what a query ends with (RFC 6891 §6.1, RFC 3225 §3)
REST_OCTETS = 241  # what 512 octets leave behind the longest question, so that a template's answer is never cut
TAIL_OCTETS = 4096  # the most that a hit record may add to time and address (observe/record.py)

_NAME_OCTETS = 255  # RFC 1035 §2.3.4
_ONE_QUESTION, QUESTION_AND_OPT = b"\0\1" + bytes(6), b"\0\1" + bytes(5) + b"\1"
OPT_OCTETS = 11  # without options
_SHAPES = 4096
_FRAMES = 64  # of one template: by flags, types and kinds of OPT, octet by octet


@cython.cclass
class Template:
    """One whole answer with gaps where the name stands."""

    rcode: cython.int
    counts: bytes
    rest: bytes
    has_pointers: cython.bint
    covers_itself: cython.bint
    cell: cython.Py_ssize_t
    hit_head: bytes
    hit_middle: bytes
    hit_end: bytes
    frames: dict[bytes, "Frame"]

    def __init__(
        self,
        rcode: int,
        counts: bytes,
        rest: bytes,
        has_pointers: bool,
        covers_itself: bool,
        cell: int,
        hit_parts: tuple[bytes, bytes, bytes],
    ) -> None:
        """Keep an answer for reuse.

        Args:
            rcode: At most 15.
            counts: The last eight octets of its header.
            rest: What follows the question, at most `REST_OCTETS`.
            has_pointers: Whether `rest` begins with a record whose owner, and the name that its RDATA begins with, are
                pointers to the listed name.
            covers_itself: Whether it holds too where the listed name itself is asked for and another one of the same
                claim set lies above it.
            cell: Which counter an answer from here adds to.
            hit_parts: What the end of a hit record has before QNAME, between QNAME and the listed name, and after it.
        """
        # The compiled loop copies by these sizes without asking again.
        head, middle, end = hit_parts
        if (
            len(counts) != 8
            or not 14 * has_pointers <= len(rest) <= REST_OCTETS
            or len(head) + len(middle) + len(end) + 2 * _NAME_OCTETS > TAIL_OCTETS
        ):
            raise ValueError("too long for a slot, or no answer's parts")
        self.rcode = rcode
        self.counts = counts
        self.rest = rest
        self.has_pointers = has_pointers
        self.covers_itself = covers_itself
        self.cell = cell
        self.hit_head, self.hit_middle, self.hit_end = head, middle, end
        self.frames = {}

    def frame(self, around: bytes) -> "Frame":
        """What is the same in all answers to questions that differ in their name alone.

        Args:
            around: The octets of such a question but for id and name.
        """
        frame = self.frames.get(around)
        if frame is None:
            if len(self.frames) >= _FRAMES:
                self.frames.clear()
            tail = around[10:]
            case = tail if tail.lower() != tail.upper() else b""
            said = bytes((0x80 | around[0] & 1, 0x80 | around[1] & 0x10 | self.rcode)) + self.counts
            before, after = (self.rest[2:12], self.rest[14:]) if self.has_pointers else (b"", self.rest)
            frame = case, -len(tail), 4 - len(tail) or None, said, before, after, self.hit_head, self.cell
            self.frames[around] = frame
        return frame

    def end_of_hit(self, text: bytes, listed: bytes) -> bytes:
        """What a hit record says from the name on, or from any part of it on, both in text without the last dot."""
        return b"".join((text, self.hit_middle, listed, self.hit_end))

    def holds_above(self) -> bool:
        """Whether it holds where the listed name itself is asked for, and another one lies above."""
        return self.covers_itself


Templates = dict[int, Template | None]
"""By `template_key`; None where it is known that there is none."""

Frame = tuple[bytes, int, int | None, bytes, bytes, bytes, bytes, int]
"""Of an answer: what follows the name in the question, or b"" where no octet of that is a letter's; where the name
ends, and the question, from the datagram's end; the header less id; what follows the first pointer, or b"" without
pointers, and the second; what stands before the name in the hit record; the counter."""

Parent = tuple[int, int, bytes, "Frame"]
"""Of all names that differ in their first label alone: where that may end in a datagram less its id; where the listed
name begins, less that; what stands behind the label in the hit record; the rest."""

Parents = dict[bytes, Parent | int]
"""By a question less its id and its first label, lower-cased but for the header. Where nothing is listed at or above
the parent: where the name ends, counted from the end of the datagram."""


def template_key(claim_set: int, offset: int, qtype: int, opt: int) -> int:
    """What a template is filed under.

    Args:
        claim_set: Of the longest listed name that covers QNAME.
        offset: Where in QNAME that one begins: of QNAME itself other rules may hold than of what is below it.
        qtype: The type asked for.
        opt: NO_OPT, WITH_OPT or WITH_DO.
    """
    return (claim_set << 1 | (offset > 0)) << 18 | qtype << 2 | opt


def fills_batches() -> bool:
    """Whether this build has `Filler.fill`."""
    return bool(cython.compiled) and screens()


_shapes: dict[bytes, int] = {}  # how a query looks but for id and name -> the lower 18 bits of a key, -1: is passed on
_LAST_STARTS = [min(74, 266 - octets) for octets in range(256)]  # by the parent's octets and one: see `Parent`
_POINTERS = [(0xC00C + offset).to_bytes(2, "big") for offset in range(512)]


def shape_of(around: bytes) -> int:
    """The lower 18 bits of a template's key, from a query's octets but for id and QNAME; -1 where it is passed on."""
    opt = NO_OPT
    counts, record = around[2:10], around[14:]
    if around[0] & 0xF8 or around[12:14] != b"\0\1":
        return -1
    if record:
        # Version 0 and no options; the sender's size and the flags but DO change nothing in an answer that always fits.
        if counts != QUESTION_AND_OPT or record[:3] != b"\0\0\x29" or record[6] or record[9] or record[10]:
            return -1
        opt = WITH_DO if record[7] & 0x80 else WITH_OPT
    elif counts != _ONE_QUESTION:
        return -1
    return around[10] << 10 | around[11] << 2 | opt


def fill(
    templates: Templates, parents: Parents, table: "NameTable", datagram: bytes
) -> tuple[bytes, bytes, int] | None:
    """Answer one query from a template.

    Args:
        templates: Of the client's view.
        parents: The same, filled for names below which was asked before; new ones are put in.
        table: The listed names.
        datagram: The query, less its id.

    Returns:
        (the reply less its id, the end of the hit record, the counter), or None for what is to be passed on.
    """
    lower = datagram.lower()
    start = 11 + lower[10] if len(lower) > 10 else 11  # of the parent
    label = lower[11:start]
    parent = parents.get(datagram[:10] + lower[start:])
    if isinstance(parent, int):
        if table.find(lower[10:parent]) < 0:
            return None
    elif parent is not None:
        limit, pointed, behind, (case, name_end, end, said, before, after, head, cell) = parent
        if (
            start <= limit
            and (label.isalnum() or (label and not label.translate(None, PLAIN)))
            and (not case or datagram.endswith(case))
            and table.find(lower[10:name_end]) < 0
        ):
            if before:
                pointer = _POINTERS[pointed + start]
                reply = b"".join((said, datagram[10:end], pointer, before, pointer, after))
            else:
                reply = said + datagram[10:end] + after
            return reply, head + label + behind, cell
    return _fill_first(templates, parents, table, datagram, lower)


def _fill_first(
    templates: Templates, parents: Parents, table: "NameTable", datagram: bytes, lower: bytes
) -> tuple[bytes, bytes, int] | None:
    """The same for a name whose parent is not known yet, or that is listed itself."""
    end = datagram.find(b"\0", 10) + 1  # of QNAME, if it is as plain as it must be
    header, tail = datagram[:10], datagram[end:]
    around = header + tail
    shape = _shapes.get(around)
    if shape is None:
        if not end or len(tail) not in (4, 4 + OPT_OCTETS):
            return None
        if len(_shapes) >= _SHAPES:
            _shapes.clear()
        shape = _shapes[around] = shape_of(around)
    if shape < 0:
        return None
    qname = lower[10:end]
    text = _text(qname)
    covering = table.covering(qname) if text else []
    if not covering:
        if text:
            parents[header + lower[11 + qname[0] :]] = -len(tail)
        return None
    offset, claim_set = covering[0]
    if len(covering) > 1 and any(other != claim_set for _, other in covering):
        return None
    template = templates.get((claim_set << 1 | (offset > 0)) << 18 | shape)
    if template is None or (len(covering) > 1 and not offset and not template.holds_above()):
        return None
    frame = template.frame(around)
    _, _, _, said, before, after, head, cell = frame
    if offset:
        start = qname[0]  # of the dot before the parent, in text
        behind = template.end_of_hit(text[start:], text[offset:])
        limit = _LAST_STARTS[len(qname) - start]
        parents[header + lower[11 + start :]] = limit, offset - start - 11, behind, frame
        hit = head + text[:start] + behind
    else:
        hit = head + template.end_of_hit(text, text)
    if before:
        pointer = _POINTERS[offset]
        return b"".join((said, datagram[10 : end + 4], pointer, before, pointer, after)), hit, cell
    return said + datagram[10 : end + 4] + after, hit, cell


def _text(qname: bytes) -> bytes:
    """A lower-cased name in text, without the last dot; b"" where it is the root, not well formed or not plain."""
    text = bytearray(qname)
    labels = i = 0
    last = len(qname) - 1
    while i < last:
        octets = text[i]
        if not 0 < octets < 64:
            return b""
        text[i] = 0x2E
        i += 1 + octets
        labels += 1
    # What is not plain are the last octet and one dot a label, or there is more of it.
    if i != last or last >= _NAME_OCTETS or text[last] or len(text.translate(None, PLAIN)) != labels + 1:
        return b""
    return bytes(text[1:last])


@cython.cclass
class Filler:
    """The same for a whole batch, in the buffers of a window; for the compiled loop alone."""

    names: bytes
    words: bytes
    shapes: bytes

    def __init__(self) -> None:
        # Room that only this class and those it hands it to write to, and nobody else sees.
        self.names = bytes(SCREENED * SCREENED_OCTETS)
        self.words = bytes(SCREENED * SCREENED_WORDS * 8)
        self.shapes = bytes(SCREENED * 16)

    if cython.compiled:

        @cython.boundscheck(False)
        @cython.wraparound(False)
        def fill(
            self,
            table: object,
            templates: list,
            places: bytes,
            lengths: bytes,
            stamp: bytes,
            counts: cython.ulonglong[::1],
            hits: bytes,
            start: cython.Py_ssize_t,
        ) -> cython.Py_ssize_t:
            """Answer queries in the slots where they stand.

            Args:
                table: The listed names.
                templates: Of each query: the templates of its client's view.
                places: Of each query: where its octets and its client's sockaddr begin in memory (two u64); of each
                    that is answered, its counter is put in place of the second.
                lengths: Of each query: its octets (i64); the reply's are put in their place, 0 where it is passed on.
                stamp: The eight octets of time that go into hit records.
                counts: The shared counters.
                hits: Room for hit records.
                start: How much of it is in use.

            Returns:
                How much of it is in use afterwards.
            """
            room: cython.p_uchar = cython.cast(cython.p_uchar, PyBytes_AS_STRING(self.names))
            words: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(self.words))
            place: cython.p_ulonglong = cython.cast(cython.p_ulonglong, PyBytes_AS_STRING(places))
            length: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(lengths))
            hit: cython.p_uchar = cython.cast(cython.p_uchar, PyBytes_AS_STRING(hits)) + start
            shapes: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(self.shapes))
            asked: cython.Py_ssize_t
            count: cython.Py_ssize_t = len(templates)
            k: cython.int
            i: cython.Py_ssize_t
            size: cython.Py_ssize_t
            offset: cython.Py_ssize_t
            octets: cython.Py_ssize_t
            pointer: cython.Py_ssize_t
            claim_set: cython.longlong
            key: cython.longlong
            last_key: cython.longlong = -1
            last_known: object = None
            known: object
            found: object = None
            datagram: cython.p_uchar
            name: cython.p_uchar
            text: cython.p_uchar
            template: Template
            asked = read_plain(places, lengths, count, self.names, self.words, self.shapes)
            for k in range(count):
                length[k] = 0
            if not asked:
                return start
            table.screen(self.names, self.words, asked)
            for i in range(asked):
                size = words[4 * i]
                offset = words[4 * i + 1]
                claim_set = words[4 * i + 2]
                if claim_set < 0:
                    continue
                k = shapes[2 * i]
                key = (claim_set << 1 | (offset > 0)) << 18 | shapes[2 * i + 1] & 0x3FFFF
                known = templates[k]
                if key != last_key or known is not last_known:  # few claim sets hold most of what is listed
                    found = cython.cast(dict, known).get(key)
                    last_key, last_known = key, known
                if found is None:
                    continue
                template = cython.cast(Template, found)
                if words[4 * i + 3] > 1 and offset == 0 and not template.covers_itself:
                    continue
                datagram = cython.cast(cython.p_uchar, place[2 * k])
                datagram[2] = 0x80 | datagram[2] & 1
                datagram[3] = 0x80 | datagram[3] & 0x10 | template.rcode
                memcpy(datagram + 4, PyBytes_AS_STRING(template.counts), 8)
                datagram += 16 + size
                octets = PyBytes_GET_SIZE(template.rest)
                memcpy(datagram, PyBytes_AS_STRING(template.rest), octets)
                if template.has_pointers:
                    pointer = 0xC00C + offset
                    datagram[0] = datagram[12] = pointer >> 8
                    datagram[1] = datagram[13] = pointer & 0xFF
                length[k] = 16 + size + octets
                counts[template.cell] += 1

                name = room + 256 * i
                size -= 2  # of its text
                text = hit
                memcpy(text + 4, PyBytes_AS_STRING(stamp), 8)
                memcpy(text + 12, cython.cast(cython.p_uchar, place[2 * k + 1]), 28)
                text += 40
                octets = PyBytes_GET_SIZE(template.hit_head)
                memcpy(text, PyBytes_AS_STRING(template.hit_head), octets)
                text += octets
                memcpy(text, name + 1, size)
                pointer = name[0]
                while pointer < size:
                    text[pointer] = 0x2E
                    pointer += name[pointer + 1] + 1
                text += size
                octets = PyBytes_GET_SIZE(template.hit_middle)
                memcpy(text, PyBytes_AS_STRING(template.hit_middle), octets)
                memcpy(text + octets, text - size + offset, size - offset)
                text += octets + size - offset
                octets = PyBytes_GET_SIZE(template.hit_end)
                memcpy(text, PyBytes_AS_STRING(template.hit_end), octets)
                text += octets
                octets = text - hit - 4
                hit[0] = octets & 0xFF
                hit[1] = octets >> 8
                hit[2] = hit[3] = 0
                hit = text
                place[2 * k + 1] = template.cell
            return hit - cython.cast(cython.p_uchar, PyBytes_AS_STRING(hits))
