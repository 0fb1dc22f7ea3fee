"""QUIC connections that can not be made to hold more than their share, and what is spoken over them.

The library (aioquic) keeps the state of a connection and does no I/O. What its server side leaves open is closed here,
in one class, since all of it reaches under the library's public surface; each has a test that fails if a later version
no longer heeds it:

- Streams. The library always grants 128 of each kind, and lets the octets of a stream and of a connection double as
  they are used, with gaps counted as use: some thirty datagrams make it set aside gigabytes. Here a stream keeps the
  limit that it began with, and what has come but is not yet whole is bounded for all streams of a connection together.
- Handshake messages. Half a megabyte may lie waiting for a missing octet; here as much as a ClientHello needs.
- Early data (0-RTT). The library offers it with every ticket and takes it from whoever sends it. A query in early data
  could be replayed (RFC 9250 §4.5, RFC 8446 §8), so no ticket of ours allows it, and who sends it all the same gets no
  resumption: that handshake is a full one, and the early data are not read (RFC 8446 §4.2.10).
- Names. The name that a client calls us by (RFC 6066 §3) is read from its hello and nowhere kept; here it is.
- Acknowledgements wait for their own timer even where a packet leaves before; here they go along with it.
- Replies. What is said on a stream whose end the client has just refused is dropped; the library would raise.
- Stateless resets (RFC 9000 §10.3). The library's tokens are random; ours follow from the connection id, so a worker
  that took the place of one that died can say that its connections are gone.
- Migration. Workers share a port by address and port of the client, so a client that moves would reach another worker;
  it is told not to (`disable_active_migration`, RFC 9000 §18.2).

Bounded by the library: connection ids of the peer (8), those it has to retire (100), network paths (8) and challenges
on each (32), ranges of packet numbers (64), octets sent to an address before it is validated (3 for each received).

Client certificates: the library can ask for them, but only for its own tests, and it checks no chain. So over QUIC
nobody is asked for one.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from aioquic import tls
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import END_STATES, Limit, QuicConnection, QuicConnectionState
from aioquic.quic.events import QuicEvent
from aioquic.quic.packet import QuicFrameType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from resolver.policy.client import Client

TICKETS: Final = 1024  # of one worker; the oldest go first, and who shows one of those makes a full handshake
HELLO_OCTETS: Final = 16 * 1024  # a ClientHello with post-quantum keys has some 2 KiB
UNREAD_OCTETS: Final = 256 * 1024  # of a connection, that have come with gaps before them
LOOK_OCTETS: Final = 32 * 1024  # after so many more it is counted what lies there
ONE_WAY_OCTETS: Final = 16 * 1024 * 1024  # on a client's unidirectional stream, in its life; HTTP/3 uses some bytes
ACK_SECONDS: Final = (
    0.01  # for a packet to leave that takes the acknowledgement along; the limit is 0.025 (max_ack_delay)
)

_DISABLE_ACTIVE_MIGRATION = b"\x0c\x00"  # RFC 9000 §18.2: id 0x0c, no value


class Speaker(Protocol):
    """What is spoken over a connection: DNS (RFC 9250), or HTTP/3 (RFC 9114)."""

    no_error: int
    excessive_load: int

    def handle(self, event: QuicEvent) -> None:
        """Take what came on a stream."""
        ...

    def reply(self, stream_id: int, reply: bytes | None) -> None:
        """Send the answer to a stream's query; None: end the stream without one."""
        ...

    def farewell(self) -> None:
        """Answer no further queries, and say so if there are words for that."""
        ...


class House(Protocol):
    """What a speaker needs of the connection it speaks over."""

    def ask(self, stream_id: int, packet: bytes, client: Client) -> None:
        """Have a query answered; the speaker's `reply` is called, maybe before this returns."""
        ...

    def cancel(self, stream_id: int) -> None:
        """Forget a query: the client wants no answer any more."""
        ...


class Tickets:
    """Sessions that clients may resume (RFC 8446 §2.2), of one worker."""

    def __init__(self) -> None:
        self._tickets: OrderedDict[bytes, tls.SessionTicket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tickets)

    def keep(self, ticket: tls.SessionTicket) -> None:
        """Keep a session, if need be in the place of the oldest."""
        if len(self._tickets) >= TICKETS:
            self._tickets.popitem(last=False)
        self._tickets[ticket.ticket] = ticket

    def find(self, label: bytes) -> tls.SessionTicket | None:
        """The session that a client shows the ticket of, if it is known."""
        return self._tickets.get(label)


class BoundedQuic(QuicConnection):
    """The server's end of a connection."""

    server_name: str | None = None  # that the client called us by, in lower case

    def __init__(
        self,
        configuration: QuicConfiguration,
        tickets: Tickets,
        reset_token: Callable[[bytes], bytes],
        original_destination: bytes,
        retry_source: bytes | None,
        streams: int,
        one_way_streams: int,
    ) -> None:
        """Begin a connection.

        Args:
            configuration: Of the socket that it comes by.
            tickets: Sessions of the worker.
            reset_token: 16 octets for a connection id of ours.
            original_destination: The connection id that the client first chose.
            retry_source: The one that a Retry packet gave it, if there was one.
            streams: That the client may have open at once, both ways.
            one_way_streams: And one way.
        """
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_destination,
            retry_source_connection_id=retry_source,
            session_ticket_fetcher=tickets.find,
            session_ticket_handler=tickets.keep,
        )
        self._local_max_streams_bidi = Limit(QuicFrameType.MAX_STREAMS_BIDI, "max_streams_bidi", streams)
        self._local_max_streams_uni = Limit(QuicFrameType.MAX_STREAMS_UNI, "max_streams_uni", one_way_streams)
        self._ack_delay = ACK_SECONDS
        self._reset_token = reset_token
        self._host_cids[0].stateless_reset_token = reset_token(self.host_cid)
        self._used_when_looked = 0

    @property
    def has_begun(self) -> bool:
        """Whether a packet of the client's could be read."""
        return self._state is not QuicConnectionState.FIRSTFLIGHT

    @property
    def is_ending(self) -> bool:
        """Whether it was decided to close it."""
        return self._close_event is not None

    @property
    def is_over(self) -> bool:
        """Whether either side has closed it."""
        return self._state in END_STATES

    @property
    def holds_too_much(self) -> bool:
        """Whether more octets lie waiting for missing ones than a client has reason for; asked after each datagram."""
        for crypto in self._crypto_streams.values():
            if len(crypto.receiver._buffer) > HELLO_OCTETS:
                return True
        if self._local_max_data.used - self._used_when_looked < LOOK_OCTETS:
            return False
        self._used_when_looked = self._local_max_data.used
        return sum(len(stream.receiver._buffer) for stream in self._streams.values()) > UNREAD_OCTETS

    @property
    def unacknowledged_octets(self) -> int:
        """How much of what was said on streams the client has not acknowledged."""
        return sum(len(stream.sender._buffer) for stream in self._streams.values())

    @property
    def is_held_back(self) -> bool:
        """Whether there is something to say on a stream that could not leave yet."""
        return any(not stream.sender.buffer_is_empty for stream in self._streams_queue)

    def finish_stream(self, stream_id: int, octets: bytes) -> None:
        """Say octets on a stream, and its end; nothing where the client wants to hear no more."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.sender._reset_error_code is None:
            self.send_stream_data(stream_id, octets, end_stream=True)

    def acknowledge_with_next(self, now: float) -> None:
        """Let the packet that leaves next take the acknowledgement along that is owed."""
        space = self._spaces.get(tls.Epoch.ONE_RTT)
        if space is not None and space.ack_at is not None:
            space.ack_at = now

    def let_go(self) -> None:
        """Be of no more use: drop what the library's objects know of each other."""
        if hasattr(self, "tls"):
            vars(self.tls).clear()
        vars(self).clear()

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls._max_early_data = None
        handle_hello = self.tls._server_handle_hello

        def look_at_hello(input_buf: Buffer, initial_buf: Buffer, handshake_buf: Buffer) -> None:
            start = input_buf.tell()
            hello = tls.pull_client_hello(input_buf)
            input_buf.seek(start)
            if hello.server_name is not None:
                self.server_name = hello.server_name.lower()
            if hello.early_data:
                self.tls.get_session_ticket_cb = None
            handle_hello(input_buf, initial_buf, handshake_buf)

        self.tls._server_handle_hello = look_at_hello  # type: ignore[method-assign]

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        if (
            (stream.stream_id or 0) & 2  # one way (RFC 9000 §2.1)
            and not stream.receiver._buffer
            and stream.max_stream_data_local < ONE_WAY_OCTETS
        ):
            super()._write_stream_limits(builder, space, stream)

    def _replenish_connection_ids(self) -> None:
        super()._replenish_connection_ids()
        for connection_id in self._host_cids:
            if not connection_id.was_sent:
                connection_id.stateless_reset_token = self._reset_token(connection_id.cid)

    def _serialize_transport_parameters(self) -> bytes:
        return super()._serialize_transport_parameters() + _DISABLE_ACTIVE_MIGRATION
