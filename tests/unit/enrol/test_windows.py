"""Windows: the script, the registry file and the policies say the same, in forms that Windows reads."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from resolver.enrol.profile import Options, Protocol
from resolver.enrol.windows import Dword, to_registry
from tests.support.enrolled import DEVICE, SERVICE, file_of, made

URL = "https://dns.example.org/dns-query/k3v9"


def registry(text: str) -> dict[str, dict[str, str]]:
    """Read a registry file back: values by key."""
    keys: dict[str, dict[str, str]] = {}
    for line in text.split("\r\n")[1:]:
        if line.startswith("["):
            values = keys.setdefault(line[1:-1], {})
        elif line:
            found = re.fullmatch(r'"((?:[^"\\]|\\.)*)"=(.+)', line)
            assert found is not None, line
            values[found[1]] = found[2]
    return keys


def test_the_script_has_marks_that_old_powershell_needs() -> None:
    """A byte order mark and Windows' line ends."""
    octets = file_of(made("windows"), ".ps1").octets

    assert octets.startswith(b"\xef\xbb\xbf")
    assert octets.count(b"\n") == octets.count(b"\r\n")


def test_the_script_requires_encryption_for_all_names() -> None:
    """The template for each address, no fallback, upgraded where the rule for all names uses it."""
    script = file_of(made("windows"), ".ps1").octets.decode("utf-8-sig")

    assert "$servers = @('192.0.2.53', '2001:db8::53')" in script
    assert f"$template = '{URL}'" in script
    assert script.count("-AllowFallbackToUdp $false -AutoUpgrade $true") == 2
    assert "Add-DnsClientNrptRule -Namespace '.' -NameServers $servers" in script
    assert "-Name DoHPolicy -Value 3 -Type DWord" in script


def test_the_registry_file_says_the_same() -> None:
    """Templates, the rule for all names, and the policy that requires encryption."""
    text = file_of(made("windows"), ".reg").octets.decode("utf-16")
    keys = registry(text)
    policy = r"HKEY_LOCAL_MACHINE\SOFTWARE\Policies\Microsoft\Windows NT\DNSClient"
    templates = r"HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet\Services\Dnscache\Parameters\DohWellKnownServers"
    [rule] = [values for key, values in keys.items() if key.startswith(policy + r"\DnsPolicyConfig\{")]

    assert text.startswith("Windows Registry Editor Version 5.00\r\n\r\n[")
    assert keys[policy] == {"DoHPolicy": "dword:00000003"}
    for address in ("192.0.2.53", "2001:db8::53"):
        assert keys[rf"{templates}\{address}"] == {"Template": f'"{URL}"', "Flags": "hex(b):08,00,00,00,00,00,00,00"}
    assert rule["Name"] == "hex(7):2e,00,00,00,00,00"
    assert rule["GenericDNSServers"] == '"192.0.2.53;2001:db8::53"'
    assert rule["ConfigOptions"] == "dword:00000008"


def test_values_are_escaped_as_the_registry_wants() -> None:
    """Quotes and backslashes; numbers of 32 and of 64 bits."""
    file = to_registry("x.reg", {"K": {"t": 'a"b\\c', "n": Dword(16), "w": Dword(16, wide=True), "m": ["a", "b"]}})

    assert registry(file.octets.decode("utf-16"))["K"] == {
        "t": '"a\\"b\\\\c"',
        "n": "dword:00000010",
        "w": "hex(b):10,00,00,00,00,00,00,00",
        "m": "hex(7):61,00,00,00,62,00,00,00,00,00",
    }


def settings(**choices: Any) -> dict[str, str]:
    document = json.loads(file_of(made("windows-intune", **choices), ".json").octets)
    assert document["@odata.type"] == "#microsoft.graph.windows10CustomConfiguration"
    return {one["omaUri"]: one["value"] for one in document["omaSettings"]}


@pytest.mark.parametrize("locked", [True, False])
def test_intune_sets_what_has_an_oma_uri(locked: bool) -> None:
    """Firefox's own DNS over HTTPS in the device's name; no multicast names; the search list."""
    found = settings(options=Options(locked=locked))
    firefox = "./Device/Vendor/MSFT/Policy/Config/Firefox~Policy~firefox~DNSOverHTTPS/DNSOverHTTPS_"
    system = "./Device/Vendor/MSFT/Policy/Config/ADMX_DnsClient/"

    assert found[f"{firefox}Enabled"] == "<enabled/>"
    assert found[f"{firefox}ProviderURL"] == f'<enabled/><data id="String" value="{URL}"/>'
    assert found[f"{firefox}Locked"] == ("<enabled/>" if locked else "<disabled/>")
    assert found[f"{firefox}Fallback"] == "<disabled/>"
    assert 'value="1&#xF000;captive.apple.com&#xF000;2&#xF000;' in found[f"{firefox}ExcludedDomains"]
    assert found[f"{system}Turn_Off_Multicast"] == "<enabled/>"
    assert 'value="corp.example.org,example.org"' in found[f"{system}DNS_SearchList"]


def test_intune_sets_nothing_that_is_not_there() -> None:
    """No exceptions and no search domains: no settings for them."""
    bare = replace(SERVICE, excluded_domains=(), captive_domains=(), carrier_domains=(), search_domains=())

    assert not [uri for uri in settings(service=bare) if uri.endswith(("ExcludedDomains", "SearchList"))]


@pytest.mark.parametrize("audited", [True, False])
def test_ztdns_names_each_address_with_the_devices_own_url(audited: bool) -> None:
    """One server for each address; audit only when asked for."""
    service = replace(SERVICE, doh="https://dns.example.org:8443/dns-query/{token}")
    file = file_of(made("windows-ztdns", service=service, options=Options(audited=audited)), ".json")
    document = json.loads(file.octets)
    servers = document["secureDnsServers"]

    assert document["auditModeEnabled"] is audited
    assert [server["ipAddress"] for server in servers] == ["192.0.2.53", "2001:db8::53"]
    for server in servers:
        doh = server["dnsOverHttpsConfiguration"]
        assert (doh["queryUrl"], doh["httpsPort"]) == ("https://dns.example.org:8443/dns-query/k3v9", 8443)


def test_ztdns_can_use_tls() -> None:
    """Then the certificate must be for the device's own host."""
    [server, _] = json.loads(file_of(made("windows-ztdns", options=Options(Protocol.TLS)), ".json").octets)[
        "secureDnsServers"
    ]

    assert "dnsOverHttpsConfiguration" not in server
    assert server["dnsOverTlsConfiguration"]["certificateSubjectName"] == "k3v9.dns.example.org"
    assert server["dnsOverTlsConfiguration"]["tlsPort"] == 853


def test_a_rule_is_the_devices_own() -> None:
    """Its key in the registry follows the device, so that two files do not overwrite each other in one policy."""
    one = file_of(made("windows"), ".reg").octets.decode("utf-16")
    other = file_of(made("windows", device=replace(DEVICE, name="phone-8")), ".reg").octets.decode("utf-16")

    assert one.partition("DnsPolicyConfig")[2][:40] != other.partition("DnsPolicyConfig")[2][:40]
