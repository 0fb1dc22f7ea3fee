"""Browsers' policies: over HTTPS, without falling back, in the device's name."""

import json
from dataclasses import replace

import pytest

from resolver.enrol.profile import Options
from tests.support.enrolled import SERVICE, file_of, made

URL = "https://dns.example.org/dns-query/k3v9"


@pytest.mark.parametrize("platform", ["chrome", "edge", "chromeos"])
def test_chromiums_policy_is_secure(platform: str) -> None:
    """The mode without insecure fallback, with the device's own address."""
    values = json.loads(file_of(made(platform), ".json").octets)

    assert values["DnsOverHttpsMode"] == "secure"
    assert values["DnsOverHttpsTemplates"] == URL


@pytest.mark.parametrize(("platform", "vendor"), [("chrome", "Google\\Chrome"), ("edge", "Microsoft\\Edge")])
def test_windows_gets_the_same_by_registry(platform: str, vendor: str) -> None:
    """The vendor's policy key holds the same values."""
    text = file_of(made(platform), ".reg").octets.decode("utf-16")

    assert f"[HKEY_LOCAL_MACHINE\\SOFTWARE\\Policies\\{vendor}]\r\n" in text
    assert '"DnsOverHttpsMode"="secure"\r\n' in text
    assert f'"DnsOverHttpsTemplates"="{URL}"\r\n' in text


def test_chromeos_leaves_names_to_the_network() -> None:
    """Only ChromeOS knows excluded domains."""
    assert (
        "printers.example.org" in json.loads(file_of(made("chromeos"), ".json").octets)["DnsOverHttpsExcludedDomains"]
    )
    bare = replace(SERVICE, excluded_domains=(), captive_domains=(), carrier_domains=())
    assert "DnsOverHttpsExcludedDomains" not in json.loads(file_of(made("chromeos", service=bare), ".json").octets)
    assert "DnsOverHttpsExcludedDomains" not in json.loads(file_of(made("chrome"), ".json").octets)


@pytest.mark.parametrize("locked", [True, False])
def test_firefox_does_not_fall_back(locked: bool) -> None:
    """Enabled, with the device's own address, locked as chosen, and never in the clear."""
    values = json.loads(file_of(made("firefox", options=Options(locked=locked)), ".json").octets)["policies"][
        "DNSOverHTTPS"
    ]

    assert (values["Enabled"], values["ProviderURL"], values["Locked"], values["Fallback"]) == (
        True,
        URL,
        locked,
        False,
    )
    assert "printers.example.org" in values["ExcludedDomains"]
