"""UDP with real sockets on loopback: each datagram is answered to where it came from, from where it went."""

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable, Iterator

import pytest

from resolver.hot._batch_cy import NEVER, SLOT_OCTETS, Ready, ViewMemo
from resolver.observe.cells import Cells
from resolver.observe.record import Hit, hit_template, parse_all, sockaddr
from resolver.policy.client import Client, Transport
from resolver.transport.sockets import bind_udp
from resolver.transport.udp import FEW, MAX_BATCHES, SLOTS, Soon, UdpServer
from resolver.wire.codes import Rcode
from resolver.wire.message import WireError, read_query
from tests.support.answerer import FakeAnswerer, reply_to
from tests.support.house import ask

PATIENCE = 5.0  # seconds
CELLS = 64
WWW = ask("www.example.org")


class Window:
    """A server that works when it is told to."""

    def __init__(self, host: str, soon: Soon | None = None) -> None:
        self.sock = bind_udp(host, 0)
        self.answerer = FakeAnswerer()
        self.cells = Cells(bytearray(Cells.octets(CELLS)), CELLS)
        self.server = UdpServer(self.sock, self.cells.counts, self.answerer, None, soon)
        self.port = self.sock.getsockname()[1]

    def work(self) -> None:
        """Answer what has come, as a loop would."""
        ready, _, _ = select.select([self.sock], [], [], PATIENCE)
        assert ready, "nothing has come"
        self.server.on_readable()

    def learn(self, packet: bytes, reply: bytes, address: bytes, *, cell: int = 0, hits: bool = False) -> None:
        """Put an answer into the memo of an address."""
        template = hit_template(
            generation=1, group="phones", transport="udp", qname="chat.example", qtype="A", order="order-1", app="chat",
            rule="suffix chat.example", action="nxdomain", rcode="NXDOMAIN", ede=16, mode="enforce",
        )  # fmt: skip
        ready = Ready(reply[2:], cell, NEVER, 0.0, (), template.prefix if hits else b"", template.tail if hits else b"")
        self.answerer.sources.setdefault(address, ViewMemo(100)).put(packet[2:], ready)


@contextlib.contextmanager
def window(host: str = "127.0.0.1", soon: Soon | None = None) -> Iterator[Window]:
    made = Window(host, soon)
    try:
        yield made
    finally:
        made.sock.close()


@contextlib.contextmanager
def client(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        sock.settimeout(PATIENCE)
        yield sock


def with_id(packet: bytes, message_id: int) -> bytes:
    return message_id.to_bytes(2, "big") + packet[2:]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_query_is_answered_to_who_sent_it(host: str) -> None:
    """By the roof, with the client's address in both forms."""
    with window(host) as w, client(host) as me:
        me.sendto(WWW, (host, w.port))
        w.work()

        assert me.recv(4096) == reply_to(WWW)
        peer = sockaddr(host, me.getsockname()[1])
        assert w.answerer.seen[0][1] == Client(socket.inet_pton(me.family, host), peer, Transport.UDP)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_the_memo_knows_does_not_reach_the_roof(host: str) -> None:
    """The learned octets under the query's own id; counted, and recorded with time and client."""
    learned = bytes([9, 9]) + b"\x81\x83" + b"the learned reply"
    with window(host) as w, client(host) as me:
        w.learn(WWW, learned, socket.inet_pton(me.family, host), cell=3, hits=True)
        me.sendto(with_id(WWW, 77), (host, w.port))
        w.work()

        assert me.recv(4096) == b"\0\x4d" + learned[2:]
        assert w.answerer.seen == []
        assert w.cells.counts[3] == 1
        ((records, count),) = w.answerer.spooled
        ((hit,), _, bad) = parse_all(records)
        assert (count, bad) == (1, None)
        assert isinstance(hit, Hit)
        assert (hit.client, hit.port) == (host, me.getsockname()[1])
        assert hit.time_us == int((w.answerer.now + 1e9) * 1e6)


def test_what_a_batch_answers_at_once_is_counted_at_once() -> None:
    """With the time of the batch; what is still to come is counted by the roof."""
    with window() as w, client() as me:
        w.learn(WWW, b"\0\0learned", bytes([127, 0, 0, 1]))
        for packet in (WWW, ask("www.example.net"), ask("later.example"), ask("silent.example")):
            me.sendto(packet, ("127.0.0.1", w.port))
        w.work()

        assert w.answerer.given == [(Transport.UDP, 2)]


def test_a_memo_belongs_to_one_address() -> None:
    """The same datagram from another client is asked of the roof."""
    with window() as w, client() as me, client("127.0.0.2") as other:
        w.learn(WWW, b"\0\0learned", bytes([127, 0, 0, 1]))
        for sock in (me, other):
            sock.sendto(WWW, ("127.0.0.1", w.port))
        w.work()

        assert me.recv(4096) == WWW[:2] + b"learned"
        assert other.recv(4096) == reply_to(WWW)


@pytest.mark.parametrize("seed", range(4))
def test_learned_passed_and_silent_ones_in_one_batch_do_not_mix(seed: int) -> None:
    """Every client gets the answer to what it asked, wherever in the batch it stood."""
    kinds = [("learned", "www", "silent", "later")[(n * 7 + seed + n // 5) % 4] for n in range(SLOTS)]
    with window() as w, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client()) for _ in kinds]
        for n, (kind, sock) in enumerate(zip(kinds, clients, strict=True)):
            packet = ask(f"{kind}.n{n}.example")
            if kind == "learned":
                w.learn(packet, b"\0\0" + f"learned {n}".encode(), bytes([127, 0, 0, 1]))
            sock.sendto(with_id(packet, n), ("127.0.0.1", w.port))
        w.work()
        w.answerer.release()

        for n, (kind, sock) in enumerate(zip(kinds, clients, strict=True)):
            packet = with_id(ask(f"{kind}.n{n}.example"), n)
            if kind == "silent":
                sock.setblocking(False)
                with pytest.raises(BlockingIOError):
                    sock.recv(4096)
            elif kind == "learned":
                assert sock.recv(4096) == n.to_bytes(2, "big") + f"learned {n}".encode()
            else:
                assert sock.recv(4096) == reply_to(packet)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])
@pytest.mark.parametrize("count", [1, SLOTS, SLOTS + 3])
def test_replies_that_come_late_leave_together(host: str, count: int) -> None:
    """At the end of the turn, or when a batch is full; each to who asked, from where it was asked."""
    turns: list[Callable[[], None]] = []
    to = "127.0.0.9" if host == "0.0.0.0" else host
    with window(host, turns.append) as w, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client("127.0.0.1" if host == "0.0.0.0" else host)) for _ in range(count)]
        packets = [ask(f"later.n{n}.example", message_id=n) for n in range(count)]
        for sock, packet in zip(clients, packets, strict=True):
            sock.sendto(packet, (to, w.port))
            w.work()
        w.answerer.release()
        while turns:
            turns.pop(0)()

        for sock, packet in zip(clients, packets, strict=True):
            reply, sender = sock.recvfrom(4096)
            assert (reply, sender[0]) == (reply_to(packet), to)


def test_the_same_slots_serve_batch_after_batch() -> None:
    """What one batch left behind is not in the next one's answers."""
    with window() as w, client() as me:
        w.learn(ask("b.example"), b"\0\0short", bytes([127, 0, 0, 1]))
        for round_ in range(5):
            queries = [
                with_id(ask(name), 10 * round_ + n) for n, name in enumerate(["a.long.name.example", "b.example"])
            ]
            for query in queries if round_ % 2 else reversed(queries):
                me.sendto(query, ("127.0.0.1", w.port))
            w.work()
            replies = {reply[:2]: reply for reply in (me.recv(4096) for _ in queries)}
            assert replies == {queries[0][:2]: reply_to(queries[0]), queries[1][:2]: queries[1][:2] + b"short"}


def test_a_wakeup_answers_many_batches_but_not_without_end() -> None:
    """A flood of datagrams does not keep other work of the loop from its turn."""
    count = (MAX_BATCHES + 2) * SLOTS
    with window() as w, client() as me:
        me.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        for n in range(count):
            me.sendto(with_id(WWW, n), ("127.0.0.1", w.port))
        w.work()
        assert len(w.answerer.seen) == MAX_BATCHES * SLOTS
        w.work()

        assert len(w.answerer.seen) == count
        assert sorted(int.from_bytes(me.recv(4096)[:2], "big") for _ in range(count)) == list(range(count))


class Loop(asyncio.AbstractEventLoop):
    """Writes down what it is told to watch and to call."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.calls: list[Callable[[], object]] = []

    def add_reader(self, fd: object, callback: Callable[[], object]) -> None:  # type: ignore[override]
        """Watch."""
        self.told.append("watch")

    def remove_reader(self, fd: object) -> bool:
        """Watch no more."""
        self.told.append("watch no more")
        return True

    def call_soon(self, callback: Callable[[], object]) -> None:  # type: ignore[override]
        """Call in the next round."""
        self.calls.append(callback)


def test_an_error_of_ours_leaves_the_socket_watched() -> None:
    """It is told to the loop, and the next datagram is answered."""
    count = MAX_BATCHES * SLOTS
    with window() as w, client() as me:
        me.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        loop = Loop()
        w.server.open(loop)
        for n in range(2 * count):
            me.sendto(with_id(WWW, n), ("127.0.0.1", w.port))
        w.server.on_readable()
        w.answerer.now = float("nan")  # no instant can be made of it
        with pytest.raises(ValueError, match="NaN"):
            loop.calls.pop()()
        assert loop.told == ["watch", "watch no more", "watch"]

        w.answerer.now = 1000.0
        w.server.on_readable()
        assert len(w.answerer.seen) > count


def test_what_had_arrived_before_the_end_is_answered() -> None:
    """However much it is."""
    count = 3 * MAX_BATCHES * SLOTS + 7
    with window() as w, client() as me:
        me.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        w.server.open(Loop())
        for n in range(count):
            me.sendto(with_id(WWW, n), ("127.0.0.1", w.port))
        w.server.shut()

        assert len(w.answerer.seen) == count


def test_under_load_the_socket_is_looked_at_without_being_watched() -> None:
    """In each round of the loop, until a round finds little; what is shut meanwhile is looked at once more."""
    count = MAX_BATCHES * SLOTS
    with window() as w, client() as me:
        me.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        loop = Loop()
        w.server.open(loop)
        for burst in (count, count, 3):
            for n in range(burst):
                me.sendto(with_id(WWW, n), ("127.0.0.1", w.port))
            (loop.calls.pop() if loop.calls else w.server.on_readable)()
        assert loop.told == ["watch", "watch no more", "watch"]
        assert len(w.answerer.seen) == 2 * count + 3
        assert loop.calls == []

        for n in range(count + 5):
            me.sendto(with_id(WWW, n), ("127.0.0.1", w.port))
        w.server.on_readable()
        w.server.shut()
        loop.calls.pop()()
        assert loop.told[3:] == ["watch no more"]
        assert len(w.answerer.seen) == 3 * count + 8


@pytest.mark.parametrize(
    "packet", [b"", b"x", b"x" * 11, b"x" * SLOT_OCTETS, b"x" * (SLOT_OCTETS + 1), b"x" * 60_000],
    ids=["none", "one", "eleven", "a slot", "more than a slot", "far more"],
)  # fmt: skip
def test_any_number_of_octets_may_come(packet: bytes) -> None:
    """Nothing is read past its slot, and the next datagram is answered."""
    with window() as w, client() as me:
        w.learn(WWW, b"\0\0learned", bytes([127, 0, 0, 1]))
        w.answerer.answer = lambda p, who, _: w.answerer.seen.append((p, who))  # type: ignore[method-assign,assignment]
        me.sendto(packet, ("127.0.0.1", w.port))
        me.sendto(WWW, ("127.0.0.1", w.port))
        w.work()

        assert me.recv(4096) == WWW[:2] + b"learned"
        assert [seen[0] for seen in w.answerer.seen] == [packet if len(packet) < SLOT_OCTETS else packet[:12]]


def of_octets(octets: int) -> bytes:
    """A well-formed query of so many octets, most of them padding (RFC 7830)."""
    query = ask("www.example.org")
    padding = octets - len(query) - 4
    return query[:-2] + (padding + 4).to_bytes(2, "big") + b"\0\x0c" + padding.to_bytes(2, "big") + bytes(padding)


@pytest.mark.parametrize("excess", [0, 1, 1000])
def test_a_datagram_that_may_have_been_cut_is_not_answered_by_what_is_left(excess: int) -> None:
    """The roof gets the header, for which FORMERR is the answer, however well formed the slot's octets are."""
    query = of_octets(SLOT_OCTETS)
    assert read_query(query).qtype == 1
    with window() as w, client() as me:
        w.answerer.answer = lambda p, who, _: w.answerer.seen.append((p, who))  # type: ignore[method-assign,assignment]
        me.sendto(query + b"x" * excess, ("127.0.0.1", w.port))
        w.work()

        (packet,) = (seen[0] for seen in w.answerer.seen)
        with pytest.raises(WireError) as refused:
            read_query(packet)
        assert (refused.value.rcode, packet[:2]) == (Rcode.FORMERR, query[:2])


def test_the_longest_query_that_was_surely_not_cut_is_answered() -> None:
    """One octet less than a slot has room for."""
    query = of_octets(SLOT_OCTETS - 1)
    with window() as w, client() as me:
        me.sendto(query, ("127.0.0.1", w.port))
        w.work()

        assert me.recv(4096) == reply_to(query)


@pytest.mark.parametrize(("come", "answered"), [(1, 1), (FEW - 1, FEW - 1), (FEW, FEW + 1), (SLOTS, SLOTS + 1)])
def test_the_socket_is_looked_at_again_only_after_a_batch_of_some_size(come: int, answered: int) -> None:
    """What comes while few are answered waits for the next wake-up, and is not forgotten."""
    with window() as w, client() as me:
        batch, late = w.answerer.batch, [with_id(WWW, come)]

        def batch_and_more(listener: str | None) -> tuple[dict[bytes, ViewMemo], float, float]:
            if late:
                me.sendto(late.pop(), ("127.0.0.1", w.port))
            return batch(listener)

        w.answerer.batch = batch_and_more  # type: ignore[method-assign]
        for n in range(come):
            me.sendto(with_id(WWW, n), ("127.0.0.1", w.port))
        w.work()
        assert len(w.answerer.seen) == answered
        if answered == come:
            w.work()

        assert sorted(int.from_bytes(me.recv(4096)[:2], "big") for _ in range(come + 1)) == list(range(come + 1))


@pytest.mark.parametrize(("wildcard", "asked"), [("0.0.0.0", "127.0.0.3"), ("::", "::1")])
@pytest.mark.parametrize("kind", ["learned", "www", "later"])
def test_a_reply_comes_from_the_address_that_was_asked(wildcard: str, asked: str, kind: str) -> None:
    """Bound to all addresses too: a stub that asked 127.0.0.3 ignores what comes from 127.0.0.1."""
    packet = ask(f"{kind}.example")
    with window(wildcard) as w, client("::1" if ":" in asked else "127.0.0.1") as me:
        if kind == "learned":
            w.learn(packet, reply_to(packet), socket.inet_pton(me.family, me.getsockname()[0]))
        me.sendto(ask("www.first.example"), (asked, w.port))
        me.sendto(packet, (asked, w.port))
        w.work()
        w.answerer.release()

        for _ in range(2):
            _, origin = me.recvfrom(4096)
            assert origin[:2] == (asked, w.port)


def test_a_client_that_is_gone_takes_no_answer_from_others() -> None:
    """Replies to a closed port are lost, and nothing else is."""
    with window() as w, client() as me:
        for n in range(8):
            with client() as gone:
                gone.sendto(with_id(WWW, 100 + n), ("127.0.0.1", w.port))
            me.sendto(with_id(WWW, n), ("127.0.0.1", w.port))
        w.work()

        assert sorted(me.recv(4096)[1] for _ in range(8)) == list(range(8))


def test_a_wakeup_without_a_datagram_is_harmless() -> None:
    """As when another event was first."""
    with window() as w:
        w.server.on_readable()

        assert w.answerer.seen == []
