"""Upstreams that are data: what they say to which question, after how long, and what they were asked."""

import asyncio
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
    return made.to_wire(max_size=65535)


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
