"""Every story in this folder, played through the whole path with fake time (format: `tests/support/rpl.py`)."""

from pathlib import Path

import pytest

from tests.support.rpl import Play, ScenarioFailed, read
from tests.support.upstream import FakeExchange

SCENARIOS = sorted(Path(__file__).parent.glob("*.rpl"))

STORY = """
SCENARIO_BEGIN a story
RANGE_BEGIN 0 10
ADDRESS 192.0.2.53
ENTRY_BEGIN
MATCH qname qtype
REPLY QR RD RA NOERROR
SECTION QUESTION
www.example.org. IN A
SECTION ANSWER
www.example.org. 60 IN A 192.0.2.1
ENTRY_END
RANGE_END
STEP 1 QUERY
ENTRY_BEGIN
REPLY RD
SECTION QUESTION
www.example.org. IN A
ENTRY_END
STEP 2 CHECK_ANSWER
ENTRY_BEGIN
MATCH all ttl
REPLY QR RD RA NOERROR
SECTION QUESTION
www.example.org. IN A
SECTION ANSWER
www.example.org. 60 IN A 192.0.2.1
ENTRY_END
SCENARIO_END
"""


@pytest.fixture(autouse=True, params=[True, False], ids=["without a task", "in a task"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstreams are asked in both ways, with the same outcome."""
    monkeypatch.setattr(FakeExchange, "posts", request.param)


@pytest.mark.parametrize("path", SCENARIOS, ids=[path.stem for path in SCENARIOS])
def test_the_story_goes_as_it_is_told(path: Path) -> None:
    """Each step finds what it says."""
    Play(read(path.read_text())).run()


def test_there_are_stories() -> None:
    """The folder is looked into, and each story has a line that says what it is about."""
    assert len(SCENARIOS) >= 120
    assert all(read(path.read_text()).title for path in SCENARIOS)


BEFORE_CHECK, CHECK = STORY[: STORY.index("STEP 2")], STORY[STORY.index("STEP 2") :]
BANNED = """
SCENARIO_BEGIN a hit
STEP 1 QUERY
ENTRY_BEGIN
REPLY RD
SECTION QUESTION
chat.example. IN A
ENTRY_END
STEP 2 CHECK_ANSWER
ENTRY_BEGIN
MATCH rcode
REPLY QR RD RA NXDOMAIN
SECTION QUESTION
chat.example. IN A
ENTRY_END
STEP 3 CHECK_HIT mode=enforce
SCENARIO_END
"""
OTHERWISE = {
    "TTL": BEFORE_CHECK + CHECK.replace("60 IN A", "59 IN A"),
    "record": BEFORE_CHECK + CHECK.replace("192.0.2.1", "192.0.2.2"),
    "no record": BEFORE_CHECK + CHECK.replace("www.example.org. 60 IN A 192.0.2.1\n", ""),
    "RCODE": BEFORE_CHECK + CHECK.replace("NOERROR", "NXDOMAIN"),
    "flag": BEFORE_CHECK + CHECK.replace("QR RD RA", "QR RD RA AD"),
    "question": BEFORE_CHECK + CHECK.replace("www.example.org. IN A", "www.example.org. IN AAAA"),
    "EDE": BEFORE_CHECK + CHECK.replace("MATCH all ttl", "MATCH ede=16"),
    "silence": BEFORE_CHECK + "STEP 2 CHECK_SILENCE\nSCENARIO_END\n",
    "question to the upstream": STORY.replace("REPLY RD\nSECTION QUESTION\nwww.", "REPLY RD\nSECTION QUESTION\nother."),
    "questions": STORY.replace("SCENARIO_END", "STEP 3 CHECK_ASKED 2\nSCENARIO_END"),
    "hits": STORY.replace("SCENARIO_END", "STEP 3 CHECK_HITS 1\nSCENARIO_END"),
    "additional record": BEFORE_CHECK
    + CHECK.replace("all ttl", "all additional").replace(
        "ENTRY_END", "SECTION ADDITIONAL\nrpz.example. 60 IN A 192.0.2.1\nENTRY_END"
    ),
    "name that was asked about": STORY.replace(
        "SCENARIO_END", "STEP 3 CHECK_NEVER_ASKED www.example.org.\nSCENARIO_END"
    ),
    "type that was asked for": STORY.replace(
        "SCENARIO_END", "STEP 3 CHECK_NEVER_ASKED www.example.org. A\nSCENARIO_END"
    ),
    "last hit": STORY.replace("SCENARIO_END", "STEP 3 CHECK_HIT mode=enforce\nSCENARIO_END"),
    "last hit's field": BANNED.replace("mode=enforce", "mode=observe"),
    "not checked": BEFORE_CHECK + "SCENARIO_END\n",
}


@pytest.mark.parametrize("otherwise", OTHERWISE.values(), ids=OTHERWISE)
def test_a_story_that_goes_otherwise_fails(otherwise: str) -> None:
    """The player can tell."""
    assert otherwise != STORY
    Play(read(STORY)).run()
    Play(read(BANNED)).run()

    with pytest.raises(ScenarioFailed):
        Play(read(otherwise)).run()
