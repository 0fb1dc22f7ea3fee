"""Networks that point their devices here: DNR (RFC 9463), for Kea, ISC dhcpd, dnsmasq and radvd.

What a network tells all its devices names none of them: there is no token in it, and who finds the service this way
belongs to the group of its network. One designation holds all that is spoken under one name at usual ports; anything
else gets one of its own. DHCPv4 carries all of them in one option. DHCPv6 takes an option for each, but of several
options of one code Kea 2.2, ISC dhcpd 4.4 and dnsmasq 2.90 send one; so only the preferred one is written there.

Sources: RFC 9463 §4.1 (DHCPv6, code 144) and §5.1 (DHCPv4, code 162); the Kea manual (`csv-format: false`, in all
versions; `v4-dnr` and `v6-dnr` as words of its own from 2.6); dhcp-options(5); dnsmasq(8) (`dhcp-option`, hexadecimal
with colons). radvd has no word for the option of RFC 9463 §6 up to version 2.20, nor has systemd-networkd as a server
up to version 257 (as a client: `UseDNR`).
"""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urlsplit

from resolver.enrol.profile import PLACE, Address, EnrolError, File, Profile, Service
from resolver.wire import name as names
from resolver.wire.svcb import Alpn, service_parameters

_V4_CODE = 162  # OPTION_V4_DNR
_V6_CODE = 144  # OPTION_V6_DNR
_MOST_V4_OCTETS = 255  # more would have to be cut over several options (RFC 3396), which not every server does


@dataclass(frozen=True, slots=True)
class Designation:
    """One resolver as a network tells of it (RFC 9463 §3.1).

    Attributes:
        priority: The lowest is preferred; never 0 (RFC 9460 §2.4.1).
        name: That the certificate is checked for.
        addresses: In order of preference.
        port: None where each protocol is at its usual one.
        path: Of DNS over HTTPS.
    """

    priority: int
    name: str
    addresses: tuple[Address, ...]
    alpns: tuple[Alpn, ...]
    port: int | None
    path: str

    def __str__(self) -> str:
        """For people, in a comment."""
        port = f" port={self.port}" if self.port is not None else ""
        path = f" dohpath={self.path}{{?dns}}" if any(alpn.is_http for alpn in self.alpns) else ""
        return f"{self.name} alpn={','.join(self.alpns)}{port}{path}"

    def v4(self) -> bytes:
        """The DNR Instance Data of DHCPv4 (RFC 9463 §5.1)."""
        octets = self._octets(1, (one for one in self.addresses if isinstance(one, IPv4Address)))
        return len(octets).to_bytes(2, "big") + octets

    def v6(self) -> bytes:
        """The content of the option of DHCPv6 (RFC 9463 §4.1)."""
        return self._octets(2, (one for one in self.addresses if isinstance(one, IPv6Address)))

    def _octets(self, width: int, addresses: Iterable[Address]) -> bytes:
        """The fields that both have; lengths are of so many octets."""
        name, packed = names.from_text(self.name), b"".join(one.packed for one in addresses)
        return b"".join((
            self.priority.to_bytes(2, "big"),
            len(name).to_bytes(width, "big"),
            name,
            len(packed).to_bytes(width, "big"),
            packed,
            # Hints are forbidden, since the addresses stand before (RFC 9463 §4.1).
            service_parameters(self.alpns, self.port, self.path),
        ))  # fmt: skip


def designations(service: Service, also: Collection[Alpn] = ()) -> tuple[Designation, ...]:
    """Return how a network tells of the service, the preferred one first.

    Args:
        service: Its templates say name, port and path; what stands for the token is left out.
        also: What it speaks besides what the templates say: h3 beside DNS over HTTPS, doq beside DNS over TLS.

    Raises:
        EnrolError: It has no addresses, or such as clients discard; nothing is encrypted; a token can not be left out.
    """
    for address in service.known_addresses():
        if address.is_loopback or address.is_multicast:
            raise EnrolError(f"devices discard {address} (RFC 9463 §4.2, §5.2); give the service addresses they reach")
    found: dict[tuple[str, int | None], list[Alpn]] = {}
    path = ""
    if service.doh is not None:
        parts = urlsplit(service.doh)
        path = parts.path.removesuffix(f"/{PLACE}")
        if PLACE in path:
            raise EnrolError(f"no token can be left out of the middle of {service.doh}; end it with /{PLACE}")
        port = None if parts.port in (None, Alpn.H2.default_port) else parts.port
        found[parts.hostname or "", port] = [Alpn.H2, *([Alpn.H3] if Alpn.H3 in also else [])]
    if service.dot is not None:
        host = service.dot.removeprefix(f"{PLACE}.")
        found.setdefault((host, None), []).extend([Alpn.DOT, *([Alpn.DOQ] if Alpn.DOQ in also else [])])
    spoken = [alpn for alpns in found.values() for alpn in alpns]
    if missing := set(also).difference(spoken):
        raise EnrolError(f"{', '.join(sorted(missing))} needs a name; give the service doh for h3, and dot for doq")
    if not spoken:
        raise EnrolError('encrypted DNS is needed here; give the service "doh: https://.../{token}", or dot')
    return tuple(
        Designation(priority, name, service.addresses, tuple(alpns), port, path)
        for priority, ((name, port), alpns) in enumerate(found.items(), 1)
    )


NetworkMaker = Callable[[Service, Sequence[Designation]], Profile]
"""What each server is."""


def kea(service: Service, found: Sequence[Designation]) -> Profile:
    """Make the options for Kea's two servers."""
    files = []
    for option in _options(service, found):
        written = {
            "comment": f"RFC 9463: {option.comment}",
            "space": f"dhcp{option.version}",
            "code": option.code,
            "csv-format": False,
            "data": option.octets.hex().upper(),
        }
        files.append(_file(f"interdict-kea{option.version}.json", json.dumps(written, indent=2)))
    return Profile(
        tuple(files),
        (
            'It is a member of "option-data", of all or of a subnet: "option-data": [ <?include '
            '"/etc/kea/interdict-kea4.json"?> ].',
            *_notes(found),
        ),
    )


def isc_dhcpd(service: Service, found: Sequence[Designation]) -> Profile:
    """Make the statements for ISC dhcpd, one file a protocol."""
    files = []
    for option in _options(service, found):
        word = {4: "interdict-dnr", 6: "dhcp6.interdict-dnr"}[option.version]
        text = (
            f"# RFC 9463: {option.comment}\n"
            f"option {word} code {option.code} = string;\n"
            f"option {word} {option.octets.hex(':')};"
        )
        files.append(_file(f"interdict-dhcpd{option.version}.conf", text))
    return Profile(
        tuple(files),
        (
            'Outside of any subnet: include "/etc/dhcp/interdict-dhcpd4.conf";, and the other one for dhcpd -6.',
            *_notes(found),
        ),
    )


def dnsmasq(service: Service, found: Sequence[Designation]) -> Profile:
    """Make the lines for dnsmasq as a DHCP server."""
    lines = []
    for option in _options(service, found):
        word = {4: "", 6: "option6:"}[option.version]
        lines += [f"# RFC 9463: {option.comment}", f"dhcp-option={word}{option.code},{option.octets.hex(':')}"]
    return Profile((_file("interdict-dnsmasq.conf", "\n".join(lines)),), ("It goes to /etc/dnsmasq.d.", *_notes(found)))


def radvd(service: Service, found: Sequence[Designation]) -> Profile:
    """Make the lines for radvd, by which devices ask DHCPv6 for the option, or the service itself (RFC 9462 §4)."""
    addresses = [str(address) for address in service.addresses if isinstance(address, IPv6Address)]
    if not addresses:
        raise EnrolError('router advertisements hold IPv6 addresses; give the service one, such as "2001:db8::53"')
    lines = ["AdvOtherConfigFlag on;", f"RDNSS {' '.join(addresses)} {{ }};"]
    if service.search_domains:
        lines.append(f"DNSSL {' '.join(service.search_domains)} {{ }};")
    return Profile(
        (_file("interdict-radvd.conf", "\n".join(lines)),),
        (
            "Put the lines into the interface's block of radvd.conf.",
            "radvd can not send the option of RFC 9463 §6 itself. With these lines devices ask a DHCPv6 server for it "
            "(make that one's profile too), and those that do not find the encrypted resolver by RFC 9462.",
            *_notes(found),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Option:
    version: int
    code: int
    octets: bytes
    comment: str


def _options(service: Service, found: Sequence[Designation]) -> list[_Option]:
    """One for each family that the service has an address of: without any, devices would have to ask for the name."""
    versions = {address.version for address in service.addresses}
    options = []
    if 4 in versions:
        octets = b"".join(one.v4() for one in found)
        if len(octets) > _MOST_V4_OCTETS:
            raise EnrolError(
                f"the option of DHCPv4 would have {len(octets)} octets, and {_MOST_V4_OCTETS} is the most; give the "
                "service fewer addresses, or a shorter name or path"
            )
        options.append(_Option(4, _V4_CODE, octets, "; ".join(map(str, found))))
    if 6 in versions:
        options.append(_Option(6, _V6_CODE, found[0].v6(), str(found[0])))
    return options


def _notes(found: Sequence[Designation]) -> list[str]:
    held = ", ".join(dict.fromkeys(one.name for one in found))
    rest = [f"DHCPv6 tells of {found[0]} alone: servers send one option of a code."] if len(found) > 1 else []
    return [
        *rest,
        f"The certificate of the service must hold {held}.",
        "It names no device: those that come by it belong to the group of their network.",
        "Nobody signs DHCP and router advertisements: keep others from sending them, by DHCP snooping and RA-Guard.",
    ]


def _file(name: str, text: str) -> File:
    media_type = "application/json" if name.endswith(".json") else "text/plain"
    return File(name, f"{text}\n".encode(), media_type, secret=False)
