"""RFC 9619, In the DNS, QDCOUNT is (usually) one."""

import pytest

from resolver.wire.codes import Rcode
from resolver.wire.message import WireError, read_query
from tests.support.build import header, opt, question


@pytest.mark.parametrize("count", [2, 3, 65535])
@pytest.mark.parametrize("written", [1, 2, 3])
def test_a_query_with_more_than_one_question_is_a_format_error(count: int, written: int) -> None:
    """RFC 9619 §4: a message of opcode 0 whose QDCOUNT is above 1 is answered FORMERR, whatever it holds."""
    with pytest.raises(WireError) as caught:
        read_query(header(counts=(count, 0, 0, 0)) + question() * written)

    assert caught.value.rcode is Rcode.FORMERR


def test_a_single_question_is_answered_whatever_else_is_there() -> None:
    """RFC 9619 §4: one question is what a message of opcode 0 holds."""
    assert read_query(header(counts=(1, 0, 0, 1)) + question() + opt()).question == question()


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 6])
@pytest.mark.parametrize("count", [0, 2])
def test_other_opcodes_have_rules_of_their_own(opcode: int, count: int) -> None:
    """RFC 9619 §4 speaks of opcode 0 only; what else is asked is not implemented, not malformed."""
    with pytest.raises(WireError) as caught:
        read_query(header(opcode << 11, (count, 0, 0, 0)) + question() * count)

    assert caught.value.rcode is Rcode.NOTIMP
