"""Questions to one upstream over UDP, and the replies to them, with no object of the event loop's for any of them.

A pool of connected sockets on ports of the kernel's choosing (random, RFC 5452 §9.2; a connected socket hears nobody
but the upstream). The questions of one turn of the loop go out together, with one system call, on a socket drawn at
random, each under an id drawn at random; a socket is replaced after a while, so that a port found out is soon worth
nothing. Replies are read many a system call as well; one that is not taken is ignored, and the wait goes on for the
true one.
"""

import asyncio
import ctypes
import errno
import mmap
import os
import socket
import struct
from collections.abc import Iterable
from typing import Any, Protocol

QUERIES_PER_SOCKET = 1024

_SLOTS = 64  # datagrams a system call
_FEW = _SLOTS // 4  # so few tell that the socket is empty
_BATCHES = 8  # in one go, before other events of the loop get their turn
_SLOT_OCTETS = (1 << 16) + 64  # the longest datagram, and a line of the cache, so that slots do not share theirs
_QUERY_OCTETS = 512  # the longest query, of a name of 255 octets with an OPT, has 282
_DRAWN_OCTETS = 4096  # of randomness at one time; an id and a draw of a socket take two each
_LEAST_PATIENCE = 0.01  # seconds between two looks at who has waited too long

_MSG_DONTWAIT = 0x40
_libc = ctypes.CDLL(None, use_errno=True)
_libc.recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
_libc.sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]


class Waiter(Protocol):
    """Who waits for the reply to a question."""

    def take(self, reply: bytes, sent: bytes) -> bool:
        """Whether a reply is taken; if not, the wait goes on."""
        ...

    def fail(self, error: OSError) -> None:
        """Learn that none came (TimeoutError), or that the upstream can not be reached."""
        ...


class Relaying(Protocol):
    """Questions that are asked, and answered, many at a time."""

    def is_staged(self) -> bool:
        """Whether there are questions to write."""
        ...

    def write(
        self,
        rooms: tuple[int, int, int],
        ready: int,
        waiting: "dict[int, tuple[Waiter, bytes, float]]",
        random: bytes,
        due: float,
    ) -> int:
        """Write queries; returns how many slots are in use then (see `hot.Relay.write`)."""
        ...

    def give_up(self, error: OSError) -> None:
        """Learn that what is staged can not be sent."""
        ...

    def take(
        self,
        rooms: tuple[int, int],
        received: memoryview,
        count: int,
        waiting: "dict[int, tuple[Waiter, bytes, float]]",
    ) -> list[int]:
        """Answer with replies; returns the slots of those that are others' (see `hot.Relay.take`)."""
        ...


class UpstreamPorts:
    """The sockets that one upstream is asked through."""

    def __init__(self, loop: asyncio.AbstractEventLoop, family: int, to: tuple[Any, ...], sockets: int) -> None:
        """Set up; sockets are opened as they are needed.

        Args:
            loop: The worker's.
            family: AF_INET or AF_INET6.
            to: The upstream's address, numeric.
            sockets: How many sockets the pool holds.
        """
        self._loop = loop
        self._family, self._to = family, to
        self._pool: list[_Port | None] = [None] * sockets
        self._open: set[_Port] = set()
        self._drawn, self._used = b"", 0
        self._timer: asyncio.TimerHandle | None = None
        self._in, self._out = _Messages(_SLOT_OCTETS), _Messages(_QUERY_OCTETS)
        self._replies, self._queries = self._in.arena, self._out.arena
        self._received = memoryview(self._in.headers).cast("I")  # msg_len is item 14 of 16
        self._vectors = memoryview(self._out.vectors).cast("Q")  # base, length
        self._leaving: _Port | None = None  # by whose socket the queries that wait to be sent will go
        self._ready = 0
        self._is_closed = False
        self._relaying: Relaying | None = None
        self.ignored = 0

    def post(self, query: bytes, waiter: Waiter, wait: float) -> None:
        """Send a query with the others of this turn of the loop; `waiter` takes the reply, or fails.

        Args:
            query: A message of at most 512 octets, of which the first two, the id, are replaced.
            waiter: Who is told, maybe before this returns.
            wait: Seconds.
        """
        port = self._leaving
        if self._is_closed:
            waiter.fail(OSError("closing"))
            return
        if port is None:
            try:
                port = self._leaving = self._draw()
            except OSError as error:
                waiter.fail(error)
                return
            self._loop.call_soon(self.flush)
        waiting = port.waiting
        message_id = self._random()
        while message_id in waiting:
            message_id = self._random()
        sent = message_id.to_bytes(2, "big") + query[2:]
        start = _QUERY_OCTETS * self._ready
        octets = len(sent)
        if octets > _QUERY_OCTETS:
            raise ValueError(f"a query of {octets} octets")
        self._queries[start : start + octets] = sent
        self._vectors[2 * self._ready + 1] = octets
        self._ready += 1
        due = self._loop.time() + wait
        waiting[message_id] = waiter, sent, due
        self._look_at(due)
        if self._ready == _SLOTS:
            self.flush()

    def post_staged(self, relaying: Relaying, wait: float) -> None:
        """Send what is staged, and whatever waits to be sent; who asks takes the replies, or fails.

        Args:
            relaying: Who asks; the same each time.
            wait: Seconds.
        """
        self._relaying = relaying
        if self._is_closed:
            relaying.give_up(OSError("closing"))
            return
        due = self._loop.time() + wait
        while relaying.is_staged():
            if self._leaving is None:
                try:
                    self._leaving = self._draw()
                except OSError as error:
                    relaying.give_up(error)
                    return
            self._ready = relaying.write(
                (self._out.arena_at, self._out.vectors_at, _QUERY_OCTETS),
                self._ready, self._leaving.waiting, self._randoms(), due,
            )  # fmt: skip
            if self._ready == _SLOTS:
                self.flush()
        self._look_at(due)
        self.flush()

    def _look_at(self, due: float) -> None:
        """See to it that who has waited too long then is told."""
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._on_time)
        elif due < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(due, self._on_time)

    def flush(self) -> None:
        """Send what waits to be sent."""
        port, ready = self._leaving, self._ready
        self._leaving, self._ready = None, 0
        if port is None or port.is_closed:
            return
        port.sent += ready
        fd = port.sock.fileno()
        done = 0
        while done < ready:
            count = _libc.sendmmsg(fd, self._out.at + 64 * done, ready - done, _MSG_DONTWAIT)
            if count < 0:
                number = ctypes.get_errno()
                if number in (errno.EAGAIN, errno.EINTR, errno.ENOBUFS):
                    break  # lost, as any datagram may be
                # It may be the ICMP error of an earlier query, which is told once, to whoever asks the socket first.
                port.fail(OSError(number, os.strerror(number)))
                break
            done += count

    def close(self) -> None:
        """Close the sockets; what still waits fails, as does whatever is asked from now on."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for port in list(self._open):
            self._close(port)
            port.fail(OSError("closing"))

    def _random(self) -> int:
        used = self._used
        if used >= len(self._drawn):
            self._drawn, used = os.urandom(_DRAWN_OCTETS), 0
        self._used = used + 2
        return self._drawn[used] << 8 | self._drawn[used + 1]

    def _randoms(self) -> bytes:
        """Enough of them for a system call's queries, and some to spare."""
        octets = 4 * _SLOTS
        if self._used + octets > len(self._drawn):
            self._drawn, self._used = os.urandom(_DRAWN_OCTETS), 0
        self._used += octets
        return self._drawn[self._used - octets : self._used]

    def _draw(self) -> "_Port":
        place = self._random() * len(self._pool) >> 16
        port = self._pool[place]
        if port is not None and port.sent < QUERIES_PER_SOCKET:
            return port
        if port is not None:
            self._pool[place] = None
            port.is_retired = True
            if not port.waiting:
                self._close(port)
        made = _Port(self._family, self._to)
        self._pool[place] = made
        self._open.add(made)
        self._loop.add_reader(made.sock.fileno(), self._on_readable, made)
        return made

    def _close(self, port: "_Port") -> None:
        if not port.is_closed:
            port.is_closed = True
            self._open.discard(port)
            self._loop.remove_reader(port.sock.fileno())
            port.sock.close()

    def _on_readable(self, port: "_Port") -> None:
        arena, waiting = self._replies, port.waiting
        fd = port.sock.fileno()
        for _ in range(_BATCHES):
            if port.is_closed:
                break
            count = _libc.recvmmsg(fd, self._in.at, _SLOTS, _MSG_DONTWAIT, None)
            if count < 0:
                number = ctypes.get_errno()
                if number not in (errno.EAGAIN, errno.EINTR):
                    # ECONNREFUSED and its like: an ICMP error for something sent on this socket.
                    port.fail(OSError(number, os.strerror(number)))
                break
            slots: Iterable[int] = range(count)
            if self._relaying is not None:
                slots = self._relaying.take((self._in.arena_at, _SLOT_OCTETS), self._received, count, waiting)
            for slot in slots:
                octets = self._received[16 * slot + 14]
                reply = arena[_SLOT_OCTETS * slot : _SLOT_OCTETS * slot + octets]
                message_id = int.from_bytes(reply[:2], "big")
                held = waiting.get(message_id)
                if held is None or octets < 2:
                    continue
                waiter, sent, _ = held
                if not waiter.take(reply, sent):
                    self.ignored += 1
                elif waiting.get(message_id) is held:
                    del waiting[message_id]
            if count <= _FEW:
                break
        if port.is_retired and not waiting:
            self._close(port)

    def _on_time(self) -> None:
        """Tell those who have waited too long."""
        now = self._loop.time()
        earliest = float("inf")
        late: list[Waiter] = []
        for port in list(self._open):
            for message_id, (waiter, _, due) in list(port.waiting.items()):
                if due <= now:
                    del port.waiting[message_id]
                    late.append(waiter)
                elif due < earliest:
                    earliest = due
            if port.is_retired and not port.waiting:
                self._close(port)
        self._timer = None
        if earliest < float("inf"):
            self._timer = self._loop.call_at(max(earliest, now + _LEAST_PATIENCE), self._on_time)
        for waiter in late:
            waiter.fail(TimeoutError())


class _Messages:
    """Room for the datagrams of one system call, with their headers (struct mmsghdr) and vectors (struct iovec)."""

    __slots__ = ("arena", "arena_at", "at", "headers", "vectors", "vectors_at")

    def __init__(self, octets: int) -> None:
        self.arena = mmap.mmap(-1, _SLOTS * octets)
        self.headers = mmap.mmap(-1, _SLOTS * 64)
        self.vectors = mmap.mmap(-1, _SLOTS * 16)
        self.arena_at, self.at, self.vectors_at = (
            ctypes.addressof(ctypes.c_char.from_buffer(room)) for room in (self.arena, self.headers, self.vectors)
        )
        for i in range(_SLOTS):
            struct.pack_into("<QQ", self.vectors, 16 * i, self.arena_at + octets * i, octets)
            struct.pack_into("<QQQQ", self.headers, 64 * i, 0, 0, self.vectors_at + 16 * i, 1)


class _Port:
    """A connected socket and who waits on it, by id: (who, the octets as sent, when that is too long)."""

    __slots__ = ("is_closed", "is_retired", "sent", "sock", "waiting")

    def __init__(self, family: int, to: tuple[Any, ...]) -> None:
        self.waiting: dict[int, tuple[Waiter, bytes, float]] = {}
        self.sent = 0
        self.is_retired = False
        self.is_closed = False
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self.sock.setblocking(False)
            self.sock.connect(to)
        except OSError:
            self.sock.close()
            raise

    def fail(self, error: OSError) -> None:
        """Tell all who wait."""
        told = list(self.waiting.values())
        self.waiting.clear()
        for waiter, _, _ in told:
            waiter.fail(OSError(error.errno, error.strerror) if error.errno else OSError(*error.args))
