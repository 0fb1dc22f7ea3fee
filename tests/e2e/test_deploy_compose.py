"""The compose file is one, and what it mounts into its services is there and is what they read."""

import importlib.util
import ipaddress
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from resolver import __version__
from resolver.app.listening import listeners
from resolver.config import read
from tests.support.peers import skip_or_fail

COMPOSE = Path(__file__).parents[2] / "deploy/compose"
TEXT = (COMPOSE / "compose.yaml").read_text()
FILE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
PROTOCOLS = {socket.SOCK_DGRAM: "udp", socket.SOCK_STREAM: "tcp"}

pytestmark = pytest.mark.e2e


def refusal(text: str) -> str:
    """What the compose specification has against a file; nothing where it is one."""
    if importlib.util.find_spec("compose_spec") is None:
        skip_or_fail("the library compose-spec is not installed (tests/requirements.lock)")
    from compose_spec import PyCompose

    try:
        file = PyCompose.from_yaml(text)
        file.to_spec()
        file.validate()
    except ValueError as error:
        return str(error)
    return ""


def test_it_is_a_compose_file() -> None:
    """By the compose specification; networks and volumes that services name are there."""
    assert refusal(TEXT) == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("read_only: true", "read_olny: true"),
        ("restart: unless-stopped", "restart: sometimes"),
        ("condition: service_healthy", "condition: service_fine"),
        ("networks: [watching]", "networks: [elsewhere]"),
    ],
)
def test_the_check_finds_what_is_wrong(right: str, wrong: str) -> None:
    """A key that there is not, a value that means nothing, a network that nobody made."""
    assert refusal(TEXT.replace(right, wrong, 1)) != ""


def mounts(service: str) -> dict[str, Path]:
    """The files and folders that a service finds at which path."""
    pairs = [entry.split(":") for entry in SERVICES[service].get("volumes", []) if entry.startswith(".")]
    return {inside: (COMPOSE / outside).resolve() for outside, inside, *_ in pairs}


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_mounted_is_there(service: str) -> None:
    """And only for reading."""
    assert [str(path) for path in mounts(service).values() if not path.exists()] == []
    assert all(entry.endswith(":ro") for entry in SERVICES[service].get("volumes", []) if entry.startswith("."))


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_has_a_right_that_it_does_not_need(service: str) -> None:
    """No capability, no way to get one."""
    assert SERVICES[service]["cap_drop"] == ["ALL"]
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]


def test_nothing_is_published_to_the_world() -> None:
    """Loopback, until the operator says otherwise."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert ports
    assert {port.split(":")[0] for port in ports} == {"127.0.0.1"}


def test_the_resolver_asks_the_validating_one() -> None:
    """At the address that the network gives it; it may ask there, and its word on DNSSEC is taken."""
    config = read((COMPOSE / "interdict.yaml").read_text(), "interdict.yaml")
    (subnet,) = (pool["subnet"] for pool in FILE["networks"]["resolving"]["ipam"]["config"])
    addresses = {name: SERVICES[name]["networks"]["resolving"]["ipv4_address"] for name in ("interdict", "unbound")}
    unbound = (COMPOSE / "unbound.conf").read_text()
    (upstream,) = config.upstreams

    assert upstream.address == addresses["unbound"]
    assert upstream.trust_ad
    assert f"interface: 0.0.0.0@{upstream.port}\n" in unbound
    assert f"access-control: {subnet} allow\n" in unbound
    assert all(ipaddress.ip_address(address) in ipaddress.ip_network(subnet) for address in addresses.values())
    assert SERVICES["interdict"]["image"] == f"interdict:{__version__}"


def test_the_encrypted_service_needs_no_more_than_its_lines() -> None:
    """What both files comment out is sound, and each listener is published, with a port that the account may have."""
    uncommented = re.sub(r"^( *)# (?=- )", r"\1", TEXT, flags=re.MULTILINE)
    service = yaml.safe_load(uncommented)["services"]["interdict"]
    text = re.sub(r"^# (?=encrypted:|  [a-z_0-9]+: )", "", (COMPOSE / "interdict.yaml").read_text(), flags=re.MULTILINE)
    config = read(text, "interdict.yaml")
    spoken = {(one.endpoint.port, PROTOCOLS[one.kind]) for one in listeners(config) if one.transport.is_encrypted}
    published = {tuple(port.split(":")[1:]) for port in service["ports"]}

    assert refusal(uncommented) == ""
    assert spoken == {(port, protocol) for port in (853, 443) for protocol in ("tcp", "udp")}
    assert {(str(port), f"{port}/{protocol}") for port, protocol in spoken} <= published
    assert all(port >= int(service["sysctls"]["net.ipv4.ip_unprivileged_port_start"]) for port, _ in spoken)
    assert any(entry.split(":")[1] == str(Path(str(config.encrypted.key)).parent) for entry in service["volumes"])


def test_prometheus_takes_its_configuration(peer: Callable[[str], str], tmp_path: Path) -> None:
    """With the rules beside it, and the name that alerts go by; it differs from the guide's in the address alone."""
    for inside, path in mounts("prometheus").items():
        (tmp_path / Path(inside).name).write_text(path.read_text())
    checked = subprocess.run(
        [peer("promtool"), "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True
    )
    own, guide = (
        yaml.safe_load(path.read_text())
        for path in (COMPOSE / "prometheus.yml", COMPOSE.parent / "prometheus/prometheus.yml")
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert own["scrape_configs"][0].pop("static_configs") == [{"targets": ["interdict:9530"]}]
    guide["scrape_configs"][0].pop("static_configs")
    assert own == guide


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    """The data source differs from the guide's in the address alone; dashboards lie where the provisioning looks."""
    provisioning = COMPOSE.parent / "grafana/provisioning"
    own, guide = (
        yaml.safe_load(path.read_text())["datasources"][0]
        for path in (COMPOSE / "datasource.yaml", provisioning / "datasources/interdict.yaml")
    )
    (provider,) = yaml.safe_load((provisioning / "dashboards/interdict.yaml").read_text())["providers"]

    assert {**own, "url": ""} == {**guide, "url": ""}
    assert own["url"] == "http://prometheus:9090"
    assert list(mounts("grafana")[provider["options"]["path"]].glob("*.json"))
