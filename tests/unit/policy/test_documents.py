"""Apps and orders: what makes sense in them and what does not."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.policy.documents import (
    Act,
    ActKind,
    App,
    Basis,
    Confidence,
    Match,
    Order,
    OrderState,
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


def with_acts(*acts: str, order: str = ORDER) -> str:
    """The order with acts written as `kind day by`; each at midnight UTC."""
    lines = [
        f"  - {{act: {kind}, at: {day}T00:00:00Z, by: {by}}}\n" for kind, day, by in (act.split(" ", 2) for act in acts)
    ]
    return order + "acts:\n" + "".join(lines)


def days(order: Order) -> list[tuple[str, str | None]]:
    """The intervals in which an order acts, as days of UTC."""
    return [
        (begin.astimezone(UTC).date().isoformat(), end and end.astimezone(UTC).date().isoformat())
        for begin, end in order.in_force()
    ]


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


@pytest.mark.parametrize(
    ("acts", "expires", "expected"),
    [
        ([], "", [("2030-01-01", None)]),
        ([], "2031-01-01", [("2030-01-01", "2031-01-01")]),
        (["suspended 2030-03-01 Court"], "", [("2030-01-01", "2030-03-01")]),
        (
            ["suspended 2030-03-01 Court", "resumed 2030-04-01 Court"],
            "",
            [("2030-01-01", "2030-03-01"), ("2030-04-01", None)],
        ),
        (
            ["suspended 2030-03-01 Court", "resumed 2030-04-01 Court", "revoked 2030-05-01 Minister"],
            "",
            [("2030-01-01", "2030-03-01"), ("2030-04-01", "2030-05-01")],
        ),
        (["superseded 2030-06-01 yy-2030"], "2031-01-01", [("2030-01-01", "2030-06-01")]),
        (["revoked 2032-06-01 Minister"], "2031-01-01", [("2030-01-01", "2031-01-01")]),
        (["suspended 2030-03-01 Court", "resumed 2031-04-01 Court"], "2031-01-01", [("2030-01-01", "2030-03-01")]),
        # Before it is effective:
        (["suspended 2029-12-15 Court", "revoked 2030-05-01 Minister"], "", []),
        (["suspended 2029-12-15 Court", "resumed 2029-12-20 Court"], "", [("2030-01-01", None)]),
        (["suspended 2029-12-15 Court", "resumed 2030-02-01 Court"], "", [("2030-02-01", None)]),
        # Two courts; it acts again when nothing stops it any more.
        (
            ["suspended 2030-03-01 Court", "suspended 2030-03-15 Second court", "resumed 2030-04-01 Court"],
            "",
            [("2030-01-01", "2030-03-01"), ("2030-04-01", None)],
        ),
    ],
)
def test_an_order_acts_from_its_beginning_to_its_end_but_for_suspensions(
    acts: list[str], expires: str, expected: list[tuple[str, str | None]]
) -> None:
    """Half-open intervals, in order of time."""
    text = with_acts(*acts) if acts else ORDER
    text += f"expires: {expires}T00:00:00Z\n" if expires else ""

    assert days(read(text, "o.yaml", Order)) == expected


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        ("2029-11-01", OrderState.ANNOUNCED),
        ("2029-12-31", OrderState.ANNOUNCED),
        ("2030-01-02", OrderState.IN_FORCE),
        ("2030-03-01", OrderState.SUSPENDED),
        ("2030-04-01", OrderState.IN_FORCE),
        ("2030-05-01", OrderState.REVOKED),
        ("2039-01-01", OrderState.REVOKED),
    ],
)
def test_an_order_has_one_state_at_a_time(day: str, expected: OrderState) -> None:
    """An act counts from its instant on; what was revoked does not expire later."""
    text = with_acts("suspended 2030-03-01 Court", "resumed 2030-04-01 Court", "revoked 2030-05-01 Minister")
    order = read(text + "expires: 2031-01-01T00:00:00Z\n", "o.yaml", Order)

    assert order.state(datetime.fromisoformat(day + "T00:00:00+00:00").timestamp()) is expected


@pytest.mark.parametrize(
    ("acts", "expires", "day", "expected"),
    [
        (["suspended 2029-12-15 Court"], "", "2029-12-16", OrderState.SUSPENDED),
        (["superseded 2030-05-01 yy-2030"], "", "2030-06-01", OrderState.SUPERSEDED),
        (["suspended 2030-05-01 Court"], "2031-01-01", "2031-01-01", OrderState.EXPIRED),
        (["revoked 2031-01-01 Minister"], "2031-01-01", "2031-01-01", OrderState.EXPIRED),
        (["revoked 2032-01-01 Minister"], "2031-01-01", "2033-01-01", OrderState.EXPIRED),
    ],
)
def test_what_ended_an_order_first_stays_its_state(
    acts: list[str], expires: str, day: str, expected: OrderState
) -> None:
    """And one that is stopped before it begins is suspended, not announced."""
    text = with_acts(*acts) + (f"expires: {expires}T00:00:00Z\n" if expires else "")

    order = read(text, "o.yaml", Order)

    assert order.state(datetime.fromisoformat(day + "T00:00:00+00:00").timestamp()) is expected


def test_an_act_says_who_and_where_it_was_read() -> None:
    """As the file says it; the citation may be left out."""
    cited = "{title: Stay, publisher: Gazette, url: 'https://www.example.org/stay', read: primary}"
    line = f"acts: [{{act: suspended, at: 2030-03-01T09:00:00-05:00, by: Federal Court, citation: {cited}}}]\n"

    (act,) = read(ORDER + line, "o.yaml", Order).acts

    assert (act.act, act.at, act.by) == (ActKind.SUSPENDED, datetime(2030, 3, 1, 14, tzinfo=UTC), "Federal Court")
    assert act.citation is not None
    assert act.citation.publisher == "Gazette"


@pytest.mark.parametrize(
    ("acts", "expected"),
    [
        (
            ["suspended 2029-11-30 Court"],
            "o.yaml:15:26: the order was announced on 2029-12-01 only; write an instant on",
        ),
        (
            ["resumed 2030-03-01 Court"],
            "o.yaml:15:11: the order is not suspended here; write the act that suspended it",
        ),
        (
            ["suspended 2030-03-01 C", "resumed 2030-04-01 C", "resumed 2030-05-01 C"],
            "o.yaml:17:11: the order is not suspended here",
        ),
        (
            ["suspended 2030-03-01 C", "resumed 2030-02-01 C"],
            "o.yaml:16:24: this is not later than the act before it; write the acts in order of time",
        ),
        (["suspended 2030-03-01 C", "resumed 2030-03-01 C"], "o.yaml:16:24: this is not later than the act before it"),
        (
            ["revoked 2030-03-01 M", "suspended 2030-04-01 C"],
            "o.yaml:16:11: nothing happens to an order that was revoked before; delete this act, or that one",
        ),
        (
            ["superseded 2030-03-01 yy-2030", "revoked 2030-04-01 M"],
            "o.yaml:16:11: nothing happens to an order that was superseded before",
        ),
        (["superseded 2030-03-01 xx-2030"], "o.yaml:15:53: this is the order itself; write the id of the order that"),
        (["superseded 2030-03-01 Direction 2"], 'o.yaml:15:53: "Direction 2" is not an id; write the id of the order'),
        (["supended 2030-03-01 Court"], 'o.yaml:15:11: "supended" is unknown here; did you mean "suspended"?'),
        (["suspended 2030-02-30 Court"], 'o.yaml:15:26: "2030-02-30T00:00:00Z" is not an instant'),
    ],
)
def test_acts_that_cannot_have_happened_are_told_at_their_place(acts: list[str], expected: str) -> None:
    """One mistake, one message: what follows from it is not told too."""
    found = order_problems(with_acts(*acts))

    assert [problem for problem in found if problem.startswith(expected)] == found
    assert len(found) == 1


def test_an_act_of_an_unknown_kind_does_not_hide_others() -> None:
    """A wrong kind may be a suspension: what is resumed after it is not told."""
    found = order_problems(with_acts("halted 2030-03-01 C", "resumed 2030-04-01 C", "resumed 2030-03-15 C"))

    assert [problem.split(": ")[0] for problem in found] == ["o.yaml:15:11", "o.yaml:17:11", "o.yaml:17:24"]


EFFECTIVE = datetime(2030, 1, 1, 5, tzinfo=UTC)


@st.composite
def lives(draw: st.DrawFn) -> Order:
    """An order with any life that makes sense: suspended and resumed, perhaps ended, perhaps expiring."""
    hours = draw(st.lists(st.integers(-500, 500), unique=True, max_size=8).map(sorted))
    acts = [
        Act(
            act=draw(st.sampled_from([ActKind.SUSPENDED, ActKind.RESUMED])),
            at=(EFFECTIVE + timedelta(hours=hour)).isoformat(),
            by="Court",
        )
        for hour in hours
    ]
    if acts and draw(st.booleans()):
        acts[-1] = acts[-1].model_copy(update={"act": draw(st.sampled_from([ActKind.REVOKED, ActKind.SUPERSEDED]))})
    expires = draw(st.none() | st.integers(1, 500).map(lambda hour: EFFECTIVE + timedelta(hours=hour)))
    return read(ORDER, "o.yaml", Order).model_copy(update={"acts": tuple(acts), "expires": expires})


def acts_at(order: Order, moment: datetime) -> bool:
    return any(begin <= moment and (end is None or moment < end) for begin, end in order.in_force())


@given(lives())
def test_intervals_in_force_are_disjoint_and_in_order(order: Order) -> None:
    """None is empty, each begins after the one before it ended, and none begins before the order does."""
    bounds = [bound for interval in order.in_force() for bound in interval]

    assert all(bound is not None for bound in bounds[:-1])
    closed = [bound for bound in bounds if bound is not None]
    assert all(earlier < later for earlier, later in pairwise(closed))
    assert all(bound >= order.effective for bound in closed[:1])


@given(lives(), st.integers(-600, 600))
def test_an_order_is_in_force_exactly_within_its_intervals(order: Order, hour: int) -> None:
    """The two ways to ask agree at every moment, bounds included."""
    moment = EFFECTIVE + timedelta(hours=hour)

    assert (order.state(moment.timestamp()) is OrderState.IN_FORCE) == acts_at(order, moment)


@given(lives(), st.integers(-500, 500))
def test_a_further_suspension_never_adds_time_in_force(order: Order, hour: int) -> None:
    """Wherever it is put before the order's end; hours are looked at one by one."""
    at = EFFECTIVE + timedelta(hours=hour, minutes=30)
    further = Act(act="suspended", at=at.isoformat(), by="Second court")
    more = order.model_copy(update={"acts": tuple(sorted((*order.acts, further), key=lambda act: act.at))})

    hours = [EFFECTIVE + timedelta(hours=h, minutes=m) for h in range(-2, 520) for m in (0, 45)]

    assert [moment for moment in hours if acts_at(more, moment) and not acts_at(order, moment)] == []


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
