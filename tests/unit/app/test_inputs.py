"""A start compiles nothing where a compile would change nothing, and whatever is in doubt is compiled."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from resolver import config as configuration
from resolver.app import inputs
from resolver.app.compiler import compile_aside
from resolver.config import Config
from resolver.feeds.copies import State, write_copy
from tests.support.server import order

AT = 1_900_000_000.0
URL = "https://www.example.org/list"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A server's folder whose policy was compiled: an order, a local list, a folder of lists, a fetched copy."""
    for sub in ("policy/apps", "policy/orders", "lists", "state/generations", "state/feeds"):
        (tmp_path / sub).mkdir(parents=True)
    for kind, document in zip(("apps", "orders"), order("order-1", "chat.example"), strict=True):
        (tmp_path / "policy" / kind / f"{document['id']}.yaml").write_text(json.dumps(document))
    (tmp_path / "list.txt").write_text("a.example\n")
    (tmp_path / "lists" / "one.txt").write_text("b.example\n")
    write_copy(tmp_path / "state" / "feeds", "fetched", b"c.example\n", State())
    write_config(tmp_path)
    assert compiled(tmp_path).name == "00000001.generation"
    return tmp_path


def write_config(folder: Path, **policy: object) -> None:
    zones = [
        {"name": "local", "file": str(folder / "list.txt")},
        {"name": "locals", "file": str(folder / "lists")},
        {"name": "fetched", "url": URL},
        {"name": "to-come", "url": URL},
    ]
    orders = [{"order": "order-1", "groups": ["everyone"]}]
    whole = {"documents": [str(folder / "policy")], "orders": orders, "zones": zones, **policy}
    text = json.dumps({"state_dir": str(folder / "state"), "policy": whole})
    (folder / "interdict.yaml").write_text(text)


def read_config(folder: Path) -> Config:
    path = folder / "interdict.yaml"
    return configuration.read(path.read_text(), str(path))


def compiled(folder: Path, at: float = AT) -> Path:
    said = compile_aside(folder / "interdict.yaml", read_config(folder), folder / "state" / "generations", at)
    assert "problems" not in said, said
    return Path(str(said["path"]))


def held(folder: Path, at: float = AT) -> Path | None:
    return inputs.unchanged(read_config(folder), folder / "state" / "generations", at)


def replaced(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def rewritten(folder: Path) -> None:
    """As an editor does: the same octets in a new file."""
    file = folder / "policy" / "orders" / "order-1.yaml"
    shutil.copy(file, folder / "aside")
    (folder / "aside").replace(file)


def checked(folder: Path) -> None:
    """As the feeder does when a source says that nothing changed."""
    (folder / "state" / "feeds" / "fetched.json").write_bytes(State(checked_at=AT).to_json())


SAME: dict[str, Callable[[Path], object]] = {
    "nothing": lambda folder: None,
    "a document's time": lambda folder: os.utime(folder / "policy" / "orders" / "order-1.yaml", (1, 1)),
    "a document written anew": rewritten,
    "a copy looked after": checked,
    "a comment in the configuration": lambda folder: replaced(folder / "interdict.yaml", '{"state', '# Ours\n{"state'),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_makes_no_other_policy_takes_the_generation_that_lies_there(
    folder: Path, change: Callable[[Path], object]
) -> None:
    """File and serial stay, and a compile would have said the same."""
    change(folder)

    assert held(folder) == folder / "state" / "generations" / "00000001.generation"
    assert held(folder) == compiled(folder)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a document edited": lambda folder: replaced(folder / "policy" / "apps" / "app-order-1.yaml", "chat.", "chit."),
    "a document broken": lambda folder: (folder / "policy" / "orders" / "order-1.yaml").write_text("id: ["),
    "a document removed": lambda folder: (folder / "policy" / "orders" / "order-1.yaml").unlink(),
    "a document added": lambda folder: (folder / "policy" / "orders" / "order-2.yaml").write_text("{}"),
    "a document misnamed": lambda folder: (folder / "policy" / "orders" / "order-2.yml").write_text("{}"),
    "a kind added": lambda folder: (folder / "policy" / "rules").mkdir(),
    "a document that is a pipe": lambda folder: os.mkfifo(folder / "policy" / "apps" / "pipe.yaml"),
    "the documents removed": lambda folder: shutil.rmtree(folder / "policy"),
    "a local list edited": lambda folder: (folder / "list.txt").write_text("z.example\n"),
    "a local list removed": lambda folder: (folder / "list.txt").unlink(),
    "a list added to a folder": lambda folder: (folder / "lists" / "two.txt").write_text("z.example\n"),
    "a list renamed in a folder": lambda folder: (folder / "lists" / "one.txt").rename(folder / "lists" / "two.txt"),
    "a copy edited": lambda folder: (folder / "state" / "feeds" / "fetched.list").write_text("z.example\n"),
    "a copy removed": lambda folder: (folder / "state" / "feeds" / "fetched.list").unlink(),
    "a copy come": lambda folder: (folder / "state" / "feeds" / "to-come.list").write_text("z.example\n"),
    "the configuration": lambda folder: write_config(folder, block_ttl="7s"),
    "a zone taken out": lambda folder: write_config(folder, zones=[]),
    "a bound of the history": lambda folder: write_config(folder, history={"generations": 7}),
    "the generation damaged": lambda folder: replaced_octet(folder / "state" / "generations" / "00000001.generation"),
    "the generation removed": lambda folder: (folder / "state" / "generations" / "00000001.generation").unlink(),
    "a newer generation": lambda folder: (folder / "state" / "generations" / "00000002.generation").write_bytes(b"x"),
    "its documents damaged": lambda folder: replaced_octet(
        folder / "state" / "generations" / "00000001.documents.gz"
    ),
    "its documents removed": lambda folder: (folder / "state" / "generations" / "00000001.documents.gz").unlink(),
    "the note damaged": lambda folder: replaced_octet(folder / "state" / "generations" / "inputs.json"),
    "the note cut": lambda folder: (folder / "state" / "generations" / "inputs.json").write_bytes(b"[" * 100_000),
    "the note removed": lambda folder: (folder / "state" / "generations" / "inputs.json").unlink(),
    "all generations removed": lambda folder: shutil.rmtree(folder / "state" / "generations"),
}  # fmt: skip


def replaced_octet(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[len(octets) // 2] ^= 1
    path.write_bytes(octets)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_may_make_another_policy_is_compiled(folder: Path, change: Callable[[Path], object]) -> None:
    """Also what a compile would tell as a mistake, or mend."""
    assert held(folder) is not None
    change(folder)

    assert held(folder) is None


@pytest.mark.parametrize("program", ["the version", "Python", "a library", "a file of it"])
def test_another_program_compiles(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that was mended in place and kept its version."""
    libraries = folder / "site-packages"
    (libraries / "idna-1.dist-info").mkdir(parents=True)
    (folder / "package").mkdir()
    (folder / "package" / "judge.py").write_text("1\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(libraries)])
    monkeypatch.setattr(inputs, "_PACKAGE", folder / "package")
    compiled(folder)
    assert held(folder) is not None

    if program == "the version":
        monkeypatch.setattr(inputs, "__version__", "0.0.0")
    elif program == "Python":
        monkeypatch.setattr(sys, "version", "3.99")
    elif program == "a library":
        (libraries / "idna-1.dist-info").rename(libraries / "idna-2.dist-info")
    else:
        (folder / "package" / "judge.py").write_text("12\n")

    assert held(folder) is None


def test_a_program_that_can_not_be_looked_at_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account may run what it has no access to; a reload goes on, and the next start compiles."""
    monkeypatch.setattr(inputs, "_PACKAGE", folder / "nowhere")

    assert compiled(folder).name == "00000001.generation"
    assert held(folder) is None


def test_a_change_costs_one_compile(folder: Path) -> None:
    """Then the next start takes what that one made, under its number; what went back gets a number of its own."""
    list_ = folder / "list.txt"
    for number, text in ((2, "z.example\n"), (3, "a.example\n")):
        list_.write_text(text)
        assert held(folder) is None
        path = compiled(folder)

        assert path.name == f"{number:08d}.generation"
        assert held(folder) == path


def test_what_changes_while_it_is_compiled_is_compiled_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows whether the generation has it."""
    (folder / "list.txt").write_text("z.example\n")
    said = iter(["before", "after"])
    monkeypatch.setattr(inputs, "digest_of", lambda config: next(said))
    path = compiled(folder)
    monkeypatch.undo()

    assert path.name == "00000002.generation"
    assert held(folder) is None


def test_history_is_let_go_of_in_time(folder: Path) -> None:
    """A start from which on a generation is older than the configuration lets it be compiles, and so sweeps."""
    for number in range(2):
        (folder / "list.txt").write_text(f"n{number}.example\n")
        path = compiled(folder, AT + 1 + number)
    age = read_config(folder).policy.history.age

    assert held(folder, AT + age) == path
    assert held(folder, AT + 1 + age) is None
    assert compiled(folder, AT + 2 + age) == path
    assert not list((folder / "state" / "generations").glob("00000001.*"))
    assert held(folder, AT + 2 + age) == path


def test_a_note_that_can_not_be_written_is_no_error(folder: Path) -> None:
    """The policy is in force all the same."""
    note = folder / "state" / "generations" / "inputs.json"
    note.unlink()
    note.mkdir()

    assert compiled(folder).name == "00000001.generation"
    assert held(folder) is None
