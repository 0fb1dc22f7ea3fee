"""Who asks and for what, before any version of HTTP: forwarded addresses, tokens, pages."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.policy.client import Client, Credentials, Transport
from resolver.transport.desk import FORWARDED, PATH_OCTETS, Asked, Desk, HttpTerms, forwarded_host
from resolver.transport.doh import NOT_FOUND, TOO_LONG, Refusal
from tests.support.answerer import FakeAnswerer, reply_to
from tests.support.house import ask

PROXIES = ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8:ffff::/48")
MESSAGE_TYPE = (b"content-type", b"application/dns-message")


def is_proxy(address: bytes) -> bool:
    found = ipaddress.ip_address(address)
    return any(found in network for network in PROXIES)


def desk(host: str = "192.0.2.7", credentials: Credentials | None = None, terms: HttpTerms | None = None) -> Desk:
    client = Client(ipaddress.ip_address(host).packed, b"there", Transport.DOH, "phones", credentials)
    return Desk(
        terms or HttpTerms(proxies=is_proxy), FakeAnswerer(), client, lambda host, port: f"{host} {port}".encode()
    )


def asked(desk: Desk, *fields: tuple[bytes, bytes], path: bytes = b"/dns-query") -> Asked:
    found = desk.read(b"POST", path, [MESSAGE_TYPE, *fields])
    assert isinstance(found, Asked)
    return found


@pytest.mark.parametrize(
    ("values", "host"),
    [
        ([], None),
        ([b"198.51.100.1"], "198.51.100.1"),
        ([b"203.0.113.9, 198.51.100.1"], "198.51.100.1"),
        ([b"203.0.113.9", b"198.51.100.1"], "198.51.100.1"),
        ([b"198.51.100.1, 10.0.0.2,10.0.0.3"], "198.51.100.1"),
        ([b"10.0.0.2"], "10.0.0.2"),
        ([b"2001:db8::1"], "2001:db8::1"),
        ([b"[2001:db8::1]"], "2001:db8::1"),
        ([b"[2001:db8::1]:4711"], "2001:db8::1"),
        ([b"198.51.100.1:4711"], "198.51.100.1"),
        ([b"::ffff:198.51.100.1"], "198.51.100.1"),
        ([b"2001:db8:ffff::1, 10.0.0.3"], "2001:db8:ffff::1"),
        ([b"198.51.100.1, unknown, 10.0.0.3"], "10.0.0.3"),
        ([b"198.51.100.1, "], None),
        ([b"fe80::1%eth0"], None),
        ([b"\xff"], None),
    ],
)
def test_the_last_address_that_is_no_proxys_is_the_client(values: list[bytes], host: str | None) -> None:
    """What stands before it anybody may have written; beyond what can not be read nothing is believed."""
    assert forwarded_host([(b"x-forwarded-for", value) for value in values], is_proxy) == host


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_any_octets_are_an_address_or_none(values: list[bytes]) -> None:
    """Whatever a client puts there."""
    host = forwarded_host([(b"x-forwarded-for", value) for value in values], is_proxy)
    assert host is None or ipaddress.ip_address(host)


def test_only_a_listed_proxy_is_believed() -> None:
    """Others are who they are, whatever they say."""
    assert [desk(host).is_with_proxy for host in ("192.0.2.7", "10.1.2.3", "2001:db8:ffff::7")] == [False, True, True]
    field = (b"x-forwarded-for", b"198.51.100.1")
    assert asked(desk("192.0.2.7"), field).client.address == bytes([192, 0, 2, 7])
    client = asked(desk("10.1.2.3"), field).client
    assert (client.address, client.sockaddr, client.listener) == (bytes([198, 51, 100, 1]), b"198.51.100.1 0", "phones")
    assert asked(desk("10.1.2.3")).client.address == bytes([10, 1, 2, 3])


def test_what_a_proxy_showed_is_not_its_clients() -> None:
    """Its certificate and the name that it called us by would else be those of every device behind it."""
    shown = Credentials(certificate=("proxy.example.org",), server_name="dns.example.org")
    proxied = desk("10.1.2.3", shown)
    field = (b"x-forwarded-for", b"198.51.100.1")
    assert asked(proxied, field).client.credentials is None
    assert asked(proxied, field, path=b"/dns-query/t0ken").client.credentials == Credentials(path_token="t0ken")
    assert asked(proxied).client.credentials == shown


def test_what_is_shown_comes_together() -> None:
    """The handshake's, the path's and the authorization's."""
    shown = Credentials(certificate=("phone-1",), server_name="dns.example.org")
    found = asked(desk(credentials=shown), (b"authorization", b"Bearer abc"), path=b"/dns-query/t0ken")
    assert found.client.credentials == Credentials(("phone-1",), "t0ken", "abc", "dns.example.org")


def test_a_client_is_made_once() -> None:
    """The same one for the same address and the same tokens, as long as there are not too many."""
    proxied = desk("10.1.2.3")
    first = asked(proxied, (b"x-forwarded-for", b"198.51.100.1")).client
    assert asked(proxied, (b"x-forwarded-for", b"198.51.100.1")).client is first
    for number in range(FORWARDED):
        asked(proxied, (b"x-forwarded-for", str(ipaddress.ip_address(number + 2**24)).encode()))
    again = asked(proxied, (b"x-forwarded-for", b"198.51.100.1")).client
    assert again == first
    assert again is not first


def test_a_path_has_an_end() -> None:
    """RFC 9110 §4.1 asks for 8000 octets at least."""
    assert desk().read(b"GET", b"/" + bytes(PATH_OCTETS - 1), []) is NOT_FOUND
    assert desk().read(b"GET", b"/" + bytes(PATH_OCTETS), []) is TOO_LONG


def test_pages_are_asked_for_by_path_and_client() -> None:
    """They are made anew each time."""
    seen: list[tuple[str, Client]] = []

    def pages(path: str, client: Client) -> tuple[bytes, bytes] | None:
        seen.append((path, client))
        return (b"text/html", b"page") if path == "/covered?x" else None

    served = desk(terms=HttpTerms(pages=pages))
    found = served.read(b"GET", b"/covered?x", [])
    assert isinstance(found, Asked)
    page = served.page(found)
    assert not isinstance(page, Refusal)
    assert page == (
        [(b"content-type", b"text/html"), (b"content-length", b"4"), (b"cache-control", b"no-store")],
        b"page",
    )
    assert seen == [("/covered?x", found.client)]
    other = served.read(b"GET", b"/other", [])
    assert isinstance(other, Asked)
    assert served.page(other) is NOT_FOUND
    assert served.read(b"PUT", b"/covered?x", []) is NOT_FOUND
    assert served.read(b"GET", b"/\xff", []) is NOT_FOUND
    assert desk().read(b"GET", b"/covered?x", []) is NOT_FOUND


def test_the_house_is_asked_with_the_client() -> None:
    """And its reply is handed on as it is."""
    served = desk()
    client = asked(served).client
    message = ask("www.example.org")
    assert served.answer(message, client, lambda reply: None) == reply_to(message)
