"""`interdict tail`: recorded hits as they are stored, read beside the recorder and never in its way."""

import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from resolver.cli.options import (
    Failure,
    exit_codes,
    parse_network,
    parsed,
    read_config,
    speaks_json,
    state_paths,
    takes_config,
    takes_state_dir,
)

if TYPE_CHECKING:
    from resolver.evidence.store import HitLog, StoredHit
    from resolver.observe.record import Hit

MOST_SEARCHED = 100_000  # hits that are looked through for matches to begin with: well under a second's work
PAUSE_SECONDS = 0.5


@click.command(epilog=exit_codes("no hits are kept here"))
@takes_config
@takes_state_dir
@speaks_json
@click.option(
    "-n", "count", metavar="N", type=click.IntRange(0, 100_000), default=20, show_default=True,
    help="How many hits to begin with.",
)  # fmt: skip
@click.option("--follow/--no-follow", default=True, show_default=True, help="Go on with new hits until Ctrl-C.")
@click.option("--order", metavar="ID", help="Only hits of this order, or of a rule or zone such as rule:portal.")
@click.option(
    "--client", metavar="NETWORK", callback=parsed(parse_network), help="Only hits of this address or network."
)
@click.option("--app", metavar="ID", help="Only hits of this app.")
@click.option("--device", metavar="NAME", help="Only hits of this device, by its name.")
def tail(
    count: int,
    follow: bool,
    order: str | None,
    client: IPv4Network | IPv6Network | None,
    app: str | None,
    device: str | None,
    as_json: bool,
    state_dir: Path | None,
) -> None:
    """Show recorded hits, and new ones as they come.

    With a filter, the newest matches among the last 100,000 hits are shown first. `--json` prints one object a line.

    \b
    Examples:
      interdict tail
      interdict tail --client 10.1.0.0/16 --app wechat
      interdict tail --device phone-7
      interdict tail -n 1000 --no-follow --json | jq -r .client | sort | uniq -c
    """
    from resolver.evidence.store import HitLog

    paths = state_paths(state_dir)
    if state_dir is None and not read_config()[0].hits.sqlite:
        raise Failure(
            f"hits are not kept in SQLite here; read the files in {paths.hits}, or write hits: {{sqlite: true}}"
        )
    if not paths.sqlite.exists():
        raise Failure(f"no hits in {paths.sqlite}; start `interdict serve` with this configuration first")
    log = HitLog(paths.sqlite)
    write = to_json if as_json else to_text
    try:
        for stored in watch(log, Filter(order, client, app, device), count, follow=follow, pause=pause):
            click.echo(write(stored))
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Nobody reads on. What is still buffered must not fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        log.close()


class Filter(NamedTuple):
    """Which hits are wanted; None for all."""

    order: str | None = None
    client: IPv4Network | IPv6Network | None = None
    app: str | None = None
    device: str | None = None

    def wants(self, stored: "StoredHit") -> bool:
        """Whether a hit is wanted."""
        hit = stored.hit
        return (
            (self.order is None or hit.order == self.order)
            and (self.app is None or hit.app == self.app)
            and (self.device is None or hit.device == self.device)
            and (self.client is None or ip_address(hit.client) in self.client)
        )


def watch(
    log: "HitLog", wanted: Filter, count: int, *, follow: bool, pause: Callable[[], bool]
) -> "Iterator[StoredHit]":
    """Yield the newest wanted hits, oldest first, then new ones as they are stored.

    Args:
        log: Where from.
        wanted: Which.
        count: How many to begin with.
        follow: Whether to go on after them.
        pause: Called when there is nothing new; waits, and says whether anybody still reads.
    """
    newest = log.recent(1)
    last = newest[0].id if newest else 0
    found: list[StoredHit] = []
    limit = count
    while count:
        looked_at = log.recent(limit)
        # What came in since belongs to the second part, or it would be shown twice.
        found = [stored for stored in looked_at if stored.id <= last and wanted.wants(stored)]
        if len(found) >= count or len(looked_at) < limit or limit >= MOST_SEARCHED:
            break
        limit = min(limit * 8, MOST_SEARCHED)
    yield from found[max(0, len(found) - count) :]
    while follow:
        fresh = log.after(last)
        if fresh:
            last = fresh[-1].id
            yield from filter(wanted.wants, fresh)
        elif not pause():
            return


def pause() -> bool:
    """Wait a moment; whether somebody still reads standard output when it is over."""
    import select

    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors and hang-ups only, which are always told
    return not poll.poll(PAUSE_SECONDS * 1000)


def to_json(stored: "StoredHit") -> str:
    """A hit on one line, with the keys of the JSON Lines files, and its id."""
    import json

    hit = stored.hit._asdict()
    del hit["time_us"]
    return json.dumps({"id": stored.id, "time": _time(stored), "node": stored.node, **hit})


def to_text(stored: "StoredHit") -> str:
    """A hit on one line, for people."""
    hit = stored.hit
    covers = "  ".join(filter(None, (hit.app, hit.order, hit.rule, hit.group or "no group", hit.device)))
    return f"{_time(stored)}  {hit.client}  {click.style(hit.qname, bold=True)} {hit.qtype}  {_outcome(hit)}  {covers}"


def _outcome(hit: "Hit") -> str:
    """What came of it: the reply where the name was withheld, else why it was not."""
    if hit.mode != "enforce":
        return click.style("observed" if hit.mode == "observe" else hit.mode, fg="yellow")
    if hit.action == "passthru":
        return click.style("allowed", fg="green")
    if hit.action == "tcp-only":
        return click.style("sent over to TCP", fg="yellow")
    ede = "" if hit.ede is None else f" EDE {hit.ede}"
    return click.style(f"{hit.rcode or 'silence'}{ede}", fg="red")


def _time(stored: "StoredHit") -> str:
    seconds, micros = divmod(stored.hit.time_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{micros:06d}Z"
