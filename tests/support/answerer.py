"""What a window asks, without the house behind it: every query is answered by a rule that its first label names."""

from collections.abc import Callable

from resolver.hot._batch_cy import ViewMemo
from resolver.hot._relay_cy import Outlet
from resolver.policy.client import Client, Transport
from resolver.wire.codes import Rcode
from resolver.wire.compose import error_answer, write_reply
from resolver.wire.message import read_query

Later = Callable[[bytes | None], None]


class FakeAnswerer:
    """Answers REFUSED at once; `later…` when `release` is called; `silent…` with None; `never…` not at all.

    `large…` gets a reply of `large_octets`.
    """

    def __init__(self, large_octets: int = 60_000) -> None:
        self.seen: list[tuple[bytes, Client]] = []
        self.waiting: list[tuple[bytes, Later]] = []
        self.sources: dict[bytes, ViewMemo] = {}
        self.spooled: list[tuple[bytes, int]] = []
        self.given: list[tuple[Transport, int]] = []
        self.now = 1000.0
        self._large_octets = large_octets

    def batch(self, listener: str | None) -> tuple[dict[bytes, ViewMemo], float, float]:
        """The memos and the time."""
        return self.sources, self.now, self.now + 1e9

    def hits(self, records: bytes, count: int, at: float) -> None:
        """Take hits."""
        self.spooled.append((records, count))

    def learned(self, count: int) -> None:
        """Hear how many answers memos learned on their own."""

    def relay(self, outlet: Outlet, passed: list[int], sources: dict[bytes, ViewMemo], now: float) -> list[int]:
        """Take nothing over."""
        return passed

    def answer(self, packet: bytes, client: Client, later: Later, begun: float | None = None) -> bytes | None:
        """Do what the first label says."""
        self.seen.append((packet, client))
        label = packet[13 : 13 + packet[12]] if len(packet) > 12 else b"silent"
        if label.startswith(b"later"):
            self.waiting.append((packet, later))
            return None
        if label.startswith(b"never"):
            return None
        if label.startswith(b"silent"):
            later(None)
            return None
        if label.startswith(b"soon"):
            later(reply_to(packet))
            return None
        if label.startswith(b"large"):
            return reply_to(packet).ljust(self._large_octets, b"\0")
        return reply_to(packet)

    def answered(self, transport: Transport, count: int, begun: float) -> None:
        """Count replies."""
        self.given.append((transport, count))

    def release(self) -> None:
        """Answer all that wait, the last one first."""
        while self.waiting:
            packet, later = self.waiting.pop()
            later(reply_to(packet))


def reply_to(packet: bytes) -> bytes:
    """The reply that `FakeAnswerer` gives."""
    return write_reply(read_query(packet), error_answer(Rcode.REFUSED), over_udp=False)
