"""Time that passes when a test says so, for code that takes its clocks as arguments and for asyncio itself."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

START_AT = 1_900_000_000.0  # 2030-03-17T17:46:40Z


class FakeClock:
    """Both clocks of the house; they move together and only by `advance`."""

    def __init__(self, now: float = 1000.0, at: float = START_AT) -> None:
        self._now = now
        self._offset = at - now

    def now(self) -> float:
        """Monotonic seconds."""
        return self._now

    def at(self) -> float:
        """Unix seconds."""
        return self._now + self._offset

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


class _LeapingSelector(selectors.SelectSelector):
    """Where a loop would wait for its next timer, the clock leaps there."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everything waits for something that never comes")
            self._clock.advance(max(timeout, 0.0))
        return ready


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on a FakeClock: an hour of waiting takes no time, in the order in which it would have happened."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(_LeapingSelector(clock))
        self._clock = clock

    def time(self) -> float:
        """The clock's monotonic seconds."""
        return self._clock.now()


def run(clock: FakeClock, story: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a FakeTimeLoop."""
    with asyncio.Runner(loop_factory=lambda: FakeTimeLoop(clock)) as runner:
        return runner.run(story)
