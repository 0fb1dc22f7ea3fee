"""YAML text to models: what is read, and how mistakes are told."""

from collections.abc import Iterator, Mapping
from enum import StrEnum

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field, StrictBool, StrictInt

from resolver.policy import source
from resolver.policy.source import Document, KeyPath, PolicyError, Problem, read, read_page, value


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Leaf(Document):
    name: str = Field(examples=["oak"])
    colour: Colour = Field(default=Colour.RED, examples=["red"])


class Tree(Document):
    id: str = Field(examples=["t1"])
    height: StrictInt = Field(default=1, ge=1, le=9, examples=[3])
    grows: StrictBool = Field(default=True, examples=[True])
    leaves: tuple[Leaf, ...] = Field(default=(), examples=[[{"name": "oak"}]])
    tags: Mapping[str, str] = Field(default_factory=dict)
    text: str = Field(default="", max_length=100)

    @classmethod
    def cross_check(cls, written: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
        if value(written, "id") == value(written, "tags", "twin"):
            yield ("tags", "twin"), "a tree is not its own twin; write another id"


def problems_of(text: str | bytes) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        read(text, "t.yaml", Tree)
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture(params=["libyaml", "pure"])
def _parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both builds of PyYAML: with the C library, and without."""
    monkeypatch.setattr(source, "_LOADER", getattr(yaml, "CSafeLoader" if request.param == "libyaml" else "SafeLoader"))


@pytest.mark.usefixtures("_parser")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id: a", {}),
        ("\ufeffid: a", {}),
        ("# comment\n---\nid: a\n", {}),
        ('{"id": "a", "height": 3}', {"height": 3}),
        ("id: a\ngrows: false\nheight: 2", {"grows": False, "height": 2}),
        (
            "id: a\nleaves:\n- name: b\n  colour: green\n- {name: c}",
            {"leaves": (Leaf(name="b", colour=Colour.GREEN), Leaf(name="c"))},
        ),
        ("id: a\ntext: >-\n  two\n  lines\n", {"text": "two lines"}),
        ("id: a\ntags: {1: 'true', on: x}", {"tags": {"1": "true", "on": "x"}}),
    ],
)
def test_a_document_is_read(text: str, expected: dict[str, object]) -> None:
    """Block style, flow style, JSON; octets or text."""
    assert read(text, "t.yaml", Tree) == Tree(id="a", **expected)  # type: ignore[arg-type]
    assert read(text.encode(), "t.yaml", Tree) == Tree(id="a", **expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "word", ["NO", "no", "on", "off", "y", "2023-10-30", "12:30:45", "0o17", "0x1F", "1_000", "<<", "="]
)
def test_yaml_1_1_surprises_are_plain_text(word: str) -> None:
    """Norway stays Norway, a day stays as it is written, and a time is no number in base 60."""
    assert read(f"id: a\ntext: {word}", "t.yaml", Tree).text == word


@pytest.mark.usefixtures("_parser")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "t.yaml:1:1: the file is empty; write id"),
        ("# nothing\n", "t.yaml:1:1: the file is empty; write id"),
        ("[id, a]", 't.yaml:1:1: this is a list; write keys, such as "id: ..."'),
        ("just words", 't.yaml:1:1: this is "just words"; write keys, such as "id: ..."'),
        ("height: 2", 't.yaml:1:1: "id" is missing; write for example id: t1'),
        ("id: a\nleaves:\n  - colour: red", 't.yaml:3:5: "name" is missing; write for example name: oak'),
        ("id: a\nhight: 2", 't.yaml:2:1: unknown key "hight"; did you mean "height"?'),
        ("id: a\nleaves: [{name: b, hue: red}]", 't.yaml:2:20: unknown key "hue"; write one of: colour, name'),
        ("id: a\nid: b", 't.yaml:2:1: "id" is written twice, first on line 1; keep one of them'),
        ("{id: a, id: b}", 't.yaml:1:9: "id" is written twice, first on line 1; keep one of them'),
        ("id: a\nheight: 2\nheight: x", 't.yaml:3:1: "height" is written twice, first on line 2; keep one of them'),
        ("id: 7", 't.yaml:1:5: 7 is not text; write "7" in quotes'),
        ("id: 1.5", 't.yaml:1:5: 1.5 is not text; write "1.5" in quotes'),
        ("id: true", 't.yaml:1:5: true is not text; write "true" in quotes'),
        ("id:", "t.yaml:1:4: this is empty; write for example t1, or delete the line"),
        ("id: [a]", "t.yaml:1:5: this is a list; write text, for example t1"),
        ("id: a\nheight: tall", 't.yaml:2:9: "tall" is not a whole number; write digits without quotes, for example 3'),
        ("id: a\nheight: 2.5", "t.yaml:2:9: 2.5 is not a whole number"),
        ("id: a\nheight: 0", "t.yaml:2:9: 0 is too small; write at least 1"),
        ("id: a\nheight: 10", "t.yaml:2:9: 10 is too large; write at most 9"),
        ("id: a\ngrows: yes", 't.yaml:2:8: "yes" is neither true nor false; write true or false, without quotes'),
        ("id: a\nleaves: b", 't.yaml:2:9: this is "b"; write a list, for example [{name: oak}]'),
        ("id: a\nleaves: [b]", 't.yaml:2:10: this is "b"; write keys and values, such as name: ...'),
        ("id: a\nleaves: [{name: b, colour: gren}]", 't.yaml:2:28: "gren" is unknown here; did you mean "green"?'),
        ("id: a\nleaves: [{name: b, colour: 5}]", "t.yaml:2:28: this is 5; write one of: red, green"),
        ("id: a\ntags: x", 't.yaml:2:7: this is "x"; write keys and values'),
        ("id: a\ntags: {b: 1}", 't.yaml:2:11: 1 is not text; write "1" in quotes'),
        (f"id: a\ntext: {'x' * 101}", "t.yaml:2:7: this text has 101 characters; write at most 100"),
        ("id: a\ntags: {twin: a}", "t.yaml:2:14: a tree is not its own twin; write another id"),
        ("id: &x a\ntext: *x", "t.yaml:2:7: aliases are not read; write out what stands at &x"),
        ("*x", "t.yaml:1:1: aliases are not read"),
        ("id: !!str a", "t.yaml:1:5: tags are not read; delete tag:yaml.org,2002:str"),
        ("id: !!python/name:os.system a", "t.yaml:1:5: tags are not read; delete tag:yaml.org,2002:python/name"),
        ("id: a\n---\nid: b", "t.yaml:2:1: a second document begins; write one document a file"),
        ("? [a]\n: b\nid: a", "t.yaml:1:3: a key is plain text"),
        ("id: " + "[" * 50, "t.yaml:1:20: nested more than 16 deep"),
        ('id: "a\\0b"', "t.yaml:1:5: the text holds the character U+0000; delete its escape"),
        ('id: "\\UFFFFFFFF"', "t.yaml:1:"),
        ("id: a\x00", "t.yaml:1:6: the character U+0000 has no place in YAML"),
        ("id: a\ntext: \x1b[31m", "t.yaml:2:7: the character U+001B has no place in YAML"),
        ("id: \ud800", "t.yaml:1:5: the character U+D800 has no place in YAML"),
        ("id: a: b", "t.yaml:1:6: this is not YAML (mapping values are not allowed"),
        ("id: a\n\ttext: b", "t.yaml:2:1: this is not YAML (found "),
        ("id: [a", "t.yaml:"),
        ('id: "a', "t.yaml:"),
        ("id: a\n  height: 3", "t.yaml:2:9: this is not YAML"),
    ],
)
def test_a_mistake_is_told_at_its_place_with_the_mend(text: str, expected: str) -> None:
    """file:line:column, what is wrong, what to write; the same whatever parser PyYAML has."""
    found = problems_of(text)

    assert any(problem.startswith(expected) for problem in found), found


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"id: a\ntext: caf\xe9", "t.yaml:2:10: octet 0xe9 is not UTF-8; save the file as UTF-8"),
        ("id: a".encode("utf-16"), "t.yaml:1:1: octet 0xff is not UTF-8; save the file as UTF-8"),
        ("text: é\nid: é".encode() + b"\xc3", "t.yaml:2:6: octet 0xc3 is not UTF-8; save the file as UTF-8"),
        (b"\x1f\x8b\x08\x00", "t.yaml:1:2: octet 0x8b is not UTF-8; save the file as UTF-8"),
    ],
)
def test_octets_that_are_not_utf_8_are_told_by_line_and_character(octets: bytes, expected: str) -> None:
    """Columns count characters, as editors do."""
    assert problems_of(octets) == [expected]


def test_all_mistakes_come_at_once_in_the_order_of_the_text() -> None:
    """One run shows what is to be mended, even where parts of the text cannot be used."""
    text = "hight: 2\nid: 7\nleaves:\n  - {name: *x}\n  - {colour: blue}\nid: b\ntags: {twin: 7}\n"

    assert [problem.split(" ")[0] for problem in problems_of(text)] == [
        "t.yaml:1:1:",  # unknown key
        "t.yaml:2:5:",  # not text
        "t.yaml:4:12:",  # alias
        "t.yaml:5:5:",  # no name
        "t.yaml:5:14:",  # no such colour
        "t.yaml:6:1:",  # written twice
        "t.yaml:7:14:",  # not text
        "t.yaml:7:14:",  # its own twin
    ]


def test_a_refused_value_is_told_once() -> None:
    """An alias is one mistake, not a wrong type as well."""
    assert len(problems_of("id: a\nheight: *x")) == 1


def test_problems_of_several_texts_are_gathered() -> None:
    """A folder of files is reported as a whole."""
    problems: list[Problem] = []
    pages = [read_page(text, f"{i}.yaml", Tree, problems) for i, text in enumerate(["id: a", "id: 7", ""])]

    assert [page is not None for page in pages] == [True, False, False]
    assert [(p.source, p.line, p.column) for p in problems] == [("1.yaml", 1, 5), ("2.yaml", 1, 1)]
    assert str(PolicyError(problems)).splitlines() == [str(problem) for problem in problems]


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("id",), (1, 5)),
        (("leaves", 1, "name"), (4, 11)),
        (("leaves", 1), (4, 5)),
        (("leaves", 1, "colour"), (4, 5)),
        (("tags",), (1, 1)),
        ((), (1, 1)),
    ],
)
def test_a_page_knows_where_its_values_stand(path: KeyPath, place: tuple[int, int]) -> None:
    """For mistakes that show beside other files; a default stands where its section does."""
    page = read_page("id: a\nleaves:\n  - name: b\n  - name: c\n", "t.yaml", Tree, [])
    assert page is not None

    problem = page.problem(path, "wrong")

    assert (problem.line, problem.column) == place


@given(st.one_of(st.text(), st.binary(), st.text(alphabet="idleaves:{}[]-\n \t'\"#&*!|>?,%@`\\0\ufeff")))
@example("{" * 2000)
@example("- " * 2000)
@example("? " * 2000)
@example("id: '" + "9" * 5000)
@example("id: " + "9" * 5000)
@example("%YAML 9.9\n---\nid: a")
@example("id: \u2028 a\x85b")
def test_any_text_is_a_document_or_a_policy_error(text: str | bytes) -> None:
    """No third way; and every problem stands inside the text, on one line."""
    problems: list[Problem] = []
    page = read_page(text, "t.yaml", Tree, problems)

    assert (page is None) == bool(problems)
    lines = text.decode(errors="replace").splitlines() if isinstance(text, bytes) else text.splitlines()
    for problem in problems:
        assert 1 <= problem.line <= len(lines) + 1
        assert problem.column >= 1
        assert problem.message.isprintable()


@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-(10**17), 10**17),
            st.text(alphabet=st.characters(categories=["L", "N", "P", "Zs"])),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(st.sampled_from(["id", "name", "leaves", "tags", "height"]), inner),
        ),
        max_leaves=12,
    )
)
def test_any_value_is_a_document_or_a_policy_error(written: object) -> None:
    """Values of any type in any place, written by PyYAML itself."""
    text = yaml.safe_dump(written, allow_unicode=True)

    problems: list[Problem] = []

    assert (read_page(text, "t.yaml", Tree, problems) is None) == bool(problems)
