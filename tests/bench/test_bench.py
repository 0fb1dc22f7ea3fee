"""The bench measures at all: its generator, its floor, its clocks and its refusal of wrong answers."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="the generator is compiled with gcc")
@pytest.mark.skipif(not {0, 1} <= os.sched_getaffinity(0), reason="the bench needs cores 0 and 1")
def test_the_bench_measures_the_floor_and_refuses_wrong_answers() -> None:
    """`run --check` measures the floor, and finds out a server whose answers are wrong."""
    command = [Path(__file__).with_name("run"), "--check"]
    checked = subprocess.run(
        command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stderr
    assert "| floor |" in checked.stdout


@pytest.mark.slow
@pytest.mark.skipif(not {0, 1} <= os.sched_getaffinity(0), reason="the bench needs cores 0 and 1")
def test_one_worker_is_compared_with_two(tmp_path: Path, peer: Callable[[str], str]) -> None:
    """`run workers` fills both tables."""
    for program in ("gcc", "knotd"):
        peer(program)
    interdict = tmp_path / "interdict"
    interdict.write_text(f"#!/bin/sh\nPYTHONPATH='{ROOT}' exec '{sys.executable}' -m resolver \"$@\"\n")
    interdict.chmod(0o755)
    command = [Path(__file__).with_name("run"), "workers", "--interdict", interdict, "--kinds", "plain"]
    command += ["--rounds", "1", "--seconds", "0.3", "--distinct", "1000", "--noise", "100"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| plain, 1 worker |") == done.stdout.count("| plain, 2 workers |") == 2


@pytest.mark.slow
@pytest.mark.skipif(not {0, 1} <= os.sched_getaffinity(0), reason="the bench needs cores 0 and 1")
def test_dnsperf_loads_as_well(peer: Callable[[str], str]) -> None:
    """`run answers --generator dnsperf` fills both tables from what dnsperf prints."""
    for program in ("gcc", "knotd", "dnsperf"):
        peer(program)
    command = [Path(__file__).with_name("run"), "answers", "--generator", "dnsperf", "--servers", "floor"]
    command += ["--rounds", "1", "--seconds", "0.5", "--distinct", "1000", "--noise", "100"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| floor |") == 3, "blocked, cached, memory"
