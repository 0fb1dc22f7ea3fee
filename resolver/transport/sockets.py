"""Sockets, bound and configured; every failure told in one sentence with the mend."""

import contextlib
import errno
import ipaddress
import socket

UDP_BUFFER_OCTETS = 4 * 1024 * 1024  # of receive and send buffer: some 50 ms of a full load while a worker is busy
TCP_BACKLOG = 1024

IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)  # linux/in.h; the socket module has had it only since Python 3.13 or so
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3  # linux/in.h
IPV6_RECVPKTINFO = socket.IPV6_RECVPKTINFO


class BindError(Exception):
    """An address can not be listened on; the message says why, and what to do."""


def is_wildcard(host: str) -> bool:
    """Whether an address means "all of this machine's"."""
    return ipaddress.ip_address(host).is_unspecified


def bind_udp(host: str, port: int, given: socket.socket | None = None) -> socket.socket:
    """A UDP socket that shares its address with the other workers' (SO_REUSEPORT); one that is bound already is set up.

    Raises:
        BindError: The address can not be had.
    """
    sock = given or _bound(host, port, socket.SOCK_DGRAM)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, UDP_BUFFER_OCTETS)
    # Replies carry "do not fragment", and what ICMP says of a smaller path is not believed: a forged fragment or a
    # forged path MTU must not make a reply another's (RFC 9715 §3.1). At 1,232 octets (`wire/compose.py`) none is
    # needed.
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
    # A reply must come from the address that was asked. Bound to all addresses, the kernel has to be told which one.
    if is_wildcard(host):
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    return sock


def bind_tcp(host: str, port: int, given: socket.socket | None = None) -> socket.socket:
    """A listening TCP socket that shares its address with the other workers' (SO_REUSEPORT); as `bind_udp`.

    Raises:
        BindError: The address can not be had.
    """
    sock = given or _bound(host, port, socket.SOCK_STREAM)
    sock.listen(TCP_BACKLOG)
    return sock


def has_address(host: str) -> bool:
    """Whether this machine has an address; loopback addresses are missing where IPv6 is switched off."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((host, 0))
    except OSError:
        return False
    return True


def check_free(host: str, port: int, kind: socket.SocketKind) -> None:
    """Make sure that nobody holds an address yet: SO_REUSEPORT would let two servers share it without a word.

    Raises:
        BindError: Somebody does, or it can not be had.
    """
    _bound(host, port, kind, reuse_port=False).close()


def _bound(host: str, port: int, kind: socket.SocketKind, *, reuse_port: bool = True) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.socket(family, kind)
    except OSError as error:
        raise BindError(_sentence(host, port, kind, error)) from None
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise BindError(_sentence(host, port, kind, error)) from None
    return sock


def _sentence(host: str, port: int, kind: socket.SocketKind, error: OSError) -> str:
    where = f"{'UDP' if kind == socket.SOCK_DGRAM else 'TCP'} {format_address(host, port)}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use by another program; stop it (see `ss -lnp 'sport = :{port}'`) or listen elsewhere"
    if error.errno == errno.EACCES:
        return (
            f"no permission to listen on {where}; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE "
            "(with `user` set, root is given up after binding)"
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return f"{where} is not an address of this machine; take it out of `listen` or configure the interface first"
    with contextlib.suppress(ValueError, TypeError):
        return f"can not listen on {where}: {error.strerror}"
    return f"can not listen on {where}"


def packed(host: str) -> bytes:
    """The 4 or 16 octets of an address in text; a scope (`%eth0`) is left out."""
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host.partition("%")[0])


def format_address(host: str, port: int) -> str:
    """An address as people write it: brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
