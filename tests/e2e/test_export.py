"""Exports in the resolvers and the firewall they are for: resolvers are asked by `interdict verify-export` about the
whole catalogue, the firewall is sent packets.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
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
CATALOGUE = Path(__file__).parents[2] / "blocklists" / "apps"
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

    def verify(config: Path, rtype: str, *words: str, wait: str = "1") -> tuple[str, int, dict[str, Any]]:
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
            "--format", form, "--type", rtype, "--json", "--time-out", wait, *words,
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


def write_documents(folder: Path, kind: str, *documents: dict[str, Any]) -> None:
    (folder / kind).mkdir(parents=True, exist_ok=True)
    for document in documents:
        (folder / kind / f"{document['id']}.yaml").write_text(json.dumps(document))


def own_rule(id_: str, verdict: str, **rest: Any) -> dict[str, Any]:
    """A rule of the operator's, as a document."""
    constant = {"owner": "service desk", "reason": "a test", "until": "2100-01-01T00:00:00Z"}
    return {"id": id_, "verdict": verdict, **constant, **rest}


@pytest.fixture
def with_own_rules(tmp_path: Path) -> Path:
    """A configuration that forbids the whole catalogue, with allows of the operator's within it, blocks beside it, and
    a group that is exempt from one app."""
    documents = tmp_path / "own"
    now = datetime.now(UTC).replace(microsecond=0)
    _, everything = order("everything", "unused.example")
    everything["apps"] = sorted(path.stem for path in CATALOGUE.glob("*.yaml"))
    everything |= {"min_confidence": "low", "include_optional": True}
    write_documents(documents, "orders", everything)
    write_documents(
        documents, "exemptions",
        {
            "id": "study", "groups": ["lab"], "apps": ["kaspersky"], "reason": "security-research", "grantor": "CIO",
            "granted": (now - timedelta(days=1)).isoformat(), "expires": (now + timedelta(days=30)).isoformat(),
        },
    )  # fmt: skip
    write_documents(
        documents, "rules",
        own_rule("cdn", "allow", names=["cdn.tiktok.com"]),
        own_rule("one", "allow", names=["one.wechat.com"], match="exact"),
        own_rule("games", "block", names=["games.example"], action="sinkhole"),
        own_rule("office", "block", names=["office.example"], groups=["office"]),
    )  # fmt: skip
    groups = [{"name": "lab", "networks": ["0.0.0.0/0", "::/0"]}, {"name": "office", "networks": ["192.0.2.0/24"]}]
    policy = {
        "documents": ["shipped", str(documents)],
        "orders": [{"order": "everything", "groups": ["lab", "office"]}],
        "sinkhole": {"ipv4": ["192.0.2.80"]},
    }
    path = tmp_path / "interdict.yaml"
    path.write_text(json.dumps({"state_dir": str(tmp_path / "state"), "groups": groups, "policy": policy}))
    return path


@pytest.fixture
def with_rules_on_addresses(tmp_path: Path) -> Path:
    """A configuration that withholds, for want of answers, all that leads where the upstream's names lead."""
    documents = tmp_path / "own"
    networks = ["192.0.2.0/29", "2001:db8::/64"]
    write_documents(documents, "rules", own_rule("net", "block", addresses=networks, action="nodata"))
    write_documents(documents, "rules", own_rule("games", "block", names=["games.example"]))
    for kind in ("apps", "orders"):
        (documents / kind).mkdir(parents=True)
    path = tmp_path / "interdict.yaml"
    path.write_text(json.dumps({"policy": {"documents": [str(documents)], "orders": []}}))
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


def test_another_resolver_keeps_to_own_rules_and_exemptions_over_the_whole_catalogue(
    verified: Verified, with_own_rules: Path
) -> None:
    """Every app; what is allowed or exempt is answered, save one name that two formats can not let through alone."""
    form, code, said = verified(with_own_rules, "A", wait="10")

    assert said["asked"] > 1500
    assert (code, said["unannounced"], said["counts"]["undecided"]) == (0, 0, 0), said["findings"]
    shut = {f["name"] for f in said["findings"] if f["kind"] == "withheld though allowed"}
    assert shut == ({"one.wechat.com"} if form in ("unbound", "dnsmasq") else set())
    # A name alone: in Unbound NODATA in place of NXDOMAIN, in dnsmasq nothing at all.
    others = {f["got"] for f in said["findings"] if f["name"] not in shut}
    assert others == {"unbound": {"NODATA"}, "dnsmasq": {"192.0.2.1"}}.get(form, set())


@pytest.mark.parametrize("rtype", ["A", "AAAA"])
def test_rules_on_the_addresses_of_answers_act_in_response_policy_zones(
    verified: Verified, with_rules_on_addresses: Path, rtype: str
) -> None:
    """The other formats do not know them, and the names are not judged."""
    form, code, said = verified(with_rules_on_addresses, rtype, "--without-ways-round")

    assert (code, said["counts"]["same"]) == (0, 2), said["findings"]
    answered = {"A": "192.0.2.1", "AAAA": "2001:db8::1"}[rtype]
    assert {(f["kind"], f["got"]) for f in said["findings"]} == {("undecided", "NODATA" if form == "rpz" else answered)}


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


def test_this_resolver_keeps_to_own_rules_and_exemptions_over_the_whole_catalogue(
    make_server: Callable[..., Server], upstream: tuple[str, int], with_own_rules: Path
) -> None:
    """Asked as the others are: so what they answer is what is answered here."""
    config = json.loads(with_own_rules.read_text())
    server = make_server(upstream, policy=config["policy"], groups=config["groups"])
    server.write()
    server.start()

    code, text, errors = run(
        server.config_path, "verify-export", "--server", f"127.0.0.1:{server.port}",
        "--reference", f"127.0.0.1:{upstream[1]}", "--time-out", "10",
    )  # fmt: skip

    assert code == 0, errors or text
    assert re.search(r": (\d+) names asked, \1 as policy has it, 0 differ$", text)


# ---- the firewall ---------------------------------------------------------------------------------------------------

ANSWERERS = """
import selectors, socket, sys
waiting = selectors.DefaultSelector()
for address in sys.argv[1:]:
    for port in (53, 443, 853):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            sock = socket.socket(type=kind)
            sock.bind((address, port))
            if kind is socket.SOCK_STREAM:
                sock.listen()
            waiting.register(sock, selectors.EVENT_READ, address.encode())
print("ready", flush=True)
while True:
    for key, _ in waiting.select():
        if key.fileobj.type == socket.SOCK_DGRAM:
            key.fileobj.sendto(key.data, key.fileobj.recvfrom(512)[1])
        else:
            connection = key.fileobj.accept()[0]
            connection.sendall(key.data)
            connection.close()
"""
CALLERS = """
import json, socket, sys
def call(source, address, port, kind):
    with socket.socket(type=getattr(socket, kind)) as sock:
        sock.settimeout(5)
        sock.bind((source, 0))
        try:
            sock.connect((address, port))
            if kind == "SOCK_DGRAM":
                sock.send(b"?")
            return sock.recv(512).decode()
        except ConnectionRefusedError:
            return "refused"
print(json.dumps([call(*wanted) for wanted in json.loads(sys.argv[1])]))
"""
LISTED, OTHER, RESOLVER = "203.0.113.8", "203.0.113.9", "203.0.113.53"
IN_GROUP, ELSEWHERE = "10.1.0.2", "10.2.0.2"


@pytest.fixture
def routed() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """`routed("router", *command)` runs a command on one of three machines: client, router, server."""
    ip = require_peer("ip")
    spaces = {role: f"interdict-{os.getpid()}-{role}" for role in ("client", "router", "server")}

    def on(role: str, *command: str) -> subprocess.CompletedProcess[str]:
        said = subprocess.run(
            [ip, "netns", "exec", spaces[role], *command], capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        assert said.returncode == 0, (command, said.stderr)
        return said

    made = []
    answerers = None
    try:
        for space in spaces.values():
            said = subprocess.run([ip, "netns", "add", space], capture_output=True, text=True, check=False)
            if said.returncode != 0:
                pytest.skip(f"no network namespace may be made here: {said.stderr.strip()}")
            made.append(space)
        for role, network in (("client", "10.1.0"), ("server", "198.51.100")):
            on(role, ip, "link", "add", "veth0", "type", "veth", "peer", "name", role, "netns", spaces["router"])
            on(role, ip, "link", "set", "lo", "up")
            on(role, ip, "address", "add", f"{network}.2/24", "dev", "veth0")
            on(role, ip, "link", "set", "veth0", "up")
            on("router", ip, "address", "add", f"{network}.1/24", "dev", role)
            on("router", ip, "link", "set", role, "up")
            on(role, ip, "route", "add", "default", "via", f"{network}.1")
        on("client", ip, "address", "add", f"{ELSEWHERE}/32", "dev", "veth0")
        on("router", ip, "route", "add", f"{ELSEWHERE}/32", "dev", "client")
        on("router", ip, "route", "add", "203.0.113.0/24", "via", "198.51.100.2")
        # Unlimited, or the kernel leaves some of the rejections untold.
        for setting, value in (("ip_forward", 1), ("icmp_ratelimit", 0)):
            on("router", "sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{setting}")
        for address in (LISTED, OTHER, RESOLVER):
            on("server", ip, "address", "add", f"{address}/32", "dev", "lo")
        answerers = subprocess.Popen(
            [ip, "netns", "exec", spaces["server"], sys.executable, "-c", ANSWERERS, LISTED, OTHER, RESOLVER],
            stdout=subprocess.PIPE,
        )
        assert answerers.stdout is not None
        assert answerers.stdout.readline() == b"ready\n"
        yield on
    finally:
        if answerers is not None:
            answerers.kill()
            answerers.communicate()
        for space in made:
            subprocess.run([ip, "netns", "delete", space], check=True)


def test_the_firewall_closes_what_is_listed_and_nothing_else(
    routed: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Loaded on a router: rejected, passed on or redirected, packet by packet; a second load replaces the first."""
    nft = require_peer("nft")
    way = {
        "id": "own-resolvers", "title": "Resolvers", "effect": "Apps ask them.", "version": "2030-01-01",
        "action": "nxdomain", "addresses": [LISTED],
    }  # fmt: skip
    write_documents(tmp_path / "own", "ways-round", way)
    for kind in ("apps", "orders"):
        write_documents(tmp_path / "own", kind)
    config = tmp_path / "interdict.yaml"
    groups = [{"name": "phones", "networks": ["10.1.0.0/16"]}]
    policy = {"documents": [str(tmp_path / "own")], "orders": []}
    config.write_text(json.dumps({"groups": groups, "policy": policy}))

    def load(*words: str) -> None:
        code, ruleset, errors = run(config, "export", "nftables", "--list", "own-resolvers", *words)
        assert code == 0, errors
        (tmp_path / "interdict.nft").write_text(ruleset)
        routed("router", nft, "-f", str(tmp_path / "interdict.nft"))

    def calls(*wanted: tuple[str, str, int]) -> list[str]:
        """What UDP and TCP are answered alike."""
        every = [(*one, kind) for one in wanted for kind in ("SOCK_DGRAM", "SOCK_STREAM")]
        said = json.loads(routed("client", sys.executable, "-c", CALLERS, json.dumps(every)).stdout)
        assert said[::2] == said[1::2]
        return said[::2]  # type: ignore[no-any-return]

    to_listed = [(IN_GROUP, LISTED, port) for port in (53, 853, 443)]
    to_other = [(IN_GROUP, OTHER, port) for port in (53, 853, 443)]
    assert calls(*to_listed, *to_other) == [LISTED] * 3 + [OTHER] * 3

    load()
    assert calls(*to_listed, *to_other) == ["refused", "refused", LISTED] + [OTHER] * 3
    assert calls((ELSEWHERE, LISTED, 53)) == [LISTED]

    load("--https", "--resolver", RESOLVER)
    assert calls(*to_listed, *to_other) == ["refused"] * 3 + ["refused", "refused", OTHER]
    assert calls((IN_GROUP, RESOLVER, 53), (IN_GROUP, RESOLVER, 853), (ELSEWHERE, OTHER, 53)) == [
        RESOLVER, RESOLVER, OTHER
    ]  # fmt: skip

    load("--resolver", RESOLVER, "--redirect")
    assert calls(*to_listed, *to_other) == [RESOLVER, "refused", LISTED, RESOLVER, "refused", OTHER]
    assert calls((ELSEWHERE, LISTED, 53)) == [LISTED]
