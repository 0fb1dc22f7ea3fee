"""Upstreams over TLS and HTTPS on loopback that do what a test says, and the certificates that they show."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes

from tests.support.source import Authority

DAY = timedelta(days=1)


class Certificates(Authority):
    """An authority that names its certificates' holders as a test wants."""

    def issue(self, *names: str, until: timedelta = DAY, key: Any = None) -> Path:
        """Make a key, if none is given, and a certificate for names and addresses, in one file."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        alternative = x509.SubjectAlternativeName([_general(name) for name in names])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "common.example")])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        made = self._build(subject, key, until).add_extension(issuer, critical=False)
        if names:
            made = made.add_extension(alternative, critical=False)
        path = self._folder / f"{x509.random_serial_number()}.pem"
        form = serialization.Encoding.PEM
        secret = key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.write_bytes(secret + made.sign(self._key, hashes.SHA256()).public_bytes(form))
        return path


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def pin_of(certificate: Path) -> bytes:
    """The digest of the key in a certificate's file, as the library for certificates has it."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(serialization.Encoding.DER, form))
    return digest.finalize()


def mirrored(query: bytes) -> bytes:
    """The emptiest true reply."""
    return query[:2] + bytes([query[2] | 0x80]) + query[3:]


class Connection:
    """One client's connection, as the upstream sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        tls = writer.get_extra_info("ssl_object")
        self.resumed: bool = tls is not None and tls.session_reused
        self.server_name = getattr(tls, "asked_for", None)
        self.asked: list[bytes] = []

    async def message(self) -> bytes:
        """The next query, by its length before it."""
        self.asked.append(await self.reader.readexactly(int.from_bytes(await self.reader.readexactly(2), "big")))
        return self.asked[-1]

    def say(self, *messages: bytes) -> None:
        """Send messages, with their length before each."""
        self.writer.write(b"".join(len(message).to_bytes(2, "big") + message for message in messages))


Serve = Callable[[Connection], Awaitable[None]]


async def mirror(connection: Connection) -> None:
    """Answer everything."""
    while True:
        connection.say(mirrored(await connection.message()))


class Upstream:
    """A server on loopback and who has come to it."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.port = 0
        self.connections: list[Connection] = []

    @property
    def asked(self) -> list[bytes]:
        """All queries, over all connections."""
        return [query for connection in self.connections for query in connection.asked]

    async def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        self.connections.append(Connection(reader, writer))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self.serve(self.connections[-1])
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def server_context(certificate: Path, *alpn: str, newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """TLS settings of a server."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    if alpn:
        tls.set_alpn_protocols(list(alpn))
    if newest is not None:
        tls.maximum_version = newest
    return tls


@contextlib.asynccontextmanager
async def upstream(serve: Serve, tls: ssl.SSLContext | None, port: int = 0) -> AsyncIterator[Upstream]:
    """A running server; over TCP alone where there are no TLS settings."""
    made = Upstream(serve)
    server = await asyncio.start_server(made.begin, "127.0.0.1", port, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for connection in made.connections:
            connection.writer.transport.abort()
        await until(lambda: all(connection.reader.at_eof() for connection in made.connections) or None, 1.0)


async def until(get: Callable[[], object], patience: float = 10.0) -> None:
    """Wait until something holds."""
    end = asyncio.get_running_loop().time() + patience
    while not get() and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.002)


class Http:
    """The server's side of an HTTP/2 connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.http = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.heads: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        self.cancelled: list[int] = []
        self._whole: list[int] = []
        self._unsent: dict[int, bytes] = {}

    async def begin(self, **settings: int) -> None:
        """Say what is said first; settings by their names."""
        self.http.initiate_connection()
        if settings:
            self.http.update_settings({SettingCodes[name.upper()]: value for name, value in settings.items()})
        self.flush()

    def flush(self) -> None:
        """Send what is ready."""
        self.connection.writer.write(self.http.data_to_send())

    async def request(self) -> int:
        """The stream of the next whole request."""
        while not self._whole:
            octets = await self.connection.reader.read(65536)
            if not octets:
                raise ConnectionResetError
            for event in self.http.receive_data(octets):
                match event:
                    case RequestReceived(stream_id=stream, headers=headers):
                        self.heads[stream], self.bodies[stream] = dict(headers), b""  # type: ignore[arg-type]
                    case DataReceived(stream_id=stream, data=data):
                        self.http.acknowledge_received_data(event.flow_controlled_length, stream)
                        self.bodies[stream] += data
                    case StreamEnded(stream_id=stream):
                        self._whole.append(stream)
                        self.connection.asked.append(self.bodies[stream])
                    case StreamReset(stream_id=stream):
                        self.cancelled.append(stream)
                        self._unsent.pop(stream, None)
            self._push()
        return self._whole.pop(0)

    def respond(
        self, stream: int, body: bytes, status: int = 200, kind: str | None = "application/dns-message"
    ) -> None:
        """Send a whole response."""
        headers = [(":status", str(status)), *([("content-type", kind)] if kind is not None else [])]
        self.http.send_headers(stream, headers)
        self._unsent[stream] = body
        self._push()

    def _push(self) -> None:
        """Send of the bodies what the windows let through."""
        for stream, body in list(self._unsent.items()):
            while body and (room := self.http.local_flow_control_window(stream)):
                part = min(len(body), self.http.max_outbound_frame_size, room)
                self.http.send_data(stream, body[:part])
                body = body[part:]
            self._unsent[stream] = body
            if not body:
                del self._unsent[stream]
                self.http.end_stream(stream)
        self.flush()


async def mirror_http(connection: Connection) -> None:
    """Answer every request."""
    http = Http(connection)
    await http.begin()
    while True:
        stream = await http.request()
        http.respond(stream, mirrored(http.bodies[stream]))


class AheadLoop(asyncio.SelectorEventLoop):
    """A loop with real sockets whose clock a test may put forward."""

    ahead = 0.0

    def time(self) -> float:
        """Monotonic seconds, and those put forward."""
        return super().time() + self.ahead


class Recorder(asyncio.Transport):
    """A transport, and its TLS, that keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"ssl_object": self})
        self.written = b""
        self.session = None
        self.protocol = "dot"
        self.reads = True

    def selected_alpn_protocol(self) -> str:
        """As TLS would say."""
        return self.protocol

    def getpeercert(self, binary_form: bool = False) -> None:
        """Nobody shows any."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        """All of it, where nobody reads."""
        return 0 if self.reads else len(self.written)

    def abort(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Nothing is open."""


class Doors(AheadLoop):
    """A loop whose connections lead nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.transport = Recorder()
        self.protocol: asyncio.Protocol

    async def create_connection(self, factory: Callable[[], asyncio.Protocol], *_: Any, **__: Any) -> Any:
        """Open at once."""
        self.protocol = factory()
        self.protocol.connection_made(self.transport)
        return self.transport, self.protocol
