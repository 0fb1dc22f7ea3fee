"""Runs -> Markdown: medians over rounds, and ratios to the floor of the same round.

A figure is printed only if it is worth printing: no wrong answer in any run of its table, and enough rounds in which
neighbours left both cores alone. Where that fails the table is refused, in its place and in words.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from harness.load import PACED_RATE, Run
from harness.work import WORKLOADS

_FLOOR, _WORKER = "floor", "interdict-w"


@dataclass(slots=True)
class Measured:
    """One server's own facts. Memory is PSS in MiB by role."""

    name: str
    version: str
    start_s: float
    memory_started: dict[str, float]
    memory_warm: dict[str, float]
    memory_after: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Session:
    """Everything one call of the bench has found out; it is what the JSON file holds."""

    date: str
    machine: dict[str, str | int | float]
    arguments: dict[str, Any]
    noise_limit: float
    servers: list[Measured] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    def part(self, workload: str, paced: bool) -> list[Run]:
        """Return the runs behind one table."""
        return [run for run in self.runs if run.workload == workload and run.paced == paced]

    def parts(self) -> list[tuple[str, bool]]:
        """Return what was measured: (workload, paced), in the order in which it is reported."""
        found = {(run.workload, run.paced) for run in self.runs}
        return [(name, paced) for paced in (False, True) for name in WORKLOADS if (name, paced) in found]

    def refusal(self, workload: str, paced: bool) -> str | None:
        """Say why the table of this workload must not be printed, or None."""
        runs = self.part(workload, paced)
        wrong = [f"{run.server}, round {run.round + 1}: {run.complaint}" for run in runs if run.complaint]
        if wrong:
            return "; ".join(wrong)
        for server in {run.server for run in runs}:
            rounds = [run for run in runs if run.server == server]
            quiet = sum(run.noise() <= self.noise_limit for run in rounds)
            if 2 * quiet < len(rounds):
                return (
                    f"the machine was too noisy: {server} had {quiet} quiet rounds of {len(rounds)}; "
                    "end what else runs on these cores, or allow more with --noise"
                )
        return None

    def refusals(self) -> list[str]:
        """Return every reason for which a table is refused."""
        return [f"{name}: {why}" for name, paced in self.parts() if (why := self.refusal(name, paced))]


def markdown(session: Session) -> str:
    """Write the report: every table that was measured, or the reason why one is missing."""
    sections = [_heading(session)]
    for workload, paced in session.parts():
        title = f"latency at {PACED_RATE:,} questions a second: {workload}" if paced else workload
        sections.append(f"## {title}\n\n{WORKLOADS[workload].meaning}\n")
        refusal = session.refusal(workload, paced)
        runs = [run for run in session.part(workload, paced) if run.noise() <= session.noise_limit]
        sections.append(f"**Refused.** {refusal}\n" if refusal else (_latency(runs) if paced else _cost(runs)))
    sections.append(_memory(session.servers))
    noisy = sum(run.noise() > session.noise_limit for run in session.runs)
    checked = "every answer" if session.arguments["generator"] == "blast" else "the RCODE of every answer"
    sections.append(
        f"{len(session.runs)} runs; {checked} was checked. {noisy} runs are left out of the medians: others took "
        f"more than {session.noise_limit:.0%} of the server's core, or twice that of the generator's.\n"
    )
    return "\n".join(sections)


def _heading(session: Session) -> str:
    machine, arguments = session.machine, session.arguments
    lines = [
        f"# Interdict beside its peers, {session.date}\n",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, kernel {machine['kernel']}. "
        f"Each server alone on one core, {arguments['generator']} and the upstream on the other, loopback UDP "
        f"{'with' if arguments['edns'] else 'without'} EDNS, {arguments['listed']:,} listed names, at most "
        f"{arguments['distinct']:,} distinct questions where questions repeat. Medians of {arguments['rounds']} "
        f"interleaved rounds of {arguments['seconds']:g} s; ratios are to the floor of the same round.\n",
    ]
    return "\n".join(lines + [f"- {one.name}: {one.version}" for one in session.servers]) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table: text on the left, figures on the right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _by_server(runs: Sequence[Run]) -> dict[str, list[Run]]:
    return {name: [run for run in runs if run.server == name] for name in dict.fromkeys(run.server for run in runs)}


def _median(runs: Sequence[Run], figure: Callable[[Run], float]) -> float:
    return median(figure(run) for run in runs)


def _cost(runs: Sequence[Run]) -> str:
    floors = {run.round: run.cost_us for run in runs if run.server == _FLOOR}
    rows, splits = [], []
    for name, mine in _by_server(runs).items():
        ratios = [run.cost_us / floors[run.round] for run in mine if run.round in floors]
        worker = [(cost, run.round) for run in mine if (cost := run.role_cost_us(_WORKER)) is not None]
        worker_ratios = [cost / floors[round] for cost, round in worker if round in floors]
        rows.append(
            [
                name,
                f"{_median(mine, lambda run: run.cost_us):.2f}",
                f"{median(ratios):.2f}" if ratios else "–",
                f"{min(ratios):.2f}–{max(ratios):.2f}" if ratios else "–",
                f"{median(cost for cost, _ in worker):.2f}" if worker else "–",
                f"{median(worker_ratios):.2f}" if worker_ratios else "–",
                f"{_median(mine, lambda run: run.answered / run.seconds):,.0f}",
                f"{_median(mine, lambda run: run.busy):.2f}",
                f"{len(mine)}",
            ]
        )
        roles = sorted({role for run in mine for role in run.cpu_s | run.cpu_after_s})
        if len(roles) > 1:
            costs = (f"{role} {median(run.role_cost_us(role) or 0.0 for run in mine):.2f}" for role in roles)
            splits.append(f"{name} by process, µs: {', '.join(costs)}.\n")
    head = ["server", "CPU µs per answer", "× floor", "range", "worker µs", "× floor", "answers/s", "busy", "rounds"]
    return "\n".join([table(head, rows), *splits])


def _latency(runs: Sequence[Run]) -> str:
    rows = [
        [
            name,
            f"{_median(mine, lambda run: run.p50_us or 0.0):.0f}",
            f"{_median(mine, lambda run: run.p99_us or 0.0):.0f}",
            f"{_median(mine, lambda run: run.cost_us):.1f}",
            f"{len(mine)}",
        ]
        for name, mine in _by_server(runs).items()
    ]
    return table(["server", "p50 µs", "p99 µs", "CPU µs per answer", "rounds"], rows)


def _memory(servers: Sequence[Measured]) -> str:
    rows = []
    for one in servers:
        stages = (one.memory_started, one.memory_warm, one.memory_after)
        by_role = ", ".join(f"{role} {mib:.1f}" for role, mib in sorted(one.memory_warm.items()))
        rows.append([one.name, *(f"{sum(stage.values()):.1f}" for stage in stages), by_role, f"{one.start_s:.2f}"])
    head = ["server", "PSS MiB started", "warm", "at the end", "warm, by process", "start s"]
    return f"## memory\n\n{table(head, rows)}"
