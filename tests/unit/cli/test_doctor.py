"""`interdict doctor` tells what it found and the mend, to people and to programs, with an exit code of its own."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from resolver.cli.main import interdict
from tests.support.resolving import Resolving, says
from tests.support.server import free_port

Answering = Callable[[Path, dict[str, object]], Any]


@pytest.fixture
def upstream() -> Iterator[Resolving]:
    """It validates, and has nothing to say over TCP."""
    with Resolving(says(), tcp="refuses") as started:
        yield started


@pytest.fixture
def file(tmp_path: Path, upstream: Resolving) -> Path:
    """A configuration whose addresses are free and whose upstream answers over UDP alone."""
    written = tmp_path / "interdict.yaml"
    host, port = upstream.address
    written.write_text(f"""\
listen: ["127.0.0.1:{free_port()}"]
metrics: {{listen: "127.0.0.1:{free_port()}"}}
state_dir: {tmp_path / "state"}
upstreams: [{{address: {host}, port: {port}}}]
""")
    return written


def doctor(file: Path, *words: str) -> Result:
    return CliRunner().invoke(interdict, ["doctor", "--config", str(file), "--time-out", "0.3", *words])


def found(file: Path, *words: str) -> dict[str, tuple[str, str]]:
    """(outcome, what was found) by check."""
    told = json.loads(doctor(file, "--json", *words).stdout)
    return {one["check"]: (one["outcome"], one["found"]) for one in told["findings"]}


def test_what_is_as_it_should_be_is_fine_and_what_is_not_has_its_mend(file: Path, upstream: Resolving) -> None:
    """An upstream that does not answer over TCP is a failure: exit code 1, and how to mend it."""
    said = doctor(file)

    assert (said.exit_code, said.stderr) == (1, "")
    assert f"upstream {upstream.address[0]}:{upstream.address[1]} TCP" in said.stdout
    assert "start the resolver there" in said.stdout
    assert "1 failed" in said.stdout


def test_programs_get_every_finding(file: Path) -> None:
    """In the order in which people see them, with the outcome as a word."""
    told = json.loads(doctor(file, "--json").stdout)

    assert told["ok"] is False
    assert {one["outcome"] for one in told["findings"]} <= {"ok", "warn", "fail", "skipped"}
    checks = [one["check"] for one in told["findings"]]
    assert checks[0].startswith("port UDP 127.0.0.1:")
    assert checks[-1] == "server"
    assert all(one["mend"] for one in told["findings"] if one["outcome"] in ("warn", "fail"))


def test_each_area_is_looked_at(file: Path) -> None:
    """Nothing is left out because something else is wrong."""
    checks = " ".join(found(file))

    for area in ("port", "clock", "orders and lists", "UDP", "TCP", "validation", "interception", "receive buffer",
                 "send buffer", "open files", "state folder", "disk", "server"):  # fmt: skip
        assert area in checks


def test_nothing_leaves_the_machine_where_all_upstreams_are_on_it(file: Path) -> None:
    """The way out is not looked at then."""
    assert found(file)["interception"][0] == "skipped"


def test_a_bogus_name_that_is_answered_is_a_failure(file: Path, upstream: Resolving) -> None:
    """Where a name for it is given."""
    host, port = upstream.address

    assert found(file, "--bogus", "bogus.example")[f"upstream {host}:{port} validation"][0] == "fail"


def test_a_policy_that_can_not_be_compiled_is_a_failure(file: Path) -> None:
    """Told by its first mistake; all else is still looked at."""
    file.write_text(file.read_text() + "policy: {orders: [{order: nowhere, groups: [everyone]}]}\n")

    outcome, message = found(file)["orders and lists"]
    assert outcome == "fail"
    assert "nowhere" in message


def test_an_account_that_is_not_there_is_a_failure(file: Path) -> None:
    """With the command that makes it."""
    file.write_text(file.read_text() + "user: no-such-account\n")
    said = doctor(file)

    assert "useradd --system no-such-account" in said.stdout
    assert found(file)["account"][0] == "fail"


def test_a_certificate_that_is_not_there_is_a_failure(file: Path) -> None:
    """Where encrypted listeners want one."""
    file.write_text(
        file.read_text() + f'encrypted: {{certificate: a.pem, key: b.pem, dot: ["127.0.0.1:{free_port()}"]}}'
    )

    assert found(file)["certificate a.pem"] == ("fail", "a.pem is not there")


def test_a_configuration_that_can_not_be_read_ends_it(file: Path) -> None:
    """Exit code 2: there is nothing to look at."""
    file.write_text("listne: []\n")
    said = doctor(file)

    assert (said.exit_code, said.stdout) == (2, "")
    assert "did you mean" in said.stderr


def test_a_running_server_is_asked(file: Path, supervisor: Answering, tmp_path: Path) -> None:
    """What it holds is compared with what is written."""
    status: dict[str, object] = {
        "version": "0.1.0", "workers": 1, "generation": 3, "digest": "other", "hits_lost": 0, "metrics": None,
        "last_reload": {}, "processes": [],
    }  # fmt: skip
    server = supervisor(tmp_path / "state" / "run", status)
    told = found(file)
    server.join()

    assert told["server"][0] == "ok"
    assert told["policy in force"] == ("warn", "generation 3 is not what is written now")


@pytest.mark.parametrize(("words", "code"), [((), 0), (("--strict",), 1)])
def test_warnings_fail_only_where_that_is_asked_for(words: tuple[str, ...], code: int, file: Path) -> None:
    """Such as a state folder that is open to others."""
    state = file.parent / "state"
    state.mkdir()
    state.chmod(0o755)
    with Resolving(says()) as whole:
        host, port = whole.address
        text = file.read_text()
        file.write_text(f"{text[: text.index('upstreams')]}upstreams: [{{address: {host}, port: {port}}}]\n")
        said = doctor(file, *words)

    assert "open to everybody" in said.stdout
    assert said.exit_code == code
