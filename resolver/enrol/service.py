"""The service as administrators write it: a YAML document, read by the same machinery as all others."""

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Annotated

from resolver.enrol import profile
from resolver.enrol.profile import CAPTIVE_DOMAINS, CARRIER_DOMAINS, AndroidVpn, Ikev2, Openvpn, Service, Wireguard
from resolver.policy.additions import AnyNetwork
from resolver.policy.source import Document, Written, read, shown
from resolver.policy.values import Address, ShortText


def _text(parse: Callable[[str], str]) -> Written:
    def parse_text(written: object) -> str:
        if not isinstance(written, str):
            raise ValueError(f"this is {shown(written)}, not text; put it in quotes")
        return parse(written)

    return Written(parse_text, {"type": "string"})


def _parse_port(written: object) -> int:
    if isinstance(written, int) and not isinstance(written, bool) and 1 <= written <= 65535:
        return written
    raise ValueError(f"{shown(written)} is no port; write a number from 1 to 65535")


def _parse_protocol(written: object) -> str:
    if written in ("udp", "tcp"):
        return str(written)
    raise ValueError(f"{shown(written)} is unknown here; write udp or tcp")


Host = Annotated[str, _text(profile.parse_host)]
HostTemplate = Annotated[str, _text(profile.parse_host_template)]
Template = Annotated[str, _text(profile.parse_template)]
ReverseName = Annotated[str, _text(profile.parse_reverse_name)]
WithPort = Annotated[str, _text(profile.parse_endpoint)]
Key = Annotated[str, _text(profile.parse_key)]
Package = Annotated[str, _text(profile.parse_package)]
Port = Annotated[int, Written(_parse_port, {"type": "integer", "minimum": 1, "maximum": 65535})]
Carrier = Annotated[str, Written(_parse_protocol, {"enum": ["udp", "tcp"]})]


class WireguardSection(Document):
    """`wireguard`: the server as its devices see it."""

    endpoint: WithPort
    public_key: Key
    networks: tuple[AnyNetwork, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))


class OpenvpnSection(Document):
    """`openvpn`: the server as its devices see it."""

    server: Host
    port: Port = 1194
    protocol: Carrier = "udp"


class Ikev2Section(Document):
    """`ikev2`: the server, and the networks that its devices get addresses from."""

    server: Host
    pools: tuple[AnyNetwork, ...] = ()


class AndroidVpnSection(Document):
    """`android_vpn`: the app that keeps the always-on VPN."""

    package: Package


class ServiceDocument(Document):
    """The whole document; `Service` says what each value is for. `authorities` are files of certificates in PEM."""

    organisation: ShortText
    identifier: ReverseName
    doh: Template | None = None
    dot: HostTemplate | None = None
    addresses: tuple[Address, ...] = ()
    authorities: tuple[ShortText, ...] = ()
    search_domains: tuple[Host, ...] = ()
    excluded_domains: tuple[Host, ...] = ()
    captive_domains: tuple[Host, ...] = CAPTIVE_DOMAINS
    carrier_domains: tuple[Host, ...] = CARRIER_DOMAINS
    excluded_networks: tuple[ShortText, ...] = ()
    profile_url: Template | None = None
    wireguard: WireguardSection | None = None
    openvpn: OpenvpnSection | None = None
    ikev2: Ikev2Section | None = None
    android_vpn: AndroidVpnSection | None = None


def read_service(text: bytes, source: str, authority: Callable[[str], tuple[bytes, ...]]) -> Service:
    """Read a service.

    Args:
        source: What to call the text in messages.
        authority: Gives the certificates (DER) of a file that the document names.

    Raises:
        PolicyError: With every problem, each with file, line and column.
        EnrolError: From `authority`.
    """
    found = read(text, source, ServiceDocument)
    wireguard, openvpn, ikev2, android = found.wireguard, found.openvpn, found.ikev2, found.android_vpn
    return Service(
        organisation=found.organisation,
        identifier=found.identifier,
        doh=found.doh,
        dot=found.dot,
        addresses=tuple(ip_address(address) for address in found.addresses),
        authorities=tuple(certificate for name in found.authorities for certificate in authority(name)),
        search_domains=found.search_domains,
        excluded_domains=found.excluded_domains,
        captive_domains=found.captive_domains,
        carrier_domains=found.carrier_domains,
        excluded_networks=found.excluded_networks,
        profile_url=found.profile_url,
        wireguard=None
        if wireguard is None
        else Wireguard(wireguard.endpoint, wireguard.public_key, wireguard.networks),
        openvpn=None if openvpn is None else Openvpn(openvpn.server, openvpn.port, openvpn.protocol == "tcp"),
        ikev2=None if ikev2 is None else Ikev2(ikev2.server, ikev2.pools),
        android_vpn=None if android is None else AndroidVpn(android.package),
    )
