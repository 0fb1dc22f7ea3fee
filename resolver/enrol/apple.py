"""Apple's devices: DNS settings as a configuration profile and as a declaration, and VPN that carries DNS settings.

Keys and values: `schema`. How far each form reaches, as Apple's schema says: the payload com.apple.dnsSettings.managed,
installed by an MDM, acts only in managed Wi-Fi networks; installed by hand, in all. The declaration (systems of version
27 and later) acts in all networks of supervised devices, but only in managed networks of others. Always-On VPN
(supervised iPhones and iPads) leaves no traffic outside; for a fleet before version 27 it is the one that holds.
"""

import json
import plistlib
from collections.abc import Mapping, Sequence

from resolver.enrol.profile import Device, EnrolError, File, Options, Profile, Protocol, Service, label, uuid_of

_MEDIA_TYPE = "application/x-apple-aspen-config"
_VALUES = Mapping[str, object]

# One choice for both ends: strongSwan's proposal in `tunnels` says the same (aes256gcm16-prfsha384-ecp384).
_SECURITY_ASSOCIATION = {
    "EncryptionAlgorithm": "AES-256-GCM",
    "IntegrityAlgorithm": "SHA2-384",
    "DiffieHellmanGroup": 20,
}


def dns_settings(service: Service, device: Device, options: Options) -> Profile:
    """Make the configuration profile with DNS settings, for iOS, iPadOS, macOS and visionOS."""
    payload: dict[str, object] = {"DNSSettings": _settings(service, device, options), **_rules(service)}
    notes = [
        "Installed by an MDM, this payload acts only in managed Wi-Fi networks. For all networks: install it by hand, "
        "use the declaration (version 27 and later), or the Always-On VPN.",
    ]
    if options.locked:
        payload["ProhibitDisablement"] = True
        notes.append("That users can not switch it off holds on supervised devices only.")
    notes += _authority_notes(service)
    payloads = [_payload(service, device, "com.apple.dnsSettings.managed", "dns", "Encrypted DNS", payload)]
    return Profile(
        (_profile(service, device, options, "dns", "Encrypted DNS", payloads),), tuple(notes), _address(service, device)
    )


def declaration(service: Service, device: Device, options: Options) -> Profile:
    """Make the declaration com.apple.configuration.network.dns-settings, for systems of version 27 and later."""
    payload: dict[str, object] = {
        "VisibleName": f"{label(service.organisation)} DNS",
        "DNSSettings": _settings(service, device, options),
        **_rules(service),
    }
    if options.locked:
        payload["ProhibitDisablement"] = True
    written = json.dumps(payload, sort_keys=True)
    document = {
        "Type": "com.apple.configuration.network.dns-settings",
        "Identifier": uuid_of(service, device, "declaration"),
        # The device takes a declaration anew when its server token has changed: so it must change with the content.
        "ServerToken": uuid_of(service, device, f"declaration {written}"),
        "Payload": payload,
    }
    octets = (json.dumps(document, indent=2) + "\n").encode()
    notes = [
        "It is the MDM that sends this declaration; in all networks it acts on supervised devices only.",
        *_authority_notes(service, inside=False),
    ]
    return Profile((File("interdict-dns-declaration.json", octets, "application/json"),), tuple(notes))


def always_on(service: Service, device: Device, options: Options) -> Profile:
    """Make the Always-On VPN (IKEv2) with DNS settings, for supervised iPhones and iPads."""
    tunnel = {"ProtocolType": "IKEv2", "Interfaces": ["Cellular", "WiFi"], **_ikev2(service, device)}
    payload = {
        "VPNType": "AlwaysOn",
        "UserDefinedName": f"{label(service.organisation)} VPN",
        "AlwaysOn": {
            "UIToggleEnabled": 0 if options.locked else 1,
            "TunnelConfigurations": [tunnel],
            "ServiceExceptions": [
                {"ServiceName": "CellularServices", "Action": "Allow"},
                {"ServiceName": "VoiceMail", "Action": "Allow"},
            ],
            "AllowCaptiveWebSheet": 1,
        },
        "DNS": _tunnel_dns(service, device, options),
    }
    payloads = [_payload(service, device, "com.apple.vpn.managed", "vpn", "Always-On VPN", payload)]
    notes = (
        "Always-On VPN needs a supervised iPhone or iPad; an Apple Watch can not be paired with it.",
        *_vpn_notes(service),
    )
    return Profile(
        (_profile(service, device, options, "vpn", "Always-On VPN", [*payloads, _identity(service, device)]),),
        notes,
    )


def per_app(service: Service, device: Device, options: Options) -> Profile:
    """Make the per-app VPN (IKEv2) with DNS settings, for the managed apps that the MDM binds to it."""
    payload: dict[str, object] = {
        "VPNUUID": uuid_of(service, device, "app-vpn configuration"),
        "VPNType": "IKEv2",
        "UserDefinedName": f"{label(service.organisation)} VPN for apps",
        "IKEv2": {
            **_ikev2(service, device),
            "ProviderType": "packet-tunnel",
            "OnDemandEnabled": 1,
            "OnDemandUserOverrideDisabled": 1 if options.locked else 0,
        },
        "OnDemandMatchAppEnabled": 1,
        "DNS": _tunnel_dns(service, device, options),
    }
    if service.excluded_domains:
        payload["ExcludedDomains"] = list(service.excluded_domains)
    payloads = [_payload(service, device, "com.apple.vpn.managed.applayer", "app-vpn", "VPN for apps", payload)]
    notes = (
        f"Give the managed apps the attribute VPNUUID {payload['VPNUUID']}; other apps stay outside this VPN.",
        *_vpn_notes(service),
    )
    return Profile(
        (_profile(service, device, options, "app-vpn", "VPN for apps", [*payloads, _identity(service, device)]),),
        notes,
    )


def _settings(service: Service, device: Device, options: Options) -> dict[str, object]:
    found: dict[str, object] = {"ServerAddresses": [str(address) for address in service.known_addresses()]}
    if options.protocol is Protocol.HTTPS:
        return {"DNSProtocol": "HTTPS", "ServerURL": service.url_for(device), **found}
    return {"DNSProtocol": "TLS", "ServerName": service.host_for(device), **found}


def _tunnel_dns(service: Service, device: Device, options: Options) -> dict[str, object]:
    found = _settings(service, device, options)
    if service.search_domains:
        found["SearchDomains"] = list(service.search_domains)
    return found


def _rules(service: Service) -> _VALUES:
    """The first rule that fits the network counts; without any, the settings always apply."""
    rules: list[_VALUES] = []
    if service.excluded_networks:
        rules.append({"Action": "Disconnect", "SSIDMatch": [label(ssid) for ssid in service.excluded_networks]})
    if domains := service.domains_left_alone():
        never = {"DomainAction": "NeverConnect", "Domains": list(domains)}
        rules.append({"Action": "EvaluateConnection", "ActionParameters": [never]})
    return {"OnDemandRules": [*rules, {"Action": "Connect"}]} if rules else {}


def _ikev2(service: Service, device: Device) -> _VALUES:
    if service.ikev2 is None:
        raise EnrolError('an IKEv2 server is needed here; give the service "ikev2: {server: vpn.example.org}"')
    return {
        "RemoteAddress": service.ikev2.server,
        "RemoteIdentifier": service.ikev2.server,
        "LocalIdentifier": f"{device.known_token()}.{service.ikev2.server}",
        "AuthenticationMethod": "Certificate",
        "PayloadCertificateUUID": uuid_of(service, device, "identity"),
        "EnablePFS": 1,
        "DeadPeerDetectionRate": "Medium",
        "IKESecurityAssociationParameters": _SECURITY_ASSOCIATION,
        "ChildSecurityAssociationParameters": _SECURITY_ASSOCIATION,
    }


def _identity(service: Service, device: Device) -> _VALUES:
    if device.identity is None:
        raise EnrolError(
            "a certificate for the VPN is needed here; give the inventory a column `identity` with the file of the "
            "device's certificate and key (PKCS #12)"
        )
    content = {"PayloadContent": device.identity, "PayloadCertificateFileName": "identity.p12"}
    return _payload(service, device, "com.apple.security.pkcs12", "identity", "Identity", content)


def _payload(service: Service, device: Device, kind: str, name: str, title: str, content: _VALUES) -> _VALUES:
    return {
        "PayloadType": kind,
        "PayloadVersion": 1,
        "PayloadIdentifier": f"{service.identifier}.interdict.{name}.payload",
        "PayloadUUID": uuid_of(service, device, name),
        "PayloadDisplayName": title,
        **content,
    }


def _profile(
    service: Service, device: Device, options: Options, name: str, title: str, payloads: Sequence[_VALUES]
) -> File:
    roots = [
        _payload(
            service,
            device,
            "com.apple.security.root",
            f"authority-{i}",
            "Certificate authority",
            {"PayloadContent": certificate, "PayloadCertificateFileName": f"authority-{i}.cer"},
        )
        for i, certificate in enumerate(service.authorities, 1)
    ]
    document: dict[str, object] = {
        "PayloadType": "Configuration",
        "PayloadVersion": 1,
        # The same on every device: a profile made anew replaces the one before it.
        "PayloadIdentifier": f"{service.identifier}.interdict.{name}",
        "PayloadUUID": uuid_of(service, device, f"profile {name}"),
        "PayloadDisplayName": f"{label(service.organisation)}: {title}",
        "PayloadDescription": f"{title} for {label(device.name)}",
        "PayloadOrganization": label(service.organisation),
        "PayloadScope": "System",
        "PayloadContent": [*payloads, *roots],
    }
    if options.locked:
        document["PayloadRemovalDisallowed"] = True
    return File(f"interdict-{name}.mobileconfig", plistlib.dumps(document), _MEDIA_TYPE)


def _address(service: Service, device: Device) -> str | None:
    """Where a phone fetches the profile: a whole profile is too long for its camera."""
    if service.profile_url is None:
        return None
    return service.profile_url.replace("{token}", device.known_token())


def _authority_notes(service: Service, inside: bool = True) -> list[str]:
    if not service.authorities:
        return []
    if not inside:
        return ["The certificate authority is not in it; send it as a declaration of its own."]
    return [
        "The certificate authority in it is trusted at once where an MDM installs it; installed by hand it must be "
        "switched on in Settings > General > About > Certificate Trust Settings."
    ]


def _vpn_notes(service: Service) -> list[str]:
    return [
        "The identity in it has no password of its own here; hand this file over as you would the key itself.",
        *_authority_notes(service),
    ]
