"""What one connection of HTTP may ask of the house, whichever version it speaks: who asks, and for what.

Addresses that a proxy passes on (X-Forwarded-For) are believed from listed proxies alone. The field is read from its
end: each proxy adds whom it heard from, so the last address that is no proxy's is the client, and what stands before
it anybody may have written. What such a connection showed in its handshake is the proxy's, never the client's.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from resolver.policy.client import Client
from resolver.transport.doh import (
    NOT_FOUND,
    TOO_LONG,
    Clients,
    DohTerms,
    Refusal,
    Request,
    read_request,
)
from resolver.transport.udp import Answerer, Later

PATH_OCTETS = 8192  # of path and query; RFC 9110 §4.1 asks for 8000 at least, and a query of 6 KiB fits
HEAD_OCTETS = 16 * 1024  # of all fields of a request, names and values
FORWARDED = 1024  # clients behind one connection of a proxy that are kept

Fields = list[tuple[bytes, bytes]]
Page = tuple[bytes, bytes]  # media type, content
FIELDS_TOO_LARGE = Refusal(431)  # RFC 6585 §5


def _nobody(address: bytes) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class HttpTerms:
    """What is served, and limits; times in seconds.

    Attributes:
        doh: The path of the service, and what every reply tells of HTTP/3.
        in_flight: Requests under way on a connection of HTTP/2; RFC 9113 §6.5.2 asks for 100 at least.
        handshake_timeout: What TLS may take.
        proxies: Whether X-Forwarded-For is believed from an address of 4 or 16 octets.
        pages: What is served at other paths, by GET: media type and content, or None.
    """

    doh: DohTerms = field(default_factory=DohTerms)
    in_flight: int = 100
    handshake_timeout: float = 10.0
    proxies: Callable[[bytes], bool] = _nobody
    pages: Callable[[str, Client], Page | None] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is served.

    Attributes:
        client: Who asks.
        message: The DNS message; None if it comes as content.
        page: The path of the page that is asked for in place of an answer of DNS.
    """

    client: Client
    message: bytes | None = None
    page: str | None = None


class Line(Protocol):
    """The connection below."""

    is_blocked: bool  # the client does not read what we write

    def write(self, octets: bytes) -> None:
        """Send."""
        ...

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def settle(self) -> None:
        """Look again at whether to read on, or to close: something happened out of turn."""
        ...


class Desk:
    """The desk that one connection comes to."""

    def __init__(
        self, terms: HttpTerms, answerer: Answerer, client: Client, sockaddr: Callable[[str, int], bytes]
    ) -> None:
        """Begin with who is at the other end of the connection.

        Args:
            terms: Limits.
            answerer: What to answer.
            client: The other end.
            sockaddr: Makes the 28 octets of an address for hit records.
        """
        self.terms = terms
        self.answerer = answerer
        self._client = client
        self._sockaddr = sockaddr
        self._direct = Clients(client)
        self._forwarded: dict[str, Clients] | None = {} if terms.proxies(client.address) else None

    @property
    def is_with_proxy(self) -> bool:
        """Whether a listed proxy is at the other end."""
        return self._forwarded is not None

    def read(self, method: bytes, path: bytes, fields: Fields) -> Asked | Refusal:
        """Read the head of a request.

        Args:
            method: As it came.
            path: Path and query.
            fields: Header fields, their names in lower case.
        """
        if len(path) > PATH_OCTETS:
            return TOO_LONG
        request = read_request(method, path, fields, self.terms.doh)
        if isinstance(request, Request):
            return Asked(self._clients(fields).of(request), request.message)
        if request is NOT_FOUND and method == b"GET" and self.terms.pages is not None and path.isascii():
            return Asked(self._clients(fields).of(Request(None)), page=path.decode("ascii"))
        return request

    def answer(self, message: bytes, client: Client, later: Later) -> bytes | None:
        """Pass a DNS message on to the house."""
        return self.answerer.answer(message, client, later)

    def page(self, asked: Asked) -> tuple[Fields, bytes] | Refusal:
        """The header fields and the content of a page; never kept, since it speaks of who asks, and of this moment."""
        pages = self.terms.pages
        found = pages(asked.page, asked.client) if pages is not None and asked.page is not None else None
        if found is None:
            return NOT_FOUND
        media_type, content = found
        fields = [
            (b"content-type", media_type),
            (b"content-length", b"%d" % len(content)),
            (b"cache-control", b"no-store"),
        ]
        if self.terms.doh.alt_svc is not None:
            fields.append((b"alt-svc", self.terms.doh.alt_svc))
        return fields, content

    def _clients(self, fields: Fields) -> Clients:
        if self._forwarded is None:
            return self._direct
        host = forwarded_host(fields, self.terms.proxies)
        if host is None:
            return self._direct
        clients = self._forwarded.get(host)
        if clients is None:
            address = ipaddress.ip_address(host).packed
            client = replace(self._client, address=address, sockaddr=self._sockaddr(host, 0), credentials=None)
            if len(self._forwarded) >= FORWARDED:
                self._forwarded.clear()
            clients = self._forwarded[host] = Clients(client)
        return clients


def forwarded_host(fields: Fields, proxies: Callable[[bytes], bool]) -> str | None:
    """The client's address in X-Forwarded-For, or None if it names none.

    Beyond what can not be read nothing is believed; the last proxy before it is then the nearest to the client that
    there is.
    """
    listed = [entry for name, value in fields if name == b"x-forwarded-for" for entry in value.split(b",")]
    found = None
    for entry in reversed(listed):
        try:
            address = ipaddress.ip_address(_bare(entry.strip().decode("ascii")))
        except ValueError:
            break
        if isinstance(address, ipaddress.IPv6Address):
            if address.scope_id is not None:
                break
            address = address.ipv4_mapped or address
        found = str(address)
        if not proxies(address.packed):
            break
    return found


def _bare(entry: str) -> str:
    """An address without the port and the brackets that some proxies write."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry
