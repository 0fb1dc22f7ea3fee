"""The register of devices as workers use it: who is who, by token or client certificate.

One immutable file, made anew with each change, opened by every worker and never written again:

```
INTERDICT DEVICES 1\\n     magic
SHA-256, 32 octets        seal of the three numbers that follow
u64le serial | credentials | octets of records
digests                   credentials × 16 octets, sorted
slots                     credentials × (u32 where its record begins, u64 until when it holds, u32 check)
records                   u32 number | u16 length of name | u8 length of group | name | group, in UTF-8
```

It is made to be mapped: opening reads the head alone, so that it costs the same for ten devices and for a hundred
thousand. What is found is remembered, so that a device that goes on asking costs one look into a dict.

A credential is known by SHA-256 over what it is and what was shown, without salt and without slowness: a token is 130
random bits, which nobody tries out, whatever one trial costs. 16 octets of it are compared. Confusing two credentials
of a hundred thousand has a chance of 2^-95, and who makes up values meets one of their digests after some 2^111 trials.
(Two values of one digest are found in 2^64 trials; but tokens are drawn here, and who may choose the names in
certificates needs no second one.) The check of a slot covers digest, time and record: a damaged octet makes a device
unknown, and never another.
"""

import hashlib
import struct
import zlib
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from typing import Final, NamedTuple

from resolver.policy.client import Credentials

MAGIC: Final = b"INTERDICT DEVICES 1\n"
FOREVER: Final = (1 << 64) - 1  # until when what has no end holds
TOKEN_CHARACTERS: Final = 26  # of base32, in lower case since DNS names come in any: 130 bits

_SEAL = hashlib.sha256().digest_size
_COUNTS = struct.Struct("<3Q")
_HEAD = len(MAGIC) + _SEAL + _COUNTS.size
_DIGEST = 16  # octets that are compared; the docstring says why they are enough
_SLOT = struct.Struct("<IQI")
_RECORD = struct.Struct("<IHB")
_MOST_CHARACTERS = 512  # of what is shown; longer is unknown at once, so that remembering it is bounded too
_MOST_KNOWN = 1 << 14  # remembered a register: some 5 MB
_MOST_STRANGERS = 1 << 10


class RegisterError(Exception):
    """The octets are not a register that this version can read; the message says what is wrong."""


class Proof(StrEnum):
    """What a credential is."""

    TOKEN = "token"
    CERTIFICATE = "certificate"  # known by a name in it


class Means(StrEnum):
    """By what means a client said who it is, the strongest first; the words of answers and metrics."""

    CERTIFICATE = "certificate"
    PATH = "path"
    BEARER = "bearer"
    SERVER_NAME = "server-name"


@dataclass(frozen=True, slots=True)
class Device:
    """A device that is known. `number` is its own for ever: given once, and never again to another."""

    number: int
    name: str
    group: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """A credential was shown that nobody has, or nobody has any more."""

    means: Means


class Entry(NamedTuple):
    """One credential: its digest (of `digest_of`), whose it is, and until when it holds (Unix seconds)."""

    digest: bytes
    device: Device
    until: float = FOREVER


def digest_of(proof: Proof, shown: str) -> bytes:
    """The 32 octets that a credential is known by; letter case does not count, as in the DNS (RFC 4343 §3)."""
    return hashlib.sha256(f"{proof}\0{shown.lower()}".encode("utf-8", "surrogatepass")).digest()


def write_register(entries: Iterable[Entry], serial: int) -> bytes:
    """Lay a register out as octets.

    Args:
        entries: Those that are in force, in any order.
        serial: Counts up with each change.

    Raises:
        ValueError: Two entries have the same digest, or a name or group is too long to be written.
    """
    digests: list[bytes] = []
    slots: list[bytes] = []
    records: list[bytes] = []
    length = 0
    places: dict[int, tuple[int, int]] = {}
    last = b""
    for digest, device, until in sorted(entries, key=itemgetter(0)):
        key = digest[:_DIGEST]
        if key == last:
            raise ValueError(f"two credentials have one digest; one is of {device.name}")
        last = key
        held = places.get(device.number)
        if held is None:
            record = _record(device)
            held = places[device.number] = (length, zlib.crc32(record))
            records.append(record)
            length += len(record)
        place, crc = held
        ends = min(int(until), FOREVER)
        digests.append(key)
        slots.append(_SLOT.pack(place, ends, _check(key, ends, crc)))
    counts = _COUNTS.pack(serial, len(digests), length)
    return b"".join((MAGIC, hashlib.sha256(counts).digest(), counts, *digests, *slots, *records))


class Register:
    """A register, open for reading.

    Attributes:
        serial: Which one it is.
        credentials: How many it holds.
    """

    def __init__(self, octets: memoryview) -> None:
        """Open a register.

        Args:
            octets: The whole file, which nothing writes to.

        Raises:
            RegisterError: Not a register, of another format, cut short, or its head is damaged.
        """
        if bytes(octets[: len(MAGIC)]) != MAGIC:
            raise RegisterError(
                "not a register of devices, or one of another version: `interdict device list` makes it again"
            )
        counts = bytes(octets[len(MAGIC) + _SEAL : _HEAD])
        if hashlib.sha256(counts).digest() != bytes(octets[len(MAGIC) : len(MAGIC) + _SEAL]):
            raise RegisterError("the head of the register of devices does not match its seal: it was damaged")
        self.serial: int
        self.credentials: int
        self.serial, self.credentials, length = _COUNTS.unpack(counts)
        slots = _HEAD + self.credentials * _DIGEST
        records = slots + self.credentials * _SLOT.size
        if len(octets) != records + length:
            raise RegisterError(f"the register of devices has {len(octets)} octets, and should have {records + length}")
        self._digests = _Digests(octets[_HEAD:slots], self.credentials)
        self._slots = octets[slots:records]
        self._records = octets[records:]
        # Apart from each other, so that a flood of made-up tokens drives nothing out but itself. A full one is emptied:
        # what is still used comes back at the price of one search each.
        self._known: dict[Proof, dict[str, tuple[Device, int]]] = {proof: {} for proof in Proof}
        self._strangers: dict[Proof, set[str]] = {proof: set() for proof in Proof}
        self._tokens = self._known[Proof.TOKEN]

    def find(self, proof: Proof, shown: str, at: float) -> Device | None:
        """Whose a credential is at a moment (Unix seconds); None where it is nobody's, or no longer holds."""
        # Hashing a member of an enumeration costs as much as all the rest of this.
        known = self._tokens if proof is Proof.TOKEN else self._known[proof]
        held = known.get(shown)
        if held is None:
            held = self._search(proof, shown)
            if held is None:
                return None
        return held[0] if at < held[1] else None

    def _search(self, proof: Proof, shown: str) -> tuple[Device, int] | None:
        strangers = self._strangers[proof]
        if shown in strangers or len(shown) > _MOST_CHARACTERS:
            return None
        held = self._read(digest_of(proof, shown)[:_DIGEST])
        if held is None:
            if len(strangers) >= _MOST_STRANGERS:
                strangers.clear()
            strangers.add(shown)
            return None
        known = self._known[proof]
        if len(known) >= _MOST_KNOWN:
            known.clear()
        known[shown] = held
        return held

    def _read(self, digest: bytes) -> tuple[Device, int] | None:
        index = bisect_left(self._digests, digest)
        if index == self.credentials or self._digests[index] != digest:
            return None
        place, until, check = _SLOT.unpack_from(self._slots, index * _SLOT.size)
        head = self._records[place : place + _RECORD.size]
        if len(head) != _RECORD.size:
            return None
        number, name_octets, group_octets = _RECORD.unpack(head)
        record = bytes(self._records[place : place + _RECORD.size + name_octets + group_octets])
        if _check(digest, until, zlib.crc32(record)) != check:
            return None
        name, group = record[_RECORD.size :][:name_octets], record[_RECORD.size + name_octets :]
        return Device(number, name.decode("utf-8", "replace"), group.decode("utf-8", "replace")), until


class _Digests:
    """The sorted digests as a sequence, for bisection where they lie."""

    __slots__ = ("_count", "_octets")

    def __init__(self, octets: memoryview, count: int) -> None:
        self._octets = octets
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> bytes:
        return bytes(self._octets[index * _DIGEST : (index + 1) * _DIGEST])


def identify(
    credentials: Credentials | None, register: Register, zones: tuple[str, ...], at: float
) -> Device | Unknown | None:
    """Find out whose device asks.

    A client certificate decides before the token in a DoH path, this before a bearer token, this before the name that
    the client called us by in TLS. The first that was shown settles it: one that is unknown or revoked is never passed
    over for a weaker one, nor for listener and network. Else a revoked device would only have to stay where it is, and
    go on asking as whoever may ask from there, and revoking would be of no effect where it matters most.

    Args:
        credentials: What the client showed.
        zones: The names of this resolver, in lower case without a dot at the end; a token stands one label below.
        at: Unix seconds.

    Returns:
        The device; or what was shown in vain; or None where nothing was shown, and listener and network decide.
    """
    if credentials is None:
        return None
    if credentials.certificate:
        if at >= credentials.until:
            return Unknown(Means.CERTIFICATE)
        # One certificate may carry several names; the first that is known decides, in the order in which they come.
        for name in credentials.certificate:
            device = register.find(Proof.CERTIFICATE, name, at)
            if device is not None:
                return device
        return Unknown(Means.CERTIFICATE)
    if credentials.path_token:
        return register.find(Proof.TOKEN, credentials.path_token, at) or Unknown(Means.PATH)
    if credentials.bearer:
        return register.find(Proof.TOKEN, credentials.bearer, at) or Unknown(Means.BEARER)
    if credentials.server_name and credentials.server_name not in zones:
        token, _, zone = credentials.server_name.partition(".")
        if zone in zones:
            return register.find(Proof.TOKEN, token, at) or Unknown(Means.SERVER_NAME)
    return None


def _record(device: Device) -> bytes:
    name, group = device.name.encode("utf-8", "replace"), device.group.encode("utf-8", "replace")
    if len(name) > 0xFFFF or len(group) > 0xFF:
        raise ValueError(f"the name or group of {device.name[:60]} is too long; give it a shorter one")
    return _RECORD.pack(device.number, len(name), len(group)) + name + group


def _check(digest: bytes, until: int, record: int) -> int:
    """Over a slot; `record` is the CRC-32 of what it leads to."""
    return zlib.crc32(b"%b%d" % (digest, until), record)
