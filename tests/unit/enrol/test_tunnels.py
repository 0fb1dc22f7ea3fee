"""Tunnels: each program reads its file, and finds the service as resolver inside."""

import configparser
import subprocess
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from resolver.enrol.profile import EnrolError, Openvpn, Wireguard
from tests.support.enrolled import DEVICE, KEY, PUBLIC_KEY, SERVICE, file_of, made, named

NASTY = "x\nPostUp = id\n[Peer]"


def text_of(platform: str, ending: str, **choices: object) -> str:
    return file_of(made(platform, **choices), ending).octets.decode()  # type: ignore[arg-type]


def test_wireguards_file_resolves_here() -> None:
    """Addresses and search domains stand in DNS, as wg-quick takes them."""
    reader = configparser.ConfigParser()
    reader.read_string(text_of("wireguard", ".conf"))

    assert dict(reader["Interface"]) == {
        "privatekey": KEY,
        "address": "10.9.0.7/32, 2001:db8:9::7/128",
        "dns": "192.0.2.53, 2001:db8::53, corp.example.org, example.org",
    }
    assert dict(reader["Peer"]) == {
        "publickey": PUBLIC_KEY,
        "allowedips": "0.0.0.0/0, ::/0",
        "endpoint": "vpn.example.org:51820",
        "persistentkeepalive": "25",
    }


@pytest.mark.parametrize("name", ["phone-7", NASTY])
def test_wg_quick_reads_the_file(name: str, tmp_path: Path, peer: Callable[[str], str]) -> None:
    """wg-quick takes out what is its own, and leaves what wg itself reads."""
    path = tmp_path / "interdict.conf"
    path.write_text(text_of("wireguard", ".conf", device=named(name)))
    path.chmod(0o600)

    stripped = subprocess.run([peer("wg-quick"), "strip", path], check=True, capture_output=True, text=True).stdout
    kept = [line for line in stripped.splitlines() if line and not line.startswith("#")]

    assert kept == [
        "[Interface]",
        f"PrivateKey = {KEY}",
        "[Peer]",
        f"PublicKey = {PUBLIC_KEY}",
        "AllowedIPs = 0.0.0.0/0, ::/0",
        "Endpoint = vpn.example.org:51820",
        "PersistentKeepalive = 25",
    ]


def test_a_key_that_is_not_known_stays_on_the_device() -> None:
    """Then wg reads it there, and there is no QR code."""
    profile = made("wireguard", device=replace(DEVICE, wireguard_key=None))

    assert b"PrivateKey" not in profile.files[0].octets
    assert b"PostUp = wg set %i private-key /etc/wireguard/%i.key" in profile.files[0].octets
    assert profile.qr is None
    assert not profile.files[0].secret


def test_a_resolver_outside_the_tunnel_is_told() -> None:
    """Where AllowedIPs does not hold its address."""
    narrow = replace(SERVICE, wireguard=Wireguard("vpn.example.org:51820", PUBLIC_KEY, (ip_network("10.9.0.0/16"),)))

    assert any("outside the tunnel: 192.0.2.53" in note for note in made("wireguard", service=narrow).notes)
    assert not any("outside" in note for note in made("wireguard").notes)


@pytest.mark.parametrize(("file", "name"), [(".ovpn", "phone-7"), (".ovpn", NASTY), ("push.conf", "phone-7")])
def test_openvpn_reads_its_files(file: str, name: str, tmp_path: Path, peer: Callable[[str], str]) -> None:
    """Every option is one that OpenVPN knows; what is for Windows alone is marked so that others pass over it."""
    path = tmp_path / "x.conf"
    path.write_text(text_of("openvpn", file, device=named(name)))

    said = subprocess.run(
        # Generating a key reads the configuration first, and needs neither network nor rights.
        [peer("openvpn"), "--config", path, "--genkey", "secret", tmp_path / "unused"],
        check=False,
        capture_output=True,
        text=True,
    )

    assert said.returncode == 0, said.stdout
    assert all("block-outside-dns" in line for line in said.stdout.splitlines() if "Unrecognized" in line)


def test_openvpn_refuses_what_is_wrong(tmp_path: Path, peer: Callable[[str], str]) -> None:
    """The check above can fail."""
    path = tmp_path / "x.conf"
    path.write_text(text_of("openvpn", ".ovpn").replace("dns server 0 address", "dns server 0 addresses"))

    said = subprocess.run(
        [peer("openvpn"), "--config", path, "--genkey", "secret", tmp_path / "unused"], check=False, capture_output=True
    )

    assert said.returncode != 0


def test_openvpns_server_pushes_what_the_client_says() -> None:
    """Old clients take dhcp-option, new ones dns: both say the same, on either side."""
    dns = [
        "dhcp-option DNS 192.0.2.53",
        "dhcp-option DNS 2001:db8::53",
        "dhcp-option DOMAIN-SEARCH corp.example.org",
        "dhcp-option DOMAIN-SEARCH example.org",
        "dns server 0 address 192.0.2.53 2001:db8::53",
        "dns search-domains corp.example.org example.org",
    ]
    client = text_of("openvpn", ".ovpn").splitlines()
    push = text_of("openvpn", "push.conf").splitlines()

    assert [line for line in client if line.startswith(("dhcp-option", "dns "))] == dns
    assert [line for line in push if "dhcp-option" in line or '"dns ' in line] == [f'push "{line}"' for line in dns]


@pytest.mark.parametrize(("is_tcp", "line"), [(True, "proto tcp-client"), (False, "proto udp")])
def test_openvpn_uses_the_servers_transport(is_tcp: bool, line: str) -> None:
    """And its port."""
    text = text_of("openvpn", ".ovpn", service=replace(SERVICE, openvpn=Openvpn("vpn.example.org", 443, is_tcp)))

    assert line in text.splitlines()
    assert "remote vpn.example.org 443" in text.splitlines()


def sections(text: str) -> dict[str, object]:
    """Read a file of strongSwan's form (sections in braces, `key = value`), as its parser does."""
    stack: list[dict[str, object]] = [{}]
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if line.endswith("{"):
            inner: dict[str, object] = {}
            stack[-1][line[:-1].strip()] = inner
            stack.append(inner)
        elif line == "}":
            stack.pop()
        elif line:
            key, _, found = line.partition("=")
            stack[-1][key.strip()] = found.strip()
    [top] = stack
    return top


@pytest.mark.parametrize("name", ["phone-7", "x }\npools {"])
def test_strongswans_files_fit_each_other(name: str) -> None:
    """Same proposals on both sides; the device asks for addresses and so gets the resolver; nothing splits DNS."""
    client = sections(text_of("strongswan", "swanctl.conf", device=named(name)))
    gateway = sections(text_of("strongswan", "gateway.conf", device=named(name)))
    one, other = client["connections"]["interdict"], gateway["connections"]["interdict"]  # type: ignore[index]

    assert set(client) == {"connections"}
    assert one["proposals"] == other["proposals"]
    assert one["vips"] == "0.0.0.0, ::"
    assert one["children"]["all"]["start_action"] == "start"  # a trap would hold the question where the server is
    assert one["local"]["id"] == "k3v9.vpn.example.org"
    assert other["pools"] == "interdict-v4, interdict-v6"
    assert gateway["pools"] == {
        "interdict-v4": {"addrs": "10.9.0.0/16", "dns": "192.0.2.53, 2001:db8::53"},
        "interdict-v6": {"addrs": "2001:db8:9::/64", "dns": "192.0.2.53, 2001:db8::53"},
    }


@pytest.mark.parametrize(
    ("platform", "changes", "mend"),
    [
        ("wireguard", {"service": replace(SERVICE, wireguard=None)}, "wireguard:"),
        ("wireguard", {"device": replace(DEVICE, interfaces=())}, "`addresses`"),
        ("wireguard", {"service": replace(SERVICE, addresses=())}, "addresses:"),
        ("openvpn", {"service": replace(SERVICE, openvpn=None)}, "openvpn:"),
        ("strongswan", {"service": replace(SERVICE, ikev2=None)}, "pools:"),
    ],
    ids=["wireguard", "interfaces", "addresses", "openvpn", "ikev2"],
)
def test_what_is_missing_is_named(platform: str, changes: dict[str, object], mend: str) -> None:
    """Nothing is made that would not work."""
    with pytest.raises(EnrolError, match=mend):
        made(platform, **changes)  # type: ignore[arg-type]
