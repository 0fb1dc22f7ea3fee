"""Hits for good: SQLite for questions, JSON Lines for shipping elsewhere; each spooled hit in each of them exactly
once.

Exactly once rests on one transaction. It holds the hits, how far each spool segment is committed, and how long each
JSON Lines file is with these hits in it. The order of a `put`:

    1  a JSON Lines file that is new is registered with the length it has, in a transaction of its own
    2  lines are written behind the registered length, then fdatasync
    3  BEGIN, hits, positions, new lengths, COMMIT
    4  the caller lets the spool go: `sync` (the write-ahead log reaches the disk), then the segment is unlinked

A process that dies before 3 leaves lines beyond the registered length: the next start cuts them off, and the spool
brings the hits again. One that dies after 3 finds the positions moved. Lines are on disk before the length that counts
them, and a segment is unlinked only when its transaction is, so a power failure does no more harm than that.

With no SQLite store asked for, positions and lengths live in a small database beside the JSON Lines files.

A store of an earlier schema is brought up to date when it is opened for writing, in one transaction.
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Final
from urllib.parse import quote

from resolver.observe.record import Gap, Hit
from resolver.observe.spool import Chunk

SCHEMA_VERSION: Final = 2
POSITIONS_FILE: Final = "positions.sqlite"

# SQLite waits this long for another writer (an auditor's VACUUM, say) before `put` gives up and the spool grows.
_BUSY_S = 1.0
# 16 MiB of log between checkpoints: fewer of them make a flood of hits measurably cheaper.
_CHECKPOINT_PAGES = 4000
_DAY_S = 86_400

# `hit.id` is no AUTOINCREMENT, which costs a tenth of the rate; `expire` keeps the newest row instead, so that an id is
# never given twice and `HitLog.after` misses nothing. An index by device would cost 1.7 µs a hit, where all the
# rest of the row takes 5.1: who asks for one device asks for a time too, or waits for a scan.
_SCHEMA = """
CREATE TABLE hit (
    id INTEGER PRIMARY KEY,
    time_us INTEGER NOT NULL,
    node TEXT NOT NULL,
    client TEXT NOT NULL,
    port INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    client_group TEXT NOT NULL,
    transport TEXT NOT NULL,
    qname TEXT NOT NULL,
    qtype TEXT NOT NULL,
    order_id TEXT NOT NULL,
    app TEXT NOT NULL,
    rule TEXT NOT NULL,
    action TEXT NOT NULL,
    rcode TEXT NOT NULL,
    ede INTEGER,
    mode TEXT NOT NULL,
    device TEXT NOT NULL DEFAULT ''
);
CREATE INDEX hit_time ON hit (time_us);
CREATE INDEX hit_order ON hit (order_id, time_us);
CREATE INDEX hit_client ON hit (client, time_us);
CREATE INDEX hit_qname ON hit (qname, time_us);
CREATE TABLE gap (
    id INTEGER PRIMARY KEY,
    from_us INTEGER NOT NULL,
    to_us INTEGER NOT NULL,
    node TEXT NOT NULL,
    lost INTEGER NOT NULL
);
CREATE INDEX gap_time ON gap (to_us);
CREATE TABLE position (segment TEXT PRIMARY KEY, octets INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE jsonl (name TEXT PRIMARY KEY, octets INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE stored (sink TEXT PRIMARY KEY, hits INTEGER NOT NULL) WITHOUT ROWID;
"""
# What brings a store from each earlier schema to the next. A column with a constant default is added without touching a
# row, so years of hits take no longer than none.
_STEPS: Final = {1: "ALTER TABLE hit ADD COLUMN device TEXT NOT NULL DEFAULT '';"}
_HIT_COLUMNS = (
    "time_us, client, port, generation, client_group, transport, qname, qtype, order_id, app, rule, action, rcode, "
    "ede, mode, device"
)
_HIT_COLUMNS_1 = _HIT_COLUMNS.replace("device", "''")
_KEYS_BEFORE_QNAME = ("node", "generation", "group", "transport", "qname")
_KEYS_AFTER_QNAME = ("qtype", "order", "app", "rule", "action", "rcode", "ede", "mode", "device")
# Rows inserted by one statement, which costs two thirds of as many statements; a SQLite of before 2020 takes 999
# variables, and these are 960.
_ROWS = 60


class StoreError(Exception):
    """Nothing of this call was stored; the same call may succeed later. The message says what to look at."""


class Store:
    """The one writer of the evidence.

    Args:
        node: The name of this machine in every row and line.
        sqlite: The database file, made if it is not there; None for none.
        jsonl: The folder of `hits-YYYY-MM-DD.jsonl`, by the day of the hit in UTC; None for none.

    Raises:
        StoreError: A sink cannot be opened.
    """

    def __init__(self, node: str, sqlite: Path | None, jsonl: Path | None) -> None:
        self._node = node
        self._has_rows = sqlite is not None
        self._folder = jsonl
        self._lines = _line_maker(node)
        # A constant of the statement: binding it again for every row would copy each row to add it. Quoted as SQL
        # quotes.
        literal = "'" + node.replace("\0", "").replace("'", "''") + "'"
        row = f"({'?,' * len(Hit._fields)} {literal})"
        # A statement that fails takes the transaction with it, as `put` wants: so SQLite keeps no copies of pages for
        # undoing the statement alone.
        self._insert_hit = f"INSERT OR ROLLBACK INTO hit ({_HIT_COLUMNS}, node) VALUES {row}"
        self._insert_hits = self._insert_hit + f", {row}" * (_ROWS - 1)
        self._insert_gap = f"INSERT INTO gap (lost, from_us, to_us, node) VALUES (?, ?, ?, {literal})"
        if sqlite is not None:
            self._path = str(sqlite)
        elif jsonl is not None:
            self._path = str(jsonl / POSITIONS_FILE)
        else:
            self._path = ":memory:"
        try:
            if self._path != ":memory:":
                # Evidence names people's devices: not for everyone's eyes, whatever the umask.
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640))
            self._db = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{self._path}: {error}; make the folder and let this user write there") from error
        try:
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            self._db.close()
            raise StoreError(f"{self._path}: {error}") from error
        except StoreError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the database; nothing is pending."""
        self._db.close()

    def positions(self) -> dict[str, int]:
        """Up to where each spool segment is committed."""
        try:
            return dict(self._db.execute("SELECT segment, octets FROM position"))
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error

    def stored(self) -> dict[str, int]:
        """How many hits each sink (`sqlite`, `jsonl`) took since its database was made."""
        try:
            return dict(self._db.execute("SELECT sink, hits FROM stored"))
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error

    def put(self, chunks: Sequence[Chunk]) -> None:
        """Store the records of some chunks and their positions: all of them, or none.

        Raises:
            StoreError: Disk full, database locked, folder gone. Call again later with the same chunks.
        """
        hits = [record for chunk in chunks for record in chunk.records if isinstance(record, Hit)]
        gaps = [record for chunk in chunks for record in chunk.records if isinstance(record, Gap)]
        lengths: list[tuple[int, str]] = []
        try:
            if self._folder is not None:
                lengths = self._write_lines(self._folder, hits, gaps)
            self._db.execute("BEGIN IMMEDIATE")
            if self._has_rows:
                self._insert(hits)
                self._db.executemany(self._insert_gap, gaps)
                self._count("sqlite", len(hits))
            if self._folder is not None:
                self._count("jsonl", len(hits))
            self._db.executemany(
                "INSERT INTO position VALUES (?, ?) ON CONFLICT (segment) DO UPDATE SET octets = excluded.octets",
                [(chunk.segment, chunk.end) for chunk in chunks],
            )
            self._db.executemany("UPDATE jsonl SET octets = ? WHERE name = ?", lengths)
            self._db.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            self._roll_back()
            raise StoreError(f"hits are not stored: {error}; see who fills the disk or holds {self._path}") from error

    def sync(self) -> None:
        """Bring what is committed to the disk, so that its spool segments may go.

        Raises:
            StoreError: The disk refuses.
        """
        try:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error

    def forget(self, segments: Iterable[str]) -> None:
        """Drop the positions of segments that are gone.

        Raises:
            StoreError: As `put`.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM position WHERE segment = ?", [(name,) for name in segments])
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise StoreError(f"{self._path}: {error}") from error

    def expire(self, before: float, most: int = 2000) -> int:
        """Remove rows of hits before a moment (Unix seconds), at most so many, and JSON Lines files that end before it.

        Returns:
            How many rows went; as many as `most` means that there may be more.

        Raises:
            StoreError: As `put`.
        """
        before_us = int(before * 1_000_000)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            oldest = "SELECT id FROM hit WHERE time_us < ? AND id < (SELECT max(id) FROM hit) ORDER BY time_us LIMIT ?"
            gone = self._db.execute(f"DELETE FROM hit WHERE id IN ({oldest})", (before_us, most)).rowcount
            oldest = "SELECT id FROM gap WHERE to_us < ? ORDER BY to_us LIMIT ?"
            self._db.execute(f"DELETE FROM gap WHERE id IN ({oldest})", (before_us, most))
            if self._folder is not None:
                for (name,) in self._db.execute("SELECT name FROM jsonl").fetchall():
                    if _end_of_day(name) <= before:
                        (self._folder / name).unlink(missing_ok=True)
                        self._db.execute("DELETE FROM jsonl WHERE name = ?", (name,))
            self._db.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            self._roll_back()
            raise StoreError(f"old hits are not removed: {error}") from error
        return gone

    def _prepare(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version not in (0, *_STEPS, SCHEMA_VERSION):
            raise StoreError(
                f"{self._path}: the database has schema {version}, this version writes {SCHEMA_VERSION}; "
                f"move the file away, or run the version that made it"
            )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA cache_size = -65536")  # KiB: the upper levels of the indexes of years of hits
        self._db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        if version != SCHEMA_VERSION:
            steps = _SCHEMA if version == 0 else "".join(_STEPS[v] for v in range(version, SCHEMA_VERSION))
            self._db.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        if self._folder is not None:
            for name, octets in self._db.execute("SELECT name, octets FROM jsonl").fetchall():
                with contextlib.suppress(FileNotFoundError):
                    if os.stat(self._folder / name).st_size > octets:
                        os.truncate(self._folder / name, octets)

    def _insert(self, hits: Sequence[Hit]) -> None:
        whole = len(hits) // _ROWS * _ROWS
        several = (tuple(chain.from_iterable(hits[i : i + _ROWS])) for i in range(0, whole, _ROWS))
        self._db.executemany(self._insert_hits, several)
        self._db.executemany(self._insert_hit, hits[whole:])

    def _write_lines(self, folder: Path, hits: Sequence[Hit], gaps: Sequence[Gap]) -> list[tuple[int, str]]:
        days = self._lines(hits)
        for gap in gaps:
            days.setdefault(_second_text(gap.to_us // 1_000_000)[:10], []).append(_gap_line(self._node, gap))
        names = [(f"hits-{day}.jsonl", lines) for day, lines in sorted(days.items())]
        return [(self._append(folder, name, "".join(lines).encode()), name) for name, lines in names]

    def _append(self, folder: Path, name: str, lines: bytes) -> int:
        # Opened each time: a file that somebody moved or cut in between is then simply another file or another length.
        fd = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            size = os.fstat(fd).st_size
            row = self._db.execute("SELECT octets FROM jsonl WHERE name = ?", (name,)).fetchone()
            if row is None:
                self._db.execute("INSERT INTO jsonl VALUES (?, ?)", (name, size))
                _sync_folder(folder)
                end = size
            else:
                end = min(row[0], size)
                os.ftruncate(fd, end)
            view = memoryview(lines)
            while view:
                written = os.pwrite(fd, view, end)
                view, end = view[written:], end + written
            os.fdatasync(fd)
            return end
        finally:
            os.close(fd)

    def _count(self, sink: str, hits: int) -> None:
        self._db.execute(
            "INSERT INTO stored VALUES (?, ?) ON CONFLICT (sink) DO UPDATE SET hits = hits + excluded.hits",
            (sink, hits),
        )

    def _roll_back(self) -> None:
        # Lines written beyond the registered lengths stay for now: the next `put` or the next start cuts them off.
        with contextlib.suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


@dataclass(frozen=True, slots=True)
class StoredHit:
    """A row: its id, which only grows, the node that answered, and the hit."""

    id: int
    node: str
    hit: Hit


class HitLog:
    """Hits as they are in the database, for reading beside the recorder.

    Raises:
        StoreError: No such database, here and in every method.
    """

    def __init__(self, sqlite: Path) -> None:
        self._path = sqlite
        try:
            self._db = sqlite3.connect(
                f"file:{quote(str(sqlite))}?mode=ro", uri=True, timeout=_BUSY_S, isolation_level=None
            )
        except sqlite3.Error as error:
            raise StoreError(f"{sqlite}: {error}; is this the path of the hit store?") from error

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def recent(self, limit: int) -> list[StoredHit]:
        """The newest hits stored, oldest first."""
        return self._select("ORDER BY id DESC LIMIT ?", limit)[::-1]

    def after(self, id: int, limit: int = 1000) -> list[StoredHit]:
        """Hits stored after the row `id`, oldest first; with the last row's id again, and so on, it follows the
        store."""
        return self._select("WHERE id > ? ORDER BY id LIMIT ?", id, limit)

    def _select(self, condition: str, *values: int) -> list[StoredHit]:
        try:
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            # No recorder brings a copy that an auditor kept up to date, nor writes there.
            columns = _HIT_COLUMNS_1 if version == 1 else _HIT_COLUMNS
            rows = self._db.execute(f"SELECT id, node, {columns} FROM hit {condition}", values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}; is this the path of the hit store?") from error
        return [StoredHit(row[0], row[1], Hit._make(row[2:])) for row in rows]


def _line_maker(node: str) -> Callable[[Iterable[Hit]], dict[str, list[str]]]:
    # Everything but time, client, port and QNAME is the same for many hits: it is encoded once, in bounded caches.
    encode = json.JSONEncoder().encode
    before_qname = ", ".join(f'"{key}": %s' for key in _KEYS_BEFORE_QNAME).removesuffix("%s")
    after_qname = ", " + ", ".join(f'"{key}": %s' for key in _KEYS_AFTER_QNAME) + "}\n"

    @lru_cache(maxsize=4096)
    def before(fields: tuple[object, ...]) -> str:
        return before_qname % (encode(node), *map(encode, fields))

    @lru_cache(maxsize=16384)
    def after(fields: tuple[object, ...]) -> str:
        return after_qname % tuple(map(encode, fields))

    def lines(hits: Iterable[Hit]) -> dict[str, list[str]]:
        """The lines of hits, by their days in UTC."""
        days: dict[str, list[str]] = {}
        second, stamp = -1, ""
        for hit in hits:
            if hit[0] // 1_000_000 != second:
                second = hit[0] // 1_000_000
                text = _second_text(second)
                stamp = f'{{"time": "{text}.'
                day = days.setdefault(text[:10], [])
            day.append(
                f'{stamp}{hit[0] % 1_000_000:06d}Z", "client": "{hit[1]}", "port": {hit[2]}, '
                f"{before(hit[3:6])}{encode(hit[6])}{after(hit[7:])}"
            )
        return days

    return lines


def _gap_line(node: str, gap: Gap) -> str:
    from_text, to_text = _time_text(gap.from_us), _time_text(gap.to_us)
    return json.dumps({"time": to_text, "node": node, "lost": gap.lost, "from": from_text, "to": to_text}) + "\n"


def _time_text(time_us: int) -> str:
    return f"{_second_text(time_us // 1_000_000)}.{time_us % 1_000_000:06d}Z"


@lru_cache(maxsize=4096)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]


def _end_of_day(name: str) -> float:
    day = date.fromisoformat(name.removeprefix("hits-").removesuffix(".jsonl"))
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() + _DAY_S


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
