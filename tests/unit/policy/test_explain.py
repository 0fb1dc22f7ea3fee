"""Explanations: the data path's own verdict, and the reason for every entry that does nothing."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resolver.policy.additions import Documents, Exemption, LocalRule, WayRound
from resolver.policy.compile import AppliedZone, Enforcement, PolicySettings, compile_generation
from resolver.policy.documents import ORDER_ACTIONS, Action, App, Basis, Mode, Order
from resolver.policy.explain import explain
from resolver.policy.generation import Generation
from resolver.policy.judge import Reached, judge_query
from resolver.policy.register import Device
from resolver.policy.reply import Reply
from resolver.policy.source import read
from resolver.policy.steps import Explanation, Holder, Outcome, Reason, Source, Standing
from resolver.policy.terms import GroupEntry, Precedence, ZoneKind
from resolver.policy.zone import LocalRecord, PolicyZone, Reach, Rule, Trigger
from resolver.wire import name as names
from resolver.wire.codes import Rcode, Rtype
from tests.support.clock import FakeClock, run
from tests.support.house import client as asking
from tests.support.house import house
from tests.support.upstream import FakeExchange, records

APPS = [
    """\
id: chat
names: [Chat]
vendor: Example Corp.
domains:
  - {name: chat.example, match: suffix, purpose: core, confidence: high, use: block, sources: [EX],
     attribution: "embedded by news sites"}
  - {name: pay.example, match: exact, purpose: payments, confidence: high, use: block, sources: [EX]}
  - {name: maybe.example, match: suffix, purpose: web, confidence: low, use: block, sources: [EX]}
  - {name: shop.example, match: suffix, purpose: web, confidence: high, use: optional, sources: [EX],
     collateral: "third-party shops"}
  - {name: estate.example, match: suffix, purpose: shared-cdn, confidence: high, use: never, sources: [EX],
     collateral: "the whole estate"}
  - {name: im.estate.example, match: suffix, purpose: messaging, confidence: high, use: block, sources: [EX]}
""",
    """\
id: game
names: [Game]
vendor: Example Corp.
domains: [{name: game.example, match: suffix, purpose: core, confidence: high, use: block, sources: [EX]}]
""",
    """\
id: orphan
names: [Orphan]
vendor: Example Corp.
domains: [{name: orphan.example, match: suffix, purpose: core, confidence: high, use: block, sources: [EX]}]
""",
]
ORDER = """\
id: {id}
jurisdiction: Exampleland
authority: Minister
instrument: Direction 1
announced: 2029-12-01
effective: {effective}
scope: {{devices: all, level: app}}
basis: {basis}
apps: [{apps}]
min_confidence: medium
citations: [{{title: Ban, publisher: Gazette, url: "https://www.example.org/ban", read: primary}}]
confidence: medium
title: {{en: A ban, fr: Une interdiction}}
notice: {{en: Ask., fr: Demandez.}}
{rest}
"""
FIRST = "2030-01-01T00:00:00-05:00"
DURING = datetime(2030, 6, 1, tzinfo=UTC).timestamp()
PHONE, LAPTOP, STRANGER = ip_address("192.0.2.9"), ip_address("192.0.2.200"), ip_address("198.51.100.1")


def order(id_: str, apps: str, basis: Basis = Basis.OUTSIDE_AUTHORITY, rest: str = "", effective: str = FIRST) -> Order:
    text = ORDER.format(id=id_, apps=apps, basis=basis.value, rest=rest, effective=effective)
    return read(text, f"orders/{id_}.yaml", Order)


DOCUMENTS = Documents(
    {app.id: app for app in (read(text, "app.yaml", App) for text in APPS)},
    {o.id: o for o in (
        order("ban", "chat", rest="expires: 2031-01-01T00:00:00-05:00"), order("spare", "game", Basis.OWN_POLICY)
    )},
)  # fmt: skip


def generation_of(
    *lines: Enforcement,
    documents: Documents = DOCUMENTS,
    zones: Sequence[AppliedZone] = (),
    precedence: Precedence = Precedence.STRICTEST,
    ipv4: tuple[str, ...] = (),
    ipv6: tuple[str, ...] = (),
) -> Generation:
    policy = PolicySettings(
        allowed_networks=("192.0.2.0/24", "192.0.0.0/16", "2001:db8::/32"),
        groups=(GroupEntry("phones", ("192.0.2.0/25", "192.0.2.8/29")), GroupEntry("laptops", ("192.0.2.128/25",))),
        enforcements=lines, block_ttl=30, sinkhole_ipv4=ipv4, sinkhole_ipv6=ipv6, precedence=precedence,
        strip_ech=("laptops",),
    )  # fmt: skip
    octets, _ = compile_generation(documents, policy, serial=1, at=0.0, zones=zones)
    return Generation(memoryview(bytearray(octets)))


ENFORCED = Enforcement("ban", ("phones",), Mode.ENFORCE, Action.NXDOMAIN)
GENERATION = generation_of(ENFORCED)


def explained(
    name: str,
    client: object = PHONE,
    at: float = DURING,
    generation: Generation = GENERATION,
    documents: Documents = DOCUMENTS,
    local: int | None = None,
    qtype: int = Rtype.A,
    reached: Reached | None = None,
) -> Explanation:
    return explain(
        names.from_text(name), qtype, ip_address(str(client)), at, generation, documents, local=local, reached=reached,
        sources={"list:ads": Source("https://lists.example/ads"), "zone:rpz.example": Source("192.0.2.53:53")},
    )  # fmt: skip


def test_a_withheld_name_is_explained_step_by_step() -> None:
    """Client, group, orders, rule and answer are those that the data path went through."""
    found = explained("login.chat.example")

    assert found.outcome is Outcome.WITHHELD
    assert found.recorded
    assert (found.client.allowed, found.client.allowed_network) == (True, "192.0.2.0/24")
    assert (found.client.group, found.client.group_network) == ("phones", "192.0.2.8/29")
    assert [(step.order, step.standing, step.groups) for step in found.orders] == [
        ("ban", Standing.IN_FORCE, ("phones",))
    ]
    (rule,) = found.rules
    assert (rule.name, rule.match, rule.app, rule.order) == ("chat.example", "suffix", "chat", "ban")
    assert (rule.purpose, rule.confidence, rule.attribution) == ("core", "high", "embedded by news sites")
    assert found.reply == Reply("NXDOMAIN", 16, "Censored", "order ban, app chat", (), 30)


def test_a_stranger_is_refused_before_any_order_is_looked_at() -> None:
    """Who may not ask is not told whom an order binds, and is not judged."""
    found = explained("login.chat.example", STRANGER)

    assert (found.outcome, found.client.allowed, found.client.allowed_network) == (Outcome.NOT_ALLOWED, False, "")
    assert (found.orders, found.rules, found.idle) == ((), (), ())
    assert found.reply == Reply("REFUSED", 18, "Prohibited", "client address is not allowed", (), None)


def test_a_client_of_no_group_is_bound_by_no_order() -> None:
    """An allowed address outside all groups gets an upstream's answer."""
    found = explained("chat.example", "192.0.9.9")

    assert (found.outcome, found.client.group, found.client.group_network) == (Outcome.FORWARDED, "", "")
    assert [(entry.reason, entry.why) for entry in found.idle] == [
        (Reason.OTHER_GROUP, "order ban is not put into force for clients of no group")
    ]


BEFORE = datetime.fromisoformat(FIRST).timestamp() - 1
AFTER = datetime(2031, 1, 1, 5, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("name", "client", "at", "reasons"),
    [
        ("chat.example", PHONE, BEFORE, [("chat.example", "ban", Reason.NOT_YET)]),
        ("chat.example", PHONE, AFTER, [("chat.example", "ban", Reason.ENDED)]),
        ("chat.example", LAPTOP, DURING, [("chat.example", "ban", Reason.OTHER_GROUP)]),
        ("a.pay.example", PHONE, DURING, [("pay.example", "", Reason.EXACT)]),
        ("maybe.example", PHONE, DURING, [("maybe.example", "ban", Reason.CONFIDENCE)]),
        ("shop.example", PHONE, DURING, [("shop.example", "ban", Reason.OPTIONAL)]),
        ("www.estate.example", PHONE, DURING, [("estate.example", "", Reason.NEVER)]),
        ("game.example", PHONE, DURING, [("game.example", "spare", Reason.NOT_CONFIGURED)]),
        ("orphan.example", PHONE, DURING, [("orphan.example", "", Reason.NO_ORDER)]),
        ("xchat.example", PHONE, DURING, []),
        ("example", PHONE, DURING, []),
    ],
)
def test_an_allowed_name_says_which_entries_do_nothing_and_why(
    name: str, client: object, at: float, reasons: list[tuple[str, str, Reason]]
) -> None:
    """Each way of being listed and not withheld has its reason, and a name nobody lists has none."""
    found = explained(name, client, at)

    assert found.outcome is Outcome.FORWARDED
    assert not found.recorded
    assert found.reply is None
    assert [(entry.name, entry.order, entry.reason) for entry in found.idle] == reasons


def test_what_a_shared_parent_carries_is_told_beside_the_rule_below_it() -> None:
    """A `never` entry is no exception, and its collateral is shown where a name below it is withheld."""
    found = explained("a.im.estate.example")

    assert found.outcome is Outcome.WITHHELD
    assert [(entry.reason, entry.why) for entry in found.idle] == [
        (Reason.NEVER, "estate.example is kept as never for chat: the whole estate")
    ]


def test_an_order_on_trial_is_told_and_changes_nothing() -> None:
    """In observe mode the rule is found, a hit is recorded, and an upstream is asked."""
    generation = generation_of(Enforcement("ban", ("phones",), Mode.OBSERVE, Action.NXDOMAIN))

    found = explained("chat.example", generation=generation)

    assert (found.outcome, found.recorded, found.reply) == (Outcome.FORWARDED, True, None)
    assert found.rules[0].mode is Mode.OBSERVE


def test_policy_comes_before_what_the_server_answers_by_itself() -> None:
    """A special-use name is answered here, unless an order covers it."""
    assert explained("chat.example", local=Rcode.NXDOMAIN).outcome is Outcome.WITHHELD
    found = explained("host.test", local=Rcode.NXDOMAIN)
    assert (found.outcome, found.reply) == (Outcome.LOCAL, Reply("NXDOMAIN", None, "", "", (), None))


def test_a_dropped_query_gets_no_reply() -> None:
    """Silence is told as an empty RCODE."""
    generation = generation_of(Enforcement("ban", ("phones",), Mode.ENFORCE, Action.DROP))

    found = explained("chat.example", generation=generation)

    assert (found.outcome, found.reply) == (Outcome.WITHHELD, Reply("", None, "", "", (), None))


LISTED = [domain.name for app in DOCUMENTS.apps.values() for domain in app.domains]
BOTH = generation_of(
    ENFORCED,
    Enforcement("ban", ("laptops",), Mode.OBSERVE, Action.REFUSED),
    Enforcement("spare", ("phones",), Mode.OBSERVE, Action.DROP),
)
LABEL = st.sampled_from(["a", "chat", "im", "example", "xn--a", "estate"])


@given(
    prefix=st.lists(LABEL, max_size=3),
    name=st.one_of(st.sampled_from(LISTED), st.sampled_from(["example", "example.org", "schat.example"])),
    client=st.sampled_from([PHONE, LAPTOP, ip_address("192.0.9.9"), ip_address("2001:db8::1")]),
    at=st.sampled_from([BEFORE, DURING, AFTER]),
)
def test_the_deciding_rule_is_the_judges(prefix: list[str], name: str, client: object, at: float) -> None:
    """Whatever name, client and moment: the first rule told is the one that the data path acts on."""
    text = ".".join([*prefix, name])
    verdict = judge_query(names.from_text(text), BOTH.view_of(ip_address(str(client)).packed, at))

    found = explained(text, client, at, BOTH)

    told = [
        (rule.order, rule.app, rule.name, rule.match == "exact", rule.mode, rule.action) for rule in found.rules[:1]
    ]
    assert told == (
        []
        if verdict is None
        else [
            (
                verdict.order.id, verdict.app.id, names.to_text(verdict.owner), verdict.exact, verdict.mode,
                verdict.action,
            )
        ]
    )  # fmt: skip
    withheld = verdict is not None and verdict.mode is Mode.ENFORCE
    assert found.outcome is (Outcome.WITHHELD if withheld else Outcome.FORWARDED)


# ---- whose rule, and why it ------------------------------------------------------------------------------------------

UNTIL = "2030-12-31T00:00:00Z"
SINCE = "2030-01-01T00:00:00Z"


def own(id_: str, verdict: str, listed: Sequence[str] = (), **more: object) -> LocalRule:
    """A rule of the operator's."""
    return LocalRule.model_validate({
        "id": id_, "verdict": verdict, "names": listed, "owner": "J. Doe", "reason": "ticket 7", "until": UNTIL, **more,
    })  # fmt: skip


def exempt(id_: str, **more: object) -> Exemption:
    """An exemption of the phones from all that order ban forbids."""
    return Exemption.model_validate({
        "id": id_, "groups": ["phones"], "orders": ["ban"], "reason": "law-enforcement", "grantor": "CIO",
        "granted": SINCE, "expires": UNTIL, **more,
    })  # fmt: skip


def beside(*rules: LocalRule, exemptions: Sequence[Exemption] = (), ways: Sequence[WayRound] = ()) -> Documents:
    """The documents with these beside them."""
    return replace(
        DOCUMENTS,
        rules={rule.id: rule for rule in rules},
        exemptions={one.id: one for one in exemptions},
        ways_round={way.id: way for way in ways},
    )


def zone(id_: str, kind: ZoneKind, *held: tuple[str, Reach, Rule], mode: Mode = Mode.ENFORCE) -> AppliedZone:
    """A zone of some names."""
    filled = PolicyZone()
    for name, reach, rule in held:
        filled.hold(names.from_text(name), reach, filled.number_of(rule))
    return AppliedZone(id_, kind, filled, mode=mode)


def addressed(id_: str, network: str, rule: Rule, trigger: Trigger = Trigger.RESPONSE_IP) -> AppliedZone:
    """A Response Policy Zone with one trigger on addresses."""
    filled = PolicyZone()
    filled.hold_network(ip_network(network), filled.number_of(rule), trigger)
    return AppliedZone(id_, ZoneKind.RPZ, filled)


NO = Rule(Action.NXDOMAIN)
PASS = Rule(Action.PASSTHRU)
GIVEN = Rule(Action.LOCAL_DATA, (LocalRecord(Rtype.A, 5, b"\xc0\0\2\x07"),))
WALLED = Rule(Action.LOCAL_DATA, (LocalRecord(Rtype.CNAME, 5, names.from_text("walled.example")),))
EXPANDED = Rule(Action.LOCAL_DATA, (LocalRecord(Rtype.CNAME, 5, b"\1*" + names.from_text("walled.example")),))
ADS = zone("list:ads", ZoneKind.LIST, ("chat.example", Reach.SUFFIX, NO), ("ads.example", Reach.SUFFIX, NO))
RPZ = zone("zone:rpz.example", ZoneKind.RPZ, ("chat.example", Reach.SUFFIX, NO), ("ads.example", Reach.SUFFIX, GIVEN))
OBSERVED = replace(ENFORCED, mode=Mode.OBSERVE)
STRICT = Enforcement("spare", ("phones",), Mode.ENFORCE, Action.DROP)
BOTH_NAME = replace(DOCUMENTS, orders={"ban": DOCUMENTS.orders["ban"], "spare": order("spare", "chat")})

WHY = {
    "alone": ([ENFORCED], DOCUMENTS, [], "chat.example", ["ban"], "no other rule covers the name"),
    "allow over order": (
        [ENFORCED], beside(own("x", "allow", ["chat.example"])), [], "chat.example", ["rule:x", "ban"],
        "the operator's own rule goes before every order, list and zone",
    ),
    "allow over block": (
        [], beside(own("a", "block", ["chat.example"]), own("b", "allow", ["chat.example"])), [], "chat.example",
        ["rule:b", "rule:a"], "of the operator's own rules an allow goes before a block",
    ),
    "own names": (
        [], beside(own("a", "block", ["chat.example"]), own("b", "block", ["a.chat.example"])), [], "a.chat.example",
        ["rule:b", "rule:a"], "the longest name decides",
    ),
    "order over zone": (
        [ENFORCED], DOCUMENTS, [ADS], "chat.example", ["ban", "list:ads"], "an order goes before every list and zone",
    ),
    "strictest": (
        [ENFORCED, STRICT], BOTH_NAME, [], "chat.example", ["spare", "ban"], "of two orders the strictest acts",
    ),
    "configured": (
        [ENFORCED, replace(STRICT, action=Action.NXDOMAIN)], BOTH_NAME, [], "chat.example", ["ban", "spare"],
        "of two equals the one that is configured first acts",
    ),
    "zones": ([], DOCUMENTS, [RPZ, ADS], "ads.example", ["zone:rpz.example", "list:ads"],
              "zone:rpz.example stands before list:ads"),
    "on trial": ([OBSERVED], DOCUMENTS, [], "chat.example", ["ban"], "no rule acts: ban only logs"),
    "zone over trial": ([OBSERVED], DOCUMENTS, [ADS], "chat.example", ["list:ads", "ban"], "it acts; ban only logs"),
    "exempt": (
        [ENFORCED], beside(exemptions=[exempt("e")]), [], "chat.example", ["ban"],
        "no rule acts: the client is exempt from ban by e",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WHY)
def test_it_is_told_why_the_first_rule_decides(case: str) -> None:
    """Whose rules cover the name, in the order of decision, and the sentence on the first."""
    lines, documents, zones, name, holders, why = WHY[case]

    found = explained(name, generation=generation_of(*lines, documents=documents, zones=zones), documents=documents)

    assert ([rule.order for rule in found.rules], found.why) == (holders, why)


def test_the_order_configured_first_decides_where_the_policy_says_so() -> None:
    """Whatever the other one would do."""
    generation = generation_of(ENFORCED, STRICT, documents=BOTH_NAME, precedence=Precedence.CONFIGURED)

    found = explained("chat.example", generation=generation, documents=BOTH_NAME)

    assert [rule.order for rule in found.rules] == ["ban", "spare"]
    assert found.why == "of two orders the one that is configured first acts"


def test_an_own_rule_is_told_with_who_answers_for_it() -> None:
    """Owner, reason and end; an allow lets pass whatever the answer leads to, and is a hit where it opens an order."""
    documents = beside(own("x", "allow", ["chat.example"], since=SINCE))
    generation = generation_of(ENFORCED, documents=documents)

    found = explained("chat.example", generation=generation, documents=documents)

    rule = found.rules[0]
    assert (rule.holder, rule.owner, rule.reason) == (Holder.RULE, "J. Doe", "ticket 7")
    assert (str(rule.since), str(rule.until)) == ("2030-01-01 00:00:00+00:00", "2030-12-31 00:00:00+00:00")
    assert (found.outcome, found.answer, found.reply, found.recorded) == (Outcome.FORWARDED, None, None, True)


def test_an_exempt_client_is_told_by_what_and_until_when() -> None:
    """The exemption beside the client, at the rule, and as the reason why the entry does nothing; still a hit."""
    documents = beside(exemptions=[exempt("e", apps=["chat"]), exempt("of-others", groups=["laptops"])])
    generation = generation_of(ENFORCED, documents=documents)

    found = explained("chat.example", generation=generation, documents=documents)

    (step,) = found.client.exemptions
    assert (step.id, step.standing, step.named_by, step.grantor) == ("e", Standing.IN_FORCE, "group phones", "CIO")
    assert (step.orders, step.apps, step.reason) == (("ban",), ("chat",), "law-enforcement")
    assert (found.rules[0].mode, found.rules[0].exemption) == (Mode.OBSERVE, "e")
    assert [(entry.reason, entry.why) for entry in found.idle] == [
        (Reason.EXEMPT, "the client is exempt from ban by e, until 2030-12-31T00:00:00+00:00")
    ]
    assert (found.outcome, found.recorded) == (Outcome.FORWARDED, True)


@pytest.mark.parametrize(
    ("at", "standing", "outcome"),
    [
        (datetime.fromisoformat(SINCE).timestamp() - 1, Standing.NOT_YET, Outcome.FORWARDED),
        (datetime.fromisoformat(SINCE).timestamp() + 86400, Standing.IN_FORCE, Outcome.FORWARDED),
        (datetime.fromisoformat(UNTIL).timestamp(), Standing.EXPIRED, Outcome.WITHHELD),
    ],
)
def test_an_exemption_of_another_time_is_told_as_such(at: float, standing: Standing, outcome: Outcome) -> None:
    """By the device's address too; before the order is effective nobody is withheld anything."""
    documents = beside(exemptions=[exempt("e", groups=[], devices=[str(PHONE)])])

    found = explained(
        "chat.example", at=at, generation=generation_of(ENFORCED, documents=documents), documents=documents
    )

    assert [(one.standing, one.named_by) for one in found.client.exemptions] == [(standing, f"{PHONE}/32")]
    assert found.outcome is outcome


def test_a_zones_rule_is_told_with_its_source() -> None:
    """And what it gives, beside its own reply."""
    found = explained("ads.example", generation=generation_of(zones=[RPZ]))

    (rule,) = found.rules
    assert (rule.holder, rule.source, rule.records) == (Holder.ZONE, "192.0.2.53:53", ("A 192.0.2.7",))
    assert found.reply == Reply("NOERROR", 4, "Forged Answer", "zone:rpz.example", (), 5, ("A 192.0.2.7",))


def test_a_way_round_says_what_withholding_it_does() -> None:
    """With the sources of the name."""
    way = WayRound.model_validate({
        "id": "canary", "title": "A canary", "effect": "The browser asks us.", "version": "2030-01-01",
        "action": "nxdomain", "names": [{"name": "canary.example", "match": "exact", "sources": ["EX"]}],
    })  # fmt: skip
    held = zone("way-round:canary", ZoneKind.LIST, ("canary.example", Reach.EXACT, NO))
    found = explained("canary.example", generation=generation_of(zones=[held]), documents=beside(ways=[way]))

    (rule,) = found.rules
    assert (rule.holder, rule.reason, rule.source) == (
        Holder.WAY_ROUND, "The browser asks us.", "A canary, 2030-01-01, EX",
    )  # fmt: skip


TXT_ONLY = Rule(Action.NXDOMAIN, qtypes=(Rtype.TXT,))
BUT_BELOW = Rule(Action.NXDOMAIN, spares=(names.from_text("ok.ads.example"),))


@pytest.mark.parametrize(
    ("held", "name", "reason", "why"),
    [
        ([("ads.example", Reach.EXACT, NO)], "a.ads.example", Reason.EXACT,
         "ads.example is listed in list:ads alone, without the names below it"),
        ([("ads.example", Reach.BELOW, NO)], "ads.example", Reason.BELOW,
         "list:ads lists what is below ads.example, without ads.example itself"),
        ([("ads.example", Reach.SUFFIX, TXT_ONLY)], "ads.example", Reason.TYPE,
         "list:ads lists ads.example, but not for the type A"),
        ([("ads.example", Reach.SUFFIX, BUT_BELOW)], "a.ok.ads.example", Reason.SPARED,
         "list:ads lists ads.example, but spares this name"),
        ([("ads.example", Reach.SUFFIX, NO), ("ok.ads.example", Reach.SUFFIX, PASS)], "ok.ads.example",
         Reason.EXCEPTION, "list:ads lists ads.example, and takes it back by an exception for ok.ads.example"),
    ],
)  # fmt: skip
def test_a_list_that_does_nothing_says_why(
    held: list[tuple[str, Reach, Rule]], name: str, reason: Reason, why: str
) -> None:
    """How far an entry reaches, what narrows it, and what takes it back."""
    found = explained(name, generation=generation_of(zones=[zone("list:ads", ZoneKind.LIST, *held)]))

    assert (found.outcome, found.rules) == (Outcome.FORWARDED, ())
    assert [(entry.order, entry.reason, entry.why) for entry in found.idle] == [("list:ads", reason, why)]


def test_in_a_response_policy_zone_a_nearer_name_goes_before() -> None:
    """As a wildcard does not reach below a name that exists."""
    held = [("ads.example", Reach.BELOW, NO), ("ok.ads.example", Reach.EXACT, PASS)]

    found = explained("ok.ads.example", generation=generation_of(zones=[zone("zone:z", ZoneKind.RPZ, *held)]))

    assert [rule.name for rule in found.rules] == ["ok.ads.example"]
    assert [(entry.name, entry.reason) for entry in found.idle] == [("ads.example", Reason.NEARER)]


@pytest.mark.parametrize(
    ("client", "at", "reason"),
    [
        (LAPTOP, DURING, Reason.OTHER_GROUP),
        (PHONE, datetime.fromisoformat(SINCE).timestamp() - 1, Reason.NOT_YET),
        (PHONE, datetime.fromisoformat(UNTIL).timestamp(), Reason.ENDED),
    ],
)
def test_an_own_rule_that_does_nothing_says_why(client: object, at: float, reason: Reason) -> None:
    """Whose it is not, and when it does not count."""
    documents = beside(own("x", "block", ["free.example"], groups=["phones"], since=SINCE))

    found = explained("a.free.example", client, at, generation_of(documents=documents), documents)

    assert [(entry.order, entry.reason) for entry in found.idle] == [("rule:x", reason)]


# ---- what waits for the answer ---------------------------------------------------------------------------------------

BY_ADDRESS = addressed("zone:ip.example", "192.0.2.64/26", PASS)


def test_a_verdict_that_waits_says_for_whom() -> None:
    """A zone before it looks at addresses: the reply is told, and who may still speak up."""
    later = addressed("zone:later.example", "192.0.2.0/24", PASS)

    found = explained("ads.example", generation=generation_of(zones=[BY_ADDRESS, RPZ, later]))

    assert found.outcome is Outcome.AWAITS_ANSWER
    assert found.reply is not None
    assert found.answer is not None
    assert (found.answer.names, found.answer.addresses) == (True, ("zone:ip.example",))


@pytest.mark.parametrize(
    ("address", "outcome", "decides"),
    [("192.0.2.65", Outcome.FORWARDED, "zone:ip.example"), ("192.0.2.1", Outcome.WITHHELD, None)],
)
def test_an_answer_that_is_given_is_judged(address: str, outcome: Outcome, decides: str | None) -> None:
    """By the judge's own word on it."""
    generation = generation_of(zones=[BY_ADDRESS, RPZ])

    found = explained("ads.example", generation=generation, reached=Reached(addresses=(ip_address(address).packed,)))

    assert found.outcome is outcome
    assert found.answer is not None
    assert (found.answer.rule.order if found.answer.rule else None) == decides
    if found.answer.rule is not None:
        assert (found.answer.rule.trigger, found.answer.rule.name) == (Trigger.RESPONSE_IP, "192.0.2.64/26")


def test_name_servers_of_an_answer_are_judged() -> None:
    """Where they are given."""
    held = PolicyZone()
    held.hold(names.from_text("dns.example"), Reach.SUFFIX, held.number_of(NO), Trigger.NSDNAME)
    generation = generation_of(zones=[AppliedZone("zone:ns.example", ZoneKind.RPZ, held)])
    qname = names.from_text("free.example")
    servers = {qname: ((names.from_text("ns.dns.example"),), ())}

    unknown = explained("free.example", generation=generation)
    known = explained("free.example", generation=generation, reached=Reached(nameservers=servers))

    assert unknown.answer is not None
    assert (unknown.outcome, unknown.answer.nameservers) == (Outcome.FORWARDED, ("zone:ns.example",))
    assert known.answer is not None
    assert known.answer.rule is not None
    assert (known.outcome, known.answer.rule.trigger, known.answer.rule.name) == (
        Outcome.WITHHELD, Trigger.NSDNAME, "dns.example",
    )  # fmt: skip


def test_ech_keys_that_are_taken_out_are_told() -> None:
    """Of the types that carry them, for the groups that it is configured for."""
    told = {
        (client, qtype): (answer := explained("free.example", client, qtype=qtype).answer) and answer.strips_ech
        for client in (LAPTOP, PHONE)
        for qtype in (Rtype.HTTPS, Rtype.A)
    }

    assert [case for case, strips in told.items() if strips] == [(LAPTOP, Rtype.HTTPS)]


# ---- the pipeline says the same --------------------------------------------------------------------------------------

UPSTREAM = {
    "chat.example A": ["chat.example 60 IN A 192.0.2.70"],
    "game.example A": ["game.example 60 IN A 192.0.2.1"],
    "ads.example A": ["ads.example 60 IN A 192.0.2.70"],
    "free.example A": ["free.example 60 IN A 192.0.2.130"],
    "alias.example A": ["alias.example 60 IN CNAME chat.example", "chat.example 60 IN A 192.0.2.70"],
    # Of no network below: what the target of policy's own alias leads to is not told to `explain`.
    "walled.example A": ["walled.example 60 IN A 203.0.113.9"],
}
LEADS = {
    "chat.example": Reached(addresses=(ip_address("192.0.2.70").packed,)),
    "game.example": Reached(addresses=(ip_address("192.0.2.1").packed,)),
    "ads.example": Reached(addresses=(ip_address("192.0.2.70").packed,)),
    "free.example": Reached(addresses=(ip_address("192.0.2.130").packed,)),
    "alias.example": Reached((names.from_text("chat.example"),), (), (ip_address("192.0.2.70").packed,)),
}
LISTED_NAMES = st.sampled_from(["chat.example", "ads.example", "free.example", "alias.example", "example"])
ZONE_RULES = st.sampled_from([
    NO, PASS, GIVEN, WALLED, EXPANDED, TXT_ONLY, BUT_BELOW, Rule(Action.TCP_ONLY), Rule(Action.NODATA),
    Rule(Action.DROP), Rule(Action.REFUSED), Rule(Action.NXDOMAIN, important=True),
])  # fmt: skip
NETWORKS = st.sampled_from(["192.0.2.64/26", "192.0.2.0/24", "192.0.2.128/25", "192.0.2.9/32"])
SOA = LocalRecord(Rtype.SOA, 60, b"\0\0" + bytes(20))


REACHES = st.sampled_from([Reach.EXACT, Reach.SUFFIX, Reach.BELOW])


@st.composite
def applied_zones(draw: st.DrawFn, number: int) -> AppliedZone:
    """A list or a Response Policy Zone of anything."""
    kind = draw(st.sampled_from([ZoneKind.LIST, ZoneKind.RPZ]))
    filled = PolicyZone()
    for name in draw(st.lists(LISTED_NAMES, min_size=1, max_size=4)):
        filled.hold(names.from_text(name), draw(REACHES), filled.number_of(draw(ZONE_RULES)))
    if draw(st.booleans()):
        filled.patterns.append((draw(st.sampled_from(["^a", "chat"])), filled.number_of(draw(ZONE_RULES))))
    if kind is ZoneKind.RPZ:
        for network in draw(st.lists(NETWORKS, max_size=2)):
            trigger = draw(st.sampled_from([Trigger.RESPONSE_IP, Trigger.CLIENT_IP]))
            filled.hold_network(ip_network(network), filled.number_of(draw(ZONE_RULES)), trigger)
        if draw(st.booleans()):
            filled.origin, filled.soa = names.from_text("rpz.example"), SOA
    word = "list" if kind is ZoneKind.LIST else "zone"
    override = draw(
        st.one_of(st.none(), st.none(), ZONE_RULES.filter(lambda rule: not rule.qtypes and not rule.spares))
    )
    return AppliedZone(f"{word}:z{number}", kind, filled, (), draw(st.sampled_from(Mode)), override)


@st.composite
def policies(draw: st.DrawFn) -> tuple[Generation, Documents]:
    """Orders, own rules, exemptions and zones at random."""
    groups = st.sampled_from([("phones",), ("phones", "laptops")])
    lines = [
        Enforcement(id_, draw(groups), draw(st.sampled_from(Mode)), draw(st.sampled_from(ORDER_ACTIONS)))
        for id_ in draw(st.lists(st.sampled_from(["ban", "spare"]), unique=True))
    ]
    basis = draw(st.sampled_from(Basis))
    rules = [
        own(
            f"r{i}", draw(st.sampled_from(["allow", "block"])), draw(st.lists(LISTED_NAMES.filter(lambda n: "." in n))),
            addresses=draw(st.lists(NETWORKS.filter(lambda n: n != "192.0.2.9/32"), max_size=1)),
            match=draw(st.sampled_from(["exact", "suffix"])),
        )
        for i in range(draw(st.integers(0, 2)))
    ]  # fmt: skip
    documents = replace(
        beside(*rules, exemptions=[exempt("e")] if draw(st.booleans()) else []),
        orders={"ban": order("ban", "chat", basis), "spare": order("spare", draw(st.sampled_from(["game", "chat"])))},
    )
    zones = [draw(applied_zones(i)) for i in range(draw(st.integers(0, 3)))]
    return generation_of(
        *lines, documents=documents, zones=zones, precedence=draw(st.sampled_from(Precedence)), ipv4=("192.0.2.80",)
    ), documents


def agree(generation: Generation, documents: Documents, name: str, qtype: Rtype, client: object) -> None:
    """Hold what is explained against what the pipeline says, for a name whose answer is known."""
    built = house(FakeExchange(records(UPSTREAM, delay=0)), clock=FakeClock(at=DURING), policy=generation)
    said = run(built.clock, built.answer(_ask(name, qtype), asking(str(client))))
    reached = LEADS[name] if qtype is Rtype.A else Reached()
    found = explained(name, client, DURING, generation, documents, qtype=qtype, reached=reached)

    hits = built.hits()
    assert found.recorded is bool(hits)
    if hits:
        deciding = found.answer.rule if found.answer and found.answer.rule else found.rules[0]
        assert (hits[0].order, hits[0].app, hits[0].action) == (deciding.order, deciding.app, deciding.action)
    if said is None:
        assert found.reply == Reply("", None, "", "", (), None)
        return
    message = dns.message.from_wire(said)
    errors = [(int(one.code), one.text) for one in message.options if isinstance(one, dns.edns.EDEOption)]
    if found.reply is None:
        assert found.outcome is Outcome.FORWARDED
        assert errors == []
        return
    reply = found.reply
    assert found.outcome is Outcome.WITHHELD
    assert (reply.ede, reply.extra_text) in errors
    assert reply.truncated is bool(message.flags & dns.flags.TC)
    if not reply.target:  # else the RCODE is the target's
        assert reply.rcode == dns.rcode.to_text(message.rcode())
    told = [f"{dns.rdatatype.to_text(rrset.rdtype)} {rr}".rstrip(".") for rrset in message.answer for rr in rrset]
    if reply.target:
        assert reply.records[0] in told
    else:
        assert reply.records == tuple(told[len(told) - len(reply.records) :])
    soas = [rrset for rrset in message.additional if rrset.rdtype == Rtype.SOA]
    assert [rrset.name.to_text(True) for rrset in soas] == ([reply.soa] if reply.soa else [])
    if message.authority:
        assert reply.ttl == message.authority[0].ttl


def _ask(name: str, qtype: Rtype) -> bytes:
    return dns.message.make_query(name, int(qtype), use_edns=0).to_wire()


TOO_LONG = (b"\x3c" + b"x" * 60) * 4 + b"\0"  # a name, but none with chat.example before it
RULES_OF_ZONES = {
    "nxdomain": NO, "nodata": Rule(Action.NODATA), "passthru": PASS, "drop": Rule(Action.DROP),
    "refused": Rule(Action.REFUSED), "tcp-only": Rule(Action.TCP_ONLY), "address": GIVEN, "alias": WALLED,
    "wildcard alias": EXPANDED, "sinkhole": Rule(Action.SINKHOLE),
    "too long": Rule(Action.LOCAL_DATA, (LocalRecord(Rtype.CNAME, 5, b"\1*" + TOO_LONG),)),
    "text": Rule(Action.LOCAL_DATA, (LocalRecord(Rtype.TXT, 9, b"\2hi"), LocalRecord(Rtype.A, 5, bytes(4)))),
}  # fmt: skip


@pytest.mark.parametrize("with_soa", [False, True], ids=["", "soa"])
@pytest.mark.parametrize("kind", [ZoneKind.LIST, ZoneKind.RPZ])
@pytest.mark.parametrize("qtype", [Rtype.A, Rtype.AAAA, Rtype.TXT])
@pytest.mark.parametrize("case", RULES_OF_ZONES)
def test_each_action_of_a_zone_is_explained_as_it_is_done(
    case: str, qtype: Rtype, kind: ZoneKind, with_soa: bool
) -> None:
    """On the name asked for, and on one that it is an alias of."""
    held = zone(
        "zone:z" if kind is ZoneKind.RPZ else "list:z", kind, ("chat.example", Reach.EXACT, RULES_OF_ZONES[case])
    )
    if with_soa:
        held.zone.origin, held.zone.soa = names.from_text("rpz.example"), SOA
    generation = generation_of(zones=[held], ipv4=("192.0.2.80",))

    agree(generation, DOCUMENTS, "chat.example", qtype, PHONE)
    agree(generation, DOCUMENTS, "alias.example", qtype, PHONE)


@pytest.mark.parametrize("basis", list(Basis))
@pytest.mark.parametrize("action", ORDER_ACTIONS)
@pytest.mark.parametrize("qtype", [Rtype.A, Rtype.AAAA, Rtype.TXT])
@pytest.mark.parametrize("sinkhole", [(), ("192.0.2.80",), ("192.0.2.80", "192.0.2.81")])
def test_each_action_of_an_order_is_explained_as_it_is_done(
    basis: Basis, action: Action, qtype: Rtype, sinkhole: tuple[str, ...]
) -> None:
    """RCODE, Extended DNS Error, TTL and addresses are what the data path puts into its answer."""
    documents = replace(DOCUMENTS, orders={"ban": order("ban", "chat", basis)})
    line = Enforcement("ban", ("phones",), Mode.ENFORCE, action)

    agree(generation_of(line, documents=documents, ipv4=sinkhole), documents, "chat.example", qtype, PHONE)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    policies(),
    st.sampled_from(list(LEADS)),
    st.sampled_from([Rtype.A, Rtype.A, Rtype.AAAA, Rtype.TXT]),
    st.sampled_from([PHONE, LAPTOP]),
)
def test_what_is_explained_is_what_the_pipeline_does(
    policy: tuple[Generation, Documents], name: str, qtype: Rtype, client: object
) -> None:
    """Reply, Extended DNS Error, records, TTL, hit and its rule, over random policies."""
    agree(*policy, name, qtype, client)


def test_a_device_is_explained_by_its_group_wherever_it_asks_from() -> None:
    """Neither its network nor allowed_networks decide; without its group nothing would, so it is refused."""
    phone = Device(7, "phone-7", "phones")
    found = explain(
        names.from_text("login.chat.example"), Rtype.A, ip_address("203.0.113.200"), DURING, GENERATION, DOCUMENTS,
        local=None, device=phone,
    )  # fmt: skip
    assert (found.outcome, found.client.device, found.client.group) == (Outcome.WITHHELD, "phone-7", "phones")
    assert found.client.group_network == ""
    gone = explain(
        names.from_text("login.chat.example"), Rtype.A, ip_address("192.0.2.9"), DURING, GENERATION, DOCUMENTS,
        local=None, device=Device(8, "stray", "gone"),
    )  # fmt: skip
    assert gone.outcome is Outcome.NOT_ALLOWED
    assert gone.reply is not None
    assert gone.reply.extra_text == "the device's group is not configured"
