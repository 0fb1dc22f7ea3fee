"""Who serves a name, looked up by a forwarder: through its parents, with patience and bounds, and nothing withheld."""

import asyncio
from collections.abc import Mapping

import dns.message
import dns.rdatatype
import pytest

from resolver.engine.cache import Cache, CacheTerms
from resolver.engine.delegation import MOST_HOSTS, MOST_ZONES, PATIENCE, NameServers
from resolver.engine.forwarder import Forwarder, ForwarderTerms, Upstream
from resolver.policy.generation import Generation, View
from resolver.wire import name as names
from tests.support.clock import FakeClock, run
from tests.support.house import EVERYONE, Held, Roof, app, generation, rpz
from tests.support.upstream import FakeExchange, React, Said, records, silent

NSIP = rpz("32.53.100.51.198.rpz-nsip CNAME .\n")
NSDNAME = rpz("ns.bad.example.rpz-nsdname CNAME .\n")
ZONES = {
    "example.org NS": ["example.org 300 IN NS ns1.example.net.", "example.org 300 IN NS ns2.example.net."],
    "sub.example.org NS": ["sub.example.org 300 IN NS ns3.example.net."],
    "ns1.example.net A": ["ns1.example.net 300 IN A 192.0.2.1"],
    "ns1.example.net AAAA": ["ns1.example.net 300 IN AAAA 2001:db8::1"],
    "ns2.example.net A": ["ns2.example.net 300 IN A 192.0.2.2"],
    "ns3.example.net A": ["ns3.example.net 300 IN CNAME real.example.net.", "real.example.net 300 IN A 192.0.2.3"],
}


class Look:
    """Name servers looked up over one fake upstream."""

    def __init__(self, react: React, policy: Generation, pending: int = 4096) -> None:
        self.clock = FakeClock()
        self.exchange = FakeExchange(react)
        self.cache = Cache(CacheTerms())
        roof = Roof()
        terms = ForwarderTerms(try_timeout=30, deadline=60, pending=pending)
        self.forwarder = Forwarder([Upstream(self.exchange, False)], self.cache, terms, self.clock, roof, roof.spawn)
        self.view: View = policy.view_of(b"\xc6\x33\x64\x07", self.clock.at())

    def of(self, *asked: str) -> Mapping[str, tuple[set[str], set[str]]]:
        """By name: hosts in text, addresses in hexadecimal."""
        found = run(self.clock, self.found(*asked))
        return {
            names.to_text(name): ({names.to_text(host) for host in hosts}, {address.hex() for address in addresses})
            for name, (hosts, addresses) in found.items()
        }

    async def found(self, *asked: str) -> dict[bytes, tuple[tuple[bytes, ...], tuple[bytes, ...]]]:
        return await NameServers(self.forwarder).of(tuple(map(names.from_text, asked)), self.view)


def slow(table: dict[str, list[str]], delays: Mapping[str, float]) -> React:
    """An upstream that takes its time with some questions; None of them is forever."""
    knows = records(table, delay=0)

    def react(query: dns.message.Message, transport: str) -> list[Said]:
        question = query.question[0]
        asked = f"{question.name.to_text(True)} {dns.rdatatype.to_text(question.rdtype)}"
        return [Said(said.what, delays.get(asked, 0)) for said in knows(query, transport)]

    return react


def test_name_servers_are_those_of_the_name_and_of_all_above_it() -> None:
    """Down to below the top level; addresses through aliases of the hosts too."""
    look = Look(records(ZONES), generation(zones=[NSIP]))

    assert look.of("www.sub.example.org") == {
        "www.sub.example.org": (
            {"ns1.example.net", "ns2.example.net", "ns3.example.net"},
            {"c0000201", "c0000202", "c0000203", "20010db8000000000000000000000001"},
        )
    }
    asked = look.exchange.questions()
    assert {one for one in asked if one.endswith(" NS")} == {
        "www.sub.example.org NS", "sub.example.org NS", "example.org NS"
    }  # fmt: skip
    assert len(asked) == 3 + 3 * 2


def test_addresses_are_looked_up_only_where_a_rule_is_about_them() -> None:
    """NSDNAME needs names alone."""
    look = Look(records(ZONES), generation(zones=[NSDNAME]))

    assert look.of("www.example.org")["www.example.org"] == ({"ns1.example.net", "ns2.example.net"}, set())
    assert all(one.endswith(" NS") for one in look.exchange.questions())


@pytest.mark.parametrize("name", [".", "org"])
def test_the_root_and_the_top_level_are_not_asked_about(name: str) -> None:
    """Their servers serve everything."""
    look = Look(records(ZONES), generation(zones=[NSIP]))

    assert look.of(name)[name] == (set(), set())
    assert look.exchange.questions() == []


def test_all_names_of_a_chain_are_looked_up_at_once_and_each_question_once() -> None:
    """Shared ancestors and hosts are asked about once, and then known."""
    look = Look(records(ZONES, delay=0.5), generation(zones=[NSIP]))

    found = look.of("a.example.org", "b.example.org")
    before = look.clock.now()
    again = look.of("a.example.org", "b.example.org")

    assert found == again
    assert set(found) == {"a.example.org", "b.example.org"}
    asked = look.exchange.questions()
    assert len(asked) == len(set(asked))
    assert look.clock.now() == before


BAN = Held([app("chat", "=chat.example.org", "ns.chat.example")])


def test_a_name_that_is_withheld_is_not_looked_at_nor_what_is_above_it() -> None:
    """An order's verdict needs no name server; upstreams hear nothing of it."""
    look = Look(records(ZONES), generation(BAN, zones=[NSIP]))

    assert look.of("chat.example.org")["chat.example.org"] == ((set(), set()))
    assert look.exchange.questions() == []


def test_a_withheld_name_on_the_way_is_left_out() -> None:
    """Neither a zone nor a host that an order forbids is asked about; the others are."""
    table = {
        **ZONES,
        "chat.example.org NS": ["chat.example.org 300 IN NS ns9.example.net."],
        "example.org NS": ["example.org 300 IN NS ns.chat.example.", "example.org 300 IN NS ns1.example.net."],
    }
    look = Look(records(table), generation(BAN, zones=[NSIP]))

    hosts, addresses = look.of("a.chat.example.org")["a.chat.example.org"]

    assert hosts == {"ns.chat.example", "ns1.example.net"}
    assert "c0000201" in addresses
    assert not [one for one in look.exchange.questions() if one.split()[0] in ("chat.example.org", "ns.chat.example")]


@pytest.mark.parametrize(
    ("delayed", "hosts", "addresses"),
    [
        ("sub.example.org NS", {"ns1.example.net", "ns2.example.net"}, {"c0000201", "c0000202"}),
        ("ns2.example.net A", {"ns1.example.net", "ns2.example.net", "ns3.example.net"}, {"c0000201", "c0000203"}),
        ("www.sub.example.org NS", {"ns1.example.net", "ns2.example.net", "ns3.example.net"},
         {"c0000201", "c0000202", "c0000203"}),
    ],
)  # fmt: skip
def test_what_comes_too_late_takes_no_part_and_hides_nothing_else(
    delayed: str, hosts: set[str], addresses: set[str]
) -> None:
    """A zone whose own servers keep silent is no way round the rules on those above it."""
    look = Look(slow(ZONES, {delayed: PATIENCE + 5}), generation(zones=[NSIP]))
    before = look.clock.now()

    found_hosts, found_addresses = look.of("www.sub.example.org")["www.sub.example.org"]

    assert found_hosts == hosts
    assert {one for one in found_addresses if len(one) == 8} == addresses
    assert look.clock.now() - before == pytest.approx(PATIENCE, abs=0.01)


def test_what_came_too_late_is_known_the_next_time() -> None:
    """The question goes on, and its answer into the cache."""
    look = Look(slow(ZONES, {"example.org NS": PATIENCE + 1}), generation(zones=[NSDNAME]))

    async def story() -> list[int]:
        first = await look.found("www.example.org")
        await asyncio.sleep(2)
        return [len(hosts) for found in (first, await look.found("www.example.org")) for hosts, _ in found.values()]

    assert run(look.clock, story()) == [0, 2]


def test_silent_upstreams_end_the_wait() -> None:
    """Nothing is found, after the patience and no later."""
    look = Look(silent, generation(zones=[NSIP]))
    before = look.clock.now()

    assert look.of("www.example.org")["www.example.org"] == (set(), set())
    assert look.clock.now() - before == pytest.approx(PATIENCE, abs=0.01)


def test_what_was_known_counts_while_upstreams_are_silent() -> None:
    """Stale data is taken, soon enough for the addresses to follow the names."""
    look = Look(records(ZONES), generation(zones=[NSIP]))
    known = look.of("www.example.org")
    look.exchange.react = silent
    look.clock.advance(1000)
    before = look.clock.now()

    assert look.of("www.example.org") == known
    assert look.clock.now() - before < PATIENCE


def test_a_crowd_of_servers_is_looked_at_up_to_a_bound_zone_by_zone() -> None:
    """A zone that names many hides none of those above it."""
    crowd = [f"sub.example.org 300 IN NS n{n}.example.com." for n in range(40)]
    look = Look(records({**ZONES, "sub.example.org NS": crowd}), generation(zones=[NSIP]))

    hosts, addresses = look.of("sub.example.org")["sub.example.org"]

    assert len(hosts) == MOST_HOSTS + 2
    assert {"ns1.example.net", "ns2.example.net"} <= hosts
    assert {"c0000201", "c0000202"} <= addresses
    assert len(look.exchange.questions()) == 2 + 2 * (MOST_HOSTS + 2)


def test_a_name_of_many_labels_asks_a_bounded_number_of_questions() -> None:
    """The ancestors nearest to the top are those that count."""
    look = Look(records(ZONES), generation(zones=[NSDNAME]))
    deep = "a." * 100 + "sub.example.org"

    hosts, _ = look.of(deep)[deep]

    assert hosts == {"ns1.example.net", "ns2.example.net", "ns3.example.net"}
    assert len(look.exchange.questions()) == MOST_ZONES


def test_where_there_is_no_room_for_questions_nothing_is_found() -> None:
    """And nobody waits for it."""
    look = Look(records(ZONES), generation(zones=[NSIP]), pending=0)

    assert look.of("www.example.org")["www.example.org"] == (set(), set())


def test_groups_without_such_a_zone_ask_for_no_addresses() -> None:
    """The view says what is wanted."""
    only = rpz("32.53.100.51.198.rpz-nsip CNAME .\n", groups=("phones",))
    groups = {**EVERYONE, "phones": ("203.0.113.0/24",)}
    look = Look(records(ZONES), generation(zones=[only, NSDNAME], groups=groups))

    assert look.of("www.example.org")["www.example.org"][1] == set()
