"""The two kinds of documents that people write and review: an App says which names belong to an application, an Order
says who forbids it, to whom, since when.

What stands here is what the files say, checked for sense; what follows from it (rules, views) is `compile`'s affair.
How the files look is told in `blocklists/README.md`, whose tables follow the `Field` descriptions below.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Self, TypeVar

from pydantic import Field, StrictBool, StrictInt, model_validator

from resolver.policy.source import Document, KeyPath, Written, did_you_mean, items, shown, value
from resolver.wire import name as names

_T = TypeVar("_T")


class Match(StrEnum):
    """How far a name reaches: itself only, or itself and all below it on a label boundary."""

    EXACT = "exact"
    SUFFIX = "suffix"


class Purpose(StrEnum):
    """What an application does with a name."""

    CORE = "core"
    MESSAGING = "messaging"
    PAYMENTS = "payments"
    DOWNLOAD = "download"
    TELEMETRY = "telemetry"
    UPDATE = "update"
    WEB = "web"
    SHARED_CDN = "shared-cdn"


class Confidence(StrEnum):
    """How sure the sources make us."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Use(StrEnum):
    """What orders make of a name: forbid it, forbid it where the order includes optional names, or leave it alone."""

    BLOCK = "block"
    OPTIONAL = "optional"
    NEVER = "never"


class Level(StrEnum):
    """Whether an order names the application, or the company behind it."""

    APP = "app"
    VENDOR = "vendor"


class Basis(StrEnum):
    """On whose authority names are withheld: it decides between EDE Blocked (RFC 8914 §4.16) and Censored (§4.17)."""

    OUTSIDE_AUTHORITY = "outside-authority"
    OWN_POLICY = "own-policy"


class ActKind(StrEnum):
    """What can happen to an order after it was made."""

    SUSPENDED = "suspended"
    RESUMED = "resumed"
    REVOKED = "revoked"
    SUPERSEDED = "superseded"


class OrderState(StrEnum):
    """How an order stands at one moment."""

    ANNOUNCED = "announced"
    IN_FORCE = "in-force"
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"


class Action(StrEnum):
    """What a client gets in place of the answer; the last three are for policy zones, not for orders."""

    NXDOMAIN = "nxdomain"
    NODATA = "nodata"
    SINKHOLE = "sinkhole"
    REFUSED = "refused"
    DROP = "drop"
    PASSTHRU = "passthru"
    TCP_ONLY = "tcp-only"
    LOCAL_DATA = "local-data"


ORDER_ACTIONS = (Action.NXDOMAIN, Action.NODATA, Action.SINKHOLE, Action.REFUSED, Action.DROP)


class Mode(StrEnum):
    """Whether an order only logs what it would have done, or does it."""

    OBSERVE = "observe"
    ENFORCE = "enforce"


# ---- how values are written -----------------------------------------------------------------------------------------

_HOST_NAME = re.compile(r"(?=.*[a-z])[a-z0-9_.-]+")
_DECORATION = re.compile(r"^(?:[a-z]+://|[|.*]+)|[/^$:].*$", re.IGNORECASE | re.DOTALL)  # of URLs and list formats
_ADDRESS = re.compile(r"[0-9][0-9.]*|[0-9a-f:]*:[0-9a-f:.]*")
_IDENTIFIER = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
_URL = re.compile(r"https?://[^\s/?#]+\S*")


def parse_zone(written: object) -> str:
    """A name as documents write it: lower case, ASCII, no trailing dot.

    Raises:
        ValueError: Anything else, with the name to write instead where one can be told.
    """
    if not isinstance(written, str):
        raise ValueError(f"this is {shown(written)}; write a domain name such as example.org")
    if _ADDRESS.fullmatch(written.lower()):
        raise ValueError(f"{shown(written)} is an address; write a domain name such as example.org")
    bare = _DECORATION.sub("", written.strip())
    try:
        normal = names.to_text(names.from_text(bare))
    except names.BadName as error:
        raise ValueError(f"{shown(written)} is not a domain name ({error}); write a name such as example.org") from None
    if not _HOST_NAME.fullmatch(normal):
        raise ValueError(f"{shown(written)} is not a domain name; write letters, digits, hyphens and dots")
    if written.startswith(("*", ".", "|")):
        raise ValueError(
            f'{shown(written)} is a pattern; write "{normal}" with "match: suffix" for it and all below it'
        )
    if normal != written:
        raise ValueError(f'{shown(written)} is not how a name is written here; write "{normal}"')
    return normal


def parse_name(written: object) -> str:
    """A name of at least two labels, as `parse_zone` reads it.

    Raises:
        ValueError: Anything else.
    """
    normal = parse_zone(written)
    if "." not in normal:
        raise ValueError(f"{shown(written)} is a whole top-level domain; write a longer name, such as app.{normal}")
    return normal


def parse_identifier(written: object) -> str:
    """An id: lower-case letters, digits and single hyphens, at most 64 characters.

    Raises:
        ValueError: Anything else.
    """
    if isinstance(written, str) and len(written) <= 64 and _IDENTIFIER.fullmatch(written):
        return written
    suggestion = (
        "-".join(re.findall("[a-z0-9]+", str(written).lower()))[:64].strip("-")
        if isinstance(written, str | int)
        else ""
    )
    raise ValueError(
        f"{shown(written)} is not an id; write lower-case letters, digits and hyphens, such as {suggestion or 'my-app'}"
    )


def parse_date(written: object) -> date:
    """A day, as 2023-10-30.

    Raises:
        ValueError: Anything else.
    """
    try:
        if isinstance(written, str) and _DATE.fullmatch(written):
            return date.fromisoformat(written)
    except ValueError as error:
        raise ValueError(f"{shown(written)} is not a day ({error}); write a date such as 2023-10-30") from None
    raise ValueError(f"{shown(written)} is not a day; write a date such as 2023-10-30")


def parse_instant(written: object) -> datetime:
    """An instant with its offset, as 2023-10-30T00:00:00-04:00 (RFC 3339 §5.6).

    Raises:
        ValueError: Anything else; a bare day too, because it does not say where on Earth it begins.
    """
    if isinstance(written, str) and _DATE.fullmatch(written):
        raise ValueError(
            f"{shown(written)} does not say when that day begins; write the hour and the offset from UTC, "
            f"such as {written}T00:00:00-04:00"
        )
    example = "write an instant such as 2023-10-30T00:00:00-04:00"
    if not isinstance(written, str) or not _INSTANT.fullmatch(written):
        lacks = isinstance(written, str) and _INSTANT.fullmatch(written + "Z")
        raise ValueError(f"{shown(written)} {'has no offset from UTC' if lacks else 'is not an instant'}; {example}")
    try:
        instant = datetime.fromisoformat(written)
    except ValueError as error:
        raise ValueError(f"{shown(written)} is not an instant ({error}); {example}") from None
    if not 1970 < instant.year < 9999:
        raise ValueError(f"{shown(written)} lies outside the years 1971 to 9998; {example}")
    return instant


def _parse_url(written: object) -> str:
    if isinstance(written, str) and _URL.fullmatch(written):
        return written
    raise ValueError(f"{shown(written)} is not a web address; write one such as https://www.example.org/order")


def _parse_order_action(written: object) -> Action:
    choices = [action.value for action in ORDER_ACTIONS]
    if written not in choices:
        if not isinstance(written, str):
            raise ValueError(f"this is {shown(written)}; write one of: {', '.join(choices)}")
        raise ValueError(f"{shown(written)} is unknown here{did_you_mean(written, choices)}")
    return Action(written)


def _parse_line(written: object) -> str:
    if isinstance(written, bool | int | float):
        raise ValueError(f'{shown(written)} is not text; write "{shown(written)}" in quotes')
    if not isinstance(written, str) or not written.strip():
        raise ValueError(f"this is {shown(written) if written != '' else 'empty'}; write one line of text")
    if "\n" in written.strip():
        raise ValueError("this is several lines of text; write one line")
    if len(written) > 200:
        raise ValueError(f"this text is {len(written)} characters long; write at most 200")
    return written.strip()


HostName = Annotated[str, Written(parse_name, {"type": "string", "pattern": r"^[a-z0-9_-]+(\.[a-z0-9_-]+)+$"})]
Identifier = Annotated[
    str, Written(parse_identifier, {"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$", "maxLength": 64})
]
Day = Annotated[date, Written(parse_date, {"type": "string", "format": "date"})]
Instant = Annotated[datetime, Written(parse_instant, {"type": "string", "format": "date-time"})]
Url = Annotated[str, Written(_parse_url, {"type": "string", "pattern": "^https?://"})]
Line = Annotated[str, Written(_parse_line, {"type": "string", "minLength": 1, "maxLength": 200})]
OrderAction = Annotated[Action, Written(_parse_order_action, {"enum": [action.value for action in ORDER_ACTIONS]})]
Prose = Annotated[str, Field(min_length=1, max_length=4000)]


def _repeated(written: list[object], path: KeyPath, what: str) -> Iterator[tuple[KeyPath, str]]:
    seen: set[str] = set()
    for i, entry in enumerate(written):
        if isinstance(entry, str):
            if entry in seen:
                yield (*path, i), f"{what} {shown(entry)} is listed twice; delete this one"
            seen.add(entry)


def _made(parse: Callable[[object], _T], written: object) -> _T | None:
    """What a parser makes of a value; None where it refuses it, which is told at the field."""
    try:
        return parse(written)
    except ValueError:
        return None


# ---- App ------------------------------------------------------------------------------------------------------------


class Domain(Document):
    """A name of an application, with what it is for and how we know."""

    name: HostName = Field(description="Lower case, no trailing dot, no wildcard.", examples=["example.org"])
    match: Match = Field(description="exact: this name only; suffix: this name and all below it.", examples=["suffix"])
    purpose: Purpose = Field(description="What the application does with the name.", examples=["core"])
    confidence: Confidence = Field(description="How sure the sources make us.", examples=["high"])
    use: Use = Field(
        description="block: forbidden by every order that names the app; optional: only where the order includes "
        "optional names; never: shared with others, no order forbids it through this app.",
        examples=["block"],
    )
    sources: tuple[Line, ...] = Field(
        min_length=1, description="Where it was read: ids of sources.md.", examples=[["V2-tencent"]]
    )
    collateral: str = Field(
        default="",
        description="What else breaks; required unless use is block.",
        examples=["third-party shops use it too"],
    )
    attribution: str = Field(
        default="",
        description="Why a lookup is weak evidence that the app is there.",
        examples=["embedded by news sites"],
    )

    @model_validator(mode="after")
    def _says_why_it_is_spared(self) -> Self:
        if self.use is not Use.BLOCK and not self.collateral:
            raise ValueError(
                f'"use: {self.use.value}" needs "collateral"; write what else would break, or "none known"'
            )
        return self

    def wire(self) -> bytes:
        """The name in lower-cased wire form."""
        return names.from_text(self.name)


class Entry(Document):
    """A document that others refer to by its id."""

    id: Identifier = Field(description="The file's name without .yaml; others refer to it.", examples=["my-app"])


class App(Entry):
    """One banned application or suite: a file in `apps/`, named after its id."""

    names: tuple[Line, ...] = Field(
        min_length=1, description="What people call it; the first is shown.", examples=[["WeChat", "Weixin"]]
    )
    vendor: Line = Field(description="Who makes it.", examples=["Example Corp."])
    country: str = Field(default="", description="Where the vendor is at home.", examples=["Canada"])
    product_lines: tuple[Prose, ...] = Field(
        default=(), description="What the suite consists of.", examples=[["Example Chat"]]
    )
    packages: tuple[Prose, ...] = Field(
        default=(), description="Package names on devices.", examples=[["org.example.chat"]]
    )
    domains: tuple[Domain, ...] = Field(
        min_length=1,
        description="Its names.",
        examples=[
            [
                {
                    "name": "example.org",
                    "match": "suffix",
                    "purpose": "core",
                    "confidence": "high",
                    "use": "block",
                    "sources": ["EX"],
                }
            ]
        ],
    )
    observed_hosts: tuple[HostName, ...] = Field(
        default=(),
        description="Names seen in use; tests hold that the block rules cover each.",
        examples=[["chat.example.org"]],
    )
    notes: tuple[Prose, ...] = Field(default=(), description="Which feature uses which names, and the like.")
    bypass_notes: tuple[Prose, ...] = Field(default=(), description="How the app gets round DNS.")
    ip_notes: tuple[Prose, ...] = Field(
        default=(), description="What is known of its addresses; nothing here is enforced."
    )

    @classmethod
    def cross_check(cls, written: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
        """One entry a name and match; and no name both forbidden and never to be forbidden."""
        seen: set[tuple[object, object]] = set()
        blocked = {
            value(d, "name") for d in items(written, "domains") if value(d, "use") == Use.BLOCK.value and _is_named(d)
        }
        for i, entry in enumerate(items(written, "domains")):
            if not _is_named(entry):
                continue
            name, match = value(entry, "name"), value(entry, "match")
            if isinstance(match, str):
                if (name, match) in seen:
                    yield (
                        ("domains", i, "name"),
                        f"{shown(name)} is listed twice with match {match}; merge the two entries",
                    )
                seen.add((name, match))
            if value(entry, "use") == Use.NEVER.value and name in blocked:
                yield (
                    ("domains", i, "name"),
                    f'{shown(name)} is both "use: block" and "use: never" here; keep one of them',
                )
        yield from _repeated(items(written, "observed_hosts"), ("observed_hosts",), "name")


def _is_named(entry: object) -> bool:
    return isinstance(value(entry, "name"), str)


# ---- Order ----------------------------------------------------------------------------------------------------------


class Scope(Document):
    """Whom an order binds."""

    devices: Prose = Field(description="Which devices.", examples=["government-issued mobile devices"])
    level: Level = Field(
        description="app: the order names the application; vendor: it names the company.", examples=["app"]
    )
    people: str = Field(default="", description="Whose devices.", examples=["employees; not the public"])
    extent: str = Field(
        default="", description="How far it reaches, in the order's words.", examples=["any successor application"]
    )


class Citation(Document):
    """Where an order was read."""

    title: Prose = Field(description="Title of the page.", examples=["Example ban announced"])
    publisher: Prose = Field(description="Who published it.", examples=["Example Gazette"])
    url: Url = Field(description="Its address.", examples=["https://www.example.org/order"])
    read: Prose = Field(description="What was read: primary, wire copy, report, summary.", examples=["primary"])


class Act(Document):
    """What a court or an authority did to an order after it was made."""

    act: ActKind = Field(
        description="suspended: it does not act until it is resumed; revoked or superseded: it never acts again.",
        examples=["suspended"],
    )
    at: Instant = Field(description="From when, with the offset from UTC.", examples=["2020-09-19T00:00:00-07:00"])
    by: Prose = Field(
        description="Which court or authority; for superseded the id of the order that took its place.",
        examples=["Federal Court of Canada"],
    )
    citation: Citation | None = Field(
        default=None,
        description="Where it was read.",
        examples=[
            {"title": "Ban stayed", "publisher": "Gazette", "url": "https://www.example.org/stay", "read": "primary"}
        ],
    )


class Bilingual(Document):
    """One line in both official languages."""

    en: Line = Field(description="English.", examples=["WeChat is not allowed on this device"])
    fr: Line = Field(description="French.", examples=["WeChat n'est pas permis sur cet appareil"])


class Notice(Document):
    """What the person holding the blocked device is told, in both official languages."""

    en: Prose = Field(description="English.", examples=["Contact your service desk."])
    fr: Prose = Field(description="French.", examples=["Communiquez avec votre bureau de service."])


class Order(Entry):
    """A ban as an authority gave it: a file in `orders/`, named after its id."""

    jurisdiction: Line = Field(description="Whose law.", examples=["Canada (federal)"])
    authority: Prose = Field(description="Who ordered it.", examples=["Chief Information Officer of Canada"])
    instrument: Prose = Field(description="By what paper.", examples=["Direction 1-2025"])
    announced: Day = Field(description="The day it was made public.", examples=["2023-10-30"])
    effective: Instant = Field(
        description="From when it binds, with the offset from UTC.", examples=["2023-10-30T00:00:00-04:00"]
    )
    expires: Instant | None = Field(
        default=None, description="Until when, if it ends.", examples=["2030-01-01T00:00:00-05:00"]
    )
    acts: tuple[Act, ...] = Field(
        default=(),
        description="What happened to it since, in order of time.",
        examples=[[{"act": "suspended", "at": "2020-09-19T00:00:00-07:00", "by": "Federal Court of Canada"}]],
    )
    scope: Scope = Field(
        description="Whom it binds.", examples=[{"devices": "government-issued mobile devices", "level": "app"}]
    )
    basis: Basis = Field(
        description="outside-authority: others impose it on the operator (EDE 16 Censored, RFC 8914 §4.17); "
        "own-policy: the operator's own rule (EDE 15 Blocked, RFC 8914 §4.16).",
        examples=["outside-authority"],
    )
    apps: tuple[Identifier, ...] = Field(min_length=1, description="Ids of the apps it forbids.", examples=[["wechat"]])
    include_optional: StrictBool = Field(
        default=False, description="Forbid names with `use: optional` too.", examples=[True]
    )
    min_confidence: Confidence = Field(
        default=Confidence.LOW, description="Leave out names that are less sure than this.", examples=["medium"]
    )
    longest_exemption: StrictInt = Field(
        default=366, ge=1, le=3660, description="Days that an exemption from it may last at most.", examples=[180]
    )
    requires: Mapping[str, str] = Field(
        default_factory=dict, description="What it demands, by topic.", examples=[{"removal": "removed from devices"}]
    )
    rationale: str = Field(default="", description="Its reasons, in its words.")
    citations: tuple[Citation, ...] = Field(
        min_length=1,
        description="Where it was read.",
        examples=[
            [{"title": "Ban announced", "publisher": "Gazette", "url": "https://www.example.org/", "read": "primary"}]
        ],
    )
    confidence: Confidence = Field(description="How sure the sources make us of it.", examples=["high"])
    title: Bilingual = Field(
        description="One line for people.", examples=[{"en": "WeChat ban", "fr": "Interdiction de WeChat"}]
    )
    notice: Notice = Field(
        description="What the person holding the blocked device is told.",
        examples=[{"en": "Contact your service desk.", "fr": "Communiquez avec votre bureau de service."}],
    )
    notes: str = Field(default="", description="Readings and doubts.")

    @classmethod
    def cross_check(cls, written: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
        """Each app once; acts that can have followed one another; and an end after the beginning."""
        yield from _repeated(items(written, "apps"), ("apps",), "app")
        yield from _impossible_acts(written)
        begins, ends = (_made(parse_instant, value(written, key)) for key in ("effective", "expires"))
        if begins is not None and ends is not None and ends <= begins:
            yield ("expires",), f"the order expires before it is effective; write an instant after {begins.isoformat()}"

    def in_force(self) -> tuple[tuple[datetime, datetime | None], ...]:
        """Tell when the order acts.

        Returns:
            Half-open intervals (from, until), disjoint and in order; until is None where no end is known. Empty for an
            order that was stopped before it ever acted.
        """
        spans: list[tuple[datetime, datetime | None]] = []
        since: datetime | None = self.effective  # None: it does not act
        for act in self.acts:
            if act.act is ActKind.RESUMED:
                since = since or max(act.at, self.effective)
            elif since is not None:
                spans.append((since, act.at))
                since = None
        if since is not None:
            spans.append((since, None))
        clipped = ((begin, _earlier(end, self.expires)) for begin, end in spans)
        return tuple((begin, end) for begin, end in clipped if end is None or begin < end)

    def state(self, at: float) -> OrderState:
        """Tell how the order stands.

        It is in force exactly within the intervals of `in_force`. What ended it first stays its state for good; one
        that is suspended before it is effective is suspended, not announced.

        Args:
            at: Unix seconds.
        """
        last = next((act for act in reversed(self.acts) if act.at.timestamp() <= at), None)
        ended = last is not None and last.act in _ENDS and (self.expires is None or last.at < self.expires)
        if not ended and self.expires is not None and self.expires.timestamp() <= at:
            return OrderState.EXPIRED
        if last is not None and last.act is not ActKind.RESUMED:
            return OrderState(last.act.value)
        return OrderState.ANNOUNCED if at < self.effective.timestamp() else OrderState.IN_FORCE


_ENDS = frozenset({ActKind.REVOKED, ActKind.SUPERSEDED})


def _earlier(first: datetime | None, second: datetime | None) -> datetime | None:
    return min((moment for moment in (first, second) if moment is not None), default=None)


def _impossible_acts(written: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
    """Acts that cannot have happened as they are written, each with what to write."""
    announced = _made(parse_date, value(written, "announced"))
    latest: datetime | None = None
    suspended = False
    end = ""
    for i, entry in enumerate(items(written, "acts")):
        kind, by = value(entry, "act"), value(entry, "by")
        if end:
            yield ("acts", i, "act"), f"nothing happens to an order that was {end} before; delete this act, or that one"
            continue
        if kind == ActKind.RESUMED.value and not suspended:
            yield (
                ("acts", i, "act"),
                'the order is not suspended here; write the act that suspended it before this one, or delete "resumed"',
            )
        suspended = kind != ActKind.RESUMED.value
        end = kind if isinstance(kind, str) and kind in _ENDS else ""
        at = _made(parse_instant, value(entry, "at"))
        if at is not None and announced is not None and at.date() < announced:
            yield (
                ("acts", i, "at"),
                f"the order was announced on {announced} only; write an instant on or after that day",
            )
        if at is not None and latest is not None and at <= latest:
            yield ("acts", i, "at"), "this is not later than the act before it; write the acts in order of time"
        latest = at or latest
        if kind == ActKind.SUPERSEDED.value and isinstance(by, str):
            if by == value(written, "id"):
                yield ("acts", i, "by"), "this is the order itself; write the id of the order that took its place"
            elif _made(parse_identifier, by) is None:
                yield ("acts", i, "by"), f"{shown(by)} is not an id; write the id of the order that took its place"
