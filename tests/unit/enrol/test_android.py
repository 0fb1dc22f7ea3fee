"""Android's policy: Private DNS that stays, and no way round it by a VPN."""

import json
from dataclasses import replace

import pytest

from resolver.enrol.profile import EnrolError, Options
from tests.support.enrolled import SERVICE, file_of, made


def test_private_dns_is_the_devices_own_host_and_locked() -> None:
    """PRIVATE_DNS_SPECIFIED_HOST is the mode that users can not change; a VPN of their own is barred as well."""
    policy = json.loads(file_of(made("android"), ".json").octets)

    assert policy == {
        "deviceConnectivityManagement": {
            "privateDnsSettings": {
                "privateDnsMode": "PRIVATE_DNS_SPECIFIED_HOST",
                "privateDnsHost": "k3v9.dns.example.org",
            }
        },
        "vpnConfigDisabled": True,
        "alwaysOnVpnPackage": {"packageName": "org.example.vpn", "lockdownEnabled": True},
    }


def test_without_a_vpn_app_there_is_no_vpn() -> None:
    """A package that is not installed would cut the device off."""
    assert (
        b"alwaysOnVpnPackage"
        not in file_of(made("android", service=replace(SERVICE, android_vpn=None)), ".json").octets
    )


def test_unlocked_devices_stay_online_without_the_vpn() -> None:
    """Lockdown is part of the lock."""
    policy = json.loads(file_of(made("android", options=Options(locked=False)), ".json").octets)

    assert policy["alwaysOnVpnPackage"]["lockdownEnabled"] is False


def test_a_camera_gets_the_host() -> None:
    """It can be copied into Settings where nobody manages the device."""
    assert made("android").qr == "k3v9.dns.example.org"


def test_private_dns_needs_a_host() -> None:
    """Android asks over TLS only."""
    with pytest.raises(EnrolError, match="dot:"):
        made("android", service=replace(SERVICE, dot=None))
