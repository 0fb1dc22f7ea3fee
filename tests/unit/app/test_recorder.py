"""The recorder with real spools, real stores, real scrapers and real SIGKILLs: spooled is stored, once."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from resolver.app.recorder import STOP_S, Recorder, RecorderSettings
from resolver.app.supervisor import RECORDER_STOP_SECONDS
from resolver.evidence.store import Store
from resolver.observe.cells import Cells
from resolver.observe.record import hit_record, hit_template, sockaddr
from resolver.observe.spool import Chunk, Spool, SpoolReader

TEMPLATE = hit_template(
    generation=1, group="mobile", transport="udp", qname="chat.example.org", qtype="A", order="order-1", app="chat",
    rule="suffix example.org", action="NXDOMAIN", rcode="NXDOMAIN", ede=16, mode="enforce",
)  # fmt: skip
AT = 1_700_000_000.0
LIMIT = 1 << 30
ROOT = Path(__file__).parents[3]


def hits(worker: int, first: int, count: int) -> bytes:
    """Records that carry worker and number in port and time."""
    address = sockaddr("192.0.2.1", worker)
    return b"".join(hit_record(TEMPLATE, int(AT * 1e6) + n, address) for n in range(first, first + count))


@pytest.fixture
def settings(tmp_path: Path) -> RecorderSettings:
    for name in ("spool", "cells", "lines"):
        (tmp_path / name).mkdir()
    return settings_in(tmp_path)


def settings_in(folder: Path, **changes: object) -> RecorderSettings:
    facts: dict[str, object] = {
        "node": "node-1", "spool_folder": folder / "spool", "cells_folder": folder / "cells",
        "sqlite": folder / "hits.sqlite", "jsonl": folder / "lines", "keep_seconds": None, "metrics_socket": None,
        "status": folder / "status.json", "spool_limit": 1 << 20,
    }  # fmt: skip
    return RecorderSettings(**(facts | changes))  # type: ignore[arg-type]


def stored_rows(folder: Path) -> list[tuple[int, int]]:
    """(worker, number) of every row."""
    db = sqlite3.connect(folder / "hits.sqlite")
    try:
        return [(worker, time_us - int(AT * 1e6)) for worker, time_us in db.execute("SELECT port, time_us FROM hit")]
    finally:
        db.close()


def stored_lines(folder: Path) -> list[tuple[int, int]]:
    """(worker, number) of every line; the hits of a test lie within one hour."""
    found = []
    for path in sorted((folder / "lines").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            hit = json.loads(line)
            minute, second, microsecond = int(hit["time"][14:16]), int(hit["time"][17:19]), int(hit["time"][20:26])
            found.append((hit["port"], ((minute - 13) * 60 + second - 20) * 1_000_000 + microsecond))
    return found


class Waits:
    """A wait that takes no time: does the steps in turn, one a call, then says stop."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._steps = list(steps)
        self.asked: list[float] = []

    def __call__(self, seconds: float) -> bool:
        self.asked.append(seconds)
        if self._steps:
            self._steps.pop(0)()
            return False
        return True


def nothing() -> None:
    pass


def test_what_is_spooled_is_stored_before_it_stops(settings: RecorderSettings, tmp_path: Path) -> None:
    """Told to stop at once, it still stores all that waits in all spools, removes them and exits 0."""
    for worker in range(3):
        spool = Spool(settings.spool_folder, worker, LIMIT)
        spool.append(hits(worker, 0, 500), 500, AT)
        spool.close(AT)
    assert Recorder(settings).run(Waits()) == 0
    expected = [(worker, number) for worker in range(3) for number in range(500)]
    assert stored_rows(tmp_path) == stored_lines(tmp_path) == expected
    assert list(settings.spool_folder.iterdir()) == []


def test_it_looks_again_soon_and_at_once_when_it_is_behind(settings: RecorderSettings) -> None:
    """A fifth of a second is what hits wait for others to share a transaction; one that is behind does not wait."""
    spool = Spool(settings.spool_folder, 0, LIMIT)
    many = hits(0, 0, 1000)
    waits = Waits(
        nothing,
        lambda: spool.append(many, 1000, AT),
        lambda: [spool.append(many, 1000, AT) for _ in range(17)],
        nothing,
        nothing,
    )
    Recorder(settings).run(waits)
    assert waits.asked == [0.2, 0.2, 0.2, 0.0, 0.2, 0.2]


def test_the_supervisor_waits_longer_than_the_store_is_asked() -> None:
    """A recorder that is told to stop gives up by itself, and is not killed."""
    assert RECORDER_STOP_SECONDS > STOP_S


def test_a_store_that_comes_back_gets_the_hits(settings: RecorderSettings, tmp_path: Path) -> None:
    """While the store cannot be opened the spool holds the hits; pauses grow; nothing is lost or doubled."""
    missing = tmp_path / "later"
    settings = settings_in(tmp_path, sqlite=missing / "hits.sqlite", jsonl=None)
    Spool(settings.spool_folder, 0, LIMIT).append(hits(0, 0, 10), 10, AT)
    recorder, waits = Recorder(settings), Waits(nothing, nothing, nothing, missing.mkdir, nothing)
    assert recorder.run(waits) == 0
    assert waits.asked[1:4] == [0.2, 0.4, 0.8]
    assert recorder.status().store_errors == 3
    assert recorder.status().stored == {"sqlite": 10}


def test_hits_are_left_in_the_spool_when_the_store_stays_away(settings: RecorderSettings, tmp_path: Path) -> None:
    """Stopping does not wait for ever: exit code 1, and the next start finds every hit."""
    Spool(settings.spool_folder, 0, LIMIT).append(hits(0, 0, 10), 10, AT)
    assert Recorder(settings_in(tmp_path, jsonl=tmp_path / "missing")).run(Waits(), patience_s=0.0) == 1
    assert Recorder(settings).run(Waits()) == 0
    assert len(stored_rows(tmp_path)) == len(stored_lines(tmp_path)) == 10


def test_a_predecessor_that_still_drains_is_waited_for(settings: RecorderSettings, tmp_path: Path) -> None:
    """Two recorders never read one spool."""
    Spool(settings.spool_folder, 0, LIMIT).append(hits(0, 0, 10), 10, AT)
    predecessor = SpoolReader(settings.spool_folder, {})
    assert Recorder(settings).run(Waits(nothing, nothing, predecessor.close)) == 0
    assert len(stored_rows(tmp_path)) == 10


def test_positions_of_segments_that_are_gone_are_forgotten(settings: RecorderSettings, tmp_path: Path) -> None:
    """A recorder that died between removing a segment and forgetting it leaves nothing behind for ever."""
    store = Store("node-1", settings.sqlite, settings.jsonl)
    store.put([Chunk("w000-0000000000000001.spool", 10, [])])
    store.close()
    Recorder(settings).run(Waits())
    store = Store("node-1", settings.sqlite, settings.jsonl)
    assert store.positions() == {}
    store.close()


def test_damage_is_counted_and_passed(settings: RecorderSettings, tmp_path: Path) -> None:
    """A torn tail and a corrupt segment cost what is torn and corrupt, and show in the status."""
    (settings.spool_folder / "w000-0000000000000001.spool").write_bytes(hits(0, 0, 2) + hits(0, 2, 1)[:-1])
    (settings.spool_folder / "w001-0000000000000001.spool").write_bytes(hits(1, 0, 2) + bytes(99))
    (settings.spool_folder / "w002-0000000000000001.spool").write_bytes(hits(2, 0, 1))
    recorder = Recorder(settings)
    assert recorder.run(Waits()) == 0
    assert stored_rows(tmp_path) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    assert recorder.status().spool_damage == {"torn": 1, "corrupt": 1, "unreadable": 0}
    assert [path.suffix for path in settings.spool_folder.iterdir()] == [".corrupt"]


def test_old_hits_go(settings: RecorderSettings, tmp_path: Path) -> None:
    """With `keep_seconds` hits of years ago do not stay; the newest row does, so that ids are never reused."""
    spool = Spool(settings.spool_folder, 0, LIMIT)
    spool.append(hits(0, 0, 10), 10, AT)
    Recorder(settings_in(tmp_path, keep_seconds=3600.0)).run(Waits())
    assert stored_rows(tmp_path) == [(0, 9)]
    assert stored_lines(tmp_path) == []


def test_cells_of_all_workers_are_merged(settings: RecorderSettings) -> None:
    """Counters of every file count, gauges only of as many workers as run; those that gave a sign of life are ready."""
    now = int(time.time())
    for worker, hit_count, octets, beat in ((0, 1, 10, now), (1, 2, 20, now - 60), (7, 4, 40, now)):
        buffer = bytearray(Cells.octets(64))
        cells = Cells(buffer, 64)
        cells.counts[cells.index("cache", "hit")] = hit_count
        cells.counts[cells.index("=cache_octets")] = octets
        cells.counts[cells.index("=beat_at")] = beat
        (settings.cells_folder / f"cells-{worker}").write_bytes(buffer)
    (settings.cells_folder / "cells-8").write_bytes(b"")
    (settings.cells_folder / "notes").write_bytes(b"x" * 99)
    settings.status.write_text('{"workers": 2}')
    assert Recorder(settings).cells() == {("cache", "hit"): 7, ("=cache_octets",): 30, ("=workers_ready",): 1}


def test_the_supervisors_file_is_exposed(settings: RecorderSettings) -> None:
    """Orders are in force from their time to their end; documents have an age."""
    orders = [
        {"id": "past", "mode": "enforce", "groups": ["a", "b"], "spans": [[AT, None]]},
        {"id": "past", "mode": "enforce", "groups": ["b", "c"], "spans": [[9e9, None]]},
        {"id": "over", "mode": "observe", "groups": ["a"], "spans": [[AT, AT + 1]]},
        {"id": "revoked", "mode": "enforce", "groups": ["a"], "spans": []},
    ]
    told = {
        "generation": 7, "digest": "abc", "loaded_at": AT, "orders": orders, "lists": {"chat": AT}, "workers": 2,
        "restarts": {"worker": 1}, "version": "1.0", "hot": "plain",
    }  # fmt: skip
    settings.status.write_text(json.dumps(told))
    status = Recorder(settings).status()
    assert status.orders_in_force == {
        ("past", "a", "enforce"): True, ("past", "b", "enforce"): True, ("past", "c", "enforce"): False,
        ("over", "a", "observe"): False, ("revoked", "a", "enforce"): False,
    }  # fmt: skip
    assert status.list_ages["chat"] > 0
    assert (status.generation, status.digest, status.loaded_at, status.workers, status.restarts) == (
        7, "abc", AT, 2, {"worker": 1},
    )  # fmt: skip


@pytest.mark.parametrize(
    "told",
    [
        "", "{", "[]", "null", '{"orders": 1, "lists": []}', '{"orders": [1, {"id": 2}], "lists": {"a": "b"}}',
        '{"workers": Infinity, "generation": NaN}',
        '{"workers": "two", "generation": null, "loaded_at": "now", "digest": 0}',
    ],
)  # fmt: skip
def test_a_broken_status_file_breaks_no_scrape(settings: RecorderSettings, told: str) -> None:
    """What cannot be read is left out."""
    settings.status.write_text(told)
    recorder = Recorder(settings)
    status = recorder.status()
    assert (status.orders_in_force, status.list_ages, status.workers) == ({}, {}, 0)
    assert recorder.cells() == {}


RECORDER = """
import socket, sys
from pathlib import Path
from resolver.app.recorder import main
from tests.unit.app.test_recorder import settings_in

sys.exit(main(settings_in(Path(sys.argv[1]), metrics_socket=socket.socket(fileno=int(sys.argv[2])))))
"""

WRITER = """
import sys
from pathlib import Path
from resolver.observe.spool import Spool
from tests.unit.app.test_recorder import AT, LIMIT, hits

worker, first = int(sys.argv[2]), int(sys.argv[3])
at = AT + first / 10_000_000  # later for who comes later: a segment's name is the time it was opened at
spool = Spool(Path(sys.argv[1]) / "spool", worker, LIMIT, segment_octets=200_000)
for number in range(first, first + 30_000, 30):
    spool.append(hits(worker, number, 30), 30, at)
    print(number + 30, flush=True)
sys.stdin.read()
"""


class Scraped:
    """Recorder processes on one listening socket, one after the other."""

    def __init__(self, folder: Path, cleanup: ExitStack) -> None:
        self.folder = folder
        self._cleanup = cleanup
        self._socket = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port = self._socket.getsockname()[1]

    def start(self) -> subprocess.Popen[str]:
        return self._spawn(RECORDER, str(self._socket.fileno()), pass_fds=(self._socket.fileno(),))

    def start_writer(self, worker: int, first: int) -> subprocess.Popen[str]:
        return self._spawn(WRITER, str(worker), str(first))

    def _spawn(self, script: str, *arguments: str, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(self.folder), *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, pass_fds=pass_fds, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._cleanup.enter_context(process)
        self._cleanup.callback(process.kill)
        return process

    def get(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, dict(answer.headers), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read().decode()

    def value(self, name: str) -> float:
        families = text_string_to_metric_families(self.get("/metrics")[2])
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)


@pytest.fixture
def scraped(settings: RecorderSettings, tmp_path: Path) -> Iterator[Scraped]:
    with ExitStack() as cleanup:
        yield Scraped(tmp_path, cleanup)


@pytest.mark.slow
def test_metrics_are_served(scraped: Scraped) -> None:
    """GET and HEAD of /metrics, a page that points there, and a plain no to everything else."""
    recorder = scraped.start()
    status, headers, body = scraped.get("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    assert "# TYPE interdict_queries_total counter" in body
    status, headers, body = scraped.get("/metrics", method="HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) > 1000
    assert 'href="/metrics"' in scraped.get("/")[2]
    assert scraped.get("/nothing")[0] == 404
    assert scraped.get("/metrics", method="POST")[0] == 405
    recorder.terminate()
    assert recorder.wait(timeout=10) == 0


@pytest.mark.slow
def test_silent_connections_lock_no_scraper_out(scraped: Scraped) -> None:
    """Many connections that say nothing are cut off for one that does."""
    scraped.start()
    with ExitStack() as open_connections:
        silent = [
            open_connections.enter_context(socket.create_connection(("127.0.0.1", scraped.port), timeout=5))
            for _ in range(60)
        ]
        assert scraped.get("/metrics")[0] == 200
        assert silent[0].recv(1) == b""


@pytest.mark.slow
def test_sigkill_of_workers_and_recorder_loses_and_doubles_nothing(scraped: Scraped, tmp_path: Path) -> None:
    """Over rounds of killing both under load, rows and lines hold every spooled hit exactly once."""
    acknowledged: dict[tuple[int, int], int] = {}
    for first, batches in ((0, 50), (10_000_000, 300), (20_000_000, 600)):
        writers = [scraped.start_writer(worker, first) for worker in (0, 1)]
        before = len(stored_rows(tmp_path)) if first else 0
        recorder = scraped.start()
        for worker, writer in enumerate(writers):
            said = [read_line(writer) for _ in range(batches)]
            writer.kill()
            said += writer.communicate(timeout=10)[0].splitlines()
            acknowledged[worker, first] = int(said[-1])
        while scraped.value("interdict_hits_stored_total") <= 2 * before:
            assert recorder.poll() is None
        recorder.kill()
        recorder.wait(timeout=10)
    last = scraped.start()
    scraped.get("/metrics")
    last.terminate()
    assert last.wait(timeout=30) == 0

    rows, lines = Counter(stored_rows(tmp_path)), Counter(stored_lines(tmp_path))
    assert rows == lines
    assert set(rows.values()) == {1}
    for (worker, first), end in acknowledged.items():
        numbers = sorted(n for w, n in rows if w == worker and first <= n < first + 10_000_000)
        assert numbers == list(range(first, first + len(numbers)))
        assert first + len(numbers) >= end
    assert list((tmp_path / "spool").iterdir()) == []


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()
