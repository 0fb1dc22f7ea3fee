"""Verdicts: what policy says about a query, asked by a client of one view. Pure functions, and the only ones that
decide.

The data path and `interdict explain` call the same lines, so an explanation can not differ from what was done.

Precedence: the operator's own rules (an allow before a block), then the orders, then the zones, one after another as
configured. So no list and no Response Policy Zone opens what an order forbids, and an allow of the operator's opens
whatever it covers. What only logs (mode observe, an order that the client is exempt from) decides nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network

from resolver.policy.documents import Action, Basis, Mode
from resolver.policy.generation import ADDRESS_RANK, ORDER_RANK, STRICTNESS, View, ZoneStance
from resolver.policy.terms import NO_APP, AppEntry, OrderEntry, Precedence, ZoneEntry, ZoneKind
from resolver.policy.zone import Reach, Rule, Trigger
from resolver.wire import name as names
from resolver.wire.codes import Ede, Rtype

_NO_RULE = Rule(Action.NXDOMAIN)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What policy says about a query.

    Attributes:
        action: What the client gets.
        mode: Whether it acts.
        order: The order, or the zone, whose rule decides.
        app: Through which app; NO_APP for a zone.
        orders: The ids of all whose rules cover the query, the deciding one first.
        rank: 0 for the operator's own rules on names, ORDER_RANK for orders, above for addresses and zones.
        trigger: What the rule looks at.
        owner: The rule's own name, wire form; of a trigger on addresses, the name whose answer was judged.
        owner_offset: Where in the judged name it begins; 0 where it is no part of it.
        reach: How far that name reaches.
        network: Of a trigger on addresses: the network, in text.
        pattern: Of a rule on a pattern: the expression.
        rule_held: The zone's rule.
        exemption: Id of the exemption by which an order's rule does not act.
        link: How many aliases were followed to what was judged: 0 for QNAME itself.
        subject: The judged name, wire form.
        opens: Whether it lets pass what another order, zone or own rule would withhold, or record.
    """

    action: Action
    mode: Mode
    order: OrderEntry | ZoneEntry
    app: AppEntry
    orders: tuple[str, ...]
    rank: float
    owner: bytes
    owner_offset: int
    reach: Reach = Reach.SUFFIX
    trigger: Trigger = Trigger.QNAME
    network: str = ""
    pattern: str = ""
    rule_held: Rule = _NO_RULE
    exemption: str = ""
    link: int = 0
    subject: bytes = b"\0"
    opens: bool = False

    @property
    def enforced(self) -> bool:
        """Whether it acts, be it by letting pass."""
        return self.mode is Mode.ENFORCE

    @property
    def exact(self) -> bool:
        """Whether the rule covers its name alone."""
        return self.reach is Reach.EXACT

    @property
    def passes(self) -> bool:
        """Whether the client gets the true answer."""
        return not self.enforced or self.action is Action.PASSTHRU

    @property
    def is_hit(self) -> bool:
        """Whether it is recorded: all are, but for a pass that opens nothing."""
        return self.action is not Action.PASSTHRU or self.opens

    @property
    def ede(self) -> Ede:
        """The INFO-CODE that says on whose word the answer is what it is.

        A forged answer is Forged Answer (RFC 8914 §4.5) whoever ordered it, since that is what the client must know; a
        refused one is Censored where an outside authority imposes it (RFC 8914 §4.17), Blocked where it is one's own
        policy (RFC 8914 §4.16).
        """
        if self.action in (Action.SINKHOLE, Action.LOCAL_DATA):
            return Ede.FORGED_ANSWER
        return Ede.CENSORED if self.order.basis is Basis.OUTSIDE_AUTHORITY else Ede.BLOCKED

    @property
    def rule(self) -> str:
        """The rule in words: `suffix wechat.com`, `ip 192.0.2.0/24`."""
        if self.network:
            return f"{self.trigger.value} {self.network}"
        if self.pattern:
            return f"pattern {self.pattern}"
        owner = names.to_text(self.owner)
        what = self.reach.name.lower()
        return f"{what} {owner}" if self.trigger is Trigger.QNAME else f"{self.trigger.value} {what} {owner}"

    @property
    def extra_text(self) -> str:
        """EXTRA-TEXT for people and log readers: the order and the app, or the zone."""
        return f"order {self.order.id}, app {self.app.id}" if self.app.id else self.order.id


@dataclass(frozen=True, slots=True)
class Reached:
    """Where an answer leads, less QNAME.

    Attributes:
        aliases: The names reached by CNAME, in order.
        others: Further names that it leads to: targets of DNAME, SVCB and HTTPS.
        addresses: Its addresses and address hints, 4 or 16 octets each.
        nameservers: For a name of the chain: the names of the name servers of its zones, and their addresses.
    """

    aliases: tuple[bytes, ...] = ()
    others: tuple[bytes, ...] = ()
    addresses: tuple[bytes, ...] = ()
    nameservers: Mapping[bytes, tuple[tuple[bytes, ...], tuple[bytes, ...]]] = field(default_factory=dict)


def weigh(qname: bytes, view: View, qtype: int = Rtype.A) -> list[Verdict]:
    """Every rule of the view that covers the question, the one that decides first.

    Enforced rules come before those that only log, so that a rule on trial never shadows one in force. Among orders the
    strictest action wins (or the first configured, where the policy says so), then the longest name, exact before
    suffix. Within a Response Policy Zone the client's address goes before names, and the longest name wins, exact
    before wildcard (draft-vixie-dnsop-dns-rpz-00 §5).

    Args:
        qname: Lower-cased wire form.
        view: Whose rules, and at what moment.
        qtype: The type asked for: some lists cover only some.
    """
    candidates = _by_name(qname, view, qtype)
    if view.clients:
        candidates += _by_client(view)
    return _weighed(candidates, qname, 0)


def judge_query(qname: bytes, view: View, qtype: int = Rtype.A) -> Verdict | None:
    """What policy says about a question, or None where no rule covers it. Orders cover every QTYPE and class alike."""
    verdicts = weigh(qname, view, qtype)
    return verdicts[0] if verdicts else None


def is_settled(verdict: Verdict | None, view: View) -> bool:
    """Whether a verdict on the question needs nothing from an upstream: it acts, and no zone that goes before it looks
    at answers."""
    return verdict is not None and not verdict.passes and verdict.rank <= view.answer_rank


def judge_answer(qname: bytes, verdict: Verdict | None, reached: Reached, view: View, qtype: int) -> Verdict | None:
    """What policy says about a query once it is known where its answer leads.

    An allowed name that is an alias of a banned one would otherwise be a way round the order. Names are judged in the
    order they are reached, and the first that a rule acts on decides: it withholds, or lets all that follows pass. Own
    rules and orders look at every name before zones look at any. Addresses are judged with the last alias, which has
    them; own rules on them go before every zone.

    Args:
        qname: Lower-cased wire form.
        verdict: What `judge_query` said about it.
        reached: Where the answer leads.
        view: As there.
        qtype: As there.

    Returns:
        The verdict that holds: the one given, or one on what was reached.
    """
    if verdict is not None and verdict.enforced and verdict.rank <= ORDER_RANK:
        return verdict
    last = len(reached.aliases)  # the link that the addresses belong to
    addressed = _by_address(reached.addresses, Trigger.RESPONSE_IP, qname, view)
    allowed: Verdict | None = None
    heads: list[Verdict] = []
    for link, name in enumerate((qname, *reached.aliases, *reached.others)):
        candidates = list(addressed) if addressed and link == last else []
        if (nameservers := reached.nameservers.get(name)) is not None:
            candidates += _by_nameserver(nameservers, view)
        if link or verdict is not None or candidates:  # else QNAME was looked up, and nothing found
            candidates += _by_name(name, view, qtype)
        if view.clients and not link:
            candidates += _by_client(view)
        for head in _weighed(candidates, name, link)[:1]:
            if head.enforced and head.rank <= ORDER_RANK and not head.passes:
                return head
            if head.enforced and head.rank <= ORDER_RANK:
                allowed = head  # what follows an allowed name is allowed with it
            elif head.enforced and head.rank == ADDRESS_RANK:
                heads.insert(0, head)
            else:
                heads.append(head)
        if allowed is not None:
            break
    return next((head for head in heads if head.enforced), None) or allowed or next(iter(heads), None)


# ---- candidates -----------------------------------------------------------------------------------------------------
# (sort key, fields of the verdict before `orders`, those after it up to `exemption`). A key is (only logs, rank, five
# numbers): any two compare.

_Before = tuple[Action, Mode, OrderEntry | ZoneEntry, AppEntry]
_After = tuple[float, bytes, int, Reach, Trigger, str, str, Rule, str]
_Candidate = tuple[tuple[float, ...], _Before, _After]
_TRIGGERS = (Trigger.CLIENT_IP, Trigger.QNAME, Trigger.RESPONSE_IP, Trigger.NSDNAME, Trigger.NSIP)
_ORDER_OF = {trigger: i for i, trigger in enumerate(_TRIGGERS)}  # within a zone (draft-vixie-dnsop-dns-rpz-00 §5.4)


def _weighed(candidates: list[_Candidate], subject: bytes, link: int) -> list[Verdict]:
    if not candidates:
        return []
    candidates.sort(key=_key_of)
    taken_back: set[float] = set()  # ranks of lists whose exception goes before their rules
    met: set[float] = set()
    acting = []
    for key, before, after in candidates:
        action, _, holder, _ = before
        if isinstance(holder, ZoneEntry) and holder.kind is ZoneKind.LIST:
            if key[1] not in met and action is Action.PASSTHRU:
                taken_back.add(key[1])
            met.add(key[1])
            if key[1] in taken_back or action is Action.PASSTHRU:
                continue
        acting.append((before, after))
    orders = tuple(dict.fromkeys(before[2].id for before, _ in acting))
    opens = any(before[0] is not Action.PASSTHRU and before[2].id != orders[0] for before, _ in acting)
    whole = [(*before, orders, *after, link, subject, opens) for before, after in acting]
    return [Verdict(*fields) for fields in whole]


def _key_of(candidate: _Candidate) -> tuple[float, ...]:
    return candidate[0]


def _by_name(name: bytes, view: View, qtype: int) -> list[_Candidate]:
    """What holds a name by QNAME triggers."""
    found: list[_Candidate] = []
    covering = view.generation.covering(name)
    if covering:
        found += _claimed(covering, Trigger.QNAME, name, view, qtype)
    for stance, patterns in view.patterned:
        for place, (pattern, rule) in enumerate(patterns.match(names.to_text(name))):
            found += _zone(stance, rule, Trigger.QNAME, Reach.EXACT, name, 0, qtype, place, pattern=pattern)
    return found


def _claimed(
    covering: list[tuple[int, int]], trigger: Trigger, name: bytes, view: View, qtype: int
) -> Iterator[_Candidate]:
    terms = view.generation.terms
    orders = len(terms.orders)
    met: set[int] = set()  # Response Policy Zones whose nearest name was met: as in any zone, only the closest
    here: set[int] = set()  # encloser's wildcard can cover a name (RFC 4592 §3.3.1)
    for offset, claim_set in covering:
        met |= here
        here.clear()
        for claim in terms.claim_sets[claim_set]:
            stance = view.zones.get(claim.holder - orders) if claim.holder >= orders else None
            if stance is not None and stance.entry.kind is ZoneKind.RPZ:
                if claim.holder in met:
                    continue
                here.add(claim.holder)
            if claim.reach is (Reach.EXACT if offset else Reach.BELOW) or claim.reach is Reach.NOTHING:
                continue
            if claim.holder >= orders:
                if stance is not None:
                    yield from _zone(stance, claim.part, trigger, claim.reach, name, offset, qtype)
            elif (held := view.stances.get(claim.holder)) is not None:
                exemption = view.spared.get((claim.holder, claim.part), "")
                strictness = -STRICTNESS[held.action] if terms.precedence is Precedence.STRICTEST else held.rank
                mode = Mode.OBSERVE if exemption else held.mode
                yield (
                    (
                        mode is not Mode.ENFORCE, ORDER_RANK,
                        strictness, offset, claim.reach is not Reach.EXACT, held.rank, claim.part,
                    ),
                    (held.action, mode, terms.orders[claim.holder], terms.apps[claim.part]),
                    (ORDER_RANK, name[offset:], offset, claim.reach, Trigger.QNAME, "", "", _NO_RULE, exemption),
                )  # fmt: skip


def _zone(
    stance: ZoneStance,
    number: int,
    trigger: Trigger,
    reach: Reach,
    name: bytes,
    offset: int,
    qtype: int,
    place: int = 0,
    *,
    network: str = "",
    pattern: str = "",
) -> Iterator[_Candidate]:
    """A zone's hold on a name by one of its rules, unless the rule is narrowed so that it does not cover the question.

    `offset` and `place` order the zone's holds of one trigger among themselves, the lowest first.
    """
    zone = stance.entry
    written = zone.rules[number]
    if written.qtypes and (qtype in written.qtypes) is written.but_qtypes:
        return
    if any(names.is_at_or_below(name, spared) for spared in written.spares):
        return
    rule = zone.rule(number)
    action = rule.action
    aliases = (one.rdata.lower() for one in rule.records if one.rtype == Rtype.CNAME)
    if action is Action.LOCAL_DATA and name in aliases:
        action = Action.PASSTHRU  # an alias of itself is the oldest way to write it
    by_trigger = _ORDER_OF[trigger]
    shortness = offset - len(name)  # name servers are several names: what counts is how long the listed name is
    exactness = reach is not Reach.EXACT
    passes = action is Action.PASSTHRU
    if zone.kind is ZoneKind.RPZ:
        key: tuple[float, ...] = (by_trigger, shortness, exactness, place, number)
    elif zone.kind is ZoneKind.LIST:
        key = (not written.important, not passes, shortness, exactness, place)
    else:
        key = (not passes, by_trigger, shortness, exactness, stance.number)
    rank = ADDRESS_RANK if zone.kind is ZoneKind.RULE and trigger is Trigger.RESPONSE_IP else stance.rank
    owner, at = (name, 0) if network or pattern else (name[offset:], offset if trigger is Trigger.QNAME else 0)
    yield (
        (zone.mode is not Mode.ENFORCE, rank, *key),
        (action, zone.mode, zone, NO_APP),
        (rank, owner, at, reach, trigger, network, pattern, rule, ""),
    )


def _by_client(view: View) -> list[_Candidate]:
    found: list[_Candidate] = []
    for stance in view.clients:
        assert stance.client is not None
        number, network = stance.client
        found += _zone(stance, number, Trigger.CLIENT_IP, Reach.EXACT, b"\0", 0, Rtype.A, network=network)
    return found


def _by_address(addresses: Iterable[bytes], trigger: Trigger, qname: bytes, view: View) -> list[_Candidate]:
    """What zones hold by addresses: of each zone the longest network, of two as long that of the lower address."""
    found: list[_Candidate] = []
    for stance, table in view.addressed[trigger]:
        matches = [(-prefix, address, rule) for address in addresses for rule, prefix in [table.longest(address)]]
        matches = [match for match in matches if match[2] >= 0]
        if matches:
            prefix, address, rule = min(matches)
            network = str(ip_network((address, -prefix), strict=False))
            found += _zone(stance, rule, trigger, Reach.EXACT, qname, 0, Rtype.A, network=network)
    return found


def _by_nameserver(nameservers: tuple[tuple[bytes, ...], tuple[bytes, ...]], view: View) -> list[_Candidate]:
    hosts, addresses = nameservers
    found = _by_address(addresses, Trigger.NSIP, b"\0", view)
    for host in hosts:
        covering = view.generation.covering_nameserver(host)
        found += _claimed(covering, Trigger.NSDNAME, host, view, Rtype.A)
    return found
