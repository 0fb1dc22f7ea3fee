"""Evidence is stored exactly once, in rows and in lines, whatever happens between two steps."""

import json
import os
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.evidence.store import HitLog, Store, StoreError
from resolver.observe.record import Gap, Hit
from resolver.observe.spool import Chunk

DAY_S = 86_400
AT = 1_700_000_000  # 2023-11-14T22:13:20Z
SEGMENT = "w000-1700000000000000.spool"
ROOT = Path(__file__).parents[3]


def hit(number: int, at: float = AT, client: str = "192.0.2.1", ede: int | None = 16, device: str = "") -> Hit:
    return Hit(
        time_us=int(at * 1_000_000) + number, client=client, port=4000, generation=7, group="mobile", transport="udp",
        qname="chat.example.org", qtype="A", order="order-1", app="chat", rule="suffix example.org", action="NXDOMAIN",
        rcode="NXDOMAIN", ede=ede, mode="enforce", device=device,
    )  # fmt: skip


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def rows(path: Path, query: str = "SELECT time_us FROM hit ORDER BY id") -> list[tuple[object, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Path:
    return tmp_path / "hits.sqlite"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "lines"
    made.mkdir()
    return made


def test_a_hit_is_a_row_and_a_line(sqlite: Path, folder: Path) -> None:
    """Both sinks hold every field, under names that an auditor can read."""
    store = Store("node-1", sqlite, folder)
    store.put([Chunk(SEGMENT, 10, [hit(5, device="phone-7"), hit(6, ede=None)])])
    store.close()
    query = (
        "SELECT time_us, node, generation, client, port, client_group, transport, qname, qtype, order_id, app, rule, "
        "action, rcode, ede, mode, device FROM hit"
    )
    assert rows(sqlite, query)[0] == (
        1_700_000_000_000_005, "node-1", 7, "192.0.2.1", 4000, "mobile", "udp", "chat.example.org", "A", "order-1",
        "chat", "suffix example.org", "NXDOMAIN", "NXDOMAIN", 16, "enforce", "phone-7",
    )  # fmt: skip
    assert lines(folder)[0] == {
        "time": "2023-11-14T22:13:20.000005Z", "node": "node-1", "generation": 7, "client": "192.0.2.1", "port": 4000,
        "group": "mobile", "transport": "udp", "qname": "chat.example.org", "qtype": "A", "order": "order-1",
        "app": "chat", "rule": "suffix example.org", "action": "NXDOMAIN", "rcode": "NXDOMAIN", "ede": 16,
        "mode": "enforce", "device": "phone-7",
    }  # fmt: skip
    assert (lines(folder)[1]["ede"], lines(folder)[1]["device"]) == (None, "")
    assert rows(sqlite, "SELECT ede, device FROM hit")[1] == (None, "")


FIELDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9) | st.sampled_from(
    ["udp", '"\\\n\u2028é']
)
HITS = st.builds(
    Hit, st.integers(0, 253_402_300_799_999_999) | st.integers(AT * 1_000_000, (AT + 2) * 1_000_000),
    st.ip_addresses().map(str), st.integers(0, 65535), st.integers(0, 2**63 - 1), *([FIELDS] * 9),
    st.none() | st.integers(0, 65535), FIELDS, FIELDS,
)  # fmt: skip
KEYS = (
    "generation", "group", "transport", "qname", "qtype", "order", "app", "rule", "action", "rcode", "ede", "mode",
    "device",
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.lists(HITS, max_size=4), st.sampled_from([1, 30, 75]), FIELDS)
def test_what_is_prepared_changes_no_row_and_no_line(several: list[Hit], times: int, node: str) -> None:
    """Many hits by few statements, and lines out of remembered parts: the rows and lines of each hit by itself."""
    written = several * times
    with TemporaryDirectory() as made:
        folder = Path(made)
        store = Store(node, folder / "hits.sqlite", folder)
        store.put([Chunk(SEGMENT, 10, written)])
        store.close()
        columns = (
            "node, time_us, client, port, generation, client_group, transport, qname, qtype, order_id, app, rule, "
            "action, rcode, ede, mode, device"
        )
        assert rows(folder / "hits.sqlite", f"SELECT {columns} FROM hit ORDER BY id") == [
            (node, *hit) for hit in written
        ]
        plain: dict[str, str] = {}
        for hit in written:
            at = datetime.fromtimestamp(hit.time_us // 1_000_000, UTC).replace(microsecond=hit.time_us % 1_000_000)
            told = {
                "time": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "client": hit.client, "port": hit.port,
                "node": node, **dict(zip(KEYS, hit[3:], strict=True)),
            }  # fmt: skip
            name = f"hits-{at.date().isoformat()}.jsonl"
            plain[name] = plain.get(name, "") + json.dumps(told) + "\n"
        assert {path.name: path.read_text() for path in folder.glob("*.jsonl")} == plain


def test_a_gap_is_kept_beside_the_hits(sqlite: Path, folder: Path) -> None:
    """An auditor sees that hits are missing, how many and when."""
    store = Store("node-1", sqlite, folder)
    store.put([Chunk(SEGMENT, 10, [Gap(3, AT * 1_000_000, AT * 1_000_000 + 500_000)])])
    store.close()
    assert rows(sqlite, "SELECT node, lost, to_us - from_us FROM gap") == [("node-1", 3, 500_000)]
    assert lines(folder) == [
        {
            "time": "2023-11-14T22:13:20.500000Z", "node": "node-1", "lost": 3,
            "from": "2023-11-14T22:13:20.000000Z", "to": "2023-11-14T22:13:20.500000Z",
        }
    ]  # fmt: skip


def test_lines_go_to_the_day_of_their_hit(folder: Path) -> None:
    """A file is a day in UTC, even when one chunk holds hits of two."""
    store = Store("node-1", None, folder)
    store.put([Chunk(SEGMENT, 10, [hit(0), hit(1, at=AT + DAY_S), hit(2)])])
    store.close()
    counts = {path.name: len(path.read_text().splitlines()) for path in folder.glob("*.jsonl")}
    assert counts == {"hits-2023-11-14.jsonl": 2, "hits-2023-11-15.jsonl": 1}


@pytest.mark.parametrize("has_rows", [True, False])
def test_positions_survive(sqlite: Path, folder: Path, has_rows: bool) -> None:
    """The next start knows up to where each segment is stored, whichever sinks there are."""
    store = Store("node-1", sqlite if has_rows else None, folder)
    store.put([Chunk(SEGMENT, 10, [hit(0)]), Chunk("other", 5, [])])
    store.put([Chunk(SEGMENT, 20, [hit(1)])])
    store.forget(["other"])
    store.close()
    again = Store("node-1", sqlite if has_rows else None, folder)
    assert again.positions() == {SEGMENT: 20}
    assert again.stored() == ({"jsonl": 2, "sqlite": 2} if has_rows else {"jsonl": 2})
    again.close()


def test_lines_beyond_the_committed_length_are_cut_off_at_the_start(sqlite: Path, folder: Path) -> None:
    """A process that died between its lines and its commit leaves lines that the spool will bring again."""
    store = Store("node-1", sqlite, folder)
    store.put([Chunk(SEGMENT, 10, [hit(0)])])
    store.close()
    (path,) = folder.glob("*.jsonl")
    with path.open("a") as file:
        file.write('{"time": "2023-11-14T22:13:20.000001Z", "cli')
    Store("node-1", sqlite, folder).close()
    assert [line["time"] for line in lines(folder)] == ["2023-11-14T22:13:20.000000Z"]


@pytest.mark.slow
def test_a_locked_database_stores_nothing_and_can_be_tried_again(sqlite: Path, folder: Path) -> None:
    """While another holds the database `put` raises; then the same chunk goes in once."""
    store = Store("node-1", sqlite, folder)
    other = sqlite3.connect(sqlite, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="hits are not stored"):
        store.put([Chunk(SEGMENT, 10, [hit(0)])])
    other.execute("ROLLBACK")
    other.close()
    assert store.positions() == {}
    store.put([Chunk(SEGMENT, 10, [hit(0)])])
    store.close()
    assert len(rows(sqlite)) == len(lines(folder)) == 1


@pytest.mark.slow
def test_a_shorter_chunk_after_a_refused_one_leaves_no_remains(sqlite: Path, folder: Path) -> None:
    """Lines of the refused attempt do not show behind those of the one that succeeds."""
    store = Store("node-1", sqlite, folder)
    other = sqlite3.connect(sqlite, isolation_level=None)
    store.put([Chunk(SEGMENT, 5, [hit(0)])])
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError):
        store.put([Chunk(SEGMENT, 50, [hit(1), hit(2), hit(3)])])
    other.execute("ROLLBACK")
    other.close()
    store.put([Chunk(SEGMENT, 10, [hit(1)])])
    store.close()
    assert len(lines(folder)) == 2


FULL_DISK = """
import resource, sys
from pathlib import Path
from resolver.evidence.store import Store, StoreError
from resolver.observe.spool import Chunk
from tests.unit.evidence.test_store import SEGMENT, hit

folder = Path(sys.argv[1])
store = Store("node-1", folder / "hits.sqlite", folder / "lines")
stored = 0
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
for first in range(0, 3000, 100):
    chunk = Chunk(SEGMENT, first + 100, [hit(number) for number in range(first, first + 100)])
    try:
        store.put([chunk])
    except StoreError:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        stored = first
        store.put([chunk])
print(stored)
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit_octets", [150_000, 300_000])
def test_a_full_disk_stores_nothing_half(sqlite: Path, folder: Path, limit_octets: int) -> None:
    """The kernel refuses somewhere between two octets of a line or a page; the retry completes both sinks exactly."""
    said = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(sqlite.parent), str(limit_octets)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    assert int(said) > 0
    expected = [AT * 1_000_000 + number for number in range(3000)]
    assert [row[0] for row in rows(sqlite)] == expected
    assert [str(line["time"])[-7:-1] for line in lines(folder)] == [f"{time % 1_000_000:06d}" for time in expected]


def test_a_lines_file_somebody_moved_is_another_file(folder: Path) -> None:
    """After a rename the old file keeps its lines and a new one begins; a file found there already is added to."""
    store = Store("node-1", None, folder)
    store.put([Chunk(SEGMENT, 10, [hit(0)])])
    path = folder / "hits-2023-11-14.jsonl"
    path.rename(folder / "moved.jsonl")
    store.put([Chunk(SEGMENT, 20, [hit(1)])])
    (folder / "hits-2023-11-15.jsonl").write_text('{"time": "mine"}\n')
    store.put([Chunk(SEGMENT, 30, [hit(2, at=AT + DAY_S)])])
    store.close()
    Store("node-1", None, folder).close()
    assert [str(line["time"])[-7:] for line in lines(folder)] == ["000001Z", "mine", "000002Z", "000000Z"]


def test_old_hits_expire_in_steps(sqlite: Path, folder: Path) -> None:
    """Rows before the moment go, so many at a time; files whose whole day is before it go as well."""
    store = Store("node-1", sqlite, folder)
    store.put([Chunk(SEGMENT, 10, [hit(n, at=AT - 3 * DAY_S) for n in range(5)] + [Gap(1, 1, 2), hit(9)])])
    assert store.expire(AT - DAY_S, most=3) == 3
    assert store.expire(AT - DAY_S, most=3) == 2
    assert store.expire(AT - DAY_S, most=3) == 0
    store.close()
    assert rows(sqlite) == [(AT * 1_000_000 + 9,)]
    assert rows(sqlite, "SELECT count(*) FROM gap") == [(0,)]
    assert [path.name for path in folder.glob("*.jsonl")] == ["hits-2023-11-14.jsonl"]


def test_an_id_is_never_given_twice(sqlite: Path) -> None:
    """Even when all hits are old the newest row stays, so that a follower misses none of those to come."""
    store = Store("node-1", sqlite, None)
    store.put([Chunk(SEGMENT, 10, [hit(0), hit(1)])])
    store.expire(AT + DAY_S)
    log = HitLog(sqlite)
    (last,) = log.recent(10)
    store.put([Chunk(SEGMENT, 20, [hit(2)])])
    store.expire(AT + DAY_S)
    assert [stored.hit for stored in log.after(last.id)] == [hit(2)]
    log.close()
    store.close()


def test_the_log_is_followed_while_it_is_written(sqlite: Path) -> None:
    """The newest hits, oldest first, then those after them."""
    store = Store("node-1", sqlite, None)
    store.put([Chunk(SEGMENT, 10, [hit(n) for n in range(5)])])
    log = HitLog(sqlite)
    recent = log.recent(2)
    assert [(stored.node, stored.hit) for stored in recent] == [("node-1", hit(3)), ("node-1", hit(4))]
    assert log.after(recent[-1].id) == []
    store.put([Chunk(SEGMENT, 20, [hit(5), hit(6)])])
    assert [stored.hit for stored in log.after(recent[-1].id)] == [hit(5), hit(6)]
    assert [stored.hit for stored in log.after(recent[-1].id, limit=1)] == [hit(5)]
    log.close()
    store.close()


@pytest.mark.parametrize(
    ("question", "index"),
    [
        ("time_us BETWEEN 1 AND 2", "hit_time"),
        ("order_id = 'order-1' AND time_us > 1", "hit_order"),
        ("client = '192.0.2.1' AND time_us > 1", "hit_client"),
        ("qname = 'chat.example.org' AND time_us > 1", "hit_qname"),
    ],
)
def test_an_auditors_question_is_answered_from_an_index(sqlite: Path, question: str, index: str) -> None:
    """Years of hits are not read from end to end."""
    Store("node-1", sqlite, None).close()
    assert index in str(rows(sqlite, f"EXPLAIN QUERY PLAN SELECT * FROM hit WHERE {question}"))


def test_a_name_of_a_node_cannot_leave_its_quotes(sqlite: Path) -> None:
    """A quote in the node's name is a quote in the column."""
    store = Store('it\'s "node"', sqlite, None)
    store.put([Chunk(SEGMENT, 10, [hit(0), Gap(1, 2, 3)])])
    store.close()
    assert rows(sqlite, "SELECT node FROM hit UNION SELECT node FROM gap") == [('it\'s "node"',)]


def test_evidence_is_not_for_everyone(sqlite: Path, folder: Path) -> None:
    """Rows and lines name people's devices: others on the machine cannot read them."""
    before = os.umask(0)
    try:
        store = Store("node-1", sqlite, folder)
        store.put([Chunk(SEGMENT, 10, [hit(0)])])
        store.close()
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o007 for path in (sqlite, *folder.glob("*.jsonl"))] == [0, 0]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The error says where and what to do."""
    with pytest.raises(StoreError, match=r"missing.*make the folder"):
        Store("node-1", tmp_path / "missing" / "hits.sqlite", None)
    with pytest.raises(StoreError, match="is this the path of the hit store"):
        HitLog(tmp_path / "missing.sqlite")


def test_another_program_s_file_is_left_alone(tmp_path: Path) -> None:
    """A file that is no database, or one of a schema to come, is an error and stays as it is."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database, and long enough to be seen as none\n" * 40)
    with pytest.raises(StoreError, match="not a database"):
        Store("node-1", path, None)
    assert path.read_text().startswith("not a database")

    later = tmp_path / "later.sqlite"
    db = sqlite3.connect(later)
    db.execute("PRAGMA user_version = 99")
    db.close()
    before = later.read_bytes()
    with pytest.raises(StoreError, match="schema 99"):
        Store("node-1", later, None)
    assert later.read_bytes() == before


SCHEMA_1 = """
CREATE TABLE hit (
    id INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, node TEXT NOT NULL, client TEXT NOT NULL, port INTEGER NOT NULL,
    generation INTEGER NOT NULL, client_group TEXT NOT NULL, transport TEXT NOT NULL, qname TEXT NOT NULL,
    qtype TEXT NOT NULL, order_id TEXT NOT NULL, app TEXT NOT NULL, rule TEXT NOT NULL, action TEXT NOT NULL,
    rcode TEXT NOT NULL, ede INTEGER, mode TEXT NOT NULL
);
CREATE INDEX hit_time ON hit (time_us);
CREATE INDEX hit_order ON hit (order_id, time_us);
CREATE INDEX hit_client ON hit (client, time_us);
CREATE INDEX hit_qname ON hit (qname, time_us);
CREATE TABLE gap (id INTEGER PRIMARY KEY, from_us INTEGER NOT NULL, to_us INTEGER NOT NULL, node TEXT NOT NULL,
    lost INTEGER NOT NULL);
CREATE INDEX gap_time ON gap (to_us);
CREATE TABLE position (segment TEXT PRIMARY KEY, octets INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE jsonl (name TEXT PRIMARY KEY, octets INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE stored (sink TEXT PRIMARY KEY, hits INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


def old_store(path: Path, hits: int) -> None:
    """A store as the version without devices made it."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(SCHEMA_1)
    with db:
        db.executemany(f"INSERT INTO hit VALUES (NULL, ?, 'node-1', {'?,' * 13} ?)", [hit(i)[:15] for i in range(hits)])
        db.execute("INSERT INTO position VALUES (?, 10)", (SEGMENT,))
        db.execute("INSERT INTO stored VALUES ('sqlite', ?)", (hits,))
    db.close()


def check_brought_up_to_date(path: Path, hits: int) -> None:
    store = Store("node-1", path, None)
    assert (store.positions(), store.stored()) == ({SEGMENT: 10}, {"sqlite": hits})
    store.put([Chunk(SEGMENT, 20, [hit(hits, device="phone-7")])])
    store.close()
    log = HitLog(path)
    found = [stored.hit for stored in log.recent(hits + 1)]
    log.close()
    assert found == [hit(i) for i in range(hits)] + [hit(hits, device="phone-7")]


def test_a_store_from_before_there_were_devices_keeps_its_rows_and_takes_new_ones(sqlite: Path) -> None:
    """Rows, positions and counts stay; the old rows are of no device."""
    old_store(sqlite, 3)

    check_brought_up_to_date(sqlite, 3)
    check_same_layout(sqlite)


def check_same_layout(path: Path) -> None:
    fresh = path.with_name("fresh.sqlite")
    Store("node-1", fresh, None).close()
    layout = "SELECT name, type, [notnull], dflt_value FROM pragma_table_info('hit')"
    assert rows(path, layout) == rows(fresh, layout)


def test_a_death_at_any_moment_of_bringing_a_store_up_to_date_loses_nothing(tmp_path: Path) -> None:
    """Whatever part of the log reached the disk, the next start finds every row, and goes on."""
    path, log = tmp_path / "hits.sqlite", tmp_path / "hits.sqlite-wal"
    old_store(path, 200)
    store = Store("node-1", path, None)
    octets, whole = path.read_bytes(), log.read_bytes()
    store.close()
    frame = 24 + 4096  # https://www.sqlite.org/fileformat2.html#walformat: a header of 32 octets, then frames

    assert (len(whole) - 32) // frame >= 1
    for cut in sorted({0, 7, 32, *(32 + n * frame + d for n in range(len(whole) // frame) for d in (1, 30, frame))}):
        died = tmp_path / f"died-{cut}.sqlite"
        died.write_bytes(octets)
        died.with_name(f"{died.name}-wal").write_bytes(whole[:cut])
        check_brought_up_to_date(died, 200)


def test_a_copy_of_an_old_store_can_be_read_as_it_is(sqlite: Path) -> None:
    """No recorder runs over it, and nothing is written there."""
    old_store(sqlite, 2)
    log = HitLog(sqlite)

    assert [stored.hit for stored in log.recent(5)] == [hit(0), hit(1)]
    assert [stored.id for stored in log.after(1)] == [2]
    log.close()
    assert rows(sqlite, "PRAGMA user_version") == [(1,)]
