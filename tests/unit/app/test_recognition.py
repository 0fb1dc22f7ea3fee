"""The register's file: opened anew when it was replaced, and only then."""

import contextlib
import os
import resource
from pathlib import Path

import pytest

from resolver.app.recognition import RegisterFile
from resolver.policy.register import Device, Entry, Proof, RegisterError, digest_of, write_register

PHONE = Device(1, "phone-7", "phones")


def put(path: Path, octets: bytes) -> None:
    """Replace the file whole, as the product does."""
    aside = path.with_suffix(".new")
    aside.write_bytes(octets)
    aside.replace(path)


def test_each_register_is_taken_once(tmp_path: Path) -> None:
    """None while it is the same; without a file nobody is known."""
    path = tmp_path / "devices"
    file = RegisterFile(path)
    empty = file.renewed()
    assert empty is not None
    assert empty.credentials == 0
    assert file.renewed() is None
    put(path, write_register([Entry(digest_of(Proof.TOKEN, "abc"), PHONE)], 1))
    taken = file.renewed()
    assert taken is not None
    assert taken.find(Proof.TOKEN, "abc", 0.0) == PHONE
    assert file.renewed() is None
    path.unlink()
    gone = file.renewed()
    assert gone is not None
    assert gone.find(Proof.TOKEN, "abc", 0.0) is None


def test_a_damaged_one_is_told_once_and_the_next_is_taken(tmp_path: Path) -> None:
    """The error is the caller's to tell; it does not come back with every look."""
    path = tmp_path / "devices"
    file = RegisterFile(path)
    put(path, b"no register")
    with pytest.raises(RegisterError):
        file.renewed()
    assert file.renewed() is None
    put(path, write_register([], 2))
    taken = file.renewed()
    assert taken is not None
    assert taken.serial == 2


def test_an_empty_register_is_damage(tmp_path: Path) -> None:
    """And not an error that nobody expects."""
    path = tmp_path / "devices"
    path.touch()
    with pytest.raises(RegisterError, match="empty"):
        RegisterFile(path).renewed()


def test_what_could_not_be_opened_is_tried_again(tmp_path: Path) -> None:
    """No descriptor was left, say; the register itself is as good as before."""
    path = tmp_path / "devices"
    put(path, write_register([], 3))
    file = RegisterFile(path)
    with contextlib.ExitStack() as held:
        most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (most, hard))
        with pytest.raises(OSError, match="Too many open files"):
            file.renewed()
    taken = file.renewed()
    assert taken is not None
    assert taken.serial == 3
