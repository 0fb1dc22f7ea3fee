"""Upstreams that are data: what they say to which question, after how long, and what they were asked."""

import asyncio
import ctypes
import mmap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from resolver.engine.forwarder import Waiter
from resolver.transport.forward import Relaying
from resolver.wire.message import WireError

T = TypeVar("T")

SOA = "{zone} 300 IN SOA ns.{zone} host.{zone} 1 3600 600 86400 {minimum}"


@dataclass(frozen=True, slots=True)
class Said:
    """One thing that an upstream does with a query: after `delay` seconds these octets come, or this error."""

    what: bytes | OSError
    delay: float = 0.01


React = Callable[[dns.message.Message, str], list[Said]]
"""What an upstream does with (query, "udp" or "tcp"); nothing is silence."""


class Slots:
    """Room for the datagrams of one system call, as `transport/forward.py` lays it out."""

    def __init__(self, octets: int) -> None:
        self._octets = octets
        self._arena = mmap.mmap(-1, 64 * octets)
        vectors = mmap.mmap(-1, 64 * 16)
        self.at = ctypes.addressof(ctypes.c_char.from_buffer(self._arena))
        self.vectors_at = ctypes.addressof(ctypes.c_char.from_buffer(vectors))
        self.vectors = memoryview(vectors).cast("Q")
        self.received = memoryview(bytearray(64 * 64)).cast("I")

    def octets(self, k: int, count: int) -> bytes:
        """What stands in a slot."""
        return self._arena[self._octets * k : self._octets * k + count]

    def put(self, k: int, octets: bytes) -> None:
        """Receive a datagram."""
        self._arena[self._octets * k : self._octets * k + len(octets)] = octets
        self.received[16 * k + 14] = len(octets)


class FakeExchange:
    """An `Exchange` whose replies come out of a function, in the loop's time."""

    posts = True
    """Whether it can be asked without a task, as an upstream can over UDP."""

    def __init__(self, react: React, name: str = "192.0.2.53:53") -> None:
        self.name = name
        self.react = react
        self.asked: list[tuple[str, dns.message.Message]] = []
        self._next_id = 0
        self._posted: set[asyncio.Task[None]] = set()

    def post(self, query: bytes, waiter: Waiter, wait: float) -> bool:
        """Tell the waiter of the first datagram that it takes."""
        if self.posts:
            task = asyncio.get_running_loop().create_task(self._tell(query, waiter, wait))
            self._posted.add(task)
            task.add_done_callback(self._posted.discard)
        return self.posts

    def post_staged(self, relaying: Relaying, wait: float) -> None:
        """The same for many questions; a reply is offered to who asks them all, and then to the one who waits."""
        while relaying.is_staged():
            slots = Slots(512)
            draw = b"".join((self._next_id + n & 0xFFFF).to_bytes(2, "big") for n in range(80))
            waiting: dict[int, tuple[Waiter, bytes, float]] = {}
            count = relaying.write((slots.at, slots.vectors_at, 512), 0, waiting, draw, 0.0)
            for k in range(count):
                query = slots.octets(k, slots.vectors[2 * k + 1])
                task = asyncio.get_running_loop().create_task(self._tell_all(relaying, query, waiting, wait))
                self._posted.add(task)
                task.add_done_callback(self._posted.discard)

    async def _tell_all(
        self, relaying: Relaying, query: bytes, waiting: dict[int, tuple[Waiter, bytes, float]], wait: float
    ) -> None:
        message_id = int.from_bytes(query[:2], "big")

        def accept(reply: bytes, sent: bytes) -> None:
            slots = Slots(1 << 16)
            octets = query[:2] + reply[2:]  # under the id that it was written with
            slots.put(0, octets)
            if relaying.take((slots.at, 1 << 16), slots.received, 1, waiting):
                waiter, sent, _ = waiting[message_id]
                if not waiter.take(octets, sent):
                    raise WireError(None, None, "not taken")

        try:
            await self.ask(query, accept, wait)
        except OSError as error:
            waiting[message_id][0].fail(error)

    async def _tell(self, query: bytes, waiter: Waiter, wait: float) -> None:
        def accept(reply: bytes, sent: bytes) -> None:
            if not waiter.take(reply, sent):
                raise WireError(None, None, "not taken")

        try:
            await self.ask(query, accept, wait)
        except OSError as error:
            waiter.fail(error)

    async def ask(self, query: bytes, accept: Callable[[bytes, bytes], T], wait: float) -> T:
        """What the first datagram makes that `accept` takes; the others are ignored."""
        return await asyncio.wait_for(self._first(query, accept, "udp"), wait)

    async def ask_whole(self, query: bytes, accept: Callable[[bytes, bytes], T], wait: float) -> T:
        """The same; over TCP a reply that does not fit is an error."""
        return await asyncio.wait_for(self._first(query, accept, "tcp"), wait)

    def questions(self, transport: str | None = None) -> list[str]:
        """Everything that was asked, as "name TYPE"; over one transport, or over both."""
        return [
            f"{message.question[0].name.to_text(True)} {dns.rdatatype.to_text(message.question[0].rdtype)}"
            for over, message in self.asked
            if transport in (None, over)
        ]

    async def _first(self, query: bytes, accept: Callable[[bytes, bytes], T], transport: str) -> T:
        self._next_id += 1
        sent = self._next_id.to_bytes(2, "big") + query[2:]
        message = dns.message.from_wire(sent)
        self.asked.append((transport, message))
        passed = 0.0
        for said in self.react(message, transport):
            await asyncio.sleep(said.delay - passed)
            passed = said.delay
            if isinstance(said.what, OSError):
                raise said.what
            try:
                return accept(said.what, sent)
            except WireError:
                if transport == "tcp":
                    raise
        await asyncio.get_running_loop().create_future()  # silence: the caller's patience ends it
        raise AssertionError("unreachable")


def reply(
    query: dns.message.Message,
    answer: Iterable[str] = (),
    authority: Iterable[str] = (),
    rcode: str = "NOERROR",
    *,
    edns: bool = True,
    flags: int = dns.flags.RA,
) -> bytes:
    """A reply to a query; records are lines of master-file text."""
    made = dns.message.make_response(query, recursion_available=True)
    made.flags |= flags
    if not edns or query.edns < 0:
        made.use_edns(False)
    made.set_rcode(dns.rcode.from_text(rcode))
    for section, lines in ((made.answer, answer), (made.authority, authority)):
        for line in lines:
            owner, ttl, rclass, rtype, rdata = line.split(maxsplit=4)
            owner = owner if owner.endswith(".") else f"{owner}."
            rrset = dns.rrset.from_text_list(
                owner, int(ttl), rclass, rtype, [rdata], origin=dns.name.root, relativize=False
            )
            held = next((r for r in section if r.name == rrset.name and r.rdtype == rrset.rdtype), None)
            if held is None:
                section.append(rrset)
            else:
                held.update(rrset)
    return made.to_wire(max_size=65535, want_shuffle=False)


def records(table: Mapping[str, Iterable[str]], delay: float = 0.01, minimum: int = 300) -> React:
    """An upstream that knows some names.

    Args:
        table: Lines of master-file text by "name TYPE"; no lines is NODATA; a name that is nowhere is NXDOMAIN.
        delay: Seconds from a query to its reply.
        minimum: For how long a "no" may be cached.
    """
    known = {question.split()[0].lower() for question in table}

    def react(query: dns.message.Message, transport: str) -> list[Said]:
        question = query.question[0]
        name = question.name.to_text(True).lower()
        zone = f"{name.rpartition('.')[2] or name}."
        soa = SOA.format(zone=zone, minimum=minimum)
        lines = list(table.get(f"{name} {dns.rdatatype.to_text(question.rdtype)}", ()))
        rcode = "NOERROR" if name in known else "NXDOMAIN"
        octets = reply(query, lines, () if lines else (soa,), rcode)
        if transport == "udp" and len(octets) > max(query.payload, 512):
            octets = reply(query, flags=dns.flags.RA | dns.flags.TC)
        return [Said(octets, delay)]

    return react


def fails(rcode: str = "SERVFAIL", delay: float = 0.01) -> React:
    """An upstream that answers everything with an error."""
    return lambda query, transport: [Said(reply(query, rcode=rcode), delay)]


def silent(query: dns.message.Message, transport: str) -> list[Said]:
    """An upstream that is gone."""
    return []


def refuses(query: dns.message.Message, transport: str) -> list[Said]:
    """An upstream whose port is closed."""
    return [Said(ConnectionRefusedError(111, "Connection refused"), 0.001)]
