"""How findings are told."""

import pytest

from resolver.policy.findings import (
    Code,
    Finding,
    Kind,
    Severity,
    Where,
    are,
    in_order,
    in_words,
    moment,
    some,
    term_in_words,
)
from resolver.policy.steps import Standing

AT = 1_900_000_000.0
DAY = 86400.0


def test_the_worst_comes_first_and_the_rest_as_found() -> None:
    """Errors, warnings, notes."""
    severities = [Severity.NOTE, Severity.WARNING, Severity.ERROR, Severity.WARNING]
    found = [Finding(one, Where(Kind.RULE, str(i)), Code.IDLE, "") for i, one in enumerate(severities)]

    assert [finding.where.id for finding in in_order(found)] == ["2", "1", "3", "0"]


@pytest.mark.parametrize(
    ("where", "text"),
    [
        (Where(Kind.ORDER, "ban", "until"), "order ban"),
        (Where(Kind.WAY_ROUND, "doh"), "way-round doh"),
        (Where(Kind.CONFIGURATION, key="upstreams"), "upstreams"),
        (Where(Kind.CONFIGURATION), "configuration"),
    ],
)
def test_a_finding_begins_with_its_place(where: Where, text: str) -> None:
    """A document by its kind and id, the configuration by the key."""
    assert str(Finding(Severity.NOTE, where, Code.IDLE, "is odd")) == f"{text}: is odd"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (6 * DAY + 3600, "6 days"),
        (30 * DAY - 5, "30 days"),
        (DAY, "1 day"),
        (20.5 * 3600, "20 hours"),
        (3600, "1 hour"),
        (300, "5 minutes"),
        (0.5, "less than a minute"),
    ],
)
def test_a_span_is_told_in_its_largest_unit(seconds: float, text: str) -> None:
    """Days, hours, minutes; a few seconds less than a unit are one."""
    assert in_words(seconds) == text


@pytest.mark.parametrize(
    ("since", "until", "standing", "text"),
    [
        (AT - 1, AT + 6 * DAY, Standing.IN_FORCE, "in force, ends in 6 days"),
        (AT, AT + 60, Standing.IN_FORCE, "in force, ends in 1 minute"),
        (AT + 2 * DAY, AT + 3 * DAY, Standing.NOT_YET, "begins in 2 days"),
        (AT - 2, AT, Standing.EXPIRED, "ended 2030-03-17 17:46 UTC"),
    ],
)
def test_a_term_is_told_as_it_stands(since: float, until: float, standing: Standing, text: str) -> None:
    """Half-open: it acts from its beginning, and no more at its end."""
    assert term_in_words(since, until, AT) == (standing, text)


def test_many_are_told_by_a_few() -> None:
    """Three, and how many more."""
    assert some(["a", "b", "c"]) == "a, b, c"
    assert some(iter("abcde")) == "a, b, c and 2 more"
    assert (are(1, "name"), are(2, "name"), are(2, "entry", "entries")) == ("1 name is", "2 names are", "2 entries are")
    assert moment(AT) == "2030-03-17 17:46 UTC"
