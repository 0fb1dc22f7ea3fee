"""The bench of encrypted transports measures at all: each route, its checks, and the price of an answer."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not {0, 1} <= os.sched_getaffinity(0), reason="the bench needs cores 0 and 1")
def test_every_route_has_its_tables(tmp_path: Path, peer: Callable[[str], str]) -> None:
    """`run encrypted` asks by TLS, HTTPS and QUIC, and prints what each costs."""
    for program in ("gcc", "knotd", "dnsperf", "h2load", "curl", "kdig", "openssl"):
        peer(program)
    interdict = tmp_path / "interdict"
    interdict.write_text(f"#!/bin/sh\nPYTHONPATH='{ROOT}' exec '{sys.executable}' -m resolver \"$@\"\n")
    interdict.chmod(0o755)
    command: list[str | Path] = [
        Path(__file__).with_name("run"),
        "encrypted",
        "--interdict",
        interdict,
        "--servers",
        "interdict-plain",
    ]
    command += ["--rounds", "1", "--seconds", "0.3", "--distinct", "200", "--listed", "20", "--noise", "100"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| interdict-plain |") == 8, "four routes, blocked and cached"
