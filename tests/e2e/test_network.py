"""Networks point devices here: DHCP servers of others take what is made for them, and devices get it over the wire."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from resolver.enrol.dnr import designations
from resolver.enrol.platforms import NETWORKS
from resolver.enrol.profile import Service
from tests.support.enrolled import SERVICE
from tests.support.peers import require_peer

pytestmark = pytest.mark.e2e

PATIENCE = 30
# HTTP at a port of its own makes two designations.
SERVICES = {"one": SERVICE, "two": replace(SERVICE, doh="https://dns.example.org:8443/q/{token}")}

# What a device does that has an address already: it asks for one option until it gets it (RFC 2131 §3.4, RFC 8415
# §18.2.6), and prints what the option holds.
ASK = """
import socket, struct, sys, time
version = sys.argv[1]
mac = bytes.fromhex("020000000002")
if version == "4":
    question = struct.pack("!4BI2H", 1, 1, 6, 0, 77, 0, 0) + socket.inet_aton("192.0.2.2") + bytes(12) + mac
    question += bytes(10 + 192) + bytes.fromhex("63825363") + bytes([53, 1, 8, 55, 1, 162, 255])
    here, there, family = ("192.0.2.2", 68), ("192.0.2.1", 67), socket.AF_INET
else:
    index = socket.if_nametoindex("veth0")
    question = bytes([11, 0, 0, 77]) + struct.pack("!2H", 1, 10) + bytes([0, 3, 0, 1]) + mac
    question += struct.pack("!3H", 6, 2, 144) + struct.pack("!3H", 8, 2, 0)
    here, there, family = ("::", 546, 0, index), ("ff02::1:2", 547, 0, index), socket.AF_INET6
def options(reply):
    if version == "6":
        i = 4
        while i < len(reply):
            code, length = struct.unpack("!2H", reply[i : i + 4])
            yield code, reply[i + 4 : i + 4 + length]
            i += 4 + length
        return
    i = 240
    while reply[i] != 255:
        if reply[i]:
            yield reply[i], reply[i + 2 : i + 2 + reply[i + 1]]
            i += 1 + reply[i + 1]
        i += 1
with socket.socket(family, socket.SOCK_DGRAM) as sock:
    sock.bind(here)
    sock.settimeout(0.2)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            sock.sendto(question, there)
            reply = sock.recv(4096)
        except OSError:
            continue
        print(*[octets.hex() for code, octets in options(reply) if code in (162, 144)])
        break
"""


class Link(NamedTuple):
    """Two machines with a wire between them: the server has 192.0.2.1 and 2001:db8::1, the device the .2 and ::2."""

    ip: str
    spaces: dict[str, str]

    def command(self, role: str, *words: str) -> list[str]:
        return [self.ip, "netns", "exec", self.spaces[role], *words]

    def ask(self, version: int) -> list[bytes]:
        """The options that a device gets."""
        said = subprocess.run(
            self.command("device", sys.executable, "-c", ASK, str(version)),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert said.returncode == 0, said.stderr
        return [bytes.fromhex(octets) for octets in said.stdout.split()]


@pytest.fixture
def link() -> Iterator[Link]:
    ip = require_peer("ip")
    made = Link(ip, {role: f"interdict-{os.getpid()}-{role}" for role in ("server", "device")})
    up = []
    try:
        for space in made.spaces.values():
            said = subprocess.run([ip, "netns", "add", space], capture_output=True, text=True, check=False)
            if said.returncode != 0:
                pytest.skip(f"no network namespace may be made here: {said.stderr.strip()}")
            up.append(space)
        words = ["link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", made.spaces["device"]]
        subprocess.run(made.command("server", ip, *words), check=True)
        for role, host in (("server", 1), ("device", 2)):
            # An address is of use at once: nobody else is on this wire who could have it.
            setting = "/proc/sys/net/ipv6/conf/veth0/accept_dad"
            subprocess.run(made.command(role, "sh", "-c", f"echo 0 > {setting}"), check=True)
            for address in (f"192.0.2.{host}/24", f"2001:db8::{host}/64"):
                subprocess.run(made.command(role, ip, "address", "add", address, "dev", "veth0"), check=True)
            subprocess.run(made.command(role, ip, "link", "set", "lo", "up"), check=True)
            subprocess.run(made.command(role, ip, "link", "set", "veth0", "up"), check=True)
        yield made
    finally:
        for space in up:
            subprocess.run([ip, "netns", "delete", space], check=True)


@contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[None]:
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | environment)
    try:
        yield
        assert server.poll() is None, log.read_text()
    finally:
        server.kill()
        server.wait()


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> Service:
    """With one designation, and with two."""
    return SERVICES[request.param]


@pytest.fixture
def files(tmp_path: Path, service: Service) -> Path:
    """The files of all servers."""
    for make in NETWORKS.values():
        for file in make(service, designations(service)).files:
            (tmp_path / file.name).write_bytes(file.octets)
    return tmp_path


def expected(service: Service, version: int) -> list[bytes]:
    found = designations(service)
    return [b"".join(one.v4() for one in found)] if version == 4 else [found[0].v6()]


def dnsmasq_configuration(files: Path) -> Path:
    path = files / "dnsmasq.conf"
    path.write_text(
        "port=0\ninterface=veth0\ndhcp-range=192.0.2.100,192.0.2.200\ndhcp-range=2001:db8::100,2001:db8::200\n"
        f"dhcp-leasefile={files}/leases\nconf-file={files}/interdict-dnsmasq.conf\n"
    )
    return path


def kea_configuration(files: Path, version: int) -> Path:
    network = {4: "192.0.2.0/24", 6: "2001:db8::/64"}[version]
    written = json.dumps({
        f"Dhcp{version}": {
            "interfaces-config": {"interfaces": ["veth0"]},
            "lease-database": {"type": "memfile", "persist": False},
            f"subnet{version}": [{"id": 1, "subnet": network, "interface": "veth0"}],
            "option-data": "HERE",
            **({"server-id": {"type": "LL", "persist": False}} if version == 6 else {}),
        }
    })  # fmt: skip
    path = files / f"kea{version}.json"
    path.write_text(written.replace('"HERE"', f'[<?include "{files}/interdict-kea{version}.json"?>]'))
    return path


def dhcpd_configuration(files: Path, version: int) -> Path:
    network = {4: "subnet 192.0.2.0 netmask 255.255.255.0", 6: "subnet6 2001:db8::/64"}[version]
    path = files / f"dhcpd{version}.conf"
    path.write_text(f'authoritative;\ninclude "{files}/interdict-dhcpd{version}.conf";\n{network} {{ }}\n')
    (files / "leases").touch()
    return path


def test_dnsmasq_tells_devices(files: Path, service: Service, link: Link, peer: Callable[[str], str]) -> None:
    """Its own check passes; over DHCPv4 and DHCPv6 devices get the option."""
    program, path = peer("dnsmasq"), dnsmasq_configuration(files)
    subprocess.run([program, "--test", "-C", path], check=True)

    with running(link.command("server", program, "--no-daemon", "--user=root", "-C", str(path)), files / "log"):
        for version in (4, 6):
            assert link.ask(version) == expected(service, version)


@pytest.mark.parametrize("version", [4, 6])
def test_kea_tells_devices(files: Path, service: Service, link: Link, peer: Callable[[str], str], version: int) -> None:
    """Its own check passes; devices get the option."""
    program, path = peer(f"kea-dhcp{version}"), kea_configuration(files, version)
    environment = {"KEA_PIDFILE_DIR": str(files), "KEA_LOCKFILE_DIR": "none"}
    subprocess.run(link.command("server", program, "-t", str(path)), check=True, env=os.environ | environment)

    with running(link.command("server", program, "-c", str(path)), files / "log", **environment):
        assert link.ask(version) == expected(service, version)


@pytest.mark.parametrize("version", [4, 6])
def test_dhcpd_tells_devices(
    files: Path, service: Service, link: Link, peer: Callable[[str], str], version: int
) -> None:
    """Its own check passes; devices get the option."""
    program, path = peer("dhcpd"), dhcpd_configuration(files, version)
    words = [program, f"-{version}", "-cf", str(path), "-lf", str(files / "leases"), "--no-pid"]
    subprocess.run([*words, "-t"], check=True)

    with running(link.command("server", *words, "-f", "-d", "-user", "root", "-group", "root", "veth0"), files / "log"):
        assert link.ask(version) == expected(service, version)


def test_radvd_takes_its_lines(files: Path, peer: Callable[[str], str]) -> None:
    """Its own check passes."""
    path = files / "radvd.conf"
    path.write_text(f"interface veth0 {{\nAdvSendAdvert on;\n{(files / 'interdict-radvd.conf').read_text()}}};\n")

    checked = subprocess.run([peer("radvd"), "-c", "-C", path], capture_output=True, text=True)

    assert checked.returncode == 0, checked.stderr
