"""One client's QUIC connection: what keeps it, what ends it, and that it ends no other."""

import asyncio
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resolver.transport.connection import QuicTerms
from resolver.transport.doq import DoqError
from resolver.transport.places import PlaceTerms
from tests.support.answerer import FakeAnswerer, reply_to
from tests.support.house import ask
from tests.support.quic import Visitor, condition, doors, play

WWW = ask("www.example.org", message_id=0)
LATER = ask("later.example.org", message_id=0)
LARGE = ask("large.example.org", message_id=0)


async def is_served(visitor: Visitor) -> bool:
    """Whether a query is answered."""
    stream = await visitor.answered(visitor.ask(WWW))
    return bytes(stream.octets[2:]) == reply_to(WWW)


def test_a_new_key_is_taken() -> None:
    """RFC 9001 §6."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit()
            assert await is_served(visitor)
            visitor.quic.request_key_update()
            assert await is_served(visitor)

    play(story())


def test_only_queries_and_answers_keep_a_place() -> None:
    """Neither PING nor half a query does; who waits for an answer is waited with."""

    async def story() -> None:
        async with doors(QuicTerms(idle_timeout=1000.0), PlaceTerms(idle_timeout=10.0)) as d:
            busy, idle = await d.visit(), await d.visit()
            busy.ask(LATER)
            await condition(lambda: len(d.answerer.waiting) == 1)
            began = {guest: guest.active_at for guest in d.places}
            d.clock.ahead = 5.0
            idle.send(b"\0\x30", end=False)
            for uid in range(5):
                idle.quic.send_ping(uid)
                idle.transmit()
                await condition(lambda uid=uid: idle.datagrams > uid)
            assert {guest: guest.active_at for guest in d.places} == began
            for guest in d.places:
                guest.expire()
            assert await idle.closed() == DoqError.NO_ERROR
            assert len(d.server) == 1
            (guest,) = d.places
            busy.ask(LATER)
            await condition(lambda: guest.active_at > began[guest])
            asked_at = guest.active_at
            d.clock.ahead = 6.0
            d.answerer.release()
            await condition(lambda: guest.active_at > asked_at)
            guest.expire()
            assert await busy.closed() == DoqError.NO_ERROR

    play(story())


def test_a_silent_connection_ends_at_both_ends() -> None:
    """RFC 9250 §4.4: the idle timeout is told, and kept without a word."""

    async def story() -> None:
        async with doors(QuicTerms(idle_timeout=0.3)) as d:
            visitor = await d.visit(idle_timeout=60.0)
            visitor.deaf = True
            await condition(lambda: len(d.server) == len(d.places) == 0)

    play(story())


def test_who_does_not_read_is_let_go() -> None:
    """Replies that the client's flow control holds back do not pile up without end."""

    async def story() -> None:
        async with doors(answerer=FakeAnswerer(large_octets=60_000)) as d:
            visitor = await d.visit(max_data=1000)
            other = await d.visit()
            visitor.quic._local_max_data.used = -(1 << 40)  # so that it never raises its limits
            for _ in range(30):
                visitor.ask(LARGE)
            assert await visitor.closed() == DoqError.EXCESSIVE_LOAD
            assert await is_served(other)

    play(story())


def test_another_port_is_a_nats_doing_and_another_host_is_another() -> None:
    """RFC 9000 §9: the client was told not to move. From another port it goes on once that is validated."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit()
            assert await is_served(visitor)
            thief = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            thief.bind(("127.0.0.9", 0))
            thief.connect(visitor.address)
            thief.setblocking(False)
            visitor.quic.send_stream_data(visitor.quic.get_next_available_stream_id(), b"\0\x2c" + WWW, True)
            for datagram, _ in visitor.quic.datagrams_to_send(asyncio.get_running_loop().time()):
                thief.send(datagram)
            assert await is_served(await d.visit())
            with pytest.raises(BlockingIOError):
                thief.recv(1)
            assert len(d.answerer.seen) == 2
            thief.close()
            assert visitor._transport is not None
            visitor._transport.close()
            await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: visitor, local_addr=("127.0.0.1", 0), remote_addr=visitor.address
            )
            assert await is_served(visitor)

    play(story())


def test_an_error_of_ours_ends_one_connection_and_is_counted() -> None:
    """The others go on."""

    class Faulty(FakeAnswerer):
        def answer(self, packet: bytes, *rest: object) -> bytes | None:
            if packet == LATER:
                raise RuntimeError("a fault")
            return reply_to(packet)

    async def story() -> None:
        async with doors(answerer=Faulty()) as d:
            other = await d.visit()
            visitor = await d.visit()
            visitor.ask(LATER)
            await condition(lambda: len(d.server) == 1)
            assert (d.server.faults, d.server.last_fault) == (1, "RuntimeError('a fault')")
            assert await is_served(other)
            d.server.faults, d.server.last_fault = 0, ""

    play(story())


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 0x32), st.binary(max_size=300))
def test_any_frames_on_a_connection_end_that_at_most(kind: int, rest: bytes) -> None:
    """Well encrypted, and nonsense: no fault of ours, and others are served."""

    async def story() -> None:
        async with doors() as d:
            visitor, other = await d.visit(), await d.visit()
            visitor.say(bytes([kind]) + rest)
            assert await is_served(other)

    play(story())


def test_an_acknowledgement_alone_is_not_answered_at_once() -> None:
    """What it lets us tidy up is tidied up all the same: streams that ended make room for new ones."""

    async def story() -> None:
        async with doors(QuicTerms(in_flight=2)) as d:
            visitor = await d.visit()
            for _ in range(12):
                ids = [visitor.ask(WWW) for _ in range(5)]
                for stream_id in ids:
                    assert (await visitor.answered(stream_id)).ended
            (connection,) = d.server.connections
            await condition(lambda: len(connection._quic._streams) == 0)

    play(story())


def test_a_reply_larger_than_what_may_be_under_way_leaves_as_fast_as_it_is_acknowledged() -> None:
    """The congestion window holds it back, not our timer."""

    async def story() -> None:
        async with doors(answerer=FakeAnswerer(large_octets=60_000)) as d:
            visitor = await d.visit()
            for _ in range(5):
                stream = await visitor.answered(visitor.ask(LARGE))
                assert len(stream.octets) == 60_002

    play(story())


def test_who_has_to_make_room_is_told() -> None:
    """A client that waits for nothing more comes again at once."""

    async def story() -> int:
        async with doors(places=PlaceTerms(connections=1)) as d:
            first = await d.visit()
            await d.visit()
            return await first.closed()

    assert play(story()) == DoqError.NO_ERROR


@pytest.mark.parametrize("query", [WWW, LATER])
def test_a_query_that_is_cancelled_as_it_comes_gets_nothing(query: bytes) -> None:
    """Both in one datagram."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit()
            stream_id = visitor.quic.get_next_available_stream_id()
            visitor.quic.send_stream_data(stream_id, len(query).to_bytes(2, "big") + query, True)
            visitor.quic.stop_stream(stream_id, DoqError.REQUEST_CANCELLED)
            visitor.transmit()
            assert (await visitor.answered(stream_id)).reset == DoqError.REQUEST_CANCELLED
            d.answerer.release()
            assert await is_served(visitor)

    play(story())


def test_a_connection_that_was_closed_frees_its_place_at_once() -> None:
    """Nothing is kept to say it again (RFC 9000 §10.2); a stateless reset does that."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit()
            visitor.send(b"")
            await condition(lambda: visitor.quic._close_event is not None)
            assert len(d.server) == len(d.places) == 0
            visitor = await d.visit()
            visitor.quic.close()
            visitor.transmit()
            await condition(lambda: not d.server.connections)
            assert visitor.terminated is None

    play(story())


def test_what_came_with_a_fault_is_not_asked() -> None:
    """Nobody would hear the answer."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit()
            first = visitor.quic.get_next_available_stream_id()
            for n, octets in enumerate((b"\0", *[len(WWW).to_bytes(2, "big") + WWW] * 5)):
                visitor.quic.send_stream_data(first + 4 * n, octets, True)
            visitor.transmit()
            assert await visitor.closed() == DoqError.PROTOCOL_ERROR
            assert not d.answerer.seen

    play(story())
