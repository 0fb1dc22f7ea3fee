"""A service with all that the platforms may ask for, a device of it, and the profile of any platform for both."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from resolver.enrol.platforms import PLATFORMS
from resolver.enrol.profile import AndroidVpn, Device, File, Ikev2, Openvpn, Options, Profile, Service, Wireguard

KEY = "iE8Svn3Ee7Yc1rGz3zZ3vZ7Q1w0v8Ff9d8n2J1bq0lE="
PUBLIC_KEY = "4E1zxR6s1v5m1Cr0n0h3U4q9l0bV0aZ2m5s7t9x1y3c="
CERTIFICATE = bytes.fromhex("3003020101")
SERVICE = Service(
    organisation="Example Agency",
    identifier="org.example.dns",
    doh="https://dns.example.org/dns-query/{token}",
    dot="{token}.dns.example.org",
    addresses=(ip_address("192.0.2.53"), ip_address("2001:db8::53")),
    authorities=(CERTIFICATE,),
    search_domains=("corp.example.org", "example.org"),
    excluded_domains=("printers.example.org",),
    excluded_networks=("Train Wi-Fi",),
    profile_url="https://mdm.example.org/profiles/{token}.mobileconfig",
    wireguard=Wireguard("vpn.example.org:51820", PUBLIC_KEY),
    openvpn=Openvpn("vpn.example.org"),
    ikev2=Ikev2("vpn.example.org", (ip_network("10.9.0.0/16"), ip_network("2001:db8:9::/64"))),
    android_vpn=AndroidVpn("org.example.vpn"),
)
DEVICE = Device(
    name="phone-7",
    token="k3v9",
    group="phones",
    serial="S1",
    interfaces=(ip_interface("10.9.0.7/32"), ip_interface("2001:db8:9::7/128")),
    wireguard_key=KEY,
    identity=b"PKCS #12",
)


def made(platform: str, service: Service = SERVICE, device: Device = DEVICE, options: Options | None = None) -> Profile:
    """Return the profile of a platform."""
    return PLATFORMS[platform].make(service, device, options or Options())


def file_of(profile: Profile, ending: str) -> File:
    """Return the one file of a profile whose name ends so."""
    [found] = [file for file in profile.files if file.name.endswith(ending)]
    return found


def named(name: str) -> Device:
    """Return the device under another name."""
    return replace(DEVICE, name=name)
