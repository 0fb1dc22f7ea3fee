"""Which keys Apple's payloads have, of which types, with which values: facts of Apple's published schema, as data.

Source: apple/device-management on GitHub, as of the systems of version 27: mdm/profiles/{TopLevel, CommonPayloadKeys,
com.apple.dnsSettings.managed, com.apple.vpn.managed, com.apple.vpn.managed.applayer, com.apple.security.root,
com.apple.security.pkcs12}.yaml and declarative/declarations/configurations/network.dns-settings.yaml. That a tunnel
configuration of an Always-On VPN holds the keys of IKEv2 too stands in Apple's Configuration Profile Reference
("all keys defined for the IKEv2 dictionary ... may be present in a TunnelConfigurations dictionary").

All keys of these payloads stand here; what is inside other types of VPN than IKEv2 and Always-On does not.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from resolver.policy.source import did_you_mean, shown


class Kind(Enum):
    """The types of the schema, each with the Python types that plists and JSON give for it."""

    TEXT = (str,)
    WHOLE = (int,)
    TRUTH = (bool,)
    DATA = (bytes,)
    DATE = (datetime,)
    REAL = (float, int)
    KEYS = (dict,)
    LIST = (list,)


@dataclass(frozen=True, slots=True)
class Key:
    """What one key may hold: `values` where only these are allowed, `keys` and `item` for what is inside."""

    kind: Kind
    required: bool = False
    values: tuple[object, ...] = ()
    pattern: str = ""
    keys: Mapping[str, "Key"] | None = None
    item: "Key | None" = field(default=None)


def _text(*values: str, required: bool = False) -> Key:
    return Key(Kind.TEXT, required, values)


def _list(item: Key, required: bool = False) -> Key:
    return Key(Kind.LIST, required, item=item)


_TEXT = _text()
_NEEDED = _text(required=True)
_TEXTS = _list(_TEXT)
_FLAG = Key(Kind.WHOLE, values=(0, 1))
_TRUTH = Key(Kind.TRUTH)
_CERTIFICATE = Key(Kind.TEXT, pattern=r"[0-9A-Za-z]{8}(-[0-9A-Za-z]{4}){3}-[0-9A-Za-z]{12}")

_COMMON = {
    "PayloadIdentifier": _NEEDED,
    "PayloadUUID": _NEEDED,
    "PayloadType": _NEEDED,
    "PayloadVersion": Key(Kind.WHOLE, True, (1,)),
    "PayloadDescription": _TEXT,
    "PayloadDisplayName": _TEXT,
    "PayloadOrganization": _TEXT,
}

TOP_LEVEL = Key(
    Kind.KEYS,
    keys={
        **_COMMON,
        "PayloadType": _text("Configuration", required=True),
        "PayloadContent": _list(Key(Kind.KEYS), required=True),
        "IsEncrypted": _TRUTH,
        "HasRemovalPasscode": _TRUTH,
        "PayloadRemovalDisallowed": _TRUTH,
        "PayloadScope": _text("System", "User"),
        "TargetDeviceType": Key(Kind.WHOLE, values=(0, 1, 2, 3, 4, 5)),
        "ConsentText": Key(Kind.KEYS),
        "EncryptedPayloadContent": Key(Kind.DATA),
        "RemovalDate": Key(Kind.DATE),
        "DurationUntilRemoval": Key(Kind.REAL),
        "PayloadExpirationDate": Key(Kind.DATE),
    },
)
"""A whole profile, without what is in its payloads."""

_DNS_SETTINGS = {
    "DNSProtocol": _text("HTTPS", "TLS", required=True),
    "ServerURL": Key(Kind.TEXT, pattern="https://.+"),
    "ServerName": _TEXT,
    "ServerAddresses": _TEXTS,
    "AllowFailover": _TRUTH,
    "SupplementalMatchDomains": _TEXTS,
}

_MATCHES = {
    "DNSDomainMatch": _TEXTS,
    "DNSServerAddressMatch": _TEXTS,
    "InterfaceTypeMatch": _text("Ethernet", "WiFi", "Cellular"),
    "SSIDMatch": _TEXTS,
    "URLStringProbe": _TEXT,
}
_DOMAIN_RULE = {
    "Domains": _list(_TEXT, required=True),
    "DomainAction": _text("NeverConnect", "ConnectIfNeeded", required=True),
}
_DNS_RULES = _list(
    Key(
        Kind.KEYS,
        keys={
            "Action": _text("Connect", "Disconnect", "EvaluateConnection", required=True),
            "ActionParameters": _list(Key(Kind.KEYS, keys=_DOMAIN_RULE)),
            **_MATCHES,
        },
    )
)
_VPN_RULES = _list(
    Key(
        Kind.KEYS,
        keys={
            "Action": _text("Allow", "Connect", "Disconnect", "EvaluateConnection", "Ignore", required=True),
            "ActionParameters": _list(
                Key(Kind.KEYS, keys={**_DOMAIN_RULE, "RequiredDNSServers": _TEXTS, "RequiredURLStringProbe": _TEXT})
            ),
            **_MATCHES,
        },
    )
)

_DNS_PAYLOAD = {
    "DNSSettings": Key(Kind.KEYS, True, keys=_DNS_SETTINGS),
    "OnDemandRules": _DNS_RULES,
    "ProhibitDisablement": _TRUTH,
}

_SECURITY_ASSOCIATION = Key(
    Kind.KEYS,
    keys={
        "EncryptionAlgorithm": _text(
            "DES", "3DES", "AES-128", "AES-256", "AES-128-GCM", "AES-256-GCM", "ChaCha20Poly1305"
        ),
        "IntegrityAlgorithm": _text("SHA1-96", "SHA1-160", "SHA2-256", "SHA2-384", "SHA2-512"),
        "DiffieHellmanGroup": Key(Kind.WHOLE, values=(1, 2, 5, 14, 15, 16, 17, 18, 19, 20, 21, 31, 32)),
        "PostQuantumKeyExchangeMethods": _list(Key(Kind.WHOLE, values=(0, 36, 37))),
        "LifeTimeInMinutes": Key(Kind.WHOLE),
    },
)
_IKEV2 = {
    "RemoteAddress": _NEEDED,
    "LocalIdentifier": _NEEDED,
    "RemoteIdentifier": _NEEDED,
    "AuthenticationMethod": _text("None", "SharedSecret", "Certificate", required=True),
    "Password": _TEXT,
    "PPK": Key(Kind.DATA),
    "PPKIdentifier": _TEXT,
    "PPKMandatory": _FLAG,
    "AllowPostQuantumKeyExchangeFallback": _FLAG,
    "EnforceStrictAlgorithmSelection": _FLAG,
    "ProviderBundleIdentifier": _TEXT,
    "ProviderDesignatedRequirement": _TEXT,
    "CertificateType": _text("RSA", "ECDSA256", "ECDSA384", "ECDSA521", "RSA-PSS"),
    "PayloadCertificateUUID": _TEXT,
    "SharedSecret": _TEXT,
    "ExtendedAuthEnabled": _FLAG,
    "AuthName": _TEXT,
    "AuthPassword": _TEXT,
    "OnDemandEnabled": _FLAG,
    "OnDemandUserOverrideDisabled": _FLAG,
    "OnDemandRules": _VPN_RULES,
    "DeadPeerDetectionRate": _text("None", "Low", "Medium", "High"),
    "ServerCertificateIssuerCommonName": _TEXT,
    "ServerCertificateCommonName": _TEXT,
    "TLSMinimumVersion": _text("1.0", "1.1", "1.2"),
    "TLSMaximumVersion": _text("1.0", "1.1", "1.2"),
    "UseConfigurationAttributeInternalIPSubnet": _FLAG,
    "DisableMOBIKE": _FLAG,
    "DisableRedirect": _FLAG,
    "DisconnectOnIdle": _FLAG,
    "DisconnectOnIdleTimer": Key(Kind.WHOLE),
    "NATKeepAliveOffloadEnable": _FLAG,
    "NATKeepAliveInterval": Key(Kind.WHOLE),
    "EnablePFS": _FLAG,
    "EnableCertificateRevocationCheck": _FLAG,
    "EnableFallback": _FLAG,
    "MTU": Key(Kind.WHOLE),
    "ProviderType": _text("packet-tunnel", "app-proxy"),
    "IncludeAllNetworks": _FLAG,
    "EnforceRoutes": _FLAG,
    "ExcludeLocalNetworks": _FLAG,
    "ExcludeCellularServices": _FLAG,
    "ExcludeAPNs": _FLAG,
    "ExcludeDeviceCommunication": _FLAG,
    "IKESecurityAssociationParameters": _SECURITY_ASSOCIATION,
    "ChildSecurityAssociationParameters": _SECURITY_ASSOCIATION,
}
_VPN = {
    "VPNType": _text("VPN", "L2TP", "IPSec", "IKEv2", "AlwaysOn", "TransparentProxy", required=True),
    "VPNSubType": _TEXT,
    "UserDefinedName": _NEEDED,
    "IKEv2": Key(Kind.KEYS, keys=_IKEV2),
    "DNS": Key(
        Kind.KEYS,
        keys={
            "DNSProtocol": _text("Cleartext", "HTTPS", "TLS", required=True),
            "ServerURL": Key(Kind.TEXT, pattern="https://.+"),
            "ServerName": _TEXT,
            "ServerAddresses": _list(_TEXT, required=True),
            "SearchDomains": _TEXTS,
            "DomainName": _TEXT,
            "SupplementalMatchDomains": _TEXTS,
            "SupplementalMatchDomainsNoSearch": _FLAG,
            "PayloadCertificateUUID": _CERTIFICATE,
        },
    ),
    # Of the other types of VPN only that they may stand there.
    **{name: Key(Kind.KEYS) for name in ("Proxies", "VPN", "VendorConfig", "IPv4", "PPP", "IPSec", "TransparentProxy")},
    "AlwaysOn": Key(
        Kind.KEYS,
        keys={
            "UIToggleEnabled": _FLAG,
            "TunnelConfigurations": _list(
                Key(
                    Kind.KEYS,
                    keys={
                        **_IKEV2,
                        "ProtocolType": _text("IKEv2", required=True),
                        "Interfaces": _list(_text("Cellular", "WiFi")),
                    },
                ),
                required=True,
            ),
            "ServiceExceptions": _list(
                Key(
                    Kind.KEYS,
                    keys={
                        "ServiceName": _text(
                            "VoiceMail", "AirPrint", "CellularServices", "DeviceCommunication", required=True
                        ),
                        "Action": _text("Allow", "Drop", required=True),
                    },
                )
            ),
            "ApplicationExceptions": _list(
                Key(Kind.KEYS, keys={"BundleIdentifier": _NEEDED, "LimitToProtocols": _list(_text("UDP"))})
            ),
            "AllowCaptiveWebSheet": _FLAG,
            "AllowAllCaptiveNetworkPlugins": _FLAG,
            "AllowedCaptiveNetworkPlugins": _list(Key(Kind.KEYS, keys={"BundleIdentifier": _NEEDED})),
        },
    ),
}

PAYLOADS: Mapping[str, Key] = {
    "com.apple.dnsSettings.managed": Key(
        Kind.KEYS, keys={**_COMMON, **_DNS_PAYLOAD, "PayloadCertificateUUID": _CERTIFICATE}
    ),
    "com.apple.vpn.managed": Key(Kind.KEYS, keys={**_COMMON, **_VPN}),
    "com.apple.vpn.managed.applayer": Key(
        Kind.KEYS,
        keys={
            **_COMMON,
            **_VPN,
            "VPNUUID": _NEEDED,
            "SafariDomains": _TEXTS,
            "MailDomains": _TEXTS,
            "CalendarDomains": _TEXTS,
            "ContactsDomains": _TEXTS,
            "AssociatedDomains": _TEXTS,
            "ExcludedDomains": _TEXTS,
            "SMBDomains": _TEXTS,
            "OnDemandMatchAppEnabled": _FLAG,
        },
    ),
    "com.apple.security.root": Key(
        Kind.KEYS,
        keys={**_COMMON, "PayloadCertificateFileName": _TEXT, "PayloadContent": Key(Kind.DATA, True)},
    ),
    "com.apple.security.pkcs12": Key(
        Kind.KEYS,
        keys={
            **_COMMON,
            "PayloadCertificateFileName": _TEXT,
            "PayloadContent": Key(Kind.DATA, True),
            "Password": _TEXT,
            "AllowAllAppsAccess": _TRUTH,
            "KeyIsExtractable": _TRUTH,
        },
    ),
}
"""The payloads by their type; a profile may hold others, of which nothing is known here."""

DECLARATION = Key(
    Kind.KEYS,
    keys={
        "Type": _text("com.apple.configuration.network.dns-settings", required=True),
        "Identifier": _NEEDED,
        "ServerToken": _NEEDED,
        "Payload": Key(
            Kind.KEYS,
            True,
            keys={
                **_DNS_PAYLOAD,
                "VisibleName": _NEEDED,
                "DNSSettings": Key(Kind.KEYS, True, keys={**_DNS_SETTINGS, "IdentityAssetReference": _TEXT}),
            },
        ),
    },
)
"""The declarative form of DNS settings, for systems of version 27 and later."""


def check(found: object, key: Key, path: str = "") -> Iterator[str]:
    """Yield what differs from the schema, each a sentence that begins with the path of the key."""
    is_of_kind = isinstance(found, key.kind.value) and isinstance(found, bool) == (key.kind is Kind.TRUTH)
    if not is_of_kind:
        yield f"{path or 'the profile'} is {shown(found)}, not of type {key.kind.name.lower()}"
    elif key.values and found not in key.values:
        yield f"{path} is {shown(found)}{did_you_mean(str(found), map(str, key.values))}"
    elif key.pattern and isinstance(found, str) and not re.fullmatch(key.pattern, found):
        yield f"{path} is {shown(found)}, which is not of the form {key.pattern}"
    elif isinstance(found, dict) and key.keys is not None:
        for name, inner in key.keys.items():
            if name in found:
                yield from check(found[name], inner, f"{path}.{name}".lstrip("."))
            elif inner.required:
                yield f"{path}.{name}".lstrip(".") + " is missing; add it"
        for name in found:
            if name not in key.keys:
                yield f"{path}.{shown(name)}".lstrip(".") + f" is unknown{did_you_mean(str(name), key.keys)}"
    elif isinstance(found, list) and key.item is not None:
        for i, item in enumerate(found):
            yield from check(item, key.item, f"{path}[{i}]")
