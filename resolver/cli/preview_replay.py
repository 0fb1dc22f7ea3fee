"""The replay behind `interdict preview`: past queries against the policy as it is, and as it would be with an order in
force.

Judging is the data path's own (`policy.judge`), counting is `policy.preview`'s affair, reading `evidence.past`'s.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from resolver.app.compiler import compile_policy, policy_settings
from resolver.cli.options import Failure
from resolver.cli.preview_page import Preview, Question
from resolver.config import Config
from resolver.evidence.past import Past
from resolver.policy.compile import Enforcement, compile_generation, takes
from resolver.policy.documents import Action, App, Match, Mode, Order, Use
from resolver.policy.generation import Generation, View
from resolver.policy.judge import Reached, Verdict, judge_answer, judge_query
from resolver.policy.preview import Hold, Judge, Judged, Replay
from resolver.policy.source import did_you_mean, shown

_JUDGED_KEPT = 16_384  # verdicts that are remembered: most queries repeat
_STEP = 4096  # queries between two looks at how far reading is
_BEGINNING = datetime(1971, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be previewed; without groups those of the configuration, without apps all of the order."""

    order: str
    groups: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()
    include_optional: bool = False


@dataclass(frozen=True, slots=True)
class Judges:
    """What a replay needs to answer a wish."""

    question: Question
    now: Judge
    then: Judge
    group_of: Callable[[bytes | None], str]


def judges(config: Config, source: str, wish: Wish, at: float) -> Judges:
    """Compile the policy as it is configured, and the order as if it were in force, and make their judges.

    Args:
        config: The configuration.
        source: The name of its file.
        wish: What is to be previewed.
        at: Unix seconds: when exemptions, own rules and today's orders are looked at.

    Raises:
        PolicyError: The configuration or its documents are not sound.
        Failure: There is no such order, group or app.
    """
    compiled = compile_policy(config, source, serial=1, at=at)
    documents, settings = compiled.documents, policy_settings(config)
    order = documents.orders.get(wish.order)
    if order is None:
        raise Failure(f"no order has the id {shown(wish.order)}{did_you_mean(wish.order, documents.orders)}")
    lines = [line for line in settings.enforcements if line.order == order.id]
    numbers = {group.name: i for i, group in enumerate(settings.groups)}
    groups = wish.groups or tuple(dict.fromkeys(group for line in lines for group in line.groups)) or tuple(numbers)
    for group in groups:
        if group not in numbers:
            raise Failure(f"no group is called {shown(group)}{did_you_mean(group, numbers)}")
    if not groups:
        raise Failure(
            "the configuration has no groups; write groups: [{name: everyone, networks: [0.0.0.0/0, '::/0']}]"
        )
    for app in wish.apps:
        if app not in order.apps:
            raise Failure(f"order {order.id} does not name app {shown(app)}{did_you_mean(app, order.apps)}")
    assumed = order.model_copy(
        update={
            "effective": _BEGINNING, "expires": None, "acts": (), "apps": wish.apps or order.apps,
            "include_optional": order.include_optional or wish.include_optional,
        }
    )  # fmt: skip
    enforcement = Enforcement(order.id, groups, Mode.ENFORCE, lines[0].action if lines else Action.NXDOMAIN)
    alone = replace(settings, enforcements=(enforcement,))
    with_order = replace(documents, orders={**documents.orders, order.id: assumed})
    bare = replace(with_order, exemptions={}, rules={})
    bound = frozenset(numbers[group] for group in groups)
    nobodys = numbers[groups[0]]  # the group of queries whose client the log does not tell

    now = _Policy(compiled.octets, at, nobodys)
    then = _Policy(compile_generation(with_order, alone, serial=1, at=at)[0], at, nobodys)
    covering = _Policy(compile_generation(bare, alone, serial=1, at=at)[0], at, nobodys)
    describe = _describer(assumed, with_order.apps)

    def judge_then(qname: bytes, qtype: int, client: bytes | None, chain: tuple[bytes, ...]) -> Judged | None:
        covers = covering.verdict(qname, qtype, None, chain)
        if covers is None:
            return None
        held = then.verdict(qname, qtype, client, chain)
        if held is not None and not held.passes:
            return describe(covers, Hold.BOUND)
        return describe(covers, Hold.EXEMPT if then.group_of(client) in bound else Hold.OUTSIDE)

    def judge_now(qname: bytes, qtype: int, client: bytes | None, chain: tuple[bytes, ...]) -> Judged | None:
        held = now.verdict(qname, qtype, client, chain)
        if held is None or held.passes:
            return None
        return Judged(held.order.id, held.app.id, held.rule, held.action, by_chain=held.link > 0)

    def group_of(client: bytes | None) -> str:
        number = now.group_of(client)
        return settings.groups[number].name if number >= 0 else ""

    question = Question(
        order.id, order.title.en, order.state(at).value, order.effective, bool(lines), groups, assumed.apps,
        assumed.include_optional,
    )  # fmt: skip
    return Judges(question, judge_now, judge_then, group_of)


class _Policy:
    """A generation in memory at one moment, asked as the data path asks it; what it said is remembered."""

    def __init__(self, octets: bytes, at: float, nobodys_group: int) -> None:
        generation = Generation(memoryview(bytearray(octets)))

        @lru_cache(maxsize=_JUDGED_KEPT)
        def client_of(client: bytes | None) -> tuple[int, int]:
            return (nobodys_group, -1) if client is None else generation.client_of(client)

        @lru_cache(maxsize=4096)
        def view_of(client: tuple[int, int]) -> View:
            return View(generation, client[0], at, client[1])

        @lru_cache(maxsize=_JUDGED_KEPT)
        def verdict(qname: bytes, qtype: int, client: tuple[int, int], chain: tuple[bytes, ...]) -> Verdict | None:
            view = view_of(client)
            found = judge_query(qname, view, qtype)
            return judge_answer(qname, found, Reached(aliases=chain), view, qtype) if chain else found

        self._client_of, self._verdict = client_of, verdict

    def group_of(self, client: bytes | None) -> int:
        return self._client_of(client)[0]

    def verdict(self, qname: bytes, qtype: int, client: bytes | None, chain: tuple[bytes, ...]) -> Verdict | None:
        return self._verdict(qname, qtype, self._client_of(client), chain)


def _describer(order: Order, apps: Mapping[str, App]) -> Callable[[Verdict, Hold], Judged]:
    """What makes a `Judged` of a verdict, with what the catalogue says about its name."""
    domains = {
        (app, domain.wire(), domain.match is Match.EXACT): domain
        for app in order.apps
        for domain in apps[app].domains
        if takes(order, domain)
    }

    @lru_cache(maxsize=_JUDGED_KEPT)
    def describe(verdict: Verdict, hold: Hold) -> Judged:
        domain = domains.get((verdict.app.id, verdict.owner, verdict.exact))
        return Judged(
            verdict.order.id, verdict.app.id, verdict.rule, verdict.action,
            domain.purpose if domain is not None else None, hold, verdict.link > 0,
            domain is not None and domain.use is Use.OPTIONAL, domain.collateral if domain is not None else "",
        )  # fmt: skip

    return describe


def replay(judges: Judges, past: Past, top: int, at: float) -> Preview:
    """Read all logs and count, with a bar on standard error where somebody looks on.

    Raises:
        PastError: A log can not be read at all.
    """
    counted = Replay(judges.now, judges.then, judges.group_of)
    with Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty(),
    ) as progress:  # fmt: skip
        task = progress.add_task("reading", total=past.octets)
        for number, asked in enumerate(past):
            counted.add(asked)
            if number % _STEP == 0:
                progress.update(task, completed=past.done)
    return Preview(
        judges.question, datetime.fromtimestamp(at, UTC), tuple(past.sources), past.outside, past.ledger.unread(),
        counted.impact(top),
    )  # fmt: skip
