"""Datagrams answered by the hot memo as `transport/udp.py` has them answered, less the sockets."""

import ctypes
import mmap
import struct
from collections.abc import Sequence
from types import ModuleType

from resolver.policy.client import Client
from tests.support.house import House

SLOTS = 16


class HotPath:
    """One socket's buffers in front of a house: what the memo does not know is asked of the pipeline."""

    def __init__(self, house: House, module: ModuleType, counts: memoryview, is_6: bool = False) -> None:
        self._house = house
        self._slot_octets = module.SLOT_OCTETS
        self._name_octets = module.SOCKADDR_OCTETS
        self._arena = mmap.mmap(-1, SLOTS * self._slot_octets)
        self._names = mmap.mmap(-1, SLOTS * self._name_octets)
        self._received = memoryview(bytearray(SLOTS * 64)).cast("I")
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

    async def answer(self, packets: Sequence[tuple[bytes, Client]]) -> list[bytes | None]:
        """Answer one batch; returns the replies in the order of the packets. What came over TCP goes round the memo."""
        house = self._house
        datagrams = [k for k, (_, client) in enumerate(packets) if client.over_udp]
        for i, k in enumerate(datagrams):
            packet, client = packets[k]
            start = self._slot_octets * i
            self._arena[start : start + len(packet)] = packet
            self._names[self._name_octets * i : self._name_octets * (i + 1)] = client.sockaddr
            self._received[16 * i + 14] = len(packet)
        at = house.clock.at()
        house.policy.turn(at)
        hits = self._batch.answer(
            house.policy.sources_of(None), len(datagrams), house.clock.now(), struct.pack("<q", int(at * 1_000_000))
        )
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
        for k in sorted({*range(len(packets))} - {*datagrams} | {datagrams[i] for i in passed}):
            replies[k] = await house.answer(*packets[k])
        return replies
