"""Who an upstream over TLS or HTTPS has to be, and how it shows it.

By its certificate's name, by pins on its key, or by both where both are given (RFC 8310 §6.4). One set of TLS settings
serves all connections to an upstream; it also keeps the session that the next one resumes (RFC 7858 §3.4).
"""

import base64
import hashlib
import ipaddress
import os
import ssl
from dataclasses import dataclass
from typing import cast

from resolver.policy.client import Transport

ESTABLISH_SECONDS = 5.0  # for TCP and TLS; it goes on in the background when those who wait have given up


@dataclass(frozen=True, slots=True)
class SecureTerms:
    """How an upstream is reached, and how it shows who it is.

    Attributes:
        transport: DOT or DOH.
        name: What its certificate must be for (its authentication domain name, RFC 8310 §7); None: its address, unless
            pins are given.
        pins: SHA-256 digests of SubjectPublicKeyInfo, one of which must be its key's (RFC 7858 §4.2).
        ca_file: PEM file of those who may have signed its certificate; None: whom the system trusts.
        path: Of the URI, for DOH.
        strict: Whether an upstream that did not show who it is gets no query.
        connections: How many there may be at a time.
        idle_timeout: Seconds without a query before a connection is closed, unless the upstream names its own.
    """

    transport: Transport
    name: str | None = None
    pins: tuple[bytes, ...] = ()
    ca_file: str | None = None
    path: str = "/dns-query"
    strict: bool = True
    connections: int = 2
    idle_timeout: float = 10.0


class UnestablishedError(ConnectionError):
    """There is no connection, or not with whom we want one."""


class Identity:
    """Whom we want at the other end: the TLS settings that all connections to it share, and the session to resume."""

    def __init__(self, terms: SecureTerms, host: str) -> None:
        self._terms = terms
        self.called = (terms.name or host).rstrip(".").lower()
        self._by_name = terms.name is not None or not terms.pins
        self.session: ssl.SSLSession | None = None
        self.tls = _ResumingContext(self)
        self.tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self.tls.set_alpn_protocols([_ALPN[terms.transport]])
        # Names are compared in `check`, which can say for whom the certificate is.
        self.tls.check_hostname = False
        self.tls.verify_mode = ssl.CERT_NONE
        if terms.strict and (self._by_name or terms.ca_file is not None):
            self.tls.verify_mode = ssl.CERT_REQUIRED
            try:
                self.tls.load_default_certs() if terms.ca_file is None else self.tls.load_verify_locations(
                    terms.ca_file
                )
            except ssl.SSLError:
                raise OSError(f"{terms.ca_file} holds no certificate; write the path of a PEM file") from None

    def check(self, tls: ssl.SSLObject) -> None:
        """Refuse an upstream that speaks another protocol or is not whom we want.

        Raises:
            UnestablishedError: With what it is instead.
        """
        spoken = tls.selected_alpn_protocol()
        if self._terms.transport is Transport.DOH and spoken != "h2":
            raise UnestablishedError("the upstream speaks HTTP/1.1 only; HTTP/2 is needed (ALPN h2)")
        certificate = tls.getpeercert(True)
        if not self._terms.strict:
            return
        if certificate is None:
            raise UnestablishedError("the upstream showed no certificate")
        pin = hashlib.sha256(public_key_info(certificate)).digest()
        if self._terms.pins and pin not in self._terms.pins:
            raise UnestablishedError(f"no pin matches; the server's is sha256/{base64.b64encode(pin).decode()}")
        if self._by_name:
            names = _names(tls)
            if not any(_is_for(name, self.called) for name in names):
                raise UnestablishedError(f"certificate is for {', '.join(names) or 'no name'}, not {self.called}")


class _ResumingContext(ssl.SSLContext):
    """TLS settings by which a connection resumes the session of an earlier one (RFC 7858 §3.4).

    asyncio has no argument for it; it and uvloop make their TLS objects here. A session is resumed once, so that two
    connections can not be told to be ours by its ticket (RFC 8446 Appendix C.4).
    """

    _identity: Identity

    def __new__(cls, identity: Identity) -> "_ResumingContext":
        made = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        made._identity = identity
        return made

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """As that of every context, with the session at hand."""
        session, self._identity.session = self._identity.session, None
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)


_ALPN = {Transport.DOT: "dot", Transport.DOH: "h2"}  # RFC 7858 has none; "dot" is registered for it


def _names(tls: ssl.SSLObject) -> list[str]:
    """Those of the subjectAltName; nothing else in a certificate names its holder (RFC 8310 §8.1)."""
    shown = tls.getpeercert() or {}
    entries = cast("tuple[tuple[str, str], ...]", shown.get("subjectAltName", ()))
    return [value.strip() for kind, value in entries if kind in ("DNS", "IP Address")]


def _is_for(name: str, wanted: str) -> bool:
    """Whether a name in a certificate covers the wanted one; "*" stands for one whole first label (RFC 9525 §6.3)."""
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(wanted)
    except ValueError:
        pass
    name = name.rstrip(".").lower()
    return name == wanted or (name.startswith("*.") and name[1:] == wanted[wanted.find(".") :] != wanted)


def public_key_info(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a certificate in DER that TLS has already read (RFC 5280 §4.1)."""
    at, _ = _inside(certificate, _inside(certificate, 0)[0])
    if certificate[at] == 0xA0:  # the version, which stands first where it is not 1
        _, at = _inside(certificate, at)
    for _ in range(5):  # serialNumber, signature, issuer, validity, subject
        _, at = _inside(certificate, at)
    return certificate[at : _inside(certificate, at)[1]]


def _inside(der: bytes, at: int) -> tuple[int, int]:
    """Where the contents of the element at an octet begin, and where they end."""
    octets, start = der[at + 1], at + 2
    if octets >= 0x80:
        octets, start = int.from_bytes(der[start : start + octets - 0x80], "big"), start + octets - 0x80
    return start, start + octets


def reason(error: Exception, transport: Transport) -> str:
    """Why no connection came about, for who has to mend it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        words = (error.reason or str(error)).replace("_", " ").lower()
        if "application protocol" in words:
            return f"the upstream does not offer {_ALPN[transport]} (ALPN)"
        return f"no TLS: {words}"
    if isinstance(error, TimeoutError):
        return f"no TLS connection within {ESTABLISH_SECONDS:g} seconds"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    if isinstance(error, ConnectionError):
        return "the upstream closed the connection during the TLS handshake"
    return str(error)
