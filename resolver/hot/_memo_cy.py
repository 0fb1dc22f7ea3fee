"""Ready answers in memory of their own: what is known by heart of a view, and how a batch is answered from it.

For compiled builds alone; plain Python keeps dicts instead (`_batch_cy`). No object is made or looked at for an answer,
since what an answer costs here is the memory that has to be fetched for it.

Answers are in two halves: when the young half is full it becomes the old one, and the old is let go. Each is a table:

- an *index* of u64 with linear probing, at most half of it in use: 16 bits of the hash, 8 bits that say how many lines
  of 64 octets to fetch, 40 bits that say where, in units of 8 octets from 1 on; 0 for a free place;
- a *log* of records, 8-aligned: `Head`, key, TTLs (offset, seconds), reply, end of the hit record. What the reply
  repeats of the key behind the header, which is the question, is left out: it stands in the slot already.

Keys are hashed by SipHash-1-3 (Aumasson and Bernstein, 2012) under a key of this process, so that nobody can choose
datagrams that fall on one place. Memory is got when the first answer comes, grows by doubling, from some thousand
answers on at one go to all that a half is to hold, and is given back when a half is let go.

All of it is in one file, whatever its lines, since compiled classes see each other's fields in one file alone.
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
        from cython.cimports.libc.stdlib import free
        from cython.cimports.libc.string import memcmp, memcpy, memset
        from cython.cimports.posix.mman import MADV_HUGEPAGE, madvise
        from cython.cimports.posix.stdlib import posix_memalign

        # Of one answer. What follows it: key, TTLs (two u32 each), reply less `echoed` octets, end of the hit record.
        Head = cython.struct(
            until=cython.double,
            stored=cython.double,
            cell=cython.uint,
            room=cython.uint,  # octets to the next record
            key=cython.ushort,  # octets of it; 0 for a record that another one took the place of
            ttls=cython.ushort,
            reply=cython.ushort,  # octets, with those left out
            echoed=cython.ushort,  # octets of the reply from its tenth on that are those of the key
            tail=cython.ushort,
            is_hit=cython.ushort,
            prefix=cython.uchar[4],
        )
        # One half.
        Table = cython.struct(
            index=cython.p_ulonglong,
            mask=cython.ulonglong,  # places less one
            log=cython.p_uchar,
            room=cython.ulonglong,  # octets of the log
            used=cython.ulonglong,
            dead=cython.ulonglong,  # octets of records that others took the place of
            count=cython.ulonglong,
            most=cython.ulonglong,  # records that it is to hold
        )
        p_Head = cython.typedef(cython.pointer(Head))
        p_Table = cython.typedef(cython.pointer(Table))

SCREENED_KEY_OCTETS = 264  # room for one key that `Answers.screen` looks up: one of the cache has 258 at most

# What SipHash begins with, under a key as random as the hashes of the process are (as C numbers: module globals and
# large literals are objects).
KEY = tuple([hash(half) & 0xFFFFFFFFFFFFFFFF for half in (b"half of the key of the memo", b"the other half")])
_start_0 = cython.declare(cython.ulonglong, KEY[0] ^ 0x736F6D6570736575)
_start_1 = cython.declare(cython.ulonglong, KEY[1] ^ 0x646F72616E646F6D)
_start_2 = cython.declare(cython.ulonglong, KEY[0] ^ 0x6C7967656E657261)
_start_3 = cython.declare(cython.ulonglong, KEY[1] ^ 0x7465646279746573)


def recites() -> bool:
    """Whether this build has `Answers` and `Reciter`."""
    return bool(cython.compiled)


if cython.compiled:

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _sip_round(v: cython.p_ulonglong) -> cython.void:
        v[0] += v[1]
        v[1] = (v[1] << 13 | v[1] >> 51) ^ v[0]
        v[0] = v[0] << 32 | v[0] >> 32
        v[2] += v[3]
        v[3] = (v[3] << 16 | v[3] >> 48) ^ v[2]
        v[0] += v[3]
        v[3] = (v[3] << 21 | v[3] >> 43) ^ v[0]
        v[2] += v[1]
        v[1] = (v[1] << 17 | v[1] >> 47) ^ v[2]
        v[2] = v[2] << 32 | v[2] >> 32

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _hash(octets: cython.p_uchar, size: cython.Py_ssize_t) -> cython.ulonglong:
        """SipHash-1-3 of a key."""
        v: cython.ulonglong[4]
        word: cython.ulonglong = 0
        i: cython.Py_ssize_t = 0
        v[0], v[1], v[2], v[3] = _start_0, _start_1, _start_2, _start_3
        while i + 8 <= size:
            memcpy(cython.address(word), octets + i, 8)
            v[3] ^= word
            _sip_round(v)
            v[0] ^= word
            i += 8
        word = 0
        if i < size:
            if i:  # the last eight, less those that were taken before
                memcpy(cython.address(word), octets + size - 8, 8)
                word >>= 8 * (8 - (size - i))
            else:
                memcpy(cython.address(word), octets, size)
        word |= cython.cast(cython.ulonglong, size) << 56
        v[3] ^= word
        _sip_round(v)
        v[0] ^= word
        v[2] ^= 0xFF
        _sip_round(v)
        _sip_round(v)
        _sip_round(v)
        return v[0] ^ v[1] ^ v[2] ^ v[3]

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _is_of(record: p_Head, key: cython.p_uchar, size: cython.Py_ssize_t) -> cython.bint:
        return record.key == size and memcmp(cython.cast(cython.p_uchar, record) + cython.sizeof(Head), key, size) == 0

    @cython.cfunc
    @cython.exceptval(check=False)
    def _find(
        table: p_Table, mark: cython.ulonglong, key: cython.p_uchar, size: cython.Py_ssize_t
    ) -> cython.p_ulonglong:
        """The place in the index of what is filed under a key, NULL for nothing."""
        place: cython.ulonglong
        if table.index == cython.NULL:
            return cython.NULL
        place = mark & table.mask
        while table.index[place]:
            if (table.index[place] ^ mark) >> 48 == 0 and _is_of(_at(table, table.index[place]), key, size):
                return table.index + place
            place = (place + 1) & table.mask
        return cython.NULL

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _at(table: p_Table, entry: cython.ulonglong) -> p_Head:
        """The record that an entry of the index speaks of."""
        return cython.cast(p_Head, table.log + ((entry << 24 >> 24) - 1 << 3))

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _entry(mark: cython.ulonglong, offset: cython.ulonglong, room: cython.ulonglong) -> cython.ulonglong:
        lines: cython.ulonglong = ((offset & 63) + room + 63) >> 6
        return mark >> 48 << 48 | (lines if lines < 255 else 255) << 40 | ((offset >> 3) + 1)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _enter(table: p_Table, mark: cython.ulonglong, entry: cython.ulonglong) -> cython.void:
        """Put a record that is new there into the index."""
        place: cython.ulonglong = mark & table.mask
        while table.index[place]:
            place = (place + 1) & table.mask
        table.index[place] = entry
        table.count += 1

    @cython.cfunc
    @cython.exceptval(check=False)
    def _let_go(table: p_Table) -> cython.void:
        free(table.index)
        free(table.log)
        memset(table, 0, cython.sizeof(Table))

    @cython.cfunc
    @cython.exceptval(check=False)
    def _memory(octets: cython.ulonglong) -> cython.p_void:
        """New memory that begins with a line, or NULL; of large blocks each access is one to a large page."""
        block: cython.p_void = cython.NULL
        large: cython.bint = octets >= 1 << 22
        if posix_memalign(cython.address(block), 1 << 21 if large else 64, octets):
            return cython.NULL
        if large:
            madvise(block, octets, MADV_HUGEPAGE)  # where the kernel has none, ordinary pages do
        return block

    @cython.cfunc
    def _make_room(table: p_Table, octets: cython.ulonglong) -> cython.int:
        """Make room for one more record of so many octets; those that others took the place of are left out.

        Raises:
            MemoryError: There is none; the table is as it was.
        """
        new: Table
        record: p_Head
        mark: cython.ulonglong
        at: cython.ulonglong = 0
        needed: cython.ulonglong = table.used - table.dead + octets
        memset(cython.address(new), 0, cython.sizeof(Table))
        new.most = table.most
        new.mask = table.mask if table.index else 15
        while 2 * (table.count + 1) > new.mask + 1:
            new.mask = 2 * new.mask + 1
        new.room = table.room or 1024
        while needed > new.room or (table.dead < needed // 2 and needed > new.room // 2):
            new.room *= 2
        if table.count >= 4096:
            # One that is no longer small gets room for all that it is to hold, at one go: what is not written to takes
            # no memory, but to move many records takes time in which nobody is answered.
            while new.mask + 1 <= 2 * new.most:
                new.mask = 2 * new.mask + 1
            while new.room < 512 * new.most:
                new.room *= 2
        new.index = cython.cast(cython.p_ulonglong, _memory(8 * (new.mask + 1)))
        new.log = cython.cast(cython.p_uchar, _memory(new.room))
        if new.index == cython.NULL or new.log == cython.NULL:
            _let_go(cython.address(new))
            raise MemoryError("no memory for ready answers: lower `ready_answers`")
        memset(new.index, 0, 8 * (new.mask + 1))
        while at < table.used:
            record = cython.cast(p_Head, table.log + at)
            at += record.room
            if record.key:
                memcpy(new.log + new.used, record, record.room)
                mark = _hash(cython.cast(cython.p_uchar, record) + cython.sizeof(Head), record.key)
                _enter(cython.address(new), mark, _entry(mark, new.used, record.room))
                new.used += record.room
        _let_go(table)
        table[0] = new
        return 0

    @cython.cfunc
    def _store(
        table: p_Table, place: cython.p_ulonglong, mark: cython.ulonglong, head: p_Head, key: cython.p_uchar
    ) -> cython.int:
        """Write a record down, in place of the one before under the same key if it has the room.

        Args:
            table: Which half.
            place: Of the one before in its index, NULL where there is none.
            mark: The hash of the key.
            head: Its `room` and `echoed` are found out here.
            key: And behind it reply, TTLs and end of the hit record, as long as the head says.

        Raises:
            MemoryError: There is no room for it.
        """
        reply: cython.p_uchar = key + head.key
        out: cython.p_uchar
        echoed: cython.Py_ssize_t = 10
        while echoed < head.reply and echoed < head.key and reply[echoed] == key[echoed]:
            echoed += 1
        echoed = echoed - 10 if echoed > 10 else 0
        head.echoed = echoed
        head.room = (cython.sizeof(Head) + head.key + 8 * head.ttls + head.reply - echoed + head.tail + 7) & ~7
        if place and _at(table, place[0]).room >= head.room:
            head.room = _at(table, place[0]).room
            out = cython.cast(cython.p_uchar, _at(table, place[0]))
        else:
            if place:
                table.dead += _at(table, place[0]).room
                _at(table, place[0]).key = 0
            if table.used + head.room > table.room or (not place and 2 * (table.count + 1) > table.mask + 1):
                _make_room(table, head.room)
                place = cython.NULL
            out = table.log + table.used
            if place:
                place[0] = _entry(mark, table.used, head.room)
            else:
                _enter(table, mark, _entry(mark, table.used, head.room))
            table.used += head.room
        memcpy(out, head, cython.sizeof(Head))
        out += cython.sizeof(Head)
        memcpy(out, key, head.key)
        out += head.key
        memcpy(out, reply + head.reply, 8 * head.ttls)
        out += 8 * head.ttls
        if echoed:
            memcpy(out, reply, 10)
            memcpy(out + 10, reply + 10 + echoed, head.reply - 10 - echoed)
        else:
            memcpy(out, reply, head.reply)
        memcpy(out + head.reply - echoed, reply + head.reply + 8 * head.ttls, head.tail)
        return 0


@cython.cclass
class Answers:
    """The ready answers of one view; or, by the keys of the cache, replies that were relayed."""

    if cython.compiled:
        half: cython.Py_ssize_t
        young_size: cython.Py_ssize_t
        old_size: cython.Py_ssize_t
        young: Table
        old: Table
        touched: cython.ulonglong

        def __init__(self, half: cython.Py_ssize_t) -> None:
            """Start empty.

            Args:
                half: The most that a half holds, of answers of ordinary size.
            """
            self.half = half
            self.young.most = self._most()

        @cython.cfunc
        @cython.exceptval(check=False)
        def _most(self) -> cython.ulonglong:
            return self.half if self.half < 131072 else 131072

        def __dealloc__(self) -> None:
            _let_go(cython.address(self.young))
            _let_go(cython.address(self.old))

        def learn(self, records: bytes, octets: cython.Py_ssize_t) -> None:
            """File answers; see `ViewMemo.learn`."""
            head: Head
            record: cython.p_uchar = cython.cast(cython.p_uchar, PyBytes_AS_STRING(records))
            left: cython.Py_ssize_t = octets
            whole: cython.Py_ssize_t
            size: cython.Py_ssize_t
            sizes: cython.ushort[4]
            place: cython.uint[2]
            k: cython.Py_ssize_t
            if octets > len(records):
                raise ValueError("the octets end within a record")
            while left > 0:
                if left < 32:
                    raise ValueError("the octets end within a record")
                memcpy(cython.address(head.until), record, 8)
                memcpy(cython.address(head.stored), record + 8, 8)
                memcpy(cython.address(head.cell), record + 16, 4)
                memcpy(sizes, record + 20, 8)
                memcpy(head.prefix, record + 28, 4)
                head.key, head.reply, head.ttls, head.tail = sizes[0], sizes[1], sizes[2], sizes[3]
                head.is_hit = (head.prefix[0] | head.prefix[1] | head.prefix[2] | head.prefix[3]) != 0
                whole = 32 + head.key + head.reply + 8 * head.ttls + head.tail
                if whole > left or not head.key:
                    raise ValueError("the octets end within a record")
                if not head.ttls and head.until != INFINITY:
                    raise ValueError("an answer that expires has a TTL that runs down")
                if head.tail > 4096 or head.reply + 2 > 4096:  # TAIL_OCTETS, SLOT_OCTETS
                    raise ValueError("too long for a slot, or no hit record's parts")
                size = 32 + head.key + head.reply
                for k in range(head.ttls):
                    memcpy(place, record + size + 8 * k, 8)
                    if cython.cast(cython.Py_ssize_t, place[0]) + 4 > head.reply or place[1] > 0x7FFFFFFF:
                        raise ValueError("a TTL that is not in the reply, or is none")
                self._file(cython.address(head), record + 32)
                whole = (whole + 7) & ~7
                record += whole
                left -= whole

        @cython.cfunc
        def _file(self, head: p_Head, parts: cython.p_uchar) -> cython.int:
            mark: cython.ulonglong = _hash(parts, head.key)
            place: cython.p_ulonglong = _find(cython.address(self.young), mark, parts, head.key)
            if place == cython.NULL:
                if self.young_size >= self.half:
                    self.halve()
                self.young_size += 1 + head.reply // 512  # ORDINARY_OCTETS
            try:
                return _store(cython.address(self.young), place, mark, head, parts)
            except MemoryError:
                self.halve()  # this one is not learned; who asked for it is answered all the same
                return 0

        @cython.ccall
        def halve(self) -> cython.void:
            """Let the old half go and start a new young one."""
            _let_go(cython.address(self.old))
            self.old = self.young
            memset(cython.address(self.young), 0, cython.sizeof(Table))
            self.young.most = self._most()
            self.old_size = self.young_size
            self.young_size = 0

        def find(self, key: bytes) -> tuple[float, float, int, bytes] | None:
            """What is filed under a key: until when, since when, the counter, and the reply as it was filed."""
            octets: cython.p_uchar = cython.cast(cython.p_uchar, PyBytes_AS_STRING(key))
            size: cython.Py_ssize_t = len(key)
            mark: cython.ulonglong = _hash(octets, size)
            table: p_Table = cython.address(self.young)
            place: cython.p_ulonglong = _find(table, mark, octets, size)
            record: p_Head
            line: cython.p_uchar
            reply: bytes
            if place == cython.NULL:
                table = cython.address(self.old)
                place = _find(table, mark, octets, size)
                if place == cython.NULL:
                    return None
            record = _at(table, place[0])
            if record.until == -INFINITY:
                return None
            line = cython.cast(cython.p_uchar, record) + cython.sizeof(Head) + size + 8 * record.ttls
            if record.echoed:
                reply = line[:10] + octets[10 : 10 + record.echoed] + line[10 : record.reply - record.echoed]
            else:
                reply = line[: record.reply]
            return record.until, record.stored, record.cell, reply

        def forget(self, key: bytes) -> None:
            """Have what is filed under a key be known no more."""
            octets: cython.p_uchar = cython.cast(cython.p_uchar, PyBytes_AS_STRING(key))
            mark: cython.ulonglong = _hash(octets, len(key))
            place: cython.p_ulonglong = _find(cython.address(self.young), mark, octets, len(key))
            if place != cython.NULL:
                _at(cython.address(self.young), place[0]).until = -INFINITY
            place = _find(cython.address(self.old), mark, octets, len(key))
            if place != cython.NULL:
                _at(cython.address(self.old), place[0]).until = -INFINITY

        @cython.boundscheck(False)
        @cython.wraparound(False)
        def screen(self, keys: bytes, words: bytes, count: cython.Py_ssize_t, now: cython.double) -> None:
            """Look many keys up at one time, so that what has to be fetched for them is fetched for all at once.

            Args:
                keys: Room written elsewhere: key k from `SCREENED_KEY_OCTETS` * k (264 * k) on.
                words: Of key k its octets (i64) at 8 * k; in its place is written 0 where nothing is filed, 1 where it
                    is known no more, 2 where it is known.
                count: How many keys, at most 64.
                now: Monotonic seconds.
            """
            room: cython.p_uchar = cython.cast(cython.p_uchar, PyBytes_AS_STRING(keys))
            told: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(words))
            marks: cython.ulonglong[64]
            touched: cython.ulonglong = 0
            table: p_Table
            place: cython.p_ulonglong
            size: cython.Py_ssize_t
            k: cython.int
            for k in range(count):
                marks[k] = _hash(room + 264 * k, told[k])
            for k in range(count):
                if self.young.index:
                    touched += self.young.index[marks[k] & self.young.mask]
                if self.old.index:
                    touched += self.old.index[marks[k] & self.old.mask]
            self.touched = touched  # so that no compiler leaves the loads out
            for k in range(count):
                size = told[k]
                told[k] = 0
                table = cython.address(self.young)
                place = _find(table, marks[k], room + 264 * k, size)
                if place == cython.NULL:
                    table = cython.address(self.old)
                    place = _find(table, marks[k], room + 264 * k, size)
                if place != cython.NULL:
                    told[k] = 2 if _at(table, place[0]).until > now else 1

        def octets(self) -> int:
            """How much memory it holds; what of a log was never written to takes none."""
            return self.young_octets() + self.old.used + (8 * (self.old.mask + 1) if self.old.index else 0)

        def young_octets(self) -> int:
            """How much of it the next `halve` keeps."""
            return self.young.used + (8 * (self.young.mask + 1) if self.young.index else 0)

        def count(self) -> int:
            """How many answers are held."""
            return self.young.count + self.old.count

        def mark_of(self, key: bytes) -> int:
            """The hash that a key is filed under."""
            return _hash(cython.cast(cython.p_uchar, PyBytes_AS_STRING(key)), len(key))

        def sizes(self) -> tuple[int, int]:
            """How many answers the young half and the old one hold; one of more than 512 octets counts as several."""
            return self.young_size, self.old_size


@cython.cclass
class Reciter:
    """Answers a batch from what is known by heart, in the buffers of a window; for the compiled loop alone."""

    if cython.compiled:
        arena: cython.p_uchar
        names: cython.p_uchar
        headers: cython.p_uint
        counts: cython.p_ulonglong
        hits: cython.p_uchar
        memo_of: cython.p_longlong
        told: cython.p_longlong
        marks: cython.p_ulonglong
        touched: cython.ulonglong

        def __init__(
            self, arena: int, names: int, headers: int, counts: int, hits: int, memo_of: int, told: int, marks: int
        ) -> None:
            """Take hold of buffers that somebody else keeps, by where they begin in memory.

            Args:
                arena: `SLOT_OCTETS` a slot.
                names: `SOCKADDR_OCTETS` a slot.
                headers: The receive headers.
                counts: The shared counters.
                hits: Room for a batch's hit records.
                memo_of: Of each slot, written elsewhere: the number of its memo in the list, or -1 (i64).
                told: Of each slot, written here: octets of the reply; 0 where none is known, -1 where it is known no
                    more (i64). Behind the last: how many hits there were.
                marks: Of each slot that has a memo, written here: the hash of its query (u64).
            """
            self.arena = cython.cast(cython.p_uchar, cython.cast(cython.size_t, arena))
            self.names = cython.cast(cython.p_uchar, cython.cast(cython.size_t, names))
            self.headers = cython.cast(cython.p_uint, cython.cast(cython.size_t, headers))
            self.counts = cython.cast(cython.p_ulonglong, cython.cast(cython.size_t, counts))
            self.hits = cython.cast(cython.p_uchar, cython.cast(cython.size_t, hits))
            self.memo_of = cython.cast(cython.p_longlong, cython.cast(cython.size_t, memo_of))
            self.told = cython.cast(cython.p_longlong, cython.cast(cython.size_t, told))
            self.marks = cython.cast(cython.p_ulonglong, cython.cast(cython.size_t, marks))

        @cython.boundscheck(False)
        @cython.wraparound(False)
        def recite(self, memos: list, n: cython.Py_ssize_t, now: cython.double, stamp: bytes) -> cython.Py_ssize_t:
            """Answer what is known of the first `n` slots, where they stand.

            Args:
                memos: The `Answers` that slots speak of.
                n: How many slots.
                now: Monotonic seconds.
                stamp: The eight octets of time that go into hit records.

            Returns:
                How many octets the hit records take.
            """
            time: cython.p_uchar = cython.cast(cython.p_uchar, PyBytes_AS_STRING(stamp))
            out: cython.p_uchar = self.hits
            first: cython.Py_ssize_t
            self.told[n] = 0
            for first in range(0, n, 64):
                out = self._recite(memos, first, 64 if n - first > 64 else n - first, now, time, out, n)
            return out - self.hits

        @cython.boundscheck(False)
        @cython.wraparound(False)
        @cython.cfunc
        @cython.exceptval(check=False)
        def _recite(
            self,
            memos: list,
            first: cython.Py_ssize_t,
            count: cython.Py_ssize_t,
            now: cython.double,
            time: cython.p_uchar,
            out: cython.p_uchar,
            n: cython.Py_ssize_t,
        ) -> cython.p_uchar:
            """Answer up to 64 slots.

            In steps, each for all of them before the next one begins: so what has to be fetched from memory is fetched
            for many at a time, and nothing waits for it but once.
            """
            marks: cython.ulonglong[64]
            youngs: p_Table[64]
            olds: p_Table[64]
            records: p_Head[64]
            slots: cython.int[64]
            table: p_Table
            record: p_Head
            known: cython.p_ulonglong
            key: cython.p_uchar
            line: cython.p_uchar
            memo: Answers
            last: cython.longlong = -1
            young: p_Table = cython.NULL
            old: p_Table = cython.NULL
            asked: cython.int = 0
            touched: cython.ulonglong = 0
            entry: cython.ulonglong
            place: cython.ulonglong
            lines: cython.ulonglong
            size: cython.Py_ssize_t
            octets: cython.Py_ssize_t
            elapsed: cython.longlong
            left: cython.longlong
            ttl: cython.uint[2]
            field: cython.p_uchar
            i: cython.Py_ssize_t
            j: cython.int
            k: cython.int
            for i in range(first, first + count):
                self.told[i] = 0
                if self.memo_of[i] < 0:
                    continue
                if self.memo_of[i] != last:
                    last = self.memo_of[i]
                    memo = cython.cast(Answers, memos[last])
                    young, old = cython.address(memo.young), cython.address(memo.old)
                youngs[asked], olds[asked], slots[asked] = young, old, i
                marks[asked] = self.marks[i] = _hash(self.arena + 4096 * i + 2, self.headers[16 * i + 14] - 2)
                asked += 1
            for j in range(asked):
                if youngs[j].index:
                    touched += youngs[j].index[marks[j] & youngs[j].mask]
                if olds[j].index:
                    touched += olds[j].index[marks[j] & olds[j].mask]
            for j in range(asked):
                records[j] = cython.NULL
                for k in range(2):
                    table = olds[j] if k else youngs[j]
                    if table.index == cython.NULL:
                        continue
                    place = marks[j] & table.mask
                    entry = table.index[place]
                    while entry and (entry ^ marks[j]) >> 48:
                        place = (place + 1) & table.mask
                        entry = table.index[place]
                    if entry:
                        records[j] = _at(table, entry)
                        line = table.log + (((entry << 24 >> 24) - 1 << 3) & ~63)
                        for lines in range(entry >> 40 & 0xFF):
                            touched += line[lines << 6]
                        break
            self.touched = touched  # so that no compiler leaves the loads out
            for j in range(asked):
                record = records[j]
                if record == cython.NULL:
                    continue
                i = slots[j]
                key = self.arena + 4096 * i + 2
                size = self.headers[16 * i + 14] - 2
                if not _is_of(record, key, size):
                    # Other keys may have the same 16 bits.
                    table = youngs[j]
                    known = _find(table, marks[j], key, size)
                    if known == cython.NULL:
                        table = olds[j]
                        known = _find(table, marks[j], key, size)
                        if known == cython.NULL:
                            continue
                    record = _at(table, known[0])
                if record.until <= now:
                    self.told[i] = -1
                    continue
                octets = record.reply
                field = cython.cast(cython.p_uchar, record) + cython.sizeof(Head) + size
                line = field + 8 * record.ttls
                if record.echoed:
                    memcpy(key, line, 10)
                    memcpy(key + 10 + record.echoed, line + 10, octets - 10 - record.echoed)
                else:
                    memcpy(key, line, octets)
                if record.ttls and now - record.stored >= 1:
                    # As `age` does it. Each field lies within the reply: this was looked at when it was filed.
                    elapsed = cython.cast(cython.longlong, now - record.stored)
                    for k in range(record.ttls):
                        memcpy(ttl, field + 8 * k, 8)
                        left = ttl[1] - elapsed
                        if left < 0:
                            left = 0
                        key[ttl[0]] = left >> 24
                        key[ttl[0] + 1] = left >> 16 & 0xFF
                        key[ttl[0] + 2] = left >> 8 & 0xFF
                        key[ttl[0] + 3] = left & 0xFF
                self.told[i] = octets + 2
                self.counts[record.cell] += 1
                if record.is_hit:
                    self.told[n] += 1
                    memcpy(out, record.prefix, 4)
                    memcpy(out + 4, time, 8)
                    memcpy(out + 12, self.names + 28 * i, 28)
                    memcpy(out + 40, line + octets - record.echoed, record.tail)
                    out += 40 + record.tail
            return out
