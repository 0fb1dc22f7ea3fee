"""What `interdict status` shows people of what a supervisor said about itself; what it did not say is left empty."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from resolver.cli import table

_SHOWN = 3  # ways round by name; `status --json` has them all
_Said = Mapping[str, object]


def show_status(said: _Said, at: float) -> None:
    """Print all of it.

    Args:
        said: The answer to `status`.
        at: Unix seconds.
    """
    zones = _mappings(said.get("zones"))
    others = [zone for zone in zones if zone.get("kind") != "rule" and not _is_way_round(zone)]
    table.show(
        table.facts(_facts(said, zones, at)),
        "",
        table.table(
            ("order", "state", "mode", "action", "groups", "title"),
            [
                (
                    _text(order.get("id")), _state_of(order), _text(order.get("mode")), _text(order.get("action")),
                    _text(order.get("groups")), _text(order.get("title")),
                )
                for order in _mappings(said.get("orders"))
            ],
        ),
        *_zone_table(others, at),
        *_exemption_table(_mappings(said.get("exemptions")), at),
        "",
        table.table(
            ("process", "pid", "generation"),
            [
                (_text(process.get("name")), _text(process.get("pid")), _text(process.get("generation")))
                for process in _mappings(said.get("processes"))
            ],
        ),
    )  # fmt: skip


def _facts(said: _Said, zones: list[_Said], at: float) -> Iterator[tuple[str, str]]:
    yield "version", f"{_text(said.get('version'))}, {_text(said.get('hot'))} hot path"
    yield "up", f"{_duration(said.get('uptime_seconds'))}, {_restarts(said.get('restarts'))} restarts of processes"
    yield "config", _text(said.get("config"))
    yield "state", _text(said.get("state_dir"))
    yield "answers on", _text(said.get("listen"))
    if said.get("encrypted"):
        yield "encrypted", _text(said["encrypted"])
    yield "upstreams", _text(said.get("upstreams")) or "none: allowed names get SERVFAIL"
    yield "metrics", f"http://{said['metrics']}/metrics" if said.get("metrics") else "off"
    made_by = f", made by {said['made_by']}" if said.get("made_by") else ""
    yield (
        "policy",
        f"generation {_text(said.get('generation'))} ({_text(said.get('digest'))[:12]}), {_text(said.get('names'))} "
        f"names, compiled at {_moment(said.get('loaded_at'))}{made_by}",
    )
    rules = [zone for zone in zones if zone.get("kind") == "rule"]
    if rules:
        ends = [_number(rule.get("until")) for rule in rules if (_number(rule.get("until")) or at) > at]
        first = f", the next ends at {_moment(min(filter(None, ends)))}" if any(ends) else ""
        yield "own rules", f"{len(rules)}{first}; `interdict rules` lists them"
    ways = [_text(zone.get("id")).partition(":")[2] for zone in zones if _is_way_round(zone)]
    if ways:
        more = f" and {len(ways) - _SHOWN} more" if len(ways) > _SHOWN else ""
        yield "ways round", f"{', '.join(ways[:_SHOWN])}{more}: withheld"
    yield "queries", f"{_text(said.get('queries'))}, {_text(said.get('cache_entries'))} answers in the cache"
    yield "hits", f"{_text(said.get('hits_spooled'))} recorded, {_text(said.get('hits_lost'))} lost"
    reload = said.get("last_reload")
    if isinstance(reload, dict) and reload:
        outcome = "done" if reload.get("ok") else "failed: " + "; ".join(map(str, reload.get("problems") or []))
        yield "last reload", f"{_moment(reload.get('at'))}, {outcome}"


def _zone_table(zones: list[_Said], at: float) -> Iterator[table.Part]:
    if zones:
        yield ""
        yield table.table(
            ("zone", "mode", "entries", "refused", "age", "failures", "source", "last error"),
            [
                (
                    _text(zone.get("id")), _text(zone.get("mode")), _text(zone.get("entries")),
                    _text(zone.get("refused")), _age(zone.get("checked_at"), at), _text(zone.get("failures")),
                    _text(zone.get("source")), _text(zone.get("error")),
                )
                for zone in zones
            ],
        )  # fmt: skip


def _exemption_table(exemptions: list[_Said], at: float) -> Iterator[table.Part]:
    if exemptions:
        yield ""
        yield table.table(
            ("exemption", "exempt", "until"),
            [
                (
                    _text(one.get("id")),
                    ", ".join(filter(None, (_text(one.get("groups")), _text(one.get("devices"))))), _term(one, at),
                )
                for one in exemptions
            ],
        )  # fmt: skip


def _term(exemption: _Said, at: float) -> str:
    until = _moment(exemption.get("until"))
    if exemption.get("in_force"):
        return until
    begins = _number(exemption.get("since"))
    return f"{until}, not yet: from {_moment(begins)}" if begins is not None and begins > at else f"ended at {until}"


def _state_of(order: _Said) -> str:
    begins, ends = _moment(order.get("in_force_from")), order.get("in_force_until")
    if order.get("in_force"):
        return f"in force since {begins}" + (f", until {_moment(ends)}" if ends else "")
    if not order.get("spans", True):
        return "never in force"
    return f"not in force: {begins}" + (f" to {_moment(ends)}" if ends else " onwards")


def _is_way_round(zone: _Said) -> bool:
    return _text(zone.get("id")).startswith("way-round:")


def _restarts(said: object) -> int:
    return sum(said.values()) if isinstance(said, dict) else 0


def _mappings(said: object) -> list[_Said]:
    return [entry for entry in said if isinstance(entry, dict)] if isinstance(said, list) else []


def _text(said: object) -> str:
    if isinstance(said, list):
        return ", ".join(map(str, said))
    return "" if said is None else str(said)


def _number(said: object) -> float | None:
    return said if isinstance(said, int | float) else None


def _age(seconds: object, at: float) -> str:
    then = _number(seconds)
    return "" if then is None else _duration(max(0.0, at - then))


def _duration(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h {minutes} min" if days or hours else f"{minutes} min {rest} s"


def _moment(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
