"""When devices were last seen: noted by several workers, read as one."""

import os
from pathlib import Path

import pytest

from resolver.app.seen import LastSeen, last_seen


def test_the_latest_of_all_workers_counts(tmp_path: Path) -> None:
    """Devices that nobody saw are left out."""
    first, second = LastSeen(tmp_path, 0), LastSeen(tmp_path, 1)

    first.note(3, 1000.9)
    second.note(3, 900)
    second.note(7, 1200)

    assert last_seen(tmp_path) == {3: 1000, 7: 1200}
    first.close()
    second.close()


def test_a_worker_that_is_back_goes_on(tmp_path: Path) -> None:
    """What its predecessor noted stays; nobody but the server's account reads it."""
    before = LastSeen(tmp_path, 0)
    before.note(2, 1000)
    before.close()
    after = LastSeen(tmp_path, 0)
    after.note(5, 1001)
    after.close()

    assert last_seen(tmp_path) == {2: 1000, 5: 1001}
    assert (tmp_path / "seen-0").stat().st_mode & 0o777 == 0o600


def test_the_file_grows_with_the_numbers(tmp_path: Path) -> None:
    """As far as any register goes; what lies beyond is no device."""
    seen = LastSeen(tmp_path, 0)
    for number in (1, 511, 512, 100_000, 1 << 40):
        seen.note(number, 1000 + number % 7)
    seen.close()

    assert last_seen(tmp_path) == {1: 1001, 511: 1000, 512: 1001, 100_000: 1005}
    assert (tmp_path / "seen-0").stat().st_size < 2_000_000


def test_a_full_disk_costs_the_moment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker starts and answers all the same, and notes again once there is room."""

    def fails(fd: int, offset: int, octets: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", fails)
        seen = LastSeen(tmp_path, 0)
        seen.note(3, 1000)
    seen.note(4, 1001)
    seen.close()

    assert last_seen(tmp_path) == {4: 1001}


def test_nothing_was_seen_yet(tmp_path: Path) -> None:
    """No folder, no files, or a file that was cut."""
    assert last_seen(tmp_path / "none") == {}
    (tmp_path / "seen-0").write_bytes(b"\0\0\0")
    assert last_seen(tmp_path) == {}
