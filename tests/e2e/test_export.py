"""Exports in the resolvers they are for, each asked by `interdict verify-export` about the whole catalogue."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from resolver.cli.main import interdict
from tests.support.house import ask
from tests.support.peers import require_peer
from tests.support.server import PATIENCE, Server, ask_udp, free_port, order

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CANADIAN_ORDERS = ["ca-tbs-2023-02-28", "ca-tbs-2023-10-30", "ca-tbs-2025-02-06"]
ACTIONS = ["nxdomain", "nodata", "sinkhole", "refused", "drop"]
Write = Callable[[str], str]
"""Exports in a format, and returns the file's text."""


def unbound(folder: Path, port: int, upstream: int, write: Write) -> list[str]:
    (folder / "interdict.conf").write_text(write("unbound"))
    return _unbound(folder, port, upstream, "iterator", f'include: "{folder}/interdict.conf"')


def unbound_with_rpz(folder: Path, port: int, upstream: int, write: Write) -> list[str]:
    (folder / "interdict.rpz").write_text(write("rpz"))
    loads = f'rpz:\n    name: interdict.rpz\n    zonefile: "{folder}/interdict.rpz"'
    return _unbound(folder, port, upstream, "respip iterator", loads)


def _unbound(folder: Path, port: int, upstream: int, modules: str, loads: str) -> list[str]:
    (folder / "unbound.conf").write_text(f"""\
server:
    interface: 127.0.0.1
    port: {port}
    username: ""
    chroot: ""
    directory: "{folder}"
    pidfile: "{folder}/pid"
    use-syslog: no
    module-config: "{modules}"
    do-not-query-localhost: no
    prefer-ip6: no
{loads}
forward-zone:
    name: "."
    forward-addr: 127.0.0.1@{upstream}
remote-control:
    control-enable: no
""")
    return [require_peer("unbound"), "-d", "-c", str(folder / "unbound.conf")]


def bind(folder: Path, port: int, upstream: int, write: Write) -> list[str]:
    (folder / "interdict.rpz").write_text(write("rpz"))
    (folder / "interdict.conf").write_text(write("bind"))
    response_policy = next(
        line.removeprefix("//").strip()
        for line in write("bind").splitlines()
        if line.removeprefix("//").strip().startswith("response-policy")
    )
    (folder / "named.conf").write_text(f"""\
options {{
    directory "{folder}";
    pid-file none;
    session-keyfile none;
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    recursion yes;
    dnssec-validation no;
    empty-zones-enable no;
    forward only;
    forwarders {{ 127.0.0.1 port {upstream}; }};
    {response_policy}
}};
controls {{ }};
include "{folder}/interdict.conf";
""")
    return [require_peer("named"), "-g", "-n", "1", "-c", str(folder / "named.conf")]


def dnsmasq(folder: Path, port: int, upstream: int, write: Write) -> list[str]:
    (folder / "interdict.conf").write_text(write("dnsmasq"))
    (folder / "dnsmasq.conf").write_text(f"""\
port={port}
listen-address=127.0.0.1
bind-interfaces
no-resolv
no-hosts
user=
group=
server=127.0.0.1#{upstream}
conf-file={folder}/interdict.conf
""")
    return [require_peer("dnsmasq"), "--keep-in-foreground", "-C", str(folder / "dnsmasq.conf"), "--log-facility=-"]


def knot(folder: Path, port: int, upstream: int, write: Write) -> list[str]:
    (folder / "interdict.lua").write_text(write("knot"))
    (folder / "kresd.conf").write_text(f"""\
net.listen('127.0.0.1', {port}, {{ kind = 'dns' }})
cache.size = 10 * MB
trust_anchors.remove('.')
dofile('{folder}/interdict.lua')
policy.add(policy.all(policy.STUB('127.0.0.1@{upstream}')))
""")
    return [require_peer("kresd"), "-n", "-c", str(folder / "kresd.conf"), str(folder)]


PEERS = {
    "bind": ("rpz", bind),
    "unbound with rpz": ("rpz", unbound_with_rpz),
    "unbound": ("unbound", unbound),
    "dnsmasq": ("dnsmasq", dnsmasq),
    "knot": ("knot", knot),
}


def run(config: Path, *words: str) -> tuple[int, str, str]:
    """Run the command; exit code and what it said."""
    said = CliRunner().invoke(interdict, [*words, "--config", str(config)], catch_exceptions=False)
    return said.exit_code, said.stdout, said.stderr


@pytest.fixture(params=PEERS)
def verified(request: pytest.FixtureRequest, tmp_path: Path, upstream: tuple[str, int]) -> Iterator[Any]:
    """`verified(config, "A")` is a peer's format and what verify-export says of it when it acts on the export."""
    running = []
    form, prepare = PEERS[request.param]

    def verify(config: Path, rtype: str, *words: str) -> tuple[str, int, dict[str, Any]]:
        folder = tmp_path / "peer"
        folder.mkdir()
        port = free_port()

        def write(form: str) -> str:
            code, text, _ = run(config, "export", form, *words)
            assert code == 0
            return text

        command = prepare(folder, port, upstream[1], write)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        running.append(process)
        end = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            try:
                if ask_udp(port, ask("www.example.org"), wait=0.2)[3] & 15 == 0:
                    break
            except OSError:
                time.sleep(0.05)
        code, text, errors = run(
            config, "verify-export", "--server", f"127.0.0.1:{port}", "--reference", f"127.0.0.1:{upstream[1]}",
            "--format", form, "--type", rtype, "--json", "--time-out", "1", *words,
        )  # fmt: skip
        assert text, errors
        return form, code, json.loads(text)

    yield verify
    for process in running:
        process.terminate()
        process.wait(20)


@pytest.fixture
def defaults(tmp_path: Path) -> Path:
    """A configuration that says nothing."""
    path = tmp_path / "interdict.yaml"
    path.write_text(json.dumps({"state_dir": str(tmp_path / "state")}))
    return path


@pytest.fixture
def of_all_kinds(tmp_path: Path) -> Path:
    """A configuration with each action, on a suffix, on a name alone, and on names within and below one another."""
    documents = tmp_path / "policy"
    applied = []
    for kind in ("apps", "orders"):
        (documents / kind).mkdir(parents=True)
    for action in ACTIONS:
        nested = [f"{action}.deep.{other}.example" for other in ACTIONS]
        app, document = order(f"ban-{action}", f"{action}.example", f"only-{action}.example", *nested)
        app["domains"][1]["match"] = "exact"
        for folder, entry in (("apps", app), ("orders", document)):
            (documents / folder / f"{entry['id']}.yaml").write_text(json.dumps(entry))
        applied.append({"order": document["id"], "groups": ["everyone"], "action": action})
    path = tmp_path / "interdict.yaml"
    sinkhole = {"ipv4": ["192.0.2.80", "192.0.2.81"], "ipv6": ["2001:db8::80"]}
    path.write_text(json.dumps({"policy": {"documents": [str(documents)], "orders": applied, "sinkhole": sinkhole}}))
    return path


Verified = Callable[..., tuple[str, int, dict[str, Any]]]


def test_another_resolver_withholds_the_catalogue_as_this_one_does(verified: Verified, defaults: Path) -> None:
    """Every name of the Canadian orders, names below, parents and look-alikes; save what the export announced."""
    form, code, said = verified(defaults, "A", *(word for id_ in CANADIAN_ORDERS for word in ("--order", id_)))

    assert said["asked"] > 400
    assert (code, said["unannounced"], said["counts"]["undecided"]) == (0, 0, 0), said["findings"]
    # A name alone: in Unbound NODATA in place of NXDOMAIN, in dnsmasq nothing at all.
    expected = {"unbound": {"NODATA"}, "dnsmasq": {"192.0.2.1"}}.get(form, set())
    assert {finding["got"] for finding in said["findings"]} == expected
    assert all(finding["name"] == finding["listed"] for finding in said["findings"])


@pytest.mark.parametrize("rtype", ["A", "AAAA", "HTTPS"])
def test_another_resolver_does_to_each_name_what_the_export_says(
    verified: Verified, of_all_kinds: Path, rtype: str
) -> None:
    """Each action, on suffixes and names alone and nested; what the format lacks is announced, and withheld all the
    same wherever a suffix is."""
    form, code, said = verified(of_all_kinds, rtype)

    assert (code, said["unannounced"], said["counts"]["undecided"]) == (0, 0, 0), said["findings"]
    assert {f["kind"] for f in said["findings"]} <= {"answered otherwise", "let through"}
    assert {f["name"] for f in said["findings"] if f["kind"] == "let through"} == (
        {f"only-{action}.example" for action in ACTIONS} if form == "dnsmasq" else set()
    )
    assert (form == "knot") == (not said["findings"])


@pytest.mark.parametrize("rtype", ["A", "AAAA", "HTTPS"])
def test_this_resolver_does_what_its_policy_says(
    make_server: Callable[..., Server], upstream: tuple[str, int], of_all_kinds: Path, rtype: str
) -> None:
    """Asked in the same way, nothing to announce."""
    server = make_server(upstream, policy=json.loads(of_all_kinds.read_text())["policy"])
    server.write()
    server.start()

    code, text, errors = run(
        server.config_path, "verify-export", "--server", f"127.0.0.1:{server.port}",
        "--reference", f"127.0.0.1:{upstream[1]}", "--type", rtype, "--time-out", "1",
    )  # fmt: skip

    assert code == 0, errors or text
    assert re.search(r": (\d+) names asked, \1 as policy has it, 0 differ$", text)
