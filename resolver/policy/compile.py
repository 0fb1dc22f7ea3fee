"""Orders, apps and all that stands beside them, as people wrote them, compiled into a generation.

Which names an order takes from an app: every domain of use `block` with at least the order's `min_confidence`; those of
use `optional` as well where the order says `include_optional`; those of use `never` not at all, whoever asks.

The names of orders, own rules and zones all go into one table: a look-up costs the same however many there are.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network

from resolver.policy.additions import Documents, Exemption, LocalRule, LocalVerdict
from resolver.policy.documents import Action, Confidence, Domain, Match, Mode, Order, Use
from resolver.policy.generation import write_generation
from resolver.policy.terms import (
    FOREVER,
    AppEntry,
    Claim,
    EnforcementEntry,
    ExemptionEntry,
    GroupEntry,
    OrderEntry,
    PolicyTerms,
    Precedence,
    ZoneEntry,
    ZoneKind,
)
from resolver.policy.zone import Held, PolicyZone, Progress, Reach, Rule, Trigger
from resolver.wire import name as names

_RANK = {Confidence.LOW: 0, Confidence.MEDIUM: 1, Confidence.HIGH: 2}
_REACH = {Match.EXACT: Reach.EXACT, Match.SUFFIX: Reach.SUFFIX}


@dataclass(frozen=True, slots=True)
class Enforcement:
    """One line of `policy.orders`, as configured."""

    order: str
    groups: tuple[str, ...]
    mode: Mode
    action: Action
    since: float = -FOREVER  # Unix seconds
    until: float = FOREVER


@dataclass(frozen=True, slots=True)
class AppliedZone:
    """A policy zone, with how it is applied; no groups stands for everybody."""

    id: str
    kind: ZoneKind
    zone: PolicyZone
    groups: tuple[str, ...] = ()
    mode: Mode = Mode.ENFORCE
    override: Rule | None = None
    since: float = -FOREVER  # Unix seconds
    until: float = FOREVER
    source: str = ""  # where it came from, for people
    refused: int = 0  # lines or records of it that were not taken


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """What the configuration adds to the documents."""

    allowed_networks: tuple[str, ...]
    groups: tuple[GroupEntry, ...]
    enforcements: tuple[Enforcement, ...]
    block_ttl: int
    sinkhole_ipv4: tuple[str, ...] = ()
    sinkhole_ipv6: tuple[str, ...] = ()
    precedence: Precedence = Precedence.STRICTEST
    strip_ech: tuple[str, ...] = ()


def takes(order: Order, domain: Domain) -> bool:
    """Whether an order, as it is written, covers a domain of an app that it names."""
    if domain.use is Use.NEVER or (domain.use is Use.OPTIONAL and not order.include_optional):
        return False
    return _RANK[domain.confidence] >= _RANK[order.min_confidence]


def mistakes(documents: Documents, settings: PolicySettings) -> Iterator[tuple[str, str, str, str]]:
    """What is wrong with exemptions and own rules beside the orders and groups that they speak of.

    Yields:
        (kind of document: exemptions or rules, its id, the key that is wrong, a sentence that says the mend).
    """
    known = {group.name: group.networks for group in settings.groups}
    for exemption in documents.exemptions.values():
        limited = [order for order, _ in _spared(exemption, documents.orders.values())]
        strictest = min(limited, key=lambda order: (order.longest_exemption, order.id), default=None)
        days = 366 if strictest is None else strictest.longest_exemption
        if exemption.lasts() > timedelta(days=days):
            last = (exemption.granted + timedelta(days=days)).isoformat()
            of = "" if strictest is None else f" from {strictest.id}"
            why = f"it lasts longer than the {days} days that an exemption{of} may"
            yield "exemptions", exemption.id, "expires", f"{why}; write {last} or earlier, and renew it then"
        if not limited:
            yield "exemptions", exemption.id, "apps", "none of these orders names any of these apps; write others"
        for group in exemption.groups:
            if group not in known:
                yield "exemptions", exemption.id, "groups", _no_group(group, known)
        exempt = {group for group in known if _is_exempt(group, known[group], exemption)}
        for order in dict.fromkeys(order.id for order in limited):
            bound = {group for line in settings.enforcements if line.order == order for group in line.groups}
            forbidden = set(documents.orders[order].apps)
            if bound and bound <= exempt and not forbidden - set(exemption.apps or forbidden):
                mend = "take the order out of policy.orders instead, or exempt fewer groups"
                why = f"it exempts every group that {order} binds from all it forbids, which is a blanket exemption"
                yield "exemptions", exemption.id, "groups", f"{why}; {mend}"
    for rule in documents.rules.values():
        for group in rule.groups:
            if group not in known:
                yield "rules", rule.id, "groups", _no_group(group, known)
        if rule.action is Action.SINKHOLE and not settings.sinkhole_ipv4 and not settings.sinkhole_ipv6:
            yield "rules", rule.id, "action", "sinkhole needs an address to answer; write policy.sinkhole"


def _is_exempt(group: str, networks: tuple[str, ...], exemption: Exemption) -> bool:
    """Whether a whole group is exempt, by its name or because every network of it is named as a device."""
    if group in exemption.groups:
        return True
    held = [ip_network(network, strict=False) for network in networks]
    return bool(held) and all(_is_held(network, exemption.networks) for network in held)


def _is_held(network: IPv4Network | IPv6Network, devices: Sequence[IPv4Network | IPv6Network]) -> bool:
    """Whether networks together hold a network."""
    first, last = int(network.network_address), int(network.broadcast_address)
    for device in sorted(one for one in devices if one.version == network.version):
        if int(device.network_address) <= first <= int(device.broadcast_address):
            first = int(device.broadcast_address) + 1
    return first > last


def _no_group(group: str, known: Iterable[str]) -> str:
    return f'no group is called "{group}"; write one of: {", ".join(sorted(known))}'


def compile_generation(
    documents: Documents,
    settings: PolicySettings,
    *,
    serial: int,
    at: float,
    zones: Sequence[AppliedZone] = (),
    made_by: str = "",
    progress: Progress | None = None,
) -> tuple[bytes, str]:
    """Compile the orders that are configured, with the apps that they name, and all that stands beside them.

    Args:
        documents: Everything that was read; orders that the settings do not mention take no part.
        settings: From the configuration; every order and group that it names exists (`check` has seen to that).
        serial: For the new generation.
        at: Unix seconds, for the record.
        zones: Policy zones in order of precedence, after the orders.
        made_by: Who had it compiled, for the record.
        progress: For many names.

    Returns:
        (the generation's octets, its digest).
    """
    order_ids = list(dict.fromkeys(entry.order for entry in settings.enforcements))
    orders = [documents.orders[id_] for id_ in order_ids]
    app_ids = list(dict.fromkeys(app for order in orders for app in order.apps))
    group_numbers = {group.name: i for i, group in enumerate(settings.groups)}
    applied = [*(_own_zone(documents.rules[id_]) for id_ in sorted(documents.rules)), *zones]
    claims: dict[bytes, _Claims] = {}
    for number, order in enumerate(orders):
        for app_id in order.apps:
            for domain in documents.apps[app_id].domains:
                if takes(order, domain):
                    wire = names.from_text(domain.name)
                    claim = (number, app_ids.index(app_id), int(_REACH[domain.match]))
                    claims[wire] = tuple(sorted({*claims.get(wire, ()), claim}))
    nameservers: dict[bytes, _Claims] = {}
    for number, one in enumerate(applied, len(orders)):
        for held, holds in ((claims, one.zone.names), (nameservers, one.zone.nameservers)):
            _claim(held, holds, number)
            if one.kind is ZoneKind.RPZ:
                for name in _empty_nonterminals(holds):
                    held[name] = (*held.get(name, ()), (number, 0, int(Reach.NOTHING)))
    claim_sets = {held: i for i, held in enumerate(sorted({*claims.values(), *nameservers.values()}))}
    terms = PolicyTerms(
        allowed_networks=settings.allowed_networks,
        groups=settings.groups,
        orders=tuple(_entry(order) for order in orders),
        apps=tuple(AppEntry(id_, documents.apps[id_].names[0]) for id_ in app_ids),
        enforcements=tuple(
            EnforcementEntry(
                order_ids.index(e.order), tuple(group_numbers[g] for g in e.groups), e.mode, e.action, e.since, e.until
            )
            for e in settings.enforcements
        ),
        claim_sets=tuple(tuple(Claim(o, p, Reach(r)) for o, p, r in held) for held in claim_sets),
        block_ttl=settings.block_ttl,
        sinkhole_ipv4=settings.sinkhole_ipv4,
        sinkhole_ipv6=settings.sinkhole_ipv6,
        precedence=settings.precedence,
        exemptions=tuple(
            ExemptionEntry(
                one.id,
                tuple(group_numbers[g] for g in one.groups if g in group_numbers),
                tuple(str(device) for device in one.devices),
                tuple((order_ids.index(order.id), app_ids.index(app)) for order, app in _spared(one, orders)),
                one.granted.timestamp(),
                one.expires.timestamp(),
            )
            for _, one in sorted(documents.exemptions.items())
        ),
        zones=tuple(_zone_entry(one, group_numbers) for one in applied),
        strip_ech=tuple(group_numbers[group] for group in settings.strip_ech),
    )
    return write_generation(
        terms,
        {name: claim_sets[held] for name, held in claims.items()},
        serial=serial,
        at=at,
        nameservers={name: claim_sets[held] for name, held in nameservers.items()},
        made_by=made_by,
        progress=progress,
    )


_Claims = tuple[tuple[int, int, int], ...]  # (holder, part, reach), sorted


def _claim(claims: dict[bytes, _Claims], held_names: dict[bytes, Held], holder: int) -> None:
    """Add a zone's holds to the claims; a million names share a few objects."""
    own: dict[Held, _Claims] = {}
    for name, held in held_names.items():
        mine = own.get(held)
        if mine is None:
            mine = own[held] = tuple(sorted((holder, rule, int(reach)) for reach, rule in held))
        others = claims.get(name)
        claims[name] = mine if others is None else (*others, *mine)


def _empty_nonterminals(names_held: dict[bytes, Held]) -> set[bytes]:
    """Names of a zone that hold nothing, stand above one that does, and below a wildcard, which they keep away."""
    wildcards = {name for name, held in names_held.items() if any(reach is Reach.BELOW for reach, _ in held)}
    found: set[bytes] = set()
    if not wildcards:
        return found
    for name in names_held:
        between: list[bytes] = []
        i = 0
        while name[i]:
            i += name[i] + 1
            ancestor = name[i:]
            if ancestor in wildcards:
                found.update(between)
                break
            if ancestor not in names_held:
                between.append(ancestor)
    return found


def _spared(exemption: Exemption, orders: Iterable[Order]) -> list[tuple[Order, str]]:
    """Every order and app that an exemption spares its devices."""
    return [
        (order, app)
        for order in orders
        if not exemption.orders or order.id in exemption.orders
        for app in order.apps
        if not exemption.apps or app in exemption.apps
    ]


def _entry(order: Order) -> OrderEntry:
    spans = tuple((begin.timestamp(), FOREVER if end is None else end.timestamp()) for begin, end in order.in_force())
    return OrderEntry(order.id, order.title.en, order.title.fr, order.basis, spans)


def _own_zone(rule: LocalRule) -> AppliedZone:
    """A rule of the operator's as a zone of its own, since each has its own groups and time."""
    zone = PolicyZone()
    number = zone.number_of(Rule(Action.PASSTHRU if rule.verdict is LocalVerdict.ALLOW else rule.action))
    for name in rule.names:
        zone.hold(names.from_text(name), _REACH[rule.match], number)
    for network in rule.addresses:
        zone.hold_network(network, number, Trigger.RESPONSE_IP)
    since = -FOREVER if rule.since is None else rule.since.timestamp()
    return AppliedZone(f"rule:{rule.id}", ZoneKind.RULE, zone, rule.groups, since=since, until=rule.until.timestamp())


def _zone_entry(applied: AppliedZone, group_numbers: dict[str, int]) -> ZoneEntry:
    zone = applied.zone
    return ZoneEntry(
        id=applied.id,
        kind=applied.kind,
        groups=tuple(group_numbers[group] for group in applied.groups),
        mode=applied.mode,
        rules=tuple(zone.rules),
        override=applied.override,
        networks=tuple(
            (trigger, str(network), rule)
            for trigger, networks in zone.networks.items()
            for network, rule in sorted(networks.items(), key=lambda one: (one[0].version, one[0]))
        ),
        patterns=tuple(zone.patterns),
        soa=None if zone.soa is None else (zone.origin, zone.soa),
        nameservers=bool(zone.nameservers or zone.networks[Trigger.NSIP]),
        since=applied.since,
        until=applied.until,
        source=applied.source,
        entries=sum(count for _, count in zone.triggers()),
        refused=applied.refused,
    )
