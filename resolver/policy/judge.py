"""Verdicts: what policy says about a name, asked by a client of one view. A pure function, and the only one that
decides.

The data path and `interdict explain` call the same lines, so an explanation can not differ from what was done.
"""

from dataclasses import dataclass

from resolver.policy.documents import Action, Basis, Mode
from resolver.policy.generation import STRICTNESS, AppEntry, OrderEntry, View
from resolver.wire import name as names
from resolver.wire.codes import Ede


@dataclass(frozen=True, slots=True)
class Verdict:
    """What policy says about a query.

    `owner_offset` is where in the judged name the rule's own name begins. `orders` names every order whose rules cover
    the name, the deciding one first.
    """

    action: Action
    mode: Mode
    order: OrderEntry
    app: AppEntry
    exact: bool
    owner: bytes
    owner_offset: int
    orders: tuple[str, ...]

    @property
    def ede(self) -> Ede:
        """The INFO-CODE that says on whose word the answer is what it is.

        A forged answer is Forged Answer (RFC 8914 §4.5) whoever ordered it, since that is what the client must know; a
        refused one is Censored where an outside authority imposes it (RFC 8914 §4.17), Blocked where it is one's own
        policy (RFC 8914 §4.16).
        """
        if self.action is Action.SINKHOLE:
            return Ede.FORGED_ANSWER
        return Ede.CENSORED if self.order.basis is Basis.OUTSIDE_AUTHORITY else Ede.BLOCKED

    @property
    def rule(self) -> str:
        """The rule in words: `suffix wechat.com`."""
        return f"{'exact' if self.exact else 'suffix'} {names.to_text(self.owner)}"

    @property
    def extra_text(self) -> str:
        """EXTRA-TEXT for people and log readers: the order and the app."""
        return f"order {self.order.id}, app {self.app.id}"


def weigh(qname: bytes, view: View) -> list[Verdict]:
    """Every rule of the view that covers the name, the one that decides first.

    Enforced rules come before observed ones, so that a rule on trial never shadows one in force. Among equals the
    longest name wins, exact before suffix, then the strictest action, then the order of the configuration.

    Args:
        qname: Lower-cased wire form.
        view: Whose rules, and at what moment.
    """
    terms = view.generation.terms
    found = []
    for offset, claim_set in view.generation.table.covering(qname):
        for claim in terms.claim_sets[claim_set]:
            if claim.exact and offset:
                continue
            stance = view.stances.get(claim.order)
            if stance is not None:
                strictness = STRICTNESS[stance.action]
                key = (stance.mode is not Mode.ENFORCE, offset, not claim.exact, -strictness, stance.rank, claim.app)
                found.append((key, claim, stance, offset))
    found.sort(key=lambda candidate: candidate[0])
    orders = tuple(dict.fromkeys(terms.orders[claim.order].id for _, claim, _, _ in found))
    return [
        Verdict(
            stance.action, stance.mode, terms.orders[claim.order], terms.apps[claim.app],
            claim.exact, qname[offset:], offset, orders,
        )
        for _, claim, stance, offset in found
    ]  # fmt: skip


def judge_query(qname: bytes, view: View) -> Verdict | None:
    """What policy says about a name, or None where no rule covers it. The same for every QTYPE and class."""
    verdicts = weigh(qname, view)
    return verdicts[0] if verdicts else None


def judge_answer(targets: tuple[bytes, ...], view: View) -> Verdict | None:
    """What policy says about the names an answer leads to; the first enforced rule along the chain decides.

    An allowed name that is an alias of a banned one would otherwise be a way round the order.
    """
    observed = None
    for target in targets:
        verdict = judge_query(target, view)
        if verdict is not None:
            if verdict.mode is Mode.ENFORCE:
                return verdict
            observed = observed or verdict
    return observed
