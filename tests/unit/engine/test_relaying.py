"""Questions relayed from the batch: answered, counted and kept as the pipeline would have done it, or left to it."""

import asyncio
from collections.abc import Callable, Sequence
from types import ModuleType

import dns.message
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resolver.engine.cache import CacheTerms
from resolver.engine.forwarder import ForwarderTerms
from resolver.engine.relaying import is_plain
from resolver.policy.client import Client
from resolver.policy.documents import Action, Mode
from resolver.policy.generation import Generation, View
from resolver.policy.zone import Rule
from tests.support import build
from tests.support.clock import START_AT, FakeClock, run
from tests.support.hotpath import HotPath
from tests.support.house import BAN, Held, app, ask, client, generation, house, rpz, zone_of
from tests.support.stories import Chapter, compare, use
from tests.support.upstream import FakeExchange, React, Said, fails, records, silent

Hot = Callable[[str], ModuleType]
PHONE, DESK, STRANGER = client("198.51.100.7"), client("2001:db8::7"), client("203.0.113.9")
KNOWN = [(ask("chat.example"), PHONE, True), (ask("chat.example"), client("198.51.100.8"), True)]
"""Queries by which clients become known."""


@pytest.fixture
def memo(hot: Hot, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The memo of each build, in use; what is relayed, is relayed by the same build."""
    module = hot("_batch_cy")
    use(module, monkeypatch)
    return module


def chapter(*packets: bytes, passed: float = 0.0, policy: int | None = None) -> Chapter:
    """A batch of one client's."""
    return [(packet, PHONE, True) for packet in packets], passed, policy, None


def says(*answers: str, rcode: str = "NOERROR") -> React:
    """An upstream that says the same whatever it is asked."""

    def react(query: dns.message.Message, transport: str) -> list[Said]:
        name = query.question[0].name.to_text(True)
        table = {f"{name} {rtype}": [line.format(name) for line in answers] for rtype in ("A", "HTTPS", "TXT")}
        return records(table, delay=0)(query, transport)

    return react if rcode == "NOERROR" else fails(rcode, delay=0)


def story_of(
    memo: ModuleType,
    story: Sequence[Chapter],
    *upstreams: React,
    policies: Sequence[Generation] = (),
    **how: object,
) -> HotPath:
    """Tell a story after one in which the clients become known."""
    told = [(KNOWN, 0.0, None, None), *story]
    return run(FakeClock(), compare(memo, told, policies or [generation(BAN)], upstreams, **how))


# ---- what is relayed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "answers"),
    [
        (ask("www.example.org"), ["{} 60 IN A 192.0.2.1"]),
        (ask("WwW.eXample.ORG", edns=False), ["{} 60 IN A 192.0.2.1", "{} 60 IN A 192.0.2.2"]),
        (ask("www.example.org", do=True, cd=True), ["{} 60 IN A 192.0.2.1"]),
        (ask("www.example.org", ad=True), ["{} 60 IN CNAME a.example.net", "a.example.net 30 IN A 192.0.2.1"]),
        (ask("www.example.org", "HTTPS"), ["{} 60 IN HTTPS 1 svc.example.net alpn=h2 ipv4hint=192.0.2.7"]),
        (ask("www.example.org", "HTTPS"), ["{} 60 IN HTTPS 1 . alpn=h2"]),
        (ask("www.example.org", "TYPE65280"), []),
        (ask("_443._tcp.www.example.org", "TXT", payload=4096), ['{} 0 IN TXT "zero"']),
    ],
)
def test_a_plain_question_is_relayed(memo: ModuleType, packet: bytes, answers: list[str]) -> None:
    """Asked, answered and learned with no step of the pipeline; the next one is answered by memo or cache."""
    path = story_of(memo, [chapter(packet), chapter(packet), chapter(packet[:2] + packet[2:])], says(*answers))

    assert path.relayed == (1 if " 0 IN" not in str(answers) else 3)


@pytest.mark.parametrize(
    ("packet", "who"),
    [
        (ask("www.example.org", rd=False), PHONE),
        (ask("www.example.org"), STRANGER),
        (ask("www.example.org", "ANY"), PHONE),
        (ask("x.chat.example"), PHONE),
        (ask("only.example"), PHONE),
        (ask("localhost"), PHONE),
        (ask("printer.local"), PHONE),
        (ask("1.0.168.192.in-addr.arpa", "PTR"), PHONE),
        (ask("."), PHONE),
        (ask("www.example.org", rclass="CH"), PHONE),
        (ask("a." * 20 + "example"), PHONE),
        (ask("b\\195\\188cher.example"), PHONE),
        (build.query("www.example.org", additional=(build.opt(build.option(10, b"12345678")),)), PHONE),
        (build.query("www.example.org", additional=(build.opt(version=1),)), PHONE),
        (build.query("www.example.org") + b"\0", PHONE),
        (ask("www.example.org", transport := "AXFR"), PHONE),
    ],
)
def test_what_is_not_plain_is_the_pipelines(memo: ModuleType, packet: bytes, who: Client) -> None:
    """Names with a rule, or that stay here; questions that ask for more than one datagram each way."""
    path = story_of(memo, [([(packet, who, True)], 0.0, None, None)] * 2, says("{} 60 IN A 192.0.2.1"))

    assert path.relayed == 0


@pytest.mark.parametrize(
    "upstream",
    [
        fails("SERVFAIL", delay=0),
        fails("REFUSED", delay=0),
        silent,
        says("{} 60 IN CNAME im.chat.example", "im.chat.example 60 IN A 192.0.2.1"),
        says("{} 60 IN HTTPS 1 im.chat.example"),
        says(*(f'{{}} 60 IN TXT "{"x" * 200}{n}"' for n in range(10))),
        says("{} 60 IN CNAME " + "a." * 17 + "example"),
        lambda query, transport: [Said(OSError(111, "connection refused"), 0)],
        lambda query, transport: [Said(b"\0" * 12, 0), *says("{} 60 IN A 192.0.2.1")(query, transport)],
    ],
    ids=["failure", "refused", "silence", "alias", "target", "too long", "many labels", "unreachable", "forged"],
)
def test_what_turns_out_not_to_be_plain_is_handed_over(memo: ModuleType, upstream: React) -> None:
    """The question under way is the forwarder's from then on, and who waits for it the pipeline's."""
    packets = [ask("www.example.org", rtype, do=do) for rtype in ("A", "HTTPS", "TXT") for do in (False, True)]
    path = story_of(memo, [chapter(*packets, *packets)] * 2, upstream)

    assert path.relayed <= 4 * len(packets)
    assert path.questions is not None
    assert len(path.questions) == 0


def test_a_question_is_asked_once_for_all_who_ask(memo: ModuleType) -> None:
    """In whatever spelling, and by whatever transport; each gets his own letters and his own OPT."""
    packets = [ask("www.example.org"), ask("WWW.example.org", edns=False), ask("www.EXAMPLE.org", payload=4096)]
    others = [(packets[0], client("198.51.100.8", transport="tcp"), True), (packets[1], STRANGER, True)]
    path = story_of(memo, [([*chapter(*packets)[0], *others], 0.0, None, None)], says("{} 60 IN A 192.0.2.1"))

    assert len(path.questions) == 0


def test_each_client_that_is_answered_is_counted(memo: ModuleType) -> None:
    """In the latency of answers, though the upstream was asked once for all of them."""
    packets = [ask("www.example.org"), ask("WWW.example.org", edns=False), ask("www.EXAMPLE.org", payload=4096)]
    path = story_of(memo, [chapter(*packets)], says("{} 60 IN A 192.0.2.1"))

    assert path.relayed == 3


def test_stale_data_is_given_as_soon_as_to_whom_the_pipeline_answers(memo: ModuleType) -> None:
    """1.8 s after the question came (RFC 8767 §5), not after it was handed over."""
    clock = FakeClock()
    built = house(*(FakeExchange(says("{} 60 IN A 192.0.2.1"), f"192.0.2.{n}:53") for n in (1, 2, 3)), clock=clock)
    path = HotPath(built, memo, built.cells.counts)

    async def story() -> tuple[list[bytes | None], float]:
        await path.answer([(packet, who) for packet, who, _ in KNOWN])
        await path.answer([(ask("www.example.org"), PHONE)])
        clock.advance(100)
        for exchange in built.exchanges:
            exchange.react = silent
        begun = clock.now()
        return await path.answer([(ask("www.example.org"), PHONE)]), clock.now() - begun

    (octets,), took = run(clock, story())

    assert octets is not None
    assert dns.message.from_wire(octets).answer[0].ttl == 30
    assert took == pytest.approx(1.8, abs=0.05)


def test_a_name_that_is_banned_meanwhile_is_asked_of_nobody_else(memo: ModuleType) -> None:
    """The first upstream is silent, and by then policy has answered."""
    clock = FakeClock()
    built = house(*(FakeExchange(silent, f"192.0.2.{n}:53") for n in (1, 2, 3)), clock=clock)
    path = HotPath(built, memo, built.cells.counts)
    ban = generation(BAN, Held([app("www", "www.example.org")], id="order-2"), serial=2)

    async def story() -> list[bytes | None]:
        await path.answer([(packet, who) for packet, who, _ in KNOWN])
        asyncio.get_running_loop().call_later(0.3, lambda: built.policy.swap(ban, clock.at()))
        replies = await path.answer([(ask("www.example.org"), PHONE)])
        await asyncio.sleep(5)
        return replies

    (octets,) = run(clock, story())

    assert octets is not None
    assert octets[3] & 15 == 3
    assert built.questions() == ["www.example.org A"]


def test_questions_beyond_the_limit_are_the_pipelines(memo: ModuleType) -> None:
    """It says that there are too many."""
    packets = [ask(f"w{n}.example.org") for n in range(6)]
    path = story_of(memo, [chapter(*packets)], says("{} 60 IN A 192.0.2.1"), terms=ForwarderTerms(pending=4))

    assert path.relayed == 4


def test_a_policy_that_changes_meanwhile_is_heeded(memo: ModuleType) -> None:
    """Who waits is judged by the policy in force when the reply comes, as in the pipeline."""
    clock = FakeClock()
    built = house(FakeExchange(records({"www.example.org A": ["www.example.org 60 IN A 192.0.2.1"]})), clock=clock)
    path = HotPath(built, memo, built.cells.counts)
    ban = generation(BAN, Held([app("www", "www.example.org")], id="order-2"), serial=2)

    async def story() -> list[bytes | None]:
        await path.answer([(packet, who) for packet, who, _ in KNOWN])
        asyncio.get_running_loop().call_later(0.005, lambda: built.policy.swap(ban, clock.at()))
        return await path.answer([(ask("www.example.org"), PHONE)])

    (octets,) = run(clock, story())

    assert octets is not None
    assert octets[3] & 15 == 3
    assert [hit.order for hit in built.hits()] == ["order-1", "order-1", "order-2"]
    assert path.relayed == 0


def test_an_order_that_begins_meanwhile_is_heeded(memo: ModuleType) -> None:
    """Its moment comes while the upstream is asked, and nobody but the reply looks at the clock."""
    clock = FakeClock()
    later = Held([app("www", "www.example.org")], id="order-2", effective=START_AT + 10.005)
    built = house(
        FakeExchange(records({"www.example.org A": ["www.example.org 60 IN A 192.0.2.1"]})),
        clock=clock, policy=generation(BAN, later),
    )  # fmt: skip
    path = HotPath(built, memo, built.cells.counts)

    async def story() -> list[bytes | None]:
        await path.answer([(packet, who) for packet, who, _ in KNOWN])
        clock.advance(10)
        await path.answer([(ask("x.chat.example"), PHONE)])
        return await path.answer([(ask("www.example.org"), PHONE)])

    (octets,) = run(clock, story())

    assert octets is not None
    assert octets[3] & 15 == 3


@pytest.mark.parametrize(
    ("made", "plain"),
    [
        (generation(BAN), True),
        (generation(BAN, zones=[zone_of(Rule(Action.NXDOMAIN), "ads.example")]), True),
        (generation(BAN, strip_ech=["everyone"]), True),
        (generation(BAN, zones=[rpz("32.1.2.0.192.rpz-ip CNAME .\n")]), False),
        (generation(BAN, zones=[rpz("ns.example.rpz-nsdname CNAME .\n")]), False),
        (generation(BAN, zones=[rpz("24.0.100.51.198.rpz-client-ip CNAME .\n")]), False),
        (generation(BAN, zones=[rpz("* CNAME .\n")]), False),
    ],
    ids=["orders", "names of a list", "ECH", "addresses", "name servers", "clients", "everything"],
)
def test_only_views_in_which_names_decide_alone_relay(made: Generation, plain: bool) -> None:
    """Whatever else may have a say is the judge's to ask."""
    group, pocket = made.client_of(PHONE.address)

    assert is_plain(View(made, group, START_AT, pocket)) is plain


# ---- octet for octet ------------------------------------------------------------------------------------------------

ASKED = [
    ask("www.example.org"),
    ask("wWw.example.org", edns=False),
    ask("www.example.org", do=True),
    ask("www.example.org", ad=True, payload=512),
    ask("www.example.org", cd=True, payload=4096),
    ask("www.example.org", "HTTPS"),
]
REPLIES = build.valid_replies(build.query(flags=build.RD)) + [
    build.reply(build.query(), [build.record(build.TO_QUESTION, 1, b"\xc0\0\2\1", ttl=ttl)], additional=[build.opt()])
    for ttl in (0, 1, 77, 100_000, 2**31)
]


def replayed(octets: bytes) -> React:
    """An upstream that says these octets to every question, under its id; over TCP nothing."""
    return lambda query, transport: [Said(query.to_wire()[:2] + octets[2:], 0)] if transport == "udp" else []


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    replies=st.lists(st.sampled_from(REPLIES) | build.mutations(REPLIES), min_size=1, max_size=4),
    batches=st.lists(
        st.tuples(
            st.lists(
                st.tuples(st.sampled_from(ASKED), st.sampled_from([PHONE, KNOWN[1][1]]), st.just(True)), max_size=4
            ),
            st.sampled_from([0.0, 0.5, 3.0, 78.0, 4000.0]),
            st.none(),
            st.none() | st.integers(0, 3),
        ),
        min_size=1,
        max_size=5,
    ),
    trust_ad=st.booleans(),
    terms=st.sampled_from([CacheTerms(), CacheTerms(min_ttl=30, max_ttl=70, max_negative_ttl=40)]),
    banned=st.sampled_from([BAN, Held([app("cdn", "cdn.example.org", "svc.example.net")], mode=Mode.OBSERVE)]),
)
def test_whatever_an_upstream_says_the_answer_is_the_pipelines(
    memo: ModuleType,
    replies: list[bytes],
    batches: list[Chapter],
    trust_ad: bool,
    terms: CacheTerms,
    banned: Held,
) -> None:
    """Replies of all kinds, whole and broken; each counted, kept and learned as it would have been."""
    story = [(batch, passed, policy, None if k is None else k % len(replies)) for batch, passed, policy, k in batches]

    story_of(
        memo, story, *[replayed(octets) for octets in replies],
        policies=[generation(banned)], trust_ad=trust_ad, cache=terms,
    )  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    packets=st.lists(st.sampled_from(ASKED) | build.mutations(ASKED), min_size=1, max_size=8),
    passed=st.sampled_from([0.0, 3.0, 78.0]),
)
def test_whatever_a_client_asks_the_answer_is_the_pipelines(
    memo: ModuleType, packets: list[bytes], passed: float
) -> None:
    """Questions of all kinds, whole and broken, before what they ask for is kept and afterwards."""
    story = [chapter(*packets), chapter(*packets, passed=passed), chapter(*ASKED, *packets)]

    story_of(memo, story, says("{} 60 IN A 192.0.2.1"))
