"""`interdict profile network`: what it takes, prints and writes."""

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from resolver.cli.network import network
from resolver.enrol.platforms import NETWORKS

SERVICE = """\
organisation: Example Agency
identifier: org.example.dns
doh: https://dns.example.org/dns-query/{token}
dot: "{token}.dns.example.org"
addresses: [192.0.2.53, "2001:db8::53"]
"""


@pytest.fixture
def service(tmp_path: Path) -> Path:
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE)
    return path


def run(service: Path, *words: str | Path) -> Result:
    return CliRunner().invoke(network, [*map(str, words), "--service", str(service)])


def test_one_file_goes_to_standard_output(service: Path) -> None:
    """So that it can be redirected; notes go to standard error."""
    said = run(service, "dnsmasq", "--also", "doq", "--also", "h3")

    assert said.exit_code == 0
    assert said.stdout.startswith("# RFC 9463: dns.example.org alpn=h2,h3,dot,doq dohpath=/dns-query{?dns}\ndhcp-")
    assert "note: The certificate of the service must hold dns.example.org." in said.stderr


def test_several_files_need_a_folder(service: Path) -> None:
    """Kea and dhcpd have one for each protocol."""
    said = run(service, "kea")

    assert (said.exit_code, said.stdout) == (2, "")
    assert "--out" in said.stderr


@pytest.mark.parametrize("server", NETWORKS)
def test_files_are_for_all_to_read(service: Path, tmp_path: Path, server: str) -> None:
    """A DHCP server reads them under a user of its own, and there is nothing secret in them."""
    said = run(service, server, "--out", tmp_path)
    written = [Path(line) for line in said.stdout.splitlines()]

    assert said.exit_code == 0
    assert written
    assert all(path.parent == tmp_path / "network" / server for path in written)
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o644}


def test_a_service_that_can_not_be_told_of_is_refused(service: Path) -> None:
    """Exit code 2, and what to write."""
    service.write_text(SERVICE.replace("dot:", "# dot:"))
    said = run(service, "dnsmasq", "--also", "doq")

    assert (said.exit_code, said.stdout) == (2, "")
    assert "and dot for doq" in said.stderr
