"""The load generators, and one measured run.

A run counts the CPU time of all processes of the server, from before the first question until the server is at rest
again: what it puts off until after the load belongs to the price of the answers.
"""

import json
import re
import resource
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import dns.rcode

from harness import machine
from harness.servers import Floor, Hits, Server
from harness.work import Workload

SOURCES = Path(__file__).parents[1]
PACED_RATE = 10_000
_SOCKETS, _WINDOW, _WARM_WINDOW = 20, 200, 40
_REST_S = 180.0


def build(folder: Path) -> tuple[Path, Path]:
    """Compile the generator and the floor into `folder`; return their paths.

    Raises:
        MissingProgram: There is no gcc.
    """
    compiler = Floor.executable()
    for name in ("blast", "echo"):
        subprocess.run([compiler, "-O2", "-o", str(folder / name), str(SOURCES / f"{name}.c")], check=True)
    return folder / "blast", folder / "echo"


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run. Times are seconds, latencies microseconds; `foreign_…` is the share others took of a core."""

    server: str
    workload: str
    paced: bool
    round: int
    attempt: int
    seconds: float
    asked: int
    answered: int
    lost: int
    garbled: int
    unexpected: int
    rcodes: dict[str, int]
    mean_us: float
    p50_us: float | None
    p99_us: float | None
    """None where the generator counts no latencies but their mean."""
    cpu_s: dict[str, float]
    """By role, under load."""
    cpu_after_s: dict[str, float]
    """By role, from the end of the load until the server was at rest."""
    foreign_server: float
    foreign_load: float
    hits: int
    """How much evidence of blocked questions was stored."""
    scrapes: int
    complaint: str | None
    """Why the run proves nothing about the server's price, if it does not."""

    @property
    def cost_us(self) -> float:
        """CPU time of all processes per answered query."""
        return (sum(self.cpu_s.values()) + sum(self.cpu_after_s.values())) * 1e6 / max(1, self.answered)

    def role_cost_us(self, role: str) -> float | None:
        """CPU time of one role per answered query; None if there is no such role."""
        if role not in self.cpu_s:
            return None
        return (self.cpu_s[role] + self.cpu_after_s.get(role, 0.0)) * 1e6 / max(1, self.answered)

    @property
    def busy(self) -> float:
        """Share of its core that the server used under load."""
        return sum(self.cpu_s.values()) / self.seconds

    def noise(self) -> float:
        """How much others disturbed: a foreign share of the generator's core weighs half."""
        return max(self.foreign_server, self.foreign_load / 2)


@dataclass(frozen=True, slots=True)
class _Reading:
    """All clocks at one moment."""

    at: float
    pids: frozenset[int]
    server: Counter[str]
    own_load_s: float
    server_core_s: float
    load_core_s: float

    @classmethod
    def take(cls, server: Server, upstream: Server) -> Self:
        processes = machine.family(server.pid)
        usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        own = sum(usage.ru_utime + usage.ru_stime for usage in usages)
        return cls(
            time.monotonic(),
            frozenset(one.pid for one in processes),
            machine.cpu_by_role(processes),
            own + sum(one.cpu_s for one in machine.family(upstream.pid)),
            machine.core_busy_s(machine.SERVER_CORE),
            machine.core_busy_s(machine.LOAD_CORE),
        )

    def server_s_since(self, before: Self) -> dict[str, float]:
        return {role: self.server[role] - before.server[role] for role in self.server}

    def foreign_since(self, before: Self) -> tuple[float, float]:
        """Return what share of the server's core and of the generator's others took."""
        length = self.at - before.at
        server = self.server_core_s - before.server_core_s - sum(self.server_s_since(before).values())
        load = self.load_core_s - before.load_core_s - (self.own_load_s - before.own_load_s)
        return max(0.0, server / length), max(0.0, load / length)


class Generator:
    """Runs `blast` against servers, and never gives the same running number twice."""

    def __init__(self, blast: Path, upstream: Server, edns: bool) -> None:
        """Use this binary; the upstream's CPU time is ours, not a neighbour's."""
        self._blast, self._upstream, self._edns = blast, upstream, edns
        self._number = 0

    @classmethod
    def executable(cls) -> str:
        """Return the path of the program it cannot do without: the compiler.

        Raises:
            MissingProgram: It is not installed.
        """
        return Floor.executable()

    def warm(self, server: Server, questions: Path) -> None:
        """Ask every question of the file once, gently, and wait until the server is at rest again."""
        self._ask(server, questions, ["-1", "-l", "600", "-q", str(_WARM_WINDOW)])
        self._rest(server)

    def measure(
        self, server: Server, workload: Workload, questions: Path, seconds: float, paced: bool, round: int, attempt: int
    ) -> Run:
        """Load the server for `seconds` and wait until it is at rest again."""
        hits = server.hits()
        with _Scrapes(server) as scrapes:
            before = _Reading.take(server, self._upstream)
            outcome = self._load(server, workload, questions, seconds, paced)
            after = _Reading.take(server, self._upstream)
            rest, hits_then = self._rest(server)
        foreign_server, foreign_load = after.foreign_since(before)
        complaint = None
        if outcome["garbled"] or outcome["unexpected"] or not outcome["answered"]:
            complaint = f"wrong answers: {outcome['garbled']} garbled, {outcome['unexpected']} unexpected"
        elif outcome["lost"] > (outcome["asked"] / 1000 if workload.forwards else 0):
            complaint = f"{outcome['lost']} of {outcome['asked']} questions lost"
        elif not before.pids <= after.pids:
            complaint = "a process of the server ended under load"
        elif scrapes.failure:
            complaint = f"metrics could not be scraped: {scrapes.failure}"
        elif hits_then.noted != hits_then.stored:
            complaint = f"{hits_then.noted - hits_then.stored} hits not stored {_REST_S:.0f} s after the load"
        elif server.takes_evidence and hits_then.stored - hits.stored != outcome["rcodes"].get("3", 0):
            complaint = f"{outcome['rcodes'].get('3', 0)} blocked, {hits_then.stored - hits.stored} hits stored"
        return Run(
            server=server.name,
            workload=workload.name,
            paced=paced,
            round=round,
            attempt=attempt,
            **outcome,
            cpu_s=after.server_s_since(before),
            cpu_after_s=rest.server_s_since(after),
            foreign_server=foreign_server,
            foreign_load=foreign_load,
            hits=hits_then.stored - hits.stored,
            scrapes=scrapes.count,
            complaint=complaint,
        )

    def _load(self, server: Server, workload: Workload, questions: Path, seconds: float, paced: bool) -> dict[str, Any]:
        """Ask for `seconds`; return the fields of Run that the generator knows."""
        pace = ["-r", str(PACED_RATE)] if paced else []
        return self._ask(server, questions, ["-l", str(seconds), "-q", str(_WINDOW * server.workers), *pace])

    def _ask(self, server: Server, questions: Path, options: list[str]) -> dict[str, Any]:
        own = ["-n", str(self._number), *options, *(["-x"] if server.echoes else [])]
        outcome: dict[str, Any] = json.loads(self._output(str(self._blast), server, questions, own))
        self._number += outcome["asked"]
        return outcome

    def _output(self, program: str, server: Server, questions: Path, options: list[str]) -> str:
        """Run a generator on its core, with the options that all of them have; return what it prints."""
        command = ["taskset", "-c", str(machine.LOAD_CORE), program, "-p", str(server.port), "-d", str(questions)]
        command += ["-c", str(_SOCKETS * server.workers), *(["-e"] if self._edns else []), *options]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def _rest(self, server: Server) -> tuple[_Reading, Hits]:
        """Wait until the server uses less than a twentieth of its core and has stored all hits, or time is up."""
        reading = _Reading.take(server, self._upstream)
        end = reading.at + _REST_S
        while True:
            time.sleep(0.25)
            earlier, reading = reading, _Reading.take(server, self._upstream)
            at_rest = sum(reading.server_s_since(earlier).values()) < 0.05 * (reading.at - earlier.at)
            if at_rest or reading.at > end:
                hits = server.hits()
                if hits.noted == hits.stored or reading.at > end:
                    return reading, hits


class Dnsperf(Generator):
    """Loads by dnsperf, which others can repeat; `blast` still warms.

    It sends the lines of a file as they are and looks at RCODEs alone, so that a workload must have one RCODE and no
    running numbers.
    """

    @classmethod
    def executable(cls) -> str:
        return machine.program("dnsperf", "dnsperf")

    def _load(self, server: Server, workload: Workload, questions: Path, seconds: float, paced: bool) -> dict[str, Any]:
        options = ["-s", "127.0.0.1", "-l", str(seconds), "-q", str(_WINDOW), "-T", "1", "-W"]
        printed = self._output(self.executable(), server, self._pairs(questions), options)
        figures = dict(re.findall(r"^ +([^:\n]+): *(\S+)", printed, re.MULTILINE))
        counts = re.findall(r"([A-Z]\w+) (\d+) \(", "".join(re.findall(r"Response codes:.*", printed)))
        rcodes = {str(int(dns.rcode.from_text(name))): int(count) for name, count in counts}
        asked, answered = int(figures["Queries sent"]), int(figures["Queries completed"])
        return {
            "seconds": float(figures["Run time (s)"]),
            "asked": asked,
            "answered": answered,
            "lost": asked - answered,
            "garbled": printed.count("Warning: received"),
            "unexpected": 0 if server.echoes else answered - rcodes.get("3" if workload.blocked else "0", 0),
            "rcodes": rcodes,
            "mean_us": float(figures["Average Latency (s)"]) * 1e6,
            "p50_us": None,
            "p99_us": None,
        }

    def _pairs(self, questions: Path) -> Path:
        """The same questions in dnsperf's form: no RCODEs."""
        pairs = questions.with_suffix(".dnsperf")
        if not pairs.exists():
            pairs.write_text(re.sub(r" \d$", "", questions.read_text(), flags=re.MULTILINE))
        return pairs


GENERATORS: dict[str, type[Generator]] = {"blast": Generator, "dnsperf": Dnsperf}


class _Scrapes:
    """Fetches a server's metrics once a second while it is open."""

    def __init__(self, server: Server) -> None:
        self.count = 0
        self.failure: str | None = None
        self._server, self._over = server, threading.Event()
        self._thread = threading.Thread(target=self._go)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _go(self) -> None:
        while not self._over.wait(1.0):
            try:
                if not self._server.scrape():
                    return
            except OSError as error:
                self.failure = str(error)
                return
            self.count += 1
