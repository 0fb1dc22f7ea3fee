"""What the machine under the resolver can have against it: one check a function, each finding with its mend.

Every check looks at the real thing: it binds the port, asks the upstream, opens the file. Nothing is changed by it,
nothing waits for longer than the seconds it is given, and what can not be found out is said to be skipped.
"""

import asyncio
import contextlib
import ctypes
import os
import pwd
import resource
import socket
import struct
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path

from resolver.app.listening import listeners
from resolver.app.machine import (
    RESOLV_CONF,
    StatePaths,
    UpstreamAddress,
    upstream_addresses,
    worker_count,
)
from resolver.app.upstreams import make_exchange
from resolver.config import Config
from resolver.policy.client import Transport
from resolver.policy.values import Endpoint
from resolver.transport.secure_identity import UnestablishedError
from resolver.transport.sockets import UDP_BUFFER_OCTETS, BindError, check_free, format_address, is_wildcard
from resolver.wire.codes import Rcode, Rtype, rcode_text
from resolver.wire.message import Reply, WireError, read_reply, write_query

SILENT = Endpoint("192.0.2.1", 53)  # an address for documentation (RFC 5737): nobody answers there
ROOT = b"\0"

_YEAR = 2026  # the clock of a machine without a battery begins long before
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_OCTETS = 208
_RESOLVED = "systemd-resolve"
_UDP_OCTETS = 1232
_SPARE_FILES = 128  # of a worker: its files, its channels, connections to upstreams
_CLOSING = 0.02  # seconds for a connection to be closed: the loop does it in its next rounds
_ROOM = 64 << 20  # octets on the disk below which nothing can be compiled or recorded for long
_SLOW = 0.5  # seconds: what an upstream needs for a name that it surely has


class Outcome(StrEnum):
    """What came of a check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found; `mend` says what to do where it is not as it should be."""

    check: str
    outcome: Outcome
    found: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a port; without a number where the system does not tell this account."""

    pid: int
    program: str


@dataclass(frozen=True, slots=True)
class Questions:
    """What upstreams are asked.

    Attributes:
        signed: A name (wire form) whose signatures are right.
        bogus: A name whose signatures are wrong, if one is to be asked for.
        wait: Seconds for one answer.
    """

    signed: bytes = ROOT
    bogus: bytes | None = None
    wait: float = 2.0


# ---- ports ----------------------------------------------------------------------------------------------------------


def windows(config: Config) -> Iterator[tuple[Endpoint, socket.SocketKind]]:
    """Every address that a configuration listens on, with its kind."""
    yield from ((listening.endpoint, listening.kind) for listening in listeners(config))
    if config.metrics.listen is not None:
        yield config.metrics.listen, socket.SOCK_STREAM


def port(endpoint: Endpoint, kind: socket.SocketKind, ours: frozenset[int]) -> Finding:
    """Whether an address can be listened on, and if not, who holds it.

    Args:
        endpoint: The address.
        kind: UDP or TCP.
        ours: Processes of the running server.
    """
    name = f"port {'UDP' if kind == socket.SOCK_DGRAM else 'TCP'} {endpoint}"
    try:
        check_free(endpoint.host, endpoint.port, kind)
    except BindError as error:
        said, _, mend = str(error).partition("; ")
        found = holder(endpoint, kind)
        if found is None:
            is_denied = "no permission" in said
            return Finding(name, Outcome.SKIPPED if is_denied else Outcome.FAIL, said, mend)
        if found.pid in ours:
            return Finding(name, Outcome.OK, "held by the running server")
        return Finding(name, Outcome.FAIL, *_held(found))
    return Finding(name, Outcome.OK, "free")


def _held(by: Holder) -> tuple[str, str]:
    """Who holds a port, and what to do about it."""
    if not by.pid:
        return "held by a program that this account may not see", "run this as root to learn which, or listen elsewhere"
    if by.program == _RESOLVED:
        return (
            "held by the stub of systemd-resolved",
            "write `[Resolve]` and `DNSStubListener=no` into /etc/systemd/resolved.conf.d/interdict.conf, then "
            f"`systemctl restart systemd-resolved` and `ln -sf /run/systemd/resolve/resolv.conf {RESOLV_CONF}`",
        )
    if by.pid == 1:
        return (
            "held by the service manager, for a socket unit",
            "fine where that is interdict.socket; else `systemctl list-sockets` names the unit to disable",
        )
    return (
        f"held by {by.program} (process {by.pid})",
        f"stop it (`systemctl status {by.pid}` names its unit), or listen elsewhere",
    )


def holder(endpoint: Endpoint, kind: socket.SocketKind) -> Holder | None:
    """The process that holds an address, by the tables of the kernel (proc(5), /proc/net); None where none does."""
    inodes = set(_inodes(endpoint, kind))
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(os.readlink(fd) in wanted for fd in (folder / "fd").iterdir()):
                return Holder(int(folder.name), (folder / "comm").read_text().strip())
    return Holder(0, "")


def _inodes(endpoint: Endpoint, kind: socket.SocketKind) -> Iterator[str]:
    protocol = "udp" if kind == socket.SOCK_DGRAM else "tcp"
    for table, family, octets in ((protocol, socket.AF_INET, 4), (f"{protocol}6", socket.AF_INET6, 16)):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                columns = line.split()
                address, _, number = columns[1].partition(":")
                if int(number, 16) != endpoint.port or (protocol == "tcp" and columns[3] != "0A"):  # 0A: listens
                    continue
                words = struct.unpack(f">{octets // 4}I", bytes.fromhex(address))
                host = socket.inet_ntop(family, struct.pack(f"={octets // 4}I", *words))
                same_family = (":" in host) == (":" in endpoint.host)
                if host == endpoint.host or host == "::" or (same_family and "" in (_of(host), _of(endpoint.host))):
                    yield columns[9]


def _of(host: str) -> str:
    return "" if is_wildcard(host) else host


# ---- clock ----------------------------------------------------------------------------------------------------------


def clock(at: float, is_kept: bool | None) -> Finding:
    """Whether the clock can be right: orders begin and end by it.

    Args:
        at: Unix seconds, as the clock says.
        is_kept: Whether the kernel takes it for synchronised; None where it does not say.
    """
    now = time.gmtime(at)
    said = time.strftime("%Y-%m-%dT%H:%MZ", now)
    if now.tm_year < _YEAR:
        return Finding(
            "clock", Outcome.FAIL, f"it says {said}", "set it: `timedatectl set-ntp true`, or install chrony"
        )
    if is_kept is None:
        return Finding("clock", Outcome.SKIPPED, f"it says {said}; whether anything keeps it right is not told here")
    if not is_kept:
        mend = "orders begin and end by it: `timedatectl set-ntp true`, or install chrony; in a container see the host"
        return Finding("clock", Outcome.WARN, f"it says {said}, and nothing keeps it right", mend)
    return Finding("clock", Outcome.OK, f"{said}, kept by NTP")


def is_clock_kept() -> bool | None:
    """Whether the kernel takes its clock for synchronised (adjtimex(2)); None where it does not say."""
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_OCTETS))
    return None if state < 0 else state != _TIME_ERROR


# ---- upstreams ------------------------------------------------------------------------------------------------------


def upstreams(addresses: Iterable[UpstreamAddress], asked: Questions) -> Iterator[Finding]:
    """Whether each upstream answers over UDP and TCP, or over what it is asked by, knows EDNS, is fast, and
    validates."""
    found_one = False
    for upstream in addresses:
        found_one = True
        yield from _upstream(upstream, asked)
    if not found_one:
        mend = "write upstreams: [{address: 192.0.2.53}], with the address of a resolver that is not this one"
        yield Finding("upstreams", Outcome.FAIL, "there is none; names that are not banned get SERVFAIL", mend)


Way = tuple[str, Callable[[bytes], Reply]]
"""How an upstream is asked, in a word, and the asking for a name."""


def _ways(upstream: UpstreamAddress, wait: float) -> list[Way]:
    secure = upstream.secure
    if secure is not None:
        word = "TLS" if secure.transport is Transport.DOT else "HTTPS"
        return [(word, lambda qname: ask_encrypted(upstream, qname, wait))]
    host, port = upstream.host, upstream.port
    return [
        ("UDP", lambda qname: ask(host, port, socket.SOCK_DGRAM, qname, wait)),
        ("TCP", lambda qname: ask(host, port, socket.SOCK_STREAM, qname, wait)),
    ]


def _upstream(upstream: UpstreamAddress, asked: Questions) -> Iterator[Finding]:
    name = format_address(upstream.host, upstream.port)
    ways = _ways(upstream, asked.wait)
    answered: tuple[Way, Reply] | None = None
    for word, ask_for in ways:
        check = f"upstream {name} {word}"
        begun = time.monotonic()
        try:
            reply = ask_for(asked.signed)
        except (OSError, WireError) as error:
            yield Finding(check, Outcome.FAIL, *_unanswered(error, name, word, asked.wait))
            continue
        yield _answered(check, reply, time.monotonic() - begun)
        answered = answered or ((word, ask_for), reply)
    if answered is not None:
        yield _validates(f"upstream {name} validation", *answered, asked)


def _unanswered(error: OSError | WireError, name: str, word: str, wait: float) -> tuple[str, str]:
    if isinstance(error, TimeoutError):
        return (
            f"no answer within {wait:g} s",
            f"let {word} to {name} out at the firewall, and the answers in; or write another upstream",
        )
    if isinstance(error, UnestablishedError):
        return str(error), "see its name, pins and ca_file in the configuration, and its certificate"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there", "start the resolver there, or write another upstream"
    if isinstance(error, ConnectionResetError) and word == "TCP":
        mend = "long answers come over TCP (RFC 7766 §5): have it answer there too, or write another upstream"
        return "it closed the connection", mend
    if isinstance(error, WireError):
        return f"what it said is no answer ({error.reason})", "is it a resolver? Write another upstream"
    return (error.strerror or str(error) or "the connection was closed"), f"see that this machine has a way to {name}"


def _answered(check: str, reply: Reply, took: float) -> Finding:
    speed = f"{took * 1000:.0f} ms"
    if reply.answer.rcode == Rcode.REFUSED:
        mend = "let this machine ask it (`access-control` in Unbound, `allow-recursion` in BIND), or write another"
        return Finding(check, Outcome.FAIL, f"it refuses to answer this machine ({speed})", mend)
    if reply.answer.rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN):
        said = rcode_text(reply.answer.rcode)
        return Finding(check, Outcome.WARN, f"it says {said} ({speed})", "see its log; it has no way to the servers")
    if not reply.has_opt:
        mend = "without EDNS there are no long answers over UDP and no reasons for errors; take a newer resolver"
        return Finding(check, Outcome.WARN, f"answers in {speed}, without EDNS", mend)
    if took > _SLOW:
        return Finding(check, Outcome.WARN, f"answers in {speed}", "clients wait as long; write a nearer one first")
    return Finding(check, Outcome.OK, f"answers in {speed}, with EDNS")


def _validates(check: str, way: Way, reply: Reply, asked: Questions) -> Finding:
    mend = "have it validate, or write one that does: Interdict does not validate DNSSEC itself"
    if not reply.answer.authentic:
        return Finding(check, Outcome.WARN, "its answer is not marked as validated (AD)", mend)
    if asked.bogus is None:
        return Finding(check, Outcome.OK, "its answer is marked as validated (AD)")
    try:
        spoilt = way[1](asked.bogus)
    except (OSError, WireError) as error:
        found, _ = _unanswered(error, "", way[0], asked.wait)
        return Finding(check, Outcome.SKIPPED, f"asked for the bogus name: {found}")
    if spoilt.answer.rcode != Rcode.SERVFAIL:
        said = rcode_text(spoilt.answer.rcode)
        return Finding(check, Outcome.FAIL, f"it says {said} to a name with wrong signatures", mend)
    return Finding(check, Outcome.OK, "marks what it validated (AD), and withholds what is bogus")


def ask(host: str, port: int, kind: socket.SocketKind, qname: bytes, wait: float) -> Reply:
    """Ask for the SOA of a name, with EDNS and DO.

    Raises:
        OSError: There is no way, or no answer in time (TimeoutError).
        WireError: What came over TCP is no answer.
    """
    query = _query(qname)
    end = time.monotonic() + wait
    family, _, _, _, to = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_NUMERICHOST)[0]
    with socket.socket(family, kind) as sock:
        sock.settimeout(wait)
        sock.connect(to)
        if kind == socket.SOCK_STREAM:
            sock.sendall(len(query).to_bytes(2, "big") + query)
            octets = _exactly(sock, int.from_bytes(_exactly(sock, 2, end), "big"), end)
            return read_reply(octets, query)
        sock.send(query)
        while (left := end - time.monotonic()) > 0:
            sock.settimeout(left)
            with contextlib.suppress(WireError):  # not the one that we wait for
                return read_reply(sock.recv(65535), query)
        raise TimeoutError


def ask_encrypted(upstream: UpstreamAddress, qname: bytes, wait: float) -> Reply:
    """The same over TLS or HTTPS, of an upstream that shows who it is, whether or not the configuration insists.

    Raises:
        OSError: As `ask`; the message says what was wrong with the connection.
        WireError: As `ask`.
    """
    assert upstream.secure is not None
    strict = replace(upstream, secure=replace(upstream.secure, strict=True))

    async def exchanged() -> Reply:
        link = make_exchange(asyncio.get_running_loop(), strict, 1)
        try:
            return await link.ask(_query(qname), read_reply, wait)
        finally:
            link.close()
            await asyncio.sleep(_CLOSING)

    return asyncio.run(exchanged())


def _query(qname: bytes) -> bytes:
    number = int.from_bytes(os.urandom(2), "big")
    return write_query(qname, Rtype.SOA, number, do=True, cd=False, edns=True, udp_octets=_UDP_OCTETS)


def _exactly(sock: socket.socket, count: int, end: float) -> bytes:
    held = b""
    while len(held) < count:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        sock.settimeout(left)
        piece = sock.recv(count - len(held))
        if not piece:
            raise ConnectionResetError(0, "it closed the connection")
        held += piece
    return held


def interception(upstreams: Iterable[UpstreamAddress], silent: Endpoint, wait: float) -> Finding:
    """Whether something on the way answers for addresses where nobody is.

    Args:
        upstreams: Where all of them are on this machine, there is no way to look at, and nothing is sent.
        silent: Where nobody answers DNS.
        wait: Seconds.
    """
    check = "interception"
    if all(ip_address(upstream.host).is_loopback for upstream in upstreams):
        return Finding(check, Outcome.SKIPPED, "no upstream is outside of this machine")
    try:
        ask(silent.host, silent.port, socket.SOCK_DGRAM, ROOT, wait)
    except TimeoutError:
        return Finding(check, Outcome.OK, f"nobody answers in the place of {silent}")
    except OSError as error:
        return Finding(check, Outcome.OK, f"nobody answers in the place of {silent} ({error.strerror})")
    mend = (
        "something on the way answers DNS in the place of whom is asked, and may do so for the upstreams: have port 53 "
        "of this machine let through as it is"
    )
    return Finding(check, Outcome.FAIL, f"an answer came from {silent}, where nobody is", mend)


# ---- kernel and limits ----------------------------------------------------------------------------------------------


def buffers(wanted: int = UDP_BUFFER_OCTETS) -> Iterator[Finding]:
    """Whether the kernel gives sockets the buffers that workers ask for.

    Args:
        wanted: Octets.
    """
    for option, word, key in (
        (socket.SO_RCVBUF, "receive", "net.core.rmem_max"),
        (socket.SO_SNDBUF, "send", "net.core.wmem_max"),
    ):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, option, wanted)
            given = (
                sock.getsockopt(socket.SOL_SOCKET, option) // 2
            )  # the kernel doubles it for its own needs: socket(7)
        check = f"{word} buffer"
        if given >= wanted:
            yield Finding(check, Outcome.OK, f"{_size(given)} a socket")
        else:
            mend = (
                f"`sysctl -w {key}={wanted}`, and the same in /etc/sysctl.d/interdict.conf: bursts wait there while a "
                "worker is busy"
            )
            yield Finding(check, Outcome.WARN, f"{_size(given)} a socket, of {_size(wanted)} asked for", mend)


def open_files(config: Config, limit: int) -> Finding:
    """Whether a worker may open as many files as its connections take.

    Args:
        config: The configuration.
        limit: The hard limit of the server, or of this process.
    """
    # Those of each kind have places of their own; those of QUIC are no files.
    kinds = {one.transport for one in listeners(config) if one.kind == socket.SOCK_STREAM} - {Transport.TCP}
    connections = config.tcp.connections + config.encrypted.connections * len(kinds)
    needed = connections + config.forwarder.sockets * len(upstream_addresses(config)) + _SPARE_FILES
    own = len(list(windows(config))) * worker_count(config) + _SPARE_FILES  # of the supervisor, who holds all windows
    most = max(needed, own)
    if limit >= most:
        return Finding("open files", Outcome.OK, f"{limit} a process; {most} are needed at most")
    mend = f"`LimitNOFILE={most}` in the unit (`ulimit -n {most}` in a shell), or fewer connections"
    return Finding("open files", Outcome.FAIL, f"{limit} a process, and {most} may be needed", mend)


def file_limit(pid: int | None) -> int:
    """How many files a process may open at most (proc(5), limits); this one, where none is given or it is not told."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        if pid is not None:
            lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
            hard = next(line.split()[4] for line in lines if line.startswith("Max open files"))
            return sys.maxsize if hard == "unlimited" else int(hard)
    hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return sys.maxsize if hard_limit == resource.RLIM_INFINITY else hard_limit


def state_folder(paths: StatePaths, account: str | None, spool_limit: int) -> Iterator[Finding]:
    """Whether the state folder is its account's, closed to others, and has room.

    Args:
        paths: The folder.
        account: Who serves; None for whoever runs this.
        spool_limit: Octets that hits may take while a store is down.
    """
    check, root = "state folder", paths.root
    there = next((path for path in (root, *root.parents) if path.exists()), Path("/"))
    if not root.exists():
        may = os.access(there, os.W_OK | os.X_OK)
        if not may:
            yield Finding(check, Outcome.FAIL, f"{root} is not there, and {there} is closed to this account", _OTHER)
            return
        yield Finding(check, Outcome.OK, f"{root} is made at the start")
    else:
        found = root.stat()
        uid = os.getuid() if account is None else pwd.getpwnam(account).pw_uid
        owner = _account(found.st_uid)
        # Root serves from anybody's folder, and gives it to the account that it changes to.
        if found.st_uid != uid and os.getuid() != 0:
            yield Finding(check, Outcome.FAIL, f"{root} belongs to {owner}", f"run the server as {owner}, or {_OTHER}")
        elif found.st_mode & 0o007:
            mend = f"evidence names people's devices: `chmod 750 {root}`"
            yield Finding(check, Outcome.WARN, f"{root} is open to everybody", mend)
        else:
            yield Finding(check, Outcome.OK, f"{root}, of {owner}, mode {found.st_mode & 0o777:o}")
    yield _room(there, spool_limit)


_OTHER = "set `state_dir` to another folder"


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _room(folder: Path, spool_limit: int) -> Finding:
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < _ROOM:
        return Finding("disk", Outcome.FAIL, f"{_size(free)} free below {folder}", f"make room, or {_OTHER}")
    if free < spool_limit:
        mend = (
            f"make room, or lower hits.spool_limit ({_size(spool_limit)}): evidence waits there while a store is down"
        )
        return Finding("disk", Outcome.WARN, f"{_size(free)} free below {folder}", mend)
    return Finding("disk", Outcome.OK, f"{_size(free)} free below {folder}")


def _size(octets: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if octets >= size:
            return f"{octets / size:.3g} {unit}"
    return f"{octets} B"


# ---- the running server ---------------------------------------------------------------------------------------------


def processes(status: Mapping[str, object]) -> dict[str, int]:
    """The processes of a running server by name, from its status; the supervisor is told by its children."""
    told = status.get("processes")
    found = (
        {str(one["name"]): int(one["pid"]) for one in told if isinstance(one, dict)} if isinstance(told, list) else {}
    )
    for pid in list(found.values()):
        with contextlib.suppress(OSError, ValueError, IndexError):
            found["supervisor"] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            break
    return found


def server(status: Mapping[str, object], digest: str, wait: float) -> Iterator[Finding]:
    """Whether a running server is well, and holds what is written.

    Args:
        status: What it says of itself.
        digest: Of the policy as it is written now; empty where it can not be compiled.
        wait: Seconds for its metrics.
    """
    check = "server"
    missing = [name for name, pid in processes(status).items() if not pid]
    if missing:
        yield Finding(check, Outcome.FAIL, f"{', '.join(missing)} died and is being started again", "see its log")
    else:
        yield Finding(check, Outcome.OK, f"runs, version {status.get('version')}, {status.get('workers')} workers")
    check, reload = "policy in force", status.get("last_reload")
    serial = status.get("generation")
    if isinstance(reload, dict) and reload.get("ok") is False:
        mend = "`interdict check` names what is wrong; then `interdict reload`"
        yield Finding(check, Outcome.FAIL, f"the last reload failed; generation {serial} stayed", mend)
    elif digest and digest != status.get("digest"):
        mend = "`interdict reload` puts what is written into force"
        yield Finding(check, Outcome.WARN, f"generation {serial} is not what is written now", mend)
    else:
        yield Finding(check, Outcome.OK, f"generation {serial}" + (", as it is written now" if digest else ""))
    lost = status.get("hits_lost")
    if isinstance(lost, int) and lost:
        mend = "make room on the disk, or raise hits.spool_limit; the table `gap` tells when"
        yield Finding("evidence", Outcome.WARN, f"{lost} hits were lost since the start", mend)
    else:
        yield Finding("evidence", Outcome.OK, "no hit was lost since the start")
    if isinstance(status.get("metrics"), str):
        yield _metrics(str(status["metrics"]), wait)


def _metrics(listener: str, wait: float) -> Finding:
    host, _, number = listener.rpartition(":")
    address = host.strip("[]")
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    url = f"http://{format_address(reachable, int(number))}/metrics"
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=wait) as reply:
            octets = len(reply.read())
    except OSError as error:
        return Finding("metrics", Outcome.FAIL, f"{url}: {error}", "see the log of the recorder")
    return Finding("metrics", Outcome.OK, f"{url}, {_size(octets)}")
