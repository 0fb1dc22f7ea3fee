"""The header blocks of HTTP/2: what a request's says, and how a reply's is made. hpack knows their form (RFC 7541).

A block that is octet for octet one that came before says the same again, as long as the dynamic table is the same. What
we send uses no dynamic table, so it is made once for all connections.
"""

import re
from typing import TypeVar

from hpack import Decoder, Encoder, HPACKDecodingError, HPACKError, OversizedHeaderListError
from hpack.huffman_table import HUFFMAN_COMPLETE, HUFFMAN_EMIT_SYMBOL, HUFFMAN_FAIL, HUFFMAN_TABLE

from resolver.transport.desk import FIELDS_TOO_LARGE, HEAD_OCTETS, Asked, Desk, Fields
from resolver.transport.doh import NOT_ALLOWED, DohTerms, Refusal, refusal_headers, reply_headers
from resolver.transport.http2_frames import END_HEADERS, END_STREAM, START_OCTETS, Code, ConnectionFault, Frame, start
from resolver.wire.freshness import lowest_ttl

LIST_OCTETS = (
    4 * HEAD_OCTETS
)  # that a block may unpack to before the connection ends; the request is refused long before
KNOWN_BLOCKS = 32  # header blocks kept, with what they say
KNOWN_OCTETS = 512  # the longest that is kept
REPLY_HEADS = 4096  # encoded heads kept, for all connections
EMPTY_TABLE = b"\x20"  # RFC 7541 §6.3: from here on the dynamic table has no room

T = TypeVar("T")
_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path"))
_OF_THE_CONNECTION = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_LENGTH = re.compile(rb"[0-9]{1,15}")


class ReplyHeads:
    """Heads of replies as octets, made once for all connections.

    They use no dynamic table, so any decoder whose table we emptied reads them alike.
    """

    def __init__(self, terms: DohTerms) -> None:
        """Begin with none.

        Args:
            terms: What every reply tells.
        """
        self._terms = terms
        self._encoder = Encoder()
        self._encoder.header_table_size = 0
        self._encoder.encode([])  # says that the table is empty now; each connection says so for itself
        self._made: dict[tuple[int, int | None], tuple[bytes, bytes]] = {}
        self._refusals: dict[int, bytes] = {}

    def of(self, reply: bytes) -> tuple[bytes, bytes]:
        """What goes before the stream's number in HEADERS, and what goes between it and its second place, in DATA."""
        key = (len(reply), lowest_ttl(reply))
        made = self._made.get(key)
        if made is None:
            if len(self._made) >= REPLY_HEADS:
                self._made.clear()
            block = self.encode(200, reply_headers(reply, self._terms))
            made = self._made[key] = (
                start(len(block), Frame.HEADERS, END_HEADERS),
                block + start(len(reply), Frame.DATA, END_STREAM),
            )
        return made

    def block(self, reply: bytes) -> bytes:
        """The block that goes before a reply."""
        return self.of(reply)[1][:-START_OCTETS]

    def refusal(self, refusal: Refusal) -> bytes:
        """The block of a refusal."""
        made = self._refusals.get(refusal.status)
        if made is None:
            made = self._refusals[refusal.status] = self.encode(refusal.status, refusal_headers(refusal, self._terms))
        return made

    def encode(self, status: int, fields: Fields) -> bytes:
        """The block of a status code and fields."""
        return self._encoder.encode([(b":status", b"%d" % status), *fields])


class Head:
    """What a header block says.

    Attributes:
        asked: What is asked for; None where the request is malformed (RFC 9113 §8.1.1).
        octets: Of content, as announced.
    """

    __slots__ = ("asked", "octets")

    def __init__(self, asked: Asked | Refusal | None, octets: int | None) -> None:
        self.asked = asked
        self.octets = octets


class _Form:
    """What the block of a sound request says besides its path."""

    __slots__ = ("method", "octets", "rest", "size")

    def __init__(self, method: bytes, rest: Fields, octets: int | None, size: int) -> None:
        self.method = method
        self.rest = rest
        self.octets = octets
        self.size = size  # of all fields, but for the path's value (RFC 9113 §6.5.2)


_MALFORMED = Head(None, None)


class RequestHeads:
    """The header blocks that come in over one connection."""

    def __init__(self, desk: Desk) -> None:
        """Begin with an empty table.

        Args:
            desk: What may be asked.
        """
        self._desk = desk
        self._decoder = Decoder(LIST_OCTETS)
        self._known: dict[bytes, Head] = {}
        self._forms: dict[bytes, _Form] = {}

    def of(self, block: bytes) -> Head:
        """What a request's block says.

        Raises:
            ConnectionFault: It can not be decoded, or unpacks to too much.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        apart = _path_apart(block)
        if apart is not None:
            form = self._forms.get(apart[0])
            if form is not None:
                try:
                    path = plain(apart[1]) if apart[2] else apart[1]
                except HPACKError:
                    raise ConnectionFault(Code.COMPRESSION_ERROR) from None
                return self._head(form, path)
        fields, is_lasting = self._decode(block)
        read = _read(fields)
        head = _MALFORMED if read is None else self._head(*read)
        if not is_lasting:
            return head
        if apart is not None and read is not None and isinstance(head.asked, Asked) and head.asked.message:
            _keep(self._forms, apart[0], read[0])
        else:
            _keep(self._known, block, head)
        return head

    def fields(self, block: bytes) -> Fields:
        """The fields of a block.

        Raises:
            ConnectionFault: It can not be decoded, or unpacks to too much.
        """
        return self._decode(block)[0]

    def _decode(self, block: bytes) -> tuple[Fields, bool]:
        """The fields, and whether the table is as it was: what is remembered of blocks hangs on it."""
        table = self._decoder.header_table
        entries = table.dynamic_entries
        before = (table.maxsize, len(entries), entries[0] if entries else None)
        try:
            fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM) from None
        except (HPACKError, IndexError, ValueError):
            raise ConnectionFault(Code.COMPRESSION_ERROR) from None
        # Whatever goes into the table stands first in it, or has emptied it.
        is_same = (table.maxsize, len(entries)) == before[:2] and (not entries or entries[0] is before[2])
        if not is_same:
            self._known.clear()
            self._forms.clear()
        return fields, is_same

    def _head(self, form: "_Form", path: bytes) -> Head:
        if form.size + len(path) > HEAD_OCTETS:
            return Head(FIELDS_TOO_LARGE, form.octets)
        if form.method == b"CONNECT":
            return Head(NOT_ALLOWED, form.octets)
        if not _VALUE.fullmatch(path) or (not path.startswith(b"/") and (path, form.method) != (b"*", b"OPTIONS")):
            return _MALFORMED
        return Head(self._desk.read(form.method, path, form.rest), form.octets)


def _read(fields: Fields) -> tuple["_Form", bytes] | None:
    """Read the fields of a request by the rules of RFC 9113 §8.2 and §8.3; None if it is malformed."""
    pseudo: dict[bytes, bytes] = {}
    rest: Fields = []
    host: bytes | None = None
    octets: int | None = None
    for name, value in fields:
        if name.startswith(b":"):
            if rest or name in pseudo or name not in _PSEUDO or not _VALUE.fullmatch(value):
                return None
            pseudo[name] = value
            continue
        if not is_field(name, value):
            return None
        if name == b"host":
            if host is not None:
                return None
            host = value
        elif name == b"content-length":
            if not _LENGTH.fullmatch(value) or octets not in (None, int(value)):
                return None
            octets = int(value)
        rest.append((name, value))
    method, path = pseudo.get(b":method"), pseudo.get(b":path")
    authority = pseudo.get(b":authority", host)
    if not method or not authority or b"@" in authority:
        return None
    if (method == b"CONNECT") != (path is None and b":scheme" not in pseudo):
        return None
    if path is not None and not (path and pseudo.get(b":scheme")):
        return None
    if host is not None and host.lower() != authority.lower():
        return None  # RFC 9113 §8.3.1
    size = sum(len(name) + len(value) + 32 for name, value in fields) - len(path or b"")
    return _Form(method, rest, octets, size), path or b""


class _Steps(dict[int, tuple[int, bytes, bool]]):
    """The decoder of the Huffman code (RFC 7541 §5.2) an octet a step, made of hpack's half ones as they are met.

    State in the upper bits and octet in the lower ones -> next state, what comes out, whether all of it may end here.
    """

    def __missing__(self, key: int) -> tuple[int, bytes, bool]:
        state, out, flags = key >> 8, bytearray(), 0
        for nibble in (key >> 4 & 15, key & 15):
            state, flags, octet = HUFFMAN_TABLE[state * 16 + nibble]
            if flags & HUFFMAN_FAIL:
                raise HPACKDecodingError("no Huffman code")
            if flags & HUFFMAN_EMIT_SYMBOL:
                out.append(octet)
        step = self[key] = (state << 8, bytes(out), bool(flags & HUFFMAN_COMPLETE))
        return step


_STEPS = _Steps()


def plain(coded: bytes) -> bytes:
    """The octets that stand in the Huffman code: half of what a new name by GET costs.

    Raises:
        HPACKDecodingError: They do not.
    """
    state, may_end, out = 0, True, []
    for octet in coded:
        state, piece, may_end = _STEPS[state | octet]
        out.append(piece)
    if not may_end:
        raise HPACKDecodingError("a Huffman code that breaks off")
    return b"".join(out)


def _keep(kept: dict[bytes, T], block: bytes, what: T) -> None:
    if len(block) <= KNOWN_OCTETS:
        if len(kept) >= KNOWN_BLOCKS:
            kept.clear()
        kept[block] = what


def _path_apart(block: bytes) -> tuple[bytes, bytes, bool] | None:
    """A block without the path, the path's octets, and whether these are in the Huffman code; None if it is elsewhere.

    So are blocks read that differ in nothing but the path, as those of GET do. It has to be a literal that does not go
    into the table (RFC 7541 §6.2.2, §6.2.3) behind indexed fields of one octet: what many clients send.
    """
    octets = len(block)
    at = 0
    while at < octets and 0x80 < block[at] < 0xFF:
        at += 1
    if at + 1 >= octets or block[at] & 0xEF not in (0x04, 0x05):  # ":path" in the static table, twice
        return None
    length = block[at + 1] & 0x7F
    begin = at + 2
    if length == 0x7F:  # it goes on (RFC 7541 §5.1)
        if begin >= octets or block[begin] >= 0x80:
            return None
        length += block[begin]
        begin += 1
    end = begin + length
    if end > octets:
        return None
    return block[:at] + b"\x04\0" + block[end:], block[begin:end], block[at + 1] >= 0x80


def is_field(name: bytes, value: bytes) -> bool:
    """Whether a field may stand in a message of HTTP/2 (RFC 9113 §8.2)."""
    return (
        _NAME.fullmatch(name) is not None
        and _VALUE.fullmatch(value) is not None
        and name not in _OF_THE_CONNECTION
        and (name != b"te" or value.lower() == b"trailers")
    )
