"""From files to a generation file: checked, numbered, written whole or not at all."""

import json
from pathlib import Path

import pytest

from resolver import config as configuration
from resolver.app.compiler import (
    KEPT_GENERATIONS,
    compile_aside,
    compile_policy,
    document_folders,
    generation_files,
    list_times,
    write_policy,
)
from resolver.config import Config
from resolver.feeds.files import shipped
from resolver.policy.generation import Generation, View
from resolver.policy.judge import judge_query
from resolver.policy.source import PolicyError
from resolver.wire import name as names
from tests.support.server import order

AT = 1_900_000_000.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one order, a place for generations, and a configuration."""
    for sub in ("policy/apps", "policy/orders", "generations"):
        (tmp_path / sub).mkdir(parents=True)
    write_order(tmp_path, "order-1", "chat.example")
    write_config(tmp_path, "order-1")
    return tmp_path


def write_order(folder: Path, id_: str, *banned: str) -> None:
    for kind, document in zip(("apps", "orders"), order(id_, *banned), strict=True):
        (folder / "policy" / kind / f"{document['id']}.yaml").write_text(json.dumps(document))


def write_config(folder: Path, *orders: str, **more: object) -> None:
    applied = [{"order": id_, "groups": ["everyone"]} for id_ in orders]
    policy = {"documents": [str(folder / "policy")], "orders": applied}
    (folder / "interdict.yaml").write_text(json.dumps({"policy": policy, **more}, indent=1))


def read_config(folder: Path) -> Config:
    path = folder / "interdict.yaml"
    return configuration.read(path.read_text(), str(path))


def write(folder: Path) -> Path:
    return write_policy(read_config(folder), str(folder / "interdict.yaml"), folder / "generations", AT)


def is_banned(path: Path, name: str) -> bool:
    generation = Generation(memoryview(bytearray(path.read_bytes())))
    generation.verify()
    return judge_query(names.from_text(name), View(generation, 0, AT)) is not None


def test_what_is_configured_is_what_is_in_the_file(folder: Path) -> None:
    """The order's names, and nothing of orders that are not configured."""
    write_order(folder, "order-2", "other.example")

    path = write(folder)

    assert path.name == "00000001.generation"
    assert (is_banned(path, "im.chat.example"), is_banned(path, "other.example")) == (True, False)


def test_the_same_policy_keeps_its_file(folder: Path) -> None:
    """A new serial is a new policy."""
    first = write(folder)
    octets = first.read_bytes()

    assert write(folder) == first
    assert first.read_bytes() == octets


def test_a_change_gets_the_next_number(folder: Path) -> None:
    """The one before stays beside it; nothing half-written is left."""
    first = write(folder)
    write_order(folder, "order-1", "chat.example", "more.example")

    second = write(folder)

    assert [path.name for path in generation_files(folder / "generations")] == [first.name, "00000002.generation"]
    assert is_banned(second, "more.example")
    assert not is_banned(first, "more.example")
    assert sorted(path.suffix for path in (folder / "generations").iterdir()) == [".generation"] * 2


def test_old_generations_are_let_go(folder: Path) -> None:
    """The newest ones stay."""
    for n in range(KEPT_GENERATIONS + 5):
        write_order(folder, "order-1", f"n{n}.example")
        write(folder)

    kept = [int(path.stem) for path in generation_files(folder / "generations")]
    assert kept == list(range(6, KEPT_GENERATIONS + 6))


DAMAGES = {
    "cut": lambda octets: octets[:-100],
    "empty": lambda octets: b"",
    "overwritten": lambda octets: octets[:40] + b"\xff" * 9 + octets[49:],
    "one bit in a name": lambda octets: octets.replace(b"\x04chat\x07example\0", b"\x04chat\x07exbmple\0"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_not_kept_in_force(folder: Path, damage: object) -> None:
    """The same policy is then written anew, under the next number."""
    first = write(folder)
    first.write_bytes(damage(first.read_bytes()))  # type: ignore[operator]

    second = write(folder)

    assert second.name == "00000002.generation"
    assert is_banned(second, "chat.example")


def test_all_problems_are_told_and_nothing_is_written(folder: Path) -> None:
    """Each in its file at its place."""
    for kind, id_ in (("apps", "app-order-1"), ("orders", "order-1")):
        path = folder / "policy" / kind / f"{id_}.yaml"
        path.write_text(path.read_text().replace('"high"', '"hihg"'))

    with pytest.raises(PolicyError) as caught:
        write(folder)

    assert {Path(problem.source).name for problem in caught.value.problems} == {"app-order-1.yaml", "order-1.yaml"}
    assert list((folder / "generations").iterdir()) == []


def test_an_order_that_nobody_describes_is_told_at_its_line(folder: Path) -> None:
    """Where it is configured, with the one that was meant."""
    write_config(folder, "order-1", "ordre-1")

    with pytest.raises(PolicyError) as caught:
        compile_policy(read_config(folder), str(folder / "interdict.yaml"), serial=1, at=AT)

    (problem,) = caught.value.problems
    lines = (folder / "interdict.yaml").read_text().splitlines()
    assert '"ordre-1"' in lines[problem.line - 1]
    assert 'did you mean "order-1"?' in problem.message


def test_shipped_stands_for_the_catalogue() -> None:
    """Beside folders of one's own."""
    config = configuration.read("policy: {documents: [shipped, /srv/policy], orders: []}", "c.yaml")

    assert document_folders(config) == (shipped(), Path("/srv/policy"))


@pytest.mark.parametrize(
    ("changes", "needs_restart"),
    [({}, []), ({"workers": 3}, ["workers"]), ({"groups": [{"name": "everyone", "networks": ["192.0.2.0/24"]}]}, [])],
)
def test_a_reload_says_what_only_a_start_takes_in(
    folder: Path, changes: dict[str, object], needs_restart: list[str]
) -> None:
    """What goes into a generation acts at once; of the rest the keys are named."""
    running = read_config(folder)
    write_config(folder, "order-1", **changes)

    said = compile_aside(folder / "interdict.yaml", running, folder / "generations", AT)

    assert said["needs_restart"] == needs_restart
    assert Path(str(said["path"])).is_file()


@pytest.mark.parametrize("broken", ["configuration", "document", "folder"])
def test_a_reload_that_fails_says_why(folder: Path, broken: str) -> None:
    """In sentences, whatever was wrong."""
    running = read_config(folder)
    if broken == "configuration":
        (folder / "interdict.yaml").write_text("workers: many")
    elif broken == "document":
        (folder / "policy" / "orders" / "order-1.yaml").write_text("id: [")
    else:
        (folder / "generations").rmdir()

    said = compile_aside(folder / "interdict.yaml", running, folder / "generations", AT)

    assert said.keys() == {"problems"}
    assert said["problems"]


def test_the_age_of_documents_in_use_is_known(folder: Path) -> None:
    """By kind and id; a document that is gone or can not be seen has none, and that is no error."""
    path = write(folder)
    terms = Generation(memoryview(bytearray(path.read_bytes()))).terms
    (folder / "policy" / "apps" / "app-order-1.yaml").unlink()

    times = list_times(terms, [folder / "policy", folder / "nowhere", folder / "interdict.yaml"])

    assert times == {"orders/order-1": (folder / "policy" / "orders" / "order-1.yaml").stat().st_mtime}
