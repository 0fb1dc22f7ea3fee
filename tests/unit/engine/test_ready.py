"""What was said over connections is said again only where the pipeline would say it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import dns.edns
import dns.message
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.engine.ready import Said, SaidBefore, is_repeated
from resolver.hot._batch_cy import NEVER
from resolver.policy.client import Client, Transport
from resolver.policy.documents import Action
from resolver.policy.generation import View
from resolver.policy.register import Device, Entry, Proof, Register, digest_of, write_register
from resolver.wire.message import read_query
from tests.support.clock import START_AT, FakeClock, run
from tests.support.house import Held, House, app, ask, client, generation, house, rpz
from tests.support.upstream import FakeExchange, React, fails, records

CHAT = app("chat", "chat.example", "=only.example")
ZONE = {
    "www.example.org A": ["www.example.org 60 IN A 192.0.2.1"],
    "short.example.org A": ["short.example.org 2 IN A 192.0.2.2"],
    "cloak.example.org A": ["cloak.example.org 20 IN CNAME im.chat.example", "im.chat.example 20 IN A 192.0.2.4"],
    "big.example.org TXT": ["big.example.org 30 IN TXT" + f" {'x' * 200}" * 10],
}
GROUPS = {"everyone": ("0.0.0.0/0", "::/0"), "phones": ()}
POLICIES = [
    generation(Held([CHAT]), groups=GROUPS, serial=1, allowed=["198.51.100.0/24"]),
    generation(
        Held([CHAT], groups=["phones"], effective=START_AT + 90),
        Held([app("www", "www.example.org")], id="order-2", groups=["everyone"], action=Action.SINKHOLE),
        groups=GROUPS, serial=2,
    ),
    generation(zones=[rpz("www.example.org CNAME rpz-tcp-only.\nlocalhost CNAME .\n")], groups=GROUPS, serial=3),
]  # fmt: skip
REGISTERS = [
    Register(memoryview(write_register(entries, 1)))
    for entries in (
        [],
        [Entry(digest_of(Proof.TOKEN, "abc"), Device(7, "phone-7", "phones"))],
        [Entry(digest_of(Proof.TOKEN, "abc"), Device(7, "phone-7", "everyone"))],
    )
]
UPSTREAMS: list[React] = [records(ZONE, delay=0), fails("SERVFAIL", delay=0)]


def with_option(name: str, *options: tuple[int, bytes]) -> bytes:
    """A query with options of EDNS, by code and content."""
    made: list[dns.edns.Option] = [
        dns.edns.GenericOption(dns.edns.OptionType.make(code), content) for code, content in options
    ]
    return dns.message.make_query(name, "A", use_edns=0, options=made, id=1).to_wire()


QUERIES = [
    ask("chat.example"), ask("CHAT.example", "HTTPS"), ask("x.chat.example", edns=False), ask("only.example", rd=False),
    ask("www.example.org"), ask("www.example.org", edns=False), ask("www.example.org", do=True),
    ask("short.example.org"), ask("cloak.example.org"), ask("big.example.org", "TXT"), ask("gone.example.org"),
    ask("localhost"), ask("whoami.interdict"), ask("id.server", "TXT", rclass="CH"),
    with_option("chat.example", (12, bytes(60))), with_option("www.example.org", (12, bytes(60))),
    with_option("www.example.org", (12, bytes(61))), with_option("www.example.org", (11, b"")),
    with_option("chat.example", (3, b"")), with_option("chat.example", (10, b"x" * 8)),
    ask("chat.example")[:-3], b"", bytes(12),
]  # fmt: skip
CLIENTS = [
    client(transport=Transport.TCP), client(transport=Transport.DOT), client(port=50000, transport=Transport.DOT),
    client("203.0.113.9", transport=Transport.DOT), client(transport=Transport.DOH, path_token="abc"),
    client(transport=Transport.DOT, path_token="abc"), client(transport=Transport.DOH3), client(),
    client(transport=Transport.DOH, listener="phones"),
    replace(client(), proxied=True), replace(client(path_token="abc"), proxied=True),
]  # fmt: skip

Step = tuple[list[tuple[bytes, Client, int]], float, int | None, int | None, int | None]
STORIES = st.lists(
    st.tuples(
        st.lists(
            st.tuples(st.sampled_from(QUERIES), st.sampled_from(CLIENTS), st.integers(0, 65535)), min_size=1, max_size=8
        ),
        st.sampled_from([0.0, 0.0, 0.0, 0.3, 1.0, 2.0, 19.5, 61.0, 400.0]),
        st.sampled_from([None] * 6 + [0, 1, 2]),
        st.sampled_from([None] * 4 + [0, 1, 2]),
        st.sampled_from([None] * 6 + [0, 1]),
    ),
    max_size=8,
)


def without_source(built: House) -> Counter[tuple[str, ...]]:
    """The query counters, whoever answered."""
    summed: Counter[tuple[str, ...]] = Counter()
    for key, count in built.counts("query").items():
        summed[key[:4] + key[5:]] += count
    return +summed


def again(built: House) -> int:
    """How many answers were said again."""
    return sum(count for key, count in built.counts("query").items() if key[4] == "ready")


async def compare(story: Sequence[Step]) -> int:
    """Live through a story twice, remembering and not, and compare all that anybody can see of it."""
    clock = FakeClock()
    seen: list[list[tuple[int, float]]] = [[], []]
    both = [
        house(
            FakeExchange(UPSTREAMS[0]),
            clock=clock,
            policy=POLICIES[0],
            ready_answers=entries,
            keepalive={Transport.TCP: 10.0, Transport.DOT: 30.0},
            seen=lambda number, at, into=into: into.append((number, at)),
        )
        for entries, into in zip((64, 0), seen, strict=True)
    ]
    for asked, passed, policy, register, upstream in story:
        clock.advance(passed)
        for built in both:
            if policy is not None:
                built.policy.swap(POLICIES[policy], clock.at())
            if register is not None:
                built.policy.enrol(REGISTERS[register])
            if upstream is not None:
                built.exchanges[0].react = UPSTREAMS[upstream]
        for packet, who, number in asked:
            message = number.to_bytes(2, "big") + packet[2:] if packet else packet
            replies = [await built.answer(message, who) for built in both]
            assert replies[0] == replies[1]
    remembering, forgetful = both
    assert sorted(remembering.hits()) == sorted(forgetful.hits())
    assert without_source(remembering) == without_source(forgetful)
    assert remembering.questions() == forgetful.questions()
    assert seen[0] == seen[1]
    assert again(forgetful) == 0
    return again(remembering)


@settings(max_examples=60, deadline=None)
@given(story=STORIES)
def test_it_says_what_the_pipeline_would(story: list[Step]) -> None:
    """Byte for byte, hit for hit and count for count, whoever asks, by whatever means, under whatever policy."""
    run(FakeClock(), compare(story))


def test_it_says_anything_at_all() -> None:
    """The comparison above compares something: padding, keepalive and devices among it."""
    lasting = [QUERIES[number] for number in (0, 4, 6, 9, 11, 14, 15, 17, 18)]
    asked = [(packet, who, 7) for packet in lasting for who in (CLIENTS[1], CLIENTS[4])]

    said = run(FakeClock(), compare([(asked, 0.0, None, 1, None)] * 3))

    assert said == 2 * len(asked)


@pytest.mark.parametrize(
    "packet",
    [ask("cloak.example.org"), with_option("chat.example", (10, b"x" * 8)), ask("gone.example.org", rd=False)],
    ids=["decided by an answer", "with a cookie", "RD clear"],
)
def test_it_does_not_learn_what_may_be_untrue_or_unasked_the_next_time(packet: bytes) -> None:
    """A verdict on an alias ends with the alias; a cookie differs from query to query."""
    assert run(FakeClock(), compare([([(packet, CLIENTS[1], 1)], 0.0, None, None, None)] * 3)) == 0


def test_a_revoked_device_is_not_told_again() -> None:
    """What it was told while it was known is of no use to it afterwards."""
    built = house(FakeExchange(UPSTREAMS[0]), policy=POLICIES[0])
    packet, who = ask("www.example.org"), CLIENTS[4]

    async def story() -> list[int]:
        found = []
        for number in (1, 1, 0):
            built.policy.enrol(REGISTERS[number])
            reply = await built.answer(packet, who)
            assert reply is not None
            found.append(reply[3] & 15)
        return found

    assert run(built.clock, story()) == [0, 0, 5]
    assert again(built) == 1


def test_hits_carry_the_address_and_port_of_who_asks_now() -> None:
    """Not of whom the answer was learned from."""
    built = house(policy=POLICIES[0])

    async def story() -> None:
        for who in CLIENTS[1:3]:
            await built.answer(ask("chat.example"), who)

    run(built.clock, story())

    assert [(hit.client, hit.port) for hit in built.hits()] == [("198.51.100.7", 40000), ("198.51.100.7", 50000)]
    assert again(built) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (CLIENTS[4], CLIENTS[8]),
        (CLIENTS[1], CLIENTS[6]),
        (CLIENTS[8], client(transport=Transport.DOH)),
    ],
    ids=["of another device", "by another transport", "of another view"],
)
def test_nothing_is_told_to_another_kind_of_client(first: Client, second: Client) -> None:
    """A device's hits carry its name, each transport pads in its way, each view has its own orders."""
    built = house(policy=generation(Held([CHAT], groups=["everyone", "phones"]), groups=GROUPS))
    built.policy.enrol(REGISTERS[1])

    async def story() -> None:
        for who in (first, second):
            await built.answer(ask("chat.example"), who)

    run(built.clock, story())

    assert again(built) == 0
    assert len(built.hits()) == 2


def said(octets: int = 100, until: float = NEVER) -> Said:
    """An answer of a length."""
    return Said(bytes(octets), 0, until, 0.0, (), b"", b"")


def test_what_is_held_is_bounded_by_number_and_size() -> None:
    """A long answer counts as several."""
    view = View(POLICIES[0], 0, START_AT)
    memo = SaidBefore(100)

    for number in range(1000):
        memo.put(view, CLIENTS[1], number.to_bytes(4, "big"), said())
        assert len(memo) <= 100
    for number in range(1000):
        memo.put(view, CLIENTS[1], number.to_bytes(4, "big"), said(60_000))
    assert len(memo) <= 4


def test_a_swap_lets_all_go() -> None:
    """Neither is anything of the old policy said, nor does it take room."""
    built = house(policy=POLICIES[0])
    run(built.clock, built.answer(ask("chat.example"), CLIENTS[1]))
    assert len(built.policy.said) == 1

    built.policy.swap(POLICIES[1], built.clock.at())

    assert len(built.policy.said) == 0


def test_an_answer_that_expired_is_not_found() -> None:
    """At its last moment it is no longer true."""
    view = View(POLICIES[0], 0, START_AT)
    memo = SaidBefore(100)
    memo.put(view, CLIENTS[1], b"12chat", said(until=20.0))

    assert memo.find(view, CLIENTS[1], b"34chat", 19.9) is not None
    assert memo.find(view, CLIENTS[1], b"34chat", 20.0) is None


@pytest.mark.parametrize(("code", "repeats"), [(3, True), (11, True), (12, True), (10, False), (8, False)])
def test_options_that_differ_each_time_are_known(code: int, repeats: bool) -> None:
    """NSID, keepalive and padding repeat; cookies do not, and client subnets are not ours to keep."""
    assert is_repeated(read_query(with_option("example.org", (code, b"")))) is repeats
