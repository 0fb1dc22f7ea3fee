"""Replies in words; that they are the engine's is held where explanations are compared with the pipeline."""

from ipaddress import ip_address

import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.policy.reply import Reply, own_reply, rdata_text
from resolver.wire import name as names
from resolver.wire.codes import Ede, Rcode, Rtype


@pytest.mark.parametrize(
    ("rtype", "rdata", "text"),
    [
        (Rtype.A, ip_address("192.0.2.1").packed, "192.0.2.1"),
        (Rtype.AAAA, ip_address("2001:db8::1").packed, "2001:db8::1"),
        (Rtype.CNAME, names.from_text("walled.example"), "walled.example"),
        (Rtype.TXT, b'\2hi\4a"\\\xff', r'"hi" "a\034\092\255"'),
        (Rtype.TXT, b"\3hi", r"\# 3 036869"),
        (Rtype.MX, b"\0\1\0", r"\# 3 000100"),
        (Rtype.A, b"\1\2", r"\# 2 0102"),
        (Rtype.TXT, b"", r"\# 0"),
    ],
)
def test_rdata_is_told_for_people(rtype: int, rdata: bytes, text: str) -> None:
    """Addresses and names as they are written, all else in the form for unknown types."""
    assert rdata_text(rtype, rdata) == text


RTYPES = st.sampled_from([1, 16, 28, 257]) | st.integers(0, 65535).filter(lambda rtype: rtype not in (2, 5, 12, 39))


@given(RTYPES, st.binary(max_size=40))
def test_any_rdata_is_told_so_that_others_can_read_it(rtype: int, rdata: bytes) -> None:
    """What dnspython makes of the text has the same octets (RFC 3597 §5)."""
    text = rdata_text(rtype, rdata)

    if text.startswith("\\#"):
        assert dns.rdata.from_text("IN", 65280, text).to_wire() == rdata
    elif rtype == Rtype.TXT:
        assert dns.rdata.from_text("IN", "TXT", text).to_wire() == rdata
    else:
        assert ip_address(text).packed == rdata


def test_what_the_server_says_of_its_own_has_no_ttl() -> None:
    """With an Extended DNS Error or without."""
    assert own_reply(Rcode.NXDOMAIN) == Reply("NXDOMAIN", None, "", "", (), None)
    assert own_reply(Rcode.REFUSED, Ede.PROHIBITED, "no") == Reply("REFUSED", 18, "Prohibited", "no", (), None)
