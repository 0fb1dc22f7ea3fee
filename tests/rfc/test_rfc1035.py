"""RFC 1035, Domain names: what a message looks like."""

import dns.message
import pytest

from resolver.engine.special import SpecialNames
from resolver.wire.codes import Rcode
from resolver.wire.compose import error_answer, records_answer, write_reply
from resolver.wire.message import WireError, read_query, read_reply
from resolver.wire.name import BadName, from_text
from tests.support.build import QR, RD, TC, TO_QUESTION, header, query, question, record, reply, wire

ADDRESS = record(TO_QUESTION, 1, b"\xc0\0\2\1")


def rcode_of(octets: bytes) -> Rcode | None:
    """What a client's message is answered with where it is refused."""
    with pytest.raises(WireError) as caught:
        read_query(octets)
    return caught.value.rcode


def test_labels_of_63_and_names_of_255_octets_are_the_most() -> None:
    """RFC 1035 §2.3.4: labels are 63 octets or less, names 255 octets or less."""
    longest = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0"

    assert len(read_query(query(longest)).qname) == 255
    assert rcode_of(query(longest.replace(b"\x3d", b"\x3e") + b"\0")) is Rcode.FORMERR
    assert from_text("a" * 63 + ".example")
    with pytest.raises(BadName):
        from_text("a" * 64 + ".example")


@pytest.mark.parametrize("name", ["EXAMPLE.org", "example.ORG", "eXaMpLe.oRg"])
def test_names_are_equal_whatever_the_case_and_keep_it(name: str) -> None:
    """RFC 1035 §2.3.3: comparison is case-insensitive, and the original case is kept where that is possible."""
    asked = read_query(query(name))

    assert asked.qname == wire("example.org")
    assert write_reply(asked, error_answer(0), over_udp=True)[12:25] == wire(name)


@pytest.mark.parametrize(("opcode", "rcode"), [(1, Rcode.NOTIMP), (2, Rcode.NOTIMP), (3, Rcode.NOTIMP)])
def test_other_kinds_of_query_are_not_implemented(opcode: int, rcode: Rcode) -> None:
    """RFC 1035 §4.1.1: RCODE 4 says that the server does not support the requested kind of query."""
    assert rcode_of(query(flags=opcode << 11)) is rcode


@pytest.mark.parametrize("octets", [header(), query()[:-1], query() + b"\0"])
def test_what_can_not_be_interpreted_is_a_format_error(octets: bytes) -> None:
    """RFC 1035 §4.1.1: RCODE 1 says that the server was unable to interpret the query."""
    assert rcode_of(octets) is Rcode.FORMERR


@pytest.mark.parametrize("flags", [0, RD])
def test_a_reply_echoes_id_opcode_and_rd_and_says_that_recursion_is_there(flags: int) -> None:
    """RFC 1035 §4.1.1: ID, OPCODE and RD are copied into the response; QR and RA are set."""
    found = dns.message.from_wire(
        write_reply(read_query(query(flags=flags, message_id=7)), error_answer(0), over_udp=True)
    )

    assert (found.id, found.flags) == (7, QR | 0x0080 | flags)


def test_a_pointer_leads_to_a_prior_occurrence() -> None:
    """RFC 1035 §4.1.4: a pointer stands for a prior occurrence of the same name, so none leads forward or to itself."""
    asked = query()
    end = 12 + len(question())
    for place in (end + 12, end + 14, end + 100):
        with pytest.raises(WireError):
            read_reply(reply(asked, [record(TO_QUESTION, 5, (0xC000 + place).to_bytes(2, "big") + b"\1a\0")]), asked)
    assert read_reply(reply(asked, [record(TO_QUESTION, 5, b"\xc0\x10")]), asked).answer.aliases == (
        wire("example.org"),
    )


@pytest.mark.parametrize("count", [1, 20, 40, 400])
def test_udp_messages_of_512_octets_are_the_most_without_edns(count: int) -> None:
    """RFC 1035 §4.2.1: messages over UDP are restricted to 512 octets; longer ones are truncated and TC is set."""
    answer = records_answer([(1, b"1234")] * count, 60)  # type: ignore[list-item]
    written = write_reply(read_query(query()), answer, over_udp=True)

    assert len(written) <= 512
    assert bool(int.from_bytes(written[2:4], "big") & TC) is (33 + 16 * count > 512)


@pytest.mark.parametrize("identity", ["node", "n" * 255, "n" * 300, "é" * 255])
def test_a_character_string_is_255_octets_at_most(identity: str) -> None:
    """RFC 1035 §3.3: a character-string is a length octet and that many octets; what is longer is cut."""
    asked = read_query(query("id.server", 16, rclass=3))
    answer = SpecialNames((), identity, "1", str).answer(asked)
    assert answer is not None
    (found,) = dns.message.from_wire(write_reply(asked, answer, over_udp=True)).answer

    (said,) = found[0].strings
    assert identity.startswith(said.decode())
    assert len(said) == len(identity) if len(identity) < 255 else len(said) >= 254


def test_escapes_of_master_files_are_understood() -> None:
    r"""RFC 1035 §5.1: \X is that character, \DDD the octet of that decimal value."""
    assert from_text(r"a\.b\046c\\.example") == b"\x06a.b.c\\\7example\0"


def test_responses_are_not_answered() -> None:
    """RFC 1035 §4.1.1: QR tells a response from a query, and only queries are answered, or servers could loop."""
    assert rcode_of(reply(query(), [ADDRESS])) is None
