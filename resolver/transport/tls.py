"""TLS towards clients: how it is set up, the door that connections come in by, and what a client showed of itself.

TLS 1.2 with the suites that ITSP.40.062 recommends (ephemeral ECDH, AES in GCM or CCM mode), TLS 1.3 preferred, no
renegotiation, no compression, resumption by tickets, no early data (RFC 8446 §8 says what that would open). The suites
of TLS 1.3 are OpenSSL's to set, by its configuration file: `deploy/openssl.cnf` leaves out the one that ITSP.40.062
does not name. One context is made before the workers are forked, so a ticket of one is good with all; a new certificate
is put into another one, which each connection is handed to when its client has said hello. Those that are open go on
with the one they began with.
"""

import asyncio
import contextlib
import errno
import math
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from resolver.policy.client import Credentials
from resolver.transport.places import Places, PlaceTerms
from resolver.transport.sockets import TCP_BACKLOG

# ITSP.40.062 (CCCS, Guidance on Securely Configuring Network Protocols), section on TLS: recommended for TLS 1.2.
_SUITES = ":".join(
    f"ECDHE-{signature}-{cipher}"
    for cipher in ("AES256-GCM-SHA384", "AES128-GCM-SHA256", "AES256-CCM", "AES128-CCM")
    for signature in ("ECDSA", "RSA")
    if signature == "ECDSA" or "CCM" not in cipher
)
PAUSE_SECONDS = 1.0  # where no descriptor is left for whoever comes
SHUTDOWN_SECONDS = 1.0  # for a client to say that it closes as well; its place is free meanwhile
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
ACCEPTS_A_TURN = 64  # connections taken in one go, before other events of the loop get their turn
KERNEL_OCTETS = 32 * 1024  # of each buffer of a connection in the kernel, which doubles it: else it grows to megabytes
UNREAD_OCTETS = 16 * 1024  # that wait undeciphered while a connection is not read from; by default 256 KiB


class TlsError(Exception):
    """Certificate, key or authorities can not be used; the message says which file, why, and what to do."""


class NamedSslObject(ssl.SSLObject):
    """One end of a TLS connection that remembers by which name the client called us."""

    server_name: str | None = None


class ServerContext(ssl.SSLContext):
    """The settings that connections begin with, and that tickets belong to; another shows the certificate of now.

    A context that is given a certificate with another kind of key keeps the one before beside it (OpenSSL has a place
    for each kind), and goes on showing that to whoever prefers it.
    """

    shown: ssl.SSLContext | None = None


def server_context(alpn: list[str], client_authorities: Path | None) -> ServerContext:
    """Set up TLS for one kind of listener; `load_certificate` puts the certificate in.

    Args:
        alpn: The protocols spoken there, the preferred first (RFC 7301).
        client_authorities: Certificates (PEM) of who may vouch for devices; a client may then show a certificate, and
            one that does not hold ends the handshake. None: no client is asked for one.

    Raises:
        TlsError: The authorities can not be read.
    """
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_SUITES)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(alpn)
    context.sslobject_class = NamedSslObject
    context.sni_callback = _remember_name
    if client_authorities is not None:
        try:
            context.load_verify_locations(client_authorities)
        except (OSError, ssl.SSLError) as error:
            raise TlsError(_unusable(client_authorities, error, "certificates in PEM")) from None
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def load_certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Put a certificate in, in place of the one before; what can not be used leaves that.

    Args:
        certificate: The chain in PEM, our own certificate first.
        key: Its private key in PEM, without a password.

    Raises:
        TlsError: A file can not be read, or the two do not belong together.
    """
    trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for path in (certificate, key):
        try:
            path.read_bytes()
        except OSError as error:
            raise TlsError(_unusable(path, error, "a certificate chain and its key, in PEM")) from None
    try:
        trial.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        if "KEY_VALUES_MISMATCH" in str(error):
            raise TlsError(f"the key {key} is not that of the certificate {certificate}; name the pair") from None
        raise TlsError(_unusable(certificate, error, "a certificate chain and its key, in PEM")) from None
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ssl.SSLError) as error:  # replaced between the two looks
        raise TlsError(_unusable(certificate, error, "a certificate chain and its key, in PEM")) from None


def _no_password() -> str:
    raise ValueError("the key is encrypted with a password")


def _unusable(path: Path, error: Exception, expected: str) -> str:
    reason = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
    if reason is None and isinstance(error, ssl.SSLError):
        reason = error.reason or "not PEM"
    return f"{path} can not be used ({reason or error}); it must hold {expected}, readable for the server's account"


def _remember_name(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
    if isinstance(context, ServerContext) and context.shown is not None:
        connection.context = context.shown
    if name is not None and isinstance(connection, NamedSslObject):
        connection.server_name = name.lower()


def credentials_of(transport: asyncio.BaseTransport) -> Credentials | None:
    """What a client showed in its handshake: the name it called us by, and its certificate where it was verified."""
    connection = transport.get_extra_info("ssl_object")
    if connection is None:
        return None
    names: list[str] = []
    until = math.inf
    shown = connection.getpeercert()
    if shown:
        until = float(ssl.cert_time_to_seconds(shown["notAfter"]))
        names += [value for kind, value in shown.get("subjectAltName", ()) if kind in ("DNS", "URI", "email")]
        names += [value for part in shown.get("subject", ()) for key, value in part if key == "commonName"]
    server_name = connection.server_name if isinstance(connection, NamedSslObject) else None
    if not names and server_name is None:
        return None
    return Credentials(certificate=tuple(names), until=until, server_name=server_name)


class TlsDoor:
    """Takes connections in, and passes each on once its handshake is done.

    Handshakes under way have places of their own: when all are taken, the oldest makes room. So half-open connections
    cost a bounded number of descriptors, and put nobody out who is in.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        tls: ssl.SSLContext,
        guest: Callable[[], asyncio.BaseProtocol],
        terms: PlaceTerms,
        now: Callable[[], float],
    ) -> None:
        """Open the door.

        Args:
            loop: The worker's.
            sock: Listening, non-blocking; stays the caller's.
            tls: How to encrypt.
            guest: Makes the protocol of one connection.
            terms: Limits of handshakes; the idle time is what one may take in all.
            now: Monotonic seconds.
        """
        self._loop = loop
        self._sock = sock
        self._tls = tls
        self._guest = guest
        self._terms = terms
        self._now = now
        self._places = Places(loop, terms, now)
        self._tasks: set[asyncio.Task[None]] = set()
        self.failed = 0
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):  # who is accepted inherits them
            sock.setsockopt(socket.SOL_SOCKET, option, KERNEL_OCTETS)
        sock.listen(TCP_BACKLOG)
        self._pause: asyncio.TimerHandle | None = None
        self._open()

    def _open(self) -> None:
        self._loop.add_reader(self._sock.fileno(), self._on_readable)

    @property
    def evicted(self) -> int:
        """How many handshakes were ended to make room for others."""
        return self._places.evicted

    def close(self) -> None:
        """Take nobody in any longer."""
        self._loop.remove_reader(self._sock.fileno())
        if self._pause is not None:
            self._pause.cancel()
        self._places.close()
        for task in list(self._tasks):
            task.cancel()

    def _on_readable(self) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                sock, peer = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    # Whoever waits would wake us again at once.
                    self._loop.remove_reader(self._sock.fileno())
                    self._pause = self._loop.call_later(PAUSE_SECONDS, self._open)
                return
            arrival = _Arrival(sock, peer[0], self._now())
            if not self._places.admit(arrival):
                sock.close()
                continue
            task = self._loop.create_task(self._shake(arrival))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _shake(self, arrival: "_Arrival") -> None:
        try:
            transport, _ = await self._loop.connect_accepted_socket(
                self._guest,
                arrival.sock,
                ssl=self._tls,
                ssl_handshake_timeout=self._terms.idle_timeout,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )
            transport.set_read_buffer_limits(UNREAD_OCTETS)  # type: ignore[attr-defined]
        except (OSError, TimeoutError):  # of SSL too: its errors are OSErrors
            self.failed += 1
        finally:
            self._places.release(arrival)


class _Arrival:
    """A connection whose handshake is under way."""

    is_busy = False

    def __init__(self, sock: socket.socket, host: str, at: float) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.host = host
        self.active_at = at

    def expire(self) -> None:
        """Nothing: the handshake has a time limit of its own."""

    def abort(self) -> None:
        """Hang up; the handshake then fails, and its place is let go."""
        with contextlib.suppress(OSError):  # it is gone already
            self.sock.shutdown(socket.SHUT_RDWR)
