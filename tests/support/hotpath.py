"""Datagrams answered by the hot memo as `transport/udp.py` has them answered, less the sockets."""

import asyncio
import ctypes
import mmap
import struct
from collections.abc import Coroutine, Sequence
from types import ModuleType

from resolver.engine.relaying import RelayedQuestions
from resolver.hot import _relay_cy, relay_plain, relay_shapes
from resolver.policy.client import Client
from tests.support.house import House
from tests.support.plain import load_uncompiled
from tests.support.upstream import Slots

SLOTS = 16
Left = dict[bytes, bytes | None]
"""What was said, by the client's sockaddr, of which each query of a batch has its own."""


class HotPath:
    """One socket's buffers in front of a house: what the memo does not know is relayed, or asked of the pipeline.

    It is relayed as the memo is built, compiled or plain.
    """

    def __init__(self, house: House, module: ModuleType, counts: memoryview, is_6: bool = False) -> None:
        self._house = house
        self._slot_octets = module.SLOT_OCTETS
        self._name_octets = module.SOCKADDR_OCTETS
        self._arena = mmap.mmap(-1, SLOTS * self._slot_octets)
        self._names = mmap.mmap(-1, SLOTS * self._name_octets)
        received = mmap.mmap(-1, SLOTS * 64)
        self._received = memoryview(received).cast("I")
        self._vectors = memoryview(bytearray(SLOTS * 16)).cast("Q")
        self._headers = memoryview(bytearray(SLOTS * 64)).cast("Q")
        self._at = ctypes.addressof(ctypes.c_char.from_buffer(self._arena))
        names_at = ctypes.addressof(ctypes.c_char.from_buffer(self._names))
        for i in range(SLOTS):
            self._vectors[2 * i] = self._at + self._slot_octets * i
            self._headers[8 * i] = names_at + self._name_octets * i
        self._batch = module.Batch(
            self._arena, self._names, self._received, self._headers, self._vectors, counts,
            (self._at, names_at, 0), is_6,
        )  # fmt: skip
        self.answered = 0
        self.relayed = 0
        self._left: Left = {}
        self._late, self._late_names = Slots(self._slot_octets), Slots(self._name_octets)
        is_plain = str(module.__file__).endswith(".py")
        relay = load_uncompiled("resolver.hot._relay_cy") if is_plain else _relay_cy
        if is_plain:
            house.cache.shelf = relay_shapes.Shelf()
        self._outlet = relay.Outlet(
            (self._at, names_at, 0, ctypes.addressof(ctypes.c_char.from_buffer(received)), 0),
            (self._late.at, self._late_names.at, 0, 0, self._late.vectors_at),
            (self._slot_octets, self._name_octets, 64),
            is_6,
            self._send,
            self._begin_again,
        )
        self._again: set[asyncio.Task[bytes | None]] = set()
        self._changed = asyncio.Event()
        self.questions = RelayedQuestions(
            policy=house.policy,
            special=house.special,
            cache=house.cache,
            forwarder=house.forwarder,
            clock=house.clock,
            counts=counts,
            miss_cell=house.cells.index("cache", "miss"),
            cells_of=house.pipeline.cells_of,
            answered=self._count,
            most_waiting=100,
            build=(relay_plain.Relay if is_plain else _relay_cy.Relay, relay.Lane),
        )

    def _count(self, count: int, begun: float) -> None:
        self.relayed += count

    def _send(self, ready: int) -> None:
        for k in range(ready):
            octets = self._late.octets(k, self._late.vectors[2 * k + 1])
            self._say(self._late_names.octets(k, self._name_octets), octets)

    def _say(self, sockaddr: bytes, octets: bytes | None) -> None:
        assert sockaddr not in self._left, "answered twice"
        self._left[sockaddr] = octets
        self._changed.set()

    def _begin_again(self, packet: bytes, sockaddr: bytes, control: bytes, begun: float) -> None:
        who = next(client for client in self._clients if client.sockaddr == sockaddr)
        outcome = self._house.begin(packet, who)
        if not isinstance(outcome, Coroutine):
            self._say(sockaddr, outcome)
            return
        task = asyncio.get_running_loop().create_task(outcome)
        self._again.add(task)
        task.add_done_callback(self._again.discard)
        task.add_done_callback(lambda done: self._say(sockaddr, done.result()))

    async def answer(self, packets: Sequence[tuple[bytes, Client]]) -> list[bytes | None]:
        """Answer one batch; returns the replies in the order of the packets. What came over TCP goes round the memo."""
        house = self._house
        self._clients = [client for _, client in packets]
        datagrams = [k for k, (_, client) in enumerate(packets) if client.over_udp]
        for i, k in enumerate(datagrams):
            packet, client = packets[k]
            start = self._slot_octets * i
            self._arena[start : start + len(packet)] = packet
            self._names[self._name_octets * i : self._name_octets * (i + 1)] = client.sockaddr
            self._received[16 * i + 14] = len(packet)
        at = house.clock.at()
        house.policy.turn(at)
        sources = house.policy.sources_of(None)
        hits = self._batch.answer(sources, len(datagrams), house.clock.now(), struct.pack("<q", int(at * 1_000_000)))
        sent, passed, _ = self._batch.outcome()
        if hits:
            house.spooled.append(hits)
        replies: list[bytes | None] = [None] * len(packets)
        for k in range(sent):
            slot = self._batch.slot(k)
            assert self._vectors[2 * k] == self._at + self._slot_octets * slot
            start = self._slot_octets * slot
            replies[datagrams[slot]] = self._arena[start : start + self._vectors[2 * k + 1]]
        self.answered += sent
        rest = passed
        if passed:
            rest = self.questions.offer(self._outlet, passed, sources, house.clock.now())
        taken = [datagrams[i] for i in passed if i not in rest]
        others = sorted({*range(len(packets))} - {*datagrams} | {datagrams[i] for i in rest})
        for k, reply in zip(others, await asyncio.gather(*(house.answer(*packets[k]) for k in others)), strict=True):
            replies[k] = reply
        while len(self._left) < len(taken):
            self._changed.clear()
            await self._changed.wait()
        for k in taken:
            replies[k] = self._left[packets[k][1].sockaddr]
        self._left.clear()
        return replies
