"""Names found by themselves or by an ancestor, in a table that no stranger's name can fool and no worker fills up."""

import importlib
import mmap
import random
import struct
from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.build import wire
from tests.support.peers import skip_or_fail
from tests.support.plain import load_uncompiled

Hot = Callable[[str], ModuleType]
PROPERTY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN = load_uncompiled("resolver.hot._names_cy")

# Few letters, so that names share labels and one name's label ends like another's.
LABELS = st.text("ab", min_size=1, max_size=3)
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(lambda labels: wire(".".join(labels)))
ANY_LABEL = st.binary(min_size=1, max_size=63).map(bytes.lower).map(lambda label: bytes((len(label),)) + label)
ANY_NAMES = st.lists(ANY_LABEL, min_size=1, max_size=3).map(lambda labels: b"".join(labels) + b"\0")
LONG_NAMES = st.integers(14, 18).map(lambda labels: b"\1a" * labels + b"\0")
CLAIM_SETS = st.integers(0, 2**32 - 1)


def table_of(module: ModuleType, listed: Mapping[bytes, int]) -> object:
    """A table of these names and their claim sets."""
    return module.NameTable(module.build(listed))


def suffixes(name: bytes) -> list[int]:
    """The offsets at which labels begin."""
    found, i = [], 0
    while name[i]:
        found.append(i)
        i += name[i] + 1
    return found


def many_names(count: int) -> dict[bytes, int]:
    """Names as they may stand in a list, with their numbers."""
    letters = random.Random(1)
    names = {
        bytes(letters.choices(b"abcdefghijklmnopqrstuvwxyz0123456789", k=letters.randint(5, 14))) for _ in range(count)
    }
    return {bytes((len(name),)) + name + b"\3com\0": i for i, name in enumerate(sorted(names))}


def prime_of(sections: Mapping[str, memoryview]) -> int:
    """What fingerprints are reduced by in this table."""
    return int.from_bytes(sections["key"][:8], "little")


def names_that_collide(listed: bytes, prime: int) -> list[bytes]:
    """Well-formed, lower-cased names, other than the one given, with its number modulo the prime."""
    end = b"\7example\0"
    weight = 256 ** len(end)
    rest = int.from_bytes(listed, "big") - int.from_bytes(b"\x08" + bytes(8) + end, "big")
    free = rest * pow(weight, -1, prime) % prime
    labels = ((free + k * prime).to_bytes(8, "big") for k in range(2**33, 2**33 + 2000))
    return [b"\x08" + label + end for label in labels if label == label.lower()][:8]


@PROPERTY
@given(st.dictionaries(NAMES, CLAIM_SETS, max_size=12), st.lists(NAMES, min_size=1, max_size=5))
def test_what_is_found_is_what_a_dict_of_suffixes_holds(hot: Hot, listed: dict[bytes, int], asked: list[bytes]) -> None:
    """Exactly the listed names at or above the one asked, longest first, on label boundaries."""
    table = table_of(hot("_names_cy"), listed)

    for name in [*asked, *listed]:
        assert table.find(name) == listed.get(name, -1)
        assert table.covering(name) == [(i, listed[name[i:]]) for i in suffixes(name) if name[i:] in listed]


@PROPERTY
@given(st.dictionaries(ANY_NAMES, CLAIM_SETS, max_size=8))
def test_both_builds_lay_out_the_same_octets(hot: Hot, listed: dict[bytes, int]) -> None:
    """In whatever order the names come; so a policy compiled twice is one file, and either build reads it."""
    module = hot("_names_cy")
    sections = module.build(listed)

    assert tuple(sections) == module.SECTIONS
    assert sections == PLAIN.build(dict(reversed(listed.items())))
    assert list(module.listed(sections)) == sorted(listed)
    for name in listed:
        assert module.NameTable(sections).find(name) == listed[name]
        assert module.NameTable(sections).covering(b"\1x" + name)[0] == (2, listed[name])


def test_many_names_are_found_and_few_others(hot: Hot) -> None:
    """Ten thousand names, and as many that are not listed."""
    listed = many_names(20_000)
    kept = {name: claim_set for name, claim_set in listed.items() if claim_set % 2}
    table = table_of(hot("_names_cy"), kept)

    assert all(table.find(name) == kept.get(name, -1) for name in listed)
    assert all(table.covering(b"\3www" + name) == ([(4, kept[name])] if name in kept else []) for name in listed)


@pytest.mark.parametrize("asked", ["notwechat.com", "wechat.com.example", "com", "wechat.co", "wechatxcom.example"])
def test_a_name_that_only_looks_alike_is_not_covered(hot: Hot, asked: str) -> None:
    """A listed name covers nothing but itself and what lies below it."""
    table = table_of(hot("_names_cy"), {wire("wechat.com"): 3})

    assert table.covering(wire(asked)) == []
    assert table.covering(wire("mp.wechat.com")) == [(3, 3)]


def test_the_root_is_covered_by_nothing(hot: Hot) -> None:
    """It is asked for, never listed."""
    assert table_of(hot("_names_cy"), {wire("example"): 0}).covering(b"\0") == []


def test_an_empty_table_finds_nothing(hot: Hot) -> None:
    """A policy may list no names at all."""
    module = hot("_names_cy")
    sections = module.build({})
    table = module.NameTable(sections)

    assert table.find(wire("example")) == -1
    assert table.covering(wire("www.example")) == []
    assert list(module.listed(sections)) == []


def test_a_stranger_made_to_have_a_listed_names_fingerprint_is_not_taken_for_it(hot: Hot) -> None:
    """It meets the bucket, the mark and the tag, which whoever has the file can work out; the digest it does not."""
    module = hot("_names_cy")
    listed = wire("listed.example")
    sections = module.build({listed: 7})
    table = module.NameTable(sections)
    prime = prime_of(sections)
    strangers = names_that_collide(listed, prime)

    assert len(strangers) == 8
    for stranger in strangers:
        assert int.from_bytes(stranger, "big") % prime == int.from_bytes(listed, "big") % prime
        assert table.find(stranger) == -1
        assert table.covering(stranger) == []
        assert table.covering(b"\3www" + stranger) == []
    assert table.covering(listed) == [(0, 7)]


def test_listed_names_that_share_a_fingerprint_keep_their_own_claims(hot: Hot) -> None:
    """Among enough names some do by chance."""
    module = hot("_names_cy")
    listed = many_names(90_000)
    sections = module.build(listed)
    prime = prime_of(sections)
    by_fingerprint = defaultdict(list)
    for name in listed:
        by_fingerprint[int.from_bytes(name, "big") % prime].append(name)
    shared = [names for names in by_fingerprint.values() if len(names) > 1]
    table = module.NameTable(sections)

    assert shared
    assert all(table.covering(name) == [(0, listed[name])] for names in shared for name in names)


def test_a_bucket_as_deep_as_can_be_made_holds_its_names_apart(hot: Hot) -> None:
    """Numbers of four octets are smaller than any prime, so that these names meet whatever the seed."""
    module = hot("_names_cy")
    count = 400
    buckets = count * 6 // 25 | 1
    every = (b"\2" + bytes((a, b)) + b"\0" for a in range(256) for b in range(256))
    one_bucket = [name for name in every if int.from_bytes(name, "big") % buckets == 5][:count]
    listed = {name: i for i, name in enumerate(one_bucket)}
    sections = module.build(listed)
    starts = sections["starts"].cast("I")
    table = module.NameTable(sections)

    assert len(listed) == starts[6] - starts[5] == count > module.DEEPEST
    assert all(table.find(name) == claim_set for name, claim_set in listed.items())


def deepest_of(sections: Mapping[str, memoryview]) -> int:
    """How many names the fullest bucket holds."""
    starts = sections["starts"].cast("I").tolist()
    return max(end - start for start, end in pairwise(starts))


def test_a_bucket_that_is_too_deep_is_mended_by_another_seed(hot: Hot) -> None:
    """So whoever fills a list with names of one bucket would have to foresee all seeds."""
    module = hot("_names_cy")
    listed = many_names(2000)
    once = module.build(listed)
    again = module.build(listed, deepest_of(once) - 1)

    assert deepest_of(again) < deepest_of(once) < 20
    assert all(module.NameTable(again).find(name) == claim_set for name, claim_set in listed.items())


def test_top_level_domains_are_spread_over_the_buckets() -> None:
    """Every look-up of a name asks for its own; their numbers are all multiples of 256."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    listed = {wire(a + b): 0 for a in letters for b in letters} | many_names(2130 - 676)
    sections = PLAIN.build(listed)

    assert len(listed) == 2130
    assert deepest_of(sections) < PLAIN.DEEPEST


def test_evidence_is_looked_for_where_records_begin_and_nowhere_else(hot: Hot) -> None:
    """The octets that would prove a name may happen to lie across two records."""
    module = hot("_names_cy")
    name = wire("a.b")
    sound = module.build({name: 7})
    record = bytes(sound["records"])
    starts = memoryview(array("I", [0, 2]).tobytes())
    across = module.NameTable({**sound, "starts": starts, "records": memoryview(bytes(4) + record[:10] + record)})
    nowhere = module.NameTable({**sound, "starts": starts, "records": memoryview(bytes(4) + record[:10] + bytes(14))})

    assert across.find(name) == 7
    assert nowhere.find(name) == -1


def test_the_longest_names_are_found(hot: Hot) -> None:
    """127 labels, each an end of the one before; and four labels as long as labels get."""
    deep = b"\1a" * 127 + b"\0"
    wide = (b"\x3f" + b"\xff" * 63) * 3 + b"\x3d" + b"\xff" * 61 + b"\0"
    listed = {name[i:]: i for name in (deep, wide) for i in suffixes(name)}
    table = table_of(hot("_names_cy"), listed)

    assert len(deep) == len(wide) == 255
    for name in (deep, wide):
        assert table.covering(name) == [(i, i) for i in suffixes(name)]
        assert table.find(name) == 0


@pytest.mark.parametrize("asked", [b"\1a" * 200 + b"\0", b"\x3fab", b"\x05", b""], ids=["long", "cut", "bare", "empty"])
def test_octets_that_are_no_name_do_not_end_the_process(hot: Hot, asked: bytes) -> None:
    """Nobody asks with them; if somebody did, compiled code reads within them all the same."""
    table = table_of(hot("_names_cy"), {wire("a"): 0})

    assert table.find(asked) == -1
    try:
        found = table.covering(asked)
    except IndexError:
        found = []
    assert found in ([], [(400, 0)])


def test_another_name_gives_another_seed() -> None:
    """No name can be made against a list that it will be on."""
    first, second = (PLAIN.build(dict.fromkeys(names, 0)) for names in ([b"\1a\0"], [b"\1a\0", b"\1b\0"]))

    assert first["key"] != second["key"]
    assert PLAIN.build({b"\1a\0": 5})["key"] == first["key"]


@pytest.mark.parametrize("names", range(1, 40))
def test_fingerprints_are_reduced_by_a_prime_of_thirty_bits(names: int) -> None:
    """Or the powers of 256 would not spread over all buckets."""
    prime = prime_of(PLAIN.build({wire(f"n{i}.example"): 0 for i in range(names)}))

    assert prime.bit_length() == 30
    assert all(prime % d for d in range(2, 2**15))


def test_a_name_costs_sixteen_octets_at_most_beside_the_pool() -> None:
    """What workers share must stay small; the pool they do not touch."""
    listed = many_names(5000)
    sections = PLAIN.build(listed)

    assert sum(octets.nbytes for section, octets in sections.items() if section != "pool") <= 16 * len(listed)


def test_an_unlisted_name_is_seldom_looked_for_beyond_the_marks() -> None:
    """Or look-ups that miss would touch four times the memory."""
    listed = many_names(20_000)
    sections = PLAIN.build({name: i for name, i in listed.items() if i % 2})
    prime, marks = prime_of(sections), sections["marks"].cast("I")
    asked = [int.from_bytes(name, "big") % prime for name, i in listed.items() if not i % 2]
    passed = sum(PLAIN._MARKS[f >> 20] & ~marks[f % len(marks)] == 0 for f in asked)

    assert passed < 0.06 * len(asked)


SOUND = PLAIN.build({wire("a.b"): 1, wire("b"): 2, wire("c.b"): 3})


@pytest.mark.parametrize(
    "section",
    [
        *({name: SOUND[name][:-1]} for name in ("key", "marks", "starts", "records")),
        *({name: SOUND[name][:0]} for name in ("key", "marks", "starts", "records")),
        {"starts": memoryview(bytes(SOUND["starts"]) + bytes(4))},
        {"marks": memoryview(bytes(SOUND["marks"]) + bytes(4))},
        {"records": SOUND["records"][:-14]},
        {"records": memoryview(bytes(SOUND["records"]) + b"x")},
        {"starts": memoryview(bytes(SOUND["starts"][:-4]) + b"\xff" * 4)},
        {"key": memoryview(bytes(24))},
        {"key": memoryview(b"\xff" * 24)},
        {"key": memoryview((2**30).to_bytes(8, "little") + bytes(16))},
    ],
)
def test_sections_that_do_not_fit_are_refused(hot: Hot, section: dict[str, memoryview]) -> None:
    """Before anything is looked up in them."""
    with pytest.raises(ValueError, match="no table of names"):
        hot("_names_cy").NameTable({**SOUND, **section})


def test_a_missing_section_is_refused(hot: Hot) -> None:
    """As one that does not fit."""
    with pytest.raises(ValueError, match="no table of names"):
        hot("_names_cy").NameTable({"marks": SOUND["marks"]})


def test_a_pool_that_is_cut_short_is_told(hot: Hot) -> None:
    """An export that ends early must not look complete."""
    with pytest.raises(ValueError, match="within a name"):
        list(hot("_names_cy").listed({**SOUND, "pool": SOUND["pool"][:-1]}))


@PROPERTY
@given(
    st.sampled_from(["key", "marks", "starts", "records"]),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_sections_give_wrong_answers_at_worst(hot: Hot, section: str, changes: list[tuple[int, int]]) -> None:
    """Whatever octets a file has lost, looking into it neither reads outside of it nor raises."""
    octets = bytearray(SOUND[section])
    for place, octet in changes:
        octets[place % len(octets)] = octet
    module = hot("_names_cy")
    try:
        table = module.NameTable({**SOUND, section: memoryview(octets)})
    except ValueError:
        return

    asked = [wire("a.b"), wire("x.c.b"), wire("d")]
    for name in asked:
        assert table.find(name) in range(-1, 2**32)
        assert all(name[i:] and claim_set in range(2**32) for i, claim_set in table.covering(name))
    if module.screens():
        assert screened(module, table, asked) == [expected_of(module, table, name) for name in asked]


def test_looking_up_leaves_the_pool_on_the_disk(hot: Hot, tmp_path: Path) -> None:
    """After every listed name was found, hardly a page of the pool is in the process's memory."""
    module = hot("_names_cy")
    listed = many_names(100_000)
    sections = module.build(listed)
    place, spans = 0, {}
    with (tmp_path / "table").open("w+b") as file:
        for section, octets in sections.items():
            file.write(octets)
            spans[section] = slice(place, place + octets.nbytes)
            place += (octets.nbytes + 63) // 64 * 64
            file.seek(place)
        file.truncate(place)
        file.flush()
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    table = module.NameTable({section: mapped[span] for section, span in spans.items()})
    found = sum(bool(table.covering(name)) for name in listed)
    address = address_of(tmp_path / "table")
    records, pool = resident_pages(address, spans["records"]), resident_pages(address, spans["pool"])

    assert found == len(listed)
    assert records >= spans["records"].stop // mmap.PAGESIZE - spans["records"].start // mmap.PAGESIZE
    # The kernel maps the neighbours of a page that is asked for, 64 KiB of them.
    assert pool <= 16 < len(sections["pool"]) // mmap.PAGESIZE


def resident_pages(address: int, span: slice) -> int:
    """How many pages of a part of what is mapped at an address this process has in its page table."""
    pages = range((address + span.start) // mmap.PAGESIZE, (address + span.stop - 1) // mmap.PAGESIZE + 1)
    with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
        pagemap.seek(8 * pages.start)
        entries = memoryview(pagemap.read(8 * len(pages))).cast("Q")
    return sum(entry >> 63 for entry in entries)


def address_of(path: Path) -> int:
    """Where a file is mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(int(line.partition("-")[0], 16) for line in lines if line.endswith(str(path)))


def screened(module: ModuleType, table: object, asked: list[bytes]) -> list[tuple[tuple[int, int], int]]:
    """((offset, claim set), how many cover it) of each name, as `screen` tells it."""
    room = b"".join(name.ljust(module.SCREENED_OCTETS, b"\xff") for name in asked)
    words = b"".join(struct.pack("=4q", len(name), 7, 7, 7) for name in asked)
    table.screen(room, words, len(asked))
    told = list(struct.iter_unpack("=4q", words))
    assert [size for size, _, _, _ in told] == [len(name) for name in asked]
    return [((offset, claim_set), count) for _, offset, claim_set, count in told]


def expected_of(module: ModuleType, table: object, name: bytes) -> tuple[tuple[int, int], int]:
    """The same by what `covering` finds."""
    covering = table.covering(name) if len(suffixes(name)) <= module.SCREENED_LABELS else []
    if len({held for _, held in covering}) > 1:
        return (covering[0][0], -1), len(covering)
    return covering[0] if covering else (0, -1), len(covering)


def compiled_names() -> ModuleType:
    """The compiled module; the test is skipped where there is none."""
    module = importlib.import_module("resolver.hot._names_cy")
    if not module.screens():
        skip_or_fail("resolver.hot._names_cy is not compiled (Debian packages gcc and libc6-dev, then tests/run)")
    return module


@PROPERTY
@given(
    st.dictionaries(NAMES | ANY_NAMES, st.integers(0, 2), max_size=12),
    st.lists(NAMES | ANY_NAMES | LONG_NAMES, min_size=1, max_size=40),
)
def test_screening_finds_what_looking_up_finds(listed: dict[bytes, int], asked: list[bytes]) -> None:
    """Of many names at one time: where the longest listed name begins, its claim set, and how many cover it."""
    module = compiled_names()
    sections = module.build(listed)
    asked = [*asked, *listed, *(b"\1x" + name for name in listed)]

    found = screened(module, module.NameTable(sections), asked)

    plain = PLAIN.NameTable(sections)
    assert found == [expected_of(module, plain, name) for name in asked]


def test_names_of_one_block_and_of_several_are_digested_side_by_side() -> None:
    """Whatever stands beside a name, and wherever it stands in the room: names of every length, in several orders."""
    module = compiled_names()
    names = [(b"\x3f" + b"a" * 63) * (n // 64) + bytes((n % 64,)) + b"b" * (n % 64) + b"\0" for n in range(3, 253)]
    names = [name for name in names if name.index(0) == len(name) - 1]
    sections = module.build(dict.fromkeys(names, 5))
    table, plain = module.NameTable(sections), PLAIN.NameTable(sections)
    draw = random.Random(4)
    for count in (1, 2, 3, 4, 5, 7, 63, 64):
        asked = draw.choices(names, k=count)
        found = screened(module, table, asked)
        assert {told for told, _ in found} == {(0, 5)}
        assert found == [expected_of(module, plain, name) for name in asked]


@pytest.mark.parametrize("count", [*range(1, 60), 1000, 5000])
def test_every_name_is_found_however_many_buckets_there_are(hot: Hot, count: int) -> None:
    """Remainders are exact where numbers are as great as they get: long names of the greatest octets."""
    wide = (b"\x3f" + b"\xff" * 63) * 3
    names = [wide + bytes((57,)) + b"%05d" % k + b"\xff" * 52 + b"\0" for k in range(count)]
    module = hot("_names_cy")
    sections = PLAIN.build({name: k for k, name in enumerate(names)})
    table = module.NameTable(sections)

    assert {len(name) for name in names} == {251}
    assert [table.find(name) for name in names] == list(range(count))


@PROPERTY
@given(st.integers(15 << 26, 2**30 - 1), st.integers(0, 2**46 - 1), st.integers(1, 2**32 - 1), st.integers(0, 2**30))
def test_a_quotient_without_division_is_at_most_one_too_small(prime: int, total: int, buckets: int, rest: int) -> None:
    """What the compiled build takes a remainder by, one step before multiples and after them."""
    for number in (total, total // prime * prime, max(0, total // prime * prime - 1)):
        assert number // prime - ((number >> 16) * ((1 << 62) // prime) >> 46) in (0, 1)
    for number in (rest, rest // buckets * buckets, max(0, rest // buckets * buckets - 1)):
        assert number // buckets - (number * ((1 << 32) // buckets) >> 32) in (0, 1)


@pytest.mark.parametrize("octets", [3, 63, 64, 65, 66, 127, 128, 129, 130, 192, 193, 254, 255])
def test_names_of_every_length_have_one_digest(hot: Hot, octets: int) -> None:
    """Of one block of BLAKE2s and of several: a table that one build lays out is read by the other."""
    labels, rest = divmod(octets - 1, 64)
    name = b"\x3f" + b"a" * 63
    name = name * labels + (bytes((rest - 1,)) + b"b" * (rest - 1) if rest > 1 else b"")
    name = (name if rest != 1 else name[:-64] + b"\x3e" + b"a" * 62 + b"\1c") + b"\0"

    assert len(name) == octets
    assert hot("_names_cy").NameTable(PLAIN.build({name: 9})).find(name) == 9
