"""A real Prometheus scrapes two running nodes: every expression of dashboards and alerts has an answer, and alerts tell
of what is broken on purpose until it is mended.

The rules are the shipped ones with less patience: `for` is a second, rates are taken over six.
"""

import contextlib
import copy
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dns.message
import dns.rrset
import pytest
import yaml

from resolver.observe.metrics import METRICS
from tests.support.house import ask
from tests.support.peers import require_peer
from tests.support.server import ROOT, Server, SlowUpstream, ask_tcp, free_port, wait_until
from tests.support.source import Authority, Source, says

pytestmark = pytest.mark.e2e

DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "interdict.rules.yml"
ALERTS = {
    rule["alert"]: rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
}
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana").glob("*.json"))}
WINDOW = "6s"
DAY = timedelta(days=1)
EXEMPT = "127.0.0.9"
FLEET = ""  # in place of a node, where an alert is about all
Fired = set[tuple[str, str]]  # (alert without the product's name, node)


def expressions() -> Iterator[Any]:
    """Yield each expression of the dashboards, named by its dashboard and panel."""
    for name, dashboard in DASHBOARDS.items():
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                yield pytest.param(
                    target["expr"], target["legendFormat"], id=f"{name}: {panel['title']} {target['refId']}"
                )


def variables() -> Iterator[Any]:
    """Yield what the picks at the top of the dashboards ask for."""
    for name, dashboard in DASHBOARDS.items():
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                yield pytest.param(variable["query"], id=f"{name}: {variable['name']}")


def filled_in(expr: str) -> str:
    """An expression as Grafana sends it while everything is picked."""
    for variable, text in (("$__rate_interval", WINDOW), ("$__range", "1m"), ("$instance", ".*"), ("$order", ".*")):
        expr = expr.replace(variable, text)
    assert "$" not in expr
    return expr


class Prometheus:
    """The monitor as a process of its own."""

    def __init__(self, folder: Path, targets: list[str]) -> None:
        rules = re.sub(r"\bfor: \w+", "for: 1s", RULES.read_text())
        rules = rules.replace("+ 900", "+ 1")  # how much older than its sources a policy may be
        rules = re.sub(r"((?:rate|increase)\([^[]+)\[\w+\]", rf"\1[{WINDOW}]", rules)
        (folder / "rules.yml").write_text(rules)
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = ["rules.yml"]
        config["scrape_configs"][0]["static_configs"] = [{"targets": targets}]
        (folder / "prometheus.yml").write_text(json.dumps(config))
        self._address = f"127.0.0.1:{free_port()}"
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    require_peer("prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address={self._address}",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip

    def get(self, path: str, **asked: str) -> Any:
        """What the HTTP API has; an error of its own is an error here."""
        address = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(asked)}"
        with urllib.request.urlopen(address, timeout=10) as response:
            return json.loads(response.read())["data"]

    def query(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """Labels and values of an expression now, without those that are no number."""
        found = self.get("query", query=expr)
        assert found["resultType"] == "vector", expr
        values = [(one["metric"], float(one["value"][1])) for one in found["result"]]
        return [(labels, value) for labels, value in values if value == value]

    def is_up(self) -> bool:
        """Whether it answers and has scraped every node."""
        assert self.process.poll() is None
        try:
            return {value for _, value in self.query("up")} == {1.0}
        except OSError:
            return False

    def firing(self) -> Fired:
        """What fires now, and on which node."""
        found = self.query('ALERTS{alertstate="firing"}')
        return {(labels["alertname"].removeprefix("Interdict"), labels.get("instance", FLEET)) for labels, _ in found}


def answer(query: bytes) -> bytes:
    """192.0.2.1 to whatever is asked."""
    asked = dns.message.from_wire(query)
    reply = dns.message.make_response(asked)
    if asked.question:
        reply.answer.append(dns.rrset.from_text(asked.question[0].name, 60, "IN", "A", "192.0.2.1"))
    return reply.to_wire()


UNBOUND = """\
server:
    interface: 127.0.0.1@{port}
    do-daemonize: no
    use-syslog: no
    username: ""
    chroot: ""
    pidfile: ""
    directory: "{folder}"
    num-threads: 1
    local-zone: "." redirect
    local-data: ". 60 IN A 192.0.2.1"
remote-control:
    control-enable: no
"""


class World:
    """Two nodes of one policy, their upstreams, the source of a list, and the Prometheus that watches all."""

    def __init__(self, folder: Path, upstream: subprocess.Popen[bytes], port: int, slow: SlowUpstream) -> None:
        self.upstream, self.slow = upstream, slow
        self.source = Source()
        self.authority = Authority(folder)
        self.source.wrap(self.authority.certificate("127.0.0.1", DAY))
        self.certificate = folder / "node.pem"
        self.certify(60 * DAY)
        self.source.pages["/list"] = self.listing(100)
        self.local = folder / "local.list"
        self.fill_local(100)
        fast = {"try_timeout": "200ms", "deadline": "600ms"}
        self.a = self._server(folder / "a", ("127.0.0.1", port), node="a", workers=2, forwarder=fast)
        self.a.config["encrypted"] = {
            "certificate": str(self.certificate), "key": str(self.certificate), "dot": [f"127.0.0.1:{free_port()}"],
        }  # fmt: skip
        self.b = self._server(folder / "b", slow.address, node="b", workers=1, forwarder={"try_timeout": "3s"})
        self.a.ban("order-1", "banned.example")
        self.a.ban("order-2", "watched.example", mode="observe")
        self.a.config["policy"]["zones"] = [
            {"name": "ads", "url": self.source.url(), "ca_file": str(folder / "ca.pem")},
            {"name": "local", "file": str(self.local)},
        ]
        self.exempt(60 * DAY)
        self.on_a, self.on_b = (f"127.0.0.1:{server.metrics_port}" for server in (self.a, self.b))
        self.b.config["policy"] = copy.deepcopy(self.a.config["policy"])
        self.asked = 0

    @staticmethod
    def _server(folder: Path, upstream: tuple[str, int], **config: Any) -> Server:
        folder.mkdir()
        return Server(folder, [upstream], **config)

    @staticmethod
    def listing(names: int) -> Any:
        """A hosts file of so many names."""
        return says("".join(f"0.0.0.0 ad{n}.example\n" for n in range(names)).encode())

    def fill_local(self, names: int) -> None:
        """Write the local list anew."""
        self.local.write_text("".join(f"bad{n}.example\n" for n in range(names)))

    def certify(self, left: timedelta) -> None:
        """Put another certificate in place, that ends then."""
        aside = self.certificate.with_suffix(".new")
        aside.write_bytes(self.authority.certificate("127.0.0.1", left).read_bytes())
        aside.replace(self.certificate)

    def exempt(self, left: timedelta) -> None:
        """Write the exemption anew, so that it ends then."""
        folder = self.a.documents / "exemptions"
        folder.mkdir(exist_ok=True)
        now = datetime.now(UTC)
        document = {
            "id": "lab", "devices": [EXEMPT], "orders": ["order-1"], "reason": "security-research",
            "grantor": "Chief Information Officer",
            "granted": (now - DAY).isoformat(), "expires": (now + left).isoformat(),
        }  # fmt: skip
        (folder / "lab.yaml").write_text(json.dumps(document))

    def poke(self) -> None:
        """Have both nodes asked a little of everything: hits, cached and new names. Replies are nobody's."""
        self.asked += 1
        new = f"n{self.asked}.example.org"
        packets = [
            *(ask(name) for name in ("banned.example", "watched.example", "ad1.example", "cached.example.org", new)),
            ask("cached.example.org", payload=1232 + self.asked % 1000),  # found in the cache, by no finished packet
            ask("banned.example")[:2] + b"\x80" + ask("banned.example")[3:],  # a response: dropped
        ]
        for server in (self.a, self.b):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for packet in packets:
                    sock.sendto(packet, ("127.0.0.1", server.port))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind((EXEMPT, 0))
                sock.sendto(packets[0], ("127.0.0.1", server.port))

    def wait(self, what: str, get: Callable[[], Any]) -> Any:
        """Wait for what comes true under a little load."""

        def poked() -> Any:
            self.poke()
            return get()

        return wait_until(what, poked)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everything runs, and is well."""
    unbound = require_peer("unbound")
    folder = tmp_path_factory.mktemp("monitoring")
    port = free_port()
    (folder / "unbound.conf").write_text(UNBOUND.format(port=port, folder=folder))
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((folder / "unbound.log").open("wb"))
        upstream = subprocess.Popen([unbound, "-d", "-c", str(folder / "unbound.conf")], stdout=log, stderr=log)
        stack.callback(upstream.wait, 20)
        stack.callback(upstream.kill)
        made = World(folder, upstream, port, stack.enter_context(SlowUpstream(answer)))
        thread = threading.Thread(target=made.source.serve_forever, daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(made.source.server_close)
        stack.callback(made.source.shutdown)
        for server in (made.a, made.b):
            server.write()
            server.spawn()
            stack.callback(server.end)
        for server in (made.a, made.b):
            wait_until("it answers", lambda s=server: "answers on" in s.said())  # type: ignore[misc]
            wait_until("the list is here", lambda s=server: s.metrics().get(("interdict_zone_entries", "list:ads")))  # type: ignore[misc]
            assert server.ask_control("reload")["ok"]
            ask_tcp(server.port, [ask("cached.example.org")])
        yield made


@pytest.fixture(scope="module")
def prometheus(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has scraped both nodes."""
    started = Prometheus(tmp_path_factory.mktemp("prometheus"), [world.on_a, world.on_b])
    try:
        world.wait("Prometheus scrapes", started.is_up)
        yield started
    finally:
        started.process.terminate()
        started.process.wait(20)


# ---- every expression -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("expr", "legend"), [*expressions()])
def test_a_panel_shows_something(expr: str, legend: str, world: World, prometheus: Prometheus) -> None:
    """Its expression is understood and has values, with the labels that its legend names."""
    found = world.wait(expr, lambda: prometheus.query(filled_in(expr)))

    assert set(re.findall(r"{{(\w+)}}", legend)) <= {label for labels, _ in found for label in labels}


@pytest.mark.parametrize("asked", [*variables()])
def test_a_pick_offers_something(asked: str, world: World, prometheus: Prometheus) -> None:
    """The names of nodes, and of orders."""
    parts = re.fullmatch(r"label_values\((.+), (\w+)\)", asked)
    assert parts is not None
    assert world.wait(asked, lambda: prometheus.get(f"label/{parts[2]}/values", **{"match[]": parts[1]}))


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_watches_metrics_that_there_are(alert: str, world: World, prometheus: Prometheus) -> None:
    """Its expression is evaluated without an error, and each metric in it is scraped."""
    prometheus.query(ALERTS[alert])
    for metric in set(re.findall(r"\binterdict_\w+", ALERTS[alert])):
        assert world.wait(metric, lambda m=metric: prometheus.query(f"count({m})"))
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert [rule["health"] for rule in rules if rule["name"] == alert] == ["ok"]


def test_every_metric_is_told_under_its_name(world: World, prometheus: Prometheus) -> None:
    """What the node tells is METRICS, all of it; promtool finds no fault, and Prometheus scrapes nothing else."""
    with urllib.request.urlopen(f"http://{world.on_a}/metrics", timeout=10) as response:
        told = response.read()
    checked = subprocess.run([require_peer("promtool"), "check", "metrics"], input=told, capture_output=True)
    scraped = [name for name in prometheus.get("label/__name__/values") if name.startswith("interdict_")]

    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
    assert re.findall(r"^# TYPE (\w+)", told.decode(), re.MULTILINE) == [metric.name for metric in METRICS]
    assert {re.sub("_(bucket|count|sum)$", "", name) for name in scraped} <= {metric.name for metric in METRICS}


# ---- alerts ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def policy_that_is_not_held(world: World) -> Iterator[Fired]:
    """One node's reload fails at a broken document, and a document changed since; the other node enforces nothing."""
    a, b = world.a, world.b
    broken, touched = (a.documents / "orders" / name for name in ("broken.yaml", "order-1.yaml"))
    orders = list(b.config["policy"]["orders"])
    b.config["policy"]["orders"].clear()
    b.write()
    assert b.ask_control("reload")["ok"]
    broken.write_text("id: [")
    assert not a.ask_control("reload")["ok"]
    os.utime(touched, (time.time() + 2, time.time() + 2))
    a.ask_control("feeds")
    try:
        yield {
            ("ReloadFailed", world.on_a), ("GenerationOld", world.on_a),
            ("EnforcementOff", world.on_b), ("OrderLapsed", world.on_b),
            ("EnforcementDrift", FLEET), ("GenerationDrift", FLEET),
        }  # fmt: skip
    finally:
        broken.unlink()
        b.config["policy"]["orders"] += orders
        b.write()
        assert [server.ask_control("reload")["ok"] for server in (a, b)] == [True, True]


@contextlib.contextmanager
def lists_an_exemption_and_a_certificate_at_their_end(world: World) -> Iterator[Fired]:
    """A source offers a tenth of its list, after two days of silence; a local list shrinks; an exemption ends today,
    and a certificate this week."""
    a, b = world.a, world.b
    state = a.state / "feeds" / "ads.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "checked_at": time.time() - 2 * 86400}))
    world.source.pages["/list"] = world.listing(10)
    for count in (1, 2, 3):
        a.ask_control("fetch")
        wait_until("it is refused", lambda n=count: a.metrics()["interdict_zone_failures", "list:ads"] >= n)  # type: ignore[misc]
    world.fill_local(10)
    world.exempt(timedelta(hours=5))
    world.certify(5 * DAY)
    assert a.ask_control("reload")["ok"]
    try:
        yield {
            ("ListFailing", world.on_a), ("ListStale", world.on_a), ("ListShrunk", world.on_a),
            ("ExemptionEnding", world.on_a), ("CertificateEnding", world.on_a), ("GenerationDrift", FLEET),
        }  # fmt: skip
    finally:
        world.source.pages["/list"] = world.listing(100)
        a.ask_control("fetch")
        world.fill_local(100)
        world.exempt(60 * DAY)
        world.certify(60 * DAY)
        assert [server.ask_control("reload")["ok"] for server in (a, b)] == [True, True]


@contextlib.contextmanager
def evidence_that_goes_nowhere(world: World) -> Iterator[Fired]:
    """A node's spool is away when a worker dies; the other's database is locked, and a file in its spool is none."""
    a, b = world.a, world.b
    spool, away = b.state / "spool", b.state / "spool.away"
    spool.rename(away)
    os.kill(b.pids()["worker 0"], signal.SIGKILL)
    garbage = a.state / "spool" / "w009-1700000000000000.spool"
    garbage.write_bytes(b"no record at all" * 10)
    set_aside = garbage.with_name(garbage.name + ".corrupt")
    wait_until("it is set aside", set_aside.exists)
    try:
        with contextlib.closing(sqlite3.connect(a.state / "hits" / "hits.sqlite", isolation_level=None)) as lock:
            lock.execute("BEGIN IMMEDIATE")
            yield {
                ("SinkDown", world.on_a), ("SpoolDamaged", world.on_a),
                ("SinkDown", world.on_b), ("HitsLost", world.on_b), ("ProcessDied", world.on_b),
            }  # fmt: skip
    finally:
        set_aside.unlink()
        away.rename(spool)


@contextlib.contextmanager
def upstreams_that_do_not_answer(world: World) -> Iterator[Fired]:
    """One node's is silent, the other's takes its time."""
    world.slow.delay = 0.7
    world.upstream.send_signal(signal.SIGSTOP)
    try:
        yield {
            ("NoUpstream", world.on_a), ("UpstreamDown", world.on_a), ("ErrorRatio", world.on_a),
            ("UpstreamSlow", world.on_b),
        }  # fmt: skip
    finally:
        world.upstream.send_signal(signal.SIGCONT)
        world.slow.delay = 0.0


@contextlib.contextmanager
def processes_that_die(world: World) -> Iterator[Fired]:
    """A node is stopped; of the other's workers one is killed, and one hangs."""
    assert world.b.stop() == 0
    killed, hanging = (world.a.pids()[f"worker {n}"] for n in range(2))
    os.kill(killed, signal.SIGKILL)
    os.kill(hanging, signal.SIGSTOP)
    try:
        yield {("ProcessDied", world.on_a), ("WorkerMissing", world.on_a), ("Down", world.on_b)}
    finally:
        os.kill(hanging, signal.SIGCONT)
        world.b.start()


STORIES = [
    policy_that_is_not_held,
    lists_an_exemption_and_a_certificate_at_their_end,
    evidence_that_goes_nowhere,
    upstreams_that_do_not_answer,
    processes_that_die,
]


@pytest.mark.parametrize("story", STORIES)
def test_alerts_tell_what_is_broken_until_it_is_mended(
    story: Callable[[World], contextlib.AbstractContextManager[Fired]], world: World, prometheus: Prometheus
) -> None:
    """These fire and no others, with sentences that are whole; mended, all are quiet."""
    world.wait("all is well", lambda: not prometheus.firing())
    seen: Fired = set()
    with story(world) as expected:

        def all_of_them() -> bool:
            seen.update(prometheus.firing())
            assert seen <= expected
            return seen == expected

        world.wait(f"these fire: {expected}", all_of_them)
        told = [alert["annotations"] for alert in prometheus.get("alerts")["alerts"]]
    assert [sentences for sentences in told if re.search("<error|<no value", json.dumps(sentences))] == []

    world.wait("nothing fires any more", lambda: not prometheus.firing())
