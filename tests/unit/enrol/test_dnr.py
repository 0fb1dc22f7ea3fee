"""DNR: what networks tell, taken apart again by the figures of RFC 9463, and the files that hold it."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

import dns.name
import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.enrol.dnr import Designation, designations
from resolver.enrol.platforms import NETWORKS
from resolver.enrol.profile import EnrolError, Profile, Service
from resolver.wire.svcb import Alpn
from tests.support.enrolled import DEVICE, KEY, SERVICE, file_of

V4, V6 = ip_address("192.0.2.53"), ip_address("2001:db8::53")
NETWORK = replace(SERVICE, dot="{token}.dns.example.org")
PLAIN = Service("Example Agency", "org.example.dns", addresses=(V4, V6))


class Told(NamedTuple):
    """What a device reads out of one instance."""

    priority: int
    name: str
    addresses: tuple[IPv4Address | IPv6Address, ...]
    parameters: str


def parameters_of(octets: bytes) -> str:
    wire = b"\0\1\0" + octets
    return dns.rdata.from_wire("IN", "SVCB", wire, 0, len(wire)).to_text().removeprefix("1 . ")


def instance(octets: bytes, width: int, address: int) -> Told:
    """RFC 9463 §4.1 and §5.1: lengths of so many octets, addresses of so many."""
    i = 2 + width
    length = int.from_bytes(octets[2:i], "big")
    name = dns.name.from_wire(octets[i : i + length], 0)[0].to_text()
    i += length
    length = int.from_bytes(octets[i : i + width], "big")
    i += width
    packed = octets[i : i + length]
    assert length % address == 0
    found = tuple(ip_address(packed[j : j + address]) for j in range(0, length, address))
    return Told(int.from_bytes(octets[:2], "big"), name, found, parameters_of(octets[i + length :]))


def read_v4(octets: bytes) -> list[Told]:
    """All instances of one option of DHCPv4."""
    found = []
    while octets:
        end = 2 + int.from_bytes(octets[:2], "big")
        assert len(octets) >= end
        found.append(instance(octets[2:end], 1, 4))
        octets = octets[end:]
    return found


def read_v6(octets: bytes) -> Told:
    """One option of DHCPv6."""
    return instance(octets, 2, 16)


def made(server: str, service: Service = NETWORK, *also: Alpn) -> Profile:
    return NETWORKS[server](service, designations(service, also))


HTTPS = 'alpn="h2,dot" dohpath="/dns-query{?dns}"'


def test_a_device_reads_what_was_meant() -> None:
    """Name, addresses of its family, protocols and path; no token."""
    (found,) = designations(NETWORK)

    assert read_v4(found.v4()) == [Told(1, "dns.example.org.", (V4,), HTTPS)]
    assert read_v6(found.v6()) == Told(1, "dns.example.org.", (V6,), HTTPS)


def test_the_octets_are_those_of_the_figures() -> None:
    """RFC 9463 figures 1, 2 and 5, octet by octet."""
    found = Designation(1, "doh1.example.com", (V4, V6), (Alpn.DOT,), None, "")
    name, dot = b"\4doh1\7example\3com\0", b"\0\1\0\4\3dot"

    assert found.v4() == bytes((0, 2 + 1 + 18 + 1 + 4 + 8, 0, 1, 18)) + name + b"\4\xc0\0\2\x35" + dot
    assert found.v6() == b"\0\1\0\x12" + name + b"\0\x10" + V6.packed + dot


@pytest.mark.parametrize(
    ("service", "also", "expected"),
    [
        (NETWORK, (Alpn.H3, Alpn.DOQ), [(1, "dns.example.org.", 'alpn="h2,h3,dot,doq" dohpath="/dns-query{?dns}"')]),
        (replace(NETWORK, dot=None), (Alpn.H3,), [(1, "dns.example.org.", 'alpn="h2,h3" dohpath="/dns-query{?dns}"')]),
        (replace(NETWORK, doh=None), (Alpn.DOQ,), [(1, "dns.example.org.", 'alpn="dot,doq"')]),
        (replace(NETWORK, doh="https://dns.example.org:443/q/{token}"), (),
         [(1, "dns.example.org.", 'alpn="h2,dot" dohpath="/q{?dns}"')]),
        (replace(NETWORK, doh="https://dns.example.org:8443/q/{token}"), (),
         [(1, "dns.example.org.", 'alpn="h2" port="8443" dohpath="/q{?dns}"'), (2, "dns.example.org.", 'alpn="dot"')]),
        (replace(NETWORK, dot="{token}.dot.example.org"), (),
         [(1, "dns.example.org.", 'alpn="h2" dohpath="/dns-query{?dns}"'), (2, "dot.example.org.", 'alpn="dot"')]),
    ],
)  # fmt: skip
def test_names_and_ports_apart_are_told_apart(
    service: Service, also: tuple[Alpn, ...], expected: list[tuple[int, str, str]]
) -> None:
    """What is at its usual port under one name is one designation; HTTP is preferred."""
    found = designations(service, also)
    told = read_v4(b"".join(one.v4() for one in found))

    assert [(one.priority, one.name, one.parameters) for one in told] == expected
    assert [read_v6(one.v6())._replace(addresses=()) for one in found] == [one._replace(addresses=()) for one in told]


@pytest.mark.parametrize(
    ("service", "also", "mend"),
    [
        (PLAIN, (), "encrypted DNS is needed here; give the service"),
        (replace(NETWORK, addresses=()), (), "the addresses of the service are needed here"),
        (replace(NETWORK, addresses=(ip_address("127.0.0.1"),)), (), "devices discard 127.0.0.1"),
        (replace(NETWORK, addresses=(ip_address("ff02::1"),)), (), "devices discard ff02::1"),
        (replace(NETWORK, doh="https://dns.example.org/{token}/q"), (), "end it with /{token}"),
        (replace(NETWORK, doh=None), (Alpn.H3,), "give the service doh for h3"),
        (replace(NETWORK, dot=None), (Alpn.DOQ,), "and dot for doq"),
    ],
)
def test_what_no_device_could_use_is_refused(service: Service, also: tuple[Alpn, ...], mend: str) -> None:
    """And the mend is said."""
    with pytest.raises(EnrolError, match=re.escape(mend)):
        designations(service, also)


@given(
    st.from_regex(r"(?:[a-z0-9]{1,20}\.){1,3}[a-z]{2,10}", fullmatch=True),
    st.lists(st.ip_addresses(v=4), max_size=5),
    st.lists(st.ip_addresses(v=6), max_size=5),
    st.lists(st.sampled_from(Alpn), min_size=1, unique=True),
    st.none() | st.integers(1, 65535),
)
def test_whatever_is_told_is_read_back(
    name: str, v4: list[IPv4Address], v6: list[IPv6Address], alpns: list[Alpn], port: int | None
) -> None:
    """Names, addresses of both families, protocols and ports of any kind."""
    told = Designation(7, name, (*v4, *v6), tuple(alpns), port, "/q")
    (one,), other = read_v4(told.v4()), read_v6(told.v6())

    assert (one.priority, one.name, one.addresses) == (7, f"{name}.", tuple(v4))
    assert (other.priority, other.name, other.addresses) == (7, f"{name}.", tuple(v6))
    assert one.parameters == other.parameters
    assert "hint" not in one.parameters


# ---- the files ------------------------------------------------------------------------------------------------------


def kea_options(profile: Profile) -> Iterable[tuple[str, int, bytes]]:
    for file in profile.files:
        option = json.loads(file.octets)
        assert option["csv-format"] is False
        yield option["space"], option["code"], bytes.fromhex(option["data"])


def text_options(profile: Profile, line: str) -> list[bytes]:
    text = "".join(file.octets.decode() for file in profile.files)
    return [bytes.fromhex(found.replace(":", "")) for found in re.findall(line, text, re.MULTILINE)]


@pytest.mark.parametrize("service", [NETWORK, replace(NETWORK, doh="https://dns.example.org:8443/q/{token}")])
def test_the_files_hold_the_options(service: Service) -> None:
    """Over DHCPv4 one with all, over DHCPv6 the preferred alone, since servers send one of a code; and that is said."""
    found = designations(service)
    v4, v6 = b"".join(one.v4() for one in found), [found[0].v6()]

    assert list(kea_options(made("kea", service))) == [("dhcp4", 162, v4), ("dhcp6", 144, v6[0])]
    assert text_options(made("dnsmasq", service), r"^dhcp-option=162,(\S+)$") == [v4]
    assert text_options(made("dnsmasq", service), r"^dhcp-option=option6:144,(\S+)$") == v6
    assert text_options(made("isc-dhcpd", service), r"^option interdict-dnr ([0-9a-f:]+);$") == [v4]
    assert text_options(made("isc-dhcpd", service), r"^option dhcp6.interdict-dnr ([0-9a-f:]+);$") == v6
    for server in NETWORKS:
        assert any("alone" in note for note in made(server, service).notes) == (len(found) > 1)


@pytest.mark.parametrize(("address", "left"), [(V4, "4"), (V6, "6")])
def test_a_family_without_an_address_has_no_option(address: IPv4Address | IPv6Address, left: str) -> None:
    """An option without addresses would have devices ask for the name first."""
    service = replace(NETWORK, addresses=(address,))

    assert [file.name for file in made("kea", service).files] == [f"interdict-kea{left}.json"]
    assert [file.name for file in made("isc-dhcpd", service).files] == [f"interdict-dhcpd{left}.conf"]
    assert made("dnsmasq", service).files[0].octets.count(b"dhcp-option=") == 1


def test_an_option_that_not_every_server_can_send_is_refused() -> None:
    """Of more than 255 octets."""
    many = replace(NETWORK, addresses=tuple(ip_address(f"192.0.2.{i}") for i in range(1, 60)))

    with pytest.raises(EnrolError, match="fewer addresses"):
        made("kea", many)


def test_radvd_announces_the_resolver_and_says_what_it_can_not() -> None:
    """Devices ask DHCPv6 for the option, or the service itself."""
    profile = made("radvd")

    assert file_of(profile, ".conf").octets.decode().splitlines() == [
        "AdvOtherConfigFlag on;",
        "RDNSS 2001:db8::53 { };",
        "DNSSL corp.example.org example.org { };",
    ]
    assert any("can not send the option of RFC 9463" in note for note in profile.notes)
    with pytest.raises(EnrolError, match="2001:db8::53"):
        made("radvd", replace(NETWORK, addresses=(V4,)))


@pytest.mark.parametrize("server", NETWORKS)
def test_no_device_is_named_and_nothing_is_secret(server: str) -> None:
    """The files are for everybody in the network; and the same service gives the same octets."""
    profile = made(server)

    assert profile == made(server)
    for file in profile.files:
        assert not file.secret
        assert not {word for word in (DEVICE.token or "", KEY, "{token}") if word.encode() in file.octets}
    assert any("names no device" in note for note in profile.notes)
    assert any("must hold dns.example.org" in note for note in profile.notes)
