"""A client of others finds the encrypted resolver by itself, checks it, and asks there from then on (RFC 9462 §4.2)."""

import asyncio
from ipaddress import ip_address
from pathlib import Path

import dns.nameserver
import dns.resolver
import pytest

from resolver.engine.discovery import Discovery
from resolver.engine.special import SpecialNames
from resolver.wire import name as names
from resolver.wire.codes import Rcode
from resolver.wire.compose import error_answer, write_reply
from resolver.wire.message import read_query
from tests.support.secure_upstream import Certificates, mirror, server_context, upstream

pytestmark = pytest.mark.e2e

NAME = "dns.example.org"


class Answers(asyncio.DatagramProtocol):
    """A server on UDP that knows nothing but where the encrypted one is."""

    def __init__(self, special: SpecialNames) -> None:
        self._special = special

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = read_query(data)
        answer = self._special.answer(query) or error_answer(Rcode.REFUSED)
        self._transport.sendto(write_reply(query, answer, over_udp=True), addr)


async def discovered(certificate: Path) -> tuple[dns.nameserver.Nameserver | str, list[bytes]]:
    """Whom dnspython asks after discovery, and what was asked over TLS when it then looked a name up."""
    async with upstream(mirror, server_context(certificate, "dot")) as secure:
        discovery = Discovery(names.from_text(NAME), (ip_address("127.0.0.1"),), dot=secure.port)
        special = SpecialNames((), "node-1", "1", str, discovery)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Answers(special), ("127.0.0.1", 0)
        )
        client = dns.resolver.Resolver(configure=False)
        client.nameservers = ["127.0.0.1"]
        client.port = transport.get_extra_info("sockname")[1]
        try:
            await asyncio.to_thread(client.try_ddr)
            with pytest.raises((dns.resolver.NoNameservers, dns.resolver.NoAnswer)):  # refused here, empty there
                await asyncio.to_thread(client.resolve, "www.example.org", "A", lifetime=5)
        finally:
            transport.close()
        return client.nameservers[0], secure.asked


@pytest.mark.parametrize(("held", "is_found"), [((NAME, "127.0.0.1"), True), ((NAME,), False), (("127.0.0.1",), False)])
def test_a_client_finds_and_checks_the_encrypted_resolver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: tuple[str, ...], is_found: bool
) -> None:
    """With a certificate for the name and for the address that it asked; without either it stays where it was."""
    authority = Certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))

    server, asked = asyncio.run(discovered(authority.issue(*held)))

    assert isinstance(server, dns.nameserver.DoTNameserver) == is_found
    assert bool(asked) == is_found
