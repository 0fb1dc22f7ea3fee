"""What one client does over TCP, however fast, is not felt by others over UDP."""

import socket
import threading
import time
from collections.abc import Callable

import pytest

from tests.support.house import ask
from tests.support.server import Server

pytestmark = pytest.mark.e2e

MakeServer = Callable[..., Server]

CLIENTS = 5
QUERIES = 10_000  # of each client; together some seconds of work for one worker
PROBES = 20
# On an idle machine a probe takes milliseconds, on one that is busy tens of them; behind the flood it would take as
# long as the flood, seconds.
BOUND = 0.5


class Flood:
    """One TCP client that sends all it has at once and takes what comes."""

    def __init__(self, port: int, packets: list[bytes]) -> None:
        self.received = bytearray()
        self._sock = socket.create_connection(("127.0.0.1", port), 30)
        self._octets = b"".join(len(packet).to_bytes(2, "big") + packet for packet in packets)
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        self._sock.sendall(self._octets)
        self._sock.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        while octets := self._sock.recv(1 << 20):
            self.received += octets

    def replies(self) -> list[bytes]:
        """All that came until the server closed the connection."""
        for thread in self._threads:
            thread.join()
        self._sock.close()
        found, at = [], 0
        while at < len(self.received):
            end = at + 2 + int.from_bytes(self.received[at : at + 2], "big")
            found.append(bytes(self.received[at + 2 : end]))
            at = end
        return found


@pytest.mark.slow
def test_udp_is_answered_while_tcp_clients_pipeline_as_fast_as_they_can(make_server: MakeServer) -> None:
    """Each probe soon and none lost, and every query of the flood gets its answer too."""
    server = make_server(workers=1)
    server.ban("order-1", "banned-app.ca")
    server.start()
    packets = [ask("im.banned-app.ca", message_id=n) for n in range(QUERIES)]
    floods = [Flood(server.port, packets) for _ in range(CLIENTS)]
    waits = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", server.port))
        sock.settimeout(30)
        for flood in floods:
            flood.start()
        for n in range(PROBES):
            time.sleep(0.01)  # between the probes, so that they meet the flood at different moments
            start = time.monotonic()
            sock.send(ask(f"probe{n}.banned-app.ca", message_id=n))
            reply = sock.recv(65535)
            waits.append(time.monotonic() - start)
            assert reply[:2] == n.to_bytes(2, "big")
            assert reply[3] & 15 == 3

    answered = [sorted(int.from_bytes(reply[:2], "big") for reply in flood.replies()) for flood in floods]
    assert answered == [list(range(QUERIES))] * CLIENTS
    assert max(waits) < BOUND, sorted(waits)[-5:]
