"""What one DoH request costs, engine by engine: `python tests/bench/doh_engines.py` prints the table.

Every engine does the same work: over TLS and HTTP/2 it answers POST and GET with one fixed DNS message; POST for one
name, GET for a thousand in turn, since there the name is part of the header. h2load asks it over connections that it
reuses, pinned to one core; the server is pinned to another. Engines take turns, so that what the machine does meanwhile
falls on all alike; a ratio is the median of the ratios within one round. An engine that gives another answer, or fewer
answers than requests, is refused.

    tests/bench/doh_engines.py --engines interdict --peers dnsdist        # 32 requests at once on a connection
    tests/bench/doh_engines.py --engines interdict --peers dnsdist,kresd --streams 1

`dnsdist` and `kresd` are servers that people run, with every name answered by a rule; they do DNS as well. What they
cost is the mark; `interdict` in this table is the transport alone, with an answerer that costs nothing. (kresd 5.6 does
not answer many requests at once on a connection, and is refused then.) granian takes part where it is installed.
"""

import argparse
import asyncio
import base64
import contextlib
import importlib.util
import os
import re
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER_CORE, LOAD_CORE = "0", "1"
PATIENCE = 20.0  # seconds for a server to answer for the first time
QUERY = bytes.fromhex("00000100000100000000000003777777076578616d706c65036f72670000010001")
ANSWER = QUERY[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + QUERY[12:] + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1"
NAMES = 1000  # that GET asks for in turn: its question is part of the header, which then is never quite the same
METHODS = ("POST", "GET")
TYPE = "application/dns-message"


class Refused(Exception):
    """A server that can not be measured; the text says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server finds what it needs."""

    folder: Path
    port: int

    @property
    def certificate(self) -> str:
        return str(self.folder / "certificate.pem")

    @property
    def key(self) -> str:
        return str(self.folder / "key.pem")

    def tls(self) -> ssl.SSLContext:
        """The context that all engines on Python's own TLS use."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.certificate, self.key)
        made.set_alpn_protocols(["h2", "http/1.1"])
        return made


# The engines


def _serve_protocol(place: Place, factory: Callable[[], asyncio.BaseProtocol]) -> None:
    import uvloop

    async def run() -> None:
        loop = asyncio.get_running_loop()
        await loop.create_server(factory, "127.0.0.1", place.port, ssl=place.tls())
        await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def serve_h2(place: Place, **configuration: bool) -> None:
    """The sans-I/O library under an asyncio protocol, one write for all that one read brought."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import DataReceived, RequestReceived, StreamEnded

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.bodies: dict[int, bytes] = {}
            self.conn = H2Connection(H2Configuration(client_side=False, header_encoding=None, **configuration))
            self.conn.initiate_connection()
            transport.write(self.conn.data_to_send())

        def data_received(self, octets: bytes) -> None:
            for event in self.conn.receive_data(octets):
                if isinstance(event, RequestReceived):
                    assert event.headers
                    asked = dict(event.headers)
                    self.bodies[event.stream_id] = b""
                    if asked[b":method"] == b"GET":
                        text = asked[b":path"].partition(b"dns=")[2]
                        self.bodies[event.stream_id] = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
                elif isinstance(event, DataReceived):
                    self.bodies[event.stream_id] += event.data or b""
                    self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded) and self.bodies.pop(event.stream_id):
                    headers = [
                        (":status", "200"), ("content-type", TYPE), ("content-length", str(len(ANSWER))),
                        ("cache-control", "max-age=60"),
                    ]  # fmt: skip
                    self.conn.send_headers(event.stream_id, headers)
                    self.conn.send_data(event.stream_id, ANSWER, end_stream=True)
            self.transport.write(self.conn.data_to_send())

    _serve_protocol(place, Protocol)


def serve_h2_lenient(place: Place) -> None:
    """The same, checking and normalising no header."""
    serve_h2(
        place, validate_inbound_headers=False, validate_outbound_headers=False, normalize_inbound_headers=False,
        normalize_outbound_headers=False,
    )  # fmt: skip


def serve_granian(place: Place, interface: str) -> None:
    """granian in this process, on uvloop."""
    import uvloop
    from granian.constants import HTTPModes, Interfaces
    from granian.server.embed import Server

    headers = [("content-type", TYPE), ("content-length", str(len(ANSWER))), ("cache-control", "max-age=60")]
    raw = [(name.encode(), value.encode()) for name, value in headers]

    async def rsgi(scope: Any, protocol: Any) -> None:
        query = base64.urlsafe_b64decode(scope.query_string[4:] + "==") if scope.method == "GET" else await protocol()
        assert query
        protocol.response_bytes(200, headers, ANSWER)

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "GET":
            query = base64.urlsafe_b64decode(scope["query_string"][4:] + b"==")
        else:
            query = (await receive())["body"]
        assert query
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await send({"type": "http.response.body", "body": ANSWER})

    async def run() -> None:
        server = Server(
            rsgi if interface == "rsgi" else asgi,
            port=place.port,
            interface=Interfaces.RSGI if interface == "rsgi" else Interfaces.ASGINL,
            http=HTTPModes.auto,
            websockets=False,
            log_enabled=False,
            ssl_cert=Path(place.certificate),
            ssl_key=Path(place.key),
        )
        await server.serve()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def serve_interdict(place: Place) -> None:
    """The product's transport."""
    import uvloop

    from resolver.observe.record import sockaddr
    from resolver.transport.http import HttpServer, HttpTerms
    from resolver.transport.places import Places, PlaceTerms

    class Fixed:
        def answer(self, packet: bytes, client: object, later: object) -> bytes:
            return ANSWER

    async def run() -> None:
        loop = asyncio.get_running_loop()
        places = Places(loop, PlaceTerms(), time.monotonic)
        server = HttpServer(loop, Fixed(), HttpTerms(), places, sockaddr, time.monotonic)
        sock = socket.create_server(("127.0.0.1", place.port))
        await server.listen(sock, place.tls(), None)
        await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


SERVES: dict[str, Callable[[Place], None]] = {
    "interdict": serve_interdict,
    "h2": serve_h2,
    "h2-lenient": serve_h2_lenient,
    "granian-rsgi": lambda place: serve_granian(place, "rsgi"),
    "granian-asgi": lambda place: serve_granian(place, "asgi"),
}


def _dnsdist(place: Place) -> list[str]:
    (place.folder / "dnsdist.conf").write_text(
        f'addDOHLocal("127.0.0.1:{place.port}", "{place.certificate}", "{place.key}", "/dns-query")\n'
        'addAction(AllRule(), SpoofAction("192.0.2.1", {ttl=60}))\n'
        'newServer("127.0.0.1:9")\nsetSecurityPollSuffix("")\n'
    )
    return ["dnsdist", "--supervised", "-C", str(place.folder / "dnsdist.conf")]


def _kresd(place: Place) -> list[str]:
    (place.folder / "kresd.conf").write_text(
        f"net.tls('{place.certificate}', '{place.key}')\n"
        f"net.listen('127.0.0.1', {place.port}, {{ kind = 'doh2' }})\n"
        "modules = { 'policy' }\n"
        "policy.add(policy.all(policy.ANSWER({ [kres.type.A] = { rdata = kres.str2ip('192.0.2.1'), ttl = 60 } })))\n"
    )
    (place.folder / "run").mkdir(exist_ok=True)
    return ["kresd", "-n", "-c", str(place.folder / "kresd.conf"), str(place.folder / "run")]


PEERS: dict[str, Callable[[Place], list[str]]] = {"dnsdist": _dnsdist, "kresd": _kresd}


# The measuring


@dataclass(slots=True)
class Server:
    """One engine that runs."""

    name: str
    place: Place
    process: subprocess.Popen[bytes]

    def url(self, query: bytes | None) -> str:
        """Where to ask, by POST, or by GET for something."""
        url = f"https://127.0.0.1:{self.place.port}/dns-query"
        return url if query is None else f"{url}?dns={base64.urlsafe_b64encode(query).rstrip(b'=').decode()}"

    def cpu_s(self) -> float:
        """What all its threads used, from the scheduler's own count in nanoseconds; ended threads are not in it."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def ask(self, method: str, body: Path) -> bytes:
        """One answer, by curl."""
        post = ["--data-binary", f"@{body}"] if method == "POST" else []
        headers = ["-H", f"content-type: {TYPE}", "-H", f"accept: {TYPE}"]
        url = self.url(None if method == "POST" else QUERY)
        words = ["curl", "-sk", "--http2", "--max-time", "2", *headers, *post, url]
        return subprocess.run(words, capture_output=True).stdout


def _certificate(place: Place) -> None:
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", place.key, "-out", place.certificate]
    subprocess.run([*words.split(), *more], check=True, capture_output=True)


def _is_right(answer: bytes) -> bool:
    """Whether it is a positive answer to the query with the one address; OPT and flags are the server's own matter."""
    return answer[6:8] == b"\0\1" and answer[12 : len(QUERY)] == QUERY[12:] and b"\0\4\xc0\0\2\1" in answer


@contextlib.contextmanager
def _running(name: str, root: Path, body: Path) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder = root / name
    folder.mkdir()
    place = Place(folder, port)
    _certificate(place)
    if name in PEERS:
        words = PEERS[name](place)
    else:
        words = [sys.executable, __file__, "--serve", name, "--folder", str(folder), "--port", str(port)]
    repository = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": repository, "PATH": os.environ["PATH"] + ":/usr/sbin"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["taskset", "-c", SERVER_CORE, *words], stdout=log, stderr=log, env=environment)
    server = Server(name, place, process)
    try:
        end = time.monotonic() + PATIENCE
        while not all(_is_right(server.ask(method, body)) for method in METHODS):
            if process.poll() is not None or time.monotonic() > end:
                raise Refused(f"{name} gives no right answer: " + (folder / "log").read_text()[-800:])
            time.sleep(0.1)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure(server: Server, method: str, body: Path, arguments: argparse.Namespace) -> float:
    """CPU microseconds a request.

    Raises:
        Refused: Not every request got a right answer.
    """
    if method == "POST":
        what = ["-d", str(body), server.url(None)]
    else:
        urls = server.place.folder / "urls"
        names = [QUERY.replace(b"\3www", b"\7n%06d" % number) for number in range(NAMES)]
        urls.write_text("".join(f"{server.url(name)}\n" for name in names))
        what = ["-i", str(urls)]
    shape = ["-n", str(arguments.requests), "-c", str(arguments.connections), "-m", str(arguments.streams)]
    headers = ["-H", f"content-type: {TYPE}", "-H", f"accept: {TYPE}"]
    words = ["taskset", "-c", LOAD_CORE, "h2load", *shape, *headers, *what]
    octets = len(server.ask(method, body)) + (4 if method == "GET" and server.name in PEERS else 0)  # a longer name
    before = server.cpu_s()
    said = subprocess.run(words, capture_output=True, text=True).stdout
    used = server.cpu_s() - before
    right = re.search(r"status codes: (\d+) 2xx", said)
    data = re.search(r"\((\d+)\) data", said)
    if not right or int(right[1]) != arguments.requests or not data or int(data[1]) != octets * arguments.requests:
        raise Refused(f"{server.name}: not every {method} was answered rightly:\n{said}")
    return used / arguments.requests * 1e6


def compare(arguments: argparse.Namespace, names: list[str]) -> dict[tuple[str, str], list[float]]:
    """Run the rounds: (engine, method) -> microseconds of each round."""
    figures: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        body = Path(folder) / "query"
        body.write_bytes(QUERY)
        servers = [stack.enter_context(_running(name, Path(folder), body)) for name in names]
        for server in servers:
            for method in METHODS:
                measure(server, method, body, arguments)  # the first is not counted: everything is cold
        for _ in range(arguments.rounds):
            for server in servers:
                for method in METHODS:
                    figures.setdefault((server.name, method), []).append(measure(server, method, body, arguments))
    return figures


def table(figures: dict[tuple[str, str], list[float]], names: list[str]) -> str:
    """Markdown: median microseconds, and the median ratio to the first engine of the same round."""
    lines = ["| engine | POST µs | × | GET µs | × |", "|---|---|---|---|---|"]
    for name in names:
        cells = []
        for method in METHODS:
            own, first = figures[name, method], figures[names[0], method]
            ratio = statistics.median(mine / other for mine, other in zip(own, first, strict=True))
            cells += [f"{statistics.median(own):.1f}", f"{ratio:.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Print the table; 1 if it is refused."""
    parser = argparse.ArgumentParser(description="CPU time of one DoH request, engine by engine.")
    here = [name for name in SERVES if "granian" not in name or importlib.util.find_spec("granian")]
    parser.add_argument("--engines", default=",".join(here), help="names, separated by commas; the first is 1.00")
    parser.add_argument("--peers", default="", help=f"of {','.join(PEERS)}")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", choices=SERVES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        SERVES[arguments.serve](Place(arguments.folder, arguments.port))
        return 0
    names = [name for name in f"{arguments.engines},{arguments.peers}".split(",") if name]
    if unknown := sorted(set(names) - set(SERVES) - set(PEERS)):
        parser.error(f"{unknown[0]} is no engine: write one of {', '.join([*SERVES, *PEERS])} instead")
    try:
        print(table(compare(arguments, names), names))
    except Refused as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
