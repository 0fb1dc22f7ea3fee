"""Where a server listens and how each listener speaks: out of the configuration, and with the certificate in its files.

The supervisor opens the sockets and makes the TLS contexts, before workers are forked: they then share the keys that
session tickets are made with. Each worker looks after the files of the certificate by itself.
"""

import os
import socket
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from resolver.config import Config
from resolver.engine.discovery import Discovery
from resolver.policy.client import Transport
from resolver.policy.values import Endpoint
from resolver.transport.sockets import bind_tcp, bind_udp
from resolver.transport.tls import ServerContext, TlsError, load_certificate, server_context
from resolver.wire import name as names

_DATAGRAMS = (Transport.UDP, Transport.DOQ, Transport.DOH3)
_ALPN = {Transport.DOT: ["dot"], Transport.DOH: ["h2", "http/1.1"]}
"""What is spoken over TLS (RFC 7858 has no name for itself; RFC 9461 §4 registers "dot")."""


@dataclass(frozen=True, slots=True)
class Listening:
    """One address, spoken at in one way.

    Attributes:
        transport: How.
        endpoint: Where.
        group: The group that all who come by it belong to, if any.
    """

    transport: Transport
    endpoint: Endpoint
    group: str | None = None

    @property
    def kind(self) -> socket.SocketKind:
        """Of which kind its sockets are."""
        return socket.SOCK_DGRAM if self.transport in _DATAGRAMS else socket.SOCK_STREAM

    def bind(self, given: socket.socket | None) -> socket.socket:
        """A socket for one worker; one that was given is set up.

        Raises:
            BindError: The address can not be had.
        """
        bind = bind_udp if self.kind == socket.SOCK_DGRAM else bind_tcp
        return bind(self.endpoint.host, self.endpoint.port, given)


def listeners(config: Config) -> tuple[Listening, ...]:
    """All of them, plain ones first."""
    groups = {endpoint: group.name for group in config.groups for endpoint in group.listeners}
    encrypted = config.encrypted
    spoken = [(transport, config.listen) for transport in (Transport.UDP, Transport.TCP)]
    spoken += [
        (Transport.DOT, encrypted.dot),
        (Transport.DOH, encrypted.doh),
        (Transport.DOQ, encrypted.doq),
        (Transport.DOH3, encrypted.doh3),
    ]
    return tuple(
        Listening(transport, endpoint, groups.get(endpoint))
        for transport, endpoints in spoken
        for endpoint in endpoints
    )


@dataclass(frozen=True, slots=True)
class Chain:
    """A certificate with what goes with it.

    Attributes:
        certificate: The chain, PEM.
        key: Its private key, PEM.
        expires: When the server's own certificate ends, in Unix seconds.
    """

    certificate: bytes
    key: bytes
    expires: float


class Certificate:
    """The certificate that all encrypted listeners show, the contexts that it is in, and a key that workers share.

    Attributes:
        contexts: Of TLS, by what is spoken over it.
        chain: What is shown now.
        reset_key: For stateless resets of QUIC (RFC 9000 §10.3): a worker that was started again resets the connections
            of the one before.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path,
        client_authorities: Path | None,
        asking: Collection[Transport] = (Transport.DOT, Transport.DOH),
    ) -> None:
        """Read it for the first time.

        Args:
            certificate: The chain, PEM.
            key: Its private key, PEM.
            client_authorities: Who may vouch for devices, PEM; None: clients are asked for no certificate.
            asking: The transports by which they are.

        Raises:
            TlsError: A file can not be used.
        """
        self.reset_key = os.urandom(32)
        self._files = certificate, key
        self._authorities = {transport: client_authorities if transport in asking else None for transport in _ALPN}
        self._seen = self._stamps()
        self.contexts: dict[Transport, ServerContext] = {
            transport: server_context(alpn, self._authorities[transport]) for transport, alpn in _ALPN.items()
        }
        self.chain = self._load()

    @classmethod
    def of(cls, config: Config) -> "Certificate | None":
        """That of a configuration; None where nothing is encrypted.

        Raises:
            TlsError: A file can not be used.
        """
        encrypted = config.encrypted
        if encrypted.certificate is None or encrypted.key is None:
            return None
        authorities = None if encrypted.client_authorities is None else _path(encrypted.client_authorities)
        asking = [Transport(name) for name in encrypted.client_certificates]
        return cls(_path(encrypted.certificate), _path(encrypted.key), authorities, asking)

    def renew(self) -> bool:
        """Read the files again where they changed; whether there is a new certificate. What can not be used is left.

        Raises:
            TlsError: The files changed and can not be used; they are not tried again before they change once more.
        """
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._seen = stamps
        self.chain = self._load()
        return True

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        found: list[tuple[int, int, int] | None] = []
        for path in self._files:
            try:
                status = path.stat()
            except OSError:
                found.append(None)
            else:
                found.append((status.st_ino, status.st_ctime_ns, status.st_size))  # of the mode as well
        return tuple(found)

    def _load(self) -> Chain:
        from cryptography import x509  # only where something is encrypted: it imports much

        certificate, key = self._files
        fresh = {transport: server_context(alpn, self._authorities[transport]) for transport, alpn in _ALPN.items()}
        for context in fresh.values():
            load_certificate(context, certificate, key)
        try:
            chain, secret = certificate.read_bytes(), key.read_bytes()
            expires = x509.load_pem_x509_certificate(chain).not_valid_after_utc.timestamp()
        except (OSError, ValueError) as error:
            raise TlsError(f"{certificate} can not be used ({error}); it must hold certificates in PEM") from None
        for transport, context in fresh.items():
            self.contexts[transport].shown = context
        return Chain(chain, secret, expires)


def _path(text: str) -> Path:
    return Path(text).expanduser()


def discovery(config: Config) -> Discovery | None:
    """What clients are told of the encrypted transports (RFC 9462); None where there is none, or no name for it.

    Listeners of a group are left out: a client that finds them by itself would be held to other rules for it (§7).
    """
    encrypted = config.encrypted
    if encrypted.name is None:
        return None
    open_to_all = {
        one.transport: one.endpoint
        for one in reversed(listeners(config))
        if one.transport.is_encrypted and one.group is None
    }
    addresses = encrypted.addresses
    if not addresses:
        hosts = dict.fromkeys(endpoint.host for endpoint in open_to_all.values())
        addresses = tuple(host for host in hosts if not ip_address(host).is_unspecified)
    return Discovery(
        names.from_text(encrypted.name),
        tuple(ip_address(address) for address in addresses),
        path=encrypted.path,
        **{transport.value: endpoint.port for transport, endpoint in open_to_all.items()},
    )
