"""The running resolver as clients of encrypted DNS see it: those of the command line, forwarders, proxies."""

import contextlib
import json
import os
import re
import socket
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.message
import dns.rdatatype
import pytest

from resolver.policy.client import Transport
from resolver.transport.tls import server_context
from tests.support.encrypted import (
    ENCRYPTED,
    NAME,
    PAGE,
    Covered,
    Line,
    Web,
    evidence_of,
    points_home,
    program,
    rcode_of,
    run,
    site,
    whoami,
)
from tests.support.house import ask
from tests.support.peers import require_peer
from tests.support.secure_upstream import pin_of
from tests.support.server import SlowUpstream, ask_udp, free_port, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
Peer = Callable[[str], str]

BANNED, ALLOWED = "im.banned-app.ca", "www.allowed.ca"
PROXY = "127.0.0.2"  # sends PROXY headers; nobody else comes from there


@pytest.fixture(scope="module")
def covered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Covered]:
    """A server that speaks everything; to it every allowed name is this machine."""
    with SlowUpstream(points_home) as upstream:
        made = Covered(tmp_path_factory.mktemp("covered"), upstream.address, proxies=[f"{PROXY}/32"])
        made.server.ban("order-1", "banned-app.ca")
        made.enrol("laptop-1")
        try:
            made.server.start()
            yield made
        finally:
            made.server.end()


# ---- those of the command line --------------------------------------------------------------------------------------


def dug(path: str, covered: Covered, how: str, *words: str) -> str:
    """What dig or kdig prints for a way of asking: the server's name and certificate verified."""
    trust = [f"+tls-ca={covered.ca_file}", f"+tls-hostname={NAME}"]
    port = covered.server.port
    if how in ("+tls", "+quic"):
        port = covered.ports[Transport.DOT]
    elif "https" in how:
        port = covered.ports[Transport.DOH]
    if how in ("+notcp", "+tcp"):
        trust = []
    elif path.endswith("kdig") and how == "+https-get":
        trust.append("+https")
    # In this order: what kdig is told of TLS makes it forget QUIC.
    return run(path, "@127.0.0.1", "-p", str(port), *trust, how, "+edns", *words)


WAYS = [
    *(("kdig", how) for how in ("+tls", "+https", "+https-get", "+quic")),
    *(("dig", how) for how in ("+tls", "+https", "+https-get")),
]


@pytest.mark.parametrize(("client", "how"), WAYS)
def test_a_banned_name_is_withheld_and_an_allowed_one_answered(
    covered: Covered, peer: Peer, client: str, how: str
) -> None:
    """By two clients that verify name and certificate; the reason is there to be read (EDE 16)."""
    banned = dug(peer(client), covered, how, BANNED)
    allowed = dug(peer(client), covered, how, ALLOWED)

    assert "status: NXDOMAIN" in banned
    assert "EDE: 16 (Censored)" in banned
    assert re.search(r"www\.allowed\.ca\.\s+\d+\s+IN\s+A\s+127\.0\.0\.1", allowed)


@pytest.mark.parametrize(
    ("client", "how"), [("kdig", "+tls"), ("kdig", "+https"), ("kdig", "+quic"), ("dig", "+tls"), ("dig", "+https")]
)
def test_another_name_is_not_believed(covered: Covered, peer: Peer, client: str, how: str) -> None:
    """The certificate names this server; a client that wants another one gets nothing from it."""
    trust = [f"+tls-ca={covered.ca_file}", "+tls-hostname=dns.example.net", "+retry=0"]
    port = covered.ports[Transport.DOH if how == "+https" else Transport.DOT]
    said = run(peer(client), "@127.0.0.1", "-p", str(port), *trust, how, BANNED, check=False)

    assert "NXDOMAIN" not in said


@pytest.mark.parametrize("how", ["+tls", "+https"])
@pytest.mark.parametrize("name", [BANNED, ALLOWED, "whoami.interdict.test"])
def test_padded_replies_tell_nothing_by_their_length(covered: Covered, peer: Peer, how: str, name: str) -> None:
    """A multiple of 468 octets (RFC 8467 §4.1), whatever is said; over UDP nothing is padded."""
    padded = dug(peer("kdig"), covered, how, "+padding", name, "TXT")
    plain = dug(peer("kdig"), covered, "+notcp", "+padding=128", name, "TXT")

    assert int(re.findall(r"Received (\d+) B", padded)[0]) % 468 == 0
    assert int(re.findall(r"Received (\d+) B", plain)[0]) % 468


@pytest.mark.parametrize(
    ("how", "told"), [("+tcp", "10.0 secs"), ("+tls", "30.0 secs"), ("+https", None), ("+notcp", None)]
)
@pytest.mark.parametrize("name", [BANNED, ALLOWED])
def test_keepalive_is_told_where_a_message_may_tell_it(
    covered: Covered, peer: Peer, how: str, told: str | None, name: str
) -> None:
    """Over TCP and TLS (RFC 7828 §3.3.2); over UDP it has no meaning, and over HTTPS the connection is HTTP's."""
    said = dug(peer("dig"), covered, how, "+keepalive", name)

    assert re.findall(r"TCP[- ]KEEPALIVE: (.+)", said) == ([told] if told else [])


def test_curl_resolves_by_it(covered: Covered, peer: Peer) -> None:
    """A page of a name that only this server knows the address of; a banned one has none."""
    curl = [peer("curl"), "--silent", "--show-error", "--cacert", covered.ca_file, "--doh-url", covered.url()]

    with site() as page:
        assert run(*curl, f"http://{ALLOWED}:{page.port}/") == PAGE
        assert "curl: (6)" in run(*curl, f"http://{BANNED}:{page.port}/", check=False)


@pytest.mark.parametrize(("version", "number"), [("--http1.1", "1.1"), ("--http2", "2")])
def test_curl_posts_a_question(covered: Covered, peer: Peer, tmp_path: Path, version: str, number: str) -> None:
    """Each version of HTTP, with what goes with the answer: its type, its freshness, and where HTTP/3 is spoken."""
    (tmp_path / "query").write_bytes(ask(BANNED))
    said = run(
        peer("curl"), "--silent", "--show-error", "--cacert", covered.ca_file, version, "--data-binary", "@query",
        "--header", "Content-Type: application/dns-message", "--output", "reply",
        "--write-out", "%{http_version} %{http_code}\n%{header_json}", covered.url(), cwd=tmp_path,
    )  # fmt: skip
    line, _, fields = said.partition("\n")
    headers = json.loads(fields)

    assert line == f"{number} 200"
    assert rcode_of((tmp_path / "reply").read_bytes()) == "NXDOMAIN"
    assert headers["content-type"] == ["application/dns-message"]
    assert headers["cache-control"] == ["private, max-age=30"]
    assert headers["alt-svc"] == [f'h3=":{covered.ports[Transport.DOH3]}"; ma=86400']


def test_the_page_says_whether_a_device_is_covered(covered: Covered, peer: Peer) -> None:
    """To a browser without scripts, in both languages; nothing keeps it."""
    url = covered.url().replace("dns-query", "covered")
    said = run(peer("curl"), "--silent", "--show-error", "--include", "--cacert", covered.ca_file, url)

    assert re.search(r"^content-type: text/html; charset=utf-8\s*$", said, re.MULTILINE | re.IGNORECASE)
    assert re.search(r"^cache-control: no-store\s*$", said, re.MULTILINE | re.IGNORECASE)
    assert "This device is covered by Interdict" in said
    assert "Cet appareil est couvert" in said
    assert "order-1" in said


@pytest.mark.parametrize("path", [None, "/dns-query"], ids=["doq", "doh3"])
def test_over_quic(covered: Covered, path: str | None) -> None:
    """DNS over QUIC and over HTTP/3, by the library's own client."""
    assert rcode_of(covered.quic(ask(BANNED), path=path)) == "NXDOMAIN"
    assert dns.message.from_wire(covered.quic(ask(ALLOWED), path=path)).answer[0][0].to_text() == "127.0.0.1"
    assert whoami(lambda query: covered.quic(query, path=path))["transport"] == ("doh3" if path else "doq")


# ---- TLS ------------------------------------------------------------------------------------------------------------


def shaken(path: str, covered: Covered, *words: str, port: Transport = Transport.DOT, said: str = "Q\n") -> str:
    """What `openssl s_client` tells of a handshake; what is said to it afterwards: Q ends it, R renegotiates."""
    done = subprocess.run(
        [path, "s_client", "-connect", f"127.0.0.1:{covered.ports[port]}", "-servername", NAME,
         "-CAfile", covered.ca_file, "-verify_hostname", NAME, *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, input=said, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.stdout


SUITES = [suite["name"] for suite in server_context(["dot"], None).get_ciphers() if suite["protocol"] == "TLSv1.2"]


@pytest.mark.parametrize("port", [Transport.DOT, Transport.DOH])
def test_old_versions_are_refused(covered: Covered, peer: Peer, port: Transport) -> None:
    """TLS 1.1 and before, though the client would take anything."""
    for version in ("-tls1", "-tls1_1"):
        said = shaken(peer("openssl"), covered, version, "-cipher", "ALL:@SECLEVEL=0", port=port)
        assert "Cipher is (NONE)" in said


def test_tls_1_2_has_the_listed_suites_alone(covered: Covered, peer: Peer) -> None:
    """Those with a certificate of this kind, one by one; the others that OpenSSL knows find no agreement."""
    openssl = peer("openssl")
    known = run(openssl, "ciphers", "-tls1_2", "-s", "ALL:@SECLEVEL=0").strip().split(":")
    taken = [suite for suite in SUITES if suite.startswith("ECDHE-ECDSA")]

    assert taken
    for suite in taken:
        said = shaken(openssl, covered, "-tls1_2", "-cipher", suite)
        assert f"Cipher is {suite}" in said
        assert "Verify return code: 0 (ok)" in said
    others = [suite for suite in known if suite not in SUITES]
    assert "ECDHE-ECDSA-CHACHA20-POLY1305" in others
    refused = shaken(openssl, covered, "-tls1_2", "-cipher", ":".join([*others, "@SECLEVEL=0"]))
    assert "Cipher is (NONE)" in refused


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("port", [Transport.DOT, Transport.DOH])
def test_sessions_are_resumed_whichever_worker_answers(
    covered: Covered, peer: Peer, tmp_path: Path, port: Transport, version: str
) -> None:
    """Ticket keys are shared: of eight connections none begins anew, and both workers will have had some."""
    session = str(tmp_path / "session")
    openssl = peer("openssl")
    # The tickets of TLS 1.3 come after the handshake: s_client has to wait for something to come.
    with subprocess.Popen(
        [openssl, "s_client", "-connect", f"127.0.0.1:{covered.ports[port]}", "-servername", NAME, version,
         "-sess_out", session],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as first:  # fmt: skip
        wait_until("a session is kept", lambda: os.path.exists(session) and os.path.getsize(session))
        first.communicate(b"Q\n")

    for _ in range(8):
        assert f"Reused, {'TLSv1.3' if version == '-tls1_3' else 'TLSv1.2'}" in shaken(
            openssl, covered, version, "-sess_in", session, port=port
        )


def test_nothing_is_negotiated_anew_and_nothing_early(covered: Covered, peer: Peer) -> None:
    """Renegotiation is refused, data before the handshake's end is not offered, and there is no compression."""
    asked_anew = shaken(peer("openssl"), covered, "-tls1_2", said="R\n")
    plain = shaken(peer("openssl"), covered, "-tls1_3")

    assert "no renegotiation" in asked_anew
    assert "Compression: NONE" in plain
    assert "Early data was not sent" in plain
    assert "Max Early Data: 0" in plain or "Max Early Data" not in plain


@pytest.mark.parametrize(
    ("port", "offered", "chosen"),
    [
        (Transport.DOT, "dot", "ALPN protocol: dot"),
        (Transport.DOH, "h2,http/1.1", "ALPN protocol: h2"),
        (Transport.DOH, "http/1.1", "ALPN protocol: http/1.1"),
    ],
)
def test_the_protocol_is_agreed_on(covered: Covered, peer: Peer, port: Transport, offered: str, chosen: str) -> None:
    """By ALPN, HTTP/2 before HTTP/1.1."""
    assert chosen in shaken(peer("openssl"), covered, "-alpn", offered, port=port)


# ---- forwarders -----------------------------------------------------------------------------------------------------


def forwards(port: int, name: str) -> str:
    """The RCODE that a forwarder passes on; empty while it gives none."""
    try:
        return rcode_of(ask_udp(port, ask(name), wait=2.0))
    except OSError:
        return ""


STUBBY = """\
resolution_type: GETDNS_RESOLUTION_STUB
dns_transport_list:
  - GETDNS_TRANSPORT_TLS
tls_authentication: GETDNS_AUTHENTICATION_REQUIRED
tls_query_padding_blocksize: 128
idle_timeout: 5000
listen_addresses:
  - 127.0.0.1@{port}
upstream_recursive_servers:
  - address_data: 127.0.0.1
    tls_port: {dot}
    {proof}
"""
UNBOUND = """\
server:
  chroot: ""
  directory: "{folder}"
  username: ""
  pidfile: ""
  use-syslog: no
  interface: 127.0.0.1@{port}
  do-not-query-localhost: no
  module-config: "iterator"
  tls-cert-bundle: "{ca}"
forward-zone:
  name: "."
  forward-tls-upstream: yes
  forward-addr: 127.0.0.1@{dot}#{name}
"""
KRESD = """\
net.listen("127.0.0.1", {port}, {{ kind = "dns" }})
cache.open(10 * MB, "lmdb://{folder}/cache")
trust_anchors.remove(".")
policy.add(policy.all(policy.TLS_FORWARD({{{{ "127.0.0.1@{dot}", hostname = "{name}", ca_file = "{ca}" }}}})))
"""


@pytest.mark.parametrize("proof", ["name", "pin", "another pin"])
def test_stubby_in_its_strict_profile(covered: Covered, peer: Peer, tmp_path: Path, proof: str) -> None:
    """Only to the server that it was told of, by name and authority or by its key's digest (RFC 8310 §8)."""
    port = free_port()
    good = pin_of(covered.certificate)
    pin = b64encode(good if proof == "pin" else good[::-1]).decode()
    told = f'tls_pubkey_pinset:\n      - digest: "sha256"\n        value: {pin}'
    if proof == "name":
        told = f'tls_auth_name: "{NAME}"'
    text = STUBBY.format(port=port, dot=covered.ports[Transport.DOT], proof=told)
    if proof == "name":
        text += f'tls_ca_file: "{covered.ca_file}"\n'
    config = tmp_path / "stubby.yml"  # what has another ending is JSON to it
    config.write_text(text)

    with program(tmp_path, peer("stubby"), "-C", str(config)):
        wait_until("stubby answers", lambda: forwards(port, ALLOWED))
        if proof == "another pin":
            assert forwards(port, ALLOWED) == forwards(port, BANNED) == "SERVFAIL"
            return
        assert forwards(port, ALLOWED) == "NOERROR"
        assert forwards(port, BANNED) == "NXDOMAIN"
        assert whoami(lambda query: ask_udp(port, query))["transport"] == "dot"


@pytest.mark.parametrize("server", ["unbound", "kresd"])
def test_a_resolver_that_forwards_to_it(covered: Covered, peer: Peer, tmp_path: Path, server: str) -> None:
    """Unbound and Knot Resolver over TLS, name and certificate verified; their clients are held to the order."""
    port = free_port()
    text, words = {"unbound": (UNBOUND, ["-d", "-p", "-c", "conf"]), "kresd": (KRESD, ["-n", "-c", "conf", "."])}[
        server
    ]
    dot = covered.ports[Transport.DOT]
    (tmp_path / "conf").write_text(text.format(folder=tmp_path, port=port, dot=dot, ca=covered.ca_file, name=NAME))

    with program(tmp_path, peer(server), *words, cwd=tmp_path):
        wait_until(f"{server} answers", lambda: forwards(port, ALLOWED) == "NOERROR")
        assert forwards(port, BANNED) == "NXDOMAIN"
    assert ("127.0.0.1", "dot", BANNED) in covered.server.hits("client, transport, qname")


# ---- proxies --------------------------------------------------------------------------------------------------------

DNSDIST = """\
setSecurityPollSuffix("")
setVerboseHealthChecks(true)
setLocal("127.0.0.1:{plain}")
addTLSLocal("127.0.0.1:{dot}", "{certificate}", "{key}")
addDOHLocal("127.0.0.1:{doh}", "{certificate}", "{key}", {{"/dns-query"}}, {{exactPathMatching = false}})
newServer({{address = "127.0.0.1:{backend}", source = "{proxy}", useProxyProtocol = true, checkName = "health.invalid.",
  checkInterval = 1, mustResolve = false}})
addAction(AllRule(), LuaAction(function(dq)
  local values = {{}}
  local name = dq:getServerNameIndication()
  if name ~= "" then values[2] = name end
  local ok, path = pcall(function() return dq:getHTTPPath() end)
  local token = ok and path:match("^/dns%-query/(.+)$")
  if token then values[0xE0] = token end
  dq:setProxyProtocolValues(values)
  return DNSAction.None, ""
end))
"""


@pytest.fixture(scope="module")
def dnsdist(covered: Covered, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, int], Path]]:
    """dnsdist in front, which ends TLS itself and passes on who asked, and what he showed; its ports and its log."""
    folder = tmp_path_factory.mktemp("dnsdist")
    ports = {kind: free_port() for kind in ("plain", "dot", "doh")}
    (folder / "conf").write_text(
        DNSDIST.format(
            **ports, backend=covered.server.port, proxy=PROXY, certificate=covered.certificate, key=covered.key
        )
    )
    command = [require_peer("dnsdist"), "--supervised", "--disable-syslog", "-C", str(folder / "conf")]
    with program(folder, *command, port=ports["doh"]) as log:
        wait_until("its health check passes", lambda: forwards(ports["plain"], ALLOWED) == "NOERROR")
        yield ports, log


@pytest.mark.parametrize("over", ["+notcp", "+tcp", "+tls", "+https"])
def test_dnsdist_passes_on_who_asks(
    covered: Covered, dnsdist: tuple[dict[str, int], Path], peer: Peer, over: str
) -> None:
    """Plain and encrypted: the client's own address is in the evidence, not the proxy's."""
    ports, _ = dnsdist
    source = {"+notcp": "127.0.0.11", "+tcp": "127.0.0.12", "+tls": "127.0.0.13", "+https": "127.0.0.14"}[over]
    name = f"d{over[1:]}.banned-app.ca"
    kind = {"+tls": "dot", "+https": "doh"}.get(over, "plain")

    said = run(peer("kdig"), "@127.0.0.1", "-b", source, "-p", str(ports[kind]), over, name)

    assert "status: NXDOMAIN" in said
    assert [row[:2] for row in evidence_of(covered, name)] == [(source, "")]


@pytest.mark.parametrize("shown", ["server name", "path"])
def test_dnsdist_passes_on_what_a_device_shows(
    covered: Covered, dnsdist: tuple[dict[str, int], Path], peer: Peer, shown: str
) -> None:
    """The name that it called dnsdist by, and the token in its path, are as good as if it had shown them here."""
    ports, _ = dnsdist
    name = f"{shown.replace(' ', '-')}.banned-app.ca"
    token = covered.tokens["laptop-1"]
    words = {
        "server name": ["-p", str(ports["dot"]), "+tls", f"+tls-sni={token}.{NAME}"],
        "path": ["-p", str(ports["doh"]), f"+tls-ca={covered.ca_file}", f"+https=https://{NAME}/dns-query/{token}"],
    }[shown]

    said = run(peer("kdig"), "@127.0.0.1", "-b", "127.0.0.15", *words, name)

    assert "status: NXDOMAIN" in said
    assert [row[:2] for row in evidence_of(covered, name)] == [("127.0.0.15", "laptop-1")]


def test_dnsdist_finds_the_server_alive(dnsdist: tuple[dict[str, int], Path]) -> None:
    """Its own questions carry a header that names no client, and are answered."""
    _, log = dnsdist
    assert "as 'up'" in log.read_text()
    assert "as 'down'" not in log.read_text()


def test_a_proxy_that_says_nothing_is_not_answered(covered: Covered) -> None:
    """From its address nothing counts without a header: not a datagram, and not a connection."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((PROXY, 0))
        sock.settimeout(0.5)
        sock.sendto(ask(BANNED), ("127.0.0.1", covered.server.port))
        with pytest.raises(TimeoutError):
            sock.recv(512)
    with socket.create_connection(("127.0.0.1", covered.server.port), 10, (PROXY, 0)) as sock:
        query = ask(BANNED)
        sock.sendall(len(query).to_bytes(2, "big") + query)
        assert sock.recv(512) == b""


# ---- those who mean harm --------------------------------------------------------------------------------------------

HALF_OPEN, SLOW = 300, 25  # the latter of DoT, and as many of DoH
MOST_MORE = 30 << 20  # octets a worker; connections fall to one or the other by chance


def test_half_open_handshakes_and_slow_readers_cost_little(covered: Covered) -> None:
    """Another client, on a connection and by new ones, is served while they hang on; and memory stays where it was."""
    question = ask("long.allowed.ca", dns.rdatatype.TXT)
    head = f"POST /dns-query HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/dns-message\r\n"
    of_dot = (len(question).to_bytes(2, "big") + question) * 500
    of_doh = (f"{head}Content-Length: {len(question)}\r\n\r\n".encode() + question) * 500
    longest = 0.0

    def served(line: Line) -> None:
        nonlocal longest
        start = time.monotonic()
        assert rcode_of(line.ask(ask(BANNED))) == "NXDOMAIN"
        with covered.dot() as fresh, covered.doh() as web:
            assert rcode_of(fresh.ask(ask(ALLOWED))) == "NOERROR"
            assert rcode_of(web.ask(ask(ALLOWED))) == "NOERROR"
        longest = max(longest, time.monotonic() - start)

    with contextlib.ExitStack() as stack:
        line = stack.enter_context(covered.dot())
        served(line)
        before = covered.pss()
        for number in range(HALF_OPEN):
            half = stack.enter_context(
                socket.create_connection(("127.0.0.1", covered.ports[ENCRYPTED[number % 2]]), 10)
            )
            # The head of a record of 512 octets, and the first of a ClientHello.
            half.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            if number % 50 == 0:
                served(line)
        for number in range(SLOW):
            guests: list[tuple[Line | Web, bytes]] = [(covered.dot(), of_dot), (covered.doh(), of_doh)]
            for guest, octets in guests:
                stack.enter_context(guest)
                slow = guest.sock
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                slow.settimeout(0.05)
                # Until the server takes no more of one who does not read.
                with contextlib.suppress(TimeoutError):
                    while True:
                        slow.sendall(octets)
            if number % 5 == 0:
                served(line)
        more = {worker: octets - before[worker] for worker, octets in covered.pss().items()}

    assert longest < 2.0
    assert sum(more.values()) < MOST_MORE * len(more)
