"""The history of the policy: each generation is kept for a time with what it was made of, so that an answer given long
ago can be explained by the very rules of that moment.

```
00000042.generation       the two newest lie here as they are: one is in force, the other was until a moment ago
00000041.generation
00000040.generation.gz    older ones are compressed
00000040.documents.gz     beside each: a line about it, a line with the documents, a line with the states of the zones
```

A file appears whole or not at all: it is written aside, read back, and renamed. What stands beside a generation is
there before it is, and goes after it. So whenever a compile is cut short, the next one finds a sound folder, and sweeps
up. A generation that is replaced keeps its number; one that returns to an earlier policy gets a number of its own.

A generation is in force from when it was compiled until the next one was. Of a clock that went back the later
generation is believed.
"""

import contextlib
import errno
import gzip
import itertools
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from resolver.feeds.files import KINDS
from resolver.policy.additions import Documents
from resolver.policy.generation import Generation, GenerationError
from resolver.policy.zone import ZoneState

_GENERATION, _COMPRESSED, _DOCUMENTS, _ASIDE = ".generation", ".generation.gz", ".documents.gz", ".new"
_PLAIN = 2  # workers that start while a reload is under way open the generation before the newest
_LEVEL = 6  # of a million names 38 MB become 16 in 1.1 s; LZMA saves another 4 % and takes two to three times as long
_FORMAT = 1
_DAMAGE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, zlib.error, GenerationError)


class HistoryError(Exception):
    """The history can not be read; the message says what is wrong and what to do."""


class Damaged(HistoryError):
    """A generation that is asked for can not be read."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much history is kept; the two newest generations stay whatever they say.

    Attributes:
        count: How many generations.
        seconds: How long after it was replaced.
        octets: How much all files may take.
    """

    count: int = 1000
    seconds: float = 400 * 86400.0
    octets: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Kept:
    """A generation that is kept.

    Attributes:
        serial: Its number.
        digest: SHA-256 over the policy, in hex; empty where it is not known.
        compiled_at: Unix seconds, from when it was in force.
        replaced_at: Until when; None for the newest.
        made_by: Who had it made.
        names: How many names it lists.
        octets: What it takes on disk, with what lies beside it.
        damage: What is wrong with it, or empty.
    """

    serial: int
    digest: str
    compiled_at: float
    replaced_at: float | None
    made_by: str
    names: int
    octets: int
    damage: str = ""


@dataclass(frozen=True, slots=True)
class Past:
    """What was in force: the compiled policy, the documents it was made of, and the zones as they were."""

    kept: Kept
    generation: Generation
    documents: Documents
    zones: tuple[ZoneState, ...]


# ---- keeping --------------------------------------------------------------------------------------------------------


def next_serial(folder: Path) -> int:
    """The number for the next generation."""
    return max(_generations(folder), default=0) + 1


def keep(
    folder: Path,
    octets: bytes,
    documents: Documents,
    zones: Sequence[ZoneState],
    at: float,
    bounds: Bounds,
) -> Path:
    """Put a compiled policy into the folder, and return the file to put in force.

    The same policy as the newest file's keeps that file and its serial. Older ones are compressed, and let go where
    they exceed the bounds.

    Args:
        folder: Of generations.
        octets: The generation, numbered by `next_serial`.
        documents: What it was made of.
        zones: What it was made of beside them.
        at: Unix seconds.
        bounds: How much to keep.

    Raises:
        OSError: A file can not be written.
    """
    generation = _opened(octets)
    files = plain_files(folder)
    newest = _opened_file(files[-1]) if files else None
    if newest is not None and newest.digest == generation.digest:
        path = files[-1]
        try:
            _head(folder, newest.serial)
        except _DAMAGE:
            _write(_documents_file(folder, newest.serial), _noted(newest, documents, zones), newest.compiled_at)
    else:
        path = _plain_file(folder, generation.serial)
        _write(_documents_file(folder, generation.serial), _noted(generation, documents, zones), at)
        _write(path, octets, at)
    # The policy is in place, whatever becomes of the old ones: what fails here is tried again next time.
    with contextlib.suppress(OSError, HistoryError):
        _sync(folder)
        _settle(folder, at, bounds)
    return path


def plain_files(folder: Path) -> list[Path]:
    """The generations that are not compressed, oldest first."""
    return sorted(path for path in folder.glob(f"*{_GENERATION}") if path.stem.isdigit())


def _settle(folder: Path, at: float, bounds: Bounds) -> None:
    for left in folder.glob(f"*{_ASIDE}"):
        left.unlink()
    for path in plain_files(folder)[:-_PLAIN]:
        compressed = gzip.compress(path.read_bytes(), _LEVEL, mtime=0)
        _write(path.with_name(path.name + ".gz"), compressed, path.stat().st_mtime)
        path.unlink()
    rows = listing(folder)
    octets = sum(row.octets for row in rows)
    for i, row in enumerate(rows[:-_PLAIN]):
        young = row.replaced_at is not None and row.replaced_at > at - bounds.seconds
        if len(rows) - i <= bounds.count and octets <= bounds.octets and young:
            break
        for path in _generations(folder).get(row.serial, ()):
            path.unlink()
        octets -= row.octets
    known = _generations(folder)
    for path in folder.glob(f"*{_DOCUMENTS}"):
        if _number(path) not in known:
            path.unlink()


def _write(path: Path, octets: bytes, at: float) -> None:
    """Write a file whole or not at all, dated `at` (Unix seconds): the last resort of who can not read it."""
    aside = path.with_name(path.name + _ASIDE)
    with aside.open("wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    if aside.read_bytes() != octets:
        raise OSError(errno.EIO, "what was written is not what is read back")
    os.utime(aside, (at, at))
    aside.replace(path)


def _sync(folder: Path) -> None:
    """Have the renames outlast a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _noted(generation: Generation, documents: Documents, zones: Sequence[ZoneState]) -> bytes:
    head = {
        "format": _FORMAT, "serial": generation.serial, "digest": generation.digest,
        "compiled_at": generation.compiled_at, "made_by": generation.made_by, "names": generation.names,
    }  # fmt: skip
    lines = (head, documents_to_json(documents), [asdict(zone) for zone in zones])
    return gzip.compress(b"".join(json.dumps(line).encode() + b"\n" for line in lines), _LEVEL, mtime=0)


# ---- looking back ---------------------------------------------------------------------------------------------------


def listing(folder: Path) -> list[Kept]:
    """All generations that are kept, oldest first. A folder that is not there has none.

    Raises:
        HistoryError: The folder can not be read.
    """
    try:
        rows = [_row(folder, serial, files) for serial, files in sorted(_generations(folder).items())]
    except OSError as error:
        raise HistoryError(
            f"can not read the generations in {folder} ({error.strerror}); ask as the account that the server runs as"
        ) from None
    ends: Iterator[float | None] = itertools.chain((row.compiled_at for row in rows[1:]), [None])
    return [replace(row, replaced_at=until) for row, until in zip(rows, ends, strict=False)]


def at(folder: Path, moment: float) -> Past | None:
    """What was in force at a moment (Unix seconds); None where no history reaches back so far.

    Raises:
        Damaged: What was in force then can not be read.
        HistoryError: The folder can not.
    """
    rows = [row for row in listing(folder) if row.compiled_at <= moment]
    return _past(folder, rows[-1]) if rows else None


def of_serial(folder: Path, serial: int) -> Past | None:
    """The generation of a number; None where it is not kept.

    Raises:
        Damaged, HistoryError: As `at`.
    """
    row = next((row for row in listing(folder) if row.serial == serial), None)
    return None if row is None else _past(folder, row)


def _row(folder: Path, serial: int, files: Sequence[Path]) -> Kept:
    beside = _documents_file(folder, serial)
    octets = sum(path.stat().st_size for path in (*files, beside) if path.exists())
    try:
        head = _head(folder, serial)
        digest, moment, made_by, names = head["digest"], float(head["compiled_at"]), head["made_by"], head["names"]
        return Kept(serial, str(digest), moment, None, str(made_by), int(names), octets)
    except _DAMAGE as error:
        if isinstance(error, PermissionError):
            raise
        return Kept(serial, "", files[0].stat().st_mtime, None, "", 0, octets, f"{beside.name} is damaged or missing")


def _past(folder: Path, row: Kept) -> Past:
    try:
        if row.damage:
            raise ValueError(row.damage)
        generation = _opened_file(_generations(folder)[row.serial][0])
        if generation is None or (generation.serial, generation.digest) != (row.serial, row.digest):
            raise ValueError("its file is damaged, or from another version")
        with gzip.open(_documents_file(folder, row.serial)) as file:
            _, documents, zones = (json.loads(line) for line in file)
        return Past(row, generation, documents_from_json(documents), tuple(ZoneState(**zone) for zone in zones))
    except _DAMAGE as error:
        raise Damaged(
            f"generation {row.serial}, which was in force then, can not be read: {error}; put its files in {folder} "
            "back from a backup, or ask for the documents as they are today (--current)"
        ) from None


def _generations(folder: Path) -> dict[int, list[Path]]:
    """Serial -> the files that hold it; where a compile was cut short, compressed and not."""
    found: dict[int, list[Path]] = {}
    try:
        files = sorted(folder.iterdir())
    except FileNotFoundError:
        return found
    for path in files:
        if path.name.endswith((_GENERATION, _COMPRESSED)) and (serial := _number(path)) is not None:
            found.setdefault(serial, []).append(path)
    return found


def _number(path: Path) -> int | None:
    written = path.name.partition(".")[0]
    return int(written) if written.isdecimal() else None


def _plain_file(folder: Path, serial: int) -> Path:
    return folder / f"{serial:08d}{_GENERATION}"


def _documents_file(folder: Path, serial: int) -> Path:
    return folder / f"{serial:08d}{_DOCUMENTS}"


def _head(folder: Path, serial: int) -> Mapping[str, Any]:
    """The line about a generation.

    Raises:
        Any of _DAMAGE: There is none, or none that this version can read.
    """
    with gzip.open(_documents_file(folder, serial)) as file:
        head = json.loads(file.readline())
    if (head["format"], head["serial"]) != (_FORMAT, serial):
        raise ValueError("of another version, or of another generation")
    return dict(head)


def _opened(octets: bytes) -> Generation:
    return Generation(memoryview(bytearray(octets)))


def _opened_file(path: Path) -> Generation | None:
    """The generation in a file, plain or compressed; None where it is damaged."""
    try:
        octets = path.read_bytes()
        generation = _opened(gzip.decompress(octets) if path.name.endswith(".gz") else octets)
        generation.verify()
    except _DAMAGE:
        return None
    return generation


# ---- documents as JSON ----------------------------------------------------------------------------------------------


def documents_to_json(documents: Documents) -> dict[str, list[dict[str, Any]]]:
    """All documents as `json.dumps` takes them: by kind, as in the folders that they were read from."""
    return {sub: [one.model_dump(mode="json") for one in held.values()] for sub, held in _by_kind(documents)}


def documents_from_json(written: Mapping[str, Any]) -> Documents:
    """The documents that `documents_to_json` wrote.

    Raises:
        LookupError, TypeError, ValueError: It did not.
    """
    read = {
        sub.replace("-", "_"): {one.id: one for one in map(kind.model_validate, written[sub])}
        for sub, kind in KINDS.items()
    }
    return Documents(**read)  # type: ignore[arg-type]


def _by_kind(documents: Documents) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for sub in KINDS:
        yield sub, getattr(documents, sub.replace("-", "_"))
