"""The register of devices as a worker sees it: the file that `devices.py` writes, opened anew when it was replaced."""

import mmap
from pathlib import Path

from resolver.engine.inforce import NO_DEVICES
from resolver.policy.register import Register, RegisterError

REGISTER_NAME = "devices"  # in the state folder's `run`


class RegisterFile:
    """Looks after one file, which is always replaced whole."""

    def __init__(self, path: Path) -> None:
        """Begin without having looked."""
        self._path = path
        self._seen: tuple[int, int] | None = (0, 0)

    def renewed(self) -> Register | None:
        """The register, where there is another one than at the last look; one without devices where there is no file.

        Raises:
            OSError: It can not be opened.
            RegisterError: It is not a register. It is not tried again before it changes.
        """
        try:
            status = self._path.stat()
        except FileNotFoundError:
            stamp = None
        else:
            stamp = status.st_ino, status.st_mtime_ns
        if stamp == self._seen:
            return None
        self._seen = stamp
        if stamp is None:
            return NO_DEVICES
        try:
            with self._path.open("rb") as file:
                return Register(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
        except OSError:
            self._seen = (0, 0)  # nothing is wrong with the file itself: it is tried again
            raise
        except ValueError:
            raise RegisterError("the register of devices is empty: `interdict device list` makes it again") from None
