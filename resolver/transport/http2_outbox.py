"""What goes out over one connection of HTTP/2: frames, gathered to be written at once, and answers that have to wait.

An answer's content may go as far as the client opened its windows, that of the stream and that of the connection
(RFC 9113 §5.2). What is larger than they are waits here, and goes on as they open.
"""

from resolver.transport.desk import Fields, Line
from resolver.transport.doh import Refusal
from resolver.transport.http2_frames import (
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_OCTETS,
    HEADER_OCTETS,
    MAX_WINDOW,
    Code,
    ConnectionFault,
    Frame,
    start,
)
from resolver.transport.http2_heads import EMPTY_TABLE, ReplyHeads

FLUSH_OCTETS = 128 * 1024  # written in one turn, but for the last answer


class _Sending:
    """An answer that waits."""

    __slots__ = ("body", "window")

    def __init__(self, body: bytes, window: int) -> None:
        self.body = memoryview(body)
        self.window = window


class Outbox:
    """What one connection sends."""

    def __init__(self, heads: ReplyHeads, line: Line) -> None:
        """Begin with the windows that every connection begins with.

        Args:
            heads: The heads of replies.
            line: The connection below.
        """
        self._heads = heads
        self._line = line
        self._sending: dict[int, _Sending] = {}
        self._credit: dict[int, int] = {}  # what the client added to the windows of streams not yet answered
        self._window = DEFAULT_WINDOW
        self._stream_window = DEFAULT_WINDOW  # of each stream, in the beginning
        self._out: list[bytes | memoryview] = []
        self._octets = 0
        self._first_block = True
        self.progressed = False  # an answer went out since whoever asks last put it back

    def __len__(self) -> int:
        """How many answers wait for the client's windows."""
        return len(self._sending)

    def __contains__(self, stream: int) -> bool:
        return stream in self._sending

    @property
    def owed(self) -> int:
        """Octets of these answers."""
        return sum(len(sending.body) for sending in self._sending.values()) if self._sending else 0

    @property
    def is_full(self) -> bool:
        """Whether so much was gathered that it is time to write it."""
        return self._octets >= FLUSH_OCTETS

    def emit(self, kind: Frame, flags: int, stream: int, payload: bytes | memoryview) -> None:
        """Add a frame."""
        self._out += (start(len(payload), kind, flags), stream.to_bytes(4, "big"), payload)
        self._octets += HEADER_OCTETS + len(payload)

    def flush(self) -> None:
        """Write what was gathered."""
        if self._out:
            octets = b"".join(self._out)
            self._out.clear()
            self._octets = 0
            self._line.write(octets)

    def reply(self, stream: int, reply: bytes) -> None:
        """Send a DNS message."""
        self.progressed = True
        octets = len(reply)
        if (
            octets > self._window
            or octets > self._stream_window
            or octets > FRAME_OCTETS
            or self._sending
            or self._credit
            or self._first_block
        ):
            self._respond(stream, self._heads.block(reply), reply)
            return
        self._window -= octets
        number = stream.to_bytes(4, "big")
        before, between = self._heads.of(reply)
        self._out += (before, number, between, number, reply)
        self._octets += octets + len(between) + 2 * HEADER_OCTETS

    def page(self, stream: int, fields: Fields, content: bytes) -> None:
        """Send a page."""
        self.progressed = True
        self._respond(stream, self._heads.encode(200, fields), content)

    def refuse(self, stream: int, refusal: Refusal) -> None:
        """Send a refusal."""
        self._credit.pop(stream, None)
        self._head(stream, END_STREAM, self._heads.refusal(refusal))

    def drop(self, stream: int) -> None:
        """Send nothing more of a stream."""
        self._sending.pop(stream, None)
        self._credit.pop(stream, None)

    def resize(self, window: int) -> None:
        """Change the windows of all streams (RFC 9113 §6.9.2).

        Raises:
            ConnectionFault: One would run over.
        """
        if window > MAX_WINDOW or any(window + more > MAX_WINDOW for more in self._credit.values()):
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR)
        change = window - self._stream_window
        self._stream_window = window
        for sending in self._sending.values():
            sending.window += change
            if sending.window > MAX_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR)

    def open(self, more: int) -> None:
        """Open the connection's window.

        Raises:
            ConnectionFault: It runs over.
        """
        self._window += more
        if self._window > MAX_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR)

    def open_stream(self, stream: int, more: int) -> bool:
        """Open the window of a stream that is answered, or will be; whether it did not run over."""
        sending = self._sending.get(stream)
        if sending is None:
            self._credit[stream] = self._credit.get(stream, 0) + more
            return self._stream_window + self._credit[stream] <= MAX_WINDOW
        sending.window += more
        return sending.window <= MAX_WINDOW

    def pump(self) -> None:
        """Send what the client's windows allow, the answer that is ready longest first."""
        if self._window <= 0:
            return
        for stream, sending in list(self._sending.items()):
            while sending.body and not self._line.is_blocked:
                octets = min(len(sending.body), sending.window, self._window, FRAME_OCTETS)
                if octets <= 0:
                    break
                piece, sending.body = sending.body[:octets], sending.body[octets:]
                sending.window -= octets
                self._window -= octets
                self.emit(Frame.DATA, 0 if sending.body else END_STREAM, stream, piece)
                if self.is_full:
                    self.flush()
            if not sending.body:
                del self._sending[stream]
                self.progressed = True

    def _respond(self, stream: int, block: bytes, content: bytes) -> None:
        """Send a head and content, as far as the client's windows go."""
        window = self._stream_window + self._credit.pop(stream, 0)
        self._head(stream, 0 if content else END_STREAM, block)
        if content:
            self._sending[stream] = _Sending(content, window)
            self.pump()

    def _head(self, stream: int, flags: int, block: bytes) -> None:
        if self._first_block:
            self._first_block = False
            block = EMPTY_TABLE + block
        self.emit(Frame.HEADERS, END_HEADERS | flags, stream, block)
