"""The devices and what proves each of them: the source of truth, and the register that workers look into.

```
STATE/devices/devices.sqlite   devices and credentials; of a credential only its digest, so that nobody reads a token
STATE/devices/seen-N           by worker: when each device was last seen (`seen.py`)
STATE/run/devices              the register (`policy/register.py`), made of what is in force
```

A change is one step, in this order:

    1  the lock is taken: one changes, others wait
    2  BEGIN, the rows, the next serial
    3  the register is laid out from the rows as they are now, and written aside, with fsync
    4  COMMIT, with fsync
    5  the register is renamed into place, and the folder brought to the disk

What fails before 4 leaves everything as it was. What dies between 4 and 5, with the machine or alone, leaves a register
whose serial is not the database's: whoever opens the devices next writes it again, and so does `settle`, which runs
before the first worker does. Nobody was told that the change is in force before it was.

Root acts as the account that the state folder belongs to: the server could not read what root would leave, and no link
that this account made leads root anywhere.
"""

import contextlib
import fcntl
import os
import sqlite3
import time
from base64 import b32encode
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from secrets import token_bytes
from typing import Final

from resolver.app.enrolled import Credential, Enrolled, Issued, Plan, Wanted
from resolver.app.machine import StatePaths
from resolver.app.recognition import REGISTER_NAME
from resolver.policy.register import (
    FOREVER,
    TOKEN_CHARACTERS,
    Device,
    Entry,
    Proof,
    Register,
    RegisterError,
    digest_of,
    write_register,
)
from resolver.policy.source import did_you_mean, shown

SCHEMA_VERSION: Final = 1

_WAIT_S = 10.0  # for another change; an import of 100,000 devices takes less
_LOOK_S = 0.02
_TOLD_EVERY = 1000

_SCHEMA = """
CREATE TABLE device (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    client_group TEXT NOT NULL,
    owner TEXT NOT NULL,
    serial TEXT NOT NULL,
    notes TEXT NOT NULL,
    created REAL NOT NULL,
    revoked REAL
);
CREATE UNIQUE INDEX device_serial ON device (serial) WHERE serial != '';
CREATE TABLE credential (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device INTEGER NOT NULL REFERENCES device (number),
    proof TEXT NOT NULL,
    digest BLOB NOT NULL,
    certificate TEXT NOT NULL,
    made REAL NOT NULL,
    until REAL,
    revoked REAL
);
CREATE INDEX credential_device ON credential (device);
CREATE UNIQUE INDEX credential_digest ON credential (digest) WHERE revoked IS NULL;
CREATE TABLE register (serial INTEGER NOT NULL);
INSERT INTO register VALUES (0);
"""
_DEVICE_COLUMNS = "number, name, client_group, owner, serial, notes, created, revoked"
_CREDENTIAL_COLUMNS = "device, id, proof, certificate, made, until, revoked"


class DevicesError(Exception):
    """What was asked is not in force, and nothing changed unless it says so; the message says why and what to do."""


class NoDevicesError(DevicesError):
    """Nobody added any device yet."""


def database_of(paths: StatePaths) -> Path:
    """The source of truth."""
    return paths.devices / "devices.sqlite"


def register_of(paths: StatePaths) -> Path:
    """The register that workers look into."""
    return paths.run / REGISTER_NAME


def new_token() -> str:
    """130 random bits as one label of a DNS name."""
    return b32encode(token_bytes(TOKEN_CHARACTERS * 5 // 8 + 1)).decode().lower()[:TOKEN_CHARACTERS]


def settle(paths: StatePaths) -> None:
    """Write the register as the database has it, whatever lies there; for the start of the server.

    Raises:
        DevicesError: It can not be read or written.
    """
    try:
        with opened(paths) as devices:
            devices.publish()
    except NoDevicesError:
        with _told(paths), contextlib.suppress(FileNotFoundError):
            register_of(paths).unlink()


@contextlib.contextmanager
def opened(paths: StatePaths, *, make: bool = False) -> Iterator["Devices"]:
    """The devices, as the account that the state folder belongs to.

    Args:
        make: Where there are none, begin.

    Raises:
        NoDevicesError: There are none, and none are to be made.
        DevicesError: They can not be read or written; also for whatever goes wrong with their files meanwhile.
    """
    with _told(paths), _as_owner(paths.root):
        if not make and not database_of(paths).exists():
            raise NoDevicesError("there are no devices yet; `interdict device add` adds one")
        devices = Devices(paths)
        try:
            yield devices
        finally:
            devices.close()


class Devices:
    """All devices; `opened` gives it."""

    def __init__(self, paths: StatePaths) -> None:
        self._paths = paths
        for folder in (paths.root, paths.devices, paths.run):
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        path = database_of(paths)
        # SQLite gives the log and the index beside it the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        self._db = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        version = self._version()
        if version not in (0, SCHEMA_VERSION):
            raise DevicesError(
                f"{database_of(self._paths)}: the database has schema {version}, this version writes {SCHEMA_VERSION}; "
                f"move the file away, or run the version that made it"
            )
        if version == 0:
            self._db.execute("PRAGMA journal_mode = WAL")
            with self._locked():
                if self._version() == 0:
                    self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        self._db.execute("PRAGMA synchronous = FULL")  # who was told that a token is revoked may rely on it
        self._db.execute("PRAGMA foreign_keys = ON")
        if self._published() != self.serial():
            self.publish()

    def _version(self) -> int:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        return int(version)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    # ---- reading ----------------------------------------------------------------------------------------------------

    def serial(self) -> int:
        """Counts up with each change."""
        (serial,) = self._db.execute("SELECT serial FROM register").fetchone()
        return int(serial)

    def all(self) -> list[Enrolled]:
        """All devices, by name."""
        return self._read("ORDER BY name")

    def find(self, name: str) -> Enrolled:
        """A device.

        Raises:
            DevicesError: There is none of that name.
        """
        found = self._read("WHERE name = ?", name)
        if not found:
            # Not among all, of which there may be a hundred thousand.
            alike = self._db.execute("SELECT name FROM device WHERE name LIKE ? LIMIT 1000", (f"{name[:2]}%",))
            near = did_you_mean(name, [known for (known,) in alike])
            said = near if "did you mean" in near else "; `interdict device list` shows all"
            raise DevicesError(f"no device is called {shown(name)}{said}")
        return found[0]

    def _read(self, condition: str, *values: object) -> list[Enrolled]:
        held: dict[int, list[Credential]] = {}
        rows = f"SELECT number FROM device {condition}"
        sought = f"SELECT {_CREDENTIAL_COLUMNS} FROM credential WHERE device IN ({rows}) ORDER BY id"
        for device, id_, proof, certificate, made, until, revoked in self._db.execute(sought, values):
            held.setdefault(device, []).append(Credential(id_, Proof(proof), certificate, made, until, revoked))
        return [
            Enrolled(number, name, group, owner, serial, notes, created, revoked, tuple(held.get(number, ())))
            for number, name, group, owner, serial, notes, created, revoked in self._db.execute(
                f"SELECT {_DEVICE_COLUMNS} FROM device {condition}", values
            )
        ]

    # ---- changing ---------------------------------------------------------------------------------------------------

    def add(self, wanted: Wanted, at: float) -> Issued:
        """Add a device.

        Raises:
            DevicesError: Its name, serial, token or certificate is another device's.
        """
        with self._change():
            return self._add(wanted, at)

    def renew(self, name: str, token: str, certificates: Sequence[str], at: float, grace: float) -> Issued:
        """Give a device a token, a certificate, or both; a device that was revoked is back.

        Args:
            token: Of `new_token`: those it has hold for another `grace` seconds. Empty: those it has stay.

        Raises:
            DevicesError: There is no such device, or a certificate is another's.
        """
        with self._change():
            device = self.find(name)
            self._db.execute("UPDATE device SET revoked = NULL WHERE number = ?", (device.number,))
            if token:
                self._db.execute(
                    "UPDATE credential SET until = min(coalesce(until, ?1), ?1), revoked = iif(?2 > 0, NULL, ?3) "
                    "WHERE device = ?4 AND proof = ?5 AND revoked IS NULL",
                    (at + grace, grace, at, device.number, Proof.TOKEN),
                )
            self._prove(device.number, token, certificates, at)
            return Issued(device.name, device.group, device.serial, token)

    def revoke(self, names: Collection[str], at: float) -> list[Enrolled]:
        """Revoke devices with all that proves them; returns those that were not revoked before.

        Raises:
            DevicesError: One of them is not known; none is revoked then.
        """
        with self._change():
            found = [device for name in names if (device := self.find(name)).revoked is None]
            self._revoke([device.number for device in found], at)
            return found

    def revoke_credential(self, name: str, id_: int, at: float) -> Credential:
        """Revoke one credential of a device.

        Raises:
            DevicesError: It has no such credential in force.
        """
        with self._change():
            for credential in self.find(name).credentials:
                if credential.id == id_ and credential.revoked is None:
                    self._db.execute("UPDATE credential SET revoked = ? WHERE id = ?", (at, id_))
                    return credential
            raise DevicesError(f"{name} has no credential {id_} in force; `interdict device show` numbers them")

    def move(self, names: Collection[str], group: str) -> list[Enrolled]:
        """Move devices to a group; returns those that were in another.

        Raises:
            DevicesError: One of them is not known; none is moved then.
        """
        with self._change():
            found = [device for name in names if (device := self.find(name)).group != group]
            rows = [(group, device.number) for device in found]
            self._db.executemany("UPDATE device SET client_group = ? WHERE number = ?", rows)
            return found

    def rename(self, name: str, new: str) -> None:
        """Call a device otherwise.

        Raises:
            DevicesError: It is not known, or another is called so.
        """
        with self._change():
            device = self.find(name)
            self._check_free(new, "")
            self._db.execute("UPDATE device SET name = ? WHERE number = ?", (new, device.number))

    def import_(
        self,
        plan: Plan,
        at: float,
        keep: Callable[[Sequence[Issued]], None],
        *,
        with_tokens: bool = True,
        revoke_missing: bool = False,
        tell: Callable[[int], None] = lambda done: None,
    ) -> list[Issued]:
        """Carry out a plan.

        Args:
            keep: Is given the fresh tokens before anything is in force; what it raises undoes the import.
            tell: Is told now and then how many devices are done.

        Raises:
            DevicesError: Devices were changed since the plan was made, or one can not be added.
        """
        with self._change():
            if self.serial() != plan.serial:
                raise DevicesError("somebody else changed devices meanwhile; import again")
            # Out of each other's way first: two of them may have changed names or serials.
            aside = [(f"\0{device.number}", device.number) for device, _ in plan.updated]
            self._db.executemany("UPDATE device SET name = ?, serial = '' WHERE number = ?", aside)
            rows = [(one.name, one.serial, one.owner, one.group, device.number) for device, one in plan.updated]
            self._db.executemany(
                "UPDATE device SET name = ?, serial = ?, owner = ?, client_group = ? WHERE number = ?", rows
            )
            issued = []
            for i, one in enumerate(plan.added):
                token = one.token or (new_token() if with_tokens else "")
                wanted = Wanted(one.name, one.group, one.owner, one.serial, token=token)
                issued.append(self._add(wanted, at))
                if i % _TOLD_EVERY == 0:
                    tell(i)
            if revoke_missing:
                self._revoke([device.number for device in plan.missing], at)
            keep(issued)
            return issued

    def _add(self, wanted: Wanted, at: float) -> Issued:
        self._check_free(wanted.name, wanted.serial)
        row = (wanted.name, wanted.group, wanted.owner, wanted.serial, wanted.notes, at)
        number = self._db.execute(
            "INSERT INTO device (name, client_group, owner, serial, notes, created) VALUES (?, ?, ?, ?, ?, ?)", row
        ).lastrowid
        assert number is not None
        self._prove(number, wanted.token, wanted.certificates, at)
        return Issued(wanted.name, wanted.group, wanted.serial, wanted.token)

    def _prove(self, number: int, token: str, certificates: Sequence[str], at: float) -> None:
        if token:
            self._put(number, Proof.TOKEN, token, at)
        for name in certificates:
            self._put(number, Proof.CERTIFICATE, name, at)

    def _check_free(self, name: str, serial: str) -> None:
        sought = "SELECT name, name = ?1, revoked FROM device WHERE name = ?1 OR (serial = ?2 AND serial != '')"
        for known, is_name, revoked in self._db.execute(sought, (name, serial)):
            if not is_name:
                raise DevicesError(f"the serial {shown(serial)} is that of {known}; is it the same device?")
            mend = f"`interdict device renew {known}` brings it back" if revoked else "take another name"
            raise DevicesError(f"there is a device {known} already{', which was revoked' if revoked else ''}; {mend}")

    def _put(self, number: int, proof: Proof, value: str, at: float) -> None:
        digest = digest_of(proof, value)
        held = self._db.execute(
            "SELECT name FROM device JOIN credential c ON c.device = number WHERE digest = ? AND c.revoked IS NULL",
            (digest,),
        ).fetchone()
        if held is not None:
            what = f"the certificate {shown(value)}" if proof is Proof.CERTIFICATE else "this token"
            raise DevicesError(f"{what} is that of {held[0]}; revoke it there first")
        self._db.execute(
            "INSERT INTO credential (device, proof, digest, certificate, made) VALUES (?, ?, ?, ?, ?)",
            (number, proof, digest, value if proof is Proof.CERTIFICATE else "", at),
        )

    def _revoke(self, numbers: Sequence[int], at: float) -> None:
        rows = [(at, number) for number in numbers]
        self._db.executemany("UPDATE device SET revoked = ? WHERE number = ?", rows)
        self._db.executemany("UPDATE credential SET revoked = ? WHERE device = ? AND revoked IS NULL", rows)

    # ---- the register -----------------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Write the register as the database has it."""
        with self._locked():
            self._put_in_place(self._write_aside(self.serial()))

    def _published(self) -> int | None:
        try:
            return Register(memoryview(register_of(self._paths).read_bytes())).serial
        except (OSError, RegisterError):
            return None

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        with self._locked():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("UPDATE register SET serial = serial + 1")
                aside = self._write_aside(self.serial())
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            try:
                self._put_in_place(aside)
            except OSError as error:
                raise DevicesError(
                    f"the change is recorded, but not in force: {register_of(self._paths)} can not be replaced "
                    f"({error.strerror}); mend that, then `interdict device list` puts it in force"
                ) from error

    def _write_aside(self, serial: int) -> Path:
        path = register_of(self._paths).with_name("devices.new")
        octets = write_register(self._entries(), serial)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        return path

    def _entries(self) -> Iterator[Entry]:
        # Both in the order in which they lie, without a join: of 100,000 devices that takes half the time.
        rows = self._db.execute("SELECT number, name, client_group FROM device WHERE revoked IS NULL")
        devices = {number: Device(number, name, group) for number, name, group in rows}
        for digest, number, until in self._db.execute(
            "SELECT digest, device, until FROM credential NOT INDEXED WHERE revoked IS NULL"
        ):
            yield Entry(digest, devices[number], FOREVER if until is None else until)

    def _put_in_place(self, aside: Path) -> None:
        path = register_of(self._paths)
        aside.replace(path)
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        path = self._paths.devices / "lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            for _ in range(int(_WAIT_S / _LOOK_S)):
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(_LOOK_S)
            else:
                raise DevicesError("another `interdict device` is changing devices; try again when it is done")
            yield
        finally:
            os.close(fd)


@contextlib.contextmanager
def _told(paths: StatePaths) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise DevicesError(f"{database_of(paths)}: {error}; see who fills the disk or holds the file") from error
    except PermissionError as error:
        where = error.filename or paths.root
        raise DevicesError(f"no permission for {where}; be root, or the account that the server runs as") from None
    except OSError as error:
        raise DevicesError(f"{error.filename or paths.root}: {error.strerror}; see to the state folder") from error


@contextlib.contextmanager
def _as_owner(folder: Path) -> Iterator[None]:
    if os.geteuid() != 0 or not folder.exists() or (owner := folder.stat()).st_uid == 0:
        yield
        return
    group = os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
