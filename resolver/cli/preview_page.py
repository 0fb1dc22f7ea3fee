"""A preview for its readers: for people on a terminal and as one self-contained page, for programs as JSON.

Terminal and page show the same sections of plain text. The page loads nothing and runs nothing; whatever came from a
log has been made printable, is escaped there, and is never taken for markup here.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from html import escape
from typing import TypeVar

from rich.text import Text

from resolver.cli import table
from resolver.evidence.past import Format, Source
from resolver.evidence.past_ledger import Unread
from resolver.policy.preview import Caution, Hold, Impact, Listing

_R = TypeVar("_R")

_CAUTIONS = {
    Caution.SHARED: "shared content network",
    Caution.OPTIONAL: "optional name",
    Caution.TOLD: "known to touch others",
}
_HOLDS = {
    Hold.BOUND: "bound",
    Hold.EXEMPT: "exempt, or allowed by a rule of your own",
    Hold.OUTSIDE: "in no group of the order",
}
_CAN_NOT_TELL, _NO_GROUP = "(not told)", "(none)"


@dataclass(frozen=True, slots=True)
class Question:
    """What a preview is about, and how the order stands today.

    `configured` tells whether a line of `policy.orders` puts the order into force at all.
    """

    order: str
    title: str
    state: str
    effective: datetime
    configured: bool
    groups: tuple[str, ...]
    apps: tuple[str, ...]
    include_optional: bool


@dataclass(frozen=True, slots=True)
class Preview:
    """All that is told. `outside` counts queries left out for their time."""

    question: Question
    at: datetime
    sources: tuple[Source, ...]
    outside: int
    unread: tuple[Unread, ...]
    impact: Impact


@dataclass(frozen=True, slots=True)
class Section:
    """A table with what it says. The first `texts` columns are text, the others numbers."""

    title: str
    says: str
    headings: tuple[str, ...]
    texts: int
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def facts(preview: Preview) -> Iterator[tuple[str, str]]:
    """The sum of it, in pairs of a word and a line."""
    question, impact = preview.question, preview.impact
    yield "order", f"{question.order}: {question.title}"
    stands = f"{question.state}, effective {_moment(question.effective.timestamp())}"
    yield "today", stands + ("" if question.configured else "; no line of policy.orders puts it into force")
    optional = ", optional names included" if question.include_optional else ""
    yield "previewed", f"as if in force for {', '.join(question.groups)}; apps {', '.join(question.apps)}{optional}"
    span = ""
    if impact.first is not None and impact.last is not None:
        span = f", {_moment(impact.first)} to {_moment(impact.last)}"
    least = "" if impact.all_devices else "at least "
    yield "replayed", f"{_count(impact.queries, 'query')} of {least}{_count(impact.devices, 'device')}{span}"
    touched = "at least " if impact.by_device.overflow else ""
    yield "new", f"{_count(impact.new, 'query')} of {touched}{_count(impact.touched, 'device')} would be withheld anew"
    yield "no change", f"{_count(impact.settled, 'query')} withheld today already"
    yield "out of scope", f"{_count(impact.spared, 'query')} for these names by devices that the order does not bind"


def remarks(preview: Preview) -> Iterator[str]:
    """What a reader must know to read the numbers rightly."""
    impact = preview.impact
    if any(source.format is Format.HITS for source in preview.sources):
        yield "logs of hits hold only what was recorded as a hit: names that were never listed are not in them"
    kinds = {(source.format, source.is_database) for source in preview.sources if source.queries}
    if len(kinds) > 1:
        yield "logs of several kinds were replayed: a query that stands in two of them counts twice"
    if preview.outside:
        yield f"{_count(preview.outside, 'query')} left out, being outside the time asked for"
    if impact.nameless:
        yield (
            f"{_count(impact.nameless, 'query')} without a client in the log: "
            f"taken to come from group {preview.question.groups[0]}"
        )
    if impact.queries and impact.first is None:
        yield "the logs tell no times"
    unread = sum(entry.count for entry in preview.unread)
    if unread:
        yield f"{_count(unread, 'record')} of the logs not among the queries, as told at the end"


def sections(preview: Preview) -> Iterator[Section]:
    """The tables that have rows."""
    for section in _sections(preview):
        if section.rows:
            yield section


def _sections(preview: Preview) -> Iterator[Section]:
    impact = preview.impact
    yield _listed(
        "Look at these before it is in force",
        "Names that others use too, or that are forbidden only if the order includes optional names.",
        ("rule", "app", "why", "what else breaks"), ("devices", "new", "hits"), impact.collateral,
        lambda row: (row.rule, row.app, ", ".join(_CAUTIONS[caution] for caution in row.cautions), row.collateral),
        lambda row: (row.devices, row.new, row.hits),
    )  # fmt: skip
    yield _listed(
        "By day", "Days in UTC.", ("day",), ("new", "hits", "all queries"), impact.by_day,
        lambda row: (row.day or _CAN_NOT_TELL,), lambda row: (row.new, row.hits, row.queries),
    )  # fmt: skip
    yield _listed(
        "By group", "", ("group",), ("devices", "new", "hits"), impact.by_group,
        lambda row: (row.group or _NO_GROUP,), lambda row: (row.devices, row.new, row.hits),
    )  # fmt: skip
    yield _listed(
        "By device", "", ("device", "group"), ("new", "hits"), impact.by_device,
        lambda row: (row.client or _CAN_NOT_TELL, row.group or _NO_GROUP), lambda row: (row.new, row.hits),
    )  # fmt: skip
    yield _listed(
        "By app", "", ("app",), ("devices", "new", "hits"), impact.by_app,
        lambda row: (row.app,), lambda row: (row.devices, row.new, row.hits),
    )  # fmt: skip
    for title, says, listing in (
        ("By name", "", impact.by_name),
        ("By alias only", "Not forbidden themselves; what they lead to is.", impact.by_chain),
    ):
        yield _listed(
            title, says, ("name", "rule", "app"), ("new", "hits"), listing,
            lambda row: (row.name, row.rule, row.app), lambda row: (row.new, row.hits),
        )  # fmt: skip
    yield _listed(
        "Out of scope", "Devices that asked for names of the order and would get them as before.",
        ("device", "group", "why"), ("queries",), impact.out_of_scope,
        lambda row: (row.client or _CAN_NOT_TELL, row.group or _NO_GROUP, _HOLDS[row.hold]),
        lambda row: (row.queries,),
    )  # fmt: skip
    yield _listed(
        "Withheld today already", "", ("name", "by"), ("queries",), impact.already,
        lambda row: (row.name, row.order), lambda row: (row.queries,),
    )  # fmt: skip
    yield Section(
        "Logs", "", ("file", "format", "queries"), 2,
        tuple((source.path, source.format.value, f"{source.queries:,}") for source in preview.sources),
    )  # fmt: skip
    yield Section(
        "Not among the queries", "Records of the logs that were not replayed, with the first of each kind.",
        ("reason", "where", "how it begins", "records"), 3,
        tuple(
            (entry.reason.meaning if not i else "", example.place, example.text, f"{entry.count:,}" if not i else "")
            for entry in preview.unread
            for i, example in enumerate(entry.first)
        ),
    )  # fmt: skip


def _listed(
    title: str,
    says: str,
    texts: tuple[str, ...],
    numbers: tuple[str, ...],
    listing: Listing[_R],
    text_of: Callable[[_R], tuple[str, ...]],
    numbers_of: Callable[[_R], tuple[int, ...]],
) -> Section:
    rows = tuple((*text_of(row), *(f"{number:,}" for number in numbers_of(row))) for row in listing.rows)
    return Section(title, says, (*texts, *numbers), len(texts), rows, _rest(listing))


def _rest(listing: Listing[_R]) -> tuple[str, ...]:
    more = listing.distinct - len(listing.rows)
    notes = []
    if more:
        notes.append(f"and {more:,} more, with {listing.left_out:,} queries; --top shows more of them")
    if listing.overflow:
        notes.append(f"and {listing.overflow:,} queries of rows that there was no room to tell apart")
    return tuple(notes)


def _count(number: int, what: str) -> str:
    plural = {"query": "queries"}.get(what, f"{what}s")
    return f"{number:,} {what if number == 1 else plural}"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


# ---- terminal and programs -------------------------------------------------------------------------------------------


def as_json(preview: Preview) -> dict[str, object]:
    """The preview for programs: `Preview` as it is, times in RFC 3339, and the remarks.

    `impact.first` and `impact.last` are null where the logs tell no times. A listing has `rows`, `distinct`, `left_out`
    and `overflow`, as `policy.preview.Listing` says.
    """
    impact = asdict(preview.impact)
    for key in ("first", "last"):
        impact[key] = None if impact[key] is None else datetime.fromtimestamp(impact[key], UTC).isoformat()
    return {
        **asdict(preview.question),
        "effective": preview.question.effective.isoformat(),
        "at": preview.at.isoformat(),
        "sources": [asdict(source) for source in preview.sources],
        "outside": preview.outside,
        "unread": [{**asdict(entry), "meaning": entry.reason.meaning} for entry in preview.unread],
        "remarks": list(remarks(preview)),
        "impact": impact,
    }


def show(preview: Preview) -> None:
    """Print the preview for people."""
    parts: list[table.Part] = [table.facts(facts(preview))]
    parts += [f"note: {remark}" for remark in remarks(preview)]
    for section in sections(preview):
        says = f": {section.says}" if section.says else ""
        parts += ["", Text.assemble((section.title, "bold"), says)]
        parts.append(table.table(section.headings, section.rows, texts=section.texts))
        parts += [Text(note, style="dim") for note in section.notes]
    table.show(*parts)


# ---- the page -------------------------------------------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .25rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem; }
dt { font-weight: 600; } dd { margin: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: start; padding-bottom: .5rem; }
th, td { border-bottom: 1px solid GrayText; padding: .3rem .8rem .3rem 0; text-align: start; vertical-align: top; }
td, th[scope=row] { overflow-wrap: anywhere; font-weight: inherit; }
.number { text-align: end; font-variant-numeric: tabular-nums; overflow-wrap: normal; white-space: nowrap; }
footer, .note { font-size: .9rem; }
@media print {
  body { margin: 0; max-width: none; font-size: 9pt; }
  .scroll { overflow: visible; } thead { display: table-header-group; } tr, h2 { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""


def page(preview: Preview) -> str:
    """The whole preview as one HTML file, for a browser or a printer."""
    title = escape(f"Preview of {preview.question.order}")
    return "\n".join([
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">""",
        '<meta name="referrer" content="no-referrer">',
        f"<title>{title}</title>",
        f"<style>{_STYLE}</style>",
        "</head>",
        "<body>",
        "<main>",
        f"<h1>{title}</h1>",
        "<dl>",
        *(f"<dt>{escape(word)}</dt><dd>{escape(line)}</dd>" for word, line in facts(preview)),
        "</dl>",
        *_list(remarks(preview)),
        *(line for i, section in enumerate(sections(preview)) for line in _section(i, section)),
        "</main>",
        f"<footer><p>Made by interdict preview, {_moment(preview.at.timestamp())}.</p></footer>",
        "</body>",
        "</html>",
        "",
    ])  # fmt: skip


def _list(lines: Iterable[str]) -> Iterator[str]:
    found = [f"<li>{escape(line)}</li>" for line in lines]
    if found:
        yield from ("<ul>", *found, "</ul>")


def _section(number: int, section: Section) -> Iterator[str]:
    yield f'<section aria-labelledby="s{number}">'
    yield f'<h2 id="s{number}">{escape(section.title)}</h2>'
    # A table that is wider than the screen scrolls: by keyboard too, so it can be reached and has a name.
    yield f'<div class="scroll" role="region" aria-labelledby="s{number}" tabindex="0"><table>'
    yield f"<caption>{escape(section.says or section.title)}</caption>"
    yield f"<thead><tr>{''.join(_cells(section, section.headings, 'col'))}</tr></thead>"
    yield "<tbody>"
    for row in section.rows:
        yield f"<tr>{''.join(_cells(section, row, 'row'))}</tr>"
    yield "</tbody></table></div>"
    for note in section.notes:
        yield f'<p class="note">{escape(note)}</p>'
    yield "</section>"


def _cells(section: Section, texts: Sequence[str], scope: str) -> Iterator[str]:
    for i, text in enumerate(texts):
        mark = ' class="number"' if i >= section.texts else ""
        heads = scope == "col" or (i == 0 and text != "")
        tag = f'th scope="{scope}"' if heads else "td"
        yield f"<{tag}{mark}>{escape(text)}</{tag[:2]}>"
