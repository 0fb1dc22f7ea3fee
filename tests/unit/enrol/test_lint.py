"""The lint: each trap with a file that has it and the same file mended; and any octets at all."""

import json
import plistlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.enrol.lint import MOST_OCTETS, lint
from resolver.enrol.platforms import PLATFORMS
from resolver.enrol.profile import Options
from resolver.enrol.traps import Delivery, Trap
from tests.support.enrolled import SERVICE, file_of, made

Way = tuple[str | int, ...]
DNS: Way = ("PayloadContent", 0)
ALWAYS: Way = (*DNS, "AlwaysOn")
TUNNEL: Way = (*ALWAYS, "TunnelConfigurations", 0)
_GONE = object()


def edited(octets: bytes, way: Way, new: object) -> bytes:
    """Change one value of a property list or JSON; with `_GONE` take it out."""
    is_plist = octets.startswith(b"<?xml")
    document: Any = plistlib.loads(octets) if is_plist else json.loads(octets)
    inner = document
    for step in way[:-1]:
        inner = inner[step]
    if new is _GONE:
        del inner[way[-1]]
    else:
        inner[way[-1]] = new
    return plistlib.dumps(document) if is_plist else json.dumps(document).encode()


CAPTIVE_ONLY = [
    {
        "Action": "EvaluateConnection",
        "ActionParameters": [{"DomainAction": "NeverConnect", "Domains": ["captive.apple.com"]}],
    }
]
CARRIER_ONLY = [
    {
        "Action": "EvaluateConnection",
        "ActionParameters": [{"DomainAction": "NeverConnect", "Domains": ["*.3gppnetwork.org"]}],
    }
]
WIFI_ONLY = [{**CAPTIVE_ONLY[0], "InterfaceTypeMatch": "WiFi"}, {"Action": "Connect", "SSIDMatch": ["Office"]}]
PRIVATE = ("deviceConnectivityManagement", "privateDnsSettings")

VALUES: list[tuple[str, str, Way, object, Trap]] = [
    ("apple", ".mobileconfig", (*DNS, "DNSSettings", "ServerAddresses"), _GONE, Trap.NO_SERVER_ADDRESSES),
    ("apple", ".mobileconfig", (*DNS, "DNSSettings", "ServerAddresses"), [], Trap.NO_SERVER_ADDRESSES),
    ("apple", ".mobileconfig", (*DNS, "DNSSettings", "ServerURL"), "https://dns.example.org/dns-query", Trap.NO_TOKEN),
    ("apple", ".mobileconfig", (*DNS, "DNSSettings", "ServerURL"), _GONE, Trap.NOT_ENCRYPTED),
    ("apple", ".mobileconfig", (*DNS, "DNSSettings", "ServerURL"), "http://dns.example.org/x", Trap.NOT_ENCRYPTED),
    ("apple", ".mobileconfig", (*DNS, "DNSSettings", "ServerName"), "k3v9.dns.example.org", Trap.NOT_ENCRYPTED),
    ("apple", ".mobileconfig", (*DNS, "DNSSettings", "DNSProtocol"), "TLS", Trap.NOT_ENCRYPTED),
    ("apple", ".mobileconfig", (*DNS, "DNSSettings", "AllowFailover"), True, Trap.PLAIN_FALLBACK),
    ("apple", ".mobileconfig", (*DNS, "DNSSettings", "SupplementalMatchDomains"), ["x.example"], Trap.ONLY_SOME_NAMES),
    ("apple", ".mobileconfig", (*DNS, "ProhibitDisablement"), _GONE, Trap.USER_CAN_SWITCH_OFF),
    ("apple", ".mobileconfig", ("PayloadRemovalDisallowed",), False, Trap.USER_CAN_SWITCH_OFF),
    ("apple", ".mobileconfig", (*DNS, "OnDemandRules"), _GONE, Trap.NO_CARRIER_EXCLUSIONS),
    ("apple", ".mobileconfig", (*DNS, "OnDemandRules"), CAPTIVE_ONLY, Trap.NO_CARRIER_EXCLUSIONS),
    ("apple", ".mobileconfig", (*DNS, "OnDemandRules"), CARRIER_ONLY, Trap.NO_CAPTIVE_EXCLUSIONS),
    ("apple", ".mobileconfig", (*DNS, "OnDemandRules"), WIFI_ONLY, Trap.MANAGED_WIFI_ONLY),
    ("apple", ".mobileconfig", (*DNS, "PayloadUUID"), _GONE, Trap.NOT_IN_SCHEMA),
    ("apple", ".mobileconfig", (*DNS, "ProhibitDisablment"), True, Trap.NOT_IN_SCHEMA),
    ("apple", ".mobileconfig", ("PayloadContent", 1, "PayloadType"), "com.apple.webClip.managed", Trap.WEB_CLIP),
    ("apple-declaration", ".json", ("Payload", "DNSSettings", "ServerAddresses"), _GONE, Trap.NO_SERVER_ADDRESSES),
    ("apple-declaration", ".json", ("Payload", "ProhibitDisablement"), False, Trap.USER_CAN_SWITCH_OFF),
    ("apple-declaration", ".json", ("ServerToken",), _GONE, Trap.NOT_IN_SCHEMA),
    ("apple-declaration", ".json", ("Payload", "DNSSettings", "ServerURL"), "https://x.example/", Trap.NO_TOKEN),
    ("apple-vpn", ".mobileconfig", (*ALWAYS, "ServiceExceptions"), _GONE, Trap.NO_CARRIER_EXCLUSIONS),
    ("apple-vpn", ".mobileconfig", (*ALWAYS, "AllowCaptiveWebSheet"), 0, Trap.NO_CAPTIVE_EXCLUSIONS),
    ("apple-vpn", ".mobileconfig", (*ALWAYS, "UIToggleEnabled"), 1, Trap.USER_CAN_SWITCH_OFF),
    ("apple-vpn", ".mobileconfig", (*TUNNEL, "Interfaces"), ["WiFi"], Trap.MANAGED_WIFI_ONLY),
    ("apple-vpn", ".mobileconfig", (*DNS, "DNS"), _GONE, Trap.OUTSIDE_TUNNEL),
    ("apple-vpn", ".mobileconfig", (*DNS, "DNS", "ServerAddresses"), [], Trap.NO_SERVER_ADDRESSES),
    ("apple-app-vpn", ".mobileconfig", (*DNS, "DNS", "SupplementalMatchDomains"), ["x.example"], Trap.ONLY_SOME_NAMES),
    ("apple-app-vpn", ".mobileconfig", (*DNS, "IKEv2", "OnDemandUserOverrideDisabled"), 0, Trap.USER_CAN_SWITCH_OFF),
    ("android", ".json", (*PRIVATE, "privateDnsMode"), "PRIVATE_DNS_USER_CHOICE", Trap.USER_CAN_SWITCH_OFF),
    ("android", ".json", (*PRIVATE, "privateDnsMode"), "PRIVATE_DNS_AUTOMATIC", Trap.PLAIN_FALLBACK),
    ("android", ".json", (*PRIVATE, "privateDnsHost"), "dns.example.org", Trap.NO_TOKEN),
    ("android", ".json", (*PRIVATE, "privateDnsHost"), _GONE, Trap.NOT_ENCRYPTED),
    ("android", ".json", ("vpnConfigDisabled",), _GONE, Trap.USER_CAN_SWITCH_OFF),
    ("android", ".json", ("alwaysOnVpnPackage", "lockdownEnabled"), False, Trap.OUTSIDE_TUNNEL),
    ("firefox", ".json", ("policies", "DNSOverHTTPS", "Fallback"), _GONE, Trap.PLAIN_FALLBACK),
    ("firefox", ".json", ("policies", "DNSOverHTTPS", "Locked"), False, Trap.USER_CAN_SWITCH_OFF),
    ("firefox", ".json", ("policies", "DNSOverHTTPS", "Enabled"), False, Trap.NOT_ENCRYPTED),
    ("firefox", ".json", ("policies", "DNSOverHTTPS", "ProviderURL"), "", Trap.NOT_ENCRYPTED),
    ("chrome", ".json", ("DnsOverHttpsMode",), "automatic", Trap.PLAIN_FALLBACK),
    ("chrome", ".json", ("DnsOverHttpsMode",), "off", Trap.NOT_ENCRYPTED),
    ("chrome", ".json", ("DnsOverHttpsTemplates",), _GONE, Trap.NOT_ENCRYPTED),
    ("edge", ".json", ("DnsOverHttpsTemplates",), "https://dns.example.org/dns-query{?dns}", Trap.NO_TOKEN),
    ("windows-ztdns", ".json", ("auditModeEnabled",), True, Trap.PLAIN_FALLBACK),
    ("windows-ztdns", ".json", ("secureDnsServers",), [], Trap.NO_SERVER_ADDRESSES),
    ("windows-ztdns", ".json", ("secureDnsServers", 0, "ipAddress"), None, Trap.NO_SERVER_ADDRESSES),
    ("windows-ztdns", ".json", ("secureDnsServers", 0, "dnsOverHttpsConfiguration"), _GONE, Trap.NOT_ENCRYPTED),
    ("windows-intune", ".json", ("omaSettings", 3, "value"), "<disabled/>", Trap.USER_CAN_SWITCH_OFF),
    ("windows-intune", ".json", ("omaSettings", 4, "value"), "<enabled/>", Trap.PLAIN_FALLBACK),
]  # fmt: skip

TEXTS: list[tuple[str, str, str, str, Trap]] = [
    ("linux", "resolved.conf", "DNSOverTLS=yes", "DNSOverTLS=opportunistic", Trap.PLAIN_FALLBACK),
    ("linux", "resolved.conf", "DNSOverTLS=yes\n", "", Trap.NOT_ENCRYPTED),
    ("linux", "resolved.conf", "#k3v9.dns.example.org", "", Trap.NO_TOKEN),
    ("linux", "resolved.conf", "#k3v9.dns.example.org", "#dns.example.org", Trap.NO_TOKEN),
    ("linux", "resolved.conf", "Domains=~.", "Domains=", Trap.ONLY_SOME_NAMES),
    ("linux", "resolved.conf", "FallbackDNS=\n", "", Trap.PLAIN_FALLBACK),
    ("linux", "resolved.conf", "DNS=192.0.2.53", "DNS=\n;192.0.2.53", Trap.NO_SERVER_ADDRESSES),
    ("linux", "networkmanager.conf", "dns-over-tls=2", "dns-over-tls=1", Trap.PLAIN_FALLBACK),
    ("linux", "networkmanager.conf", "dns=systemd-resolved\n", "", Trap.NOT_ENCRYPTED),
    ("linux", "resolvconf.conf", "127.0.0.53", "192.0.2.53", Trap.NO_TOKEN),
    ("wireguard", ".conf", "DNS = 192.0.2.53, 2001:db8::53,", "DNS = ", Trap.OUTSIDE_TUNNEL),
    ("wireguard", ".conf", "0.0.0.0/0, ::/0", "10.9.0.0/16, ::/0", Trap.OUTSIDE_TUNNEL),
    ("wireguard", ".conf", "0.0.0.0/0, ::/0", "everything", Trap.OUTSIDE_TUNNEL),
    ("openvpn", ".ovpn", "dns server 0 address", "dns server 0 resolve-domains", Trap.ONLY_SOME_NAMES),
    ("openvpn", ".ovpn", "setenv opt block-outside-dns\n", "", Trap.PLAIN_FALLBACK),
    ("openvpn", "push.conf", 'push "block-outside-dns"\n', "", Trap.PLAIN_FALLBACK),
    ("strongswan", "swanctl.conf", "vips = 0.0.0.0, ::", "", Trap.OUTSIDE_TUNNEL),
    ("strongswan", "gateway.conf", "dns = 192.0.2.53, 2001:db8::53", "", Trap.OUTSIDE_TUNNEL),
    ("strongswan", "gateway.conf", "dns = ", "25 = corp.example.org\ndns = ", Trap.ONLY_SOME_NAMES),
    ("windows", ".ps1", "-AllowFallbackToUdp $false", "-AllowFallbackToUdp $true", Trap.PLAIN_FALLBACK),
    ("windows", ".ps1", "-AutoUpgrade $true", "-AutoUpgrade $false", Trap.NOT_ENCRYPTED),
    ("windows", ".ps1", "-Namespace '.'", "-Namespace '.example.org'", Trap.ONLY_SOME_NAMES),
    ("windows", ".ps1", "/k3v9'", "'", Trap.NO_TOKEN),
    ("windows", ".reg", "dword:00000003", "dword:00000002", Trap.PLAIN_FALLBACK),
    ("windows", ".reg", "/k3v9", "", Trap.NO_TOKEN),
    ("chrome", ".reg", '"secure"', '"automatic"', Trap.PLAIN_FALLBACK),
]


@pytest.mark.parametrize(("platform", "ending", "way", "new", "trap"), VALUES, ids=range(len(VALUES)))
def test_a_trap_in_values_is_found_and_gone_when_mended(
    platform: str, ending: str, way: Way, new: object, trap: Trap
) -> None:
    """One value makes the trap; with it as it was, there is none."""
    good = file_of(made(platform), ending).octets

    assert trap in {found.trap for found in lint(edited(good, way, new))}
    assert lint(good) == []


@pytest.mark.parametrize(("platform", "ending", "old", "new", "trap"), TEXTS, ids=range(len(TEXTS)))
def test_a_trap_in_text_is_found_and_gone_when_mended(
    platform: str, ending: str, old: str, new: str, trap: Trap
) -> None:
    """One line makes the trap; with it as it was, there is none."""
    good = file_of(made(platform), ending).octets
    encoding = "utf-16" if ending == ".reg" else "utf-8"
    text = good.decode(encoding)
    assert old in text

    assert trap in {found.trap for found in lint(text.replace(old, new).encode(encoding))}
    assert lint(good) == []


def test_an_mdms_dns_payload_stops_at_managed_wifi() -> None:
    """Installed by hand, or beside an Always-On VPN, it does not; nor does the declaration."""
    good = file_of(made("apple"), ".mobileconfig").octets
    document = plistlib.loads(good)
    vpn = plistlib.loads(file_of(made("apple-vpn"), ".mobileconfig").octets)
    document["PayloadContent"] += vpn["PayloadContent"][:2]

    assert [found.trap for found in lint(good, delivery=Delivery.MDM)] == [Trap.MANAGED_WIFI_ONLY]
    assert lint(good, delivery=Delivery.BY_HAND) == []
    assert lint(plistlib.dumps(document), delivery=Delivery.MDM) == []
    assert lint(file_of(made("apple-declaration"), ".json").octets, delivery=Delivery.MDM) == []


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_file_is_known_without_its_comments(platform: str) -> None:
    """Formats are told by what they say."""
    for file in made(platform).files:
        if file.media_type == "text/plain" and not file.name.endswith(".reg"):
            lines = file.octets.decode("utf-8-sig").splitlines()
            bare = "\n".join(line for line in lines if not line.startswith("#"))

            assert lint(bare.encode()) == []


def test_two_payloads_with_one_uuid_are_told() -> None:
    """The later one would take the place of the other."""
    good = file_of(made("apple"), ".mobileconfig").octets
    document = plistlib.loads(good)
    document["PayloadContent"][1]["PayloadUUID"] = document["PayloadContent"][0]["PayloadUUID"]

    assert [found.trap for found in lint(plistlib.dumps(document))] == [Trap.SAME_UUID]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_unlocked_profile_is_told_as_such_alone(platform: str) -> None:
    """What users may switch off is a trap of its own, and only that."""
    for file in made(platform, options=Options(locked=False)).files:
        traps = {found.trap for found in lint(file.octets)}

        assert traps <= {
            Trap.USER_CAN_SWITCH_OFF,
            Trap.OUTSIDE_TUNNEL if platform == "android" else Trap.USER_CAN_SWITCH_OFF,
        }


def test_a_binary_property_list_is_read_too() -> None:
    """Some tools write them."""
    document = plistlib.loads(file_of(made("apple"), ".mobileconfig").octets)

    assert lint(plistlib.dumps(document, fmt=plistlib.FMT_BINARY)) == []


def test_a_signature_around_it_does_not_hide_a_trap() -> None:
    """What is signed is found between the octets of the signature."""
    good = file_of(made("apple"), ".mobileconfig").octets
    bad = edited(good, (*DNS, "DNSSettings", "AllowFailover"), True)

    assert lint(b"\x30\x82\x10\x00" + good + b"\xa0\x82\xff\x00") == []
    assert [found.trap for found in lint(b"\x30\x82\x10\x00" + bad + b"\xa0\x82")] == [Trap.PLAIN_FALLBACK]


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"hello",
        b"\x00\x01",
        b"\xff\xfe\x00",
        b"{",
        b"[1]",
        b'{"a": 1}',
        b"[" * 100_000,
        b"<?xml version='1.0'?><plist></plist>",
        b"bplist00",
        b" " * (MOST_OCTETS + 1),
        json.dumps({"DnsOverHttpsMode": [[[0] * 300] * 300]}).encode(),
    ],
    ids=range(12),
)
def test_what_is_no_profile_is_told(octets: bytes) -> None:
    """One finding, with what to do."""
    assert {found.trap for found in lint(octets)} <= {Trap.UNREADABLE, Trap.NOT_IN_SCHEMA, Trap.USER_CAN_SWITCH_OFF}
    assert lint(octets)


def test_a_property_list_that_holds_itself_a_million_times_is_told() -> None:
    """Shared parts are small in the file and endless when walked."""
    part: object = ["x"]
    for _ in range(40):
        part = [part, part]

    octets = plistlib.dumps({"PayloadContent": part}, fmt=plistlib.FMT_BINARY)

    assert [found.trap for found in lint(octets)] == [Trap.UNREADABLE]


FILES = [file.octets for platform in PLATFORMS for file in made(platform).files]


@given(st.binary() | st.text().map(str.encode))
def test_any_octets_end_in_findings(octets: bytes) -> None:
    """No file makes the lint raise."""
    assert isinstance(lint(octets, SERVICE), list)


@given(st.sampled_from(FILES), st.data())
def test_any_damage_ends_in_findings(octets: bytes, data: st.DataObject) -> None:
    """Nor does a real profile with a piece exchanged."""
    begin = data.draw(st.integers(0, len(octets)))
    end = data.draw(st.integers(begin, min(len(octets), begin + 40)))
    piece = data.draw(
        st.binary(max_size=20) | st.sampled_from([b"true", b"[]", b"{}", b"<dict/>", b"1", b'"x"', b"\n"])
    )

    assert isinstance(lint(octets[:begin] + piece + octets[end:], None, Delivery.MDM), list)


JSON_FILES = [octets for octets in FILES if octets.startswith(b"{")]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.sampled_from(JSON_FILES), ANYTHING, st.data())
def test_any_value_in_the_place_of_another_ends_in_findings(octets: bytes, new: object, data: st.DataObject) -> None:
    """Values of any type are told, not tripped over."""
    document = json.loads(octets)
    way: list[str | int] = []
    inner = document
    while isinstance(inner, dict | list) and inner and (not way or data.draw(st.booleans())):
        step: Any = data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        way.append(step)
        inner = inner[step]

    assert isinstance(lint(edited(octets, tuple(way), new), SERVICE), list)


def test_findings_say_where() -> None:
    """A line for text, a path of keys for values."""
    text = file_of(made("linux"), "resolved.conf").octets.decode().replace("=yes", "=opportunistic")
    [found] = lint(text.encode())

    assert text.splitlines()[found.line - 1] == "DNSOverTLS=opportunistic"
    assert (found.place, found.mend) == ("DNSOverTLS", "write DNSOverTLS=yes")
