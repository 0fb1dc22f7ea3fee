"""Which files are read, as what, within what time; and what comes of files that are damaged, packed or forged."""

import bz2
import gzip
import lzma
import os
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resolver.evidence.past import Format, Past
from resolver.evidence.past_ledger import PastError, Reason
from resolver.wire.name import to_text

UNBOUND = b"[1700000000] unbound[1:0] info: 192.0.2.7 a.example. A IN\n"
LATER = UNBOUND.replace(b"1700000000", b"1700000060").replace(b"a.example", b"b.example")
BIND = b"client 192.0.2.7#5 (a.example): query: a.example IN A +\n"
DNSMASQ = b"dnsmasq[1]: query[A] a.example from 192.0.2.7\n"
ADGUARD = b'{"T":"2026-11-22T16:23:33Z","QH":"a.example","QT":"A","IP":"192.0.2.7"}\n'
HITS = b'{"time": "2026-11-22T16:23:33Z", "client": "192.0.2.7", "qname": "a.example", "qtype": "A", "order": "o"}\n'
PACK: dict[str, Callable[[bytes], bytes]] = {"plain": bytes, "gzip": gzip.compress, "xz": lzma.compress}
PCAP = b"\xd4\xc3\xb2\xa1\x02\0\x04\0" + bytes(12) + b"\x65\0\0\0"
PCAPNG = b"\x0a\x0d\x0d\x0a\x1c\0\0\0\x4d\x3c\x2b\x1a\1\0\0\0" + b"\xff" * 8 + b"\x1c\0\0\0"
DNSTAP = bytes(4) + b"\0\0\0\x22\0\0\0\2\0\0\0\1\0\0\0\x16protobuf:dnstap.Dnstap"


def pihole(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE queries (id INTEGER PRIMARY KEY, timestamp, type, status, domain, client)")
        db.execute("INSERT INTO queries VALUES (1, 1700000000, 1, 2, 'a.example', '192.0.2.7')")
        db.commit()


def names(past: Past) -> list[str]:
    return [to_text(asked.qname) for asked in past]


def unread(past: Past) -> dict[Reason, int]:
    return {entry.reason: entry.count for entry in past.ledger.unread()}


@pytest.mark.parametrize(
    ("octets", "form", "queries"),
    [
        (UNBOUND, Format.UNBOUND, 1),
        (BIND, Format.BIND, 1),
        (DNSMASQ, Format.DNSMASQ, 1),
        (ADGUARD, Format.ADGUARD, 1),
        (HITS, Format.HITS, 1),
        (PCAP, Format.PCAP, 0),
        (PCAPNG, Format.PCAPNG, 0),
        (DNSTAP, Format.DNSTAP, 0),
    ],
)
@pytest.mark.parametrize("packed", PACK)
def test_a_format_is_found_out_from_the_content(
    tmp_path: Path, octets: bytes, form: Format, queries: int, packed: str
) -> None:
    """Whatever the file is called, compressed or not."""
    path = tmp_path / "some.file"
    path.write_bytes(PACK[packed](octets))
    past = Past([path])

    assert names(past) == ["a.example"] * queries
    assert [(source.path, source.format, source.queries) for source in past.sources] == [(str(path), form, queries)]
    assert unread(past) == {}
    assert past.done == past.octets == path.stat().st_size


def test_a_database_is_found_out_from_its_tables(tmp_path: Path) -> None:
    """SQLite files say nothing by their first octets."""
    pihole(tmp_path / "log")
    past = Past([tmp_path / "log"])

    assert names(past) == ["a.example"]
    assert [source.format for source in past.sources] == [Format.PIHOLE]


def test_a_format_that_is_named_is_not_found_out(tmp_path: Path) -> None:
    """A log that begins with other lines than queries."""
    path = tmp_path / "log"
    path.write_bytes(b"hello\n" + UNBOUND)

    assert names(Past([path], Format.UNBOUND)) == ["a.example"]
    assert names(Past([path], Format.BIND)) == []


def test_a_folder_stands_for_all_files_below_it(tmp_path: Path) -> None:
    """In the order of their names; what belongs to a database is read with it, what is no log is in the ledger."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.log").write_bytes(UNBOUND)
    (tmp_path / "sub" / "a.log.gz").write_bytes(gzip.compress(LATER))
    (tmp_path / "empty").touch()
    (tmp_path / "readme.txt").write_text("not a log")
    pihole(tmp_path / "p.db")
    (tmp_path / "p.db-wal").touch()
    (tmp_path / "p.db-shm").write_bytes(b"x")
    past = Past([tmp_path])

    assert names(past) == ["a.example", "a.example", "b.example"]
    assert unread(past) == {Reason.UNREADABLE: 1}
    (example,) = past.ledger.unread()[0].first
    assert example.place == str(tmp_path / "readme.txt")
    assert example.text.startswith("nothing at its beginning tells its format; name it with --format")


def test_a_log_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    """By its own path, in a folder, through a link; what is named is read where it was named first."""
    (tmp_path / "a.log").write_bytes(UNBOUND)
    (tmp_path / "b.log").write_bytes(LATER)
    (tmp_path / "link").symlink_to(tmp_path / "a.log")

    assert names(Past([tmp_path / "b.log", tmp_path, tmp_path / "link"])) == ["b.example", "a.example"]


@pytest.mark.parametrize(
    ("octets", "mend"),
    [
        (b"not a log", "name it with --format"),
        (bz2.compress(UNBOUND), "unpack it with bzip2"),
        (b"\x28\xb5\x2f\xfd" + bytes(20), "unpack it with zstd"),
        (b"\x1f\x8b" + bytes(40), "fetch it again"),
        (b"\xfd7zXZ\x00" + bytes(40), "fetch it again"),
        (gzip.compress(b"SQLite format 3\0" + bytes(100)), "unpack it and give the result"),
        (b"SQLite format 3\0" + bytes(100), "copy the database"),
    ],
)
def test_a_file_that_was_named_and_can_not_be_read_says_what_to_do(tmp_path: Path, octets: bytes, mend: str) -> None:
    """Unlike a file in a folder, which is one of many."""
    path = tmp_path / "log"
    path.write_bytes(octets)

    with pytest.raises(PastError, match=mend):
        names(Past([path]))


def test_a_format_that_can_not_be_is_told(tmp_path: Path) -> None:
    """A database is no text, and text no database."""
    pihole(tmp_path / "db")
    (tmp_path / "text").write_bytes(UNBOUND)

    with pytest.raises(PastError, match="leave --format out"):
        names(Past([tmp_path / "db"], Format.BIND))
    with pytest.raises(PastError, match=r"give Pi-hole's pihole-FTL\.db"):
        names(Past([tmp_path / "text"], Format.PIHOLE))


def test_a_path_that_leads_nowhere_is_told_before_anything_is_read(tmp_path: Path) -> None:
    """No such file; a pipe, which would be waited for."""
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(PastError, match="No such file"):
        Past([tmp_path / "gone"])
    with pytest.raises(PastError, match="neither a file nor a folder"):
        Past([tmp_path / "pipe"])


@pytest.mark.parametrize(("packed", "missing"), [("gzip", 8), ("gzip", 9), ("xz", 30), ("xz", 60)])
def test_a_packed_file_that_is_cut_is_read_as_far_as_it_goes(tmp_path: Path, packed: str, missing: int) -> None:
    """The end is missing: queries so far, and a word in the ledger."""
    path = tmp_path / "log"
    path.write_bytes(PACK[packed](UNBOUND + os.urandom(300_000))[:-missing])
    past = Past([path])

    assert names(past) == ["a.example"]
    assert unread(past)[Reason.DAMAGED] == 1


def test_packed_files_that_were_joined_are_read_whole(tmp_path: Path) -> None:
    """cat a.gz b.gz, and the same of xz with zeros between."""
    (tmp_path / "gz").write_bytes(gzip.compress(UNBOUND) + gzip.compress(LATER))
    (tmp_path / "xz").write_bytes(lzma.compress(UNBOUND) + bytes(4) + lzma.compress(LATER))

    assert names(Past([tmp_path / "gz"])) == names(Past([tmp_path / "xz"])) == ["a.example", "b.example"]


def test_an_xz_file_may_not_ask_for_memory_without_end(tmp_path: Path) -> None:
    """A file whose head asks for a dictionary of 1 GiB is refused."""
    octets = bytearray(lzma.compress(UNBOUND, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0}]))
    octets[octets.index(b"\x21\x01") + 2] = 36  # the filter LZMA2, one octet of properties, and 1 GiB written in it
    octets[20:24] = zlib.crc32(octets[12:20]).to_bytes(4, "little")  # of the head of the block
    path = tmp_path / "log"
    path.write_bytes(octets)

    with pytest.raises(PastError, match="Memory usage limit"):
        names(Past([path]))


@pytest.mark.parametrize(
    ("since", "until", "found", "outside"),
    [
        (None, None, ["a.example", "b.example"], 0),
        (1700000000.0, None, ["a.example", "b.example"], 0),
        (1700000001.0, None, ["b.example"], 1),
        (None, 1700000060.0, ["a.example"], 1),
        (1700000001.0, 1700000002.0, [], 2),
    ],
)
def test_queries_outside_the_time_asked_for_are_left_out(
    tmp_path: Path, since: float | None, until: float | None, found: list[str], outside: int
) -> None:
    """From `since` on, before `until`; and it is told how many."""
    (tmp_path / "log").write_bytes(UNBOUND + LATER)
    past = Past([tmp_path / "log"], since=since, until=until)

    assert names(past) == found
    assert past.outside == outside


def test_a_query_without_a_time_is_on_neither_side(tmp_path: Path) -> None:
    """With a time asked for it is in the ledger; without one it counts."""
    (tmp_path / "log").write_bytes(BIND)
    past = Past([tmp_path / "log"], since=0.0)

    assert names(past) == []
    assert unread(past) == {Reason.NO_TIME: 1}
    assert names(Past([tmp_path / "log"])) == ["a.example"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([b"", PCAP, PCAPNG, DNSTAP, UNBOUND, b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"SQLite format 3\0"]),
    st.binary(max_size=200),
    st.none() | st.sampled_from(Format),
)
def test_any_file_is_read_or_refused_with_a_mend(
    tmp_path: Path, begin: bytes, octets: bytes, form: Format | None
) -> None:
    """Hostile octets behind any beginning, taken for any format: a PastError is the worst that happens."""
    path = tmp_path / "log"
    path.write_bytes(begin + octets)
    try:
        names(Past([path], form))
    except PastError as error:
        refusal = str(error)
    else:
        refusal = "; "
    assert "; " in refusal
