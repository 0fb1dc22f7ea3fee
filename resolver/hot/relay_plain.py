"""What `_relay_cy.Relay` does, in plain Python: questions forwarded from the batch, and answered from it.

The contract is the same, and so are the methods. What is quick differs: here, what many datagrams have in common is
found out once and known by heart afterwards. That is how questions and replies look (`relay_shapes.py`), and at or
above which names nothing is listed and nothing stays here (`Relay.parents`), so that below them the first label is all
there is to look at.

A reply that is kept and fresh is answered with here too, where the memo has let it go, or knows it as the answer to
another datagram only. The memo learns it again, and it counts as an answer of the memo's.
"""

import ctypes
from array import array
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from resolver.hot._batch_cy import Ready
from resolver.hot._relay_cy import SLOTS
from resolver.hot._scan_cy import PLAIN
from resolver.hot.relay_shapes import (
    SEAL_OCTETS,
    Head,
    Places,
    Shape,
    Shelf,
    clamped,
    read_body,
    read_shape,
    unseal,
)

if TYPE_CHECKING:
    from resolver.hot._batch_cy import ViewMemo
    from resolver.hot._names_cy import NameTable
    from resolver.hot._relay_cy import Lane, Outlet

_MOST_LABELS = 16
_MOST_END = 12 + 255  # of QNAME in a message (RFC 1035 §2.3.4)
_SHAPES = 1024  # known by heart; with more, since anybody may write any, they are read anew
_PARENTS = 1 << 16

_Weighed = tuple[Head, bool, bytes, Places, int]


class _Memory(Protocol):
    """Memory that somebody else owns."""

    def __getitem__(self, part: slice) -> bytes: ...


class _Window:
    """An outlet's buffers, as Python sees them."""

    __slots__ = (
        "arena", "controls", "name_octets", "names", "needs_control", "outlet", "places", "received", "received_words",
        "reply_arena", "reply_controls", "reply_names", "reply_vectors", "reply_words", "said",
    )  # fmt: skip

    def __init__(self, outlet: "Outlet") -> None:
        self.outlet = outlet
        arena, names, controls, headers, _ = outlet.asked
        octets, name_octets, control_octets = outlet.slot_octets, outlet.name_octets, outlet.control_octets
        self.arena = _readable(arena, SLOTS * octets)
        self.names = _readable(names, SLOTS * name_octets)
        self.received = _writable(headers, SLOTS * 64).cast("I")
        self.received_words = self.received.cast("B").cast("Q")
        self.name_octets = name_octets
        self.reply_arena = _writable(outlet.arena, SLOTS * octets)
        self.reply_names = _writable(outlet.names, SLOTS * name_octets)
        self.reply_vectors = _writable(outlet.vectors, SLOTS * 16).cast("Q")
        self.needs_control = bool(controls)
        if controls:
            self.controls = _readable(controls, SLOTS * control_octets)
            self.reply_controls = _writable(outlet.controls, SLOTS * control_octets)
            self.reply_words = _writable(outlet.headers, SLOTS * 64).cast("Q")
        key_start, key_octets = outlet.key_start, outlet.key_octets
        # Of each slot: where its octets begin; the address in `names`, the whole sockaddr.
        self.places = [
            (
                octets * i,
                slice(name_octets * i + key_start, name_octets * i + key_start + key_octets),
                slice(name_octets * i, name_octets * (i + 1)),
            )
            for i in range(SLOTS)
        ]
        self.said: list[tuple[bytes, _Asked]] = []  # replies that are to leave, and who gets them

    def flush(self) -> None:
        """Send what is to leave."""
        outlet = self.outlet
        octets, control_octets = outlet.slot_octets, outlet.control_octets
        said, self.said = self.said, []
        done = 0
        while done < len(said):
            if outlet.ready == SLOTS:
                outlet.flush()
            first = outlet.ready
            some = said[done : done + SLOTS - first]
            done += len(some)
            end = outlet.ready = first + len(some)
            arena = self.reply_arena
            start = octets * first
            for reply, _ in some:
                arena[start : start + len(reply)] = reply
                start += octets
            sockaddrs = b"".join([asked.sockaddr for _, asked in some])
            self.reply_names[self.name_octets * first : self.name_octets * end] = sockaddrs
            lengths = array("Q", [len(reply) for reply, _ in some])
            self.reply_vectors[2 * first + 1 : 2 * end : 2] = memoryview(lengths)
            if self.needs_control:
                for k, (_, asked) in enumerate(some, first):
                    control = asked.control
                    self.reply_controls[control_octets * k : control_octets * k + len(control)] = control
                    self.reply_words[8 * k + 5] = len(control)
        outlet.flush()

    def control(self, slot: int) -> bytes:
        """The control message that came with a datagram."""
        start = self.outlet.control_octets * slot
        length = min(self.received_words[8 * slot + 5], self.outlet.control_octets)
        return self.controls[start : start + length]


class _Turn:
    """What questions of one batch and one lane have in common."""

    __slots__ = ("lane", "relay", "started", "upstream", "window")

    def __init__(self, relay: "Relay", lane: "Lane", window: _Window, upstream: object, started: float) -> None:
        self.relay = relay
        self.lane = lane
        self.window = window
        self.upstream = upstream
        self.started = started


class _Asked:
    """One question under way, and the first client who waits for it; further ones follow in `more`."""

    __slots__ = ("control", "key", "more", "packet", "question", "shape", "sockaddr", "turn")

    def __init__(self, turn: _Turn, key: bytes, packet: bytes, shape: Shape, sockaddr: bytes, control: bytes) -> None:
        self.turn = turn
        self.key = key
        self.packet = packet
        self.shape = shape
        self.sockaddr = sockaddr
        self.control = control
        self.question: Any = None
        self.more: list[_Asked] | None = None

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
            turn = self.turn
            self.question = turn.relay.adopt(self.key, turn.upstream, turn.started)
            for asked in (self, *(self.more or ())):
                asked.turn.relay.waiting -= 1
                asked.turn.window.outlet.again(asked.packet, asked.sockaddr, asked.control, asked.turn.started)
        return self.question


class Relay:
    """The questions of one worker that go this way; see `_relay_cy.Relay`."""

    def __init__(
        self,
        entries: Mapping[bytes, Any],
        shelf: Shelf,
        forget: Callable[[bytes], None],
        failures: Mapping[bytes, Any],
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
        """Wire up, as `_relay_cy.Relay` says; `tops` is of no use here."""
        self.entries, self.shelf, self.forget = entries, shelf, forget
        self.failures, self.under_way = failures, under_way
        self.most, self.most_waiting = most
        self.special = special
        self.counts, self.miss_cell = counts, miss_cell
        self.min_ttl, self.max_ttl, self.max_negative_ttl = ttls
        self.find_lane, self.adopt, self.settle = find_lane, adopt, settle
        self.waiting = 0
        self.lanes: dict[Any, Lane | None] = {}
        self.staged: list[_Asked] = []
        self.windows: dict[Outlet, _Window] = {}
        self.rooms: dict[tuple[int, int], _Memory] = {}
        self.query_rooms: dict[tuple[int, int, int], tuple[memoryview, memoryview]] = {}
        self.shapes: dict[bytes, Shape] = {}
        # Well formed, plain, and neither they nor a name above is listed or special.
        self.table: NameTable | None = None
        self.parents: set[bytes] = set()

    def __len__(self) -> int:
        """How many clients wait."""
        return self.waiting

    def close_lanes(self) -> None:
        """Learn that the policy changed: who is under way is handed over, and new lanes are found."""
        for lane in self.lanes.values():
            if lane is not None:
                lane.close()
        self.lanes.clear()
        self.table = None
        self.parents.clear()

    def offer(
        self, outlet: "Outlet", passed: list[int], sources: "dict[bytes, ViewMemo]", upstream: object, now: float
    ) -> list[int]:
        """Stage what can go this way of the datagrams that the memo passed on; the slots that are the pipeline's."""
        window = self.windows.get(outlet)
        if window is None:
            window = self.windows[outlet] = _Window(outlet)
        arena, names, received, places = window.arena, window.names, window.received, window.places
        entries, replies, failures, under_way = self.entries, self.shelf.replies, self.failures, self.under_way
        shapes, parents, special = self.shapes, self.parents, self.special
        needs_control, slot_octets = window.needs_control, outlet.slot_octets
        control = b""
        last = None
        lane: Lane | None = None
        turn: _Turn | None = None
        recalled = 0
        rest: list[int] = []
        for i in passed:
            start, source, peer = places[i]
            if (address := names[source]) != last:
                last = address
                lane = self._lane_of(sources.get(address))
                if lane is not None and (turn is None or turn.lane is not lane):
                    turn = _Turn(self, lane, window, upstream, now)
                    strips_ech = lane.strips_ech
                    find = lane.table.find
            octets = received[16 * i + 14]
            packet = arena[start : start + octets]
            end = packet.find(b"\0", 12) + 1  # of QNAME, if it is as plain as it must be
            if lane is None or turn is None or not 13 < end <= _MOST_END or octets >= slot_octets:
                rest.append(i)
                continue
            around = packet[2:12] + packet[end:]
            shape = shapes.get(around)
            if shape is None:
                shape = read_shape(around)
                if shape is None:
                    rest.append(i)
                    continue
                if len(shapes) >= _SHAPES:
                    shapes.clear()
                shapes[around] = shape
            qname = packet[12:end].lower()
            first = qname[0] + 1
            label = qname[1:first]
            parent = qname[first:]
            if (
                (parent not in parents and not self._is_open(lane.table, parent))
                or first > 64
                or not (label.isalnum() or not label.translate(None, PLAIN))
                or qname in special
                or find(qname) >= 0
                or (strips_ech and shape.qtype in (64, 65))
            ):
                rest.append(i)
                continue
            key = qname + shape.key_end
            if needs_control:
                control = window.control(i)
            asked = _Asked(turn, key, packet, shape, names[peer], control)
            sealed = replies.get(key)
            entry = entries.get(key)
            if sealed is not None and entry is None and unseal(sealed)[1] > now:
                if self._recall(asked, sealed, now):
                    recalled += 1
                else:
                    rest.append(i)
                continue
            if entry is not None and (entry.expires > now or entry.retry_at > now):
                rest.append(i)
                continue
            if (failures and key in failures) or self.waiting >= self.most_waiting:
                rest.append(i)
                continue
            found = under_way.get(key)
            if found is None:
                if len(under_way) >= self.most:
                    rest.append(i)
                    continue
                under_way[key] = asked
                self.staged.append(asked)
            elif found.__class__ is _Asked and found.question is None:
                if found.more is None:
                    found.more = [asked]
                else:
                    found.more.append(asked)
            else:
                rest.append(i)
                continue
            self.waiting += 1
        if recalled:
            window.flush()
            self.settle([], [], recalled)
        return rest

    def _lane_of(self, memo: "ViewMemo | None") -> "Lane | None":
        if memo is None:
            return None
        lanes = self.lanes
        if memo not in lanes:
            lanes[memo] = self.find_lane(memo)
        lane = lanes[memo]
        if lane is not None and lane.table is not self.table:
            self.table = lane.table
            self.parents.clear()
        return lane

    def _is_open(self, table: "NameTable", parent: bytes) -> bool:
        """Whether below a name (lower-cased) nothing but what is listed itself is anybody's but the upstream's."""
        special = self.special
        labels = i = 0
        last = len(parent) - 1
        while i < last:
            octets = parent[i] + 1
            if not 1 < octets < 65 or parent[i:] in special or parent[i + 1 : i + octets].translate(None, PLAIN):
                return False
            i += octets
            labels += 1
        if i != last or labels >= _MOST_LABELS or table.covering(parent):
            return False
        if len(self.parents) >= _PARENTS:
            self.parents.clear()
        self.parents.add(parent)
        return True

    def is_staged(self) -> bool:
        """Whether there are questions to `write`."""
        return bool(self.staged)

    def give_up(self, error: OSError) -> None:
        """Learn that what is staged can not be sent."""
        staged, self.staged = self.staged, []
        for asked in staged:
            asked.fail(error)

    def write(
        self,
        rooms: tuple[int, int, int],
        ready: int,
        waiting: dict[int, tuple[Any, bytes, float]],
        random: bytes,
        due: float,
    ) -> int:
        """Write staged questions out as queries; as `_relay_cy.Relay.write` says."""
        room = self.query_rooms.get(rooms)
        if room is None:
            vectors = _writable(rooms[1], SLOTS * 16).cast("Q")
            room = self.query_rooms[rooms] = _writable(rooms[0], SLOTS * rooms[2]), vectors
        slots, vectors = room
        slot_octets = rooms[2]
        staged = self.staged
        start = slot_octets * ready
        left = SLOTS - ready
        lengths: list[int] = []
        used = 0
        most = len(random)
        written = 0
        for asked in staged:
            if written == left:
                break
            while used + 2 <= most:
                draw = random[used : used + 2]
                used += 2
                message_id = draw[0] << 8 | draw[1]
                if message_id not in waiting:
                    break
            else:
                break
            shape = asked.shape
            query = b"".join((draw, shape.query_head, asked.key[:-3], shape.query_end))
            octets = len(query)
            slots[start : start + octets] = query
            start += slot_octets
            lengths.append(octets)
            waiting[message_id] = asked, query, due
            written += 1
        del staged[:written]
        vectors[2 * ready + 1 : 2 * (ready + written) : 2] = memoryview(array("Q", lengths))
        return ready + written

    def take(
        self,
        rooms: tuple[int, int],
        received: memoryview,
        count: int,
        waiting: dict[int, tuple[Any, bytes, float]],
        trusts: Callable[[Any], bool],
        now: float,
    ) -> list[int]:
        """Answer with replies that have come; as `_relay_cy.Relay.take` says."""
        arena = self.rooms.get(rooms)
        if arena is None:
            arena = self.rooms[rooms] = _readable(rooms[0], SLOTS * rooms[1])
        slot_octets = rooms[1]
        counts, entries, shelf, under_way = self.counts, self.entries, self.shelf, self.under_way
        replies = shelf.replies
        rest: list[int] = []
        runs: list[tuple[Any, float, int]] = []
        given: dict[float, int] = {}
        touched: list[_Window] = []
        turn: _Turn | None = None
        cells: tuple[int, int] = (0, 0)
        is_trusted = False
        run = learned = told = answered = 0
        start = -slot_octets
        for k, octets in enumerate(received[14 : 16 * count : 16].tolist()):
            start += slot_octets
            reply = arena[start : start + octets]
            message_id = reply[0] << 8 | reply[1] if octets > 16 else -1
            held = waiting.get(message_id)
            if held is None or held[0].__class__ is not _Asked or held[0].question is not None:
                rest.append(k)
                continue
            asked, sent, _ = held
            if asked.turn is not turn:
                before, turn = turn, asked.turn
                if before is None or before.upstream is not turn.upstream or before.started != turn.started:
                    if before is not None and run:
                        runs.append((before.upstream, before.started, run))
                        run = 0
                    is_trusted = trusts(turn.upstream)
            key = asked.key
            end = len(key) + 13  # of the question, which must be the one that was sent
            waiters = (asked,) if asked.more is None else (asked, *asked.more)
            weighed = self._weigh(waiters, reply, end, is_trusted) if reply[12:end] == sent[12:end] else None
            if weighed is None:
                rest.append(k)
                continue
            head, has_opt, records, places, life = weighed
            until = now + life
            for one in waiters:
                shape, packet = one.shape, one.packet
                lane, window = one.turn.lane, one.turn.window
                if one is not asked:
                    head = shape.read(reply[2:12], is_trusted) or head
                said = b"".join(((head[4] if has_opt else head[3]), packet[12:end], records, shape.opt))
                if not window.said:
                    touched.append(window)
                window.said.append((packet[:2] + said, one))
                found = lane.cells.get(head[5]) or lane.cells_of(shape.qtype, head[5] & 15)
                if found is not cells:
                    counts[cells[0]] += told
                    cells, told = found, 0
                told += 1
                answered += 1
                given[one.turn.started] = given.get(one.turn.started, 0) + 1
                if life and places:
                    lane.memo.put(packet[2:], Ready(said, found[1], until, now, places, b"", b""))
                    learned += 1
            del under_way[key], waiting[message_id]
            run += 1
            if key in entries or key in replies:
                self.forget(key)  # even where the new answer may not be kept: what it replaces is true no longer
            if life:
                shelf.keep(key, now, until, is_trusted, reply)
        if turn is not None and run:
            runs.append((turn.upstream, turn.started, run))
        if answered:
            counts[cells[0]] += told
            counts[self.miss_cell] += answered
            self.waiting -= answered
            for window in touched:
                window.flush()
            self.settle(runs, list(given.items()), learned)
        return rest

    def _recall(self, asked: _Asked, sealed: bytes, now: float) -> bool:
        """Answer with a reply that is kept and fresh, and have the memo learn it; False if it is the pipeline's to do.

        The memo has let it go meanwhile, or knows it as the answer to another datagram.
        """
        stored, until, is_trusted = unseal(sealed)
        key, shape, packet, lane = asked.key, asked.shape, asked.packet, asked.turn.lane
        end = len(key) + 13
        weighed = self._weigh((asked,), sealed[SEAL_OCTETS:], end, is_trusted)
        if weighed is None:
            return False
        head, has_opt, records, places, _ = weighed
        said = b"".join(((head[4] if has_opt else head[3]), packet[12:end], records, shape.opt))
        cell = (lane.cells.get(head[5]) or lane.cells_of(shape.qtype, head[5] & 15))[1]
        ready = Ready(said, cell, until, stored, places, b"", b"")
        lane.memo.put(packet[2:], ready)
        if ready.due <= now:
            ready.turn(now)
        asked.turn.window.said.append((packet[:2] + ready.reply, asked))
        self.counts[cell] += 1
        return True

    def _weigh(self, waiters: tuple[_Asked, ...], reply: bytes, end: int, is_trusted: bool) -> "_Weighed | None":
        """What a reply comes to, for all who wait; None where it is not plain, or a rule has a say in it.

        Returns:
            What its header comes to, for the first of them; whether it has an OPT; the records; of each
            TTL in the answer, less the id, place and seconds; how long that holds, in seconds.
        """
        shape = waiters[0].shape
        header = reply[2:12]
        head = (shape.trusted_heads if is_trusted else shape.heads).get(header) or shape.read(header, is_trusted)
        if head is None:
            return None
        body = read_body(reply, end, head, shape.qtype, self.parents)
        if body is None:
            return None
        stop, places, shortest, longest, has_opt, negative, names = body
        for asked in waiters:
            shape = asked.shape
            if stop + len(shape.opt) > shape.limit or not asked.turn.lane.is_open:
                return None
        if names:
            table, parents = waiters[0].turn.lane.table, self.parents
            for name in names:
                if table.find(name) >= 0 if name[name[0] + 1 :] in parents else table.covering(name):
                    return None
        # How long it is kept, and its TTLs, are the cache's to say (`Cache.put`).
        if negative is None:
            life, cap = shortest, self.max_ttl
        else:
            life, cap = min(negative, shortest) if places else negative, self.max_negative_ttl
        if life and life < self.min_ttl:
            life = self.min_ttl
        if life > cap:
            life = cap
        floor, ceiling = self.min_ttl if life else 0, cap if negative is None else life
        records = reply[end:stop]
        if shortest < floor or longest > ceiling:
            records, places = clamped(records, places, end - 2, floor, ceiling)
        return head, has_opt, records, places, life


def _readable(at: int, octets: int) -> _Memory:
    """Memory at an address."""
    return cast("_Memory", (ctypes.c_char * octets).from_address(at))


def _writable(at: int, octets: int) -> memoryview:
    """Memory at an address, to be written to slice by slice."""
    return memoryview((ctypes.c_ubyte * octets).from_address(at)).cast("B")
