"""The platforms by name, of devices (`interdict profile PLATFORM`) and of networks (`interdict profile network`)."""

from collections.abc import Mapping
from dataclasses import dataclass

from resolver.enrol import android, apple, browsers, dnr, linux, tunnels, windows
from resolver.enrol.profile import Maker


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform, how it names the device to the service, and whether its profiles are signed."""

    make: Maker
    title: str
    names_device_by: str
    can_be_signed: bool = False


_TOKEN = "token"
_ADDRESS = "address in the tunnel"
_IDENTITY = "certificate"

PLATFORMS: Mapping[str, Platform] = {
    "apple": Platform(apple.dns_settings, "iOS, iPadOS, macOS, visionOS: DNS settings", _TOKEN, can_be_signed=True),
    "apple-declaration": Platform(apple.declaration, "Apple's systems of version 27 and later, by declaration", _TOKEN),
    "apple-vpn": Platform(apple.always_on, "iPhone and iPad: Always-On VPN", _IDENTITY, can_be_signed=True),
    "apple-app-vpn": Platform(apple.per_app, "Apple's systems: VPN for chosen apps", _IDENTITY, can_be_signed=True),
    "android": Platform(android.policy, "Android: Private DNS, always-on VPN", _TOKEN),
    "windows": Platform(windows.powershell, "Windows: PowerShell, registry, NRPT", _TOKEN),
    "windows-intune": Platform(windows.intune, "Windows: Intune OMA-URIs", _TOKEN),
    "windows-ztdns": Platform(windows.ztdns, "Windows 11: Zero Trust DNS", _TOKEN),
    "linux": Platform(linux.resolved, "Linux: systemd-resolved, NetworkManager, resolvconf", _TOKEN),
    "chrome": Platform(browsers.chrome, "Chrome and Chromium", _TOKEN),
    "chromeos": Platform(browsers.chromeos, "ChromeOS", _TOKEN),
    "edge": Platform(browsers.edge, "Microsoft Edge", _TOKEN),
    "firefox": Platform(browsers.firefox, "Firefox", _TOKEN),
    "wireguard": Platform(tunnels.wireguard, "WireGuard", _ADDRESS),
    "openvpn": Platform(tunnels.openvpn, "OpenVPN: client, and what the server pushes", _ADDRESS),
    "strongswan": Platform(tunnels.strongswan, "strongSwan (IKEv2): device and server", _IDENTITY),
}

NETWORKS: Mapping[str, dnr.NetworkMaker] = {
    "kea": dnr.kea,
    "isc-dhcpd": dnr.isc_dhcpd,
    "dnsmasq": dnr.dnsmasq,
    "radvd": dnr.radvd,
}
"""What tells all devices of a network, and so none by its name."""
