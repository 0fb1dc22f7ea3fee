"""Processes that die are started again: soon, then later and later, and soon again after a steady run."""

import pytest

from resolver.app.children import FIRST_PAUSE, LONGEST_PAUSE, STEADY_SECONDS, Child

KILLED = 9  # as `waitpid` gives it
FAILED = 3 << 8


def child() -> Child:
    """A process that is never really started."""
    return Child("worker 0", lambda: 4711)


def test_a_process_that_begins_has_a_number_and_nothing_is_due() -> None:
    """Its start is noted for its end."""
    one = child()
    one.again_at = 5.0
    one.begin(100.0)

    assert (one.pid, one.started, one.again_at) == (4711, 100.0, 0.0)


def test_the_pause_doubles_up_to_the_longest() -> None:
    """One death after another."""
    one, now, pauses = child(), 100.0, []
    for _ in range(9):
        one.begin(now)
        one.died(FAILED, now)
        pauses.append(round(one.again_at - now, 3))

    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE


def test_a_steady_run_forgives_earlier_deaths() -> None:
    """The next pause is the first again."""
    one = child()
    for _ in range(5):
        one.begin(0.0)
        one.died(KILLED, 0.0)
    one.begin(0.0)
    one.died(KILLED, STEADY_SECONDS)

    assert one.again_at == STEADY_SECONDS + FIRST_PAUSE


@pytest.mark.parametrize(("status", "how"), [(KILLED, "signal 9"), (FAILED, "exit code 3")])
def test_the_log_says_how_it_ended(status: int, how: str) -> None:
    """And after what time, and when it is back."""
    one = child()
    one.begin(10.0)

    assert one.died(status, 12.5) == f"worker 0 ended after 2.5 s with {how}; it is started again in 0.1 s"
