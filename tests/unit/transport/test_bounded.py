"""What a QUIC connection can be made to hold: each limit that stands in front of the library, met by a client."""

from dataclasses import replace

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.packet import QuicErrorCode, pull_quic_transport_parameters
from aioquic.tls import Epoch, ExtensionType, SessionTicket

from resolver.transport.bounded import HELLO_OCTETS, TICKETS, UNREAD_OCTETS, Tickets
from resolver.transport.connection import QuicTerms
from resolver.transport.doq import STREAM_OCTETS, DoqError
from tests.support.answerer import reply_to
from tests.support.house import ask
from tests.support.quic import Visitor, condition, doors, play

WWW = ask("www.example.org", message_id=0)
LATER = ask("later.example.org", message_id=0)


async def ticket_of(visitor: Visitor) -> SessionTicket:
    await condition(lambda: bool(visitor.tickets))
    return visitor.tickets[0]


def test_a_session_is_resumed_without_early_data() -> None:
    """RFC 9001 §4.5: by ticket; none of them allows early data (RFC 8446 §4.6.1)."""

    async def story() -> None:
        async with doors() as d:
            ticket = await ticket_of(await d.visit())
            assert ticket.max_early_data_size is None
            again = await d.visit(session_ticket=ticket)
            assert again.completed is not None
            assert again.completed.session_resumed
            assert not again.completed.early_data_accepted
            await again.answered(again.ask(WWW))
            client = d.answerer.seen[0][1]
            assert client.credentials is not None
            assert client.credentials.server_name == "dns.example.org"  # said anew in each handshake

    play(story())


def test_early_data_that_nobody_allowed_are_not_read() -> None:
    """A replay would else be a query (RFC 9250 §4.5). The handshake is a full one, and the query is asked again."""

    async def story() -> None:
        async with doors() as d:
            ticket = replace(await ticket_of(await d.visit()), max_early_data_size=0xFFFFFFFF)
            replayer = await d.visit(session_ticket=ticket, deaf=True)
            replayer.ask(WWW)
            await condition(lambda: d.server.half_open == 1 and replayer.datagrams > 0)
            other = await d.visit()
            await other.answered(other.ask(WWW))
            assert len(d.answerer.seen) == 1
            again = await d.visit(session_ticket=ticket, wait=False)
            stream_id = again.ask(WWW)
            assert (await again.answered(stream_id)).ended
            assert again.completed is not None
            assert not again.completed.session_resumed
            assert not again.completed.early_data_accepted
            assert len(d.answerer.seen) == 2

    play(story())


def test_tickets_are_kept_up_to_a_bound() -> None:
    """The oldest go first."""
    tickets = Tickets()
    made = [SessionTicket(0, None, None, None, b"", "", b"%d" % n) for n in range(TICKETS + 1)]  # type: ignore[arg-type]
    for ticket in made:
        tickets.keep(ticket)
    assert len(tickets) == TICKETS
    assert tickets.find(b"0") is None
    assert tickets.find(b"1") is made[1]


def test_a_stream_with_a_gap_makes_its_limit_grow_by_nothing() -> None:
    """The library would double it each time, and set aside the octets between."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit()
            stream_id = visitor.send(b"\0", end=False)
            visitor.leap(visitor.quic._streams[stream_id].sender, STREAM_OCTETS - 1)
            for _ in range(5):
                assert (await visitor.answered(visitor.ask(WWW))).ended
            assert visitor.quic._streams[stream_id].max_stream_data_remote == STREAM_OCTETS
            assert visitor.terminated is None

    play(story())


def test_streams_with_gaps_end_the_connection_when_they_hold_too_much_together() -> None:
    """What lies there is bounded for all streams of a connection."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit()
            for _ in range(UNREAD_OCTETS // STREAM_OCTETS + 2):
                stream_id = visitor.send(b"\0", end=False)
                visitor.leap(visitor.quic._streams[stream_id].sender, STREAM_OCTETS - 1)
                await condition(
                    lambda: visitor.quic._remote_max_data > visitor.quic._remote_max_data_used + STREAM_OCTETS
                )
            assert await visitor.closed() == DoqError.EXCESSIVE_LOAD

    play(story())


def test_long_streams_one_after_the_other_are_no_load() -> None:
    """Only what is not yet whole counts."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit()
            for n in range(UNREAD_OCTETS // 60_000 + 3):
                visitor.ask(ask("never.example.org", message_id=0, edns=False).ljust(60_000, b"\0"))
                await condition(lambda n=n: len(d.answerer.seen) == n + 1)
            assert visitor.terminated is None

    play(story())


@pytest.mark.parametrize("epoch", [Epoch.INITIAL, Epoch.ONE_RTT])
def test_handshake_messages_with_a_gap_end_the_connection(epoch: Epoch) -> None:
    """A hello has no sixteen thousand octets."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit(deaf=epoch is Epoch.INITIAL)
            if epoch is Epoch.INITIAL:
                await condition(lambda: d.server.half_open == 1)
            visitor.leap(visitor.quic._crypto_streams[epoch].sender, HELLO_OCTETS + 5_000)
            await condition(lambda: len(d.server) == 0)

    play(story())


def test_a_client_has_so_many_streams_at_once_and_gets_more_as_they_end() -> None:
    """RFC 9000 §4.6; the library would always grant 128."""

    async def story() -> None:
        async with doors(QuicTerms(in_flight=7)) as d:
            visitor = await d.visit()
            ids = [visitor.ask(LATER) for _ in range(20)]
            await condition(lambda: len(d.answerer.waiting) == 7)
            while not all(visitor.stream(stream_id).is_over for stream_id in ids):
                assert len(d.answerer.waiting) <= 7
                d.answerer.release()
                await condition(lambda: bool(d.answerer.waiting) or all(visitor.stream(i).is_over for i in ids))
            assert len(d.answerer.seen) == 20

    play(story())


def test_who_opens_more_streams_than_granted_is_sent_away() -> None:
    """RFC 9000 §4.6: STREAM_LIMIT_ERROR."""

    async def story() -> int:
        async with doors(QuicTerms(in_flight=7)) as d:
            visitor = await d.visit()
            visitor.quic._remote_max_streams_bidi = 100
            visitor.ask(LATER)
            for _ in range(7):
                visitor.ask(LATER)
            return await visitor.closed()

    assert play(story()) == QuicErrorCode.STREAM_LIMIT_ERROR


def test_a_reply_takes_the_acknowledgement_along() -> None:
    """One datagram a query, not two."""

    async def story() -> int:
        async with doors() as d:
            visitor = await d.visit()
            await visitor.answered(visitor.ask(WWW))
            before = visitor.datagrams
            for _ in range(50):
                assert (await visitor.answered(visitor.ask(WWW))).octets[2:] == reply_to(WWW)
            return visitor.datagrams - before

    assert play(story()) <= 60  # and now and then one that grants more streams


def test_a_client_is_told_not_to_move() -> None:
    """RFC 9000 §18.2: disable_active_migration; the rest of the parameters stays readable."""

    async def story() -> None:
        async with doors(QuicTerms(in_flight=7, idle_timeout=9.0)) as d:
            visitor = await d.visit()
            extensions = dict(visitor.quic.tls.received_extensions)
            told = pull_quic_transport_parameters(Buffer(data=extensions[ExtensionType.QUIC_TRANSPORT_PARAMETERS]))
            assert told.disable_active_migration
            assert told.initial_max_streams_bidi == 7
            assert told.initial_max_streams_uni == 1
            assert told.initial_max_stream_data_bidi_remote == STREAM_OCTETS
            assert told.max_idle_timeout == 9000
            assert told.max_datagram_frame_size is None

    play(story())
