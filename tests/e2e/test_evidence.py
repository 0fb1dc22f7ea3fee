"""What is stored of what was asked, while processes are killed and floods come; and what Prometheus is told of it."""

import itertools
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

from tests.support.house import ask
from tests.support.server import Load, Server, ask_all, ask_tcp, ask_udp, wait_until

pytestmark = pytest.mark.e2e
MakeServer = Callable[..., Server]


def banned_names() -> Iterator[tuple[str, bytes]]:
    """Names below the banned one, each once."""
    for n in itertools.count():
        name = f"n{n}.banned-app.ca"
        yield name, ask(name)


@pytest.fixture
def server(make_server: MakeServer, upstream: tuple[str, int]) -> Server:
    made = make_server(upstream)
    made.ban("order-1", "banned-app.ca")
    return made.start()


def test_hits_are_stored_as_they_were_asked(server: Server) -> None:
    """Once in SQLite and once in JSON Lines, with who, what, when and why; allowed questions leave no trace."""
    questions = [("im.banned-app.ca", "A"), ("IM.Banned-App.ca", "HTTPS"), ("banned-app.ca", "TYPE65280")]
    for name, rtype in questions * 2:
        ask_udp(server.port, ask(name, rtype))
    ask_udp(server.port, ask("banned-app.ca", "TXT"), host="::1")
    ask_tcp(server.port, [ask("banned-app.ca", "AAAA")])
    ask_udp(server.port, ask("www.allowed.ca"))
    wait_until("all are stored", lambda: len(server.hits()) >= 8)
    assert server.stop() == 0

    expected = Counter(
        [("127.0.0.1", "udp", name.lower(), rtype) for name, rtype in questions * 2]
        + [("::1", "udp", "banned-app.ca", "TXT"), ("127.0.0.1", "tcp", "banned-app.ca", "AAAA")]
    )
    assert Counter(server.hits("client, transport, qname, qtype")) == expected
    constant = "node, client_group, order_id, app, rule, action, rcode, ede, mode, generation"
    assert set(server.hits(constant)) == {
        (
            "node-1",
            "everyone",
            "order-1",
            "app-order-1",
            "suffix banned-app.ca",
            "nxdomain",
            "NXDOMAIN",
            16,
            "enforce",
            1,
        )
    }
    lines = server.lines()
    assert Counter((line["client"], line["transport"], line["qname"], line["qtype"]) for line in lines) == expected
    times = [time_us for (time_us,) in server.hits("time_us")]
    assert sorted(int(datetime.fromisoformat(line["time"]).timestamp() * 1e6 + 0.5) for line in lines) == sorted(times)


def test_metrics_say_what_was_asked(server: Server) -> None:
    """Every query once, by what it was and what came of it; the hot path's answers too."""
    for _ in range(5):
        ask_udp(server.port, ask("im.banned-app.ca"))
        ask_udp(server.port, ask("www.allowed.ca", "AAAA"))
    ask_tcp(server.port, [ask("localhost"), ask("im.banned-app.ca", "TYPE4711")])
    wait_until("hits are stored", lambda: len(server.hits()) == 6)

    def stored() -> dict[tuple[str, ...], float] | None:
        found = server.metrics()
        return found if found.get(("interdict_hits_stored_total", "sqlite")) == 6 else None

    metrics = wait_until("the recorder says so", stored)
    queries = {key[1:]: value for key, value in metrics.items() if key[0] == "interdict_queries_total" and value}
    assert queries == {
        ("everyone", "A", "NXDOMAIN", "udp"): 5,
        ("everyone", "AAAA", "NOERROR", "udp"): 5,
        ("everyone", "A", "NOERROR", "tcp"): 1,
        ("everyone", "other", "NXDOMAIN", "tcp"): 1,
    }
    assert metrics["interdict_verdicts_total", "nxdomain", "app-order-1", "everyone", "enforce", "order-1"] == 6
    answers = {key[1]: value for key, value in metrics.items() if key[0] == "interdict_answers_total" and value}
    assert sum(answers.values()) == 12
    assert answers["special"] == 1
    assert answers["policy"] + answers.get("ready", 0) + answers["upstream"] + answers.get("cache", 0) == 11
    assert metrics["interdict_hits_spooled_total",] == 6
    assert metrics["interdict_hits_lost_total",] == 0
    assert metrics["interdict_workers",] == 2
    assert metrics["interdict_order_in_force", "everyone", "enforce", "order-1"] == 1
    assert sum(v for k, v in metrics.items() if k[0] == "interdict_upstream_queries_total" and k[1] == "answer") >= 1


def test_no_client_can_make_labels(server: Server) -> None:
    """Every type, every name, every malformed message: the number of time series stays small."""
    wait_until("the recorder answers", lambda: server.metrics())
    packets = [ask(f"x{n}.banned-app.ca", f"TYPE{n}") for n in range(1000, 4000)]
    packets += [ask(f"y{n}.banned-app.ca")[: 13 + n % 15] for n in range(300)]
    packets += [ask("z.banned-app.ca", "A", rclass=f"CLASS{n}") for n in range(5, 300)]

    replies = ask_all(server.port, packets)

    assert all(reply is not None for reply in replies)
    assert len([key for key in server.metrics() if key[0] == "interdict_queries_total"]) < 60


def test_a_flood_loses_no_hit(server: Server) -> None:
    """Twenty thousand hits as fast as one client can, on few names and many: all answered, all stored, once."""
    names = [f"n{n % 500}.banned-app.ca" if n % 2 else f"u{n}.banned-app.ca" for n in range(20_000)]
    packets = {name: ask(name) for name in dict.fromkeys(names)}

    replies = ask_all(server.port, [packets[name] for name in names], window=128)

    assert [n for n, reply in enumerate(replies) if reply is None or reply[3] & 15 != 3] == []
    wait_until("all are stored", lambda: len(server.hits()) >= len(names))
    assert Counter(name for (name,) in server.hits()) == Counter(names)
    assert server.stop() == 0
    assert Counter(line["qname"] for line in server.lines()) == Counter(names)


def test_a_killed_worker_comes_back_and_its_hits_are_stored(server: Server) -> None:
    """SIGKILL under load: what was answered is stored, once; the other answers on; a new one takes its place."""
    victim = server.pids()["worker 0"]
    with Load(server.port, banned_names()) as load:
        wait_until("load", lambda: len(load.answered) > 500)
        os.kill(victim, signal.SIGKILL)
        wait_until("a new worker", lambda: server.pids()["worker 0"] not in (0, victim))
        before = len(load.answered)
        wait_until("answers go on", lambda: len(load.answered) > before + 500)
    names = wait_until("all are stored", lambda: stored_all(server, set(load.answered)))

    # What the victim had taken and not yet answered is gone with it; a client asks again.
    assert len(load.lost) <= 64
    assert max(names.values()) == 1
    assert set(names) <= set(load.asked)
    assert server.ask_control("status")["restarts"]["worker"] == 1


def test_a_killed_recorder_comes_back_and_nothing_is_stored_twice(server: Server) -> None:
    """Answers never wait for evidence, and evidence is exact however often its writer dies."""
    with Load(server.port, banned_names()) as load:
        for _ in range(3):
            replace_recorder(server)
    names = wait_until("all are stored", lambda: stored_all(server, set(load.answered)))

    assert load.lost == []
    assert names == Counter(load.answered.keys())
    assert server.stop() == 0
    assert Counter(line["qname"] for line in server.lines()) == names


def replace_recorder(server: Server) -> None:
    """Kill the recorder while it stores, and wait for its successor."""
    recorder = wait_until("a recorder", lambda: server.pids()["recorder"])
    stored = len(server.hits())
    wait_until("hits are being stored", lambda: len(server.hits()) > stored)
    os.kill(recorder, signal.SIGKILL)
    wait_until("a new recorder", lambda: server.pids()["recorder"] not in (0, recorder))


def test_a_killed_server_loses_no_hit_that_was_answered(server: Server) -> None:
    """SIGKILL of everything at once: the spool is stored by the next start."""
    pids = server.pids()
    with Load(server.port, banned_names(), wait=1.0) as load:
        wait_until("load", lambda: len(load.answered) > 500)
        assert server.process is not None
        for pid in (server.process.pid, *pids.values()):
            os.kill(pid, signal.SIGKILL)
        load.stop()
    server.process.wait()

    server.start()

    names = wait_until("all are stored", lambda: stored_all(server, set(load.answered)))
    assert max(names.values()) == 1
    assert set(names) <= set(load.asked)


def stored_all(server: Server, wanted: set[str]) -> Counter[str] | None:
    """The stored names, once all that are wanted are there."""
    names = Counter(name for (name,) in server.hits())
    return names if wanted <= names.keys() else None


def test_counters_survive_a_workers_death(server: Server) -> None:
    """A worker that is started again goes on counting where its predecessor stopped."""
    ask_all(server.port, [ask("im.banned-app.ca")] * 100)
    before = server.ask_control("status")["queries"]
    victim = server.pids()["worker 1"]
    os.kill(victim, signal.SIGKILL)
    wait_until("a new worker", lambda: server.pids()["worker 1"] not in (0, victim))
    ask_all(server.port, [ask("im.banned-app.ca")] * 100)

    assert before == 100
    wait_until("all are counted", lambda: server.ask_control("status")["queries"] == 200)


def test_evidence_is_not_for_everyones_eyes(server: Server) -> None:
    """Who asked what is nobody's business but the operator's."""
    ask_udp(server.port, ask("banned-app.ca"))
    wait_until("it is stored", server.hits)

    for path in [*(server.state / "hits").iterdir(), server.state / "hits", server.state / "run" / "control.sock"]:
        assert path.stat().st_mode & 0o007 == 0, path


def test_lines_are_json(server: Server) -> None:
    """A hostile name can not break a line."""
    packet = ask("a.banned-app.ca")
    ask_udp(server.port, packet[:12] + b'\x03\n"\t' + packet[14:])
    wait_until("it is stored", server.lines)

    (line,) = server.lines()
    assert line["qname"] == r"\010\034\009.banned-app.ca"
    assert "\n" not in json.dumps(line)
