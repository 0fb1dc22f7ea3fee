"""`interdict doctor`: what this machine has against a configuration, and the mend for each."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from resolver.cli.options import (
    DONE,
    NO,
    exit_codes,
    parse_name,
    parsed,
    print_json,
    read_config,
    speaks_json,
    takes_config,
)

if TYPE_CHECKING:
    from resolver.app.doctor import Finding, Questions
    from resolver.app.machine import StatePaths
    from resolver.config import Config

_STATUS_SECONDS = 10.0


@click.command(epilog=exit_codes("something failed, or with --strict there are warnings"))
@takes_config
@speaks_json
@click.option("--strict", is_flag=True, help="Exit with 1 where there are warnings too.")
@click.option(
    "--signed", metavar="NAME", default=".", show_default=True, callback=parsed(parse_name),
    help="Ask upstreams for this name, whose signatures are right: do they mark it as validated?",
)  # fmt: skip
@click.option(
    "--bogus", metavar="NAME", callback=parsed(parse_name),
    help="And for this one, whose signatures are wrong: do they withhold it?",
)  # fmt: skip
@click.option(
    "--time-out", metavar="SECONDS", type=click.FloatRange(0.05, 60), default=2.0, show_default=True,
    help="How long to wait for one answer.",
)  # fmt: skip
def doctor(as_json: bool, strict: bool, signed: bytes, bogus: bytes | None, time_out: float) -> None:
    """Look for what this machine has against the configuration.

    Ports, clock, policy, upstreams and the way to them, certificate, buffers, limits, folders, and the running server
    where there is one. Each finding comes with its mend. Changes nothing. Run it as root: others may not look at all.

    \b
    Examples:
      interdict doctor
      interdict doctor --config interdict.yaml --strict
      interdict doctor --json | jq '.findings[] | select(.outcome == "fail")'
    """
    from resolver.app.doctor import Outcome, Questions

    config, source = read_config()
    found: list[Finding] = []
    with _told() as tell:
        for title, findings in _checks(config, source, Questions(signed, bogus, time_out), time.time()):
            tell(title)
            found += findings()
    counts = {str(outcome): sum(one.outcome is outcome for one in found) for outcome in Outcome}
    is_well = not counts["fail"] and not (strict and counts["warn"])
    if as_json:
        from dataclasses import asdict

        print_json({"ok": is_well, "findings": [asdict(one) for one in found]})
    else:
        _show(found, counts)
    sys.exit(DONE if is_well else NO)


@contextlib.contextmanager
def _told() -> Iterator[Callable[[str], None]]:
    """On a terminal, a line that says what is being looked at."""
    if not sys.stderr.isatty():
        yield lambda title: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as line:
        yield lambda title: line.update(title)


def _show(found: Iterable["Finding"], counts: Mapping[str, int]) -> None:
    from resolver.cli import table

    listed = list(found)
    table.show(table.table(("", "what", "found"), [(one.outcome, one.check, one.found) for one in listed]))
    if any(one.mend for one in listed):
        table.show("", table.facts((one.check, one.mend) for one in listed if one.mend))
    colour = "red" if counts["fail"] else "yellow" if counts["warn"] else "green"
    said = f"{counts['fail']} failed, {counts['warn']} warnings, {counts['ok']} fine, {counts['skipped']} skipped"
    click.echo(f"\n{click.style(said, fg=colour)}")


_Check = tuple[str, Callable[[], Iterable["Finding"]]]  # what is looked at, and the work


def _checks(config: "Config", source: str, asked: "Questions", at: float) -> Iterator[_Check]:
    """Everything to look at, in the order in which it is told."""
    from resolver.app import control, doctor, machine
    from resolver.app.doctor import Finding, Outcome

    config = machine.without_missing_loopback(config)
    paths, upstreams = machine.state_paths(config), machine.upstream_addresses(config)
    status: dict[str, object] | None = None
    no_server = ""
    try:
        status = control.ask(paths.run, "status", _STATUS_SECONDS)
    except control.ControlError as error:
        no_server = str(error)
    running = {} if status is None else doctor.processes(status)
    ours = frozenset(running.values()) - {0, 1}

    yield "ports", lambda: [doctor.port(endpoint, kind, ours) for endpoint, kind in doctor.windows(config)]
    yield "clock", lambda: [doctor.clock(at, doctor.is_clock_kept())]
    digest = ""

    def policy() -> Iterator[Finding]:
        nonlocal digest
        digest, finding = _policy(config, source, at)
        yield finding

    yield "orders and lists", policy
    yield "upstreams", lambda: doctor.upstreams(upstreams, asked)
    yield "interception", lambda: [doctor.interception(upstreams, doctor.SILENT, min(asked.wait, 1.5))]
    account, finding = _account(config)
    if finding is not None:
        refused = finding
        yield "account", lambda: [refused]
    yield "certificate", lambda: _certificate(config, paths, account, at)
    yield "buffers", doctor.buffers
    yield "open files", lambda: [doctor.open_files(config, doctor.file_limit(running.get("worker 0") or None))]
    yield "state folder", lambda: doctor.state_folder(paths, account, config.hits.spool_limit)
    if status is None:
        yield "server", lambda: [Finding("server", Outcome.SKIPPED, no_server)]
    else:
        said = status
        yield "server", lambda: doctor.server(said, digest, asked.wait)


def _policy(config: "Config", source: str, at: float) -> tuple[str, "Finding"]:
    """The digest of the policy as it is written now (empty where it can not be compiled), and how sound it is."""
    from resolver.app.doctor import Finding, Outcome
    from resolver.cli import check
    from resolver.policy.findings import Severity
    from resolver.policy.source import PolicyError

    name, mend = "orders and lists", "`interdict check` tells all of it"
    try:
        compiled = check.load(config, source, at)
    except PolicyError as error:
        return "", Finding(name, Outcome.FAIL, str(error.problems[0]), mend)
    report = check.look_over(config, source, compiled, at)
    for severity, outcome in ((Severity.ERROR, Outcome.FAIL), (Severity.WARNING, Outcome.WARN)):
        if texts := report.texts(severity):
            more = f" (and {len(texts) - 1} more)" if len(texts) > 1 else ""
            return compiled.digest, Finding(name, outcome, f"{texts[0]}{more}", mend)
    return compiled.digest, Finding(name, Outcome.OK, f"{len(report.orders)} lines of orders, {report.names} names")


def _account(config: "Config") -> "tuple[str | None, Finding | None]":
    """The account that the server changes to, and what is wrong with it."""
    from resolver.app import machine
    from resolver.app.doctor import Finding, Outcome

    if config.user is None:
        return None, None
    try:
        machine.account(config.user)
    except machine.SettingsError as error:
        found, _, mend = str(error).rpartition("; ")
        return None, Finding("account", Outcome.FAIL, found, mend)
    return config.user, None


def _certificate(config: "Config", paths: "StatePaths", account: str | None, at: float) -> Iterator["Finding"]:
    """That of the encrypted listeners, where there is one; devices with tokens ask below its name."""
    encrypted = config.encrypted
    if encrypted.certificate is None or encrypted.key is None:
        return
    from resolver.app.certificate import Certified, certificate
    from resolver.app.devices import database_of

    files = (Path(encrypted.certificate).expanduser(), Path(encrypted.key).expanduser())
    has_devices = database_of(paths).exists()
    yield from certificate(Certified(*files, encrypted.name, has_devices, encrypted.addresses), account, at)
