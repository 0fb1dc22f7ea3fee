"""How others speak with a running supervisor: one line of JSON each way over a unix socket.

Verbs of the command line: `status` (what runs, in what state), `reload` (read the configuration, compile again and put
in force; answered when it is done), `fetch` (look after all lists and zones now). Verbs of the feeder: `recompile` (the
same with the configuration as it was last taken in) and `feeds` (a copy was looked after; nothing changed). The socket
lies in the state folder and is open to the account that runs the supervisor, and to nobody else. Workers hand NOTIFY
messages over to the feeder in the same way, by a socket of its own.
"""

import asyncio
import json
import os
import pwd
import selectors
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SOCKET_NAME = "control.sock"
NOTIFY_SOCKET_NAME = "notify.sock"  # the feeder's
MAX_LINE_OCTETS = 1 << 20


class ControlError(Exception):
    """No running supervisor could be asked; the message says why and what to do."""


@contextmanager
def short_path(folder: Path, name: str) -> Iterator[str]:
    """A path to a socket short enough for sockaddr_un, however deep the folder lies.

    Raises:
        OSError: There is no such folder.
    """
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def listen(folder: Path) -> socket.socket:
    """Open the supervisor's side; a socket left behind by an earlier one is replaced."""
    (folder / SOCKET_NAME).unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with short_path(folder, SOCKET_NAME) as path:
        old = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(old)
    sock.listen(16)
    sock.setblocking(False)
    return sock


class Asked:
    """Somebody who asked and waits for the answer."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def by(self) -> str:
        """Who asks, for the record: the account that the kernel vouches for (unix(7), SO_PEERCRED)."""
        try:
            _, uid, _ = struct.unpack("3i", self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError:
            return "unknown"
        try:
            return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
        except KeyError:
            return f"uid {uid}"

    def tell(self, words: dict[str, object]) -> None:
        """Answer, and hang up. Who does not listen for two seconds is not waited for."""
        with suppress(OSError):
            self._sock.settimeout(2.0)
            self._sock.sendall(json.dumps(words).encode() + b"\n")
        self._sock.close()


class Desk:
    """The supervisor's side: takes questions in, on its selector, and hands each over once it is whole."""

    def __init__(self, folder: Path, selector: selectors.BaseSelector, on_verb: Callable[[str, Asked], None]) -> None:
        """Open the socket.

        Args:
            folder: The state folder's `run`.
            selector: Of the supervisor's loop; the data of its keys is called.
            on_verb: Is given the verb and who asked.

        Raises:
            OSError: The socket can not be opened.
        """
        self._selector = selector
        self._on_verb = on_verb
        self._path = folder / SOCKET_NAME
        self._sock = listen(folder)
        self._said: dict[socket.socket, bytes] = {}

    def open(self) -> None:
        """Begin to take questions."""
        self._selector.register(self._sock, selectors.EVENT_READ, self._on_caller)

    def close(self, *, ours: bool) -> None:
        """Hang up; where the socket is `ours` and not a parent's, it goes."""
        if ours:
            self._path.unlink(missing_ok=True)
        self._sock.close()

    def _on_caller(self) -> None:
        with suppress(OSError):  # gone again, or no file descriptor is left for it
            sock, _ = self._sock.accept()
            sock.setblocking(False)
            self._said[sock] = b""
            self._selector.register(sock, selectors.EVENT_READ, lambda: self._on_words(sock))

    def _on_words(self, sock: socket.socket) -> None:
        try:
            octets = sock.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        self._said[sock] += octets
        if octets and b"\n" not in self._said[sock] and len(self._said[sock]) < 4096:
            return
        self._selector.unregister(sock)
        try:
            verb = json.loads(self._said.pop(sock))["verb"]
        except (ValueError, KeyError, TypeError, RecursionError):
            sock.close()
            return
        self._on_verb(str(verb), Asked(sock))


def ask(folder: Path, verb: str, wait: float) -> dict[str, object]:
    """Ask the running supervisor and return its answer.

    Args:
        folder: The state folder's `run`.
        verb: One of those above.
        wait: Seconds.

    Raises:
        ControlError: Nobody runs there, no permission, or no answer in time.
    """
    try:
        with short_path(folder, SOCKET_NAME) as path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
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


async def pass_on_notify(run: Path, message: bytes, source: str, wait: float) -> bytes | None:
    """Hand a NOTIFY over to the feeder and return the reply to send, or None for silence.

    Args:
        run: The folder of the feeder's socket.
        message: As received.
        source: The sender's address in text.
        wait: Seconds.

    Raises:
        OSError: No feeder runs.
    """
    with short_path(run, NOTIFY_SOCKET_NAME) as path:
        reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE_OCTETS)
    try:
        async with asyncio.timeout(wait):
            writer.write(json.dumps({"from": source, "message": message.hex()}).encode() + b"\n")
            reply = json.loads(await reader.readline())["reply"]
    except (TimeoutError, ValueError, LookupError, TypeError):
        return None
    finally:
        writer.close()
    return None if reply is None else bytes.fromhex(reply)
