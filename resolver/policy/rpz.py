"""Response Policy Zones, read: records of a zone become a `PolicyZone` (draft-vixie-dnsop-dns-rpz-00).

The owner of a record is the trigger, its type and RDATA are the action. Records come one by one, from wherever a zone
comes from, in any order; what is made of them does not depend on the order, but that of several CNAMEs of one owner
the first stands. Every record is either taken, ignored (no rule, and rightly in the zone) or refused (meant as a rule,
but none), and the report says how many and why: no record is lost silently.

Where the draft leaves room:

- Bits beyond the prefix and a prefix of 0 are refused, as in BIND 9. Spellings that are not the canonical one (leading
  zeros, `zz` for a single group or not at all) are read for what they say; BIND 9 loads them and never matches.
- Of an owner with a CNAME and other records, the CNAME is the action and the others are refused; a CNAME has no
  company (RFC 1034 §3.6.2).
- NS and DS below the apex are ignored and DNAME is refused; none is an action, as in Unbound. BIND 9 answers its own
  delegations with SERVFAIL, and a DNAME with NODATA at its owner alone.
- The older way to write PASSTHRU, a CNAME to the trigger itself, is for exact triggers: under `*.x` the target `*.x` is
  a wildcard CNAME, as in BIND 9.
- A target with a top label `rpz-…` that is no known action, and an owner under such a label that is no known trigger,
  are refused: what they mean is a later standard's to say.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from resolver.policy.documents import Action
from resolver.policy.zone import LocalRecord, PolicyZone, Reach, Rule, Trigger
from resolver.wire.codes import Rtype, rtype_text
from resolver.wire.name import MAX_LABEL_OCTETS, MAX_NAME_OCTETS, is_at_or_below, labels, to_text

MAX_NOTES = 1000  # A report is read by people; behind these, refused records are counted only.


class Untaken(StrEnum):
    """Why a record made no rule. The first group is ignored, the second refused."""

    APEX = "records of the zone's own name"
    SERVING = "NS and SOA below the zone's own name"
    DNSSEC = "DNSSEC"
    REPEATED = "records that were there before"

    OUTSIDE = "owner outside the zone"
    TRIGGER = "unknown trigger"
    ADDRESS = "not an address block"
    NAMELESS = "trigger without a name"
    ACTION = "unknown action"
    DNAME = "DNAME"
    DOT = "action without its last dot"
    SECOND_CNAME = "second CNAME of an owner"
    BESIDE_CNAME = "data beside a CNAME"
    SECOND_SOA = "second SOA"
    RDATA = "malformed RDATA"
    META = "type that no zone holds"

    @property
    def is_ignored(self) -> bool:
        """Whether such a record belongs in a zone like any other, so that nobody need be told."""
        return self in _IGNORED


_IGNORED = frozenset({Untaken.APEX, Untaken.SERVING, Untaken.DNSSEC, Untaken.REPEATED})


@dataclass(frozen=True, slots=True)
class Note:
    """A record that was refused: its line where it has one (else 0), and what is wrong with it."""

    owner: str
    rtype: int
    why: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.owner} {rtype_text(self.rtype)}: {self.why}"


@dataclass(slots=True)
class RpzReport:
    """What became of a zone's records: `taken + ignored + refused == records`, always.

    Attributes:
        records: All that came.
        taken: Those that are in the rules, the SOA among them.
        untaken: How many were not, by reason.
        notes: The first refused records.
        has_soa: Whether the zone had its SOA; a zone without one cannot be transferred, and BIND 9 would not load it.
    """

    records: int = 0
    taken: int = 0
    untaken: Counter[Untaken] = field(default_factory=Counter)
    notes: list[Note] = field(default_factory=list)
    has_soa: bool = False

    @property
    def ignored(self) -> int:
        """Records that are rightly there and are no rules."""
        return sum(count for reason, count in self.untaken.items() if reason.is_ignored)

    @property
    def refused(self) -> int:
        """Records that look like rules and are none."""
        return sum(count for reason, count in self.untaken.items() if not reason.is_ignored)


# RFC 4034, RFC 5155, RFC 7344, RFC 8976 and their forerunners: SIG KEY NXT DS RRSIG NSEC DNSKEY NSEC3 NSEC3PARAM CDS
# CDNSKEY ZONEMD DLV.
_DNSSEC_TYPES = frozenset({24, 25, 30, 43, 46, 47, 48, 50, 51, 59, 60, 63, 32769})
_SERVING_TYPES = frozenset({Rtype.NS, Rtype.SOA})
_HEXADECIMAL = frozenset("0123456789abcdef")
_ADDRESS_OCTETS = {int(Rtype.A): 4, int(Rtype.AAAA): 16}

_ACTIONS = {
    b"\0": Rule(Action.NXDOMAIN),
    b"\x01*\0": Rule(Action.NODATA),
    b"\x0crpz-passthru\0": Rule(Action.PASSTHRU),
    b"\x08rpz-drop\0": Rule(Action.DROP),
    b"\x0crpz-tcp-only\0": Rule(Action.TCP_ONLY),
}
_TRIGGERS = {
    b"rpz-client-ip": Trigger.CLIENT_IP,
    b"rpz-ip": Trigger.RESPONSE_IP,
    b"rpz-nsdname": Trigger.NSDNAME,
    b"rpz-nsip": Trigger.NSIP,
}


class _Refusal(Exception):
    """A record makes no rule: why, by kind and in words."""

    def __init__(self, reason: Untaken, why: str = "") -> None:
        super().__init__(reason, why)
        self.reason = reason
        self.why = why


class _Spot(NamedTuple):
    """What a rule hangs on: a network, or a name and how far it reaches; `own` is the trigger spelled as a name."""

    trigger: Trigger
    key: bytes | IPv4Network | IPv6Network
    reach: Reach
    own: bytes


class RpzReader:
    """Takes the records of one zone, gives its rules."""

    def __init__(self, origin: bytes) -> None:
        """Begin a zone.

        Args:
            origin: The zone's name, lower-cased wire form.
        """
        self._zone = PolicyZone(origin=origin)
        self._report = RpzReport()
        self._undotted = {target[:-1] + origin: target for target in _ACTIONS if target != b"\0"} if origin[0] else {}
        # What is no CNAME waits for the end, when it is known which owners have one.
        self._data: dict[_Spot, dict[tuple[int, bytes], tuple[int, bytes, int]]] = {}

    def add(self, owner: bytes, rtype: int, ttl: int, rdata: bytes, line: int = 0) -> None:
        """Take a record.

        Args:
            owner: Absolute name, lower-cased wire form.
            rtype: Its type; the class is IN.
            ttl: Seconds.
            rdata: Wire form, names in it not compressed.
            line: Where it stood, for the report.
        """
        self._report.records += 1
        try:
            if rtype == Rtype.CNAME:
                self._add_cname(self._spot(owner), ttl, rdata)
            else:
                self._add_other(owner, rtype, ttl, rdata, line)
        except _Refusal as refusal:
            self._refuse(owner, rtype, line, refusal)
        else:
            self._report.taken += 1

    def finish(self) -> tuple[PolicyZone, RpzReport]:
        """The rules of all records, and what became of each. The reader is done with."""
        for spot, held in self._data.items():
            if self._rule_at(spot) is not None:
                self._report.taken -= len(held)
                beside = _Refusal(Untaken.BESIDE_CNAME, "a CNAME stands at this owner; remove one of the two")
                for (rtype, _), (_, owner, line) in held.items():
                    self._refuse(owner, rtype, line, beside)
                continue
            ttls: dict[int, int] = {}
            for (rtype, _), (ttl, _, _) in held.items():
                # An RRset has one TTL; of several the lowest is safe (RFC 2181 §5.2).
                ttls[rtype] = min(ttl, ttls.get(rtype, ttl))
            records = tuple(LocalRecord(rtype, ttls[rtype], rdata) for rtype, rdata in sorted(held))
            self._hold(spot, Rule(Action.LOCAL_DATA, records))
        self._data.clear()
        return self._zone, self._report

    def _refuse(self, owner: bytes, rtype: int, line: int, refusal: _Refusal) -> None:
        self._report.untaken[refusal.reason] += 1
        if not refusal.reason.is_ignored and len(self._report.notes) < MAX_NOTES:
            why = refusal.why or refusal.reason.value
            self._report.notes.append(Note(to_text(owner), rtype, why, line))

    def _add_cname(self, spot: _Spot, ttl: int, rdata: bytes) -> None:
        rule = self._rule_of_cname(spot, ttl, rdata)
        held = self._rule_at(spot)
        if held is None:
            self._hold(spot, rule)
        elif self._zone.rules[held] == rule:
            raise _Refusal(Untaken.REPEATED)
        else:
            raise _Refusal(Untaken.SECOND_CNAME, "another CNAME stands at this owner, and stays; remove one of the two")

    def _rule_of_cname(self, spot: _Spot, ttl: int, rdata: bytes) -> Rule:
        target = rdata.lower()
        rule = _ACTIONS.get(target)
        if rule is not None:
            return rule
        if _end_of_name(rdata, 0) != len(rdata):
            raise _Refusal(Untaken.RDATA, "the target is not a name")
        if target == spot.own and spot.reach is Reach.EXACT:
            return Rule(Action.PASSTHRU)  # The older way to write it; BIND 9 and zones in use still know it.
        meant = self._undotted.get(target)
        if meant is not None:
            text = to_text(meant)
            raise _Refusal(Untaken.DOT, f"the target is {to_text(target)}.; write {text}. with its last dot instead")
        top = labels(target)[-1]
        if top.startswith(b"rpz-"):
            known = ", ".join(f"{to_text(name)}." for name in _ACTIONS if b"rpz-" in name)
            raise _Refusal(Untaken.ACTION, f"no action is called {to_text(target)}.; write one of {known}")
        return Rule(Action.LOCAL_DATA, (LocalRecord(Rtype.CNAME, ttl, rdata),))

    def _add_other(self, owner: bytes, rtype: int, ttl: int, rdata: bytes, line: int) -> None:
        if owner == self._zone.origin:
            self._add_at_apex(rtype, ttl, rdata)
            return
        if rtype in _DNSSEC_TYPES:
            raise _Refusal(Untaken.DNSSEC)
        if not is_at_or_below(owner, self._zone.origin):
            raise self._outside(owner)
        if rtype in _SERVING_TYPES:
            raise _Refusal(Untaken.SERVING)
        if rtype == 0 or rtype == Rtype.OPT or 128 <= rtype <= 255:  # RFC 6895 §3.1
            raise _Refusal(Untaken.META, f"no zone holds records of type {rtype_text(rtype)}; remove it")
        spot = self._spot(owner)
        if rtype == Rtype.DNAME:
            why = "a DNAME is no action; for what is below x write *.x CNAME *.garden.example. instead"
            raise _Refusal(Untaken.DNAME, why)
        if len(rdata) != _ADDRESS_OCTETS.get(rtype, len(rdata)):
            raise _Refusal(Untaken.RDATA, f"an address of {len(rdata)} octets")
        # One block can be spelled in several ways, which are one owner all the same.
        held = self._data.setdefault(spot._replace(own=b""), {})
        if (rtype, rdata) in held:
            raise _Refusal(Untaken.REPEATED)
        held[rtype, rdata] = ttl, owner, line

    def _add_at_apex(self, rtype: int, ttl: int, rdata: bytes) -> None:
        if rtype in _DNSSEC_TYPES:
            raise _Refusal(Untaken.DNSSEC)
        if rtype != Rtype.SOA:
            raise _Refusal(Untaken.APEX)
        if _end_of_name(rdata, _end_of_name(rdata, 0)) + 20 != len(rdata):
            raise _Refusal(Untaken.RDATA, "not two names and five numbers (RFC 1035 §3.3.13)")
        soa = self._zone.soa
        if soa is None:
            self._zone.soa = LocalRecord(rtype, ttl, rdata)
            self._report.has_soa = True
        elif soa.rdata == rdata:
            raise _Refusal(Untaken.REPEATED)
        else:
            raise _Refusal(Untaken.SECOND_SOA, "the zone has another SOA before it; remove one of the two")

    def _outside(self, owner: bytes) -> _Refusal:
        origin = to_text(self._zone.origin)
        why = f"not at or below {origin}.; write the name without its last dot, so that it is taken from the zone's"
        return _Refusal(Untaken.OUTSIDE, why)

    def _spot(self, owner: bytes) -> _Spot:
        origin = self._zone.origin
        if owner == origin:
            raise _Refusal(Untaken.APEX)
        if not is_at_or_below(owner, origin):
            raise self._outside(owner)
        own = owner[: len(owner) - len(origin)] + b"\0"
        if b"rpz-" in own:
            parts = labels(own)
            if parts[-1].startswith(b"rpz-"):
                return _marked_spot(own[: len(own) - len(parts[-1]) - 2] + b"\0", parts)
        return _name_spot(Trigger.QNAME, own)

    def _rule_at(self, spot: _Spot) -> int | None:
        if not isinstance(spot.key, bytes):
            return self._zone.networks[spot.trigger].get(spot.key)
        names = self._zone.names if spot.trigger is Trigger.QNAME else self._zone.nameservers
        for reach, number in names.get(spot.key, ()):
            if reach == spot.reach:
                return number
        return None

    def _hold(self, spot: _Spot, rule: Rule) -> None:
        number = self._zone.number_of(rule)
        if isinstance(spot.key, bytes):
            self._zone.hold(spot.key, spot.reach, number, spot.trigger)
        else:
            self._zone.hold_network(spot.key, number, spot.trigger)


def _marked_spot(own: bytes, parts: list[bytes]) -> _Spot:
    """The spot of an owner under a label `rpz-…`: the labels, the mark the last, and the name they make without it."""
    *left, mark = parts
    trigger = _TRIGGERS.get(mark)
    if trigger is None:
        known = ", ".join(name.decode() for name in _TRIGGERS)
        shown = mark.decode("ascii", "backslashreplace")
        raise _Refusal(Untaken.TRIGGER, f"no trigger is called {shown}; write one of {known}")
    if not left:
        raise _Refusal(Untaken.NAMELESS, f"nothing stands before {mark.decode()}; write what it is to match")
    if trigger is Trigger.NSDNAME:
        return _name_spot(trigger, own)
    return _Spot(trigger, _read_network(left), Reach.EXACT, own)


def _name_spot(trigger: Trigger, own: bytes) -> _Spot:
    # `*.x` covers what is below x, never x itself (RFC 4592 §2.1.1); elsewhere in a name an asterisk is a letter.
    if own.startswith(b"\x01*"):
        return _Spot(trigger, own[2:], Reach.BELOW, own)
    return _Spot(trigger, own, Reach.EXACT, own)


def _read_network(parts: list[bytes]) -> IPv4Network | IPv6Network:
    """The block that the labels before `rpz-ip` and its like spell, its length first and its address reversed.

    Raises:
        _Refusal: With what is wrong.
    """
    length, *groups = [part.decode("ascii", "backslashreplace") for part in parts]
    if not _is_number(length):
        raise _bad_address(f"the prefix length {length!r} is no number; write the length first, as in 32.1.2.0.192")
    is_v4 = len(groups) == 4 and "zz" not in groups
    bits = 32 if is_v4 else 128
    prefix = int(length)
    if prefix == 0:
        halves = "1.0.0.0.0 and 1.0.0.0.128" if is_v4 else "1.zz and 1.zz.8000"
        raise _bad_address(f"a block of all addresses cannot be said; write its two halves, {halves}")
    if prefix > bits:
        raise _bad_address(f"the prefix length {prefix} is over {bits}")
    value = _read_v4(groups) if is_v4 else _read_v6(groups)
    beyond = value & ((1 << (bits - prefix)) - 1)
    network = (IPv4Network if is_v4 else IPv6Network)((value - beyond, prefix))
    if beyond:
        raise _bad_address(f"bits are set beyond the first {prefix}; write the block that is meant, perhaps {network}")
    return network


def _read_v4(groups: list[str]) -> int:
    value = 0
    for octet in reversed(groups):
        if not _is_number(octet) or int(octet) > 255:
            raise _bad_address(f"{octet!r} is no number from 0 to 255")
        value = value << 8 | int(octet)
    return value


def _read_v6(groups: list[str]) -> int:
    if groups.count("zz") > 1:
        raise _bad_address("zz stands twice; it can fill up one gap only")
    if "zz" in groups and len(groups) <= 8:
        gap = groups.index("zz")
        groups = [*groups[:gap], *["0"] * (9 - len(groups)), *groups[gap + 1 :]]
    if len(groups) != 8:
        raise _bad_address("neither four numbers nor eight groups, zz for a row of zero groups")
    value = 0
    for group in reversed(groups):
        if not 1 <= len(group) <= 4 or not set(group) <= _HEXADECIMAL:
            raise _bad_address(f"{group!r} is no group of one to four hexadecimal digits")
        value = value << 16 | int(group, 16)
    return value


def _is_number(text: str) -> bool:
    return len(text) <= 3 and text.isascii() and text.isdigit()


def _bad_address(why: str) -> _Refusal:
    return _Refusal(Untaken.ADDRESS, why)


def _end_of_name(octets: bytes, start: int) -> int:
    """Where an uncompressed name that begins at `start` ends; -1 where there is none."""
    i = start
    while 0 <= i < len(octets) and octets[i] <= MAX_LABEL_OCTETS and i - start < MAX_NAME_OCTETS:
        if octets[i] == 0:
            return i + 1
        i += octets[i] + 1
    return -1
