"""Real servers as upstreams over TLS and HTTPS: Unbound, Knot Resolver and dnsdist, with a certificate of our own."""

import asyncio
import socket
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import dns.message
import dns.rcode
import pytest
import uvloop

from resolver.engine.cache import Cache, CacheTerms, cache_key
from resolver.engine.forwarder import Forwarder, ForwarderTerms, Upstream, UpstreamError
from resolver.policy.client import Transport
from resolver.transport.exchange import UpstreamExchange
from resolver.transport.secure import SecureExchange, TlsExchange
from resolver.transport.secure_http import HttpsExchange
from resolver.transport.secure_identity import SecureTerms
from resolver.wire import name as names
from resolver.wire.codes import Rtype
from resolver.wire.message import Answer
from tests.support.house import Roof, ask
from tests.support.peers import require_peer
from tests.support.secure_upstream import Certificates, pin_of
from tests.support.server import Server, ask_udp, free_port, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

NAME = "dns.example.org"
BIG = " ".join(f'"{"x" * 200}{n}"' for n in range(20))

UNBOUND = """\
server:
  chroot: ""
  directory: "{folder}"
  username: ""
  pidfile: ""
  use-syslog: no
  interface: 127.0.0.1@{plain}
  interface: 127.0.0.1@{dot}
  interface: 127.0.0.1@{doh}
  tls-port: {dot}
  https-port: {doh}
  tls-service-pem: "{certificate}"
  tls-service-key: "{certificate}"
  do-not-query-localhost: no
  access-control: 127.0.0.0/8 allow
  local-zone: "example.org." redirect
  local-data: "example.org. 60 IN A 192.0.2.1"
  local-zone: "big.example." static
  local-data: 'big.example. 60 IN TXT {big}'
"""

KRESD = """\
net.listen("127.0.0.1", {plain}, {{ kind = "dns" }})
net.listen("127.0.0.1", {dot}, {{ kind = "tls" }})
net.listen("127.0.0.1", {doh}, {{ kind = "doh2" }})
net.tls("{certificate}", "{key}")
cache.open(10 * MB, "lmdb://{folder}/cache")
policy.add(policy.suffix(policy.ANSWER({{ [kres.type.A] = {{ rdata = kres.str2ip("192.0.2.1"), ttl = 60 }} }}),
  policy.todnames({{"example.org."}})))
"""

DNSDIST = """\
setSecurityPollSuffix("")
setLocal("127.0.0.1:{plain}")
addTLSLocal("127.0.0.1:{dot}", "{certificate}", "{key}")
addDOHLocal("127.0.0.1:{doh}", "{certificate}", "{key}", "/dns-query")
addAction(AllRule(), SpoofAction("192.0.2.1"))
"""


@dataclass(frozen=True)
class Served:
    """A running server: its ports by transport, and what it shows."""

    plain: int
    dot: int
    doh: int
    ca_file: str
    pin: bytes

    def exchange(self, transport: Transport, **changes: object) -> SecureExchange:
        """The way to it, in the running loop."""
        terms = replace(SecureTerms(transport, NAME, ca_file=self.ca_file), **changes)  # type: ignore[arg-type]
        loop = asyncio.get_running_loop()
        if transport is Transport.DOT:
            return TlsExchange(loop, "127.0.0.1", self.dot, terms)
        return HttpsExchange(loop, "127.0.0.1", self.doh, terms)


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module", params=["unbound", "kresd", "dnsdist"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp(request.param)
    authority = Certificates(folder)
    certificate = authority.issue(NAME)
    program = require_peer(request.param)
    ports = {kind: free_port() for kind in ("plain", "dot", "doh")}
    text, command = {
        "unbound": (UNBOUND, [program, "-d", "-p", "-c", "conf"]),
        "kresd": (KRESD, [program, "-n", "-c", "conf", str(folder)]),
        "dnsdist": (DNSDIST, [program, "--supervised", "--disable-syslog", "-C", "conf"]),
    }[request.param]
    written = text.format(folder=folder, certificate=certificate, key=certificate, big=BIG, **ports)
    (folder / "conf").write_text(written)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)

    def is_up() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.02)
        return all(listens(port) for port in ports.values())

    try:
        wait_until(f"{request.param} listens", is_up)
        yield Served(**ports, ca_file=str(authority.ca_file), pin=pin_of(certificate))
    finally:
        process.terminate()
        process.wait(20)


class RealClock:
    """The engine's clocks, as the roof has them."""

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def at(self) -> float:
        """Unix seconds."""
        return time.time()


def forwarder(exchange: SecureExchange | UpstreamExchange) -> Forwarder:
    roof = Roof()
    terms = ForwarderTerms(try_timeout=5.0, deadline=10.0)
    return Forwarder([Upstream(exchange, False)], Cache(CacheTerms()), terms, RealClock(), roof, roof.spawn)


async def fetch(to: Forwarder, name: str, rtype: Rtype = Rtype.A) -> Answer:
    qname = names.from_text(name)
    task = to.fetch(cache_key(qname, rtype, do=False, cd=False), qname, rtype, do=False, cd=False)
    assert task is not None
    return (await task).answer


TRANSPORTS = pytest.mark.parametrize("transport", [Transport.DOT, Transport.DOH])
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def established(port: int) -> int:
    """How many TCP connections to a port there are, counted at our end."""
    wanted = f":{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[2].endswith(wanted) and line[3] == "01" for line in lines)


@TRANSPORTS
@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_many_questions_are_answered_over_one_connection(
    served: Served, transport: Transport, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Ninety at once, and ninety one after the other."""

    async def story() -> tuple[set[tuple[bytes, ...]], int]:
        exchange = served.exchange(transport)
        to = forwarder(exchange)
        try:
            answers = await asyncio.gather(*(fetch(to, f"n{n}.example.org") for n in range(90)))
            answers += [await fetch(to, f"m{n}.example.org") for n in range(90)]
            port = served.dot if transport is Transport.DOT else served.doh
            return {answer.addresses for answer in answers}, established(port)
        finally:
            exchange.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(story()) == ({(bytes([192, 0, 2, 1]),)}, 1)


@TRANSPORTS
@pytest.mark.parametrize("served", ["unbound"], indirect=True)
def test_an_answer_of_any_size_comes_whole(served: Served, transport: Transport) -> None:
    """No detour over another transport, whatever the OPT of the query says of UDP."""

    async def story() -> Answer:
        exchange = served.exchange(transport)
        try:
            return await fetch(forwarder(exchange), "big.example", Rtype.TXT)
        finally:
            exchange.close()

    answer = asyncio.run(story())
    assert not answer.truncated
    assert len(answer.body) > 4000


@TRANSPORTS
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "dns.example.net"}, "certificate is for dns.example.org, not dns.example.net"),
        ({"name": None}, "certificate is for dns.example.org, not 127.0.0.1"),
        ({"ca_file": None}, "certificate refused"),
        ({"pins": (bytes(32),)}, "no pin matches; the server's is sha256/"),
    ],
    ids=["name", "address", "authority", "pin"],
)
def test_who_is_not_the_wanted_one_is_not_asked(
    served: Served, transport: Transport, changes: dict[str, object], why: str
) -> None:
    """And the client's error says why."""

    async def story() -> str:
        exchange = served.exchange(transport, **changes)
        try:
            with pytest.raises(UpstreamError) as caught:
                await fetch(forwarder(exchange), "www.example.org")
            return str(caught.value)
        finally:
            exchange.close()

    assert why in asyncio.run(story())


@TRANSPORTS
def test_a_pin_alone_is_enough(served: Served, transport: Transport) -> None:
    """Also where the system trusts nobody who could have signed the certificate."""

    async def story() -> Answer:
        exchange = served.exchange(transport, name=None, ca_file=None, pins=(served.pin,))
        try:
            return await fetch(forwarder(exchange), "www.example.org")
        finally:
            exchange.close()

    assert asyncio.run(story()).addresses == (bytes([192, 0, 2, 1]),)


def test_a_wrong_path_is_told(served: Served) -> None:
    """By the status that the server gives it."""

    async def story() -> str:
        exchange = served.exchange(Transport.DOH, path="/nowhere")
        try:
            with pytest.raises(UpstreamError) as caught:
                await fetch(forwarder(exchange), "www.example.org")
            return str(caught.value)
        finally:
            exchange.close()

    assert "HTTP status 4" in asyncio.run(story())


def test_where_there_is_no_tls_an_opportunistic_exchange_asks_in_the_clear(served: Served) -> None:
    """Its port of plain DNS, asked for TLS, is no loss to the client."""

    async def story() -> Answer:
        loop = asyncio.get_running_loop()
        plain = UpstreamExchange(loop, "127.0.0.1", served.plain, 4)
        exchange = TlsExchange(loop, "127.0.0.1", served.plain, SecureTerms(Transport.DOT, strict=False), plain)
        try:
            return await fetch(forwarder(exchange), "www.example.org")
        finally:
            exchange.close()

    assert asyncio.run(story()).addresses == (bytes([192, 0, 2, 1]),)


def configured(served: Served, transport: str, **changes: object) -> list[dict[str, object]]:
    """The server as the section `upstreams` has it."""
    port = served.dot if transport == "tls" else served.doh
    trusted = {"name": NAME, "ca_file": served.ca_file}
    return [{"address": "127.0.0.1", "port": port, "transport": transport, **trusted, **changes}]


@pytest.mark.parametrize("transport", ["tls", "https"])
def test_a_server_configured_so_asks_encrypted_and_explains_itself(
    served: Served, transport: str, make_server: Callable[..., Server]
) -> None:
    """A client over UDP gets the upstream's answer; with a wrong pin, SERVFAIL and the right pin to compare with."""
    servers = []
    for pin in (served.pin, bytes(32)):
        servers.append(make_server(workers=1))
        text = f"sha256/{b64encode(pin).decode()}"
        servers[-1].config["upstreams"] = configured(served, transport, pins=[text])
        servers[-1].start()
    good, bad = servers

    answer = dns.message.from_wire(ask_udp(good.port, ask("www.example.org")))
    assert [rdata.to_text() for rrset in answer.answer for rdata in rrset] == ["192.0.2.1"]
    failed = dns.message.from_wire(ask_udp(bad.port, ask("www.example.org")))
    assert failed.rcode() == dns.rcode.SERVFAIL
    told = " ".join(option.to_text() for option in failed.options)
    assert f"no pin matches; the server's is sha256/{b64encode(served.pin).decode()}" in told
