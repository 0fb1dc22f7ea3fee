"""The PROXY protocol as real proxies write it: whose queries they pass on is understood."""

import asyncio
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resolver.policy.client import Transport
from resolver.transport.secure import TlsExchange
from resolver.transport.secure_http import HttpsExchange
from resolver.transport.secure_identity import SecureTerms
from resolver.wire.message import read_reply
from resolver.wire.proxy import Carried, Proxied, read_header
from tests.support.house import ask
from tests.support.secure_upstream import Certificates, pin_of
from tests.support.server import free_port, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(program, arguments)`; ended after the test."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(*command: str) -> "subprocess.Popen[bytes]":
        with (tmp_path / "log").open("wb") as log:
            running.append(subprocess.Popen(command, stdout=log, stderr=log))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.wait(20)


DNSDIST = """\
setLocal("127.0.0.1:{port}")
setSecurityPollSuffix("")
newServer({{address = "127.0.0.1:{backend}", useProxyProtocol = true}}):setUp()
addAction(AllRule(), SetProxyProtocolValuesAction({{[{kind}] = "a-token"}}))
"""


@pytest.mark.parametrize("carried", Carried)
def test_what_dnsdist_writes_is_read(
    carried: Carried, peer: Callable[[str], str], start: Start, tmp_path: Path
) -> None:
    """Client, asked address, and the value that its configuration adds, before the query; over UDP and over TCP."""
    port = free_port()
    stream = carried is Carried.STREAM
    kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
    with socket.socket(type=kind) as backend, socket.socket(type=kind) as client:
        backend.settimeout(20)
        backend.bind(("127.0.0.1", 0))
        if stream:
            backend.listen()
        text = DNSDIST.format(port=port, backend=backend.getsockname()[1], kind=0xE0)
        (tmp_path / "conf").write_text(text)
        start(peer("dnsdist"), "--supervised", "--disable-syslog", "-C", str(tmp_path / "conf"))
        reach(port)
        query = ask("www.example.org")
        client.connect(("127.0.0.1", port))
        client.send(len(query).to_bytes(2, "big") + query if stream else query)
        octets, found = first_header(backend, stream)

        assert (found.source, found.source_port) == (bytes([127, 0, 0, 1]), client.getsockname()[1])
        assert (found.destination, found.destination_port) == (bytes([127, 0, 0, 1]), port)
        assert (found.is_local, found.carried, found.token) == (False, carried, "a-token")
        assert query[2:] in octets[found.length :]


IDENTITIES = """\
setLocal("127.0.0.1:{plain}")
setSecurityPollSuffix("")
addTLSLocal("127.0.0.1:{dot}", "{certificate}", "{certificate}")
addDOHLocal("127.0.0.1:{doh}", "{certificate}", "{certificate}", "/dns-query", {{ exactPathMatching = false }})
newServer({{ address = "127.0.0.1:{backend}", useProxyProtocol = true, tcpOnly = true }}):setUp()
addAction(AllRule(), LuaAction(function(dq)
  local values = {{}}
  local token = string.match(dq:getHTTPPath(), "^/dns%-query/([^/?]+)$")
  if token then values[0xE0] = token end
  local name = dq:getServerNameIndication()
  if name == "" then name = string.gsub(dq:getHTTPHost(), ":%d+$", "") end
  if name ~= "" then values[0x02] = name end
  dq:setProxyProtocolValues(values)
  return DNSAction.None, ""
end))
"""


@pytest.mark.parametrize(
    ("transport", "path", "expected"),
    [
        (Transport.DOT, "/", ("t1.dns.example.org", None)),
        (Transport.DOH, "/dns-query", ("t1.dns.example.org", None)),
        (Transport.DOH, "/dns-query/s3cret-t0ken", ("t1.dns.example.org", "s3cret-t0ken")),
    ],
)
def test_dnsdist_tells_what_a_device_showed_it(
    transport: Transport,
    path: str,
    expected: tuple[str | None, str | None],
    peer: Callable[[str], str],
    start: Start,
    tmp_path: Path,
) -> None:
    """The server name of TLS, or of HTTP, and what stands behind the path of DoH, with the query that came so."""
    ports = {kind: free_port() for kind in ("plain", "dot", "doh")}
    certificate = Certificates(tmp_path).issue("*.dns.example.org")

    async def story(backend: socket.socket) -> Proxied:
        loop = asyncio.get_running_loop()
        pins = (pin_of(certificate),)
        terms = SecureTerms(transport, "T1.dns.example.org", pins, str(tmp_path / "ca.pem"), path)
        made = TlsExchange if transport is Transport.DOT else HttpsExchange
        exchange = made(loop, "127.0.0.1", ports["dot" if transport is Transport.DOT else "doh"], terms)
        asking = asyncio.ensure_future(exchange.ask(ask("www.example.org"), read_reply, 20.0))
        found = await loop.run_in_executor(None, first_header, backend, True)
        exchange.close()
        await asyncio.gather(asking, return_exceptions=True)
        return found[1]

    with socket.socket() as backend:
        backend.settimeout(20)
        backend.bind(("127.0.0.1", 0))
        backend.listen()
        text = IDENTITIES.format(backend=backend.getsockname()[1], certificate=certificate, **ports)
        (tmp_path / "conf").write_text(text)
        start(peer("dnsdist"), "--supervised", "--disable-syslog", "-C", str(tmp_path / "conf"))
        reach(ports["doh"])
        reach(ports["dot"])
        found = asyncio.run(story(backend))

    assert (found.authority, found.token) == expected


HAPROXY = """\
global
    log stdout local0
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
frontend f
    bind 127.0.0.1:{port} ssl crt {folder}/server.pem ca-file {folder}/ca.pem verify optional alpn dot
    default_backend b
backend b
    server s 127.0.0.1:{backend} send-proxy-v2 proxy-v2-options {options}
"""


def test_what_haproxy_writes_is_read(peer: Callable[[str], str], start: Start, tmp_path: Path) -> None:
    """Server name, protocol, the verified certificate's name and a checksum, as it sends them behind its TLS."""
    made = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    openssl = peer("openssl")
    for name, more in (
        ("ca", ["-x509", "-subj", "/CN=authority"]),
        ("server", ["-x509", "-subj", "/CN=server", "-CA", "ca.crt", "-CAkey", "ca.key"]),
        ("phone", ["-x509", "-subj", "/CN=phone-17", "-CA", "ca.crt", "-CAkey", "ca.key"]),
    ):
        files = ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
        subprocess.run([openssl, "req", "-newkey", *made, *files, *more], cwd=tmp_path, check=True, capture_output=True)
        (tmp_path / f"{name}.pem").write_text(
            "".join((tmp_path / f"{name}.{end}").read_text() for end in ("crt", "key"))
        )
    port = free_port()
    with socket.socket() as backend:
        backend.settimeout(20)
        backend.bind(("127.0.0.1", 0))
        backend.listen()
        options = "ssl,cert-cn,authority,crc32c"
        text = HAPROXY.format(port=port, backend=backend.getsockname()[1], folder=tmp_path, options=options)
        (tmp_path / "conf").write_text(text)
        start(peer("haproxy"), "-db", "-f", str(tmp_path / "conf"))
        reach(port)
        start(
            openssl, "s_client", "-quiet", "-connect", f"127.0.0.1:{port}", "-servername", "T1.dns.example.org",
            "-alpn", "dot", "-cert", f"{tmp_path}/phone.crt", "-key", f"{tmp_path}/phone.key",
        )  # fmt: skip
        _, found = first_header(backend, True)

    assert (found.source, found.destination_port, found.carried) == (bytes([127, 0, 0, 1]), port, Carried.STREAM)
    assert (found.authority, found.common_name, found.alpn) == ("t1.dns.example.org", "phone-17", "dot")


def reach(port: int) -> None:
    """Wait until somebody listens."""

    def is_open() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    wait_until("somebody listens", is_open)


def first_header(backend: socket.socket, stream: bool) -> tuple[bytes, Proxied]:
    """The first header that says whose connection it is, with all that came with it."""
    while True:
        if not stream:
            octets = backend.recv(65535)
            found = read_header(octets)
            assert found is not None
            return octets, found
        connection, _ = backend.accept()
        with connection:
            connection.settimeout(20)
            octets, found = b"", None
            while found is None and (more := connection.recv(65535)):
                octets += more
                found = read_header(octets)
            if found is not None and not found.is_local:
                return octets, found
