"""What was filled in from a template is learned when it is asked for again, since a ready answer costs a third of it.

For compiled builds alone; plain Python does the same with less ado (`Batch.answer`). Who asks for names that nobody
asks for twice takes no room from others: of a question that was filled in only 16 bits are kept, in a place that it
shares with others. Every other time the place is left to the one before, so that of two that are asked in turn one is
learned, and then the other.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resolver.hot import cython_shim as cython
else:
    try:
        import cython
    except ModuleNotFoundError:
        from resolver.hot import cython_shim as cython

    if cython.compiled:
        from cython.cimports.cpython.bytes import PyBytes_AS_STRING
        from cython.cimports.libc.math import INFINITY
        from cython.cimports.libc.string import memcpy, memset

KEY_OCTETS = 288  # of a longer key nothing is learned: header, longest name, type and class, OPT take 282
_MET = 1 << 17  # places
_ROOM = 1 << 16  # octets for what is learned at one time


def learns() -> bool:
    """Whether this build has `Repeats.learn`."""
    return bool(cython.compiled)


@cython.cclass
class Repeats:
    """The questions that were filled in before, more or less."""

    met: bytes
    records: bytes
    if cython.compiled:
        met_at: cython.p_ushort
        out: cython.p_uchar
        used: cython.Py_ssize_t
        turn: cython.uint
        slots: cython.p_longlong
        keys: cython.p_uchar
        sizes: cython.p_longlong
        marks: cython.p_ulonglong
        memo_of: cython.p_longlong
        arena: cython.p_uchar
        hits: cython.p_uchar

        def __init__(self, slots: int, keys: int, sizes: int, marks: int, memo_of: int, arena: int, hits: int) -> None:
            """Take hold of buffers that somebody else keeps, by where they begin in memory.

            Args:
                slots: Of each query that was to be filled in: its slot (i64).
                keys: The same, less its id, as it came, `KEY_OCTETS` each.
                sizes: Of each of these: its octets, 0 for one that is too long (i64).
                marks: Of each slot: the hash of its query (u64).
                memo_of: Of each slot: the number of its memo in the list (i64).
                arena: 4,096 octets a slot: the replies.
                hits: Their hit records.
            """
            # Rooms that only this class writes to, and nobody else sees.
            self.met = bytes(2 * _MET)
            self.records = bytes(_ROOM)
            self.met_at = cython.cast(cython.p_ushort, PyBytes_AS_STRING(self.met))
            self.out = cython.cast(cython.p_uchar, PyBytes_AS_STRING(self.records))
            self.slots = cython.cast(cython.p_longlong, cython.cast(cython.size_t, slots))
            self.keys = cython.cast(cython.p_uchar, cython.cast(cython.size_t, keys))
            self.sizes = cython.cast(cython.p_longlong, cython.cast(cython.size_t, sizes))
            self.marks = cython.cast(cython.p_ulonglong, cython.cast(cython.size_t, marks))
            self.memo_of = cython.cast(cython.p_longlong, cython.cast(cython.size_t, memo_of))
            self.arena = cython.cast(cython.p_uchar, cython.cast(cython.size_t, arena))
            self.hits = cython.cast(cython.p_uchar, cython.cast(cython.size_t, hits))

        @cython.boundscheck(False)
        @cython.wraparound(False)
        def learn(
            self,
            answers: list,
            count: cython.Py_ssize_t,
            places: bytes,
            lengths: bytes,
            start: cython.Py_ssize_t,
        ) -> cython.Py_ssize_t:
            """Learn what is filled in again; keep in mind what is filled in for the first time.

            Args:
                answers: What learns, by number.
                count: How many queries were to be filled in.
                places: As `Filler.fill` left it: of each that was answered, the counter in its second word (two u64).
                lengths: The same: octets of the reply, 0 for none (i64).
                start: Where in the room for hit records theirs begin.

            Returns:
                How many were learned.
            """
            told: cython.p_ulonglong = cython.cast(cython.p_ulonglong, PyBytes_AS_STRING(places))
            length: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(lengths))
            hit: cython.p_uchar = self.hits + start
            octets: cython.Py_ssize_t
            learned: cython.Py_ssize_t = 0
            k: cython.Py_ssize_t
            slot: cython.Py_ssize_t
            mark: cython.ushort
            place: cython.p_ushort
            number: cython.longlong = -1
            for k in range(count):
                if length[k] <= 0:
                    continue
                octets = 4 + (hit[0] | hit[1] << 8)
                slot = self.slots[k]
                place = self.met_at + (self.marks[slot] >> 8 & 0x1FFFF)
                mark = self.marks[slot] >> 32 & 0xFFFF | 1
                if place[0] != mark:
                    self.turn += 1
                    if self.turn & 1 or place[0] == 0:
                        place[0] = mark
                elif self.sizes[k] and told[2 * k + 1] >> 32 == 0:  # an address where no counter is told
                    if self.used > 0xC000 or self.memo_of[slot] != number:
                        self._hand_over(answers, number)
                        number = self.memo_of[slot]
                    self._write(k, self.arena + 4096 * slot + 2, length[k] - 2, told[2 * k + 1], hit, octets)
                    learned += 1
                hit += octets
            self._hand_over(answers, number)
            return learned

        @cython.cfunc
        @cython.exceptval(check=False)
        def _write(
            self,
            k: cython.Py_ssize_t,
            reply: cython.p_uchar,
            octets: cython.Py_ssize_t,
            cell: cython.ulonglong,
            hit: cython.p_uchar,
            hit_octets: cython.Py_ssize_t,
        ) -> cython.void:
            """Lay an answer out as `ViewMemo.learn` reads it."""
            out: cython.p_uchar = self.out + self.used
            times: cython.double[2]
            number: cython.uint = cell
            sizes: cython.ushort[4]
            times[0] = INFINITY
            times[1] = 0
            sizes[0] = self.sizes[k]
            sizes[1] = octets
            sizes[2] = 0
            sizes[3] = hit_octets - 40  # time and address stand before it
            memcpy(out, times, 16)
            memcpy(out + 16, cython.address(number), 4)
            memcpy(out + 20, sizes, 8)
            memcpy(out + 28, hit, 4)
            memcpy(out + 32, self.keys + 288 * k, sizes[0])
            memcpy(out + 32 + sizes[0], reply, octets)
            memcpy(out + 32 + sizes[0] + octets, hit + 40, sizes[3])
            octets += 32 + sizes[0] + sizes[3]
            memset(out + octets, 0, -octets & 7)
            self.used += (octets + 7) & ~7

        @cython.cfunc
        def _hand_over(self, answers: list, number: cython.Py_ssize_t) -> cython.int:
            if self.used:
                used: cython.Py_ssize_t = self.used
                self.used = 0
                answers[number].learn(self.records, used)
            return 0
