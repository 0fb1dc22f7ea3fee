"""A QUIC client made of the library's own, that a test may have say anything; and a certificate from a private CA."""

import asyncio
import base64
import contextlib
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pylsqpack
import uvloop
from aioquic.h3.connection import FrameType, H3Connection, encode_frame
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.stream import QuicStreamSender
from aioquic.tls import Epoch, SessionTicket
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from resolver.observe.record import sockaddr
from resolver.policy.client import Transport
from resolver.transport.connection import QuicTerms
from resolver.transport.places import Places, PlaceTerms
from resolver.transport.quic import Certificate, QuicServer
from resolver.transport.sockets import bind_udp
from tests.support.answerer import FakeAnswerer

T = TypeVar("T")
Headers = list[tuple[bytes, bytes]]
BUILDS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
PATIENCE = 10.0  # seconds after which a condition that has not come true fails the test
NAME = "dns.example.org"


@dataclass(frozen=True)
class Papers:
    """A certificate for `NAME`, its key, and whom a client has to trust for it; in PEM."""

    chain: bytes
    key: bytes
    authority: bytes


def papers(serial: int = 1) -> Papers:
    """Make a CA and have it make a certificate."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("Test CA", NAME)]
    made = []
    for who in range(2):
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[who])
            .issuer_name(names[0])
            .public_key(keys[who].public_key())
            .serial_number(serial + who)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=who == 0, path_length=None), critical=True)
        )
        if who:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        made.append(builder.sign(keys[0], hashes.SHA256()).public_bytes(Encoding.PEM))
    key = keys[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Papers(made[1] + made[0], key, made[0])


PAPERS = papers()


def fields(method: bytes, path: bytes = b"/dns-query", *more: tuple[bytes, bytes]) -> Headers:
    """The fields of a request."""
    return [
        (b":method", method),
        (b":scheme", b"https"),
        (b":authority", NAME.encode()),
        (b":path", path),
        *more,
    ]


def get(message: bytes, path: bytes = b"/dns-query") -> bytes:
    """The path of a GET that carries a message."""
    return path + b"?dns=" + base64.urlsafe_b64encode(message).rstrip(b"=")


def packed(headers: Headers) -> bytes:
    """A HEADERS frame."""
    return encode_frame(FrameType.HEADERS, pylsqpack.Encoder().encode(0, headers)[1])


def play(story: Awaitable[T], build: str = "asyncio") -> T:
    """Run a story to its end on one of the loops that the product runs on."""

    async def bounded() -> T:
        async with asyncio.timeout(60):
            return await story

    with asyncio.Runner(loop_factory=BUILDS[build]) as runner:
        return runner.run(bounded())


async def condition(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not is_so():
            await asyncio.sleep(0.002)


@dataclass
class Stream:
    """What came on one stream."""

    octets: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None  # the code of a RESET_STREAM
    stopped: int | None = None  # the code of a STOP_SENDING
    headers: dict[bytes, bytes] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)

    @property
    def is_over(self) -> bool:
        """Whether no more will come."""
        return self.ended or self.reset is not None


class Visitor(asyncio.DatagramProtocol):
    """A client's end of a connection. What it should not do it does through `quic`."""

    def __init__(self, alpn: str, papers: Papers = PAPERS, **configuration: Any) -> None:
        """Set up.

        Args:
            alpn: What it wants to speak.
            papers: Whose authority it trusts.
            configuration: Fields of the library's configuration.
        """
        fields: dict[str, Any] = {"alpn_protocols": [alpn], "server_name": NAME, "verify_mode": ssl.CERT_REQUIRED}
        self.configuration = QuicConfiguration(is_client=True, cadata=papers.authority, **(fields | configuration))
        self.tickets: list[SessionTicket] = []
        self.quic = QuicConnection(configuration=self.configuration, session_ticket_handler=self.tickets.append)
        self.http: H3Connection | None = None
        self.streams: dict[int, Stream] = {}
        self.completed: events.HandshakeCompleted | None = None
        self.terminated: events.ConnectionTerminated | None = None
        self.datagrams = 0  # that came
        self.octets = 0  # that came
        self.sent = 0  # datagrams
        self.last = b""  # datagram that came
        self.deaf = False  # takes nothing that comes
        self.goaway = False
        self._transport: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.address = ("127.0.0.1", 0)

    async def connect(self, port: int, host: str = "127.0.0.1", source: str = "127.0.0.1") -> "Visitor":
        """Begin the handshake."""
        self.address = (host, port)
        await self._loop.create_datagram_endpoint(lambda: self, local_addr=(source, 0), remote_addr=(host, port))
        self.quic.connect(self.address, self._loop.time())
        self.transmit()
        return self

    async def connected(self) -> "Visitor":
        """Wait until the handshake is done."""
        await condition(lambda: self.completed is not None or self.terminated is not None)
        assert self.completed is not None, self.terminated
        return self

    async def closed(self) -> int:
        """The code that the connection was closed with."""
        await condition(lambda: self.quic._close_event is not None)  # `terminated` comes when draining is over
        assert self.quic._close_event is not None
        return self.quic._close_event.error_code

    def hang_up(self) -> None:
        """Be gone without a word."""
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    def speak_http(self) -> H3Connection:
        """Begin HTTP/3."""
        self.http = H3Connection(self.quic)
        return self.http

    def send(self, octets: bytes, end: bool = True, stream_id: int | None = None) -> int:
        """Send octets on a stream, by default on a new one."""
        if stream_id is None:
            stream_id = self.quic.get_next_available_stream_id()
        self.quic.send_stream_data(stream_id, octets, end)
        self.transmit()
        return stream_id

    def ask(self, packet: bytes) -> int:
        """Send a query as RFC 9250 has it."""
        return self.send(len(packet).to_bytes(2, "big") + packet)

    def request(self, headers: list[tuple[bytes, bytes]], content: bytes | None = None, end: bool = True) -> int:
        """Send a request as RFC 9114 has it, its pseudo-header fields as given."""
        assert self.http is not None
        stream_id = self.quic.get_next_available_stream_id()
        self.http.send_headers(stream_id, headers, end_stream=end and content is None)
        if content is not None:
            self.http.send_data(stream_id, content, end_stream=end)
        self.transmit()
        return stream_id

    async def answered(self, stream_id: int) -> Stream:
        """What came on a stream, once that is all."""
        await condition(lambda: self.stream(stream_id).is_over or self.terminated is not None)
        return self.stream(stream_id)

    def stream(self, stream_id: int) -> Stream:
        """What came on a stream so far."""
        return self.streams.setdefault(stream_id, Stream())

    def transmit(self) -> None:
        """Send what there is to send."""
        assert self._transport is not None
        if self._transport.is_closing():
            return
        for datagram, _ in self.quic.datagrams_to_send(self._loop.time()):
            self.sent += 1
            self._transport.sendto(datagram)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.quic.get_timer()
        if at is not None:
            self._timer = self._loop.call_at(at, self._on_timer)

    def raw(self, datagram: bytes) -> None:
        """Send a datagram as it is."""
        assert self._transport is not None
        self._transport.sendto(datagram)

    def leap(self, sender: QuicStreamSender, offset: int) -> None:
        """Send one octet far ahead of those before it."""
        sender._buffer = bytearray(offset + 1 - sender._buffer_start)
        sender._buffer_stop = offset + 1
        sender._pending.add(offset, offset + 1)
        sender.buffer_is_empty = False
        self.transmit()

    def say(self, frames: bytes) -> None:
        """Send a packet of the connection with any octets for its frames."""
        quic = self.quic
        builder = QuicPacketBuilder(
            host_cid=quic.host_cid,
            is_client=True,
            max_datagram_size=1200,
            packet_number=quic._packet_number,
            peer_cid=quic._peer_cid.cid,
            version=quic._version,
        )
        builder.start_packet(QuicPacketType.ONE_RTT, quic._cryptos[Epoch.ONE_RTT])
        builder.start_frame(frames[0]).push_bytes(frames[1:])
        datagrams, _ = builder.flush()
        quic._packet_number = builder.packet_number
        for datagram in datagrams:
            self.raw(datagram)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are none by inheritance

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.datagrams += 1
        self.octets += len(data)
        self.last = data
        if self.deaf:
            return
        self.quic.receive_datagram(data, self.address, self._loop.time())
        self._take_events()
        self.transmit()

    def _on_timer(self) -> None:
        self._timer = None
        self.quic.handle_timer(self._loop.time())
        self._take_events()
        self.transmit()

    def _take_events(self) -> None:
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, events.StreamDataReceived):
                stream = self.stream(event.stream_id)
                stream.octets += event.data
                stream.ended = stream.ended or event.end_stream
            elif isinstance(event, events.StreamReset):
                self.stream(event.stream_id).reset = event.error_code
            elif isinstance(event, events.StopSendingReceived):
                self.stream(event.stream_id).stopped = event.error_code
            elif isinstance(event, events.HandshakeCompleted):
                self.completed = event
            elif isinstance(event, events.ConnectionTerminated):
                self.terminated = event
            if self.http is not None:
                for happening in self.http.handle_event(event):
                    self._take(happening)

    def _take(self, happening: H3Event) -> None:
        if isinstance(happening, HeadersReceived):
            self.stream(happening.stream_id).headers |= dict(happening.headers)
        elif isinstance(happening, DataReceived):
            self.stream(happening.stream_id).content += happening.data


class Clock:
    """Monotonic seconds that a test may push ahead of the loop's."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead


class Doors:
    """A server with a door for DNS over QUIC and one for HTTP/3."""

    def __init__(self, server: QuicServer, answerer: FakeAnswerer, places: Places, clock: Clock) -> None:
        self.server, self.answerer, self.places, self.clock = server, answerer, places, clock
        self.ports: dict[str, int] = {}
        self.visitors: list[Visitor] = []

    async def visit(
        self,
        alpn: str = "doq",
        *,
        to: str | None = None,
        source: str = "127.0.0.1",
        wait: bool = True,
        deaf: bool = False,
        **how: Any,
    ) -> Visitor:
        """A new connection, by default with its handshake done.

        Args:
            alpn: What it wants to speak.
            to: The door, if it is another.
            source: Where it comes from.
            wait: For the handshake.
            deaf: It takes nothing that comes, so its handshake goes nowhere.
            how: As `Visitor` has it.
        """
        visitor = Visitor(alpn, **how)
        visitor.deaf = deaf
        self.visitors.append(visitor)
        await visitor.connect(self.ports[to or alpn], source=source)
        if wait and not deaf:
            await visitor.connected()
            if alpn == "h3":
                visitor.speak_http()
        return visitor


@contextlib.asynccontextmanager
async def doors(
    terms: QuicTerms | None = None,
    places: PlaceTerms | None = None,
    answerer: FakeAnswerer | None = None,
    listener: str | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[Doors]:
    """Open both doors; in the end no fault must have been met and nothing be left."""
    loop = asyncio.get_running_loop()
    clock = Clock()
    answerer = answerer or FakeAnswerer()
    seats = Places(loop, places or PlaceTerms(), clock)
    certificate = Certificate(PAPERS.chain, PAPERS.key)
    server = QuicServer(loop, answerer, terms or QuicTerms(), seats, sockaddr, clock, certificate)
    made = Doors(server, answerer, seats, clock)
    socks = []
    for alpn, transport in (("doq", Transport.DOQ), ("h3", Transport.DOH3)):
        # Bound here, without SO_REUSEPORT: with it, the kernel may choose a port that another test's server holds.
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind((host, 0))
        socks.append(sock)
        await server.listen(bind_udp(host, 0, sock), transport, listener)
        made.ports[alpn] = sock.getsockname()[1]
    try:
        yield made
    finally:
        for visitor in made.visitors:
            visitor.hang_up()
        await server.close(0.0)
        seats.close()
        for sock in socks:
            sock.close()
    assert (server.faults, server.last_fault) == (0, "")
    assert (len(server), server.half_open, len(seats)) == (0, 0, 0)
