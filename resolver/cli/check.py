"""What `interdict check` tells of a sound configuration: what would be in force, and what is surely not meant.

What can be told of the policy alone is found by `policy.lint`; here is added what depends on the machine.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from resolver.app import machine
from resolver.app.compiler import Compiled, compile_policy, policy_settings
from resolver.app.machine import SettingsError
from resolver.config import Config
from resolver.policy.additions import Documents
from resolver.policy.compile import takes
from resolver.policy.documents import Action, Mode, Order
from resolver.policy.explain import standing_of
from resolver.policy.findings import Code, Finding, Kind, Severity, Where, in_order
from resolver.policy.generation import Generation
from resolver.policy.lint import lint
from resolver.policy.lint_zones import Supply
from resolver.policy.steps import Standing


@dataclass(frozen=True, slots=True)
class OrderLine:
    """One line of `policy.orders`, with how many names it withholds."""

    order: str
    title: str
    groups: tuple[str, ...]
    mode: Mode
    action: Action
    effective: datetime
    expires: datetime | None
    standing: Standing
    since: datetime
    until: datetime | None
    names: int


@dataclass(frozen=True, slots=True)
class GroupLine:
    """A group and its networks."""

    group: str
    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A sound configuration. `apps` counts the names that the configured orders take from each app."""

    config: str
    digest: str
    names: int
    orders: tuple[OrderLine, ...]
    groups: tuple[GroupLine, ...]
    apps: dict[str, int]
    findings: tuple[Finding, ...]

    def texts(self, severity: Severity) -> tuple[str, ...]:
        """The findings of one severity, a line each."""
        return tuple(str(finding) for finding in self.findings if finding.severity is severity)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is most likely a mistake."""
        return self.texts(Severity.WARNING)

    @property
    def notes(self) -> tuple[str, ...]:
        """What may well be meant."""
        return self.texts(Severity.NOTE)

    def to_json(self) -> dict[str, object]:
        """The report for programs."""
        return asdict(self)


def load(config: Config, source: str, at: float) -> Compiled:
    """Compile a configuration; on a terminal a bar shows how far the reading of long lists has come.

    Args:
        config: The configuration.
        source: The name of its file.
        at: Unix seconds.

    Raises:
        PolicyError: As `compile_policy`.
    """
    with _bar() as progress:
        return compile_policy(config, source, serial=1, at=at, progress=progress)


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None] | None]:
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:

        def show(zone: str, done: int, whole: int) -> None:
            if zone not in tasks:
                tasks[zone] = bar.add_task(zone, total=whole)
            bar.update(tasks[zone], completed=done, total=whole)

        yield show


def look_over(config: Config, source: str, compiled: Compiled, at: float) -> Report:
    """Describe a configuration and say what is odd about it.

    Args:
        config: The configuration.
        source: The name of its file.
        compiled: What came of it.
        at: Unix seconds.
    """
    documents = compiled.documents
    taken: dict[str, set[str]] = {}
    for order_id in dict.fromkeys(line.order for line in config.policy.orders):
        for app, found in _names_of(documents.orders[order_id], documents).items():
            taken.setdefault(app, set()).update(found)
    generation = Generation(memoryview(bytearray(compiled.octets)))
    findings = lint(documents, policy_settings(config), generation, tuple(_supplies(config, compiled)), at)
    return Report(
        config=source,
        digest=compiled.digest,
        names=len(set().union(*taken.values())),
        orders=tuple(_order_lines(config, documents, at)),
        groups=tuple(GroupLine(group.name, tuple(map(str, group.networks))) for group in config.groups),
        apps={app: len(found) for app, found in sorted(taken.items())},
        findings=in_order([*findings, *_machine_findings(config), *_certificate_findings(config, at)]),
    )


def show_findings(report: Report, *severities: Severity) -> None:
    """Print findings on standard error, the worst first."""
    for severity in severities:
        for line in report.texts(severity):
            click.echo(f"{severity}: {line}", err=True)


def _names_of(order: Order, documents: Documents) -> dict[str, set[str]]:
    return {app: {domain.name for domain in documents.apps[app].domains if takes(order, domain)} for app in order.apps}


def _order_lines(config: Config, documents: Documents, at: float) -> Iterator[OrderLine]:
    for line in config.policy.orders:
        order = documents.orders[line.order]
        standing, since, until = standing_of(order, at)
        yield OrderLine(
            line.order, order.title.en, tuple(line.groups), line.mode, line.action, order.effective, order.expires,
            standing, since, until,
            len(set().union(*_names_of(order, documents).values())),
        )  # fmt: skip


def _supplies(config: Config, compiled: Compiled) -> Iterator[Supply]:
    refresh = {zone.name: zone.refresh if zone.url is not None else None for zone in config.policy.zones}
    for state in compiled.zones:
        yield Supply(
            state.id, state.entries, state.refused, state.source, refresh.get(state.id.partition(":")[2]),
            state.fetched_at, state.checked_at, state.failures, state.error,
        )  # fmt: skip


def _machine_findings(config: Config) -> Iterator[Finding]:
    if not machine.upstream_addresses(config):
        names = f"{machine.RESOLV_CONF} names" if config.upstreams == "system" else "it names"
        message = (
            f"no upstream: {names} none but this server itself, so allowed names get SERVFAIL; write "
            "upstreams: [{address: 192.0.2.53}]"
        )
        yield Finding(Severity.WARNING, Where(Kind.CONFIGURATION, key="upstreams"), Code.MACHINE, message)
    if config.user is not None:
        try:
            machine.account(config.user)
        except SettingsError as error:
            yield Finding(Severity.WARNING, Where(Kind.CONFIGURATION, key="user"), Code.MACHINE, str(error))


def _certificate_findings(config: Config, at: float) -> Iterator[Finding]:
    """What the certificate is not good for; where it is not on this machine, nothing is said of it."""
    encrypted = config.encrypted
    if encrypted.certificate is None or encrypted.key is None:
        return
    files = Path(encrypted.certificate).expanduser(), Path(encrypted.key).expanduser()
    if not all(path.exists() for path in files):
        return
    from resolver.app.certificate import Certified, certificate  # it imports much
    from resolver.app.devices import database_of
    from resolver.app.doctor import Outcome

    has_devices = database_of(machine.state_paths(config)).exists()
    for found in certificate(Certified(*files, encrypted.name, has_devices, encrypted.addresses), None, at):
        # Alone, a certificate may be all that devices need: which authorities they trust is not known here.
        is_doubtful = found.outcome is Outcome.WARN and not found.check.endswith(" chain")
        if is_doubtful or found.outcome is Outcome.FAIL:
            where = Where(Kind.CONFIGURATION, key="encrypted.certificate")
            yield Finding(Severity.WARNING, where, Code.MACHINE, f"{found.found}; {found.mend}")
