"""The words of this room: the Service that is pointed to, the Device that is pointed, and the Profile that does it.

A token is the device's name towards the service: one DNS label, so that it can stand in the path of a DNS-over-HTTPS
template (RFC 8484 §4.1) and in the host name of DNS over TLS (RFC 7858) alike. It is a secret of low degree: who has it
can ask in the device's name. Each file says whether it holds one.

What people may choose freely (names of devices and of the organisation) goes into files only through `label` and
`folder_of`; all else is checked when a Service or Device is made, so that no platform needs to escape it.
"""

import re
import uuid
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from urllib.parse import urlsplit

from resolver.policy.source import shown

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Interface = IPv4Interface | IPv6Interface

PLACE = "{token}"
"""Where a device's token goes in the templates of a service."""

CAPTIVE_DOMAINS = ("captive.apple.com",)
CARRIER_DOMAINS = (
    "3gppnetwork.org",
    "dav.orange.fr",
    "tma.vvm.mone.pan-net.eu",
    "vvm.ee.co.uk",
    "vvm.mobistar.be",
    "vvm.mstore.msg.t-mobile.com",
)
"""Names that a carrier's own resolver alone answers rightly: Wi-Fi calling (3GPP TS 23.003 §19.4.2.9) and visual
voicemail, as the profiles of public encrypted resolvers exclude them."""

_LABEL_CHARACTERS = 60  # 240 octets at most: OpenVPN reads lines of 256
_TOKEN = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_HOST = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_REVERSE = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_PATH = re.compile(r"/[A-Za-z0-9._~/-]*")
_KEY = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")  # 32 octets in base64, as `wg genkey` prints them
_PACKAGE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)+")


class EnrolError(ValueError):
    """A profile can not be made of what is given; the message says what to give instead."""


class Protocol(StrEnum):
    """The encrypted transport a device is to use, where its platform leaves the choice."""

    HTTPS = "https"
    TLS = "tls"


@dataclass(frozen=True, slots=True)
class Wireguard:
    """The WireGuard server: where it is, its key, and what goes through it."""

    endpoint: str
    public_key: str
    networks: tuple[Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))

    def __post_init__(self) -> None:
        parse_endpoint(self.endpoint)
        parse_key(self.public_key)


@dataclass(frozen=True, slots=True)
class Openvpn:
    """The OpenVPN server."""

    server: str
    port: int = 1194
    is_tcp: bool = False

    def __post_init__(self) -> None:
        parse_host(self.server)
        _check_port(self.port)


@dataclass(frozen=True, slots=True)
class Ikev2:
    """The IKEv2 server, and the networks that it gives devices their addresses from."""

    server: str
    pools: tuple[Network, ...] = ()

    def __post_init__(self) -> None:
        parse_host(self.server)


@dataclass(frozen=True, slots=True)
class AndroidVpn:
    """The Android app that keeps the always-on VPN."""

    package: str

    def __post_init__(self) -> None:
        parse_package(self.package)


@dataclass(frozen=True, slots=True)
class Service:
    """Where devices are pointed to.

    Args:
        identifier: The organisation in reverse-DNS form; it names the profiles.
        doh: Template of DNS over HTTPS with `{token}` in its path.
        dot: Host of DNS over TLS with `{token}` as its first label.
        addresses: The service's own, so that a device need not ask elsewhere for them.
        authorities: Certificates (DER) that devices must trust to trust the service.
        excluded_domains: Names that devices ask of the network they are in.
        excluded_networks: Wi-Fi networks (SSID) in which the service is not used.
        profile_url: Template of where Apple's devices fetch their DNS settings, for QR codes.

    Raises:
        EnrolError: A value is not of its form.
    """

    organisation: str
    identifier: str
    doh: str | None = None
    dot: str | None = None
    addresses: tuple[Address, ...] = ()
    authorities: tuple[bytes, ...] = ()
    search_domains: tuple[str, ...] = ()
    excluded_domains: tuple[str, ...] = ()
    captive_domains: tuple[str, ...] = CAPTIVE_DOMAINS
    carrier_domains: tuple[str, ...] = CARRIER_DOMAINS
    excluded_networks: tuple[str, ...] = ()
    profile_url: str | None = None
    wireguard: Wireguard | None = None
    openvpn: Openvpn | None = None
    ikev2: Ikev2 | None = None
    android_vpn: AndroidVpn | None = None

    def __post_init__(self) -> None:
        parse_reverse_name(self.identifier)
        if self.doh is not None:
            parse_template(self.doh)
        if self.profile_url is not None:
            parse_template(self.profile_url)
        if self.dot is not None:
            parse_host_template(self.dot)
        for domain in (*self.search_domains, *self.excluded_domains, *self.captive_domains, *self.carrier_domains):
            parse_host(domain)

    def url_for(self, device: "Device") -> str:
        """Return the DNS-over-HTTPS address that is the device's own.

        Raises:
            EnrolError: The service has no template, or the device no token.
        """
        if self.doh is None:
            raise EnrolError('DNS over HTTPS is needed here; give the service "doh: https://.../{token}"')
        return self.doh.replace(PLACE, device.known_token())

    def host_for(self, device: "Device") -> str:
        """Return the DNS-over-TLS host that is the device's own.

        Raises:
            EnrolError: The service has no host, or the device no token, or both together are too long.
        """
        if self.dot is None:
            raise EnrolError('DNS over TLS is needed here; give the service "dot: \\"{token}.dns.example.org\\""')
        return parse_host(self.dot.replace(PLACE, device.known_token()))

    def known_addresses(self) -> tuple[Address, ...]:
        """Return the service's addresses.

        Raises:
            EnrolError: There are none.
        """
        if not self.addresses:
            raise EnrolError('the addresses of the service are needed here; give it "addresses: [192.0.2.53]"')
        return self.addresses

    def domains_left_alone(self) -> tuple[str, ...]:
        """Return all names that devices ask of the network they are in, each once."""
        return tuple(dict.fromkeys((*self.captive_domains, *self.carrier_domains, *self.excluded_domains)))


@dataclass(frozen=True, slots=True)
class Device:
    """What is pointed here.

    Args:
        name: What people call it: any text.
        token: None where it has none yet.
        interfaces: Its addresses in the WireGuard network.
        wireguard_key: Its private key; None where the key stays on the device.
        identity: Its certificate and private key, as PKCS #12.

    Raises:
        EnrolError: A value is not of its form.
    """

    name: str
    token: str | None = None
    group: str | None = None
    serial: str | None = None
    interfaces: tuple[Interface, ...] = ()
    wireguard_key: str | None = None
    identity: bytes | None = None

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise EnrolError("a device has no name; give it one")
        if self.token is not None:
            parse_token(self.token)
        if self.wireguard_key is not None:
            parse_key(self.wireguard_key)

    def known_token(self) -> str:
        """Return the token.

        Raises:
            EnrolError: There is none.
        """
        if self.token is None:
            raise EnrolError("the device has no token, so that nobody could tell whose its questions are; give it one")
        return self.token


@dataclass(frozen=True, slots=True)
class Options:
    """What the administrator chooses for all devices.

    Args:
        locked: Users can not switch the setting off, where the platform can forbid it (Apple: supervised devices).
        audited: Watch only, where the platform can (ZTDNS).
    """

    protocol: Protocol = Protocol.HTTPS
    locked: bool = True
    audited: bool = False


@dataclass(frozen=True, slots=True)
class File:
    """One file of a profile. `secret` where it holds a token or key."""

    name: str
    octets: bytes
    media_type: str
    secret: bool = True


@dataclass(frozen=True, slots=True)
class Profile:
    """The files for one device on one platform, what the administrator must know, and what a phone's camera reads."""

    files: tuple[File, ...]
    notes: tuple[str, ...] = ()
    qr: str | None = None


Maker = Callable[[Service, Device, Options], Profile]
"""What each platform is."""


def label(text: str) -> str:
    """Return a name as one short line that no format can take for anything but text."""
    return "".join(c if c.isprintable() else " " for c in text[:_LABEL_CHARACTERS]).strip() or "device"


def folder_of(name: str) -> str:
    """Return a folder name of a device: ASCII letters, digits, `.`, `_` and `-`; different for different names."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:64]
    if plain == name != "":
        return plain
    return f"{plain or 'device'}.{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def uuid_of(service: Service, device: Device, kind: str) -> str:
    """Return the UUID of a payload: always the same for the same organisation, device and kind (RFC 9562 §5.5)."""
    room = uuid.uuid5(uuid.NAMESPACE_DNS, service.identifier)
    name = device.name.encode("utf-8", "backslashreplace").decode()
    return str(uuid.uuid5(room, f"{kind}/{name}")).upper()


def to_pem(certificate: bytes) -> str:
    """Return a certificate (DER) as text (RFC 7468 §5)."""
    text = b64encode(certificate).decode()
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])


# ---- how values are written -----------------------------------------------------------------------------------------


def parse_token(written: str) -> str:
    """A token: one label of lower-case letters, digits and hyphens (RFC 1035 §2.3.1).

    Raises:
        EnrolError: Anything else.
    """
    if _TOKEN.fullmatch(written):
        return written
    raise EnrolError(
        f"{shown(written)} is no token; write 1 to 63 lower-case letters, digits and hyphens, with no hyphen at an end"
    )


def parse_host(written: str) -> str:
    """A host name of two labels or more, in lower case.

    Raises:
        EnrolError: Anything else.
    """
    if _HOST.fullmatch(written):
        return written
    raise EnrolError(f"{shown(written)} is no host name; write one such as dns.example.org, in lower case")


def parse_template(written: str) -> str:
    """A web address (https) with `{token}` once in its path, and no query.

    Raises:
        EnrolError: Anything else.
    """
    mend = "write one such as https://dns.example.org/dns-query/{token}"
    try:
        parts = urlsplit(written)
        port = parts.port
    except ValueError as error:
        raise EnrolError(f"{shown(written)} is no web address ({error}); {mend}") from None
    if parts.path.count(PLACE) != 1 or not _PATH.fullmatch(parts.path.replace(PLACE, "t")):
        raise EnrolError(f"{shown(written)} does not hold {PLACE} once in its path; {mend}")
    host = parts.hostname or ""
    netloc = host if port is None else f"{host}:{port}"
    if written != f"https://{netloc}{parts.path}" or not _HOST.fullmatch(host):
        raise EnrolError(f"{shown(written)} is not https with a host and a path alone; {mend}")
    return written


def parse_host_template(written: str) -> str:
    """A host name whose first label is `{token}`.

    Raises:
        EnrolError: Anything else.
    """
    if written.startswith(f"{PLACE}.") and _HOST.fullmatch("t" + written.removeprefix(PLACE)):
        return written
    raise EnrolError(f'{shown(written)} does not begin with {PLACE}; write "{PLACE}.dns.example.org", in quotes')


def parse_reverse_name(written: str) -> str:
    """A name in reverse-DNS form.

    Raises:
        EnrolError: Anything else.
    """
    if len(written) <= 128 and _REVERSE.fullmatch(written):
        return written
    raise EnrolError(f"{shown(written)} is no identifier; write your domain turned round, such as org.example.dns")


def parse_endpoint(written: str) -> str:
    """A host name or address with a port.

    Raises:
        EnrolError: Anything else.
    """
    host, _, port = written.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        if bracketed:
            IPv6Address(host[1:-1])
        elif not _HOST.fullmatch(host):
            IPv4Address(host)
        if not (port.isascii() and port.isdigit()):
            raise ValueError
        _check_port(int(port))
    except ValueError:
        mend = "write vpn.example.org:51820 or [2001:db8::1]:51820, in quotes"
        raise EnrolError(f"{shown(written)} is no host with a port; {mend}") from None
    return written


def parse_key(written: str) -> str:
    """A WireGuard key: 32 octets in base64.

    Raises:
        EnrolError: Anything else. The message does not repeat it.
    """
    if _KEY.fullmatch(written):
        return written
    raise EnrolError("this is no WireGuard key; write the 44 characters that `wg genkey` or `wg pubkey` prints")


def parse_package(written: str) -> str:
    """The package name of an Android app.

    Raises:
        EnrolError: Anything else.
    """
    if _PACKAGE.fullmatch(written):
        return written
    raise EnrolError(f"{shown(written)} is no package name; write one such as org.example.vpn")


def _check_port(port: int) -> None:
    if not 1 <= port <= 65535:
        raise EnrolError(f"{port} is no port; write a number from 1 to 65535")
