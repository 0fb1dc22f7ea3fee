"""DNS over QUIC as it is spoken (RFC 9250): one query a stream, one reply on it.

What a client must not do ends the connection with DOQ_PROTOCOL_ERROR (RFC 9250 §4.3.3): a message id other than 0, a
stream that ends before its message does, octets after it, a unidirectional stream, the option edns-tcp-keepalive
(RFC 9250 §5.5.2). So does what is no query at all: an empty stream, a message without a header, a response.

A query is looked at once its stream has ended (RFC 9250 §4.2 lets a server wait for that), so a client that leaves the
end out gets no answer, and in the end no connection: its idle time runs.
"""

from enum import IntEnum
from typing import Final

from aioquic.quic.connection import stream_is_unidirectional
from aioquic.quic.events import QuicEvent, StopSendingReceived, StreamDataReceived, StreamReset

from resolver.hot import _scan_cy as scan
from resolver.policy.client import Client
from resolver.transport.bounded import BoundedQuic, House
from resolver.wire.codes import EdnsOption
from resolver.wire.message import HEADER_OCTETS

ALPN: Final = "doq"  # RFC 9250 §4.1
STREAM_OCTETS: Final = 65_537  # two of length and the longest message (RFC 9250 §4.6)
ONE_WAY_STREAMS: Final = 1  # so that who opens one can be told what is wrong with it


class DoqError(IntEnum):
    """RFC 9250 §8.4."""

    NO_ERROR = 0x0
    INTERNAL_ERROR = 0x1
    PROTOCOL_ERROR = 0x2
    REQUEST_CANCELLED = 0x3
    EXCESSIVE_LOAD = 0x4


class Doq:
    """What is said over one connection."""

    no_error: int = DoqError.NO_ERROR
    excessive_load: int = DoqError.EXCESSIVE_LOAD

    def __init__(self, quic: BoundedQuic, house: House, client: Client) -> None:
        """Begin.

        Args:
            quic: The connection, its handshake done.
            house: Where queries are answered.
            client: Who is at the other end.
        """
        self._quic = quic
        self._house = house
        self._client = client
        self._begun: dict[int, bytearray | None] = {}  # what came of a query so far; None: it is not wanted any more
        self._leaving = False

    def handle(self, event: QuicEvent) -> None:
        """Take what came on a stream."""
        if isinstance(event, StreamDataReceived):
            self._read(event.stream_id, event.data, event.end_stream)
        elif isinstance(event, StreamReset):
            # The query will never be whole: it is abandoned, and that is said (RFC 9250 §4.3.1).
            self._begun.pop(event.stream_id, None)
            self._house.cancel(event.stream_id)
            if not stream_is_unidirectional(event.stream_id):
                self._quic.reset_stream(event.stream_id, DoqError.REQUEST_CANCELLED)
        elif isinstance(event, StopSendingReceived):
            # The library has already answered with a RESET_STREAM (RFC 9000 §3.5). If the query has not ended yet, the
            # rest of it may still come, and is not read.
            if event.stream_id in self._begun:
                self._begun[event.stream_id] = None
            self._house.cancel(event.stream_id)

    def reply(self, stream_id: int, reply: bytes | None) -> None:
        """Send a reply, and the end of the stream with it.

        Without one the stream is reset. A client is owed an end to each query, or it would run out of streams; and of
        the codes that a stream may end with, DOQ_INTERNAL_ERROR alone says that no reply will come, and asks of the
        client to drop the query (RFC 9250 §4.3.2), not to stop asking.
        """
        if reply is None:
            self._quic.reset_stream(stream_id, DoqError.INTERNAL_ERROR)
        else:
            self._quic.finish_stream(stream_id, len(reply).to_bytes(2, "big") + reply)

    def farewell(self) -> None:
        """Answer no further queries; DNS over QUIC has no word for this but the end of the connection."""
        self._leaving = True

    def _read(self, stream_id: int, data: bytes, ended: bool) -> None:
        if stream_is_unidirectional(stream_id):
            self._protest("a unidirectional stream")
            return
        begun = self._begun.get(stream_id)
        if begun is None:
            if stream_id in self._begun:  # cancelled
                if ended:
                    del self._begun[stream_id]
                return
            if not ended:
                begun = self._begun[stream_id] = bytearray()
        if begun is not None:
            begun += data
            if not ended:
                if len(begun) > 2 and len(begun) - 2 > (begun[0] << 8 | begun[1]):
                    self._protest("octets after the query")
                return
            del self._begun[stream_id]
            data = bytes(begun)
        fault = _fault_of(data)
        if fault is not None:
            self._protest(fault)
        elif self._leaving:
            # Nobody looked at it. It ends with no error to signal (RFC 9250 §4.3), as the connection soon will.
            self._quic.reset_stream(stream_id, DoqError.NO_ERROR)
        else:
            self._house.ask(stream_id, data[2:], self._client)

    def _protest(self, fault: str) -> None:
        self._quic.close(DoqError.PROTOCOL_ERROR, reason_phrase=fault)


def _fault_of(stream: bytes) -> str | None:
    """What is wrong with the octets of a whole stream, if anything."""
    octets = len(stream) - 2
    if octets < HEADER_OCTETS:
        return "no query on the stream"
    told = stream[0] << 8 | stream[1]
    if told != octets:
        return "the stream ended before the query" if told > octets else "octets after the query"
    if stream[2] | stream[3]:
        return "a message id other than 0"
    if stream[4] & 0x80:
        return "a response"
    message = stream[2:]
    _, _, opt = scan.scan_query(message)
    if opt and _has_keepalive(message, opt + 10, opt + 10 + (message[opt + 8] << 8 | message[opt + 9])):
        return "edns-tcp-keepalive"
    return None


def _has_keepalive(message: bytes, start: int, end: int) -> bool:
    i = start
    end = min(end, len(message))
    while i + 4 <= end:
        if message[i] << 8 | message[i + 1] == EdnsOption.KEEPALIVE:
            return True
        i += 4 + (message[i + 2] << 8 | message[i + 3])
    return False
