"""DNS over HTTP/3 as it is spoken: requests of RFC 8484 (`doh.py`, `desk.py` have their rules) over RFC 9114.

Frames and QPACK are the library's. What it leaves open is closed here: a malformed request ends its own stream with
H3_MESSAGE_ERROR, not the connection (RFC 9114 §4.1.2); the pseudo-header fields that it does not ask for have to be
there; the size of a field section is bounded, before it is unpacked and after; and no table of header fields is kept
for a client, on either side (QPACK_MAX_TABLE_CAPACITY 0, RFC 9204 §3.2.3), so no stream waits for another.
"""

from functools import lru_cache
from typing import Final

import pylsqpack
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import (
    ErrorCode,
    FrameType,
    H3Connection,
    H3Stream,
    MessageError,
    ProtocolError,
    Setting,
    encode_frame,
)
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived, WebTransportStreamDataReceived
from aioquic.quic.connection import stream_is_unidirectional
from aioquic.quic.events import QuicEvent, StopSendingReceived, StreamDataReceived, StreamReset

from resolver.transport.bounded import BoundedQuic, House
from resolver.transport.desk import FIELDS_TOO_LARGE, Asked, Desk
from resolver.transport.doh import (
    MESSAGE_OCTETS,
    NOT_ALLOWED,
    TOO_LARGE,
    Refusal,
    read_content,
    refusal_headers,
    reply_headers,
)

ALPN: Final = "h3"  # RFC 9114 §3.1
ONE_WAY_STREAMS: Final = 8  # RFC 9114 §6.2 wants three at least; some clients open one of a reserved type as well
FIELD_OCTETS: Final = 16 * 1024  # of a request's field section, counted as RFC 9114 §4.2.2 does; a padded GET has 2 KiB
PACKED_OCTETS: Final = 8 * 1024  # of the same as it comes
STREAM_OCTETS: Final = MESSAGE_OCTETS + 2 * PACKED_OCTETS  # the longest message, fields before and after it, frames


class Http3:
    """What is said over one connection."""

    no_error: int = ErrorCode.H3_NO_ERROR
    excessive_load: int = ErrorCode.H3_EXCESSIVE_LOAD

    def __init__(self, quic: BoundedQuic, house: House, desk: Desk) -> None:
        """Begin, with our settings.

        Args:
            quic: The connection, its handshake done.
            house: Where queries are answered.
            desk: What may be asked for, and by whom.
        """
        self._quic = quic
        self._house = house
        self._desk = desk
        self._terms = desk.terms.doh
        self._http = _Http(quic)
        self._begun: dict[int, tuple[Asked, bytearray]] = {}  # requests whose end has not come
        self._deaf: set[int] = set()  # streams that are answered or given up; what else comes on them is not read
        self._next_stream = 0  # the lowest that no request has come on
        self._last_stream: int | None = None  # from which on none is answered, once that was said

    def handle(self, event: QuicEvent) -> None:
        """Take what came on a stream."""
        if isinstance(event, StreamDataReceived):
            stream_id = event.stream_id
            if stream_id not in self._deaf:
                for happening in self._http.handle_event(event):
                    if stream_id not in self._deaf:
                        self._take(happening)
                if self._http.malformed is not None:
                    self._give_up(self._http.malformed, ErrorCode.H3_MESSAGE_ERROR, event.end_stream)
                    self._http.malformed = None
            if event.end_stream:
                self._deaf.discard(stream_id)
        elif isinstance(event, StreamReset):
            self._http.handle_event(event)
            if not stream_is_unidirectional(event.stream_id):
                # The request will never be whole (RFC 9114 §4.1).
                self._house.cancel(event.stream_id)
                self._give_up(event.stream_id, ErrorCode.H3_REQUEST_INCOMPLETE, ended=True)
        elif isinstance(event, StopSendingReceived):
            # The library has already answered with a RESET_STREAM (RFC 9000 §3.5). If the request has not ended yet,
            # the rest of it may still come, and is not read.
            if self._http.is_receiving(event.stream_id):
                self._deaf.add(event.stream_id)
            self._http.handle_event(event)
            self._http.forget(event.stream_id)
            self._begun.pop(event.stream_id, None)
            self._house.cancel(event.stream_id)

    def reply(self, stream_id: int, reply: bytes | None) -> None:
        """Send a reply, and the end of the stream with it.

        Without one the stream is reset: a server that chooses not to respond cancels the request (RFC 9114 §4.1.1).
        """
        if reply is None:
            self._give_up(stream_id, ErrorCode.H3_REQUEST_CANCELLED, ended=True)
            return
        self._say(stream_id, reply_headers(reply, self._terms), reply)

    def farewell(self) -> None:
        """Say which requests are still answered: those that have come (RFC 9114 §5.2)."""
        self._last_stream = self._next_stream
        self._http.send_goaway(self._last_stream)

    def _take(self, happening: H3Event) -> None:
        if isinstance(happening, HeadersReceived):
            if happening.stream_id in self._begun:  # trailer fields, which say nothing to us (RFC 9110 §6.5)
                if happening.stream_ended:
                    self._finish(happening.stream_id)
                return
            if self._last_stream is not None and happening.stream_id >= self._last_stream:
                # Nobody looked at it, so it may be asked again elsewhere (RFC 9114 §4.1.1).
                self._give_up(happening.stream_id, ErrorCode.H3_REQUEST_REJECTED, happening.stream_ended)
                return
            self._next_stream = max(self._next_stream, happening.stream_id + 4)
            self._begin(happening.stream_id, happening.headers, happening.stream_ended)
        elif isinstance(happening, DataReceived):
            begun = self._begun.get(happening.stream_id)
            if begun is None:
                return
            asked, content = begun
            if asked.message is None and asked.page is None:
                content += happening.data
                if len(content) > MESSAGE_OCTETS:
                    self._refuse(happening.stream_id, TOO_LARGE, happening.stream_ended)
                    return
            if happening.stream_ended:
                self._finish(happening.stream_id)
        elif isinstance(happening, WebTransportStreamDataReceived) and not stream_is_unidirectional(
            happening.stream_id
        ):
            # The library knows this protocol by its frame; we do not, and have not offered it.
            self._give_up(happening.stream_id, ErrorCode.H3_REQUEST_REJECTED, happening.stream_ended)

    def _begin(self, stream_id: int, headers: list[tuple[bytes, bytes]], ended: bool) -> None:
        if sum(len(name) + len(value) + 32 for name, value in headers) > FIELD_OCTETS:
            self._refuse(stream_id, FIELDS_TOO_LARGE, ended)
            return
        pseudo = {name: value for name, value in headers if name.startswith(b":")}
        method = pseudo[b":method"]
        if method == b"CONNECT":
            self._refuse(stream_id, NOT_ALLOWED, ended)
            return
        path = pseudo.get(b":path")
        if path is None or b":scheme" not in pseudo:  # RFC 9114 §4.3.1
            self._give_up(stream_id, ErrorCode.H3_MESSAGE_ERROR, ended)
            return
        asked = self._desk.read(method, path, headers[len(pseudo) :])
        if isinstance(asked, Refusal):
            self._refuse(stream_id, asked, ended)
            return
        self._begun[stream_id] = (asked, bytearray())
        if ended:
            self._finish(stream_id)

    def _finish(self, stream_id: int) -> None:
        asked, content = self._begun.pop(stream_id)
        if asked.page is not None:
            page = self._desk.page(asked)
            if isinstance(page, Refusal):
                self._refuse(stream_id, page, ended=True)
            else:
                self._say(stream_id, *page)
            return
        message = read_content(bytes(content)) if asked.message is None else asked.message
        if isinstance(message, Refusal):
            self._refuse(stream_id, message, ended=True)
        else:
            self._house.ask(stream_id, message, asked.client)

    def _say(self, stream_id: int, headers: list[tuple[bytes, bytes]], content: bytes) -> None:
        head = _packed((b":status", b"200"), *headers)
        self._quic.finish_stream(stream_id, head + encode_frame(FrameType.DATA, content))
        self._http.forget(stream_id)

    def _refuse(self, stream_id: int, refusal: Refusal, ended: bool) -> None:
        self._begun.pop(stream_id, None)
        head = _packed((b":status", b"%d" % refusal.status), *refusal_headers(refusal, self._terms))
        self._quic.finish_stream(stream_id, head)
        if ended:
            self._http.forget(stream_id)
        else:
            # The reply is whole; the rest of the request is not wanted, and that is no error (RFC 9114 §4.1).
            self._quic.stop_stream(stream_id, ErrorCode.H3_NO_ERROR)
            self._stop_reading(stream_id)

    def _give_up(self, stream_id: int, error: ErrorCode, ended: bool) -> None:
        self._begun.pop(stream_id, None)
        self._quic.reset_stream(stream_id, error)
        if not ended:
            self._quic.stop_stream(stream_id, error)
            self._stop_reading(stream_id)
        else:
            self._deaf.discard(stream_id)
            self._http.forget(stream_id)

    def _stop_reading(self, stream_id: int) -> None:
        self._deaf.add(stream_id)
        self._http.forget(stream_id)


@lru_cache(maxsize=1024)
def _packed(*headers: tuple[bytes, bytes]) -> bytes:
    """A HEADERS frame. With no table behind it, it is the same on every connection (RFC 9204 §4.5.1)."""
    _, section = pylsqpack.Encoder().encode(0, list(headers))
    return encode_frame(FrameType.HEADERS, section)


class _ExcessiveLoad(ProtocolError):
    error_code = ErrorCode.H3_EXCESSIVE_LOAD


class _Http(H3Connection):
    """The server's end of the library's HTTP/3."""

    def __init__(self, quic: BoundedQuic) -> None:
        super().__init__(quic)
        self._decoder = pylsqpack.Decoder(0, 0)
        self.malformed: int | None = None  # the stream of a request that was just found to be

    def send_goaway(self, stream_id: int) -> None:
        """Say that requests from this stream on will not be answered."""
        assert self._local_control_stream_id is not None
        frame = encode_frame(FrameType.GOAWAY, encode_uint_var(stream_id))
        self._quic.send_stream_data(self._local_control_stream_id, frame)

    def is_receiving(self, stream_id: int) -> bool:
        """Whether a request has begun to come and not ended."""
        stream = self._stream.get(stream_id)
        return stream is not None and not stream.receiving_ended

    def forget(self, stream_id: int) -> None:
        """Keep nothing of a stream of which nothing more is read or said."""
        self._stream.pop(stream_id, None)

    def _receive_stream_data(self, event: StreamDataReceived) -> list[H3Event]:
        stream_id = event.stream_id
        try:
            happenings = super()._receive_stream_data(event)
        except MessageError:
            if stream_is_unidirectional(stream_id):
                raise
            self.malformed = stream_id
            return []
        stream = self._stream.get(stream_id)
        if stream is not None and len(stream.buffer) > PACKED_OCTETS:  # a frame that is not yet whole
            raise _ExcessiveLoad("a frame too large")
        return happenings

    def _check_request_or_push_frame_type(self, frame_type: int, stream: H3Stream) -> None:
        super()._check_request_or_push_frame_type(frame_type, stream)
        if frame_type == FrameType.HEADERS and (stream.frame_size or 0) > PACKED_OCTETS:
            raise _ExcessiveLoad("a field section too large")

    def _get_local_settings(self) -> dict[int, int]:
        return {
            Setting.QPACK_MAX_TABLE_CAPACITY: 0,
            Setting.QPACK_BLOCKED_STREAMS: 0,
            Setting.MAX_FIELD_SECTION_SIZE: FIELD_OCTETS,
            Setting.DUMMY: 1,
        }

    def _validate_settings(self, settings: dict[int, int]) -> None:
        super()._validate_settings(settings)
        # How much of a table we keep for what we say is ours to choose, up to what the client allows (RFC 9204 §3.2.3).
        settings[Setting.QPACK_MAX_TABLE_CAPACITY] = 0
