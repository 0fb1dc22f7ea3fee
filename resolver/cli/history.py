"""`interdict history`: which policy was in force from when until when, and who had it made."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from resolver.cli.options import exit_codes, print_json, speaks_json, state_paths, takes_config, takes_state_dir

if TYPE_CHECKING:
    from resolver.app.history import Kept


@click.command(epilog=exit_codes("the folder of generations can not be read"))
@takes_config
@takes_state_dir
@speaks_json
def history(state_dir: Path | None, as_json: bool) -> None:
    """Tell which policy was in force when, and who had it made.

    Oldest first. `interdict explain NAME --at TIME` judges by the one that was in force then, --generation N by any
    of them. Needs no running server.

    \b
    Examples:
      interdict history
      interdict history --json | jq -r '.[] | select(.made_by == "start") | .serial'
    """
    from resolver.app.history import listing

    rows = listing(state_paths(state_dir).generations)
    if as_json:
        print_json(to_json(rows))
    else:
        show(rows)


def to_json(rows: Iterable["Kept"]) -> list[dict[str, object]]:
    """The generations for programs, oldest first."""
    return [
        {
            "serial": row.serial, "digest": row.digest, "compiled_at": _instant(row.compiled_at),
            "replaced_at": None if row.replaced_at is None else _instant(row.replaced_at), "names": row.names,
            "made_by": row.made_by, "octets": row.octets, "damage": row.damage,
        }
        for row in rows
    ]  # fmt: skip


def show(rows: Iterable["Kept"]) -> None:
    """Print the same as a table for people."""
    from resolver.cli import table

    lines = [
        (
            str(row.serial), row.digest[:12], _seconds(row.compiled_at),
            "now" if row.replaced_at is None else _seconds(row.replaced_at), str(row.names),
            f"damaged: {row.damage}" if row.damage else row.made_by,
        )
        for row in rows
    ]  # fmt: skip
    if lines:
        table.show(table.table(("generation", "digest", "in force from", "until", "names", "made by"), lines))
    else:
        click.echo("no generation is kept; `interdict serve` makes the first")


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def _seconds(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
