"""A generation: one compiled policy in one file, opened by every worker and never written again.

The file is made to be mapped: a header (JSON: orders, apps, groups, zones, claim sets) and the arrays of two name
tables that are read where they lie, so N workers share one copy and opening costs no more than the header.

```
INTERDICT GENERATION 3\\n      magic
SHA-256, 32 octets             seal of the header and its length
u64le n, n octets of JSON      header; `sections` gives (offset, octets) of each array, counted from the first array,
                               and `arrays` is the SHA-256 of all that follows the header
arrays                         of the table of QNAME triggers (`names/`), then of NSDNAME triggers (`nameservers/`)
```

A `View` is what one client is held to at one moment. Views are made from the generation and the clock's reading, and
say until when they hold; so an order begins at its moment with nothing reloaded. Clients of one group share a view,
unless an exemption or a rule on client addresses sets some of them apart: they are then told apart by their *pocket*,
the longest network that such a rule speaks of.
"""

import hashlib
import ipaddress
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from resolver.hot._names_cy import SECTIONS, NameTable, build, listed
from resolver.policy.documents import Action, Mode
from resolver.policy.patterns import PatternSet
from resolver.policy.terms import FOREVER, PolicyTerms, Precedence, ZoneEntry, ZoneKind, from_json, to_json
from resolver.policy.zone import Progress, Trigger

MAGIC = b"INTERDICT GENERATION 3\n"
_SEALED = len(MAGIC) + hashlib.sha256().digest_size  # where that which the seal covers begins
_HEADER = _SEALED + 8
_TABLES = ("names", "nameservers")
_ROOT = b"\0"
_Arrays = dict[str, memoryview]
_BROKEN = "the generation file does not match its seal: it was damaged; compile it again"
_DAMAGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class GenerationError(Exception):
    """The octets are not a generation that this version can read; the message says what is wrong."""


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
        return self.longest(address)[0]

    def longest(self, address: bytes) -> tuple[int, int]:
        """The number of the longest network that holds the address, and its prefix length; (-1, -1) for none."""
        value = int.from_bytes(address, "big")
        bits = len(address) * 8
        for shift, keys in self._levels[bits]:
            number = keys.get(value >> shift)
            if number is not None:
                return number, bits - shift
        return -1, -1


@dataclass(frozen=True, slots=True)
class Stance:
    """How a view holds one order: in what mode, with what action, in what rank among the configured ones."""

    mode: Mode
    action: Action
    rank: int


@dataclass(frozen=True, slots=True)
class ZoneStance:
    """How a view holds one zone: its number, and its rank: 0 for the operator's own rules, above 1 for the others.

    `client` is the zone's rule on the client's address, with the network it speaks of, or None.
    """

    number: int
    entry: ZoneEntry
    rank: int
    client: tuple[int, str] | None


ORDER_RANK = 1
"""Where the orders stand among the ranks of zones."""

ADDRESS_RANK = 1.5
"""Where own rules on addresses stand: before all zones, and after the orders, since what these ban is never asked."""

# From the mildest to the strictest; of several orders on one name the strictest acts.
STRICTNESS = {Action.SINKHOLE: 0, Action.NODATA: 1, Action.NXDOMAIN: 2, Action.REFUSED: 3, Action.DROP: 4}


class View:
    """The rules that hold for one client from one moment until the next transition.

    Attributes:
        stances: By number of the order.
        spared: (order, app) -> id of the exemption that spares the client.
        zones: By number of the zone, in order of precedence.
        clients: The zones that have a rule on the client's address.
        patterned: The zones that have patterns, with these.
        addressed: The zones that have triggers on addresses of answers (RESPONSE_IP) and of name servers (NSIP).
        answer_rank: The first rank that looks at answers, at their addresses or name servers: a verdict of a later
            rank waits for the answer. An order does not wait for a rule that could only withhold what it withholds.
        follows_nameservers: Whether name servers are to be looked up.
        strips_ech: Whether ECH parameters are taken out of answers.
    """

    __slots__ = (
        "addressed",
        "answer_rank",
        "clients",
        "follows_nameservers",
        "generation",
        "group",
        "patterned",
        "spared",
        "stances",
        "strips_ech",
        "until",
        "zones",
    )

    def __init__(self, generation: "Generation", group: int, at: float, pocket: int = -1, device: str = "") -> None:
        """Read the generation as it stands for a group, a pocket (see `client_of`) and a device at a moment (Unix s).

        The device is the name of a recognised one; empty where there is none, or nothing is said of it by name.
        """
        terms = generation.terms
        self.generation = generation
        self.group = terms.groups[group].name if group >= 0 else ""
        self.until = generation.next_transition(at)
        self.strips_ech = group in terms.strip_ech
        self.stances: dict[int, Stance] = {}
        for rank, line in enumerate(terms.enforcements):
            order = terms.orders[line.order]
            if group not in line.groups or not order.is_in_force(at) or not line.since <= at < line.until:
                continue
            stance = Stance(line.mode, line.action, rank)
            earlier = self.stances.get(line.order)
            if earlier is None or _weight(stance, terms.precedence) > _weight(earlier, terms.precedence):
                self.stances[line.order] = stance
        networks = generation.networks_of(pocket)
        self.spared: dict[tuple[int, int], str] = {}
        for exemption in terms.exemptions:
            if exemption.since <= at < exemption.until and (
                group in exemption.groups
                or device in exemption.devices
                or not networks.keys().isdisjoint(exemption.devices)
            ):
                for pair in exemption.spares:
                    self.spared.setdefault(pair, exemption.id)
        self.zones: dict[int, ZoneStance] = {}
        self.answer_rank = FOREVER
        self.follows_nameservers = False
        for number, zone in enumerate(terms.zones):
            if (zone.groups and group not in zone.groups) or not zone.since <= at < zone.until:
                continue
            rank = 0 if zone.kind is ZoneKind.RULE else ORDER_RANK + 1 + number
            self.zones[number] = ZoneStance(number, zone, rank, generation.client_rule(number, networks))
            if zone.mode is Mode.ENFORCE and (zone.nameservers or generation.has_addresses(number)):
                self.answer_rank = min(self.answer_rank, rank or ADDRESS_RANK)
            self.follows_nameservers |= zone.nameservers
        # A view judges many questions, and may hold hundreds of zones: those that have a say are sought once.
        held = self.zones.values()
        self.clients = [stance for stance in held if stance.client is not None]
        self.patterned = [
            (stance, generation.patterns[number])
            for number, stance in self.zones.items()
            if number in generation.patterns
        ]
        self.addressed = {
            trigger: [(stance, table) for stance in held if (table := generation.addresses(stance.number, trigger))]
            for trigger in (Trigger.RESPONSE_IP, Trigger.NSIP)
        }


def _weight(stance: Stance, precedence: Precedence) -> tuple[bool, int]:
    by_choice = STRICTNESS[stance.action] if precedence is Precedence.STRICTEST else -stance.rank
    return stance.mode is Mode.ENFORCE, by_choice


class Generation:
    """A compiled policy, open for reading."""

    def __init__(self, octets: memoryview) -> None:
        """Open a generation.

        Args:
            octets: The whole file, which nothing writes to.

        Raises:
            GenerationError: Not a generation, of another format, cut short, or its header is damaged.
        """
        if octets[: len(MAGIC)] != MAGIC:
            raise GenerationError(
                "not a generation file, or one of another version: compile it again with `interdict reload`"
            )
        try:
            header, tables, self._unread = _open(octets)
            self._arrays: str = header["arrays"]
            self.serial: int = header["serial"]
            self.digest: str = header["digest"]
            self.compiled_at: float = header["compiled_at"]
            self.made_by: str = header["made_by"]
            self.names: int = header["names"]
            self.terms = from_json(header["terms"])
            self.table = NameTable(tables[0])
            self.nameserver_table = NameTable(tables[1])
            self.root = self.table.find(_ROOT)
            self._nameserver_root = self.nameserver_table.find(_ROOT)
            self._sections = tables[0]
            self._moments = sorted(self.terms.moments())
            self._group_numbers = {group.name: i for i, group in enumerate(self.terms.groups)}
            self._allowed = NetworkTable([(network, 0) for network in self.terms.allowed_networks])
            self._groups = NetworkTable(
                [(network, i) for i, group in enumerate(self.terms.groups) for network in group.networks]
            )
            self._addresses: dict[tuple[int, Trigger], NetworkTable] = {}
            self._client_rules: dict[int, dict[str, int]] = {}
            self.patterns: dict[int, PatternSet] = {}
            self._open_zones()
            self._open_pockets()
        except _DAMAGE as error:
            raise GenerationError(f"the generation file is damaged: {error}") from None

    def _open_zones(self) -> None:
        for number, zone in enumerate(self.terms.zones):
            if zone.patterns:
                self.patterns[number] = PatternSet(zone.patterns)
            for trigger in (Trigger.RESPONSE_IP, Trigger.NSIP):
                held = [(network, rule) for kind, network, rule in zone.networks if kind is trigger]
                if held:
                    self._addresses[number, trigger] = NetworkTable(held)
            client = {network: rule for kind, network, rule in zone.networks if kind is Trigger.CLIENT_IP}
            if client:
                self._client_rules[number] = client

    def _open_pockets(self) -> None:
        """Number the networks that set clients apart, each with all networks that hold it, the longest first."""
        exempt = {device for exemption in self.terms.exemptions for device in exemption.devices}
        texts = {device for device in exempt if _is_network(device)}
        self.named_devices = frozenset(exempt - texts)
        texts |= {network for rules in self._client_rules.values() for network in rules}
        networks = sorted((ipaddress.ip_network(text) for text in texts), key=_nesting)
        self._pockets = NetworkTable([(str(network), i) for i, network in enumerate(networks)])
        self._pocket_networks: list[dict[str, None]] = []
        around: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for network in networks:
            while around and not _holds(around[-1], network):
                around.pop()
            around.append(network)
            self._pocket_networks.append(dict.fromkeys(str(one) for one in reversed(around)))

    @property
    def label(self) -> str:
        """What it is called for short: serial and the beginning of the digest."""
        return f"{self.serial} ({self.digest[:12]})"

    def listed(self) -> Iterator[bytes]:
        """Every listed name, wire form, sorted.

        Raises:
            ValueError: The file is damaged.
        """
        return listed(self._sections)

    def covering(self, name: bytes) -> list[tuple[int, int]]:
        """Every listed name that equals `name` or stands above it, the root last: (offset, claim set) pairs."""
        found = self.table.covering(name)
        if self.root >= 0:  # the table walks labels, of which the root has none
            found.append((len(name) - 1, self.root))
        return found

    def covering_nameserver(self, host: bytes) -> list[tuple[int, int]]:
        """The same of NSDNAME triggers."""
        found = self.nameserver_table.covering(host)
        if self._nameserver_root >= 0:
            found.append((len(host) - 1, self._nameserver_root))
        return found

    def is_allowed(self, address: bytes) -> bool:
        """Whether a client address (4 or 16 octets) may ask at all."""
        return self._allowed.find(address) >= 0

    def group_of(self, address: bytes) -> int:
        """The number of the group that a client address belongs to by its longest network, or -1."""
        return self._groups.find(address)

    def number_of_group(self, name: str) -> int:
        """The number of a group by its name, or -1."""
        return self._group_numbers.get(name, -1)

    def client_of(self, address: bytes) -> tuple[int, int]:
        """What sets a client's view apart, by its address (4 or 16 octets): (group, pocket), -1 where there is none."""
        return self._groups.find(address), self._pockets.find(address)

    def view_of(self, address: bytes, at: float) -> View:
        """The view of a client (4 or 16 octets) at a moment (Unix seconds)."""
        group, pocket = self.client_of(address)
        return View(self, group, at, pocket)

    def networks_of(self, pocket: int) -> Mapping[str, None]:
        """The networks that a pocket lies in, the longest first."""
        return self._pocket_networks[pocket] if pocket >= 0 else {}

    def client_rule(self, zone: int, networks: Mapping[str, None]) -> tuple[int, str] | None:
        """A zone's rule on the longest of a pocket's networks that it speaks of: (rule, network)."""
        rules = self._client_rules.get(zone)
        if rules is None:
            return None
        return next(((rules[network], network) for network in networks if network in rules), None)

    def has_addresses(self, zone: int) -> bool:
        """Whether a zone has triggers on the addresses of answers."""
        return (zone, Trigger.RESPONSE_IP) in self._addresses

    def addresses(self, zone: int, trigger: Trigger) -> NetworkTable | None:
        """A zone's triggers on addresses of answers (RESPONSE_IP) or name servers (NSIP), numbered by rule."""
        return self._addresses.get((zone, trigger))

    def next_transition(self, at: float) -> float:
        """The first moment after `at` (Unix seconds) at which anything begins or ends, or FOREVER."""
        later = bisect_right(self._moments, at)
        return self._moments[later] if later < len(self._moments) else FOREVER

    def verify(self) -> None:
        """Check every octet that was not read in opening.

        Raises:
            GenerationError: They do not match the header's digest: the file was damaged.
        """
        if hashlib.sha256(self._unread).hexdigest() != self._arrays:
            raise GenerationError(_BROKEN)


def write_generation(
    terms: PolicyTerms,
    names: Mapping[bytes, int],
    *,
    serial: int,
    at: float,
    nameservers: Mapping[bytes, int] | None = None,
    made_by: str = "",
    progress: Progress | None = None,
) -> tuple[bytes, str]:
    """Lay a generation out as octets.

    Args:
        terms: All but the names.
        names: Lower-cased wire names with the number of each one's claim set.
        serial: Counts up with each change of policy.
        at: Unix seconds, for the record.
        nameservers: The same, of NSDNAME triggers.
        made_by: Who had it compiled, for the record.
        progress: Told of the table of names, when it is begun and when it is made.

    Returns:
        (the file's octets, the digest: SHA-256 in hex over all content but serial, time and maker).
    """
    tell = progress or (lambda what, done, whole: None)
    tell("the table of names", 0, len(names))
    arrays = {
        f"{table}/{name}": array
        for table, held in zip(_TABLES, (names, nameservers or {}), strict=True)
        for name, array in build(held).items()
    }
    tell("the table of names", len(names), len(names))
    content = to_json(terms)
    digest = _digest(content, arrays)
    sections = {}
    offset = 0
    for name, array in arrays.items():
        sections[name] = (offset, array.nbytes)
        offset = _aligned(offset + array.nbytes)
    start = json.dumps({
        "serial": serial, "digest": digest, "compiled_at": at, "made_by": made_by, "names": len(names), "terms":
        content, "sections": sections,
    })[:-1].encode()  # fmt: skip
    end = b', "arrays": "%s"}'
    length = len(start) + len(end % bytes(hashlib.sha256().digest_size * 2))
    first = _aligned(_HEADER + length)
    out = bytearray(first + offset)
    for name, array in arrays.items():
        place, octets = sections[name]
        out[first + place : first + place + octets] = array
    rest = hashlib.sha256(memoryview(out)[_HEADER + length :]).hexdigest()
    out[_SEALED : _HEADER + length] = length.to_bytes(8, "little") + start + end % rest.encode()
    out[:_SEALED] = MAGIC + hashlib.sha256(memoryview(out)[_SEALED : _HEADER + length]).digest()
    return bytes(out), digest


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _nesting(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> tuple[int, int, int]:
    return network.version, int(network.network_address), network.prefixlen


def _holds(
    outer: ipaddress.IPv4Network | ipaddress.IPv6Network, inner: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> bool:
    shift = outer.max_prefixlen - outer.prefixlen
    return outer.version == inner.version and int(outer.network_address) >> shift == int(inner.network_address) >> shift


def _aligned(offset: int) -> int:
    return (offset + 63) // 64 * 64


def _digest(terms: dict[str, object], arrays: Mapping[str, memoryview]) -> str:
    digest = hashlib.sha256(json.dumps(terms, sort_keys=True).encode())
    for array in arrays.values():
        digest.update(array)
    return digest.hexdigest()


def _open(octets: memoryview) -> tuple[dict, list[_Arrays], memoryview]:  # type: ignore[type-arg]
    if len(octets) < _HEADER:
        raise GenerationError("the generation file is cut short")
    length = int.from_bytes(octets[_SEALED:_HEADER], "little")
    if _HEADER + length > len(octets):
        raise GenerationError("the generation file is cut short")
    if hashlib.sha256(octets[_SEALED : _HEADER + length]).digest() != octets[len(MAGIC) : _SEALED]:
        raise GenerationError(_BROKEN)
    header = json.loads(bytes(octets[_HEADER : _HEADER + length]))
    first = _aligned(_HEADER + length)
    tables: list[_Arrays] = []
    for table in _TABLES:
        arrays = {}
        for name in SECTIONS:
            offset, size = header["sections"][f"{table}/{name}"]
            arrays[name] = octets[first + offset : first + offset + size]
            if len(arrays[name]) != size:
                raise GenerationError("the generation file is cut short")
        tables.append(arrays)
    return header, tables, octets[_HEADER + length :]
