"""What `explain`, `check` and `status` show people: tables by rich on a terminal, the same plain elsewhere."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from resolver.cli.check import Report
from resolver.policy.documents import Mode
from resolver.policy.explain import Explanation, IdleEntry, OrderStep, Outcome, Reply, RuleStep, Standing

_PLAIN_WIDTH = 1000  # columns where nobody looks on: a program gets each row on one line


def show_explanation(explanation: Explanation) -> None:
    """Print the steps of a query in their order."""
    client = explanation.client
    steps: list[tuple[str, list[str]]] = [
        ("question", [f"{explanation.name} {explanation.qtype}, asked at {_instant(explanation.at)}"]),
        ("client", [f"{client.address} " + _standing_of_client(explanation)]),
    ]
    if client.allowed:
        group = f"{client.group} (by {client.group_network})" if client.group else "none: no order binds this client"
        steps += [
            ("group", [group]),
            ("orders", [_order_text(order) for order in explanation.orders] or ["none is configured"]),
            ("rules", [_rule_text(rule, i == 0) for i, rule in enumerate(explanation.rules)] or ["none"]),
            ("passed over", [_idle_text(entry) for entry in explanation.idle] or ["no other entry covers the name"]),
        ]
    steps.append(("answer", _answer_texts(explanation)))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for heading, lines in steps:
        style = _ANSWER_STYLE[explanation.outcome] if heading == "answer" else ""
        for i, line in enumerate(lines):
            table.add_row(heading if i == 0 else "", Text(line, style=style if i == 0 else ""))
    _print(table)


_ANSWER_STYLE = {
    Outcome.WITHHELD: "red", Outcome.NOT_ALLOWED: "red", Outcome.FORWARDED: "green", Outcome.LOCAL: "green"
}  # fmt: skip


def _standing_of_client(explanation: Explanation) -> str:
    client = explanation.client
    if client.allowed:
        return f"is allowed (by {client.allowed_network})"
    return "is not allowed: no network of allowed_networks holds it"


def _order_text(order: OrderStep) -> str:
    state = _state(order.standing, order.since, order.until)
    return f"{order.order}: {state} ({order.mode}, {order.action}, for {', '.join(order.groups)})"


def _rule_text(rule: RuleStep, decides: bool) -> str:
    text = (
        f"{rule.match} {rule.name}: app {rule.app} ({rule.purpose}, confidence {rule.confidence}), "
        f"order {rule.order}, {rule.mode} {rule.action}{'  <- decides' if decides else ''}"
    )
    remarks = {"collateral": rule.collateral, "attribution": rule.attribution}
    return "; ".join([text, *(f"{label}: {said}" for label, said in remarks.items() if said)])


def _idle_text(entry: IdleEntry) -> str:
    return f"{entry.match} {entry.name}: {entry.why}"


def _answer_texts(explanation: Explanation) -> list[str]:
    observed = explanation.recorded and explanation.rules[0].mode is Mode.OBSERVE
    remark = ["recorded as a hit, since an order in observe mode covers the name"] if observed else []
    reply = explanation.reply
    if explanation.outcome is Outcome.FORWARDED:
        return [
            "allowed: an upstream is asked, or the cache",
            *remark,
            "its answer is judged again: one that leads to a listed name (CNAME, DNAME, HTTPS, SVCB) is withheld",
        ]
    assert reply is not None
    if explanation.outcome is Outcome.LOCAL:
        return [f"{reply.rcode}, answered by this server itself: a special-use name or question", *remark]
    verb = "withheld" if explanation.outcome is Outcome.WITHHELD else "refused"
    return [f"{verb}: {_reply_text(reply)}", *(["recorded as a hit"] if explanation.recorded else [])]


def _reply_text(reply: Reply) -> str:
    if not reply.rcode:
        return "no reply at all"
    parts = [reply.rcode, *reply.addresses]
    if reply.ttl is not None:
        parts.append(f"TTL {reply.ttl} s")
    if reply.ede is not None:
        # INFO-CODE n stands in §4.(n+1).
        parts.append(f'EDE {reply.ede} {reply.ede_meaning} (RFC 8914 §4.{reply.ede + 1}), "{reply.extra_text}"')
    return ", ".join(parts)


def show_check(report: Report) -> None:
    """Print what would be in force; warnings go to standard error."""
    _print(
        _table(
            ("order", "state", "mode", "action", "groups", "names"),
            [
                (
                    line.order, _state(line.standing, line.since, line.until), line.mode.value, line.action.value,
                    ", ".join(line.groups), str(line.names),
                )
                for line in report.orders
            ],
        ),
        "",
        _table(("app", "names"), [(app, str(count)) for app, count in report.apps.items()]),
        "",
        _table(("group", "networks"), [(line.group, ", ".join(line.networks)) for line in report.groups]),
        "",
    )  # fmt: skip
    for note in report.notes:
        click.echo(f"note: {note}")
    click.echo(f"sound: {report.config}, {report.names} names, digest {report.digest}")
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)


def _state(standing: Standing, since: datetime, until: datetime | None) -> str:
    moment = since.isoformat()
    return {
        Standing.IN_FORCE: f"in force since {moment}" + (f", until {until.isoformat()}" if until else ""),
        Standing.NOT_YET: f"not in force yet: begins at {moment}",
        Standing.OTHER_GROUP: "not for this client",
    }.get(standing, f"not in force: {standing.value} since {moment}")


def show_status(found: Mapping[str, object]) -> None:
    """Print what a supervisor said about itself; what it did not say is left empty."""
    orders = [
        (
            _text(order.get("id")), _status_state(order), _text(order.get("mode")), _text(order.get("action")),
            _text(order.get("groups")), _text(order.get("title")),
        )
        for order in _mappings(found.get("orders"))
    ]  # fmt: skip
    processes = [
        (_text(process.get("name")), _text(process.get("pid")), _text(process.get("generation")))
        for process in _mappings(found.get("processes"))
    ]
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    for heading, text in _facts(found):
        facts.add_row(heading, Text(text))
    _print(
        facts,
        "",
        _table(("order", "state", "mode", "action", "groups", "title"), orders),
        "",
        _table(("process", "pid", "generation"), processes),
    )


def _facts(found: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    yield "version", f"{_text(found.get('version'))}, {_text(found.get('hot'))} hot path"
    yield "up", f"{_duration(found.get('uptime_seconds'))}, {_restarts(found.get('restarts'))} restarts of processes"
    yield "config", _text(found.get("config"))
    yield "state", _text(found.get("state_dir"))
    yield "answers on", _text(found.get("listen"))
    yield "upstreams", _text(found.get("upstreams")) or "none: allowed names get SERVFAIL"
    yield "metrics", f"http://{found['metrics']}/metrics" if found.get("metrics") else "off"
    compiled = _moment(found.get("loaded_at"))
    digest = _text(found.get("digest"))[:12]
    yield (
        "policy",
        f"generation {_text(found.get('generation'))} ({digest}), {_text(found.get('names'))} names, "
        f"compiled at {compiled}",
    )
    yield "queries", f"{_text(found.get('queries'))}, {_text(found.get('cache_entries'))} answers in the cache"
    yield "hits", f"{_text(found.get('hits_spooled'))} recorded, {_text(found.get('hits_lost'))} lost"
    reload = found.get("last_reload")
    if isinstance(reload, dict) and reload:
        outcome = "done" if reload.get("ok") else "failed: " + "; ".join(map(str, reload.get("problems") or []))
        yield "last reload", f"{_moment(reload.get('at'))}, {outcome}"


def _status_state(order: Mapping[str, object]) -> str:
    begins, ends = _moment(order.get("in_force_from")), order.get("in_force_until")
    if order.get("in_force"):
        return f"in force since {begins}" + (f", until {_moment(ends)}" if ends else "")
    return f"not in force: {begins}" + (f" to {_moment(ends)}" if ends else " onwards")


def _restarts(found: object) -> int:
    return sum(found.values()) if isinstance(found, dict) else 0


def _mappings(found: object) -> list[Mapping[str, object]]:
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _text(found: object) -> str:
    if isinstance(found, list):
        return ", ".join(map(str, found))
    return "" if found is None else str(found)


def _duration(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h {minutes} min" if days or hours else f"{minutes} min {rest} s"


def _moment(seconds: object) -> str:
    return _instant(datetime.fromtimestamp(seconds, UTC)) if isinstance(seconds, int | float) else ""


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _print(*parts: Table | str) -> None:
    """Print parts one below the other, without the blanks that pad the last column."""
    console = Console(
        file=sys.stdout, width=None if sys.stdout.isatty() else _PLAIN_WIDTH, markup=False, highlight=False, emoji=False
    )
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
