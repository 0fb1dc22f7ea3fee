"""What runs and in what state, told to people (`interdict status`, the banner) and to the recorder (`status.json`)."""

import contextlib
import json
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from resolver import __version__
from resolver.app.listening import listeners
from resolver.app.machine import StatePaths, document_folders, upstream_addresses
from resolver.app.worker import open_generation
from resolver.config import Config
from resolver.feeds import copies
from resolver.hot._scan_cy import is_compiled
from resolver.observe import cells
from resolver.policy.generation import Generation
from resolver.policy.judge import judge_query
from resolver.policy.terms import FOREVER, PolicyTerms, ZoneEntry
from resolver.transport.sockets import format_address
from resolver.wire import name as names

_WARN_DAYS = (30, 7, 1)  # before an exemption ends
_DAY = 86400.0


class Endings:
    """Says once, 30, 7 and 1 days before an exemption ends, that it will, and once that it has."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}
        self._told: dict[str, tuple[float, int]] = {}  # its end, and how many of the four were said

    def take_in(self, exemptions: Iterable[dict[str, Any]]) -> None:
        """Know the exemptions of the policy in force."""
        self._ends = {entry["id"]: entry["until"] for entry in exemptions}

    def due(self, at: float) -> list[str]:
        """What is to be said at a moment (Unix seconds); of several warnings that were missed, the last."""
        said = []
        for id_, until in self._ends.items():
            left = until - at
            stage = sum(left <= days * _DAY for days in _WARN_DAYS) + (left <= 0)
            held = self._told.get(id_)
            if stage and held != (until, stage) and (held is None or held[0] != until or held[1] < stage):
                when = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(until))
                if left <= 0:
                    if held is not None:  # what had ended before we looked is no news
                        said.append(f"exemption {id_} has ended ({when}); the orders bind its devices again")
                else:
                    said.append(
                        f"exemption {id_} ends {when}, in {max(1, round(left / _DAY))} d; renew it or let it end"
                    )
                self._told[id_] = until, stage
        return said


def policy_status(path: Path, config: Config, feeds: Path, workers: int, restarts: dict[str, int]) -> dict[str, Any]:
    """The policy in force: generation, orders and their state now, zones and exemptions; and how many workers."""
    generation = open_generation(path)
    terms = generation.terms
    at = time.time()
    refresh = {zone.name: zone.refresh for zone in config.policy.zones if zone.url is not None}
    orders = []
    for entry in terms.enforcements:
        order = terms.orders[entry.order]
        clipped = ((max(begin, entry.since), min(end, entry.until)) for begin, end in order.spans)
        spans = [(begin, end) for begin, end in clipped if begin < end]
        # The span that matters now: the one it is in, else the next, else the last; none for a line that never acts.
        begin, end = next((span for span in spans if at < span[1]), spans[-1] if spans else (0.0, 0.0))
        orders.append(
            {
                "id": order.id,
                "title": order.title_en,
                "mode": entry.mode.value,
                "action": entry.action.value,
                "groups": [terms.groups[group].name for group in entry.groups],
                "in_force_from": begin,
                "in_force_until": None if end == FOREVER else end,
                "in_force": any(begin <= at < end for begin, end in spans),
                "spans": [[begin, None if end == FOREVER else end] for begin, end in spans],
            }
        )
    return {
        "generation": generation.serial,
        "digest": generation.digest,
        "loaded_at": generation.compiled_at,
        "names": generation.names,
        "orders": orders,
        "zones": [_zone_status(zone, feeds, refresh.get(zone.id.partition(":")[2])) for zone in terms.zones],
        "exemptions": [
            {
                "id": exemption.id,
                "since": exemption.since,
                "until": exemption.until,
                "in_force": exemption.since <= at < exemption.until,
                "groups": [terms.groups[group].name for group in exemption.groups],
                "devices": list(exemption.devices),
            }
            for exemption in terms.exemptions
        ],
        "made_by": generation.made_by,
        "withheld_here": _withheld_from_loopback(generation, at),
        "lists": list_times(terms, document_folders(config)),
        "workers": workers,
        "restarts": restarts,
        "version": __version__,
        "hot": "compiled" if is_compiled() else "plain",
    }


def list_times(terms: PolicyTerms, folders: Iterable[Path]) -> dict[str, float]:
    """When each document that is in use was last changed: `apps/wechat` -> Unix seconds."""
    times: dict[str, float] = {}
    for folder in folders:
        for kind, entries in (("apps", terms.apps), ("orders", terms.orders)):
            for id_ in [entry.id for entry in entries]:
                # Not there, gone meanwhile, or not for our eyes any more: what is in force goes on without its age.
                with contextlib.suppress(OSError):
                    times[f"{kind}/{id_}"] = (folder / kind / f"{id_}.yaml").stat().st_mtime
    return times


def _zone_status(zone: ZoneEntry, feeds: Path, refresh: float | None) -> dict[str, Any]:
    """One zone; with the state of its copy, where it is one that is fetched, and how often (seconds) it is to be."""
    state = copies.State()
    with contextlib.suppress(OSError, ValueError, copies.FeedError):
        state = copies.State.from_json(copies.state_path(feeds, zone.id.partition(":")[2]).read_bytes())
    return {
        "id": zone.id,
        "kind": zone.kind.value,
        "mode": zone.mode.value,
        "source": zone.source,
        "entries": zone.entries,
        "refused": zone.refused,
        "fetched_at": state.fetched_at,
        "checked_at": state.checked_at,
        "refresh": refresh,
        "failures": state.failures,
        "error": state.error,
        "until": None if zone.until == FOREVER else zone.until,
    }


def _withheld_from_loopback(generation: Generation, at: float) -> str:
    """A name that whoever sits at this machine is refused now, to try; empty where there is none."""
    view = generation.view_of(bytes((127, 0, 0, 1)), at)
    for name in (names.from_text("wechat.com"), *islice(generation.listed(), 1000)):
        verdict = judge_query(name, view)
        if verdict is not None and not verdict.passes:
            return names.to_text(name)
    return ""


def running_status(
    config: Config,
    source: str,
    paths: StatePaths,
    *,
    policy: dict[str, Any],
    processes: Iterable[tuple[str, int, int | None]],
    uptime: float,
    last_reload: dict[str, object],
) -> dict[str, Any]:
    """Everything `interdict status` tells.

    Args:
        config: What the server was started with.
        source: The name of its file.
        paths: The state folder.
        policy: From `policy_status`.
        processes: (name, process id, generation or None) each.
        uptime: Seconds.
        last_reload: How the last reload ended; empty before the first.
    """
    found = []
    for number in range(policy["workers"]):
        with contextlib.suppress(OSError):
            found.append(cells.read((paths.run / f"cells-{number}").read_bytes()))
    counted = cells.merge(found, found)
    metrics = config.metrics.listen
    return {
        **policy,
        "listen": [format_address(endpoint.host, endpoint.port) for endpoint in config.listen],
        "encrypted": encrypted_listeners(config),
        "metrics": None if metrics is None else format_address(metrics.host, metrics.port),
        "upstreams": [str(upstream) for upstream in upstream_addresses(config)],
        "uptime_seconds": round(uptime, 1),
        "config": source,
        "state_dir": str(paths.root),
        "processes": [{"name": name, "pid": pid, "generation": serial} for name, pid, serial in processes],
        "queries": sum(count for key, count in counted.items() if key[0] == "query"),
        "hits_spooled": counted.get(("hits_spooled",), 0),
        "hits_lost": counted.get(("hits_lost",), 0),
        "cache_entries": counted.get(("=cache_entries",), 0),
        "last_reload": last_reload,
    }


def encrypted_listeners(config: Config) -> list[str]:
    """Where which encrypted transport is spoken, in words: `dot 192.0.2.1:853`."""
    return [f"{one.transport} {one.endpoint}" for one in listeners(config) if one.transport.is_encrypted]


def write_status(paths: StatePaths, status: dict[str, Any]) -> None:
    """Rewrite the file that the recorder reads."""
    aside = paths.status.with_suffix(".new")
    with contextlib.suppress(OSError):
        aside.write_text(json.dumps(status))
        aside.replace(paths.status)


def banner(status: dict[str, Any], config: Config, paths: StatePaths) -> str:
    """What the operator sees when everything runs."""
    lines = [f"Interdict {__version__} answers on {', '.join(status['listen'])} (UDP and TCP)"]
    if status["encrypted"]:
        called = f" as {config.encrypted.name}" if config.encrypted.name else ""
        lines.append(f"  encrypted  {', '.join(status['encrypted'])}{called}")
    for order in status["orders"]:
        since = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(order["in_force_from"]))
        state = "in force since" if order["in_force"] else "announced, in force from"
        groups = ", ".join(order["groups"])
        lines.append(f"  order      {order['id']} ({order['action']}, {order['mode']}, for {groups}), {state} {since}")
    for zone in status["zones"]:
        if zone["kind"] != "rule" and not zone["id"].startswith("way-round:"):
            lines.append(f"  zone       {zone['id']} ({zone['mode']}), {zone['entries']} entries")
    ways = [zone["id"].partition(":")[2] for zone in status["zones"] if zone["id"].startswith("way-round:")]
    if ways:
        lines.append(f"  ways round {', '.join(ways)}: withheld")
    lines += [
        f"  policy     generation {status['generation']} ({status['digest'][:12]}), {status['names']} names",
        f"  upstreams  {', '.join(status['upstreams']) or 'none: names that are not banned get SERVFAIL'}",
        f"  hot path   {status['hot']}; {status['workers']} workers",
        f"  evidence   {paths.hits}",
    ]
    if status["metrics"]:
        lines.append(f"  metrics    http://{status['metrics']}/metrics")
    first = config.listen[0]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(first.host, first.host)
    port = "" if first.port == 53 else f" -p {first.port}"
    try_with = f"dig @{host}{port}" if status["withheld_here"] else "interdict explain"
    lines.append(f"Try: {try_with} {status['withheld_here'] or 'wechat.com'}")
    return "\n".join(lines)
