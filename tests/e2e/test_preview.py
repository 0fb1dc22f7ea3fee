"""Logs as the programs of others write them, recorded live and replayed by `interdict preview`."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from resolver.cli.preview import preview
from tests.support.house import ask
from tests.support.peers import require_peer
from tests.support.server import PATIENCE, Server, ask_udp, free_port, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ASKED = ["www.banned-app.ca", "WWW.Banned-App.ca", "cloak.upstream-zone", "www.example.org", "a\\010b.example.org"]
PROBE = "probe.example"
NXDOMAIN = 3


def unbound(folder: Path, port: int, upstream: int) -> list[str]:
    """Queries and replies, which are to count once."""
    (folder / "unbound.conf").write_text(f"""\
server:
    interface: 127.0.0.1
    port: {port}
    username: ""
    chroot: ""
    directory: "{folder}"
    pidfile: "{folder}/pid"
    use-syslog: no
    logfile: "{folder}/logs/queries"
    log-time-ascii: yes
    log-queries: yes
    log-replies: yes
    module-config: "iterator"
    do-not-query-localhost: no
forward-zone:
    name: "."
    forward-addr: 127.0.0.1@{upstream}
remote-control:
    control-enable: no
""")
    return [require_peer("unbound"), "-d", "-c", str(folder / "unbound.conf")]


def bind(folder: Path, port: int, upstream: int, log: str) -> list[str]:
    (folder / "named.conf").write_text(f"""\
options {{
    directory "{folder}";
    pid-file none;
    session-keyfile none;
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    recursion yes;
    dnssec-validation no;
    empty-zones-enable no;
    forward only;
    forwarders {{ 127.0.0.1 port {upstream}; }};
    {log if log.startswith("dnstap") else "querylog yes;"}
}};
controls {{ }};
logging {{
    channel queries {{ file "{folder}/{"other" if log.startswith("dnstap") else "logs/queries"}"; {
        "" if log.startswith("dnstap") else log
    } }};
    category queries {{ queries; }};
}};
""")
    return [require_peer("named"), "-f", "-n", "1", "-c", str(folder / "named.conf")]


def bind_text(folder: Path, port: int, upstream: int) -> list[str]:
    """With local times, categories and severities."""
    return bind(folder, port, upstream, "print-time local; print-category yes; print-severity yes;")


def bind_without_times(folder: Path, port: int, upstream: int) -> list[str]:
    """As named writes it where nobody asks for times."""
    return bind(folder, port, upstream, "print-time no;")


def bind_dnstap(folder: Path, port: int, upstream: int) -> list[str]:
    """All messages, of which those with clients count."""
    return bind(folder, port, upstream, f'dnstap {{ all; }}; dnstap-output file "{folder}/logs/queries";')


def dnsmasq(folder: Path, port: int, upstream: int) -> list[str]:
    """With serial numbers."""
    (folder / "dnsmasq.conf").write_text(f"""\
port={port}
listen-address=127.0.0.1
bind-interfaces
no-resolv
no-hosts
user=
group=
server=127.0.0.1#{upstream}
log-queries=extra
log-facility={folder}/logs/queries
""")
    return [require_peer("dnsmasq"), "--keep-in-foreground", "-C", str(folder / "dnsmasq.conf")]


# (how to start it, the format, whether odd names are told, whether chains are told, whether there are times)
PEERS: dict[str, tuple[Callable[[Path, int, int], list[str]], str, bool, bool, bool]] = {
    "unbound": (unbound, "unbound", True, False, True),
    "bind": (bind_text, "bind", True, False, True),
    "bind without times": (bind_without_times, "bind", True, False, False),
    "bind's dnstap": (bind_dnstap, "dnstap", True, True, True),
    "dnsmasq": (dnsmasq, "dnsmasq", False, False, True),
}


@pytest.fixture
def record(tmp_path: Path, upstream: tuple[str, int]) -> Iterator[Callable[[str], Path]]:
    """`record("bind")` has the peer asked for ASKED, and is the folder with its log."""
    running: list[subprocess.Popen[bytes]] = []

    def made(peer: str) -> Path:
        folder = tmp_path / "peer"
        (folder / "logs").mkdir(parents=True)
        port = free_port()
        with (folder / "out").open("wb") as out:
            running.append(
                subprocess.Popen(PEERS[peer][0](folder, port, upstream[1]), stdout=out, stderr=out, cwd=folder)
            )

        def answers() -> bool:
            assert running[-1].poll() is None, (folder / "out").read_text()
            try:
                return ask_udp(port, ask(PROBE), wait=0.2)[3] & 15 == 0
            except OSError:
                time.sleep(0.05)
                return False

        wait_until(f"{peer} answers", answers)
        for name in ASKED:
            ask_udp(port, ask(name), wait=PATIENCE)
        running[-1].terminate()
        running[-1].wait(PATIENCE)
        return folder / "logs"

    yield made
    for process in running:
        process.kill()
        process.wait(PATIENCE)


@pytest.mark.parametrize("peer", PEERS)
def test_a_recorded_log_is_replayed(
    peer: str, record: Callable[[str], Path], make_server: Callable[..., Server]
) -> None:
    """Each query counts once, in any spelling; an alias counts where the log holds answers; times are right."""
    _, form, tells_odd_names, tells_chains, has_times = PEERS[peer]
    begin = time.time()
    logs = record(peer)
    server = make_server()
    server.ban("order-1", "banned-app.ca", effective="2090-01-01T00:00:00Z")

    words = ["order-1", "--config", str(server.config_path), "--against", str(logs), "--json"]
    said = CliRunner().invoke(preview, words, catch_exceptions=False)

    assert said.exit_code == 0, said.output
    found: dict[str, Any] = json.loads(said.stdout)
    impact = found["impact"]
    assert [source["format"] for source in found["sources"]] == [form]
    rows = {row["name"]: row["hits"] for row in impact["by_name"]["rows"]}
    assert rows == {"www.banned-app.ca": 2} | ({"cloak.upstream-zone": 1} if tells_chains else {})
    assert impact["through_chain"] == (1 if tells_chains else 0)
    assert [row["client"] for row in impact["by_device"]["rows"]] == ["127.0.0.1"]
    # The probe may have been repeated.
    assert impact["queries"] >= len(ASKED) + tells_odd_names
    reasons = {entry["reason"] for entry in found["unread"]}
    assert reasons <= {"not-a-query", "name-hidden"}
    assert ("name-hidden" in reasons) is not tells_odd_names
    if has_times:
        days = {time.strftime("%Y-%m-%d", time.gmtime(moment)) for moment in (begin, time.time())}
        assert {row["day"] for row in impact["by_day"]["rows"]} <= days
    else:
        assert [row["day"] for row in impact["by_day"]["rows"]] == [""]


def test_this_servers_own_hits_are_replayed(running: Server) -> None:
    """What the recorder stored, an alias of a banned name among it: hits of today are no change."""
    for name in ("www.banned-app.ca", "cloak.upstream-zone"):
        ask_udp(running.port, ask(name))
    wait_until("both hits are stored", lambda: len(running.hits()) == 2)
    store = running.state / "hits" / "hits.sqlite"
    words = ["order-1", "--config", str(running.config_path), "--against", str(store), "--json"]

    said = CliRunner().invoke(preview, words, catch_exceptions=False)

    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert (found["impact"]["new"], found["impact"]["through_chain"]) == (0, 1)
    assert {row["name"] for row in found["impact"]["already"]["rows"]} == {"www.banned-app.ca", "cloak.upstream-zone"}
    assert any("logs of hits" in remark for remark in found["remarks"])


def test_what_is_previewed_is_what_is_withheld(
    record: Callable[[str], Path], make_server: Callable[..., Server], running: Server
) -> None:
    """The names that a preview of an order to come tells are those that a server with that order in force withholds."""
    logs = record("bind's dnstap")
    server = make_server()
    server.ban("order-1", "banned-app.ca", effective="2090-01-01T00:00:00Z")
    words = ["order-1", "--config", str(server.config_path), "--against", str(logs), "--json"]

    found = json.loads(CliRunner().invoke(preview, words, catch_exceptions=False).stdout)

    withheld = {name.lower() for name in ASKED if ask_udp(running.port, ask(name))[3] & 15 == NXDOMAIN}
    assert {row["name"] for row in found["impact"]["by_name"]["rows"]} == withheld
    assert len(withheld) == 2
