"""Questions that the cache can not answer, put to the upstreams.

One question is asked once, however many clients wait for it. Upstreams are tried best first: those that answer, by
their smoothed round-trip time; one that failed three times in a row rests for a while that doubles with each further
failure, and once it has rested is tried with one client's question, while the others still pass it by (unless nobody
else is left).
A reply counts only if it passes every check of RFC 5452 §9; one that does not is ignored, and the wait goes on.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

from resolver.engine.cache import Cache, Entry, cache_key, is_failure, read_key
from resolver.wire.codes import Ede, Rcode
from resolver.wire.compose import UDP_OCTETS
from resolver.wire.message import Answer, ExtendedError, Reply, WireError, read_reply, write_query

T = TypeVar("T")

FAILURES_TO_REST = 3
FIRST_REST = 1.0  # seconds
LONGEST_REST = 30.0
MOST_DOUBLINGS = 5  # after which the rest is the longest anyway
OWN_STALE_WAIT = 0.5  # seconds that a question of our own waits for fresh data while stale data is at hand


class UpstreamError(Exception):
    """Nobody answered; the message says for which reason each one failed."""


class Clock(Protocol):
    """Where the engine gets its time from: the roof's real clocks, or a test's."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def at(self) -> float:
        """Unix seconds."""
        ...


class Waiter(Protocol):
    """Who waits for the reply to a question."""

    def take(self, reply: bytes, sent: bytes) -> bool:
        """Whether a reply to what was sent is taken; if not, the wait goes on."""
        ...

    def fail(self, error: OSError) -> None:
        """Learn that none came (TimeoutError), or that the upstream can not be reached."""
        ...


class Exchange(Protocol):
    """One upstream, as a transport reaches it."""

    @property
    def name(self) -> str:
        """Address and port, for logs and metrics."""
        ...

    def post(self, query: bytes, waiter: Waiter, wait: float) -> bool:
        """Send a query under an id of its own and have `waiter` told, once, of the reply or that none came.

        Returns:
            Whether the upstream can be asked so: where not, nothing was done, and `ask` is the way.
        """
        ...

    async def ask(self, query: bytes, accept: Callable[[bytes, bytes], T], wait: float) -> T:
        """Send a query under an id of its own and return what `accept(reply, query as sent)` makes of its good reply.

        The reply may be truncated, where it came over a transport that does not carry answers of any size.

        Raises:
            OSError: The upstream can not be reached.
            TimeoutError: No good reply within `wait` seconds.
        """
        ...

    async def ask_whole(self, query: bytes, accept: Callable[[bytes, bytes], T], wait: float) -> T:
        """The same over a transport that carries answers of any size.

        Raises:
            OSError: The upstream can not be reached, or closed the connection.
            TimeoutError: No reply within `wait` seconds.
            WireError: A reply that does not belong to the query.
        """
        ...


class Relayed(Protocol):
    """A question under way that is not the forwarder's."""

    def hand_over(self) -> "_Question":
        """Leave it to the forwarder: what `adopt` made of it."""
        ...


class Relaying(Protocol):
    """Questions that were staged to be asked many at a time (`engine/relaying.py`)."""


@runtime_checkable
class ManyAtATime(Protocol):
    """An exchange that carries many questions with one system call."""

    def post_staged(self, relaying: Relaying, wait: float) -> None:
        """Send what is staged; who asks takes the replies, or fails after so many seconds."""
        ...


class Counters(Protocol):
    """Where the forwarder reports what happened with an upstream."""

    def upstream(self, name: str, outcome: str, seconds: float | None, count: int = 1) -> None:
        """Count so many exchanges of one outcome; `seconds` where a reply came."""
        ...

    def upstream_up(self, name: str, up: bool) -> None:
        """Note whether an upstream is in use or at rest."""
        ...


@dataclass(frozen=True, slots=True)
class ForwarderTerms:
    """Limits of forwarding; seconds, but for `pending`, which counts questions."""

    try_timeout: float = 0.8
    deadline: float = 4.0
    pending: int = 4096


class Upstream:
    """What is known of one upstream's health."""

    __slots__ = ("edns", "exchange", "failures", "fruitless", "many", "rest_until", "rtt", "trust_ad")

    def __init__(self, exchange: Exchange, trust_ad: bool) -> None:
        """Start out healthy.

        Args:
            exchange: How to reach it.
            trust_ad: Whether its AD bit may be passed on: only over a path that nobody else can write to
                (RFC 6840 §5.8).
        """
        self.exchange = exchange
        self.many = exchange if isinstance(exchange, ManyAtATime) else None
        self.trust_ad = trust_ad
        self.rtt = 0.0  # seconds, smoothed; 0 until measured, so that each upstream is tried once
        self.failures = 0
        self.fruitless = 0  # replies in a row that were no answer: alive, but others are asked first
        self.rest_until = 0.0
        self.edns = True

    def succeeded(self, seconds: float) -> None:
        """Take in a good reply."""
        self.rtt = seconds if not self.rtt else 0.8 * self.rtt + 0.2 * seconds
        self.failures = self.fruitless = 0
        self.rest_until = 0.0

    def try_out(self, now: float, seconds: float) -> bool:
        """Whether the question about to be asked shall find out if the upstream is back after its rest.

        If so, the others go on passing it by for so many seconds: those that it takes to find out.
        """
        if self.failures < FAILURES_TO_REST or self.rest_until > now:
            return False
        self.rest_until = now + seconds
        return True

    def failed(self, now: float, tried_out: bool = False) -> None:
        """Take in a missing or useless reply.

        At rest it changes nothing, so that a burst of failures counts once; but for that of the question that tried the
        upstream out.
        """
        if self.rest_until > now and not tried_out:
            return
        self.failures += 1
        if self.failures >= FAILURES_TO_REST:
            doublings = min(self.failures - FAILURES_TO_REST, MOST_DOUBLINGS)
            self.rest_until = now + min(FIRST_REST * 2**doublings, LONGEST_REST)


Told = Callable[[Entry | Exception], None]
"""Takes what came of a question, once: an entry, or UpstreamError where nobody answered. It never raises."""


class _Question:
    """One question under way, who is to be told, and the attempt at it that began without a task."""

    __slots__ = ("cd", "do", "forwarder", "key", "qname", "qtype", "started", "told", "tries_out", "upstream")

    def __init__(self, forwarder: "Forwarder", key: bytes, started: float) -> None:
        self.forwarder = forwarder
        self.key = key
        self.qname, self.qtype, self.do, self.cd = read_key(key)
        self.told: list[Told] = []
        self.started = started
        self.upstream: Upstream | None = None
        self.tries_out = False

    def take(self, octets: bytes, sent: bytes) -> bool:
        """Whether it is the reply to this question."""
        try:
            reply = read_reply(octets, sent)
        except WireError:
            return False
        self.forwarder.replied(self, reply)
        return True

    def fail(self, error: OSError) -> None:
        """Go on with another attempt."""
        self.forwarder.persist(self, error)


class Forwarder:
    """The upstreams, the questions under way, and the cache that the answers go into.

    A question is asked without a task where one datagram each way is all it takes; whatever else happens (no reply, a
    truncated one, a failure, an upstream that is reached by other means), a task takes it from there.
    """

    def __init__(
        self,
        upstreams: list[Upstream],
        cache: Cache,
        terms: ForwarderTerms,
        clock: Clock,
        counters: Counters,
        spawn: Callable[[Coroutine[None, None, None]], object],
    ) -> None:
        """Wire up.

        Args:
            upstreams: In the order of the configuration; none is allowed, and every question then fails.
            cache: Where answers are kept.
            terms: Limits.
            clock: For round-trip times and rests.
            counters: For metrics.
            spawn: Starts a task whose life the roof looks after.
        """
        self.upstreams = upstreams
        self._cache = cache
        self._terms = terms
        self._clock = clock
        self._counters = counters
        self._spawn = spawn
        self.under_way: dict[bytes, _Question | Relayed] = {}

    def __len__(self) -> int:
        return len(self.under_way)

    @property
    def terms(self) -> ForwarderTerms:
        """Its limits."""
        return self._terms

    def usual(self) -> Upstream | None:
        """The upstream that questions go to now, where nothing is to be found out about it."""
        if not self.upstreams:
            return None
        upstream = self._best(self.upstreams)
        return upstream if upstream.edns and upstream.failures < FAILURES_TO_REST else None

    def adopt(self, key: bytes, upstream: Upstream, started: float) -> "_Question":
        """Go on with a question that was relayed; nobody waits for it here yet.

        Args:
            key: A `cache_key`, under which it is under way.
            upstream: That was asked.
            started: Monotonic seconds.
        """
        question = self.under_way[key] = _Question(self, key, started)
        question.upstream = upstream
        return question

    def answered(self, upstream: Upstream, seconds: float, count: int) -> None:
        """Take note of so many answers that took so long."""
        name = upstream.exchange.name
        upstream.succeeded(seconds)
        self._counters.upstream(name, "answer", seconds, count)
        self._counters.upstream_up(name, True)

    def ask(self, key: bytes, qname: bytes, qtype: int, told: Told, *, do: bool, cd: bool) -> bool:
        """Have an answer fetched and cached, once for all who ask; False where too many questions are under way.

        Where nobody could answer, the failure is remembered in the cache.

        Args:
            key: The `cache_key` of the rest.
            qname: Wire form.
            qtype: As a number.
            told: Takes what came of it, maybe before this returns.
            do: Whether DNSSEC records are wanted.
            cd: Whether unchecked data will do.
        """
        question = self.under_way.get(key)
        if question is not None and not isinstance(question, _Question):
            question = question.hand_over()
        if question is not None:
            question.told.append(told)
            return True
        if len(self.under_way) >= self._terms.pending:
            return False
        terms = self._terms
        now = self._clock.now()
        question = self.under_way[key] = _Question(self, key, now)
        question.told.append(told)
        if self.upstreams:
            upstream = question.upstream = self._best(self.upstreams)
            question.tries_out = upstream.try_out(now, terms.try_timeout)
            query = write_query(qname, qtype, 0, do=do, cd=cd, edns=upstream.edns, udp_octets=UDP_OCTETS)
            if upstream.exchange.post(query, question, min(terms.try_timeout, terms.deadline)):
                return True
        self.persist(question, None)
        return True

    def fetch(self, key: bytes, qname: bytes, qtype: int, *, do: bool, cd: bool) -> "asyncio.Future[Entry] | None":
        """The same, to be awaited; None where too many questions are under way.

        The future raises UpstreamError where nobody could answer.
        """
        future: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()

        def tell(found: Entry | Exception) -> None:
            if future.done():
                return
            if isinstance(found, Entry):
                future.set_result(found)
            else:
                future.set_exception(found)

        return future if self.ask(key, qname, qtype, tell, do=do, cd=cd) else None

    def waited(self, key: bytes) -> float:
        """For how many seconds a question has been under way; 0 for one that is not."""
        question = self.under_way.get(key)
        return self._clock.now() - question.started if isinstance(question, _Question) else 0.0

    def replied(self, question: _Question, reply: Reply) -> None:
        """Take in the reply to the attempt that began without a task."""
        answer, upstream = reply.answer, question.upstream
        assert upstream is not None
        if reply.truncated or is_failure(answer.rcode):
            self.persist(question, reply)
            return
        now = self._clock.now()
        answer = self._answered(upstream, answer, now - question.started)
        self._settle(question, self._cache.put(question.key, answer, now))

    def persist(self, question: _Question, outcome: Reply | OSError | None) -> None:
        """Go on in a task.

        Args:
            question: Under way.
            outcome: Of the attempt that began without one; None where its upstream is still to be asked.
        """
        upstream = question.upstream
        if not question.told and isinstance(outcome, OSError) and upstream is not None:
            # Policy has answered whoever waited: nobody else need hear of the name.
            self._note_failure(upstream, outcome, question.tries_out)
            self._settle(question, UpstreamError("nobody waits"))
            return
        self._spawn(self._fetch(question, outcome))

    def close(self) -> None:
        """Tell all who wait that nobody will answer."""
        for question in list(self.under_way.values()):
            if not isinstance(question, _Question):
                question = question.hand_over()
            self._settle(question, UpstreamError("closing"))

    async def look_up(self, qname: bytes, qtype: int, *, do: bool, cd: bool) -> Entry | Answer:
        """What the cache or else an upstream says about a question of our own; an Answer where nobody could say.

        Stale data is rather taken than none, as for clients: what a verdict was built on must hold through an outage.
        """
        key = cache_key(qname, qtype, do=do, cd=cd)
        now = self._clock.now()
        entry = self._cache.get(key, now)
        if entry is not None and entry.expires > now:
            return entry
        failure = self._cache.failure(key, now)
        if failure is None:
            future = self.fetch(key, qname, qtype, do=do, cd=cd)
            try:
                if future is not None:
                    return await asyncio.wait_for(future, None if entry is None else OWN_STALE_WAIT)
                failure = Answer(
                    int(Rcode.SERVFAIL), errors=(ExtendedError(Ede.OTHER, "too many questions under way"),)
                )
            except (UpstreamError, TimeoutError) as error:
                failed = Answer(int(Rcode.SERVFAIL), errors=(ExtendedError(Ede.NETWORK_ERROR, str(error)),))
                failure = self._cache.failure(key, self._clock.now()) or failed
        if entry is None:
            return failure
        return Entry(replace(self._cache.stale(entry), authentic=False), self._clock.now(), 0.0, 0)

    def _settle(self, question: _Question, found: Entry | Exception) -> None:
        if self.under_way.get(question.key) is question:
            del self.under_way[question.key]
            for tell in question.told:
                tell(found)

    async def _fetch(self, question: _Question, outcome: Reply | OSError | None) -> None:
        found: Entry | Exception = UpstreamError("closing")
        try:
            found = self._kept(question.key, await self._resolve(question, outcome))
        except UpstreamError as error:
            code = Ede.NO_REACHABLE_AUTHORITY if self.upstreams else Ede.NOT_READY
            failed = Answer(int(Rcode.SERVFAIL), errors=(ExtendedError(code, str(error)),))
            self._cache.put_failure(question.key, failed, self._clock.now())
            found = error
        except Exception as error:  # of ours: told to who waits, who reports it
            found = error
        finally:
            self._settle(question, found)

    def _kept(self, key: bytes, answer: Answer) -> Entry | UpstreamError:
        now = self._clock.now()
        if is_failure(answer.rcode):
            errors = answer.errors or (ExtendedError(Ede.NETWORK_ERROR, "the upstreams could not answer"),)
            self._cache.put_failure(key, Answer(int(Rcode.SERVFAIL), errors=errors), now)
            return UpstreamError("the upstreams could not answer")
        return self._cache.put(key, answer, now)

    async def _resolve(self, question: _Question, outcome: Reply | OSError | None) -> Answer:
        """Ask one upstream after another until one answers, or the deadline is there; the first was chosen before."""
        end = question.started + self._terms.deadline
        first = question.upstream
        failed: Answer | None = None
        reasons: dict[str, str] = {}
        for _ in range(2):
            untried = list(self.upstreams)
            while untried:
                if first is not None:
                    upstream, started, tries_out, first = first, question.started, question.tries_out, None
                else:
                    started, outcome = self._clock.now(), None
                    if started >= end:
                        break
                    # The best is looked for anew each time: another question may have found something out meanwhile.
                    upstream = self._best(untried)
                    tries_out = upstream.try_out(started, self._terms.try_timeout)
                untried.remove(upstream)
                name = upstream.exchange.name
                try:
                    reply = await self._ask(upstream, question, end, outcome)
                except (OSError, TimeoutError, WireError) as error:
                    reasons[name] = _reason(error)
                    self._note_failure(upstream, error, tries_out)
                    continue
                seconds = self._clock.now() - started
                if is_failure(reply.answer.rcode):
                    # It is alive, but its answer is of no use: maybe another upstream knows better.
                    failed = reply.answer
                    upstream.fruitless += 1
                    if tries_out:
                        upstream.rest_until = 0.0
                    self._counters.upstream(name, "failure", seconds)
                    continue
                return self._answered(upstream, reply.answer, seconds)
            if failed is not None:
                return failed
        if not self.upstreams:
            raise UpstreamError("no upstream is configured")
        raise UpstreamError("; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "no time left")

    def _note_failure(self, upstream: Upstream, error: Exception, tried_out: bool) -> None:
        name = upstream.exchange.name
        upstream.failed(self._clock.now(), tried_out)
        self._counters.upstream(name, "timeout" if isinstance(error, TimeoutError) else "error", None)
        self._counters.upstream_up(name, not upstream.rest_until)

    def _best(self, upstreams: list[Upstream]) -> Upstream:
        if len(upstreams) == 1:
            return upstreams[0]
        now = self._clock.now()
        return min(upstreams, key=lambda one: _rank(one, now))

    def _answered(self, upstream: Upstream, answer: Answer, seconds: float) -> Answer:
        """Take note of an answer; it comes back without AD where the way from the upstream is not to be trusted."""
        self.answered(upstream, seconds, 1)
        if answer.authentic and not upstream.trust_ad:
            return replace(answer, authentic=False)
        return answer

    async def _ask(self, upstream: Upstream, question: _Question, end: float, outcome: Reply | OSError | None) -> Reply:
        exchange = upstream.exchange
        qname, qtype, do, cd = question.qname, question.qtype, question.do, question.cd
        query = write_query(qname, qtype, 0, do=do, cd=cd, edns=upstream.edns, udp_octets=UDP_OCTETS)
        if isinstance(outcome, OSError):
            raise outcome
        reply = outcome
        if reply is None:
            reply = await exchange.ask(query, read_reply, min(self._terms.try_timeout, self._left(end)))
        if upstream.edns and _knows_no_edns(reply):
            # A server that knows no EDNS says so like this (RFC 6891 §7): asked again in the old form, and from now on
            # if that was it; a question that it can not take in either form says nothing about EDNS.
            query = write_query(qname, qtype, 0, do=False, cd=cd, edns=False, udp_octets=UDP_OCTETS)
            reply = await exchange.ask(query, read_reply, min(self._terms.try_timeout, self._left(end)))
            upstream.edns = _knows_no_edns(reply)
        if reply.truncated:
            reply = await exchange.ask_whole(query, read_reply, self._left(end))
            if reply.truncated:
                raise WireError(None, None, "truncated though nothing limits its size")
        return reply

    def _left(self, end: float) -> float:
        left = end - self._clock.now()
        if left <= 0:
            raise TimeoutError
        return left


def _rank(upstream: Upstream, now: float) -> tuple[bool, bool, float]:
    """The lower, the sooner it is asked."""
    rests = upstream.rest_until > now
    return rests, upstream.fruitless >= FAILURES_TO_REST, upstream.rest_until if rests else upstream.rtt


def _knows_no_edns(reply: Reply) -> bool:
    return not reply.has_opt and reply.answer.rcode in (Rcode.FORMERR, Rcode.NOTIMP)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)
