"""Recorded hits, then new ones."""

import json
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path

import click
import pytest
from click.testing import Result

from resolver.cli.tail import Filter, to_json, to_text, watch
from resolver.evidence.store import HitLog, Store, StoredHit
from resolver.observe.record import Hit
from resolver.observe.spool import Chunk

Run = Callable[..., Result]
AT_US = 1_700_000_000_000_000  # 2023-11-14T22:13:20Z


def hit(number: int, client: str = "192.0.2.1", order: str = "ban", app: str = "chat", ede: int | None = 16) -> Hit:
    return Hit(
        time_us=AT_US + number, client=client, port=4000, generation=7, group="phones", transport="udp",
        qname="chat.example", qtype="A", order=order, app=app, rule="suffix chat.example", action="nxdomain",
        rcode="NXDOMAIN", ede=ede, mode="enforce" if ede else "observe",
    )  # fmt: skip


class Log:
    """A store with a recorder's side."""

    def __init__(self, folder: Path) -> None:
        self._store = Store("node-1", folder / "hits.sqlite", None)
        self.log = HitLog(folder / "hits.sqlite")
        self._end = 0

    def put(self, *hits: Hit) -> None:
        self._end += 1
        self._store.put([Chunk("w000-1.spool", self._end, list(hits))])

    def close(self) -> None:
        self.log.close()
        self._store.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path)
    yield made
    made.close()


def numbers(found: Iterator[StoredHit]) -> list[int]:
    return [stored.hit.time_us - AT_US for stored in found]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "NXDOMAIN EDE 16  chat  ban  suffix chat.example  phones"),
        ({"device": "phone-7"}, "NXDOMAIN EDE 16  chat  ban  suffix chat.example  phones  phone-7"),
        ({"mode": "observe", "ede": None}, "observed  chat  ban  suffix chat.example  phones"),
        ({"mode": "exempt", "ede": None, "group": ""}, "exempt  chat  ban  suffix chat.example  no group"),
        ({"order": "rule:portal", "app": "", "action": "passthru", "rcode": "NOERROR", "ede": None},
         "allowed  rule:portal  suffix chat.example  phones"),
        ({"order": "zone:rpz.example", "app": "", "action": "tcp-only", "rcode": "NOERROR", "ede": None},
         "sent over to TCP  zone:rpz.example  suffix chat.example  phones"),
        ({"order": "way-round:canary", "app": "", "action": "drop", "rcode": "", "ede": None},
         "silence  way-round:canary  suffix chat.example  phones"),
    ],
)  # fmt: skip
def test_the_outcome_is_said_in_words(changed: dict[str, str | None], expected: str) -> None:
    """What was withheld by its reply, the rest by why it was not; rules and zones have no app."""
    stored = StoredHit(1, "node-1", hit(0)._replace(**changed))  # type: ignore[arg-type]

    line = click.unstyle(to_text(stored))

    assert line == f"2023-11-14T22:13:20.000000Z  192.0.2.1  chat.example A  {expected}"


def never() -> bool:
    raise AssertionError("nobody follows")


@pytest.mark.parametrize(("count", "expected"), [(0, []), (2, [3, 4]), (5, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4])])
def test_the_newest_come_oldest_first(log: Log, count: int, expected: list[int]) -> None:
    """As many as asked for, or as there are."""
    log.put(*(hit(i) for i in range(5)))

    assert numbers(watch(log.log, Filter(), count, follow=False, pause=never)) == expected


def test_an_empty_store_shows_nothing(log: Log) -> None:
    """No hit yet is no mistake."""
    assert numbers(watch(log.log, Filter(), 20, follow=False, pause=never)) == []


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(order="other"), [1]),
        (Filter(app="game"), [2]),
        (Filter(client=ip_network("198.51.100.7")), [3]),
        (Filter(client=ip_network("198.51.100.0/24")), [3]),
        (Filter(client=ip_network("2001:db8::/32")), [4]),
        (Filter(order="other", app="game"), []),
        (Filter(device="phone-7"), [5]),
        (Filter(device="phone"), []),
    ],
)
def test_a_filter_looks_back_past_what_does_not_match(log: Log, wanted: Filter, expected: list[int]) -> None:
    """One match is found though hundreds of other hits came after it."""
    log.put(
        hit(0), hit(1, order="other"), hit(2, app="game"), hit(3, client="198.51.100.7"), hit(4, client="2001:db8::5"),
        hit(5)._replace(device="phone-7"), *(hit(100 + i) for i in range(300)),
    )  # fmt: skip

    assert numbers(watch(log.log, wanted, 1, follow=False, pause=never)) == expected


def test_following_shows_each_new_hit_once_until_nobody_reads(log: Log) -> None:
    """What is stored between two looks is shown, matches only, and the end of the reader is the end."""
    log.put(hit(0), hit(1))
    script = [lambda: log.put(hit(2), hit(3, app="game")), lambda: None, lambda: log.put(hit(4))]

    def pause() -> bool:
        if not script:
            return False
        script.pop(0)()
        return True

    assert numbers(watch(log.log, Filter(app="chat"), 1, follow=True, pause=pause)) == [1, 2, 4]


def test_following_an_empty_store_shows_the_first_hit(log: Log) -> None:
    """Nothing is missed between the start of a server and its first hit."""
    script = [lambda: log.put(hit(0))]

    def pause() -> bool:
        if not script:
            return False
        script.pop()()
        return True

    assert numbers(watch(log.log, Filter(), 20, follow=True, pause=pause)) == [0]


def test_json_is_one_line_with_the_keys_of_the_files() -> None:
    """A program may read tail or the JSON Lines files alike."""
    line = to_json(StoredHit(9, "node-1", hit(5)))

    assert "\n" not in line
    assert json.loads(line) == {
        "id": 9, "time": "2023-11-14T22:13:20.000005Z", "node": "node-1", "client": "192.0.2.1", "port": 4000,
        "generation": 7, "group": "phones", "transport": "udp", "qname": "chat.example", "qtype": "A", "order": "ban",
        "app": "chat", "rule": "suffix chat.example", "action": "nxdomain", "rcode": "NXDOMAIN", "ede": 16,
        "mode": "enforce", "device": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("stored", "outcome"),
    [
        (hit(5), "NXDOMAIN EDE 16"),
        (hit(5, ede=None), "observed"),
        (hit(5)._replace(rcode="", ede=None), "silence"),
    ],
)
def test_text_says_what_the_client_got(stored: Hit, outcome: str) -> None:
    """Withheld with its code, dropped, or only observed."""
    import click

    stored = stored._replace(mode="observe" if outcome == "observed" else "enforce")

    text = click.unstyle(to_text(StoredHit(9, "node-1", stored)))

    assert text == (
        f"2023-11-14T22:13:20.000005Z  192.0.2.1  chat.example A  {outcome}  chat  ban  suffix chat.example  phones"
    )


def test_hits_that_nobody_recorded_are_told(run: Run) -> None:
    """Exit code 1, and what to do, whether there is no store yet or none is wanted."""
    for text, mend in (("", "start `interdict serve`"), ("hits: {sqlite: false}", "or write hits: {sqlite: true}")):
        said = run(text, "tail", "--no-follow")

        assert (said.exit_code, said.stdout) == (1, "")
        assert mend in said.stderr
