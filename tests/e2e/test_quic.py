"""DNS over QUIC asked for by a client that shares no line with our library: kdig, on ngtcp2 and GnuTLS."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from resolver.transport.connection import QuicTerms
from tests.support.quic import BUILDS, NAME, PAPERS, doors, play


async def kdig(program: str, port: int, *words: str) -> str:
    """What kdig has to say."""
    child = await asyncio.create_subprocess_exec(
        program, "@127.0.0.1", "-p", str(port), "+timeout=5", "+retry=0", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await child.communicate()
    return output.decode()


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """Whom to trust, as a file."""
    path = tmp_path / "ca.pem"
    path.write_bytes(PAPERS.authority)
    return path


@pytest.mark.parametrize("build", BUILDS)
def test_kdig_asks_over_quic(peer: Callable[[str], str], authority: Path, build: str) -> None:
    """With a certificate that it checks, by the name that it asks for, and padded."""
    trust = [f"+tls-ca={authority}", f"+tls-hostname={NAME}", f"+tls-sni={NAME}", "+quic"]

    async def story() -> str:
        async with doors() as d:
            said = await kdig(peer("kdig"), d.ports["doq"], *trust, "+padding=128", "www.example.org")
            client = d.answerer.seen[0][1]
            assert client.credentials is not None
            assert client.credentials.server_name == NAME
            return said

    said = play(story(), build)
    assert "QUIC session (QUICv1)-(TLS1.3)" in said
    assert "status: REFUSED; id: 0" in said


def test_kdig_keeps_a_connection_open(peer: Callable[[str], str]) -> None:
    """Several queries on one, each on a stream of its own."""

    async def story() -> int:
        async with doors() as d:
            names = [f"n{n}.example.org" for n in range(10)]
            said = await kdig(peer("kdig"), d.ports["doq"], "+quic", "+keepopen", *names)
            assert said.count("status: REFUSED; id: 0") == len(d.answerer.seen) == 10
            return len({client.sockaddr for _, client in d.answerer.seen})

    assert play(story()) == 1


def test_kdig_comes_in_by_a_retry(peer: Callable[[str], str]) -> None:
    """RFC 9000 §8.1.2, as another library reads it."""

    async def story() -> str:
        async with doors(QuicTerms(half_open=0)) as d:
            return await kdig(peer("kdig"), d.ports["doq"], "+quic", "www.example.org")

    assert "status: REFUSED; id: 0" in play(story())


def test_kdig_is_refused_a_certificate_that_it_does_not_trust(peer: Callable[[str], str], authority: Path) -> None:
    """The name is another."""

    async def story() -> str:
        async with doors() as d:
            said = await kdig(
                peer("kdig"),
                d.ports["doq"],
                "+quic",
                f"+tls-ca={authority}",
                "+tls-hostname=other.example.org",
                "a.test",
            )
            assert not d.answerer.seen
            return said

    assert "status:" not in play(story())
