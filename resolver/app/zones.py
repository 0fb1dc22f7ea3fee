"""The policy zones of a configuration, ready to be compiled: the ways round the resolver, what `policy.zones` names,
and protection against rebinding, in order of precedence.

Nothing here touches the network. A local file that can not be used is an error, as a mistake in a document is; a copy
that is not there yet is a zone without names, and is told.
"""

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

from resolver.config import Config
from resolver.policy import zone as policy_zone
from resolver.policy.additions import Documents
from resolver.policy.compile import AppliedZone
from resolver.policy.documents import Action, Match
from resolver.policy.source import PolicyError, Problem
from resolver.policy.terms import ZoneKind
from resolver.policy.zone import Progress, Reach, Rule, Trigger, ZoneState
from resolver.wire import name as names

# Addresses that no name of the outside has: RFC 1918 §3, RFC 6598 §7, RFC 6890 §2.2, RFC 4193 §3.1, RFC 4291 §2.5.
_INSIDE = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
    "::/127", "::ffff:0:0/96", "fc00::/7", "fe80::/10",
)  # fmt: skip


def applied_zones(
    config: Config, documents: Documents, feeds: Path, progress: Progress | None = None
) -> tuple[tuple[AppliedZone, ...], tuple[ZoneState, ...]]:
    """Every zone of the configuration, in order of precedence, and what is told of those that somebody else keeps.

    Args:
        config: The configuration.
        documents: With the ways round.
        feeds: The folder of last good copies.
        progress: For long reads.

    Raises:
        PolicyError: A local file can not be used.
    """
    # The ways round first: what a zone knows of an answer's addresses shall not make a canary wait for upstreams.
    zones: list[AppliedZone] = list(_ways_round(config, documents))
    states: list[ZoneState] = []
    problems: list[Problem] = []
    if config.policy.zones:
        from resolver.app.sources import read_zone  # only where it is needed: it imports much

        for configured in config.policy.zones:
            try:
                for applied, state in read_zone(configured, feeds, progress):
                    zones.append(applied)
                    states.append(state)
            except PolicyError as error:
                problems += error.problems
    if problems:
        raise PolicyError(problems)
    if config.policy.rebinding.protect:
        zones.append(_rebinding(config))
    return tuple(zones), tuple(states)


# ---- made here ------------------------------------------------------------------------------------------------------


def _ways_round(config: Config, documents: Documents) -> Iterator[AppliedZone]:
    for id_, way in sorted(documents.ways_round.items()):
        if config.policy.ways_round.get(id_, way.default):
            held = policy_zone.PolicyZone()
            number = held.number_of(Rule(way.action))
            for entry in way.names:
                held.hold(entry.wire(), Reach.EXACT if entry.match is Match.EXACT else Reach.SUFFIX, number)
            yield AppliedZone(f"way-round:{id_}", ZoneKind.LIST, held)


def _rebinding(config: Config) -> AppliedZone:
    held = policy_zone.PolicyZone()
    spare = ("localhost", *config.policy.rebinding.spare)
    number = held.number_of(Rule(Action.NODATA, spares=tuple(names.from_text(text) for text in spare)))
    for text in _INSIDE:
        held.hold_network(ip_network(text), number, Trigger.RESPONSE_IP)
    return AppliedZone("rebinding", ZoneKind.LIST, held)
