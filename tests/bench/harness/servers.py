"""The servers: how each is configured, started, checked, frozen while others are measured, and stopped.

Each has one thread or worker, forwards what it does not block to one upstream, validates nothing (the zone is
unsigned), logs no query, and has room for all answers in its cache and for all questions in its socket. Interdict is
measured as it is deployed: hits recorded, metrics scraped. Ports are the system's choice, so that two runs never meet.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode

from harness import machine, work

_START_S, _STOP_S = 120.0, 20.0
_READY_S = 0.01  # what a server that is up may take to say so; with as little it is told how long a start took
_SOCKET_OCTETS = 4 << 20


class WrongAnswer(Exception):
    """A server does not answer as the work demands, so nothing about it may be reported."""


def free_port() -> int:
    """Return a port that is free on loopback for UDP and TCP alike."""
    while True:
        with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            port: int = udp.getsockname()[1]
            try:
                tcp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def ask(port: int, name: str, timeout_s: float = 2.0) -> tuple[dns.rcode.Rcode, list[str]] | None:
    """Ask for the A records of a name; return RCODE and addresses, or None if no proper answer comes."""
    try:
        reply = dns.query.udp(dns.message.make_query(name, "A"), "127.0.0.1", timeout_s, port)
    except (dns.exception.DNSException, OSError):
        return None
    return reply.rcode(), [record.to_text() for rrset in reply.answer for record in rrset]


@dataclass(frozen=True, slots=True)
class Hits:
    """Evidence of blocked questions: noted by a worker, lost for want of room, stored for good in every sink."""

    noted: int
    lost: int
    stored: int


class Server:
    """One server, from its configuration to its end."""

    name: str
    program: str
    package: str
    core = machine.SERVER_CORE
    echoes = False
    """Whether it only sends questions back, so that RCODEs mean nothing."""
    takes_evidence = False
    """Whether it stores a hit for every blocked question."""
    workers = 1
    """How many of its processes answer: each is given as much to do."""

    def __init__(self, folder: Path, listed_names: int, upstream_port: int) -> None:
        """Write the configuration under `folder`, which is the server's own."""
        self.folder, self.listed_names, self.upstream_port = folder, listed_names, upstream_port
        self.port = free_port()
        folder.mkdir()
        self.start_s = 0.0

    @property
    def pid(self) -> int:
        """The first process of the server."""
        return self._first.pid

    @classmethod
    def executable(cls) -> str:
        """Return the path of the program.

        Raises:
            MissingProgram: It is not installed.
        """
        return machine.program(cls.program, cls.package)

    def command(self) -> list[str]:
        """Write the configuration and return the command that serves in the foreground."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the variables the server is started with."""
        return dict(os.environ)

    def version(self) -> str:
        """Say which version is measured."""
        return machine.package_version(self.package.split()[0])

    def scrape(self) -> dict[str, float]:
        """Fetch the metrics: value by name and labels. Empty where there are none to fetch."""
        return {}

    def hits(self) -> Hits:
        """Return what evidence has been taken of blocked questions until now."""
        return Hits(0, 0, 0)

    def is_ready(self) -> bool:
        """Ask whether the policy stands: the name listed last is blocked."""
        reply = ask(self.port, work.listed(self.listed_names - 1), _READY_S)
        return reply is not None and reply[0] == dns.rcode.NXDOMAIN

    def start(self) -> None:
        """Start it on its core and wait until it answers.

        Raises:
            WrongAnswer: It did not come up; the text has the end of its output.
        """
        command = ["taskset", "-c", str(self.core), *self.command()]
        output = self.folder / "output"
        with output.open("wb") as out:
            self._first = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        began = time.monotonic()
        while not self.is_ready():
            if self._first.poll() is not None or time.monotonic() - began > _START_S:
                self.stop()
                raise WrongAnswer(f"{self.name} did not come up: {output.read_text(errors='replace')[-800:]}")
            time.sleep(0.002)
        self.start_s = time.monotonic() - began
        for one in machine.family(self.pid):  # some servers choose cores themselves
            for thread in os.listdir(f"/proc/{one.pid}/task"):
                os.sched_setaffinity(int(thread), {self.core})

    def check(self) -> None:
        """Ask it one question of every kind.

        Raises:
            WrongAnswer: It answers one of them wrongly.
        """
        for shows, name, blocked in work.probes(self.listed_names, f"check-{self.port}"):
            expected = (dns.rcode.NXDOMAIN, []) if blocked else (dns.rcode.NOERROR, [work.ADDRESS])
            reply = ask(self.port, name)
            if reply != expected:
                raise WrongAnswer(f"{self.name}, {shows}: asked {name}, expected {expected}, got {reply}")

    def freeze(self) -> None:
        """Stop all its processes where they are."""
        machine.signal_family(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on, and give them a moment to do what waited."""
        machine.signal_family(self.pid, signal.SIGCONT)
        time.sleep(0.15)

    def stop(self) -> None:
        """End it: politely, then not."""
        self.thaw()
        self._first.terminate()
        try:
            self._first.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            machine.signal_family(self.pid, signal.SIGKILL)
            self._first.wait()


class Upstream(Server):
    """Knot DNS with a wildcard root zone, on the load generator's core."""

    name, program, package, core = "knot", "knotd", "knot", machine.LOAD_CORE

    def command(self) -> list[str]:
        work.write_zone(self.folder / "root.zone")
        (self.folder / "knot.conf").write_text(
            f"""server:
    listen: 127.0.0.1@{self.port}
    rundir: {self.folder}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {self.folder}
log:
  - target: stderr
    any: warning
zone:
  - domain: "."
    storage: {self.folder}
    file: root.zone
    zonefile-load: whole
    journal-content: none
"""
        )
        return [self.executable(), "-c", str(self.folder / "knot.conf")]

    def is_ready(self) -> bool:
        return ask(self.port, work.allowed(0), _READY_S) == (dns.rcode.NOERROR, [work.ADDRESS])


class Floor(Server):
    """The batched echo: what it costs to receive and send at all."""

    name, program, package, echoes = "floor", "gcc", "gcc libc6-dev", True
    binary: Path

    def command(self) -> list[str]:
        return [str(self.binary), str(self.port)]

    def is_ready(self) -> bool:
        return ask(self.port, work.allowed(0), _READY_S) is not None

    def version(self) -> str:
        return f"echo.c, gcc {super().version()}"

    def check(self) -> None:
        """An echo has no policy to check."""


class Dnsdist(Server):
    """dnsdist with its batched listener: a balancer, not a resolver, and the cheapest of the well-known."""

    name, program, package = "dnsdist", "dnsdist", "dnsdist"

    def command(self) -> list[str]:
        names = "".join(f"{work.listed(number)}.\n" for number in range(self.listed_names))
        (self.folder / "names").write_text(names)
        (self.folder / "dnsdist.conf").write_text(
            f"""setUDPMultipleMessagesVectorSize(64)
setSecurityPollSuffix('')
setUDPSocketBufferSizes({_SOCKET_OCTETS}, {_SOCKET_OCTETS})
addLocal('127.0.0.1:{self.port}', {{ reusePort=false }})
setACL({{'127.0.0.0/8'}})
setMaxUDPOutstanding(65535)
newServer({{ address='127.0.0.1:{self.upstream_port}', sockets=1 }}):setUp()
getPool(''):setCache(newPacketCache(1000000, {{ maxTTL=86400, minTTL=0, numberOfShards=1 }}))
local listed = newSuffixMatchNode()
for name in io.lines('{self.folder}/names') do listed:add(newDNSName(name)) end
addAction(SuffixMatchNodeRule(listed), RCodeAction(DNSRCode.NXDOMAIN))
"""
        )
        return [self.executable(), "--supervised", "--disable-syslog", "-C", str(self.folder / "dnsdist.conf")]


class Unbound(Server):
    """Unbound with one `always_nxdomain` local zone for each listed name."""

    name, program, package = "unbound", "unbound", "unbound"

    def command(self) -> list[str]:
        zones = "".join(
            f'local-zone: "{work.listed(number)}." always_nxdomain\n' for number in range(self.listed_names)
        )
        (self.folder / "zones.conf").write_text(f"server:\n{zones}")
        (self.folder / "unbound.conf").write_text(
            f"""server:
  verbosity: 0
  use-syslog: no
  logfile: ""
  chroot: ""
  username: ""
  directory: "{self.folder}"
  pidfile: "{self.folder}/pid"
  do-daemonize: no
  interface: 127.0.0.1
  port: {self.port}
  do-ip6: no
  num-threads: 1
  msg-cache-size: 128m
  rrset-cache-size: 256m
  outgoing-range: 4096
  num-queries-per-thread: 2048
  so-rcvbuf: {_SOCKET_OCTETS}
  so-sndbuf: {_SOCKET_OCTETS}
  module-config: "iterator"
  access-control: 127.0.0.0/8 allow
  do-not-query-localhost: no
  statistics-interval: 0
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-addr: 127.0.0.1@{self.upstream_port}
include: "{self.folder}/zones.conf"
"""
        )
        return [self.executable(), "-d", "-c", str(self.folder / "unbound.conf")]


class Interdict(Server):
    """Interdict as deployed: ten groups, one order in force for everyone, hits in SQLite and JSON Lines, metrics on."""

    name, takes_evidence, plain = "interdict", True, False
    chosen: str | None = None
    """The command to measure; found where it is installed if None."""

    @classmethod
    def executable(cls) -> str:
        beside = Path(__file__).parents[3] / ".venv/bin/interdict"
        found = cls.chosen or shutil.which("interdict") or (str(beside) if beside.exists() else None)
        if found is None:
            raise machine.MissingProgram("interdict is not on the PATH: name it with `--interdict PATH`")
        return found

    def command(self) -> list[str]:
        for kind, document in (("apps", self._app()), ("orders", self._order())):
            path = self.folder / "documents" / kind / f"{document['id']}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(document))  # JSON is YAML
        self.metrics_port = free_port()
        configuration = self.folder / "interdict.yaml"
        configuration.write_text(json.dumps(self._configuration(), indent=1))
        return [self.executable(), "serve", "--config", str(configuration)]

    def start(self) -> None:
        """Start it as any time but the first: its byte code lies there, as after an installation, and its policy."""
        super().start()
        self.stop()
        # Evidence goes on counting over a restart, and what is noted begins anew: the two are compared.
        shutil.rmtree(self.folder / "state" / "hits")
        super().start()

    def environment(self) -> dict[str, str]:
        """With a place of its own for byte code, whatever the shell says of that."""
        own = {"INTERDICT_PLAIN": "1" if self.plain else "0", "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode")}
        return {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | own

    def version(self) -> str:
        asked = subprocess.run([self.executable(), "--version"], capture_output=True, text=True, env=self.environment())
        return asked.stdout.strip()

    def scrape(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as reply:
            lines = reply.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    def hits(self) -> Hits:
        metrics = self.scrape()
        stored = [value for name, value in metrics.items() if name.startswith("interdict_hits_stored_total{")]
        noted, lost = (int(metrics[f"interdict_hits_{name}_total"]) for name in ("spooled", "lost"))
        return Hits(noted, lost, int(min(stored, default=0)))

    def check(self) -> None:
        super().check()
        build = [name for name in self.scrape() if name.startswith("interdict_build_info{")]
        expected = 'hot="plain"' if self.plain else 'hot="compiled"'
        if len(build) != 1 or expected not in build[0]:
            raise WrongAnswer(f"{self.name}: expected {expected} in interdict_build_info, got {build}")

    def _app(self) -> dict[str, object]:
        common = {"match": "suffix", "purpose": "core", "confidence": "high", "use": "block", "sources": ["BENCH"]}
        domains = [{"name": work.listed(number), **common} for number in range(self.listed_names)]
        return {"id": "bench-app", "names": ["Bench"], "vendor": "Bench", "domains": domains}

    def _order(self) -> dict[str, object]:
        return {
            "id": "bench-order",
            "jurisdiction": "Bench",
            "authority": "Bench",
            "instrument": "Bench",
            "announced": "2023-10-30",
            "effective": "2023-10-30T00:00:00-04:00",
            "scope": {"devices": "all", "level": "app"},
            "basis": "outside-authority",
            "apps": ["bench-app"],
            "citations": [
                {"title": "Bench", "publisher": "Bench", "url": "https://www.example.org/", "read": "primary"}
            ],
            "confidence": "high",
            "title": {"en": "Bench", "fr": "Banc"},
            "notice": {"en": "Bench.", "fr": "Banc."},
        }

    def _configuration(self) -> dict[str, object]:
        groups = {"everyone": ["0.0.0.0/0"]}
        groups |= {f"office-{number}": [f"198.51.100.{number * 16}/28"] for number in range(1, 10)}
        return {
            "listen": [f"127.0.0.1:{self.port}"],
            "workers": 1,
            "upstreams": [{"address": "127.0.0.1", "port": self.upstream_port}],
            "allowed_networks": ["127.0.0.0/8"],
            "state_dir": str(self.folder / "state"),
            "groups": [{"name": name, "networks": networks} for name, networks in groups.items()],
            "policy": {
                "documents": [str(self.folder / "documents")],
                "orders": [{"order": "bench-order", "groups": list(groups), "mode": "enforce", "action": "nxdomain"}],
            },
            "hits": {"sqlite": True, "json_lines": True},
            "metrics": {"listen": f"127.0.0.1:{self.metrics_port}"},
            "cache": {"size": "64MiB"},
        }


class InterdictPlain(Interdict):
    """The same with the hot modules interpreted, as where no compiler ran at install time."""

    name, plain = "interdict-plain", True


SERVERS: dict[str, type[Server]] = {one.name: one for one in (Floor, Dnsdist, Unbound, Interdict, InterdictPlain)}
