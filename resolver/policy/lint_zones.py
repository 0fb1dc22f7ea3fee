"""What is surely not meant about the policy zones of a generation: copies that are old or missing, rules on what
strangers share, and rules that never act because an order or an earlier zone always decides before them.

Pure, and part of `lint`. All that is asked about a zone's names is asked of the compiled table, once for each name.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network

from resolver.policy.documents import Action, Mode
from resolver.policy.findings import Code, Finding, Kind, Severity, Where, are, in_words, is_within, moment, some
from resolver.policy.generation import Generation
from resolver.policy.suffixes import public_suffixes, shared, wildcard_parents
from resolver.policy.terms import FOREVER, OrderEntry, ZoneEntry, ZoneKind
from resolver.policy.zone import Reach, Trigger
from resolver.wire import name as names

_PATIENCE = 3  # refreshes that a copy may miss


@dataclass(frozen=True, slots=True)
class Supply:
    """How a zone that somebody else keeps came here: Unix seconds, and None for what is not known.

    `refresh` is how often it is asked for, in seconds; None for a local file.
    """

    id: str
    entries: int
    refused: int
    source: str
    refresh: float | None = None
    fetched_at: float | None = None
    checked_at: float | None = None
    failures: int = 0
    error: str | None = None


def lint_zones(generation: Generation, supplies: Sequence[Supply], at: float) -> Iterator[Finding]:
    """Find what is surely not meant about the zones.

    Args:
        generation: With all zones.
        supplies: Of the zones that somebody else keeps.
        at: Unix seconds.
    """
    for supply in supplies:
        yield from _supplied(supply, at)
    for zone in generation.terms.zones:
        if zone.mode is Mode.OBSERVE:
            message = "it only logs; write mode: enforce once its hits look right"
            yield Finding(Severity.NOTE, _place(zone.id), Code.OBSERVED, message)
    yield from _on_shared_names(generation)
    yield from _shadowed(generation, at)


def _place(id_: str) -> Where:
    kind, _, name = id_.partition(":")
    return Where(Kind.WAY_ROUND if kind == Kind.WAY_ROUND else Kind.ZONE, name or id_)


# ---- how they came here ---------------------------------------------------------------------------------------------


def _supplied(supply: Supply, at: float) -> Iterator[Finding]:
    where, source = _place(supply.id), supply.source
    if supply.fetched_at is None:
        why = f" ({supply.error})" if supply.error else ""
        message = f"holds nothing{why}; have `interdict serve` fetch it from {source}, or mend that address"
        yield Finding(Severity.WARNING, where, Code.NOT_FETCHED, message)
        return
    if supply.failures or supply.error:
        times = f"{supply.failures} times in a row" if supply.failures > 1 else "at the last try"
        message = (
            f"{times} {source} could not be used: {supply.error}; what came {moment(supply.fetched_at)} stays in force"
        )
        yield Finding(Severity.WARNING, where, Code.FAILING, message)
    checked = supply.checked_at or supply.fetched_at
    if supply.refresh is not None and at - checked > _PATIENCE * supply.refresh:
        message = (
            f"was last asked for {in_words(at - checked)} ago, and should be every {in_words(supply.refresh)}; see "
            f"that `interdict serve` runs and reaches {source}"
        )
        yield Finding(Severity.WARNING, where, Code.STALE, message)
    if supply.refused:
        message = (
            f"{are(supply.refused, 'entry', 'entries')} not taken of {source}; write its format, if auto guessed wrong"
        )
        yield Finding(Severity.NOTE, where, Code.REFUSED_LINES, message)
    if not supply.entries:
        message = f"{source} has no entry that can be taken; name the right one, or take the zone out"
        yield Finding(Severity.WARNING, where, Code.NO_NAMES, message)


# ---- what strangers share -------------------------------------------------------------------------------------------


def _on_shared_names(generation: Generation) -> Iterator[Finding]:
    terms = generation.terms
    found: dict[str, dict[str, None]] = {}

    def note(name: str, wire: bytes) -> None:
        claim_set = generation.table.find(wire)
        for claim in terms.claim_sets[claim_set] if claim_set >= 0 else ():
            zone = terms.holder(claim.holder)
            if (
                isinstance(zone, ZoneEntry)
                and claim.reach is not Reach.EXACT
                and _is_kept_by_others(zone)
                and not _takes_back(zone, claim.part)
            ):
                found.setdefault(zone.id, {})[name] = None

    for name in public_suffixes():
        note(name, names.from_text(name))
    parents = {names.from_text(parent) for parent in wildcard_parents()}
    for wire in generation.listed():
        if wire[0] and wire[wire[0] + 1 :] in parents and shared(name := names.to_text(wire)) is not None:
            note(name, wire)
    for id_, listed in found.items():
        message = (
            f"has rules on all below {some(sorted(listed))}, where strangers register; tell who keeps it, and write a "
            "rule of your own (`interdict allow`) for what breaks"
        )
        yield Finding(Severity.WARNING, _place(id_), Code.PUBLIC_SUFFIX, message)


def _is_kept_by_others(zone: ZoneEntry) -> bool:
    return zone.kind is not ZoneKind.RULE and not zone.id.startswith("way-round:")


# ---- what never acts ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tally:
    """Of a zone: its names, those that never act, and who decides before it."""

    names: int = 0
    shadowed: int = 0
    example: str = ""
    by: Counter[str] = field(default_factory=Counter)


def _shadowed(generation: Generation, at: float) -> Iterator[Finding]:
    terms = generation.terms
    first = len(terms.orders)
    before = _going_before(generation, at)
    tallies = _tally(generation, before, _spared(generation, at))
    for number, zone in enumerate(terms.zones, first):
        ends = next((y for y in before.get(number, ()) if _ends_everything(generation, y)), None)
        tally = tallies.get(number)
        if ends is not None:
            message = f"never acts: {terms.holder(ends).id} decides on every query before it; move it up"
            yield Finding(Severity.WARNING, _place(zone.id), Code.SHADOWED, message)
        elif tally is not None and tally.shadowed:
            by = some(f"{id_} ({count})" for id_, count in tally.by.most_common())
            whole = tally.shadowed == tally.names and not (zone.networks or zone.patterns or zone.nameservers)
            message = (
                f"never acts: each of its {tally.names} names is decided on before it, by {by}; take it out, or move "
                "it up"
                if whole
                else f"{tally.shadowed} of its {tally.names} names never act, such as {tally.example}: they are "
                f"decided on before it, by {by}"
            )
            yield Finding(Severity.WARNING if whole else Severity.NOTE, _place(zone.id), Code.SHADOWED, message)


def _tally(generation: Generation, before: dict[int, set[int]], spared: set[tuple[int, int]]) -> dict[int, _Tally]:
    """Look at every listed name once."""
    terms = generation.terms
    if not before:
        return {}
    useful = set().union(*before.values())
    # Of each claim set: what is to be judged, and what may go before it.
    judged = [
        [
            (claim.holder, claim.reach)
            for claim in claims
            if claim.holder in before and not _takes_back(terms.holder(claim.holder), claim.part)
        ]
        for claims in terms.claim_sets
    ]
    decisive = [
        [
            (claim.holder, claim.reach)
            for claim in claims
            if claim.holder in useful
            and (claim.holder, claim.part) not in spared
            and _is_unconditional(terms.holder(claim.holder), claim.part)
        ]
        for claims in terms.claim_sets
    ]
    tallies: dict[int, _Tally] = {number: _Tally() for number in before}
    for wire in generation.listed():
        covering = generation.covering(wire)
        if not covering or covering[0][0]:
            continue
        for number, reach in judged[covering[0][1]]:
            tally = tallies[number]
            tally.names += 1
            by = _decider(covering, decisive, before[number], reach)
            if by is not None:
                tally.shadowed += 1
                tally.by[terms.holder(by).id] += 1
                tally.example = tally.example or names.to_text(wire)
    return tallies


def _decider(
    covering: list[tuple[int, int]], decisive: list[list[tuple[int, Reach]]], earlier: set[int], reach: Reach
) -> int | None:
    """Who holds, before all others, everything that a hold on the first of `covering` reaches."""
    # A hold on the name itself reaches as far as `reach` where it is of the same kind, or a suffix.
    enough = {reach, Reach.SUFFIX}
    for offset, claim_set in covering:
        for holder, held in decisive[claim_set]:
            if holder in earlier and (held is not Reach.EXACT if offset else held in enough):
                return holder
    return None


def _takes_back(holder: OrderEntry | ZoneEntry, part: int) -> bool:
    """Whether a list's rule is an exception, that acts on the list alone."""
    return (
        isinstance(holder, ZoneEntry) and holder.kind is ZoneKind.LIST and holder.rule(part).action is Action.PASSTHRU
    )


def _is_unconditional(holder: OrderEntry | ZoneEntry, part: int) -> bool:
    if isinstance(holder, OrderEntry):
        return True
    rule = holder.rules[part]
    return not (rule.qtypes or rule.spares)


def _going_before(generation: Generation, at: float) -> dict[int, set[int]]:
    """Of each zone that acts: the orders and zones that always go before it, for all whom it is for."""
    terms = generation.terms
    first = len(terms.orders)
    everybody = frozenset(range(len(terms.groups))) | ({-1} if _is_anybody_loose(generation) else frozenset())
    whom: dict[int, frozenset[int]] = {}
    for number, order in enumerate(terms.orders):
        lasts = any(begin <= at and end == FOREVER for begin, end in order.spans)
        whom[number] = frozenset(
            group
            for line in terms.enforcements
            if lasts and line.order == number and line.mode is Mode.ENFORCE
            if line.since <= at and line.until == FOREVER
            for group in line.groups
        )
    found: dict[int, set[int]] = {}
    for number, zone in enumerate(terms.zones, first):
        if zone.kind is ZoneKind.RULE or zone.mode is not Mode.ENFORCE:
            continue
        mine = frozenset(zone.groups) or everybody
        earlier = {holder for holder, theirs in whom.items() if mine <= theirs}
        if earlier:
            found[number] = earlier
        # A list with exceptions decides on a name only where none of them matches: nothing is sure of it.
        if not any(_takes_back(zone, part) for part in range(len(zone.rules))):
            whom[number] = mine
    return found


def _spared(generation: Generation, at: float) -> set[tuple[int, int]]:
    """(order, app) of which some devices are exempt, now or later: there a zone has something left to decide."""
    return {pair for exemption in generation.terms.exemptions if exemption.until > at for pair in exemption.spares}


def _is_anybody_loose(generation: Generation) -> bool:
    held = [ip_network(network) for group in generation.terms.groups for network in group.networks]
    allowed = map(ip_network, generation.terms.allowed_networks)
    return not all(any(is_within(network, one) for one in held) for network in allowed)


def _ends_everything(generation: Generation, number: int) -> bool:
    """Whether a Response Policy Zone has a rule on every client that may ask."""
    zone = generation.terms.holder(number)
    if not isinstance(zone, ZoneEntry) or zone.kind is not ZoneKind.RPZ:
        return False
    clients = [ip_network(network) for trigger, network, _ in zone.networks if trigger is Trigger.CLIENT_IP]
    allowed = map(ip_network, generation.terms.allowed_networks)
    return all(any(is_within(network, one) for one in clients) for network in allowed)
