"""Browsers that ask over HTTPS themselves: policies for Chrome, ChromeOS, Edge and Firefox.

Sources: Chromium's policies DnsOverHttpsMode (`secure`: no insecure fallback), DnsOverHttpsTemplates (no `dns`
variable: POST) and, on ChromeOS, DnsOverHttpsExcludedDomains; Microsoft Edge's documentation of the same; Mozilla's
reference of DNSOverHTTPS (Fallback: Firefox 124 and later). Chrome reads managed policies as JSON on Linux and from the
registry on Windows; Edge likewise.
"""

import json
from collections.abc import Mapping

from resolver.enrol.profile import Device, File, Options, Profile, Service
from resolver.enrol.windows import Dword, to_registry


def chrome(service: Service, device: Device, options: Options) -> Profile:
    """Make the policy for Chrome and Chromium."""
    return Profile(
        _chromium(service, device, "chrome", r"Google\Chrome"),
        (
            "Linux: interdict-chrome.json goes to /etc/opt/chrome/policies/managed, for Chromium to "
            "/etc/chromium/policies/managed.",
        ),
    )


def edge(service: Service, device: Device, options: Options) -> Profile:
    """Make the policy for Microsoft Edge."""
    return Profile(
        _chromium(service, device, "edge", r"Microsoft\Edge"),
        ("Linux: interdict-edge.json goes to /etc/opt/edge/policies/managed.",),
    )


def chromeos(service: Service, device: Device, options: Options) -> Profile:
    """Make the policy for ChromeOS, with the domains that it leaves to the network."""
    values: dict[str, object] = _secure(service, device)
    if domains := service.domains_left_alone():
        values["DnsOverHttpsExcludedDomains"] = list(domains)
    return Profile(
        (_json("interdict-chromeos.json", values),),
        (
            "Enter these values in the Admin console, for an organisational unit that holds this device alone: "
            "the address is its own.",
        ),
    )


def firefox(service: Service, device: Device, options: Options) -> Profile:
    """Make policies.json for Firefox."""
    values = {
        "Enabled": True,
        "ProviderURL": service.url_for(device),
        "Locked": options.locked,
        "ExcludedDomains": list(service.domains_left_alone()),
        "Fallback": False,
    }
    return Profile(
        (_json("policies.json", {"policies": {"DNSOverHTTPS": values}}),),
        (
            "Linux: goes to /etc/firefox/policies. Windows: distribution beside firefox.exe. "
            "macOS: Firefox.app/Contents/Resources/distribution.",
        ),
    )


def _chromium(service: Service, device: Device, name: str, vendor: str) -> tuple[File, ...]:
    values = _secure(service, device)
    keys: Mapping[str, Mapping[str, str | Dword | list[str]]] = {
        rf"HKEY_LOCAL_MACHINE\SOFTWARE\Policies\{vendor}": {key: str(value) for key, value in values.items()}
    }
    return (_json(f"interdict-{name}.json", values), to_registry(f"interdict-{name}.reg", keys))


def _secure(service: Service, device: Device) -> dict[str, object]:
    return {"DnsOverHttpsMode": "secure", "DnsOverHttpsTemplates": service.url_for(device)}


def _json(name: str, values: Mapping[str, object]) -> File:
    return File(name, (json.dumps(values, indent=2) + "\n").encode(), "application/json")
