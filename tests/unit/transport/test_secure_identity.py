"""Whom a certificate is for and whose key it holds: who is not the wanted upstream gets no query, and we say why."""

import asyncio
import base64
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from resolver.policy.client import Transport
from resolver.transport.secure import TlsExchange
from resolver.transport.secure_identity import Identity, SecureTerms, UnestablishedError, public_key_info, reason
from resolver.wire.message import read_reply
from tests.support.house import ask
from tests.support.secure_upstream import Certificates, mirror, pin_of, server_context, upstream

QUERY = ask("www.example.org", message_id=0)
NAME = "dns.example.org"
OTHER_PIN = bytes(32)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority that nobody here trusts."""
    return Certificates(tmp_path_factory.mktemp("stranger"))


def verdict(certificate: Path, terms: SecureTerms) -> str:
    """What comes of a query to an upstream that shows this certificate: "answered", or why it is not."""

    async def story() -> tuple[str, int]:
        async with upstream(mirror, server_context(certificate, "dot")) as server:
            exchange = TlsExchange(asyncio.get_running_loop(), "127.0.0.1", server.port, terms)
            try:
                await exchange.ask(QUERY, read_reply, 5.0)
                found = "answered"
            except ConnectionError as error:
                found = str(error)
            exchange.close()
            return found, len(server.asked)

    found, asked = asyncio.run(story())
    assert asked == (found == "answered")  # who is not wanted hears nothing
    return found


@pytest.mark.parametrize(
    ("names", "name", "expected"),
    [
        ([NAME], NAME, "answered"),
        ([NAME], "DNS.Example.org.", "answered"),
        (["one.example.org", NAME], NAME, "answered"),
        (["*.example.org"], NAME, "answered"),
        (["127.0.0.1"], None, "answered"),
        ([NAME], "dns.example.net", "certificate is for dns.example.org, not dns.example.net"),
        (["a.example.org", "192.0.2.1"], NAME, "certificate is for a.example.org, 192.0.2.1, not dns.example.org"),
        ([], "common.example", "certificate is for no name, not common.example"),
        ([NAME], None, "certificate is for dns.example.org, not 127.0.0.1"),
        (["*.org"], NAME, "certificate is for *.org, not dns.example.org"),
        (["*.example.org"], "example.org", "certificate is for *.example.org, not example.org"),
        (["*.example.org"], "a.dns.example.org", "certificate is for *.example.org, not a.dns.example.org"),
        (["d*.example.org"], NAME, "certificate is for d*.example.org, not dns.example.org"),
        (["*"], "localhost", "certificate is for *, not localhost"),
    ],
)
def test_a_certificate_is_for_the_names_in_it(
    authority: Certificates, names: list[str], name: str | None, expected: str
) -> None:
    """Of its subjectAltName alone (RFC 8310 §8.1); an asterisk is one first label; without a name, the address."""
    terms = SecureTerms(Transport.DOT, name, ca_file=str(authority.ca_file))

    assert verdict(authority.issue(*names), terms) == expected


def test_a_certificate_counts_only_from_who_is_trusted_and_in_its_time(
    authority: Certificates, stranger: Certificates
) -> None:
    """The reason is the one that the library has for it."""
    terms = SecureTerms(Transport.DOT, NAME, ca_file=str(authority.ca_file))

    assert verdict(stranger.issue(NAME), terms) == "certificate refused: unable to get local issuer certificate"
    late = authority.issue(NAME, until=timedelta(hours=-1))
    assert verdict(late, terms) == "certificate refused: certificate has expired"
    system = SecureTerms(Transport.DOT, NAME)
    assert verdict(authority.issue(NAME), system).startswith("certificate refused: ")


def test_a_pin_is_enough_and_must_match(stranger: Certificates) -> None:
    """Whoever signed the certificate, for whatever name (RFC 7858 §4.2); the server's own is told, to be compared."""
    certificate = stranger.issue("whoever.example")
    pin = pin_of(certificate)

    assert verdict(certificate, SecureTerms(Transport.DOT, pins=(OTHER_PIN, pin))) == "answered"
    told = verdict(certificate, SecureTerms(Transport.DOT, pins=(OTHER_PIN,)))
    assert told == f"no pin matches; the server's is sha256/{base64.b64encode(pin).decode()}"


def test_with_name_and_pins_both_must_hold(authority: Certificates, stranger: Certificates) -> None:
    """RFC 8310 §6.4."""
    right, strange = authority.issue(NAME), stranger.issue(NAME)
    ca_file = str(authority.ca_file)

    assert verdict(right, SecureTerms(Transport.DOT, NAME, (pin_of(right),), ca_file)) == "answered"
    assert "no pin matches" in verdict(right, SecureTerms(Transport.DOT, NAME, (OTHER_PIN,), ca_file))
    assert "refused" in verdict(strange, SecureTerms(Transport.DOT, NAME, (pin_of(strange),), ca_file))
    wrong = SecureTerms(Transport.DOT, "dns.example.net", (pin_of(right),), ca_file)
    assert verdict(right, wrong) == "certificate is for dns.example.org, not dns.example.net"


def test_opportunistic_takes_whom_it_gets(stranger: Certificates) -> None:
    """Name, pins and authority are then for nothing."""
    terms = SecureTerms(Transport.DOT, NAME, (OTHER_PIN,), strict=False)

    assert verdict(stranger.issue("other.example", until=timedelta(hours=-1)), terms) == "answered"


def test_without_a_certificate_there_is_no_trust() -> None:
    """Whatever the handshake has come to."""

    class Bare(ssl.SSLObject):
        def __init__(self) -> None:
            pass

        def selected_alpn_protocol(self) -> None:
            return None

        def getpeercert(self, binary_form: bool = False) -> None:
            return None

    with pytest.raises(UnestablishedError, match="showed no certificate"):
        Identity(SecureTerms(Transport.DOT, NAME), "192.0.2.53").check(Bare.__new__(Bare))
    Identity(SecureTerms(Transport.DOT, NAME, strict=False), "192.0.2.53").check(Bare.__new__(Bare))


def test_a_file_of_authorities_must_hold_one(tmp_path: Path) -> None:
    """Found when the exchange is made, not when somebody asks."""
    empty = tmp_path / "ca.pem"
    empty.write_text("nothing\n")

    with pytest.raises(OSError, match="holds no certificate; write the path of a PEM file"):
        Identity(SecureTerms(Transport.DOT, NAME, ca_file=str(empty)), "192.0.2.53")
    with pytest.raises(FileNotFoundError):
        Identity(SecureTerms(Transport.DOT, NAME, ca_file=str(tmp_path / "none")), "192.0.2.53")


def test_no_old_version_of_tls_is_spoken() -> None:
    """TLS 1.2 at least (RFC 8310 §9 and RFC 9325 §3.1.1)."""
    assert Identity(SecureTerms(Transport.DOT, NAME), "192.0.2.53").tls.minimum_version == ssl.TLSVersion.TLSv1_2


def tls_error(words: str | None, said: str = "") -> ssl.SSLError:
    error = ssl.SSLError(1, said)
    if words is not None:
        error.reason = words
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (tls_error("TLSV1_ALERT_NO_APPLICATION_PROTOCOL"), "the upstream does not offer h2 (ALPN)"),
        (tls_error("TLSV1_ALERT_PROTOCOL_VERSION"), "no TLS: tlsv1 alert protocol version"),
        (TimeoutError(), "no TLS connection within 5 seconds"),
        (ConnectionRefusedError(111, "Connect call failed ('192.0.2.53', 443)"), "connection refused"),
        (OSError(101, "whatever"), "network is unreachable"),
        (ConnectionResetError(), "the upstream closed the connection during the TLS handshake"),
        (ValueError("server_hostname can not be this"), "server_hostname can not be this"),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else None,
)
def test_a_failure_is_told_in_an_operators_words(error: Exception, expected: str) -> None:
    """Without the library's own numbers and brackets."""
    assert reason(error, Transport.DOH) == expected


KEYS = {
    "EC P-256": ec.generate_private_key(ec.SECP256R1()),
    "EC P-521": ec.generate_private_key(ec.SECP521R1()),
    "RSA 2048": rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("names", [1, 40], ids=["short", "long"])
def test_the_key_is_found_in_every_certificate(
    authority: Certificates, key: ec.EllipticCurvePrivateKey, names: int
) -> None:
    """The same octets as the library for certificates finds, whatever stands before them."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"n{n}.example.org") for n in range(names)])
    made = authority._build(subject, key, timedelta(days=1))
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    der = made.sign(key, algorithm).public_bytes(serialization.Encoding.DER)

    form = serialization.PublicFormat.SubjectPublicKeyInfo
    assert public_key_info(der) == key.public_key().public_bytes(serialization.Encoding.DER, form)
