"""Shared counters: found once, bumped by index, read by others, bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.observe.cells import Cells, merge, read


def test_what_is_counted_is_read() -> None:
    """A reader of the same buffer sees each cell by its name and labels."""
    buffer = bytearray(Cells.octets(64))
    cells = Cells(buffer, 64)
    i = cells.index("upstream", "192.0.2.53:53", "ok")
    cells.counts[i] += 2
    cells.counts[cells.index("hits_spooled")] += 1
    assert read(buffer) == {("upstream", "192.0.2.53:53", "ok"): 2, ("hits_spooled",): 1}
    assert cells.index("upstream", "192.0.2.53:53", "ok") == i


def test_a_successor_goes_on_counting() -> None:
    """Cells made on a buffer that has some already add to them."""
    buffer = bytearray(Cells.octets(64))
    first = Cells(buffer, 64)
    first.counts[first.index("cache", "hit")] += 5
    second = Cells(buffer, 64)
    second.counts[second.index("cache", "hit")] += 1
    second.counts[second.index("cache", "miss")] += 1
    assert read(buffer) == {("cache", "hit"): 6, ("cache", "miss"): 1}


def test_a_flood_of_labels_is_bounded_and_loses_no_count() -> None:
    """Past the capacity counts go to the cell of the same name with all labels `other`; the sum stays right."""
    buffer = bytearray(Cells.octets(64))
    cells = Cells(buffer, 64)
    for i in range(1000):
        cells.counts[cells.index("query", str(i), "A")] += 1
    cells.counts[cells.index("dropped", "udp", "rate")] += 1
    found = read(buffer)
    assert len(found) <= 64
    assert sum(found.values()) == 1001
    assert found[("query", "other", "other")] == 1000 - sum(k[0] == "query" for k in found) + 1
    assert found[("dropped", "other", "other")] == 1


def test_names_without_number_end_in_one_last_cell() -> None:
    """Even a flood of names, which no caller makes, stays within the buffer."""
    buffer = bytearray(Cells.octets(8))
    cells = Cells(buffer, 8)
    for i in range(100):
        cells.counts[cells.index(f"name{i}", "label")] += 1
    assert len(read(buffer)) == 8
    assert sum(read(buffer).values()) == 100
    assert read(buffer)[("other",)] > 80


def test_labels_too_long_for_a_slot_are_other() -> None:
    """A label that does not fit is not cut: two labels with one beginning would be one."""
    buffer = bytearray(Cells.octets(64))
    cells = Cells(buffer, 64)
    cells.counts[cells.index("upstream", "x" * 300)] += 1
    assert read(buffer) == {("upstream", "other"): 1}


def test_a_buffer_of_another_length_is_refused() -> None:
    """A file of another capacity would be read with its labels in the wrong place."""
    with pytest.raises(ValueError, match="64 cells take"):
        Cells(bytearray(Cells.octets(65)), 64)


def test_a_cell_is_there_only_when_its_length_is() -> None:
    """A label half written by a worker that died is neither seen nor in the way of the next worker."""
    buffer = bytearray(Cells.octets(8))
    buffer[8 * 8 + 2 : 8 * 8 + 6] = b'["qu'
    assert read(buffer) == {}
    cells = Cells(buffer, 8)
    cells.counts[cells.index("a", "b")] += 1
    assert read(buffer) == {("a", "b"): 1}


def test_no_buffer_yet_reads_as_no_cells() -> None:
    """A file that its worker has not sized yet is no error."""
    assert read(b"") == {}


@given(st.binary(max_size=4 * 256))
def test_any_bytes_can_be_read_and_taken_over(octets: bytes) -> None:
    """Damage costs the damaged cells, never an exception."""
    buffer = bytearray(octets.ljust(4 * 256, b"\0"))
    read(buffer)
    cells = Cells(buffer, 4)
    assert 0 <= cells.index("query", "udp") < 4


@given(st.lists(st.lists(st.text(max_size=8), min_size=1, max_size=4), max_size=40))
def test_every_key_has_a_cell_and_readers_agree(keys: list[list[str]]) -> None:
    """For any keys, what a reader sums up is what was counted."""
    buffer = bytearray(Cells.octets(32))
    cells = Cells(buffer, 32)
    for key in keys:
        cells.counts[cells.index(*key)] += 1
    assert sum(read(buffer).values()) == len(keys)


@pytest.mark.parametrize(
    ("key", "one", "two", "both"),
    [
        (("cache", "hit"), 1, 2, 3),
        (("=cache_octets",), 1, 2, 3),
        (("=generation",), 7, 8, 7),
        (("=certificate_expires",), 7, 8, 7),
        (("=generation_loaded_at",), 7, 8, 8),
        (("=upstream_up", "192.0.2.53"), 1, 0, 1),
    ],
)
def test_workers_are_merged(key: tuple[str, ...], one: int, two: int, both: int) -> None:
    """Counters and sizes add up; of generations and certificates the oldest is said; an upstream is up for anybody."""
    workers = [{key: one}, {key: two}]
    assert merge(workers, workers) == {key: both}
    assert merge(reversed(workers), reversed(workers)) == {key: both}


def test_a_worker_of_the_past_keeps_its_counts_and_loses_its_gauges() -> None:
    """After a restart with fewer workers no counter goes down, and nobody's cache is counted that is gone."""
    past, present = {("cache", "hit"): 1, ("=cache_octets",): 9}, {("cache", "hit"): 2, ("=cache_octets",): 4}
    assert merge([past, present], [present]) == {("cache", "hit"): 3, ("=cache_octets",): 4}
