"""All windows of one worker: every listener's socket with the transport that is spoken there.

What a transport asks goes through the `Answerer` that is handed in; here nothing is decided but who listens where, what
a proxy may say of its clients, and how many connections there may be.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resolver.app.listening import Certificate, Listening
from resolver.config import Config
from resolver.observe.cells import Cells
from resolver.observe.record import sockaddr
from resolver.policy.client import Client, Transport
from resolver.policy.generation import NetworkTable
from resolver.transport.places import Places, PlaceTerms
from resolver.transport.proxied import without_header
from resolver.transport.stream import StreamServer, StreamTerms
from resolver.transport.tls import TlsError, credentials_of
from resolver.transport.udp import Answerer, UdpServer

if TYPE_CHECKING:
    from resolver.transport import quic
    from resolver.transport.desk import Page
    from resolver.transport.http import HttpServer
    from resolver.transport.quic import QuicServer

ALT_SVC_SECONDS = 86400  # for which a client may remember that HTTP/3 is spoken here (RFC 7838 §3.1)
_log = logging.getLogger("interdict.worker")


@dataclass(frozen=True, slots=True)
class WindowTerms:
    """Limits, and who is believed what he says of others.

    Attributes:
        tcp: Of plain TCP.
        dot: Of DNS over TLS.
        places: Of connections of DoH, and of QUIC.
        in_flight: Queries under way on a connection of these.
        handshake_timeout: Seconds that a handshake may take.
        path: Of DoH.
        alt_svc: The port of HTTP/3 that DoH tells of, or None.
        proxies: Networks of those who pass on what others ask.
    """

    tcp: StreamTerms
    dot: StreamTerms
    places: PlaceTerms
    in_flight: int
    handshake_timeout: float
    path: str
    alt_svc: int | None
    proxies: tuple[str, ...]

    @classmethod
    def of(cls, config: Config) -> "WindowTerms":
        """What a configuration says."""
        tcp, encrypted = config.tcp, config.encrypted
        places = PlaceTerms(encrypted.connections, encrypted.per_client, encrypted.idle_timeout)
        return cls(
            tcp=StreamTerms(PlaceTerms(tcp.connections, tcp.per_client, tcp.idle_timeout), tcp.in_flight),
            dot=StreamTerms(places, encrypted.in_flight, encrypted.handshake_timeout),
            places=places,
            in_flight=encrypted.in_flight,
            handshake_timeout=encrypted.handshake_timeout,
            path=encrypted.path,
            alt_svc=_http3_port(config),
            proxies=tuple(str(network) for network in config.proxies),
        )

    @property
    def keepalive(self) -> Mapping[Transport, float]:
        """For how many seconds a connection may be idle, where the client may ask in a message (RFC 7828)."""
        return {
            Transport.TCP: self.tcp.places.idle_timeout,
            Transport.DOT: self.dot.places.idle_timeout,
        }


def _http3_port(config: Config) -> int | None:
    """The port of HTTP/3 that DoH tells of: not one whose clients belong to a group of its own."""
    of_groups = {endpoint for group in config.groups for endpoint in group.listeners}
    return next((endpoint.port for endpoint in config.encrypted.doh3 if endpoint not in of_groups), None)


class Windows:
    """Every window, open or to be opened."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answerer: Answerer,
        sockets: Mapping[Listening, socket.socket],
        terms: WindowTerms,
        certificate: Certificate | None,
        now: Callable[[], float],
        cells: Cells,
        pages: "Callable[[str, Client], Page | None]",
    ) -> None:
        """Set up; nothing is read before `open`.

        Args:
            loop: The worker's.
            answerer: What to answer.
            sockets: Bound or listening.
            terms: Limits.
            certificate: Of the encrypted ones.
            now: Monotonic seconds.
            cells: Counters.
            pages: What is served beside DoH.

        Raises:
            TlsError: The certificate can not be used for QUIC.
        """
        self._loop = loop
        self._sockets = sockets
        self._certificate = certificate
        self._cells = cells
        self._proxies = NetworkTable([(network, 0) for network in terms.proxies])
        self._has_proxies = bool(terms.proxies)
        self._udp = [
            UdpServer(sock, cells.counts, answerer, one.group, loop.call_soon) for one, sock in self._of(Transport.UDP)
        ]
        self._tcp = StreamServer(loop, answerer, terms.tcp, sockaddr, now, proxied=self._is_proxy)
        spoken = {one.transport for one in sockets} if certificate is not None else set()
        self._dot: StreamServer | None = None
        self._doh: HttpServer | None = None
        self._quic: QuicServer | None = None
        self._faults = 0
        if certificate is None:
            return
        if Transport.DOT in spoken:
            tls = certificate.contexts[Transport.DOT]
            self._dot = StreamServer(loop, answerer, terms.dot, sockaddr, now, tls=tls, credentials_of=credentials_of)
        if Transport.DOH in spoken:
            self._doh = _http_server(loop, answerer, terms, now, self._is_proxy, pages)
        if spoken & {Transport.DOQ, Transport.DOH3}:
            self._quic = _quic_server(loop, answerer, terms, now, certificate, pages)

    def _of(self, *transports: Transport) -> Iterator[tuple[Listening, socket.socket]]:
        return ((one, sock) for one, sock in self._sockets.items() if one.transport in transports)

    async def open(self) -> None:
        """Let everybody in."""
        for server in self._udp:
            server.open(self._loop)
        for one, sock in self._of(Transport.TCP):
            await self._tcp.listen(sock, one.group)
        for one, sock in self._of(Transport.DOT):
            assert self._dot is not None
            await self._dot.listen(sock, one.group)
        for one, sock in self._of(Transport.DOH):
            assert self._doh is not None
            assert self._certificate is not None
            await self._doh.listen(sock, self._certificate.contexts[Transport.DOH], one.group)
        for one, sock in self._of(Transport.DOQ, Transport.DOH3):
            assert self._quic is not None
            await self._quic.listen(sock, one.transport, one.group)

    def shut(self) -> None:
        """Read no more datagrams; what had arrived before is still answered."""
        for server in self._udp:
            server.shut()

    async def close(self, patience: float) -> None:
        """Close all connections once they were answered, or after so many seconds."""
        servers = [server for server in (self._tcp, self._dot, self._doh, self._quic) if server is not None]
        await asyncio.gather(*(server.close(patience) for server in servers))

    def renew(self) -> None:
        """Show the certificate that lies in the files now to those who come from now on."""
        certificate = self._certificate
        if certificate is None:
            return
        try:
            if not certificate.renew():
                return
            if self._quic is not None:
                self._quic.renew(_for_quic(certificate))
        except TlsError as error:
            _log.error("the certificate was not renewed: %s", error)
        else:
            _log.info("the certificate was read again")

    def gauge(self) -> None:
        """Bring the counters of connections up to date."""
        counts, index = self._cells.counts, self._cells.index
        counts[index("=tcp_connections")] = len(self._tcp)
        counts[index("tcp_evicted")] = self._tcp.places.evicted
        if self._certificate is None:
            return
        counts[index("=certificate_expires")] = int(self._certificate.chain.expires)
        for transport, server in ((Transport.DOT, self._dot), (Transport.DOH, self._doh), ("quic", self._quic)):
            if server is not None:
                counts[index("=connections", transport)] = len(server)
                counts[index("evicted", transport)] = server.places.evicted
        if self._quic is not None and self._quic.faults > self._faults:
            counts[index("internal_errors")] += self._quic.faults - self._faults
            self._faults = self._quic.faults
            _log.error("a connection of QUIC was ended by an error of ours: %s", self._quic.last_fault)

    def behind_proxy(self, packet: bytes, client: Client) -> tuple[bytes, Client] | None:
        """A datagram without what a proxy put before it, and whose it is; None where a proxy sent no good header.

        Who is no proxy is believed nothing: its octets are what they are.
        """
        if not self._has_proxies or client.transport is not Transport.UDP or not self._is_proxy(client.address):
            return packet, client
        return without_header(packet, client, sockaddr)

    def _is_proxy(self, address: bytes) -> bool:
        return self._has_proxies and self._proxies.find(address) >= 0


# What speaks HTTP and QUIC imports much, and is imported only where it is spoken.


def _http_server(
    loop: asyncio.AbstractEventLoop,
    answerer: Answerer,
    terms: WindowTerms,
    now: Callable[[], float],
    proxies: Callable[[bytes], bool],
    pages: "Callable[[str, Client], Page | None]",
) -> "HttpServer":
    from resolver.transport.desk import HttpTerms
    from resolver.transport.doh import DohTerms
    from resolver.transport.http import HttpServer

    doh = DohTerms(terms.path.encode(), _alt_svc(terms.alt_svc))
    limits = HttpTerms(doh, terms.in_flight, terms.handshake_timeout, proxies, pages)
    places = Places(loop, terms.places, now)
    return HttpServer(loop, answerer, limits, places, sockaddr, now, handshakes=terms.places)


def _quic_server(
    loop: asyncio.AbstractEventLoop,
    answerer: Answerer,
    terms: WindowTerms,
    now: Callable[[], float],
    certificate: Certificate,
    pages: "Callable[[str, Client], Page | None]",
) -> "QuicServer":
    from resolver.transport.connection import QuicTerms
    from resolver.transport.doh import DohTerms
    from resolver.transport.quic import QuicServer

    limits = QuicTerms(
        in_flight=terms.in_flight,
        handshake_timeout=terms.handshake_timeout,
        idle_timeout=terms.places.idle_timeout,
        doh=DohTerms(terms.path.encode()),
        pages=pages,
        reset_key=certificate.reset_key,
    )
    places = Places(loop, terms.places, now)
    return QuicServer(loop, answerer, limits, places, sockaddr, now, _for_quic(certificate))


def preload(config: Config) -> None:
    """Import what the configuration wants spoken: done before workers are forked, they share it."""
    if config.encrypted.doh:
        import resolver.transport.http
    if config.encrypted.doq or config.encrypted.doh3:
        import resolver.transport.quic  # noqa: F401


def _for_quic(certificate: Certificate) -> "quic.Certificate":
    from resolver.transport import quic

    return quic.Certificate(certificate.chain.certificate, certificate.chain.key)


def _alt_svc(port: int | None) -> bytes | None:
    return None if port is None else f'h3=":{port}"; ma={ALT_SVC_SECONDS}'.encode()
