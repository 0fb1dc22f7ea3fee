"""Frames and packets: made with other people's libraries, read with ours, cut and forged."""

import io
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

import dns.message
import dns.rrset
import dpkt
import pytest
from dnstap_pb import dnstap_pb2
from hypothesis import given
from hypothesis import strategies as st

from resolver.evidence.past_ledger import MAX_RECORD_OCTETS, Ledger, PastError, Reason
from resolver.evidence.past_packets import is_dnstap, is_pcap, is_pcapng, read_dnstap, read_pcap, read_pcapng
from resolver.policy.preview import Asked
from resolver.wire.name import from_text

CLIENT, SERVER = bytes([192, 0, 2, 7]), bytes([192, 0, 2, 53])
CLIENT6, SERVER6 = bytes.fromhex("20010db8" + "0" * 23 + "7"), bytes.fromhex("20010db8" + "0" * 22 + "53")
AT = 1_700_000_000.25
QUERY = dns.message.make_query("WWW.example.org", "A", id=77)
ASKED = Asked(AT, CLIENT, from_text("www.example.org"), 1)
LED = Asked(AT, CLIENT, from_text("www.example.org"), 1, (from_text("cdn.example.net"),))

Read = Callable[[BinaryIO, Ledger], Iterator[Asked]]


def reply() -> bytes:
    message = dns.message.make_response(QUERY)
    message.answer = [dns.rrset.from_text("www.example.org.", 60, "IN", "CNAME", "cdn.example.net.")]
    return message.to_wire()


def read(reader: Read, octets: bytes) -> tuple[list[Asked], dict[Reason, int]]:
    ledger = Ledger()
    ledger.file = "log"
    found = list(reader(io.BytesIO(octets), ledger))
    return found, {entry.reason: entry.count for entry in ledger.unread()}


# ---- dnstap ---------------------------------------------------------------------------------------------------------


def control(kind: int, content_type: bytes = b"") -> bytes:
    field = struct.pack("!II", 1, len(content_type)) + content_type if content_type else b""
    return struct.pack("!III", 0, 4 + len(field), kind) + field


START, STOP = control(2, b"protobuf:dnstap.Dnstap"), control(3)


def frame(kind: str, octets: bytes, client: bytes = CLIENT, at: float = AT, port: int = 4000) -> bytes:
    tap = dnstap_pb2.Dnstap(type=dnstap_pb2.Dnstap.MESSAGE)
    message = tap.message
    message.type = dnstap_pb2.Message.Type.Value(kind)
    message.query_address, message.query_port = client, port
    side = "query" if kind.endswith("QUERY") else "response"
    setattr(message, f"{side}_message", octets)
    setattr(message, f"{side}_time_sec", int(at))
    setattr(message, f"{side}_time_nsec", int(at % 1 * 1e9))
    data = tap.SerializeToString()
    return struct.pack("!I", len(data)) + data


@pytest.mark.parametrize(
    ("frames", "found"),
    [
        ([frame("CLIENT_QUERY", QUERY.to_wire())], [ASKED]),
        ([frame("CLIENT_QUERY", QUERY.to_wire()), frame("CLIENT_RESPONSE", reply(), at=AT + 1)], [LED]),
        ([frame("AUTH_QUERY", QUERY.to_wire()), frame("CLIENT_RESPONSE", reply(), at=AT + 1)], [LED]),
        ([frame("CLIENT_RESPONSE", reply())], [LED]),
        ([frame("CLIENT_QUERY", QUERY.to_wire()), frame("CLIENT_RESPONSE", reply(), port=9)], [LED, ASKED]),
        ([frame("CLIENT_QUERY", QUERY.to_wire(), bytes(10) + b"\xff\xff" + CLIENT)], [ASKED]),
        ([STOP, START, frame("AUTH_RESPONSE", reply())], [LED]),
    ],
)
def test_clients_messages_of_dnstap_are_read(frames: list[bytes], found: list[Asked]) -> None:
    """A query with its answer once, however the program calls the two; answers and queries alone too."""
    octets = START + b"".join(frames) + STOP

    assert is_dnstap(octets)
    assert read(read_dnstap, octets) == (found, {})


@pytest.mark.parametrize(
    ("piece", "reason"),
    [
        (frame("RESOLVER_QUERY", QUERY.to_wire()), Reason.OTHER),
        (frame("CLIENT_QUERY", b"nonsense"), Reason.MALFORMED),
        (frame("CLIENT_QUERY", reply()), Reason.MALFORMED),
        (struct.pack("!I", 5) + b"\xff" * 5, Reason.MALFORMED),
        (struct.pack("!I", MAX_RECORD_OCTETS + 1) + bytes(MAX_RECORD_OCTETS + 1), Reason.TOO_LONG),
    ],
)
def test_a_frame_that_is_no_clients_query_is_in_the_ledger(piece: bytes, reason: Reason) -> None:
    """And the next one is read."""
    assert read(read_dnstap, START + piece + frame("CLIENT_QUERY", QUERY.to_wire())) == ([ASKED], {reason: 1})


def test_a_dnstap_file_that_is_cut_gives_what_is_whole() -> None:
    """At every octet: what came before is read."""
    whole = START + frame("CLIENT_QUERY", QUERY.to_wire())
    octets = whole + frame("CLIENT_QUERY", QUERY.to_wire())
    for end in range(len(whole) + 1, len(octets)):
        assert read(read_dnstap, octets[:end]) == ([ASKED], {Reason.CUT: 1})


def test_frames_of_something_else_are_refused_with_a_word() -> None:
    """The content type is in the first frame."""
    with pytest.raises(PastError, match=r"give a file of protobuf:dnstap\.Dnstap frames"):
        read(read_dnstap, control(2, b"protobuf:other.Thing"))


# ---- captures -------------------------------------------------------------------------------------------------------


def udp(payload: bytes, *, back: bool = False) -> dpkt.udp.UDP:
    ports = {"sport": 53, "dport": 4000} if back else {"sport": 4000, "dport": 53}
    return dpkt.udp.UDP(data=payload, ulen=8 + len(payload), **ports)


def tcp(payload: bytes) -> dpkt.tcp.TCP:
    return dpkt.tcp.TCP(sport=4000, dport=53, data=payload)


def ipv4(inner: dpkt.Packet, *, back: bool = False, **fields: int) -> bytes:
    ends = {"src": SERVER, "dst": CLIENT} if back else {"src": CLIENT, "dst": SERVER}
    number = dpkt.ip.IP_PROTO_TCP if isinstance(inner, dpkt.tcp.TCP) else dpkt.ip.IP_PROTO_UDP
    return bytes(dpkt.ip.IP(p=number, len=20 + len(inner), data=inner, **ends, **fields))


def ipv6(inner: dpkt.Packet, extension: bytes = b"", first: int = 17) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(extension) + len(inner), first, 64) + CLIENT6 + SERVER6
    return head + extension + bytes(inner)


def ethernet(packet: bytes, tags: bytes = b"") -> bytes:
    return bytes(12) + tags + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet


def pcap(*packets: bytes, link: int = 1, nano: bool = False) -> bytes:
    file = io.BytesIO()
    writer = dpkt.pcap.Writer(file, snaplen=65535, linktype=link, nano=nano)
    for packet in packets:
        writer.writepkt(packet, AT)
    return file.getvalue()


SENT, BACK = ipv4(udp(QUERY.to_wire())), ipv4(udp(reply(), back=True), back=True)
SENT6 = ipv6(udp(QUERY.to_wire()))
ASKED6 = Asked(AT, CLIENT6, from_text("www.example.org"), 1)
PREFIXED = struct.pack("!H", len(QUERY.to_wire())) + QUERY.to_wire()


@pytest.mark.parametrize(
    ("octets", "found"),
    [
        (pcap(ethernet(SENT)), [ASKED]),
        (pcap(ethernet(SENT), ethernet(BACK)), [LED]),
        (pcap(ethernet(BACK)), [LED]),
        (pcap(ethernet(SENT), nano=True), [ASKED]),
        (pcap(ethernet(SENT) + bytes(20)), [ASKED]),
        (pcap(ethernet(SENT, b"\x81\x00\x00\x05")), [ASKED]),
        (pcap(ethernet(SENT, b"\x88\xa8\x00\x05\x81\x00\x00\x06")), [ASKED]),
        (pcap(ethernet(SENT6)), [ASKED6]),
        (pcap(SENT, SENT6, link=101), [ASKED, ASKED6]),
        (pcap(SENT, link=228), [ASKED]),
        (pcap(SENT6, link=229), [ASKED6]),
        (pcap(b"\2\0\0\0" + SENT, link=0), [ASKED]),
        (pcap(bytes(14) + b"\x08\x00" + SENT, link=113), [ASKED]),
        (pcap(b"\x86\xdd" + bytes(18) + SENT6, link=276), [ASKED6]),
        (pcap(ipv6(udp(QUERY.to_wire()), b"\x3c\0" + bytes(6) + b"\x11\x01" + bytes(14), 0), link=101), [ASKED6]),
        (pcap(ipv6(udp(QUERY.to_wire()), b"\x11\0" + bytes(6), 44), link=101), [ASKED6]),
        (pcap(ipv6(udp(QUERY.to_wire()), b"\x11\x01" + bytes(10), 51), link=101), [ASKED6]),
        (pcap(ipv4(tcp(PREFIXED)), link=101), [ASKED]),
        (pcap(ipv4(tcp(PREFIXED + PREFIXED)), link=101), [ASKED, ASKED]),
        (pcap(), []),
    ],
)
def test_queries_of_a_capture_are_read(octets: bytes, found: list[Asked]) -> None:
    """Over each kind of link, both families, UDP and TCP; with the answer where it was captured too."""
    assert is_pcap(octets)
    assert read(read_pcap, octets) == (found, {})


@pytest.mark.parametrize(
    ("packet", "link", "reason"),
    [
        (ipv4(udp(QUERY.to_wire()), mf=1), 101, Reason.FRAGMENT),
        (ipv4(udp(QUERY.to_wire()), offset=128), 101, Reason.FRAGMENT),
        (ipv6(udp(QUERY.to_wire()), b"\x11\0\0\x01" + bytes(4), 44), 101, Reason.FRAGMENT),
        (ipv4(tcp(PREFIXED[:-1])), 101, Reason.SPLIT),
        (ipv4(tcp(b"\0")), 101, Reason.SPLIT),
        (ipv4(tcp(b"")), 101, Reason.OTHER),
        (ipv4(dpkt.udp.UDP(sport=4000, dport=443, data=b"x")), 101, Reason.OTHER),
        (ipv4(udp(reply())), 101, Reason.OTHER),
        (ipv4(udp(b"nonsense")), 101, Reason.MALFORMED),
        (SENT[:-1], 101, Reason.CUT),
        (SENT[:10], 101, Reason.CUT),
        (SENT6[:30], 101, Reason.CUT),
        (ipv6(udp(b""), b"\x3c\xff" + bytes(6), 0), 101, Reason.CUT),
        (bytes(12) + b"\x08\x06" + bytes(28), 1, Reason.OTHER),
        (bytes(13), 1, Reason.CUT),
        (b"", 101, Reason.CUT),
        (SENT, 127, Reason.LINK),
    ],
)
def test_a_packet_that_is_no_clients_query_is_in_the_ledger(packet: bytes, link: int, reason: Reason) -> None:
    """Fragments, pieces of TCP, other ports, what is cut; and the next one is read where its link is known."""
    assert read(read_pcap, pcap(packet, link=link)) == ([], {reason: 1})


def test_a_capture_of_the_other_byte_order_is_read() -> None:
    """pcap is written in the order of the machine that captured."""
    head = struct.pack(">IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    octets = head + struct.pack(">IIII", 1_700_000_000, 250_000, len(SENT), len(SENT)) + SENT

    assert is_pcap(octets)
    assert read(read_pcap, octets) == ([ASKED], {})


def test_a_record_of_impossible_length_ends_a_capture_with_a_word() -> None:
    """Nothing tells where the next would begin; no memory is asked for."""
    octets = pcap(SENT, link=101) + struct.pack("<IIII", 0, 0, 0xFFFFFFFF, 0) + bytes(100)

    assert read(read_pcap, octets) == ([ASKED], {Reason.DAMAGED: 1})


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(f"{order}I", 12 + len(body))
    return struct.pack(f"{order}I", kind) + length + body + length


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link: int, options: bytes = b"", order: str = "<") -> bytes:
    return block(1, struct.pack(f"{order}HHI", link, 0, 0) + options, order)


def packet_block(number: int, ticks: int, packet: bytes, order: str = "<") -> bytes:
    head = struct.pack(f"{order}IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(packet), len(packet))
    return block(6, head + packet, order)


MICRO = int(AT * 1e6)
NANO_CLOCK = struct.pack("<HHB3x", 9, 1, 9)
BINARY_CLOCK = struct.pack("<HHB3x", 9, 1, 0x80 | 2) + struct.pack("<HHq", 14, 8, 1_000_000_000)


@pytest.mark.parametrize(
    ("octets", "found"),
    [
        (section() + interface(101) + packet_block(0, MICRO, SENT), [ASKED]),
        (section(">") + interface(101, b"", ">") + packet_block(0, MICRO, SENT, ">"), [ASKED]),
        (section() + interface(1) + interface(101) + packet_block(1, MICRO, SENT) +
         packet_block(0, MICRO, ethernet(SENT6)), [ASKED, ASKED6]),
        (section() + interface(1) + section(">") + interface(101, b"", ">") +
         packet_block(0, MICRO, SENT, ">"), [ASKED]),
        (section() + interface(101, NANO_CLOCK) + packet_block(0, int(AT * 1e9), SENT), [ASKED]),
        (section() + interface(101, BINARY_CLOCK) + packet_block(0, int(700_000_000.25 * 4), SENT), [ASKED]),
        (section() + interface(101) + block(3, struct.pack("<I", len(SENT)) + SENT),
         [Asked(None, CLIENT, from_text("www.example.org"), 1)]),
        (section() + block(0xBAD, b"who knows") + interface(101) + packet_block(0, MICRO, SENT), [ASKED]),
    ],
)  # fmt: skip
def test_a_pcapng_file_is_read(octets: bytes, found: list[Asked]) -> None:
    """Sections of either byte order, several interfaces with clocks of their own, blocks that nobody knows."""
    assert is_pcapng(octets)
    assert read(read_pcapng, octets) == (found, {})


def test_what_another_library_writes_as_pcapng_is_read() -> None:
    """dpkt's writer."""
    file = io.BytesIO()
    dpkt.pcapng.Writer(file).writepkt(ethernet(SENT), AT)

    assert read(read_pcapng, file.getvalue()) == ([ASKED], {})


@pytest.mark.parametrize(
    ("piece", "reason"),
    [
        (packet_block(7, MICRO, SENT), Reason.MALFORMED),
        (block(6, b"short"), Reason.MALFORMED),
        (block(0xBAD, bytes(MAX_RECORD_OCTETS)), Reason.TOO_LONG),
        (struct.pack("<II", 6, 9), Reason.DAMAGED),
        (struct.pack("<II", 6, 4) + bytes(40), Reason.DAMAGED),
        (struct.pack("<II", 6, 4000) + bytes(40), Reason.CUT),
    ],
)
def test_a_damaged_block_is_in_the_ledger(piece: bytes, reason: Reason) -> None:
    """What came before it is read."""
    found, unread = read(read_pcapng, section() + interface(101) + packet_block(0, MICRO, SENT) + piece)

    assert (found, unread) == ([ASKED], {reason: 1})


# ---- hostile octets -------------------------------------------------------------------------------------------------

SOUND = {
    read_dnstap: START + frame("CLIENT_QUERY", QUERY.to_wire()) + frame("CLIENT_RESPONSE", reply()) + STOP,
    read_pcap: pcap(ethernet(SENT), ethernet(BACK), ethernet(SENT6), ethernet(ipv4(tcp(PREFIXED)))),
    read_pcapng: section() + interface(1, NANO_CLOCK) + packet_block(0, MICRO, ethernet(SENT)),
}


@given(
    st.sampled_from(sorted(SOUND, key=lambda reader: reader.__name__)),
    st.lists(st.tuples(st.integers(0, 600), st.binary(min_size=1, max_size=8)), max_size=5),
    st.integers(0, 600),
)
def test_any_damage_ends_in_queries_and_the_ledger(reader: Read, patches: list[tuple[int, bytes]], length: int) -> None:
    """Octets changed anywhere, and the end cut off: nothing but a PastError is ever raised."""
    octets = bytearray(SOUND[reader])
    for place, patch in patches:
        octets[place : place + len(patch)] = patch
    try:
        found, _ = read(reader, bytes(octets[: length or None]))
    except PastError:
        return
    assert all(query.at is None or query.at >= 0 for query in found)


@given(st.binary(max_size=120), st.sampled_from([0, 1, 101, 113, 276]))
def test_any_packet_is_a_query_or_in_the_ledger(packet: bytes, link: int) -> None:
    """Whatever a packet holds, one entry comes of it at least."""
    found, unread = read(read_pcap, pcap(packet, link=link))

    assert len(found) + sum(unread.values()) >= 1


@given(st.binary(max_size=60))
def test_any_octets_are_a_format_or_not(octets: bytes) -> None:
    """Telling the format reads no further than there is."""
    assert isinstance(is_dnstap(octets) or is_pcap(octets) or is_pcapng(octets), bool)
