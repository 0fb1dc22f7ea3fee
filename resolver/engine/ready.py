"""What was said over connections, kept to be said again: the hot memo's counterpart for TCP, TLS, HTTPS and QUIC, and
for datagrams that a proxy passes on, which the memo does not know again for the header before them.

The contract is the same: what is said from here is, byte for byte, what the pipeline would say, and all of it was
learned from the pipeline. The key is the client's view, its device, its transport, and the message less its id; so
padding and keepalive, which the reply echoes, take part. Who asks is found out each time before anything is looked up:
a device that was revoked is refused, and one that moved to another group has another view. A view that is out of force
is nobody's any more, so what was said under it can not be found again; it is let go when the policy changes.

One who shows a certificate or token is known here by the view and device that it has now, never by what it showed.
"""

from dataclasses import dataclass

from resolver.hot._batch_cy import NEVER, ORDINARY_OCTETS
from resolver.hot._scan_cy import age
from resolver.policy.client import Client
from resolver.policy.generation import View
from resolver.wire.codes import EdnsOption
from resolver.wire.message import Query

# A query with others is learned for nothing: a cookie makes each unlike any other.
_REPEATED = frozenset({EdnsOption.PADDING, EdnsOption.KEEPALIVE, EdnsOption.NSID})

_EARLY = 1e-6  # seconds; more than rounding can make of a sum of two clock readings
_Key = tuple[View, str, str, bytes]


@dataclass(slots=True)
class Said:
    """One whole answer, less its message id.

    Attributes:
        first: The reply at age 0, from its third octet on.
        cell: Which counter saying it again adds to.
        until: Monotonic seconds at which it stops being true; NEVER where only a policy change ends it.
        stored: Monotonic seconds at which its TTLs were fresh.
        ttls: (offset in `first`, seconds) of each TTL that runs down.
        hit_prefix: What a hit record begins with, or b"" where the verdict names no rule.
        hit_tail: What it ends with.
        reply: The reply as it is now.
        due: When it has to be brought up to date.
    """

    first: bytes
    cell: int
    until: float
    stored: float
    ttls: tuple[tuple[int, int], ...]
    hit_prefix: bytes
    hit_tail: bytes
    reply: bytes = b""
    due: float = -NEVER

    def turn(self, now: float) -> bool:
        """Bring the reply up to date; False where it holds no longer. The age is the pipeline's, to the same rounding:
        looked at a moment too early, it is simply looked at again."""
        if self.until <= now:
            return False
        if self.ttls:
            elapsed = int(now - self.stored)
            self.reply = age(self.first, self.ttls, elapsed)
            self.due = min(self.until, self.stored + elapsed + 1 - _EARLY)
        else:
            self.reply, self.due = self.first, self.until
        return True


class SaidBefore:
    """All that is kept, in two halves: when the young one is full it becomes the old one, and the old is let go."""

    def __init__(self, entries: int) -> None:
        """Start empty.

        Args:
            entries: The most that both halves hold together, of ordinary size (`ORDINARY_OCTETS`); 0 for nothing.
        """
        self._half = entries // 2
        self._young: dict[_Key, Said] = {}
        self._old: dict[_Key, Said] = {}
        self._size = 0  # of the young half

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def find(self, view: View, client: Client, packet: bytes, now: float) -> Said | None:
        """What was said to the same message, if it still holds.

        Args:
            view: Of the client now.
            client: As it was recognised now.
            packet: The message.
            now: Monotonic seconds.
        """
        key = (view, client.device, client.transport, packet[2:])
        said = self._young.get(key) or self._old.get(key)
        if said is None or (said.due <= now and not said.turn(now)):
            return None
        return said

    def put(self, view: View, client: Client, packet: bytes, said: Said) -> None:
        """Keep what the pipeline said."""
        if not self._half:
            return
        key = (view, client.device, client.transport, packet[2:])
        if key not in self._young:
            if self._size >= self._half:
                self._old, self._young, self._size = self._young, {}, 0
            self._size += 1 + (len(packet) + len(said.first)) // ORDINARY_OCTETS
        self._young[key] = said

    def forget(self) -> None:
        """Let all go."""
        self._young, self._old, self._size = {}, {}, 0


def is_repeated(query: Query) -> bool:
    """Whether the same octets are likely to come again."""
    return query.options <= _REPEATED
