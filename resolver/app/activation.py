"""What the service manager hands over and is told: listening sockets, readiness, signs of life.

The protocol is systemd's (sd_listen_fds(3), sd_notify(3)); whoever speaks it will do, and without one nothing is
handed over and nothing is told. Sockets come from a socket unit, or from the manager's keeping, where an earlier run of
this server put them: they stay open while the server is started again, and what clients send meanwhile waits in them.
"""

import contextlib
import os
import socket
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Self

_FIRST_FD = 3  # SD_LISTEN_FDS_START
_KEPT = "interdict-"  # how the names of sockets begin that are in the manager's keeping
_MOST_FDS = 253  # in one message, unix(7)
_KINDS = {socket.SOCK_DGRAM: "udp", socket.SOCK_STREAM: "tcp"}


@dataclass(slots=True)
class _Held:
    """A socket that was handed over."""

    name: str
    sock: socket.socket
    uses: int = 0

    @property
    def place(self) -> tuple[str, int, int]:
        host, port, *_ = self.sock.getsockname()
        return str(ip_address(host)), port, self.sock.type

    @property
    def is_kept(self) -> bool:
        return self.name.startswith(_KEPT)


@dataclass(slots=True)
class Manager:
    """The other end: all that it said when it started this process, and a line to it."""

    beat_seconds: float | None = None  # how often it wants a sign of life
    _address: str | None = None
    _held: list[_Held] = field(default_factory=list)
    _beat_at: float = 0.0

    @classmethod
    def of(cls, environ: MutableMapping[str, str], pid: int) -> Self:
        """Take over what was said to the process `pid`, and take it out of the environment: it is not for others."""
        said = {
            key: environ.pop(key, "")
            for key in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
        }
        manager = cls(_address=said["NOTIFY_SOCKET"] or None)
        if said["WATCHDOG_USEC"] and said["WATCHDOG_PID"] in ("", str(pid)):
            manager.beat_seconds = int(said["WATCHDOG_USEC"]) / 2_000_000  # half of it, as sd_watchdog_enabled(3) says
        if said["LISTEN_PID"] == str(pid):
            names = said["LISTEN_FDNAMES"].split(":")
            for number in range(int(said["LISTEN_FDS"] or 0)):
                os.set_inheritable(_FIRST_FD + number, False)
                sock = socket.socket(fileno=_FIRST_FD + number)
                sock.setblocking(False)
                manager._held.append(_Held(names[number] if number < len(names) else "", sock))
        return manager

    def has(self, host: str, port: int, kind: socket.SocketKind) -> bool:
        """Whether a socket of an address was handed over."""
        return any(held.place == (str(ip_address(host)), port, kind) for held in self._held)

    def is_shared(self, host: str, port: int, kind: socket.SocketKind) -> bool:
        """Whether a socket of an address comes from a socket unit, so that all workers have the same one."""
        place = (str(ip_address(host)), port, kind)
        return any(held.place == place and not held.is_kept for held in self._held)

    def take(self, host: str, port: int, kind: socket.SocketKind) -> socket.socket | None:
        """A socket of an address for one worker, or None: the worker wants one of its own.

        Each is given once, and then None: SO_REUSEPORT lets a new one join those that this server has bound. Those of
        a socket unit belong to another account, which SO_REUSEPORT does not join (socket(7)); workers share them.
        """
        found = [held for held in self._held if held.place == (str(ip_address(host)), port, kind)]
        if not found:
            return None
        least = min(found, key=lambda held: held.uses)
        if least.uses and least.is_kept:
            return None
        least.uses += 1
        return least.sock.dup()

    def settle(self) -> list[str]:
        """Let go of all that was handed over: what is in use was copied by `take`.

        Returns:
            The addresses on which a socket unit listens and nobody answers; of what this server once put into the
            manager's keeping, nothing is said but "drop it".
        """
        idle = [held for held in self._held if not held.uses]
        unanswered = [
            f"{_KINDS[held.sock.type].upper()} {held.place[0]} {held.place[1]}" for held in idle if not held.is_kept
        ]
        for held in idle:
            if held.is_kept:
                self.tell("FDSTOREREMOVE=1", f"FDNAME={held.name}")
        for held in self._held:
            held.sock.close()
        self._held.clear()
        return unanswered

    def keep(self, sockets: Iterable[socket.socket]) -> None:
        """Put listening sockets into the manager's keeping; those that it has already stay there once.

        An error on one is the workers' to see, and no reason to drop it (`FDPOLL=0`).
        """
        by_name: dict[str, list[int]] = {}
        for sock in sockets:
            host, port, *_ = sock.getsockname()
            by_name.setdefault(f"{_KEPT}{_KINDS[sock.type]}-{host}-{port}".replace(":", "_"), []).append(sock.fileno())
        for name, fds in by_name.items():
            for start in range(0, len(fds), _MOST_FDS):
                self.tell("FDSTORE=1", "FDPOLL=0", f"FDNAME={name}", fds=fds[start : start + _MOST_FDS])

    def tell(self, *lines: str, fds: Iterable[int] = ()) -> None:
        """Say something to the manager. One that is gone, or does not listen, is no reason to stop serving."""
        if self._address is None:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(address)
            socket.send_fds(sock, ["\n".join(lines).encode()], list(fds))

    def beat(self, now: float) -> None:
        """Give a sign of life where one is due, at `now` monotonic seconds."""
        if self.beat_seconds is not None and now >= self._beat_at:
            self._beat_at = now + self.beat_seconds / 2
            self.tell("WATCHDOG=1")
