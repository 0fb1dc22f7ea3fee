"""Replies as octets, as dnspython and dnslib read them."""

import dns.edns
import dns.flags
import dns.message
import dns.rdata
import dnslib
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resolver.wire.codes import Ede, Rclass, Rcode, Rtype
from resolver.wire.compose import (
    LOCAL_TTL,
    UDP_OCTETS,
    error_answer,
    negative_answer,
    rdata,
    records_answer,
    write_reply,
)
from resolver.wire.message import Answer, ExtendedError, Query, WireError, read_query, read_reply
from tests.support.build import AD, CD, ID, QR, RD, TC, header, opt, option, query, question, valid_queries, wire

PROPERTY = settings(deadline=None, max_examples=200)
RA, AA = 0x0080, 0x0400
ADDRESSES = records_answer([(Rtype.A, b"\xc0\0\2\1"), (Rtype.A, b"\xc0\0\2\2")], 300)


def asked(octets: bytes) -> Query:
    """The query in a message, or what could be read of it."""
    try:
        return read_query(octets)
    except WireError as error:
        if error.query is None:
            raise
        return error.query


def answered(
    octets: bytes, answer: Answer = ADDRESSES, *, over_udp: bool = True, nsid: bytes = b""
) -> dns.message.Message:
    """The reply to a message, in dnspython's reading; dnslib reads it too."""
    written = write_reply(asked(octets), answer, over_udp=over_udp, nsid=nsid)
    assert dnslib.DNSRecord.parse(written).header.id == ID
    return dns.message.from_wire(written)


def records_of(octets: int) -> Answer:
    """An answer whose body has about so many octets."""
    return records_answer([(Rtype.TXT, rdata(Rtype.TXT, "x" * 87))] * (octets // 100), 300)


EXTENDED = [ExtendedError(Ede.BLOCKED, "order xx-2030, app chat")]


@pytest.mark.parametrize("flags", [0, RD, CD, RD | CD, RD | AD, AD, RD | TC | AA | RA | 0x0040 | 15])
def test_the_header_echoes_what_it_must(flags: int) -> None:
    """Id, RD and CD as asked; QR and RA set; AA, TC, AD, Z and the query's RCODE clear."""
    found = answered(query(flags=flags))

    assert (found.id, found.flags) == (ID, QR | RA | flags & (RD | CD))


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 6, 15])
def test_the_opcode_is_echoed(opcode: int) -> None:
    """NOTIMP speaks of the opcode that was asked for."""
    octets = header(opcode << 11) + question()
    written = write_reply(asked(octets), error_answer(Rcode.NOTIMP), over_udp=True)

    assert written[2:4] == (QR | opcode << 11 | RA | Rcode.NOTIMP).to_bytes(2, "big")


@pytest.mark.parametrize("name", ["wWw.ExAmPlE.oRg", "www.example.org", "."])
def test_the_question_is_repeated_octet_for_octet(name: str) -> None:
    """Letter case included, since some clients mix it to make forging harder."""
    octets = query(name, 65280, rclass=3)

    assert write_reply(asked(octets), ADDRESSES, over_udp=True)[12:].startswith(question(name, 65280, 3))


def test_a_query_without_a_readable_question_is_answered_without_one() -> None:
    """QDCOUNT 0 and nothing behind the header."""
    octets = header(counts=(2, 0, 0, 0)) + question() * 2
    written = write_reply(asked(octets), error_answer(Rcode.FORMERR), over_udp=True)

    assert written == header(QR | RA | RD | Rcode.FORMERR, (0, 0, 0, 0))


@pytest.mark.parametrize("octets", valid_queries())
def test_an_opt_answers_an_opt(octets: bytes) -> None:
    """One goes back exactly where one came, of version 0, with our size and the DO bit copied."""
    theirs, found = dns.message.from_wire(octets), answered(octets)

    assert found.edns == theirs.edns
    assert found.payload == (UDP_OCTETS if theirs.edns == 0 else 0)
    assert found.ednsflags & 0xFFFF == theirs.ednsflags & dns.flags.DO
    assert theirs.is_response(found)


def test_badvers_is_said_with_the_upper_bits() -> None:
    """In the OPT, whose version stays 0: the highest that is known here."""
    found = answered(query(additional=(opt(version=9),)), error_answer(Rcode.BADVERS))

    assert (found.rcode(), found.edns, found.flags & 15) == (Rcode.BADVERS, 0, 0)


@pytest.mark.parametrize(
    ("authentic", "flags", "do", "expected"),
    [
        (True, RD, False, False),
        (True, RD | AD, False, True),
        (True, RD, True, True),
        (False, RD | AD, True, False),
    ],
)
def test_ad_goes_to_those_who_can_read_it(authentic: bool, flags: int, do: bool, expected: bool) -> None:
    """RFC 6840 §5.8: asked for with AD or DO, and only where the answer is authentic."""
    answer = Answer(0, authentic=authentic)
    found = answered(query(flags=flags, additional=(opt(do=do),)), answer)

    assert bool(found.flags & dns.flags.AD) is expected


SIZES = [
    # the query's OPT, over UDP, the most octets of the reply
    (None, True, 512),
    (0, True, 512),
    (600, True, 600),
    (1232, True, 1232),
    (65535, True, 1232),
    (None, False, 65535),
    (600, False, 65535),
]


@pytest.mark.parametrize(("size", "over_udp", "limit"), SIZES)
@pytest.mark.parametrize("body", [100, 400, 500, 600, 700, 1100, 1200, 1300, 60000, 70000])
def test_a_reply_is_never_larger_than_it_may_be(size: int | None, over_udp: bool, limit: int, body: int) -> None:
    """What the client takes, at most 1232 octets; nothing but TC where it would not fit, else the whole."""
    octets = query(additional=(opt(octets=size),) if size is not None else ())
    answer = records_of(body)
    written = write_reply(asked(octets), answer, over_udp=over_udp)
    found = dns.message.from_wire(written)

    assert len(written) <= limit
    whole = len(octets) + len(answer.body)
    assert bool(found.flags & dns.flags.TC) is (whole > limit)
    assert sum(map(len, found.answer)) == (0 if whole > limit else min(1, body // 100))
    assert found.edns == (0 if size is not None else -1)


@pytest.mark.parametrize("spare", [-1, 0, 1])
def test_the_limit_is_meant_to_the_octet(spare: int) -> None:
    """A reply of exactly the size that the client takes is whole; one octet less, and it is cut."""
    answer = records_of(700)
    whole = len(query(additional=(opt(),))) + len(answer.body)
    found = answered(query(additional=(opt(octets=whole + spare),)), answer)

    assert bool(found.flags & dns.flags.TC) is (spare < 0)


@pytest.mark.parametrize(
    ("options", "nsid", "expected"),
    [
        ((option(3),), b"node-1", b"node-1"),
        ((), b"node-1", None),
        ((option(3),), b"", None),
        ((option(5),), b"n", None),
    ],
)
def test_nsid_goes_to_those_who_ask(options: tuple[bytes, ...], nsid: bytes, expected: bytes | None) -> None:
    """RFC 5001 §2.2: only where it was asked for, and only where there is one."""
    found = answered(query(additional=(opt(*options),)), nsid=nsid)

    assert [o.nsid for o in found.options if o.otype == dns.edns.OptionType.NSID] == ([expected] if expected else [])


@pytest.mark.parametrize("has_opt", [False, True])
def test_extended_errors_come_with_an_opt_or_not_at_all(has_opt: bool) -> None:
    """Code and text, each in an option of its own, in order."""
    errors = (*EXTENDED, ExtendedError(Ede.STALE_ANSWER), ExtendedError(65535, "é"))
    octets = query(additional=(opt(),) if has_opt else ())
    found = answered(octets, error_answer(Rcode.NXDOMAIN, *errors))

    assert found.rcode() == Rcode.NXDOMAIN
    assert [(o.code, o.text or "") for o in found.options if isinstance(o, dns.edns.EDEOption)] == (
        [(e.code, e.text) for e in errors] if has_opt else []
    )


@PROPERTY
@given(st.text(max_size=300))
@example("x" + "é" * 100)
@example("€" * 100)
@example("x" * 200)
def test_extra_text_is_cut_between_characters(text: str) -> None:
    """At most 160 octets of UTF-8, a beginning of what was to be said, and what is short comes whole."""
    found = answered(query(additional=(opt(),)), error_answer(Rcode.REFUSED, ExtendedError(15, text)))
    said = found.options[0].text or ""  # type: ignore[attr-defined]

    assert len(said.encode()) <= 160
    assert text.rstrip("\0").startswith(said.rstrip("\0"))
    assert len(said) == len(text) or len(said.encode()) + 4 > 160 or "\0" in text


def test_more_extended_errors_than_fit_are_left_out() -> None:
    """An upstream may send thousands; the reply is written all the same, within its size."""
    many = error_answer(Rcode.SERVFAIL, *[ExtendedError(23, "é" * 80)] * 1000)
    for over_udp, limit in ((True, 512), (False, 65535)):
        octets = query(additional=(opt(octets=512),))
        written = write_reply(asked(octets), many, over_udp=over_udp)

        assert limit - 200 < len(written) <= limit
        assert dns.message.from_wire(written).rcode() == Rcode.SERVFAIL


@pytest.mark.parametrize("name", ["www.example.org", ".".join(["a" * 49] * 5)])
def test_an_identity_that_does_not_fit_is_left_out(name: str) -> None:
    """The OPT itself is not."""
    octets = query(name, additional=(opt(option(3), octets=512),))
    found = answered(octets, Answer(0), nsid=b"n" * 500)

    assert (found.edns, len(found.options), found.flags & dns.flags.TC) == (0, 0, 0)


@PROPERTY
@given(
    st.sampled_from(valid_queries()),
    st.integers(0, 1300).map(records_of) | st.sampled_from([*Rcode]).map(error_answer),
    st.lists(st.builds(ExtendedError, st.integers(0, 65535), st.text(max_size=200)), max_size=6),
    st.binary(max_size=300),
    st.booleans(),
)
def test_any_reply_can_be_read(
    octets: bytes, answer: Answer, errors: list[ExtendedError], nsid: bytes, over_udp: bool
) -> None:
    """By dnspython, by dnslib and by ourselves, whatever it says and whoever asked."""
    said = Answer(answer.rcode, answer.counts, answer.body, answer.ttls, errors=tuple(errors))
    found = answered(octets, said, over_udp=over_udp, nsid=nsid)
    wanted = asked(octets)
    written = write_reply(wanted, said, over_udp=over_udp, nsid=nsid)

    assert len(written) <= (min(wanted.udp_octets, UDP_OCTETS) if over_udp else 65535)
    assert found.rcode() == (said.rcode if wanted.has_opt else said.rcode & 15)
    lowered = octets[:12] + wanted.qname + octets[12 + len(wanted.qname) :]
    ours = read_reply(written, lowered)
    assert ours.has_opt == wanted.has_opt
    assert ours.truncated or (ours.answer.body, ours.answer.counts) == (said.body, said.counts)
    assert wanted.has_opt or not ours.answer.errors


# ---- answers of our own ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rtype", "text", "printed"),
    [
        (Rtype.A, "192.0.2.1", "192.0.2.1"),
        (Rtype.AAAA, "2001:db8::1", "2001:db8::1"),
        (Rtype.PTR, "localhost", "localhost."),
        (Rtype.NS, "home.arpa", "home.arpa."),
        (Rtype.TXT, "node one", '"node one"'),
        (Rtype.SOA, "home.arpa", "home.arpa. nobody.invalid. 1 3600 1200 604800 10800"),
    ],
)
def test_rdata_is_what_dnspython_prints(rtype: Rtype, text: str, printed: str) -> None:
    """The few types that are made here."""
    octets = rdata(rtype, text)

    assert dns.rdata.from_wire(1, rtype, octets, 0, len(octets)).to_text() == printed


def test_records_are_owned_by_the_question() -> None:
    """One RR per entry, of the class and TTL given, and their places are told."""
    answer = records_answer([(Rtype.HINFO, b"\1a\1b"), (Rtype.TXT, b"\1x")], 77, rclass=Rclass.CH)
    found = answered(query("WWW.example.org", 255, rclass=3), answer)

    assert [(r.name.to_text(), r.rdtype, r.rdclass, r.ttl) for r in found.answer] == [
        ("WWW.example.org.", Rtype.HINFO, 3, 77),
        ("WWW.example.org.", Rtype.TXT, 3, 77),
    ]
    assert [int.from_bytes(answer.body[at : at + 4], "big") for at, _ in answer.ttls] == [77, 77]


@pytest.mark.parametrize("rcode", [Rcode.NXDOMAIN, Rcode.NOERROR])
@pytest.mark.parametrize(("name", "apex"), [("a.b.example.org", 0), ("a.b.example.org", 4), ("a.b.example.org", 12)])
def test_a_no_comes_with_the_zones_soa(rcode: Rcode, name: str, apex: int) -> None:
    """Owned by the zone's name, which stands in the question, so that the "no" can be cached (RFC 2308 §3)."""
    answer = negative_answer(rcode, apex, 60, 2**32 + 5)
    found = answered(query(name), answer)
    (soa,) = found.authority

    zone = wire(name)[apex:]
    assert (found.rcode(), found.answer, found.additional) == (rcode, [], [])
    assert (soa.name.to_wire(), soa.ttl, soa[0].minimum, soa[0].serial) == (zone, 60, 60, 5)
    assert (soa[0].mname.to_wire(), soa[0].rname.to_text()) == (zone, "nobody.invalid.")
    assert answer.negative_ttl == 60
    assert int.from_bytes(answer.body[answer.ttls[0][0] :][:4], "big") == 60
    assert LOCAL_TTL == 10800


def test_an_error_says_only_that_there_is_none() -> None:
    """RCODE and extended errors; no records."""
    assert error_answer(Rcode.REFUSED, *EXTENDED) == Answer(5, errors=tuple(EXTENDED))


def with_option(code: int, octets: bytes = b"") -> bytes:
    """A query for www.example.org whose OPT holds one option."""
    message = dns.message.make_query("www.example.org", "A", use_edns=0)
    message.use_edns(0, options=[dns.edns.GenericOption(code, octets)])
    return message.to_wire()


@given(st.integers(0, 1200), st.integers(0, 300))
def test_a_padded_query_gets_a_padded_reply_where_that_hides_something(octets: int, padding: int) -> None:
    """A multiple of 468 octets over encrypted transports, however long the answer; elsewhere no octet of padding."""
    query = read_query(with_option(12, bytes(padding)))
    answer = Answer(0, (1, 0, 0), b"\xc0\x0c\0\x0a\0\1\0\0\0\0" + octets.to_bytes(2, "big") + bytes(octets))
    reply = write_reply(query, answer, over_udp=False, encrypted=True)
    assert len(reply) % 468 == 0
    plain = write_reply(query, answer, over_udp=False)
    assert reply.startswith(plain[:-2]) or len(plain) % 468 == 0
    (option,) = dns.message.from_wire(reply, ignore_trailing=False).options
    assert (option.otype, set(option.to_wire() or b"")) in ((12, {0}), (12, set()))
    assert dns.message.from_wire(plain).options == ()


def test_padding_never_passes_the_largest_message() -> None:
    """What is left up to 65,535 octets is filled; where no option fits, there is none."""
    query = read_query(with_option(12))
    for body in range(65_535 - 12 - len(query.question) - 11 - 8, 65_535 - 12 - len(query.question) - 11 + 1):
        reply = write_reply(query, Answer(0, (0, 0, 0), bytes(body)), over_udp=False, encrypted=True)
        assert len(reply) <= 65_535
        assert not reply[2] & 2


@pytest.mark.parametrize(
    ("seconds", "asked", "expected"),
    [(30.0, True, 300), (0.1, True, 1), (7200.0, True, 65535), (30.0, False, None), (None, True, None)],
)
def test_who_asks_how_long_a_connection_may_be_idle_is_told(
    seconds: float | None, asked: bool, expected: int | None
) -> None:
    """In tenths of a second, where the transport has something to say about it (RFC 7828 §3.1)."""
    query = read_query(with_option(11) if asked else with_option(65001))
    reply = dns.message.from_wire(write_reply(query, Answer(0), over_udp=False, keepalive=seconds))
    told = [int.from_bytes(option.to_wire() or b"", "big") for option in reply.options if option.otype == 11]
    assert told == ([] if expected is None else [expected])
