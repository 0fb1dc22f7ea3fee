"""The verbs that write records: what they write, when they do not, and what it does."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from resolver import config as configuration
from resolver.app.compiler import compile_policy
from resolver.cli.main import interdict
from resolver.cli.records import ACTIONS, REASONS, one_line, to_yaml, write_record
from resolver.policy.additions import Exemption, ExemptionReason, LocalRule
from resolver.policy.documents import ORDER_ACTIONS
from resolver.policy.generation import Generation, View
from resolver.policy.judge import Reached, judge_answer, judge_query
from resolver.policy.source import read
from resolver.wire import name as names

Run = Callable[..., Result]
Answering = Callable[[Path, dict[str, object]], Any]
WHO = ["--owner", "desk", "--reason", "tax portal"]
WHY = ["--reason", "law-enforcement", "--grantor", "CIO"]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of one's own, with nothing in it."""
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


@pytest.fixture
def config(own: Path) -> Path:
    """A configuration that reads it beside the shipped catalogue."""
    file = own.parent / "interdict.yaml"
    file.write_text(
        f"state_dir: {own.parent / 'state'}\nupstreams: [{{address: 192.0.2.53}}]\n"
        "groups: [{name: everyone, networks: ['0.0.0.0/0', '::/0']}, {name: phones, networks: [192.0.2.0/25]}]\n"
        f"policy:\n  documents: [shipped, {own}]\n  sinkhole: {{ipv4: [192.0.2.80]}}\n"
    )
    return file


@pytest.fixture
def run(config: Path) -> Run:
    """Runs a verb with that configuration."""

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(interdict, [*words, "--config", str(config)])

    return invoke


def only_file(folder: Path) -> Path:
    """The one file below a folder."""
    (found,) = (file for file in folder.rglob("*") if file.is_file())
    return found


def view(config: Path, address: str = "192.0.2.200") -> View:
    """What a client is held to by that configuration, now."""
    read_config = configuration.read(config.read_text(), str(config))
    compiled = compile_policy(read_config, str(config), serial=1, at=time.time())
    return Generation(memoryview(bytearray(compiled.octets))).view_of(bytes(map(int, address.split("."))), time.time())


def passes(name: str, held: View, *aliases: str) -> bool:
    """Whether a name is answered as it is, where its answer leads over these aliases."""
    wire = names.from_text(name)
    verdict = judge_query(wire, held)
    verdict = judge_answer(wire, verdict, Reached(tuple(map(names.from_text, aliases))), held, 1)
    return verdict is None or verdict.passes


# ---- what a false positive costs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "aliases", "allowed"),
    [
        ("wechat.com", [], "wechat.com"),
        ("cdn.wechat.com", [], "wechat.com"),
        ("shop.example.org", ["edge.wechat.com"], "shop.example.org"),
        ("shop.example.org", ["edge.wechat.com"], "edge.wechat.com"),
        ("shop.example.org", ["cdn.example.net", "edge.wechat.com"], "cdn.example.net"),
        ("shop.example.org", ["cdn.example.net", "edge.wechat.com"], "edge.wechat.com"),
    ],
)
def test_a_false_positive_is_mended_in_a_minute(
    asked: str, aliases: list[str], allowed: str, run: Run, config: Path, own: Path
) -> None:
    """One command, one compile, and the name passes, at whichever link of its chain of aliases it was allowed."""
    (own / "rules").mkdir()
    assert not passes(asked, view(config), *aliases)
    begun = time.monotonic()

    said = run("allow", allowed, *WHO)
    held = view(config)

    assert (said.exit_code, said.stderr) == (0, "")
    assert passes(asked, held, *aliases)
    assert not passes("weixin.qq.com", held)
    assert time.monotonic() - begun < 60


def test_a_block_withholds_and_an_exemption_spares(run: Run, config: Path) -> None:
    """The first for everybody, the second for one device alone."""
    assert run("block", "phish.example.org", *WHO, "--for", "7d").exit_code == 0
    assert run("exempt", "--device", "192.0.2.201", "--app", "tiktok", *WHY).exit_code == 0

    assert not passes("a.phish.example.org", view(config))
    assert passes("tiktok.com", view(config, "192.0.2.201"))
    assert not passes("tiktok.com", view(config, "192.0.2.202"))
    assert not passes("wechat.com", view(config, "192.0.2.201"))


# ---- what is written ------------------------------------------------------------------------------------------------


def test_an_allow_is_one_file_that_says_what_was_asked_for(run: Run, own: Path) -> None:
    """Thirty days from now, in the time zone of who asks; the path is told, and what to do next."""
    before = datetime.now().astimezone().replace(microsecond=0)
    said = run(
        "allow", "CDN.Example.org.", "b.example.org", "--exact", "--group", "phones", "--owner", " desk: J. Doe ",
        "--reason", 'says "no" # 4711',
    )  # fmt: skip

    file = only_file(own)
    rule = read(file.read_text(), "x", LocalRule)
    assert file == own / "rules" / f"allow-cdn-example-org-{before:%Y-%m-%d}.yaml"
    assert rule.since is not None
    assert before <= rule.since <= before + timedelta(minutes=1)
    assert rule.until - rule.since == timedelta(days=30)
    assert rule.since.utcoffset() == rule.since.astimezone().utcoffset()
    assert rule.model_dump(exclude={"since", "until", "id", "action", "addresses"}) == {
        "verdict": "allow", "names": ("cdn.example.org", "b.example.org"), "match": "exact", "groups": ("phones",),
        "owner": "desk: J. Doe", "reason": 'says "no" # 4711',
    }  # fmt: skip
    assert said.stdout.splitlines() == [
        f"wrote {file}: allow cdn.example.org, b.example.org, for phones, until {rule.until.isoformat()}",
        "it is not in force yet: interdict reload",
    ]


def test_an_exemption_is_one_file_that_says_what_was_asked_for(run: Run, own: Path) -> None:
    """With all that was given, until the instant that was given."""
    until = (datetime.now().astimezone() + timedelta(days=20)).replace(microsecond=0)
    said = run(
        "exempt", "--device", "2001:db8::7", "--device", "192.0.2.0/30", "--device", "phone-7", "--group", "phones",
        "--order", "ca-tbs-2023-02-28", "--app", "tiktok", "--reason", "other", "--explanation", "étude",
        "--grantor", "CIO", "--until", until.isoformat(),
    )  # fmt: skip

    found = read(only_file(own / "exemptions").read_text(), "x", Exemption)
    assert said.exit_code == 0
    assert list(map(str, found.devices)) == ["2001:db8::7/128", "192.0.2.0/30", "phone-7"]
    assert found.groups == ("phones",)
    assert (found.orders, found.apps) == (("ca-tbs-2023-02-28",), ("tiktok",))
    assert (found.reason, found.explanation, found.grantor) == (ExemptionReason.OTHER, "étude", "CIO")
    assert found.expires == until


def test_nothing_is_ever_written_over(run: Run, own: Path) -> None:
    """The same again gets a number; ids stay short enough whatever the name."""
    for _ in range(3):
        assert run("allow", "a.example.org", *WHO).exit_code == 0
    long = ".".join(["abcdefghijklmnopqrstuvwxyz"] * 5)
    assert run("block", long, *WHO).exit_code == 0

    stems = sorted(file.stem for file in (own / "rules").iterdir())
    day = datetime.now().astimezone().strftime("%Y-%m-%d")
    allows = [f"allow-a-example-org-{day}{number}" for number in ("", "-2", "-3")]
    assert stems[:3] == allows
    assert len(stems[3]) <= 60
    assert run("check").exit_code == 0


def test_records_written_at_once_do_not_meet(config: Path, own: Path) -> None:
    """Each gets a file of its own, and none is lost."""
    read_config = configuration.read(config.read_text(), str(config))
    fields = {"verdict": "block", "names": ["a.example.org"], "owner": "a", "until": "2900-01-01T00:00:00Z"}
    (own / "rules").mkdir()

    with ThreadPoolExecutor(3) as pool:
        written = [
            pool.submit(write_record, read_config, "rules", "block", {**fields, "reason": f"case {i}"})
            for i in range(3)
        ]
        paths = {one.result() for one in written}

    assert {read(path.read_text(), "x", LocalRule).reason for path in paths} == {f"case {i}" for i in range(3)}


def test_a_warning_keeps_no_record_away(run: Run) -> None:
    """Who withholds a provider's whole estate may mean it; `interdict check` tells him."""
    assert run("block", "amazonaws.com", *WHO).exit_code == 0
    assert "warning: rule block-amazonaws-com" in run("check").stderr


def test_another_folder_may_be_chosen(run: Run, config: Path, own: Path) -> None:
    """Of the folders that are read."""
    other = own.parent / "other"
    (other / "rules").mkdir(parents=True)
    (own / "rules").mkdir()
    config.write_text(config.read_text().replace(str(own), f"{own}, {other}"))

    said = run("allow", "a.example.org", *WHO, "--folder", str(other))

    assert said.exit_code == 0
    assert only_file(other).parent == other / "rules"


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "mend"),
    [
        (["allow", "a.example.org", "--owner", "x"], "--reason"),
        (["allow", *WHO], "NAME..."),
        (["allow", "a..b", *WHO], "write a name such as example.org"),
        (["allow", "*.example.org", *WHO], 'write "example.org"'),
        (["allow", "org", *WHO], "is a whole top-level domain"),
        (["allow", "a.example.org", *WHO, "--for", "soon"], "write a whole number and a unit"),
        (["allow", "a.example.org", *WHO, "--for", "999999999d"], "that is too long"),
        (["allow", "a.example.org", *WHO, "--until", "2040-01-01T00:00"], "has no offset from UTC"),
        (["allow", "a.example.org", *WHO, "--until", "2040-01-01T00:00:00Z", "--for", "1d"], "keep one of the two"),
        (["allow", "a.example.org", *WHO, "--until", "2001-01-01T00:00:00Z"], "it ends before it begins"),
        (["allow", "a.example.org", "--owner", "x", "--reason", "a\nb"], "write one line"),
        (["allow", "a.example.org", "--owner", "x", "--reason", "a\u2028b"], "write one line"),
        (["allow", "a.example.org", "--owner", "x\x1b[2J", "--reason", "b"], "control characters"),
        (["allow", "a.example.org", "--owner", " ", "--reason", "b"], "this is empty"),
        (["allow", "a.example.org", "--owner", "x" * 201, "--reason", "b"], "write at most 200"),
        (["allow", "a.example.org", *WHO, "--group", "phone"], 'no group is called "phone"; write one of: everyone'),
        (["allow", "co.uk", *WHO], "co.uk is a public suffix"),
        (["block", "cloudfront.net", *WHO], "write match: exact"),
        (["block", "a.example.org", *WHO, "--action", "passthru"], "nxdomain"),
        (["exempt", "--app", "tiktok", *WHY], "name whom with --device or --group"),
        (["exempt", "--device", "192.0.2.17", *WHY], "a blanket exemption is not possible"),
        (["exempt", "--device", "192.0.2.0/8", "--app", "tiktok", *WHY], "has bits set after the prefix"),
        (["exempt", "--device", "10.0.0.0/8", "--app", "tiktok", *WHY], "make a group of them"),
        (["exempt", "--device", "192.0.2.17", "--app", "tiktak", *WHY], 'did you mean "tiktok"?'),
        (["exempt", "--device", "192.0.2.17", "--order", "ca", *WHY], "no order has the id"),
        (["exempt", "--device", "192.0.2.17", "--app", "tiktok", *WHY, "--for", "400d"], "or earlier, and renew it"),
        (["exempt", "--group", "everyone", "--order", "ca-tbs-2023-02-28", *WHY], "which is a blanket exemption"),
        (["exempt", "--device", "192.0.2.17", "--app", "tiktok", "--reason", "other", "--grantor", "x"],
         '"other" is to be explained'),
        (["exempt", "--device", "192.0.2.17", "--app", "tiktok", "--reason", "fun", "--grantor", "x"],
         "law-enforcement"),
    ],
)  # fmt: skip
def test_what_would_be_refused_is_not_written(words: list[str], mend: str, run: Run, own: Path) -> None:
    """One sentence with the mend, exit code 2, and no trace in the folder."""
    said = run(*words)

    assert (said.exit_code, said.stdout) == (2, "")
    assert mend in " ".join(said.stderr.split())
    assert list(own.rglob("*")) == []


def test_the_error_is_that_of_check(run: Run, own: Path) -> None:
    """Word for word what `interdict check` says with the record in place, at the same place of the same file."""
    words = ["exempt", "--device", "192.0.2.17", "--app", "tiktok", *WHY, "--for", "400d"]
    assert run(*words[:-2]).exit_code == 0
    file = only_file(own)
    lasting = timedelta(days=400) - timedelta(days=180)
    granted = read(file.read_text(), "x", Exemption).expires
    file.write_text(file.read_text().replace(granted.isoformat(), (granted + lasting).isoformat()))

    checked = run("check").stderr
    file.unlink()
    said = run(*words).stderr

    assert checked.startswith(f"{file}:7:10: it lasts longer than the ")
    assert said.split("write")[0] == checked.split("write")[0]


def test_without_a_folder_of_ones_own_the_mend_is_told(run: Run, config: Path, own: Path) -> None:
    """Exit code 1 and the line to write, whether there is none, it is missing, or another one is meant."""
    whole = config.read_text()

    config.write_text(whole.replace(f"[shipped, {own}]", "[shipped]"))
    none = run("allow", "a.example.org", *WHO)
    config.write_text(whole)
    foreign = run("allow", "a.example.org", *WHO, "--folder", str(own.parent))
    own.rmdir()
    missing = run("allow", "a.example.org", *WHO)

    assert (none.exit_code, foreign.exit_code, missing.exit_code) == (1, 1, 1)
    assert "write policy: {documents: [shipped, /etc/interdict/own]}, and make that folder" in none.stderr
    assert f"{own.parent} is not among policy.documents" in foreign.stderr
    assert f"can not write to {own}" in missing.stderr
    assert "make the folder" in missing.stderr


def test_a_server_that_does_not_run_does_not_lose_the_record(run: Run, own: Path) -> None:
    """It is written and told; then that nobody put it into force, exit code 1."""
    said = run("allow", "a.example.org", *WHO, "--reload")

    assert said.exit_code == 1
    assert said.stdout.startswith(f"wrote {only_file(own)}: ")
    assert "no server is running" in said.stderr


@pytest.mark.parametrize(
    ("answer", "code", "out", "err"),
    [
        ({"ok": True, "generation": 7}, 0, "generation 7 is in force", ""),
        (
            {"ok": False, "generation": 6, "problems": ["x.yaml:1:1: odd"]}, 1, "",
            "x.yaml:1:1: odd\nnot reloaded; generation 6 stays in force\n",
        ),
    ],
)  # fmt: skip
def test_a_reload_tells_how_it_went(
    answer: dict[str, object], code: int, out: str, err: str, run: Run, supervisor: Answering, own: Path
) -> None:
    """In force, or the problems and exit code 1; the record is written in either case."""
    server = supervisor(own.parent / "state" / "run", answer)
    said = run("allow", "a.example.org", *WHO, "--reload")
    server.join()

    assert (said.exit_code, said.stderr, server.heard) == (code, err, {"verb": "reload"})
    assert said.stdout.splitlines()[1:] == ([out] if out else [])
    assert only_file(own / "rules")


@pytest.mark.parametrize(
    "words", [["allow", "a.example.org", *WHO], ["exempt", "--device", "192.0.2.17", "--app", "tiktok", *WHY]]
)
def test_programs_are_told_what_was_written(words: list[str], run: Run, own: Path) -> None:
    """Its file, id and end; and what a server says to it, where one was asked."""
    said = run(*words, "--for", "5d", "--json")
    asked = run(*words, "--for", "5d", "--json", "--reload")
    found, reload = json.loads(said.stdout), json.loads(asked.stdout)["reload"]

    assert (said.exit_code, said.stderr, asked.exit_code, asked.stderr) == (0, "", 1, "")
    assert (Path(found["path"]).stem, found["reload"]) == (found["id"], None)
    assert found["until"] in Path(found["path"]).read_text()
    assert reload["ok"] is False
    assert "no server is running" in reload["problems"][0]


# ---- lists ----------------------------------------------------------------------------------------------------------


def test_records_are_listed_with_how_they_stand(run: Run, own: Path) -> None:
    """What ends first comes first, what ended last."""
    (own / "rules").mkdir()
    for id_, since, until in (("past", "2001", "2002"), ("coming", "2900", "2901")):
        fields = {
            "id": id_, "verdict": "block", "names": [f"{id_}.example"], "owner": "a", "reason": "b",
            "since": f"{since}-01-01T00:00:00Z", "until": f"{until}-01-01T00:00:00Z",
        }  # fmt: skip
        (own / "rules" / f"{id_}.yaml").write_text(to_yaml(fields))
    run("allow", "late.example.org", *WHO, "--for", "20d")
    run("allow", "soon.example.org", *WHO, "--for", "6d", "--group", "phones")

    text, found = run("rules").stdout.splitlines(), json.loads(run("rules", "--json").stdout)

    assert [line.split()[0].rpartition("-20")[0] or line.split()[0] for line in text] == [
        "id", "allow-soon-example-org", "allow-late-example-org", "coming", "past"
    ]  # fmt: skip
    assert "in force, ends in 6 days" in text[1]
    assert "phones" in text[1]
    assert "everybody" in text[2]
    assert "ended 2002-01-01 00:00 UTC" in text[4]
    assert [one["state"] for one in found] == ["in-force", "in-force", "not-yet", "expired"]
    assert found[0]["names"] == ["soon.example.org"]


def test_exemptions_are_listed(run: Run) -> None:
    """Who is spared what, and why."""
    run("exempt", "--device", "192.0.2.17", "--app", "tiktok", *WHY)

    text, found = run("exemptions").stdout, json.loads(run("exemptions", "--json").stdout)

    assert "in force, ends in 180 days" in text
    assert "192.0.2.17 " in text
    assert (found[0]["state"], found[0]["devices"], found[0]["apps"]) == ("in-force", ["192.0.2.17/32"], ["tiktok"])


# ---- properties -----------------------------------------------------------------------------------------------------

_TRAPS = (
    "null", "true", "no", "~", "1.5", "0x1F", "- a", "a: b", "a #b", "{a}", "[b", "*x", "&y", "!z", "|", "'", '"', "\\",
    "\\n", "%", "@a", "2026-01-01", "a\u00a0b", "\U0001f600", "\u200d", "y", "...",
)  # fmt: skip
TEXTS = st.one_of(st.text(min_size=1, max_size=80), st.sampled_from(_TRAPS))


def taken(text: str) -> str | None:
    """What a verb makes of a text, None where it refuses it."""
    try:
        return one_line(text)
    except ValueError:
        return None


@given(TEXTS, TEXTS, st.lists(st.from_regex(r"[a-z0-9_-]{1,20}(\.[a-z0-9-]{1,10}){1,3}", fullmatch=True), min_size=1))
def test_what_is_written_is_read_back_equal(owner: str, reason: str, listed: Sequence[str]) -> None:
    """Whatever the texts: by the product's reader, and by one of YAML 1.1."""
    lines = [taken(owner), taken(reason)]
    fields: Mapping[str, str | Sequence[str]] = {
        "id": "x", "verdict": "allow", "names": listed, "owner": lines[0] or "x", "reason": lines[1] or "x",
        "until": "2040-01-01T00:00:00-05:00",
    }  # fmt: skip
    text = to_yaml(fields)

    plain = yaml.safe_load(text)
    assert {key: plain[key] for key in fields if key != "until"} == {k: v for k, v in fields.items() if k != "until"}
    unreadable = any(ord(c) & 0xFFFE == 0xFFFE for line in lines if line for c in line)
    if not unreadable and all(any(c.isalpha() for c in name) for name in listed):
        rule = read(text, "x", LocalRule)
        assert (rule.owner, rule.reason, list(rule.names)) == (fields["owner"], fields["reason"], list(listed))


@given(TEXTS)
def test_a_line_is_one_line(text: str) -> None:
    """What is taken has no character that ends a line or acts on a terminal, and nothing around it."""
    line = taken(text)

    assert line is None or (line == line.strip() and len(line.splitlines()) == 1 and "\x1b" not in line)


def test_the_choices_of_the_verbs_are_those_of_the_documents() -> None:
    """Written out there, so that help comes fast."""
    assert tuple(action.value for action in ORDER_ACTIONS) == ACTIONS
    assert tuple(reason.value for reason in ExemptionReason) == REASONS


@pytest.mark.parametrize(("verb", "mend"), [("rules", "`interdict allow`"), ("exemptions", "`interdict exempt`")])
def test_where_there_are_no_records_it_is_told_how_to_write_one(verb: str, mend: str, run: Run, own: Path) -> None:
    """People get a sentence, programs an empty list."""
    (own / "rules").mkdir()

    assert mend in run(verb).stdout
    assert json.loads(run(verb, "--json").stdout) == []
