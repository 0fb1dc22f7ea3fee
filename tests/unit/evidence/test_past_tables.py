"""Databases of Pi-hole and of this product, sound, old, damaged and forged."""

import contextlib
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.evidence.past_ledger import Ledger, PastError, Reason
from resolver.evidence.past_tables import read_hit_table, read_pihole, sniff_tables
from resolver.evidence.store import Store
from resolver.observe.record import Gap, Hit
from resolver.observe.spool import Chunk
from resolver.policy.preview import Asked
from resolver.wire.name import from_text

PHONE = bytes([192, 0, 2, 7])

# The tables of Pi-hole's database as its documentation has them ("Query database").
PIHOLE = """
CREATE TABLE query_storage (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp INTEGER NOT NULL, type INTEGER NOT NULL,
    status INTEGER NOT NULL, domain INTEGER NOT NULL, client INTEGER NOT NULL, forward INTEGER,
    additional_info INTEGER, reply_type INTEGER, reply_time REAL, dnssec INTEGER, list_id INTEGER, ede INTEGER);
CREATE TABLE domain_by_id (id INTEGER PRIMARY KEY, domain TEXT NOT NULL);
CREATE TABLE client_by_id (id INTEGER PRIMARY KEY, ip TEXT NOT NULL, name TEXT);
CREATE TABLE addinfo_by_id (id INTEGER PRIMARY KEY, type INTEGER NOT NULL, content NOT NULL);
CREATE VIEW queries AS SELECT id, timestamp FROM query_storage;
INSERT INTO domain_by_id VALUES (1, 'www.example.org'), (2, 'hidden'), (3, 'a..b');
INSERT INTO client_by_id VALUES (1, '192.0.2.7', 'phone'), (2, '0.0.0.0', NULL);
INSERT INTO addinfo_by_id VALUES (1, 1, 'cdn.example.net'), (2, 2, 42);
"""
OLD_PIHOLE = """
CREATE TABLE queries (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp INTEGER NOT NULL, type INTEGER NOT NULL,
    status INTEGER NOT NULL, domain TEXT NOT NULL, client TEXT NOT NULL, forward TEXT);
INSERT INTO queries VALUES (1, 1600000000, 2, 3, 'www.example.org', '192.0.2.7', NULL);
"""
STORED = (
    "INSERT INTO query_storage (timestamp, type, status, domain, client, additional_info) VALUES (?, ?, ?, ?, ?, ?)"
)


def nobody(row: int, rows: int) -> None:
    """Takes no notice of how far reading is."""


def database(path: Path, script: str, rows: Iterable[tuple[object, ...]] = ()) -> Path:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)
        for row in rows:
            db.execute(STORED, row)
        db.commit()
    return path


def pihole(path: Path, *rows: tuple[object, ...]) -> tuple[list[Asked], dict[Reason, int]]:
    ledger = Ledger()
    found = list(read_pihole(database(path, PIHOLE, rows), ledger, nobody))
    return found, {entry.reason: entry.count for entry in ledger.unread()}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((1700000000.25, 1, 2, 1, 1, None), Asked(1700000000.25, PHONE, from_text("www.example.org"), 1)),
        ((1700000000, 16, 3, 1, 1, 2), Asked(1700000000.0, PHONE, from_text("www.example.org"), 65)),
        ((1700000000, 164, 3, 1, 1, None), Asked(1700000000.0, PHONE, from_text("www.example.org"), 64)),
        ((1700000000, 14, 3, 1, 1, None), Asked(1700000000.0, PHONE, from_text("www.example.org"), 0)),
        ((1700000000, 1, 3, 1, 2, None), Asked(1700000000.0, None, from_text("www.example.org"), 1)),
        ((1700000000, 1, 3, "a.example", "2001:db8::1", None),
         Asked(1700000000.0, bytes.fromhex("20010db8" + "0" * 23 + "1"), from_text("a.example"), 1)),
        ((1700000000, 1, 9, 1, 1, 1),
         Asked(1700000000.0, PHONE, from_text("www.example.org"), 1, (from_text("cdn.example.net"),))),
        ((1700000000, 1, 2, 1, 1, 1), Asked(1700000000.0, PHONE, from_text("www.example.org"), 1)),
    ],
)  # fmt: skip
def test_a_pihole_row_is_read(tmp_path: Path, row: tuple[object, ...], expected: Asked) -> None:
    """Linked texts or texts in place, Pi-hole's numbers of types, and the name that a blocked one leads to."""
    assert pihole(tmp_path / "ftl.db", row) == ([expected], {})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((1700000000, 1, 2, 2, 1, None), Reason.NAME_HIDDEN),
        ((1700000000, 1, 2, 3, 1, None), Reason.MALFORMED),
        ((1700000000, 1, 2, 99, 1, None), Reason.MALFORMED),
        ((1700000000, 1, 2, 1, 99, None), Reason.MALFORMED),
        (("soon", 1, 2, 1, 1, None), Reason.MALFORMED),
        ((-5, 1, 2, 1, 1, None), Reason.MALFORMED),
        ((1700000000, b"\xff", 2, 1, 1, None), Reason.MALFORMED),
    ],
)
def test_a_pihole_row_that_can_not_be_read_is_in_the_ledger(
    tmp_path: Path, row: tuple[object, ...], reason: Reason
) -> None:
    """Hidden names, links that lead nowhere, times and types that are none; the next row is read."""
    found, unread = pihole(tmp_path / "ftl.db", row, (1700000000, 1, 2, 1, 1, None))

    assert len(found) == 1
    assert unread == {reason: 1}


def test_an_old_pihole_is_read(tmp_path: Path) -> None:
    """A table `queries` that holds the texts themselves."""
    path = database(tmp_path / "ftl.db", OLD_PIHOLE)

    assert sniff_tables(path) == "pihole"
    assert list(read_pihole(path, Ledger(), nobody)) == [
        Asked(1600000000.0, PHONE, from_text("www.example.org"), 28)
    ]  # fmt: skip


def test_views_of_a_database_are_not_looked_at(tmp_path: Path) -> None:
    """A view named as a table is no table: nothing that the database brings along is executed."""
    path = tmp_path / "forged.db"
    endless = "WITH RECURSIVE n(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
    database(path, f"CREATE TABLE other (id); CREATE VIEW queries AS {endless}; CREATE VIEW hit AS {endless};")

    assert sniff_tables(path) is None
    for read in (read_pihole, read_hit_table):
        with pytest.raises(PastError):
            next(read(path, Ledger(), nobody))


def test_a_value_larger_than_a_record_ends_reading_with_a_word(tmp_path: Path) -> None:
    """A forged text of megabytes is not taken into memory."""
    good, bad = (1700000000, 1, 2, 1, 1, None), (1700000000, 1, 2, "x" * 3_000_000, 1, None)

    found, unread = pihole(tmp_path / "ftl.db", good, good, good, bad, good)

    # The row before it may go with it: Python's sqlite3 looks one row ahead.
    assert len(found) in (2, 3)
    assert unread == {Reason.DAMAGED: 1}


def test_progress_is_told(tmp_path: Path) -> None:
    """After many rows: which one, of how many."""
    told: list[tuple[int, int]] = []
    path = database(tmp_path / "ftl.db", PIHOLE, [(1700000000, 1, 2, 1, 1, None)] * 2000)

    assert len(list(read_pihole(path, Ledger(), lambda row, rows: told.append((row, rows))))) == 2000
    assert told == [(1024, 2000)]


@pytest.mark.parametrize("name", ["plain.db", "with space?and#marks%.db"])
def test_this_products_hits_are_read(tmp_path: Path, name: str) -> None:
    """What the store wrote, by whatever path; gaps go into the ledger as so many hits."""
    path = tmp_path / name
    store = Store("node-1", path, None)
    hit = Hit(
        1_700_000_000_500_000, "192.0.2.7", 5353, 1, "phones", "udp", "www.example.org", "HTTPS", "order-1", "chat",
        "suffix chat.example", "nxdomain", "NXDOMAIN", 16, "enforce",
    )  # fmt: skip
    store.put([Chunk("segment", 0, (hit, Gap(5, 1, 2), Gap(7, 3, 4)))])
    store.close()
    ledger = Ledger()

    assert sniff_tables(path) == "hits"
    assert list(read_hit_table(path, ledger, nobody)) == [
        Asked(1_700_000_000.5, PHONE, from_text("www.example.org"), 65, (from_text("chat.example"),))
    ]
    assert [(entry.reason, entry.count) for entry in ledger.unread()] == [(Reason.LOST, 12)]


@pytest.mark.parametrize("read", [read_pihole, read_hit_table])
def test_a_database_that_can_not_be_read_says_what_to_do(tmp_path: Path, read: object) -> None:
    """Other tables, other bytes: a PastError with the mend."""
    path = database(tmp_path / "other.db", "CREATE TABLE other (id)")
    (tmp_path / "cut.db").write_bytes(path.read_bytes()[:50])

    for broken in (path, tmp_path / "cut.db"):
        with pytest.raises(PastError, match="leave --format out, or copy the database"):
            list(read(broken, Ledger(), nobody))  # type: ignore[operator]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of some pages."""
    path = tmp_path_factory.mktemp("sound") / "ftl.db"
    return database(path, PIHOLE, [(1700000000 + i, 1, 2, 1, 1, None) for i in range(500)])


@given(patches=st.lists(st.tuples(st.integers(0, 30_000), st.binary(min_size=1, max_size=40)), min_size=1, max_size=6))
def test_a_damaged_database_is_read_as_far_as_it_goes(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, patches: list[tuple[int, bytes]]
) -> None:
    """Any octets over any place: queries, the ledger, or a PastError; nothing else."""
    octets = bytearray(sound.read_bytes())
    for place, patch in patches:
        octets[place : place + len(patch)] = patch
    path = sound.with_name("damaged.db")
    path.write_bytes(octets)

    for read in (read_pihole, read_hit_table):
        with contextlib.suppress(PastError):
            list(read(path, Ledger(), nobody))
