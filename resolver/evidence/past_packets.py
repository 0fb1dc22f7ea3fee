"""Past queries out of DNS messages: dnstap files and packet captures (pcap, pcapng).

A query and its answer count once, and the names that the answer led to come with it. Captures are read for UDP and TCP
port 53 over Ethernet (VLAN tags too), Linux cooked mode, loopback and raw IP; whoever asks port 53 is the client, so a
capture taken on a resolver also shows the resolver as a client of its upstreams. TCP segments that hold whole messages
are read, others counted; so are fragments.

Formats: dnstap.info's Frame Streams and dnstap.proto; draft-ietf-opsawg-pcap; draft-ietf-opsawg-pcapng.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from dnstap_pb import dnstap_pb2  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from resolver.evidence.past_ledger import (
    MAX_RECORD_OCTETS,
    Ledger,
    Pairs,
    PastError,
    Reason,
    moment,
    packed_from,
    read_message,
)
from resolver.policy.preview import Asked

_DNS_PORT: Final = 53
_KEY = tuple[bytes | None, int, int, bytes, int]


def _exactly(stream: BinaryIO, octets: int) -> bytes:
    """So many octets; fewer at the end of the file."""
    found = stream.read(octets)
    while len(found) < octets and (more := stream.read(octets - len(found))):
        found += more
    return found


def _skip(stream: BinaryIO, octets: int) -> bool:
    """Pass over octets without keeping them; False where the file ends before."""
    while octets > 0:
        found = len(stream.read(min(octets, MAX_RECORD_OCTETS)))
        if not found:
            return False
        octets -= found
    return True


# ---- dnstap ---------------------------------------------------------------------------------------------------------

_START, _READY = 2, 4
_CONTENT_TYPE: Final = b"protobuf:dnstap.Dnstap"
# Which program calls its clients' messages CLIENT and which AUTH depends on whether it recurses; BIND mixes the two.
_CLIENTS_TYPES: Final = frozenset({
    dnstap_pb2.Message.CLIENT_QUERY, dnstap_pb2.Message.CLIENT_RESPONSE,
    dnstap_pb2.Message.AUTH_QUERY, dnstap_pb2.Message.AUTH_RESPONSE,
})  # fmt: skip
_NANO: Final = 1e-9


def is_dnstap(head: bytes) -> bool:
    """Whether octets begin a stream of frames: a control frame that starts one, or offers to."""
    return len(head) >= 12 and head[:4] == bytes(4) and head[4:6] == b"\0\0" and head[8:12] in _OPENINGS


_OPENINGS: Final = {_START.to_bytes(4, "big"), _READY.to_bytes(4, "big")}


def read_dnstap(stream: BinaryIO, ledger: Ledger) -> Iterator[Asked]:
    """Queries of a dnstap file, from the messages between the program and its clients.

    Raises:
        PastError: The frames hold something else than dnstap.
    """
    pairs = Pairs()
    for number, frame in _frames(stream, ledger):
        try:
            message = dnstap_pb2.Dnstap.FromString(frame).message
        except DecodeError:
            ledger.add(Reason.MALFORMED, number, frame)
            continue
        if message.type not in _CLIENTS_TYPES:
            ledger.add(Reason.OTHER, number, dnstap_pb2.Message.Type.Name(message.type))
            continue
        octets = message.response_message or message.query_message
        told = read_message(octets)
        if told is None or told.is_response != bool(message.response_message):
            ledger.add(Reason.MALFORMED, number, frame)
            continue
        second, nano = (
            (message.query_time_sec, message.query_time_nsec)
            if message.query_time_sec
            else (message.response_time_sec, message.response_time_nsec)
        )
        client = packed_from(message.query_address)
        asked = Asked(
            moment(second + min(nano, 999_999_999) * _NANO) if second else None, client, told.qname, told.qtype,
            told.targets,
        )  # fmt: skip
        key: _KEY = (client, message.query_port, told.id, told.qname, told.qtype)
        if told.is_response:
            yield pairs.answer(key, asked)
        else:
            yield from pairs.ask(key, asked)
    yield from pairs.rest()


def _frames(stream: BinaryIO, ledger: Ledger) -> Iterator[tuple[int, bytes]]:
    """Data frames with their numbers. A frame of length 0 announces a control frame, with a length of its own."""
    number = 0
    while head := _exactly(stream, 4):
        number += 1
        length = int.from_bytes(head, "big")
        is_control = length == 0
        if is_control:
            head = _exactly(stream, 4)
            length = int.from_bytes(head, "big")
        if len(head) < 4:
            ledger.add(Reason.CUT, number, head)
        elif length > MAX_RECORD_OCTETS:
            ledger.add(Reason.TOO_LONG, number, head)
            if not _skip(stream, length):
                ledger.add(Reason.CUT, number, head)
        else:
            frame = _exactly(stream, length)
            if len(frame) < length:
                ledger.add(Reason.CUT, number, frame)
            elif not is_control:
                yield number, frame
            elif frame[:4] in _OPENINGS and len(frame) > 12 and _CONTENT_TYPE not in frame:
                raise PastError(
                    f"{ledger.file}: the frames hold {frame[12:60]!r}; give a file of {_CONTENT_TYPE.decode()} frames"
                )


# ---- captures -------------------------------------------------------------------------------------------------------

_MICRO_MAGIC, _NANO_MAGIC = 0xA1B2C3D4, 0xA1B23C4D
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
_BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
_TSRESOL, _TSOFFSET = 9, 14  # options of an interface
_MOST_INTERFACES: Final = 4096

_NULL, _ETHERNET, _LOOP, _SLL, _IPV4, _IPV6, _SLL2 = 0, 1, 108, 113, 228, 229, 276
_RAW = (12, 14, 101)  # 101 is the registered number; 12 and 14 are what some systems write
_VLAN_TAGS = frozenset({b"\x81\x00", b"\x88\xa8", b"\x91\x00"})
_ETHER_IPV4, _ETHER_IPV6 = b"\x08\x00", b"\x86\xdd"

_TCP, _UDP = 6, 17
# IPv6 extension headers that are walked over (RFC 8200 §4): hop-by-hop, routing, destination, mobility; fragment and
# AH have lengths of their own.
_EXTENSIONS = frozenset({0, 43, 60, 135})
_FRAGMENT_HEADER, _AUTHENTICATION = 44, 51


def is_pcap(head: bytes) -> bool:
    """Whether octets begin a pcap file, in either byte order, with micro- or nanoseconds."""
    return _pcap_order(head[:4]) is not None


def is_pcapng(head: bytes) -> bool:
    """Whether octets begin a pcapng file."""
    return len(head) >= 12 and head[:4] == _SECTION.to_bytes(4, "big") and _section_order(head[8:12]) is not None


def _pcap_order(magic: bytes) -> tuple[str, float] | None:
    for order in "<>":
        for number, unit in ((_MICRO_MAGIC, 1e-6), (_NANO_MAGIC, _NANO)):
            if magic == struct.pack(f"{order}I", number):
                return order, unit
    return None


def _section_order(magic: bytes) -> str | None:
    return next((order for order in "<>" if magic == struct.pack(f"{order}I", _BYTE_ORDER_MAGIC)), None)


@dataclass(frozen=True, slots=True)
class _Packet:
    number: int
    at: float | None
    link: int
    octets: bytes


def read_pcap(stream: BinaryIO, ledger: Ledger) -> Iterator[Asked]:
    """Queries of a pcap file."""
    return _asked(_pcap_packets(stream, ledger), ledger)


def read_pcapng(stream: BinaryIO, ledger: Ledger) -> Iterator[Asked]:
    """Queries of a pcapng file, of all its sections and interfaces."""
    return _asked(_pcapng_packets(stream, ledger), ledger)


def _pcap_packets(stream: BinaryIO, ledger: Ledger) -> Iterator[_Packet]:
    head = _exactly(stream, 24)
    order = _pcap_order(head[:4])
    if order is None or len(head) < 24:
        ledger.add(Reason.CUT, 0, head)
        return
    endian, unit = order
    link = struct.unpack(f"{endian}I", head[20:24])[0] & 0xFFFF
    record = struct.Struct(f"{endian}IIII")
    number = 0
    while head := _exactly(stream, record.size):
        number += 1
        if len(head) < record.size:
            ledger.add(Reason.CUT, number, head)
            return
        second, fraction, octets, _ = record.unpack(head)
        if octets > MAX_RECORD_OCTETS:
            # Nothing tells where the next record would begin.
            ledger.add(Reason.DAMAGED, number, head)
            return
        packet = _exactly(stream, octets)
        if len(packet) < octets:
            ledger.add(Reason.CUT, number, packet)
            return
        yield _Packet(number, moment(second + fraction * unit), link, packet)


def _pcapng_packets(stream: BinaryIO, ledger: Ledger) -> Iterator[_Packet]:
    endian = "<"
    interfaces: list[tuple[int, float, int]] = []  # link type, seconds a tick, offset in seconds
    number = 0
    while head := _exactly(stream, 8):
        number += 1
        rest = b""
        if head[:4] == _SECTION.to_bytes(4, "big"):
            rest = _exactly(stream, 4)
            order = _section_order(rest)
            if order is None:
                ledger.add(Reason.DAMAGED, number, head + rest)
                return
            endian, interfaces = order, []
        if len(head) < 8:
            ledger.add(Reason.CUT, number, head)
            return
        kind, length = struct.unpack(f"{endian}II", head)
        if length < 12 + len(rest) or length % 4:
            ledger.add(Reason.DAMAGED, number, head)
            return
        left = length - 8 - len(rest)
        if length > MAX_RECORD_OCTETS:
            ledger.add(Reason.TOO_LONG, number, head)
            if not _skip(stream, left):
                ledger.add(Reason.CUT, number, head)
            continue
        body = _exactly(stream, left)
        if len(body) < left:
            ledger.add(Reason.CUT, number, body)
            return
        body = body[:-4]  # the length again
        if kind == _INTERFACE and len(body) >= 8 and len(interfaces) < _MOST_INTERFACES:
            interfaces.append((struct.unpack(f"{endian}H", body[:2])[0], *_clock(body[8:], endian)))
        elif kind in (_ENHANCED, _OLD_PACKET, _SIMPLE):
            packet = _block_packet(kind, number, body, endian, interfaces)
            if packet is None:
                ledger.add(Reason.MALFORMED, number, body)
            else:
                yield packet


def _clock(options: bytes, endian: str) -> tuple[float, int]:
    """Seconds a tick, and seconds to add (draft-ietf-opsawg-pcapng, Interface Description Block)."""
    tick, offset = 1e-6, 0
    while len(options) >= 4:
        code, octets = struct.unpack(f"{endian}HH", options[:4])
        value = options[4 : 4 + octets]
        if code == _TSRESOL and len(value) == 1:
            tick = 2.0 ** -(value[0] & 127) if value[0] & 128 else 10.0 ** -value[0]
        elif code == _TSOFFSET and len(value) == 8:
            offset = struct.unpack(f"{endian}q", value)[0]
        options = options[4 + (octets + 3) // 4 * 4 :]
    return tick, offset


def _block_packet(
    kind: int, number: int, body: bytes, endian: str, interfaces: list[tuple[int, float, int]]
) -> _Packet | None:
    if kind == _SIMPLE:
        if len(body) < 4 or not interfaces:
            return None
        octets = struct.unpack(f"{endian}I", body[:4])[0]
        return _Packet(number, None, interfaces[0][0], body[4 : 4 + octets])
    if len(body) < 20:
        return None
    interface, high, low, octets = struct.unpack(f"{endian}IIII", body[:16])
    if kind == _OLD_PACKET:
        interface = struct.unpack(f"{endian}H", body[:2])[0]
    if interface >= len(interfaces) or 20 + octets > len(body):
        return None
    link, tick, offset = interfaces[interface]
    return _Packet(number, moment((high << 32 | low) * tick + offset), link, body[20 : 20 + octets])


def _asked(packets: Iterator[_Packet], ledger: Ledger) -> Iterator[Asked]:
    pairs = Pairs()
    for packet in packets:
        found = _datagram(packet)
        if isinstance(found, Reason):
            ledger.add(found, packet.number, packet.octets)
            continue
        messages, rest = found.messages()
        if rest:
            ledger.add(Reason.SPLIT, packet.number, packet.octets)
        elif not messages:
            ledger.add(Reason.OTHER, packet.number, packet.octets)  # TCP without a payload
        for message in messages:
            told = read_message(message)
            if told is None:
                ledger.add(Reason.MALFORMED, packet.number, message)
            elif found.source_port == _DNS_PORT and told.is_response:
                client = packed_from(found.target)
                key: _KEY = (client, found.target_port, told.id, told.qname, told.qtype)
                yield pairs.answer(key, Asked(packet.at, client, told.qname, told.qtype, told.targets))
            elif found.target_port == _DNS_PORT and not told.is_response:
                client = packed_from(found.source)
                key = (client, found.source_port, told.id, told.qname, told.qtype)
                yield from pairs.ask(key, Asked(packet.at, client, told.qname, told.qtype))
            else:
                ledger.add(Reason.OTHER, packet.number, message)
    yield from pairs.rest()


@dataclass(frozen=True, slots=True)
class _Datagram:
    source: bytes
    target: bytes
    source_port: int
    target_port: int
    is_tcp: bool
    payload: bytes

    def messages(self) -> tuple[list[bytes], bool]:
        """The DNS messages in it, and whether something is left that is no whole message."""
        if not self.is_tcp:
            return [self.payload], False
        found = []
        payload = self.payload
        while len(payload) >= 2:
            octets = payload[0] << 8 | payload[1]  # RFC 1035 §4.2.2
            if len(payload) < 2 + octets or not octets:
                break
            found.append(payload[2 : 2 + octets])
            payload = payload[2 + octets :]
        return found, bool(payload)


def _datagram(packet: _Packet) -> _Datagram | Reason:
    octets = packet.octets
    start = _network_layer(packet.link, octets)
    if isinstance(start, Reason):
        return start
    if start >= len(octets):
        return Reason.CUT
    version = octets[start] >> 4
    if version == 4:
        return _from_ipv4(octets[start:])
    return _from_ipv6(octets[start:]) if version == 6 else Reason.OTHER


def _network_layer(link: int, octets: bytes) -> int | Reason:
    """Where the IP header begins."""
    if link == _ETHERNET:
        at = 12
        while octets[at : at + 2] in _VLAN_TAGS:
            at += 4
        kind, start = octets[at : at + 2], at + 2
    elif link == _SLL:
        kind, start = octets[14:16], 16
    elif link == _SLL2:
        kind, start = octets[:2], 20
    elif link in (_NULL, _LOOP):
        return 4  # the address family before it is the writing machine's own number; the IP version says as much
    elif link in (*_RAW, _IPV4, _IPV6):
        return 0
    else:
        return Reason.LINK
    if kind in (_ETHER_IPV4, _ETHER_IPV6):
        return start
    return Reason.OTHER if len(kind) == 2 else Reason.CUT


def _from_ipv4(octets: bytes) -> _Datagram | Reason:
    header = (octets[0] & 15) * 4
    if len(octets) < 20 or header < 20 or len(octets) < header:
        return Reason.CUT
    protocol = octets[9]
    if protocol not in (_TCP, _UDP):
        return Reason.OTHER
    if (octets[6] << 8 | octets[7]) & 0x3FFF:  # more fragments, or not the first (RFC 791 §3.1)
        return Reason.FRAGMENT
    # 0: the card splits what it sends, and the capture was taken before.
    total = octets[2] << 8 | octets[3] or len(octets)
    return _from_transport(octets[12:16], octets[16:20], protocol, octets[header:total], len(octets) < total)


def _from_ipv6(octets: bytes) -> _Datagram | Reason:
    if len(octets) < 40:
        return Reason.CUT
    total = 40 + (octets[4] << 8 | octets[5]) if octets[4:6] != b"\0\0" else len(octets)
    source, target, protocol, at = octets[8:24], octets[24:40], octets[6], 40
    while protocol in _EXTENSIONS or protocol in (_FRAGMENT_HEADER, _AUTHENTICATION):
        if at + 8 > len(octets):
            return Reason.CUT
        if protocol == _FRAGMENT_HEADER:
            if (octets[at + 2] << 8 | octets[at + 3]) & 0xFFF9:
                return Reason.FRAGMENT
            step = 8
        else:
            step = (octets[at + 1] + 2) * 4 if protocol == _AUTHENTICATION else (octets[at + 1] + 1) * 8
        protocol, at = octets[at], at + step
    if protocol not in (_TCP, _UDP):
        return Reason.OTHER
    return _from_transport(source, target, protocol, octets[at:total], len(octets) < total)


def _from_transport(source: bytes, target: bytes, protocol: int, octets: bytes, is_cut: bool) -> _Datagram | Reason:
    if len(octets) < 8:
        return Reason.CUT
    ports = (octets[0] << 8 | octets[1], octets[2] << 8 | octets[3])
    if _DNS_PORT not in ports:
        return Reason.OTHER
    if is_cut:
        return Reason.CUT
    if protocol == _UDP:
        header, end = 8, octets[4] << 8 | octets[5] or len(octets)
    else:
        header, end = (octets[12] >> 4) * 4 if len(octets) > 12 else 0, len(octets)
        if header < 20:
            return Reason.MALFORMED
    if not header <= end <= len(octets):
        return Reason.MALFORMED
    return _Datagram(source, target, *ports, protocol == _TCP, octets[header:end])
