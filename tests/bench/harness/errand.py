"""A command of the bench, whatever it measures: from its arguments to its exit code."""

import argparse
import dataclasses
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from harness import machine
from harness.servers import Interdict, WrongAnswer


class Report(Protocol):
    """What was measured, as a dataclass made of (date, machine, arguments, noise)."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class Program(Protocol):
    """A server or generator that may not be installed."""

    def executable(self) -> object:
        """Where it is."""
        ...


R = TypeVar("R", bound=Report)


def add_arguments(parser: argparse.ArgumentParser, *, rounds: int, seconds: float, distinct: int) -> None:
    """Add the options that all of them take, with these as defaults."""
    parser.add_argument("--rounds", type=int, default=rounds, help="interleaved rounds (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=seconds, help="length of one run (default %(default)s)")
    parser.add_argument("--distinct", type=int, default=distinct, help="asked before any repeats (default %(default)s)")
    parser.add_argument("--noise", type=float, default=0.06, help="share of a core others may take (default 0.06)")
    parser.add_argument("--interdict", metavar="PATH", help="the interdict command (default: on the PATH, or in .venv)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run here")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report here as well")


def carry_out(
    arguments: argparse.Namespace,
    made: Callable[[str, dict[str, Any], dict[str, Any], float], R],
    needed: Sequence[Program],
    measure: Callable[[R, Path, ExitStack], None],
    told: Callable[[R], str],
    refusals: Callable[[R], list[str]],
    or_else: str = "",
) -> int:
    """Measure and report; the exit code: 0, 1 if a table is refused, 2 if the bench cannot run here.

    Args:
        arguments: Of the command, `add_arguments` among them.
        made: Makes an empty report.
        needed: Programs it can not do without.
        measure: Fills the report, in a folder of its own.
        told: The report as Markdown.
        refusals: Why its tables are not to be believed.
        or_else: What to do where a program is missing.
    """
    if not {machine.SERVER_CORE, machine.LOAD_CORE} <= os.sched_getaffinity(0):
        print(f"bench: cores {machine.SERVER_CORE} and {machine.LOAD_CORE} are wanted", file=sys.stderr)
        return 2
    os.sched_setaffinity(0, {machine.LOAD_CORE})
    named = {key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()}
    report = made(datetime.date.today().isoformat(), machine.facts(), named, arguments.noise)
    Interdict.chosen = arguments.interdict
    try:
        for program in needed:
            program.executable()
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="interdict-bench-")))
            folder.chmod(0o755)  # servers that give up root still read their files
            measure(report, folder, stack)
    except machine.MissingProgram as missing:
        print(f"bench: {missing}{or_else}", file=sys.stderr)
        return 2
    except (WrongAnswer, subprocess.SubprocessError) as wrong:
        print(f"bench: nothing is reported: {wrong}", file=sys.stderr)
        return 1
    finally:
        if arguments.json:
            arguments.json.write_text(json.dumps(dataclasses.asdict(report), indent=1) + "\n")
    text = told(report)
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text)
    refused = refusals(report)
    for refusal in refused:
        print(f"bench: refused: {refusal}", file=sys.stderr)
    return 1 if refused else 0
