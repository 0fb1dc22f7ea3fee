"""The systemd units are sound, and as closed as a resolver can be; what is left open is named, with its reason."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from resolver.config import read

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICE = DEPLOY / "interdict.service"
SOCKET = DEPLOY / "interdict.socket"
MOST_EXPOSURE = 1.5

pytestmark = pytest.mark.e2e


def settings(path: Path, key: str) -> list[str]:
    """Every value of a setting."""
    return re.findall(rf"^{key}=(.*)$", path.read_text(), re.MULTILINE)


def test_the_service_is_exposed_no_more_than_allowed(peer: Callable[[str], str]) -> None:
    """By systemd's own measure."""
    looked = subprocess.run(
        [peer("systemd-analyze"), "security", "--offline=true", f"--threshold={MOST_EXPOSURE * 10:g}", SERVICE],
        capture_output=True, text=True,
    )  # fmt: skip

    assert looked.returncode == 0, looked.stdout
    assert float(re.findall(r"exposure level for interdict.service: ([\d.]+)", looked.stdout)[0]) <= MOST_EXPOSURE


def test_every_exposure_is_named(peer: Callable[[str], str]) -> None:
    """What systemd still points at stands in the unit's head with a reason, and nothing that it does not point at."""
    looked = subprocess.run(
        [peer("systemd-analyze"), "security", "--offline=true", "--json=short", SERVICE],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found = {line["name"].partition("=")[0] for line in json.loads(looked.stdout) if line["exposure"]}
    head = SERVICE.read_text().partition("[Unit]")[0]
    named = set(
        re.findall(r"\b([A-Z][A-Za-z]+)=", re.sub(r"^#  {30,}.*$|ProtectClock=|IPAddressAllow=", "", head, flags=re.M))
    )

    assert found == named


def test_every_setting_of_the_service_is_argued() -> None:
    """A comment stands before each block of settings."""
    bare, is_argued = [], False
    for line in SERVICE.read_text().partition("[Service]")[2].partition("[Install]")[0].splitlines():
        if line.startswith("#"):
            is_argued = True
        elif not line:
            is_argued = False
        elif not is_argued:
            bare.append(line)

    assert bare == []


def test_the_units_are_valid(peer: Callable[[str], str], tmp_path: Path) -> None:
    """systemd has nothing to say against them, once the program is there."""
    for path in (SERVICE, SOCKET):
        text = path.read_text().replace("/opt/interdict/.venv/bin/interdict", "/usr/bin/true")
        (tmp_path / path.name).write_text(text)
    looked = subprocess.run(
        [peer("systemd-analyze"), "verify", "--man=no", *tmp_path.iterdir()], capture_output=True, text=True
    )

    assert (looked.returncode, [line for line in looked.stderr.splitlines() if "interdict" in line]) == (0, [])


def test_the_socket_listens_where_the_example_does() -> None:
    """On each address over UDP and TCP; the server refuses to start with others."""
    config = read((DEPLOY / "interdict.example.yaml").read_text(), "example")
    listen = [str(endpoint) for endpoint in config.listen]

    assert settings(SOCKET, "ListenDatagram") == listen
    assert settings(SOCKET, "ListenStream") == listen
    assert settings(SOCKET, "BindIPv6Only") == ["ipv6-only"]


def test_the_suites_are_where_the_service_looks() -> None:
    """The package and the guide put the configuration of OpenSSL there; OpenSSL says nothing where it is missing."""
    (conf,) = [value.partition("=")[2] for value in settings(SERVICE, "Environment") if value.startswith("OPENSSL_")]

    assert f"install -D -m 644 deploy/openssl.cnf debian/interdict{conf}\n" in (DEPLOY / "debian/rules").read_text()
    assert f"    install -D -m 644 deploy/openssl.cnf {conf}\n" in (DEPLOY / "README.md").read_text()


def test_account_and_folders_are_those_of_the_service() -> None:
    """What sysusers and tmpfiles make is what the unit uses."""
    (user,) = settings(SERVICE, "User")
    (state,) = settings(SERVICE, "StateDirectory")
    (mode,) = settings(SERVICE, "StateDirectoryMode")

    assert f"\nu {user} - " in (DEPLOY / "interdict.sysusers").read_text()
    assert (
        f"\nd /var/lib/{state} {mode} {user} {settings(SERVICE, 'Group')[0]} -\n"
        in (DEPLOY / "interdict.tmpfiles").read_text()
    )
