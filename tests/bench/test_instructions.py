"""The compiled loop stays as quick as it is: instructions are counted, not time, so that any machine can tell."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from resolver.hot._templates_cy import fills_batches
from tests.support.peers import skip_or_fail

ROOT = Path(__file__).parents[2]
READING = r"_scan_cy_\d+scan_query"
LOOP = (r"Batch__answer_compiled",)
RELAY = (r"Relay__offer_compiled", r"Relay__write_compiled", r"Relay__take_compiled")

# By how many times the instructions of one `scan_query` over the same query, built by the same compiler: what was
# measured (2.35, 10.7 and 29.9), and a quarter more.
BOUNDS = {"ready": (LOOP, 2.9), "templates": (LOOP, 13.4), "relayed": (RELAY, 37.0)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOUNDS)
def test_a_query_takes_no_more_instructions_than_it_did(peer: Callable[[str], str], tmp_path: Path, kind: str) -> None:
    """From memory, a template or an upstream's reply, beside the reading of the same queries in the same run."""
    valgrind, annotate = peer("valgrind"), peer("callgrind_annotate")
    if not fills_batches():
        skip_or_fail("resolver.hot is not compiled (Debian packages gcc and libc6-dev, then tests/run)")
    out = tmp_path / "callgrind"
    work = [sys.executable, str(ROOT / "tests/bench/instructions.py"), kind]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    counted = [valgrind, "--tool=callgrind", f"--callgrind-out-file={out}", *work]
    subprocess.run(counted, env=environment, check=True, capture_output=True, timeout=300)
    report = subprocess.run(
        [annotate, "--inclusive=yes", "--threshold=100", "--auto=no", str(out)],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip

    functions, bound = BOUNDS[kind]
    taken = sum(instructions(report, one) for one in functions) / instructions(report, READING)

    assert taken <= bound, f"{taken:.1f} times the instructions of reading a query"
    assert taken > bound / 2, f"{taken:.1f}: much less than the bound, which is to be brought near again"


def instructions(report: str, function: str) -> int:
    """What a function took with all that it called; what was inlined into it from other files has lines of its own."""
    found = re.findall(rf"^ *([0-9,]+) \([^)]*\) +\S*{function} \[", report, re.MULTILINE)
    assert found, f"{function} was not called, or its name was stripped from the library"
    return max(int(number.replace(",", "")) for number in found)
