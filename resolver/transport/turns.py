"""Turns: who has sent more than is answered in one go waits in one line with all others of his kind.

Between two turns the loop sees to everybody else, so what others wait for does not grow with the line.
"""

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """The line of one worker's connections of one kind."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with nobody in it."""
        self._loop = loop
        self._line: deque[Callable[[], None]] = deque()

    @property
    def is_crowded(self) -> bool:
        """Whether somebody waits."""
        return bool(self._line)

    def queue(self, take_turn: Callable[[], None]) -> None:
        """Have somebody's turn taken when all that wait already have had theirs."""
        if not self._line:
            self._loop.call_soon(self._next)
        self._line.append(take_turn)

    def _next(self) -> None:
        # One a round of the loop, however many wait.
        take_turn = self._line.popleft()
        if self._line:
            self._loop.call_soon(self._next)
        take_turn()
