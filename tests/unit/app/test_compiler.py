"""From files to a generation file: checked, numbered, written whole or not at all."""

import json
from pathlib import Path

import pytest

from resolver import config as configuration
from resolver.app.compiler import compile_aside, compile_policy, write_policy
from resolver.app.history import listing, of_serial, plain_files
from resolver.app.machine import document_folders
from resolver.app.status import list_times
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

    assert [path.name for path in plain_files(folder / "generations")] == [first.name, "00000002.generation"]
    assert is_banned(second, "more.example")
    assert not is_banned(first, "more.example")
    assert {path.suffix for path in (folder / "generations").iterdir()} == {".generation", ".gz"}


@pytest.mark.parametrize(("generations", "kept"), [(1, [2, 3]), (1000, [1, 2, 3])])
def test_what_a_generation_was_made_of_is_kept_with_it(folder: Path, generations: int, kept: list[int]) -> None:
    """The documents, and who had it made; as many as the configuration says."""
    path = folder / "interdict.yaml"
    policy = json.loads(path.read_text())["policy"] | {"history": {"generations": generations}}
    config = configuration.read(json.dumps({"policy": policy}), "c.yaml")
    for n, made_by in enumerate(["start", "alice", "bob"]):
        write_order(folder, "order-1", f"n{n}.example")
        write_policy(config, "c.yaml", folder / "generations", AT + n, made_by=made_by)

    rows = listing(folder / "generations")
    past = of_serial(folder / "generations", 3)

    assert [row.serial for row in rows] == kept
    assert (rows[-1].made_by, rows[-1].compiled_at) == ("bob", AT + 2)
    assert past is not None
    assert [domain.name for domain in past.documents.apps["app-order-1"].domains] == ["n2.example"]


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


def test_what_the_configuration_names_and_nobody_describes_is_told_at_its_place(folder: Path) -> None:
    """Lists of ways round, as orders."""
    file = folder / "interdict.yaml"
    written = json.loads(file.read_text())
    written["policy"]["ways_round"] = {"doh": False}
    file.write_text(json.dumps(written, indent=1))
    with pytest.raises(PolicyError) as told:
        write(folder)

    (problem,) = told.value.problems
    assert problem.message.startswith('no list of ways round has the id "doh"')
    assert '"doh"' in file.read_text().splitlines()[problem.line - 1]
    assert problem.source == str(file)


@pytest.mark.parametrize(
    ("document", "line", "message"),
    [
        ({"groups": ["nobody"], "orders": ["order-1"]}, "groups", 'no group is called "nobody"'),
        ({"groups": ["everyone"], "orders": ["order-1"]}, "groups", "a blanket exemption"),
        ({"devices": ["192.0.2.1"], "apps": ["app-order-9"]}, "apps", "no app has the id"),
    ],
)
def test_an_exemption_that_makes_no_sense_beside_the_configuration_is_told(
    folder: Path, document: dict[str, object], line: str, message: str
) -> None:
    """At its place in its own file."""
    whole = {
        "id": "lab", "reason": "law-enforcement", "grantor": "CIO", "granted": "2026-01-01T00:00:00Z",
        "expires": "2026-02-01T00:00:00Z", **document,
    }  # fmt: skip
    (folder / "policy" / "exemptions").mkdir()
    (folder / "policy" / "exemptions" / "lab.yaml").write_text(json.dumps(whole, indent=1))
    with pytest.raises(PolicyError) as told:
        write(folder)

    assert [message in problem.message for problem in told.value.problems] == [True]
    assert told.value.problems[0].source.endswith("exemptions/lab.yaml")
