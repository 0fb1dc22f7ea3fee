"""DNS over HTTPS as values: a request's method, path and header fields in, a DNS message or a refusal out.

The rules of RFC 8484 stand here once, for HTTP/1.1, HTTP/2 and HTTP/3. No sockets, no streams: who speaks one of those
versions hands in what its library read. Header fields are octets, their names in lower case, pseudo-header fields not
among them.

A request may show who asks: by what follows the path (`/dns-query/TOKEN`), or by a bearer token. Both are only read
here; whose they are, and whether anybody's, is for others to find out.

Caches. What we answer depends on who asks, so every reply is `private`: a cache between two clients must not give one
the other's answer (RFC 9111 §5.2.2.7). Its freshness is the lowest TTL of the message (RFC 8484 §5.1), and what has no
TTL to go by is not to be stored, since a cache would else be free to guess (RFC 9111 §4.2.2).
"""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from resolver.policy.client import Client, Credentials
from resolver.wire.freshness import lowest_ttl
from resolver.wire.message import HEADER_OCTETS

Headers = Iterable[tuple[bytes, bytes]]

MESSAGE_OCTETS: Final = 65_535  # the longest DNS message (RFC 8484 §6)
TOKEN_OCTETS: Final = 256  # the longest token that is looked at; ours have far fewer
CLIENTS: Final = 16  # of one connection that are kept; a device needs one

_MEDIA_TYPE = b"application/dns-message"
_TOKEN = re.compile(
    rb"[A-Za-z0-9._~-]{1,%d}" % TOKEN_OCTETS
)  # unreserved characters (RFC 3986 §2.3): one spelling each
_BEARER = re.compile(rb"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)  # RFC 6750 §2.1
_BASE64URL = re.compile(rb"[A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class DohTerms:
    """What is served.

    Attributes:
        path: Of the service, without a slash at the end (RFC 8484 §3 leaves the choice to the server).
        alt_svc: The value of an `alt-svc` field that every reply carries (RFC 7838 §3), or None.
    """

    path: bytes = b"/dns-query"
    alt_svc: bytes | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A request as its head has it.

    Attributes:
        message: The DNS message, at least a header long; None if it comes as content: `read_content` takes it then.
        path_token: What followed the path, if anything.
        bearer: The bearer token, if one was sent.
    """

    message: bytes | None
    path_token: str | None = None
    bearer: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request gets no DNS message: a status code, and what goes with it. It has no content."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()


NOT_FOUND = Refusal(404)
NOT_ALLOWED = Refusal(405, ((b"allow", b"GET, POST"),))  # RFC 9110 §15.5.6
UNSUPPORTED = Refusal(415, ((b"accept", _MEDIA_TYPE),))  # RFC 9110 §15.5.16
BAD = Refusal(400)
TOO_LARGE = Refusal(413)
TOO_LONG = Refusal(414)


def read_request(method: bytes, path: bytes, headers: Headers, terms: DohTerms) -> Request | Refusal:
    """Read a request's head.

    What is refused here is refused whatever its content, so nobody has to wait for that. The order is that of the
    questions: is it here (404), may one do that (405), in that form (415, 413), and is it well formed (400, 414).

    Args:
        method: As it came; methods are case-sensitive (RFC 9110 §9.1).
        path: Path and query, from the slash on.
        headers: The fields.
        terms: What is served.
    """
    path, _, query = path.partition(b"?")
    path_token = None
    if path != terms.path:
        head, _, token = path.rpartition(b"/")
        if head != terms.path or not _TOKEN.fullmatch(token):
            return NOT_FOUND
        path_token = token.decode("ascii")
    if method == b"GET":
        message = _message_of(query)
        if isinstance(message, Refusal):
            return message
        bearer = _bearer_of(headers)
        return bearer if isinstance(bearer, Refusal) else Request(message, path_token, bearer)
    if method != b"POST":
        return NOT_ALLOWED
    headers = list(headers)
    refusal = _refusal_of_content(headers)
    if refusal is not None:
        return refusal
    bearer = _bearer_of(headers)
    return bearer if isinstance(bearer, Refusal) else Request(None, path_token, bearer)


def read_content(content: bytes) -> bytes | Refusal:
    """The DNS message that the content of a POST is (RFC 8484 §4.1), or why it is none."""
    if len(content) > MESSAGE_OCTETS:
        return TOO_LARGE
    # Of what has no header, or is a response, no DNS message could be made in reply, and HTTP knows no silence.
    return content if len(content) >= HEADER_OCTETS and content[2] < 0x80 else BAD


def reply_headers(reply: bytes, terms: DohTerms) -> list[tuple[bytes, bytes]]:
    """The fields of a 200 with a DNS message as its content; whatever its RCODE (RFC 8484 §4.2.1)."""
    seconds = lowest_ttl(reply)
    headers = [
        (b"content-type", _MEDIA_TYPE),
        (b"content-length", b"%d" % len(reply)),
        (b"cache-control", b"no-store" if seconds is None else b"private, max-age=%d" % seconds),
    ]
    if terms.alt_svc is not None:
        headers.append((b"alt-svc", terms.alt_svc))
    return headers


def refusal_headers(refusal: Refusal, terms: DohTerms) -> list[tuple[bytes, bytes]]:
    """The fields of a refusal. Some of its statuses could be stored by default (RFC 9110 §15.1), and are not to be."""
    headers = [*refusal.headers, (b"content-length", b"0"), (b"cache-control", b"no-store")]
    if terms.alt_svc is not None:
        headers.append((b"alt-svc", terms.alt_svc))
    return headers


class Clients:
    """The clients that come over one connection: one for each path token and authorization, made once."""

    def __init__(self, client: Client) -> None:
        """Begin with what the connection alone shows."""
        self._client = client
        self._made: dict[tuple[str | None, str | None], Client] = {}

    def of(self, request: Request) -> Client:
        """Who sends a request."""
        key = (request.path_token, request.bearer)
        if key == (None, None):
            return self._client
        client = self._made.get(key)
        if client is None:
            shown = self._client.credentials or Credentials()
            shown = replace(shown, path_token=request.path_token, bearer=request.bearer)
            client = replace(self._client, credentials=shown)
            if len(self._made) >= CLIENTS:
                self._made.clear()
            self._made[key] = client
        return client


def _message_of(query: bytes) -> bytes | Refusal:
    """The message in the variable `dns` of a URI's query (RFC 8484 §6): base64url, without padding."""
    found: bytes | None = None
    for variable in query.split(b"&"):
        if variable.startswith(b"dns="):
            if found is not None:
                return BAD
            found = variable[4:]
    if found is None or not _BASE64URL.fullmatch(found):
        return BAD
    if len(found) * 3 // 4 > MESSAGE_OCTETS:
        return TOO_LONG
    try:
        return read_content(base64.urlsafe_b64decode(found + b"=" * (-len(found) % 4)))
    except binascii.Error:  # one character too many
        return BAD


def _refusal_of_content(headers: list[tuple[bytes, bytes]]) -> Refusal | None:
    """What the head of a POST says against its content."""
    fields = dict(headers)
    # A parameter makes it no other type (RFC 9110 §8.3.1). The type defines none (RFC 8484 §6), so all are ignored.
    media_type = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
    coding = fields.get(b"content-encoding", b"identity").strip().lower()
    if media_type != _MEDIA_TYPE or coding != b"identity":
        return UNSUPPORTED
    octets = fields.get(b"content-length")
    if octets is None:
        return None
    if not octets.isdigit():
        return BAD
    return TOO_LARGE if len(octets.lstrip(b"0")) > 5 or int(octets) > MESSAGE_OCTETS else None


def _bearer_of(headers: Headers) -> str | Refusal | None:
    """The bearer token. Other schemes are left alone; this one, if not well formed, is refused (RFC 6750 §3.1)."""
    found: str | None = None
    for name, value in headers:
        if name != b"authorization":
            continue
        value = value.strip()
        if value.partition(b" ")[0].lower() != b"bearer":
            continue
        match = _BEARER.fullmatch(value)
        if match is None or found is not None or len(match[1]) > TOKEN_OCTETS:
            return BAD
        found = match[1].decode("ascii")
    return found
