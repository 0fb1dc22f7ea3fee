"""From documents to a generation: which names an order takes, and that nothing else has a say in it."""

from collections.abc import Sequence
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.policy.compile import Enforcement, PolicySettings, compile_generation, takes
from resolver.policy.documents import Action, App, Basis, Confidence, Documents, Domain, Match, Mode, Order, Use
from resolver.policy.generation import FOREVER, Generation, GroupEntry, View
from resolver.policy.judge import judge_query
from resolver.policy.source import read
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


def documents(apps: Sequence[App], orders: Sequence[Order]) -> Documents:
    """What a set of folders holds."""
    return Documents({a.id: a for a in apps}, {o.id: o for o in orders})


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
    return {(generation.terms.orders[c.order].id, generation.terms.apps[c.app].id, c.exact) for c in held}


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
    claims = [(claim.order, claim.app, claim.exact) for claim in generation.terms.claim_sets[0]]

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
    app("third", "a.other.example suffix block medium", "third.example suffix optional high"),
]
ORDERS = [
    order("first", "chat", "third", include_optional="true"),
    order("second", "other", "chat", min_confidence="medium"),
    order("third", "third"),
]
BASE = compiled(documents(APPS, ORDERS), terms("first", "second", "third"))


@PROPERTY
@given(st.permutations(APPS), st.permutations(ORDERS), st.data())
def test_the_digest_does_not_depend_on_the_order_of_files(
    apps: list[App], orders: list[Order], data: st.DataObject
) -> None:
    """Nor on the order of an app's domains, on the serial, or on when it was compiled."""
    shuffled = [
        found.model_copy(update={"domains": tuple(data.draw(st.permutations(found.domains)))}) for found in apps
    ]
    generation = compiled(
        documents(shuffled, orders), terms("first", "second", "third"), serial=data.draw(st.integers(1, 10**6)), at=9e9
    )

    assert generation.digest == BASE.digest
    assert generation.terms == BASE.terms


@pytest.mark.parametrize(
    "change",
    [
        (documents(APPS, [order("first", "chat"), *ORDERS[1:]]), terms("first", "second", "third")),
        (documents(APPS, ORDERS), terms("first", "second")),
        (documents(APPS, ORDERS), terms("second", "first", "third")),
        (documents(APPS, ORDERS), terms("first", "second", "third", action=Action.DROP)),
        (documents(APPS, ORDERS), terms("first", "second", "third", mode=Mode.OBSERVE)),
    ],
    ids=["a name less", "an order less", "another rank", "another action", "another mode"],
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
