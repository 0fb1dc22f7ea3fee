"""The whole server with every encrypted transport, a private authority for it, and plain clients of each transport."""

import asyncio
import contextlib
import http.client
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import dns.edns
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from resolver.policy.client import Transport
from tests.support.house import ask
from tests.support.quic import Papers, Visitor
from tests.support.secure_upstream import Certificates
from tests.support.server import ROOT, Server, free_port, wait_until

NAME = "dns.example.org"
ENCRYPTED = (Transport.DOT, Transport.DOH, Transport.DOQ, Transport.DOH3)
MEDIA_TYPE = "application/dns-message"


class Covered:
    """A server that speaks everything; its configuration may be changed until it is started."""

    def __init__(
        self, folder: Path, upstream: tuple[str, int], groups: Sequence[Mapping[str, Any]] = (), **config: Any
    ) -> None:
        """Write certificates and configuration.

        Args:
            folder: For all files.
            upstream: Where to forward.
            groups: In place of the one for everyone.
            config: Keys of interdict.yaml; under `encrypted`, keys over those that every test wants.
        """
        self.authority = Certificates(folder)
        self.tokens: dict[str, str] = {}  # of devices, by name
        self.certificate = folder / "certificate.pem"
        self.key = folder / "key.pem"
        self.show()
        self.ports = {Transport.DOT: free_port(), Transport.DOH: free_port()}
        # As in the field, QUIC has the ports of its elder siblings.
        self.ports |= {Transport.DOQ: self.ports[Transport.DOT], Transport.DOH3: self.ports[Transport.DOH]}
        encrypted = {
            "name": NAME,
            "certificate": str(self.certificate),
            "key": str(self.key),
            "client_authorities": str(self.authority.ca_file),
            **{transport.value: [f"127.0.0.1:{self.ports[transport]}"] for transport in ENCRYPTED},
            **config.pop("encrypted", {}),
        }
        if groups:
            config["groups"] = list(groups)
        self.server = Server(folder, [upstream], encrypted=encrypted, **config)

    def show(self, until: timedelta = timedelta(days=1)) -> Path:
        """Put a fresh certificate where the server reads its own; returns the file it was made in."""
        made = self.authority.issue(NAME, f"*.{NAME}", "127.0.0.1", until=until)
        text = made.read_text()
        start = text.index("-----BEGIN CERTIFICATE")
        put(self.key, text[:start])
        put(self.certificate, text[start:])
        return made

    def manage(self, *words: str) -> Any:
        """Carry out a verb of `interdict device`; what it says as JSON."""
        if not self.server.config_path.exists():
            self.server.write()
        verb, *rest = words
        done = subprocess.run(
            [sys.executable, "-m", "resolver", "device", verb, "--config", str(self.server.config_path), "--json",
             *rest],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def enrol(self, name: str, group: str = "everyone", *words: str) -> str:
        """Add a device; returns its token. Workers that run take a moment to notice."""
        token = self.tokens[name] = str(self.manage("add", name, "--group", group, *words)["token"])
        return token

    @property
    def ca_file(self) -> str:
        """Whom clients have to trust."""
        return str(self.authority.ca_file)

    def url(self, token: str | None = None) -> str:
        """Of DoH."""
        return f"https://127.0.0.1:{self.ports[Transport.DOH]}/dns-query" + (f"/{token}" if token else "")

    def tls(self, *alpn: str, device: Path | None = None) -> ssl.SSLContext:
        """TLS of a client that trusts the authority, and shows the certificate of a device."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if device is not None:
            context.load_cert_chain(device)
        return context

    def dot(self, name: str = NAME, device: Path | None = None, source: str = "127.0.0.1", port: int = 0) -> "Line":
        """A connection of DNS over TLS."""
        return Line(port or self.ports[Transport.DOT], self.tls("dot", device=device), name, source)

    def doh(self, name: str = NAME, device: Path | None = None, source: str = "127.0.0.1", port: int = 0) -> "Web":
        """A connection of DNS over HTTPS (HTTP/1.1)."""
        return Web(port or self.ports[Transport.DOH], self.tls("http/1.1", device=device), name, source)

    def quic(self, packet: bytes, name: str = NAME, path: str | None = None, source: str = "127.0.0.1") -> bytes:
        """The reply over QUIC: by DoQ, or where there is a path, by HTTP/3."""

        async def talk() -> bytes:
            async with self._visitor("doq" if path is None else "h3", name, source) as visitor:
                if path is None:
                    # Its message id is 0 (RFC 9250 §4.2.1).
                    stream = await visitor.answered(visitor.ask(b"\0\0" + packet[2:]))
                    return packet[:2] + bytes(stream.octets[4:])
                visitor.speak_http()
                fields = [
                    (b":method", b"POST"), (b":scheme", b"https"), (b":authority", name.encode()),
                    (b":path", path.encode()), (b"content-type", MEDIA_TYPE.encode()),
                ]  # fmt: skip
                stream = await visitor.answered(visitor.request(fields, packet))
                assert stream.headers[b":status"] == b"200"
                return bytes(stream.content)

        return asyncio.run(talk())

    def quic_serial(self) -> int:
        """Of the certificate that is shown over QUIC."""

        async def look() -> int:
            async with self._visitor("doq", NAME, "127.0.0.1") as visitor:
                shown = visitor.quic.tls._peer_certificate
                assert shown is not None
                return shown.serial_number

        return asyncio.run(look())

    @contextlib.asynccontextmanager
    async def _visitor(self, alpn: str, name: str, source: str) -> AsyncIterator[Visitor]:
        visitor = Visitor(alpn, Papers(b"", b"", self.authority.ca_file.read_bytes()), server_name=name)
        try:
            await visitor.connect(self.ports[Transport.DOQ if alpn == "doq" else Transport.DOH3], source=source)
            yield await visitor.connected()
        finally:
            visitor.quic.close()  # one that is merely gone is waited for when the server stops
            visitor.transmit()
            visitor.hang_up()

    def pss(self) -> dict[str, int]:
        """The memory of each worker, in octets: shared pages by their share."""
        found = {}
        for name, pid in self.server.pids().items():
            if name.startswith("worker"):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                found[name] = 1024 * int(re.findall(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)[0])
        return found


def put(path: Path, text: str) -> None:
    """Replace a file as those do who renew certificates."""
    aside = path.with_name(f"{path.name}.new")
    aside.write_text(text)
    aside.replace(path)


class Line:
    """A connection of DNS over TLS."""

    def __init__(self, port: int, tls: ssl.SSLContext, name: str, source: str) -> None:
        raw = socket.create_connection(("127.0.0.1", port), 20, (source, 0))
        try:
            self.sock = tls.wrap_socket(raw, server_hostname=name)
        except BaseException:
            raw.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def ask(self, packet: bytes) -> bytes:
        """Ask, and wait for the reply.

        Raises:
            EOFError: The server closed the connection.
        """
        self.sock.sendall(len(packet).to_bytes(2, "big") + packet)
        return self._read(int.from_bytes(self._read(2), "big"))

    def serial(self) -> int:
        """Of the certificate that the server showed."""
        shown = self.sock.getpeercert()
        assert shown is not None
        return int(str(shown["serialNumber"]), 16)

    def _read(self, octets: int) -> bytes:
        found = b""
        while len(found) < octets:
            more = self.sock.recv(octets - len(found))
            if not more:
                raise EOFError("the server closed the connection")
            found += more
        return found


class Web:
    """A connection of DNS over HTTPS, by HTTP/1.1; it is never opened a second time."""

    def __init__(self, port: int, tls: ssl.SSLContext, name: str, source: str) -> None:
        self._http = http.client.HTTPConnection(name, port, timeout=20)
        self._http.auto_open = 0
        raw = socket.create_connection(("127.0.0.1", port), 20, (source, 0))
        try:
            self.sock = self._http.sock = tls.wrap_socket(raw, server_hostname=name)
        except BaseException:
            raw.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(
        self, packet: bytes, token: str | None = None, bearer: str | None = None, path: str = "/dns-query"
    ) -> bytes:
        """Ask, and wait for the reply."""
        headers = {"Content-Type": MEDIA_TYPE}
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        self._http.request("POST", path + (f"/{token}" if token else ""), packet, headers)
        response = self._http.getresponse()
        body = response.read()
        assert response.status == 200, response.status
        return body

    def page(self, path: str) -> str:
        """Get a page."""
        self._http.request("GET", path)
        response = self._http.getresponse()
        body = response.read()
        assert response.status == 200, response.status
        return body.decode()


# ---- what is asked, and what comes back -----------------------------------------------------------------------------


def rcode_of(reply: bytes) -> str:
    """The RCODE as text."""
    return dns.rcode.to_text(dns.message.from_wire(reply).rcode())


def ede_of(reply: bytes) -> list[int]:
    """The codes of the Extended DNS Errors."""
    return [int(one.code) for one in dns.message.from_wire(reply).options if isinstance(one, dns.edns.EDEOption)]


def whoami(asking: Callable[[bytes], bytes]) -> dict[str, str]:
    """What the server says of who asks."""
    reply = dns.message.from_wire(asking(ask("whoami.interdict.test", dns.rdatatype.TXT)))
    texts = [b"".join(record.strings).decode() for record in reply.answer[0]]
    return {key: found for key, _, found in (text.partition("=") for text in texts)}


def points_home(query: bytes) -> bytes:
    """The reply of an upstream to which every name is this machine; of other types it has a long TXT alone."""
    asked = dns.message.from_wire(query)
    reply = dns.message.make_response(asked)
    (question,) = asked.question
    if question.rdtype == dns.rdatatype.A:
        reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", "127.0.0.1"))
    elif question.rdtype == dns.rdatatype.TXT:
        reply.answer.append(dns.rrset.from_text(question.name, 3600, "IN", "TXT", " ".join(["x" * 250] * 4)))
    return reply.to_wire()


def evidence_of(covered: Covered, name: str) -> list[tuple[str, ...]]:
    """What the evidence has of a name, once it has some: who asked, as which device, and how."""
    columns = "client, device, transport"
    return wait_until(
        f"a hit on {name}", lambda: [row[1:] for row in covered.server.hits(f"qname, {columns}") if row[0] == name]
    )


# ---- programs that run beside the test ------------------------------------------------------------------------------

PAGE = "<title>here</title>"


@dataclass(frozen=True)
class Site:
    """A page on this machine, and by which names it was asked for; `/with/NAME` has a picture from that name in it."""

    port: int
    visits: list[str]


@contextlib.contextmanager
def site() -> Iterator[Site]:
    """Serve the page until the end of the block."""
    visits: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        server: ThreadingHTTPServer

        def do_GET(self) -> None:
            visits.append(self.headers["Host"].partition(":")[0])
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            _, _, other = self.path.partition("/with/")
            image = f'<img src="http://{other}:{self.server.server_port}/">' if other else ""
            self.wfile.write((PAGE + image).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield Site(server.server_port, visits)
        finally:
            server.shutdown()
            thread.join()


def run(*command: str, check: bool = True, **how: Any) -> str:
    """What a program says until it ends, on both outputs."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
        **{"stdin": subprocess.DEVNULL} | how,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout
    return str(done.stdout)


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def program(folder: Path, *command: str, port: int | None = None, **how: Any) -> Iterator[Path]:
    """Run a program until the end of the block; with a port, wait until it listens there. Gives its log."""
    log = folder / f"{Path(command[0]).name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, **how)

    def is_up() -> bool:
        assert process.poll() is None, log.read_text()
        return port is None or listens(port)

    try:
        wait_until(f"{command[0]} listens", is_up)
        yield log
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
