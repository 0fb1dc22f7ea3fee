"""Each check of the machine, against the real thing: a port that is held, an upstream that is silent, a small limit."""

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from resolver import config as configuration
from resolver.app import doctor
from resolver.app.doctor import Finding, Outcome, Questions
from resolver.app.machine import StatePaths, UpstreamAddress
from resolver.policy.client import Transport
from resolver.policy.values import Endpoint
from resolver.transport.secure_identity import SecureTerms
from tests.support.resolving import Answer, Resolving, says
from tests.support.server import SlowUpstream, free_port
from tests.support.source import Authority

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
OK, WARN, FAIL, SKIPPED = Outcome.OK, Outcome.WARN, Outcome.FAIL, Outcome.SKIPPED
AT = 1_790_000_000.0  # in 2026

# ---- ports ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def held(kind: socket.SocketKind, host: str = "127.0.0.1") -> Iterator[Endpoint]:
    """A port that this process holds."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as sock:
        sock.bind((host, 0))
        if kind == TCP:
            sock.listen()
        yield Endpoint(host, sock.getsockname()[1])


@pytest.mark.parametrize("kind", [UDP, TCP])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_who_holds_a_port_is_told(kind: socket.SocketKind, host: str) -> None:
    """By program and process, over both families, whether it holds one address or all."""
    with held(kind, host) as endpoint:
        found = doctor.port(endpoint, kind, frozenset())

    assert (found.outcome, found.check) == (FAIL, f"port {'UDP' if kind == UDP else 'TCP'} {endpoint}")
    assert f"(process {os.getpid()})" in found.found
    assert f"systemctl status {os.getpid()}" in found.mend


@pytest.mark.parametrize("kind", [UDP, TCP])
def test_a_port_of_the_running_server_is_fine(kind: socket.SocketKind) -> None:
    """It holds what it shall hold."""
    with held(kind) as endpoint:
        assert doctor.port(endpoint, kind, frozenset({os.getpid()})).outcome is OK


@pytest.mark.parametrize(("theirs", "ours"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("::", "127.0.0.1")])
def test_all_addresses_include_each(theirs: str, ours: str) -> None:
    """Who holds all of them holds ours, and the other way round."""
    with held(TCP, theirs) as endpoint:
        found = doctor.holder(Endpoint(ours, endpoint.port), TCP)

    assert found is not None
    assert found.pid == os.getpid()


def test_a_free_port_is_free() -> None:
    """And nobody is named."""
    endpoint = Endpoint("127.0.0.1", free_port())

    assert doctor.port(endpoint, TCP, frozenset()).outcome is OK
    assert doctor.holder(endpoint, TCP) is None


def test_an_address_that_this_machine_lacks_is_told() -> None:
    """With the mend."""
    found = doctor.port(Endpoint("192.0.2.77", 53_535), UDP, frozenset())

    assert found.outcome is FAIL
    assert "is not an address of this machine" in found.found
    assert "listen" in found.mend


def test_the_stub_of_systemd_is_known_by_its_name(tmp_path: Path) -> None:
    """A program of that name gets the mend that is meant for it."""
    program = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); import sys; "
    program += "open('/proc/self/comm', 'w').write('systemd-resolve'); print(s.getsockname()[1], flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stub:
        assert stub.stdout is not None
        endpoint = Endpoint("127.0.0.1", int(stub.stdout.readline()))
        found = doctor.port(endpoint, TCP, frozenset())
        stub.communicate("\n", timeout=20)

    assert found.found == "held by the stub of systemd-resolved"
    assert "DNSStubListener=no" in found.mend


def test_every_address_that_is_listened_on_is_looked_at() -> None:
    """Plain ones over UDP and TCP, encrypted ones by what carries them, and that of the metrics."""
    config = configuration.read(
        """\
listen: ["127.0.0.1:53"]
encrypted:
  {certificate: a.pem, key: b.pem, dot: ["127.0.0.1:853"], doh: ["127.0.0.1:443"], doq: ["127.0.0.2:853"],
   doh3: ["127.0.0.2:443"]}
metrics: {listen: "127.0.0.1:9530"}
""",
        "i.yaml",
    )

    assert {(str(endpoint), kind) for endpoint, kind in doctor.windows(config)} == {
        ("127.0.0.1:53", UDP), ("127.0.0.1:53", TCP), ("127.0.0.1:853", TCP), ("127.0.0.1:443", TCP),
        ("127.0.0.2:853", UDP), ("127.0.0.2:443", UDP), ("127.0.0.1:9530", TCP),
    }  # fmt: skip


# ---- clock ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "is_kept", "outcome"),
    [(AT, True, OK), (AT, False, WARN), (AT, None, SKIPPED), (86_400.0, True, FAIL), (1_700_000_000.0, None, FAIL)],
)
def test_a_clock_is_believed_where_something_keeps_it(at: float, is_kept: bool | None, outcome: Outcome) -> None:
    """A year before this program was written is no year."""
    assert doctor.clock(at, is_kept).outcome is outcome


def test_the_kernel_says_whether_it_keeps_the_clock() -> None:
    """Yes, no, or nothing."""
    assert doctor.is_clock_kept() in (True, False, None)


# ---- upstreams ------------------------------------------------------------------------------------------------------


def asked(upstream: SlowUpstream, **questions: bytes) -> list[tuple[str, Outcome]]:
    """What is found about one upstream, by the last word of each check."""
    address = UpstreamAddress(*upstream.address, False)
    found = doctor.upstreams([address], Questions(wait=0.3, **questions))  # type: ignore[arg-type]
    return [(one.check.rpartition(" ")[2], one.outcome) for one in found]


BOGUS = b"\5bogus\7example\0"
ANSWERS: list[tuple[Answer, str, dict[str, bytes], list[Outcome]]] = [
    (says(), "answers", {}, [OK, OK, OK]),
    (says(ad=False), "answers", {}, [OK, OK, WARN]),
    (says(edns=False), "answers", {}, [WARN, WARN, OK]),
    (says(rcodes={".": "REFUSED"}, ad=False), "answers", {}, [FAIL, FAIL, WARN]),
    (says(rcodes={".": "SERVFAIL"}, ad=False), "answers", {}, [WARN, WARN, WARN]),
    (says(), "closes", {}, [OK, FAIL, OK]),
    (says(), "refuses", {}, [OK, FAIL, OK]),
    (says(rcodes={"bogus.example.": "SERVFAIL"}), "answers", {"bogus": BOGUS}, [OK, OK, OK]),
    (says(), "answers", {"bogus": BOGUS}, [OK, OK, FAIL]),
]


@pytest.mark.parametrize(("answer", "tcp", "questions", "outcomes"), ANSWERS)
def test_an_upstream_is_asked_over_udp_and_tcp_and_whether_it_validates(
    answer: Answer, tcp: str, questions: dict[str, bytes], outcomes: list[Outcome]
) -> None:
    """What it does not do is found, each by its own check."""
    with Resolving(answer, tcp=tcp) as upstream:
        found = asked(upstream, **questions)

    assert found == list(zip(("UDP", "TCP", "validation"), outcomes, strict=True))


def test_a_silent_upstream_costs_as_much_as_it_was_given() -> None:
    """Seconds, not minutes; and the mend speaks of the firewall."""
    with SlowUpstream(lambda query: None) as upstream:
        begun = time.monotonic()
        found = list(doctor.upstreams([UpstreamAddress(*upstream.address, False)], Questions(wait=0.2)))
        took = time.monotonic() - begun

    assert [one.outcome for one in found] == [FAIL, FAIL]
    assert found[0].found == "no answer within 0.2 s"
    assert "firewall" in found[0].mend
    assert took < 5


def test_what_is_no_reply_to_our_question_is_passed_over() -> None:
    """A datagram under another id is not believed."""

    def other(query: bytes) -> bytes:
        return bytes((query[0] ^ 1,)) + query[1:2] + b"\x80\0" + query[4:]

    with SlowUpstream(other) as upstream, pytest.raises(TimeoutError):
        doctor.ask(*upstream.address, UDP, doctor.ROOT, 0.2)


def test_no_upstream_at_all_is_told() -> None:
    """With the line to write."""
    (found,) = doctor.upstreams([], Questions())

    assert found.outcome is FAIL
    assert "upstreams: [{address:" in found.mend


@pytest.mark.parametrize("is_trusted", [True, False])
def test_an_upstream_over_tls_is_asked_over_tls_alone(tmp_path: Path, is_trusted: bool) -> None:
    """And must show who it is."""
    for folder in ("ours", "others"):
        (tmp_path / folder).mkdir()
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(ours.certificate("127.0.0.1", timedelta(days=1)))
    tls.set_alpn_protocols(["dot"])
    terms = SecureTerms(Transport.DOT, ca_file=str((ours if is_trusted else others).ca_file))
    with Resolving(says(), tls=tls) as upstream:
        address = UpstreamAddress(*upstream.address, True, terms)
        found = list(doctor.upstreams([address], Questions(wait=3.0)))

    if is_trusted:
        assert [(one.check.split()[-1], one.outcome) for one in found] == [("TLS", OK), ("validation", OK)]
    else:
        assert [one.outcome for one in found] == [FAIL]
        assert "certificate" in found[0].found
        assert "ca_file" in found[0].mend


ELSEWHERE = [UpstreamAddress("192.0.2.53", 53, False)]


def test_an_answer_from_where_nobody_is_gives_an_interceptor_away() -> None:
    """Something on the way answers for everybody."""
    with Resolving(says()) as interceptor:
        found = doctor.interception(ELSEWHERE, Endpoint(*interceptor.address), 0.3)

    assert found.outcome is FAIL
    assert "in the place of" in found.mend


def test_silence_from_where_nobody_is_is_right() -> None:
    """After the seconds that were given, and no more."""
    with SlowUpstream(lambda query: None) as nobody:
        assert doctor.interception(ELSEWHERE, Endpoint(*nobody.address), 0.1).outcome is OK


def test_nothing_leaves_a_machine_whose_upstreams_are_on_it() -> None:
    """Then there is no way to look at."""
    with SlowUpstream(lambda query: None) as nobody:
        found = doctor.interception([UpstreamAddress("127.0.0.1", 53, True)], Endpoint(*nobody.address), 0.1)
        assert nobody.asked == []

    assert found.outcome is SKIPPED


# ---- kernel and limits ----------------------------------------------------------------------------------------------


def test_buffers_that_the_kernel_does_not_give_are_told_with_the_switch() -> None:
    """Asked for with a real socket."""
    small, large = list(doctor.buffers(4096)), list(doctor.buffers(1 << 30))

    assert [one.outcome for one in small] == [OK, OK]
    assert [one.outcome for one in large] == [WARN, WARN]
    assert "net.core.rmem_max=1073741824" in large[0].mend
    assert "net.core.wmem_max=1073741824" in large[1].mend


def test_a_small_limit_of_files_is_told() -> None:
    """As a process that is held to it finds it."""
    program = """
import resource
from resolver import config
from resolver.app import doctor
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
found = doctor.open_files(config.read("workers: 1", "i"), doctor.file_limit(None))
print(found.outcome, found.mend)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert said.startswith("fail `LimitNOFILE=")


def test_connections_of_encrypted_listeners_count_too() -> None:
    """Those of TLS, each kind by itself; QUIC has no files of its own."""
    certified = "encrypted: {certificate: a, key: b, connections: 5000, doq: ['127.0.0.1:853'], %s}"
    one = configuration.read(certified % "dot: ['127.0.0.1:853']", "i")
    two = configuration.read(certified % "dot: ['127.0.0.1:853'], doh: ['127.0.0.1:443']", "i")

    assert [doctor.open_files(config, 8000).outcome for config in (one, two)] == [OK, FAIL]


def test_the_limit_of_another_process_is_read() -> None:
    """Of one that runs; of this one, where there is none."""
    assert doctor.file_limit(os.getpid()) == doctor.file_limit(None)
    assert doctor.file_limit(2**22 + 1) == doctor.file_limit(None)


# ---- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "outcome"), [(0o750, OK), (0o700, OK), (0o755, WARN), (0o751, WARN)])
def test_a_state_folder_is_closed_to_others(tmp_path: Path, mode: int, outcome: Outcome) -> None:
    """It names people's devices."""
    tmp_path.chmod(mode)

    first, disk = doctor.state_folder(StatePaths(tmp_path), None, 1 << 20)
    assert (first.outcome, disk.check) == (outcome, "disk")


def test_a_state_folder_that_is_not_there_is_made_at_the_start(tmp_path: Path) -> None:
    """Nothing is made by looking."""
    first, _ = doctor.state_folder(StatePaths(tmp_path / "a" / "b"), None, 1 << 20)

    assert first.outcome is OK
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_for_waiting_hits_is_told(tmp_path: Path) -> None:
    """By what may wait there."""
    _, disk = doctor.state_folder(StatePaths(tmp_path), None, 1 << 60)

    assert disk.outcome is WARN
    assert "hits.spool_limit" in disk.mend


# ---- the running server ---------------------------------------------------------------------------------------------


def status(**changed: object) -> dict[str, object]:
    """What a server that is well says of itself."""
    here = {"name": "worker 0", "pid": os.getpid(), "generation": 3}
    return {
        "version": "0.1.0", "workers": 1, "generation": 3, "digest": "aa", "hits_lost": 0, "metrics": None,
        "last_reload": {}, "processes": [here], **changed,
    }  # fmt: skip


def outcomes(found: Iterator[Finding]) -> dict[str, Outcome]:
    return {one.check: one.outcome for one in found}


@pytest.mark.parametrize(
    ("changed", "check", "outcome"),
    [
        ({}, "server", OK),
        ({}, "policy in force", OK),
        ({}, "evidence", OK),
        ({"processes": [{"name": "worker 0", "pid": 0, "generation": None}]}, "server", FAIL),
        ({"last_reload": {"ok": False}}, "policy in force", FAIL),
        ({"digest": "bb"}, "policy in force", WARN),
        ({"hits_lost": 7}, "evidence", WARN),
    ],
)
def test_a_running_server_is_well_or_not(changed: dict[str, object], check: str, outcome: Outcome) -> None:
    """By what it says of itself."""
    assert outcomes(doctor.server(status(**changed), "aa", 1.0))[check] is outcome


def test_a_policy_that_can_not_be_compiled_is_not_compared() -> None:
    """That is told elsewhere."""
    assert outcomes(doctor.server(status(), "", 1.0))["policy in force"] is OK


def test_the_supervisor_is_known_by_its_children() -> None:
    """Its number stands in no list."""
    assert doctor.processes(status()) == {"worker 0": os.getpid(), "supervisor": os.getppid()}


def test_metrics_are_asked_for() -> None:
    """Where the server says that they are, from this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def serve() -> None:
            sock, _ = listening.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(b"HTTP/1.0 200 OK\r\n\r\n# metrics\n")

        thread = threading.Thread(target=serve)
        thread.start()
        found = outcomes(doctor.server(status(metrics=f"0.0.0.0:{port}"), "aa", 5.0))
        thread.join()
    assert found["metrics"] is OK


def test_metrics_that_nobody_tells_are_missed() -> None:
    """A listener that accepts and is silent costs the seconds that were given."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert outcomes(doctor.server(status(metrics=address), "aa", 0.2))["metrics"] is FAIL
