"""Profiles as people make them, by the command in a process of its own, and read by the programs that they are for."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.enrolled import PUBLIC_KEY
from tests.support.server import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
COMMAND = [sys.executable, "-c", "from resolver.cli.profile import profile; profile(prog_name='interdict profile')"]
SERVICE = f"""\
organisation: Example Agency
identifier: org.example.dns
doh: https://dns.example.org/dns-query/{{token}}
dot: "{{token}}.dns.example.org"
addresses: [192.0.2.53]
wireguard: {{endpoint: "vpn.example.org:51820", public_key: {PUBLIC_KEY}}}
ikev2: {{server: vpn.example.org, pools: [10.9.0.0/16]}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "service.yaml").write_text(SERVICE)
    rows = [f"phone-{i},t{i},10.9.{i // 256}.{i % 256}/32" for i in range(300)]
    (tmp_path / "devices.csv").write_text("\n".join(["name,token,addresses", *rows]) + "\n")
    return tmp_path


def test_a_fleet_is_enrolled_with_a_progress_bar(folder: Path) -> None:
    """300 devices, each with its own token; the bar is on standard error, where somebody looks on."""
    ours, theirs = pty.openpty()
    words = ["apple", "--service", "service.yaml", "--inventory", "devices.csv", "--out", "out"]
    running = subprocess.Popen([*COMMAND, *words], cwd=folder, stdout=subprocess.PIPE, stderr=theirs, env=ENVIRONMENT)
    os.close(theirs)
    seen = b""
    while chunk := read_or_end(ours):
        seen += chunk
    os.close(ours)
    printed = running.communicate()[0]
    files = sorted((folder / "out").rglob("*.mobileconfig"))

    assert running.returncode == 0
    assert printed == b""
    assert b"profiles for apple" in seen
    assert b"100%" in seen
    assert b"300 of 300 devices" in seen
    assert len(files) == 300
    assert len({path.read_bytes() for path in files}) == 300


def read_or_end(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says EIO when the other side of a terminal is gone
        return b""


def test_without_a_terminal_there_is_no_bar(folder: Path) -> None:
    """A log gets the outcome alone; and what was made has no trap."""
    words = ["linux", "--service", "service.yaml", "--inventory", "devices.csv", "--out", "out"]
    said = subprocess.run([*COMMAND, *words], cwd=folder, check=True, capture_output=True, text=True, env=ENVIRONMENT)
    files = [str(path) for path in (folder / "out").rglob("*.conf")]
    lint = subprocess.run(
        [*COMMAND, "lint", "--service", "service.yaml", *files], cwd=folder, check=True, env=ENVIRONMENT
    )

    assert said.stderr.startswith("300 of 300 devices")
    assert lint.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="strongSwan opens the kernel's IPsec interface, which takes root")
def test_strongswan_loads_both_sides(folder: Path, peer: Callable[[str], str]) -> None:
    """The daemon's own parser takes connections and pools, and shows what they say."""
    words = ["strongswan", "--service", "service.yaml", "--device", "phone-7", "--token", "k3v9", "--out", "."]
    subprocess.run([*COMMAND, *words], cwd=folder, check=True, capture_output=True, env=ENVIRONMENT)
    home = folder / "phone-7/strongswan"
    (home / "x509").mkdir()
    # Loaded as it is, the daemon would dial, and lead this machine's traffic into a tunnel that is not there.
    idle = (home / "interdict-swanctl.conf").read_text().replace("start_action = start", "start_action = none")
    (home / "interdict-swanctl.conf").write_text(idle)
    subprocess.run(
        [
            peer("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "k", "-out", "c.crt",
            "-subj", "/CN=k3v9.vpn.example.org",
        ],
        cwd=home, check=True, capture_output=True,
    )  # fmt: skip
    for name in ("interdict.crt", "vpn.example.org.crt"):
        (home / "x509" / name).write_bytes((home / "c.crt").read_bytes())
    socket = folder / "vici"
    (folder / "strongswan.conf").write_text(f"""\
charon-systemd {{
  load = random nonce x509 pem pkcs1 pubkey openssl kernel-netlink socket-default vici
  port = 0
  port_nat_t = 0
  plugins {{
    vici {{
      socket = unix://{socket}
    }}
  }}
}}
""")
    environment = {**ENVIRONMENT, "STRONGSWAN_CONF": str(folder / "strongswan.conf")}

    def swanctl(*words: str) -> str:
        said = subprocess.run(
            [peer("swanctl"), *words, "--uri", f"unix://{socket}"],
            check=True, capture_output=True, text=True, env=environment,
        )  # fmt: skip
        return said.stdout

    with subprocess.Popen(
        [peer("charon-systemd")], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as daemon:
        try:
            wait_until("strongSwan", lambda: socket.exists() or None)
            loaded = swanctl("--load-conns", "--file", str(home / "interdict-swanctl.conf"))
            device = swanctl("--list-conns")
            swanctl("--load-conns", "--file", str(home / "interdict-gateway.conf"))
            pools = swanctl("--load-pools", "--file", str(home / "interdict-gateway.conf"))
        finally:
            daemon.kill()  # it keeps nothing, and takes ten seconds to end by itself

    assert "loaded connection 'interdict'" in loaded
    assert "id: k3v9.vpn.example.org" in device
    assert "0.0.0.0/0 ::/0" in device
    assert "loaded pool 'interdict-v4'" in pools
