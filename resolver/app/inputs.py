"""What the newest generation was made of, noted beside it: a start where all of that is the same compiles nothing.

A compile is a function of the program, the policy part of the configuration, the documents, the local lists, and the
copies of lists and zones; its moment goes into the record alone, since orders begin and end by the clock of who judges.
So inputs that are the same, octet for octet, would compile to the digest of the generation that lies there, which would
stay, with its serial. Files are compared by what is in them: times and numbers on a disk neither prove nor refute that.

The note is compared as a whole and never read into anything: whatever is damaged, missing or of another version
differs, and costs one compile.
"""

import contextlib
import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from resolver import __version__
from resolver.app import history
from resolver.app.machine import RELOADED, document_folders, state_paths
from resolver.config import Config
from resolver.feeds.copies import FeedError, list_path
from resolver.feeds.files import KINDS

_NOTE = "inputs.json"
_LIBRARIES = ("site-packages", "dist-packages")  # names in there end in versions: `idna-3.10.dist-info`
_PACKAGE = Path(__file__).parents[1]


def digest_of(config: Config) -> str | None:
    """One SHA-256, in hex, over all that a compile of a configuration reads; None where some of it can not be read."""
    try:
        program = _program()  # an account that privileges were given up for may have no access to where it lies
        files = {str(path): _sha256(path) for path in (*_documents(config), *_lists(config))}
        copies = {zone.name: _copy(config, zone.name) for zone in config.policy.zones if zone.file is None}
        folders = {
            str(path): sorted(os.listdir(path))
            for folder in document_folders(config)
            for path in (folder, *(folder / sub for sub in KINDS))
            if path == folder or path.is_dir()
        }
    except (OSError, FeedError):
        return None
    policy = config.model_dump(mode="json", include=set(RELOADED), warnings=False)
    return hashlib.sha256(json.dumps([program, policy, folders, files, copies]).encode()).hexdigest()


def note(folder: Path, generation: Path, inputs: str) -> None:
    """Note what a generation was made of. Where that can not be written, the next start compiles.

    Args:
        folder: Of generations.
        generation: The newest of them.
        inputs: What `digest_of` said before it was compiled, and says still.
    """
    path = folder / _NOTE
    aside = path.with_name(f"{_NOTE}.new")
    with contextlib.suppress(OSError):
        aside.write_bytes(_noted(generation, inputs))
        aside.replace(path)


def unchanged(config: Config, folder: Path, at: float) -> Path | None:
    """The generation that a compile would leave in force; None where only a compile can tell.

    Args:
        config: What would be compiled.
        folder: Of generations.
        at: Unix seconds.
    """
    try:
        noted = (folder / _NOTE).read_bytes()
        generation = history.plain_files(folder)[-1]
        inputs = digest_of(config)
        is_same = inputs is not None and noted == _noted(generation, inputs)
        return generation if is_same and not _is_one_too_old(folder, at - config.policy.history.age) else None
    except (OSError, LookupError):
        return None


def _noted(generation: Path, inputs: str) -> bytes:
    """With the generation itself and what is kept beside it, which a compile would mend if they were damaged."""
    kept = {path.name: _sha256(path) for path in (generation, generation.with_suffix(".documents.gz"))}
    return json.dumps({"inputs": inputs, "kept": kept}, indent=1).encode() + b"\n"


def _is_one_too_old(folder: Path, moment: float) -> bool:
    """Whether a compile would let go of a generation, because another took its place before a moment (Unix seconds)."""
    files = sorted(path for path in folder.iterdir() if path.name.endswith((".generation", ".generation.gz")))
    return len(files) > 2 and files[1].stat().st_mtime <= moment  # dated when compiled; the two newest stay always


def _program() -> list[object]:
    """What compiles: also where somebody mends a file of it in place, or renews a library."""
    code = sorted(
        (os.path.relpath(entry.path, _PACKAGE), entry.stat().st_size, entry.stat().st_mtime_ns)
        for entry in _entries(_PACKAGE)
        if entry.name.endswith((".py", ".so"))
    )
    libraries = [sorted(os.listdir(path)) for path in sys.path if path.endswith(_LIBRARIES) and os.path.isdir(path)]
    return [__version__, sys.version, code, libraries]


def _entries(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        for entry in found:
            if entry.is_dir():
                if entry.name != "__pycache__":
                    yield from _entries(entry.path)
            else:
                yield entry


def _documents(config: Config) -> Iterator[Path]:
    for folder in document_folders(config):
        for sub in KINDS:
            yield from sorted(path for path in (folder / sub).glob("*.yaml") if not path.name.startswith("."))


def _lists(config: Config) -> Iterator[Path]:
    """The local files of zones; of a folder each."""
    for zone in config.policy.zones:
        if zone.file is not None:
            path = Path(zone.file).expanduser()
            yield from sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]


def _copy(config: Config, name: str) -> str | None:
    """Of what the feeder keeps the list alone: the state beside it, rewritten with each check, goes into no policy."""
    try:
        return _sha256(list_path(state_paths(config).feeds, name))
    except FileNotFoundError:
        return None


def _sha256(path: Path) -> str:
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"{path} is no regular file")  # to read a pipe could take for ever
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
