"""Queries to one upstream over TLS (RFC 7858) and over HTTPS (RFC 8484, HTTP/2), and its replies.

Connections are kept and reused (RFC 7766 §6.2.1, RFC 7858 §3.4): many queries are under way on one, answered in any
order, and a further one is opened only while the others are full. Who finds that the upstream has closed one that had
served before asks once more on another; on a new one that says nothing, never. Queries are padded, so that their length
says little about the name (RFC 8467 §4.1).

Who the upstream is, is settled before the first octet of a query leaves: strictly, by its certificate's name, by pins
on its key, or by both where both are given (RFC 8310 §6.4); opportunistically, not at all, and where it has no TLS it
is asked in the clear (RFC 8310 §5).
"""

import asyncio
import random
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

from resolver.hot import _scan_cy as scan
from resolver.transport.secure_identity import ESTABLISH_SECONDS, Identity, SecureTerms, UnestablishedError, reason
from resolver.transport.sockets import format_address
from resolver.wire.codes import EdnsOption, Rtype
from resolver.wire.message import HEADER_OCTETS, WireError

T = TypeVar("T")

FULL = 100  # queries on a connection before another is opened: what Knot Resolver takes of one at a time by default
SHUTDOWN_SECONDS = 1.0  # for an upstream to say that it closes as well
PLAIN_SECONDS = 600.0  # before TLS is tried again with an upstream that had none (RFC 7858 §3.1 names an hour)
BLOCK_OCTETS = 128  # RFC 8467 §4.1
MOST_UNSENT = 1 << 20  # octets that an upstream which reads nothing may make us keep
KEEPALIVE_UNIT = 0.1  # seconds (RFC 7828 §3.1)
_random = random.SystemRandom()


class Plain(Protocol):
    """The way to the same upstream without encryption."""

    @property
    def ignored(self) -> int:
        """How many replies were none to what was asked."""
        ...

    async def ask(self, query: bytes, accept: Callable[[bytes, bytes], T], wait: float) -> T:
        """As that of the secure exchange."""
        ...

    async def ask_whole(self, query: bytes, accept: Callable[[bytes, bytes], T], wait: float) -> T:
        """As that of the secure exchange."""
        ...

    def close(self) -> None:
        """Close; what still waits fails."""
        ...


class LostError(ConnectionResetError):
    """A connection was closed before the reply; `again` says whether another one is worth trying."""

    def __init__(self, reason: str, again: bool) -> None:
        super().__init__(reason)
        self.again = again


@dataclass(slots=True, eq=False)
class Asked:
    """A query under way."""

    query: bytes
    accept: Callable[[bytes, bytes], object]
    future: "asyncio.Future[object]"
    at: float  # when it was put, and then when it was sent
    sent: bytes = b""
    number: int = -1  # its id or stream; -1 before it is sent


class SecureExchange:
    """The way to one upstream: its connections, and what to do where there is none."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, host: str, port: int, terms: SecureTerms, plain: Plain | None = None
    ) -> None:
        """Set up; connections are opened as they are needed.

        Args:
            loop: The worker's.
            host: Address of the upstream.
            port: Its port.
            terms: How it is reached.
            plain: Asked where no TLS can be had, if the terms are not strict.

        Raises:
            OSError: The file of authorities can not be read.
        """
        self.loop = loop
        self.terms = terms
        self.name = format_address(host, port)
        self.identity = Identity(terms, host.partition("%")[0])
        self._host, self._port = host, port
        self._plain = None if terms.strict else plain
        self._plain_until = 0.0
        self._has_tls = False  # the last time that a connection was to be opened, it was
        self._connections: list[Connection] = []  # those that take queries, the oldest first
        self._retired: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self.mistaken = 0
        self.authority = format_address(self.identity.called, port).removesuffix(":443")  # what HTTP calls it

    @property
    def ignored(self) -> int:
        """Replies that were not accepted."""
        return self.mistaken + (self._plain.ignored if self._plain is not None else 0)

    def post(self, query: bytes, waiter: object, wait: float) -> bool:
        """Not in this way: a connection has tasks of its own."""
        return False

    async def ask(self, query: bytes, accept: Callable[[bytes, bytes], T], wait: float) -> T:
        """Send a query and return what `accept(reply, query as sent)` makes of the first reply that it takes.

        Args:
            query: A message whose first two octets, the id, are replaced, and to whose OPT options are added.
            accept: Raises WireError for what is no reply to this query.
            wait: Seconds.

        Raises:
            OSError: The upstream can not be reached, is not whom we want, or could not answer.
            TimeoutError: No reply within `wait`.
            WireError: Over HTTPS, a reply that does not belong to the query.
        """
        return await self._ask(query, accept, wait, whole=False)

    async def ask_whole(self, query: bytes, accept: Callable[[bytes, bytes], T], wait: float) -> T:
        """The same, where an answer of any size is wanted: encrypted there is no difference."""
        return await self._ask(query, accept, wait, whole=True)

    def close(self) -> None:
        """Close the connections; what still waits fails."""
        for task in self._opening:
            task.cancel()
        for connection in [*self._connections, *self._retired]:
            connection.lose(OSError("closing"))
        if self._plain is not None:
            self._plain.close()

    def make_connection(self) -> "Connection":
        """A connection that is still to be opened."""
        raise NotImplementedError

    def opened(self) -> None:
        """Note that there is TLS."""
        self._has_tls = True
        self._plain_until = 0.0

    def retire(self, connection: "Connection") -> None:
        """Give a connection no further queries."""
        if connection in self._connections:
            self._connections.remove(connection)
            self._retired.add(connection)

    def drop(self, connection: "Connection") -> None:
        """Forget a connection that is gone."""
        self.retire(connection)
        self._retired.discard(connection)

    def uses(self, connection: "Connection") -> bool:
        """Whether a connection is to get further queries."""
        return connection in self._connections

    async def _ask(self, query: bytes, accept: Callable[[bytes, bytes], T], wait: float, *, whole: bool) -> T:
        if self._plain is None:
            return await self._securely(query, accept, wait)
        plainly = self._plain.ask_whole if whole else self._plain.ask
        end = self.loop.time() + wait
        if self._plain_until > self.loop.time():
            return await plainly(query, accept, wait)
        try:
            return await self._securely(query, accept, wait if self._has_tls else wait / 2)
        except UnestablishedError:
            pass
        except TimeoutError:
            if self._has_tls:
                raise  # it is the answer that takes its time
        taken = await plainly(query, accept, max(end - self.loop.time(), 0.0))
        # Only now: an upstream that is gone altogether says nothing about TLS.
        self._plain_until = self.loop.time() + PLAIN_SECONDS
        return taken

    async def _securely(self, query: bytes, accept: Callable[[bytes, bytes], T], wait: float) -> T:
        end = self.loop.time() + wait
        may_repeat = True
        while True:
            connection = self._choose()
            asked = connection.put(query, accept)
            try:
                async with asyncio.timeout_at(end):
                    return cast(T, await asked.future)
            except TimeoutError:
                connection.doubt(asked)
                raise
            except LostError as error:
                if not (may_repeat and error.again):
                    raise
                may_repeat = False
            finally:
                connection.forget(asked)

    def _choose(self) -> "Connection":
        for connection in self._connections:
            if connection.load < connection.most:
                return connection
        if len(self._connections) >= self.terms.connections:
            return min(self._connections, key=lambda connection: connection.load)
        connection = self.make_connection()
        self._connections.append(connection)
        task = self.loop.create_task(self._establish(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return connection

    async def _establish(self, connection: "Connection") -> None:
        try:
            async with asyncio.timeout(ESTABLISH_SECONDS):
                await self.loop.create_connection(
                    lambda: connection,
                    self._host,
                    self._port,
                    ssl=self.identity.tls,
                    server_hostname=self.identity.called,
                    ssl_shutdown_timeout=SHUTDOWN_SECONDS,
                )
        except (OSError, ValueError) as error:  # ValueError: a name that TLS can not send
            self._has_tls = False
            connection.lose(UnestablishedError(reason(error, self.terms.transport)))


class TlsExchange(SecureExchange):
    """The way to one upstream by DNS over TLS."""

    def make_connection(self) -> "Connection":
        """A connection of length and message."""
        return _TlsConnection(self)


class Connection(asyncio.Protocol):
    """One connection: the queries that wait for it to open or to have room, and those under way, by number."""

    def __init__(self, exchange: SecureExchange) -> None:
        self._exchange = exchange
        self._loop = exchange.loop
        self._transport: asyncio.Transport | None = None
        self._tls: ssl.SSLObject | None = None  # once it has shown who it is
        self._queue: deque[Asked] = deque()
        self._waiting: dict[int, Asked] = {}
        self._flushing = False
        self._closed = False
        self._has_answered = False
        self._heard_at = 0.0
        self._idle = exchange.terms.idle_timeout
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether queries can be sent."""
        return self._transport is not None and not self._closed

    @property
    def load(self) -> int:
        """How many queries it has taken and not answered."""
        return len(self._queue) + len(self._waiting)

    @property
    def most(self) -> int:
        """How many queries it takes before another connection is opened."""
        return FULL

    def put(self, query: bytes, accept: Callable[[bytes, bytes], object]) -> Asked:
        """Take a query; its future tells what came of it."""
        asked = Asked(query, accept, self._loop.create_future(), self._loop.time())
        self._queue.append(asked)
        self._flush_soon()
        return asked

    def forget(self, asked: Asked) -> None:
        """Wait no longer for a reply."""
        if self._waiting.get(asked.number) is asked:
            del self._waiting[asked.number]
            self._give_up(asked.number)
        if not asked.future.done():
            asked.future.cancel()
        self._close_if_done()

    def doubt(self, asked: Asked) -> None:
        """Note that a reply has not come in time: if nothing else has either, the connection may be dead."""
        if self.is_open and self._heard_at <= asked.at:
            self._exchange.retire(self)

    def lose(self, error: OSError) -> None:
        """Close now; who still waits is told the error."""
        self._end()
        self._exchange.drop(self)
        if self._transport is not None:
            self._transport.abort()
        for asked in [*self._waiting.values(), *self._queue]:
            if not asked.future.done():
                asked.future.set_exception(error)
        self._waiting.clear()
        self._queue.clear()

    # ---- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are none by inheritance
        if self._closed:
            self._transport.abort()
            return
        self._heard_at = self._loop.time()
        tls = cast(ssl.SSLObject, transport.get_extra_info("ssl_object"))
        try:
            self._exchange.identity.check(tls)
        except UnestablishedError as error:
            self.lose(error)
            return
        self._tls = tls
        self._exchange.opened()
        self._look_idle()
        self._begin()
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self._closed:
            return
        self._heard_at = self._loop.time()
        self._read(data)
        self._flush_soon()
        self._close_if_done()

    def eof_received(self) -> None:
        self._gone()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._gone()

    # ---- what differs between TLS and HTTPS

    def _begin(self) -> None:
        """Say what is said first."""

    def _read(self, data: bytes) -> None:
        """Take in what came."""
        raise NotImplementedError

    def _has_room(self, asked: Asked) -> bool:
        """Whether one more query may be sent now."""
        return True

    def _send(self, asked: Asked) -> None:
        """Give a query its number, and lay its octets ready to be written."""
        raise NotImplementedError

    def _give_up(self, number: int) -> None:
        """Tell the upstream, if there is a way to, that a reply is not wanted any longer."""

    def _ready(self) -> bytes:
        """The octets laid ready."""
        raise NotImplementedError

    # ---- what is common

    def _flush_soon(self) -> None:
        # What is asked in one round of the loop goes out in one record and one system call.
        if self._queue and self.is_open and not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if not self.is_open:
            return
        while self._queue and (self._queue[0].future.done() or self._has_room(self._queue[0])):
            asked = self._queue.popleft()
            if not asked.future.done():
                asked.at = self._loop.time()
                self._send(asked)
        self._write()
        self._close_if_done()

    def _write(self) -> None:
        octets = self._ready()
        if octets and self._transport is not None:
            self._transport.write(octets)
            if self._transport.get_write_buffer_size() > MOST_UNSENT:
                self.lose(ConnectionResetError("the upstream does not read what it is sent"))

    def _take(self, asked: Asked, reply: bytes) -> WireError | None:
        """Offer a reply to who asked; the error says why it was not taken."""
        try:
            taken = asked.accept(reply, asked.sent)
        except WireError as error:
            self._exchange.mistaken += 1
            return error
        self._settle(asked)
        if not asked.future.done():
            asked.future.set_result(taken)
        return None

    def _fail(self, asked: Asked, error: Exception) -> None:
        self._settle(asked)
        if not asked.future.done():
            asked.future.set_exception(error)

    def _settle(self, asked: Asked) -> None:
        self._waiting.pop(asked.number, None)
        if not self._has_answered:
            self._has_answered = True
            if self._tls is not None:  # tickets come before the first answer
                self._exchange.identity.session = self._tls.session

    def _gone(self) -> None:
        self.lose(LostError("the upstream closed the connection", self._has_answered))

    def _close_if_done(self) -> None:
        """Close where nothing waits, and nothing will be asked."""
        if not self._closed and not self.load and (self._idle <= 0 or not self._exchange.uses(self)):
            self._shut()

    def _look_idle(self) -> None:
        left = self._idle - (self._loop.time() - self._heard_at)
        if left <= 0 and not self.load:
            self._shut()
        else:
            self._timer = self._loop.call_later(left if left > 0 else max(self._idle, 1.0), self._look_idle)

    def _shut(self) -> None:
        """Close in good order, now that nothing is under way."""
        self._end()
        self._exchange.retire(self)
        if self._transport is not None:
            self._transport.close()

    def _end(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()


class _TlsConnection(Connection):
    """Two octets of length before each message (RFC 7858 §3.3)."""

    def __init__(self, exchange: SecureExchange) -> None:
        super().__init__(exchange)
        self._buffer = bytearray()
        self._out = bytearray()
        self._has_sent = False

    def _read(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= 2:
            end = start + 2 + (buffer[start] << 8 | buffer[start + 1])
            if len(buffer) < end:
                break
            reply = bytes(buffer[start + 2 : end])
            start = end
            asked = self._waiting.get(int.from_bytes(reply[:2], "big"))
            if asked is not None and self._take(asked, reply) is None and _KEEPALIVE_TOLD in reply:
                self._keep_for(_read_keepalive(asked.sent, reply))
        del buffer[:start]

    def _keep_for(self, seconds: float | None) -> None:
        if seconds is not None and seconds != self._idle and self._timer is not None:
            self._idle = seconds
            self._timer.cancel()
            self._look_idle()

    def _send(self, asked: Asked) -> None:
        number = _random.randrange(65536)
        while number in self._waiting:
            number = _random.randrange(65536)
        asked.number = number
        asked.sent = number.to_bytes(2, "big") + padded(asked.query, keepalive=not self._has_sent)[2:]
        self._has_sent = True
        self._waiting[number] = asked
        self._out += len(asked.sent).to_bytes(2, "big") + asked.sent

    def _ready(self) -> bytes:
        octets = bytes(self._out)
        self._out.clear()
        return octets


def padded(query: bytes, *, keepalive: bool) -> bytes:
    """A query whose OPT, its only additional record, is filled up to a block; one without OPT is left alone.

    Args:
        query: As `write_query` writes it.
        keepalive: Whether the upstream is asked how long it keeps an idle connection (RFC 7828 §3.2.1).
    """
    if query[11] != 1:
        return query
    opt = scan.skip_name(query, HEADER_OCTETS, False) + 4
    options = query[opt + 11 :]
    if keepalive:
        options += EdnsOption.KEEPALIVE.to_bytes(2, "big") + b"\0\0"
    gap = -(opt + 11 + len(options) + 4) % BLOCK_OCTETS
    options += EdnsOption.PADDING.to_bytes(2, "big") + gap.to_bytes(2, "big") + bytes(gap)
    return query[: opt + 9] + len(options).to_bytes(2, "big") + options


_KEEPALIVE_TOLD = EdnsOption.KEEPALIVE.to_bytes(2, "big") + b"\0\2"


def _read_keepalive(query: bytes, reply: bytes) -> float | None:
    """For how many seconds the upstream keeps an idle connection, if a reply says so."""
    for _, _, rtype, start, end, _ in scan.scan_records(reply, scan.skip_name(query, HEADER_OCTETS, False) + 4) or []:
        while rtype == Rtype.OPT and start + 4 <= end:
            stop = start + 4 + int.from_bytes(reply[start + 2 : start + 4], "big")
            if reply[start : start + 4] == _KEEPALIVE_TOLD and stop <= end:
                return int.from_bytes(reply[start + 4 : stop], "big") * KEEPALIVE_UNIT
            start = stop
    return None
