"""What a zone transfer brings, taken in: the records of a copy, less those taken away, and those that are new.

dnspython reads the messages, verifies their signatures and follows the protocol (RFC 1995, RFC 5936). The socket is
emptied while it does: a primary waits only so long for a reader that cannot keep up (Knot DNS half a second), and to
read a message takes longer than to send it.

A copy has a form of its own: the line "interdict zone 1", the zone's name, then each record as TTL and length (four
octets each), and the record: length of the owner (one octet), owner, type (two octets), RDATA. The SOA comes first.
Names and RDATA are in canonical form (RFC 4034 §6.2), so that differences find what they take away.
"""

import asyncio
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

import dns.exception
import dns.message
import dns.name
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.transaction
import dns.xfr

from resolver.feeds.copies import FeedError
from resolver.policy.rpz import RpzReader, RpzReport
from resolver.policy.zone import PolicyZone
from resolver.wire.codes import Rtype

# Silence between two messages of a transfer that goes on.
SILENCE_S = 30.0

Progress = Callable[[int, int], None]
"""Called now and then with how many records came and how many the zone had before (0 where that is not known)."""

_RECORDS_BETWEEN_PROGRESS = 5000

_MAGIC = b"interdict zone 1\n"
_RECORD = struct.Struct("!II")
_SOA_NUMBERS = struct.Struct("!IIIII")


class Transfer(StrEnum):
    """How a new zone came."""

    AXFR = "AXFR"
    IXFR = "IXFR"


class Unusable(Exception):
    """A primary gave what cannot be used; says why."""


class BadDifference(Unusable):
    """An IXFR does not fit the copy."""


class Soa(NamedTuple):
    """The numbers of an SOA (RFC 1035 §3.3.13)."""

    serial: int
    refresh: int
    retry: int
    expire: int
    minimum: int

    @classmethod
    def of(cls, rdata: bytes) -> "Soa":
        """Read them from the end of what ends in them."""
        return cls(*_SOA_NUMBERS.unpack(rdata[-_SOA_NUMBERS.size :]))


@dataclass(slots=True)
class Zone:
    """The records of a zone: each as in the file, without its TTL, which it maps to."""

    origin: bytes
    records: dict[bytes, int] = field(default_factory=dict)
    soa_record: bytes | None = None

    def soa(self) -> "Soa | None":
        """The numbers of its SOA."""
        return None if self.soa_record is None else Soa.of(self.soa_record)

    def replace_soa(self, record: bytes, ttl: int) -> None:
        """Put an SOA in place of the last one."""
        if self.soa_record is not None:
            del self.records[self.soa_record]
        self.soa_record = record
        self.records[record] = ttl

    def to_octets(self) -> bytes:
        parts = [_MAGIC, self.origin]
        for record, ttl in sorted(self.records.items(), key=lambda item: item[0] != self.soa_record):
            parts.append(_RECORD.pack(ttl, len(record)))
            parts.append(record)
        return b"".join(parts)

    @classmethod
    def from_octets(cls, octets: bytes, most_records: float = math.inf) -> "Zone":
        """Read what `to_octets` wrote; the first record is the SOA.

        Raises:
            FeedError: It is anything else.
        """
        try:
            if not octets.startswith(_MAGIC):
                raise ValueError
            name, length = dns.name.from_wire(octets, len(_MAGIC))
            zone = cls(name.to_digestable())
            i, end = len(_MAGIC) + length, len(octets)
            while i < end and len(zone.records) < most_records:
                ttl, size = _RECORD.unpack_from(octets, i)
                i += _RECORD.size + size
                record = octets[i - size : i]
                if i > end or size < 4 or size < record[0] + 3:
                    raise ValueError
                if zone.records:
                    zone.records[record] = ttl
                elif not record.startswith(_record_start(zone.origin, Rtype.SOA)) or size < 26:
                    raise ValueError
                else:
                    zone.replace_soa(record, ttl)
        except (ValueError, struct.error, dns.exception.DNSException):
            raise _damaged() from None
        if zone.soa_record is None:
            raise _damaged()
        return zone

    def read(self) -> tuple[PolicyZone, RpzReport]:
        """The zone as policy.

        Raises:
            FeedError: An owner is no name: the copy that this was read from is damaged.
        """
        reader = RpzReader(self.origin)
        try:
            for owner, rtype, ttl, rdata in self._split():
                reader.add(owner, rtype, ttl, rdata)
        except IndexError:
            raise _damaged() from None
        return reader.finish()

    def _split(self) -> Iterator[tuple[bytes, int, int, bytes]]:
        for record, ttl in self.records.items():
            end = record[0] + 1
            yield record[1:end], int.from_bytes(record[end : end + 2], "big"), ttl, record[end + 2 :]


def _damaged() -> FeedError:
    return FeedError("the copy of the zone is damaged; the next refresh takes the zone whole")


def _record_start(owner: bytes, rtype: int) -> bytes:
    return bytes([len(owner)]) + owner + rtype.to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one transfer may cost: octets of records in the form of the copy, and seconds in all."""

    max_octets: int
    timeout: float


def receive(
    host: str,
    port: int,
    query: dns.message.QueryMessage,
    base: Zone | None,
    limits: Limits,
    progress: Progress | None = None,
) -> tuple[Zone, Transfer] | None:
    """Ask for a transfer, and take in what comes.

    Not to be called from an event loop's own thread.

    Args:
        host: Address of the primary.
        port: Its TCP port.
        query: For AXFR or IXFR, with its SOA, and signed where the answer is to be.
        base: With an IXFR: what the differences are to.
        limits: Behind which the primary is cut off.
        progress: Told records.

    Returns:
        The zone and how it came; None where the primary says that nothing changed.

    Raises:
        Unusable: What came is too much, or no answer to the query.
        DNSException: It breaks the protocol, is refused or is not signed as it should be.
        OSError: The network, or the time is over.
        EOFError: The primary hung up.
        ValueError: A record is malformed.
        struct.error: Likewise.
    """
    inbox = _Inbox(query.question[0].name, base, limits.max_octets, progress)
    asyncio.run(_receive(host, port, query, inbox, limits))
    if inbox.zone is None:
        return None
    return inbox.zone, Transfer.AXFR if inbox.is_whole else Transfer.IXFR


async def _receive(host: str, port: int, query: dns.message.QueryMessage, inbox: "_Inbox", limits: Limits) -> None:
    is_ixfr = query.question[0].rdtype == dns.rdatatype.IXFR
    serial = dns.xfr.extract_serial_from_query(query)
    async with asyncio.timeout(limits.timeout):
        reader, writer = await asyncio.open_connection(host, port, limit=limits.max_octets)
        try:
            octets = query.to_wire()
            writer.write(len(octets).to_bytes(2, "big") + octets)
            with dns.xfr.Inbound(inbox, query.question[0].rdtype, serial) as inbound:
                earlier: dns.message.Message | None = None
                done = False
                while not done:
                    async with asyncio.timeout(SILENCE_S):
                        octets = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                    message = dns.message.from_wire(
                        octets,
                        keyring=query.keyring,
                        request_mac=query.mac,
                        xfr=True,
                        tsig_ctx=None if earlier is None else earlier.tsig_ctx,
                        multi=True,
                        one_rr_per_rrset=is_ixfr,
                    )
                    if not query.is_response(message, xfr_continuation=earlier is not None):
                        raise Unusable("it sent something else than an answer")
                    done = inbound.process_message(message)
                    earlier = message
                    await asyncio.sleep(0)  # a turn for the socket, which the message just read kept waiting
        finally:
            writer.close()


class _Inbox(dns.transaction.TransactionManager):
    """Where dnspython puts what a transfer brings; `zone` is there when it is complete."""

    def __init__(self, origin: dns.name.Name, held: Zone | None, max_octets: int, progress: Progress | None) -> None:
        self.origin = origin
        self.held = held
        self.max_octets = max_octets
        self.progress = progress
        self.zone: Zone | None = None
        self.is_whole = False

    def writer(self, replacement: bool = False) -> dns.transaction.Transaction:
        """Begin; anew where an IXFR turns out to be answered with the whole zone."""
        self.is_whole = replacement
        return _Intake(self, replacement)

    def origin_information(self) -> tuple[dns.name.Name | None, bool, dns.name.Name | None]:
        """Names stay absolute."""
        return self.origin, False, self.origin

    def get_class(self) -> dns.rdataclass.RdataClass:
        """Zones of policy are of class IN."""
        return dns.rdataclass.IN


class _Intake(dns.transaction.Transaction):
    """The records of one transfer: those of the copy, less those taken away, and those that are new."""

    def __init__(self, inbox: _Inbox, replacement: bool) -> None:
        super().__init__(inbox, replacement)
        self._inbox = inbox
        self._zone = Zone(inbox.origin.to_digestable())
        if inbox.held is not None and not replacement:
            self._zone = replace(inbox.held, records=dict(inbox.held.records))
        self._octets = 0
        self._count = 0

    def add(self, name: dns.name.Name, rdataset: dns.rdataset.Rdataset) -> None:
        """Take records in."""
        for record in self._records(name, rdataset):
            self._zone.records[record] = rdataset.ttl

    def delete_exact(self, name: dns.name.Name, rdataset: dns.rdataset.Rdataset) -> None:
        """Take records away, which must be there."""
        for record in self._records(name, rdataset):
            if self._zone.records.pop(record, None) is None:
                raise BadDifference("a difference takes away a record that the copy has not")

    def replace(self, name: dns.name.Name, rdataset: dns.rdataset.Rdataset) -> None:
        """Put a new SOA in place of the last."""
        for record in self._records(name, rdataset):
            self._zone.replace_soa(record, rdataset.ttl)

    def _records(self, name: dns.name.Name, rdataset: dns.rdataset.Rdataset) -> Iterator[bytes]:
        if rdataset.rdclass != dns.rdataclass.IN:
            raise Unusable("a record is not of class IN")
        start = _record_start(name.to_digestable(), rdataset.rdtype)
        for rdata in rdataset:
            record = start + rdata.to_digestable()
            self._octets += _RECORD.size + len(record)
            if self._octets > self._inbox.max_octets:
                # No FormError: to ask for the whole zone then would bring as much again.
                raise Unusable(f"the transfer is larger than {self._inbox.max_octets} octets; raise the limit")
            self._count += 1
            if self._inbox.progress is not None and self._count % _RECORDS_BETWEEN_PROGRESS == 0:
                self._inbox.progress(self._count, len(self._inbox.held.records) if self._inbox.held else 0)
            yield record

    def _end_transaction(self, commit: bool) -> None:
        if commit:
            self._inbox.zone = self._zone
