"""The verb: what it takes, what it prints where, what it exits with."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from resolver.cli.main import interdict
from resolver.cli.preview import FORMATS
from resolver.evidence.past import Format
from tests.support.server import order


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration with an order of the year 2040, and a log."""
    documents = order("ban", "chat.example", effective="2040-01-01T00:00:00Z")
    for kind, document in zip(("apps", "orders"), documents, strict=True):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"{document['id']}.yaml").write_text(json.dumps(document))
    config: dict[str, Any] = {"policy": {"documents": [str(tmp_path)], "orders": []}}
    (tmp_path / "i.yaml").write_text(json.dumps(config))
    lines = [
        f"2026-11-{day:02}T12:00:00Z client 192.0.2.1#5 (chat.example): query: chat.example IN A +\n"
        for day in range(1, 6)
    ]
    (tmp_path / "q.log").write_text("".join(lines))
    return tmp_path


def run(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(interdict, ["preview", "--config", str(folder / "i.yaml"), *words])


def test_the_formats_are_those_that_can_be_read() -> None:
    """--format takes what the readers have; the verb does not load them to say so."""
    assert tuple(form.value for form in Format) == FORMATS


def test_logs_are_given_after_against_or_alone(folder: Path) -> None:
    """Any number of them, as shells write them out; each counts once."""
    logs = [str(folder / f"{name}.log") for name in "qrs"]
    for copy in logs[1:]:
        shutil.copy(logs[0], copy)

    for words in (["--against", *logs], ["--against", logs[0], "--against", *logs[1:]], ["--against", *logs, logs[0]]):
        said = run(folder, "ban", *words, "--json")
        assert said.exit_code == 0, said.output
        assert json.loads(said.stdout)["impact"]["new"] == 15


@pytest.mark.parametrize(
    ("words", "new"),
    [
        (["--since", "2026-11-03"], 3),
        (["--until", "2026-11-03"], 2),
        (["--since", "2026-11-02T12:00:00Z", "--until", "2026-11-04T00:00:00+00:00"], 2),
        (["--format", "bind"], 5),
        (["--format", "dnsmasq"], 0),
        (["--group", "everyone", "--app", "app-ban", "--include-optional"], 5),
    ],
)
def test_options_narrow_what_is_previewed(folder: Path, words: list[str], new: int) -> None:
    """Times with their offset, or a day in UTC; formats, groups, apps."""
    said = run(folder, "ban", "--against", str(folder / "q.log"), "--json", *words)

    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["impact"]["new"] == new


def test_people_get_text(folder: Path) -> None:
    """By default."""
    said = run(folder, "ban", "--against", str(folder / "q.log"), "--top", "1")

    assert said.exit_code == 0
    assert "new           5 queries of 1 device would be withheld anew" in said.stdout


def test_a_page_is_written_where_it_is_wanted(folder: Path) -> None:
    """And one line says what is in it."""
    said = run(folder, "ban", "--against", str(folder / "q.log"), "--html", str(folder / "p.html"))

    assert said.exit_code == 0
    assert said.stdout == f"{folder}/p.html: 5 new hits of 5 queries\n"
    assert (folder / "p.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("words", "code", "mend"),
    [
        (["ban"], 2, "write --against and a log"),
        (["ban", "--against", "q.log", "--json", "--html", "p.html"], 2, "write one of them"),
        (["ban", "--against", "q.log", "--since", "soon"], 2, "write a date such as"),
        (["ban", "--against", "q.log", "--format", "syslog"], 2, "is not one of"),
        (["bann", "--against", "q.log"], 1, 'did you mean "ban"'),
        (["ban", "--against", "q.log", "--group", "nobody"], 1, "write one of: everyone"),
        (["ban", "--against", "gone.log"], 1, "give a log, or a folder of logs"),
        (["ban", "--against", "i.yaml"], 1, "name it with --format"),
        (["ban", "--against", "q.log", "--html", "gone/p.html"], 1, "name a file that this user may write"),
    ],
)
def test_mistakes_end_with_a_mend(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, mend: str
) -> None:
    """Usage ends with 2, what can not be previewed with 1; on standard error, without a traceback."""
    monkeypatch.chdir(folder)
    said = run(folder, *words)

    assert said.exit_code == code, said.output
    assert mend in re.sub(r"\s+", " ", said.stderr)
    assert said.stdout == ""


def test_a_broken_configuration_ends_with_2(folder: Path) -> None:
    """Each problem with its place."""
    (folder / "i.yaml").write_text("nonsense: 1\n")
    said = run(folder, "ban", "--against", str(folder / "q.log"))

    assert said.exit_code == 2
    assert f"{folder}/i.yaml:1:1" in said.stderr
