"""The verbs that run a server or speak with one: what is printed where, and the exit codes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]
Answering = Callable[[Path, dict[str, object]], Any]


@pytest.mark.parametrize("verb", ["status", "reload", "fetch"])
def test_a_server_that_does_not_run_is_told(run: Run, verb: str, tmp_path: Path) -> None:
    """Exit code 1, and how to start one."""
    said = run("", verb)

    assert (said.exit_code, said.stdout) == (1, "")
    assert f"no server is running with the state folder {tmp_path / 'state'}; start one" in said.stderr


def test_serve_refuses_a_broken_configuration(run: Run) -> None:
    """Every reason on standard error, exit code 2, nothing started."""
    said = run("policy: {orders: [{order: nowhere, groups: [everyone]}]}", "serve")

    assert said.exit_code == 2
    assert '"nowhere"' in said.stderr
    assert "ca-tbs-2023-10-30" in said.stderr


@pytest.mark.parametrize(
    ("words", "answer", "code", "out", "err"),
    [
        (["reload"], {"ok": True, "generation": 7, "warnings": ["odd"]}, 0, "generation 7 is in force\n",
         "warning: odd\n"),
        (["reload"], {"ok": False, "generation": 6, "problems": ["x.yaml:1:1: odd"]}, 1, "",
         "x.yaml:1:1: odd\nnot reloaded; generation 6 stays in force\n"),
        (["fetch"], {"zones": ["ads", "rpz.example"]}, 0,
         "looking after ads, rpz.example; `interdict status` shows how it went\n", ""),
        (["fetch"], {"zones": []}, 0,
         "no list or zone is kept elsewhere; those on this machine are read by `interdict reload`\n", ""),
        (["fetch"], {"problems": ["no such verb"]}, 1, "",
         "the running server knows no `fetch`: it is of another version; restart it\n"),
        (["status"], {"version": "9.9.9"}, 0, None, ""),
    ],
)  # fmt: skip
def test_what_a_server_answers_is_told(
    run: Run,
    supervisor: Answering,
    tmp_path: Path,
    words: list[str],
    answer: dict[str, object],
    code: int,
    out: str | None,
    err: str,
) -> None:
    """Results on standard output, what is wrong on standard error."""
    server = supervisor(tmp_path / "state" / "run", answer)
    said = run("", *words)
    server.join()

    assert server.heard == {"verb": words[0]}
    assert (said.exit_code, said.stderr) == (code, err)
    assert said.stdout == out if out is not None else "9.9.9" in said.stdout


@pytest.mark.parametrize(
    ("verb", "answer", "code"),
    [
        ("status", {"generation": 7}, 0),
        ("reload", {"ok": True, "generation": 7}, 0),
        ("reload", {"ok": False, "problems": ["odd"]}, 1),
        ("fetch", {"zones": ["ads"]}, 0),
    ],
)
def test_programs_get_the_answer_as_it_came(
    run: Run, supervisor: Answering, tmp_path: Path, verb: str, answer: dict[str, object], code: int
) -> None:
    """Also from a state folder that the configuration does not know of, even where that is broken."""
    server = supervisor(tmp_path / "elsewhere" / "run", answer)
    said = run("workers: many", verb, "--json", "--state-dir", str(tmp_path / "elsewhere"))
    server.join()

    assert (said.exit_code, json.loads(said.stdout), said.stderr) == (code, answer, "")
