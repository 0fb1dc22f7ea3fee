"""From configuration and documents to a generation file: read, checked, compiled, written aside, put in place.

Runs in a process of its own, so that a large compile never holds up an answer, and in the command line's for `check`
and `explain`, which write nothing.
"""

import contextlib
import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from resolver.app.machine import read_config
from resolver.config import Config
from resolver.feeds.files import read_documents, shipped
from resolver.policy.compile import Enforcement, PolicySettings, compile_generation
from resolver.policy.documents import Documents
from resolver.policy.generation import FOREVER, Generation, GenerationError, GroupEntry, PolicyTerms
from resolver.policy.source import PolicyError, Problem, did_you_mean, read_page, shown

KEPT_GENERATIONS = 20
_SUFFIX = ".generation"
RELOADED = ("policy", "groups", "allowed_networks")  # the keys of the configuration that go into a generation


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled policy, in memory."""

    octets: bytes
    digest: str
    documents: Documents
    folders: tuple[Path, ...]


def document_folders(config: Config) -> tuple[Path, ...]:
    """The folders that documents come from, `shipped` told apart from paths."""
    return tuple(shipped() if text == "shipped" else Path(text).expanduser() for text in config.policy.documents)


def compile_policy(config: Config, source: str, *, serial: int, at: float) -> Compiled:
    """Read all documents and compile what is configured.

    Args:
        config: The configuration.
        source: The name of its file, for messages.
        serial: For the generation.
        at: Unix seconds.

    Raises:
        PolicyError: With every problem of every document, and every configured order that no document describes.
    """
    folders = document_folders(config)
    documents = read_documents(folders)
    problems = [
        _at_line(source, i, f"no order has the id {shown(line.order)}{_mend(line.order, documents, folders)}")
        for i, line in enumerate(config.policy.orders)
        if line.order not in documents.orders
    ]
    if problems:
        raise PolicyError(problems)
    octets, digest = compile_generation(documents, policy_settings(config), serial=serial, at=at)
    return Compiled(octets, digest, documents, folders)


def _mend(order: str, documents: Documents, folders: tuple[Path, ...]) -> str:
    where = " or ".join(str(folder / "orders" / f"{order}.yaml") for folder in folders)
    return did_you_mean(order, documents.orders) or f"; write {where} first"


def _at_line(source: str, i: int, message: str) -> Problem:
    """A problem with the i-th entry of `policy.orders`, at its place in the configuration file."""
    path = Path(source)
    page = read_page(path.read_bytes(), source, Config, []) if path.is_file() else None
    if page is None:
        return Problem(source, 1, 1, message)
    return page.problem(("policy", "orders", i, "order"), message)


def policy_settings(config: Config) -> PolicySettings:
    """The part of the configuration that goes into a generation."""
    return PolicySettings(
        allowed_networks=tuple(str(network) for network in config.allowed_networks),
        groups=tuple(GroupEntry(group.name, tuple(str(n) for n in group.networks)) for group in config.groups),
        enforcements=tuple(
            Enforcement(
                line.order,
                tuple(line.groups),
                line.mode,
                line.action,
                line.since.timestamp() if line.since is not None else -FOREVER,
                line.until.timestamp() if line.until is not None else FOREVER,
            )
            for line in config.policy.orders
        ),
        block_ttl=int(config.policy.block_ttl),
        sinkhole_ipv4=tuple(str(address) for address in config.policy.sinkhole.ipv4),
        sinkhole_ipv6=tuple(str(address) for address in config.policy.sinkhole.ipv6),
    )


def write_policy(config: Config, source: str, folder: Path, at: float) -> Path:
    """Compile into the folder of generations, and return the file to put in force.

    The same policy as the newest file's keeps that file and its serial. The file appears whole or not at all.

    Raises:
        PolicyError: As `compile_policy`.
        OSError: The file can not be written.
    """
    files = generation_files(folder)
    newest = files[-1] if files else None
    serial = _serial(newest) + 1 if newest is not None else 1
    compiled = compile_policy(config, source, serial=serial, at=at)
    if newest is not None and _digest_of(newest) == compiled.digest:
        return newest
    path = folder / f"{serial:08d}{_SUFFIX}"
    aside = path.with_suffix(".new")
    with aside.open("wb") as file:
        file.write(compiled.octets)
        file.flush()
        os.fsync(file.fileno())
    check = _digest_of(aside)
    if check != compiled.digest:
        raise OSError(errno.EIO, "what was written is not what is read back")
    aside.replace(path)
    for old in [*files, path][:-KEPT_GENERATIONS]:
        old.unlink(missing_ok=True)
    return path


def compile_aside(config_path: Path | None, running: Config, folder: Path, at: float) -> dict[str, object]:
    """What the compiler process does on a reload, and says in JSON.

    Args:
        config_path: The configuration file, read anew.
        running: The configuration that the server was started with.
        folder: Of generations.
        at: Unix seconds.

    Returns:
        `problems`, a line each; or `path` of the generation and `needs_restart`, the keys that only a start takes in.
    """
    try:
        config = read_config(config_path)
        path = write_policy(config, str(config_path or "defaults"), folder, at)
    except PolicyError as error:
        return {"problems": [str(problem) for problem in error.problems]}
    except OSError as error:
        return {"problems": [f"can not write to {folder}: {error.strerror}; make room or give permission"]}
    ours, theirs = running.model_dump(mode="json", warnings=False), config.model_dump(mode="json", warnings=False)
    fixed = [key for key in ours if key not in RELOADED and ours[key] != theirs[key]]
    return {"path": str(path), "needs_restart": fixed}


def generation_files(folder: Path) -> list[Path]:
    """The generations in a folder, oldest first."""
    return sorted(path for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdigit())


def list_times(terms: PolicyTerms, folders: Iterable[Path]) -> dict[str, float]:
    """When each document that is in use was last changed: `apps/wechat` -> Unix seconds."""
    times: dict[str, float] = {}
    for folder in folders:
        for kind, entries in (("apps", terms.apps), ("orders", terms.orders)):
            for id_ in [entry.id for entry in entries]:
                # Not there, gone meanwhile, or not for our eyes any more: what is in force goes on without its age.
                with contextlib.suppress(OSError):
                    times[f"{kind}/{id_}"] = (folder / kind / f"{id_}.yaml").stat().st_mtime
    return times


def _serial(path: Path) -> int:
    return int(path.stem)


def _digest_of(path: Path) -> str | None:
    try:
        generation = Generation(memoryview(bytearray(path.read_bytes())))
        generation.verify()
    except (OSError, GenerationError):
        return None
    return generation.digest
