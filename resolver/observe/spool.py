"""The spool: files between the workers, which must not wait, and the recorder, which may.

    <folder>/w003-1700000000000000.spool      worker 3, opened at that µs; read in the order of the names

A worker appends whole batches of records to its live segment, one write(2) a batch, and holds a flock on that file for
as long as it writes there. The kernel drops the lock when the worker dies, however it dies; so a segment that can be
locked is finished, and can be removed once its last octet is committed. What write(2) took is the kernel's: SIGKILL
loses none of it. There is no fsync here; what a power failure takes of the last seconds is the price of never waiting
for a disk.

Removal and a writer that has just opened the same file cannot meet: the reader unlinks only with the lock held, and the
writer, once it has the lock, looks whether its file still has a name.

Over the limit, or when the disk refuses, hits are counted as lost; when there is room again, a gap record that says how
many and when goes in first. Nothing here reads a clock; `at` is Unix seconds.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from resolver.observe.record import MAX_RECORD_OCTETS, CorruptRecord, Gap, Hit, gap_record, parse_all, whole_records

SEGMENT_OCTETS: Final = 8 * 1024 * 1024
CHUNK_OCTETS: Final = 1024 * 1024
CORRUPT_SUFFIX: Final = ".corrupt"

# How often a writer without room lists the folder or tries the disk again: seldom enough to cost nothing under a flood.
_RESUME_SHARE = 16  # one sixteenth of the limit must be free again
_LOOK_AGAIN_S = 0.25
_SEGMENT_NAME = re.compile(r"w(\d+)-(\d+)\.spool")


class SpoolBusy(OSError):
    """Another process reads this spool."""


class Spool:
    """The writer's side: one per worker process, opened after the fork.

    Nothing is created before the first hit, and no method raises: what cannot be written is counted.

    Attributes:
        spooled: Hits that write(2) took.
        lost: Hits that it did not.

    Args:
        folder: Where the segments of all workers live; it exists.
        worker: This worker's number.
        limit_octets: How much of this worker's hits may wait in the folder.
        segment_octets: A segment that reaches this is closed; at most a quarter of the limit, so that the recorder can
            free room piece by piece.
    """

    def __init__(self, folder: Path, worker: int, limit_octets: int, segment_octets: int = SEGMENT_OCTETS) -> None:
        self.spooled = 0
        self.lost = 0
        self._folder = folder
        self._worker = worker
        self._limit = limit_octets
        self._segment_octets = min(segment_octets, max(limit_octets // 4, 1))
        self._fd = -1
        self._path = ""
        self._size = 0  # of the live segment
        self._room = 0  # what may be appended to it without another thought; 0 while anything is unusual
        self._elsewhere: int | None = None  # octets in own closed segments, at most: only listing the folder lowers it
        self._last_number = 0
        self._looked_at = 0.0
        self._is_failing = False
        self._gap_hits = 0
        self._gap_from = 0.0
        self._gap_to = 0.0

    def append(self, records: bytes, hits: int, at: float) -> None:
        """Append a batch of whole records, `hits` in number, in one write(2); count them as lost if that cannot be."""
        if len(records) <= self._room:
            try:
                written = os.write(self._fd, records)
            except OSError:
                written = 0
            if written == len(records):
                self._size += written
                self._room -= written
                self.spooled += hits
            else:
                self._complete(records, written, hits, at)
        elif hits:
            self._append_after_thought(records, hits, at)

    def close(self, at: float) -> None:
        """Let go of the live segment; a gap still open is recorded even over the limit, as its last sign."""
        if self._gap_hits and (self._fd >= 0 or self._open(at)):
            self._complete(self._gap(), 0, 0, at)
        self._close_segment()

    def _append_after_thought(self, records: bytes, hits: int, at: float) -> None:
        batch = self._gap() + records if self._gap_hits else records
        if self._has_room(len(batch), at):
            self._complete(batch, 0, hits, at)
        else:
            self._lose(hits, at)

    def _complete(self, batch: bytes, written: int, hits: int, at: float) -> None:
        """Write the rest of a batch of which `written` octets are there; it may start with the open gap."""
        start, gaps = self._size, 1 if self._gap_hits else 0
        try:
            while written < len(batch):
                written += os.write(self._fd, batch[written:])
        except OSError:
            # The reader may already have taken the whole records of this batch, so these count as spooled; only the
            # torn one goes. Should that fail too, closing the segment makes it a torn tail, which the reader passes
            # over.
            kept, octets = whole_records(batch, written)
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, start + octets)
            self._advance(octets)
            self._close_segment()
            self._is_failing = True
            self._looked_at = at
            if kept >= gaps:
                self._gap_hits = 0
            kept_hits = max(kept - gaps, 0)
            self.spooled += kept_hits
            self._lose(hits - kept_hits, at)
            return
        self._gap_hits = 0
        self._is_failing = False
        self.spooled += hits
        self._advance(len(batch))

    def _advance(self, octets: int) -> None:
        self._size += octets
        self._room = max(min(self._segment_octets, self._limit - (self._elsewhere or 0)) - self._size, 0)

    def _has_room(self, octets: int, at: float) -> bool:
        """Whether a live segment can take so many octets; opens and rotates, and asks the disk only now and then."""
        if self._fd >= 0 and self._size + octets > self._segment_octets and self._size > 0:
            self._close_segment()
        # Once full, only a good share of room ends the gap: a few octets at a time would make a gap of each look.
        limit = self._limit - self._limit // _RESUME_SHARE if self._gap_hits else self._limit
        if self._elsewhere is None or self._is_failing or self._elsewhere + self._size + octets > limit:
            # A segment that stays live cannot be removed, however well it is drained.
            self._close_segment()
            if self._elsewhere is not None and 0 <= at - self._looked_at < _LOOK_AGAIN_S:
                return False
            self._looked_at = at
            self._elsewhere = self._measure()
            if self._elsewhere + octets > limit:
                return False
        if self._fd >= 0:
            return True
        self._is_failing = not self._open(at)
        return not self._is_failing

    def _measure(self) -> int:
        total = 0
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    name = _SEGMENT_NAME.fullmatch(entry.name)
                    if name is None or int(name[1]) != self._worker:
                        continue
                    self._last_number = max(self._last_number, int(name[2]))
                    try:
                        total += entry.stat().st_size
                    except FileNotFoundError:
                        continue
        except OSError:
            return self._elsewhere or 0
        return total

    def _open(self, at: float) -> bool:
        for _ in range(8):
            self._last_number = max(int(at * 1e6), self._last_number + 1)
            path = str(self._folder / f"w{self._worker:03d}-{self._last_number:016d}.spool")
            try:
                fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            except FileExistsError:
                continue
            except OSError:
                return False
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_nlink > 0:
                    self._fd, self._path, self._size, self._room = fd, path, 0, 0
                    return True
            except BlockingIOError:
                pass  # the reader is looking at the empty file, and will remove it
            except OSError:
                os.close(fd)
                return False
            os.close(fd)
        return False

    def _close_segment(self) -> None:
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):
            if self._size == 0:
                os.unlink(self._path)
        with contextlib.suppress(OSError):
            os.close(self._fd)
        if self._elsewhere is not None:
            self._elsewhere += self._size
        self._fd = -1
        self._size = self._room = 0

    def _lose(self, hits: int, at: float) -> None:
        if hits <= 0:
            return
        if self._gap_hits == 0:
            self._gap_from = at
        self._gap_to = at
        self._gap_hits += hits
        self.lost += hits

    def _gap(self) -> bytes:
        return gap_record(self._gap_hits, int(self._gap_from * 1e6), int(self._gap_to * 1e6))


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records of one segment in a row; committing them moves the segment's position to `end`."""

    segment: str
    end: int
    records: Sequence[Hit | Gap]


class SpoolReader:
    """The recorder's side: one per spool folder, which it locks.

    Attributes:
        torn: Records cut off by the death of their writer, passed over.
        corrupt: Segments set aside as `*.corrupt` because of bytes that no writer makes.
        unreadable: Times that a segment could not be read.

    Args:
        folder: As given to the workers' `Spool`.
        positions: Up to where each segment is committed already, by name.
        chunk_octets: How much is read at a time.

    Raises:
        SpoolBusy: Another process reads this folder.
        OSError: The folder cannot be opened.
    """

    def __init__(self, folder: Path, positions: Mapping[str, int], chunk_octets: int = CHUNK_OCTETS) -> None:
        self.torn = 0
        self.corrupt = 0
        self.unreadable = 0
        self._folder = folder
        self._committed = dict(positions)
        self._torn_tails: set[str] = set()
        self._chunk_octets = max(chunk_octets, 2 * MAX_RECORD_OCTETS)  # a record always fits
        self._folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._folder_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._folder_fd)
            raise SpoolBusy(f"{folder}: another process reads this spool; stop it first") from None

    def close(self) -> None:
        """Let another reader have the folder."""
        os.close(self._folder_fd)

    def segments(self) -> list[str]:
        """The segments that are there, in the order they are read.

        Raises:
            OSError: The folder cannot be listed; so too in the methods that need the list.
        """
        return sorted(name for name in os.listdir(self._folder) if _SEGMENT_NAME.fullmatch(name))

    def chunks(self) -> Iterator[Chunk]:
        """Pass once over all segments, from their committed positions to their ends as they are now.

        Committing may happen between chunks or after the pass; what was not committed comes again in the next pass.
        """
        for name in self.segments():
            try:
                yield from self._chunks_of(name)
            except FileNotFoundError:
                continue
            except OSError:
                self.unreadable += 1

    def commit(self, chunk: Chunk) -> None:
        """Take note that the records of `chunk` are stored."""
        self._committed[chunk.segment] = chunk.end

    def finished(self) -> list[str]:
        """Segments that have no writer any more and are committed to the end."""
        return [name for name in self.segments() if name in self._committed and self._is_finished(name, unlink=False)]

    def remove(self, segments: Sequence[str]) -> None:
        """Remove those of `segments` that are finished."""
        for name in segments:
            if self._is_finished(name, unlink=True):
                self._committed.pop(name, None)
                self._torn_tails.discard(name)

    def _chunks_of(self, name: str) -> Iterator[Chunk]:
        fd = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Before the first read: what a writer appended and then died is all there for the reads that follow.
            has_writer = not _lock(fd)
            if not has_writer:
                fcntl.flock(fd, fcntl.LOCK_UN)
            offset = self._committed.setdefault(name, 0)
            while buffer := os.pread(fd, self._chunk_octets, offset):
                records, end, bad = parse_all(buffer)
                if records:
                    offset += end
                    yield Chunk(name, offset, records)
                    if bad is None or len(buffer) == self._chunk_octets:
                        continue
                if has_writer:
                    return
                if isinstance(bad, CorruptRecord):
                    # Only when nothing read before it waits to be committed: the segment's name is its position's name.
                    if self._committed[name] == offset:
                        self._set_aside(name)
                    return
                if bad is not None:
                    if name not in self._torn_tails:
                        self._torn_tails.add(name)
                        self.torn += 1
                    yield Chunk(name, os.fstat(fd).st_size, [])
                    return
        finally:
            os.close(fd)

    def _set_aside(self, name: str) -> None:
        os.rename(self._folder / name, self._folder / (name + CORRUPT_SUFFIX))
        self._committed.pop(name, None)
        self.corrupt += 1

    def _is_finished(self, name: str, unlink: bool) -> bool:
        path = self._folder / name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if not _lock(fd) or os.fstat(fd).st_size > self._committed.get(name, 0):
                return False
            if unlink:
                os.unlink(path)
            return True
        except OSError:
            return False
        finally:
            os.close(fd)


def folder_octets(folder: Path) -> int:
    """How much a spool folder holds, segments set aside included; 0 when it cannot be read."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    total += entry.stat().st_size
                except OSError:
                    continue
    except OSError:
        return 0
    return total


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
