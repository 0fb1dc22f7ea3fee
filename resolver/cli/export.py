"""What `export` and `verify-export` do: the policy for other resolvers and firewalls, and whether they act on it."""

import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address

import dns.edns
import dns.rcode
from rich.console import Console
from rich.progress import Progress

from resolver.app.compiler import compile_policy, policy_settings
from resolver.app.machine import document_folders
from resolver.cli import ask
from resolver.cli.options import Failure
from resolver.config import AppliedOrder, Config
from resolver.feeds.files import read_documents
from resolver.policy.additions import Documents, WayRound
from resolver.policy.documents import Action, Mode
from resolver.policy.explain import standing_of
from resolver.policy.export import Extract, HeldNetwork, Probe, extract, probes, sample
from resolver.policy.export_formats import Gap, Written
from resolver.policy.firewall import Firewall, networks_of
from resolver.policy.generation import Generation, View
from resolver.policy.source import did_you_mean, shown
from resolver.policy.steps import Standing
from resolver.policy.values import Endpoint
from resolver.wire import name as names
from resolver.wire.codes import Ede, rtype_text

_AT_ONCE = 16  # questions under way to one server
_SHOWN = 5  # names of a gap on a terminal; the file has them all
_SILENCE = "no reply"
_WITHHELD = {Ede.FORGED_ANSWER, Ede.BLOCKED, Ede.CENSORED, Ede.FILTERED}


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is to be exported, and the view that it was taken from."""

    extract: Extract
    view: View


class Kind(StrEnum):
    """How what was answered stands to what policy says."""

    SAME = "same"
    UNDECIDED = "undecided"
    LET_THROUGH = "let through"
    WITHHELD = "withheld though allowed"
    OTHERWISE = "answered otherwise"


@dataclass(frozen=True, slots=True)
class Finding:
    """A name asked for, the listed name that it tests, what policy says, and what came."""

    name: str
    listed: str
    kind: Kind
    wanted: str
    got: str
    announced: bool


@dataclass(frozen=True, slots=True)
class _Got:
    """What a resolver said: NXDOMAIN, NODATA, records, another RCODE, or nothing."""

    text: str
    is_data: bool = False
    says_withheld: bool = False


def choose(
    config: Config, source: str, orders: Sequence[str], group: str | None, at: float, *, ways_round: bool = True
) -> Chosen:
    """Take what is enforced and in force for a group, or the named orders whether configured or not.

    The operator's own rules are taken with either. Policy zones that others keep are not read at all.

    Args:
        config: The configuration.
        source: The name of its file.
        orders: Their ids; without any, those of the lines of `policy.orders`.
        group: Its name; without one, the first.
        at: Unix seconds.
        ways_round: Whether the ways round that are switched on are taken too.

    Raises:
        Failure: No such order or group, or nothing is in force.
        PolicyError: As `compile_policy`.
    """
    known = [entry.name for entry in config.groups]
    chosen = _group(config, group)
    zones = [zone.name for zone in config.policy.zones]
    config = _with(config, zones=())
    if orders:
        documents = compile_policy(_with(config, orders=()), source, serial=1, at=at).documents
        _require(documents, orders, at)
        config = _with(config, orders=tuple(_line(config, order, chosen) for order in dict.fromkeys(orders)))
    if not ways_round:
        config = _with(config, ways_round=dict.fromkeys(read_documents(document_folders(config)).ways_round, False))
    compiled = compile_policy(config, source, serial=1, at=at)
    view = View(Generation(memoryview(bytearray(compiled.octets))), known.index(chosen), at)
    extracted = extract(view, compiled.documents, at, zones)
    if not extracted.names and not extracted.networks:
        raise Failure(f"nothing is enforced and in force for group {chosen}; name an order with --order")
    return Chosen(extracted, view)


def _group(config: Config, group: str | None) -> str:
    known = [entry.name for entry in config.groups]
    chosen = known[0] if group is None else group
    if chosen not in known:
        raise Failure(f"no group has the name {shown(chosen)}{did_you_mean(chosen, known)}")
    return chosen


def _line(config: Config, order: str, group: str) -> AppliedOrder:
    """The order enforced, with the action that the configuration has for it.

    For all groups, though only one is asked about: else an exemption of that group would look like one for all.
    """
    lines = [line for line in config.policy.orders if line.order == order and group in line.groups]
    action = lines[0].action if lines else Action.NXDOMAIN
    groups = tuple(entry.name for entry in config.groups)
    return AppliedOrder.model_construct(
        order=order, groups=groups, mode=Mode.ENFORCE, action=action, since=None, until=None
    )


def _with(config: Config, **policy: object) -> Config:
    return config.model_copy(update={"policy": config.policy.model_copy(update=policy)})


def _require(documents: Documents, orders: Iterable[str], at: float) -> None:
    for id_ in orders:
        if id_ not in documents.orders:
            raise Failure(f"no order has the id {shown(id_)}{did_you_mean(id_, documents.orders)}")
        standing, since, _ = standing_of(documents.orders[id_], at)
        if standing is Standing.NOT_YET:
            raise Failure(f"order {id_} begins at {since.isoformat()}; write --at {since.isoformat()} to be early")
        if standing is not Standing.IN_FORCE:
            ended = f"order {id_} is {standing.value} since {since.isoformat()}"
            raise Failure(f"{ended}; write a moment when it was in force with --at")


def remarks(written: Written) -> list[str]:
    """What a format could not say, a line each, for standard error."""
    return [
        f"not as policy has it: {len(gap.names)} {'name' if len(gap.names) == 1 else 'names'}: {gap.why} "
        f"({', '.join(gap.names[:_SHOWN])}{', …' if len(gap.names) > _SHOWN else ''})"
        for gap in written.gaps
    ]


# ---- for firewalls --------------------------------------------------------------------------------------------------


def choose_lists(config: Config, wanted: Sequence[str]) -> tuple[WayRound, ...]:
    """The lists of ways round whose addresses are to be closed.

    Args:
        config: The configuration; whether it withholds the lists' names does not matter.
        wanted: Their ids.

    Raises:
        Failure: There is no such list, or it holds no addresses.
        PolicyError: The documents can not be read.
    """
    known = {id_: one for id_, one in read_documents(document_folders(config)).ways_round.items() if one.addresses}
    for id_ in wanted:
        if id_ not in known:
            mend = did_you_mean(id_, known) if known else "; write one into ways-round/ first"
            raise Failure(f"no list of ways round with addresses has the id {shown(id_)}{mend}")
    return tuple(known[id_] for id_ in dict.fromkeys(wanted))


def choose_firewall(
    config: Config,
    group: str | None,
    lists: Sequence[str],
    resolvers: Sequence[IPv4Address | IPv6Address],
    at: float,
    *,
    redirect: bool,
    https: bool,
) -> Firewall:
    """What a ruleset for a group's networks closes.

    Args:
        config: The configuration.
        group: The group's name; without one, the first.
        lists: Ids of the lists whose addresses are to be closed.
        resolvers: The only addresses that the group may ask; without any, all that are not listed.
        at: Unix seconds.
        redirect: Whether what is asked of others is sent to the first resolver.
        https: Whether port 443 of the listed addresses is closed too.

    Raises:
        Failure: No such group or list.
        PolicyError: The documents can not be read.
    """
    chosen = _group(config, group)
    networks = networks_of(chosen, policy_settings(config).groups)
    if not networks:
        raise Failure(f"longer networks of other groups leave none to group {chosen}; name another with --group")
    return Firewall(chosen, networks, choose_lists(config, lists), tuple(resolvers), redirect, https, at)


# ---- asking another resolver ----------------------------------------------------------------------------------------


def verify(
    chosen: Chosen,
    server: Endpoint,
    reference: Endpoint | None,
    gaps: Iterable[Gap],
    *,
    qtype: int,
    count: int | None,
    wait: float,
) -> list[Finding]:
    """Ask a resolver for listed names and names around them, and compare with what policy says.

    Args:
        chosen: What it should withhold.
        server: Whom to ask.
        reference: A resolver that withholds nothing: an allowed name must be answered as it answers.
        gaps: What the format could not say: differences of these names are announced.
        qtype: The number of the type to ask for.
        count: How many of the listed names; None for all.
        wait: Seconds for each reply.

    Raises:
        Failure: The server, or the reference, replies to nothing.
    """
    asked = list(probes(chosen.extract, chosen.view, sample(chosen.extract, count)))
    sinkhole = (
        " ".join(sorted(address for rtype, address in chosen.extract.sinkhole if rtype == rtype_text(qtype)))
        or "NODATA"
    )
    announced = {name for gap in gaps for name in gap.names}
    allowed = [probe for probe in asked if probe.action is None]
    console = Console(stderr=True)
    with (
        Progress(console=console, transient=True, disable=not sys.stderr.isatty()) as progress,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):

        def replies(whom: Endpoint, wanted: Sequence[Probe]) -> list[_Got]:
            coming = pool.map(lambda probe: _ask(whom, probe.name, qtype, wait), wanted)
            found = list(progress.track(coming, len(wanted), description=f"asking {whom}"))
            if found and all(got.text == _SILENCE for got in found):
                raise Failure(f"{whom} did not reply once; is it the right address and port?")
            return found

        truth: dict[bytes, _Got] = {}
        if reference is not None:
            truth = {probe.name: got for probe, got in zip(allowed, replies(reference, allowed), strict=True)}
        answers = replies(server, asked)
    return [
        _compare(probe, got, truth.get(probe.name), sinkhole, probe.rule in announced, chosen.extract.networks)
        for probe, got in zip(asked, answers, strict=True)
    ]


def _ask(server: Endpoint, name: bytes, qtype: int, wait: float) -> _Got:
    try:
        message = ask.ask(server, name, qtype, tcp=False, dnssec=False, wait=wait).message
    except ask.NoReply:
        return _Got(_SILENCE)
    says_withheld = any(
        isinstance(option, dns.edns.EDEOption) and int(option.code) in _WITHHELD for option in message.options
    )
    if message.rcode() != dns.rcode.NOERROR:
        return _Got(dns.rcode.to_text(message.rcode()), says_withheld=says_withheld)
    records = sorted(record.to_text() for rrset in message.answer for record in rrset)
    # 0.0.0.0 and :: are what filters answer in place of an address.
    is_data = any(record not in ("0.0.0.0", "::") for record in records)
    return _Got(" ".join(records) or "NODATA", is_data, says_withheld)


def _compare(
    probe: Probe, got: _Got, truth: _Got | None, sinkhole: str, announced: bool, networks: Sequence[HeldNetwork]
) -> Finding:
    if probe.action is None:
        wanted, kind = _judge_allowed(got, truth, networks)
    else:
        wanted = _wanted(probe.action, sinkhole)
        kind = Kind.SAME if got.text == wanted else Kind.LET_THROUGH if got.is_data else Kind.OTHERWISE
    is_difference = kind not in (Kind.SAME, Kind.UNDECIDED)
    return Finding(names.to_text(probe.name), probe.listed, kind, wanted, got.text, announced and is_difference)


def _judge_allowed(got: _Got, truth: _Got | None, networks: Sequence[HeldNetwork]) -> tuple[str, Kind]:
    """What was wanted of a name that is not withheld, and how the reply stands to it.

    Without the truth, that there is no such name or address may be true as well as policy's word; and where the
    operator withholds answers by their addresses, so may whatever is no answer.
    """
    wanted = "its own answer" if truth is None else truth.text
    if truth is not None and any(_lies_in(record, networks) for record in truth.text.split()):
        return wanted, Kind.UNDECIDED
    if truth is None and networks and not got.is_data:
        return wanted, Kind.UNDECIDED
    if got.says_withheld:
        return wanted, Kind.WITHHELD
    if truth is None:
        if got.is_data:
            return wanted, Kind.SAME
        return wanted, Kind.UNDECIDED if got.text in ("NXDOMAIN", "NODATA") else Kind.WITHHELD
    # Two resolvers may well be given different addresses for one name.
    same = got.text == truth.text or (got.is_data and truth.is_data)
    return wanted, Kind.SAME if same else Kind.WITHHELD


def _lies_in(record: str, networks: Sequence[HeldNetwork]) -> bool:
    try:
        address = ip_address(record)
    except ValueError:
        return False
    return any(address in held.network for held in networks if held.action is not Action.PASSTHRU)


def _wanted(action: Action, sinkhole: str) -> str:
    if action is Action.SINKHOLE:
        return sinkhole
    return _SILENCE if action is Action.DROP else action.value.upper()


def to_json(server: Endpoint, findings: Sequence[Finding]) -> dict[str, object]:
    """The outcome for programs: counts by kind, and every finding that is not `same`."""
    return {
        "server": str(server),
        "asked": len(findings),
        "counts": {kind.value: sum(finding.kind is kind for finding in findings) for kind in Kind},
        "unannounced": sum(is_unannounced(finding) for finding in findings),
        "findings": [
            {
                "name": f.name, "listed": f.listed, "kind": f.kind.value, "wanted": f.wanted, "got": f.got,
                "announced": f.announced,
            }
            for f in findings if f.kind is not Kind.SAME
        ],
    }  # fmt: skip


def is_unannounced(finding: Finding) -> bool:
    """Whether a resolver differs from policy, and the format does not say that it would."""
    return finding.kind not in (Kind.SAME, Kind.UNDECIDED) and not finding.announced


def to_text(server: Endpoint, findings: Sequence[Finding]) -> str:
    """The outcome for people: the differences, then a summary."""
    differing = [f for f in findings if f.kind not in (Kind.SAME, Kind.UNDECIDED)]
    lines = [
        f"{f.kind.value}: {f.name} (listed: {f.listed}): {f.got} instead of {f.wanted}"
        + (" (announced by the export)" if f.announced else "")
        for f in differing
    ]
    announced = sum(f.announced for f in differing)
    same, undecided = (sum(f.kind is kind for f in findings) for kind in (Kind.SAME, Kind.UNDECIDED))
    summary = f"{server}: {len(findings)} names asked, {same} as policy has it, {len(differing)} differ"
    summary += f" ({announced} announced)" if announced else ""
    if undecided:
        summary += f", {undecided} undecided: allowed, and answered that there is nothing; --reference decides"
    return "\n".join([*lines, summary])
