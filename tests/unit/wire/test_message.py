"""Messages as values: any octets become one or a WireError, and dnspython reads the same in them."""

import contextlib
from pathlib import Path

import dns.flags
import dns.message
import dns.rdatatype
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from resolver.hot._scan_cy import age
from resolver.wire.codes import Opcode, Rcode, Rtype
from resolver.wire.message import Answer, ExtendedError, Query, Reply, WireError, read_query, read_reply, write_query
from tests.support.build import (
    AD,
    CD,
    ID,
    QR,
    RD,
    TC,
    TO_QUESTION,
    ask,
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

CORPUS = Path(__file__).parents[2] / "corpus" / "malformed"
PROPERTY = settings(deadline=None, max_examples=200)
NAME = wire("www.example.org")
TSIG = record("key.example", 250, wire("hmac-sha256") + bytes(16), ttl=0, rclass=255)
ADDRESS = record(TO_QUESTION, 1, b"\xc0\0\2\1")


def refusal(octets: bytes) -> WireError:
    """The WireError that a client's message ends in."""
    with pytest.raises(WireError) as caught:
        read_query(octets)
    return caught.value


def outcome_of(octets: bytes) -> tuple[Query | None, WireError | None]:
    """A client's message as far as it can be read, and what is wrong with it."""
    try:
        return read_query(octets), None
    except WireError as error:
        return error.query, error


# ---- queries --------------------------------------------------------------------------------------------------------


def test_a_query_is_read() -> None:
    """Question as written, name lowered, and what the OPT says."""
    asked = query("WWW.Example.org", 28, flags=RD | CD | AD, additional=(opt(option(3), octets=4096, do=True),))
    found = read_query(asked)

    assert (found.id, found.flags, found.opcode) == (ID, RD | CD | AD, 0)
    assert (found.question, found.qname) == (question("WWW.Example.org", 28), NAME)
    assert (found.qtype, found.qclass) == (28, 1)
    assert (found.has_opt, found.udp_octets, found.do) == (True, 4096, True)
    assert (found.wants_nsid, found.has_options) == (True, True)


def test_a_query_without_opt_takes_512_octets() -> None:
    """RFC 1035 §4.2.1, and nothing that needs EDNS."""
    found = read_query(query())

    assert (found.has_opt, found.udp_octets, found.do, found.wants_nsid, found.has_options) == (
        False,
        512,
        False,
        False,
        False,
    )


@pytest.mark.parametrize(("said", "taken"), [(0, 512), (511, 512), (512, 512), (513, 513), (65535, 65535)])
def test_a_size_below_512_is_512(said: int, taken: int) -> None:
    """RFC 6891 §6.2.3."""
    assert read_query(query(additional=(opt(octets=said),))).udp_octets == taken


@pytest.mark.parametrize(
    ("options", "wants"),
    [
        ((), False),
        ((option(3),), True),
        ((option(10, b"12345678"),), False),
        ((option(10, b"\0\3\0\0\0\3\0\0"), option(12, bytes(9))), False),  # looks like NSID inside a cookie
        ((option(12, bytes(7)), option(65001), option(3, b"ignored")), True),
    ],
)
def test_nsid_is_found_among_the_options(options: tuple[bytes, ...], wants: bool) -> None:
    """At an option's place, wherever that is."""
    found = read_query(query(additional=(opt(*options),)))

    assert (found.wants_nsid, found.has_options) == (wants, bool(options))


@pytest.mark.parametrize("octets", [b"", b"\0", header()[:11]])
def test_what_has_no_header_gets_silence(octets: bytes) -> None:
    """There is not even an id to answer with."""
    error = refusal(octets)

    assert (error.rcode, error.query, error.reason) == (None, None, "short")


@pytest.mark.parametrize(
    "octets", [query(flags=QR), header(QR), header(QR | 0x7800, (9, 9, 9, 9)), reply(query(), [ADDRESS])]
)
def test_a_response_gets_silence(octets: bytes) -> None:
    """Answering it could start a loop."""
    error = refusal(octets)

    assert (error.rcode, error.query, error.reason) == (None, None, "response")


@pytest.mark.parametrize("opcode", [n for n in range(16) if n != Opcode.QUERY])
@pytest.mark.parametrize("body", [question(), question() + b"junk", b"", b"\xff", NAME[:5]])
def test_another_opcode_is_not_implemented(opcode: int, body: bytes) -> None:
    """Even where the rest can not be read: it may well mean something in that opcode."""
    error = refusal(header(RD | opcode << 11) + body)

    assert (error.rcode, error.reason) == (Rcode.NOTIMP, "opcode")
    assert error.query is not None
    assert error.query.opcode == opcode
    assert error.query.question == (question() if body.startswith(question()) else b"")


# Each with the reason it stands for; the question is whole, so the FORMERR repeats it.
FORMERR_WITH_QUESTION = {
    "trailing octets": query() + b"\0",
    "a record announced and missing": header(counts=(1, 0, 0, 1)) + question(),
    "two OPTs": query(additional=(opt(), opt())),
    "an OPT not at the root": query(additional=(opt(owner=NAME),)),
    "an OPT owned by a pointer to the root": query(additional=(opt(owner=b"\xc0\x1c"),)),
    "an OPT in the answer section": header(counts=(1, 1, 0, 0)) + question() + opt(),
    "an OPT in the authority section": header(counts=(1, 0, 1, 0)) + question() + opt(),
    "an option over the OPT's end": query(additional=(opt(b"\0\3\0\5abcd"),)),
    "half an option header": query(additional=(opt(b"\0\3\0"),)),
    "an OPT over the message's end": query(additional=(opt(option(3, b"abc")),))[:-1],
    "an answer": header(counts=(1, 1, 0, 0)) + question() + ADDRESS,
    "an authority": header(counts=(1, 0, 1, 0)) + question() + soa(),
    "an additional record that points forward": query(additional=(record(b"\xc0\xff", 1, b"1234"),)),
    "an additional record that points into the header": query(additional=(record(b"\xc0\4", 1, b"1234"),)),
    "type 0": query(rtype=0),
    "type OPT": query(rtype=41),
    "class 0": query(rclass=0),
}  # fmt: skip

FORMERR_WITHOUT_QUESTION = {
    "no question": header(counts=(0, 0, 0, 0)),
    "no question but an OPT": header(counts=(0, 0, 0, 1)) + opt(),
    "two questions": header(counts=(2, 0, 0, 0)) + question() * 2,
    "a question cut": query()[:-1],
    "a name that does not end": header() + b"\3www",
    "a name with a pointer": header() + question(b"\1a\xc0\x0c"),
    "a label of 64 octets": header() + question(b"\x40" + b"a" * 64 + b"\0"),
    "a name of 256 octets": header() + question((b"\x3f" + b"a" * 63) * 3 + b"\x3e" + b"a" * 62 + b"\0"),
}


@pytest.mark.parametrize("case", FORMERR_WITH_QUESTION)
def test_a_faulty_query_is_told_so_with_its_question(case: str) -> None:
    """FORMERR, the question repeated."""
    error = refusal(FORMERR_WITH_QUESTION[case])

    assert (error.rcode, error.reason) == (Rcode.FORMERR, "malformed")
    assert error.query is not None
    assert error.query.question == FORMERR_WITH_QUESTION[case][12 : 12 + len(question())]
    assert error.query.qname == NAME


@pytest.mark.parametrize("case", FORMERR_WITHOUT_QUESTION)
def test_a_query_without_a_readable_question_is_told_so_without_one(case: str) -> None:
    """FORMERR, id and flags all that is known."""
    error = refusal(FORMERR_WITHOUT_QUESTION[case])

    assert (error.rcode, error.reason) == (Rcode.FORMERR, "malformed")
    assert error.query is not None
    assert (error.query.id, error.query.flags, error.query.question) == (ID, RD, b"")


def test_a_fault_behind_the_opt_keeps_what_the_opt_said() -> None:
    """So that the FORMERR comes with an OPT, as RFC 6891 §6.1.1 asks for every query that had one."""
    error = refusal(query(additional=(opt(do=True, octets=4096),)) + b"junk")

    assert error.query is not None
    assert (error.query.has_opt, error.query.do, error.query.udp_octets) == (True, True, 4096)


@pytest.mark.parametrize(
    ("octets", "rcode", "reason"),
    [
        (query(rtype=252), Rcode.REFUSED, "zone transfer"),
        (query(rtype=251), Rcode.REFUSED, "zone transfer"),
        (header(counts=(1, 0, 1, 0)) + question(rtype=251) + soa(), Rcode.REFUSED, "zone transfer"),
        (query(rtype=249), Rcode.NOTIMP, "meta type"),
        (query(rtype=250), Rcode.NOTIMP, "meta type"),
        (query(rtype=253), Rcode.NOTIMP, "meta type"),
        (query(rtype=254), Rcode.NOTIMP, "meta type"),
        (query(additional=(opt(version=1),)), Rcode.BADVERS, "edns version"),
        (query(additional=(opt(version=255, do=True),)), Rcode.BADVERS, "edns version"),
    ],
)
def test_what_is_not_served_is_said_by_its_code(octets: bytes, rcode: Rcode, reason: str) -> None:
    """Zone transfers, meta-types, later versions of EDNS."""
    error = refusal(octets)

    assert (error.rcode, error.reason) == (rcode, reason)
    assert error.query is not None
    assert error.query.qname == NAME


@pytest.mark.parametrize(
    "octets",
    [
        query(rtype=255),
        query(rtype=65535),
        query(rclass=3),
        query(rclass=255),
        query("."),
        query(flags=0),
        query(flags=RD | TC | 0x0400 | 0x0080 | 0x0040 | 15),  # bits that mean nothing in a query
        query(additional=(TSIG,)),
        query(additional=(ADDRESS, opt())),
        query(additional=(opt(option(8, b"\xff\xff\xff\xff")),)),
    ],
)
def test_what_is_unusual_but_well_formed_is_read(octets: bytes) -> None:
    """ANY, unknown types, other classes, records and options that are none of our business."""
    assert read_query(octets).question


@PROPERTY
@given(
    st.one_of(st.binary(max_size=600), mutations(valid_queries()), st.binary(max_size=80).map(lambda b: header() + b))
)
def test_any_octets_are_a_query_or_a_wire_error(octets: bytes) -> None:
    """Nothing else comes out, and what comes out can be answered."""
    found, error = outcome_of(octets)

    assert error is None or (error.rcode is None) == (error.query is None)
    if found is not None:
        assert octets[12:].startswith(found.question)
        assert found.udp_octets >= 512
        assert found.id == int.from_bytes(octets[:2], "big")


# What dnspython and we see differently, and why ours is right here. Everything else must agree.
def _we_may_accept(octets: bytes, found: Query) -> bool:
    """Where dnspython refuses what we read."""
    arcount = octets[10] << 8 | octets[11]
    return (
        # It reads the RDATA of records that a query has no use for, and wants the key of a TSIG; we step over both.
        arcount > found.has_opt
        # It reads options that we do not understand and so ignore (RFC 6891 §6.1.2).
        or found.has_options
    )


def _we_may_refuse(octets: bytes) -> bool:
    """Where dnspython reads what we answer FORMERR."""
    qdcount, ancount, nscount = (octets[i] << 8 | octets[i + 1] for i in (4, 6, 8))
    if qdcount != 1 or ancount or nscount:
        return True  # RFC 9619 §4; and a standard query holds a question only (RFC 1034 §3.7.1)
    i = 12
    while 0 < octets[i] < 64:
        i += octets[i] + 1
    if octets[i]:
        return True  # a pointer in the only question, to octets of the header that happen to look like a name
    qtype, qclass = octets[i + 1] << 8 | octets[i + 2], octets[i + 3] << 8 | octets[i + 4]
    if qtype in (0, 41) or not qclass:
        return True  # reserved (RFC 6895 §3.1, §3.2), or never asked for
    # The owner of an OPT is the octet 0 (RFC 6891 §6.1.2), not a pointer to one; and no owner stands in the header.
    return b"\xc0" in octets[i + 5 :]


@settings(deadline=None, max_examples=600)
@given(mutations(valid_queries()))
@example(query(rtype=65))
@example(query(additional=(opt(version=1),)))
def test_dnspython_reads_the_same(octets: bytes) -> None:
    """Accepted and refused alike, field by field, but for the differences argued above."""
    assume(len(octets) >= 12 and not octets[2] & 0xF8)
    theirs = None
    with contextlib.suppress(Exception):  # it refuses by many kinds of error
        theirs = dns.message.from_wire(octets)
    ours, error = outcome_of(octets)
    rcode = error.rcode if error is not None else None
    assert ours is not None
    if rcode is Rcode.FORMERR:
        assert theirs is None or _we_may_refuse(octets)
        return
    if theirs is None:
        assert _we_may_accept(octets, ours)
        return
    asked = theirs.question[0]
    assert (ours.id, ours.flags) == (theirs.id, theirs.flags)
    assert ours.question[:-4] == asked.name.to_wire()
    assert (ours.qtype, ours.qclass) == (asked.rdtype, asked.rdclass)
    assert ours.has_opt == (theirs.edns >= 0)
    assert (rcode is Rcode.BADVERS) == (theirs.edns > 0)
    if ours.has_opt:
        assert ours.udp_octets == max(512, theirs.payload)
        assert ours.do == bool(theirs.ednsflags & dns.flags.DO)
        assert ours.wants_nsid == any(o.otype == 3 for o in theirs.options)
        assert ours.has_options == bool(theirs.options)


# ---- the query that goes upstream -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cd", [False, True])
@pytest.mark.parametrize("do", [False, True])
@pytest.mark.parametrize("edns", [False, True])
def test_an_upstream_gets_a_recursive_query(edns: bool, do: bool, cd: bool) -> None:
    """RD and AD set, CD as the client's, an OPT where EDNS is spoken, in dnspython's reading."""
    octets = write_query(NAME, 65, 0xBEEF, do=do, cd=cd, edns=edns, udp_octets=1232)
    found = dns.message.from_wire(octets)

    assert (found.id, found.flags) == (0xBEEF, RD | AD | (CD if cd else 0))
    assert [(q.name.to_wire(), q.rdtype, q.rdclass) for q in found.question] == [(NAME, 65, 1)]
    assert (found.edns, found.payload) == ((0, 1232) if edns else (-1, 0))
    assert bool(found.ednsflags & dns.flags.DO) == (edns and do)
    assert read_query(octets).qtype == 65


# ---- replies of upstreams -------------------------------------------------------------------------------------------

ASKED = write_query(NAME, 1, ID, do=False, cd=False, edns=True, udp_octets=1232)


def taken(*answers: bytes, asked: bytes = ASKED, **rest: object) -> Answer:
    """What a reply with these answers says."""
    return read_reply(reply(asked, answers, **rest), asked).answer  # type: ignore[arg-type]


def is_refused(octets: bytes, asked: bytes = ASKED) -> str:
    """Why a message is no reply to the query."""
    with pytest.raises(WireError) as caught:
        read_reply(octets, asked)
    assert (caught.value.rcode, caught.value.query) == (None, None)
    return caught.value.reason


@pytest.mark.parametrize("qtype", [*Rtype, 0x4141, 0x5A61])
def test_a_reply_to_any_type_is_taken(qtype: int) -> None:
    """Also to those whose number looks like a letter, as that of HTTPS does."""
    if qtype == Rtype.OPT:
        return
    asked = write_query(NAME, qtype, ID, do=False, cd=False, edns=True, udp_octets=1232)
    assert read_reply(reply(asked), asked) == Reply(Answer(0, negative_ttl=0), False, False)


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", "wrong id"),
        (reply(ASKED)[:11], "wrong id"),
        (b"\0\0" + reply(ASKED)[2:], "wrong id"),
        (ASKED, "not a response"),
        (reply(ASKED, flags=QR | 4 << 11), "not a response"),
        (reply(query("other.example")[:2] + ASKED[2:]).replace(b"example", b"exbmple"), "wrong question"),
        (reply(ASKED).replace(b"\0\1\0\1", b"\0\x1c\0\1"), "wrong question"),
        (reply(ASKED).replace(b"\0\1\0\1", b"\0\1\0\3"), "wrong question"),
        (header(QR, (0, 0, 0, 0)), "wrong question"),
        (header(QR | 2, (0, 0, 0, 1)) + opt(), "wrong question"),
        (header(QR, (2, 0, 0, 0)) + question() * 2, "wrong question"),
        (reply(ASKED)[:20], "wrong question"),
        (reply(ASKED) + b"\0", "malformed"),
        (reply(ASKED, [ADDRESS])[:-1], "malformed"),
        (reply(ASKED, [record(b"\xc0\x1e", 1, b"1234")]), "malformed"),
    ],
)
def test_what_is_no_reply_to_the_query_is_refused(octets: bytes, reason: str) -> None:
    """Id, QR, opcode, and each part of the question (RFC 5452 §9.1); then the form."""
    assert is_refused(octets) == reason


def test_a_type_that_differs_only_in_a_letters_case_is_another_question() -> None:
    """Types 65 and 97 are `A` and `a` to a careless comparison."""
    asked = write_query(NAME, 97, ID, do=False, cd=False, edns=False, udp_octets=0)

    assert is_refused(reply(asked).replace(b"\0\x61\0\1", b"\0\x41\0\1"), asked) == "wrong question"


def test_letter_case_of_the_name_does_not_matter() -> None:
    """RFC 4343 §3."""
    assert read_reply(reply(ASKED, [ADDRESS]).replace(b"example", b"eXaMpLe"), ASKED).answer.counts == (1, 0, 0)


@pytest.mark.parametrize(("rcode", "is_taken"), [(1, True), (2, True), (5, True), (0, False)])
def test_a_bare_header_can_only_be_an_error(rcode: int, is_taken: bool) -> None:
    """Old servers answer like this; it never stands for data."""
    octets = header(QR | RD | rcode, (0, 0, 0, 0))
    if is_taken:
        assert read_reply(octets, ASKED) == Reply(Answer(rcode), False, False)
    else:
        assert is_refused(octets) == "wrong question"


def test_a_reply_is_taken_apart() -> None:
    """Counts, the body as it came, TTLs by place, AD, OPT and EDE."""
    errors = option(15, b"\0\3stale\0"), option(15, b"\0\x16"), option(10, b"12345678"), option(15, b"\0")
    records = [ADDRESS, ADDRESS], [soa(ttl=7)], [record("ns.example.org", 1, b"1234", ttl=9), opt(*errors)]
    found = read_reply(reply(ASKED, *records, flags=QR | RD | AD), ASKED)

    assert (found.truncated, found.has_opt) == (False, True)
    answer = found.answer
    assert (answer.rcode, answer.counts, answer.authentic) == (0, (2, 1, 1), True)
    assert answer.body == b"".join([*records[0], *records[1], records[2][0]])
    assert [ttl for _, ttl in answer.ttls] == [300, 300, 7, 9]
    assert all(int.from_bytes(answer.body[at : at + 4], "big") == ttl for at, ttl in answer.ttls)
    assert answer.errors == (ExtendedError(3, "stale"), ExtendedError(22))
    assert (answer.aliases, answer.targets, answer.negative_ttl) == ((), (), None)


def test_the_opt_gives_the_rcode_its_upper_bits() -> None:
    """RFC 6891 §6.1.3."""
    assert taken(additional=[opt(rcode=1)], rcode=7).rcode == Rcode.BADCOOKIE


def test_records_behind_the_opt_are_left_out() -> None:
    """Their pointers may lead past it; what stands before is kept."""
    glue = record("ns.example.org", 1, b"1234")
    answer = taken(ADDRESS, additional=[glue, opt(), glue, TSIG])

    assert (answer.counts, answer.body) == ((1, 0, 1), ADDRESS + glue)
    assert len(answer.ttls) == 2


@pytest.mark.parametrize(
    "octets",
    [
        reply(ASKED, additional=[opt(), opt()]),
        reply(ASKED, [opt()]),
        reply(ASKED, [], [opt()]),
        reply(ASKED, additional=[opt(owner=NAME)]),
        reply(ASKED, additional=[opt(b"\0\x0f\0\6\0\3")]),
        reply(ASKED, additional=[opt(b"\0\x0f\0")]),
    ],
)
def test_a_reply_with_a_faulty_opt_is_refused(octets: bytes) -> None:
    """Two, in the wrong section, not at the root, or options that do not fit."""
    assert is_refused(octets) == "malformed"


@pytest.mark.parametrize("ttl", [0x80000000, 0xFFFFFFFF])
def test_a_ttl_with_the_highest_bit_is_zero(ttl: int) -> None:
    """RFC 2181 §8; in the octets too, which are what a client gets."""
    answer = taken(record(TO_QUESTION, 1, b"1234", ttl=ttl), record(TO_QUESTION, 1, b"1235", ttl=0x7FFFFFFF))

    assert [seconds for _, seconds in answer.ttls] == [0, 0x7FFFFFFF]
    assert [int.from_bytes(answer.body[at : at + 4], "big") for at, _ in answer.ttls] == [0, 0x7FFFFFFF]


CDN = wire("cdn.example.net")
LONG = (b"\x3f" + b"a" * 63) * 3 + b"\x2e" + b"b" * 46  # 239 octets, without an end


@pytest.mark.parametrize(
    ("answers", "targets"),
    [
        ([ADDRESS], ()),
        ([record(TO_QUESTION, 5, CDN), record(CDN, 1, b"1234")], (CDN,)),
        ([record(TO_QUESTION, 5, wire("CDN.Example.NET"))], (CDN,)),
        ([record(TO_QUESTION, 5, b"\3cdn\xc0\x10"), record(b"\xc0\x2d", 5, CDN)], (wire("cdn.example.org"), CDN)),
        ([record(wire("example.org"), 39, wire("example.net"))], (wire("example.net"),)),
        ([record(TO_QUESTION, 65, b"\0\0" + CDN)], (CDN,)),
        ([record(TO_QUESTION, 65, b"\0\1" + CDN + b"\0\1\0\3\2h2")], (CDN,)),
        ([record(TO_QUESTION, 64, b"\0\1\xc0\x10\0\1\0\3\2h2")], (wire("example.org"),)),
        ([record(TO_QUESTION, 65, b"\0\1\0")], ()),
        ([record(TO_QUESTION, 65, b"\0\0\0")], ()),
        ([record(TO_QUESTION, 5, b"\0")], (b"\0",)),
        ([record(TO_QUESTION, 12, CDN), record(TO_QUESTION, 15, b"\0\1" + CDN)], ()),
    ],
)
def test_the_names_an_answer_leads_to_are_found(answers: list[bytes], targets: tuple[bytes, ...]) -> None:
    """CNAME, DNAME, SVCB and HTTPS, in order, lower-cased, compressed or not; "." in SVCB stands for no other name."""
    answer = taken(*answers)

    assert (*answer.aliases, *answer.targets) == targets


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_aliases_stand_in_the_order_in_which_they_lead_on(order: tuple[int, ...]) -> None:
    """However the records were sorted; a CNAME that QNAME does not lead to is another target."""
    chain = [
        record(TO_QUESTION, 5, wire("b.example")),
        record("b.example", 5, wire("c.example")),
        record("aside.example", 5, wire("x.example")),
    ]

    answer = read_reply(reply(query(), [chain[n] for n in order]), query()).answer

    assert (answer.aliases, answer.targets) == ((wire("b.example"), wire("c.example")), (wire("x.example"),))


def test_aliases_that_go_round_end() -> None:
    """Each is followed once."""
    circle = [record(TO_QUESTION, 5, wire("b.example")), record("b.example", 5, TO_QUESTION)]

    answer = read_reply(reply(query(), circle), query()).answer

    assert answer.aliases == (wire("b.example"), wire("www.example.org"))


SIX = bytes.fromhex("20010db8000000000000000000000001")


@pytest.mark.parametrize(
    ("rtype", "rdata", "addresses"),
    [
        (1, b"\xc0\0\2\1", (b"\xc0\0\2\1",)),
        (1, b"\xc0\0\2", ()),
        (28, SIX, (SIX,)),
        (28, SIX[:15], ()),
        (65, b"\0\1\0\0\4\0\x08\xc0\0\2\1\xc0\0\2\2", (b"\xc0\0\2\1", b"\xc0\0\2\2")),
        (64, b"\0\1\0\0\1\0\3\2h2\0\6\0\x10" + SIX, (SIX,)),
        (65, b"\0\1\0\0\4\0\x09\xc0\0\2\1", ()),
        (65, b"\0\1\0\0\4\0\6\xc0\0\2\1\xc0\0", (b"\xc0\0\2\1",)),
        (65, b"\0\0\0", ()),
        (16, b"\4\xc0\0\2\1", ()),
    ],
)
def test_the_addresses_of_an_answer_are_found(rtype: int, rdata: bytes, addresses: tuple[bytes, ...]) -> None:
    """A and AAAA of any owner, and the address hints of SVCB and HTTPS (RFC 9460 §7.3)."""
    octets = reply(query(), [record(TO_QUESTION, rtype, rdata)], [record("a.example", rtype, rdata)])

    assert read_reply(octets, query()).answer.addresses == addresses


def test_only_the_answer_section_leads_anywhere() -> None:
    """What else a server sends along was not asked for."""
    alias = record(TO_QUESTION, 5, CDN)

    assert taken(ADDRESS, authority=[alias], additional=[alias]).aliases == ()


END = 12 + len(question())  # where the first answer begins


@pytest.mark.parametrize(
    "octets",
    [
        record(TO_QUESTION, 5, b""),
        record(TO_QUESTION, 5, b"\3cdn"),
        record(TO_QUESTION, 5, b"\xc0"),
        record(TO_QUESTION, 5, (0xC000 + END + 12).to_bytes(2, "big")),  # to itself
        record(TO_QUESTION, 5, (0xC000 + END + 14).to_bytes(2, "big") + b"\1a\0"),  # forward
        record(TO_QUESTION, 5, b"\1a" + (0xC000 + END + 12).to_bytes(2, "big")),  # into its own labels
        record(TO_QUESTION, 5, b"\xc0\2"),  # into the header
        record(TO_QUESTION, 5, LONG + TO_QUESTION),  # 239 and 17 octets make 256
        record(TO_QUESTION, 65, b"\0"),
        record(TO_QUESTION, 65, b"\0\1"),
        record(TO_QUESTION, 65, b"\0\1\3cdn"),
        record((0xC000 + END).to_bytes(2, "big"), 1, b"1234"),
        record((0xC000 + END + 2).to_bytes(2, "big"), 1, b"1234"),
        record(b"\xc0\2", 1, b"1234"),
        record(LONG + TO_QUESTION, 1, b"1234"),
    ],
)
def test_a_reply_with_a_name_that_is_none_is_refused(octets: bytes) -> None:
    """Loops, pointers forward or into the header, names over 255 octets: as owner and in the RDATA that is followed."""
    assert is_refused(reply(ASKED, [octets])) == "malformed"


def test_an_alias_ends_where_its_rdata_ends() -> None:
    """The octets of the next record are no part of it, though they would make it a name."""
    assert is_refused(reply(ASKED, [record(TO_QUESTION, 5, b"\1"), record(b"\0", 1, b"1234")])) == "malformed"


def test_an_owner_may_be_255_octets() -> None:
    """The bound of the test above, from within."""
    assert taken(record(LONG[:-1].replace(b"\x2e", b"\x2d") + TO_QUESTION, 1, b"1234")).counts == (1, 0, 0)


NEGATIVE = [
    # RCODE, answers, authority, expected
    (3, [], [soa(60, ttl=300)], 60),
    (3, [], [soa(300, ttl=60)], 60),
    (0, [], [soa(60, ttl=300)], 60),
    (0, [record(TO_QUESTION, 5, CDN)], [soa(60)], 60),
    (3, [record(TO_QUESTION, 5, CDN)], [soa(60)], 60),
    (0, [], [], 0),
    (3, [], [record("example.org", 2, CDN)], 0),
    (0, [], [soa(60, ttl=0x80000001)], 0),
    (0, [], [record("example.org", 6, bytes(21))], 0),
    (0, [ADDRESS], [soa(60)], None),
    (0, [record(TO_QUESTION, 5, CDN), record(CDN, 1, b"1234")], [], None),
    (2, [], [soa(60)], None),
    (5, [], [], None),
]


@pytest.mark.parametrize(("rcode", "answers", "authority", "expected"), NEGATIVE)
def test_how_long_a_no_holds(rcode: int, answers: list[bytes], authority: list[bytes], expected: int | None) -> None:
    """The lesser of the SOA's TTL and MINIMUM (RFC 2308 §5); 0 without a SOA; None where the answer is no "no"."""
    assert taken(*answers, authority=authority, rcode=rcode).negative_ttl == expected


def test_any_data_answers_a_question_for_any() -> None:
    """A question for ANY is answered by whatever there is."""
    asked = write_query(NAME, 255, ID, do=False, cd=False, edns=False, udp_octets=0)

    assert taken(record(TO_QUESTION, 16, b"\1x"), asked=asked).negative_ttl is None


@pytest.mark.parametrize("cut", [0, 1, 5, 20])
def test_a_truncated_reply_says_so_wherever_it_was_cut(cut: int) -> None:
    """It is asked for again over TCP, so nothing of it is needed."""
    whole = reply(ASKED, [ADDRESS, ADDRESS], flags=QR | RD | TC)
    found = read_reply(whole[: len(whole) - cut], ASKED)

    assert found.truncated


OTHER = write_query(wire("other.example"), 28, ID, do=True, cd=True, edns=True, udp_octets=1232)


@PROPERTY
@given(
    st.one_of(
        st.binary(max_size=300), mutations(valid_replies(ASKED)), st.binary(max_size=80).map(lambda b: reply(ASKED) + b)
    ),
    st.sampled_from([ASKED, OTHER]),
)
def test_any_octets_are_a_reply_or_a_wire_error(octets: bytes, asked: bytes) -> None:
    """Nothing else comes out, and what comes out can be aged and passed on."""
    try:
        answer = read_reply(octets, asked).answer
    except WireError:
        return
    assert len(answer.ttls) == sum(answer.counts)
    assert [int.from_bytes(answer.body[at : at + 4], "big") for at, _ in answer.ttls] == [ttl for _, ttl in answer.ttls]
    assert len(age(answer.body, answer.ttls, 10)) == len(answer.body)


@settings(deadline=None, max_examples=400)
@given(mutations(valid_replies(ASKED)))
def test_dnspython_reads_the_same_in_replies(octets: bytes) -> None:
    """What it takes for a reply to the query and we refuse, or the other way round, is one of the differences named."""
    asked = dns.message.from_wire(ASKED)
    theirs = None
    with contextlib.suppress(Exception):
        theirs = dns.message.from_wire(octets, one_rr_per_rrset=True)
    if theirs is not None and not (asked.is_response(theirs) and theirs.question):
        theirs = None
    ours = None
    with contextlib.suppress(WireError):
        ours = read_reply(octets, ASKED)
    if ours is None:
        # It takes an OPT owned by a pointer to a root, options that do not fill the OPT, and owners in the header.
        assert theirs is None or theirs.edns >= 0 or b"\xc0" in octets[29:]
        return
    if theirs is None or ours.truncated:
        return  # it also reads RDATA that we pass on untouched, and a bare header is no reply to it
    sections = theirs.answer, theirs.authority, theirs.additional
    assert ours.answer.rcode == theirs.rcode()
    assert ours.answer.authentic == bool(theirs.flags & dns.flags.AD)
    assert ours.has_opt == (theirs.edns >= 0)
    assert ours.answer.counts[:2] == (len(theirs.answer), len(theirs.authority))
    assert ours.answer.counts[2] == len(theirs.additional) or ours.has_opt  # records behind the OPT are left out
    ttls = [rrset.ttl for section in sections for rrset in section]
    assert [ttl for _, ttl in ours.answer.ttls] == ttls[: sum(ours.answer.counts)]
    if all(rrset.rdclass == 1 for rrset in theirs.answer):  # of other classes it reads no SVCB
        aliases = [(rrset.rdtype, rrset[0]) for rrset in theirs.answer if rrset.rdtype in (5, 39, 64, 65)]
        targets = [(rtype, rdata.target.to_wire().lower()) for rtype, rdata in aliases]
        found = sorted((*ours.answer.aliases, *ours.answer.targets))
        assert found == sorted(name for rtype, name in targets if rtype in (5, 39) or name != b"\0")


# ---- the corpus -----------------------------------------------------------------------------------------------------

FILES = sorted(CORPUS.glob("*.bin"))


def test_the_corpus_is_there() -> None:
    """The test below can fail."""
    assert len(FILES) >= 20


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_malformed_message_ends_as_its_name_says(file: Path) -> None:
    """A query's file name ends in the RCODE or in silence; that of a reply to `a www.example.org` ends in ignored."""
    outcome = file.stem.rpartition("-")[2]
    octets = file.read_bytes()
    if outcome == "ignored":
        is_refused(octets, query(message_id=ID))
        return
    error = refusal(octets)

    assert (error.rcode.name.lower() if error.rcode is not None else "silence") == outcome


def test_the_builders_agree_with_dnspython() -> None:
    """The messages of these tests are right where they mean to be."""
    assert query("www.example.org", 1, flags=RD, additional=(opt(octets=1232),)) == ask()
    for octets in [*valid_queries(), *valid_replies(query())[:-1]]:
        assert dns.message.from_wire(octets).id == ID
    (address,) = dns.message.from_wire(reply(query(), [ADDRESS])).answer
    assert address.to_text() == "www.example.org. 300 IN A 192.0.2.1"
    assert dns.rdatatype.from_text("HTTPS") == Rtype.HTTPS
