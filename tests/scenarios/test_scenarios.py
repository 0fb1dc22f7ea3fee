"""Every story in this folder, played through the whole path with fake time (format: `tests/support/rpl.py`)."""

from pathlib import Path

import pytest

from tests.support.rpl import Play, ScenarioFailed, read

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


@pytest.mark.parametrize("path", SCENARIOS, ids=[path.stem for path in SCENARIOS])
def test_the_story_goes_as_it_is_told(path: Path) -> None:
    """Each step finds what it says."""
    Play(read(path.read_text())).run()


def test_there_are_stories() -> None:
    """The folder is looked into, and each story has a line that says what it is about."""
    assert len(SCENARIOS) >= 18
    assert all(read(path.read_text()).title for path in SCENARIOS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("60 IN A 192.0.2.1\nENTRY_END\nSCENARIO_END", "59 IN A 192.0.2.1\nENTRY_END\nSCENARIO_END"),
        ("192.0.2.1\nENTRY_END\nSCENARIO_END", "192.0.2.2\nENTRY_END\nSCENARIO_END"),
        ("REPLY QR RD RA NOERROR\nSECTION QUESTION\nwww.example.org. IN A\nSECTION ANSWER\nwww.example.org. 60 IN A 192.0.2.1\nENTRY_END\nSCENARIO_END",
         "REPLY QR RD RA NXDOMAIN\nSECTION QUESTION\nwww.example.org. IN A\nENTRY_END\nSCENARIO_END"),
        ("MATCH all ttl", "MATCH ede=16"),
        ("REPLY RD\nSECTION QUESTION\nwww.", "REPLY RD\nSECTION QUESTION\nother."),
        ("STEP 2 CHECK_ANSWER", "STEP 2 CHECK_ASKED 2\nSTEP 3 CHECK_ANSWER"),
        ("SCENARIO_END", "STEP 3 CHECK_HITS 1\nSCENARIO_END"),
    ],
    ids=["TTL", "record", "RCODE", "EDE", "question to the upstream", "questions", "hits"],
)  # fmt: skip
def test_a_story_that_goes_otherwise_fails(old: str, new: str) -> None:
    """The player can tell."""
    assert old in STORY
    Play(read(STORY)).run()

    with pytest.raises(ScenarioFailed):
        Play(read(STORY.replace(old, new, 1))).run()
