"""HTTP/2 without sockets: each rule of RFC 9113 by frames made by hand, sound conversations by the h2 library."""

import struct
from collections.abc import Iterable
from typing import NamedTuple

import h2.config
import h2.connection
import h2.events
import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.policy.client import Client, Transport
from resolver.transport.desk import Desk, HttpTerms
from resolver.transport.doh import DohTerms
from resolver.transport.http2 import CONNECTION_WINDOW, PATIENCE, STREAM_WINDOW, TURN, Http2
from resolver.transport.http2_frames import PREFACE, Code, Frame
from resolver.transport.http2_heads import ReplyHeads
from resolver.wire.message import WireError
from tests.support.answerer import FakeAnswerer, Later, reply_to
from tests.support.house import ask

WWW = ask("www.example.org")
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
POST = [
    (":method", "POST"), (":scheme", "https"), (":authority", "dns.example.org"), (":path", "/dns-query"),
    ("content-type", "application/dns-message"),
]  # fmt: skip


class Sent(NamedTuple):
    """A frame of the server's."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class Answerer(FakeAnswerer):
    """Has silence for what can not be read."""

    def answer(self, packet: bytes, client: Client, later: Later) -> bytes | None:
        try:
            return super().answer(packet, client, later)
        except WireError:
            later(None)
            return None


class Talk:
    """A client's end of a connection without sockets; it is the line below as well."""

    def __init__(self, terms: HttpTerms | None = None, *, large_octets: int = 60_000, greet: bool = True) -> None:
        self.answerer = Answerer(large_octets)
        self.clock = 100.0
        self.is_blocked = False
        self.octets = b""
        self.writes = 0
        self.settled = 0
        client = Client(bytes(4), bytes(28), Transport.DOH)
        desk = Desk(terms or HttpTerms(), self.answerer, client, lambda host, port: host.encode())
        self.server = Http2(desk, ReplyHeads((terms or HttpTerms()).doh), self)
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        if greet:
            self.send(PREFACE + frame(Frame.SETTINGS))
            self.take()

    def write(self, octets: bytes) -> None:
        self.octets += octets
        self.writes += 1

    def now(self) -> float:
        return self.clock

    def settle(self) -> None:
        self.settled += 1

    def send(self, *octets: bytes) -> None:
        """Let octets come in at once, and the server have all the turns that it wants."""
        if octets:
            self.server.receive(b"".join(octets))
        while self.server.has_more:
            self.server.work()

    def take(self) -> list[Sent]:
        """The frames that the server sent since."""
        frames = []
        while self.octets:
            high, low, kind, flags, stream = struct.unpack_from(">HBBBL", self.octets)
            end = 9 + (high << 8 | low)
            frames.append(Sent(kind, flags, stream, self.octets[9:end]))
            self.octets = self.octets[end:]
        return frames

    def block(self, fields: Iterable[tuple[str, str]] = POST) -> bytes:
        return self.encoder.encode(list(fields))

    def post(self, stream: int, message: bytes = WWW) -> bytes:
        """A request."""
        return frame(Frame.HEADERS, END_HEADERS, stream, self.block()) + frame(Frame.DATA, END_STREAM, stream, message)

    def fault(self) -> tuple[str, int, Code] | None:
        """Where and by which code the server complained last: the connection, or a stream."""
        for sent in reversed(self.take()):
            if sent.kind == Frame.GOAWAY:
                assert self.server.hangs_up
                return "connection", 0, Code(struct.unpack(">LL", sent.payload)[1])
            if sent.kind == Frame.RST_STREAM:
                return "stream", sent.stream, Code(int.from_bytes(sent.payload, "big"))
        return None

    def replies(self) -> dict[int, tuple[dict[bytes, bytes], bytes]]:
        """Head and content of each answer that came in whole."""
        heads: dict[int, dict[bytes, bytes]] = {}
        contents: dict[int, bytes] = {}
        whole = set()
        for sent in self.take():
            if sent.kind == Frame.HEADERS:
                heads[sent.stream] = dict(self.decoder.decode(sent.payload, raw=True))
                contents[sent.stream] = b""
            elif sent.kind == Frame.DATA:
                contents[sent.stream] += sent.payload
            if sent.kind in (Frame.HEADERS, Frame.DATA) and sent.flags & END_STREAM:
                whole.add(sent.stream)
        return {stream: (heads[stream], contents[stream]) for stream in whole}


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", length: int | None = None) -> bytes:
    octets = len(payload) if length is None else length
    return struct.pack(">HBBBL", octets >> 8, octets & 255, kind, flags, stream) + payload


def setting(name: int, value: int) -> bytes:
    return frame(Frame.SETTINGS, 0, 0, struct.pack(">HL", name, value))


def window(stream: int, more: int) -> bytes:
    return frame(Frame.WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big"))


def fields(*changes: tuple[str, str | None], more: Iterable[tuple[str, str]] = ()) -> list[tuple[str, str]]:
    """A POST's fields: some put in another's place, or left out (None), some more at the end."""
    changed = dict(changes)
    kept = [(name, changed.get(name, value)) for name, value in POST]
    return [(name, value) for name, value in kept if value is not None] + list(more)


def test_the_server_begins_with_its_settings() -> None:
    """RFC 9113 §3.4: SETTINGS come first, whatever the client does."""
    talk = Talk(HttpTerms(in_flight=123), greet=False)
    first, second = talk.take()
    assert (first.kind, first.stream) == (Frame.SETTINGS, 0)
    assert dict(struct.iter_unpack(">HL", first.payload)) == {3: 123, 4: STREAM_WINDOW, 6: 16 * 1024}
    assert (second.kind, int.from_bytes(second.payload, "big")) == (Frame.WINDOW_UPDATE, CONNECTION_WINDOW - 65_535)


def test_many_streams_are_answered_in_one_write() -> None:
    """Answers to what came in one piece leave in one piece."""
    talk = Talk()
    talk.writes = 0
    talk.send(*(talk.post(2 * n + 1, ask(f"n{n}.example.org")) for n in range(TURN)))
    assert talk.writes == 1
    replies = talk.replies()
    assert {stream: content for stream, (_, content) in replies.items()} == {
        2 * n + 1: reply_to(ask(f"n{n}.example.org")) for n in range(TURN)
    }
    assert replies[1][0] == {
        b":status": b"200",
        b"content-type": b"application/dns-message",
        b"content-length": b"%d" % len(reply_to(ask("n0.example.org"))),
        b"cache-control": b"no-store",
    }


def test_a_turn_ends_after_so_many_requests() -> None:
    """What is left waits for the next turn."""
    talk = Talk()
    talk.server.receive(b"".join(talk.post(2 * n + 1) for n in range(TURN + 1)))
    assert (talk.server.has_more, len(talk.answerer.seen)) == (True, TURN)
    assert talk.server.is_busy
    talk.server.work()
    assert (talk.server.has_more, len(talk.answerer.seen)) == (False, TURN + 1)


def test_octets_may_come_one_by_one() -> None:
    """Frames are whole when their last octet is there."""
    talk = Talk(greet=False)
    for octet in PREFACE + frame(Frame.SETTINGS) + talk.post(1):
        talk.send(bytes([octet]))
    assert talk.replies()[1][1] == reply_to(WWW)


def test_a_header_block_is_read_anew_when_the_table_changed() -> None:
    """The same octets mean another thing once the dynamic table is another."""
    talk = Talk()
    rest = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()  # RFC 7541 §6.2.2
        for name, value in POST[:3]
    )
    newest = bytes([0x80 | 62])  # the entry that came into the dynamic table last (RFC 7541 §2.3.3)
    statuses = []
    for stream, path in ((1, b"/dns-query"), (7, b"/elsewhere")):
        literal = b"\x44" + bytes([len(path)]) + path  # into the table; the name is 4 of the static one, ":path"
        for more, block in ((0, rest + literal), (2, rest + newest), (4, rest + newest)):
            talk.send(frame(Frame.HEADERS, END_HEADERS | END_STREAM, stream + more, block))
        statuses += [head[b":status"] for _, (head, _) in sorted(talk.replies().items())]
    assert statuses == [b"415"] * 3 + [b"404"] * 3


def test_trailers_may_change_the_table_too() -> None:
    """What is remembered of requests is forgotten then as well."""
    talk = Talk()
    plain = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()  # RFC 7541 §6.2.2
        for name, value in POST[:4]
    )
    into_table = b"\x40\x0ccontent-type"  # with a value to come (RFC 7541 §6.2.1)
    newest = bytes([0x80 | 62])
    sound = into_table + bytes([23]) + b"application/dns-message"
    for stream, block in ((1, plain + sound), (3, plain + newest), (5, plain + newest)):
        talk.send(frame(Frame.HEADERS, END_HEADERS, stream, block), frame(Frame.DATA, END_STREAM, stream, WWW))
    talk.send(frame(Frame.HEADERS, END_HEADERS, 7, plain + newest), frame(Frame.DATA, 0, 7, WWW))
    trailers = into_table + b"\x04text"
    talk.send(frame(Frame.HEADERS, END_HEADERS | END_STREAM, 7, trailers))
    talk.send(frame(Frame.HEADERS, END_HEADERS | END_STREAM, 9, plain + newest))
    statuses = [head[b":status"] for _, (head, _) in sorted(talk.replies().items())]
    assert statuses == [b"200"] * 4 + [b"415"]


def test_a_block_that_puts_the_same_entry_in_is_not_taken_for_unchanged() -> None:
    """An entry that pushes another out may leave a table of the same size."""
    talk = Talk()
    for number in range(200):
        message = frame(Frame.HEADERS, END_HEADERS, 2 * number + 1, talk.block(fields(more=[("x", "y" * number)])))
        talk.send(message, frame(Frame.DATA, END_STREAM, 2 * number + 1, WWW))
    assert {content for _, content in talk.replies().values()} == {reply_to(WWW)}


@pytest.mark.parametrize(
    ("octets", "where", "code"),
    [
        pytest.param(frame(Frame.DATA, 0, 0, b"x"), "connection", Code.PROTOCOL_ERROR, id="DATA of no stream"),
        pytest.param(frame(Frame.DATA, 0, 1, b"x"), "connection", Code.PROTOCOL_ERROR, id="DATA of an idle stream"),
        pytest.param(frame(Frame.HEADERS, 5, 0, b""), "connection", Code.PROTOCOL_ERROR, id="HEADERS of no stream"),
        pytest.param(frame(Frame.HEADERS, 5, 2, b""), "connection", Code.PROTOCOL_ERROR, id="an even stream"),
        pytest.param(
            frame(Frame.HEADERS, END_HEADERS | PADDED, 1, b"\5abcd"), "connection", Code.PROTOCOL_ERROR, id="padding"
        ),
        pytest.param(
            frame(Frame.HEADERS, END_HEADERS | PADDED, 1, b""), "connection", Code.FRAME_SIZE_ERROR, id="no padding"
        ),
        pytest.param(
            frame(Frame.HEADERS, END_HEADERS | PRIORITY, 1, b"\0\0"), "connection", Code.FRAME_SIZE_ERROR, id="short"
        ),
        pytest.param(
            frame(Frame.HEADERS, END_HEADERS, 1, b"\x80"), "connection", Code.COMPRESSION_ERROR, id="index 0"
        ),
        pytest.param(
            frame(Frame.HEADERS, END_HEADERS, 1, b"\x40"), "connection", Code.COMPRESSION_ERROR, id="a cut block"
        ),
        pytest.param(
            frame(Frame.HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\x7f"),
            "connection", Code.COMPRESSION_ERROR, id="a table larger than allowed",
        ),
        pytest.param(frame(Frame.CONTINUATION, 4, 1), "connection", Code.PROTOCOL_ERROR, id="CONTINUATION of nothing"),
        pytest.param(
            frame(Frame.HEADERS, 0, 1) + frame(Frame.PING, 0, 0, bytes(8)),
            "connection", Code.PROTOCOL_ERROR, id="PING within a block",
        ),
        pytest.param(
            frame(Frame.HEADERS, 0, 1) + frame(99, 0, 1),
            "connection", Code.PROTOCOL_ERROR, id="an unknown frame within a block",
        ),
        pytest.param(
            frame(Frame.HEADERS, 0, 1) + frame(Frame.CONTINUATION, 4, 3),
            "connection", Code.PROTOCOL_ERROR, id="CONTINUATION of another stream",
        ),
        pytest.param(frame(Frame.PRIORITY, 0, 0, bytes(5)), "connection", Code.PROTOCOL_ERROR, id="PRIORITY of none"),
        pytest.param(frame(Frame.PRIORITY, 0, 1, bytes(4)), "connection", Code.FRAME_SIZE_ERROR, id="short PRIORITY"),
        pytest.param(frame(Frame.RST_STREAM, 0, 0, bytes(4)), "connection", Code.PROTOCOL_ERROR, id="RST of none"),
        pytest.param(frame(Frame.RST_STREAM, 0, 1, bytes(4)), "connection", Code.PROTOCOL_ERROR, id="RST when idle"),
        pytest.param(frame(Frame.SETTINGS, 0, 1), "connection", Code.PROTOCOL_ERROR, id="SETTINGS of a stream"),
        pytest.param(frame(Frame.SETTINGS, 0, 0, bytes(5)), "connection", Code.FRAME_SIZE_ERROR, id="short SETTINGS"),
        pytest.param(frame(Frame.SETTINGS, ACK, 0, bytes(6)), "connection", Code.FRAME_SIZE_ERROR, id="ACK and more"),
        pytest.param(setting(2, 2), "connection", Code.PROTOCOL_ERROR, id="ENABLE_PUSH 2"),
        pytest.param(setting(4, 2**31), "connection", Code.FLOW_CONTROL_ERROR, id="INITIAL_WINDOW_SIZE too large"),
        pytest.param(setting(5, 16_383), "connection", Code.PROTOCOL_ERROR, id="MAX_FRAME_SIZE too small"),
        pytest.param(setting(5, 2**24), "connection", Code.PROTOCOL_ERROR, id="MAX_FRAME_SIZE too large"),
        pytest.param(setting(4, 1) * 70, "connection", None, id="many SETTINGS are acknowledged"),
        pytest.param(
            frame(Frame.SETTINGS, 0, 0, bytes(6) * 65), "connection", Code.ENHANCE_YOUR_CALM, id="a bomb of settings"
        ),
        pytest.param(frame(Frame.PUSH_PROMISE, 4, 1, bytes(4)), "connection", Code.PROTOCOL_ERROR, id="a push"),
        pytest.param(frame(Frame.PING, 0, 1, bytes(8)), "connection", Code.PROTOCOL_ERROR, id="PING of a stream"),
        pytest.param(frame(Frame.PING, 0, 0, bytes(7)), "connection", Code.FRAME_SIZE_ERROR, id="short PING"),
        pytest.param(frame(Frame.GOAWAY, 0, 1, bytes(8)), "connection", Code.PROTOCOL_ERROR, id="GOAWAY of a stream"),
        pytest.param(frame(Frame.GOAWAY, 0, 0, bytes(7)), "connection", Code.FRAME_SIZE_ERROR, id="short GOAWAY"),
        pytest.param(window(0, 0), "connection", Code.PROTOCOL_ERROR, id="WINDOW_UPDATE of 0"),
        pytest.param(window(0, 2**31 - 1), "connection", Code.FLOW_CONTROL_ERROR, id="a window that runs over"),
        pytest.param(window(1, 1), "connection", Code.PROTOCOL_ERROR, id="WINDOW_UPDATE of an idle stream"),
        pytest.param(
            frame(Frame.WINDOW_UPDATE, 0, 0, bytes(3)), "connection", Code.FRAME_SIZE_ERROR, id="short WINDOW_UPDATE"
        ),
        pytest.param(frame(99, 0, 0, b"", 16_385), "connection", Code.FRAME_SIZE_ERROR, id="a frame too long"),
        pytest.param(frame(99, 255, 7, b"what"), "connection", None, id="an unknown frame is ignored"),
    ],
)  # fmt: skip
def test_a_frame_out_of_order_ends_the_connection(octets: bytes, where: str, code: Code | None) -> None:
    """Each with the error code that RFC 9113 names."""
    talk = Talk()
    talk.send(octets)
    assert talk.fault() == (None if code is None else (where, 0, code))
    if code is not None:
        talk.send(talk.post(101))
        assert talk.answerer.seen == []


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", Code.PROTOCOL_ERROR),
        (PREFACE + frame(Frame.PING, 0, 0, bytes(8)), Code.PROTOCOL_ERROR),
        (PREFACE + frame(Frame.SETTINGS, ACK), Code.PROTOCOL_ERROR),
    ],
)
def test_a_client_begins_with_preface_and_settings(octets: bytes, code: Code) -> None:
    """RFC 9113 §3.4."""
    talk = Talk(greet=False)
    talk.send(octets)
    assert talk.fault() == ("connection", 0, code)


MALFORMED = {
    "no method": fields((":method", None)),
    "no scheme": fields((":scheme", None)),
    "no path": fields((":path", None)),
    "an empty path": fields((":path", "")),
    "no slash": fields((":path", "dns-query")),
    "no authority": fields((":authority", None)),
    "somebody in the authority": fields((":authority", "me@dns.example.org")),
    "another host": fields(more=[("host", "other.example.org")]),
    "two hosts": fields(more=[("host", "dns.example.org"), ("host", "dns.example.org")]),
    "an unknown pseudo-header field": fields(more=[(":colour", "red")]),
    "a response's pseudo-header field": [(":status", "200"), *POST],
    "a pseudo-header field twice": [(":path", "/dns-query"), *POST],
    "a pseudo-header field late": [*POST[1:], POST[0]],
    "upper case": fields(more=[("X-Shout", "1")]),
    "a space in a name": fields(more=[("x y", "1")]),
    "an empty name": fields(more=[("", "1")]),
    "a line break": fields(more=[("x", "1\r\nhost: evil")]),
    "a NUL": fields(more=[("x", "1\0")]),
    "a space before": fields(more=[("x", " 1")]),
    "a space behind": fields(more=[("x", "1 ")]),
    "connection": fields(more=[("connection", "close")]),
    "keep-alive": fields(more=[("keep-alive", "5")]),
    "transfer-encoding": fields(more=[("transfer-encoding", "chunked")]),
    "upgrade": fields(more=[("upgrade", "h2c")]),
    "te": fields(more=[("te", "gzip")]),
    "two lengths": fields(more=[("content-length", "1"), ("content-length", "2")]),
    "no length": fields(more=[("content-length", "-1")]),
    "another length": fields(more=[("content-length", str(len(WWW) + 1))]),
    "CONNECT with a path": fields((":method", "CONNECT")),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_ends_its_stream_alone(name: str) -> None:
    """RFC 9113 §8.1.1; what comes after it is answered."""
    talk = Talk()
    block = talk.block(MALFORMED[name])
    talk.send(frame(Frame.HEADERS, END_HEADERS, 1, block), frame(Frame.DATA, END_STREAM, 1, WWW), talk.post(3))
    sent = talk.take()
    assert [each for each in sent if each.kind == Frame.RST_STREAM] == [
        Sent(Frame.RST_STREAM, 0, 1, b"\0\0\0\1"),
    ]
    assert [each.stream for each in sent if each.kind == Frame.DATA] == [3]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        (fields((":path", "/")), b"404"),
        (fields((":method", "PUT")), b"405"),
        (fields((":method", "HEAD")), b"405"),
        ([(":method", "CONNECT"), (":authority", "dns.example.org:443")], b"405"),
        (fields(("content-type", "text/plain")), b"415"),
        (fields(("content-type", None)), b"415"),
        (fields((":path", "/dns-query?" + "x" * 9000)), b"414"),
        (fields(more=[(f"x-{n}", "y" * 1000) for n in range(17)]), b"431"),
        (fields((":method", "GET")), b"400"),
        (fields((":method", "GET"), (":path", "/dns-query?dns=AAA%3d")), b"400"),
    ],
)
@pytest.mark.parametrize("ended", [False, True])
def test_a_request_that_is_not_for_us_is_refused(changed: list[tuple[str, str]], status: bytes, ended: bool) -> None:
    """At once, whether its content has come or not; then without an error (RFC 9113 §8.1)."""
    talk = Talk()
    talk.decoder.max_header_list_size = 2**20
    talk.send(frame(Frame.HEADERS, END_HEADERS | (END_STREAM if ended else 0), 1, talk.block(changed)))
    sent = talk.take()
    assert [(each.kind, each.payload) for each in sent[1:]] == ([] if ended else [(Frame.RST_STREAM, bytes(4))])
    assert dict(talk.decoder.decode(sent[0].payload, raw=True))[b":status"] == status
    if not ended:
        talk.send(frame(Frame.DATA, END_STREAM, 1, b"late"))  # it was on its way
    talk.send(talk.post(3))
    assert list(talk.replies()) == [3]


@pytest.mark.parametrize("content", [b"", bytes(11), b"\0\0\x80" + bytes(20)])
def test_content_that_is_no_query_is_refused(content: bytes) -> None:
    """Of a message with no header, or of a response, no reply could be made."""
    talk = Talk()
    talk.send(talk.post(1, content))
    assert talk.replies()[1][0][b":status"] == b"400"
    assert talk.answerer.seen == []


def test_content_that_is_announced_as_too_large_is_not_waited_for() -> None:
    """A length beyond that of any DNS message."""
    talk = Talk()
    talk.send(frame(Frame.HEADERS, END_HEADERS, 1, talk.block(fields(more=[("content-length", "65536")]))))
    head, reset = talk.take()
    assert dict(talk.decoder.decode(head.payload, raw=True))[b":status"] == b"413"
    assert reset == Sent(Frame.RST_STREAM, 0, 1, bytes(4))


def test_content_beyond_a_message_is_refused_while_it_comes() -> None:
    """Nobody has to take in what no DNS message can be."""
    talk = Talk()
    talk.send(frame(Frame.HEADERS, END_HEADERS, 1, talk.block()))
    for _ in range(4):
        talk.send(frame(Frame.DATA, 0, 1, bytes(16_384)))
    sent = talk.take()
    head = next(each for each in sent if each.kind == Frame.HEADERS)
    assert dict(talk.decoder.decode(head.payload, raw=True))[b":status"] == b"413"
    assert sent[-1] == Sent(Frame.RST_STREAM, 0, 1, bytes(4))


def test_content_may_come_in_pieces_with_padding() -> None:
    """Padding of both kinds of frames, a priority, and DATA that is empty (RFC 9113 §6.1, §6.2)."""
    talk = Talk()
    talk.send(
        frame(Frame.HEADERS, END_HEADERS | PADDED | PRIORITY, 1, b"\3" + bytes(5) + talk.block() + bytes(3)),
        frame(Frame.DATA, PADDED, 1, b"\7" + WWW[:9] + bytes(7)),
        frame(Frame.DATA, 0, 1, b""),
        frame(Frame.DATA, END_STREAM | PADDED, 1, b"\0" + WWW[9:]),
    )
    assert talk.replies()[1][1] == reply_to(WWW)


@pytest.mark.parametrize(
    ("trailers", "flags", "is_answered"),
    [
        ([("x-checksum", "1")], END_STREAM | END_HEADERS, True),
        ([("x-checksum", "1")], END_HEADERS, False),
        ([(":path", "/dns-query")], END_STREAM | END_HEADERS, False),
    ],
)
def test_trailers_end_a_request(trailers: list[tuple[str, str]], flags: int, is_answered: bool) -> None:
    """With END_STREAM, and without pseudo-header fields (RFC 9113 §8.1)."""
    talk = Talk()
    talk.send(
        frame(Frame.HEADERS, END_HEADERS, 1, talk.block()),
        frame(Frame.DATA, 0, 1, WWW),
        frame(Frame.HEADERS, flags, 1, talk.block(trailers)),
    )
    if is_answered:
        assert talk.replies()[1][1] == reply_to(WWW)
    else:
        assert talk.fault() == ("stream", 1, Code.PROTOCOL_ERROR)


def test_a_block_may_come_in_pieces() -> None:
    """CONTINUATION (RFC 9113 §6.10)."""
    talk = Talk()
    block = talk.block()
    talk.send(
        frame(Frame.HEADERS, 0, 1, block[:3]),
        frame(Frame.CONTINUATION, 0, 1, b""),
        frame(Frame.CONTINUATION, END_HEADERS, 1, block[3:]),
        frame(Frame.DATA, END_STREAM, 1, WWW),
    )
    assert talk.replies()[1][1] == reply_to(WWW)


@pytest.mark.parametrize("stream", [1, 3])
def test_frames_of_a_stream_that_is_over_end_the_connection(stream: int) -> None:
    """RFC 9113 §5.1: answered, or passed over, and therefore closed."""
    for kind, flags in ((Frame.DATA, END_STREAM), (Frame.HEADERS, END_STREAM | END_HEADERS)):
        talk = Talk()
        talk.send(talk.post(5), frame(Frame.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"), frame(Frame.PRIORITY, 0, 3, bytes(5)))
        talk.send(talk.post(7), frame(Frame.RST_STREAM, 0, 5, bytes(4)))
        assert len(talk.replies()) == 2
        talk.send(frame(kind, flags, stream, b"" if kind == Frame.DATA else talk.block()))
        assert talk.fault() == ("connection", 0, Code.STREAM_CLOSED)


def test_a_stream_error_of_the_window_ends_the_stream_alone() -> None:
    """RFC 9113 §6.9: an increment of 0, and a window that runs over."""
    for more, code in ((0, Code.PROTOCOL_ERROR), (2**31 - 1, Code.FLOW_CONTROL_ERROR)):
        talk = Talk()
        talk.send(frame(Frame.HEADERS, END_HEADERS, 1, talk.block()), window(1, more))
        assert talk.fault() == ("stream", 1, code)
        talk.send(talk.post(3))
        assert list(talk.replies()) == [3]


def test_an_answer_waits_for_the_clients_window() -> None:
    """RFC 9113 §5.2: not an octet more than the stream's and the connection's window allow."""
    talk = Talk(large_octets=60_000)
    talk.send(setting(4, 10), talk.post(1, ask("large.example.org")))
    first = talk.take()
    assert sum(len(each.payload) for each in first if each.kind == Frame.DATA) == 10
    assert talk.server.owes
    talk.send(window(1, 20_000))
    second = talk.take()
    assert [len(each.payload) for each in second] == [16_384, 20_000 - 16_384]
    talk.send(setting(4, 5))  # five less than it was: the stream's window is below zero (RFC 9113 §6.9.2)
    talk.take()
    talk.send(window(1, 5))
    assert talk.take() == []
    talk.send(window(1, 50_000))
    third = talk.take()
    assert 20_010 + sum(len(each.payload) for each in third) == 60_000
    assert third[-1].flags & END_STREAM
    assert not talk.server.owes


def test_a_window_may_open_before_the_answer_is_there() -> None:
    """What the client added counts for the answer to come."""
    talk = Talk()
    talk.send(setting(4, 0), talk.post(1, ask("later.example.org")), window(1, 1000))
    talk.take()
    talk.answerer.release()
    assert talk.replies()[1][1] == reply_to(ask("later.example.org"))
    assert talk.settled == 1


def test_a_settings_change_may_not_run_a_window_over() -> None:
    """RFC 9113 §6.9.2."""
    talk = Talk()
    talk.send(talk.post(1, ask("later.example.org")), window(1, 2**31 - 1 - 65_535), setting(4, 65_536))
    assert talk.fault() == ("connection", 0, Code.FLOW_CONTROL_ERROR)


def test_who_sends_past_our_window_is_cut_off() -> None:
    """Content that is not yet complete is bounded by the connection's window, for all streams together."""
    talk = Talk()
    for stream in range(1, 13, 2):
        talk.send(frame(Frame.HEADERS, END_HEADERS, stream, talk.block()))
        for _ in range(3):
            talk.send(frame(Frame.DATA, 0, stream, bytes(16_384)))
    assert talk.fault() == ("connection", 0, Code.FLOW_CONTROL_ERROR)


def test_padding_counts_for_the_streams_window() -> None:
    """RFC 9113 §6.1: all of the payload is under flow control."""
    talk = Talk()
    talk.send(frame(Frame.HEADERS, END_HEADERS, 1, talk.block()))
    padded = frame(Frame.DATA, PADDED, 1, b"\xff" + bytes(511))
    talk.send(padded * (STREAM_WINDOW // 512))
    assert talk.fault() is None
    talk.send(padded)
    assert talk.fault() == ("stream", 1, Code.FLOW_CONTROL_ERROR)
    talk.send(talk.post(3))
    assert list(talk.replies()) == [3]


def test_an_end_of_a_stream_has_its_size() -> None:
    """RFC 9113 §6.4."""
    talk = Talk()
    talk.send(frame(Frame.HEADERS, END_HEADERS, 1, talk.block()), frame(Frame.RST_STREAM, 0, 1, bytes(3)))
    assert talk.fault() == ("connection", 0, Code.FRAME_SIZE_ERROR)


@pytest.mark.parametrize(("code", "hangs_up"), [(Code.NO_ERROR, False), (Code.PROTOCOL_ERROR, True)])
def test_a_client_that_leaves_in_anger_is_left(code: Code, hangs_up: bool) -> None:
    """Once what it asked is answered; one that leaves in peace may still be waiting."""
    talk = Talk()
    talk.send(talk.post(1, ask("later.example.org")), frame(Frame.GOAWAY, 0, 0, struct.pack(">LL", 0, code)))
    assert not talk.server.hangs_up
    talk.answerer.release()
    assert list(talk.replies()) == [1]
    assert talk.server.hangs_up == hangs_up


def test_the_window_opens_again_when_requests_are_complete() -> None:
    """However many octets pass in all."""
    talk = Talk()
    message = ask("silent.example.org").ljust(3 * 16_384, b"\0")
    for stream in range(1, 41, 2):
        talk.send(frame(Frame.HEADERS, END_HEADERS, stream, talk.block()))
        for at in range(0, len(message), 16_384):
            talk.send(frame(Frame.DATA, 0, stream, message[at : at + 16_384]))
        talk.send(frame(Frame.DATA, END_STREAM, stream, b""))
    opened = sum(int.from_bytes(each.payload, "big") for each in talk.take() if each.kind == Frame.WINDOW_UPDATE)
    assert 20 * len(message) - CONNECTION_WINDOW // 4 < opened <= 20 * len(message)
    assert [packet for packet, _ in talk.answerer.seen] == [message] * 20


def test_more_streams_than_agreed_are_refused() -> None:
    """RFC 9113 §5.1.2; REFUSED_STREAM says that they may be sent again."""
    talk = Talk(HttpTerms(in_flight=2))
    talk.send(*(talk.post(stream, ask("later.example.org")) for stream in (1, 3, 5)))
    assert talk.fault() == ("stream", 5, Code.REFUSED_STREAM)
    assert len(talk.answerer.seen) == 2
    talk.answerer.release()
    talk.send(talk.post(7))
    assert sorted(talk.replies()) == [1, 3, 7]


def test_streams_that_were_reset_count_until_their_answer_is_there() -> None:
    """Rapid reset (CVE-2023-44487) does not get round the limit of what is under way."""
    talk = Talk(HttpTerms(in_flight=4))
    for stream in range(1, 41, 2):
        message = ask(f"later{stream}.example.org")
        talk.send(talk.post(stream, message), frame(Frame.RST_STREAM, 0, stream, bytes(4)))
    assert len(talk.answerer.seen) == 4
    assert not talk.server.is_busy
    talk.take()
    talk.answerer.release()
    assert talk.take() == []  # nobody waits for them
    talk.send(talk.post(41))
    assert list(talk.replies()) == [41]


FLOODS = {
    "PING": lambda talk, n: frame(Frame.PING, 0, 0, bytes(8)),
    "PING answers": lambda talk, n: frame(Frame.PING, ACK, 0, bytes(8)),
    "SETTINGS": lambda talk, n: frame(Frame.SETTINGS),
    "WINDOW_UPDATE": lambda talk, n: window(0, 1),
    "PRIORITY": lambda talk, n: frame(Frame.PRIORITY, 0, 1, bytes(5)),
    "unknown frames": lambda talk, n: frame(200),
    "empty DATA": lambda talk, n: frame(Frame.DATA, 0, 1) if n else frame(Frame.HEADERS, END_HEADERS, 1, talk.block()),
    "rapid reset": lambda talk, n: (
        talk.post(2 * n + 1, ask("never.example.org")) + frame(Frame.RST_STREAM, 0, 2 * n + 1, bytes(4))
    ),
    "malformed requests": lambda talk, n: frame(Frame.HEADERS, 5, 2 * n + 1, talk.block([("x", "y")])),
    "requests for nothing": lambda talk, n: frame(Frame.HEADERS, 5, 2 * n + 1, talk.block(fields((":path", f"/{n}")))),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_frames_that_ask_nothing_ends_the_connection(name: str) -> None:
    """ENHANCE_YOUR_CALM (RFC 9113 §10.5)."""
    talk = Talk()
    for number in range(3 * PATIENCE):
        talk.send(FLOODS[name](talk, number))
    assert talk.fault() == ("connection", 0, Code.ENHANCE_YOUR_CALM)


def test_the_same_frames_are_taken_from_who_asks_as_well_and_from_who_takes_his_time() -> None:
    """Answered requests and time make up for them."""
    talk = Talk()
    for number in range(3 * PATIENCE):
        talk.send(frame(Frame.PING, 0, 0, bytes(8)), talk.post(2 * number + 1))
    for _ in range(3 * PATIENCE):
        talk.clock += 0.1
        talk.send(frame(Frame.PING, 0, 0, bytes(8)))
    assert talk.fault() is None
    assert not talk.server.hangs_up


def test_a_flood_of_continuation_ends_the_connection() -> None:
    """Whether the pieces are empty or large."""
    for piece in (b"", bytes(16_384)):
        talk = Talk()
        talk.send(frame(Frame.HEADERS, 0, 1), *(frame(Frame.CONTINUATION, 0, 1, piece) for _ in range(20)))
        assert talk.fault() == ("connection", 0, Code.ENHANCE_YOUR_CALM)


def test_a_bomb_of_header_fields_ends_the_connection() -> None:
    """A block that unpacks to far more than it is (RFC 7541 §7.3)."""
    talk = Talk()
    large = b"\x40\x01x\x7f\x81\x1e" + b"y" * 4000  # into the table: x, with a value of 4000 octets
    talk.send(frame(Frame.HEADERS, END_HEADERS | END_STREAM, 1, large + b"\xbe" * 1000))
    assert talk.fault() == ("connection", 0, Code.ENHANCE_YOUR_CALM)


def test_silence_resets_the_stream() -> None:
    """What policy drops is not answered, and nobody is told to send it again."""
    talk = Talk()
    talk.send(talk.post(1, ask("silent.example.org")), talk.post(3))
    sent = talk.take()
    assert Sent(Frame.RST_STREAM, 0, 1, Code.CANCEL.to_bytes(4, "big")) in sent
    assert [each.stream for each in sent if each.kind == Frame.DATA] == [3]


def test_ping_is_answered() -> None:
    """RFC 9113 §6.7."""
    talk = Talk()
    talk.send(frame(Frame.PING, 0, 0, b"12345678"), frame(Frame.PING, ACK, 0, bytes(8)))
    assert talk.take() == [Sent(Frame.PING, ACK, 0, b"12345678")]


def test_leaving_lets_answers_under_way_out() -> None:
    """GOAWAY names the last stream that is answered (RFC 9113 §6.8); later ones are refused."""
    talk = Talk()
    talk.send(talk.post(1, ask("later.example.org")))
    talk.server.leave()
    assert talk.take() == [Sent(Frame.GOAWAY, 0, 0, struct.pack(">LL", 1, 0))]
    assert not talk.server.hangs_up
    talk.send(talk.post(3))
    assert talk.fault() == ("stream", 3, Code.REFUSED_STREAM)
    talk.answerer.release()
    assert list(talk.replies()) == [1]
    assert talk.server.hangs_up


def test_a_client_that_does_not_read_is_not_answered() -> None:
    """What waits for it is bounded; it goes on where it stopped."""
    talk = Talk(large_octets=16_000)
    talk.send(setting(4, 2**31 - 1), window(0, 2**30))
    talk.is_blocked = True
    talk.send(*(talk.post(2 * n + 1, ask("large.example.org")) for n in range(10)))
    assert talk.answerer.seen == []
    talk.is_blocked = False
    talk.take()
    talk.server.resume()
    assert talk.server.has_more  # so much is for the loop to send first
    talk.send()
    assert len(talk.replies()) == 10


def test_every_reply_may_tell_of_http_3() -> None:
    """RFC 7838 §3."""
    talk = Talk(HttpTerms(doh=DohTerms(alt_svc=b'h3=":443"')))
    talk.send(talk.post(1), frame(Frame.HEADERS, 5, 3, talk.block(fields((":path", "/")))))
    assert [head[b"alt-svc"] for head, _ in talk.replies().values()] == [b'h3=":443"'] * 2


def test_other_pages_are_served() -> None:
    """By GET; they speak of who asks, so nobody keeps them."""
    pages = {"/covered": (b"text/plain", b"You are.")}
    talk = Talk(HttpTerms(pages=lambda path, client: pages.get(path)))
    for stream, path in ((1, "/covered"), (3, "/elsewhere")):
        talk.send(frame(Frame.HEADERS, 5, stream, talk.block(fields((":method", "GET"), (":path", path)))))
    replies = talk.replies()
    assert replies[1][0] == {
        b":status": b"200",
        b"content-type": b"text/plain",
        b"content-length": b"8",
        b"cache-control": b"no-store",
    }
    assert (replies[1][1], replies[3][0][b":status"]) == (b"You are.", b"404")


def test_the_h2_library_understands_us() -> None:
    """It checks what it reads; many requests, large and small, answered at once and later, in one conversation."""
    talk = Talk(large_octets=20_000, greet=False)
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    client.update_settings({1: 0})
    kinds = ["www", "large", "later", "soon"]
    contents: dict[int, bytes] = {}
    asked: dict[int, bytes] = {}
    for number in range(60):
        stream = client.get_next_available_stream_id()
        asked[stream] = ask(f"{kinds[number % 4]}{number}.example.org")
        client.send_headers(stream, POST)
        client.send_data(stream, asked[stream], end_stream=True)
        contents[stream] = b""
    ended = set()
    while len(ended) < len(asked):
        talk.send(client.data_to_send())
        talk.answerer.release()
        octets, talk.octets = talk.octets, b""
        for event in client.receive_data(octets):
            if isinstance(event, h2.events.ResponseReceived):
                assert dict(event.headers or [])[":status"] == "200"
            elif isinstance(event, h2.events.DataReceived):
                contents[event.stream_id] += event.data or b""
                client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                ended.add(event.stream_id)
            else:
                assert not isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated)
    for stream, message in asked.items():
        expected = reply_to(message).ljust(20_000, b"\0") if b"large" in message else reply_to(message)
        assert contents[stream] == expected


NOISE = st.one_of(
    st.binary(max_size=60),
    st.builds(
        frame,
        st.integers(0, 12),
        st.integers(0, 255),
        st.integers(0, 9),
        st.one_of(st.binary(max_size=30), st.just(WWW), st.just(bytes(4)), st.just(bytes(8))),
    ),
    st.sampled_from([Talk().post(1), Talk().post(3), Talk().post(5, ask("later.example.org")), setting(4, 3)]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(NOISE, max_size=20), st.booleans(), st.data())
def test_any_octets_are_answered_or_end_the_connection(pieces: list[bytes], greet: bool, data: st.DataObject) -> None:
    """Never an error of ours; and what the server sends are whole frames, whatever comes in."""
    talk = Talk(greet=greet)
    octets = b"".join(pieces)
    cut = data.draw(st.integers(0, len(octets)))
    talk.send(octets[:cut])
    talk.send(octets[cut:])
    talk.answerer.release()
    sent = talk.take()
    assert talk.server.hangs_up == any(each.kind == Frame.GOAWAY for each in sent) or talk.server._leaving
    talk.server.leave()
