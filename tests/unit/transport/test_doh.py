"""Requests of DNS over HTTPS as values: what is answered, and with which status what is not."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.policy.client import Client, Credentials, Transport
from resolver.transport.doh import (
    BAD,
    CLIENTS,
    MESSAGE_OCTETS,
    NOT_ALLOWED,
    NOT_FOUND,
    TOKEN_OCTETS,
    TOO_LARGE,
    TOO_LONG,
    UNSUPPORTED,
    Clients,
    DohTerms,
    Refusal,
    Request,
    read_content,
    read_request,
    refusal_headers,
    reply_headers,
)
from resolver.wire.codes import Rcode
from resolver.wire.compose import error_answer, write_reply
from resolver.wire.message import Answer, read_query
from tests.support.house import ask

TERMS = DohTerms()
WWW = ask("www.example.org", message_id=0)
DNS = (b"content-type", b"application/dns-message")
A_ROOM = bytes.fromhex("c00c00010001") + (300).to_bytes(4, "big") + b"\0\4\xc0\0\2\1"  # www.example.org A 192.0.2.1
A_ROOM_SOONER = bytes.fromhex("c00c00010001") + (30).to_bytes(4, "big") + b"\0\4\xc0\0\2\2"


def get(message: bytes, path: bytes = b"/dns-query") -> bytes:
    return path + b"?dns=" + base64.urlsafe_b64encode(message).rstrip(b"=")


def client(credentials: Credentials | None = None) -> Client:
    return Client(b"\xc0\0\2\1", bytes(28), Transport.DOH3, None, credentials)


def test_get_carries_the_message_in_base64url_without_padding() -> None:
    """RFC 8484 §4.1, §6; every length of message comes through, whatever is left over of its base64."""
    for padding in range(3):
        message = WWW + bytes(padding)
        assert read_request(b"GET", get(message), [], TERMS) == Request(message)


def test_post_carries_the_message_as_its_content() -> None:
    """RFC 8484 §4.1: the head is read first, the content when it is there."""
    assert read_request(b"POST", b"/dns-query", [DNS], TERMS) == Request(None)
    assert read_content(WWW) == WWW


@pytest.mark.parametrize(
    ("method", "path", "headers", "refusal"),
    [
        (b"GET", b"/", [], NOT_FOUND),
        (b"GET", b"*", [], NOT_FOUND),
        (b"GET", b"", [], NOT_FOUND),
        (b"GET", get(WWW, b"/dns"), [], NOT_FOUND),
        (b"GET", get(WWW, b"/dns-query/"), [], NOT_FOUND),
        (b"GET", get(WWW, b"/dns-query/a/b"), [], NOT_FOUND),
        (b"GET", get(WWW, b"/dns-query/%61"), [], NOT_FOUND),
        (b"GET", get(WWW, b"/DNS-QUERY"), [], NOT_FOUND),
        (b"GET", get(WWW, b"/dns-query/" + b"a" * (TOKEN_OCTETS + 1)), [], NOT_FOUND),
        (b"PUT", b"/elsewhere", [], NOT_FOUND),
        (b"PUT", b"/dns-query", [DNS], NOT_ALLOWED),
        (b"HEAD", get(WWW), [], NOT_ALLOWED),
        (b"get", get(WWW), [], NOT_ALLOWED),
        (b"POST", b"/dns-query", [], UNSUPPORTED),
        (b"POST", b"/dns-query", [(b"content-type", b"application/dns-json")], UNSUPPORTED),
        (b"POST", b"/dns-query", [DNS, (b"content-encoding", b"gzip")], UNSUPPORTED),
        (b"POST", b"/dns-query", [DNS, (b"content-length", b"65536")], TOO_LARGE),
        (b"POST", b"/dns-query", [DNS, (b"content-length", b"9" * 5000)], TOO_LARGE),
        (b"POST", b"/dns-query", [DNS, (b"content-length", b"-1")], BAD),
        (b"POST", b"/dns-query", [DNS, (b"content-length", b"")], BAD),
        (b"POST", b"/dns-query", [DNS, (b"authorization", b"Bearer")], BAD),
        (b"GET", b"/dns-query", [], BAD),
        (b"GET", b"/dns-query?dns=", [], BAD),
        (b"GET", b"/dns-query?name=www.example.org", [], BAD),
        (b"GET", b"/dns-query?dns=AAAAA", [], BAD),
        (b"GET", b"/dns-query?dns=" + base64.urlsafe_b64encode(WWW + b"\0\0"), [], BAD),
        (b"GET", get(WWW) + b"&dns=AAAA", [], BAD),
        (b"GET", get(WWW).replace(b"A", b"/"), [], BAD),
        (b"GET", get(WWW[:11]), [], BAD),
        (b"GET", get(WWW[:2] + b"\x80" + WWW[3:]), [], BAD),
        (b"GET", get(WWW + bytes(MESSAGE_OCTETS)), [], TOO_LONG),
        (b"GET", get(WWW), [(b"authorization", b"Bearer a b")], BAD),
        (b"GET", get(WWW), [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer a")], BAD),
        (b"GET", get(WWW), [(b"authorization", b"Bearer " + b"a" * (TOKEN_OCTETS + 1))], BAD),
    ],
)
def test_what_is_refused_has_the_status_that_says_why(
    method: bytes, path: bytes, headers: list[tuple[bytes, bytes]], refusal: Refusal
) -> None:
    """404 before 405, before 415 and 413, before 400 (RFC 8484 §4.2.1, RFC 9110 §15.5)."""
    assert read_request(method, path, headers, TERMS) is refusal


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (b"", BAD),
        (WWW[:11], BAD),
        (WWW[:2] + b"\x80" + WWW[3:], BAD),
        (bytes(MESSAGE_OCTETS + 1), TOO_LARGE),
    ],
)
def test_content_that_is_no_query_is_refused(content: bytes, refusal: Refusal) -> None:
    """What no DNS message could be said to is said by a status."""
    assert read_content(content) is refusal


def test_the_longest_message_is_taken() -> None:
    """RFC 8484 §6: 65535 octets, by either method."""
    longest = WWW.ljust(MESSAGE_OCTETS, b"\0")
    assert read_content(longest) == longest
    assert read_request(b"GET", get(longest), [], TERMS) == Request(longest)
    assert read_request(b"POST", b"/dns-query", [DNS, (b"content-length", b"65535")], TERMS) == Request(None)


@pytest.mark.parametrize(
    "content_type", [b"application/dns-message", b"Application/DNS-Message", b" application/dns-message ; v=1"]
)
def test_a_media_type_is_known_in_any_letter_case_and_with_parameters(content_type: bytes) -> None:
    """RFC 9110 §8.3.1."""
    headers = [(b"content-type", content_type), (b"content-encoding", b"identity")]
    assert read_request(b"POST", b"/dns-query", headers, TERMS) == Request(None)


@pytest.mark.parametrize(
    ("path", "headers", "path_token", "bearer"),
    [
        (b"/dns-query/tok-1_2.3~4", [], "tok-1_2.3~4", None),
        (b"/dns-query", [(b"authorization", b"Bearer abc.DEF~+/=")], None, "abc.DEF~+/="),
        (b"/dns-query", [(b"authorization", b"bEARER  abc")], None, "abc"),
        (b"/dns-query/tok", [(b"accept", b"*/*"), (b"authorization", b"Bearer abc")], "tok", "abc"),
        (b"/dns-query", [(b"authorization", b"Basic Zm9vOmJhcg==")], None, None),
        (b"/dns-query", [(b"authorization", b"")], None, None),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_what_a_request_shows_of_its_sender_is_read(
    method: bytes, path: bytes, headers: list[tuple[bytes, bytes]], path_token: str | None, bearer: str | None
) -> None:
    """A token behind the path, a bearer token (RFC 6750 §2.1); another scheme is not looked at."""
    target = get(WWW, path) if method == b"GET" else path
    message = WWW if method == b"GET" else None
    assert read_request(method, target, [DNS, *headers], TERMS) == Request(message, path_token, bearer)


def test_the_service_may_stand_at_another_path() -> None:
    """RFC 8484 §3 leaves it to the server."""
    terms = DohTerms(b"/a/b")
    assert read_request(b"GET", get(WWW, b"/a/b/tok"), [], terms) == Request(WWW, "tok")
    assert read_request(b"GET", get(WWW), [], terms) is NOT_FOUND


def reply(rcode: Rcode, *records: bytes) -> bytes:
    query = read_query(WWW)
    if not records:
        return write_reply(query, error_answer(rcode), over_udp=False)
    ttls = tuple((16 * i + 6, int.from_bytes(record[6:10], "big")) for i, record in enumerate(records))
    return write_reply(query, Answer(rcode, (len(records), 0, 0), b"".join(records), ttls), over_udp=False)


@pytest.mark.parametrize(
    ("message", "cache_control"),
    [
        (reply(Rcode.NOERROR, A_ROOM), b"private, max-age=300"),
        (reply(Rcode.NOERROR, A_ROOM, A_ROOM_SOONER), b"private, max-age=30"),
        (reply(Rcode.SERVFAIL), b"no-store"),
        (reply(Rcode.REFUSED), b"no-store"),
    ],
)
def test_a_reply_is_fresh_as_long_as_its_lowest_ttl_and_for_its_client_alone(
    message: bytes, cache_control: bytes
) -> None:
    """RFC 8484 §5.1; what has no TTL to go by is not stored; `private`, since answers depend on who asks."""
    assert reply_headers(message, TERMS) == [
        DNS,
        (b"content-length", b"%d" % len(message)),
        (b"cache-control", cache_control),
    ]


def test_a_refusal_says_what_would_be_taken_and_is_not_stored() -> None:
    """RFC 9110 §15.5.6 demands Allow; §15.1 lets caches store 404, 405 and 414 unless told otherwise."""
    assert refusal_headers(NOT_ALLOWED, TERMS) == [
        (b"allow", b"GET, POST"),
        (b"content-length", b"0"),
        (b"cache-control", b"no-store"),
    ]
    assert (b"accept", b"application/dns-message") in refusal_headers(UNSUPPORTED, TERMS)


def test_every_reply_tells_of_the_other_service_if_there_is_one() -> None:
    """RFC 7838 §3."""
    terms = DohTerms(alt_svc=b'h3=":443"')
    for headers in (reply_headers(reply(Rcode.SERVFAIL), terms), refusal_headers(BAD, terms)):
        assert headers[-1] == (b"alt-svc", b'h3=":443"')


def test_a_connections_clients_are_made_once_and_not_without_bound() -> None:
    """One for each token; what the connection itself showed stays."""
    clients = Clients(client(Credentials(certificate=("phone-1",), server_name="dns.example.org")))
    assert clients.of(Request(WWW)) is clients.of(Request(WWW))
    first = clients.of(Request(WWW, "tok", "abc"))
    assert first.credentials == Credentials(("phone-1",), "tok", "abc", "dns.example.org")
    assert clients.of(Request(WWW, "tok", "abc")) is first
    for n in range(CLIENTS):
        clients.of(Request(WWW, f"tok-{n}"))
    again = clients.of(Request(WWW, "tok", "abc"))
    assert again == first
    assert again is not first  # the room is bounded: it was let go in between


def test_a_client_that_shows_nothing_but_a_token_has_that() -> None:
    """A connection without credentials of its own."""
    made = Clients(client()).of(Request(WWW, None, "abc"))
    assert made.credentials == Credentials(bearer="abc")


HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"content-type", b"content-length", b"content-encoding", b"authorization", b"x"]), st.binary()
    ),
    max_size=4,
)


@given(
    method=st.sampled_from([b"GET", b"POST"]) | st.binary(),
    path=st.binary() | st.binary().map(lambda rest: b"/dns-query" + rest) | st.binary().map(get),
    headers=HEADERS,
)
def test_any_octets_end_in_a_request_or_a_refusal(
    method: bytes, path: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    """No third way."""
    outcome = read_request(method, path, headers, TERMS)
    if isinstance(outcome, Refusal):
        assert 400 <= outcome.status < 500
    else:
        assert (outcome.message is None) == (method == b"POST")
        assert outcome.message is None or read_content(outcome.message) == outcome.message


@given(st.binary(min_size=12, max_size=300))
def test_every_message_comes_through_get_as_it_is(message: bytes) -> None:
    """What the client encodes is what is asked, or refused as content would be."""
    outcome = read_request(b"GET", get(message), [], TERMS)
    expected = read_content(message)
    assert outcome == (expected if isinstance(expected, Refusal) else Request(message))
