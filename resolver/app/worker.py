"""One worker: a process that answers. Everything it needs is put together here by hand, and torn down again.

It is forked by the supervisor with its sockets open, maps the generation file it is told to, and speaks with the
supervisor over one socket: a line of JSON each way (`resolver/app/control.py`).
"""

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import mmap
import os
import signal
import socket
import sys
import time
from bisect import bisect_left
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import uvloop

from resolver import __version__
from resolver.app.control import NOTIFY_SOCKET_NAME, pass_on_notify
from resolver.app.listening import Certificate, Listening, discovery
from resolver.app.machine import (
    StatePaths,
    UpstreamAddress,
    identity_terms,
    node_name,
    nsid,
    upstream_addresses,
)
from resolver.app.recognition import REGISTER_NAME, RegisterFile
from resolver.app.seen import LastSeen
from resolver.app.upstreams import make_exchange
from resolver.app.windows import Windows, WindowTerms
from resolver.config import Config
from resolver.engine.cache import Cache, CacheTerms, Entry
from resolver.engine.covered import covered_page
from resolver.engine.discovery import Discovery
from resolver.engine.forwarder import Forwarder, ForwarderTerms, Upstream
from resolver.engine.inforce import NO_DEVICES, IdentityTerms, PolicyInForce
from resolver.engine.pipeline import Pipeline, Wanted
from resolver.engine.relaying import RelayedQuestions, make_shelf
from resolver.engine.special import SpecialNames
from resolver.hot._batch_cy import ViewMemo
from resolver.hot._relay_cy import Outlet
from resolver.observe.cells import ANSWER_BUCKETS, LATENCY_BUCKETS, Cells
from resolver.observe.spool import Spool
from resolver.policy.client import Client, Credentials, Transport
from resolver.policy.generation import Generation, GenerationError
from resolver.policy.register import RegisterError
from resolver.transport.udp import Later
from resolver.wire import name as names
from resolver.wire.codes import Ede, Rcode
from resolver.wire.compose import error_answer, write_reply
from resolver.wire.message import ExtendedError, WireError, read_query

if TYPE_CHECKING:
    from resolver.transport.desk import Page

DRAIN_SECONDS = 5.0  # for what is in flight when the worker is told to stop
GAUGE_SECONDS = 1.0
ERROR_REPORT_SECONDS = 1.0
MAX_NOTIFIES = 8  # messages of this kind that wait for the feeder at one time; what comes beyond is answered NOTIMP
NOTIFY_SECONDS = 3.0
REGISTER_SECONDS = 0.25  # between two looks at the register: a device that is revoked is refused within a second
COVERED = "covered"  # the path of the page that says whether a device is covered
MAX_WAITING = 8192  # queries of this worker that wait for an upstream at one time

_COLLECT_AFTER = 20_000, 50, 50  # objects, young collections, middle ones (Python's own: 700, 10, 10)
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_QR_AND_OPCODE = 0xF8  # of the third octet
_NOTIFY = 4 << 3  # the opcode of NOTIFY, in a query (RFC 1996 §4.5)
_log = logging.getLogger("interdict.worker")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What the supervisor tells a worker.

    Attributes:
        number: Counts from 0; a worker that is started again keeps its number, and so its counters.
        sockets: Bound or listening, by what is spoken there.
        certificate: Of the encrypted ones.
        channel: To the supervisor.
        generation: The file to put in force.
        run: The folder of the feeder's socket, and of the register of devices.
        devices: The folder that says when a device was last seen.
        cells: The file of shared counters.
        spool: The folder hits go to.
        spool_limit: Octets of this worker's share.
        upstreams: Where to forward.
        upstream_sockets: UDP sockets per upstream.
        forwarder: Limits of forwarding.
        cache: Terms of the cache.
        ready_answers: The hot memo's size.
        windows: Limits of the transports.
        identity: How devices are told apart.
        discovery: What clients are told of the encrypted transports.
        forward: Special-use names that are forwarded nevertheless, wire form.
        node: This node's name.
        nsid: What NSID says.
    """

    number: int
    sockets: Mapping[Listening, socket.socket]
    certificate: Certificate | None
    channel: socket.socket
    generation: Path
    run: Path
    devices: Path
    cells: Path
    spool: Path
    spool_limit: int
    upstreams: tuple[UpstreamAddress, ...]
    upstream_sockets: int
    forwarder: ForwarderTerms
    cache: CacheTerms
    ready_answers: int
    windows: WindowTerms
    identity: IdentityTerms
    discovery: Discovery | None
    forward: tuple[bytes, ...]
    node: str
    nsid: bytes

    @classmethod
    def of(
        cls,
        config: Config,
        paths: StatePaths,
        number: int,
        workers: int,
        sockets: Mapping[Listening, socket.socket],
        certificate: Certificate | None,
        channel: socket.socket,
        generation: Path,
    ) -> Self:
        """What the configuration says, for worker `number` of `workers`."""
        cache, forwarder = config.cache, config.forwarder
        return cls(
            number=number,
            sockets=sockets,
            certificate=certificate,
            channel=channel,
            generation=generation,
            run=paths.run,
            devices=paths.devices,
            cells=paths.run / f"cells-{number}",
            spool=paths.spool,
            spool_limit=max(1 << 20, config.hits.spool_limit // workers),
            upstreams=upstream_addresses(config),
            upstream_sockets=forwarder.sockets,
            forwarder=ForwarderTerms(forwarder.try_timeout, forwarder.deadline),
            cache=CacheTerms(
                size=cache.size,
                min_ttl=cache.min_ttl,
                max_ttl=cache.max_ttl,
                max_negative_ttl=cache.max_negative_ttl,
                max_stale=cache.max_stale,
                stale_answer_ttl=int(cache.stale_answer_ttl),
            ),
            ready_answers=cache.ready_answers,
            windows=WindowTerms.of(config),
            identity=identity_terms(config),
            discovery=discovery(config),
            forward=tuple(names.from_text(text) for text in config.special_use.forward),
            node=node_name(config),
            nsid=nsid(config),
        )


class SystemClock:
    """The real clocks: `now` in monotonic seconds, `at` in Unix seconds."""

    # Asked several times a query, so there is nothing between.
    now = staticmethod(time.monotonic)
    at = staticmethod(time.time)


def name_process(name: str) -> None:
    """Give the process a name for `ps` and `top`, and let it end with its parent."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def open_generation(path: Path) -> Generation:
    """Map a generation file; all who map it share one copy in memory.

    Raises:
        OSError: It can not be opened.
        GenerationError: It is not a generation.
    """
    with path.open("rb") as file:
        octets = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return Generation(memoryview(octets))


def map_cells(path: Path) -> Cells:
    """Map a file of shared counters, made if need be."""
    octets = Cells.octets()
    with path.open("a+b") as file:
        if file.seek(0, os.SEEK_END) != octets:
            file.truncate(0)
            file.truncate(octets)
        return Cells(memoryview(mmap.mmap(file.fileno(), octets)))


def main(settings: WorkerSettings) -> int:
    """Answer until told to stop. The process was just forked; the return value is its exit code."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    with contextlib.closing(loop):
        worker = Worker(settings, loop)
        # Answers that are kept are many and in no cycles: to look for some among them would take a quarter of the time
        # that a forwarded question takes. What was made until now stays, and is not looked at again.
        gc.freeze()
        gc.set_threshold(*_COLLECT_AFTER)
        return loop.run_until_complete(worker.run())


class Worker:
    """The house in one process: it is the `Answerer` of its transports."""

    def __init__(self, settings: WorkerSettings, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self._loop = loop
        self._clock = SystemClock()
        self._cells = map_cells(settings.cells)
        self._spool = Spool(settings.spool, settings.number, settings.spool_limit)
        self._spooled_cell = self._cells.index("hits_spooled")
        self._lost_cell = self._cells.index("hits_lost")
        self._errors_cell = self._cells.index("internal_errors")
        self._next_report = 0.0
        self._told = (0, 0)
        self._answer_cells: dict[Transport, list[int]] = {}  # of each bucket, and of the sum
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waiting = 0
        self._notifies = 0
        self._parent = os.getppid()
        self._up: dict[str, bool] = {}
        self._upstream_cells: dict[tuple[str, str, int], tuple[int, int, int]] = {}
        self._stopping = asyncio.Event()
        at = self._clock.at()
        self._policy = PolicyInForce(
            open_generation(settings.generation), at, settings.ready_answers, settings.identity
        )
        self._register = RegisterFile(settings.run / REGISTER_NAME)
        self._seen = LastSeen(settings.devices, settings.number)
        self._loaded_at = at
        self._exchanges = [make_exchange(loop, upstream, settings.upstream_sockets) for upstream in settings.upstreams]
        upstreams = [
            Upstream(exchange, u.trust_ad) for exchange, u in zip(self._exchanges, settings.upstreams, strict=True)
        ]
        self._cache = Cache(settings.cache, make_shelf())
        self._forwarder = Forwarder(upstreams, self._cache, settings.forwarder, self._clock, self, self._spawn)
        special = SpecialNames(
            settings.forward,
            settings.node,
            f"Interdict {__version__}",
            lambda: f"generation {self._policy.generation.label}",
            settings.discovery,
        )
        self._pipeline = Pipeline(
            policy=self._policy,
            special=special,
            cache=self._cache,
            forwarder=self._forwarder,
            cells=self._cells,
            spool=self.hits,
            clock=self._clock,
            nsid=settings.nsid,
            node=settings.node,
            keepalive=settings.windows.keepalive,
            seen=self._seen.note,
        )
        self._relayed = RelayedQuestions(
            policy=self._policy,
            special=special,
            cache=self._cache,
            forwarder=self._forwarder,
            clock=self._clock,
            counts=self._cells.counts,
            miss_cell=self._cells.index("cache", "miss"),
            cells_of=self._pipeline.cells_of,
            answered=partial(self.answered, Transport.UDP),
            most_waiting=MAX_WAITING,
        )
        self._windows = Windows(
            loop, self, settings.sockets, settings.windows, settings.certificate, self._clock.now, self._cells,
            self.page,
        )  # fmt: skip

    async def run(self) -> int:
        """Open the windows, serve, drain, close."""
        loop = self._loop
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # keys reach the whole group; the supervisor decides
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        for exchange in self._exchanges:
            self.upstream_up(exchange.name, True)
        self._look_at_register()
        await self._windows.open()
        self._spawn(self._obey())
        self._spawn(self._gauge())
        self._spawn(self._watch_register())
        await self._stopping.wait()
        self._windows.shut()
        # A supervisor that was killed waits for nobody, and a new one may want our addresses: then there is no drain.
        patience = DRAIN_SECONDS if os.getppid() == self._parent else 0.0
        end = self._clock.now() + patience
        streams = loop.create_task(self._windows.close(patience + 1.0))  # it ends as soon as nothing is in flight
        while (self._waiting or self._relayed) and self._clock.now() < end:
            await asyncio.sleep(0.02)
        self._forwarder.close()
        for task in list(self._tasks):
            task.cancel()  # who still waits gets SERVFAIL
        await streams
        for exchange in self._exchanges:
            exchange.close()
        self._spool.close(self._clock.at())
        self._seen.close()
        return 0

    # ---- what the transports ask -----------------------------------------------------------------------------------

    def batch(self, listener: str | None) -> tuple[dict[bytes, ViewMemo], float, float]:
        """The memos and the time; an order whose moment has come begins here, before the batch is answered."""
        at = time.time()
        self._policy.turn(at)
        return self._policy.sources_of(listener), time.monotonic(), at

    def hits(self, records: bytes, count: int, at: float) -> None:
        """Append hit records to the spool, and keep the counters of it."""
        spool = self._spool
        spool.append(records, count, at)
        counts = self._cells.counts
        spooled, lost = self._told
        counts[self._spooled_cell] += spool.spooled - spooled
        counts[self._lost_cell] += spool.lost - lost
        self._told = spool.spooled, spool.lost

    def relay(self, outlet: Outlet, passed: list[int], sources: dict[bytes, ViewMemo], now: float) -> list[int]:
        """Forward what can be forwarded from the batch; the slots of what can not."""
        if self._waiting + len(self._relayed) >= MAX_WAITING:
            return passed
        try:
            return self._relayed.offer(outlet, passed, sources, now)
        except Exception:
            self._report_error()
            return []

    def learned(self, count: int) -> None:
        """Keep the memos within their bound, all views together."""
        self._policy.learned(count)

    def answer(self, packet: bytes, client: Client, later: Later, begun: float | None = None) -> bytes | None:
        """Walk the path; no error of ours leaves here as an exception."""
        found = self._windows.behind_proxy(packet, client)
        if found is None:
            self._cells.counts[self._cells.index("dropped", client.transport, "no proxy header")] += 1
            later(None)
            return None
        packet, client = found
        begun = time.monotonic() if begun is None else begun
        if len(packet) > 2 and packet[2] & _QR_AND_OPCODE == _NOTIFY and self._has_feeder():
            self._notifies += 1
            self._spawn(self._pass_on(packet, client.address, later))
            return None
        try:
            outcome = self._pipeline.begin(packet, client)
            if isinstance(outcome, Wanted) and self._waiting + len(self._relayed) >= MAX_WAITING:
                outcome = self._pipeline.busy(outcome)
        except Exception:
            self._report_error()
            outcome = _last_resort(packet, client)
        if isinstance(outcome, bytes):
            if client.transport is not Transport.UDP:  # those are counted a batch at a time
                self.answered(client.transport, 1, begun)
            return outcome
        if outcome is None:
            later(None)
        else:
            self._waiting += 1
            if not self._pipeline.ask(outcome, partial(self._found, outcome, later, begun)):
                self._spawn(self._finish(outcome, later, begun))
        return None

    def answered(self, transport: Transport, count: int, begun: float) -> None:
        """Count so many answers, given now to what was read at `begun` (monotonic seconds)."""
        seconds = time.monotonic() - begun
        held = self._answer_cells.get(transport)
        if held is None:
            index = self._cells.index
            held = [index("answer_seconds_bucket", transport, bound) for bound in (*map(str, ANSWER_BUCKETS), "+Inf")]
            self._answer_cells[transport] = held = [*held, index("answer_seconds_sum_us", transport)]
        counts = self._cells.counts
        counts[held[bisect_left(ANSWER_BUCKETS, seconds)]] += count
        counts[held[-1]] += int(seconds * 1e6) * count

    def _found(self, wanted: Wanted, later: Later, begun: float, found: Entry | Exception) -> None:
        """Answer with what came of a question that was asked without a task."""
        reply: bytes | None
        try:
            outcome = self._pipeline.conclude(wanted, found)
            if isinstance(outcome, Wanted):
                self._spawn(self._finish(outcome, later, begun))
                return
            reply = outcome
        except Exception:
            self._report_error()
            reply = _last_resort(wanted.packet, wanted.client)
        self._waiting -= 1
        later(reply)
        if reply is not None:
            self.answered(wanted.client.transport, 1, begun)

    def page(self, path: str, client: Client) -> "Page | None":
        """The page that says whether a device is covered; its token may follow the path."""
        name, _, token = path.removeprefix("/").partition("/")
        if name != COVERED:
            return None
        if token:
            client = replace(client, credentials=replace(client.credentials or Credentials(), path_token=token))
        return b"text/html; charset=utf-8", covered_page(self._pipeline.coverage(client))

    def _has_feeder(self) -> bool:
        """Whether a NOTIFY (RFC 1996 §3) is somebody's business here, and not too many wait for an answer."""
        return self._notifies < MAX_NOTIFIES and (self._settings.run / NOTIFY_SOCKET_NAME).exists()

    async def _pass_on(self, packet: bytes, address: bytes, later: Later) -> None:
        """Have a NOTIFY answered by the feeder; while that is started again there is silence, and it is repeated."""
        reply: bytes | None = None
        try:
            reply = await pass_on_notify(self._settings.run, packet, str(ip_address(address)), NOTIFY_SECONDS)
        except OSError:
            return
        finally:
            self._notifies -= 1
            later(reply)

    async def _finish(self, wanted: Wanted, later: Later, begun: float) -> None:
        reply: bytes | None = None
        try:
            reply = await self._pipeline.finish(wanted)
        except asyncio.CancelledError:
            reply = _last_resort(wanted.packet, wanted.client)
            raise
        except Exception:
            self._report_error()
            reply = _last_resort(wanted.packet, wanted.client)
        finally:
            self._waiting -= 1
            later(reply)
            if reply is not None:
                self.answered(wanted.client.transport, 1, begun)

    def _report_error(self) -> None:
        """Count an error of ours; log one a second at most, since whoever can cause one can cause a million."""
        self._cells.counts[self._errors_cell] += 1
        now = self._clock.now()
        if now >= self._next_report:
            self._next_report = now + ERROR_REPORT_SECONDS
            _log.exception("a query could not be answered (reported once a second at most)")

    # ---- what the forwarder reports --------------------------------------------------------------------------------

    def upstream(self, name: str, outcome: str, seconds: float | None, count: int = 1) -> None:
        """Count so many exchanges with an upstream."""
        counts = self._cells.counts
        bucket = -1 if seconds is None else bisect_left(LATENCY_BUCKETS, seconds)
        cells = self._upstream_cells.get((name, outcome, bucket))
        if cells is None:
            cells = self._upstream_cells[name, outcome, bucket] = self._find_upstream_cells(name, outcome, bucket)
        counts[cells[0]] += count
        if seconds is not None:
            counts[cells[1]] += count
            counts[cells[2]] += int(seconds * 1e6) * count

    def _find_upstream_cells(self, name: str, outcome: str, bucket: int) -> tuple[int, int, int]:
        index = self._cells.index
        counter = index("upstream", name, outcome)
        if bucket < 0:
            return counter, counter, counter
        bound = str(LATENCY_BUCKETS[bucket]) if bucket < len(LATENCY_BUCKETS) else "+Inf"
        return counter, index("upstream_seconds_bucket", name, bound), index("upstream_seconds_sum_us", name)

    def upstream_up(self, name: str, up: bool) -> None:
        """Note whether an upstream is in use; a change is told in the log, once."""
        known = self._up.get(name)
        if known is up:
            return
        self._cells.counts[self._cells.index("=upstream_up", name)] = int(up)
        self._up[name] = up
        if known is None and up:
            return
        if up:
            _log.warning("upstream %s answers again", name)
        elif any(self._up.get(exchange.name, True) for exchange in self._exchanges):
            _log.warning("upstream %s does not answer; the others are asked", name)
        else:
            _log.warning("no upstream answers; only banned, local and cached names are answered")

    # ---- tasks -----------------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _gauge(self) -> None:
        cells = self._cells
        cells.counts[cells.index("=generation_loaded_at")] = int(self._loaded_at)
        while True:
            counts = cells.counts
            counts[cells.index("=cache_octets")] = self._cache.octets
            counts[cells.index("=cache_entries")] = len(self._cache)
            self._windows.gauge()
            for exchange in self._exchanges:
                counts[cells.index("replies_ignored", exchange.name)] = exchange.ignored
            counts[cells.index("=generation")] = self._policy.generation.serial
            counts[cells.index("=beat_at")] = int(self._clock.at())
            self._windows.renew()
            await asyncio.sleep(GAUGE_SECONDS)

    async def _watch_register(self) -> None:
        while True:
            await asyncio.sleep(REGISTER_SECONDS)
            self._look_at_register()

    def _look_at_register(self) -> None:
        """Tell devices apart by the register that lies there now. One that can not be read knows nobody."""
        try:
            register = self._register.renewed()
        except (OSError, RegisterError) as error:
            _log.error("the register of devices can not be read, so nobody is recognised: %s", error)
            register = NO_DEVICES
        if register is not None:
            self._policy.enrol(register)

    # ---- the supervisor's word -------------------------------------------------------------------------------------

    async def _obey(self) -> None:
        """Say that we are ready, and do what the supervisor says; when it is gone, stop."""
        channel = self._settings.channel
        channel.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=channel)
        _say(writer, {"ready": True, "generation": self._policy.generation.serial})
        while line := await reader.readline():
            _say(writer, self._put_in_force(Path(json.loads(line)["generation"])))
        self._stopping.set()

    def _put_in_force(self, path: Path) -> dict[str, object]:
        try:
            generation = open_generation(path)
        except (OSError, GenerationError) as error:
            return {"error": f"{path.name}: {error}", "generation": self._policy.generation.serial}
        at = self._clock.at()
        self._policy.swap(generation, at)
        self._cells.counts[self._cells.index("=generation_loaded_at")] = int(at)
        self._cells.counts[self._cells.index("=generation")] = generation.serial
        return {"generation": generation.serial}


def _say(writer: asyncio.StreamWriter, words: dict[str, object]) -> None:
    writer.write(json.dumps(words).encode() + b"\n")


def _last_resort(packet: bytes, client: Client) -> bytes | None:
    """SERVFAIL for a query that something else went wrong with; silence for what is no query."""
    try:
        query = read_query(packet)
    except WireError:
        return None
    answer = error_answer(Rcode.SERVFAIL, ExtendedError(Ede.OTHER, "internal error"))
    return write_reply(query, answer, over_udp=client.over_udp, encrypted=client.transport.is_encrypted)


def exit_process(code: int) -> None:
    """End a forked process without running what belongs to its parent."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
