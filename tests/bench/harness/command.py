"""The command line, and the order of events: start all, check all, then rounds A B C, C B A with one server awake."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from harness import machine, work
from harness.errand import add_arguments, carry_out
from harness.load import GENERATORS, Generator, Run, build
from harness.report import Measured, Session, markdown
from harness.servers import SERVERS, Floor, Server, Upstream

TABLES = {
    "answers": (("blocked", "cached"), False),
    "unique": (("unique",), False),
    "mixed": (("mixed",), False),
    "forwarded": (("forwarded",), False),
    "latency": (("blocked", "cached"), True),
    "memory": ((), False),
}


def main(words: Sequence[str]) -> int:
    """Run the command and return its exit code: 0, 1 if a table is refused, 2 if the bench cannot run here."""
    arguments = _arguments(words)
    if arguments.check:
        # What it stands for, and not what the defaults are, is told with the table.
        arguments.generator, arguments.edns, arguments.listed, arguments.distinct = "blast", False, 1000, 1000
        arguments.rounds, arguments.seconds, arguments.noise = 1, 0.3, 1.0
        failures: list[str] = []
        return carry_out(arguments, Session, (), partial(_check, failures), markdown, lambda session: failures)
    chosen = [SERVERS[name] for name in arguments.servers]
    needed: list[type[Server | Generator]] = [Floor, Upstream, GENERATORS[arguments.generator], *chosen]
    return carry_out(
        arguments, Session, needed, partial(_measure, arguments, chosen), markdown, Session.refusals,
        ", or choose others with --servers or --generator",
    )  # fmt: skip


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests/bench/run",
        description="Measure Interdict beside its peers by the CPU time of one answered query.",
        epilog="Tables: answers (blocked and cached), unique, mixed, forwarded, latency, memory; all is all of them.",
    )
    parser.add_argument("tables", nargs="*", metavar="TABLE", default=["answers"], help="default: answers")
    parser.add_argument("--servers", default=",".join(SERVERS), help="some of: %(default)s")
    parser.add_argument("--generator", choices=GENERATORS, default="blast", help="what loads (default blast)")
    parser.add_argument("--listed", type=int, default=1000, help="names listed (default 1000)")
    parser.add_argument("--edns", action="store_true", help="ask with an OPT record")
    parser.add_argument("--retries", type=int, default=3, help="how often a noisy run is repeated (default 3)")
    add_arguments(parser, rounds=5, seconds=3.0, distinct=100_000)
    parser.add_argument("--check", action="store_true", help="try the machinery for a moment on the floor alone")
    arguments = parser.parse_args(words)
    if "all" in arguments.tables:
        arguments.tables = list(TABLES)
    arguments.servers = arguments.servers.split(",")
    for chosen, known in ((arguments.tables, TABLES), (arguments.servers, SERVERS)):
        if unknown := set(chosen) - set(known):
            parser.error(f"{', '.join(sorted(unknown))}: unknown; choose from {', '.join(known)}")
    if arguments.generator == "dnsperf" and not {"answers", "memory"}.issuperset(arguments.tables):
        parser.error("--generator dnsperf is for the table answers: the others need running numbers or percentiles")
    if min(arguments.rounds, arguments.listed, arguments.distinct, arguments.seconds) <= 0:
        parser.error("--rounds, --seconds, --listed and --distinct are above 0")
    return arguments


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@contextmanager
def _running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _question_file(folder: Path, name: str, lines: Iterator[str]) -> Path:
    path = folder / f"{name}.questions"
    with path.open("w") as out:
        out.writelines(lines)
    return path


def _measure(
    arguments: argparse.Namespace, chosen: list[type[Server]], session: Session, folder: Path, stack: ExitStack
) -> None:
    wanted = [(name, paced) for table in arguments.tables for names, paced in [TABLES[table]] for name in names]
    blast, Floor.binary = build(folder)
    upstream = stack.enter_context(_running(Upstream(folder / "knot", 0, 0)))
    generator = GENERATORS[arguments.generator](blast, upstream, arguments.edns)
    warm = _question_file(folder, "warm", work.warm_questions())
    files = {
        name: _question_file(folder, name, work.questions(work.WORKLOADS[name], arguments.listed, arguments.distinct))
        for name in dict.fromkeys(name for name, _ in wanted)
    }
    repeating = [files[name] for name in files if name in ("blocked", "cached")]
    awake = []
    for kind in chosen:
        server = kind(folder / kind.name, arguments.listed, upstream.port)
        awake.append(stack.enter_context(_running(server)))
        session.servers.append(_prepare(server, generator, [warm, warm, *repeating]))
        server.freeze()
    for round in range(arguments.rounds if wanted else 0):
        for name, paced in wanted:
            for server in awake if round % 2 == 0 else reversed(awake):
                server.thaw()
                run = _quiet_run(generator, server, files[name], work.WORKLOADS[name], paced, round, arguments)
                server.freeze()
                session.runs.append(run)
                _say(_line(run))
    for server, measured in zip(awake, session.servers, strict=True):
        measured.memory_after = machine.memory_by_role(server.pid)


def _prepare(server: Server, generator: Generator, passes: list[Path]) -> Measured:
    """Check a server that has just started, and warm it with what it will be asked."""
    started = machine.memory_by_role(server.pid)
    server.check()
    for questions in passes:
        generator.warm(server, questions)
    version = server.version()
    _say(f"{server.name} {version}: up after {server.start_s:.2f} s, answers rightly")
    return Measured(server.name, version, server.start_s, started, machine.memory_by_role(server.pid))


def _quiet_run(
    generator: Generator,
    server: Server,
    questions: Path,
    workload: work.Workload,
    paced: bool,
    round: int,
    arguments: argparse.Namespace,
) -> Run:
    """Measure until neighbours leave the cores alone; of noisy runs, keep the least disturbed."""
    best: Run | None = None
    for attempt in range(arguments.retries + 1):
        run = generator.measure(server, workload, questions, arguments.seconds, paced, round, attempt)
        if run.complaint or run.noise() <= arguments.noise:
            return run
        if best is None or run.noise() < best.noise():
            best = run
        _wait_for_quiet(arguments.noise)
    assert best is not None
    return best


def _wait_for_quiet(noise: float) -> None:
    """Wait until both cores are idle for half a second but for `noise`, or for twenty seconds."""
    cores = (machine.SERVER_CORE, machine.LOAD_CORE)
    for _ in range(40):
        before = [machine.core_busy_s(core) for core in cores]
        time.sleep(0.5)
        if all(machine.core_busy_s(core) - then <= 0.5 * noise for core, then in zip(cores, before, strict=True)):
            return


def _line(run: Run) -> str:
    return (
        f"round {run.round + 1} {run.workload:9} {run.server:15} {run.answered / run.seconds:9,.0f}/s "
        f"{run.cost_us:6.2f} µs  busy {run.busy:.2f}  mean latency {run.mean_us:.0f} µs  "
        f"foreign {run.foreign_server:.2f} {run.foreign_load:.2f}  {run.complaint or ''}"
    )


def _check(failures: list[str], session: Session, folder: Path, stack: ExitStack) -> None:
    """Measure the floor for a moment, then see that answers which are wrong are found and refused."""
    blast, Floor.binary = build(folder)
    floor = stack.enter_context(_running(Floor(folder / "floor", 1000, 0)))
    generator = Generator(blast, floor, edns=False)
    blocked = work.WORKLOADS["unique"]
    questions = _question_file(folder, "unique", work.questions(blocked, 1000, 1000))
    good = generator.measure(floor, blocked, questions, 0.3, False, 0, 0)
    floor.echoes = False
    bad = generator.measure(floor, blocked, questions, 0.1, False, 0, 0)
    session.runs.append(good)
    if good.complaint or good.answered < 1000:
        failures.append("the floor answered nothing, or wrongly")
    if good.cost_us <= 0:
        failures.append("the floor used no CPU time")
    if not bad.complaint or bad.unexpected != bad.answered:
        failures.append("wrong answers were not noticed")
    failures += session.refusals()
