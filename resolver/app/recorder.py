"""The recorder: one process that takes hits out of the spools into the evidence store, and tells Prometheus.

It is in nobody's way: nice (the supervisor sees to that), without a part in answering, and free to be slow, locked out
or dead for a while, because the spool holds what it has not stored. Every trouble with a sink or the folder ends the
same way: both are closed, and opened again after a pause that grows; positions come out of the store again, so nothing
is stored twice.

SIGTERM ends it; what is spooled is stored first. The death of its parent ends it at once. The supervisor
stops the workers before. What it knows of policy and workers comes in a small JSON file that is rewritten,
`status.json`:

    {"generation": 7, "digest": "…", "loaded_at": 1700000000.0,
     "orders": [{"id": "…", "mode": "enforce", "groups": ["…"], "spans": [[1690000000.0, null]]}],
     "lists": {"<name>": <when its file was last changed>},
     "zones": [{"id": "…", "entries": 1000, "refused": 2, "failures": 0, "fetched_at": …, "checked_at": …,
                "refresh": 21600.0}],
     "exemptions": [{"id": "…", "since": …, "until": …}],
     "workers": 2, "restarts": {"worker": 0, "recorder": 0, "feeder": 0}, "version": "…", "hot": "plain"}

Times are Unix seconds. What is missing or not as above is left out of the exposition.
"""

import gc
import json
import logging
import os
import platform
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, Final, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from resolver.app.machine import StatePaths, node_name
from resolver.config import Config
from resolver.evidence.devices import HitDevices
from resolver.evidence.store import Store, StoreError
from resolver.observe.cells import CellCounts, merge, read
from resolver.observe.metrics import Exposition, Status, ZoneGauges
from resolver.observe.spool import Chunk, SpoolReader, folder_octets

IDLE_WAIT_S: Final = 0.2
_LONGEST_BACK_OFF_S = 5.0
# A store that refuses while the process is told to stop gets this long; the hits wait in the spool for the next start.
STOP_S: Final = 20.0
_EXPIRE_EVERY_S = 60.0
_EXPIRE_ROWS = 2000
# One transaction takes about so many hits: enough to make its cost small, few enough to hold the lock for a moment
# only.
_HITS_PER_PUT = 16_384
_COLLECT_AFTER = 100_000, 20, 20  # objects, young collections, middle ones: among hits there is nothing to collect
_BEAT = ("=beat_at",)  # when a worker gave its last sign of life, in Unix seconds; it does so each second
_BEAT_S = 5.0  # one that has not for so long hangs, or is gone

# A scraper takes milliseconds. Whoever holds a connection longer, or holds many, is cut off for the next one's sake.
_CONNECTION_S = 10.0
_MAX_CONNECTIONS = 32

_CELLS_NAME = re.compile(r"cells-(\d+)")
_log = logging.getLogger("interdict.recorder")

Wait = Callable[[float], bool]


@dataclass(frozen=True, slots=True)
class RecorderSettings:
    """What the supervisor tells the recorder.

    Attributes:
        node: The name of this machine in the evidence.
        spool_folder: Where workers spool; it exists.
        cells_folder: Where the workers' cells are, files `cells-<n>`.
        sqlite: The database of hits; None for none.
        jsonl: The folder of JSON Lines files; None for none.
        keep_seconds: How long hits are kept; None for ever.
        metrics_socket: A TCP socket that listens, for `/metrics`; None for none.
        status: The JSON file that the supervisor rewrites.
        spool_limit: Octets that the spool may take.
    """

    node: str
    spool_folder: Path
    cells_folder: Path
    sqlite: Path | None
    jsonl: Path | None
    keep_seconds: float | None
    metrics_socket: socket.socket | None
    status: Path
    spool_limit: int

    @classmethod
    def of(cls, config: Config, paths: StatePaths, metrics_socket: socket.socket | None) -> Self:
        """What the configuration says."""
        return cls(
            node=node_name(config),
            spool_folder=paths.spool,
            cells_folder=paths.run,
            sqlite=paths.sqlite if config.hits.sqlite else None,
            jsonl=paths.hits if config.hits.json_lines else None,
            keep_seconds=config.hits.keep,
            metrics_socket=metrics_socket,
            status=paths.status,
            spool_limit=config.hits.spool_limit,
        )


def main(settings: RecorderSettings) -> int:
    """Run until SIGTERM; the caller is a process of its own, just forked.

    Returns:
        The exit code: 0, or 1 when hits had to be left in the spool.
    """
    parent = os.getppid()
    # The signal stays blocked and is looked for between two steps, so it interrupts none. Threads inherit the mask.
    # (Not `sigtimedwait`: after SIGSTOP and SIGCONT, CPython 3.11's reports a signal that nobody sent.)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Keys and hang-ups on a terminal reach the whole group; the supervisor says what they mean, and when.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    gc.set_threshold(*_COLLECT_AFTER)

    def wait(seconds: float) -> bool:
        end = time.monotonic() + seconds
        while signal.SIGTERM not in signal.sigpending():
            if os.getppid() != parent:
                # A new supervisor may want our addresses, and finds in the spool what we have not stored.
                os._exit(0)
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, IDLE_WAIT_S))
        return True

    recorder = Recorder(settings)
    server = None
    if settings.metrics_socket is not None:
        server = _MetricsServer(settings.metrics_socket, Exposition(recorder.cells, recorder.status))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.5}, daemon=True).start()
    try:
        return recorder.run(wait)
    finally:
        if server is not None:
            server.shutdown()
            server.server_close()


class Recorder:
    """The work without the process: drains, stores, counts. One thread runs it; any may ask for `cells` and
    `status`."""

    def __init__(self, settings: RecorderSettings) -> None:
        self._settings = settings
        self._store: Store | None = None
        self._reader: SpoolReader | None = None
        self._stored: dict[str, int] = {}
        self._devices = None if settings.sqlite is None else HitDevices(settings.sqlite)
        self._errors = 0
        self._torn = 0
        self._corrupt = 0
        self._unreadable = 0
        self._expire_at = 0.0

    def run(self, wait: Wait, patience_s: float = STOP_S) -> int:
        """Drain until told to stop, and then until nothing is left.

        Args:
            wait: Waits so many seconds, or less; returns whether it is time to stop.
            patience_s: For how long a store that refuses is asked again after that.

        Returns:
            0, or 1 when hits had to be left in the spool.
        """
        pause = back_off = IDLE_WAIT_S
        give_up_at: float | None = None
        while True:
            if wait(pause) and give_up_at is None:
                give_up_at = time.monotonic() + patience_s
            try:
                moved = self.drain()
            except (StoreError, OSError) as error:
                self.close()
                self._errors += 1
                if back_off == IDLE_WAIT_S:
                    _log.warning("%s; trying again, hits wait in the spool", error)
                pause = back_off
                back_off = min(back_off * 2, _LONGEST_BACK_OFF_S)
                if give_up_at is not None and time.monotonic() >= give_up_at:
                    _log.error("stopping with hits left in the spool: %s", error)
                    return 1
                continue
            if back_off != IDLE_WAIT_S:
                _log.warning("hits are stored again")
                back_off = IDLE_WAIT_S
            # Who stored few is not behind: hits that come meanwhile share a transaction, and what it costs.
            pause = 0.0 if moved >= _HITS_PER_PUT else IDLE_WAIT_S
            if give_up_at is not None and (moved == 0 or time.monotonic() >= give_up_at):
                self.close()
                return 0 if moved == 0 else 1

    def drain(self) -> int:
        """Store what is spooled now, remove what is done with; return how many records were stored.

        Raises:
            StoreError: The store refused; what it had taken before is stored.
            OSError: The spool folder cannot be read, or another process reads it (SpoolBusy).
        """
        store, reader = self._open()
        torn, corrupt, unreadable = reader.torn, reader.corrupt, reader.unreadable
        try:
            moved = self._store_chunks(store, reader)
        finally:
            self._torn += reader.torn - torn
            self._corrupt += reader.corrupt - corrupt
            self._unreadable += reader.unreadable - unreadable
        finished = reader.finished()
        if finished:
            store.sync()
            reader.remove(finished)
            store.forget(finished)
        self._expire(store)
        return moved

    def close(self) -> None:
        """Let go of the store and of the spool."""
        if self._store is not None:
            self._store.close()
        if self._reader is not None:
            self._reader.close()
        self._store = self._reader = None

    def cells(self) -> CellCounts:
        """The workers' cells, merged; gauges only of workers that run now."""
        workers = _count(_json_of(self._settings.status).get("workers"))
        everybody: dict[int, CellCounts] = {}
        with suppress(OSError):
            for path in self._settings.cells_folder.iterdir():
                name = _CELLS_NAME.fullmatch(path.name)
                if name is not None:
                    everybody[int(name[1])] = read(path.read_bytes())
        at = time.time()
        running = [_with_life(cells, at) for worker, cells in everybody.items() if not workers or worker < workers]
        return merge(everybody.values(), running)

    def status(self) -> Status:
        """What is exposed besides cells: the supervisor's file, the store and the spool."""
        told, at = _json_of(self._settings.status), time.time()
        restarts = told.get("restarts")
        lists, orders, reload = told.get("lists"), told.get("orders"), told.get("last_reload")
        return Status(
            generation=_count(told.get("generation")),
            digest=str(told.get("digest") or ""),
            loaded_at=_number(told.get("loaded_at")),
            orders_in_force=_orders_in_force(_entries(orders), at),
            list_ages={
                name: max(at - changed_at, 0.0)
                for name, changed_at in (lists.items() if isinstance(lists, dict) else ())
                if _is_number(changed_at)
            },
            devices={} if self._devices is None else self._devices.count(at),
            stored=dict(self._stored),
            store_errors=self._errors,
            spool_octets=folder_octets(self._settings.spool_folder),
            spool_limit=self._settings.spool_limit,
            spool_damage={"torn": self._torn, "corrupt": self._corrupt, "unreadable": self._unreadable},
            workers=_count(told.get("workers")),
            restarts={
                str(name): _count(count) for name, count in (restarts.items() if isinstance(restarts, dict) else ())
            },
            zones=dict(_zones(told.get("zones"))),
            exemptions=dict(_exemptions(told.get("exemptions"), at)),
            reload_ok=bool(reload["ok"]) if isinstance(reload, dict) and "ok" in reload else None,
            reload_at=_number(reload.get("at")) if isinstance(reload, dict) else 0.0,
            version=str(told.get("version") or ""),
            hot=str(told.get("hot") or ""),
            python=platform.python_version(),
        )

    def _open(self) -> tuple[Store, SpoolReader]:
        if self._store is not None and self._reader is not None:
            return self._store, self._reader
        settings = self._settings
        store = Store(settings.node, settings.sqlite, settings.jsonl)
        try:
            positions = store.positions()
            reader = SpoolReader(settings.spool_folder, positions)
        except (StoreError, OSError):
            store.close()
            raise
        self._store, self._reader = store, reader
        self._stored = store.stored()
        # A name is never used twice, so the position of a segment that is gone is of no use to anybody.
        store.forget(set(positions).difference(reader.segments()))
        return store, reader

    def _store_chunks(self, store: Store, reader: SpoolReader) -> int:
        moved = waiting = 0
        batch: list[Chunk] = []
        for chunk in reader.chunks():
            batch.append(chunk)
            waiting += len(chunk.records)
            if waiting >= _HITS_PER_PUT:
                self._put(store, reader, batch)
                moved += waiting
                batch, waiting = [], 0
        if batch:
            self._put(store, reader, batch)
        return moved + waiting

    def _put(self, store: Store, reader: SpoolReader, batch: list[Chunk]) -> None:
        store.put(batch)
        for chunk in batch:
            reader.commit(chunk)
        self._stored = store.stored()

    def _expire(self, store: Store) -> None:
        keep_s = self._settings.keep_seconds
        if keep_s is None or time.monotonic() < self._expire_at:
            return
        gone = store.expire(time.time() - keep_s, _EXPIRE_ROWS)
        # A step a pass while there is more: hits that arrive meanwhile wait for one step only.
        self._expire_at = time.monotonic() + (0.0 if gone >= _EXPIRE_ROWS else _EXPIRE_EVERY_S)


class _MetricsServer(ThreadingMixIn, WSGIServer):
    """HTTP for scrapers on a socket that listens already: a thread for each, a bound on their number and their time."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listening: socket.socket, exposition: Exposition) -> None:
        super().__init__(("127.0.0.1", 0), _MetricsHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        # What server_bind would have asked the resolver for; the exposition needs neither.
        self.server_name, self.server_port = "localhost", 0
        self.setup_environ()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(exposition)
        self.set_app(_application(make_wsgi_app(registry)))
        self._connections: dict[socket.socket, float] = {}
        self._connections_lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._connections_lock:
            if len(self._connections) >= _MAX_CONNECTIONS:
                _cut_off(next(iter(self._connections)))
            self._connections[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._connections_lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        latest = time.monotonic() - _CONNECTION_S
        with self._connections_lock:
            for connection, since in self._connections.items():
                if since < latest:
                    _cut_off(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: it is a scraper that went away or was cut off."""


class _MetricsHandler(WSGIRequestHandler):
    timeout = _CONNECTION_S

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a line for every scrape tells nobody anything."""


def _cut_off(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _application(metrics: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """GET and HEAD of `/metrics`, and a page that says where that is."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        status, headers = "200 OK", [("Content-Type", "text/plain; charset=utf-8")]
        if method not in ("GET", "HEAD"):
            status, body = "405 Method Not Allowed", b"write GET /metrics\n"
            headers.append(("Allow", "GET, HEAD"))
        elif path == "/metrics":
            said: list[tuple[str, list[tuple[str, str]]]] = []
            get = {**environ, "REQUEST_METHOD": "GET"}
            body = b"".join(metrics(get, lambda status, headers: said.append((status, headers))))
            status, headers = said[0]
        elif path == "/":
            headers = [("Content-Type", "text/html; charset=utf-8")]
            body = b'<!doctype html><title>Interdict</title><p><a href="/metrics">Metrics</a>\n'
        else:
            status, body = "404 Not Found", b"metrics are at /metrics\n"
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [] if method == "HEAD" else [body]

    return application


def _with_life(cells: CellCounts, at: float) -> CellCounts:
    """The cells of a worker; in place of when it gave its last sign of life, whether that was of late."""
    is_ready = at - cells.get(_BEAT, 0) < _BEAT_S
    return {**{key: count for key, count in cells.items() if key != _BEAT}, ("=workers_ready",): int(is_ready)}


def _json_of(path: Path) -> dict[str, object]:
    """The object in a JSON file; empty while it is missing or something else."""
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def _entries(told: object) -> Iterable[dict[str, Any]]:
    return (entry for entry in told if isinstance(entry, dict) and "id" in entry) if isinstance(told, list) else ()


def _zones(told: object) -> Iterable[tuple[str, ZoneGauges]]:
    for entry in _entries(told):
        fetched_at, checked_at, refresh = (
            _number(entry.get(key)) if _is_number(entry.get(key)) else None
            for key in ("fetched_at", "checked_at", "refresh")
        )
        entries, refused, failures = (_count(entry.get(key)) for key in ("entries", "refused", "failures"))
        yield str(entry["id"]), ZoneGauges(entries, refused, failures, fetched_at, checked_at, refresh)


def _exemptions(told: object, at: float) -> Iterable[tuple[str, tuple[bool, float]]]:
    for entry in _entries(told):
        since, until = _number(entry.get("since")), _number(entry.get("until"))
        yield str(entry["id"]), (since <= at < until, until)


def _orders_in_force(orders: Iterable[dict[str, Any]], at: float) -> dict[tuple[str, str, str], bool]:
    """By order, group and mode; of several lines for one group, any that acts."""
    found: dict[tuple[str, str, str], bool] = {}
    for order in orders:
        groups, spans = order.get("groups"), order.get("spans")
        holds = any(_holds(span, at) for span in spans) if isinstance(spans, list) else False
        for group in groups if isinstance(groups, list) else ():
            key = str(order["id"]), str(group), str(order.get("mode", ""))
            found[key] = found.get(key, False) or holds
    return found


def _holds(span: object, at: float) -> bool:
    """Whether a moment lies in [begin, end or null]."""
    if not isinstance(span, list) or len(span) != 2 or not _is_number(span[0]):
        return False
    return _number(span[0]) <= at and not (_is_number(span[1]) and _number(span[1]) <= at)
