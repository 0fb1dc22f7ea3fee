"""Tables of plain text for people, laid out by rich: fitted to a terminal, each row on one line elsewhere.

Titles, reasons and names come from documents, lists and logs: none of them is taken for rich's markup here.
"""

import sys
from collections.abc import Iterable, Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

Part = Table | Text | str

_PLAIN_WIDTH = 1000  # columns where nobody looks on: a program gets each row on one line


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int | None = None) -> Table:
    """Rows under their headings.

    Args:
        headings: One for each column.
        rows: As long as the headings.
        texts: How many columns hold text; the others are numbers. None for all.
    """
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for i, heading in enumerate(headings):
        made.add_column(heading, overflow="fold", justify="left" if texts is None or i < texts else "right")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def facts(lines: Iterable[tuple[str, Text | str]]) -> Table:
    """What is told, each line behind what it is about."""
    made = Table.grid(padding=(0, 2))
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for heading, line in lines:
        made.add_row(heading, Text(line) if isinstance(line, str) else line)
    return made


def show(*parts: Part) -> None:
    """Print parts one below the other, without the blanks that pad the last column."""
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    console = Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
