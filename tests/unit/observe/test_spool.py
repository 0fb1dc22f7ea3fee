"""The spool under its real enemies: SIGKILL, a full disk, a limit, damage. Every hit is counted exactly."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.observe.record import Gap, Hit, hit_record, hit_template, parse_all, sockaddr
from resolver.observe.spool import Chunk, Spool, SpoolBusy, SpoolReader, folder_octets

TEMPLATE = hit_template(
    generation=1, group="mobile", transport="udp", qname="chat.example.org", qtype="A", order="order-1", app="chat",
    rule="suffix example.org", action="NXDOMAIN", rcode="NXDOMAIN", ede=16, mode="enforce",
)  # fmt: skip
CLIENT = sockaddr("192.0.2.1", 4000)
AT = 1_700_000_000.0


def hit(number: int) -> bytes:
    """A record that carries its number as its time."""
    return hit_record(TEMPLATE, number, CLIENT)


OCTETS = len(hit(0))


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[SpoolReader]:
    made = SpoolReader(tmp_path, {})
    yield made
    made.close()


def drain(reader: SpoolReader) -> list[Hit | Gap]:
    """Commit all that is there, remove what is finished; return the records."""
    found: list[Hit | Gap] = []
    for chunk in reader.chunks():
        found += chunk.records
        reader.commit(chunk)
    reader.remove(reader.finished())
    return found


def numbers(records: list[Hit | Gap]) -> list[int]:
    return [record.time_us for record in records if isinstance(record, Hit)]


def gaps(records: list[Hit | Gap]) -> list[Gap]:
    return [record for record in records if isinstance(record, Gap)]


def test_what_is_appended_is_read_in_order(tmp_path: Path, reader: SpoolReader) -> None:
    """Batches are there at once, while the segment is live, and come once."""
    spool = Spool(tmp_path, 0, 1 << 20)
    spool.append(hit(0) + hit(1), 2, AT)
    assert numbers(drain(reader)) == [0, 1]
    spool.append(hit(2), 1, AT)
    assert numbers(drain(reader)) == [2]
    assert drain(reader) == []
    assert (spool.spooled, spool.lost) == (3, 0)


def test_nothing_is_made_before_the_first_hit(tmp_path: Path) -> None:
    """A worker without hits leaves no file, even when it is given an empty batch."""
    spool = Spool(tmp_path, 0, 1 << 20)
    spool.append(b"", 0, AT)
    spool.close(AT)
    assert list(tmp_path.iterdir()) == []


def test_segments_rotate_and_go_once_drained(tmp_path: Path, reader: SpoolReader) -> None:
    """A segment that reached its size is closed, and removed after its last record is committed; the live one stays."""
    spool = Spool(tmp_path, 3, 1 << 20, segment_octets=10 * OCTETS)
    for number in range(35):
        spool.append(hit(number), 1, AT)
    assert len(reader.segments()) == 4
    assert all(name.startswith("w003-") for name in reader.segments())
    assert numbers(drain(reader)) == list(range(35))
    assert len(reader.segments()) == 1
    spool.close(AT)
    drain(reader)
    assert reader.segments() == []


def test_uncommitted_records_come_again(tmp_path: Path, reader: SpoolReader) -> None:
    """Only a commit moves the position, and nothing uncommitted is removed."""
    spool = Spool(tmp_path, 0, 1 << 20)
    spool.append(hit(0), 1, AT)
    spool.close(AT)
    assert sum(len(chunk.records) for chunk in reader.chunks()) == 1
    assert reader.finished() == []
    assert numbers(drain(reader)) == [0]


def test_a_new_reader_goes_on_from_the_positions(tmp_path: Path) -> None:
    """Positions kept elsewhere say what is stored already."""
    spool = Spool(tmp_path, 0, 1 << 20)
    spool.append(hit(0) + hit(1), 2, AT)
    first = SpoolReader(tmp_path, {})
    (name,) = first.segments()
    first.close()
    second = SpoolReader(tmp_path, {name: OCTETS})
    assert [(chunk.segment, chunk.end, len(chunk.records)) for chunk in second.chunks()] == [(name, 2 * OCTETS, 1)]
    second.close()


def test_a_successor_never_reuses_a_name_even_if_the_clock_went_back(tmp_path: Path, reader: SpoolReader) -> None:
    """A worker started again opens a segment that sorts behind those of its predecessor."""
    Spool(tmp_path, 0, 1 << 20).append(hit(0), 1, AT)
    Spool(tmp_path, 0, 1 << 20).append(hit(1), 1, AT - 3600)
    assert len(reader.segments()) == 2
    assert numbers(drain(reader)) == [0, 1]


def test_chunks_are_bounded(tmp_path: Path) -> None:
    """However much waits, a chunk has no more than its octets."""
    spool = Spool(tmp_path, 0, 1 << 20)
    spool.append(b"".join(map(hit, range(500))), 500, AT)
    reader = SpoolReader(tmp_path, {}, chunk_octets=8192)
    chunks = list(reader.chunks())
    assert max(len(chunk.records) for chunk in chunks) <= 8192 // OCTETS
    assert [n for chunk in chunks for n in numbers(list(chunk.records))] == list(range(500))
    reader.close()


def test_one_reader_at_a_time(tmp_path: Path, reader: SpoolReader) -> None:
    """Two recorders on one spool would store hits twice; the second is told."""
    with pytest.raises(SpoolBusy, match="another process reads this spool"):
        SpoolReader(tmp_path, {})


def test_over_the_limit_hits_are_counted_and_the_gap_is_recorded(tmp_path: Path, reader: SpoolReader) -> None:
    """Spooled and lost add up to all; the gap stands where the hits are missing, with count and times."""
    spool = Spool(tmp_path, 0, 100 * OCTETS)
    for number in range(150):
        spool.append(hit(number), 1, AT + number)
    assert folder_octets(tmp_path) <= 100 * OCTETS
    assert spool.spooled + spool.lost == 150
    assert spool.lost == 50
    assert numbers(drain(reader)) == list(range(100))

    spool.append(hit(150), 1, AT + 150)
    records = drain(reader)
    assert records[0] == Gap(50, int((AT + 100) * 1e6), int((AT + 149) * 1e6))
    assert numbers(records) == [150]
    assert (spool.spooled, spool.lost) == (101, 50)


def test_a_full_spool_makes_one_gap_not_one_a_look(tmp_path: Path, reader: SpoolReader) -> None:
    """Room for a hit or two does not end a gap; a good share of the limit does."""
    size = len(hit(0))
    spool = Spool(tmp_path, 0, limit_octets=200 * size, segment_octets=10 * size)
    for number in range(200):
        spool.append(hit(number), 1, at=1.0)
    assert spool.lost == 0
    for number in range(200, 240):
        spool.append(hit(number), 1, at=2.0 + number)
    first = sorted(tmp_path.iterdir())[0]
    first.write_bytes(first.read_bytes()[: 8 * size])  # room for two hits, less than a sixteenth of the limit

    for number in range(240, 250):
        spool.append(hit(number), 1, at=1000.0 + number)
    assert (spool.spooled, spool.lost) == (200, 50)
    for path in sorted(tmp_path.iterdir())[:2]:
        path.unlink()
    spool.append(hit(250), 1, at=2000.0)
    spool.close(at=2000.0)
    assert [gap.lost for gap in gaps(drain(reader))] == [50]


def test_a_drained_live_segment_does_not_block_the_writer(tmp_path: Path, reader: SpoolReader) -> None:
    """At the limit the writer lets go of its segment, so that the recorder can make room by removing it."""
    spool = Spool(tmp_path, 0, 10 * OCTETS)
    for at in range(20):
        for number in range(4):
            spool.append(hit(number), 1, AT + at)
        drain(reader)
    assert (spool.spooled, spool.lost) == (80, 0)


def test_the_disk_is_asked_a_few_times_a_second_only(tmp_path: Path, reader: SpoolReader) -> None:
    """Over the limit, room made just now is found a quarter of a second later."""
    spool = Spool(tmp_path, 0, 4 * OCTETS)
    for number in range(5):
        spool.append(hit(number), 1, AT)
    drain(reader)
    spool.append(hit(5), 1, AT + 0.1)
    assert spool.lost == 2
    spool.append(hit(6), 1, AT + 0.3)
    assert spool.lost == 2
    assert drain(reader) == [Gap(2, int(AT * 1e6), int((AT + 0.1) * 1e6)), *parse_all(hit(6))[0]]


def test_the_clock_going_back_does_not_stop_the_writer(tmp_path: Path, reader: SpoolReader) -> None:
    """A wall clock set back an hour does not mean an hour without looking for room."""
    spool = Spool(tmp_path, 0, 4 * OCTETS)
    for number in range(5):
        spool.append(hit(number), 1, AT)
    drain(reader)
    spool.append(hit(5), 1, AT - 3600)
    assert (spool.spooled, spool.lost) == (5, 1)


def test_an_open_gap_is_recorded_at_the_end(tmp_path: Path, reader: SpoolReader) -> None:
    """A worker that stops while over the limit leaves the gap as its last record."""
    spool = Spool(tmp_path, 0, 4 * OCTETS)
    for number in range(6):
        spool.append(hit(number), 1, AT)
    spool.close(AT + 1)
    assert gaps(drain(reader)) == [Gap(2, int(AT * 1e6), int(AT * 1e6))]


def test_a_limit_counts_what_a_predecessor_left_but_not_other_workers(tmp_path: Path) -> None:
    """The limit is each worker's own, over restarts."""
    Spool(tmp_path, 0, 1 << 20).append(b"".join(map(hit, range(8))), 8, AT)
    Spool(tmp_path, 1, 1 << 20).append(b"".join(map(hit, range(8))), 8, AT)
    spool = Spool(tmp_path, 0, 10 * OCTETS)
    for number in range(4):
        spool.append(hit(number), 1, AT)
    assert (spool.spooled, spool.lost) == (2, 2)


def test_a_missing_folder_costs_hits_not_the_worker(tmp_path: Path) -> None:
    """No exception reaches the path of a query; hits are counted, and spooled again when the folder is back."""
    folder = tmp_path / "spool"
    spool = Spool(folder, 0, 1 << 20)
    spool.append(hit(0), 1, AT)
    assert (spool.spooled, spool.lost) == (0, 1)
    folder.mkdir()
    spool.append(hit(1), 1, AT + 1)
    assert (spool.spooled, spool.lost) == (1, 1)
    reader = SpoolReader(folder, {})
    records = drain(reader)
    assert (gaps(records), numbers(records)) == ([Gap(1, int(AT * 1e6), int(AT * 1e6))], [1])
    reader.close()


FULL_DISK = """
import resource, sys
from pathlib import Path
from resolver.observe.spool import Spool
from tests.unit.observe.test_spool import AT, OCTETS, hit

# A file that may grow to 7½ records: the write that crosses it is cut short, the next one is refused.
resource.setrlimit(resource.RLIMIT_FSIZE, (OCTETS * 15 // 2, resource.RLIM_INFINITY))
spool = Spool(Path(sys.argv[1]), 0, 1 << 20)
batch = int(sys.argv[2])
for number in range(0, 36, batch):
    spool.append(b"".join(hit(number + i) for i in range(batch)), batch, AT + number)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
spool.append(hit(36), 1, AT + 36)
print(spool.spooled, spool.lost)
"""


def run_python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", script, *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}


@pytest.mark.parametrize("batch", [3, 9])
def test_a_write_cut_short_leaves_whole_records_and_a_gap(tmp_path: Path, reader: SpoolReader, batch: int) -> None:
    """When the kernel refuses in the middle of a batch, each hit is either readable or counted as lost, never both."""
    said = subprocess.run(
        run_python(FULL_DISK, str(tmp_path), str(batch)),
        env=environment(), check=True, capture_output=True, text=True, timeout=30,
    ).stdout  # fmt: skip
    spooled, lost = map(int, said.split())
    records = drain(reader)
    assert spooled + lost == 37
    assert lost > 0
    assert len(numbers(records)) == spooled == len(set(numbers(records)))
    assert sum(gap.lost for gap in gaps(records)) == lost
    assert reader.torn == reader.corrupt == 0
    assert numbers(records)[-1] == 36


NO_SPACE_AT_ALL = """
import resource, sys
from pathlib import Path
from resolver.observe.spool import Spool
from tests.unit.observe.test_spool import AT, hit

resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
spool = Spool(Path(sys.argv[1]), 0, 1 << 20)
for number in range(5):
    spool.append(hit(number), 1, AT + number)
spool.close(AT + 5)
print(spool.spooled, spool.lost)
"""


def test_a_full_disk_is_not_littered_with_empty_segments(tmp_path: Path) -> None:
    """Each attempt that the kernel refuses takes its file away again."""
    said = subprocess.run(
        run_python(NO_SPACE_AT_ALL, str(tmp_path)),
        env=environment(), check=True, capture_output=True, text=True, timeout=30,
    ).stdout  # fmt: skip
    assert said.split() == ["0", "5"]
    assert list(tmp_path.iterdir()) == []


def test_a_torn_tail_of_a_dead_writer_is_passed_over_and_counted(tmp_path: Path, reader: SpoolReader) -> None:
    """The whole records before it are read, the segment goes, and it is counted once."""
    (tmp_path / "w000-0000000000000001.spool").write_bytes(hit(0) + hit(1)[:-1])
    assert numbers(drain(reader)) == [0]
    drain(reader)
    assert reader.torn == 1
    assert reader.segments() == []


def test_a_torn_tail_of_a_live_writer_is_waited_for(tmp_path: Path, reader: SpoolReader) -> None:
    """What a writer is in the middle of writing is neither skipped nor counted."""
    path = tmp_path / "w000-0000000000000001.spool"
    path.write_bytes(hit(0) + hit(1)[:-1])
    with path.open("ab") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert numbers(drain(reader)) == [0]
        writer.write(hit(1)[-1:])
        writer.flush()
        assert numbers(drain(reader)) == [1]
    assert reader.torn == 0


def test_corrupt_bytes_set_the_rest_of_the_segment_aside(tmp_path: Path, reader: SpoolReader) -> None:
    """What is before them is read, the file is kept under another name for a person, other segments go on."""
    (tmp_path / "w000-0000000000000001.spool").write_bytes(hit(0) + bytes(100) + hit(1))
    (tmp_path / "w000-0000000000000002.spool").write_bytes(hit(2))
    found = [number for _ in range(3) for number in numbers(drain(reader))]
    assert found == [0, 2]
    assert reader.corrupt == 1
    assert [path.name for path in tmp_path.iterdir()] == ["w000-0000000000000001.spool.corrupt"]


def test_a_segment_is_not_set_aside_before_what_is_sound_in_it_is_committed(
    tmp_path: Path, reader: SpoolReader
) -> None:
    """A store that refuses now gets the sound records later."""
    (tmp_path / "w000-0000000000000001.spool").write_bytes(hit(0) + bytes(100))
    assert sum(len(chunk.records) for chunk in reader.chunks()) == 1
    assert reader.corrupt == 0
    assert numbers(drain(reader)) == [0]


def test_an_empty_file_whose_writer_has_not_locked_it_yet_costs_nothing(tmp_path: Path) -> None:
    """The reader may remove a file in the moment between its creation and its lock; the writer then makes another."""
    reader = SpoolReader(tmp_path, {})
    (tmp_path / "w000-0000000000000001.spool").touch()
    drain(reader)
    assert reader.segments() == []
    reader.close()


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_any_files_are_drained_in_the_end(tmp_path_factory: pytest.TempPathFactory, files: list[bytes]) -> None:
    """Whatever bytes lie in the folder, a few passes leave no segment to try for ever."""
    folder = tmp_path_factory.mktemp("spool")
    for number, octets in enumerate(files):
        (folder / f"w000-{number:016d}.spool").write_bytes(hit(number) + octets)
    reader = SpoolReader(folder, {})
    found = [number for _ in range(3) for number in numbers(drain(reader))]
    assert set(range(len(files))) <= set(found) or not files
    assert reader.segments() == []
    reader.close()


KILLED_WRITER = """
import sys
from pathlib import Path
from resolver.observe.spool import Spool
from tests.unit.observe.test_spool import AT, OCTETS, hit

spool = Spool(Path(sys.argv[1]), 0, 1 << 30, segment_octets=50 * OCTETS)
number = int(sys.argv[2])
while True:
    spool.append(b"".join(hit(number + i) for i in range(7)), 7, AT + number)
    number += 7
    print(number, flush=True)
"""


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_it_spooled(tmp_path: Path) -> None:
    """Over rounds of SIGKILL every batch whose append returned is there, in order, once, with the reader alongside."""
    reader = SpoolReader(tmp_path, {})
    found: list[Hit | Gap] = []
    first = 0
    for acknowledged_lines in (1, 40, 200):
        writer = subprocess.Popen(
            run_python(KILLED_WRITER, str(tmp_path), str(first)), env=environment(), stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for _ in range(acknowledged_lines):
            writer.stdout.readline()
            found += drain(reader)
        writer.kill()
        said = writer.stdout.read().splitlines()
        writer.wait(timeout=10)
        writer.stdout.close()
        found += drain(reader)
        spooled = int(said[-1]) if said else first + 7 * acknowledged_lines
        assert len(numbers(found)) >= spooled
        assert numbers(found) == list(range(len(numbers(found))))
        first = len(numbers(found))
    assert gaps(found) == []
    assert reader.segments() == []
    reader.close()


def test_a_chunk_says_where_its_segment_ends_with_it(tmp_path: Path, reader: SpoolReader) -> None:
    """A position is a file offset: committing it to a store and cutting the file there lose nothing."""
    Spool(tmp_path, 0, 1 << 20).append(hit(0), 1, AT)
    (name,) = reader.segments()
    (chunk,) = reader.chunks()
    assert chunk == Chunk(name, OCTETS, chunk.records)
