"""The terms of a generation: what is written is read again, and what makes no sense is refused in reading."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.policy.documents import ORDER_ACTIONS, Action, Basis, Mode
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
    from_json,
    to_json,
)
from resolver.policy.zone import LocalRecord, Reach, Rule, Trigger
from tests.support.build import Ban, Spared, Zone, own, whole

PROPERTY = settings(deadline=None, max_examples=80)

TEXT = st.text(max_size=4)
MOMENT = st.floats(-1e12, 1e12)
BEGIN, END = st.one_of(st.just(-FOREVER), MOMENT), st.one_of(st.just(FOREVER), MOMENT)
NETWORK = st.ip_addresses().map(lambda address: f"{address}/{address.max_prefixlen}")
RECORD = st.builds(LocalRecord, st.integers(0, 65535), st.integers(0, 2**31 - 1), st.binary(max_size=5))
RULE = st.builds(
    Rule, st.sampled_from(Action), st.lists(RECORD, max_size=2).map(tuple),
    st.lists(st.integers(1, 65535), max_size=2).map(tuple), st.booleans(),
    st.lists(st.binary(max_size=5), max_size=2).map(tuple), st.booleans(),
)  # fmt: skip


def several(of: st.SearchStrategy[Any], most: int = 2) -> st.SearchStrategy[tuple[Any, ...]]:
    """A few of them."""
    return st.lists(of, max_size=most).map(tuple)


def below(count: int) -> st.SearchStrategy[int]:
    """A number of something of which there are so many, at least one."""
    return st.integers(0, count - 1)


@st.composite
def terms(draw: st.DrawFn) -> PolicyTerms:
    """Any terms that make sense."""
    groups = draw(st.lists(st.builds(GroupEntry, TEXT, several(NETWORK)), min_size=1, max_size=3))
    orders = draw(
        st.lists(
            st.builds(OrderEntry, TEXT, TEXT, TEXT, st.sampled_from(Basis), several(st.tuples(MOMENT, END))),
            min_size=1, max_size=3,
        )
    )  # fmt: skip
    apps = draw(st.lists(st.builds(AppEntry, TEXT, TEXT), min_size=1, max_size=3))
    held = several(below(len(groups)))
    rules = draw(st.lists(st.lists(RULE, min_size=1, max_size=3).map(tuple), max_size=2))
    zones = tuple(
        draw(
            st.builds(
                ZoneEntry, TEXT, st.sampled_from(ZoneKind), held, st.sampled_from(Mode), st.just(mine),
                st.none() | RULE, several(st.tuples(st.sampled_from(Trigger), NETWORK, below(len(mine)))),
                several(st.tuples(TEXT, below(len(mine)))), st.none() | st.tuples(st.binary(max_size=5), RECORD),
                st.booleans(), BEGIN, END, st.sampled_from(Basis), TEXT, st.integers(0), st.integers(0),
            )
        )
        for mine in rules
    )  # fmt: skip
    claims = st.one_of(
        st.builds(Claim, below(len(orders)), below(len(apps)), st.sampled_from(Reach)),
        *(
            st.builds(Claim, st.just(len(orders) + i), below(len(mine)), st.sampled_from(Reach))
            for i, mine in enumerate(rules)
        ),
    )
    return PolicyTerms(
        draw(several(NETWORK)), tuple(groups), tuple(orders), tuple(apps),
        draw(several(st.builds(
            EnforcementEntry, below(len(orders)), held, st.sampled_from(Mode), st.sampled_from(ORDER_ACTIONS), BEGIN,
            END,
        ))),
        draw(several(several(claims))), draw(st.integers(0, 10**6)), draw(several(TEXT)), draw(several(TEXT)),
        draw(st.sampled_from(Precedence)),
        draw(several(st.builds(
            ExemptionEntry, TEXT, held, several(NETWORK),
            several(st.tuples(below(len(orders)), below(len(apps)))), MOMENT, MOMENT,
        ))),
        zones, draw(held),
    )  # fmt: skip


@PROPERTY
@given(terms())
def test_what_is_written_is_read_again(written: PolicyTerms) -> None:
    """Through JSON as it stands in the file, infinities, octets and enumerations included."""
    assert from_json(json.loads(json.dumps(to_json(written), allow_nan=False))) == written


@PROPERTY
@given(terms())
def test_every_begin_and_end_is_a_moment(written: PolicyTerms) -> None:
    """Of orders, lines, exemptions and zones; never is none."""
    spans = [span for order in written.orders for span in order.spans]
    for entries in (written.enforcements, written.exemptions, written.zones):
        spans += [(entry.since, entry.until) for entry in entries]

    assert written.moments() == {moment for span in spans for moment in span if abs(moment) != FOREVER}


SMALL, _, _ = whole(
    [Ban("ban", ("suffix chat.example",))],
    [own("no", Action.NXDOMAIN, "exact a.example"), Zone("zone:rpz", names=(("exact b.example", Rule(Action.DROP)),))],
    [Spared("lab", ("ban",), ("desks",))],
)

NONSENSE: dict[str, Callable[[dict[str, Any]], object]] = {
    "a claim of a fourth holder": lambda terms: terms["claim_sets"].append([[3, 0, 0]]),
    "a claim counted from the end": lambda terms: terms["claim_sets"].append([[-1, 0, 0]]),
    "a claim through a second app": lambda terms: terms["claim_sets"].append([[0, 1, 0]]),
    "a claim on a second rule": lambda terms: terms["claim_sets"].append([[2, 1, 0]]),
    "a claim of a fraction": lambda terms: terms["claim_sets"].append([[0.0, 0, 0]]),
    "a claim of nothing": lambda terms: terms["claim_sets"].append([[None, 0, 0]]),
    "a reach that there is none of": lambda terms: terms["claim_sets"].append([[0, 0, 9]]),
    "an order that passes": lambda terms: terms["enforcements"][0].__setitem__(3, "passthru"),
    "a group too many": lambda terms: terms["strip_ech"].append(2),
    "no key": lambda terms: terms.pop("exemptions"),
    "a zone cut short": lambda terms: terms["zones"][0].pop(),
    "octets in other figures": lambda terms: terms["zones"][0].__setitem__(8, ["zz", [6, 60, "00"]]),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_terms_that_make_no_sense_are_refused_in_reading(case: str) -> None:
    """Not when the question comes that they speak of."""
    written = json.loads(json.dumps(to_json(SMALL)))
    assert from_json(written) == SMALL
    NONSENSE[case](written)

    with pytest.raises((LookupError, TypeError, ValueError)):
        from_json(written)


def test_holders_are_the_orders_and_then_the_zones() -> None:
    """By the numbers that claims speak of."""
    assert [SMALL.holder(number).id for number in range(3)] == ["ban", "rule:no", "zone:rpz"]


@pytest.mark.parametrize(
    ("kind", "written", "acts"),
    [
        (ZoneKind.RPZ, Action.NXDOMAIN, Action.DROP),
        (ZoneKind.RPZ, Action.PASSTHRU, Action.DROP),
        (ZoneKind.LIST, Action.NXDOMAIN, Action.DROP),
        (ZoneKind.LIST, Action.PASSTHRU, Action.PASSTHRU),
    ],
)
def test_an_override_acts_in_place_of_rules_but_not_of_a_list_s_exceptions(
    kind: ZoneKind, written: Action, acts: Action
) -> None:
    """An exception that blocks would be the opposite of what its list says."""
    zone = ZoneEntry("z", kind, (), Mode.ENFORCE, (Rule(written),), override=Rule(Action.DROP))

    assert zone.rule(0).action is acts
