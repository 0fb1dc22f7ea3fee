"""Questions forwarded from the batch: asked of an upstream, and answered with what it says, many at a time.

Most questions that neither memo nor cache knows are plain: no rule has a say in their names, one datagram asks them,
and one datagram answers. Here they need no task, no future and no walk through the pipeline. The contract is the
memo's (`resolver/DESIGN.md`): what is done here is, octet for octet and counter for counter, what the pipeline would
have done. So whatever is not plain goes to it: a question before it is asked (`offer` passes it on), and one that is
under way when it turns out not to be (`Pending.hand_over`: another RCODE, no reply in time, a target that a rule has a
say in, another policy by now). Then the pipeline sees the client's datagram as if it had just come, and finds the
question under way.

```
offer    datagrams that the memo passed on -> questions that may be asked, those under way already joined
write    questions -> queries in the buffers of a socket (transport/forward.py sends them)
take     replies -> answers in the outlets they leave by, learned by cache and memo
```

Plain Python has a `Relay` of its own (`relay_plain.py`). All of this one is in one file, whatever its lines, since
compiled classes see each other's fields in one file alone.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resolver.hot import cython_shim as cython
    from resolver.hot._batch_cy import ViewMemo
    from resolver.hot._names_cy import NameTable
else:
    try:
        import cython
    except ModuleNotFoundError:
        from resolver.hot import cython_shim as cython

    if cython.compiled:
        from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
        from cython.cimports.libc.string import memcmp, memcpy, memset

from resolver.hot._memo_cy import SCREENED_KEY_OCTETS
from resolver.hot._names_cy import SCREENED, SCREENED_OCTETS, SCREENED_WORDS
from resolver.hot._scan_cy import OUTLINE_TTLS, OUTLINE_WORDS, outline, read_plain

SLOTS = 64  # datagrams that go in and out at one time
MOST_OCTETS = 1232  # of a reply: what `wire/compose.py` sends and asks for at most
_TAUGHT_OCTETS = 1 << 16  # room for what a memo learns at one time
_MOST_TAUGHT = 32 + 512 + MOST_OCTETS + 16 + 8 * OUTLINE_TTLS + 8  # of it, the most that one answer takes
_MAX_CELLS = 4096  # counters known by heart, of a lane; with more, since anybody may ask for any type, they are sought

Rooms = tuple[int, int, int, int, int]
"""Where in memory lie: the octets of all slots, the addresses, the control messages (0 for none), headers, vectors."""


def relays() -> bool:
    """Whether this build can forward from the batch."""
    return bool(cython.compiled)


@cython.cclass
class Outlet:
    """Replies of one window that leave together, later than the batch their queries came in."""

    asked: Any
    arena: cython.ulonglong
    names: cython.ulonglong
    controls: cython.ulonglong
    headers: cython.ulonglong
    vectors: cython.ulonglong
    slot_octets: cython.Py_ssize_t
    name_octets: cython.Py_ssize_t
    control_octets: cython.Py_ssize_t
    key_start: cython.Py_ssize_t
    key_octets: cython.Py_ssize_t
    ready: cython.Py_ssize_t
    send: Any
    again: Any

    def __init__(
        self,
        asked: Rooms,
        replies: Rooms,
        octets: tuple[int, int, int],
        family_is_6: bool,
        send: Callable[[int], None],
        again: Callable[[bytes, bytes, bytes, float], None],
    ) -> None:
        """Take hold of a window's buffers, of `SLOTS` slots each.

        Args:
            asked: Those that datagrams are received in.
            replies: Those that late replies are sent from.
            octets: Of a slot of each: octets, addresses, control messages.
            family_is_6: Whether the socket speaks IPv6.
            send: Sends so many replies.
            again: Has a datagram answered as if it had just come: (octets, struct sockaddr, control message, and when
                it came, in monotonic seconds).
        """
        self.asked = asked
        self.arena, self.names, self.controls, self.headers, self.vectors = replies
        self.slot_octets, self.name_octets, self.control_octets = octets
        # Where the address stands in a struct sockaddr_in or sockaddr_in6.
        self.key_start, self.key_octets = (8, 16) if family_is_6 else (4, 4)
        self.send = send
        self.again = again
        self.ready = 0

    def claim(self) -> int:
        """A slot for one more reply; the others are sent if there is none."""
        if self.ready == SLOTS:
            self.flush()
        self.ready += 1
        return self.ready - 1

    def is_empty(self) -> bool:
        """Whether no reply stands ready."""
        return self.ready == 0

    def flush(self) -> None:
        """Send what stands ready."""
        ready = self.ready
        self.ready = 0
        if ready:
            self.send(ready)


@cython.cclass
class Lane:
    """What questions of a view's clients need to go this way.

    Only of views in which nothing but listed names has a say: no pattern, no rule on clients, addresses or name
    servers. A lane is closed when its view is out of force; it never opens again.
    """

    table: Any
    memo: Any
    find_cells: Any
    cells: dict[Any, Any]
    strips_ech: cython.bint
    is_open: cython.bint

    def __init__(
        self,
        table: "NameTable",
        memo: "ViewMemo",
        strips_ech: bool,
        find_cells: Callable[[int, int], tuple[int, int]],
    ) -> None:
        """Open.

        Args:
            table: The listed names.
            memo: What learns the answers.
            strips_ech: Whether ECH parameters are taken out of answers.
            find_cells: Of a QTYPE and an RCODE, the counters of answers: by an upstream, and from the memo.
        """
        self.table = table
        self.memo = memo
        self.strips_ech = strips_ech
        self.find_cells = find_cells
        self.cells = {}
        self.is_open = True

    def close(self) -> None:
        """Send nobody this way any more; whoever is on it is handed over."""
        self.is_open = False

    def cells_of(self, qtype: int, rcode: int) -> tuple[int, int]:
        """The counters of answers to a type that say an RCODE: by an upstream, and from the memo."""
        if len(self.cells) >= _MAX_CELLS:
            self.cells.clear()
        found: tuple[int, int] = self.find_cells(qtype, rcode)
        self.cells[qtype << 4 | rcode] = found
        return found


@cython.cclass
class Pending:
    """One question under way, and the first client who waits for it; further ones follow in `more`."""

    key: bytes
    packet: bytes
    lane: Lane
    outlet: Outlet
    relay: Any
    upstream: Any
    question: Any
    more: "Pending | None"
    last: "Pending | None"
    started: cython.double
    name_octets: cython.Py_ssize_t
    qtype: cython.int
    opt: cython.int
    is_stale: cython.bint
    limit: cython.Py_ssize_t
    control_length: cython.Py_ssize_t
    if cython.compiled:
        sockaddr: cython.uchar[28]
        control: cython.uchar[64]

    def take(self, reply: bytes, sent: bytes) -> bool:
        """Whether a reply that is not plain is taken."""
        return bool(self.hand_over().take(reply, sent))

    def fail(self, error: OSError) -> None:
        """Learn that none came, or that the upstream can not be reached."""
        self.hand_over().fail(error)

    def hand_over(self) -> Any:
        """Leave the question to the forwarder, and those who wait for it to the pipeline; the forwarder's question.

        It stays the waiter of what was sent: replies are passed on.
        """
        if self.question is None:
            self.question = self.relay.leave(self.key, self.upstream, self.started)
            waiting: Pending | None = self
            while waiting is not None:
                waiting.begin_again()
                waiting = waiting.more
        return self.question

    def begin_again(self) -> None:
        """Have the client's datagram answered as if it had just come."""
        self.relay.let_go()
        if cython.compiled:
            self.outlet.again(
                self.packet,
                PyBytes_FromStringAndSize(cython.cast(cython.p_char, self.sockaddr), 28),
                PyBytes_FromStringAndSize(cython.cast(cython.p_char, self.control), self.control_length),
                self.started,
            )


@cython.cclass
class Relay:
    """The questions of one worker that go this way."""

    entries: Any
    shelf: Any
    forget: Any
    failures: Any
    under_way: dict[Any, Any]
    most: cython.Py_ssize_t
    most_waiting: cython.Py_ssize_t
    waiting: cython.Py_ssize_t
    tops: frozenset[bytes]
    special: dict[Any, Any]
    counts: memoryview
    if cython.compiled:
        count_words: cython.p_ulonglong
    miss_cell: cython.Py_ssize_t
    min_ttl: cython.longlong
    max_ttl: cython.longlong
    max_negative_ttl: cython.longlong
    find_lane: Any
    adopt: Any
    settle: Any
    lanes: dict[Any, Any]
    staged: list[Any]
    written: cython.Py_ssize_t
    touched: list[Any]
    taught: "Lane | None"
    records: bytes
    last_room: cython.Py_ssize_t
    recorded: cython.Py_ssize_t
    learned: cython.Py_ssize_t
    given: list[Any]
    given_at: cython.double
    given_count: cython.Py_ssize_t
    shelved: bytes
    shelved_octets: cython.Py_ssize_t
    keys: bytes
    found: bytes
    places: bytes
    lengths: bytes
    shapes: bytes
    names: bytes
    words: bytes
    told: bytes
    query_counts: bytes
    query_end: bytes

    def __init__(
        self,
        entries: "Mapping[bytes, Any]",
        shelf: Any,
        forget: Callable[[bytes], None],
        failures: "Mapping[bytes, Any]",
        under_way: dict[bytes, Any],
        most: tuple[int, int],
        special: dict[bytes, Any],
        tops: frozenset[bytes],
        counts: memoryview,
        miss_cell: int,
        ttls: tuple[int, int, int],
        find_lane: "Callable[[ViewMemo], Lane | None]",
        adopt: Callable[[bytes, Any, float], Any],
        settle: Callable[[list[tuple[Any, float, int]], list[tuple[float, int]], int], None],
    ) -> None:
        """Wire up.

        Args:
            entries: The cache's entries, by key.
            shelf: Its `Answers`, by key, that replies are put in as they came; the counter says whether AD is believed.
            forget: Has the cache let go what it has under a key.
            failures: Its failures, by key.
            under_way: The forwarder's questions, by key.
            most: How many of these there may be at one time, and how many clients may wait for them.
            special: Names that are not forwarded, with all below them.
            tops: Their last labels, in wire form with the root's.
            counts: The shared counters.
            miss_cell: That of questions that the cache could not answer.
            ttls: The cache's least and longest TTL, and the longest of negative answers, in seconds.
            find_lane: The lane of a memo's view; None where it has none.
            adopt: Makes a question of the forwarder's of (key, upstream, since when), in place of ours.
            settle: Is told, once a turn, what was answered: (upstream, started, replies) of each run; how many clients
                who asked when: (started, clients); and how many answers the memos learned.
        """
        self.entries, self.shelf, self.forget = entries, shelf, forget
        self.failures, self.under_way = failures, under_way
        self.most, self.most_waiting = most
        self.special, self.tops = special, tops
        self.counts, self.miss_cell = counts, miss_cell
        if cython.compiled:
            # They stay where they are for as long as the memoryview is held.
            words: cython.ulonglong[::1] = counts
            self.count_words = cython.address(words[0])
        self.min_ttl, self.max_ttl, self.max_negative_ttl = ttls
        self.find_lane, self.adopt, self.settle = find_lane, adopt, settle
        self.waiting = 0
        self.lanes = {}
        self.staged, self.written = [], 0
        self.touched = []
        self.taught = None
        self.recorded = self.learned = 0
        self.given, self.given_at, self.given_count = [], 0.0, 0
        # Room that only this class and those it hands it to write to, and nobody else sees.
        self.names = bytes(SCREENED * SCREENED_OCTETS)
        self.words = bytes(SCREENED * SCREENED_WORDS * 8)
        self.told = bytes(OUTLINE_WORDS * 8)
        self.query_counts = b"\0\1\0\0\0\0\0\1"  # one question, one additional record
        self.query_end = b"\0\1" + b"\0\0\x29\x04\xd0\0\0\0\0\0\0"  # class IN; OPT that takes MOST_OCTETS
        self.records = bytes(_TAUGHT_OCTETS)
        self.last_room = _TAUGHT_OCTETS - _MOST_TAUGHT
        self.shelved, self.shelved_octets = bytes(_TAUGHT_OCTETS), 0
        self.keys = bytes(SCREENED * SCREENED_KEY_OCTETS)
        self.found = bytes(SCREENED * 8)
        self.places, self.lengths, self.shapes = bytes(SLOTS * 16), bytes(SLOTS * 8), bytes(SLOTS * 16)

    def __len__(self) -> int:
        """How many clients wait."""
        return self.waiting

    def leave(self, key: bytes, upstream: object, started: float) -> Any:
        """Leave a question to the forwarder."""
        return self.adopt(key, upstream, started)

    def let_go(self) -> None:
        """Learn that a client waits here no more."""
        self.waiting -= 1

    def close_lanes(self) -> None:
        """Learn that the policy changed: who is under way is handed over, and new lanes are found."""
        for lane in self.lanes.values():
            if lane is not None:
                lane.close()
        self.lanes.clear()

    def offer(
        self, outlet: Outlet, passed: list[int], sources: "dict[bytes, ViewMemo]", upstream: object, now: float
    ) -> list[int]:
        """Stage what can go this way of the datagrams that the memo passed on.

        Args:
            outlet: Of the window they came by.
            passed: Their slots, ascending.
            sources: The memo for each client address whose view is known.
            upstream: Who is asked.
            now: Monotonic seconds.

        Returns:
            The slots that are the pipeline's, ascending.
        """
        if cython.compiled:
            return self._offer_compiled(outlet, passed, sources, upstream, now)
        return passed

    def is_staged(self) -> bool:
        """Whether there are questions to `write`."""
        return self.written < len(self.staged)

    def give_up(self, error: OSError) -> None:
        """Learn that what is staged can not be sent."""
        staged, self.staged, self.written = self.staged[self.written :], [], 0
        for pending in staged:
            pending.fail(error)

    def write(
        self,
        rooms: tuple[int, int, int],
        ready: int,
        waiting: "dict[int, tuple[Any, bytes, float]]",
        random: bytes,
        due: float,
    ) -> int:
        """Write staged questions out as queries, each under an id drawn at random.

        Args:
            rooms: Where slots and vectors lie in memory, and the octets of a slot.
            ready: How many slots are in use, of `SLOTS`.
            waiting: Who waits on the socket, by id; those who asked are put in.
            random: Octets drawn at random, two a question and some to spare; where they do not suffice, the rest stays
                staged.
            due: When a reply is too late, as `waiting` has it.

        Returns:
            How many slots are in use now.
        """
        if cython.compiled:
            return self._write_compiled(rooms, ready, waiting, random, due)
        return ready

    def take(
        self,
        rooms: tuple[int, int],
        received: memoryview,
        count: int,
        waiting: "dict[int, tuple[Any, bytes, float]]",
        trusts: "Callable[[Any], bool]",
        now: float,
    ) -> list[int]:
        """Answer with replies that have come.

        Args:
            rooms: Where slots lie in memory, and the octets of a slot.
            received: Their headers (struct mmsghdr, 64 octets) as "I".
            count: How many replies there are.
            waiting: Who waits on the socket; those who were answered are taken out.
            trusts: Whether an upstream's AD bit is believed.
            now: Monotonic seconds; the policy of this moment is in force.

        Returns:
            The slots of replies that are others', or not plain, ascending.
        """
        if cython.compiled:
            return self._take_compiled(rooms, received, count, waiting, trusts, now)
        return list(range(count))

    if cython.compiled:

        @cython.boundscheck(False)
        @cython.wraparound(False)
        @cython.cfunc
        def _offer_compiled(
            self, outlet: Outlet, passed: list, sources: dict, upstream: object, now: cython.double
        ) -> list:
            arena: cython.ulonglong = outlet.asked[0]
            names: cython.ulonglong = outlet.asked[1]
            controls: cython.ulonglong = outlet.asked[2]
            headers: cython.ulonglong = outlet.asked[3]
            header: cython.p_uint
            datagram: cython.p_uchar
            name: cython.p_uchar
            last: cython.p_uchar = cython.NULL
            room: cython.p_uchar = cython.cast(cython.p_uchar, PyBytes_AS_STRING(self.names))
            words: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(self.words))
            places: cython.p_ulonglong = cython.cast(cython.p_ulonglong, PyBytes_AS_STRING(self.places))
            lengths: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(self.lengths))
            shapes: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(self.shapes))
            keys: cython.p_uchar = cython.cast(cython.p_uchar, PyBytes_AS_STRING(self.keys))
            known: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(self.found))
            slots: cython.int[64]
            is_alike: cython.bint
            is_taken: cython.bint[64]
            lanes: list = []
            lane: Lane = None
            table: object = None
            rest: list = []
            pending: Pending
            first: Pending
            offered: cython.int = 0
            asked: cython.int
            k: cython.int
            i: cython.Py_ssize_t
            octets: cython.Py_ssize_t
            size: cython.Py_ssize_t
            shape: cython.longlong
            qtype: cython.int
            opt: cython.int
            for slot in passed:
                i = slot
                octets = cython.cast(cython.p_uint, headers + 64 * i)[14]
                name = cython.cast(cython.p_uchar, names + outlet.name_octets * i)
                if last == cython.NULL or memcmp(name + outlet.key_start, last, outlet.key_octets):
                    last = name + outlet.key_start
                    memo = sources.get(PyBytes_FromStringAndSize(cython.cast(cython.p_char, last), outlet.key_octets))
                    lane = None
                    if memo is not None:
                        found = self.lanes.get(memo, self)
                        if found is self:
                            found = self.lanes[memo] = self.find_lane(memo)
                        if found is not None:
                            lane = cython.cast(Lane, found)
                is_alike = lane is not None and (not offered or lane.table is table)
                if not is_alike or offered == 64 or octets >= outlet.slot_octets:
                    rest.append(slot)
                    continue
                table = lane.table
                slots[offered] = i
                is_taken[offered] = False
                places[2 * offered] = arena + outlet.slot_octets * i
                lengths[offered] = octets
                lanes.append(lane)
                offered += 1
            if not offered:
                return rest
            asked = read_plain(self.places, self.lengths, offered, self.names, self.words, self.shapes)
            if asked:
                table.screen(self.names, self.words, asked)
            for k in range(asked):
                size = words[4 * k]
                # The cache's key: QNAME, QTYPE, whether DNSSEC records are wanted, whether unchecked data will do.
                shape = shapes[2 * k + 1]
                name = keys + 264 * k
                memcpy(name, room + 256 * k, size)
                name[size] = shape >> 10 & 0xFF
                name[size + 1] = shape >> 2 & 0xFF
                name[size + 2] = shape & 2 | shape >> 19 & 1
                known[k] = size + 3
            self.shelf.screen(self.keys, self.found, asked, now)
            for k in range(asked):
                i = shapes[2 * k]
                lane = cython.cast(Lane, lanes[i])
                i = slots[i]
                size = words[4 * k]
                shape = shapes[2 * k + 1]
                qtype = shape >> 2 & 0xFFFF
                opt = shape & 3
                # Neither a type that is never asked for, nor a meta-type, nor ANY: these are answered here, or not at
                # all. Of names with more labels nothing is found by `screen`.
                if not shape >> 18 & 1 or shape >> 20 > 16 or qtype == 0 or qtype == 41 or 249 <= qtype <= 255:
                    continue
                if words[4 * k + 3] or known[k] == 2 or self._is_special(room + 256 * k, size):
                    continue
                if lane.strips_ech and (qtype == 64 or qtype == 65):
                    continue
                key = PyBytes_FromStringAndSize(cython.cast(cython.p_char, keys + 264 * k), size + 3)
                kept = self.entries.get(key) if key in self.entries else None
                if kept is not None and (kept.expires > now or kept.retry_at > now):
                    continue
                if self.failures and key in self.failures:
                    continue
                datagram = cython.cast(cython.p_uchar, arena + outlet.slot_octets * i)
                header = cython.cast(cython.p_uint, headers + 64 * i)
                octets = header[14]
                found = self.under_way.get(key)
                first = None
                if found is None:
                    if len(self.under_way) >= self.most:
                        continue
                elif isinstance(found, Pending) and cython.cast(Pending, found).question is None:
                    first = cython.cast(Pending, found)
                else:
                    continue
                if self.waiting >= self.most_waiting:
                    continue
                is_taken[shapes[2 * k]] = True
                pending = Pending.__new__(Pending)
                pending.key = key
                pending.packet = PyBytes_FromStringAndSize(cython.cast(cython.p_char, datagram), octets)
                pending.lane = lane
                pending.outlet = outlet
                pending.relay = self
                pending.upstream = upstream
                pending.started = now
                pending.name_octets = size
                pending.qtype = qtype
                pending.opt = opt
                pending.is_stale = kept is not None or known[k] != 0
                pending.limit = 512
                if opt:
                    pending.limit = datagram[16 + size + 3] << 8 | datagram[16 + size + 4]
                    if pending.limit < 512:
                        pending.limit = 512
                    if pending.limit > 1232:
                        pending.limit = 1232
                memcpy(pending.sockaddr, cython.cast(cython.p_uchar, names + outlet.name_octets * i), 28)
                pending.control_length = 0
                if controls:
                    pending.control_length = cython.cast(cython.p_ulonglong, header)[5]
                    if pending.control_length > 64:
                        pending.control_length = 64
                    memcpy(
                        pending.control,
                        cython.cast(cython.p_uchar, controls + outlet.control_octets * i),
                        pending.control_length,
                    )
                self.waiting += 1
                if first is not None:
                    if first.last is None:
                        first.more = pending
                    else:
                        cython.cast(Pending, first.last).more = pending
                    first.last = pending
                    continue
                self.under_way[key] = pending
                self.staged.append(pending)
            for k in range(offered):
                if not is_taken[k]:
                    rest.append(slots[k])
            rest.sort()
            return rest

        @cython.boundscheck(False)
        @cython.wraparound(False)
        @cython.cfunc
        def _is_special(self, name: cython.p_uchar, size: cython.Py_ssize_t) -> cython.bint:
            """Whether a name stands at or below one that is not forwarded."""
            i: cython.Py_ssize_t = 0
            while i + name[i] + 2 < size:
                i += name[i] + 1
            if PyBytes_FromStringAndSize(cython.cast(cython.p_char, name + i), size - i) not in self.tops:
                return False
            i = 0
            while i < size:
                if PyBytes_FromStringAndSize(cython.cast(cython.p_char, name + i), size - i) in self.special:
                    return True
                i += name[i] + 1
            return False

        @cython.boundscheck(False)
        @cython.wraparound(False)
        @cython.cfunc
        def _write_compiled(
            self, rooms: tuple, ready: cython.Py_ssize_t, waiting: dict, random: bytes, due: object
        ) -> cython.Py_ssize_t:
            slots: cython.ulonglong = rooms[0]
            vectors: cython.p_ulonglong = cython.cast(cython.p_ulonglong, cython.cast(cython.ulonglong, rooms[1]))
            slot_octets: cython.Py_ssize_t = rooms[2]
            drawn: cython.p_const_uchar = cython.cast(cython.p_const_uchar, PyBytes_AS_STRING(random))
            used: cython.Py_ssize_t = 0
            size: cython.Py_ssize_t
            most: cython.Py_ssize_t = PyBytes_GET_SIZE(random)
            at: cython.Py_ssize_t = self.written
            end: cython.Py_ssize_t = len(self.staged)
            query: cython.p_uchar
            key: cython.p_uchar
            pending: Pending
            while at < end and ready < 64 and used + 2 <= most:
                message_id = drawn[used] << 8 | drawn[used + 1]
                used += 2
                if message_id in waiting:
                    continue
                pending = cython.cast(Pending, self.staged[at])
                at += 1
                key = cython.cast(cython.p_uchar, PyBytes_AS_STRING(pending.key))
                size = pending.name_octets
                query = cython.cast(cython.p_uchar, slots + slot_octets * ready)
                query[0] = drawn[used - 2]
                query[1] = drawn[used - 1]
                query[2] = 0x01  # RD
                query[3] = 0x20 | (key[size + 2] & 1) << 4  # AD, to say that we understand it (RFC 6840 §5.7); CD
                memcpy(query + 4, PyBytes_AS_STRING(self.query_counts), 8)
                memcpy(query + 12, key, size + 2)
                memcpy(query + 14 + size, PyBytes_AS_STRING(self.query_end), 13)
                query[23 + size] = (key[size + 2] & 2) << 6  # DO
                vectors[2 * ready + 1] = 27 + size
                waiting[message_id] = (
                    pending,
                    PyBytes_FromStringAndSize(cython.cast(cython.p_char, query), 27 + size),
                    due,
                )
                ready += 1
            if at == end:
                self.staged.clear()
                at = 0
            self.written = at
            return ready

        @cython.boundscheck(False)
        @cython.wraparound(False)
        @cython.cfunc
        def _take_compiled(
            self, rooms: tuple, received: memoryview, count: cython.Py_ssize_t, waiting: dict, trusts: object,
            now: cython.double,
        ) -> list:  # fmt: skip
            slots: cython.ulonglong = rooms[0]
            slot_octets: cython.Py_ssize_t = rooms[1]
            lengths: cython.uint[::1] = received
            reply: cython.p_uchar
            octets: cython.Py_ssize_t
            k: cython.Py_ssize_t
            run: cython.Py_ssize_t = 0
            started: cython.double = 0
            upstream: object = None
            is_trusted: cython.bint = False
            pending: Pending
            runs: list = []
            rest: list = []
            for k in range(count):
                octets = lengths[16 * k + 14]
                reply = cython.cast(cython.p_uchar, slots + slot_octets * k)
                if octets < 17:
                    rest.append(k)
                    continue
                message_id = reply[0] << 8 | reply[1]
                held = waiting.get(message_id)
                if held is None or not isinstance(cython.cast(tuple, held)[0], Pending):
                    rest.append(k)
                    continue
                pending = cython.cast(Pending, cython.cast(tuple, held)[0])
                if pending.question is not None:
                    rest.append(k)
                    continue
                if pending.upstream is not upstream or pending.started != started:
                    if run:
                        runs.append((upstream, started, run))
                        run = 0
                    if pending.upstream is not upstream:
                        upstream = pending.upstream
                        is_trusted = trusts(upstream)
                    started = pending.started
                if not self._answer(pending, reply, octets, cython.cast(tuple, held)[1], is_trusted, now):
                    rest.append(k)
                    continue
                run += 1
                del waiting[message_id]
            if run:
                runs.append((upstream, started, run))
            try:
                self._teach()
                self._shelve()
            finally:  # whatever can not be learned: the replies leave
                for outlet in self.touched:
                    outlet.flush()
                self.touched.clear()
            if runs:
                self._note_given()
                given, self.given = self.given, []
                self.settle(runs, given, self.learned)
                self.learned = 0
            return rest

        @cython.cfunc
        def _note_given(self) -> cython.void:
            """Write down how many clients were answered who asked at one time."""
            if self.given_count:
                self.given.append((self.given_at, self.given_count))
                self.given_count = 0

        @cython.cfunc
        def _teach(self) -> cython.void:
            """Have a memo learn what was laid out for it."""
            lane: Lane = self.taught
            octets: cython.Py_ssize_t = self.recorded
            self.taught = None
            self.recorded = 0
            if lane is not None:
                lane.memo.learn(self.records, octets)

        @cython.cfunc
        def _shelve(self) -> cython.void:
            """Have the cache keep what was laid out for it."""
            octets: cython.Py_ssize_t = self.shelved_octets
            self.shelved_octets = 0
            if octets:
                self.shelf.learn(self.shelved, octets)

        @cython.boundscheck(False)
        @cython.wraparound(False)
        @cython.cfunc
        def _answer(
            self,
            pending: Pending,
            reply: cython.p_uchar,
            octets: cython.Py_ssize_t,
            sent: bytes,
            is_trusted: cython.bint,
            now: cython.double,
        ) -> cython.bint:
            """Answer all who wait; False where the reply is not plain."""
            said: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(self.told))
            words: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(self.words))
            counts: cython.p_ulonglong = self.count_words
            start: cython.Py_ssize_t = 16 + pending.name_octets
            body: cython.Py_ssize_t
            names: cython.Py_ssize_t
            rcode: cython.int = reply[3] & 15
            life: cython.longlong
            cap: cython.longlong
            floor: cython.longlong
            ceiling: cython.longlong
            ttl: cython.longlong
            k: cython.Py_ssize_t
            ready: cython.Py_ssize_t
            size: cython.Py_ssize_t
            upstream_cell: cython.Py_ssize_t
            ready_cell: cython.Py_ssize_t
            is_authentic: cython.bint = is_trusted and reply[3] & 0x20
            is_negative: cython.bint
            out: cython.p_uchar
            field: cython.p_uchar
            asked: cython.p_uchar
            waiting: Pending
            following: Pending
            outlet: Outlet
            lane: Lane
            # The question as it was sent, and one question alone.
            # One that is longer can not be answered here: it would not fit (MOST_OCTETS, and an OPT).
            if octets < start or octets > 1232 + 11 or reply[4] or reply[5] != 1:
                return False
            if memcmp(reply + 12, PyBytes_AS_STRING(sent) + 12, start - 12):
                return False
            message = PyBytes_FromStringAndSize(cython.cast(cython.p_char, reply), octets)
            names = outline(message, start, pending.qtype, self.told, self.names, self.words)
            if names < 0:
                return False
            if names:
                for k in range(names):
                    if not _has_few_labels(
                        cython.cast(cython.p_uchar, PyBytes_AS_STRING(self.names)) + 256 * k, words[4 * k]
                    ):
                        return False
                pending.lane.table.screen(self.names, self.words, names)
                for k in range(names):
                    if words[4 * k + 3]:
                        return False
            body = said[0]
            waiting = pending
            while waiting is not None:
                if not waiting.lane.is_open or start + body + (11 if waiting.opt else 0) > waiting.limit:
                    return False
                waiting = waiting.more
            # How long it is kept, and its TTLs, are the cache's to say (`Cache.put`).
            is_negative = rcode != 0 or not said[5]
            if is_negative:
                cap = self.max_negative_ttl
                life = said[4] if said[4] > 0 else 0
                if said[8] and said[6] < life:
                    life = said[6]
            else:
                cap = self.max_ttl
                life = said[6]
            if life and life < self.min_ttl:
                life = self.min_ttl
            if life > cap:
                life = cap
            floor = self.min_ttl if life else 0
            ceiling = life if is_negative else cap
            if said[6] < floor or said[7] > ceiling:
                for k in range(said[8]):
                    field = reply + start + said[9 + k]
                    ttl = cython.cast(cython.longlong, field[0]) << 24 | field[1] << 16 | field[2] << 8 | field[3]
                    if ttl < floor:
                        ttl = floor
                    if ttl > ceiling:
                        ttl = ceiling
                    field[0] = ttl >> 24
                    field[1] = ttl >> 16 & 0xFF
                    field[2] = ttl >> 8 & 0xFF
                    field[3] = ttl & 0xFF
            waiting = pending
            while waiting is not None:
                outlet = waiting.outlet
                lane = waiting.lane
                if outlet.ready == 0:
                    self.touched.append(outlet)
                if outlet.ready == 64:
                    outlet.flush()
                ready = outlet.ready
                outlet.ready = ready + 1
                out = cython.cast(cython.p_uchar, outlet.arena + outlet.slot_octets * ready)
                asked = cython.cast(cython.p_uchar, PyBytes_AS_STRING(waiting.packet))
                memcpy(out, asked, start)
                out[2] = 0x80 | asked[2] & 1
                out[3] = 0x80 | asked[3] & 0x10 | rcode
                if is_authentic and (waiting.opt == 2 or asked[3] & 0x20):
                    out[3] |= 0x20
                out[4] = 0
                out[5] = 1
                out[6] = said[1] >> 8
                out[7] = said[1] & 0xFF
                out[8] = said[2] >> 8
                out[9] = said[2] & 0xFF
                size = said[3] + (1 if waiting.opt else 0)
                out[10] = size >> 8
                out[11] = size & 0xFF
                memcpy(out + start, reply + start, body)
                size = start + body
                if waiting.opt:
                    memcpy(out + size, PyBytes_AS_STRING(self.query_end) + 2, 11)
                    if waiting.opt == 2:
                        out[size + 7] = 0x80
                    size += 11
                cython.cast(cython.p_ulonglong, outlet.vectors)[2 * ready + 1] = size
                memcpy(cython.cast(cython.p_uchar, outlet.names + outlet.name_octets * ready), waiting.sockaddr, 28)
                if outlet.controls:
                    memcpy(
                        cython.cast(cython.p_uchar, outlet.controls + outlet.control_octets * ready),
                        waiting.control,
                        waiting.control_length,
                    )
                    cython.cast(cython.p_ulonglong, outlet.headers)[8 * ready + 5] = waiting.control_length
                cells = lane.cells.get(waiting.qtype << 4 | rcode)
                if cells is None:
                    cells = lane.cells_of(waiting.qtype, rcode)
                upstream_cell = cython.cast(tuple, cells)[0]
                ready_cell = cython.cast(tuple, cells)[1]
                counts[upstream_cell] += 1
                counts[self.miss_cell] += 1
                self.waiting -= 1
                if waiting.started != self.given_at:
                    self._note_given()
                    self.given_at = waiting.started
                self.given_count += 1
                if life and said[8]:
                    if self.taught is not lane or self.recorded > self.last_room:
                        self._teach()
                        self.taught = lane
                    self.recorded += self._lay_out(
                        cython.cast(cython.p_uchar, PyBytes_AS_STRING(self.records)) + self.recorded,
                        asked + 2, PyBytes_GET_SIZE(waiting.packet) - 2, out + 2, size - 2, start - 2,
                        now + life, now, ready_cell,
                    )  # fmt: skip
                    self.learned += 1
                waiting = waiting.more
            del self.under_way[pending.key]
            if pending.is_stale:
                self.forget(pending.key)
            if life:
                if self.shelved_octets > self.last_room:
                    self._shelve()
                self.shelved_octets += self._lay_out(
                    cython.cast(cython.p_uchar, PyBytes_AS_STRING(self.shelved)) + self.shelved_octets,
                    cython.cast(cython.p_uchar, PyBytes_AS_STRING(pending.key)), PyBytes_GET_SIZE(pending.key),
                    cython.cast(cython.p_uchar, PyBytes_AS_STRING(message)), octets, start,
                    now + life, now, is_trusted,
                )  # fmt: skip
            # One by one, since a chain that is let go as a whole is let go by recursion.
            following = pending.more
            pending.more = pending.last = None
            while following is not None:
                waiting = following
                following = waiting.more
                waiting.more = None
            return True

        @cython.boundscheck(False)
        @cython.wraparound(False)
        @cython.cfunc
        @cython.exceptval(check=False)
        def _lay_out(
            self,
            record: cython.p_uchar,
            key: cython.p_uchar,
            key_octets: cython.Py_ssize_t,
            reply: cython.p_uchar,
            octets: cython.Py_ssize_t,
            shift: cython.Py_ssize_t,
            until: cython.double,
            stored: cython.double,
            cell: cython.uint,
        ) -> cython.Py_ssize_t:
            """Write an answer down as `ViewMemo.learn` reads it; the octets it takes.

            Args:
                record: Room for it.
                key: What it is filed under.
                key_octets: Of the key.
                reply: What is said.
                octets: Of the reply.
                shift: Where in it the records begin that were outlined.
                until: Monotonic seconds at which it stops being true.
                stored: Monotonic seconds of now.
                cell: Which counter an answer from it adds to.
            """
            said: cython.p_longlong = cython.cast(cython.p_longlong, PyBytes_AS_STRING(self.told))
            sizes: cython.ushort[4]
            pair: cython.uint[2]
            k: cython.Py_ssize_t
            field: cython.p_uchar
            memcpy(record, cython.address(until), 8)
            memcpy(record + 8, cython.address(stored), 8)
            memcpy(record + 16, cython.address(cell), 4)
            sizes[0], sizes[1], sizes[2], sizes[3] = key_octets, octets, said[8], 0
            memcpy(record + 20, sizes, 8)
            memset(record + 28, 0, 4)
            record += 32
            memcpy(record, key, key_octets)
            record += key_octets
            memcpy(record, reply, octets)
            record += octets
            for k in range(said[8]):
                field = reply + shift + said[9 + k]
                pair[0] = shift + said[9 + k]
                pair[1] = cython.cast(cython.uint, field[0]) << 24 | field[1] << 16 | field[2] << 8 | field[3]
                memcpy(record, pair, 8)
                record += 8
            octets += 32 + key_octets + 8 * said[8]
            memset(record, 0, -octets & 7)
            return octets + (-octets & 7)


if cython.compiled:

    @cython.cfunc
    @cython.exceptval(check=False)
    def _has_few_labels(name: cython.p_uchar, size: cython.Py_ssize_t) -> cython.bint:
        """Whether `NameTable.screen` finds what there is of a name."""
        i: cython.Py_ssize_t = 0
        labels: cython.int = 0
        while i < size - 1:
            labels += 1
            i += name[i] + 1
        return labels <= 16
