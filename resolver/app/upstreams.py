"""The ways to the upstreams, made of what the configuration says of each."""

import asyncio
from typing import Protocol

from resolver.app.machine import UpstreamAddress
from resolver.engine.forwarder import Exchange
from resolver.policy.client import Transport
from resolver.transport.exchange import UpstreamExchange


class Link(Exchange, Protocol):
    """The way to an upstream as its owner sees it."""

    @property
    def ignored(self) -> int:
        """How many replies were none to what was asked."""
        ...

    def close(self) -> None:
        """Close; what still waits fails."""
        ...


def make_exchange(loop: asyncio.AbstractEventLoop, upstream: UpstreamAddress, sockets: int) -> Link:
    """The way to an upstream.

    Args:
        loop: The worker's.
        upstream: Which.
        sockets: UDP sockets to ask it through, where it is asked over UDP.

    Raises:
        OSError: The file with the authorities to trust can not be read.
    """
    host, port, secure = upstream.host, upstream.port, upstream.secure
    if secure is None:
        return UpstreamExchange(loop, host, port, sockets)
    # Where it has no TLS it is asked at the usual port: at this one nobody would speak plain DNS.
    plain = None if secure.strict else UpstreamExchange(loop, host, 53, sockets)
    if secure.transport is Transport.DOT:
        from resolver.transport.secure import TlsExchange

        return TlsExchange(loop, host, port, secure, plain)
    from resolver.transport.secure_http import HttpsExchange  # imports h2, which few need

    return HttpsExchange(loop, host, port, secure, plain)
