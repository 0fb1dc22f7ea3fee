"""From nothing to a server that answers, as somebody does it who sees the product for the first time: on a terminal."""

import fcntl
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from tests.support.house import ask
from tests.support.resolving import Resolving, says
from tests.support.server import PATIENCE, ROOT, Server, free_port, wait_until

pytestmark = pytest.mark.e2e
MakeServer = Callable[..., Server]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}


@pytest.fixture
def resolver() -> Iterator[Resolving]:
    """An upstream that has nothing to be blamed for."""
    with Resolving(says()) as started:
        yield started


def _sit_down() -> None:
    """In the child: the terminal is its own, and Ctrl-C is heard though whoever runs the tests may ignore it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def on_terminal(words: list[str], answers: Mapping[str, list[str]]) -> tuple[int, str]:
    """Run the command on a terminal and answer its questions; (exit code, all that was on the screen).

    Args:
        words: Of the command line.
        answers: What to type at a question that holds this text, one after another.
    """
    ours, theirs = pty.openpty()
    left = {text: list(typed) for text, typed in answers.items()}
    seen = answered = ""
    process = subprocess.Popen(
        [sys.executable, "-m", "resolver", *words], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
        env=ENVIRONMENT, start_new_session=True, preexec_fn=_sit_down,
    )  # fmt: skip
    os.close(theirs)
    try:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if not select.select([ours], [], [], 0.1)[0]:
                continue
            try:
                octets = os.read(ours, 65536)
            except OSError:  # the other end is closed: EIO, as Linux has it
                break
            seen += octets.decode()
            if seen.endswith("]: ") and seen != answered:
                question = seen.splitlines()[-1]
                text = next(text for text in left if text in question)
                typed = left[text].pop(0)
                os.write(ours, typed.encode() + (b"" if typed == "\x03" else b"\n"))  # Ctrl-C waits for no Enter
                answered = seen
        code = process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert not any(left.values()), f"never asked: {left}"
    return code, seen


def findings(config: Path) -> dict[str, tuple[str, str]]:
    """(outcome, found) of each check of `interdict doctor`."""
    said = subprocess.run(
        [sys.executable, "-m", "resolver", "doctor", "--json", "--config", str(config)],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    return {one["check"]: (one["outcome"], one["found"]) for one in json.loads(said.stdout)["findings"]}


def test_questions_answers_and_a_server(tmp_path: Path, resolver: Resolving, make_server: MakeServer) -> None:
    """A slip is told and asked again; what comes of it is sound, has nothing against it, and does what was said."""
    port, metrics = free_port(), free_port()
    config = tmp_path / "etc" / "interdict.yaml"
    upstream = f"{resolver.address[0]}:{resolver.address[1]}"
    code, screen = on_terminal(
        ["init", str(config), "--state-dir", str(tmp_path / "state")],
        {
            "Listen on": [f"127.0.0.1:{port}"],
            "Forward to": ["nobody", upstream],
            "Who may ask": ["127.0.0.0/8"],
            "Groups besides": ["lab=127.0.0.9"],
            "Which orders": ["ca-tbs-2023-10-31", "ca-tbs-2023-10-30"],
            "They bind": ["lab"],
            "enforce, or": [""],
            "Metrics": [f"127.0.0.1:{metrics}"],
        },
    )
    assert code == 0, screen
    assert "is no server; write 192.0.2.53" in screen
    assert 'did you mean "ca-tbs-2023-10-30"?' in screen
    assert "in force" in screen.partition("Which orders")[0]  # the list of orders, with how each stands
    assert f"interdict doctor --config {config}" in screen

    code, screen = on_terminal(["doctor", "--config", str(config)], {})
    assert code == 0, screen
    assert "0 failed" in screen

    server = make_server()
    server.config_path.write_text(config.read_text())
    server.start()
    replies = {
        host: dns.rcode.to_text(dns.message.from_wire(ask_from(host, port)).rcode())
        for host in ("127.0.0.9", "127.0.0.1")
    }
    assert replies == {"127.0.0.9": "NXDOMAIN", "127.0.0.1": "NOERROR"}

    found = wait_until(
        "it is well", lambda: found if (found := findings(server.config_path))["server"][0] == "ok" else None
    )
    assert found[f"port UDP 127.0.0.1:{port}"] == ("ok", "held by the running server")
    assert found["policy in force"] == ("ok", "generation 1, as it is written now")
    assert found["metrics"][0] == "ok"


def ask_from(host: str, port: int) -> bytes:
    """The reply to a banned name, asked for from an address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.bind((host, 0))
        sock.sendto(ask("wechat.com"), ("127.0.0.1", port))
        return sock.recv(65535)


def test_nobody_at_the_terminal_is_asked(tmp_path: Path) -> None:
    """`--yes` takes the defaults, and so does a script; each is told."""
    config = tmp_path / "interdict.yaml"
    code, screen = on_terminal(["init", str(config), "--yes", "--no-ask"], {})

    assert code == 0, screen
    assert "--listen says otherwise" in screen
    assert config.exists()


def test_a_question_can_be_left(tmp_path: Path) -> None:
    """Ctrl-C at a question leaves nothing behind."""
    config = tmp_path / "interdict.yaml"
    code, screen = on_terminal(["init", str(config)], {"Listen on": ["\x03"]})

    assert code == 1, screen
    assert "Traceback" not in screen
    assert list(tmp_path.iterdir()) == []
