"""The verbs `check` and `explain` as people and programs meet them: what is printed where, and the exit codes."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]
README = Path(__file__).parents[3] / "README.md"

# ---- explain --------------------------------------------------------------------------------------------------------

EXPLAIN_KEYS = {
    "": {
        "name", "qtype", "at", "digest", "policy", "client", "orders", "rules", "why", "idle", "answer", "outcome",
        "reply", "recorded",
    },
    "policy": {"digest", "kept", "serial", "compiled_at", "replaced_at", "made_by", "note"},
    "client": {"address", "allowed", "allowed_network", "device", "group", "group_network", "exemptions"},
    "orders": {
        "order", "title", "standing", "mode", "action", "groups", "effective", "expires", "since", "until",
    },
    "rules": {
        "name", "match", "app", "order", "mode", "action", "purpose", "confidence", "collateral", "attribution",
        "holder", "trigger", "exemption", "owner", "reason", "source", "fetched", "since", "until", "records",
        "reached",
    },
    "idle": {"name", "match", "app", "order", "reason", "why"},
    "answer": {"names", "addresses", "nameservers", "strips_ech", "given", "rule"},
    "reply": {
        "rcode", "ede", "ede_meaning", "extra_text", "addresses", "ttl", "records", "target", "truncated", "soa",
    },
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
    for key in ("policy", "client", "reply"):
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
    assert set(found["answer"]) == EXPLAIN_KEYS["answer"]


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


def test_explain_by_a_generation_that_is_not_kept(run: Run) -> None:
    """One sentence, and exit code 1."""
    said = run("", "explain", "example.org", "--generation", "9")

    assert (said.exit_code, said.stdout) == (1, "")
    assert "no generation 9 is kept" in said.stderr


def test_explain_an_answer_that_nobody_gave(run: Run) -> None:
    """Where a name would lead is judged without asking anybody; the past without a history says by what."""
    said = run("", "explain", "example.org", "--answer", "CNAME=wechat.com", "--at", "2026-06-03T14:02Z")

    assert said.exit_code == 0
    assert "its answer   suffix wechat.com: app wechat" in said.stdout
    assert "policy       the documents as they are today: no history reaches back to that moment" in said.stdout


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
        "ok", "problems", "config", "digest", "names", "orders", "groups", "apps", "findings",
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


def test_the_example_of_the_readme_is_sound(run: Run) -> None:
    """Whoever copies it gets a configuration that loads, without a warning."""
    examples = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)

    assert examples
    for example in examples:
        kept = "".join(line + "\n" for line in example.splitlines() if not line.startswith("upstreams:"))
        said = run(kept, "check", "--strict")
        assert (said.exit_code, said.stderr) == (0, "")
