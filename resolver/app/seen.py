"""When each device was last seen: noted by the workers, each in a file of its own, and read by whoever asks.

Noting is one store to memory; the kernel brings it to the disk by and by, and what a power failure takes of it was
never worth waiting for.
"""

import contextlib
import mmap
import os
from collections.abc import Mapping
from pathlib import Path

_NAME = "seen-"
_STEP = mmap.PAGESIZE // 8  # numbers that a page holds
_MOST_NUMBERS = 1 << 24  # a register that names a device beyond this is not one of ours


class LastSeen:
    """When each device was last seen by one worker: Unix seconds as u64 by number, in a file that it maps."""

    def __init__(self, folder: Path, worker: int) -> None:
        """Open the file of a worker, made where there is none.

        Raises:
            OSError: It can not be opened.
        """
        path = folder / f"{_NAME}{worker}"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._mapped: mmap.mmap | bytearray = bytearray()
        self._moments = memoryview(self._mapped).cast("Q")
        with contextlib.suppress(OSError):
            self._map(max(os.fstat(self._fd).st_size // 8, 1))

    def note(self, number: int, at: float) -> None:
        """A device was seen at a moment (Unix seconds). A full disk costs the moment, and nobody an answer."""
        try:
            self._moments[number] = int(at)
        except IndexError:
            with contextlib.suppress(OSError):
                if number < _MOST_NUMBERS:
                    self._map(max(number + 1, len(self._moments) * 2))
                    self._moments[number] = int(at)

    def close(self) -> None:
        """Let the file go."""
        self._let_go()
        os.close(self._fd)

    def _map(self, count: int) -> None:
        octets = (count + _STEP - 1) // _STEP * _STEP * 8
        # Not `ftruncate`: a page that the disk has no room for would end the worker when it is first written to.
        os.posix_fallocate(self._fd, 0, octets)
        mapped = mmap.mmap(self._fd, octets)
        self._let_go()
        self._mapped = mapped
        self._moments = memoryview(mapped).cast("Q")

    def _let_go(self) -> None:
        self._moments.release()
        if isinstance(self._mapped, mmap.mmap):
            self._mapped.close()


def last_seen(folder: Path) -> Mapping[int, int]:
    """When each device was last seen by whichever worker (Unix seconds), by its number; devices never seen are left
    out."""
    latest: dict[int, int] = {}
    for path in folder.glob(f"{_NAME}*"):
        try:
            octets = path.read_bytes()
        except OSError:
            continue
        for number, at in enumerate(memoryview(octets[: len(octets) // 8 * 8]).cast("Q")):
            if at > latest.get(number, 0):
                latest[number] = at
    return latest
