"""DNS over HTTP/3: the rules of RFC 8484 and what RFC 9114 leaves to a server, against the library's own client."""

import asyncio
from collections.abc import Callable

import pytest
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import ErrorCode, FrameType, Setting, StreamType, encode_frame, encode_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resolver.policy.client import Client, Credentials, Transport
from resolver.transport.connection import QuicTerms
from resolver.transport.doh import MESSAGE_OCTETS, DohTerms
from resolver.transport.http3 import FIELD_OCTETS, PACKED_OCTETS, STREAM_OCTETS
from tests.support.answerer import FakeAnswerer, reply_to
from tests.support.house import ask
from tests.support.quic import (
    BUILDS,
    NAME,
    Doors,
    Headers,
    Stream,
    Visitor,
    condition,
    doors,
    fields,
    get,
    packed,
    play,
)

WWW = ask("www.example.org", message_id=0)
LATER = ask("later.example.org", message_id=0)
DNS = (b"content-type", b"application/dns-message")


async def is_served(visitor: Visitor) -> bool:
    """Whether a request is answered."""
    stream = await visitor.answered(visitor.request(fields(b"GET", get(WWW))))
    return bytes(stream.content) == reply_to(WWW)


@pytest.mark.parametrize("build", BUILDS)
def test_get_and_post_are_answered_on_their_streams(build: str) -> None:
    """RFC 8484 §4.1: any number on a connection, whatever comes first."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit("h3")
            ids = []
            for n in range(150):
                query = ask(f"n{n}.example.org", message_id=0)
                ids.append((query, visitor.request(fields(b"GET", get(query)))))
                ids.append((query, visitor.request(fields(b"POST", b"/dns-query", DNS), query)))
            for query, stream_id in ids:
                stream = await visitor.answered(stream_id)
                assert bytes(stream.content) == reply_to(query)
                assert stream.headers == {
                    b":status": b"200",
                    b"content-type": b"application/dns-message",
                    b"content-length": b"%d" % len(reply_to(query)),
                    b"cache-control": b"no-store",
                }

    play(story(), build)


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        (fields(b"GET", get(WWW, path=b"/elsewhere")), None, b"404"),
        (fields(b"PUT", b"/dns-query", DNS), WWW, b"405"),
        (fields(b"HEAD", get(WWW)), None, b"405"),
        ([(b":method", b"CONNECT"), (b":authority", b"www.example.org:443")], None, b"405"),
        (fields(b"POST", b"/dns-query"), WWW, b"415"),
        (fields(b"POST", b"/dns-query", (b"content-type", b"text/plain")), WWW, b"415"),
        (fields(b"POST", b"/dns-query", DNS), b"", b"400"),
        (fields(b"POST", b"/dns-query", DNS), WWW[:11], b"400"),
        (fields(b"POST", b"/dns-query", DNS), reply_to(WWW), b"400"),
        (fields(b"GET", b"/dns-query"), None, b"400"),
        (fields(b"POST", b"/dns-query", DNS), bytes(MESSAGE_OCTETS + 1), b"413"),
        (fields(b"POST", b"/dns-query", DNS, (b"content-length", b"70000")), bytes(70_000), b"413"),
        (fields(b"GET", get(WWW), *[(b"accept", b"*/*")] * (FIELD_OCTETS // 41)), None, b"431"),
    ],
)
def test_what_is_not_answered_has_the_status_that_says_why(
    headers: Headers, content: bytes | None, status: bytes
) -> None:
    """RFC 8484 §4.2.1; the connection goes on, and the rest of the request is asked for no more (RFC 9114 §4.1)."""

    async def story() -> Stream:
        async with doors() as d:
            visitor = await d.visit("h3")
            stream_id = visitor.request(headers, content)
            stream = await visitor.answered(stream_id)
            assert await is_served(visitor)
            assert stream.stopped in (None, ErrorCode.H3_NO_ERROR)
            return stream

    stream = play(story())
    assert stream.headers[b":status"] == status
    assert stream.ended
    assert stream.headers[b"cache-control"] == b"no-store"
    assert stream.headers[b"content-length"] == b"0"


def test_a_refusal_does_not_wait_for_the_content() -> None:
    """RFC 9114 §4.1: the reply is whole, then STOP_SENDING with H3_NO_ERROR; what still comes is not read."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit("h3")
            for _ in range(3):
                stream_id = visitor.request(fields(b"POST", b"/elsewhere", DNS), WWW, end=False)
                assert (await visitor.answered(stream_id)).headers[b":status"] == b"404"
                await condition(lambda s=stream_id: visitor.stream(s).stopped == ErrorCode.H3_NO_ERROR)
                ended = visitor.request(fields(b"POST", b"/elsewhere", DNS), WWW)
                assert (await visitor.answered(ended)).headers[b":status"] == b"404"
            assert await is_served(visitor)
            (connection,) = d.server.connections
            assert set(connection._speaker._http._stream) <= {0, 2, 3, 6, 7, 10, 11}  # those of settings and tables
            assert len(d.answerer.seen) == 1

    play(story())


@pytest.mark.parametrize("path", [b"/elsewhere", b"/dns-query"])
def test_a_refused_request_may_come_in_one_piece(path: bytes) -> None:
    """With content and trailers, which are not taken for another request; nothing of it is kept."""
    request = packed(fields(b"POST", path)) + encode_frame(FrameType.DATA, WWW) + packed([(b"trailer", b"z")])

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit("h3")
            stream = await visitor.answered(visitor.send(request))
            assert stream.headers[b":status"] == (b"415" if path == b"/dns-query" else b"404")
            assert await is_served(visitor)
            (connection,) = d.server.connections
            assert not connection._speaker._deaf
            assert not connection._speaker._begun

    play(story())


def test_the_longest_message_is_taken() -> None:
    """RFC 8484 §6: 65535 octets, in whatever pieces."""
    longest = ask("never.example.org", message_id=0, edns=False).ljust(MESSAGE_OCTETS, b"\0")

    async def story() -> FakeAnswerer:
        async with doors() as d:
            visitor = await d.visit("h3")
            assert visitor.http is not None
            stream_id = visitor.request(fields(b"POST", b"/dns-query", DNS), longest[:1000], end=False)
            for at in range(1000, MESSAGE_OCTETS, 10_000):
                end = at + 10_000 >= MESSAGE_OCTETS
                visitor.http.send_data(stream_id, longest[at : at + 10_000], end_stream=end)
                visitor.transmit()
            await condition(lambda: bool(d.answerer.seen))
            return d.answerer

    assert play(story()).seen[0][0] == longest


def test_who_asks_is_told_to_the_house_with_what_he_showed() -> None:
    """Path token, bearer token, the name in TLS; one client for each, made once."""

    async def story() -> FakeAnswerer:
        async with doors(listener="phones") as d:
            visitor = await d.visit("h3")
            bearer = (b"authorization", b"Bearer abc")
            for headers in (
                fields(b"GET", get(WWW)),
                fields(b"GET", get(WWW, path=b"/dns-query/tok"), bearer),
                fields(b"GET", get(WWW, path=b"/dns-query/tok"), bearer),
            ):
                await visitor.answered(visitor.request(headers))
            return d.answerer

    first, second, third = (client for _, client in play(story()).seen)
    assert (first.transport, first.listener) == (Transport.DOH3, "phones")
    assert first.credentials == Credentials(server_name=NAME)
    assert second.credentials == Credentials(path_token="tok", bearer="abc", server_name=NAME)
    assert third is second


def test_the_service_stands_where_the_terms_say() -> None:
    """Path and alternative service."""

    async def story() -> Stream:
        async with doors(QuicTerms(doh=DohTerms(b"/q", b'h3=":8443"'))) as d:
            visitor = await d.visit("h3")
            return await visitor.answered(visitor.request(fields(b"GET", get(WWW, path=b"/q"))))

    stream = play(story())
    assert stream.content == reply_to(WWW)
    assert stream.headers[b"alt-svc"] == b'h3=":8443"'


def test_pages_stand_at_other_paths() -> None:
    """For who asks, by GET; what is no page is not found."""

    def pages(path: str, client: Client) -> tuple[bytes, bytes] | None:
        return (b"text/plain", f"{path} {client.transport}".encode()) if path == "/covered" else None

    async def story() -> list[Stream]:
        async with doors(QuicTerms(pages=pages)) as d:
            visitor = await d.visit("h3")
            ids = [
                visitor.request(fields(method, path))
                for method, path in ((b"GET", b"/covered"), (b"GET", b"/other"), (b"POST", b"/covered"))
            ]
            return [await visitor.answered(stream_id) for stream_id in ids]

    page, other, posted = play(story())
    assert bytes(page.content) == b"/covered doh3"
    assert page.headers[b":status"] == b"200"
    assert page.headers[b"content-type"] == b"text/plain"
    assert page.headers[b"cache-control"] == b"no-store"
    assert other.headers[b":status"] == posted.headers[b":status"] == b"404"


def test_a_request_that_is_cancelled_as_it_comes_gets_nothing() -> None:
    """Both in one datagram."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit("h3")
            assert visitor.http is not None
            for headers in (fields(b"GET", get(WWW)), fields(b"GET", b"/elsewhere")):
                stream_id = visitor.quic.get_next_available_stream_id()
                visitor.http.send_headers(stream_id, headers, end_stream=True)
                visitor.quic.stop_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
                visitor.transmit()
                assert (await visitor.answered(stream_id)).reset == ErrorCode.H3_REQUEST_CANCELLED
            assert await is_served(visitor)

    play(story())


MALFORMED: dict[str, bytes] = {
    "no method": packed(fields(b"GET", get(WWW))[1:]),
    "no path": packed([f for f in fields(b"GET", get(WWW)) if f[0] != b":path"]),
    "no scheme": packed([f for f in fields(b"GET", get(WWW)) if f[0] != b":scheme"]),
    "no authority": packed([f for f in fields(b"GET", get(WWW)) if f[0] != b":authority"]),
    "an empty authority": packed([(n, b"" if n == b":authority" else v) for n, v in fields(b"GET", get(WWW))]),
    "a pseudo-header field twice": packed([(b":method", b"GET"), *fields(b"GET", get(WWW))]),
    "an unknown pseudo-header field": packed([(b":status", b"200"), *fields(b"GET", get(WWW))]),
    "a pseudo-header field after others": packed([(b"a", b"b"), *fields(b"GET", get(WWW))]),
    "an upper-case name": packed(fields(b"GET", get(WWW), (b"A", b"b"))),
    "a field of the connection": packed(fields(b"GET", get(WWW), (b"connection", b"close"))),
    "a value with a line break": packed(fields(b"GET", get(WWW), (b"a", b"b\r\nc"))),
    "content-length that is no number": packed(fields(b"POST", b"/dns-query", DNS, (b"content-length", b"x"))),
    "less content than content-length": packed(fields(b"POST", b"/dns-query", DNS, (b"content-length", b"45")))
    + encode_frame(FrameType.DATA, WWW),
    "more content than content-length": packed(fields(b"POST", b"/dns-query", DNS, (b"content-length", b"43")))
    + encode_frame(FrameType.DATA, WWW),
    "a pseudo-header field in trailers": packed(fields(b"POST", b"/dns-query", DNS))
    + encode_frame(FrameType.DATA, WWW)
    + packed([(b":path", b"/")]),
}


@pytest.mark.parametrize(
    ("fault", "end"),
    [(fault, end) for fault in MALFORMED for end in (True, False) if end or "content than" not in fault],
)
def test_a_malformed_request_ends_its_stream_and_no_other(fault: str, end: bool) -> None:
    """RFC 9114 §4.1.2: a stream error, H3_MESSAGE_ERROR; nothing is asked."""

    async def story() -> Stream:
        async with doors() as d:
            visitor = await d.visit("h3")
            stream_id = visitor.send(MALFORMED[fault], end=end)
            stream = await visitor.answered(stream_id)
            assert stream.stopped == (None if end else ErrorCode.H3_MESSAGE_ERROR)
            assert not d.answerer.seen
            assert await is_served(visitor)
            return stream

    assert play(story()).reset == ErrorCode.H3_MESSAGE_ERROR


INCOMPLETE: dict[str, tuple[bytes, bool]] = {  # octets, and whether the stream ends rather than being reset
    "nothing": (b"", True),
    "an unknown frame only": (encode_frame(0x21, b"grease"), True),
    "reset before the fields": (b"\1", False),
    "reset after the fields": (packed(fields(b"POST", b"/dns-query", DNS)), False),
    "reset within the content": (
        packed(fields(b"POST", b"/dns-query", DNS)) + encode_frame(FrameType.DATA, WWW)[:9],
        False,
    ),
}


@pytest.mark.parametrize("kind", INCOMPLETE)
def test_a_request_that_is_never_whole_is_told_so(kind: str) -> None:
    """RFC 9114 §4.1: H3_REQUEST_INCOMPLETE on the stream; the connection goes on."""
    octets, ends = INCOMPLETE[kind]

    async def story() -> Stream:
        async with doors() as d:
            visitor = await d.visit("h3")
            stream_id = visitor.send(octets, end=ends)
            if not ends:
                visitor.quic.reset_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
                visitor.transmit()
            stream = await visitor.answered(stream_id)
            assert not d.answerer.seen
            assert await is_served(visitor)
            return stream

    assert play(story()).reset == ErrorCode.H3_REQUEST_INCOMPLETE


def control(*frames: bytes) -> bytes:
    """The octets of a control stream."""
    return encode_uint_var(StreamType.CONTROL) + encode_frame(FrameType.SETTINGS, b"") + b"".join(frames)


def on(stream_id: int, octets: bytes, end: bool = False) -> Callable[[Visitor], object]:
    return lambda visitor: visitor.send(octets, end=end, stream_id=stream_id)


FATAL: dict[str, tuple[Callable[[Visitor], object], ErrorCode]] = {
    "DATA before HEADERS": (on(0, encode_frame(FrameType.DATA, WWW)), ErrorCode.H3_FRAME_UNEXPECTED),
    "SETTINGS on a request": (on(0, encode_frame(FrameType.SETTINGS, b"")), ErrorCode.H3_FRAME_UNEXPECTED),
    "PUSH_PROMISE by a client": (on(0, encode_frame(FrameType.PUSH_PROMISE, b"\0")), ErrorCode.H3_FRAME_UNEXPECTED),
    "a frame of HTTP/2": (on(0, encode_frame(0x6, bytes(8))), ErrorCode.H3_FRAME_UNEXPECTED),
    "a frame that is cut off": (on(0, packed(fields(b"GET", get(WWW)))[:-1], True), ErrorCode.H3_FRAME_ERROR),
    "no SETTINGS first": (on(2, b"\0" + encode_frame(FrameType.GOAWAY, b"\0")), ErrorCode.H3_MISSING_SETTINGS),
    "SETTINGS twice": (on(2, control(encode_frame(FrameType.SETTINGS, b""))), ErrorCode.H3_FRAME_UNEXPECTED),
    "a setting of HTTP/2": (
        on(2, b"\0" + encode_frame(FrameType.SETTINGS, encode_settings({0x2: 1}))),
        ErrorCode.H3_SETTINGS_ERROR,
    ),
    "DATA on the control stream": (on(2, control(encode_frame(FrameType.DATA, b""))), ErrorCode.H3_FRAME_UNEXPECTED),
    "the control stream ends": (on(2, control(), True), ErrorCode.H3_CLOSED_CRITICAL_STREAM),
    "two control streams": (
        lambda v: (v.send(control(), end=False, stream_id=2), v.send(control(), end=False, stream_id=6)),
        ErrorCode.H3_STREAM_CREATION_ERROR,
    ),
    "a push stream by a client": (on(2, b"\1\0"), ErrorCode.H3_STREAM_CREATION_ERROR),
    "a table where there is none": (on(2, b"\2\x3f\xe1\x1f"), ErrorCode.QPACK_ENCODER_STREAM_ERROR),
    "an entry of a table where there is none": (
        on(0, encode_frame(FrameType.HEADERS, b"\2\0\x80")),
        ErrorCode.QPACK_DECOMPRESSION_FAILED,
    ),
    "a field section too large to unpack": (
        on(0, encode_uint_var(FrameType.HEADERS) + encode_uint_var(PACKED_OCTETS + 1)),
        ErrorCode.H3_EXCESSIVE_LOAD,
    ),
    "SETTINGS without end": (
        on(2, b"\0" + encode_uint_var(FrameType.SETTINGS) + encode_uint_var(1 << 20) + bytes(PACKED_OCTETS + 9)),
        ErrorCode.H3_EXCESSIVE_LOAD,
    ),
}


@pytest.mark.parametrize("fault", FATAL)
def test_what_a_client_must_not_do_ends_the_connection(fault: str) -> None:
    """RFC 9114 §8.1, RFC 9204 §6: with the code that says why, and no other connection."""
    act, error = FATAL[fault]

    async def story() -> int:
        async with doors() as d:
            other = await d.visit("h3")
            visitor = await d.visit("doq", to="h3", alpn_protocols=["h3"])
            act(visitor)
            code = await visitor.closed()
            assert await is_served(other)
            return code

    assert play(story()) == error


def test_streams_and_frames_that_nobody_knows_are_passed_over() -> None:
    """RFC 9114 §6.2.3, §7.2.8, §9: clients send some on purpose, and a control stream may grow long."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit("h3")
            visitor.send(encode_uint_var(0x21) + b"anything", stream_id=14)
            request = encode_frame(0x21, b"x") + packed(fields(b"POST", b"/dns-query", DNS)) + encode_frame(0x40, b"y")
            request += encode_frame(FrameType.DATA, WWW) + packed([(b"trailer", b"z")])
            assert (await visitor.answered(visitor.send(request))).headers[b":status"] == b"200"
            assert visitor.http is not None
            for _ in range(4 * STREAM_OCTETS // 4000):
                visitor.send(encode_frame(0xF0700, bytes(4000)), end=False, stream_id=2)
            sender = visitor.quic._streams[2].sender
            await condition(lambda: sender.buffer_is_empty or visitor.terminated is not None)
            assert await is_served(visitor)

    play(story())


def test_trailers_without_content_end_a_request() -> None:
    """RFC 9114 §4.1."""

    async def story() -> Stream:
        async with doors() as d:
            visitor = await d.visit("h3")
            return await visitor.answered(visitor.send(packed(fields(b"GET", get(WWW))) + packed([(b"a", b"b")])))

    assert play(story()).content == reply_to(WWW)


def test_a_stream_of_another_protocol_is_rejected() -> None:
    """WebTransport, which the library takes and we do not offer; the connection goes on."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit("h3")
            for end in (True, False):
                stream_id = visitor.send(encode_uint_var(0x41) + b"\0more", end=end)
                assert (await visitor.answered(stream_id)).reset == ErrorCode.H3_REQUEST_REJECTED
            visitor.send(encode_uint_var(0x54) + b"\0more", stream_id=14)
            assert await is_served(visitor)

    play(story())


def test_no_table_of_fields_is_kept_for_anybody() -> None:
    """RFC 9204 §3.2.3: none of the client's, none of ours whatever the client allows; and the limit is told."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit("h3")
            for _ in range(5):
                assert await is_served(visitor)
            assert visitor.http is not None
            told = visitor.http.received_settings
            assert told is not None
            assert told[Setting.QPACK_MAX_TABLE_CAPACITY] == told[Setting.QPACK_BLOCKED_STREAMS] == 0
            assert told[Setting.MAX_FIELD_SECTION_SIZE] == FIELD_OCTETS
            assert Setting.ENABLE_CONNECT_PROTOCOL not in told
            assert visitor.http._encoder_bytes_received == 0

    play(story())


def test_a_cancelled_request_gets_no_answer() -> None:
    """RFC 9114 §4.1.1."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit("h3")
            asked = visitor.request(fields(b"GET", get(LATER)))
            half = visitor.request(fields(b"POST", b"/dns-query", DNS), WWW[:5], end=False)
            await condition(lambda: len(d.answerer.waiting) == 1)
            for stream_id in (asked, half):
                visitor.quic.stop_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
            visitor.transmit()
            for stream_id in (asked, half):
                assert (await visitor.answered(stream_id)).reset == ErrorCode.H3_REQUEST_CANCELLED
            d.answerer.release()
            assert visitor.http is not None
            visitor.http.send_data(half, WWW[5:], end_stream=True)
            visitor.transmit()
            assert await is_served(visitor)
            assert not visitor.stream(asked).headers
            assert len(d.answerer.seen) == 2

    play(story())


@pytest.mark.parametrize("at", [1, 9, 40, 120])
def test_a_request_cancelled_on_its_way_is_not_read_on(at: int) -> None:
    """Within the fields, or within the content; what follows is not taken for something else."""
    request = packed(fields(b"POST", b"/dns-query", DNS)) + encode_frame(FrameType.DATA, WWW)

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit("h3")
            stream_id = visitor.send(request[:at], end=False)
            (connection,) = d.server.connections
            await condition(lambda: connection._speaker is not None)
            await condition(lambda: connection._speaker._http.is_receiving(stream_id))
            visitor.quic.stop_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
            visitor.transmit()
            assert (await visitor.answered(stream_id)).reset == ErrorCode.H3_REQUEST_CANCELLED
            visitor.send(request[at:], stream_id=stream_id)
            assert await is_served(visitor)
            assert len(d.answerer.seen) == 1
            await condition(lambda: not connection._speaker._deaf)

    play(story())


def test_rapid_reset_is_excessive_load() -> None:
    """RFC 9114 §10.5: as many as may be under way at once are let pass."""

    async def story() -> int:
        async with doors(QuicTerms(in_flight=20)) as d:
            visitor = await d.visit("h3")
            for _ in range(40):
                stream_id = visitor.request(fields(b"GET", get(LATER)))
                visitor.quic.stop_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
                visitor.transmit()
                await condition(lambda s=stream_id: visitor.stream(s).is_over or visitor.terminated is not None)
                if visitor.terminated is not None:
                    break
            return await visitor.closed()

    assert play(story()) == ErrorCode.H3_EXCESSIVE_LOAD


def test_a_request_that_gets_no_answer_is_cancelled() -> None:
    """RFC 9114 §4.1.1: H3_REQUEST_CANCELLED, for a server that chooses not to respond."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit("h3")
            stream_id = visitor.request(fields(b"GET", get(ask("silent.example.org", message_id=0))))
            assert (await visitor.answered(stream_id)).reset == ErrorCode.H3_REQUEST_CANCELLED
            assert await is_served(visitor)
            (connection,) = d.server.connections
            assert stream_id not in connection._speaker._http._stream

    play(story())


def goaway(d: Doors, visitor: Visitor) -> bytes | None:
    """What GOAWAY said on the server's control stream, if it came."""
    octets = bytes(visitor.stream(3).octets)
    at = octets.rfind(bytes([FrameType.GOAWAY, 1]))
    return octets[at + 2 : at + 3] if at > 0 else None


def test_on_leaving_what_has_come_is_answered_and_the_rest_rejected() -> None:
    """RFC 9114 §5.2: GOAWAY names the first that is not; H3_REQUEST_REJECTED, then H3_NO_ERROR."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit("h3")
            waiting = visitor.request(fields(b"GET", get(LATER)))
            half = visitor.request(fields(b"POST", b"/dns-query", DNS), LATER[:9], end=False)
            await condition(lambda: len(d.answerer.waiting) == 1)
            assert await is_served(visitor)
            closing = asyncio.ensure_future(d.server.close(5.0))
            await condition(lambda: goaway(d, visitor) is not None)
            assert goaway(d, visitor) == bytes([half + 8])
            late = visitor.request(fields(b"GET", get(WWW)))
            assert (await visitor.answered(late)).reset == ErrorCode.H3_REQUEST_REJECTED
            assert visitor.http is not None
            visitor.http.send_data(half, LATER[9:], end_stream=True)
            visitor.transmit()
            await condition(lambda: len(d.answerer.waiting) == 2)
            d.answerer.release()
            for stream_id in (waiting, half):
                assert (await visitor.answered(stream_id)).content == reply_to(LATER)
            assert await visitor.closed() == ErrorCode.H3_NO_ERROR
            await closing

    play(story())


def test_only_h3_is_spoken_here() -> None:
    """RFC 9114 §3.1."""

    async def story() -> int:
        async with doors() as d:
            return await (await d.visit("h3-29", to="h3", wait=False)).closed()

    assert play(story()) == 0x100 + 120


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 2, 4, 6, 10, 14]),
            st.binary(max_size=60)
            | st.sampled_from([packed(fields(b"POST", b"/dns-query", DNS)), control(), encode_frame(0, WWW)]),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_any_octets_on_any_streams_end_a_connection_at_most(pieces: list[tuple[int, bytes, bool]]) -> None:
    """No fault of ours, and others are served."""

    async def story() -> None:
        async with doors() as d:
            visitor, other = await d.visit("doq", to="h3", alpn_protocols=["h3"]), await d.visit("h3")
            ended: set[int] = set()
            for stream_id in sorted({stream_id for stream_id, _, _ in pieces}):
                visitor.quic.send_stream_data(stream_id, b"")  # the library opens them in this order only
            for stream_id, octets, end in pieces:
                if stream_id not in ended and visitor.terminated is None:
                    visitor.send(octets, end=end, stream_id=stream_id)
                    ended |= {stream_id} if end else set()
            assert await is_served(other)

    play(story())
