"""What runs, told to people and to the recorder."""

import json
from pathlib import Path

import pytest

from resolver import config as configuration
from resolver.app.machine import StatePaths
from resolver.app.status import banner, policy_status, running_status, write_status
from resolver.config import Config
from resolver.observe.cells import Cells
from resolver.policy.generation import write_generation
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
    policy_told = policy_status(generation_file(tmp_path, *bans), config, workers=2, restarts={"worker": 1})
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
    found = policy_status(tmp_path / "00000001.generation", config, workers=1, restarts={})

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
    status = policy_status(generation_file(tmp_path, Ban("ban", RULES)), config, workers=2, restarts={})
    write_status(paths, status)
    before = paths.status.stat().st_ino
    write_status(paths, {**status, "restarts": {"worker": 1}})

    found = json.loads(paths.status.read_text(), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert (found["restarts"], found["generation"]) == ({"worker": 1}, 3)
    assert paths.status.stat().st_ino != before
    assert [path.name for path in paths.run.iterdir()] == ["status.json"]
