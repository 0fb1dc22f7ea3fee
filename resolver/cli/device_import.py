"""`interdict device import`: brings the register up to what device management exports.

Fresh tokens are on the disk before they are in force, and nothing else has them: what goes wrong in between leaves a
file too many, and never a device whose token nobody knows.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from resolver.cli.options import (
    DONE,
    NO,
    Broken,
    Failure,
    exit_codes,
    print_json,
    read_config,
    speaks_json,
    takes_config,
)
from resolver.cli.register import UNUSABLE, checked_group, held_devices, now, opened

if TYPE_CHECKING:
    from resolver.app.enrolled import Enrolled, Issued, Plan
    from resolver.config import Config
    from resolver.enrol.exports import Export, Listed
    from resolver.policy.source import Problem

_COLUMNS = ("name", "token", "group", "serial")  # of an inventory, as `interdict profile` reads it


@click.command("import", epilog=exit_codes("some devices could not be taken, or none was; it says why", UNUSABLE))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--group", metavar="NAME", help="A group of the configuration; of devices whose group no column says.")
@click.option(
    "--out", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="Where the fresh tokens go: an inventory (CSV, mode 0600) for `interdict profile`.",
)  # fmt: skip
@click.option(
    "--no-token", is_flag=True, help="Make no tokens: for devices that get certificates, or whose tokens the file has."
)
@click.option("--keep-going", is_flag=True, help="Take what is sound, though some lines are not.")
@click.option("--dry-run", is_flag=True, help="Tell what would change, and change nothing.")
@click.option(
    "--revoke-missing", is_flag=True, help="Revoke devices of the groups of this import that are no longer listed."
)
@click.option("--yes", is_flag=True, help="Also where --revoke-missing takes more than half of them.")
@click.option("--name-column", metavar="NAME", help="The column of names, where it is not the known one.")
@click.option("--serial-column", metavar="NAME", help="The column of serial numbers.")
@click.option("--owner-column", metavar="NAME", help="The column of owners.")
@click.option("--group-column", metavar="NAME", help="The column of groups.")
@takes_config
@speaks_json
def import_(
    file: Path, group: str | None, out: Path | None, no_token: bool, keep_going: bool, dry_run: bool,
    revoke_missing: bool, yes: bool, name_column: str | None, serial_column: str | None, owner_column: str | None,
    group_column: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Take the devices of an export of device management: Intune, Jamf, Workspace ONE, Google, or any table.

    A device is known by its serial number, else by its name. One that is known keeps its token and is brought up to
    date, so that importing again every night is sound; one that is new gets a token, which goes to --out.

    \b
    Examples:
      interdict device import intune.csv --group phones --dry-run
      interdict device import intune.csv --group phones --out devices.csv
      interdict device import jamf.json --group phones --out new.csv --revoke-missing
      interdict device import any.csv --name-column Asset --group-column Unit --out new.csv
    """
    from resolver.app import machine
    from resolver.app.enrolled import plan_import
    from resolver.enrol.exports import Column, read_export

    config, _ = read_config()
    default = "" if group is None else checked_group(config, group)
    columns = {
        Column.NAME: name_column, Column.SERIAL: serial_column, Column.OWNER: owner_column, Column.GROUP: group_column
    }  # fmt: skip
    export = read_export(_octets(file), str(file), {column: name for column, name in columns.items() if name})
    listed, problems = _grouped(export, config, default, str(file))
    paths = machine.state_paths(config)
    plan = plan_import(*held_devices(paths), listed)
    problems += [_problem(str(file), one, message) for one, message in plan.problems]
    _tell_export(export, sorted(problems))
    if problems and not keep_going and not dry_run:
        raise Failure("nothing was imported; mend these lines, or take the others with --keep-going")
    if revoke_missing:
        _check_missing(export, plan, yes=yes or dry_run)
    issued: list[Issued] = []
    if not dry_run:
        with (
            _kept(out, is_needed=bool(plan.added) and not no_token) as keep,
            _progress(len(plan.added)) as tell,
            opened(paths, make=True) as devices,
        ):
            issued = devices.import_(
                plan, now(), keep, with_tokens=not no_token, revoke_missing=revoke_missing, tell=tell
            )
    wrote = out if any(one.token for one in issued) else None
    _tell_plan(plan, sorted(problems), wrote, dry_run=dry_run, revokes=revoke_missing, as_json=as_json)
    sys.exit(NO if problems else DONE)


def _octets(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Broken(f"can not read {file} ({error.strerror}); name a file that is there") from None


def _problem(source: str, one: "Listed", message: str) -> "Problem":
    from resolver.policy.source import Problem

    return Problem(source, one.line, 1, message)


def _grouped(export: "Export", config: "Config", default: str, source: str) -> "tuple[list[Listed], list[Problem]]":
    """The devices with the group that each gets, and what is wrong with some of them."""
    from resolver.policy.source import did_you_mean, shown

    names = [one.name for one in config.groups]
    listed, problems = [], list(export.problems)
    for one in export.devices:
        group = one.group or default
        if group in names:
            listed.append(replace(one, group=group))
        else:
            said = f"no group is called {shown(group)}{did_you_mean(group, names)}" if group else "it has no group"
            problems.append(_problem(source, one, said if group else f"{said}; give one with --group"))
    return listed, problems


def _tell_export(export: "Export", problems: "Sequence[Problem]") -> None:
    used = ", ".join(f"{column} from {' or '.join(names)}" for column, names in export.used.items())
    click.echo(f"note: read as {export.kind}: {used}", err=True)
    if export.passed_over:
        click.echo(f"note: columns passed over: {', '.join(export.passed_over)}", err=True)
    if export.is_partial:
        click.echo("note: the file says that there are more devices than it lists; export all pages", err=True)
    for problem in problems:
        click.echo(str(problem), err=True)


def _check_missing(export: "Export", plan: "Plan", *, yes: bool) -> None:
    """Keep an export that lacks something from revoking whoever is not in it."""
    if export.problems or plan.problems or export.is_partial:
        raise Failure("--revoke-missing needs an export that is whole and sound; mend it, or leave the option out")
    if len(plan.missing) * 2 > plan.held and not yes:
        raise Failure(
            f"{len(plan.missing)} of {plan.held} devices would be revoked; see with --dry-run which, and say --yes"
        )


@contextlib.contextmanager
def _kept(out: Path | None, *, is_needed: bool) -> Iterator["Callable[[Sequence[Issued]], None]"]:
    """Writes fresh tokens beside `out` before they are in force, and puts them in place afterwards.

    They are nowhere else: what dies in between leaves the file that was written aside.
    """
    if not is_needed:
        yield lambda issued: None
        return
    if out is None:
        raise click.UsageError("new devices get tokens; name the file for them with --out, or say --no-token")
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        if out.exists():
            raise Failure(f"{out} is there, and may hold the only copy of tokens; name another --out")
        folder = os.open(out.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Broken(f"can not write {aside} ({error.strerror}); name another --out") from None
    is_written = False

    def keep(issued: "Sequence[Issued]") -> None:
        nonlocal is_written
        _write_inventory(file, issued)
        os.fsync(folder)
        is_written = True

    try:
        with open(fd, "w", encoding="utf-8", newline="") as file:
            yield keep
    except BaseException:
        if is_written:
            # It may have gone wrong after they came into force.
            click.echo(f"note: the tokens of whoever was added are in {aside}", err=True)
        else:
            aside.unlink()
        raise
    finally:
        os.close(folder)
    try:
        os.link(aside, out)
    except OSError as error:
        raise Failure(f"the tokens are in {aside}, which can not be called {out} ({error.strerror})") from None
    aside.unlink()


def _write_inventory(file: TextIO, issued: "Sequence[Issued]") -> None:
    import csv

    writer = csv.writer(file)
    writer.writerow(_COLUMNS)
    writer.writerows((one.name, one.token, one.group, one.serial) for one in issued)
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def _progress(whole: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("devices", total=whole)
        yield lambda done: progress.update(task, completed=done)


def _tell_plan(
    plan: "Plan", problems: "Sequence[Problem]", wrote: Path | None, *, dry_run: bool, revokes: bool, as_json: bool
) -> None:
    missing = [one.name for one in plan.missing]
    if as_json:
        print_json({
            "dry_run": dry_run,
            "added": [one.name for one in plan.added],
            "updated": [one.name for _, one in plan.updated],
            "same": plan.same,
            "missing": missing,
            "revokes_missing": revokes,
            "listed_though_revoked": [one.name for one in plan.revoked],
            "problems": [{"line": one.line, "message": one.message} for one in problems],
            "out": wrote,
        })  # fmt: skip
        return
    if dry_run:
        for one in plan.added:
            click.echo(f"add {one.name}, in group {one.group}")
        for known, one in plan.updated:
            click.echo(f"update {known.name}: {_difference(known, one)}")
        for name in missing:
            click.echo(f"{'revoke' if revokes else 'missing'} {name}")
    for known in plan.revoked:
        click.echo(f"note: {known.name} is listed, was revoked, and stays so; `interdict device renew` brings it back")
    would = "would be " if dry_run else ""
    click.echo(
        f"{would}added {len(plan.added)}, updated {len(plan.updated)}, {'revoked' if revokes else 'missing'} "
        f"{len(missing)}; as it was {plan.same}; refused {len(problems)}"
    )
    if wrote is not None:
        click.echo(f"the tokens are in {wrote}, and nowhere else: interdict profile PLATFORM --inventory {wrote}")


def _difference(known: "Enrolled", one: "Listed") -> str:
    pairs = (
        ("name", known.name, one.name), ("serial", known.serial, one.serial), ("owner", known.owner, one.owner),
        ("group", known.group, one.group),
    )  # fmt: skip
    return ", ".join(f"{what} {was or 'none'} -> {now}" for what, was, now in pairs if was != now)
