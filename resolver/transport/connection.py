"""One client's QUIC connection, between a socket, the library's state of it, and what is spoken over it.

- Connections have their places (`places.py`); a query or an answer keeps them, nothing else does: an endless stream of
  PING does not, nor half a query. A handshake has its own time.
- Who does not read what he asked for is let go when too much lies there.
- Who cancels query after query, so as to have us work for nothing, is sent away (RFC 9250 §4.3.1, RFC 9114 §10.5).
- An exception of the library's ends the one connection that it came from, and is counted.

What is to be said is collected and leaves at the end of a turn; an acknowledgement that only lets something be tidied
up waits for the next query, or a few milliseconds. The timer is set anew only where it would else fire too late.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from aioquic.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    HandshakeCompleted,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from aioquic.quic.packet import QuicErrorCode

from resolver.policy.client import Client, Credentials, Transport
from resolver.transport import doq, http3
from resolver.transport.bounded import BoundedQuic, Speaker
from resolver.transport.desk import Desk, HttpTerms, Page
from resolver.transport.doh import DohTerms
from resolver.transport.places import Places
from resolver.transport.sockets import packed
from resolver.transport.udp import Answerer

LAZY_SECONDS: Final = 0.005  # till what an acknowledgement lets us tidy up is tidied up
UNREAD_REPLY_OCTETS: Final = 512 * 1024  # said to a client and not acknowledged
_LOOK_OCTETS: Final = 64 * 1024  # after so many more it is counted how much is not acknowledged

Address = tuple[str, int] | tuple[str, int, int, int]
Control = list[tuple[int, int, bytes]]  # which of our addresses a datagram came to, as the kernel tells it


@dataclass(frozen=True, slots=True)
class QuicTerms:
    """Limits; times in seconds.

    Attributes:
        in_flight: Queries under way on a connection.
        half_open: Connections whose handshake is under way, and first packets within a second that were none, before a
            client has to show that it has its address.
        handshake_timeout: What a handshake may take.
        idle_timeout: After which both ends drop a connection on which nothing comes (RFC 9000 §10.1).
        doh: What is served over HTTP/3.
        pages: What is served there at other paths (`desk.py`).
        reset_key: Of the tokens by which a client knows that its connection is gone (RFC 9000 §10.3). To be the same
            for a worker and the one that takes its place, so it is made before they are forked.
    """

    in_flight: int = 100
    half_open: int = 64
    handshake_timeout: float = 10.0
    idle_timeout: float = 30.0
    doh: DohTerms = field(default_factory=DohTerms)
    pages: Callable[[str, Client], Page | None] | None = None
    reset_key: bytes = field(default_factory=partial(os.urandom, 32), repr=False)


class Lobby:
    """What all connections of a worker have in common."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answerer: Answerer,
        terms: QuicTerms,
        places: Places,
        sockaddr: Callable[[str, int], bytes],
        now: Callable[[], float],
    ) -> None:
        """Begin without any."""
        self.loop = loop
        self.answerer = answerer
        self.terms = terms
        self.places = places
        self.sockaddr = sockaddr
        self.now = now
        self.connections: set[Connection] = set()
        self.half_open = 0
        self.is_leaving = False
        self.faults = 0  # connections that an exception ended, which none should
        self.last_fault = ""


class Door(Protocol):
    """The socket that a connection comes by."""

    transport: Transport
    listener: str | None
    by_id: "dict[bytes, Connection]"

    @property
    def server(self) -> Lobby:
        """Where all connections of the worker are known."""
        ...

    def send(self, datagram: bytes, to: Address, control: Control) -> None:
        """Send one datagram, from the address that the client wrote to."""
        ...

    def flush_soon(self, connection: "Connection") -> None:
        """Call a connection's `flush`, together with all others of this round of the loop."""
        ...


class Connection:
    """One client's connection."""

    def __init__(self, window: Door, quic: BoundedQuic, peer: Address, now: float) -> None:
        self.host: str = peer[0]
        self.active_at = now
        self._window = window
        self._server = window.server
        self._quic = quic
        self._port = peer[1]
        self._control: Control = []
        self._labels: set[bytes] = set()
        self._speaker: Speaker | None = None
        self._in_flight: set[int] = set()
        self._cancelled = 0  # queries, less those that were answered
        self._said = 0  # octets since it was last looked how much is not acknowledged
        self._handshake_ends: float | None = now + self._server.terms.handshake_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._gone = False

    @property
    def is_busy(self) -> bool:
        """Whether answers to whole queries are still to come."""
        return bool(self._in_flight)

    @property
    def is_waited_for(self) -> bool:
        """Whether there is something to answer, or on its way to a client that has not yet acknowledged it."""
        return self.is_busy or (self._speaker is not None and self._quic.unacknowledged_octets > 0)

    def begin(self, label: bytes) -> None:
        """Be known by the id that the client chose and by the one that is ours."""
        server = self._server
        server.connections.add(self)
        server.half_open += 1
        for known in (label, self._quic.host_cid):
            self._labels.add(known)
            self._window.by_id[known] = self

    def receive(self, datagram: bytes, peer: Address, control: Control) -> None:
        """Take a datagram."""
        self._control = control
        now = self._server.now()
        try:
            self._quic.receive_datagram(datagram, peer, now)
            happened = self._take_events()
        except Exception as error:  # of the library, over octets of a client: they must end no other's connection
            self._fail(error)
        if self._gone:
            return
        if happened or self._handshake_ends is not None or self._quic.is_held_back:
            self._window.flush_soon(self)
        else:
            # Mostly this is the acknowledgement of a reply, and the next query will have something said anyway.
            self._wake_at(now + LAZY_SECONDS, now)

    def flush(self) -> None:
        """Send what there is to send, and see to the clock."""
        if self._gone:
            return
        server, quic = self._server, self._quic
        now = server.now()
        try:
            for datagram, to in quic.datagrams_to_send(now):
                self._window.send(datagram, to, self._control)
            if quic.is_over:
                self.vanish()  # nothing more is said or heard (RFC 9000 §10.2 leaves it to us whether to repeat it)
            else:
                self._set_timer(now)
        except Exception as error:
            self._fail(error)

    def ask(self, stream_id: int, packet: bytes, client: Client) -> None:
        """Have a query answered."""
        self._in_flight.add(stream_id)
        self._touch()
        reply = self._server.answerer.answer(packet, client, partial(self._later, stream_id))
        if reply is not None:
            self._answer(stream_id, reply)

    def cancel(self, stream_id: int) -> None:
        """Forget a query."""
        self._in_flight.discard(stream_id)
        self._cancelled += 1
        if self._cancelled > self._server.terms.in_flight:
            self._send_away("too many cancelled queries")

    def leave(self) -> None:
        """Take no further queries."""
        if self._speaker is None:
            return
        try:
            self._speaker.farewell()
        except Exception as error:
            self._fail(error)
        self._window.flush_soon(self)

    def expire(self) -> None:
        """Close after too long without a whole query in or an answer out, unless one is still to come."""
        if not self.is_busy:
            self.close()

    def close(self) -> None:
        """Close with what is neither side's error."""
        if self._gone:
            return
        self.flush()
        if self._speaker is not None:
            self._quic.close(self._speaker.no_error)
        else:
            self._quic.close()
        self.flush()
        self.vanish()

    def abort(self) -> None:
        """Close at once and free the place. Who had got as far as to speak is told, or he would wait in vain."""
        if self._speaker is not None:
            self.close()
        self.vanish()

    def vanish(self) -> None:
        """Be gone without a word, and free the place."""
        if self._gone:
            return
        self._gone = True
        if self._timer is not None:
            self._timer.cancel()
        self._settle()
        self._server.connections.discard(self)
        self._server.places.release(self)
        for label in self._labels:
            self._window.by_id.pop(label, None)
        self._labels.clear()
        self._in_flight.clear()
        # Not at once: the library may be the one that tells us.
        self._server.loop.call_soon(self._let_go)

    def _let_go(self) -> None:
        """Untie what holds each other, so that the memory is free now and not when cycles are looked for."""
        self._speaker = None
        self._quic.let_go()

    def _later(self, stream_id: int, reply: bytes | None) -> None:
        self._answer(stream_id, reply)
        if not self._gone:
            self._window.flush_soon(self)

    def _answer(self, stream_id: int, reply: bytes | None) -> None:
        if stream_id not in self._in_flight or self._speaker is None:
            return  # cancelled, or the connection is gone
        self._in_flight.remove(stream_id)
        self._cancelled = max(0, self._cancelled - 1)
        self._touch()
        self._speaker.reply(stream_id, reply)
        self._quic.acknowledge_with_next(self._server.now())
        self._said += len(reply or b"")
        if self._said >= _LOOK_OCTETS:
            self._said = 0
            if self._quic.unacknowledged_octets > UNREAD_REPLY_OCTETS:
                self._send_away("replies are not read")

    def _touch(self) -> None:
        self.active_at = self._server.now()
        self._server.places.touch(self)

    def _take_events(self) -> bool:
        """See to what happened; whether anything did."""
        quic = self._quic
        happened = False
        while (event := quic.next_event()) is not None:
            happened = True
            if isinstance(event, StreamDataReceived | StreamReset | StopSendingReceived):
                if self._speaker is not None and not quic.is_ending:
                    self._speaker.handle(event)
            elif isinstance(event, ConnectionIdIssued):
                self._labels.add(event.connection_id)
                self._window.by_id[event.connection_id] = self
            elif isinstance(event, ConnectionIdRetired):
                self._labels.discard(event.connection_id)
                self._window.by_id.pop(event.connection_id, None)
            elif isinstance(event, HandshakeCompleted):
                self._welcome()
            elif isinstance(event, ConnectionTerminated):
                self.vanish()
                return True
        if quic.holds_too_much:
            self._send_away("too much that is not whole")
            return True
        return happened

    def _welcome(self) -> None:
        """Begin to speak, now that the handshake is done."""
        server, window, quic = self._server, self._window, self._quic
        self._settle()
        self._touch()
        client = Client(
            packed(self.host),
            server.sockaddr(self.host, self._port),
            window.transport,
            window.listener,
            Credentials(server_name=quic.server_name) if quic.server_name is not None else None,
        )
        if window.transport is Transport.DOQ:
            self._speaker = doq.Doq(quic, self, client)
        else:
            terms = HttpTerms(server.terms.doh, pages=server.terms.pages)
            self._speaker = http3.Http3(quic, self, Desk(terms, server.answerer, client, server.sockaddr))
        if server.is_leaving:
            self._speaker.farewell()

    def _settle(self) -> None:
        """Be half open no longer."""
        if self._handshake_ends is not None and self in self._server.connections:
            self._server.half_open -= 1
        self._handshake_ends = None

    def _send_away(self, why: str) -> None:
        self._in_flight.clear()
        code = self._speaker.excessive_load if self._speaker is not None else QuicErrorCode.CRYPTO_BUFFER_EXCEEDED
        self._quic.close(code, reason_phrase=why)

    def _fail(self, error: Exception) -> None:
        self._server.faults += 1
        self._server.last_fault = repr(error)
        self.vanish()

    def _set_timer(self, now: float) -> None:
        at = self._quic.get_timer()
        if self._handshake_ends is not None:
            at = self._handshake_ends if at is None else min(at, self._handshake_ends)
        if at is not None:
            self._wake_at(at, now)

    def _wake_at(self, at: float, now: float) -> None:
        if self._timer is not None:
            if self._timer_at <= at:
                return  # it fires too early, and is set again then; most never fire, as the next packet puts them off
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._server.loop.call_later(max(0.0, at - now), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._server.now()
        if self._handshake_ends is not None and now >= self._handshake_ends:
            self.vanish()
            return
        try:
            at = self._quic.get_timer()
            if at is not None and now >= at:
                self._quic.handle_timer(now)
                self._take_events()
        except Exception as error:
            self._fail(error)
        self.flush()
