"""The devices: what changes, that it is in force at once, and what a cut in between leaves."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resolver.app import devices as store
from resolver.app.devices import (
    Devices,
    DevicesError,
    NoDevicesError,
    database_of,
    new_token,
    opened,
    register_of,
    settle,
)
from resolver.app.enrolled import Issued, Wanted, plan_import
from resolver.app.machine import StatePaths
from resolver.enrol.exports import Listed
from resolver.policy.register import Device, Proof, Register

AT = 1_700_000_000.0
DAY = 86400.0


@pytest.fixture
def paths(tmp_path: Path) -> StatePaths:
    """A state folder that nobody used yet."""
    return StatePaths(tmp_path / "state")


@pytest.fixture
def devices(paths: StatePaths) -> Iterator[Devices]:
    """The devices in it."""
    with opened(paths, make=True) as found:
        yield found


def known(paths: StatePaths, token: str, at: float = AT, proof: Proof = Proof.TOKEN) -> Device | None:
    """Whose a credential is for a worker that opens the register now."""
    return Register(memoryview(register_of(paths).read_bytes())).find(proof, token, at)


def add(devices: Devices, name: str, group: str = "phones", serial: str = "", *certificates: str) -> str:
    return devices.add(Wanted(name, group, "jdoe", serial, "", certificates, new_token()), AT).token


def nobody(issued: Sequence[Issued]) -> None:
    """Keeps no tokens."""


def test_a_token_is_long_random_and_a_label() -> None:
    """130 bits, none of them like another's."""
    tokens = {new_token() for _ in range(1000)}

    assert len(tokens) == 1000
    assert all(re.fullmatch("[a-z2-7]{26}", token) for token in tokens)


def test_a_device_that_was_added_is_known_at_once(devices: Devices, paths: StatePaths) -> None:
    """By its token and its certificates, with its number for life."""
    token = add(devices, "phone-7", "phones", "S1", "phone-7.example.org")

    assert known(paths, token) == Device(1, "phone-7", "phones")
    assert known(paths, "phone-7.example.org", proof=Proof.CERTIFICATE) == Device(1, "phone-7", "phones")
    found = devices.find("phone-7")
    assert (found.owner, found.serial, found.created, found.revoked) == ("jdoe", "S1", AT, None)
    assert [(one.proof, one.certificate) for one in found.credentials] == [
        (Proof.TOKEN, ""), (Proof.CERTIFICATE, "phone-7.example.org")
    ]  # fmt: skip


def test_no_token_is_on_the_disk(devices: Devices, paths: StatePaths) -> None:
    """What is kept tells nobody what it was, and the account's files are its own."""
    token = add(devices, "phone-7")

    files = [path for path in paths.root.rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert all(token.encode() not in path.read_bytes() for path in files)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_what_was_revoked_is_unknown_at_once(devices: Devices, paths: StatePaths) -> None:
    """A device with all that proves it; others stay."""
    tokens = [add(devices, name, "phones", "", f"{name}.example.org") for name in ("a", "b", "c")]

    gone = devices.revoke(["a", "c"], AT + 5)

    assert [one.name for one in gone] == ["a", "c"]
    assert [known(paths, token) for token in tokens] == [None, Device(2, "b", "phones"), None]
    assert known(paths, "a.example.org", proof=Proof.CERTIFICATE) is None
    assert devices.find("a").revoked == AT + 5
    assert devices.revoke(["a"], AT + 9) == []
    assert devices.find("a").revoked == AT + 5


def test_one_credential_is_revoked_alone(devices: Devices, paths: StatePaths) -> None:
    """A token that leaked, where the certificate did not."""
    token = add(devices, "a", "phones", "", "a.example.org")
    (leaked, _) = devices.find("a").credentials

    devices.revoke_credential("a", leaked.id, AT)

    assert known(paths, token) is None
    assert known(paths, "a.example.org", proof=Proof.CERTIFICATE) is not None
    with pytest.raises(DevicesError, match="no credential 1 in force"):
        devices.revoke_credential("a", leaked.id, AT)


def test_a_renewed_token_has_its_time(devices: Devices, paths: StatePaths) -> None:
    """The old one works on for the grace, which another renewal does not draw out."""
    old = add(devices, "a")
    new = devices.renew("a", new_token(), (), AT, DAY).token
    newest = devices.renew("a", new_token(), (), AT + 10, 30 * DAY).token

    assert all(known(paths, token, AT + 20) == Device(1, "a", "phones") for token in (old, new, newest))
    assert known(paths, old, AT + DAY) is None
    assert known(paths, new, AT + DAY) is not None
    assert known(paths, new, AT + 10 + 30 * DAY) is None
    assert known(paths, newest, AT + 1000 * DAY) is not None


def test_a_renewal_without_grace_ends_the_old_token(devices: Devices, paths: StatePaths) -> None:
    """At once."""
    old = add(devices, "a")
    devices.renew("a", new_token(), (), AT, 0)

    assert known(paths, old, AT - 1) is None
    assert devices.find("a").credentials[0].revoked == AT


def test_a_renewal_brings_a_device_back(devices: Devices, paths: StatePaths) -> None:
    """With its number, and with nothing of what it had before."""
    old = add(devices, "a", "phones", "", "a.example.org")
    devices.revoke(["a"], AT)
    new = devices.renew("a", new_token(), ("a.example.org",), AT, DAY).token

    assert known(paths, new) == Device(1, "a", "phones")
    assert known(paths, old) is None
    assert known(paths, "a.example.org", proof=Proof.CERTIFICATE) is not None


def test_a_certificate_is_added_beside_the_token(devices: Devices, paths: StatePaths) -> None:
    """Which stays as it is."""
    token = add(devices, "a")
    devices.renew("a", "", ("a.example.org",), AT, 0)

    assert known(paths, token) == known(paths, "a.example.org", proof=Proof.CERTIFICATE) == Device(1, "a", "phones")


def test_a_device_moves_and_changes_its_name(devices: Devices, paths: StatePaths) -> None:
    """Its token stays, and leads to the new group and name."""
    token = add(devices, "a")

    assert [one.name for one in devices.move(["a"], "office")] == ["a"]
    assert devices.move(["a"], "office") == []
    devices.rename("a", "b")

    assert known(paths, token) == Device(1, "b", "office")


def test_numbers_are_never_given_twice(devices: Devices) -> None:
    """They are places in files of their own."""
    add(devices, "a")
    devices.revoke(["a"], AT)
    add(devices, "b")

    assert [one.number for one in devices.all()] == [1, 2]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted("a", "phones", token="t" * 26), "there is a device a already; take another name"),
        (Wanted("gone", "phones"), "there is a device gone already, which was revoked; `interdict device renew gone`"),
        (Wanted("b", "phones", serial="S1"), 'the serial "S1" is that of a; is it the same device'),
        (Wanted("b", "phones", certificates=("A.example.org",)), 'the certificate "A.example.org" is that of a'),
        (Wanted("b", "phones", token="k" * 26), "this token is that of a"),
    ],
)
def test_what_is_taken_is_not_given_again(wanted: Wanted, said: str, devices: Devices, paths: StatePaths) -> None:
    """And nothing of the change is left."""
    devices.add(Wanted("a", "phones", "", "S1", "", ("a.example.org",), "k" * 26), AT)
    devices.add(Wanted("gone", "phones"), AT)
    devices.revoke(["gone"], AT)
    before = register_of(paths).read_bytes()

    with pytest.raises(DevicesError, match=said):
        devices.add(wanted, AT)

    assert [one.name for one in devices.all()] == ["a", "gone"]
    assert register_of(paths).read_bytes() == before


def test_an_unknown_name_is_told_with_the_nearest(devices: Devices) -> None:
    """And none of the others is revoked."""
    add(devices, "phone-7")

    with pytest.raises(DevicesError, match='no device is called "phone-8"; did you mean "phone-7"'):
        devices.revoke(["phone-7", "phone-8"], AT)
    with pytest.raises(DevicesError, match='no device is called "x"; `interdict device list` shows all'):
        devices.find("x")

    assert devices.find("phone-7").revoked is None


# ---- imports --------------------------------------------------------------------------------------------------------


def bring(devices: Devices, *listing: Listed, **how: bool) -> list[Issued]:
    plan = plan_import(devices.all(), devices.serial(), listing)
    return devices.import_(plan, AT, nobody, **how)  # type: ignore[arg-type]


def test_importing_again_makes_no_second_token(devices: Devices, paths: StatePaths) -> None:
    """Known devices are brought up to date, and keep what proves them."""
    first = bring(devices, Listed(2, "a", "S1", "", "phones"), Listed(3, "b", "S2", "", "phones"))
    tokens = {one.name: one.token for one in first}

    again = bring(devices, Listed(2, "b", "S1", "x", "office"), Listed(3, "a", "S2", "", "phones"))

    assert again == []
    assert known(paths, tokens["a"]) == Device(1, "b", "office")
    assert known(paths, tokens["b"]) == Device(2, "a", "phones")
    assert devices.find("b").owner == "x"


def test_missing_devices_are_revoked_where_it_is_wanted(devices: Devices, paths: StatePaths) -> None:
    """And only there."""
    (issued,) = bring(devices, Listed(2, "a", "", "", "phones"))

    bring(devices, Listed(2, "b", "", "", "phones"))
    assert known(paths, issued.token) is not None
    bring(devices, Listed(2, "b", "", "", "phones"), revoke_missing=True)
    assert known(paths, issued.token) is None


def test_an_import_takes_tokens_that_are_there(devices: Devices, paths: StatePaths) -> None:
    """So that the inventory of an earlier import brings a lost register back; others get none where none are wanted."""
    issued = bring(
        devices, Listed(2, "a", "", "", "phones", "k" * 26), Listed(3, "b", "", "", "phones"), with_tokens=False
    )

    assert [one.token for one in issued] == ["k" * 26, ""]
    assert known(paths, "k" * 26) == Device(1, "a", "phones")


def test_an_import_whose_tokens_nobody_keeps_is_undone(devices: Devices, paths: StatePaths) -> None:
    """They are nowhere else."""
    add(devices, "before")
    before = register_of(paths).read_bytes()

    def full(issued: Sequence[Issued]) -> None:
        assert len(issued) == 1
        raise OSError(28, "No space left on device", "devices.csv")

    with pytest.raises(OSError, match="No space"):
        devices.import_(plan_import(devices.all(), devices.serial(), [Listed(2, "a", "", "", "phones")]), AT, full)

    assert [one.name for one in devices.all()] == ["before"]
    assert register_of(paths).read_bytes() == before
    assert not list(paths.run.glob("*.new"))


def test_a_plan_of_yesterday_is_not_carried_out(devices: Devices) -> None:
    """Somebody else may have revoked what it takes for known."""
    plan = plan_import(devices.all(), devices.serial(), [Listed(2, "a", "", "", "phones")])
    add(devices, "b")

    with pytest.raises(DevicesError, match="changed devices meanwhile; import again"):
        devices.import_(plan, AT, nobody)


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_cut_before_the_rename_is_mended_by_whoever_opens_next(paths: StatePaths) -> None:
    """The database has the change, the register has not: the machine lost power in between."""
    with opened(paths, make=True) as devices:
        token = add(devices, "a")
        before = register_of(paths).read_bytes()
        devices.revoke(["a"], AT)
    register_of(paths).write_bytes(before)
    assert known(paths, token) is not None

    with opened(paths):
        assert known(paths, token) is None


@pytest.mark.parametrize("octets", [None, b"", b"INTERDICT DEVICES 1\n" + bytes(100)])
def test_the_start_settles_whatever_lies_there(octets: bytes | None, paths: StatePaths) -> None:
    """No register, an empty one, a damaged one."""
    with opened(paths, make=True) as devices:
        token = add(devices, "a")
    register_of(paths).unlink()
    if octets is not None:
        register_of(paths).write_bytes(octets)

    settle(paths)

    assert known(paths, token) == Device(1, "a", "phones")


def test_damage_within_is_settled_too(paths: StatePaths) -> None:
    """Where the head is sound, and a record is not."""
    with opened(paths, make=True) as devices:
        token = add(devices, "a")
    octets = bytearray(register_of(paths).read_bytes())
    octets[-1] ^= 1
    register_of(paths).write_bytes(octets)
    assert known(paths, token) is None

    settle(paths)

    assert known(paths, token) is not None


def test_a_register_without_devices_goes(paths: StatePaths) -> None:
    """Somebody moved the database away: nobody is known any more. A server without devices makes no files."""
    settle(paths)
    assert not paths.root.exists()
    with opened(paths, make=True) as devices:
        add(devices, "a")
    shutil.rmtree(paths.devices)

    settle(paths)

    assert not register_of(paths).exists()
    with pytest.raises(NoDevicesError, match="there are no devices yet"), opened(paths):
        pass


def test_who_dies_in_between_leaves_no_lock(paths: StatePaths) -> None:
    """A process that is killed in a change changes nothing, and the next one goes on."""
    with opened(paths, make=True) as devices:
        add(devices, "a")
    script = f"""
import os
from pathlib import Path
from resolver.app.devices import opened
from resolver.app.machine import StatePaths
with opened(StatePaths(Path({str(paths.root)!r}))) as devices:
    devices._put_in_place = lambda aside: None
    devices._write_aside = lambda serial: os.kill(os.getpid(), 9)
    devices.revoke(["a"], 1.0)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9

    with opened(paths) as devices:
        assert devices.find("a").revoked is None
        devices.revoke(["a"], AT)


def test_who_changes_waits_for_others(paths: StatePaths) -> None:
    """Several at once lose nothing, and the last register has all of it."""
    with opened(paths, make=True):
        pass

    def add_some(start: int) -> list[str]:
        with opened(paths) as devices:
            return [add(devices, f"phone-{start}-{i}") for i in range(5)]

    with ThreadPoolExecutor(4) as pool:
        tokens = [token for some in pool.map(add_some, range(4)) for token in some]

    assert len(tokens) == 20
    assert all(known(paths, token) for token in tokens)


def test_who_waits_too_long_is_told(paths: StatePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else holds the lock."""
    monkeypatch.setattr(store, "_WAIT_S", 0.05)
    with opened(paths, make=True) as devices, opened(paths) as other:
        with devices._locked(), pytest.raises(DevicesError, match="another `interdict device` is changing"):
            add(other, "a")
        add(other, "a")


def test_a_database_of_another_version_is_left_alone(paths: StatePaths) -> None:
    """It says what to do."""
    with opened(paths, make=True):
        pass
    with sqlite3.connect(database_of(paths)) as database:
        database.execute("PRAGMA user_version = 9")

    with pytest.raises(DevicesError, match="schema 9, this version writes 1"), opened(paths):
        pass


def test_what_is_no_database_is_told(paths: StatePaths) -> None:
    """Instead of a traceback."""
    paths.devices.mkdir(parents=True)
    database_of(paths).write_bytes(b"something else" * 100)

    with pytest.raises(DevicesError, match=r"devices\.sqlite: file is not a database"), opened(paths):
        pass


def test_a_folder_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    """With its place."""
    (tmp_path / "file").write_text("")

    with (
        pytest.raises(DevicesError, match="file: File exists; see to the state folder"),
        opened(StatePaths(tmp_path / "file"), make=True),
    ):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another account")
def test_root_leaves_files_that_the_server_can_read() -> None:
    """What root adds and changes belongs to the account that the state folder belongs to."""
    home = Path(tempfile.mkdtemp())
    try:
        home.chmod(0o755)
        paths = StatePaths(home / "state")
        paths.root.mkdir(0o750)
        os.chown(paths.root, 65534, 65534)

        with opened(paths, make=True) as devices:
            add(devices, "a")
            assert {path.stat().st_uid for path in paths.root.rglob("*")} == {65534}

        assert os.geteuid() == 0
        assert {(path.stat().st_uid, path.stat().st_gid) for path in paths.root.rglob("*")} == {(65534, 65534)}
    finally:
        shutil.rmtree(home)
