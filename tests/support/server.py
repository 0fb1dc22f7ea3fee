"""The whole product as a process of its own, and what tests do with it from outside: ask, kill, read its evidence."""

import contextlib
import json
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from resolver.app import control

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
PATIENCE = 30.0  # seconds after which a condition that has not come true fails the test


def wait_until(what: str, get: Callable[[], T]) -> T:
    """Wait until something is true, and return it."""
    end = time.monotonic() + PATIENCE
    while not (found := get()):
        assert time.monotonic() < end, f"after {PATIENCE:g} s still not: {what}"
        time.sleep(0.02)
    return found


def free_port() -> int:
    """A port of 127.0.0.1 and ::1 that nobody holds, over UDP and TCP."""
    while True:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                for family, kind in (
                    (socket.AF_INET, socket.SOCK_DGRAM),
                    (socket.AF_INET6, socket.SOCK_STREAM),
                    (socket.AF_INET6, socket.SOCK_DGRAM),
                ):
                    sock = stack.enter_context(socket.socket(family, kind))
                    sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
            except OSError:
                continue
            return port


def order(id_: str, *names: str, effective: str = "2020-01-01T00:00:00Z") -> tuple[dict[str, Any], dict[str, Any]]:
    """(an app of some names, an order that forbids it), as documents."""
    constant = {"match": "suffix", "purpose": "core", "confidence": "high", "use": "block", "sources": ["EX"]}
    app = {
        "id": f"app-{id_}", "names": [f"App {id_}"], "vendor": "Example Corp.",
        "domains": [{"name": name, **constant} for name in names],
    }  # fmt: skip
    text = {"en": "A ban", "fr": "Une interdiction"}
    citation = {"title": "Ban", "publisher": "Gazette", "url": "https://www.example.org/ban", "read": "primary"}
    return app, {
        "id": id_, "jurisdiction": "Exampleland", "authority": "Minister", "instrument": "Direction 1",
        "announced": "2019-12-01", "effective": effective, "scope": {"devices": "all", "level": "app"},
        "basis": "outside-authority", "apps": [app["id"]], "citations": [citation], "confidence": "high",
        "title": text, "notice": text,
    }  # fmt: skip


class Server:
    """One server with a folder of its own."""

    def __init__(self, folder: Path, upstreams: Sequence[tuple[str, int]] = (), **config: Any) -> None:
        """Write the configuration; nothing runs yet.

        Args:
            folder: For configuration, documents, state and log.
            upstreams: Where to forward; without any, a port that nobody listens on.
            config: Keys of interdict.yaml, over those that every test wants.
        """
        self.folder = folder
        self.port = free_port()
        self.metrics_port = free_port()
        self.state = folder / "state"
        self.documents = folder / "policy"
        self.log = folder / "log"
        self.config_path = folder / "interdict.yaml"
        for kind in ("apps", "orders"):
            (self.documents / kind).mkdir(parents=True, exist_ok=True)
        self.config: dict[str, Any] = {
            "node": "node-1",
            "listen": [f"127.0.0.1:{self.port}", f"[::1]:{self.port}"],
            "workers": 2,
            "state_dir": str(self.state),
            "upstreams": [{"address": host, "port": port} for host, port in upstreams or [("127.0.0.1", free_port())]],
            "metrics": {"listen": f"127.0.0.1:{self.metrics_port}"},
            "policy": {"documents": [str(self.documents)], "orders": []},
            **config,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    # ---- configuration ---------------------------------------------------------------------------------------------

    def ban(self, id_: str, *names: str, effective: str = "2020-01-01T00:00:00Z", **applied: Any) -> None:
        """Write an order with its app, and put it into force with the next start or reload."""
        for kind, document in zip(("apps", "orders"), order(id_, *names, effective=effective), strict=True):
            (self.documents / kind / f"{document['id']}.yaml").write_text(json.dumps(document))
        self.config["policy"]["orders"].append({"order": id_, "groups": ["everyone"], **applied})
        self.write()

    def write(self) -> None:
        """Write interdict.yaml; JSON is YAML."""
        self.config_path.write_text(json.dumps(self.config, indent=1))

    # ---- life ------------------------------------------------------------------------------------------------------

    def spawn(self) -> "subprocess.Popen[bytes]":
        """Start the process and do not wait for anything."""
        if not self.config_path.exists():
            self.write()
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "resolver", "serve", "--config", str(self.config_path)],
                cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        return self.process

    def start(self) -> "Server":
        """Start, and wait until it answers."""
        process = self.spawn()
        wait_until("it answers", lambda: process.poll() is not None or "answers on" in self.said())
        assert process.poll() is None, self.said()
        return self

    def said(self) -> str:
        """What it printed since it was started last."""
        return self.log.read_bytes()[self._log_start :].decode()

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        """Whatever state it is in, it is gone afterwards, with all its processes."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def ask_control(self, verb: str) -> dict[str, Any]:
        """Ask over the control socket."""
        return dict(control.ask(self.state / "run", verb, PATIENCE))

    def pids(self) -> dict[str, int]:
        """The processes by name; 0 where one is being started again."""
        return {process["name"]: process["pid"] for process in self.ask_control("status")["processes"]}

    # ---- evidence --------------------------------------------------------------------------------------------------

    def hits(self, columns: str = "qname") -> list[tuple[Any, ...]]:
        """Rows of the evidence database, oldest first; none while it is not there yet."""
        path = self.state / "hits" / "hits.sqlite"
        if not path.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
            try:
                return db.execute(f"SELECT {columns} FROM hit ORDER BY id").fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise

    def lines(self) -> list[dict[str, Any]]:
        """Hits in the JSON Lines files."""
        return [
            json.loads(line)
            for path in sorted((self.state / "hits").glob("*.jsonl"))
            for line in path.read_text().splitlines()
        ]

    def metrics(self) -> dict[tuple[str, ...], float]:
        """What Prometheus would read: value by (name, label value, …), labels by the alphabet."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as response:
            text = response.read().decode()
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


# ---- clients --------------------------------------------------------------------------------------------------------


def ask_udp(port: int, packet: bytes, host: str = "127.0.0.1", wait: float = 10.0) -> bytes:
    """Ask once over UDP.

    Raises:
        TimeoutError: No reply.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(wait)
        sock.connect((host, port))
        sock.send(packet)
        return sock.recv(65535)


def ask_all(
    port: int, packets: Sequence[bytes], *, sockets: int = 16, window: int = 64, wait: float = PATIENCE
) -> list[bytes | None]:
    """Ask everything over UDP, so many in flight at a time, from several ports; each once.

    Returns:
        The replies in the order of the packets; None where none came within `wait` of the last one sent.
    """
    replies: list[bytes | None] = [None] * len(packets)
    with contextlib.ExitStack() as stack:
        poll = select.poll()
        held: dict[int, socket.socket] = {}
        for _ in range(sockets):
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            sock.connect(("127.0.0.1", port))
            sock.setblocking(False)
            held[sock.fileno()] = sock
            poll.register(sock, select.POLLIN)
        turn = list(held)
        where: dict[tuple[int, bytes], int] = {}
        following = 0
        end = time.monotonic() + wait
        while (following < len(packets) or where) and time.monotonic() < end:
            while following < len(packets) and len(where) < window:
                fd = turn[following % sockets]
                message_id = (following // sockets % 65536).to_bytes(2, "big")
                where[fd, message_id] = following
                with contextlib.suppress(ConnectionRefusedError):  # what an earlier one met; a server may be gone
                    held[fd].send(message_id + packets[following][2:])
                following += 1
                end = time.monotonic() + wait
            for fd, _ in poll.poll(50):
                with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                    while True:
                        reply = held[fd].recv(65535)
                        number = where.pop((fd, reply[:2]), None)
                        if number is not None:
                            replies[number] = reply
    return replies


def ask_tcp(port: int, packets: Sequence[bytes], host: str = "127.0.0.1", wait: float = PATIENCE) -> list[bytes]:
    """Ask everything on one TCP connection, pipelined; replies by the order of the packets."""
    with socket.create_connection((host, port), wait) as sock:
        sending = threading.Thread(
            target=sock.sendall,
            args=(b"".join(len(p).to_bytes(2, "big") + n.to_bytes(2, "big") + p[2:] for n, p in enumerate(packets)),),
        )
        sending.start()
        replies: dict[int, bytes] = {}
        with sock.makefile("rb") as file:
            while len(replies) < len(packets):
                head = file.read(2)
                assert len(head) == 2, f"the connection ended after {len(replies)} of {len(packets)} replies"
                reply = file.read(int.from_bytes(head, "big"))
                replies[int.from_bytes(reply[:2], "big")] = reply
        sending.join()
    return [replies[n] for n in range(len(packets))]


class Load:
    """A client in the background that asks one name after another, each once, until it is told to stop."""

    def __init__(self, port: int, packets: Iterator[tuple[str, bytes]], window: int = 16, wait: float = 10.0) -> None:
        """Set up.

        Args:
            port: Of the server.
            packets: (what to call it, the query) without end.
            window: Queries in flight.
            wait: Seconds after which a query counts as lost.
        """
        self.answered: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.lost: list[str] = []
        self._port, self._packets, self._window, self._wait = port, packets, window, wait
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask nothing more, and wait for what is under way."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        # A new port now and then, so that every worker has its share.
        while not self._stop.is_set():
            batch = [next(self._packets) for _ in range(self._window)]
            self.asked += [name for name, _ in batch]
            replies = ask_all(self._port, [p for _, p in batch], sockets=4, window=self._window, wait=self._wait)
            for (name, _), reply in zip(batch, replies, strict=True):
                if reply is None:
                    self.lost.append(name)
                else:
                    self.answered[name] = reply


class SlowUpstream:
    """A real upstream on loopback that lets each question wait, or is silent."""

    def __init__(self, react: Callable[[bytes], bytes | None], delay: float = 0.0) -> None:
        self.asked: list[bytes] = []
        self._react, self.delay = react, delay
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", free_port()))  # free over TCP as well: some answer over both
        self.address: tuple[str, int] = self._sock.getsockname()
        self._closing = False
        self._timers: list[threading.Timer] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "SlowUpstream":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self.address)
        self._thread.join()
        for timer in self._timers:
            timer.cancel()
            timer.join()
        self._sock.close()

    def _run(self) -> None:
        while True:
            query, client = self._sock.recvfrom(4096)
            if self._closing:
                return
            self.asked.append(query)
            reply = self._react(query)
            if reply is None:
                continue
            if not self.delay:
                self._sock.sendto(reply, client)
                continue
            timer = threading.Timer(self.delay, self._sock.sendto, (reply, client))
            self._timers.append(timer)
            timer.start()
