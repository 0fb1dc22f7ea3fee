"""Apple's profiles: what they say, and that a new one takes the place of the old."""

import json
import plistlib
from dataclasses import replace
from typing import Any

import pytest

from resolver.enrol.profile import EnrolError, Options, Protocol
from tests.support.enrolled import CERTIFICATE, DEVICE, SERVICE, file_of, made, named


def profile_of(platform: str, **choices: Any) -> dict[str, Any]:
    found = plistlib.loads(file_of(made(platform, **choices), ".mobileconfig").octets)
    assert isinstance(found, dict)
    return found


def payload_of(platform: str, kind: str, **choices: Any) -> dict[str, Any]:
    [found] = [one for one in profile_of(platform, **choices)["PayloadContent"] if one["PayloadType"] == kind]
    assert isinstance(found, dict)
    return found


def dns(**choices: Any) -> dict[str, Any]:
    return payload_of("apple", "com.apple.dnsSettings.managed", **choices)


def test_https_names_the_devices_own_address() -> None:
    """The template with the token, and the addresses, so that nobody else need be asked for them."""
    assert dns()["DNSSettings"] == {
        "DNSProtocol": "HTTPS",
        "ServerURL": "https://dns.example.org/dns-query/k3v9",
        "ServerAddresses": ["192.0.2.53", "2001:db8::53"],
    }


def test_tls_names_the_devices_own_host() -> None:
    """The host whose first label is the token."""
    assert dns(options=Options(Protocol.TLS))["DNSSettings"] == {
        "DNSProtocol": "TLS",
        "ServerName": "k3v9.dns.example.org",
        "ServerAddresses": ["192.0.2.53", "2001:db8::53"],
    }


def test_exceptions_come_before_the_rule_for_all_networks() -> None:
    """Networks left out first, then names left to the network, then all."""
    rules = dns()["OnDemandRules"]

    assert rules[0] == {"Action": "Disconnect", "SSIDMatch": ["Train Wi-Fi"]}
    assert rules[1]["Action"] == "EvaluateConnection"
    [never] = rules[1]["ActionParameters"]
    assert never["DomainAction"] == "NeverConnect"
    assert {"captive.apple.com", "3gppnetwork.org", "printers.example.org"} <= set(never["Domains"])
    assert rules[2:] == [{"Action": "Connect"}]


def test_without_exceptions_there_are_no_rules() -> None:
    """Then the settings always apply."""
    service = replace(SERVICE, excluded_domains=(), captive_domains=(), carrier_domains=(), excluded_networks=())

    assert "OnDemandRules" not in dns(service=service)


@pytest.mark.parametrize("locked", [True, False])
def test_only_locked_profiles_say_that_they_stay(locked: bool) -> None:
    """Both the settings and the profile; on devices that nobody supervises neither may stand there."""
    choices = {"options": Options(locked=locked)}

    assert dns(**choices).get("ProhibitDisablement", False) is locked
    assert profile_of("apple", **choices).get("PayloadRemovalDisallowed", False) is locked
    assert payload_of("apple-vpn", "com.apple.vpn.managed", **choices)["AlwaysOn"]["UIToggleEnabled"] == (not locked)


def test_authorities_are_payloads_of_their_own() -> None:
    """The device trusts the service by the same profile."""
    assert payload_of("apple", "com.apple.security.root")["PayloadContent"] == CERTIFICATE


@pytest.mark.parametrize("platform", ["apple", "apple-vpn", "apple-app-vpn"])
def test_a_new_profile_replaces_the_one_before(platform: str) -> None:
    """The identifier is the organisation's, not the device's; UUIDs are the device's and repeat within no profile."""
    one, other = profile_of(platform), profile_of(platform, device=named("phone-8"))
    uuids = [one["PayloadUUID"], *(payload["PayloadUUID"] for payload in one["PayloadContent"])]

    assert one["PayloadIdentifier"] == other["PayloadIdentifier"]
    assert one["PayloadUUID"] != other["PayloadUUID"]
    assert len(set(uuids)) == len(uuids)


@pytest.mark.parametrize("platform", ["apple", "apple-vpn", "apple-app-vpn"])
def test_there_is_no_web_clip(platform: str) -> None:
    """Nothing but names, tunnels and certificates is configured."""
    kinds = {payload["PayloadType"] for payload in profile_of(platform)["PayloadContent"]}

    assert kinds <= {
        "com.apple.dnsSettings.managed",
        "com.apple.vpn.managed",
        "com.apple.vpn.managed.applayer",
        "com.apple.security.root",
        "com.apple.security.pkcs12",
    }


def test_always_on_covers_every_network_and_spares_the_carrier() -> None:
    """One tunnel for cellular and Wi-Fi; calls and voicemail stay outside, and sign-in pages open."""
    always = payload_of("apple-vpn", "com.apple.vpn.managed")["AlwaysOn"]
    [tunnel] = always["TunnelConfigurations"]

    assert set(tunnel["Interfaces"]) == {"Cellular", "WiFi"}
    assert tunnel["RemoteAddress"] == "vpn.example.org"
    assert {(one["ServiceName"], one["Action"]) for one in always["ServiceExceptions"]} == {
        ("CellularServices", "Allow"),
        ("VoiceMail", "Allow"),
    }
    assert always["AllowCaptiveWebSheet"] == 1


@pytest.mark.parametrize(
    ("platform", "kind", "way"),
    [
        ("apple-vpn", "com.apple.vpn.managed", ("AlwaysOn", "TunnelConfigurations", 0)),
        ("apple-app-vpn", "com.apple.vpn.managed.applayer", ("IKEv2",)),
    ],
)
def test_a_vpn_uses_the_identity_beside_it(platform: str, kind: str, way: tuple[str | int, ...]) -> None:
    """The certificate that it names is in the same profile; and it resolves here."""
    payload = payload_of(platform, kind)
    ikev2: Any = payload
    for step in way:
        ikev2 = ikev2[step]
    identity = payload_of(platform, "com.apple.security.pkcs12")

    assert ikev2["PayloadCertificateUUID"] == identity["PayloadUUID"]
    assert identity["PayloadContent"] == b"PKCS #12"
    assert payload["DNS"]["SearchDomains"] == ["corp.example.org", "example.org"]
    assert payload["DNS"]["ServerURL"].endswith("/k3v9")


def test_the_declaration_says_what_the_payload_says() -> None:
    """Both forms configure the same."""
    payload = json.loads(file_of(made("apple-declaration"), ".json").octets)["Payload"]

    assert payload["DNSSettings"] == dns()["DNSSettings"]
    assert payload["OnDemandRules"] == dns()["OnDemandRules"]
    assert payload["ProhibitDisablement"] is True


def test_a_changed_declaration_has_another_server_token() -> None:
    """Else devices would keep the old one; the identifier stays."""
    one = json.loads(file_of(made("apple-declaration"), ".json").octets)
    moved = replace(SERVICE, addresses=SERVICE.addresses[:1])
    other = json.loads(file_of(made("apple-declaration", service=moved), ".json").octets)

    assert one["Identifier"] == other["Identifier"]
    assert one["ServerToken"] != other["ServerToken"]


def test_a_camera_gets_the_place_of_the_profile() -> None:
    """A profile is too long for a QR code, so the code says where it is; a profile with a key has none."""
    assert made("apple").qr == "https://mdm.example.org/profiles/k3v9.mobileconfig"
    assert made("apple", service=replace(SERVICE, profile_url=None)).qr is None
    assert made("apple-vpn").qr is None


@pytest.mark.parametrize(
    ("platform", "changes", "mend"),
    [
        ("apple", {"service": replace(SERVICE, addresses=())}, "addresses:"),
        ("apple", {"service": replace(SERVICE, doh=None)}, "doh:"),
        ("apple", {"service": replace(SERVICE, dot=None), "options": Options(Protocol.TLS)}, "dot:"),
        ("apple-vpn", {"service": replace(SERVICE, ikev2=None)}, "ikev2:"),
        ("apple-app-vpn", {"device": replace(DEVICE, identity=None)}, "`identity`"),
    ],
    ids=["addresses", "doh", "dot", "ikev2", "identity"],
)
def test_what_is_missing_is_named(platform: str, changes: dict[str, Any], mend: str) -> None:
    """Nothing is made that would not work."""
    with pytest.raises(EnrolError, match=mend):
        made(platform, **changes)


@pytest.mark.parametrize("platform", ["apple", "apple-declaration", "apple-vpn"])
def test_what_to_do_for_an_authority_is_told_where_there_is_one(platform: str) -> None:
    """A certificate installed by hand is not trusted by itself; a declaration holds none."""
    bare = made(platform, service=replace(SERVICE, authorities=()))

    assert any("authority" in note for note in made(platform).notes)
    assert not any("authority" in note for note in bare.notes)


def test_the_reach_is_told() -> None:
    """The administrator learns that an MDM's payload stops at managed Wi-Fi."""
    assert any("managed Wi-Fi" in note for note in made("apple").notes)
