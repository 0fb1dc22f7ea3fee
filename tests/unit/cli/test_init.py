"""What `interdict init` writes is sound whatever is wanted, and it writes it whole or not at all."""

import itertools
import os
import re
import stat
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from resolver import config as configuration
from resolver.cli.init import own_networks, write_whole
from resolver.cli.main import interdict
from resolver.cli.options import Broken, Failure
from tests.support.server import SlowUpstream

SOMEWHERE = ("--upstream", "192.0.2.53", "--no-ask")


def init(*words: str) -> Result:
    """Run it, not on a terminal."""
    return CliRunner().invoke(interdict, ["init", *words])


def printed(*words: str) -> str:
    """The configuration that comes of some options."""
    said = init("--print", *SOMEWHERE, *words)
    assert said.exit_code == 0, said.output
    return said.stdout


LISTEN = ((), ("--listen", "127.0.0.1:5300", "--listen", "[::1]:5300"), ("--listen", "192.0.2.1"))
GROUPS = (
    (),
    ("--group", "phones=10.20.0.0/16,2001:db8:20::/48"),
    ("--group", "a=10.1.0.0/16", "--group", "b=10.2.0.0/16"),
)
ORDERS = ((), ("--order", "none"), ("--order", "ca-tbs-2025-02-06", "--mode", "observe"))
OTHERS = (
    (),
    ("--metrics", "none", "--state-dir", "state", "--allow", "10.0.0.0/8"),
    ("--metrics", "[::1]:9999", "--certificate", "a b.pem", "--key", "b.pem", "--name", "dns.example.org"),
    ("--upstream", "2001:db8::53", "--upstream", "[2001:db8::54]:5353", "--upstream", "192.0.2.54:53"),
)  # fmt: skip


# Each choice meets each other one, though not all of them at once.
COMBINED = [
    (*LISTEN[(i + j) % 3], *GROUPS[i % 3], *ORDERS[j % 3], *OTHERS[(i + 2 * j) % 4])
    for i, j in itertools.product(range(3), range(6))
]


@pytest.mark.parametrize("words", COMBINED, ids=" ".join)
def test_what_is_written_passes_the_strictest_check(words: tuple[str, ...], tmp_path: Path) -> None:
    """Whatever is combined."""
    file = tmp_path / "interdict.yaml"
    written = init(str(file), *SOMEWHERE, *words)
    checked = CliRunner().invoke(interdict, ["check", "--strict", "--config", str(file)])

    assert (written.exit_code, checked.exit_code) == (0, 0), written.output + checked.output
    assert all(len(line) <= 120 for line in file.read_text().splitlines())


def test_everything_that_is_said_is_written() -> None:
    """Each option, by what the configuration then is."""
    text = printed(
        "--listen", "192.0.2.1", "--listen", "[2001:db8::1]:5300", "--upstream", "[2001:db8::53]:5353",
        "--allow", "10.0.0.0/8", "--group", "phones=10.20.0.0/16", "--order", "ca-tbs-2023-10-30", "--for", "phones",
        "--for", "everyone", "--mode", "observe", "--metrics", "127.0.0.1:9999", "--state-dir", "/srv/interdict",
        "--certificate", "c.pem", "--key", "k.pem", "--name", "dns.example.org",
    )  # fmt: skip
    config = configuration.read(text, "interdict.yaml")

    assert list(map(str, config.listen)) == ["192.0.2.1:53", "[2001:db8::1]:5300"]
    assert [(one.address, one.port) for one in config.upstreams if not isinstance(one, str)] == [
        ("192.0.2.53", None), ("2001:db8::53", 5353),
    ]  # fmt: skip
    assert list(map(str, config.allowed_networks)) == ["10.0.0.0/8"]
    assert [group.name for group in config.groups] == ["everyone", "phones"]
    (line,) = config.policy.orders
    assert (line.order, line.groups, line.mode) == ("ca-tbs-2023-10-30", ("phones", "everyone"), "observe")
    assert (str(config.metrics.listen), config.state_dir) == ("127.0.0.1:9999", "/srv/interdict")
    encrypted = config.encrypted
    assert (encrypted.certificate, encrypted.key, encrypted.name) == ("c.pem", "k.pem", "dns.example.org")
    assert (len(encrypted.dot), len(encrypted.doh)) == (2, 2)


def test_what_nobody_said_is_told_with_its_option() -> None:
    """On standard error: nothing is taken without a word."""
    said = init("--print", "--no-ask")

    for option in ("--listen", "--upstream", "--allow", "--group", "--order", "--for", "--mode", "--metrics"):
        assert re.search(rf".+: .+ \({option} says otherwise\)", said.stderr), option
    assert "upstreams: system" in said.stdout


def test_the_default_is_that_of_the_product() -> None:
    """The federal Canadian orders of 2023, for everyone."""
    config = configuration.read(printed(), "interdict.yaml")

    assert config.policy.orders == configuration.Config().policy.orders


def test_orders_bind_the_groups_that_were_named() -> None:
    """Whoever describes phones means them."""
    config = configuration.read(printed("--group", "phones=10.20.0.0/16"), "interdict.yaml")

    assert {group for line in config.policy.orders for group in line.groups} == {"phones"}


def test_whoever_is_in_a_group_may_ask() -> None:
    """An order for devices that are refused would be for nobody."""
    config = configuration.read(printed("--allow", "10.0.0.0/8", "--group", "x=192.0.2.0/24,10.9.0.0/16"), "i.yaml")

    assert list(map(str, config.allowed_networks)) == ["10.0.0.0/8", "192.0.2.0/24"]


def test_every_line_that_is_commented_out_can_be_taken_in() -> None:
    """Without its #, the file is as sound."""
    text = printed("--group", "phones=10.20.0.0/16")
    taken_in = re.sub(r"^#(?=  \S|encrypted)|^# (?=node|user)", "", text, flags=re.MULTILINE)
    config = configuration.read(taken_in, "interdict.yaml")

    assert (config.node, config.user) == ("dns-1", "interdict")
    assert all((config.encrypted.dot, config.encrypted.doh, config.encrypted.doq, config.encrypted.doh3))
    assert len(config.upstreams) == 2
    assert config.policy.ways_round == {"doh-resolvers": False}


@pytest.mark.parametrize(
    ("words", "mend"),
    [
        (["--listen", "here"], "write 192.0.2.53"),
        (["--upstream", "dns.example"], "write 192.0.2.53"),
        (["--allow", "10.0.0"], "write for example"),
        (["--group", "phones"], "write for example phones="),
        (["--group", "phones=10.0.0"], "write for example"),
        (["--order", "ca-tbs-2023-10-31"], 'did you mean "ca-tbs-2023-10-30"?'),
        (["--for", "phones"], "there is no group"),
        (["--mode", "maybe"], "observe"),
        (["--metrics", "9530"], 'write "127.0.0.1:53"'),
        (["--certificate", "a.pem"], "belong together"),
        (["--group", "Phones=10.0.0.0/8"], "is not a group name"),
        (["--group", "a=10.0.0.0/8", "--group", "b=10.0.0.0/8"], "is in group"),
    ],
)
def test_what_does_not_go_together_is_told_and_nothing_is_written(words: list[str], mend: str, tmp_path: Path) -> None:
    """Exit code 2, one sentence, no file."""
    said = init(str(tmp_path / "interdict.yaml"), *SOMEWHERE, *words)

    assert (said.exit_code, said.stdout) == (2, "")
    assert mend in " ".join(said.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """Unless that is asked for."""
    file = tmp_path / "interdict.yaml"
    file.write_text("node: mine\n")

    refused = init(str(file), *SOMEWHERE)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "--force" in refused.stderr
    assert file.read_text() == "node: mine\n"

    assert init(str(file), *SOMEWHERE, "--force").exit_code == 0
    assert "allowed_networks" in file.read_text()


def test_the_next_commands_are_told(tmp_path: Path) -> None:
    """Three, with the file that was written, ready to copy."""
    file = tmp_path / "etc" / "interdict.yaml"
    said = init(str(file), *SOMEWHERE)

    assert re.findall(r"^  interdict (\w+) --config (\S+)", said.stdout, re.MULTILINE) == [
        ("doctor", str(file)), ("check", str(file)), ("serve", str(file)),
    ]  # fmt: skip
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_an_upstream_that_does_not_answer_is_told_and_the_file_written(tmp_path: Path) -> None:
    """It may be there tomorrow."""
    with SlowUpstream(lambda query: None) as upstream:
        host, port = upstream.address
        said = init(str(tmp_path / "interdict.yaml"), "--upstream", f"{host}:{port}")

    assert said.exit_code == 0
    assert f"upstream {host}:{port} UDP: no answer within" in said.stderr


def test_a_file_is_put_in_place_whole_or_not_at_all(tmp_path: Path) -> None:
    """Whoever was faster keeps his; a folder that can not be written to is told."""
    target = tmp_path / "interdict.yaml"
    write_whole(target, "first\n", force=False)
    with pytest.raises(Failure, match="is there already"):
        write_whole(target, "second\n", force=False)
    assert (target.read_text(), os.listdir(tmp_path)) == ("first\n", ["interdict.yaml"])

    with pytest.raises(Broken, match="can not be written"):
        write_whole(target / "below" / "interdict.yaml", "third\n", force=False)


ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t{default}\t{gateway}\t0003\t0\t0\t0\t{default}\t0\t0\t0
eth0\t{ten}\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0
eth1\t{public}\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0
nonsense
"""
ADDRESSES = """\
00000000000000000000000000000001 01 80 10 80       lo
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
fd000000000000010000000000000002 04 40 00 82     eth0
20014860000000000000000000000001 05 30 00 80     eth1
nonsense
"""


def column(address: str) -> str:
    """An address as the kernel writes it."""
    return f"{int.from_bytes(bytes(map(int, address.split('.'))), sys.byteorder):08X}"


def test_the_networks_of_the_interfaces_are_found() -> None:
    """Private ones, and others apart; no default route, no loopback, no link-local network."""
    routes = ROUTES.format(
        default=column("0.0.0.0"), gateway=column("10.1.2.1"), ten=column("10.1.2.0"), mask=column("255.255.255.0"),
        public=column("8.8.8.0"),
    )  # fmt: skip
    private, others = own_networks(routes, ADDRESSES)

    assert list(map(str, private)) == ["10.1.2.0/24", "fd00:0:0:1::/64"]
    assert list(map(str, others)) == ["8.8.8.0/24", "2001:4860::/48"]
    assert own_networks("", "") == ((), ())
