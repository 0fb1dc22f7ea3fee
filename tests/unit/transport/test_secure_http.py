"""Queries over HTTP/2 with real sockets: each gets its own response, and what else comes is an error that says what."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import dns.message
import pytest
import uvloop
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st

from resolver.policy.client import Transport
from resolver.transport import secure_http
from resolver.transport.secure_http import HttpsExchange
from resolver.transport.secure_identity import SecureTerms
from resolver.wire.message import Reply, WireError, read_reply
from tests.support.house import ask
from tests.support.secure_upstream import (
    AheadLoop,
    Certificates,
    Connection,
    Doors,
    Http,
    Serve,
    Upstream,
    mirror,
    mirror_http,
    mirrored,
    server_context,
    until,
    upstream,
)

T = TypeVar("T")
NAME = "dns.example.org"
QUERY = ask("www.example.org", message_id=0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Certificates) -> Path:
    return authority.issue(NAME)


@pytest.fixture(scope="module")
def tls(certificate: Path) -> ssl.SSLContext:
    return server_context(certificate, "h2")


Both = Callable[..., "contextlib.AbstractAsyncContextManager[tuple[Upstream, HttpsExchange]]"]


@pytest.fixture
def both(authority: Certificates, tls: ssl.SSLContext) -> Both:
    """`both(serve)`: an upstream that serves like this, and the way to it."""

    @contextlib.asynccontextmanager
    async def make(
        serve: Serve = mirror_http, context: ssl.SSLContext | None = None, **changes: Any
    ) -> AsyncIterator[tuple[Upstream, HttpsExchange]]:
        terms = SecureTerms(Transport.DOH, NAME, ca_file=str(authority.ca_file), **changes)
        async with upstream(serve, context or tls) as server:
            exchange = HttpsExchange(asyncio.get_running_loop(), "127.0.0.1", server.port, terms)
            try:
                yield server, exchange
            finally:
                exchange.close()

    return make


def run(story: Coroutine[Any, Any, T], loop: Callable[[], asyncio.AbstractEventLoop] = AheadLoop) -> T:
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(story)


@pytest.mark.parametrize("loop", [AheadLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_query_is_a_post_and_its_response_the_reply(
    both: Both, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """With id 0 (RFC 8484 §4.1), padded, on the path of the template; the next one uses the same connection."""
    seen: list[Http] = []

    async def serve(connection: Connection) -> None:
        seen.append(Http(connection))
        await seen[-1].begin()
        while True:
            stream = await seen[-1].request()
            seen[-1].respond(stream, mirrored(seen[-1].bodies[stream]))

    async def story() -> tuple[Reply, Reply, int]:
        async with both(serve, path="/t0ken/dns-query{?dns}") as (server, exchange):
            first = await exchange.ask(QUERY, read_reply, 5.0)
            return first, await exchange.ask_whole(QUERY, read_reply, 5.0), server.port

    first, whole, port = run(story(), loop)
    assert (first.answer.rcode, whole.answer.rcode, len(seen)) == (0, 0, 1)
    for stream in (1, 3):
        assert seen[0].heads[stream] == {
            ":method": "POST",
            ":scheme": "https",
            ":authority": f"{NAME}:{port}",
            ":path": "/t0ken/dns-query",
            "accept": "application/dns-message",
            "content-type": "application/dns-message",
            "content-length": "128",
        }
        made = dns.message.from_wire(seen[0].bodies[stream])
        assert (made.id, [int(o.otype) for o in made.options]) == (0, [12])


@pytest.mark.parametrize(
    ("host", "port", "name", "expected"),
    [
        ("192.0.2.53", 443, NAME, NAME),
        ("192.0.2.53", 1443, NAME, f"{NAME}:1443"),
        ("192.0.2.53", 443, None, "192.0.2.53"),
        ("2001:db8::53", 443, None, "[2001:db8::53]"),
        ("2001:db8::53", 8443, None, "[2001:db8::53]:8443"),
    ],
)
def test_the_authority_is_name_or_address_and_port(host: str, port: int, name: str | None, expected: str) -> None:
    """The port of https itself is left out."""
    with contextlib.closing(AheadLoop()) as loop:
        assert HttpsExchange(loop, host, port, SecureTerms(Transport.DOH, name)).authority == expected


def responds(body: bytes | None = None, status: int = 200, kind: str | None = "application/dns-message") -> Serve:
    """Answer every request like this."""

    async def serve(connection: Connection) -> None:
        http = Http(connection)
        await http.begin()
        while True:
            stream = await http.request()
            http.respond(stream, mirrored(http.bodies[stream]) if body is None else body, status, kind)

    return serve


GOOD = [
    responds(kind="application/dns-message; charset=x"),
    responds(kind="Application/DNS-Message"),
    responds(status=203),
]


@pytest.mark.parametrize("serve", GOOD, ids=["parameter", "letter case", "203"])
def test_a_response_is_taken_by_its_class_and_media_type(both: Both, serve: Serve) -> None:
    """Any 2xx (RFC 8484 §4.2.1); parameters and letter case of the type do not matter."""

    async def story() -> Reply:
        async with both(serve) as (_, exchange):
            return await exchange.ask(QUERY, read_reply, 5.0)

    assert run(story()).answer.rcode == 0


BAD: dict[str, tuple[Serve, type[Exception], str]] = {
    "500": (responds(status=500), OSError, "HTTP status 500"),
    "404": (responds(b"", 404, "text/html"), OSError, "HTTP status 404"),
    "redirect": (responds(b"", 301, None), OSError, "HTTP status 301"),
    "a page": (responds(b"<html>", 200, "text/html"), OSError, "media type text/html instead of application/dns-"),
    "no type": (responds(kind=None), OSError, "media type none instead of application/dns-message"),
    "no body": (responds(b""), WireError, "wrong id"),
    "another answer": (responds(mirrored(ask("else.example.org", message_id=0))), WireError, "wrong question"),
    "too long": (responds(bytes(65536)), OSError, "a response of more than 65535 octets"),
}


@pytest.mark.parametrize(("serve", "kind", "why"), BAD.values(), ids=BAD)
def test_what_is_no_reply_is_an_error_that_says_what_it_is(
    both: Both, serve: Serve, kind: type[Exception], why: str
) -> None:
    """At once: nothing else can come on that stream. The connection goes on."""

    async def story() -> tuple[int, int]:
        async with both(serve) as (server, exchange):
            for _ in range(2):
                with pytest.raises(kind, match=why):
                    await exchange.ask(QUERY, read_reply, 5.0)
            return len(server.connections), exchange.ignored

    assert run(story()) == (1, 2 if kind is WireError else 0)


def test_the_longest_message_arrives_whole(both: Both) -> None:
    """65,535 octets, in as many frames as it takes, over a window that has to be opened anew; and then again."""

    async def serve(connection: Connection) -> None:
        http = Http(connection)
        await http.begin()
        while True:
            stream = await http.request()
            http.respond(stream, mirrored(http.bodies[stream]).ljust(65535, b"\0"))

    async def story() -> list[int]:
        async with both(serve) as (_, exchange):
            return [await exchange.ask(QUERY, lambda reply, sent: len(reply), 5.0) for _ in range(3)]

    assert run(story()) == [65535] * 3


def test_responses_out_of_order_reach_who_asked(both: Both) -> None:
    """All ids are 0: the stream says whose reply it is."""
    count = 50

    async def serve(connection: Connection) -> None:
        http = Http(connection)
        await http.begin()
        for stream in reversed([await http.request() for _ in range(count)]):
            http.respond(stream, mirrored(http.bodies[stream]))
        await http.request()

    async def story() -> int:
        async with both(serve) as (server, exchange):
            queries = [ask(f"n{n}.example.org", message_id=0) for n in range(count)]

            def accept(reply: bytes, sent: bytes) -> bytes:
                read_reply(reply, sent)
                return reply[12:30]

            replies = await asyncio.gather(*(exchange.ask(one, accept, 10.0) for one in queries))
            assert replies == [one[12:30] for one in queries]
            return len(server.connections)

    assert run(story()) == 1


def test_no_more_streams_than_the_upstream_allows(both: Both) -> None:
    """What is more goes over a second connection, and then waits its turn (RFC 9113 §5.1.2)."""
    allowed, most = 5, [0]

    async def serve(connection: Connection) -> None:
        http = Http(connection)
        await http.begin(max_concurrent_streams=allowed)
        open_streams: list[int] = []
        answering: asyncio.Task[None] | None = None

        async def answer() -> None:
            await asyncio.sleep(0.01)
            while open_streams:
                stream = open_streams.pop()
                http.respond(stream, mirrored(http.bodies[stream]))

        while True:
            open_streams.append(await http.request())
            most[0] = max(most[0], len(open_streams))
            if answering is None or answering.done():
                answering = asyncio.ensure_future(answer())

    async def story() -> tuple[int, int]:
        async with both(serve) as (server, exchange):
            await exchange.ask(QUERY, read_reply, 5.0)
            await asyncio.gather(*(exchange.ask(QUERY, read_reply, 10.0) for _ in range(60)))
            return len(server.connections), len(server.asked)

    assert run(story()) == (2, 61)
    assert most == [allowed]


def test_no_more_octets_than_the_upstream_allows(both: Both) -> None:
    """Where its windows are closed a query waits until they open (RFC 9113 §5.2)."""

    async def serve(connection: Connection) -> None:
        http = Http(connection)
        await http.begin(initial_window_size=0)
        stream = await http.request()  # sent before the setting was known
        http.respond(stream, mirrored(http.bodies[stream]))
        await until(lambda: waiting)
        await asyncio.sleep(0.05)
        assert len(connection.asked) == 1
        http.http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 65535})
        http.flush()
        stream = await http.request()
        http.respond(stream, mirrored(http.bodies[stream]))
        await http.request()

    waiting: list[asyncio.Future[Reply]] = []

    async def story() -> tuple[int, int]:
        async with both(serve) as (server, exchange):
            await exchange.ask(QUERY, read_reply, 5.0)
            waiting.append(asyncio.ensure_future(exchange.ask(QUERY, read_reply, 5.0)))
            await waiting[0]
            return len(server.connections), len(server.asked)

    assert run(story()) == (1, 2)


def test_a_connection_whose_streams_run_out_is_replaced(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their numbers end some time (RFC 9113 §5.1.1), without a query being lost over it."""
    monkeypatch.setattr(secure_http, "LAST_STREAM", 5)

    async def story() -> list[int]:
        async with both() as (server, exchange):
            for _ in range(9):
                await exchange.ask(QUERY, read_reply, 5.0)
            return [len(connection.asked) for connection in server.connections]

    assert run(story()) == [4, 4, 1]


def test_an_upstream_whose_windows_stay_closed_is_left(both: Both) -> None:
    """What can not even be sent is a sign too that another connection is needed."""

    async def closed(connection: Connection) -> None:
        http = Http(connection)
        await http.begin(initial_window_size=0)
        stream = await http.request()
        http.respond(stream, mirrored(http.bodies[stream]))
        await http.request()

    async def story() -> int:
        async with both(closed) as (server, exchange):
            await exchange.ask(QUERY, read_reply, 5.0)
            with pytest.raises(TimeoutError):
                await exchange.ask(QUERY, read_reply, 0.2)
            server.serve = mirror_http
            await exchange.ask(QUERY, read_reply, 5.0)
            return len(server.connections)

    assert run(story()) == 2


def test_who_gives_up_cancels_the_stream(both: Both) -> None:
    """So that it does not count as open for ever."""
    seen: list[Http] = []

    async def serve(connection: Connection) -> None:
        seen.append(Http(connection))
        await seen[-1].begin()
        slow = await seen[-1].request()
        while True:
            stream = await seen[-1].request()
            assert stream != slow
            seen[-1].respond(stream, mirrored(seen[-1].bodies[stream]))

    async def story() -> int:
        async with both(serve) as (server, exchange):
            slow = asyncio.ensure_future(exchange.ask(QUERY, read_reply, 0.2))
            await until(lambda: server.asked)
            while not slow.done():
                await exchange.ask(QUERY, read_reply, 5.0)
                await asyncio.sleep(0.01)
            assert isinstance(slow.exception(), TimeoutError)
            await exchange.ask(QUERY, read_reply, 5.0)
            return len(server.connections)

    assert run(story()) == 1
    assert seen[0].cancelled == [1]


# ---- connections and streams that end


def resets(code: ErrorCodes) -> Serve:
    """Reset the first stream of each connection, answer the others."""

    async def serve(connection: Connection) -> None:
        http = Http(connection)
        await http.begin()
        http.http.reset_stream(await http.request(), code)
        http.flush()
        while True:
            stream = await http.request()
            http.respond(stream, mirrored(http.bodies[stream]))

    return serve


def test_a_stream_that_was_refused_is_asked_again(both: Both) -> None:
    """REFUSED_STREAM says that nobody has looked at it (RFC 9113 §8.7); anything else is an error with its name."""

    async def story() -> list[int]:
        async with both(resets(ErrorCodes.REFUSED_STREAM)) as (server, exchange):
            await exchange.ask(QUERY, read_reply, 5.0)
            counts = [len(server.asked)]
        async with both(resets(ErrorCodes.INTERNAL_ERROR)) as (server, exchange):
            with pytest.raises(ConnectionResetError, match="the upstream reset the stream: INTERNAL_ERROR"):
                await exchange.ask(QUERY, read_reply, 5.0)
            return [*counts, len(server.asked)]

    assert run(story()) == [2, 1]


@pytest.mark.parametrize("served", [0, 2])
@pytest.mark.parametrize("code", [ErrorCodes.NO_ERROR, ErrorCodes.ENHANCE_YOUR_CALM])
def test_goaway_in_the_middle_sends_the_query_elsewhere(both: Both, served: int, code: ErrorCodes) -> None:
    """Once; and from a new connection only where the upstream leaves in good order."""

    leaving = [True]

    async def serve(connection: Connection) -> None:
        if not leaving:
            await mirror_http(connection)
        leaving.clear()
        http = Http(connection)
        await http.begin()
        for _ in range(served):
            stream = await http.request()
            http.respond(stream, mirrored(http.bodies[stream]))
        await http.request()
        http.http.close_connection(code)
        http.flush()

    async def story() -> tuple[object, int]:
        async with both(serve) as (server, exchange):
            for _ in range(served):
                await exchange.ask(QUERY, read_reply, 5.0)
            (found,) = await asyncio.gather(exchange.ask(QUERY, read_reply, 5.0), return_exceptions=True)
            return found, len(server.connections)

    found, connections = run(story())
    if served or code == ErrorCodes.NO_ERROR:
        assert (isinstance(found, Reply), connections) == (True, 2)
    else:
        assert str(found) == "the upstream ended the connection: ENHANCE_YOUR_CALM"


async def speaks_http1(connection: Connection) -> None:
    await connection.reader.read(10)


def test_an_upstream_with_http1_alone_is_told_as_such(both: Both, certificate: Path) -> None:
    """Whether it says so, says nothing, or refuses the handshake."""

    async def story() -> list[str]:
        found = []
        for alpn in (["http/1.1"], []):
            async with both(speaks_http1, server_context(certificate, *alpn)) as (_, exchange):
                with pytest.raises(ConnectionError) as caught:
                    await exchange.ask(QUERY, read_reply, 5.0)
                found.append(str(caught.value))
        return found

    assert run(story()) == ["the upstream speaks HTTP/1.1 only; HTTP/2 is needed (ALPN h2)"] * 2


def test_an_upstream_that_speaks_something_else_behind_h2_is_an_error(both: Both) -> None:
    """HTTP/1.1, for example, after it promised HTTP/2."""

    async def serve(connection: Connection) -> None:
        await connection.reader.read(10)
        connection.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await connection.reader.read()

    async def story() -> None:
        async with both(serve) as (_, exchange):
            with pytest.raises(ConnectionResetError, match="no proper HTTP/2: "):
                await exchange.ask(QUERY, read_reply, 5.0)

    run(story())


def test_an_upstream_without_alpn_for_us_is_not_asked_over_tls_either(both: Both, certificate: Path) -> None:
    """DNS over TLS on the same port is another protocol."""

    async def story() -> int:
        async with both(mirror, server_context(certificate, "dot")) as (server, exchange):
            with pytest.raises(ConnectionError):
                await exchange.ask(QUERY, read_reply, 5.0)
            return len(server.asked)

    assert run(story()) == 0


def test_an_upstream_that_makes_us_talk_and_never_reads_is_dropped() -> None:
    """Each PING has its answer (RFC 9113 §6.7), so what lies unsent is bounded."""
    ping = b"\0\0\x08\6\0\0\0\0\0" + bytes(8)
    assert outcome([b"\0\0\0\4\0\0\0\0\0", *([ping * 4000] * 40)], reads=False) == "ConnectionResetError"


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_octets_from_the_upstream_end_in_errors_or_silence(pieces: list[bytes]) -> None:
    """Nothing else comes of them."""
    assert outcome(pieces) in ("TimeoutError", "ConnectionResetError")


@given(
    st.lists(
        st.tuples(st.integers(0, 10), st.integers(0, 255), st.sampled_from([0, 1, 2, 3]), st.binary(max_size=40)),
        max_size=8,
    )
)
def test_any_frames_from_the_upstream_end_in_errors_or_silence(frames: list[tuple[int, int, int, bytes]]) -> None:
    """Frames of every type with whatever flags and contents, on the stream of the query and on others."""
    octets = b"".join(
        len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content
        for kind, flags, stream, content in frames
    )

    assert outcome([b"\0\0\0\4\0\0\0\0\0" + octets]) in ("TimeoutError", "ConnectionResetError", "OSError", "WireError")


def outcome(pieces: list[bytes], reads: bool = True) -> str:
    """What comes of a query when these octets arrive."""

    async def story() -> str:
        doors = asyncio.get_running_loop()
        assert isinstance(doors, Doors)
        doors.transport.protocol, doors.transport.reads = "h2", reads
        exchange = HttpsExchange(doors, "127.0.0.1", 443, SecureTerms(Transport.DOH, NAME, strict=False))
        asking = asyncio.ensure_future(exchange.ask(QUERY, read_reply, 3600.0))
        await until(lambda: doors.transport.written)
        await asyncio.sleep(0)
        for piece in pieces:
            doors.protocol.data_received(piece)
        doors.ahead += 3600.0
        (found,) = await asyncio.gather(asking, return_exceptions=True)
        exchange.close()
        return type(found).__name__.lstrip("_").replace("LostError", "ConnectionResetError")

    return run(story(), Doors)
