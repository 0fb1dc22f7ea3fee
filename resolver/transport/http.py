"""DNS over HTTPS from clients (RFC 8484), over HTTP/2 and HTTP/1.1: the doors, and the connections that come in.

Which version is spoken is settled in the handshake (ALPN, RFC 7301). Behind a proxy that ends TLS there is none, and
the first octets say it (RFC 9113 §3.3). What is said is read in `http2.py` and `http1.py`, what it means in `doh.py`.

As with streams, connections have places (`places.py`), handshakes have places of their own (`tls.py`), a client that
does not read is not read from, and who has sent more than a turn's requests waits for his next turn in one queue with
all others. What counts as activity is an answered request: neither PING nor an octet a second keeps a place.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import cast

from resolver.policy.client import Client, Credentials, Transport
from resolver.transport.desk import Desk, HttpTerms
from resolver.transport.http1 import Http1
from resolver.transport.http2 import Http2
from resolver.transport.http2_frames import PREFACE
from resolver.transport.http2_heads import ReplyHeads
from resolver.transport.places import Places, PlaceTerms
from resolver.transport.sockets import TCP_BACKLOG, packed
from resolver.transport.tls import TlsDoor, credentials_of
from resolver.transport.turns import Turns
from resolver.transport.udp import Answerer

WRITE_HIGH_WATER = 128 * 1024  # octets waiting for a client before its next requests are left unread
READ_OCTETS = 64 * 1024  # read in one go
LINGER_SECONDS = 1.0  # between an answer and the end, where the client is still sending (RFC 9112 §9.6)


class HttpServer:
    """All connections of HTTP of one worker."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answerer: Answerer,
        terms: HttpTerms,
        places: Places,
        sockaddr: Callable[[str, int], bytes],
        now: Callable[[], float],
        *,
        handshakes: PlaceTerms | None = None,
        credentials_of: Callable[[asyncio.BaseTransport], Credentials | None] = credentials_of,
    ) -> None:
        """Set up; `listen` opens the doors.

        Args:
            loop: The worker's.
            answerer: What to answer.
            terms: Limits.
            places: Of connections.
            sockaddr: Makes the 28 octets of an address for hit records.
            now: Monotonic seconds.
            handshakes: How many handshakes may be under way; how long one may take, `terms` say.
            credentials_of: What a client showed of itself in its handshake.
        """
        self._loop = loop
        self._answerer = answerer
        self.terms = terms
        self.places = places
        self._sockaddr = sockaddr
        self.now = now
        self._handshakes = handshakes or PlaceTerms()
        self._credentials_of = credentials_of
        # Who is known by the listener that he came by, or by a certificate, would not be where alt-svc leads (over QUIC
        # nobody is asked for one), and be held to other rules there.
        self._staying = replace(terms, doh=replace(terms.doh, alt_svc=None))
        self.heads = {one.doh: ReplyHeads(one.doh) for one in (terms, self._staying)}
        self.turns = Turns(loop)
        # One for all connections: what is read is taken out before the loop reads from the next.
        self.reading_room = memoryview(bytearray(READ_OCTETS))
        self._doors: list[asyncio.Server | TlsDoor] = []

    def __len__(self) -> int:
        return len(self._connections())

    async def listen(self, sock: socket.socket, tls: ssl.SSLContext | None, listener: str | None = None) -> None:
        """Accept connections from a listening socket.

        Args:
            sock: Non-blocking.
            tls: How to encrypt; None where proxies end TLS themselves: then only they are let in.
            listener: The group that all who come by this socket belong to, if any.
        """

        def guest() -> _Connection:
            return _Connection(self, listener)

        if tls is None:
            self._doors.append(await self._loop.create_server(guest, sock=sock, backlog=TCP_BACKLOG))
        else:
            terms = replace(self._handshakes, idle_timeout=self.terms.handshake_timeout)
            self._doors.append(TlsDoor(self._loop, sock, tls, guest, terms, self.now))

    async def close(self, patience: float) -> None:
        """Stop accepting, let what is in flight be answered for so many seconds, and close."""
        for door in self._doors:
            door.close()
        for connection in self._connections():
            connection.leave()
        await self.places.drain(patience)
        for connection in self._connections():
            connection.close()

    def _connections(self) -> "list[_Connection]":
        return [guest for guest in self.places if isinstance(guest, _Connection) and guest.server is self]

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Do something after a while."""
        self._loop.call_later(seconds, what)

    def desk(self, transport: asyncio.BaseTransport, host: str, port: int, listener: str | None) -> Desk:
        """What who is at the other end of a connection may ask."""
        address = packed(host)
        shown = self._credentials_of(transport)
        client = Client(address, self._sockaddr(host, port), Transport.DOH, listener, shown)
        stays = listener is not None or (shown is not None and bool(shown.certificate))
        return Desk(self._staying if stays else self.terms, self._answerer, client, self._sockaddr)


class _Connection(asyncio.BufferedProtocol):
    """One client's connection, whichever version it speaks."""

    def __init__(self, server: HttpServer, listener: str | None) -> None:
        self.server = server
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._desk: Desk | None = None
        self._speaker: Http1 | Http2 | None = None
        self._first = b""
        self._paused = False
        self._queued = False
        self._closing = False
        self._is_encrypted = False
        self.is_blocked = False
        self.host = ""
        self.active_at = server.now()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are none by inheritance
        peer = transport.get_extra_info("peername")
        if not peer:
            self._transport.abort()
            return
        self.host = peer[0]
        self.active_at = self.server.now()
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        self._desk = self.server.desk(transport, peer[0], peer[1], self._listener)
        tls = transport.get_extra_info("ssl_object")
        self._is_encrypted = tls is not None
        # RFC 8484 §5: never without TLS, which only a proxy can have ended before us.
        if not (self._is_encrypted or self._desk.is_with_proxy) or not self.server.places.admit(self):
            self._transport.abort()
        elif tls is not None:
            self._speak(is_2=tls.selected_alpn_protocol() == "h2")

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.places.release(self)
        self._transport = self._speaker = None

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.server.reading_room

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self.server.reading_room[:nbytes])
        if self._closing or self._transport is None:
            return
        if self._speaker is None:
            data = self._first = self._first + data
            if PREFACE.startswith(data):
                return  # may be either; four octets would tell, and all of it comes in one piece
            self._speak(is_2=data.startswith(PREFACE))
            self._first = b""
        speaker = self._speaker
        if speaker is None:
            return
        if self.server.turns.is_crowded and not self._queued:
            speaker.has_more = True
        speaker.receive(data)
        self.settle()

    def eof_received(self) -> bool:
        # The client may have closed its sending side only: what it asked is still answered. With TLS asyncio closes.
        if self._speaker is None or self._transport is None:
            return False
        self._speaker.ended()
        self.settle()
        return not self._is_encrypted

    def pause_writing(self) -> None:
        self.is_blocked = True
        self._breathe()

    def resume_writing(self) -> None:
        self.is_blocked = False
        if self._speaker is not None:
            self._speaker.resume()
            self.settle()

    # The speaker's side

    def write(self, octets: bytes) -> None:
        """Send."""
        if self._transport is not None:
            self._transport.write(octets)

    def now(self) -> float:
        """Monotonic seconds."""
        return self.server.now()

    def settle(self) -> None:
        """Wait for a turn, read on or stop reading, or close, as things stand."""
        speaker = self._speaker
        if speaker is None or self._transport is None:
            return
        if speaker.progressed:
            speaker.progressed = False
            self.active_at = self.server.now()
            self.server.places.touch(self)
        if speaker.has_more and not self._queued:
            self._queued = True
            self.server.turns.queue(self.take_turn)
        if speaker.hangs_up and not self._closing:
            self._closing = True
            if speaker.lingers:
                self.server.later(LINGER_SECONDS, self.close)
            else:
                self._transport.close()
            return
        self._breathe()

    # The server's side

    @property
    def is_busy(self) -> bool:
        """Whether answers to whole requests are still to come."""
        return self._speaker is not None and self._speaker.is_busy and not self._closing

    def take_turn(self) -> None:
        """Go on with what was left over."""
        self._queued = False
        if self._speaker is not None:
            self._speaker.work()
            self.settle()

    def expire(self) -> None:
        """Close after too long without an answered request."""
        if self._transport is None:
            return
        if self._closing or self._transport.get_write_buffer_size() or (self._speaker and self._speaker.owes):
            self.abort()  # the client does not read; a close would wait for it for ever
        elif not self.is_busy:
            self.leave()
            self.close()
            self.server.places.release(self)

    def leave(self) -> None:
        """Take no further requests."""
        if self._speaker is not None:
            self._speaker.leave()
            self.settle()
        elif self._transport is not None:
            self._transport.close()

    def close(self) -> None:
        """Close, sending what is still to be sent."""
        if self._transport is not None:
            self._closing = True
            self._transport.close()

    def abort(self) -> None:
        """Close at once and free the place."""
        if self._transport is not None:
            self._transport.abort()
        self.server.places.release(self)

    def _speak(self, *, is_2: bool) -> None:
        assert self._desk is not None
        self._speaker = (
            Http2(self._desk, self.server.heads[self._desk.terms.doh], self) if is_2 else Http1(self._desk, self)
        )

    def _breathe(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        full = self._queued or self.is_blocked or (self._speaker is not None and self._speaker.is_full)
        if full and not self._paused:
            self._transport.pause_reading()
            self._paused = True
        elif not full and self._paused:
            self._transport.resume_reading()
            self._paused = False
