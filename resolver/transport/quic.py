"""QUIC from clients (RFC 9000), for what is spoken over it: DNS over QUIC (`doq.py`), DNS over HTTP/3 (`http3.py`).

The library keeps each connection's state (`bounded.py` says within which bounds); `connection.py` has what a client's
connection may do. Here are the sockets, and who may come in:

- A datagram that belongs to no connection begins one only if it is a whole first packet of a version that we speak, and
  only if it can be read: what can not leaves nothing behind.
- A sender's address may be forged. So only so many connections may be half open, or have come to nothing within the
  second; once they are, whoever comes has to repeat a token that was sent to his address (Retry, RFC 9000 §8.1.2). For
  that nothing is kept here, and it costs a hundredth of a handshake.
- What belongs to a connection that is gone is told so (RFC 9000 §10.3), or its client would wait.
- A client stays at the address that it came from, as far as that says who it is: another port is a NAT's doing, a
  packet from another host is not looked at.

A worker's time: a socket is read for a turn of datagrams, then all that is to be sent goes out at once, one or a few
datagrams a connection, and other events of the loop have their turn. What one datagram can ask for is bounded by the
streams a client may have open.
"""

import asyncio
import hashlib
import logging
import os
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.connection import TRANSPORT_CLOSE_FRAME_CAPACITY
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.retry import QuicRetryTokenHandler
from aioquic.tls import CipherSuite, load_pem_private_key, load_pem_x509_certificates

from resolver.policy.client import Transport
from resolver.transport import doq, http3
from resolver.transport.bounded import BoundedQuic, Tickets
from resolver.transport.connection import Address, Connection, Control, Lobby, QuicTerms
from resolver.transport.places import Places
from resolver.transport.sockets import is_wildcard
from resolver.transport.tls import TlsError
from resolver.transport.udp import Answerer

TURN: Final = 64  # datagrams read of one socket, before other events of the loop get their turn
ACKNOWLEDGE_SECONDS: Final = 0.5  # at the end, for what was said to be acknowledged
DATAGRAM_OCTETS: Final = 2048  # a longer one fits no link on the way here, and may hold thousands of packets
CONNECTION_ID_OCTETS: Final = 8
_CONTROL_OCTETS: Final = 64  # room for the address that a datagram came to (struct in6_pktinfo, 20 octets, and header)
_LEAST_RESET_OCTETS, _RESET_OCTETS = 21, 43  # RFC 9000 §10.3
_VERSIONS: Final = (QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2)
# Of ITSP.40.062, as for TLS over TCP (`tls.py`).
_SUITES: Final = [CipherSuite.AES_256_GCM_SHA384, CipherSuite.AES_128_GCM_SHA256]
_PEM_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)

# What goes wrong on a connection is the client's doing and any client's to bring about; it is no news for our log.
for _name in ("quic", "http3"):
    logging.getLogger(_name).disabled = True


class Certificate:
    """A certificate chain with its key."""

    def __init__(self, chain: bytes, key: bytes) -> None:
        """Read it.

        Args:
            chain: In PEM, our own certificate first.
            key: Its private key in PEM, without a password.

        Raises:
            TlsError: It can not be read, or the two do not belong together.
        """
        try:
            found = load_pem_x509_certificates(b"".join(pem + b"\n" for pem in _PEM_CERTIFICATE.findall(chain)))
            self.key = load_pem_private_key(key)
        except (ValueError, TypeError) as error:
            raise TlsError(f"no certificate chain and key in PEM, without a password: {error}") from None
        if not found:
            raise TlsError("no certificate in the certificate's file; it must hold the chain in PEM")
        if found[0].public_key() != self.key.public_key():
            raise TlsError("the key is not that of the certificate; name the pair")
        self.own = found[0]
        self.chain = found[1:]


class QuicServer(Lobby):
    """All QUIC connections of one worker."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answerer: Answerer,
        terms: QuicTerms,
        places: Places,
        sockaddr: Callable[[str, int], bytes],
        now: Callable[[], float],
        certificate: Certificate,
    ) -> None:
        """Set up; `listen` opens the doors.

        Args:
            loop: The worker's.
            answerer: What to answer.
            terms: Limits.
            places: Of connections; stay the caller's.
            sockaddr: Makes the 28 octets of an address for hit records.
            now: Monotonic seconds.
            certificate: What new connections are shown.
        """
        super().__init__(loop, answerer, terms, places, sockaddr, now)
        self.certificate = certificate
        self.tickets = Tickets()
        self.tokens = QuicRetryTokenHandler()
        self._windows: list[_Window] = []
        self._second = 0
        self._come_to_nothing = 0  # connections within that second

    def __len__(self) -> int:
        return len(self.connections)

    async def listen(self, sock: socket.socket, transport: Transport, listener: str | None = None) -> None:
        """Take connections from a socket.

        Args:
            sock: UDP, bound and non-blocking; stays the caller's.
            transport: What is spoken there: DOQ or DOH3.
            listener: The group that all who come by it belong to, if any.
        """
        self._windows.append(_Window(self, sock, transport, listener))

    def renew(self, certificate: Certificate) -> None:
        """Show another certificate to those who come from now on; connections that are open go on as they are."""
        self.certificate = certificate
        for window in self._windows:
            window.renew()

    def is_pressed(self, now: float) -> bool:
        """Whether who comes has to show that he has his address."""
        if int(now) != self._second:
            self._second = int(now)
            self._come_to_nothing = 0
        return self.half_open + self._come_to_nothing >= self.terms.half_open

    def note_nothing(self) -> None:
        """Count a first packet that could not be read."""
        self._come_to_nothing += 1

    def reset_token(self, label: bytes) -> bytes:
        """What proves to a client that we know nothing of the connection with this id of ours."""
        return hashlib.blake2b(label, key=self.terms.reset_key, digest_size=16).digest()

    async def close(self, patience: float) -> None:
        """Take no more, let what is in flight be answered for so many seconds, and close."""
        self.is_leaving = True
        for connection in list(self.connections):
            connection.leave()
        end = self.now() + patience
        while any(connection.is_busy for connection in self.connections) and self.now() < end:
            await asyncio.sleep(0.02)
        # A client that is gone, as phones go, acknowledges nothing: nobody else's restart waits for it.
        end = min(end, self.now() + ACKNOWLEDGE_SECONDS)
        while any(connection.is_waited_for for connection in self.connections) and self.now() < end:
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.close()
        for window in self._windows:
            window.close()


class _Window:
    """One socket."""

    def __init__(self, server: QuicServer, sock: socket.socket, transport: Transport, listener: str | None) -> None:
        self.server = server
        self.transport = transport
        self.listener = listener
        self.by_id: dict[bytes, Connection] = {}
        self._sock = sock
        self._control_octets = _CONTROL_OCTETS if is_wildcard(sock.getsockname()[0]) else 0
        self._to_flush: dict[Connection, None] = {}
        self._flushing: asyncio.Handle | None = None
        spoken = doq if transport is Transport.DOQ else http3
        self.one_way_streams: int = spoken.ONE_WAY_STREAMS
        self._configuration = QuicConfiguration(
            is_client=False,
            alpn_protocols=[spoken.ALPN],
            cipher_suites=_SUITES,
            connection_id_length=CONNECTION_ID_OCTETS,
            idle_timeout=server.terms.idle_timeout,
            max_data=4 * spoken.STREAM_OCTETS,
            max_stream_data=spoken.STREAM_OCTETS,
            supported_versions=list(_VERSIONS),
        )
        self.renew()
        server.loop.add_reader(sock.fileno(), self._on_readable)

    def renew(self) -> None:
        """Show the server's certificate to those who come from now on."""
        shown = self.server.certificate
        self._configuration = replace(
            self._configuration, certificate=shown.own, certificate_chain=shown.chain, private_key=shown.key
        )

    def close(self) -> None:
        """Read no more."""
        self.server.loop.remove_reader(self._sock.fileno())
        if self._flushing is not None:
            self._flushing.cancel()

    def send(self, datagram: bytes, to: Address, control: Control) -> None:
        """Send one datagram, from the address that the client wrote to."""
        try:
            if control:
                self._sock.sendmsg([datagram], control, 0, to)
            else:
                self._sock.sendto(datagram, to)
        except OSError:
            return  # lost, as any datagram may be; QUIC sends it again

    def flush_soon(self, connection: "Connection") -> None:
        """Send what a connection has to send, together with all else of this round of the loop."""
        self._to_flush[connection] = None
        if self._flushing is None:
            self._flushing = self.server.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = None
        connections, self._to_flush = self._to_flush, {}
        for connection in connections:
            connection.flush()

    def _on_readable(self) -> None:
        sock, octets = self._sock, self._control_octets
        for _ in range(TURN):
            try:
                if octets:
                    datagram, control, _, peer = sock.recvmsg(DATAGRAM_OCTETS + 1, octets)
                else:
                    datagram, peer = sock.recvfrom(DATAGRAM_OCTETS + 1)
                    control = []
            except OSError:
                break  # nothing there
            if len(datagram) <= DATAGRAM_OCTETS:
                self.receive(datagram, peer, control)
        if self._flushing is not None:
            self._flushing.cancel()
            self._flush()

    def receive(self, datagram: bytes, peer: Address, control: Control) -> None:
        """Take one datagram, whatever it is."""
        if len(datagram) <= CONNECTION_ID_OCTETS:
            return
        if datagram[0] & 0x80:
            octets = datagram[5]
            label = datagram[6 : 6 + octets]
        else:
            label = datagram[1 : 1 + CONNECTION_ID_OCTETS]
        connection = self.by_id.get(label)
        if connection is not None:
            if connection.host == peer[0]:
                connection.receive(datagram, peer, control)
        elif not datagram[0] & 0x80:
            # Always shorter than what it answers, so that two servers end who take each other for clients. If it is
            # long enough for a token it looks like any other packet (RFC 9000 §10.3).
            octets = min(len(datagram) - 1, _RESET_OCTETS)
            if octets >= _LEAST_RESET_OCTETS:
                noise = os.urandom(octets - 16)
                self.send(bytes([noise[0] & 0x3F | 0x40]) + noise[1:] + self.server.reset_token(label), peer, control)
        elif len(datagram) >= SMALLEST_MAX_DATAGRAM_SIZE:
            # Smaller ones begin nothing, and get nothing: a reply would be larger (RFC 9000 §5.2.2, §14.1).
            self._arrive(datagram, label, peer, control)

    def _arrive(self, datagram: bytes, label: bytes, peer: Address, control: Control) -> None:
        """Let a connection begin, or say what is missing for one."""
        version = int.from_bytes(datagram[1:5], "big")
        at = 6 + len(label)
        source = datagram[at + 1 : at + 1 + datagram[at]]
        if version not in _VERSIONS:
            if version:  # 0 is itself a Version Negotiation packet, and two servers could go on for ever
                self.send(encode_quic_version_negotiation(label, source, list(_VERSIONS)), peer, control)
            return
        server = self.server
        try:
            header = pull_quic_header(Buffer(data=datagram))
        except ValueError:
            return
        if header.packet_type is not QuicPacketType.INITIAL or len(label) < 8 or server.is_leaving:  # RFC 9000 §7.2
            return
        now = server.now()
        original, retry_source = label, None
        if header.token:
            try:
                original = server.tokens.validate_token(
                    address=peer, destination_cid=label, token=header.token, now=now
                )
            except ValueError:
                self.send(_refusal(version, label, source, QuicErrorCode.INVALID_TOKEN), peer, control)
                return
            retry_source = label
        elif server.is_pressed(now):
            retry_source = os.urandom(CONNECTION_ID_OCTETS)
            token = server.tokens.create_token(
                address=peer, original_destination_connection_id=label, retry_source_connection_id=retry_source, now=now
            )
            self.send(encode_quic_retry(version, retry_source, source, label, token), peer, control)
            return
        quic = BoundedQuic(
            self._configuration,
            server.tickets,
            server.reset_token,
            original,
            retry_source,
            server.terms.in_flight,
            self.one_way_streams,
        )
        connection = Connection(self, quic, peer, now)
        if not server.places.admit(connection):
            self.send(_refusal(version, label, source, QuicErrorCode.CONNECTION_REFUSED), peer, control)
            return
        connection.begin(label)
        connection.receive(datagram, peer, control)
        if not quic.has_begun:
            connection.vanish()
            server.note_nothing()


def _refusal(version: int, label: bytes, source: bytes, code: QuicErrorCode) -> bytes:
    """An Initial packet that says why there will be no connection; nothing is kept for it (RFC 9000 §5.2.2, §8.1.2)."""
    crypto = CryptoPair()
    crypto.setup_initial(cid=label, is_client=False, version=version)
    builder = QuicPacketBuilder(
        host_cid=label,
        is_client=False,
        max_datagram_size=SMALLEST_MAX_DATAGRAM_SIZE,
        peer_cid=source,
        version=version,
    )
    builder.start_packet(QuicPacketType.INITIAL, crypto)
    frame = builder.start_frame(QuicFrameType.TRANSPORT_CLOSE, capacity=TRANSPORT_CLOSE_FRAME_CAPACITY)
    frame.push_uint_var(code)
    frame.push_uint_var(QuicFrameType.PADDING)
    frame.push_uint_var(0)
    datagrams, _ = builder.flush()
    return datagrams[0]
