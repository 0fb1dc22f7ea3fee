"""Holds of zones and own rules on a name that come to nothing: why a name is listed, and the list does nothing.

`judge` says which holds count; of the others it is told here what keeps them from it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from resolver.policy.documents import Action
from resolver.policy.generation import View
from resolver.policy.judge import Verdict
from resolver.policy.terms import ZoneEntry, ZoneKind
from resolver.policy.zone import Reach
from resolver.wire import name as names


class Miss(Enum):
    """What keeps a hold from counting: another group, its time, how far it reaches, what narrows its rule, an exception
    of the same list, or a nearer name of the same policy zone, which keeps a wildcard away (RFC 4592 §3.3.1)."""

    GROUP = auto()
    NOT_YET = auto()
    ENDED = auto()
    EXACT = auto()
    BELOW = auto()
    TYPE = auto()
    SPARED = auto()
    EXCEPTION = auto()
    NEARER = auto()


@dataclass(frozen=True, slots=True)
class Unmet:
    """A hold that comes to nothing: whose, on what name (or pattern), how far it reaches, and why.

    `by` names the exception that takes it back.
    """

    zone: ZoneEntry
    name: str
    match: str
    miss: Miss
    by: str = ""


@dataclass(frozen=True, slots=True)
class _Hold:
    number: int
    part: int
    offset: int
    reach: Reach
    name: str
    pattern: str = ""


def unmet_claims(qname: bytes, qtype: int, view: View, at: float, verdicts: Sequence[Verdict]) -> Iterator[Unmet]:
    """Every hold of a zone or own rule on a name or what stands above it that makes none of the verdicts.

    Args:
        qname: Lower-cased wire form.
        qtype: The type asked for.
        view: The client's.
        at: Unix seconds.
        verdicts: What `judge.weigh` says about the question.
    """
    zones = view.generation.terms.zones
    holds = list(_holds(qname, view))
    counted = {(id(one.order), one.owner_offset, one.reach, one.pattern) for one in verdicts if not one.network}
    # What passes by a list's own rule is an exception: it is no rule itself, and is told beside what it takes back.
    exceptions = {
        zones[hold.number].id: hold.pattern or hold.name
        for hold in holds
        if _is_exception(zones[hold.number], hold) and _misses(hold, zones[hold.number], qname, qtype, view, at) is None
    }
    for hold in holds:
        zone = zones[hold.number]
        if _is_exception(zone, hold) or (id(zone), hold.offset, hold.reach, hold.pattern) in counted:
            continue
        match = "pattern" if hold.pattern else hold.reach.name.lower()
        last = Miss.EXCEPTION if zone.kind is ZoneKind.LIST else Miss.NEARER
        miss = _misses(hold, zone, qname, qtype, view, at) or last
        by = exceptions.get(zone.id, "") if miss is Miss.EXCEPTION else ""
        yield Unmet(zone, hold.pattern or hold.name, match, miss, by)


def _holds(qname: bytes, view: View) -> Iterator[_Hold]:
    generation = view.generation
    orders = len(generation.terms.orders)
    for offset, claim_set in generation.covering(qname):
        for claim in generation.terms.claim_sets[claim_set]:
            if claim.holder >= orders and claim.reach is not Reach.NOTHING:
                name = names.to_text(qname[offset:])
                yield _Hold(claim.holder - orders, claim.part, offset, Reach(claim.reach), name)
    for number, patterns in generation.patterns.items():
        for pattern, part in patterns.match(names.to_text(qname)):
            yield _Hold(number, part, 0, Reach.EXACT, names.to_text(qname), pattern)


def _is_exception(zone: ZoneEntry, hold: _Hold) -> bool:
    return zone.kind is ZoneKind.LIST and zone.rule(hold.part).action is Action.PASSTHRU


def _misses(hold: _Hold, zone: ZoneEntry, qname: bytes, qtype: int, view: View, at: float) -> Miss | None:
    if hold.number not in view.zones:
        if at < zone.since:
            return Miss.NOT_YET
        return Miss.ENDED if at >= zone.until else Miss.GROUP
    if hold.reach is (Reach.EXACT if hold.offset else Reach.BELOW):
        return Miss.EXACT if hold.offset else Miss.BELOW
    rule = zone.rules[hold.part]
    if rule.qtypes and (qtype in rule.qtypes) is rule.but_qtypes:
        return Miss.TYPE
    if any(names.is_at_or_below(qname, spared) for spared in rule.spares):
        return Miss.SPARED
    return None
