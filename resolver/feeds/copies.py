"""Last good copies: what was accepted of each feed, on disk, for the compiler to read.

Of a feed `<name>` a folder holds `<name>.list`, the octets as they were accepted, and `<name>.json`, its state. Each is
written aside, synced and renamed: a reader finds the earlier or the later one, never a part. The list goes first, so
that a state never vouches for octets that are not there yet: after a crash in between the digest differs, the octets
are still what was accepted, and the next fetch takes the list whole.

Files are read with lenience: what a power failure or an editor did to a state costs a download, and no list.
"""

import hashlib
import json
import math
import os
import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Self

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,98}[a-z0-9])?")

MOST_STATE_OCTETS = 64 << 10  # A state has less than 2 KiB; more is no state of ours.


class FeedError(Exception):
    """What a source gave, or how it is described, cannot be used; `str` is a sentence that says the mend."""


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a feed: the last good copy, and how the attempts since then went.

    Attributes:
        url: Where it was last asked for.
        public_key: The minisign key that it was last asked for with.
        etag: The validators of the copy at that address, for asking whether it changed (RFC 9110 §13.1).
        last_modified: Likewise.
        digest: SHA-256 of the copy, in hexadecimal digits; empty where there is none.
        octets: The size of the copy.
        entries: What the copy held when it was accepted.
        fetched_at: When the copy last changed. Unix seconds, as all times here.
        checked_at: When the source last said what the list is, changed or not.
        failed_at: When an attempt last failed.
        error: Why; None once an attempt went well again.
        failures: Attempts that failed since the last that went well.
        next_at: When to try again.
    """

    url: str = ""
    public_key: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    digest: str = ""
    octets: int = 0
    entries: int = 0
    fetched_at: float | None = None
    checked_at: float | None = None
    failed_at: float | None = None
    error: str | None = None
    failures: int = 0
    next_at: float | None = None

    @classmethod
    def from_json(cls, octets: bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: It is anything else.
        """
        try:
            written = json.loads(octets)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if not isinstance(written, dict):
            raise ValueError("it is no object")
        for field in fields(cls):
            if field.name not in written:
                raise ValueError(f"{field.name} is missing")
            _check(field.name, field.type, written[field.name])
        return cls(**{field.name: written[field.name] for field in fields(cls)})

    def to_json(self) -> bytes:
        """One object, a member a line, for people to read too."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"

    def vouches_for(self, octets: bytes) -> bool:
        """Whether these octets are the copy that this state tells of."""
        return self.digest == hashlib.sha256(octets).hexdigest()

    def of(self, octets: bytes, entries: int) -> Self:
        """This state with the copy's size, digest and entries."""
        return replace(self, digest=hashlib.sha256(octets).hexdigest(), octets=len(octets), entries=entries)


@dataclass(frozen=True, slots=True)
class Copy:
    """What lies in the folder of one feed.

    Attributes:
        octets: The last good list; None where there is none.
        state: Its state; an empty one where none can be read.
        problems: What is wrong with the files, in sentences for the log.
    """

    octets: bytes | None
    state: State
    problems: tuple[str, ...] = ()

    @property
    def is_vouched_for(self) -> bool:
        """Whether there is a list and the state tells of this very one."""
        return self.octets is not None and self.state.vouches_for(self.octets)


def list_path(folder: Path, name: str) -> Path:
    """The file of a feed's list.

    Raises:
        FeedError: The name is no identifier.
    """
    return folder / f"{_checked(name)}.list"


def state_path(folder: Path, name: str) -> Path:
    """The file of a feed's state.

    Raises:
        FeedError: The name is no identifier.
    """
    return folder / f"{_checked(name)}.json"


def read_copy(folder: Path, name: str) -> Copy:
    """Read a feed's last good copy with its state, as far as they can be read.

    Raises:
        FeedError: The name is no identifier.
    """
    problems: list[str] = []
    octets = _read(list_path(folder, name), problems)
    path = state_path(folder, name)
    written = _read(path, problems, MOST_STATE_OCTETS)
    state = State()
    if written is not None:
        try:
            state = State.from_json(written)
        except ValueError as error:
            problems.append(f"{path} is damaged ({error}); the next fetch takes the list whole and writes it anew")
    copy = Copy(octets, state)
    if octets is not None and state.digest and not copy.is_vouched_for:
        problems.append(
            f"{list_path(folder, name)} is not the list that {path.name} tells of; it is used as it stands, and the"
            " next fetch takes the list whole"
        )
    return Copy(octets, state, tuple(problems))


def write_copy(folder: Path, name: str, octets: bytes, state: State) -> None:
    """Put a new list in place of the last good one, and then its state.

    Raises:
        FeedError: The name is no identifier.
        OSError: A file can not be written.
    """
    _write(list_path(folder, name), octets)
    write_state(folder, name, state)


def write_state(folder: Path, name: str, state: State) -> None:
    """Rewrite the state alone.

    Raises:
        FeedError: The name is no identifier.
        OSError: The file can not be written.
    """
    _write(state_path(folder, name), state.to_json())


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise FeedError(
            f"{name[:100]!r} cannot name a feed; write up to 100 lower-case letters, digits, dots and hyphens,"
            " the first and the last of them a letter or digit"
        )
    return name


def _read(path: Path, problems: list[str], most_octets: int = -1) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(most_octets)
    except FileNotFoundError:
        return None
    except OSError as error:
        problems.append(f"{path} cannot be read ({error.strerror}); check its permissions and the disk")
        return None


def _write(path: Path, octets: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".new")
    with aside.open("wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


_Scalar = str | int | float | None


def _check(name: str, kind: object, found: _Scalar) -> None:
    """Hold a member of a written state against the type of its field."""
    # JSON has one kind of number, and Python counts bool among its own: neither may pass for what it is not.
    fits = isinstance(found, kind) and not isinstance(found, bool)  # type: ignore[arg-type]
    if kind == float | None:
        fits = fits or type(found) is int
    if not fits:
        raise ValueError(f"{name} is not of its kind")
    if isinstance(found, int | float) and not (math.isfinite(found) and found >= 0):
        raise ValueError(f"{name} is no amount")
