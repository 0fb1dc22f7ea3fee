"""The verbs of `interdict`: what they take, what they print where, what they exit with.

Each verb imports what it needs when it is called, so that `serve` starts without what only the others show with.
Answers go to standard output, whatever went wrong to standard error; a mistake of the person at the keyboard is one
clear sentence with its mend and never a traceback. All verbs stand here, one after the other, hence the many lines.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import date, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from resolver import __version__

if TYPE_CHECKING:
    from resolver.app.machine import StatePaths
    from resolver.cli.export import Chosen
    from resolver.config import Config, Endpoint
    from resolver.policy.explain import Explanation

DONE, NO, BROKEN = 0, 1, 2
_EXIT_CODES = """
\b
Exit codes:
  0  done
  1  the answer is no: a check failed, the server refused, nobody replied
  2  wrong usage, or a configuration that can not be used
"""
_RELOAD_SECONDS = 600.0
_STATUS_SECONDS = 10.0
_SHELLS = ("bash", "zsh", "fish")

_F = TypeVar("_F", bound=Callable[..., object])
_T = TypeVar("_T")


class Failure(click.ClickException):
    """Ends a verb whose answer is no: lines for standard error, and the exit code."""

    exit_code = NO

    def show(self, file: object = None) -> None:
        """Print the lines as they are."""
        click.echo(self.message, err=True)


class Broken(Failure):
    """Ends a verb whose configuration can not be used."""

    exit_code = BROKEN


class _Verbs(click.Group):
    """Turns what the floors below raise about configuration and machine into a `Failure`, for every verb alike."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            from resolver.app.control import ControlError
            from resolver.app.machine import SettingsError
            from resolver.evidence.store import StoreError
            from resolver.policy.source import PolicyError

            if isinstance(error, PolicyError | SettingsError):
                raise Broken(str(error)) from None
            if isinstance(error, ControlError | StoreError):
                raise Failure(str(error)) from None
            raise


def _keep_config(ctx: click.Context, _: click.Parameter, chosen: str | None) -> None:
    if chosen is not None:
        ctx.meta["config"] = chosen


def _takes_config(verb: _F) -> _F:
    return click.option(
        "-c", "--config", metavar="FILE", type=click.Path(dir_okay=False), expose_value=False, callback=_keep_config,
        help="Configuration; else $INTERDICT_CONFIG, else /etc/interdict/interdict.yaml, else the defaults.",
    )(verb)  # fmt: skip


def _takes_state_dir(verb: _F) -> _F:
    return click.option(
        "--state-dir", metavar="DIR", type=click.Path(path_type=Path),
        help="The running server's state folder, as `interdict status` shows it; by default as the configuration says. "
        "With it the configuration is not read: the way in while that is broken.",
    )(verb)  # fmt: skip


def _state_paths(state_dir: Path | None) -> "StatePaths":
    from resolver.app.machine import StatePaths, state_paths

    return StatePaths(state_dir.resolve()) if state_dir is not None else state_paths(_read_config()[0])


def _speaks_json(verb: _F) -> _F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(verb)


def _config_path() -> Path | None:
    from resolver.app.machine import find_config

    return find_config(click.get_current_context().meta.get("config"))


def _read_config() -> "tuple[Config, str]":
    """The configuration, and what to call its file in messages."""
    from resolver.app.machine import read_config

    path = _config_path()
    return read_config(path), str(path) if path is not None else "defaults"


def _print_json(value: object) -> None:
    def written(other: object) -> str:
        if isinstance(other, datetime | date):
            return other.isoformat()
        raise TypeError(type(other))

    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=written))


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from resolver.hot._scan_cy import is_compiled

        hot = "compiled" if is_compiled() else "plain"
        click.echo(f"interdict {__version__}, {hot} hot path, Python {sys.version.split()[0]}")
        ctx.exit()


@click.group(cls=_Verbs, epilog=_EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Print the version, and whether the hot path runs compiled or plain.",
)  # fmt: skip
@_takes_config
def interdict() -> None:
    """A DNS resolver that enforces government app bans.

    \b
    Examples:
      interdict serve --config /etc/interdict/interdict.yaml
      interdict check
      interdict explain weixin.qq.com --client 10.1.2.3
      interdict query wechat.com
    """


def main() -> None:
    """Run the command."""
    interdict(prog_name="interdict")


# ---- the server -----------------------------------------------------------------------------------------------------


@interdict.command(epilog=_EXIT_CODES)
@_takes_config
def serve() -> None:
    """Run the resolver until SIGTERM or Ctrl-C.

    Prints what is in force once it answers, and logs to standard error. SIGHUP does what `interdict reload` does.

    \b
    Example:
      interdict serve --config interdict.yaml
    """
    import logging

    from resolver.app.supervisor import StartError
    from resolver.app.supervisor import serve as run

    stamp = "" if _logs_to_journal() else "%(asctime)s "
    logging.basicConfig(format=f"{stamp}%(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        code = run(_config_path(), announce=click.echo)
    except StartError as error:
        raise Broken(str(error)) from None
    sys.exit(code)


def _logs_to_journal() -> bool:
    """Whether standard error goes to systemd's journal, which stamps the time (systemd.exec(5), $JOURNAL_STREAM)."""
    found = os.fstat(2)
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


@interdict.command(epilog=_EXIT_CODES)
@_takes_config
@_takes_state_dir
@_speaks_json
def status(as_json: bool, state_dir: Path | None) -> None:
    """Show what a running server does.

    \b
    Examples:
      interdict status
      interdict status --json | jq .orders
      interdict status --state-dir /var/lib/interdict
    """
    from resolver.app import control

    found = control.ask(_state_paths(state_dir).run, "status", _STATUS_SECONDS)
    if as_json:
        _print_json(found)
        return
    from resolver.cli import screen

    screen.show_status(found)


@interdict.command(epilog=_EXIT_CODES)
@_takes_config
@_takes_state_dir
@_speaks_json
def reload(as_json: bool, state_dir: Path | None) -> None:
    """Put the policy as it is written now into force.

    It is compiled aside and swapped in without losing a query. Read anew: groups, allowed_networks, policy and all
    documents. Where something is wrong with them, the policy in force stays, every problem is printed, and the exit
    code is 1.

    \b
    Example:
      interdict reload && interdict status
    """
    from resolver.app import control

    found = control.ask(_state_paths(state_dir).run, "reload", _RELOAD_SECONDS)
    is_done = found.get("ok") is True
    if as_json:
        _print_json(found)
    else:
        for kind in ("problems", "warnings"):
            for line in _texts(found.get(kind)):
                click.echo(line if kind == "problems" else f"warning: {line}", err=True)
        in_force = f"generation {found.get('generation')}"
        click.echo(
            f"{in_force} is in force" if is_done else f"not reloaded; {in_force} stays in force", err=not is_done
        )
    sys.exit(DONE if is_done else NO)


def _texts(found: object) -> list[str]:
    return [str(text) for text in found] if isinstance(found, list) else []


# ---- the policy -----------------------------------------------------------------------------------------------------


@interdict.command(epilog=_EXIT_CODES)
@_takes_config
@_speaks_json
@click.option("--strict", is_flag=True, help="Exit with 1 where there are warnings.")
def check(as_json: bool, strict: bool) -> None:
    """Check the configuration and all documents.

    Compiles them and tells what would be in force. Needs no running server and changes nothing. Problems come all at
    once, each with file, line, column and what to write; then the exit code is 2. Warnings are about what is sound but
    surely not meant.

    \b
    Examples:
      interdict check --config interdict.yaml
      interdict check --strict && interdict reload
    """
    from dataclasses import asdict

    from resolver.app.compiler import compile_policy
    from resolver.cli.check import look_over
    from resolver.policy.source import PolicyError

    at = time.time()
    try:
        config, source = _read_config()
        compiled = compile_policy(config, source, serial=1, at=at)
    except PolicyError as error:
        if not as_json:
            raise
        _print_json({"ok": False, "problems": [asdict(problem) for problem in error.problems]})
        sys.exit(BROKEN)
    report = look_over(config, source, compiled, at)
    if as_json:
        _print_json({"ok": True, "problems": [], **asdict(report)})
    else:
        from resolver.cli import screen

        screen.show_check(report)
    sys.exit(NO if strict and report.warnings else DONE)


def _parsed(parse: Callable[[str], _T]) -> Callable[[click.Context, click.Parameter, str | None], _T | None]:
    """An option's callback that reads its text; what `parse` raises as ValueError says what to write instead."""

    def read(_: click.Context, __: click.Parameter, text: str | None) -> _T | None:
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return read


def _parse_name(text: str) -> bytes:
    from resolver.wire.name import BadName, from_text

    try:
        return from_text(text)
    except BadName as error:
        raise ValueError(f"{error}; write a name such as weixin.qq.com") from None


def _parse_address(text: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address; write for example 10.1.2.3") from None


def _parse_network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address or network; write for example 10.1.2.3 or 10.1.0.0/16") from None


def _parse_moment(text: str) -> float:
    """Unix seconds of an instant or a day (RFC 3339 §5.6); a day alone is its midnight in UTC."""
    from resolver.policy.documents import parse_date, parse_instant

    return parse_instant(text if "T" in text else f"{parse_date(text)}T00:00:00Z").timestamp()


def _parse_server(text: str) -> "Endpoint":
    """ADDR or ADDR:PORT, with brackets around an IPv6 address that a port follows."""
    from resolver.config import Endpoint, parse_endpoint

    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    with contextlib.suppress(ValueError):
        return Endpoint(str(ip_address(bare)), 53)
    try:
        return parse_endpoint(text)
    except ValueError:
        raise ValueError(f"{text!r} is no server; write 192.0.2.53, 192.0.2.53:5300 or [2001:db8::53]:5300") from None


@interdict.command(epilog=_EXIT_CODES)
@_takes_config
@_speaks_json
@click.argument("name", callback=_parsed(_parse_name))
@click.option(
    "--client",
    metavar="ADDR",
    callback=_parsed(_parse_address),
    default="127.0.0.1",
    show_default=True,
    help="Who asks.",
)
@click.option("--type", "qtype", metavar="TYPE", default="A", show_default=True, help="The type asked for.")
@click.option(
    "--at", metavar="TIME", callback=_parsed(_parse_moment),
    help="The moment, such as 2023-10-30T00:00:00-04:00; a day alone is its midnight in UTC. By default now.",
)  # fmt: skip
def explain(name: bytes, client: IPv4Address | IPv6Address, qtype: str, at: float | None, as_json: bool) -> None:
    """Tell step by step what NAME gets, and why.

    Judges with the resolver's own code over the configured documents, and needs no running server. The exit code is 0
    whether the name is withheld or not; `--json` tells in `outcome`: withheld, forwarded, local or not-allowed.

    \b
    Examples:
      interdict explain weixin.qq.com
      interdict explain qq.com --client 10.1.2.3 --json | jq -r .outcome
      interdict explain wechat.com --at 2023-10-29
    """
    explanation = _explanation(name, client, qtype, time.time() if at is None else at)
    if as_json:
        from dataclasses import asdict

        _print_json({**asdict(explanation), "recorded": explanation.recorded})
        return
    from resolver.cli import screen

    screen.show_explanation(explanation)


def _explanation(name: bytes, client: IPv4Address | IPv6Address, qtype: str, at: float) -> "Explanation":
    from resolver.app import machine
    from resolver.app.compiler import compile_policy
    from resolver.engine.special import SpecialNames
    from resolver.policy.explain import explain as explain_query
    from resolver.policy.generation import Generation
    from resolver.wire.codes import rcode_text, rtype_from_text
    from resolver.wire.message import WireError, read_query, write_query
    from resolver.wire.name import from_text

    try:
        number = rtype_from_text(qtype)
        query = read_query(write_query(name, number, 0, do=False, cd=False, edns=True, udp_octets=1232))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--type") from None
    except WireError as error:
        said = "" if error.rcode is None else f" but answered {rcode_text(error.rcode)}"
        raise click.BadParameter(
            f"{qtype} is never looked up{said}, whatever the name; write a type such as A", param_hint="--type"
        ) from None
    config, source = _read_config()
    compiled = compile_policy(config, source, serial=1, at=at)
    generation = Generation(memoryview(bytearray(compiled.octets)))
    forward = tuple(from_text(text) for text in config.special_use.forward)
    own = SpecialNames(forward, machine.node_name(config), __version__).answer(query)
    local = None if own is None else own.rcode
    return explain_query(name, number, client, at, generation, compiled.documents, local=local)


# ---- the policy elsewhere -------------------------------------------------------------------------------------------

_FORMATS = ("rpz", "bind", "unbound", "knot", "dnsmasq", "hosts", "adblock", "edl", "json")


def _chooses_policy(verb: _F) -> _F:
    for option in (
        click.option(
            "--at", metavar="TIME", callback=_parsed(_parse_moment), help="The moment, as for explain. By default now."
        ),
        click.option("--group", metavar="NAME", help="Whose policy; by default that of the first group."),
        click.option(
            "--order", "orders", metavar="ID", multiple=True,
            help="This order, whether configured or not; by default the configured ones that are enforced.",
        ),
    ):  # fmt: skip
        verb = option(verb)
    return verb


def _choose(orders: tuple[str, ...], group: str | None, at: float | None) -> "Chosen":
    from resolver.cli import export

    try:
        return export.choose(*_read_config(), orders, group, time.time() if at is None else at)
    except export.Refusal as error:
        raise Failure(str(error)) from None


@interdict.command("export", epilog=_EXIT_CODES)
@_takes_config
@click.argument("form", metavar="FORMAT", type=click.Choice(_FORMATS))
@_chooses_policy
@click.option("--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Where to write.")
@click.option("--strict", is_flag=True, help="Exit with 1 where the format can not say all.")
def export_(
    form: str, orders: tuple[str, ...], group: str | None, at: float | None, output: Path | None, strict: bool
) -> None:
    """Write what is withheld for another resolver or filter.

    FORMAT is rpz, bind, unbound, knot, dnsmasq, hosts, adblock, edl or json. A file is for one group at one moment.
    What the format can not say stands in its comments, and on standard error.

    \b
    Examples:
      interdict export rpz --output /etc/bind/interdict.rpz
      interdict export unbound --order ca-tbs-2025-02-06 --strict
    """
    from resolver.cli.export import remarks
    from resolver.policy.export import Format, write

    written = write(_choose(orders, group, at).extract, Format(form), __version__)
    if output is None:
        click.echo(written.text, nl=False)
    else:
        try:
            output.write_text(written.text)
        except OSError as error:
            raise Failure(f"can not write {output} ({error.strerror}); name another --output") from None
    for line in remarks(written):
        click.echo(line, err=True)
    sys.exit(NO if strict and written.gaps else DONE)


@interdict.command(epilog=_EXIT_CODES)
@_takes_config
@_speaks_json
@click.option("--server", metavar="ADDR[:PORT]", required=True, callback=_parsed(_parse_server), help="Whom to ask.")
@_chooses_policy
@click.option(
    "--reference", metavar="ADDR[:PORT]", callback=_parsed(_parse_server),
    help="A resolver that withholds nothing: allowed names must be answered as it answers them.",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(_FORMATS), help="What was exported: what it could not say is announced."
)
@click.option("--type", "qtype", metavar="TYPE", default="A", show_default=True, help="The type to ask for.")
@click.option("--sample", metavar="N", type=click.IntRange(1), help="Ask for N of the listed names, not for all.")
@click.option(
    "--time-out", metavar="SECONDS", type=click.FloatRange(0.001, 3600), default=2.0, show_default=True,
    help="How long to wait for each reply.",
)  # fmt: skip
def verify_export(
    server: "Endpoint", orders: tuple[str, ...], group: str | None, at: float | None, reference: "Endpoint | None",
    form: str | None, qtype: str, sample: int | None, time_out: float, as_json: bool,
) -> None:  # fmt: skip
    """Ask another resolver whether it withholds what it should.

    It is asked for each listed name, a name below it, its parent, and a name that only looks alike. Exit code 1 where
    it differs from policy in a way that the export did not announce.

    \b
    Examples:
      interdict verify-export --server 192.0.2.53
      interdict verify-export --server 192.0.2.53:5353 --format dnsmasq --reference 192.0.2.1 --sample 50
    """
    from resolver.cli import export
    from resolver.cli.ask import UnknownType
    from resolver.policy.export import Format, write

    chosen = _choose(orders, group, at)
    gaps = write(chosen.extract, Format(form), __version__).gaps if form is not None else ()
    try:
        findings = export.verify(chosen, server, reference, gaps, qtype=qtype.upper(), count=sample, wait=time_out)
    except UnknownType as error:
        raise click.BadParameter(str(error), param_hint="--type") from None
    except export.Refusal as error:
        raise Failure(str(error)) from None
    if as_json:
        _print_json(export.to_json(server, findings))
    else:
        click.echo(export.to_text(server, findings))
    sys.exit(NO if any(map(export.is_unannounced, findings)) else DONE)


# ---- what goes on ---------------------------------------------------------------------------------------------------


@interdict.command(epilog=_EXIT_CODES)
@_takes_config
@_speaks_json
@click.argument("name", callback=_parsed(_parse_name))
@click.argument("qtype", metavar="[TYPE]", default="A")
@click.option(
    "--server", metavar="ADDR[:PORT]", callback=_parsed(_parse_server),
    help="Whom to ask; by default the first `listen` of the configuration.",
)  # fmt: skip
@click.option("--tcp", is_flag=True, help="Ask over TCP.")
@click.option("--dnssec", is_flag=True, help="Ask for DNSSEC records too.")
@click.option(
    "--time-out", metavar="SECONDS", type=click.FloatRange(0.001, 3600), default=5.0, show_default=True,
    help="How long to wait.",
)  # fmt: skip
def query(
    name: bytes, qtype: str, server: "Endpoint | None", tcp: bool, dnssec: bool, time_out: float, as_json: bool
) -> None:
    """Ask a running resolver for NAME.

    Prints the reply as dig does, with Extended DNS Errors spelled out.
    The exit code is 0 when a reply came, whatever it says, and 1 when none came.

    \b
    Examples:
      interdict query wechat.com
      interdict query example.org AAAA --server 192.0.2.53 --tcp
    """
    from resolver.cli import ask

    if server is None:
        config, _ = _read_config()
        server = ask.reachable(config.listen[0])
    try:
        reply = ask.ask(server, name, qtype, tcp=tcp, dnssec=dnssec, wait=time_out)
    except ask.UnknownType as error:
        raise click.BadParameter(str(error), param_hint="TYPE") from None
    except ask.NoReply as error:
        raise Failure(str(error)) from None
    if as_json:
        _print_json(ask.to_json(reply))
    else:
        click.echo(ask.to_text(reply))


@interdict.command(epilog=_EXIT_CODES)
@_takes_config
@_takes_state_dir
@_speaks_json
@click.option(
    "-n", "count", metavar="N", type=click.IntRange(0, 100_000), default=20, show_default=True,
    help="How many hits to begin with.",
)  # fmt: skip
@click.option("--follow/--no-follow", default=True, show_default=True, help="Go on with new hits until Ctrl-C.")
@click.option("--order", metavar="ID", help="Only hits of this order.")
@click.option(
    "--client", metavar="NETWORK", callback=_parsed(_parse_network), help="Only hits of this address or network."
)
@click.option("--app", metavar="ID", help="Only hits of this app.")
def tail(
    count: int,
    follow: bool,
    order: str | None,
    client: IPv4Network | IPv6Network | None,
    app: str | None,
    as_json: bool,
    state_dir: Path | None,
) -> None:
    """Show recorded hits, and new ones as they come.

    With a filter, the newest matches among the last 100,000 hits are shown first. `--json` prints one object a line.

    \b
    Examples:
      interdict tail
      interdict tail --client 10.1.0.0/16 --app wechat
      interdict tail -n 1000 --no-follow --json | jq -r .client | sort | uniq -c
    """
    from resolver.cli import tail as hits
    from resolver.evidence.store import HitLog

    paths = _state_paths(state_dir)
    if state_dir is None and not _read_config()[0].hits.sqlite:
        raise Failure(
            f"hits are not kept in SQLite here; read the files in {paths.hits}, or write hits: {{sqlite: true}}"
        )
    if not paths.sqlite.exists():
        raise Failure(f"no hits in {paths.sqlite}; start `interdict serve` with this configuration first")
    log = HitLog(paths.sqlite)
    write = hits.to_json if as_json else hits.to_text
    try:
        for stored in hits.watch(log, hits.Filter(order, client, app), count, follow=follow, pause=hits.pause):
            click.echo(write(stored))
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Nobody reads on. What is still buffered must not fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        log.close()


# ---- the shell ------------------------------------------------------------------------------------------------------


@interdict.command(epilog=_EXIT_CODES)
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print a script for completion in a shell.

    \b
    Examples:
      eval "$(interdict completion bash)"           in ~/.bashrc
      eval "$(interdict completion zsh)"            in ~/.zshrc
      interdict completion fish > ~/.config/fish/completions/interdict.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(interdict, {}, "interdict", "_INTERDICT_COMPLETE").source())
