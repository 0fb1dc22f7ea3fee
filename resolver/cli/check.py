"""What `interdict check` tells of a sound configuration: what would be in force, and what is surely not meant."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_network

from resolver.app import machine
from resolver.app.compiler import Compiled
from resolver.app.machine import SettingsError
from resolver.config import Config
from resolver.policy.compile import takes
from resolver.policy.documents import Action, Documents, Mode, Order
from resolver.policy.explain import Standing, standing_of

_IDLE_NAMED = 3  # of the orders that are only described, so many are named


@dataclass(frozen=True, slots=True)
class OrderLine:
    """One line of `policy.orders`, with how many names it withholds."""

    order: str
    title: str
    groups: tuple[str, ...]
    mode: Mode
    action: Action
    effective: datetime
    expires: datetime | None
    standing: Standing
    since: datetime
    until: datetime | None
    names: int


@dataclass(frozen=True, slots=True)
class GroupLine:
    """A group and its networks."""

    group: str
    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A sound configuration. `apps` counts the names that the configured orders take from each app."""

    config: str
    digest: str
    names: int
    orders: tuple[OrderLine, ...]
    groups: tuple[GroupLine, ...]
    apps: dict[str, int]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def look_over(config: Config, source: str, compiled: Compiled, at: float) -> Report:
    """Describe a configuration and say what is odd about it.

    Args:
        config: The configuration.
        source: The name of its file.
        compiled: What came of it.
        at: Unix seconds.
    """
    documents = compiled.documents
    configured = list(dict.fromkeys(line.order for line in config.policy.orders))
    taken: dict[str, set[str]] = {}
    for order_id in configured:
        for app, found in _names_of(documents.orders[order_id], documents).items():
            taken.setdefault(app, set()).update(found)
    return Report(
        config=source,
        digest=compiled.digest,
        names=len(set().union(*taken.values())),
        orders=tuple(_order_lines(config, documents, at)),
        groups=tuple(GroupLine(group.name, tuple(map(str, group.networks))) for group in config.groups),
        apps={app: len(found) for app, found in sorted(taken.items())},
        warnings=(*_policy_warnings(config, documents, configured, at), *_machine_warnings(config)),
        notes=tuple(_notes(config, documents, configured)),
    )


def _names_of(order: Order, documents: Documents) -> dict[str, set[str]]:
    return {app: {domain.name for domain in documents.apps[app].domains if takes(order, domain)} for app in order.apps}


def _order_lines(config: Config, documents: Documents, at: float) -> Iterator[OrderLine]:
    for line in config.policy.orders:
        order = documents.orders[line.order]
        standing, since, until = standing_of(order, at)
        yield OrderLine(
            line.order, order.title.en, tuple(line.groups), line.mode, line.action, order.effective, order.expires,
            standing, since, until,
            len(set().union(*_names_of(order, documents).values())),
        )  # fmt: skip


def _policy_warnings(config: Config, documents: Documents, configured: list[str], at: float) -> Iterator[str]:
    for order_id in configured:
        order = documents.orders[order_id]
        for app, found in _names_of(order, documents).items():
            if not found:
                yield (
                    f"order {order_id} takes no name of app {app}: min_confidence or include_optional leave all out; "
                    "change them, or take the app out of the order"
                )
        standing, since, _ = standing_of(order, at)
        if standing in (Standing.REVOKED, Standing.SUPERSEDED, Standing.EXPIRED):
            yield (
                f"order {order_id} is {standing.value} since {since.isoformat()} and does nothing; "
                "take it out of policy.orders"
            )
    for group in config.groups:
        for network in group.networks:
            # Compared as text and read again: the types of the two families do not meet.
            wide = [ip_network(str(allowed)) for allowed in config.allowed_networks]
            if not any(allowed.version == network.version and allowed.overlaps(network) for allowed in wide):
                yield (
                    f"group {group.name}: nobody in {network} may ask, since it lies outside allowed_networks; "
                    "add it there, or take it out here"
                )
    if any(line.action is Action.SINKHOLE for line in config.policy.orders):
        for family, rtype in (("ipv4", "A"), ("ipv6", "AAAA")):
            if not getattr(config.policy.sinkhole, family):
                yield (
                    f"policy.sinkhole.{family} is empty: {rtype} questions are answered without an address (NODATA); "
                    "write one, if the notice page has one"
                )


def _machine_warnings(config: Config) -> Iterator[str]:
    if not machine.upstream_addresses(config):
        where = (
            f"{machine.RESOLV_CONF} names none but this server itself"
            if config.upstreams == "system"
            else "`upstreams` names none but this server itself"
        )
        yield f"no upstream: {where}, so allowed names get SERVFAIL; write upstreams: [{{address: 192.0.2.53}}]"
    if config.user is not None:
        try:
            machine.account(config.user)
        except SettingsError as error:
            yield str(error)


def _notes(config: Config, documents: Documents, configured: list[str]) -> Iterator[str]:
    idle = [order_id for order_id in documents.orders if order_id not in configured]
    if idle:
        more = f" and {len(idle) - _IDLE_NAMED} more" if len(idle) > _IDLE_NAMED else ""
        yield f"described, but put into force by no line of policy.orders: {', '.join(idle[:_IDLE_NAMED])}{more}"
    for group in config.groups:
        if not any(group.name in line.groups for line in config.policy.orders):
            yield f"no order is put into force for group {group.name}"
