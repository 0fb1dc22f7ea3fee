"""The sentence on why the first of several rules decides, where several rules are one zone's; the rest is told beside
explanations."""

from ipaddress import ip_address, ip_network

import pytest

from resolver.policy.additions import Documents
from resolver.policy.compile import AppliedZone, PolicySettings, compile_generation
from resolver.policy.documents import Action
from resolver.policy.generation import Generation
from resolver.policy.judge import weigh
from resolver.policy.precedence import why_first
from resolver.policy.terms import Precedence, ZoneKind
from resolver.policy.zone import PolicyZone, Reach, Rule, Trigger
from resolver.wire import name as names

NO = Rule(Action.NXDOMAIN)
ASKER = ip_address("192.0.2.9")


@pytest.mark.parametrize(
    ("kind", "held", "network", "why"),
    [
        (ZoneKind.LIST, [("a.example", Reach.SUFFIX, NO)], "", "no other rule covers the name"),
        (ZoneKind.LIST, [("a.example", Reach.SUFFIX, NO), ("www.a.example", Reach.SUFFIX, NO)], "",
         "the longest name decides"),
        (ZoneKind.RPZ, [("www.a.example", Reach.SUFFIX, NO), ("www.a.example", Reach.EXACT, NO)], "",
         "a name listed exactly goes before one listed with all below it"),
        (ZoneKind.LIST, [("www.a.example", Reach.SUFFIX, NO),
                         ("a.example", Reach.SUFFIX, Rule(Action.NXDOMAIN, important=True))], "",
         "an important rule goes before the others of its list"),
        (ZoneKind.RPZ, [("www.a.example", Reach.SUFFIX, NO)], "192.0.2.9/32",
         "within a policy zone client-ip goes before qname"),
    ],
)  # fmt: skip
def test_of_one_zones_rules_it_is_told_why_the_first_decides(
    kind: ZoneKind, held: list[tuple[str, Reach, Rule]], network: str, why: str
) -> None:
    """As the judge puts them into order."""
    zone = PolicyZone()
    for name, reach, rule in held:
        zone.hold(names.from_text(name), reach, zone.number_of(rule))
    if network:
        zone.hold_network(ip_network(network), zone.number_of(NO), Trigger.CLIENT_IP)
    settings = PolicySettings(("0.0.0.0/0",), (), (), 30)
    octets, _ = compile_generation(
        Documents({}, {}), settings, serial=1, at=0.0, zones=[AppliedZone("zone:z", kind, zone)]
    )
    view = Generation(memoryview(bytearray(octets))).view_of(ASKER.packed, 0.0)

    assert why_first(weigh(names.from_text("www.a.example"), view), Precedence.STRICTEST) == why
