"""Where a policy zone of the configuration comes from: a local file or folder, or the last good copy of what the feeder
fetched or transferred. Nothing here touches the network.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from resolver.config import PolicyZone, Tsig
from resolver.feeds import copies, download, transfer
from resolver.feeds.copies import FeedError
from resolver.feeds.zones import read_zone as read_zone_text
from resolver.feeds.zones import read_zone_file
from resolver.policy import zone as policy_zone
from resolver.policy.compile import AppliedZone
from resolver.policy.documents import Action
from resolver.policy.lines import ListFormat
from resolver.policy.lists import ListError, read_list, sniff
from resolver.policy.rpz import RpzReport
from resolver.policy.source import PolicyError, Problem
from resolver.policy.terms import ZoneKind
from resolver.policy.zone import LocalRecord, Progress, Rule, ZoneState
from resolver.wire import name as names
from resolver.wire.codes import Rtype

_CNAME_TTL = 30  # seconds, of an alias that the configuration makes


def download_terms(zone: PolicyZone) -> download.Terms:
    """On which terms a zone with a url is fetched."""
    assert zone.url is not None
    return download.Terms(
        name=zone.name,
        url=zone.url,
        refresh_s=zone.refresh,
        most_octets=zone.max_octets,
        min_share=zone.min_share,
        public_key=zone.minisign_key,
        ca_file=None if zone.ca_file is None else Path(zone.ca_file),
    )


def transfer_terms(zone: PolicyZone) -> transfer.TransferTerms:
    """On which terms a zone with primaries is transferred.

    Raises:
        FeedError: The key can not be read.
    """
    return transfer.TransferTerms(
        name=zone.name,
        zone=zone.name,
        primaries=tuple((primary.address, primary.port) for primary in zone.primaries),
        key=None if zone.tsig is None else _key(zone.tsig),
        max_octets=zone.max_octets,
    )


def _key(tsig: Tsig) -> transfer.TsigKey:
    if tsig.secret is not None:
        return transfer.TsigKey.from_text(tsig.name, tsig.algorithm, tsig.secret)
    path = Path(tsig.secret_file or "").expanduser()
    try:
        written = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FeedError(f"{path} cannot be read ({error}); check that it is there and its permissions") from None
    if "{" in written:  # as tsig-keygen writes it
        return transfer.TsigKey.from_file(path)
    return transfer.TsigKey.from_text(tsig.name, tsig.algorithm, written)


def count_entries(zone: PolicyZone, octets: bytes) -> int:
    """How many triggers a fetched copy has.

    Raises:
        FeedError: It can not be used.
    """
    try:
        return _size(_from_octets(zone, octets, _shown(zone.url) if zone.url else zone.name, None)[1])
    except (ListError, PolicyError) as error:
        raise FeedError(str(error)) from None


def read_zone(zone: PolicyZone, feeds: Path, progress: Progress | None) -> Iterator[tuple[AppliedZone, ZoneState]]:
    """A zone of the configuration, ready to be compiled; of a folder each file.

    Args:
        zone: As configured.
        feeds: The folder of last good copies; one that is not there yet is a zone without names, and is told.
        progress: For long reads.

    Raises:
        PolicyError: A local file can not be used.
    """
    if zone.file is not None:
        path = Path(zone.file).expanduser()
        files = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]
        for file in files:
            kind, held, refused = _from_file(zone, file, progress)
            applied = _applied(zone, kind, held, str(file), refused)
            yield applied, ZoneState(applied.id, _size(held), refused, str(file), _changed_at(file))
        return
    source = (
        _shown(zone.url) if zone.url else ", ".join(f"{primary.address}:{primary.port}" for primary in zone.primaries)
    )
    state = copies.State()
    held, refused, error = policy_zone.PolicyZone(), 0, "it was not fetched yet"
    kind = ZoneKind.RPZ if zone.primaries or zone.format == "rpz" else ZoneKind.LIST
    try:
        if zone.primaries:
            held, report, state = transfer.read_copy(feeds, zone.name)
            refused, error = report.refused, ""
        else:
            copy = copies.read_copy(feeds, zone.name)
            state = copy.state
            if copy.octets is not None:
                kind, held, refused = _from_octets(zone, copy.octets, source, progress)
                error = ""
    except (FeedError, ListError, PolicyError) as failure:
        error = str(failure)
    applied = _applied(zone, kind, held, source, refused)
    yield applied, ZoneState(
        applied.id, _size(held), refused, source, state.fetched_at, state.checked_at, state.failures,
        state.error or error or None,
    )  # fmt: skip


def _from_file(zone: PolicyZone, file: Path, progress: Progress | None) -> tuple[ZoneKind, policy_zone.PolicyZone, int]:
    try:
        if file.stat().st_size > zone.max_octets:
            message = f"the file is larger than {zone.max_octets} octets; raise max_octets of zone {zone.name}"
            raise PolicyError([Problem(str(file), 1, 1, message)])
        if zone.format == "rpz":
            held, report = read_zone_file(file, names.from_text(zone.name), _told(zone, progress))
            return ZoneKind.RPZ, held, report.refused
        return _from_octets(zone, file.read_bytes(), str(file), progress)
    except OSError as error:
        message = f"cannot be read ({error.strerror}); check that it is there and its permissions"
        raise PolicyError([Problem(str(file), 1, 1, message)]) from None
    except ListError as error:
        raise PolicyError([Problem(str(file), 1, 1, str(error))]) from None


def _from_octets(
    zone: PolicyZone, octets: bytes, source: str, progress: Progress | None
) -> tuple[ZoneKind, policy_zone.PolicyZone, int]:
    form = None if zone.format == "auto" else ListFormat(zone.format)
    if form is ListFormat.RPZ or (form is None and sniff(octets) is ListFormat.RPZ):
        held, told = read_zone_text(octets, source, names.from_text(zone.name), _told(zone, progress))
        _judge(zone, told)
        return ZoneKind.RPZ, held, told.refused
    host = urlsplit(zone.url).hostname if zone.url else None
    held, report = read_list(
        octets,
        form=form,
        tolerance=zone.tolerance,
        own_host=_wire(host),
        progress=_told(zone, progress),
    )
    return ZoneKind.LIST, held, report.refused_lines


def _judge(zone: PolicyZone, told: RpzReport) -> None:
    """Hold a Response Policy Zone to the same tolerance as a list."""
    records = told.taken + told.refused
    if records and told.refused > zone.tolerance * records:
        raise ListError(f"{told.refused} of {records} records can not be taken; raise tolerance, or mend the zone")


def _shown(url: str) -> str:
    """An address without account and query, which may be somebody's secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _wire(host: str | None) -> bytes | None:
    if host is None:
        return None
    try:
        return names.from_text(host)
    except names.BadName:
        return None


def _told(zone: PolicyZone, progress: Progress | None) -> Callable[[int, int], None]:
    if progress is None:
        return lambda done, whole: None
    return lambda done, whole: progress(zone.name, done, whole)


def _size(held: policy_zone.PolicyZone) -> int:
    return sum(count for _, count in held.triggers())


def _changed_at(file: Path) -> float | None:
    try:
        return file.stat().st_mtime
    except OSError:
        return None


def _applied(zone: PolicyZone, kind: ZoneKind, held: policy_zone.PolicyZone, source: str, refused: int) -> AppliedZone:
    override = None
    if zone.cname is not None:
        target = LocalRecord(int(Rtype.CNAME), _CNAME_TTL, names.from_text(zone.cname))
        override = Rule(Action.LOCAL_DATA, (target,))
    elif zone.action != "given":
        override = Rule(Action(zone.action))
    if override is not None and override.action is Action.PASSTHRU:
        kind = ZoneKind.RPZ  # a list whose names all pass ends the matter for them, as a zone's PASSTHRU does
    groups = () if isinstance(zone.groups, str) else zone.groups
    id_ = f"{'zone' if kind is ZoneKind.RPZ else 'list'}:{zone.name}"
    return AppliedZone(id_, kind, held, groups, zone.mode, override, source=source, refused=refused)
