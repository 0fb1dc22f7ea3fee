"""What long lists cost: look-ups, memory, compiling, and answers while a list is taken in. `tests/bench/run names`.

Interdict alone, once for each length of the list, compiled and plain, beside the floor. The names come by a policy zone
from a file, as public lists do. Hits are not stored: the worker looks names up, and its CPU time alone is compared.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from harness import machine, work
from harness.errand import add_arguments, carry_out
from harness.load import Generator, Run, build
from harness.report import Session, table
from harness.servers import Floor, Hits, Interdict, Server, Upstream, WrongAnswer

_FLOOR, _WORKER, _COMPILER = "floor", "interdict-w", "interdict-cmp"
_ASKED = ("blocked", "unique")
_STEADY_RATE = 2_000
_STEADY = work.Workload("steady", "half blocked, half warm in the cache", blocked=0.5)
_RELOADED = 1_000_000  # names of the list that is taken in under load, where there is one so long
_LINES = 1 << 16  # written at a time
_TICK_S = 0.03
_MIB = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Compile:
    """One reload: seconds until the list acted, the compiler's CPU seconds, and the most memory it had at one time."""

    server: str
    seconds: float
    cpu_s: float
    peak_mib: float


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """Octets a listed name: in the generation file, and of that what is in the worker's memory after all was asked.

    `own_mib` is the worker's own memory, whatever it is for.
    """

    server: str
    listed: int
    searched: float
    pool: float
    resident: float
    own_mib: float


@dataclasses.dataclass(frozen=True, slots=True)
class Steady:
    """Answers at a steady rate before a reload, during it and after it; microseconds."""

    round: int
    asked: int
    lost: int
    p50_us: tuple[float, float, float]
    p99_us: tuple[float, float, float]
    reload_s: float
    loaded_s: float
    """How long of the reload the load lasted."""


@dataclasses.dataclass(slots=True)
class Report(Session):
    """Everything one call has found out; it is what the JSON file holds."""

    compiles: list[Compile] = dataclasses.field(default_factory=list)
    held: list[Held] = dataclasses.field(default_factory=list)
    steady: list[Steady] = dataclasses.field(default_factory=list)


# ---- the server -----------------------------------------------------------------------------------------------------


class Listing(Interdict):
    """Interdict with a list from a file; it starts with one name of it and takes the whole in by a reload."""

    takes_evidence = False

    def __init__(self, folder: Path, listed_names: int, upstream_port: int, plain: bool) -> None:
        super().__init__(folder, listed_names, upstream_port)
        self.name = _called(plain, listed_names)
        self.plain = plain
        self._list = folder / "names.txt"
        self._write([listed_names - 1])  # for which `is_ready` asks

    def hits(self) -> Hits:
        """None are stored."""
        return Hits(0, 0, 0)

    def begin(self, *more: int) -> "Reload":
        """Have the whole list, and some names more, put in force."""
        self._write([*range(self.listed_names), *more])
        return Reload(self)

    def held(self) -> Held:
        """Weigh the newest generation, in its file and in the worker."""
        octets = _sections(max((self.folder / "state" / "generations").glob("*.generation")))
        pool = sum(size for section, size in octets.items() if section.endswith("/pool"))
        (worker,) = (one for one in machine.family(self.pid) if one.role == _WORKER)
        resident, own = _memory(worker.pid)
        shares = (count / self.listed_names for count in (sum(octets.values()) - pool, pool, resident))
        return Held(self.name, self.listed_names, *shares, own / _MIB)

    def _write(self, numbers: Sequence[int]) -> None:
        with self._list.open("w") as file:
            for first in range(0, len(numbers), _LINES):
                file.writelines(f"*.{work.listed(number)}\n" for number in numbers[first : first + _LINES])

    def _app(self) -> dict[str, object]:
        domain = {"name": "ordered.bench", "match": "suffix", "purpose": "core", "confidence": "high", "use": "block"}
        names = [{**domain, "sources": ["BENCH"]}]  # the order goes on; the list is no part of it
        return {"id": "bench-app", "names": ["Bench"], "vendor": "Bench", "domains": names}

    def _configuration(self) -> dict[str, object]:
        written = super()._configuration()
        zone = {"name": "long", "file": str(self._list), "format": "wildcard", "max_octets": "4GiB"}
        policy = {**written["policy"], "zones": [zone]}  # type: ignore[dict-item]
        return {**written, "policy": policy, "hits": {"sqlite": False, "json_lines": False}}


class Reload:
    """A reload under way."""

    def __init__(self, server: Listing) -> None:
        command = [server.executable(), "reload", "--json", "--state-dir", str(server.folder / "state")]
        self.began = time.monotonic()
        self._server, self._asked = server, subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._cpu_s = self._reaped_s()
        self._peak_mib = 0.0

    def is_compiling(self) -> bool:
        """Look at the compiler once; whether it is at work."""
        for one in machine.family(self._server.pid):
            if one.name == _COMPILER:
                self._peak_mib = max(self._peak_mib, _peak_mib(one.pid))
                return True
        return False

    def is_over(self) -> bool:
        """Whether the list acts."""
        return self._asked.poll() is not None

    def wait(self) -> Compile:
        """Wait until the list acts.

        Raises:
            WrongAnswer: It does not.
        """
        while not self.is_over():
            self.is_compiling()
            time.sleep(_TICK_S)
        seconds = time.monotonic() - self.began
        said = json.loads(self._asked.communicate()[0])
        if said.get("ok") is not True:
            raise WrongAnswer(f"{self._server.name}: the list was not taken in: {said}")
        return Compile(self._server.name, seconds, self._reaped_s() - self._cpu_s, self._peak_mib)

    def _reaped_s(self) -> float:
        """CPU seconds of the supervisor and of those that it has seen end, as the compiler."""
        return machine.family(self._server.pid)[0].cpu_s


def _called(plain: bool, names: int) -> str:
    return f"{'plain' if plain else 'compiled'}, {names:,} names"


def _sections(path: Path) -> dict[str, int]:
    """Octets of each section of a generation file: a line, a seal of 32 octets, and a header that tells them."""
    with path.open("rb") as file:
        file.readline()
        file.read(32)
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: size for name, (_, size) in header["sections"].items()}


def _memory(pid: int) -> tuple[int, int]:
    """Octets that a process has in memory of generation files, and of its own."""
    mapped = own = 0
    is_policy = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, *values = line.split()
        if not key.endswith(":"):
            is_policy = line.endswith(".generation")
        elif key == "Anonymous:":
            own += int(values[0]) * 1024
        elif is_policy and key == "Rss:":
            mapped += int(values[0]) * 1024
    return mapped, own


def _peak_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


# ---- measuring ------------------------------------------------------------------------------------------------------


class Steadily(Generator):
    """Asks at a steady rate that is far below what the server can do."""

    def ask(self, server: Server, questions: Path, seconds: float) -> dict[str, Any]:
        """Ask for so long; the outcome as `blast` prints it.

        Raises:
            WrongAnswer: An answer was wrong.
        """
        outcome = self._ask(server, questions, ["-l", f"{seconds:.2f}", "-r", str(_STEADY_RATE)])
        if outcome["garbled"] or outcome["unexpected"] or not outcome["answered"]:
            raise WrongAnswer(f"{server.name}, at a steady rate: {outcome}")
        return outcome


def main(words: Sequence[str]) -> int:
    """Run the command and return its exit code: 0, 1 if a table is refused, 2 if the bench cannot run here."""
    arguments = _arguments(words)
    return carry_out(
        arguments, Report, (Floor, Upstream, Interdict), partial(_measure, arguments), markdown, Report.refusals
    )


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/run names", description="Measure what long lists cost.")
    parser.add_argument("--lengths", default="1000,100000,1000000,10000000", help="names listed (default %(default)s)")
    parser.add_argument("--kinds", default="compiled,plain", help="hot modules (default %(default)s)")
    parser.add_argument("--steady", type=float, default=4.0, help="seconds of load beside a reload (default 4)")
    add_arguments(parser, rounds=5, seconds=2.0, distinct=100_000)
    arguments = parser.parse_args(words)
    arguments.lengths = sorted({int(text) for text in arguments.lengths.split(",")})
    arguments.kinds = arguments.kinds.split(",")
    if unknown := set(arguments.kinds) - {"compiled", "plain"}:
        parser.error(f"--kinds: {', '.join(sorted(unknown))} is unknown; choose from compiled, plain")
    if min(arguments.rounds, arguments.seconds, arguments.steady, arguments.distinct, *arguments.lengths) <= 0:
        parser.error("--rounds, --seconds, --steady, --distinct and --lengths are above 0")
    return arguments


def _measure(arguments: argparse.Namespace, report: Report, folder: Path, stack: ExitStack) -> None:
    blast, Floor.binary = build(folder)
    upstream = _started(Upstream(folder / "knot", 0, 0), stack)
    generator = Steadily(blast, upstream, edns=False)
    warm = _questions(folder / "warm", work.warm_questions())
    floor = _started(Floor(folder / "floor", 1, 0), stack)
    floor.freeze()
    servers: list[Listing] = []
    for plain in [kind == "plain" for kind in arguments.kinds]:
        for names in arguments.lengths:
            server = Listing(folder / f"{'plain' if plain else 'compiled'}-{names}", names, upstream.port, plain)
            _started(server, stack)
            compiled = server.begin().wait()
            server.check()
            generator.warm(server, warm)
            generator.warm(server, _file(folder, "blocked", names, arguments.distinct))
            server.freeze()
            servers.append(server)
            report.compiles.append(compiled)
            _say(f"{server.name}: in force after {compiled.seconds:.1f} s, {compiled.peak_mib:.0f} MiB at most")
    for round in range(arguments.rounds):
        turn: list[Server] = [floor, *servers]
        for name in _ASKED:
            for one in turn if round % 2 == 0 else turn[::-1]:
                # Other questions in each round: a table is not small because the same part of it is asked for again.
                draw = arguments.distinct + (round if name == "unique" else 0)
                names = one.listed_names if isinstance(one, Listing) else arguments.lengths[0]
                questions = _file(folder, name, names, draw)
                one.thaw()
                run = generator.measure(one, work.WORKLOADS[name], questions, arguments.seconds, False, round, 0)
                one.freeze()
                report.runs.append(run)
                _say(f"round {round + 1} {name:8} {one.name:26} {_cost(run):6.2f} µs  {run.complaint or ''}")
    for server in servers:
        server.thaw()
        report.held.append(server.held())
        server.freeze()
    reloaded = next((one for one in servers if one.listed_names == _RELOADED), servers[-1])
    questions = _questions(folder / "steady", work.questions(_STEADY, reloaded.listed_names, 10_000))
    reloaded.thaw()
    for round in range(arguments.rounds):
        report.steady.append(_reload_under_load(generator, reloaded, questions, round, report, arguments.steady))
        _say(f"round {round + 1} reload: p99 {report.steady[-1].p99_us}")


def _started(server: Any, stack: ExitStack) -> Any:
    stack.callback(server.stop)
    server.start()
    return server


def _reload_under_load(
    generator: Steadily, server: Listing, questions: Path, round: int, report: Report, seconds: float
) -> Steady:
    before = generator.ask(server, questions, seconds)
    # One name more or less each time, or else there is nothing to put in force.
    under_way = server.begin(server.listed_names + 1_000 + round)
    while not under_way.is_compiling() and not under_way.is_over():
        time.sleep(_TICK_S)
    (expected,) = (one.seconds for one in report.compiles if one.server == server.name)
    during = generator.ask(server, questions, max(0.3, 0.75 * expected))
    loaded_s = time.monotonic() - under_way.began
    was_over = under_way.is_over()
    compiled = under_way.wait()
    after = generator.ask(server, questions, seconds)
    outcomes = (before, during, after)
    return Steady(
        round,
        sum(one["asked"] for one in outcomes),
        sum(one["lost"] for one in outcomes),
        tuple(one["p50_us"] for one in outcomes),  # type: ignore[arg-type]
        tuple(one["p99_us"] for one in outcomes),  # type: ignore[arg-type]
        compiled.seconds,
        min(loaded_s, compiled.seconds) if not was_over else compiled.seconds,
    )


def _questions(path: Path, lines: Iterator[str]) -> Path:
    with path.open("w") as out:
        out.writelines(lines)
    return path


def _file(folder: Path, name: str, names: int, distinct: int) -> Path:
    path = folder / f"{name}-{names}-{distinct}"
    return path if path.exists() else _questions(path, work.questions(work.WORKLOADS[name], names, distinct))


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


# ---- reporting ------------------------------------------------------------------------------------------------------


def _cost(run: Run) -> float:
    """CPU µs per answer: of the worker alone, and of the floor its one process."""
    cost = run.role_cost_us(_WORKER)
    return run.cost_us if cost is None else cost


def markdown(report: Report) -> str:
    """Write the report."""
    facts, said = report.machine, report.arguments
    sections = [
        f"# Long lists, {report.date}\n",
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, kernel {facts['kernel']}, Python "
        f"{facts['python']}. One worker on one core, blast and the upstream on the other, loopback UDP, one list from "
        f"a file, hits not stored. CPU time of the worker; medians of {said['rounds']} interleaved rounds of "
        f"{said['seconds']:g} s; ratios are to the shortest list and to the floor of the same round.\n",
    ]
    for name in _ASKED:
        refusal = report.refusal(name, False)
        runs = [run for run in report.part(name, False) if run.noise() <= report.noise_limit]
        sections.append(f"## {name}\n\n{work.WORKLOADS[name].meaning}\n")
        sections.append(f"**Refused.** {refusal}\n" if refusal else _lookups(report, runs))
    sections += ["## memory and compiling\n", _weights(report), "## a reload under load\n", _reloads(report)]
    noise = [run.noise() for run in report.runs] or [0.0]
    left_out = sum(one > report.noise_limit for one in noise)
    sections.append(
        f"{len(report.runs)} runs; every answer was checked. Others took {median(noise):.0%} of a core (median), "
        f"{max(noise):.0%} at most; {left_out} runs with more than {report.noise_limit:.0%} are left out.\n"
    )
    return "\n".join(sections)


def _lookups(report: Report, runs: Sequence[Run]) -> str:
    costs = {(run.server, run.round): _cost(run) for run in runs}
    lengths = report.arguments["lengths"]
    rows = [[_FLOOR, _middle([cost for (name, _), cost in costs.items() if name == _FLOOR]), "–", "–", "–", "–"]]
    for kind in report.arguments["kinds"]:
        first = _called(kind == "plain", lengths[0])
        for names in lengths:
            name = _called(kind == "plain", names)
            mine = {round: cost for (server, round), cost in costs.items() if server == name}
            ratios = [cost / costs[first, round] for round, cost in mine.items() if (first, round) in costs]
            floors = [cost / costs[_FLOOR, round] for round, cost in mine.items() if (_FLOOR, round) in costs]
            spread = f"{min(ratios):.2f}–{max(ratios):.2f}" if ratios else "–"
            rows.append([name, _middle(list(mine.values())), _middle(ratios), spread, _middle(floors), str(len(mine))])
    return table(["list", "worker µs per answer", "× shortest", "range", "× floor", "rounds"], rows)


def _weights(report: Report) -> str:
    rows = []
    for one in report.held:
        (made,) = (each for each in report.compiles if each.server == one.server)
        rows.append([
            one.server, *(f"{octets:.2f}" for octets in (one.searched, one.pool, one.resident)), f"{one.own_mib:.1f}",
            f"{made.seconds:.2f}", f"{made.cpu_s:.2f}", f"{made.peak_mib:.0f}",
        ])  # fmt: skip
    head = ["list", "octets a name searched", "pool", "resident in the worker", "worker's own MiB"]
    return table([*head, "reload s", "compiler's CPU s", "its peak MiB"], rows)


def _reloads(report: Report) -> str:
    if not report.steady:
        return "None.\n"

    def row(what: str, figure: Callable[[Steady], tuple[float, float, float]]) -> list[str]:
        each = [[figure(one)[phase] for one in report.steady] for phase in range(3)]
        ratios = [figure(one)[1] / figure(one)[0] for one in report.steady if figure(one)[0]]
        spread = f"{min(ratios):.2f}–{max(ratios):.2f}" if ratios else "–"
        return [what, *(_middle(values, "{:.0f}") for values in each), _middle(ratios), spread]

    asked, lost = (sum(getattr(one, name) for one in report.steady) for name in ("asked", "lost"))
    covered = median(one.loaded_s / one.reload_s for one in report.steady)
    head = ["µs", "before", "during", "after", "during ÷ before", "range"]
    return table(head, [row("p50", lambda one: one.p50_us), row("p99", lambda one: one.p99_us)]) + (
        f"\n{_STEADY.meaning}, {_STEADY_RATE:,} questions a second; the compiler shares the worker's core. "
        f"{asked:,} asked, {lost} lost; the load covers {covered:.0%} of a reload (median).\n"
    )


def _middle(values: Sequence[float], form: str = "{:.2f}") -> str:
    return form.format(median(values)) if values else "–"
