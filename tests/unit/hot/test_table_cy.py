"""Names found by themselves or by an ancestor, in a table that a stranger's name can not fool."""

import importlib
from collections.abc import Callable
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.build import wire
from tests.support.plain import load_uncompiled

Hot = Callable[[str], ModuleType]
PROPERTY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN = load_uncompiled("resolver.hot._table_cy")

# Few letters, so that names share labels and one name's label ends like another's.
LABELS = st.text("ab", min_size=1, max_size=3)
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(lambda labels: wire(".".join(labels)))
ANY_LABEL = st.binary(min_size=1, max_size=63).map(bytes.lower).map(lambda label: bytes((len(label),)) + label)
ANY_NAMES = st.lists(ANY_LABEL, min_size=1, max_size=3).map(lambda labels: b"".join(labels) + b"\0")


def build(module: ModuleType, listed: dict[bytes, int]) -> object:
    """A table of these names and their claim sets."""
    return module.NameTable(*module.fill(module.slots_for(len(listed)), list(listed), list(listed.values())))


def suffixes(name: bytes) -> list[int]:
    """The offsets at which labels begin."""
    found, i = [], 0
    while name[i]:
        found.append(i)
        i += name[i] + 1
    return found


def names_that_collide(count: int) -> list[bytes]:
    """Distinct well-formed, lower-cased names with one and the same fingerprint."""
    start, end = b"\x08", b"\7example\0"
    weight = 256 ** len(end)
    wanted = int.from_bytes(wire("listed.example"), "big")
    rest = wanted - int.from_bytes(start + bytes(8) + end, "big")
    free = rest * pow(weight, -1, PLAIN.PRIME) % PLAIN.PRIME
    labels = ((free + k * PLAIN.PRIME).to_bytes(8, "big") for k in range(500))
    found = [start + label + end for label in labels if label == label.lower()]
    return [wire("listed.example"), *found[: count - 1]]


@PROPERTY
@given(st.dictionaries(NAMES, st.integers(0, 2**32 - 1), max_size=12), st.lists(NAMES, min_size=1, max_size=5))
def test_what_is_found_is_what_a_dict_of_suffixes_holds(hot: Hot, listed: dict[bytes, int], asked: list[bytes]) -> None:
    """Exactly the listed names at or above the one asked, longest first, on label boundaries."""
    table = build(hot("_table_cy"), listed)

    for name in [*asked, *listed]:
        assert table.find(name) == listed.get(name, -1)
        assert table.covering(name) == [(i, listed[name[i:]]) for i in suffixes(name) if name[i:] in listed]


@pytest.mark.parametrize("asked", ["notwechat.com", "wechat.com.example", "com", "wechat.co", "wechatxcom.example"])
def test_a_name_that_only_looks_alike_is_not_covered(hot: Hot, asked: str) -> None:
    """A listed name covers nothing but itself and what lies below it."""
    table = build(hot("_table_cy"), {wire("wechat.com"): 3})

    assert table.covering(wire(asked)) == []
    assert table.covering(wire("mp.wechat.com")) == [(3, 3)]


def test_the_root_is_covered_by_nothing(hot: Hot) -> None:
    """It is asked for, never listed."""
    assert build(hot("_table_cy"), {wire("example"): 0}).covering(b"\0") == []


def test_an_empty_table_finds_nothing(hot: Hot) -> None:
    """A policy may list no names at all."""
    table = build(hot("_table_cy"), {})

    assert table.find(wire("example")) == -1
    assert table.covering(wire("www.example")) == []


def test_names_that_collide_are_made_rightly() -> None:
    """The premise of the tests below."""
    found = names_that_collide(4)

    assert len(set(found)) == 4
    assert len({PLAIN.fingerprint(name) for name in found}) == 1
    assert all(name == name.lower() and suffixes(name) == [0, len(name) - 9] for name in found)


def test_a_stranger_with_a_listed_names_fingerprint_is_not_taken_for_it(hot: Hot) -> None:
    """The name itself is compared, so there are no false positives, however the stranger is made."""
    listed, *strangers = names_that_collide(4)
    table = build(hot("_table_cy"), {listed: 7})

    for stranger in strangers:
        assert table.find(stranger) == -1
        assert table.covering(stranger) == []
        assert table.covering(b"\3www" + stranger) == []
    assert table.covering(listed) == [(0, 7)]


@pytest.mark.parametrize("turn", range(4))
def test_listed_names_with_one_fingerprint_keep_their_own_claims(hot: Hot, turn: int) -> None:
    """In whatever order they were put in."""
    found = names_that_collide(4)
    listed = {name: found.index(name) for name in found[turn:] + found[:turn]}
    table = build(hot("_table_cy"), listed)

    assert [table.find(name) for name in found] == [0, 1, 2, 3]
    assert [table.covering(b"\3www" + name) for name in found] == [[(4, i)] for i in range(4)]


@PROPERTY
@given(ANY_NAMES)
def test_a_build_finds_any_name_that_plain_python_filed(hot: Hot, name: bytes) -> None:
    """The fingerprint carried along in C is the one that was computed in Python, for any octets."""
    module = hot("_table_cy")
    buffers = PLAIN.fill(PLAIN.slots_for(1), [name], [9])

    assert module.fingerprint(name) == PLAIN.fingerprint(name) > 0
    assert module.NameTable(*buffers).covering(b"\1x" + name) == [(2, 9)]


def test_the_longest_name_is_found(hot: Hot) -> None:
    """127 labels, each an end of the one before."""
    name = b"\1a" * 127 + b"\0"
    listed = {name[i:]: i for i in suffixes(name)}

    assert build(hot("_table_cy"), listed).covering(name) == [(i, i) for i in suffixes(name)]


def test_a_table_is_never_full() -> None:
    """At least one slot in six is empty, or a search would not end."""
    module = importlib.import_module("resolver.hot._table_cy")

    assert all(module.slots_for(names) > names for names in range(1000))
    assert module.slots_for(10**6) >= 1.2 * 10**6
