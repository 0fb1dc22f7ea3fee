"""Why the first of several rules decides, in a sentence. `judge` has put them into that order; here it is only told."""

from collections.abc import Sequence

from resolver.policy.documents import Mode
from resolver.policy.generation import ORDER_RANK
from resolver.policy.judge import Verdict
from resolver.policy.terms import Precedence, ZoneEntry, ZoneKind
from resolver.policy.zone import Reach

_ALONE = "no other rule covers the name"


def why_first(verdicts: Sequence[Verdict], precedence: Precedence) -> str:
    """Tell why the first of the rules that cover a question decides on it.

    Args:
        verdicts: As `judge.weigh` gives them; at least one.
        precedence: Among orders.
    """
    first = verdicts[0]
    if not first.enforced:
        return f"no rule acts: {_why_idle(first)}"
    if len(verdicts) == 1:
        return _ALONE
    second = verdicts[1]
    if not second.enforced:
        return f"it acts; {_why_idle(second)}"
    if first.rank != second.rank:
        return _between_ranks(first, second)
    if first.rank == 0:
        return _among_own(first, second)
    return _among_orders(first, second, precedence) if first.rank == ORDER_RANK else _within_zone(first, second)


def _why_idle(verdict: Verdict) -> str:
    if verdict.exemption:
        return f"the client is exempt from {verdict.order.id} by {verdict.exemption}"
    assert verdict.mode is Mode.OBSERVE
    return f"{verdict.order.id} only logs"


def _between_ranks(first: Verdict, second: Verdict) -> str:
    if first.rank == 0:
        return "the operator's own rule goes before every order, list and zone"
    if first.rank == ORDER_RANK:
        return "an order goes before every list and zone"
    return f"{first.order.id} stands before {second.order.id}"


def _among_own(first: Verdict, second: Verdict) -> str:
    if first.passes != second.passes:
        return "of the operator's own rules an allow goes before a block"
    return _nearer(first, second) or "of two own rules with the same name the first by id acts"


def _among_orders(first: Verdict, second: Verdict, precedence: Precedence) -> str:
    if first.order.id != second.order.id:
        if precedence is Precedence.CONFIGURED:
            return "of two orders the one that is configured first acts"
        if first.action is not second.action:
            return "of two orders the strictest acts"
    return _nearer(first, second) or "of two equals the one that is configured first acts"


def _within_zone(first: Verdict, second: Verdict) -> str:
    assert isinstance(first.order, ZoneEntry)
    if first.order.kind is ZoneKind.LIST and first.rule_held.important != second.rule_held.important:
        return "an important rule goes before the others of its list"
    if first.trigger is not second.trigger:
        return f"within a policy zone {first.trigger.value} goes before {second.trigger.value}"
    return _nearer(first, second) or "of two equals the one that is written first acts"


def _nearer(first: Verdict, second: Verdict) -> str:
    if len(first.owner) != len(second.owner):
        return "the longest name decides"
    if (first.reach is Reach.EXACT) is not (second.reach is Reach.EXACT):
        return "a name listed exactly goes before one listed with all below it"
    return ""
