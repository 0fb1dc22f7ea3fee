"""`interdict init`: asks what a first configuration has to know, and writes it with comments.

Whatever it asks for can be said by an option; what is neither said nor asked has a default, and is told. The text is
read and compiled before it is written, so that what this writes passes `interdict check --strict`; it is put in place
whole or not at all, and never over something else unless that is asked for.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from resolver.cli.options import Broken, Failure, each_parsed, exit_codes, parse_network, parse_server

if TYPE_CHECKING:
    from resolver.policy.documents import Order
    from resolver.policy.values import Endpoint

_T = TypeVar("_T")
Network = IPv4Network | IPv6Network

SYSTEM_PATH = Path("/etc/interdict/interdict.yaml")
EVERYONE = "everyone"
_ORDERS = ("ca-tbs-2023-02-28", "ca-tbs-2023-10-30")
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_METRICS = "127.0.0.1:9530"
_STATE = "/var/lib/interdict"
_ASK_SECONDS = 2.0
_WIDTH = 116


@dataclass(frozen=True, slots=True)
class GroupWanted:
    """A group, as it is to be written."""

    name: str
    networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class Encryption:
    """The certificate that encrypted listeners show, and what they are called."""

    certificate: str
    key: str
    name: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that is asked.

    Attributes:
        listen: Where queries are taken.
        allowed: Who may ask.
        upstreams: Where allowed names are resolved; empty for the system's.
        groups: Sets of devices besides everyone.
        orders: (id, title) each.
        bound: The groups that the orders bind.
        mode: observe or enforce.
        metrics: Where /metrics is served; None for nowhere.
        state_dir: The folder of state; None to follow the service manager.
        encryption: For encrypted listeners; None to leave them for later.
    """

    listen: tuple["Endpoint", ...]
    allowed: tuple[Network, ...]
    upstreams: tuple["Endpoint", ...]
    groups: tuple[GroupWanted, ...]
    orders: tuple[tuple[str, str], ...]
    bound: tuple[str, ...]
    mode: str
    metrics: "Endpoint | None"
    state_dir: str | None
    encryption: Encryption | None = None


# ---- the text -------------------------------------------------------------------------------------------------------


def configuration_text(wanted: Wanted) -> str:
    """The configuration, with a comment on each line that says what it is for and what else could stand there."""
    return "\n".join(
        (
            "# interdict.yaml, as `interdict init` wrote it. What is not written has its default; every option and its",
            "# limits: deploy/README.md. After a change: interdict check, then interdict reload.",
            "",
            _heading("this node"),
            "",
            "# node: dns-1 # in every hit: which of your servers it was; without this line, the machine's name",
            *_listen(wanted.listen),
            *_networks(wanted.allowed),
            *_state(wanted.state_dir),
            "",
            _heading("where allowed names are resolved"),
            "",
            *_upstreams(wanted.upstreams),
            "",
            _heading("who is bound by what"),
            "",
            *_groups(wanted.groups, wanted.allowed),
            "",
            *_policy(wanted),
            "",
            _heading("evidence and metrics"),
            "",
            "hits:",
            "  keep: 400d # as long as your retention rules say",
            "  spool_limit: 256MiB # room for hits while a store is down; past it they are lost, and that is recorded",
            "",
            *_metrics(wanted.metrics),
            "",
            _heading("encrypted DNS"),
            "",
            *_encrypted(wanted.encryption),
            "",
        )
    )


def _heading(title: str) -> str:
    return f"# ---- {title} ".ljust(119, "-")


def _listed(key: str, values: Iterable[object], comment: str) -> Iterator[str]:
    """A key with a list: on one line where there is room, else a line for each."""
    texts = [json.dumps(str(value)) for value in values]
    line = f"{key}: [{', '.join(texts)}] # {comment}"
    if len(line) <= _WIDTH:
        yield line
        return
    yield f"{key}: # {comment}"
    indent = " " * (len(key) - len(key.lstrip()) + 2)
    yield from (f"{indent}- {text}" for text in texts)


def _listen(endpoints: Sequence["Endpoint"]) -> Iterator[str]:
    is_low = any(endpoint.port < 1024 for endpoint in endpoints)
    more = "ports below 1024 need root or CAP_NET_BIND_SERVICE" if is_low else '"0.0.0.0:53", "[::]:53" for clients'
    yield from _listed("listen", endpoints, f"UDP and TCP; {more}")


def _networks(allowed: Sequence[Network]) -> Iterator[str]:
    yield from _listed("allowed_networks", allowed, "who may ask; everyone else is refused")


def _state(folder: str | None) -> Iterator[str]:
    if folder is None:
        yield f"# state_dir: {_STATE} # policies and evidence; without this line, where the service manager says"
    else:
        yield f"state_dir: {json.dumps(folder)} # written down, so that `interdict status` in a shell finds it"
    yield "# user: interdict # the account to change to once the ports are open, where root starts this"


def _upstreams(upstreams: Sequence["Endpoint"]) -> Iterator[str]:
    if not upstreams:
        yield "upstreams: system # those of /etc/resolv.conf; better, validating resolvers of your own:"
        yield "#  - {address: 192.0.2.53}"
        yield "#  - {address: 192.0.2.54, transport: tls, name: dns.example.net}"
        return
    yield "upstreams: # validating resolvers: Interdict does not validate DNSSEC itself; `system` for /etc/resolv.conf"
    yield "#  - {address: 192.0.2.54, transport: tls, name: dns.example.net} # asked over TLS, or https"
    for upstream in upstreams:
        port = "" if upstream.port == 53 else f", port: {upstream.port}"
        yield f"  - {{address: {json.dumps(upstream.host)}{port}}}"


def _groups(groups: Sequence[GroupWanted], allowed: Sequence[Network]) -> Iterator[str]:
    yield "groups: # sets of devices; a device is in one, by the longest prefix over all groups"
    families = {network.version for network in allowed}
    whole = [network for version, network in ((4, "0.0.0.0/0"), (6, "::/0")) if version in families]
    yield f"  - {{name: {EVERYONE}, networks: {json.dumps(whole)}}}"
    for group in groups:
        yield f"  - name: {group.name}"
        yield from _listed("    networks", group.networks, "its devices, by address")
    if not groups:
        yield '#  - {name: phones, networks: ["10.20.0.0/16"]} # an order that is for phones alone names this group'


def _policy(wanted: Wanted) -> Iterator[str]:
    yield "policy:"
    yield "  documents: [shipped] # the catalogue, and folders of your own: [shipped, /etc/interdict/blocklists]"
    if not wanted.orders:
        yield "  orders: [] # nothing is withheld yet; {order: ID, groups: [everyone]} names one of blocklists/orders"
    else:
        yield "  orders: # mode: observe only records; action: nodata, refused, drop or sinkhole in place of nxdomain"
        groups = json.dumps(list(wanted.bound)).replace('"', "")
        for order_id, title in wanted.orders:
            yield f"    # {title}"
            yield f"    - {{order: {order_id}, groups: {groups}, mode: {wanted.mode}}}"
    yield "  block_ttl: 30s # how long a device may remember that a name is withheld"
    yield "#  sinkhole: {ipv4: [192.0.2.80]} # the notice page, for lines with action: sinkhole"
    yield "#  ways_round: {doh-resolvers: false} # names of public resolvers are withheld unless switched off here"


def _metrics(listener: "Endpoint | None") -> Iterator[str]:
    yield "metrics:"
    if listener is None:
        yield f'  listen: null # no metrics; "{_METRICS}" for Prometheus on this machine'
    else:
        yield f'  listen: "{listener}" # for Prometheus; there is no password on it, null switches it off'


def _encrypted(encryption: Encryption | None) -> Iterator[str]:
    given = encryption or Encryption(f"{_STATE}/tls/fullchain.pem", f"{_STATE}/tls/privkey.pem", "dns.example.org")
    lines = (
        "encrypted: # needs a certificate that clients trust; it is read again when it is renewed",
        f"  certificate: {json.dumps(given.certificate)} # with those between it and the root",
        f"  key: {json.dumps(given.key)} # readable by the account that serves",
        f"  name: {json.dumps(given.name)} # what clients call this server",
        '  dot: ["0.0.0.0:853", "[::]:853"] # DNS over TLS',
        '  doh: ["0.0.0.0:443", "[::]:443"] # DNS over HTTPS',
        '#  doq: ["0.0.0.0:853", "[::]:853"] # DNS over QUIC',
        '#  doh3: ["0.0.0.0:443", "[::]:443"] # DNS over HTTPS by HTTP/3',
    )
    yield from lines if encryption is not None else (f"#{line.removeprefix('#')}" for line in lines)


# ---- what there is on this machine ----------------------------------------------------------------------------------


def own_networks(routes: str, addresses: str) -> tuple[tuple[Network, ...], tuple[Network, ...]]:
    """The networks of this machine's interfaces: (private ones, others). Link-local ones are left out.

    Args:
        routes: /proc/net/route.
        addresses: /proc/net/if_inet6.
    """
    found: dict[Network, None] = {}
    for line in routes.splitlines()[1:]:
        columns = line.split()
        with contextlib.suppress(ValueError, IndexError):
            destination, gateway, mask = (_ipv4(columns[i]) for i in (1, 2, 7))
            if gateway == "0.0.0.0" and mask not in ("0.0.0.0", "255.255.255.255"):
                found[ip_network(f"{destination}/{mask}", strict=False)] = None
    for line in addresses.splitlines():
        columns = line.split()
        with contextlib.suppress(ValueError, IndexError):
            address, length = ip_address(bytes.fromhex(columns[0])), int(columns[2], 16)
            if length not in (0, 128):
                found[ip_network(f"{address}/{length}", strict=False)] = None
    usable = [network for network in found if not network.is_link_local and not network.is_loopback]
    private = tuple(network for network in usable if network.is_private)
    return private, tuple(network for network in usable if not network.is_private)


def _ipv4(column: str) -> str:
    """An address of the kernel's table: a number in the machine's order of octets."""
    return str(ip_address(int(column, 16).to_bytes(4, sys.byteorder)))


def _proc(name: str) -> str:
    try:
        return Path("/proc/net", name).read_text()
    except OSError:
        return ""


def _shipped_orders() -> dict[str, "Order"]:
    from resolver.feeds.files import read_documents, shipped

    return dict(read_documents([shipped()]).orders)


# ---- questions ------------------------------------------------------------------------------------------------------


class _Asker:
    """Finds out what is wanted: by an option, else by asking, else by the default, which is then told."""

    def __init__(self, *, may_ask: bool) -> None:
        self._may_ask = may_ask

    def one(self, question: str, given: _T | None, default: _T, parse: Callable[[str], _T], option: str) -> _T:
        """One answer; the default is shown as it would be typed, which `str` says."""
        if given is not None:
            return given
        return self._ask(question, _typed(default), default, parse, option)

    def some(
        self, question: str, given: Sequence[_T], default: Sequence[_T], parse: Callable[[str], _T], option: str
    ) -> tuple[_T, ...]:
        """Several answers, typed with blanks between them."""
        if given:
            return tuple(given)
        typed = " ".join(map(_typed, default)) or "none"

        def parse_all(text: str) -> tuple[_T, ...]:
            words = [] if text.strip() in ("", "none") else text.replace(",", " ").split()
            return tuple(dict.fromkeys(parse(word) for word in words))

        return self._ask(question, typed, tuple(default), parse_all, option)

    def _ask(self, question: str, typed: str, default: _T, parse: Callable[[str], _T], option: str) -> _T:
        if not self._may_ask:
            click.echo(f"{question.rstrip('?')}: {typed} ({option} says otherwise)", err=True)
            return default

        def checked(text: str) -> _T:
            if text == typed:
                return default
            try:
                return parse(text)
            except ValueError as error:
                raise click.BadParameter(str(error)) from None

        return click.prompt(question, default=typed, value_proc=checked, err=True)


def _typed(value: object) -> str:
    return "none" if value is None else str(value)


def _parse_metrics(text: str) -> "Endpoint | None":
    if text == "none":
        return None
    from resolver.policy.values import parse_endpoint

    return parse_endpoint(text)


def parse_group(text: str) -> GroupWanted:
    """NAME=NETWORK,NETWORK.

    Raises:
        ValueError: Anything else, with what to write.
    """
    name, equals, networks = text.partition("=")
    if not equals or not networks:
        raise ValueError(f"{text!r} is no group with networks; write for example phones=10.20.0.0/16,2001:db8:20::/48")
    return GroupWanted(name.strip(), tuple(parse_network(one.strip()) for one in networks.split(",")))


def _one_of(names: Iterable[str], what: str) -> Callable[[str], str]:
    known = list(names)

    def parse(text: str) -> str:
        if text not in known:
            from resolver.policy.source import did_you_mean

            raise ValueError(f"there is no {what} {text!r}{did_you_mean(text, known)}")
        return text

    return parse


@dataclass(frozen=True, slots=True)
class _Given:
    """What the options said; None or empty where they said nothing."""

    listen: tuple["Endpoint", ...]
    upstreams: tuple[str, ...]
    allowed: tuple[Network, ...]
    groups: tuple[GroupWanted, ...]
    orders: tuple[str, ...]
    bound: tuple[str, ...]
    mode: str | None
    metrics: str | None
    state_dir: str | None
    encryption: Encryption | None


def _settle(given: _Given, ask: _Asker, *, may_ask: bool, is_root: bool, at: float) -> Wanted:
    """Everything that is wanted, by options, questions and defaults."""
    from resolver.policy.values import Endpoint

    if is_root:
        listen_by_default = (Endpoint("0.0.0.0", 53), Endpoint("::", 53))
    else:
        listen_by_default = (Endpoint("127.0.0.1", 5300), Endpoint("::1", 5300))
    listen = ask.some("Listen on which addresses?", given.listen, listen_by_default, parse_server, "--listen")
    upstreams = ask.some("Forward to which upstreams?", given.upstreams, ("system",), _upstream_word, "--upstream")
    private, others = own_networks(_proc("route"), _proc("if_inet6"))
    if others and not given.allowed:
        click.echo(f"{', '.join(map(str, others))}: public, so left out; --allow takes it in", err=True)
    allowed = ask.some(
        "Who may ask (networks)?", given.allowed, (*_LOOPBACK, *private), parse_network, "--allow"
    )  # fmt: skip
    groups = ask.some("Groups besides everyone (NAME=NETWORK,NETWORK)?", given.groups, (), parse_group, "--group")
    allowed = _with_groups(allowed, groups)
    names = [EVERYONE, *(group.name for group in groups)]
    orders = _shipped_orders()
    if may_ask and not given.orders:
        _show_orders(orders, at)
    ids = ask.some("Which orders are in force?", given.orders, _ORDERS, _one_of(orders, "order"), "--order")
    chosen = tuple(order_id for order_id in ids if _one_of((*orders, "none"), "order")(order_id) != "none")
    bound: tuple[str, ...] = ()
    if chosen:
        usual = names[1:] or names
        bound = ask.some("They bind which groups?", given.bound, usual, _one_of(names, "group"), "--for")
        bound = tuple(_one_of(names, "group")(name) for name in bound)
    mode = given.mode
    if chosen and mode is None:
        mode = ask.one("enforce, or only observe?", None, "enforce", _one_of(("enforce", "observe"), "mode"), "--mode")
    metrics = ask.one(
        "Metrics for Prometheus on which address?", given.metrics, _METRICS,
        lambda text: _typed(_parse_metrics(text)), "--metrics",
    )  # fmt: skip
    state_dir = given.state_dir or (_STATE if is_root else None)
    return Wanted(
        listen, allowed, tuple(parse_server(word) for word in upstreams if word != "system"), groups,
        tuple((order_id, orders[order_id].title.en) for order_id in chosen), bound or (EVERYONE,), mode or "enforce",
        _parse_metrics(metrics), state_dir, given.encryption,
    )  # fmt: skip


def _with_groups(allowed: tuple[Network, ...], groups: Iterable[GroupWanted]) -> tuple[Network, ...]:
    """Who may ask, and whoever is in a group: an order for devices that are refused would be for nobody."""
    from resolver.policy.findings import is_within

    for network in (network for group in groups for network in group.networks):
        if not any(is_within(network, one) for one in allowed):
            click.echo(f"{network} may ask as well: it is in a group", err=True)
            allowed = (*allowed, network)
    return allowed


def _upstream_word(text: str) -> str:
    if text != "system":
        parse_server(text)
    return text


def _show_orders(orders: dict[str, "Order"], at: float) -> None:
    from resolver.policy.explain import standing_of

    for order_id, order in sorted(orders.items()):
        standing, _, _ = standing_of(order, at)
        click.echo(f"  {order_id:28} {standing.replace('-', ' '):12} {order.title.en}", err=True)


# ---- the verb -------------------------------------------------------------------------------------------------------


@click.command(epilog=exit_codes("the file is there already"))
@click.argument("path", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="Ask nothing: what no option says has its default.")
@click.option("--force", is_flag=True, help="Write over what is there.")
@click.option("--print", "to_stdout", is_flag=True, help="Print the configuration, and write nothing.")
@click.option(
    "--listen", metavar="ADDR[:PORT]", multiple=True, callback=each_parsed(parse_server),
    help="Take queries there, over UDP and TCP; may be repeated.",
)  # fmt: skip
@click.option(
    "--upstream", "upstreams", metavar="ADDR[:PORT]", multiple=True, callback=each_parsed(_upstream_word),
    help="Forward there, or `system` for the resolvers of this machine; may be repeated.",
)  # fmt: skip
@click.option("--no-ask", is_flag=True, help="Do not ask the upstreams whether they answer.")
@click.option(
    "--allow", "allowed", metavar="NETWORK", multiple=True, callback=each_parsed(parse_network),
    help="Who may ask; may be repeated. By default the private networks of this machine's interfaces.",
)  # fmt: skip
@click.option(
    "--group", "groups", metavar="NAME=NETWORK,...", multiple=True, callback=each_parsed(parse_group),
    help="A group of devices besides everyone; may be repeated.",
)  # fmt: skip
@click.option(
    "--order", "orders", metavar="ID", multiple=True,
    help="Put this order into force, or `none`; may be repeated. By default the federal Canadian ones of 2023.",
)  # fmt: skip
@click.option(
    "--for", "bound", metavar="GROUP", multiple=True,
    help="The orders bind this group; may be repeated. By default those of --group, else everyone.",
)  # fmt: skip
@click.option("--mode", type=click.Choice(["enforce", "observe"]), help="enforce, or observe: only record.")
@click.option("--metrics", metavar="ADDR:PORT", help="Serve /metrics there, or `none`.")
@click.option("--state-dir", metavar="DIR", help="Folder of policies and evidence.")
@click.option("--certificate", metavar="FILE", help="For DNS over TLS and HTTPS; with --key and --name.")
@click.option("--key", metavar="FILE", help="Its private key.")
@click.option("--name", metavar="NAME", help="What clients call this server.")
def init(
    path: Path | None, yes: bool, force: bool, to_stdout: bool, listen: tuple["Endpoint", ...],
    upstreams: tuple[str, ...], no_ask: bool, allowed: tuple[Network, ...], groups: tuple[GroupWanted, ...],
    orders: tuple[str, ...], bound: tuple[str, ...], mode: str | None, metrics: str | None, state_dir: str | None,
    certificate: str | None, key: str | None, name: str | None,
) -> None:  # fmt: skip
    """Write a first configuration, with comments.

    Asks a few questions on a terminal; each has an option. PATH is /etc/interdict/interdict.yaml for root, else
    interdict.yaml here. It is written whole or not at all, and over nothing unless --force is given.

    \b
    Examples:
      interdict init
      interdict init --yes --upstream 192.0.2.53 --group phones=10.20.0.0/16 --mode observe
      interdict init --print --order ca-tbs-2025-02-06
    """
    given_all = [text for text in (certificate, key, name) if text is not None]
    if given_all and len(given_all) < 3:
        raise click.UsageError("--certificate, --key and --name belong together; write all three, or none")
    encryption = Encryption(certificate, key, name) if certificate and key and name else None
    is_root = os.getuid() == 0
    target = path or (SYSTEM_PATH if is_root else Path("interdict.yaml"))
    if target.exists() and not force and not to_stdout:
        raise _there(target)
    may_ask = not yes and sys.stdin.isatty()
    given = _Given(
        listen, upstreams, allowed, groups, orders, bound, mode, metrics, state_dir, encryption
    )  # fmt: skip
    try:
        wanted = _settle(given, _Asker(may_ask=may_ask), may_ask=may_ask, is_root=is_root, at=time.time())
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    text = configuration_text(wanted)
    _check(text, target)
    if not no_ask:
        _ask_upstreams(text)
    if to_stdout:
        click.echo(text, nl=False)
        return
    write_whole(target, text, force=force)
    _tell_next(target)


def _check(text: str, target: Path) -> None:
    """Read and compile the text as the server will.

    Raises:
        Broken: What was wanted does not go together.
    """
    from resolver import config as configuration
    from resolver.cli import check
    from resolver.policy.source import PolicyError

    try:
        config = configuration.read(text, str(target))
        compiled = check.load(config, str(target), time.time())
    except PolicyError as error:
        raise Broken("\n".join(problem.message for problem in error.problems)) from None
    report = check.look_over(config, str(target), compiled, time.time())
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)


def _ask_upstreams(text: str) -> None:
    """Tell which upstreams do not answer; that is no reason to write nothing."""
    from resolver import config as configuration
    from resolver.app.doctor import Outcome, Questions, upstreams
    from resolver.app.machine import upstream_addresses

    config = configuration.read(text, "interdict.yaml")
    for finding in upstreams(upstream_addresses(config), Questions(wait=_ASK_SECONDS)):
        if finding.outcome is not Outcome.OK:
            click.echo(f"{finding.check}: {finding.found}; {finding.mend}", err=True)


def write_whole(target: Path, text: str, *, force: bool) -> None:
    """Put a text in place: all of it, or nothing.

    Raises:
        Failure: Something is there already, and `force` is not given.
        Broken: The folder can not be written to.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fd, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(fd, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(aside, 0o644)
            if force:
                os.replace(aside, target)
            else:
                os.link(aside, target)  # fails where somebody was faster
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)
    except FileExistsError:
        raise _there(target) from None
    except OSError as error:
        raise Broken(f"{target} can not be written ({error.strerror}); write another PATH, or --print") from None


def _there(target: Path) -> Failure:
    return Failure(f"{target} is there already; --force writes over it, another PATH leaves it")


def _tell_next(target: Path) -> None:
    named = "" if target == SYSTEM_PATH else f" --config {target}"
    click.echo(f"{target} is written. Next:")
    for verb, why in (
        ("doctor", "what this machine has against it"),
        ("check", "what would be in force"),
        ("serve", "run it"),
    ):
        click.echo(f"  interdict {verb}{named}".ljust(len(named) + 20) + f"  # {why}")
