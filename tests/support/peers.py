"""The programs that tests compare with or lean on; `tests/debian-packages.txt` says which Debian package has each."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

PACKAGES_FILE = Path(__file__).parents[1] / "debian-packages.txt"
REQUIRE = "INTERDICT_REQUIRE_PEERS"


def read_packages(text: str) -> dict[str, str]:
    """Return the Debian package of each program, from lines of the form "package  # program program"."""
    return {
        program: package.strip()
        for line in text.splitlines()
        if not line.startswith("#")
        for package, _, programs in [line.partition("#")]
        for program in programs.split()
    }


def skip_or_fail(reason: str) -> NoReturn:
    """End the test: skipped, or failed where the environment promises that nothing is missing."""
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def require_peer(program: str) -> str:
    """Return the path of a program; end the test if it is not installed.

    Raises:
        KeyError: The program is not listed in `tests/debian-packages.txt`; add it there.
    """
    package = read_packages(PACKAGES_FILE.read_text())[program]
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    path = shutil.which(program, path=search)
    if path is None:
        skip_or_fail(f"{program} is not installed (Debian package {package})")
    return path
