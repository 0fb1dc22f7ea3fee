"""The bench measures at all: its generator, its floor, its clocks and its refusal of wrong answers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


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
