"""THE path of a query. Every query walks it, by whatever transport it came; only one that repeats another answered
before is answered earlier, from what was learned here and with the very octets: a datagram by the hot memo, a message
over a connection by `ready.py`.

The order of the steps is the product's promise, so it is argued beside the lines. `begin` goes as far as one can go
without waiting; then `finish` waits for an upstream, or `busy` answers where there is no room to wait. A reply is
octets; None is silence.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address

from resolver.engine.cache import Cache, Entry, cache_key
from resolver.engine.covered import Coverage, CoveringOrder, covered
from resolver.engine.delegation import NameServers
from resolver.engine.forwarder import Clock, Forwarder, Told, UpstreamError
from resolver.engine.inforce import PolicyInForce, Standing
from resolver.engine.ready import Said, is_repeated
from resolver.engine.special import WHOAMI, SpecialNames
from resolver.engine.substitute import alias_target, policy_answer, rewritten_answer
from resolver.engine.templates import learn_template
from resolver.hot._batch_cy import NEVER, Ready
from resolver.hot._scan_cy import age
from resolver.observe.cells import Cells
from resolver.observe.record import HitTemplate, hit_template
from resolver.policy.client import Client, Transport
from resolver.policy.documents import Action, Mode
from resolver.policy.generation import ORDER_RANK, View
from resolver.policy.judge import Reached, Verdict, is_settled, judge_answer, judge_query
from resolver.wire import name as names
from resolver.wire.codes import Ede, Rcode, Rtype, rcode_text, rtype_class, rtype_text
from resolver.wire.compose import error_answer, write_reply
from resolver.wire.message import CD, HEADER_OCTETS, RD, TC, Answer, ExtendedError, Query, WireError, read_query
from resolver.wire.rewrite import without_ech

NO_KEEPALIVE: Mapping[Transport, float] = {}
STALE_WAIT = 1.8  # seconds a client waits for fresh data while stale data is at hand (RFC 8767 §5)
_MAX_QUERY_CELLS = 4096  # counters known by heart; with more, since anybody may ask for any type, they are sought anew
STALE_RETRY = 30.0  # seconds after a failed refresh during which stale data is given at once (RFC 8767 §5)


@dataclass(slots=True)
class Wanted:
    """A query that needs something of an upstream, with all that was found out about it so far.

    Nothing changes it; it is not frozen because one is made for each query that is not answered at once.

    `verdict` acts, if at all, by letting pass, or once the answer has been judged. `entry` is the answer where it is at
    hand and only what stands behind it is wanted: its name servers, or the target of policy's own alias (`alias`).
    """

    packet: bytes
    client: Client
    query: Query
    key: bytes  # what the answer is filed under
    view: View
    verdict: Verdict | None
    stale: Entry | None = None
    entry: Entry | None = None
    source: str = "upstream"
    alias: Verdict | None = None
    aliases: tuple[bytes, ...] = ()  # that led to where policy's alias begins
    future: "asyncio.Future[Entry] | None" = None  # of the question, where it was asked already


class Pipeline:
    """The path, with the rooms it leads through."""

    def __init__(
        self,
        *,
        policy: PolicyInForce,
        special: SpecialNames,
        cache: Cache,
        forwarder: Forwarder,
        cells: Cells,
        spool: Callable[[bytes, int, float], None],
        clock: Clock,
        nsid: bytes,
        node: str = "",
        keepalive: Mapping[Transport, float] = NO_KEEPALIVE,
        seen: Callable[[int, float], None] = lambda number, at: None,
    ) -> None:
        """Wire up.

        Args:
            policy: What clients are held to.
            special: Names answered here.
            cache: Upstreams' answers.
            forwarder: The way to the upstreams.
            cells: Counters.
            spool: Takes (hit records, how many, Unix seconds).
            clock: Both clocks.
            nsid: This server's identity (RFC 5001 §2.3); the policy in force is told with it.
            node: What this server calls itself to those who ask whether they are covered.
            keepalive: For how many seconds connections of a transport may be idle, told to who asks (RFC 7828).
            seen: Is told the number of each device that asks, and when (Unix seconds).
        """
        self._policy = policy
        self._special = special
        self._cache = cache
        self._forwarder = forwarder
        self._name_servers = NameServers(forwarder)
        self._cells = cells
        self._spool = spool
        self._clock = clock
        self._query_cells: dict[tuple[Transport, str, int, int | None, str], int] = {}  # of queries that met no rule
        self._nsid = nsid
        self._node = node
        self._keepalive = keepalive
        self._seen = seen

    def begin(self, packet: bytes, client: Client) -> "bytes | Wanted | None":
        """Answer a message, or say what is wanted of an upstream first."""
        # Who asks? Found out for each message, so that whoever was revoked is not told again what it was told before.
        at = self._clock.at()
        standing = self._standing_of(client, at)
        view = None
        if not standing.refusal:
            view = self._policy.view_of(standing, at)
            if not client.is_batched:
                said = self._policy.said.find(view, standing.client, packet, self._clock.now())
                if said is not None:
                    return self._again(said, packet, standing, at)

        # 2. What was asked? Before all that follows, since whatever can not be read can not be judged, and what is no
        # query (a response, a fragment of a header) must get silence from every later step.
        try:
            query = read_query(packet)
        except WireError as error:
            if error.query is None or error.rcode is None:
                self._cells.counts[self._cells.index("dropped", client.transport, error.reason)] += 1
                return None
            return self._reply(packet, client, error.query, error_answer(error.rcode), None, None, "error")

        # Before policy, so that a stranger can not find out by asking whom an order binds.
        if view is None:
            return self._refuse(packet, client, query, standing)
        client = standing.client
        if standing.number >= 0:
            self._seen(standing.number, at)
        self._count_stranger(standing)

        # 3. What does policy say? Before special names, cache and upstreams: a settled verdict goes nowhere else, and
        # that of an order is the same for every QTYPE and class, so that no HTTPS or CHAOS question is a way round.
        verdict = _as_carried(judge_query(query.qname, view, query.qtype), client)
        if verdict is not None and is_settled(verdict, view):
            return self._enforce(packet, client, query, view, verdict)

        # Names that stay here. Before the RD check, since these answers need nobody else. A verdict that only waits for
        # an answer acts where none will come.
        # Who comes by a listener of a group would leave the group by what he discovers.
        answer = self._special.answer(query, lambda: covered(self.coverage(client)), discovers=client.listener is None)
        source = "special"
        if answer is None and not query.flags & RD:
            # A forwarder has nothing of its own to say to "do not recurse", and what others asked is not told
            # (cache snooping). RFC 8914 §4.21.
            answer = error_answer(Rcode.REFUSED, ExtendedError(Ede.NOT_AUTHORITATIVE, "recursion not asked for"))
            source = "local"
        if answer is not None:
            if verdict is not None and not verdict.passes:
                return self._enforce(packet, client, query, view, verdict)
            # Who asks is told to nobody else, nor told again; and discovery is not for all clients of a view.
            lasting = query.qname != WHOAMI and query.qtype != Rtype.SVCB
            return self._reply(packet, client, query, answer, view, verdict, source, lasting=lasting)

        # 4. Do we know? The cache stands behind policy and is judged again on the way out.
        now = self._clock.now()
        key = cache_key(query.qname, query.qtype, do=query.do, cd=bool(query.flags & CD))
        entry = self._cache.get(key, now)
        wanted = Wanted(packet, client, query, key, view, verdict, entry)
        if entry is not None and entry.expires > now:
            self._count_cache("hit")
            return self._judged(wanted, entry, "cache", None)
        if entry is None:
            failure = self._cache.failure(key, now)
            if failure is not None:
                self._count_cache("failure")
                told = replace(failure, errors=(*failure.errors, ExtendedError(Ede.CACHED_ERROR)))
                return self._unanswered(wanted, told, "cache")
        elif entry.retry_at > now:
            return self._stale(wanted)
        self._count_cache("miss")
        return wanted

    def _again(self, said: Said, packet: bytes, standing: Standing, at: float) -> bytes:
        """Say what was said before to the same message; count and record it as it was then."""
        if standing.number >= 0:
            self._seen(standing.number, at)
        self._count_stranger(standing)
        self._cells.counts[said.cell] += 1
        if said.hit_prefix:
            stamp = int(at * 1_000_000).to_bytes(8, "little")
            self._spool(said.hit_prefix + stamp + standing.client.sockaddr + said.hit_tail, 1, at)
        return packet[:2] + said.reply

    def coverage(self, client: Client) -> Coverage:
        """What is known of a client, and which orders bind it now."""
        at = self._clock.at()
        standing = self._standing_of(client, at)
        terms = self._policy.generation.terms
        orders: tuple[CoveringOrder, ...] = ()
        group = ""
        if not standing.refusal:
            view = self._policy.view_of(standing, at)
            group = view.group
            orders = tuple(
                CoveringOrder(terms.orders[number].id, terms.orders[number].title_en)
                for number, stance in sorted(view.stances.items())
                if stance.mode is Mode.ENFORCE
            )
        return Coverage(
            client=str(ip_address(client.address)),
            device=standing.client.device,
            group=group,
            transport=client.transport,
            orders=orders,
            generation="" if standing.refusal else self._policy.generation.label,
            node="" if standing.refusal else self._node,
            at=at,
        )

    async def finish(self, wanted: Wanted) -> bytes | None:
        """Answer with what an upstream says, or with what it said before where it says nothing now."""
        outcome: bytes | Wanted | None = wanted
        # Once for the answer, once for the name servers behind it, once for the target of policy's own alias.
        while isinstance(outcome, Wanted):
            if outcome.alias is not None:
                outcome = await self._follow(outcome, outcome.alias)
            elif outcome.entry is not None:
                entry = outcome.entry
                found = await self._name_servers.of((outcome.query.qname, *entry.answer.aliases), outcome.view)
                outcome = self._conclude(outcome, entry, outcome.source, found)
            else:
                outcome = await self._ask(outcome)
        return outcome

    async def _ask(self, wanted: Wanted) -> "bytes | Wanted | None":
        # 5. Ask. The question may already be under way for another client; the answer is the same, the verdict need not
        # be.
        future = wanted.future or self._fetch(wanted)
        if future is None:
            return self.busy(wanted)
        try:
            # From when it was asked: it may have been relayed, or asked for others, before this client's turn came.
            left = max(STALE_WAIT - self._forwarder.waited(wanted.key), 0.0)
            entry = await asyncio.wait_for(future, None if wanted.stale is None else left)
        except (UpstreamError, TimeoutError) as error:
            return self._failed(wanted, error)
        return self._conclude(wanted, entry, "upstream", None)

    def ask(self, wanted: Wanted, told: Told) -> bool:
        """Ask, where nothing else is wanted, without a task; what is told goes to `conclude`.

        Returns:
            Whether it is asked; if not, `finish` is the way.
        """
        if wanted.entry is not None or wanted.alias is not None:
            return False
        if wanted.stale is not None:
            # Who has stale data at hand waits in a task, but is in line from now on.
            wanted.future = self._fetch(wanted)
            return False
        query = wanted.query
        return self._forwarder.ask(wanted.key, query.qname, query.qtype, told, do=query.do, cd=bool(query.flags & CD))

    def _fetch(self, wanted: Wanted) -> "asyncio.Future[Entry] | None":
        query = wanted.query
        return self._forwarder.fetch(wanted.key, query.qname, query.qtype, do=query.do, cd=bool(query.flags & CD))

    def conclude(self, wanted: Wanted, found: Entry | Exception) -> "bytes | Wanted | None":
        """Answer with what came of `ask`, or say what else is wanted."""
        if isinstance(found, Entry):
            return self._conclude(wanted, found, "upstream", None)
        if isinstance(found, UpstreamError):
            return self._failed(wanted, found)
        raise found

    def _failed(self, wanted: Wanted, error: Exception) -> "bytes | Wanted | None":
        now = self._clock.now()
        if wanted.stale is not None:
            wanted.stale.retry_at = now + STALE_RETRY
        failure = self._cache.failure(wanted.key, now) or error_answer(
            Rcode.SERVFAIL, ExtendedError(Ede.NETWORK_ERROR, str(error))
        )
        return self._conclude(wanted, failure, "upstream", None)

    async def _follow(self, wanted: Wanted, verdict: Verdict) -> "bytes | Wanted | None":
        """Answer with policy's own alias and what its target has. Who goes before that policy judges the target too."""
        packet, client, query, view = wanted.packet, wanted.client, wanted.query, wanted.view
        target = alias_target(verdict, query)
        assert target is not None
        banned = _as_carried(judge_query(target, view, query.qtype), client)
        if banned is None or banned.passes or banned.rank >= verdict.rank:
            found = await self._look_up(target, query)
            at = self._clock.at()
            standing = self._standing_of(client, at)
            if standing.refusal or self._policy.view_of(standing, at) is not view:
                return self.begin(packet, client)
            elapsed = 0
            if isinstance(found, Entry):
                reached = Reached(found.answer.aliases, found.answer.targets, found.answer.addresses)
                banned = _as_carried(judge_answer(target, banned, reached, view, query.qtype), client)
                elapsed = int(self._clock.now() - found.stored)
                if _holds_ech(query, view):
                    found = replace(found, answer=without_ech(target, found.answer))
        if banned is not None and not banned.passes and banned.rank < verdict.rank:
            return self._enforce(packet, client, query, view, replace(banned, link=1), lasting=False)
        terms = view.generation.terms
        answer = rewritten_answer(query, verdict, target, found, elapsed, wanted.aliases, terms)
        return self._reply(packet, client, query, answer, view, verdict, "policy", lasting=False)

    async def _look_up(self, target: bytes, query: Query) -> Entry | Answer:
        """What a name has of the type that was asked for; one that stays here is answered here."""
        answer = self._special.answer(replace(query, qname=target))
        if answer is not None:
            return Entry(answer, self._clock.now(), 0.0, 0)
        return await self._forwarder.look_up(target, query.qtype, do=query.do, cd=bool(query.flags & CD))

    def busy(self, wanted: Wanted) -> bytes | None:
        """Answer a query that there is no room to wait for: with stale data where that is at hand, else SERVFAIL."""
        self._cells.counts[self._cells.index("overloads")] += 1
        failure = error_answer(Rcode.SERVFAIL, ExtendedError(Ede.OTHER, "too many questions under way"))
        if wanted.alias is None:
            outcome = self._conclude(wanted, failure, "local", None)
            if not isinstance(outcome, Wanted):
                return outcome
        return self._reply(wanted.packet, wanted.client, wanted.query, failure, wanted.view, wanted.alias, "local")

    def _conclude(
        self, wanted: Wanted, found: Entry | Answer, source: str, name_servers: "_NameServersOf | None"
    ) -> "bytes | Wanted | None":
        """Give the entry that was found; in place of a failure (an Answer) rather stale data (RFC 8767 §5)."""
        query = wanted.query
        # The policy may have changed while we waited: the answer is judged by what is in force now, not then.
        at = self._clock.at()
        view = wanted.view
        # Who showed nothing of himself stands as the generation says, until its next moment.
        if wanted.client.credentials is not None or not self._policy.holds(view, at):
            standing = self._standing_of(wanted.client, at)
            if standing.refusal:
                return self._refuse(wanted.packet, wanted.client, query, standing)
            view = self._policy.view_of(standing, at)
            if standing.client.device != wanted.client.device:
                wanted = replace(wanted, client=standing.client)
        if view is not wanted.view:
            verdict = _as_carried(judge_query(query.qname, view, query.qtype), wanted.client)
            wanted, name_servers = replace(wanted, view=view, verdict=verdict), None  # found as the old view wants them
            if verdict is not None and is_settled(verdict, view):
                return self._enforce(wanted.packet, wanted.client, query, view, verdict)
        if isinstance(found, Entry):
            return self._judged(wanted, found, source, name_servers)
        if wanted.stale is not None:
            return self._stale(wanted, name_servers)
        return self._unanswered(wanted, found, source)

    def _standing_of(self, client: Client, at: float) -> Standing:
        """What a client counts as now, under the policy of now."""
        self._policy.turn(at)
        return self._policy.standing_of(client, at)

    def _count_stranger(self, standing: Standing) -> None:
        if standing.stranger is not None:
            self._cells.counts[self._cells.index("unknown_devices", standing.stranger)] += 1

    def _refuse(self, packet: bytes, client: Client, query: Query, standing: Standing) -> bytes:
        self._count_stranger(standing)
        refusal = error_answer(Rcode.REFUSED, ExtendedError(Ede.PROHIBITED, standing.refusal))
        return self._reply(packet, client, query, refusal, None, None, "error")

    def _unanswered(self, wanted: Wanted, failure: Answer, source: str) -> "bytes | Wanted | None":
        """Say that nobody could answer; a verdict that waited for the answer acts instead."""
        if wanted.verdict is not None and not wanted.verdict.passes:
            return self._enforce(wanted.packet, wanted.client, wanted.query, wanted.view, wanted.verdict, lasting=False)
        return self._reply(wanted.packet, wanted.client, wanted.query, failure, wanted.view, wanted.verdict, source)

    def _stale(self, wanted: Wanted, name_servers: "_NameServersOf | None" = None) -> "bytes | Wanted | None":
        assert wanted.stale is not None
        self._count_cache("stale")
        answer = self._cache.stale(wanted.stale)
        code = Ede.STALE_NXDOMAIN_ANSWER if answer.rcode == Rcode.NXDOMAIN else Ede.STALE_ANSWER
        marked = replace(answer, authentic=False, errors=(ExtendedError(code),))
        entry = Entry(marked, self._clock.now(), 0.0, 0)
        return self._judged(wanted, entry, "stale", name_servers)

    def _judged(
        self, wanted: Wanted, entry: Entry, source: str, name_servers: "_NameServersOf | None"
    ) -> "bytes | Wanted | None":
        """Judge an answer by what it leads to, and give it or what policy puts in its place.

        Where the view has rules on name servers and these are not known (None), they are wanted first.
        """
        packet, client, query, view = wanted.packet, wanted.client, wanted.query, wanted.view
        answer, verdict = entry.answer, wanted.verdict
        # Orders look at names alone: where nothing but addresses was reached, there is nothing to judge without zones.
        if answer.aliases or answer.targets or view.zones or (answer.addresses and verdict is not None):
            reached = Reached(answer.aliases, answer.targets, answer.addresses, name_servers or {})
            found = judge_answer(query.qname, verdict, reached, view, query.qtype)
            if view.follows_nameservers and name_servers is None and not _goes_before_zones(found):
                return replace(wanted, stale=None, entry=entry, source=source)
            verdict = _as_carried(found, client)
            if verdict is not None and not verdict.passes:
                return self._enforce(packet, client, query, view, verdict, aliases=answer.aliases, lasting=False)
        if _holds_ech(query, view):
            entry = replace(entry, answer=without_ech(query.qname, answer))
        return self._reply(packet, client, query, entry.answer, view, verdict, source, entry)

    def _enforce(
        self,
        packet: bytes,
        client: Client,
        query: Query,
        view: View,
        verdict: Verdict,
        *,
        aliases: tuple[bytes, ...] = (),
        lasting: bool = True,
    ) -> "bytes | Wanted | None":
        """Give what policy puts in the answer's place; `lasting` where QNAME alone decided, whatever upstreams say."""
        if verdict.action is Action.DROP:
            self._record(client, query, view, verdict, None)
            self._count(client, view.group, query, None, "policy", verdict)
            return None
        if alias_target(verdict, query) is not None:
            return Wanted(packet, client, query, b"", view, None, alias=verdict, aliases=aliases)
        answer = policy_answer(query, verdict, view.generation.terms, view.generation.serial, aliases)
        return self._reply(packet, client, query, answer, view, verdict, "policy", lasting=lasting)

    def _reply(
        self,
        packet: bytes,
        client: Client,
        query: Query,
        answer: Answer,
        view: View | None,
        verdict: Verdict | None,
        source: str,
        entry: Entry | None = None,
        lasting: bool = True,
    ) -> bytes:
        """Write the reply, count it, record a hit, and let the hot memo learn what will be true again."""
        # 6. Put it together, at age 0, and let it age as the memo would, by the same function.
        reply = write_reply(
            query,
            answer,
            over_udp=client.over_udp,
            nsid=self._identity(query),
            encrypted=client.transport.is_encrypted,
            keepalive=self._keepalive.get(client.transport),
        )
        said = reply[2:]
        ttls: tuple[tuple[int, int], ...] = ()
        out = reply
        if entry is not None and not reply[2] & TC >> 8:
            shift = HEADER_OCTETS - 2 + len(query.question)
            ttls = tuple([(at + shift, ttl) for at, ttl in answer.ttls])
            elapsed = int(self._clock.now() - entry.stored)
            if elapsed:
                out = reply[:2] + age(said, ttls, elapsed)

        # 7. Count and record, before the octets leave: a hit is in the spool before its answer is done.
        group = view.group if view is not None else ""
        self._count(client, group, query, answer.rcode, source, verdict)
        template = None
        if verdict is not None and view is not None and verdict.is_hit:
            template = self._record(client, query, view, verdict, answer.rcode)

        # What may be said again unchanged: an answer to an allowed client that only its expiry or a policy change ends.
        if view is not None and entry is None:
            lasting = lasting and source in ("policy", "special")
        elif view is not None and entry is not None:
            # What name servers had a part in may change before the answer expires.
            lasting = source in ("cache", "upstream") and bool(ttls) and entry.expires > entry.stored
            lasting = lasting and (not view.follows_nameservers or _is_free(verdict))
        if lasting and view is not None:
            cell = self._query_cell(client, group, query, answer.rcode, "ready", verdict)
            prefix, tail = (template.prefix, template.tail) if template is not None else (b"", b"")
            until, stored = (entry.expires, entry.stored) if entry is not None else (NEVER, 0.0)
            if not client.is_batched:
                if is_repeated(query):
                    self._policy.said.put(view, client, packet, Said(said, cell, until, stored, ttls, prefix, tail))
            # Datagrams without options: a cookie makes each one unlike any other.
            elif not query.has_options and (memo := self._policy.memo_of(client, view)) is not None:
                memo.put(packet[2:], Ready(said, cell, until, stored, ttls, prefix, tail))
                if verdict is not None and template is not None:
                    learn_template(memo, view, query, verdict, reply, template, cell)
        return out

    def _identity(self, query: Query) -> bytes:
        if not query.wants_nsid:
            return b""
        return self._nsid + b", generation " + self._policy.generation.label.encode()

    def _record(self, client: Client, query: Query, view: View, verdict: Verdict, rcode: int | None) -> HitTemplate:
        template = hit_template(
            generation=view.generation.serial,
            group=view.group,
            transport=client.transport,
            qname=names.to_text(query.qname),  # lower-cased: one name is one name to whoever counts
            qtype=rtype_text(query.qtype),
            order=verdict.order.id,
            app=verdict.app.id,
            rule=verdict.rule,
            action=verdict.action.value,
            rcode="" if rcode is None else rcode_text(rcode),
            ede=int(verdict.ede) if not verdict.passes and rcode is not None else None,
            mode="exempt" if verdict.exemption else verdict.mode.value,
            device=client.device,
        )
        at = self._clock.at()
        stamp = int(at * 1_000_000).to_bytes(8, "little")
        self._spool(template.prefix + stamp + client.sockaddr + template.tail, 1, at)
        return template

    def _count(
        self, client: Client, group: str, query: Query, rcode: int | None, source: str, verdict: Verdict | None
    ) -> None:
        self._cells.counts[self._query_cell(client, group, query, rcode, source, verdict)] += 1

    def _query_cell(
        self, client: Client, group: str, query: Query, rcode: int | None, source: str, verdict: Verdict | None
    ) -> int:
        if verdict is not None and verdict.is_hit:
            mode = "exempt" if verdict.exemption else verdict.mode.value
            hit = verdict.order.id, verdict.app.id, verdict.action.value, mode
            return self._make_query_cell(client.transport, group, query.qtype, rcode, source, hit)
        key = client.transport, group, query.qtype, rcode, source
        cell = self._query_cells.get(key)
        if cell is None:
            if len(self._query_cells) >= _MAX_QUERY_CELLS:
                self._query_cells.clear()
            cell = self._query_cells[key] = self._make_query_cell(*key, ("", "", "", ""))
        return cell

    def _make_query_cell(
        self, transport: Transport, group: str, qtype: int, rcode: int | None, source: str, hit: tuple[str, ...]
    ) -> int:
        code = "none" if rcode is None else rcode_text(rcode)
        return self._cells.index("query", transport, group, rtype_class(qtype), code, source, *hit)

    def cells_of(self, group: str, qtype: int, rcode: int) -> tuple[int, int]:
        """The counters of answers over UDP that no rule has a say in: by an upstream, and from the hot memo."""
        no_hit = ("", "", "", "")
        upstream = self._make_query_cell(Transport.UDP, group, qtype, rcode, "upstream", no_hit)
        return upstream, self._make_query_cell(Transport.UDP, group, qtype, rcode, "ready", no_hit)

    def _count_cache(self, event: str) -> None:
        self._cells.counts[self._cells.index("cache", event)] += 1


_NameServersOf = dict[bytes, tuple[tuple[bytes, ...], tuple[bytes, ...]]]


def _as_carried(verdict: Verdict | None, client: Client) -> Verdict | None:
    """The verdict as it stands over the client's transport: who came over TCP, as TCP_ONLY wants it, passes."""
    if verdict is not None and verdict.action is Action.TCP_ONLY and not client.over_udp:
        return replace(verdict, action=Action.PASSTHRU)
    return verdict


def _goes_before_zones(verdict: Verdict | None) -> bool:
    """Whether an order or an own rule has decided, so that what zones know of name servers does not matter."""
    return (
        verdict is not None
        and verdict.enforced
        and verdict.rank <= ORDER_RANK
        and not (verdict.passes and verdict.link)
    )


def _holds_ech(query: Query, view: View) -> bool:
    return view.strips_ech and query.qtype in (Rtype.HTTPS, Rtype.SVCB)


def _is_free(verdict: Verdict | None) -> bool:
    """Whether the operator let the query pass, whatever it leads to."""
    return verdict is not None and verdict.enforced and verdict.rank == 0
