"""What policy says about a name: which rule covers it, which of several decides, and what no rule may do."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.policy.documents import Action, Basis, Mode
from resolver.policy.generation import STRICTNESS, View
from resolver.policy.judge import Reached, Verdict, judge_answer, judge_query
from resolver.policy.terms import Precedence, ZoneKind
from resolver.policy.zone import LocalRecord, Rule
from resolver.wire.codes import Ede
from tests.support.build import Ban, Spared, Zone, own, policy, wire
from tests.support.naive import (
    Policy,
    Question,
    bans,
    done,
    exemptions,
    is_withheld,
    lists,
    naive_answer,
    naive_query,
    naive_settled,
    own_rules,
    policies,
    questions,
    rpzs,
    summary,
    told,
    with_more,
)

PROPERTY = settings(deadline=None, max_examples=50)
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
        *((action, Basis.OUTSIDE_AUTHORITY, Ede.CENSORED) for action in STRICTNESS if action is not Action.SINKHOLE),
        *((action, Basis.OWN_POLICY, Ede.BLOCKED) for action in STRICTNESS if action is not Action.SINKHOLE),
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
    "the strictest action, however short its name": [
        Ban("shorter", ("suffix chat.example",), action=Action.DROP),
        Ban("longer", ("suffix www.chat.example",), action=Action.SINKHOLE),
    ],
    "of equally strict ones the longest name": [
        Ban("longer", ("suffix www.chat.example",)),
        Ban("shorter", ("suffix chat.example",)),
    ],
    "of these exact before suffix": [
        Ban("exact", ("exact www.chat.example",)),
        Ban("suffix", ("suffix www.chat.example",)),
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


def _judge_chain(targets: list[str], view: View | None = None) -> Verdict | None:
    """What is said of an allowed name that is an alias of these."""
    view = view or View(policy(WECHAT, OBSERVED), 0, 0.0)
    reached = Reached(aliases=tuple(wire(name) for name in targets))
    return judge_answer(wire("www.innocent.example"), None, reached, view, 1)


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
    found = _judge_chain(targets)

    assert (found.order.id if found else None) == order


# ---- what stands beside orders --------------------------------------------------------------------------------------

BLOCK, ALLOW = Rule(Action.NXDOMAIN), Rule(Action.PASSTHRU)
BAN = Ban("ban", ("suffix chat.example",))
PHONE = "192.0.2.5"
MADE = Rule(Action.LOCAL_DATA, (LocalRecord(1, 60, bytes(4)),))


def asked(name: str = "www.chat.example", **changes: Any) -> Question:
    """A phone's question."""
    return Question(PHONE, 0.0, name, **changes)


def listed(*lines: tuple[str, Rule], id_: str = "list:ads", **applied: Any) -> Zone:
    """A list with these names."""
    return Zone(id_, ZoneKind.LIST, lines, **applied)


def rpz(*lines: tuple[str, Rule], id_: str = "zone:rpz", **applied: Any) -> Zone:
    """A Response Policy Zone with these names."""
    return Zone(id_, ZoneKind.RPZ, lines, **applied)


EXCEPTED = (("suffix chat.example", BLOCK), ("suffix www.chat.example", ALLOW))
IMPORTANT = Rule(Action.NXDOMAIN, important=True)

# What decides on www.chat.example by name alone: (id, action, all that matched), or None.
BESIDE = {
    "an own allow opens an order": (
        Policy((BAN,), (own("mine", Action.PASSTHRU, "suffix chat.example"),)),
        ("rule:mine", "passthru", ["rule:mine", "ban"]),
    ),
    "an own allow goes before an own block, however short": (
        Policy((), (own("no", Action.DROP, "exact www.chat.example"), own("yes", Action.PASSTHRU, "suffix example"))),
        ("rule:yes", "passthru", ["rule:yes", "rule:no"]),
    ),
    "an own block goes before a zone's PASSTHRU": (
        Policy((), (own("no", Action.REFUSED, "suffix example"), rpz(("exact www.chat.example", ALLOW)))),
        ("rule:no", "refused", ["rule:no", "zone:rpz"]),
    ),
    "a zone's PASSTHRU does not open an order": (
        Policy((BAN,), (rpz(("exact www.chat.example", ALLOW)),)),
        ("ban", "nxdomain", ["ban", "zone:rpz"]),
    ),
    "a zone's PASSTHRU opens the zones after it": (
        Policy((), (rpz(("suffix example", ALLOW)), listed(("suffix chat.example", BLOCK)))),
        ("zone:rpz", "passthru", ["zone:rpz", "list:ads"]),
    ),
    "a list's exception takes its own rules back, and nothing else's": (
        Policy((), (listed(*EXCEPTED), listed(("suffix chat.example", BLOCK), id_="list:more"))),
        ("list:more", "nxdomain", ["list:more"]),
    ),
    "of two files of one folder, each keeps to its own exceptions": (
        Policy((), (listed(("suffix www.chat.example", ALLOW)), listed(("suffix chat.example", BLOCK)))),
        ("list:ads", "nxdomain", ["list:ads"]),
    ),
    "an override leaves a list's exceptions alone": (
        Policy((), (listed(*EXCEPTED, override=Rule(Action.REFUSED)),)),
        None,
    ),
    "an override leaves an important rule important": (
        Policy((), (listed(("exact www.chat.example", IMPORTANT), EXCEPTED[1], override=Rule(Action.REFUSED)),)),
        ("list:ads", "refused", ["list:ads"]),
    ),
    "an override acts for every rule of a Response Policy Zone, PASSTHRU too": (
        Policy((), (rpz(("exact www.chat.example", ALLOW), override=Rule(Action.DROP)),)),
        ("zone:rpz", "drop", ["zone:rpz"]),
    ),
    "a zone that only logs shadows none after it": (
        Policy((), (rpz(("suffix example", ALLOW), mode=OBSERVE), rpz(("suffix example", BLOCK), id_="zone:two"))),
        ("zone:two", "nxdomain", ["zone:two", "zone:rpz"]),
    ),
    "exact beats wildcard, the longer name the shorter": (
        Policy((), (rpz(("below example", BLOCK), ("below chat.example", MADE), ("exact www.chat.example", ALLOW)),)),
        ("zone:rpz", "passthru", ["zone:rpz"]),
    ),
    "of several orders the first configured, where that is wanted": (
        Policy(
            (
                Ban("first", ("suffix chat.example",), action=Action.SINKHOLE),
                Ban("second", ("exact www.chat.example",)),
            ),
            precedence=Precedence.CONFIGURED,
        ),
        ("first", "sinkhole", ["first", "second"]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BESIDE)
def test_what_stands_beside_orders_is_weighed_with_them(case: str) -> None:
    """Own rules, orders, zones as configured; and the verdict names all that matched."""
    found, expected = BESIDE[case]
    first, _, _ = told(asked(), found)

    assert (first and (first.order.id, first.action.value, list(first.orders))) == expected


def test_an_exempt_client_is_told_apart_and_others_are_not() -> None:
    """The order is named, with the exemption, and does not act; another order on the name does."""
    spared = Spared("lab", ("ban",), devices=("192.0.2.5/32",), until=10.0)
    found = Policy((BAN, Ban("other", ("suffix www.chat.example",))), exemptions=(spared,))

    first, _, _ = told(asked(), found)
    assert first is not None
    assert (first.order.id, first.orders, first.exemption) == ("other", ("other", "ban"), "")
    first, settled, _ = told(asked("chat.example"), found)
    assert first is not None
    assert (first.order.id, first.exemption, first.mode, first.passes, settled) == ("ban", "lab", OBSERVE, True, False)
    for changed in (replace(asked("chat.example"), client="192.0.2.6"), replace(asked("chat.example"), at=10.0)):
        assert is_withheld(changed, found)


# Of an answer for www.chat.example: (id, link, settled by the question alone).
ANSWERED = {
    "no order waits for an own allow on addresses: what it bans is asked of nobody": (
        Policy((BAN,), (own("mine", Action.PASSTHRU, addresses=("198.51.100.0/24",)),)),
        asked(addresses=("198.51.100.1",)),
        ("ban", 0, True),
    ),
    "nor for an own block": (
        Policy((BAN,), (own("mine", Action.REFUSED, addresses=("198.51.100.0/24",)),)),
        asked(addresses=("198.51.100.1",)),
        ("ban", 0, True),
    ),
    "but a zone does": (
        Policy((), (own("mine", Action.REFUSED, addresses=("198.51.100.0/24",)), rpz(("suffix chat.example", BLOCK)))),
        asked(addresses=("198.51.100.1",)),
        ("rule:mine", 0, False),
    ),
    "an own allow on the address opens no order on the alias that has it": (
        Policy((Ban("ban", ("suffix cdn.example",)),), (own("mine", Action.PASSTHRU, addresses=("198.51.100.0/24",)),)),
        asked(aliases=("cdn.example",), addresses=("198.51.100.1",)),
        ("ban", 1, False),
    ),
    "it opens every zone, at whatever link": (
        Policy((), (own("mine", Action.PASSTHRU, addresses=("198.51.100.0/24",)), rpz(("exact b.example", BLOCK)))),
        asked(aliases=("b.example", "cdn.example"), addresses=("198.51.100.1",)),
        ("rule:mine", 2, False),
    ),
    "a name that is allowed passes at its link, with all that follows": (
        Policy((Ban("ban", ("suffix cdn.example",)),), (own("mine", Action.PASSTHRU, "exact good.example"),)),
        asked(aliases=("good.example", "cdn.example")),
        ("rule:mine", 1, False),
    ),
    "and opens nothing before it": (
        Policy((Ban("ban", ("suffix cdn.example",)),), (own("mine", Action.PASSTHRU, "exact good.example"),)),
        asked(aliases=("cdn.example", "good.example")),
        ("ban", 1, False),
    ),
    "the target of an HTTPS record is judged": (
        Policy((Ban("ban", ("suffix svc.example",)),)),
        asked(qtype=65, others=("svc.example",)),
        ("ban", 1, False),
    ),
    "an order goes before a zone, at whatever link": (
        Policy((Ban("ban", ("suffix cdn.example",)),), (rpz(("exact b.example", MADE)),)),
        asked(aliases=("b.example", "cdn.example")),
        ("ban", 2, False),
    ),
    "among zones the nearer link goes first": (
        Policy((), (rpz(("exact cdn.example", BLOCK)), rpz(("exact b.example", BLOCK), id_="zone:two"))),
        asked(aliases=("b.example", "cdn.example")),
        ("zone:two", 1, False),
    ),
    "a zone waits for one before it that looks at addresses": (
        Policy((), (Zone("zone:a", networks=(("ip 198.51.100.0/24", ALLOW),)), rpz(("exact www.chat.example", BLOCK)))),
        asked(addresses=("198.51.100.1",)),
        ("zone:a", 0, False),
    ),
    "and not for one after it": (
        Policy((), (rpz(("exact www.chat.example", BLOCK)), Zone("zone:b", networks=(("ip 198.51.100.0/24", ALLOW),)))),
        asked(addresses=("198.51.100.1",)),
        ("zone:rpz", 0, True),
    ),
    "a list's exception on the name spares its address": (
        Policy((), (listed(EXCEPTED[1], networks=(("ip 198.51.100.0/24", BLOCK),)),)),
        asked(addresses=("198.51.100.1",)),
        None,
    ),
    "of name servers the longest listed name decides": (
        Policy((), (Zone("zone:ns", nameservers=(("below host.example", BLOCK), ("exact b.host.example", ALLOW))),)),
        asked(servers={"www.chat.example": (("a.host.example", "b.host.example"), ())}),
        ("zone:ns", 0, False),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ANSWERED)
def test_an_answer_is_judged_link_by_link(case: str) -> None:
    """Names, addresses and name servers; and the question alone settles it only where nothing of these has a say."""
    found, question, expected = ANSWERED[case]
    first, settled, last = told(question, found)
    verdict = first if settled else last

    assert (verdict and (verdict.order.id, verdict.link, settled)) == expected


def test_an_answer_s_verdict_names_all_that_matched() -> None:
    """Orders that only log too, though a zone decides."""
    found = Policy(
        (Ban("trial", ("suffix chat.example",), OBSERVE),),
        (Zone("zone:a", networks=(("ip 203.0.113.0/24", BLOCK),)), rpz(("suffix chat.example", BLOCK))),
    )
    first, settled, last = told(asked(), found)

    assert not settled
    assert first is not None
    assert last is not None
    assert first.orders == last.orders == ("zone:rpz", "trial")


def test_a_rule_on_a_name_server_begins_nowhere_in_the_name() -> None:
    """Or an answer's SOA would point into the middle of it."""
    found = Policy((), (Zone("zone:ns", nameservers=(("suffix host.example", BLOCK),)),))
    verdict = done(asked(servers={"www.chat.example": (("ns.host.example",), ())}), found)

    assert verdict is not None
    assert (verdict.owner_offset, verdict.rule) == (0, "nsdname suffix host.example")


# ---- properties -----------------------------------------------------------------------------------------------------

MUCH = settings(deadline=None, max_examples=60)
MORE = settings(deadline=None, max_examples=150)


@MORE
@given(policies(), questions())
def test_a_judge_written_from_the_rules_alone_says_the_same(found: Policy, question: Question) -> None:
    """Of the question, of whether that is settled, and of the answer: who decides, what is done, all that matched."""
    first, settled, last = told(question, found)

    assert summary(first) == naive_query(question, found)
    assert settled == naive_settled(question, found)
    assert summary(last) == naive_answer(question, found)


@MUCH
@given(policies(), questions())
def test_what_is_settled_stays_withheld_wherever_it_leads(found: Policy, question: Question) -> None:
    """So nobody need be asked."""
    _, settled, last = told(question, found)

    assert not settled or (last is not None and not last.passes)


@MUCH
@given(policies(), exemptions("more", ["b0"]), bans("b0"), questions())
def test_an_exemption_never_withholds_more(found: Policy, spared: Spared, ban: Ban, question: Question) -> None:
    """Nor does it shorten what a verdict names."""
    found = replace(found, bans=(ban, *found.bans[1:]))
    more = with_more(found, spared=(spared,))

    assert is_withheld(question, found) or not is_withheld(question, more)
    before, after = told(question, found)[0], told(question, more)[0]
    assert set(before.orders if before else ()) == set(after.orders if after else ())


@MUCH
@given(policies(), own_rules("more", Action.PASSTHRU), questions())
def test_an_own_allow_never_withholds_more(found: Policy, allow: Zone, question: Question) -> None:
    """Whatever it covers."""
    assert is_withheld(question, found) or not is_withheld(question, with_more(found, allow))


@MUCH
@given(policies(), own_rules("more", Action.NXDOMAIN, Action.REFUSED), questions())
def test_an_own_block_never_withholds_less(found: Policy, block: Zone, question: Question) -> None:
    """Whatever it covers."""
    assert is_withheld(question, with_more(found, block)) or not is_withheld(question, found)


@MUCH
@given(policies(), bans("more"), questions(), st.booleans())
def test_an_order_more_never_withholds_less(found: Policy, ban: Ban, question: Question, first: bool) -> None:
    """Wherever it stands in the configuration."""
    more = replace(found, bans=(ban, *found.bans) if first else (*found.bans, ban))

    assert is_withheld(question, more) or not is_withheld(question, found)


@MUCH
@given(policies(), st.one_of(rpzs("more"), lists("more")), questions())
def test_a_zone_after_all_others_changes_nothing_that_was_decided(
    found: Policy, zone: Zone, question: Question
) -> None:
    """By a rule that acts on the question; of an answer, by own rules and orders; an allow opens its own link."""
    more = with_more(found, zone)
    for before, after, ranks in zip(told(question, found)[::2], told(question, more)[::2], (99, 1), strict=True):
        if before is not None and before.enforced and before.rank <= ranks and not (before.passes and before.link):
            assert after is not None
            assert summary(after)[:4] == summary(before)[:4]  # type: ignore[index]


@MUCH
@given(
    policies(),
    st.one_of(rpzs("trial", st.just(OBSERVE)), lists("trial", st.just(OBSERVE)), bans("trial", st.just(OBSERVE))),
    questions(),
    st.integers(0, 3),
)
def test_a_trial_never_changes_what_is_enforced(
    found: Policy, trial: Zone | Ban, question: Question, place: int
) -> None:
    """A zone or an order that only logs, wherever it stands."""
    if isinstance(trial, Zone):
        more = with_more(found, trial, place=place)
    else:
        more = replace(found, bans=(*found.bans[:place], trial, *found.bans[place:]))
    before, after = done(question, found), done(question, more)

    if before is not None and before.enforced:
        assert summary(after)[:4] == summary(before)[:4]  # type: ignore[index]
    else:
        assert after is None or not after.enforced


@MUCH
@given(policies(), rpzs("more", actions=(Action.PASSTHRU,)), questions(), st.integers(0, 3))
def test_a_zone_that_lets_pass_opens_no_order_and_closes_nothing(
    found: Policy, zone: Zone, question: Question, place: int
) -> None:
    """Wherever it stands among the zones, and whatever it looks at."""
    more = with_more(found, zone, place=place)
    before, after = done(question, found), done(question, more)

    assert is_withheld(question, found) or not is_withheld(question, more)
    if before is not None and before.enforced and before.rank <= 1:
        assert summary(after)[:4] == summary(before)[:4]  # type: ignore[index]


@MUCH
@given(policies(), questions(), st.data())
def test_the_order_of_orders_and_exemptions_decides_nothing(
    found: Policy, question: Question, data: st.DataObject
) -> None:
    """What is done stays the same under the strictest action; only among equals may another order be the one named."""
    found = replace(found, precedence=Precedence.STRICTEST)
    shuffled = replace(
        found,
        bans=tuple(data.draw(st.permutations(found.bans))),
        exemptions=tuple(data.draw(st.permutations(found.exemptions))),
    )
    one, other = done(question, found), done(question, shuffled)

    assert (one and (one.action, one.mode, one.link, set(one.orders))) == (
        other and (other.action, other.mode, other.link, set(other.orders))
    )


@PROPERTY
@given(policies(), questions(), st.data())
def test_letter_case_makes_no_difference(found: Policy, question: Question, data: st.DataObject) -> None:
    """However a name is spelled, once it is lowered it gets one verdict."""
    spelled = "".join(data.draw(st.sampled_from([c.lower(), c.upper()])) for c in question.name)
    view = question.view(found.opened())

    assert judge_query(wire(spelled).lower(), view) == judge_query(wire(question.name), view)
