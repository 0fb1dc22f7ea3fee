"""`interdict query`: one question to a resolver, and its reply as people read it, Extended DNS Errors spelled out."""

import time
from dataclasses import dataclass

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from resolver.cli.options import Failure
from resolver.policy.values import Endpoint
from resolver.wire.codes import Ede

# What each code means for the person who asked.
_EDE_SENTENCES = {
    Ede.STALE_ANSWER: "the upstreams do not answer; this is what they said before",
    Ede.FORGED_ANSWER: "policy replaced the true answer by this one",
    Ede.CACHED_ERROR: "the upstreams failed a moment ago, and are not asked again yet",
    Ede.BLOCKED: "the operator of the resolver withholds this name, on the operator's own policy",
    Ede.CENSORED: "an outside authority requires that this name is withheld",
    Ede.FILTERED: "withheld because the client asked for such filtering",
    Ede.PROHIBITED: "this client may not ask here; see allowed_networks",
    Ede.STALE_NXDOMAIN_ANSWER: "the upstreams do not answer; before, they said that there is no such name",
    Ede.NOT_AUTHORITATIVE: "the question did not ask for recursion, and a forwarder has nothing of its own to say",
    Ede.NO_REACHABLE_AUTHORITY: "an upstream found no server for this name",
    Ede.NETWORK_ERROR: "no upstream answered",
}
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class NoReply(Failure):
    """No reply that can be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, and how it came."""

    message: dns.message.Message
    server: Endpoint
    transport: str  # udp or tcp
    seconds: float


def reachable(endpoint: Endpoint) -> Endpoint:
    """Where to ask a server that listens at an endpoint, on the same machine."""
    return Endpoint(_WILDCARDS.get(endpoint.host, endpoint.host), endpoint.port)


def ask(server: Endpoint, qname: bytes, qtype: int, *, tcp: bool, dnssec: bool, wait: float) -> Reply:
    """Ask one question of class IN; a truncated UDP reply is asked for again over TCP.

    Args:
        server: Whom.
        qname: Wire form.
        qtype: The number of the type.
        tcp: Over TCP from the start.
        dnssec: With the DO bit set (RFC 3225 §3).
        wait: Seconds, in all.

    Raises:
        NoReply: Nobody answered, or not with DNS.
    """
    name = dns.name.from_wire(qname, 0)[0]
    question = dns.message.make_query(
        name,
        dns.rdatatype.RdataType.make(qtype),
        use_edns=0,
        payload=1232,
        want_dnssec=dnssec,
        options=[dns.edns.NSIDOption(b"")],
    )
    begun = time.monotonic()
    try:
        if tcp:
            message, by_tcp = dns.query.tcp(question, server.host, wait, server.port), True
        else:
            message, by_tcp = dns.query.udp_with_fallback(question, server.host, wait, server.port, ignore_errors=True)
    except dns.exception.Timeout:
        raise NoReply(f"{server} did not reply within {wait:g} s; is it the right address and port?") from None
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or "the connection was closed"
        raise NoReply(f"{server} did not reply ({why}); start `interdict serve`, or name another --server") from None
    except (dns.exception.DNSException, ValueError) as error:
        raise NoReply(f"{server} replied with what is no DNS ({_plain(str(error))}); is it a resolver?") from None
    return Reply(message, server, "tcp" if by_tcp else "udp", time.monotonic() - begun)


def to_json(reply: Reply) -> dict[str, object]:
    """The reply for programs."""
    message = reply.message
    question = message.question[0] if message.question else None
    return {
        "server": str(reply.server),
        "transport": reply.transport,
        "milliseconds": round(reply.seconds * 1000, 3),
        "id": message.id,
        "rcode": dns.rcode.to_text(message.rcode()),
        "flags": _flags(message),
        "question": None if question is None else {"name": question.name.to_text(), "type": _type(question)},
        "answer": _records(message.answer),
        "authority": _records(message.authority),
        "additional": _records(message.additional),
        "ede": [{"code": code, "meaning": meaning, "text": text} for code, meaning, _, text in _errors(message)],
        "nsid": _nsid(message),
    }


def to_text(reply: Reply) -> str:
    """The reply for people, in the manner of dig."""
    message = reply.message
    lines = [
        f";; {dns.rcode.to_text(message.rcode())}, id {message.id}, flags: {' '.join(_flags(message))}",
        f";; from {reply.server} ({reply.transport.upper()}) in {reply.seconds * 1000:.1f} ms"
        + (f", node {node}" if (node := _nsid(message)) else ""),
        *(
            f";{rrset.name.to_text()} {dns.rdataclass.to_text(rrset.rdclass)} {_type(rrset)}"
            for rrset in message.question
        ),
    ]
    for section, rrsets in (
        ("answer", message.answer),
        ("authority", message.authority),
        ("additional", message.additional),
    ):
        if rrsets:
            lines += ["", f";; {section}", *(line for rrset in rrsets for line in rrset.to_text().splitlines())]
    for code, meaning, sentence, text in _errors(message):
        # INFO-CODE n stands in §4.(n+1).
        cited = f" (RFC 8914 §4.{code + 1})" if code <= Ede.INVALID_DATA else ""
        lines += ["", f";; EDE {code} {meaning}{cited}" + (f": {text}" if text else "")]
        if sentence:
            lines.append(f";;   {sentence}")
    return "\n".join(lines)


def _flags(message: dns.message.Message) -> list[str]:
    flags = dns.flags.to_text(message.flags).lower().split()
    return [*flags, "do"] if message.ednsflags & dns.flags.DO else flags


def _type(rrset: dns.rrset.RRset) -> str:
    return dns.rdatatype.to_text(rrset.rdtype)


def _records(rrsets: list[dns.rrset.RRset]) -> list[dict[str, object]]:
    return [
        {"name": rrset.name.to_text(), "ttl": rrset.ttl, "type": _type(rrset), "data": rdata.to_text()}
        for rrset in rrsets
        for rdata in rrset
    ]


def _errors(message: dns.message.Message) -> list[tuple[int, str, str, str]]:
    """(INFO-CODE, registry's name, sentence for people, EXTRA-TEXT) of each Extended DNS Error (RFC 8914 §2)."""
    found = []
    for option in message.options:
        if isinstance(option, dns.edns.EDEOption):
            code = int(option.code)
            known = Ede(code) if code in Ede.__members__.values() else None
            meaning = known.meaning if known is not None else "unknown code"
            sentence = _EDE_SENTENCES.get(known, "") if known is not None else ""
            found.append((code, meaning, sentence, _plain(option.text or "")))
    return found


def _nsid(message: dns.message.Message) -> str:
    for option in message.options:
        if isinstance(option, dns.edns.NSIDOption):
            return _plain(option.nsid.decode("utf-8", "backslashreplace"))
    return ""


def _plain(text: str) -> str:
    """What a stranger sent, without characters that act on a terminal."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
