"""Past queries out of SQLite databases: Pi-hole's long-term database and this product's own hits.

A database is opened for reading only, by its tables and never by its views, since a view can hold any query whatever.
Rows come in the order in which they were stored.

Pi-hole (docs.pi-hole.net, "Query database"): `query_storage` holds numbers that `domain_by_id`, `client_by_id` and
`addinfo_by_id` turn into text; older databases hold the text itself in a table `queries`. Where a name was blocked for
a name that it leads to (status 9 to 11), that name is the additional text.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from resolver.evidence.past_ledger import MAX_RECORD_OCTETS, Ledger, PastError, Reason, moment, packed, wire_name
from resolver.evidence.past_text import hit_asked
from resolver.policy.preview import Asked

MAGIC: Final = b"SQLite format 3\0"
_BUSY_S = 1.0
# A damaged schema shows as names that are no UTF-8, in messages too; a damaged number as one that is too large.
_DATABASE_ERRORS: Final = (sqlite3.Error, OSError, OverflowError, UnicodeError)

# Pi-hole's numbers of query types; all others are the type's own number and 100.
_PIHOLE_TYPES: Final = {
    1: 1, 2: 28, 3: 255, 4: 33, 5: 6, 6: 12, 7: 16, 8: 35, 9: 15, 10: 43, 11: 46, 12: 48, 13: 2, 15: 64, 16: 65,
}  # fmt: skip
_PIHOLE_OTHER_TYPES: Final = 100
_BLOCKED_BY_CHAIN: Final = frozenset({9, 10, 11})
# What Pi-hole stores in place of name and client at its privacy levels 1 and 2.
_HIDDEN_NAME, _HIDDEN_CLIENT = "hidden", "0.0.0.0"

_Row = tuple[object, ...]
Told = Callable[[int, int], None]
"""Is told how far reading is: (row id, greatest row id)."""


def sniff_tables(path: Path) -> str | None:
    """Which of `hits` and `pihole` a database is; None for neither.

    Raises:
        PastError: It can not be read.
    """
    try:
        with closing(_open(path)) as db:
            tables = _tables(db)
    except _DATABASE_ERRORS as error:
        raise _broken(path, error) from None
    if "hit" in tables:
        return "hits"
    return "pihole" if tables & {"query_storage", "queries"} else None


def read_hit_table(path: Path, ledger: Ledger, told: Told) -> Iterator[Asked]:
    """Hits of this product's database; gaps go into the ledger with as many hits as they stand for.

    Raises:
        PastError: It can not be read at all.
    """

    def read(row: _Row) -> Asked | Reason:
        time_us, *fields = row
        at = moment(time_us / 1_000_000) if isinstance(time_us, int) else None
        asked = hit_asked(at, *fields)
        return Reason.MALFORMED if asked is None else asked

    yield from _rows(path, ledger, told, "hit", "SELECT id, time_us, client, qname, qtype, rule FROM hit", read)
    try:
        with closing(_open(path)) as db:
            if "gap" in _tables(db):
                (lost,) = db.execute("SELECT sum(lost) FROM gap").fetchone()
                if isinstance(lost, int) and lost > 0:
                    ledger.add(Reason.LOST, 0, "its gaps", lost)
    except _DATABASE_ERRORS as error:
        ledger.add(Reason.DAMAGED, 0, str(error))


def read_pihole(path: Path, ledger: Ledger, told: Told) -> Iterator[Asked]:
    """Queries of a Pi-hole's database.

    Raises:
        PastError: It can not be read at all.
    """
    try:
        with closing(_open(path)) as db:
            present = _tables(db)
            table = "query_storage" if "query_storage" in present else "queries"
            columns = {str(row[1]) for row in db.execute(f"PRAGMA table_info({table})")}
    except _DATABASE_ERRORS as error:
        raise _broken(path, error) from None
    joins, texts = [], []
    for column, linked, text in (
        ("domain", "domain_by_id", "domain"), ("client", "client_by_id", "ip"),
        ("additional_info", "addinfo_by_id", "content"),
    ):  # fmt: skip
        if column not in columns:
            texts.append("NULL")
        elif linked in present:
            joins.append(f"LEFT JOIN {linked} ON typeof(q.{column}) = 'integer' AND {linked}.id = q.{column}")
            texts.append(f"coalesce({linked}.{text}, q.{column})")
        else:
            texts.append(f"q.{column}")
    select = f"SELECT q.id, q.timestamp, q.type, q.status, {', '.join(texts)} FROM {table} q {' '.join(joins)}"
    yield from _rows(path, ledger, told, table, select, _read_pihole_row)


def _read_pihole_row(row: _Row) -> Asked | Reason:
    timestamp, qtype, status, domain, client, extra = row
    if domain == _HIDDEN_NAME:
        return Reason.NAME_HIDDEN
    at, qname = moment(timestamp), wire_name(domain) if isinstance(domain, str) else None
    address = packed(client) if isinstance(client, str) else None
    if at is None or qname is None or (address is None and client is not None) or not isinstance(qtype, int):
        return Reason.MALFORMED
    target = wire_name(extra) if status in _BLOCKED_BY_CHAIN and isinstance(extra, str) else None
    number = _PIHOLE_TYPES.get(qtype, qtype - _PIHOLE_OTHER_TYPES)
    return Asked(
        at, None if client == _HIDDEN_CLIENT else address, qname, number if 0 < number < 65_536 else 0,
        () if target is None else (target,),
    )  # fmt: skip


def _rows(
    path: Path, ledger: Ledger, told: Told, table: str, select: str, read: Callable[[_Row], Asked | Reason]
) -> Iterator[Asked]:
    number = 0
    try:
        with closing(_open(path)) as db:
            if table not in _tables(db):
                raise _broken(path, f"there is no table {table}")
            greatest = db.execute(f"SELECT max(id) FROM {table}").fetchone()[0]
            for id_, *row in db.execute(select):
                number += 1
                if number % 1024 == 0 and isinstance(id_, int) and isinstance(greatest, int):
                    told(id_, greatest)
                asked = read(tuple(row))
                if isinstance(asked, Asked):
                    yield asked
                else:
                    ledger.add(asked, number, ", ".join(str(value)[:MAX_RECORD_OCTETS] for value in row))
    except _DATABASE_ERRORS as error:
        if not number:
            raise _broken(path, error) from None
        ledger.add(Reason.DAMAGED, number + 1, str(error))


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_BUSY_S, isolation_level=None)
    # A forged database is input like any other: no value larger than a record, no schema that calls functions, and text
    # that is not UTF-8 is still text.
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_RECORD_OCTETS)
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA cell_size_check = ON")
    db.text_factory = lambda octets: octets.decode("utf-8", "replace")
    return db


def _tables(db: sqlite3.Connection) -> set[str]:
    return {str(name) for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _broken(path: Path, error: Exception | str) -> PastError:
    return PastError(
        f"{path}: {error}; leave --format out, or copy the database with `sqlite3 FILE '.backup COPY'` where its "
        "program runs, and give the copy"
    )
