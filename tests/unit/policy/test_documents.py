"""Apps and orders: what makes sense in them and what does not."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.policy.documents import (
    App,
    Basis,
    Confidence,
    Match,
    Order,
    Purpose,
    Use,
    parse_date,
    parse_identifier,
    parse_instant,
    parse_name,
    parse_zone,
)
from resolver.policy.source import PolicyError, read
from resolver.wire import name as names

APP = """\
id: example-chat
names: [Example Chat, EC]
vendor: Example Corp.
domains:
  - {name: chat.example, match: suffix, purpose: core, confidence: high, use: block, sources: [EX]}
"""

ORDER = """\
id: xx-2030
jurisdiction: Exampleland
authority: Minister of Examples
instrument: Direction 1
announced: 2029-12-01
effective: 2030-01-01T00:00:00-05:00
scope: {devices: all, level: app}
basis: own-policy
apps: [example-chat]
citations: [{title: Ban, publisher: Gazette, url: "https://www.example.org/ban", read: primary}]
confidence: medium
title: {en: A ban, fr: Une interdiction}
notice: {en: Ask., fr: Demandez.}
"""


def domain_line(**changes: str) -> str:
    facts = {
        "name": "a.example",
        "match": "exact",
        "purpose": "core",
        "confidence": "low",
        "use": "block",
        "sources": "[EX]",
    }
    return "  - {" + ", ".join(f"{key}: {fact}" for key, fact in (facts | changes).items()) + "}\n"


def refusal_of(parse: Callable[[object], object], written: object) -> str | None:
    """What a parser says against a value; None where it takes it."""
    try:
        parse(written)
    except ValueError as error:
        return str(error)
    return None


def app_problems(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        read(text, "a.yaml", App)
    return [str(problem) for problem in caught.value.problems]


def order_problems(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        read(text, "o.yaml", Order)
    return [str(problem) for problem in caught.value.problems]


def test_an_app_is_read() -> None:
    """The least an app says; what it leaves out is empty."""
    app = read(APP, "a.yaml", App)

    assert (app.id, app.names, app.vendor, app.country) == ("example-chat", ("Example Chat", "EC"), "Example Corp.", "")
    (domain,) = app.domains
    assert domain.wire() == b"\x04chat\x07example\x00"
    assert (domain.match, domain.purpose, domain.confidence, domain.use) == (
        Match.SUFFIX,
        Purpose.CORE,
        Confidence.HIGH,
        Use.BLOCK,
    )


def test_an_order_is_read() -> None:
    """The least an order says; it takes no optional names, and names of every confidence, unless it says so."""
    order = read(ORDER, "o.yaml", Order)

    assert order.announced == date(2029, 12, 1)
    assert order.effective == datetime(2030, 1, 1, 5, tzinfo=UTC)
    assert order.expires is None
    assert order.basis is Basis.OWN_POLICY
    assert (order.include_optional, order.min_confidence) == (False, Confidence.LOW)
    assert order.title.fr == "Une interdiction"


def test_documents_cannot_be_changed() -> None:
    """What was reviewed is what is compiled."""
    app = read(APP, "a.yaml", App)

    with pytest.raises(ValueError, match="frozen"):
        app.id = "other"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Chat.Example", 'write "chat.example"'),
        ("chat.example.", 'write "chat.example"'),
        ("*.chat.example", 'write "chat.example" with "match: suffix"'),
        (".chat.example", 'write "chat.example" with "match: suffix"'),
        ("||chat.example^", 'write "chat.example" with "match: suffix"'),
        ("https://chat.example/path", 'write "chat.example"'),
        ("chat.example:443", 'write "chat.example"'),
        (" chat.example", 'write "chat.example"'),
        ("bücher.example", 'write "xn--bcher-kva.example"'),
        ("chat..example", "has an empty label"),
        ("example", "is a whole top-level domain; write a longer name, such as app.example"),
        (".", "is not a domain name"),
        ("", "is not a domain name"),
        ("192.0.2.1", "is an address"),
        ("2001:db8::1", "is an address"),
        ("chat example.org", "is not a domain name; write letters, digits, hyphens and dots"),
        ("tik*tok.example", "is not a domain name; write letters, digits, hyphens and dots"),
        (f"{'a' * 64}.example", "longer than 63 octets"),
        (7, "this is 7; write a domain name such as example.org"),
        (None, "this is empty; write a domain name"),
    ],
)
def test_a_name_that_is_written_otherwise_is_told_how(written: object, expected: str) -> None:
    """People paste from URLs, host files and filter lists; each gets the name to write."""
    with pytest.raises(ValueError, match="write") as caught:
        parse_name(written)

    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "written", ["chat.example", "_dns.chat.example", "-a.example", "xn--bcher-kva.example", "1.2.example"]
)
def test_a_name_in_its_normal_form_is_taken(written: str) -> None:
    """Underscores and leading hyphens are met in real catalogues."""
    assert parse_name(written) == written


def test_only_a_zone_may_be_a_single_label() -> None:
    """`local` may be forwarded; an app cannot own a top-level domain."""
    assert parse_zone("local") == "local"


@given(st.one_of(st.text(), st.from_regex(r"[|*.]{0,2}[A-Za-z0-9_é.\\-]{1,80}[./:^]?")))
def test_any_name_is_in_normal_form_or_refused(written: str) -> None:
    """What is taken is what the product prints for the same wire name."""
    refusal = refusal_of(parse_name, written)

    assert refusal is not None or written == names.to_text(names.from_text(written))
    assert refusal is None or "write" in refusal


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (domain_line() + domain_line(), 'a.yaml:7:12: "a.example" is listed twice with match exact'),
        (
            domain_line() + domain_line(use="never", collateral="x", match="suffix"),
            'a.yaml:7:12: "a.example" is both "use: block" and "use: never" here',
        ),
        (
            domain_line(use="never", collateral="x") + domain_line(match="suffix"),
            'a.yaml:6:12: "a.example" is both "use: block" and "use: never" here',
        ),
        (domain_line(use="never"), 'a.yaml:6:5: "use: never" needs "collateral"'),
        (domain_line(use="optional"), 'a.yaml:6:5: "use: optional" needs "collateral"; write what else would break'),
        (domain_line(sources="[]"), "a.yaml:6:"),
        (domain_line(match="sufix"), 'a.yaml:6:30: "sufix" is unknown here; did you mean "suffix"?'),
        ("observed_hosts: [a.example, b.example, a.example]\n", 'a.yaml:6:40: name "a.example" is listed twice'),
        ("observed_hosts: [A.example]\n", 'a.yaml:6:18: "A.example" is not how'),
        ('country: ["x"]\n', "a.yaml:6:10: this is a list; write text, for example Canada"),
    ],
)
def test_an_app_that_makes_no_sense_is_refused_at_the_place(lines: str, expected: str) -> None:
    """Places, and what to write."""
    found = app_problems(APP + lines)

    assert any(problem.startswith(expected) for problem in found), found


def test_the_same_name_may_be_listed_exact_and_suffix() -> None:
    """They say different things: confidence and use may differ."""
    app = read(APP + domain_line() + domain_line(match="suffix", use="optional", collateral="x"), "a.yaml", App)

    assert len(app.domains) == 3


def test_a_repeated_name_is_told_beside_other_mistakes() -> None:
    """One wrong line does not hide that another is there twice."""
    found = app_problems(APP + domain_line() + domain_line(purpose="chore"))

    assert [problem.split(": ")[0] for problem in found] == ["a.yaml:7:12", "a.yaml:7:46"]


@pytest.mark.parametrize(
    ("line", "replacement", "expected"),
    [
        (
            "effective: 2030-01-01T00:00:00-05:00",
            "effective: 2030-01-01",
            'o.yaml:6:12: "2030-01-01" does not say when that day begins; write the hour and the offset',
        ),
        (
            "effective: 2030-01-01T00:00:00-05:00",
            "effective: 2030-01-01T00:00:00",
            'o.yaml:6:12: "2030-01-01T00:00:00" has no offset from UTC; write',
        ),
        ("effective: 2030-01-01T00:00:00-05:00", "effective: 2030-02-30T00:00:00Z", "o.yaml:6:12: "),
        (
            "announced: 2029-12-01",
            "announced: 1 December 2029",
            'o.yaml:5:12: "1 December 2029" is not a day; write a date such as 2023-10-30',
        ),
        (
            "announced: 2029-12-01",
            "announced: 2029-13-01",
            'o.yaml:5:12: "2029-13-01" is not a day (month must be in 1..12)',
        ),
        ("basis: own-policy", "basis: policy", 'o.yaml:8:8: "policy" is unknown here; did you mean "own-policy"?'),
        ("basis: own-policy\n", "", 'o.yaml:1:1: "basis" is missing; write for example basis: outside-authority'),
        ("level: app", "level: country", 'o.yaml:7:30: "country" is unknown here; write one of: app, vendor'),
        (
            "apps: [example-chat]",
            "apps: [example-chat, example-chat]",
            'o.yaml:9:22: app "example-chat" is listed twice',
        ),
        (
            "apps: [example-chat]",
            "apps: [Example Chat]",
            'o.yaml:9:8: "Example Chat" is not an id; write lower-case letters',
        ),
        ("apps: [example-chat]", "apps: []", "o.yaml:9:7: this is empty; write at least one, for example [wechat]"),
        (
            "https://www.example.org/ban",
            "ftp://www.example.org/ban",
            'o.yaml:10:51: "ftp://www.example.org/ban" is not a web address; write one such as',
        ),
        ("en: A ban, ", "", 'o.yaml:12:8: "en" is missing; write for example en: WeChat is not allowed on this device'),
        (
            "confidence: medium\n",
            "confidence: medium\nexpires: 2029-01-01T00:00:00Z\n",
            "o.yaml:12:10: the order expires before it is effective; write an instant after 2030-01-01T00:00",
        ),
        (
            "confidence: medium\n",
            "confidence: medium\ninclude_optional: 'true'\n",
            'o.yaml:12:19: "true" is neither true nor false; write true or false, without quotes',
        ),
        (
            "confidence: medium\n",
            "confidence: medium\nrequires: {removal: yes, audit: 1}\n",
            'o.yaml:12:33: 1 is not text; write "1" in quotes',
        ),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_at_the_place(line: str, replacement: str, expected: str) -> None:
    """Places, and what to write."""
    assert line in ORDER
    found = order_problems(ORDER.replace(line, replacement))

    assert any(problem.startswith(expected) for problem in found), found


@given(st.datetimes(datetime(1971, 1, 1), datetime(9998, 12, 31)), st.integers(-1439, 1439))
def test_an_instant_keeps_its_moment(local: datetime, offset_minutes: int) -> None:
    """Whatever offset it is written with."""
    instant = local.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)))

    assert parse_instant(instant.isoformat()) == instant


@given(
    st.one_of(
        st.text(),
        st.none(),
        st.integers(),
        st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]{8,12}([+-][0-9]{2}:[0-9]{2}|Z))?"),
    )
)
def test_any_value_is_read_or_refused_with_the_mend(written: object) -> None:
    """The parsers of written values raise ValueError and nothing else."""
    for parse in (parse_date, parse_instant, parse_identifier, parse_name, parse_zone):
        assert "write" in (refusal_of(parse, written) or "write")
