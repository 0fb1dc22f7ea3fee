"""How many devices met each order's rules of late: counted out of the store, a little at a time.

A device is known by its name, where it has one, and else by its address. What was counted once is not read again: each
look reads the hits that were stored since the one before. The memory that it takes is bounded; what finds no room is
not counted, so the numbers are then too small, and never too large.
"""

import contextlib
import sqlite3
import threading
from collections import Counter
from pathlib import Path
from typing import Final
from urllib.parse import quote

SPAN_S: Final = 86_400.0
_RECENT = (
    "SELECT order_id, CASE device WHEN '' THEN client ELSE device END, max(time_us) FROM hit "
    "WHERE id > ? AND id <= ? AND time_us >= ? GROUP BY 1, 2"
)


class HitDevices:
    """Devices by order, of the hits of the last 24 hours in a SQLite store.

    Args:
        path: The store; it may not be there yet.
        most: Pairs of order and device in memory; so many take some 40 MB.
        rows: Hits that one look reads: a scrape does not wait for the reading of millions.
    """

    def __init__(self, path: Path, *, most: int = 200_000, rows: int = 200_000) -> None:
        self._uri = f"file:{quote(str(path))}?mode=ro"
        self._most, self._rows = most, rows
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], int] = {}
        self._read: int | None = None  # the id of the last hit that was looked at

    def count(self, at: float) -> dict[str, int]:
        """How many devices, by order, at a moment (Unix seconds); while the store can not be read, those known before.

        After a start the hits of the last 24 hours are read, the oldest first, in several looks where there are many.
        Any thread may ask.
        """
        with self._lock:
            return self._count(at)

    def _count(self, at: float) -> dict[str, int]:
        since_us = int((at - SPAN_S) * 1_000_000)
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(self._uri, uri=True)) as db:
            self._look(db, since_us)
        gone = [key for key, time_us in self._seen.items() if time_us < since_us]
        for key in gone:
            del self._seen[key]
        return dict(Counter(order for order, _ in self._seen))

    def _look(self, db: sqlite3.Connection, since_us: int) -> None:
        if self._read is None:
            (first,) = db.execute("SELECT min(id) FROM hit WHERE time_us >= ?", (since_us,)).fetchone()
            if first is None:
                return
            self._read = int(first) - 1
        (last,) = db.execute("SELECT max(id) FROM hit").fetchone()
        until = min(int(last or 0), self._read + self._rows)
        for order, device, time_us in db.execute(_RECENT, (self._read, until, since_us)):
            key = order, device
            if key in self._seen or len(self._seen) < self._most:
                self._seen[key] = max(int(time_us), self._seen.get(key, 0))
        self._read = until
