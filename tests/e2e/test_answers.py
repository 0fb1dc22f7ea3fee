"""The running resolver as dig, kdig and a raw socket see it."""

import re
import socket
import subprocess
from collections.abc import Callable

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest

from resolver.wire.codes import Ede
from tests.support.house import ask
from tests.support.server import Server, ask_tcp, ask_udp

pytestmark = pytest.mark.e2e
Peer = Callable[[str], str]


def run_dig(path: str, server: Server, *words: str, host: str = "127.0.0.1") -> str:
    """What dig or kdig prints; both with EDNS, which kdig would leave out."""
    if path.endswith("kdig") and not any("edns" in word for word in words):
        words = ("+edns", *words)
    done = subprocess.run(
        [path, f"@{host}", "-p", str(server.port), *words], check=True, capture_output=True, text=True, timeout=20
    )
    return done.stdout


@pytest.mark.parametrize("program", ["dig", "kdig"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("over", ["+notcp", "+tcp"])
def test_a_banned_name_is_nxdomain_to_every_client(
    running: Server, peer: Peer, program: str, host: str, over: str
) -> None:
    """Over IPv4 and IPv6, UDP and TCP, with the reason for people to read (EDE 16)."""
    said = run_dig(peer(program), running, "im.banned-app.ca", "A", over, host=host)

    assert re.search(r"status: NXDOMAIN", said)
    assert re.search(r"EDE: 16 \(Censored\)", said)
    assert "order order-1, app app-order-1" in said
    assert re.search(r"banned-app\.ca\.\s+30\s+IN\s+SOA", said)


@pytest.mark.parametrize("program", ["dig", "kdig"])
@pytest.mark.parametrize("words", [["-t", "TYPE65"], ["-t", "HTTPS"], ["-t", "ANY"], ["-t", "TXT"], ["-t", "DS"]])
def test_no_type_gets_round_the_ban(running: Server, peer: Peer, program: str, words: list[str]) -> None:
    """HTTPS records would bring addresses past the order."""
    assert "status: NXDOMAIN" in run_dig(peer(program), running, *words, "im.banned-app.ca")


@pytest.mark.parametrize("program", ["dig", "kdig"])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["www.allowed.ca", "A"], r"www\.allowed\.ca\.\s+\d+\s+IN\s+A\s+192\.0\.2\.1"),
        (["www.allowed.ca", "AAAA", "+tcp"], r"AAAA\s+2001:db8::1"),
        (["-t", "TYPE65", "www.allowed.ca"], r"(HTTPS|TYPE65)\s+1 \. alpn=\"?h2"),
        (["www.allowed.ca", "TXT", "+bufsize=512"], r"\"from upstream\""),
        (["www.allowed.ca", "A", "+noedns"], r"192\.0\.2\.1"),
        (["www.allowed.ca", "A", "+dnssec"], r"flags:[^;]* do\b"),
        (["www.allowed.ca", "A", "+cookie"], r"192\.0\.2\.1"),
        (["www.allowed.ca", "A", "+ednsopt=65001:cafe"], r"192\.0\.2\.1"),
        (["www.allowed.ca", "A", "+padding=128"], r"192\.0\.2\.1"),
        (["www.allowed.ca", "A", "+nsid"], r"NSID: .*node-1|NSID:.*\"node-1\""),
        (["www.allowed.ca", "ANY"], r"HINFO\s+\"RFC8482\" \"\""),
        (["CH", "TXT", "id.server"], r"TXT\s+\"node-1\""),
        (["CH", "TXT", "version.bind"], r"TXT\s+\"Interdict "),
        (["-x", "127.0.0.1"], r"PTR\s+localhost\."),
        (["wWw.AlloweD.ca", "A"], r"wWw\.AlloweD\.ca\.\s+\d+\s+IN\s+A\s+192\.0\.2\.1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_allowed_question_is_answered(
    running: Server, peer: Peer, program: str, words: list[str], expected: str
) -> None:
    """With the options that people use, by two clients that are strict in different ways."""
    assert re.search(expected, run_dig(peer(program), running, *words), re.IGNORECASE)


@pytest.mark.parametrize("program", ["dig", "kdig"])
def test_a_large_answer_is_cut_over_udp_and_fetched_over_tcp(running: Server, peer: Peer, program: str) -> None:
    """The client comes back by TCP on its own and gets all of it."""
    ignored = run_dig(peer(program), running, "big.upstream-zone", "TXT", "+ignore")
    whole = run_dig(peer(program), running, "big.upstream-zone", "TXT")

    assert re.search(r"flags: [a-z ]*\btc\b", ignored, re.IGNORECASE)
    assert "ANSWER: 0" in ignored
    assert whole.count("x" * 200) == 20


def test_a_cname_to_a_banned_name_is_withheld(running: Server, peer: Peer) -> None:
    """An alias is no way round, and the alias's own name stands in the reply."""
    for name, rtype in (("cloak.upstream-zone", "A"), ("cloak.upstream-zone2", "HTTPS")):
        said = run_dig(peer("dig"), running, name, rtype)
        assert "status: NXDOMAIN" in said
        assert "EDE: 16" in said
        assert "192.0.2.1" not in said


def test_the_longest_name_there_is(running: Server) -> None:
    """255 octets, below a banned suffix and below an allowed one."""
    for suffix, rcode in (("banned-app.ca", dns.rcode.NXDOMAIN), ("allowed12.ca", dns.rcode.NOERROR)):
        name = ".".join(["a" * 63] * 3 + ["b" * (255 - 3 * 64 - len(suffix) - 2 - 1)] + [suffix])
        packet = ask(name)
        assert packet[12:].index(b"\0") + 1 == 255
        assert dns.message.from_wire(ask_udp(running.port, packet)).rcode() == rcode


def test_a_thousand_questions_on_one_connection(running: Server) -> None:
    """Half banned, half allowed, pipelined; each answer belongs to its question."""
    names = [f"n{n}.{'banned-app' if n % 2 else 'allowed'}.ca" for n in range(1000)]

    replies = [dns.message.from_wire(reply) for reply in ask_tcp(running.port, [ask(name) for name in names])]

    assert [reply.question[0].name.to_text(True) for reply in replies] == names
    assert [reply.rcode() for reply in replies] == [dns.rcode.NXDOMAIN if n % 2 else 0 for n in range(1000)]


def test_ttls_run_down(running: Server) -> None:
    """The second answer is the first one, older; and DO has an answer of its own."""
    first = dns.message.from_wire(ask_udp(running.port, ask("ageing.allowed.ca")))
    again = dns.message.from_wire(ask_udp(running.port, ask("ageing.allowed.ca")))
    signed = dns.message.from_wire(ask_udp(running.port, ask("ageing.allowed.ca", do=True)))

    assert 0 < again.answer[0].ttl <= first.answer[0].ttl <= 60
    assert signed.ednsflags & dns.flags.DO


def test_without_any_upstream_reachable_policy_still_answers(make_server: Callable[..., Server]) -> None:
    """SERVFAIL with the reason for allowed names; banned ones are answered as ever."""
    server = make_server()
    server.ban("order-1", "banned-app.ca")
    server.start()

    banned = dns.message.from_wire(ask_udp(server.port, ask("banned-app.ca")))
    allowed = dns.message.from_wire(ask_udp(server.port, ask("www.allowed.ca")))
    local = dns.message.from_wire(ask_udp(server.port, ask("localhost")))

    assert banned.rcode() == dns.rcode.NXDOMAIN
    assert allowed.rcode() == dns.rcode.SERVFAIL
    (error,) = [option for option in allowed.options if isinstance(option, dns.edns.EDEOption)]
    assert error.code == Ede.NO_REACHABLE_AUTHORITY
    assert "refused" in str(error.text)
    assert local.answer[0][0].to_text() == "127.0.0.1"


def test_a_reply_comes_from_the_address_that_was_asked(
    make_server: Callable[..., Server], upstream: tuple[str, int]
) -> None:
    """Listening on all addresses: 127.0.0.7 answers as 127.0.0.7, banned, cached and fresh alike."""
    server = make_server(upstream)
    server.config["listen"] = [f"0.0.0.0:{server.port}"]
    server.ban("order-1", "banned-app.ca")
    server.start()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        for name in ("banned-app.ca", "banned-app.ca", "www.allowed.ca", "www.allowed.ca"):
            sock.sendto(ask(name), ("127.0.0.7", server.port))
            _, origin = sock.recvfrom(4096)
            assert origin == ("127.0.0.7", server.port)
