"""Explanations: the data path's own verdict, and the reason for every entry that does nothing."""

from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.engine.pipeline import policy_answer
from resolver.policy.compile import Enforcement, PolicySettings, compile_generation
from resolver.policy.documents import Action, App, Basis, Documents, Mode, Order
from resolver.policy.explain import Explanation, Outcome, Reason, Reply, Standing, explain
from resolver.policy.generation import Generation, GroupEntry, View
from resolver.policy.judge import judge_query
from resolver.policy.source import read
from resolver.wire import name as names
from resolver.wire.codes import Ede, Rcode, Rtype, rcode_text
from resolver.wire.message import read_query, write_query

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
    *lines: Enforcement, documents: Documents = DOCUMENTS, ipv4: tuple[str, ...] = (), ipv6: tuple[str, ...] = ()
) -> Generation:
    settings = PolicySettings(
        allowed_networks=("192.0.2.0/24", "192.0.0.0/16", "2001:db8::/32"),
        groups=(GroupEntry("phones", ("192.0.2.0/25", "192.0.2.8/29")), GroupEntry("laptops", ("192.0.2.128/25",))),
        enforcements=lines, block_ttl=30, sinkhole_ipv4=ipv4, sinkhole_ipv6=ipv6,
    )  # fmt: skip
    octets, _ = compile_generation(documents, settings, serial=1, at=0.0)
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
) -> Explanation:
    address = ip_address(str(client))
    return explain(names.from_text(name), Rtype.A, address, at, generation, documents, local=local)


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


@pytest.mark.parametrize("basis", list(Basis))
@pytest.mark.parametrize("action", [action for action in Action if action is not Action.DROP])
@pytest.mark.parametrize("qtype", [Rtype.A, Rtype.AAAA, Rtype.HTTPS])
@pytest.mark.parametrize("sinkhole", [((), ()), (("192.0.2.80",), ()), (("192.0.2.80",), ("2001:db8::80",))])
def test_the_reply_is_the_pipelines(
    basis: Basis, action: Action, qtype: Rtype, sinkhole: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    """RCODE, Extended DNS Error, TTL and number of addresses are what the data path puts into its answer."""
    documents = Documents(DOCUMENTS.apps, {"ban": order("ban", "chat", basis)})
    generation = generation_of(
        Enforcement("ban", ("phones",), Mode.ENFORCE, action), documents=documents, ipv4=sinkhole[0], ipv6=sinkhole[1]
    )
    qname = names.from_text("chat.example")
    verdict = judge_query(qname, View(generation, 0, DURING))
    assert verdict is not None
    query = read_query(write_query(qname, qtype, 0, do=False, cd=False, edns=True, udp_octets=1232))
    given = policy_answer(query, verdict, generation.terms, 1, 0)

    reply = explain(qname, qtype, PHONE, DURING, generation, documents, local=None).reply

    assert reply is not None
    assert reply.rcode == rcode_text(given.rcode)
    assert [(reply.ede, reply.extra_text)] == [(error.code, error.text) for error in given.errors]
    assert reply.ede_meaning == Ede(given.errors[0].code).meaning
    assert {reply.ttl} == ({ttl for _, ttl in given.ttls} or {None})
    assert len(reply.addresses) == given.counts[0]


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
    verdict = judge_query(names.from_text(text), View(BOTH, BOTH.group_of(ip_address(str(client)).packed), at))

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
