"""RFC 6891, Extension mechanisms for DNS (EDNS(0))."""

import dns.message
import pytest

from resolver.wire.codes import Rcode
from resolver.wire.compose import error_answer, write_reply
from resolver.wire.message import Query, WireError, read_query
from tests.support.build import header, opt, option, query, question, wire


def outcome_of(octets: bytes) -> tuple[Rcode | None, Query]:
    """RCODE of the refusal or None, and the query."""
    try:
        return None, read_query(octets)
    except WireError as error:
        if error.query is None:
            raise
        return error.rcode, error.query


@pytest.mark.parametrize(
    ("octets", "has_opt"),
    [
        (query(), False),
        (query(additional=(opt(),)), True),
        (query(additional=(opt(), opt())), True),
        (query(additional=(opt(version=1),)), True),
        (query(rtype=252, additional=(opt(),)), True),
        (query(flags=2 << 11, additional=(opt(),)), True),
    ],
)
def test_an_opt_is_answered_by_an_opt(octets: bytes, has_opt: bool) -> None:
    """RFC 6891 §6.1.1: an OPT must be in the response to a request that had one, and only then."""
    rcode, asked = outcome_of(octets)
    written = write_reply(asked, error_answer(rcode or 0), over_udp=True)

    assert (dns.message.from_wire(written).edns >= 0) is has_opt


def test_two_opts_are_a_format_error() -> None:
    """RFC 6891 §6.1.1: a query with more than one OPT must be answered FORMERR."""
    assert outcome_of(query(additional=(opt(), opt())))[0] is Rcode.FORMERR


def test_the_place_of_the_opt_among_additional_records_is_free() -> None:
    """RFC 6891 §6.1.1: the OPT may be anywhere in the additional section."""
    other = query("a.example")[12:] + bytes(6)
    for place in range(3):
        records = [other, other]
        records.insert(place, opt(octets=999))
        assert outcome_of(query(additional=tuple(records)))[1].udp_octets == 999


@pytest.mark.parametrize("counts", [(1, 1, 0, 0), (1, 0, 1, 0)])
def test_an_opt_elsewhere_is_a_format_error(counts: tuple[int, int, int, int]) -> None:
    """RFC 6891 §6.1.1: it is in the additional section that an OPT may be."""
    assert outcome_of(header(counts=counts) + question() + opt())[0] is Rcode.FORMERR


def test_an_opt_is_owned_by_the_root() -> None:
    """RFC 6891 §6.1.2: NAME must be 0."""
    assert outcome_of(query(additional=(opt(owner=wire("a")),)))[0] is Rcode.FORMERR


@pytest.mark.parametrize("code", [0, 1, 4, 8, 14, 65001, 65535])
def test_unknown_options_are_ignored(code: int) -> None:
    """RFC 6891 §6.1.2: option codes that are not understood must be ignored."""
    rcode, asked = outcome_of(query(additional=(opt(option(code, b"whatever")),)))

    assert (rcode, asked.has_opt) == (None, True)


@pytest.mark.parametrize("version", [1, 2, 255])
def test_a_later_version_is_answered_badvers(version: int) -> None:
    """RFC 6891 §6.1.3: a version that is not implemented is answered BADVERS, with the highest one that is."""
    rcode, asked = outcome_of(query(additional=(opt(version=version),)))
    found = dns.message.from_wire(write_reply(asked, error_answer(rcode or 0), over_udp=True))

    assert (rcode, found.rcode(), found.edns) == (Rcode.BADVERS, Rcode.BADVERS, 0)


def test_reserved_flags_are_not_echoed() -> None:
    """RFC 6891 §6.1.4: the Z bits are set to zero by senders and ignored by receivers."""
    octets = bytearray(query(additional=(opt(do=True),)))
    octets[-4:-2] = b"\xff\xff"
    written = write_reply(outcome_of(bytes(octets))[1], error_answer(0), over_udp=True)

    assert dns.message.from_wire(written).ednsflags == 0x8000


@pytest.mark.parametrize("size", [0, 1, 511])
def test_a_size_below_512_counts_as_512(size: int) -> None:
    """RFC 6891 §6.2.3: values lower than 512 must be treated as equal to 512."""
    assert outcome_of(query(additional=(opt(octets=size),)))[1].udp_octets == 512


@pytest.mark.parametrize("label", [b"\x41", b"\x7f", b"\x80", b"\xbf"])
def test_extended_labels_are_no_more(label: bytes) -> None:
    """RFC 6891 §5: extended label types are obsolete; a name with one can not be read."""
    assert outcome_of(header() + question(label + b"a" * 64 + b"\0"))[0] is Rcode.FORMERR
