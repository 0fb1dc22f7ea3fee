"""The way to the upstreams: who is asked, how often, for how long, and what counts as an answer."""

import asyncio
import contextlib
from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode
import pytest

from resolver.engine.cache import FAILURE_TTL, Cache, CacheTerms, Entry, cache_key
from resolver.engine.forwarder import LONGEST_REST, OWN_STALE_WAIT, Forwarder, ForwarderTerms, Upstream, UpstreamError
from resolver.wire import name as names
from resolver.wire.codes import Ede, Rtype
from resolver.wire.message import Answer
from tests.support.clock import FakeClock, run
from tests.support.house import Roof
from tests.support.upstream import FakeExchange, React, Said, fails, records, refuses, reply, silent

WWW = names.from_text("www.example.org")
ANSWER = ["www.example.org 60 IN A 192.0.2.1"]
GOOD = records({"www.example.org A": ANSWER})


@pytest.fixture(autouse=True, params=[True, False], ids=["without a task", "in a task"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstreams are asked in both ways, with the same outcome."""
    monkeypatch.setattr(FakeExchange, "posts", request.param)


class Bench:
    """A forwarder with its surroundings."""

    def __init__(self, *reacts: React, terms: ForwarderTerms | None = None, trust_ad: bool = False) -> None:
        self.clock = FakeClock()
        self.roof = Roof()
        self.exchanges = [FakeExchange(react, f"192.0.2.{n}:53") for n, react in enumerate(reacts, 1)]
        self.cache = Cache(CacheTerms())
        self.upstreams = [Upstream(exchange, trust_ad) for exchange in self.exchanges]
        self.forwarder = Forwarder(
            self.upstreams, self.cache, terms or ForwarderTerms(), self.clock, self.roof, self.roof.spawn
        )

    async def fetch(self, qname: bytes = WWW, qtype: int = Rtype.A, *, do: bool = False, cd: bool = False) -> Entry:
        task = self.start(qname, qtype, do=do, cd=cd)
        assert task is not None
        return await task

    def start(
        self, qname: bytes = WWW, qtype: int = Rtype.A, *, do: bool = False, cd: bool = False
    ) -> asyncio.Future[Entry] | None:
        """Begin to fetch, where there is room."""
        return self.forwarder.fetch(cache_key(qname, qtype, do=do, cd=cd), qname, qtype, do=do, cd=cd)

    def once(self, qtype: int = Rtype.A) -> tuple[Entry | UpstreamError, float]:
        """Fetch once; returns what came of it and after how many seconds."""
        started = self.clock.now()

        async def story() -> Entry | UpstreamError:
            try:
                return await self.fetch(qtype=qtype)
            except UpstreamError as error:
                return error

        return run(self.clock, story()), self.clock.now() - started

    def asked(self) -> list[int]:
        """How often each upstream was asked."""
        return [len(exchange.asked) for exchange in self.exchanges]


def test_many_who_ask_the_same_wait_for_one_question() -> None:
    """A hundred clients, one question to one upstream, one answer for all."""
    bench = Bench(GOOD)

    async def story() -> list[Entry]:
        return await asyncio.gather(*(bench.fetch() for _ in range(100)))

    entries = run(bench.clock, story())

    assert bench.asked() == [1]
    assert {id(entry) for entry in entries} == {id(entries[0])}
    assert len(bench.forwarder) == 0


@pytest.mark.parametrize(
    ("qtype", "do", "cd"), [(Rtype.AAAA, False, False), (Rtype.A, True, False), (Rtype.A, False, True)]
)
def test_different_questions_do_not_share_an_answer(qtype: int, do: bool, cd: bool) -> None:
    """Another QTYPE, DO or CD is another question, and goes out as it was asked."""
    bench = Bench(GOOD)

    async def story() -> None:
        await asyncio.gather(bench.fetch(), bench.fetch(qtype=qtype, do=do, cd=cd))

    run(bench.clock, story())

    (_, first), (_, second) = bench.exchanges[0].asked
    assert (bool(first.ednsflags & dns.flags.DO), bool(first.flags & dns.flags.CD)) == (False, False)
    assert second.question[0].rdtype == qtype
    assert (bool(second.ednsflags & dns.flags.DO), bool(second.flags & dns.flags.CD)) == (do, cd)


def test_a_waiting_client_that_goes_away_takes_nothing_from_the_others() -> None:
    """The question goes on for whoever still waits."""
    bench = Bench(records({"www.example.org A": ANSWER}, delay=0.5))

    async def story() -> Entry:
        task = bench.start()
        assert task is not None
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), 0.1)
        return await bench.fetch()

    assert run(bench.clock, story()).answer.counts == (1, 0, 0)
    assert bench.asked() == [1]


def test_no_more_questions_than_the_limit_are_under_way() -> None:
    """Over the limit a new question is not taken; one that is under way may still be joined."""
    bench = Bench(silent, terms=ForwarderTerms(pending=2))

    async def story() -> list[bool]:
        taken = [bench.start(b"\1" + bytes([n]) + b"\0") is not None for n in (65, 66, 67, 65)]
        await asyncio.sleep(60)
        taken.append(bench.start(b"\1c\0") is not None)
        await asyncio.sleep(60)
        return taken

    assert run(bench.clock, story()) == [True, True, False, True, True]


BROKEN = {"silent": silent, "refuses": refuses, **{rcode: fails(rcode) for rcode in ("SERVFAIL", "REFUSED", "NOTIMP")}}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_when_one_upstream_fails_the_next_one_answers(broken: React) -> None:
    """Silence, a closed port, or an RCODE that says nothing about the name: the client gets the other's answer."""
    bench = Bench(broken, GOOD)

    entry, seconds = bench.once()

    assert isinstance(entry, Entry)
    assert entry.answer.counts == (1, 0, 0)
    assert seconds < 1.0


def test_an_upstream_that_fails_three_times_rests_and_is_tried_again() -> None:
    """While it rests only the other one is asked; afterwards one question tries it; one good reply ends its rest."""
    bench = Bench(silent, GOOD)
    names_asked = [names.from_text(f"n{n}.example.org") for n in range(20)]

    async def story() -> list[list[int]]:
        seen = []
        for qname in names_asked[:6]:
            await bench.fetch(qname)
            seen.append(bench.asked())
        await asyncio.sleep(1.0)
        await bench.fetch(names_asked[6])
        seen.append(bench.asked())
        bench.exchanges[0].react = GOOD
        await bench.fetch(names_asked[7])
        seen.append(bench.asked())
        await asyncio.sleep(2.0)
        await bench.fetch(names_asked[8])
        seen.append(bench.asked())
        return seen

    seen = run(bench.clock, story())

    assert [asked[0] for asked in seen] == [1, 2, 3, 3, 3, 3, 4, 4, 5]
    assert [asked[1] for asked in seen] == [1, 2, 3, 4, 5, 6, 7, 8, 8]
    states = [report for report in bench.roof.reports if report[0] == "192.0.2.1:53" and report[1] in ("up", "down")]
    assert [state for _, state in states] == ["up", "up", "down", "down", "up"]


def rested(*reacts: React) -> Bench:
    """A bench whose first upstream failed four times in a row and has just rested."""
    bench = Bench(*reacts)
    for seconds in (0.0, 0.1, 0.1, 1.0):
        bench.clock.advance(seconds)
        bench.upstreams[0].failed(bench.clock.now())
    bench.clock.advance(bench.upstreams[0].rest_until - bench.clock.now())
    return bench


def many(bench: Bench, times: int = 1, pause: float = 0.0) -> list[float]:
    """Ask ten questions at one time, several times; returns how many seconds each of them took."""

    async def one(n: int) -> float:
        started = bench.clock.now()
        with contextlib.suppress(UpstreamError):
            await bench.fetch(names.from_text(f"n{n}.example.org"))
        return bench.clock.now() - started

    async def story() -> list[float]:
        seconds = []
        for k in range(times):
            seconds += await asyncio.gather(*(one(10 * k + n) for n in range(10)))
            await asyncio.sleep(pause)
        return seconds

    return run(bench.clock, story())


def test_at_the_end_of_a_rest_one_question_finds_out() -> None:
    """A dead upstream costs one client its patience, not all who ask at that moment; its rest is then longer."""
    bench = rested(silent, GOOD)
    ended = bench.clock.now()

    seconds = many(bench)

    assert bench.asked() == [1, 10]
    assert sorted(s > 0.5 for s in seconds) == [False] * 9 + [True]
    assert bench.upstreams[0].rest_until == pytest.approx(ended + 0.8 + 4.0)


@pytest.mark.parametrize("broken", [silent, refuses, fails()], ids=["silent", "refuses", "SERVFAIL"])
def test_others_pass_an_upstream_by_that_is_being_tried_wherever_it_stands(broken: React) -> None:
    """Also where all of them come to it at once, after the one that they asked first."""
    bench = rested(broken, refuses, GOOD)
    bench.upstreams[0].rtt, bench.upstreams[1].rtt, bench.upstreams[2].rtt = 0.02, 0.01, 0.03

    many(bench)

    assert bench.asked() == [1, 10, 10]


@pytest.mark.parametrize("broken", [silent, refuses], ids=["silent", "refuses"])
def test_an_only_upstream_is_asked_by_all_though_it_rests(broken: React) -> None:
    """Nobody else is left to ask; a failed trial lengthens the rest once, however many failed with it."""
    bench = rested(broken)

    many(bench)

    assert bench.asked() == [20]
    assert bench.upstreams[0].failures == 5
    bench.exchanges[0].react = GOOD
    many(bench)
    assert bench.asked() == [30]
    assert (bench.upstreams[0].failures, bench.upstreams[0].rest_until) == (0, 0)


def test_an_upstream_that_is_back_is_used_by_all_again() -> None:
    """The one good reply to the question that tried it ends the rest for everybody."""
    bench = rested(GOOD, records({}, delay=0.2))

    many(bench, times=2)

    assert bench.asked() == [11, 9]


def test_an_upstream_that_is_back_but_could_not_say_is_tried_with_the_next_question() -> None:
    """SERVFAIL for one name is a sign of life: it is passed by no longer than that took, and asked of others soon."""

    def could_not_say(query: dns.message.Message, transport: str) -> list[Said]:
        return fails()(query, transport) if len(bench.exchanges[0].asked) == 1 else GOOD(query, transport)

    bench = rested(could_not_say, GOOD)

    many(bench, times=2)

    assert bench.asked()[0] == 2
    assert bench.upstreams[0].rest_until == 0


def test_the_rest_grows_to_its_bound_and_no_further() -> None:
    """1, 2, 4 … 30 seconds, however often it fails; an upstream may be away for weeks."""
    bench = Bench(silent)
    upstream = bench.upstreams[0]
    now, rests = 0.0, []

    for _ in range(3000):
        upstream.failed(now)
        if upstream.rest_until > now:
            rests.append(upstream.rest_until - now)
            now = upstream.rest_until

    assert rests[:6] == [1, 2, 4, 8, 16, LONGEST_REST]
    assert set(rests[6:]) == {LONGEST_REST}


def test_a_burst_of_failures_counts_once() -> None:
    """A hundred questions that were lost in the same moment are one sign, not a hundred."""
    bench = Bench(silent)
    upstream = bench.upstreams[0]

    for _ in range(100):
        upstream.failed(10.0)

    assert upstream.rest_until == 11.0


def test_an_upstream_at_rest_is_asked_when_nobody_else_is_left() -> None:
    """With one upstream, resting must not mean silence: its return is seen with the next question."""
    bench = Bench(silent)
    for _ in range(5):
        bench.upstreams[0].failed(bench.clock.now())
    bench.exchanges[0].react = GOOD

    entry, _ = bench.once()

    assert isinstance(entry, Entry)
    assert bench.upstreams[0].rest_until == 0


def test_the_faster_upstream_is_preferred_once_both_are_known() -> None:
    """Each is tried, then the one with the shorter round trip gets the questions."""
    slow = records({}, delay=0.2)
    fast = records({}, delay=0.01)
    bench = Bench(slow, fast)

    async def story() -> None:
        for n in range(10):
            await bench.fetch(names.from_text(f"n{n}.example.org"))

    run(bench.clock, story())

    assert bench.asked() == [1, 9]


def wrong_id(query: dns.message.Message) -> bytes:
    octets = bytearray(reply(query, ANSWER))
    octets[0] ^= 0xFF
    return bytes(octets)


def other_question(query: dns.message.Message) -> bytes:
    made = dns.message.make_query("www.example.com", "A", id=query.id)
    return reply(made, ["www.example.com 60 IN A 198.51.100.66"])


def other_type(query: dns.message.Message) -> bytes:
    return reply(dns.message.make_query("www.example.org", "AAAA", id=query.id))


WRONG: dict[str, Callable[[dns.message.Message], bytes]] = {
    "wrong id": wrong_id,
    "other name": other_question,
    "other type": other_type,
    "a query": lambda query: query.to_wire(),
    "cut short": lambda query: reply(query, ANSWER)[:-5],
    "one octet more": lambda query: reply(query, ANSWER) + b"\0",
    "a header only": lambda query: reply(query, ANSWER)[:12],
    "nothing": lambda query: b"",
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_reply_that_does_not_belong_is_ignored(wrong: Callable[[dns.message.Message], bytes]) -> None:
    """It neither answers nor ends the wait: the true reply that follows does (RFC 5452 §9)."""
    bench = Bench(lambda query, transport: [Said(wrong(query), 0.01), Said(reply(query, ANSWER), 0.05)])

    entry, seconds = bench.once()

    assert isinstance(entry, Entry)
    assert entry.answer.body.endswith(bytes([192, 0, 2, 1]))
    assert seconds == pytest.approx(0.05)
    assert bench.asked() == [1]


@pytest.mark.parametrize("qtype", [n for n in range(1, 300) if n not in (Rtype.OPT, Rtype.TSIG)])
def test_a_reply_of_every_type_is_taken(qtype: int) -> None:
    """No number of a QTYPE makes the reply look like another question's."""
    bench = Bench(lambda query, transport: [Said(reply(query))])

    entry, _ = bench.once(qtype)

    assert isinstance(entry, Entry)


def test_letter_case_in_the_reply_makes_no_difference() -> None:
    """Names are equal whatever their case (RFC 4343 §3)."""

    def shouting(query: dns.message.Message, transport: str) -> list[Said]:
        octets = reply(query, ANSWER)
        return [Said(octets[:12] + octets[12:29].upper() + octets[29:])]

    assert isinstance(Bench(shouting).once()[0], Entry)


def test_a_truncated_reply_is_asked_again_over_tcp() -> None:
    """The whole answer comes over TCP, even where the cut went through a record."""

    def react(query: dns.message.Message, transport: str) -> list[Said]:
        if transport == "tcp":
            return [Said(reply(query, ANSWER))]
        return [Said(reply(query, ANSWER, flags=dns.flags.TC | dns.flags.RA)[:-3])]

    bench = Bench(react)

    entry, _ = bench.once()

    assert isinstance(entry, Entry)
    assert entry.answer.counts == (1, 0, 0)
    assert [transport for transport, _ in bench.exchanges[0].asked] == ["udp", "tcp"]


def test_a_reply_truncated_over_tcp_too_is_a_failure() -> None:
    """A part of an answer is never given as the whole."""
    bench = Bench(lambda query, transport: [Said(reply(query, flags=dns.flags.TC | dns.flags.RA))])

    error, _ = bench.once()

    assert isinstance(error, UpstreamError)
    assert "truncated" in str(error)


def knows_no_edns(query: dns.message.Message, transport: str) -> list[Said]:
    """A server from before 1999."""
    return [Said(reply(query, rcode="FORMERR", edns=False) if query.edns >= 0 else reply(query, ANSWER))]


def test_an_upstream_without_edns_is_asked_in_the_old_form_from_then_on() -> None:
    """FORMERR without OPT says that it knows no EDNS (RFC 6891 §7); the detour is taken once."""
    bench = Bench(knows_no_edns)

    async def story() -> None:
        await bench.fetch()
        await bench.fetch(names.from_text("two.example.org"))

    run(bench.clock, story())

    assert [message.edns for _, message in bench.exchanges[0].asked] == [0, -1, -1]


def test_one_question_that_an_upstream_can_not_take_does_not_end_edns() -> None:
    """Refused in the old form as well: no client can switch off EDNS, and with it DNSSEC, for all the others."""

    def dislikes_one(query: dns.message.Message, transport: str) -> list[Said]:
        if query.question[0].rdtype == 1:
            return [Said(reply(query, rcode="FORMERR", edns=False))]
        return [Said(reply(query))]

    bench = Bench(dislikes_one)

    async def story() -> None:
        with pytest.raises(UpstreamError):
            await bench.fetch()
        await bench.fetch(qtype=Rtype.AAAA)

    run(bench.clock, story())

    assert bench.exchanges[0].asked[-1][1].edns == 0


def test_formerr_with_an_opt_is_no_sign_of_old_age() -> None:
    """A server that answers with OPT knows EDNS, whatever it finds wrong."""
    bench = Bench(fails("FORMERR"))

    bench.once()

    assert all(message.edns == 0 for _, message in bench.exchanges[0].asked)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_deadline_holds_whatever_the_upstreams_do(count: int) -> None:
    """Silence of all of them costs a client no more than the deadline."""
    terms = ForwarderTerms(try_timeout=0.8, deadline=2.0)
    bench = Bench(*[silent] * count, terms=terms)

    error, seconds = bench.once()

    assert isinstance(error, UpstreamError)
    assert seconds <= 2.0 + 1e-6
    assert "no answer in time" in str(error)


def test_the_deadline_holds_over_tcp_too() -> None:
    """The time that UDP took is not given again to TCP."""

    def react(query: dns.message.Message, transport: str) -> list[Said]:
        return [Said(reply(query, flags=dns.flags.TC | dns.flags.RA), 0.7)] if transport == "udp" else []

    bench = Bench(react, terms=ForwarderTerms(try_timeout=0.8, deadline=2.0))

    error, seconds = bench.once()

    assert isinstance(error, UpstreamError)
    assert seconds <= 2.0 + 1e-6


def test_without_upstreams_every_question_fails_at_once() -> None:
    """And says why."""
    bench = Bench()

    error, seconds = bench.once()

    assert (str(error), seconds) == ("no upstream is configured", 0)
    failure = bench.cache.failure(cache_key(WWW, 1, do=False, cd=False), bench.clock.now())
    assert failure is not None
    assert failure.errors[0].code == Ede.NOT_READY


def test_the_error_names_each_upstream_and_its_reason() -> None:
    """What an operator needs, in one line."""
    error, _ = Bench(silent, refuses).once()

    assert str(error) == "192.0.2.1:53: no answer in time; 192.0.2.2:53: connection refused"


def test_a_failure_is_remembered_and_then_asked_again() -> None:
    """Within FAILURE_TTL the cache answers for the upstreams; it holds their own reason (RFC 9520 §3.2)."""
    bench = Bench(fails("SERVFAIL"))

    error, _ = bench.once()

    key = cache_key(WWW, 1, do=False, cd=False)
    assert isinstance(error, UpstreamError)
    assert bench.cache.failure(key, bench.clock.now()) is not None
    assert bench.cache.failure(key, bench.clock.now() + FAILURE_TTL) is None


def looked_up(bench: Bench, qtype: int = Rtype.A) -> tuple[Entry | Answer, float]:
    """A question of our own, and how long it took."""
    started = bench.clock.now()
    return run(bench.clock, bench.forwarder.look_up(WWW, qtype, do=False, cd=False)), bench.clock.now() - started


def test_a_question_of_our_own_is_answered_from_the_cache_or_asked() -> None:
    """The first time an upstream, then the cache, under the key that clients' questions have."""
    bench = Bench(GOOD)

    first, _ = looked_up(bench)
    again, seconds = looked_up(bench)

    assert isinstance(first, Entry)
    assert again is first is bench.cache.get(cache_key(WWW, 1, do=False, cd=False), bench.clock.now())
    assert (bench.asked(), seconds) == ([1], 0)


@pytest.mark.parametrize(
    "broken", [silent, refuses, fails("SERVFAIL"), fails("REFUSED")], ids=["silent", "gone", "SERVFAIL", "REFUSED"]
)
def test_a_question_of_our_own_that_fails_says_why_and_is_not_repeated_at_once(broken: React) -> None:
    """An answer with the reason, for the client whose question it served."""
    bench = Bench(broken)

    for _ in range(2):
        found, _ = looked_up(bench)
        assert isinstance(found, Answer)
        assert found.rcode == 2
        assert found.errors
    asked = bench.asked()
    looked_up(bench)
    assert bench.asked() == asked


@pytest.mark.parametrize("broken", [silent, refuses, fails("SERVFAIL")], ids=["silent", "gone", "SERVFAIL"])
def test_a_question_of_our_own_takes_stale_data_rather_than_none(broken: React) -> None:
    """Soon, with the TTL of stale data (RFC 8767 §4), never as authentic; and a failure remembered changes nothing."""
    bench = Bench(GOOD, trust_ad=True)
    looked_up(bench)
    bench.exchanges[0].react = broken
    bench.clock.advance(61)

    for _ in range(3):
        found, seconds = looked_up(bench)
        assert isinstance(found, Entry)
        assert [ttl for _, ttl in found.answer.ttls] == [30]
        assert (found.stored, found.answer.authentic) == (bench.clock.now(), False)
        assert seconds <= OWN_STALE_WAIT
        bench.clock.advance(1)


def test_fresh_data_is_preferred_to_stale() -> None:
    """Where it comes in time."""
    bench = Bench(GOOD)
    looked_up(bench)
    bench.clock.advance(61)

    found, _ = looked_up(bench)

    assert isinstance(found, Entry)
    assert found.expires == bench.clock.now() + 60
    assert bench.asked() == [2]


@pytest.mark.parametrize("known", [False, True])
def test_a_question_of_our_own_counts_towards_the_limit(known: bool) -> None:
    """Where there is no room, what is known is taken, or nothing."""
    bench = Bench(GOOD, terms=ForwarderTerms(pending=1))
    if known:
        looked_up(bench)
        bench.clock.advance(61)

    async def story() -> Entry | Answer:
        bench.exchanges[0].react = silent
        other = bench.start(qtype=Rtype.TXT)
        found = await bench.forwarder.look_up(WWW, Rtype.A, do=False, cd=False)
        assert other is not None
        other.cancel()
        return found

    found = run(bench.clock, story())

    assert isinstance(found, Entry if known else Answer)


@pytest.mark.parametrize("trusted", [False, True])
def test_ad_is_taken_over_only_from_a_trusted_upstream(trusted: bool) -> None:
    """What came over a path that others can write to authenticates nothing (RFC 6840 §5.8)."""
    bench = Bench(
        lambda query, transport: [Said(reply(query, ANSWER, flags=dns.flags.AD | dns.flags.RA))], trust_ad=trusted
    )

    entry, _ = bench.once()

    assert isinstance(entry, Entry)
    assert entry.answer.authentic is trusted
    assert bench.cache.get(cache_key(WWW, 1, do=False, cd=False), bench.clock.now()) is entry


def test_what_happened_is_reported() -> None:
    """Each exchange once, by what came of it, and each change of state."""
    bench = Bench(silent, fails(), GOOD)

    bench.once()

    assert bench.roof.reports == [
        ("192.0.2.1:53", "timeout"),
        ("192.0.2.1:53", "up"),
        ("192.0.2.2:53", "failure"),
        ("192.0.2.3:53", "answer"),
        ("192.0.2.3:53", "up"),
    ]


def test_a_question_goes_out_with_its_own_id_and_recursion_desired() -> None:
    """RD, AD to say that we read it (RFC 6840 §5.7), and EDNS with a size that crosses any path."""
    bench = Bench(GOOD)

    bench.once()

    ((_, message),) = bench.exchanges[0].asked
    assert message.flags == dns.flags.RD | dns.flags.AD
    assert (message.edns, message.payload, list(message.options)) == (0, 1232, [])
    assert message.opcode() == 0
    assert message.rcode() == dns.rcode.NOERROR
