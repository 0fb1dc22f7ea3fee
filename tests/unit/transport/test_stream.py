"""TCP with real sockets on loopback: what clients get, and what they can not take from others."""

import asyncio
import contextlib
import itertools
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar

import pytest
import uvloop

from resolver.observe.record import sockaddr
from resolver.policy.client import Client, Transport
from resolver.transport.places import PlaceTerms
from resolver.transport.sockets import TCP_BACKLOG, bind_tcp
from resolver.transport.stream import READ_OCTETS, TURN, StreamServer, StreamTerms
from tests.support.answerer import FakeAnswerer, reply_to
from tests.support.house import ask

T = TypeVar("T")
PATIENCE = 10.0  # seconds after which a condition that has not come true fails the test
BUILDS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
WWW = ask("www.example.org")


class Clock:
    """Monotonic seconds that a test may push ahead of the loop's."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead


class Window:
    """A server with clients."""

    def __init__(self, server: StreamServer, answerer: FakeAnswerer, clock: Clock, port: int) -> None:
        self.server, self.answerer, self.clock, self.port = server, answerer, clock, port
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0))
        self._writers.append(writer)
        return reader, writer

    async def hang_up(self) -> None:
        """End every connection of the clients, however it stands."""
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)


@contextlib.asynccontextmanager
async def window(terms: StreamTerms | None = None, answerer: FakeAnswerer | None = None) -> AsyncIterator[Window]:
    answerer = answerer or FakeAnswerer()
    clock = Clock()
    server = StreamServer(asyncio.get_running_loop(), answerer, terms or StreamTerms(), sockaddr, clock)
    sock = bind_tcp("127.0.0.1", 0)
    await server.listen(sock)
    made = Window(server, answerer, clock, sock.getsockname()[1])
    try:
        yield made
    finally:
        await made.hang_up()
        await server.close(0.0)
        await condition(lambda: len(server) == 0)


async def condition(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not is_so():
            await asyncio.sleep(0.005)


@pytest.fixture(params=BUILDS, autouse=True)
def play(request: pytest.FixtureRequest) -> Callable[[Awaitable[T]], T]:
    """Runs a story on one of the loops that the product runs on."""

    def run(story: Awaitable[T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(60):
                return await story

        with asyncio.Runner(loop_factory=BUILDS[request.param]) as runner:
            return runner.run(bounded())

    return run


Play = Callable[[Awaitable[object]], object]


def framed(*packets: bytes) -> bytes:
    return b"".join(len(packet).to_bytes(2, "big") + packet for packet in packets)


async def read_message(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PATIENCE):
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))


async def ends(reader: asyncio.StreamReader) -> bool:
    """Whether the server closes the connection, having sent nothing more."""
    async with asyncio.timeout(PATIENCE):
        try:
            return await reader.read(1) == b""
        except ConnectionError:
            return True


def test_a_thousand_queries_on_one_connection_are_all_answered(play: Play) -> None:
    """Pipelined, each with its own id (RFC 7766 §6.2.1.1)."""
    queries = [ask(f"n{n}.example.org", message_id=n) for n in range(1000)]

    async def story() -> list[bytes]:
        async with window() as w:
            reader, writer = await w.connect()
            writer.write(framed(*queries))
            replies = [await read_message(reader) for _ in queries]
            return replies

    assert sorted(play(story())) == sorted(reply_to(query) for query in queries)  # type: ignore[type-var,arg-type]


@pytest.mark.parametrize("connections", [1, 8])
def test_a_flood_of_queries_leaves_the_loop_its_other_work(play: Play, connections: int) -> None:
    """Between two rounds of the loop no more is answered than a few turns, however much has come."""
    queries = [ask(f"n{n}.example.org", message_id=n) for n in range(4000 // connections)]

    async def story() -> tuple[int, list[int]]:
        async with window() as w:
            clients = [await w.connect() for _ in range(connections)]
            loop = asyncio.get_running_loop()
            marks = [0]

            def look() -> None:
                marks.append(len(w.answerer.seen))
                if marks[-1] < connections * len(queries):
                    loop.call_soon(look)

            async def count(reader: asyncio.StreamReader) -> int:
                return len({await read_message(reader) for _ in queries})

            for _, writer in clients:
                writer.write(framed(*queries))
            look()
            counts = await asyncio.gather(*(count(reader) for reader, _ in clients))
            return max(after - before for before, after in itertools.pairwise(marks)), counts

    most, counts = play(story())  # type: ignore[misc]
    # One turn from the queue and, while that is empty, one of a connection that has just been read.
    assert most <= 2 * TURN
    assert counts == [len(queries)] * connections


def test_a_flood_does_not_fill_the_memory_before_it_is_answered(play: Play) -> None:
    """What lies unanswered of a connection is one read and one message at most, whatever its reason to wait."""
    queries = framed(*[ask(f"{kind}{n}.example") for kind in ("www", "later") for n in range(8000)])

    async def story() -> tuple[int, int]:
        async with window(StreamTerms(in_flight=8)) as w:
            _, writer = await w.connect()
            writer.write(queries)
            await condition(lambda: len(w.server) == 1)
            (connection,) = w.server.places
            most = 0

            def is_stuck() -> bool:
                nonlocal most
                most = max(most, len(connection._buffer))
                return connection.in_flight == 8

            async with asyncio.timeout(PATIENCE):
                while not is_stuck():
                    await asyncio.sleep(0)
            for _ in range(100):  # rounds in which nothing more must be read
                await asyncio.sleep(0)
                is_stuck()
            return most, connection.in_flight

    most, in_flight = play(story())  # type: ignore[misc]
    assert in_flight == 8
    assert most <= READ_OCTETS + 2 + 65535


def test_all_that_came_before_the_end_of_a_connection_is_answered(play: Play) -> None:
    """Also what has to wait for another turn when the client's last octet is read."""
    queries = [ask(f"n{n}.example.org", message_id=n) for n in range(5 * TURN)]

    async def story() -> tuple[int, bool]:
        async with window() as w:
            reader, writer = await w.connect()
            writer.write(framed(*queries))
            writer.write_eof()
            replies = {await read_message(reader) for _ in queries}
            return len(replies), await ends(reader)

    assert play(story()) == (len(queries), True)


def test_answers_come_as_they_are_ready(play: Play) -> None:
    """A question that waits for an upstream holds up none of those behind it (RFC 7766 §6.2.1.1)."""
    queries = [ask(name, message_id=n) for n, name in enumerate(["later1.example", "www.example", "later2.example"])]

    async def story() -> list[int]:
        async with window() as w:
            reader, writer = await w.connect()
            writer.write(framed(*queries))
            first = await read_message(reader)
            w.answerer.release()
            rest = [await read_message(reader) for _ in range(2)]
            return [reply[1] for reply in (first, *rest)]

    assert play(story()) == [1, 2, 0]


def test_octets_may_come_one_by_one(play: Play) -> None:
    """A message is whole when it is whole, wherever the network cuts it."""

    async def story() -> list[bytes]:
        async with window() as w:
            reader, writer = await w.connect()
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for octet in framed(WWW, WWW):
                writer.write(bytes([octet]))
                await writer.drain()
                await asyncio.sleep(0)
            replies = [await read_message(reader) for _ in range(2)]
            return replies

    assert play(story()) == [reply_to(WWW)] * 2


@pytest.mark.parametrize("packet", [b"", b"x", ask("silent.example")], ids=["no octets", "one octet", "silence"])
def test_a_message_that_gets_no_answer_does_not_end_the_connection(play: Play, packet: bytes) -> None:
    """What follows it is answered."""

    async def story() -> tuple[bytes, int]:
        async with window() as w:
            reader, writer = await w.connect()
            writer.write(framed(packet, packet, WWW))
            reply = await read_message(reader)
            return reply, len(w.answerer.seen)

    assert play(story()) == (reply_to(WWW), 3)


def test_an_answer_given_while_the_query_is_being_read_is_sent(play: Play) -> None:
    """The answerer may call back before it returns."""

    async def story() -> bytes:
        async with window() as w:
            reader, writer = await w.connect()
            writer.write(framed(ask("soon.example", message_id=7)))
            reply = await read_message(reader)
            return reply

    assert play(story()) == reply_to(ask("soon.example", message_id=7))


def test_who_asks_is_told_to_the_house(play: Play) -> None:
    """Address and port as evidence needs them."""

    async def story() -> tuple[Client, int]:
        async with window() as w:
            reader, writer = await w.connect()
            writer.write(framed(WWW))
            await read_message(reader)
            port = writer.get_extra_info("sockname")[1]
            return w.answerer.seen[0][1], port

    client, port = play(story())  # type: ignore[misc]
    assert client == Client(bytes([127, 0, 0, 1]), sockaddr("127.0.0.1", port), Transport.TCP)


def test_a_client_that_has_sent_its_last_still_gets_its_answers(play: Play) -> None:
    """Half-closed is not closed; when all is answered, the server closes."""

    async def story() -> tuple[list[bytes], bool]:
        async with window() as w:
            reader, writer = await w.connect()
            writer.write(framed(ask("later.example"), WWW))
            writer.write_eof()
            first = await read_message(reader)
            w.answerer.release()
            second = await read_message(reader)
            ended = await ends(reader)
            return [first, second], ended

    assert play(story()) == ([reply_to(WWW), reply_to(ask("later.example"))], True)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"\0", framed(WWW)[:-1]], ids=["nothing", "half a length", "half a message"])
def test_an_idle_connection_is_closed(play: Play, sent: bytes) -> None:
    """After idle_timeout without a whole message, however many octets of one have come."""

    async def story() -> bool:
        async with window(StreamTerms(PlaceTerms(idle_timeout=5.0))) as w:
            reader, writer = await w.connect()
            writer.write(sent)
            await condition(lambda: len(w.server) == 1)
            w.clock.ahead = 6.0
            ended = await ends(reader)
            return ended and len(w.server) == 0

    assert play(story()) is True


@pytest.mark.slow
def test_a_connection_that_waits_for_its_answer_is_not_idle(play: Play) -> None:
    """The time that an upstream takes is not the client's."""

    async def story() -> bytes:
        async with window(StreamTerms(PlaceTerms(idle_timeout=5.0))) as w:
            reader, writer = await w.connect()
            writer.write(framed(ask("later.example")))
            await condition(lambda: bool(w.answerer.waiting))
            w.clock.ahead = 60.0
            await asyncio.sleep(1.2)  # the sweep is every second; that it does nothing has no other sign
            w.answerer.release()
            reply = await read_message(reader)
            return reply

    assert play(story()) == reply_to(ask("later.example"))


def test_three_hundred_half_open_connections_lock_nobody_out(play: Play) -> None:
    """With places for 50, the one that has been idle longest makes room for each newcomer."""

    async def story() -> tuple[bytes, int]:
        async with window(StreamTerms(PlaceTerms(connections=50, per_client=0))) as w:
            for _ in range(300):
                _, writer = await w.connect()
                writer.write(b"\0")
            reader, writer = await w.connect()
            writer.write(framed(WWW))
            reply = await read_message(reader)
            most = len(w.server)
            return reply, most

    reply, most = play(story())  # type: ignore[misc]
    assert reply == reply_to(WWW)
    assert most <= 50


def test_one_client_has_no_more_places_than_the_limit(play: Play) -> None:
    """Its own oldest connection makes room, nobody else's."""

    async def story() -> tuple[int, list[bool]]:
        async with window(StreamTerms(PlaceTerms(connections=100, per_client=3))) as w:
            other_reader, other = await w.connect("127.0.0.2")
            mine = [await w.connect() for _ in range(6)]
            await condition(lambda: w.server.places.evicted == 3)
            other.write(framed(WWW))
            await read_message(other_reader)
            gone = [await ends(reader) for reader, _ in mine[:3]]
            held = len(w.server)
            return held, gone

    assert play(story()) == (4, [True] * 3)


def test_a_busy_connection_is_not_put_out(play: Play) -> None:
    """Who waits for an answer keeps his place; the newcomer goes instead."""

    async def story() -> tuple[bool, bytes]:
        async with window(StreamTerms(PlaceTerms(connections=1, per_client=0))) as w:
            reader, writer = await w.connect()
            writer.write(framed(ask("later.example")))
            await condition(lambda: bool(w.answerer.waiting))
            late_reader, _ = await w.connect()
            refused = await ends(late_reader)
            w.answerer.release()
            reply = await read_message(reader)
            return refused, reply

    assert play(story()) == (True, reply_to(ask("later.example")))


def test_no_more_queries_than_the_limit_are_in_flight(play: Play) -> None:
    """The next ones stay unread until there is room, and none is lost."""
    queries = [ask(f"later{n}.example", message_id=n) for n in range(40)]

    async def story() -> tuple[int, int]:
        async with window(StreamTerms(in_flight=8)) as w:
            reader, writer = await w.connect()
            writer.write(framed(*queries))
            most = answered = 0
            while answered < len(queries):
                await condition(lambda: bool(w.answerer.waiting))
                most = max(most, len(w.answerer.waiting))
                w.answerer.waiting, released = [], w.answerer.waiting
                for packet, later in released:
                    later(reply_to(packet))
                    await read_message(reader)
                    answered += 1
            return most, answered

    assert play(story()) == (8, 40)


@contextlib.contextmanager
def greedy_client(port: int) -> Iterator[socket.socket]:
    """A client with hardly any room for answers, which it never reads."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", port))
        yield sock


def test_a_client_that_never_reads_costs_bounded_memory(play: Play) -> None:
    """Its queries are left unread once some answers wait for it, and others are served meanwhile."""
    queries = framed(*[ask(f"large{n}.example") for n in range(400)])  # 24 MB of answers

    async def story() -> tuple[int, bytes]:
        async with window() as w:
            with greedy_client(w.port) as greedy:
                greedy.sendall(queries)
                await condition(lambda: bool(w.answerer.seen))
                seen = -1
                while seen != len(w.answerer.seen):
                    seen = len(w.answerer.seen)
                    await asyncio.sleep(0.1)  # until it has come to rest
                reader, writer = await w.connect()
                writer.write(framed(WWW))
                return seen, await read_message(reader)

    seen, reply = play(story())  # type: ignore[misc]
    assert reply == reply_to(WWW)
    # The kernel's socket buffers (a few MB on loopback) and the high-water mark, but not all 400.
    assert seen < 200


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 100], ids=["little", "much"])
def test_a_client_that_never_reads_is_put_out_in_the_end(play: Play, count: int) -> None:
    """However little waits for it: a polite close would wait for ever, and its socket with it."""

    async def story() -> int:
        async with window(StreamTerms(PlaceTerms(idle_timeout=5.0)), FakeAnswerer(65_000)) as w:
            with greedy_client(w.port) as greedy:
                await condition(lambda: len(w.server) == 1)
                transport = next(iter(w.server.places))._transport
                assert transport is not None
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                greedy.sendall(framed(*[ask(f"large{n}.example") for n in range(count)]))
                await condition(lambda: transport.get_write_buffer_size() > 0)
                w.clock.ahead = 6.0
                await condition(lambda: len(w.server) == 0)
                greedy.settimeout(PATIENCE)
                received = 0
                while octets := greedy.recv(65536):
                    received += len(octets)
                return received

    assert play(story()) < 65_002 * count  # what was not yet the kernel's is gone, and the socket with it


def test_the_queue_of_the_listening_socket_is_as_long_as_was_asked_for(play: Play) -> None:
    """A burst of connections waits in the kernel instead of being refused."""

    async def story() -> int:
        async with window() as w:
            (sock,) = w.server._servers[0].sockets
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            return struct.unpack_from("<I", info, 28)[0]  # tcpi_sacked: of a listening socket, its backlog (tcp(7))

    with open("/proc/sys/net/core/somaxconn") as file:
        assert play(story()) == min(TCP_BACKLOG, int(file.read()))


def test_closing_answers_what_is_in_flight_and_takes_no_more(play: Play) -> None:
    """Nobody new gets in, nothing new is read, what was asked is answered, then all is closed."""

    async def story() -> tuple[list[bytes], bool, bool]:
        async with window() as w:
            reader, writer = await w.connect()
            writer.write(framed(ask("later.example", message_id=1)))
            await condition(lambda: bool(w.answerer.waiting))
            closing = asyncio.ensure_future(w.server.close(PATIENCE))
            await asyncio.sleep(0.05)
            writer.write(framed(ask("www.example", message_id=2)))
            refused = False
            try:
                await w.connect()
            except OSError:
                refused = True
            w.answerer.release()
            reply = await read_message(reader)
            ended = await ends(reader)
            await closing
            return [reply], refused, ended

    assert play(story()) == ([reply_to(ask("later.example", message_id=1))], True, True)


def test_closing_does_not_wait_for_ever(play: Play) -> None:
    """Patience has an end, whatever upstreams do."""

    async def story() -> bool:
        async with window() as w:
            reader, writer = await w.connect()
            writer.write(framed(ask("never.example")))
            await condition(lambda: bool(w.answerer.seen))
            await w.server.close(0.1)
            ended = await ends(reader)
            return ended

    assert play(story()) is True
