"""Answers of upstreams, kept for as long as they say.

The cache knows nothing of clients or policy: every answer taken from it is judged again for the client who asks, so a
new rule acts at once and no verdict is ever shared. Its size is bounded in octets; what was used longest ago goes
first.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace

from resolver.wire.codes import Rcode
from resolver.wire.message import Answer

_ENTRY_OVERHEAD = 600  # octets of objects around an entry, measured with tracemalloc on CPython 3.11
FAILURE_TTL = 5.0  # seconds a resolution failure is remembered; RFC 9520 §3.2 wants between 1 and 300
_MAX_FAILURES = 4096


@dataclass(frozen=True, slots=True)
class CacheTerms:
    """How long answers are kept. Seconds, but for `size`, which is in octets."""

    size: int = 64 * 1024 * 1024
    min_ttl: float = 0
    max_ttl: float = 86400
    max_negative_ttl: float = 3600
    max_stale: float = 86400
    stale_answer_ttl: int = 30


@dataclass(slots=True)
class Entry:
    """An answer and its time: stored at, fresh until, and (after a failed refresh) not to be asked for again before."""

    answer: Answer
    stored: float
    expires: float
    octets: int
    retry_at: float = 0.0


def cache_key(qname: bytes, qtype: int, *, do: bool, cd: bool) -> bytes:
    """What an answer is filed under: with and without DNSSEC records, and checked or not, are different answers."""
    return qname + qtype.to_bytes(2, "big") + bytes((do << 1 | cd,))


class Cache:
    """Entries by key, least recently used first."""

    def __init__(self, terms: CacheTerms) -> None:
        self.terms = terms
        self.octets = 0
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._failures: OrderedDict[bytes, tuple[float, Answer]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float) -> Entry | None:
        """The entry for a key, fresh or stale (compare `expires` with now), or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires + self.terms.max_stale <= now:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: bytes, answer: Answer, now: float) -> Entry:
        """Keep an answer, its TTLs clamped, and return the entry; one that may not be cached is returned but not kept.

        An answer lives as long as the shortest TTL in it; one that says "no" as long as RFC 2308 §5 says, and not at
        all where it came without the SOA that would tell.
        """
        terms = self.terms
        seconds = [ttl for _, ttl in answer.ttls]
        shortest, longest = (min(seconds), max(seconds)) if seconds else (0, 0)
        if answer.negative_ttl is None:
            cap, life = int(terms.max_ttl), shortest
        else:
            cap = int(terms.max_negative_ttl)
            life = min(answer.negative_ttl, shortest) if seconds else answer.negative_ttl
        least = int(terms.min_ttl)
        if life and life < least:
            life = least
        if life > cap:
            life = cap
        floor, ceiling = least if life else 0, cap if answer.negative_ttl is None else life
        if shortest < floor or longest > ceiling:
            answer = _with_ttls(answer, tuple((at, min(max(ttl, floor), ceiling)) for at, ttl in answer.ttls))
        octets = len(key) + len(answer.body) + 80 * len(answer.ttls) + _ENTRY_OVERHEAD
        for led_to in (answer.aliases, answer.targets, answer.addresses):
            for one in led_to:
                octets += len(one)
        entry = Entry(answer, now, now + life, octets)
        self._failures.pop(key, None)
        if key in self._entries:
            self._drop(key)  # even where the new answer may not be kept: what it replaces is true no longer
        if life > 0 and octets <= terms.size:
            self._entries[key] = entry
            self.octets += octets
            while self.octets > terms.size:
                self._drop(next(iter(self._entries)))
        return entry

    def put_failure(self, key: bytes, answer: Answer, now: float) -> None:
        """Remember that nobody could answer, so that a storm of retries stays here (RFC 9520 §3.2)."""
        self._failures[key] = (now + FAILURE_TTL, answer)
        self._failures.move_to_end(key)
        if len(self._failures) > _MAX_FAILURES:
            self._failures.popitem(last=False)

    def failure(self, key: bytes, now: float) -> Answer | None:
        """The remembered failure for a key, while it counts."""
        held = self._failures.get(key)
        if held is None:
            return None
        if held[0] <= now:
            del self._failures[key]
            return None
        return held[1]

    def stale(self, entry: Entry) -> Answer:
        """An expired entry's answer with the TTL that stale data is given (RFC 8767 §4)."""
        ttls = tuple((at, self.terms.stale_answer_ttl) for at, _ in entry.answer.ttls)
        return _with_ttls(entry.answer, ttls)

    def _drop(self, key: bytes) -> None:
        self.octets -= self._entries.pop(key).octets


def _with_ttls(answer: Answer, ttls: tuple[tuple[int, int], ...]) -> Answer:
    if ttls == answer.ttls:
        return answer
    body = bytearray(answer.body)
    for at, ttl in ttls:
        body[at : at + 4] = ttl.to_bytes(4, "big")
    return replace(answer, body=bytes(body), ttls=ttls)


def is_failure(rcode: int) -> bool:
    """Whether an upstream's RCODE says that it could not, or would not, find out."""
    return rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN, Rcode.YXDOMAIN)
