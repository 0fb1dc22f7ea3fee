"""A policy zone: rules that are no order's, in the one form that all of them are brought into.

A list that somebody keeps, a Response Policy Zone (draft-vixie-dnsop-dns-rpz), the operator's own rules and the names
that lead round a resolver are all read into a `PolicyZone`: triggers (names, networks, patterns), each with the number
of a `Rule`. Millions of names share a handful of rules, so a name costs one entry of a dictionary and no object.

A zone is filled by a reader, compiled into a generation, and let go.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import IPv4Network, IPv6Network

from resolver.policy.documents import Action


class Trigger(StrEnum):
    """What a rule looks at (draft-vixie-dnsop-dns-rpz-00 §4): the words are those of the zone's labels."""

    CLIENT_IP = "client-ip"
    QNAME = "qname"
    RESPONSE_IP = "ip"
    NSDNAME = "nsdname"
    NSIP = "nsip"


class Reach(IntEnum):
    """How far a name reaches: itself, itself and all below it on a label boundary, or only what is below it.

    NOTHING is for a name of a Response Policy Zone that exists by those below it alone (an empty non-terminal).
    """

    EXACT = 0
    SUFFIX = 1
    BELOW = 2
    NOTHING = 3


@dataclass(frozen=True, slots=True)
class LocalRecord:
    """A record that is given in place of the answer: seconds, and RDATA in wire form, names in it not compressed.

    A CNAME whose target begins with the label `*` is rewritten for each QNAME (draft-vixie-dnsop-dns-rpz-00 §3.6).
    """

    rtype: int
    ttl: int
    rdata: bytes


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens where a trigger matches, and what narrows it.

    Attributes:
        action: What the client gets.
        records: With LOCAL_DATA: the records, at least one.
        qtypes: Only these types are covered; empty for all.
        but_qtypes: Turns `qtypes` round: all types but these are covered.
        spares: Wire names, lower case; what is at or below one of them is not covered.
        important: Goes before the same list's exceptions (Adblock `$important`).
    """

    action: Action
    records: tuple[LocalRecord, ...] = ()
    qtypes: tuple[int, ...] = ()
    but_qtypes: bool = False
    spares: tuple[bytes, ...] = ()
    important: bool = False


Progress = Callable[[str, int, int], None]
"""Called now and then while a zone is read: its name, the octets read and the octets in all."""

Held = tuple[tuple[Reach, int], ...]
"""What a zone holds on one name: how far each hold reaches, and the number of its rule."""


@dataclass(slots=True)
class PolicyZone:
    """A zone while it is read.

    Attributes:
        rules: The distinct rules; triggers name them by number.
        names: QNAME triggers: lower-cased wire name -> holds.
        nameservers: NSDNAME triggers, in the same form.
        networks: The three triggers on addresses: network -> number of its rule.
        patterns: Regular expressions (RE2 syntax) over a lower-cased QNAME without its last dot, each with the number
            of its rule.
        origin: Of a zone with an SOA: its name, lower-cased wire form; else the root.
        soa: Its SOA, for policy answers to carry.
    """

    rules: list[Rule] = field(default_factory=list)
    names: dict[bytes, Held] = field(default_factory=dict)
    nameservers: dict[bytes, Held] = field(default_factory=dict)
    networks: dict[Trigger, dict[IPv4Network | IPv6Network, int]] = field(
        default_factory=lambda: {Trigger.CLIENT_IP: {}, Trigger.RESPONSE_IP: {}, Trigger.NSIP: {}}
    )
    patterns: list[tuple[str, int]] = field(default_factory=list)
    origin: bytes = b"\0"
    soa: LocalRecord | None = None
    _numbers: dict[Rule, int] = field(default_factory=dict)
    _holds: dict[Held, Held] = field(default_factory=dict)

    def number_of(self, rule: Rule) -> int:
        """The number of a rule, a new one where it was not met before."""
        number = self._numbers.get(rule)
        if number is None:
            number = self._numbers[rule] = len(self.rules)
            self.rules.append(rule)
        return number

    def hold(self, name: bytes, reach: Reach, rule: int, trigger: Trigger = Trigger.QNAME) -> bool:
        """Put a rule on a name; False where the zone holds that name that far already, by this rule or another.

        Args:
            name: Lower-cased wire form.
            reach: How far.
            rule: From `number_of`.
            trigger: QNAME or NSDNAME.
        """
        names = self.names if trigger is Trigger.QNAME else self.nameservers
        held = names.get(name, ())
        if any(reach == earlier for earlier, _ in held):
            return False
        held = tuple(sorted((*held, (reach, rule))))
        names[name] = self._holds.setdefault(held, held)
        return True

    def hold_network(self, network: IPv4Network | IPv6Network, rule: int, trigger: Trigger) -> bool:
        """Put a rule on a network; False where the zone holds just this network already."""
        held = self.networks[trigger]
        if network in held:
            return False
        held[network] = rule
        return True

    def triggers(self) -> Iterator[tuple[Trigger, int]]:
        """How many triggers of each kind there are."""
        yield Trigger.QNAME, sum(map(len, self.names.values())) + len(self.patterns)
        yield Trigger.NSDNAME, sum(map(len, self.nameservers.values()))
        for trigger, networks in self.networks.items():
            yield trigger, len(networks)


@dataclass(frozen=True, slots=True)
class ZoneState:
    """What is told of a zone: Unix seconds, and None for what is not known."""

    id: str
    entries: int
    refused: int  # lines or records that were not taken
    source: str
    fetched_at: float | None = None
    checked_at: float | None = None
    failures: int = 0
    error: str | None = None
