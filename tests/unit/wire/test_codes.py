"""The registries, held against dnspython's copy of them, and the texts of numbers."""

from enum import IntEnum

import dns.edns
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import pytest

from resolver.wire.codes import (
    Ede,
    EdnsOption,
    Opcode,
    Rclass,
    Rcode,
    Rtype,
    rcode_text,
    rtype_class,
    rtype_from_text,
    rtype_text,
)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Rtype, dns.rdatatype.RdataType),
        (Rclass, dns.rdataclass.RdataClass),
        (Rcode, dns.rcode.Rcode),
        (EdnsOption, dns.edns.OptionType),
        (Ede, dns.edns.EDECode),
    ],
)
def test_codes_are_those_of_the_registry(ours: type[IntEnum], theirs: type[IntEnum]) -> None:
    """Each name has the number that dnspython knows it by."""
    assert {code.name: code.value for code in ours} == {code.name: getattr(theirs, code.name).value for code in ours}


def test_opcodes_are_those_of_the_registry() -> None:
    """All that dnspython knows, and the two that are younger or long dead."""
    known = {opcode.name: opcode.value for opcode in Opcode}

    assert known.items() >= {opcode.name: opcode.value for opcode in dns.opcode.Opcode}.items()
    assert (known["IQUERY"], known["DSO"]) == (1, 6)


@pytest.mark.parametrize("code", Ede)
def test_every_extended_error_has_a_meaning(code: Ede) -> None:
    """The registry's name, which differs from ours in case and hyphens only."""
    assert code.meaning.upper().replace(" ", "_").removesuffix("_ERROR") == code.name.removesuffix("_ERROR")


@pytest.mark.parametrize("rtype", [*range(300), 65280, 65535])
def test_a_type_survives_its_text(rtype: int) -> None:
    """RFC 3597 §5: a type without a mnemonic is TYPE123, and read back in any case."""
    text = rtype_text(rtype)

    assert rtype_from_text(text) == rtype_from_text(text.lower()) == rtype
    assert rtype_from_text(f"TYPE{rtype}") == rtype
    assert dns.rdatatype.from_text(text) == rtype


@pytest.mark.parametrize(
    "text", ["", "TYPE", "TYPE65536", "TYPE-1", "TYPE1x", "TYPE٣", "BOGUS", "A ", "TYPE" + "9" * 5000]
)
def test_what_is_no_type_is_refused(text: str) -> None:
    """A ValueError, whatever the text."""
    with pytest.raises(ValueError, match=r"."):
        rtype_from_text(text)


def test_a_type_that_is_no_type_is_told_what_to_write() -> None:
    """The message names the mend."""
    with pytest.raises(ValueError, match=r"unknown RR type 'BOGUS'; write a mnemonic such as A or HTTPS, or TYPE65"):
        rtype_from_text("BOGUS")


@pytest.mark.parametrize(("rcode", "text"), [(0, "NOERROR"), (3, "NXDOMAIN"), (16, "BADVERS"), (11, "RCODE11")])
def test_an_rcode_has_a_text(rcode: int, text: str) -> None:
    """Its mnemonic, or its number."""
    assert rcode_text(rcode) == text


def test_type_labels_are_bounded() -> None:
    """A client that asks for all 65,536 types makes no more than a handful of metric labels."""
    labels = {rtype_class(rtype) for rtype in range(65536)}

    assert {"A", "AAAA", "HTTPS", "other"} <= labels
    assert len(labels) < 20
    assert all(rtype_class(Rtype[label]) == label for label in labels - {"other"})
