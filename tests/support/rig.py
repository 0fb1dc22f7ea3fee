"""A relay between buffers: a window's in front of it, a socket's behind it; of either build."""

import ctypes
import mmap
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from resolver.engine.cache import Entry
from resolver.observe.record import sockaddr
from tests.support.build import TO_QUESTION, Ban, policy, record
from tests.support.upstream import Slots

LOCAL = b"\5local\0"
ADDRESS = record(TO_QUESTION, 1, b"\xc0\0\2\1")
CONTROL = b"an IP_PKTINFO message, aligned  "
DRAWN = b"".join(n.to_bytes(2, "big") for n in range(500, 580))


@dataclass
class Rig:
    """A relay, the window in front of it and the socket behind it.

    Attributes:
        module: `resolver.hot._relay_cy` in the relay's build.
        relay_of: Makes a relay.
        shelf: Where it keeps replies.
        memo: What learns answers.
        address: Of the client.
        most: How many questions may be under way, and how many clients may wait.
        listed: Rules on names, such as "suffix chat.example".
    """

    module: ModuleType
    relay_of: Callable[..., Any]
    shelf: Any
    memo: Any
    address: str = "192.0.2.7"
    most: tuple[int, int] = (100, 100)
    listed: tuple[str, ...] = ()
    waiting: dict[int, Any] = field(default_factory=dict)
    said: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    again: list[tuple[bytes, bytes, bytes, float]] = field(default_factory=list)
    settled: list[tuple[list[Any], list[tuple[float, int]], int]] = field(default_factory=list)
    forgotten: list[bytes] = field(default_factory=list)
    adopted: list[tuple[bytes, object, float]] = field(default_factory=list)
    entries: dict[bytes, Entry] = field(default_factory=dict)
    under_way: dict[bytes, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        is_6 = ":" in self.address
        self.asked, self.names, self.controls = Slots(512), Slots(28), Slots(64)
        self.headers = mmap.mmap(-1, 64 * 64)
        self.late, self.late_names, self.late_controls = Slots(512), Slots(28), Slots(64)
        self.late_headers = mmap.mmap(-1, 64 * 64)
        self.out, self.replies = Slots(512), Slots(2048)
        self.counts = memoryview(bytearray(8 * 8)).cast("Q")
        self.outlet = self.module.Outlet(
            (self.asked.at, self.names.at, self.controls.at, _at(self.headers), 0),
            (self.late.at, self.late_names.at, self.late_controls.at, _at(self.late_headers), self.late.vectors_at),
            (512, 28, 64), is_6, self._send, lambda *what: self.again.append(what),
        )  # fmt: skip
        lane = self.module.Lane(policy(Ban("order", self.listed)).table, self.memo, False, lambda qtype, rcode: (1, 2))
        self.relay = self.relay_of(
            self.entries, self.shelf, self.forgotten.append, {}, self.under_way, self.most,
            {LOCAL: None}, frozenset({LOCAL}), self.counts, 3, (0, 86400, 3600),
            lambda memo: lane, self._adopt, lambda *what: self.settled.append(what),
        )  # fmt: skip

    def _send(self, ready: int) -> None:
        words = memoryview(self.late_headers).cast("Q")
        for k in range(ready):
            said = self.late.octets(k, self.late.vectors[2 * k + 1])
            self.said.append((said, self.late_names.octets(k, 28), self.late_controls.octets(k, words[8 * k + 5])))

    def _adopt(self, key: bytes, upstream: object, started: float) -> object:
        self.adopted.append((key, upstream, started))
        return self

    def offer(self, *packets: bytes, now: float = 100.0) -> list[int]:
        """Receive datagrams and offer them all."""
        words, lengths = memoryview(self.headers).cast("Q"), memoryview(self.headers).cast("I")
        for i, packet in enumerate(packets):
            self.asked.put(i, packet)
            self.names.put(i, sockaddr(self.address, 4000 + i))
            self.controls.put(i, CONTROL)
            words[8 * i + 5] = len(CONTROL)
            lengths[16 * i + 14] = len(packet)
        packed = sockaddr(self.address, 1)
        source = packed[8:24] if ":" in self.address else packed[4:8]
        rest: list[int] = self.relay.offer(self.outlet, list(range(len(packets))), {source: self.memo}, "upstream", now)
        return rest

    def write(self, drawn: bytes = DRAWN, ready: int = 0) -> list[bytes]:
        """Write what is staged; the queries."""
        count = self.relay.write((self.out.at, self.out.vectors_at, 512), ready, self.waiting, drawn, 7.0)
        return [self.out.octets(k, self.out.vectors[2 * k + 1]) for k in range(ready, count)]

    def take(self, *replies: bytes, now: float = 100.5) -> list[int]:
        """Receive replies."""
        for k, octets in enumerate(replies):
            self.replies.put(k, octets)
        rest: list[int] = self.relay.take(
            (self.replies.at, 2048), self.replies.received, len(replies), self.waiting, lambda upstream: False, now
        )
        return rest


def _at(room: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(room))
