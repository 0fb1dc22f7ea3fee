"""The control socket: a line each way, and every trouble in a sentence."""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resolver.app.control import SOCKET_NAME, ControlError, ask, listen


@contextlib.contextmanager
def server(folder: Path, react: Callable[[socket.socket, bytes], None]) -> Iterator[None]:
    """A supervisor's side that serves one who asks."""
    listening = listen(folder)
    listening.setblocking(True)
    listening.settimeout(10)

    def serve() -> None:
        asker, _ = listening.accept()
        with asker:
            react(asker, asker.makefile("rb").readline())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        listening.close()


def test_a_question_gets_its_answer(tmp_path: Path) -> None:
    """The verb goes out in JSON, and an object comes back, however many octets it has."""
    heard: list[object] = []

    def react(asker: socket.socket, line: bytes) -> None:
        heard.append(json.loads(line))
        asker.sendall(json.dumps({"orders": ["x" * 1000] * 300}).encode() + b"\n")

    with server(tmp_path, react):
        assert ask(tmp_path, "status", 10) == {"orders": ["x" * 1000] * 300}
    assert heard == [{"verb": "status"}]


@pytest.mark.parametrize(
    ("octets", "message"),
    [
        (b"", "ended before it answered"),
        (b'{"ok": tr', "ended before it answered"),
        (b"[]\n", "is it of another version"),
    ],
)
def test_an_answer_that_makes_no_sense_is_told(tmp_path: Path, octets: bytes, message: str) -> None:
    """A server that died while it was asked is not taken for one that said yes."""
    with server(tmp_path, lambda asker, line: asker.sendall(octets)), pytest.raises(ControlError, match=message):
        ask(tmp_path, "reload", 10)


def test_no_answer_in_time_is_told(tmp_path: Path) -> None:
    """With what was asked, and where to look."""
    done = threading.Event()
    with server(tmp_path, lambda asker, line: done.wait(10) and None):
        with pytest.raises(ControlError, match=r"did not answer `reload` within 0\.1 s; see its log"):
            ask(tmp_path, "reload", 0.1)
        done.set()


@pytest.mark.parametrize("state", ["no folder", "no socket", "nobody listens"])
def test_when_no_server_runs_the_mend_is_told(tmp_path: Path, state: str) -> None:
    """Whatever is left of an earlier one."""
    folder = tmp_path / "run"
    if state != "no folder":
        folder.mkdir()
    if state == "nobody listens":
        listen(folder).close()

    with pytest.raises(ControlError, match="start one with `interdict serve`"):
        ask(folder, "status", 1)


def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    """As after a power failure."""
    listen(tmp_path).close()
    assert (tmp_path / SOCKET_NAME).exists()

    with server(tmp_path, lambda asker, line: asker.sendall(b"{}\n")):
        assert ask(tmp_path, "status", 10) == {}


def test_the_socket_is_for_its_own_account_only(tmp_path: Path) -> None:
    """Whoever can write to it can reload."""
    before = os.umask(0)
    os.umask(before)

    with listen(tmp_path):
        assert (tmp_path / SOCKET_NAME).stat().st_mode & 0o777 == 0o600
    assert os.umask(before) == before


def test_the_folder_may_lie_deep(tmp_path: Path) -> None:
    """A unix socket's own path may have 107 octets; a state folder may have more."""
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)

    with server(folder, lambda asker, line: asker.sendall(b'{"deep": true}\n')):
        assert ask(folder, "status", 10) == {"deep": True}
