"""The path of a query with everything behind it, built in memory: no sockets, no files, no clock but a fake one."""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import dns.flags
import dns.message
import dns.rdatatype

from resolver.engine.cache import Cache, CacheTerms, Entry
from resolver.engine.forwarder import Forwarder, ForwarderTerms, Upstream
from resolver.engine.inforce import PolicyInForce
from resolver.engine.pipeline import Pipeline, Wanted
from resolver.engine.relaying import make_shelf
from resolver.engine.special import SpecialNames
from resolver.feeds.zones import read_zone
from resolver.observe.cells import Cells, read
from resolver.observe.record import Gap, Hit, parse_all, sockaddr
from resolver.policy.additions import Documents, Exemption, LocalRule
from resolver.policy.client import Client, Credentials, Transport
from resolver.policy.compile import AppliedZone, Enforcement, PolicySettings, compile_generation
from resolver.policy.documents import (
    Action,
    App,
    Basis,
    Bilingual,
    Citation,
    Confidence,
    Domain,
    Level,
    Match,
    Mode,
    Notice,
    Order,
    Purpose,
    Scope,
    Use,
)
from resolver.policy.generation import Generation
from resolver.policy.terms import GroupEntry, Precedence, ZoneKind
from resolver.policy.zone import PolicyZone, Reach, Rule
from resolver.wire import name as names
from tests.support.clock import START_AT, FakeClock
from tests.support.upstream import FakeExchange

EVERYONE = {"everyone": ("0.0.0.0/0", "::/0")}
CELLS = 512


def app(id_: str, *domains: str) -> App:
    """An app of some names: "=name" for that name only, "name" for it and all below it."""
    return App(
        id=id_,
        names=(id_.title(),),
        vendor="Example Corp.",
        domains=tuple(
            Domain(
                name=domain.removeprefix("="),
                match=Match.EXACT if domain.startswith("=") else Match.SUFFIX,
                purpose=Purpose.CORE,
                confidence=Confidence.HIGH,
                use=Use.BLOCK,
                sources=("EX",),
            )
            for domain in domains
        ),
    )


@dataclass(frozen=True)
class Held:
    """An order, and how the configuration holds it."""

    apps: Sequence[App]
    id: str = "order-1"
    groups: Sequence[str] = ("everyone",)
    mode: Mode = Mode.ENFORCE
    action: Action = Action.NXDOMAIN
    basis: Basis = Basis.OUTSIDE_AUTHORITY
    effective: float = START_AT - 86400
    expires: float | None = None

    def document(self) -> Order:
        """The order as a document."""
        return Order(
            id=self.id,
            jurisdiction="Exampleland",
            authority="Minister of Examples",
            instrument="Direction 1",
            announced=date(2029, 12, 1).isoformat(),
            effective=_instant(self.effective),
            expires=None if self.expires is None else _instant(self.expires),
            scope=Scope(devices="all", level=Level.APP),
            basis=self.basis,
            apps=tuple(app.id for app in self.apps),
            citations=(Citation(title="Ban", publisher="Gazette", url="https://www.example.org/", read="primary"),),
            confidence=Confidence.HIGH,
            title=Bilingual(en="A ban", fr="Une interdiction"),
            notice=Notice(en="Ask.", fr="Demandez."),
        )


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def generation(
    *orders: Held,
    groups: Mapping[str, Sequence[str]] = EVERYONE,
    allowed: Sequence[str] = ("0.0.0.0/0", "::/0"),
    serial: int = 1,
    block_ttl: int = 30,
    sinkhole: Sequence[str] = ("192.0.2.80", "2001:db8::80"),
    zones: Sequence[AppliedZone] = (),
    rules: Sequence[LocalRule] = (),
    exemptions: Sequence[Exemption] = (),
    strip_ech: Sequence[str] = (),
    precedence: Precedence = Precedence.STRICTEST,
) -> Generation:
    """Compile orders, with their apps and what stands beside them, into a generation in memory."""
    documents = Documents(
        {app.id: app for order in orders for app in order.apps},
        {order.id: order.document() for order in orders},
        {one.id: one for one in exemptions},
        {one.id: one for one in rules},
    )
    settings = PolicySettings(
        allowed_networks=tuple(allowed),
        groups=tuple(GroupEntry(name, tuple(networks)) for name, networks in groups.items()),
        enforcements=tuple(Enforcement(o.id, tuple(o.groups), o.mode, o.action) for o in orders),
        block_ttl=block_ttl,
        sinkhole_ipv4=tuple(a for a in sinkhole if ":" not in a),
        sinkhole_ipv6=tuple(a for a in sinkhole if ":" in a),
        precedence=precedence,
        strip_ech=tuple(strip_ech),
    )
    octets, _ = compile_generation(documents, settings, serial=serial, at=START_AT, zones=zones)
    return Generation(memoryview(bytearray(octets)))


def rpz(text: str, origin: str = "rpz.example", **applied: Any) -> AppliedZone:
    """A Response Policy Zone by the lines of its file; names in them without a last dot are the zone's."""
    held, report = read_zone(SOA_LINES.encode() + text.encode(), origin, names.from_text(origin))
    assert not report.refused, [str(note) for note in report.notes]
    return AppliedZone(f"zone:{origin}", ZoneKind.RPZ, held, **applied)


SOA_LINES = "$TTL 77\n@ SOA ns.vendor.example. host.vendor.example. 42 3600 900 86400 33\n@ NS ns.vendor.example.\n"


def zone_of(rule: Rule, *listed: str, id_: str = "list:names", kind: ZoneKind = ZoneKind.LIST) -> AppliedZone:
    """A zone that holds some names, with all below them, to one rule."""
    held = PolicyZone()
    for name in listed:
        held.hold(names.from_text(name), Reach.SUFFIX, held.number_of(rule))
    return AppliedZone(id_, kind, held)


BAN = Held([app("chat", "chat.example", "=only.example")])
"""Forbids chat.example, all below it, and only.example alone."""


def client(
    address: str = "198.51.100.7",
    port: int = 40000,
    transport: Transport | str = Transport.UDP,
    *,
    listener: str | None = None,
    **shown: Any,
) -> Client:
    """A client by its address in text; `shown` are the fields of its credentials."""
    packed = sockaddr(address, port)
    credentials = Credentials(**shown) if shown else None
    return Client(packed[8:24] if ":" in address else packed[4:8], packed, Transport(transport), listener, credentials)


def ask(
    name: str,
    rtype: str | int = "A",
    *,
    rclass: str = "IN",
    message_id: int = 0x1234,
    edns: bool = True,
    payload: int = 1232,
    do: bool = False,
    cd: bool = False,
    rd: bool = True,
    ad: bool = False,
) -> bytes:
    """A query as clients send it."""
    query = dns.message.make_query(
        name, rtype, rclass, use_edns=0 if edns else False, want_dnssec=do, payload=payload, id=message_id
    )
    query.flags = (dns.flags.RD if rd else 0) | (dns.flags.CD if cd else 0) | (dns.flags.AD if ad else 0)
    return query.to_wire()


class Roof:
    """What the roof does for the engine: keeps tasks, and takes reports about upstreams."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, str]] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Start a task and hold it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def upstream(self, name: str, outcome: str, seconds: float | None, count: int = 1) -> None:
        """Take note of exchanges."""
        self.reports += [(name, outcome)] * count

    def upstream_up(self, name: str, up: bool) -> None:
        """Take note of an upstream's state."""
        self.reports.append((name, "up" if up else "down"))


@dataclass
class House:
    """A pipeline and what lies around it; a test reaches for whatever part it asks about."""

    clock: FakeClock
    policy: PolicyInForce
    cache: Cache
    forwarder: Forwarder
    pipeline: Pipeline
    special: SpecialNames
    exchanges: list[FakeExchange]
    roof: Roof
    octets: bytearray
    cells: Cells
    spooled: list[bytes]

    def begin(self, packet: bytes, who: Client) -> bytes | Coroutine[Any, Any, bytes | None] | None:
        """Walk the path as far as it goes without waiting, and ask what is to be asked."""
        outcome = self.pipeline.begin(packet, who)
        if not isinstance(outcome, Wanted):
            return outcome
        told: asyncio.Future[Entry | Exception] = asyncio.get_running_loop().create_future()
        if self.pipeline.ask(outcome, lambda found: None if told.done() else told.set_result(found)):
            return self._conclude(outcome, told)
        return self.pipeline.finish(outcome)

    async def _conclude(self, wanted: Wanted, told: "asyncio.Future[Entry | Exception]") -> bytes | None:
        outcome = self.pipeline.conclude(wanted, await told)
        return await self.pipeline.finish(outcome) if isinstance(outcome, Wanted) else outcome

    async def answer(self, packet: bytes, who: Client | None = None) -> bytes | None:
        """Walk the whole path."""
        outcome = self.begin(packet, who or client())
        return await outcome if isinstance(outcome, Coroutine) else outcome

    async def ask(
        self, name: str, rtype: str | int = "A", who: Client | None = None, **how: Any
    ) -> dns.message.Message:
        """Ask and read the reply."""
        octets = await self.answer(ask(name, rtype, **how), who)
        assert octets is not None
        return dns.message.from_wire(octets)

    def hits(self) -> list[Hit]:
        """What was spooled."""
        found: list[Hit | Gap] = []
        for piece in self.spooled:
            records, _, bad = parse_all(piece)
            assert bad is None
            found += records
        return [hit for hit in found if isinstance(hit, Hit)]

    def counts(self, name: str) -> dict[tuple[str, ...], int]:
        """The counters of one name by their labels."""
        return {key[1:]: count for key, count in read(self.octets).items() if key[0] == name}

    def questions(self) -> list[str]:
        """What the upstreams were asked, in no order between them."""
        return [question for exchange in self.exchanges for question in exchange.questions()]


def house(
    *exchanges: FakeExchange,
    clock: FakeClock | None = None,
    policy: Generation | None = None,
    cache: CacheTerms | None = None,
    terms: ForwarderTerms | None = None,
    trust_ad: bool = False,
    forward: Iterable[str] = (),
    ready_answers: int = 4096,
    nsid: bytes = b"node-1",
    **how: Any,
) -> House:
    """Build a house. Without a policy, `BAN` is in force; `how` are further arguments of the pipeline."""
    clock = clock or FakeClock()
    octets = bytearray(Cells.octets(CELLS))
    roof = Roof()
    answers = Cache(cache or CacheTerms(), make_shelf())
    in_force = PolicyInForce(policy or generation(BAN), clock.at(), ready_answers)
    forwarder = Forwarder(
        [Upstream(exchange, trust_ad) for exchange in exchanges],
        answers, terms or ForwarderTerms(), clock, roof, roof.spawn,
    )  # fmt: skip
    cells = Cells(octets, CELLS)
    spooled: list[bytes] = []
    special = SpecialNames(
        tuple(names.from_text(text) for text in forward), "node-1", "Interdict 1", lambda: "generation 1"
    )
    pipeline = Pipeline(
        policy=in_force,
        special=special,
        cache=answers,
        forwarder=forwarder,
        cells=cells,
        spool=lambda records, count, at: spooled.append(records),
        clock=clock,
        nsid=nsid,
        **how,
    )
    return House(clock, in_force, answers, forwarder, pipeline, special, list(exchanges), roof, octets, cells, spooled)
