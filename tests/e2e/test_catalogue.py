"""The shipped catalogue over the running resolver: what was seen in use is withheld, what must not be is not."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from resolver.feeds.files import read_documents, shipped
from resolver.policy.documents import Confidence
from tests.support.house import ask
from tests.support.server import Server, ask_all, ask_tcp

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DOCUMENTS = read_documents([shipped()])
DEFAULT_ORDERS = ["ca-tbs-2023-02-28", "ca-tbs-2023-10-30"]
CANADIAN_ORDERS = [*DEFAULT_ORDERS, "ca-tbs-2025-02-06"]  # those that the names of must-not-block.txt are kept clear of
TYPES = ["A", "AAAA", "HTTPS", "TXT"]
MUST_NOT_BLOCK = Path(__file__).parents[1] / "catalogue" / "must-not-block.txt"


def observed_hosts(orders: list[str]) -> list[str]:
    """Every name that was seen in use by an app of these orders."""
    return sorted(
        {
            host
            for id_ in orders
            for app in DOCUMENTS.orders[id_].apps
            for host in DOCUMENTS.apps[app].observed_hosts
        }
    )  # fmt: skip


def must_not_block() -> list[str]:
    """The names of the file; the test is skipped while there is none."""
    if not MUST_NOT_BLOCK.exists():
        pytest.skip("tests/catalogue/must-not-block.txt is not there")
    lines = (line.partition("#")[0].strip() for line in MUST_NOT_BLOCK.read_text().splitlines())
    return [line for line in lines if line]


def serve(folder: Path, upstream: tuple[str, int], orders: list[str]) -> Iterator[Server]:
    applied = [{"order": id_, "groups": ["everyone"]} for id_ in orders]
    server = Server(folder, [upstream], policy={"documents": ["shipped"], "orders": applied})
    try:
        yield server.start()
    finally:
        server.end()


@pytest.fixture(scope="module")
def defaults(tmp_path_factory: pytest.TempPathFactory, upstream: tuple[str, int]) -> Iterator[Server]:
    """The orders that are in force when nothing is configured."""
    yield from serve(tmp_path_factory.mktemp("defaults"), upstream, DEFAULT_ORDERS)


@pytest.fixture(scope="module")
def canadian(tmp_path_factory: pytest.TempPathFactory, upstream: tuple[str, int]) -> Iterator[Server]:
    """The federal Canadian orders in force."""
    yield from serve(tmp_path_factory.mktemp("canadian"), upstream, CANADIAN_ORDERS)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory, upstream: tuple[str, int]) -> Iterator[Server]:
    """Every shipped order in force, at once."""
    yield from serve(tmp_path_factory.mktemp("everything"), upstream, sorted(DOCUMENTS.orders))


def orders_in_force() -> list[str]:
    """Those that have begun, have not ended, and take names of every confidence."""
    now = datetime.now(UTC)
    return sorted(
        order.id
        for order in DOCUMENTS.orders.values()
        if order.effective <= now
        and (order.expires is None or now < order.expires)
        and order.min_confidence is Confidence.LOW
    )


def test_the_defaults_are_the_orders_tested_here() -> None:
    """So that a change of the default configuration is looked at here."""
    from resolver import config

    assert [line.order for line in config.read("", "defaults").policy.orders] == DEFAULT_ORDERS


@pytest.mark.parametrize("rtype", TYPES)
@pytest.mark.parametrize("over", ["udp", "tcp"])
def test_every_observed_host_is_withheld(defaults: Server, rtype: str, over: str) -> None:
    """As asked for by devices, over both transports."""
    hosts = observed_hosts(DEFAULT_ORDERS)
    assert len(hosts) > 50
    packets = [ask(host, rtype) for host in hosts]

    replies = ask_tcp(defaults.port, packets) if over == "tcp" else ask_all(defaults.port, packets)

    let_through = [
        host
        for host, reply in zip(hosts, replies, strict=True)
        if reply is None or dns.message.from_wire(reply).rcode() != dns.rcode.NXDOMAIN
    ]
    assert let_through == []


def test_every_observed_host_of_every_shipped_app_is_withheld(everything: Server) -> None:
    """With all shipped orders in force."""
    hosts = observed_hosts(orders_in_force())

    replies = ask_all(everything.port, [ask(host) for host in hosts])

    assert [h for h, reply in zip(hosts, replies, strict=True) if reply is None or reply[3] & 15 != 3] == []


@pytest.mark.parametrize("rtype", TYPES)
def test_no_name_that_must_not_be_withheld_is(canadian: Server, rtype: str) -> None:
    """Governments, device services, popular sites: under the Canadian orders they get the upstream's answer."""
    names = must_not_block()
    assert len(names) > 1000

    replies = ask_all(canadian.port, [ask(name, rtype) for name in names])

    withheld = [name for name, reply in zip(names, replies, strict=True) if reply is None or reply[3] & 15 != 0]
    assert withheld == []
    assert not [name for name, reply in zip(names, replies, strict=True) if reply and b"order " in reply]
