"""The bench of long lists measures at all: look-ups, memory, a reload under load."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not {0, 1} <= os.sched_getaffinity(0), reason="the bench needs cores 0 and 1")
def test_lists_of_two_lengths_are_compared(tmp_path: Path, peer: Callable[[str], str]) -> None:
    """`run names` fills its four tables."""
    for program in ("gcc", "knotd"):
        peer(program)
    interdict = tmp_path / "interdict"
    interdict.write_text(f"#!/bin/sh\nPYTHONPATH='{ROOT}' exec '{sys.executable}' -m resolver \"$@\"\n")
    interdict.chmod(0o755)
    command = [Path(__file__).with_name("run"), "names", "--interdict", interdict, "--kinds", "plain"]
    command += ["--lengths", "10,2000", "--rounds", "1", "--seconds", "0.3", "--steady", "0.3", "--noise", "100"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| plain, 2,000 names |") == 3, "blocked, unique, memory"
    assert "| p99 |" in done.stdout
