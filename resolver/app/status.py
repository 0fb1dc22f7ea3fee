"""What runs and in what state, told to people (`interdict status`, the banner) and to the recorder (`status.json`)."""

import contextlib
import json
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from resolver import __version__
from resolver.app.compiler import document_folders, list_times
from resolver.app.machine import StatePaths, upstream_addresses
from resolver.app.worker import open_generation
from resolver.config import Config
from resolver.hot._scan_cy import is_compiled
from resolver.observe import cells
from resolver.observe.metrics import merge
from resolver.policy.documents import Mode
from resolver.policy.generation import FOREVER, Generation, View
from resolver.policy.judge import judge_query
from resolver.transport.sockets import format_address
from resolver.wire import name as names


def policy_status(path: Path, config: Config, workers: int, restarts: dict[str, int]) -> dict[str, Any]:
    """The policy in force: generation, orders and their state now; with how many workers there are."""
    generation = open_generation(path)
    terms = generation.terms
    at = time.time()
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
        "withheld_here": _withheld_from_loopback(generation, at),
        "lists": list_times(terms, document_folders(config)),
        "workers": workers,
        "restarts": restarts,
        "version": __version__,
        "hot": "compiled" if is_compiled() else "plain",
    }


def _withheld_from_loopback(generation: Generation, at: float) -> str:
    """A name that whoever sits at this machine is refused now, to try; empty where there is none."""
    view = View(generation, generation.group_of(bytes((127, 0, 0, 1))), at)
    for name in (names.from_text("wechat.com"), *islice(generation.listed(), 1000)):
        verdict = judge_query(name, view)
        if verdict is not None and verdict.mode is Mode.ENFORCE:
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
    counted = merge(found, found)
    metrics = config.metrics.listen
    return {
        **policy,
        "listen": [format_address(endpoint.host, endpoint.port) for endpoint in config.listen],
        "metrics": None if metrics is None else format_address(metrics.host, metrics.port),
        "upstreams": [format_address(u.host, u.port) for u in upstream_addresses(config)],
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


def write_status(paths: StatePaths, status: dict[str, Any]) -> None:
    """Rewrite the file that the recorder reads."""
    aside = paths.status.with_suffix(".new")
    with contextlib.suppress(OSError):
        aside.write_text(json.dumps(status))
        aside.replace(paths.status)


def banner(status: dict[str, Any], config: Config, paths: StatePaths) -> str:
    """What the operator sees when everything runs."""
    lines = [f"Interdict {__version__} answers on {', '.join(status['listen'])} (UDP and TCP)"]
    for order in status["orders"]:
        since = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(order["in_force_from"]))
        state = "in force since" if order["in_force"] else "announced, in force from"
        groups = ", ".join(order["groups"])
        lines.append(f"  order      {order['id']} ({order['action']}, {order['mode']}, for {groups}), {state} {since}")
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
