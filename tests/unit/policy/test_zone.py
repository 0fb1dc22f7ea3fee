"""A zone while it is read: rules numbered once, names and networks held once, and all of them counted."""

from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.policy.documents import Action
from resolver.policy.zone import PolicyZone, Reach, Rule, Trigger
from tests.support.build import wire

PROPERTY = settings(deadline=None)
BLOCK, ALLOW = Rule(Action.NXDOMAIN), Rule(Action.PASSTHRU)


def test_equal_rules_have_one_number() -> None:
    """However often they are met; what differs in anything has its own."""
    zone = PolicyZone()
    met = [BLOCK, ALLOW, Rule(Action.NXDOMAIN), Rule(Action.NXDOMAIN, important=True), BLOCK]

    assert [zone.number_of(rule) for rule in met] == [0, 1, 0, 2, 0]
    assert zone.rules == [BLOCK, ALLOW, Rule(Action.NXDOMAIN, important=True)]


def test_a_name_is_held_once_that_far() -> None:
    """By the first rule; as far as another reach goes, by another, and on name servers apart from names."""
    zone = PolicyZone()
    block, allow = zone.number_of(BLOCK), zone.number_of(ALLOW)
    name = wire("chat.example")

    assert zone.hold(name, Reach.SUFFIX, block)
    assert not zone.hold(name, Reach.SUFFIX, allow)
    assert zone.hold(name, Reach.EXACT, allow)
    assert zone.hold(name, Reach.SUFFIX, allow, Trigger.NSDNAME)
    assert zone.names == {name: ((Reach.EXACT, allow), (Reach.SUFFIX, block))}
    assert zone.nameservers == {name: ((Reach.SUFFIX, allow),)}


def test_a_network_is_held_once_for_each_trigger() -> None:
    """By the first rule that speaks of just this network."""
    zone = PolicyZone()
    network = ip_network("192.0.2.0/24")

    assert zone.hold_network(network, 0, Trigger.RESPONSE_IP)
    assert not zone.hold_network(network, 0, Trigger.RESPONSE_IP)
    assert not zone.hold_network(network, 1, Trigger.RESPONSE_IP)
    assert zone.hold_network(network, 1, Trigger.CLIENT_IP)
    assert zone.networks[Trigger.RESPONSE_IP] == {network: 0}


def test_triggers_are_counted_by_kind() -> None:
    """Names by reach, patterns among them, networks by what they look at."""
    zone = PolicyZone()
    number = zone.number_of(BLOCK)
    zone.hold(wire("a.example"), Reach.EXACT, number)
    zone.hold(wire("a.example"), Reach.BELOW, number)
    zone.hold(wire("ns.example"), Reach.EXACT, number, Trigger.NSDNAME)
    zone.patterns.append(("ads", number))
    zone.hold_network(ip_network("2001:db8::/32"), number, Trigger.NSIP)

    assert dict(zone.triggers()) == {
        Trigger.QNAME: 3, Trigger.NSDNAME: 1, Trigger.CLIENT_IP: 0, Trigger.RESPONSE_IP: 0, Trigger.NSIP: 1,
    }  # fmt: skip


@PROPERTY
@given(
    st.lists(st.tuples(st.sampled_from(["a.example", "b.example"]), st.sampled_from(Reach), st.integers(0, 2))),
)
def test_holds_do_not_depend_on_what_came_between(holds: list[tuple[str, Reach, int]]) -> None:
    """The first rule on a name that far stays; each name's holds stand in one order."""
    zone = PolicyZone()
    first: dict[tuple[bytes, Reach], int] = {}
    for name, reach, rule in holds:
        assert zone.hold(wire(name), reach, rule) is ((wire(name), reach) not in first)
        first.setdefault((wire(name), reach), rule)

    assert {(name, reach): rule for name, held in zone.names.items() for reach, rule in held} == first
    assert all(list(held) == sorted(held) for held in zone.names.values())
