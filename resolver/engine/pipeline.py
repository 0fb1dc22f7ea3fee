"""THE path of a query. Every query walks it, by whatever transport it came; only a datagram that repeats one answered
before is answered earlier, by the hot memo, with the very octets that were learned here.

The order of the steps is the product's promise, so it is argued beside the lines. `begin` goes as far as one can go
without waiting; then `finish` waits for an upstream, or `busy` answers where there is no room to wait. A reply is
octets; None is silence.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from resolver.engine.cache import Cache, Entry, cache_key
from resolver.engine.forwarder import Clock, Forwarder, UpstreamError
from resolver.engine.inforce import PolicyInForce
from resolver.engine.special import SpecialNames
from resolver.hot._batch_cy import NEVER, Ready
from resolver.hot._scan_cy import age
from resolver.observe.cells import Cells
from resolver.observe.record import HitTemplate, hit_template
from resolver.policy.documents import Action, Mode
from resolver.policy.generation import PolicyTerms, View
from resolver.policy.judge import Verdict, judge_answer, judge_query
from resolver.wire import name as names
from resolver.wire.codes import Ede, Rclass, Rcode, Rtype, rcode_text, rtype_class, rtype_text
from resolver.wire.compose import error_answer, negative_answer, rdata, records_answer, write_reply
from resolver.wire.message import CD, RD, TC, Answer, ExtendedError, Query, WireError, read_query

STALE_WAIT = 1.8  # seconds a client waits for fresh data while stale data is at hand (RFC 8767 §5)
STALE_RETRY = 30.0  # seconds after a failed refresh during which stale data is given at once (RFC 8767 §5)


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks, and how.

    `address` is 4 or 16 octets; `sockaddr` is the 28 octets that go into hit records.
    """

    address: bytes
    sockaddr: bytes
    transport: str  # udp or tcp

    @property
    def over_udp(self) -> bool:
        """Whether replies are bound by a datagram's size."""
        return self.transport == "udp"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A query that needs an upstream's answer, with all that was found out about it so far."""

    packet: bytes
    client: Client
    query: Query
    key: bytes  # what the answer is filed under
    view: View
    stale: Entry | None
    observed: Verdict | None


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
            nsid: This server's identity (RFC 5001 §2.3).
        """
        self._policy = policy
        self._special = special
        self._cache = cache
        self._forwarder = forwarder
        self._cells = cells
        self._spool = spool
        self._clock = clock
        self._nsid = nsid

    def begin(self, packet: bytes, client: Client) -> "bytes | Wanted | None":
        """Answer a message, or say what is wanted of an upstream first."""
        # 2. What was asked? Before anything else, since whatever can not be read can not be judged, and what is no
        # query (a response, a fragment of a header) must get silence from every later step.
        try:
            query = read_query(packet)
        except WireError as error:
            if error.query is None or error.rcode is None:
                self._cells.counts[self._cells.index("dropped", client.transport, error.reason)] += 1
                return None
            return self._reply(packet, client, error.query, error_answer(error.rcode), None, None, "error")

        # Who asks? Before policy, so that a stranger can not find out by asking whom an order binds.
        at = self._clock.at()
        self._policy.turn(at)
        if not self._policy.generation.is_allowed(client.address):
            refusal = error_answer(Rcode.REFUSED, ExtendedError(Ede.PROHIBITED, "client address is not allowed"))
            return self._reply(packet, client, query, refusal, None, None, "error")

        # 3. What does policy say? Before special names, cache and upstreams: a settled verdict goes nowhere else, and
        # the same for every QTYPE and class, so that no HTTPS or CHAOS question is a way round.
        view = self._policy.view_of(client.address, at)
        verdict = judge_query(query.qname, view)
        if verdict is not None and verdict.mode is Mode.ENFORCE:
            return self._enforce(packet, client, query, view, verdict, verdict.owner_offset)

        # Names that stay here. Before the RD check, since these answers need nobody else.
        answer = self._special.answer(query)
        if answer is not None:
            return self._reply(packet, client, query, answer, view, verdict, "special")
        if not query.flags & RD:
            # A forwarder has nothing of its own to say to "do not recurse", and what others asked is not told
            # (cache snooping). RFC 8914 §4.21.
            refusal = error_answer(Rcode.REFUSED, ExtendedError(Ede.NOT_AUTHORITATIVE, "recursion not asked for"))
            return self._reply(packet, client, query, refusal, view, verdict, "local")

        # 4. Do we know? The cache stands behind policy and is judged again on the way out.
        now = self._clock.now()
        key = cache_key(query.qname, query.qtype, do=query.do, cd=bool(query.flags & CD))
        entry = self._cache.get(key, now)
        if entry is not None and entry.expires > now:
            self._count_cache("hit")
            return self._judged(packet, client, query, view, verdict, entry, "cache")
        if entry is None:
            failure = self._cache.failure(key, now)
            if failure is not None:
                self._count_cache("failure")
                told = replace(failure, errors=(*failure.errors, ExtendedError(Ede.CACHED_ERROR)))
                return self._reply(packet, client, query, told, view, verdict, "cache")
        elif entry.retry_at > now:
            return self._stale(Wanted(packet, client, query, key, view, entry, verdict))
        self._count_cache("miss")
        return Wanted(packet, client, query, key, view, entry, verdict)

    async def finish(self, wanted: Wanted) -> bytes | None:
        """Answer with what an upstream says, or with what it said before where it says nothing now."""
        # 5. Ask. The question may already be under way for another client; the answer is the same, the verdict need not
        # be.
        query, stale = wanted.query, wanted.stale
        task = self._forwarder.fetch(wanted.key, query.qname, query.qtype, do=query.do, cd=bool(query.flags & CD))
        if task is None:
            return self.busy(wanted)
        try:
            if stale is None:
                entry = await asyncio.shield(task)
            else:
                entry = await asyncio.wait_for(asyncio.shield(task), STALE_WAIT)
        except (UpstreamError, TimeoutError) as error:
            now = self._clock.now()
            if stale is not None:
                stale.retry_at = now + STALE_RETRY
            failure = self._cache.failure(wanted.key, now) or error_answer(
                Rcode.SERVFAIL, ExtendedError(Ede.NETWORK_ERROR, str(error))
            )
            return self._conclude(wanted, failure, "upstream")
        return self._conclude(wanted, entry, "upstream")

    def busy(self, wanted: Wanted) -> bytes | None:
        """Answer a query that there is no room to wait for: with stale data where that is at hand, else SERVFAIL."""
        self._cells.counts[self._cells.index("overloads")] += 1
        failure = error_answer(Rcode.SERVFAIL, ExtendedError(Ede.OTHER, "too many questions under way"))
        return self._conclude(wanted, failure, "local")

    def _conclude(self, wanted: Wanted, found: Entry | Answer, source: str) -> bytes | None:
        """Give the entry that was found; in place of a failure (an Answer) rather stale data (RFC 8767 §5)."""
        query = wanted.query
        # The policy may have changed while we waited: the answer is judged by what is in force now, not then.
        at = self._clock.at()
        self._policy.turn(at)
        view = self._policy.view_of(wanted.client.address, at)
        if view is not wanted.view:
            verdict = judge_query(query.qname, view)
            if verdict is not None and verdict.mode is Mode.ENFORCE:
                return self._enforce(wanted.packet, wanted.client, query, view, verdict, verdict.owner_offset)
            wanted = replace(wanted, view=view, observed=verdict)
        if isinstance(found, Entry):
            return self._judged(wanted.packet, wanted.client, query, view, wanted.observed, found, source)
        if wanted.stale is not None:
            return self._stale(wanted)
        return self._reply(wanted.packet, wanted.client, query, found, view, wanted.observed, source)

    def _stale(self, wanted: Wanted) -> bytes | None:
        assert wanted.stale is not None
        self._count_cache("stale")
        answer = self._cache.stale(wanted.stale)
        code = Ede.STALE_NXDOMAIN_ANSWER if answer.rcode == Rcode.NXDOMAIN else Ede.STALE_ANSWER
        marked = replace(answer, authentic=False, errors=(ExtendedError(code),))
        entry = Entry(marked, self._clock.now(), 0.0, 0)
        return self._judged(wanted.packet, wanted.client, wanted.query, wanted.view, wanted.observed, entry, "stale")

    def _judged(
        self,
        packet: bytes,
        client: Client,
        query: Query,
        view: View,
        verdict: Verdict | None,
        entry: Entry,
        source: str,
    ) -> bytes | None:
        """Judge an answer by the names it leads to, and give it or what policy puts in its place."""
        answer = entry.answer
        if answer.targets:
            found = judge_answer(answer.targets, view)
            if found is not None and found.mode is Mode.ENFORCE:
                return self._enforce(packet, client, query, view, found, 0, lasting=False)
            verdict = verdict or found
        return self._reply(packet, client, query, answer, view, verdict, source, entry)

    def _enforce(
        self,
        packet: bytes,
        client: Client,
        query: Query,
        view: View,
        verdict: Verdict,
        apex: int,
        lasting: bool = True,
    ) -> bytes | None:
        """Give what policy puts in the answer's place; `lasting` where QNAME alone decided, whatever upstreams say."""
        if verdict.action is Action.DROP:
            self._record(client, query, view, verdict, None)
            self._count(client, view.group, query, None, "policy", verdict)
            return None
        answer = policy_answer(query, verdict, view.generation.terms, view.generation.serial, apex)
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
        reply = write_reply(query, answer, over_udp=client.over_udp, nsid=self._nsid)
        shift = 12 + len(query.question)
        ttls = (
            tuple((at + shift, ttl) for at, ttl in answer.ttls) if entry is not None and not reply[2] & TC >> 8 else ()
        )
        out = reply
        if entry is not None:
            out = age(reply, ttls, int(self._clock.now() - entry.stored))

        # 7. Count and record, before the octets leave: a hit is in the spool before its answer is done.
        group = view.group if view is not None else ""
        self._count(client, group, query, answer.rcode, source, verdict)
        template = None
        if verdict is not None and view is not None:
            template = self._record(client, query, view, verdict, answer.rcode)

        # What the memo may learn: datagrams without options (a cookie or padding makes each one unlike any other), of
        # allowed clients, with an answer that only its expiry or a policy change ends.
        if client.over_udp and view is not None and not query.has_options:
            if entry is None:
                lasting = lasting and source in ("policy", "special")
            else:
                lasting = source in ("cache", "upstream") and bool(ttls) and entry.expires > entry.stored
            if lasting:
                memo = self._policy.memo_of(client.address, view)
                if memo is not None:
                    memo.put(
                        packet[2:],
                        Ready(
                            reply[2:],
                            self._query_cell(client, group, query, answer.rcode, "ready", verdict),
                            entry.expires if entry is not None else NEVER,
                            entry.stored if entry is not None else 0.0,
                            tuple((at - 2, ttl) for at, ttl in ttls),
                            template.prefix if template else b"",
                            template.tail if template else b"",
                        ),
                    )
        return out

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
            ede=int(verdict.ede) if verdict.mode is Mode.ENFORCE and rcode is not None else None,
            mode=verdict.mode.value,
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
        found = (
            (verdict.order.id, verdict.app.id, verdict.action.value, verdict.mode.value)
            if verdict
            else ("", "", "", "")
        )
        code = "none" if rcode is None else rcode_text(rcode)
        return self._cells.index("query", client.transport, group, rtype_class(query.qtype), code, source, *found)

    def _count_cache(self, event: str) -> None:
        self._cells.counts[self._cells.index("cache", event)] += 1


def policy_answer(query: Query, verdict: Verdict, terms: PolicyTerms, serial: int, apex: int) -> Answer:
    """What is said in place of the answer that an order forbids.

    Args:
        query: The question.
        verdict: What policy said about it.
        terms: Block TTL and sinkhole addresses.
        serial: The generation's, for the SOA.
        apex: Where in QNAME the policy zone's name begins: at the rule's name, or at QNAME itself where the rule was
            met along the chain.
    """
    errors = (ExtendedError(int(verdict.ede), verdict.extra_text),)
    if verdict.action is Action.REFUSED:
        return error_answer(Rcode.REFUSED, *errors)
    if query.qclass != Rclass.IN:
        # SOA and sinkhole addresses are records of class IN; in another class the RCODE says all there is to say.
        return error_answer(Rcode.NXDOMAIN if verdict.action is Action.NXDOMAIN else Rcode.NOERROR, *errors)
    if verdict.action is Action.NXDOMAIN:
        return negative_answer(Rcode.NXDOMAIN, apex, terms.block_ttl, serial, errors)
    if verdict.action is Action.SINKHOLE:
        records: list[tuple[Rtype, bytes]] = []
        if query.qtype == Rtype.A:
            records = [(Rtype.A, rdata(Rtype.A, address)) for address in terms.sinkhole_ipv4]
        elif query.qtype == Rtype.AAAA:
            records = [(Rtype.AAAA, rdata(Rtype.AAAA, address)) for address in terms.sinkhole_ipv6]
        if records:
            return records_answer(records, terms.block_ttl, errors)
    return negative_answer(Rcode.NOERROR, apex, terms.block_ttl, serial, errors)
