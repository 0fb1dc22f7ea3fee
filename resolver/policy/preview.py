"""What an order would do, counted over queries that were asked before: the replay behind `interdict preview`.

Pure: queries come in one by one, verdicts from two callables, an `Impact` comes out. Whatever the size of the log, what
is kept is bounded: each listing has room for so many rows, and what finds none is counted without a name. So a total is
always true, and a listing says how much of the total it does not show.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address
from typing import Generic, TypeVar

from resolver.policy.documents import Action, Purpose
from resolver.wire import name as names

ROOM = 100_000  # rows of a listing: about 20 MB where all are used

_K = TypeVar("_K", bound=tuple[object, ...])
_R = TypeVar("_R")
_Cell = list[int]


@dataclass(frozen=True, slots=True)
class Asked:
    """A query as a log tells it.

    `at` is Unix seconds (years 1970 to 9999), None where the log has no time; `client` the packed address, None where
    it is not told; `qname` lower-cased wire form; `qtype` 0 where the log names a type that is not known here; `chain`
    the names that the answer led to, as far as the log holds answers.
    """

    at: float | None
    client: bytes | None
    qname: bytes
    qtype: int
    chain: tuple[bytes, ...] = ()


class Hold(StrEnum):
    """Whether the order's rule acts on the device that asks."""

    BOUND = "bound"
    EXEMPT = "exempt"
    OUTSIDE = "outside"


class Caution(StrEnum):
    """Why a name deserves a look before it is withheld."""

    SHARED = "shared-cdn"
    OPTIONAL = "optional"
    TOLD = "collateral"


@dataclass(frozen=True, slots=True)
class Judged:
    """The rule that covers a query, and what the documents say about it.

    `rule` is in words: `suffix wechat.com`. `by_chain` tells that only a name of the chain is covered, not the QNAME.
    """

    order: str
    app: str
    rule: str
    action: Action
    purpose: Purpose | None = None
    hold: Hold = Hold.BOUND
    by_chain: bool = False
    optional: bool = False
    collateral: str = ""

    @property
    def cautions(self) -> tuple[Caution, ...]:
        """Why the rule deserves a look, in a fixed order."""
        reasons = {
            Caution.SHARED: self.purpose is Purpose.SHARED_CDN,
            Caution.OPTIONAL: self.optional,
            Caution.TOLD: bool(self.collateral),
        }
        return tuple(caution for caution, is_so in reasons.items() if is_so)


Judge = Callable[[bytes, int, bytes | None, tuple[bytes, ...]], Judged | None]
"""From (QNAME, QTYPE, packed client, chain) to the rule that covers the query."""


@dataclass(frozen=True, slots=True)
class DayRow:
    """A day in UTC; `day` is empty for queries without a time."""

    day: str
    queries: int
    hits: int
    new: int


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group; `group` is empty for devices in none."""

    group: str
    devices: int
    hits: int
    new: int


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A client address; `client` is empty for queries whose client the log does not tell."""

    client: str
    group: str
    hits: int
    new: int


@dataclass(frozen=True, slots=True)
class AppRow:
    """An app of the order."""

    app: str
    devices: int
    hits: int
    new: int


@dataclass(frozen=True, slots=True)
class NameRow:
    """A name that was asked for, and the rule that would withhold it."""

    name: str
    rule: str
    app: str
    hits: int
    new: int


@dataclass(frozen=True, slots=True)
class CollateralRow:
    """A rule that deserves a look before it acts, and whom it would reach."""

    rule: str
    app: str
    purpose: Purpose | None
    cautions: tuple[Caution, ...]
    collateral: str
    devices: int
    hits: int
    new: int


@dataclass(frozen=True, slots=True)
class SparedRow:
    """A device that asked for names of the order and would get them as before."""

    client: str
    group: str
    hold: Hold
    queries: int


@dataclass(frozen=True, slots=True)
class SettledRow:
    """A name that the policy withholds now already, and by which order or zone."""

    name: str
    order: str
    queries: int


@dataclass(frozen=True, slots=True)
class Listing(Generic[_R]):
    """The greatest rows of a count.

    Attributes:
        rows: The greatest first; days in their order.
        distinct: How many rows there are, shown or not; a lower bound where `overflow` is not 0.
        left_out: What the rows that are not shown sum up to.
        overflow: What was counted without a row, since there was no room for another.
    """

    rows: tuple[_R, ...]
    distinct: int
    left_out: int
    overflow: int


@dataclass(frozen=True, slots=True)
class Impact:
    """What the order would do to the queries that were replayed.

    Attributes:
        queries: All that were replayed.
        first: The earliest time among them, Unix seconds; None where none has a time.
        last: The latest.
        devices: How many addresses asked; a lower bound unless `all_devices`.
        all_devices: Whether there was room to tell all devices apart, in `devices` and in the rows.
        nameless: Queries whose client the log does not tell.
        hits: Queries that the order would withhold: `new` and `settled` together.
        new: Hits that get an answer today.
        settled: Hits that the policy withholds today already.
        touched: How many devices have new hits; a lower bound where `by_device.overflow` is not 0.
        through_chain: Hits whose QNAME is not forbidden but whose answer leads to a name that is.
        spared: Queries for names of the order by devices that it does not bind.
    """

    queries: int
    first: float | None
    last: float | None
    devices: int
    all_devices: bool
    nameless: int
    hits: int
    new: int
    settled: int
    touched: int
    through_chain: int
    spared: int
    by_day: Listing[DayRow]
    by_group: Listing[GroupRow]
    by_device: Listing[DeviceRow]
    by_app: Listing[AppRow]
    by_name: Listing[NameRow]
    collateral: Listing[CollateralRow]
    by_chain: Listing[NameRow]
    out_of_scope: Listing[SparedRow]
    already: Listing[SettledRow]


class _Tally(Generic[_K]):
    """Counts hits, and new ones among them, by a key, for a bounded number of keys."""

    __slots__ = ("_room", "cells", "overflow")

    def __init__(self, room: int) -> None:
        self._room = room
        self.cells: dict[_K, _Cell] = {}
        self.overflow = 0

    def add(self, key: _K, hit: int, new: int, query: int = 0) -> None:
        cell = self.cells.get(key)
        if cell is None:
            if len(self.cells) >= self._room:
                self.overflow += hit or query
                return
            cell = self.cells[key] = [0, 0, 0]
        cell[0] += hit
        cell[1] += new
        cell[2] += query

    def listing(
        self, top: int, row: Callable[[_K, _Cell], _R], rank: Callable[[_K, _Cell], tuple[object, ...]] | None = None
    ) -> Listing[_R]:
        """The rows, in the order of `rank`; else those with the most new hits, then the most hits, first."""
        ordered = sorted(
            self.cells.items(),
            key=lambda item: rank(*item) if rank else (-item[1][1], -item[1][0], tuple(map(str, item[0]))),
        )
        return Listing(
            tuple(row(key, cell) for key, cell in ordered[:top]), len(ordered),
            sum(cell[0] or cell[2] for _, cell in ordered[top:]), self.overflow,
        )  # fmt: skip


class _Crowd:
    """Distinct devices by a key, for a bounded number of pairs."""

    __slots__ = ("_pairs", "_room", "is_full")

    def __init__(self, room: int) -> None:
        self._room = room
        self._pairs: set[tuple[str, bytes | None]] = set()
        self.is_full = False

    def add(self, key: str, client: bytes | None) -> None:
        if len(self._pairs) < self._room:
            self._pairs.add((key, client))
        elif (key, client) not in self._pairs:
            self.is_full = True

    def sizes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for key, _ in self._pairs:
            found[key] = found.get(key, 0) + 1
        return found


_COLLATERAL_KEY = tuple[str, str, Purpose | None, tuple[Caution, ...], str]


class Replay:
    """Counts queries one by one; `impact` may be asked at any time."""

    def __init__(self, now: Judge, then: Judge, group_of: Callable[[bytes | None], str], room: int = ROOM) -> None:
        """Begin with nothing counted.

        Args:
            now: The rule that withholds a query today, or None where it is answered.
            then: The rule of the order under preview that covers a query once it is in force, or None.
            group_of: The group of a packed client address; empty for none.
            room: How many rows each listing holds.
        """
        self._now, self._then, self._group_of = now, then, group_of
        self._queries = self._nameless = self._hits = self._new = self._through_chain = self._spared = 0
        self._first: float | None = None
        self._last: float | None = None
        self._everyone, self._group_crowd, self._app_crowd, self._rule_crowd = (_Crowd(room) for _ in range(4))
        self._days: _Tally[tuple[str]] = _Tally(room)
        self._groups: _Tally[tuple[str]] = _Tally(room)
        self._devices: _Tally[tuple[bytes | None]] = _Tally(room)
        self._apps: _Tally[tuple[str]] = _Tally(room)
        self._names: _Tally[tuple[bytes, str, str]] = _Tally(room)
        self._collateral: _Tally[_COLLATERAL_KEY] = _Tally(room)
        self._chains: _Tally[tuple[bytes, str, str]] = _Tally(room)
        self._outside: _Tally[tuple[bytes | None, Hold]] = _Tally(room)
        self._settled: _Tally[tuple[bytes, str]] = _Tally(room)

    def add(self, asked: Asked) -> None:
        """Count one query."""
        at, client, qname = asked.at, asked.client, asked.qname
        self._queries += 1
        if at is not None:
            self._first = at if self._first is None or at < self._first else self._first
            self._last = at if self._last is None or at > self._last else self._last
        if client is None:
            self._nameless += 1
        else:
            self._everyone.add("", client)
        judged = self._then(qname, asked.qtype, client, asked.chain)
        if judged is None or judged.hold is not Hold.BOUND:
            self._days.add((_day(at),), 0, 0, 1)
            if judged is not None:
                self._spared += 1
                self._outside.add((client, judged.hold), 1, 0)
            return
        held_now = self._now(qname, asked.qtype, client, asked.chain)
        new = 1 if held_now is None else 0
        self._hits += 1
        self._new += new
        self._days.add((_day(at),), 1, new, 1)
        group = self._group_of(client)
        self._groups.add((group,), 1, new)
        self._group_crowd.add(group, client)
        self._devices.add((client,), 1, new)
        self._apps.add((judged.app,), 1, new)
        self._app_crowd.add(judged.app, client)
        self._names.add((qname, judged.rule, judged.app), 1, new)
        if judged.by_chain:
            self._through_chain += 1
            self._chains.add((qname, judged.rule, judged.app), 1, new)
        cautions = judged.cautions
        if cautions:
            self._collateral.add((judged.rule, judged.app, judged.purpose, cautions, judged.collateral), 1, new)
            self._rule_crowd.add(f"{judged.app} {judged.rule}", client)
        if held_now is not None:
            self._settled.add((qname, held_now.order), 1, 0)

    def impact(self, top: int) -> Impact:
        """What was counted, with at most `top` rows in each listing; days are all shown."""
        of_group, of_app, of_rule = (
            crowd.sizes() for crowd in (self._group_crowd, self._app_crowd, self._rule_crowd)
        )  # fmt: skip
        crowds = (self._everyone, self._group_crowd, self._app_crowd, self._rule_crowd)
        return Impact(
            queries=self._queries,
            first=self._first,
            last=self._last,
            devices=self._everyone.sizes().get("", 0),
            all_devices=not any(crowd.is_full for crowd in crowds),
            nameless=self._nameless,
            hits=self._hits,
            new=self._new,
            settled=self._hits - self._new,
            touched=sum(1 for (client,), cell in self._devices.cells.items() if client is not None and cell[1]),
            through_chain=self._through_chain,
            spared=self._spared,
            by_day=self._days.listing(
                ROOM, lambda key, cell: DayRow(key[0], cell[2], cell[0], cell[1]), lambda key, _: (not key[0], key[0])
            ),
            by_group=self._groups.listing(
                top, lambda key, cell: GroupRow(key[0], of_group.get(key[0], 0), cell[0], cell[1])
            ),
            by_device=self._devices.listing(
                top,
                lambda key, cell: DeviceRow(client_text(key[0]), self._group_of(key[0]), cell[0], cell[1]),
                _by_address,
            ),
            by_app=self._apps.listing(top, lambda key, cell: AppRow(key[0], of_app.get(key[0], 0), cell[0], cell[1])),
            by_name=self._names.listing(top, _name_row),
            collateral=self._collateral.listing(
                top, lambda key, cell: CollateralRow(*key, of_rule.get(f"{key[1]} {key[0]}", 0), cell[0], cell[1])
            ),
            by_chain=self._chains.listing(top, _name_row),
            out_of_scope=self._outside.listing(
                top,
                lambda key, cell: SparedRow(client_text(key[0]), self._group_of(key[0]), key[1], cell[0]),
                _by_address,
            ),
            already=self._settled.listing(top, lambda key, cell: SettledRow(names.to_text(key[0]), key[1], cell[0])),
        )


def _by_address(key: tuple[bytes | None, *tuple[Hold, ...]], cell: _Cell) -> tuple[object, ...]:
    """The most new hits first, then the most hits; equals in the order of their addresses, IPv4 before IPv6."""
    client = key[0] or b""
    return -cell[1], -cell[0], len(client), client, key[1:]


def _name_row(key: tuple[bytes, str, str], cell: _Cell) -> NameRow:
    return NameRow(names.to_text(key[0]), key[1], key[2], cell[0], cell[1])


def client_text(client: bytes | None) -> str:
    """A packed address in text; empty for None."""
    return "" if client is None else str(ip_address(client))


_DAY_S = 86_400


def _day(at: float | None) -> str:
    return "" if at is None else _day_text(int(at // _DAY_S))


@lru_cache(maxsize=4096)
def _day_text(day: int) -> str:
    return datetime.fromtimestamp(day * _DAY_S, UTC).date().isoformat()
