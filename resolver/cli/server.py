"""The verbs that run a server or speak with a running one: `serve`, `status`, `reload`, `fetch` and `query`."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from resolver.cli.options import (
    DONE,
    NO,
    Broken,
    Failure,
    config_path,
    exit_codes,
    parse_name,
    parse_server,
    parse_type,
    parsed,
    print_json,
    read_config,
    speaks_json,
    state_paths,
    takes_config,
    takes_state_dir,
)

if TYPE_CHECKING:
    from resolver.app.machine import StatePaths
    from resolver.policy.values import Endpoint

_RELOAD_SECONDS = 600.0
_STATUS_SECONDS = 10.0


@click.command(epilog=exit_codes())
@takes_config
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
        code = run(config_path(), announce=click.echo)
    except StartError as error:
        raise Broken(str(error)) from None
    sys.exit(code)


def _logs_to_journal() -> bool:
    """Whether standard error goes to systemd's journal, which stamps the time (systemd.exec(5), $JOURNAL_STREAM)."""
    found = os.fstat(2)
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


@click.command(epilog=exit_codes("no server is running, or it did not answer"))
@takes_config
@takes_state_dir
@speaks_json
def status(as_json: bool, state_dir: Path | None) -> None:
    """Show what a running server does.

    \b
    Examples:
      interdict status
      interdict status --json | jq .orders
      interdict status --state-dir /var/lib/interdict
    """
    from resolver.app import control

    said = control.ask(state_paths(state_dir).run, "status", _STATUS_SECONDS)
    if as_json:
        print_json(said)
        return
    from resolver.cli.status import show_status

    show_status(said, time.time())


@click.command(epilog=exit_codes("not reloaded, or no server is running"))
@takes_config
@takes_state_dir
@speaks_json
def reload(as_json: bool, state_dir: Path | None) -> None:
    """Put the policy as it is written now into force.

    It is compiled aside and swapped in without losing a query. Read anew: groups, allowed_networks, policy and all
    documents. Where something is wrong with them, the policy in force stays, every problem is printed, and the exit
    code is 1.

    \b
    Example:
      interdict reload && interdict status
    """
    said = ask_reload(state_paths(state_dir))
    if as_json:
        print_json(said)
    else:
        tell_reload(said)
    sys.exit(DONE if said.get("ok") is True else NO)


def ask_reload(paths: "StatePaths") -> dict[str, object]:
    """Have a running server reload, and return what it says once that is done: `ok`, `generation`, `problems`.

    Raises:
        ControlError: No server could be asked.
    """
    from resolver.app import control

    return control.ask(paths.run, "reload", _RELOAD_SECONDS)


def tell_reload(said: Mapping[str, object]) -> None:
    """Print what came of a reload."""
    for kind, before in (("problems", ""), ("warnings", "warning: ")):
        found = said.get(kind)
        for text in found if isinstance(found, list) else []:
            click.echo(f"{before}{text}", err=True)
    if said.get("ok") is True:
        click.echo(f"generation {said.get('generation')} is in force")
    else:
        stays = f"; generation {said['generation']} stays in force" if "generation" in said else ""
        click.echo(f"not reloaded{stays}", err=True)


@click.command(epilog=exit_codes("no server is running, or it did not answer"))
@takes_config
@takes_state_dir
@speaks_json
def fetch(as_json: bool, state_dir: Path | None) -> None:
    """Look after lists and zones kept elsewhere now.

    Comes back at once; `interdict status` shows how it went. Where one changed, the policy is compiled anew and put
    into force.

    \b
    Examples:
      interdict fetch
      interdict fetch --json | jq -r '.zones[]'
    """
    from resolver.app import control

    said = control.ask(state_paths(state_dir).run, "fetch", _STATUS_SECONDS)
    zones = said.get("zones")
    if not isinstance(zones, list):
        raise Failure("the running server knows no `fetch`: it is of another version; restart it")
    if as_json:
        print_json(said)
    elif zones:
        click.echo(f"looking after {', '.join(map(str, zones))}; `interdict status` shows how it went")
    else:
        click.echo("no list or zone is kept elsewhere; those on this machine are read by `interdict reload`")


@click.command(epilog=exit_codes("no reply came"))
@takes_config
@speaks_json
@click.argument("name", callback=parsed(parse_name))
@click.argument("qtype", metavar="[TYPE]", default="A", callback=parsed(parse_type))
@click.option(
    "--server", metavar="ADDR[:PORT]", callback=parsed(parse_server),
    help="Whom to ask; by default the first `listen` of the configuration.",
)  # fmt: skip
@click.option("--tcp", is_flag=True, help="Ask over TCP.")
@click.option("--dnssec", is_flag=True, help="Ask for DNSSEC records too.")
@click.option(
    "--time-out", metavar="SECONDS", type=click.FloatRange(0.001, 3600), default=5.0, show_default=True,
    help="How long to wait.",
)  # fmt: skip
def query(
    name: bytes, qtype: int, server: "Endpoint | None", tcp: bool, dnssec: bool, time_out: float, as_json: bool
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
        config, _ = read_config()
        server = ask.reachable(config.listen[0])
    reply = ask.ask(server, name, qtype, tcp=tcp, dnssec=dnssec, wait=time_out)
    if as_json:
        print_json(ask.to_json(reply))
    else:
        click.echo(ask.to_text(reply))
