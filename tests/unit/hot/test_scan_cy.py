"""Where the parts of a message begin and end; the same plain and compiled."""

import struct
from collections.abc import Callable
from types import ModuleType

import dns.exception
import dns.name
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.build import (
    TO_QUESTION,
    header,
    mutations,
    opt,
    option,
    query,
    question,
    record,
    reply,
    soa,
    valid_queries,
    valid_replies,
    wire,
)
from tests.support.plain import load_uncompiled

Hot = Callable[[str], ModuleType]
PROPERTY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN = load_uncompiled("resolver.hot._scan_cy")

HEADER = b"\xff" * 12  # no name can be read in it
NAME = wire("www.example.org")
LONGEST = b"\x3f" + b"a" * 63 + b"\x3f" + b"b" * 63 + b"\x3f" + b"c" * 63 + b"\x3d" + b"d" * 61 + b"\0"

ASKED = query()
MESSAGES = [*valid_queries(), *valid_replies(ASKED)]

# Octets behind the header, offset of the name from there, the name that stands there (b"" for none).
NAMES = {
    "the root": (b"\0", 0, b"\0"),
    "a plain name": (NAME, 0, NAME),
    "letter case is lowered": (wire("WWW.Example.ORG"), 0, NAME),
    "a length octet is no letter": (b"\x41" + b"a" * 65 + b"\0", 0, b""),
    "a pointer to a name before": (NAME + b"\xc0\x0c", 17, NAME),
    "a pointer into a name": (NAME + b"\xc0\x10", 17, wire("example.org")),
    "labels, then a pointer": (NAME + b"\3ftp\xc0\x10", 17, wire("ftp.example.org")),
    "a pointer to a pointer": (b"\3org\0" + b"\7example\xc0\x0c" + b"\xc0\x11", 15, wire("example.org")),
    "a pointer to itself": (b"\xc0\x0c", 0, b""),
    "a pointer forward": (b"\xc0\x0e" + NAME, 0, b""),
    "a pointer into its own labels": (b"\1a\xc0\x0c", 0, b""),
    "two pointers in a ring": (b"\xc0\x0e\xc0\x0c", 2, b""),
    "a pointer to two in a ring": (b"\xc0\x0e\xc0\x0c" + b"\xc0\x0c", 4, b""),
    "a pointer into the header": (b"\xc0\x04", 0, b""),
    "half a pointer": (b"\0\xc0", 1, b""),
    "no end": (b"\3www", 0, b""),
    "a label past the end": (b"\4www", 0, b""),
    "nothing": (b"", 0, b""),
    "label type 0b01": (b"\x41\0", 0, b""),
    "label type 0b10": (b"\x81\0", 0, b""),
    "255 octets": (LONGEST, 0, LONGEST),
    "256 octets": (b"\x3f" + b"a" * 63 + LONGEST[:128] + b"\x3e" + b"d" * 62 + b"\0", 0, b""),
    "256 octets, the last ones by pointer": (LONGEST + b"\1x\xc0\x0c", 255, b""),
    "before the message": (b"\0", -13, b""),
}


@pytest.mark.parametrize("case", NAMES)
def test_a_name_is_read_or_is_none(hot: Hot, case: str) -> None:
    """read_name gives the lower-cased name, or nothing."""
    octets, offset, name = NAMES[case]

    assert hot("_scan_cy").read_name(HEADER + octets, 12 + offset) == name


@pytest.mark.parametrize(
    ("octets", "offset", "pointers", "past"),
    [
        (NAME + b"xx", 0, False, 17),
        (NAME + b"\xc0\x0cxx", 17, True, 19),
        (NAME + b"\1a\xc0\x0cxx", 17, True, 21),
        (NAME + b"\xc0\x0cxx", 17, False, -1),  # in a question, nothing comes before the name
        (b"\xc0\x0c", 0, True, -1),
        (NAME + b"\xc0\x0b", 17, True, -1),  # into the header
        (b"\xc0", 0, True, -1),
        (LONGEST, 0, False, 255),
        (LONGEST[:-1] + b"\1", 0, False, -1),
        (LONGEST.replace(b"\x3d", b"\x3e") + b"\0", 0, False, -1),
        (b"\x40a\0", 0, True, -1),
    ],
)
def test_a_name_is_stepped_over(hot: Hot, octets: bytes, offset: int, pointers: bool, past: int) -> None:
    """skip_name gives the offset past the name, or -1."""
    found = hot("_scan_cy").skip_name(HEADER + octets, 12 + offset, pointers)

    assert found == (past + 12 if past > 0 else -1)


def _name_by_dnspython(message: bytes, start: int) -> bytes:
    try:
        return dns.name.from_wire(message, start)[0].to_wire().lower()
    except dns.exception.DNSException:
        return b""


_PIECES = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=63).map(lambda label: bytes((len(label),)) + label),
        st.integers(0, 200).map(lambda to: (0xC00C + to).to_bytes(2, "big")),
        st.just(b"\0"),
        st.binary(max_size=2),
    ),
    max_size=12,
).map(b"".join)


@PROPERTY
@given(_PIECES, st.integers(0, 200))
def test_names_are_those_that_dnspython_reads(hot: Hot, octets: bytes, offset: int) -> None:
    """Pointers, loops, lengths: the oracle agrees about every name."""
    message = HEADER + octets
    start = 12 + offset % (len(octets) + 1)

    assert hot("_scan_cy").read_name(message, start) == _name_by_dnspython(message, start)


def test_the_parts_of_a_query_are_found(hot: Hot) -> None:
    """The offset past the question, and that of the OPT's TYPE field, whatever stands around it."""
    scan = hot("_scan_cy")
    end = 12 + len(question())
    other = record(TO_QUESTION, 1, b"\xc0\0\2\1")

    assert scan.scan_query(query()) == (scan.WELL_FORMED, end, 0)
    assert scan.scan_query(query(additional=(opt(),))) == (scan.WELL_FORMED, end, end + 1)
    assert scan.scan_query(query(additional=(other, opt(), other))) == (
        scan.WELL_FORMED,
        end,
        end + len(other) + 1,
    )


END = 12 + len(question())
MALFORMED_QUERIES = {
    "a name cut": (query()[:20], 0, 0),
    "a type cut": (query()[:-1], 0, 0),
    "two questions, one cut": (header(counts=(2, 0, 0, 0)) + question() + b"\1", 0, 0),
    "a question with a pointer": (header() + b"\1a\xc0\x0c\0\1\0\1", 0, 0),
    "trailing octets": (query() + b"\0", END, 0),
    "a record announced and missing": (header(counts=(1, 0, 0, 1)) + question(), END, 0),
    "an OPT cut in its RDATA": (query(additional=(opt(option(3, b"1234")),))[:-1], END, END + 1),
    "two OPTs": (query(additional=(opt(), opt())), END, END + 1),
    "an OPT not at the root": (query(additional=(opt(owner=wire("a")),)), END, END + 3),
    "an OPT at a pointer": (query(additional=(opt(owner=b"\xc0\x1c"),)), END, END + 2),
    "an OPT in the answer section": (header(counts=(1, 1, 0, 0)) + question() + opt(), END, END + 1),
    "an OPT in the authority section": (header(counts=(1, 0, 1, 0)) + question() + opt(), END, END + 1),
    "an option longer than its OPT": (query(additional=(opt(b"\0\3\0\1"),)), END, END + 1),
    "half an option": (query(additional=(opt(b"\0\3\0"),)), END, END + 1),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED_QUERIES)
def test_a_fault_keeps_what_was_found_before_it(hot: Hot, case: str) -> None:
    """So that the FORMERR can echo the question and bring an OPT."""
    octets, question_end, opt_start = MALFORMED_QUERIES[case]
    scan = hot("_scan_cy")

    assert scan.scan_query(octets) == (scan.MALFORMED, question_end, opt_start)


@pytest.mark.parametrize("questions", [0, 2])
def test_only_a_single_question_is_one(hot: Hot, questions: int) -> None:
    """None or several are well formed and have no end to echo up to; what to make of them is read_query's affair."""
    scan = hot("_scan_cy")
    message = header(counts=(questions, 0, 0, 1)) + question() * questions + opt()

    assert scan.scan_query(message) == (scan.WELL_FORMED, 0, 13 + questions * len(question()))


@pytest.mark.parametrize("octets", [b"", header()[:11], query(flags=0x8100), query(flags=0x8000)])
def test_what_is_no_query_is_told_apart(hot: Hot, octets: bytes) -> None:
    """Too short for a header, or a response."""
    scan = hot("_scan_cy")

    assert scan.scan_query(octets) == (scan.NOT_A_QUERY, 0, 0)


def test_the_records_of_a_reply_are_walked(hot: Hot) -> None:
    """Section, type, RDATA and owner of each, in order."""
    alias, glue, end = record(TO_QUESTION, 5, b"\xc0\x10"), record("a", 1, b"1234"), 12 + len(question())
    message = header(counts=(1, 1, 0, 2)) + question() + alias + glue + opt()
    second, third = end + len(alias), end + len(alias) + len(glue)

    assert hot("_scan_cy").scan_records(message, end) == [
        (0, end + 2, 5, end + 12, second, end),
        (2, second + 3, 1, second + 13, third, second),
        (2, third + 1, 41, third + 11, third + 11, third),
    ]
    assert hot("_scan_cy").scan_records(message + b"\0", end) is None
    assert hot("_scan_cy").scan_records(message[:-1], end) is None


ADDRESSES = [b"\xc0\0\2\1", b"\xc0\0\2\2", bytes(15) + b"\1"]
HINTS = b"\0\4\0\x08" + ADDRESSES[0] + ADDRESSES[1] + b"\0\6\0\x10" + ADDRESSES[2] + b"\0\4\0\3abc"
SOA = b"\xc0\x10\xc0\x10" + b"".join(n.to_bytes(4, "big") for n in (1, 2, 3, 4, 60))
# Counts of records, and these; what is taken out of them besides counts, octets and TTLs.
TAKEN = {
    "nothing": ((0, 0, 0), b"", ([], [], [], -1, False)),
    "an address": ((1, 0, 0), record(TO_QUESTION, 1, ADDRESSES[0]), ([], [], ADDRESSES[:1], -1, True)),
    "an address of another length": ((1, 0, 0), record(TO_QUESTION, 1, b"abc"), ([], [], [], -1, True)),
    "an address, other kind": ((1, 0, 0), record(TO_QUESTION, 28, ADDRESSES[2]), ([], [], ADDRESSES[2:], -1, False)),
    "an alias": ((1, 0, 0), record("a", 5, b"\1A\xc0\x10"), ([(b"\1a\0", wire("a.example.org"))], [], [], -1, False)),
    "a DNAME": ((1, 0, 0), record("b", 39, wire("C")), ([], [wire("c")], [], -1, False)),
    "hints": ((1, 0, 0), record("b", 65, b"\0\1\0" + HINTS), ([], [], ADDRESSES, -1, False)),
    "a service": ((1, 0, 0), record("b", 64, b"\0\1" + wire("S")), ([], [wire("s")], [], -1, False)),
    "a zone's end": ((0, 1, 0), record("org", 6, SOA, ttl=50), ([], [], [], 50, False)),
    "a zone's end, by its own word": ((0, 1, 0), record("org", 6, SOA, ttl=70), ([], [], [], 60, False)),
    "a zone's end elsewhere": ((1, 0, 0), record("org", 6, SOA, ttl=70), ([], [], [], -1, False)),
    "a zone's end cut short": ((0, 1, 0), record("org", 6, SOA[:21]), ([], [], [], -1, False)),
    "addresses elsewhere": ((0, 1, 1), 2 * record("a", 1, ADDRESSES[0]), ([], [], [], -1, False)),
}  # fmt: skip


@pytest.mark.parametrize("case", TAKEN)
@pytest.mark.parametrize("tail", [b"", opt(), opt() + record("z", 1, b"late")], ids=["", "OPT", "OPT and more"])
def test_a_reply_is_taken_apart(hot: Hot, case: str, tail: bytes) -> None:
    """What later steps ask for, of the records before an OPT."""
    (answers, authorities, additional), octets, taken = TAKEN[case]
    behind = 0 if not tail else 1 if len(tail) == len(opt()) else 2
    message = header(counts=(1, answers, authorities, additional + behind)) + question() + octets + tail
    end = 12 + len(question())

    found = hot("_scan_cy").read_records(message, end, 1)

    at = end + len(octets)
    assert found[:3] == (0, (answers, authorities, additional), octets)
    assert [octets[place : place + 4] for place, _ in found[3]] == [ttl.to_bytes(4, "big") for _, ttl in found[3]]
    assert len(found[3]) == answers + authorities + additional
    assert found[4] == ((at + 5, at + len(opt())) if tail else (0, 0))
    assert found[5:] == taken


@pytest.mark.parametrize(
    ("octets", "outcome"),
    [
        (record("a", 1, b"")[:-1], 1),
        (record("a", 1, b"") + b"\0", 1),
        (b"", 1),
        (opt(), 2),  # in the answer section
        (record(TO_QUESTION, 5, b"\xc0\x10\0"), 0),
        (record(TO_QUESTION, 5, b"\xc0"), 2),
        (record(TO_QUESTION, 5, b""), 2),
        (record(TO_QUESTION, 65, b"\0\1"), 2),
        (record(TO_QUESTION, 39, b"\3abc"), 2),
        (record(b"\xc0\x0c", 1, b""), 0),
        (record(b"\1a\xc0\x0d", 1, b""), 2),  # a pointer into the middle of a label leads to no name
    ],
)
def test_a_reply_that_is_misshapen_is_told(hot: Hot, octets: bytes, outcome: int) -> None:
    """Broken off, or with a record that says what none can say: then nothing of it counts."""
    message = header(counts=(1, 1, 0, 0)) + question() + octets

    found = hot("_scan_cy").read_records(message, 12 + len(question()), 1)

    assert found[0] == outcome
    assert outcome == 0 or found[1:] == ((0, 0, 0), b"", (), (0, 0), [], [], [], -1, False)


def test_a_ttl_that_is_too_long_is_none(hot: Hot) -> None:
    """RFC 2181 §8; in the octets as well, since they are sent on."""
    octets = record("a", 1, b"1234", ttl=0x80000000) + record("a", 1, b"1234", ttl=0x7FFFFFFF)
    message = header(counts=(1, 2, 0, 0)) + question() + octets

    found = hot("_scan_cy").read_records(message, 12 + len(question()), 1)

    assert [ttl for _, ttl in found[3]] == [0, 0x7FFFFFFF]
    assert found[2] == record("a", 1, b"1234", ttl=0) + record("a", 1, b"1234", ttl=0x7FFFFFFF)


def _taken_one_by_one(message: bytes, start: int, qtype: int) -> tuple[object, ...]:
    """What `read_records` says, by its neighbours, record for record."""
    records = PLAIN.scan_records(message, start)
    if records is None:
        return (1,)
    counts, ttls, aliases, targets, addresses, negative, has_data = [0, 0, 0], [], [], [], [], -1, False
    opt_at, opt_end, end = 0, 0, len(message)

    def name_in(first: int, past: int) -> bytes:
        after = PLAIN.skip_name(message, first, True) if first < past else -1
        return PLAIN.read_name(message, first) if 0 <= after <= past else b""

    for section, at, rtype, rdata, stop, owner in records:
        if rtype == 41:
            if opt_at or section != 2 or message[owner]:
                return (2,)
            opt_at, opt_end, end = at + 4, stop, owner
            continue
        if opt_at:
            continue
        name = PLAIN.read_name(message, owner)
        if not name:
            return (2,)
        counts[section] += 1
        ttl = int.from_bytes(message[at + 4 : at + 8], "big")
        ttl = 0 if ttl > 0x7FFFFFFF else ttl
        ttls.append((at + 4 - start, ttl))
        if section == 1 and rtype == 6 and stop - rdata >= 22:
            negative = min(ttl, int.from_bytes(message[stop - 4 : stop], "big"))
        if section:
            continue
        has_data |= qtype in (rtype, 255)
        if rtype in (5, 39, 64, 65):
            first = rdata + 2 * (rtype > 39)
            target = name_in(first, stop)
            if not target:
                return (2,)
            if rtype == 5:
                aliases.append((name, target))
            elif rtype == 39 or target != b"\0":
                targets.append(target)
            i = PLAIN.skip_name(message, first, True)
            while rtype > 39 and i + 4 <= stop:
                key, octets = message[i] << 8 | message[i + 1], message[i + 2] << 8 | message[i + 3]
                width = {4: 4, 6: 16}.get(key, 0)
                if width and i + 4 + octets <= stop:
                    addresses += [message[i + 4 + k * width : i + 4 + (k + 1) * width] for k in range(octets // width)]
                i += 4 + octets
        elif (rtype, stop - rdata) in ((1, 4), (28, 16)):
            addresses.append(message[rdata:stop])
    body = bytearray(message[start:end])
    for place, ttl in ttls:
        body[place : place + 4] = ttl.to_bytes(4, "big")
    return (
        0,
        tuple(counts),
        bytes(body),
        tuple(ttls),
        (opt_at, opt_end),
        aliases,
        targets,
        addresses,
        negative,
        has_data,
    )


@PROPERTY
@given(
    st.one_of(st.binary(max_size=80), mutations([*MESSAGES, *[
        header(counts=(1, *counts)) + question() + octets + (opt() if n % 2 else b"")
        for n, (counts, octets, _) in enumerate(TAKEN.values())
    ]])),
    st.integers(-2, 90) | st.just(12 + len(question())),
    st.sampled_from([1, 5, 28, 65, 255]),
)  # fmt: skip
def test_a_reply_is_taken_apart_as_record_for_record(hot: Hot, octets: bytes, start: int, qtype: int) -> None:
    """About any octets, from any offset, and without ever raising."""
    found = hot("_scan_cy").read_records(octets, start, qtype)

    if len(octets) >= 12 and 12 <= start <= len(octets):
        expected = _taken_one_by_one(octets, start, qtype)
        assert found[: len(expected)] == expected
    else:
        assert found[0] == 1


def _outlined(scan: ModuleType, message: bytes, start: int, qtype: int) -> tuple[object, ...] | None:
    """What `outline` says of a reply, in the words of `read_records`; None for one that is not plain."""
    told, names, sizes = (bytes(bytearray(n)) for n in (8 * scan.OUTLINE_WORDS, 256 * 64, 8 * 4 * 64))
    count = scan.outline(message, start, qtype, told, names, sizes)
    if count < 0:
        return None
    octets, *counts, negative, has_data, shortest, longest, n = struct.unpack_from("<9q", told)
    places = struct.unpack_from(f"<{n}q", told, 72)
    body = message[start : start + octets]
    ttls = tuple((at, int.from_bytes(body[at : at + 4], "big")) for at in places)
    assert (shortest, longest) == ((min(t for _, t in ttls), max(t for _, t in ttls)) if ttls else (0, 0))
    leads_to = [names[256 * k :][: struct.unpack_from("<q", sizes, 32 * k)[0]] for k in range(count)]
    return tuple(counts), body, ttls, sorted(leads_to), negative, bool(has_data)


@PROPERTY
@given(
    mutations([*valid_replies(ASKED), *[
        header(0x8180, (1, *counts)) + question() + octets for counts, octets, _ in TAKEN.values()
    ]]),
    st.sampled_from([1, 5, 65]),
)  # fmt: skip
def test_a_plain_reply_is_outlined_as_it_is_taken_apart(hot: Hot, octets: bytes, qtype: int) -> None:
    """Whatever is outlined is whole, and says the same; plain Python outlines nothing."""
    scan = hot("_scan_cy")
    start = len(ASKED)

    outlined = _outlined(scan, octets, start, qtype)

    if outlined is not None:
        outcome, counts, body, ttls, _, links, targets, _, negative, has_data = PLAIN.read_records(octets, start, qtype)
        leads_to = sorted([target for _, target in links] + targets)
        assert (outcome, *outlined) == (PLAIN.WHOLE, counts, body, ttls, leads_to, negative, has_data)


@pytest.mark.parametrize(
    "answers", [[], [record(TO_QUESTION, 1, b"\xc0\0\2\1")], [record(TO_QUESTION, 5, wire("x.y"))]]
)
@pytest.mark.parametrize("additional", [[], [opt()], [record("z", 1, b"glue")], [record("z", 1, b"glue"), opt()]])
def test_usual_replies_are_plain(hot: Hot, answers: list[bytes], additional: list[bytes]) -> None:
    """The compiled build outlines them."""
    scan = hot("_scan_cy")
    octets = reply(ASKED, answers, [soa()], additional)

    assert (_outlined(scan, octets, len(ASKED), 1) is not None) == scan.is_compiled()


@pytest.mark.parametrize(
    "octets",
    [
        reply(ASKED, [record(TO_QUESTION, 1, b"\xc0\0\2\1")] * 65),
        reply(ASKED, [record(TO_QUESTION, 5, wire("x.y"))] * 17),
        reply(ASKED, [], [], [opt(option(15, b"\0\3"))]),
        reply(ASKED, [], [], [opt(rcode=1)]),
        reply(ASKED, [], [], [opt(), record("z", 1, b"late")]),
        reply(ASKED, rcode=2),
        reply(ASKED, flags=0x8380),
        reply(ASKED, [record(TO_QUESTION, 1, b"\xc0\0\2\1", ttl=2**31)]),
    ],
    ids=["many records", "many names", "option", "upper RCODE", "after the OPT", "failure", "truncated", "long TTL"],
)
def test_what_is_not_plain_is_not_outlined(hot: Hot, octets: bytes) -> None:
    """It is left to `read_records` and who asks it."""
    assert _outlined(hot("_scan_cy"), octets, len(ASKED), 1) is None


@PROPERTY
@given(st.one_of(st.binary(max_size=80), mutations(MESSAGES)), st.integers(-2, 90))
def test_the_compiled_module_says_what_the_plain_one_says(hot: Hot, octets: bytes, start: int) -> None:
    """About any octets, from any offset, and without ever raising."""
    scan = hot("_scan_cy")

    assert scan.scan_query(octets) == PLAIN.scan_query(octets)
    assert scan.read_name(octets, start) == PLAIN.read_name(octets, start)
    assert scan.skip_name(octets, start, True) == PLAIN.skip_name(octets, start, True)
    assert scan.skip_name(octets, start, False) == PLAIN.skip_name(octets, start, False)
    if len(octets) >= 12 and start >= 12:
        assert scan.scan_records(octets, start) == PLAIN.scan_records(octets, start)


@pytest.mark.parametrize(("elapsed", "left"), [(-5, 300), (0, 300), (1, 299), (299, 1), (300, 0), (301, 0), (2**31, 0)])
def test_a_ttl_runs_down_to_zero_and_no_further(hot: Hot, elapsed: int, left: int) -> None:
    """Elapsed seconds are taken off; a clock that went back changes nothing."""
    octets = b"ab" + (300).to_bytes(4, "big") + b"cd"

    assert hot("_scan_cy").age(octets, ((2, 300),), elapsed) == b"ab" + left.to_bytes(4, "big") + b"cd"


@PROPERTY
@given(st.lists(st.integers(0, 2**31 - 1), max_size=5), st.integers(0, 2**31), st.binary(max_size=20))
def test_a_part_ages_as_the_whole_does(hot: Hot, ttls: list[int], elapsed: int, head: bytes) -> None:
    """It makes no difference whether the body is aged alone or inside the message; length and the rest stay."""
    age = hot("_scan_cy").age
    body = b"".join(b"-" + ttl.to_bytes(4, "big") for ttl in ttls)
    places = tuple((5 * i + 1, ttl) for i, ttl in enumerate(ttls))
    whole = age(head + body, tuple((at + len(head), ttl) for at, ttl in places), elapsed)

    assert whole == head + age(body, places, elapsed)
    assert [int.from_bytes(whole[len(head) + at :][:4], "big") for at, _ in places] == [
        max(0, ttl - elapsed) for ttl in ttls
    ]


def test_a_build_knows_what_it_is(hot: Hot) -> None:
    """Compiled or plain is never a guess."""
    module = hot("_scan_cy")

    assert module.is_compiled() is not str(module.__file__).endswith(".py")
