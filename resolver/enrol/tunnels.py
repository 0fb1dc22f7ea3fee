"""Tunnels that carry names here: WireGuard, OpenVPN and strongSwan, with the service as resolver inside.

Sources: wg-quick(8) (`DNS`: addresses, and names as search domains), the OpenVPN 2.6 manual (`--dns` replaces what
`--dhcp-option` says where both stand; `--block-outside-dns` is for Windows alone, hence `setenv opt`), swanctl.conf(5)
(`pools.<name>.dns`, `vips`). The tunnel already says whose question it is, by the device's address inside; so these
ask over plain DNS inside the tunnel, and need no token.

IKEv2 has an attribute for domains (INTERNAL_DNS_DOMAIN, RFC 8598 §3.1), but it makes a split: names outside these
domains are then asked outside the tunnel. It is never written here.
"""

from collections.abc import Iterable

from resolver.enrol.profile import Device, EnrolError, File, Options, Profile, Service, label, to_pem

_MOST_SERVERS = 8  # addresses that OpenVPN takes for one DNS server


def wireguard(service: Service, device: Device, options: Options) -> Profile:
    """Make the configuration of one WireGuard device; as a QR code too where its private key is known."""
    server = service.wireguard
    if server is None:
        raise EnrolError(
            'a WireGuard server is needed here; give the service "wireguard: {endpoint: ..., public_key: ...}"'
        )
    if not device.interfaces:
        raise EnrolError("an address in the WireGuard network is needed here; give the inventory a column `addresses`")
    key = device.wireguard_key
    dns = [*map(str, service.known_addresses()), *service.search_domains]
    lines = [
        f"# {label(service.organisation)}: {label(device.name)}",
        "[Interface]",
        f"PrivateKey = {key}" if key else "PostUp = wg set %i private-key /etc/wireguard/%i.key",
        f"Address = {', '.join(map(str, device.interfaces))}",
        f"DNS = {', '.join(dns)}",
        "",
        "[Peer]",
        f"PublicKey = {server.public_key}",
        f"AllowedIPs = {', '.join(map(str, server.networks))}",
        f"Endpoint = {server.endpoint}",
        "PersistentKeepalive = 25",
    ]
    notes = ["Linux: goes to /etc/wireguard/interdict.conf; then wg-quick up interdict."]
    if key is None:
        notes.append("The private key stays on the device, in /etc/wireguard/interdict.key; hence there is no QR code.")
    outside = [a for a in service.known_addresses() if not any(a in network for network in server.networks)]
    if outside:
        notes.append(f"Asked outside the tunnel: {', '.join(map(str, outside))}; add them to `networks`.")
    # Without the line that has people's own names: cameras do not agree on what letters other than ASCII are.
    code = _lines(lines[1:]) if key else None
    return Profile((_text("interdict.conf", _lines(lines), secret=key is not None),), tuple(notes), code)


def openvpn(service: Service, device: Device, options: Options) -> Profile:
    """Make the client's configuration, and the lines for the server that push the same."""
    server = service.openvpn
    if server is None:
        raise EnrolError('an OpenVPN server is needed here; give the service "openvpn: {server: vpn.example.org}"')
    client = [
        f"# {label(service.organisation)}: {label(device.name)}",
        "client",
        "dev tun",
        f"proto {'tcp-client' if server.is_tcp else 'udp'}",
        f"remote {server.server} {server.port}",
        "nobind",
        "persist-key",
        "persist-tun",
        "remote-cert-tls server",
        f"verify-x509-name {server.server} name",
        "cert interdict.crt",
        "key interdict.key",
        "redirect-gateway def1 ipv6",
        *_dns(service),
        "setenv opt block-outside-dns",
    ]
    if service.authorities:
        client += ["<ca>", *(line for found in service.authorities for line in to_pem(found).splitlines()), "</ca>"]
    push = [
        "# Lines for the server's configuration: `config interdict-push.conf`.",
        *(f'push "{line}"' for line in ["redirect-gateway def1 ipv6", *_dns(service), "block-outside-dns"]),
    ]
    return Profile(
        (
            _text("interdict.ovpn", _lines(client), secret=False),
            _text("interdict-push.conf", _lines(push), secret=False),
        ),
        (
            "Put the device's certificate and key beside it as interdict.crt and interdict.key"
            + ("." if service.authorities else ', and name the authority with a line "ca ca.crt".'),
            "On Linux, OpenVPN 2.6 sets no resolver itself: give it an `up` script such as update-systemd-resolved.",
        ),
    )


def strongswan(service: Service, device: Device, options: Options) -> Profile:
    """Make strongSwan's configuration of one device, and the connection and pools of its server."""
    server = service.ikev2
    if server is None or not server.pools:
        raise EnrolError(
            "an IKEv2 server with pools is needed here; give the service "
            '"ikev2: {server: vpn.example.org, pools: [10.9.0.0/16]}"'
        )
    identity = f"{device.known_token()}.{server.server}"
    proposals = "aes256gcm16-prfsha384-ecp384"
    child = "aes256gcm16-ecp384"
    client = f"""\
# {label(service.organisation)}: {label(device.name)}
connections {{
    interdict {{
        version = 2
        proposals = {proposals}
        remote_addrs = {server.server}
        vips = 0.0.0.0, ::
        keyingtries = 0
        dpd_delay = 30s
        local {{
            auth = pubkey
            certs = interdict.crt
            id = {identity}
        }}
        remote {{
            auth = pubkey
            id = {server.server}
        }}
        children {{
            all {{
                remote_ts = 0.0.0.0/0, ::/0
                esp_proposals = {child}
                start_action = start
                close_action = start
                dpd_action = restart
            }}
        }}
    }}
}}
"""
    pools = "".join(
        f"    interdict-v{pool.version} {{\n        addrs = {pool}\n"
        f"        dns = {', '.join(a for a in map(str, service.known_addresses()))}\n    }}\n"
        for pool in server.pools
    )
    names = ", ".join(f"interdict-v{pool.version}" for pool in server.pools)
    gateway = f"""\
# The server's side: which addresses and which resolver devices get.
connections {{
    interdict {{
        version = 2
        proposals = {proposals}
        pools = {names}
        local {{
            auth = pubkey
            certs = {server.server}.crt
            id = {server.server}
        }}
        remote {{
            auth = pubkey
        }}
        children {{
            all {{
                local_ts = 0.0.0.0/0, ::/0
                esp_proposals = {child}
            }}
        }}
    }}
}}
pools {{
{pools}}}
"""
    notes = [
        "interdict-swanctl.conf goes to /etc/swanctl/conf.d of the device, its certificate to x509/interdict.crt and "
        "its key to private/; then swanctl --load-all.",
        "interdict-gateway.conf goes to /etc/swanctl/conf.d of the server.",
        "Until the tunnel is up, traffic goes outside. With `start_action = trap` it would wait, but so would the "
        "question where the server is: write that only beside an address in remote_addrs.",
    ]
    if service.search_domains:
        notes.append(
            "IKEv2 can not send search domains without splitting DNS; set them on the device, as `interdict profile "
            "linux` does."
        )
    return Profile(
        (_text("interdict-swanctl.conf", client), _text("interdict-gateway.conf", gateway, secret=False)), tuple(notes)
    )


def _dns(service: Service) -> Iterable[str]:
    addresses = list(map(str, service.known_addresses()))
    yield from (f"dhcp-option DNS {address}" for address in addresses)
    yield from (f"dhcp-option DOMAIN-SEARCH {domain}" for domain in service.search_domains)
    yield f"dns server 0 address {' '.join(addresses[:_MOST_SERVERS])}"
    if service.search_domains:
        yield f"dns search-domains {' '.join(service.search_domains)}"


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def _text(name: str, text: str, secret: bool = True) -> File:
    return File(name, text.encode(), "text/plain", secret)
