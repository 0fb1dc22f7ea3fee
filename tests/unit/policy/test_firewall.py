"""Addresses for firewalls: rulesets that the real nft takes, and that close what they say to whom they say."""

import itertools
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.policy.additions import WayRound
from resolver.policy.firewall import Firewall, networks_of, write_addresses, write_nftables
from resolver.policy.generation import NetworkTable
from resolver.policy.terms import GroupEntry
from tests.support.clock import START_AT

OWN = WayRound(
    id="own-resolvers",
    title='The apps\' "own" resolvers, ' + "é" * 120,
    effect="Apps ask them.",
    version="2030-01-01",
    action="nxdomain",
    addresses=("192.0.2.1", "192.0.2.0/24", "2001:db8::8", "198.51.100.8"),
)
V4_ONLY = OWN.model_copy(update={"id": "4", "title": "Public ones", "addresses": (ip_network("192.0.2.53"),)})
PLAIN = Firewall(
    group="phones",
    networks=(ip_network("10.1.0.0/16"), ip_network("2001:db8:1::/48")),
    lists=(OWN, V4_ONLY),
    resolvers=(),
    redirect=False,
    https=False,
    at=START_AT,
)
BOTH = (ip_address("203.0.113.53"), ip_address("2001:db8:53::53"))
CASES = {
    "lists alone": PLAIN,
    "with HTTPS": replace(PLAIN, https=True),
    "to one resolver": replace(PLAIN, resolvers=BOTH),
    "to one resolver of one family": replace(PLAIN, resolvers=BOTH[:1], redirect=True),
    "sent to one resolver": replace(PLAIN, resolvers=BOTH, redirect=True),
    "everybody": replace(PLAIN, networks=(ip_network("0.0.0.0/0"), ip_network("::/0")), resolvers=BOTH),
    "IPv6 alone": replace(PLAIN, networks=(ip_network("2001:db8:1::/48"),)),
}


def rules(firewall: Firewall) -> list[str]:
    """The rules of the ruleset, as few words as tell them apart."""
    lines = [line.strip() for line in write_nftables(firewall, "1.2").splitlines()]
    return [re.sub(r"meta l4proto { tcp, udp } | counter| comment .*", "", line) for line in lines if "saddr @" in line]


@pytest.mark.parametrize("case", CASES)
def test_nft_takes_every_ruleset(case: str, tmp_path: Path, peer: Callable[[str], str]) -> None:
    """Checked by nft itself, with nothing put in force."""
    path = tmp_path / "interdict.nft"
    path.write_text(write_nftables(CASES[case], "1.2"))
    said = subprocess.run([peer("nft"), "-c", "-f", path], capture_output=True, text=True, check=False)
    if "Operation not permitted" in said.stderr:
        pytest.skip("nft needs CAP_NET_ADMIN even to check")

    assert (said.returncode, said.stderr) == (0, "")


def test_the_listed_addresses_are_closed_to_the_group() -> None:
    """For DNS and DNS over TLS; no rule for a family that a list has no addresses of."""
    assert rules(PLAIN) == [
        "ip saddr @clients-ipv4 ip daddr @list-own-resolvers-ipv4 th dport { 53, 853 } reject",
        "ip saddr @clients-ipv4 ip daddr @list-4-ipv4 th dport { 53, 853 } reject",
        "ip6 saddr @clients-ipv6 ip6 daddr @list-own-resolvers-ipv6 th dport { 53, 853 } reject",
    ]


def test_https_is_closed_only_where_it_is_asked_for_and_what_that_costs_is_told() -> None:
    """At the listed addresses, not everywhere."""
    with_https = replace(PLAIN, https=True, resolvers=BOTH)

    assert [rule for rule in rules(with_https) if "443" in rule] == [
        "ip saddr @clients-ipv4 ip daddr @list-own-resolvers-ipv4 th dport { 53, 443, 853 } reject",
        "ip saddr @clients-ipv4 ip daddr @list-4-ipv4 th dport { 53, 443, 853 } reject",
        "ip6 saddr @clients-ipv6 ip6 daddr @list-own-resolvers-ipv6 th dport { 53, 443, 853 } reject",
    ]
    assert "PORT 443 OF THESE ADDRESSES IS CLOSED TOO" in write_nftables(with_https, "1.2")
    assert "port 443 is left open" in write_nftables(PLAIN, "1.2")


def test_all_but_the_resolver_is_rejected_or_sent_to_it() -> None:
    """The resolver's own questions go out; port 853 is never sent elsewhere, since its name would not fit."""
    found = rules(replace(PLAIN, lists=(), resolvers=BOTH[:1], redirect=True))

    assert found == [
        "ip saddr @resolvers-ipv4 return",
        "ip saddr @clients-ipv4 th dport { 53, 853 } reject",
        "ip6 saddr @clients-ipv6 th dport { 53, 853 } reject",
        "ip saddr @resolvers-ipv4 return",
        "ip saddr @clients-ipv4 th dport 53 dnat ip to 203.0.113.53",
    ]


def test_a_ruleset_says_what_it_is() -> None:
    """Version, moment, lists with their days, group."""
    head = write_nftables(PLAIN, "1.2").splitlines()[:5]

    assert head[1] == "# made by Interdict 1.2, at 2030-03-17T17:46:40+00:00"
    assert head[2].startswith('# list own-resolvers of 2030-01-01: The apps\' "own" resolvers')
    assert "for the group phones" in head[4]


def test_a_plain_list_has_each_address_once() -> None:
    """What a network holds is not said twice; a single address has no prefix length."""
    lines = write_addresses((OWN, V4_ONLY), START_AT, "1.2").splitlines()

    assert [line for line in lines if not line.startswith("#")] == ["192.0.2.0/24", "198.51.100.8", "2001:db8::8"]
    assert lines[0] == "# made by Interdict 1.2, at 2030-03-17T17:46:40+00:00"


_NETWORKS = st.builds(
    lambda value, prefix: str(ip_network((value << 28, prefix), strict=False)), st.integers(0, 15), st.integers(0, 4)
)


@settings(deadline=None)
@given(st.lists(_NETWORKS, min_size=1, max_size=4), st.lists(_NETWORKS, max_size=4))
def test_a_groups_networks_are_those_that_find_it(ours: list[str], theirs: list[str]) -> None:
    """By the longest prefix over all groups, and of equal ones the first, for every address; nothing twice."""
    groups = (GroupEntry("phones", tuple(ours)), GroupEntry("office", tuple(theirs)))
    table = NetworkTable([(text, i) for i, group in enumerate(groups) for text in group.networks])
    found = [networks_of(group.name, groups) for group in groups]

    for i in range(16):
        address = ip_address(i << 28)
        owner = table.find(address.packed)
        assert [sum(address in network for network in networks) for networks in found] == [owner == 0, owner == 1]
    for one, other in itertools.combinations([*found[0], *found[1]], 2):
        assert not one.overlaps(other)
