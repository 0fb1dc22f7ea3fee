"""DoH with real sockets on loopback: what known programs get, and what one client can not take from others."""

import asyncio
import itertools
import json
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import dns.message
import dns.rdatatype
import dns.rrset
import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
import uvloop

from resolver.policy.client import Client, Credentials, Transport
from resolver.transport.desk import HttpTerms
from resolver.transport.doh import DohTerms
from resolver.transport.http2 import TURN
from resolver.transport.http2_frames import PREFACE
from resolver.transport.places import PlaceTerms
from tests.support.answerer import FakeAnswerer, Later, reply_to
from tests.support.doh import PATIENCE, Authority, condition, window
from tests.support.house import ask

T = TypeVar("T")
BUILDS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
WWW = ask("www.example.org")
POST = (
    b"POST /dns-query HTTP/1.1\r\nHost: dns.example.org\r\nContent-Type: application/dns-message\r\n"
    b"Content-Length: %d\r\n\r\n%s"
)


@pytest.fixture(params=BUILDS)
def play(request: pytest.FixtureRequest) -> Callable[[Awaitable[T]], T]:
    """Runs a story on one of the loops that the product runs on."""

    def run(story: Awaitable[T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(60):
                return await story

        with asyncio.Runner(loop_factory=BUILDS[request.param]) as runner:
            return runner.run(bounded())

    return run


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Certificates, made once."""
    return Authority.made(tmp_path_factory.mktemp("authority"))


Play = Callable[[Awaitable[object]], object]


def post(message: bytes = WWW) -> bytes:
    return POST % (len(message), message)


def preface() -> bytes:
    return PREFACE + bytes(3) + b"\4" + bytes(5)


async def program(*words: str | Path, stdin: bytes = b"") -> bytes:
    """What a program prints."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*map(str, words), stdin=pipe, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(PATIENCE):
        said, complaint = await process.communicate(stdin)
    assert process.returncode == 0, (words, said, complaint)
    return said


async def ends(reader: asyncio.StreamReader) -> bool:
    """Whether the server closes the connection, having sent nothing more."""
    async with asyncio.timeout(PATIENCE):
        try:
            return await reader.read(1) == b""
        except (ConnectionError, ssl.SSLError):
            return True


async def read_reply(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and content of an answer of HTTP/1.1."""
    async with asyncio.timeout(PATIENCE):
        head = await reader.readuntil(b"\r\n\r\n")
        octets = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return head, await reader.readexactly(octets)


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
@pytest.mark.parametrize("token", ["", "/t0ken"])
def test_curl_posts(play: Play, peer: Callable[[str], str], authority: Authority, version: str, token: str) -> None:
    """Over both versions, with all that it shows of itself."""

    async def story() -> tuple[bytes, FakeAnswerer]:
        async with window(authority) as w:
            said = await program(
                peer("curl"), "-s", version, "--cacert", authority.path("authority.pem"),
                "--cert", authority.path("device.pem"), "--key", authority.path("device.key"),
                "--resolve", f"dns.example.org:{w.port}:127.0.0.1", "-H", "content-type: application/dns-message",
                "-H", "authorization: Bearer abc", "--data-binary", "@-", "-D", "-",
                f"https://dns.example.org:{w.port}/dns-query{token}", stdin=WWW,
            )  # fmt: skip
            return said, w.answerer

    said, answerer = play(story())  # type: ignore[misc]
    head, _, content = said.partition(b"\r\n\r\n")
    assert content == reply_to(WWW)
    assert head.startswith(b"HTTP/2 200" if version == "--http2" else b"HTTP/1.1 200")
    ((packet, client),) = answerer.seen
    assert (packet, client.transport, client.listener) == (WWW, Transport.DOH, "phones")
    assert client.address == bytes([127, 0, 0, 1])
    assert client.credentials == Credentials(
        ("phone-1.example.org", "device"), token[1:] or None, "abc", "dns.example.org", until=client.credentials.until
    )


def test_curl_resolves_by_doh(play: Play, peer: Callable[[str], str], authority: Authority) -> None:
    """`curl --doh-url` finds the address of what it fetches."""

    class Answerer(FakeAnswerer):
        def answer(self, packet: bytes, client: Client, later: Later) -> bytes | None:
            self.seen.append((packet, client))
            reply = dns.message.make_response(dns.message.from_wire(packet))
            if reply.question[0].rdtype == dns.rdatatype.A:
                reply.answer.append(dns.rrset.from_text(reply.question[0].name, 60, "IN", "A", "127.0.0.1"))
            return reply.to_wire()

    async def story() -> tuple[bytes, int]:
        terms = HttpTerms(pages=lambda path, client: (b"text/plain", b"found") if path == "/page" else None)
        async with window(authority, terms, answerer=Answerer()) as w:
            said = await program(
                peer("curl"), "-sS", "--cacert", authority.path("authority.pem"), "--max-time", "5",
                "--resolve", f"dns.example.org:{w.port}:127.0.0.1",
                "--doh-url", f"https://dns.example.org:{w.port}/dns-query", f"https://www.example.org:{w.port}/page",
            )  # fmt: skip
            return said, len(w.answerer.seen)

    said, queries = play(story())  # type: ignore[misc]
    assert (said, queries) == (b"found", 2)


@pytest.mark.parametrize("form", ["+https", "+https-get"])
def test_kdig_asks(play: Play, peer: Callable[[str], str], authority: Authority, form: str) -> None:
    """By POST and by GET."""

    async def story() -> bytes:
        async with window(authority) as w:
            return await program(
                peer("kdig"), f"@127.0.0.1:{w.port}", form, f"+tls-ca={authority.path('authority.pem')}",
                "+tls-hostname=dns.example.org", "+timeout=5", "+retry=0", "www.example.org", "A",
            )  # fmt: skip

    assert b"status: REFUSED" in play(story())  # type: ignore[operator]


@pytest.mark.parametrize(("alpn", "version"), [(("h2",), b""), (("http/1.1",), b"HTTP/1.1 200"), ((), b"HTTP/1.1 200")])
def test_the_handshake_settles_the_version(
    play: Play, authority: Authority, alpn: tuple[str, ...], version: bytes
) -> None:
    """ALPN (RFC 7301); who offers none speaks HTTP/1.1."""

    async def story() -> bytes:
        async with window(authority) as w:
            reader, writer = await w.connect(*alpn)
            if version:
                writer.write(post())
                return (await read_reply(reader))[0]
            writer.write(preface())
            return await reader.readexactly(9)

    said = play(story())
    assert isinstance(said, bytes)
    assert said.startswith(version or b"\0\0\x12\4")


@pytest.mark.parametrize("version", [1, 2])
def test_behind_a_proxy_the_first_octets_settle_it(
    play: Play, peer: Callable[[str], str], authority: Authority, version: int
) -> None:
    """Without TLS; and the proxy says for whom it asks (X-Forwarded-For)."""

    async def story() -> tuple[bytes, bytes]:
        async with window(authority, plain=True) as w:
            said = await program(
                peer("curl"), "-s", "--http2-prior-knowledge" if version == 2 else "--http1.1",
                "-H", "content-type: application/dns-message", "-H", "x-forwarded-for: 10.9.9.9, 192.0.2.77",
                "--data-binary", "@-", f"http://127.0.0.1:{w.port}/dns-query", stdin=WWW,
            )  # fmt: skip
            return said, w.answerer.seen[0][1].address

    assert play(story()) == (reply_to(WWW), bytes([192, 0, 2, 77]))


def test_without_tls_only_a_listed_proxy_is_let_in(play: Play, authority: Authority) -> None:
    """RFC 8484 §5: it is DNS over HTTPS."""

    async def story() -> None:
        async with window(authority, plain=True) as w:
            reader, writer = await w.connect(plain=True, source="127.0.0.2")
            writer.write(post())
            assert await ends(reader)
            assert w.answerer.seen == []

    play(story())


def test_one_octet_at_a_time_settles_it_as_well(play: Play, authority: Authority) -> None:
    """Both versions may begin with a P."""

    async def story() -> None:
        async with window(authority, plain=True) as w:
            reader, writer = await w.connect(plain=True)
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for octet in post():
                writer.write(bytes([octet]))
                await writer.drain()
                await asyncio.sleep(0)
            assert (await read_reply(reader))[1] == reply_to(WWW)
            reader, writer = await w.connect(plain=True)
            writer.write(preface()[:5])
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(preface()[5:])
            assert await reader.readexactly(4) == b"\0\0\x12\4"

    play(story())


def test_answers_that_come_late_are_sent(play: Play, authority: Authority) -> None:
    """When they are there, and in order where the version has one."""

    async def story() -> None:
        async with window(authority) as w:
            reader, writer = await w.connect()
            late = ask("later.example.org")
            writer.write(post(late) + post())
            await condition(lambda: len(w.answerer.waiting) == 1)
            assert any(guest.is_busy for guest in w.server.places)
            w.answerer.release()
            assert (await read_reply(reader))[1] == reply_to(late)
            assert (await read_reply(reader))[1] == reply_to(WWW)

    play(story())


@pytest.mark.parametrize("connections", [1, 8])
def test_a_flood_of_requests_leaves_the_loop_its_other_work(play: Play, authority: Authority, connections: int) -> None:
    """Between two rounds of the loop no more is answered than a few turns, however much has come."""
    requests = 1600 // connections

    async def story() -> list[int]:
        async with window(authority, plain=True) as w:
            clients = [await w.connect(plain=True) for _ in range(connections)]
            loop = asyncio.get_running_loop()
            marks = [0]

            def look() -> None:
                marks.append(len(w.answerer.seen))
                if marks[-1] < connections * requests:
                    loop.call_soon(look)

            for _, writer in clients:
                writer.write(post() * requests)
            look()

            async def count(reader: asyncio.StreamReader) -> None:
                for _ in range(requests):
                    await read_reply(reader)

            await asyncio.gather(*(count(reader) for reader, _ in clients))
            await condition(lambda: marks[-1] == connections * requests)
            return marks

    marks = play(story())
    assert isinstance(marks, list)
    assert max(after - before for before, after in itertools.pairwise(marks)) <= 4 * TURN


def test_who_is_idle_is_shown_out(play: Play, authority: Authority) -> None:
    """After an answered request, half a request, or nothing but PINGs; HTTP/2 is told so (GOAWAY)."""

    async def story() -> None:
        async with window(authority, places=PlaceTerms(idle_timeout=30.0)) as w:
            answered, first = await w.connect()
            first.write(post())
            await read_reply(answered)
            half, second = await w.connect()
            second.write(post()[:20])
            pinging, third = await w.connect("h2")
            third.write(preface())
            await pinging.readexactly(9 + 18 + 13 + 9)
            w.clock.ahead = 29.0
            third.write(b"\0\0\x08\6\0" + bytes(12))
            assert (await pinging.readexactly(17))[3:5] == b"\6\1"
            assert len(w.server) == 3
            w.clock.ahead = 32.0
            assert await ends(answered)
            assert await ends(half)
            assert (await pinging.readexactly(17))[3] == 7  # GOAWAY
            assert await ends(pinging)

    play(story())


def test_who_waits_for_an_answer_is_not_idle(play: Play, authority: Authority) -> None:
    """However long it takes."""

    async def story() -> None:
        async with window(authority) as w:
            reader, writer = await w.connect()
            writer.write(post(ask("later.example.org")))
            await condition(lambda: bool(w.answerer.waiting))
            w.clock.ahead = 100.0
            other, _ = await w.connect()
            await condition(lambda: len(w.server) == 2)
            w.clock.ahead = 200.0
            assert await ends(other)  # so the sweep has been here
            w.answerer.release()
            assert (await read_reply(reader))[1] == reply_to(ask("later.example.org"))

    play(story())


def test_who_does_not_read_is_shown_out(play: Play, authority: Authority) -> None:
    """It is not read from either, and what waits for it is let go."""

    async def story() -> None:
        async with window(authority, places=PlaceTerms(idle_timeout=30.0)) as w:
            _, writer = await w.connect()
            writer.transport.pause_reading()
            for _ in range(400):
                writer.write(post(ask("large.example.org")))
            seen = -1
            while seen != len(w.answerer.seen):
                seen = len(w.answerer.seen)
                await asyncio.sleep(0.1)
            assert 0 < seen < 400

            def is_gone() -> bool:
                w.clock.ahead += 100.0  # the kernel may take a little more, which counts as activity
                return len(w.server) == 0

            await condition(is_gone)

    play(story())


@pytest.mark.parametrize("version", ["http/1.1", "h2"])
def test_who_reads_again_gets_the_rest(play: Play, authority: Authority, version: str) -> None:
    """Every answer that he asked for, though the server had stopped."""
    requests = 300  # 18 MB: more than the kernel keeps
    large = ask("large.example.org")

    async def story() -> None:
        async with window(authority, HttpTerms(in_flight=requests), PlaceTerms(idle_timeout=60.0)) as w:
            reader, writer = await w.connect(version)
            writer.transport.pause_reading()
            if version == "h2":
                client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
                client.initiate_connection()
                client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**30})
                client.increment_flow_control_window(2**30)
                for _ in range(requests):
                    stream = client.get_next_available_stream_id()
                    head = {":method": "POST", ":scheme": "https", ":authority": "x.example.org", ":path": "/dns-query"}
                    client.send_headers(stream, [*head.items(), ("content-type", "application/dns-message")])
                    client.send_data(stream, large, end_stream=True)
                writer.write(client.data_to_send())
            else:
                writer.write(post(large) * requests)
            await condition(lambda: any(guest.is_blocked for guest in w.server.places))  # type: ignore[attr-defined]
            assert 0 < len(w.answerer.seen) < requests
            writer.transport.resume_reading()
            ended = 0
            while ended < requests:
                if version == "http/1.1":
                    assert len((await read_reply(reader))[1]) == 60_000
                    ended += 1
                    continue
                for event in client.receive_data(await reader.read(65_536)):
                    assert not isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated)
                    ended += isinstance(event, h2.events.StreamEnded)
            assert len(w.answerer.seen) == requests

    play(story())


def test_places_are_bounded(play: Play, authority: Authority) -> None:
    """Who was idle longest makes room."""

    async def story() -> None:
        async with window(authority, places=PlaceTerms(connections=2)) as w:
            first, _ = await w.connect()
            await condition(lambda: len(w.server) == 1)
            await w.connect()
            await condition(lambda: len(w.server) == 2)
            reader, writer = await w.connect()
            assert await ends(first)
            writer.write(post())
            assert (await read_reply(reader))[1] == reply_to(WWW)
            assert len(w.server) == 2

    play(story())


def test_the_end_waits_for_what_is_under_way(play: Play, authority: Authority) -> None:
    """Nobody is taken in any longer; who is idle is let go at once."""

    async def story() -> None:
        async with window(authority) as w:
            idle, _ = await w.connect()
            reader, writer = await w.connect()
            writer.write(post(ask("later.example.org")))
            await condition(lambda: bool(w.answerer.waiting))
            async with asyncio.TaskGroup() as group:
                group.create_task(w.server.close(PATIENCE))
                assert await ends(idle)
                w.answerer.release()
                head, content = await read_reply(reader)
            assert b"connection: close" in head.lower()
            assert content == reply_to(ask("later.example.org"))
            assert await ends(reader)
            await condition(lambda: len(w.server) == 0)

    play(story())


def test_a_refusal_is_read_before_the_end(play: Play, authority: Authority) -> None:
    """Where the client is still sending, the connection lingers (RFC 9112 §9.6)."""

    async def story() -> bytes:
        async with window(authority) as w:
            reader, writer = await w.connect()
            writer.write(POST % (10_000_000, bytes(100_000)))
            for _ in range(5):
                writer.write(bytes(100_000))
                await asyncio.sleep(0)
            head, _ = await read_reply(reader)
            assert await ends(reader)
            return head

    assert play(story()).startswith(b"HTTP/1.1 413")  # type: ignore[attr-defined]


def test_every_reply_tells_of_http_3(play: Play, peer: Callable[[str], str], authority: Authority) -> None:
    """RFC 7838 §3, as curl reads it; but for those who would be held to other rules where it leads."""

    async def story(listener: str | None) -> bytes:
        terms = HttpTerms(doh=DohTerms(alt_svc=b'h3=":443"; ma=86400'))
        async with window(authority, terms, listener=listener) as w:
            return await program(
                peer("curl"), "-s", "--cacert", authority.path("authority.pem"), "-w", "%{header_json}",
                "--resolve", f"dns.example.org:{w.port}:127.0.0.1", "-o", "/dev/null",
                f"https://dns.example.org:{w.port}/dns-query?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA29yZwAAAQAB",
            )  # fmt: skip

    assert json.loads(play(story(None)))["alt-svc"] == ['h3=":443"; ma=86400']  # type: ignore[arg-type]
    assert "alt-svc" not in json.loads(play(story("phones")))  # type: ignore[arg-type]
