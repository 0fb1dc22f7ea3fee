"""Fetching over HTTPS: what a good source gives is kept, and whatever a bad one does, the last good copy stands."""

import gzip
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resolver import __version__
from resolver.feeds import download
from resolver.feeds.copies import Copy, FeedError, State, list_path, read_copy, state_path
from resolver.feeds.download import Outcome, Terms, Turn, due_at, fetch
from tests.support.source import Answer, Authority, Source, says, unless_known, writes

AT = 2_000_000_000.0
DAY = 86400.0
LIST = b"".join(b"name%d.example\n" % i for i in range(10))
LATER_LIST = LIST + b"later.example\n"
DATE = "Wed, 18 May 2033 03:33:20 GMT"  # AT

# Made by minisign 0.11 over LIST and LATER_LIST, with a key that signed nothing else.
KEY = "RWTav9vbWHT/zt1OIpHZlgqBl9T51iytG0el5bkm4HEfhRpUr0PAPD8E"
SIGNATURE = b"""\
untrusted comment: signature from minisign secret key
RUTav9vbWHT/zp+oMbMnEhODYw2sp1mYoJvAzvBCitsJU7av7D5G+alG/77fJSYF+yj0r5MNa7Zz1w6nBXQcX6q2pocc7chlxAU=
trusted comment: list
xujyH4LcPkb1LVPNUCAIgzbelVDgCe1nZE0Xhxt/kfJMRKvk+tsXeNhSK5lwyxmfaowJnve+sRwApniUrHtaBA==
"""
LATER_SIGNATURE = b"""\
untrusted comment: signature from minisign secret key
RUTav9vbWHT/zs9JD3k768//T0oslqSIYfeNeoq7CsWeQUcRATiGzxDBNJCr3AwuuIKuiVGcg7GCswccE9CIFWlQmpKCG1zT5gY=
trusted comment: later
+qgCbRaD6eQ6obXShK/7vBCGR0lLuih/pvGx8kbpEoS7fVgK+RSOuFX9HtVdatIFcD4drP7MCD/t3nIvaKTvAg==
"""


class Unreadable(Exception):
    """What the reader of these lists refuses with."""


def count(octets: bytes) -> int:
    """Read a list: a name a line."""
    if octets.startswith(b"<"):
        raise Unreadable("line 1: this is a page,\n not a list; write the address of the list itself")
    names = octets.split()
    if any(b"." not in name for name in names):
        raise Unreadable("this is no name; write one a line")
    return len(names)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def serve() -> Iterator[Callable[[Path | None], Source]]:
    """`serve(certificate)` is a running source; without a certificate it speaks plain HTTP."""
    running: list[tuple[Source, threading.Thread]] = []

    def start(certificate: Path | None = None) -> Source:
        source = Source()
        if certificate is not None:
            source.wrap(certificate)
        thread = threading.Thread(target=source.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((source, thread))
        return source

    yield start
    for source, thread in running:
        source.end.set()
        source.shutdown()
        source.server_close()
        thread.join()


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Path:
    return authority.certificate("127.0.0.1", timedelta(days=1))


@pytest.fixture
def source(serve: Callable[[Path | None], Source], certificate: Path) -> Source:
    """An HTTPS server whose certificate is good."""
    return serve(certificate)


@pytest.fixture
def terms(source: Source, authority: Authority) -> Terms:
    return Terms("bans", source.url(), ca_file=authority.ca_file, connect_s=5, read_s=5, total_s=5)


def fetch_at(terms: Terms, folder: Path, at: float = AT, jitter: float = 0.0) -> Outcome:
    return fetch(terms, folder, at, count, refusals=(Unreadable,), jitter=jitter)


@pytest.fixture
def kept(source: Source, terms: Terms, tmp_path: Path) -> Copy:
    """LIST is the last good copy, fetched at AT with an ETag."""
    source.pages["/list"] = says(LIST, ETag='"1"', Last_Modified=DATE)
    assert fetch_at(terms, tmp_path).turn is Turn.CHANGED
    source.asked.clear()
    return read_copy(tmp_path, "bans")


def failure_of(terms: Terms, folder: Path, kept: Copy) -> str:
    """Fetch a minute later, expect that it fails and that the last good copy stands, and return why it failed."""
    outcome = fetch_at(terms, folder, AT + 60)
    after = read_copy(folder, terms.name)

    assert outcome.turn is Turn.FAILED
    assert after.octets == kept.octets
    assert after.state == outcome.state
    assert outcome.state.error is not None
    assert outcome.state == replace(
        kept.state,
        url=terms.url,
        public_key=terms.public_key,
        etag=outcome.state.etag,
        last_modified=outcome.state.last_modified,
        error=outcome.state.error,
        failed_at=AT + 60,
        failures=1,
        next_at=outcome.next_at,
    )
    return outcome.state.error


def test_a_list_is_fetched_and_kept(source: Source, terms: Terms, tmp_path: Path) -> None:
    """Octet for octet, with all that is to be known of it."""
    source.pages["/list"] = says(LIST, ETag='"1"', Last_Modified=DATE)

    outcome = fetch_at(terms, tmp_path / "feeds")

    copy = read_copy(tmp_path / "feeds", "bans")
    assert (outcome.turn, outcome.problems) == (Turn.CHANGED, ())
    assert copy == Copy(LIST, outcome.state)
    assert copy.is_vouched_for
    assert outcome.state == State(
        url=terms.url,
        etag='"1"',
        last_modified=DATE,
        digest=outcome.state.digest,
        octets=len(LIST),
        entries=10,
        fetched_at=AT,
        checked_at=AT,
        next_at=AT + DAY,
    )
    assert outcome.next_at == AT + DAY
    path, headers = source.asked[0]
    assert path == "/list"
    assert headers["User-Agent"] == f"Interdict/{__version__}"
    assert headers["Accept-Encoding"] == "gzip"
    assert "If-None-Match" not in headers
    assert "If-Modified-Since" not in headers


def test_a_list_that_did_not_change_is_not_sent_again(source: Source, terms: Terms, tmp_path: Path, kept: Copy) -> None:
    """Asked with the validators of the copy; 304 says that the list was looked at."""
    source.pages["/list"] = unless_known(LIST, '"1"', DATE)

    outcome = fetch_at(terms, tmp_path, AT + DAY)

    assert outcome.turn is Turn.UNCHANGED
    assert outcome.state == replace(kept.state, checked_at=AT + DAY, next_at=AT + 2 * DAY)
    assert read_copy(tmp_path, "bans") == Copy(LIST, outcome.state)
    headers = source.asked[0][1]
    assert (headers["If-None-Match"], headers["If-Modified-Since"]) == ('"1"', DATE)


def test_the_same_list_sent_again_is_no_change(source: Source, terms: Terms, tmp_path: Path, kept: Copy) -> None:
    """A server without validators costs a download and no compilation."""
    source.pages["/list"] = says(LIST)

    outcome = fetch_at(terms, tmp_path, AT + DAY)

    assert outcome.turn is Turn.UNCHANGED
    assert (outcome.state.etag, outcome.state.last_modified) == (None, None)
    assert (outcome.state.fetched_at, outcome.state.checked_at) == (AT, AT + DAY)


def test_a_new_list_takes_the_place_of_the_old_one(source: Source, terms: Terms, tmp_path: Path, kept: Copy) -> None:
    """And its state that of the old one's."""
    source.pages["/list"] = unless_known(LATER_LIST, '"2"', DATE)

    outcome = fetch_at(terms, tmp_path, AT + DAY)

    assert outcome.turn is Turn.CHANGED
    assert (outcome.state.etag, outcome.state.entries, outcome.state.fetched_at) == ('"2"', 11, AT + DAY)
    assert read_copy(tmp_path, "bans") == Copy(LATER_LIST, outcome.state)


@pytest.mark.parametrize("packed", [gzip.compress(LATER_LIST), gzip.compress(LIST) + gzip.compress(b"later.example\n")])
def test_a_packed_list_is_unpacked(source: Source, terms: Terms, tmp_path: Path, packed: bytes) -> None:
    """A stream of one member, or of several."""
    source.pages["/list"] = says(packed, Content_Encoding="gzip")

    assert fetch_at(terms, tmp_path).turn is Turn.CHANGED
    assert read_copy(tmp_path, "bans").octets == LATER_LIST


def test_progress_is_told(source: Source, terms: Terms, tmp_path: Path) -> None:
    """Octets so far, and in all where the source says how many."""
    told: list[tuple[int, int | None]] = []
    source.pages["/list"] = says(LIST * 20_000)
    source.pages["/piecemeal"] = writes(b"HTTP/1.1 200 OK\r\n\r\n" + LIST)

    fetch(terms, tmp_path, AT, count, lambda octets, in_all: told.append((octets, in_all)))

    assert len(told) > 1
    assert told == sorted(told)
    assert told[-1] == (len(LIST) * 20_000, len(LIST) * 20_000)
    told.clear()
    whole = replace(terms, name="other", url=source.url("/piecemeal"))
    fetch(whole, tmp_path, AT, count, lambda octets, in_all: told.append((octets, in_all)))
    assert told[-1] == (len(LIST), None)


def test_redirects_are_followed(source: Source, terms: Terms, tmp_path: Path) -> None:
    """Five of them, by any of the statuses; a sixth is one too many."""
    for i, status in enumerate((301, 302, 303, 307, 308)):
        source.pages[f"/{i}"] = says(b"", status, Location=f"/{i + 1}" if i < 4 else source.url("/list"))
    source.pages["/list"] = says(LIST)

    assert fetch_at(replace(terms, url=source.url("/0")), tmp_path).turn is Turn.CHANGED
    assert [path for path, _ in source.asked] == ["/0", "/1", "/2", "/3", "/4", "/list"]
    source.pages["/more"] = says(b"", 301, Location="/0")
    outcome = fetch_at(replace(terms, url=source.url("/more")), tmp_path)
    assert "redirects more than 5 times" in str(outcome.state.error)


STATUSES = {
    "not there": (says(b"gone", 404), "answered 404 Not Found; write the address where it is now"),
    "forbidden": (says(b"", 403), "answered 403 Forbidden; ask who keeps the list"),
    "broken": (says(LIST, 500), "answered 500 Internal Server Error; it is tried again"),
    "no body": (writes(b"HTTP/1.1 204 No Content\r\n\r\n"), "answered 204 No Content"),
    "a part": (says(LIST, 206), "answered 206 Partial Content"),
    "a redirect to nowhere": (says(b"", 302), "answered 302 Found"),
    "a redirect to no address": (says(b"", 302, Location="https://[::1"), "answered 302 Found"),
    "a redirect to no port": (
        says(b"", 302, Location="https://127.0.0.1:65536/"),
        "is no address (a port has a number",
    ),
    "a redirect to itself": (says(b"", 302, Location="/list"), "redirects more than 5 times; write the address of"),
    "a redirect to plain HTTP": (
        says(b"", 301, Location="http://lists.example.org/list?secret"),
        "redirects to http://lists.example.org/list, where anybody on the way could change the list; write",
    ),
    "a redirect to plain HTTP at loopback": (says(b"", 301, Location="http://127.0.0.1/"), "redirects to http://127."),
    "a redirect to a file": (says(b"", 301, Location="file:///etc/passwd"), "redirects to file://"),
    "a page": (says(b"<html>Welcome to the hotel"), "line 1: this is a page, not a list; write the address of"),
    "empty": (says(b""), "the list is empty, and the last good copy stays; write the address of the list itself"),
    "only comments": (says(b" \n\n "), "the list is empty"),
    "shrunk": (
        says(b"".join(LIST.splitlines(True)[:4])),
        "the list shrank from 10 to 4 entries, below the share of 0.5 that is allowed, and the last good copy stays;"
        " if that is right, lower min_share or remove ",
    ),
    "cut": (says(LIST, Content_Length=str(len(LIST) + 1)), "broke off"),
    "cut in a chunk": (
        writes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n" + LIST),
        "broke off",
    ),
    "cut between chunks": (
        writes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(LIST), LIST)),
        "broke off",
    ),
    "nothing": (writes(b""), "broke off"),
    "another protocol": (writes(b"SSH-2.0-OpenSSH_9.2\r\n"), "broke off"),
    "endless headers": (writes(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 500_000), "broke off"),
    "a bad length": (says(LIST, Content_Length="-5"), "broke off"),
    "cut in a packed stream": (says(gzip.compress(LIST)[:-9], Content_Encoding="gzip"), "broke off inside what it had"),
    "cut in a packed stream's checksum": (says(gzip.compress(LIST)[:-1], Content_Encoding="gzip"), "broke off inside"),
    "nothing packed": (says(b"", Content_Encoding="gzip"), "broke off inside"),
    "packed in another way than it says": (says(zlib.compress(LIST), Content_Encoding="gzip"), "cannot be unpacked"),
    "not packed": (says(LIST, Content_Encoding="gzip"), "cannot be unpacked"),
    "wrongly packed": (says(gzip.compress(LIST)[:-8] + bytes(8), Content_Encoding="gzip"), "cannot be unpacked"),
    "packed otherwise": (says(zlib.compress(LIST), Content_Encoding="deflate"), "packed as deflate, which was not"),
    "packed twice": (says(gzip.compress(gzip.compress(LIST)), Content_Encoding="gzip, gzip"), "packed as gzip, gzip"),
}


@pytest.mark.parametrize(("answer", "why"), STATUSES.values(), ids=STATUSES.keys())
def test_the_last_good_copy_stands(
    source: Source, terms: Terms, tmp_path: Path, kept: Copy, answer: Answer, why: str
) -> None:
    """Whatever comes instead of a list; the state says what and when."""
    source.pages["/list"] = answer

    assert why in failure_of(terms, tmp_path, kept)
    # The validators are still those of the copy.
    assert source.asked[0][1]["If-None-Match"] == '"1"'
    assert read_copy(tmp_path, "bans").state.etag == '"1"'


_raw_replies = st.builds(
    lambda head, fields, body: head + b"".join(name + b": " + value + b"\r\n" for name, value in fields) + body,
    st.sampled_from(
        [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 304 Not Modified\r\n", b"HTTP/1.1 302 X\r\n"]
    )
    | st.binary(),
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"Location", b"ETag", b"Last-Modified", b"Content-Length", b"Content-Encoding", b"Retry-After"]
            ),
            st.binary(max_size=20)
            | st.sampled_from([b"//[", b"https://\xff", b"gzip", b"chunked", b"-1", b"\xc3\xa9"]),
        ),
        max_size=3,
    ),
    st.sampled_from([b"\r\n<html>", b"\r\n", b"", gzip.compress(b"<html>")]) | st.binary().map(b"\r\n<".__add__),
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(octets=_raw_replies)
def test_any_octets_come_to_an_outcome(source: Source, terms: Terms, tmp_path: Path, kept: Copy, octets: bytes) -> None:
    """Hostile as they may be, and none of them are a list here."""
    source.pages["/list"] = writes(octets)

    fetch_at(terms, tmp_path)

    assert read_copy(tmp_path, "bans").octets == LIST


def test_not_modified_is_no_answer_to_who_has_nothing(source: Source, terms: Terms, tmp_path: Path) -> None:
    """A broken cache on the way is told of."""
    source.pages["/list"] = says(b"", 304)

    outcome = fetch_at(terms, tmp_path)

    assert outcome.turn is Turn.FAILED
    assert "answered 304 Not Modified" in str(outcome.state.error)
    assert read_copy(tmp_path, "bans") == Copy(None, outcome.state)


LARGE = {
    "as it says": says(LIST * 100),
    "as it says before it begins": writes(b"HTTP/1.1 200 OK\r\nContent-Length: 10001\r\n\r\n"),
    "in a stream": writes(b"HTTP/1.1 200 OK\r\n\r\n" + LIST * 100),
    "packed": says(gzip.compress(LIST * 100), Content_Encoding="gzip"),
    "a bomb": says(gzip.compress(bytes(8 << 20)), Content_Encoding="gzip"),
    "nothing in much": writes(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"") * 1000),
}


@pytest.mark.parametrize("answer", LARGE.values(), ids=LARGE.keys())
def test_a_list_that_is_too_large_is_cut_off(
    source: Source, terms: Terms, tmp_path: Path, kept: Copy, answer: Answer
) -> None:
    """By its announced size, by what came, and by what that unpacks to."""
    source.pages["/list"] = answer

    why = failure_of(replace(terms, most_octets=10_000), tmp_path, kept)

    assert why == f"{source.url()} has more than 10000 octets; write the address of a list, or allow more octets"


def test_a_list_as_large_as_allowed_is_taken(source: Source, terms: Terms, tmp_path: Path) -> None:
    """The limit is inclusive."""
    source.pages["/list"] = says(LIST)

    assert fetch_at(replace(terms, most_octets=len(LIST)), tmp_path).turn is Turn.CHANGED


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 150\r\n\r\n"


@pytest.mark.parametrize("before", [b"", OK[:20], OK, OK + LIST[:100]], ids=["nothing", "status", "header", "half"])
def test_a_source_that_falls_silent_is_left(
    source: Source, terms: Terms, tmp_path: Path, kept: Copy, before: bytes
) -> None:
    """Wherever it does."""
    source.pages["/list"] = source.falls_silent(before)

    assert "fell silent for 0.1 s; it is tried again" in failure_of(replace(terms, read_s=0.1), tmp_path, kept)


@pytest.mark.slow
@pytest.mark.parametrize("before", [b"HTTP/1.1 200 OK\r\nX: ", OK], ids=["header", "body"])
def test_a_source_that_drips_is_left(source: Source, terms: Terms, tmp_path: Path, kept: Copy, before: bytes) -> None:
    """Though it never falls silent; a header that never ends counts too."""
    source.pages["/list"] = source.drips(before, b"x")

    why = failure_of(replace(terms, read_s=5, total_s=0.3), tmp_path, kept)

    assert "had not given the whole list after 0.3 s" in why


def test_a_source_that_does_not_listen_is_told(
    serve: Callable[[Path | None], Source], terms: Terms, tmp_path: Path, kept: Copy
) -> None:
    """With what to check."""
    closed = serve(None)
    closed.server_close()

    why = failure_of(replace(terms, url=f"https://127.0.0.1:{closed.server_port}/"), tmp_path, kept)

    assert "cannot be reached (" in why
    assert "check the address" in why


CERTIFICATES = {
    "expired": ("127.0.0.1", timedelta(days=-1), True, "certificate has expired"),
    "of another": ("192.0.2.1", timedelta(days=1), True, "IP address mismatch"),
    "of an unknown authority": ("127.0.0.1", timedelta(days=1), False, "unable to get local issuer certificate"),
}


@pytest.mark.parametrize(("address", "until", "is_known", "why"), CERTIFICATES.values(), ids=CERTIFICATES.keys())
def test_a_certificate_that_cannot_be_trusted_is_refused(
    serve: Callable[[Path | None], Source],
    authority: Authority,
    terms: Terms,
    tmp_path: Path,
    kept: Copy,
    address: str,
    until: timedelta,
    is_known: bool,
    why: str,
) -> None:
    """Nothing is asked over such a connection."""
    posing = serve(authority.certificate(address, until))
    posing.pages["/list"] = says(LATER_LIST)

    told = failure_of(replace(terms, url=posing.url(), ca_file=authority.ca_file if is_known else None), tmp_path, kept)

    assert "has a certificate that cannot be trusted" in told
    assert why in told
    assert "write ca_file" in told
    assert posing.asked == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://lists.example.org/list", "cannot be fetched safely; write an address that begins with https://"),
        ("http://192.0.2.1/list", "cannot be fetched safely"),
        ("http://localhost/list", "cannot be fetched safely"),
        ("http://127.0.0.1.example.org/list", "cannot be fetched safely"),
        ("file:///etc/passwd", "cannot be fetched safely"),
        ("lists.example.org/list", "cannot be fetched safely"),
        ("https:///list", "cannot be fetched safely"),
        ("", "cannot be fetched safely"),
        ("https://[::1/list", "is no address"),
        ("https://127.0.0.1:99999/list", "is no address (a port has a number up to 65535)"),
        (f"https://{'x' * 64}.example/", "cannot be"),
    ],
)
def test_an_address_that_is_not_safe_is_not_asked(terms: Terms, tmp_path: Path, kept: Copy, url: str, why: str) -> None:
    """HTTPS, or plain HTTP on this machine."""
    assert why in failure_of(replace(terms, url=url), tmp_path, kept)


def test_plain_http_is_taken_at_a_loopback_address(
    serve: Callable[[Path | None], Source], terms: Terms, tmp_path: Path
) -> None:
    """Nobody is on the way there."""
    plain = serve(None)
    plain.pages["/list"] = says(LIST)

    assert fetch_at(replace(terms, url=plain.url()), tmp_path).turn is Turn.CHANGED


def test_plain_http_is_taken_where_it_is_allowed(
    serve: Callable[[Path | None], Source], terms: Terms, tmp_path: Path
) -> None:
    """Here through a proxy, which is asked with the whole address; proxies are used where one is set."""
    proxy = serve(None)
    proxy.pages["http://192.0.2.1/list"] = says(LIST)
    through = replace(terms, url="http://192.0.2.1/list", proxy=proxy.url(""), plain_http=True)

    assert fetch_at(through, tmp_path).turn is Turn.CHANGED
    assert [path for path, _ in proxy.asked] == ["http://192.0.2.1/list"]


def test_the_environment_names_no_proxy(
    source: Source, terms: Terms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a shell has set does not lead lists astray."""
    source.pages["/list"] = says(LIST)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert fetch_at(terms, tmp_path).turn is Turn.CHANGED


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "127.0.0.1:3128", "proxy"])
def test_a_proxy_of_another_kind_is_told(terms: Terms, tmp_path: Path, kept: Copy, proxy: str) -> None:
    """With the form that is known."""
    assert "cannot be used; write http://host:port" in failure_of(replace(terms, proxy=proxy), tmp_path, kept)


@pytest.mark.parametrize("written", [None, b"", b"no certificate"])
def test_a_file_of_authorities_that_cannot_be_used_is_told(
    terms: Terms, tmp_path: Path, kept: Copy, written: bytes | None
) -> None:
    """Missing or without a certificate in it."""
    ca_file = tmp_path / "own.pem"
    if written is not None:
        ca_file.write_bytes(written)

    assert "own.pem cannot be used" in failure_of(replace(terms, ca_file=ca_file), tmp_path, kept)


def test_a_password_in_an_address_is_told_to_the_source_alone(
    source: Source, terms: Terms, tmp_path: Path, kept: Copy
) -> None:
    """And not to who reads the log."""
    secret = source.url("/gone?token=s3cret").replace("://", "://alice:s3cret@")

    assert "s3cret" not in failure_of(replace(terms, url=secret), tmp_path, kept)
    assert source.asked[0][0] == "/gone?token=s3cret"
    assert source.asked[0][1]["Authorization"].startswith("Basic ")


def test_what_a_source_says_cannot_act_on_a_terminal(source: Source, terms: Terms, tmp_path: Path, kept: Copy) -> None:
    """Nor fill a log."""
    source.pages["/list"] = writes(b"HTTP/1.1 500 \x1b[2J" + b"x" * 5000 + b"\r\nContent-Length: 0\r\n\r\n")

    why = failure_of(terms, tmp_path, kept)

    assert why.isprintable()
    assert len(why) <= download.MOST_ERROR_CHARACTERS


@pytest.mark.parametrize(
    ("min_share", "entries", "turn"),
    [
        (0.5, 5, Turn.CHANGED),
        (0.5, 4, Turn.FAILED),
        (0.9, 8, Turn.FAILED),
        (0.1, 1, Turn.CHANGED),
        (0, 0, Turn.CHANGED),
        (0.01, 0, Turn.FAILED),
        (1, 9, Turn.FAILED),
        (1, 10, Turn.CHANGED),
    ],
)
def test_how_far_a_list_may_shrink(
    source: Source, terms: Terms, tmp_path: Path, kept: Copy, min_share: float, entries: int, turn: Turn
) -> None:
    """To a share of the last good copy, that share included."""
    source.pages["/list"] = says(b"other.example\n" * entries)

    assert fetch_at(replace(terms, min_share=min_share), tmp_path).turn is turn


def test_an_empty_first_list_is_refused(source: Source, terms: Terms, tmp_path: Path) -> None:
    """There is nothing to compare it with, and it forbids nothing."""
    source.pages["/list"] = says(b"")

    assert fetch_at(terms, tmp_path).turn is Turn.FAILED
    assert not list_path(tmp_path, "bans").exists()


def test_shrinking_is_noticed_without_a_state(source: Source, terms: Terms, tmp_path: Path, kept: Copy) -> None:
    """The copy is read again to know what it holds."""
    state_path(tmp_path, "bans").write_bytes(b"{")
    source.pages["/list"] = says(b"a.example\n")

    outcome = fetch_at(terms, tmp_path, AT + 60)

    assert outcome.turn is Turn.FAILED
    assert "shrank from 10 to 1" in str(outcome.state.error)
    assert "bans.json is damaged" in outcome.problems[0]
    assert read_copy(tmp_path, "bans").octets == LIST


@pytest.mark.parametrize("damage", ["no state", "no list", "another list", "bad validators"])
def test_a_copy_that_is_not_vouched_for_is_fetched_whole(
    source: Source, terms: Terms, tmp_path: Path, kept: Copy, damage: str
) -> None:
    """Whatever was lost; "not modified" would be said of something else."""
    source.pages["/list"] = unless_known(LIST, '"1"', DATE)
    if damage == "no state":
        state_path(tmp_path, "bans").unlink()
    elif damage == "no list":
        list_path(tmp_path, "bans").unlink()
    elif damage == "another list":
        list_path(tmp_path, "bans").write_bytes(LIST[:-3])
    else:
        bad = replace(kept.state, etag='"1"\r\nX: y', last_modified="é")
        state_path(tmp_path, "bans").write_bytes(bad.to_json())

    assert fetch_at(terms, tmp_path).turn is not Turn.FAILED
    assert "If-None-Match" not in source.asked[0][1]
    assert read_copy(tmp_path, "bans") == Copy(LIST, kept.state)


def test_another_address_is_asked_without_validators(source: Source, terms: Terms, tmp_path: Path, kept: Copy) -> None:
    """The copy stays until that address gives a list, and the state tells of the new one."""
    source.pages["/other"] = unless_known(LATER_LIST, '"1"', DATE)
    moved = replace(terms, url=source.url("/other"))

    gone = fetch_at(replace(terms, url=source.url("/gone")), tmp_path)
    assert read_copy(tmp_path, "bans") == Copy(LIST, gone.state)
    assert (gone.state.etag, gone.state.last_modified, gone.state.url) == (None, None, source.url("/gone"))

    assert fetch_at(moved, tmp_path).turn is Turn.CHANGED
    assert read_copy(tmp_path, "bans").octets == LATER_LIST
    assert [headers.get("If-None-Match") for _, headers in source.asked] == [None, None]


def test_attempts_that_fail_come_further_and_further_apart(
    source: Source, terms: Terms, tmp_path: Path, kept: Copy
) -> None:
    """1, 2, 4 ... minutes, no more than between two refreshes; success ends it, and so does another address."""
    source.pages["/list"] = says(b"", 500)
    hourly = replace(terms, refresh_s=3600)

    outcomes = [fetch_at(hourly, tmp_path, AT + i) for i in range(8)]

    assert [outcome.next_at - AT - i for i, outcome in enumerate(outcomes)] == [
        60,
        120,
        240,
        480,
        960,
        1920,
        3600,
        3600,
    ]
    assert [outcome.state.failures for outcome in outcomes] == [1, 2, 3, 4, 5, 6, 7, 8]
    source.pages["/list"] = unless_known(LIST, '"1"', DATE)
    outcome = fetch_at(hourly, tmp_path, AT + 9)
    assert outcome.state == replace(kept.state, checked_at=AT + 9, next_at=AT + 3609, failed_at=AT + 7)
    source.pages["/list"] = says(b"", 500)
    assert fetch_at(hourly, tmp_path, AT).next_at == AT + 60
    assert fetch_at(hourly, tmp_path, AT).next_at == AT + 120
    assert fetch_at(replace(hourly, url=source.url("/other")), tmp_path, AT).next_at == AT + 60


def test_jitter_takes_off_a_quarter_at_most(source: Source, terms: Terms, tmp_path: Path) -> None:
    """So that many nodes do not come at once."""
    source.pages["/list"] = says(LIST)

    assert fetch_at(terms, tmp_path, jitter=1.0).next_at == AT + DAY * 0.75
    source.pages["/list"] = says(b"", 500)
    assert fetch_at(terms, tmp_path, jitter=0.5).next_at == AT + 52.5


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("3600", 3600),
        ("0", 60),
        ("30", 60),
        ("999999999999", DAY),
        ("9" * 400, DAY),
        ("Wed, 18 May 2033 04:33:20 GMT", 3600),
        ("Wed, 18 May 2033 04:33:20", 3600),
        ("Wed, 18 May 2033 02:33:20 GMT", 60),
        ("Fri, 31 Dec 9999 23:59:59 GMT", DAY),
        ("soon", 60),
        ("-5", 60),
        ("1e3", 60),
        ("", 60),
    ],
)
def test_a_source_that_asks_for_time_gets_it(
    source: Source, terms: Terms, tmp_path: Path, retry_after: str, seconds: float
) -> None:
    """In either form; no sooner than planned, and a day at most."""
    source.pages["/list"] = says(b"", 503, Retry_After=retry_after)

    outcome = fetch_at(terms, tmp_path, jitter=0.0)

    assert outcome.next_at == AT + seconds
    assert outcome.state.next_at == outcome.next_at


@given(st.text())
def test_any_text_is_a_time_to_wait(text: str) -> None:
    """Between nothing and a day."""
    assert 0 <= download._seconds_until(text, AT) <= DAY


def test_when_a_feed_is_due() -> None:
    """By its state, unless the terms are new, sooner, or no schedule can have said so."""
    terms = Terms("bans", "https://lists.example.org/bans.txt", refresh_s=3600)
    state = State(url=terms.url, checked_at=AT, next_at=AT + 3600)

    assert due_at(terms, State(), AT) == AT
    assert due_at(terms, state, AT + 9) == AT + 3600
    assert due_at(terms, state, AT + 9000) == AT + 3600
    assert due_at(replace(terms, refresh_s=600), state, AT + 9) == AT + 600
    assert due_at(terms, replace(state, failures=1, next_at=AT + 5000), AT + 9) == AT + 5000
    assert due_at(terms, replace(state, failures=1, next_at=AT + 2 * DAY), AT + 9) == AT + 9
    assert due_at(replace(terms, url="https://lists.example.org/new.txt"), state, AT + 9) == AT + 9
    assert due_at(replace(terms, public_key=KEY), state, AT + 9) == AT + 9


def test_a_signed_list_is_taken(source: Source, terms: Terms, tmp_path: Path) -> None:
    """The signature lies beside it, behind the path and before a query."""
    source.pages["/list?v=1"] = says(gzip.compress(LIST), Content_Encoding="gzip")
    source.pages["/list.minisig?v=1"] = says(SIGNATURE)

    outcome = fetch_at(replace(terms, url=source.url("/list?v=1"), public_key=KEY), tmp_path)

    assert outcome.turn is Turn.CHANGED
    assert outcome.state.public_key == KEY
    assert [path for path, _ in source.asked] == ["/list?v=1", "/list.minisig?v=1"]


SIGNATURES = {
    "none": (says(b"", 404), "/list.minisig answered 404"),
    "of another list": (says(SIGNATURE), "the signature is not of this list and this key"),
    "changed": (says(LATER_SIGNATURE.replace(b"later", b"newer")), "the signature is not of this list and this key"),
    "a page": (says(b"<html>"), "the signature is no minisign file"),
    "empty": (says(b""), "the signature is no minisign file"),
    "too large": (says(LATER_SIGNATURE + b"\n" * 20_000), "/list.minisig has more than 16384 octets"),
    "elsewhere": (says(b"", 302, Location="http://lists.example.org/"), "redirects to http://lists.example.org/"),
}


@pytest.mark.parametrize(("answer", "why"), SIGNATURES.values(), ids=SIGNATURES.keys())
def test_a_list_that_is_not_signed_is_refused(
    source: Source, terms: Terms, tmp_path: Path, answer: Answer, why: str
) -> None:
    """By the key that is set, over the list as it was served."""
    signed = replace(terms, public_key=KEY)
    source.pages |= {"/list": says(LIST, ETag='"1"'), "/list.minisig": says(SIGNATURE)}
    fetch_at(signed, tmp_path)
    kept = read_copy(tmp_path, "bans")
    source.pages |= {"/list": says(LATER_LIST, ETag='"2"'), "/list.minisig": answer}

    assert kept.octets == LIST
    assert why in failure_of(signed, tmp_path, kept)
    source.pages["/list.minisig"] = says(LATER_SIGNATURE)
    assert fetch_at(signed, tmp_path).turn is Turn.CHANGED


def test_a_key_that_cannot_be_read_is_told_before_anything_is_fetched(
    source: Source, terms: Terms, tmp_path: Path, kept: Copy
) -> None:
    """With the form of one."""
    assert "the public key cannot be read" in failure_of(replace(terms, public_key="RW"), tmp_path, kept)
    assert source.asked == []


def test_a_key_that_is_set_later_holds_for_the_copy_too(
    source: Source, terms: Terms, tmp_path: Path, kept: Copy
) -> None:
    """What was never held against it is not confirmed by "not modified"."""
    source.pages["/list"] = unless_known(LIST, '"1"', DATE)
    signed = replace(terms, public_key=KEY)

    assert "/list.minisig answered 404" in failure_of(signed, tmp_path, kept)
    assert "/list.minisig answered 404" in str(fetch_at(signed, tmp_path).state.error)
    source.pages["/list.minisig"] = says(SIGNATURE)
    assert fetch_at(signed, tmp_path).turn is Turn.UNCHANGED
    source.asked.clear()
    assert fetch_at(signed, tmp_path).turn is Turn.UNCHANGED
    assert [path for path, _ in source.asked] == ["/list"]


def test_a_folder_that_cannot_be_written_is_told(source: Source, terms: Terms, tmp_path: Path) -> None:
    """In the outcome, as there is nowhere else."""
    source.pages["/list"] = says(LIST)
    (tmp_path / "feeds").write_bytes(b"")

    outcome = fetch_at(terms, tmp_path / "feeds")

    assert outcome.turn is Turn.FAILED
    assert outcome.next_at == AT + 60
    assert "feeds cannot be written (" in str(outcome.state.error)
    assert "feeds cannot be written (" in outcome.problems[-1]


def test_a_feed_without_a_good_name_is_not_fetched(source: Source, terms: Terms, tmp_path: Path) -> None:
    """There would be nowhere to tell of it."""
    with pytest.raises(FeedError, match="cannot name a feed"):
        fetch_at(replace(terms, name="../bans"), tmp_path)

    assert source.asked == []
