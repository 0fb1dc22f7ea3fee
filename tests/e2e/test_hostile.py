"""Bytes that strangers send: the server lives, says what is right or nothing, and never answers a response."""

import itertools
import random
import re
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import dns.rcode
import pytest

from tests.support.house import ask
from tests.support.server import Server, SlowUpstream, ask_tcp, ask_udp, wait_until

pytestmark = pytest.mark.e2e

CORPUS = sorted((Path(__file__).parents[1] / "corpus" / "malformed").glob("*-gets-*.bin"))
REPLIES = sorted((Path(__file__).parents[1] / "corpus" / "malformed").glob("a-reply-*-is-ignored.bin"))
REPLIES = [path for path in REPLIES if "another-id" not in path.stem]  # here each one comes under the right id
_numbers = itertools.count()


def canary() -> bytes:
    """A query that only the pipeline can answer, so that it is answered after what came before it."""
    return ask(f"canary{next(_numbers)}.invalid", message_id=0xCAFE)


def said_over_udp(server: Server, packets: list[bytes]) -> list[bytes]:
    """Everything that comes back for some datagrams, until the reply to a query sent after them has come."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", server.port))
        sock.settimeout(10)
        found = []
        for packet in [*packets, canary()]:
            sock.send(packet)
        while (reply := sock.recv(65535))[:2] != b"\xca\xfe":
            found.append(reply)
        return found


def said_over_tcp(server: Server, packet: bytes) -> list[bytes]:
    """The same on a TCP connection."""
    with socket.create_connection(("127.0.0.1", server.port), 10) as sock, sock.makefile("rb") as file:
        sock.sendall(b"".join(len(p).to_bytes(2, "big") + p for p in (packet, canary())))
        found = []
        while (reply := file.read(int.from_bytes(file.read(2), "big")))[:2] != b"\xca\xfe":
            assert reply
            found.append(reply)
        return found


@pytest.mark.parametrize("path", CORPUS, ids=[path.stem for path in CORPUS])
@pytest.mark.parametrize("over", ["udp", "tcp"])
def test_a_malformed_message_gets_what_its_name_says(running: Server, path: Path, over: str) -> None:
    """FORMERR, NOTIMP, BADVERS or silence, over both transports; its id comes back, and QR is set."""
    packet = path.read_bytes()
    wanted = path.stem.rpartition("-gets-")[2]

    said = said_over_udp(running, [packet]) if over == "udp" else said_over_tcp(running, packet)

    if wanted == "silence":
        assert said == []
        return
    (reply,) = said
    assert reply[:2] == packet[:2]
    assert reply[2] & 0x80
    rcode = dns.rcode.from_text(wanted)
    assert reply[3] & 15 == rcode & 15


def noise(seed: int, count: int) -> list[bytes]:
    """Random octets, and queries with some octets changed, cut or doubled; none with the canary's id."""
    chance = random.Random(seed)
    made = []
    for n in range(count):
        if n % 3 == 0:
            packet = chance.randbytes(chance.randrange(0, 600))
        else:
            octets = bytearray(ask(chance.choice(["a.banned-app.ca", "www.allowed.ca", "localhost"]), do=n % 2 == 0))
            for _ in range(chance.randrange(1, 6)):
                octets[chance.randrange(2, len(octets))] = chance.randrange(256)
            packet = bytes(octets[: chance.randrange(len(octets) + 1)] if n % 5 == 0 else octets)
        made.append(b"\0\0" + packet[2:])
    return made


@pytest.mark.parametrize("seed", range(4))
def test_random_octets_over_udp_are_survived(running: Server, seed: int) -> None:
    """Every reply is a response to a query that was sent; responses get none; nothing is larger than it may be."""
    for start in range(0, 600, 30):
        packets = noise(1000 * seed + start, 30)
        replies = said_over_udp(running, packets)

        questions = [packet for packet in packets if len(packet) >= 12 and not packet[2] & 0x80]
        assert len(replies) <= len(questions)
        assert all(len(reply) >= 12 and reply[2] & 0x80 and len(reply) <= 1232 for reply in replies)


def test_random_octets_over_tcp_are_survived(running: Server) -> None:
    """Whatever the lengths say; the next connection is served."""
    chance = random.Random(7)
    for _ in range(40):
        with socket.create_connection(("127.0.0.1", running.port), 10) as sock:
            sock.sendall(chance.randbytes(chance.randrange(1, 3000)))
            if chance.random() < 0.5:  # end it with a reset
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    assert ask_tcp(running.port, [canary()])[0][3] & 15 == dns.rcode.NXDOMAIN


def test_a_response_is_never_answered(running: Server) -> None:
    """Two servers that answer each other's answers would never stop."""
    responses = [bytes([0, n]) + bytes([0x80 | n & 0x7F]) + ask("a.banned-app.ca")[3:] for n in range(128)]

    assert said_over_udp(running, responses) == []


def test_nothing_grows_much_larger_than_its_question(running: Server) -> None:
    """Without EDNS 512 octets at most; for what is large, the truncated bit instead of the answer."""
    for name, rtype in (("big.upstream-zone", "TXT"), ("big.upstream-zone", "ANY"), ("im.banned-app.ca", "ANY")):
        reply = ask_udp(running.port, ask(name, rtype, edns=False))
        assert len(reply) <= 512
        reply = ask_udp(running.port, ask(name, rtype, payload=65535))
        assert len(reply) <= 1232


def test_the_server_has_no_complaint(running: Server) -> None:
    """After all of the above: the same processes, no restart, and no exception in the log."""
    assert running.ask_control("status")["restarts"]["worker"] == 0
    assert "Traceback" not in running.log.read_text()


def mirrored(query: bytes) -> bytes:
    return query[:2] + bytes([query[2] | 0x80]) + query[3:]


@pytest.mark.parametrize("seed", range(3))
def test_an_upstream_that_sends_noise_is_ignored(make_server: Callable[..., Server], seed: int) -> None:
    """What is not well formed never reaches a client as an answer, and nothing dies of it."""
    chance = random.Random(seed)

    def react(query: bytes) -> bytes:
        octets = bytearray(mirrored(query))
        for _ in range(chance.randrange(1, 4)):
            octets[chance.randrange(len(octets))] = chance.randrange(256)
        return bytes(octets[: chance.randrange(len(octets) + 1)] if chance.random() < 0.3 else octets)

    with SlowUpstream(react) as noisy:
        server = make_server(noisy.address, forwarder={"try_timeout": "20ms", "deadline": "100ms"}).start()
        for n in range(100):
            reply = ask_udp(server.port, ask(f"n{n}.allowed.ca", message_id=n))
            assert reply[:2] == n.to_bytes(2, "big")
            assert re.search(rb"n%d\x07allowed\x02ca" % n, reply)
        wait_until("status", lambda: server.ask_control("status")["restarts"]["worker"] == 0)
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("path", REPLIES, ids=[path.stem for path in REPLIES])
def test_a_malformed_reply_of_an_upstream_ends_in_servfail(make_server: Callable[..., Server], path: Path) -> None:
    """It counts for nothing; the client is told that nobody answered."""
    with SlowUpstream(lambda query: query[:2] + path.read_bytes()[2:]) as broken:
        server = make_server(broken.address, forwarder={"try_timeout": "50ms", "deadline": "150ms"}, workers=1).start()

        assert ask_udp(server.port, ask("www.example.org"))[3] & 15 == dns.rcode.SERVFAIL
