"""What the readers of past queries have in common: how text becomes names, addresses and times, how a query finds its
answer, and the ledger of what could not be read.

A log is input that strangers can write to: a client chooses the names in it, and a file can be cut, damaged or forged.
So a reader gives a query or writes into the ledger, record by record, and never stops in between.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from resolver.hot import _scan_cy as scan
from resolver.policy.preview import Asked
from resolver.wire import name as names
from resolver.wire.codes import rtype_from_text
from resolver.wire.message import HEADER_OCTETS, OPCODE, QR, WireError, read_reply

MAX_RECORD_OCTETS = 1 << 20  # a line, frame, packet or value; two DNS messages in base64 are far below it
END_OF_TIME = 253_402_300_800.0  # 10000-01-01T00:00:00Z, in Unix seconds
KEPT_EXAMPLES = 3
_SHOWN_OCTETS = 120
_WAITING_QUERIES = 65_536  # that wait for their answers; about 25 MB


class PastError(Exception):
    """A log that can not be read at all; the message says what to do about it."""


class Reason(StrEnum):
    """Why something in a log is not among the queries."""

    OTHER = "not-a-query"
    MALFORMED = "malformed"
    CUT = "cut-short"
    TOO_LONG = "too-long"
    NAME_HIDDEN = "name-hidden"
    FRAGMENT = "fragment"
    SPLIT = "tcp-split"
    LINK = "link-type"
    LOST = "lost-before"
    NO_TIME = "no-time"
    DAMAGED = "damaged"
    UNREADABLE = "unreadable"

    @property
    def meaning(self) -> str:
        """The reason, for people."""
        return _MEANING[self]


_MEANING = {
    Reason.OTHER: "about something else than a client's query",
    Reason.MALFORMED: "not as the format has it",
    Reason.CUT: "cut short",
    Reason.TOO_LONG: "longer than any sound record",
    Reason.NAME_HIDDEN: "the log does not tell the name",
    Reason.FRAGMENT: "a fragment of a packet",
    Reason.SPLIT: "a TCP segment that does not hold whole messages",
    Reason.LINK: "a link type that is not read",
    Reason.LOST: "hits that the log says were lost before they could be stored",
    Reason.NO_TIME: "without a time, so neither inside nor outside the time asked for",
    Reason.DAMAGED: "a file that is damaged from some place on",
    Reason.UNREADABLE: "a file that can not be read, or of no format that is known",
}


@dataclass(frozen=True, slots=True)
class Example:
    """Where something could not be read, `FILE:RECORD`, and how it begins, printable."""

    place: str
    text: str


@dataclass(frozen=True, slots=True)
class Unread:
    """How much was not read for one reason, and the first examples."""

    reason: Reason
    count: int
    first: tuple[Example, ...]


class Ledger:
    """Counts what could not be read, over all files."""

    def __init__(self) -> None:
        self.file = ""
        self._counts: dict[Reason, int] = {}
        self._first: dict[Reason, list[Example]] = {}

    def add(self, reason: Reason, record: int, octets: bytes | str = b"", count: int = 1) -> None:
        """Enter something that is not among the queries.

        Args:
            reason: Why.
            record: Number of the line or record in `file`, from 1; 0 for the file as a whole.
            octets: How it begins, or what is wrong with it.
            count: How many records that stands for.
        """
        self._counts[reason] = self._counts.get(reason, 0) + count
        first = self._first.setdefault(reason, [])
        if len(first) < KEPT_EXAMPLES:
            place = f"{self.file}:{record}" if record else self.file
            first.append(Example(printable(place, 1000), printable(octets)))

    def unread(self) -> tuple[Unread, ...]:
        """Everything entered, by reason, in the order of `Reason`."""
        return tuple(
            Unread(reason, self._counts[reason], tuple(self._first[reason]))
            for reason in Reason
            if reason in self._counts
        )


def printable(octets: bytes | str, limit: int = _SHOWN_OCTETS) -> str:
    """Text without anything that a terminal acts on, at most `limit` characters and an ellipsis."""
    text = octets[: limit + 1].decode("utf-8", "replace") if isinstance(octets, bytes) else octets
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:limit])
    return shown + ("…" if len(text) > limit else "")


# ---- from text ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=16_384)
def packed(text: str) -> bytes | None:
    """The packed form of an address in text, a mapped IPv4 address as IPv4; None for anything else."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.packed
    return address.packed


def packed_from(octets: bytes) -> bytes | None:
    """A packed address as it stands in a message, a mapped IPv4 address as IPv4; None for another length."""
    if len(octets) == 16 and octets.startswith(_MAPPED):
        return octets[12:]
    return octets if len(octets) in (4, 16) else None


_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96 (RFC 4291 §2.5.5.2)


@lru_cache(maxsize=16_384)
def wire_name(text: str) -> bytes | None:
    """The lower-cased wire form of a name in a log; None for what is no name."""
    try:
        return names.from_text(text)
    except names.BadName:
        return None


@lru_cache(maxsize=1024)
def rtype(text: str) -> int:
    """The number of a type; 0 for a mnemonic that is not known here."""
    try:
        return rtype_from_text(text)
    except ValueError:
        return 0


@lru_cache(maxsize=4096)
def instant(text: str) -> float | None:
    """Unix seconds of an ISO 8601 time, in this machine's time zone where it names none; None for anything else."""
    try:
        return moment(datetime.fromisoformat(text.replace(",", ".")).timestamp())
    except (ValueError, OverflowError, OSError):
        return None


def moment(seconds: object) -> float | None:
    """Unix seconds that a log can mean; None for anything else."""
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < END_OF_TIME:
        return float(seconds)
    return None


_MONTHS = {
    text: i
    for i, text in enumerate(("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1)
}  # as the C locale has them, in which these logs are written


@lru_cache(maxsize=4096)
def bind_time(text: str) -> float | None:
    """Unix seconds of BIND's `22-Nov-2026 16:19:20.123`, in this machine's time zone; None for anything else."""
    day, _, time = text.partition(" ")
    number, _, rest = day.partition("-")
    month, _, year = rest.partition("-")
    return instant(f"{year}-{_MONTHS.get(month, 0):02d}-{number:>02}T{time}")


@lru_cache(maxsize=4096)
def syslog_time(text: str, latest: float) -> float | None:
    """Unix seconds of `Nov 22 16:19:20`, which names no year: the last such moment before `latest` (Unix seconds).

    In this machine's time zone (RFC 3164 §4.1.2: local time). None for anything else.
    """
    month, _, rest = text.partition(" ")
    number, _, time = rest.strip().partition(" ")
    year = datetime.fromtimestamp(latest, UTC).year + 1
    for past in range(9):  # 29 February is eight years away at most
        found = instant(f"{year - past}-{_MONTHS.get(month, 0):02d}-{number:>02}T{time}")
        if found is not None and found <= latest:
            return found
    return None


# ---- from DNS messages ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """What a DNS message tells: `targets` are the names that an answer leads to."""

    id: int
    is_response: bool
    qname: bytes
    qtype: int
    targets: tuple[bytes, ...]


def read_message(message: bytes) -> Told | None:
    """Read the question of a standard query or of its response; None where there is none.

    A response whose records are not well formed still tells what was asked.
    """
    if len(message) < HEADER_OCTETS or message[4:6] != b"\0\1":
        return None
    flags = message[2] << 8 | message[3]
    end = scan.skip_name(message, HEADER_OCTETS, False)
    if flags & OPCODE or end < 0 or end + 4 > len(message):
        return None
    targets: tuple[bytes, ...] = ()
    if flags & QR:
        try:
            question = message[HEADER_OCTETS:end].lower() + message[end : end + 4]
            answer = read_reply(message, message[:HEADER_OCTETS] + question).answer
            targets = answer.aliases + answer.targets
        except WireError:
            targets = ()
    return Told(
        message[0] << 8 | message[1], bool(flags & QR), message[HEADER_OCTETS:end].lower(),
        message[end] << 8 | message[end + 1], targets,
    )  # fmt: skip


class Pairs:
    """Brings a query and its answer together where a log has both, so that they count once.

    A query waits for its answer, and goes without when too many wait; an answer whose query was not seen stands for it.
    """

    def __init__(self, room: int = _WAITING_QUERIES) -> None:
        self._waiting: OrderedDict[Hashable, list[Asked]] = OrderedDict()
        self._room = room
        self._count = 0

    def ask(self, key: Hashable, asked: Asked) -> Iterator[Asked]:
        """Take a query; gives those that waited longest where there are too many."""
        self._waiting.setdefault(key, []).append(asked)
        self._count += 1
        while self._count > self._room:
            _, oldest = self._waiting.popitem(last=False)
            self._count -= len(oldest)
            yield from oldest

    def answer(self, key: Hashable, asked: Asked) -> Asked:
        """Take an answer; returns its query with what the answer led to."""
        waiting = self._waiting.get(key)
        if not waiting:
            return asked
        query = waiting.pop()
        self._count -= 1
        if not waiting:
            del self._waiting[key]
        return replace(query, chain=asked.chain)

    def rest(self) -> Iterator[Asked]:
        """Give all that still wait."""
        while self._waiting:
            yield from self._waiting.popitem(last=False)[1]
        self._count = 0
