"""Stories of queries, told to a house with the hot memo in front of it and to one without."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

import resolver.engine.inforce
import resolver.engine.pipeline
import resolver.hot.relay_plain
from resolver.policy.client import Client
from resolver.policy.generation import Generation
from tests.support.clock import FakeClock
from tests.support.hotpath import HotPath
from tests.support.house import House, house
from tests.support.upstream import FakeExchange, React

Chapter = tuple[list[tuple[bytes, Client, bool]], float, int | None, int | None]
"""A batch of (query, client, whether it gets an id of its own); what came before it: seconds passed, which policy came
into force, which upstream came."""


def without_source(house: House) -> Counter[tuple[str, ...]]:
    """The query counters, whoever answered."""
    summed: Counter[tuple[str, ...]] = Counter()
    for key, count in house.counts("query").items():
        summed[key[:4] + key[5:]] += count
    return +summed


async def compare(
    module: ModuleType, story: Sequence[Chapter], policies: Sequence[Generation], upstreams: Sequence[React], **how: Any
) -> HotPath:
    """Live through a story twice, with the memo and without, and compare all that anybody can see of it.

    Args:
        module: The build of the memo.
        story: What happens.
        policies: Those that may come into force; the first is.
        upstreams: What the upstream may become; the first is what it is.
        how: Further arguments of the houses.
    """
    clock = FakeClock()
    with_memo, without = (house(FakeExchange(upstreams[0]), clock=clock, policy=policies[0], **how) for _ in range(2))
    path = HotPath(with_memo, module, with_memo.cells.counts)
    for number, (batch, passed, policy, upstream) in enumerate(story):
        clock.advance(passed)
        for built in (with_memo, without):
            if policy is not None:
                built.policy.swap(policies[policy], clock.at())
            if upstream is not None:
                built.exchanges[0].react = upstreams[upstream]
        packets = [
            (bytes([number, slot]) + packet[2:] if len(packet) > 1 and fresh_id else packet, by_port(who, slot))
            for slot, (packet, who, fresh_id) in enumerate(batch)
        ]
        replies = await path.answer(packets)
        expected = await asyncio.gather(*(without.answer(packet, who) for packet, who in packets))
        assert replies == expected
    assert sorted(with_memo.hits()) == sorted(without.hits())
    assert without_source(with_memo) == without_source(without)
    assert sorted(with_memo.questions()) == sorted(without.questions())
    for event in ("miss", "stale", "failure"):
        assert with_memo.counts("cache").get((event,), 0) == without.counts("cache").get((event,), 0)
    assert exchanges(with_memo) == exchanges(without)
    for key in with_memo.cache.entries.keys() & without.cache.entries.keys():
        kept, expected_entry = (built.cache.get(key, clock.now()) for built in (with_memo, without))
        assert kept == expected_entry
    return path


def by_port(who: Client, number: int) -> Client:
    """The client by a port of its own, so that it is known what was said to which of its queries."""
    return replace(who, sockaddr=who.sockaddr[:2] + (30000 + number).to_bytes(2, "big") + who.sockaddr[4:])


def exchanges(built: House) -> Counter[tuple[str, str]]:
    """What came of the questions to the upstreams."""
    return Counter(report for report in built.roof.reports if report[1] not in ("up", "down"))


def use(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the engine learn into one build of the memo."""
    monkeypatch.setattr(resolver.engine.pipeline, "Ready", module.Ready)
    monkeypatch.setattr(resolver.hot.relay_plain, "Ready", module.Ready)
    monkeypatch.setattr(resolver.engine.inforce, "ViewMemo", module.ViewMemo)
