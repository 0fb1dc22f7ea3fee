"""How the command line speaks with a running supervisor: one line of JSON each way over a unix socket.

Verbs: `status` (what runs, in what state) and `reload` (compile again and put in force; answered when it is done). The
socket lies in the state folder and is open to the account that runs the supervisor, and to nobody else.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET_NAME = "control.sock"
MAX_LINE_OCTETS = 1 << 20


class ControlError(Exception):
    """No running supervisor could be asked; the message says why and what to do."""


@contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """A path to the socket short enough for sockaddr_un, however deep the folder lies."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET_NAME}"
    finally:
        os.close(fd)


def listen(folder: Path) -> socket.socket:
    """Open the supervisor's side; a socket left behind by an earlier one is replaced."""
    (folder / SOCKET_NAME).unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _short_path(folder) as path:
        old = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(old)
    sock.listen(16)
    sock.setblocking(False)
    return sock


def ask(folder: Path, verb: str, wait: float) -> dict[str, object]:
    """Ask the running supervisor and return its answer.

    Args:
        folder: The state folder's `run`.
        verb: `status` or `reload`.
        wait: Seconds.

    Raises:
        ControlError: Nobody runs there, no permission, or no answer in time.
    """
    try:
        with _short_path(folder) as path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(wait)
            sock.connect(path)
            sock.sendall(json.dumps({"verb": verb}).encode() + b"\n")
            line = bytearray()
            while not line.endswith(b"\n") and len(line) < MAX_LINE_OCTETS:
                piece = sock.recv(65536)
                if not piece:
                    break
                line += piece
    except TimeoutError:
        raise ControlError(f"the running server did not answer `{verb}` within {wait:g} s; see its log") from None
    except PermissionError:
        raise ControlError(f"no permission to speak with the server in {folder}; use the account it runs as") from None
    except OSError:
        raise ControlError(
            f"no server is running with the state folder {folder.parent}; start one with `interdict serve`, "
            "or name its configuration with --config"
        ) from None
    try:
        answer = json.loads(line)
    except ValueError:
        raise ControlError("the server ended before it answered; see its log") from None
    if not isinstance(answer, dict):
        raise ControlError("the server's answer makes no sense; is it of another version?")
    return answer
