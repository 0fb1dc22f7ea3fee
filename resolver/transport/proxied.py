"""Whose connection or datagram a proxy passes on, in the words of the house.

What a listed proxy says of its client's certificate, server name and token counts as if the client had shown it here:
the proxy ended TLS, and is believed as this server's own listeners are.
"""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

from resolver.policy.client import Client, Credentials
from resolver.wire.proxy import ProxyError, read_header


def behind_proxy(octets: bytes, proxy: Client, sockaddr: Callable[[str, int], bytes]) -> tuple[int, Client] | None:
    """Read the header that a proxy has to send first; None: more octets are needed.

    Args:
        octets: From the first one received on.
        proxy: Who sends them.
        sockaddr: Makes the 28 octets of an address for hit records.

    Returns:
        The length of the header, and whose octets follow it.

    Raises:
        ProxyError: There is no header.
    """
    header = read_header(octets)
    if header is None:
        return None
    if header.is_local:
        return header.length, replace(proxy, proxied=True)  # the proxy's own, to see whether we live
    shown = Credentials(
        certificate=() if header.common_name is None else (header.common_name,),
        path_token=header.token,
        server_name=header.authority,
    )
    peer = sockaddr(str(ip_address(header.source)), header.source_port)
    client = replace(proxy, address=header.source, sockaddr=peer, proxied=True)
    return header.length, client if shown == Credentials() else replace(client, credentials=shown)


def without_header(packet: bytes, proxy: Client, sockaddr: Callable[[str, int], bytes]) -> tuple[bytes, Client] | None:
    """A datagram without its header, and whose it is; None where it has none, and is nobody's."""
    try:
        found = behind_proxy(packet, proxy, sockaddr)
    except ProxyError:
        return None
    return None if found is None else (packet[found[0] :], found[1])
