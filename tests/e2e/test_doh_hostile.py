"""What strangers do to a server of DoH: it stays small, the others are served, and who overdoes it is shown out.

The server is a process of its own, with an answerer that costs nothing, so that its memory and its descriptors are what
the connections take.
"""

import asyncio
import contextlib
import os
import ssl
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from resolver.transport.http2_frames import PREFACE, Code, Frame
from tests.support.answerer import reply_to
from tests.support.doh import PATIENCE, Authority, condition
from tests.support.house import ask

pytestmark = pytest.mark.e2e

T = TypeVar("T")
WWW = ask("www.example.org")
CONNECTIONS, PER_CLIENT, HANDSHAKES = 64, 32, 32
MEBIBYTES = 64  # that the server may grow by, whatever is done to it
HEAD = {
    ":method": "POST",
    ":scheme": "https",
    ":authority": "dns.example.org",
    ":path": "/dns-query",
    "content-type": "application/dns-message",
}
BLOCK = b"".join(  # each field spelled out (RFC 7541 §6.2.2)
    b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in HEAD.items()
)


class Victim:
    """The server's process."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, authority: Authority) -> None:
        self.process, self.port, self.authority = process, port, authority
        self.before = self.memory_mib()

    def memory_mib(self) -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    async def connect(
        self, *alpn: str, source: str = "127.0.0.1", tls: ssl.SSLContext | None = None, name: str = "dns.example.org"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = tls or self.authority.client(*(alpn or ("http/1.1",)))
        return await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(source, 0), ssl=context, server_hostname=name
        )

    async def is_well(self) -> None:
        """Somebody else is served, at once, and the server has not grown."""
        async with asyncio.timeout(PATIENCE):
            reader, writer = await self.connect(source="127.0.0.9")
            writer.write(
                b"POST /dns-query HTTP/1.1\r\nHost: dns.example.org\r\nContent-Type: application/dns-message\r\n"
                b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(WWW), WWW)
            )
            said = await reader.read()
            writer.transport.abort()
        assert said.startswith(b"HTTP/1.1 200")
        assert said.endswith(reply_to(WWW))
        assert self.memory_mib() < self.before + MEBIBYTES
        assert self.descriptors() < CONNECTIONS + HANDSHAKES + 32


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """A server that runs for all tests: what one of them does to it, the next would notice."""
    authority = Authority.made(tmp_path_factory.mktemp("authority"))
    words = [sys.executable, "-m", "tests.support.doh", str(authority.folder)]
    limits = [str(number) for number in (CONNECTIONS, PER_CLIENT, HANDSHAKES)]
    with subprocess.Popen([*words, *limits], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Victim(process, int(process.stdout.readline()), authority)
        assert process.poll() is None
        process.terminate()


def play(story: Callable[[], Awaitable[T]]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(60):
            return await story()

    return asyncio.run(bounded())


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">HBBBL", len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


GREETING = PREFACE + frame(Frame.SETTINGS)


async def last_word(reader: asyncio.StreamReader) -> Code | None:
    """The error code that the connection ends with; None if it ends without a word."""
    said = b""
    async with asyncio.timeout(PATIENCE):
        try:
            while piece := await reader.read(65_536):
                said += piece
        except (ConnectionError, ssl.SSLError):
            pass
    code = None
    while len(said) >= 9:
        octets = int.from_bytes(said[:3], "big")
        if said[3] == Frame.GOAWAY:
            code = Code(int.from_bytes(said[13:17], "big"))
        said = said[9 + octets :]
    return code


def test_half_open_handshakes_lock_nobody_out(victim: Victim) -> None:
    """Many more than there is room for, from one address and from many, silent or in the middle of their greeting."""

    async def story() -> None:
        writers = []
        for number in range(4 * HANDSHAKES):
            source = f"127.0.0.{10 + number % 4}"
            _, writer = await asyncio.open_connection("127.0.0.1", victim.port, local_addr=(source, 0))
            if number % 2:
                writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
            writers.append(writer)
        await victim.is_well()
        for writer in writers:
            writer.transport.abort()

    play(story)


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.1\r\n\r\n", bytes(2000), b"\x15\x03\x01\x00\x02\x02\x28"])
def test_what_is_no_handshake_is_shown_out(victim: Victim, octets: bytes) -> None:
    """Plain HTTP, zeros, an alert."""

    async def story() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", victim.port)
        writer.write(octets)
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                await reader.read()
        writer.transport.abort()
        await victim.is_well()

    play(story)


async def is_let_in(victim: Victim, tls: ssl.SSLContext) -> bool:
    """Whether somebody is answered at all; in TLS 1.3 a client learns late that its certificate did not hold."""
    async with asyncio.timeout(PATIENCE):
        try:
            reader, writer = await victim.connect(tls=tls)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            said = await reader.read()
            writer.transport.abort()
            return said != b""
        except (ssl.SSLError, ConnectionError):
            return False


def test_another_name_is_served_and_an_expired_certificate_is_not(victim: Victim, tmp_path: Path) -> None:
    """Whose name it is, the client has to check (RFC 8484 §3); whose certificate holds, we do."""

    async def story() -> None:
        careless = victim.authority.client("http/1.1")
        careless.check_hostname = False
        _, writer = await victim.connect(tls=careless, name="wrong.example.net")
        writer.transport.abort()
        await victim.is_well()
        forged = victim.authority.client("http/1.1")
        stranger = Authority.made(tmp_path)
        forged.load_cert_chain(stranger.path("device.pem"), stranger.path("device.key"))
        for tls in (forged, victim.authority.client("http/1.1", shows="expired")):
            assert not await is_let_in(victim, tls)
        assert await is_let_in(victim, victim.authority.client("http/1.1", shows="device"))

    play(story)


@pytest.mark.parametrize("version", ["http/1.1", "h2"])
def test_many_who_do_not_read_are_not_read_from(victim: Victim, version: str) -> None:
    """As many as there are places for, each asking for much more than it takes."""

    async def story() -> None:
        writers = []
        for number in range(PER_CLIENT):
            _, writer = await victim.connect(version, source=f"127.0.0.{20 + number % 2}")
            writer.transport.pause_reading()
            message = ask("large.example.org")
            if version == "h2":
                writer.write(GREETING + frame(Frame.SETTINGS, 0, 0, struct.pack(">HL", 4, 2**31 - 1)))
                writer.write(frame(Frame.WINDOW_UPDATE, 0, 0, (2**30).to_bytes(4, "big")))
                for stream in range(1, 600, 2):
                    writer.write(frame(Frame.HEADERS, 4, stream, BLOCK) + frame(Frame.DATA, 1, stream, message))
            else:
                head = b"POST /dns-query HTTP/1.1\r\nHost: x\r\nContent-Type: application/dns-message\r\n"
                writer.write((head + b"Content-Length: %d\r\n\r\n%s" % (len(message), message)) * 300)
            writers.append(writer)
        for _ in range(5):
            await victim.is_well()
        for writer in writers:
            writer.transport.abort()

    play(story)


def test_many_who_send_half_a_request_are_bounded(victim: Victim) -> None:
    """Content that never ends is kept up to the connection's window, and the server stays small."""

    async def story() -> None:
        writers = []
        for _ in range(PER_CLIENT):
            _, writer = await victim.connect("h2", source="127.0.0.30")
            writer.write(GREETING)
            for stream in range(1, 9, 2):
                writer.write(frame(Frame.HEADERS, 4, stream, BLOCK))
                writer.write(frame(Frame.DATA, 0, stream, bytes(16_000)) * 4)
            await writer.drain()
            writers.append(writer)
        await victim.is_well()
        for writer in writers:
            writer.transport.abort()

    play(story)


FLOODS: dict[str, Callable[[int, bytes], bytes]] = {
    "rapid reset": lambda n, block: (
        frame(Frame.HEADERS, 4, 2 * n + 1, block)
        + frame(Frame.DATA, 1, 2 * n + 1, ask("never.example.org"))
        + frame(Frame.RST_STREAM, 0, 2 * n + 1, bytes(4))
    ),
    "requests reset before they are whole": lambda n, block: (
        frame(Frame.HEADERS, 4, 2 * n + 1, block) + frame(Frame.RST_STREAM, 0, 2 * n + 1, bytes(4))
    ),
    "PING": lambda n, block: frame(Frame.PING, 0, 0, bytes(8)),
    "SETTINGS": lambda n, block: frame(Frame.SETTINGS, 0, 0, struct.pack(">HL", 4, n)),
    "CONTINUATION": lambda n, block: frame(Frame.CONTINUATION, 0, 1) if n else frame(Frame.HEADERS, 0, 1, block),
    "empty DATA": lambda n, block: frame(Frame.DATA, 0, 1) if n else frame(Frame.HEADERS, 4, 1, block),
    "WINDOW_UPDATE": lambda n, block: frame(Frame.WINDOW_UPDATE, 0, 0, b"\0\0\0\1"),
    "a bomb of fields": lambda n, block: frame(
        Frame.HEADERS, 5, 2 * n + 1, b"\x40\x01x\x7f\x81\x1e" + b"y" * 4000 + b"\xbe" * 12_000
    ),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_with_its_connection(victim: Victim, name: str) -> None:
    """ENHANCE_YOUR_CALM (RFC 9113 §10.5)."""

    async def story() -> Code | None:
        reader, writer = await victim.connect("h2", source="127.0.0.40")
        writer.write(GREETING + b"".join(FLOODS[name](number, BLOCK) for number in range(2000)))
        code = await last_word(reader)
        writer.transport.abort()
        await victim.is_well()
        return code

    assert play(story) is Code.ENHANCE_YOUR_CALM


def test_h2load_is_answered_to_the_last_request(victim: Victim, peer: Callable[[str], str], tmp_path: Path) -> None:
    """A program that people measure servers with, over both versions and with many streams."""
    (tmp_path / "query").write_bytes(WWW)
    for words in (["-c", "4", "-m", "100"], ["-c", "4", "--h1"]):
        said = subprocess.run(
            [
                peer("h2load"), "-n", "1200", *words, "-d", str(tmp_path / "query"),
                "-H", "content-type: application/dns-message", f"https://127.0.0.1:{victim.port}/dns-query",
            ],
            capture_output=True, text=True, timeout=30,
        ).stdout  # fmt: skip
        assert "status codes: 1200 2xx, 0 3xx, 0 4xx, 0 5xx" in said
    play(victim.is_well)


def test_all_places_are_free_again_in_the_end(victim: Victim) -> None:
    """Nothing that went before has left a descriptor behind."""

    async def story() -> None:
        await victim.is_well()
        await condition(lambda: victim.descriptors() < 16)

    play(story)
