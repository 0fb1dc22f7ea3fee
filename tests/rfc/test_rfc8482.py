"""RFC 8482, Minimal-sized responses to queries that have QTYPE=ANY."""

import dns.message

from resolver.engine.special import SpecialNames
from resolver.wire.compose import write_reply
from resolver.wire.message import read_query
from tests.support.build import query


def test_any_is_answered_with_one_hinfo() -> None:
    """RFC 8482 §4.2: HINFO with the CPU field "RFC8482" and an empty OS field, and no other types."""
    asked = read_query(query("www.example.org", 255))
    answer = SpecialNames((), "node", "1", str).answer(asked)
    assert answer is not None
    found = dns.message.from_wire(write_reply(asked, answer, over_udp=True))

    (hinfo,) = found.answer
    assert hinfo.to_text() == 'www.example.org. 3600 IN HINFO "RFC8482" ""'
    assert (found.authority, found.additional, found.rcode()) == ([], [], 0)


def test_other_types_are_none_of_its_business() -> None:
    """RFC 8482 §4: it is for QTYPE ANY only."""
    assert SpecialNames((), "node", "1", str).answer(read_query(query("www.example.org", 13))) is None
