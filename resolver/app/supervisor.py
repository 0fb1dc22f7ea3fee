"""The supervisor: opens the sockets, gives up its privileges, starts the others and keeps them running.

It answers no DNS and loads no policy into memory. Its loop waits on one selector: signals, the control socket, a line
from a worker, the end of a compile. What it forks: `compiler` (for moments), `recorder`, `feeder`
where there is something to fetch, `worker` × N.

Sockets are opened here and stay open here, so that while a worker is started again its share of the clients' datagrams
waits in the socket instead of being lost. Start-up is all or nothing: every error is told, the exit code is 2, and
nothing is half-open.

One loop and what it does on each event stand here together, hence the many lines.
"""

import contextlib
import gc
import json
import logging
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from resolver.app import control, inputs, machine
from resolver.app.activation import Manager
from resolver.app.children import LONGEST_PAUSE, Child, Worker
from resolver.app.devices import DevicesError, settle
from resolver.app.listening import Certificate, listeners
from resolver.app.machine import RELOADED, SettingsError, fed_zones
from resolver.app.status import Endings, banner, policy_status, running_status, write_status
from resolver.app.windows import preload
from resolver.app.worker import WorkerSettings, exit_process, name_process
from resolver.app.worker import main as worker_main
from resolver.config import Config, PolicyZone
from resolver.policy.client import Transport
from resolver.policy.generation import GenerationError
from resolver.policy.source import PolicyError
from resolver.transport.sockets import BindError, bind_tcp, check_free
from resolver.transport.tls import TlsError

STOP_SECONDS = 12.0  # for workers to drain; then they are killed
RECORDER_STOP_SECONDS = 25.0  # for the recorder to store what is spooled; it gives up before (`recorder.STOP_S`)
ACK_SECONDS = 10.0
COMPILE_SECONDS = 600.0  # a compile that takes longer hangs, on a dead file system say
START_SECONDS = 30.0
_COLLECT_AFTER = 700, 10, 10  # Python's own; the command begins with more, since what it imports is no garbage
_NICE = 10
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_log = logging.getLogger("interdict")


class StartError(Exception):
    """The server can not start; the message has every reason, a line each."""


@dataclass(slots=True)
class _Reload:
    """A compile under way, and who waits for its outcome."""

    pid: int
    pipe: int
    kill_at: float
    said: bytes = b""
    askers: list[control.Asked] = field(default_factory=list)
    config: Config | None = None  # the configuration that is compiled, where it was read anew
    path: Path | None = None
    told_at: float = 0.0
    warnings: list[str] = field(default_factory=list)


def serve(config_path: Path | None, *, announce: Callable[[str], None]) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code.

    Args:
        config_path: The configuration file, or None for the defaults.
        announce: Prints to the operator once everything runs.

    Raises:
        StartError: The server could not start; nothing of it is left running.
    """
    return Supervisor(config_path, announce).run()


class Supervisor:
    """The process's state."""

    def __init__(self, config_path: Path | None, announce: Callable[[str], None]) -> None:
        self._config_path = config_path
        self._source = str(config_path) if config_path is not None else "defaults"
        self._announce = announce
        self._selector = selectors.DefaultSelector()
        self._control: control.Desk | None = None
        self._metrics: socket.socket | None = None
        self._workers: list[Worker] = []
        self._recorder: Child | None = None
        self._feeder: Child | None = None
        self._fed: tuple[PolicyZone, ...] = ()
        self._certificate: Certificate | None = None
        self._restarts = {"worker": 0, "recorder": 0, "feeder": 0}
        self._reload: _Reload | None = None
        self._reload_again: tuple[list[control.Asked], bool] | None = None
        self._last_reload: dict[str, object] = {}
        self._endings = Endings()
        self._started = time.monotonic()
        self._stop = False
        self._manager = Manager.of(os.environ, os.getpid())

    # ---- start -----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Start everything, keep it running, stop everything."""
        self._open()
        self._start_children()
        self._wait_until_ready()
        if not self._stop:
            self._announce(banner(self.status(), self._config, self._paths))
            self._manager.keep(sock for worker in self._workers for sock in worker.sockets.values())
            self._manager.tell("READY=1", f"STATUS=generation {int(self._generation.stem)} is in force")
        try:
            while not self._stop:
                self._step(self._pause())
        finally:
            self._close()
        return 0

    def _open(self) -> None:
        """Everything that can fail, before anything is started."""
        try:
            self._config = machine.read_config(self._config_path)
        except PolicyError as error:
            raise StartError(str(error)) from None
        config = self._config
        problems: list[str] = []
        owner: tuple[int, int] | None = None
        try:
            self._paths = machine.state_paths(config)
            self._paths.make()
            self._lock = self._paths.lock()
        except SettingsError as error:
            raise StartError(str(error)) from None
        if config.user is not None:
            try:
                owner = machine.account(config.user)
            except SettingsError as error:
                problems.append(str(error))
        machine.raise_file_limit()
        try:
            self._generation = self._first_generation()
        except StartError as error:
            problems.append(str(error))
        try:
            self._certificate = Certificate.of(config)
            preload(config)
        except TlsError as error:
            problems.append(str(error))
        try:
            self._bind()
        except BindError as error:
            problems.append(str(error))
        if problems:
            self._release()
            raise StartError("\n".join(problems))
        for old in self._paths.run.glob("cells-*"):
            old.unlink()
        self._control = control.Desk(self._paths.run, self._selector, self._on_verb)
        try:
            if owner is not None:
                # Now, since the account may have no access to where the program lies.
                import_module("resolver.app.recorder")
                machine.drop_privileges(*owner, self._paths)
            settle(self._paths)
            self._write_status()
        except (SettingsError, DevicesError) as error:
            self._release()
            raise StartError(str(error)) from None
        except OSError as error:
            self._release()
            raise StartError(
                f"account {config.user} has no permission for {error.filename}; let it enter the folders above, or set "
                "`state_dir`"
            ) from None
        self._signals = machine.signal_pipe(_SIGNALS)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # for a feeder that was just forked; it listens a moment later
        self._selector.register(self._signals, selectors.EVENT_READ, self._on_signals)
        self._control.open()

    def _bind(self) -> None:
        self._config = config = machine.without_missing_loopback(self._config)
        wanted = listeners(config)
        for one in wanted:
            is_quic = one.transport in (Transport.DOQ, Transport.DOH3)
            if is_quic and self._manager.is_shared(one.endpoint.host, one.endpoint.port, one.kind):
                raise BindError(
                    f"the socket unit holds UDP {one.endpoint}, which workers can not share for QUIC; take it out of "
                    "interdict.socket, the server opens it itself"
                )
            if not self._manager.has(one.endpoint.host, one.endpoint.port, one.kind):
                check_free(one.endpoint.host, one.endpoint.port, one.kind)
        if config.metrics.listen is not None:
            endpoint = config.metrics.listen
            check_free(endpoint.host, endpoint.port, socket.SOCK_STREAM)
            self._metrics = bind_tcp(endpoint.host, endpoint.port)
        for number in range(machine.worker_count(config)):
            worker = Worker(f"worker {number}", lambda n=number: self._fork_worker(n), number=number)  # type: ignore[misc]
            self._workers.append(worker)
            take = self._manager.take
            worker.sockets = {one: one.bind(take(one.endpoint.host, one.endpoint.port, one.kind)) for one in wanted}
        if unanswered := self._manager.settle():
            raise BindError(
                f"the socket unit listens on {', '.join(unanswered)}, which neither `listen` nor `encrypted` names; "
                "name it there, or take it out of interdict.socket"
            )

    def _release(self) -> None:
        for worker in self._workers:
            for sock in worker.sockets.values():
                sock.close()
        if self._metrics is not None:
            self._metrics.close()
        os.close(self._lock)

    def _start_children(self) -> None:
        gc.freeze()  # with what little of it is garbage: to look for that would be a tenth of the start
        gc.set_threshold(*_COLLECT_AFTER)
        self._recorder = Child("recorder", self._fork_recorder)
        for child in (*self._workers, self._recorder):  # who answers goes first
            self._start(child)
        self._keep_feeder()

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + START_SECONDS
        while not all(worker.is_ready for worker in self._workers) and not self._stop:
            if time.monotonic() > end:
                self._close()
                raise StartError(f"the workers did not start within {START_SECONDS:g} s; their errors are above")
            self._step(0.2)

    def _start(self, child: Child) -> None:
        child.begin(time.monotonic())

    def _fork(self, name: str, work: Callable[[], int]) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            name_process(name)
            self._selector.close()
            os.close(self._lock)  # the claim on the state folder ends with this process, not with its children
            if self._control is not None:
                self._control.close(ours=False)
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            exit_process(code)
        raise AssertionError("unreachable")

    def _fork_worker(self, number: int) -> int:
        worker = self._workers[number]
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        settings = WorkerSettings.of(
            self._config,
            self._paths,
            number,
            len(self._workers),
            worker.sockets,
            self._certificate,
            theirs,
            self._generation,
        )

        def work() -> int:
            ours.close()
            self._close_sockets(but=worker)
            return worker_main(settings)

        pid = self._fork(f"interdict-w{number}", work)
        theirs.close()
        worker.channel = ours
        worker.buffer = b""
        worker.is_ready = False
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._on_worker(worker))
        return pid

    def _close_sockets(self, but: Worker | None) -> None:
        """In a child: let go of what belongs to others."""
        for worker in self._workers:
            if worker is not but:
                for sock in worker.sockets.values():
                    sock.close()
            if worker.channel is not None:
                worker.channel.close()

    def _fork_recorder(self) -> int:
        def work() -> int:
            # Nice where that is all there is; better, only what nobody else wants of the processors: a worker that
            # starts or wakes to answer then never waits for a transaction. What is not stored meanwhile waits in the
            # spool.
            with contextlib.suppress(OSError):
                os.nice(_NICE)
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            # What is signalled while it imports waits for its `main`.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
            from resolver.app import recorder  # the others shall not carry what it imports

            self._close_sockets(but=None)
            return recorder.main(recorder.RecorderSettings.of(self._config, self._paths, self._metrics))

        return self._fork("interdict-rec", work)

    def _keep_feeder(self) -> None:
        """Have a feeder for the zones of the configuration as it is now; none where there is nothing to fetch."""
        zones = fed_zones(self._config)
        if zones == self._fed and self._feeder is not None:
            return
        self._fed = zones
        if self._feeder is not None and self._feeder.pid:
            self._feeder.is_dismissed = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._feeder.pid, signal.SIGTERM)
        else:
            self._feeder = Child("feeder", self._fork_feeder) if zones else None
            if self._feeder is not None:
                self._start(self._feeder)

    def _fork_feeder(self) -> int:
        def work() -> int:
            from resolver.app import feeder  # as the recorder

            self._close_sockets(but=None)
            return feeder.main(self._fed, self._paths.feeds, self._paths.run)

        return self._fork("interdict-fed", work)

    # ---- the loop --------------------------------------------------------------------------------------------------

    def _pause(self) -> float:
        """Seconds until something is due by itself."""
        now = time.monotonic()
        due = [child.again_at - now for child in self._children() if child.again_at]
        due += [worker.kill_at - now for worker in self._workers if worker.kill_at]
        if self._reload is not None:
            due.append((self._reload.told_at + ACK_SECONDS if self._reload.told_at else self._reload.kill_at) - now)
        return max(0.0, min([*due, self._manager.beat_seconds or 60.0, 60.0]))

    def _step(self, pause: float) -> None:
        # Signals first: a service manager may tell all processes to end at once, and a worker's end then is no death.
        # What a handler does may make a later event of the same round stale; handlers look before they act.
        for key, _ in sorted(self._selector.select(pause), key=lambda event: event[0].fd != self._signals):
            key.data()
        for warning in self._endings.due(time.time()):
            _log.warning("%s", warning)
        now = time.monotonic()
        self._manager.beat(now)
        for child in self._children():
            if child.again_at and child.again_at <= now:
                self._restarts[child.name.split()[0]] += 1
                try:
                    self._start(child)
                except OSError as error:
                    _log.error("%s could not be started (%s)", child.name, error.strerror)
                    child.again_at = now + LONGEST_PAUSE
                self._write_status()
            elif isinstance(child, Worker) and child.pid and 0 < child.kill_at <= now:
                child.kill_at = 0.0
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)  # it hangs: a signal that it could handle did not end it
        if self._reload is not None and self._reload.told_at and self._reload.told_at + ACK_SECONDS <= now:
            self._finish_reload()
        elif self._reload is not None and not self._reload.told_at and self._reload.kill_at <= now:
            self._reload.kill_at = now + COMPILE_SECONDS
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._reload.pid, signal.SIGKILL)  # the end of its pipe tells the rest

    def _children(self) -> list[Child]:
        return [*self._workers, *(child for child in (self._recorder, self._feeder) if child is not None)]

    def _on_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._signals, 4096):
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._stop = True
                elif number == signal.SIGHUP:
                    self._begin_reload()
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self._children():
                if child.pid == pid:
                    self._on_death(child, status)

    def _on_death(self, child: Child, status: int) -> None:
        child.pid = 0
        if isinstance(child, Worker):
            self._hang_up(child)
            child.kill_at = 0.0
        if self._stop:
            return
        if child.is_dismissed:
            self._feeder = None
            self._keep_feeder()
            return
        _log.error("%s", child.died(status, time.monotonic()))

    def _hang_up(self, worker: Worker) -> None:
        worker.is_ready = False
        if worker.channel is not None:
            self._selector.unregister(worker.channel)
            worker.channel.close()
            worker.channel = None
            if worker.pid:  # one that hung up and lives would go on with an old policy
                worker.kill_at = time.monotonic() + STOP_SECONDS
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGTERM)

    def _on_worker(self, worker: Worker) -> None:
        if worker.channel is None:
            return
        try:
            octets = worker.channel.recv(65536)
        except (BlockingIOError, ConnectionResetError):
            return
        if not octets:
            self._hang_up(worker)  # it is ending; SIGCHLD tells when it has
            return
        *lines, worker.buffer = (worker.buffer + octets).split(b"\n")
        for line in lines:
            said = json.loads(line)
            worker.generation = said["generation"]
            worker.is_ready = True
            if "error" in said:
                self._give_up(worker, str(said["error"]))
        reload = self._reload
        if reload is not None and reload.path is not None and self._all_hold(int(reload.path.stem)):
            self._finish_reload()

    def _all_hold(self, serial: int) -> bool:
        return all(worker.generation == serial for worker in self._workers if worker.is_ready)

    # ---- reload ----------------------------------------------------------------------------------------------------

    def _begin_reload(self, *askers: control.Asked, afresh: bool = True) -> None:
        """Compile in a process of its own; whoever asks while one is under way gets the outcome of the next."""
        if self._reload is not None:
            waiting, anew = self._reload_again or ([], False)
            self._reload_again = [*waiting, *askers], afresh or anew
            return
        made_by = f"reload by {askers[0].by()}" if askers else "reload by signal"
        try:
            # Read once, before the fork: what is compiled is what is taken in, whoever writes to the file meanwhile.
            fresh = machine.read_config(self._config_path) if afresh else None
            pid, reader = self._fork_compiler(
                made_by if fresh else "a list or zone that changed", fresh or self._config
            )
        except PolicyError as error:
            self._refuse_reload([str(problem) for problem in error.problems], askers)
            return
        except OSError as error:
            problem = f"the compiler could not be started ({error.strerror}); make room, and reload again"
            self._refuse_reload([problem], askers)
            return
        os.set_blocking(reader, False)
        self._reload = _Reload(pid, reader, time.monotonic() + COMPILE_SECONDS, askers=list(askers), config=fresh)
        self._selector.register(reader, selectors.EVENT_READ, self._on_compiled)

    def _refuse_reload(self, problems: list[str], askers: Iterable[control.Asked]) -> None:
        serial = int(self._generation.stem)
        for problem in problems:
            _log.error("reload: %s", problem)
        _log.error("reload failed; generation %d stays in force", serial)
        outcome: dict[str, object] = {"ok": False, "problems": problems, "generation": serial}
        self._last_reload = {"at": time.time(), **outcome}
        self._write_status()
        for asker in askers:
            asker.tell(outcome)

    def _fork_compiler(self, made_by: str, config: Config) -> tuple[int, int]:
        """Start a compile in a process of its own; what it says (`compile_aside`) comes out of the pipe returned."""
        reader, writer = os.pipe()

        def work() -> int:
            from resolver.app.compiler import compile_aside  # as the recorder

            os.nice(19)  # whoever asks goes first: a list of a million names takes seconds
            os.close(reader)
            said = compile_aside(
                self._config_path, self._config, self._paths.generations, time.time(), made_by, fresh=config
            )
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(json.dumps(said).encode())
            return 0

        try:
            pid = self._fork("interdict-cmp", work)
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        return pid, reader

    def _first_generation(self) -> Path:
        held = inputs.unchanged(self._config, self._paths.generations, time.time())
        if held is not None:
            return held
        pid, reader = self._fork_compiler("start", self._config)
        with os.fdopen(reader, "rb") as pipe:
            octets = pipe.read()
        os.waitpid(pid, 0)
        try:
            said = json.loads(octets)
        except ValueError:
            raise StartError("the policy could not be compiled; the compiler's error is above") from None
        if "problems" in said:
            raise StartError("\n".join(said["problems"]))
        return Path(said["path"])

    def _on_compiled(self) -> None:
        reload = self._reload
        assert reload is not None
        octets = os.read(reload.pipe, 1 << 20)
        if octets:
            reload.said += octets
            return
        self._selector.unregister(reload.pipe)
        os.close(reload.pipe)
        try:
            said = json.loads(reload.said)
        except ValueError:
            said = {"problems": ["the compiler ended, or was ended after 10 minutes, without a word; see the log"]}
        if "problems" in said:
            for problem in said["problems"]:
                _log.error("reload: %s", problem)
            _log.error("reload failed; generation %d stays in force", int(self._generation.stem))
            self._end_reload({"ok": False, "problems": said["problems"], "generation": int(self._generation.stem)})
            return
        for key in said["needs_restart"]:
            reload.warnings.append(f"`{key}` was changed in the configuration; it takes effect with the next start")
        reload.path = self._generation = Path(said["path"])
        reload.told_at = time.monotonic()
        if reload.config is not None:
            # The policy part of the configuration as it was compiled; the rest stays what was started with.
            taken = {key: getattr(reload.config, key) for key in RELOADED}
            self._config = self._config.model_copy(update=taken)
            self._keep_feeder()
        self._write_status()
        for worker in self._workers:
            if worker.channel is not None:
                with contextlib.suppress(OSError):
                    worker.channel.send(json.dumps({"generation": str(reload.path)}).encode() + b"\n")
        if self._all_hold(int(reload.path.stem)):
            self._finish_reload()

    def _finish_reload(self) -> None:
        reload = self._reload
        assert reload is not None
        serial = int(self._generation.stem)
        for worker in self._workers:
            if worker.is_ready and worker.generation != serial:
                self._give_up(worker, f"no word within {ACK_SECONDS:g} s")
        for warning in reload.warnings:
            _log.warning("reload: %s", warning)
        _log.info("generation %d is in force", serial)
        self._manager.tell(f"STATUS=generation {serial} is in force")
        self._end_reload({"ok": True, "generation": serial, "warnings": reload.warnings, "problems": []})

    def _give_up(self, worker: Worker, why: str) -> None:
        """End a worker that did not take a generation; it is started again, with the one in force."""
        if self._reload is not None:
            self._reload.warnings.append(f"{worker.name} did not take the generation ({why}) and is started again")
        self._hang_up(worker)

    def _end_reload(self, outcome: dict[str, object]) -> None:
        reload = self._reload
        assert reload is not None
        self._reload = None
        self._last_reload = {"at": time.time(), **outcome}
        self._write_status()
        for asker in reload.askers:
            asker.tell(outcome)
        again, self._reload_again = self._reload_again, None
        if again is not None:
            self._begin_reload(*again[0], afresh=again[1])

    # ---- status ----------------------------------------------------------------------------------------------------

    def _on_verb(self, verb: str, asked: control.Asked) -> None:
        if verb == "status":
            try:
                asked.tell(self.status())
            except (OSError, GenerationError) as error:
                asked.tell({"problems": [f"the state of the policy can not be told: {error}"]})
        elif verb == "reload":
            self._begin_reload(asked)
        elif verb == "recompile":
            self._begin_reload(asked, afresh=False)
        elif verb == "fetch":
            if self._feeder is not None and self._feeder.pid:
                os.kill(self._feeder.pid, signal.SIGUSR1)
            asked.tell({"zones": [zone.name for zone in self._fed]})
        elif verb == "feeds":
            self._write_status()
            asked.tell({"ok": True})
        else:
            asked.tell({"problems": [f"this server knows no verb {verb!r}"]})

    def status(self) -> dict[str, object]:
        """What runs, for `interdict status`."""
        processes = [(c.name, c.pid, c.generation if isinstance(c, Worker) else None) for c in self._children()]
        return running_status(
            self._config,
            self._source,
            self._paths,
            policy=self._policy_status(),
            processes=processes,
            uptime=time.monotonic() - self._started,
            last_reload=self._last_reload,
        )

    def _policy_status(self) -> dict[str, Any]:
        feeds, workers = self._paths.feeds, len(self._workers)
        return policy_status(self._generation, self._config, feeds, workers, dict(self._restarts))

    def _write_status(self) -> None:
        """Rewrite what the recorder reads, and what is warned of."""
        try:
            status = self._policy_status()
        except (OSError, GenerationError) as error:
            _log.error("the state of the policy can not be told: %s", error)
            return
        self._endings.take_in(status["exemptions"])
        write_status(self._paths, {**status, "last_reload": self._last_reload})

    # ---- stop ------------------------------------------------------------------------------------------------------

    def _close(self) -> None:
        """Workers first, then the recorder, which stores what they spooled; kill what does not end in time."""
        self._stop = True
        self._manager.tell("STOPPING=1")
        workers = [*self._workers, *([self._feeder] if self._feeder is not None else [])]
        recorders = [self._recorder] if self._recorder is not None else []
        for group, patience in ((workers, STOP_SECONDS), (recorders, RECORDER_STOP_SECONDS)):
            for child in group:
                child.again_at = 0.0
                if child.pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child.pid, signal.SIGTERM)
            end = time.monotonic() + patience
            while any(child.pid for child in group) and time.monotonic() < end:
                for key, _ in self._selector.select(0.1):
                    if key.fileobj in (self._signals,):
                        key.data()
                self._reap()
            for child in group:
                if child.pid:
                    _log.error("%s did not end in time and is killed", child.name)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child.pid, signal.SIGKILL)
        if self._control is not None:
            self._control.close(ours=True)
        self._release()
