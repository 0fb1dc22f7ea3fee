"""TCP from clients (RFC 7766), and TLS over it (DoT, RFC 7858): many queries on a connection at once, answered as they
are ready.

Everything a client can hold on to is bounded: connections in all and per address (`places.py`), queries under way per
connection, octets read and not yet answered, octets waiting for a client that does not read, and the time it may be
idle, keep half a message, or take for a handshake. And the worker's time: who has sent more than a turn's messages
waits for the next turn in one queue with all others of his kind, so that between two turns the loop sees to UDP and to
everybody else.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

from resolver.policy.client import Client, Credentials, Transport
from resolver.transport.places import Places, PlaceTerms
from resolver.transport.proxied import behind_proxy
from resolver.transport.sockets import TCP_BACKLOG, packed
from resolver.transport.tls import TlsDoor
from resolver.transport.turns import Turns
from resolver.transport.udp import Answerer
from resolver.wire.proxy import MOST_OCTETS, ProxyError

TURN = 64  # messages of one connection answered in one go, and of all that wait in the queue, in one round of the loop
READ_OCTETS = 16 * 1024  # read in one go: what may lie unanswered of a connection is this and one message
WRITE_HIGH_WATER = 128 * 1024  # octets waiting for a client before its next queries are left unread


@dataclass(frozen=True, slots=True)
class StreamTerms:
    """Limits; times in seconds.

    Attributes:
        places: Of connections.
        in_flight: Queries under way on a connection.
        handshake_timeout: What TLS may take before the first octet of a query.
    """

    places: PlaceTerms = field(default_factory=PlaceTerms)
    in_flight: int = 256
    handshake_timeout: float = 10.0


class StreamServer:
    """All TCP connections of one worker, or all of TLS."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answerer: Answerer,
        terms: StreamTerms,
        sockaddr: Callable[[str, int], bytes],
        now: Callable[[], float],
        *,
        proxied: Callable[[bytes], bool] = lambda _: False,
        tls: ssl.SSLContext | None = None,
        credentials_of: Callable[[asyncio.BaseTransport], Credentials | None] = lambda _: None,
    ) -> None:
        """Set up; `listen` opens the doors.

        Args:
            loop: The worker's.
            answerer: What to answer.
            terms: Limits.
            sockaddr: Makes the 28 octets of an address for hit records.
            now: Monotonic seconds.
            proxied: Whether an address (4 or 16 octets) is of a proxy, which has to say first whose connection it is.
            tls: How to encrypt, where these are connections of DoT.
            credentials_of: What a client showed of itself in its handshake.
        """
        self._loop = loop
        self._answerer = answerer
        self.terms = terms
        self._sockaddr = sockaddr
        self.now = now
        self.proxied = proxied
        self._tls = tls
        self._credentials_of = credentials_of
        self.places = Places(loop, terms.places, now)
        self.turns = Turns(loop)
        # One for all connections: what is read is taken out before the loop reads from the next.
        self.reading_room = memoryview(bytearray(READ_OCTETS))
        self._servers: list[asyncio.Server | TlsDoor] = []

    def __len__(self) -> int:
        return len(self.places)

    async def listen(self, sock: socket.socket, listener: str | None = None) -> None:
        """Accept connections from a listening socket.

        Args:
            listener: The group that all who come by this socket belong to, if any.
        """

        def guest() -> _Connection:
            return _Connection(self, listener)

        if self._tls is not None:
            terms = replace(self.terms.places, idle_timeout=self.terms.handshake_timeout)
            self._servers.append(TlsDoor(self._loop, sock, self._tls, guest, terms, self.now))
        else:
            # The loop calls listen(2) again, so it has to be told the backlog again.
            self._servers.append(await self._loop.create_server(guest, sock=sock, backlog=TCP_BACKLOG))

    async def close(self, patience: float) -> None:
        """Stop accepting, let what is in flight be answered for so many seconds, and close."""
        for server in self._servers:
            server.close()
        self.places.close()
        for connection in self._connections():
            connection.stop_reading()
        await self.places.drain(patience)
        for connection in self._connections():
            connection.close()

    def _connections(self) -> "list[_Connection]":
        return [guest for guest in self.places if isinstance(guest, _Connection)]

    @property
    def is_encrypted(self) -> bool:
        """Whether these are connections of TLS."""
        return self._tls is not None

    def client(self, transport: asyncio.BaseTransport, host: str, port: int, listener: str | None) -> Client:
        """Who is at the other end of a connection."""
        address = packed(host)
        if self._tls is None:
            return Client(address, self._sockaddr(host, port), Transport.TCP, listener)
        credentials = self._credentials_of(transport)
        return Client(address, self._sockaddr(host, port), Transport.DOT, listener, credentials)

    def behind(self, octets: bytes, proxy: Client) -> tuple[int, Client] | None:
        """Whose connection a proxy passes on; see `behind_proxy`."""
        return behind_proxy(octets, proxy, self._sockaddr)

    def answer(self, packet: bytes, client: Client, later: Callable[[bytes | None], None]) -> bytes | None:
        """Pass a query on to the house."""
        return self._answerer.answer(packet, client, later)


class _Connection(asyncio.BufferedProtocol):
    """One client's connection: two octets of length before each message (RFC 1035 §4.2.2)."""

    def __init__(self, server: StreamServer, listener: str | None) -> None:
        self._server = server
        self._listener = listener
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
        self._client: Client | None = None
        self._awaits_header = False  # a proxy has yet to say whose connection this is

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are none by inheritance
        peer = transport.get_extra_info("peername")
        if not peer:
            self._transport.abort()
            return
        self.host = peer[0]
        self._client = self._server.client(self._transport, peer[0], peer[1], self._listener)
        self._awaits_header = self._server.proxied(self._client.address)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        if not self._server.places.admit(self):
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.places.release(self)
        self._transport = None
        self._buffer.clear()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._server.reading_room

    def buffer_updated(self, nbytes: int) -> None:
        self._buffer += self._server.reading_room[:nbytes]
        self._go_on()

    def eof_received(self) -> bool:
        # The client may have closed its sending side only: what it asked is still answered. TLS has no such half here.
        self._finished = True
        self._close_when_done()
        return not self._server.is_encrypted

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
        if self._server.turns.is_crowded:
            self._get_in_line()
            self._breathe()
        else:
            self._work()

    def _get_in_line(self) -> None:
        self._queued = True
        self._server.turns.queue(self.take_turn)

    def _work(self) -> None:
        """Answer the whole messages in the buffer, as far as the limits let us, and a turn of them at most."""
        buffer = self._buffer
        if self._awaits_header and not self._take_header():
            return
        start = waiting = taken = 0
        out: list[bytes] = []
        terms = self._server.terms
        self._working = True
        client = self._client
        assert client is not None
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
            reply = self._server.answer(packet, client, self._later)
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
            self._server.places.touch(self)
        if out and self._transport is not None:
            self._transport.write(b"".join(out))
        self._breathe()
        if self._finished:
            self._close_when_done()

    def _take_header(self) -> bool:
        """Read a proxy's header off the buffer; whether it is all there."""
        assert self._client is not None
        try:
            found = self._server.behind(bytes(self._buffer[:MOST_OCTETS]), self._client)
        except ProxyError:
            self.abort()
            return False
        if found is None:
            return False
        octets, self._client = found
        self._awaits_header = False
        del self._buffer[:octets]
        return True

    def _later(self, reply: bytes | None) -> None:
        self.in_flight -= 1
        if self._transport is None:
            return
        if reply is not None:
            self.active_at = self._server.now()
            self._server.places.touch(self)
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
            self._server.places.release(self)

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
        self._server.places.release(self)
