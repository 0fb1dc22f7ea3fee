"""`python -m resolver` and the installed command `interdict`.

With INTERDICT_PLAIN=1 in the environment the hot modules run as plain Python even where they were compiled: to compare
the two, or to rule one out. So they do where only some of them were compiled, since the compiled ones work on each
other's memory. `interdict --version` says which runs.
"""

import gc
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

_COLLECT_AFTER = 100_000, 10, 10  # objects, young collections, middle ones (Python's own: 700, 10, 10)


class _PlainFinder:
    """Finds the source of a hot module before the library that was built from it."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The spec of `resolver.hot._x_cy` as plain Python; None for any other module."""
        room, _, name = fullname.rpartition(".")
        if room != "resolver.hot" or not name.endswith("_cy"):
            return None
        return spec_from_file_location(fullname, Path(__file__).parent / "hot" / f"{name}.py")


def is_half_built(room: Path) -> bool:
    """Whether some modules of a folder were compiled, and others were not."""
    libraries = [
        any((room / f"{source.stem}{suffix}").exists() for suffix in EXTENSION_SUFFIXES)
        for source in room.glob("_*_cy.py")
    ]
    return any(libraries) and not all(libraries)


def main() -> None:
    """Run the command line."""
    # What is imported stays for good: to look for garbage among it again and again is a twentieth of a start.
    gc.set_threshold(*_COLLECT_AFTER)
    # What is installed beside this program has no say in how its documents are read, and is not searched for plugins.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "1"
    if os.environ.get("INTERDICT_PLAIN", "0") not in ("", "0") or is_half_built(Path(__file__).parent / "hot"):
        sys.meta_path.insert(0, _PlainFinder())
    from resolver.cli.main import main as run  # only now: what it imports includes the hot modules

    run()


if __name__ == "__main__":
    main()
