"""What the verbs about devices share: the register opened, and their words read."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import click

from resolver.cli.options import Failure

if TYPE_CHECKING:
    from resolver.app.devices import Devices
    from resolver.app.enrolled import Enrolled
    from resolver.app.machine import StatePaths
    from resolver.config import Config

UNUSABLE = "wrong usage, or a configuration or file that can not be used"

_F = TypeVar("_F", bound=Callable[..., object])


def parse_text(written: str) -> str:
    """A name or another short text, blanks made single.

    Raises:
        ValueError: It is empty or can not be shown, with what to write instead.
    """
    from resolver.enrol.exports import one_line

    text = one_line(" ".join(written.split()))
    if not text:
        raise ValueError("this is empty; write one line of text")
    return text


def takes_group(verb: _F) -> _F:
    """Give a verb --group, as `group`."""
    return click.option("--group", metavar="NAME", required=True, help="A group of the configuration.")(verb)


def checked_group(config: "Config", group: str) -> str:
    """A group that the configuration has.

    Raises:
        click.BadParameter: It has none of that name.
    """
    from resolver.policy.source import did_you_mean, shown

    names = [one.name for one in config.groups]
    if group not in names:
        raise click.BadParameter(f"no group is called {shown(group)}{did_you_mean(group, names)}", param_hint="--group")
    return group


@contextlib.contextmanager
def opened(paths: "StatePaths", *, make: bool = False) -> "Iterator[Devices]":
    """The devices, as `app.devices.opened` gives them.

    Root is another account meanwhile, which may have no access to where Python lies: nothing is to be imported.

    Raises:
        Failure: What the verb was to do can not be done.
    """
    from resolver.app import devices as store

    try:
        with store.opened(paths, make=make) as devices:
            yield devices
    except store.DevicesError as error:
        raise Failure(str(error)) from error


def now() -> float:
    """Unix seconds."""
    return datetime.now().timestamp()


def held_devices(paths: "StatePaths") -> "tuple[list[Enrolled], int]":
    """All devices with their serial; none where nobody added any.

    Raises:
        Failure: They can not be read.
    """
    from resolver.app.devices import NoDevicesError

    try:
        with opened(paths) as devices:
            return devices.all(), devices.serial()
    except Failure as error:
        if isinstance(error.__cause__, NoDevicesError):
            return [], 0
        raise
