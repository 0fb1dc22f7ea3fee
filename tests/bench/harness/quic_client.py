"""Asks over QUIC as fast as answers come, a window at a time, and prints what it saw as JSON; a program of its own.

    quic_client.py doq|doh3 PORT QUESTIONS SECONDS WINDOW PATH

One connection, whose certificate is not looked at. Every answer must echo its question and have the RCODE that the
file demands. A stream that is reset counts as lost.
"""

import asyncio
import contextlib
import json
import ssl
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import cast

import dns.message
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent, StreamDataReceived, StreamReset

_PATIENCE_S = 3.0  # for the last answers
_QUESTIONS = 1_000  # of the file; more than a second's


class Asker(QuicConnectionProtocol):
    """One connection: asks the next question whenever an answer is whole."""

    questions: Iterator[tuple[bytes, int]]
    path: str
    _http: H3Connection | None = None
    _until = 0.0

    def begin(self, window: int, until: float) -> None:
        """Ask the first questions; the others follow until that moment."""
        self._until = until
        self._under_way: dict[int, tuple[bytes, int, float, bytearray]] = {}
        self.over = asyncio.Event()
        self.asked = self.answered = self.lost = self.garbled = self.unexpected = 0
        self.rcodes: Counter[str] = Counter()
        self.times: list[float] = []
        for _ in range(window):
            self._ask()
        self.transmit()

    def _ask(self) -> None:
        query, rcode = next(self.questions)
        stream = self._quic.get_next_available_stream_id()
        self._under_way[stream] = query, rcode, time.monotonic(), bytearray()
        self.asked += 1
        if self._http is None:
            self._quic.send_stream_data(stream, len(query).to_bytes(2, "big") + query, end_stream=True)
            return
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", b"localhost"),
            (b":path", self.path.encode()),
            (b"accept", b"application/dns-message"),
            (b"content-type", b"application/dns-message"),
            (b"content-length", str(len(query)).encode()),
        ]
        self._http.send_headers(stream, fields)
        self._http.send_data(stream, query, end_stream=True)

    def quic_event_received(self, event: QuicEvent) -> None:
        """Put answers together."""
        if isinstance(event, ProtocolNegotiated) and event.alpn_protocol in H3_ALPN:
            self._http = H3Connection(self._quic)
        elif isinstance(event, StreamReset):
            self.lost += 1
            self._under_way.pop(event.stream_id, None)
            self._next()
        elif self._http is not None:
            for part in self._http.handle_event(event):
                if isinstance(part, DataReceived):
                    self._take(part.stream_id, part.data, part.stream_ended)
                elif isinstance(part, HeadersReceived) and dict(part.headers).get(b":status") != b"200":
                    self.garbled += 1
        elif isinstance(event, StreamDataReceived):
            self._take(event.stream_id, event.data, event.end_stream)

    def _take(self, stream: int, octets: bytes, is_over: bool) -> None:
        if stream not in self._under_way:
            return
        query, rcode, began, so_far = self._under_way[stream]
        so_far += octets
        if not is_over:
            return
        del self._under_way[stream]
        reply = bytes(so_far) if self._http is not None else bytes(so_far[2:])
        whole = self._http is not None or int.from_bytes(so_far[:2], "big") == len(reply)
        self.times.append(time.monotonic() - began)
        self.answered += 1
        if not whole or reply[:2] != query[:2] or reply[12 : len(query)] != query[12:]:
            self.garbled += 1
        elif reply[3] & 15 != rcode:
            self.unexpected += 1
        self.rcodes[str(reply[3] & 15 if len(reply) > 3 else -1)] += 1
        self._next()

    def _next(self) -> None:
        if time.monotonic() < self._until:
            self._ask()
        elif not self._under_way:
            self.over.set()


def _questions(path: Path) -> list[tuple[bytes, int]]:
    found = []
    for line in path.read_text().splitlines()[:_QUESTIONS]:
        name, qtype, rcode = line.split()
        query = dns.message.make_query(name, qtype, id=0)  # RFC 9250 §4.2.1
        found.append((query.to_wire(), int(rcode)))
    return found


async def _load(route: str, port: int, questions: Path, seconds: float, window: int, path: str) -> dict[str, object]:
    Asker.questions, Asker.path = cycle(_questions(questions)), path
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=list(H3_ALPN) if route == "doh3" else ["doq"], verify_mode=ssl.CERT_NONE
    )
    async with connect("127.0.0.1", port, configuration=configuration, create_protocol=Asker) as connection:
        asker = cast(Asker, connection)
        began = time.monotonic()
        asker.begin(window, began + seconds)
        with contextlib.suppress(TimeoutError):  # what has not come by then is lost
            await asyncio.wait_for(asker.over.wait(), seconds + _PATIENCE_S)
        took = time.monotonic() - began
    times = sorted(asker.times) or [0.0]
    return {
        "seconds": took,
        "asked": asker.asked,
        "answered": asker.answered,
        "lost": asker.asked - asker.answered,
        "garbled": asker.garbled,
        "unexpected": asker.unexpected,
        "rcodes": dict(asker.rcodes),
        "mean_us": sum(times) / len(times) * 1e6,
        "p50_us": times[len(times) // 2] * 1e6,
        "p99_us": times[len(times) * 99 // 100] * 1e6,
    }


if __name__ == "__main__":
    route, port, questions, seconds, window, path = sys.argv[1:]
    print(json.dumps(asyncio.run(_load(route, int(port), Path(questions), float(seconds), int(window), path))))
