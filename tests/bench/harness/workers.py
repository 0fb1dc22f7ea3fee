"""What a second worker brings: the price of an answer with one worker and with two. `tests/bench/run workers`.

Interdict alone, with hits stored and metrics on as in the other tables. Two workers and a load generator want three
cores, and this is for machines with two: so answers a second say nothing here, and both workers take turns on one core.
What is shown is the CPU time that an answer costs a worker. If it costs two of them no more than it costs one, two free
cores give twice as much, but for what cores fight over: memory, caches, locks of the kernel. (A core each, one of them
the generator's, was tried: neither worker is then busy, and what is measured is going to sleep and waking up.)
"""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

from harness import machine, work
from harness.errand import add_arguments, carry_out
from harness.load import Generator, Run, build
from harness.report import Session, table
from harness.servers import Floor, Interdict, Upstream, WrongAnswer

_WORKER = "interdict-w"
_ASKED = ("cached", "blocked")
_LISTED = 1000
_CREWS = {1: "1 worker", 2: "2 workers"}


class Crew(Interdict):
    """Interdict with so many workers."""

    def __init__(self, folder: Path, upstream_port: int, plain: bool, workers: int) -> None:
        super().__init__(folder, _LISTED, upstream_port)
        self.plain, self.workers = plain, workers
        self.name = _called(plain, workers)

    def check(self) -> None:
        super().check()
        running = sum(one.role == _WORKER for one in machine.family(self.pid))
        if running != self.workers:
            raise WrongAnswer(f"{self.name}: {running} run")

    def _configuration(self) -> dict[str, object]:
        return {**super()._configuration(), "workers": self.workers}


def _called(plain: bool, workers: int) -> str:
    return f"{'plain' if plain else 'compiled'}, {_CREWS[workers]}"


def main(words: Sequence[str]) -> int:
    """Run the command and return its exit code: 0, 1 if a table is refused, 2 if the bench cannot run here."""
    arguments = _arguments(words)
    return carry_out(
        arguments, Session, (Floor, Upstream, Interdict), partial(_measure, arguments), markdown, Session.refusals
    )


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/run workers", description="Measure what a second worker brings.")
    parser.add_argument("--kinds", default="compiled", help="hot modules: compiled,plain (default %(default)s)")
    add_arguments(parser, rounds=5, seconds=2.0, distinct=100_000)
    arguments = parser.parse_args(words)
    arguments.kinds = arguments.kinds.split(",")
    if unknown := set(arguments.kinds) - {"compiled", "plain"}:
        parser.error(f"--kinds: {', '.join(sorted(unknown))} is unknown; choose from compiled, plain")
    if min(arguments.rounds, arguments.seconds, arguments.distinct) <= 0:
        parser.error("--rounds, --seconds and --distinct are above 0")
    return arguments


def _measure(arguments: argparse.Namespace, session: Session, folder: Path, stack: ExitStack) -> None:
    blast, Floor.binary = build(folder)
    upstream = Upstream(folder / "knot", 0, 0)
    stack.callback(upstream.stop)
    upstream.start()
    generator = Generator(blast, upstream, edns=False)
    files = {"warm": work.warm_questions()}
    files |= {name: work.questions(work.WORKLOADS[name], _LISTED, arguments.distinct) for name in _ASKED}
    for name, lines in files.items():
        with (folder / name).open("w") as out:
            out.writelines(lines)
    crews: list[Crew] = []
    for plain in [kind == "plain" for kind in arguments.kinds]:
        for workers in _CREWS:
            crew = Crew(folder / f"crew-{len(crews)}", upstream.port, plain, workers)
            stack.callback(crew.stop)
            crew.start()
            crew.check()
            # The kernel gives each question to one of the workers, by the port it comes from, and that one alone
            # remembers the answer.
            for name in ("warm", *_ASKED) * (2 * workers):
                generator.warm(crew, folder / name)
            crew.freeze()
            crews.append(crew)
    for round in range(arguments.rounds):
        for name in _ASKED:
            for crew in crews if round % 2 == 0 else crews[::-1]:
                crew.thaw()
                workload = work.WORKLOADS[name]
                run = generator.measure(crew, workload, folder / name, arguments.seconds, False, round, 0)
                crew.freeze()
                session.runs.append(run)
                told = f"round {round + 1} {name:8} {crew.name:20} {_cost(run):6.2f} µs  {run.complaint or ''}"
                print(f"{time.strftime('%H:%M:%S')} {told}", file=sys.stderr, flush=True)


def _cost(run: Run) -> float:
    return run.role_cost_us(_WORKER) or 0.0


def markdown(session: Session) -> str:
    """Write the report."""
    facts, said = session.machine, session.arguments
    sections = [
        f"# What a second worker brings, {session.date}\n",
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, kernel {facts['kernel']}, Python "
        f"{facts['python']}. CPU time of the workers alone, all on one core; for each of them blast has 200 questions "
        f"under way over 20 sockets. Medians of {said['rounds']} interleaved rounds of {said['seconds']:g} s. *Gives* "
        "is twice the price of one worker's answer by that of two workers', in the same round: what two free cores "
        "would give, of what one gives.\n",
    ]
    for name in _ASKED:
        refusal = session.refusal(name, False)
        runs = [run for run in session.part(name, False) if run.noise() <= session.noise_limit]
        sections.append(f"## {name}\n\n{work.WORKLOADS[name].meaning}\n")
        sections.append(f"**Refused.** {refusal}\n" if refusal else _gains(runs, said["kinds"]))
    left_out = sum(run.noise() > session.noise_limit for run in session.runs)
    sections.append(
        f"{len(session.runs)} runs; every answer was checked, and every hit is stored. {left_out} runs in which others "
        f"took more than {session.noise_limit:.0%} of a core are left out.\n"
    )
    return "\n".join(sections)


def _gains(runs: Sequence[Run], kinds: Sequence[str]) -> str:
    costs = {(run.server, run.round): _cost(run) for run in runs}
    rows = []
    for kind in kinds:
        alone = _called(kind == "plain", 1)
        for workers in _CREWS:
            name = _called(kind == "plain", workers)
            mine = {round: cost for (server, round), cost in costs.items() if server == name}
            gains = [workers * costs[alone, round] / cost for round, cost in mine.items() if (alone, round) in costs]
            spread = f"{min(gains):.2f}–{max(gains):.2f}" if gains and workers > 1 else "–"
            gives = f"{median(gains):.2f}" if gains else "–"
            rows.append([name, f"{median(mine.values()):.2f}" if mine else "–", gives, spread, str(len(mine))])
    return table(["workers", "worker µs per answer", "gives", "range", "rounds"], rows)
