"""Folders of documents, and the catalogue that comes with the product."""

import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from resolver.feeds import files
from resolver.feeds.files import read_documents, shipped
from resolver.policy.additions import Documents
from resolver.policy.compile import takes
from resolver.policy.documents import App, Basis, Level, Match, OrderState, Use
from resolver.policy.source import PolicyError
from resolver.wire import name as names

ROOT = Path(__file__).parents[3]
MUST_NOT_BLOCK = ROOT / "tests" / "catalogue" / "must-not-block.txt"

APP = """\
id: {id}
names: [Example]
vendor: Example Corp.
domains: [{{name: {id}.example, match: suffix, purpose: core, confidence: high, use: block, sources: [EX]}}]
"""

ORDER = """\
id: {id}
jurisdiction: Exampleland
authority: Minister
instrument: Direction 1
announced: 2029-12-01
effective: 2030-01-01T00:00:00Z
scope: {{devices: all, level: app}}
basis: own-policy
apps: [{apps}]
citations: [{{title: Ban, publisher: Gazette, url: "https://www.example.org/ban", read: primary}}]
confidence: medium
title: {{en: A ban, fr: Une interdiction}}
notice: {{en: Ask., fr: Demandez.}}
"""


def put(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def problems_of(*folders: Path) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        read_documents(folders)
    return [str(problem).removeprefix(str(folders[0]) + "/") for problem in caught.value.problems]


def test_orders_of_one_folder_may_name_apps_of_another(tmp_path: Path) -> None:
    """An organisation adds its own orders to the shipped apps, and other files do not matter."""
    apps = put(tmp_path / "a", {"apps/chat.yaml": APP.format(id="chat"), "apps/.draft.yaml": "[", "apps/README.md": ""})
    orders = put(
        tmp_path / "b", {"orders/x.yaml": ORDER.format(id="x", apps="chat"), "apps/game.yaml": APP.format(id="game")}
    )

    documents = read_documents([orders, apps])

    assert sorted(documents.apps) == ["chat", "game"]
    assert documents.orders["x"].apps == ("chat",)


def test_no_folders_hold_no_documents() -> None:
    """A node may run without any."""
    assert read_documents([]) == Documents({}, {})


def test_all_problems_of_all_files_come_at_once(tmp_path: Path) -> None:
    """Each at its file and place, with the mend."""
    folder = put(
        tmp_path,
        {
            "apps/chat.yaml": APP.format(id="chat").replace("suffix", "sufix"),
            "apps/game.yaml": APP.format(id="play"),
            "apps/old.yml": "",
            "apps/sound.yaml": APP.format(id="sound"),
            "orders/x.yaml": ORDER.format(id="x", apps="chat, sond, game"),
        },
    )

    chat, game, old, order = problems_of(folder)

    assert chat.startswith('apps/chat.yaml:4:39: "sufix" is unknown here; did you mean "suffix"?')
    assert game.startswith(
        'apps/game.yaml:1:5: the file is named "game.yaml"; rename it to "play.yaml", or write id: game'
    )
    assert old == "apps/old.yml:1:1: files end in .yaml; rename it to old.yaml"
    assert order == 'orders/x.yaml:9:14: no app has the id "sond"; did you mean "sound"?'


def test_an_order_is_superseded_by_one_that_is_described(tmp_path: Path) -> None:
    """A later order that nobody describes is told with the nearest known id; one with mistakes of its own is not."""
    act = "acts: [{{act: superseded, at: 2030-06-01T00:00:00Z, by: {by}}}]\n"
    folder = put(
        tmp_path,
        {
            "apps/chat.yaml": APP.format(id="chat"),
            "orders/broken.yaml": ORDER.format(id="broken", apps="chat").replace("level: app", "level: ap"),
            "orders/first.yaml": ORDER.format(id="first", apps="chat") + act.format(by="second"),
            "orders/second.yaml": ORDER.format(id="second", apps="chat") + act.format(by="broken"),
            "orders/third.yaml": ORDER.format(id="third", apps="chat") + act.format(by="secnd"),
        },
    )

    broken, third = problems_of(folder)

    assert broken.startswith('orders/broken.yaml:7:30: "ap" is unknown here')
    assert third == 'orders/third.yaml:14:56: no order has the id "secnd"; did you mean "second"?'


def test_an_id_is_described_once_over_all_folders(tmp_path: Path) -> None:
    """Which of two would hold cannot be guessed."""
    text = {"apps/chat.yaml": APP.format(id="chat")}
    first, second = put(tmp_path / "1", text), put(tmp_path / "2", text)

    (problem,) = problems_of(second, first)

    assert problem.endswith(f'"chat" is described in {second}/apps/chat.yaml too; remove one of the files')


def test_a_folder_without_documents_is_a_problem(tmp_path: Path) -> None:
    """A path with a typing error must not switch a policy off."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    (tmp_path / "file").touch()
    kinds = "apps/, orders/, exemptions/, rules/, ways-round/"

    for name in ("other", "file", "missing"):
        (problem,) = problems_of(tmp_path / name)
        assert problem.endswith(f"{name}:1:1: there is no {kinds} here; write the path of a folder with one")


def test_a_folder_with_nothing_in_it_yet_is_a_place_for_records(tmp_path: Path) -> None:
    """`interdict allow` writes the first one."""
    assert read_documents([tmp_path]) == Documents({}, {})


def test_a_file_that_is_no_file_is_a_problem(tmp_path: Path) -> None:
    """Folders, pipes and dangling links are told, not waited for."""
    folder = put(tmp_path, {"apps/chat.yaml/x": ""})
    os.mkfifo(folder / "apps" / "pipe.yaml")
    (folder / "apps" / "link.yaml").symlink_to("nowhere")

    assert [problem.split(":1:1: ") for problem in problems_of(folder)] == [
        [f"apps/{name}.yaml", "this is not a regular file; put a text file in its place"]
        for name in ("chat", "link", "pipe")
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_a_problem(tmp_path: Path) -> None:
    """With the system's reason."""
    folder = put(tmp_path, {"apps/chat.yaml": APP.format(id="chat")})
    (folder / "apps" / "chat.yaml").chmod(0)

    assert problems_of(folder) == [
        "apps/chat.yaml:1:1: cannot be read (Permission denied); check that it is there and its permissions"
    ]


def test_a_huge_file_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log or an image in the wrong place does not eat the memory."""
    monkeypatch.setattr(files, "MAX_FILE_OCTETS", 1 << 20)
    folder = put(tmp_path, {"apps/chat.yaml": APP.format(id="chat") + "#" * (1 << 20)})

    (problem,) = problems_of(folder)

    assert problem == "apps/chat.yaml:1:1: the file is larger than 1 MiB; is it the right one? Otherwise split it"


def test_octets_that_are_not_text_are_a_problem(tmp_path: Path) -> None:
    """A compressed list is told as such a file is: not UTF-8."""
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "chat.yaml").write_bytes(b"\x1f\x8b\x08")

    assert problems_of(tmp_path) == ["apps/chat.yaml:1:2: octet 0x8b is not UTF-8; save the file as UTF-8"]


# ---- the shipped catalogue ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def catalogue() -> Documents:
    return read_documents([shipped()])


def covers(app: App, host: bytes) -> bool:
    return any(
        host == domain.wire() if domain.match is Match.EXACT else names.is_at_or_below(host, domain.wire())
        for domain in app.domains
        if domain.use is Use.BLOCK
    )


CANADIAN = {
    "ca-tbs-2023-02-28": (("tiktok",), "2023-02-28T00:00:00-05:00", Basis.OUTSIDE_AUTHORITY),
    "ca-tbs-2023-10-30": (("wechat", "kaspersky"), "2023-10-30T00:00:00-04:00", Basis.OUTSIDE_AUTHORITY),
    "ca-tbs-2025-02-06": (("deepseek",), "2025-02-06T00:00:00-05:00", Basis.OWN_POLICY),
}
VENDOR_ORDERS = ("us-md-ed-2022-12-001", "us-tx-prohibited-technologies")


def forbidden(catalogue: Documents, order_id: str, hosts: Iterable[str]) -> list[str]:
    """Those of some names that an order covers through the apps it names."""
    order = catalogue.orders[order_id]
    taken = [domain for app in order.apps for domain in catalogue.apps[app].domains if takes(order, domain)]
    exact = {domain.name for domain in taken}
    zones = {domain.name for domain in taken if domain.match is Match.SUFFIX}
    return [host for host in hosts if host in exact or any(zone in zones for zone in zones_of(host))]


def zones_of(host: str) -> list[str]:
    labels = host.split(".")
    return [".".join(labels[i:]) for i in range(len(labels))]


def test_the_shipped_catalogue_holds_the_canadian_orders(catalogue: Documents) -> None:
    """Which apps, from which instant, on whose authority."""
    orders = {id_: catalogue.orders[id_] for id_ in CANADIAN}
    at = datetime(2026, 1, 1, tzinfo=UTC).timestamp()

    assert {id_: (order.apps, order.effective.isoformat(), order.basis) for id_, order in orders.items()} == CANADIAN
    assert all(order.state(at) is OrderState.IN_FORCE for order in orders.values())


def test_the_shipped_catalogue_is_as_large_as_the_readme_says(catalogue: Documents) -> None:
    """Each order and app has a row in the README's tables, with its beginning, its apps and its number of names."""
    readme = (shipped() / "README.md").read_text().partition("## What is shipped")[2]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in readme.splitlines() if line[:3] == "| `"]
    told_orders = {cells[0].strip("`"): cells[1:] for cells in rows if len(cells) == 5}
    told_apps = {cells[0].strip("`"): cells[1:] for cells in rows if len(cells) == 4 and cells[1].isdigit()}

    assert told_orders == {
        id_: [order.jurisdiction, order.effective.date().isoformat(), ", ".join(order.apps), order.scope.level.value]
        for id_, order in catalogue.orders.items()
    }
    assert told_apps == {
        id_: [str(sum(domain.use is use for domain in app.domains)) for use in (Use.BLOCK, Use.OPTIONAL, Use.NEVER)]
        for id_, app in catalogue.apps.items()
    }
    assert (len(told_orders), len(told_apps)) == (35, 20)


@pytest.mark.parametrize("order", ["us-eo-13942", "us-eo-13943"])
def test_an_order_that_courts_stopped_is_history(catalogue: Documents, order: str) -> None:
    """The executive orders of August 2020 were enjoined before they began, and revoked on 2021-06-09."""
    document = catalogue.orders[order]

    def state(day: str) -> OrderState:
        return document.state(datetime.fromisoformat(day + "T12:00:00-04:00").timestamp())

    assert document.in_force() == ()
    assert [state(day) for day in ("2020-09-01", "2020-10-01", "2021-06-08", "2021-06-09")] == [
        OrderState.ANNOUNCED,
        OrderState.SUSPENDED,
        OrderState.SUSPENDED,
        OrderState.REVOKED,
    ]


def test_every_shipped_order_forbids_something_through_each_of_its_apps(catalogue: Documents) -> None:
    """An order that names an app with optional names only includes these; else it would be silent about the app."""
    silent = [
        (order.id, app)
        for order in catalogue.orders.values()
        for app in order.apps
        if not any(takes(order, domain) for domain in catalogue.apps[app].domains)
    ]

    assert silent == []


@pytest.mark.parametrize("name", ["qq.com", "mail.qq.com", "tencent.com", "gtimg.com"])
def test_only_an_order_that_names_the_company_forbids_its_other_names(catalogue: Documents, name: str) -> None:
    """Texas and Maryland name Tencent Holdings; Canada names WeChat."""
    assert [id_ for id_ in VENDOR_ORDERS if not forbidden(catalogue, id_, [name])] == []
    assert [id_ for id_ in CANADIAN if forbidden(catalogue, id_, [name])] == []
    assert {catalogue.orders[id_].scope.level for id_ in VENDOR_ORDERS} == {Level.VENDOR}


def test_a_name_that_one_app_spares_may_be_another_apps(catalogue: Documents) -> None:
    """`never` speaks for its app alone: the whole of qq.com is not WeChat, and is Tencent."""
    uses = {
        use: {(domain.name, app.id) for app in catalogue.apps.values() for domain in app.domains if domain.use is use}
        for use in (Use.NEVER, Use.BLOCK)
    }
    blocked = {name for name, _ in uses[Use.BLOCK]}

    both = {name for name, _ in uses[Use.NEVER] if name in blocked}

    assert {"qq.com", "tencent.com"} <= both
    assert {("qq.com", "wechat")} <= uses[Use.NEVER]
    assert {("qq.com", "tencent")} <= uses[Use.BLOCK]


def test_every_host_seen_in_use_is_forbidden(catalogue: Documents) -> None:
    """What the apps were seen to ask for is covered by their block rules."""
    missed = [
        (app.id, h)
        for app in catalogue.apps.values()
        for h in app.observed_hosts
        if not covers(app, names.from_text(h))
    ]

    assert missed == []
    assert len(catalogue.apps["wechat"].observed_hosts) > 300


def test_nothing_else_is_forbidden(catalogue: Documents) -> None:
    """Government, device services, popular sites and look-alikes resolve whichever orders are in force.

    Those that name Tencent as a company are the exception: the list holds its other services as must-not-block beside
    WeChat.
    """
    spared = [line for line in MUST_NOT_BLOCK.read_text().splitlines() if line and not line.startswith("#")]

    hit = {id_: forbidden(catalogue, id_, spared) for id_ in catalogue.orders}

    assert len(spared) > 2000
    assert {id_: found for id_, found in hit.items() if found and id_ not in VENDOR_ORDERS} == {}
    beside = {domain.name for domain in catalogue.apps["tencent"].domains}
    others = [name for id_ in VENDOR_ORDERS for name in hit[id_] if beside.isdisjoint(zones_of(name))]
    assert others == []


def test_every_source_is_listed(catalogue: Documents) -> None:
    """A reader can look up each source id, and the list names no others."""
    cells = re.findall(r"^\| ([A-Z][^|]*) \|", (shipped() / "sources.md").read_text(), re.MULTILINE)
    listed = {id_ for cell in cells for id_ in cell.split(", ")}
    folders = (shipped() / "apps", shipped() / "ways-round")
    texts = "\n".join(file.read_text() for folder in folders for file in folder.glob("*.yaml"))

    used = {source for app in catalogue.apps.values() for domain in app.domains for source in domain.sources}
    used |= {source for way in catalogue.ways_round.values() for name in way.names for source in name.sources}

    assert used <= listed
    assert [id_ for id_ in sorted(listed) if id_ not in texts] == []


def test_every_document_tells_editors_its_schema() -> None:
    """The first line points to a file that exists."""
    for file in sorted(shipped().glob("*/*.yaml")):
        first = file.read_text().partition("\n")[0]
        assert first.startswith("# yaml-language-server: $schema="), file
        assert (file.parent / first.partition("=")[2]).resolve().is_file(), file
