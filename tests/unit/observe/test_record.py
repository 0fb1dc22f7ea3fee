"""Hits as bytes: what goes in comes out, and hostile bytes end in a record or in one of two errors."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.observe.record import (
    MAX_RECORD_OCTETS,
    BadRecord,
    CorruptRecord,
    Gap,
    Hit,
    HitTemplate,
    TornRecord,
    gap_record,
    hit_record,
    hit_template,
    parse_all,
    sockaddr,
    whole_records,
)

TIME_US = 1_700_000_000_123_456


def template(**changes: object) -> HitTemplate:
    facts: dict[str, object] = {
        "generation": 7, "group": "mobile", "transport": "udp", "qname": "chat.example.org", "qtype": "A",
        "order": "order-1", "app": "chat", "rule": "suffix example.org", "action": "NXDOMAIN", "rcode": "NXDOMAIN",
        "ede": 16, "mode": "enforce", "device": "phone-7",
    }  # fmt: skip
    return hit_template(**(facts | changes))  # type: ignore[arg-type]


def record(**changes: object) -> bytes:
    return hit_record(template(**changes), TIME_US, sockaddr("192.0.2.1", 5353))


WHOLE = record()


def parse(octets: bytes, offset: int = 0) -> tuple[Hit | Gap, int]:
    """The first record at an offset and where it ends; raises what is wrong there."""
    found, _, bad = parse_all(octets, offset)
    if not found:
        raise bad or TornRecord("nothing is there")
    return found[0], offset + 4 + int.from_bytes(octets[offset : offset + 4], "little")


def shortened(octets: bytes) -> bytes:
    """A record as versions before devices spooled it."""
    tail = octets[40:].rpartition(b"\t")[0]
    return (36 + len(tail)).to_bytes(4, "little") + octets[4:40] + tail


def read_plainly(octets: bytes) -> tuple[list[Hit | Gap], int, type[BadRecord] | None]:
    """What `parse_all` returns, as the layout says it and with nothing remembered; of the error its type."""
    found: list[Hit | Gap] = []
    offset = 0
    while offset < len(octets):
        length = int.from_bytes(octets[offset : offset + 4], "little")
        end = offset + 4 + length
        if len(octets) - offset < 4:
            return found, offset, TornRecord
        if not 36 <= length <= MAX_RECORD_OCTETS:
            return found, offset, CorruptRecord
        if end > len(octets):
            return found, offset, TornRecord
        time_us = int.from_bytes(octets[offset + 4 : offset + 12], "little", signed=True)
        address, tail = octets[offset + 12 : offset + 40], octets[offset + 40 : end]
        family = struct.unpack("=H", address[:2])[0]
        try:
            fields = tail.decode().split("\t")
            if not 0 <= time_us < 253_402_300_800_000_000:
                raise ValueError
            if family == 0:
                word, *numbers = fields
                lost, first, last = map(number, numbers)
                if word != "gap" or max(first, last) >= 253_402_300_800_000_000:
                    raise ValueError
                found.append(Gap(lost, first, last))
            else:
                packed = {2: address[4:8], 10: address[8:24]}[family]
                host = ip_address(packed)
                client = str(getattr(host, "ipv4_mapped", None) or host)
                if len(fields) == 12:
                    fields.append("")
                generation, *words, ede, mode, device = fields
                group, transport, qname, qtype, order, app, rule, action, rcode = words
                found.append(
                    Hit(
                        time_us, client, int.from_bytes(address[2:4], "big"), number(generation), group, transport,
                        qname, qtype, order, app, rule, action, rcode, number(ede) if ede else None, mode, device,
                    )
                )  # fmt: skip
        except (ValueError, LookupError):
            return found, offset, CorruptRecord
        offset = end
    return found, offset, None


def number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) < 1 << 63):
        raise ValueError
    return int(text)


def test_a_hit_comes_back_with_every_field() -> None:
    """Parsing a joined record yields the facts that made it."""
    assert parse(WHOLE, 0) == (
        Hit(
            time_us=TIME_US, client="192.0.2.1", port=5353, generation=7, group="mobile", transport="udp",
            qname="chat.example.org", qtype="A", order="order-1", app="chat", rule="suffix example.org",
            action="NXDOMAIN", rcode="NXDOMAIN", ede=16, mode="enforce", device="phone-7",
        ),
        len(WHOLE),
    )  # fmt: skip


def test_a_record_from_before_there_were_devices_is_one_of_no_device() -> None:
    """Twelve fields, as the version before spooled them, are a whole record."""
    old = shortened(WHOLE)

    hit, after = parse(old + WHOLE, 0)

    assert isinstance(hit, Hit)
    assert hit == parse(WHOLE, 0)[0]._replace(device="")  # type: ignore[union-attr]
    assert after == len(old)


def test_a_hit_of_no_device_says_so() -> None:
    """Empty, and not a word that a device could be called by."""
    assert parse(record(device=""), 0)[0][15] == ""  # type: ignore[misc]


def test_the_hot_path_may_join_the_parts_itself() -> None:
    """A record is prefix, eight octets of time, 28 of address, tail: nothing else is in it."""
    made = template()
    joined = made.prefix + struct.pack("<q", TIME_US) + sockaddr("192.0.2.1", 5353) + made.tail
    assert joined == WHOLE
    assert struct.unpack_from("<I", joined)[0] == len(joined) - 4


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::", "::"),
    ],
)
def test_a_client_has_one_text(host: str, text: str) -> None:
    """IPv4 and IPv6 clients come back as text, an IPv4 client of a socket for both families as IPv4."""
    hit, _ = parse(hit_record(template(), TIME_US, sockaddr(host, 65535)), 0)
    assert isinstance(hit, Hit)
    assert (hit.client, hit.port) == (text, 65535)


def test_an_address_is_laid_out_as_linux_does() -> None:
    """sockaddr packs what recvmmsg would have written."""
    assert sockaddr("192.0.2.1", 53) == struct.pack("=H", 2) + b"\0\x35\xc0\0\2\1" + bytes(20)
    assert sockaddr("2001:db8::1", 53) == (
        struct.pack("=H", 10) + b"\0\x35" + bytes(4) + bytes.fromhex("20010db8000000000000000000000001") + bytes(4)
    )


def test_no_ede_is_none() -> None:
    """A hit without an Extended DNS Error says so, and not 0, which is a code."""
    assert parse(record(ede=None), 0)[0][13] is None  # type: ignore[misc]
    assert parse(record(ede=0), 0)[0][13] == 0  # type: ignore[misc]


def test_a_gap_comes_back() -> None:
    """A gap is told apart from a hit and keeps its count and times, put in order."""
    assert parse(gap_record(3, 1000, 2000), 0) == (Gap(3, 1000, 2000), len(gap_record(3, 1000, 2000)))
    assert parse(gap_record(3, 2000, 1000), 0)[0] == Gap(3, 1000, 2000)


@pytest.mark.parametrize("end", range(len(WHOLE)))
def test_every_cut_is_torn_not_corrupt(end: int) -> None:
    """A record of which only the beginning is there may still become whole."""
    with pytest.raises(TornRecord):
        parse(WHOLE[:end], 0)


@pytest.mark.parametrize(
    ("what", "octets"),
    [
        ("a length of zero, as a disk leaves after a power failure", bytes(64)),
        ("a length below the fixed part", (35).to_bytes(4, "little") + WHOLE[4:]),
        ("a length above the bound", (MAX_RECORD_OCTETS + 1).to_bytes(4, "little") + WHOLE[4:]),
        ("a time before 1970", WHOLE[:4] + (-1).to_bytes(8, "little", signed=True) + WHOLE[12:]),
        ("a time after the year 9999", WHOLE[:4] + (1 << 62).to_bytes(8, "little") + WHOLE[12:]),
        ("an unknown address family", WHOLE[:12] + b"\x63\x00" + WHOLE[14:]),
        ("no address, and not a gap", WHOLE[:12] + bytes(28) + WHOLE[40:]),
        ("not UTF-8", WHOLE[:-1] + b"\xff"),
        ("two fields too few", WHOLE.replace(b"\tchat\tsuffix", b"\tchat suffix").replace(b"\tphone-7", b" phone-7 ")),
        ("a field too many", WHOLE.replace(b"order-1", b"order\t1")),
        ("a generation that is no number", WHOLE.replace(b"7\tmob", b"x\tmob")),
        ("an EDE that is no number", WHOLE.replace(b"16\tenf", b"-1\tenf")),
        ("a gap of nothing", gap_record(1, 2, 3).replace(b"\t1\t", b"\t-\t")),
    ],
)
def test_what_no_writer_makes_is_corrupt(what: str, octets: bytes) -> None:
    """Bytes of these kinds are corrupt, whatever follows."""
    with pytest.raises(CorruptRecord):
        parse(octets + bytes(5000), 0)


@given(st.binary(max_size=200), st.integers(0, 220))
def test_any_bytes_parse_or_are_bad(octets: bytes, offset: int) -> None:
    """No bytes raise anything but BadRecord, and what parses moves on."""
    try:
        _, after = parse(octets, offset)
    except BadRecord:
        return
    assert offset < after <= len(octets)


@given(st.data())
def test_a_damaged_record_parses_or_is_bad(data: st.DataObject) -> None:
    """Any one octet of a record may be another, and still nothing but BadRecord is raised.

    A length that became smaller may leave a shorter record, and octets after it that are none.
    """
    place = data.draw(st.integers(0, len(WHOLE) - 1))
    damaged = bytearray(WHOLE)
    damaged[place] = data.draw(st.integers(0, 255))
    records, end, bad = parse_all(bytes(damaged))
    assert (end == len(WHOLE)) == (bad is None)
    assert len(records) <= 1
    assert records or bad is not None


PRINTABLE = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20)


@given(
    st.integers(0, 2**63 - 1), st.sampled_from(["192.0.2.77", "2001:db8::77"]), st.integers(0, 65535),
    PRINTABLE, PRINTABLE, st.none() | st.integers(0, 65535), st.integers(0, 4_000_000_000_000_000),
)  # fmt: skip
def test_printable_fields_come_back_as_they_were(
    generation: int, host: str, port: int, group: str, device: str, ede: int | None, time_us: int
) -> None:
    """Whatever is printable and short survives the round trip."""
    made = template(generation=generation, group=group, device=device, ede=ede)
    hit, _ = parse(hit_record(made, time_us, sockaddr(host, port)), 0)
    assert isinstance(hit, Hit)
    assert (hit.generation, hit.group, hit.device, hit.ede, hit.time_us) == (generation, group, device, ede, time_us)
    assert (hit.client, hit.port) == (host, port)


@given(st.text(max_size=3000))
def test_no_text_breaks_a_record(text: str) -> None:
    """Tabs, newlines, surrogates, any length: one record within the bound, without control characters."""
    made = template(
        group=text, transport=text, qname=text, qtype=text, order=text, app=text, rule=text, mode=text, device=text
    )
    octets = hit_record(made, TIME_US, sockaddr("192.0.2.1", 1))
    hit, after = parse(octets, 0)
    assert after == len(octets) <= MAX_RECORD_OCTETS + 4
    assert isinstance(hit, Hit)
    assert all(field.isprintable() for field in (*hit[4:13], hit.device))


@pytest.mark.parametrize("character", ["x", "é", "\U0001f512", "\t", "\\", "\udc80"])
def test_the_longest_fields_make_a_record_that_parses(character: str) -> None:
    """The bounds of the fields add up to less than the bound of the record."""
    names = ("group", "transport", "qname", "qtype", "order", "app", "rule", "action", "rcode", "mode", "device")
    made = template(generation=2**63 - 1, ede=65535, **dict.fromkeys(names, character * 3000))
    assert isinstance(parse(hit_record(made, TIME_US, sockaddr("192.0.2.1", 1)), 0)[0], Hit)


@given(st.integers(0, 3 * len(WHOLE)))
def test_whole_records_are_counted_within_a_cut(octets: int) -> None:
    """Of three records, as many are whole as end at or before the cut."""
    count, end = whole_records(WHOLE * 3, octets)
    assert (count, end) == (octets // len(WHOLE), octets // len(WHOLE) * len(WHOLE))


def test_parsing_stops_at_the_first_bad_record() -> None:
    """What is before it is returned, with where and what it is."""
    records, end, bad = parse_all(WHOLE + gap_record(1, 2, 3) + WHOLE[:9])
    assert [type(record) for record in records] == [Hit, Gap]
    assert end == len(WHOLE) + len(gap_record(1, 2, 3))
    assert isinstance(bad, TornRecord)


WORDS = st.sampled_from(["", "mobile", "école", "tcp"]) | st.text(max_size=12)
TEMPLATES = st.builds(
    template, generation=st.integers(0, 2**63 - 1) | st.just(7), group=WORDS, transport=WORDS, qname=WORDS, qtype=WORDS,
    order=WORDS, rule=WORDS, ede=st.none() | st.integers(0, 65535), mode=WORDS, device=WORDS,
)  # fmt: skip
ADDRESSES = st.builds(
    sockaddr, st.ip_addresses().map(str) | st.sampled_from(["192.0.2.1", "::ffff:192.0.2.1"]), st.integers(0, 65535)
)
TIMES = st.integers(0, 253_402_300_799_999_999)
RECORDS = (
    st.builds(hit_record, TEMPLATES, TIMES, ADDRESSES)
    | st.builds(hit_record, TEMPLATES, TIMES, ADDRESSES).map(shortened)
    | st.builds(gap_record, st.integers(0, 2**63 - 1), TIMES, TIMES)
)


@given(st.lists(RECORDS, max_size=8), st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3)), max_size=2))
def test_what_is_remembered_changes_nothing(written: list[bytes], damage: list[tuple[int, bytes]]) -> None:
    """Records read with what was remembered of others are those read each by itself; damaged ones as well."""
    octets = bytearray(b"".join(written))
    for place, other in damage:
        octets[place : place + len(other)] = other
    records, end, bad = parse_all(bytes(octets))
    assert (records, end, type(bad) if bad else None) == read_plainly(bytes(octets))
