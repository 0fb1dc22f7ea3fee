"""DNS over QUIC as RFC 9250 has it, rule by rule, against the library's own client."""

import asyncio
import ssl
from collections.abc import Callable

import pytest

from resolver.policy.client import Credentials, Transport
from resolver.transport.connection import QuicTerms
from resolver.transport.doq import DoqError
from tests.support.answerer import FakeAnswerer, reply_to
from tests.support.house import ask
from tests.support.quic import BUILDS, Stream, Visitor, condition, doors, play

WWW = ask("www.example.org", message_id=0)
LATER = ask("later.example.org", message_id=0)
KEEPALIVE = WWW[:-2] + b"\0\4" + b"\0\x0b\0\0"  # RFC 7828 §3.1: option 11, without a value
PADDED = WWW[:-2] + b"\0\6" + b"\0\x0c\0\2\0\0"
FLOW_CONTROL_ERROR = 0x3  # RFC 9000 §20.1


def framed(packet: bytes) -> bytes:
    return len(packet).to_bytes(2, "big") + packet


@pytest.mark.parametrize("build", BUILDS)
def test_each_query_has_a_stream_of_its_own_and_its_reply_ends_it(build: str) -> None:
    """RFC 9250 §4.2: two octets of length, the message, the end of the stream; many at once on one connection."""
    queries = [ask(f"n{n}.example.org", message_id=0) for n in range(300)]

    async def story() -> list[Stream]:
        async with doors() as d:
            visitor = await d.visit()
            ids = [visitor.ask(query) for query in queries]
            return [await visitor.answered(stream_id) for stream_id in ids]

    for query, stream in zip(queries, play(story(), build), strict=True):
        assert bytes(stream.octets) == framed(reply_to(query))
        assert stream.ended
        assert stream.octets[2:4] == b"\0\0"  # RFC 9250 §4.2.1


@pytest.mark.parametrize("build", BUILDS)
def test_answers_come_when_they_are_ready_in_any_order(build: str) -> None:
    """A query that waits for an upstream holds up no other (RFC 9250 §5.5.1)."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit()
            waiting = [visitor.ask(ask(f"later{n}.example.org", message_id=0)) for n in range(5)]
            assert (await visitor.answered(visitor.ask(WWW))).octets == framed(reply_to(WWW))
            await condition(lambda: len(d.answerer.waiting) == 5)
            assert not any(visitor.stream(stream_id).is_over for stream_id in waiting)
            d.answerer.release()
            for n, stream_id in enumerate(waiting):
                query = ask(f"later{n}.example.org", message_id=0)
                assert (await visitor.answered(stream_id)).octets == framed(reply_to(query))

    play(story(), build)


def test_a_query_may_come_octet_by_octet() -> None:
    """A stream is a stream of octets; where datagrams end says nothing."""

    async def story() -> Stream:
        async with doors() as d:
            visitor = await d.visit()
            stream_id = visitor.send(b"", end=False)
            for octet in framed(WWW):
                visitor.send(bytes([octet]), end=False, stream_id=stream_id)
            assert not visitor.stream(stream_id).octets
            visitor.send(b"", stream_id=stream_id)
            return await visitor.answered(stream_id)

    assert play(story()).octets == framed(reply_to(WWW))


def test_the_longest_message_is_taken_and_the_longest_reply_sent() -> None:
    """RFC 9250 §4.6: 65535 octets, whatever EDNS says of UDP."""
    longest = ask("never.example.org", message_id=0, edns=False).ljust(65_535, b"\0")

    async def story() -> Stream:
        async with doors(answerer=FakeAnswerer(large_octets=65_535)) as d:
            visitor = await d.visit()
            stream = await visitor.answered(visitor.ask(ask("large.example.org", message_id=0)))
            visitor.ask(longest)
            await condition(lambda: len(d.answerer.seen) == 2 or visitor.terminated is not None)
            assert d.answerer.seen[1][0] == longest
            return stream

    assert len(play(story()).octets) == 65_537


def test_a_client_is_told_to_the_house_with_what_it_showed() -> None:
    """Address, transport, listener, and the name that it called us by, in lower case (RFC 6066 §3)."""

    async def story() -> FakeAnswerer:
        async with doors(listener="phones") as d:
            visitor = await d.visit(server_name="Tok123.DNS.example.org", verify_mode=ssl.CERT_NONE)
            await visitor.answered(visitor.ask(WWW))
            await visitor.answered(visitor.ask(PADDED))
            return d.answerer

    seen = play(story()).seen
    client = seen[0][1]
    assert client is seen[1][1]  # one a connection
    assert (client.address, client.transport, client.listener) == (b"\x7f\0\0\1", Transport.DOQ, "phones")
    assert client.sockaddr[4:8] == b"\x7f\0\0\1"
    assert client.credentials == Credentials(server_name="tok123.dns.example.org")


def test_a_client_that_names_no_server_has_no_credentials() -> None:
    """An address is sent as no name (RFC 6066 §3)."""

    async def story() -> FakeAnswerer:
        async with doors() as d:
            visitor = await d.visit(server_name="127.0.0.1", verify_mode=ssl.CERT_NONE)
            await visitor.answered(visitor.ask(WWW))
            return d.answerer

    assert play(story()).seen[0][1].credentials is None


Misdeed = Callable[[Visitor], object]
MISDEEDS: dict[str, Misdeed] = {
    "a message id other than 0": lambda v: v.ask(ask("www.example.org", message_id=1)),
    "nothing on the stream": lambda v: v.send(b""),
    "half a length": lambda v: v.send(b"\0"),
    "a length and no message": lambda v: v.send(b"\0\0"),
    "a stream that ends within the message": lambda v: v.send(framed(WWW)[:-1]),
    "a message without a header": lambda v: v.ask(WWW[:11]),
    "octets after the message": lambda v: v.send(framed(WWW) + b"\0"),
    "octets after the message, and no end": lambda v: v.send(framed(WWW) + b"\0", end=False),
    "two queries on a stream": lambda v: v.send(framed(WWW) * 2),
    "a response": lambda v: v.ask(reply_to(WWW)),
    "edns-tcp-keepalive": lambda v: v.ask(KEEPALIVE),
    "edns-tcp-keepalive after padding": lambda v: v.ask(WWW[:-2] + b"\0\x0a" + b"\0\x0c\0\2\0\0" + b"\0\x0b\0\0"),
    "a unidirectional stream": lambda v: v.send(framed(WWW), stream_id=2),
    "a unidirectional stream, not ended": lambda v: v.send(b"\0", end=False, stream_id=2),
}


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_what_a_client_must_not_do_ends_the_connection(misdeed: str) -> None:
    """RFC 9250 §4.3.3: with DOQ_PROTOCOL_ERROR; nothing of it is answered, and other clients are."""

    async def story() -> None:
        async with doors() as d:
            other = await d.visit()
            visitor = await d.visit()
            MISDEEDS[misdeed](visitor)
            assert await visitor.closed() == DoqError.PROTOCOL_ERROR
            assert not d.answerer.seen
            await condition(lambda: len(d.server) == 1)
            assert (await other.answered(other.ask(WWW))).octets == framed(reply_to(WWW))

    play(story())


def test_padding_is_no_protocol_error() -> None:
    """RFC 9250 §5.4 wants it."""

    async def story() -> Stream:
        async with doors() as d:
            visitor = await d.visit()
            return await visitor.answered(visitor.ask(PADDED))

    assert play(story()).octets == framed(reply_to(PADDED))


def test_a_stream_longer_than_any_message_is_cut_off() -> None:
    """The limit of a stream is 65537 octets and grows no more (RFC 9000 §4.1); a client that heeds it is just stuck."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit()
            stream_id = visitor.send((65_535).to_bytes(2, "big") + bytes(70_000), end=False)
            await condition(lambda: visitor.quic._streams[stream_id].sender.highest_offset == 65_537)
            assert visitor.terminated is None
            visitor.quic._streams[stream_id].max_stream_data_remote = 1 << 20
            visitor.transmit()
            assert await visitor.closed() == FLOW_CONTROL_ERROR

    play(story())


def test_a_query_is_not_looked_at_before_its_stream_ends() -> None:
    """RFC 9250 §4.2: the end is part of it."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit()
            stream_id = visitor.send(framed(LATER), end=False)
            assert (await visitor.answered(visitor.ask(WWW))).ended
            assert [packet for packet, _ in d.answerer.seen] == [WWW]
            visitor.send(b"", stream_id=stream_id)
            await condition(lambda: len(d.answerer.seen) == 2)
            d.answerer.release()
            assert (await visitor.answered(stream_id)).octets == framed(reply_to(LATER))

    play(story())


def test_a_cancelled_query_gets_no_answer() -> None:
    """RFC 9250 §4.3.1: STOP_SENDING is answered with RESET_STREAM (RFC 9000 §3.5), and the reply is dropped."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit()
            stream_id = visitor.ask(LATER)
            await condition(lambda: len(d.answerer.waiting) == 1)
            visitor.quic.stop_stream(stream_id, DoqError.REQUEST_CANCELLED)
            visitor.transmit()
            assert (await visitor.answered(stream_id)).reset == DoqError.REQUEST_CANCELLED
            d.answerer.release()
            assert (await visitor.answered(visitor.ask(WWW))).ended
            assert not visitor.stream(stream_id).octets

    play(story())


def test_a_query_cancelled_before_it_is_whole_is_not_asked() -> None:
    """RFC 9250 §4.3.1: the server should not go on with it, though the rest of it comes."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit()
            stream_id = visitor.send(framed(WWW)[:5], end=False)
            visitor.quic.stop_stream(stream_id, DoqError.REQUEST_CANCELLED)
            visitor.transmit()
            assert (await visitor.answered(stream_id)).reset == DoqError.REQUEST_CANCELLED
            visitor.send(framed(WWW)[5:], stream_id=stream_id)
            assert (await visitor.answered(visitor.ask(PADDED))).ended
            assert [packet for packet, _ in d.answerer.seen] == [PADDED]
            assert visitor.terminated is None

    play(story())


def test_a_query_that_is_reset_before_its_end_is_abandoned_and_that_is_said() -> None:
    """RFC 9250 §4.3.1: RESET_STREAM is answered with RESET_STREAM."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit()
            stream_id = visitor.send(framed(WWW), end=False)
            visitor.quic.reset_stream(stream_id, DoqError.REQUEST_CANCELLED)
            visitor.transmit()
            assert (await visitor.answered(stream_id)).reset == DoqError.REQUEST_CANCELLED
            assert (await visitor.answered(visitor.ask(WWW))).ended
            assert len(d.answerer.seen) == 1

    play(story())


def test_who_cancels_query_after_query_is_sent_away() -> None:
    """RFC 9250 §4.3.1: DOQ_EXCESSIVE_LOAD; as many as may be under way at once are let pass."""

    async def story() -> None:
        async with doors(QuicTerms(in_flight=20)) as d:
            visitor = await d.visit()
            for n in range(21):
                assert visitor.terminated is None
                stream_id = visitor.ask(LATER)
                await condition(lambda n=n: len(d.answerer.waiting) == n + 1)
                visitor.quic.stop_stream(stream_id, DoqError.REQUEST_CANCELLED)
                visitor.transmit()
                await condition(lambda s=stream_id: visitor.stream(s).is_over or visitor.terminated is not None)
            assert await visitor.closed() == DoqError.EXCESSIVE_LOAD

    play(story())


def test_answers_make_up_for_cancelled_queries() -> None:
    """A client that gives up now and then is not sent away."""

    async def story() -> None:
        async with doors(QuicTerms(in_flight=5)) as d:
            visitor = await d.visit()
            for n in range(20):
                stream_id = visitor.ask(LATER)
                await condition(lambda n=n: len(d.answerer.waiting) == n + 1)
                visitor.quic.stop_stream(stream_id, DoqError.REQUEST_CANCELLED)
                visitor.transmit()
                await visitor.answered(stream_id)
                assert (await visitor.answered(visitor.ask(WWW))).ended

    play(story())


@pytest.mark.parametrize("name", ["silent.example.org", "later.example.org"])
def test_a_query_that_gets_no_answer_has_its_stream_reset(name: str) -> None:
    """RFC 9250 §4.3.2: DOQ_INTERNAL_ERROR, on the stream alone; the connection goes on."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit()
            stream_id = visitor.ask(ask(name, message_id=0))
            await condition(lambda: len(d.answerer.seen) == 1)
            while d.answerer.waiting:
                d.answerer.waiting.pop()[1](None)
            assert (await visitor.answered(stream_id)).reset == DoqError.INTERNAL_ERROR
            assert (await visitor.answered(visitor.ask(WWW))).ended

    play(story())


def test_on_leaving_what_is_in_flight_is_answered_and_the_rest_is_not_begun() -> None:
    """RFC 9250 §4.3: DOQ_NO_ERROR on new streams, and on the connection in the end."""

    async def story() -> None:
        async with doors() as d:
            idle, visitor = await d.visit(), await d.visit()
            waiting = visitor.ask(LATER)
            await condition(lambda: len(d.answerer.waiting) == 1)
            closing = asyncio.ensure_future(d.server.close(5.0))
            await condition(lambda: d.server.is_leaving)
            late = visitor.ask(WWW)
            assert (await visitor.answered(late)).reset == DoqError.NO_ERROR
            d.answerer.release()
            assert (await visitor.answered(waiting)).octets == framed(reply_to(LATER))
            assert await visitor.closed() == DoqError.NO_ERROR
            assert await idle.closed() == DoqError.NO_ERROR
            await closing

    play(story())


def test_an_answer_after_the_end_of_a_connection_goes_nowhere() -> None:
    """The client left; RFC 9250 §4.4: what was in progress is abandoned."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit()
            visitor.ask(LATER)
            await condition(lambda: len(d.answerer.waiting) == 1)
            visitor.quic.close(DoqError.NO_ERROR)
            visitor.transmit()
            await condition(lambda: len(d.server) == 0)
            d.answerer.release()

    play(story())


@pytest.mark.parametrize("offered", ["dot", "h3", "doq-i11"])
def test_only_doq_is_spoken_here(offered: str) -> None:
    """RFC 9250 §4.1: the token "doq"; another ends the handshake with no_application_protocol (RFC 9001 §8.1)."""

    async def story() -> int:
        async with doors() as d:
            visitor = await d.visit(offered, to="doq", wait=False)
            return await visitor.closed()

    assert play(story()) == 0x100 + 120


def test_without_alpn_there_is_no_connection() -> None:
    """RFC 9001 §8.1."""

    async def story() -> int:
        async with doors() as d:
            visitor = await d.visit("doq", alpn_protocols=None, wait=False)
            return await visitor.closed()

    assert play(story()) == 0x100 + 120
