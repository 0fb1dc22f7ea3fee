"""Who asks, and by whose rules: devices recognised, revoked and unknown, over every transport of the running server."""

import contextlib
import csv
import json
import plistlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from resolver.policy.client import Transport
from tests.support.encrypted import NAME, Covered, ede_of, points_home, rcode_of, whoami
from tests.support.house import ask
from tests.support.secure_upstream import Certificates
from tests.support.server import ROOT, SlowUpstream, ask_tcp, ask_udp, free_port, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
Asking = Callable[[bytes], bytes]

PROVED = ("certificate", "path", "bearer", "name")
GROUPS = (*PROVED, "door", "office", "everyone")  # each has an order of its own, the last binds nobody by name
OFFICE, OUTSIDE = "127.0.0.40", "127.0.0.50"  # a network of a group; a network that nobody may ask from
MAY_ASK = ["127.0.0.1/32", f"{OFFICE}/32"]


@pytest.fixture(scope="module")
def upstream() -> Iterator[tuple[str, int]]:
    """Has an address for every name."""
    with SlowUpstream(points_home) as running:
        yield running.address


@pytest.fixture(scope="module")
def doors() -> tuple[int, int]:
    """The ports of DoT and DoH whose clients are all of one group."""
    return free_port(), free_port()


@pytest.fixture(scope="module")
def covered(
    tmp_path_factory: pytest.TempPathFactory, upstream: tuple[str, int], doors: tuple[int, int]
) -> Iterator[Covered]:
    """A server whose every group is forbidden another name: its own, below banned-app.ca."""
    dot, doh = (f"127.0.0.1:{port}" for port in doors)
    groups: list[dict[str, Any]] = [
        {"name": "everyone", "networks": ["0.0.0.0/0", "::/0"]},
        {"name": "office", "networks": [f"{OFFICE}/32"]},
        {"name": "door", "listeners": [dot, doh]},
        *({"name": name} for name in PROVED),
    ]
    made = Covered(tmp_path_factory.mktemp("covered"), upstream, groups, allowed_networks=MAY_ASK)
    made.server.config["encrypted"]["dot"].append(dot)
    made.server.config["encrypted"]["doh"].append(doh)
    for group in GROUPS:
        made.server.ban(f"order-{group}", f"{group}.banned-app.ca", groups=[group])
    try:
        made.server.start()
        yield made
    finally:
        made.server.end()


def bound(asking: Asking) -> str:
    """The group whose own name is withheld; of one group alone."""
    (group,) = [group for group in GROUPS if rcode_of(asking(ask(f"{group}.banned-app.ca"))) == "NXDOMAIN"]
    return group


def known(asking: Asking) -> bool:
    """Whether whoever asks this way is not refused."""
    return rcode_of(asking(ask("www.allowed.ca"))) != "REFUSED"


@pytest.fixture(scope="module")
def tokens(covered: Covered) -> dict[str, str]:
    """The token of a device for each way of proof, in the group of that name; all workers know them."""
    made = {means: covered.enrol(f"by-{means}", means) for means in PROVED if means != "certificate"}
    covered.enrol("by-certificate", "certificate", "--certificate", "by-certificate.devices.example", "--no-token")
    made["spare"] = covered.enrol("spare", "path")  # made last: who knows it knows the others
    settled(covered, made["spare"])
    return made


def settled(covered: Covered, token: str) -> None:
    """Wait until all workers know a device: of sixteen connections some come to each."""

    def all_know() -> bool:
        with contextlib.ExitStack() as stack:
            webs = [stack.enter_context(covered.doh()) for _ in range(16)]
            return all(known(partial(web.ask, token=token)) for web in webs)

    wait_until("the workers know the device", all_know)


@pytest.fixture(scope="module")
def papers(covered: Covered) -> Path:
    """The certificate of a device."""
    return covered.authority.issue("other.example", "by-certificate.devices.example")


# ---- who is who -----------------------------------------------------------------------------------------------------


def test_each_way_of_proof_leads_to_the_devices_own_group(
    covered: Covered, tokens: dict[str, str], papers: Path
) -> None:
    """By every transport that can carry it; the evidence has the device's name."""
    name = f"{tokens['name']}.{NAME}"
    with (
        covered.doh() as web,
        covered.dot(name) as named_line,
        covered.doh(name) as named_web,
        covered.dot(device=papers) as proved_line,
        covered.doh(device=papers) as proved_web,
    ):
        ways: list[tuple[str, str, Asking]] = [
            ("path", "doh", partial(web.ask, token=tokens["path"])),
            ("path", "doh3", partial(covered.quic, path=f"/dns-query/{tokens['path']}")),
            ("bearer", "doh", partial(web.ask, bearer=tokens["bearer"])),
            ("name", "dot", named_line.ask),
            ("name", "doh", named_web.ask),
            ("name", "doq", partial(covered.quic, name=name)),
            ("name", "doh3", partial(covered.quic, name=name, path="/dns-query")),
            ("certificate", "dot", proved_line.ask),
            ("certificate", "doh", proved_web.ask),
        ]
        for group, transport, asking in ways:
            assert bound(asking) == group
            said = whoami(asking)
            assert (said["device"], said["group"], said["transport"]) == (f"by-{group}", group, transport)
            assert said["orders"] == f"order-{group}"
    wanted = {(f"{group}.banned-app.ca", f"by-{group}", group, transport) for group, transport, _ in ways}
    wait_until(
        "the hits carry the device",
        lambda: wanted <= set(covered.server.hits("qname, device, client_group, transport")),
    )


def test_the_strongest_proof_decides(
    covered: Covered, tokens: dict[str, str], papers: Path, doors: tuple[int, int]
) -> None:
    """Certificate, path, bearer token, server name, listener, network: each goes before all that follow it."""
    name = f"{tokens['name']}.{NAME}"
    tiers = []
    with (
        covered.doh(name, papers, OFFICE, doors[1]) as all_shown,
        covered.doh(name, None, OFFICE, doors[1]) as no_certificate,
        covered.doh(NAME, None, OFFICE, doors[1]) as nothing,
        covered.doh(NAME, None, OFFICE) as elsewhere,
        covered.doh() as plain,
    ):
        tiers.append(bound(partial(all_shown.ask, token=tokens["path"], bearer=tokens["bearer"])))
        tiers.append(bound(partial(no_certificate.ask, token=tokens["path"], bearer=tokens["bearer"])))
        tiers.append(bound(partial(no_certificate.ask, bearer=tokens["bearer"])))
        tiers.append(bound(no_certificate.ask))
        tiers.append(bound(nothing.ask))
        tiers.append(bound(elsewhere.ask))
        tiers.append(bound(plain.ask))

    assert tuple(tiers) == GROUPS


def test_plain_clients_are_told_apart_by_listener_and_network(covered: Covered, doors: tuple[int, int]) -> None:
    """They have nothing to show; nor does a line of TLS without a token."""
    assert bound(partial(ask_udp, covered.server.port)) == "everyone"
    assert bound(lambda packet: ask_tcp(covered.server.port, [packet])[0]) == "everyone"
    with covered.dot(port=doors[0]) as line, covered.dot(source=OFFICE) as office:
        assert bound(line.ask) == "door"
        assert bound(office.ask) == "office"


def test_the_page_names_device_and_group(covered: Covered, tokens: dict[str, str], papers: Path) -> None:
    """By the token in its path, by certificate, and without any proof."""
    with covered.doh() as web, covered.doh(device=papers) as proved:
        by_token = web.page(f"/covered/{tokens['path']}")
        by_certificate = proved.page("/covered")
        unproved = web.page("/covered")
        unknown = web.page(f"/covered/{'x' * 26}")

    assert "<dd>by-path</dd>" in by_token
    assert "order-path" in by_token
    assert "<dd>by-certificate</dd>" in by_certificate
    assert "not recognised by name" in unproved
    assert "order-everyone" in unproved
    assert "This device is not recognised" in unknown


# ---- unknown and revoked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("means", ["path", "bearer", "name", "doq", "doh3", "certificate"])
def test_what_nobody_has_is_refused(covered: Covered, means: str) -> None:
    """REFUSED, with the reason (EDE 18), though the address alone might ask."""
    token = "x" * 26
    with contextlib.ExitStack() as stack:
        stranger = covered.authority.issue("stranger.example")
        ways: dict[str, Callable[[], Asking]] = {
            "path": lambda: partial(stack.enter_context(covered.doh()).ask, token=token),
            "bearer": lambda: partial(stack.enter_context(covered.doh()).ask, bearer=token),
            "name": lambda: stack.enter_context(covered.dot(f"{token}.{NAME}")).ask,
            "doq": lambda: partial(covered.quic, name=f"{token}.{NAME}"),
            "doh3": lambda: partial(covered.quic, path=f"/dns-query/{token}"),
            "certificate": lambda: stack.enter_context(covered.dot(device=stranger)).ask,
        }
        reply = ways[means]()(ask("www.allowed.ca"))

    assert rcode_of(reply) == "REFUSED"
    assert ede_of(reply) == [18]


def test_a_revoked_device_is_refused_within_a_second(covered: Covered, tokens: dict[str, str]) -> None:
    """On connections that stay open, by every worker, cached answers and all; a fresh token brings it back."""
    token = covered.enrol("lost", "name")
    settled(covered, token)
    name = f"{token}.{NAME}"
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(covered.dot(name)) for _ in range(8)]
        webs = [stack.enter_context(covered.doh()) for _ in range(8)]
        asking: list[Asking] = [*(line.ask for line in lines), *(partial(web.ask, token=token) for web in webs)]
        assert all(known(one) for one in asking)

        assert covered.manage("revoke", "lost")["revoked"] == ["lost"]
        start = time.monotonic()
        while any(known(one) for one in asking):
            assert time.monotonic() - start < 1.0
        replies = [one(ask("www.allowed.ca")) for one in asking]
        assert {(rcode_of(reply), *ede_of(reply)) for reply in replies} == {("REFUSED", 18)}

        fresh = str(covered.manage("renew", "lost")["token"])
        wait_until("it is back", lambda: all(known(partial(web.ask, token=fresh)) for web in webs))
        assert not any(known(partial(web.ask, token=token)) for web in webs)


def test_a_recognised_device_may_ask_from_anywhere(covered: Covered, tokens: dict[str, str]) -> None:
    """Whoever shows nothing is refused from outside the allowed networks."""
    with covered.doh(source=OUTSIDE) as web:
        assert bound(partial(web.ask, token=tokens["path"])) == "path"
        refused = web.ask(ask("www.allowed.ca"))

    assert rcode_of(refused) == "REFUSED"
    assert ede_of(refused) == [18]


def test_who_is_unknown_may_be_held_to_a_group(tmp_path: Path, upstream: tuple[str, int]) -> None:
    """A device that is known is still held to its own; and from outside the allowed networks nobody unknown may ask."""
    groups: list[dict[str, Any]] = [
        {"name": "everyone", "networks": ["0.0.0.0/0", "::/0"]},
        *({"name": name} for name in GROUPS[:-1]),
    ]
    made = Covered(tmp_path, upstream, groups, workers=1, allowed_networks=MAY_ASK, identity={"unknown": "office"})
    for group in GROUPS:
        made.server.ban(f"order-{group}", f"{group}.banned-app.ca", groups=[group])
    token = made.enrol("phone-7", "path")
    try:
        made.server.start()
        with made.doh() as web, made.doh(source=OUTSIDE) as outside:
            assert bound(partial(web.ask, token="x" * 26)) == "office"
            assert whoami(partial(web.ask, token="x" * 26))["device"] == ""
            assert bound(partial(web.ask, token=token)) == "path"
            assert not known(partial(outside.ask, token="x" * 26))
    finally:
        made.server.end()


def test_the_register_tells_when_a_device_was_last_seen(covered: Covered, tokens: dict[str, str]) -> None:
    """To the second, and nothing of one that never asked."""
    covered.enrol("never", "path")
    before = time.time()
    with covered.doh() as web:
        assert known(partial(web.ask, token=tokens["path"]))
    listed = {device["name"]: device for device in covered.manage("list")}

    assert listed["never"]["last_seen"] is None
    assert listed["by-path"]["last_seen"] is not None
    assert datetime.fromisoformat(listed["by-path"]["last_seen"]).timestamp() >= int(before)
    assert {device["state"] for device in listed.values()} == {"in-force"}


# ---- certificates ---------------------------------------------------------------------------------------------------


def test_a_certificate_that_does_not_hold_ends_the_handshake(covered: Covered, tmp_path: Path) -> None:
    """Expired, or of another authority; others are served meanwhile."""
    elsewhere = Certificates(tmp_path)
    expired = covered.authority.issue("by-certificate.devices.example", until=timedelta(hours=-1))
    foreign = elsewhere.issue("by-certificate.devices.example")
    with covered.dot() as other:
        for device in (expired, foreign):
            for connect in (covered.dot, covered.doh):
                # With TLS 1.3 the client is done before the server has looked.
                with pytest.raises((OSError, EOFError)), connect(device=device) as line:
                    line.ask(ask("www.allowed.ca"))
            assert known(other.ask)


def shown(covered: Covered) -> int:
    """The serial of the certificate that a new connection is shown."""
    with covered.dot() as line:
        return line.serial()


def test_a_renewed_certificate_is_shown_to_who_comes_from_then_on(covered: Covered) -> None:
    """Connections that are open go on; what can not be used is told, and the one before stays."""
    before = shown(covered)
    with covered.dot() as line, covered.doh() as web:
        covered.show()

        def is_new() -> bool:
            return all(shown(covered) != before for _ in range(8))

        wait_until("the new certificate is shown", is_new)
        after = shown(covered)
        assert covered.quic_serial() == after
        assert line.serial() == before
        assert known(line.ask)
        assert known(web.ask)

        good = covered.certificate.read_text()
        covered.certificate.write_text("broken")
        wait_until("it is told", lambda: "the certificate was not renewed" in covered.server.said())
        assert shown(covered) == after
        assert known(line.ask)
        covered.certificate.write_text(good)


# ---- profiles -------------------------------------------------------------------------------------------------------

SERVICE = """\
organisation: Example Agency
identifier: org.example.dns
doh: https://{name}:{doh}/dns-query/{{token}}
dot: "{{token}}.{name}"
addresses: [127.0.0.1]
authorities: [{ca}]
wireguard: {{endpoint: "vpn.example.org:51820", public_key: 4E1zxR6s1v5m1Cr0n0h3U4q9l0bV0aZ2m5s7t9x1y3c=}}
"""


@pytest.fixture(scope="module")
def profiles(covered: Covered, tokens: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is made for the devices of an import: the register gives out their tokens as an inventory."""
    folder = tmp_path_factory.mktemp("profiles")
    (folder / "assets.csv").write_text("Name,Serial\nphone-7,S7\nphone-8,S8\n")
    words = ["--group", "path", "--name-column", "Name", "--serial-column", "Serial", "--out", str(folder / "made.csv")]
    covered.manage("import", str(folder / "assets.csv"), *words)
    with (folder / "made.csv").open(newline="") as made, (folder / "devices.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        for number, row in enumerate(csv.reader(made)):
            writer.writerow([*row, f"{OFFICE}/32" if number == 1 else "127.0.0.41/32" if number else "addresses"])
            token = row[1]
    doh = covered.ports[Transport.DOH]
    text = SERVICE.format(name=NAME, doh=doh, ca=covered.ca_file)
    (folder / "service.yaml").write_text(text)
    for platform in ("apple", "android", "windows", "linux", "wireguard"):
        subprocess.run(
            [sys.executable, "-m", "resolver", "profile", platform, "--service", str(folder / "service.yaml"),
             "--inventory", str(folder / "devices.csv"), "--out", str(folder / "out")],
            cwd=ROOT, check=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    settled(covered, token)
    return folder / "out"


def address_in(profiles: Path, platform: str, device: str) -> str:
    """Where a profile leads its device: a URL of DoH, a name of DoT, or for WireGuard the address in the tunnel."""
    folder = profiles / device / platform
    if platform == "apple":
        content = plistlib.loads((folder / "interdict-dns.mobileconfig").read_bytes())["PayloadContent"]
        (settings,) = [payload["DNSSettings"] for payload in content if "DNSSettings" in payload]
        return str(settings["ServerURL"])
    if platform == "android":
        policy = json.loads((folder / "interdict-android-policy.json").read_text())
        return str(policy["deviceConnectivityManagement"]["privateDnsSettings"]["privateDnsHost"])
    file, pattern = {
        "windows": ("interdict-doh.ps1", r"\$template = '(.+)'"),
        "linux": ("90-interdict-resolved.conf", r"^DNS=127\.0\.0\.1#(.+)$"),
        "wireguard": ("interdict.conf", r"^Address = (.+)/32$"),
    }[platform]
    (found,) = re.findall(pattern, (folder / file).read_text(), re.MULTILINE)
    return str(found)


@pytest.mark.parametrize("platform", ["apple", "windows"])
@pytest.mark.parametrize("device", ["phone-7", "phone-8"])
def test_a_profile_of_doh_leads_to_the_devices_policy(
    covered: Covered, profiles: Path, platform: str, device: str
) -> None:
    """From the export of device management to an answer: nothing is written by hand in between."""
    url = urlsplit(address_in(profiles, platform, device))
    assert (url.scheme, url.port) == ("https", covered.ports[Transport.DOH])

    with covered.doh(str(url.hostname)) as web:
        asking = partial(web.ask, path=url.path)
        assert bound(asking) == "path"
        assert whoami(asking)["device"] == device


@pytest.mark.parametrize("platform", ["android", "linux"])
@pytest.mark.parametrize("device", ["phone-7", "phone-8"])
def test_a_profile_of_dot_leads_to_the_devices_policy(
    covered: Covered, profiles: Path, platform: str, device: str
) -> None:
    """By the server name in it, which the certificate has too."""
    with covered.dot(address_in(profiles, platform, device)) as line:
        assert bound(line.ask) == "path"
        assert whoami(line.ask)["device"] == device


def test_a_tunnels_address_leads_to_its_networks_policy(covered: Covered, profiles: Path) -> None:
    """With WireGuard the address is the proof, and the group that of its network."""
    source = address_in(profiles, "wireguard", "phone-7")

    with covered.dot(source=source) as line:
        assert bound(line.ask) == "office"
