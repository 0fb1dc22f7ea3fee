"""RFC 5452, Measures against forged answers: what a reply must match."""

import pytest

from resolver.wire.codes import Rtype
from resolver.wire.message import WireError, read_reply, write_query
from tests.support.build import QR, TO_QUESTION, header, question, record, reply, wire

NAME = wire("www.example.org")
ASKED = write_query(NAME, Rtype.A, 0x1D05, do=False, cd=False, edns=True, udp_octets=1232)
FORGED = reply(ASKED, [record(TO_QUESTION, 1, b"\xc0\0\2\x66")])


def test_the_reply_itself_is_taken() -> None:
    """RFC 5452 §9.1: a reply that matches in every attribute is accepted."""
    assert read_reply(FORGED, ASKED).answer.counts == (1, 0, 0)


@pytest.mark.parametrize("bit", range(16))
def test_a_reply_must_have_the_querys_id(bit: int) -> None:
    """RFC 5452 §9.1: the query ID must match, in every bit."""
    other = (int.from_bytes(FORGED[:2], "big") ^ 1 << bit).to_bytes(2, "big")
    with pytest.raises(WireError, match="wrong id"):
        read_reply(other + FORGED[2:], ASKED)


@pytest.mark.parametrize("place", range(12, 12 + len(NAME) + 4))
@pytest.mark.parametrize("bit", range(8))
def test_a_reply_must_have_the_querys_question(place: int, bit: int) -> None:
    """RFC 5452 §9.1: name, class and type must match, and letter case of the name is all that may differ."""
    forged = bytearray(FORGED)
    forged[place] ^= 1 << bit
    is_other_case = bit == 5 and place < 12 + len(NAME) and chr(FORGED[place]).isalpha()
    if is_other_case:
        assert read_reply(bytes(forged), ASKED).answer.counts == (1, 0, 0)
    else:
        with pytest.raises(WireError, match="wrong question"):
            read_reply(bytes(forged), ASKED)


@pytest.mark.parametrize(
    "forged",
    [
        header(QR, (0, 1, 0, 0)) + record(NAME, 1, b"\xc0\0\2\x66"),
        header(QR, (2, 1, 0, 0)) + question() * 2 + record(TO_QUESTION, 1, b"\xc0\0\2\x66"),
        header(QR, (0, 0, 0, 0)),
        ASKED,
    ],
    ids=["no question", "two questions", "a bare header without an error", "the query itself"],
)
def test_a_reply_must_repeat_the_question(forged: bytes) -> None:
    """RFC 5452 §4.2: the question section of a reply equals that of the query."""
    with pytest.raises(WireError):
        read_reply(forged, ASKED)
