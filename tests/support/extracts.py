"""Extracts of small policies, for the tests of what is exported."""

from collections.abc import Sequence

from resolver.policy.additions import Documents, Exemption, LocalRule, WayRound
from resolver.policy.compile import AppliedZone, Enforcement, PolicySettings, compile_generation
from resolver.policy.documents import Action, Match
from resolver.policy.export import Extract, extract
from resolver.policy.generation import Generation, View
from resolver.policy.terms import GroupEntry, ZoneKind
from resolver.policy.zone import PolicyZone, Reach, Rule
from tests.support.clock import START_AT
from tests.support.house import Held

A_V4, A_V6 = "192.0.2.80", "2001:db8::80"


def allow(id_: str, *names: str, addresses: Sequence[str] = (), groups: Sequence[str] = ()) -> LocalRule:
    """An allow of the operator's: "=name" for that name only; all names alike."""
    return _own_rule(id_, "allow", names, addresses, groups)


def block(
    id_: str, *names: str, addresses: Sequence[str] = (), groups: Sequence[str] = (), action: Action = Action.NXDOMAIN
) -> LocalRule:
    """A block of the operator's."""
    return _own_rule(id_, "block", names, addresses, groups).model_copy(update={"action": action})


def _own_rule(
    id_: str, verdict: str, names: Sequence[str], addresses: Sequence[str], groups: Sequence[str]
) -> LocalRule:
    exact = any(name.startswith("=") for name in names)
    return LocalRule(
        id=id_, verdict=verdict, names=tuple(name.removeprefix("=") for name in names), addresses=tuple(addresses),
        match="exact" if exact else "suffix", groups=tuple(groups), owner="service desk", reason="a test",
        until="2040-01-01T00:00:00Z",
    )  # fmt: skip


def exemption(id_: str, apps: Sequence[str], *, groups: Sequence[str] = (), devices: Sequence[str] = ()) -> Exemption:
    """An exemption in force at START_AT."""
    return Exemption(
        id=id_, groups=tuple(groups), devices=tuple(devices), apps=tuple(apps), reason="law-enforcement",
        grantor="CIO", granted="2030-01-01T00:00:00Z", expires="2030-12-01T00:00:00Z",
    )  # fmt: skip


def taken(
    *orders: Held,
    rules: Sequence[LocalRule] = (),
    exemptions: Sequence[Exemption] = (),
    ways_round: Sequence[WayRound] = (),
    group: str = "everyone",
    sinkhole: Sequence[str] = (A_V4, A_V6),
    left_out: Sequence[str] = (),
) -> tuple[Extract, View]:
    """What all of it holds a group to, and the view; two groups: everyone, lab."""
    documents = Documents(
        {app.id: app for order in orders for app in order.apps},
        {order.id: order.document() for order in orders},
        {one.id: one for one in exemptions},
        {one.id: one for one in rules},
        {one.id: one for one in ways_round},
    )
    groups = (GroupEntry("everyone", ("0.0.0.0/0", "::/0")), GroupEntry("lab", ("198.51.100.0/24",)))
    settings = PolicySettings(
        allowed_networks=("0.0.0.0/0", "::/0"),
        groups=groups,
        enforcements=tuple(Enforcement(o.id, tuple(o.groups), o.mode, o.action) for o in orders),
        block_ttl=30,
        sinkhole_ipv4=tuple(a for a in sinkhole if ":" not in a),
        sinkhole_ipv6=tuple(a for a in sinkhole if ":" in a),
    )
    zones = tuple(_zone(one) for one in ways_round)
    octets, _ = compile_generation(documents, settings, serial=1, at=START_AT, zones=zones)
    view = View(Generation(memoryview(bytearray(octets))), [one.name for one in groups].index(group), START_AT)
    return extract(view, documents, START_AT, left_out), view


def _zone(way: WayRound) -> AppliedZone:
    zone = PolicyZone()
    number = zone.number_of(Rule(way.action))
    for name in way.names:
        zone.hold(name.wire(), Reach.EXACT if name.match is Match.EXACT else Reach.SUFFIX, number)
    return AppliedZone(f"way-round:{way.id}", ZoneKind.LIST, zone)
