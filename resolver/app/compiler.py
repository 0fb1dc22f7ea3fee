"""From configuration and documents to a generation file: read, checked, compiled, written aside, put in place.

Runs in a process of its own, so that a large compile never holds up an answer, and in the command line's for `check`
and `explain`, which write nothing.
"""

from dataclasses import dataclass
from pathlib import Path

from resolver.app import history, inputs
from resolver.app.machine import RELOADED, document_folders, read_config, state_paths
from resolver.app.zones import applied_zones
from resolver.config import Config
from resolver.feeds.files import problem_at, read_documents
from resolver.policy.additions import Documents
from resolver.policy.compile import Enforcement, PolicySettings, compile_generation, mistakes
from resolver.policy.generation import GenerationError
from resolver.policy.source import KeyPath, PolicyError, Problem, did_you_mean, read_page, shown
from resolver.policy.terms import FOREVER, GroupEntry
from resolver.policy.values import Endpoint
from resolver.policy.zone import Progress, ZoneState


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled policy, in memory, with what it was made of."""

    octets: bytes
    digest: str
    documents: Documents
    folders: tuple[Path, ...]
    zones: tuple[ZoneState, ...]


def compile_policy(
    config: Config, source: str, *, serial: int, at: float, made_by: str = "", progress: Progress | None = None
) -> Compiled:
    """Read all documents and zones and compile what is configured.

    Args:
        config: The configuration.
        source: The name of its file, for messages.
        serial: For the generation.
        at: Unix seconds.
        made_by: Who wants it, for the record.
        progress: For long reads, and for the making of a large table.

    Raises:
        PolicyError: With every problem of every document, every configured order that no document describes, and every
            local list that can not be used.
    """
    folders = document_folders(config)
    documents = read_documents(folders)
    settings = policy_settings(config)
    problems = [
        _problem_in(
            source,
            ("policy", "orders", i, "order"),
            f"no order has the id {shown(line.order)}{_mend(line.order, documents, folders)}",
        )
        for i, line in enumerate(config.policy.orders)
        if line.order not in documents.orders
    ]
    problems += [
        _problem_in(
            source,
            ("policy", "ways_round", id_),
            f"no list of ways round has the id {shown(id_)}{did_you_mean(id_, documents.ways_round)}",
        )
        for id_ in config.policy.ways_round
        if id_ not in documents.ways_round
    ]
    problems += [
        problem_at(folders, kind, id_, (key,), message) for kind, id_, key, message in mistakes(documents, settings)
    ]
    if problems:
        raise PolicyError(problems)
    zones, states = applied_zones(config, documents, state_paths(config).feeds, progress)
    octets, digest = compile_generation(
        documents, settings, serial=serial, at=at, zones=zones, made_by=made_by, progress=progress
    )
    return Compiled(octets, digest, documents, folders, states)


def _mend(order: str, documents: Documents, folders: tuple[Path, ...]) -> str:
    where = " or ".join(str(folder / "orders" / f"{order}.yaml") for folder in folders)
    return did_you_mean(order, documents.orders) or f"; write {where} first"


def _problem_in(source: str, path: KeyPath, message: str) -> Problem:
    """A problem with the configuration, at its place in its file."""
    file = Path(source)
    page = read_page(file.read_bytes(), source, Config, []) if file.is_file() else None
    return Problem(source, 1, 1, message) if page is None else page.problem(path, message)


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
        precedence=config.policy.precedence,
        strip_ech=config.policy.strip_ech,
    )


def write_policy(config: Config, source: str, folder: Path, at: float, *, made_by: str = "") -> Path:
    """Compile into the folder of generations, and return the file to put in force.

    The same policy as the newest file's keeps that file and its serial. The file appears whole or not at all.

    Args:
        config: The configuration, which says how much of the history is kept.
        source: The name of its file, for messages.
        folder: Of generations.
        at: Unix seconds.
        made_by: Who wants it, for the record.

    Raises:
        PolicyError: As `compile_policy`.
        OSError: The file can not be written.
    """
    compiled = compile_policy(config, source, serial=history.next_serial(folder), at=at, made_by=made_by)
    kept = config.policy.history
    bounds = history.Bounds(kept.generations, kept.age, kept.size)
    return history.keep(folder, compiled.octets, compiled.documents, compiled.zones, at, bounds)


def compile_aside(
    config_path: Path | None,
    running: Config,
    folder: Path,
    at: float,
    made_by: str = "",
    *,
    fresh: Config | None = None,
) -> dict[str, object]:
    """What the compiler process does on a reload, and says in JSON.

    Args:
        config_path: The configuration file, read anew.
        running: The configuration that the server was started with, its policy as it was last taken in.
        folder: Of generations.
        at: Unix seconds.
        made_by: Who wants it, for the record.
        fresh: The configuration to compile, where it was read already.

    Returns:
        `problems`, a line each; or `path` of the generation and `needs_restart`, the keys that only a start takes in.
    """
    try:
        config = read_config(config_path) if fresh is None else fresh
        before = inputs.digest_of(config)
        path = write_policy(config, str(config_path or "defaults"), folder, at, made_by=made_by)
    except PolicyError as error:
        return {"problems": [str(problem) for problem in error.problems]}
    except OSError as error:
        return {"problems": [f"can not write to {folder}: {error.strerror}; make room or give permission"]}
    except GenerationError as error:
        return {"problems": [f"the policy that was compiled can not be opened: {error}; take out what was added last"]}
    # What changed while it was read may be in the generation or not; the next start compiles again.
    if before is not None and before == inputs.digest_of(config):
        inputs.note(folder, path, before)
    ours, theirs = running.model_dump(mode="json", warnings=False), config.model_dump(mode="json", warnings=False)
    fixed = [key for key in ours if key not in RELOADED and ours[key] != theirs[key]]
    if _listeners(running) != _listeners(config):
        fixed.append("groups.listeners")
    return {"path": str(path), "needs_restart": fixed}


def _listeners(config: Config) -> dict[Endpoint, str]:
    return {endpoint: group.name for group in config.groups for endpoint in group.listeners}
