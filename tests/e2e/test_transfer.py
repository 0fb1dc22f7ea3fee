"""Zone transfer from real primaries: BIND and Knot give a policy zone whole, then its changes, and say when."""

import base64
import contextlib
import re
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import dns.update
import pytest

from resolver.feeds.intake import Transfer
from resolver.feeds.notify import answer_notify
from resolver.feeds.transfer import Change, TransferTerms, TsigKey, read_copy, refresh
from resolver.wire.name import to_text
from tests.support.peers import require_peer
from tests.support.server import PATIENCE, free_port, wait_until

pytestmark = pytest.mark.e2e

AT = 1_800_000_000.0
SECRET = base64.b64encode(b"what both sides know and nobody else").decode()
KEY = TsigKey.from_text("feed.example", "hmac-sha256", SECRET)
RULES = 3000  # More than one message, so that signatures over several messages are met.

# What BIND and Knot write when a NOTIFY was answered well.
NOTIFIED = re.compile(r"notify response from 127\.0\.0\.1#\d+: NOERROR|notify, outgoing, .*serial 7")

BIND = """\
options {{
    directory "{folder}"; pid-file none; session-keyfile none; lock-file none;
    listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    recursion no; dnssec-validation no; notify-delay 0; transfers-out 10;
}};
controls {{ }};
logging {{
    channel said {{ stderr; severity debug 3; print-category yes; }};
    category notify {{ said; }}; category xfer-out {{ said; }}; category default {{ said; }};
}};
key "feed.example" {{ algorithm hmac-sha256; secret "{secret}"; }};
zone "rpz.example" {{
    type primary; file "rpz.zone";
    allow-transfer {{ key feed.example; }}; allow-update {{ key feed.example; }};
    notify explicit; also-notify {{ 127.0.0.1 port {listener} key feed.example; }};
}};
"""

KNOT = """\
server:
    rundir: "{folder}"
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: debug
database:
    storage: "{folder}"
key:
  - id: feed.example
    algorithm: hmac-sha256
    secret: {secret}
remote:
  - id: listener
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
    zonefile-sync: -1
    zonefile-load: whole
    journal-content: changes
    notify: listener
    acl: feed
"""


class Listener:
    """Answers every NOTIFY, over UDP (BIND's way) and TCP (Knot's), and keeps its zone and serial."""

    def __init__(self) -> None:
        self.port = free_port()
        self.heard: list[tuple[str | None, int | None]] = []
        self.terms: TransferTerms | None = None
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams.bind(("127.0.0.1", self.port))
        self._streams = socket.create_server(("127.0.0.1", self.port))
        self._closing, self._close = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._close.close()
        self._thread.join(PATIENCE)
        for sock in (self._datagrams, self._streams, self._closing):
            sock.close()

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._closing, self._datagrams, self._streams], [], [])
            if self._closing in ready:
                return
            if self._datagrams in ready:
                octets, sender = self._datagrams.recvfrom(4096)
                self._datagrams.sendto(self._answer(octets, sender[0]), sender)
                continue
            conn, sender = self._streams.accept()
            with conn, contextlib.suppress(OSError), conn.makefile("rb") as stream:
                conn.settimeout(5)
                reply = self._answer(stream.read(int.from_bytes(stream.read(2), "big")), sender[0])
                conn.sendall(len(reply).to_bytes(2, "big") + reply)
                stream.read()  # until it hangs up, so that it has read the answer

    def _answer(self, octets: bytes, sender: str) -> bytes:
        outcome = answer_notify(octets, sender, {} if self.terms is None else {"vendor": self.terms})
        message = dns.message.from_wire(octets, keyring=False)
        self.heard.append((outcome.zone, message.answer[0][0].serial if message.answer else None))
        return outcome.reply or b""


class Primary:
    """A server that holds the zone, and who listens to its NOTIFY."""

    def __init__(self, folder: Path, command: list[str], config: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.listener = Listener()
        rules = "".join(f"n{i}.example.org CNAME .\n" for i in range(RULES))
        head = "$TTL 60\n@ SOA ns.example. host.example. 1 3600 600 86400 60\n@ NS ns.example.\n"
        (folder / "rpz.zone").write_text(f"{head}{rules}")
        (folder / "conf").write_text(
            config.format(folder=folder, port=self.port, listener=self.listener.port, secret=SECRET)
        )
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen([*command, str(folder / "conf")], stdout=log, stderr=log)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)

    def said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def update(self, serial: int, *, add: str, delete: str) -> None:
        """Change the zone by dynamic update (RFC 2136)."""
        change = dns.update.UpdateMessage("rpz.example", keyring=KEY.for_dnspython())
        change.add(add, 60, "CNAME", ".")
        change.delete(delete)
        change.replace("rpz.example.", 60, "SOA", f"ns.example. host.example. {serial} 3600 600 86400 60")
        assert dns.query.tcp(change, "127.0.0.1", 10, self.port).rcode() == dns.rcode.NOERROR


@pytest.fixture(params=["named", "knotd"])
def primary(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Primary]:
    """BIND, then Knot, with the zone in serial 1."""
    if request.param == "named":
        server = Primary(tmp_path, [require_peer("named"), "-f", "-4", "-n", "1", "-c"], BIND)
    else:
        server = Primary(tmp_path, [require_peer("knotd"), "-c"], KNOT)
    with contextlib.closing(server.listener):
        try:
            yield server
        finally:
            if server.process.poll() is None:
                server.stop()


@pytest.fixture
def terms(primary: Primary) -> TransferTerms:
    primary.listener.terms = TransferTerms("vendor", "rpz.example", (("127.0.0.1", primary.port),), KEY, timeout=20.0)
    return primary.listener.terms


def names(folder: Path) -> set[str]:
    return {to_text(name) for name in read_copy(folder, "vendor")[0].names}


def taken(primary: Primary, terms: TransferTerms, folder: Path) -> None:
    """Take the zone for the first time, once the server is up."""

    def came() -> bool:
        assert primary.process.poll() is None, primary.said()
        try:
            socket.create_connection(("127.0.0.1", primary.port), 1).close()
        except OSError:
            time.sleep(0.05)
            return False
        return refresh(terms, folder, AT).change is Change.REPLACED

    wait_until("the zone is transferred", came)
    assert len(names(folder)) == RULES


def test_zone_comes_whole_then_its_changes(primary: Primary, terms: TransferTerms, tmp_path: Path) -> None:
    """AXFR with a key; a change is told by NOTIFY, heard and answered, and comes as IXFR."""
    feeds = tmp_path / "feeds"
    taken(primary, terms, feeds)
    assert "AXFR" in primary.said()
    assert "IXFR" not in primary.said()

    primary.update(7, add="added.example.org.rpz.example.", delete="n5.example.org.rpz.example.")
    wait_until("NOTIFY names the zone and its serial", lambda: ("vendor", 7) in primary.listener.heard)
    wait_until("the primary took the answer", lambda: NOTIFIED.search(primary.said()))
    outcome = refresh(terms, feeds, AT + 1)
    assert (outcome.change, outcome.transfer, outcome.serial) == (Change.REPLACED, Transfer.IXFR, 7), outcome.error
    assert names(feeds) == {f"n{i}.example.org" for i in range(RULES) if i != 5} | {"added.example.org"}
    assert "IXFR" in primary.said()
    assert primary.said().count("AXFR") == primary.said().split("IXFR")[0].count("AXFR")
    assert refresh(terms, feeds, AT + 2).change is Change.UNCHANGED


def test_wrong_key_takes_nothing_and_the_copy_stays(primary: Primary, terms: TransferTerms, tmp_path: Path) -> None:
    """A key with another secret, or none, is refused by the primary, and what was there stays."""
    feeds = tmp_path / "feeds"
    taken(primary, terms, feeds)
    primary.update(7, add="added.example.org.rpz.example.", delete="n5.example.org.rpz.example.")
    wrong = replace(terms, key=TsigKey.from_text("feed.example", "hmac-sha256", "d3Jvbmc="), timeout=1.0)
    for bad, why in ((wrong, "check the secret"), (replace(terms, key=None), "")):
        outcome = refresh(bad, feeds, AT)
        assert (outcome.change, outcome.serial) == (Change.FAILED, 1)
        assert why in (outcome.error or "")
    assert len(names(feeds)) == RULES
    assert "added.example.org" not in names(feeds)


def test_primary_that_is_gone_leaves_the_copy(primary: Primary, terms: TransferTerms, tmp_path: Path) -> None:
    """With no primary the copy stays, until its SOA says that it has expired, and beyond."""
    feeds = tmp_path / "feeds"
    taken(primary, terms, feeds)
    primary.stop()
    soon, late = (refresh(replace(terms, timeout=0.5), feeds, at) for at in (AT + 1, AT + 90_000))
    assert (soon.change, soon.is_expired, soon.next_at) == (Change.FAILED, False, AT + 601)
    assert (late.change, late.is_expired) == (Change.FAILED, True)
    assert len(names(feeds)) == RULES
