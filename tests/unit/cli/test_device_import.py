"""Importing devices: what is new gets a token, what is known stays, and what is wrong is told."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from resolver.app.devices import Devices, register_of
from resolver.app.machine import StatePaths
from resolver.cli.device_import import import_
from resolver.cli.main import Verbs
from resolver.enrol.inventory import read_table
from resolver.policy.register import Device, Proof, Register

Run = Callable[..., Result]
HEADING = "Device name,Serial number,OS,Primary user UPN\n"
EXPORT = HEADING + "pc-1,S1,Windows,a@example.org\npc-2,S2,iOS,b@example.org\n"


@pytest.fixture
def paths(tmp_path: Path) -> StatePaths:
    return StatePaths(tmp_path / "state")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Imports a text: `run(EXPORT, "--group", "phones")`; tokens go to out-1.csv, then out-2.csv, and so on."""
    file = tmp_path / "interdict.yaml"
    file.write_text(
        f"state_dir: {tmp_path / 'state'}\nupstreams: [{{address: 192.0.2.53}}]\n"
        "groups: [{name: everyone, networks: ['0.0.0.0/0', '::/0']}, {name: phones}]\n"
    )
    root = Verbs("interdict", commands={"import": import_})

    def invoke(text: str, *words: str) -> Result:
        (tmp_path / "export.csv").write_text(text)
        out = tmp_path / f"out-{len(list(tmp_path.glob('out-*'))) + 1}.csv"
        given = ["import", str(tmp_path / "export.csv"), "--config", str(file), *words]
        return CliRunner().invoke(root, [*given, *([] if "--out" in words else ["--out", str(out)])])

    return invoke


def tokens(tmp_path: Path, number: int) -> Mapping[str, str]:
    """The tokens that an import wrote, by name."""
    return {
        one.name: one.known_token()
        for one in read_table((tmp_path / f"out-{number}.csv").read_bytes(), "out", lambda name: b"")
    }


def known(paths: StatePaths, token: str) -> Device | None:
    return Register(memoryview(register_of(paths).read_bytes())).find(Proof.TOKEN, token, 2e9)


def test_new_devices_get_tokens_in_an_inventory(run: Run, tmp_path: Path, paths: StatePaths) -> None:
    """For `interdict profile`, and for nobody else's eyes."""
    said = run(EXPORT, "--group", "phones")

    assert said.exit_code == 0
    assert "added 2, updated 0, missing 0; as it was 0; refused 0\n" in said.stdout
    assert "note: read as Microsoft Intune: name from Device name, serial from Serial number" in said.stderr
    assert "note: columns passed over: OS\n" in said.stderr
    assert (tmp_path / "out-1.csv").stat().st_mode & 0o777 == 0o600
    made = tokens(tmp_path, 1)
    assert [known(paths, made[name]) for name in ("pc-1", "pc-2")] == [
        Device(1, "pc-1", "phones"), Device(2, "pc-2", "phones")
    ]  # fmt: skip
    assert not list(tmp_path.glob(".out*"))


def test_importing_again_makes_nothing_new(run: Run, tmp_path: Path) -> None:
    """Nor a file."""
    run(EXPORT, "--group", "phones")

    said = run(EXPORT.replace("pc-2", "pc-9"), "--group", "phones")

    assert "added 0, updated 1, missing 0; as it was 1; refused 0\n" in said.stdout
    assert not (tmp_path / "out-2.csv").exists()


def test_a_dry_run_changes_nothing(run: Run, tmp_path: Path, paths: StatePaths) -> None:
    """And tells each change."""
    said = run(EXPORT, "--group", "phones", "--dry-run")
    assert said.exit_code == 0
    assert said.stdout.splitlines()[:2] == ["add pc-1, in group phones", "add pc-2, in group phones"]
    assert not paths.root.exists()

    run(EXPORT, "--group", "phones")
    before = register_of(paths).read_bytes()
    said = run(HEADING + "pc-3,S1,,\n", "--group", "phones", "--dry-run", "--revoke-missing")
    assert said.stdout.splitlines() == [
        "update pc-1: name pc-1 -> pc-3",
        "revoke pc-2",
        "would be added 0, updated 1, revoked 1; as it was 0; refused 0",
    ]
    assert register_of(paths).read_bytes() == before
    assert not (tmp_path / "out-2.csv").exists()


def test_missing_devices_are_revoked_on_request(run: Run, tmp_path: Path, paths: StatePaths) -> None:
    """Half of them at most, unless somebody says that more is meant."""
    run(EXPORT + "pc-3,S3,,\n", "--group", "phones")
    made = tokens(tmp_path, 1)

    run(HEADING + "pc-1,S1,,\n", "--group", "phones")
    assert known(paths, made["pc-3"]) is not None

    refused = run(HEADING + "pc-1,S1,,\n", "--group", "phones", "--revoke-missing")
    assert refused.exit_code == 1
    assert "2 of 3 devices would be revoked; see with --dry-run which, and say --yes" in refused.stderr
    assert known(paths, made["pc-3"]) is not None

    assert run(EXPORT, "--group", "phones", "--revoke-missing").exit_code == 0
    assert (known(paths, made["pc-3"]), known(paths, made["pc-2"])) == (None, Device(2, "pc-2", "phones"))

    assert run(HEADING + "x,S9,,\n", "--group", "phones", "--revoke-missing", "--yes").exit_code == 0
    assert known(paths, made["pc-1"]) is None

    said = run(EXPORT, "--group", "phones")
    assert "note: pc-1 is listed, was revoked, and stays so; `interdict device renew` brings it back" in said.stdout
    assert known(paths, made["pc-1"]) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (EXPORT + ",S9,,\n", ["--keep-going"]),
        (json.dumps({"value": [{"deviceName": "pc-1"}], "@odata.nextLink": "x"}), []),
    ],
)
def test_nobody_is_revoked_for_lack_of_a_sound_export(text: str, words: list[str], run: Run) -> None:
    """A bad line, or one page of several."""
    run(EXPORT, "--group", "phones")

    said = run(text, "--group", "phones", "--revoke-missing", *words)

    assert said.exit_code == 1
    assert "--revoke-missing needs an export that is whole and sound" in said.stderr


def test_bad_lines_stop_an_import_unless_it_is_to_go_on(run: Run, tmp_path: Path, paths: StatePaths) -> None:
    """Each is told with its line; the others are taken only then, and the exit code says so."""
    text = EXPORT + ",S9,,\npc-1,S8,,\n"

    refused = run(text, "--group", "phones")
    assert (refused.exit_code, paths.root.exists()) == (1, False)
    assert ":4:1: the device has no name" in refused.stderr
    assert ':5:1: the name "pc-1" is on line 2 too' in refused.stderr
    assert "nothing was imported" in refused.stderr

    taken = run(text, "--group", "phones", "--keep-going", "--json")
    assert taken.exit_code == 1
    said = json.loads(taken.stdout)
    assert (said["added"], [one["line"] for one in said["problems"]]) == (["pc-1", "pc-2"], [4, 5])
    assert sorted(tokens(tmp_path, 1)) == ["pc-1", "pc-2"]


@pytest.mark.parametrize(
    ("text", "words", "code", "said"),
    [
        ("name,group\na,phonse\n", [], 1, ':2:1: no group is called "phonse"; did you mean "phones"?'),
        ("name\na\n", [], 1, ":2:1: it has no group; give one with --group"),
        ("name\na\n", ["--group", "phonse"], 2, 'did you mean "phones"?'),
        ("colour\nred\n", ["--group", "phones"], 2, "no column is known to hold the names"),
        ("Asset\nred\n", ["--group", "phones", "--name-column", "Aset"], 2, 'did you mean "Asset"?'),
        ("name\na\n", ["--group", "phones", "--out", "/nowhere/at/all.csv"], 2, "No such file or directory"),
    ],
)
def test_what_can_not_be_imported_is_told(
    text: str, words: list[str], code: int, said: str, run: Run, paths: StatePaths
) -> None:
    """And nothing changes."""
    told = run(text, *words)

    assert told.exit_code == code
    assert said in told.stderr
    assert not register_of(paths).exists()


def test_tokens_are_never_written_over(run: Run, tmp_path: Path, paths: StatePaths) -> None:
    """The file that is there may hold the only ones."""
    kept = tmp_path / "kept.csv"
    kept.write_text("precious")

    said = run(EXPORT, "--group", "phones", "--out", str(kept))

    assert (said.exit_code, kept.read_text()) == (1, "precious")
    assert "may hold the only copy of tokens; name another --out" in said.stderr
    assert not register_of(paths).exists()


def test_tokens_outlast_whatever_goes_wrong_with_the_register(
    run: Run, tmp_path: Path, paths: StatePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be in force already: a file too many is left, and never a device whose token nobody knows."""

    def fails(devices: Devices, aside: Path) -> None:
        raise OSError(5, "Input/output error")

    run(HEADING + "pc-0,S0,,\n", "--group", "phones")
    with monkeypatch.context() as patched:
        patched.setattr(Devices, "_put_in_place", fails)
        said = run(EXPORT, "--group", "phones")
    assert said.exit_code == 1
    assert "the change is recorded, but not in force" in said.stderr
    assert "(Input/output error); mend that" in said.stderr
    (left,) = tmp_path.glob(".out-2.csv.*")
    assert f"note: the tokens of whoever was added are in {left}\n" in said.stderr

    assert "as it was 2" in run(EXPORT, "--group", "phones").stdout
    tokens = [row["token"] for row in csv.DictReader(left.read_text().splitlines())]
    assert [known(paths, token) is not None for token in tokens] == [True, True]


def test_tokens_need_a_place(run: Run, tmp_path: Path, paths: StatePaths) -> None:
    """Unless none are to be made, or nobody is new."""
    config = str(tmp_path / "interdict.yaml")
    root = Verbs("interdict", commands={"import": import_})
    (tmp_path / "x.csv").write_text(EXPORT)
    words = ["import", str(tmp_path / "x.csv"), "--config", config, "--group", "phones"]

    refused = CliRunner().invoke(root, words)
    assert refused.exit_code == 2
    assert "name the file for them with --out, or say --no-token" in refused.stderr
    assert CliRunner().invoke(root, [*words, "--no-token"]).exit_code == 0
    assert CliRunner().invoke(root, words).exit_code == 0
    assert Register(memoryview(register_of(paths).read_bytes())).credentials == 0


def test_a_lost_register_comes_back_from_its_inventory(run: Run, tmp_path: Path, paths: StatePaths) -> None:
    """With the tokens that the devices have."""
    run(EXPORT, "--group", "phones")
    written = (tmp_path / "out-1.csv").read_text()
    made = tokens(tmp_path, 1)
    for path in (paths.root / "devices").iterdir():
        path.unlink()

    assert run(written).exit_code == 0

    assert known(paths, made["pc-2"]) == Device(2, "pc-2", "phones")
    assert [row["token"] for row in csv.DictReader(written.splitlines())] == list(made.values())
