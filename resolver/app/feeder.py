"""The feeder: a process that keeps last good copies of the lists and zones that somebody else keeps.

It fetches and transfers on schedule, at once when a primary's NOTIFY says so or on SIGUSR1, and asks the supervisor to
have the policy compiled again when a copy changed. Nothing it does touches the policy in force: a source that is slow,
gone or hostile costs this process time, and nobody an answer.

Workers hand NOTIFY messages over by a unix socket, one to a connection: a line of JSON each way.
"""

import asyncio
import contextlib
import json
import logging
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from resolver.app import control
from resolver.app.sources import count_entries, download_terms, transfer_terms
from resolver.config import PolicyZone
from resolver.feeds import download, transfer
from resolver.feeds.copies import FeedError, list_path, read_copy
from resolver.feeds.notify import answer_notify

RETRY_S = 60.0  # after what should not have happened
RECOMPILE_S = 900.0  # for the supervisor to say how a compile went
_log = logging.getLogger("interdict.feeder")


@dataclass(frozen=True, slots=True)
class Attempt:
    """How an attempt to bring a copy up to date went."""

    changed: bool
    error: str | None
    next_at: float  # Unix seconds


def main(zones: tuple[PolicyZone, ...], feeds: Path, run: Path) -> int:
    """Keep copies until told to stop. The process was just forked; the return value is its exit code.

    Args:
        zones: What to keep.
        feeds: The folder of copies.
        run: The folder of the supervisor's control socket.
    """
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # at INFO it writes addresses in full, tokens included
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    # Threads that wait for a source end with the process: what they write appears whole or not at all.
    with contextlib.closing(loop):
        loop.run_until_complete(Feeder(zones, feeds, run).run())
    return 0


class Feeder:
    """One task a zone, and an ear for NOTIFY."""

    def __init__(self, zones: tuple[PolicyZone, ...], feeds: Path, run: Path) -> None:
        self._zones = {zone.name: zone for zone in zones}
        self._feeds = feeds
        self._run = run
        self._wanted = {zone.name: asyncio.Event() for zone in zones}
        self._failing: dict[str, str] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Work until SIGTERM."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        loop.add_signal_handler(signal.SIGUSR1, self._want_all)
        for number in (signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, lambda: None)  # keys reach the whole group; the supervisor decides
        with control.short_path(self._run, control.NOTIFY_SOCKET_NAME) as path:
            Path(path).unlink(missing_ok=True)
            server = await asyncio.start_unix_server(self._on_notify, path, limit=control.MAX_LINE_OCTETS)
        tasks = [loop.create_task(self._keep(zone)) for zone in self._zones.values()]
        await self._stopping.wait()
        for task in tasks:
            task.cancel()
        server.close()

    def _want_all(self) -> None:
        for wanted in self._wanted.values():
            wanted.set()

    async def _keep(self, zone: PolicyZone) -> None:
        """Bring one copy up to date again and again."""
        due = self._first_due(zone)
        owed = self._is_untaken(zone)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - time.time())):
                    await self._wanted[zone.name].wait()
            self._wanted[zone.name].clear()
            try:
                attempt = await asyncio.to_thread(self._attempt, zone)
            except Exception:
                _log.exception("zone %s could not be looked after; it is tried again in %.0f s", zone.name, RETRY_S)
                attempt = Attempt(False, "internal error; see the log", time.time() + RETRY_S)
            due = attempt.next_at
            self._tell(zone, attempt)
            owed = owed or attempt.changed
            if await asyncio.to_thread(self._report, "recompile" if owed else "feeds"):
                owed = False
            elif owed:
                due = min(due, time.time() + RECOMPILE_S)

    def _is_untaken(self, zone: PolicyZone) -> bool:
        """Whether the copy is newer than every policy: then a feeder before this one died before it could tell."""
        compiled = [file.stat().st_mtime for file in self._run.parent.glob("generations/*.generation")]
        with contextlib.suppress(OSError, FeedError):
            return list_path(self._feeds, zone.name).stat().st_mtime > max(compiled, default=0.0)
        return False

    def _first_due(self, zone: PolicyZone) -> float:
        at = time.time()
        if zone.url is None:
            return at  # asking for a serial costs little, and tells whether the copy is the primary's
        with contextlib.suppress(FeedError):
            return download.due_at(download_terms(zone), read_copy(self._feeds, zone.name).state, at)
        return at

    def _attempt(self, zone: PolicyZone) -> Attempt:
        at = time.time()
        try:
            if zone.url is not None:
                fetched = download.fetch(
                    download_terms(zone),
                    self._feeds,
                    at,
                    lambda octets: count_entries(zone, octets),
                    jitter=random.random(),
                )
                return Attempt(fetched.turn is download.Turn.CHANGED, fetched.state.error, fetched.next_at)
            moved = transfer.refresh(transfer_terms(zone), self._feeds, at)
            return Attempt(moved.change is transfer.Change.REPLACED, moved.error, moved.next_at)
        except FeedError as error:
            return Attempt(False, str(error), at + RETRY_S)

    def _tell(self, zone: PolicyZone, attempt: Attempt) -> None:
        """Log what changed: a new copy, a first failure, another failure than before, and the end of failing."""
        before = self._failing.pop(zone.name, None)
        if attempt.error is not None:
            self._failing[zone.name] = attempt.error
            if attempt.error != before:
                _log.warning("zone %s: %s; the last good copy stays", zone.name, attempt.error)
        elif attempt.changed:
            _log.info("zone %s has a new copy", zone.name)
        elif before is not None:
            _log.info("zone %s can be fetched again; its copy is up to date", zone.name)

    def _report(self, verb: str) -> bool:
        """Tell the supervisor; whether it did what was asked. One that failed to compile says so in its own log."""
        try:
            return control.ask(self._run, verb, RECOMPILE_S).get("ok") is True
        except control.ControlError:  # it is about to stop
            return False

    async def _on_notify(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ValueError, LookupError, TypeError, OSError):
            said = json.loads(await reader.readline())
            terms = {}
            for zone in self._zones.values():
                with contextlib.suppress(FeedError):
                    if zone.primaries:
                        terms[zone.name] = transfer_terms(zone)
            outcome = answer_notify(bytes.fromhex(said["message"]), said["from"], terms)
            if outcome.zone is not None:
                self._wanted[outcome.zone].set()
            reply = None if outcome.reply is None else outcome.reply.hex()
            writer.write(json.dumps({"reply": reply}).encode() + b"\n")
            await writer.drain()
        writer.close()
