"""What a configuration leaves to the machine it runs on: host name, processors, folders, the system's resolvers."""

import contextlib
import fcntl
import os
import pwd
import resource
import signal
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from resolver import config as configuration
from resolver.config import Config, PolicyZone, Upstream
from resolver.engine.inforce import IdentityTerms
from resolver.feeds.files import shipped
from resolver.policy.client import Transport
from resolver.policy.source import Problem
from resolver.policy.values import Endpoint
from resolver.transport.secure_identity import SecureTerms
from resolver.transport.sockets import format_address, has_address, is_wildcard

RESOLV_CONF = Path("/etc/resolv.conf")
SYSTEM_CONFIG = Path("/etc/interdict/interdict.yaml")
MOST_WORKERS = 64
RELOADED = ("policy", "groups", "allowed_networks")  # the keys of the configuration that go into a generation


class SettingsError(Exception):
    """The configuration can not be used on this machine; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class UpstreamAddress:
    """One upstream, settled; `secure` says how it is asked where that is encrypted."""

    host: str
    port: int
    trust_ad: bool
    secure: SecureTerms | None = None

    def __str__(self) -> str:
        address = format_address(self.host, self.port)
        if self.secure is None:
            return address
        how = "TLS" if self.secure.transport is Transport.DOT else "HTTPS"
        return f"{address} ({how}{'' if self.secure.strict else ', if it can be had'})"


@dataclass(frozen=True, slots=True)
class StatePaths:
    """Where everything that outlives a process lies."""

    root: Path

    @property
    def generations(self) -> Path:
        """Compiled policies, the newest of them in force."""
        return self.root / "generations"

    @property
    def feeds(self) -> Path:
        """Last good copies of lists and zones that somebody else keeps."""
        return self.root / "feeds"

    @property
    def devices(self) -> Path:
        """The register of devices, and when each was last seen."""
        return self.root / "devices"

    @property
    def spool(self) -> Path:
        """Hits on their way to the store."""
        return self.root / "spool"

    @property
    def hits(self) -> Path:
        """The evidence: `hits.sqlite` and JSON Lines files."""
        return self.root / "hits"

    @property
    def sqlite(self) -> Path:
        """The evidence database."""
        return self.hits / "hits.sqlite"

    @property
    def run(self) -> Path:
        """What concerns the running processes only: control socket, counters, status."""
        return self.root / "run"

    @property
    def status(self) -> Path:
        """The state of the policy, for the recorder."""
        return self.run / "status.json"

    def lock(self) -> int:
        """Claim the state folder for this process; returns a file descriptor that holds the claim.

        Raises:
            SettingsError: Another server has it.
        """
        fd = os.open(self.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise SettingsError(
                f"another server runs with the state folder {self.root}; stop it, or set `state_dir` to another folder"
            ) from None
        return fd

    def make(self) -> None:
        """Make the folders.

        Raises:
            SettingsError: One can not be made or written to.
        """
        for folder in (self.root, self.generations, self.feeds, self.devices, self.spool, self.hits, self.run):
            try:
                folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            except OSError as error:
                raise SettingsError(
                    f"can not make the folder {folder} ({error.strerror}); set `state_dir` to another"
                ) from None
            if not os.access(folder, os.W_OK | os.X_OK):
                raise SettingsError(
                    f"no permission to write to {folder}; give it to the account that runs this, or set `state_dir`"
                )


def find_config(chosen: str | None) -> Path | None:
    """The configuration file: the one chosen, $INTERDICT_CONFIG, the system's, or None for the defaults alone."""
    if chosen or (chosen := os.environ.get("INTERDICT_CONFIG")):
        return Path(chosen)
    return SYSTEM_CONFIG if SYSTEM_CONFIG.exists() else None


def read_config(path: Path | None) -> Config:
    """Read a configuration file; None stands for the defaults.

    Raises:
        ConfigError: With every problem in it, or that it can not be read.
    """
    if path is None:
        return configuration.read("", "defaults")
    try:
        octets = path.read_bytes()
    except OSError as error:
        message = f"cannot be read ({error.strerror}); check the path and its permissions, or write one"
        raise configuration.ConfigError([Problem(str(path), 1, 1, message)]) from None
    return configuration.read(octets, str(path))


def document_folders(config: Config) -> tuple[Path, ...]:
    """The folders that documents come from, `shipped` told apart from paths."""
    return tuple(shipped() if text == "shipped" else Path(text).expanduser() for text in config.policy.documents)


def fed_zones(config: Config) -> tuple[PolicyZone, ...]:
    """The zones of a configuration that the feeder looks after."""
    return tuple(zone for zone in config.policy.zones if zone.url is not None or zone.primaries)


def node_name(config: Config) -> str:
    """What the node calls itself."""
    return socket.gethostname() if config.node == "auto" else config.node


def nsid(config: Config) -> bytes:
    """What NSID says (RFC 5001 §2.3)."""
    return (node_name(config) if config.nsid == "auto" else config.nsid).encode()[:128]


def worker_count(config: Config) -> int:
    """How many workers to run: one a processor that this process may use, unless configured."""
    if isinstance(config.workers, int):
        return config.workers
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS)


def state_paths(config: Config) -> StatePaths:
    """The state folder: configured, systemd's, or by the XDG base directory specification."""
    if config.state_dir != "auto":
        return StatePaths(Path(config.state_dir).expanduser().resolve())
    if given := os.environ.get("STATE_DIRECTORY"):
        return StatePaths(Path(given.split(":")[0]))
    base = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return StatePaths(folder / "interdict")


def upstream_addresses(config: Config) -> tuple[UpstreamAddress, ...]:
    """The upstreams: configured, or the system's; never one of our own listeners, which would ask itself for ever."""
    if config.upstreams == "system":
        found = [UpstreamAddress(host, 53, _is_loopback(host)) for host in _system_resolvers()]
    else:
        found = [_upstream(upstream) for upstream in config.upstreams]
    own = (*config.listen, *config.encrypted.dot, *config.encrypted.doh)
    return tuple(u for u in dict.fromkeys(found) if not any(_reaches(u, endpoint) for endpoint in own))


def _upstream(written: Upstream) -> UpstreamAddress:
    transport = _ENCRYPTED.get(written.transport)
    secure = None
    if transport is not None:
        authorities = None if written.ca_file is None else str(Path(written.ca_file).expanduser())
        secure = SecureTerms(transport, written.name, written.pins, authorities, written.path, written.strict)
    # Nobody else can write to a path that stays on this machine, or that ends where it shall (RFC 6840 §5.8).
    is_safe = _is_loopback(written.address) or (secure is not None and secure.strict)
    return UpstreamAddress(
        written.address,
        written.port or {None: 53, Transport.DOT: 853, Transport.DOH: 443}[transport],
        is_safe if written.trust_ad is None else written.trust_ad,
        secure,
    )


_ENCRYPTED = {"tls": Transport.DOT, "https": Transport.DOH}


def identity_terms(config: Config) -> IdentityTerms:
    """How devices are told apart."""
    name, unknown = config.encrypted.name, config.identity.unknown
    return IdentityTerms(
        () if name is None else (name.rstrip(".").lower(),), None if unknown == configuration.REFUSED else unknown
    )


def without_missing_loopback(config: Config) -> Config:
    """The configuration; where nobody wrote `listen`, without the loopback addresses that this machine lacks.

    The default must start on a machine without IPv6. What somebody wrote down is taken at their word.
    """
    if "listen" in config.model_fields_set:
        return config
    there = tuple(endpoint for endpoint in config.listen if has_address(endpoint.host))
    return config.model_copy(update={"listen": there}) if there else config


def account(name: str) -> tuple[int, int]:
    """(user id, group id) of an account.

    Raises:
        SettingsError: There is none of that name.
    """
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise SettingsError(
            f"`user: {name}`: there is no such account; make it (`useradd --system {name}`) or leave `user` out"
        ) from None
    return found.pw_uid, found.pw_gid


def drop_privileges(uid: int, gid: int, paths: StatePaths) -> None:
    """Become an account; the state folder becomes its own. Nothing that takes privileges is left to do.

    What must still be imported is imported before: the account may have no access to where Python lies.

    Raises:
        SettingsError: Other things lie in the state folder, which are not ours to give away.
    """
    if os.getuid() == uid:
        return
    "".encode("idna")  # looked up by the first host name; loads its module then
    own = (paths.generations, paths.feeds, paths.devices, paths.spool, paths.hits, paths.run)
    strange = [path.name for path in paths.root.iterdir() if path not in own]
    if strange:
        named = ", ".join(sorted(strange)[:3])
        raise SettingsError(f"{paths.root} holds other things ({named}); set `state_dir` to a folder of its own")
    for path in (paths.root, *own, *(entry for folder in own for entry in folder.iterdir() if not entry.is_dir())):
        os.chown(path, uid, gid, follow_symlinks=False)
    os.setgroups([gid])
    os.setgid(gid)
    os.setuid(uid)


def signal_pipe(numbers: Iterable[signal.Signals]) -> int:
    """Have signals written into a pipe, an octet each, and nothing else done on them; returns the end to read from."""
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return reader


def raise_file_limit() -> None:
    """As many open files as the system lets us have: connections and upstream sockets are files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _reaches(upstream: UpstreamAddress, own: Endpoint) -> bool:
    """Whether a query to an upstream would come back in by a listener; one on all addresses is reached by each of
    them."""
    if upstream.port != own.port or (":" in upstream.host) != (":" in own.host):
        return False
    return upstream.host == own.host or (is_wildcard(own.host) and _is_of_this_machine(upstream.host))


def _is_of_this_machine(host: str) -> bool:
    """Whether an address is one of our own: the kernel would then ask it from itself. Nothing is sent."""
    if _is_loopback(host):
        return True
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((host, 53))
        except OSError:
            return False
        return bool(sock.getsockname()[0] == host)


def _is_loopback(host: str) -> bool:
    return ip_address(host).is_loopback


def _system_resolvers() -> list[str]:
    try:
        lines = RESOLV_CONF.read_text(errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                found.append(str(ip_address(words[1])))  # with its scope, where it is a link-local one (fe80::1%eth0)
            except ValueError:
                continue
    return found
