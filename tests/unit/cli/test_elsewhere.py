"""The verbs `export` and `verify-export`: what they take, what they print where, what they exit with."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from resolver.cli.elsewhere import FORMATS
from resolver.cli.main import interdict
from resolver.policy.export_formats import Format


def test_the_formats_are_those_that_can_be_written() -> None:
    """The verb does not load the writers to say so."""
    assert tuple(form.value for form in Format) == FORMATS


def run(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(interdict, [*words, "--config", str(folder / "interdict.yaml")])


def test_export_prints_the_file_and_what_it_lacks_apart(folder: Path) -> None:
    """The file alone on standard output; exit code 1 only where one asks for it."""
    said = run(folder, "export", "rpz")
    strict = run(folder, "export", "rpz", "--strict")

    assert said.exit_code == 0
    assert said.stdout.endswith("chat.example CNAME .\n*.chat.example CNAME .\n")
    assert said.stderr == (
        "not as policy has it: 1 name: the name gets nxdomain instead of refused (chat.example)\n"
        "not as policy has it: 1 name: names below get nxdomain instead of refused (chat.example)\n"
    )
    assert (strict.exit_code, strict.stderr) == (1, said.stderr)
    assert run(folder, "export", "knot", "--strict").exit_code == 0


def test_export_writes_the_same_to_a_file(folder: Path) -> None:
    """Nothing is printed then; a folder that is not there is told."""
    at = ["--at", "2024-01-01"]
    said = run(folder, "export", "adblock", "--output", str(folder / "list"), *at)

    assert (said.exit_code, said.stdout) == (0, "")
    assert (folder / "list").read_text() == run(folder, "export", "adblock", *at).stdout
    lost = run(folder, "export", "adblock", "--output", str(folder / "none" / "list"))
    assert (lost.exit_code, "name another --output" in lost.stderr) == (1, True)


def test_addresses_are_printed_for_firewalls(beside: Path) -> None:
    """As a plain list, and as a ruleset for the group's networks."""
    plain = run(beside, "export", "edl", "--addresses", "--list", "canary")
    words = ["nftables", "--group", "office", "--list", "canary", "--resolver", "192.0.2.53", "--https"]
    ruleset = run(beside, "export", *words)

    assert (plain.exit_code, plain.stdout.splitlines()[2:]) == (0, ["192.0.2.8", "2001:db8::/64"])
    assert ruleset.exit_code == 0
    for said in ("10.2.0.0/16", "192.0.2.53", "@list-canary-ipv4 meta l4proto { tcp, udp } th dport { 53, 443, 853 }"):
        assert said in ruleset.stdout


@pytest.mark.parametrize(
    ("words", "code", "mend"),
    [
        (["nftables"], 1, 'no list of ways round with addresses has the id "app-resolvers"; write one of: canary'),
        (["nftables", "--list", "canari"], 1, 'did you mean "canary"?'),
        (["nftables", "--group", "phone", "--list", "canary"], 1, 'did you mean "phones"?'),
        (["nftables", "--list", "canary", "--redirect"], 2, "add --resolver ADDR"),
        (["nftables", "--resolver", "one"], 2, "'one' is no IP address"),
        (["nftables", "--order", "ban"], 2, "--order changes nothing in what is asked for"),
        (["nftables", "--addresses"], 2, "--addresses changes nothing"),
        (["edl", "--addresses", "--without-ways-round"], 2, "--without-ways-round changes nothing"),
        (["edl", "--addresses", "--https"], 2, "--https changes nothing"),
        (["edl", "--list", "canary"], 2, "--list changes nothing"),
        (["rpz", "--addresses"], 2, "--addresses changes nothing"),
        (["rpz", "--resolver", "192.0.2.53"], 2, "--resolver changes nothing"),
    ],
)
def test_what_says_nothing_about_the_format_is_refused_with_its_mend(
    beside: Path, words: list[str], code: int, mend: str
) -> None:
    """An option that is not heeded would be thought to be."""
    said = run(beside, "export", *words)

    assert (said.exit_code, mend in said.stderr) == (code, True), said.stderr


@pytest.mark.parametrize(
    ("words", "mend"),
    [
        (["export", "excel"], "rpz"),
        (["export", "rpz", "--at", "yesterday"], "write a date such as"),
        (["verify-export"], "--server"),
        (["verify-export", "--server", "192.0.2.53", "--type", "BANANA"], "write a mnemonic"),
    ],
)
def test_wrong_usage_exits_2(folder: Path, words: list[str], mend: str) -> None:
    """One sentence."""
    said = run(folder, *words)

    assert (said.exit_code, said.stdout) == (2, "")
    assert mend in " ".join(said.stderr.split())
