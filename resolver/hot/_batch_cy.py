"""The memo of what was said, and the loop that answers a batch of datagrams from it.

The contract (`resolver/DESIGN.md`): what is answered here is, byte for byte, what the pipeline would have answered; all
else is passed on to it. The memo holds nothing that was not first answered by the pipeline and learned from it. It has
two levels, both under the memo of the client's view, so that no client is ever answered with another view's verdict:

- **Ready answers**, to questions that were asked before. The key is the datagram itself, less the two octets of the
  message id: so flags, EDNS, letter case and type all take part. An entry leaves when its cached answer expires, and
  when newer ones need the room.
- **Templates** (`_templates_cy`), for names at or below listed ones that nobody asked for yet. Nothing is learned from
  such an answer before it is asked for again (`_twice_cy`), so who asks for random names takes no room from others.

All leave at once when the policy changes (a new generation, or an order's moment).
"""

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmap import mmap

    from resolver.hot import cython_shim as cython
    from resolver.hot._memo_cy import Answers, Reciter, recites
    from resolver.hot._names_cy import NameTable
    from resolver.hot._ready_cy import NEVER, PLACE, RECORD, SLOT_OCTETS, Ready
    from resolver.hot._templates_cy import TAIL_OCTETS, Filler, Parents, Template, Templates, fill, fills_batches
    from resolver.hot._twice_cy import KEY_OCTETS, Repeats, learns
else:
    try:
        import cython
    except ModuleNotFoundError:
        from resolver.hot import cython_shim as cython
    from resolver.hot._memo_cy import Answers, Reciter, recites
    from resolver.hot._ready_cy import NEVER, PLACE, RECORD, SLOT_OCTETS, Ready
    from resolver.hot._templates_cy import TAIL_OCTETS, Filler, fill, fills_batches
    from resolver.hot._twice_cy import KEY_OCTETS, Repeats, learns

    if cython.compiled:
        from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
        from cython.cimports.libc.string import memcmp, memcpy

__all__ = ["CONTROL_OCTETS", "NEVER", "SLOT_OCTETS", "SOCKADDR_OCTETS", "TAIL_OCTETS", "Batch", "Ready", "ViewMemo"]

SOCKADDR_OCTETS = 28  # struct sockaddr_in6, the longer of the two
CONTROL_OCTETS = 64  # room for one IP_PKTINFO or IPV6_PKTINFO message
_MET = 1 << 18  # questions of which it is known, more or less, whether they were met before
TEMPLATES = 2048  # of one view: by claim sets and by types that are asked for; with more, they are learned anew
ORDINARY_OCTETS = 512  # of a reply; nearly all are shorter


@cython.cclass
class ViewMemo:
    """What is known of one view: templates, and ready answers.

    These are in two halves: when the young half is full it becomes the old one, and the old is let go.

    Nothing moves between the halves, so a set of questions that fits is never let go by being asked, and letting go is
    one assignment. What was in use comes back with its next question, at the price of one walk through the pipeline.
    """

    young: dict[bytes, Ready]
    old: dict[bytes, Ready]
    answers: "Answers | None"
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
        self.answers = None
        if cython.compiled and recites():  # not in a build of which only a part is compiled
            self.answers = Answers(self.half)  # in place of the dicts

    def put(self, key: bytes, ready: Ready) -> None:
        """File an answer under the datagram it answers, less the id."""
        if cython.compiled and self.answers is not None:
            record = ready.record(key)
            self.answers.learn(record, len(record))
            return
        if key not in self.young:
            if self.young_size >= self.half:
                self.halve()
            self.young_size += 1 + len(ready.first) // ORDINARY_OCTETS
        self.young[key] = ready

    def learn(self, records: bytes, octets: int) -> None:
        """File many answers.

        Args:
            records: One after another, each filled up with zeros to a multiple of 8 octets: `RECORD` (until; stored;
                cell; how many octets of key and reply, how many TTLs, how many octets of the hit record's end; the four
                octets that the hit record begins with, or zeros where there is none), then the key, the reply from its
                third octet on, `PLACE` (offset in the reply, seconds) of each TTL, and the hit record's end. All as in
                a `Ready`; a key has at least one octet.
            octets: How many octets of it are in use.

        Raises:
            ValueError: They end within a record, or a record can be none; those before it are filed.
        """
        if cython.compiled and self.answers is not None:
            self.answers.learn(records, octets)
            return
        at = 0
        while at < octets:
            if at + RECORD.size > min(octets, len(records)):
                raise ValueError("the octets end within a record")
            until, stored, cell, key_octets, reply_octets, count, tail_octets, prefix = RECORD.unpack_from(records, at)
            key_at = at + RECORD.size
            reply_at = key_at + key_octets
            ttls_at = reply_at + reply_octets
            tail_at = ttls_at + 8 * count
            end = tail_at + tail_octets
            if not key_octets or end > min(octets, len(records)):
                raise ValueError("the octets end within a record")
            ttls = tuple(PLACE.iter_unpack(records[ttls_at:tail_at]))
            reply, tail = records[reply_at:ttls_at], records[tail_at:end]
            ready = Ready(reply, cell, until, stored, ttls, prefix if any(prefix) else b"", tail)
            self.put(records[key_at:reply_at], ready)
            at = end + 7 & ~7

    def file(self, key: int, template: "Template | None") -> None:
        """File a template by its `template_key`, or that there is none, so that it is not sought again."""
        if len(self.templates) >= TEMPLATES:
            self.templates.clear()
        if self.table is not None:
            self.templates[key] = template

    def has_filed(self, key: int) -> bool:
        """Whether it is known what template there is."""
        return key in self.templates

    def halve(self) -> None:
        """Let the old half go and start a new young one; what is quickly found out again goes with it."""
        if cython.compiled and self.answers is not None:
            self.answers.halve()
            return
        self.parents = {}
        self.old = self.young
        self.old_size = self.young_size
        self.young = {}
        self.young_size = 0

    def size(self) -> int:
        """How many answers are held; one of more than `ORDINARY_OCTETS` counts as several, so memory is bounded."""
        if cython.compiled and self.answers is not None:
            return sum(self.answers.sizes())
        return self.young_size + self.old_size + len(self.parents)

    def old_half(self) -> int:
        """How many of them the next `halve` lets go."""
        if cython.compiled and self.answers is not None:
            return self.answers.sizes()[1]
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
    asked_keys: bytes
    told_room: bytes
    reciter: "Reciter | None"
    repeats: "Repeats | None"
    met: memoryview
    places: list[tuple[int, slice, slice]]
    arena_address: cython.ulonglong
    names_address: cython.ulonglong
    controls_address: cython.ulonglong
    key_start: cython.Py_ssize_t
    key_octets: cython.Py_ssize_t
    sent: cython.Py_ssize_t
    hit_count: cython.Py_ssize_t
    learned_here: cython.Py_ssize_t
    if cython.compiled:
        received_words: cython.p_uint
        sending_words: cython.p_ulonglong
        vector_words: cython.p_ulonglong
        order: cython.p_longlong
        memo_of: cython.p_longlong
        told: cython.p_longlong
        asked_slots: cython.p_longlong
        asked_sizes: cython.p_longlong

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
            received: The receive headers (struct mmsghdr, 64 octets) as "I": msg_controllen is item 10 of 16, msg_len
                item 14.
            send_headers: The send headers as "Q": msg_name is item 0 of 8, msg_controllen item 5; msg_iov points to the
                vector of the same number.
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
        # Rooms that only the compiled loop writes to, and nobody else ever sees: for a batch's hit records; for what is
        # to be filled in; and for numbers, of each slot and of what is to be filled in.
        self.hit_room = bytes(len(self.slot_of) * (12 + SOCKADDR_OCTETS + TAIL_OCTETS))
        self.filler = Filler() if fills_batches() else None  # None in a build of which only a part is compiled
        self.asked_places = bytes(16 * len(self.slot_of))
        self.asked_lengths = bytes(8 * len(self.slot_of))
        self.asked_keys = bytes(KEY_OCTETS * len(self.slot_of))
        self.told_room = bytes(8 * (6 * len(self.slot_of) + 1))
        self.reciter = self.repeats = None
        if cython.compiled and recites():
            self._take_hold()
        # Of the last questions that were not known by heart: a part of the hash, where another part says; 0 for none.
        # Plain Python takes four times as long to fill a template as to find a ready answer, so what is met again there
        # is learned; who asks for names that nobody asks for twice takes no room from others.
        self.met = memoryview(bytearray(0 if self.reciter is not None else 2 * _MET)).cast("H")
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
        self.learned_here = 0

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
        if cython.compiled and self.reciter is not None:
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
                filled = None
                if memo.templates and memo.table is not None:
                    if len(memo.parents) >= 2 * memo.half:
                        memo.parents = {}
                    filled = fill(memo.templates, memo.parents, memo.table, key)
                if filled is None:
                    passed.append(i)
                    continue
                reply, tail, cell = filled
                prefix = (36 + len(tail)).to_bytes(4, "little")
                hits += (prefix, stamp, names[peer], tail)
                known = hash(key)
                mark = known >> 20 & 0xFFFF | 1
                place = known & _MET - 1
                if met[place] == mark:
                    memo.put(key, Ready(reply, cell, NEVER, 0.0, (), prefix, tail))
                    self.learned_here += 1
                else:
                    met[place] = mark
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
        if self.controls_address:
            for k in range(sent):
                self.send_headers[8 * k + 5] = self.received[16 * slot_of[k] + 10]
        self.sent = sent
        self.passed = passed
        self.hit_count = len(hits) // 4
        return b"".join(hits)

    if cython.compiled:

        @cython.cfunc
        def _take_hold(self) -> cython.void:
            """Find out once where the buffers lie. They stay there for as long as their memoryviews are held."""
            headers: cython.uint[::1] = self.received
            sending: cython.ulonglong[::1] = self.send_headers
            vectors: cython.ulonglong[::1] = self.send_vectors
            counts: cython.ulonglong[::1] = self.counts
            slots: cython.Py_ssize_t = len(self.slot_of)
            i: cython.Py_ssize_t
            self.received_words = cython.address(headers[0])
            self.sending_words = cython.address(sending[0])
            self.vector_words = cython.address(vectors[0])
            self.order = cython.cast(cython.p_longlong, PyBytes_AS_STRING(self.told_room))
            self.memo_of = self.order + slots
            self.asked_slots = self.memo_of + slots
            self.asked_sizes = self.asked_slots + slots
            self.told = self.asked_sizes + slots  # one more than slots
            for i in range(slots):
                self.order[i] = i
            self.reciter = Reciter(
                self.arena_address,
                self.names_address,
                cython.cast(cython.size_t, self.received_words),
                cython.cast(cython.size_t, cython.address(counts[0])),
                cython.cast(cython.size_t, PyBytes_AS_STRING(self.hit_room)),
                cython.cast(cython.size_t, self.memo_of),
                cython.cast(cython.size_t, self.told),
                cython.cast(cython.size_t, self.told + slots + 1),
            )
            if learns():
                self.repeats = Repeats(
                    cython.cast(cython.size_t, self.asked_slots),
                    cython.cast(cython.size_t, PyBytes_AS_STRING(self.asked_keys)),
                    cython.cast(cython.size_t, self.asked_sizes),
                    cython.cast(cython.size_t, self.told + slots + 1),
                    cython.cast(cython.size_t, self.memo_of),
                    self.arena_address,
                    cython.cast(cython.size_t, PyBytes_AS_STRING(self.hit_room)),
                )

        @cython.boundscheck(False)
        @cython.wraparound(False)
        @cython.cfunc
        def _answer_compiled(self, sources: dict, n: cython.Py_ssize_t, now: cython.double, stamp: bytes) -> bytes:
            names: cython.p_uchar = cython.cast(cython.p_uchar, cython.cast(cython.size_t, self.names_address))
            start: cython.Py_ssize_t = self.key_start
            octets: cython.Py_ssize_t = self.key_octets
            i: cython.Py_ssize_t
            name: cython.p_uchar
            last: cython.p_uchar = cython.NULL
            last_number: cython.longlong = -1
            sent: cython.Py_ssize_t = 0
            unknown: cython.Py_ssize_t = 0
            used: cython.Py_ssize_t
            memo: ViewMemo
            memos: list = []
            answers: list = []
            passed: list = []
            for i in range(n):
                self.memo_of[i] = -1
                if self.received_words[16 * i + 14] < 12:
                    continue
                # Many datagrams come from the address that the one before came from.
                name = names + 28 * i + start
                if last == cython.NULL or memcmp(name, last, octets):
                    last = name
                    found = sources.get(PyBytes_FromStringAndSize(cython.cast(cython.p_char, name), octets))
                    last_number = -1
                    if found is not None:
                        memo = cython.cast(ViewMemo, found)
                        last_number = len(memos)
                        memos.append(memo)
                        answers.append(memo.answers)
                self.memo_of[i] = last_number
            used = self.reciter.recite(answers, n, now, stamp)
            self.hit_count = self.told[n]
            for i in range(n):
                if self.told[i] == 0 and self.memo_of[i] >= 0:
                    unknown += 1
            if unknown and self.filler is not None:
                used = self._fill_in(memos, answers, n, stamp, used)
            for i in range(n):
                if self.told[i] <= 0:
                    passed.append(i)
                    continue
                if self.order[sent] != i:
                    self._point(sent, i)
                self.vector_words[2 * sent + 1] = self.told[i]
                if self.controls_address:
                    self.sending_words[8 * sent + 5] = self.received_words[16 * i + 10]
                sent += 1
            self.sent = sent
            self.passed = passed
            return PyBytes_FromStringAndSize(PyBytes_AS_STRING(self.hit_room), used)

        @cython.boundscheck(False)
        @cython.wraparound(False)
        @cython.cfunc
        def _fill_in(
            self, memos: list, answers: list, n: cython.Py_ssize_t, stamp: bytes, start: cython.Py_ssize_t
        ) -> cython.Py_ssize_t:
            """Answer from templates what is not known by heart; returns how many octets all hit records take."""
            place: cython.p_ulonglong = cython.cast(cython.p_ulonglong, PyBytes_AS_STRING(self.asked_places))
            length: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(self.asked_lengths))
            keys: cython.p_char = PyBytes_AS_STRING(self.asked_keys)
            datagram: cython.p_uchar
            templates: list = []
            table: object = None
            memo: ViewMemo
            i: cython.Py_ssize_t
            k: cython.Py_ssize_t
            size: cython.Py_ssize_t
            used: cython.Py_ssize_t
            asked: cython.Py_ssize_t = 0
            for i in range(n):
                if self.told[i] or self.memo_of[i] < 0:
                    continue
                memo = cython.cast(ViewMemo, memos[self.memo_of[i]])
                if not memo.templates or asked == 64 or (asked and memo.table is not table):
                    continue
                table = memo.table
                datagram = cython.cast(cython.p_uchar, cython.cast(cython.size_t, self.arena_address)) + 4096 * i
                size = self.received_words[16 * i + 14]
                self.asked_slots[asked] = i
                self.asked_sizes[asked] = size - 2 if size <= 290 else 0  # KEY_OCTETS
                memcpy(keys + 288 * asked, datagram + 2, 64)  # of a size that is known, since most are shorter
                if size > 66:
                    memcpy(keys + 288 * asked + 64, datagram + 66, 224)
                place[2 * asked] = self.arena_address + 4096 * i
                place[2 * asked + 1] = self.names_address + 28 * i
                length[asked] = size
                templates.append(memo.templates)
                asked += 1
            if not asked:
                return start
            used = self.filler.fill(
                table,
                templates,
                self.asked_places,
                self.asked_lengths,
                stamp,
                self.counts,
                self.hit_room,
                start,
            )
            for k in range(asked):
                self.told[self.asked_slots[k]] = length[k]
                self.hit_count += length[k] > 0
            if self.repeats is not None and used > start:
                self.learned_here += self.repeats.learn(answers, asked, self.asked_places, self.asked_lengths, start)
            return used

    def outcome(self) -> tuple[int, list[int], int]:
        """Of the last `answer`: how many replies stand ready, the slots passed on, how many hits there were."""
        return self.sent, self.passed, self.hit_count

    def learned(self) -> int:
        """How many answers memos learned in batches since this was asked before."""
        count = self.learned_here
        self.learned_here = 0
        return int(count)

    def add(self, slot: int, octets: int) -> None:
        """Put the reply that stands in a slot behind those that stand ready, with the slot's control message."""
        sent = self.sent
        if self.slot(sent) != slot:
            self._point(sent, slot)
        self.send_vectors[2 * sent + 1] = octets
        if self.controls_address:
            self.send_headers[8 * sent + 5] = self.received[16 * slot + 10]
        self.sent = sent + 1

    def slot(self, k: int) -> int:
        """The slot that reply `k` stands in."""
        if cython.compiled:
            return self.order[k]
        return int(self.slot_of[k])

    def _point(self, k: int, slot: int) -> None:
        """Make send header `k` speak of a slot's octets, address and control message."""
        if cython.compiled:
            self.order[k] = slot
        self.slot_of[k] = slot
        self.send_headers[8 * k] = self.names_address + SOCKADDR_OCTETS * slot
        self.send_vectors[2 * k] = self.arena_address + SLOT_OCTETS * slot
        if self.controls_address:
            self.send_headers[8 * k + 4] = self.controls_address + CONTROL_OCTETS * slot
