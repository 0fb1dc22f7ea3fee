"""RFC 8767, Serving stale data: what may be said after its time, and how."""

from resolver.engine.cache import Cache, CacheTerms
from resolver.wire.message import read_reply
from tests.support.build import TO_QUESTION, query, record, reply

ASKED = query()
ANSWER = read_reply(reply(ASKED, [record(TO_QUESTION, 1, b"1234", ttl=60)]), ASKED).answer


def test_stale_data_has_a_short_ttl() -> None:
    """RFC 8767 §4: the TTL of expired records in a response is above 0, 30 seconds recommended."""
    cache = Cache(CacheTerms())
    stale = cache.stale(cache.put(b"key", ANSWER, 1000.0))

    assert [ttl for _, ttl in stale.ttls] == [30]
    assert [int.from_bytes(stale.body[at : at + 4], "big") for at, _ in stale.ttls] == [30]


def test_stale_data_is_kept_for_a_bounded_time() -> None:
    """RFC 8767 §5: a maximum stale timer bounds how long past its TTL data is kept, one to three days suggested."""
    terms = CacheTerms()
    cache = Cache(terms)
    cache.put(b"key", ANSWER, 1000.0)

    assert 86400 <= terms.max_stale <= 3 * 86400
    assert cache.get(b"key", 1059.0 + terms.max_stale) is not None
    assert cache.get(b"key", 1061.0 + terms.max_stale) is None


def test_a_ttl_with_the_highest_bit_counts_as_zero() -> None:
    """RFC 2181 §8 holds here: a TTL with the most significant bit set is zero, so that nothing lives for decades."""
    answer = read_reply(reply(ASKED, [record(TO_QUESTION, 1, b"1234", ttl=0x80000000)]), ASKED).answer

    assert Cache(CacheTerms()).put(b"key", answer, 1000.0).expires == 1000.0
