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
from typing import Generic, TypeVar

from resolver.transport.forward import Relaying, UpstreamPorts, Waiter
from resolver.transport.sockets import format_address
from resolver.wire.message import WireError

T = TypeVar("T")

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
        to = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][4]
        self._ports = UpstreamPorts(loop, socket.AF_INET6 if ":" in host else socket.AF_INET, to, sockets)
        self.name = format_address(host, port)

    def post(self, query: bytes, waiter: Waiter, wait: float) -> bool:
        """Send a query over UDP; `waiter` takes the first reply that it takes, or fails.

        Args:
            query: A message whose first two octets, the id, are replaced.
            waiter: Who is told, maybe before this returns.
            wait: Seconds.

        Returns:
            True: it is sent, or has failed.
        """
        self._ports.post(query, waiter, wait)
        return True

    def post_staged(self, relaying: Relaying, wait: float) -> None:
        """Send what is staged over UDP; who asks takes the replies, or fails after so many seconds."""
        self._ports.post_staged(relaying, wait)

    async def ask(self, query: bytes, accept: Callable[[bytes, bytes], T], wait: float) -> T:
        """Send a query over UDP and return what `accept(reply, query as sent)` makes of the first reply that it takes.

        Args:
            query: A message whose first two octets, the id, are replaced.
            accept: Raises WireError for what is no reply to this query.
            wait: Seconds.

        Raises:
            OSError: The upstream can not be reached.
            TimeoutError: No reply within `wait`.
        """
        waiter: _Awaited[T] = _Awaited(self._loop.create_future(), accept)
        self._ports.post(query, waiter, wait)
        return await waiter.future

    async def ask_whole(self, query: bytes, accept: Callable[[bytes, bytes], T], wait: float) -> T:
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

    @property
    def ignored(self) -> int:
        """How many datagrams were no reply to what was asked."""
        return self._ports.ignored

    def close(self) -> None:
        """Close the sockets; what still waits fails."""
        self._ports.close()


class _Awaited(Generic[T]):
    """Who waits for a reply in a task."""

    __slots__ = ("_accept", "future")

    def __init__(self, future: "asyncio.Future[T]", accept: Callable[[bytes, bytes], T]) -> None:
        self.future = future
        self._accept = accept

    def take(self, reply: bytes, sent: bytes) -> bool:
        """Whether it is taken."""
        try:
            taken = self._accept(reply, sent)
        except WireError:
            return False
        if not self.future.done():
            self.future.set_result(taken)
        return True

    def fail(self, error: OSError) -> None:
        """End the wait."""
        if not self.future.done():
            self.future.set_exception(error)
