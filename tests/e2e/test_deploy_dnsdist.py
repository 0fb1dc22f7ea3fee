"""dnsdist in front, by the configuration that deploy/ ships: who asks is known behind it, and a server may fail."""

import contextlib
import csv
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dns.flags
import dns.message
import dns.rdatatype
import pytest

from tests.support.encrypted import ENCRYPTED, NAME, Covered, program, rcode_of, whoami
from tests.support.house import ask
from tests.support.peers import require_peer
from tests.support.server import Server, ask_udp, free_port, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SHIPPED = (Path(__file__).parents[2] / "deploy/dnsdist/dnsdist.conf").read_text()
DNSDIST = "127.0.0.2"
AT_HOME, ABROAD = "127.0.20.7", "127.0.0.30"
GROUPS = [
    {"name": "everyone", "networks": ["0.0.0.0/0", "::/0"]},
    {"name": "phones", "networks": ["127.0.20.0/24"]},
]


@dataclass
class Front:
    """A dnsdist with the shipped configuration, whose addresses and files are those of the test, before two servers."""

    ports: dict[str, int]
    servers: list[Server]
    covered: Covered
    token: str

    def asking(self, over: str, source: str, token: str = "", shown: str = "path") -> Callable[[bytes], bytes]:
        """A way to ask: over what, from which address, and the token where it is shown."""
        port = self.ports["443" if over == "https" else "853" if over == "tls" else "53"]

        def question(packet: bytes) -> bytes:
            if over == "udp":
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.bind((source, 0))
                    sock.settimeout(2)
                    sock.sendto(packet, ("127.0.0.1", port))
                    return sock.recv(65535)
            if over == "tcp":
                with socket.create_connection(("127.0.0.1", port), 5, (source, 0)) as sock:
                    sock.sendall(len(packet).to_bytes(2, "big") + packet)
                    with sock.makefile("rb") as file:
                        return file.read(int.from_bytes(file.read(2), "big"))
            if over == "tls":
                name = f"{token}.{NAME}" if token else NAME
                with self.covered.dot(name, source=source, port=port) as line:
                    return line.ask(packet)
            with self.covered.doh(source=source, port=port) as web:
                return web.ask(packet, *(token or None,) if shown == "path" else (None, token))

        return question

    def hits(self, name: str, columns: str = "client, client_group, device") -> list[tuple[object, ...]]:
        """What the evidence of both has of a name, once it has some."""
        return wait_until(
            f"a hit on {name}",
            lambda: [row[1:] for server in self.servers for row in server.hits(f"qname, {columns}") if row[0] == name],
        )


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """The text with other words, each of which was in it."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, upstream: tuple[str, int]) -> Iterator[Front]:
    """Both servers forbid the same and know the same devices; every test leaves them running."""
    folder = tmp_path_factory.mktemp("front")
    # Its own name is all that a server behind dnsdist has to know: below it stand tokens.
    nothing: dict[str, list[str]] = {transport.value: [] for transport in ENCRYPTED}
    pair = []
    for number in (1, 2):
        (folder / str(number)).mkdir()
        pair.append(
            Covered(folder / str(number), upstream, GROUPS, encrypted=nothing, proxies=[f"{DNSDIST}/32"], workers=1)
        )
    for one in pair:
        one.server.ban("order-1", "banned-app.ca")
        one.server.ban("order-2", "phone-app.ca")
        one.server.config["policy"]["orders"] = [
            {"order": "order-1", "groups": ["everyone", "phones"]},
            {"order": "order-2", "groups": ["phones"]},
        ]
        one.server.write()
    first, second = pair
    (folder / "staff.csv").write_text("Device name,Serial number\nphone-7,S1\n")
    first.manage("import", str(folder / "staff.csv"), "--group", "phones", "--out", str(folder / "devices.csv"))
    second.manage("import", str(folder / "devices.csv"), "--no-token")
    with (folder / "devices.csv").open(newline="") as file:
        (device,) = csv.DictReader(file)
    ports = {name: free_port() for name in ("53", "853", "443")}
    conf = folder / "dnsdist.conf"
    conf.write_text(
        replaced(
            SHIPPED,
            *((f'"0.0.0.0:{name}"', f'"127.0.0.1:{port}"') for name, port in ports.items()),
            *((f'"[::]:{name}"', f'"[::1]:{port}"') for name, port in ports.items()),
            *((f'"192.0.2.{n}:53"', f'"127.0.0.1:{one.server.port}"') for n, one in enumerate(pair, 1)),
            ('this = "192.0.2.10"', f'this = "{DNSDIST}"'),
            ("/etc/dnsdist/fullchain.pem", str(first.certificate)),
            ("/etc/dnsdist/privkey.pem", str(first.key)),
        )
    )
    try:
        for one in pair:
            one.server.start()
        command = [require_peer("dnsdist"), "--supervised", "--disable-syslog", "-C", str(conf)]
        with program(folder, *command, port=ports["443"]):
            made = Front(ports, [one.server for one in pair], first, device["token"])
            for over in ("udp", "https"):
                persist(made.asking(over, "127.0.0.1"), "www.example.ca")
            yield made
    finally:
        for one in pair:
            one.server.end()


def persist(asking: Callable[[bytes], bytes], name: str) -> str:
    """The RCODE that a client gets who asks again, as all do; SERVFAIL and nothing are no answer."""

    def once() -> str | None:
        with contextlib.suppress(OSError, EOFError, AssertionError):
            found = rcode_of(asking(ask(name)))
            return None if found == "SERVFAIL" else found
        return None

    return wait_until(f"an answer to {name}", once) or ""


@pytest.mark.parametrize("over", ["udp", "tcp", "tls", "https"])
def test_the_client_itself_is_held_to_its_group_and_in_the_evidence(front: Front, over: str) -> None:
    """By its own address: what is forbidden to phones is withheld from a phone's network, and from no other."""
    phone, other = front.asking(over, AT_HOME), front.asking(over, ABROAD)

    assert rcode_of(phone(ask(f"{over}.phone-app.ca"))) == "NXDOMAIN"
    assert rcode_of(other(ask(f"{over}.phone-app.ca"))) == "NOERROR"
    assert rcode_of(other(ask(f"{over}.banned-app.ca"))) == "NXDOMAIN"
    assert front.hits(f"{over}.phone-app.ca") == [(AT_HOME, "phones", "")]
    assert front.hits(f"{over}.banned-app.ca") == [(ABROAD, "everyone", "")]


@pytest.mark.parametrize(
    ("over", "shown"), [("tls", "server name"), ("https", "path"), ("https", "bearer")], ids=["name", "path", "bearer"]
)
def test_a_device_is_known_on_any_network(front: Front, over: str, shown: str) -> None:
    """By its token, in the name that it calls, behind the path, or in the field for it."""
    name = f"{shown.replace(' ', '-')}.phone-app.ca"
    phone = front.asking(over, ABROAD, front.token, shown)

    assert whoami(phone)["device"] == "phone-7"
    assert rcode_of(phone(ask(name))) == "NXDOMAIN"
    assert front.hits(name) == [(ABROAD, "phones", "phone-7")]


def test_a_device_is_known_by_the_host_of_http(front: Front, peer: Callable[[str], str]) -> None:
    """Which is all that dnsdist says of the name that a client of DNS over HTTPS called."""
    said = subprocess.run(
        [peer("kdig"), "@127.0.0.1", "-p", str(front.ports["443"]), "-b", ABROAD,
         f"+tls-ca={front.covered.ca_file}", f"+https=https://{front.token}.{NAME}/dns-query", "host.phone-app.ca"],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip

    assert "status: NXDOMAIN" in said
    assert front.hits("host.phone-app.ca") == [(ABROAD, "phones", "phone-7")]


@pytest.mark.parametrize(("over", "shown"), [("tls", "server name"), ("https", "path"), ("https", "bearer")])
def test_a_token_that_is_nobodys_is_refused(front: Front, over: str, shown: str) -> None:
    """dnsdist vouches for nobody: what it passes on is looked up as if it had been shown to the server."""
    assert rcode_of(front.asking(over, AT_HOME, "a" * 26, shown)(ask("www.example.ca"))) == "REFUSED"


def test_a_client_can_not_say_who_it_is_in_a_header_of_its_own(front: Front) -> None:
    """A PROXY header that does not come from dnsdist is no question to it."""
    token = front.token.encode()
    source = bytes([127, 0, 20, 7, 127, 0, 0, 1, 0x10, 0, 0, 53])
    block = source + b"\xe0" + len(token).to_bytes(2, "big") + token
    header = b"\r\n\r\n\0\r\nQUIT\n\x21\x12" + len(block).to_bytes(2, "big") + block

    with contextlib.suppress(TimeoutError):
        front.asking("udp", ABROAD)(header + ask("forged.phone-app.ca"))
    assert rcode_of(front.asking("udp", ABROAD)(ask("true.phone-app.ca"))) == "NOERROR"
    rows = [row for server in front.servers for row in server.hits("qname, device")]
    assert ("forged.phone-app.ca", "phone-7") not in rows


@pytest.mark.parametrize("over", ["tls", "https"])
def test_long_answers_arrive_whole(front: Front, over: str) -> None:
    """Over TLS nothing is cut to the size of a datagram."""
    reply = dns.message.from_wire(front.asking(over, ABROAD)(ask("big.upstream-zone", dns.rdatatype.TXT)))

    assert "TC" not in dns.flags.to_text(reply.flags)
    assert len(reply.to_wire()) > 4000


def test_tls_has_the_suites_that_are_recommended(front: Front, peer: Callable[[str], str]) -> None:
    """dnsdist ends TLS, so it is its own suites that count: no version before 1.2, no ChaCha20."""

    def shaken(port: str, *words: str) -> str:
        return subprocess.run(
            [peer("openssl"), "s_client", "-connect", f"127.0.0.1:{front.ports[port]}", *words],
            input="Q\n", capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip

    for port in ("853", "443"):
        assert "Cipher is TLS_AES_256_GCM_SHA384" in shaken(port)
        assert "Cipher is TLS_AES_128_CCM_SHA256" in shaken(port, "-ciphersuites", "TLS_AES_128_CCM_SHA256")
        assert "Cipher is (NONE)" in shaken(port, "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256", "-tls1_3")
        assert "Cipher is ECDHE-ECDSA-AES128-GCM-SHA256" in shaken(
            port, "-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256"
        )
        assert "Cipher is (NONE)" in shaken(port, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")


def test_a_server_that_stops_is_left_out_and_one_that_comes_back_is_not(front: Front) -> None:
    """Every client has its answers meanwhile, and what was withheld is in the evidence of one server or the other."""
    withheld = []

    def all_answered(phase: str) -> None:
        for n in range(10):
            for over, token in (("udp", ""), ("tls", front.token), ("https", front.token)):
                withheld.append(f"{phase}-{n}-{over}.{'phone' if token else 'banned'}-app.ca")
                assert persist(front.asking(over, ABROAD, token), withheld[-1]) == "NXDOMAIN"

    first, second = front.servers
    all_answered("both")
    assert first.stop() == 0
    all_answered("second")
    asked_first = {row[0] for row in first.hits()}
    first.start()
    # No question reaches the second any more: that there are answers at all is the first one's doing.
    all_answered("back")
    assert second.stop() == 0
    try:
        all_answered("first")
    finally:
        second.start()
    persist(front.asking("udp", ABROAD), "www.example.ca")

    def found(*servers: Server) -> set[object]:
        return {row[0] for server in servers for row in server.hits()}

    wait_until("all hits are stored", lambda: set(withheld) <= found(first, second))
    assert not any(str(name).startswith("second-") for name in asked_first)
    assert {name for name in withheld if name.startswith("first-")} <= found(first)


def test_a_server_that_hangs_is_left_out(front: Front) -> None:
    """Its health check finds one that is frozen, though its ports are open; afterwards no query waits for it."""
    (worker,) = [pid for name, pid in front.servers[0].pids().items() if name.startswith("worker")]
    row = 0

    def in_a_row() -> bool:
        nonlocal row
        try:
            found = rcode_of(ask_udp(front.ports["53"], ask(f"n{row}.banned-app.ca"), wait=1.0))
        except TimeoutError:
            found = ""
        row = row + 1 if found == "NXDOMAIN" else 0
        return row == 20

    frozen = os.pidfd_open(worker)
    signal.pidfd_send_signal(frozen, signal.SIGSTOP)
    try:
        wait_until("twenty answers in a row", in_a_row)
    finally:
        with contextlib.suppress(ProcessLookupError):  # who hangs for long is replaced
            signal.pidfd_send_signal(frozen, signal.SIGCONT)
        os.close(frozen)


def test_it_asks_after_a_name_that_is_answered_without_an_upstream(make_server: Callable[..., Server]) -> None:
    """An upstream's failure does not take the servers out."""
    (name,) = re.findall(r'checkName = "([^"]+)"', SHIPPED)
    alone = make_server(("127.0.0.1", free_port())).start()

    assert rcode_of(ask_udp(alone.port, ask(name))) == "NOERROR"


def test_the_servers_believe_the_address_that_it_asks_from() -> None:
    """What its head tells the operator to write is the address in its configuration."""
    (this,) = re.findall(r'^local this = "([^"]+)"', SHIPPED, re.MULTILINE)

    assert f'proxies: ["{this}/32"]' in SHIPPED
