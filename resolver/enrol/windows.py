r"""Windows: DNS over HTTPS for the system's own client, by PowerShell, registry, Intune and Zero Trust DNS.

Sources: Microsoft's reference of Add-DnsClientDohServerAddress, Add-DnsClientNrptRule and Set-DnsClientServerAddress;
DNS_DOH_SERVER_SETTINGS in netioapi.h (auto-upgrade, flag 8, is what lets a rule of the name resolution policy table use
the template); the administrative template "Configure encrypted name resolution" (DoHPolicy 3: require);
[MS-GPNRPT] §2.2.2 (values of a rule; ConfigOptions 8: the generic DNS server option alone); Policy CSP ADMX_DnsClient;
Mozilla's list of OMA-URIs; Microsoft Graph (beta), windowsZtdnsConfiguration. The key DohWellKnownServers is what
Windows keeps its own list of templates under; Microsoft documents the cmdlet, not the key.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from urllib.parse import urlsplit

from resolver.enrol.profile import Device, File, Options, Profile, Protocol, Service, label, uuid_of

_POLICY = r"HKEY_LOCAL_MACHINE\SOFTWARE\Policies\Microsoft\Windows NT\DNSClient"
_TEMPLATES = r"HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet\Services\Dnscache\Parameters\DohWellKnownServers"
_REQUIRE = 3
_AUTO_UPGRADE = 8
_GENERIC_SERVERS = 8
_RULE_VERSION = 2


@dataclass(frozen=True, slots=True)
class Dword:
    """A number in the registry: 32 bits, or 64 where `wide`."""

    value: int
    wide: bool = False


def powershell(service: Service, device: Device, options: Options) -> Profile:
    """Make the script, the registry file, and the rule that sends all names to the service."""
    url = service.url_for(device)
    servers = [str(address) for address in service.known_addresses()]
    mark = f"{service.identifier}.interdict"
    script = f"""\
# Encrypted DNS for {label(device.name)}. Run as administrator.
#Requires -RunAsAdministrator
$ErrorActionPreference = 'Stop'
$servers = @({", ".join(f"'{server}'" for server in servers)})
$template = '{url}'
$mark = '{mark}'
foreach ($server in $servers) {{
    if (Get-DnsClientDohServerAddress -ServerAddress $server -ErrorAction SilentlyContinue) {{
        Set-DnsClientDohServerAddress -ServerAddress $server -DohTemplate $template `
            -AllowFallbackToUdp $false -AutoUpgrade $true
    }} else {{
        Add-DnsClientDohServerAddress -ServerAddress $server -DohTemplate $template `
            -AllowFallbackToUdp $false -AutoUpgrade $true
    }}
}}
Get-NetAdapter -Physical | Set-DnsClientServerAddress -ServerAddresses $servers
Get-DnsClientNrptRule | Where-Object {{ $_.Comment -eq $mark }} | Remove-DnsClientNrptRule -Force
Add-DnsClientNrptRule -Namespace '.' -NameServers $servers -Comment $mark
$policy = 'HKLM:\\SOFTWARE\\Policies\\Microsoft\\Windows NT\\DNSClient'
if (-not (Test-Path $policy)) {{ New-Item -Path $policy -Force | Out-Null }}
Set-ItemProperty -Path $policy -Name DoHPolicy -Value {_REQUIRE} -Type DWord
Clear-DnsClientCache
"""
    keys: dict[str, Mapping[str, str | Dword | list[str]]] = {_POLICY: {"DoHPolicy": Dword(_REQUIRE)}}
    for server in servers:
        keys[rf"{_TEMPLATES}\{server}"] = {"Template": url, "Flags": Dword(_AUTO_UPGRADE, wide=True)}
    rule = "{" + uuid_of(service, device, "nrpt rule") + "}"
    keys[rf"{_POLICY}\DnsPolicyConfig\{rule}"] = {
        "Name": ["."],
        "GenericDNSServers": ";".join(servers),
        "ConfigOptions": Dword(_GENERIC_SERVERS),
        "Version": Dword(_RULE_VERSION),
        "Comment": mark,
    }
    # Windows PowerShell takes a file without a byte order mark for the machine's old code page.
    octets = script.replace("\n", "\r\n").encode("utf-8-sig")
    return Profile(
        (File("interdict-doh.ps1", octets, "text/plain"), to_registry("interdict-doh.reg", keys)),
        (
            "Use the script or the registry file, not both: each writes a rule for all names of its own. "
            "After the registry file, restart.",
            "A setup page of a network that needs its own resolver will not open: encryption is required.",
        ),
    )


def intune(service: Service, device: Device, options: Options) -> Profile:
    """Make the custom profile of OMA-URIs: what the system's own client and Firefox take by policy."""
    firefox = "./Device/Vendor/MSFT/Policy/Config/Firefox~Policy~firefox~DNSOverHTTPS/DNSOverHTTPS"
    system = "./Device/Vendor/MSFT/Policy/Config/ADMX_DnsClient"
    settings = {
        f"{system}/Turn_Off_Multicast": "<enabled/>",
        f"{firefox}_Enabled": "<enabled/>",
        f"{firefox}_ProviderURL": f'<enabled/><data id="String" value="{escape(service.url_for(device))}"/>',
        f"{firefox}_Locked": "<enabled/>" if options.locked else "<disabled/>",
        f"{firefox}_Fallback": "<disabled/>",
    }
    if domains := service.domains_left_alone():
        members = "&#xF000;".join(f"{i}&#xF000;{domain}" for i, domain in enumerate(domains, 1))
        settings[f"{firefox}_ExcludedDomains"] = f'<enabled/><data id="List" value="{members}"/>'
    if service.search_domains:
        value = escape(",".join(service.search_domains))
        settings[f"{system}/DNS_SearchList"] = f'<enabled/><data id="DNS_SearchListLabel" value="{value}"/>'
    document = {
        "@odata.type": "#microsoft.graph.windows10CustomConfiguration",
        "displayName": f"{label(service.organisation)} DNS: {label(device.name)}",
        "omaSettings": [
            {
                "@odata.type": "#microsoft.graph.omaSettingString",
                "displayName": uri.rpartition("/")[2],
                "omaUri": uri,
                "value": value,
            }
            for uri, value in settings.items()
        ],
    }
    return Profile(
        (_json("interdict-intune.json", document),),
        (
            "POST it to /deviceManagement/deviceConfigurations of Microsoft Graph and assign it to this device alone.",
            "Windows has no OMA-URI for a DNS-over-HTTPS template of its own client: send interdict-doh.ps1 of "
            "`interdict profile windows` as a platform script. The Firefox lines need Mozilla's ADMX ingested first.",
        ),
    )


def ztdns(service: Service, device: Device, options: Options) -> Profile:
    """Make the Zero Trust DNS configuration, with which Windows 11 connects only to what the service resolved."""
    kind = "microsoft.graph.windowsZtdnsSecureDnsServer"
    transport: dict[str, object]
    if options.protocol is Protocol.HTTPS:
        url = service.url_for(device)
        transport = {
            "dnsOverHttpsConfiguration": {
                "@odata.type": f"{kind}DnsOverHttpsConfiguration",
                "httpsPort": urlsplit(url).port or 443,
                "queryUrl": url,
            }
        }
    else:
        transport = {
            "dnsOverTlsConfiguration": {
                "@odata.type": f"{kind}DnsOverTlsConfiguration",
                "certificateSubjectName": service.host_for(device),
                "tlsPort": 853,
            }
        }
    servers = [
        {
            "@odata.type": kind,
            "displayName": f"{label(service.organisation)} {address}",
            "ipAddress": str(address),
            **transport,
        }
        for address in service.known_addresses()
    ]
    document = {
        "@odata.type": "#microsoft.graph.windowsZtdnsConfiguration",
        "displayName": f"{label(service.organisation)} ZTDNS: {label(device.name)}",
        "auditModeEnabled": options.audited,
        "hostsFileResolutionEnabled": False,
        "secureDnsServers": servers,
    }
    return Profile(
        (_json("interdict-ztdns.json", document),),
        (
            "POST it to /deviceManagement/deviceConfigurations of Microsoft Graph (beta), for this device alone.",
            "Windows 11 Enterprise or Education. Try it with --audit first: what it would have cut off stands in the "
            "event log ZTDNS/BlockedConnections, and needs exemptionRules before it is enforced.",
        ),
    )


def to_registry(name: str, keys: Mapping[str, Mapping[str, str | Dword | list[str]]]) -> File:
    """Write values of the registry as a file that `reg import` reads: UTF-16, with a byte order mark."""
    lines = ["Windows Registry Editor Version 5.00", ""]
    for key, values in keys.items():
        lines.append(f"[{key}]")
        lines += [f'"{value_name}"={_registry_value(value)}' for value_name, value in values.items()]
        lines.append("")
    return File(name, "\r\n".join(lines).encode("utf-16"), "text/plain")


def _registry_value(value: str | Dword | list[str]) -> str:
    if isinstance(value, Dword):
        if not value.wide:
            return f"dword:{value.value:08x}"
        return "hex(b):" + value.value.to_bytes(8, "little").hex(",")
    if isinstance(value, list):
        octets = "".join(f"{member}\0" for member in [*value, ""]).encode("utf-16-le")
        return "hex(7):" + octets.hex(",")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _json(name: str, document: Mapping[str, object]) -> File:
    return File(name, (json.dumps(document, indent=2) + "\n").encode(), "application/json")
