"""Queries to one upstream over HTTPS (RFC 8484), by HTTP/2: a POST on a stream of its own for each.

How connections are kept, shared and given up: `secure.py`. An upstream with HTTP/1.1 alone is not asked: one query at a
time on a connection is what the other transports are better at (RFC 8484 §5.2 has HTTP/2 as the minimum).
"""

import contextlib
from dataclasses import dataclass

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import H2Error, StreamClosedError
from h2.settings import SettingCodes, Settings

from resolver.transport.secure import BLOCK_OCTETS, FULL, Asked, Connection, LostError, SecureExchange, padded

MOST_OCTETS = 65535
FRAME_HEAD_OCTETS = 9  # RFC 9113 §4.1
LAST_STREAM = (1 << 31) - 1 - 2 * FULL  # streams are numbered up to 2^31-1 (RFC 9113 §5.1.1)
MEDIA_TYPE = b"application/dns-message"


class HttpsExchange(SecureExchange):
    """The way to one upstream by DNS over HTTPS."""

    # Open at a time on a connection: what the upstream said last, so that a new connection need not wait to be told.
    streams = FULL

    def make_connection(self) -> Connection:
        """A connection of HTTP/2."""
        return _HttpsConnection(self)


@dataclass(slots=True)
class _Response:
    """What has come of a response so far, and whose it is."""

    asked: Asked
    status: bytes = b""
    media_type: bytes = b""
    body: bytes = b""


class _HttpsConnection(Connection):
    """A stream of HTTP/2 for each message (RFC 8484 §4)."""

    def __init__(self, exchange: HttpsExchange) -> None:
        super().__init__(exchange)
        self._upstream = exchange
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._http.local_settings = Settings(client=True, initial_values={SettingCodes.ENABLE_PUSH: 0})
        self._responses: dict[int, _Response] = {}
        self._head_so_far = b""
        self._frame_left = 0
        self._head = [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", exchange.authority.encode()),
            (b":path", exchange.terms.path.partition("{")[0].encode()),
            (b"accept", MEDIA_TYPE),
            (b"content-type", MEDIA_TYPE),
        ]

    @property
    def most(self) -> int:
        return max(1, min(FULL, self._upstream.streams))

    def _begin(self) -> None:
        self._http.initiate_connection()

    def _read(self, data: bytes) -> None:
        if not self._is_framed(data):
            self.lose(ConnectionResetError("no proper HTTP/2: a frame is longer than allowed"))
            return
        try:
            for event in self._http.receive_data(data):
                self._happened(event)
        except H2Error as error:
            self.lose(ConnectionResetError(f"no proper HTTP/2: {str(error) or type(error).__name__}"))
        self._write()

    def _is_framed(self, data: bytes) -> bool:
        """Whether all frames are as short as they must be: the library looks only when it has the whole of one."""
        octets, at = self._head_so_far + data, self._frame_left
        while at + FRAME_HEAD_OCTETS <= len(octets):
            length = int.from_bytes(octets[at : at + 3], "big")
            if length > self._http.max_inbound_frame_size:
                return False
            at += FRAME_HEAD_OCTETS + length
        self._head_so_far, self._frame_left = octets[at:], max(at - len(octets), 0)
        return True

    def _has_room(self, asked: Asked) -> bool:
        octets = len(asked.query) + BLOCK_OCTETS + 8
        window = min(self._http.outbound_flow_control_window, self._http.remote_settings.initial_window_size)
        streams = min(self._upstream.streams, self._http.remote_settings.max_concurrent_streams)
        return len(self._waiting) < streams and window >= octets

    def _send(self, asked: Asked) -> None:
        asked.number = self._http.get_next_available_stream_id()
        if asked.number > LAST_STREAM:
            self._exchange.retire(self)
        asked.sent = b"\0\0" + padded(asked.query, keepalive=False)[2:]  # RFC 8484 §4.1
        self._waiting[asked.number] = asked
        self._responses[asked.number] = _Response(asked)
        self._http.send_headers(asked.number, [*self._head, (b"content-length", b"%d" % len(asked.sent))])
        self._http.send_data(asked.number, asked.sent, end_stream=True)

    def _ready(self) -> bytes:
        return self._http.data_to_send()

    def _give_up(self, number: int) -> None:
        self._responses.pop(number, None)
        if self.is_open:
            with contextlib.suppress(StreamClosedError):  # it has ended meanwhile
                self._http.reset_stream(number, ErrorCodes.CANCEL)
            self._write()

    def _happened(self, event: Event) -> None:
        match event:
            case RemoteSettingsChanged():
                self._upstream.streams = self._http.remote_settings.max_concurrent_streams
            case ResponseReceived(stream_id=number, headers=headers) if number in self._responses:
                said = {bytes(name): bytes(value) for name, value in headers}
                self._responses[number].status = said[b":status"]
                self._responses[number].media_type = said.get(b"content-type", b"").partition(b";")[0].strip().lower()
            case DataReceived(stream_id=number):
                self._http.acknowledge_received_data(event.flow_controlled_length, number)
                if number in self._responses:
                    self._responses[number].body += event.data
                    if len(self._responses[number].body) > MOST_OCTETS:
                        self._over(number, OSError(f"a response of more than {MOST_OCTETS} octets"))
                        self._give_up(number)
            case StreamEnded(stream_id=number) if number in self._responses:
                self._judge(self._responses.pop(number))
            case StreamReset(stream_id=number):
                refused = event.error_code == ErrorCodes.REFUSED_STREAM  # it was not looked at (RFC 9113 §8.7)
                self._over(number, LostError(f"the upstream reset the stream: {_code(event.error_code)}", refused))
            case ConnectionTerminated():
                # The library takes nothing more after a GOAWAY: what is under way is asked again elsewhere.
                again = self._has_answered or event.error_code == ErrorCodes.NO_ERROR
                self.lose(LostError(f"the upstream ended the connection: {_code(event.error_code)}", again))

    def _over(self, number: int, error: OSError) -> None:
        response = self._responses.pop(number, None)
        if response is not None:
            self._fail(response.asked, error)

    def _judge(self, response: _Response) -> None:
        asked = response.asked
        if not response.status.startswith(b"2"):  # RFC 8484 §4.2.1
            self._fail(asked, OSError(f"HTTP status {response.status.decode('ascii', 'replace')}"))
        elif response.media_type != MEDIA_TYPE:
            named = response.media_type.decode("ascii", "replace") or "none"
            self._fail(asked, OSError(f"media type {named} instead of {MEDIA_TYPE.decode()}"))
        else:
            error = self._take(asked, response.body)
            if error is not None:
                self._fail(asked, error)  # no other response comes on this stream


def _code(code: int | ErrorCodes | None) -> str:
    return code.name if isinstance(code, ErrorCodes) else f"code {code}"
