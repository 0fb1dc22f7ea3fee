"""What a firewall must stop that no resolver can: questions to resolvers elsewhere, by their addresses.

Apps that ask resolvers of their own, and clients set to a public one, get round every answer that is given here. Lists
of ways round hold such addresses; they become an nftables ruleset for one group's networks, or a plain list. What is
written stops DNS (port 53) and DNS over TLS and QUIC (port 853); HTTPS only where it is asked for, since there the same
addresses may serve other things. Pure: the same arguments make the same octets.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, collapse_addresses

from resolver.policy.additions import Network, WayRound, parse_network
from resolver.policy.export_formats import instant
from resolver.policy.terms import GroupEntry

_FAMILIES = ((4, "ip", "ipv4"), (6, "ip6", "ipv6"))
_COMMENT = 128  # octets that nft takes in a comment, with the NUL at its end


@dataclass(frozen=True, slots=True)
class Firewall:
    """What a ruleset is made of.

    Attributes:
        group: Whose traffic is meant.
        networks: Where it comes from.
        lists: Whose addresses are closed.
        resolvers: The addresses that the group may ask; without any, all that are not listed.
        redirect: Whether what is asked of others on port 53 is sent to the first resolver, not rejected.
        https: Whether port 443 of the listed addresses is closed too.
        at: The moment, Unix seconds.
    """

    group: str
    networks: tuple[Network, ...]
    lists: tuple[WayRound, ...]
    resolvers: tuple[IPv4Address | IPv6Address, ...]
    redirect: bool
    https: bool
    at: float


def networks_of(group: str, groups: Sequence[GroupEntry]) -> tuple[Network, ...]:
    """The networks of a group less what longer prefixes give to others, as few as say the same."""
    owners: dict[Network, str] = {}
    for entry in groups:
        for text in entry.networks:
            owners.setdefault(parse_network(text), entry.name)
    left: list[Network] = []
    for network, owner in owners.items():
        if owner == group:
            pieces = [network]
            for other, theirs in owners.items():
                if theirs != group and other != network and _holds(network, other):
                    pieces = [rest for piece in pieces for rest in _without(piece, other)]
            left += pieces
    return _collapsed(left)


def _holds(outer: Network, inner: Network) -> bool:
    return outer.version == inner.version and outer.prefixlen <= inner.prefixlen and inner.network_address in outer


def _without(network: Network, hole: Network) -> Iterable[Network]:
    if _holds(hole, network):
        return ()
    if not _holds(network, hole):
        return (network,)
    return network.address_exclude(hole)  # type: ignore[arg-type]


def _collapsed(networks: Iterable[Network]) -> tuple[Network, ...]:
    every = list(networks)
    return (
        *collapse_addresses(network for network in every if network.version == 4),
        *collapse_addresses(network for network in every if network.version == 6),
    )


def _of_version(networks: Iterable[Network], version: int) -> list[str]:
    return [_shown(network) for network in networks if network.version == version]


def _shown(network: Network) -> str:
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


# ---- a plain list ---------------------------------------------------------------------------------------------------


def write_addresses(lists: Sequence[WayRound], at: float, version: str) -> str:
    """Write the addresses of some lists, one a line, for the external dynamic lists of firewalls.

    Args:
        lists: Of ways round.
        at: Unix seconds.
        version: Of the product, for the first line.
    """
    body = [_shown(network) for network in _collapsed(network for one in lists for network in one.addresses)]
    return "\n".join([*(f"# {line}" for line in _head(lists, at, version)), *body, ""])


def _head(lists: Sequence[WayRound], at: float, version: str) -> Iterator[str]:
    yield f"made by Interdict {version}, at {instant(at)}"
    for one in lists:
        yield " ".join(f"list {one.id} of {one.version}: {one.title}".split())


# ---- nftables -------------------------------------------------------------------------------------------------------


def write_nftables(firewall: Firewall, version: str) -> str:
    """Write a ruleset for `nft -f`, which puts it in place of the one of before.

    Args:
        firewall: What is to be closed, for whom.
        version: Of the product, for the first line.
    """
    lines = [
        "#!/usr/sbin/nft -f",
        *(f"# {line}" for line in (*_head(firewall.lists, firewall.at, version), *_remarks(firewall))),
        "",
        "table inet interdict",
        "delete table inet interdict",
        "table inet interdict {",
    ]
    lines += _set("clients", f"networks of the group {firewall.group}", firewall.networks)
    if firewall.resolvers:
        resolvers = [parse_network(str(address)) for address in firewall.resolvers]
        lines += _set("resolvers", "who may be asked, and may ask", resolvers)
    for one in firewall.lists:
        lines += _set(f"list-{one.id}", f"{one.id} of {one.version}: {one.title}", one.addresses)
    lines += [
        "    chain forward {",
        "        type filter hook forward priority filter - 5; policy accept;",
        *(f"        {rule}" for rule in _forward(firewall)),
        "    }",
    ]
    if firewall.redirect:
        lines += [
            "    chain prerouting {",
            "        type nat hook prerouting priority dstnat - 5; policy accept;",
            *(f"        {rule}" for rule in _prerouting(firewall)),
            "    }",
        ]
    return "\n".join([*lines, "}", ""])


def _remarks(firewall: Firewall) -> Iterator[str]:
    yield f"for the group {firewall.group}: what this machine forwards from its networks to the addresses of the lists"
    yield "is rejected on the ports 53 and 853 (DNS, and DNS over TLS and QUIC); exempt devices are not told apart"
    if firewall.https:
        yield "PORT 443 OF THESE ADDRESSES IS CLOSED TOO: DNS over HTTPS, and with it whatever else they serve there"
    else:
        yield "port 443 is left open, and with it DNS over HTTPS at these addresses: --https closes it, and with it"
        yield "whatever else they serve there"
    if firewall.redirect:
        yield "port 53 of all others than the resolver is sent to it, and port 853 is rejected; the resolver's replies"
        yield "must come back through this machine"
    elif firewall.resolvers:
        yield "ports 53 and 853 of all others than the resolver are rejected"
    else:
        yield "a resolver in the group's networks that asks a listed address is stopped too: name it with --resolver"


def _set(name: str, comment: str, networks: Iterable[Network]) -> Iterator[str]:
    every = _collapsed(networks)
    for version, _, family in _FAMILIES:
        found = _of_version(every, version)
        if found:
            yield f"    set {name}-{family} {{"
            yield f"        type {family}_addr; flags interval; comment {_quoted(comment)}"
            yield "        elements = {"
            yield ",\n".join(f"            {network}" for network in found)
            yield "        }"
            yield "    }"


def _quoted(comment: str) -> str:
    plain = " ".join(comment.replace('"', "'").split()).encode()[: _COMMENT - 1].decode(errors="ignore")
    return f'"{plain}"'


def _forward(firewall: Firewall) -> Iterator[str]:
    yield from _spared(firewall)
    ports = "53, 443, 853" if firewall.https else "53, 853"
    for version, family, suffix in _FAMILIES:
        if not _of_version(firewall.networks, version):
            continue
        clients = f"{family} saddr @clients-{suffix}"
        for one in firewall.lists:
            if _of_version(one.addresses, version):
                asked = f"{family} daddr @list-{one.id}-{suffix} meta l4proto {{ tcp, udp }} th dport {{ {ports} }}"
                yield f"{clients} {asked} counter reject comment {_quoted(one.id)}"
        if firewall.resolvers:
            yield f"{clients} meta l4proto {{ tcp, udp }} th dport {{ 53, 853 }} counter reject"


def _prerouting(firewall: Firewall) -> Iterator[str]:
    yield from _spared(firewall)
    for version, family, suffix in _FAMILIES:
        resolver = next((address for address in firewall.resolvers if address.version == version), None)
        if resolver is not None and _of_version(firewall.networks, version):
            asked = f"{family} saddr @clients-{suffix} meta l4proto {{ tcp, udp }} th dport 53"
            yield f"{asked} counter dnat {family} to {resolver}"


def _spared(firewall: Firewall) -> Iterator[str]:
    """What is asked of the resolver passes, and what it asks itself, also where it is one of the group's devices."""
    for version, family, suffix in _FAMILIES:
        if any(address.version == version for address in firewall.resolvers):
            yield f"{family} daddr @resolvers-{suffix} return"
            yield f"{family} saddr @resolvers-{suffix} return"
