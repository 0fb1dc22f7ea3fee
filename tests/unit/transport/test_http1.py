"""HTTP/1.1 without sockets: what octets a client gets for what octets."""

from collections.abc import Callable

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.policy.client import Client, Transport
from resolver.transport.desk import Desk, HttpTerms
from resolver.transport.http1 import AHEAD_OCTETS, TURN, Http1
from resolver.wire.message import WireError
from tests.support.answerer import FakeAnswerer, Later, reply_to
from tests.support.house import ask

WWW = ask("www.example.org")


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

    def __init__(self, terms: HttpTerms | None = None) -> None:
        self.answerer = Answerer()
        self.is_blocked = False
        self.octets = b""
        self.writes = 0
        self.settled = 0
        client = Client(bytes(4), bytes(28), Transport.DOH)
        desk = Desk(terms or HttpTerms(), self.answerer, client, lambda host, port: host.encode())
        self.server = Http1(desk, self)

    def write(self, octets: bytes) -> None:
        self.octets += octets
        self.writes += 1

    def now(self) -> float:
        return 0.0

    def settle(self) -> None:
        self.settled += 1

    def send(self, *octets: bytes) -> None:
        """Let octets come in at once, and the server have all the turns that it wants."""
        self.server.receive(b"".join(octets))
        while self.server.has_more:
            self.server.work()

    def replies(self, *methods: str) -> list[tuple[int, dict[bytes, bytes], bytes]]:
        """Status, head and content of all that was answered, as h11 reads it."""
        found: list[tuple[int, dict[bytes, bytes], bytes]] = []
        octets, self.octets = self.octets, b""
        while octets:
            client = h11.Connection(h11.CLIENT)
            client.send(
                h11.Request(method=methods[len(found)] if methods else "POST", target="/", headers=[("host", "x")])
            )
            client.send(h11.EndOfMessage())
            client.receive_data(octets)
            status, head, content = 0, {}, b""
            while not isinstance(event := client.next_event(), h11.EndOfMessage):
                assert event is not h11.NEED_DATA
                if isinstance(event, h11.Response):
                    status, head = event.status_code, dict(event.headers)
                elif isinstance(event, h11.Data):
                    content += event.data
            octets = client.trailing_data[0]
            found.append((status, head, content))
        return found


def post(message: bytes = WWW, *more: bytes, path: bytes = b"/dns-query") -> bytes:
    head = [
        b"POST %s HTTP/1.1" % path,
        b"Host: dns.example.org",
        b"Content-Type: application/dns-message",
        *(more or [b"Content-Length: %d" % len(message)]),
    ]
    return b"\r\n".join(head) + b"\r\n\r\n" + message


def chunked(message: bytes, octets: int) -> bytes:
    pieces = [message[at : at + octets] for at in range(0, len(message), octets)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def test_a_post_is_answered() -> None:
    """With the fields of RFC 8484 §4.2."""
    talk = Talk()
    talk.send(post())
    ((status, head, content),) = talk.replies()
    assert (status, content) == (200, reply_to(WWW))
    assert head == {
        b"content-type": b"application/dns-message",
        b"content-length": b"%d" % len(content),
        b"cache-control": b"no-store",
    }
    assert not talk.server.hangs_up


def test_requests_sent_ahead_are_answered_in_order() -> None:
    """RFC 9112 §9.3.2, though later ones be ready first."""
    messages = [ask(f"{kind}{n}.example.org") for n in range(20) for kind in ("later", "www", "soon")]
    talk = Talk()
    talk.send(*(post(message) for message in messages))
    for _ in messages:
        talk.answerer.release()
    assert [content for _, _, content in talk.replies()] == [reply_to(message) for message in messages]
    assert not talk.server.is_busy


def test_a_turn_is_one_write_and_ends_after_so_many_requests() -> None:
    """What is left waits for the next turn."""
    talk = Talk()
    talk.server.receive(post() * (TURN + 1))
    assert (talk.server.has_more, len(talk.answerer.seen), talk.writes) == (True, TURN, 1)
    talk.server.work()
    assert (talk.server.has_more, len(talk.answerer.seen), talk.writes) == (False, TURN + 1, 2)


def test_what_is_sent_ahead_is_bounded() -> None:
    """While an answer is under way, no more is read than so much."""
    talk = Talk()
    talk.send(post(ask("later.example.org")))
    assert not talk.server.is_full
    talk.send(post() * (AHEAD_OCTETS // len(post()) + 1))
    assert talk.server.is_full
    talk.answerer.release()
    while talk.server.has_more:
        talk.server.work()
    assert not talk.server.is_full


def test_octets_may_come_one_by_one() -> None:
    """A request is whole when its last octet is there."""
    talk = Talk()
    for octet in post() + post(chunked(WWW, 5), b"Transfer-Encoding: chunked"):
        talk.send(bytes([octet]))
    assert [content for _, _, content in talk.replies()] == [reply_to(WWW)] * 2


@pytest.mark.parametrize("octets", [1, 7, 1000])
def test_content_may_come_in_chunks(octets: int) -> None:
    """RFC 9112 §7.1."""
    talk = Talk()
    talk.send(post(chunked(WWW, octets), b"Transfer-Encoding: chunked"), post())
    assert [content for _, _, content in talk.replies()] == [reply_to(WWW)] * 2


def test_who_waits_to_be_told_is_told() -> None:
    """100 Continue (RFC 9110 §10.1.1)."""
    talk = Talk()
    expecting = [b"Content-Length: %d" % len(WWW), b"Expect: 100-continue"]
    talk.send(post(b"", *expecting))
    assert talk.octets.startswith(b"HTTP/1.1 100 ")
    talk.octets = b""
    talk.send(WWW)
    assert [content for _, _, content in talk.replies()] == [reply_to(WWW)]


def test_who_waits_to_be_told_and_asks_wrongly_is_told_so() -> None:
    """Then the content is not waited for."""
    talk = Talk()
    talk.send(post(b"", b"Content-Length: 5", b"Expect: 100-continue", path=b"/elsewhere"))
    assert [status for status, _, _ in talk.replies()] == [404]
    assert talk.server.hangs_up


REFUSED: dict[str, tuple[bytes, int, bool]] = {
    "another path": (post(path=b"/"), 404, True),
    "another method": (post().replace(b"POST", b"PUT"), 405, True),
    "another type": (post().replace(b"dns-message", b"json"), 415, True),
    "no query": (post(b"short"), 400, True),
    "no dns": (b"GET /dns-query HTTP/1.1\r\nHost: x\r\n\r\n", 400, True),
    "too large, by its head": (post(b"", b"Content-Length: 65536"), 413, False),
    "too large, by its chunks": (
        post(chunked(bytes(70_000), 16_000), b"Transfer-Encoding: chunked"), 413, False,
    ),
    "a long path": (b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 9000), 414, True),
    "a path without end": (b"GET /%s" % (b"x" * 20_000), 414, False),
    "a head without end": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"x: y\r\n" * 4000, 431, False),
    "no host": (b"GET /dns-query HTTP/1.1\r\n\r\n", 400, False),
    "two hosts": (b"GET /dns-query HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, False),
    "two framings": (
        post(chunked(WWW, 9), b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400, False,
    ),
    "two lengths": (post(WWW, b"Content-Length: 5", b"Content-Length: 6"), 400, False),
    "a signed length": (post(WWW, b"Content-Length: +5"), 400, False),
    "another coding": (post(WWW, b"Transfer-Encoding: gzip, chunked"), 501, False),
    "a coding in HTTP/1.0": (
        post(chunked(WWW, 9), b"Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0"), 400, False,
    ),
    "a space before the colon": (post(WWW, b"Content-Length : 5"), 400, False),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400, False),
    "a bad chunk": (post(b"zz\r\n", b"Transfer-Encoding: chunked"), 400, False),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_for_us_is_refused(name: str) -> None:
    """With the connection, where it is not certain where the request ends (RFC 9112 §11.2)."""
    octets, status, lives = REFUSED[name]
    talk = Talk()
    talk.send(octets)
    assert talk.replies()[0][0] == status
    assert talk.server.hangs_up == (not lives)
    talk.send(post())
    assert len(talk.answerer.seen) == lives


def test_what_follows_a_doubtful_request_is_not_read() -> None:
    """A request hidden in another's content is never seen (request smuggling)."""
    talk = Talk()
    hidden = post(ask("hidden.example.org"))
    doubtful = post(b"0\r\n\r\n" + hidden, b"Content-Length: %d" % (5 + len(hidden)), b"Transfer-Encoding: chunked")
    talk.send(doubtful)
    assert (talk.answerer.seen, talk.server.hangs_up) == ([], True)


def test_a_target_may_be_a_whole_uri() -> None:
    """RFC 9112 §3.2.2."""
    talk = Talk()
    talk.send(post(path=b"https://dns.example.org/dns-query"), post(path=b"https://dns.example.org"))
    assert [status for status, _, _ in talk.replies()] == [200, 404]


@pytest.mark.parametrize(
    ("octets", "lives"),
    [
        (post(), True),
        (post(WWW, b"Content-Length: %d" % len(WWW), b"Connection: close"), False),
        (post().replace(b"HTTP/1.1", b"HTTP/1.0"), False),
    ],
)
def test_the_connection_lives_as_long_as_the_client_likes(octets: bytes, lives: bool) -> None:
    """RFC 9112 §9.3."""
    talk = Talk()
    talk.send(octets)
    assert [content for _, _, content in talk.replies()] == [reply_to(WWW)]
    assert talk.server.hangs_up == (not lives)


def test_silence_hangs_up() -> None:
    """What policy drops is not answered, and no other answer may stand in its place; what came before is sent."""
    talk = Talk()
    talk.send(post(), post(ask("silent.example.org")), post())
    assert [content for _, _, content in talk.replies()] == [reply_to(WWW)]
    assert talk.server.hangs_up
    assert len(talk.answerer.seen) == 2


def test_who_will_send_no_more_is_still_answered() -> None:
    """Requests that came before the end of what the client sends."""
    talk = Talk()
    talk.send(post(), post(ask("later.example.org")), post())
    talk.server.ended()
    assert not talk.server.hangs_up
    talk.answerer.release()
    assert len(talk.replies()) == 3
    assert talk.server.hangs_up


@pytest.mark.parametrize(
    ("before", "hangs_up"), [(b"", True), (post(), True), (post()[:20], True), (post(ask("later.example.org")), False)]
)
def test_leaving_waits_for_the_answer_under_way(before: bytes, hangs_up: bool) -> None:
    """And says that it is the last."""
    talk = Talk()
    talk.send(before)
    talk.octets = b""
    talk.server.leave()
    assert talk.server.hangs_up == hangs_up
    if not hangs_up:
        talk.answerer.release()
        assert [head[b"connection"] for _, head, _ in talk.replies()] == [b"close"]
        assert talk.server.hangs_up


def test_a_client_that_does_not_read_is_not_answered() -> None:
    """It goes on where it stopped."""
    talk = Talk()
    talk.is_blocked = True
    talk.send(post() * 3)
    assert talk.answerer.seen == []
    talk.is_blocked = False
    talk.server.resume()
    assert len(talk.replies()) == 3


def test_other_pages_are_served() -> None:
    """By GET, while HEAD is none of our methods (RFC 9110 §9.1)."""
    talk = Talk(HttpTerms(pages=lambda path, client: (b"text/plain", b"You are.") if path == "/covered" else None))
    for method, path in ((b"GET", b"/covered"), (b"GET", b"/x"), (b"HEAD", b"/dns-query")):
        talk.send(b"%s %s HTTP/1.1\r\nHost: x\r\n\r\n" % (method, path))
    replies = talk.replies("GET", "GET", "HEAD")
    assert [(status, content) for status, _, content in replies] == [(200, b"You are."), (404, b""), (405, b"")]
    assert replies[0][1][b"cache-control"] == b"no-store"


PIECES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([post(), post()[:-3], post(ask("later.example.org")), post(ask("silent.example.org"))]),
    st.sampled_from([value for value, _, _ in REFUSED.values() if len(value) < 1000]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=6), st.data())
def test_any_octets_are_answered_or_end_the_connection(pieces: list[bytes], data: st.DataObject) -> None:
    """Never an error of ours; and what the server sends are whole answers, whatever comes in."""
    talk = Talk()
    octets = b"".join(pieces)
    cut = data.draw(st.integers(0, len(octets)))
    talk.send(octets[:cut])
    talk.send(octets[cut:])
    talk.answerer.release()
    talk.server.ended()
    take: Callable[..., object] = talk.replies
    take()
    assert talk.server.hangs_up or talk.server.is_busy
