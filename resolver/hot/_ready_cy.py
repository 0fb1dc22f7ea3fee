"""One ready answer, and how it is written down for a memo that keeps answers in memory of its own."""

import struct

from resolver.hot._scan_cy import age
from resolver.hot._templates_cy import TAIL_OCTETS

SLOT_OCTETS = 4096  # room for one datagram, in and out; a query of this size or over has no honest sender
NEVER = float("inf")
RECORD = struct.Struct("<ddIHHHH4s")  # what an answer that is written down begins with; see `ViewMemo.learn`
PLACE = struct.Struct("<II")  # of a TTL in it: offset in the reply, seconds
_EARLY = 1e-6  # seconds; more than rounding can make of a sum of two clock readings

# One object for equal prefixes, of which there are as many as lengths of hit records: it stays in the cache.
_PREFIXES: dict[bytes, bytes] = {}


class Ready:
    """One whole answer, less its message id."""

    __slots__ = ("cell", "due", "first", "hit_prefix", "hit_tail", "reply", "stored", "ttls", "until")

    def __init__(
        self,
        reply: bytes,
        cell: int,
        until: float,
        stored: float,
        ttls: tuple[tuple[int, int], ...],
        hit_prefix: bytes,
        hit_tail: bytes,
    ) -> None:
        """Keep an answer for reuse.

        Args:
            reply: The reply at age 0, from its third octet on.
            cell: Which counter an answer from here adds to.
            until: Monotonic seconds at which it stops being true; NEVER, and then no `ttls`, for an answer that only a
                policy change ends.
            stored: Monotonic seconds at which its TTLs were fresh.
            ttls: (offset in `reply`, seconds) of each TTL that runs down; empty where none does.
            hit_prefix: The four octets that a hit record begins with, or b"" where the verdict names no rule.
            hit_tail: What a hit record ends with, at most `TAIL_OCTETS`.
        """
        # The compiled loop copies by these sizes without asking again.
        if (
            len(hit_prefix) not in (0, 4)
            or hit_prefix == bytes(4)
            or len(hit_tail) > TAIL_OCTETS
            or len(reply) + 2 > SLOT_OCTETS
        ):
            raise ValueError("too long for a slot, or no hit record's parts")
        if not ttls and until != NEVER:
            raise ValueError("an answer that expires has a TTL that runs down")
        last = len(reply) - 4
        for place, seconds in ttls:
            if not 0 <= place <= last or not 0 <= seconds <= 0x7FFFFFFF:
                raise ValueError("a TTL that is not in the reply, or is none")
        self.first = reply
        self.reply = reply
        self.cell = cell
        self.until = until
        self.stored = stored
        self.due = min(until, stored + 1 - _EARLY) if ttls else NEVER
        self.ttls = ttls
        self.hit_prefix = _PREFIXES.setdefault(hit_prefix, hit_prefix)
        self.hit_tail = hit_tail

    def record(self, key: bytes) -> bytes:
        """The answer to a datagram as `ViewMemo.learn` takes it."""
        record = RECORD.pack(
            self.until,
            self.stored,
            self.cell,
            len(key),
            len(self.first),
            len(self.ttls),
            len(self.hit_tail),
            self.hit_prefix or bytes(4),
        )
        record += key + self.first + b"".join([PLACE.pack(*ttl) for ttl in self.ttls]) + self.hit_tail
        return record + bytes(-len(record) % 8)

    def turn(self, now: float) -> bool:
        """Bring the reply up to date when it is due; False where it holds no longer.

        The age is that of the pipeline, to the same rounding: looked at a moment too early, it is simply looked at
        again.
        """
        if self.until <= now:
            return False
        elapsed = int(now - self.stored)
        self.reply = age(self.first, self.ttls, elapsed)
        self.due = min(self.until, self.stored + elapsed + 1 - _EARLY)
        return True
