"""Replies as `interdict query` shows them."""

import socket

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest

from resolver.cli.ask import NoReply, Reply, ask, reachable, to_json, to_text
from resolver.policy.values import Endpoint
from resolver.wire import name as names
from resolver.wire.codes import Rtype

SERVER = Endpoint("192.0.2.53", 5300)


def reply_of(*options: dns.edns.Option, rcode: dns.rcode.Rcode = dns.rcode.NXDOMAIN) -> Reply:
    query = dns.message.make_query("chat.example.", "AAAA", use_edns=0)
    message = dns.message.make_response(query, recursion_available=True)
    message.set_rcode(rcode)
    message.use_edns(0, options=list(options))
    return Reply(message, SERVER, "udp", 0.0021)


def test_an_extended_error_is_spelled_out() -> None:
    """Code, the registry's name, what it means for the person, and the server's own words."""
    text = to_text(reply_of(dns.edns.EDEOption(16, "order ban, app chat")))

    assert ";; NXDOMAIN, id " in text
    assert ";; from 192.0.2.53:5300 (UDP) in 2.1 ms" in text
    assert ";chat.example. IN AAAA" in text
    assert ";; EDE 16 Censored (RFC 8914 §4.17): order ban, app chat" in text
    assert "an outside authority requires that this name is withheld" in text


def test_an_unknown_extended_error_is_shown_by_its_number() -> None:
    """Codes of later registries are no reason to fail."""
    assert ";; EDE 4242 unknown code: x" in to_text(reply_of(dns.edns.EDEOption(4242, "x")))


@pytest.mark.parametrize("hostile", ["\x1b[2Jgone", "a\nb", "\u202egnp.exe"])
def test_a_strangers_words_do_not_act_on_the_terminal(hostile: str) -> None:
    """Escapes, line ends and direction marks are shown as what they are."""
    for text in (
        to_text(reply_of(dns.edns.EDEOption(15, hostile))),
        to_text(reply_of(dns.edns.NSIDOption(hostile.encode()))),
    ):
        assert hostile not in text
        assert f"\\u{ord(next(c for c in hostile if not c.isprintable())):04x}" in text


def test_json_has_stable_keys() -> None:
    """A program finds everything under its key, records one by one."""
    reply = reply_of(dns.edns.EDEOption(16, "order ban"), dns.edns.NSIDOption(b"node-1"))
    reply.message.answer.append(dns.rrset.from_text("chat.example.", 30, "IN", "AAAA", "2001:db8::1", "2001:db8::2"))

    found = to_json(reply)

    assert found == {
        "server": "192.0.2.53:5300", "transport": "udp", "milliseconds": 2.1, "id": reply.message.id,
        "rcode": "NXDOMAIN", "flags": ["qr", "rd", "ra"], "question": {"name": "chat.example.", "type": "AAAA"},
        "answer": [
            {"name": "chat.example.", "ttl": 30, "type": "AAAA", "data": "2001:db8::1"},
            {"name": "chat.example.", "ttl": 30, "type": "AAAA", "data": "2001:db8::2"},
        ],
        "authority": [], "additional": [], "ede": [{"code": 16, "meaning": "Censored", "text": "order ban"}],
        "nsid": "node-1",
    }  # fmt: skip


def test_a_listener_on_every_address_is_asked_on_loopback() -> None:
    """0.0.0.0 and :: are no addresses to send to."""
    assert [str(reachable(Endpoint(host, 53))) for host in ("0.0.0.0", "::", "192.0.2.1")] == [
        "127.0.0.1:53",
        "[::1]:53",
        "192.0.2.1:53",
    ]


def test_a_closed_port_is_no_reply() -> None:
    """The message names the server and what to do."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]

    with pytest.raises(NoReply, match=f"127.0.0.1:{port} did not reply .*start `interdict serve`"):
        ask(Endpoint("127.0.0.1", port), names.from_text("example.org"), Rtype.A, tcp=True, dnssec=False, wait=5.0)
