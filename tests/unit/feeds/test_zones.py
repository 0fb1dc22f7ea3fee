"""Zone files: what a name is relative to, what is read quickly means the same, and mistakes have lines."""

import contextlib
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.feeds.zones import FALLBACK_TTL_S, MAX_PROBLEMS, read_zone, read_zone_file
from resolver.policy.documents import Action
from resolver.policy.rpz import RpzReport, Untaken
from resolver.policy.source import PolicyError
from resolver.policy.zone import LocalRecord, PolicyZone, Reach, Trigger
from resolver.wire.codes import Rtype
from resolver.wire.name import from_text, to_text

HEAD = "$TTL 60\n@ SOA localhost. root.localhost. 1 8h 1h 3d 1h\n NS localhost.\n"
RPZ = from_text("rpz.example")


def read(text: str, origin: bytes | None = RPZ) -> tuple[PolicyZone, RpzReport]:
    return read_zone(text.encode(), "a.rpz", origin)


def names(zone: PolicyZone) -> dict[str, Action]:
    """QNAME triggers as they are written, each with what happens."""
    return {
        ("*." if reach is Reach.BELOW else "") + to_text(name): zone.rules[n].action
        for name, held in zone.names.items()
        for reach, n in held
    }


def problems(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        read(text)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("text", "origin", "apex", "name"),
    [
        pytest.param(HEAD + "bad.example CNAME .\n", RPZ, "rpz.example", "bad.example", id="argument"),
        pytest.param(HEAD + "bad.example CNAME .\n", None, ".", "bad.example", id="nothing says it"),
        pytest.param(
            "$ORIGIN z.example.\n" + HEAD + "bad.example CNAME .\n", RPZ, "z.example", "bad.example", id="$ORIGIN"
        ),
        pytest.param(
            "z.example. 60 SOA a. b. 1 2 3 4 5\nbad.example CNAME .\n", None, "z.example", "bad.example", id="SOA"
        ),
        pytest.param(
            "z.example. 60 SOA a. b. 1 2 3 4 5\nbad.example.z.example. CNAME .\n", RPZ, "z.example", "bad.example",
            id="SOA over argument",
        ),
        pytest.param("bad.example CNAME .\n", RPZ, "rpz.example", "bad.example", id="no SOA, argument"),
        pytest.param("$ORIGIN z.\nbad CNAME .\n", None, "z", "bad", id="no SOA, $ORIGIN"),
        pytest.param("bad.example. CNAME .\n", None, ".", "bad.example", id="a bare list"),
        pytest.param(HEAD + "$ORIGIN example\nbad CNAME .\n", RPZ, "rpz.example", "bad.example", id="relative $ORIGIN"),
    ],
)  # fmt: skip
def test_zone_gets_its_name_and_names_get_their_end(text: str, origin: bytes | None, apex: str, name: str) -> None:
    """The SOA names the zone, or who configured it, or $ORIGIN; names without a last dot are completed."""
    zone, report = read(text, origin)
    assert to_text(zone.origin) == apex
    assert names(zone) == {name: Action.NXDOMAIN}
    assert report.refused == 0


def test_last_dot_changes_the_meaning() -> None:
    """A name with its last dot is complete: outside the zone it is no rule, and its line is told."""
    zone, report = read(HEAD + "bad.example. CNAME .\n")
    assert names(zone) == {}
    assert report.untaken[Untaken.OUTSIDE] == 1
    assert report.notes[0].line == 4


def test_action_without_its_last_dot_is_told() -> None:
    """`CNAME rpz-passthru` is an alias into the zone itself, and not what its author meant."""
    _, report = read(HEAD + "good.example CNAME rpz-passthru\n")
    assert report.untaken[Untaken.DOT] == 1


def test_missing_soa_is_told() -> None:
    """A list without an SOA is read, and the report says that it has none."""
    assert read("bad.example CNAME .\n")[1].has_soa is False
    assert read(HEAD)[1].has_soa is True


@pytest.mark.parametrize(
    ("line", "ttl"),
    [
        ("a 5 IN A 192.0.2.1", 5),
        ("a IN 5 A 192.0.2.1", 5),
        ("a 1h A 192.0.2.1", 3600),
        ("a A 192.0.2.1", 60),
        ("a in a 192.0.2.1 ; why", 60),
        ("a\tIN\tA\t192.0.2.1\r", 60),
        ("a 5 TXT x\na A 192.0.2.1", 60),
        ("\\097 A 192.0.2.1", 60),
        ("a A ( 192.0.2.1 ) ; (", 60),
        ("a ( 5 ; one )\n IN ; two\n A\n 192.0.2.1 )", 5),
    ],
)
def test_entry_may_be_written_in_many_ways(line: str, ttl: int) -> None:
    """TTL and class in either order or not at all, comments, several lines."""
    zone, _ = read(f"{HEAD}{line}\nb CNAME .\n")
    assert names(zone) == {"a": Action.LOCAL_DATA, "b": Action.NXDOMAIN}
    records = zone.rules[zone.names[from_text("a")][0][1]].records
    assert LocalRecord(Rtype.A, ttl, bytes([192, 0, 2, 1])) in records


def test_ttl_without_a_default_is_the_last_or_that_of_the_soa() -> None:
    """RFC 1035 §5.1: the last explicitly stated; a file with none at all is not refused for it."""
    assert {r.ttl for rule in read("a 7 A 192.0.2.1\nb A 192.0.2.1\n")[0].rules for r in rule.records} == {7}
    soa = "@ SOA a. b. 1 2 3 4 55\nb A 192.0.2.1\n"
    assert {r.ttl for rule in read(soa)[0].rules for r in rule.records} == {55}
    assert {r.ttl for rule in read("b A 192.0.2.1\n")[0].rules for r in rule.records} == {FALLBACK_TTL_S}


def test_line_without_owner_repeats_the_last() -> None:
    """A line that begins with a blank goes on with the owner above, whichever way that was read."""
    zone, _ = read(HEAD + 'a A 192.0.2.1\n  AAAA 2001:db8::1\n\tTXT "a; (b" c\n')
    (rule,) = zone.rules
    assert [record.rtype for record in rule.records] == [Rtype.A, Rtype.TXT, Rtype.AAAA]


def test_every_trigger_comes_through() -> None:
    """Addresses and name servers, with a comment behind and capitals in the name."""
    zone, report = read(
        HEAD + "24.0.2.0.192.rpz-ip CNAME . ; x\n64.ZZ.DB8.2001.RPZ-NSIP CNAME *.\n"
        "8.0.0.0.10.rpz-client-ip CNAME rpz-passthru.\nNS.Example.rpz-nsdname IN CNAME rpz-drop.\n"
    )
    assert {trigger for trigger, count in zone.triggers() if count} == set(Trigger) - {Trigger.QNAME}
    assert report.refused == 0


@pytest.mark.parametrize(
    ("text", "line", "mend"),
    [
        ("a CNAME\n", 1, "write owner, TTL, type and data"),
        ("a b c d e\n", 1, "no type of record"),
        ("ok CNAME .\na A 192.0.2.256\n", 2, "no address"),
        ("a A 2001:db8::1\n", 1, "no address"),
        ("a AAAA 192.0.2.1\n", 1, "no address"),
        ("a..b CNAME .\n", 1, "label of 0 octets"),
        ("x" * 64 + " CNAME .\n", 1, "label of 64 octets"),
        ("x." * 130 + " CNAME .\n", 1, "longer than 255"),
        (" CNAME .\n", 1, "write its owner first"),
        ("a TXT ( x\ny\n", 1, "never closed"),
        ("$INCLUDE other\n", 1, "write the records of that file"),
        ("$GENERATE 1-9 a$ CNAME .\n", 1, "write the records"),
        ("a CH TXT x\n", 1, "class IN"),
        ("a IN 5 IN\n", 1, "type of the record is missing"),
        ("\n\n; x\na TXT \"open\n", 4, ""),
        ("<html>\n", 1, ""),
    ],
)  # fmt: skip
def test_mistake_is_told_with_its_line(text: str, line: int, mend: str) -> None:
    """What breaks the format refuses the file, and says where and what to write."""
    (problem,) = problems(text)
    assert problem.startswith(f"a.rpz:{line}:1: ")
    assert mend in problem


def test_all_mistakes_are_told_up_to_a_number() -> None:
    """One reading finds them all; a file of nothing else is left after a few."""
    assert len(problems("a b\nok CNAME .\nb c\n")) == 2
    assert len(problems("a b\n" * (MAX_PROBLEMS + 5))) == MAX_PROBLEMS


def test_octets_that_are_no_text_are_a_problem() -> None:
    """Compressed or foreign octets are told, not raised."""
    with pytest.raises(PolicyError, match="not UTF-8"):
        read_zone(b"a CNAME .\n\x1f\x8b\xff", "a.rpz")


def test_file_is_read_with_its_mark_and_tells_progress(tmp_path: Path) -> None:
    """A byte order mark is no part of the first name; progress ends with all octets."""
    path = tmp_path / "a.rpz"
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(b"n%d CNAME .\n" % n for n in range(30_000)))
    told: list[tuple[int, int]] = []
    zone, _ = read_zone_file(path, None, lambda done, all_: told.append((done, all_)))
    size = path.stat().st_size
    assert len(zone.names) == 30_000
    assert from_text("n0") in zone.names
    assert told[-1] == (size, size)
    assert len(told) == 2
    assert 0 < told[0][0] < size


def test_missing_file_is_a_problem(tmp_path: Path) -> None:
    """A file that is not there is told by its path."""
    with pytest.raises(PolicyError, match=r"nowhere\.rpz:1:1: cannot be read"):
        read_zone_file(tmp_path / "nowhere.rpz")


LABELS = st.text(string.ascii_letters + string.digits + "-_*", min_size=1, max_size=8)
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(".".join)
ENDS = st.sampled_from(["", ".", ".rpz.example."])
BLANKS = st.sampled_from([" ", "\t", "  \t"])
ENTRIES = st.builds(
    lambda name, end, blank, ttl, rclass, data, tail: f"{name}{end}{blank}{ttl}{rclass}{data}{tail}",
    NAMES, ENDS, BLANKS, st.sampled_from(["", "7 ", "1h "]), st.sampled_from(["", "IN ", "in "]),
    st.one_of(
        st.builds(lambda name, end: f"CNAME {name}{end}", NAMES, ENDS),
        st.sampled_from(["cname .", "CNAME *.", "A 192.0.2.1", "AAAA 2001:DB8::1", 'TXT "a b"', "MX ( 1\n mx )"]),
    ),
    st.sampled_from(["", " ; said", "\t"]),
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(ENTRIES, max_size=8))
def test_short_way_and_dnspython_read_the_same(entries: list[str]) -> None:
    """An entry whose owner begins with an escape is dnspython's to read, and comes to what the short way makes."""
    text = "$ORIGIN rpz.example.\n$TTL 60\n"
    short_way = read(text + "\n".join(entries))
    long_way = read(text + "\n".join(f"\\{ord(entry[0]):03d}{entry[1:]}" for entry in entries))
    assert short_way == long_way


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(string.printable, max_size=200).map(str.encode)))
def test_any_octets_are_a_zone_or_a_problem(octets: bytes) -> None:
    """Whatever a file holds, reading ends in rules or in problems."""
    with contextlib.suppress(PolicyError):
        _, report = read_zone(octets, "a.rpz", RPZ)
        assert report.taken + report.ignored + report.refused == report.records
