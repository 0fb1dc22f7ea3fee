"""What runs, told to people and to the recorder."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from resolver import config as configuration
from resolver.app.machine import StatePaths
from resolver.app.status import Endings, banner, policy_status, running_status, write_status
from resolver.config import Config
from resolver.feeds.copies import State, write_state
from resolver.observe.cells import Cells
from resolver.policy.documents import Mode
from resolver.policy.generation import write_generation
from resolver.policy.terms import ZoneEntry, ZoneKind
from tests.support.build import Ban, terms_and_names

RULES = ("suffix chat.example",)


@pytest.fixture
def config() -> Config:
    return configuration.read('listen: ["0.0.0.0:53"]\nupstreams: [{address: 192.0.2.53}]\n', "interdict.yaml")


def generation_file(folder: Path, *bans: Ban) -> Path:
    """A generation of these bans, as the compiler would have left it."""
    terms, names = terms_and_names(bans)
    octets, _ = write_generation(terms, names, serial=3, at=5.0)
    path = folder / "00000003.generation"
    path.write_bytes(octets)
    return path


def told(tmp_path: Path, config: Config, *bans: Ban) -> dict[str, object]:
    policy_told = policy_status(generation_file(tmp_path, *bans), config, tmp_path, workers=2, restarts={"worker": 1})
    paths = StatePaths(tmp_path / "state")
    paths.make()
    for number in range(2):
        octets = bytearray(Cells.octets())
        cells = Cells(octets)
        cells.counts[
            cells.index("query", "udp", "all", "A", "NXDOMAIN", "policy", "o", "a", "nxdomain", "enforce")
        ] += 4
        cells.counts[cells.index("hits_spooled")] += 4
        cells.counts[cells.index("=cache_entries")] = 7
        (paths.run / f"cells-{number}").write_bytes(octets)
    return running_status(
        config,
        "interdict.yaml",
        paths,
        policy=policy_told,
        processes=[("worker 0", 10, 3)],
        uptime=61.04,
        last_reload={},
    )


def test_counts_of_all_workers_add_up(tmp_path: Path, config: Config) -> None:
    """Queries, hits and cache entries are those of the whole server."""
    found = told(tmp_path, config, Ban("ban", RULES))

    assert (found["queries"], found["hits_spooled"], found["hits_lost"], found["cache_entries"]) == (8, 8, 0, 14)
    assert (found["generation"], found["workers"], found["restarts"], found["uptime_seconds"]) == (
        3, 2, {"worker": 1}, 61.0,
    )  # fmt: skip
    assert found["processes"] == [{"name": "worker 0", "pid": 10, "generation": 3}]


@pytest.mark.parametrize(
    ("effective", "expires", "is_in_force", "until"),
    [(0.0, float("inf"), True, None), (0.0, 1.0, False, 1.0), (9e9, float("inf"), False, None)],
)
def test_an_order_stands_as_its_span_says(
    tmp_path: Path, config: Config, effective: float, expires: float, is_in_force: bool, until: float | None
) -> None:
    """In force, over, or still to come; an end that never comes is null."""
    (order,) = told(tmp_path, config, Ban("ban", RULES, effective=effective, expires=expires))["orders"]  # type: ignore[misc]

    assert (order["in_force"], order["in_force_from"], order["in_force_until"]) == (is_in_force, effective, until)
    assert order["spans"] == [[effective, until]]


def test_the_banner_says_where_what_and_what_to_try(tmp_path: Path, config: Config) -> None:
    """A listener on all addresses is tried on the loopback one; port 53 needs no -p."""
    text = banner(
        told(tmp_path, config, Ban("ban", RULES), Ban("later", RULES, effective=9e9)), config, StatePaths(tmp_path)
    )

    assert "answers on 0.0.0.0:53 (UDP and TCP)" in text
    assert "ban (nxdomain, enforce, for " in text
    assert "announced, in force from 2255-" in text
    assert text.endswith("Try: interdict explain wechat.com")


def test_the_banner_proposes_a_name_that_is_withheld_here(tmp_path: Path, config: Config) -> None:
    """Where an enforced order binds this machine itself, one of its names; else `explain`, which asks nobody."""
    groups = {"all": ("0.0.0.0/0", "::/0")}
    terms, names = terms_and_names([Ban("ban", RULES, groups=("all",))], groups)
    (tmp_path / "00000001.generation").write_bytes(write_generation(terms, names, serial=1, at=0.0)[0])
    found = policy_status(tmp_path / "00000001.generation", config, tmp_path, workers=1, restarts={})

    assert found["withheld_here"] == "chat.example"


def test_a_server_without_upstreams_says_so(tmp_path: Path) -> None:
    """Where the only upstream is the server itself there is none."""
    config = configuration.read(
        'listen: ["127.0.0.1:5300"]\nupstreams: [{address: 127.0.0.1, port: 5300}]\nmetrics: {listen: null}\n', "x"
    )
    text = banner(told(tmp_path, config, Ban("ban", RULES)), config, StatePaths(tmp_path))

    assert "none: names that are not banned get SERVFAIL" in text
    assert "metrics" not in text


def test_the_recorder_gets_whole_files_only(tmp_path: Path, config: Config) -> None:
    """The file is replaced, not rewritten, and is JSON without infinities."""
    paths = StatePaths(tmp_path / "state")
    paths.make()
    status = policy_status(generation_file(tmp_path, Ban("ban", RULES)), config, tmp_path, workers=2, restarts={})
    write_status(paths, status)
    before = paths.status.stat().st_ino
    write_status(paths, {**status, "restarts": {"worker": 1}})

    found = json.loads(paths.status.read_text(), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert (found["restarts"], found["generation"]) == ({"worker": 1}, 3)
    assert paths.status.stat().st_ino != before
    assert [path.name for path in paths.run.iterdir()] == ["status.json"]


# ---- exemptions that end --------------------------------------------------------------------------------------------

DAY = 86400.0


def endings(until: float) -> Endings:
    """One exemption that ends then."""
    made = Endings()
    made.take_in([{"id": "lab", "until": until}])
    return made


def test_an_end_is_told_thirty_seven_and_one_days_before_and_when_it_is_there() -> None:
    """Each once, however often it is looked for."""
    watched = endings(100 * DAY)
    said = {day: watched.due(day * DAY) for day in (60.0, 69.9, 70.0, 71.0, 93.0, 98.0, 99.0, 99.5, 100.0, 101.0)}

    assert {day for day, lines in said.items() if lines} == {70.0, 93.0, 99.0, 100.0}
    assert said[70.0] == ["exemption lab ends 1970-04-11T00:00Z, in 30 d; renew it or let it end"]
    assert said[100.0] == ["exemption lab has ended (1970-04-11T00:00Z); the orders bind its devices again"]


def test_warnings_that_were_missed_are_not_made_up_for() -> None:
    """A server that starts five days before tells that alone; one that starts later tells nothing."""
    assert len(endings(100 * DAY).due(95 * DAY)) == 1
    assert endings(100 * DAY).due(101 * DAY) == []


def test_a_renewed_exemption_is_told_of_again() -> None:
    """Its new end is another end."""
    watched = endings(100 * DAY)
    watched.due(99 * DAY)
    watched.take_in([{"id": "lab", "until": 120 * DAY}])

    assert [line[:24] for line in watched.due(99 * DAY)] == ["exemption lab ends 1970-"]


def test_the_state_of_a_copy_is_told_with_its_zone(tmp_path: Path, config: Config) -> None:
    """Entries from the policy, times and failures from the state beside the copy."""
    terms, names = terms_and_names([])
    zone = ZoneEntry("list:ads", ZoneKind.LIST, (), Mode.ENFORCE, (), source="https://l.example", entries=7, refused=1)
    octets, _ = write_generation(replace(terms, zones=(zone,)), names, serial=1, at=0.0)
    (tmp_path / "00000001.generation").write_bytes(octets)
    write_state(tmp_path, "ads", State(url="https://l.example", fetched_at=5.0, checked_at=6.0, failures=3, error="no"))
    status = policy_status(tmp_path / "00000001.generation", config, tmp_path, workers=1, restarts={})

    (told,) = status["zones"]
    assert (told["id"], told["entries"], told["refused"], told["fetched_at"], told["failures"], told["error"]) == (
        "list:ads", 7, 1, 5.0, 3, "no",
    )  # fmt: skip
