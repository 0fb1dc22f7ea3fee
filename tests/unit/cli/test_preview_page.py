"""A preview as its readers get it: the same numbers as text, page and JSON, and nothing of a log that acts."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.cli.preview_page import Preview, Question, as_json, page, sections, show
from resolver.evidence.past import Format, Source
from resolver.evidence.past_ledger import Example, Ledger, Reason, Unread
from resolver.policy.documents import Action, Purpose
from resolver.policy.preview import Asked, Hold, Impact, Judged, Replay

SCRIPT = "<script>alert(1)</script>&\"'\x1b[31m\u202e\n"
HOSTILE_NAME = bytes([len(SCRIPT.encode())]) + SCRIPT.encode() + b"\7example\0"
BANNED = Judged("order-1", "chat", "suffix chat.example", Action.NXDOMAIN, Purpose.CORE)
SHARED = Judged(
    "order-1", "chat", "suffix cdn.example", Action.NXDOMAIN, Purpose.SHARED_CDN, collateral="shops <b>too</b>"
)


def impact(*queries: tuple[bytes, Judged | None], top: int = 2) -> Impact:
    """A replay in which each query is judged as it is written beside it."""
    verdicts = iter([judged for _, judged in queries])
    replay = Replay(
        lambda qname, *_: BANNED if qname.startswith(b"\3old") else None,
        lambda *_: next(verdicts),
        lambda client: "phones" if client else "",
    )
    for i, (qname, _) in enumerate(queries):
        replay.add(Asked(1_800_000_000.0 + 43_200 * i, bytes([192, 0, 2, 1 + i % 2]), qname, 1))
    return replay.impact(top)


def preview(counted: Impact, *unread: Unread, path: str = "a.log") -> Preview:
    return Preview(
        Question(
            "order-1", "A ban", "announced", datetime(2040, 1, 1, tzinfo=UTC), False, ("phones",), ("chat",), False
        ),
        datetime(2030, 1, 1, tzinfo=UTC), (Source(path, Format.UNBOUND, counted.queries),), 0, unread, counted,
    )  # fmt: skip


WWW = b"\3www\4chat\7example\0"
TOLD = preview(
    impact(
        (WWW, BANNED), (b"\3old\4chat\7example\0", BANNED), (b"\3cdn\7example\0", SHARED),
        (b"\1x\4chat\7example\0", replace(BANNED, hold=Hold.EXEMPT)), (b"\3www\3org\0", None),
        (b"\1b\4chat\7example\0", BANNED), (b"\1b\4free\7example\0", replace(BANNED, by_chain=True)),
    ),
    Unread(Reason.OTHER, 12, (Example("a.log:1", "started"),)),
)  # fmt: skip

TEXT = """\
order         order-1: A ban
today         announced, effective 2040-01-01 00:00:00 UTC; no line of policy.orders puts it into force
previewed     as if in force for phones; apps chat
replayed      7 queries of 2 devices, 2027-01-15 08:00:00 UTC to 2027-01-18 08:00:00 UTC
new           4 queries of 2 devices would be withheld anew
no change     1 query withheld today already
out of scope  1 query for these names by devices that the order does not bind
note: 12 records of the logs not among the queries, as told at the end

Look at these before it is in force: Names that others use too, or that are forbidden only if the order includes \
optional names.
rule                app   why                                            what else breaks  devices  new  hits
suffix cdn.example  chat  shared content network, known to touch others  shops <b>too</b>        1    1     1

By day: Days in UTC.
day         new  hits  all queries
2027-01-15    1     2            2
2027-01-16    1     1            2
2027-01-17    1     1            2
2027-01-18    1     1            1

By group
group   devices  new  hits
phones        2    4     5

By device
device     group   new  hits
192.0.2.1  phones    3     3
192.0.2.2  phones    1     2

By app
app   devices  new  hits
chat        2    4     5

By name
name            rule                 app   new  hits
b.chat.example  suffix chat.example  chat    1     1
b.free.example  suffix chat.example  chat    1     1
and 3 more, with 3 queries; --top shows more of them

By alias only: Not forbidden themselves; what they lead to is.
name            rule                 app   new  hits
b.free.example  suffix chat.example  chat    1     1

Out of scope: Devices that asked for names of the order and would get them as before.
device     group   why                                       queries
192.0.2.2  phones  exempt, or allowed by a rule of your own        1

Withheld today already
name              by       queries
old.chat.example  order-1        1

Logs
file   format   queries
a.log  unbound        7

Not among the queries: Records of the logs that were not replayed, with the first of each kind.
reason                                      where    how it begins  records
about something else than a client's query  a.log:1  started             12
"""


def test_the_text_is_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Sum first, what deserves a look next, then the tables, aligned."""
    show(TOLD)

    assert capsys.readouterr().out == TEXT


class Page(HTMLParser):
    """Elements, attributes and text of a page; what opens must close."""

    VOID = frozenset({"meta"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_is_whole_and_loads_nothing() -> None:
    """One document whose every element closes, without scripts, links, images or handlers."""
    found = Page(page(TOLD))

    assert found.open == []
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "link", "img", "iframe", "a", "object", "form"})
    names = {name for _, attributes in found.tags for name in attributes}
    assert not {name for name in names if name.startswith("on") or name in ("src", "href")}
    assert ("html", {"lang": "en"}) in found.tags
    assert any("default-src 'none'" in (attributes.get("content") or "") for _, attributes in found.tags)


def test_the_page_can_be_read_without_seeing_it() -> None:
    """Each table has a caption, heads for its columns, and a region with a name that the keyboard reaches."""
    found = Page(page(TOLD))
    tags = [tag for tag, _ in found.tags]

    assert tags.count("table") == tags.count("caption") == tags.count("section") == len(list(sections(TOLD)))
    assert tags.count("main") == tags.count("h1") == 1
    ids = {attributes["id"] for _, attributes in found.tags if "id" in attributes}
    named = [attributes for _, attributes in found.tags if attributes.get("role") == "region"]
    assert all(attributes["aria-labelledby"] in ids and attributes["tabindex"] == "0" for attributes in named)
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in found.tags if tag == "th")


def hostile() -> Preview:
    ledger = Ledger()
    ledger.file = SCRIPT
    ledger.add(Reason.MALFORMED, 3, SCRIPT)
    shown = ledger.unread()
    return preview(impact((HOSTILE_NAME, BANNED), (WWW, SHARED)), *shown, path=shown[0].first[0].place)


def test_a_hostile_log_is_only_text_on_the_page() -> None:
    """Names, lines and file names that look like markup are shown, not obeyed."""
    written = page(hostile())
    found = Page(written)

    assert "script" not in {tag for tag, _ in found.tags}
    assert "b" not in {tag for tag, _ in found.tags}
    assert any("<script>alert(1)</script>&\"'" in text for text in found.texts)
    assert all(c.isprintable() or c == "\n" for c in written)


def test_a_hostile_log_does_nothing_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """No escapes, no markup of rich, no line breaks of its own."""
    show(hostile())
    written = capsys.readouterr().out

    assert all(c.isprintable() or c == "\n" for c in written)
    assert "[31m" in written.replace("\\091", "[")


@given(st.binary(min_size=1, max_size=63), st.text(max_size=60))
def test_any_name_and_line_leave_the_page_whole(label: bytes, line: str) -> None:
    """Whatever octets a client asked for and a line holds."""
    ledger = Ledger()
    ledger.add(Reason.MALFORMED, 1, line)
    name = bytes([len(label)]) + label.lower() + b"\0"

    found = Page(page(preview(impact((name, BANNED)), *ledger.unread())))

    assert found.open == []
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in Page(page(preview(impact((WWW, BANNED)), Unread(
        Reason.MALFORMED, 1, (Example("x", "x"),))))).tags]  # fmt: skip


def test_json_says_all_of_it() -> None:
    """The documented keys, times in RFC 3339, rows as objects."""
    found = json.loads(json.dumps(as_json(TOLD)))

    assert list(found) == [
        "order", "title", "state", "effective", "configured", "groups", "apps", "include_optional", "at", "sources",
        "outside", "unread", "remarks", "impact",
    ]  # fmt: skip
    assert found["effective"] == "2040-01-01T00:00:00+00:00"
    assert found["sources"] == [{"path": "a.log", "format": "unbound", "queries": 7, "is_database": False}]
    assert found["unread"] == [
        {
            "reason": "not-a-query", "count": 12, "first": [{"place": "a.log:1", "text": "started"}],
            "meaning": "about something else than a client's query",
        }
    ]  # fmt: skip
    counted = found["impact"]
    assert (counted["queries"], counted["new"], counted["settled"], counted["spared"]) == (7, 4, 1, 1)
    assert counted["first"] == "2027-01-15T08:00:00+00:00"
    assert counted["collateral"]["rows"] == [
        {
            "rule": "suffix cdn.example", "app": "chat", "purpose": "shared-cdn",
            "cautions": ["shared-cdn", "collateral"], "collateral": "shops <b>too</b>", "devices": 1, "hits": 1,
            "new": 1,
        }
    ]  # fmt: skip
    assert {"rows", "distinct", "left_out", "overflow"} == set(counted["by_name"])


def test_nothing_replayed_is_said_plainly(capsys: pytest.CaptureFixture[str]) -> None:
    """Empty logs: no tables but the logs themselves, and no times in JSON."""
    empty = preview(impact())
    show(empty)

    assert "replayed      0 queries of 0 devices\n" in capsys.readouterr().out
    assert [section.title for section in sections(empty)] == ["Logs"]
    assert as_json(empty)["impact"]["first"] is None  # type: ignore[index]


@pytest.mark.parametrize(
    ("changes", "remark"),
    [
        ({"sources": (Source("hits.jsonl", Format.HITS, 1),)}, "logs of hits hold only what was recorded as a hit"),
        (
            {"sources": (Source("h.jsonl", Format.HITS, 1), Source("h.sqlite", Format.HITS, 1, is_database=True))},
            "logs of several kinds were replayed",
        ),
        ({"outside": 5}, "5 queries left out, being outside the time asked for"),
        ({"impact": replace(TOLD.impact, nameless=1)}, "1 query without a client in the log"),
        ({"impact": replace(TOLD.impact, first=None, last=None)}, "the logs tell no times"),
    ],
)
def test_what_changes_the_meaning_of_the_numbers_is_remarked(
    changes: dict[str, object], remark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the terminal, on the page and in JSON."""
    changed = replace(TOLD, **changes)  # type: ignore[arg-type]
    show(changed)

    assert f"note: {remark}" in capsys.readouterr().out
    assert remark in page(changed)
    assert any(remark in text for text in as_json(changed)["remarks"])  # type: ignore[attr-defined]
