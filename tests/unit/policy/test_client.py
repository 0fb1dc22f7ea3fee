"""Who asks, and how."""

import pytest

from resolver.policy.client import Client, Transport


@pytest.mark.parametrize("transport", Transport)
def test_a_transport_says_what_its_replies_need(transport: Transport) -> None:
    """A datagram of plain DNS bounds them; where nobody reads along, their length is worth hiding."""
    client = Client(b"\x7f\0\0\1", bytes(28), transport)
    assert client.over_udp == (transport == "udp")
    assert transport.is_encrypted == (transport.value not in ("udp", "tcp"))
