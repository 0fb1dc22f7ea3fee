"""The operator's guide, the example configuration and the systemd unit hold what they say."""

import re
import shlex
import sqlite3
import subprocess
import time
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resolver.app import machine
from resolver.app.compiler import compile_policy
from resolver.app.supervisor import RECORDER_STOP_SECONDS, STOP_SECONDS
from resolver.cli.check import look_over
from resolver.cli.main import interdict
from resolver.config import Config, read
from resolver.engine.special import SpecialNames
from resolver.evidence.store import Store
from resolver.observe.metrics import METRICS
from resolver.observe.record import Gap, Hit
from resolver.observe.spool import Chunk
from resolver.policy.documents import ORDER_ACTIONS, Action, Mode
from resolver.wire import name as names
from resolver.wire.message import read_query
from tests.support.build import query

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
GUIDE = (DEPLOY / "README.md").read_text()
EXAMPLE = DEPLOY / "interdict.example.yaml"
TESTS_GUIDE = (ROOT / "tests" / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The guide's fenced blocks of a language, without the indentation of a list."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", GUIDE, re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def rows(heading: str) -> dict[str, list[str]]:
    """A table of the guide, found by its first heading: the cells behind each first cell, which is written as code."""
    table = re.search(rf"^\| {heading} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", GUIDE, re.MULTILINE)
    assert table is not None, heading
    cells = [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in table[1].splitlines()]
    return {first.strip(" `|"): rest for first, *rest in cells}


# ---- the example ----------------------------------------------------------------------------------------------------


def test_the_example_configuration_is_sound() -> None:
    """It loads, compiles with the shipped catalogue, and draws no warning."""
    config = read(EXAMPLE.read_text(), EXAMPLE.name)
    compiled = compile_policy(config, EXAMPLE.name, serial=1, at=time.time())

    assert look_over(config, EXAMPLE.name, compiled, time.time()).warnings == ()
    assert len(config.groups) == 2
    assert [line.order for line in config.policy.orders if line.mode is Mode.OBSERVE] == ["ca-tbs-2025-02-06"]
    assert {line.action for line in config.policy.orders if line.mode is Mode.ENFORCE} == {Action.SINKHOLE}


# ---- the unit -------------------------------------------------------------------------------------------------------


def unit() -> dict[str, list[str]]:
    """Every setting of the unit; one that is written twice has two values."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "interdict.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, setting = line.partition("=")
            found.setdefault(key, []).append(setting)
    return found


@pytest.mark.parametrize(("setting", "verb"), [("ExecStart", "serve"), ("ExecReload", "reload")])
def test_the_unit_calls_verbs_that_exist(setting: str, verb: str) -> None:
    """With the configuration that the command line finds by itself, so that both mean the same server."""
    program, *arguments = shlex.split(unit()[setting][0])

    assert Path(program).name == "interdict"
    assert arguments == [verb, "--config", str(machine.SYSTEM_CONFIG)]
    assert verb in interdict.commands


def test_the_unit_waits_until_evidence_is_stored() -> None:
    """systemd kills nobody before the supervisor would."""
    assert float(unit()["TimeoutStopSec"][0].removesuffix("s")) > STOP_SECONDS + RECORDER_STOP_SECONDS
    assert unit()["KillMode"] == ["mixed"]


def test_the_unit_and_the_example_name_one_state_folder() -> None:
    """A shell's `interdict status` finds the service."""
    config = read(EXAMPLE.read_text(), EXAMPLE.name)

    assert config.state_dir == f"/var/lib/{unit()['StateDirectory'][0]}"


def test_a_wrong_configuration_is_not_started_again_and_again() -> None:
    """Exit code 2 ends it, other failures do not."""
    assert unit()["Restart"] == ["on-failure"]
    assert unit()["RestartPreventExitStatus"] == ["2"]


# ---- the guide ------------------------------------------------------------------------------------------------------


def as_written(default: object) -> str:
    """A default as the guide writes it."""
    if default is None:
        return "null"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list):
        return f"[{', '.join(map(as_written, default))}]"
    if isinstance(default, dict):
        return f"{{{', '.join(f'{key}: {as_written(value)}' for key, value in default.items())}}}"
    return str(default)


def models_in(annotation: object) -> Iterator[type]:
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from models_in(argument)


def defaults(model: typing.Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and default of every option and list; sections of their own have none."""
    for name, field in model.model_fields.items():
        if field.default_factory is None:
            yield f"{prefix}{name}", "required" if field.is_required() else f"`{as_written(field.default)}`"
        for inner in models_in(field.annotation):
            yield from defaults(inner, f"{prefix}{name}.")


def test_options_have_the_defaults_that_the_guide_says() -> None:
    """And the guide lists no option that there is not."""
    assert {path: cells[0] for path, cells in rows("option").items()} == dict(defaults(Config))


def test_metrics_have_the_types_and_labels_that_the_guide_says() -> None:
    """And the guide lists no metric that there is not."""
    assert {name: cells[:2] for name, cells in rows("metric").items()} == {
        metric.name: [str(metric.kind), " ".join(f"`{label}`" for label in metric.labels)] for metric in METRICS
    }


def test_every_action_is_in_the_guides_table_of_answers() -> None:
    """Those of orders, and those that only policy zones have."""
    of_orders = {action.value for action in ORDER_ACTIONS}

    assert set(rows("action")) == of_orders
    assert set(rows("a zone's")) == {action.value for action in Action} - of_orders


HITS = [
    Hit(1_790_860_000_000_000, "10.20.1.1", 4000, 7, "phones", "udp", "wechat.com", "A", "ca-tbs-2023-10-30", "wechat",
        "suffix wechat.com", "nxdomain", "NXDOMAIN", 16, "enforce"),
    Hit(1_790_860_001_000_000, "10.20.1.1", 4001, 7, "phones", "tcp", "wechat.com", "HTTPS", "ca-tbs-2023-10-30",
        "wechat", "suffix wechat.com", "nxdomain", "NXDOMAIN", 16, "enforce"),
    Hit(1_790_860_002_000_000, "2001:db8::7", 4002, 7, "", "udp", "deepseek.com", "A", "ca-tbs-2025-02-06", "deepseek",
        "suffix deepseek.com", "nxdomain", "NOERROR", None, "observe"),
    Hit(1_790_860_003_000_000, "2001:db8::8", 4003, 7, "", "udp", "deepseek.com", "A", "ca-tbs-2025-02-06", "deepseek",
        "suffix deepseek.com", "nxdomain", "NOERROR", None, "observe"),
]  # fmt: skip


@pytest.fixture
def evidence(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The store's own database, with four hits of 2026-10-01 and a gap, opened as the guide says."""
    store = Store("dns-1", tmp_path / "hits.sqlite", None)
    store.put([Chunk("w000-1790860000000000.spool", 1000, [*HITS, Gap(192, HITS[3].time_us, HITS[3].time_us + 10)])])
    db = sqlite3.connect(f"file:{tmp_path / 'hits.sqlite'}?mode=ro", uri=True)
    yield db
    db.close()
    store.close()


def test_the_guides_sql_answers_an_auditor(evidence: sqlite3.Connection) -> None:
    """Every query runs on a store as the recorder makes it, and finds what its sentence promises."""
    would_withhold, devices, days, gaps = (evidence.execute(sql).fetchall() for sql in blocks("sql"))

    assert would_withhold == [("deepseek", "deepseek.com", 2, 2)]
    assert devices == [("10.20.1.1", "phones", "wechat", 2, "2026-10-01 13:06:40", "2026-10-01 13:06:41")]
    assert days == [
        ("2026-10-01", "ca-tbs-2023-10-30", "wechat", "enforce", "NXDOMAIN", 2, 1),
        ("2026-10-01", "ca-tbs-2025-02-06", "deepseek", "observe", "NOERROR", 2, 2),
    ]
    assert gaps == [("dns-1", "2026-10-01 13:06:43", "2026-10-01 13:06:43", 192)]


def test_the_guide_describes_the_columns_that_there_are(evidence: sqlite3.Connection) -> None:
    """All of `hit`, and no other."""
    described = {column for first in rows("column of `hit`") for column in re.findall(r"\w+", first)}

    assert described == {column for _, column, *_ in evidence.execute("PRAGMA table_info(hit)")}


def test_the_guides_json_lines_have_the_keys_that_are_written(tmp_path: Path) -> None:
    """A hit and a gap, key by key in their order."""
    store = Store("dns-1", None, tmp_path)
    store.put([Chunk("w000-1790860000000000.spool", 1000, [HITS[0], Gap(192, HITS[0].time_us, HITS[0].time_us)])])
    store.close()
    written = next(tmp_path.glob("hits-*.jsonl")).read_text()

    def keys(lines: str) -> list[list[str]]:
        return [re.findall(r'"(\w+)":', line) for line in lines.splitlines()]

    assert keys(blocks("json")[0]) == keys(written)


@pytest.mark.parametrize("text", [block for block in blocks("yaml") if block.startswith("# interdict.yaml")])
def test_the_guides_configurations_can_be_read(text: str) -> None:
    """Each is sound by itself."""
    assert read(text, "guide") != Config()


def test_the_names_that_the_guide_hands_back_are_special() -> None:
    """`special_use.forward` in the guide names what would be answered here otherwise."""
    zones = read(next(block for block in blocks("yaml") if "special_use" in block), "guide").special_use.forward
    questions = [read_query(query(f"host.{zone}")) for zone in zones]
    handed_back = SpecialNames(tuple(map(names.from_text, zones)), "dns-1", "1", str)

    assert questions
    assert None not in map(SpecialNames((), "dns-1", "1", str).answer, questions)
    assert {handed_back.answer(question) for question in questions} == {None}


@pytest.mark.e2e
def test_prometheus_takes_what_the_guide_gives_it(tmp_path: Path, peer: Callable[[str], str]) -> None:
    """promtool finds nothing wrong with the scrape configuration."""
    file = tmp_path / "prometheus.yml"
    file.write_text(next(block for block in blocks("yaml") if block.startswith("# prometheus.yml")))

    checked = subprocess.run([peer("promtool"), "check", "config", str(file)], capture_output=True, text=True)

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("guide", [GUIDE, TESTS_GUIDE], ids=["deploy", "tests"])
def test_every_path_in_the_guides_exists(guide: str) -> None:
    """What is written as a path of the checkout is one."""
    paths = re.findall(r"(?<![\w/.$-])((?:deploy|tests|resolver|blocklists|\.ci)/[\w./-]*[a-z]|README\.md)", guide)

    assert len(paths) > 5
    assert sorted({path for path in paths if not (ROOT / path).exists()}) == []


def test_the_guides_links_lead_somewhere() -> None:
    """Every #anchor is a heading."""
    headings = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", GUIDE, re.M)
    }

    assert set(re.findall(r"\]\(#([\w-]+)\)", GUIDE)) <= headings


def test_every_metric_in_the_text_is_one() -> None:
    """A metric that was renamed is not named by its old name anywhere."""
    assert set(re.findall(r"interdict_\w+", GUIDE)) <= {metric.name for metric in METRICS}
