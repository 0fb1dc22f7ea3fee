"""The list of generations, for people and programs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from resolver.app.history import Kept
from resolver.cli.history import show, to_json

Run = Callable[..., Result]
ROWS = [
    Kept(7, "0123456789abcdef", 1_900_000_000.0, 1_900_003_600.5, "start", 1200, 4096),
    Kept(8, "", 1_900_003_600.5, 1_900_007_200.0, "", 0, 10, "00000008.documents.gz is damaged or missing"),
    Kept(9, "fedcba9876543210", 1_900_007_200.0, None, "reload by uid 1000 (alice)", 1_000_000, 1 << 24),
]


def test_people_see_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """One line a generation, oldest first; what is damaged says so."""
    show(ROWS)

    assert (
        capsys.readouterr().out
        == """\
generation  digest        in force from         until                 names    made by
7           0123456789ab  2030-03-17T17:46:40Z  2030-03-17T18:46:40Z  1200     start
8                         2030-03-17T18:46:40Z  2030-03-17T19:46:40Z  0        damaged: 00000008.documents.gz is \
damaged or missing
9           fedcba987654  2030-03-17T19:46:40Z  now                   1000000  reload by uid 1000 (alice)
"""
    )


def test_without_generations_people_are_told_how_to_get_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Before the first start."""
    show([])

    assert capsys.readouterr().out == "no generation is kept; `interdict serve` makes the first\n"


def test_programs_get_every_field() -> None:
    """Whole digests, instants with their offset."""
    found = to_json(ROWS)

    assert [row["serial"] for row in found] == [7, 8, 9]
    assert found[0] == {
        "serial": 7, "digest": "0123456789abcdef", "compiled_at": "2030-03-17T17:46:40+00:00",
        "replaced_at": "2030-03-17T18:46:40.500000+00:00", "names": 1200, "made_by": "start", "octets": 4096,
        "damage": "",
    }  # fmt: skip
    assert (found[2]["replaced_at"], found[1]["damage"]) == (None, "00000008.documents.gz is damaged or missing")


def test_the_verb_reads_the_history_without_a_server(run: Run, tmp_path: Path) -> None:
    """An empty one is told in both forms; one that can not be read ends the verb with one sentence."""
    said, program = run("", "history"), run("", "history", "--json")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "generations").write_text("no folder")
    broken = run("", "history")

    assert (said.exit_code, said.stdout) == (0, "no generation is kept; `interdict serve` makes the first\n")
    assert (program.exit_code, program.stdout) == (0, "[]\n")
    assert (broken.exit_code, broken.stdout) == (1, "")
    assert "can not read the generations in" in broken.stderr
