"""RFC 2308, Negative caching: how a "no" is told, and for how long."""

import dns.message
import pytest

from resolver.engine.cache import Cache, CacheTerms
from resolver.wire.codes import Rcode
from resolver.wire.compose import negative_answer, write_reply
from resolver.wire.message import read_query, read_reply
from tests.support.build import TO_QUESTION, query, record, reply, soa, wire

ASKED = query()
ALIAS = record(TO_QUESTION, 5, wire("cdn.example.net"))


@pytest.mark.parametrize("rcode", [Rcode.NXDOMAIN, Rcode.NOERROR])
def test_our_own_no_carries_the_soa(rcode: Rcode) -> None:
    """RFC 2308 §3: a server that denies must add the zone's SOA to the authority section, or it can not be cached."""
    found = dns.message.from_wire(write_reply(read_query(ASKED), negative_answer(rcode, 4, 60, 1), over_udp=True))

    (zone,) = found.authority
    assert zone.name.to_text() == "example.org."
    assert zone.ttl == 60


@pytest.mark.parametrize(("minimum", "ttl", "expected"), [(60, 300, 60), (300, 60, 60), (0, 60, 0)])
@pytest.mark.parametrize("rcode", [Rcode.NXDOMAIN, Rcode.NOERROR])
def test_a_no_holds_for_the_lesser_of_minimum_and_ttl(rcode: Rcode, minimum: int, ttl: int, expected: int) -> None:
    """RFC 2308 §5: the TTL of a negative answer is the minimum of the SOA's MINIMUM field and its own TTL."""
    answer = read_reply(reply(ASKED, authority=[soa(minimum, ttl=ttl)], rcode=rcode), ASKED).answer

    assert answer.negative_ttl == expected
    entry = Cache(CacheTerms()).put(b"key", answer, 1000.0)
    assert entry.expires - entry.stored == expected


def test_no_data_is_told_by_the_answer_section() -> None:
    """RFC 2308 §2.2: NODATA is NOERROR without an answer of the type asked for, be it at the end of a chain."""
    assert read_reply(reply(ASKED, [], [soa(60)]), ASKED).answer.negative_ttl == 60
    assert read_reply(reply(ASKED, [ALIAS], [soa(60)]), ASKED).answer.negative_ttl == 60
    assert read_reply(reply(ASKED, [record(TO_QUESTION, 1, b"1234")], [soa(60)]), ASKED).answer.negative_ttl is None


def test_a_name_error_may_come_with_an_alias() -> None:
    """RFC 2308 §2.1: NXDOMAIN with a CNAME denies the name at the end of the chain."""
    assert read_reply(reply(ASKED, [ALIAS], [soa(60)], rcode=3), ASKED).answer.negative_ttl == 60


@pytest.mark.parametrize("rcode", [Rcode.NXDOMAIN, Rcode.NOERROR])
def test_a_no_without_soa_is_not_kept(rcode: Rcode) -> None:
    """RFC 2308 §5: negative responses without SOA records should not be cached, as nothing would stop them to loop."""
    cache = Cache(CacheTerms())
    cache.put(b"key", read_reply(reply(ASKED, rcode=rcode), ASKED).answer, 1000.0)

    assert cache.get(b"key", 1000.0) is None


def test_a_no_is_kept_for_no_longer_than_the_limit() -> None:
    """RFC 2308 §5: an upper limit may be set, one to three hours recommended."""
    answer = read_reply(reply(ASKED, authority=[soa(999999, ttl=999999)], rcode=3), ASKED).answer
    entry = Cache(CacheTerms()).put(b"key", answer, 1000.0)

    assert 3600 <= entry.expires - entry.stored <= 3 * 3600
