"""What tests are fed with: messages, whole or broken on purpose, and small policies.

Messages are put together octet by octet, so that each part can be wrong; `ask` and `mutations` start from what
dnspython and dnslib write, so that parts nobody here thought of are right.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.name
import dnslib
from hypothesis import strategies as st

from resolver.policy.documents import Action, Basis, Mode
from resolver.policy.generation import Generation, write_generation
from resolver.policy.terms import (
    FOREVER,
    AppEntry,
    Claim,
    EnforcementEntry,
    ExemptionEntry,
    GroupEntry,
    OrderEntry,
    PolicyTerms,
    Precedence,
    ZoneEntry,
    ZoneKind,
)
from resolver.policy.zone import Reach, Rule, Trigger

ID = 0x1D05
QR, RD, CD, AD, TC = 0x8000, 0x0100, 0x0010, 0x0020, 0x0200
TO_QUESTION = b"\xc0\x0c"  # a compression pointer to the question's name


# ---- messages, octet by octet ---------------------------------------------------------------------------------------


def wire(text: str) -> bytes:
    """A name's uncompressed wire form, letter case kept."""
    return dns.name.from_text(text).to_wire()


def header(flags: int = RD, counts: tuple[int, int, int, int] = (1, 0, 0, 0), message_id: int = ID) -> bytes:
    """Twelve octets; `counts` are QDCOUNT, ANCOUNT, NSCOUNT, ARCOUNT."""
    return b"".join(n.to_bytes(2, "big") for n in (message_id, flags, *counts))


def question(name: str | bytes = "www.example.org", rtype: int = 1, rclass: int = 1) -> bytes:
    """QNAME, QTYPE, QCLASS; a name given as octets goes in as it is."""
    octets = wire(name) if isinstance(name, str) else name
    return octets + rtype.to_bytes(2, "big") + rclass.to_bytes(2, "big")


def record(owner: str | bytes, rtype: int, rdata: bytes, *, ttl: int = 300, rclass: int = 1) -> bytes:
    """One resource record; an owner given as octets goes in as it is."""
    return question(owner, rtype, rclass) + ttl.to_bytes(4, "big") + len(rdata).to_bytes(2, "big") + rdata


def option(code: int, octets: bytes = b"") -> bytes:
    """One EDNS option."""
    return code.to_bytes(2, "big") + len(octets).to_bytes(2, "big") + octets


def opt(
    *options: bytes, octets: int = 1232, version: int = 0, do: bool = False, rcode: int = 0, owner: bytes = b"\0"
) -> bytes:
    """An OPT record; `rcode` is the upper eight bits."""
    ttl = rcode << 24 | version << 16 | do << 15
    return record(owner, 41, b"".join(options), ttl=ttl, rclass=octets)


def query(
    name: str | bytes = "www.example.org",
    rtype: int = 1,
    *,
    rclass: int = 1,
    flags: int = RD,
    additional: tuple[bytes, ...] = (),
    message_id: int = ID,
) -> bytes:
    """A query, with the records given (as a rule one `opt`) in its additional section."""
    return header(flags, (1, 0, 0, len(additional)), message_id) + question(name, rtype, rclass) + b"".join(additional)


def reply(
    to: bytes,
    answers: Iterable[bytes] = (),
    authority: Iterable[bytes] = (),
    additional: Iterable[bytes] = (),
    *,
    flags: int = QR | RD | 0x0080,
    rcode: int = 0,
) -> bytes:
    """A reply to a query that holds one question, with the records given."""
    sections = [list(answers), list(authority), list(additional)]
    end = 12 + to[12:].index(0) + 5
    return b"".join([
        to[:2], (flags | rcode).to_bytes(2, "big"), b"\0\1",
        *(len(section).to_bytes(2, "big") for section in sections),
        to[12:end], *(octets for section in sections for octets in section),
    ])  # fmt: skip


def soa(minimum: int = 60, *, owner: str | bytes = "example.org", ttl: int = 300) -> bytes:
    """A SOA record."""
    times = b"".join(n.to_bytes(4, "big") for n in (1, 7200, 900, 1209600, minimum))
    return record(owner, 6, wire("ns.example.org") + wire("hostmaster.example.org") + times, ttl=ttl)


# ---- messages, as the libraries write them --------------------------------------------------------------------------


def ask(
    name: str = "www.example.org", rtype: str = "A", *, edns: bool = True, do: bool = False, nsid: bool = False
) -> bytes:
    """A query as dnspython writes it."""
    options = [dns.edns.GenericOption(3, b"")] if nsid else []
    message = dns.message.make_query(
        name, rtype, use_edns=0 if edns else False, want_dnssec=do and edns, options=options if edns else None, id=ID
    )
    return message.to_wire()


def _dnslib_query() -> bytes:
    message = dnslib.DNSRecord.question("www.example.org", "MX")
    message.header.id = ID
    message.add_ar(dnslib.EDNS0(flags="do", udp_len=4096))
    return bytes(message.pack())


def valid_queries() -> list[bytes]:
    """Queries of every usual shape."""
    asked = [ask(edns=False), *(ask(do=do, nsid=nsid) for do in (False, True) for nsid in (False, True))]
    others = [ask(".", "NS"), ask("a." * 120 + "example", "TXT"), ask("WwW.eXample.ORG", "HTTPS", nsid=True)]
    cookie = query(additional=(opt(option(10, b"12345678"), option(8, b"\0\1\x18\0\xc0\0\2")),))
    return [*asked, *others, cookie, _dnslib_query()]


def valid_replies(to: bytes) -> list[bytes]:
    """Replies to a query for the type A of www.example.org, of every usual shape."""
    alias = record(TO_QUESTION, 5, b"\3cdn\xc0\x10")
    address = record(TO_QUESTION, 1, b"\xc0\0\2\1")
    return [
        reply(to, [address, address]),
        reply(to, [alias, record("cdn.example.org", 1, b"\xc0\0\2\2")], [], [opt(option(15, b"\0\3stale"))]),
        reply(to, [], [soa(owner=b"\xc0\x10")], [opt()], rcode=3),
        reply(to, [record(TO_QUESTION, 65, b"\0\1" + wire("svc.example.net") + b"\0\4\0\4\xc0\0\2\1")]),
        reply(to, [record(b"\xc0\x10", 39, wire("example.net")), alias], [soa()]),
        reply(to, flags=QR | TC),
        to[:2] + b"\x81\x85" + bytes(8),
    ]


@st.composite
def mutations(draw: st.DrawFn, messages: list[bytes]) -> bytes:
    """A message of the list with some octets flipped, cut out, put in, or taken from another message."""
    octets = bytearray(draw(st.sampled_from(messages)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(octets) - 1)))
        match draw(st.sampled_from(["flip", "set", "cut", "drop", "insert", "splice"])):
            case "flip" if octets:
                octets[place] ^= 1 << draw(st.integers(0, 7))
            case "set" if octets:
                octets[place] = draw(st.sampled_from([0, 1, 12, 41, 63, 64, 192, 255]))
            case "cut":
                del octets[place:]
            case "drop":
                del octets[place : place + draw(st.integers(1, 12))]
            case "insert":
                octets[place:place] = draw(st.binary(min_size=1, max_size=12))
            case "splice":
                other = draw(st.sampled_from(messages))
                octets[place:] = other[draw(st.integers(0, len(other))) :]
    return bytes(octets)


# ---- policies -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ban:
    """One order that names one app, held against groups; `rules` are texts such as "suffix chat.example"."""

    order: str
    rules: tuple[str, ...]
    mode: Mode = Mode.ENFORCE
    action: Action = Action.NXDOMAIN
    groups: tuple[str, ...] = ("phones",)
    effective: float = 0.0
    expires: float = FOREVER
    basis: Basis = Basis.OWN_POLICY

    @property
    def app(self) -> str:
        """The app has the order's name."""
        return f"app-{self.order}"


@dataclass(frozen=True)
class Spared:
    """An exemption: of some groups and devices, from the orders of these names with the apps of these."""

    id: str
    orders: tuple[str, ...]
    groups: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    since: float = 0.0
    until: float = FOREVER


@dataclass(frozen=True)
class Zone:
    """A policy zone: lines such as ("suffix chat.example", Rule(...)), by what they look at.

    `networks` are triggers on addresses: ("ip 192.0.2.0/24", Rule(...)); `patterns` are RE2 expressions.
    """

    id: str
    kind: ZoneKind = ZoneKind.RPZ
    names: tuple[tuple[str, Rule], ...] = ()
    nameservers: tuple[tuple[str, Rule], ...] = ()
    networks: tuple[tuple[str, Rule], ...] = ()
    patterns: tuple[tuple[str, Rule], ...] = ()
    groups: tuple[str, ...] = ()
    mode: Mode = Mode.ENFORCE
    override: Rule | None = None
    since: float = -FOREVER
    until: float = FOREVER

    def rules(self) -> tuple[Rule, ...]:
        """Its distinct rules; lines name them by number."""
        lines = (*self.names, *self.nameservers, *self.networks, *self.patterns)
        return tuple(dict.fromkeys(rule for _, rule in lines))


def own(id_: str, action: Action, *names: str, addresses: tuple[str, ...] = (), **applied: Any) -> Zone:
    """A rule of the operator's: PASSTHRU allows, anything else blocks."""
    rule = Rule(action)
    held = tuple((f"ip {network}", rule) for network in addresses)
    return Zone(f"rule:{id_}", ZoneKind.RULE, tuple((name, rule) for name in names), networks=held, **applied)


GROUPS = {"phones": ("192.0.2.0/25", "2001:db8:1::/48"), "desks": ("192.0.2.128/25",)}


def terms_and_names(
    bans: Iterable[Ban], groups: Mapping[str, tuple[str, ...]] = GROUPS
) -> tuple[PolicyTerms, dict[bytes, int]]:
    """What `write_generation` takes, for these bans."""
    listed = list(bans)
    claims: dict[bytes, list[Claim]] = {}
    for number, ban in enumerate(listed):
        for rule in ban.rules:
            match, name = rule.split()
            claims.setdefault(wire(name).lower(), []).append(Claim(number, number, Reach[match.upper()]))
    numbers = {name: i for i, name in enumerate(groups)}
    terms = PolicyTerms(
        allowed_networks=("192.0.2.0/24", "2001:db8::/32"),
        groups=tuple(GroupEntry(name, networks) for name, networks in groups.items()),
        orders=tuple(
            OrderEntry(ban.order, f"{ban.order} (en)", f"{ban.order} (fr)", ban.basis, ((ban.effective, ban.expires),))
            for ban in listed
        ),
        apps=tuple(AppEntry(ban.app, ban.app.title()) for ban in listed),
        enforcements=tuple(
            EnforcementEntry(i, tuple(numbers[name] for name in ban.groups), ban.mode, ban.action)
            for i, ban in enumerate(listed)
        ),
        claim_sets=tuple(tuple(held) for held in claims.values()),
        block_ttl=60,
        sinkhole_ipv4=("192.0.2.250",),
        sinkhole_ipv6=("2001:db8::250",),
    )
    return terms, {name: i for i, name in enumerate(claims)}


def whole(
    bans: Iterable[Ban],
    zones: Iterable[Zone] = (),
    exemptions: Iterable[Spared] = (),
    *,
    precedence: Precedence = Precedence.STRICTEST,
    groups: Mapping[str, tuple[str, ...]] = GROUPS,
) -> tuple[PolicyTerms, dict[bytes, int], dict[bytes, int]]:
    """The terms, QNAME triggers and NSDNAME triggers of a policy; own rules stand before the other zones."""
    listed = list(bans)
    held = sorted(zones, key=lambda zone: zone.kind is not ZoneKind.RULE)
    terms, _ = terms_and_names(listed, groups)
    orders, numbers = [ban.order for ban in listed], {name: i for i, name in enumerate(groups)}
    tables: tuple[dict[bytes, list[Claim]], dict[bytes, list[Claim]]] = ({}, {})
    for number, ban in enumerate(listed):
        for written in ban.rules:
            _claim(tables[0], written, number, number)
    for number, zone in enumerate(held, len(listed)):
        for table, lines in zip(tables, (zone.names, zone.nameservers), strict=True):
            for written, rule in lines:
                _claim(table, written, number, zone.rules().index(rule))
            if zone.kind is ZoneKind.RPZ:
                for name in empty_nonterminals([written.split()[1] for written, _ in lines]):
                    _claim(table, f"nothing {name}", number, 0)
    sets = {claims: i for i, claims in enumerate(dict.fromkeys(tuple(c) for table in tables for c in table.values()))}
    found = replace(
        terms,
        claim_sets=tuple(sets),
        precedence=precedence,
        exemptions=tuple(
            ExemptionEntry(
                one.id,
                tuple(numbers[name] for name in one.groups),
                one.devices,
                tuple((orders.index(order), orders.index(order)) for order in one.orders),
                one.since,
                one.until,
            )
            for one in exemptions
        ),
        zones=tuple(_entry(zone, numbers) for zone in held),
    )
    named, served = ({name: sets[tuple(claims)] for name, claims in table.items()} for table in tables)
    return found, named, served


def empty_nonterminals(names: Iterable[str]) -> set[str]:
    """Names that exist in a zone only because others of it stand below them."""
    held = set(names)
    above = {".".join(labels[i:]) for labels in (name.split(".") for name in held) for i in range(1, len(labels))}
    return above - held


def _claim(table: dict[bytes, list[Claim]], written: str, holder: int, part: int) -> None:
    reach, name = written.split()
    table.setdefault(wire(name).lower(), []).append(Claim(holder, part, Reach[reach.upper()]))


def _entry(zone: Zone, numbers: Mapping[str, int]) -> ZoneEntry:
    rules = zone.rules()
    return ZoneEntry(
        zone.id,
        zone.kind,
        tuple(numbers[name] for name in zone.groups),
        zone.mode,
        rules,
        zone.override,
        tuple(
            (Trigger(kind), network, rules.index(rule))
            for line, rule in zone.networks
            for kind, network in [line.split()]
        ),
        tuple((pattern, rules.index(rule)) for pattern, rule in zone.patterns),
        nameservers=bool(zone.nameservers) or any(line.startswith("nsip ") for line, _ in zone.networks),
        since=zone.since,
        until=zone.until,
    )


def policy(
    *bans: Ban,
    zones: Iterable[Zone] = (),
    exemptions: Iterable[Spared] = (),
    precedence: Precedence = Precedence.STRICTEST,
    groups: Mapping[str, tuple[str, ...]] = GROUPS,
    serial: int = 1,
) -> Generation:
    """An open generation that holds these bans, and what stands beside them."""
    terms, named, served = whole(bans, zones, exemptions, precedence=precedence, groups=groups)
    octets, _ = write_generation(terms, named, serial=serial, at=0.0, nameservers=served)
    return Generation(memoryview(bytearray(octets)))
