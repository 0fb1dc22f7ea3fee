"""The command as people and programs meet it: what is printed where, and the exit codes."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from resolver import __version__
from resolver.cli.main import interdict, profile

Run = Callable[..., Result]
VERBS = sorted(interdict.commands)


def test_version_says_whether_the_hot_path_is_compiled() -> None:
    """Compiled or plain is never a guess."""
    said = CliRunner().invoke(interdict, ["--version"])

    assert said.exit_code == 0
    assert re.fullmatch(
        rf"interdict {re.escape(__version__)}, (compiled|plain) hot path, Python 3\.\d+\.\S+\n", said.output
    )


@pytest.mark.parametrize(
    "verb", [*VERBS, *(f"profile {name}" for name in profile.list_commands(click.Context(profile)))]
)
def test_every_verb_tells_its_exit_codes_and_shows_an_example(verb: str) -> None:
    """--help is enough to use a verb."""
    said = CliRunner().invoke(interdict, [*verb.split(), "--help"])

    assert said.exit_code == 0
    assert "Exit codes:" in said.output
    assert re.search(rf"Examples?:\n\s.*interdict {verb}", said.output)


def test_the_help_has_each_verb_in_one_place() -> None:
    """A newcomer reads them by what they are for; none is cut short."""
    said = CliRunner().invoke(interdict, ["--help"], terminal_width=100).output

    found = re.findall(r"^  ([a-z][a-z-]+)  +[A-Z]", said, re.MULTILINE)
    assert sorted(found) == VERBS
    assert "..." not in said.partition("The server:")[2]


@pytest.mark.parametrize(
    "words",
    [["--version"], ["--help"], ["serve", "--help"], ["completion", "bash"], ["explain", "--help"], ["tail", "--help"]],
)
def test_what_only_some_verbs_need_is_not_imported_by_the_others(words: list[str]) -> None:
    """A prompt answer at each completion, and a small `serve`."""
    program = "import sys; from resolver.cli.main import interdict; interdict(standalone_mode=False); "
    told = "print(sorted({m.partition('.')[0] for m in sys.modules} & {'rich', 'pydantic', 'dns', 'yaml', 'sqlite3'}))"
    command = [sys.executable, "-c", program + told, *words]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)

    assert said.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "modules"),
    [
        (["--version"], []),
        (["completion", "bash"], []),
        (["serve", "--help"], ["server"]),
        (["allow", "--help"], ["records", "server"]),
        (["profile", "lint", "--help"], ["network", "profile"]),
        (["forbid"], []),
    ],
)
def test_a_verb_is_imported_when_it_is_asked_for(words: list[str], modules: list[str]) -> None:
    """And no other one with it."""
    program = """
import sys
from resolver.cli.main import interdict
try:
    interdict()
finally:
    found = {name.rpartition(".")[2] for name in sys.modules if name.startswith("resolver.cli.")}
    print(*sorted(found - {"main", "options"}))
"""
    said = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60)

    assert said.stdout.splitlines()[-1].split() == modules, said.stderr


def test_the_verbs_are_known_by_name_before_they_are_imported() -> None:
    """Asked for, each is the command of that name; what is no verb is none."""
    assert [interdict.commands[name].name for name in interdict.commands] == list(interdict.commands)
    assert ("serve" in interdict.commands, "forbid" in interdict.commands) == (True, False)
    assert interdict.commands.get("forbid") is None


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("interdict re", {"reload"}),
        ("interdict profile lin", {"linux", "lint"}),
        ("interdict export un", {"unbound"}),
        ("interdict status --js", {"--json"}),
        ("interdict preview --format pc", {"pcap", "pcapng"}),
    ],
)
def test_a_shell_completes_verbs_and_options(typed: str, expected: set[str]) -> None:
    """Also those of a group that is imported late."""
    words = typed.split()
    environment = {
        "_INTERDICT_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1),
    }  # fmt: skip
    said = CliRunner().invoke(interdict, [], env=environment, prog_name="interdict", complete_var="_INTERDICT_COMPLETE")

    assert {line.partition(",")[2] for line in said.stdout.splitlines()} == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str) -> None:
    """The script calls back the installed command."""
    said = CliRunner().invoke(interdict, ["completion", shell])

    assert said.exit_code == 0
    assert f"_INTERDICT_COMPLETE={shell}_complete" in said.stdout


@pytest.mark.parametrize(
    ("words", "mend"),
    [
        (["explain", "a..b"], "write a name such as"),
        (["explain", "example.org", "--client", "10.1.2"], "write for example 10.1.2.3"),
        (["explain", "example.org", "--at", "yesterday"], "write a date such as"),
        (["explain", "example.org", "--at", "2023-10-30T00:00:00"], "no offset from UTC"),
        (["explain", "example.org", "--answer", "A=b.example"], "write A=192.0.2.1"),
        (["explain", "example.org", "--generation", "0"], "0 is not in the range"),
        (["explain", "example.org", "--type", "BANANA"], "write a mnemonic"),
        (["explain", "example.org", "--type", "AXFR"], "never looked up but answered REFUSED"),
        (["query", "example.org", "BANANA"], "write a mnemonic"),
        (["query", "example.org", "--server", "[192.0.2.1"], "write 192.0.2.53"),
        (["tail", "--client", "10.1.0.0/33"], "write for example"),
        (["completion", "tcsh"], "bash"),
        (["explain"], "NAME"),
        (["forbid"], "forbid"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(words: list[str], mend: str, run: Run) -> None:
    """A slip of the fingers gets the mend on standard error and no traceback."""
    said = run("", *words)

    assert (said.exit_code, said.stdout) == (2, "")
    assert mend in " ".join(said.stderr.split())


@pytest.mark.parametrize(
    "words",
    [
        ["check"], ["explain", "example.org"], ["status"], ["tail"], ["reload"], ["fetch"], ["query", "a.b"],
        ["history"], ["rules"], ["exemptions"], ["export", "rpz"],
        ["allow", "a.example", "--owner", "a", "--reason", "b"],
        ["preview", "ban", "--against", "log"],
    ],
)  # fmt: skip
def test_a_broken_configuration_is_told_at_its_places_and_exits_2(words: list[str], run: Run, tmp_path: Path) -> None:
    """All problems at once, each with file, line and column."""
    said = run("workers: many\nlistne: []\n", *words)

    assert (said.exit_code, said.stdout) == (2, "")
    assert [line.split(": ")[0] for line in said.stderr.splitlines()] == [
        f"{tmp_path}/interdict.yaml:3:10",
        f"{tmp_path}/interdict.yaml:4:1",
    ]


def test_the_configuration_may_come_before_the_verb_or_from_the_environment(tmp_path: Path) -> None:
    """A file that is not there is looked for in both places."""
    file = str(tmp_path / "none.yaml")
    for words, environment in ((["--config", file, "check"], {}), (["check"], {"INTERDICT_CONFIG": file})):
        said = CliRunner().invoke(interdict, words, env=environment)

        assert said.exit_code == 2
        assert said.stderr.startswith(f"{file}:1:1: cannot be read (No such file or directory);")
