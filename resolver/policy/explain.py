"""Why a name is answered as it is: the data path's steps, one by one, each with its reason.

Nothing is decided here. The verdicts are those of `judge` over the `View` that a worker would make of the same
generation; what is added is what the documents say about the rules found, and which entries cover the name and do
nothing, and why not. Pure: `explain` takes the moment, where an answer leads, and what the server answers by itself, as
arguments.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_network

from resolver.policy.additions import Documents, Exemption
from resolver.policy.compile import takes
from resolver.policy.documents import App, Domain, Match, Order, OrderState, Use
from resolver.policy.generation import Generation, View
from resolver.policy.judge import Reached, Verdict, is_settled, judge_answer, judge_query, weigh
from resolver.policy.precedence import why_first
from resolver.policy.register import Device
from resolver.policy.reply import own_alias, own_reply, policy_reply, rdata_text
from resolver.policy.steps import (
    AnswerStep,
    ClientStep,
    ExemptionStep,
    Explanation,
    Holder,
    IdleEntry,
    OrderStep,
    Outcome,
    PolicyStep,
    Reason,
    RuleStep,
    Source,
    Standing,
)
from resolver.policy.terms import FOREVER, ZoneEntry
from resolver.policy.unmet import Miss, Unmet, unmet_claims
from resolver.policy.zone import Trigger
from resolver.wire import name as names
from resolver.wire.codes import Ede, Rcode, Rtype, rtype_text


def explain(
    qname: bytes,
    qtype: int,
    client: IPv4Address | IPv6Address,
    at: float,
    generation: Generation,
    documents: Documents,
    *,
    local: int | None,
    reached: Reached | None = None,
    sources: Mapping[str, Source] | None = None,
    policy: PolicyStep | None = None,
    device: Device | None = None,
) -> Explanation:
    """Follow one query of class IN that came over UDP along the path.

    Args:
        qname: Lower-cased wire form.
        qtype: The type asked for.
        client: Who asks.
        at: Unix seconds.
        generation: The compiled policy.
        documents: What it was compiled from.
        local: RCODE of the answer that the server has of its own for this question (special-use names), or None where
            it would ask an upstream.
        reached: Where the upstream's answer leads; None where that is not known.
        sources: Where each zone comes from, by its id.
        policy: Which policy it is; by default the present one.
        device: What the client shows that it is, wherever it asks from.
    """
    terms = generation.terms
    group, pocket = generation.client_of(client.packed)
    if device is not None:
        group = generation.number_of_group(device.group)
    step = ClientStep(
        address=str(client),
        allowed=generation.is_allowed(client.packed) if device is None else group >= 0,
        allowed_network=_longest(terms.allowed_networks, client),
        group=terms.groups[group].name if group >= 0 else "",
        group_network=_longest(terms.groups[group].networks, client) if group >= 0 and device is None else "",
        exemptions=tuple(
            _exemption_steps(documents, terms.groups[group].name if group >= 0 else "", client, device, at)
        ),
        device="" if device is None else device.name,
    )
    told = Explanation(
        name=names.to_text(qname), qtype=rtype_text(qtype), at=_moment(at), digest=generation.digest,
        policy=policy or PolicyStep(generation.digest), client=step, orders=(), rules=(), why="", idle=(), answer=None,
        outcome=Outcome.FORWARDED, reply=None, recorded=False,
    )  # fmt: skip
    if not step.allowed:
        why = "client address is not allowed" if device is None else "the device's group is not configured"
        refusal = own_reply(Rcode.REFUSED, Ede.PROHIBITED, why)
        hidden = replace(step, exemptions=())
        return replace(told, client=hidden, outcome=Outcome.NOT_ALLOWED, reply=refusal)
    view = View(generation, group, at, pocket, "" if device is None else device.name)
    verdicts = weigh(qname, view, qtype)
    verdict = verdicts[0] if verdicts else None
    final = verdict
    answer = None
    if verdict is not None and is_settled(verdict, view):
        outcome = Outcome.WITHHELD
    elif local is not None:
        outcome = Outcome.LOCAL if verdict is None or verdict.passes else Outcome.WITHHELD
    else:
        answer = _answer_step(verdict, view, qtype)
        if reached is not None:
            final = judge_answer(qname, verdict, reached, view, qtype)
            if answer is not None:
                met = None if final is None or final == verdict else _rule_step(final, documents, sources or {})
                answer = replace(answer, given=True, rule=met)
        outcome = Outcome.FORWARDED
        if final is not None and not final.passes:
            outcome = Outcome.AWAITS_ANSWER if reached is None else Outcome.WITHHELD
    if outcome is Outcome.WITHHELD and final is not None:
        banned = _banned_target(final, view, qtype)
        if banned is not None:
            step_of = _rule_step(banned, documents, sources or {})
            answer = replace(answer or AnswerStep(True, (), (), strips_ech=False), given=True, rule=step_of)
            final = banned
    reply = None
    if outcome is Outcome.LOCAL:
        assert local is not None
        reply = own_reply(local)
    elif final is not None and not final.passes:
        reply = policy_reply(final, qtype, terms)
    lines = tuple(_order_steps(generation, documents, group, at))
    idle = _idle(qname, qtype, view, at, lines, documents, verdicts)
    if verdicts:  # of a name that a rule covers, orders that nobody put into force are no part of the answer
        idle = tuple(entry for entry in idle if entry.reason is not Reason.NOT_CONFIGURED)
    return replace(
        told, orders=lines, rules=tuple(_rule_step(one, documents, sources or {}) for one in verdicts),
        why=why_first(verdicts, terms.precedence) if verdicts else "", idle=idle, answer=answer, outcome=outcome,
        reply=reply, recorded=final is not None and final.is_hit,
    )  # fmt: skip


def _banned_target(verdict: Verdict, view: View, qtype: int) -> Verdict | None:
    """What is said of the name that policy's own alias leads to, by who goes before that policy."""
    target = own_alias(verdict, qtype)
    found = None if target is None else judge_query(target, view, qtype)
    if found is None or found.passes or found.rank >= verdict.rank:
        return None
    return replace(found, link=1)


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _longest(networks: Iterable[str], client: IPv4Address | IPv6Address) -> str:
    holding = [network for text in networks if client in (network := ip_network(text))]
    return str(max(holding, key=lambda network: network.prefixlen)) if holding else ""


def _exemption_steps(
    documents: Documents, group: str, client: IPv4Address | IPv6Address, device: Device | None, at: float
) -> Iterator[ExemptionStep]:
    for _, one in sorted(documents.exemptions.items()):
        named = next((str(network) for network in one.networks if client in network), "")
        if device is not None and device.name in one.devices:
            named = f"device {device.name}"
        if named or (group and group in one.groups):
            yield ExemptionStep(
                one.id, _standing_of_exemption(one, at), named or f"group {group}", one.orders, one.apps,
                one.reason.value, one.explanation, one.grantor, one.granted, one.expires,
            )  # fmt: skip


def _standing_of_exemption(exemption: Exemption, at: float) -> Standing:
    if at < exemption.granted.timestamp():
        return Standing.NOT_YET
    return Standing.IN_FORCE if at < exemption.expires.timestamp() else Standing.EXPIRED


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


# ---- rules ----------------------------------------------------------------------------------------------------------


def _rule_step(verdict: Verdict, documents: Documents, sources: Mapping[str, Source]) -> RuleStep:
    by_name = not (verdict.network or verdict.pattern)
    of_question = verdict.link == 0 and verdict.trigger in (Trigger.QNAME, Trigger.CLIENT_IP)
    owner = names.to_text(verdict.owner)
    step = RuleStep(
        owner if by_name else verdict.network or verdict.pattern, verdict.reach.name.lower() if by_name else "",
        verdict.app.id, verdict.order.id, verdict.mode, verdict.action, trigger=verdict.trigger,
        exemption=verdict.exemption,
        records=tuple(f"{rtype_text(r.rtype)} {rdata_text(r.rtype, r.rdata)}" for r in verdict.rule_held.records),
        reached="" if of_question else names.to_text(verdict.subject),
    )  # fmt: skip
    if isinstance(verdict.order, ZoneEntry):
        return _zone_step(step, verdict.order.id, documents, sources)
    domain = next(
        one
        for one in documents.apps[verdict.app.id].domains
        if one.name == owner and (one.match is Match.EXACT) is verdict.exact
    )
    return replace(
        step, purpose=domain.purpose, confidence=domain.confidence, collateral=domain.collateral,
        attribution=domain.attribution, source=", ".join(domain.sources),
    )  # fmt: skip


def _zone_step(step: RuleStep, id_: str, documents: Documents, sources: Mapping[str, Source]) -> RuleStep:
    """A zone's rule, with what is said about it by the document or file that it comes from."""
    kind, _, key = id_.partition(":")
    step = replace(step, holder=Holder(kind))
    if step.holder is Holder.RULE:
        rule = documents.rules[key]
        return replace(step, owner=rule.owner, reason=rule.reason, since=rule.since, until=rule.until)
    if step.holder is Holder.WAY_ROUND:
        way = documents.ways_round[key]
        read = next((one.sources for one in way.names if one.name == step.name), ())
        return replace(step, reason=way.effect, source=", ".join((f"{way.title}, {way.version}", *read)))
    if step.holder is Holder.REBINDING:
        return replace(step, reason="names of the outside must not lead to addresses of the inside")
    source = sources.get(id_)
    return step if source is None else replace(step, source=source.text, fetched=source.fetched)


def _answer_step(verdict: Verdict | None, view: View, qtype: int) -> AnswerStep | None:
    """What may still change once the answer is known; None where that is nothing."""
    strips = view.strips_ech and qtype in (Rtype.HTTPS, Rtype.SVCB)
    if verdict is not None and verdict.enforced and verdict.rank == 0:
        return AnswerStep(names=False, addresses=(), nameservers=(), strips_ech=True) if strips else None
    before = verdict.rank if verdict is not None and verdict.enforced else FOREVER
    zones = [stance for stance in view.zones.values() if stance.rank < before]
    return AnswerStep(
        names=bool(view.stances or view.zones),
        addresses=_ids(stance.entry.id for stance in zones if view.generation.has_addresses(stance.number)),
        nameservers=_ids(stance.entry.id for stance in zones if stance.entry.nameservers),
        strips_ech=strips,
    )


def _ids(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found))


# ---- entries that do nothing ----------------------------------------------------------------------------------------


def _idle(
    qname: bytes, qtype: int, view: View, at: float, lines: tuple[OrderStep, ...], documents: Documents,
    verdicts: list[Verdict],
) -> tuple[IdleEntry, ...]:  # fmt: skip
    """Entries of all apps and zones at or above the name that make no rule for this client now, nearest first."""
    at_or_above = set(_ancestors(qname))
    asked = names.to_text(qname)
    terms = view.generation.terms
    spared = {(terms.orders[o].id, terms.apps[a].id): exemption for (o, a), exemption in view.spared.items()}
    found = [
        entry
        for app in documents.apps.values()
        for domain in app.domains
        if domain.name in at_or_above
        for entry in _idle_entries(app, domain, asked, view.group, lines, documents, spared)
    ]
    found += (_idle_zone_entry(one, at, view.group, qtype) for one in unmet_claims(qname, qtype, view, at, verdicts))
    return tuple(sorted(found, key=lambda entry: (-len(entry.name), entry.app, entry.order)))


def _idle_zone_entry(unmet: Unmet, at: float, group: str, qtype: int) -> IdleEntry:
    zone, name = unmet.zone, unmet.name
    whom = f"group {group}" if group else "clients of no group"
    reason, why = {
        Miss.GROUP: (Reason.OTHER_GROUP, f"{zone.id} is not applied to {whom}"),
        Miss.NOT_YET: (Reason.NOT_YET, f"{zone.id} does not count yet"),
        Miss.ENDED: (Reason.ENDED, f"{zone.id} does not count any more"),
        Miss.EXACT: (Reason.EXACT, f"{name} is listed in {zone.id} alone, without the names below it"),
        Miss.BELOW: (Reason.BELOW, f"{zone.id} lists what is below {name}, without {name} itself"),
        Miss.TYPE: (Reason.TYPE, f"{zone.id} lists {name}, but not for the type {rtype_text(qtype)}"),
        Miss.SPARED: (Reason.SPARED, f"{zone.id} lists {name}, but spares this name"),
        Miss.EXCEPTION: (Reason.EXCEPTION, f"{zone.id} lists {name}, and takes it back by an exception"),
        Miss.NEARER: (Reason.NEARER, f"{zone.id} lists {name}, but a nearer name of it goes before"),
    }[unmet.miss]
    if unmet.miss is Miss.EXCEPTION and unmet.by:
        why += f" for {unmet.by}"
    if unmet.miss is Miss.NOT_YET:
        why += f": it begins at {_moment(zone.since).isoformat()}"
    if unmet.miss is Miss.ENDED:
        why += f": it ended at {_moment(zone.until).isoformat()}"
    return IdleEntry(name, unmet.match, "", zone.id, reason, why)


def _ancestors(qname: bytes) -> Iterator[str]:
    i = 0
    while qname[i]:
        yield names.to_text(qname[i:])
        i += qname[i] + 1


def _idle_entries(
    app: App, domain: Domain, asked: str, group: str, lines: tuple[OrderStep, ...], documents: Documents,
    spared: Mapping[tuple[str, str], str],
) -> Iterator[IdleEntry]:  # fmt: skip
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
        elif exemption := spared.get((order.id, app.id)):
            until = documents.exemptions[exemption].expires.isoformat()
            yield entry(order.id, Reason.EXEMPT, f"the client is exempt from {order.id} by {exemption}, until {until}")


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
