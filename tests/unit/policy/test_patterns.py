"""Patterns: all of a zone's matched at once, as each would be alone, and in linear time whatever they are."""

import re
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.policy.patterns import PatternSet

PROPERTY = settings(deadline=None)
EXPRESSIONS = [
    r"ads?[0-9]*\.", r"^track", r"\.example$", r"^(a|b)+c", r"x.y", r"^$", r"[^.]*-cdn", r"(?:foo|bar)\.(?:org|net)$",
]  # fmt: skip


@PROPERTY
@given(
    st.lists(st.sampled_from(EXPRESSIONS), max_size=6),
    st.one_of(
        st.text("abcdxy.-19", max_size=20),
        st.sampled_from(["ads1.example", "track.foo.org", "x-cdn.example", "aabc", "foo.net.example"]),
    ),
)
def test_a_set_matches_what_each_of_its_patterns_matches_alone(expressions: list[str], name: str) -> None:
    """In their order, each with the number of its rule, one that stands twice too."""
    numbered = [(expression, 7 * i) for i, expression in enumerate(expressions)]

    assert PatternSet(numbered).match(name) == [one for one in numbered if re.search(one[0], name)]


def test_a_set_without_patterns_matches_nothing() -> None:
    """Nor does it fail."""
    assert PatternSet([]).match("chat.example") == []


@pytest.mark.parametrize("expression", ["(", "[", "a{2000}", r"(?=a)", r"(a)\1", "*a"])
def test_what_re2_can_not_compile_is_refused(expression: str) -> None:
    """Look-around and back references among it: they have no linear time."""
    with pytest.raises(ValueError, match="can not be compiled"):
        PatternSet([("ads", 0), (expression, 1)])


def test_a_set_that_takes_too_much_memory_is_refused() -> None:
    """In compiling it, not by missing names later."""
    with pytest.raises(ValueError, match="can not be compiled"):
        PatternSet([(rf"^(?:.*[0-9]){{9}}.*x{i}[a-c]{{20}}\.example$", i) for i in range(2000)])


@pytest.mark.parametrize(
    "expressions",
    [
        ["(a+)+$x", "(a|aa)+$x", "(a|b)*a(a|b){12}x"],
        [f"(a|b)*a(a|b){{{k}}}x{k}" for k in range(16)],
    ],
)
def test_the_longest_name_is_matched_at_once_by_the_worst_patterns(expressions: list[str]) -> None:
    """What takes a backtracking matcher years; and a pattern beside them is still found."""
    matcher = PatternSet([*((expression, 0) for expression in expressions), ("zz$", 1)])
    name = ("ab" * 31 + ".") * 4 + "zz"
    begun = perf_counter()
    for _ in range(20):
        assert matcher.match(name)[-1] == ("zz$", 1)

    assert perf_counter() - begun < 5
