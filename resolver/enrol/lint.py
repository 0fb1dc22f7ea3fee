"""The traps in profiles: what a platform reads without a word, and does not do what the administrator means.

A file is recognised by what it says, not by its name. Any octets end in findings; none raises. A finding names its
trap, where it is, and what to write instead.
"""

import json
import plistlib
import re
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from resolver.enrol import schema
from resolver.enrol.profile import Service
from resolver.enrol.traps import Asked, Delivery, Finding, Keys, Trap, keys_of, texts_of, token_in_host, token_in_url
from resolver.policy.source import items, value

MOST_OCTETS = 1 << 20  # a profile with a few certificates is some 20 KiB
_MOST_PARTS = 50_000  # keys, values and members in all
_DEEPEST = 32


def lint(octets: bytes, service: Service | None = None, delivery: Delivery = Delivery.UNKNOWN) -> list[Finding]:
    """Look for every trap in one file.

    Args:
        octets: The file, at most `MOST_OCTETS`.
        service: With it, addresses are compared with its templates; without, only what is surely no token is told.
        delivery: With `mdm`, payloads are told that act otherwise then.
    """
    if len(octets) > MOST_OCTETS:
        return [Finding(Trap.UNREADABLE, "file", f"{len(octets)} octets are too many for a profile")]
    asked = Asked(service, delivery)
    if (plist := _plist_of(octets)) is not None:
        return list(_in_plist(plist, asked))
    text = _decode(octets)
    if text is None:
        return [
            Finding(Trap.UNREADABLE, "file", "it is neither a property list nor text; give the file as it was made")
        ]
    if text.lstrip().startswith("{"):
        return list(_in_json(text, asked))
    for sign, look in _TEXTS:
        if sign.search(text):
            return list(look(text, asked))
    return [Finding(Trap.UNREADABLE, "file", "its format is unknown here; `interdict profile list` names those known")]


# ---- reading --------------------------------------------------------------------------------------------------------


def _plist_of(octets: bytes) -> object:
    """The property list in a file, signed or not; None where there is none.

    A signature in DER holds what it signs in one piece (RFC 5652 §5.2), so that the text can be found without decoding.
    """
    if octets.startswith(b"bplist"):
        inner = octets
    else:
        begin, end = octets.find(b"<?xml"), octets.rfind(b"</plist>")
        if begin < 0 or end < begin:
            return None
        inner = octets[begin : end + len(b"</plist>")]
    try:
        return plistlib.loads(inner) or {}
    except Exception:  # plistlib has no family of errors: expat, struct, arithmetic and unicode errors come through
        return None


def _decode(octets: bytes) -> str | None:
    encoding = "utf-16" if octets[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = octets.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _is_small(found: object) -> bool:
    """Whether all of it can be walked: a binary property list may hold one part a million times."""
    waiting = [(found, 0)]
    for _ in range(_MOST_PARTS):
        if not waiting:
            return True
        one, depth = waiting.pop()
        inner = list(one.values()) if isinstance(one, dict) else one if isinstance(one, list) else []
        if depth > _DEEPEST or len(inner) > _MOST_PARTS:
            return False
        waiting += [(part, depth + 1) for part in inner]
    return not waiting


# ---- Apple ----------------------------------------------------------------------------------------------------------


def _in_plist(document: object, asked: Asked) -> Iterator[Finding]:
    if not _is_small(document):
        yield Finding(Trap.UNREADABLE, "file", "it is larger or nested deeper than any profile")
        return
    yield from _schema_findings(document, schema.TOP_LEVEL)
    payloads = [keys_of(one) for one in items(document, "PayloadContent")]
    if value(document, "PayloadRemovalDisallowed") is not True:
        yield Finding(Trap.USER_CAN_SWITCH_OFF, "PayloadRemovalDisallowed", "write true, on supervised devices")
    seen = {value(document, "PayloadUUID")}
    for i, payload in enumerate(payloads):
        place = f"PayloadContent[{i}]"
        uuid = payload.get("PayloadUUID")
        if isinstance(uuid, str) and uuid in seen:
            yield Finding(Trap.SAME_UUID, f"{place}.PayloadUUID", "give each payload a UUID of its own")
        seen.add(uuid if isinstance(uuid, str) else None)
        kind = payload.get("PayloadType")
        if isinstance(kind, str) and (key := schema.PAYLOADS.get(kind)) is not None:
            yield from _schema_findings(payload, key, place)
        if kind == "com.apple.dnsSettings.managed":
            yield from _in_dns_payload(payload, place, asked)
            if asked.delivery is Delivery.MDM and not any(_holds_everywhere(other) for other in payloads):
                yield Finding(
                    Trap.MANAGED_WIFI_ONLY,
                    place,
                    "send the declaration com.apple.configuration.network.dns-settings (version 27 and later), add an "
                    "Always-On VPN, or install it by hand",
                )
        elif kind in ("com.apple.vpn.managed", "com.apple.vpn.managed.applayer"):
            yield from _in_vpn_payload(payload, place, asked)
        elif kind == "com.apple.webClip.managed":
            yield Finding(Trap.WEB_CLIP, place, "delete the payload")


def _schema_findings(found: object, key: schema.Key, place: str = "") -> Iterator[Finding]:
    for sentence in schema.check(found, key):
        yield Finding(Trap.NOT_IN_SCHEMA, place or "profile", sentence)


def _holds_everywhere(payload: Keys) -> bool:
    return payload.get("PayloadType") == "com.apple.vpn.managed" and payload.get("VPNType") == "AlwaysOn"


def _in_dns_payload(payload: Keys, place: str, asked: Asked) -> Iterator[Finding]:
    settings = keys_of(payload.get("DNSSettings"))
    yield from _in_settings(settings, f"{place}.DNSSettings", asked)
    if settings.get("SupplementalMatchDomains"):
        yield Finding(
            Trap.ONLY_SOME_NAMES,
            f"{place}.DNSSettings.SupplementalMatchDomains",
            "delete it; name exceptions in OnDemandRules instead",
        )
    if settings.get("AllowFailover") is True:
        yield Finding(Trap.PLAIN_FALLBACK, f"{place}.DNSSettings.AllowFailover", "write false, or delete it")
    if payload.get("ProhibitDisablement") is not True:
        yield Finding(Trap.USER_CAN_SWITCH_OFF, f"{place}.ProhibitDisablement", "write true, on supervised devices")
    yield from _in_rules(payload, place)


def _in_settings(settings: Keys, place: str, asked: Asked) -> Iterator[Finding]:
    """DNSSettings of the payload and the declaration, and DNS of a VPN: the same keys mean the same."""
    protocol, url, name = (settings.get(key) for key in ("DNSProtocol", "ServerURL", "ServerName"))
    if not texts_of(settings.get("ServerAddresses")):
        yield Finding(Trap.NO_SERVER_ADDRESSES, f"{place}.ServerAddresses", "write the addresses of the service")
    if protocol == "HTTPS":
        if not isinstance(url, str) or not url.startswith("https://"):
            yield Finding(Trap.NOT_ENCRYPTED, f"{place}.ServerURL", "write the https:// address of the service")
        else:
            yield from token_in_url(url, f"{place}.ServerURL", asked)
        if name is not None:
            yield Finding(Trap.NOT_ENCRYPTED, f"{place}.ServerName", "delete it: it belongs to TLS")
    elif protocol == "TLS":
        if not isinstance(name, str) or not name:
            yield Finding(Trap.NOT_ENCRYPTED, f"{place}.ServerName", "write the host name of the service")
        else:
            yield from token_in_host(name, f"{place}.ServerName", asked)
        if url is not None:
            yield Finding(Trap.NOT_ENCRYPTED, f"{place}.ServerURL", "delete it: it belongs to HTTPS")


def _in_rules(payload: Keys, place: str) -> Iterator[Finding]:
    rules = [keys_of(rule) for rule in items(payload, "OnDemandRules")]
    left_alone = {
        domain
        for rule in rules
        for parameters in items(rule, "ActionParameters")
        if value(parameters, "DomainAction") == "NeverConnect"
        for domain in texts_of(value(parameters, "Domains"))
    }
    if not _covers(left_alone, "3gppnetwork.org"):
        yield Finding(
            Trap.NO_CARRIER_EXCLUSIONS,
            f"{place}.OnDemandRules",
            'add a rule EvaluateConnection with DomainAction NeverConnect for "3gppnetwork.org" and your carriers\' '
            "voicemail",
        )
    if not _covers(left_alone, "captive.apple.com"):
        yield Finding(
            Trap.NO_CAPTIVE_EXCLUSIONS,
            f"{place}.OnDemandRules",
            'add "captive.apple.com" to the domains of a rule with DomainAction NeverConnect',
        )
    if rules and not any(_acts_everywhere(rule) for rule in rules):
        yield Finding(
            Trap.MANAGED_WIFI_ONLY,
            f"{place}.OnDemandRules",
            "end with a rule {Action: Connect} that has no InterfaceTypeMatch, SSIDMatch or other condition",
        )


def _acts_everywhere(rule: Keys) -> bool:
    return rule.get("Action") in ("Connect", "EvaluateConnection") and not any(key.endswith("Match") for key in rule)


def _covers(domains: set[str], wanted: str) -> bool:
    return any(wanted == domain.removeprefix("*.") for domain in domains)


def _in_vpn_payload(payload: Keys, place: str, asked: Asked) -> Iterator[Finding]:
    dns = keys_of(payload.get("DNS"))
    if dns:
        yield from _in_settings(dns, f"{place}.DNS", asked)
    else:
        yield Finding(Trap.OUTSIDE_TUNNEL, f"{place}.DNS", "add the dictionary DNS with ServerAddresses")
    if any(domain for domain in texts_of(dns.get("SupplementalMatchDomains"))):
        yield Finding(Trap.ONLY_SOME_NAMES, f"{place}.DNS.SupplementalMatchDomains", "delete it")
    if payload.get("VPNType") != "AlwaysOn":
        if payload.get("PayloadType") == "com.apple.vpn.managed.applayer" and (
            keys_of(payload.get("IKEv2")).get("OnDemandUserOverrideDisabled") != 1
        ):
            yield Finding(Trap.USER_CAN_SWITCH_OFF, f"{place}.IKEv2.OnDemandUserOverrideDisabled", "write 1")
        return
    always = keys_of(payload.get("AlwaysOn"))
    if always.get("UIToggleEnabled") == 1:
        yield Finding(Trap.USER_CAN_SWITCH_OFF, f"{place}.AlwaysOn.UIToggleEnabled", "write 0")
    exempt = {
        value(one, "ServiceName") for one in items(always, "ServiceExceptions") if value(one, "Action") == "Allow"
    }
    if not {"CellularServices", "VoiceMail"} <= exempt:
        yield Finding(
            Trap.NO_CARRIER_EXCLUSIONS,
            f"{place}.AlwaysOn.ServiceExceptions",
            "allow the services CellularServices and VoiceMail",
        )
    if not (
        always.get("AllowCaptiveWebSheet") == 1
        or always.get("AllowAllCaptiveNetworkPlugins") == 1
        or always.get("AllowedCaptiveNetworkPlugins")
    ):
        yield Finding(Trap.NO_CAPTIVE_EXCLUSIONS, f"{place}.AlwaysOn.AllowCaptiveWebSheet", "write 1")
    covered = {
        interface
        for tunnel in items(always, "TunnelConfigurations")
        for interface in texts_of(value(tunnel, "Interfaces")) or ["Cellular", "WiFi"]
    }
    if "Cellular" not in covered:
        yield Finding(
            Trap.MANAGED_WIFI_ONLY, f"{place}.AlwaysOn.TunnelConfigurations", "name both interfaces: Cellular and WiFi"
        )


# ---- JSON -----------------------------------------------------------------------------------------------------------


def _in_json(text: str, asked: Asked) -> Iterator[Finding]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 0
        yield Finding(Trap.UNREADABLE, "file", "it is not JSON; check brackets, quotes and commas", line)
        return
    if not isinstance(document, dict) or not _is_small(document):
        yield Finding(Trap.UNREADABLE, "file", "it is not an object of keys and values as deep as a profile")
        return
    kind = str(document.get("Type") or document.get("@odata.type"))
    firefox = value(document, "policies", "DNSOverHTTPS")
    if kind.startswith("com.apple.configuration.network.dns-settings"):
        yield from _schema_findings(document, schema.DECLARATION)
        yield from _in_dns_payload(keys_of(document.get("Payload")), "Payload", asked)
    elif kind.endswith("windowsZtdnsConfiguration"):
        yield from _in_ztdns(document, asked)
    elif kind.endswith("windows10CustomConfiguration"):
        yield from _in_intune(document, asked)
    elif "deviceConnectivityManagement" in document or "alwaysOnVpnPackage" in document:
        yield from _in_android(document, asked)
    elif firefox is not None:
        yield from _in_firefox(keys_of(firefox), "policies.DNSOverHTTPS", asked)
    elif any(key.startswith("DnsOverHttps") for key in document):
        yield from _in_chromium(document, asked)
    else:
        yield Finding(Trap.UNREADABLE, "file", "none of its keys is of a profile that is known here")


def _in_android(document: Keys, asked: Asked) -> Iterator[Finding]:
    place = "deviceConnectivityManagement.privateDnsSettings"
    settings = keys_of(value(document, *place.split(".")))
    host = settings.get("privateDnsHost")
    if settings.get("privateDnsMode") != "PRIVATE_DNS_SPECIFIED_HOST":
        trap = (
            Trap.USER_CAN_SWITCH_OFF
            if settings.get("privateDnsMode") != "PRIVATE_DNS_AUTOMATIC"
            else Trap.PLAIN_FALLBACK
        )
        yield Finding(trap, f"{place}.privateDnsMode", 'write "PRIVATE_DNS_SPECIFIED_HOST": it is locked then')
    if not isinstance(host, str) or not host:
        yield Finding(Trap.NOT_ENCRYPTED, f"{place}.privateDnsHost", "write the device's host name of the service")
    else:
        yield from token_in_host(host, f"{place}.privateDnsHost", asked)
    if document.get("vpnConfigDisabled") is not True:
        yield Finding(
            Trap.USER_CAN_SWITCH_OFF, "vpnConfigDisabled", "write true: a VPN of the user's own leads round it"
        )
    vpn = document.get("alwaysOnVpnPackage")
    if vpn is not None and value(vpn, "lockdownEnabled") is not True:
        yield Finding(Trap.OUTSIDE_TUNNEL, "alwaysOnVpnPackage.lockdownEnabled", "write true")


def _in_firefox(settings: Keys, place: str, asked: Asked) -> Iterator[Finding]:
    if settings.get("Enabled") is not True:
        yield Finding(Trap.NOT_ENCRYPTED, f"{place}.Enabled", "write true")
    if settings.get("Locked") is not True:
        yield Finding(Trap.USER_CAN_SWITCH_OFF, f"{place}.Locked", "write true")
    if settings.get("Fallback") is not False:
        yield Finding(Trap.PLAIN_FALLBACK, f"{place}.Fallback", "write false")
    url = settings.get("ProviderURL")
    if isinstance(url, str) and url.startswith("https://"):
        yield from token_in_url(url, f"{place}.ProviderURL", asked)
    else:
        yield Finding(Trap.NOT_ENCRYPTED, f"{place}.ProviderURL", "write the https:// address of the service")


def _in_chromium(document: Keys, asked: Asked) -> Iterator[Finding]:
    mode, templates = document.get("DnsOverHttpsMode"), document.get("DnsOverHttpsTemplates")
    if mode == "automatic":
        yield Finding(Trap.PLAIN_FALLBACK, "DnsOverHttpsMode", 'write "secure"')
    elif mode != "secure":
        yield Finding(Trap.NOT_ENCRYPTED, "DnsOverHttpsMode", 'write "secure"')
    if not isinstance(templates, str) or not templates.strip():
        yield Finding(Trap.NOT_ENCRYPTED, "DnsOverHttpsTemplates", "write the https:// address of the service")
        return
    for url in templates.split():
        yield from token_in_url(url, "DnsOverHttpsTemplates", asked)


def _in_ztdns(document: Keys, asked: Asked) -> Iterator[Finding]:
    if document.get("auditModeEnabled") is not False:
        yield Finding(Trap.PLAIN_FALLBACK, "auditModeEnabled", "write false once the log shows nothing that is needed")
    servers = items(document, "secureDnsServers")
    if not servers:
        yield Finding(Trap.NO_SERVER_ADDRESSES, "secureDnsServers", "add the service")
    for i, server in enumerate(servers):
        place = f"secureDnsServers[{i}]"
        if not isinstance(value(server, "ipAddress"), str):
            yield Finding(Trap.NO_SERVER_ADDRESSES, f"{place}.ipAddress", "write an address of the service")
        url = value(server, "dnsOverHttpsConfiguration", "queryUrl")
        if isinstance(url, str):
            yield from token_in_url(url, f"{place}.dnsOverHttpsConfiguration.queryUrl", asked)
        host = value(server, "dnsOverTlsConfiguration", "certificateSubjectName")
        if isinstance(host, str):
            yield from token_in_host(host, f"{place}.dnsOverTlsConfiguration.certificateSubjectName", asked)
        elif not isinstance(url, str):
            yield Finding(Trap.NOT_ENCRYPTED, place, "add dnsOverHttpsConfiguration or dnsOverTlsConfiguration")


def _in_intune(document: Keys, asked: Asked) -> Iterator[Finding]:
    settings = {str(value(one, "omaUri")): str(value(one, "value")) for one in items(document, "omaSettings")}
    base = "./Device/Vendor/MSFT/Policy/Config/Firefox~Policy~firefox~DNSOverHTTPS/DNSOverHTTPS_"
    if f"{base}Enabled" not in settings:
        return
    url = re.search(r'value="([^"]*)"', settings.get(f"{base}ProviderURL", ""))
    states: dict[str, object] = {
        name: settings.get(base + name, "").startswith("<enabled") for name in ("Enabled", "Locked")
    }
    states["Fallback"] = not settings.get(f"{base}Fallback", "").startswith("<disabled")
    yield from _in_firefox({**states, "ProviderURL": url[1] if url else None}, "omaSettings", asked)


# ---- text -----------------------------------------------------------------------------------------------------------


def _assignments(text: str, separator: str = "=") -> Iterator[tuple[int, str, str]]:
    """Lines of the form `key = value` outside comments: number, key, value."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.lstrip().startswith(("#", ";")):
            key, found, rest = line.partition(separator)
            if found:
                yield number, key.strip().strip('"'), rest.strip()


def _in_resolved(text: str, asked: Asked) -> Iterator[Finding]:
    lists: dict[str, list[str]] = {"DNS": [], "Domains": [], "FallbackDNS": ["compiled in"]}
    words: dict[str, tuple[int, str]] = {}
    for number, key, found in _assignments(text):
        words[key] = number, found
        if key in lists:
            lists[key] = [*lists[key], *found.split()] if found else []
    if "yes" not in words.get("DNSOverTLS", (0, ""))[1]:
        line, found = words.get("DNSOverTLS", (0, ""))
        trap = Trap.PLAIN_FALLBACK if found == "opportunistic" else Trap.NOT_ENCRYPTED
        yield Finding(trap, "DNSOverTLS", "write DNSOverTLS=yes", line)
    if not lists["DNS"]:
        yield Finding(Trap.NO_SERVER_ADDRESSES, "DNS", "write DNS=ADDRESS#TOKEN.dns.example.org")
    for server in lists["DNS"]:
        host = server.partition("#")[2]
        if host:
            yield from token_in_host(host, "DNS", asked)
        else:
            yield Finding(Trap.NO_TOKEN, "DNS", f"write {server}#TOKEN.dns.example.org", words["DNS"][0])
    if "~." not in lists["Domains"]:
        yield Finding(Trap.ONLY_SOME_NAMES, "Domains", "write Domains=~.", words.get("Domains", (0, ""))[0])
    if lists["FallbackDNS"]:
        yield Finding(Trap.PLAIN_FALLBACK, "FallbackDNS", "write FallbackDNS= with nothing after it")


def _in_network_manager(text: str, asked: Asked) -> Iterator[Finding]:
    found = {key: (number, word) for number, key, word in _assignments(text)}
    line, word = found.get("connection.dns-over-tls", (0, ""))
    if word not in ("2", "yes"):
        trap = Trap.PLAIN_FALLBACK if word in ("1", "opportunistic") else Trap.NOT_ENCRYPTED
        yield Finding(trap, "connection.dns-over-tls", "write connection.dns-over-tls=2", line)
    if found.get("dns", (0, ""))[1] != "systemd-resolved":
        yield Finding(Trap.NOT_ENCRYPTED, "dns", "write dns=systemd-resolved under [main]: others do not encrypt")


def _in_wireguard(text: str, asked: Asked) -> Iterator[Finding]:
    servers: list[str] = []
    networks: list[str] = []
    for _, key, found in _assignments(text):
        members = [member.strip() for member in found.partition("#")[0].split(",")]
        servers += members if key.lower() == "dns" else []
        networks += members if key.lower() == "allowedips" else []
    addresses = [found for found in map(_address, servers) if found is not None]
    if not addresses:
        yield Finding(Trap.OUTSIDE_TUNNEL, "DNS", "write DNS = with the address of the service under [Interface]")
    inside = [found for found in map(_network, networks) if found is not None]
    for address in addresses:
        if not any(address in network for network in inside):
            yield Finding(Trap.OUTSIDE_TUNNEL, "AllowedIPs", f"add {address}, so that it is asked in the tunnel")


def _in_openvpn(text: str, asked: Asked) -> Iterator[Finding]:
    words = [line.strip().removeprefix("push ").strip('"').split() for line in text.splitlines()]
    starts = [" ".join(line[:2]) for line in words]
    if not any(start in ("dhcp-option DNS", "dns server") for start in starts):
        yield Finding(Trap.OUTSIDE_TUNNEL, "dns server", "write dns server 0 address ADDRESS")
    if any(line[:2] == ["dns", "server"] and "resolve-domains" in line for line in words):
        yield Finding(Trap.ONLY_SOME_NAMES, "dns server", "delete the line with resolve-domains")
    if not any("block-outside-dns" in line for line in words):
        yield Finding(Trap.PLAIN_FALLBACK, "block-outside-dns", "write setenv opt block-outside-dns, for Windows")


def _in_swanctl(text: str, asked: Asked) -> Iterator[Finding]:
    keys = {key: (number, found) for number, key, found in _assignments(text)}
    if "25" in keys:
        yield Finding(
            Trap.ONLY_SOME_NAMES, "pools.25", "delete it: INTERNAL_DNS_DOMAIN splits DNS (RFC 8598 §3.1)", keys["25"][0]
        )
    if "addrs" in keys and "dns" not in keys:
        yield Finding(Trap.OUTSIDE_TUNNEL, "pools.dns", "write dns = with the addresses of the service")
    if "remote_addrs" in keys and "vips" not in keys:
        yield Finding(Trap.OUTSIDE_TUNNEL, "vips", "write vips = 0.0.0.0, ::, which also asks for the resolver")


def _in_powershell(text: str, asked: Asked) -> Iterator[Finding]:
    variables = dict(re.findall(r"^\s*\$(\w+)\s*=\s*'([^']*)'", text, re.MULTILINE))
    for written in re.findall(r"-DohTemplate\s+('[^']*'|\"[^\"]*\"|\S+)", text):
        url = variables.get(written.removeprefix("$"), written.strip("'\""))
        yield from token_in_url(url, "-DohTemplate", asked)
    if re.search(r"-AllowFallbackToUdp\s+\$true", text, re.IGNORECASE):
        yield Finding(Trap.PLAIN_FALLBACK, "-AllowFallbackToUdp", "write $false")
    if not re.search(r"-AutoUpgrade\s+\$true", text, re.IGNORECASE):
        yield Finding(Trap.NOT_ENCRYPTED, "-AutoUpgrade", "write $true: else the template is never used")
    if not re.search(r"Add-DnsClientNrptRule\s+-Namespace\s+['\"]?\.['\"]?(?:\s|$)", text, re.IGNORECASE):
        yield Finding(Trap.ONLY_SOME_NAMES, "Add-DnsClientNrptRule", "add a rule with -Namespace '.'")


def _in_registry(text: str, asked: Asked) -> Iterator[Finding]:
    found = {key: (number, rest.strip('"')) for number, key, rest in _assignments(text)}
    if "DoHPolicy" in found and found["DoHPolicy"][1] != "dword:00000003":
        yield Finding(Trap.PLAIN_FALLBACK, "DoHPolicy", "write dword:00000003: require", found["DoHPolicy"][0])
    if "DnsOverHttpsMode" in found:
        yield from _in_chromium({key: rest for key, (_, rest) in found.items()}, asked)
    for key in ("Template", "ProviderURL"):
        if key in found:
            yield from token_in_url(found[key][1], key, asked)


def _in_resolvconf(text: str, asked: Asked) -> Iterator[Finding]:
    for number, key, found in _assignments(text):
        if key == "name_servers" and not all(
            server.startswith("127.") or server == "::1" for server in found.strip("'\"").split()
        ):
            mend = 'write name_servers="127.0.0.53", systemd-resolved\'s stub: plain DNS names no device'
            yield Finding(Trap.NO_TOKEN, "name_servers", mend, number)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


_Look = Callable[[str, Asked], Iterator[Finding]]

_TEXTS: Sequence[tuple[re.Pattern[str], _Look]] = [
    (re.compile(r"^Windows Registry Editor Version 5\.00\s*$", re.MULTILINE), _in_registry),
    (re.compile(r"Add-DnsClientDohServerAddress", re.IGNORECASE), _in_powershell),
    (re.compile(r"^\[Resolve\]\s*$", re.MULTILINE), _in_resolved),
    (re.compile(r"^\[(?:main|connection[^]]*|global-dns[^]]*)\]\s*$", re.MULTILINE), _in_network_manager),
    (re.compile(r"^\s*\[(?:Interface|Peer)\]\s*$", re.MULTILINE | re.IGNORECASE), _in_wireguard),
    (re.compile(r"^\s*(?:connections|pools)\s*\{", re.MULTILINE), _in_swanctl),
    (re.compile(r"^\s*name_servers=", re.MULTILINE), _in_resolvconf),
    (re.compile(r"^\s*(?:remote\s+\S+|client\s*$|push\s+\")", re.MULTILINE), _in_openvpn),
]
"""What gives each text format away, the surest first."""
