"""A judge written from the rules alone, slow and without a table, and random policies to hold the real one against.

The rules: the operator's own come first (an allow before a block), then the orders (the strictest action, or the first
configured), then the zones as configured. Within a Response Policy Zone the client's address goes before names, these
before addresses, name servers and their addresses; the longest name or network decides, exact before wildcard, and of
names only the nearest that the zone has. Within a list important exceptions go before important rules, these before
exceptions, these before the rest. What only logs decides nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

from hypothesis import strategies as st

from resolver.policy.documents import Action, Mode
from resolver.policy.generation import STRICTNESS, Generation, View
from resolver.policy.judge import Reached, Verdict, is_settled, judge_answer, judge_query
from resolver.policy.patterns import PatternSet
from resolver.policy.terms import FOREVER, Precedence, ZoneKind
from resolver.policy.zone import LocalRecord, Rule
from tests.support.build import GROUPS, Ban, Spared, Zone, empty_nonterminals, policy, wire


@dataclass(frozen=True)
class Policy:
    """What a policy is made of."""

    bans: tuple[Ban, ...] = ()
    zones: tuple[Zone, ...] = ()  # own rules first
    exemptions: tuple[Spared, ...] = ()
    precedence: Precedence = Precedence.STRICTEST

    def opened(self) -> Generation:
        """Its generation."""
        return policy(*self.bans, zones=self.zones, exemptions=self.exemptions, precedence=self.precedence)


@dataclass(frozen=True)
class Question:
    """Who asks what and when, and where its answer leads: the names and their servers in text, and addresses."""

    client: str
    at: float
    name: str
    qtype: int = 1
    aliases: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    servers: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)

    def view(self, generation: Generation) -> View:
        """The client's, at that moment."""
        return generation.view_of(ip_address(self.client).packed, self.at)

    def reached(self) -> Reached:
        """As the product is told it."""
        return Reached(
            tuple(map(wire, self.aliases)),
            tuple(map(wire, self.others)),
            tuple(ip_address(one).packed for one in self.addresses),
            {
                wire(name): (tuple(map(wire, hosts)), tuple(ip_address(one).packed for one in addresses))
                for name, (hosts, addresses) in self.servers.items()
            },
        )


def told(question: Question, found: Policy) -> tuple[Verdict | None, bool, Verdict | None]:
    """What the product says: of the question, whether that is settled, and of the answer."""
    view = question.view(found.opened())
    first = judge_query(wire(question.name), view, question.qtype)
    last = judge_answer(wire(question.name), first, question.reached(), view, question.qtype)
    return first, is_settled(first, view), last


def done(question: Question, found: Policy) -> Verdict | None:
    """The verdict that holds in the end."""
    first, settled, last = told(question, found)
    return first if settled else last


def is_withheld(question: Question, found: Policy) -> bool:
    """Whether the client does not get the true answer."""
    verdict = done(question, found)
    return verdict is not None and not verdict.passes


# ---- the judge ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """What is said of one link; `place` is 0 for own rules on names, 1 for orders, above for addresses and zones."""

    key: tuple[float, ...]
    place: float
    id: str
    action: Action
    enforced: bool


OWN_ADDRESS = 1.5
"""The place of own rules on addresses: after orders, before zones."""

Summary = tuple[str, Action, bool, int, frozenset[str]] | None  # (id, action, enforced, link, all that matched)


def summary(verdict: Verdict | None) -> Summary:
    """A verdict of the product's in the naive judge's words."""
    if verdict is None:
        return None
    return verdict.order.id, verdict.action, verdict.enforced, verdict.link, frozenset(verdict.orders)


def naive_query(question: Question, found: Policy) -> Summary:
    """What `judge_query` is to say."""
    return _summed(_link(question, found, question.name, 0, answered=False), 0)


def naive_settled(question: Question, found: Policy) -> bool:
    """What `is_settled` is to say of it."""
    said = _link(question, found, question.name, 0, answered=False)
    if not said or not said[0].enforced or said[0].action is Action.PASSTHRU:
        return False
    looking = [
        _place(zone, i) or OWN_ADDRESS
        for i, zone in enumerate(found.zones)
        if _in_force(zone, question)
        and zone.mode is Mode.ENFORCE
        and (zone.nameservers or any(not line.startswith("client-ip") for line, _ in zone.networks))
    ]
    return all(said[0].place <= place for place in looking)


def naive_answer(question: Question, found: Policy) -> Summary:
    """What `judge_answer` is to say."""
    links = (question.name, *question.aliases, *question.others)
    asked = _link(question, found, question.name, 0, answered=False)
    if asked and asked[0].enforced and asked[0].place <= 1:
        return _summed(asked, 0)
    passed: Summary = None
    heads: list[Summary] = []
    for link, name in enumerate(links):
        said = _link(question, found, name, link, answered=True)
        if said and said[0].enforced and said[0].place <= 1:
            if said[0].action is not Action.PASSTHRU:
                return _summed(said, link)
            passed = _summed(said, link)
            break
        if said:
            own_address = said[0].enforced and said[0].place == OWN_ADDRESS
            heads.insert(0 if own_address else len(heads), _summed(said, link))
    enforced = [head for head in heads if head is not None and head[2]]
    return enforced[0] if enforced else passed or (heads[0] if heads else None)


def _summed(said: list[Said], link: int) -> Summary:
    return (said[0].id, said[0].action, said[0].enforced, link, frozenset(one.id for one in said)) if said else None


def _link(question: Question, found: Policy, name: str, link: int, *, answered: bool) -> list[Said]:
    """All that is said of one name, what decides first."""
    said = list(_orders(question, found, name))
    addresses = question.addresses if answered and link == len(question.aliases) else ()
    servers = question.servers.get(name, ((), ())) if answered else ((), ())
    for i, zone in enumerate(found.zones):
        if _in_force(zone, question):
            by = list(_matches(zone, question, name, link, addresses, servers))
            judge = {ZoneKind.RULE: _own, ZoneKind.RPZ: _rpz, ZoneKind.LIST: _list}[zone.kind]
            said += judge(zone, by, i)
    return sorted(said, key=lambda one: (not one.enforced, one.place, one.key))


def _orders(question: Question, found: Policy, name: str) -> Iterator[Said]:
    group = group_of(question.client)
    for i, ban in enumerate(found.bans):
        covering = [line for line in ban.rules if covers(line, name)]
        if not covering or group not in ban.groups or not ban.effective <= question.at < ban.expires:
            continue
        exempt = any(
            ban.order in one.orders
            and one.since <= question.at < one.until
            and (group in one.groups or any(holds(network, question.client) for network in one.devices))
            for one in found.exemptions
        )
        for line in covering:
            nearest = (-len(wire(line.split()[1])), not line.startswith("exact"))
            chosen = -STRICTNESS[ban.action] if found.precedence is Precedence.STRICTEST else i
            enforced = ban.mode is Mode.ENFORCE and not exempt
            yield Said((chosen, *nearest, i), 1, ban.order, ban.action, enforced)


Match = tuple[int, tuple[float, ...], Rule]  # (place of the trigger, nearest first, rule)


def _matches(
    zone: Zone,
    question: Question,
    name: str,
    link: int,
    addresses: tuple[str, ...],
    servers: tuple[tuple[str, ...], tuple[str, ...]],
) -> Iterator[Match]:
    if not link:
        yield from _longest(zone, "client-ip", 0, (question.client,))
    named = [(line, rule, name) for line, rule in zone.names]
    served = [(line, rule, host) for line, rule in zone.nameservers for host in servers[0]]
    for place, lines in ((1, named), (3, served)):
        for line, rule, judged in lines:
            if zone.kind is ZoneKind.RPZ and line.split()[1] != _encloser(judged, [one for one, *_ in lines]):
                continue
            if covers(line, judged) and _reaches(rule, judged, question.qtype):
                yield place, (-len(wire(line.split()[1])), not line.startswith("exact")), rule
    for pattern, rule in zone.patterns:
        if PatternSet([(pattern, 0)]).match(name) and _reaches(rule, name, question.qtype):
            yield 1, (-len(wire(name)), False), rule
    for match in _longest(zone, "ip", 2, addresses):
        if _reaches(match[2], question.name, 1):
            yield match
    yield from _longest(zone, "nsip", 4, servers[1])


def _encloser(name: str, lines: list[str]) -> str:
    """The nearest name of a zone at or above a name (RFC 4592 §3.3.1)."""
    owners = {line.split()[1] for line in lines}
    nodes = owners | empty_nonterminals(owners)
    labels = name.split(".")
    return next((node for i in range(len(labels)) if (node := ".".join(labels[i:])) in nodes), "")


def _longest(zone: Zone, trigger: str, place: int, addresses: tuple[str, ...]) -> Iterator[Match]:
    held = [(line.split()[1], rule) for line, rule in zone.networks if line.split()[0] == trigger]
    matches = [
        (-ip_network(network).prefixlen, ip_address(address).packed, rule)
        for network, rule in held
        for address in addresses
        if holds(network, address)
    ]
    if matches:
        yield place, (), min(matches, key=lambda match: match[:2])[2]


def _own(zone: Zone, matches: list[Match], i: int) -> list[Said]:
    if not matches:
        return []
    place, near, rule = min(matches, key=lambda match: match[:2])
    key = (rule.action is not Action.PASSTHRU, place, *(near or (0, 0)), i)
    return [Said(key, OWN_ADDRESS if place == 2 else 0, zone.id, rule.action, True)]


def _rpz(zone: Zone, matches: list[Match], i: int) -> list[Said]:
    if not matches:
        return []
    rule = zone.override or min(matches, key=lambda match: match[:2])[2]
    return [Said((), _place(zone, i), zone.id, rule.action, zone.mode is Mode.ENFORCE)]


def _list(zone: Zone, matches: list[Match], i: int) -> list[Said]:
    classes = {(rule.important, rule.action is Action.PASSTHRU) for *_, rule in matches}
    for one in ((True, True), (True, False), (False, True), (False, False)):
        if one in classes:
            if one[1]:
                return []
            acting = next(rule for *_, rule in matches if rule.action is not Action.PASSTHRU)
            action = (zone.override or acting).action
            return [Said((), _place(zone, i), zone.id, action, zone.mode is Mode.ENFORCE)]
    return []


def _place(zone: Zone, i: int) -> int:
    return 0 if zone.kind is ZoneKind.RULE else 2 + i


def _in_force(zone: Zone, question: Question) -> bool:
    return (not zone.groups or group_of(question.client) in zone.groups) and zone.since <= question.at < zone.until


def _reaches(rule: Rule, name: str, qtype: int) -> bool:
    if rule.qtypes and (qtype in rule.qtypes) == rule.but_qtypes:
        return False
    return not any(
        wire(name).endswith(spared) and name != f"x{name}" and _below(name, spared) for spared in rule.spares
    )


def _below(name: str, above: bytes) -> bool:
    labels = name.split(".")
    return above in [wire(".".join(labels[i:])) for i in range(len(labels))]


def covers(line: str, name: str) -> bool:
    """A reading of a line that owes nothing to the table."""
    reach, owner = line.split()
    below = name.endswith(f".{owner}")
    return {"exact": name == owner, "suffix": name == owner or below, "below": below}[reach]


def holds(network: str, address: str) -> bool:
    """Whether a network holds an address."""
    held = ip_network(network)
    return held.version == ip_address(address).version and ip_address(address) in held


def group_of(client: str) -> str:
    """The group of the longest network that holds the client."""
    found = [(ip_network(n).prefixlen, name) for name, held in GROUPS.items() for n in held if holds(n, client)]
    return max(found)[1] if found else ""


# ---- random policies ------------------------------------------------------------------------------------------------

NAMES = ["example", "chat.example", "chat.example", "a.chat.example", "a.chat.example", "xchat.example", "cdn.example"]
HOSTS = ["ns.host.example", "ns.a.host.example", "xhost.example"]
CLIENTS = ["192.0.2.5", "192.0.2.70", "192.0.2.200", "2001:db8:1::5", "2001:db8:9::5"]
ADDRESSES = ["198.51.100.1", "198.51.100.200", "203.0.113.9", "2001:db8:f::1"]
_MODES = st.sampled_from(Mode)
_MOMENTS = st.sampled_from([0.0, 1.0, 2.0])
_ALWAYS = st.just((0.0, FOREVER))
_WINDOWS = st.one_of(_ALWAYS, _ALWAYS, st.tuples(_MOMENTS, st.sampled_from([1.0, 2.0, FOREVER])))
_GROUPS = st.sampled_from([("phones",), ("phones",), ("desks",), ("phones", "desks")])
_CLIENT_NETWORKS = ["192.0.2.0/24", "192.0.2.0/26", "192.0.2.5/32", "2001:db8::/32", "2001:db8:1::/64"]
_NETWORKS = ["198.51.100.0/24", "198.51.100.0/25", "203.0.113.9/32", "2001:db8:f::/48", "0.0.0.0/0"]
_RECORD = LocalRecord(1, 60, b"\xc0\0\2\1")


def _named(names: list[str], *reaches: str) -> st.SearchStrategy[str]:
    return st.tuples(st.sampled_from(reaches), st.sampled_from(names)).map(" ".join)


def _lines(
    of: st.SearchStrategy[str], rules: st.SearchStrategy[Rule]
) -> st.SearchStrategy[tuple[tuple[str, Rule], ...]]:
    return st.dictionaries(of, rules, max_size=3).map(lambda held: tuple(held.items()))


def bans(order: str, modes: st.SearchStrategy[Mode] = _MODES) -> st.SearchStrategy[Ban]:
    """Any order of that name."""
    return st.builds(
        lambda rules, mode, action, groups, window: Ban(order, rules, mode, action, groups, *window),
        st.lists(_named(NAMES, "exact", "suffix"), min_size=1, max_size=3, unique=True).map(tuple),
        modes, st.sampled_from(list(STRICTNESS)), _GROUPS, _WINDOWS,
    )  # fmt: skip


def exemptions(id_: str, orders: list[str]) -> st.SearchStrategy[Spared]:
    """Any exemption from some of these orders."""
    return st.builds(
        lambda spared, groups, devices, window: Spared(id_, spared, groups, devices, *window),
        st.lists(st.sampled_from(orders), min_size=1, unique=True).map(tuple),
        st.sampled_from([(), ("phones",), ("desks",)]),
        st.lists(st.sampled_from(_CLIENT_NETWORKS), max_size=2, unique=True).map(tuple),
        _WINDOWS,
    )


def own_rules(id_: str, *actions: Action) -> st.SearchStrategy[Zone]:
    """Any rule of the operator's with one of these actions."""
    return st.builds(
        lambda action, lines, networks, groups, window: Zone(
            f"rule:{id_}", ZoneKind.RULE, tuple((line, Rule(action)) for line in lines),
            networks=tuple((f"ip {network}", Rule(action)) for network in networks),
            groups=groups, since=window[0], until=window[1],
        ),
        st.sampled_from(actions),
        st.lists(_named(NAMES, "exact", "suffix"), max_size=2, unique=True),
        st.lists(st.sampled_from(_NETWORKS), max_size=1),
        st.one_of(st.just(()), _GROUPS), _WINDOWS,
    )  # fmt: skip


RPZ_ACTIONS = (Action.NXDOMAIN, Action.NODATA, Action.DROP, Action.TCP_ONLY, Action.PASSTHRU)


def rpzs(
    id_: str, modes: st.SearchStrategy[Mode] = _MODES, actions: tuple[Action, ...] = RPZ_ACTIONS
) -> st.SearchStrategy[Zone]:
    """Any Response Policy Zone of that name, with every kind of trigger."""
    rules = st.sampled_from([*map(Rule, actions)] + [Rule(Action.LOCAL_DATA, (_RECORD,))] * (len(actions) > 1))
    override = st.sampled_from([None, None, Rule(actions[0]), Rule(actions[-1])])
    on_clients = st.sampled_from([f"client-ip {network}" for network in _CLIENT_NETWORKS])
    on_answers = st.sampled_from([f"{kind} {network}" for kind in ("ip", "nsip") for network in _NETWORKS])
    return st.builds(
        lambda names, hosts, networks, groups, mode, over, window: Zone(
            f"zone:{id_}", ZoneKind.RPZ, names, hosts, networks, (), groups, mode, over, *window
        ),
        _lines(_named(NAMES, "exact", "below"), rules),
        _lines(_named([*HOSTS, "host.example", "a.host.example"], "exact", "below"), rules),
        _lines(st.one_of(on_answers, on_answers, on_clients), rules),
        st.one_of(st.just(()), _GROUPS), modes, override, _WINDOWS,
    )  # fmt: skip


def lists(id_: str, modes: st.SearchStrategy[Mode] = _MODES) -> st.SearchStrategy[Zone]:
    """Any list of that name: rules, exceptions, narrowed ones and important ones, patterns, addresses."""
    rules = st.builds(
        lambda action, types, spares, important: Rule(action, (), *types, spares, important),
        st.sampled_from([Action.NXDOMAIN, Action.NXDOMAIN, Action.PASSTHRU]),
        st.sampled_from([((), False), ((), False), ((1,), False), ((1, 28), True)]),
        st.sampled_from([(), (), (wire("a.chat.example"),)]),
        st.booleans(),
    )
    wide = st.builds(lambda action: Rule(action, (), (), False, (wire("cdn.example"),)), st.just(Action.NXDOMAIN))
    return st.builds(
        lambda names, networks, patterns, groups, mode, over, window: Zone(
            f"list:{id_}", ZoneKind.LIST, names, (), networks, patterns, groups, mode, over, *window
        ),
        _lines(_named(NAMES, "exact", "suffix"), rules),
        _lines(st.sampled_from([f"ip {network}" for network in _NETWORKS]), wide),
        _lines(st.sampled_from(["chat", r"^a\.", r"example$", r"^xch?at\."]), rules),
        st.one_of(st.just(()), _GROUPS), modes, st.sampled_from([None, None, Rule(Action.NODATA)]), _WINDOWS,
    )  # fmt: skip


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Any policy of up to three orders, two exemptions, three own rules and three zones."""
    orders = tuple(draw(bans(f"b{i}")) for i in range(draw(st.integers(0, 3))))
    spared = tuple(
        draw(exemptions(f"e{i}", [ban.order for ban in orders]))
        for i in range(draw(st.integers(0, 2 if orders else 0)))
    )
    own = tuple(
        draw(own_rules(f"r{i}", Action.PASSTHRU, Action.NXDOMAIN, Action.REFUSED))
        for i in range(draw(st.integers(0, 3)))
    )
    zones = tuple(draw(st.one_of(rpzs(f"z{i}"), lists(f"z{i}"))) for i in range(draw(st.integers(0, 3))))
    return Policy(orders, (*own, *zones), spared, draw(st.sampled_from(Precedence)))


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """Any question, with any answer."""
    asked = st.sampled_from([*NAMES, "z.chat.example", "z.b.a.chat.example", "org"])
    chain = st.lists(asked, max_size=2).map(tuple)
    name, aliases = draw(asked), draw(chain)
    addresses = st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True).map(tuple)
    servers = st.tuples(st.lists(st.sampled_from(HOSTS), max_size=2, unique=True).map(tuple), addresses)
    return Question(
        draw(st.sampled_from(CLIENTS)), draw(_MOMENTS), name, draw(st.sampled_from([1, 28, 65])), aliases,
        draw(st.lists(asked, max_size=1).map(tuple)), draw(addresses),
        draw(st.dictionaries(st.sampled_from([name, *aliases]), servers, max_size=2)),
    )  # fmt: skip


def with_more(
    found: Policy, *zones: Zone, bans: tuple[Ban, ...] = (), spared: tuple[Spared, ...] = (), place: int = 99
) -> Policy:
    """A policy with more in it: own rules first of all, other zones at a place among the zones."""
    mine = [zone for zone in found.zones if zone.kind is ZoneKind.RULE]
    rest = [zone for zone in found.zones if zone.kind is not ZoneKind.RULE]
    mine += [zone for zone in zones if zone.kind is ZoneKind.RULE]
    rest[place:place] = [zone for zone in zones if zone.kind is not ZoneKind.RULE]
    return replace(found, zones=(*mine, *rest), bans=(*found.bans, *bans), exemptions=(*found.exemptions, *spared))
