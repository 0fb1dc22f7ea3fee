"""Where a server listens, how it speaks there, and what clients are told of it."""

import contextlib
import os
import socket
import ssl
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from resolver import config as configuration
from resolver.app.listening import Certificate, Listening, discovery, listeners
from resolver.config import Config
from resolver.engine.discovery import Discovery
from resolver.policy.client import Transport
from resolver.policy.values import Endpoint
from resolver.transport.tls import TlsError
from resolver.wire import name as names
from tests.support.secure_upstream import Certificates

ENCRYPTED = """
encrypted:
  name: dns.example.org
  certificate: c.pem
  key: c.pem
  dot: ["192.0.2.1:853", "192.0.2.1:8853"]
  doh: ["0.0.0.0:443"]
  doq: ["192.0.2.1:853"]
  doh3: ["0.0.0.0:443"]
"""


def read(text: str) -> Config:
    return configuration.read('listen: ["127.0.0.1:53"]\n' + text, "interdict.yaml")


def test_every_listener_is_spoken_at_in_its_own_way() -> None:
    """Plain DNS over both, DoT and DoH over streams, QUIC over datagrams; each with the group that it is of."""
    config = read(
        ENCRYPTED + 'groups: [{name: everyone, networks: ["::/0"]}, {name: phones, listeners: ["192.0.2.1:8853"]}]'
    )
    plain, dot = Endpoint("127.0.0.1", 53), Endpoint("192.0.2.1", 853)
    web = Endpoint("0.0.0.0", 443)
    assert listeners(config) == (
        Listening(Transport.UDP, plain),
        Listening(Transport.TCP, plain),
        Listening(Transport.DOT, dot),
        Listening(Transport.DOT, Endpoint("192.0.2.1", 8853), "phones"),
        Listening(Transport.DOH, web),
        Listening(Transport.DOQ, dot),
        Listening(Transport.DOH3, web),
    )
    stream = {one.transport for one in listeners(config) if one.kind == socket.SOCK_STREAM}
    assert stream == {Transport.TCP, Transport.DOT, Transport.DOH}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", Discovery(b"", (ip_address("192.0.2.1"),), doh=443, doh3=443, dot=853, doq=853)),
        (
            'groups: [{name: everyone, networks: ["::/0"]}, {name: phones, listeners: ["192.0.2.1:853"]}]',
            Discovery(b"", (ip_address("192.0.2.1"),), doh=443, doh3=443, dot=8853),
        ),
    ],
)
def test_clients_are_told_of_what_is_open_to_all(more: str, expected: Discovery) -> None:
    """The first of each kind; a listener of one group is found by nobody who is not sent there."""
    found = discovery(read(ENCRYPTED + more))
    assert found is not None
    assert found.name == names.from_text("dns.example.org")
    assert (found.addresses, found.doh, found.doh3, found.dot, found.doq, found.path) == (
        expected.addresses, expected.doh, expected.doh3, expected.dot, expected.doq, "/dns-query",
    )  # fmt: skip


def test_what_is_configured_for_clients_is_what_they_are_told() -> None:
    """Behind address translation they reach others than those listened on; without a name they are told nothing."""
    found = discovery(read(ENCRYPTED + '  addresses: ["203.0.113.7", "2001:db8::7"]'))
    assert found is not None
    assert found.addresses == (ip_address("203.0.113.7"), ip_address("2001:db8::7"))
    assert discovery(read(ENCRYPTED.replace("  name: dns.example.org\n", ""))) is None


def test_a_certificate_is_read_again_when_it_changed_and_only_then(tmp_path: Path) -> None:
    """A pair that can not be used is told once and leaves what there was; the next good one is taken."""
    authority = Certificates(tmp_path)
    path = tmp_path / "c.pem"
    path.write_bytes(authority.issue("dns.example.org").read_bytes())
    held = Certificate(path, path, None)
    first = held.chain
    assert not held.renew()
    path.write_text("broken")
    with pytest.raises(TlsError):
        held.renew()
    assert not held.renew()
    assert held.chain is first
    new = authority.issue("dns.example.org", until=timedelta(days=90)).read_bytes()
    path.write_bytes(new)
    os.utime(path, (1, 1))
    assert held.renew()
    assert held.chain.certificate == new
    assert held.chain.expires - first.expires > 80 * 86400


def test_clients_are_asked_for_a_certificate_where_the_configuration_says(tmp_path: Path) -> None:
    """Chromium ends every handshake of DoH in which it is asked."""
    path = Certificates(tmp_path).issue("dns.example.org")
    text = ENCRYPTED.replace("c.pem", str(path)) + f"  client_authorities: {path}\n"
    for more, asked in (("", {"dot", "doh"}), ("  client_certificates: [dot]\n", {"dot"})):
        held = Certificate.of(read(text + more))
        assert held is not None
        modes = {transport.value for transport, tls in held.contexts.items() if tls.verify_mode == ssl.CERT_OPTIONAL}
        assert modes == asked


def test_without_a_certificate_nothing_is_encrypted() -> None:
    """And a file that is not there is told when the server starts."""
    assert Certificate.of(read("")) is None
    with pytest.raises(TlsError, match=r"c\.pem can not be used"):
        Certificate.of(read(ENCRYPTED))


def test_a_new_certificate_with_another_kind_of_key_takes_the_old_ones_place(tmp_path: Path) -> None:
    """OpenSSL keeps one for each kind in a context, and clients would go on to be shown the one that ends."""
    authority = Certificates(tmp_path)
    path = tmp_path / "c.pem"
    path.write_bytes(authority.issue("dns.example.org").read_bytes())
    held = Certificate(path, path, None)
    path.write_bytes(authority.issue("dns.example.org", key=rsa.generate_private_key(65537, 2048)).read_bytes())
    assert held.renew()
    assert _shown_by(held.contexts[Transport.DOT], authority) == _first_in(path)


def _shown_by(context: ssl.SSLContext, authority: Certificates) -> bytes:
    """The certificate that a usual client is shown, in a handshake in memory."""
    client = ssl.create_default_context(cafile=str(authority.ca_file))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname="dns.example.org")
    theirs = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(6):
        for end in (ours, theirs):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    shown = ours.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def _first_in(path: Path) -> bytes:
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(serialization.Encoding.DER)
