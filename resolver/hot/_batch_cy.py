"""The memo of what was said, and the loop that answers a batch of datagrams from it.

The contract (`resolver/DESIGN.md`): what is answered here is, byte for byte, what the pipeline would have answered; all
else is passed on to it. The memo holds nothing that was not first answered by the pipeline and learned from it. It has
two levels, both under the memo of the client's view, so that no client is ever answered with another view's verdict:

- **Ready answers**, to questions that were asked before. The key is the datagram itself, less the two octets of the
  message id: so flags, EDNS, letter case and type all take part. An entry leaves when its cached answer expires, and
  when newer ones need the room.
- **Templates** (`_templates_cy`), for names at or below listed ones that nobody asked for yet. Nothing is learned from
  such an answer, so who asks for random names takes no room from others.

All leave at once when the policy changes (a new generation, or an order's moment).
"""

import struct
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmap import mmap

    from resolver.hot import cython_shim as cython
    from resolver.hot._names_cy import NameTable
    from resolver.hot._scan_cy import age
    from resolver.hot._templates_cy import TAIL_OCTETS, Filler, Parents, Template, Templates, fill, fills_batches
else:
    try:
        import cython
    except ModuleNotFoundError:
        from resolver.hot import cython_shim as cython
    from resolver.hot._templates_cy import TAIL_OCTETS, Filler, fill, fills_batches

    if cython.compiled:
        from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
        from cython.cimports.libc.string import memcmp, memcpy

        from resolver.hot._scan_cy import age
    else:
        from resolver.hot._scan_cy import age

SLOT_OCTETS = 4096  # room for one datagram, in and out; a query of this size or over has no honest sender
SOCKADDR_OCTETS = 28  # struct sockaddr_in6, the longer of the two
CONTROL_OCTETS = 64  # room for one IP_PKTINFO or IPV6_PKTINFO message
_MET = 1 << 18  # questions of which it is known, more or less, whether they were met before
TEMPLATES = 2048  # of one view: by claim sets and by types that are asked for; with more, they are learned anew
ORDINARY_OCTETS = 512  # of a reply; nearly all are shorter
NEVER = float("inf")
_PLACE = struct.Struct("=II")
_EARLY = 1e-6  # seconds; more than rounding can make of a sum of two clock readings


# One object for equal prefixes, of which there are as many as lengths of hit records: it stays in the cache.
_PREFIXES: dict[bytes, bytes] = {}


@cython.cclass
class Ready:
    """One whole answer, less its message id."""

    reply: bytes
    first: bytes
    cell: cython.Py_ssize_t
    until: cython.double
    stored: cython.double
    due: cython.double
    ttls: tuple[tuple[int, int], ...]
    places: bytes
    hit_prefix: bytes
    hit_tail: bytes

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
        if len(hit_prefix) not in (0, 4) or len(hit_tail) > TAIL_OCTETS or len(reply) + 2 > SLOT_OCTETS:
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
        # The same for the compiled loop, which writes what is left into the slot: (offset, seconds), u32 each.
        self.places = b"".join([_PLACE.pack(*ttl) for ttl in ttls]) if cython.compiled else b""
        self.hit_prefix = _PREFIXES.setdefault(hit_prefix, hit_prefix)
        self.hit_tail = hit_tail

    @cython.ccall
    def turn(self, now: cython.double) -> cython.bint:
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


@cython.cclass
class ViewMemo:
    """What is known of one view: templates, and ready answers.

    These are in two halves: when the young half is full it becomes the old one, and the old is let go.

    Nothing moves between the halves, so a set of questions that fits is never let go by being asked, and letting go is
    one assignment. What was in use comes back with its next question, at the price of one walk through the pipeline.
    """

    young: dict[bytes, Ready]
    old: dict[bytes, Ready]
    half: cython.Py_ssize_t
    young_size: cython.Py_ssize_t
    old_size: cython.Py_ssize_t
    if cython.compiled:
        table: object
        templates: dict
        parents: dict
    else:
        table: "NameTable | None"
        templates: "Templates"
        parents: "Parents"

    def __init__(self, entries: int, table: "NameTable | None" = None) -> None:
        """Start empty.

        Args:
            entries: The most that both halves hold together, of ordinary size; see `size`.
            table: The names that the policy lists; without them no template is filed.
        """
        self.table = table
        self.templates = {}
        self.parents = {}
        self.young = {}
        self.old = {}
        self.half = max(1, entries // 2)
        self.young_size = 0
        self.old_size = 0

    @cython.ccall
    def put(self, key: bytes, ready: Ready) -> cython.void:
        """File an answer under the datagram it answers, less the id."""
        if key not in self.young:
            if self.young_size >= self.half:
                self.halve()
            self.young_size += 1 + len(ready.first) // ORDINARY_OCTETS
        self.young[key] = ready

    def file(self, key: int, template: "Template | None") -> None:
        """File a template by its `template_key`, or that there is none, so that it is not sought again."""
        if len(self.templates) >= TEMPLATES:
            self.templates.clear()
        if self.table is not None:
            self.templates[key] = template

    def has_filed(self, key: int) -> bool:
        """Whether it is known what template there is."""
        return key in self.templates

    @cython.ccall
    def halve(self) -> cython.void:
        """Let the old half go and start a new young one; what is quickly found out again goes with it."""
        self.parents = {}
        self.old = self.young
        self.old_size = self.young_size
        self.young = {}
        self.young_size = 0

    def size(self) -> int:
        """How many answers are held; one of more than `ORDINARY_OCTETS` counts as several, so memory is bounded."""
        return self.young_size + self.old_size + len(self.parents)

    def old_half(self) -> int:
        """How many of them the next `halve` lets go."""
        return self.old_size


@cython.cclass
class Batch:
    """The buffers of one socket's batches, and the loop over them.

    `transport/udp.py` owns the memory and makes the system calls: it has `recvmmsg` fill `arena` and `names`, calls
    `answer`, and gives the first `sent` message headers to `sendmmsg`. Reply k stands in the slot of the datagram it
    answers; where a datagram was passed on, later headers are pointed at their slots so that the sent ones stay
    together.
    """

    arena: "mmap"
    names: "mmap"
    received: memoryview
    send_headers: memoryview
    send_vectors: memoryview
    counts: memoryview
    slot_of: list[int]
    passed: list[int]
    hit_room: bytes
    filler: "Filler | None"
    asked_places: bytes
    asked_lengths: bytes
    met: memoryview
    places: list[tuple[int, slice, slice]]
    arena_address: cython.ulonglong
    names_address: cython.ulonglong
    controls_address: cython.ulonglong
    key_start: cython.Py_ssize_t
    key_octets: cython.Py_ssize_t
    sent: cython.Py_ssize_t
    hit_count: cython.Py_ssize_t

    def __init__(
        self,
        arena: "mmap",
        names: "mmap",
        received: memoryview,
        send_headers: memoryview,
        send_vectors: memoryview,
        counts: memoryview,
        addresses: tuple[int, int, int],
        family_is_6: bool,
    ) -> None:
        """Take hold of the buffers.

        Args:
            arena: `SLOT_OCTETS` a slot.
            names: `SOCKADDR_OCTETS` a slot.
            received: The receive headers (struct mmsghdr, 64 octets) as "I": msg_len is item 14 of 16.
            send_headers: The send headers as "Q": msg_name is item 0 of 8, msg_iov points to the vector of the same
                number.
            send_vectors: The send vectors (struct iovec) as "Q": base, length.
            counts: The shared counters, "Q".
            addresses: Where `arena`, `names` and the control messages (`CONTROL_OCTETS` a slot) lie in memory; the last
                is 0 where replies need none.
            family_is_6: Whether the socket speaks IPv6.
        """
        self.arena = arena
        self.names = names
        self.received = received
        self.send_headers = send_headers
        self.send_vectors = send_vectors
        self.counts = counts
        self.arena_address, self.names_address, self.controls_address = addresses
        self.slot_of = list(range(len(received) // 16))
        self.passed = []
        # Room to lay a batch's hit records out in; only the compiled loop writes to it, nobody else ever sees it.
        self.hit_room = bytes(len(self.slot_of) * (12 + SOCKADDR_OCTETS + TAIL_OCTETS))
        self.filler = Filler() if fills_batches() else None  # None in a build of which only a part is compiled
        self.asked_places = bytes(16 * len(self.slot_of))
        self.asked_lengths = bytes(8 * len(self.slot_of))
        # Of the last questions that were not known by heart: a part of the hash, where another part says; 0 for none.
        # Plain Python takes four times as long to fill a template as to find a ready answer, so what is met again there
        # is passed on once, to be learned; compiled, that would never be made up for.
        self.met = memoryview(bytearray(0 if cython.compiled else 2 * _MET)).cast("H")
        # Where the address stands in a struct sockaddr_in or sockaddr_in6; the port beside it is left out of the key.
        self.key_start, self.key_octets = (8, 16) if family_is_6 else (4, 4)
        # Of each slot: where the octets after the message id begin, the address in `names`, the whole sockaddr.
        self.places = [
            (
                SLOT_OCTETS * i + 2,
                slice(SOCKADDR_OCTETS * i + self.key_start, SOCKADDR_OCTETS * i + self.key_start + self.key_octets),
                slice(SOCKADDR_OCTETS * i, SOCKADDR_OCTETS * (i + 1)),
            )
            for i in range(len(self.slot_of))
        ]
        self.sent = 0
        self.hit_count = 0

    def answer(self, sources: dict[bytes, ViewMemo], n: int, now: float, stamp: bytes) -> bytes:
        """Answer what can be answered of the first `n` slots; list the rest in `passed`.

        Two bodies of the same steps, each in the idiom that is quick where it runs: memory and pointers compiled,
        slices and iterators plain. `tests/unit/hot/test_batch_cy.py` holds them to the same octets.

        Args:
            sources: The memo for each client address (4 or 16 octets) whose view is known.
            n: How many datagrams `recvmmsg` delivered.
            now: Monotonic seconds.
            stamp: The eight octets of time that go into hit records.

        Returns:
            The hit records of the batch, one after another.
        """
        if cython.compiled:
            return self._answer_compiled(sources, n, now, stamp)
        arena, names, counts, slot_of, met = self.arena, self.names, self.counts, self.slot_of, self.met
        hits: list[bytes] = []
        passed: list[int] = []
        lengths: list[int] = []
        sent = 0
        sizes = self.received[14 : 16 * n : 16].tolist()
        for i, (start, source, peer), size in zip(range(n), self.places, sizes, strict=False):
            memo = sources.get(names[source])
            if memo is None:
                passed.append(i)
                continue
            key = arena[start : start + size - 2]
            ready = memo.young.get(key) or memo.old.get(key)
            if ready is None:
                known = hash(key)
                mark = known >> 20 & 0xFFFF | 1
                place = known & _MET - 1
                filled = None
                if memo.templates and memo.table is not None and met[place] != mark:
                    met[place] = mark
                    if len(memo.parents) >= 2 * memo.half:
                        memo.parents = {}
                    filled = fill(memo.templates, memo.parents, memo.table, key)
                if filled is None:
                    passed.append(i)
                    continue
                reply, tail, cell = filled
                hits += ((36 + len(tail)).to_bytes(4, "little"), stamp, names[peer], tail)
            elif ready.due <= now and not ready.turn(now):
                passed.append(i)
                continue
            else:
                reply = ready.reply
                cell = ready.cell
                if ready.hit_prefix:
                    hits += (ready.hit_prefix, stamp, names[peer], ready.hit_tail)
            octets = len(reply)
            arena[start : start + octets] = reply
            if slot_of[sent] != i:
                self._point(sent, i)
            sent += 1
            lengths.append(octets + 2)
            counts[cell] += 1
        self.send_vectors[1 : 2 * sent : 2] = memoryview(array("Q", lengths))
        self.sent = sent
        self.passed = passed
        self.hit_count = len(hits) // 4
        return b"".join(hits)

    if cython.compiled:

        @cython.boundscheck(False)
        @cython.wraparound(False)
        @cython.cfunc
        def _answer_compiled(self, sources: dict, n: cython.Py_ssize_t, now: cython.double, stamp: bytes) -> bytes:
            arena: cython.uchar[::1] = self.arena
            names: cython.uchar[::1] = self.names
            received: cython.uint[::1] = self.received
            vectors: cython.ulonglong[::1] = self.send_vectors
            counts: cython.ulonglong[::1] = self.counts
            key_start: cython.Py_ssize_t = self.key_start
            key_octets: cython.Py_ssize_t = self.key_octets
            slot_octets: cython.Py_ssize_t = SLOT_OCTETS  # as C numbers, since module globals are objects
            sockaddr_octets: cython.Py_ssize_t = SOCKADDR_OCTETS
            out: cython.p_char = PyBytes_AS_STRING(self.hit_room)
            at_hit: cython.p_char = out
            now_octets: cython.p_char = PyBytes_AS_STRING(stamp)
            tail_octets: cython.Py_ssize_t
            hit_count: cython.Py_ssize_t = 0
            sent: cython.Py_ssize_t = 0
            i: cython.Py_ssize_t
            size: cython.Py_ssize_t
            octets: cython.Py_ssize_t
            base: cython.Py_ssize_t
            name: cython.Py_ssize_t
            memo: ViewMemo = None
            ready: Ready
            ttls: cython.p_uint
            elapsed: cython.longlong
            left: cython.longlong
            places: cython.Py_ssize_t
            field: cython.p_uchar
            last: cython.Py_ssize_t = -1
            slot_of: list = self.slot_of
            passed: list = []
            # What is not known by heart, and may be filled in.
            place: cython.p_ulonglong = cython.cast(cython.p_ulonglong, PyBytes_AS_STRING(self.asked_places))
            length: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(self.asked_lengths))
            fills: cython.bint = self.filler is not None
            asked: cython.Py_ssize_t = 0
            k: cython.Py_ssize_t
            slots: list = []
            templates: list = []
            table: object = None
            for i in range(n):
                size = received[16 * i + 14]
                base = slot_octets * i
                name = sockaddr_octets * i
                if size < 12:
                    passed.append(i)
                    continue
                # Many datagrams come from the address that the one before came from.
                if last < 0 or memcmp(
                    cython.address(names[name + key_start]), cython.address(names[last + key_start]), key_octets
                ):
                    found = sources.get(
                        PyBytes_FromStringAndSize(
                            cython.cast(cython.p_char, cython.address(names[name + key_start])), key_octets
                        )
                    )
                    if found is None:
                        passed.append(i)
                        continue
                    memo = cython.cast(ViewMemo, found)
                    last = name
                key = PyBytes_FromStringAndSize(cython.cast(cython.p_char, cython.address(arena[base + 2])), size - 2)
                found = memo.young.get(key)
                if found is None:
                    if memo.old_size:
                        found = memo.old.get(key)
                    if found is None:
                        if not fills or not memo.templates or asked == 64 or (asked and memo.table is not table):
                            passed.append(i)
                            continue
                        table = memo.table
                        place[2 * asked] = self.arena_address + base
                        place[2 * asked + 1] = self.names_address + name
                        length[asked] = size
                        slots.append(i)
                        templates.append(memo.templates)
                        asked += 1
                        continue
                ready = cython.cast(Ready, found)
                if ready.until <= now:
                    passed.append(i)
                    continue
                octets = PyBytes_GET_SIZE(ready.first)
                memcpy(cython.address(arena[base + 2]), PyBytes_AS_STRING(ready.first), octets)
                places = PyBytes_GET_SIZE(ready.places) // 8
                if places and now - ready.stored >= 1:
                    # As `age` does it. `Ready` has made sure that each field lies within the reply.
                    elapsed = cython.cast(cython.longlong, now - ready.stored)
                    ttls = cython.cast(cython.p_uint, PyBytes_AS_STRING(ready.places))
                    for k in range(places):
                        field = cython.address(arena[base + 2]) + ttls[2 * k]
                        left = ttls[2 * k + 1] - elapsed
                        if left < 0:
                            left = 0
                        field[0] = left >> 24
                        field[1] = left >> 16 & 0xFF
                        field[2] = left >> 8 & 0xFF
                        field[3] = left & 0xFF
                if slot_of[sent] != i:
                    self._point(sent, i)
                vectors[2 * sent + 1] = octets + 2
                sent += 1
                counts[ready.cell] += 1
                if ready.hit_prefix:
                    hit_count += 1
                    tail_octets = PyBytes_GET_SIZE(ready.hit_tail)
                    memcpy(at_hit, PyBytes_AS_STRING(ready.hit_prefix), 4)
                    memcpy(at_hit + 4, now_octets, 8)
                    memcpy(at_hit + 12, cython.address(names[name]), sockaddr_octets)
                    memcpy(at_hit + 12 + sockaddr_octets, PyBytes_AS_STRING(ready.hit_tail), tail_octets)
                    at_hit += 12 + sockaddr_octets + tail_octets
            if asked:
                octets = self.filler.fill(
                    table,
                    templates,
                    self.asked_places,
                    self.asked_lengths,
                    stamp,
                    self.counts,
                    self.hit_room,
                    at_hit - out,
                )
                at_hit = out + octets
                for k in range(asked):
                    i = slots[k]
                    if not length[k]:
                        passed.append(i)
                        continue
                    if slot_of[sent] != i:
                        self._point(sent, i)
                    vectors[2 * sent + 1] = length[k]
                    sent += 1
                    hit_count += 1
                passed.sort()
            self.sent = sent
            self.passed = passed
            self.hit_count = hit_count
            return PyBytes_FromStringAndSize(out, at_hit - out)

    def outcome(self) -> tuple[int, list[int], int]:
        """Of the last `answer`: how many replies stand ready, the slots passed on, how many hits there were."""
        return self.sent, self.passed, self.hit_count

    def add(self, slot: int, octets: int) -> None:
        """Put the reply that stands in a slot behind those that stand ready."""
        sent = self.sent
        if self.slot_of[sent] != slot:
            self._point(sent, slot)
        self.send_vectors[2 * sent + 1] = octets
        self.sent = sent + 1

    def slot(self, k: int) -> int:
        """The slot that reply `k` stands in."""
        return int(self.slot_of[k])

    def _point(self, k: int, slot: int) -> None:
        """Make send header `k` speak of a slot's octets, address and control message."""
        self.slot_of[k] = slot
        self.send_headers[8 * k] = self.names_address + SOCKADDR_OCTETS * slot
        self.send_vectors[2 * k] = self.arena_address + SLOT_OCTETS * slot
        if self.controls_address:
            self.send_headers[8 * k + 4] = self.controls_address + CONTROL_OCTETS * slot
