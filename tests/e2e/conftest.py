"""What the end-to-end tests stand on: a real upstream, and servers that are gone when their test is."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.house import ask
from tests.support.peers import require_peer
from tests.support.server import Server, ask_udp, free_port, wait_until

ZONE = """\
$ORIGIN .
$TTL 60
@ SOA ns.upstream-zone. host.upstream-zone. 1 3600 900 86400 60
@ NS ns.upstream-zone.
ns.upstream-zone. A 127.0.0.1
* A 192.0.2.1
* AAAA 2001:db8::1
* TXT "from upstream"
* HTTPS 1 . alpn=h2
big.upstream-zone. TXT {big}
cloak.upstream-zone. CNAME im.banned-app.ca.
cloak.upstream-zone2. HTTPS 1 im.banned-app.ca.
gone.upstream-zone. DNAME nowhere.upstream-zone.
"""


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """A Knot DNS server that has an answer for every name, by wildcards in a zone of its own for the root."""
    knotd = require_peer("knotd")
    folder = tmp_path_factory.mktemp("knot")
    port = free_port()
    big = " ".join(f'"{"x" * 200}{n}"' for n in range(20))
    (folder / "root.zone").write_text(ZONE.format(big=big))
    (folder / "knot.conf").write_text(f"""\
server:
    rundir: "{folder}"
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: warning
database:
    storage: "{folder}"
zone:
  - domain: .
    storage: "{folder}"
    file: root.zone
    zonefile-sync: -1
    journal-content: none
""")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([knotd, "-c", str(folder / "knot.conf")], stdout=log, stderr=log)

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            return ask_udp(port, ask("www.example.org"), wait=0.2)[3] & 15 == 0
        except OSError:
            time.sleep(0.05)
            return False

    try:
        wait_until("Knot answers", answers)
        yield "127.0.0.1", port
    finally:
        process.terminate()
        process.wait(20)


MakeServer = Callable[..., Server]


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    """Writes the configuration of a server; whatever is started is ended."""
    made: list[Server] = []

    def make(*upstreams: tuple[str, int], **config: Any) -> Server:
        folder = tmp_path / f"server-{len(made)}"
        folder.mkdir()
        made.append(Server(folder, upstreams, **config))
        return made[-1]

    yield make
    for server in made:
        server.end()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, upstream: tuple[str, int]) -> Iterator[Server]:
    """A server for all tests of a module that leave it as it is: `banned-app.ca` is banned, all else is upstream's."""
    server = Server(tmp_path_factory.mktemp("running"), [upstream])
    server.ban("order-1", "banned-app.ca")
    try:
        yield server.start()
    finally:
        server.end()
