"""The processes that the supervisor keeps running, and how long it waits before it starts one again."""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from resolver.app.listening import Listening

FIRST_PAUSE = 0.1  # seconds before a process that died is started again; doubles up to the longest
LONGEST_PAUSE = 5.0
STEADY_SECONDS = 10.0  # a process that ran so long is forgiven its earlier deaths


@dataclass(slots=True)
class Child:
    """A process that is kept running."""

    name: str
    start: Callable[[], int]
    pid: int = 0
    started: float = 0.0
    deaths: int = 0
    again_at: float = 0.0
    is_dismissed: bool = False  # told to end; a successor, if any, starts at once

    def begin(self, now: float) -> None:
        """Start it (again), at `now` monotonic seconds."""
        self.started = now
        self.again_at = 0.0
        self.pid = self.start()

    def died(self, status: int, now: float) -> str:
        """Take in that it ended, and decide when it is started again.

        Args:
            status: From `waitpid`.
            now: Monotonic seconds.

        Returns:
            A line for the log.
        """
        lived = now - self.started
        self.deaths = 0 if lived >= STEADY_SECONDS else self.deaths + 1
        pause = min(FIRST_PAUSE * 2 ** min(max(self.deaths - 1, 0), 10), LONGEST_PAUSE)
        self.again_at = now + pause
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
        return f"{self.name} ended after {lived:.1f} s with {how}; it is started again in {pause:.1f} s"


@dataclass(slots=True)
class Worker(Child):
    """A worker, with its sockets and its line."""

    number: int = 0
    sockets: Mapping[Listening, socket.socket] = field(default_factory=dict)
    channel: socket.socket | None = None
    buffer: bytes = b""
    generation: int = 0
    is_ready: bool = False
    kill_at: float = 0.0  # monotonic seconds, where it was told to end and may be hanging
