"""Devices that met rules are counted once each, for a day, with a bound."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from resolver.evidence.devices import SPAN_S, HitDevices
from resolver.evidence.store import Store
from resolver.observe.record import Hit
from resolver.observe.spool import Chunk

AT = 1_700_000_000.0


class Ledger:
    """A store that is written to as the recorder does it."""

    def __init__(self, path: Path) -> None:
        self._store = Store("node-1", path, None)
        self._octets = 0

    def put(self, *hits: Hit) -> None:
        self._octets += 100
        self._store.put([Chunk("w000-1700000000000000.spool", self._octets, list(hits))])

    def close(self) -> None:
        self._store.close()


def hit(client: str = "192.0.2.1", device: str = "", order: str = "order-1", at: float = AT) -> Hit:
    return Hit(
        time_us=int(at * 1_000_000), client=client, port=4000, generation=7, group="mobile", transport="udp",
        qname="chat.example.org", qtype="A", order=order, app="chat", rule="suffix example.org", action="NXDOMAIN",
        rcode="NXDOMAIN", ede=16, mode="enforce", device=device,
    )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a folder?" / "hits.sqlite"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    path.parent.mkdir()
    return Ledger(path)


def test_a_device_counts_once_for_each_order(path: Path, ledger: Ledger) -> None:
    """By its name where it has one, whatever its address; else by its address."""
    ledger.put(
        hit(), hit(), hit("192.0.2.2"), hit("192.0.2.3", "phone"), hit("192.0.2.4", "phone"), hit(order="order-2")
    )

    assert HitDevices(path).count(AT) == {"order-1": 3, "order-2": 1}


def test_a_day_later_it_counts_no_more(path: Path, ledger: Ledger) -> None:
    """Unless it was seen again meanwhile."""
    ledger.put(hit(), hit("192.0.2.2"))
    counted = HitDevices(path)
    assert counted.count(AT) == {"order-1": 2}
    ledger.put(hit(at=AT + 60))

    assert counted.count(AT + 60) == {"order-1": 2}
    assert counted.count(AT + SPAN_S + 1) == {"order-1": 1}
    assert counted.count(AT + SPAN_S + 61) == {}


def test_what_is_older_than_a_day_is_not_read_at_the_start(path: Path, ledger: Ledger) -> None:
    """Nor counted."""
    ledger.put(hit("192.0.2.9", at=AT - SPAN_S - 1), hit())

    assert HitDevices(path).count(AT) == {"order-1": 1}


def test_a_store_that_is_not_there_yet_counts_nothing(path: Path) -> None:
    """And is counted once it is."""
    counted = HitDevices(path)
    assert counted.count(AT) == {}
    path.parent.mkdir()
    ledger = Ledger(path)
    assert counted.count(AT) == {}
    ledger.put(hit())

    assert counted.count(AT) == {"order-1": 1}


def test_a_store_that_can_not_be_read_keeps_what_was_known(path: Path, ledger: Ledger) -> None:
    """A gap in the graph would look like nobody."""
    ledger.put(hit())
    counted = HitDevices(path)
    counted.count(AT)
    ledger.close()
    path.rename(path.with_suffix(".away"))

    assert counted.count(AT) == {"order-1": 1}


def test_a_store_that_was_begun_anew_is_counted_from_its_beginning(path: Path, ledger: Ledger) -> None:
    """Its numbers begin at 1 again."""
    ledger.put(hit(), hit("192.0.2.2"))
    counted = HitDevices(path)
    counted.count(AT)
    ledger.close()
    for file in path.parent.iterdir():
        file.unlink()
    again = Ledger(path)
    assert counted.count(AT) == {"order-1": 2}
    again.put(hit("192.0.2.3"))

    assert counted.count(AT) == {"order-1": 3}


def test_many_hits_are_read_in_several_looks(path: Path, ledger: Ledger) -> None:
    """No scrape waits for all of them."""
    ledger.put(*(hit(f"192.0.2.{n}") for n in range(5)))
    counted = HitDevices(path, rows=2)

    assert [counted.count(AT) for _ in range(4)] == [{"order-1": n} for n in (2, 4, 5, 5)]


def test_the_memory_is_bounded(path: Path, ledger: Ledger) -> None:
    """Past the bound it counts too few; those that it knows go on to be seen."""
    ledger.put(*(hit(f"192.0.2.{n}") for n in range(5)))
    counted = HitDevices(path, most=2)

    assert counted.count(AT) == {"order-1": 2}


def test_nothing_is_written(path: Path, ledger: Ledger) -> None:
    """The store is the recorder's."""
    ledger.put(hit())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert HitDevices(path).count(AT) == {"order-1": 1}
