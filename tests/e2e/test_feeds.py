"""Lists and zones that somebody else keeps, in a running server: fetched, transferred, changed, and gone."""

import base64
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import dns.query
import dns.tsig
import dns.update
import pytest

from tests.support.house import ask
from tests.support.peers import require_peer
from tests.support.server import Server, ask_udp, free_port, wait_until
from tests.support.source import Authority, Source, says

pytestmark = pytest.mark.e2e

NXDOMAIN = 3
SECRET = base64.b64encode(b"what both sides know and nobody else").decode()


def rcode(server: Server, name: str) -> int:
    """What the server says to a question."""
    return ask_udp(server.port, ask(name))[3] & 15


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    """An HTTPS server whose certificate the file ca.pem vouches for."""
    served = Source()
    served.wrap(Authority(tmp_path).certificate("127.0.0.1", timedelta(hours=1)))
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield served
    served.end.set()
    served.shutdown()
    served.server_close()
    thread.join()


def listing(*names: str) -> bytes:
    """A hosts file."""
    return "".join(f"0.0.0.0 {name}\n" for name in names).encode()


def with_list(server: Server, source: Source, tmp_path: Path) -> Server:
    """The server with a list from the source."""
    zone = {"name": "ads", "url": source.url(), "ca_file": str(tmp_path / "ca.pem")}
    server.config["policy"]["zones"] = [zone]
    return server


def test_a_list_from_the_web_acts_and_its_change_acts(
    make_server: Callable[..., Server], source: Source, tmp_path: Path
) -> None:
    """Fetched after the start, compiled, in force; fetched again on `fetch`; told in status, metrics and hits."""
    source.pages["/list"] = says(listing("ads.example", "more.example"))
    server = with_list(make_server(), source, tmp_path).start()
    wait_until("the list acts", lambda: rcode(server, "ads.example") == NXDOMAIN)
    assert rcode(server, "new.example") != NXDOMAIN

    source.pages["/list"] = says(listing("ads.example", "new.example"))
    assert server.ask_control("fetch") == {"zones": ["ads"]}

    wait_until("the new list acts", lambda: rcode(server, "new.example") == NXDOMAIN)
    assert rcode(server, "more.example") != NXDOMAIN
    (zone,) = [zone for zone in server.ask_control("status")["zones"] if zone["id"] == "list:ads"]
    assert (zone["entries"], zone["failures"], zone["error"]) == (2, 0, None)
    wait_until("metrics tell", lambda: server.metrics().get(("interdict_zone_entries", "list:ads")) == 2)
    wait_until("hits tell", lambda: ("new.example", "list:ads", "") in server.hits("qname, order_id, app"))


def test_what_a_source_does_unbans_nobody(make_server: Callable[..., Server], source: Source, tmp_path: Path) -> None:
    """A page in place of the list, a list that shrank, a source that is gone: the last good copy stays, and is told."""
    source.pages["/list"] = says(listing(*(f"n{i}.example" for i in range(10))))
    server = with_list(make_server(), source, tmp_path).start()
    wait_until("the list acts", lambda: rcode(server, "n9.example") == NXDOMAIN)

    for page in (b"<!DOCTYPE html><html><body>moved</body></html>", listing("n1.example"), b""):
        source.pages["/list"] = says(page)
        failures = server.metrics().get(("interdict_zone_failures", "list:ads"), 0)
        server.ask_control("fetch")
        wait_until("it is refused", lambda n=failures: server.metrics()["interdict_zone_failures", "list:ads"] > n)  # type: ignore[misc]
        assert rcode(server, "n9.example") == NXDOMAIN

    source.pages.clear()
    assert server.stop() == 0
    server.start()
    assert rcode(server, "n9.example") == NXDOMAIN


def test_a_feeder_that_is_killed_is_started_again(
    make_server: Callable[..., Server], source: Source, tmp_path: Path
) -> None:
    """And nobody notices."""
    source.pages["/list"] = says(listing("ads.example"))
    server = with_list(make_server(), source, tmp_path).start()
    wait_until("the list acts", lambda: rcode(server, "ads.example") == NXDOMAIN)
    before = server.pids()["feeder"]
    subprocess.run(["kill", "-KILL", str(before)], check=True)

    wait_until("another runs", lambda: server.pids()["feeder"] not in (0, before))
    assert rcode(server, "ads.example") == NXDOMAIN


def test_zones_come_and_go_with_a_reload(make_server: Callable[..., Server], source: Source, tmp_path: Path) -> None:
    """A feeder runs exactly while there is something to fetch."""
    source.pages["/list"] = says(listing("ads.example"))
    server = make_server().start()
    assert "feeder" not in server.pids()

    with_list(server, source, tmp_path).write()
    assert server.ask_control("reload")["ok"]
    wait_until("the list acts", lambda: rcode(server, "ads.example") == NXDOMAIN)

    server.config["policy"]["zones"] = []
    server.write()
    assert server.ask_control("reload")["ok"]
    assert rcode(server, "ads.example") != NXDOMAIN
    wait_until("the feeder is gone", lambda: "feeder" not in server.pids())


# ---- zone transfer --------------------------------------------------------------------------------------------------

KNOT = """\
server:
    rundir: "{folder}"
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: "{folder}"
key:
  - id: feed.example
    algorithm: hmac-sha256
    secret: {secret}
remote:
  - id: interdict
    address: 127.0.0.1@{listener}
    key: feed.example
acl:
  - id: feed
    key: feed.example
    action: [transfer, update]
zone:
  - domain: rpz.example
    storage: "{folder}"
    file: rpz.zone
    acl: feed
    notify: interdict
    zonefile-sync: -1
"""
ZONE = """\
$ORIGIN rpz.example.
$TTL 60
@ SOA ns.rpz.example. host.rpz.example. 1 3600 900 86400 60
@ NS ns.rpz.example.
ns A 127.0.0.1
bad.example CNAME .
"""


BIND = """\
options {{
    directory "{folder}"; pid-file none; session-keyfile none; lock-file none;
    listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    recursion no; dnssec-validation no; notify-delay 0;
}};
controls {{ }};
key "feed.example" {{ algorithm hmac-sha256; secret "{secret}"; }};
zone "rpz.example" {{
    type primary; file "rpz.zone";
    allow-transfer {{ key feed.example; }}; allow-update {{ key feed.example; }};
    notify explicit; also-notify {{ 127.0.0.1 port {listener} key feed.example; }};
}};
"""
PRIMARIES = {"knotd": (KNOT, ["-c"]), "named": (BIND, ["-g", "-4", "-n", "1", "-c"])}


@pytest.fixture(params=PRIMARIES)
def primary(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[int], int]]:
    """Starts a primary with a policy zone, which notifies a port of ours; its own port is returned."""
    program = require_peer(request.param)
    text, options = PRIMARIES[request.param]
    started: list[subprocess.Popen[bytes]] = []

    def start(listener: int) -> int:
        folder = tmp_path / "primary"
        folder.mkdir()
        port = free_port()
        (folder / "rpz.zone").write_text(ZONE)
        (folder / "conf").write_text(text.format(folder=folder, port=port, secret=SECRET, listener=listener))
        with (folder / "log").open("wb") as log:
            started.append(subprocess.Popen([program, *options, str(folder / "conf")], stdout=log, stderr=log))
        return port

    yield start
    for process in started:
        process.terminate()
        process.wait(30)


def test_a_zone_is_transferred_and_a_notify_brings_its_change(
    make_server: Callable[..., Server], primary: Callable[[int], int]
) -> None:
    """From Knot and from BIND, signed; the NOTIFY comes to the port that clients ask, and the change acts at once."""
    server = make_server()
    port = primary(server.port)
    tsig = {"name": "feed.example", "secret": SECRET}
    source = [{"address": "127.0.0.1", "port": port}]
    server.config["policy"]["zones"] = [{"name": "rpz.example", "primaries": source, "tsig": tsig}]
    server.start()
    # The primary may be slower than we are.
    wait_until("the zone acts", lambda: server.ask_control("fetch") and rcode(server, "bad.example") == NXDOMAIN)
    assert rcode(server, "worse.example") != NXDOMAIN

    key = dns.tsig.Key("feed.example", base64.b64decode(SECRET), "hmac-sha256")
    update = dns.update.UpdateMessage("rpz.example", keyring=key)
    update.add("worse.example.rpz.example.", 60, "CNAME", ".")
    assert dns.query.tcp(update, "127.0.0.1", port=port, timeout=10).rcode() == 0

    wait_until("the change acts", lambda: rcode(server, "worse.example") == NXDOMAIN)
    wait_until("hits tell", lambda: ("worse.example", "zone:rpz.example") in server.hits("qname, order_id"))


def test_a_notify_where_nothing_is_transferred_is_not_implemented(make_server: Callable[..., Server]) -> None:
    """Over UDP, as before; and the server goes on."""
    server = make_server().start()
    notify = bytearray(ask("rpz.example", "SOA"))
    notify[2] = 4 << 3

    assert ask_udp(server.port, bytes(notify))[3] & 15 == 4
    assert rcode(server, "any.example") in (0, 2)
