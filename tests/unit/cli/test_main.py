"""The command as people and programs meet it: what is printed where, and the exit codes."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from resolver import __version__
from resolver.cli.main import interdict

Run = Callable[..., Result]
README = Path(__file__).parents[3] / "README.md"
VERBS = sorted(interdict.commands)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command with a configuration of its own: `run(text, "explain", "example.org")`."""

    def invoke(text: str, *words: str) -> Result:
        file = tmp_path / "interdict.yaml"
        file.write_text(f"state_dir: {tmp_path / 'state'}\nupstreams: [{{address: 192.0.2.53}}]\n{text}")
        return CliRunner().invoke(interdict, [*words, "--config", str(file)])

    return invoke


def test_version_says_whether_the_hot_path_is_compiled() -> None:
    """Compiled or plain is never a guess."""
    said = CliRunner().invoke(interdict, ["--version"])

    assert said.exit_code == 0
    assert re.fullmatch(
        rf"interdict {re.escape(__version__)}, (compiled|plain) hot path, Python 3\.\d+\.\S+\n", said.output
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_tells_its_exit_codes_and_shows_an_example(verb: str) -> None:
    """--help is enough to use a verb."""
    said = CliRunner().invoke(interdict, [verb, "--help"])

    assert said.exit_code == 0
    assert "Exit codes:" in said.output
    assert re.search(rf"Examples?:\n\s.*interdict {verb}", said.output)


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
    "words", [["check"], ["explain", "example.org"], ["status"], ["tail"], ["reload"], ["query", "a.b"]]
)
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


# ---- explain --------------------------------------------------------------------------------------------------------

EXPLAIN_KEYS = {
    "": {"name", "qtype", "at", "digest", "client", "orders", "rules", "idle", "outcome", "reply", "recorded"},
    "client": {"address", "allowed", "allowed_network", "group", "group_network"},
    "orders": {
        "order", "title", "standing", "mode", "action", "groups", "effective", "expires", "since", "until",
    },
    "rules": {
        "name", "match", "app", "order", "mode", "action", "purpose", "confidence", "collateral", "attribution",
    },
    "idle": {"name", "match", "app", "order", "reason", "why"},
    "reply": {"rcode", "ede", "ede_meaning", "extra_text", "addresses", "ttl"},
}  # fmt: skip


def test_explain_a_banned_name(run: Run) -> None:
    """Every step is told, down to the code in the answer."""
    said = run("", "explain", "weixin.qq.com")

    assert said.exit_code == 0
    for expected in (
        "weixin.qq.com A",
        "127.0.0.1 is allowed (by 127.0.0.0/8)",
        "everyone (by 0.0.0.0/0)",
        "ca-tbs-2023-10-30: in force since 2023-10-30T00:00:00-04:00 (enforce, nxdomain, for everyone)",
        "suffix weixin.qq.com: app wechat (core, confidence high), order ca-tbs-2023-10-30, enforce nxdomain",
        "  <- decides",
        'withheld: NXDOMAIN, TTL 30 s, EDE 16 Censored (RFC 8914 §4.17), "order ca-tbs-2023-10-30, app wechat"',
    ):
        assert expected in said.stdout


def test_explain_in_json_has_stable_keys(run: Run) -> None:
    """A program finds each step under its key, for a name with a rule and an idle entry."""
    found = json.loads(run("", "explain", "weixin.qq.com", "--json").stdout)

    assert set(found) == EXPLAIN_KEYS[""]
    for key in ("client", "reply"):
        assert set(found[key]) == EXPLAIN_KEYS[key]
    for key in ("orders", "rules", "idle"):
        assert found[key]
        assert all(set(entry) == EXPLAIN_KEYS[key] for entry in found[key])
    assert (found["outcome"], found["recorded"], found["reply"]["ede"]) == ("withheld", True, 16)
    assert found["orders"][1]["effective"] == "2023-10-30T00:00:00-04:00"


def test_explain_a_shared_parent(run: Run) -> None:
    """qq.com is let through, with the reason that the catalogue gives."""
    said = run("", "explain", "qq.com")
    found = json.loads(run("", "explain", "qq.com", "--json").stdout)

    assert said.exit_code == 0
    assert "qq.com is kept as never for wechat: the whole QQ" in said.stdout
    assert "allowed: an upstream is asked" in said.stdout
    assert (found["outcome"], found["reply"], found["rules"]) == ("forwarded", None, [])
    assert "never" in [entry["reason"] for entry in found["idle"]]


@pytest.mark.parametrize(
    ("at", "outcome"),
    [
        ("2023-10-29T12:00:00Z", "forwarded"),
        ("2023-10-29", "forwarded"),
        ("2023-10-30", "forwarded"),  # midnight UTC: four hours before Ottawa's
        ("2023-10-30T03:59:59Z", "forwarded"),
        ("2023-10-30T00:00:00-04:00", "withheld"),
        ("2023-10-31", "withheld"),
    ],
)
def test_explain_at_a_moment(run: Run, at: str, outcome: str) -> None:
    """An order begins at its instant, neither earlier nor later."""
    found = json.loads(run("", "explain", "weixin.qq.com", "--at", at, "--json").stdout)

    assert found["outcome"] == outcome
    reasons = [entry["reason"] for entry in found["idle"] if entry["name"] == "weixin.qq.com"]
    assert reasons[:1] == (["not-yet"] if outcome == "forwarded" else [])


def test_explain_for_a_client_outside_the_allowed_networks(run: Run) -> None:
    """It is refused, and told nothing about orders."""
    said = run("", "explain", "weixin.qq.com", "--client", "192.0.2.1")

    assert said.exit_code == 0
    assert "192.0.2.1 is not allowed" in said.stdout
    assert "REFUSED, EDE 18 Prohibited" in said.stdout
    assert "ca-tbs" not in said.stdout


@pytest.mark.parametrize(
    ("name", "qtype", "text", "outcome"),
    [
        ("router.home.arpa", "A", "", "local"),
        ("1.0.0.10.in-addr.arpa", "PTR", "", "local"),
        ("1.0.0.10.in-addr.arpa", "PTR", "special_use: {forward: [10.in-addr.arpa]}", "forwarded"),
        ("example.org", "ANY", "", "local"),
    ],
)
def test_explain_a_name_that_stays_here(run: Run, name: str, qtype: str, text: str, outcome: str) -> None:
    """Special-use names are answered by the server itself, unless the configuration hands them back."""
    found = json.loads(run(text, "explain", name, "--type", qtype, "--json").stdout)

    assert found["outcome"] == outcome


def test_explain_a_sinkhole_by_type(run: Run) -> None:
    """The type decides which addresses are answered, and nothing else."""
    text = (
        "policy: {orders: [{order: ca-tbs-2023-10-30, groups: [everyone], action: sinkhole}], "
        "sinkhole: {ipv4: [192.0.2.80]}}"
    )
    for qtype, addresses in (("A", ["192.0.2.80"]), ("AAAA", [])):
        reply = json.loads(run(text, "explain", "wechat.com", "--type", qtype, "--json").stdout)["reply"]

        assert (reply["rcode"], reply["ede_meaning"], reply["addresses"]) == ("NOERROR", "Forged Answer", addresses)


# ---- check ----------------------------------------------------------------------------------------------------------


def test_check_tells_what_would_be_in_force(run: Run) -> None:
    """A sound configuration is summed up; what it leaves out is a note."""
    said = run("", "check")

    assert (said.exit_code, said.stderr) == (0, "")
    assert re.search(
        r"ca-tbs-2023-10-30 +in force since 2023-10-30T00:00:00-04:00 +enforce +nxdomain +everyone", said.stdout
    )
    assert re.search(r"wechat +\d+\n", said.stdout)
    assert "put into force by no line of policy.orders: " in said.stdout
    assert re.search(r"sound: .*interdict\.yaml, \d+ names, digest [0-9a-f]{64}\n", said.stdout)


def test_check_in_json_has_stable_keys(run: Run) -> None:
    """`ok` and `problems` are always there, the rest where the configuration is sound."""
    found = json.loads(run("", "check", "--json").stdout)

    assert set(found) == {
        "ok", "problems", "config", "digest", "names", "orders", "groups", "apps", "warnings", "notes",
    }  # fmt: skip
    assert set(found["orders"][0]) == {
        "order", "title", "groups", "mode", "action", "effective", "expires", "standing", "since",
        "until", "names",
    }  # fmt: skip
    assert (found["ok"], found["problems"], found["orders"][0]["standing"]) == (True, [], "in-force")


def test_warnings_fail_only_where_they_are_meant_to(run: Run) -> None:
    """Exit code 0 with warnings on standard error; 1 with --strict."""
    text = "groups: [{name: everyone, networks: [192.0.2.0/24]}]"

    said, strict = run(text, "check"), run(text, "check", "--strict")

    assert (said.exit_code, strict.exit_code) == (0, 1)
    assert said.stderr == strict.stderr
    assert said.stderr.startswith("warning: group everyone: nobody in 192.0.2.0/24 may ask")


def test_check_tells_broken_documents_in_both_forms(run: Run, tmp_path: Path) -> None:
    """Problems of documents come with their places, and exit code 2."""
    (tmp_path / "own" / "apps").mkdir(parents=True)
    (tmp_path / "own" / "apps" / "chat.yaml").write_text("id: chat\n")
    text = f"policy: {{documents: [shipped, {tmp_path / 'own'}]}}"

    said, program = run(text, "check"), run(text, "check", "--json")

    assert (said.exit_code, program.exit_code) == (2, 2)
    assert f"{tmp_path}/own/apps/chat.yaml:1:1: " in said.stderr
    found = json.loads(program.stdout)
    assert found["ok"] is False
    assert {problem["source"] for problem in found["problems"]} == {f"{tmp_path}/own/apps/chat.yaml"}
    assert set(found["problems"][0]) == {"source", "line", "column", "message"}


def test_an_order_nobody_wrote_is_a_problem(run: Run) -> None:
    """The nearest known order is offered."""
    said = run("policy: {orders: [{order: ca-tbs-2023-10-03, groups: [everyone]}]}", "check")

    assert said.exit_code == 2
    assert 'did you mean "ca-tbs-2023-10-30"?' in said.stderr


# ---- what needs a server --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["status", "reload"])
def test_a_server_that_does_not_run_is_told(run: Run, verb: str, tmp_path: Path) -> None:
    """Exit code 1, and how to start one."""
    said = run("", verb)

    assert (said.exit_code, said.stdout) == (1, "")
    assert f"no server is running with the state folder {tmp_path / 'state'}; start one" in said.stderr


def test_hits_that_nobody_recorded_are_told(run: Run) -> None:
    """Exit code 1, and what to do, whether there is no store yet or none is wanted."""
    for text, mend in (("", "start `interdict serve`"), ("hits: {sqlite: false}", "or write hits: {sqlite: true}")):
        said = run(text, "tail", "--no-follow")

        assert (said.exit_code, said.stdout) == (1, "")
        assert mend in said.stderr


def test_serve_refuses_a_broken_configuration(run: Run) -> None:
    """Every reason on standard error, exit code 2, nothing started."""
    said = run("policy: {orders: [{order: nowhere, groups: [everyone]}]}", "serve")

    assert said.exit_code == 2
    assert '"nowhere"' in said.stderr
    assert "ca-tbs-2023-10-30" in said.stderr


def test_the_example_of_the_readme_is_sound(run: Run) -> None:
    """Whoever copies it gets a configuration that loads, without a warning."""
    examples = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)

    assert examples
    for example in examples:
        kept = "".join(line + "\n" for line in example.splitlines() if not line.startswith("upstreams:"))
        said = run(kept, "check", "--strict")
        assert (said.exit_code, said.stderr) == (0, "")
