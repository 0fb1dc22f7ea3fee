"""Certificates and signatures: read as openssl writes them, written as openssl verifies them."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from resolver.enrol.profile import EnrolError
from resolver.enrol.signing import read_certificates, read_signer


@pytest.fixture(scope="module", params=["rsa:2048", "ec"])
def pem(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A key and its certificate, as a certification authority would hand them over."""
    folder = tmp_path_factory.mktemp("ca")
    kind = ["-newkey", request.param]
    if request.param == "ec":
        kind += ["-pkeyopt", "ec_paramgen_curve:prime256v1"]
    subprocess.run(
        ["openssl", "req", "-x509", *kind, "-nodes", "-keyout", "k", "-out", "c", "-subj", "/CN=profiles.example.org"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return (folder / "k").read_bytes() + (folder / "c").read_bytes()


def test_openssl_verifies_a_signature_and_gives_the_octets_back(pem: bytes, tmp_path: Path) -> None:
    """A signed profile holds exactly the profile, lines and all."""
    octets = b"<?xml version='1.0'?>\n<plist/>\r\n\x00\xff"
    (tmp_path / "signed").write_bytes(read_signer(pem).sign(octets))
    (tmp_path / "c").write_bytes(pem[pem.index(b"-----BEGIN CERTIFICATE") :])

    verified = subprocess.run(
        [
            "openssl",
            "smime",
            "-verify",
            "-binary",
            "-inform",
            "DER",
            "-in",
            "signed",
            "-CAfile",
            "c",
            "-purpose",
            "any",
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )

    assert verified.stdout == octets


def test_a_changed_profile_is_not_verified(pem: bytes, tmp_path: Path) -> None:
    """The signature covers the octets."""
    signed = read_signer(pem).sign(b"<key>a</key>")
    (tmp_path / "signed").write_bytes(signed.replace(b"<key>a</key>", b"<key>b</key>"))
    (tmp_path / "c").write_bytes(pem[pem.index(b"-----BEGIN CERTIFICATE") :])

    verified = subprocess.run(
        [
            "openssl",
            "smime",
            "-verify",
            "-binary",
            "-inform",
            "DER",
            "-in",
            "signed",
            "-CAfile",
            "c",
            "-purpose",
            "any",
        ],
        cwd=tmp_path,
        check=False,
        capture_output=True,
    )

    assert verified.returncode != 0


def test_the_chain_goes_with_the_signature(pem: bytes) -> None:
    """Certificates after the first are handed over with it."""
    certificate = pem[pem.index(b"-----BEGIN CERTIFICATE") :]

    other = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
         "/dev/null", "-subj", "/CN=between.example.org"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    assert b"between.example.org" in read_signer(pem + other).sign(b"x")
    assert b"between.example.org" not in read_signer(pem).sign(b"x")
    assert len(read_certificates(pem + certificate)) == 2


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        (lambda text: text[text.index(b"-----BEGIN CERTIFICATE") :], "signing key can not be read"),
        (lambda text: text[: text.index(b"-----BEGIN CERTIFICATE")], "no certificate can be read"),
        (lambda text: b"", "no certificate can be read"),
    ],
    ids=["key", "certificate", "both"],
)
def test_what_is_missing_is_told(pem: bytes, change: Callable[[bytes], bytes], mend: str) -> None:
    """Key and certificate are both needed, in PEM."""
    with pytest.raises(EnrolError, match=mend):
        read_signer(change(pem))


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Apple's systems verify RSA and ECDSA."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", "k", "-out", "c", "-subj", "/CN=x"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )

    with pytest.raises(EnrolError, match="RSA or ECDSA"):
        read_signer((tmp_path / "k").read_bytes() + (tmp_path / "c").read_bytes())


def test_a_key_of_another_certificate_is_refused(pem: bytes, tmp_path: Path) -> None:
    """What nobody could verify is not signed."""
    key = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-quiet"]
    other = subprocess.run(key, check=True, capture_output=True).stdout

    with pytest.raises(EnrolError, match="not that of the first certificate"):
        read_signer(other + pem[pem.index(b"-----BEGIN CERTIFICATE") :])
