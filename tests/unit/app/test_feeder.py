"""The feeder: keeps copies on schedule and when asked, tells the supervisor, and answers NOTIFY for the workers."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.opcode
import pytest

from resolver import config as configuration
from resolver.app import control
from resolver.app.feeder import Feeder
from resolver.app.machine import fed_zones
from resolver.config import PolicyZone
from resolver.feeds.copies import State, list_path, read_copy, write_copy
from tests.support.server import wait_until
from tests.support.source import Source, says

LIST = b"0.0.0.0 a.example\n0.0.0.0 b.example\n"


def zones_of(*texts: str) -> tuple[PolicyZone, ...]:
    """Zones as they are configured."""
    lines = "".join(f"    - {{{text}}}\n" for text in texts)
    return configuration.read(f"policy:\n  zones:\n{lines}", "i.yaml").policy.zones


@pytest.fixture
def source() -> Iterator[Source]:
    """A source on loopback, without TLS."""
    served = Source()
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield served
    served.end.set()
    served.shutdown()
    served.server_close()
    thread.join()


class Supervisor:
    """Listens on the control socket and says yes to everything."""

    def __init__(self, folder: Path) -> None:
        self.heard: list[str] = []
        self._sock = control.listen(folder)
        self._sock.setblocking(True)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                asker, _ = self._sock.accept()
            except OSError:
                return
            with asker:
                self.heard.append(json.loads(asker.makefile("rb").readline())["verb"])
                asker.sendall(b'{"ok": true}\n')

    def close(self) -> None:
        """Hang up."""
        self._sock.close()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """Somebody to tell."""
    made = Supervisor(tmp_path)
    yield made
    made.close()


def run(zones: tuple[PolicyZone, ...], folder: Path, *done: threading.Event) -> None:
    """Run a feeder until all events are set, then stop it as the supervisor does."""

    def stop() -> None:
        for event in done:
            assert event.wait(30)
        os.kill(os.getpid(), signal.SIGTERM)

    async def story() -> None:
        feeder = Feeder(zones, folder, folder)
        threading.Thread(target=stop, daemon=True).start()
        await feeder.run()

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(story())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


def when(what: str, is_so: Callable[[], object]) -> threading.Event:
    """An event that is set once something is so."""
    event = threading.Event()

    def watch() -> None:
        wait_until(what, is_so)
        event.set()

    threading.Thread(target=watch, daemon=True).start()
    return event


def test_a_list_is_fetched_at_once_and_the_supervisor_compiles(
    source: Source, supervisor: Supervisor, tmp_path: Path
) -> None:
    """The copy lies there before the supervisor hears of it."""
    source.pages["/list"] = says(LIST)
    told = when("it is told", lambda: "recompile" in supervisor.heard)
    run(zones_of(f"name: ads, url: '{source.url()}'"), tmp_path, told)

    assert list_path(tmp_path, "ads").read_bytes() == LIST
    assert read_copy(tmp_path, "ads").state.entries == 2


def test_a_failure_is_told_and_compiles_nothing(source: Source, supervisor: Supervisor, tmp_path: Path) -> None:
    """The state beside the copy says why."""
    told = when("it is told", lambda: "feeds" in supervisor.heard)
    run(zones_of(f"name: ads, url: '{source.url()}'"), tmp_path, told)

    assert "recompile" not in supervisor.heard
    assert "404" in (read_copy(tmp_path, "ads").state.error or "")


def test_a_zone_that_fails_keeps_no_other_waiting(source: Source, supervisor: Supervisor, tmp_path: Path) -> None:
    """Each has a task of its own."""
    source.pages["/slow"] = source.falls_silent(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0.0.0.0 ")
    source.pages["/list"] = says(LIST)
    slow = f"name: slow, url: '{source.url('/slow')}'"

    def let_go() -> bool:
        is_there = list_path(tmp_path, "quick").exists()
        if is_there:
            source.end.set()  # only now may the slow one end
        return is_there

    run(zones_of(slow, f"name: quick, url: '{source.url()}'"), tmp_path, when("the other is there", let_go))

    assert not list_path(tmp_path, "slow").exists()


def test_a_signal_has_everything_looked_after_now(source: Source, supervisor: Supervisor, tmp_path: Path) -> None:
    """As `interdict fetch` asks for."""
    source.pages["/list"] = says(LIST)
    first = when("fetched once", lambda: len(source.asked) >= 1 and "recompile" in supervisor.heard)

    def again() -> bool:
        if first.is_set() and len(source.asked) == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return len(source.asked) >= 2

    run(zones_of(f"name: ads, url: '{source.url()}'"), tmp_path, first, when("fetched again", again))

    assert len(source.asked) >= 2


def test_a_notify_is_answered_and_brings_the_transfer_forward(supervisor: Supervisor, tmp_path: Path) -> None:
    """From a primary's address; the worker that handed it over gets the octets to send."""
    notify = dns.message.make_query("feed.example", "SOA")
    notify.set_opcode(dns.opcode.NOTIFY)
    notify.flags = (notify.flags & ~dns.flags.RD) | dns.flags.AA
    replies: list[bytes | None] = []

    def ask() -> bool:
        if not (tmp_path / control.NOTIFY_SOCKET_NAME).exists() or supervisor.heard.count("feeds") < 1:
            return False
        replies.append(asyncio.run(control.pass_on_notify(tmp_path, notify.to_wire(), "127.0.0.1", 10)))
        return True

    asked = when("it is answered", ask)
    again = when("the zone is looked after again", lambda: supervisor.heard.count("feeds") >= 2)
    run(zones_of("name: feed.example, primaries: [{address: 127.0.0.1, port: 1}]"), tmp_path, asked, again)

    assert replies[0] is not None
    reply = dns.message.from_wire(replies[0])
    assert (reply.opcode(), reply.rcode(), reply.id) == (dns.opcode.NOTIFY, 0, notify.id)


def test_only_what_is_kept_elsewhere_is_fed() -> None:
    """Local files are the compiler's business."""
    zones = zones_of(
        "name: a, file: /x", "name: b, url: 'https://x.example/'", "name: c, primaries: [{address: '::1'}]"
    )
    config = configuration.read("", "i.yaml")
    config = config.model_copy(update={"policy": config.policy.model_copy(update={"zones": zones})})

    assert [zone.name for zone in fed_zones(config)] == ["b", "c"]


def test_a_copy_that_no_policy_took_in_is_told_again(supervisor: Supervisor, source: Source, tmp_path: Path) -> None:
    """A feeder that died between the copy and its word has a successor that says it."""
    write_copy(tmp_path, "ads", LIST, State(url=source.url()).of(LIST, 2))
    told = when("it is told", lambda: "recompile" in supervisor.heard)
    run(zones_of(f"name: ads, url: '{source.url()}'"), tmp_path, told)

    assert supervisor.heard[0] == "recompile"
