"""Fetching a list over HTTPS into its last good copy.

One `fetch` asks once. Whatever the source does, the last good copy stands until a list came whole, signed where a key
is set, read by its reader, and not shrunk beyond what is allowed: a source that is gone, broken or taken over unbans
nobody. How it went is kept in the copy's state, with the moment of the next attempt.

Four limits hold what a source can cost: octets on the wire and unpacked, time to connect, time between two pieces, and
time in all. The last is a cancellation and needs no clock of ours, which is why asynchronous I/O hides in a plain
function: an event loop can end a wait wherever it is, in a header that arrives octet by octet too.
"""

import asyncio
import ssl
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path

import httpx2 as httpx

from resolver import __version__
from resolver.feeds.copies import Copy, FeedError, State, list_path, read_copy, write_copy, write_state
from resolver.feeds.signature import MOST_SIGNATURE_OCTETS, check_key, verify

MOST_REDIRECTS = 5
FIRST_RETRY_S = 60.0
MOST_RETRY_AFTER_S = 86400.0  # A source may ask to be left alone for a day, and not for ever.
SPREAD = 0.25  # How much of a delay `jitter` takes off at most, so that nodes that failed together come apart.
MOST_ERROR_CHARACTERS = 500

_GZIP = zlib.MAX_WBITS | 16  # zlib's own way to say: with a gzip header, and its checksum checked.
_PIECE_OCTETS = 1 << 20  # Unpacked at a time, so that a bomb is noticed while it is small.

Accept = Callable[[bytes], int]
"""Reads a list and returns how many entries it holds, or raises to refuse it."""

Progress = Callable[[int, int | None], None]
"""Is told how many octets came so far, and how many there are in all where the source said."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What to fetch, and on which terms.

    Attributes:
        name: Of the feed: lower-case letters, digits, dots and hyphens.
        url: `https://`; `http://` only at a loopback address or with `plain_http`.
        refresh_s: How often to look while all goes well.
        most_octets: The largest list that is taken, packed or unpacked.
        min_share: A list with less than this share of the last good copy's entries is refused; 0 takes any, also an
            empty one.
        public_key: With a minisign public key, `<url>.minisig` has to sign the list.
        ca_file: PEM file with the authorities to trust in place of the machine's.
        proxy: `http://host:port` of a proxy; those in the environment are not looked at.
        plain_http: Takes http:// from anywhere.
        connect_s: For a connection and its TLS handshake.
        read_s: Between two pieces of a reply.
        total_s: For everything, redirects and signature included.
    """

    name: str
    url: str
    refresh_s: float = 86400.0
    most_octets: int = 64 << 20
    min_share: float = 0.5
    public_key: str | None = None
    ca_file: Path | None = None
    proxy: str | None = None
    plain_http: bool = False
    connect_s: float = 10.0
    read_s: float = 30.0
    total_s: float = 300.0


class Turn(StrEnum):
    """How an attempt went."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt came to.

    Attributes:
        turn: CHANGED means that there is a new copy to compile.
        state: As it is kept now; its `error` says what failed.
        next_at: When to try again, Unix seconds.
        problems: What is wrong with the files of the copy, in sentences for the log.
    """

    turn: Turn
    state: State
    next_at: float
    problems: tuple[str, ...] = ()


def due_at(terms: Terms, state: State, at: float) -> float:
    """When a feed is to be fetched next, Unix seconds; `at` itself for at once.

    New terms are due at once, and so is a moment that no schedule would have chosen: the clock was wrong then.
    """
    if state.next_at is None or not _is_asked_alike(terms, state):
        return at
    due = state.next_at
    if state.failures == 0 and state.checked_at is not None:
        due = min(due, state.checked_at + terms.refresh_s)
    return due if due - at <= max(terms.refresh_s, MOST_RETRY_AFTER_S) else at


def fetch(
    terms: Terms,
    folder: Path,
    at: float,
    accept: Accept,
    progress: Progress | None = None,
    *,
    refusals: tuple[type[Exception], ...] = (),
    jitter: float = 0.0,
) -> Outcome:
    """Ask the source once, and keep what came of it.

    Not to be called where an event loop runs: give it a thread of its own there.

    Args:
        terms: What and how.
        folder: Of the copies; made where it is missing.
        at: Unix seconds.
        accept: Reads the list.
        progress: Is told after each piece.
        refusals: What `accept` raises, beside FeedError, to refuse a list.
        jitter: From 0 to 1, by chance: how much sooner than planned the next attempt is, up to a quarter.

    Raises:
        FeedError: The feed's name is no identifier. All else that goes wrong is told in the outcome.
    """
    copy = read_copy(folder, terms.name)
    asked = _state_to_ask_with(terms, copy)
    try:
        reply = asyncio.run(_ask(terms, asked, at, progress or _tell_nobody))
        next_at = at + terms.refresh_s * (1 - SPREAD * jitter)
        state = replace(asked, checked_at=at, error=None, failures=0, next_at=next_at)
        if reply is None:
            write_state(folder, terms.name, state)
            return Outcome(Turn.UNCHANGED, state, next_at, copy.problems)
        entries = _judge_size(terms, folder, copy, reply.octets, accept, (FeedError, *refusals))
        state = replace(state, etag=reply.etag, last_modified=reply.last_modified).of(reply.octets, entries)
        if reply.octets == copy.octets:
            state = replace(state, fetched_at=at if state.fetched_at is None else state.fetched_at)
            write_state(folder, terms.name, state)
            return Outcome(Turn.UNCHANGED, state, next_at, copy.problems)
        state = replace(state, fetched_at=at)
        write_copy(folder, terms.name, reply.octets, state)
        return Outcome(Turn.CHANGED, state, next_at, copy.problems)
    except _StatusError as error:
        return _fail(terms, folder, at, copy, asked, jitter, str(error), error.retry_after_s)
    except FeedError as error:
        return _fail(terms, folder, at, copy, asked, jitter, str(error))
    except OSError as error:
        return _fail(terms, folder, at, copy, asked, jitter, _unwritable(folder, error))


@dataclass(frozen=True, slots=True)
class _Reply:
    octets: bytes
    etag: str | None
    last_modified: str | None


class _StatusError(FeedError):
    """A reply without a list in it, and how long its sender wants to be left alone."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def _tell_nobody(octets: int, in_all: int | None) -> None:
    pass


def _is_asked_alike(terms: Terms, state: State) -> bool:
    return (state.url, state.public_key) == (terms.url, terms.public_key)


def _state_to_ask_with(terms: Terms, copy: Copy) -> State:
    """The state, with validators only if "not modified" would be said of this copy, on these terms."""
    state = copy.state
    if not _is_asked_alike(terms, state):
        # What was fetched from elsewhere, or never held against this key, has to come again. The copy stays meanwhile.
        state = replace(state, url=terms.url, public_key=terms.public_key, etag=None, last_modified=None, failures=0)
    if not copy.is_vouched_for:
        state = replace(state, etag=None, last_modified=None)
    return state


def _judge_size(
    terms: Terms, folder: Path, copy: Copy, octets: bytes, accept: Accept, refused: tuple[type[Exception], ...]
) -> int:
    """Have a list read, compare it with the last good copy, and return how many entries it holds."""
    try:
        entries = accept(octets)
    except refused as error:
        raise FeedError(str(error)) from error
    if terms.min_share <= 0:
        return entries
    if entries == 0:
        raise FeedError(
            "the list is empty, and the last good copy stays; write the address of the list itself, or min_share: 0"
            " if it may be empty"
        )
    before = _count_before(copy, accept, refused)
    if entries < before * terms.min_share:
        raise FeedError(
            f"the list shrank from {before} to {entries} entries, below the share of {terms.min_share:g} that is"
            f" allowed, and the last good copy stays; if that is right, lower min_share or remove"
            f" {list_path(folder, terms.name)}"
        )
    return entries


def _count_before(copy: Copy, accept: Accept, refused: tuple[type[Exception], ...]) -> int:
    if copy.octets is None:
        return 0
    if copy.is_vouched_for:
        return copy.state.entries
    try:
        return accept(copy.octets)
    except refused:
        return 0


def _fail(
    terms: Terms,
    folder: Path,
    at: float,
    copy: Copy,
    asked: State,
    jitter: float,
    why: str,
    retry_after_s: float = 0.0,
) -> Outcome:
    """Note a failure, and when to try again: after 1, 2, 4 ... minutes, at most the time between two refreshes."""
    delay = min(FIRST_RETRY_S * 2 ** min(asked.failures, 30), terms.refresh_s) * (1 - SPREAD * jitter)
    next_at = at + max(delay, retry_after_s)
    state = replace(asked, failed_at=at, error=_sentence(why), failures=asked.failures + 1, next_at=next_at)
    problems = copy.problems
    try:
        write_state(folder, terms.name, state)
    except OSError as error:
        problems = (*problems, _unwritable(folder, error))
    return Outcome(Turn.FAILED, state, next_at, problems)


def _unwritable(folder: Path, error: OSError) -> str:
    return f"{folder} cannot be written ({error.strerror}); check its permissions and the room on the disk"


def _sentence(text: str) -> str:
    """What a source may have put into a message cannot act on a terminal or fill a log."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:MOST_ERROR_CHARACTERS]


async def _ask(terms: Terms, asked: State, at: float, progress: Progress) -> _Reply | None:
    """Fetch the list, and its signature where one is wanted; None where the copy is what the source has."""
    url = _parse(terms.url)
    if terms.public_key is not None:
        check_key(terms.public_key)
    validators = {"If-None-Match": asked.etag, "If-Modified-Since": asked.last_modified}
    headers = {field: value for field, value in validators.items() if value is not None and _is_sendable(value)}
    try:
        async with asyncio.timeout(terms.total_s), _client(terms) as client:
            reply = await _get(client, url, headers, terms, at, terms.most_octets, progress)
            if reply is not None and terms.public_key is not None:
                path, mark, query = url.raw_path.partition(b"?")
                beside = url.copy_with(raw_path=path + b".minisig" + mark + query)
                signature = await _get(client, beside, {}, terms, at, MOST_SIGNATURE_OCTETS, _tell_nobody)
                verify(reply.octets, b"" if signature is None else signature.octets, terms.public_key)
            return reply
    except TimeoutError:
        raise FeedError(
            f"{_shown(url)} had not given the whole list after {terms.total_s:g} s; see how fast the network is, or"
            " choose a smaller list"
        ) from None


def _client(terms: Terms) -> httpx.AsyncClient:
    try:
        # With a file of authorities only these are trusted, without one the machine's.
        tls = ssl.create_default_context(cafile=terms.ca_file)
    except OSError as error:
        raise FeedError(
            f"ca_file {terms.ca_file} cannot be used ({error.strerror or error}); write the path of a readable PEM file"
        ) from error
    if terms.proxy is not None and _parse(terms.proxy).scheme not in ("http", "https"):
        raise FeedError(f"the proxy {_shown(_parse(terms.proxy))} cannot be used; write http://host:port")
    return httpx.AsyncClient(
        verify=tls,
        proxy=terms.proxy,
        trust_env=False,
        timeout=httpx.Timeout(terms.read_s, connect=terms.connect_s),
        headers={"User-Agent": f"Interdict/{__version__}", "Accept-Encoding": "gzip"},
    )


async def _get(
    client: httpx.AsyncClient,
    url: httpx.URL,
    headers: Mapping[str, str],
    terms: Terms,
    at: float,
    most_octets: int,
    progress: Progress,
) -> _Reply | None:
    """Follow an address to what it leads to, and read that; None where it is what the validators tell of."""
    request = client.build_request("GET", url, headers=dict(headers))
    for _ in range(MOST_REDIRECTS + 1):
        _check_address(request.url, terms)
        try:
            response = await client.send(request, stream=True)
            try:
                if response.next_request is None:
                    return await _read(response, bool(headers), at, most_octets, progress)
                following = response.next_request
            finally:
                await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            raise FeedError(_explain(error, request.url, terms)) from error
        if request.url.scheme == "https" and following.url.scheme != "https":
            raise FeedError(
                f"{_shown(request.url)} redirects to {_shown(following.url)}, where anybody on the way could change"
                " the list; write an address that stays with https://"
            )
        request = following
    raise FeedError(f"{_shown(url)} redirects more than {MOST_REDIRECTS} times; write the address of the list itself")


async def _read(
    response: httpx.Response, is_conditional: bool, at: float, most_octets: int, progress: Progress
) -> _Reply | None:
    where = _shown(response.request.url)
    if response.status_code == 304 and is_conditional:
        return None
    if response.status_code != 200:
        mend = _MENDS.get(response.status_code, "it is tried again; if that lasts, ask who keeps the list")
        retry_after_s = _seconds_until(response.headers.get("Retry-After", ""), at)
        raise _StatusError(f"{where} answered {response.status_code} {response.reason_phrase}; {mend}", retry_after_s)
    coding = response.headers.get("Content-Encoding", "").strip().lower() or "identity"
    if coding not in ("identity", "gzip", "x-gzip"):
        raise FeedError(f"{where} sent the list packed as {coding}, which was not asked for; choose another address")
    length = response.headers.get("Content-Length", "")
    in_all = int(length) if length.isdecimal() else None
    too_large = FeedError(
        f"{where} has more than {most_octets} octets; write the address of a list, or allow more octets"
    )
    if in_all is not None and in_all > most_octets:
        raise too_large
    unpack = _Identity() if coding == "identity" else _Gzip()
    octets = bytearray()
    try:
        async for piece in response.aiter_raw():
            for part in unpack.feed(piece):
                octets += part
                if len(octets) > most_octets:
                    raise too_large
            if response.num_bytes_downloaded > most_octets:
                raise too_large
            progress(response.num_bytes_downloaded, in_all)
    except zlib.error as error:
        raise FeedError(f"{where} cannot be unpacked ({error}); it is tried again") from error
    if not unpack.is_whole:
        raise FeedError(f"{where} broke off inside what it had packed; it is tried again")
    headers = response.headers
    return _Reply(bytes(octets), headers.get("ETag"), headers.get("Last-Modified"))


_MENDS = {
    401: "check the name and the password in the address",
    403: "ask who keeps the list whether it may be fetched from here",
    404: "write the address where it is now",
    407: "check the name and the password of the proxy",
    410: "write the address where it is now",
}


class _Identity:
    """What came, as it came."""

    is_whole = True

    def feed(self, piece: bytes) -> Iterator[bytes]:
        yield piece


class _Gzip:
    """Unpacks piece by piece, and knows an end from a cut: the HTTP library takes a cut stream for a whole one.

    Source: RFC 1952 §2.2: a file is a series of members.
    """

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)

    @property
    def is_whole(self) -> bool:
        return self._member.eof

    def feed(self, piece: bytes) -> Iterator[bytes]:
        while piece:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP)
            part = self._member.decompress(piece, _PIECE_OCTETS)
            piece = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            yield part


def _parse(text: str) -> httpx.URL:
    try:
        return httpx.URL(text)
    except httpx.InvalidURL as error:
        raise FeedError(f"{text!r} is no address ({error}); write https://host/path") from error


def _check_address(url: httpx.URL, terms: Terms) -> None:
    if url.port is not None and url.port > 65535:
        raise FeedError(f"{_shown(url)} is no address (a port has a number up to 65535); write https://host/path")
    if url.host and (url.scheme == "https" or (url.scheme == "http" and (terms.plain_http or _is_loopback(url.host)))):
        return
    raise FeedError(
        f"{_shown(url)} cannot be fetched safely; write an address that begins with https:// (http:// is taken at a"
        " loopback address)"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False  # A name, whatever it is, leads where its answers say.


def _is_sendable(validator: str) -> bool:
    """Whether a validator can stand in a header; a state that was edited may hold anything."""
    return validator.isascii() and validator.isprintable() and len(validator) <= 1000


def _shown(url: httpx.URL) -> str:
    """An address for messages: without the name, password and query that may be somebody's secret."""
    path = url.raw_path.partition(b"?")[0].decode()
    return f"{url.scheme}://{url.netloc.decode()}{path}" if url.host else f'"{path}"'


def _explain(error: Exception, url: httpx.URL, terms: Terms) -> str:
    where = _shown(url)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"{where} has a certificate that cannot be trusted ({cause.verify_message}); check this machine's"
                " clock, and for an authority of your own write ca_file"
            )
        cause = cause.__cause__ or cause.__context__
    match error:
        case httpx.ConnectTimeout():
            return f"{where} took no connection within {terms.connect_s:g} s; check the address and the firewall"
        case httpx.TimeoutException():
            return f"{where} fell silent for {terms.read_s:g} s; it is tried again"
        case httpx.ProxyError():
            return f"the proxy refused to lead to {where} ({error}); check its address and what it allows"
        case httpx.ConnectError():
            return f"{where} cannot be reached ({error}); check the address, the network and this machine's resolver"
        case httpx.RemoteProtocolError() | httpx.ReadError() | httpx.WriteError():
            return f"{where} broke off ({error or 'the connection was lost'}); it is tried again"
        case _:
            return f"{where} cannot be fetched ({error or type(error).__name__}); check the address"


def _seconds_until(retry_after: str, at: float) -> float:
    """Read Retry-After, seconds or a date (RFC 9110 §10.2.3); 0 where it says nothing usable, a day at most."""
    try:
        if retry_after.isascii() and retry_after.isdigit():
            seconds = float(retry_after)
        else:
            until = parsedate_to_datetime(retry_after)
            seconds = (until if until.tzinfo is not None else until.replace(tzinfo=UTC)).timestamp() - at
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), MOST_RETRY_AFTER_S)
