"""The verbs about devices: what they print, what is in force then, and what they refuse."""

import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from resolver.app.devices import register_of
from resolver.app.machine import StatePaths
from resolver.app.seen import LastSeen
from resolver.cli import device as verbs
from resolver.cli.device import device
from resolver.cli.main import Verbs
from resolver.policy.register import Device, Proof, Register

Run = Callable[..., Result]


class _Root(Verbs):
    """Says what went wrong as the command does, with this group alone."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        click.Group.format_commands(self, ctx, formatter)


ROOT = _Root("interdict", commands={"device": device})


@pytest.fixture
def paths(tmp_path: Path) -> StatePaths:
    return StatePaths(tmp_path / "state")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a verb with a configuration of two groups: `run("add", "phone-7", ...)`."""
    file = tmp_path / "interdict.yaml"
    file.write_text(
        f"state_dir: {tmp_path / 'state'}\nupstreams: [{{address: 192.0.2.53}}]\n"
        "groups: [{name: everyone, networks: ['0.0.0.0/0', '::/0']}, {name: phones}]\n"
        "encrypted: {name: dns.example.org}\n"
    )

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(ROOT, ["device", words[0], "--config", str(file), *words[1:]])

    return invoke


def known(paths: StatePaths, shown: str, proof: Proof = Proof.TOKEN, at: float = 2e9) -> Device | None:
    """Whose a credential is for a worker that opens the register now."""
    return Register(memoryview(register_of(paths).read_bytes())).find(proof, shown, at)


def token_of(said: Result) -> str:
    """The token that a verb printed as JSON."""
    assert said.exit_code == 0, said.output
    return str(json.loads(said.stdout)["token"])


def test_a_device_is_added_and_its_token_shown(run: Run, paths: StatePaths) -> None:
    """Once, in the forms in which it is used."""
    said = run("add", "phone-7", "--group", "phones", "--owner", "jdoe", "--serial", "S1")

    assert said.exit_code == 0
    (token,) = (line.split()[1] for line in said.stdout.splitlines() if line.startswith("token"))
    assert f"https://dns.example.org/dns-query/{token}\n" in said.stdout
    assert f"{token}.dns.example.org\n" in said.stdout
    assert f"Authorization: Bearer {token}\n" in said.stdout
    assert known(paths, token) == Device(1, "phone-7", "phones")
    assert token not in run("show", "phone-7").stdout


def test_a_device_may_have_certificates_alone(run: Run, paths: StatePaths) -> None:
    """Then no token is made."""
    said = run("add", "gate-2", "--group", "phones", "--certificate", "gate-2.example.org", "--no-token", "--json")

    assert json.loads(said.stdout)["token"] is None
    assert known(paths, "Gate-2.example.org", Proof.CERTIFICATE) == Device(1, "gate-2", "phones")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["add", "x", "--group", "phonse"], 2, 'no group is called "phonse"; did you mean "phones"?'),
        (["add", "x", "--group", "phones", "--no-token"], 2, "nothing would prove the device"),
        (["add", "  ", "--group", "phones"], 2, "this is empty"),
        (["add", "x\x1b[2J", "--group", "phones"], 2, "is not a short text"),
        (["add", "phone-7", "--group", "phones"], 1, "there is a device phone-7 already"),
        (["revoke", "phone-8"], 1, 'no device is called "phone-8"; did you mean "phone-7"?'),
        (["revoke", "phone-7", "phone-8", "--credential", "1"], 2, "a credential is of one device"),
        (["revoke", "phone-7", "--credential", "9"], 1, "phone-7 has no credential 9 in force"),
        (["renew", "phone-7", "--no-token"], 2, "nothing would change"),
        (["renew", "phone-7", "--grace", "soon"], 2, "is not a duration"),
        (["move", "phone-7", "--group", "nobody"], 2, 'no group is called "nobody"'),
        (["rename", "phone-7", "phone-7"], 1, "there is a device phone-7 already"),
        (["show", "phone-8"], 1, "did you mean"),
    ],
)
def test_what_can_not_be_done_is_told(words: list[str], code: int, said: str, run: Run) -> None:
    """In one sentence, with its mend; nothing changes."""
    run("add", "phone-7", "--group", "phones")
    before = run("list", "--json").stdout

    told = run(*words)

    assert (told.exit_code, told.stdout) == (code, "")
    assert said in told.stderr
    assert run("list", "--json").stdout == before


def test_a_revoked_device_is_unknown(run: Run, paths: StatePaths) -> None:
    """Until it is renewed, and then by its new token alone."""
    old = token_of(run("add", "phone-7", "--group", "phones", "--json"))
    assert run("revoke", "phone-7").stdout == "revoked phone-7\n"
    assert known(paths, old) is None
    assert run("revoke", "phone-7").stdout == "nothing to do: revoked already\n"

    new = token_of(run("renew", "phone-7", "--json"))

    assert known(paths, new) == Device(1, "phone-7", "phones")
    assert known(paths, old) is None


def test_devices_are_revoked_while_the_configuration_is_broken(run: Run, paths: StatePaths, tmp_path: Path) -> None:
    """By the folder that they are in."""
    token = token_of(run("add", "phone-7", "--group", "phones", "--json"))
    (tmp_path / "interdict.yaml").write_text("groups: 7\n")

    assert run("revoke", "phone-7").exit_code == 2
    assert run("revoke", "phone-7", "--state-dir", str(paths.root)).exit_code == 0
    assert known(paths, token) is None


def test_one_credential_is_revoked_by_its_number(run: Run, paths: StatePaths) -> None:
    """As `show` numbers them."""
    token = token_of(run("add", "a", "--group", "phones", "--certificate", "a.example.org", "--json"))
    (leaked,) = (c for c in json.loads(run("show", "a", "--json").stdout)["credentials"] if c["proof"] == "token")

    assert run("revoke", "a", "--credential", str(leaked["credential"])).stdout == "revoked credential 1 of a\n"

    assert known(paths, token) is None
    assert known(paths, "a.example.org", Proof.CERTIFICATE) is not None


def test_a_token_that_is_renewed_has_its_grace(run: Run, paths: StatePaths) -> None:
    """Seven days, unless said otherwise."""
    token = token_of(run("add", "a", "--group", "phones", "--json"))
    run("renew", "a")
    (old, new) = json.loads(run("show", "a", "--json").stdout)["credentials"]
    assert (old["in_force"], new["in_force"], new["until"]) == (True, True, None)
    assert known(paths, token, at=4e9) is None

    run("renew", "a", "--grace", "0s")
    assert [c["in_force"] for c in json.loads(run("show", "a", "--json").stdout)["credentials"]] == [False, False, True]


def test_a_device_is_moved_and_renamed(run: Run, paths: StatePaths) -> None:
    """Its token stays."""
    token = token_of(run("add", "a", "--group", "phones", "--json"))

    assert run("move", "a", "--group", "everyone").stdout == "moved to everyone: a\n"
    assert run("move", "a", "--group", "everyone").stdout == "nothing to do: in everyone already\n"
    assert run("rename", "a", "b").stdout == "a is called b now\n"

    assert known(paths, token) == Device(1, "b", "everyone")


def test_devices_are_listed_with_when_they_were_seen(run: Run, paths: StatePaths) -> None:
    """As a table for people, with filters."""
    assert run("list").stdout == "no devices; `interdict device add` and `import` add them\n"
    for name, group in (("a", "phones"), ("b", "phones"), ("c", "everyone")):
        run("add", name, "--group", group, "--owner", f"{name}@example.org")
    run("revoke", "b")
    seen = LastSeen(paths.devices, 0)
    seen.note(1, 1_700_000_000)
    seen.close()

    rows = [line.split() for line in run("list").stdout.splitlines()]
    assert rows[0][:4] == ["name", "group", "owner", "created"]
    assert rows[1][0] == "a"
    assert "2023-11-14" in rows[1]
    assert rows[1][-2:] == ["token", "in-force"]
    assert (rows[2][-1], rows[3][-3:]) == ("revoked", ["never", "token", "in-force"])

    def names(*words: str) -> list[str]:
        return [one["name"] for one in json.loads(run("list", "--json", *words).stdout)]

    assert names() == ["a", "b", "c"]
    assert names("--group", "phones") == ["a", "b"]
    assert names("--state", "revoked") == ["b"]
    assert names("--owner", "C@") == ["c"]
    assert names("--unseen", "0s") == ["a", "b", "c"]
    assert names("--unseen", "90d") == []  # they are not as old as that
    assert run("list", "--owner", "nobody").stdout == "none of them is such\n"


def test_a_long_list_is_cut_for_people(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs get all of it."""
    monkeypatch.setattr(verbs, "_MOST_ROWS", 1)
    for name in ("a", "b", "c"):
        run("add", name, "--group", "phones")

    said = run("list")

    assert len(said.stdout.splitlines()) == 2
    assert said.stderr == "note: 2 more; narrow the list down, or take all with --json\n"
    assert len(json.loads(run("list", "--json").stdout)) == 3


def test_a_device_is_shown(run: Run) -> None:
    """With its credentials, by number."""
    run("add", "a", "--group", "phones", "--notes", "on trial", "--certificate", "a.example.org")

    said = run("show", "a").stdout

    assert "on trial" in said
    assert [line.split()[:2] for line in said.splitlines()[-2:]] == [["1", "token"], ["2", "certificate"]]
    found = json.loads(run("show", "a", "--json").stdout)
    assert (found["state"], found["last_seen"], found["number"]) == ("in-force", None, 1)


@pytest.mark.parametrize("verb", sorted(device.commands))
def test_every_verb_has_examples_and_exit_codes(verb: str, run: Run) -> None:
    """In its help."""
    said = run(verb, "--help")

    assert said.exit_code == 0
    assert f"interdict device {verb}" in said.stdout
    assert "Exit codes:" in said.stdout
