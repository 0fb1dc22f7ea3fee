"""What the verbs about devices share."""

from pathlib import Path

import click
import pytest

from resolver import config as configuration
from resolver.app.enrolled import Wanted
from resolver.app.machine import StatePaths
from resolver.cli.options import Failure
from resolver.cli.register import checked_group, held_devices, opened, parse_text


@pytest.mark.parametrize(("written", "read"), [("phone 7", "phone 7"), ("  a \u00a0 b\n", "a b")])
def test_blanks_are_made_single(written: str, read: str) -> None:
    """As exports have them."""
    assert parse_text(written) == read


@pytest.mark.parametrize("written", ["", " \n", "a\x00b", "x" * 300])
def test_what_nobody_can_read_is_refused(written: str) -> None:
    """It says what to write instead."""
    with pytest.raises(ValueError, match="write"):
        parse_text(written)


def test_a_group_is_one_of_the_configuration() -> None:
    """Others are told with the nearest."""
    config = configuration.read("groups: [{name: everyone, networks: ['0.0.0.0/0']}, {name: phones}]\n", "c")

    assert checked_group(config, "phones") == "phones"
    with pytest.raises(click.BadParameter, match='did you mean "phones"'):
        checked_group(config, "phonse")


def test_devices_are_none_until_one_is_added(tmp_path: Path) -> None:
    """Looking makes no files."""
    paths = StatePaths(tmp_path / "state")
    assert held_devices(paths) == ([], 0)
    assert not paths.root.exists()

    with opened(paths, make=True) as devices:
        devices.add(Wanted("a", "phones"), 1.0)
    held, serial = held_devices(paths)
    assert ([one.name for one in held], serial) == (["a"], 1)


def test_what_the_register_refuses_ends_the_verb(tmp_path: Path) -> None:
    """With the sentence of who refused it."""
    with pytest.raises(Failure, match="there are no devices yet"), opened(StatePaths(tmp_path)):
        pass
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "devices.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(Failure, match="file is not a database"):
        held_devices(StatePaths(tmp_path))
