"""Orders and apps, as people wrote them, compiled into a generation.

Which names an order takes from an app: every domain of use `block` with at least the order's `min_confidence`; those of
use `optional` as well where the order says `include_optional`; those of use `never` not at all, whoever asks.
"""

from dataclasses import dataclass

from resolver.policy.documents import Action, Confidence, Documents, Domain, Match, Mode, Order, Use
from resolver.policy.generation import (
    FOREVER,
    AppEntry,
    Claim,
    EnforcementEntry,
    GroupEntry,
    OrderEntry,
    PolicyTerms,
    write_generation,
)
from resolver.wire import name as names

_RANK = {Confidence.LOW: 0, Confidence.MEDIUM: 1, Confidence.HIGH: 2}


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
class PolicySettings:
    """What the configuration adds to the documents."""

    allowed_networks: tuple[str, ...]
    groups: tuple[GroupEntry, ...]
    enforcements: tuple[Enforcement, ...]
    block_ttl: int
    sinkhole_ipv4: tuple[str, ...] = ()
    sinkhole_ipv6: tuple[str, ...] = ()


def takes(order: Order, domain: Domain) -> bool:
    """Whether an order, as it is written, covers a domain of an app that it names."""
    if domain.use is Use.NEVER or (domain.use is Use.OPTIONAL and not order.include_optional):
        return False
    return _RANK[domain.confidence] >= _RANK[order.min_confidence]


def compile_generation(documents: Documents, settings: PolicySettings, *, serial: int, at: float) -> tuple[bytes, str]:
    """Compile the orders that are configured, with the apps that they name.

    Args:
        documents: Everything that was read; orders that the settings do not mention take no part.
        settings: From the configuration; every order and group that it names exists (`check` has seen to that).
        serial: For the new generation.
        at: Unix seconds, for the record.

    Returns:
        (the generation's octets, its digest).
    """
    order_ids = list(dict.fromkeys(entry.order for entry in settings.enforcements))
    app_ids: list[str] = []
    claims: dict[bytes, set[tuple[int, int, bool]]] = {}
    for number, order_id in enumerate(order_ids):
        order = documents.orders[order_id]
        for app_id in order.apps:
            if app_id not in app_ids:
                app_ids.append(app_id)
            for domain in documents.apps[app_id].domains:
                if takes(order, domain):
                    key = (number, app_ids.index(app_id), domain.match is Match.EXACT)
                    claims.setdefault(names.from_text(domain.name), set()).add(key)
    claim_sets: dict[tuple[tuple[int, int, bool], ...], int] = {}
    listed = {
        name: claim_sets.setdefault(tuple(sorted(held)), len(claim_sets)) for name, held in sorted(claims.items())
    }
    group_numbers = {group.name: i for i, group in enumerate(settings.groups)}
    terms = PolicyTerms(
        allowed_networks=settings.allowed_networks,
        groups=settings.groups,
        orders=tuple(_entry(documents.orders[id_]) for id_ in order_ids),
        apps=tuple(AppEntry(id_, documents.apps[id_].names[0]) for id_ in app_ids),
        enforcements=tuple(
            EnforcementEntry(
                order_ids.index(e.order), tuple(group_numbers[g] for g in e.groups), e.mode, e.action, e.since, e.until
            )
            for e in settings.enforcements
        ),
        claim_sets=tuple(tuple(Claim(*claim) for claim in held) for held in claim_sets),
        block_ttl=settings.block_ttl,
        sinkhole_ipv4=settings.sinkhole_ipv4,
        sinkhole_ipv6=settings.sinkhole_ipv6,
    )
    return write_generation(terms, listed, serial=serial, at=at)


def _entry(order: Order) -> OrderEntry:
    spans = tuple((begin.timestamp(), FOREVER if end is None else end.timestamp()) for begin, end in order.in_force())
    return OrderEntry(order.id, order.title.en, order.title.fr, order.basis, spans)
