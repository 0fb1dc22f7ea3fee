r"""Names between text and wire, with dnspython as the judge."""

import contextlib

import dns.exception
import dns.name
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.wire.name import MAX_NAME_OCTETS, BadName, from_text, is_at_or_below, labels, to_text

PROPERTY = settings(deadline=None)
LABEL = st.binary(min_size=1, max_size=63)
NAME = st.lists(LABEL, max_size=6).map(
    lambda found: b"".join(bytes((len(label),)) + label for label in found) + b"\0"
).filter(lambda name: len(name) <= MAX_NAME_OCTETS)  # fmt: skip
FEW = st.lists(st.sampled_from([b"\1a", b"\1b", b"\2ab", b"\3a\1b"]), max_size=4).map(
    lambda found: b"".join(found) + b"\0"
)


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        (".", b"\0"),
        ("example.org", b"\7example\3org\0"),
        ("example.org.", b"\7example\3org\0"),
        ("WwW.Example.ORG", b"\3www\7example\3org\0"),
        (r"a\.b.example", b"\3a.b\7example\0"),
        (r"a\046b.example", b"\3a.b\7example\0"),
        (r"\065.example", b"\1a\7example\0"),
        (r"\000\255.example", b"\2\0\xff\7example\0"),
        (r"\\.example", b"\1\\\7example\0"),
        ("_dns.resolver.arpa", b"\4_dns\10resolver\4arpa\0"),
        ("Bücher.example", b"\x0dxn--bcher-kva\7example\0"),
        ("a" * 63 + ".example", b"\x3f" + b"a" * 63 + b"\7example\0"),
        (".".join(["a" * 63] * 3 + ["b" * 61]), (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"b" * 61 + b"\0"),
    ],
)
def test_text_becomes_the_lower_cased_wire_form(text: str, wire: bytes) -> None:
    """With or without the trailing dot, escapes and international letters understood."""
    assert from_text(text) == wire


@pytest.mark.parametrize("text", ["微信.example", "例え。example", "ПОЧТА.example", "straße.example"])
def test_international_names_are_those_of_dnspython(text: str) -> None:
    """A-labels, whatever the script and the full stop."""
    assert from_text(text) == dns.name.from_text(text).to_wire()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the name is empty"),
        ("..", "empty label"),
        (".example", "empty label"),
        ("a..example", "empty label"),
        ("a" * 64 + ".example", "longer than 63 octets"),
        (".".join(["a" * 63] * 3 + ["b" * 62]), "longer than 255 octets"),
        ("a\\", "broken escape"),
        (r"a\25.example", "broken escape"),
        (r"a\256.example", "over 255"),
        ("ü" * 70 + ".example", "not an internationalised domain name"),
        ("ü..example", "empty label"),
    ],
)
def test_what_is_no_name_is_refused_with_the_reason(text: str, why: str) -> None:
    """BadName, and nothing else."""
    with pytest.raises(BadName, match=why):
        from_text(text)


@PROPERTY
@given(NAME)
def test_any_name_survives_its_text(name: bytes) -> None:
    """Whatever octets it is made of; and dnspython reads the text as the same name."""
    assert from_text(to_text(name)) == name.lower()
    assert dns.name.from_text(to_text(name)).to_wire() == name


@PROPERTY
@given(NAME)
def test_a_text_is_safe_to_print(name: bytes) -> None:
    """No space, control character, quote or escape of a terminal; a dot stands between labels only."""
    text = to_text(name)

    assert text.isascii()
    assert text.isprintable()
    assert not set(text) & set(" \"'`<>&;|$()[]{}@,")
    assert text == "." or text.count(".") == len(labels(name)) - 1
    assert text == "." or not text.endswith(".")


@PROPERTY
@given(st.text(alphabet=st.characters(codec="ascii", exclude_characters='"();@$ \t\r\n'), max_size=80))
def test_ascii_text_is_read_as_dnspython_reads_it(text: str) -> None:
    """Accepted or refused alike, and the same octets."""
    expected = None
    with contextlib.suppress(dns.exception.DNSException):
        expected = dns.name.from_text(text).to_wire().lower() if text else None
    found = None
    with contextlib.suppress(BadName):
        found = from_text(text)

    assert found == expected


@PROPERTY
@given(st.text(max_size=300))
def test_any_text_is_a_name_or_bad(text: str) -> None:
    """A well-formed wire form, or BadName."""
    with contextlib.suppress(BadName):
        name = from_text(text)
        assert len(name) <= MAX_NAME_OCTETS
        assert name == name.lower()
        assert dns.name.from_wire(name, 0)[1] == len(name)


@PROPERTY
@given(NAME)
def test_labels_are_those_of_dnspython(name: bytes) -> None:
    """Leftmost first, the root left out."""
    assert tuple(labels(name)) == dns.name.from_wire(name, 0)[0].labels[:-1]


@PROPERTY
@given(FEW, FEW)
def test_below_is_what_dnspython_calls_a_subdomain(name: bytes, ancestor: bytes) -> None:
    """On a label boundary, even where a label holds octets that look like a length."""
    expected = dns.name.from_wire(name, 0)[0].is_subdomain(dns.name.from_wire(ancestor, 0)[0])

    assert is_at_or_below(name, ancestor) is expected


@pytest.mark.parametrize("asked", ["notwechat.com", "wechat.com.example", "com", "."])
def test_a_name_that_only_looks_alike_is_not_below(asked: str) -> None:
    """wechat.com holds itself and its own."""
    assert not is_at_or_below(from_text(asked), from_text("wechat.com"))
    assert is_at_or_below(from_text("a.wechat.com"), from_text("wechat.com"))
