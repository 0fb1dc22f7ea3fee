"""A resolver on loopback, over UDP and TCP, whose answers are a function of the test's."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Mapping

import dns.flags
import dns.message
import dns.rcode

from tests.support.server import SlowUpstream

Answer = Callable[[dns.message.Message], dns.message.Message | None]


class Resolving(SlowUpstream):
    """A resolver over UDP, and where wanted over TCP on the same port."""

    def __init__(self, answer: Answer, *, tcp: str = "answers", tls: ssl.SSLContext | None = None) -> None:
        """Set up.

        Args:
            answer: What it says; None is silence.
            tcp: Over TCP it `answers`, `closes` what it accepts, or `refuses`.
            tls: What it speaks over TCP.
        """
        super().__init__(lambda query: self._say(answer, query))
        self._answer, self._how, self._tls = answer, tcp, tls
        self._listening = socket.socket()
        self._listening.bind(self.address)
        self._accepting = threading.Thread(target=self._accept)

    @staticmethod
    def _say(answer: Answer, query: bytes) -> bytes | None:
        reply = answer(dns.message.from_wire(query))
        return None if reply is None else reply.to_wire()

    def __enter__(self) -> "Resolving":
        super().__enter__()
        if self._how != "refuses":
            self._listening.listen()
            self._accepting.start()
        return self

    def __exit__(self, *words: object) -> None:
        super().__exit__(*words)
        if self._how != "refuses":
            self._listening.shutdown(socket.SHUT_RDWR)
            self._accepting.join()
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            with sock:
                if self._how == "answers":
                    with contextlib.suppress(OSError):  # who does not trust us hangs up
                        self._serve(sock if self._tls is None else self._tls.wrap_socket(sock, server_side=True))

    def _serve(self, sock: socket.socket) -> None:
        """Answer the queries of a connection until its end."""
        with sock, sock.makefile("rb") as file:
            while head := file.read(2):
                reply = self._say(self._answer, file.read(int.from_bytes(head, "big")))
                if reply is not None:
                    sock.sendall(len(reply).to_bytes(2, "big") + reply)


def says(*, ad: bool = True, edns: bool = True, rcodes: Mapping[str, str] | None = None) -> Answer:
    """An answer to everything, with an RCODE of its own for some names."""

    def answer(query: dns.message.Message) -> dns.message.Message:
        reply = dns.message.make_response(query, recursion_available=True)
        name = query.question[0].name.to_text()
        reply.set_rcode(dns.rcode.from_text((rcodes or {}).get(name, "NOERROR")))
        if ad:
            reply.flags |= dns.flags.AD
        if not edns:
            reply.use_edns(False)
        return reply

    return answer
