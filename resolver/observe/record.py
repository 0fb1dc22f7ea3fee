"""A hit as bytes: made by a worker in the middle of answering, read back by the recorder.

    u32le length of the rest | i64le µs since the Unix epoch | 28 octets of client address | tail

The address is Linux' `struct sockaddr_in` or `sockaddr_in6` exactly as `recvmmsg` wrote it, zero padded, so that a
worker copies and never formats. The tail is thirteen tab-separated UTF-8 fields, the same for every query of a device
that meets the same rule with the same question, so it is made once (`HitTemplate`) and joined many times. The last
field, the device, is missing in what versions without devices spooled: such a record is read as one of no device. Hits
that could not be spooled leave one `Gap` in their place: an address family of 0 and a tail of `gap`, count, from, to.

No clock, no files, no sockets here. Any bytes parse, are torn (not all there yet), or are corrupt; nothing else
happens.
"""

import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

SOCKADDR_OCTETS = 28  # sizeof(struct sockaddr_in6), the larger of the two
MAX_RECORD_OCTETS = 4096  # of what the length announces; the longest tail that hit_template makes is well below
_HEAD = struct.Struct("<Iq")
_FIXED = struct.Struct("<Iq2sBB4s16s4x")  # length, time, family, port, IPv4 address or flow label, IPv6 address
_FIXED_OCTETS = _FIXED.size - 4
_NO_ADDRESS = bytes(SOCKADDR_OCTETS)
TAIL_FIELDS = 13

# Linux' numbers (bits/socket.h). The family is in the byte order of the machine, port and address in network order.
_INET = (2).to_bytes(2, sys.byteorder)
_INET6 = (10).to_bytes(2, sys.byteorder)
_NONE = bytes(2)

# 9999-12-31T23:59:59Z: the last second that RFC 3339 can write. A later or negative time is corruption.
_END_OF_TIME_US = 253_402_300_800 * 1_000_000
_MAX_INTEGER = (1 << 63) - 1

# A QNAME of 255 octets, every one escaped, takes 1,020; a rule is a QNAME and its kind. Names out of documents are far
# shorter than their bound. Together they stay within MAX_RECORD_OCTETS, so a record can always be made.
_MAX_NAME_OCTETS = 1040
_MAX_FIELD_OCTETS = 256
_MAX_WORD_OCTETS = 32  # mnemonics and words of our own


class BadRecord(ValueError):
    """The bytes at this offset are not a whole, sound record."""


class TornRecord(BadRecord):
    """Fewer bytes than announced: the writer is not done, or died while writing."""


class CorruptRecord(BadRecord):
    """Bytes that no writer makes; nothing after them can be trusted either."""


@dataclass(frozen=True, slots=True)
class HitTemplate:
    """The parts of a record that do not change from hit to hit: `prefix + time8 + sockaddr28 + tail` is the record.

    `time8` is `int.to_bytes(8, "little", signed=True)` of the time in µs, `sockaddr28` is 28 octets as from `sockaddr`.
    """

    prefix: bytes
    tail: bytes


class Hit(NamedTuple):
    """One recorded hit. A tuple in the order of the evidence table's columns: it is inserted as it is."""

    time_us: int
    client: str
    port: int
    generation: int
    group: str
    transport: str
    qname: str
    qtype: str
    order: str
    app: str
    rule: str
    action: str
    rcode: str
    ede: int | None
    mode: str
    device: str = ""  # by its name; empty where none was recognised


class Gap(NamedTuple):
    """So many hits were lost between the two times (µs since the Unix epoch)."""

    lost: int
    from_us: int
    to_us: int


def hit_template(
    *,
    generation: int,
    group: str,
    transport: str,
    qname: str,
    qtype: str,
    order: str,
    app: str,
    rule: str,
    action: str,
    rcode: str,
    ede: int | None,
    mode: str,
    device: str = "",
) -> HitTemplate:
    """Make the constant parts of the records of one kind of hit.

    Control characters are written as `\\DDD` and fields cut at their bound (1,040 octets for QNAME and rule, 256 for
    names that people chose, 32 for words of our own), so that no text can break the record apart or make it too long to
    read back.
    """
    tail = b"\t".join(
        (
            str(generation).encode(),
            _field(group),
            _field(transport, _MAX_WORD_OCTETS),
            _field(qname, _MAX_NAME_OCTETS),
            _field(qtype, _MAX_WORD_OCTETS),
            _field(order),
            _field(app),
            _field(rule, _MAX_NAME_OCTETS),
            _field(action, _MAX_WORD_OCTETS),
            _field(rcode, _MAX_WORD_OCTETS),
            b"" if ede is None else str(int(ede)).encode(),
            _field(mode, _MAX_WORD_OCTETS),
            _field(device),
        )
    )
    return HitTemplate((_FIXED_OCTETS + len(tail)).to_bytes(4, "little"), tail)


def sockaddr(host: str, port: int) -> bytes:
    """The 28 octets `recvmmsg` would have written for this address.

    Args:
        host: An IPv4 or IPv6 address; a scope (`%eth0`) is left out.
        port: 0 to 65535.

    Raises:
        ValueError: Not an address.
    """
    address = ip_address(host.partition("%")[0])
    wire_port = port.to_bytes(2, "big")
    if isinstance(address, IPv4Address):
        return (_INET + wire_port + address.packed).ljust(SOCKADDR_OCTETS, b"\0")
    return _INET6 + wire_port + bytes(4) + address.packed + bytes(4)


def hit_record(template: HitTemplate, time_us: int, address: bytes) -> bytes:
    """Join one record; for callers that do not do it in place. `address` is 28 octets as from `sockaddr`."""
    return template.prefix + time_us.to_bytes(8, "little", signed=True) + address + template.tail


def gap_record(lost: int, from_us: int, to_us: int) -> bytes:
    """The record that stands where `lost` hits are missing. Times in µs; they are put in order if the clock went
    back."""
    first, last = sorted((max(from_us, 0), max(to_us, 0)))
    tail = f"gap\t{lost}\t{first}\t{last}".encode()
    return _HEAD.pack(_FIXED_OCTETS + len(tail), last) + _NO_ADDRESS + tail


def parse_all(buffer: bytes, offset: int = 0) -> tuple[list[Hit | Gap], int, BadRecord | None]:
    """Read records until the buffer ends or one is bad.

    Returns:
        The records; the offset after the last of them; None when that is the end of the buffer, else what is wrong
        there.
    """
    found: list[Hit | Gap] = []
    end = len(buffer)
    last = end - _FIXED.size
    try:
        while offset < end:
            if offset > last:
                raise _cut_off(buffer[offset:])
            length, time_us, family, high, low, inet, inet6 = _FIXED.unpack_from(buffer, offset)
            after = offset + 4 + length
            if not _FIXED_OCTETS <= length <= MAX_RECORD_OCTETS or after > end:
                raise _cut_off(buffer[offset:])
            if not 0 <= time_us < _END_OF_TIME_US:
                raise CorruptRecord(f"a time of {time_us} µs")
            tail = buffer[offset + _FIXED.size : after]
            if family == _INET:
                client = _inet_text(inet)
            elif family == _INET6:
                client = _inet6_text(inet6)
            elif family == _NONE:
                found.append(_gap_of_tail(tail))
                offset = after
                continue
            else:
                raise CorruptRecord(f"an address of family {int.from_bytes(family, sys.byteorder)}")
            # A flood is made of few kinds of hits, but each of its names may be another: what stands before the name
            # and after it is looked up, and the name alone is read.
            parts = tail.split(b"\t", 4)
            if len(parts) != 5:
                raise CorruptRecord(f"{len(parts)} fields instead of {TAIL_FIELDS}")
            generation, group, transport, qname, rest = parts
            begin = _fields_before_qname(generation, group, transport)
            fields = time_us, client, high << 8 | low, *begin, qname.decode(), *_fields_after_qname(rest)
            found.append(tuple.__new__(Hit, fields))  # `Hit._make` would count them once more
            offset = after
    except BadRecord as bad:
        return found, offset, bad
    except UnicodeDecodeError:
        return found, offset, CorruptRecord("the tail is not UTF-8")
    return found, offset, None


def whole_records(buffer: bytes, octets: int) -> tuple[int, int]:
    """How many records of sound `buffer` lie wholly within its first `octets`, and where the last of them ends."""
    count = end = 0
    while end + 4 <= octets:
        after = end + 4 + int.from_bytes(buffer[end : end + 4], "little")
        if after > octets:
            break
        count, end = count + 1, after
    return count, end


def _field(text: str, most: int = _MAX_FIELD_OCTETS) -> bytes:
    if not text.isprintable():
        text = "".join([c if c.isprintable() else "".join(f"\\{o:03d}" for o in _octets(c)) for c in text])
    field = _octets(text)
    return field if len(field) <= most else _octets(field[:most].decode("utf-8", "ignore"))


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _cut_off(octets: bytes) -> BadRecord:
    """What a record is that is shorter than it says, or says what cannot be."""
    length = int.from_bytes(octets[:4], "little")
    if len(octets) < 4:
        return TornRecord("the length is not all there")
    if not _FIXED_OCTETS <= length <= MAX_RECORD_OCTETS:
        return CorruptRecord(f"a record of {length} octets")
    return TornRecord(f"{len(octets) - 4} of {length} octets are there")


# All these caches are bounded and keyed by bytes: formatting is what a recorder would otherwise spend its time on.
@lru_cache(maxsize=4096)
def _fields_before_qname(generation: bytes, group: bytes, transport: bytes) -> tuple[int, str, str]:
    return _number(generation.decode()), group.decode(), transport.decode()


@lru_cache(maxsize=16384)
def _fields_after_qname(octets: bytes) -> tuple[str, str, str, str, str, str, int | None, str, str]:
    fields = octets.decode().split("\t")
    if len(fields) == TAIL_FIELDS - 5:
        fields.append("")
    if len(fields) != TAIL_FIELDS - 4:
        raise CorruptRecord(f"{len(fields) + 4} fields instead of {TAIL_FIELDS}")
    qtype, order, app, rule, action, rcode, ede, mode, device = fields
    return qtype, order, app, rule, action, rcode, _number(ede) if ede else None, mode, device


@lru_cache(maxsize=16384)
def _inet_text(packed: bytes) -> str:
    return str(IPv4Address(packed))


@lru_cache(maxsize=16384)
def _inet6_text(packed: bytes) -> str:
    # A socket for both families sees IPv4 clients as ::ffff:192.0.2.1 (RFC 4291 §2.5.5.2); evidence has one name for a
    # client.
    address = IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def _gap_of_tail(tail: bytes) -> Gap:
    fields = tail.decode().split("\t")
    if len(fields) != 4 or fields[0] != "gap":
        raise CorruptRecord("no address, and not a gap")
    lost, from_us, to_us = _numbers(fields[1:])
    if from_us >= _END_OF_TIME_US or to_us >= _END_OF_TIME_US:
        raise CorruptRecord("a gap after the year 9999")
    return Gap(lost, from_us, to_us)


def _numbers(texts: Iterable[str]) -> list[int]:
    return [_number(text) for text in texts]


def _number(text: str) -> int:
    # 19 digits hold every 63-bit number, and keep int() away from its limit on digits.
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= _MAX_INTEGER):
        raise CorruptRecord(f"{text[:24]!r} is not a number")
    return int(text)
