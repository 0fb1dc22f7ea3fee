"""What is sound and surely not meant, as the command tells it."""

import json
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from resolver import config as configuration
from resolver.cli.check import Report, load, look_over
from resolver.cli.main import interdict
from resolver.feeds.copies import State, write_copy
from resolver.policy.findings import Code, Severity
from resolver.policy.steps import Standing
from tests.support.secure_upstream import Certificates

APP = """\
id: chat
names: [Chat]
vendor: Example Corp.
domains:
  - {{name: {name}, match: suffix, purpose: core, confidence: low, use: block, sources: [EX]}}
  - {{name: talk.example, match: exact, purpose: core, confidence: low, use: block, sources: [EX]}}
"""
ORDER = """\
id: ban
jurisdiction: Exampleland
authority: Minister
instrument: Direction 1
announced: 1999-12-01
effective: 2000-01-01T00:00:00Z
expires: {expires}
scope: {{devices: all, level: app}}
basis: own-policy
apps: [chat]
min_confidence: {confidence}
citations: [{{title: Ban, publisher: Gazette, url: "https://www.example.org/ban", read: primary}}]
confidence: medium
title: {{en: A ban, fr: Une interdiction}}
notice: {{en: Ask., fr: Demandez.}}
"""
AT_1999, AT_2000, AT_2002 = 930_000_000.0, 950_000_000.0, 1_010_000_000.0
EVERYONE = "[{order: ban, groups: [everyone]}]"


def write(folder: Path, name: str = "chat.example", confidence: str = "low") -> None:
    """The folder's two documents."""
    order = ORDER.format(confidence=confidence, expires="2001-01-01T00:00:00Z")
    for path, text in (("apps/chat", APP.format(name=name)), ("orders/ban", order)):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / f"{path}.yaml").write_text(text)


def endless(folder: Path, name: str = "chat.example") -> None:
    """The same documents with an order that is in force today."""
    write(folder, name)
    order = ORDER.format(confidence="low", expires="never").replace("expires: never\n", "")
    (folder / "orders" / "ban.yaml").write_text(order)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one app and one order."""
    write(tmp_path)
    return tmp_path


def written(folder: Path, text: str = "", orders: str = EVERYONE, policy: str = "") -> str:
    """A configuration over the folder."""
    if "upstreams" not in text:
        text += "\nupstreams: [{address: 192.0.2.53}]"
    if "state_dir" not in text:
        text += f"\nstate_dir: {folder / 'state'}"
    return f"{text}\npolicy: {{documents: ['{folder}'], orders: {orders}, sinkhole: {{ipv4: [192.0.2.80]}}{policy}}}"


def look(folder: Path, text: str = "", orders: str = EVERYONE, at: float = AT_2000, policy: str = "") -> Report:
    """What is told of a configuration."""
    config = configuration.read(written(folder, text, orders, policy), "i.yaml")
    return look_over(config, "i.yaml", load(config, "i.yaml", at), at)


@pytest.mark.parametrize(
    ("at", "standing"),
    [(AT_1999, Standing.NOT_YET), (AT_2000, Standing.IN_FORCE), (AT_2002, Standing.EXPIRED)],
)
def test_an_order_is_told_as_it_stands(folder: Path, at: float, standing: Standing) -> None:
    """Before, during and after; with the names that it takes."""
    report = look(folder, at=at)

    assert [(line.order, line.standing, line.names) for line in report.orders] == [("ban", standing, 2)]
    assert (report.names, report.apps) == (2, {"chat": 2})


def test_a_plain_configuration_has_no_warnings(folder: Path) -> None:
    """Nothing is odd about one order for everyone."""
    assert look(folder).findings == ()


@pytest.mark.parametrize(
    ("text", "orders", "at", "warning"),
    [
        ("", EVERYONE, AT_2002, "order ban: is expired since 2001-01-01T00:00:00"),
        (
            "groups: [{name: everyone, networks: ['0.0.0.0/0', '::/0']}, {name: labs, networks: ['203.0.113.0/24']}]",
            "[{order: ban, groups: [everyone, labs]}]",
            AT_2000,
            "group labs: nobody in 203.0.113.0/24 may ask",
        ),
        ("upstreams: [{address: 127.0.0.1, port: 5300}]", EVERYONE, AT_2000,
         "upstreams: no upstream: it names none but this server itself"),
        ("", "[{order: ban, groups: [everyone], action: sinkhole}]", AT_2000,
         "policy.sinkhole.ipv6: is empty: AAAA questions"),
        ("user: nobody-of-that-name", EVERYONE, AT_2000, "user: `user: nobody-of-that-name`: there is no such account"),
    ],
)  # fmt: skip
def test_an_oddity_is_one_warning(folder: Path, text: str, orders: str, at: float, warning: str) -> None:
    """Each is told once, and begins with where it is."""
    report = look(folder, text, orders, at)

    assert [found[: len(warning)] for found in report.warnings] == [warning]


def test_an_order_without_names_is_an_error(folder: Path) -> None:
    """Here all of the app's names are less sure than the order asks for."""
    write(folder, confidence="high")

    report = look(folder)

    assert report.orders[0].names == 0
    assert [text.partition(";")[0] for text in report.texts(Severity.ERROR)] == [
        "order ban: takes no name of any of its apps: min_confidence or include_optional leave all out"
    ]


def test_what_is_left_out_is_a_note(folder: Path) -> None:
    """An order that is not configured, and a group without one, may well be meant."""
    report = look(folder, "groups: [{name: phones, networks: ['0.0.0.0/0', '::/0']}]", "[]")

    assert report.warnings == ()
    assert report.notes == (
        "policy.orders: described, but put into force by no line of policy.orders: ban",
        "group phones: no order is put into force for it",
    )


@pytest.mark.parametrize(
    ("line", "text", "expected"),
    [
        ("file: {0}/ads.txt", "ads.example\nmore.ads.example.org\n", []),
        ("file: {0}/ads.txt", "chat.example\nads.example\n", [Code.SHADOWED]),
        ("file: {0}/ads.txt, mode: observe", "ads.example\n", [Code.OBSERVED]),
        ("url: 'https://lists.example.org/ads'", "", [Code.NOT_FETCHED]),
    ],
)
def test_a_zone_of_the_configuration_is_looked_at_too(folder: Path, line: str, text: str, expected: list[Code]) -> None:
    """With how it came here."""
    endless(folder)
    (folder / "ads.txt").write_text(text)
    groups = "groups: [{name: everyone, networks: ['0.0.0.0/0', '::/0']}]"

    report = look(folder, groups, policy=f", zones: [{{name: ads, {line.format(folder)}}}]")

    assert [found.code for found in report.findings] == expected


def test_a_copy_is_late_by_the_zones_own_refresh(folder: Path) -> None:
    """Three refreshes after it was last asked for: here one of an hour, and one of a day."""
    endless(folder)
    zones = ", ".join(
        f"{{name: {name}, url: 'https://lists.example.org/{name}', refresh: {refresh}}}"
        for name, refresh in (("hourly", "1h"), ("daily", "1d"))
    )
    for name in ("hourly", "daily"):
        octets = b"ads.example\n"
        state = replace(State().of(octets, 1), fetched_at=AT_2002 - 18_000, checked_at=AT_2002 - 18_000)
        feeds = folder / "state" / "feeds"
        feeds.mkdir(parents=True, exist_ok=True)
        write_copy(feeds, name, octets, state)

    found = [one for one in look(folder, at=AT_2002, policy=f", zones: [{zones}]").findings if one.code is Code.STALE]

    assert [(one.where.id, one.message.split(";")[0]) for one in found] == [
        ("hourly", "was last asked for 5 hours ago, and should be every 1 hour")
    ]


# ---- the verb -------------------------------------------------------------------------------------------------------


def run(folder: Path, text: str, *words: str) -> tuple[int, str, str]:
    """The exit code, and what was said where."""
    file = folder / "interdict.yaml"
    file.write_text(text)
    said = CliRunner().invoke(interdict, ["check", "--config", str(file), *words])
    return said.exit_code, said.stdout, said.stderr


@pytest.mark.parametrize(
    ("name", "text", "words", "code", "said"),
    [
        ("chat.example", "", ["--strict"], 0, []),
        ("chat.example", "user: nobody-of-that-name", [], 0, ["warning: user"]),
        ("chat.example", "user: nobody-of-that-name", ["--strict"], 1, ["warning: user"]),
        ("co.uk", "", [], 1, ["error: app chat"]),
        ("co.uk", "user: nobody-of-that-name", [], 1, ["error: app chat", "warning: user"]),
    ],
)
def test_errors_fail_and_warnings_where_they_are_meant_to(
    folder: Path, name: str, text: str, words: list[str], code: int, said: list[str]
) -> None:
    """Errors are told first; what would be in force is told in any case."""
    endless(folder, name)

    exit_code, out, err = run(folder, written(folder, text), *words)

    assert exit_code == code
    assert [": ".join(line.split(": ")[:2]) for line in err.splitlines()] == said
    assert out.splitlines()[-1].startswith("sound: ")


def test_findings_in_json_have_their_place_and_code(folder: Path) -> None:
    """For programs that look for one kind of finding, or at one document."""
    endless(folder, "co.uk")

    exit_code, out, _ = run(folder, written(folder), "--json")

    found = json.loads(out)
    assert exit_code == 1
    assert set(found) == {"ok", "problems", "config", "digest", "names", "orders", "groups", "apps", "findings"}
    assert found["findings"] == [
        {
            "severity": "error",
            "where": {"kind": "app", "id": "chat", "key": "domains"},
            "code": "public-suffix",
            "message": found["findings"][0]["message"],
        }
    ]


def test_a_configuration_that_can_not_be_used_is_code_2(folder: Path) -> None:
    """As ever, at its place."""
    exit_code, out, err = run(folder, written(folder, orders="[{order: bna, groups: [everyone]}]"))

    assert (exit_code, out) == (2, "")
    assert 'did you mean "ban"?' in err


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("dns.example.org", "192.0.2.1"), []),
        (("dns.example.net", "192.0.2.1"), ["it does not name dns.example.org; clients will not connect"]),
        (("dns.example.org",), ["it does not name 192.0.2.1; clients that find this server by its address"]),
    ],
)
def test_what_the_certificate_does_not_cover_is_a_warning(
    tmp_path: Path, names: tuple[str, ...], said: list[str]
) -> None:
    """The name that devices call, and the addresses that discovery tells; of a file elsewhere nothing is said."""
    path = Certificates(tmp_path).issue(*names, until=timedelta(days=365))
    text = f"""
encrypted:
  {{name: dns.example.org, certificate: {path}, key: {path}, dot: ["192.0.2.1:853"], addresses: [192.0.2.1]}}
upstreams: [{{address: 192.0.2.53}}]
state_dir: {tmp_path}
"""
    config = configuration.read(text, "c.yaml")
    at = time.time()

    warnings = look_over(config, "c.yaml", load(config, "c.yaml", at), at).warnings
    told = [line for line in warnings if "certificate" in line]
    assert len(told) == len(said), warnings
    assert all(part in line for part, line in zip(said, told, strict=True))
    elsewhere = configuration.read(text.replace(str(path), "gone.pem"), "c.yaml")
    report = look_over(elsewhere, "c.yaml", load(config, "c.yaml", at), at)
    assert not any("certificate" in line for line in report.warnings)
