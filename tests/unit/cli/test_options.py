"""What the verbs share: how the words of the command line are read, and how a verb ends."""

import json
from collections.abc import Callable
from datetime import date
from ipaddress import ip_address, ip_network

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from resolver.cli.options import (
    Broken,
    Failure,
    each_parsed,
    exit_codes,
    parse_address,
    parse_at,
    parse_moment,
    parse_name,
    parse_network,
    parse_server,
    parse_type,
    parsed,
    print_json,
)
from resolver.policy.values import Endpoint
from resolver.wire import name as names

PARSERS = (parse_name, parse_type, parse_address, parse_network, parse_server, parse_moment)


@pytest.mark.parametrize(
    ("parse", "text", "read"),
    [
        (parse_name, "WeiXin.qq.com", names.from_text("weixin.qq.com")),
        (parse_type, "https", 65),
        (parse_type, "TYPE65", 65),
        (parse_address, "2001:db8::1", ip_address("2001:db8::1")),
        (parse_network, "10.1.2.3", ip_network("10.1.2.3/32")),
        (parse_network, "10.1.2.3/16", ip_network("10.1.0.0/16")),
        (parse_server, "192.0.2.53", Endpoint("192.0.2.53", 53)),
        (parse_server, "2001:db8::53", Endpoint("2001:db8::53", 53)),
        (parse_server, "[2001:db8::53]:5300", Endpoint("2001:db8::53", 5300)),
    ],
)
def test_words_are_read(parse: Callable[[str], object], text: str, read: object) -> None:
    """Each in every form that its message offers."""
    assert parse(text) == read


@given(st.sampled_from(PARSERS), st.text(max_size=20))
def test_whatever_is_written_is_read_or_refused_with_its_mend(parse: Callable[[str], object], text: str) -> None:
    """Never another error."""
    said = "write a valid one"
    try:
        parse(text)
    except ValueError as error:
        said = str(error)
    assert "write " in said


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-06-03T14:02Z", 1_780_495_320),
        ("2026-06-03T10:02-04:00", 1_780_495_320),
        ("2026-06-03T14:02:00Z", 1_780_495_320),
        ("2026-06-03", 1_780_444_800),
    ],
)
def test_a_moment_may_leave_out_what_is_zero(text: str, at: int) -> None:
    """Seconds, and the hour of midnight in UTC; never the offset."""
    assert parse_at(text) == at


@pytest.mark.parametrize("text", ["2026-06-03T14:02", "yesterday", "2026-06-03T14Z", "2026-06-31", "T"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    """With what to write."""
    with pytest.raises(ValueError, match="write "):
        parse_at(text)


def test_a_moment_keeps_its_offset() -> None:
    """A record says the hour as who wrote it meant it."""
    assert parse_moment("2040-01-01T00:00-05:00").isoformat() == "2040-01-01T00:00:00-05:00"


def test_what_is_wrong_with_an_option_is_one_sentence() -> None:
    """Told at its option, with exit code 2; what is said twice counts once."""

    @click.command(epilog=exit_codes("no"))
    @click.option("--at", callback=parsed(parse_at))
    @click.option("--client", "clients", multiple=True, callback=each_parsed(parse_address))
    def verb(at: float | None, clients: tuple[object, ...]) -> None:
        click.echo(f"{at} {len(clients)}")

    def run(*words: str) -> tuple[int, str]:
        said = CliRunner().invoke(verb, words)
        return said.exit_code, said.output

    assert run() == (0, "None 0\n")
    assert run("--at", "1972-01-01", "--client", "192.0.2.1", "--client", "192.0.2.1") == (0, "63072000.0 1\n")
    for words in (("--at", "noon"), ("--client", "192.0.2")):
        code, said = run(*words)
        assert (code, f"Invalid value for '{words[0]}'" in said, "write" in said) == (2, True, True)


@pytest.mark.parametrize(("ends", "code"), [(Failure("a\nb"), 1), (Broken("a\nb"), 2)])
def test_a_verb_ends_with_its_lines_as_they_are(ends: Failure, code: int) -> None:
    """On standard error, with nothing around them."""

    @click.command
    def verb() -> None:
        raise ends

    said = CliRunner().invoke(verb)
    assert (said.exit_code, said.stdout, said.stderr) == (code, "", "a\nb\n")


def test_exit_codes_that_never_come_are_not_told() -> None:
    """The end of the help."""
    assert "  1  " not in exit_codes()
    assert "  1  nobody\n  2  wrong usage" in exit_codes("nobody")


def test_json_has_days_and_letters_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing that is neither is passed over in silence."""
    print_json({"day": date(2030, 1, 2), "à": [1]})

    assert json.loads(said := capsys.readouterr().out) == {"day": "2030-01-02", "à": [1]}
    assert "à" in said
    with pytest.raises(TypeError):
        print_json(object())
