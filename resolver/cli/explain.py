"""What `interdict explain` asks: which policy judges, today's or one out of the history, and about which answer."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import click

from resolver import __version__
from resolver.app import history, machine
from resolver.app.compiler import compile_policy
from resolver.app.listening import discovery
from resolver.cli.options import Failure
from resolver.config import Config
from resolver.engine.special import SpecialNames
from resolver.policy.explain import explain
from resolver.policy.generation import Generation
from resolver.policy.judge import Reached
from resolver.policy.register import Device
from resolver.policy.steps import Explanation, PolicyStep, Source
from resolver.policy.zone import ZoneState
from resolver.wire import name as names
from resolver.wire.codes import rcode_text, rtype_text
from resolver.wire.message import WireError, read_query, write_query

_LEADING = ("CNAME", "DNAME", "HTTPS", "SVCB")


def parse_answer(text: str) -> tuple[str, str]:
    """A record of an upstream's answer, as A=192.0.2.1: (type, address or name).

    Raises:
        ValueError: Anything else, with what to write instead.
    """
    rtype, _, found = text.partition("=")
    rtype = rtype.upper()
    try:
        if rtype in ("A", "AAAA"):
            address = ip_address(found)
            if address.version != (4 if rtype == "A" else 6):
                raise ValueError
            return rtype, str(address)
        if rtype == "NS" and _is_address(found):
            return rtype, str(ip_address(found))
        if rtype in (*_LEADING, "NS"):
            return rtype, names.to_text(names.from_text(found))
    except (ValueError, names.BadName):
        pass
    raise ValueError(
        f"{text!r} is no record of an answer; write A=192.0.2.1, AAAA=2001:db8::1, CNAME=a.example, HTTPS=a.example, "
        "or for a name server or its address NS=ns.example or NS=192.0.2.53"
    )


def reached_by(qname: bytes, records: Iterable[tuple[str, str]]) -> Reached:
    """Where an answer leads that consists of such records; aliases in their order."""
    held = list(records)
    servers = [found for rtype, found in held if rtype == "NS"]
    hosts = tuple(names.from_text(found) for found in servers if not _is_address(found))
    addresses = tuple(ip_address(found).packed for found in servers if _is_address(found))
    return Reached(
        aliases=tuple(names.from_text(found) for rtype, found in held if rtype == "CNAME"),
        others=tuple(names.from_text(found) for rtype, found in held if rtype in _LEADING[1:]),
        addresses=tuple(ip_address(found).packed for rtype, found in held if rtype in ("A", "AAAA")),
        nameservers={qname: (hosts, addresses)} if servers else {},
    )


def explanation(
    config: Config,
    source: str,
    qname: bytes,
    client: IPv4Address | IPv6Address,
    qtype: int,
    now: float,
    *,
    at: float | None = None,
    records: Sequence[tuple[str, str]] = (),
    current: bool = False,
    serial: int | None = None,
    device: str | None = None,
) -> Explanation:
    """Explain a query by the policy that was in force at its moment, as far as that is known, else by today's.

    Args:
        config: The configuration.
        source: The name of its file.
        qname: Lower-cased wire form.
        client: Who asks.
        qtype: The number of the type.
        now: Unix seconds.
        at: The moment that is asked about; None for now, or for the compile of the generation asked for.
        records: Of the answer, from `parse_answer`; none where it is not known.
        current: Whether today's documents judge about the past too.
        serial: Of the generation that judges, whatever was in force.
        device: The name of the registered device that asks; None: one that is not recognised.

    Raises:
        BadParameter: No such type is ever looked up.
        Failure: There is no such generation, or no such device.
        HistoryError: What was in force then is damaged.
        PolicyError: Today's policy can not be compiled.
    """
    local = _said_here(config, qname, qtype)
    known = None if device is None else _device(machine.state_paths(config), device)
    past, note = _past(machine.state_paths(config).generations, now, at, current, serial)
    if past is not None:
        generation, documents, zones = past.generation, past.documents, past.zones
        policy = _policy_step(past.kept)
        at = past.kept.compiled_at if at is None else at
    else:
        at = now if at is None else at
        compiled = compile_policy(config, source, serial=1, at=at)
        generation = Generation(memoryview(bytearray(compiled.octets)))
        documents, zones = compiled.documents, compiled.zones
        policy = PolicyStep(compiled.digest, note=note)
    reached = reached_by(qname, records) if records else None
    return explain(
        qname, qtype, client, at, generation, documents, local=local, reached=reached, sources=_sources(zones),
        policy=policy, device=known,
    )  # fmt: skip


def _device(paths: machine.StatePaths, name: str) -> Device:
    from resolver.cli.register import opened  # with the register comes SQLite, which few questions need

    with opened(paths) as devices:
        found = devices.find(name)
    return Device(found.number, found.name, found.group)


def _said_here(config: Config, qname: bytes, qtype: int) -> int | None:
    """The RCODE of what the server itself says to such a question."""
    try:
        query = read_query(write_query(qname, qtype, 0, do=False, cd=False, edns=True, udp_octets=1232))
    except WireError as error:
        said = "" if error.rcode is None else f" but answered {rcode_text(error.rcode)}"
        never = f"{rtype_text(qtype)} is never looked up{said}, whatever the name; write a type such as A"
        raise click.BadParameter(never, param_hint="--type") from None
    forward = tuple(names.from_text(text) for text in config.special_use.forward)
    own = SpecialNames(forward, machine.node_name(config), __version__, str, discovery(config)).answer(query)
    return None if own is None else own.rcode


def _past(
    folder: Path, now: float, at: float | None, current: bool, serial: int | None
) -> tuple[history.Past | None, str]:
    if serial is not None:
        past = history.of_serial(folder, serial)
        if past is None:
            raise Failure(f"no generation {serial} is kept in {folder}; `interdict history` shows those that are")
        return past, ""
    if at is None or at >= now:
        return None, ""
    if current:
        return None, "the documents as they are today, by --current"
    try:
        past = history.at(folder, at)
    except history.Damaged:
        raise
    except history.HistoryError as error:
        return None, f"the documents as they are today: {error}"
    if past is None:
        return None, "the documents as they are today: no history reaches back to that moment"
    return past, ""


def _policy_step(kept: history.Kept) -> PolicyStep:
    until = None if kept.replaced_at is None else _moment(kept.replaced_at)
    return PolicyStep(kept.digest, True, kept.serial, _moment(kept.compiled_at), until, kept.made_by)


def _sources(zones: Iterable[ZoneState]) -> dict[str, Source]:
    """Where each zone comes from; of a folder the zone is all its files together."""
    found: dict[str, Source] = {}
    for zone in zones:
        text = f"{found[zone.id].text}, {zone.source}" if zone.id in found else zone.source
        found[zone.id] = Source(text, None if zone.fetched_at is None else _moment(zone.fetched_at))
    return found


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
