"""Queries of the past, whatever program wrote them down: the logs that `interdict preview` replays.

Which format a file has is found out from its content, compressed or not (gzip, xz); names of files mean nothing. Files
are read once from beginning to end and never held in memory.

    past.py            which files, which format, within what time     (this page)
    past_text.py       lines: Unbound, BIND, dnsmasq, AdGuard Home, this product's JSON Lines
    past_tables.py     SQLite: Pi-hole, this product's hits
    past_packets.py    DNS messages: dnstap, pcap, pcapng
    past_ledger.py     what they have in common, and what could not be read
"""

import gzip
import io
import lzma
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final

from resolver.evidence import past_packets, past_tables, past_text
from resolver.evidence.past_ledger import END_OF_TIME, Ledger, PastError, Reason, printable
from resolver.policy.preview import Asked

_HEAD_OCTETS: Final = 65_536  # of a text that are looked at for its format
_XZ_MEMORY_OCTETS: Final = 256 << 20  # `xz -9` needs 65 MiB to unpack; a forged file can ask for 4 GiB
_DAY_S: Final = 86_400
_GZIP, _XZ = b"\x1f\x8b", b"\xfd7zXZ\x00"
_OTHER_PACKED: Final = {b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "unzip"}
_COMPANIONS: Final = ("-wal", "-shm", "-journal")  # of a SQLite database, read with it
_UNPACKING_ERRORS: Final = (EOFError, OSError, zlib.error, lzma.LZMAError)


class Format(StrEnum):
    """What a log can be. HITS is this product's own evidence, in either form, and holds hits only."""

    HITS = "hits"
    PIHOLE = "pihole"
    ADGUARD = "adguard"
    DNSTAP = "dnstap"
    UNBOUND = "unbound"
    BIND = "bind"
    DNSMASQ = "dnsmasq"
    PCAP = "pcap"
    PCAPNG = "pcapng"


@dataclass(slots=True)
class Source:
    """A file that was read: how many queries it gave, before any was left out for its time."""

    path: str
    format: Format
    queries: int = 0
    is_database: bool = False


class Past:
    """All queries of some logs, in the order of the files.

    Attributes:
        sources: The files read, the one that is being read last.
        ledger: What could not be read.
        outside: How many queries were left out for their time.
        octets: How large all files are together, as they lie on the disk.
        done: How much of that is read.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        format: Format | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> None:
        """Look for the files; nothing is read yet.

        Args:
            paths: Files, and folders for all files below them.
            format: What all files are; None to find out for each.
            since: Unix seconds; queries from before are left out.
            until: Unix seconds; queries from then on are left out.

        Raises:
            PastError: A path leads to no file and no folder.
        """
        self._format, self._since, self._until = format, since, until
        # A log that is named and lies in a folder that is named counts once.
        unique: dict[Path, tuple[Path, int, bool]] = {}
        for path in paths:
            for found in _files(path):
                unique.setdefault(found[0].resolve(), found)
        self._files = list(unique.values())
        self.sources: list[Source] = []
        self.ledger = Ledger()
        self.outside = 0
        self.octets = sum(size for _, size, _ in self._files)
        self.done = 0

    def __iter__(self) -> Iterator[Asked]:
        """Give the queries.

        Raises:
            PastError: A file that was named, not found in a folder, can not be read at all.
        """
        before = 0
        for path, size, is_named in self._files:
            self.ledger.file = printable(str(path), 1000)
            try:
                yield from self._within(self._queries(path, before, size))
            except PastError as error:
                if is_named:
                    raise
                self.ledger.add(Reason.UNREADABLE, 0, str(error).removeprefix(f"{path}: "))
            before += size
            self.done = before

    def _within(self, queries: Iterator[Asked]) -> Iterator[Asked]:
        if self._since is None and self._until is None:
            yield from queries
            return
        since = 0.0 if self._since is None else self._since
        until = END_OF_TIME if self._until is None else self._until
        for asked in queries:
            if asked.at is None:
                self.ledger.add(Reason.NO_TIME, 0)
            elif since <= asked.at < until:
                yield asked
            else:
                self.outside += 1

    def _queries(self, path: Path, before: int, size: int) -> Iterator[Asked]:
        head, is_packed, written = _beginning(path)
        if not head:
            return
        is_database = head.startswith(past_tables.MAGIC)
        if is_database and is_packed:
            raise PastError(f"{path}: a database is not read while it is packed; unpack it and give the result")
        form = self._format or _sniff(path, head)
        if form is None:
            raise PastError(_unknown(path, head))
        if is_database and form not in _TABLES:
            raise PastError(f"{path}: this is an SQLite database, not {form.value}; leave --format out")
        source = Source(self.ledger.file, form, is_database=is_database)
        self.sources.append(source)
        if is_database:

            def told(row: int, rows: int) -> None:
                self.done = before + int(size * max(0.0, min(1.0, row / max(1, rows))))

            for asked in _TABLES[form](path, self.ledger, told):
                source.queries += 1
                yield asked
            return
        with closing(_open(path)) as raw:
            unpacked = _Unpacked(raw)
            for asked in _read(form, _buffered(unpacked), self.ledger, written + _DAY_S):
                source.queries += 1
                if source.queries % 1024 == 0:
                    self.done = before + raw.tell()
                yield asked
            if unpacked.damage:
                self.ledger.add(Reason.DAMAGED, 0, f"after {source.queries} queries: {unpacked.damage}")


def _files(path: Path) -> list[tuple[Path, int, bool]]:
    """(file, its octets, whether it was named itself)."""
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode):
            return [(path, found.st_size, True)]
        if stat.S_ISDIR(found.st_mode):
            inside = sorted(file for file in path.rglob("*") if file.is_file())
            databases = {str(file) for file in inside}
            return [
                (file, file.stat().st_size, False)
                for file in inside
                if not any(str(file).endswith(end) and str(file)[: -len(end)] in databases for end in _COMPANIONS)
            ]
    except OSError as error:
        raise PastError(f"{path}: {error.strerror}; give a log, or a folder of logs, that this user may read") from None
    raise PastError(f"{path}: this is neither a file nor a folder; write what it gives into a file first")


def _open(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise PastError(f"{path}: {error.strerror}; give a log that this user may read") from None


class _Unpacked(io.RawIOBase):
    """A file, unpacked where it is packed. It ends where it is damaged, and `damage` says how: who reads it is not torn
    from what he has read already."""

    def __init__(self, raw: io.BufferedReader) -> None:
        magic = raw.read(6)
        raw.seek(0)
        self._inner: io.BufferedReader | gzip.GzipFile = raw
        if magic.startswith(_GZIP):
            self._inner = gzip.GzipFile(fileobj=raw)
        elif magic == _XZ:
            self._inner = io.BufferedReader(_Unxz(raw))
        self.is_packed = self._inner is not raw
        self.damage = ""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        try:
            octets = b"" if self.damage else self._inner.read1(len(buffer))
        except _UNPACKING_ERRORS as error:
            self.damage = str(error) or type(error).__name__
            return 0
        buffer[: len(octets)] = octets
        return len(octets)


def _buffered(unpacked: _Unpacked) -> BinaryIO:
    return io.BufferedReader(unpacked, _HEAD_OCTETS)


class _Unxz(io.RawIOBase):
    """An xz file unpacked, with a limit to the memory that it may ask for; `lzma.LZMAFile` knows none."""

    def __init__(self, raw: io.BufferedReader) -> None:
        self._raw = raw
        self._unpacker: lzma.LZMADecompressor | None = None
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        while True:
            if self._unpacker is None:
                # Another stream may follow (xz(1), "Concatenation"), after zeros that pad it.
                self._rest = self._rest.lstrip(b"\0") or self._raw.read(io.DEFAULT_BUFFER_SIZE).lstrip(b"\0")
                if not self._rest:
                    return 0
                self._unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_OCTETS)
            if self._unpacker.needs_input and not self._rest:
                self._rest = self._raw.read(io.DEFAULT_BUFFER_SIZE)
                if not self._rest:
                    raise EOFError("the packed file ends too early")
            octets = self._unpacker.decompress(self._rest, len(buffer))
            self._rest = b""
            if self._unpacker.eof:
                self._rest, self._unpacker = self._unpacker.unused_data, None
            if octets:
                buffer[: len(octets)] = octets
                return len(octets)


def _beginning(path: Path) -> tuple[bytes, bool, float]:
    """The first octets of a file, unpacked; whether it was packed; and when it was last written, Unix seconds."""
    with closing(_open(path)) as raw:
        unpacked = _Unpacked(raw)
        head = _buffered(unpacked).read(_HEAD_OCTETS)
        if unpacked.damage and not head:
            raise PastError(f"{path}: {unpacked.damage}; it is damaged from the start, fetch it again")
        return head, unpacked.is_packed, max(0.0, os.fstat(raw.fileno()).st_mtime)


_TABLES: Final = {Format.HITS: past_tables.read_hit_table, Format.PIHOLE: past_tables.read_pihole}


def _sniff(path: Path, head: bytes) -> Format | None:
    if past_packets.is_pcap(head):
        return Format.PCAP
    if past_packets.is_pcapng(head):
        return Format.PCAPNG
    if past_packets.is_dnstap(head):
        return Format.DNSTAP
    is_database = head.startswith(past_tables.MAGIC)
    found = past_tables.sniff_tables(path) if is_database else past_text.sniff_lines(head)
    return None if found is None else Format(found)


def _unknown(path: Path, head: bytes) -> str:
    for magic, program in _OTHER_PACKED.items():
        if head.startswith(magic):
            return f"{path}: packed in a way that is not read; unpack it with {program} and give the result"
    return (
        f"{path}: nothing at its beginning tells its format; name it with --format "
        f"({', '.join(form.value for form in Format)}), or give another file"
    )


def _read(form: Format, stream: BinaryIO, ledger: Ledger, latest: float) -> Iterator[Asked]:
    match form:
        case Format.UNBOUND:
            return past_text.read_unbound(stream, ledger, latest)
        case Format.BIND:
            return past_text.read_bind(stream, ledger, latest)
        case Format.DNSMASQ:
            return past_text.read_dnsmasq(stream, ledger, latest)
        case Format.ADGUARD:
            return past_text.read_adguard(stream, ledger)
        case Format.HITS:
            return past_text.read_hits(stream, ledger)
        case Format.DNSTAP:
            return past_packets.read_dnstap(stream, ledger)
        case Format.PCAP:
            return past_packets.read_pcap(stream, ledger)
        case Format.PCAPNG:
            return past_packets.read_pcapng(stream, ledger)
        case Format.PIHOLE:
            raise PastError(f"{ledger.file}: this is no SQLite database; give Pi-hole's pihole-FTL.db, unpacked")
