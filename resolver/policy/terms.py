"""The terms of a generation: everything in it but its names, as values and as the JSON of its header.

Groups, orders, apps and zones are numbered by their place in the terms; claims say by number who holds a name. Holders
are the orders, followed by the zones: `PolicyTerms.holder` gives either.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from resolver.policy.documents import ORDER_ACTIONS, Action, Basis, Mode
from resolver.policy.zone import LocalRecord, Reach, Rule, Trigger

FOREVER = float("inf")


class Precedence(StrEnum):
    """Which of several orders on one name decides: the strictest action, or the one configured first."""

    STRICTEST = "strictest"
    CONFIGURED = "configured"


class ZoneKind(StrEnum):
    """Whose rules a zone holds: it decides on precedence and on how its rules are weighed among themselves.

    A RULE is the operator's own and goes before all orders. In an RPZ the nearest name decides and PASSTHRU ends the
    matter; in a LIST an exception only takes back what the same list forbids.
    """

    RULE = "rule"
    RPZ = "rpz"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class GroupEntry:
    """A set of devices and the networks that they ask from."""

    name: str
    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OrderEntry:
    """What judging and reporting need of an order."""

    id: str
    title_en: str
    title_fr: str
    basis: Basis
    spans: tuple[tuple[float, float], ...]  # when it acts: half-open, in order; Unix seconds, the last may end FOREVER

    def is_in_force(self, at: float) -> bool:
        """Whether the order acts at a moment (Unix seconds)."""
        return any(begin <= at < end for begin, end in self.spans)


@dataclass(frozen=True, slots=True)
class AppEntry:
    """What judging and reporting need of an app."""

    id: str
    name: str


NO_APP = AppEntry("", "")


@dataclass(frozen=True, slots=True)
class EnforcementEntry:
    """One line of `policy.orders`: an order, held against some groups, for some time (Unix seconds, half-open)."""

    order: int
    groups: tuple[int, ...]
    mode: Mode
    action: Action
    since: float = -FOREVER
    until: float = FOREVER


@dataclass(frozen=True, slots=True)
class ExemptionEntry:
    """Who is spared what: for some time, every pair of an order and an app that is named, for a group or a device."""

    id: str
    groups: tuple[int, ...]
    devices: tuple[str, ...]  # networks, and names of recognised devices
    spares: tuple[tuple[int, int], ...]  # (order, app)
    since: float  # Unix seconds, half-open
    until: float


@dataclass(frozen=True, slots=True)
class ZoneEntry:
    """A policy zone, less the names it holds.

    Attributes:
        id: As hits and metrics name it: `zone:rpz.example`, `rule:cdn-false-positive`.
        kind: How it is weighed.
        groups: For whom; empty for everybody.
        mode: Whether it acts or only logs.
        rules: By number.
        override: What acts in place of each rule's own action, a list's exceptions apart, or None.
        networks: Triggers on addresses: (trigger, network, rule).
        patterns: (RE2 expression, rule).
        soa: (owner's wire form, the record) of the zone it came from, for policy answers; None where it has none.
        nameservers: Whether it has NSDNAME or NSIP triggers.
        since, until: When it counts: Unix seconds, half-open.
        basis: On whose authority.
        source: Where it came from, for people.
        entries: How many triggers it has.
        refused: How many lines or records of its source were not taken.
    """

    id: str
    kind: ZoneKind
    groups: tuple[int, ...]
    mode: Mode
    rules: tuple[Rule, ...]
    override: Rule | None = None
    networks: tuple[tuple[Trigger, str, int], ...] = ()
    patterns: tuple[tuple[str, int], ...] = ()
    soa: tuple[bytes, LocalRecord] | None = None
    nameservers: bool = False
    since: float = -FOREVER
    until: float = FOREVER
    basis: Basis = Basis.OWN_POLICY
    source: str = ""
    entries: int = 0
    refused: int = 0

    def rule(self, number: int) -> Rule:
        """What acts where the rule of that number is met; a list's exception stays one, whatever acts for its rules."""
        written = self.rules[number]
        is_exception = self.kind is ZoneKind.LIST and written.action is Action.PASSTHRU
        return written if self.override is None or is_exception else self.override


@dataclass(frozen=True, slots=True)
class Claim:
    """One holder's hold on one name: an order's through an app, or a zone's by a rule (`part`)."""

    holder: int
    part: int
    reach: Reach


@dataclass(frozen=True, slots=True)
class PolicyTerms:
    """Everything in a generation but its names."""

    allowed_networks: tuple[str, ...]
    groups: tuple[GroupEntry, ...]
    orders: tuple[OrderEntry, ...]
    apps: tuple[AppEntry, ...]
    enforcements: tuple[EnforcementEntry, ...]
    claim_sets: tuple[tuple[Claim, ...], ...]
    block_ttl: int  # seconds
    sinkhole_ipv4: tuple[str, ...]
    sinkhole_ipv6: tuple[str, ...]
    precedence: Precedence = Precedence.STRICTEST
    exemptions: tuple[ExemptionEntry, ...] = ()
    zones: tuple[ZoneEntry, ...] = ()  # rules first, then the rest in order of precedence
    strip_ech: tuple[int, ...] = ()  # groups

    def holder(self, number: int) -> OrderEntry | ZoneEntry:
        """The order or zone that claims speak of by a number."""
        return self.orders[number] if number < len(self.orders) else self.zones[number - len(self.orders)]

    def moments(self) -> set[float]:
        """Every moment (Unix seconds) at which something begins or ends."""
        found = {moment for order in self.orders for span in order.spans for moment in span}
        entries: list[EnforcementEntry | ExemptionEntry | ZoneEntry] = [
            *self.enforcements,
            *self.exemptions,
            *self.zones,
        ]
        for entry in entries:
            found |= {entry.since, entry.until}
        return found - {FOREVER, -FOREVER}


# ---- JSON -----------------------------------------------------------------------------------------------------------
# Each value is the list of its fields, in their order; infinities are null, octets are hexadecimal.


def to_json(terms: PolicyTerms) -> dict[str, object]:
    """The terms as `json.dumps` takes them."""
    return {field.name: _plain(getattr(terms, field.name)) for field in fields(terms)}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if value in (FOREVER, -FOREVER):
        return None
    if hasattr(value, "__dataclass_fields__"):
        return [_plain(getattr(value, field.name)) for field in fields(value)]
    return value


def from_json(terms: dict[str, Any]) -> PolicyTerms:
    """The terms that `to_json` wrote.

    Raises:
        LookupError, TypeError, ValueError: It did not; a number that nothing has among them.
    """
    found = PolicyTerms(
        allowed_networks=tuple(terms["allowed_networks"]),
        groups=tuple(GroupEntry(name, tuple(networks)) for name, networks in terms["groups"]),
        orders=tuple(
            OrderEntry(id_, en, fr, Basis(basis), tuple((b, _end(e)) for b, e in spans))
            for id_, en, fr, basis, spans in terms["orders"]
        ),
        apps=tuple(AppEntry(*app) for app in terms["apps"]),
        enforcements=tuple(
            EnforcementEntry(order, tuple(groups), Mode(mode), Action(action), _begin(since), _end(until))
            for order, groups, mode, action, since, until in terms["enforcements"]
        ),
        claim_sets=tuple(tuple(Claim(o, p, Reach(r)) for o, p, r in claims) for claims in terms["claim_sets"]),
        block_ttl=terms["block_ttl"],
        sinkhole_ipv4=tuple(terms["sinkhole_ipv4"]),
        sinkhole_ipv6=tuple(terms["sinkhole_ipv6"]),
        precedence=Precedence(terms["precedence"]),
        exemptions=tuple(
            ExemptionEntry(id_, tuple(groups), tuple(networks), _pairs(spares), _begin(since), _end(until))
            for id_, groups, networks, spares, since, until in terms["exemptions"]
        ),
        zones=tuple(_zone(*zone) for zone in terms["zones"]),
        strip_ech=tuple(terms["strip_ech"]),
    )
    _check_numbers(found)
    return found


def _check_numbers(terms: PolicyTerms) -> None:
    """Refuse terms that speak by number of what is not there: who judges by them looks nothing up with care."""
    parts = [len(terms.apps)] * len(terms.orders) + [len(zone.rules) for zone in terms.zones]
    by_group: list[EnforcementEntry | ExemptionEntry | ZoneEntry] = [
        *terms.enforcements,
        *terms.exemptions,
        *terms.zones,
    ]
    _check("group", (number for entry in by_group for number in entry.groups), len(terms.groups))
    _check("group", terms.strip_ech, len(terms.groups))
    _check("order", (line.order for line in terms.enforcements), len(terms.orders))
    for exemption in terms.exemptions:
        _check("order", (order for order, _ in exemption.spares), len(terms.orders))
        _check("app", (app for _, app in exemption.spares), len(terms.apps))
    for zone in terms.zones:
        _check("rule", (rule for _, _, rule in zone.networks), len(zone.rules))
        _check("rule", (rule for _, rule in zone.patterns), len(zone.rules))
    for claims in terms.claim_sets:
        for claim in claims:
            _check("holder", (claim.holder,), len(parts))
            _check("app or rule", (claim.part,), parts[claim.holder])
    for line in terms.enforcements:
        if line.action not in ORDER_ACTIONS:
            raise ValueError(f"no order can have the action {line.action.value}")


def _check(what: str, numbers: Iterable[int], count: int) -> None:
    for number in numbers:
        if not isinstance(number, int) or not 0 <= number < count:
            raise IndexError(f"there is no {what} of number {number!r}")


def _begin(moment: float | None) -> float:
    return -FOREVER if moment is None else moment


def _end(moment: float | None) -> float:
    return FOREVER if moment is None else moment


def _pairs(written: list[list[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((first, second) for first, second in written)


def _rule(action: str, records: Any, qtypes: Any, but_qtypes: bool, spares: Any, important: bool) -> Rule:
    return Rule(
        Action(action), tuple(_record(*record) for record in records), tuple(qtypes), but_qtypes,
        tuple(bytes.fromhex(name) for name in spares), important,
    )  # fmt: skip


def _record(rtype: int, ttl: int, rdata: str) -> LocalRecord:
    return LocalRecord(rtype, ttl, bytes.fromhex(rdata))


def _zone(
    id_: str, kind: str, groups: Any, mode: str, rules: Any, override: Any, networks: Any, patterns: Any, soa: Any,
    nameservers: bool, since: float | None, until: float | None, basis: str, source: str, entries: int, refused: int,
) -> ZoneEntry:  # fmt: skip
    return ZoneEntry(
        id_, ZoneKind(kind), tuple(groups), Mode(mode), tuple(_rule(*rule) for rule in rules),
        None if override is None else _rule(*override),
        tuple((Trigger(trigger), network, rule) for trigger, network, rule in networks),
        tuple((pattern, rule) for pattern, rule in patterns),
        None if soa is None else (bytes.fromhex(soa[0]), _record(*soa[1])),
        nameservers, _begin(since), _end(until), Basis(basis), source, entries, refused,
    )  # fmt: skip
