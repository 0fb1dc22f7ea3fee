"""Queries over TLS with real sockets: connections are shared and given up in time, and every failure says why."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import dns.edns
import dns.message
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from resolver.policy.client import Transport
from resolver.transport.exchange import UpstreamExchange
from resolver.transport.secure import FULL, PLAIN_SECONDS, TlsExchange, padded
from resolver.transport.secure_identity import SecureTerms
from resolver.wire.message import Reply, read_reply, write_query
from tests.support.build import opt, option, query
from tests.support.house import ask
from tests.support.secure_upstream import (
    AheadLoop,
    Certificates,
    Connection,
    Doors,
    Serve,
    Upstream,
    mirror,
    mirrored,
    server_context,
    until,
    upstream,
)

T = TypeVar("T")
NAME = "dns.example.org"
QUERY = ask("www.example.org", message_id=0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Certificates) -> Path:
    return authority.issue(NAME)


@pytest.fixture(scope="module")
def terms(authority: Certificates) -> SecureTerms:
    return SecureTerms(Transport.DOT, NAME, ca_file=str(authority.ca_file))


@pytest.fixture(scope="module")
def tls(certificate: Path) -> ssl.SSLContext:
    return server_context(certificate, "dot")


Both = Callable[..., "contextlib.AbstractAsyncContextManager[tuple[Upstream, TlsExchange]]"]


@pytest.fixture
def both(terms: SecureTerms, tls: ssl.SSLContext) -> Both:
    """`both(serve)`: an upstream that serves like this, and the way to it."""

    @contextlib.asynccontextmanager
    async def make(serve: Serve = mirror, **changes: Any) -> AsyncIterator[tuple[Upstream, TlsExchange]]:
        held = {field: getattr(terms, field) for field in SecureTerms.__slots__}
        async with upstream(serve, changes.pop("tls", tls)) as server:
            loop = asyncio.get_running_loop()
            exchange = TlsExchange(loop, "127.0.0.1", server.port, SecureTerms(**{**held, **changes}))
            try:
                yield server, exchange
            finally:
                exchange.close()

    return make


def run(story: Coroutine[Any, Any, T], loop: Callable[[], asyncio.AbstractEventLoop] = AheadLoop) -> T:
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(story)


def put_forward(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, AheadLoop)
    loop.ahead += seconds


LOOPS = pytest.mark.parametrize("loop", [AheadLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


@LOOPS
def test_a_reply_is_what_accept_makes_of_it(both: Both, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The query goes out under an id of its own, and comes back through `accept` with what was sent."""

    async def story() -> tuple[Reply, Reply, bytes, int]:
        async with both() as (server, exchange):
            first = await exchange.ask(QUERY, read_reply, 5.0)
            whole = await exchange.ask_whole(QUERY, read_reply, 5.0)
            return first, whole, server.asked[0], len(server.connections)

    first, whole, sent, connections = run(story(), loop)
    assert (first.answer.rcode, whole.answer.rcode, connections) == (0, 0, 1)
    assert dns.message.from_wire(sent).question == dns.message.from_wire(QUERY).question


# ---- padding


@pytest.mark.parametrize("labels", range(0, 120, 7))
@pytest.mark.parametrize("keepalive", [False, True])
@pytest.mark.parametrize("do", [False, True])
def test_a_query_fills_whole_blocks(labels: int, keepalive: bool, do: bool) -> None:
    """128 octets or a multiple (RFC 8467 §4.1), and to a reader it is the same query with options."""
    made = write_query(b"\1a" * labels + b"\0", 1, 7, do=do, cd=False, edns=True, udp_octets=1232)

    octets = padded(made, keepalive=keepalive)

    before, after = dns.message.from_wire(made), dns.message.from_wire(octets)
    assert len(octets) % 128 == 0
    assert len(octets) - len(made) < 128 + 8
    assert (after.question, after.flags, after.ednsflags, after.payload) == (
        before.question, before.flags, before.ednsflags, before.payload,
    )  # fmt: skip
    assert [int(o.otype) for o in after.options] == ([11, 12] if keepalive else [12])


def test_options_that_a_query_has_stay() -> None:
    """They stand before the padding."""
    octets = padded(query(additional=(opt(option(3), option(10, b"12345678")),)), keepalive=False)

    assert len(octets) % 128 == 0
    assert [int(o.otype) for o in dns.message.from_wire(octets).options] == [3, 10, 12]


def test_a_query_without_opt_is_not_touched() -> None:
    """Padding has no place in it; an upstream without EDNS is asked so."""
    assert padded(query(), keepalive=True) == query()


def test_only_the_first_query_of_a_connection_asks_how_long_it_is_kept(both: Both) -> None:
    """RFC 7828 §3.2.1; all are padded."""

    async def story() -> list[bytes]:
        async with both() as (server, exchange):
            for _ in range(3):
                await exchange.ask(QUERY, read_reply, 5.0)
            return server.asked

    asked = run(story())
    assert [[int(o.otype) for o in dns.message.from_wire(one).options] for one in asked] == [[11, 12], [12], [12]]
    assert {len(one) for one in asked} == {128}


# ---- many queries, few connections


def test_replies_out_of_order_reach_who_asked(both: Both) -> None:
    """Many queries on one connection, answered backwards: each gets its own."""
    count = FULL

    async def serve(connection: Connection) -> None:
        queries = [await connection.message() for _ in range(count)]
        connection.say(*(mirrored(one) for one in reversed(queries)))
        await connection.message()

    async def story() -> tuple[list[bytes], int, set[bytes]]:
        async with both(serve) as (server, exchange):
            queries = [ask(f"n{n}.example.org", message_id=0) for n in range(count)]

            def accept(reply: bytes, sent: bytes) -> bytes:
                read_reply(reply, sent)
                return reply[12:30]

            replies = await asyncio.gather(*(exchange.ask(one, accept, 10.0) for one in queries))
            assert replies == [one[12:30] for one in queries]
            return replies, len(server.connections), {one[:2] for one in server.asked}

    replies, connections, ids = run(story())
    assert (len(replies), connections) == (count, 1)
    assert len(ids) == count
    assert any(a[0] != b[0] for a, b in zip(sorted(ids), sorted(ids)[1:], strict=False))  # not counted up


def test_a_second_connection_is_opened_only_while_the_first_is_full(both: Both) -> None:
    """And never a third: what is more goes to the one with less to do."""
    count = 2 * FULL + 50
    held: list[tuple[Connection, bytes]] = []

    async def serve(connection: Connection) -> None:
        while True:
            held.append((connection, await connection.message()))

    async def story() -> tuple[list[int], int]:
        async with both(serve) as (server, exchange):
            asked = [asyncio.ensure_future(exchange.ask(QUERY, read_reply, 10.0)) for _ in range(FULL)]
            await until(lambda: len(held) == FULL)
            assert len(server.connections) == 1
            asked += [asyncio.ensure_future(exchange.ask(QUERY, read_reply, 10.0)) for _ in range(count - FULL)]
            await until(lambda: len(held) == count)
            loads = [len(connection.asked) for connection in server.connections]
            for connection, one in held:
                connection.say(mirrored(one))
            await asyncio.gather(*asked)
            server.serve = mirror
            last = asyncio.ensure_future(exchange.ask(QUERY, read_reply, 10.0))
            await until(lambda: len(held) > count)
            held[-1][0].say(mirrored(held[-1][1]))
            await last
            return loads, server.connections.index(held[-1][0])

    loads, last = run(story())
    assert (sorted(loads), last) == ([125, 125], 0)


def test_what_is_asked_at_one_moment_goes_out_in_one_piece(both: Both) -> None:
    """One TLS record for a burst, not one for each query (RFC 7766 §8)."""
    pieces: list[int] = []

    async def serve(connection: Connection) -> None:
        connection.say(mirrored(await connection.message()))
        while octets := await connection.reader.read(65536):
            pieces.append(len(octets))
            for at in range(0, len(octets), 130):
                connection.say(mirrored(octets[at + 2 : at + 130]))

    async def story() -> None:
        async with both(serve) as (_, exchange):
            await exchange.ask(QUERY, read_reply, 5.0)
            await asyncio.gather(*(exchange.ask(QUERY, read_reply, 5.0) for _ in range(20)))

    run(story())
    assert pieces == [20 * 130]


# ---- replies that are none


WRONG: dict[str, Callable[[bytes], bytes]] = {
    "wrong id": lambda one: bytes([one[0] ^ 1]) + mirrored(one)[1:],
    "wrong question": lambda one: mirrored(one).replace(b"www", b"wwx"),
    "a query": lambda one: one,
    "one octet": lambda one: one[:1],
    "nothing": lambda one: b"",
    "an id alone": lambda one: one[:2],
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_not_the_reply_is_ignored_and_the_wait_goes_on(both: Both, wrong: Callable[[bytes], bytes]) -> None:
    """As over UDP: it is not taken, and does not make the true reply unwelcome."""

    async def serve(connection: Connection) -> None:
        while one := await connection.message():
            connection.say(wrong(one), mirrored(one))

    async def story() -> tuple[Reply, int]:
        async with both(serve) as (_, exchange):
            return await exchange.ask(QUERY, read_reply, 5.0), exchange.ignored

    reply, ignored = run(story())
    assert reply.answer.rcode == 0
    assert ignored == (wrong(b"\0\0" + QUERY[2:])[:2] == b"\0\0")


def test_the_longest_message_arrives_whole(both: Both) -> None:
    """64 KiB, in as many pieces as it takes."""

    async def serve(connection: Connection) -> None:
        connection.say(mirrored(await connection.message()).ljust(65535, b"\0"))
        await connection.message()

    async def story() -> int:
        async with both(serve) as (_, exchange):
            return await exchange.ask(QUERY, lambda reply, sent: len(reply), 5.0)

    assert run(story()) == 65535


# ---- connections that end


def ends_after(answers: int, says: bytes = b"") -> Serve:
    """Answer so many queries on each connection; take one more, say something, and close."""

    async def serve(connection: Connection) -> None:
        for _ in range(answers):
            connection.say(mirrored(await connection.message()))
        await connection.message()
        connection.writer.write(says)

    return serve


def test_a_query_that_met_a_closed_connection_is_asked_once_more(both: Both) -> None:
    """Where the connection had served before (RFC 7766 §6.2.3 has servers close idle ones as they like)."""

    async def story() -> tuple[list[int], int]:
        async with both(ends_after(2)) as (server, exchange):
            for _ in range(6):
                await exchange.ask(QUERY, read_reply, 5.0)
            return [len(connection.asked) for connection in server.connections], len(server.asked)

    assert run(story()) == ([3, 3, 2], 8)


@pytest.mark.parametrize(
    "says", [b"", b"\0", b"\0\x20\0", b"\0\x0cshort"], ids=["nothing", "half a length", "id", "cut"]
)
def test_a_new_connection_that_is_closed_is_an_error(both: Both, says: bytes) -> None:
    """Never a part of a reply, and no second try: an upstream that crashes over a query is not shown it again."""

    async def story() -> int:
        async with both(ends_after(0, says)) as (server, exchange):
            with pytest.raises(ConnectionResetError, match="the upstream closed the connection"):
                await exchange.ask(QUERY, read_reply, 5.0)
            return len(server.connections)

    assert run(story()) == 1


def test_all_that_a_closed_connection_left_unanswered_is_asked_on_one_new_one(both: Both) -> None:
    """Fifty at once do not open fifty connections."""

    async def serve(connection: Connection) -> None:
        if len(connection_count) == 0:
            connection_count.append(1)
            connection.say(mirrored(await connection.message()))
            for _ in range(50):
                await connection.message()
        else:
            await mirror(connection)

    connection_count: list[int] = []

    async def story() -> int:
        async with both(serve) as (server, exchange):
            await exchange.ask(QUERY, read_reply, 5.0)
            await asyncio.gather(*(exchange.ask(QUERY, read_reply, 5.0) for _ in range(50)))
            return len(server.connections)

    assert run(story()) == 2


def test_an_upstream_that_closes_every_connection_is_an_error_in_the_end(both: Both) -> None:
    """The second try is the last."""

    async def story() -> int:
        async with both(ends_after(1)) as (server, exchange):
            await exchange.ask(QUERY, read_reply, 5.0)
            server.serve = ends_after(0)
            with pytest.raises(ConnectionResetError):
                await exchange.ask(QUERY, read_reply, 5.0)
            return len(server.connections)

    assert run(story()) == 2


def test_silence_is_a_time_out_and_the_next_query_takes_another_connection(both: Both) -> None:
    """A connection on which nothing comes any more may be dead, whatever TCP believes."""

    async def silent(connection: Connection) -> None:
        while True:
            await connection.message()

    async def story() -> tuple[list[int], Reply]:
        async with both(silent) as (server, exchange):
            with pytest.raises(TimeoutError):
                await exchange.ask(QUERY, read_reply, 0.3)
            server.serve = mirror
            reply = await exchange.ask(QUERY, read_reply, 5.0)
            return [len(connection.asked) for connection in server.connections], reply

    asked, reply = run(story())
    assert (asked, reply.answer.rcode) == ([1, 1], 0)


def test_one_slow_answer_among_others_costs_no_connection(both: Both) -> None:
    """It is late, but the connection lives; and coming after all, it harms nobody."""

    async def serve(connection: Connection) -> None:
        slow = await connection.message()
        while one := await connection.message():
            connection.say(mirrored(one), mirrored(slow))

    async def story() -> int:
        async with both(serve) as (server, exchange):
            slow = asyncio.ensure_future(exchange.ask(QUERY, read_reply, 0.3))
            await until(lambda: server.asked)
            with contextlib.suppress(TimeoutError):
                while not slow.done():
                    await exchange.ask(ask("other.example.org"), read_reply, 5.0)
                    await asyncio.sleep(0.02)
            await exchange.ask(QUERY, read_reply, 5.0)
            slow.cancelled() or slow.exception()
            return len(server.connections)

    assert run(story()) == 1


@LOOPS
def test_closing_tells_who_still_waits(both: Both, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Nobody hangs on an exchange that is gone, whether its connection was open or not."""

    async def silent(connection: Connection) -> None:
        while True:
            await connection.message()

    async def story() -> None:
        async with both(silent) as (server, exchange):
            waiting = asyncio.ensure_future(exchange.ask(QUERY, read_reply, 10.0))
            await until(lambda: server.asked)
            exchange.close()
            with pytest.raises(OSError, match="closing"):
                await waiting
        async with both(silent) as (_, exchange):
            waiting = asyncio.ensure_future(exchange.ask(QUERY, read_reply, 10.0))
            await asyncio.sleep(0)
            exchange.close()
            with pytest.raises(OSError, match="closing"):
                await waiting

    run(story(), loop)


# ---- idle connections and sessions


def keeps(tenths: int, *before: dns.edns.Option) -> Serve:
    """Answer, and say for how long an idle connection is kept."""

    async def serve(connection: Connection) -> None:
        while one := await connection.message():
            reply = dns.message.make_response(dns.message.from_wire(one))
            reply.use_edns(0, options=[*before, dns.edns.GenericOption(11, tenths.to_bytes(2, "big"))])
            connection.say(reply.to_wire())

    return serve


@pytest.mark.parametrize(
    ("serve", "pause", "connections"),
    [
        (mirror, 9.0, 1),
        (mirror, 10.1, 2),
        (keeps(50), 4.5, 1),
        (keeps(50), 5.1, 2),
        (keeps(300), 29.0, 1),
        (keeps(0), 0.0, 2),
        (keeps(50, dns.edns.GenericOption(10, b"\0\x0b\0\2\0\0")), 4.5, 1),
        (keeps(50, dns.edns.GenericOption(10, b"\0\x0b\0\2\0\0")), 5.1, 2),
    ],
    ids=["ours", "ours is over", "its", "its is over", "its is longer", "none", "behind another", "and over"],
)
def test_an_idle_connection_is_closed_when_its_time_is_over(
    both: Both, serve: Serve, pause: float, connections: int
) -> None:
    """After the upstream's keepalive (RFC 7828 §3.4), or else ours."""

    async def story() -> tuple[int, bool]:
        async with both(serve) as (server, exchange):
            await exchange.ask(QUERY, read_reply, 5.0)
            put_forward(pause)
            await asyncio.sleep(0.02)
            await exchange.ask(QUERY, read_reply, 5.0)
            await asyncio.sleep(0.02)
            return len(server.connections), server.connections[0].reader.at_eof()

    assert run(story()) == (connections, connections == 2)


@LOOPS
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("who", ["upstream closes", "we close"])
def test_a_new_connection_resumes_the_session(
    both: Both, certificate: Path, loop: Callable[[], asyncio.AbstractEventLoop], version: ssl.TLSVersion, who: str
) -> None:
    """The certificate is not sent and checked anew each time (RFC 7858 §3.4)."""
    tls = server_context(certificate, "dot", newest=version)
    serve = ends_after(1) if who == "upstream closes" else mirror

    async def story() -> list[bool]:
        async with both(serve, tls=tls, idle_timeout=10.0 if who == "upstream closes" else 0.05) as (server, exchange):
            for count in range(1, 4):
                await exchange.ask(QUERY, read_reply, 5.0)
                if who == "we close":
                    await until(lambda count=count: server.connections[count - 1].reader.at_eof())
            return [connection.resumed for connection in server.connections][:3]

    assert run(story(), loop) == [False, True, True]


def test_no_session_is_resumed_twice(both: Both) -> None:
    """Its ticket would tell who sees both connections that they are one client's (RFC 8446 Appendix C.4)."""

    async def silent(connection: Connection) -> None:
        while await connection.message():
            pass

    async def story() -> list[bool]:
        async with both() as (server, exchange):
            await exchange.ask(QUERY, read_reply, 5.0)
            server.serve = silent
            put_forward(10.1)
            await until(lambda: server.connections[0].reader.at_eof())
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    await exchange.ask(QUERY, read_reply, 0.2)
            return [connection.resumed for connection in server.connections]

    assert run(story()) == [False, True, False]


# ---- strict and opportunistic


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def speaks_plainly(connection: Connection) -> None:
    await connection.reader.read(10)
    connection.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await connection.reader.read()


async def hangs_up(connection: Connection) -> None:
    await connection.reader.read(10)


def test_where_no_tls_is_had_a_strict_exchange_says_why(both: Both) -> None:
    """In an operator's words, and without a word in the clear."""

    async def why(port: int, terms: SecureTerms) -> str:
        exchange = TlsExchange(asyncio.get_running_loop(), "127.0.0.1", port, terms, Unasked())
        with pytest.raises(ConnectionError) as caught:
            await exchange.ask(QUERY, read_reply, 5.0)
        exchange.close()
        return str(caught.value)

    async def story() -> list[str]:
        found = [await why(closed_port(), SecureTerms(Transport.DOT, NAME))]
        for serve in (speaks_plainly, hangs_up):
            async with upstream(serve, None) as server:
                found.append(await why(server.port, SecureTerms(Transport.DOT, NAME)))
        return found

    refused, plain, hung = run(story())
    assert refused == "connection refused"
    assert plain == "no TLS: wrong version number"
    assert hung in ("the upstream closed the connection during the TLS handshake", "connection reset by peer")


def test_an_upstream_that_never_shakes_hands_is_given_up(both: Both) -> None:
    """After a while that does not grow with those who wait; the next query then tries anew."""

    async def swallows(connection: Connection) -> None:
        await connection.reader.read(10)
        await connection.reader.read()

    async def story() -> tuple[str, int]:
        async with upstream(swallows, None) as server:
            terms = SecureTerms(Transport.DOT, NAME)
            exchange = TlsExchange(asyncio.get_running_loop(), "127.0.0.1", server.port, terms)
            asking = asyncio.ensure_future(exchange.ask(QUERY, read_reply, 60.0))
            await until(lambda: server.connections)
            put_forward(5.1)
            with pytest.raises(ConnectionError) as caught:
                await asking
            with pytest.raises(TimeoutError):
                await exchange.ask(QUERY, read_reply, 0.2)
            exchange.close()
            return str(caught.value), len(server.connections)

    assert run(story()) == ("no TLS connection within 5 seconds", 2)


class Unasked:
    """A way in the clear that must not be taken."""

    ignored = 0

    async def ask(self, query: bytes, accept: object, wait: float) -> Any:
        raise AssertionError("asked in the clear")

    ask_whole = ask

    def close(self) -> None:
        """Nothing is open."""


class Datagrams(asyncio.DatagramProtocol):
    """An upstream over UDP that answers everything."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append(data)
        self.transport.sendto(mirrored(data), addr)


@contextlib.asynccontextmanager
async def in_the_clear() -> AsyncIterator[tuple[Datagrams, UpstreamExchange]]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    try:
        yield server, UpstreamExchange(loop, *transport.get_extra_info("sockname"), 1)
    finally:
        transport.close()
        await asyncio.sleep(0)


def test_an_opportunistic_exchange_takes_any_certificate(authority: Certificates) -> None:
    """Encrypted for nobody in particular is better than not at all (RFC 8310 §5)."""
    terms = SecureTerms(Transport.DOT, NAME, strict=False)

    async def story() -> tuple[int, int]:
        tls = server_context(authority.issue("other.example"), "dot")
        async with upstream(mirror, tls) as server, in_the_clear() as (datagrams, plain):
            exchange = TlsExchange(asyncio.get_running_loop(), "127.0.0.1", server.port, terms, plain)
            await exchange.ask(QUERY, read_reply, 5.0)
            exchange.close()
            return len(server.asked), len(datagrams.asked)

    assert run(story()) == (1, 0)


@pytest.mark.parametrize("serve", [None, speaks_plainly, hangs_up], ids=["closed", "plain", "hangs up"])
def test_an_opportunistic_exchange_asks_in_the_clear_where_there_is_no_tls(
    tls: ssl.SSLContext, serve: Serve | None
) -> None:
    """Without looking for TLS with each query, but again after a while."""
    terms = SecureTerms(Transport.DOT, strict=False)

    async def story() -> tuple[list[int], int]:
        clear: list[int] = []
        port = closed_port()
        async with in_the_clear() as (datagrams, plain), contextlib.AsyncExitStack() as stack:
            first = await stack.enter_async_context(upstream(serve, None, port)) if serve is not None else None
            exchange = TlsExchange(asyncio.get_running_loop(), "127.0.0.1", port, terms, plain)
            for _ in range(3):
                await exchange.ask(QUERY, read_reply, 5.0)
                clear.append(len(datagrams.asked))
            tried = len(first.connections) if first is not None else 1
            await stack.aclose()
            async with upstream(mirror, tls, port) as server:
                put_forward(PLAIN_SECONDS - 60)
                await exchange.ask(QUERY, read_reply, 5.0)
                clear.append(len(datagrams.asked))
                put_forward(60)
                for _ in range(2):
                    await exchange.ask(QUERY, read_reply, 5.0)
                clear += [len(datagrams.asked), len(server.asked)]
                exchange.close()
            return clear, tried

    assert run(story()) == ([1, 2, 3, 4, 4, 2], 1)


def test_an_opportunistic_exchange_does_not_wait_for_tls_until_it_is_too_late(tls: ssl.SSLContext) -> None:
    """A firewall that swallows what is sent to the port of TLS leaves time to ask in the clear."""

    async def swallows(connection: Connection) -> None:
        await connection.reader.read()
        await asyncio.sleep(3600)

    async def story() -> Reply:
        async with upstream(swallows, None) as server, in_the_clear() as (_, plain):
            terms = SecureTerms(Transport.DOT, strict=False)
            exchange = TlsExchange(asyncio.get_running_loop(), "127.0.0.1", server.port, terms, plain)
            try:
                return await exchange.ask(QUERY, read_reply, 0.4)
            finally:
                exchange.close()

    assert run(story()).answer.rcode == 0


def test_an_upstream_that_is_gone_says_nothing_about_tls(tls: ssl.SSLContext) -> None:
    """Neither way answers; when it is back, TLS is used at once."""

    async def story() -> int:
        port = closed_port()
        loop = asyncio.get_running_loop()
        plain = UpstreamExchange(loop, "127.0.0.1", closed_port(), 1)
        exchange = TlsExchange(loop, "127.0.0.1", port, SecureTerms(Transport.DOT, strict=False), plain)
        with pytest.raises(ConnectionRefusedError):
            await exchange.ask(QUERY, read_reply, 5.0)
        async with upstream(mirror, tls, port) as server:
            await exchange.ask(QUERY, read_reply, 5.0)
            exchange.close()
            return len(server.asked)

    assert run(story()) == 1


def test_a_slow_answer_over_tls_is_not_asked_for_in_the_clear(tls: ssl.SSLContext) -> None:
    """The time is up, but there is TLS."""

    async def serve(connection: Connection) -> None:
        connection.say(mirrored(await connection.message()))
        await connection.reader.read()

    async def story() -> None:
        async with upstream(serve, tls) as server:
            terms = SecureTerms(Transport.DOT, strict=False)
            exchange = TlsExchange(asyncio.get_running_loop(), "127.0.0.1", server.port, terms, Unasked())
            await exchange.ask(QUERY, read_reply, 5.0)
            with pytest.raises(TimeoutError):
                await exchange.ask(QUERY, read_reply, 0.3)
            exchange.close()

    run(story())


# ---- any octets


@given(st.lists(st.binary(max_size=80), max_size=8))
def test_any_octets_from_the_upstream_end_in_replies_errors_or_silence(pieces: list[bytes]) -> None:
    """Nothing else comes of them, and no more is kept than one message."""
    assert outcome(pieces) in ({"TimeoutError"}, {"Reply"})


@given(st.integers(1, 200), st.binary(max_size=60))
def test_a_reply_torn_anywhere_is_put_together(size: int, noise: bytes) -> None:
    """Behind whatever stood before it."""
    assert outcome([len(noise).to_bytes(2, "big") + noise], size) == {"Reply"}


def outcome(pieces: list[bytes], size: int = 0) -> set[str]:
    """What comes of a query when these octets arrive, and then, where pieces have a size, the true reply."""

    async def story() -> set[str]:
        doors = asyncio.get_running_loop()
        assert isinstance(doors, Doors)
        exchange = TlsExchange(doors, "127.0.0.1", 853, SecureTerms(Transport.DOT, NAME, strict=False))
        asking = asyncio.ensure_future(exchange.ask(QUERY, read_reply, 3600.0))
        while not doors.transport.written:
            await asyncio.sleep(0)
        for piece in pieces:
            doors.protocol.data_received(piece)
        if size:
            reply = mirrored(doors.transport.written[2:])
            octets = len(reply).to_bytes(2, "big") + reply
            for at in range(0, len(octets), size):
                doors.protocol.data_received(octets[at : at + size])
        else:
            put_forward(3600.0)
        (found,) = await asyncio.gather(asking, return_exceptions=True)
        exchange.close()
        return {type(found).__name__}

    return run(story(), Doors)
