"""The server is replaced while clients ask: the service manager keeps the sockets, and nobody's query is lost.

The manager is one of the test's own: it speaks sd_notify(3) and sd_listen_fds(3) as systemd does, with real sockets and
real processes.
"""

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resolver.app.listening import listeners
from resolver.config import read
from resolver.policy.client import Transport
from tests.support.encrypted import NAME, Covered, points_home, rcode_of
from tests.support.house import ask
from tests.support.server import PATIENCE, ROOT, Load, Server, SlowUpstream

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
MakeServer = Callable[..., Server]

# Descriptors from 3 on, and the process's own number: what systemd leaves to a service (sd_listen_fds(3)).
LAUNCH = """
import fcntl, os, sys
count = int(os.environ["LISTEN_FDS"])
moved = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 200) for fd in sys.argv[1 : 1 + count]]
for number, fd in enumerate(moved):
    os.dup2(fd, 3 + number)
os.closerange(3 + count, 300)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "resolver", *sys.argv[1 + count :]])
"""


class Keeper:
    """A service manager with one service: hears what it says, and holds what it hands over."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self.held: list[tuple[str, int]] = []
        self.heard: list[str] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(self.address)
        self._sock.setblocking(False)

    def listen(self) -> None:
        """Take in what was said so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                octets, fds, _, _ = socket.recv_fds(self._sock, 4096, 253)
                lines = octets.decode().splitlines()
                self.heard += lines
                name = next((line.removeprefix("FDNAME=") for line in lines if line.startswith("FDNAME=")), "")
                if "FDSTOREREMOVE=1" in lines:
                    for fd in [fd for held, fd in self.held if held == name]:
                        os.close(fd)
                    self.held = [(held, fd) for held, fd in self.held if held != name]
                have = {os.fstat(fd).st_ino for _, fd in self.held}
                for fd in fds:  # one that it has already is not kept twice
                    if os.fstat(fd).st_ino in have:
                        os.close(fd)
                    else:
                        self.held.append((name, fd))

    def wait_for(self, word: str, process: "subprocess.Popen[bytes]") -> None:
        """Until the service has said it."""
        self.heard.clear()
        while word not in self.heard:
            assert select.select([self._sock], [], [], PATIENCE)[0], f"after {PATIENCE:g} s no {word}"
            assert process.poll() is None, "the service ended"
            self.listen()

    def start(self, server: Server) -> None:
        """Start the service as systemd starts it, and wait until it is ready."""
        self.wait_for("READY=1", self.launch(server))

    def launch(self, server: Server) -> "subprocess.Popen[bytes]":
        """Start the service as systemd starts it."""
        numbers = [fd for _, fd in self.held]
        if not server.config_path.exists():
            server.write()
        with server.log.open("ab") as log:
            server.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, *map(str, numbers), "serve", "--config", str(server.config_path)],
                cwd=ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "NOTIFY_SOCKET": self.address,
                    "LISTEN_FDS": str(len(numbers)),
                    "LISTEN_FDNAMES": ":".join(name for name, _ in self.held),
                },
                pass_fds=numbers,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return server.process

    def close(self) -> None:
        for _, fd in self.held:
            os.close(fd)
        self._sock.close()


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    made = Keeper(tmp_path)
    yield made
    made.close()


@pytest.fixture
def server(make_server: MakeServer, upstream: tuple[str, int]) -> Server:
    made = make_server(upstream)
    made.ban("order-1", "banned-app.ca")
    return made


def names() -> Iterator[tuple[str, bytes]]:
    """A banned and an allowed name, one after another."""
    for n in itertools.count():
        for name in (f"n{n}.banned-app.ca", f"n{n}.allowed.ca"):
            yield name, ask(name)


def test_a_restart_loses_no_query(server: Server, keeper: Keeper) -> None:
    """Every query that was sent before, during and after has its reply, with as many sockets kept afterwards."""
    keeper.start(server)
    kept = sorted(name for name, _ in keeper.held)
    with Load(server.port, names(), window=4) as load:
        assert server.stop() == 0
        before = len(load.answered)
        keeper.start(server)
        while len(load.answered) < before + 200:
            assert server.process is not None
            assert server.process.poll() is None
    keeper.listen()

    assert load.lost == []
    assert len(load.answered) == len(load.asked)
    assert sorted(name for name, _ in keeper.held) == kept
    assert len(kept) == 2 * 2 * 2  # workers, addresses, UDP and TCP


def test_a_listener_that_was_taken_out_is_let_go(server: Server, keeper: Keeper) -> None:
    """The manager does not go on keeping an address that the configuration names no more."""
    keeper.start(server)
    assert server.stop() == 0
    server.config["listen"] = [f"127.0.0.1:{server.port}"]
    server.write()
    keeper.start(server)
    keeper.listen()

    assert {name.rpartition("-")[0] for name, _ in keeper.held} == {
        "interdict-udp-127.0.0.1",
        "interdict-tcp-127.0.0.1",
    }
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", server.port))


def test_a_socket_unit_and_the_configuration_must_agree(server: Server, keeper: Keeper) -> None:
    """A socket that nobody would answer on ends the start with exit code 2, and is named."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        keeper.held.append(("interdict.socket", os.dup(sock.fileno())))
        port = sock.getsockname()[1]

    assert keeper.launch(server).wait(PATIENCE) == 2
    assert f"the socket unit listens on UDP 127.0.0.1 {port}" in server.said()


@contextlib.contextmanager
def encrypting(folder: Path) -> Iterator[Covered]:
    """A server that speaks everything, and was not started yet."""
    with SlowUpstream(points_home) as upstream:
        made = Covered(folder, upstream.address)
        made.server.ban("order-1", "banned-app.ca")
        try:
            yield made
        finally:
            made.server.end()


def answers_of(covered: Covered) -> list[str]:
    """The RCODE that each encrypted transport has for a banned name."""
    question = ask("im.banned-app.ca")
    with covered.dot() as line, covered.doh() as web:
        replies = [line.ask(question), web.ask(question)]
    return [rcode_of(reply) for reply in (*replies, covered.quic(question), covered.quic(question, path="/dns-query"))]


def test_a_socket_unit_may_hold_the_ports_of_tls(tmp_path: Path, keeper: Keeper) -> None:
    """Sockets that systemd opened, each known by its address and kind, are shared by the workers and answered on.

    Those of QUIC, which it has no lines for, the server opens itself.
    """
    with encrypting(tmp_path) as made:
        for one in listeners(read(json.dumps(made.server.config), "interdict.yaml")):
            if one.transport in (Transport.DOQ, Transport.DOH3):
                continue
            family = socket.AF_INET6 if ":" in one.endpoint.host else socket.AF_INET
            with socket.socket(family, one.kind) as sock:
                sock.bind((one.endpoint.host, one.endpoint.port))
                if one.kind == socket.SOCK_STREAM:
                    sock.listen()
                keeper.held.append(("interdict.socket", os.dup(sock.fileno())))
        keeper.start(made.server)

        assert answers_of(made) == ["NXDOMAIN"] * 4


def test_the_encrypted_ports_are_kept_over_a_restart(tmp_path: Path, keeper: Keeper) -> None:
    """The manager has them while the server is away: a connection that is begun then is answered afterwards."""
    with encrypting(tmp_path) as made:
        keeper.start(made.server)
        assert made.server.stop() == 0
        keeper.listen()
        with socket.create_connection(("127.0.0.1", made.ports[Transport.DOT]), 20) as sock:
            keeper.start(made.server)
            with made.tls("dot").wrap_socket(sock, server_hostname=NAME) as line:
                question = ask("im.banned-app.ca")
                line.sendall(len(question).to_bytes(2, "big") + question)
                with line.makefile("rb") as file:
                    reply = file.read(int.from_bytes(file.read(2), "big"))
        answers = answers_of(made)

    assert rcode_of(reply) == "NXDOMAIN"
    assert answers == ["NXDOMAIN"] * 4


def test_the_manager_is_told_of_the_end(server: Server, keeper: Keeper) -> None:
    """STOPPING=1, so that it knows an end that was asked for from one that was not."""
    keeper.start(server)
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(PATIENCE)
    keeper.listen()

    assert "STOPPING=1" in keeper.heard
