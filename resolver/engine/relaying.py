"""Questions that go to an upstream, and answers that come back, many at a time: the house around `hot/_relay_cy.py`,
or around `hot/relay_plain.py` where nothing is compiled.

The pipeline's path, less what it is for: policy, since no rule has a say in the names; a choice among several ways of
asking, since the usual one will do. Whatever turns out not to be so plain walks the pipeline after all. Its counters,
its cache and its memos are shared, so who looks at them sees no difference.
"""

from collections.abc import Callable
from typing import Any

from resolver.engine.cache import Cache, Shelf
from resolver.engine.forwarder import Clock, Forwarder, Upstream
from resolver.engine.inforce import PolicyInForce
from resolver.engine.special import SpecialNames
from resolver.hot._batch_cy import ViewMemo
from resolver.hot._memo_cy import Answers
from resolver.hot._relay_cy import Lane, Outlet, Relay, relays
from resolver.hot.relay_plain import Relay as PlainRelay
from resolver.hot.relay_shapes import Shelf as PlainShelf
from resolver.policy.generation import View

CellsOf = Callable[[str, int, int], tuple[int, int]]
Waiting = dict[int, tuple[Any, bytes, float]]
Build = tuple[Callable[..., Relay | PlainRelay], type[Lane]]

THIS_BUILD: Build = (Relay if relays() else PlainRelay, Lane)


def make_shelf() -> Shelf:
    """What the cache keeps relayed replies on."""
    if not relays():
        return PlainShelf()
    compiled: Any = Answers  # the type checker sees none of what it can do
    # As many as there is room for: it is the cache that looks at how much memory they take.
    shelf: Shelf = compiled(1 << 40)
    return shelf


class RelayedQuestions:
    """Those of one worker."""

    def __init__(
        self,
        *,
        policy: PolicyInForce,
        special: SpecialNames,
        cache: Cache,
        forwarder: Forwarder,
        clock: Clock,
        counts: memoryview,
        miss_cell: int,
        cells_of: CellsOf,
        answered: Callable[[int, float], None],
        most_waiting: int,
        build: Build = THIS_BUILD,
    ) -> None:
        """Wire up.

        Args:
            policy: What clients are held to.
            special: Names answered here.
            cache: Upstreams' answers.
            forwarder: The way to the upstreams.
            clock: Both clocks.
            counts: The shared counters.
            miss_cell: That of questions the cache could not answer.
            cells_of: Of a group, a QTYPE and an RCODE, the counters of answers over UDP: by an upstream, from the memo.
            answered: Is told how many answers were given to what was asked when (monotonic seconds).
            most_waiting: How many clients may wait.
            build: What relays, compiled or plain.
        """
        self._policy = policy
        self._cache = cache
        self._forwarder = forwarder
        self._clock = clock
        self._cells_of = cells_of
        self._answered = answered
        self._changes = policy.changes
        self._now = 0.0
        terms = cache.terms
        relay, self._lane = build
        self._relay = relay(
            cache.entries,
            cache.shelf,
            cache.forget,
            cache.failures,
            forwarder.under_way,
            (forwarder.terms.pending, most_waiting),
            special.names(),
            special.tops(),
            counts,
            miss_cell,
            (int(terms.min_ttl), int(terms.max_ttl), int(terms.max_negative_ttl)),
            self._find_lane,
            forwarder.adopt,
            self._settle,
        )

    def __len__(self) -> int:
        """How many clients wait."""
        return len(self._relay)

    def offer(self, outlet: Outlet, passed: list[int], sources: dict[bytes, ViewMemo], now: float) -> list[int]:
        """Ask what can be asked this way of the datagrams that the memo passed on; the slots of the others.

        Args:
            outlet: Of the window they came by.
            passed: Their slots.
            sources: The memo for each client address whose view is known.
            now: Monotonic seconds.
        """
        upstream = self._forwarder.usual()
        if upstream is None or upstream.many is None:
            return passed
        self._look_at_policy()
        rest = self._relay.offer(outlet, passed, sources, upstream, now)
        if self._relay.is_staged():
            terms = self._forwarder.terms
            upstream.many.post_staged(self, min(terms.try_timeout, terms.deadline))
        return rest

    def is_staged(self) -> bool:
        """Whether there are questions to write."""
        return self._relay.is_staged()

    def write(self, rooms: tuple[int, int, int], ready: int, waiting: Waiting, random: bytes, due: float) -> int:
        """Write queries, as `Relay.write` says."""
        return self._relay.write(rooms, ready, waiting, random, due)

    def give_up(self, error: OSError) -> None:
        """Learn that what is staged can not be sent."""
        self._relay.give_up(error)

    def take(self, rooms: tuple[int, int], received: memoryview, count: int, waiting: Waiting) -> list[int]:
        """Answer with replies, as `Relay.take` says, under the policy of now."""
        self._policy.turn(self._clock.at())
        self._look_at_policy()
        self._now = self._clock.now()
        return self._relay.take(rooms, received, count, waiting, _is_trusted, self._now)

    def _look_at_policy(self) -> None:
        if self._policy.changes != self._changes:
            self._changes = self._policy.changes
            self._relay.close_lanes()

    def _find_lane(self, memo: ViewMemo) -> Lane | None:
        view = self._policy.view_of_memo(memo)
        if view is None or not is_plain(view):
            return None
        group = view.group
        return self._lane(
            view.generation.table, memo, view.strips_ech, lambda qtype, rcode: self._cells_of(group, qtype, rcode)
        )

    def _settle(self, runs: list[tuple[Upstream, float, int]], given: list[tuple[float, int]], learned: int) -> None:
        for upstream, started, count in runs:
            self._forwarder.answered(upstream, self._now - started, count)
        for started, count in given:
            self._answered(count, started)
        self._cache.make_room()
        self._policy.learned(learned)


def is_plain(view: View) -> bool:
    """Whether only listed names have a say: in a question that none of them covers, and in an answer that leads to
    none."""
    has_more = view.patterned or view.clients or view.follows_nameservers or any(view.addressed.values())
    return not has_more and view.generation.root < 0


def _is_trusted(upstream: Upstream) -> bool:
    return upstream.trust_ad
