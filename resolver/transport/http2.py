"""HTTP/2, the server's side (RFC 9113), as far as requests and their answers need it: octets in, octets out.

Frames are read here, header blocks in `http2_heads.py`, and what leaves is gathered in `http2_outbox.py`. Why that is
no library's: measured in one run, a POST of DoH costs 122 µs with h2, 18 µs with granian (which shows the application
no client certificate) and 6 µs here; `tests/bench/doh_engines.py` measures again.

Errors are of a stream (RST_STREAM) or of the connection (GOAWAY), as RFC 9113 §5.4 has them. Everything a client can
make us keep is bounded: streams, and answers under way of streams that were reset since, which count on; the octets of
a header block and of what it unpacks to; content not yet complete (the connection's window opens again only when a
request is complete); answers that wait for the client's window. Frames that bring no request forward add up, answered
requests and time take off; beyond a measure the connection ends with ENHANCE_YOUR_CALM. So do floods of PING, SETTINGS,
CONTINUATION and RST_STREAM end, and those of empty frames.
"""

import struct
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from resolver.transport.desk import HEAD_OCTETS, Asked, Desk, Line
from resolver.transport.doh import MESSAGE_OCTETS, TOO_LARGE, Refusal, read_content
from resolver.transport.http2_frames import (
    ACK,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_OCTETS,
    HEADER,
    HEADER_OCTETS,
    MAX_WINDOW,
    PADDED,
    PREFACE,
    WITH_PRIORITY,
    Code,
    ConnectionFault,
    Frame,
    Setting,
    unpadded,
)
from resolver.transport.http2_heads import ReplyHeads, RequestHeads, is_field
from resolver.transport.http2_outbox import Outbox

TURN = 64  # requests of one connection answered in one go
FRAMES_A_TURN = 8 * TURN
OWED_OCTETS = 256 * 1024  # of answers that wait for the client's window, before new requests are refused
BLOCK_OCTETS = HEAD_OCTETS  # the longest header block
BLOCK_FRAMES = 8  # that it may come in
SETTINGS_OCTETS = 6 * 64  # settings in one frame; some ten are defined
STREAM_WINDOW = 80 * 1024  # one message, and some padding
CONNECTION_WINDOW = 256 * 1024
RESET_STREAMS = 128  # that we ended, and of which frames may still be on their way
PATIENCE = 256  # frames that bring nothing forward
PATIENCE_A_SECOND = 32
CREDIT = 2  # what an answered request takes off

_DATA, _HEADERS, _CONTINUATION = (
    Frame.DATA.value,
    Frame.HEADERS.value,
    Frame.CONTINUATION.value,
)  # plain: compared often


class _Stream:
    """A request whose content is still to come."""

    __slots__ = ("asked", "content", "octets", "received", "used")

    def __init__(self, asked: Asked, octets: int | None) -> None:
        self.asked = asked
        self.octets = octets
        self.content: list[bytes] = []
        self.received = 0
        self.used = 0  # of the stream's window


class Http2:
    """One connection."""

    def __init__(self, desk: Desk, heads: ReplyHeads, line: Line) -> None:
        """Say hello.

        Args:
            desk: What may be asked.
            heads: The heads of replies.
            line: The connection below.
        """
        self._desk = desk
        self._outbox = Outbox(heads, line)
        self._line = line
        self._buffer = b""
        self._begun = False  # the client's preface has come
        self._settled = False  # so have its first settings
        self._requests = RequestHeads(desk)
        self._block: tuple[int, int, list[bytes]] | None = None  # stream, flags and pieces of a block that goes on
        self._last = 0  # the highest stream that the client opened
        self._streams: dict[int, _Stream] = {}
        self._waiting: set[int] = set()  # streams whose answer is under way
        self._under_way = 0  # answers under way, those of streams that were reset since among them
        self._gone: OrderedDict[int, None] = OrderedDict()  # streams that we ended
        self._room = CONNECTION_WINDOW  # what the client may send
        self._released = 0  # and what it may send again, once told
        self._annoyance = 0
        self._calm_at = line.now()
        self._working = False
        self._leaving = False
        self.has_more = False  # the turn is over, and there is more
        self.hangs_up = False
        self.lingers = False
        settings = (
            (Setting.MAX_CONCURRENT_STREAMS, desk.terms.in_flight),
            (Setting.INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (Setting.MAX_HEADER_LIST_SIZE, HEAD_OCTETS),
        )
        self._outbox.emit(Frame.SETTINGS, 0, 0, b"".join(struct.pack(">HL", *setting) for setting in settings))
        self._outbox.emit(Frame.WINDOW_UPDATE, 0, 0, (CONNECTION_WINDOW - DEFAULT_WINDOW).to_bytes(4, "big"))
        self._outbox.flush()

    @property
    def progressed(self) -> bool:
        """Whether something was answered since whoever asks last put it back."""
        return self._outbox.progressed

    @progressed.setter
    def progressed(self, is_so: bool) -> None:
        self._outbox.progressed = is_so

    @property
    def is_busy(self) -> bool:
        """Whether answers to whole requests are still to come."""
        return bool(self._waiting) or self.has_more

    @property
    def owes(self) -> bool:
        """Whether answers wait for the client to take them."""
        return bool(self._outbox)

    @property
    def is_full(self) -> bool:
        """Whether nothing more is to be read for now."""
        return False

    def receive(self, octets: bytes) -> None:
        """Take what came, and do a turn's work."""
        self._buffer = self._buffer + octets if self._buffer else octets
        if not self.has_more:
            self.work()

    def ended(self) -> None:
        """The client will send no more."""
        self._leaving = True
        self._part()

    def leave(self) -> None:
        """Take no new requests, and hang up when those under way are answered."""
        if not self._leaving:
            self._leaving = True
            self._goaway(Code.NO_ERROR)
            self._outbox.flush()
        self._part()

    def work(self) -> None:
        """Do a turn's work on what has come."""
        self.has_more = False
        if self.hangs_up:
            self._buffer = b""
            return
        self._working = True
        try:
            if self._begun or self._begin():
                self._frames()
        except ConnectionFault as fault:
            self._goaway(fault.code)
            self._buffer = b""
            self.hangs_up = True
        self._working = False
        self._outbox.flush()
        if self._leaving:
            self._part()

    def resume(self) -> None:
        """Go on sending: the client reads again."""
        self._outbox.pump()
        self._outbox.flush()
        self.work()

    def _part(self) -> None:
        if not self._waiting and not self._outbox and not self.has_more:
            self.hangs_up = True

    def _begin(self) -> bool:
        """Read the preface (RFC 9113 §3.4); whether it is there in whole."""
        if self._buffer.startswith(PREFACE):
            self._buffer = self._buffer[len(PREFACE) :]
            self._begun = True
        elif not PREFACE.startswith(self._buffer):
            raise ConnectionFault(Code.PROTOCOL_ERROR)
        return self._begun

    def _frames(self) -> None:
        buffer = self._buffer
        octets = len(buffer)
        at = taken = frames = 0
        unpack = HEADER.unpack_from
        while octets - at >= HEADER_OCTETS:
            high, low, kind, flags, stream = unpack(buffer, at)
            length = high << 8 | low
            if length > FRAME_OCTETS:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR)
            end = at + HEADER_OCTETS + length
            if end > octets:
                break
            if taken >= TURN or frames >= FRAMES_A_TURN:
                self.has_more = True
                break
            if self._line.is_blocked:
                break
            frames += 1
            payload = buffer[at + HEADER_OCTETS : end]
            at = end
            stream &= MAX_WINDOW  # the first bit is reserved
            if self._block is not None and (kind != _CONTINUATION or stream != self._block[0]):
                raise ConnectionFault(Code.PROTOCOL_ERROR)  # RFC 9113 §4.3
            if not self._settled:
                if kind != Frame.SETTINGS or flags & ACK:
                    raise ConnectionFault(Code.PROTOCOL_ERROR)
                self._settled = True
            if kind == _HEADERS:
                taken += self._headers(stream, flags, payload)
            elif kind == _DATA:
                taken += self._data(stream, flags, payload)
            elif kind == _CONTINUATION:
                taken += self._continuation(stream, flags, payload)
            else:
                self._annoy()
                read = _READERS.get(kind)  # others are ignored (RFC 9113 §5.5)
                if read is not None:
                    read(self, stream, flags, payload)
            if self._outbox.is_full:
                self.has_more = at < octets  # the loop has to send it before it can be seen whether the client reads
                break
        self._buffer = buffer[at:]

    # Frames

    def _headers(self, stream: int, flags: int, payload: bytes) -> int:
        if not stream & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR)  # stream 0, or one of ours
        if flags & PADDED:
            payload = unpadded(payload)
        if flags & WITH_PRIORITY:
            if len(payload) < 5:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR)
            payload = payload[5:]
        if not flags & END_HEADERS:
            self._block = (stream, flags, [payload])
            return 0
        return self._request(stream, flags, payload)

    def _continuation(self, stream: int, flags: int, payload: bytes) -> int:
        if self._block is None:
            raise ConnectionFault(Code.PROTOCOL_ERROR)
        _, first_flags, pieces = self._block
        pieces.append(payload)
        if len(pieces) > BLOCK_FRAMES or sum(map(len, pieces)) > BLOCK_OCTETS:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM)
        if not flags & END_HEADERS:
            return 0
        self._block = None
        return self._request(stream, first_flags, b"".join(pieces))

    def _request(self, stream: int, flags: int, block: bytes) -> int:
        """Take a whole header block; returns how many requests were answered by it."""
        if stream <= self._last:
            return self._late_block(stream, flags, block)
        self._last = stream
        head = self._requests.of(block)
        if (
            self._leaving
            or len(self._streams) + len(self._outbox) + self._under_way >= self._desk.terms.in_flight
            or self._outbox.owed > OWED_OCTETS
        ):
            self._annoy()
            self._reset(stream, Code.REFUSED_STREAM)
            return 0
        asked = head.asked
        if asked is None or (flags & END_STREAM and head.octets):
            self._annoy()
            self._reset(stream, Code.PROTOCOL_ERROR)
            return 0
        if flags & END_STREAM:
            if isinstance(asked, Refusal):
                self._annoy()
            self._ask(stream, asked, b"")
            return 1
        if isinstance(asked, Refusal):
            self._annoy()
            self._refuse_early(stream, asked)
            return 1
        self._streams[stream] = _Stream(asked, head.octets)
        return 0

    def _late_block(self, stream: int, flags: int, block: bytes) -> int:
        """A block on a stream that is open already: trailers (RFC 9113 §8.1), or an error."""
        fields = self._requests.fields(block)  # in any case, or the table would no longer be the client's
        self._annoy()
        if stream in self._gone:
            return 0
        request = self._streams.get(stream)
        if request is None:
            raise ConnectionFault(Code.STREAM_CLOSED)
        if not flags & END_STREAM or any(name.startswith(b":") or not is_field(name, value) for name, value in fields):
            self._reset(stream, Code.PROTOCOL_ERROR)
            return 0
        return self._complete(stream, request)

    def _data(self, stream: int, flags: int, payload: bytes) -> int:
        used = len(payload)
        self._room -= used
        if self._room < 0:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR)
        if flags & PADDED:
            payload = unpadded(payload)
        request = self._streams.get(stream)
        if request is None:
            if not stream or stream > self._last:
                raise ConnectionFault(Code.PROTOCOL_ERROR)
            if stream not in self._gone:
                raise ConnectionFault(Code.STREAM_CLOSED)
            self._annoy()
            self._release(used)
            return 0
        octets = len(payload)
        request.used += used
        if request.used > STREAM_WINDOW:
            self._release(used)
            self._reset(stream, Code.FLOW_CONTROL_ERROR)
            return 0
        request.received += octets
        if request.received > MESSAGE_OCTETS:
            self._release(used)
            self._refuse_early(stream, TOO_LARGE)
            return 1
        self._release(used - octets)
        request.content.append(payload)
        if flags & END_STREAM:
            return self._complete(stream, request)
        if octets < 256:
            self._annoy()
        return 0

    def _complete(self, stream: int, request: _Stream) -> int:
        del self._streams[stream]
        self._release(request.received)
        if request.octets is not None and request.octets != request.received:
            self._reset(stream, Code.PROTOCOL_ERROR)  # RFC 9113 §8.1.1
            return 0
        content = request.content
        self._ask(stream, request.asked, content[0] if len(content) == 1 else b"".join(content))
        return 1

    def _priority(self, stream: int, flags: int, payload: bytes) -> None:
        if not stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR)
        if len(payload) != 5:
            self._stream_fault(stream, Code.FRAME_SIZE_ERROR)

    def _rst_stream(self, stream: int, flags: int, payload: bytes) -> None:
        if not stream or stream > self._last:
            raise ConnectionFault(Code.PROTOCOL_ERROR)
        if len(payload) != 4:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR)
        self._forget(stream)
        self._gone.pop(stream, None)

    def _settings(self, stream: int, flags: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR)
        if len(payload) % 6 or (flags & ACK and payload):
            raise ConnectionFault(Code.FRAME_SIZE_ERROR)
        if flags & ACK:
            return
        if len(payload) > SETTINGS_OCTETS:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM)
        for name, value in struct.iter_unpack(">HL", payload):
            if name == Setting.ENABLE_PUSH and value > 1:
                raise ConnectionFault(Code.PROTOCOL_ERROR)
            if name == Setting.MAX_FRAME_SIZE and not FRAME_OCTETS <= value < 2**24:
                raise ConnectionFault(Code.PROTOCOL_ERROR)
            if name == Setting.INITIAL_WINDOW_SIZE:
                self._outbox.resize(value)
        self._outbox.emit(Frame.SETTINGS, ACK, 0, b"")
        self._outbox.pump()

    def _push_promise(self, stream: int, flags: int, payload: bytes) -> None:
        raise ConnectionFault(Code.PROTOCOL_ERROR)  # RFC 9113 §8.4: a client can not push

    def _ping(self, stream: int, flags: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR)
        if len(payload) != 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR)
        if not flags & ACK:
            self._outbox.emit(Frame.PING, ACK, 0, payload)

    def _client_leaves(self, stream: int, flags: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR)
        if len(payload) < 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR)
        if int.from_bytes(payload[4:8], "big") != Code.NO_ERROR:
            self._leaving = True

    def _window_update(self, stream: int, flags: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR)
        more = int.from_bytes(payload, "big") & MAX_WINDOW
        if not stream:
            if not more:
                raise ConnectionFault(Code.PROTOCOL_ERROR)
            self._outbox.open(more)
        elif stream > self._last or not stream & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR)  # idle (RFC 9113 §5.1)
        elif not more:
            self._stream_fault(stream, Code.PROTOCOL_ERROR)
            return
        elif self._is_open(stream) and not self._outbox.open_stream(stream, more):
            self._reset(stream, Code.FLOW_CONTROL_ERROR)
            return
        self._outbox.pump()

    # Answers

    def _ask(self, stream: int, asked: Asked | Refusal, content: bytes) -> None:
        """Answer a whole request."""
        if isinstance(asked, Refusal):
            self._outbox.refuse(stream, asked)
            return
        if asked.page is not None:
            page = self._desk.page(asked)
            if isinstance(page, Refusal):
                self._outbox.refuse(stream, page)
            else:
                self._outbox.page(stream, *page)
            return
        message = asked.message
        if message is None:
            read = read_content(content)
            if isinstance(read, Refusal):
                self._outbox.refuse(stream, read)
                return
            message = read
        self._under_way += 1
        self._waiting.add(stream)
        reply = self._desk.answer(message, asked.client, partial(self._later, stream))
        if reply is not None:
            self._answered(stream, reply)

    def _later(self, stream: int, reply: bytes | None) -> None:
        self._answered(stream, reply)
        if not self._working:
            self._outbox.flush()
            if self._leaving:
                self._part()
            self._line.settle()

    def _answered(self, stream: int, reply: bytes | None) -> None:
        self._under_way -= 1
        if stream not in self._waiting:
            return  # it was reset since
        self._waiting.discard(stream)
        self._annoyance -= CREDIT if self._annoyance > CREDIT else 0
        if reply is None:
            # Policy says: no answer. HTTP knows no silence on a connection that lives on; this is the nearest to it,
            # and REFUSED_STREAM would have the request sent again (RFC 9113 §8.7).
            self.progressed = True
            self._reset(stream, Code.CANCEL)
        else:
            self._outbox.reply(stream, reply)

    def _refuse_early(self, stream: int, refusal: Refusal) -> None:
        """Refuse a request whose content is still coming, and do without that (RFC 9113 §8.1)."""
        self._outbox.refuse(stream, refusal)
        self._reset(stream, Code.NO_ERROR)

    # Ends

    def _is_open(self, stream: int) -> bool:
        return stream in self._streams or stream in self._waiting or stream in self._outbox

    def _forget(self, stream: int) -> None:
        """Drop what there is of a stream; an answer under way goes on counting until it is there."""
        request = self._streams.pop(stream, None)
        if request is not None:
            self._release(request.received)
        self._waiting.discard(stream)
        self._outbox.drop(stream)

    def _reset(self, stream: int, code: Code) -> None:
        self._forget(stream)
        self._outbox.emit(Frame.RST_STREAM, 0, stream, code.to_bytes(4, "big"))
        self._gone[stream] = None
        if len(self._gone) > RESET_STREAMS:
            self._gone.popitem(last=False)

    def _stream_fault(self, stream: int, code: Code) -> None:
        """Reset a stream that is open; of one that is not, the error is the connection's if nothing is known of it."""
        if self._is_open(stream):
            self._reset(stream, code)
        elif stream > self._last:
            raise ConnectionFault(code)

    def _annoy(self) -> None:
        """Count a frame that brings no request forward."""
        self._annoyance += 1
        if self._annoyance > PATIENCE:
            now = self._line.now()
            self._annoyance = max(0, self._annoyance - int((now - self._calm_at) * PATIENCE_A_SECOND))
            self._calm_at = now
            if self._annoyance > PATIENCE:
                raise ConnectionFault(Code.ENHANCE_YOUR_CALM)

    def _release(self, octets: int) -> None:
        """Open the connection's window again."""
        self._released += octets
        if self._released >= CONNECTION_WINDOW // 4:
            self._outbox.emit(Frame.WINDOW_UPDATE, 0, 0, self._released.to_bytes(4, "big"))
            self._room += self._released
            self._released = 0

    def _goaway(self, code: Code) -> None:
        self._outbox.emit(Frame.GOAWAY, 0, 0, struct.pack(">LL", self._last, code))


_READERS: dict[int, Callable[[Http2, int, int, bytes], None]] = {
    Frame.PRIORITY: Http2._priority,
    Frame.RST_STREAM: Http2._rst_stream,
    Frame.SETTINGS: Http2._settings,
    Frame.PUSH_PROMISE: Http2._push_promise,
    Frame.PING: Http2._ping,
    Frame.GOAWAY: Http2._client_leaves,
    Frame.WINDOW_UPDATE: Http2._window_update,
}
