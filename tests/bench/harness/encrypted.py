"""What encryption costs: answers over TLS, HTTPS and QUIC, beside servers that people run. `tests/bench/run encrypted`.

Connections are opened before the questions begin and used again for all of them, so that what is measured is the
answer: records of TLS, frames of HTTP, the question itself. Handshakes are another matter, and not measured here.

DoT is loaded by dnsperf, and DoH (POST, HTTP/2) by h2load. Nothing in Debian loads QUIC, so DoQ and DoH over HTTP/3 are
asked by `quic_client.py`, which costs as much as a server does, and no peer here speaks either: they stand for the
record.
"""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import dns.edns
import dns.message

from harness import machine, work
from harness.errand import add_arguments, carry_out
from harness.load import Dnsperf, Generator, Run, build
from harness.report import Measured, Session, table
from harness.servers import Dnsdist, Floor, Interdict, Server, Unbound, Upstream, WrongAnswer, free_port

_WORKER, _MARK = "interdict-w", "unbound"
_ROUTES = {
    "dot": "DNS over TLS, questions one after another on a connection without waiting",
    "doh": "DNS over HTTPS: POST, HTTP/2, side by side on a connection, and always the same question",
    "doq": "DNS over QUIC: a stream a question; Interdict alone",
    "doh3": "DNS over HTTPS: POST, HTTP/3; Interdict alone",
}
_SHARED = ("dot", "doh")  # which peers speak as well
_ASKED = ("blocked", "cached")
_PATH = "/dns-query"
_CLIENT_OPTIONS = {"dot": ["+tls"], "doh": [f"+https={_PATH}"]}  # of kdig
_PADDING_OCTETS = 64
_CONNECTIONS, _WARM_WINDOW, _QUIC_WINDOW = 20, 40, 64
_FETCHED_FIRST = 2_000
_LIMIT_S = 12.0  # for one call of a generator
_ATTEMPTS = 2  # where questions were lost
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


# ---- the servers ----------------------------------------------------------------------------------------------------


class Encrypted(Server):
    """A server that also speaks over TLS and HTTPS, at `doors`: the port of each route."""

    streams = 10
    """How many requests one connection of HTTPS has under way."""

    def __init__(self, folder: Path, listed_names: int, upstream_port: int) -> None:
        """Find the certificate beside the folder, where all servers find it."""
        super().__init__(folder, listed_names, upstream_port)
        self.doors = {route: free_port() for route in _ROUTES}
        self.certificate, self.key = certificate_paths(folder.parent)

    @property
    def routes(self) -> Sequence[str]:
        """What it speaks."""
        return _SHARED

    def check(self) -> None:
        """Ask it one question of every kind by UDP, and by every route that kdig knows."""
        super().check()
        for route in _CLIENT_OPTIONS:
            for shows, name, blocked in work.probes(self.listed_names, f"check-{self.doors[route]}"):
                expected = ("NXDOMAIN", []) if blocked else ("NOERROR", [work.ADDRESS])
                found = _ask(route, self.doors[route], name)
                if found != expected:
                    text = f"{shows}: asked {name}, expected {expected}, got {found}"
                    raise WrongAnswer(f"{self.name} over {route}, {text}")


class EncryptedUnbound(Encrypted, Unbound):
    """Unbound with ports for TLS and for HTTPS."""

    def command(self) -> list[str]:
        """Add the doors to the configuration."""
        command = super().command()
        with (self.folder / "unbound.conf").open("a") as file:
            file.write(
                f"""server:
  interface: 127.0.0.1@{self.doors["dot"]}
  interface: 127.0.0.1@{self.doors["doh"]}
  tls-port: {self.doors["dot"]}
  https-port: {self.doors["doh"]}
  tls-service-key: "{self.key}"
  tls-service-pem: "{self.certificate}"
  incoming-num-tcp: 64
  http-max-streams: 256
  http-nodelay: yes
"""
            )
        return command


class Kresd(Encrypted):
    """Knot Resolver: one process, a policy rule for all listed names."""

    name, program, package = "kresd", "kresd", "knot-resolver"
    streams = 1  # version 5.6 breaks a connection off that has several POSTs under way

    def command(self) -> list[str]:
        """Write the configuration, which is a program in Lua."""
        names = "".join(f"{work.listed(number)}.\n" for number in range(self.listed_names))
        (self.folder / "names").write_text(names)
        (self.folder / "kresd.conf").write_text(
            f"""net.ipv6 = false
net.listen('127.0.0.1', {self.port}, {{ kind = 'dns' }})
net.listen('127.0.0.1', {self.doors["dot"]}, {{ kind = 'tls' }})
net.listen('127.0.0.1', {self.doors["doh"]}, {{ kind = 'doh2' }})
net.tls('{self.certificate}', '{self.key}')
trust_anchors.remove('.')
modules = {{ 'policy' }}
cache.open(128 * MB, 'lmdb://{self.folder}/cache')
local listed = {{}}
for name in io.lines('{self.folder}/names') do listed[#listed + 1] = todname(name) end
policy.add(policy.suffix(policy.DENY, listed))
policy.add(policy.all(policy.FORWARD('127.0.0.1@{self.upstream_port}')))
"""
        )
        return [self.executable(), "-n", "-c", str(self.folder / "kresd.conf"), str(self.folder)]


class EncryptedDnsdist(Encrypted, Dnsdist):
    """dnsdist with its packet cache: it resolves nothing itself."""

    def command(self) -> list[str]:
        """Add the doors to the configuration."""
        command = super().command()
        with (self.folder / "dnsdist.conf").open("a") as file:
            file.write(_dnsdist_doors(self))
        return command


class EncryptedInterdict(Encrypted, Interdict):
    """Interdict as deployed, with all encrypted transports."""

    @property
    def routes(self) -> Sequence[str]:
        """It speaks all."""
        return tuple(_ROUTES)

    def _configuration(self) -> dict[str, object]:
        doors: dict[str, object] = {route: [f"127.0.0.1:{port}"] for route, port in self.doors.items()}
        doors |= {"certificate": str(self.certificate), "key": str(self.key), "path": _PATH}
        return {**super()._configuration(), "encrypted": doors}


class EncryptedPlain(EncryptedInterdict):
    """The same with the hot modules interpreted."""

    name, plain = "interdict-plain", True


class Fronted(Encrypted, Interdict):
    """dnsdist for the encryption, Interdict behind it: told by PROXY v2 who asks, and asked for every answer."""

    name = "dnsdist+interdict"

    def __init__(self, folder: Path, listed_names: int, upstream_port: int) -> None:
        """Give Interdict a port of its own: clients come to dnsdist's."""
        super().__init__(folder, listed_names, upstream_port)
        self._behind = free_port()

    @classmethod
    def executable(cls) -> str:
        """Both programs are needed; the path is Interdict's."""
        Dnsdist.executable()
        return super().executable()

    def version(self) -> str:
        """Say both."""
        return f"{machine.package_version('dnsdist')}, {super().version()}"

    def command(self) -> list[str]:
        """Start both in one session, so that they are counted and frozen as one."""
        behind = super().command()
        front = self.folder / "dnsdist.conf"
        front.write_text(
            f"""setUDPMultipleMessagesVectorSize(64)
setSecurityPollSuffix('')
addLocal('127.0.0.1:{self.port}', {{ reusePort=false }})
setACL({{'127.0.0.0/8'}})
setMaxUDPOutstanding(65535)
newServer({{ address='127.0.0.1:{self._behind}', useProxyProtocol=true }}):setUp()
{_dnsdist_doors(self)}"""
        )
        both = f'{Dnsdist.executable()} --supervised --disable-syslog -C "$1" & shift; "$@" & wait; wait; wait'
        return ["sh", "-c", f"trap : TERM; {both}", "sh", str(front), *behind]

    def stop(self) -> None:
        """End both, since neither ends the other."""
        for one in machine.family(self.pid)[1:]:
            if one.name in ("dnsdist", "interdict"):
                os.kill(one.pid, 15)
        super().stop()

    def _configuration(self) -> dict[str, object]:
        ours: dict[str, object] = {"listen": [f"127.0.0.1:{self._behind}"], "proxies": ["127.0.0.0/8"]}
        return {**super()._configuration(), **ours}


def _dnsdist_doors(server: Encrypted) -> str:
    files = f"'{server.certificate}', '{server.key}'"
    return (
        "setMaxTCPClientThreads(1)\n"
        f"addTLSLocal('127.0.0.1:{server.doors['dot']}', {files}, {{ maxInFlight=100 }})\n"
        f"addDOHLocal('127.0.0.1:{server.doors['doh']}', {files}, '{_PATH}')\n"
    )


SERVERS: dict[str, type[Encrypted]] = {
    one.name: one for one in (EncryptedUnbound, Kresd, EncryptedDnsdist, EncryptedInterdict, Fronted, EncryptedPlain)
}
_USUAL = [name for name in SERVERS if name != EncryptedPlain.name]


def certificate_paths(folder: Path) -> tuple[Path, Path]:
    """Where the certificate of all servers lies, and its key."""
    return folder / "certificate.pem", folder / "key.pem"


def _make_certificate(folder: Path) -> None:
    certificate, key = certificate_paths(folder)
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
    command = [machine.program("openssl", "openssl"), *words.split(), "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    key.chmod(0o644)  # servers that give up root still read it; it is worth nothing


def _ask(route: str, port: int, name: str) -> tuple[str, list[str]]:
    """Ask by kdig for the A records of a name; return RCODE and addresses."""
    command = [machine.program("kdig", "knot-dnsutils"), "@127.0.0.1", "-p", str(port), *_CLIENT_OPTIONS[route]]
    command += ["+timeout=3", "+retry=0", name, "A"]
    printed = subprocess.run(command, capture_output=True, text=True).stdout
    rcode = re.search(r"HEADER<<-.* status: (\w+)", printed)
    return rcode[1] if rcode else "no answer", re.findall(r"^[^;\s]\S*\s+\d+\s+IN\s+A\s+(\S+)", printed, re.MULTILINE)


# ---- the load -------------------------------------------------------------------------------------------------------


class Securely(Dnsperf):
    """dnsperf over TLS."""

    def warm(self, server: Server, questions: Path) -> None:
        """Ask every question once by TLS."""
        once = ["-s", "127.0.0.1", "-n", "1", "-l", str(_LIMIT_S), "-q", str(_WARM_WINDOW), "-T", "1"]
        self._output(self.executable(), server, self._pairs(questions), once)
        self._rest(server)

    def _output(self, program: str, server: Server, questions: Path, options: list[str]) -> str:
        assert isinstance(server, Encrypted)
        own = ["-m", "dot", "-p", str(server.doors["dot"])]
        if self._edns:
            own += ["-e", "-E", f"12:{bytes(_PADDING_OCTETS).hex()}"]
        # Now and then dnsperf waits for ever at its end; interrupted, it counts what it missed as lost.
        command = ["timeout", "--preserve-status", "-s", "INT", str(_LIMIT_S)]
        command += ["taskset", "-c", str(machine.LOAD_CORE), program, "-d", str(questions), "-c", str(_CONNECTIONS)]
        printed = subprocess.run([*command, *options, *own], check=True, stdout=subprocess.PIPE, text=True).stdout
        return printed.partition("Connection Statistics")[0]  # it has lines of the same names


class Fetching(Generator):
    """h2load, which sends one question again and again and counts statuses and octets.

    As many are asked as were answered in so many seconds a moment before: then none is under way at the end, and hits
    can be counted. All octets together must be those of so many right answers.
    """

    def __init__(self, blast: Path, upstream: Server, edns: bool) -> None:
        """Ask; padded as clients do (RFC 8467), or without EDNS."""
        super().__init__(blast, upstream, edns)
        self._rates: dict[tuple[str, str], float] = {}

    @classmethod
    def executable(cls) -> str:
        """Both programs are needed; the path is h2load's."""
        machine.program("curl", "curl")
        return machine.program("h2load", "nghttp2-client")

    def warm(self, server: Server, questions: Path) -> None:
        """Ask a little, and see how quickly it is answered."""
        outcome = self._fetch(server, questions, _FETCHED_FIRST)
        self._rates[server.name, questions.name] = outcome["answered"] / outcome["seconds"]
        self._rest(server)

    def _load(
        self, server: Server, workload: work.Workload, questions: Path, seconds: float, paced: bool
    ) -> dict[str, Any]:
        rate = self._rates[server.name, questions.name]
        return self._fetch(server, questions, max(_FETCHED_FIRST, int(rate * seconds)))

    def _fetch(self, server: Server, questions: Path, count: int) -> dict[str, Any]:
        assert isinstance(server, Encrypted)
        url = f"https://127.0.0.1:{server.doors['doh']}{_PATH}"
        body = questions.with_suffix(".body")
        name, qtype, rcode = questions.read_text().partition("\n")[0].split()
        query = dns.message.make_query(name, qtype, id=0)
        if self._edns:
            query.use_edns(options=[dns.edns.GenericOption(dns.edns.OptionType.PADDING, bytes(_PADDING_OCTETS))])
        body.write_bytes(query.to_wire())
        header = "content-type: application/dns-message"
        own = ["curl", "-sk", "--http2", "--max-time", "2", "-H", header, "--data-binary", f"@{body}", url]
        reply = subprocess.run(own, capture_output=True).stdout
        if len(reply) < 12 or reply[3] & 15 != int(rcode) or not query.is_response(dns.message.from_wire(reply)):
            raise WrongAnswer(f"{server.name} over doh: asked {name} by curl, got {reply.hex()}")
        command = ["taskset", "-c", str(machine.LOAD_CORE), self.executable(), "-t", "1", "-c", str(_CONNECTIONS)]
        command += ["-m", str(server.streams), "-n", str(count), "-d", str(body), "-H", header, url]
        printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_LIMIT_S).stdout
        found = dict((what, int(many)) for many, what in re.findall(r"(\d+) (succeeded|2xx)", printed))
        octets = re.search(r"\((\d+)\) data", printed)
        mean = re.search(r"time for request: +\S+ +\S+ +([\d.]+)(us|ms|s)", printed)
        took = re.search(r"finished in ([\d.]+)(us|ms|s)", printed)
        if octets is None or mean is None or took is None:
            raise WrongAnswer(f"{server.name} over doh: h2load printed {printed[-800:]}")
        answered = found["succeeded"]
        return {
            "seconds": float(took[1]) * _SECONDS[took[2]],
            "asked": count,
            "answered": answered,
            "lost": count - answered,
            "garbled": abs(answered - found["2xx"]),
            "unexpected": int(int(octets[1]) != answered * len(reply)),
            "rcodes": {rcode: answered + 1},  # curl's too
            "mean_us": float(mean[1]) * _SECONDS[mean[2]] * 1e6,
            "p50_us": None,
            "p99_us": None,
        }


class Quic(Generator):
    """`quic_client.py` over one of its routes; it compares every answer with its question."""

    def __init__(self, blast: Path, upstream: Server, route: str) -> None:
        """Ask by this route."""
        super().__init__(blast, upstream, edns=False)
        self._route = route

    def warm(self, server: Server, questions: Path) -> None:
        """Nothing: by QUIC a few thousand questions are asked, and the cache is warm from the routes before."""

    def _load(
        self, server: Server, workload: work.Workload, questions: Path, seconds: float, paced: bool
    ) -> dict[str, Any]:
        assert isinstance(server, Encrypted)
        program = Path(__file__).with_name("quic_client.py")
        command = ["taskset", "-c", str(machine.LOAD_CORE), sys.executable, str(program), self._route]
        command += [str(server.doors[self._route]), str(questions), str(seconds), str(_QUIC_WINDOW), _PATH]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=5 * _LIMIT_S).stdout
        outcome: dict[str, Any] = json.loads(printed)
        return outcome


# ---- measuring ------------------------------------------------------------------------------------------------------


def main(words: Sequence[str]) -> int:
    """Run the command and return its exit code: 0, 1 if a table is refused, 2 if the bench cannot run here."""
    arguments = _arguments(words)
    chosen = [SERVERS[name] for name in arguments.servers]
    return carry_out(
        arguments,
        Session,
        (Floor, Upstream, Dnsperf, Fetching, *chosen),
        partial(_measure, arguments, chosen),
        markdown,
        lambda report: [f"{title}: {why}" for title in _titles(report) if (why := report.refusal(title, False))],
        ", or choose others with --servers",
    )


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/run encrypted", description="Measure what encryption costs.")
    parser.add_argument("--routes", default=",".join(_ROUTES), help="some of: %(default)s")
    parser.add_argument("--servers", default=",".join(_USUAL), help=f"some of: {', '.join(SERVERS)}")
    parser.add_argument("--listed", type=int, default=1000, help="names listed (default 1000)")
    parser.add_argument("--padding", action="store_true", help="ask with EDNS and a padding of equal length (dot, doh)")
    add_arguments(parser, rounds=3, seconds=1.5, distinct=10_000)
    arguments = parser.parse_args(words)
    for option, known in (("routes", _ROUTES), ("servers", SERVERS)):
        setattr(arguments, option, getattr(arguments, option).split(","))
        if unknown := set(getattr(arguments, option)) - set(known):
            parser.error(f"--{option}: {', '.join(sorted(unknown))}: unknown; choose from {', '.join(known)}")
    if min(arguments.rounds, arguments.listed, arguments.distinct, arguments.seconds) <= 0:
        parser.error("--rounds, --seconds, --listed and --distinct are above 0")
    return arguments


def _measure(
    arguments: argparse.Namespace, chosen: list[type[Encrypted]], report: Session, folder: Path, stack: ExitStack
) -> None:
    blast, Floor.binary = build(folder)
    _make_certificate(folder)
    upstream = stack.enter_context(_running(Upstream(folder / "knot", 0, 0)))
    generators: dict[str, Generator] = {
        "dot": Securely(blast, upstream, arguments.padding),
        "doh": Fetching(blast, upstream, arguments.padding),
        "doq": Quic(blast, upstream, "doq"),
        "doh3": Quic(blast, upstream, "doh3"),
    }
    generators = {route: generators[route] for route in arguments.routes}
    by_udp = Generator(blast, upstream, edns=False)
    files = {name: folder / f"{name}.questions" for name in _ASKED}
    for name, path in files.items():
        path.write_text("".join(work.questions(work.WORKLOADS[name], arguments.listed, arguments.distinct)))
    (folder / "warm.questions").write_text("".join(work.warm_questions()))
    servers: list[Encrypted] = []
    for kind in chosen:
        server = kind(folder / kind.name, arguments.listed, upstream.port)
        stack.enter_context(_running(server))
        started = machine.memory_by_role(server.pid)
        server.check()
        by_udp.warm(server, folder / "warm.questions")
        for route, generator in generators.items():
            for path in files.values() if route in server.routes else ():
                generator.warm(server, path)
        warm = machine.memory_by_role(server.pid)
        report.servers.append(Measured(server.name, server.version(), server.start_s, started, warm))
        _say(f"{server.name} {server.version()}: answers rightly over {', '.join(_CLIENT_OPTIONS)}")
        server.freeze()
        servers.append(server)
    for round in range(arguments.rounds):
        for route, generator in generators.items():
            for name in _ASKED:
                for server in servers if round % 2 == 0 else servers[::-1]:
                    if route in server.routes:
                        report.runs.append(_run(generator, server, name, files[name], route, round, arguments.seconds))
    for server, measured in zip(servers, report.servers, strict=True):
        server.thaw()
        server.check()
        measured.memory_after = machine.memory_by_role(server.pid)
        server.freeze()


def _run(
    generator: Generator, server: Encrypted, name: str, questions: Path, route: str, round: int, seconds: float
) -> Run:
    server.thaw()
    for attempt in range(_ATTEMPTS):
        run = generator.measure(server, work.WORKLOADS[name], questions, seconds, False, round, attempt)
        if not run.lost:
            break
    server.freeze()
    run = dataclasses.replace(run, workload=f"{route}, {name}")
    _say(
        f"round {round + 1} {run.workload:13} {run.server:18} {run.answered / run.seconds:8,.0f}/s "
        f"{run.cost_us:7.2f} µs  busy {run.busy:.2f}  foreign {run.foreign_server:.2f} {run.foreign_load:.2f}  "
        f"{run.complaint or ''}"
    )
    return run


@contextmanager
def _running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


# ---- reporting ------------------------------------------------------------------------------------------------------


def _titles(report: Session) -> list[str]:
    return list(dict.fromkeys(run.workload for run in report.runs))


def markdown(report: Session) -> str:
    """Write the report: every table that was measured, or the reason why one is missing."""
    facts, said = report.machine, report.arguments
    padded = f"a padding of {_PADDING_OCTETS} octets" if said["padding"] else "no EDNS"
    sections = [
        f"# Encrypted, {report.date}\n",
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, kernel {facts['kernel']}, Python "
        f"{facts['python']}. Each server alone on one core with one worker, the generator and the upstream on the "
        f"other; {_CONNECTIONS} connections, used again; {said['listed']:,} listed names, {said['distinct']:,} "
        f"distinct questions with {padded}. Medians of {said['rounds']} interleaved rounds of {said['seconds']:g} s; "
        f"ratios are to {_MARK} in the same round.\n",
        "\n".join(f"- {one.name}: {one.version}" for one in report.servers) + "\n",
    ]
    for title in _titles(report):
        route, _, name = title.partition(", ")
        sections.append(
            f"## {title}\n\n{_ROUTES[route]}. {work.WORKLOADS[name].meaning[0].upper()}"
            f"{work.WORKLOADS[name].meaning[1:]}.\n"
        )
        refusal = report.refusal(title, False)
        runs = [run for run in report.part(title, False) if run.noise() <= report.noise_limit]
        sections.append(f"**Refused.** {refusal}\n" if refusal else _costs(runs))
    noise = [run.noise() for run in report.runs] or [0.0]
    left_out = sum(one > report.noise_limit for one in noise)
    sections.append(
        f"{len(report.runs)} runs. Before and after, kdig asked each server by TLS and HTTPS; under load the RCODE of "
        f"every answer was looked at, and every hit was stored. Others took {median(noise):.0%} of a core (median), "
        f"{max(noise):.0%} at most; {left_out} runs with more than {report.noise_limit:.0%} are left out.\n"
    )
    return "\n".join(sections)


def _costs(runs: Sequence[Run]) -> str:
    marks = {run.round: run.cost_us for run in runs if run.server == _MARK}
    rows, splits = [], []
    for name in dict.fromkeys(run.server for run in runs):
        mine = [run for run in runs if run.server == name]
        worker = [cost for run in mine if (cost := run.role_cost_us(_WORKER)) is not None]
        costs = [run.cost_us for run in mine]
        ratios = [run.cost_us / marks[run.round] for run in mine if run.round in marks]
        rows.append([
            name, f"{median(costs):.1f}", f"{min(costs):.1f}–{max(costs):.1f}",
            f"{median(ratios):.2f}" if ratios else "–",
            f"{median(worker):.1f}" if worker else "–",
            f"{median(run.answered / run.seconds for run in mine):,.0f}",
            f"{median(run.busy for run in mine):.2f}", f"{len(mine)}",
        ])  # fmt: skip
        roles = sorted({role for run in mine for role in run.cpu_s | run.cpu_after_s})
        if len(roles) > 1:
            each = (f"{role} {median(run.role_cost_us(role) or 0.0 for run in mine):.1f}" for role in roles)
            splits.append(f"{name} by process, µs: {', '.join(each)}.\n")
    head = ["server", "CPU µs per answer", "range", f"× {_MARK}", "worker µs", "answers/s", "busy", "rounds"]
    return "\n".join([table(head, rows), *splits])
