"""resolver/app/activation.py: sockets from the service manager and words to it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resolver.app.activation import Manager

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM


def bound(kind: socket.SocketKind, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    return sock


class Notified:
    """A service manager's notification socket."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(self.address)
        self._sock.setblocking(False)

    def heard(self) -> list[tuple[list[str], int]]:
        """(lines, number of descriptors) of each message so far."""
        messages = []
        while True:
            try:
                octets, fds, _, _ = socket.recv_fds(self._sock, 4096, 253)
            except BlockingIOError:
                return messages
            for fd in fds:
                os.close(fd)
            messages.append((octets.decode().splitlines(), len(fds)))

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def notified(tmp_path: Path) -> Iterator[Notified]:
    manager = Notified(tmp_path)
    yield manager
    manager.close()


def started_with(sockets: list[tuple[str, socket.socket]], code: str, notify: str = "") -> str:
    """What a process prints that is started as a service manager starts it: descriptors from 3 on, and its pid.

    `code` finds the Manager as `manager`, and socket kinds as `UDP` and `TCP`.
    """
    numbers = [sock.fileno() for _, sock in sockets]
    program = f"""
import fcntl, os, socket
moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in {numbers}]
for number, fd in enumerate(moved):
    os.dup2(fd, 3 + number)
from resolver.app.activation import Manager
UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
os.environ["LISTEN_PID"] = str(os.getpid())
manager = Manager.of(os.environ, os.getpid())
{code}
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "LISTEN_FDS": str(len(sockets)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in sockets),
            "NOTIFY_SOCKET": notify,
        },
        pass_fds=numbers,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.fixture
def pair() -> Iterator[list[socket.socket]]:
    first = bound(UDP)
    second = socket.socket(socket.AF_INET, UDP)
    second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    second.bind(first.getsockname())
    sockets = [first, second]
    yield sockets
    for sock in sockets:
        sock.close()


# ---- sockets --------------------------------------------------------------------------------------------------------


def test_without_a_manager_nothing_was_handed_over() -> None:
    """And what is said goes nowhere."""
    manager = Manager.of({}, 1)
    manager.tell("READY=1")
    manager.beat(0.0)

    assert manager.take("127.0.0.1", 53, UDP) is None
    assert manager.settle() == []
    assert manager.beat_seconds is None


def test_what_was_said_to_another_process_is_not_taken() -> None:
    """LISTEN_PID tells whose the descriptors are; the variables go all the same."""
    environ = {"LISTEN_FDS": "2", "LISTEN_PID": "1", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1", "HOME": "/"}
    manager = Manager.of(environ, 2)

    assert not manager.has("127.0.0.1", 53, UDP)
    assert manager.beat_seconds is None
    assert environ == {"HOME": "/"}


def test_a_kept_socket_is_given_once(pair: list[socket.socket]) -> None:
    """The third worker binds its own; it is not blocking, and not for children."""
    port = pair[0].getsockname()[1]
    said = started_with(
        [("interdict-a", pair[0]), ("interdict-b", pair[1])],
        f"""
taken = [manager.take("127.0.0.1", {port}, UDP) for _ in range(3)]
print([sock and (sock.getblocking(), sock.get_inheritable()) for sock in taken], manager.settle())
""",
    )

    assert said == "[(False, False), (False, False), None] []"


def test_sockets_of_a_socket_unit_are_shared(pair: list[socket.socket]) -> None:
    """The third worker has a copy of the first one's."""
    port = pair[0].getsockname()[1]
    said = started_with(
        [("interdict.socket", pair[0]), ("interdict.socket", pair[1])],
        f"""
taken = [manager.take("127.0.0.1", {port}, UDP) for _ in range(3)]
inodes = [os.fstat(sock.fileno()).st_ino for sock in taken]
print(inodes[0] == inodes[2], inodes[0] == inodes[1], manager.settle())
""",
    )

    assert said == "True False []"


def test_address_and_kind_decide() -> None:
    """A TCP socket is none for UDP, one port none for another; IPv6 is compared as an address, not as text."""
    tcp = bound(TCP, socket.AF_INET6)
    port = tcp.getsockname()[1]
    said = started_with(
        [("interdict-a", tcp)],
        f"""
print(manager.has("::1", {port}, UDP), manager.has("127.0.0.1", {port}, TCP), manager.has("::1", 1, TCP),
      manager.has("0:0::1", {port}, TCP))
""",
    )
    tcp.close()

    assert said == "False False False True"


def test_a_socket_that_nobody_asked_for_is_told_or_dropped(pair: list[socket.socket], notified: Notified) -> None:
    """The unit's is the operator's to mend; the one in keeping is of a `listen` that was changed."""
    port = pair[0].getsockname()[1]
    said = started_with(
        [("interdict.socket", pair[0]), ("interdict-old", pair[1])], "print(manager.settle())", notified.address
    )

    assert said == f"['UDP 127.0.0.1 {port}']"
    assert notified.heard() == [(["FDSTOREREMOVE=1", "FDNAME=interdict-old"], 0)]


def test_sockets_are_put_into_keeping_by_address(pair: list[socket.socket], notified: Notified) -> None:
    """One message an address and kind, with a name that the protocol allows."""
    manager = Manager.of({"NOTIFY_SOCKET": notified.address}, 1)
    other = bound(TCP, socket.AF_INET6)
    manager.keep([*pair, other])
    port, other_port = pair[0].getsockname()[1], other.getsockname()[1]
    other.close()

    assert notified.heard() == [
        (["FDSTORE=1", "FDPOLL=0", f"FDNAME=interdict-udp-127.0.0.1-{port}"], 2),
        (["FDSTORE=1", "FDPOLL=0", f"FDNAME=interdict-tcp-__1-{other_port}"], 1),
    ]


# ---- words ----------------------------------------------------------------------------------------------------------


def test_signs_of_life_come_often_enough(notified: Notified) -> None:
    """At least twice in the time after which the manager would end the process, and no more than needed."""
    manager = Manager.of({"NOTIFY_SOCKET": notified.address, "WATCHDOG_USEC": "40000000"}, 1)
    assert manager.beat_seconds == 20.0
    for tick in range(41):
        manager.beat(100.0 + tick)

    assert notified.heard() == [(["WATCHDOG=1"], 0)] * 5


def test_a_manager_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    """Saying something to it raises nothing."""
    Manager.of({"NOTIFY_SOCKET": str(tmp_path / "gone")}, 1).tell("READY=1")


def test_an_abstract_address_is_understood() -> None:
    """It is written with an @ in place of the leading NUL."""
    with socket.socket(socket.AF_UNIX, UDP) as sock:
        sock.bind("")  # the kernel chooses an abstract address
        Manager.of({"NOTIFY_SOCKET": "@" + sock.getsockname()[1:].decode()}, 1).tell("READY=1", "STATUS=answers")

        assert sock.recv(100) == b"READY=1\nSTATUS=answers"
