"""What a client gets by a verdict, as people read it: the words beside what the engine puts into its octets.

That both say the same is held by tests. Nothing here decides.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from resolver.policy.documents import Action
from resolver.policy.judge import Verdict
from resolver.policy.terms import PolicyTerms, ZoneEntry
from resolver.wire import name as names
from resolver.wire.codes import Ede, Rcode, Rtype, rcode_text, rtype_text

_WILDCARD = b"\1*"
_ADDRESSES: dict[int, tuple[int, type[IPv4Address] | type[IPv6Address]]] = {
    Rtype.A: (4, IPv4Address),
    Rtype.AAAA: (16, IPv6Address),
}
_NAMED = (Rtype.CNAME, Rtype.NS, Rtype.PTR, Rtype.DNAME)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the client gets that no upstream said.

    Attributes:
        rcode: Empty for silence.
        ede: INFO-CODE of the Extended DNS Error, or None.
        ede_meaning: What that stands for.
        extra_text: What is said beside it.
        addresses: Those of the sinkhole.
        ttl: Seconds; None where nothing is cached.
        records: All records of the answer, as `A 192.0.2.1`.
        target: The name that the client is sent to, whose own records follow.
        truncated: Whether the client is told to ask again over TCP.
        soa: The policy zone whose SOA goes with it.
    """

    rcode: str
    ede: int | None
    ede_meaning: str
    extra_text: str
    addresses: tuple[str, ...]
    ttl: int | None
    records: tuple[str, ...] = ()
    target: str = ""
    truncated: bool = False
    soa: str = ""


def own_reply(rcode: int, ede: Ede | None = None, text: str = "") -> Reply:
    """What the server says of its own."""
    return Reply(
        rcode_text(rcode), None if ede is None else int(ede), "" if ede is None else ede.meaning, text, (), None
    )


def policy_reply(verdict: Verdict, qtype: int, terms: PolicyTerms) -> Reply:
    """What the client gets by a verdict that does not let pass."""
    action, ede = verdict.action, verdict.ede
    if action is Action.DROP:
        return Reply("", None, "", "", (), None)
    if action is Action.REFUSED:
        return own_reply(Rcode.REFUSED, ede, verdict.extra_text)
    if action is Action.TCP_ONLY:
        return Reply(rcode_text(Rcode.NOERROR), int(ede), ede.meaning, verdict.extra_text, (), None, truncated=True)
    rcode = Rcode.NXDOMAIN if action is Action.NXDOMAIN else Rcode.NOERROR
    records: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    target, ttls = "", list[int]()
    soa = verdict.order.soa if isinstance(verdict.order, ZoneEntry) else None
    if action is Action.SINKHOLE:
        addresses = {Rtype.A: terms.sinkhole_ipv4, Rtype.AAAA: terms.sinkhole_ipv6}.get(qtype, ())  # type: ignore[call-overload]
        records = tuple(f"{rtype_text(qtype)} {address}" for address in addresses)
        ttls = [terms.block_ttl] * len(addresses)
    elif action is Action.LOCAL_DATA:
        given = _local_data(verdict, qtype)
        if given is None:
            rcode = Rcode.YXDOMAIN  # the alias is too long to be a name
        else:
            records = tuple(f"{rtype_text(rtype)} {rdata_text(rtype, rdata)}" for rtype, _, rdata in given)
            ttls = [ttl for _, ttl, _ in given]
            if given and given[0][0] == Rtype.CNAME and qtype not in (Rtype.CNAME, Rtype.ANY):
                target = names.to_text(given[0][2])
    if not records and soa is None and rcode is not Rcode.YXDOMAIN:
        ttls = [terms.block_ttl]
    ttl = min(ttls, default=None)
    return Reply(
        rcode_text(rcode), int(ede), ede.meaning, verdict.extra_text, addresses, ttl, records, target,
        soa="" if soa is None else names.to_text(soa[0]),
    )  # fmt: skip


def rdata_text(rtype: int, rdata: bytes) -> str:
    """RDATA for people; of types that are seldom local data, and where it is broken, in the form of RFC 3597 §5."""
    octets, address = _ADDRESSES.get(rtype, (-1, IPv4Address))
    if len(rdata) == octets:
        return str(address(rdata))
    if rtype in _NAMED:
        return names.to_text(rdata)
    if rtype == Rtype.TXT and (strings := _strings(rdata)):
        return " ".join(strings)
    return f"\\# {len(rdata)} {rdata.hex()}".rstrip()


def _strings(rdata: bytes) -> list[str]:
    """The character strings of TXT RDATA as zone files write them (RFC 1035 §5.1); none where it is broken."""
    found, i = [], 0
    while i < len(rdata):
        end = i + 1 + rdata[i]
        if end > len(rdata):
            return []
        escaped = (chr(c) if 32 <= c < 127 and c not in b'"\\\\' else f"\\{c:03d}" for c in rdata[i + 1 : end])
        found.append(f'"{"".join(escaped)}"')
        i = end
    return found


def _local_data(verdict: Verdict, qtype: int) -> list[tuple[int, int, bytes]] | None:
    """(type, TTL, RDATA) of the records given; None where an alias is too long to be a name."""
    held = [
        (record.rtype, record.ttl, _expanded(record.rdata, verdict.subject))
        if record.rtype == Rtype.CNAME
        else (record.rtype, record.ttl, record.rdata)
        for record in verdict.rule_held.records
    ]
    if any(len(rdata) > names.MAX_NAME_OCTETS for rtype, _, rdata in held if rtype == Rtype.CNAME):
        return None
    given = [record for record in held if qtype in (record[0], Rtype.ANY)]
    return given or [record for record in held if record[0] == Rtype.CNAME][:1]


def _expanded(target: bytes, subject: bytes) -> bytes:
    return subject[:-1] + target[len(_WILDCARD) :] if target.startswith(_WILDCARD) else target


def own_alias(verdict: Verdict, qtype: int) -> bytes | None:
    """The name that policy makes a name an alias of, where a question of class IN is answered with what that has."""
    if verdict.action is not Action.LOCAL_DATA or qtype in (Rtype.CNAME, Rtype.ANY):
        return None
    records = verdict.rule_held.records
    if any(record.rtype == qtype for record in records):
        return None
    target = next((_expanded(one.rdata, verdict.subject) for one in records if one.rtype == Rtype.CNAME), None)
    return None if target is None or len(target) > names.MAX_NAME_OCTETS else target
