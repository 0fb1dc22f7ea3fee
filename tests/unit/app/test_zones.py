"""Which zones a configuration amounts to, in which order, and for whom."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from resolver import config as configuration
from resolver.app.zones import applied_zones
from resolver.config import Config
from resolver.feeds.files import read_documents, shipped
from resolver.policy.additions import Documents
from resolver.policy.compile import PolicySettings, compile_generation
from resolver.policy.documents import Action, Mode
from resolver.policy.generation import Generation
from resolver.policy.judge import Reached, judge_answer, judge_query
from resolver.policy.source import PolicyError
from resolver.policy.terms import GroupEntry
from resolver.policy.zone import Trigger
from tests.support.build import wire

HERE = bytes((192, 0, 2, 1))


@pytest.fixture(scope="module")
def documents() -> Documents:
    """The shipped ones."""
    return read_documents([shipped()])


def config_of(policy: str) -> Config:
    """A configuration with this policy section."""
    return configuration.read(f"policy:\n  orders: []\n{policy}", "interdict.yaml")


def ids(config: Config, documents: Documents, feeds: Path) -> list[str]:
    """The zones, in order of precedence."""
    return [zone.id for zone in applied_zones(config, documents, feeds)[0]]


def opened(config: Config, documents: Documents, feeds: Path) -> Generation:
    """A generation with the zones of the configuration alone."""
    settings = PolicySettings(("0.0.0.0/0", "::/0"), (GroupEntry("all", ("0.0.0.0/0", "::/0")),), (), 30)
    zones, _ = applied_zones(config, documents, feeds)
    return Generation(memoryview(compile_generation(documents, settings, serial=1, at=0.0, zones=zones)[0]))


def test_ways_round_are_withheld_unless_switched_off(documents: Documents, tmp_path: Path) -> None:
    """Three by default; each is a switch."""
    assert ids(config_of(""), documents, tmp_path) == [
        "way-round:doh-resolvers", "way-round:firefox-canary", "way-round:private-relay",
    ]  # fmt: skip
    switched = "  ways_round: {doh-resolvers: false, app-resolvers: true}\n"
    assert ids(config_of(switched), documents, tmp_path) == [
        "way-round:app-resolvers", "way-round:firefox-canary", "way-round:private-relay",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["use-application-dns.net", "mask.icloud.com", "mask-h2.icloud.com", "dns.google", "x.cloudflare-dns.com"]
)
def test_a_canary_is_answered_with_no_such_name(documents: Documents, tmp_path: Path, name: str) -> None:
    """Without asking anybody."""
    generation = opened(config_of(""), documents, tmp_path)
    found = judge_query(wire(name), generation.view_of(HERE, 0.0))

    assert found is not None
    assert (found.action, found.mode, found.order.id[:10]) == (Action.NXDOMAIN, Mode.ENFORCE, "way-round:")


def test_zones_come_in_the_order_of_the_configuration(documents: Documents, tmp_path: Path) -> None:
    """After the ways round, before the protection against rebinding; a folder gives a zone a file."""
    (tmp_path / "a.hosts").write_text("0.0.0.0 a.example\n0.0.0.0 b.example\n")
    (tmp_path / "lists").mkdir()
    for name in ("two.txt", "one.txt"):
        (tmp_path / "lists" / name).write_text(f"{name}.example\n")
    config = config_of(
        "  ways_round: {doh-resolvers: false, firefox-canary: false, private-relay: false}\n"
        "  rebinding: {protect: true}\n"
        "  zones:\n"
        f"    - {{name: z, file: {tmp_path}/lists}}\n"
        f"    - {{name: a, file: {tmp_path}/a.hosts, mode: observe, action: refused}}\n"
    )
    zones, states = applied_zones(config, documents, tmp_path)

    assert [zone.id for zone in zones] == ["list:z", "list:z", "list:a", "rebinding"]
    assert [state.entries for state in states] == [1, 1, 2]
    assert [state.source.rpartition("/")[2] for state in states] == ["one.txt", "two.txt", "a.hosts"]
    assert zones[2].mode is Mode.OBSERVE
    assert zones[2].override is not None
    assert zones[2].override.action is Action.REFUSED


@pytest.mark.parametrize(
    ("address", "is_inside"),
    [
        ("10.1.2.3", True), ("192.168.0.1", True), ("127.0.0.1", True), ("169.254.1.1", True), ("100.64.0.1", True),
        ("0.0.0.0", True), ("192.0.2.1", False), ("8.8.8.8", False), ("100.128.0.1", False),
        ("::1", True), ("fd00::1", True), ("fe80::1", True), ("::ffff:10.0.0.1", True), ("2001:db8::1", False),
    ],
)  # fmt: skip
def test_addresses_of_the_inside_are_withheld_where_asked_for(
    documents: Documents, tmp_path: Path, address: str, is_inside: bool
) -> None:
    """From names of the outside; names that are spared, and all below, may have them."""
    config = config_of("  rebinding: {protect: true, spare: [corp.example]}\n")
    view = opened(config, documents, tmp_path).view_of(HERE, 0.0)
    reached = Reached(addresses=(ip_address(address).packed,))
    found = judge_answer(wire("www.example"), None, reached, view, 1)

    assert (found is not None) is is_inside
    if found is not None:
        assert (found.order.id, found.action, found.trigger) == ("rebinding", Action.NODATA, Trigger.RESPONSE_IP)
    assert judge_answer(wire("a.corp.example"), None, reached, view, 1) is None


def test_all_mistakes_of_local_files_are_told_at_once(documents: Documents, tmp_path: Path) -> None:
    """A missing file and one that is no list, each with its mend."""
    (tmp_path / "page.html").write_text("<!DOCTYPE html><html><body>moved</body></html>\n" * 20)
    zones = f"  zones: [{{name: a, file: {tmp_path}/none}}, {{name: b, file: {tmp_path}/page.html}}]\n"
    with pytest.raises(PolicyError) as told:
        applied_zones(config_of(zones), documents, tmp_path)

    assert [problem.source.rpartition("/")[2] for problem in told.value.problems] == ["none", "page.html"]
