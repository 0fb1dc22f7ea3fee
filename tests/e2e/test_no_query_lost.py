"""Reloads and restarts under the load of dnsperf: whoever asks meanwhile is answered, each of them.

    INTERDICT_RELOADS=1000 INTERDICT_RESTARTS=20 tests/run tests/e2e/test_no_query_lost.py -s

asks for more of them than a usual run does, and prints what dnsperf counted.
"""

import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.test_deploy_upgrade import Keeper
from tests.support.peers import require_peer
from tests.support.server import Server

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
MakeServer = Callable[..., Server]

RELOADS = int(os.environ.get("INTERDICT_RELOADS", "60"))
RESTARTS = int(os.environ.get("INTERDICT_RESTARTS", "5"))
SLICE = 5  # seconds that dnsperf runs for; what it sent last is then waited for, so that none is left uncounted
WAIT = 15  # seconds after which it counts a query as lost: more than a server takes to be started again
PER_SECOND = 1000
RESULT = re.compile(r"Queries (sent|completed|lost|interrupted):\s+(\d+)")
RCODE = re.compile(r"([A-Z]+) (\d+) \(")


class Load:
    """dnsperf, a slice of time after another, until enough was done meanwhile."""

    def __init__(self, server: Server) -> None:
        self.counted: Counter[str] = Counter()
        self.rcodes: Counter[str] = Counter()
        self._questions = server.folder / "questions"
        names = ("www.allowed.ca", "banned-app.ca", "now-and-then.ca")
        lines = [f"{name} A\nn{n}.{name} {rtype}\n" for n in range(2000) for name in names for rtype in ("A", "HTTPS")]
        self._questions.write_text("".join(lines))
        self._port = server.port

    def during(self, times: int, step: Callable[[int], None]) -> None:
        """Do something so often, under load all the time."""
        done = 0
        while done < times:
            with self._spawn() as dnsperf:
                while dnsperf.poll() is None and done < times:
                    step(done)
                    done += 1
                said, _ = dnsperf.communicate(timeout=SLICE + 2 * WAIT)
            assert dnsperf.returncode == 0, said
            self.counted.update({word: int(count) for word, count in RESULT.findall(said)})
            codes = next(line for line in said.splitlines() if "Response codes" in line)
            self.rcodes.update({word: int(count) for word, count in RCODE.findall(codes)})
        print(f"\n{times} times: {dict(self.counted)}, {dict(self.rcodes)}")

    def _spawn(self) -> "subprocess.Popen[str]":
        words = [
            require_peer("dnsperf"), "-s", "127.0.0.1", "-p", str(self._port), "-d", str(self._questions), "-e",
            "-l", str(SLICE), "-t", str(WAIT), "-Q", str(PER_SECOND), "-c", "16", "-q", "200",
        ]  # fmt: skip
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def server(make_server: MakeServer, upstream: tuple[str, int]) -> Server:
    """A name is banned always, another one every second time."""
    made = make_server(upstream)
    made.ban("order-1", "banned-app.ca")
    made.ban("order-2", "now-and-then.ca")
    return made


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    made = Keeper(tmp_path)
    yield made
    made.close()


def test_reloads_lose_no_query(server: Server) -> None:
    """Each puts another policy into force; every question has its answer, and none is an error."""
    server.start()
    lines = list(server.config["policy"]["orders"])
    first = server.ask_control("status")["generation"]
    load = Load(server)

    def reload(number: int) -> None:
        server.config["policy"]["orders"] = lines[: 1 + number % 2]
        server.write()
        said = server.ask_control("reload")
        assert (said["ok"], said["generation"]) == (True, first + number + 1)

    load.during(RELOADS, reload)

    assert (load.counted["lost"], load.counted["interrupted"]) == (0, 0)
    assert load.counted["completed"] == load.counted["sent"] > 0
    assert set(load.rcodes) == {"NOERROR", "NXDOMAIN"}
    assert {name for name, pid in server.pids().items() if not pid} == set()


def test_restarts_lose_no_query(server: Server, keeper: Keeper) -> None:
    """The service manager keeps the sockets, and what clients ask meanwhile waits in them."""
    keeper.start(server)
    load = Load(server)

    def restart(_: int) -> None:
        assert server.stop() == 0
        keeper.listen()
        keeper.start(server)

    load.during(RESTARTS, restart)

    assert (load.counted["lost"], load.counted["interrupted"]) == (0, 0)
    assert load.counted["completed"] == load.counted["sent"] > 0
    assert set(load.rcodes) == {"NOERROR", "NXDOMAIN"}
