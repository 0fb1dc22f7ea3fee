"""What is surely not meant about orders, apps, rules, exemptions and groups."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from resolver.policy.additions import Documents, Exemption, LocalRule, WayRound, WayRoundName
from resolver.policy.compile import AppliedZone, Enforcement, PolicySettings, compile_generation
from resolver.policy.documents import Action, App, Confidence, Domain, Match, Mode
from resolver.policy.findings import Code, Finding, Kind, Severity
from resolver.policy.generation import Generation
from resolver.policy.lint import lint, shared_names
from resolver.policy.terms import GroupEntry, Precedence, ZoneKind
from resolver.policy.zone import PolicyZone, Reach, Rule
from resolver.wire import name as names
from tests.support.house import Held, app

AT = 1_900_000_000.0
DAY = 86400.0
GROUPS = {"phones": ("192.0.2.0/25",), "desks": ("192.0.2.128/25",)}
ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
CHAT = app("chat", "chat.example", "=only.example")


def instant(at: float) -> str:
    """As documents write it."""
    return datetime.fromtimestamp(at, UTC).isoformat()


def domain(name: str, **others: object) -> Domain:
    """One name of an app."""
    written: dict[str, object] = {
        "name": name, "match": "suffix", "purpose": "core", "confidence": "high", "use": "block", "sources": ["EX"]
    }  # fmt: skip
    return Domain.model_validate(written | others)


def suite(id_: str, *domains: Domain) -> App:
    """An app of those names."""
    return App(id=id_, names=(id_,), vendor="Example Corp.", domains=domains)


def rule(id_: str, verdict: str, *listed: str, **others: object) -> LocalRule:
    """A rule of the operator's, that ends in a year."""
    written: dict[str, object] = {
        "id": id_, "verdict": verdict, "names": list(listed), "owner": "desk", "reason": "test",
        "until": instant(AT + 300 * DAY),
    }  # fmt: skip
    return LocalRule.model_validate(written | others)


def exemption(**others: object) -> Exemption:
    """An exemption from chat, for half a year."""
    written: dict[str, object] = {
        "id": "lab", "apps": ["chat"], "reason": "law-enforcement", "grantor": "CIO",
        "granted": instant(AT - 10 * DAY), "expires": instant(AT + 180 * DAY),
    }  # fmt: skip
    return Exemption.model_validate(written | others)


@dataclass
class Policy:
    """A policy by its parts; `findings` lints it."""

    orders: Sequence[Held] = (Held([CHAT], "ban", ("phones", "desks"), effective=AT - DAY),)
    rules: Sequence[LocalRule] = ()
    exemptions: Sequence[Exemption] = ()
    ways_round: Sequence[WayRound] = ()
    apps: Sequence[App] = ()
    zones: Sequence[AppliedZone] = ()
    groups: Mapping[str, Sequence[str]] = field(default_factory=lambda: GROUPS)
    allowed: Sequence[str] = ("192.0.2.0/25", "192.0.2.128/25")
    lines: Sequence[Enforcement] | None = None
    precedence: Precedence = Precedence.STRICTEST
    changes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def documents(self) -> Documents:
        """As they would be read."""
        apps = [*self.apps, *(app for order in self.orders for app in order.apps)]
        orders = [order.document() for order in self.orders]
        return Documents(
            {one.id: one for one in apps},
            {one.id: one.model_copy(update=dict(self.changes.get(one.id, {}))) for one in orders},
            {one.id: one for one in self.exemptions},
            {one.id: one for one in self.rules},
            {one.id: one for one in self.ways_round},
        )

    def findings(self, at: float = AT) -> tuple[Finding, ...]:
        """What is odd about it."""
        lines = tuple(Enforcement(o.id, tuple(o.groups), o.mode, o.action) for o in self.orders)
        settings = PolicySettings(
            allowed_networks=tuple(self.allowed),
            groups=tuple(GroupEntry(name, tuple(networks)) for name, networks in self.groups.items()),
            enforcements=lines if self.lines is None else tuple(self.lines),
            block_ttl=30,
            sinkhole_ipv4=("192.0.2.80",),
            precedence=self.precedence,
        )
        documents = self.documents()
        octets, _ = compile_generation(documents, settings, serial=1, at=at, zones=self.zones)
        return lint(documents, settings, Generation(memoryview(bytearray(octets))), (), at)


def told(findings: Iterable[Finding]) -> list[tuple[Severity, Kind, str, Code]]:
    """What programs look at."""
    return [(one.severity, one.where.kind, one.where.id, one.code) for one in findings]


def test_a_plain_policy_has_no_findings() -> None:
    """Nothing is odd about one order for all groups."""
    assert Policy().findings() == ()


# ---- overlapping scopes ---------------------------------------------------------------------------------------------


def held(id_: str, action: Action, *groups: str, mode: Mode = Mode.ENFORCE, listed: str = "chat.example") -> Held:
    """An order on one name with an app of its own."""
    return Held([app(f"app-{id_}", listed)], id_, groups, mode, action, effective=AT - DAY)


@pytest.mark.parametrize(
    ("first", "second", "precedence", "place", "why"),
    [
        (
            held("one", Action.NXDOMAIN, "phones"), held("two", Action.DROP, "phones", "desks"),
            Precedence.STRICTEST, "one", "with drop by two, which acts, since the strictest action goes first",
        ),
        (
            held("one", Action.DROP, "phones"), held("two", Action.SINKHOLE, "phones"),
            Precedence.STRICTEST, "two", "with drop by one, which acts, since the strictest action goes first",
        ),
        (
            held("one", Action.SINKHOLE, "phones"), held("two", Action.DROP, "phones"),
            Precedence.CONFIGURED, "two", "with sinkhole by one, which acts, since its line comes first",
        ),
        (
            held("one", Action.NXDOMAIN, "phones", listed="a.chat.example"), held("two", Action.DROP, "phones"),
            Precedence.STRICTEST, "one", "for phones, a.chat.example is forbidden with nxdomain here",
        ),
    ],
)  # fmt: skip
def test_two_orders_on_one_name_with_different_actions_are_a_warning(
    first: Held, second: Held, precedence: Precedence, place: str, why: str
) -> None:
    """It stands at the order that does not act, and tells which does and why."""
    found = [one for one in Policy([first, second], precedence=precedence).findings() if one.code is Code.OVERLAP]

    assert told(found) == [(WARNING, Kind.ORDER, place, Code.OVERLAP)]
    assert why in found[0].message


@pytest.mark.parametrize(
    "second",
    [
        held("two", Action.NXDOMAIN, "phones"),
        held("two", Action.DROP, "desks"),
        held("two", Action.DROP, "phones", listed="talk.example"),
        held("two", Action.DROP, "phones", listed="notchat.example"),
    ],
)
def test_orders_that_agree_or_do_not_meet_are_no_overlap(second: Held) -> None:
    """The same action, other groups, other names."""
    findings = Policy([held("one", Action.NXDOMAIN, "phones"), second]).findings()

    assert Code.OVERLAP not in {one.code for one in findings}


def test_orders_that_never_act_at_the_same_time_are_no_overlap() -> None:
    """One line ends where the other begins."""
    orders = [held("one", Action.NXDOMAIN, "phones"), held("two", Action.DROP, "phones")]
    lines = [
        Enforcement("one", ("phones",), Mode.ENFORCE, Action.NXDOMAIN, until=AT + DAY),
        Enforcement("two", ("phones",), Mode.ENFORCE, Action.DROP, since=AT + DAY),
    ]

    assert Code.OVERLAP not in {one.code for one in Policy(orders, lines=lines).findings()}


def test_an_order_on_trial_beside_one_in_force_is_a_note() -> None:
    """It only logs what the other one withholds."""
    orders = [held("trial", Action.NXDOMAIN, "phones", mode=Mode.OBSERVE), held("law", Action.NXDOMAIN, "phones")]

    found = [one for one in Policy(orders).findings() if one.code is Code.OVERLAP]

    assert told(found) == [(NOTE, Kind.ORDER, "trial", Code.OVERLAP)]
    assert "forbidden by law too, which is enforced and acts" in found[0].message


# ---- orders and apps ------------------------------------------------------------------------------------------------


def test_an_order_without_any_name_is_an_error_and_an_app_without_one_a_warning() -> None:
    """Here the names are less sure than the order asks for."""
    sure, unsure = suite("sure", domain("a.example")), suite("unsure", domain("b.example", confidence="low"))
    changes = {id_: {"min_confidence": Confidence.HIGH} for id_ in ("none", "some")}
    orders = [Held([unsure], "none", effective=AT - DAY, groups=["phones"])]
    orders += [Held([sure, unsure], "some", effective=AT - DAY, groups=["desks"])]

    found = [one for one in Policy(orders, changes=changes).findings() if one.code is Code.NO_NAMES]

    assert told(found) == [
        (ERROR, Kind.ORDER, "none", Code.NO_NAMES), (WARNING, Kind.ORDER, "some", Code.NO_NAMES)
    ]  # fmt: skip
    assert found[1].message.startswith("takes no name of app unsure: min_confidence or include_optional leave all out")


def test_what_is_left_out_is_a_note() -> None:
    """An order that no line names, an app that no order names, a group without an order, a line that ended."""
    idle = Held([CHAT], "idle", effective=AT - DAY)
    lines = [
        Enforcement("ban", ("phones",), Mode.ENFORCE, Action.NXDOMAIN),
        Enforcement("ban", ("phones",), Mode.ENFORCE, Action.NXDOMAIN, until=AT - DAY),
    ]

    found = Policy([*Policy().orders, idle], lines=lines, apps=[app("alone", "alone.example")]).findings()

    assert told(found) == [
        (NOTE, Kind.ORDER, "ban", Code.ENDED),
        (NOTE, Kind.CONFIGURATION, "", Code.IDLE),
        (NOTE, Kind.APP, "alone", Code.NO_ORDER),
        (NOTE, Kind.GROUP, "desks", Code.NO_ORDER),
    ]
    assert found[1].message == "described, but put into force by no line of policy.orders: idle"


def test_an_order_that_ended_is_a_warning() -> None:
    """It does nothing any more, and the line may go."""
    found = Policy([Held([CHAT], "old", ("phones", "desks"), effective=AT - 9 * DAY, expires=AT - DAY)]).findings()

    assert told(found) == [(WARNING, Kind.ORDER, "old", Code.ENDED)]
    assert "take it out of policy.orders" in found[0].message


@pytest.mark.parametrize(
    ("domains", "severity", "code", "says"),
    [
        ([domain("a.example"), domain("b.a.example", match="exact")], NOTE, Code.REDUNDANT, "(b.a.example)"),
        ([domain("a.example"), domain("a.example", match="exact")], NOTE, Code.REDUNDANT, "(a.example)"),
        (
            [domain("a.example"), domain("b.a.example", use="never", collateral="all")], WARNING,
            Code.NO_EXCEPTION, "it is forbidden with a.example",
        ),
        ([domain("a.example", purpose="shared-cdn")], NOTE, Code.SHARED, "to shared names (a.example)"),
        ([domain("s3.amazonaws.com")], ERROR, Code.PUBLIC_SUFFIX, 'write "use: never"'),
        ([domain("akamaized.net", use="optional", collateral="all")], ERROR, Code.PUBLIC_SUFFIX, "its customers"),
        ([domain("amazonaws.com")], WARNING, Code.SHARED, "above names that a provider gives to customers"),
    ],
)  # fmt: skip
def test_an_odd_name_of_an_app_is_told(domains: list[Domain], severity: Severity, code: Code, says: str) -> None:
    """Names that lose nothing, that are forbidden though never to be, that strangers share."""
    order = Held([suite("chat", *domains)], "ban", ("phones", "desks"), effective=AT - DAY)
    found = [
        one
        for one in Policy([order], changes={"ban": {"include_optional": True}}).findings()
        if one.where.kind is Kind.APP
    ]

    assert told(found) == [(severity, Kind.APP, "chat", code)]
    assert says in found[0].message


@pytest.mark.parametrize(
    "one",
    [
        domain("chat.example.akamaized.net"),
        domain("cloudfront.net", match="exact"),
        domain("cloudfront.net", use="never", collateral="all"),
        domain("amazonaws.com", use="optional", collateral="all"),
        domain("cdn.example", purpose="shared-cdn", collateral="none known: only this app uses it"),
        domain("cdn.example", purpose="shared-cdn", use="optional", collateral="others"),
    ],
)
def test_a_name_that_is_the_apps_own_or_opted_in_to_is_not_told(one: Domain) -> None:
    """What a customer has below a provider's suffix, what is never forbidden, what an order asks for."""
    order = Held([suite("chat", domain("a.example"), one)], "ban", ("phones", "desks"), effective=AT - DAY)

    assert Policy([order]).findings() == ()


# ---- rules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "severity", "code", "says"),
    [
        (-DAY, NOTE, Code.ENDED, "does nothing; keep it as a record"),
        (20 * 3600, WARNING, Code.ENDS_SOON, "ends in 20 hours"),
        (6 * DAY, WARNING, Code.ENDS_SOON, "ends in 6 days"),
        (29 * DAY, NOTE, Code.ENDS_SOON, "ends in 29 days"),
    ],
)
def test_an_end_that_comes_near_is_told(left: float, severity: Severity, code: Code, says: str) -> None:
    """Of rules and exemptions alike: a note a month before, a warning in the last week."""
    block = rule("own", "block", "a.example", since=instant(AT - 9 * DAY), until=instant(AT + left))
    spared = exemption(devices=["192.0.2.17"], expires=instant(AT + left))

    found = Policy(rules=[block], exemptions=[spared]).findings()

    assert told(found) == [(severity, Kind.RULE, "own", code), (severity, Kind.EXEMPTION, "lab", code)]
    assert all(says in one.message for one in found)


def test_what_begins_later_is_a_note() -> None:
    """Granted in the future, or from then on."""
    block = rule("own", "block", "a.example", since=instant(AT + 2 * DAY))
    spared = exemption(devices=["192.0.2.17"], granted=instant(AT + 2 * DAY))

    found = Policy(rules=[block], exemptions=[spared]).findings()

    assert told(found) == [(NOTE, Kind.RULE, "own", Code.NOT_YET), (NOTE, Kind.EXEMPTION, "lab", Code.NOT_YET)]
    assert all(one.message.startswith("begins in 2 days") for one in found)


@pytest.mark.parametrize(
    ("allow", "block", "severity"),
    [
        ({}, {}, WARNING),
        ({}, {"groups": ["phones"]}, WARNING),
        ({"groups": ["phones"]}, {}, NOTE),
        ({"groups": ["phones"]}, {"groups": ["desks"]}, None),
        ({"until": instant(AT + 100 * DAY)}, {}, NOTE),
        ({"until": instant(AT - DAY)}, {}, None),
        ({"match": "exact"}, {}, None),
        ({"match": "exact"}, {"match": "exact"}, WARNING),
    ],
)
def test_a_block_that_an_allow_goes_before_is_told(
    allow: dict[str, object], block: dict[str, object], severity: Severity | None
) -> None:
    """A warning where it never acts, a note where it does not for some, or for some time."""
    rules = [
        rule("opens", "allow", "chat.example", since=instant(AT - 9 * DAY), **allow),
        rule("shuts", "block", "chat.example", **block),
    ]

    found = [one for one in Policy(rules=rules).findings() if one.code is Code.SHADOWED]

    assert told(found) == ([] if severity is None else [(severity, Kind.RULE, "shuts", Code.SHADOWED)])


@pytest.mark.parametrize("name", ["chat.example", "deep.chat.example", "only.example", "blocked.example.org"])
def test_an_allow_on_what_is_forbidden_is_not_told(name: str) -> None:
    """At a forbidden name, or below a forbidden suffix; by an order or a zone."""
    zone = PolicyZone()
    zone.hold(names.from_text("blocked.example.org"), Reach.EXACT, zone.number_of(Rule(Action.NXDOMAIN)))
    zones = [AppliedZone("list:ads", ZoneKind.LIST, zone)]

    assert Policy(rules=[rule("opens", "allow", name)], zones=zones).findings() == ()


def test_an_allow_inside_a_block_of_ones_own_is_not_told() -> None:
    """An exception from it; the block still acts on the rest."""
    rules = [rule("opens", "allow", "ok.bad.example"), rule("shuts", "block", "bad.example")]

    assert Policy(rules=rules).findings() == ()


def test_an_allow_above_forbidden_names_is_not_told() -> None:
    """With all below it, it opens them."""
    order = Held([app("chat", "im.chat.example")], "ban", ("phones", "desks"), effective=AT - DAY)

    assert Policy([order], rules=[rule("opens", "allow", "chat.example")]).findings() == ()


@pytest.mark.parametrize("name", ["free.example", "below.only.example", "notchat.example"])
def test_an_allow_on_what_nothing_forbids_is_a_note(name: str) -> None:
    """It may still open an alias of a forbidden name."""
    found = Policy(rules=[rule("opens", "allow", name)]).findings()

    assert told(found) == [(NOTE, Kind.RULE, "opens", Code.IDLE)]
    assert f"nothing forbids {name} by name" in found[0].message


@pytest.mark.parametrize(
    ("name", "severity", "code"),
    [
        ("co.uk", ERROR, Code.PUBLIC_SUFFIX),
        ("cloudfront.net", ERROR, Code.PUBLIC_SUFFIX),
        ("amazonaws.com", WARNING, Code.SHARED),
        ("example.org", None, None),
    ],
)
def test_own_rules_and_ways_round_on_what_strangers_share_are_errors(
    name: str, severity: Severity | None, code: Code | None
) -> None:
    """With all below it; the name alone is one's own affair."""
    way = WayRound(
        id="doh", title="DoH", effect="none", version="1", action=Action.NXDOMAIN,
        names=(WayRoundName(name=name, match=Match.SUFFIX, sources=("EX",)),),
    )  # fmt: skip
    documents = Policy(
        rules=[rule("all", "block", name), rule("one", "block", name, match="exact")], ways_round=[way]
    ).documents()

    expected = [] if code is None else [(severity, Kind.RULE, "all", code), (severity, Kind.WAY_ROUND, "doh", code)]
    assert told(shared_names(documents)) == expected


# ---- exemptions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "says"),
    [
        ({"devices": ["192.0.2.17"]}, None),
        ({"devices": ["192.0.2.0/24"]}, None),
        ({"groups": ["phones"], "apps": ["chat"]}, None),
        ({"devices": ["192.0.2.200"]}, "192.0.2.200/32 is in desks, which none of ban, other binds"),
        ({"devices": ["198.51.100.1"]}, "198.51.100.1/32 is in no group, and none of ban, other binds"),
        ({"groups": ["desks"]}, "group desks is bound by none of ban, other"),
        ({"devices": ["192.0.2.17"], "orders": ["other"], "apps": []}, "no line of policy.orders puts into force"),
    ],
)
def test_an_exemption_that_spares_nobody_is_a_warning(who: dict[str, object], says: str | None) -> None:
    """The order binds phones alone, so that desks are free already."""
    orders = [Held([CHAT, app("talk", "talk.example")], "ban", ("phones",), effective=AT - DAY)]
    orders += [Held([CHAT], "other", effective=AT - DAY)]
    lines = [Enforcement("ban", ("phones",), Mode.ENFORCE, Action.NXDOMAIN)]

    policy = Policy(orders, lines=lines, exemptions=[exemption(**who)])
    found = [one for one in policy.findings() if one.where.kind is Kind.EXEMPTION]

    assert told(found) == ([] if says is None else [(WARNING, Kind.EXEMPTION, "lab", Code.SPARES_NOBODY)])
    assert says is None or says in found[0].message


# ---- groups and the rest --------------------------------------------------------------------------------------------


def test_groups_and_allowed_networks_that_do_not_meet_are_told() -> None:
    """A group nobody of which may ask, and clients that no group holds."""
    found = Policy(
        groups={"phones": ("192.0.2.0/25",), "desks": ("192.0.2.128/25", "203.0.113.0/24")},
        allowed=("192.0.2.0/24", "198.51.100.0/24"),
    ).findings()

    assert told(found) == [
        (WARNING, Kind.GROUP, "desks", Code.NOT_ALLOWED), (NOTE, Kind.CONFIGURATION, "", Code.NO_GROUP)
    ]  # fmt: skip
    assert "nobody in 203.0.113.0/24 may ask" in found[0].message
    assert "198.51.100.0/24" in found[1].message


def test_a_sinkhole_without_an_address_of_a_family_is_a_warning() -> None:
    """AAAA is answered without one here."""
    found = Policy([Held([CHAT], "ban", ("phones", "desks"), action=Action.SINKHOLE, effective=AT - DAY)]).findings()

    assert [str(one)[:55] for one in found] == ["policy.sinkhole.ipv6: is empty: AAAA questions are answ"]


def test_a_way_round_that_is_switched_off_is_a_note() -> None:
    """With the line that switches it on."""
    way = WayRound(
        id="doh", title="DoH", effect="none", version="1", action=Action.NXDOMAIN,
        names=(WayRoundName(name="doh.example", match=Match.SUFFIX, sources=("EX",)),),
    )  # fmt: skip

    found = Policy(ways_round=[way]).findings()

    assert told(found) == [(NOTE, Kind.WAY_ROUND, "doh", Code.SWITCHED_OFF)]
    assert "policy.ways_round: {doh: true}" in found[0].message
