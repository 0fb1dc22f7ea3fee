"""What is found out about certificates: made here, with an authority of our own."""

import os
import tempfile
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from resolver.app.certificate import Certified, certificate, unreadable
from resolver.app.doctor import Finding, Outcome

NOW = datetime(2026, 11, 22, tzinfo=UTC)
AT = NOW.timestamp()
OK, WARN, FAIL = Outcome.OK, Outcome.WARN, Outcome.FAIL


class Issued:
    """A key and the certificate for it."""

    def __init__(
        self,
        name: str,
        issuer: "Issued | None" = None,
        *,
        names: tuple[str, ...] = (),
        days: int = 90,
        begins: int = -1,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        by = issuer or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(by.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + timedelta(days=begins))
            .not_valid_after(NOW + timedelta(days=days))
        )
        if names:
            alternatives = [
                x509.IPAddress(ip_address(one)) if one[0].isdigit() or ":" in one else x509.DNSName(one)
                for one in names
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        self.certificate = builder.sign(by.key, hashes.SHA256())

    def written(self, folder: Path, *above: "Issued", key: "Issued | None" = None) -> tuple[Path, Path]:
        """The files of the chain and of the key."""
        chain, secret = folder / "chain.pem", folder / "key.pem"
        chain.write_bytes(b"".join(one.certificate.public_bytes(Encoding.PEM) for one in (self, *above)))
        private = (key or self).key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        secret.write_bytes(private)
        return chain, secret


@pytest.fixture(scope="module")
def root() -> Issued:
    return Issued("Example Root", days=3650)


@pytest.fixture(scope="module")
def between(root: Issued) -> Issued:
    return Issued("Example Intermediate", root, days=1000)


def found(wanted: Certified) -> dict[str, Finding]:
    """What is found, by the last word of each check; that of the file itself is ``."""
    prefix = f"certificate {wanted.certificate}"
    listed = list(certificate(wanted, None, AT))
    return {f"{one.check.removeprefix(prefix).strip()}{'+' * (i > 2)}": one for i, one in enumerate(listed)}


def outcomes(wanted: Certified) -> dict[str, Outcome]:
    return {check: one.outcome for check, one in found(wanted).items()}


def test_a_certificate_that_is_good_for_all_that_is_wanted_has_nothing_against_it(
    tmp_path: Path, between: Issued
) -> None:
    """In its term, whole, with the name, those of devices below it, and the addresses."""
    leaf = Issued("dns", between, names=("dns.example.org", "*.dns.example.org", "192.0.2.53", "2001:db8::53"))
    files = leaf.written(tmp_path, between)
    wanted = Certified(*files, "DNS.example.org", has_devices=True, addresses=("192.0.2.53", "2001:db8::53"))

    assert outcomes(wanted) == {"": OK, "chain": OK, "names": OK}


@pytest.mark.parametrize(
    ("begins", "days", "outcome", "says"),
    [
        (-90, 90, OK, "until 2027-02-20"),
        (-90, 20, WARN, "in 20 days"),
        (-90, -1, FAIL, "it ended 2026-11-21"),
        (2, 90, FAIL, "it begins 2026-11-24"),
    ],
)
def test_a_term_is_told(tmp_path: Path, between: Issued, begins: int, days: int, outcome: Outcome, says: str) -> None:
    """Before it, in it, near its end, after it."""
    leaf = Issued("dns", between, names=("dns.example.org",), days=days, begins=begins)

    one = found(Certified(*leaf.written(tmp_path, between)))[""]
    assert one.outcome is outcome
    assert says in one.found


@pytest.mark.parametrize(
    ("name", "has_devices", "addresses", "names", "outcome"),
    [
        ("dns.example.org", False, (), ("dns.example.org",), [OK]),
        ("dns.example.org", False, (), ("*.example.org",), [OK]),
        ("a.dns.example.org", False, (), ("*.example.org",), [FAIL]),
        ("dns.example.org", False, (), ("other.example.org",), [FAIL]),
        ("dns.example.org", True, (), ("dns.example.org",), [FAIL]),
        ("dns.example.org", True, (), ("dns.example.org", "*.dns.example.org"), [OK]),
        ("dns.example.org", False, ("192.0.2.53",), ("dns.example.org",), [OK, WARN]),
        ("dns.example.org", False, ("192.0.2.53",), ("dns.example.org", "192.0.2.53"), [OK]),
        (None, False, (), (), [FAIL]),
    ],
)
def test_a_certificate_names_whom_clients_ask_for(
    tmp_path: Path, between: Issued, name: str | None, has_devices: bool, addresses: tuple[str, ...],
    names: tuple[str, ...], outcome: list[Outcome],
) -> None:  # fmt: skip
    """The name, one label below it for devices, and the addresses by which it is discovered."""
    leaf = Issued("dns", between, names=names)
    wanted = Certified(*leaf.written(tmp_path, between), name, has_devices, addresses)

    told = [one.outcome for one in certificate(wanted, None, AT) if one.check.endswith(" names")]
    assert told == outcome


def test_a_chain_has_an_order(tmp_path: Path, root: Issued, between: Issued) -> None:
    """Each is followed by who issued it; one alone that is no root leaves clients without the way to it."""
    leaf = Issued("dns", between, names=("dns.example.org",))

    chains = {(): WARN, (between,): OK, (between, root): OK, (root,): FAIL, (root, between): FAIL}
    for above, outcome in chains.items():
        assert outcomes(Certified(*leaf.written(tmp_path, *above)))["chain"] is outcome
    alone = Issued("self", names=("dns.example.org",))
    assert outcomes(Certified(*alone.written(tmp_path)))["chain"] is OK


def test_a_key_of_another_certificate_is_told(tmp_path: Path, between: Issued) -> None:
    """Before any client meets it."""
    leaf = Issued("dns", between, names=("dns.example.org",))

    one = found(Certified(*leaf.written(tmp_path, between, key=between)))[""]
    assert one.outcome is FAIL
    assert "is the key of another certificate" in one.found


def test_what_is_no_certificate_is_told(tmp_path: Path) -> None:
    """In one sentence."""
    for name in ("chain.pem", "key.pem"):
        (tmp_path / name).write_text("no certificate\n")

    one = found(Certified(tmp_path / "chain.pem", tmp_path / "key.pem"))[""]
    assert one.outcome is FAIL
    assert "it can not be used" in one.found


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """As is a folder in its place."""
    assert found(Certified(tmp_path / "none.pem", tmp_path / "none.pem"))[""].found.endswith("none.pem is not there")
    assert unreadable(tmp_path, None) == ("is no file", "write the path of a file")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can ask for another account")
@pytest.mark.parametrize(
    ("folder", "file", "readable"), [(0o755, 0o644, True), (0o755, 0o640, False), (0o700, 0o644, False)]
)
def test_the_account_that_serves_must_be_able_to_read_it(folder: int, file: int, readable: bool) -> None:
    """The file, and the folders above it."""
    with tempfile.TemporaryDirectory() as there:  # the tests' own folder is closed to everybody else
        key = Path(there) / "key.pem"
        key.write_text("key")
        key.chmod(file)
        key.parent.chmod(folder)
        said = unreadable(key, "nobody")

    assert (said is None) is readable
    assert said is None or "chgrp nobody" in said[1]
