"""Queries to one upstream, and its replies.

Over UDP, a pool of connected sockets on ports of the kernel's choosing (random, RFC 5452 §9.2; a connected socket hears
nobody but the upstream); each query goes out on a socket drawn at random under an id drawn at random, and a socket is
replaced after a while, so that a port found out is soon worth nothing. A reply that is not accepted is ignored: the
wait goes on for the true one.
"""

import asyncio
import random
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from resolver.transport.sockets import format_address
from resolver.wire.message import WireError

T = TypeVar("T")

QUERIES_PER_SOCKET = 1024
_random = random.SystemRandom()


class UpstreamExchange:
    """The way to one upstream."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: str, port: int, sockets: int) -> None:
        """Set up; sockets are opened as they are needed.

        Args:
            loop: The worker's.
            host: Address of the upstream.
            port: Its port.
            sockets: How many UDP sockets the pool holds.
        """
        self._loop = loop
        self._host, self._port = host, port
        # Numeric, with the scope of a link-local address made a number: nothing is looked up here.
        self._to = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][4]
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._pool: list[_UdpSocket | None] = [None] * sockets
        self.name = format_address(host, port)
        self.ignored = 0

    async def over_udp(self, query: bytes, accept: Callable[[bytes, bytes], T], wait: float) -> T:
        """Send a query and return what `accept(reply, query as sent)` makes of the first reply that it takes.

        Args:
            query: A message whose first two octets, the id, are replaced.
            accept: Raises WireError for what is no reply to this query.
            wait: Seconds.

        Raises:
            OSError: The upstream can not be reached.
            TimeoutError: No reply within `wait`.
        """
        sock = self._draw()
        future: asyncio.Future[T] = self._loop.create_future()

        def take(reply: bytes) -> None:
            try:
                taken = accept(reply, sent)
            except WireError:
                self.ignored += 1
                return
            if not future.done():
                future.set_result(taken)

        message_id, sent = sock.send(query, take, future)
        try:
            return await asyncio.wait_for(future, wait)
        finally:
            sock.forget(message_id)

    async def over_tcp(self, query: bytes, accept: Callable[[bytes, bytes], T], wait: float) -> T:
        """The same over a TCP connection of its own (RFC 7766 §5).

        Raises:
            OSError: The upstream can not be reached, or closed the connection.
            TimeoutError: No reply within `wait`.
            WireError: A reply that does not belong to the query.
        """
        sent = _random.randbytes(2) + query[2:]
        async with asyncio.timeout(wait):
            reader, writer = await asyncio.open_connection(self._host, self._port)
            try:
                writer.write(len(sent).to_bytes(2, "big") + sent)
                octets = int.from_bytes(await reader.readexactly(2), "big")
                return accept(await reader.readexactly(octets), sent)
            except asyncio.IncompleteReadError:
                raise ConnectionResetError("the upstream closed the connection before its reply was whole") from None
            finally:
                writer.close()

    def close(self) -> None:
        """Close the sockets; what still waits fails."""
        for sock in self._pool:
            if sock is not None:
                sock.close(OSError("closing"))

    def _draw(self) -> "_UdpSocket":
        place = _random.randrange(len(self._pool))
        sock = self._pool[place]
        if sock is None or sock.is_worn:
            if sock is not None:
                sock.retire()
            sock = self._pool[place] = _UdpSocket(self._loop, self._family, self._to)
        return sock


class _UdpSocket:
    """A connected socket and who waits on it, by id."""

    def __init__(self, loop: asyncio.AbstractEventLoop, family: int, to: tuple[Any, ...]) -> None:
        self._loop = loop
        self._waiting: dict[int, tuple[Callable[[bytes], None], asyncio.Future]] = {}  # type: ignore[type-arg]
        self._sent = 0
        self._retired = False
        self._sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._sock.setblocking(False)
            self._sock.connect(to)
        except OSError:
            self._sock.close()
            raise
        loop.add_reader(self._sock.fileno(), self._on_readable)

    @property
    def is_worn(self) -> bool:
        """Whether it is time for a new port, or the socket is closed."""
        return self._sent >= QUERIES_PER_SOCKET or self._sock.fileno() < 0

    def send(self, query: bytes, take: Callable[[bytes], None], future: "asyncio.Future[T]") -> tuple[int, bytes]:
        """Send under a fresh id; returns (the id, the octets as sent)."""
        message_id = _random.randrange(65536)
        while message_id in self._waiting:
            message_id = _random.randrange(65536)
        sent = message_id.to_bytes(2, "big") + query[2:]
        try:
            self._sock.send(sent)
        except OSError as error:
            # It may be the ICMP error of an earlier query, which is told once, to whoever asks the socket first.
            self._fail(error)
            raise
        self._sent += 1
        self._waiting[message_id] = (take, future)
        return message_id, sent

    def forget(self, message_id: int) -> None:
        """Wait no longer for an id."""
        self._waiting.pop(message_id, None)
        if self._retired and not self._waiting:
            self.close(None)

    def retire(self) -> None:
        """Send nothing more; close when nobody waits any longer."""
        self._retired = True
        if not self._waiting:
            self.close(None)

    def close(self, error: OSError | None) -> None:
        """Close now; who still waits is told the error."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
        for _, future in self._waiting.values():
            if error is not None and not future.done():
                future.set_exception(error)

    def _fail(self, error: OSError) -> None:
        """Tell all who wait on this socket."""
        for _, future in list(self._waiting.values()):
            if not future.done():
                future.set_exception(OSError(error.errno, error.strerror))

    def _on_readable(self) -> None:
        while self._sock.fileno() >= 0:
            try:
                reply = self._sock.recv(65535)
            except BlockingIOError:
                return
            except OSError as error:  # ECONNREFUSED and its like: an ICMP error for something sent on this socket
                self._fail(error)
                return
            if len(reply) >= 2:
                waiting = self._waiting.get(reply[0] << 8 | reply[1])
                if waiting is not None:
                    waiting[0](reply)
