"""Findings: what is surely not meant about a policy, in one form, and the words they are told in."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

from resolver.policy.steps import Standing

DAY = 86400.0  # seconds
_NAMED = 3  # of many, so many are named
_SLACK = 59.0  # seconds: what was given 30 days a moment ago ends in 30 days


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Kind(StrEnum):
    """What a finding is about."""

    ORDER = "order"
    APP = "app"
    EXEMPTION = "exemption"
    RULE = "rule"
    WAY_ROUND = "way-round"
    ZONE = "zone"
    GROUP = "group"
    CONFIGURATION = "configuration"


class Code(StrEnum):
    """What a finding says, for programs."""

    OVERLAP = "overlap"
    SHADOWED = "shadowed"
    REDUNDANT = "redundant"
    NO_EXCEPTION = "no-exception"
    IDLE = "idle"
    ENDED = "ended"
    ENDS_SOON = "ends-soon"
    NOT_YET = "not-yet"
    SPARES_NOBODY = "spares-nobody"
    PUBLIC_SUFFIX = "public-suffix"
    SHARED = "shared"
    NO_NAMES = "no-names"
    NOT_FETCHED = "not-fetched"
    STALE = "stale"
    FAILING = "failing"
    REFUSED_LINES = "refused-lines"
    OBSERVED = "observed"
    SWITCHED_OFF = "switched-off"
    NOT_ALLOWED = "not-allowed"
    NO_ORDER = "no-order"
    NO_GROUP = "no-group"
    SINKHOLE = "sinkhole"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class Where:
    """The place of a finding: a document or a part of the configuration, and in it a key."""

    kind: Kind
    id: str = ""
    key: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.id}" if self.id else self.key or str(self.kind)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is surely not meant; `message` is a sentence that says the mend."""

    severity: Severity
    where: Where
    code: Code
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings, errors before warnings before notes, else as they come."""
    return tuple(sorted(findings, key=lambda finding: list(Severity).index(finding.severity)))


def term_in_words(since: float, until: float, at: float) -> tuple[Standing, str]:
    """How something with a beginning and an end (Unix seconds) stands, and the same in words."""
    if until <= at:
        return Standing.EXPIRED, f"ended {moment(until)}"
    if at < since:
        return Standing.NOT_YET, f"begins in {in_words(since - at)}"
    return Standing.IN_FORCE, f"in force, ends in {in_words(until - at)}"


def in_words(seconds: float) -> str:
    """A span of time in its largest unit: `6 days`."""
    for unit, size in (("day", DAY), ("hour", 3600.0), ("minute", 60.0)):
        count = int((seconds + _SLACK) // size)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"


def moment(at: float) -> str:
    """A moment (Unix seconds), to the minute."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def some(found: Iterable[str]) -> str:
    """The first few of many, and how many more there are."""
    listed = list(found)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more


def are(count: int, noun: str, nouns: str = "") -> str:
    """So many of something, with the verb that belongs to it."""
    return f"1 {noun} is" if count == 1 else f"{count} {nouns or noun + 's'} are"


def is_within(inner: IPv4Network | IPv6Network, outer: IPv4Network | IPv6Network) -> bool:
    """Whether a network lies in another one of either family."""
    shift = outer.max_prefixlen - outer.prefixlen
    return (
        inner.version == outer.version
        and inner.prefixlen >= outer.prefixlen
        and int(inner.network_address) >> shift == int(outer.network_address) >> shift
    )
