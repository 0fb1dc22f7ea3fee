"""The machine as /proc shows it: what cores did, what processes used, and who is here.

A server is its process group's session and every descendant of its first process, so that nothing it starts is left
out. CPU time has steps of 10 ms: a figure from less than a second or two means little.
"""

import os
import platform
import shutil
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

SERVER_CORE, LOAD_CORE = 0, 1
_TICKS = os.sysconf("SC_CLK_TCK")
_SBIN = os.pathsep + "/usr/sbin" + os.pathsep + "/sbin"


class MissingProgram(Exception):
    """A program the bench needs is not installed; the text says which package has it."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one moment; `cpu_s` is user and system time of its threads and of the children it has reaped."""

    pid: int
    parent: int
    session: int
    name: str
    cpu_s: float

    @property
    def role(self) -> str:
        """The name without a trailing number, so that all workers of a server add up."""
        return self.name.rstrip("0123456789")


def _process(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    name, fields = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
    return Process(pid, int(fields[1]), int(fields[3]), name, sum(map(int, fields[11:15])) / _TICKS)


def family(pid: int) -> list[Process]:
    """Return the process, its descendants and its session, the first process first."""
    everyone = [found for entry in os.listdir("/proc") if entry.isdigit() and (found := _process(int(entry)))]
    chosen = [one for one in everyone if one.pid == pid]
    for one in chosen:  # grows while it is walked: children of children
        chosen += [each for each in everyone if each.parent == one.pid and each not in chosen]
    return chosen + [one for one in everyone if one.session == pid and one not in chosen]


def cpu_by_role(processes: list[Process]) -> Counter[str]:
    """Add up CPU seconds by role."""
    total: Counter[str] = Counter()
    for one in processes:
        total[one.role] += one.cpu_s  # type: ignore[assignment]  # Counter adds floats as well
    return total


def memory_by_role(pid: int) -> dict[str, float]:
    """Return the proportional set size of each role in MiB: shared pages are counted once, split among their users."""
    total: dict[str, float] = {}
    for one in family(pid):
        try:
            lines = Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        kib = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        total[one.role] = total.get(one.role, 0.0) + kib / 1024
    return total


def signal_family(pid: int, number: signal.Signals) -> None:
    """Send a signal to every process of a server."""
    for one in family(pid):
        try:
            os.kill(one.pid, number)
        except ProcessLookupError:
            continue


def core_busy_s(core: int) -> float:
    """Return the seconds the core was not idle since boot; time taken by the hypervisor counts as busy."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
            return (user + nice + system + irq + softirq + steal) / _TICKS
    return 0.0


def program(name: str, package: str) -> str:
    """Return the path of a program.

    Raises:
        MissingProgram: It is not on the PATH, nor in the folders where Debian keeps servers.
    """
    path = shutil.which(name, path=os.environ.get("PATH", "") + _SBIN)
    if path is None:
        raise MissingProgram(f"{name} is not here: install it with `apt-get install {package}`")
    return path


def package_version(package: str) -> str:
    """Return the version of a Debian package, or of what is installed in its place."""
    try:
        asked = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True)
    except FileNotFoundError:
        return "not from a Debian package"
    return asked.stdout or "not from a Debian package"


def facts() -> dict[str, str | int | float]:
    """Describe the machine for the report."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
