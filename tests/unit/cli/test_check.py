"""What is sound and surely not meant."""

from pathlib import Path

import pytest

from resolver import config as configuration
from resolver.app.compiler import compile_policy
from resolver.cli.check import Report, look_over
from resolver.policy.explain import Standing

APP = """\
id: chat
names: [Chat]
vendor: Example Corp.
domains:
  - {name: chat.example, match: suffix, purpose: core, confidence: low, use: block, sources: [EX]}
  - {name: talk.example, match: exact, purpose: core, confidence: low, use: block, sources: [EX]}
"""
ORDER = """\
id: ban
jurisdiction: Exampleland
authority: Minister
instrument: Direction 1
announced: 1999-12-01
effective: 2000-01-01T00:00:00Z
expires: 2001-01-01T00:00:00Z
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("apps/chat", APP), ("orders/ban", ORDER.format(confidence="low"))):
        (tmp_path / name).parent.mkdir()
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def look(
    folder: Path, text: str = "", orders: str = "[{order: ban, groups: [everyone]}]", at: float = AT_2000
) -> Report:
    if "upstreams" not in text:
        text += "\nupstreams: [{address: 192.0.2.53}]"
    sinkhole = "sinkhole: {ipv4: [192.0.2.80]}"
    text += f"\npolicy: {{documents: ['{folder}'], orders: {orders}, {sinkhole}}}"
    config = configuration.read(text, "i.yaml")
    return look_over(config, "i.yaml", compile_policy(config, "i.yaml", serial=1, at=at), at)


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
    report = look(folder)

    assert (report.warnings, report.notes) == ((), ())


@pytest.mark.parametrize(
    ("text", "orders", "at", "warning"),
    [
        ("", "[{order: ban, groups: [everyone]}]", AT_2002, "order ban is expired since 2001-01-01T00:00:00"),
        (
            "groups: [{name: everyone, networks: ['10.0.0.0/8', '203.0.113.0/24']}]",
            "[{order: ban, groups: [everyone]}]",
            AT_2000,
            "group everyone: nobody in 203.0.113.0/24 may ask",
        ),
        (
            "allowed_networks: ['192.0.2.0/24']\ngroups: [{name: everyone, networks: ['192.0.2.0/24', '::/0']}]",
            "[{order: ban, groups: [everyone]}]",
            AT_2000,
            "group everyone: nobody in ::/0 may ask",
        ),
        (
            "upstreams: [{address: 127.0.0.1, port: 5300}]",
            "[{order: ban, groups: [everyone]}]",
            AT_2000,
            "no upstream: `upstreams` names none but this server itself",
        ),
        (
            "",
            "[{order: ban, groups: [everyone], action: sinkhole}]",
            AT_2000,
            "policy.sinkhole.ipv6 is empty: AAAA questions",
        ),
        (
            "user: nobody-of-that-name",
            "[{order: ban, groups: [everyone]}]",
            AT_2000,
            "`user: nobody-of-that-name`: there is no such account",
        ),
    ],
)
def test_an_oddity_is_one_warning(folder: Path, text: str, orders: str, at: float, warning: str) -> None:
    """Each is told once, and begins with where it is."""
    report = look(folder, text, orders, at)

    assert [found[: len(warning)] for found in report.warnings] == [warning]


def test_an_order_without_names_is_a_warning(folder: Path) -> None:
    """Here all of the app's names are less sure than the order asks for."""
    (folder / "orders" / "ban.yaml").write_text(ORDER.format(confidence="high"))

    report = look(folder)

    assert report.orders[0].names == 0
    assert [warning.partition(":")[0] for warning in report.warnings] == ["order ban takes no name of app chat"]


def test_what_is_left_out_is_a_note(folder: Path) -> None:
    """An order that is not configured, and a group without one, may well be meant."""
    report = look(folder, "groups: [{name: phones, networks: ['10.0.0.0/8']}]", "[]")

    assert report.warnings == ()
    assert report.notes == (
        "described, but put into force by no line of policy.orders: ban",
        "no order is put into force for group phones",
    )
