"""Holds that come to nothing: each is told once, and none that counts."""

from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.policy.additions import Documents
from resolver.policy.compile import AppliedZone, PolicySettings, compile_generation
from resolver.policy.documents import Action
from resolver.policy.generation import Generation
from resolver.policy.judge import weigh
from resolver.policy.terms import GroupEntry, ZoneKind
from resolver.policy.unmet import Miss, unmet_claims
from resolver.policy.zone import PolicyZone, Reach, Rule
from resolver.wire import name as names
from resolver.wire.codes import Rtype

RULES = [
    Rule(Action.NXDOMAIN), Rule(Action.PASSTHRU), Rule(Action.NXDOMAIN, qtypes=(Rtype.TXT,)),
    Rule(Action.NXDOMAIN, spares=(names.from_text("www.a.example"),)), Rule(Action.NODATA, important=True),
]  # fmt: skip
NAMES = st.sampled_from(["a.example", "www.a.example", "example"])
REACHES = st.sampled_from([Reach.EXACT, Reach.SUFFIX, Reach.BELOW])
HOLDS = st.lists(st.tuples(NAMES, REACHES, st.sampled_from(RULES)), max_size=6)
ADDRESS = bytes([192, 0, 2, 9])


def generation_of(*zones: AppliedZone) -> Generation:
    """A policy of these zones alone."""
    policy = PolicySettings(("0.0.0.0/0",), (GroupEntry("phones", ("192.0.2.0/24",)), GroupEntry("desks", ())), (), 30)
    octets, _ = compile_generation(Documents({}, {}), policy, serial=1, at=0.0, zones=zones)
    return Generation(memoryview(bytearray(octets)))


@settings(deadline=None)
@given(HOLDS, st.sampled_from(ZoneKind), st.sampled_from([(), ("desks",)]), st.sampled_from([0.0, 100.0, 250.0]))
def test_each_hold_counts_is_an_exception_or_is_told(
    held: list[tuple[str, Reach, Rule]], kind: ZoneKind, groups: tuple[str, ...], at: float
) -> None:
    """And none twice, whoever asks when."""
    zone = PolicyZone()
    for name, reach, rule in held:
        zone.hold(names.from_text(name), reach, zone.number_of(rule))
    generation = generation_of(AppliedZone("list:z", kind, zone, groups, since=50.0, until=200.0))
    view = generation.view_of(ADDRESS, at)
    qname = names.from_text("www.a.example")

    verdicts = weigh(qname, view, Rtype.A)
    unmet = list(unmet_claims(qname, Rtype.A, view, at, verdicts))

    holds = {
        (names.to_text(name), reach.name.lower(), zone.rules[number].action)
        for name, listed in zone.names.items()
        for reach, number in listed
    }
    exceptions = {hold for hold in holds if kind is ZoneKind.LIST and hold[2] is Action.PASSTHRU}
    counted = [(names.to_text(one.owner), one.reach.name.lower()) for one in verdicts]
    told = [(one.name, one.match) for one in unmet]
    assert sorted(counted + told) == sorted((name, reach) for name, reach, _ in holds - exceptions)
    if groups:
        assert not counted
        assert {one.miss for one in unmet} <= {Miss.GROUP, Miss.NOT_YET, Miss.ENDED}
    if any(one.miss is Miss.EXCEPTION for one in unmet):
        assert exceptions
