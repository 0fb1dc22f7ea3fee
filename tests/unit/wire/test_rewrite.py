"""Answers taken apart and put together: nothing is lost or changed but what is meant to be, as dnspython reads it."""

from typing import Any

import dns.exception
import dns.message
import dns.name
import dns.rdata
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.wire import name as names
from resolver.wire.codes import Rtype
from resolver.wire.compose import write_reply
from resolver.wire.message import Answer, ExtendedError, WireError, read_query, read_reply
from resolver.wire.rewrite import Record, answer_records, chain_records, records_to_answer, without_ech
from tests.support.build import TO_QUESTION, mutations, query, record, reply, valid_replies

QNAME = "www.example.org."
QUERY = query("www.example.org")
HOSTS = ["www.example.org.", "example.org.", "a.www.example.org.", "cdn.example.net.", ".", "MiXed.Example.ORG."]
hosts = st.sampled_from(HOSTS)

RDATA = {
    "A": st.just("192.0.2.1") | st.just("198.51.100.2"),
    "AAAA": st.just("2001:db8::1"),
    "CNAME": hosts,
    "DNAME": hosts,
    "NS": hosts,
    "PTR": hosts,
    "MX": hosts.map(lambda host: f"10 {host}"),
    "SOA": st.tuples(hosts, hosts).map(lambda pair: f"{pair[0]} {pair[1]} 1 2 3 4 5"),
    "SRV": hosts.map(lambda host: f"1 2 443 {host}"),
    "RP": st.tuples(hosts, hosts).map(" ".join),
    "AFSDB": hosts.map(lambda host: f"1 {host}"),
    "KX": hosts.map(lambda host: f"1 {host}"),
    "PX": st.tuples(hosts, hosts).map(lambda pair: f"1 {pair[0]} {pair[1]}"),
    "NAPTR": hosts.map(lambda host: f'1 2 "s" "SIP+D2U" "" {host}'),
    "TXT": st.just('"a text" "and another"'),
    "HTTPS": hosts.map(lambda host: f"1 {host} alpn=h2 ipv4hint=192.0.2.1") | hosts.map(lambda host: f"0 {host}"),
    "SVCB": hosts.map(lambda host: f"2 {host} port=853 ech=AAT+DQAA"),
    "DS": st.just("1 13 2 " + "ab" * 32),
    "CAA": st.just('0 issue "ca.example.net"'),
}
lines = st.sampled_from(sorted(RDATA)).flatmap(
    lambda rtype: st.tuples(hosts, st.integers(0, 2**31 - 1), st.just(rtype), RDATA[rtype])
)


def answered(records: list[tuple[str, int, str, str]], section: str = "answer") -> Answer:
    """What the resolver reads where dnspython wrote these records, with every name compressed that may be."""
    message = dns.message.make_response(dns.message.from_wire(QUERY))
    for owner, ttl, rtype, text in records:
        rrset = dns.rrset.from_text_list(owner, ttl, "IN", rtype, [text], origin=dns.name.root, relativize=False)
        getattr(message, section).append(rrset)
    return read_reply(message.to_wire(), QUERY).answer


def parsed(answer: Answer, over_udp: bool = False) -> dns.message.Message:
    """What dnspython makes of the reply."""
    return dns.message.from_wire(write_reply(read_query(QUERY), answer, over_udp=over_udp), one_rr_per_rrset=True)


def shown(message: dns.message.Message, section: str = "answer") -> list[tuple[str, int, str, str]]:
    return [
        (rrset.name.to_text().lower(), rrset.ttl, dns.rdatatype.to_text(rrset.rdtype), rrset[0].to_text().lower())
        for rrset in getattr(message, section)
    ]


# ---- round trips ----------------------------------------------------------------------------------------------------


@given(st.lists(lines, max_size=8))
def test_an_answer_taken_apart_and_put_together_says_the_same(records: list[tuple[str, int, str, str]]) -> None:
    """Whatever types it has and however its names were compressed."""
    answer = answered(records)

    made = records_to_answer(names.from_text("www.example.org"), answer.rcode, answer_records(QUERY[12:-4], answer))

    assert shown(parsed(made)) == shown(parsed(answer))
    assert [ttl for _, ttl in made.ttls] == [ttl for _, ttl in answer.ttls]


@given(st.lists(lines, max_size=8))
def test_records_stand_alone(records: list[tuple[str, int, str, str]]) -> None:
    """Owner and RDATA hold no pointer: dnspython reads the RDATA without the message it came from."""
    for one, (_, ttl, rtype, text) in zip(answer_records(QUERY[12:-4], answered(records)), records, strict=True):
        rdata = dns.rdata.from_wire("IN", one.rtype, one.rdata, 0, len(one.rdata))
        assert (dns.rdatatype.to_text(rdata.rdtype), one.ttl) == (rtype, ttl)
        expected = dns.rdata.from_text("IN", rtype, text, origin=dns.name.root, relativize=False)
        assert rdata.to_text().lower() == expected.to_text().lower()
        assert dns.name.from_wire(one.owner, 0)[1] == len(one.owner)


POINTER = b"\xc0\x10"  # to example.org in the question
EXAMPLE_ORG = names.from_text("example.org")


@pytest.mark.parametrize(
    ("rtype", "before", "count"),
    [
        (7, b"", 1), (8, b"", 1), (9, b"", 1), (14, b"", 2), (17, b"", 2), (18, b"\0\1", 1), (21, b"\0\1", 1),
        (24, bytes(18), 1), (26, b"\0\1", 2), (30, b"", 1), (33, bytes(6), 1), (36, b"\0\1", 1),
        (35, b"\0\1\0\2\1s\3SIP\0", 1), (64, b"\0\1", 1), (65, b"\0\1", 1),
    ],
)  # fmt: skip
def test_names_that_should_not_be_compressed_are_read_all_the_same(rtype: int, before: bytes, count: int) -> None:
    """Old software compresses names in RDATA of more types than it may (RFC 3597 §4)."""
    octets = reply(QUERY, [record(TO_QUESTION, rtype, before + POINTER * count)])

    (found,) = answer_records(QUERY[12:-4], read_reply(octets, QUERY).answer)

    assert found.rdata == before + EXAMPLE_ORG * count


@pytest.mark.parametrize("rdata", [b"", b"\0\1\0\2", b"\0\1\0\2\1s\x90", b"\0\1\0\2\1s\1u\1", b"\0\1\0\2\0\0\0\xc0"])
def test_a_naptr_that_ends_too_soon_is_left_out(rdata: bytes) -> None:
    """What can not be taken out of its message is not given."""
    octets = reply(QUERY, [record(TO_QUESTION, 35, rdata), record(TO_QUESTION, 1, b"\xc0\0\2\1")])

    assert [one.rtype for one in answer_records(QUERY[12:-4], read_reply(octets, QUERY).answer)] == [1]


@given(st.lists(lines, max_size=3), st.lists(lines, max_size=3))
def test_only_the_answer_section_is_taken(wanted: list[Any], others: list[Any]) -> None:
    """What stands in authority is somebody else's affair."""
    message = dns.message.make_response(dns.message.from_wire(QUERY))
    for section, records in ((message.answer, wanted), (message.authority, others)):
        for owner, ttl, rtype, text in records:
            section.append(
                dns.rrset.from_text_list(owner, ttl, "IN", rtype, [text], origin=dns.name.root, relativize=False)
            )
    answer = read_reply(message.to_wire(), QUERY).answer

    assert len(answer_records(QUERY[12:-4], answer)) == len(wanted)


@given(mutations(valid_replies(QUERY)))
def test_no_octets_of_an_upstream_bring_it_down(octets: bytes) -> None:
    """Whatever read_reply lets through can be taken apart, put together and rid of ECH."""
    try:
        answer = read_reply(octets, QUERY).answer
    except WireError:
        return
    records = answer_records(QUERY[12:-4], answer)

    assert len(records) <= answer.counts[0]
    for made in (records_to_answer(QUERY[12:-4], 0, records), without_ech(QUERY[12:-4], answer)):
        reply = write_reply(read_query(QUERY), made, over_udp=False)
        assert len(reply) >= len(QUERY) - 11


@given(st.binary(max_size=80), st.integers(0, 3))
def test_a_body_of_any_octets_is_read_without_an_error(body: bytes, count: int) -> None:
    """Even where nobody has checked it."""
    answer = Answer(0, (count, 0, 0), body)

    assert len(answer_records(QUERY[12:-4], answer)) <= count
    without_ech(QUERY[12:-4], answer)


def test_sections_and_errors_are_put_where_they_are_meant() -> None:
    """Counts, TTL places and Extended DNS Errors go with the records."""
    www, zone = names.from_text("www.example.org"), names.from_text("rpz.example")
    soa = zone + zone + bytes(20)

    made = records_to_answer(
        www,
        3,
        [Record(www, 5, 30, zone)],
        [Record(zone, 2, 40, www)],
        [Record(zone, 6, 50, soa)],
        (ExtendedError(15, "zone"),),
    )

    message = parsed(made)
    assert (made.counts, message.rcode(), made.errors) == ((1, 1, 1), 3, (ExtendedError(15, "zone"),))
    assert [shown(message, section)[0][:3] for section in ("answer", "authority", "additional")] == [
        ("www.example.org.", 30, "CNAME"),
        ("rpz.example.", 40, "NS"),
        ("rpz.example.", 50, "SOA"),
    ]
    for at, ttl in made.ttls:
        assert int.from_bytes(made.body[at : at + 4], "big") == ttl


def test_a_chain_leads_from_name_to_name() -> None:
    """One CNAME a link."""
    first, second, third = (names.from_text(f"{n}.example") for n in ("a", "b", "c"))

    assert chain_records(first, (second, third), 7) == [Record(first, 5, 7, second), Record(second, 5, 7, third)]
    assert chain_records(first, (), 7) == []


# ---- ECH ------------------------------------------------------------------------------------------------------------

PARAMETERS = ["alpn=h2,h3", "port=8443", "ipv4hint=192.0.2.1,192.0.2.2", "ipv6hint=2001:db8::1", "key65280=abc"]
ECH = "ech=AAT+DQAA"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["HTTPS", "SVCB"]), st.lists(st.sampled_from(PARAMETERS), unique=True), st.booleans()
        ),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_everything_but_ech_is_left_as_it_is(records: list[tuple[str, list[str], bool]], signed: bool) -> None:
    """The same records less that parameter, as dnspython reads them; signatures go only where something was changed."""
    written = [("www.example.org.", 60, "CNAME", "svc.example.net.")]
    expected = list(written)
    for n, (rtype, parameters, has_ech) in enumerate(records):
        begins = f"{n + 1} a{n}.example.net. "
        written.append(("svc.example.net.", 60, rtype, begins + " ".join([*parameters, *[ECH][: int(has_ech)]])))
        expected.append(("svc.example.net.", 60, rtype, begins + " ".join(parameters)))
    if signed:
        signature = "HTTPS 13 3 60 20300401000000 20300301000000 1 example.net. c2ln"
        written.append(("svc.example.net.", 60, "RRSIG", signature))
    answer = answered(written)

    made = without_ech(QUERY[12:-4], answer)

    if any(has_ech for _, _, has_ech in records):
        assert shown(parsed(made)) == shown(parsed(answered(expected)))
        assert not made.authentic
    else:
        assert made is answer
    assert (made.aliases, made.targets, made.addresses) == (answer.aliases, answer.targets, answer.addresses)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1 . mandatory=ech ech=AAT+DQAA", "1 ."),
        ("1 . mandatory=alpn,ech alpn=h2 ech=AAT+DQAA", '1 . mandatory="alpn" alpn="h2"'),
        ("1 . mandatory=alpn,port alpn=h2 port=1 ech=AAT+DQAA", '1 . mandatory="alpn,port" alpn="h2" port="1"'),
    ],
)
def test_a_key_that_is_gone_is_mandatory_no_longer(written: str, expected: str) -> None:
    """A record that says a key is mandatory and has it not is void (RFC 9460 §8)."""
    made = without_ech(QUERY[12:-4], answered([(QNAME, 60, "HTTPS", written)]))

    assert shown(parsed(made)) == [(QNAME, 60, "HTTPS", expected)]


def test_a_record_that_is_not_well_formed_is_left_alone() -> None:
    """It is void to clients as it is; nothing is guessed."""
    rdata = b"\0\1\0" + b"\0\5\0\4\0\2\xfe\x0d" + b"\0\1"
    answer = records_to_answer(QUERY[12:-4], 0, [Record(QUERY[12:-4], int(Rtype.HTTPS), 60, rdata)])

    assert without_ech(QUERY[12:-4], answer) is answer
