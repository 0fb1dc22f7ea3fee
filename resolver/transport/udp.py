"""UDP from clients, 64 datagrams a system call.

One socket, one set of buffers, made once: `recvmmsg` fills them, `hot.Batch` answers in place what it knows, the rest
is handed to the roof's `answer` one by one, and `sendmmsg` sends all that is ready. A datagram that has to wait for an
upstream leaves the batch; its reply goes out by itself when it is there.

A datagram that fills its slot may have been cut to fit, so it is never answered by what is left of it: the roof gets
the header alone and says what it says to any message that breaks off. So it learns nothing of a slot's length either,
and `hot.Batch`, which sees every datagram first, can not take a cut one for one that it knows.

Linux only: the structures are those of the kernel's 64-bit ABI (`struct mmsghdr`, 64 octets: bits/socket.h).
"""

import ctypes
import mmap
import socket
import struct
from collections.abc import Callable
from typing import Protocol

from resolver.hot._batch_cy import CONTROL_OCTETS, SLOT_OCTETS, SOCKADDR_OCTETS, Batch, ViewMemo
from resolver.transport.sockets import is_wildcard
from resolver.wire.message import HEADER_OCTETS

SLOTS = 64  # datagrams a system call; beyond that the share of the call's own cost is lost in the noise
FEW = SLOTS // 4  # datagrams of a batch; so few tell that the socket is empty and that there is no hurry
MAX_BATCHES = 8  # in one go, before other events of the loop get their turn

_MSG_DONTWAIT = 0x40
_libc = ctypes.CDLL(None, use_errno=True)
_libc.recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
_libc.sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]

Later = Callable[[bytes | None], None]


class Answerer(Protocol):
    """What the roof hands in: the rest of the house, seen from a window."""

    def batch(self) -> tuple[dict[bytes, ViewMemo], float, float]:
        """(memos by client address, monotonic seconds, Unix seconds), asked once a batch."""
        ...

    def hits(self, records: bytes, count: int, at: float) -> None:
        """Spool a batch's hit records."""
        ...

    def answer(self, packet: bytes, address: bytes, sockaddr: bytes, transport: str, later: Later) -> bytes | None:
        """A reply now, or None: then `later` is called once, with a reply or with None for silence."""
        ...


class UdpServer:
    """One socket's window."""

    def __init__(self, sock: socket.socket, counts: memoryview, answerer: Answerer) -> None:
        """Make the buffers.

        Args:
            sock: Bound, non-blocking; stays the caller's.
            counts: The shared counters.
            answerer: What to answer.
        """
        self._sock = sock
        self._fd = sock.fileno()
        self._answerer = answerer
        is_6 = sock.family == socket.AF_INET6
        self._family_is_6 = is_6
        needs_control = is_wildcard(sock.getsockname()[0])
        self._arena = mmap.mmap(-1, SLOTS * SLOT_OCTETS)
        self._names = mmap.mmap(-1, SLOTS * SOCKADDR_OCTETS)
        self._controls = mmap.mmap(-1, SLOTS * CONTROL_OCTETS)
        arena, names, controls = (_address(m) for m in (self._arena, self._names, self._controls))
        self._receive_headers = mmap.mmap(-1, SLOTS * 64)
        self._send_headers = mmap.mmap(-1, SLOTS * 64)
        self._receive_vectors = mmap.mmap(-1, SLOTS * 16)
        self._send_vectors = mmap.mmap(-1, SLOTS * 16)
        name_octets = 28 if is_6 else 16
        for headers, vectors in (
            (self._receive_headers, self._receive_vectors),
            (self._send_headers, self._send_vectors),
        ):
            base = _address(vectors)
            for i in range(SLOTS):
                struct.pack_into("<QQ", vectors, 16 * i, arena + SLOT_OCTETS * i, SLOT_OCTETS)
                struct.pack_into(
                    "<QIxxxxQQQQIxxxxI", headers, 64 * i,
                    names + SOCKADDR_OCTETS * i, name_octets, base + 16 * i, 1,
                    controls + CONTROL_OCTETS * i if needs_control else 0, 0, 0, 0,
                )  # fmt: skip
        self._receive_at = _address(self._receive_headers)
        self._send_at = _address(self._send_headers)
        self._receive_words = memoryview(self._receive_headers).cast("Q")
        self._send_words = memoryview(self._send_headers).cast("Q")
        self._vector_words = memoryview(self._send_vectors).cast("Q")
        self._control_room = memoryview(struct.pack(f"<{SLOTS}Q", *[CONTROL_OCTETS] * SLOTS)).cast("Q")
        self._needs_control = needs_control
        self._batch = Batch(
            self._arena,
            self._names,
            memoryview(self._receive_headers).cast("I"),
            self._send_words,
            self._vector_words,
            counts,
            (arena, names, controls if needs_control else 0),
            is_6,
        )

    def on_readable(self) -> None:
        """Answer what waits in the socket, up to a bound."""
        for _ in range(MAX_BATCHES):
            if self._needs_control:
                self._receive_words[5::8] = self._control_room
            n = _libc.recvmmsg(self._fd, self._receive_at, SLOTS, _MSG_DONTWAIT, None)
            if n <= 0:
                return  # nothing there, or an ICMP error of an earlier reply: either way there is nothing to answer
            sources, now, at = self._answerer.batch()
            hits = self._batch.answer(sources, n, now, int(at * 1_000_000).to_bytes(8, "little"))
            ready, passed, hit_count = self._batch.outcome()
            if hits:
                self._answerer.hits(hits, hit_count, at)
            if self._needs_control and ready:
                self._copy_control_lengths(ready)
            if passed:
                ready = self._answer_passed(passed, ready)
            self._send(ready)
            if n < FEW:
                # The socket was just emptied, and looking again would be a system call for nothing at low load, where
                # most wake-ups are for one datagram. After a larger batch more has come while it was answered, and
                # looking again is cheaper than a round of the loop. What is missed here, the next round sees.
                return

    def _answer_passed(self, passed: list[int], ready: int) -> int:
        """Ask the roof for what the memo did not know; returns how many replies now stand ready."""
        received = memoryview(self._receive_headers).cast("I")
        for i in passed:
            octets = received[16 * i + 14]
            if octets == SLOT_OCTETS:
                octets = HEADER_OCTETS
            packet = self._arena[SLOT_OCTETS * i : SLOT_OCTETS * i + octets]
            sockaddr = self._names[SOCKADDR_OCTETS * i : SOCKADDR_OCTETS * (i + 1)]
            address = sockaddr[8:24] if self._family_is_6 else sockaddr[4:8]
            control = b""
            if self._needs_control:
                control = self._controls[CONTROL_OCTETS * i : CONTROL_OCTETS * i + self._receive_words[8 * i + 5]]
            later = _Later(self._sock, sockaddr, self._family_is_6, control)
            reply = self._answerer.answer(packet, address, sockaddr, "udp", later)
            if reply is None:
                continue
            self._arena[SLOT_OCTETS * i : SLOT_OCTETS * i + len(reply)] = reply
            self._batch.add(i, len(reply))
            if self._needs_control:
                self._send_words[8 * ready + 5] = self._receive_words[8 * i + 5]
            ready += 1
        return ready

    def _copy_control_lengths(self, ready: int) -> None:
        for k in range(ready):
            self._send_words[8 * k + 5] = self._receive_words[8 * self._batch.slot(k) + 5]

    def _send(self, ready: int) -> None:
        done = 0
        while done < ready:
            n = _libc.sendmmsg(self._fd, self._send_at + 64 * done, ready - done, _MSG_DONTWAIT)
            # A reply that can not be sent (no route, a full buffer) is lost, as any datagram may be; the next is not.
            done += n if n > 0 else 1


class _Later:
    """Sends one reply when it is there, to where its query came from."""

    __slots__ = ("_control", "_family_is_6", "_sock", "_sockaddr")

    def __init__(self, sock: socket.socket, sockaddr: bytes, family_is_6: bool, control: bytes) -> None:
        self._sock = sock
        self._sockaddr = sockaddr
        self._family_is_6 = family_is_6
        self._control = control

    def __call__(self, reply: bytes | None) -> None:
        if reply is None:
            return
        sockaddr = self._sockaddr
        port = int.from_bytes(sockaddr[2:4], "big")
        to: tuple[str, int] | tuple[str, int, int, int]
        if self._family_is_6:
            scope = int.from_bytes(sockaddr[24:28], "little")
            to = (socket.inet_ntop(socket.AF_INET6, sockaddr[8:24]), port, 0, scope)
        else:
            to = (socket.inet_ntop(socket.AF_INET, sockaddr[4:8]), port)
        try:
            if self._control:
                octets, level, kind = struct.unpack_from("<Qii", self._control)
                self._sock.sendmsg([reply], [(level, kind, self._control[16:octets])], 0, to)
            else:
                self._sock.sendto(reply, to)
        except OSError:
            return  # lost, as any datagram may be; the client asks again


def _address(buffer: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
