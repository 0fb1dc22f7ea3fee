"""What was in force when: kept whole or not at all, within bounds, and read back as it was."""

import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.app import history
from resolver.app.history import (
    Bounds,
    HistoryError,
    documents_from_json,
    documents_to_json,
    keep,
    listing,
    next_serial,
)
from resolver.feeds.files import read_documents, shipped
from resolver.policy.additions import Documents, Exemption, ExemptionReason, LocalRule, LocalVerdict
from resolver.policy.documents import ORDER_ACTIONS, Match
from resolver.policy.generation import View, write_generation
from resolver.policy.judge import judge_query
from resolver.policy.zone import ZoneState
from tests.support.build import Ban, terms_and_names, wire
from tests.support.house import app

CATALOGUE = read_documents([shipped()])


def documents(name: str) -> Documents:
    """What a policy about a name is made of."""
    return Documents({"chat": app("chat", name)}, {})


def made(folder: Path, name: str, at: float, bounds: Bounds | None = None, made_by: str = "") -> Path:
    """Have a policy that forbids one name compiled at a moment."""
    terms, names = terms_and_names([Ban("ban", (f"suffix {name}",))])
    octets, _ = write_generation(terms, names, serial=next_serial(folder), at=at, made_by=made_by)
    return keep(
        folder, octets, documents(name), [ZoneState(f"list:{name}", 1, 0, "a file", at)], at, bounds or Bounds()
    )


def forbidden_at(folder: Path, moment: float) -> str:
    """The name that was forbidden at a moment, by the judge, the documents and the zones alike; empty for none."""
    past = history.at(folder, moment)
    if past is None:
        return ""
    (name,) = (domain.name for domain in past.documents.apps["chat"].domains)
    assert judge_query(wire(name), View(past.generation, 0, moment)) is not None
    assert [zone.id for zone in past.zones] == [f"list:{name}"]
    return name


# ---- documents ------------------------------------------------------------------------------------------------------


def told(held: Documents) -> str:
    """Documents as text."""
    return json.dumps(documents_to_json(held))


def test_the_shipped_catalogue_is_read_back_as_it_was() -> None:
    """Every field of every document, the offsets of instants and the order of entries included."""
    again = documents_from_json(json.loads(told(CATALOGUE)))

    assert again == CATALOGUE
    assert told(again) == told(CATALOGUE)
    assert list(again.apps) == list(CATALOGUE.apps)


IDS = st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,8}){0,2}", fullmatch=True)
INSTANTS = st.datetimes(
    datetime(1990, 1, 1), datetime(2090, 1, 1),
    timezones=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
).map(lambda moment: moment.isoformat())  # fmt: skip
LINES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=40).filter(str.strip)
NETWORKS = st.one_of(
    st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str), st.sampled_from(["192.0.2.0/24", "2001:db8::/64"])
)
NAMES = st.sampled_from(["example.org", "a.example.net", "xn--bcher-kva.example.org", "_dns.example.org"])


def many(values: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    """A few of them."""
    return st.lists(values, max_size=3)


EXEMPTIONS = st.fixed_dictionaries({
    "id": IDS, "groups": many(IDS), "devices": many(NETWORKS), "orders": many(IDS), "apps": many(IDS),
    "reason": st.sampled_from([reason.value for reason in ExemptionReason]), "explanation": st.text(max_size=20),
    "grantor": LINES, "granted": INSTANTS, "expires": INSTANTS, "notes": st.text(max_size=20),
}).map(Exemption.model_validate)  # fmt: skip
RULES = st.fixed_dictionaries({
    "id": IDS, "verdict": st.sampled_from([verdict.value for verdict in LocalVerdict]), "names": many(NAMES),
    "match": st.sampled_from([match.value for match in Match]), "addresses": many(NETWORKS), "groups": many(IDS),
    "action": st.sampled_from([action.value for action in ORDER_ACTIONS]), "owner": LINES, "reason": LINES,
    "since": st.none() | INSTANTS, "until": INSTANTS,
}).map(LocalRule.model_validate)  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(st.lists(EXEMPTIONS, max_size=3), st.lists(RULES, max_size=3))
def test_any_exemption_and_rule_is_read_back_as_it_was(exemptions: list[Exemption], rules: list[LocalRule]) -> None:
    """Whatever they say."""
    held = Documents({}, {}, {one.id: one for one in exemptions}, {one.id: one for one in rules})

    again = documents_from_json(json.loads(told(held)))

    assert again == held
    assert told(again) == told(held)


# ---- what was in force ----------------------------------------------------------------------------------------------

COMPILES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)), max_size=8)


@settings(deadline=None, max_examples=40)
@given(COMPILES, st.lists(st.integers(-1, 45), min_size=1, max_size=6))
def test_at_any_moment_it_is_known_what_was_in_force(
    tmp_path_factory: pytest.TempPathFactory, compiles: list[tuple[str, int]], moments: list[int]
) -> None:
    """Whatever was compiled when, a return to an earlier policy and a clock that goes back included."""
    folder = tmp_path_factory.mktemp("generations")
    story: list[tuple[int, str]] = []  # (moment, name): what changed
    for letter, moment in compiles:
        made(folder, f"{letter}.example", moment)
        if not story or story[-1][1] != f"{letter}.example":
            story.append((moment, f"{letter}.example"))

    for moment in moments:
        expected = [name for since, name in story if since <= moment]
        assert forbidden_at(folder, moment) == (expected[-1] if expected else "")
    rows = listing(folder)
    assert [(row.serial, row.compiled_at) for row in rows] == [(i, since) for i, (since, _) in enumerate(story, 1)]
    assert [row.replaced_at for row in rows] == [*(since for since, _ in story[1:]), None][: len(rows)]


def test_the_two_newest_lie_as_they_are_and_the_rest_is_compressed(tmp_path: Path) -> None:
    """Workers map what is in force; each has its documents beside it, and nothing else lies there."""
    for n in range(4):
        path = made(tmp_path, f"n{n}.example", n)

    assert path.name == "00000004.generation"
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "00000001.documents.gz", "00000001.generation.gz", "00000002.documents.gz", "00000002.generation.gz",
        "00000003.documents.gz", "00000003.generation", "00000004.documents.gz", "00000004.generation",
    ]  # fmt: skip


def test_the_same_policy_keeps_its_number_and_an_earlier_one_gets_a_new_one(tmp_path: Path) -> None:
    """A roll back is an event of its own."""
    names = ["a.example", "a.example", "b.example", "a.example"]

    paths = [made(tmp_path, name, n, made_by=f"n{n}") for n, name in enumerate(names)]

    assert [int(path.stem) for path in paths] == [1, 1, 2, 3]
    assert [(row.compiled_at, row.made_by) for row in listing(tmp_path)] == [(0, "n0"), (2, "n2"), (3, "n3")]
    assert listing(tmp_path)[0].digest == listing(tmp_path)[2].digest


def test_a_generation_is_found_by_its_number(tmp_path: Path) -> None:
    """As recorded hits name it."""
    made(tmp_path, "a.example", 10)
    made(tmp_path, "b.example", 20)

    past = history.of_serial(tmp_path, 1)

    assert past is not None
    assert (past.kept.serial, past.kept.compiled_at, past.kept.replaced_at) == (1, 10, 20)
    assert past.generation.digest == past.kept.digest
    assert history.of_serial(tmp_path, 3) is None


def test_without_a_folder_there_is_no_history(tmp_path: Path) -> None:
    """Before the first start."""
    assert (listing(tmp_path / "none"), history.at(tmp_path / "none", 1.0)) == ([], None)


# ---- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "kept"),
    [
        (Bounds(count=3), [7, 8, 9]),
        (Bounds(count=1), [8, 9]),
        (Bounds(count=0), [8, 9]),
        # The one that was replaced 20 s ago was in force until then, however old it is.
        (Bounds(seconds=21), [6, 7, 8, 9]),
        (Bounds(seconds=20), [7, 8, 9]),
        (Bounds(seconds=0), [8, 9]),
        (Bounds(octets=0), [8, 9]),
        (Bounds(), [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_history_is_bounded(tmp_path: Path, bounds: Bounds, kept: list[int]) -> None:
    """In number, age and size; the two newest stay, and what lies beside one goes with it."""
    for n in range(1, 10):
        made(tmp_path, f"n{n}.example", n * 10, bounds if n == 9 else None)

    assert [row.serial for row in listing(tmp_path)] == kept
    assert {int(file.name.partition(".")[0]) for file in tmp_path.iterdir()} == set(kept)


def test_the_size_is_kept_below_its_bound(tmp_path: Path) -> None:
    """By letting the oldest go, and no more of them than needed."""
    for n in range(1, 10):
        made(tmp_path, f"n{n}.example", n)
    bound = sum(row.octets for row in listing(tmp_path)[-4:])

    made(tmp_path, "n10.example", 10, Bounds(octets=bound))

    rows = listing(tmp_path)
    assert sum(row.octets for row in rows) <= bound
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == sum(row.octets for row in rows)
    assert len(rows) >= 3


# ---- what breaks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".generation.gz", ".documents.gz"])
@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "swapped", "gone"])
def test_what_is_damaged_is_told_and_never_taken_for_another(tmp_path: Path, suffix: str, damage: str) -> None:
    """The moments before and after it are explained as ever; its own are not explained by its neighbours."""
    for n, name in enumerate(["a.example", "b.example", "c.example", "d.example"]):
        made(tmp_path, name, n * 10)
    path = tmp_path / f"00000002{suffix}"
    octets = path.read_bytes()
    flipped = octets[: len(octets) // 2] + bytes([octets[len(octets) // 2] ^ 1]) + octets[len(octets) // 2 + 1 :]
    if damage == "gone":
        path.unlink()
    else:
        dated = path.stat().st_mtime
        other = (tmp_path / f"00000001{suffix}").read_bytes()
        path.write_bytes({"cut": octets[:-9], "empty": b"", "bit": flipped, "swapped": other}[damage])
        os.utime(path, (dated, dated))

    assert (forbidden_at(tmp_path, 5), forbidden_at(tmp_path, 25)) == ("a.example", "c.example")
    if (suffix, damage) == (".generation.gz", "gone"):
        assert [row.serial for row in listing(tmp_path)] == [1, 3, 4]
    else:
        assert [(row.serial, row.compiled_at) for row in listing(tmp_path)] == [(1, 0), (2, 10), (3, 20), (4, 30)]
        with pytest.raises(HistoryError, match=r"generation 2, .* from a backup"):
            history.at(tmp_path, 15)
    assert made(tmp_path, "e.example", 40).name == "00000005.generation"


def test_documents_that_are_lost_are_written_again_with_the_same_policy(tmp_path: Path) -> None:
    """As where an earlier version compiled it."""
    made(tmp_path, "a.example", 10)
    (tmp_path / "00000001.documents.gz").unlink()

    made(tmp_path, "a.example", 20)

    assert forbidden_at(tmp_path, 15) == "a.example"
    assert [row.compiled_at for row in listing(tmp_path)] == [10]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    """With the account that may."""
    folder = tmp_path / "generations"
    folder.mkdir(mode=0)

    with pytest.raises(HistoryError, match="ask as the account"):
        listing(folder)


_STEPS = ("open", "os.rename", "os.remove", "os.utime")


def killed_at(step: int, folder: Path) -> bool:
    """Compile in a process that is gone at its n-th touch of the file system; whether it was done before."""
    child = os.fork()
    if child == 0:
        left = step

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in _STEPS and str(folder) in str(arguments[0]):
                left -= 1
                if left < 0:
                    os._exit(9)

        sys.addaudithook(count)
        made(folder, "new.example", 100, Bounds(count=4))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def killed_writing(octets: int, folder: Path) -> bool:
    """Compile in a process that is gone when a file has so many octets; whether none had."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (octets, octets))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        made(folder, "new.example", 100, Bounds(count=4))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(("killed", "stride"), [(killed_at, 1), (killed_writing, 150)])
def test_a_compile_that_is_killed_anywhere_loses_nothing(
    tmp_path: Path, killed: Callable[[int, Path], bool], stride: int
) -> None:
    """What was in force stays readable, what is new is there whole or not at all, and the next compile sweeps up."""
    base = tmp_path / "base"
    base.mkdir()
    for n in range(5):
        made(base, f"n{n}.example", n * 10)
    step, done = 0, False
    while not done:
        folder = tmp_path / f"step{step}"
        shutil.copytree(base, folder)
        done = killed(step * stride, folder)

        assert [forbidden_at(folder, moment) for moment in (20, 30, 40)] == ["n2.example", "n3.example", "n4.example"]
        newest = forbidden_at(folder, 200)
        assert newest in ("n4.example", "new.example")
        for row in listing(folder):
            assert history.of_serial(folder, row.serial) is not None
        made(folder, newest, 100, Bounds(count=4))
        assert not list(folder.glob("*.new"))
        last = made(folder, "new.example", 100, Bounds(count=4))
        assert last.name == "00000006.generation"
        assert sorted(file.name for file in folder.iterdir()) == sorted(
            f"0000000{n}.{kind}"
            for n in range(3, 7)
            for kind in ("documents.gz", "generation" if n > 4 else "generation.gz")
        )
        step += 1
    assert step > 8
