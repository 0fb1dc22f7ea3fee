"""TCP from clients (RFC 7766): many queries on a connection at once, answered as they are ready.

Everything a client can hold on to is bounded: connections in all and per address, queries under way per connection,
octets read and not yet answered, octets waiting for a client that does not read, and the time it may be idle or keep
half a message. When all places are taken, the connection that has been idle longest makes room, so half-open ones lock
nobody out. And the worker's time: who has sent more than a turn's messages waits for the next turn in one queue with
all others of his kind, so that between two turns the loop sees to UDP and to everybody else.
"""

import asyncio
import socket
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from resolver.transport.sockets import TCP_BACKLOG
from resolver.transport.udp import Answerer

TURN = 64  # messages of one connection answered in one go, and of all that wait in the queue, in one round of the loop
READ_OCTETS = 16 * 1024  # read in one go: what may lie unanswered of a connection is this and one message
WRITE_HIGH_WATER = 128 * 1024  # octets waiting for a client before its next queries are left unread
SWEEP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class StreamTerms:
    """Limits; `idle_timeout` in seconds. `per_client` 0 stands for no limit."""

    connections: int = 1024
    per_client: int = 256
    idle_timeout: float = 10.0
    in_flight: int = 256


class StreamServer:
    """All TCP connections of one worker."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answerer: Answerer,
        terms: StreamTerms,
        sockaddr: Callable[[str, int], bytes],
        now: Callable[[], float],
    ) -> None:
        """Set up; `listen` opens the doors.

        Args:
            loop: The worker's.
            answerer: What to answer.
            terms: Limits.
            sockaddr: Makes the 28 octets of an address for hit records.
            now: Monotonic seconds.
        """
        self._loop = loop
        self._answerer = answerer
        self.terms = terms
        self._sockaddr = sockaddr
        self.now = now
        self._connections: OrderedDict[_Connection, None] = OrderedDict()  # least recently active first
        self._per_client: dict[str, int] = {}
        self._queue: deque[_Connection] = deque()  # those that wait for their turn
        # One for all connections: what is read is taken out before the loop reads from the next.
        self.reading_room = memoryview(bytearray(READ_OCTETS))
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._connections)

    async def listen(self, sock: socket.socket) -> None:
        """Accept connections from a listening socket."""
        # The loop calls listen(2) again, so it has to be told the backlog again.
        self._servers.append(await self._loop.create_server(lambda: _Connection(self), sock=sock, backlog=TCP_BACKLOG))
        if self._sweeper is None:
            self._sweep()

    async def close(self, patience: float) -> None:
        """Stop accepting, let what is in flight be answered for so many seconds, and close."""
        for server in self._servers:
            server.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        end = self.now() + patience
        for connection in list(self._connections):
            connection.stop_reading()
        while any(connection.is_busy for connection in self._connections) and self.now() < end:
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.close()

    def admit(self, connection: "_Connection") -> bool:
        """Take a connection in, if need be in the place of the one that was idle longest; False: there is no place."""
        terms = self.terms
        held = self._per_client.get(connection.host, 0)
        if terms.per_client and held >= terms.per_client and not self._evict(connection.host):
            return False
        if len(self._connections) >= terms.connections and not self._evict(None):
            return False
        self._connections[connection] = None
        self._per_client[connection.host] = self._per_client.get(connection.host, 0) + 1
        return True

    def _evict(self, host: str | None) -> bool:
        for connection in self._connections:
            if not connection.in_flight and (host is None or connection.host == host):
                self.evicted += 1
                connection.abort()
                return True
        return False

    def release(self, connection: "_Connection") -> None:
        """Let a connection's place go."""
        if self._connections.pop(connection, self) is self:
            return
        left = self._per_client[connection.host] - 1
        if left:
            self._per_client[connection.host] = left
        else:
            del self._per_client[connection.host]

    def touch(self, connection: "_Connection") -> None:
        """Note that a connection did something useful just now."""
        if connection in self._connections:
            self._connections.move_to_end(connection)

    @property
    def is_crowded(self) -> bool:
        """Whether connections wait for their turn."""
        return bool(self._queue)

    def queue(self, connection: "_Connection") -> None:
        """Let a connection's `take_turn` be called when all that wait already have had theirs."""
        if not self._queue:
            self._loop.call_soon(self._next_turn)
        self._queue.append(connection)

    def _next_turn(self) -> None:
        # One a round of the loop, however many wait: what others of the loop wait for does not grow with the queue.
        connection = self._queue.popleft()
        if self._queue:
            self._loop.call_soon(self._next_turn)
        connection.take_turn()

    def address(self, host: str, port: int) -> tuple[bytes, bytes]:
        """(4 or 16 octets, 28 octets) of a client's address."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.inet_pton(family, host.partition("%")[0]), self._sockaddr(host, port)

    def answer(
        self, packet: bytes, address: bytes, sockaddr: bytes, later: Callable[[bytes | None], None]
    ) -> bytes | None:
        """Pass a query on to the house."""
        return self._answerer.answer(packet, address, sockaddr, "tcp", later)

    def _sweep(self) -> None:
        deadline = self.now() - self.terms.idle_timeout
        for connection in list(self._connections):
            if connection.active_at > deadline:
                break  # ordered by activity: all that follow are younger
            connection.expire()
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)


class _Connection(asyncio.BufferedProtocol):
    """One client's connection: two octets of length before each message (RFC 1035 §4.2.2)."""

    def __init__(self, server: StreamServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._blocked = False  # the client does not read what we write
        self._paused = False
        self._finished = False  # the client will send no more
        self._stopped = False  # we take no more
        self._working = False
        self._queued = False  # whole messages are in the buffer, and their turn will come
        self.host = ""
        self.in_flight = 0
        self.active_at = server.now()
        self._address = self._peer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are none by inheritance
        peer = transport.get_extra_info("peername")
        if not peer:
            self._transport.abort()
            return
        self.host = peer[0]
        self._address, self._peer = self._server.address(peer[0], peer[1])
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        if not self._server.admit(self):
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.release(self)
        self._transport = None
        self._buffer.clear()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._server.reading_room

    def buffer_updated(self, nbytes: int) -> None:
        self._buffer += self._server.reading_room[:nbytes]
        self._go_on()

    def eof_received(self) -> bool:
        # The client may have closed its sending side only: what it asked is still answered.
        self._finished = True
        self._close_when_done()
        return True

    def pause_writing(self) -> None:
        self._blocked = True
        self._breathe()

    def resume_writing(self) -> None:
        self._blocked = False
        self._breathe()
        self._go_on()

    @property
    def is_busy(self) -> bool:
        """Whether answers to whole messages are still to come."""
        return self.in_flight > 0 or self._queued

    def take_turn(self) -> None:
        """Answer the next of the messages that were left over."""
        self._queued = False
        self._work()

    def _go_on(self) -> None:
        """Answer what is in the buffer, or get in line behind those that wait."""
        if self._queued:
            return
        if self._server.is_crowded:
            self._get_in_line()
            self._breathe()
        else:
            self._work()

    def _get_in_line(self) -> None:
        self._queued = True
        self._server.queue(self)

    def _work(self) -> None:
        """Answer the whole messages in the buffer, as far as the limits let us, and a turn of them at most."""
        buffer = self._buffer
        start = waiting = taken = 0
        out: list[bytes] = []
        terms = self._server.terms
        self._working = True
        while (
            self._transport is not None
            and not self._blocked
            and self.in_flight < terms.in_flight
            and len(buffer) - start >= 2
        ):
            octets = buffer[start] << 8 | buffer[start + 1]
            if len(buffer) - start - 2 < octets:
                break
            if taken == TURN:
                self._get_in_line()
                break
            taken += 1
            packet = bytes(buffer[start + 2 : start + 2 + octets])
            start += 2 + octets
            self.in_flight += 1
            reply = self._server.answer(packet, self._address, self._peer, self._later)
            if reply is not None:
                self.in_flight -= 1
                out += (len(reply).to_bytes(2, "big"), reply)
                waiting += len(reply)
                if waiting >= WRITE_HIGH_WATER:
                    self._transport.write(b"".join(out))
                    out.clear()
                    waiting = 0
        self._working = False
        del buffer[:start]
        if start:
            self.active_at = self._server.now()
            self._server.touch(self)
        if out and self._transport is not None:
            self._transport.write(b"".join(out))
        self._breathe()
        if self._finished:
            self._close_when_done()

    def _later(self, reply: bytes | None) -> None:
        self.in_flight -= 1
        if self._transport is None:
            return
        if reply is not None:
            self.active_at = self._server.now()
            self._server.touch(self)
            self._transport.write(len(reply).to_bytes(2, "big") + reply)
        if self._working:
            return  # settled while its query was being read: `_work` goes on by itself
        if self._buffer:
            self._go_on()
        else:
            self._breathe()
        if self._finished:
            self._close_when_done()

    def _breathe(self) -> None:
        """Read on or stop reading, as the limits say."""
        if self._transport is None or self._transport.is_closing():
            return
        full = self._stopped or self._queued or self._blocked or self.in_flight >= self._server.terms.in_flight
        if full and not self._paused:
            self._transport.pause_reading()
            self._paused = True
        elif not full and self._paused:
            self._transport.resume_reading()
            self._paused = False

    def _close_when_done(self) -> None:
        if not self.is_busy and self._transport is not None and not self._blocked:
            self._transport.close()

    def expire(self) -> None:
        """Close after too long without a whole message in or an answer out."""
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size():
            self.abort()  # the client does not read; a close would wait for it for ever
        elif not self.is_busy:
            self._transport.close()
            self._server.release(self)

    def stop_reading(self) -> None:
        """Take no further queries."""
        self._stopped = True
        self._breathe()

    def close(self) -> None:
        """Close, sending what is still to be sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once and free the place."""
        if self._transport is not None:
            self._transport.abort()
        self._server.release(self)
