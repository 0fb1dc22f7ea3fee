"""UDP from clients, 64 datagrams a system call.

One socket, one set of buffers, made once: `recvmmsg` fills them, `hot.Batch` answers in place what it knows, the rest
is handed to the roof's `answer` one by one, and `sendmmsg` sends all that is ready. A datagram that has to wait for an
upstream leaves the batch; its reply goes out when it is there, together with the others of that turn of the loop: a
system call for each would wake whoever waits for it each time, which costs more than all else.

A datagram that fills its slot may have been cut to fit, so it is never answered by what is left of it: the roof gets
the header alone and says what it says to any message that breaks off. So it learns nothing of a slot's length either,
and `hot.Batch`, which sees every datagram first, can not take a cut one for one that it knows.

Linux only: the structures are those of the kernel's 64-bit ABI (`struct mmsghdr`, 64 octets: bits/socket.h).
"""

import asyncio
import ctypes
import mmap
import socket
import struct
from collections.abc import Callable
from typing import Protocol

from resolver.hot._batch_cy import CONTROL_OCTETS, SLOT_OCTETS, SOCKADDR_OCTETS, Batch, ViewMemo
from resolver.hot._relay_cy import SLOTS, Outlet
from resolver.policy.client import Client, Transport
from resolver.transport.sockets import is_wildcard
from resolver.wire.message import HEADER_OCTETS

FEW = SLOTS // 4  # datagrams of a batch; so few tell that the socket is empty and that there is no hurry
MAX_BATCHES = 8  # in one go, before other events of the loop get their turn
_LAST_GOES = 32  # when no more is read: what fits into a socket's buffer, of datagrams of ordinary size

_MSG_DONTWAIT = 0x40
_libc = ctypes.CDLL(None, use_errno=True)
_libc.recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
_libc.sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]

Later = Callable[[bytes | None], None]
Soon = Callable[[Callable[[], None]], object]


class Answerer(Protocol):
    """What the roof hands in: the rest of the house, seen from a window."""

    def batch(self, listener: str | None) -> tuple[dict[bytes, ViewMemo], float, float]:
        """(memos by client address, monotonic seconds, Unix seconds), asked once a batch.

        Args:
            listener: The group that all who come by the socket belong to, if any.
        """
        ...

    def hits(self, records: bytes, count: int, at: float) -> None:
        """Spool a batch's hit records."""
        ...

    def answered(self, transport: Transport, count: int, begun: float) -> None:
        """Count so many answers, given now to what was read at `begun` (monotonic seconds)."""
        ...

    def learned(self, count: int) -> None:
        """Learn that memos learned so many answers on their own."""
        ...

    def relay(self, outlet: Outlet, passed: list[int], sources: dict[bytes, ViewMemo], now: float) -> list[int]:
        """Take over what can be forwarded as it stands in its slots; replies leave by the outlet.

        Args:
            outlet: Of the window.
            passed: The slots that the memo passed on.
            sources: As `batch` gave them.
            now: As `batch` gave it.

        Returns:
            The slots of the others.
        """
        ...

    def answer(self, packet: bytes, client: Client, later: Later, begun: float | None = None) -> bytes | None:
        """A reply now, or None: then `later` is called once, with a reply or with None for silence.

        Args:
            packet: The message.
            client: Who sent it.
            later: Takes a reply that is not there now.
            begun: When it came (monotonic seconds), if that was not just now.
        """
        ...


class UdpServer:
    """One socket's window."""

    def __init__(
        self,
        sock: socket.socket,
        counts: memoryview,
        answerer: Answerer,
        listener: str | None = None,
        soon: Soon | None = None,
    ) -> None:
        """Make the buffers.

        Args:
            sock: Bound, non-blocking; stays the caller's.
            counts: The shared counters.
            answerer: What to answer.
            listener: The group that all who come by this socket belong to, if any.
            soon: Has something done before the loop waits again; None: replies that come late are sent one by one.
        """
        self._soon = soon
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_watched = False
        self._sock = sock
        self._listener = listener
        self._fd = sock.fileno()
        self._answerer = answerer
        is_6 = sock.family == socket.AF_INET6
        self._family_is_6 = is_6
        needs_control = is_wildcard(sock.getsockname()[0])
        self._arena = mmap.mmap(-1, SLOTS * SLOT_OCTETS)
        self._names = mmap.mmap(-1, SLOTS * SOCKADDR_OCTETS)
        self._controls = mmap.mmap(-1, SLOTS * CONTROL_OCTETS)
        rooms = self._arena, self._names, self._controls
        arena, names, controls = (_address(m) for m in rooms)
        self._receive_headers, self._receive_vectors = _headers(rooms, is_6, needs_control)
        self._send_headers, self._send_vectors = _headers(rooms, is_6, needs_control)
        self._receive_at = _address(self._receive_headers)
        self._send_at = _address(self._send_headers)
        self._received = memoryview(self._receive_headers).cast("I")
        self._receive_words = memoryview(self._receive_headers).cast("Q")
        self._send_words = memoryview(self._send_headers).cast("Q")
        self._vector_words = memoryview(self._send_vectors).cast("Q")
        self._control_room = memoryview(struct.pack(f"<{SLOTS}Q", *[CONTROL_OCTETS] * SLOTS)).cast("Q")
        self._needs_control = needs_control
        self._batch = Batch(
            self._arena,
            self._names,
            self._received,
            self._send_words,
            self._vector_words,
            counts,
            (arena, names, controls if needs_control else 0),
            is_6,
        )
        self._late_rooms = (
            mmap.mmap(-1, SLOTS * SLOT_OCTETS),
            mmap.mmap(-1, SLOTS * SOCKADDR_OCTETS),
            mmap.mmap(-1, SLOTS * CONTROL_OCTETS),
        )
        self._late_headers, self._late_vectors = _headers(self._late_rooms, is_6, needs_control)
        self._late_at = _address(self._late_headers)
        self._late_words = memoryview(self._late_headers).cast("Q")
        self._late_vector_words = memoryview(self._late_vectors).cast("Q")
        self._outlet = Outlet(
            (arena, names, controls if needs_control else 0, self._receive_at, _address(self._receive_vectors)),
            (
                _address(self._late_rooms[0]),
                _address(self._late_rooms[1]),
                _address(self._late_rooms[2]) if needs_control else 0,
                self._late_at,
                _address(self._late_vectors),
            ),
            (SLOT_OCTETS, SOCKADDR_OCTETS, CONTROL_OCTETS),
            is_6,
            self._send_late,
            self._begin_again,
        )

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read what comes from now on."""
        self._loop = loop
        self._watch(True)

    def shut(self) -> None:
        """Read no more; what had arrived before is still answered."""
        self._watch(False)
        self._loop = None
        for _ in range(_LAST_GOES):
            if not self.on_readable():
                break

    def on_readable(self) -> bool:
        """Answer what waits in the socket, up to a bound; whether there may be more."""
        for _ in range(MAX_BATCHES):
            if self._needs_control:
                self._receive_words[5::8] = self._control_room
            n = _libc.recvmmsg(self._fd, self._receive_at, SLOTS, _MSG_DONTWAIT, None)
            if n <= 0:
                # Nothing there, or an ICMP error of an earlier reply: either way there is nothing to answer.
                self._watch(True)
                return False
            sources, now, at = self._answerer.batch(self._listener)
            hits = self._batch.answer(sources, n, now, int(at * 1_000_000).to_bytes(8, "little"))
            ready, passed, hit_count = self._batch.outcome()
            if hits:
                self._answerer.hits(hits, hit_count, at)
                if learned := self._batch.learned():
                    self._answerer.learned(learned)
            if passed:
                passed = self._answerer.relay(self._outlet, passed, sources, now)
            if passed:
                ready = self._answer_passed(passed, ready)
            self._send(self._send_at, ready)
            if ready:
                self._answerer.answered(Transport.UDP, ready, now)
            if n < FEW:
                # The socket was just emptied, and looking again would be a system call for nothing at low load, where
                # most wake-ups are for one datagram. After a larger batch more has come while it was answered, and
                # looking again is cheaper than a round of the loop. What is missed here, the next round sees.
                self._watch(True)
                return False
        # A socket that is watched calls for its watcher with each datagram that has left it (the kernel's
        # `sock_def_write_space`), which is a tenth of what an answer costs. So under load it is not watched but looked
        # at in each round of the loop.
        if self._loop is not None:
            self._watch(False)
            self._loop.call_soon(self._go_on)
        return True

    def _go_on(self) -> None:
        if self._loop is None:
            return
        try:
            self.on_readable()
        except BaseException:
            self._watch(True)  # an error of ours must not leave a socket that nobody looks at
            raise

    def _watch(self, watched: bool) -> None:
        if self._loop is None or watched == self._is_watched:
            return
        self._is_watched = watched
        if watched:
            self._loop.add_reader(self._fd, self.on_readable)
        else:
            self._loop.remove_reader(self._fd)

    def _answer_passed(self, passed: list[int], ready: int) -> int:
        """Ask the roof for what the memo did not know; returns how many replies now stand ready."""
        received = self._received
        for i in passed:
            octets = received[16 * i + 14]
            if octets == SLOT_OCTETS:
                octets = HEADER_OCTETS
            packet = self._arena[SLOT_OCTETS * i : SLOT_OCTETS * i + octets]
            sockaddr = self._names[SOCKADDR_OCTETS * i : SOCKADDR_OCTETS * (i + 1)]
            control = b""
            if self._needs_control:
                control = self._controls[CONTROL_OCTETS * i : CONTROL_OCTETS * i + self._receive_words[8 * i + 5]]
            reply = self._answerer.answer(packet, self._client(sockaddr), _Later(self, sockaddr, control))
            if reply is None:
                continue
            self._arena[SLOT_OCTETS * i : SLOT_OCTETS * i + len(reply)] = reply
            self._batch.add(i, len(reply))
            ready += 1
        return ready

    def _client(self, sockaddr: bytes) -> Client:
        address = sockaddr[8:24] if self._family_is_6 else sockaddr[4:8]
        return Client(address, sockaddr, Transport.UDP, self._listener)

    def _begin_again(self, packet: bytes, sockaddr: bytes, control: bytes, begun: float) -> None:
        """Ask the roof, now that what was relayed has turned out to be its business."""
        later = _Later(self, sockaddr, control)
        reply = self._answerer.answer(packet, self._client(sockaddr), later, begun)
        if reply is not None:
            later(reply)

    def send_later(self, reply: bytes, sockaddr: bytes, control: bytes) -> None:
        """Send a reply with the others of this turn of the loop."""
        outlet = self._outlet
        if self._soon is not None and outlet.is_empty():
            self._soon(outlet.flush)
        k = outlet.claim()
        arena, names, controls = self._late_rooms
        arena[SLOT_OCTETS * k : SLOT_OCTETS * k + len(reply)] = reply
        names[SOCKADDR_OCTETS * k : SOCKADDR_OCTETS * (k + 1)] = sockaddr
        self._late_vector_words[2 * k + 1] = len(reply)
        if self._needs_control:
            controls[CONTROL_OCTETS * k : CONTROL_OCTETS * k + len(control)] = control
            self._late_words[8 * k + 5] = len(control)
        if self._soon is None:
            outlet.flush()

    def _send_late(self, ready: int) -> None:
        self._send(self._late_at, ready)

    def _send(self, at: int, ready: int) -> None:
        done = 0
        while done < ready:
            n = _libc.sendmmsg(self._fd, at + 64 * done, ready - done, _MSG_DONTWAIT)
            # A reply that can not be sent (no route, a full buffer) is lost, as any datagram may be; the next is not.
            done += n if n > 0 else 1


class _Later:
    """One reply that is still to come, and where its query came from."""

    __slots__ = ("_control", "_server", "_sockaddr")

    def __init__(self, server: UdpServer, sockaddr: bytes, control: bytes) -> None:
        self._server = server
        self._sockaddr = sockaddr
        self._control = control

    def __call__(self, reply: bytes | None) -> None:
        if reply is not None:
            self._server.send_later(reply, self._sockaddr, self._control)


def _headers(
    rooms: tuple[mmap.mmap, mmap.mmap, mmap.mmap], is_6: bool, controlled: bool
) -> tuple[mmap.mmap, mmap.mmap]:
    """Message headers and their vectors, each speaking of its slot of (arena, names, controls)."""
    arena, names, controls = (_address(room) for room in rooms)
    headers, vectors = mmap.mmap(-1, SLOTS * 64), mmap.mmap(-1, SLOTS * 16)
    base = _address(vectors)
    for i in range(SLOTS):
        struct.pack_into("<QQ", vectors, 16 * i, arena + SLOT_OCTETS * i, SLOT_OCTETS)
        struct.pack_into(
            "<QIxxxxQQQQIxxxxI", headers, 64 * i,
            names + SOCKADDR_OCTETS * i, 28 if is_6 else 16, base + 16 * i, 1,
            controls + CONTROL_OCTETS * i if controlled else 0, 0, 0, 0,
        )  # fmt: skip
    return headers, vectors


def _address(buffer: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
