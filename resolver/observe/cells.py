"""Counters in memory that several processes see: a worker adds, the recorder reads, nobody waits.

A buffer (a mapped file, one per worker) of `capacity` cells:

    capacity × u64 counts, machine byte order | capacity × 248 octets of label: u16le length, then a JSON list of texts

A cell is named by a metric and its labels, found once and then bumped by index: `counts[i] += 1`. Slots fill from the
front. A slot's length is written last and is the moment the cell exists for readers; a cell is never renamed or
removed, so a worker that is started again on the same file goes on counting where its predecessor stopped.

The number of cells is bounded for ever: where no more fit, or labels are too long, the count goes to the cell whose
labels are all `other`. A name that starts with `=` is a gauge: set, not added.

Here too is what workers and readers must agree on: the bounds of histograms, and how the cells of several workers are
put together.
"""

import json
from collections.abc import Iterable, Mapping
from mmap import mmap
from typing import Final

CAPACITY: Final = 4096
_SLOT_OCTETS = 248
_CELL_OCTETS = 8 + _SLOT_OCTETS
_MAX_LABEL_OCTETS = _SLOT_OCTETS - 2
OTHER: Final = "other"

Writable = bytearray | memoryview | mmap
CellCounts = Mapping[tuple[str, ...], int]

# Upper bounds of the upstream latency histogram, seconds; every upstream has all of them, so that they can be added up.
LATENCY_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
# The same of the answers that clients get, most of which are ready within the first.
ANSWER_BUCKETS: Final = (0.0002, *LATENCY_BUCKETS)

# Gauges that every worker has an opinion on; all others add up.
_LOWEST = frozenset({"=generation", "=certificate_expires"})
_HIGHEST = frozenset({"=generation_loaded_at", "=upstream_up"})


class Cells:
    """The writer's side: one process, one thread.

    Args:
        buffer: Writable, `Cells.octets(capacity)` long; zeroed, or left by an earlier `Cells` of the same capacity.

    Raises:
        ValueError: The buffer is of another length.
    """

    def __init__(self, buffer: Writable, capacity: int = CAPACITY) -> None:
        whole = memoryview(buffer).cast("B")
        if len(whole) != self.octets(capacity):
            raise ValueError(f"{capacity} cells take {self.octets(capacity)} octets; the buffer has {len(whole)}")
        self.counts: memoryview = whole[: capacity * 8].cast("Q")
        self._slots = whole[capacity * 8 : capacity * _CELL_OCTETS]
        self._capacity = capacity
        # The last cell takes what has no other place; some before it are kept for cells of `other` labels.
        self._ordinary = capacity - max(capacity // 32, 1) - 1
        self._index: dict[tuple[str, ...], int] = {}
        self._used = 0
        while self._used < capacity and (length := _length(self._slots, self._used)) != 0:
            labels = _labels(self._slots, self._used, length)
            if labels is not None:
                self._index[labels] = self._used
            self._used += 1

    @staticmethod
    def octets(capacity: int = CAPACITY) -> int:
        """How long a buffer of so many cells is."""
        return capacity * _CELL_OCTETS

    def index(self, name: str, *labels: str) -> int:
        """Find or make the cell of a metric and its labels; return its place in `counts`.

        Never fails: past the bound it is the cell of the same name with every label `other`.
        """
        key = (name, *labels)
        found = self._index.get(key)
        if found is not None:
            return found
        made = self._make(key, self._ordinary)
        if made is not None:
            return made
        key = (name, *[OTHER for _ in labels])
        found = self._index.get(key)
        if found is not None:
            return found
        made = self._make(key, self._capacity - 1)
        if made is not None:
            return made
        last = self._index.get((OTHER,))
        if last is not None:
            return last
        made = self._make((OTHER,), self._capacity)
        return self._capacity - 1 if made is None else made

    def _make(self, key: tuple[str, ...], bound: int) -> int | None:
        if self._used >= bound:
            return None
        text = json.dumps(key, ensure_ascii=True, separators=(",", ":")).encode()
        if len(text) > _MAX_LABEL_OCTETS:
            return None
        index = self._used
        start = index * _SLOT_OCTETS
        self._slots[start + 2 : start + 2 + len(text)] = text
        self._slots[start : start + 2] = len(text).to_bytes(2, "little")
        self._used += 1
        self._index[key] = index
        return index


def read(buffer: bytes | Writable) -> dict[tuple[str, ...], int]:
    """All cells of a buffer, by (name, label, …), while its writer may be adding to it.

    A count is what it was at some moment during the call; a cell whose label is not sound is left out.
    """
    capacity = len(buffer) // _CELL_OCTETS
    if capacity == 0:
        return {}
    whole = memoryview(buffer).cast("B")
    counts = whole[: capacity * 8].cast("Q")
    slots = whole[capacity * 8 : capacity * _CELL_OCTETS]
    found: dict[tuple[str, ...], int] = {}
    for index in range(capacity):
        length = _length(slots, index)
        if length == 0:
            break
        labels = _labels(slots, index, length)
        if labels is not None:
            found[labels] = counts[index]
    return found


def merge(counters: Iterable[CellCounts], gauges: Iterable[CellCounts]) -> dict[tuple[str, ...], int]:
    """Put the cells of several workers together.

    Args:
        counters: Cells whose counters count: those of workers of the past as well.
        gauges: Cells whose gauges count: those of workers that answer now.
    """
    merged: dict[tuple[str, ...], int] = {}
    for cells in counters:
        for key, count in cells.items():
            if not key[0].startswith("="):
                merged[key] = merged.get(key, 0) + count
    for cells in gauges:
        for key, value in cells.items():
            if not key[0].startswith("="):
                continue
            if key not in merged:
                merged[key] = value
            elif key[0] in _LOWEST:
                merged[key] = min(merged[key], value)
            elif key[0] in _HIGHEST:
                merged[key] = max(merged[key], value)
            else:
                merged[key] += value
    return merged


def _length(slots: memoryview, index: int) -> int:
    start = index * _SLOT_OCTETS
    return int.from_bytes(slots[start : start + 2], "little")


def _labels(slots: memoryview, index: int, length: int) -> tuple[str, ...] | None:
    start = index * _SLOT_OCTETS + 2
    try:
        labels = json.loads(bytes(slots[start : start + min(length, _MAX_LABEL_OCTETS)]))
    except ValueError:
        return None
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        return None
    return tuple(labels)
