"""Templates: what was said about one name is said about others only where the pipeline would say just that."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import resolver.engine.inforce
import resolver.engine.pipeline
import resolver.engine.templates
from resolver.policy.additions import Exemption, LocalRule
from resolver.policy.client import Client
from resolver.policy.compile import AppliedZone
from resolver.policy.documents import Action, Mode
from resolver.policy.generation import Generation
from resolver.policy.terms import Precedence, ZoneKind
from resolver.policy.zone import LocalRecord, PolicyZone, Reach, Rule
from resolver.wire import name as names
from resolver.wire.codes import Rtype
from tests.support.clock import START_AT, FakeClock, run
from tests.support.hotpath import HotPath
from tests.support.house import CELLS, Held, app, ask, client, generation, house, rpz
from tests.support.stories import by_port, without_source
from tests.support.stories import use as use_memo
from tests.support.upstream import FakeExchange, fails

Hot = Callable[[str], ModuleType]

GROUPS = {"phones": ["198.51.100.0/25"], "desks": ["198.51.100.128/25"]}
CLIENTS = [
    client("198.51.100.7"), client("198.51.100.8", 41000), client("198.51.100.200"), client("203.0.113.9"),
    client("198.51.100.7", transport="tcp"),
]  # fmt: skip
LISTED = [
    "chat.example", "cdn.chat.example", "a.cdn.chat.example", "talk.example", "v.talk.example", "only.example",
    "under_score.example", "xn--bcher-kva.example", "x" * 63 + ".example", "example.net", "www.example.net",
]  # fmt: skip
TYPES = [
    "A",
    "A",
    "A",
    "A",
    "A",
    "AAAA",
    "AAAA",
    "HTTPS",
    "TXT",
    "NS",
    "SOA",
    "DS",
    "CNAME",
    "ANY",
    "TYPE65280",
    "AXFR",
    "TKEY",
]
ACTIONS = [Action.NXDOMAIN, Action.NXDOMAIN, Action.NODATA, Action.REFUSED, Action.SINKHOLE, Action.DROP]
RULES = [
    Rule(Action.NXDOMAIN),
    Rule(Action.NXDOMAIN, important=True),
    Rule(Action.NODATA, qtypes=(int(Rtype.A), int(Rtype.HTTPS))),
    Rule(Action.NODATA, qtypes=(int(Rtype.A),), but_qtypes=True),
    Rule(Action.REFUSED, spares=(names.from_text("w.chat.example"), names.from_text("cdn.chat.example"))),
    Rule(Action.PASSTHRU),
    Rule(Action.TCP_ONLY),
    Rule(Action.LOCAL_DATA, (LocalRecord(int(Rtype.CNAME), 60, names.from_text("w.chat.example")),)),
    Rule(Action.LOCAL_DATA, (LocalRecord(int(Rtype.A), 60, bytes(4)),)),
]
RPZ_LINES = [
    "chat.example CNAME .\n*.chat.example CNAME .\n", "*.talk.example CNAME *.\n", "*.v.talk.example CNAME rpz-drop.\n",
    "w.chat.example CNAME rpz-passthru.\n", "only.example A 192.0.2.9\n", "*.example.net CNAME rpz-tcp-only.\n",
    "32.7.100.51.198.rpz-client-ip CNAME rpz-passthru.\n", "32.8.100.51.198.rpz-client-ip CNAME .\n",
    "24.0.2.0.192.rpz-ip CNAME .\n",
]  # fmt: skip
ODD = [0, 1, 2, 16, 32, 41, 46, 48, 63, 64, 92, 192, 255]  # octets that mean something somewhere
PATTERNS = ["^w", "chat", "[0-9]+[.]talk", "net$"]


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def _some(draw: random.Random, most: int, of: Sequence[str]) -> list[str]:
    return draw.sample(of, draw.randint(1, min(most, len(of))))


def _zone(draw: random.Random, number: int, listed: Sequence[str]) -> AppliedZone:
    mode = draw.choice([Mode.ENFORCE, Mode.ENFORCE, Mode.OBSERVE])
    groups = draw.choice([(), (), ("phones",)])
    if draw.random() < 0.4:
        return rpz("".join(_some(draw, 3, RPZ_LINES)), f"rpz{number}.example", mode=mode, groups=groups)
    held = PolicyZone()
    for rule in draw.sample(RULES, draw.randint(1, 3)):
        for name in _some(draw, 2, listed):
            held.hold(
                names.from_text(name), draw.choice([Reach.SUFFIX, Reach.SUFFIX, Reach.EXACT]), held.number_of(rule)
            )
        if draw.random() < 0.2:
            held.patterns.append((draw.choice(PATTERNS), held.number_of(rule)))
    override = draw.choice([None, None, None, Rule(Action.NODATA), RULES[-2]])
    kind = draw.choice([ZoneKind.LIST, ZoneKind.LIST, ZoneKind.RPZ])
    return AppliedZone(f"list:{number}", kind, held, groups=groups, mode=mode, override=override)


def a_policy(draw: random.Random, serial: int, listed: Sequence[str]) -> Generation:
    """A policy of orders, own rules, zones and exemptions, drawn by lot; many hold the same names."""
    orders = [
        Held(
            [app(f"app-{number}", *[draw.choice(["", "", "="]) + name for name in _some(draw, 3, listed)])],
            id=f"order-{number}",
            groups=draw.choice([["phones"], ["phones", "desks"], ["phones", "desks"]]),
            mode=draw.choice([Mode.ENFORCE] * 4 + [Mode.OBSERVE]),
            action=draw.choice(ACTIONS),
            effective=START_AT + draw.choice([-100] * 5 + [50]),
            expires=draw.choice([*[None] * 5, START_AT + 80]),
        )
        for number in range(draw.randint(1, 3))
    ]
    rules = [
        LocalRule(
            id=f"rule-{number}",
            verdict=verdict,
            names=tuple(_some(draw, 1, listed)),
            match=draw.choice(["exact", "suffix"]),
            groups=draw.choice([(), ("phones",)]),
            owner="service desk",
            reason="a test",
            until=_instant(START_AT + draw.choice([60, 6000])),
            **({"action": draw.choice(ACTIONS)} if verdict == "block" else {}),
        )
        for number in range(draw.choice([0, 0, 1, 2]))
        for verdict in [draw.choice(["allow", "block"])]
    ]
    exemptions = [
        Exemption(
            id=f"exempt-{number}",
            apps=(draw.choice(orders).apps[0].id,),
            reason="law-enforcement",
            grantor="CIO",
            granted=_instant(START_AT - 1000),
            expires=_instant(START_AT + draw.choice([70, 7000])),
            **draw.choice([{"devices": ("198.51.100.7",)}, {"groups": ("desks",)}]),
        )
        for number in range(draw.choice([0, 0, 1]))
    ]
    return generation(
        *orders,
        groups=GROUPS,
        allowed=["198.51.100.0/24"],
        serial=serial,
        block_ttl=draw.choice([0, 30, 86400]),
        sinkhole=["192.0.2.80", "2001:db8::80"] + [f"192.0.2.{k}" for k in range(90, 90 + draw.choice([0, 0, 40]))],
        zones=[_zone(draw, number, listed) for number in range(draw.choice([0, 0, 1, 2]))],
        rules=rules,
        exemptions=exemptions,
        precedence=draw.choice(list(Precedence)),
    )


@dataclass(frozen=True)
class Habits:
    """What is asked for in one story: few names, types and kinds of OPT, so that templates come to use."""

    listed: tuple[str, ...]
    kinds: tuple[tuple[str, bool, bool], ...]
    clients: tuple[Client, ...]

    @classmethod
    def drawn(cls, draw: random.Random) -> "Habits":
        """By lot."""
        kinds = [(draw.choice(TYPES), draw.random() < 0.6, draw.random() < 0.3) for _ in range(3)]
        return cls(tuple(draw.sample(LISTED, 5)), tuple(kinds), (*CLIENTS[:3], draw.choice(CLIENTS)))


def a_query(draw: random.Random, habits: Habits) -> bytes:
    """A question by lot: mostly for a name nobody asked for yet, at or below a listed one; now and then damaged."""
    labels = ["w", "A-b", "y" * 63, *[f"n{draw.randrange(10**6)}" for _ in range(9)]]
    below = "".join(f"{draw.choice(labels)}." for _ in range(draw.choice([0, 1, 1, 1, 1, 1, 2, 3])))
    name = below + draw.choice([*habits.listed, *habits.listed, "example"])
    rtype, edns, do = draw.choice(habits.kinds)
    if draw.random() < 0.2:
        name = "".join(draw.choice([c.upper(), c.lower()]) for c in name)
    packet = ask(
        name if len(name) < 250 else "chat.example",
        rtype,
        message_id=draw.randrange(65536),
        edns=edns,
        payload=draw.choice([512, 1232, 4096]),
        do=do,
        cd=draw.random() < 0.1,
        rd=draw.random() < 0.95,
        ad=draw.random() < 0.1,
    )
    if draw.random() < 0.15:
        octets = bytearray(packet)
        for _ in range(draw.choice([1, 1, 2])):
            match draw.randrange(6):
                case 0 | 1 | 2:
                    octets[draw.randrange(len(octets))] = draw.choice(
                        [0, 1, 2, 16, 32, 41, 46, 48, 63, 64, 92, 192, 255]
                    )
                case 3:
                    octets[draw.randrange(len(octets))] ^= 1 << draw.randrange(8)
                case 4:
                    del octets[draw.randrange(len(octets)) :]
                case 5:
                    octets += draw.randbytes(draw.choice([1, 11]))
            octets = octets or bytearray(1)
        packet = bytes(octets)
    return packet


async def compare(module: ModuleType, draw: random.Random, batches: int) -> int:
    """Live through a story twice, with the memo and without; returns how many answers came from the memo."""
    clock, habits = FakeClock(), Habits.drawn(draw)
    first = a_policy(draw, 1, habits.listed)
    with_memo, without = (house(FakeExchange(fails("SERVFAIL", delay=0)), clock=clock, policy=first) for _ in range(2))
    path = HotPath(with_memo, module, memoryview(with_memo.octets)[: CELLS * 8].cast("Q"))
    for number in range(batches):
        clock.advance(draw.choice([0.0, 0.0, 0.1, 1.0, 7.0]))
        if draw.random() < 0.02:
            second = a_policy(draw, number + 2, habits.listed)
            for built in (with_memo, without):
                built.policy.swap(second, clock.at())
        packets = [
            (a_query(draw, habits), by_port(draw.choice(habits.clients), slot)) for slot in range(draw.randint(1, 8))
        ]
        replies = await path.answer(packets)
        assert replies == await asyncio.gather(*(without.answer(packet, who) for packet, who in packets))
    assert sorted(with_memo.hits()) == sorted(without.hits())
    assert without_source(with_memo) == without_source(without)
    return path.answered


def use(hot: Hot, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Have the engine learn into one build of the memo."""
    module = hot("_batch_cy")
    use_memo(module, monkeypatch)
    monkeypatch.setattr(resolver.engine.templates, "Template", hot("_templates_cy").Template)
    return module


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**64))
def test_what_templates_say_is_what_the_pipeline_would_say(
    hot: Hot, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Byte for byte, hit for hit and count for count, whatever the policy, for names that nobody asked for before."""
    run(FakeClock(), compare(use(hot, monkeypatch), random.Random(seed), 25))


CHAT = Held([app("chat", "chat.example")])
LISTS = ZoneKind.LIST


def a_list(*holds: tuple[str, Rule], kind: ZoneKind = LISTS, **applied: Any) -> AppliedZone:
    """A zone of suffixes, each with a rule; a name in slashes is a pattern."""
    held = PolicyZone()
    for name, rule in holds:
        if name.startswith("/"):
            held.patterns.append((name.strip("/"), held.number_of(rule)))
        else:
            held.hold(names.from_text(name), Reach.SUFFIX, held.number_of(rule))
    return AppliedZone("list:one", kind, held, **applied)


async def _asked(module: ModuleType, policy: Generation, *questions: bytes) -> tuple[int, list[bytes | None]]:
    """Ask one after another; returns how many were answered by the memo, and all replies."""
    built, without = (house(FakeExchange(fails("SERVFAIL", delay=0)), policy=policy) for _ in range(2))
    path = HotPath(built, module, memoryview(built.octets)[: CELLS * 8].cast("Q"))
    replies = []
    for packet in questions:
        replies += await path.answer([(packet, CLIENTS[0])])
        assert replies[-1] == await without.answer(packet, CLIENTS[0])
    assert sorted(built.hits()) == sorted(without.hits())
    return path.answered, replies


@pytest.mark.parametrize("rtype", ["A", "AAAA", "HTTPS", "TXT", "NS"])
@pytest.mark.parametrize("how", [{}, {"edns": False}, {"do": True}], ids=["OPT", "none", "DO"])
@pytest.mark.parametrize("action", [Action.NXDOMAIN, Action.NODATA, Action.REFUSED, Action.SINKHOLE])
def test_one_answer_serves_all_names_below(
    hot: Hot, monkeypatch: pytest.MonkeyPatch, action: Action, how: dict[str, bool], rtype: str
) -> None:
    """Of every type and kind of OPT the first question walks the pipeline, and the others do not."""
    module = use(hot, monkeypatch)
    policy = generation(Held([app("chat", "chat.example", "talk.example")], action=action))
    asked = [ask(name, rtype, **how) for name in ("w.chat.example", "V.chat.example", "a.b-c.talk.example")]

    assert run(FakeClock(), _asked(module, policy, *asked))[0] == 2


SPARING = Rule(Action.NXDOMAIN, spares=(names.from_text("w.chat.example"),))
TO_ITSELF = Rule(Action.LOCAL_DATA, (LocalRecord(int(Rtype.CNAME), 60, names.from_text("w.chat.example")),))
NOT_GENERAL = {
    "a rule spares names": (generation(zones=[a_list(("chat.example", SPARING))]), "v.chat.example", "w.chat.example"),
    "a rule aliases a name to itself": (
        generation(
            zones=[
                a_list(("chat.example", TO_ITSELF)),
                a_list(("chat.example", Rule(Action.NODATA))),
            ]
        ),
        "w.chat.example", "v.chat.example",
    ),
    "a pattern of the same list": (
        generation(zones=[a_list(("chat.example", Rule(Action.NXDOMAIN)), ("/^w/", Rule(Action.PASSTHRU)))]),
        "v.chat.example", "w.chat.example",
    ),
    "a pattern of a list that goes before": (
        generation(zones=[a_list(("/^w/", Rule(Action.NODATA))), a_list(("chat.example", Rule(Action.NXDOMAIN)))]),
        "v.chat.example", "w.chat.example",
    ),
    "a zone that gives its SOA": (
        generation(zones=[rpz("*.chat.example CNAME .\n")]), "v.chat.example", "w.chat.example",
    ),
    "an answer decides first": (
        generation(zones=[rpz("24.0.2.0.192.rpz-ip CNAME .\n"), a_list(("chat.example", Rule(Action.NODATA)))]),
        "v.chat.example", "w.chat.example",
    ),
    "silence": (
        generation(Held([app("chat", "chat.example")], action=Action.DROP)), "v.chat.example", "w.chat.example",
    ),
    "an order that only logs": (
        generation(Held([app("chat", "chat.example")], mode=Mode.OBSERVE)), "v.chat.example", "w.chat.example",
    ),
    "more addresses than always fit": (
        generation(
            Held([app("chat", "chat.example")], action=Action.SINKHOLE), sinkhole=[f"192.0.2.{k}" for k in range(30)]
        ),
        "v.chat.example", "w.chat.example",
    ),
    "another listed name between": (
        generation(CHAT, Held([app("cdn", "cdn.chat.example")], id="order-2", action=Action.REFUSED)),
        "v.chat.example", "v.cdn.chat.example",
    ),
    "the listed name alone": (
        generation(Held([app("only", "=chat.example", "talk.example")])), "chat.example", "w.chat.example",
    ),
    "the listed name, where only what is below it is held": (
        generation(zones=[a_list(("chat.example", Rule(Action.NXDOMAIN)))]), "w.chat.example", "chat.example",
    ),
    "both, and one reaches no further than itself": (
        generation(Held([app("both", "=chat.example", "chat.example", "=talk.chat.example", "talk.chat.example")])),
        "chat.example", "talk.chat.example",
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", NOT_GENERAL)
def test_no_template_is_made_where_a_name_may_differ(hot: Hot, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """The second question walks the pipeline too, and gets what the pipeline says."""
    policy, first, second = NOT_GENERAL[why]

    assert run(FakeClock(), _asked(use(hot, monkeypatch), policy, ask(first), ask(second)))[0] == 0


@pytest.mark.parametrize(
    ("first", "second", "how"),
    [
        ("A", "AAAA", {}),
        ("A", "A", {"edns": False}),
        ("A", "A", {"do": True}),
        ("ANY", "ANY", {}),
        ("TYPE65280", "TYPE65280", {}),
    ],
)
def test_another_kind_of_question_is_another_template(
    hot: Hot, monkeypatch: pytest.MonkeyPatch, first: str, second: str, how: dict[str, bool]
) -> None:
    """A type or an OPT that was not asked for yet is asked of the pipeline; types without a mnemonic always are."""
    questions = [ask("v.chat.example", first), ask("w.chat.example", second, **how)]

    assert run(FakeClock(), _asked(use(hot, monkeypatch), generation(CHAT), *questions))[0] == 0


def test_a_verdict_that_waits_for_an_answer_is_not_made_general(hot: Hot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none will come, as without RD, it acts; for the next name one may come."""
    policy = generation(zones=[rpz("24.0.2.0.192.rpz-ip CNAME .\n"), a_list(("chat.example", Rule(Action.NODATA)))])
    questions = [ask("v.chat.example", rd=False), ask("w.chat.example")]

    assert run(FakeClock(), _asked(use(hot, monkeypatch), policy, *questions))[0] == 0


def test_an_answer_that_was_cut_is_not_made_general(hot: Hot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below a shorter name it may fit."""
    sinkhole = [f"192.0.2.{k}" for k in range(28)]
    policy = generation(Held([app("chat", "chat.example")], action=Action.SINKHOLE), sinkhole=sinkhole)
    questions = [ask(f"{'y' * 63}.chat.example", edns=False), ask("w.chat.example", edns=False)]

    assert run(FakeClock(), _asked(use(hot, monkeypatch), policy, *questions))[0] == 0


def test_a_name_that_others_hold_too_says_nothing_of_its_claim_set(hot: Hot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what holds for the other names of the set, nor that nothing holds."""
    policy = generation(
        Held([app("chat", "chat.example")], action=Action.REFUSED),
        Held([app("both", "cdn.chat.example", "talk.example")], id="order-2"),
    )
    questions = [ask(f"{name}.example") for name in ("v.cdn.chat", "v.talk", "w.talk")]

    assert run(FakeClock(), _asked(use(hot, monkeypatch), policy, *questions))[0] == 1


def test_a_template_ends_with_its_view(hot: Hot, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order that ends, ends at once for names that nobody asked for yet."""
    module = use(hot, monkeypatch)
    built = house(
        FakeExchange(fails("SERVFAIL", delay=0)),
        policy=generation(Held([app("chat", "chat.example")], expires=START_AT + 10)),
    )
    path = HotPath(built, module, memoryview(built.octets)[: CELLS * 8].cast("Q"))

    async def story() -> list[int]:
        rcodes = []
        for number in range(4):
            (reply,) = await path.answer([(ask(f"n{number}.chat.example"), CLIENTS[0])])
            assert reply is not None
            rcodes.append(reply[3] & 15)
            built.clock.advance(4)
        return rcodes

    assert run(built.clock, story()) == [3, 3, 3, 2]
    assert path.answered == 2
