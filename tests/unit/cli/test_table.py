"""Tables as people and programs see them."""

import pytest
from rich.text import Text

from resolver.cli.table import facts, show, table


def test_a_row_stays_on_one_line_where_nobody_looks_on(capsys: pytest.CaptureFixture[str]) -> None:
    """However long it is, without blanks at its end; what looks like markup is text."""
    show(table(("a", "b"), [("[red]x[/red]", "y" * 300), ("1", "")]), "", Text("end "))

    assert capsys.readouterr().out.splitlines() == [
        "a             b", "[red]x[/red]  " + "y" * 300, "1", "", "end"
    ]  # fmt: skip


def test_numbers_stand_below_one_another(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns after the texts are aligned to the right."""
    show(table(("name", "hits"), [("a", "1"), ("b", "1,000")], texts=1))

    assert capsys.readouterr().out == "name   hits\na         1\nb     1,000\n"


def test_facts_stand_behind_what_they_are_about(capsys: pytest.CaptureFixture[str]) -> None:
    """A heading may be left empty."""
    show(facts([("client", "192.0.2.1"), ("", Text("[b]"))]))

    assert capsys.readouterr().out == "client  192.0.2.1\n        [b]\n"
