"""HTTP/1.1, the server's side (RFC 9112), as far as requests and their answers need it; h11 reads and writes it.

Requests are answered in the order in which they came, one at a time: what a client sends ahead waits, and is not read
beyond a measure. Where two readers could find different ends of a request, it is refused and the connection with it:
what follows could be taken for a request by one of them (RFC 9112 §11.2).
"""

from http import HTTPStatus

import h11

from resolver.transport.desk import HEAD_OCTETS, PATH_OCTETS, Asked, Desk, Fields, Line
from resolver.transport.doh import (
    BAD,
    MESSAGE_OCTETS,
    TOO_LARGE,
    TOO_LONG,
    Refusal,
    read_content,
    refusal_headers,
    reply_headers,
)

TURN = 16  # requests of one connection answered in one go; each costs what several of HTTP/2 do
FLUSH_OCTETS = 128 * 1024  # written in one turn, but for the last answer
AHEAD_OCTETS = 64 * 1024  # of requests that wait behind one under way, before no more are read


class Http1:
    """One connection."""

    def __init__(self, desk: Desk, line: Line) -> None:
        """Wait for a request.

        Args:
            desk: What may be asked.
            line: The connection below.
        """
        self._desk = desk
        self._line = line
        self._reader = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_OCTETS)
        self._asked: Asked | Refusal | None = None
        self._content: list[bytes] = []
        self._octets = 0
        self._waits = False  # an answer is under way
        self._working = False
        self._leaving = False
        self._out: list[bytes] = []
        self._out_octets = 0
        self.has_more = False  # the turn is over, and there may be more
        self.progressed = False  # something was answered since whoever asks last put it back
        self.hangs_up = False
        self.lingers = False  # the client may still be sending: it is to read the answer before the end

    @property
    def is_busy(self) -> bool:
        """Whether answers to whole requests are still to come."""
        return self._waits or self.has_more

    @property
    def owes(self) -> bool:
        """Whether answers wait for the client to take them."""
        return False

    @property
    def is_full(self) -> bool:
        """Whether nothing more is to be read for now."""
        return self._waits and len(self._reader.trailing_data[0]) > AHEAD_OCTETS

    def receive(self, octets: bytes) -> None:
        """Take what came, and do a turn's work."""
        if self.hangs_up:
            return
        self._reader.receive_data(octets)
        if not self.has_more:
            self.work()

    def ended(self) -> None:
        """The client will send no more."""
        if not self.hangs_up:
            self.receive(b"")

    def leave(self) -> None:
        """Take no new requests, and hang up when the one under way is answered."""
        self._leaving = True
        if not self._waits and not self.has_more:
            self.hangs_up = True

    def resume(self) -> None:
        """Go on: the client reads again."""
        if not self.has_more:
            self.work()

    def work(self) -> None:
        """Do a turn's work on what has come."""
        self.has_more = False
        self._working = True
        taken = 0
        try:
            while not self.hangs_up and not self._waits and not self._line.is_blocked:
                if taken == TURN or self._out_octets >= FLUSH_OCTETS:
                    self.has_more = True
                    break
                event = self._reader.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    break
                if isinstance(event, h11.Request):
                    self._begin(event)
                elif isinstance(event, h11.Data):
                    self._take(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    taken += 1
                    self._complete()
                else:  # the client closed
                    self.hangs_up = True
        except h11.RemoteProtocolError as error:
            self._garbled(error.error_status_hint)
        self._working = False
        if self._out:
            octets = b"".join(self._out)
            self._out.clear()
            self._out_octets = 0
            self._line.write(octets)

    def _begin(self, request: h11.Request) -> None:
        fields: Fields = [(bytes(name), bytes(value)) for name, value in request.headers]
        names = [name for name, _ in fields]
        if b"transfer-encoding" in names and (b"content-length" in names or request.http_version < b"1.1"):
            self._refuse_and_part(BAD)  # RFC 9112 §6.1
            return
        asked = self._desk.read(bytes(request.method), _origin_form(bytes(request.target)), fields)
        if asked is TOO_LARGE:
            self._refuse_and_part(asked)
            return
        self._asked, self._content, self._octets = asked, [], 0
        if self._reader.they_are_waiting_for_100_continue:
            if isinstance(asked, Refusal):
                self._refuse_and_part(asked)  # the content is as good as refused: it may come or not (RFC 9110 §10.1.1)
            else:
                self._send(h11.InformationalResponse(status_code=100, headers=[]))

    def _take(self, octets: bytes) -> None:
        self._octets += len(octets)
        if self._octets > MESSAGE_OCTETS:
            self._refuse_and_part(TOO_LARGE)
        else:
            self._content.append(octets)

    def _complete(self) -> None:
        asked, content = self._asked, b"".join(self._content)
        self._asked, self._content = None, []
        if isinstance(asked, Refusal):
            self._refuse(asked)
        elif asked is not None and asked.page is not None:
            page = self._desk.page(asked)
            if isinstance(page, Refusal):
                self._refuse(page)
            else:
                self._respond(200, page[0], page[1])
        elif asked is not None:
            message = asked.message if asked.message is not None else read_content(content)
            if isinstance(message, Refusal):
                self._refuse(message)
                return
            self._waits = True
            reply = self._desk.answer(message, asked.client, self._later)
            if reply is not None:
                self._answered(reply)

    def _later(self, reply: bytes | None) -> None:
        self._answered(reply)
        if not self._working:
            self.work()
            self._line.settle()

    def _answered(self, reply: bytes | None) -> None:
        self._waits = False
        self.progressed = True
        if reply is None:
            self.hangs_up = True  # policy says: no answer; an answer can not be left out among others
            return
        self._respond(200, reply_headers(reply, self._desk.terms.doh), reply)

    def _refuse(self, refusal: Refusal) -> None:
        self._respond(refusal.status, refusal_headers(refusal, self._desk.terms.doh), b"")

    def _refuse_and_part(self, refusal: Refusal) -> None:
        """Refuse a request without reading it to its end."""
        self._leaving = self.lingers = True
        self._refuse(refusal)

    def _garbled(self, status: int) -> None:
        """Say what is wrong with what is no request, if there is still room to say it, and hang up."""
        self.hangs_up = self.lingers = True
        if self._reader.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        refusal = Refusal(status)
        if status == 431 and b"\n" not in self._reader.trailing_data[0][:PATH_OCTETS]:
            refusal = TOO_LONG  # not even the first line ends
        self._leaving = True
        self._refuse(refusal)

    def _respond(self, status: int, fields: Fields, content: bytes) -> None:
        if self._leaving:
            fields = [*fields, (b"connection", b"close")]
        self._send(
            h11.Response(status_code=status, headers=fields, reason=HTTPStatus(status).phrase),
            h11.Data(data=content),
            h11.EndOfMessage(),
        )
        if self._reader.our_state is h11.DONE and self._reader.their_state is h11.DONE:
            self._reader.start_next_cycle()
        else:
            self.hangs_up = True

    def _send(self, *events: h11.Event) -> None:
        pieces = [self._reader.send(event) or b"" for event in events]
        self._out += pieces
        self._out_octets += sum(map(len, pieces))


def _origin_form(target: bytes) -> bytes:
    """Path and query of a request target, which may be a whole URI (RFC 9112 §3.2.2)."""
    if target.startswith(b"/"):
        return target
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        return target
    slash = rest.find(b"/")
    return rest[slash:] if slash >= 0 else b"/"
