"""QUIC with real sockets on loopback: who comes in, who has to go, and what nobody can take from others."""

import asyncio
import socket
from collections.abc import Callable

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.packet import QuicErrorCode, QuicPacketType, QuicProtocolVersion, pull_quic_header
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resolver.transport.connection import QuicTerms
from resolver.transport.places import PlaceTerms
from resolver.transport.quic import DATAGRAM_OCTETS, Certificate
from resolver.transport.sockets import has_address
from resolver.transport.tls import TlsError
from tests.support.answerer import reply_to
from tests.support.house import ask
from tests.support.quic import BUILDS, PAPERS, Doors, Papers, Visitor, condition, doors, papers, play

WWW = ask("www.example.org", message_id=0)
LATER = ask("later.example.org", message_id=0)
OTHERS = papers(serial=100)


async def is_served(visitor: Visitor) -> bool:
    """Whether a query is answered."""
    stream = await visitor.answered(visitor.ask(WWW))
    return bytes(stream.octets[2:]) == reply_to(WWW)


def first_packet(version: int = 1, octets: int = 1200, destination: bytes = b"\1" * 8, token: bytes = b"") -> bytes:
    """What looks like a first packet, and can not be read."""
    head = b"\xc0" + version.to_bytes(4, "big")
    head += bytes([len(destination)]) + destination + b"\4\2\2\2\2" + bytes([len(token)]) + token
    rest = octets - len(head) - 2
    return head + (0x4000 | rest).to_bytes(2, "big") + bytes(rest)


class Raw:
    """A plain socket to a door."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind((source, 0))
        self._sock.connect(("127.0.0.1", port))
        self._sock.setblocking(False)

    def send(self, datagram: bytes) -> None:
        self._sock.send(datagram)

    async def received(self) -> bytes:
        async with asyncio.timeout(5):
            return await asyncio.get_running_loop().sock_recv(self._sock, 65_535)

    def has_something(self) -> bool:
        try:
            return bool(self._sock.recv(65_535))
        except BlockingIOError:
            return False

    def close(self) -> None:
        self._sock.close()


@pytest.mark.parametrize("build", BUILDS)
def test_many_connections_are_served_at_once(build: str) -> None:
    """Each its own."""

    async def story() -> None:
        async with doors() as d:
            visitors = [await d.visit() for _ in range(20)]
            assert len(d.server) == len(d.places) == 20
            streams = [(visitor, visitor.ask(WWW)) for visitor in visitors for _ in range(10)]
            for visitor, stream_id in streams:
                assert bytes((await visitor.answered(stream_id)).octets[2:]) == reply_to(WWW)
            visitors[0].quic.close()
            visitors[0].transmit()
            await condition(lambda: len(d.server) == len(d.places) == 19)

    play(story(), build)


def test_both_versions_are_spoken() -> None:
    """QUIC version 2 (RFC 9369) and 1."""

    async def story() -> None:
        async with doors() as d:
            for version in (QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2):
                assert await is_served(await d.visit(supported_versions=[version]))

    play(story())


def test_a_version_that_nobody_speaks_is_answered_with_those_that_are_spoken() -> None:
    """RFC 9000 §6.1: from datagrams of full size on; a Version Negotiation packet gets no answer (RFC 8999 §6)."""

    async def story() -> None:
        async with doors() as d:
            raw = Raw(d.ports["doq"])
            raw.send(first_packet(version=0))
            raw.send(first_packet(version=0x1A2A3A4A, octets=1199))
            raw.send(first_packet(version=0x1A2A3A4A, destination=b"\7" * 30))
            reply = await raw.received()
            assert reply[1:5] == bytes(4)
            assert reply[5:10] == b"\4\2\2\2\2"  # each id is the other one's (RFC 8999 §6)
            assert reply[10:41] == b"\x1e" + b"\7" * 30
            versions = {reply[i : i + 4] for i in range(41, len(reply), 4)}
            assert {bytes.fromhex("00000001"), bytes.fromhex("6b3343cf")} <= versions
            assert not raw.has_something()
            raw.close()
            assert len(d.server) == 0

    play(story())


@pytest.mark.parametrize(
    "datagram",
    [
        first_packet(),  # can not be decrypted
        first_packet(octets=1199),  # RFC 9000 §14.1
        first_packet(destination=b"\1" * 7),  # RFC 9000 §7.2
        first_packet()[:700] + bytes(500),
        b"\x80" + first_packet()[1:],  # the fixed bit is 0 (RFC 9000 §17.2)
        b"\xe0" + first_packet()[1:],  # a handshake packet of nobody's
        b"\x40" + bytes(20),  # a short header of nobody's, too short for a stateless reset (RFC 9000 §10.3)
        b"\xc0",
        b"",
    ],
)
def test_what_begins_no_connection_leaves_nothing_and_gets_nothing(datagram: bytes) -> None:
    """No state for what anybody can send under any address."""

    async def story() -> None:
        async with doors() as d:
            raw = Raw(d.ports["doq"])
            raw.send(datagram)
            assert await is_served(await d.visit())
            assert len(d.server) == 1
            assert not raw.has_something()
            raw.close()

    play(story())


def test_handshakes_that_go_nowhere_take_no_room_from_others() -> None:
    """Once so many are half open, who comes has to show that he has his address (RFC 9000 §8.1.2), and is served."""

    async def story() -> None:
        async with doors(QuicTerms(half_open=5)) as d:
            for _ in range(5):
                await d.visit(deaf=True)
            await condition(lambda: d.server.half_open == 5)
            more = [await d.visit(deaf=True) for _ in range(20)]
            await condition(lambda: all(visitor.datagrams for visitor in more))
            assert len(d.server) == d.server.half_open == 5
            honest = await d.visit()
            assert honest.quic._retry_count == 1
            assert await is_served(honest)
            assert d.server.half_open == 5
            assert len(d.server) == 6

    play(story())


def test_a_flood_of_first_packets_that_are_none_is_met_with_tokens() -> None:
    """Each costs half a millisecond of trying to read it; a second later all is as before."""

    async def story() -> None:
        async with doors(QuicTerms(half_open=5)) as d:
            raw = Raw(d.ports["doq"])
            d.clock.ahead = 1000 - d.clock() % 1  # a second has just begun
            for n in range(6):
                raw.send(first_packet(destination=bytes([n]) * 8))
            assert len(await raw.received()) < 200
            assert not raw.has_something()
            honest = await d.visit()
            assert honest.quic._retry_count == 1
            assert await is_served(honest)
            d.clock.ahead += 1
            assert (await d.visit()).quic._retry_count == 0
            raw.close()

    play(story())


def test_a_retry_is_smaller_than_what_it_answers_and_kept_nowhere() -> None:
    """RFC 9000 §8.1.2, §17.2.5."""

    async def story() -> None:
        async with doors(QuicTerms(half_open=0)) as d:
            visitor = await d.visit(deaf=True)
            await condition(lambda: visitor.datagrams == 1)
            assert visitor.octets < 200
            assert len(d.server) == len(d.places) == 0

    play(story())


def test_a_token_that_is_not_ours_is_told_so() -> None:
    """RFC 9000 §8.1.2: INVALID_TOKEN, or the client would wait for ever; nothing is kept."""

    async def story() -> None:
        async with doors() as d:
            for token in (b"\1", b"not a token of this server, but long enough", b"\0" * 60):
                visitor = await d.visit(token=token, wait=False)
                assert await visitor.closed() == QuicErrorCode.INVALID_TOKEN
            assert len(d.server) == 0

    play(story())


def test_a_handshake_has_its_time() -> None:
    """Then its place is free."""

    async def story() -> None:
        async with doors(QuicTerms(handshake_timeout=0.2)) as d:
            steady = await d.visit()
            await d.visit(deaf=True)
            await condition(lambda: d.server.half_open == 1)
            await condition(lambda: d.server.half_open == 0)
            assert len(d.server) == 1
            assert await is_served(steady)

    play(story())


def test_an_address_that_is_not_shown_to_be_the_senders_gets_three_times_what_it_sent() -> None:
    """RFC 9000 §8.1, RFC 9250 §5.3: at the most, however long the chain of certificates."""
    long_chain = Certificate(PAPERS.chain + PAPERS.authority * 12, PAPERS.key)

    async def story() -> None:
        async with doors() as d:
            d.server.renew(long_chain)
            visitor = await d.visit(deaf=True)
            await condition(lambda: visitor.octets >= 3000)
            assert visitor.octets <= 3 * 1200 * visitor.sent
            honest = await d.visit()
            assert await is_served(honest)
            assert visitor.octets <= 3 * 1200 * visitor.sent

    play(story())


def test_when_all_places_are_taken_the_idle_one_goes_first() -> None:
    """Busy ones stay, and who finds no place is told (RFC 9000 §5.2.2, CONNECTION_REFUSED)."""

    async def story() -> None:
        async with doors(places=PlaceTerms(connections=2)) as d:
            idle = await d.visit()
            busy = await d.visit()
            busy.ask(LATER)
            await condition(lambda: len(d.answerer.waiting) == 1)
            third = await d.visit()
            assert len(d.server) == 2
            third.ask(LATER)
            await condition(lambda: len(d.answerer.waiting) == 2)
            refused = await d.visit(wait=False)
            assert await refused.closed() == QuicErrorCode.CONNECTION_REFUSED
            idle.hang_up()
            d.answerer.release()
            assert await is_served(busy)
            assert await is_served(third)

    play(story())


def test_one_address_has_its_share_of_the_places() -> None:
    """Others find room."""

    async def story() -> None:
        async with doors(places=PlaceTerms(connections=10, per_client=2)) as d:
            for _ in range(5):
                await d.visit(source="127.0.0.7")
            assert len(d.server) == 2
            assert await is_served(await d.visit(source="127.0.0.8"))

    play(story())


@pytest.mark.parametrize(("host", "asked"), [("0.0.0.0", "127.0.0.77"), ("::", "::1"), ("::1", "::1")])
@pytest.mark.parametrize("build", BUILDS)
def test_replies_come_from_the_address_that_was_asked(host: str, asked: str, build: str) -> None:
    """Bound to all addresses too, and over IPv6; a client takes them from no other."""
    if not has_address(asked):
        pytest.skip(f"this machine has no {asked}")

    async def story() -> None:
        async with doors(QuicTerms(half_open=0), host=host) as d:
            visitor = Visitor("doq")
            d.visitors.append(visitor)
            await visitor.connect(d.ports["doq"], host=asked, source="::1" if ":" in asked else "127.0.0.1")
            await visitor.connected()
            assert await is_served(visitor)
            assert visitor.quic._retry_count == 1
            client = d.answerer.seen[0][1]
            assert client.address == (bytes(15) + b"\1" if ":" in asked else b"\x7f\0\0\1")

    play(story(), build)


def test_a_new_certificate_is_shown_to_new_clients_and_loses_no_connection() -> None:
    """Open ones go on."""

    async def story() -> None:
        async with doors() as d:
            old = await d.visit()
            d.server.renew(Certificate(OTHERS.chain, OTHERS.key))
            assert await is_served(old)
            assert await is_served(await d.visit(papers=OTHERS))
            distrustful = await d.visit(wait=False)
            assert await distrustful.closed() > 0x100
            assert await is_served(old)

    play(story())


def locked(pair: Papers) -> bytes:
    key = Certificate(pair.chain, pair.key).key
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


@pytest.mark.parametrize(
    ("chain", "key"),
    [
        (PAPERS.chain, OTHERS.key),
        (b"", PAPERS.key),
        (PAPERS.key, PAPERS.key),
        (PAPERS.chain, b""),
        (PAPERS.chain, PAPERS.chain),
        (PAPERS.chain, locked(PAPERS)),
        (PAPERS.chain.replace(b"M", b"N"), PAPERS.key),
    ],
)
def test_a_certificate_that_can_not_be_used_is_refused_with_the_mend(chain: bytes, key: bytes) -> None:
    """Before anybody is shown it."""
    with pytest.raises(TlsError, match=r"PEM|pair"):
        Certificate(chain, key)


def test_text_around_the_certificates_is_no_matter() -> None:
    """Tools write some."""
    made = Certificate(b"subject: x\n" + PAPERS.chain.replace(b"\n", b"\r\n") + b"\n\n", PAPERS.key)
    assert len(made.chain) == 1


def test_nobody_is_let_in_on_leaving() -> None:
    """And what was half open is gone."""

    async def story() -> None:
        async with doors() as d:
            await d.visit(deaf=True)
            await condition(lambda: d.server.half_open == 1)
            busy = await d.visit()
            busy.ask(LATER)
            await condition(lambda: len(d.answerer.waiting) == 1)
            closing = asyncio.ensure_future(d.server.close(5.0))
            await condition(lambda: d.server.is_leaving)
            late = await d.visit(wait=False)
            d.answerer.release()
            await closing
            assert late.datagrams == 0
            assert len(d.server) == 0

    play(story())


def pour(d: Doors, strategy: st.SearchStrategy[bytes]) -> None:
    """Let a door take any datagrams."""
    window = d.server._windows[0]

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def take(datagram: bytes) -> None:
        window.receive(datagram, ("127.0.0.1", 9), [])

    take()


def mutated(datagram: bytes) -> st.SearchStrategy[bytes]:
    def change(changes: list[tuple[int, int]]) -> bytes:
        octets = bytearray(datagram)
        for at, octet in changes:
            octets[at % len(octets)] = octet
        return bytes(octets)

    near = st.tuples(st.integers(0, 60) | st.integers(0, 2000), st.integers(0, 255))
    return st.lists(near, max_size=6).map(change)


DATAGRAMS: dict[str, Callable[[], st.SearchStrategy[bytes]]] = {
    "any": lambda: st.binary(max_size=DATAGRAM_OCTETS),
    "long": lambda: st.binary(min_size=5, max_size=200).map(lambda b: (b"\xc0\0\0\0\1" + b).ljust(1200, b"\0")),
    "first packets": lambda: mutated(first_packet(token=b"token")),
}


@pytest.mark.parametrize("kind", DATAGRAMS)
def test_any_datagrams_leave_the_server_as_it_was(kind: str) -> None:
    """Nothing is raised, no connection is made, and others are served."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit()
            pour(d, DATAGRAMS[kind]())
            assert len(d.server) == 1
            assert await is_served(visitor)

    play(story())


def test_any_change_to_a_hello_is_survived() -> None:
    """What authentication does not catch ends in a handshake, or in none."""

    async def story() -> None:
        async with doors(places=PlaceTerms(per_client=50)) as d:
            seen: list[bytes] = []
            visitor = Visitor("doq")
            d.visitors.append(visitor)
            visitor.quic.connect(("127.0.0.1", 1), 0.0)
            seen += [datagram for datagram, _ in visitor.quic.datagrams_to_send(0.0)]
            pour(d, mutated(seen[0]))
            assert await is_served(await d.visit())

    play(story())


@pytest.mark.parametrize(("octets", "is_taken"), [(7, False), (8, True)])
def test_the_first_id_is_long_enough_not_to_be_guessed(octets: int, is_taken: bool) -> None:
    """RFC 9000 §7.2: 8 octets at least."""

    async def story() -> int:
        async with doors() as d:
            visitor = Visitor("doq")
            d.visitors.append(visitor)
            visitor.quic._peer_cid.cid = b"\5" * octets
            visitor.quic.connect(("127.0.0.1", 1), 0.0)
            raw = Raw(d.ports["doq"])
            raw.send(visitor.quic.datagrams_to_send(0.0)[0][0])
            assert await is_served(await d.visit())
            raw.close()
            return d.server.half_open

    assert play(story()) == is_taken


@pytest.mark.parametrize(("octets", "is_read"), [(DATAGRAM_OCTETS, True), (DATAGRAM_OCTETS + 1, False)])
def test_a_datagram_too_long_is_not_read(octets: int, is_read: bool) -> None:
    """It could hold thousands of packets, each to be tried."""

    async def story() -> int:
        async with doors() as d:
            visitor = Visitor("doq")
            d.visitors.append(visitor)
            visitor.quic.connect(("127.0.0.1", 1), 0.0)
            ((hello, _),) = visitor.quic.datagrams_to_send(0.0)
            raw = Raw(d.ports["doq"])
            raw.send(hello.ljust(octets, b"\0"))
            assert await is_served(await d.visit())
            raw.close()
            return d.server.half_open

    assert play(story()) == is_read


def test_the_first_reply_is_padded_and_speaks_for_the_id_that_was_chosen() -> None:
    """RFC 9000 §14.1, §7.2: an Initial packet in a datagram of 1200 octets, towards the client's id."""

    async def story() -> None:
        async with doors() as d:
            visitor = Visitor("doq")
            d.visitors.append(visitor)
            visitor.quic.connect(("127.0.0.1", 1), 0.0)
            raw = Raw(d.ports["doq"])
            for datagram, _ in visitor.quic.datagrams_to_send(0.0):
                raw.send(datagram)
            reply = await raw.received()
            header = pull_quic_header(Buffer(data=reply))
            assert header.packet_type is QuicPacketType.INITIAL
            assert header.destination_cid == visitor.quic.host_cid
            assert len(reply) == 1200
            raw.close()

    play(story())


def test_a_client_is_told_that_its_connection_is_gone() -> None:
    """RFC 9000 §10.3: by the token that goes with the id, in a datagram shorter than its own."""

    async def story() -> None:
        async with doors() as d:
            visitor = await d.visit()
            assert await is_served(visitor)
            (connection,) = d.server.connections
            connection.vanish()
            token = visitor.quic._peer_cid.stateless_reset_token
            visitor.ask(WWW)
            await condition(lambda: visitor.last[-16:] == token)
            raw = Raw(d.ports["doq"])
            known = visitor.quic._peer_cid_available[0]
            for octets in range(10, 60):
                raw.send((b"\x40" + known.cid).ljust(octets, b"\0"))
                if octets >= 22:
                    reset = await raw.received()
                    assert len(reset) == min(octets - 1, 43)
                    assert reset[-16:] == known.stateless_reset_token
                    assert reset[0] & 0xC0 == 0x40
            assert not raw.has_something()
            raw.close()
            assert len(d.server) == 0

    play(story())


def test_a_client_that_is_gone_holds_no_stop_up() -> None:
    """What was said to it is never acknowledged; it is waited for a moment, and not for all the patience there is."""

    async def story() -> float:
        async with doors() as d:
            gone = await d.visit()
            gone.ask(LATER)
            await condition(lambda: len(d.answerer.waiting) == 1)
            gone.hang_up()
            d.answerer.release()
            (connection,) = d.server.connections
            assert connection.is_waited_for
            loop = asyncio.get_running_loop()
            begun = loop.time()
            await d.server.close(30.0)
            return loop.time() - begun

    assert play(story()) < 15.0
