"""The comparison of engines compares what it says it compares, and refuses what answers wrongly."""

import argparse
from collections.abc import Callable

import pytest

from tests.bench import doh_engines as bench


@pytest.mark.slow
def test_engines_are_compared(peer: Callable[[str], str]) -> None:
    """One short round of two engines: a figure for each and the ratio between them."""
    peer("h2load")
    peer("curl")
    arguments = argparse.Namespace(requests=200, connections=2, streams=4, rounds=1)
    figures = bench.compare(arguments, ["interdict", "h2"])
    assert set(figures) == {(name, method) for name in ("interdict", "h2") for method in ("POST", "GET")}
    assert all(len(values) == 1 and values[0] > 0 for values in figures.values())
    table = bench.table(figures, ["interdict", "h2"]).splitlines()
    assert len(table) == 4
    assert table[2].startswith("| interdict | ")
    assert table[2].count("| 1.00 |") == 2


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        (bench.ANSWER, True),
        (bench.QUERY, False),
        (bench.ANSWER.replace(b"\xc0\0\2\1", b"\xc0\0\2\2"), False),
        (b"", False),
    ],
)
def test_a_wrong_answer_is_known(answer: bytes, is_right: bool) -> None:
    """By its address, and by its counts."""
    assert bench._is_right(answer) == is_right


def test_an_engine_that_does_not_start_is_refused(peer: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Saying what it said itself."""
    peer("curl")
    monkeypatch.setitem(bench.PEERS, "broken", lambda place: ["sh", "-c", "echo no such thing; exit 1"])
    arguments = argparse.Namespace(requests=200, connections=2, streams=4, rounds=1)
    with pytest.raises(bench.Refused, match="no such thing"):
        bench.compare(arguments, ["broken"])
