"""Start, reload, the moment of an order, and the end: what operators do, under load."""

import itertools
import os
import pwd
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from resolver.__main__ import is_half_built
from tests.support.house import ask
from tests.support.server import PATIENCE, Load, Server, SlowUpstream, ask_all, ask_udp, free_port, wait_until

pytestmark = pytest.mark.e2e
MakeServer = Callable[..., Server]


def rcode_of(server: Server, name: str, rtype: str = "A") -> str:
    return dns.rcode.to_text(dns.message.from_wire(ask_udp(server.port, ask(name, rtype))).rcode())


def allowed_names() -> Iterator[tuple[str, bytes]]:
    """One banned, one allowed and one repeated name after another."""
    for n in itertools.count():
        for name in (f"n{n}.banned-app.ca", f"n{n}.allowed.ca", "www.allowed.ca"):
            yield f"{name} {n}", ask(name)


@pytest.fixture
def server(make_server: MakeServer, upstream: tuple[str, int]) -> Server:
    made = make_server(upstream)
    made.ban("order-1", "banned-app.ca")
    return made


# ---- start ----------------------------------------------------------------------------------------------------------


def test_the_banner_says_what_is_in_force_and_how_to_try_it(server: Server) -> None:
    """Listeners, orders, generation, upstreams, evidence, and a command to copy."""
    server.ban("order-2", "later-app.ca", effective="2999-01-01T00:00:00Z")
    server.start()

    said = server.said()
    for expected in (
        f"127.0.0.1:{server.port}", f"[::1]:{server.port}", "order-1 (nxdomain, enforce, for everyone), in force since",
        "order-2 (nxdomain, enforce, for everyone), announced, in force from 2999-01-01", "generation 1",
        str(server.state / "hits"), f"http://127.0.0.1:{server.metrics_port}/metrics",
        f"dig @127.0.0.1 -p {server.port}",
    ):  # fmt: skip
        assert expected in said


def refusal(server: Server) -> str:
    """What a server says that does not start; exit code 2, and nothing is left listening."""
    process = server.spawn()
    assert process.wait(PATIENCE) == 2, server.said()
    for port in (server.port, server.metrics_port):
        with socket.socket() as sock:
            assert sock.connect_ex(("127.0.0.1", port)) != 0
    return server.said()


def test_a_broken_configuration_is_told_by_line_and_column(server: Server) -> None:
    """All mistakes at once, each with the mend, and nothing starts."""
    text = server.config_path.read_text().replace('"workers": 2', '"workers": 0').replace('"node"', '"nodde"')
    server.config_path.write_text(text)

    said = refusal(server)

    for key in ("nodde", "workers"):
        line = next(n for n, written in enumerate(text.splitlines(), 1) if f'"{key}"' in written)
        assert re.search(rf"interdict\.yaml:{line}:\d+: ", said), said
    assert 'did you mean "node"?' in said
    assert "Traceback" not in said


def test_a_broken_document_is_told_by_line_and_column(server: Server) -> None:
    """As for the configuration."""
    path = server.documents / "orders" / "order-1.yaml"
    path.write_text(path.read_text().replace("2020-01-01T00:00:00Z", "soon"))

    said = refusal(server)

    assert re.search(r"order-1\.yaml:1:\d+: \"soon\" is not an instant; write", said)
    assert "Traceback" not in said


def test_an_order_that_nobody_describes_is_told(server: Server) -> None:
    """With the one that was meant."""
    server.config["policy"]["orders"][0]["order"] = "order-l"
    server.write()

    assert 'did you mean "order-1"?' in refusal(server)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["UDP", "TCP"])
def test_a_port_in_use_is_told(server: Server, kind: socket.SocketKind) -> None:
    """By whom it is held is a command away; the other listener is not left behind."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", server.port))
        process = server.spawn()
        assert process.wait(PATIENCE) == 2

    said = server.said()
    assert f"127.0.0.1:{server.port} is in use by another program" in said
    assert "Traceback" not in said


def test_a_second_server_on_the_same_port_does_not_start(server: Server, make_server: MakeServer) -> None:
    """SO_REUSEPORT would let it take half of the queries without a word."""
    server.start()
    second = make_server()
    second.config["listen"] = [f"127.0.0.1:{server.port}"]

    process = second.spawn()

    assert process.wait(PATIENCE) == 2
    assert "is in use by another program" in second.said()
    assert rcode_of(server, "banned-app.ca") == "NXDOMAIN"


def test_a_second_server_in_the_same_folder_does_not_start(server: Server, make_server: MakeServer) -> None:
    """Two writers of one evidence would be none."""
    server.start()
    second = make_server(state_dir=str(server.state))

    assert "another server runs with the state folder" in refusal(second)
    assert rcode_of(server, "banned-app.ca") == "NXDOMAIN"


def test_an_account_that_is_not_there_is_told(server: Server) -> None:
    """With the command that makes it."""
    server.config["user"] = "no-such-account"
    server.write()

    assert "useradd --system no-such-account" in refusal(server)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can change to another account")
def test_root_is_given_up(upstream: tuple[str, int]) -> None:
    """With `user`, every process runs as that account, the state folder is its own, and a reload still works."""
    with tempfile.TemporaryDirectory() as folder:  # the tests' own folder is closed to everybody else
        os.chmod(folder, 0o755)
        server = Server(Path(folder), [upstream], user="nobody")
        server.ban("order-1", "banned-app.ca")
        try:
            check_account(server.start(), pwd.getpwnam("nobody"))
        finally:
            server.end()


def check_account(server: Server, account: pwd.struct_passwd) -> None:
    assert server.process is not None
    for pid in (server.process.pid, *server.pids().values()):
        with open(f"/proc/{pid}/status") as file:
            ids = {key: set(values.split()) for key, _, values in (line.partition(":") for line in file)}
        assert ids["Uid"] == {str(account.pw_uid)}
        assert ids["Gid"] == {str(account.pw_gid)}
        assert ids["Groups"] <= {str(account.pw_gid)}
    ask_udp(server.port, ask("banned-app.ca"))
    wait_until("the hit is stored", server.hits)
    for path in [server.state, *server.state.rglob("*")]:
        assert path.stat().st_uid == account.pw_uid, path
    server.ban("order-2", "new-app.ca")
    assert server.ask_control("reload")["ok"]
    assert rcode_of(server, "new-app.ca") == "NXDOMAIN"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can change to another account")
def test_documents_that_the_account_may_not_read_end_nothing(upstream: tuple[str, int]) -> None:
    """The first policy is root's reading; a reload says what can not be read, and the server goes on."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        server = Server(Path(folder), [upstream], user="nobody")
        server.ban("order-1", "banned-app.ca")
        server.documents.chmod(0o700)
        try:
            server.start()
            said = server.ask_control("reload")
            assert said["ok"] is False
            assert said["problems"]
            assert rcode_of(server, "banned-app.ca") == "NXDOMAIN"
            assert "Traceback" not in server.said()
        finally:
            server.end()


# ---- reload ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["signal", "control"])
def test_a_reload_under_load_loses_no_query(server: Server, by: str) -> None:
    """Before, during and after it every query is answered; the new order acts at once, cache or not."""
    server.start()
    assert rcode_of(server, "www.new-app.ca") == "NOERROR"
    with Load(server.port, allowed_names()) as load:
        for generation in range(2, 6):
            server.ban(f"order-{generation}", f"new-app{generation}.ca" if generation > 2 else "new-app.ca")
            if by == "signal":
                assert server.process is not None
                server.process.send_signal(signal.SIGHUP)
                wait_until("it is in force", lambda: server.ask_control("status")["generation"] == generation)  # noqa: B023
                wait_until("by all", lambda: f"generation {generation} is in force" in server.said())  # noqa: B023
            else:
                said = server.ask_control("reload")
                assert said["ok"], said
                assert said["generation"] == generation
            before = len(load.answered)
            wait_until("answers go on", lambda: len(load.answered) > before + 50)  # noqa: B023

    replies = ask_all(server.port, [ask("www.new-app.ca")] * 64, sockets=32)
    assert load.lost == []
    assert {reply[3] & 15 for reply in replies if reply} == {dns.rcode.NXDOMAIN}
    assert None not in replies
    wrong = [
        name for name, reply in load.answered.items() if (reply[3] & 15 == 3) != ("banned-app.ca" in name)
    ]  # fmt: skip
    assert wrong == []
    assert "Traceback" not in server.said()


def test_a_reload_without_a_change_keeps_the_generation(server: Server) -> None:
    """The same policy is the same policy."""
    server.start()

    assert server.ask_control("reload")["generation"] == 1
    assert server.ask_control("reload")["generation"] == 1


def test_a_broken_document_does_not_end_what_is_in_force(server: Server) -> None:
    """Reload says what is wrong and where; the old generation stays, through a worker's death too; then it is right."""
    server.start()
    good = (server.documents / "orders" / "order-1.yaml").read_text()
    (server.documents / "orders" / "order-1.yaml").write_text(good.replace('"high"', '"hihg"'))

    said = server.ask_control("reload")

    assert said["ok"] is False
    assert any(re.search(r'order-1\.yaml:1:\d+: "hihg" .* did you mean "high"\?', p) for p in said["problems"])
    assert server.ask_control("status")["generation"] == 1
    assert server.ask_control("status")["last_reload"]["ok"] is False
    assert "generation 1 stays in force" in server.said()
    assert rcode_of(server, "banned-app.ca") == "NXDOMAIN"

    victim = server.pids()["worker 0"]
    os.kill(victim, signal.SIGKILL)
    wait_until("a new worker", lambda: server.pids()["worker 0"] not in (0, victim))
    replies = ask_all(server.port, [ask("banned-app.ca")] * 32, sockets=32)
    assert all(reply is not None and reply[3] & 15 == 3 for reply in replies)

    (server.documents / "orders" / "order-1.yaml").write_text(good)
    server.ban("order-2", "new-app.ca")
    assert server.ask_control("reload")["ok"]
    assert rcode_of(server, "new-app.ca") == "NXDOMAIN"


def test_a_worker_that_hangs_is_replaced_by_one_with_the_new_policy(server: Server) -> None:
    """It takes no generation and hears no signal: it is killed, and its share of the clients is answered again."""
    server.start()
    hanging = server.pids()["worker 0"]
    os.kill(hanging, signal.SIGSTOP)
    server.ban("order-2", "other-app.ca")

    outcome = server.ask_control("reload")
    assert outcome["ok"]
    assert "worker 0 did not take the generation" in str(outcome["warnings"])

    wait_until("another runs", lambda: server.pids()["worker 0"] not in (0, hanging))
    for _ in range(20):  # whichever worker a socket's questions go to
        assert ask_udp(server.port, ask("other-app.ca"))[3] & 15 == dns.rcode.NXDOMAIN


def test_a_file_that_changes_while_it_is_compiled_is_taken_in_as_it_was_compiled(server: Server) -> None:
    """A later compile for a list's sake takes up nothing that nobody reloaded."""
    server.start()
    server.config_path.write_text("policy: {orders: []}\n")

    assert server.ask_control("recompile")["ok"]
    assert ask_udp(server.port, ask("banned-app.ca"))[3] & 15 == dns.rcode.NXDOMAIN


def test_an_order_can_be_taken_back(server: Server) -> None:
    """After the reload its names are the upstream's again, at every worker, whatever the memo knew."""
    server.start()
    assert [r is not None and r[3] & 15 for r in ask_all(server.port, [ask("banned-app.ca")] * 64, sockets=32)] == [
        3
    ] * 64
    server.config["policy"]["orders"] = []
    server.write()

    assert server.ask_control("reload")["ok"]

    replies = ask_all(server.port, [ask("banned-app.ca")] * 64, sockets=32)
    assert [reply is not None and reply[3] & 15 for reply in replies] == [0] * 64


def test_what_needs_a_restart_is_said(server: Server) -> None:
    """A changed listener or upstream is not silently left out."""
    server.start()
    server.config["cache"] = {"max_ttl": "1h"}
    server.write()

    said = server.ask_control("reload")

    assert said["ok"]
    assert any("`cache`" in warning and "next start" in warning for warning in said["warnings"])


def test_reloads_on_top_of_each_other_all_get_an_answer(server: Server) -> None:
    """Whoever asks while one is under way gets the outcome of the next one."""
    server.start()
    server.ban("order-2", "new-app.ca")
    outcomes: list[object] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(server.ask_control("reload")["generation"])) for _ in range(8)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    assert outcomes == [2] * 8


@pytest.mark.parametrize(
    "octets", [b"\n", b"[]\n", b"{\n", b"\xff\xfe\n", b'{"verb": 7}\n', b"[" * 4000 + b"\n", b"x" * 100_000, b""]
)
def test_nonsense_on_the_control_socket_is_survived(server: Server, octets: bytes) -> None:
    """The server goes on and answers the next one who asks."""
    server.start()
    with socket.socket(socket.AF_UNIX) as sock:
        folder = os.open(server.state / "run", os.O_PATH)
        sock.connect(f"/proc/self/fd/{folder}/control.sock")
        os.close(folder)
        sock.settimeout(PATIENCE)
        try:
            sock.sendall(octets)
            if octets:
                sock.recv(1)
        except (BrokenPipeError, ConnectionResetError):
            pass

    assert server.ask_control("status")["generation"] == 1
    assert server.process is not None
    assert server.process.poll() is None


# ---- an order's moment ----------------------------------------------------------------------------------------------


def test_an_order_begins_at_its_moment_without_a_restart(server: Server) -> None:
    """It acts on every worker from its second on, although cache and memo are warm with the answer."""
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=5)
    server.ban("order-2", "later-app.ca", effective=moment.isoformat())
    server.start()
    seen: list[tuple[float, set[int | None], float]] = []

    def all_withheld() -> bool:
        before = time.time()
        replies = ask_all(server.port, [ask("www.later-app.ca")] * 16, sockets=16)
        seen.append((before, {None if reply is None else reply[3] & 15 for reply in replies}, time.time()))
        return seen[-1][1] == {dns.rcode.NXDOMAIN}

    wait_until("the order acts", all_withheld)

    assert seen[0][1] == {0}, "the server was not up in time to be asked before"
    for before, rcodes, after in seen:
        if after < moment.timestamp():
            assert rcodes == {0}
        elif before >= moment.timestamp():
            assert rcodes == {dns.rcode.NXDOMAIN}
    assert server.ask_control("status")["generation"] == 1
    assert server.pids().keys() == {"worker 0", "worker 1", "recorder"}


# ---- the end --------------------------------------------------------------------------------------------------------


def mirrored(query: bytes) -> bytes:
    """The emptiest reply."""
    return query[:2] + bytes([query[2] | 0x80]) + query[3:]


def test_sigterm_answers_what_is_in_flight(make_server: MakeServer) -> None:
    """UDP and TCP queries that wait for an upstream get their answers; exit code 0; nothing listens any more."""
    with SlowUpstream(mirrored, delay=1.0) as slow:
        server = make_server(slow.address, forwarder={"try_timeout": "3s"}).start()
        packets = [ask(f"n{n}.allowed.ca", message_id=n) for n in range(20)]
        with (
            socket.create_connection(("127.0.0.1", server.port), PATIENCE) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            udp.connect(("127.0.0.1", server.port))
            udp.settimeout(PATIENCE)
            for packet in packets[:10]:
                udp.send(packet)
            tcp.sendall(b"".join(len(p).to_bytes(2, "big") + p for p in packets[10:]))
            wait_until("all are under way", lambda: len(slow.asked) >= 20)
            assert server.process is not None
            server.process.send_signal(signal.SIGTERM)

            ids = {int.from_bytes(udp.recv(4096)[:2], "big") for _ in range(10)}
            with tcp.makefile("rb") as file:
                for _ in range(10):
                    reply = file.read(int.from_bytes(file.read(2), "big"))
                    ids.add(int.from_bytes(reply[:2], "big"))
                assert file.read(1) == b""
            assert server.process.wait(PATIENCE) == 0
        assert ids == set(range(20))
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", server.port)) != 0


def test_sigterm_stores_what_is_spooled(server: Server) -> None:
    """Every hit that was answered before the end is in the evidence after it."""
    server.start()
    names = [f"n{n}.banned-app.ca" for n in range(3000)]

    replies = ask_all(server.port, [ask(name) for name in names])
    assert server.stop() == 0

    assert None not in replies
    assert sorted(name for (name,) in server.hits()) == sorted(names)
    assert list((server.state / "spool").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("tell", [os.kill, os.killpg])
def test_the_end_is_quick_and_leaves_nobody_behind(
    server: Server, number: signal.Signals, tell: Callable[[int, int], None]
) -> None:
    """All processes are gone within seconds and nothing is logged, whether one is told or all at once.

    Service managers and terminals signal the whole group: that workers end then is no death to be mended.
    """
    server.start()
    pids = list(server.pids().values())
    started = time.monotonic()
    assert server.process is not None
    tell(server.process.pid, number)

    assert server.process.wait(PATIENCE) == 0
    assert time.monotonic() - started < 5
    assert [pid for pid in pids if os.path.exists(f"/proc/{pid}")] == []
    assert "Traceback" not in server.said()
    assert "started again" not in server.said()


def test_workers_end_when_the_supervisor_is_killed(server: Server) -> None:
    """Nobody answers from a policy that nobody can change."""
    server.start()
    pids = list(server.pids().values())
    assert server.process is not None
    server.process.kill()
    server.process.wait()

    wait_until("all are gone", lambda: not [pid for pid in pids if is_running(pid)])
    server.start()
    assert rcode_of(server, "banned-app.ca") == "NXDOMAIN"


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_plain_hot_path_says_so(server: Server) -> None:
    """INTERDICT_PLAIN=1 runs without machine code, and status and version do not pretend otherwise."""
    os.environ["INTERDICT_PLAIN"] = "1"
    try:
        server.start()
        version = subprocess.run(
            [*server.process.args[:3], "--version"], capture_output=True, text=True, check=True, timeout=PATIENCE,  # type: ignore[union-attr,index]
        ).stdout  # fmt: skip
    finally:
        del os.environ["INTERDICT_PLAIN"]

    assert server.ask_control("status")["hot"] == "plain"
    assert "plain" in version
    assert rcode_of(server, "banned-app.ca") == "NXDOMAIN"


@pytest.mark.parametrize(("libraries", "half"), [((), False), (("_a_cy",), True), (("_a_cy", "_b_cy"), False)])
def test_a_build_of_which_a_part_is_missing_is_known(tmp_path: Path, libraries: tuple[str, ...], half: bool) -> None:
    """It runs plain as a whole, since compiled modules work on each other's memory."""
    for name in ("_a_cy.py", "_b_cy.py", "shim.py", *(f"{library}{EXTENSION_SUFFIXES[0]}" for library in libraries)):
        (tmp_path / name).touch()

    assert is_half_built(tmp_path) is half


def test_a_dead_upstream_is_left_for_a_living_one(make_server: MakeServer, upstream: tuple[str, int]) -> None:
    """With one upstream refusing and one silent, allowed names are answered all the same."""
    with SlowUpstream(lambda query: None) as silent:
        server = make_server(("127.0.0.1", free_port()), silent.address, upstream)
        server.config["forwarder"] = {"try_timeout": "100ms"}
        server.write()
        server.start()

        replies = ask_all(server.port, [ask(f"n{n}.allowed.ca") for n in range(100)])

    assert [reply is not None and reply[3] & 15 for reply in replies] == [0] * 100
