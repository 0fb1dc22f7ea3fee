"""A server of HTTP on loopback without the house behind it, and the certificates for it."""

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from resolver.observe.record import sockaddr
from resolver.transport.desk import HttpTerms
from resolver.transport.http import HttpServer
from resolver.transport.places import Places, PlaceTerms
from resolver.transport.sockets import bind_tcp
from resolver.transport.tls import load_certificate, server_context
from tests.support.answerer import FakeAnswerer

PATIENCE = 10.0  # seconds after which a condition that has not come true fails the test


class Clock:
    """Monotonic seconds that a test may push ahead of the loop's."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead


@dataclass(frozen=True)
class Authority:
    """A private authority, a certificate of the server's, and two of a device, one of them expired; as files."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> "Authority":
        """Make all of it."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of a test")])
        root = _certificate(name, name, key, key, None)
        _write(folder / "authority.pem", root)
        for file, alternatives in (
            ("server", [x509.DNSName("*.example.org"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            ("device", [x509.DNSName("phone-1.example.org")]),
            ("expired", [x509.DNSName("phone-1.example.org")]),
        ):
            own = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, file)])
            made = _certificate(subject, name, own, key, alternatives, days=-1 if file == "expired" else 2)
            _write(folder / f"{file}.pem", made)
            octets = own.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            (folder / f"{file}.key").write_bytes(octets)
        return cls(folder)

    def path(self, name: str) -> Path:
        """A file of it."""
        return self.folder / name

    def server(self) -> ssl.SSLContext:
        """TLS as the product sets it up, with client certificates."""
        context = server_context(["h2", "http/1.1"], self.path("authority.pem"))
        load_certificate(context, self.path("server.pem"), self.path("server.key"))
        return context

    def client(self, *alpn: str, shows: str | None = None) -> ssl.SSLContext:
        """TLS of a client that trusts the authority, and shows a certificate of it."""
        context = ssl.create_default_context(cafile=str(self.path("authority.pem")))
        context.set_alpn_protocols(list(alpn))
        if shows is not None:
            context.load_cert_chain(self.path(f"{shows}.pem"), self.path(f"{shows}.key"))
        return context


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    alternatives: list[x509.GeneralName] | None,
    days: int = 2,
) -> x509.Certificate:
    today = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=3))
        .not_valid_after(today + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=alternatives is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if alternatives is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


class Window:
    """A server with clients."""

    def __init__(
        self, server: HttpServer, answerer: FakeAnswerer, clock: Clock, port: int, authority: Authority
    ) -> None:
        self.server, self.answerer, self.clock, self.port = server, answerer, clock, port
        self.authority = authority
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(
        self, *alpn: str, plain: bool = False, source: str = "127.0.0.1"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection; without ALPN that of HTTP/1.1."""
        tls = None if plain else self.authority.client(*(alpn or ("http/1.1",)))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(source, 0), ssl=tls,
            server_hostname=None if plain else "dns.example.org",
        )  # fmt: skip
        self._writers.append(writer)
        return reader, writer

    async def hang_up(self) -> None:
        """End every connection of the clients, however it stands."""
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)


@contextlib.asynccontextmanager
async def window(
    authority: Authority,
    terms: HttpTerms | None = None,
    places: PlaceTerms | None = None,
    *,
    plain: bool = False,
    handshakes: PlaceTerms | None = None,
    answerer: FakeAnswerer | None = None,
    listener: str | None = "phones",
) -> AsyncIterator[Window]:
    """A server that runs; `plain`, without TLS, for proxies on this machine."""
    if plain:
        terms = replace(terms or HttpTerms(), proxies=lambda address: address == bytes([127, 0, 0, 1]))
    answerer = answerer or FakeAnswerer()
    clock = Clock()
    loop = asyncio.get_running_loop()
    kept = Places(loop, places or PlaceTerms(), clock)
    server = HttpServer(loop, answerer, terms or HttpTerms(), kept, sockaddr, clock, handshakes=handshakes)
    sock = bind_tcp("127.0.0.1", 0)
    await server.listen(sock, None if plain else authority.server(), listener)
    made = Window(server, answerer, clock, sock.getsockname()[1], authority)
    try:
        yield made
    finally:
        await made.hang_up()
        await server.close(0.0)
        await condition(lambda: len(server) == 0)
        kept.close()
        sock.close()


async def condition(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not is_so():
            await asyncio.sleep(0.005)


async def _serve(folder: Path, connections: int, per_client: int, handshakes: int) -> None:
    """Serve for ever, with an answerer that costs nothing; the port goes to the standard output."""
    loop = asyncio.get_running_loop()
    places = Places(loop, PlaceTerms(connections, per_client), loop.time)
    shaking = PlaceTerms(handshakes, handshakes)
    server = HttpServer(loop, FakeAnswerer(), HttpTerms(), places, sockaddr, loop.time, handshakes=shaking)
    sock = bind_tcp("127.0.0.1", 0)
    await server.listen(sock, Authority(folder).server())
    print(sock.getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(Path(sys.argv[1]), *map(int, sys.argv[2:])))
