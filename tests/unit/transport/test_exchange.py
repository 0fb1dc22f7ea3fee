"""Queries to an upstream with real sockets: whose replies count, and how hard they are to forge."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from resolver.transport.exchange import UpstreamExchange
from resolver.transport.forward import QUERIES_PER_SOCKET
from resolver.wire.message import Reply, WireError, read_reply
from tests.support.house import ask

QUERY = ask("www.example.org", message_id=0)
React = Callable[[bytes], list[bytes]]


def mirrored(query: bytes) -> bytes:
    """The emptiest true reply."""
    return query[:2] + bytes([query[2] | 0x80]) + query[3:]


class Upstream(asyncio.DatagramProtocol):
    """A server on loopback that does what a function says."""

    def __init__(self, react: React) -> None:
        self.react = react
        self.asked: list[tuple[bytes, tuple[str, int]]] = []

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append((data, addr))
        for reply in self.react(data):
            self.transport.sendto(reply, addr)


@contextlib.asynccontextmanager
async def upstream(react: React, sockets: int = 4) -> AsyncIterator[tuple[Upstream, UpstreamExchange]]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: Upstream(react), local_addr=("127.0.0.1", 0))
    exchange = UpstreamExchange(loop, *transport.get_extra_info("sockname"), sockets)
    try:
        yield server, exchange
    finally:
        exchange.close()
        transport.close()
        await asyncio.sleep(0)


def test_a_reply_is_what_accept_makes_of_it() -> None:
    """The query goes out under an id of its own, and comes back through `accept` with what was sent."""

    async def story() -> tuple[Reply, bytes]:
        async with upstream(lambda query: [mirrored(query)]) as (server, exchange):
            return await exchange.ask(QUERY, read_reply, 5.0), server.asked[0][0]

    reply, sent = asyncio.run(story())
    assert reply.answer.rcode == 0
    assert sent[2:] == QUERY[2:]


WRONG: dict[str, React] = {
    "wrong id": lambda query: [bytes([query[0] ^ 1]) + mirrored(query)[1:]],
    "wrong question": lambda query: [mirrored(query).replace(b"www", b"wwx")],
    "a query": lambda query: [query],
    "one octet": lambda query: [b"x"],
    "nothing": lambda query: [b""],
    "another answer first": lambda query: [mirrored(query)[:-1] + b"\1"],
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_not_the_reply_is_ignored_and_the_wait_goes_on(wrong: React) -> None:
    """A wrong guess does not win, and does not make the true reply unwelcome (RFC 5452 §9)."""

    async def story() -> Reply:
        async with upstream(lambda query: [*wrong(query), mirrored(query)]) as (_, exchange):
            return await exchange.ask(QUERY, read_reply, 5.0)

    assert asyncio.run(story()).answer.rcode == 0


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_wrong_replies_alone_are_no_answer(wrong: React) -> None:
    """They end in a time-out like silence."""

    async def story() -> None:
        async with upstream(wrong) as (_, exchange):
            await exchange.ask(QUERY, read_reply, 0.2)

    with pytest.raises(TimeoutError):
        asyncio.run(story())


def test_nobody_but_the_upstream_is_heard() -> None:
    """A perfect reply from another port of the same host does not arrive: the socket is connected (RFC 5452 §9.1)."""

    async def story() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as spoofer:
            spoofer.bind(("127.0.0.1", 0))

            def react(query: bytes) -> list[bytes]:
                spoofer.sendto(mirrored(query), server.asked[-1][1])
                return []

            async with upstream(lambda query: react(query)) as (server, exchange):
                await exchange.ask(QUERY, read_reply, 0.3)

    with pytest.raises(TimeoutError):
        asyncio.run(story())


def test_a_closed_port_is_told_at_once() -> None:
    """ECONNREFUSED ends the wait, so that the next upstream gets its turn."""

    async def story() -> float:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        exchange = UpstreamExchange(loop, "127.0.0.1", port, 1)
        started = loop.time()
        with pytest.raises(ConnectionRefusedError):
            await exchange.ask(QUERY, read_reply, 5.0)
        exchange.close()
        return loop.time() - started

    assert asyncio.run(story()) < 1.0


def test_all_who_wait_on_a_closed_port_are_told_at_once() -> None:
    """The kernel tells an ICMP error once, maybe to the next who sends: the others must not wait for their time-out."""

    async def story() -> tuple[float, list[object]]:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        exchange = UpstreamExchange(loop, "127.0.0.1", port, 1)
        started = loop.time()
        questions = [exchange.ask(QUERY, read_reply, 5.0) for _ in range(20)]
        outcomes = await asyncio.gather(*questions, return_exceptions=True)
        exchange.close()
        return loop.time() - started, list(outcomes)

    seconds, outcomes = asyncio.run(story())

    assert seconds < 1.0
    assert {type(outcome) for outcome in outcomes} == {ConnectionRefusedError}


def test_replies_out_of_order_reach_who_asked() -> None:
    """Many queries on few sockets, answered backwards: each gets its own."""
    held: list[bytes] = []
    count = 200

    def react(query: bytes) -> list[bytes]:
        held.append(query)
        return []

    async def story() -> list[bytes]:
        async with upstream(react, sockets=2) as (server, exchange):
            queries = [ask(f"n{n}.example.org", message_id=0) for n in range(count)]

            def accept(reply: bytes, sent: bytes) -> bytes:
                read_reply(reply, sent)
                return reply[12:]

            tasks = [asyncio.ensure_future(exchange.ask(query, accept, 10.0)) for query in queries]
            while len(held) < count:
                await asyncio.sleep(0.005)
            for query, (_, addr) in zip(reversed(held), reversed(server.asked), strict=True):
                server.transport.sendto(mirrored(query), addr)
            replies = await asyncio.gather(*tasks)
            assert replies == [query[12:] for query in queries]
            return replies

    assert len(asyncio.run(story())) == count


def test_ids_and_ports_are_hard_to_guess() -> None:
    """Ids are drawn at random and spread over all of them; ports over the pool; none tells the next one."""
    count = 2000

    async def story() -> tuple[list[int], list[int]]:
        async with upstream(lambda query: [mirrored(query)], sockets=16) as (server, exchange):
            for _ in range(count):
                await exchange.ask(QUERY, read_reply, 5.0)
            return [int.from_bytes(data[:2], "big") for data, _ in server.asked], [a[1] for _, a in server.asked]

    ids, ports = asyncio.run(story())
    assert len(set(ids)) > 0.95 * count  # 2,000 of 65,536 drawn at random collide some 30 times
    assert all(abs(sum(id_ >> bit & 1 for id_ in ids) / count - 0.5) < 0.08 for bit in range(16))
    assert len({b - a for a, b in itertools.pairwise(ids)}) > 0.9 * count
    assert len(set(ports)) == 16
    assert max(ports.count(port) for port in set(ports)) < 0.15 * count


def test_a_socket_is_replaced_after_a_while() -> None:
    """A port that was found out is soon worth nothing; replies to what was under way still arrive."""

    async def story() -> list[int]:
        async with upstream(lambda query: [mirrored(query)], sockets=1) as (server, exchange):
            for _ in range(2 * QUERIES_PER_SOCKET + 10):
                await exchange.ask(QUERY, read_reply, 5.0)
            return [addr[1] for _, addr in server.asked]

    ports = asyncio.run(story())
    assert len(dict.fromkeys(ports)) == 3
    assert ports.count(ports[0]) == QUERIES_PER_SOCKET


def test_a_replaced_socket_waits_for_its_last_reply() -> None:
    """Retired with a query under way, it hears its answer and is closed then."""
    late: list[tuple[bytes, tuple[str, int]]] = []

    async def story() -> tuple[Reply, int]:
        async with upstream(lambda query: [mirrored(query)] if b"late" not in query else [], sockets=1) as (
            s,
            exchange,
        ):
            waiting = asyncio.ensure_future(exchange.ask(ask("late.example.org"), read_reply, 10.0))
            while not s.asked:
                await asyncio.sleep(0.005)
            late.append(s.asked[0])
            for _ in range(QUERIES_PER_SOCKET + 5):
                await exchange.ask(QUERY, read_reply, 5.0)
            s.transport.sendto(mirrored(late[0][0]), late[0][1])
            return await waiting, len({addr for _, addr in s.asked})

    reply, ports = asyncio.run(story())
    assert (reply.answer.rcode, ports) == (0, 2)


def test_closing_tells_who_still_waits() -> None:
    """Nobody hangs on an exchange that is gone."""

    async def story() -> None:
        async with upstream(lambda query: []) as (server, exchange):
            waiting = asyncio.ensure_future(exchange.ask(QUERY, read_reply, 10.0))
            while not server.asked:
                await asyncio.sleep(0.005)
            exchange.close()
            with pytest.raises(OSError, match="closing"):
                await waiting

    asyncio.run(story())


@contextlib.asynccontextmanager
async def tcp_upstream(react: React) -> AsyncIterator[UpstreamExchange]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        for reply in react(query):
            writer.write(reply)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    exchange = UpstreamExchange(asyncio.get_running_loop(), *server.sockets[0].getsockname(), 1)
    try:
        yield exchange
    finally:
        server.close()
        await server.wait_closed()


def framed(packet: bytes) -> bytes:
    return len(packet).to_bytes(2, "big") + packet


@pytest.mark.parametrize(
    ("react", "expected"),
    [
        (lambda query: [framed(mirrored(query))], None),
        (lambda query: [bytes([o]) for o in framed(mirrored(query))], None),
        (lambda query: [], ConnectionResetError),
        (lambda query: [framed(mirrored(query))[:-4]], ConnectionResetError),
        (lambda query: [framed(bytes([query[0] ^ 1]) + mirrored(query)[1:])], WireError),
        (lambda query: [framed(b"")], WireError),
    ],
    ids=["whole", "in pieces", "closed", "closed half-way", "wrong id", "empty"],
)
def test_over_tcp_a_reply_is_right_or_an_error(react: React, expected: type[Exception] | None) -> None:
    """Never a part of one, never somebody else's."""

    async def story() -> Reply:
        async with tcp_upstream(react) as exchange:
            return await exchange.ask_whole(QUERY, read_reply, 5.0)

    if expected is None:
        assert asyncio.run(story()).answer.rcode == 0
    else:
        with pytest.raises(expected):
            asyncio.run(story())


def test_over_tcp_64_kib_arrive_whole() -> None:
    """The longest message there is."""

    async def story() -> int:
        async with tcp_upstream(lambda query: [framed(mirrored(query).ljust(65535, b"\0"))]) as exchange:
            return await exchange.ask_whole(QUERY, lambda reply, sent: len(reply), 5.0)

    assert asyncio.run(story()) == 65535


def test_over_tcp_a_closed_port_is_told() -> None:
    """As over UDP."""

    async def story() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        await UpstreamExchange(asyncio.get_running_loop(), "127.0.0.1", port, 1).ask_whole(QUERY, read_reply, 5.0)

    with pytest.raises(ConnectionRefusedError):
        asyncio.run(story())
