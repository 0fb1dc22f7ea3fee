"""What one group is held to at one moment, taken out of a generation for resolvers and filters elsewhere.

Nothing is decided here: what a listed name gets, and what names below it get, is asked of `judge.judge_query`. Taken
are orders, the operator's own rules and the ways round; an allow of the operator's is taken as an exception.
What is not taken is told (`Extract.notes`): the policy zones that others keep, which are to be had from them, and
exemptions of single devices, which a policy for a whole group can not hold. `export_formats` writes it down. Pure: the
moment is an argument, and the same arguments make the same extract.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_network

from resolver.policy.additions import Documents, Network
from resolver.policy.documents import Action, Mode
from resolver.policy.generation import View
from resolver.policy.judge import Verdict, judge_query, weigh
from resolver.policy.terms import ZoneKind
from resolver.policy.zone import Trigger
from resolver.wire import name as names

_ANY_LABEL = b"\x01*"  # no listed name has this label, so a name that begins with it meets suffix rules only
_PROBE_LABEL = b"\x0finterdict-probe"
_WAY_ROUND = "way-round"  # how ids of their zones begin
_REBINDING = "rebinding"  # the id of the zone that protects against it


class GroundKind(StrEnum):
    """On whose word names are withheld or let through."""

    ORDER = "order"
    OWN_RULE = "own rule"
    WAY_ROUND = "way round"


@dataclass(frozen=True, slots=True)
class Ground:
    """An order, a rule of the operator's, or a list of ways round, as a reader of the file is told of it.

    `by` is the authority or the rule's owner, `title` the order's title or the rule's reason.
    """

    kind: GroundKind
    id: str
    by: str
    title: str


@dataclass(frozen=True, slots=True)
class Held:
    """What becomes of a listed name, and of the names below it that no longer listed name covers.

    PASSTHRU is an exception: on the operator's word the true answer is given. None: no rule says anything.
    """

    name: str
    here: Action
    below: Action | None
    orders: tuple[str, ...] = ()

    @property
    def withholds_below(self) -> bool:
        """Whether names below it are withheld."""
        return self.below not in (None, Action.PASSTHRU)


@dataclass(frozen=True, slots=True)
class HeldNetwork:
    """What becomes of an answer with an address in a network, on the operator's word."""

    network: Network
    action: Action


@dataclass(frozen=True, slots=True)
class Extract:
    """What one group is held to at one moment (Unix seconds), with every listed name, sorted from the root.

    Attributes:
        group: Its name.
        at: The moment.
        digest: Of the generation it was taken from.
        grounds: The orders that bind the group, the own rules and the ways round that count for it.
        names: What is withheld or let through.
        spared: Names that an order lists and an exemption of the group spares it.
        networks: What is withheld or let through by the addresses of answers; of two, the longer decides.
        notes: What was not taken, and what the group is spared: a line each.
        block_ttl: Seconds.
        sinkhole_ipv4, sinkhole_ipv6: Addresses.
    """

    group: str
    at: float
    digest: str
    grounds: tuple[Ground, ...]
    names: tuple[Held, ...]
    spared: tuple[str, ...]
    networks: tuple[HeldNetwork, ...]
    notes: tuple[str, ...]
    block_ttl: int
    sinkhole_ipv4: tuple[str, ...]
    sinkhole_ipv6: tuple[str, ...]

    @property
    def sinkhole(self) -> tuple[tuple[str, str], ...]:
        """(RR type, address) of the sinkhole."""
        return (*(("A", a) for a in self.sinkhole_ipv4), *(("AAAA", a) for a in self.sinkhole_ipv6))


@dataclass(frozen=True, slots=True)
class Probe:
    """A name to ask another resolver for: to test which listed name, what an enforced rule does to it, and which.

    Where it is not withheld, `action` is None; where no rule covers it, `rule` is empty.
    """

    name: bytes
    listed: str
    action: Action | None
    rule: str


def extract(view: View, documents: Documents, at: float, left_out: Sequence[str] = ()) -> Extract:
    """Take out of a view what it withholds and lets through; rules in observe mode do neither.

    Args:
        view: Of one group at one moment; its generation holds no policy zones of others.
        documents: What its generation was compiled from.
        at: That moment, Unix seconds.
        left_out: The names of policy zones that were left out of the generation.
    """
    terms = view.generation.terms
    # What a sinkhole without addresses answers is NODATA.
    stand_ins = {} if terms.sinkhole_ipv4 or terms.sinkhole_ipv6 else {Action.SINKHOLE: Action.NODATA}
    listed = sorted((names.to_text(name) for name in view.generation.listed()), key=from_root)
    held = [entry for name in listed if (entry := _held(name, view, stand_ins)) is not None]
    withheld = {entry.name for entry in held}
    return Extract(
        group=view.group,
        at=at,
        digest=view.generation.digest,
        grounds=tuple(_grounds(view, documents)),
        names=tuple(held),
        spared=tuple(name for name in listed if name not in withheld and _is_spared(name, view)),
        networks=tuple(_networks(view, stand_ins)),
        notes=tuple(_notes(view, at, left_out)),
        block_ttl=terms.block_ttl,
        sinkhole_ipv4=terms.sinkhole_ipv4,
        sinkhole_ipv6=terms.sinkhole_ipv6,
    )


def from_root(name: str) -> list[str]:
    """A name's labels from the top-level domain down: names sorted by them stand below their parents."""
    return name.split(".")[::-1]


def _held(name: str, view: View, stand_ins: Mapping[Action, Action]) -> Held | None:
    wire = names.from_text(name)
    verdicts = [verdict for verdict in weigh(wire, view) if verdict.enforced]
    if all(verdict.owner_offset for verdict in verdicts):
        return None  # listed for other groups, or on trial; at most, what is listed above it reaches down to it
    verdict = verdicts[0]
    lower = _enforced(_ANY_LABEL + wire, view) if len(wire) + len(_ANY_LABEL) <= names.MAX_NAME_OCTETS else None
    below = None if lower is None else stand_ins.get(lower.action, lower.action)
    return Held(name, stand_ins.get(verdict.action, verdict.action), below, verdict.orders)


def _is_spared(name: str, view: View) -> bool:
    return any(verdict.exemption and not verdict.owner_offset for verdict in weigh(names.from_text(name), view))


def _enforced(name: bytes, view: View) -> Verdict | None:
    verdict = judge_query(name, view)
    return verdict if verdict is not None and verdict.enforced else None


def _grounds(view: View, documents: Documents) -> Iterator[Ground]:
    terms = view.generation.terms
    for number, stance in view.stances.items():
        order = documents.orders[terms.orders[number].id]
        bound = any(app.id in order.apps and (number, i) not in view.spared for i, app in enumerate(terms.apps))
        if stance.mode is Mode.ENFORCE and bound:
            yield Ground(GroundKind.ORDER, order.id, order.authority, order.title.en)
    for zone in view.zones.values():
        kind, _, id_ = zone.entry.id.partition(":")
        if zone.entry.kind is ZoneKind.RULE:
            rule = documents.rules[id_]
            yield Ground(GroundKind.OWN_RULE, rule.id, rule.owner, f"{rule.verdict.value}: {rule.reason}")
        elif kind == _WAY_ROUND:
            yield Ground(GroundKind.WAY_ROUND, id_, "", documents.ways_round[id_].title)


def _networks(view: View, stand_ins: Mapping[Action, Action]) -> Iterator[HeldNetwork]:
    """Networks of own rules, less those that lie within one that goes before: an allow, else the earlier rule."""
    found = [
        (rule.action is not Action.PASSTHRU, number, ip_network(text), rule.action)
        for number, zone in view.zones.items()
        for trigger, text, rule in ((t, n, zone.entry.rule(r)) for t, n, r in zone.entry.networks)
        if trigger is Trigger.RESPONSE_IP
    ]
    kept: list[Network] = []
    for _, _, network, action in sorted(found, key=lambda one: one[:2]):
        if not any(_lies_in(network, other) for other in kept):
            kept.append(network)
            yield HeldNetwork(network, stand_ins.get(action, action))


def _lies_in(network: Network, other: Network) -> bool:
    return (
        network.version == other.version and network.prefixlen >= other.prefixlen and network.network_address in other
    )


def _notes(view: View, at: float, left_out: Sequence[str]) -> Iterator[str]:
    terms = view.generation.terms
    spared: dict[str, list[str]] = {}
    for (order, app), exemption in sorted(view.spared.items()):
        if order in view.stances:
            spared.setdefault(exemption, []).append(f"{terms.apps[app].id} of {terms.orders[order].id}")
    for exemption, pairs in spared.items():
        yield f"the group is exempt by {exemption} from {', '.join(pairs)}"
    of_devices = [
        one.id
        for one in terms.exemptions
        if one.devices and one.since <= at < one.until and any(order in view.stances for order, _ in one.spares)
    ]
    if of_devices:
        yield f"exemptions of single devices are not held here: {', '.join(of_devices)}"
    if left_out:
        yield f"policy zones that others keep are not held here: {', '.join(left_out)}"
    if any(zone.entry.id == _REBINDING for zone in view.zones.values()):
        yield "protection against DNS rebinding is not held here: switch on the reader's own"
    if view.strips_ech:
        yield "keys for Encrypted ClientHello, which are taken out of the group's answers, stay in the reader's"


def probes(extracted: Extract, view: View, listed: Collection[str]) -> Iterator[Probe]:
    """For each of some names, held or spared: itself, one below it, its parent, and one that only looks as if it were
    below.

    A top-level domain is no parent worth asking for.
    """
    seen: set[bytes] = set()
    for text in _every(extracted):
        if text not in listed:
            continue
        wire = names.from_text(text)
        parent = wire[wire[0] + 1 :]
        first = (b"x" + wire[1 : wire[0] + 1])[: names.MAX_LABEL_OCTETS]
        alike = bytes([len(first)]) + first + parent
        asked = [wire, _PROBE_LABEL + wire, alike, *([parent] if len(names.labels(parent)) > 1 else [])]
        for name in asked:
            if name not in seen and len(name) <= names.MAX_NAME_OCTETS:
                seen.add(name)
                verdict = _enforced(name, view)
                if verdict is None:
                    yield Probe(name, text, None, "")
                else:
                    action = None if verdict.passes else verdict.action
                    yield Probe(name, text, action, names.to_text(verdict.owner))


def sample(extracted: Extract, count: int | None) -> list[str]:
    """Some of the names, held or spared, evenly spread over all; all where no count is given."""
    every = _every(extracted)
    if count is None or count >= len(every):
        return every
    return [every[i * len(every) // count] for i in range(count)]


def _every(extracted: Extract) -> list[str]:
    return sorted([*(held.name for held in extracted.names), *extracted.spared], key=from_root)
