"""Who serves a name: looked up for policy zones that judge name servers (NSDNAME and NSIP triggers).

A forwarder is told of no delegation, so it asks: NS records of the name and of each of its ancestors below the top
level, and the addresses of the hosts they name. All of it goes through the cache; a name that policy withholds is not
asked about, nor is anything above it for its sake.

What is found counts zone by zone as it comes, so that a zone whose servers keep silent, or that names a crowd of them,
hides nothing of those above it.
"""

import asyncio

from resolver.engine.cache import Entry
from resolver.engine.forwarder import Forwarder
from resolver.policy.generation import View
from resolver.policy.judge import is_settled, judge_query
from resolver.policy.zone import Trigger
from resolver.wire.codes import Rtype
from resolver.wire.rewrite import answer_records

MOST_HOSTS = 16  # name servers looked at for one zone; the root has 13, hardly a zone more than 8
MOST_ZONES = 16  # ancestors asked about for one name, those nearest to the top; whoever owns them owns what is below
PATIENCE = 2.0  # seconds; what is not known by then takes no part in the judgement


class NameServers:
    """Looks name servers up."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder

    async def of(
        self, names: tuple[bytes, ...], view: View
    ) -> dict[bytes, tuple[tuple[bytes, ...], tuple[bytes, ...]]]:
        """For each name: the names of its zones' name servers, and their addresses where the view has rules on them."""
        wants_addresses = any(view.generation.addresses(number, Trigger.NSIP) is not None for number in view.zones)
        found = await asyncio.gather(*(self._of(name, view, wants_addresses) for name in names))
        return dict(zip(names, found, strict=True))

    async def _of(self, name: bytes, view: View, wants_addresses: bool) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        hosts: dict[bytes, None] = {}
        addresses: dict[bytes, None] = {}

        async def look_at(zone: bytes) -> None:
            found = (await self._records(zone, Rtype.NS, view))[:MOST_HOSTS]
            hosts.update(dict.fromkeys(found))
            if wants_addresses:
                await asyncio.gather(*(look_for(host, rtype) for host in found for rtype in (Rtype.A, Rtype.AAAA)))

        async def look_for(host: bytes, rtype: Rtype) -> None:
            addresses.update(dict.fromkeys(await self._records(host, rtype, view)))

        if is_settled(judge_query(name, view), view):
            return (), ()
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*(look_at(zone) for zone in _zones(name)[-MOST_ZONES:]))
        except TimeoutError:
            pass
        return tuple(hosts), tuple(addresses)

    async def _records(self, name: bytes, rtype: Rtype, view: View) -> list[bytes]:
        if is_settled(judge_query(name, view), view):
            return []
        found = await self._forwarder.look_up(name, rtype, do=False, cd=False)
        if not isinstance(found, Entry):
            return []
        return [record.rdata for record in answer_records(name, found.answer) if record.rtype == rtype]


def _zones(name: bytes) -> list[bytes]:
    """A name and its ancestors, less the top level and the root."""
    zones = []
    i = 0
    while name[i]:
        end = i + name[i] + 1
        if name[end]:
            zones.append(name[i:])
        i = end
    return zones
