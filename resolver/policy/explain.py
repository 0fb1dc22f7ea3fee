"""Why a name is answered as it is: the data path's steps, one by one, each with its reason.

Nothing is decided here. The verdicts are those of `judge.weigh` over the `View` that a worker would make of the same
generation; what is added is what the documents say about the rules found, and which entries of the catalogue cover the
name and do nothing, and why not. Pure: `explain` takes the moment, and what the server answers by itself, as arguments.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_network

from resolver.policy.compile import takes
from resolver.policy.documents import (
    Action,
    App,
    Confidence,
    Documents,
    Domain,
    Match,
    Mode,
    Order,
    OrderState,
    Purpose,
    Use,
)
from resolver.policy.generation import Generation, View
from resolver.policy.judge import Verdict, weigh
from resolver.wire import name as names
from resolver.wire.codes import Ede, Rcode, Rtype, rcode_text, rtype_text


class Outcome(StrEnum):
    """How the path of the query ends."""

    NOT_ALLOWED = "not-allowed"
    WITHHELD = "withheld"
    LOCAL = "local"
    FORWARDED = "forwarded"


class Standing(StrEnum):
    """How a configured order stands towards a client's group at a moment."""

    IN_FORCE = "in-force"
    NOT_YET = "not-yet"
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    OTHER_GROUP = "other-group"


class Reason(StrEnum):
    """Why an entry that covers the name does nothing."""

    NEVER = "never"
    OPTIONAL = "optional"
    EXACT = "exact"
    CONFIDENCE = "confidence"
    NO_ORDER = "no-order"
    NOT_CONFIGURED = "not-configured"
    OTHER_GROUP = "other-group"
    NOT_YET = "not-yet"
    SUSPENDED = "suspended"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class ClientStep:
    """Who asks. Networks are the longest that hold the address; `group` and networks are empty where there is none."""

    address: str
    allowed: bool
    allowed_network: str
    group: str
    group_network: str


@dataclass(frozen=True, slots=True)
class OrderStep:
    """One line of `policy.orders`, held against the client's group."""

    order: str
    title: str
    standing: Standing
    mode: Mode
    action: Action
    groups: tuple[str, ...]
    effective: datetime
    expires: datetime | None
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class RuleStep:
    """A rule that covers the name, with what the catalogue says about it."""

    name: str
    match: Match
    app: str
    order: str
    mode: Mode
    action: Action
    purpose: Purpose
    confidence: Confidence
    collateral: str
    attribution: str


@dataclass(frozen=True, slots=True)
class IdleEntry:
    """An entry of the catalogue that covers the name, or stands above it, and does nothing.

    `order` is empty where the reason holds whichever order asks. `why` is a sentence for people.
    """

    name: str
    match: Match
    app: str
    order: str
    reason: Reason
    why: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What the client gets without an upstream: `rcode` is empty for silence, `ttl` None where nothing is cached."""

    rcode: str
    ede: int | None
    ede_meaning: str
    extra_text: str
    addresses: tuple[str, ...]
    ttl: int | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """All steps. `rules` begins with the one that decides; `reply` is None where an upstream is asked."""

    name: str
    qtype: str
    at: datetime
    digest: str
    client: ClientStep
    orders: tuple[OrderStep, ...]
    rules: tuple[RuleStep, ...]
    idle: tuple[IdleEntry, ...]
    outcome: Outcome
    reply: Reply | None

    @property
    def recorded(self) -> bool:
        """Whether the query leaves a hit."""
        return bool(self.rules)


def explain(
    qname: bytes,
    qtype: int,
    client: IPv4Address | IPv6Address,
    at: float,
    generation: Generation,
    documents: Documents,
    *,
    local: int | None,
) -> Explanation:
    """Follow one query of class IN along the path.

    Args:
        qname: Lower-cased wire form.
        qtype: The type asked for; it decides nothing but what a sinkhole answers.
        client: Who asks.
        at: Unix seconds.
        generation: The compiled policy.
        documents: What it was compiled from.
        local: RCODE of the answer that the server has of its own for this question (special-use names), or None where
            it would ask an upstream.
    """
    terms = generation.terms
    group = generation.group_of(client.packed)
    step = ClientStep(
        address=str(client),
        allowed=generation.is_allowed(client.packed),
        allowed_network=_longest(terms.allowed_networks, client),
        group=terms.groups[group].name if group >= 0 else "",
        group_network=_longest(terms.groups[group].networks, client) if group >= 0 else "",
    )
    orders: tuple[OrderStep, ...] = ()
    rules: tuple[RuleStep, ...] = ()
    idle: tuple[IdleEntry, ...] = ()
    reply = None
    if not step.allowed:
        outcome, reply = Outcome.NOT_ALLOWED, _reply(Rcode.REFUSED, Ede.PROHIBITED, "client address is not allowed")
    else:
        verdicts = weigh(qname, View(generation, group, at))
        orders = tuple(_order_steps(generation, documents, group, at))
        rules = tuple(_rule_step(verdict, documents) for verdict in verdicts)
        idle = _idle(qname, step.group, orders, documents)
        if rules:  # of a name that a rule covers, orders that nobody put into force are no part of the answer
            idle = tuple(entry for entry in idle if entry.reason is not Reason.NOT_CONFIGURED)
        if verdicts and verdicts[0].mode is Mode.ENFORCE:
            outcome, reply = Outcome.WITHHELD, _policy_reply(verdicts[0], qtype, generation)
        elif local is not None:
            outcome, reply = Outcome.LOCAL, _reply(local)
        else:
            outcome = Outcome.FORWARDED
    return Explanation(
        name=names.to_text(qname), qtype=rtype_text(qtype), at=datetime.fromtimestamp(at, UTC),
        digest=generation.digest, client=step, orders=orders, rules=rules, idle=idle, outcome=outcome, reply=reply,
    )  # fmt: skip


def _longest(networks: Iterable[str], client: IPv4Address | IPv6Address) -> str:
    holding = [network for text in networks if client in (network := ip_network(text))]
    return str(max(holding, key=lambda network: network.prefixlen)) if holding else ""


def _order_steps(generation: Generation, documents: Documents, group: int, at: float) -> Iterator[OrderStep]:
    terms = generation.terms
    for line in terms.enforcements:
        entry = terms.orders[line.order]
        order = documents.orders[entry.id]
        standing, since, until = standing_of(order, at)
        if standing is Standing.IN_FORCE and at < line.since:
            standing, since = Standing.NOT_YET, datetime.fromtimestamp(line.since, UTC)
        elif standing is Standing.IN_FORCE and at >= line.until:
            standing, since = Standing.EXPIRED, datetime.fromtimestamp(line.until, UTC)
        if group not in line.groups:
            standing = Standing.OTHER_GROUP
        yield OrderStep(
            entry.id, entry.title_en, standing, line.mode, line.action,
            tuple(terms.groups[number].name for number in line.groups), order.effective, order.expires, since, until,
        )  # fmt: skip


_STANDINGS = {
    OrderState.ANNOUNCED: Standing.NOT_YET,
    OrderState.IN_FORCE: Standing.IN_FORCE,
    OrderState.SUSPENDED: Standing.SUSPENDED,
    OrderState.REVOKED: Standing.REVOKED,
    OrderState.SUPERSEDED: Standing.SUPERSEDED,
    OrderState.EXPIRED: Standing.EXPIRED,
}


def standing_of(order: Order, at: float) -> tuple[Standing, datetime, datetime | None]:
    """How an order stands at a moment (Unix seconds), since when (for one announced: from when), and until when.

    The end is known only of an order in force that has one.
    """
    standing = _STANDINGS[order.state(at)]
    if standing is Standing.IN_FORCE:
        begin, end = next(
            (begin, end)
            for begin, end in order.in_force()
            if begin.timestamp() <= at and (end is None or at < end.timestamp())
        )
        return standing, begin, end
    if standing is Standing.NOT_YET:
        return standing, order.effective, None
    if standing is Standing.EXPIRED and order.expires is not None:
        return standing, order.expires, None
    return standing, next(act.at for act in reversed(order.acts) if act.at.timestamp() <= at), None


def _rule_step(verdict: Verdict, documents: Documents) -> RuleStep:
    owner = names.to_text(verdict.owner)
    match = Match.EXACT if verdict.exact else Match.SUFFIX
    domain = next(
        domain for domain in documents.apps[verdict.app.id].domains if domain.name == owner and domain.match is match
    )
    return RuleStep(
        owner, match, verdict.app.id, verdict.order.id, verdict.mode, verdict.action,
        domain.purpose, domain.confidence, domain.collateral, domain.attribution,
    )  # fmt: skip


# ---- the reply ------------------------------------------------------------------------------------------------------


def _reply(
    rcode: int, ede: Ede | None = None, text: str = "", addresses: tuple[str, ...] = (), ttl: int | None = None
) -> Reply:
    meaning = "" if ede is None else ede.meaning
    return Reply(rcode_text(rcode), None if ede is None else int(ede), meaning, text, addresses, ttl)


def _policy_reply(verdict: Verdict, qtype: int, generation: Generation) -> Reply:
    """What the client gets; that it is what the pipeline says is held by a test."""
    terms = generation.terms
    if verdict.action is Action.DROP:
        return Reply("", None, "", "", (), None)
    if verdict.action is Action.REFUSED:
        return _reply(Rcode.REFUSED, verdict.ede, verdict.extra_text)
    addresses: tuple[str, ...] = ()
    if verdict.action is Action.SINKHOLE:
        addresses = {Rtype.A: terms.sinkhole_ipv4, Rtype.AAAA: terms.sinkhole_ipv6}.get(qtype, ())  # type: ignore[call-overload]
    rcode = Rcode.NXDOMAIN if verdict.action is Action.NXDOMAIN else Rcode.NOERROR
    return _reply(rcode, verdict.ede, verdict.extra_text, addresses, terms.block_ttl)


# ---- entries that do nothing ----------------------------------------------------------------------------------------


def _idle(qname: bytes, group: str, orders: tuple[OrderStep, ...], documents: Documents) -> tuple[IdleEntry, ...]:
    """Entries of all apps at or above the name that make no rule for this client now, nearest first."""
    at_or_above = set(_ancestors(qname))
    asked = names.to_text(qname)
    found = [
        entry
        for app in documents.apps.values()
        for domain in app.domains
        if domain.name in at_or_above
        for entry in _idle_entries(app, domain, asked, group, orders, documents)
    ]
    return tuple(sorted(found, key=lambda entry: (-len(entry.name), entry.app, entry.order)))


def _ancestors(qname: bytes) -> Iterator[str]:
    i = 0
    while qname[i]:
        yield names.to_text(qname[i:])
        i += qname[i] + 1


def _idle_entries(
    app: App, domain: Domain, asked: str, group: str, lines: tuple[OrderStep, ...], documents: Documents
) -> Iterator[IdleEntry]:
    def entry(order: str, reason: Reason, why: str) -> IdleEntry:
        return IdleEntry(domain.name, domain.match, app.id, order, reason, why)

    if domain.use is Use.NEVER:
        yield entry("", Reason.NEVER, f"{domain.name} is kept as never for {app.id}: {domain.collateral}")
        return
    if domain.match is Match.EXACT and domain.name != asked:
        yield entry("", Reason.EXACT, f"{domain.name} is listed for {app.id} alone, without the names below it")
        return
    naming = [order for order in documents.orders.values() if app.id in order.apps]
    if not naming:
        yield entry("", Reason.NO_ORDER, f"no order names the app {app.id}")
    for order in naming:
        found = _why_idle(app, domain, order, group, [line for line in lines if line.order == order.id])
        if found is not None:
            yield entry(order.id, *found)


_NO_MORE = {
    Standing.SUSPENDED: Reason.SUSPENDED,
    Standing.REVOKED: Reason.ENDED,
    Standing.SUPERSEDED: Reason.ENDED,
    Standing.EXPIRED: Reason.ENDED,
}


def _why_idle(app: App, domain: Domain, order: Order, group: str, lines: list[OrderStep]) -> tuple[Reason, str] | None:
    """Why an order makes no rule of a domain that covers the name; None where it does."""
    if not takes(order, domain):
        if domain.use is Use.OPTIONAL and not order.include_optional:
            why = f"{domain.name} is optional for {app.id}, and order {order.id} does not include optional names"
            return Reason.OPTIONAL, f"{why}: {domain.collateral}"
        why = f"the confidence of {domain.name} is {domain.confidence.value} for {app.id}"
        return Reason.CONFIDENCE, f"{why}, and order {order.id} takes {order.min_confidence.value} at least"
    if not lines:
        return Reason.NOT_CONFIGURED, f"order {order.id} is not put into force: no line of policy.orders names it"
    standings = {line.standing for line in lines}
    if Standing.IN_FORCE in standings:
        return None
    if Standing.NOT_YET in standings:
        begins = min(line.since for line in lines if line.standing is Standing.NOT_YET)
        return Reason.NOT_YET, f"order {order.id} is not in force yet: it begins at {begins.isoformat()}"
    ended = next((line for line in lines if line.standing in _NO_MORE), None)
    if ended is not None:
        how = f"{ended.standing.value} since {ended.since.isoformat()}"
        return _NO_MORE[ended.standing], f"order {order.id} is not in force: {how}"
    return (
        Reason.OTHER_GROUP,
        f"order {order.id} is not put into force for {f'group {group}' if group else 'clients of no group'}",
    )
