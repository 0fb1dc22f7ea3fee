"""The file that workers map: what goes in comes out, damage is found, and orders begin and end on the second."""

import hashlib
import ipaddress
import json
import mmap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resolver.policy.documents import Action, Basis, Mode
from resolver.policy.generation import (
    MAGIC,
    STRICTNESS,
    Generation,
    GenerationError,
    NetworkTable,
    View,
    write_generation,
)
from resolver.policy.terms import FOREVER, Claim, PolicyTerms, Precedence
from resolver.policy.zone import Reach, Rule
from tests.support.build import Ban, Spared, Zone, own, policy, terms_and_names, whole, wire

PROPERTY = settings(deadline=None)

BANS = [
    Ban("first", ("suffix chat.example", "exact pay.example"), effective=1000.0, expires=2000.0),
    Ban(
        "second", ("suffix pay.example", "suffix xn--bcher-kva.example"), Mode.OBSERVE, Action.DROP, ("phones", "desks")
    ),
    Ban("third", ("exact chat.example",), action=Action.SINKHOLE, effective=1500.5, basis=Basis.OUTSIDE_AUTHORITY),
]
ZONES = [Zone("zone:rpz", names=(("below bad.example", Rule(Action.NXDOMAIN)),))]
TERMS, NAMES, _ = whole(BANS, ZONES, [Spared("lab", ("first",), ("desks",))])
OCTETS, DIGEST = write_generation(TERMS, NAMES, serial=7, at=1234.5)
SEALED = len(MAGIC) + 32


def opened(octets: bytes) -> Generation:
    """A generation that lies in memory."""
    return Generation(memoryview(bytearray(octets)))


def verdict_on(octets: bytes) -> str:
    """What opening and verifying say of a file."""
    try:
        opened(octets).verify()
    except GenerationError as error:
        return str(error)
    return "sound"


def with_header(change: Callable[[dict[str, Any]], object], *, sealed: bool = True) -> bytes:
    """The file with its header changed, the lengths and places put right, and sealed again."""
    length = int.from_bytes(OCTETS[SEALED : SEALED + 8], "little")
    header: Any = json.loads(OCTETS[SEALED + 8 : SEALED + 8 + length])
    replaced = change(header)
    written = json.dumps(header if replaced is None else replaced).encode()
    first = (SEALED + 8 + length + 63) // 64 * 64
    start = (SEALED + 8 + len(written) + 63) // 64 * 64
    body = bytes(start - SEALED - 8 - len(written)) + OCTETS[first:]
    old = header.get("arrays") if isinstance(header, dict) else None
    if isinstance(old, str):
        written = written.replace(old.encode(), hashlib.sha256(body).hexdigest().encode())
    head = len(written).to_bytes(8, "little") + written
    return MAGIC + (hashlib.sha256(head).digest() if sealed else OCTETS[len(MAGIC) : SEALED]) + head + body


# ---- there and back -------------------------------------------------------------------------------------------------


def test_what_is_written_is_read() -> None:
    """Serial, digest, time, terms and names."""
    generation = opened(OCTETS)
    generation.verify()

    assert (generation.serial, generation.digest, generation.compiled_at) == (7, DIGEST, 1234.5)
    assert generation.names == len(NAMES)
    assert generation.terms == TERMS
    assert {name: generation.table.find(name) for name in NAMES} == NAMES


@pytest.mark.parametrize("count", [0, 1, 2, 1000, 100_000])
def test_names_are_found_in_the_mapped_file(tmp_path: Path, count: int) -> None:
    """However many there are: each listed one, none of as many others, through a private mapping as workers have it."""
    names = {wire(f"n{i}.example"): i % 3 for i in range(count)}
    terms = PolicyTerms((), (), (), (), (), ((), (), ()), 60, (), ())
    path = tmp_path / "1.generation"
    path.write_bytes(write_generation(terms, names, serial=1, at=0.0)[0])
    with path.open("rb") as file:
        generation = Generation(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)))
    generation.verify()

    assert generation.names == count
    assert all(generation.table.find(name) == number for name, number in names.items())
    sample = range(0, count + 10, max(1, count // 1000))
    assert all(generation.table.find(wire(f"m{i}.example")) == -1 for i in sample)
    assert all(len(generation.table.covering(wire(f"www.n{i}.example"))) == (i < count) for i in sample)


@PROPERTY
@given(
    st.dictionaries(
        st.lists(st.text("ab", min_size=1, max_size=9), min_size=1, max_size=4).map(".".join), st.integers(0, 9)
    )
)
def test_any_names_come_back(names: dict[str, int]) -> None:
    """Each with the number of its claim set, found by itself and from below."""
    listed = {wire(name): number for name, number in names.items()}
    octets, _ = write_generation(TERMS, listed, serial=1, at=0.0)
    table = opened(octets).table

    for name, number in listed.items():
        assert table.find(name) == number
        assert (1 + 1, number) in table.covering(b"\1x" + name)


def test_writing_again_gives_the_same_octets() -> None:
    """And the order in which names were collected does not matter."""
    backwards = dict(sorted(NAMES.items(), reverse=True))

    assert write_generation(TERMS, backwards, serial=7, at=1234.5) == (OCTETS, DIGEST)


def test_the_digest_is_that_of_the_policy_alone() -> None:
    """Serial and time are not part of it; terms and names are."""
    assert write_generation(TERMS, NAMES, serial=8, at=99.0)[1] == DIGEST
    assert write_generation(TERMS, NAMES | {wire("more.example"): 0}, serial=7, at=1234.5)[1] != DIGEST
    assert write_generation(TERMS, {name: 0 for name in NAMES}, serial=7, at=1234.5)[1] != DIGEST
    assert write_generation(terms_and_names(BANS[:2])[0], NAMES, serial=7, at=1234.5)[1] != DIGEST


# ---- damage ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=400)
@given(st.integers(0, len(OCTETS) - 1), st.integers(1, 255))
def test_any_flipped_octet_is_found(place: int, bits: int) -> None:
    """Wherever it is: magic, seal, header, arrays, or the gaps between them."""
    damaged = bytearray(OCTETS)
    damaged[place] ^= bits

    assert verdict_on(bytes(damaged)) != "sound"


def test_every_octet_of_the_header_is_sealed() -> None:
    """Serial and time too, which are no part of the digest."""
    for place in range(SEALED + 200):
        damaged = bytearray(OCTETS)
        damaged[place] ^= 1
        assert verdict_on(bytes(damaged)) != "sound", place


@PROPERTY
@given(st.integers(0, len(OCTETS) - 1), st.binary(max_size=8))
def test_a_file_cut_or_grown_is_found(place: int, tail: bytes) -> None:
    """Nothing may be missing and nothing may be added."""
    assert (verdict_on(OCTETS[:place] + tail) == "sound") is (OCTETS[:place] + tail == OCTETS)
    assert (verdict_on(OCTETS + tail) == "sound") is (not tail)


@PROPERTY
@given(st.binary(max_size=200), st.sampled_from([b"", MAGIC, OCTETS[: SEALED + 8], OCTETS[: SEALED + 40]]))
@example(b"", MAGIC)
@example(bytes(32), MAGIC)
@example(bytes(32) + (2**64 - 1).to_bytes(8, "little"), MAGIC)
@example(bytes(32) + (40000).to_bytes(8, "little") + b"[" * 40000, MAGIC)
def test_any_octets_are_a_generation_or_none(tail: bytes, head: bytes) -> None:
    """GenerationError, and nothing else."""
    assert verdict_on(head + tail) != ""


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a list": lambda header: [],
    "null": lambda header: 0,
    "no serial": lambda header: header.pop("serial") and None,
    "no terms": lambda header: header.pop("terms") and None,
    "terms are a number": lambda header: header.update(terms=5),
    "no sections": lambda header: header.pop("sections") and None,
    "a section less": lambda header: header.update(sections={"pool": [0, 0]}),
    "sections overlap the end": lambda header: header["sections"].update({"names/pool": [0, 10**9]}),
    "a section of negative size": lambda header: header["sections"].update({"names/pool": [0, -1]}),
    "a section of half a number": lambda header: header["sections"].update({"names/starts": [0, 6]}),
    "a section at a fraction": lambda header: header["sections"].update({"names/marks": [0.5, 8]}),
    "arrays that do not fit": lambda header: header["sections"].update({"names/records": [0, 4]}),
    "no buckets": lambda header: header["sections"].update({"names/starts": [0, 0]}),
    "a mode of its own": lambda header: header["terms"]["enforcements"][0].__setitem__(2, "warn"),
    "a network of its own": lambda header: header["terms"].update(allowed_networks=["here"]),
    "groups without networks": lambda header: header["terms"].update(groups=[["phones"]]),
    "a claim of two": lambda header: header["terms"].update(claim_sets=[[[0, 0]]]),
    "a claim of nobody": lambda header: header["terms"]["claim_sets"][0].__setitem__(0, [9, 0, 1]),
    "a claim of the last but one": lambda header: header["terms"]["claim_sets"][0].__setitem__(0, [-1, 0, 1]),
    "a claim by a name": lambda header: header["terms"]["claim_sets"][0].__setitem__(0, ["0", 0, 1]),
    "a claim by half an app": lambda header: header["terms"]["claim_sets"][0].__setitem__(0, [0, 0.5, 1]),
    "a claim through no app": lambda header: header["terms"]["claim_sets"][0].__setitem__(0, [0, 3, 1]),
    "a claim on no rule": lambda header: header["terms"]["claim_sets"][0].__setitem__(0, [3, 1, 1]),
    "a reach of its own": lambda header: header["terms"]["claim_sets"][0].__setitem__(0, [0, 0, 9]),
    "a reach from the end": lambda header: header["terms"]["claim_sets"][0].__setitem__(0, [0, 0, -1]),
    "a line of no order": lambda header: header["terms"]["enforcements"][0].__setitem__(0, 3),
    "a line of no group": lambda header: header["terms"]["enforcements"][0].__setitem__(1, [2]),
    "an order that lets pass": lambda header: header["terms"]["enforcements"][0].__setitem__(3, "passthru"),
    "a begin in words": lambda header: header["terms"]["enforcements"][0].__setitem__(4, "soon"),
    "an exemption from no order": lambda header: header["terms"]["exemptions"][0].__setitem__(3, [[3, 0]]),
    "an exemption for no app": lambda header: header["terms"]["exemptions"][0].__setitem__(3, [[0, -1]]),
    "an exemption of no group": lambda header: header["terms"]["exemptions"][0].__setitem__(1, [2]),
    "a zone for no group": lambda header: header["terms"]["zones"][0].__setitem__(2, [2]),
    "a zone of another kind": lambda header: header["terms"]["zones"][0].__setitem__(1, "hosts"),
    "a network of no rule": lambda header: header["terms"]["zones"][0].__setitem__(6, [["ip", "192.0.2.0/24", 1]]),
    "a client network of no rule": lambda header: header["terms"]["zones"][0].__setitem__(
        6, [["client-ip", "192.0.2.0/24", -1]]
    ),
    "a trigger of its own": lambda header: header["terms"]["zones"][0].__setitem__(6, [["mac", "192.0.2.0/24", 0]]),
    "a pattern of no rule": lambda header: header["terms"]["zones"][0].__setitem__(7, [["ads", 1]]),
    "a pattern that is none": lambda header: header["terms"]["zones"][0].__setitem__(7, [["(", 0]]),
    "ECH of no group": lambda header: header["terms"].update(strip_ech=[2]),
    "no digest of the arrays": lambda header: header.pop("arrays") and None,
}


def test_a_header_put_together_again_is_read() -> None:
    """The premise of the test below: the seal is not what is broken."""
    assert verdict_on(with_header(lambda header: None)) == "sound"
    assert verdict_on(with_header(lambda header: header.update(serial=8))) == "sound"
    assert verdict_on(with_header(lambda header: header["terms"].update(block_ttl=12345678))) == "sound"


@PROPERTY
@given(st.integers(0, len(OCTETS) - 1), st.integers(1, 255))
def test_a_damaged_header_is_found_in_opening(place: int, bits: int) -> None:
    """Before anything is judged by it: a claim set less would be missed at a question only."""
    end = SEALED + 8 + int.from_bytes(OCTETS[SEALED : SEALED + 8], "little")
    damaged = bytearray(OCTETS)
    damaged[place % end] ^= bits

    with pytest.raises(GenerationError):
        opened(bytes(damaged))
    with pytest.raises(GenerationError, match="seal"):
        opened(with_header(lambda header: header["terms"]["claim_sets"].pop() and None, sealed=False))


@pytest.mark.parametrize("case", CHANGES)
def test_a_header_that_makes_no_sense_is_refused(case: str) -> None:
    """On opening, before anything is looked up: the table's memory is read by these numbers."""
    with pytest.raises(GenerationError, match=r"damaged|cut short"):
        opened(with_header(CHANGES[case]))


def test_another_version_is_told_what_to_do() -> None:
    """The message names the mend."""
    with pytest.raises(GenerationError, match="compile it again with `interdict reload`"):
        opened(OCTETS.replace(b"GENERATION 3", b"GENERATION 9"))


def test_the_listed_names_can_be_read_again() -> None:
    """All of them, each once, whatever octets their labels hold."""
    odd = wire("chat.example"), b"\2a\0\1b\0"
    terms, _ = terms_and_names([Ban("ban", ("suffix chat.example",))])
    octets, _ = write_generation(terms, dict.fromkeys(odd, 0), serial=1, at=0.0)

    assert sorted(opened(octets).listed()) == sorted(odd)


def test_a_line_counts_within_its_window() -> None:
    """On trial until an instant, enforced from it on: the view says until when it holds, and what comes then."""
    terms, names = terms_and_names([Ban("ban", ("suffix chat.example",))])
    trial = replace(terms.enforcements[0], mode=Mode.OBSERVE, until=100.0)
    ring = replace(terms.enforcements[0], since=100.0, until=200.0)
    octets, _ = write_generation(replace(terms, enforcements=(trial, ring)), names, serial=1, at=0.0)
    generation = opened(octets)

    for at, modes, until in [
        (50.0, [Mode.OBSERVE], 100.0), (99.999, [Mode.OBSERVE], 100.0),
        (100.0, [Mode.ENFORCE], 200.0), (200.0, [], FOREVER),
    ]:  # fmt: skip
        view = View(generation, 0, at)
        assert [stance.mode for stance in view.stances.values()] == modes
        assert view.until == until


# ---- clients --------------------------------------------------------------------------------------------------------

NETWORKS = st.one_of(
    st.tuples(st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address), st.integers(0, 32)),
    st.tuples(st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address), st.integers(0, 128)),
).map(lambda pair: ipaddress.ip_network(pair, strict=False))


@PROPERTY
@given(st.lists(NETWORKS, max_size=12), st.one_of(st.ip_addresses(), NETWORKS.map(lambda n: n.network_address)))
def test_a_client_belongs_to_the_longest_network_that_holds_it(
    networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network],
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """Of equal ones to the first; IPv4 and IPv6 are strangers."""
    table = NetworkTable([(str(network), i) for i, network in enumerate(networks)])
    for asked in [address, *(network.broadcast_address for network in networks)]:
        holding = [(-n.prefixlen, i) for i, n in enumerate(networks) if n.version == asked.version and asked in n]
        assert table.find(asked.packed) == (min(holding)[1] if holding else -1)


def test_clients_and_groups_are_told_by_their_network() -> None:
    """Who may ask, and to which group he belongs."""
    groups = {"site": ("192.0.2.0/24",), "phones": ("192.0.2.64/26", "2001:db8:1::/48")}
    generation = policy(groups=groups)

    def group_of(text: str) -> int:
        return generation.group_of(ipaddress.ip_address(text).packed)

    assert [group_of(a) for a in ("192.0.2.1", "192.0.2.64", "192.0.2.127", "192.0.2.128", "203.0.113.1")] == [
        0, 1, 1, 0, -1,
    ]  # fmt: skip
    assert [group_of(a) for a in ("2001:db8:1::9", "2001:db8:2::9")] == [1, -1]
    assert generation.is_allowed(ipaddress.ip_address("2001:db8:2::9").packed)
    assert not generation.is_allowed(ipaddress.ip_address("203.0.113.1").packed)


# ---- views ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "in_force", "until"),
    [
        (0.0, {1}, 1000.0),
        (999.999, {1}, 1000.0),
        (1000.0, {0, 1}, 1500.5),
        (1500.4, {0, 1}, 1500.5),
        (1500.5, {0, 1, 2}, 2000.0),
        (1999.999, {0, 1, 2}, 2000.0),
        (2000.0, {1, 2}, FOREVER),
        (1e12, {1, 2}, FOREVER),
    ],
)
def test_an_order_holds_from_its_moment_until_it_expires(at: float, in_force: set[int], until: float) -> None:
    """From exactly the second it is effective, and no longer from the second it expires."""
    view = View(opened(OCTETS), 0, at)

    assert set(view.stances) == in_force
    assert view.until == until


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), max_size=6), st.integers(-5, 110))
def test_a_view_holds_until_its_next_transition_and_not_longer(spans: list[tuple[int, int]], at: int) -> None:
    """Between two transitions nothing changes; at a transition something does."""
    generation = policy(
        *(Ban(f"b{i}", ("suffix chat.example",), effective=s, expires=s + d) for i, (s, d) in enumerate(spans))
    )
    view = View(generation, 0, at)

    assert view.until > at
    if view.until == FOREVER:
        assert all(start + length <= at for start, length in spans)
        return
    assert View(generation, 0, view.until - 0.001).stances == view.stances
    assert View(generation, 0, view.until).until > view.until
    assert any(view.until in (start, start + length) for start, length in spans)


@pytest.mark.parametrize(("group", "name", "in_force"), [(0, "phones", {0, 1, 2}), (1, "desks", {1}), (-1, "", set())])
def test_a_view_holds_the_orders_of_its_group(group: int, name: str, in_force: set[int]) -> None:
    """And none where the client is in no group."""
    view = View(opened(OCTETS), group, 1600.0)

    assert (view.group, set(view.stances)) == (name, in_force)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([(Mode.OBSERVE, Action.DROP), (Mode.ENFORCE, Action.SINKHOLE)], (Mode.ENFORCE, Action.SINKHOLE, 1)),
        ([(Mode.ENFORCE, Action.SINKHOLE), (Mode.OBSERVE, Action.DROP)], (Mode.ENFORCE, Action.SINKHOLE, 0)),
        ([(Mode.ENFORCE, Action.NODATA), (Mode.ENFORCE, Action.REFUSED)], (Mode.ENFORCE, Action.REFUSED, 1)),
        ([(Mode.ENFORCE, Action.NODATA), (Mode.ENFORCE, Action.NODATA)], (Mode.ENFORCE, Action.NODATA, 0)),
    ],
)
def test_an_order_held_twice_against_a_group_is_held_as_strictly_as_it_says(
    lines: list[tuple[Mode, Action]], expected: tuple[Mode, Action, int]
) -> None:
    """Enforced before observed, then the strictest action, then the first line."""
    bans = [Ban("ban", ("suffix chat.example",), mode, action) for mode, action in lines]
    terms, _ = terms_and_names(bans)
    same = PolicyTerms(
        terms.allowed_networks, terms.groups, terms.orders[:1], terms.apps[:1],
        tuple(type(e)(0, e.groups, e.mode, e.action) for e in terms.enforcements),
        ((Claim(0, 0, Reach.SUFFIX),),), 60, (), (),
    )  # fmt: skip
    view = View(opened(write_generation(same, {wire("chat.example"): 0}, serial=1, at=0.0)[0]), 0, 0.0)

    stance = view.stances[0]
    assert (stance.mode, stance.action, stance.rank) == expected


def test_every_action_of_an_order_has_its_place_among_the_strict() -> None:
    """No two alike, so that the strictest is never in doubt."""
    assert set(STRICTNESS) == {*Action} - {Action.PASSTHRU, Action.TCP_ONLY, Action.LOCAL_DATA}
    assert len(set(STRICTNESS.values())) == len(STRICTNESS)


@pytest.mark.parametrize(
    ("precedence", "expected"),
    [(Precedence.STRICTEST, (Action.REFUSED, 2)), (Precedence.CONFIGURED, (Action.NODATA, 0))],
)
def test_of_several_lines_of_one_order_precedence_decides_too(
    precedence: Precedence, expected: tuple[Action, int]
) -> None:
    """The strictest, or the first configured: an order stands where its deciding line stands."""
    terms, names = terms_and_names([Ban("ban", ("suffix chat.example",), action=Action.NODATA), Ban("other", ())])
    lines = terms.enforcements
    terms = replace(terms, enforcements=(*lines, replace(lines[0], action=Action.REFUSED)), precedence=precedence)
    stance = View(opened(write_generation(terms, names, serial=1, at=0.0)[0]), 0, 0.0).stances[0]

    assert (stance.action, stance.rank) == expected


# ---- pockets --------------------------------------------------------------------------------------------------------

NESTED = [
    "192.0.2.0/24", "192.0.2.0/25", "192.0.2.0/28", "192.0.2.5/32", "192.0.2.128/25", "0.0.0.0/0", "2001:db8::/32",
    "2001:db8::/48", "2001:db8:1::/64", "2001:db8:1::5/128", "::/0", "192.0.0.0/16",
]  # fmt: skip
TEXTS = st.one_of(st.sampled_from(NESTED), NETWORKS.map(str))
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def holding(networks: set[str], address: Address) -> list[str]:
    """The networks that hold an address, the longest first."""
    found = [network for network in map(ipaddress.ip_network, networks) if network.version == address.version]
    return [str(network) for network in sorted(found, key=lambda n: -n.prefixlen) if address in network]


@PROPERTY
@given(
    st.lists(st.lists(TEXTS, max_size=3, unique=True), max_size=3),
    st.lists(st.lists(TEXTS, max_size=4, unique=True), max_size=3),
    st.lists(TEXTS, max_size=6),
)
def test_a_client_is_held_to_what_speaks_of_its_networks(
    devices: list[list[str]], triggers: list[list[str]], asking: list[str]
) -> None:
    """Every exemption of a network that holds it, and of each zone the rule on the longest one; IPv4 and IPv6 alike."""
    rules = [Rule(Action.NXDOMAIN), Rule(Action.NODATA)]
    zones = [
        Zone(f"zone:{i}", networks=tuple((f"client-ip {text}", rules[k % 2]) for k, text in enumerate(held)))
        for i, held in enumerate(triggers)
    ]
    orders = [Ban(f"b{i}", ()) for i in range(len(devices))]
    spared = [Spared(f"e{i}", (f"b{i}",), devices=tuple(held)) for i, held in enumerate(devices)]
    generation = policy(*orders, zones=zones, exemptions=spared)
    known = {text for held in (*devices, *triggers) for text in held}

    for text in [*asking, *sorted(known), "192.0.2.5/32", "2001:db8:1::5/128"]:
        network = ipaddress.ip_network(text)
        for address in (network.network_address, network.broadcast_address):
            around = holding(known, address)
            assert list(generation.networks_of(generation.client_of(address.packed)[1])) == around
            view = generation.view_of(address.packed, 0.0)
            assert set(view.spared.values()) == {f"e{i}" for i, held in enumerate(devices) if {*held} & {*around}}
            for i, held in enumerate(triggers):
                mine = next((one for one in around if one in held), None)
                expected = None if mine is None else (zones[i].rules().index(rules[held.index(mine) % 2]), mine)
                assert view.zones[i].client == expected


def test_views_differ_exactly_where_something_sets_clients_apart() -> None:
    """One view for all devices of a group, but for those that an exemption or a rule on their address speaks of."""
    generation = policy(
        Ban("ban", ("suffix chat.example",)),
        zones=[Zone("zone:rpz", networks=(("client-ip 192.0.2.16/28", Rule(Action.DROP)),))],
        exemptions=[Spared("lab", ("ban",), devices=("192.0.2.5/32",))],
    )
    clients = [f"192.0.2.{n}" for n in range(256)]
    views = {text: generation.client_of(ipaddress.ip_address(text).packed) for text in clients}
    apart = {key: [text for text in clients if views[text] == key] for key in views.values()}

    assert sorted(map(len, apart.values())) == [1, 16, 111, 128]
    assert views["192.0.2.5"] != views["192.0.2.6"] == views["192.0.2.4"]
    assert generation.networks_of(-1) == {}


# ---- moments --------------------------------------------------------------------------------------------------------


@PROPERTY
@given(
    st.lists(st.tuples(st.sampled_from(["order", "line", "exemption", "rule"]), st.integers(0, 9), st.integers(1, 5)))
)
def test_everything_begins_and_ends_exactly_at_its_moment(spans: list[tuple[str, int, int]]) -> None:
    """Orders, lines, exemptions and own rules: a view holds until `until`, and is another from it on."""
    bans = [
        Ban(
            f"b{i}", (), effective=begin if kind == "order" else -5.0, expires=begin + n if kind == "order" else FOREVER
        )
        for i, (kind, begin, n) in enumerate(spans)
    ]
    spared = [
        Spared(f"e{i}", (f"b{i}",), ("phones",), since=begin, until=begin + n)
        for i, (kind, begin, n) in enumerate(spans)
        if kind == "exemption"
    ]
    rules = [
        own(f"r{i}", Action.NXDOMAIN, "exact chat.example", since=begin, until=begin + n)
        for i, (kind, begin, n) in enumerate(spans)
        if kind == "rule"
    ]
    terms, names, _ = whole(bans, rules, spared)
    lines = tuple(
        replace(line, since=begin, until=begin + n) if kind == "line" else line
        for line, (kind, begin, n) in zip(terms.enforcements, spans, strict=True)
    )
    generation = opened(write_generation(replace(terms, enforcements=lines), names, serial=1, at=0.0)[0])

    def held(at: float) -> set[int]:
        """Which of them are seen to act at a moment."""
        view = View(generation, 0, at)
        own_rules = {int(stance.entry.id.removeprefix("rule:r")) for stance in view.zones.values()}
        exempt = {int(id_.removeprefix("e")) for id_ in view.spared.values()}
        timed = {i for i, (kind, _, _) in enumerate(spans) if kind in ("order", "line")}
        return own_rules | exempt | (timed & view.stances.keys())

    at = -1.0
    while True:
        expected = {i for i, (_, begin, n) in enumerate(spans) if begin <= at < begin + n}
        assert held(at) == expected
        until = View(generation, 0, at).until
        moments = {moment for _, begin, n in spans for moment in (begin, begin + n) if moment > at}
        assert until == min(moments, default=FOREVER) == generation.next_transition(at)
        if until == FOREVER:
            break
        assert held(until - 1e-6) == expected
        at = until
