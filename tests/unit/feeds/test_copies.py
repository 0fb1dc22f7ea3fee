"""Last good copies on disk: what is written is read back, and what is damaged costs a download and no list."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.feeds import copies
from resolver.feeds.copies import FeedError, State, list_path, read_copy, state_path, write_copy, write_state

LIST = b"a.example\nb.example\n"
STATE = State(
    url="https://lists.example.org/bans.txt",
    public_key="RW" + "x" * 54,
    etag='"1"',
    last_modified="Wed, 18 May 2033 03:33:20 GMT",
    fetched_at=2_000_000_000.0,
    checked_at=2_000_000_060.5,
    failed_at=1_999_999_000.0,
    error="it was gone",
    failures=2,
    next_at=2_000_086_400.0,
).of(LIST, 2)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """List and state, in a folder that is made for them."""
    write_copy(tmp_path / "feeds", "bans", LIST, STATE)

    copy = read_copy(tmp_path / "feeds", "bans")

    assert (copy.octets, copy.state, copy.problems) == (LIST, STATE, ())
    assert copy.is_vouched_for
    assert sorted(path.name for path in (tmp_path / "feeds").iterdir()) == ["bans.json", "bans.list"]


def test_a_feed_that_was_never_fetched_has_no_list_and_no_problem(tmp_path: Path) -> None:
    """Nothing is nothing bad."""
    copy = read_copy(tmp_path / "feeds", "bans")

    assert (copy.octets, copy.state, copy.problems) == (None, State(), ())
    assert not copy.is_vouched_for


def test_a_state_alone_leaves_the_list(tmp_path: Path) -> None:
    """A failed attempt is noted beside the copy."""
    write_copy(tmp_path, "bans", LIST, STATE)
    failed = replace(STATE, failures=3, error="it is still gone")

    write_state(tmp_path, "bans", failed)

    assert read_copy(tmp_path, "bans").octets == LIST
    assert read_copy(tmp_path, "bans").state == failed


def written(**changed: object) -> bytes:
    return json.dumps(json.loads(STATE.to_json()) | changed).encode()


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b"[" * 50_000,
        STATE.to_json()[:-9],
        written(url=None),
        written(etag=1),
        written(digest=None),
        written(entries="2"),
        written(entries=2.5),
        written(entries=True),
        written(entries=-1),
        written(failures=-1),
        written(next_at="soon"),
        written(next_at=True),
        written(next_at=float("nan")),
        written(next_at=float("inf")),
        written(checked_at=-1.0),
        written(next_at=[]),
        b'{"url": "' + b"x" * copies.MOST_STATE_OCTETS + b'"}',
    ],
)
def test_a_damaged_state_is_as_none_and_told(tmp_path: Path, octets: bytes) -> None:
    """The list stays of use."""
    write_copy(tmp_path, "bans", LIST, STATE)
    state_path(tmp_path, "bans").write_bytes(octets)

    copy = read_copy(tmp_path, "bans")

    assert copy.octets == LIST
    assert copy.state == State()
    assert not copy.is_vouched_for
    assert len(copy.problems) == 1
    assert "bans.json is damaged" in copy.problems[0]


def test_members_of_a_later_version_do_no_harm(tmp_path: Path) -> None:
    """A state that says more is read for what is known."""
    write_copy(tmp_path, "bans", LIST, STATE)
    state_path(tmp_path, "bans").write_bytes(written(colour="green", fetched_at=2_000_000_000))

    assert read_copy(tmp_path, "bans").state == STATE


@given(st.binary())
def test_any_octets_are_a_state_or_a_value_error(octets: bytes) -> None:
    """No third way."""
    try:
        state = State.from_json(octets)
    except ValueError:
        return
    assert State.from_json(state.to_json()) == state


_texts = st.none() | st.text()
_times = st.none() | st.floats(min_value=0, allow_infinity=False)
_states = st.builds(
    State,
    url=st.text(),
    public_key=_texts,
    etag=_texts,
    last_modified=_texts,
    digest=st.text(),
    octets=st.integers(min_value=0),
    entries=st.integers(min_value=0),
    fetched_at=_times,
    checked_at=_times,
    failed_at=_times,
    error=_texts,
    failures=st.integers(min_value=0),
    next_at=_times,
)


@given(_states)
def test_a_state_survives_its_file(state: State) -> None:
    """from_json undoes to_json."""
    assert State.from_json(state.to_json()) == state


def test_a_list_that_its_state_does_not_tell_of_is_used_and_told(tmp_path: Path) -> None:
    """After a crash between the two renames the list is the later one: accepted, and not vouched for."""
    write_copy(tmp_path, "bans", LIST, STATE)
    list_path(tmp_path, "bans").write_bytes(LIST + b"c.example\n")

    copy = read_copy(tmp_path, "bans")

    assert copy.octets == LIST + b"c.example\n"
    assert copy.state == STATE
    assert not copy.is_vouched_for
    assert len(copy.problems) == 1
    assert "bans.list is not the list that bans.json tells of" in copy.problems[0]


def test_what_a_crash_left_aside_is_not_read(tmp_path: Path) -> None:
    """A file that was not renamed is not there."""
    write_copy(tmp_path, "bans", LIST, STATE)
    (tmp_path / "bans.list.new").write_bytes(b"half a li")
    (tmp_path / "bans.json.new").write_bytes(b"{")

    assert read_copy(tmp_path, "bans").octets == LIST
    assert read_copy(tmp_path, "bans").problems == ()


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A folder in its place is no exception."""
    write_copy(tmp_path, "bans", LIST, STATE)
    list_path(tmp_path, "bans").unlink()
    list_path(tmp_path, "bans").mkdir()

    copy = read_copy(tmp_path, "bans")

    assert copy.octets is None
    assert "bans.list cannot be read" in copy.problems[0]


@pytest.mark.parametrize("name", ["bans", "0", "rpz.example.org", "a-b..c", "x" * 100, "bans.list", "bans.list.new"])
def test_a_name_of_a_feed(tmp_path: Path, name: str) -> None:
    """Each has two files of its own in the folder."""
    write_copy(tmp_path, name, LIST, STATE)

    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.list", f"{name}.json"}


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../bans",
        "a/b",
        "a\\b",
        ".bans",
        "-bans",
        "bans.",
        "Bans",
        "bäns",
        "a b",
        "a\n",
        "a\0",
        "x" * 101,
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    """Nothing is read or written under it."""
    with pytest.raises(FeedError, match="cannot name a feed; write"):
        read_copy(tmp_path, name)
    with pytest.raises(FeedError, match="cannot name a feed; write"):
        write_copy(tmp_path, name, LIST, STATE)

    assert list(tmp_path.iterdir()) == []


def test_names_do_not_meet(tmp_path: Path) -> None:
    """A feed whose name ends as a file does is not another one's file."""
    for name in ("bans", "bans.list", "bans.json", "bans.list.new"):
        write_copy(tmp_path, name, name.encode(), State().of(name.encode(), 1))

    for name in ("bans", "bans.list", "bans.json", "bans.list.new"):
        assert read_copy(tmp_path, name).octets == name.encode()
        assert read_copy(tmp_path, name).is_vouched_for
