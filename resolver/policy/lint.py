"""What is surely not meant about a policy that is sound: overlaps, rules that never act, ends that come near, names
that strangers share.

Pure: documents, settings, the generation made of them, and a moment go in, findings come out. A finding changes
nothing; a policy that has some can be put into force. Each names its place and says the mend.

    error     it harms others, or an order is not kept
    warning   it is most likely a mistake, or will be one soon
    note      it may well be meant
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from itertools import combinations

from resolver.policy.additions import Documents, Exemption, LocalRule, LocalVerdict, Network
from resolver.policy.compile import Enforcement, PolicySettings, takes
from resolver.policy.documents import Action, Domain, Match, Mode, Order, Purpose, Use
from resolver.policy.explain import standing_of
from resolver.policy.findings import (
    DAY,
    Code,
    Finding,
    Kind,
    Severity,
    Where,
    are,
    in_order,
    in_words,
    is_within,
    moment,
    some,
)
from resolver.policy.generation import STRICTNESS, Generation
from resolver.policy.lint_zones import Supply, lint_zones
from resolver.policy.steps import Standing
from resolver.policy.suffixes import Shared, shared
from resolver.policy.terms import FOREVER, Precedence, ZoneEntry
from resolver.policy.zone import Reach
from resolver.wire import name as names

_NEAR, _FAR = 7 * DAY, 30 * DAY  # seconds before an end from which it is a warning, a note


def lint(
    documents: Documents, settings: PolicySettings, generation: Generation, supplies: Sequence[Supply], at: float
) -> tuple[Finding, ...]:
    """Find what is surely not meant.

    Args:
        documents: Everything that was read.
        settings: From the configuration.
        generation: What the two were compiled to, with all zones.
        supplies: Of the zones that somebody else keeps.
        at: Unix seconds.

    Returns:
        The findings, errors before warnings before notes.
    """
    found = [
        *_orders(documents, settings, at),
        *_overlaps(documents, settings, at),
        *_apps(documents, settings),
        *_rules(documents, generation, at),
        *_exemptions(documents, settings, generation, at),
        *shared_names(documents),
        *lint_zones(generation, supplies, at),
        *_ways_round(documents, generation),
        *_groups(settings),
    ]
    return in_order(found)


def _taken(order: Order, documents: Documents) -> dict[str, list[Domain]]:
    return {app: [domain for domain in documents.apps[app].domains if takes(order, domain)] for app in order.apps}


class _Names:
    """Names with how far each reaches, asked what they cover."""

    def __init__(self, held: Iterable[tuple[str, Match]]) -> None:
        self.exact: set[str] = set()
        self.suffixes: set[str] = set()
        for name, match in held:
            (self.suffixes if match is Match.SUFFIX else self.exact).add(name)

    def above(self, name: str) -> str | None:
        """The nearest suffix strictly above a name."""
        while "." in name:
            name = name.partition(".")[2]
            if name in self.suffixes:
                return name
        return None

    def cover(self, name: str, match: Match) -> str | None:
        """Which of these covers all that another one does."""
        if name in self.suffixes or (name in self.exact and match is Match.EXACT):
            return name
        return self.above(name)


# ---- orders and apps ------------------------------------------------------------------------------------------------


def _orders(documents: Documents, settings: PolicySettings, at: float) -> Iterator[Finding]:
    configured = _configured(settings)
    for order_id in configured:
        order, where = documents.orders[order_id], Where(Kind.ORDER, order_id)
        taken = _taken(order, documents)
        mend = "min_confidence or include_optional leave all out; change them, or take the app out of the order"
        if not any(taken.values()):
            yield Finding(Severity.ERROR, where, Code.NO_NAMES, f"takes no name of any of its apps: {mend}")
        else:
            for app in (app for app, found in taken.items() if not found):
                yield Finding(Severity.WARNING, where, Code.NO_NAMES, f"takes no name of app {app}: {mend}")
        standing, since, _ = standing_of(order, at)
        if standing in (Standing.REVOKED, Standing.SUPERSEDED, Standing.EXPIRED):
            message = f"is {standing} since {since.isoformat()} and does nothing; take it out of policy.orders"
            yield Finding(Severity.WARNING, where, Code.ENDED, message)
    for line in settings.enforcements:
        if line.until <= at:
            message = (
                f"a line for {', '.join(line.groups)} ended {moment(line.until)}; take it out, or write a later until"
            )
            yield Finding(Severity.NOTE, Where(Kind.ORDER, line.order, "until"), Code.ENDED, message)
    if idle := [order_id for order_id in documents.orders if order_id not in configured]:
        message = f"described, but put into force by no line of policy.orders: {some(idle)}"
        yield Finding(Severity.NOTE, Where(Kind.CONFIGURATION, key="policy.orders"), Code.IDLE, message)
    for app in documents.apps:
        if not any(app in order.apps for order in documents.orders.values()):
            message = "no order names it; write it under apps of one, or delete the file"
            yield Finding(Severity.NOTE, Where(Kind.APP, app), Code.NO_ORDER, message)


def _configured(settings: PolicySettings) -> list[str]:
    return list(dict.fromkeys(line.order for line in settings.enforcements))


def _overlaps(documents: Documents, settings: PolicySettings, at: float) -> Iterator[Finding]:
    lines = [line for line in settings.enforcements if line.until > at]
    held = {
        order_id: dict.fromkeys(
            (domain.name, domain.match)
            for domains in _taken(documents.orders[order_id], documents).values()
            for domain in domains
        )
        for order_id in _configured(settings)
    }
    for first, second in combinations(lines, 2):
        groups = [group for group in first.groups if group in second.groups]
        if not groups or first.order == second.order or (first.mode, first.action) == (second.mode, second.action):
            continue
        if Mode.ENFORCE not in (first.mode, second.mode) or not _meet(first, second, documents, at):
            continue
        one, other = _Names(held[first.order]), _Names(held[second.order])
        both = [name for name, match in held[first.order] if other.cover(name, match)]
        both += [name for name, match in held[second.order] if one.cover(name, match)]
        if both:
            yield _overlap(first, second, groups, list(dict.fromkeys(both)), settings.precedence)


def _overlap(
    first: Enforcement, second: Enforcement, groups: list[str], both: list[str], precedence: Precedence
) -> Finding:
    whom = f"for {', '.join(groups)}, {some(both)} {'is' if len(both) == 1 else 'are'}"
    if first.mode is not second.mode:
        acts, logs = (first, second) if first.mode is Mode.ENFORCE else (second, first)
        message = f"{whom} forbidden by {acts.order} too, which is enforced and acts; this one only logs them"
        return Finding(Severity.NOTE, Where(Kind.ORDER, logs.order, "mode"), Code.OVERLAP, message)
    if precedence is Precedence.CONFIGURED:
        acts, yields, why = first, second, "its line comes first"
    else:
        yields, acts = sorted((first, second), key=lambda line: STRICTNESS[line.action])
        why = "the strictest action goes first"
    message = (
        f"{whom} forbidden with {yields.action} here and with {acts.action} by {acts.order}, which acts, since {why}; "
        "write the same action on both lines"
    )
    return Finding(Severity.WARNING, Where(Kind.ORDER, yields.order, "action"), Code.OVERLAP, message)


def _meet(first: Enforcement, second: Enforcement, documents: Documents, at: float) -> bool:
    """Whether there is a moment from now on at which both lines act."""
    begin, end = max(first.since, second.since, at), min(first.until, second.until)
    for one in documents.orders[first.order].in_force():
        for other in documents.orders[second.order].in_force():
            starts = (begin, one[0].timestamp(), other[0].timestamp())
            ends = (end, *(FOREVER if last is None else last.timestamp() for last in (one[1], other[1])))
            if max(starts) < min(ends):
                return True
    return False


def _apps(documents: Documents, settings: PolicySettings) -> Iterator[Finding]:
    orders = [documents.orders[order_id] for order_id in _configured(settings)]
    for app in dict.fromkeys(app for order in orders for app in order.apps):
        where = Where(Kind.APP, app, "domains")
        domains = documents.apps[app].domains
        taken: dict[str, Domain] = {}
        redundant: dict[str, None] = {}
        lost: dict[str, str] = {}  # what is never to be forbidden -> the suffix that it is forbidden with
        for order in (order for order in orders if app in order.apps):
            mine = [domain for domain in domains if takes(order, domain)]
            held = _Names((domain.name, domain.match) for domain in mine)
            taken |= {domain.name: domain for domain in mine}
            for domain in mine:
                if held.above(domain.name) or (domain.match is Match.EXACT and domain.name in held.suffixes):
                    redundant[domain.name] = None
            for domain in domains:
                if domain.use is Use.NEVER and (above := held.cover(domain.name, Match.EXACT)) is not None:
                    lost[domain.name] = above
        for name, above in lost.items():
            message = (
                f'"use: never" of {name} is no exception: it is forbidden with {above}; list the names below {above} '
                "one by one instead of it"
            )
            yield Finding(Severity.WARNING, where, Code.NO_EXCEPTION, message)
        if redundant:
            message = (
                f"{are(len(redundant), 'name')} under a suffix that is forbidden anyway ({some(redundant)}); nothing "
                "is lost without"
            )
            yield Finding(Severity.NOTE, where, Code.REDUNDANT, message)
        unexplained = [
            name for name, domain in taken.items() if domain.purpose is Purpose.SHARED_CDN and not domain.collateral
        ]
        if unexplained:
            message = (
                f"{are(len(unexplained), 'name')} of purpose shared-cdn and forbidden, though no order opts in to "
                f"shared names ({some(unexplained)}); write use: optional, or under collateral that only this app uses "
                "it"
            )
            yield Finding(Severity.NOTE, where, Code.SHARED, message)


# ---- rules and exemptions -------------------------------------------------------------------------------------------


def _ending(where: Where, since: float, until: float, at: float) -> Iterator[Finding]:
    if until <= at:
        message = f"ended {moment(until)} and does nothing; keep it as a record, or delete the file"
        yield Finding(Severity.NOTE, where, Code.ENDED, message)
    elif at < since:
        message = f"begins in {in_words(since - at)}, {moment(since)}; until then it does nothing"
        yield Finding(Severity.NOTE, where, Code.NOT_YET, message)
    elif until - at <= _FAR:
        severity = Severity.WARNING if until - at <= _NEAR else Severity.NOTE
        message = f"ends in {in_words(until - at)}, {moment(until)}; renew it, if it is needed longer"
        yield Finding(severity, where, Code.ENDS_SOON, message)


def _term(rule: LocalRule) -> tuple[float, float]:
    return -FOREVER if rule.since is None else rule.since.timestamp(), rule.until.timestamp()


def _rules(documents: Documents, generation: Generation, at: float) -> Iterator[Finding]:
    rules = [documents.rules[id_] for id_ in sorted(documents.rules)]
    alive = [rule for rule in rules if rule.until.timestamp() > at]
    allows = [rule for rule in alive if rule.verdict is LocalVerdict.ALLOW and rule.names]
    for rule in rules:
        yield from _ending(Where(Kind.RULE, rule.id, "until"), *_term(rule), at)
    for rule in alive:
        if rule.verdict is LocalVerdict.BLOCK:
            yield from _outdone(rule, allows, at)
    yield from _needless(allows, generation)


def _outdone(block: LocalRule, allows: Sequence[LocalRule], at: float) -> Iterator[Finding]:
    """The names of a block that an allow always goes before."""
    begins, ends = _term(block)
    for allow in allows:
        since, until = _term(allow)
        whom = _in_common(block.groups, allow.groups)
        covered = [
            name for name in block.names if _Names((n, allow.match) for n in allow.names).cover(name, block.match)
        ]
        if whom is None or not covered or until <= begins or ends <= since:
            continue
        always = not set(block.groups or ("",)) - set(allow.groups or block.groups or ("",))
        always = always and since <= max(begins, at) and ends <= until
        acts = "never acts" if always else f"does not act until {moment(min(until, ends))}"
        for_whom = f" for {', '.join(whom)}" if whom and not always else ""
        message = f"on {some(covered)} it {acts}{for_whom}, since rule {allow.id} allows that; delete one of the two"
        severity = Severity.WARNING if always else Severity.NOTE
        yield Finding(severity, Where(Kind.RULE, block.id, "names"), Code.SHADOWED, message)


def _in_common(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...] | None:
    """Groups that both are for, where none stands for everybody; None where there are none."""
    if not first or not second:
        return first or second
    return tuple(group for group in first if group in second) or None


def _needless(allows: Sequence[LocalRule], generation: Generation) -> Iterator[Finding]:
    """Allows on names that nothing forbids by name."""
    needed = {name for rule in allows for name in rule.names if _is_forbidden(generation, name)}
    suffixes = {
        names.from_text(name): name
        for rule in allows
        for name in rule.names
        if rule.match is Match.SUFFIX and name not in needed
    }
    below = _forbidden_below(generation, suffixes) if suffixes else set()
    for rule in allows:
        reached = needed | below if rule.match is Match.SUFFIX else needed
        if idle := [name for name in rule.names if name not in reached]:
            message = (
                f"nothing forbids {some(idle)} by name: it acts only where that is an alias of a forbidden name, or "
                "has a forbidden address; else delete it"
            )
            yield Finding(Severity.NOTE, Where(Kind.RULE, rule.id, "names"), Code.IDLE, message)


def _forbidden_below(generation: Generation, suffixes: Mapping[bytes, str]) -> set[str]:
    found: set[str] = set()
    for listed in generation.listed():
        i = 0
        while listed[i]:
            i += listed[i] + 1
            name = suffixes.get(listed[i:])
            if name is not None and _forbids(generation, generation.table.find(listed), at_name=True):
                found.add(name)
    return found


def _is_forbidden(generation: Generation, name: str) -> bool:
    covering = generation.covering(names.from_text(name))
    return any(_forbids(generation, claim_set, at_name=not offset) for offset, claim_set in covering)


def _forbids(generation: Generation, claim_set: int, *, at_name: bool) -> bool:
    """Whether an order, a zone, or a block of the operator's withholds what a claim set holds."""
    terms = generation.terms
    for claim in terms.claim_sets[claim_set]:
        holder = terms.holder(claim.holder)
        passes = isinstance(holder, ZoneEntry) and holder.rule(claim.part).action is Action.PASSTHRU
        if not passes and (at_name or claim.reach is not Reach.EXACT):
            return True
    return False


def _exemptions(documents: Documents, settings: PolicySettings, generation: Generation, at: float) -> Iterator[Finding]:
    for id_, exemption in sorted(documents.exemptions.items()):
        yield from _ending(
            Where(Kind.EXEMPTION, id_, "expires"), exemption.granted.timestamp(), exemption.expires.timestamp(), at
        )
        if exemption.expires.timestamp() > at:
            yield from _spares_nobody(exemption, documents, settings, generation)


def _spares_nobody(
    exemption: Exemption, documents: Documents, settings: PolicySettings, generation: Generation
) -> Iterator[Finding]:
    where = Where(Kind.EXEMPTION, exemption.id)
    orders = [
        order.id
        for order in documents.orders.values()
        if (not exemption.orders or order.id in exemption.orders)
        and (not exemption.apps or set(order.apps) & set(exemption.apps))
    ]
    bound = {group for line in settings.enforcements if line.order in orders for group in line.groups}
    if not bound:
        message = (
            f"no line of policy.orders puts into force what it spares from ({some(orders)}); delete it, or write one"
        )
        yield Finding(Severity.WARNING, where, Code.SPARES_NOBODY, message)
        return
    for group in exemption.groups:
        if group not in bound:
            message = f"group {group} is bound by none of {some(orders)}; it is free already, take it out"
            yield Finding(Severity.WARNING, Where(where.kind, where.id, "groups"), Code.SPARES_NOBODY, message)
    for device in exemption.networks:
        groups = _groups_in(device, generation)
        if not groups & bound:
            lies = f"is in {', '.join(sorted(groups))}, which" if groups else "is in no group, and"
            message = (
                f"{device} {lies} none of {some(orders)} binds; it is free already, take it out or mend the address"
            )
            yield Finding(Severity.WARNING, Where(where.kind, where.id, "devices"), Code.SPARES_NOBODY, message)


def _groups_in(device: Network, generation: Generation) -> set[str]:
    """The groups that some address of a network belongs to."""
    groups = generation.terms.groups
    number = generation.group_of(device.network_address.packed)
    found = {groups[number].name} if number >= 0 else set()
    for group in groups:
        if any(is_within(ip_network(network), device) for network in group.networks):
            found.add(group.name)
    return found


# ---- names that strangers share -------------------------------------------------------------------------------------


def shared_names(documents: Documents) -> Iterator[Finding]:
    """Names of documents that cover, with all below them, what belongs to strangers."""
    for id_, rule in sorted(documents.rules.items()):
        if rule.match is Match.SUFFIX:
            yield from _shared(Where(Kind.RULE, id_, "names"), rule.names, Severity.ERROR, "write match: exact, or")
    for id_, way in sorted(documents.ways_round.items()):
        below = [entry.name for entry in way.names if entry.match is Match.SUFFIX]
        yield from _shared(Where(Kind.WAY_ROUND, id_, "names"), below, Severity.ERROR, "write match: exact, or")
    for id_, app in sorted(documents.apps.items()):
        suffixes = [
            domain.name for domain in app.domains if domain.match is Match.SUFFIX and domain.use is not Use.NEVER
        ]
        opted = {domain.name for domain in app.domains if domain.use is Use.OPTIONAL}
        # Orders that include optional names opt in to what a whole estate shares; nobody opts in to a public suffix.
        meant = [name for name in suffixes if name not in opted or shared(name) is not Shared.ESTATE]
        yield from _shared(Where(Kind.APP, id_, "domains"), meant, Severity.ERROR, 'write "use: never", and')


def _shared(where: Where, suffixes: Iterable[str], severity: Severity, mend: str) -> Iterator[Finding]:
    for name in suffixes:
        who = shared(name)
        if who is not None:
            code = Code.SHARED if who is Shared.ESTATE else Code.PUBLIC_SUFFIX
            found = Severity.WARNING if who is Shared.ESTATE else severity
            yield Finding(found, where, code, f"{name} is {who}; {mend} the names below it that are meant, one by one")


def _ways_round(documents: Documents, generation: Generation) -> Iterator[Finding]:
    applied = {zone.id for zone in generation.terms.zones}
    for id_ in sorted(documents.ways_round):
        if f"way-round:{id_}" not in applied:
            message = f"is switched off; write policy.ways_round: {{{id_}: true}} to withhold its names"
            yield Finding(Severity.NOTE, Where(Kind.WAY_ROUND, id_), Code.SWITCHED_OFF, message)


def _groups(settings: PolicySettings) -> Iterator[Finding]:
    allowed = [ip_network(network) for network in settings.allowed_networks]
    held = [ip_network(network) for group in settings.groups for network in group.networks]
    for group in settings.groups:
        where = Where(Kind.GROUP, group.name)
        for network in map(ip_network, group.networks):
            if not any(is_within(network, one) or is_within(one, network) for one in allowed):
                message = (
                    f"nobody in {network} may ask, since it lies outside allowed_networks; add it there, or take it "
                    "out here"
                )
                yield Finding(Severity.WARNING, where, Code.NOT_ALLOWED, message)
        if not any(group.name in line.groups for line in settings.enforcements):
            yield Finding(Severity.NOTE, where, Code.NO_ORDER, "no order is put into force for it")
    if loose := [str(network) for network in allowed if not any(is_within(network, one) for one in held)]:
        message = (
            f"some clients in {some(loose)} are in no group, and no order binds them; write a group, if one should"
        )
        yield Finding(Severity.NOTE, Where(Kind.CONFIGURATION, key="groups"), Code.NO_GROUP, message)
    if any(line.action is Action.SINKHOLE for line in settings.enforcements):
        for key, rtype, addresses in (
            ("ipv4", "A", settings.sinkhole_ipv4),
            ("ipv6", "AAAA", settings.sinkhole_ipv6),
        ):
            if not addresses:
                message = (
                    f"is empty: {rtype} questions are answered without an address (NODATA); write one, if the notice "
                    "page has one"
                )
                where = Where(Kind.CONFIGURATION, key=f"policy.sinkhole.{key}")
                yield Finding(Severity.WARNING, where, Code.SINKHOLE, message)
