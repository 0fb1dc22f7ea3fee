"""dnsdist in front, by the configuration that deploy/ ships: a server that fails is left out, and nobody notices."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from tests.support.house import ask
from tests.support.server import Server, ask_udp, free_port, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SHIPPED = (Path(__file__).parents[2] / "deploy/dnsdist/dnsdist.conf").read_text()


@pytest.fixture
def servers(make_server: Callable[..., Server], upstream: tuple[str, int]) -> list[Server]:
    """Two that forbid the same."""
    pair = [make_server(upstream), make_server(upstream)]
    for server in pair:
        server.ban("order-1", "banned-app.ca")
        server.start()
    return pair


@pytest.fixture
def front(servers: list[Server], tmp_path: Path, peer: Callable[[str], str]) -> Iterator[int]:
    """The port of a dnsdist with the shipped configuration, whose addresses are those of the test."""
    port = free_port()
    shipped = SHIPPED.replace("0.0.0.0:53", f"127.0.0.1:{port}").replace("[::]:53", f"[::1]:{port}")
    for number, server in enumerate(servers, 1):
        shipped = shipped.replace(f"192.0.2.{number}:53", f"127.0.0.1:{server.port}")
    config = tmp_path / "dnsdist.conf"
    config.write_text(shipped)
    with (tmp_path / "dnsdist.log").open("wb") as log:
        process = subprocess.Popen([peer("dnsdist"), "--supervised", "-C", config], stdout=log, stderr=log)
    yield port
    process.terminate()
    process.wait(20)


def rcode(port: int, name: str) -> str:
    try:
        return dns.rcode.to_text(dns.message.from_wire(ask_udp(port, ask(name), wait=2.0)).rcode())
    except (TimeoutError, ConnectionRefusedError):
        return ""


def test_orders_are_enforced_through_it(front: int) -> None:
    """It passes on what the servers say."""
    wait_until("dnsdist answers", lambda: rcode(front, "www.example.ca") == "NOERROR")

    assert rcode(front, "x.banned-app.ca") == "NXDOMAIN"


def test_a_server_that_fails_is_left_out(front: int, servers: list[Server]) -> None:
    """Its health check finds one that is frozen, though its ports are open; afterwards every query has its answer."""
    wait_until("dnsdist answers", lambda: rcode(front, "www.example.ca") == "NOERROR")
    pids = [pid for name, pid in servers[0].pids().items() if name.startswith("worker")]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        end = time.monotonic() + 20
        row = 0
        while row < 20 and time.monotonic() < end:
            row = row + 1 if rcode(front, f"n{row}.banned-app.ca") == "NXDOMAIN" else 0
        assert row == 20
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_it_asks_after_a_name_that_is_answered_without_an_upstream(servers: list[Server]) -> None:
    """An upstream's failure does not take the servers out."""
    (name,) = re.findall(r'checkName = "([^"]+)"', SHIPPED)
    servers[0].stop()
    servers[0].config["upstreams"] = [{"address": "127.0.0.1", "port": free_port()}]
    servers[0].write()
    servers[0].start()

    assert rcode(servers[0].port, name) == "NOERROR"
