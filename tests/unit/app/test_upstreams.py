"""Each upstream is reached in the way that the configuration says."""

import asyncio

import pytest

from resolver.app.machine import UpstreamAddress
from resolver.app.upstreams import make_exchange
from resolver.policy.client import Transport
from resolver.transport.exchange import UpstreamExchange
from resolver.transport.secure import TlsExchange
from resolver.transport.secure_http import HttpsExchange
from resolver.transport.secure_identity import SecureTerms


@pytest.mark.parametrize(
    ("secure", "kind"),
    [
        (None, UpstreamExchange),
        (SecureTerms(Transport.DOT, "dns.example.org"), TlsExchange),
        (SecureTerms(Transport.DOH, "dns.example.org"), HttpsExchange),
        (SecureTerms(Transport.DOT, strict=False), TlsExchange),
    ],
)
def test_an_upstream_is_reached_as_is_said(secure: SecureTerms | None, kind: type) -> None:
    """Under the name that logs and metrics call it by."""

    async def story() -> tuple[type, str]:
        link = make_exchange(asyncio.get_running_loop(), UpstreamAddress("192.0.2.53", 8053, False, secure), 1)
        try:
            return type(link), link.name
        finally:
            link.close()

    assert asyncio.run(story()) == (kind, "192.0.2.53:8053")
