"""The freshness of replies, against dnspython's reading of the same octets."""

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.wire.freshness import lowest_ttl

SOA = "ns.example.org. hostmaster.example.org. 1 7200 900 1209600 300"


def reply(
    answer: list[tuple[str, int, str, str]] | None = None,
    authority: list[tuple[str, int, str, str]] | None = None,
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR,
) -> bytes:
    """A reply with records given as owner, TTL, type and text."""
    message = dns.message.make_response(dns.message.make_query("www.example.org", "A", use_edns=0))
    message.set_rcode(rcode)
    for section, records in ((message.answer, answer or []), (message.authority, authority or [])):
        section += [dns.rrset.from_text(owner, ttl, "IN", rtype, text) for owner, ttl, rtype, text in records]
    return message.to_wire()


A = ("www.example.org.", 300, "A", "192.0.2.1")
ALIAS = ("www.example.org.", 86_400, "CNAME", "web.example.org.")
DENIAL = ("example.org.", 3600, "SOA", SOA)


@pytest.mark.parametrize(
    ("octets", "seconds"),
    [
        (reply([A]), 300),
        (reply([ALIAS, ("web.example.org.", 20, "A", "192.0.2.1")]), 20),
        (reply([("web.example.org.", 0, "A", "192.0.2.1")]), 0),
        (reply([A], [("example.org.", 5, "NS", "ns.example.org.")]), 300),
        (reply([], [DENIAL]), 300),
        (reply([], [("example.org.", 60, "SOA", SOA)], dns.rcode.NXDOMAIN), 60),
        (reply([ALIAS], [DENIAL], dns.rcode.NXDOMAIN), 300),
        (reply([]), None),
        (reply([], [("example.org.", 5, "NS", "ns.example.org.")]), None),
        (reply([A], rcode=dns.rcode.SERVFAIL), None),
        (reply([A], rcode=dns.rcode.REFUSED), None),
        (b"", None),
        (reply([A])[:11], None),
        (reply([A])[:-12], None),
    ],
)
def test_a_reply_is_fresh_for_its_lowest_ttl(octets: bytes, seconds: int | None) -> None:
    """The answer section's lowest, or the denial's (RFC 8484 §5.1, RFC 2308 §5); of what is none of that, nothing."""
    assert lowest_ttl(octets) == seconds


def test_a_reply_that_was_cut_off_says_nothing() -> None:
    """What is missing may have had a lower TTL."""
    octets = bytearray(reply([A]))
    octets[2] |= 0x02
    assert lowest_ttl(bytes(octets)) is None


def test_a_ttl_with_the_first_bit_set_is_zero() -> None:
    """RFC 2181 §8."""
    octets = reply([("www.example.org.", 0x7FFF_FFFF, "A", "192.0.2.1")])
    assert lowest_ttl(octets.replace(b"\x7f\xff\xff\xff", b"\x80\0\0\1")) == 0


@given(st.lists(st.tuples(st.sampled_from(["A", "AAAA", "TXT"]), st.integers(0, 2**31 - 1)), min_size=1, max_size=8))
def test_the_lowest_is_what_dnspython_finds(records: list[tuple[str, int]]) -> None:
    """Whatever the number of records and the order of their TTLs."""
    texts = {"A": "192.0.2.1", "AAAA": "2001:db8::1", "TXT": '"text"'}
    octets = reply([(f"n{i}.example.org.", ttl, rtype, texts[rtype]) for i, (rtype, ttl) in enumerate(records)])
    assert lowest_ttl(octets) == min(rrset.ttl for rrset in dns.message.from_wire(octets).answer)


@given(st.binary(max_size=200), st.integers(0, 200), st.binary(max_size=8))
def test_any_octets_are_a_number_or_nothing(noise: bytes, at: int, patch: bytes) -> None:
    """Noise, and replies with a few octets put in another's place."""
    sound = reply([ALIAS, A], [DENIAL])
    for octets in (noise, sound[:at], sound[:at] + patch + sound[at + len(patch) :]):
        found = lowest_ttl(octets)
        assert found is None or 0 <= found < 2**31
