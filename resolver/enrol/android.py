"""Android: Private DNS, and the always-on VPN, as a policy of the Android Management API.

Sources: reference of the Android Management API, PrivateDnsSettings (PRIVATE_DNS_SPECIFIED_HOST: the device uses only
that host, "the user is not allowed to modify this setting"; Android 10 and later, fully managed devices) and
AlwaysOnVpnPackage (`lockdownEnabled`: "disallows networking when the VPN is not connected"). For other managers:
DevicePolicyManager.setGlobalPrivateDnsModeSpecifiedHost and UserManager.DISALLOW_CONFIG_PRIVATE_DNS.
"""

import json

from resolver.enrol.profile import Device, File, Options, Profile, Service, label


def policy(service: Service, device: Device, options: Options) -> Profile:
    """Make the policy of one device: its Private DNS host, no VPN of the user's own, the always-on VPN if any."""
    host = service.host_for(device)
    document: dict[str, object] = {
        "deviceConnectivityManagement": {
            "privateDnsSettings": {"privateDnsMode": "PRIVATE_DNS_SPECIFIED_HOST", "privateDnsHost": host}
        },
        # "Use with vpnConfigDisabled": else the user sets up another VPN, whose resolver then counts.
        "vpnConfigDisabled": True,
    }
    notes = [
        "Merge these keys into the policy of this device alone: the host name is its own.",
        "It acts on fully managed devices with Android 10 or later; a work profile reports MANAGEMENT_MODE instead.",
        "Another device manager sets the same with setGlobalPrivateDnsModeSpecifiedHost and the restriction "
        "DISALLOW_CONFIG_PRIVATE_DNS.",
        f"Without a manager: Settings > Network > Private DNS > {host}; the user can then take it out again.",
    ]
    if service.android_vpn is not None:
        document["alwaysOnVpnPackage"] = {
            "packageName": service.android_vpn.package,
            "lockdownEnabled": options.locked,
        }
        notes.append(f"{service.android_vpn.package} must be installed by the same policy, or the device is offline.")
    octets = (json.dumps(document, indent=2) + "\n").encode()
    return Profile(
        (File("interdict-android-policy.json", octets, "application/json"),),
        (f"For {label(device.name)}.", *notes),
        host,
    )
