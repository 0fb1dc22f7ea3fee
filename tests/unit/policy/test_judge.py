"""What policy says about a name: which rule covers it, which of several decides, and what no rule may do."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.policy.documents import Action, Basis, Mode
from resolver.policy.generation import STRICTNESS, View
from resolver.policy.judge import Verdict, judge_answer, judge_query, weigh
from resolver.wire.codes import Ede
from resolver.wire.name import is_at_or_below
from tests.support.build import Ban, policy, wire

PROPERTY = settings(deadline=None)
OBSERVE, ENFORCE = Mode.OBSERVE, Mode.ENFORCE


def verdict_on(name: str, *bans: Ban, at: float = 0.0, group: int = 0) -> Verdict | None:
    """What is said about a name under these orders."""
    return judge_query(wire(name).lower(), View(policy(*bans), group, at))


WECHAT = Ban("wechat", ("suffix wechat.com", "exact pay.example"))

COVERED = ["wechat.com", "mp.wechat.com", "a.b.c.wechat.com", "pay.example", "WECHAT.COM"]
NOT_COVERED = [
    "notwechat.com", "wechat.com.example", "com", ".", "wechat.co", "xwechat.com", "wechat-com.example",
    "www.pay.example", "example", "pay.example.org",
]  # fmt: skip


@pytest.mark.parametrize("name", COVERED)
def test_a_rule_covers_its_name(name: str) -> None:
    """Suffix: itself and all below on a label boundary; exact: itself."""
    found = verdict_on(name, WECHAT)

    assert found is not None
    assert (found.order.id, found.app.id, found.mode, found.action) == (
        "wechat",
        "app-wechat",
        ENFORCE,
        Action.NXDOMAIN,
    )


@pytest.mark.parametrize("name", NOT_COVERED)
def test_a_rule_covers_nothing_that_only_looks_like_its_name(name: str) -> None:
    """No rule, no verdict."""
    assert verdict_on(name, WECHAT) is None


def test_a_label_that_holds_a_dot_is_no_boundary() -> None:
    r"""`x\.wechat.com` is a name under com, not under wechat.com."""
    assert judge_query(b"\x08x.wechat\3com\0", View(policy(WECHAT), 0, 0.0)) is None


def test_a_verdict_names_its_rule() -> None:
    """The rule's own name, where it stands in the name judged, and its words for the record."""
    found = verdict_on("www.mp.WeChat.com", WECHAT)
    exact = verdict_on("pay.example", WECHAT)

    assert found is not None
    assert exact is not None
    assert (found.owner, found.owner_offset, found.exact) == (wire("wechat.com"), 7, False)
    assert (found.rule, exact.rule) == ("suffix wechat.com", "exact pay.example")
    assert found.extra_text == "order wechat, app app-wechat"


@pytest.mark.parametrize(
    ("action", "basis", "ede"),
    [
        (Action.SINKHOLE, Basis.OUTSIDE_AUTHORITY, Ede.FORGED_ANSWER),
        (Action.SINKHOLE, Basis.OWN_POLICY, Ede.FORGED_ANSWER),
        *((action, Basis.OUTSIDE_AUTHORITY, Ede.CENSORED) for action in Action if action is not Action.SINKHOLE),
        *((action, Basis.OWN_POLICY, Ede.BLOCKED) for action in Action if action is not Action.SINKHOLE),
    ],
)
def test_the_extended_error_says_on_whose_word(action: Action, basis: Basis, ede: Ede) -> None:
    """Forged where an address is given, else censored or blocked by who ordered it."""
    found = verdict_on("wechat.com", Ban("ban", ("suffix wechat.com",), action=action, basis=basis))

    assert found is not None
    assert found.ede is ede


# Rules of several orders on www.chat.example, the one that decides first; the name of each order says why.
PRECEDENCE = {
    "enforced before observed, however long": [
        Ban("short-enforced", ("suffix example.org", "suffix example"), ENFORCE, Action.SINKHOLE),
        Ban("long-observed", ("exact www.chat.example",), OBSERVE, Action.DROP),
    ],
    "the longest name": [
        Ban("longer", ("suffix www.chat.example",), action=Action.SINKHOLE),
        Ban("shorter", ("suffix chat.example",), action=Action.DROP),
    ],
    "exact before suffix": [
        Ban("exact", ("exact www.chat.example",), action=Action.SINKHOLE),
        Ban("suffix", ("suffix www.chat.example",), action=Action.DROP),
    ],
    "the strictest action": [
        Ban("drop", ("suffix chat.example",), action=Action.DROP),
        Ban("refused", ("suffix chat.example",), action=Action.REFUSED),
        Ban("nxdomain", ("suffix chat.example",), action=Action.NXDOMAIN),
        Ban("nodata", ("suffix chat.example",), action=Action.NODATA),
        Ban("sinkhole", ("suffix chat.example",), action=Action.SINKHOLE),
    ],
    "among observed ones too": [
        Ban("strict", ("suffix chat.example",), OBSERVE, Action.DROP),
        Ban("mild", ("suffix chat.example",), OBSERVE, Action.SINKHOLE),
    ],
}


@pytest.mark.parametrize("case", PRECEDENCE)
@pytest.mark.parametrize("backwards", [False, True])
def test_of_several_rules_the_right_one_decides(case: str, backwards: bool) -> None:
    """Whatever the order of the configuration; and the verdict names them all, the deciding one first."""
    bans = PRECEDENCE[case]
    found = verdict_on("www.chat.example", *(reversed(bans) if backwards else bans))

    assert found is not None
    assert list(found.orders) == [ban.order for ban in bans]
    assert found.order.id == bans[0].order


def test_among_equals_the_first_configured_decides() -> None:
    """The last resort, so that there is always one answer."""
    bans = [Ban(name, ("suffix chat.example",)) for name in ("zeta", "alpha")]
    found = verdict_on("chat.example", *bans)

    assert found is not None
    assert found.orders == ("zeta", "alpha")


def test_an_order_that_covers_a_name_twice_is_named_once() -> None:
    """By several of its rules."""
    found = verdict_on("a.chat.example", Ban("ban", ("suffix chat.example", "suffix example", "exact a.chat.example")))

    assert found is not None
    assert found.orders == ("ban",)
    assert found.rule == "exact a.chat.example"


def test_a_rule_holds_for_the_orders_groups_and_time_only() -> None:
    """Another group's clients, clients of no group, and everybody before and after are left alone."""
    ban = Ban("ban", ("suffix chat.example",), groups=("phones",), effective=100.0, expires=200.0)

    said = {(group, at) for group in (0, 1, -1) for at in (99.9, 100.0, 199.9, 200.0)
            if verdict_on("chat.example", ban, at=at, group=group)}  # fmt: skip
    assert said == {(0, 100.0), (0, 199.9)}


# ---- the names an answer leads to -----------------------------------------------------------------------------------

OBSERVED = Ban("observed", ("suffix watched.example",), OBSERVE)


@pytest.mark.parametrize(
    ("targets", "order"),
    [
        ([], None),
        (["cdn.example"], None),
        (["cdn.example", "x.wechat.com"], "wechat"),
        (["a.watched.example"], "observed"),
        (["a.watched.example", "cdn.example", "pay.example"], "wechat"),
        (["notwechat.com", "."], None),
    ],
)
def test_a_chain_is_judged_by_every_name_on_it(targets: list[str], order: str | None) -> None:
    """The first enforced rule decides; where there is none, the first observed one is told."""
    found = judge_answer(tuple(wire(name) for name in targets), View(policy(WECHAT, OBSERVED), 0, 0.0))

    assert (found.order.id if found else None) == order


# ---- properties -----------------------------------------------------------------------------------------------------

NAMES = ["example", "chat.example", "a.chat.example", "b.a.chat.example", "xchat.example", "pay.example", "org"]
RULES = st.tuples(st.sampled_from(["exact", "suffix"]), st.sampled_from(NAMES)).map(" ".join)


def bans(order: str) -> st.SearchStrategy[Ban]:
    """Any order of that name."""
    return st.builds(
        Ban,
        st.just(order),
        st.lists(RULES, min_size=1, max_size=3, unique=True).map(tuple),
        st.sampled_from(Mode),
        st.sampled_from(Action),
    )


POLICIES = st.integers(0, 4).flatmap(lambda n: st.tuples(*(bans(f"b{i}") for i in range(n))))
ASKED = st.sampled_from([*NAMES, "z.chat.example", "z.b.a.chat.example", "other.org"])


def covers(rule: str, name: bytes) -> bool:
    """A reading of a rule that owes nothing to the table."""
    match, _, owner = rule.partition(" ")
    return name == wire(owner) or (match == "suffix" and is_at_or_below(name, wire(owner)))


@PROPERTY
@given(POLICIES, ASKED)
def test_the_verdict_is_the_least_of_all_rules_that_cover_the_name(listed: tuple[Ban, ...], name: str) -> None:
    """By the five criteria of `weigh`, over every rule of every order."""
    found = weigh(wire(name), View(policy(*listed), 0, 0.0))
    ranked = sorted(
        (ban.mode is OBSERVE, -len(wire(rule.split()[1])), rule.startswith("suffix"), -STRICTNESS[ban.action], i, rule)
        for i, ban in enumerate(listed)
        for rule in ban.rules
        if covers(rule, wire(name))
    )  # fmt: skip

    assert [(v.order.id, v.rule) for v in found] == [(f"b{i}", rule) for *_, i, rule in ranked]


@PROPERTY
@given(POLICIES, ASKED, st.data())
def test_the_order_of_files_decides_nothing(listed: tuple[Ban, ...], name: str, data: st.DataObject) -> None:
    """What is done stays the same; only among equals may another order be the one named."""
    shuffled = data.draw(st.permutations(listed))
    one, other = verdict_on(name, *listed), verdict_on(name, *shuffled)

    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert (one.mode, one.action, one.rule, set(one.orders)) == (
            other.mode,
            other.action,
            other.rule,
            set(other.orders),
        )


@PROPERTY
@given(POLICIES, bans("more"), ASKED)
def test_an_order_more_never_blocks_less(listed: tuple[Ban, ...], more: Ban, name: str) -> None:
    """What was withheld is withheld, and what was recorded is recorded."""
    before, after = verdict_on(name, *listed), verdict_on(name, *listed, more)

    if before is not None:
        assert after is not None
        assert before.mode is OBSERVE or after.mode is ENFORCE
        assert set(before.orders) <= set(after.orders)


@PROPERTY
@given(POLICIES, bans("trial"), ASKED, st.integers(0, 4))
def test_an_order_on_trial_never_changes_what_is_enforced(
    listed: tuple[Ban, ...], trial: Ban, name: str, place: int
) -> None:
    """Wherever it stands in the configuration."""
    trial = Ban("trial", trial.rules, OBSERVE, trial.action)
    before = verdict_on(name, *listed)
    after = verdict_on(name, *listed[:place], trial, *listed[place:])

    if before is not None and before.mode is ENFORCE:
        assert after is not None
        assert (after.order.id, after.action, after.rule) == (before.order.id, before.action, before.rule)
    else:
        assert after is None or after.mode is OBSERVE


@PROPERTY
@given(POLICIES, ASKED, st.data())
def test_letter_case_makes_no_difference(listed: tuple[Ban, ...], name: str, data: st.DataObject) -> None:
    """However a name is spelled, once it is lowered it gets one verdict."""
    spelled = "".join(data.draw(st.sampled_from([c.lower(), c.upper()])) for c in name)
    one, other = verdict_on(name, *listed), verdict_on(spelled, *listed)

    assert (one and (one.order, one.rule, one.action)) == (other and (other.order, other.rule, other.action))


@PROPERTY
@given(POLICIES, st.lists(ASKED, max_size=4))
def test_a_chain_is_withheld_exactly_where_one_of_its_names_is(listed: tuple[Ban, ...], names: list[str]) -> None:
    """No name on it is passed over, and none is blamed that no rule covers."""
    view = View(policy(*listed), 0, 0.0)
    each = [verdict for name in names if (verdict := judge_query(wire(name), view))]
    found = judge_answer(tuple(wire(name) for name in names), view)

    assert found == next((v for v in each if v.mode is ENFORCE), each[0] if each else None)
