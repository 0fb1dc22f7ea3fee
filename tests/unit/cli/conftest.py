"""Runs the command as people do, with a configuration of its own."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from resolver.app.control import listen
from resolver.cli.main import interdict
from tests.support.server import order

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command with a configuration of its own: `run(text, "explain", "example.org")`."""

    def invoke(text: str, *words: str) -> Result:
        file = tmp_path / "interdict.yaml"
        file.write_text(f"state_dir: {tmp_path / 'state'}\nupstreams: [{{address: 192.0.2.53}}]\n{text}")
        return CliRunner().invoke(interdict, [*words, "--config", str(file)])

    return invoke


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Orders in force, on trial, to come and gone, and the configuration for two groups."""
    for kind in ("apps", "orders"):
        (tmp_path / kind).mkdir()
    for id_, names, effective in (
        ("ban", ["chat.example"], "2020-01-01T00:00:00Z"),
        ("trial", ["trial.example"], "2020-01-01T00:00:00Z"),
        ("early", ["early.example"], "2030-01-01T00:00:00-05:00"),
        ("gone", ["gone.example"], "2020-01-01T00:00:00Z"),
    ):
        app, document = order(id_, *names, effective=effective)
        if id_ == "gone":
            document["expires"] = "2021-01-01T00:00:00Z"
        (tmp_path / "apps" / f"app-{id_}.yaml").write_text(json.dumps(app))
        (tmp_path / "orders" / f"{id_}.yaml").write_text(json.dumps(document))
    (tmp_path / "interdict.yaml").write_text(f"""\
groups: [{{name: phones, networks: [10.1.0.0/16]}}, {{name: office, networks: [10.2.0.0/16]}}]
policy:
  documents: ["{tmp_path}"]
  orders:
    - {{order: ban, groups: [phones], action: refused}}
    - {{order: trial, groups: [phones, office], mode: observe}}
""")
    return tmp_path


RULES = {
    "cdn": {"verdict": "allow", "names": ["cdn.chat.example"]},
    "games": {"verdict": "block", "names": ["games.example"], "action": "nodata", "groups": ["office"]},
}
WAY_ROUND = {
    "id": "canary", "title": "A canary", "effect": "It sings.", "version": "2023-01-01", "action": "nxdomain",
    "names": [{"name": "canary.example", "match": "exact", "sources": ["EX"]}],
    "addresses": ["192.0.2.8", "2001:db8::/64"],
}  # fmt: skip


@pytest.fixture
def beside(folder: Path) -> Path:
    """The folder, with documents of the other kinds."""
    for kind in ("rules", "exemptions", "ways-round"):
        (folder / kind).mkdir()
    for id_, rule in RULES.items():
        rest = {"id": id_, "owner": "desk", "reason": "a test", "until": "2040-01-01T00:00:00Z"}
        (folder / "rules" / f"{id_}.yaml").write_text(json.dumps(rest | rule))
    (folder / "ways-round" / "canary.yaml").write_text(json.dumps(WAY_ROUND))
    return folder


class Supervisor(threading.Thread):
    """Gives one answer to whoever asks, and remembers what was asked."""

    def __init__(self, folder: Path, answer: dict[str, object]) -> None:
        super().__init__()
        folder.mkdir(parents=True)
        self.heard: object = None
        self._socket = listen(folder)
        self._socket.setblocking(True)
        self._socket.settimeout(10)
        self._answer = answer
        self.start()

    def run(self) -> None:
        asker, _ = self._socket.accept()
        with self._socket, asker:
            self.heard = json.loads(asker.makefile("rb").readline())
            asker.sendall(json.dumps(self._answer).encode() + b"\n")


@pytest.fixture
def supervisor() -> Callable[[Path, dict[str, object]], Supervisor]:
    """`supervisor(folder, answer)` is a server as the command meets it."""
    return Supervisor
