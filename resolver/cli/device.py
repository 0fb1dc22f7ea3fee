"""`interdict device`: the register of devices, by hand; from exports of device management by `device_import.py`.

The verbs work on the files of the state folder, so that it does not matter whether the server runs; where it does, its
workers notice a change within a quarter of a second. A token is shown once, when it is made: what is kept tells nobody
what it was.

What the verbs need is imported when they are called, as with all verbs.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from resolver.cli.device_import import import_
from resolver.cli.options import (
    each_parsed,
    exit_codes,
    parsed,
    print_json,
    read_config,
    speaks_json,
    state_paths,
    takes_config,
    takes_state_dir,
)
from resolver.cli.register import UNUSABLE, checked_group, held_devices, now, opened, parse_text, takes_group

if TYPE_CHECKING:
    from resolver.app.enrolled import Enrolled, Issued
    from resolver.config import Config

_F = TypeVar("_F", bound=Callable[..., object])

_KNOWN = exit_codes("there is no such device, or the register can not be written", UNUSABLE)
_MOST_ROWS = 1000  # that people get at once; laying a table out takes time for each
STATES = ("in-force", "unproved", "revoked")


@click.group(epilog=exit_codes("the answer is no: the message says why, and nothing changed", UNUSABLE))
def device() -> None:
    """Say which devices there are, and what proves each of them.

    \b
    Examples:
      interdict device add phone-7 --group phones --owner jdoe@example.org
      interdict device import intune.csv --group phones --out devices.csv
      interdict device list --group phones
      interdict device revoke phone-7
    """


# ---- what the verbs share -------------------------------------------------------------------------------------------


def _span(written: str) -> float:
    from resolver.policy.values import parse_duration

    return parse_duration(written)


def _takes_certificates(verb: _F) -> _F:
    return click.option(
        "--certificate", "certificates", metavar="NAME", multiple=True, callback=each_parsed(parse_text),
        help="A name in its client certificate: of subjectAltName, or its common name.",
    )(verb)  # fmt: skip


def _moment(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).replace(microsecond=0)


def _day(at: float | None) -> str:
    return "" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}Z"


def _uses(config: "Config", token: str) -> dict[str, str]:
    """How a token is shown, by transport; nothing where the resolver has no name."""
    encrypted = config.encrypted
    if encrypted.name is None or not token:
        return {}
    ports = {endpoint.port for endpoint in encrypted.doh} or {443}
    port = "" if 443 in ports else f":{min(ports)}"
    url = f"https://{encrypted.name}{port}{encrypted.path}"
    return {
        "https": f"{url}/{token}",
        "tls": f"{token}.{encrypted.name}",
        "bearer": f"Authorization: Bearer {token}",
    }


def _show_issued(config: "Config", issued: "Issued", verb: str, as_json: bool) -> None:
    uses = _uses(config, issued.token)
    if as_json:
        found = {"name": issued.name, "group": issued.group, "serial": issued.serial, "token": issued.token or None}
        print_json({**found, "uses": uses})
        return
    from resolver.cli import table

    click.echo(f"{verb} {issued.name}, in group {issued.group}")
    if issued.token:
        lines = [("token", issued.token), *((f"  by {name}", use) for name, use in uses.items())]
        table.show(table.facts(lines))
        click.echo("it is not shown again: only its digest is kept")
        if not uses:
            click.echo("how it is used depends on the resolver's name; write encrypted: {name: dns.example.org}")


# ---- devices by hand ------------------------------------------------------------------------------------------------


@device.command(epilog=exit_codes("another device has this name, serial or certificate", UNUSABLE))
@click.argument("name", callback=parsed(parse_text))
@takes_group
@click.option("--owner", metavar="TEXT", callback=parsed(parse_text), help="Whose it is.")
@click.option(
    "--serial", metavar="TEXT", callback=parsed(parse_text), help="Its serial number, by which imports know it."
)
@click.option("--notes", metavar="TEXT", callback=parsed(parse_text), help="Whatever you want to remember.")
@_takes_certificates
@click.option("--no-token", is_flag=True, help="Certificates alone prove it.")
@takes_config
@speaks_json
def add(
    name: str, group: str, owner: str | None, serial: str | None, notes: str | None, certificates: tuple[str, ...],
    no_token: bool, as_json: bool,
) -> None:  # fmt: skip
    """Add a device, and print the token that proves it.

    \b
    Examples:
      interdict device add phone-7 --group phones --owner jdoe@example.org --serial C39XJ0ABCDEF
      interdict device add gate-2 --group servers --certificate gate-2.example.org --no-token
    """
    from resolver.app import machine
    from resolver.app.devices import new_token
    from resolver.app.enrolled import Wanted

    if no_token and not certificates:
        raise click.UsageError("nothing would prove the device; leave --no-token out, or name a --certificate")
    config, _ = read_config()
    token = "" if no_token else new_token()
    wanted = Wanted(name, checked_group(config, group), owner or "", serial or "", notes or "", certificates, token)
    with opened(machine.state_paths(config), make=True) as devices:
        issued = devices.add(wanted, now())
    _show_issued(config, issued, "added", as_json)


@device.command(epilog=_KNOWN)
@click.argument("name")
@click.option(
    "--grace", metavar="SPAN", default="7d", show_default=True, callback=parsed(_span),
    help="How long the token that it has goes on working; 0s for not at all.",
)  # fmt: skip
@_takes_certificates
@click.option("--no-token", is_flag=True, help="Leave its token as it is; for a --certificate more.")
@takes_config
@speaks_json
def renew(name: str, grace: float, certificates: tuple[str, ...], no_token: bool, as_json: bool) -> None:
    """Give a device a fresh token, and print it; a device that was revoked is back with it.

    \b
    Examples:
      interdict device renew phone-7
      interdict device renew phone-7 --grace 0s
      interdict device renew laptop-2 --no-token --certificate laptop-2.example.org
    """
    from resolver.app import machine
    from resolver.app.devices import new_token

    if no_token and not certificates:
        raise click.UsageError("nothing would change; leave --no-token out, or name a --certificate")
    config, _ = read_config()
    token = "" if no_token else new_token()
    with opened(machine.state_paths(config)) as devices:
        issued = devices.renew(name, token, certificates, now(), grace)
    _show_issued(config, issued, "renewed", as_json)


@device.command(epilog=_KNOWN)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option(
    "--credential", metavar="NUMBER", type=int,
    help="Of one device only this, such as a token that leaked; `interdict device show` numbers them.",
)  # fmt: skip
@takes_state_dir
@takes_config
@speaks_json
def revoke(names: tuple[str, ...], credential: int | None, state_dir: Path | None, as_json: bool) -> None:
    """Revoke devices with all that proves them, in all workers within a second.

    From then on they are unknown, whatever network they ask from. `renew` brings one back.

    \b
    Examples:
      interdict device revoke phone-7 phone-8
      interdict device revoke phone-7 --credential 12
    """
    if credential is not None and len(set(names)) > 1:
        raise click.UsageError("a credential is of one device; name this one alone")
    with opened(state_paths(state_dir)) as devices:
        if credential is not None:
            devices.revoke_credential(names[0], credential, now())
            done = [names[0]]
        else:
            done = [one.name for one in devices.revoke(dict.fromkeys(names), now())]
    if as_json:
        print_json({"revoked": done, "credential": credential})
    elif credential is not None:
        click.echo(f"revoked credential {credential} of {names[0]}")
    else:
        click.echo(f"revoked {', '.join(done)}" if done else "nothing to do: revoked already")


@device.command(epilog=_KNOWN)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@takes_group
@takes_config
@speaks_json
def move(names: tuple[str, ...], group: str, as_json: bool) -> None:
    """Move devices to another group.

    \b
    Examples:
      interdict device move phone-7 phone-8 --group staff
    """
    from resolver.app import machine

    config, _ = read_config()
    checked_group(config, group)
    with opened(machine.state_paths(config)) as devices:
        done = [one.name for one in devices.move(dict.fromkeys(names), group)]
    if as_json:
        print_json({"moved": done, "group": group})
    else:
        click.echo(f"moved to {group}: {', '.join(done)}" if done else f"nothing to do: in {group} already")


@device.command(epilog=_KNOWN)
@click.argument("name")
@click.argument("new", callback=parsed(parse_text))
@takes_state_dir
@takes_config
@speaks_json
def rename(name: str, new: str, state_dir: Path | None, as_json: bool) -> None:
    """Call a device otherwise; what proves it stays.

    \b
    Examples:
      interdict device rename phone-7 phone-of-the-minister
    """
    with opened(state_paths(state_dir)) as devices:
        devices.rename(name, new)
    if as_json:
        print_json({"name": new, "was": name})
    else:
        click.echo(f"{name} is called {new} now")


# ---- looking --------------------------------------------------------------------------------------------------------


@device.command("list", epilog=exit_codes("the register can not be read", UNUSABLE))
@click.option("--group", metavar="NAME", help="Those of this group.")
@click.option("--owner", metavar="TEXT", help="Those whose owner has this in it.")
@click.option("--state", type=click.Choice(STATES), help="Those of this state; unproved: nothing proves them any more.")
@click.option(
    "--unseen",
    metavar="SPAN",
    callback=parsed(_span),
    help="Those older than this that were not seen for so long, such as 90d.",
)
@takes_state_dir
@takes_config
@speaks_json
def list_(
    group: str | None, owner: str | None, state: str | None, unseen: float | None, state_dir: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """List devices, with when each was last seen.

    \b
    Examples:
      interdict device list --group phones
      interdict device list --state in-force --unseen 90d --json | jq -r '.[].name'
    """
    from resolver.app.seen import last_seen

    paths, at = state_paths(state_dir), now()
    held, _ = held_devices(paths)
    seen = last_seen(paths.devices)
    found = [
        one
        for one in held
        if group in (None, one.group)
        and (owner is None or owner.lower() in one.owner.lower())
        and state in (None, _state(one, at))
        and (unseen is None or max(one.created, seen.get(one.number, 0)) < at - unseen)
    ]
    if as_json:
        print_json([_described(one, seen.get(one.number), at) for one in found])
        return
    if not found:
        click.echo("none of them is such" if held else "no devices; `interdict device add` and `import` add them")
        return
    from resolver.cli import table

    headings = ("name", "group", "owner", "created", "last seen", "proved by", "state")
    rows = [
        (
            one.name, one.group, one.owner, _day(one.created), _day(seen.get(one.number)) or "never",
            ", ".join(dict.fromkeys(held.proof.value for held in one.credentials if held.is_in_force(at))),
            _state(one, at),
        )
        for one in found[:_MOST_ROWS]
    ]  # fmt: skip
    table.show(table.table(headings, rows))
    if len(found) > _MOST_ROWS:
        click.echo(f"note: {len(found) - _MOST_ROWS} more; narrow the list down, or take all with --json", err=True)


@device.command(epilog=_KNOWN)
@click.argument("name")
@takes_state_dir
@takes_config
@speaks_json
def show(name: str, state_dir: Path | None, as_json: bool) -> None:
    """Show a device and what proves it, each credential with its number.

    \b
    Examples:
      interdict device show phone-7
    """
    from resolver.app.seen import last_seen

    paths, at = state_paths(state_dir), now()
    with opened(paths) as devices:
        found = devices.find(name)
    seen = last_seen(paths.devices).get(found.number)
    if as_json:
        print_json(_described(found, seen, at))
        return
    from resolver.cli import table

    facts = [
        ("name", found.name), ("group", found.group), ("owner", found.owner), ("serial", found.serial),
        ("notes", found.notes), ("created", _day(found.created)), ("last seen", _day(seen) or "never"),
        ("state", _state(found, at) + (f" since {_day(found.revoked)}" if found.revoked else "")),
    ]  # fmt: skip
    rows = [
        (str(held.id), held.proof.value, held.certificate, _day(held.made), _day(held.until), _day(held.revoked))
        for held in found.credentials
    ]
    headings = ("credential", "is a", "with the name", "made", "until", "revoked")
    table.show(table.facts((key, value) for key, value in facts if value), "", table.table(headings, rows))


def _state(one: "Enrolled", at: float) -> str:
    if one.revoked is not None:
        return "revoked"
    return "in-force" if any(held.is_in_force(at) for held in one.credentials) else "unproved"


def _described(one: "Enrolled", seen: int | None, at: float) -> dict[str, object]:
    return {
        "name": one.name,
        "number": one.number,
        "group": one.group,
        "owner": one.owner,
        "serial": one.serial,
        "notes": one.notes,
        "created": _moment(one.created),
        "last_seen": _moment(seen),
        "state": _state(one, at),
        "revoked": _moment(one.revoked),
        "credentials": [
            {
                "credential": held.id,
                "proof": held.proof.value,
                "certificate": held.certificate or None,
                "made": _moment(held.made),
                "until": _moment(held.until),
                "revoked": _moment(held.revoked),
                "in_force": held.is_in_force(at),
            }
            for held in one.credentials
        ],
    }


device.add_command(import_)
