"""`interdict tail`: recorded hits as they are stored, read beside the recorder and never in its way."""

import json
import select
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_address

import click

from resolver.evidence.store import HitLog, StoredHit

MOST_SEARCHED = 100_000  # hits that are looked through for matches to begin with: well under a second's work
PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Filter:
    """Which hits are wanted; None for all."""

    order: str | None = None
    client: IPv4Network | IPv6Network | None = None
    app: str | None = None

    def wants(self, stored: StoredHit) -> bool:
        """Whether a hit is wanted."""
        hit = stored.hit
        return (
            (self.order is None or hit.order == self.order)
            and (self.app is None or hit.app == self.app)
            and (self.client is None or ip_address(hit.client) in self.client)
        )


def watch(log: HitLog, wanted: Filter, count: int, *, follow: bool, pause: Callable[[], bool]) -> Iterator[StoredHit]:
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
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors and hang-ups only, which are always told
    return not poll.poll(PAUSE_SECONDS * 1000)


def to_json(stored: StoredHit) -> str:
    """A hit on one line, with the keys of the JSON Lines files, and its id."""
    hit = stored.hit._asdict()
    del hit["time_us"]
    return json.dumps({"id": stored.id, "time": _time(stored), "node": stored.node, **hit})


def to_text(stored: StoredHit) -> str:
    """A hit on one line, for people."""
    hit = stored.hit
    said = hit.rcode or "silence"
    ede = "" if hit.ede is None else f" EDE {hit.ede}"
    outcome = click.style(f"{said}{ede}", fg="red") if hit.mode == "enforce" else click.style("observed", fg="yellow")
    return (
        f"{_time(stored)}  {hit.client}  {click.style(hit.qname, bold=True)} {hit.qtype}  {outcome}  "
        f"{hit.app}  {hit.order}  {hit.rule}  {hit.group or 'no group'}"
    )


def _time(stored: StoredHit) -> str:
    seconds, micros = divmod(stored.hit.time_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{micros:06d}Z"
