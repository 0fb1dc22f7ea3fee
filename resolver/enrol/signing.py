"""Certificates and signatures: what is read of a certificate file, and the signature (CMS, RFC 5652 §5) of profiles.

The only module of this room that knows cryptography.
"""

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, pkcs7

from resolver.enrol.profile import EnrolError


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key and its certificate, with the certificates between that and a trusted one."""

    key: RSAPrivateKey | EllipticCurvePrivateKey
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]

    def sign(self, octets: bytes) -> bytes:
        """Return the octets wrapped in a signature (CMS SignedData, DER).

        A signature states the time and may hold chance: it is the only thing here that differs from run to run.
        """
        builder = pkcs7.PKCS7SignatureBuilder().set_data(octets).add_signer(self.certificate, self.key, SHA256())
        for certificate in self.chain:
            builder = builder.add_certificate(certificate)
        return builder.sign(Encoding.DER, [pkcs7.PKCS7Options.Binary])


def read_certificates(text: bytes) -> tuple[bytes, ...]:
    """Return the certificates (DER) of a file in PEM.

    Raises:
        EnrolError: There is none, or something else.
    """
    return tuple(found.public_bytes(Encoding.DER) for found in _certificates(text))


def read_signer(text: bytes, password: bytes | None = None) -> Signer:
    """Read a private key and its certificates, the signing one first, from the octets of files in PEM.

    Raises:
        EnrolError: The key or a certificate is missing, or they do not belong together.
    """
    certificates = _certificates(text)
    try:
        key = load_pem_private_key(text, password)
    except (ValueError, TypeError) as error:
        raise EnrolError(f"the signing key can not be read ({error}); give a private key in PEM") from None
    if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey):
        raise EnrolError("profiles are signed with RSA or ECDSA; give a key of one of these kinds")
    if certificates[0].public_key() != key.public_key():
        raise EnrolError("the signing key is not that of the first certificate; put its own certificate first")
    return Signer(key, certificates[0], tuple(certificates[1:]))


def _certificates(text: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(text)
    except ValueError as error:
        raise EnrolError(f"no certificate can be read ({error}); give certificates in PEM") from None
