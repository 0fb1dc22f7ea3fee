"""From documents to a generation: which names an order takes, and that nothing else has a say in it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.policy.additions import Documents, Exemption, LocalRule
from resolver.policy.compile import (
    AppliedZone,
    Enforcement,
    PolicySettings,
    compile_generation,
    mistakes,
    takes,
)
from resolver.policy.documents import Action, App, Basis, Confidence, Domain, Match, Mode, Order, Use
from resolver.policy.generation import Generation, View
from resolver.policy.judge import Reached, judge_answer, judge_query
from resolver.policy.source import read
from resolver.policy.terms import FOREVER, GroupEntry, ZoneKind
from resolver.policy.zone import LocalRecord, PolicyZone, Reach, Rule, Trigger
from tests.support.build import wire

PROPERTY = settings(deadline=None)
AT = datetime.fromisoformat("2030-01-01T00:00:00-05:00").timestamp()


def app(id_: str, *domains: str) -> App:
    """An app; each domain is "name match use confidence"."""
    lines = [
        f"  - {{name: {name}, match: {match}, use: {use}, confidence: {confidence}, purpose: core, "
        "collateral: none known, sources: [EX]}"
        for name, match, use, confidence in map(str.split, domains)
    ]
    text = "\n".join([f"id: {id_}", f"names: [{id_.title()}]", "vendor: Example Corp.", "domains:", *lines, ""])
    return read(text, f"{id_}.yaml", App)


def order(id_: str, *apps: str, **changes: str) -> Order:
    """An order that names these apps, in force from AT."""
    facts = {
        "jurisdiction": "Exampleland",
        "authority": "Minister of Examples",
        "instrument": "Direction 1",
        "announced": "2029-12-01",
        "effective": "2030-01-01T00:00:00-05:00",
        "scope": "{devices: all, level: app}",
        "basis": "own-policy",
        "citations": '[{title: Ban, publisher: Gazette, url: "https://www.example.org/ban", read: primary}]',
        "confidence": "medium",
        "title": "{en: A ban, fr: Une interdiction}",
        "notice": "{en: Ask., fr: Demandez.}",
    }
    lines = [f"{key}: {written}" for key, written in (facts | changes).items()]
    return read("\n".join([f"id: {id_}", f"apps: [{', '.join(apps)}]", *lines, ""]), f"{id_}.yaml", Order)


def exemption(id_: str = "lab", **changes: str | None) -> Exemption:
    """An exemption of one device from the app chat for a month."""
    facts: dict[str, str | None] = {
        "devices": "[192.0.2.17]",
        "apps": "[chat]",
        "reason": "law-enforcement",
        "grantor": "CIO",
        "granted": "2030-02-01T00:00:00Z",
        "expires": "2030-03-01T00:00:00Z",
    }
    lines = [f"{key}: {written}" for key, written in (facts | changes).items() if written is not None]
    return read("\n".join([f"id: {id_}", *lines, ""]), f"{id_}.yaml", Exemption)


def rule(id_: str = "fonts", **changes: str | None) -> LocalRule:
    """An allow for everybody."""
    facts: dict[str, str | None] = {
        "verdict": "allow",
        "names": "[cdn.example]",
        "owner": "service desk",
        "reason": "fonts",
        "until": "2030-12-31T00:00:00Z",
    }
    lines = [f"{key}: {written}" for key, written in (facts | changes).items() if written is not None]
    return read("\n".join([f"id: {id_}", *lines, ""]), f"{id_}.yaml", LocalRule)


def documents(
    apps: Sequence[App],
    orders: Sequence[Order],
    exemptions: Sequence[Exemption] = (),
    rules: Sequence[LocalRule] = (),
) -> Documents:
    """What a set of folders holds."""
    return Documents(
        {a.id: a for a in apps}, {o.id: o for o in orders}, {e.id: e for e in exemptions}, {r.id: r for r in rules}
    )


def terms(*orders: str, action: Action = Action.NXDOMAIN, mode: Mode = Mode.ENFORCE) -> PolicySettings:
    """A configuration that holds these orders against everybody."""
    return PolicySettings(
        allowed_networks=("0.0.0.0/0",),
        groups=(GroupEntry("all", ("0.0.0.0/0",)), GroupEntry("none", ("192.0.2.0/24",))),
        enforcements=tuple(Enforcement(id_, ("all",), mode, action) for id_ in orders),
        block_ttl=60,
        sinkhole_ipv4=("192.0.2.250",),
        sinkhole_ipv6=("2001:db8::250",),
    )


def compiled(found: Documents, wanted: PolicySettings, serial: int = 1, at: float = 0.0) -> Generation:
    """The generation that comes of it, opened."""
    octets, digest = compile_generation(found, wanted, serial=serial, at=at)
    generation = Generation(memoryview(bytearray(octets)))
    generation.verify()
    assert generation.digest == digest
    return generation


def claims_of(generation: Generation, name: str) -> set[tuple[str, str, bool]]:
    """(order, app, exact) of everything that holds exactly this name."""
    number = generation.table.find(wire(name))
    held = generation.terms.claim_sets[number] if number >= 0 else ()
    return {
        (generation.terms.orders[c.holder].id, generation.terms.apps[c.part].id, c.reach is Reach.EXACT) for c in held
    }


CHAT = app(
    "chat",
    "chat.example suffix block high",
    "pay.example exact block medium",
    "maybe.example suffix block low",
    "shared.example suffix optional high",
    "cdn.example suffix never high",
)


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, {"chat", "pay", "maybe"}),
        ({"min_confidence": "medium"}, {"chat", "pay"}),
        ({"min_confidence": "high"}, {"chat"}),
        ({"include_optional": "true"}, {"chat", "pay", "maybe", "shared"}),
        ({"include_optional": "true", "min_confidence": "high"}, {"chat", "shared"}),
    ],
)
def test_an_order_takes_what_it_says(changes: dict[str, str], taken: set[str]) -> None:
    """By use and confidence; `never` whoever asks."""
    generation = compiled(documents([CHAT], [order("ban", "chat", **changes)]), terms("ban"))

    listed = {d.name for d in CHAT.domains if claims_of(generation, d.name)}
    assert listed == {f"{name}.example" for name in taken}
    assert generation.names == len(taken)


@PROPERTY
@given(st.sampled_from(Use), st.sampled_from(Confidence), st.booleans(), st.sampled_from(Confidence))
def test_a_stricter_order_takes_no_more(use: Use, confidence: Confidence, optional: bool, least: Confidence) -> None:
    """Asking for more confidence, or leaving optional names out, never adds a name; nothing takes `never`."""
    domain = app("chat", f"chat.example suffix {use.value} {confidence.value}").domains[0]
    loose = order("ban", "chat", include_optional="true")
    strict = order("ban", "chat", include_optional=str(optional).lower(), min_confidence=least.value)

    assert takes(loose, domain) or not takes(strict, domain)
    assert takes(loose, domain) is (use is not Use.NEVER)


def test_a_generation_holds_what_judging_and_reporting_need() -> None:
    """Orders, apps, groups, enforcements, actions and addresses."""
    ban = order("ban", "chat", basis="outside-authority", expires="2031-01-01T00:00:00Z")
    generation = compiled(documents([CHAT], [ban]), terms("ban", action=Action.SINKHOLE), serial=7, at=12.5)

    assert (generation.serial, generation.compiled_at) == (7, 12.5)
    (entry,) = generation.terms.orders
    assert (entry.id, entry.title_en, entry.title_fr, entry.basis) == (
        "ban",
        "A ban",
        "Une interdiction",
        Basis.OUTSIDE_AUTHORITY,
    )
    assert entry.spans == ((AT, datetime.fromisoformat("2031-01-01T00:00:00Z").timestamp()),)
    assert [(a.id, a.name) for a in generation.terms.apps] == [("chat", "Chat")]
    assert [(g.name, g.networks) for g in generation.terms.groups] == [
        ("all", ("0.0.0.0/0",)),
        ("none", ("192.0.2.0/24",)),
    ]
    assert [(e.order, e.groups, e.mode, e.action) for e in generation.terms.enforcements] == [
        (0, (0,), Mode.ENFORCE, Action.SINKHOLE)
    ]
    assert (generation.terms.block_ttl, generation.terms.sinkhole_ipv4) == (60, ("192.0.2.250",))
    assert generation.terms.sinkhole_ipv6 == ("2001:db8::250",)


def test_an_order_without_an_end_ends_never() -> None:
    """FOREVER, and so no transition after its beginning."""
    generation = compiled(documents([CHAT], [order("ban", "chat")]), terms("ban"))

    assert generation.terms.orders[0].spans == ((AT, FOREVER),)
    assert (generation.next_transition(AT - 1), generation.next_transition(AT)) == (AT, FOREVER)


def test_a_name_in_several_orders_and_apps_carries_all_claims() -> None:
    """And each is told apart by its match."""
    other = app("other", "chat.example exact block high", "pay.example exact block high")
    orders = [order("first", "chat", "other"), order("second", "other")]
    generation = compiled(documents([CHAT, other], orders), terms("first", "second"))

    assert claims_of(generation, "chat.example") == {
        ("first", "chat", False),
        ("first", "other", True),
        ("second", "other", True),
    }
    assert claims_of(generation, "pay.example") == {
        ("first", "chat", True),
        ("first", "other", True),
        ("second", "other", True),
    }


def test_claims_have_one_order() -> None:
    """Or the digest would depend on how a set happens to be walked."""
    orders = [order(f"b{i}", "chat") for i in range(9)]
    generation = compiled(documents([CHAT], orders), terms(*(ban.id for ban in reversed(orders))))
    claims = [(claim.holder, claim.part, claim.reach is Reach.EXACT) for claim in generation.terms.claim_sets[0]]

    assert len(claims) == 9
    assert claims == sorted(claims)


def test_what_is_not_configured_takes_no_part() -> None:
    """Neither orders nor the apps that only they name."""
    other = app("other", "other.example suffix block high")
    found = documents([CHAT, other], [order("ban", "chat"), order("idle", "other")])
    generation = compiled(found, terms("ban"))

    assert claims_of(generation, "other.example") == set()
    assert [a.id for a in generation.terms.apps] == ["chat"]
    assert generation.digest == compiled(documents([CHAT], [order("ban", "chat")]), terms("ban")).digest


def test_a_policy_without_orders_lists_nothing() -> None:
    """It is a policy all the same: it says who may ask."""
    generation = compiled(documents([], []), terms())

    assert generation.names == 0
    assert generation.table.covering(wire("www.chat.example")) == []
    assert generation.is_allowed(b"\xc0\0\2\1")


def test_an_order_held_twice_is_one_order() -> None:
    """With other groups or another mode, it is the same order by the same number."""
    wanted = terms("ban", "ban")
    generation = compiled(documents([CHAT], [order("ban", "chat")]), wanted)

    assert [o.id for o in generation.terms.orders] == ["ban"]
    assert [e.order for e in generation.terms.enforcements] == [0, 0]


APPS = [
    CHAT,
    app("other", "chat.example exact block high", "other.example suffix block low"),
    app(
        "third",
        "a.other.example suffix block medium",
        "a.other.example exact block high",
        "third.example suffix optional high",
    ),
]
ORDERS = [
    order("first", "chat", "third", include_optional="true"),
    order("second", "other", "chat", min_confidence="medium"),
    order("third", "third"),
]
EXEMPTIONS = [exemption("lab"), exemption("court", groups="[none]", orders="[second]"), exemption("a1", apps="[third]")]
RULES = [
    rule("fonts"),
    rule("phish", verdict="block", names="[bad.example]"),
    rule("a2", addresses="[198.51.100.0/24]"),
]
FOUND = documents(APPS, ORDERS, EXEMPTIONS, RULES)
BASE = compiled(FOUND, terms("first", "second", "third"))


@PROPERTY
@given(*map(st.permutations, (APPS, ORDERS, EXEMPTIONS, RULES)), st.data())
def test_the_digest_does_not_depend_on_the_order_of_files(
    apps: list[App],
    orders: list[Order],
    exemptions: list[Exemption],
    rules: list[LocalRule],
    data: st.DataObject,
) -> None:
    """Nor on the order of an app's domains, on the serial, or on when it was compiled."""
    shuffled = [
        found.model_copy(update={"domains": tuple(data.draw(st.permutations(found.domains)))}) for found in apps
    ]
    generation = compiled(
        documents(shuffled, orders, exemptions, rules),
        terms("first", "second", "third"),
        serial=data.draw(st.integers(1, 10**6)),
        at=9e9,
    )

    assert generation.digest == BASE.digest
    assert generation.terms == BASE.terms


@pytest.mark.parametrize(
    "change",
    [
        (documents(APPS, [order("first", "chat"), *ORDERS[1:]], EXEMPTIONS, RULES), terms("first", "second", "third")),
        (FOUND, terms("first", "second")),
        (FOUND, terms("second", "first", "third")),
        (FOUND, terms("first", "second", "third", action=Action.DROP)),
        (FOUND, terms("first", "second", "third", mode=Mode.OBSERVE)),
        (documents(APPS, ORDERS, EXEMPTIONS[1:], RULES), terms("first", "second", "third")),
        (documents(APPS, ORDERS, EXEMPTIONS, RULES[1:]), terms("first", "second", "third")),
        (
            documents(APPS, ORDERS, [exemption("lab", expires="2030-03-01T00:00:01Z"), *EXEMPTIONS[1:]], RULES),
            terms("first", "second", "third"),
        ),
    ],
    ids=[
        "a name less",
        "an order less",
        "another rank",
        "another action",
        "another mode",
        "an exemption less",
        "a rule less",
        "a second more",
    ],
)
def test_the_digest_tells_policies_apart(change: tuple[Documents, PolicySettings]) -> None:
    """Whatever changes a verdict or a report changes the digest."""
    assert compiled(*change).digest != BASE.digest


DOMAINS = st.lists(
    st.tuples(
        st.sampled_from(["a.example", "b.a.example", "c.b.a.example", "d.example"]),
        st.sampled_from(Match),
        st.sampled_from(Use),
        st.sampled_from(Confidence),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda d: d[:2],
)


@PROPERTY
@given(DOMAINS, st.booleans(), st.sampled_from(Confidence))
def test_a_name_is_blocked_exactly_where_an_entry_that_is_taken_covers_it(
    entries: list[tuple[str, Match, Use, Confidence]], optional: bool, least: Confidence
) -> None:
    """From the document to the verdict, against a reading of the document alone."""
    domains = tuple(
        Domain.model_construct(name=name, match=match, use=use, confidence=confidence)
        for name, match, use, confidence in entries
    )
    chat = CHAT.model_copy(update={"domains": domains})
    ban = order("ban", "chat", include_optional=str(optional).lower(), min_confidence=least.value)
    view = View(compiled(documents([chat], [ban]), terms("ban")), 0, AT)

    for asked in ("a.example", "b.a.example", "x.b.a.example", "c.b.a.example", "d.example", "xa.example", "example"):
        covered = any(
            takes(ban, d) and (asked == d.name or (d.match is Match.SUFFIX and asked.endswith(f".{d.name}")))
            for d in domains
        )
        assert (judge_query(wire(asked), view) is not None) is covered


# ---- exemptions, own rules, zones -----------------------------------------------------------------------------------

DAY = 86400.0
LAB, NEIGHBOUR = bytes([192, 0, 2, 17]), bytes([192, 0, 2, 18])
GRANTED = datetime.fromisoformat("2030-02-01T00:00:00Z").timestamp()
EXPIRES = datetime.fromisoformat("2030-03-01T00:00:00Z").timestamp()


def bound(*orders: str, **changes: Any) -> PolicySettings:
    """A configuration that holds these orders against the group of the lab, and another."""
    return replace(
        terms(),
        enforcements=tuple(Enforcement(id_, ("all", "none"), Mode.ENFORCE, Action.NXDOMAIN) for id_ in orders),
        **changes,
    )


@pytest.mark.parametrize(
    ("changes", "spared"),
    [
        ({}, {"first/chat", "second/chat"}),
        ({"orders": "[first]"}, {"first/chat"}),
        ({"orders": "[first]", "apps": None}, {"first/chat", "first/other"}),
        ({"orders": "[first, idle]", "apps": "[chat, other]"}, {"first/chat", "first/other"}),
    ],
)
def test_an_exemption_spares_what_its_orders_and_apps_have_in_common(
    changes: dict[str, str | None], spared: set[str]
) -> None:
    """Apps alone: whichever order names them; orders alone: all that they name; not the order that takes no part."""
    apps = [CHAT, app("other", "other.example suffix block high")]
    orders = [order("first", "chat", "other"), order("second", "chat"), order("idle", "chat")]
    generation = compiled(documents(apps, orders, [exemption(**changes)]), bound("first", "second"))

    (entry,) = generation.terms.exemptions
    assert {f"{generation.terms.orders[o].id}/{generation.terms.apps[a].id}" for o, a in entry.spares} == spared
    assert (entry.since, entry.until, entry.devices) == (GRANTED, EXPIRES, ("192.0.2.17/32",))


@pytest.mark.parametrize(
    ("address", "at", "withheld"),
    [
        (LAB, GRANTED - 0.001, True),
        (LAB, GRANTED, False),
        (LAB, EXPIRES - 0.001, False),
        (LAB, EXPIRES, True),
        (NEIGHBOUR, GRANTED, True),
    ],
)
def test_an_exemption_begins_and_ends_at_its_second(address: bytes, at: float, withheld: bool) -> None:
    """For the device it names, and no other; and what is not withheld is recorded all the same."""
    found = documents([CHAT], [order("ban", "chat")], [exemption()])
    verdict = judge_query(wire("chat.example"), compiled(found, bound("ban")).view_of(address, at))

    assert verdict is not None
    assert (not verdict.passes, verdict.exemption, verdict.is_hit) == (withheld, "" if withheld else "lab", True)


def test_own_rules_hold_names_and_addresses_for_their_groups_and_time() -> None:
    """Each by itself, before orders; named after its id."""
    rules = [
        rule("allow-a", names="[chat.example]", match="exact", groups="[none]", since="2030-02-01T00:00:00Z"),
        rule("block-b", verdict="block", names=None, addresses="[198.51.100.0/24]", action="refused"),
    ]
    generation = compiled(documents([CHAT], [order("ban", "chat")], rules=rules), bound("ban"))
    until = datetime.fromisoformat("2030-12-31T00:00:00Z").timestamp()

    def said(name: str, address: bytes, at: float, *addresses: bytes) -> tuple[str, Action] | None:
        view = generation.view_of(address, at)
        first = judge_query(wire(name), view)
        verdict = judge_answer(wire(name), first, Reached(addresses=addresses), view, 1)
        return (verdict.order.id, verdict.action) if verdict else None

    outside = bytes([203, 0, 113, 1])
    assert said("chat.example", LAB, GRANTED) == ("rule:allow-a", Action.PASSTHRU)
    assert said("www.chat.example", LAB, GRANTED) == ("ban", Action.NXDOMAIN)
    assert said("chat.example", LAB, GRANTED - 1) == ("ban", Action.NXDOMAIN)
    assert said("chat.example", LAB, until) == ("ban", Action.NXDOMAIN)
    assert said("chat.example", outside, GRANTED) == ("ban", Action.NXDOMAIN)
    assert said("b.example", outside, 0.0, bytes([198, 51, 100, 9])) == ("rule:block-b", Action.REFUSED)
    assert said("b.example", outside, 0.0, bytes([198, 51, 101, 9])) is None


def test_a_zone_comes_out_as_it_was_read() -> None:
    """Rules, triggers of every kind, groups, mode, override, SOA; claims beside those of orders."""
    zone = PolicyZone(origin=wire("rpz.example"), soa=LocalRecord(6, 60, b"soa"))
    block, allow = zone.number_of(Rule(Action.NXDOMAIN)), zone.number_of(Rule(Action.PASSTHRU))
    zone.hold(wire("chat.example"), Reach.BELOW, block)
    zone.hold(wire("chat.example"), Reach.EXACT, allow)
    zone.hold(wire("ns.example"), Reach.EXACT, block, Trigger.NSDNAME)
    for trigger in zone.networks:
        zone.hold_network(ip_network("2001:db8::/32"), allow, trigger)
        zone.hold_network(ip_network("198.51.100.0/24"), block, trigger)
    zone.patterns.append(("^ads", block))
    applied = AppliedZone(
        "zone:rpz.example", ZoneKind.RPZ, zone, ("none",), Mode.OBSERVE, Rule(Action.DROP), 5.0, 9.0, "a file", 3
    )
    octets, _ = compile_generation(
        documents([CHAT], [order("ban", "chat")]), bound("ban"), serial=1, at=0.0, zones=[applied]
    )
    generation = Generation(memoryview(bytearray(octets)))
    (entry,) = generation.terms.zones

    assert (entry.id, entry.kind, entry.groups, entry.mode, entry.override) == (
        "zone:rpz.example", ZoneKind.RPZ, (1,), Mode.OBSERVE, Rule(Action.DROP),
    )  # fmt: skip
    assert (entry.since, entry.until, entry.source, entry.refused, entry.entries) == (5.0, 9.0, "a file", 3, 10)
    assert (entry.rules, entry.patterns) == (tuple(zone.rules), (("^ads", block),))
    assert (entry.soa, entry.nameservers) == ((wire("rpz.example"), LocalRecord(6, 60, b"soa")), True)
    assert set(entry.networks) == {
        (t, str(n), number) for t, held in zone.networks.items() for n, number in held.items()
    }
    claims = generation.terms.claim_sets[generation.table.find(wire("chat.example"))]
    assert {(generation.terms.holder(c.holder).id, c.part, c.reach) for c in claims} == {
        ("ban", 0, Reach.SUFFIX), ("zone:rpz.example", block, Reach.BELOW), ("zone:rpz.example", allow, Reach.EXACT),
    }  # fmt: skip
    assert generation.nameserver_table.find(wire("ns.example")) >= 0
    assert generation.table.find(wire("ns.example")) == -1


def test_a_name_with_others_below_it_is_kept_from_the_wildcard_above() -> None:
    """As in any zone (RFC 4592 §3.3.1), though it has no rule of its own; in a list it is not."""
    said = {}
    for kind in (ZoneKind.RPZ, ZoneKind.LIST):
        zone = PolicyZone()
        zone.hold(wire("example"), Reach.BELOW, zone.number_of(Rule(Action.NXDOMAIN)))
        zone.hold(wire("a.b.example"), Reach.EXACT, zone.number_of(Rule(Action.PASSTHRU)))
        octets, _ = compile_generation(
            documents([], []), terms(), serial=1, at=0.0, zones=[AppliedZone("zone:z", kind, zone)]
        )
        view = View(Generation(memoryview(bytearray(octets))), 0, 0.0)
        asked = ("x.example", "b.example", "x.b.example", "x.a.b.example")
        said[kind] = [judge_query(wire(name), view) is not None for name in asked]

    assert said == {ZoneKind.RPZ: [True, False, False, False], ZoneKind.LIST: [True, True, True, True]}


def test_zones_are_digested_in_their_order() -> None:
    """What goes first decides, so it is another policy."""
    zones = []
    for action in (Action.NXDOMAIN, Action.PASSTHRU):
        zone = PolicyZone()
        zone.hold(wire("a.example"), Reach.EXACT, zone.number_of(Rule(action)))
        zones.append(AppliedZone(f"zone:{action.value}", ZoneKind.RPZ, zone))
    digests = {
        compile_generation(documents([], []), terms(), serial=1, at=0.0, zones=held)[1]
        for held in (zones, zones[::-1], zones[:1], [replace(zones[0], mode=Mode.OBSERVE)])
    }

    assert len(digests) == 4


# Exemptions beside orders: what is wrong with them, the key and a part of what is said.
TWO_GROUPS = "[all, none]"
MISTAKES: dict[str, tuple[dict[str, str | None], str, str]] = {
    "longer than a year": ({"orders": "[ban]", "expires": "2031-02-02T00:00:01Z"}, "expires", "366 days"),
    "longer than the strictest of its orders": (
        {"apps": "[chat]", "expires": "2030-03-04T00:00:00Z"}, "expires", "longer than the 30 days",
    ),
    "which is named, with the last moment": (
        {"expires": "2030-03-04T00:00:00Z"}, "expires", "from short may; write 2030-03-03T00:00:00+00:00 or earlier",
    ),
    "from an app that its order does not name": (
        {"orders": "[ban]", "apps": "[other]"}, "apps", "none of these orders names any of these apps",
    ),
    "for a group that there is none of": ({"groups": "[lab]"}, "groups", 'called "lab"; write one of: all, none'),
    "for every group that an order binds": ({"devices": None, "groups": TWO_GROUPS}, "groups", "blanket exemption"),
    "from every app, one by one": (
        {"devices": None, "groups": TWO_GROUPS, "orders": "[wide]", "apps": "[chat, other]"}, "groups", "blanket",
    ),
    "for one group by name and the other by its network": (
        {"groups": "[all]", "devices": "[192.0.2.0/24]"}, "groups", "blanket exemption",
    ),
    "for one group by name and the other by halves of its network": (
        {"groups": "[all]", "devices": "[192.0.2.128/25, 192.0.2.0/26, 192.0.2.64/26]"}, "groups", "blanket exemption",
    ),
}  # fmt: skip


def beside(changes: dict[str, str | None], *rules: LocalRule, **settings: Any) -> list[tuple[str, str, str, str]]:
    """What is wrong with an exemption beside three orders."""
    found = documents(
        [CHAT, app("other", "other.example suffix block high")],
        [order("ban", "chat"), order("wide", "chat", "other"), order("short", "chat", longest_exemption="30")],
        [exemption(**changes)],
        rules,
    )
    return list(mistakes(found, bound("ban", "wide", "short", **settings)))


@pytest.mark.parametrize("case", MISTAKES)
def test_an_exemption_that_orders_do_not_bear_is_a_mistake(case: str) -> None:
    """With its id, the key that is wrong and the mend."""
    changes, key, message = MISTAKES[case]

    assert [one for one in beside(changes) if one[:3] == ("exemptions", "lab", key) and message in one[3]]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"orders": "[ban]", "expires": "2031-02-02T00:00:00Z"},
        {"expires": "2030-03-03T00:00:00Z"},
        {"devices": None, "groups": "[none]"},
        {"devices": "[192.0.2.0/25, 192.0.2.128/26]", "groups": "[all]"},
        {"devices": None, "groups": TWO_GROUPS, "orders": "[wide]"},
    ],
)
def test_an_exemption_that_orders_bear_is_none(changes: dict[str, str | None]) -> None:
    """To the last second; for some of those who are bound, or from some of what is forbidden."""
    assert beside(changes) == []


def test_own_rules_beside_the_configuration() -> None:
    """Their groups exist, and a sinkhole has an address."""
    rules = [rule("a", groups="[lab, all]"), rule("b", verdict="block", action="sinkhole")]
    without: dict[str, Any] = {"sinkhole_ipv4": (), "sinkhole_ipv6": ()}

    assert [one[:3] for one in beside({}, *rules)] == [("rules", "a", "groups")]
    assert [one[:3] for one in beside({}, *rules, **without)] == [("rules", "a", "groups"), ("rules", "b", "action")]
