"""The sockets of one upstream: what is asked together leaves together, and who waits is told once."""

import asyncio
import contextlib
import ctypes
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from resolver.transport.forward import QUERIES_PER_SOCKET, UpstreamPorts, Waiter

QUERY = bytes(2) + b"\1\0\0\1" + bytes(6) + b"\3www\7example\3org\0\0\1\0\1"
PATIENCE = 5.0  # seconds


def numbered(number: int) -> bytes:
    """A query of its own."""
    return QUERY + number.to_bytes(4, "big")


class Waiting:
    """A waiter that writes down what it is told."""

    def __init__(self, takes: Callable[[bytes, bytes], bool] = lambda reply, sent: True) -> None:
        self.takes = takes
        self.told: list[bytes | OSError] = []
        self.sent = b""
        self.done = asyncio.get_running_loop().create_future()

    def take(self, reply: bytes, sent: bytes) -> bool:
        """Take what `takes` takes."""
        if not self.takes(reply, sent):
            return False
        self.sent = sent
        self._tell(reply)
        return True

    def fail(self, error: OSError) -> None:
        """Take the error."""
        self._tell(error)

    def _tell(self, what: bytes | OSError) -> None:
        self.told.append(what)
        if not self.done.done():
            self.done.set_result(None)


class Many:
    """Questions that are asked many at a time; of the replies those are taken that `takes` takes."""

    def __init__(self, *waiters: Waiting, takes: Callable[[int], bool] = lambda number: True) -> None:
        self.staged = list(enumerate(waiters))
        self.takes = takes
        self.taken: list[int] = []

    def is_staged(self) -> bool:
        """Whether there is more."""
        return bool(self.staged)

    def write(
        self, rooms: tuple[int, int, int], ready: int, waiting: dict[int, tuple[Waiter, bytes, float]], random: bytes,
        due: float,
    ) -> int:  # fmt: skip
        """Write queries where they are to be written."""
        ids = [random[k : k + 2] for k in range(0, len(random), 2)]
        while self.staged and ready < 64:
            message_id = ids.pop()
            if int.from_bytes(message_id, "big") in waiting:
                continue
            number, waiter = self.staged.pop(0)
            sent = message_id + numbered(number)[2:]
            ctypes.memmove(rooms[0] + rooms[2] * ready, sent, len(sent))
            ctypes.c_uint64.from_address(rooms[1] + 16 * ready + 8).value = len(sent)
            waiting[int.from_bytes(message_id, "big")] = waiter, sent, due
            ready += 1
        return ready

    def give_up(self, error: OSError) -> None:
        """Tell those who were not asked for."""
        for _, waiter in self.staged:
            waiter.fail(error)
        self.staged.clear()

    def take(
        self, rooms: tuple[int, int], received: memoryview, count: int, waiting: dict[int, tuple[Waiter, bytes, float]]
    ) -> list[int]:
        """Take some."""
        rest = []
        for k in range(count):
            octets = ctypes.string_at(rooms[0] + rooms[1] * k, received[16 * k + 14])
            if not self.takes(number := int.from_bytes(octets[-4:], "big")):
                rest.append(k)
                continue
            self.taken.append(number)
            del waiting[int.from_bytes(octets[:2], "big")]
        return rest


class Upstream(asyncio.DatagramProtocol):
    """A server on loopback that gives back what `react` makes of a query."""

    def __init__(self, react: Callable[[bytes], list[bytes]]) -> None:
        self.react = react
        self.asked: list[tuple[bytes, tuple[str, int]]] = []

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append((data, addr))
        for reply in self.react(data):
            self.transport.sendto(reply, addr)


@contextlib.asynccontextmanager
async def upstream(
    react: Callable[[bytes], list[bytes]], sockets: int = 4
) -> AsyncIterator[tuple[Upstream, UpstreamPorts]]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: Upstream(react), local_addr=("127.0.0.1", 0))
    ports = UpstreamPorts(loop, socket.AF_INET, transport.get_extra_info("sockname"), sockets)
    try:
        yield server, ports
    finally:
        ports.close()
        transport.close()
        await asyncio.sleep(0)


def echo(query: bytes) -> list[bytes]:
    return [query]


async def settled(*waiters: Waiting) -> None:
    async with asyncio.timeout(PATIENCE):
        for waiter in waiters:
            await waiter.done


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 150])
def test_what_is_asked_in_one_turn_is_told_to_who_asked_it(count: int) -> None:
    """Each query under an id of its own, each reply to its own waiter, once."""

    async def story() -> None:
        async with upstream(echo) as (server, ports):
            waiters = [Waiting() for _ in range(count)]
            for number, waiter in enumerate(waiters):
                ports.post(numbered(number), waiter, PATIENCE)
            await settled(*waiters)
            for number, waiter in enumerate(waiters):
                assert waiter.sent[2:] == numbered(number)[2:]
                assert waiter.told == [waiter.sent]
            assert len({(data[:2], addr) for data, addr in server.asked}) == count
            assert len({addr for _, addr in server.asked}) <= (count + 63) // 64  # a socket a system call

    asyncio.run(story())


def test_the_socket_of_each_turn_is_drawn() -> None:
    """Whoever learned the port of one question knows little of the next one's (RFC 5452 §9.2)."""

    async def story() -> list[int]:
        async with upstream(echo, sockets=16) as (server, ports):
            for _ in range(400):
                waiter = Waiting()
                ports.post(QUERY, waiter, PATIENCE)
                await settled(waiter)
            return [addr[1] for _, addr in server.asked]

    asked = asyncio.run(story())
    assert len(set(asked)) == 16
    assert max(asked.count(port) for port in set(asked)) < 60


def test_what_is_not_taken_is_ignored_and_counted() -> None:
    """The wait goes on for the true reply."""

    async def story() -> None:
        async with upstream(lambda query: [query + b"!", query[:1], b"", query]) as (_, ports):
            waiter = Waiting(lambda reply, sent: reply == sent)
            ports.post(QUERY, waiter, PATIENCE)
            await settled(waiter)
            assert waiter.told == [waiter.sent]
            assert ports.ignored == 1  # what has no id of a question is nobody's

    asyncio.run(story())


def test_who_waits_too_long_is_told_in_time() -> None:
    """Each at its own time, however many wait; a reply that comes afterwards is nobody's."""

    async def story() -> None:
        async with upstream(lambda query: []) as (server, ports):
            loop = asyncio.get_running_loop()
            started = loop.time()
            long, short = Waiting(), Waiting()
            ports.post(numbered(1), long, 0.2)
            ports.post(numbered(2), short, 0.05)
            await settled(short)
            assert 0.04 < loop.time() - started < 0.15
            assert not long.told
            await settled(long)
            assert loop.time() - started > 0.19
            assert [type(told) for told in long.told + short.told] == [TimeoutError, TimeoutError]
            for data, addr in server.asked:
                server.transport.sendto(data, addr)
            later = Waiting()
            ports.post(numbered(3), later, 0.05)
            await settled(later)
            assert len(long.told) == len(short.told) == 1

    asyncio.run(story())


def test_a_closed_port_is_told_to_all_who_wait_on_it() -> None:
    """The kernel tells it once, maybe only when the next question is sent."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            to = sock.getsockname()
        ports = UpstreamPorts(loop, socket.AF_INET, to, 1)
        started = loop.time()
        waiters = [Waiting() for _ in range(100)]
        for number, waiter in enumerate(waiters):
            ports.post(numbered(number), waiter, PATIENCE)
        await settled(*waiters)
        assert loop.time() - started < 1.0
        assert [type(told) for waiter in waiters for told in waiter.told] == [ConnectionRefusedError] * 100
        ports.close()

    asyncio.run(story())


def test_a_socket_that_can_not_be_opened_is_told() -> None:
    """As any other way in which an upstream can not be reached."""

    async def story() -> None:
        ports = UpstreamPorts(asyncio.get_running_loop(), socket.AF_INET, ("255.255.255.255", 53), 1)
        waiter = Waiting()
        ports.post(QUERY, waiter, PATIENCE)
        await settled(waiter)
        assert isinstance(waiter.told[0], PermissionError)
        ports.close()

    asyncio.run(story())


def test_who_is_told_may_ask_again_at_once() -> None:
    """From within the reply, and from within the failure; on the same sockets."""

    async def story() -> None:
        async with upstream(echo, sockets=1) as (server, ports):
            last = Waiting()

            class Chain(Waiting):
                def __init__(self, left: int) -> None:
                    super().__init__()
                    self.left = left

                def take(self, reply: bytes, sent: bytes) -> bool:
                    ports.post(numbered(self.left), Chain(self.left - 1) if self.left else last, PATIENCE)
                    return super().take(reply, sent)

            ports.post(QUERY, Chain(2 * QUERIES_PER_SOCKET), PATIENCE)
            await settled(last)
            assert len(server.asked) == 2 * QUERIES_PER_SOCKET + 2
            assert len({addr for _, addr in server.asked}) == 3

    asyncio.run(story())


def test_what_is_staged_leaves_at_once_with_what_waits() -> None:
    """64 a system call; a reply that is not taken by all together is told to the one who waits for it."""

    async def story() -> None:
        async with upstream(echo) as (server, ports):
            alone = Waiting()
            ports.post(numbered(1000), alone, PATIENCE)
            waiters = [Waiting() for _ in range(150)]
            many = Many(*waiters, takes=lambda number: number < 1000 and number % 3 > 0)
            ports.post_staged(many, PATIENCE)
            await settled(alone, *waiters[::3])
            async with asyncio.timeout(PATIENCE):
                while len(many.taken) < 100:
                    await asyncio.sleep(0)
            assert sorted(many.taken) == [number for number in range(150) if number % 3]
            assert [waiter.told for waiter in waiters[1::3] + waiters[2::3]] == [[]] * 100
            assert [waiter.told[0][2:] for waiter in waiters[::3]] == [numbered(n)[2:] for n in range(0, 150, 3)]
            assert len({addr for _, addr in server.asked}) <= 3

    asyncio.run(story())


def test_who_was_staged_is_told_when_it_took_too_long() -> None:
    """As who was posted is."""

    async def story() -> None:
        async with upstream(lambda query: []) as (_, ports):
            waiters = [Waiting() for _ in range(3)]
            ports.post_staged(Many(*waiters), 0.05)
            await settled(*waiters)
            assert [type(told) for waiter in waiters for told in waiter.told] == [TimeoutError] * 3

    asyncio.run(story())


@pytest.mark.parametrize("closed", [False, True])
def test_what_is_staged_and_can_not_be_sent_is_given_up(closed: bool) -> None:
    """Where no socket can be opened, and where all were closed."""

    async def story() -> None:
        ports = UpstreamPorts(asyncio.get_running_loop(), socket.AF_INET, ("255.255.255.255", 53), 1)
        if closed:
            ports.close()
        waiter = Waiting()
        ports.post_staged(Many(waiter), PATIENCE)
        assert len(waiter.told) == 1
        ports.close()

    asyncio.run(story())


def test_closing_tells_who_still_waits() -> None:
    """Whether their question was sent or not; and nothing is sent afterwards."""

    async def story() -> None:
        async with upstream(lambda query: []) as (server, ports):
            sent, unsent = Waiting(), Waiting()
            ports.post(QUERY, sent, PATIENCE)
            while not server.asked:
                await asyncio.sleep(0)
            ports.post(QUERY, unsent, PATIENCE)
            ports.close()
            assert [str(told) for told in sent.told + unsent.told] == ["closing", "closing"]
            late = Waiting()
            ports.post(QUERY, late, PATIENCE)
            assert [str(told) for told in late.told] == ["closing"]
            await asyncio.sleep(0)
            assert len(server.asked) == 1

    asyncio.run(story())
