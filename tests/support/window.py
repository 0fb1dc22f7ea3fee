"""The buffers of a socket with the kernel's part played by hand, for the hot loop."""

import ctypes
import mmap
import struct
from collections.abc import Iterator
from types import ModuleType

SLOTS = 8
SLOT, SOCKADDR, CONTROL = 4096, 28, 64
STAMP = b"stamp---"

ALICE, BOB, STRANGER = b"\xc0\0\2\1", b"\xc0\0\2\2", b"\xc0\0\2\x63"


def address_of(buffer: mmap.mmap) -> int:
    """Where a buffer lies in memory."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class Window:
    """The buffers of a socket, laid out as transport/udp.py lays them out, with the kernel's part played here."""

    def __init__(self, hot: ModuleType, family_is_6: bool = False, controls: bool = False, slots: int = SLOTS) -> None:
        self.is_6 = family_is_6
        self.arena = mmap.mmap(-1, slots * SLOT)
        self.names = mmap.mmap(-1, slots * SOCKADDR)
        self.receive_headers = mmap.mmap(-1, slots * 64)
        self.send_headers = mmap.mmap(-1, slots * 64)
        self.send_vectors = mmap.mmap(-1, slots * 16)
        self.controls = mmap.mmap(-1, slots * CONTROL)
        at = address_of(self.arena), address_of(self.names), address_of(self.controls) if controls else 0
        vectors = address_of(self.send_vectors)
        for i in range(slots):
            struct.pack_into("<QQ", self.send_vectors, 16 * i, at[0] + SLOT * i, SLOT)
            struct.pack_into(
                "<QIxxxxQQQQIxxxxI", self.send_headers, 64 * i, at[1] + SOCKADDR * i, 28 if family_is_6 else 16,
                vectors + 16 * i, 1, at[2] + CONTROL * i if controls else 0, 0, 0, 0,
            )  # fmt: skip
        self.counts = memoryview(bytearray(8 * 16)).cast("Q")
        self.batch = hot.Batch(
            self.arena, self.names, memoryview(self.receive_headers).cast("I"),
            memoryview(self.send_headers).cast("Q"), memoryview(self.send_vectors).cast("Q"),
            self.counts, at, family_is_6,
        )  # fmt: skip

    def sockaddr(self, address: bytes, port: int = 5353) -> bytes:
        """A struct sockaddr_in or sockaddr_in6, filled up to 28 octets."""
        if self.is_6:
            return struct.pack("<H2sI16sI", 10, port.to_bytes(2, "big"), 0, address, 0)
        return struct.pack("<H2s4s20x", 2, port.to_bytes(2, "big"), address)

    def receive(self, datagrams: list[tuple[bytes, bytes]]) -> int:
        """Play recvmmsg: put (address, datagram) pairs into the slots."""
        for i, (address, octets) in enumerate(datagrams):
            self.arena[SLOT * i : SLOT * i + len(octets)] = octets
            self.names[SOCKADDR * i : SOCKADDR * (i + 1)] = self.sockaddr(address, 5353 + i)
            struct.pack_into("<I", self.receive_headers, 64 * i + 56, len(octets))
            struct.pack_into("<Q", self.receive_headers, 64 * i + 40, 1 + i % CONTROL)
        return len(datagrams)

    def send(self) -> Iterator[tuple[bytes, int, bytes, int]]:
        """Play sendmmsg: (address, port, reply, slot of the control message) by what the headers point at."""
        for k in range(self.batch.outcome()[0]):
            name, _, vector, vectors, control, length = struct.unpack_from("<QQQQQQ", self.send_headers, 64 * k)
            assert vectors == 1
            base, octets = struct.unpack("<QQ", ctypes.string_at(vector, 16))
            sockaddr = ctypes.string_at(name, SOCKADDR)
            address = sockaddr[8:24] if self.is_6 else sockaddr[4:8]
            slot = (control - address_of(self.controls)) // CONTROL if control else -1
            assert length == (1 + slot % CONTROL if control else 0)
            yield address, int.from_bytes(sockaddr[2:4], "big"), ctypes.string_at(base, octets), slot
