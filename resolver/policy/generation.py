"""A generation: one compiled policy in one file, opened by every worker and never written again.

The file is made to be mapped: a header (JSON: orders, apps, groups, enforcements, claim sets) and four arrays that
`hot._table_cy.NameTable` reads where they lie, so N workers share one copy and opening costs no more than the header.

```
INTERDICT GENERATION 2\\n      magic
SHA-256, 32 octets             seal of all that follows
u64le n, n octets of JSON      header; `sections` gives (offset, octets) of each array, counted from the first array
fingerprints u64[slots]  claim_sets u32[slots]  places u32[slots]  pool
```

A `View` is what one group is held to at one moment. Views are made from the generation and the clock's reading, and say
until when they hold; so an order begins at its moment with nothing reloaded.
"""

import hashlib
import ipaddress
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from resolver.hot._table_cy import NameTable, fill, slots_for
from resolver.policy.documents import Action, Basis, Mode

MAGIC = b"INTERDICT GENERATION 2\n"
FOREVER = float("inf")
_SEALED = len(MAGIC) + hashlib.sha256().digest_size  # where that which the seal covers begins
_HEADER = _SEALED + 8
_SECTIONS = ("fingerprints", "claim_sets", "places", "pool")


class GenerationError(Exception):
    """The octets are not a generation that this version can read; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class GroupEntry:
    """A set of devices and the networks that they ask from."""

    name: str
    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OrderEntry:
    """What judging and reporting need of an order."""

    id: str
    title_en: str
    title_fr: str
    basis: Basis
    spans: tuple[tuple[float, float], ...]  # when it acts: half-open, in order; Unix seconds, the last may end FOREVER

    def is_in_force(self, at: float) -> bool:
        """Whether the order acts at a moment (Unix seconds)."""
        return any(begin <= at < end for begin, end in self.spans)


@dataclass(frozen=True, slots=True)
class AppEntry:
    """What judging and reporting need of an app."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class EnforcementEntry:
    """One line of `policy.orders`: an order, held against some groups, for some time (Unix seconds, half-open)."""

    order: int
    groups: tuple[int, ...]
    mode: Mode
    action: Action
    since: float = -FOREVER
    until: float = FOREVER


@dataclass(frozen=True, slots=True)
class Claim:
    """One order's hold on one listed name, through one app."""

    order: int
    app: int
    exact: bool


@dataclass(frozen=True, slots=True)
class PolicyTerms:
    """Everything in a generation but its names."""

    allowed_networks: tuple[str, ...]
    groups: tuple[GroupEntry, ...]
    orders: tuple[OrderEntry, ...]
    apps: tuple[AppEntry, ...]
    enforcements: tuple[EnforcementEntry, ...]
    claim_sets: tuple[tuple[Claim, ...], ...]
    block_ttl: int  # seconds
    sinkhole_ipv4: tuple[str, ...]
    sinkhole_ipv6: tuple[str, ...]


class NetworkTable:
    """Longest-prefix match over networks, each with a number."""

    def __init__(self, networks: Sequence[tuple[str, int]]) -> None:
        """Build from (network in text, number) pairs; of equal networks the first counts."""
        by_prefix: dict[tuple[int, int], dict[int, int]] = {}
        for text, number in networks:
            network = ipaddress.ip_network(text, strict=False)
            bits = network.max_prefixlen
            key = int(network.network_address) >> (bits - network.prefixlen)
            by_prefix.setdefault((bits, network.prefixlen), {}).setdefault(key, number)
        order = sorted(by_prefix, reverse=True)
        self._levels = {
            bits: [(bits - prefix, by_prefix[bits, prefix]) for width, prefix in order if width == bits]
            for bits in (32, 128)
        }

    def find(self, address: bytes) -> int:
        """The number of the longest network that holds the address (4 or 16 octets), or -1."""
        value = int.from_bytes(address, "big")
        for shift, keys in self._levels[len(address) * 8]:
            number = keys.get(value >> shift)
            if number is not None:
                return number
        return -1


@dataclass(frozen=True, slots=True)
class Stance:
    """How a view holds one order: in what mode, with what action, in what rank among the configured ones."""

    mode: Mode
    action: Action
    rank: int


# From the mildest to the strictest; of several orders on one name the strictest acts.
STRICTNESS = {Action.SINKHOLE: 0, Action.NODATA: 1, Action.NXDOMAIN: 2, Action.REFUSED: 3, Action.DROP: 4}


class View:
    """The rules that hold for one group from one moment until the next transition."""

    __slots__ = ("generation", "group", "stances", "until")

    def __init__(self, generation: "Generation", group: int, at: float) -> None:
        """Read the generation as it stands for a group at a moment (Unix seconds)."""
        self.generation = generation
        self.group = generation.terms.groups[group].name if group >= 0 else ""
        self.until = generation.next_transition(at)
        self.stances: dict[int, Stance] = {}
        for rank, entry in enumerate(generation.terms.enforcements):
            order = generation.terms.orders[entry.order]
            if group not in entry.groups or not order.is_in_force(at) or not entry.since <= at < entry.until:
                continue
            stance = Stance(entry.mode, entry.action, rank)
            held = self.stances.get(entry.order)
            if held is None or _weight(stance) > _weight(held):
                self.stances[entry.order] = stance


def _weight(stance: Stance) -> tuple[bool, int]:
    return stance.mode is Mode.ENFORCE, STRICTNESS[stance.action]


class Generation:
    """A compiled policy, open for reading."""

    def __init__(self, octets: memoryview) -> None:
        """Open a generation.

        Args:
            octets: The whole file, writable as far as the buffer goes (a private mapping) though nothing writes to it.

        Raises:
            GenerationError: Not a generation, of another format, or cut short.
        """
        if octets[: len(MAGIC)] != MAGIC:
            raise GenerationError(
                "not a generation file, or one of another version: compile it again with `interdict reload`"
            )
        self._octets = octets
        try:
            header, arrays = _open(octets)
            self.serial: int = header["serial"]
            self.digest: str = header["digest"]
            self.compiled_at: float = header["compiled_at"]
            self.names: int = header["names"]
            self.terms = _terms_from_json(header["terms"])
            self.table = NameTable(*arrays)
            self._pool = arrays[3]
            self._allowed = NetworkTable([(network, 0) for network in self.terms.allowed_networks])
            self._groups = NetworkTable(
                [(network, i) for i, group in enumerate(self.terms.groups) for network in group.networks]
            )
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise GenerationError(f"the generation file is damaged: {error}") from None

    def listed(self) -> Iterator[bytes]:
        """Every listed name, wire form, in the order of the file."""
        start = i = 0
        while i < len(self._pool):
            octets = self._pool[i]
            i += octets + 1
            if not octets:
                yield bytes(self._pool[start:i])
                start = i

    def is_allowed(self, address: bytes) -> bool:
        """Whether a client address (4 or 16 octets) may ask at all."""
        return self._allowed.find(address) >= 0

    def group_of(self, address: bytes) -> int:
        """The number of the group that a client address belongs to by its longest network, or -1."""
        return self._groups.find(address)

    def next_transition(self, at: float) -> float:
        """The first moment after `at` (Unix seconds) at which an order, or a line that holds it, begins or ends, or
        FOREVER."""
        moments = [moment for order in self.terms.orders for span in order.spans for moment in span]
        moments += [moment for line in self.terms.enforcements for moment in (line.since, line.until)]
        return min([moment for moment in moments if moment > at], default=FOREVER)

    def verify(self) -> None:
        """Check the seal over every octet of the file.

        Raises:
            GenerationError: It does not match: the file was damaged.
        """
        if hashlib.sha256(self._octets[_SEALED:]).digest() != self._octets[len(MAGIC) : _SEALED]:
            raise GenerationError("the generation file does not match its seal: it was damaged; compile it again")


def write_generation(terms: PolicyTerms, names: Mapping[bytes, int], *, serial: int, at: float) -> tuple[bytes, str]:
    """Lay a generation out as octets.

    Args:
        terms: All but the names.
        names: Lower-cased wire names with the number of each one's claim set.
        serial: Counts up with each change of policy.
        at: Unix seconds, for the record.

    Returns:
        (the file's octets, the digest: SHA-256 in hex over all content but serial and time).
    """
    ordered = sorted(names)
    filled = fill(slots_for(len(ordered)), ordered, [names[n] for n in ordered])
    arrays = {name: array.cast("B") for name, array in zip(_SECTIONS, filled, strict=True)}
    content = _terms_to_json(terms)
    digest = _digest(content, arrays)
    sections = {}
    offset = 0
    for name, array in arrays.items():
        sections[name] = (offset, array.nbytes)
        offset = _aligned(offset + array.nbytes)
    header = json.dumps({
        "serial": serial, "digest": digest, "compiled_at": at, "names": len(ordered), "terms": content, "sections":
        sections,
    }).encode()  # fmt: skip
    start = _aligned(_HEADER + len(header))
    out = bytearray(start + offset)
    out[_SEALED : _HEADER + len(header)] = len(header).to_bytes(8, "little") + header
    for name, array in arrays.items():
        first, octets = sections[name]
        out[start + first : start + first + octets] = array
    out[:_SEALED] = MAGIC + hashlib.sha256(memoryview(out)[_SEALED:]).digest()
    return bytes(out), digest


def _aligned(offset: int) -> int:
    return (offset + 63) // 64 * 64


def _digest(terms: dict[str, object], arrays: Mapping[str, memoryview]) -> str:
    digest = hashlib.sha256(json.dumps(terms, sort_keys=True).encode())
    for name in _SECTIONS:
        digest.update(arrays[name])
    return digest.hexdigest()


def _open(octets: memoryview) -> tuple[dict, tuple[memoryview, ...]]:  # type: ignore[type-arg]
    if len(octets) < _HEADER:
        raise GenerationError("the generation file is cut short")
    length = int.from_bytes(octets[_SEALED:_HEADER], "little")
    header = json.loads(bytes(octets[_HEADER : _HEADER + length]))
    first = _aligned(_HEADER + length)
    arrays = []
    for name in _SECTIONS:
        offset, size = header["sections"][name]
        arrays.append(octets[first + offset : first + offset + size])
        if len(arrays[-1]) != size:
            raise GenerationError("the generation file is cut short")
    fingerprints, claim_sets, places = arrays[0].cast("Q"), arrays[1].cast("I"), arrays[2].cast("I")
    # The table trusts these two without looking: it reads the arrays side by side, and a search ends at an empty slot.
    if not len(fingerprints) == len(claim_sets) == len(places) or 0 not in fingerprints:
        raise GenerationError("the generation file is damaged: its arrays are no table")
    return header, (fingerprints, claim_sets, places, arrays[3])


def _bound(moment: float) -> float | None:
    return None if moment in (FOREVER, -FOREVER) else moment


def _terms_to_json(terms: PolicyTerms) -> dict[str, object]:
    return {
        "allowed_networks": terms.allowed_networks,
        "groups": [[g.name, g.networks] for g in terms.groups],
        "orders": [
            [o.id, o.title_en, o.title_fr, o.basis.value, [[b, _bound(e)] for b, e in o.spans]] for o in terms.orders
        ],
        "apps": [[a.id, a.name] for a in terms.apps],
        "enforcements": [
            [e.order, e.groups, e.mode.value, e.action.value, _bound(e.since), _bound(e.until)]
            for e in terms.enforcements
        ],
        "claim_sets": [[[c.order, c.app, int(c.exact)] for c in claims] for claims in terms.claim_sets],
        "block_ttl": terms.block_ttl,
        "sinkhole": [terms.sinkhole_ipv4, terms.sinkhole_ipv6],
    }


def _terms_from_json(terms: dict) -> PolicyTerms:  # type: ignore[type-arg]
    return PolicyTerms(
        tuple(terms["allowed_networks"]),
        tuple(GroupEntry(name, tuple(networks)) for name, networks in terms["groups"]),
        tuple(
            OrderEntry(id_, en, fr, Basis(basis), tuple((b, FOREVER if e is None else e) for b, e in spans))
            for id_, en, fr, basis, spans in terms["orders"]
        ),
        tuple(AppEntry(id_, name) for id_, name in terms["apps"]),
        tuple(
            EnforcementEntry(
                order,
                tuple(groups),
                Mode(mode),
                Action(action),
                -FOREVER if since is None else since,
                FOREVER if until is None else until,
            )
            for order, groups, mode, action, since, until in terms["enforcements"]
        ),
        tuple(tuple(Claim(o, a, bool(x)) for o, a, x in claims) for claims in terms["claim_sets"]),
        terms["block_ttl"],
        tuple(terms["sinkhole"][0]),
        tuple(terms["sinkhole"][1]),
    )
