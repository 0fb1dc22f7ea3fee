"""The suites of TLS 1.3, with the OpenSSL configuration that deploy/ ships and without it."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resolver.policy.client import Transport
from tests.support.encrypted import NAME, Covered, points_home, rcode_of
from tests.support.house import ask
from tests.support.server import SlowUpstream

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
Peer = Callable[[str], str]

SHIPPED = Path(__file__).parents[2] / "deploy/openssl.cnf"
# ITSP.40.062 (CCCS, Guidance on Securely Configuring Network Protocols): recommended for TLS 1.3.
NAMED = ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_AES_128_CCM_SHA256")
OTHER = "TLS_CHACHA20_POLY1305_SHA256"


def serve(folder: Path, conf: Path | None) -> Iterator[Covered]:
    """A server whose environment names the file, or none."""
    with SlowUpstream(points_home) as upstream, pytest.MonkeyPatch.context() as environment:
        environment.delenv("OPENSSL_CONF", raising=False)
        if conf is not None:
            environment.setenv("OPENSSL_CONF", str(conf))
        made = Covered(folder, upstream.address, workers=1)
        made.server.ban("order-1", "banned-app.ca")
        try:
            made.server.start()
            yield made
        finally:
            made.server.end()


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Covered]:
    """As its unit runs it."""
    yield from serve(tmp_path_factory.mktemp("configured"), SHIPPED)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Covered]:
    """With OpenSSL as the machine has it."""
    yield from serve(tmp_path_factory.mktemp("bare"), None)


def agreed(openssl: str, covered: Covered, port: Transport, suites: str, *words: str) -> str:
    """The suite that server and client agree on; (NONE) where there is none. The client has its own configuration."""
    said = subprocess.run(
        [openssl, "s_client", "-connect", f"127.0.0.1:{covered.ports[port]}", "-servername", NAME,
         "-ciphersuites", suites, *(words or ("-tls1_3",))],
        input="Q\n", capture_output=True, text=True, timeout=30, check=False,
        env={key: text for key, text in os.environ.items() if key != "OPENSSL_CONF"},
    )  # fmt: skip
    return str(re.findall(r"Cipher is (\S+)", said.stdout)[0])


@pytest.mark.parametrize("port", [Transport.DOT, Transport.DOH])
def test_with_it_the_named_suites_are_served_and_no_other(configured: Covered, peer: Peer, port: Transport) -> None:
    """Each by itself, and the strongest of them all; who offers nothing else is refused."""
    openssl = peer("openssl")

    assert [agreed(openssl, configured, port, suite) for suite in NAMED] == list(NAMED)
    assert agreed(openssl, configured, port, ":".join([OTHER, *reversed(NAMED)])) == NAMED[0]
    assert agreed(openssl, configured, port, OTHER) == "(NONE)"
    assert agreed(openssl, configured, port, "", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0") == "(NONE)"
    assert agreed(openssl, configured, port, "", "-tls1_2").startswith("ECDHE-ECDSA-AES256-GCM")


def test_with_it_every_transport_answers(configured: Covered) -> None:
    """The library behind QUIC brings an OpenSSL of its own, which reads the file too and takes no harm."""
    question = ask("im.banned-app.ca")
    with configured.dot() as line, configured.doh() as web:
        replies = [
            line.ask(question),
            web.ask(question),
            configured.quic(question),
            configured.quic(question, path="/dns-query"),
        ]

    assert [rcode_of(reply) for reply in replies] == ["NXDOMAIN"] * 4


@pytest.mark.parametrize("port", [Transport.DOT, Transport.DOH])
def test_without_it_the_other_suite_is_for_who_has_not_the_first(bare: Covered, peer: Peer, port: Transport) -> None:
    """It is served, though never to a client that offers AES-256, whatever it would rather have."""
    openssl = peer("openssl")

    assert agreed(openssl, bare, port, OTHER) == OTHER
    assert agreed(openssl, bare, port, ":".join([OTHER, *reversed(NAMED)])) == NAMED[0]


def suites_with(conf: Path) -> list[str]:
    """The suites of TLS 1.3 that a server of Python has under a configuration of OpenSSL."""
    program = (
        "import ssl; tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); "
        "print(*(suite['name'] for suite in tls.get_ciphers() if suite['protocol'] == 'TLSv1.3'))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "OPENSSL_CONF": str(conf)}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


MACHINE = """\
openssl_conf = openssl_init
[openssl_init]
providers = provider_sect
ssl_conf = theirs
[provider_sect]
default = on
legacy = on
[on]
activate = 1
[theirs]
system_default = theirs_tls
[theirs_tls]
Ciphersuites = TLS_CHACHA20_POLY1305_SHA256
"""


def test_what_the_machine_has_set_stays(peer: Peer, tmp_path: Path) -> None:
    """Providers of its own file are loaded as before, and where both name suites, the service's hold."""
    machine, conf = tmp_path / "machine.cnf", tmp_path / "openssl.cnf"
    machine.write_text(MACHINE)
    conf.write_text(SHIPPED.read_text().replace("/etc/ssl/openssl.cnf", str(machine)))
    listed = subprocess.run(
        [peer("openssl"), "list", "-providers"],
        env={**os.environ, "OPENSSL_CONF": str(conf)}, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip

    assert str(machine) in conf.read_text()
    assert "OpenSSL Legacy Provider" in listed
    assert suites_with(conf) == list(NAMED)


def test_a_machine_without_a_file_of_its_own_is_no_matter(tmp_path: Path) -> None:
    """Wherever the machine keeps it, if anywhere."""
    conf = tmp_path / "openssl.cnf"
    conf.write_text(re.sub(r"(\.include = ).*", rf"\1{tmp_path}/none.cnf", SHIPPED.read_text()))

    assert suites_with(conf) == list(NAMED)
