"""Sockets: bound, configured, and every failure told with the mend."""

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from resolver.transport.sockets import (
    BindError,
    bind_tcp,
    bind_udp,
    check_free,
    format_address,
    is_wildcard,
    packed,
)

LOOPBACKS = ["127.0.0.1", "::1"]


@contextlib.contextmanager
def held(kind: socket.SocketKind, host: str = "127.0.0.1") -> Iterator[int]:
    """A port that another program has."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as sock:
        sock.bind((host, 0))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        yield sock.getsockname()[1]


@pytest.mark.parametrize("host", LOOPBACKS)
@pytest.mark.parametrize("bind", [bind_udp, bind_tcp])
def test_workers_share_an_address(bind: object, host: str) -> None:
    """Each worker has a socket of its own on the same port (SO_REUSEPORT), and none of them blocks."""
    with bind(host, 0) as first:  # type: ignore[operator]
        port = first.getsockname()[1]
        with bind(host, port) as second:  # type: ignore[operator]
            assert second.getsockname()[:2] == (host, port)
            assert not first.getblocking()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
@pytest.mark.parametrize("host", LOOPBACKS)
def test_an_address_that_somebody_holds_is_refused_with_the_mend(kind: socket.SocketKind, host: str) -> None:
    """The message names the address, says who to look for, and what to do instead."""
    with held(kind, host) as port, pytest.raises(BindError) as caught:
        check_free(host, port, kind)

    word = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
    assert str(caught.value).startswith(f"{word} {format_address(host, port)} is in use by another program; stop it")
    assert f"ss -lnp 'sport = :{port}'" in str(caught.value)


@pytest.mark.parametrize("bind", [bind_udp, bind_tcp])
def test_another_server_with_a_shared_port_is_found_too(bind: object) -> None:
    """SO_REUSEPORT would let a second server take half of the queries without a word."""
    with bind("127.0.0.1", 0) as sock:  # type: ignore[operator]
        kind = sock.type
        with pytest.raises(BindError, match="in use"):
            check_free("127.0.0.1", sock.getsockname()[1], kind)


def test_a_free_address_is_left_free() -> None:
    """Looking takes nothing."""
    with held(socket.SOCK_DGRAM) as port:
        pass
    check_free("127.0.0.1", port, socket.SOCK_DGRAM)
    bind_udp("127.0.0.1", port).close()


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_an_address_of_another_machine_is_refused_with_the_mend(host: str) -> None:
    """It can not be listened on before it is configured here."""
    with pytest.raises(BindError, match="is not an address of this machine; take it out of `listen`"):
        bind_udp(host, 53)


@pytest.mark.skipif(os.getuid() == 0, reason="root may listen anywhere")
def test_a_low_port_without_the_right_is_refused_with_the_mend() -> None:
    """Ports below 1024 are root's or the capability's."""
    with pytest.raises(BindError, match="CAP_NET_BIND_SERVICE"):
        bind_udp("127.0.0.1", 1)


@pytest.mark.parametrize(
    ("host", "is_all"), [("0.0.0.0", True), ("::", True), ("0:0::0", True), ("127.0.0.1", False), ("::1", False)]
)
def test_a_wildcard_is_known(host: str, is_all: bool) -> None:
    """However it is spelled."""
    assert is_wildcard(host) is is_all


def test_addresses_are_written_as_people_write_them() -> None:
    """Brackets around IPv6."""
    assert format_address("192.0.2.1", 53) == "192.0.2.1:53"
    assert format_address("2001:db8::1", 53) == "[2001:db8::1]:53"


def test_an_ipv6_socket_leaves_ipv4_alone() -> None:
    """So that 0.0.0.0 and :: can be listened on side by side, and every client has one spelling."""
    with bind_udp("::", 0) as six, bind_udp("0.0.0.0", six.getsockname()[1]) as four:
        assert four.getsockname()[1] == six.getsockname()[1]


@pytest.mark.parametrize(
    ("host", "octets"), [("192.0.2.1", b"\xc0\0\2\1"), ("fe80::1%eth0", b"\xfe\x80" + bytes(13) + b"\1")]
)
def test_an_address_is_packed_without_its_scope(host: str, octets: bytes) -> None:
    """4 or 16 octets."""
    assert packed(host) == octets
