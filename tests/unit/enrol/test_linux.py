"""Linux: resolved names the device in TLS, and the others leave it to resolved."""

import configparser
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.enrolled import SERVICE, file_of, made, named


def lines_of(ending: str) -> list[str]:
    return file_of(made("linux"), ending).octets.decode().splitlines()


def test_resolved_asks_only_the_service_in_the_devices_name() -> None:
    """What other files set is emptied first; all names are routed; nothing falls back."""
    lines = lines_of("resolved.conf")

    assert lines[lines.index("DNS=") + 1] == ("DNS=192.0.2.53#k3v9.dns.example.org 2001:db8::53#k3v9.dns.example.org")
    assert lines[lines.index("Domains=") + 1] == "Domains=~. corp.example.org example.org"
    assert {"FallbackDNS=", "DNSOverTLS=yes", "LLMNR=no"} <= set(lines)


def test_systemd_finds_the_drop_in_where_the_note_says(tmp_path: Path, peer: Callable[[str], str]) -> None:
    """systemd-analyze merges it into resolved's configuration."""
    folder = tmp_path / "etc/systemd/resolved.conf.d"
    folder.mkdir(parents=True)
    file = file_of(made("linux"), "resolved.conf")
    (folder / file.name).write_bytes(file.octets)

    merged = subprocess.run(
        [peer("systemd-analyze"), "cat-config", f"--root={tmp_path}", "systemd/resolved.conf"],
        check=True,
        capture_output=True,
        text=True,
    )

    assert "DNSOverTLS=yes" in merged.stdout


@pytest.mark.parametrize("name", ["phone-7", "a\n[Resolve]\nDNS=192.0.2.66", "x\\"])
def test_every_line_is_a_section_a_comment_or_an_assignment(name: str) -> None:
    """systemd.syntax(7): nothing else stands there, whatever the device is called."""
    text = file_of(made("linux", device=named(name)), "resolved.conf").octets.decode()
    reader = configparser.ConfigParser(strict=False, comment_prefixes=("#", ";"), interpolation=None)
    reader.read_string(text)

    assert reader.sections() == ["Resolve"]
    assert reader["Resolve"]["DNS"].startswith("192.0.2.53#k3v9.")


def test_networkmanager_reads_its_file(tmp_path: Path, peer: Callable[[str], str]) -> None:
    """NetworkManager's own parser gives the values back."""
    path = tmp_path / "90.conf"
    path.write_bytes(file_of(made("linux"), "networkmanager.conf").octets)

    read = subprocess.run(
        [peer("NetworkManager"), "--print-config", "--config", path], check=True, capture_output=True, text=True
    ).stdout

    assert "\ndns=systemd-resolved\n" in read
    assert "[connection-interdict]\nconnection.dns-over-tls=2\n" in read


def test_openresolvs_file_is_shell_that_sets_its_variables() -> None:
    """resolvconf.conf is sourced: a shell finds the stub and the search domains, and runs nothing else."""
    path = file_of(made("linux", device=named("$(touch x)\n`id`")), "resolvconf.conf")
    script = path.octets.decode() + '\nprintf "%s|%s" "$name_servers" "$search_domains"'

    said = subprocess.run(["sh", "-eu", "-c", script], check=True, capture_output=True, text=True).stdout

    assert said == "127.0.0.53|corp.example.org example.org"
    assert all(line.startswith("#") or len(shlex.split(line)) == 1 for line in path.octets.decode().splitlines())


def test_authorities_are_told_where_to_go() -> None:
    """The files themselves can not carry a certificate."""
    assert any("update-ca-certificates" in note for note in made("linux").notes)
    assert not any("ca-certificates" in note for note in made("linux", service=replace(SERVICE, authorities=())).notes)
