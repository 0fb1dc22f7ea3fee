"""Debian systems in folders: made once by debootstrap, used through overlays, run in namespaces of their own.

Mounts live in the mount namespace of each command and end with it; nothing has to be unmounted, whatever dies.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.peers import require_peer, skip_or_fail

SUITE = "bookworm"
_SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
_REGISTRY = "run/registry"  # what this machine needs to reach its package index, out of the way of what is installed
_CHROOT = shutil.which("chroot", path="/usr/sbin:/sbin:/usr/bin") or "chroot"
_NO_SERVICES = "#!/bin/sh\nexit 101\n"  # there is no service manager to start one


# Memory, where there is enough of it: dpkg writes and syncs a lot.
QUICK = Path("/dev/shm") if shutil.disk_usage("/dev/shm").free > 4 << 30 else Path(tempfile.gettempdir())


def debootstrap(folder: Path) -> Path:
    """Make a minimal system, with the apt sources of this machine.

    Ends the test where that is not permitted.
    """
    program = require_peer("debootstrap")
    if os.geteuid() != 0:
        skip_or_fail("only root makes a Debian system (debootstrap)")
    tried = subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        skip_or_fail(f"namespaces are not permitted here: {tried.stderr.strip()}")
    mirror, key = _apt_source()
    arguments = [f"--keyring={key}"] if key else []
    made = subprocess.run(
        [program, "--variant=minbase", *arguments, SUITE, str(folder), mirror], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stdout[-3000:] + made.stderr
    for source in Path("/etc/apt/sources.list.d").glob("debian*"):
        shutil.copy(source, folder / "etc/apt/sources.list.d")
        (folder / "etc/apt/sources.list").unlink(missing_ok=True)
    policy = folder / "usr/sbin/policy-rc.d"
    policy.write_text(_NO_SERVICES)
    policy.chmod(0o755)
    return folder


def _apt_source() -> tuple[str, str]:
    """(the mirror, its keyring) that apt uses here."""
    if not _SOURCES.exists():
        skip_or_fail(f"no {_SOURCES}: the mirror that this machine uses is not known")
    text = _SOURCES.read_text()
    mirror = re.search(r"^URIs:\s*(\S+)", text, re.MULTILINE)
    key = re.search(r"^Signed-By:\s*(/\S+)", text, re.MULTILINE)
    if mirror is None:
        skip_or_fail(f"{_SOURCES} names no mirror")
    return mirror[1], key[1] if key else ""


class Root:
    """A system of its own: what it changes does not reach the one it was made from."""

    def __init__(self, base: Path) -> None:
        """Put a layer on a system that stays as it is."""
        self.folder = Path(tempfile.mkdtemp(prefix="root-", dir=QUICK))
        self._base = base
        for name in ("layer", "work", "merged"):
            (self.folder / name).mkdir()
        self.layer = self.folder / "layer"
        self.merged = self.folder / "merged"
        self._running: list[subprocess.Popen[str]] = []

    def close(self) -> None:
        """End what runs, and remove the layer."""
        for process in self._running:
            if process.poll() is None:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder)

    def find(self, path: str) -> Path | None:
        """Where a file of the system lies; None where there is none."""
        for layer in (self.layer, self._base):
            found = layer / path.lstrip("/")
            if found.is_symlink() or found.exists():
                whiteout = not found.is_symlink() and found.is_char_device() and found.stat().st_rdev == 0
                return None if whiteout else found
        return None

    def put(self, source: Path, target: str, owner: tuple[int, int] = (0, 0)) -> None:
        """Copy a file, or what is in a folder, to a path of the system; nothing of it may run meanwhile."""
        there = self.layer / target.lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, there, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(source, there, follow_symlinks=False)
        for path in (there, *there.rglob("*")):
            os.chown(path, *owner, follow_symlinks=False)

    # ---- commands --------------------------------------------------------------------------------------------------

    def command(
        self,
        words: Sequence[str],
        *,
        env: Mapping[str, str],
        user: str,
        online: bool,
        read_only: bool,
        writable: Mapping[str, Path],
        cwd: str,
        low_ports: bool = False,
    ) -> list[str]:
        """The command that runs `words` in the system; `run` and `start` say what the rest means."""
        inside = shlex.quote(str(self.merged))
        layers = f"lowerdir={self._base},upperdir={self.layer},workdir={self.folder}/work"
        steps = [
            f"mount -t overlay overlay -o {layers} {inside}",
            f"mount -t proc proc {inside}/proc",
            f"mount --rbind /dev {inside}/dev",
            f"mount -t tmpfs tmpfs {inside}/tmp",
        ]
        if online:
            steps += [
                f"mkdir -p {inside}/{_REGISTRY}",
                f"mount -t tmpfs tmpfs {inside}/{_REGISTRY}",
                f"cp /etc/ssl/certs/ca-certificates.crt {inside}/{_REGISTRY}/ca.crt",
                f"cp -L /etc/resolv.conf {inside}/{_REGISTRY}/resolv.conf",
                f"touch {inside}/etc/resolv.conf",
                f"mount --bind {inside}/{_REGISTRY}/resolv.conf {inside}/etc/resolv.conf",
            ]
            env = {**_registry(), **env}
        else:
            steps.append("ip link set lo up")
            if low_ports:
                steps.append("echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start")
        if read_only:
            steps.append(f"mount -o remount,ro,bind {inside}")
        for path, folder in writable.items():
            steps.append(f"mount --bind {shlex.quote(str(folder))} {inside}{path}")
        settings = " ".join(shlex.quote(f"{key}={text}") for key, text in env.items())
        steps.append(
            f"exec env -i {settings} {_CHROOT} --userspec={user} {inside} "
            f"/usr/bin/env -C {shlex.quote(cwd)} {shlex.join(words)}"
        )
        isolation = ["--mount", "--pid", "--fork", "--kill-child", *([] if online else ["--net"])]
        return [shutil.which("unshare") or "unshare", *isolation, "sh", "-ec", "\n".join(steps)]

    def run(
        self,
        *words: str,
        env: Mapping[str, str] | None = None,
        user: str = "0:0",
        online: bool = False,
        read_only: bool = False,
        writable: Mapping[str, Path] | None = None,
        cwd: str = "/",
        code: int = 0,
    ) -> str:
        """Run a command in the system, and return what it printed.

        Args:
            words: The program and its arguments.
            env: All of its environment.
            user: Numbers or names of user and group.
            online: With this machine's network, to install packages; else alone, with a loopback interface.
            read_only: So that nothing can be written but what `writable` names.
            writable: A folder of this machine for a path of the system.
            cwd: Where it begins.
            code: The exit code that is expected.
        """
        ran = subprocess.run(
            self.command(
                words, env=env or PLAIN, user=user, online=online, read_only=read_only, writable=writable or {}, cwd=cwd
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert ran.returncode == code, f"{shlex.join(words)}: exit code {ran.returncode}\n{ran.stdout[-6000:]}"
        return ran.stdout

    @contextlib.contextmanager
    def started(
        self,
        *words: str,
        env: Mapping[str, str] | None = None,
        user: str = "0:0",
        read_only: bool = False,
        writable: Mapping[str, Path] | None = None,
        low_ports: bool = False,
    ) -> Iterator["Running"]:
        """A program that runs in the system until the end of the block, alone with a loopback interface.

        With `low_ports` everybody may listen on those below 1024.
        """
        log = self.folder / f"log-{len(self._running)}"
        with log.open("w") as out:
            process = subprocess.Popen(
                self.command(
                    words,
                    env=env or PLAIN,
                    user=user,
                    online=False,
                    read_only=read_only,
                    writable=writable or {},
                    cwd="/",
                    low_ports=low_ports,
                ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                text=True,
            )
        self._running.append(process)
        running = Running(self, process, log, dict(env or PLAIN), user)
        try:
            yield running
        finally:
            running.end()


class Running:
    """A program in a system."""

    def __init__(self, root: Root, process: "subprocess.Popen[str]", log: Path, env: dict[str, str], user: str) -> None:
        self._root, self.process, self._log, self._env, self._user = root, process, log, env, user

    def said(self) -> str:
        """What it printed."""
        return self._log.read_text(errors="replace")

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command beside it, as an engine's `exec` does, and return what it printed."""
        settings = [f"{key}={text}" for key, text in self._env.items()]
        ran = subprocess.run(
            [
                shutil.which("nsenter") or "nsenter", "--target", str(self.pid()), "--mount", "--net", "--pid", "--",
                "env", "-i", *settings, _CHROOT, f"--userspec={self._user}", str(self._root.merged), *words,
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert ran.returncode == code, f"{shlex.join(words)}: exit code {ran.returncode}\n{ran.stdout}\n{self.said()}"
        return ran.stdout

    def pid(self) -> int:
        """Its number outside; 0 while it is not there yet."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def stop(self, seconds: float = 45.0) -> int:
        """Ask it to end, and return its exit code."""
        os.kill(self.pid(), signal.SIGTERM)
        return self.process.wait(seconds)

    def end(self) -> None:
        """Whatever it does, it is gone afterwards: it is the first of its namespace, which ends with it.

        `unshare --kill-child` alone does not reach one that changed its user: the kernel forgets the signal then
        (prctl(2), PR_SET_PDEATHSIG).
        """
        if self.process.poll() is None:
            if first := self.pid():
                os.kill(first, signal.SIGKILL)
            self.process.kill()
            self.process.wait()


PLAIN = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}


def _registry() -> dict[str, str]:
    """What pip needs to know of this machine, in a system's own words; its local folders are not there."""
    told = {
        key: text
        for key, text in os.environ.items()
        if key in ("PIP_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT")
    }
    return {
        **told,
        "PIP_CERT": f"/{_REGISTRY}/ca.crt",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
