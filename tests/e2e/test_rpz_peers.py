"""The same policy zones in BIND 9 and in the running product: what clients get is the same, but for what is named here.

Upstream is Knot DNS with fixed data, and a BIND 9 without any policy where somebody has to follow delegations. RCODE,
ANSWER and TC are compared; where the answer is a rewritten one, the zone's SOA in the additional section too. TTLs are
not: BIND 9 caps those of local data at five seconds by default.
"""

import contextlib
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from tests.support.peers import require_peer
from tests.support.server import Server, free_port, wait_until

pytestmark = pytest.mark.e2e

LABEL = "x" * 60
LONG = f"{LABEL}.{LABEL}.{LABEL}.long.com"
ROOT = f"""\
$ORIGIN .
$TTL 300
@ SOA a.servers.net. host.servers.net. 1 3600 900 86400 60
@ NS a.servers.net.
a.servers.net. A 127.77.0.1
com. TXT "top"
*.com. A 192.0.2.200
*.com. AAAA 2001:db8::200
*.com. TXT "real"
*.com. MX 10 mx.plain.net.
{LONG}. A 192.0.2.201
plain.net. A 192.0.2.9
plain.net. AAAA 2001:db8::9
plain.net. TXT "plain"
www.plain.net. CNAME plain.net.
c1.net. CNAME c2.net.
c2.net. CNAME c3.net.
c3.net. A 192.0.2.3
n1.net. CNAME n2.net.
n2.net. CNAME n3.net.
n3.net. A 192.0.2.3
l1.net. CNAME l2.net.
l2.net. A 192.0.2.3
g1.net. CNAME g2.net.
g2.net. A 192.0.2.3
t1.net. CNAME t2.net.
t2.net. A 192.0.2.3
o1.net. CNAME o2.net.
o2.net. A 192.0.2.3
p1.net. CNAME p2.net.
p2.net. CNAME p3.net.
p3.net. A 198.51.100.3
late1.net. CNAME late2.net.
late2.net. CNAME late3.net.
late3.net. A 192.0.2.3
alias-ip.net. CNAME ip-nx.net.
ip-nx.net. A 198.51.100.10
ip-nx.net. AAAA 2001:db8:bad::10
ip-nx.net. TXT "no address"
ip-hole.net. A 198.51.100.99
ip-two.net. A 198.51.100.10
ip-two.net. A 198.51.100.99
ip-nodata.net. A 203.0.113.10
ip-data.net. A 203.0.113.20
ip-data.net. AAAA 2001:db8:bad:1::20
ip-cname.net. A 203.0.113.30
ip-star.net. A 203.0.113.31
ip-order.net. A 203.0.113.40
ip-order.net. A 203.0.113.41
ip-drop.net. A 203.0.113.50
ip-tcp.net. A 203.0.113.60
ip-zones.net. A 203.0.113.70
ip-name.net. A 198.51.100.20
ip-later-name.net. A 203.0.113.80
ip-six.net. AAAA 2001:db8:bad::1
d.net. DNAME e.net.
x.e.net. A 192.0.2.66
garden.org. A 192.0.2.80
garden.org. AAAA 2001:db8::80
garden.org. TXT "garden"
*.garden.org. A 192.0.2.81
alias.org. CNAME garden.org.
"""

# Delegated, for who follows delegations.
DELEGATED = """\
zoned.net. NS ns1.zoned.net.
zoned.net. NS ns2.hoster.org.
ns1.zoned.net. A 127.77.0.2
ns2.hoster.org. A 127.77.0.2
ipzone.net. NS ns.ipzone.net.
ns.ipzone.net. A 127.77.0.3
several.net. NS ns.alpha.org.
several.net. NS ns.omega.org.
unequal.net. NS aa.bb.alpha.org.
unequal.net. NS zz.org.
aa.bb.alpha.org. A 127.77.0.5
zz.org. A 127.77.0.5
ns.alpha.org. A 127.77.0.4
ns.omega.org. A 127.77.0.4
into.org. CNAME www.zoned.net.
into-ip.org. CNAME www.ipzone.net.
"""
ZONED = """\
$ORIGIN zoned.net.
$TTL 300
@ SOA ns1 host 1 3600 900 86400 60
@ NS ns1
@ NS ns2.hoster.org.
@ A 192.0.2.30
ns1 A 127.77.0.2
www A 192.0.2.31
www TXT "real"
spared A 192.0.2.32
spared-ip A 198.51.100.99
bad-ip A 203.0.113.10
alias CNAME www
deep.er.www A 192.0.2.33
"""
IPZONE = """\
$ORIGIN ipzone.net.
$TTL 300
@ SOA ns host 1 3600 900 86400 60
@ NS ns
@ A 192.0.2.40
ns A 127.77.0.3
www A 192.0.2.41
www TXT "real"
named A 192.0.2.42
"""
SEVERAL = """\
$ORIGIN several.net.
$TTL 300
@ SOA ns.alpha.org. host 1 3600 900 86400 60
@ NS ns.alpha.org.
@ NS ns.omega.org.
www A 192.0.2.43
"""
UNEQUAL = """\
$ORIGIN unequal.net.
$TTL 300
@ SOA zz.org. host 1 3600 900 86400 60
@ NS zz.org.
@ NS aa.bb.alpha.org.
www A 192.0.2.44
"""

HEAD = "$TTL 77\n@ SOA ns.vendor.org. host.vendor.org. 42 3600 900 86400 33\n@ NS ns.vendor.org.\n"
POLICY = {
    "one.rpz": f"""\
nx.com CNAME .
*.wild.com CNAME .
nodata.com CNAME *.
*.wilder.com CNAME *.
drop.com CNAME rpz-drop.
tcp.com CNAME rpz-tcp-only.
pass.com CNAME rpz-passthru.
*.half.com CNAME .
ok.half.com CNAME rpz-passthru.
exact.over.com CNAME *.
*.over.com CNAME .
data.com A 192.0.2.11
data.com A 192.0.2.12
data.com AAAA 2001:db8::11
data.com TXT "policy"
*.data.com A 192.0.2.13
cname.com CNAME garden.org.
chain.com CNAME alias.org.
nowhere.com CNAME nothing.org.
*.star.com CNAME *.garden.org.
star.com CNAME *.garden.org.
{LONG} CNAME *.{LABEL}.garden.org.
self.com CNAME self.com.
*.own.com CNAME x.own.com.
covered.com CNAME nx.com.
*.enc.com CNAME .
a.enc.com CNAME rpz-passthru.
*.ent.com CNAME .
b.a.ent.com CNAME *.
*.ent2.com CNAME .
*.a.ent2.com CNAME *.
c2.net CNAME .
n3.net CNAME *.
l2.net A 192.0.2.14
g2.net CNAME garden.org.
t2.net CNAME rpz-tcp-only.
o2.net CNAME rpz-drop.
p2.net CNAME rpz-passthru.
p3.net CNAME .
late3.net CNAME rpz-passthru.
x.e.net CNAME .
first.com A 192.0.2.15
32.3.0.0.127.rpz-client-ip CNAME .
32.4.0.0.127.rpz-client-ip CNAME rpz-passthru.
24.0.5.0.127.rpz-client-ip CNAME *.
32.9.5.0.127.rpz-client-ip CNAME rpz-passthru.
32.6.0.0.127.rpz-client-ip A 192.0.2.16
32.7.0.0.127.rpz-client-ip CNAME rpz-tcp-only.
32.8.0.0.127.rpz-client-ip CNAME rpz-drop.
""",
    "two.rpz": """\
first.com CNAME .
pass.com CNAME .
late2.net CNAME .
later.com CNAME *.
32.10.0.0.127.rpz-client-ip CNAME *.
""",
    "three.rpz": """\
24.0.100.51.198.rpz-ip CNAME .
32.99.100.51.198.rpz-ip CNAME rpz-passthru.
ip-name.net CNAME *.
32.10.113.0.203.rpz-ip CNAME *.
32.20.113.0.203.rpz-ip A 192.0.2.17
48.zz.1.bad.db8.2001.rpz-ip A 192.0.2.17
32.30.113.0.203.rpz-ip CNAME garden.org.
32.31.113.0.203.rpz-ip CNAME *.garden.org.
32.40.113.0.203.rpz-ip A 192.0.2.18
32.41.113.0.203.rpz-ip A 192.0.2.19
32.50.113.0.203.rpz-ip CNAME rpz-drop.
32.60.113.0.203.rpz-ip CNAME rpz-tcp-only.
24.0.113.0.203.rpz-ip CNAME .
128.1.zz.bad.db8.2001.rpz-ip CNAME .
32.80.113.0.203.rpz-ip CNAME rpz-passthru.
""".replace("48.zz.1.bad", "64.zz.1.bad"),
    "four.rpz": """\
32.70.113.0.203.rpz-ip A 192.0.2.20
ip-later-name.net CNAME .
after.com CNAME .
""",
    "off.rpz": "off.com CNAME .\n32.9.2.0.192.rpz-ip CNAME .\n",
    "over.rpz": "over-a.com CNAME .\nover-b.com A 192.0.2.21\n",
    "last.rpz": "off.com A 192.0.2.22\n",
}
BIND_OPTIONS = {"off.rpz": "policy disabled", "over.rpz": "policy cname garden.org"}
OUR_OPTIONS = {"off.rpz": {"mode": "observe"}, "over.rpz": {"cname": "garden.org"}}

NS_POLICY = {
    "names.rpz": """\
ns1.zoned.net.rpz-nsdname CNAME .
spared.zoned.net CNAME rpz-passthru.
32.99.100.51.198.rpz-ip CNAME rpz-passthru.
32.10.113.0.203.rpz-ip CNAME *.
named.ipzone.net A 192.0.2.50
32.3.0.77.127.rpz-nsip A 192.0.2.51
ns.alpha.org.rpz-nsdname A 192.0.2.52
ns.omega.org.rpz-nsdname A 192.0.2.53
aa.bb.alpha.org.rpz-nsdname A 192.0.2.54
zz.org.rpz-nsdname A 192.0.2.55
""",
}


@dataclass(frozen=True)
class Case:
    """One question."""

    qname: str
    qtype: str = "A"
    tcp: bool = False
    do: bool = False
    client: str = "127.0.0.1"

    def packet(self, number: int) -> bytes:
        """The query, with an id of its own."""
        return dns.message.make_query(self.qname, self.qtype, use_edns=0, want_dnssec=self.do, id=number).to_wire()


Said = tuple[str, bool, tuple[str, ...], tuple[str, ...]] | None
"""RCODE, TC, ANSWER, names and TTLs of SOAs in ADDITIONAL; None for silence."""


def read(octets: bytes | None) -> Said:
    if octets is None:
        return None
    message = dns.message.from_wire(octets)
    answer = sorted(
        f"{rrset.name.to_text().lower()} {dns.rdatatype.to_text(rrset.rdtype)} {rdata.to_text().lower()}"
        for rrset in message.answer
        for rdata in rrset
    )
    soas = sorted(
        f"{rrset.name.to_text()} {rrset.ttl}" for rrset in message.additional if rrset.rdtype == dns.rdatatype.SOA
    )
    rcode = dns.rcode.to_text(message.rcode())
    return rcode, bool(message.flags & dns.flags.TC), tuple(answer), tuple(soas)


def ask(port: int, cases: list[Case]) -> list[Said]:
    """Ask everything; what has no answer after a second of silence has none."""
    said: list[Said] = [None] * len(cases)
    numbers = {
        client: [n for n, c in enumerate(cases) if c.client == client and not c.tcp] for client in clients(cases)
    }
    for client, wanted in numbers.items():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((client, 0))
            sock.connect(("127.0.0.1", port))
            for start in range(0, len(wanted), 32):
                batch = set(wanted[start : start + 32])
                for number in batch:
                    sock.send(cases[number].packet(number))
                while batch and select.select([sock], [], [], 1.0)[0]:
                    octets = sock.recv(65535)
                    number = int.from_bytes(octets[:2], "big")
                    said[number] = read(octets)
                    batch.discard(number)
    for number, case in enumerate(cases):
        if case.tcp:
            with contextlib.suppress(OSError, EOFError, dns.exception.Timeout):
                query = dns.message.from_wire(case.packet(number))
                reply = dns.query.tcp(query, "127.0.0.1", 1.0, port, source=case.client)
                said[number] = read(reply.to_wire())
    return said


def clients(cases: list[Case]) -> list[str]:
    return sorted({case.client for case in cases})


def compare(bind: int, ours: int, cases: list[Case], deviates: Callable[[Case], str]) -> None:
    """Ask both, twice, so that the second time answers come from caches."""
    wrong = []
    for turn in ("first", "second"):
        for case, theirs, own in zip(cases, ask(bind, cases), ask(ours, cases), strict=True):
            why = deviates(case)
            if (theirs == own) is bool(why):
                wrong.append(f"{turn} {case} {f'(deviates: {why})' if why else ''}\n  BIND {theirs}\n  ours {own}")
    assert not wrong, f"{len(wrong)} of {2 * len(cases)}:\n" + "\n".join(wrong)


# ---- servers --------------------------------------------------------------------------------------------------------


class Processes:
    """Peers that are gone when their test is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def knot(self, address: str, port: int, zone: str, text: str) -> None:
        """An authoritative server for one zone."""
        folder = self._new("knot")
        (folder / "zone").write_text(text)
        (folder / "knot.conf").write_text(f"""\
server:
    rundir: "{folder}"
    listen: {address}@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "{folder}"
zone:
  - domain: {zone}
    storage: "{folder}"
    file: zone
    zonefile-sync: -1
    journal-content: none
""")
        self._start([require_peer("knotd"), "-c", str(folder / "knot.conf")], folder, address, port)

    def bind(self, port: int, options: str, zones: dict[str, str] | None = None) -> None:
        """A BIND 9, with policy zones in their order."""
        folder = self._new("bind")
        configured = ""
        for name, text in (zones or {}).items():
            (folder / name).write_text(HEAD + text)
            configured += f'zone "{name}" {{ type primary; file "{name}"; }};\n'
        policies = " ".join(f'zone "{name}" {BIND_OPTIONS.get(name, "")};' for name in zones or {})
        policy = f"response-policy {{ {policies} }};" if zones else ""
        (folder / "root.hints").write_text(". 300 NS a.servers.net.\na.servers.net. 300 A 127.77.0.1\n")
        if "forward only" not in options:
            configured += f'zone "." {{ type hint; file "{folder}/root.hints"; }};\n'
        (folder / "named.conf").write_text(f"""\
options {{
    directory "{folder}"; pid-file none; session-keyfile none; lock-file none;
    listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    recursion yes; allow-query {{ any; }}; allow-recursion {{ any; }}; dnssec-validation no; empty-zones-enable no;
    qname-minimization off; {options} {policy}
}};
controls {{ }};
{configured}""")
        command = [require_peer("named"), "-g", "-4", "-n", "1", "-c", str(folder / "named.conf")]
        self._start(command, folder, "127.0.0.1", port)

    def end(self) -> None:
        """Stop all."""
        for process in reversed(self._running):
            process.terminate()
        for process in self._running:
            process.wait(20)

    def _new(self, kind: str) -> Path:
        folder = self._folder / f"{kind}-{len(self._running)}"
        folder.mkdir()
        return folder

    def _start(self, command: list[str], folder: Path, address: str, port: int) -> None:
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self._running.append(process)

        def answers() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                reply = dns.query.udp(dns.message.make_query("com.", "TXT"), address, 0.5, port)
            except (OSError, dns.exception.DNSException):
                time.sleep(0.05)
                return False
            return reply.rcode() != dns.rcode.SERVFAIL

        wait_until(f"{command[0]} answers", answers)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Where peers are started."""
    made = Processes(tmp_path_factory.mktemp("peers"))
    try:
        yield made
    finally:
        made.end()


def our_server(folder: Path, upstream: tuple[str, int], zones: dict[str, str]) -> Server:
    """The product, with the same zones from files."""
    configured = []
    for name, text in zones.items():
        (folder / name).write_text(HEAD + text)
        options = OUR_OPTIONS.get(name, {})
        configured.append({"name": name, "file": str(folder / name), "format": "rpz", **options})
    documents = folder / "policy"
    policy = {"documents": [str(documents)], "orders": [], "zones": configured}
    server = Server(folder, [upstream], policy=policy, workers=1, allowed_networks=["127.0.0.0/8", "::1/128"])
    server.write()
    return server


# ---- triggers on names, addresses and clients -----------------------------------------------------------------------

NAMES = [
    "nx.com",
    "a.nx.com",
    "a.wild.com",
    "b.a.wild.com",
    "wild.com",
    "nodata.com",
    "a.wilder.com",
    "tcp.com",
    "pass.com",
    "a.half.com",
    "half.com",
    "ok.half.com",
    "exact.over.com",
    "other.over.com",
    "data.com",
    "a.data.com",
    "cname.com",
    "chain.com",
    "nowhere.com",
    "a.star.com",
    "b.a.star.com",
    "star.com",
    "self.com",
    "x.own.com",
    "y.own.com",
    "covered.com",
    "c1.net",
    "c2.net",
    "n1.net",
    "l1.net",
    "g1.net",
    "t1.net",
    "p1.net",
    "p2.net",
    "p3.net",
    "late1.net",
    "first.com",
    "later.com",
    "after.com",
    "off.com",
    "over-a.com",
    "over-b.com",
    "plain.net",
    "www.plain.net",
    "other.com",
    "ip-nx.net",
    "alias-ip.net",
    "ip-hole.net",
    "ip-two.net",
    "ip-nodata.net",
    "ip-data.net",
    "ip-cname.net",
    "ip-star.net",
    "ip-order.net",
    "ip-tcp.net",
    "ip-zones.net",
    "ip-name.net",
    "ip-later-name.net",
    "ip-six.net",
    "nothing.org",
    "NX.cOm",
]
DROPPED = ["drop.com", "o1.net", "ip-drop.net"]
BY_NAME = ["nx.com", "nodata.com", "data.com", "a.data.com", "cname.com", "tcp.com", "first.com", "over-b.com"]
CASES = [
    *(Case(name, qtype, tcp, do) for name in [*NAMES, LONG] for qtype in ("A", "AAAA", "TXT")
      for tcp, do in ((False, False), (True, False), (False, True))),
    *(Case(name, "CNAME", tcp) for name in NAMES for tcp in (False, True)),
    *(Case(name, qtype, tcp) for name in BY_NAME for qtype in ("ANY", "MX", "HTTPS", "SOA", "NS", "DS", "TYPE65280")
      for tcp in (False, True)),
    *(Case(name, "A", tcp) for name in DROPPED for tcp in (False, True)),
    *(Case(name, qtype, client=f"127.0.{net}.{host}")
      for net, host in ((0, 3), (0, 4), (5, 1), (5, 9), (0, 6), (0, 7), (0, 10))
      for name in ("nx.com", "other.com", "plain.net", "pass.com", "first.com", "c1.net", "ip-nx.net")
      for qtype in ("A", "TXT")),
    Case("other.com", "A", True, client="127.0.0.7"),
    Case("other.com", client="127.0.0.8"),
    Case("x.d.net"),
    *(Case(name) for name in (
        "enc.com", "a.enc.com", "x.enc.com", "b.a.enc.com", "x.b.a.enc.com",
        "a.ent.com", "z.a.ent.com", "b.a.ent.com", "x.b.a.ent.com", "c.ent.com",
        "a.ent2.com", "b.a.ent2.com", "x.b.a.ent2.com", "c.ent2.com",
    )),
]  # fmt: skip


def by_name_deviates(case: Case) -> str:
    """Why the product says something else; empty where it must not."""
    if case.qtype == "CNAME" and case.qname in ("c1.net", "l1.net", "g1.net", "late1.net"):
        return "the verdict is the same whatever QTYPE is asked; BIND 9 does not follow the alias that was asked for"
    if case.qtype == "CNAME" and case.qname == "t1.net" and not case.tcp:
        return "the same"
    if case.qtype == "ANY" and case.qname == "tcp.com" and case.tcp:
        return "ANY is answered with one small record (RFC 8482 §4.2)"
    if case.qtype == "ANY" and case.qname == "over-b.com":
        return "ANY gets the alias alone, as with an alias of the zone's own; BIND 9 follows those of an override"
    if case.qname == "x.d.net":
        return "of a chain to the name that is covered the CNAMEs are shown, which a DNAME's is too, but not the DNAME"
    return ""


def test_zones_are_applied_as_bind_applies_them(processes: Processes, tmp_path: Path) -> None:
    """Every action by every trigger that a forwarder has, over UDP and TCP, with and without DO, fresh and cached."""
    upstream, bind = free_port(), free_port()
    processes.knot("127.0.0.1", upstream, ".", ROOT)
    options = f"forward only; forwarders {{ 127.0.0.1 port {upstream}; }};"
    processes.bind(bind, options, POLICY)
    server = our_server(tmp_path, ("127.0.0.1", upstream), POLICY)
    try:
        compare(bind, server.start().port, CASES, by_name_deviates)
    finally:
        server.end()


# ---- triggers on name servers ---------------------------------------------------------------------------------------

NS_NAMES = [
    "zoned.net",
    "www.zoned.net",
    "alias.zoned.net",
    "nothing.zoned.net",
    "spared.zoned.net",
    "spared-ip.zoned.net",
    "bad-ip.zoned.net",
    "deep.er.www.zoned.net",
    "into.org",
    "ipzone.net",
    "www.ipzone.net",
    "nothing.ipzone.net",
    "named.ipzone.net",
    "into-ip.org",
    "plain.net",
    "other.com",
    "garden.org",
    "www.several.net",
    "www.unequal.net",
]
NS_CASES = [
    Case(name, qtype, tcp) for name in NS_NAMES for qtype in ("A", "AAAA", "TXT", "MX") for tcp in (False, True)
]


def by_server_deviates(case: Case) -> str:
    """As above."""
    if case.qname in ("www.several.net", "www.unequal.net") and case.qtype == "A":
        return (
            "of several servers the longest name decides, then the zone's first; in BIND 9 the last in canonical order"
        )
    return ""


def test_triggers_on_name_servers_act_as_in_a_bind_that_follows_delegations(
    processes: Processes, tmp_path: Path
) -> None:
    """The product only forwards, and looks the name servers up."""
    port, plain, bind = free_port(), free_port(), free_port()
    processes.knot("127.77.0.1", port, ".", ROOT + DELEGATED)
    processes.knot("127.77.0.2", port, "zoned.net", ZONED)
    processes.knot("127.77.0.3", port, "ipzone.net", IPZONE)
    processes.knot("127.77.0.4", port, "several.net", SEVERAL)
    processes.knot("127.77.0.5", port, "unequal.net", UNEQUAL)
    processes.bind(plain, f"port {port};")
    processes.bind(bind, f"port {port};", NS_POLICY)
    server = our_server(tmp_path, ("127.0.0.1", plain), NS_POLICY)
    try:
        compare(bind, server.start().port, NS_CASES, by_server_deviates)
    finally:
        server.end()
