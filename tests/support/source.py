"""A source of lists: an HTTPS server on loopback that answers as the test says, and its certificate authority."""

import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path
from socketserver import ThreadingMixIn

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Answer = Callable[[BaseHTTPRequestHandler], None]


def says(body: bytes = b"", status: int = 200, /, **headers: str) -> Answer:
    """Answer with a status, headers (with _ for -) and a body, whose length is told unless a header says otherwise."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | fields).items():
            to.send_header(name, value)
        to.end_headers()
        to.wfile.write(body)

    return answer


def writes(octets: bytes) -> Answer:
    """Answer with octets that need not be HTTP, and close."""
    return lambda to: to.wfile.write(octets) and None


def unless_known(body: bytes, etag: str, last_modified: str) -> Answer:
    """Answer 304 to who has the list already."""

    def answer(to: BaseHTTPRequestHandler) -> None:
        known = to.headers["If-None-Match"] == etag
        (says(b"", 304) if known else says(body, ETag=etag, Last_Modified=last_modified))(to)

    return answer


class Source(ThreadingMixIn, HTTPServer):
    """A server on loopback that answers as the test says, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.end = threading.Event()
        self.scheme = "http"

    def wrap(self, certificate: Path) -> None:
        """Speak TLS, with the key and the certificate of a file."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.scheme = "https"

    def url(self, path: str = "/list") -> str:
        """Where a path of this server is."""
        return f"{self.scheme}://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """The client went away in the middle, as most tests here make it do."""

    def drips(self, before: bytes, piece: bytes) -> Answer:
        """Answer with one piece after the other, far longer than a client should take it."""

        def answer(to: BaseHTTPRequestHandler) -> None:
            to.wfile.write(before)
            for _ in range(100):
                if self.end.wait(0.02):
                    break
                to.wfile.write(piece)

        return answer

    def falls_silent(self, before: bytes) -> Answer:
        """Answer with the beginning of a reply, and nothing more until the test ends."""

        def answer(to: BaseHTTPRequestHandler) -> None:
            to.wfile.write(before)
            self.end.wait(10)

        return answer


class _Handler(BaseHTTPRequestHandler):
    server: Source
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.asked.append((self.path, dict(self.headers)))
        self.server.pages.get(self.path, says(b"", 404))(self)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Authority:
    """A certificate authority of our own, in files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Example Authority")])
        self.ca_file = folder / "ca.pem"
        basic = x509.BasicConstraints(ca=True, path_length=0)
        made = self._build(self._name, self._key, timedelta(days=1)).add_extension(basic, critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        signed = made.add_extension(identifier, critical=False).sign(self._key, hashes.SHA256())
        self.ca_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def certificate(self, address: str, until: timedelta) -> Path:
        """Make a key and a certificate for an address, in one file."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
        alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        made = self._build(name, key, until).add_extension(alternative, critical=False)
        signed = made.add_extension(issuer, critical=False).sign(self._key, hashes.SHA256())
        path = self._folder / f"{address}{until}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + signed.public_bytes(serialization.Encoding.PEM)
        )
        return path

    def _build(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, until: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + until)
        )
