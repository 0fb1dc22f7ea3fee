"""TLS on loopback: what is spoken, what a client shows, and what a handshake can not take from others."""

import asyncio
import contextlib
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest
import uvloop
from cryptography import x509

from resolver.policy.client import Credentials
from resolver.transport.places import PlaceTerms
from resolver.transport.sockets import bind_tcp
from resolver.transport.tls import TlsDoor, TlsError, credentials_of, load_certificate, server_context
from tests.support.secure_upstream import Certificates

T = TypeVar("T")
PATIENCE = 10.0
BUILDS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=BUILDS)
def play(request: pytest.FixtureRequest) -> Callable[[Awaitable[T]], T]:
    """Runs a story on one of the loops that the product runs on."""

    def run(story: Awaitable[T]) -> T:
        with contextlib.closing(BUILDS[request.param]()) as loop:
            return loop.run_until_complete(story)

    return run


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def own(authority: Certificates) -> Path:
    """The server's certificate, with its key."""
    return authority.issue("dns.example.org", "*.dns.example.org", "127.0.0.1")


class Guest(asyncio.Protocol):
    """Says what the client showed, and keeps the line."""

    def __init__(self) -> None:
        self.shown: Credentials | None = None
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.shown = credentials_of(transport)
        transport.write(b"in")  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None


class Door:
    """A door with those who came in by it."""

    def __init__(self, own: Path, authorities: Path | None, terms: PlaceTerms) -> None:
        loop = asyncio.get_running_loop()
        self.context = server_context(["dot"], authorities)
        load_certificate(self.context, own, own)
        self.guests: list[Guest] = []
        self.callers = contextlib.AsyncExitStack()
        self.sock = bind_tcp("127.0.0.1", 0)
        self.port = self.sock.getsockname()[1]
        self.door = TlsDoor(loop, self.sock, self.context, self._guest, terms, loop.time)

    def _guest(self) -> Guest:
        self.guests.append(Guest())
        return self.guests[-1]

    async def call(self, context: ssl.SSLContext, name: str = "dns.example.org") -> asyncio.StreamWriter:
        """Connect, and wait until the other end has let us in."""
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=name)
            self.callers.push_async_callback(hang_up, writer)
            await reader.readexactly(2)
        return writer


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def door(own: Path, authorities: Path | None = None, terms: PlaceTerms | None = None) -> AsyncIterator[Door]:
    made = Door(own, authorities, terms or PlaceTerms())
    try:
        yield made
    finally:
        made.door.close()
        await made.callers.aclose()
        await condition(lambda: not any(guest.transport for guest in made.guests) and not made.door._tasks)
        made.sock.close()


def client(authority: Certificates, shown: Path | None = None, **versions: ssl.TLSVersion) -> ssl.SSLContext:
    """A client's settings, that trust the authority."""
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    for key, version in versions.items():
        setattr(context, key, version)
    if shown is not None:
        context.load_cert_chain(shown)
    return context


async def condition(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not is_so():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("version", "suites"),
    [
        (ssl.TLSVersion.TLSv1_2, {"ECDHE-ECDSA-AES256-GCM-SHA384"}),
        (ssl.TLSVersion.TLSv1_3, {"TLS_AES_256_GCM_SHA384"}),
    ],
)
def test_both_versions_are_spoken_with_the_recommended_suite_first(
    play: Callable[[Awaitable[object]], object],
    authority: Certificates,
    own: Path,
    version: ssl.TLSVersion,
    suites: set[str],
) -> None:
    """Whatever order the client has."""

    async def story() -> None:
        async with door(own) as open_door:
            writer = await open_door.call(client(authority, minimum_version=version, maximum_version=version))
            assert writer.get_extra_info("cipher")[0] in suites

    play(story())


def test_what_is_not_recommended_is_not_spoken(
    play: Callable[[Awaitable[object]], object], authority: Certificates, own: Path
) -> None:
    """A suite without forward secrecy, one of CBC mode, and a version that is gone."""

    async def refused(context: ssl.SSLContext) -> bool:
        async with door(own) as open_door:
            try:
                await open_door.call(context)
            except (OSError, asyncio.IncompleteReadError):
                return True
            return False

    for suites in ("AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"):
        context = client(authority, maximum_version=ssl.TLSVersion.TLSv1_2)
        context.set_ciphers(suites)
        assert play(refused(context)), suites
    old = client(authority)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    assert play(refused(old))


def test_what_a_client_shows_is_read_after_the_handshake(
    play: Callable[[Awaitable[object]], object], authority: Certificates, own: Path
) -> None:
    """The name it called us by, in lower case; the names in its certificate, of subjectAltName before the subject's."""
    device = authority.issue("phone-7.example.org")

    async def story() -> list[Credentials | None]:
        async with door(own, authority.ca_file) as open_door:
            await open_door.call(client(authority), "ABC.dns.example.org")
            await open_door.call(client(authority, device))
            return [guest.shown for guest in open_door.guests]

    assert play(story()) == [
        Credentials(server_name="abc.dns.example.org"),
        Credentials(("phone-7.example.org", "common.example"), until=end_of(device), server_name="dns.example.org"),
    ]


def end_of(path: Path) -> float:
    """When a certificate ends."""
    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()


@pytest.mark.parametrize("fault", ["expired", "strange"])
def test_a_certificate_that_does_not_hold_ends_the_handshake(
    play: Callable[[Awaitable[object]], object], authority: Certificates, own: Path, tmp_path: Path, fault: str
) -> None:
    """One that has run out, or that another authority signed; the next client is served."""
    other = Certificates(tmp_path)
    shown = authority.issue("a.example", until=timedelta(days=-1)) if fault == "expired" else other.issue("a.example")

    async def story() -> int:
        async with door(own, authority.ca_file) as open_door:
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await open_door.call(client(authority, shown))
            await open_door.call(client(authority))
            await condition(lambda: open_door.door.failed == 1)
            return len(open_door.guests)

    assert play(story())


def test_half_open_handshakes_are_bounded_and_lock_nobody_out(
    play: Callable[[Awaitable[object]], object], authority: Certificates, own: Path
) -> None:
    """The oldest makes room; who does shake hands comes in past two hundred that do not."""

    async def story() -> None:
        async with door(own, terms=PlaceTerms(connections=20, per_client=0, idle_timeout=60.0)) as open_door:
            with contextlib.ExitStack() as silent:
                for _ in range(200):
                    sock = silent.enter_context(socket.socket())
                    sock.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        sock.connect(("127.0.0.1", open_door.port))
                    await asyncio.sleep(0)
                await condition(lambda: open_door.door.evicted >= 180)
                await open_door.call(client(authority))
            assert len(open_door.door._places) <= 20

    play(story())


def test_a_handshake_that_takes_too_long_ends(
    play: Callable[[Awaitable[object]], object], authority: Certificates, own: Path
) -> None:
    """However slowly its octets come."""

    async def story() -> None:
        async with door(own, terms=PlaceTerms(idle_timeout=0.2)) as open_door:
            reader, writer = await asyncio.open_connection("127.0.0.1", open_door.port)
            open_door.callers.push_async_callback(hang_up, writer)
            async with asyncio.timeout(PATIENCE):
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
            await condition(lambda: open_door.door.failed == 1)

    play(story())


def test_a_session_is_resumed(authority: Certificates, own: Path) -> None:
    """By a ticket, with either version; the keys are the context's, so all who were forked with it take it."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = client(authority, minimum_version=version, maximum_version=version)
        settled = server_context(["dot"], None)
        load_certificate(settled, own, own)
        session, reused = _shake(context, settled, None)
        assert not reused
        assert _shake(context, settled, session)[1], version


def _shake(context: ssl.SSLContext, server: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[object, bool]:
    """One handshake in memory, with an octet from the server, behind which tickets come."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = context.wrap_bio(to_client, to_server, server_hostname="dns.example.org", session=session)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(10):
        for end in (ours, theirs):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    theirs.write(b"x")
    assert ours.read(1) == b"x"
    return ours.session, bool(theirs.session_reused)


def test_a_new_certificate_is_shown_to_who_comes_next(
    play: Callable[[Awaitable[object]], object], authority: Certificates, own: Path
) -> None:
    """The connection that is open goes on; a pair that can not be used leaves what there was."""
    new = authority.issue("dns.example.org", "new.example.org")

    async def story() -> list[bool]:
        async with door(own) as open_door:
            old_writer = await open_door.call(client(authority))
            load_certificate(open_door.context, new, new)
            with pytest.raises(TlsError):
                load_certificate(open_door.context, own, new)
            new_writer = await open_door.call(client(authority))
            old_writer.write(b"still here")
            await old_writer.drain()
            names = [str(writer.get_extra_info("peercert")["subjectAltName"]) for writer in (old_writer, new_writer)]
            return ["new.example.org" in found for found in names]

    assert play(story()) == [False, True]


def test_what_can_not_be_used_is_told_with_its_file_and_the_mend(
    authority: Certificates, own: Path, tmp_path: Path
) -> None:
    """Missing, no PEM, another key, a key with a password."""
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    context = server_context([], None)
    for certificate, key, said in (
        (tmp_path / "gone.pem", own, "gone.pem can not be used"),
        (own, tmp_path / "gone.key", "gone.key can not be used"),
        (empty, own, "empty.pem can not be used"),
        (own, authority.issue("a.example"), "is not that of the certificate"),
    ):
        with pytest.raises(TlsError, match=said):
            load_certificate(context, certificate, key)
    with pytest.raises(TlsError, match="must hold certificates in PEM"):
        server_context([], empty)


def test_where_no_descriptor_is_left_nobody_spins(
    play: Callable[[Awaitable[object]], object], authority: Certificates, own: Path
) -> None:
    """Who waits is let in a moment later, once there is one."""

    async def story() -> None:
        async with door(own) as open_door:
            with socket.socket() as waiting, contextlib.ExitStack() as held:
                waiting.connect(("127.0.0.1", open_door.port))
                most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (waiting.fileno() + 1, hard))
                held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (most, hard))
                with contextlib.suppress(OSError):
                    while True:  # what was free below
                        held.callback(os.close, os.dup(0))
                await condition(lambda: open_door.door._pause is not None)
                assert not asyncio.get_running_loop().remove_reader(open_door.sock.fileno())
                held.close()
                await condition(lambda: len(open_door.door._places) == 1)

    play(story())
