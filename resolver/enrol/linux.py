"""Linux: systemd-resolved asks over TLS in the device's name; NetworkManager and openresolv are told to leave it to it.

Sources: resolved.conf(5) (`address#name` gives the name for TLS; an empty assignment empties a list; `~.` routes all
names), NetworkManager.conf(5) and nm-settings(5) (connection.dns-over-tls 2: no fallback), resolvconf.conf(5) of
openresolv. Only resolved can name the device in TLS, hence the others hand over to its stub.
"""

from resolver.enrol.profile import Device, File, Options, Profile, Service, label

_STUB = "127.0.0.53"  # systemd-resolved.service(8)


def resolved(service: Service, device: Device, options: Options) -> Profile:
    """Make the drop-ins for systemd-resolved and NetworkManager, and openresolv's configuration."""
    host = service.host_for(device)
    servers = " ".join(f"{address}#{host}" for address in service.known_addresses())
    domains = " ".join(["~.", *service.search_domains])
    searches = ",".join(service.search_domains)
    title = f"# Encrypted DNS for {label(device.name)}"
    drop_in = f"""\
{title}
[Resolve]
# Empty first: what other files added is forgotten.
DNS=
DNS={servers}
FallbackDNS=
Domains=
Domains={domains}
DNSOverTLS=yes
LLMNR=no
"""
    network_manager = f"""\
{title}
[main]
dns=systemd-resolved

[connection-interdict]
connection.dns-over-tls=2
connection.llmnr=0
"""
    resolvconf = f"""\
{title}: systemd-resolved's own stub
name_servers="{_STUB}"
"""
    if searches:
        resolvconf += f'search_domains="{" ".join(service.search_domains)}"\n'
    return Profile(
        (
            _text("90-interdict-resolved.conf", drop_in),
            _text("90-interdict-networkmanager.conf", network_manager, secret=False),
            _text("resolvconf.conf", resolvconf, secret=False),
        ),
        (
            "90-interdict-resolved.conf goes to /etc/systemd/resolved.conf.d; then restart systemd-resolved.",
            "90-interdict-networkmanager.conf goes to /etc/NetworkManager/conf.d. The servers that a network names are "
            "still asked for that network's own domains; set ipv4.ignore-auto-dns and ipv6.ignore-auto-dns against it.",
            "resolvconf.conf goes to /etc, where openresolv writes resolv.conf; where it exists, take its lines over.",
            *_authority_notes(service),
        ),
    )


def _text(name: str, text: str, secret: bool = True) -> File:
    return File(name, text.encode(), "text/plain", secret)


def _authority_notes(service: Service) -> tuple[str, ...]:
    if not service.authorities:
        return ()
    return (
        "The certificate authority goes to /usr/local/share/ca-certificates (Debian); then update-ca-certificates.",
    )
