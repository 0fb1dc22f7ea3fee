"""What the verbs share: their options, how the words of the command line are read, and how a verb ends.

Imports nothing that only some verbs need: this is loaded by `serve`, by --version, and at each completion in a shell.
A verb lives with its work where that is light to import as well, and else imports its work when it is called.
"""

import contextlib
import re
from collections.abc import Callable
from datetime import date, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from resolver.app.machine import StatePaths
    from resolver.config import Config
    from resolver.policy.values import Endpoint

DONE, NO, BROKEN = 0, 1, 2

_TO_THE_MINUTE = r"(T[0-9]{2}:[0-9]{2})(Z|[+-][0-9]{2}:[0-9]{2})?$"

_F = TypeVar("_F", bound=Callable[..., object])
_T = TypeVar("_T")


# ---- how a verb ends ------------------------------------------------------------------------------------------------


class Failure(click.ClickException):
    """Ends a verb whose answer is no: lines for standard error, and the exit code."""

    exit_code = NO

    def show(self, file: object = None) -> None:
        """Print the lines as they are."""
        click.echo(self.message, err=True)


class Broken(Failure):
    """Ends a verb that was given what can not be used, such as a configuration with mistakes."""

    exit_code = BROKEN


def exit_codes(no: str = "", broken: str = "wrong usage, or a configuration that can not be used") -> str:
    """The end of a verb's help: what exit codes 1, where a verb has it, and 2 mean."""
    known = {DONE: "done", NO: no, BROKEN: broken}
    return "\b\nExit codes:\n" + "".join(f"  {code}  {says}\n" for code, says in known.items() if says)


def print_json(value: object) -> None:
    """Print a value for programs; moments in the form of RFC 3339 §5.6."""
    import json

    def written(other: object) -> str:
        if isinstance(other, datetime | date):
            return other.isoformat()
        if isinstance(other, Path):
            return str(other)
        raise TypeError(type(other))

    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=written))


# ---- options that many verbs take -----------------------------------------------------------------------------------


def takes_config(verb: _F) -> _F:
    """Give a verb -c; what it says is found by `config_path`."""

    def keep(ctx: click.Context, _: click.Parameter, chosen: str | None) -> None:
        if chosen is not None:
            ctx.meta["config"] = chosen

    return click.option(
        "-c", "--config", metavar="FILE", type=click.Path(dir_okay=False), expose_value=False, callback=keep,
        help="Configuration; else $INTERDICT_CONFIG, else /etc/interdict/interdict.yaml, else the defaults.",
    )(verb)  # fmt: skip


def takes_state_dir(verb: _F) -> _F:
    """Give a verb --state-dir, as `state_dir`; for `state_paths`."""
    return click.option(
        "--state-dir", metavar="DIR", type=click.Path(path_type=Path),
        help="The running server's state folder, as `interdict status` shows it; by default as the configuration says. "
        "With it the configuration is not read: the way in while that is broken.",
    )(verb)  # fmt: skip


def speaks_json(verb: _F) -> _F:
    """Give a verb --json, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(verb)


def config_path() -> Path | None:
    """The configuration file that is meant; None for the defaults."""
    from resolver.app.machine import find_config

    return find_config(click.get_current_context().meta.get("config"))


def read_config() -> "tuple[Config, str]":
    """The configuration, and what to call its file in messages.

    Raises:
        PolicyError: It has mistakes.
    """
    from resolver.app import machine

    path = config_path()
    return machine.read_config(path), str(path) if path is not None else "defaults"


def state_paths(state_dir: Path | None) -> "StatePaths":
    """The state folder that is meant.

    Raises:
        PolicyError: The configuration is to say, and has mistakes.
    """
    from resolver.app import machine

    return machine.StatePaths(state_dir.resolve()) if state_dir is not None else machine.state_paths(read_config()[0])


# ---- reading the words of the command line --------------------------------------------------------------------------


def parsed(parse: Callable[[str], _T]) -> Callable[[click.Context, click.Parameter, str | None], _T | None]:
    """A parameter's callback that reads its text; what `parse` raises as ValueError says what to write instead."""

    def read(_: click.Context, __: click.Parameter, text: str | None) -> _T | None:
        return None if text is None else _read(parse, text)

    return read


def each_parsed(
    parse: Callable[[str], _T],
) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], tuple[_T, ...]]:
    """The same for a parameter that may be given many times; what is said twice counts once."""

    def read(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> tuple[_T, ...]:
        return tuple(dict.fromkeys(_read(parse, text) for text in texts))

    return read


def _read(parse: Callable[[str], _T], text: str) -> _T:
    try:
        return parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def parse_name(text: str) -> bytes:
    """A name in lower-cased wire form.

    Raises:
        ValueError: It is none, with what to write instead; as from all that follow.
    """
    from resolver.wire.name import BadName, from_text

    try:
        return from_text(text)
    except BadName as error:
        raise ValueError(f"{error}; write a name such as weixin.qq.com") from None


def parse_type(text: str) -> int:
    """The number of an RR type, by its mnemonic or as TYPE123 (RFC 3597 §5)."""
    from resolver.wire.codes import rtype_from_text

    return rtype_from_text(text)


def parse_address(text: str) -> IPv4Address | IPv6Address:
    """An address."""
    try:
        return ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address; write for example 10.1.2.3") from None


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """A network, or an address alone; bits of the host do not matter."""
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address or network; write for example 10.1.2.3 or 10.1.0.0/16") from None


def parse_server(text: str) -> "Endpoint":
    """ADDR or ADDR:PORT, with brackets around an IPv6 address that a port follows."""
    from resolver.policy.values import Endpoint, parse_endpoint

    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    with contextlib.suppress(ValueError):
        return Endpoint(str(ip_address(bare)), 53)
    try:
        return parse_endpoint(text)
    except ValueError:
        raise ValueError(f"{text!r} is no server; write 192.0.2.53, 192.0.2.53:5300 or [2001:db8::53]:5300") from None


def parse_moment(text: str) -> datetime:
    """An instant with its offset, with seconds or without (RFC 3339 §5.6); a day alone is its midnight in UTC."""
    from resolver.policy.documents import parse_date, parse_instant

    if "T" not in text:
        return parse_instant(f"{parse_date(text)}T00:00:00Z")
    return parse_instant(re.sub(_TO_THE_MINUTE, r"\1:00\2", text))


def parse_at(text: str) -> float:
    """The same in Unix seconds."""
    return parse_moment(text).timestamp()
