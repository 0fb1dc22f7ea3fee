"""The pictures of the front page: they are there, say in words what they show, and fetch nothing from anywhere."""

import re
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

from tests.support.server import ROOT

FOLDER = ROOT / "deploy" / "pictures"
SHOWN = re.findall(r"!\[([^]]+)\]\(([^)]+)\)", (ROOT / "README.md").read_text())
PICTURES = sorted(FOLDER.iterdir())


def test_every_picture_is_shown_and_every_one_that_is_shown_is_there() -> None:
    """By a path that works wherever the page is read."""
    assert sorted(path for _, path in SHOWN) == [path.relative_to(ROOT).as_posix() for path in PICTURES]


@pytest.mark.parametrize("words", [words for words, _ in SHOWN], ids=[path for _, path in SHOWN])
def test_a_picture_is_told_in_words(words: str) -> None:
    """Whoever does not see it reads what it shows, not only that there is one."""
    assert len(words.split()) > 20


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_picture_stands_by_itself(path: Path) -> None:
    """It is well-formed, scales, and names no address but those of its notation and of what it shows."""
    root = xml.parse(path).getroot()
    addresses = [
        value
        for element in root.iter()
        for key, value in element.attrib.items()
        if key.endswith("href") or "url(" in value
    ]

    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "viewBox" in root.attrib
    assert [address for address in addresses if not re.fullmatch(r"(?:url\()?#[\w-]+\)?", address)] == []
    assert not re.search(r"@import|@font-face|url\((?!#)", path.read_text())


def test_the_drawing_is_made_for_light_and_for_dark() -> None:
    """With colours of its own for a dark page; a terminal is dark by itself."""
    assert "@media (prefers-color-scheme: dark)" in (FOLDER / "architecture.svg").read_text()
