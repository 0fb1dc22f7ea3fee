"""The devices as device management lists them: exports in CSV and JSON, each with columns of its own.

What is known of each, from its maker's pages and from those who read it:

- Microsoft Intune: CSV of all devices with `Device name`, `Serial number`, `Primary user UPN`; reports by Graph with
  `DeviceName`, `SerialNumber`, `UPN`; `managedDevices` in JSON with `deviceName`, `serialNumber`, `userPrincipalName`
  below `value` (learn.microsoft.com/graph/api/intune-devices-manageddevice-list and
  learn.microsoft.com/mem/intune/fundamentals/reports-export-graph-available-reports).
- Jamf Pro: searches in CSV with `Display Name` or `Computer Name`, `Serial Number`, `Username`; the Classic API with
  `mobile_devices` (`name`, `device_name`, `serial_number`, `username`), the Pro API with `results` (`general`,
  `hardware`, `userAndLocation`) (developer.jamf.com/jamf-pro/reference; rubydoc.info/gems/ruby-jss/Jamf/MobileDevice).
- Workspace ONE UEM: lists in CSV with `Friendly Name`, the API with `DeviceFriendlyName`, `SerialNumber`,
  `UserEmailAddress`, `UserName` below `Devices`
  (docs.pingidentity.com/integrations/workspaceone-uem/pf_workspaceone_uem_ik_supported_attributes_reference.html).
- Google: the Android Management API with `devices` (`name`, `hardwareInfo.serialNumber`, `userName`)
  (developers.google.com/android/management/reference/rest/v1/enterprises.devices); the Directory API with
  `serialNumber`, `email`, `firstSync`, `lastSync`, and lists in CSV with `Device Name`, `Serial Number (mandatory)`,
  where `name` is the owner's (developers.google.com/workspace/admin/directory/reference/rest/v1/mobiledevices). A
  device without a name of its own takes its serial number for one.
- The inventory of this house: `name`, `token`, `group`, `serial`, `owner`.

Anything else with a heading is read by the names of its columns, or by those that the administrator names. Letter case,
blanks and underscores in a column's name do not count. What stands deeper in JSON has its way for a name, with dots.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Final

from resolver.policy.source import PolicyError, Problem, did_you_mean, shown

MOST_OCTETS: Final = 255  # of a name, serial or owner, as in the configuration
_BLANKS = " \t\r\n"  # of JSON (RFC 8259 §2)
_DEEPEST = 4  # keys to a value in JSON; the exports that are known need two
_TOKEN = re.compile("[a-z2-7]{26}")  # what `interdict device` gives out
_DELIMITERS = (",", ";", "\t")
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n")  # what Excel writes, and reads, above the heading
_NEXT_PAGE = ("@odata.nextLink", "nextPageToken")
_TOTAL = ("totalCount", "Total", "@odata.count")


class Column(StrEnum):
    """What is read of a device."""

    NAME = "name"
    SERIAL = "serial"
    OWNER = "owner"
    GROUP = "group"
    TOKEN = "token"


@dataclass(frozen=True, slots=True)
class Listed:
    """A device as an export lists it; empty where the export does not say. `line` counts from 1."""

    line: int
    name: str
    serial: str = ""
    owner: str = ""
    group: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True)
class Export:
    """What an export holds.

    Attributes:
        kind: Whose it was taken for.
        devices: All that can be used, each name and serial once.
        problems: What is wrong with the others, each with its line.
        used: Of which columns what was read.
        passed_over: The other columns.
        is_partial: It says of itself that there are more devices than it lists.
    """

    kind: str
    devices: tuple[Listed, ...]
    problems: tuple[Problem, ...]
    used: Mapping[Column, tuple[str, ...]]
    passed_over: tuple[str, ...]
    is_partial: bool


@dataclass(frozen=True, slots=True)
class _Layout:
    """How one kind of export names its columns: of several for one thing the first that says something counts.

    `marks` are sets of columns; a table that has all of one set is of this kind.
    """

    kind: str
    marks: tuple[frozenset[str], ...]
    columns: Mapping[Column, tuple[str, ...]]


def _layout(kind: str, marks: Sequence[str], **columns: str) -> _Layout:
    return _Layout(
        kind,
        tuple(frozenset(mark.split()) for mark in marks),
        {Column(name): tuple(written.split()) for name, written in columns.items()},
    )


# In the order in which they are tried: the more particular first.
_LAYOUTS = (
    _layout(
        "the inventory of this house", ["name token"],
        name="name", serial="serial", owner="owner", group="group", token="token",
    ),
    _layout(
        "Google Android Management", ["hardwareinfo.serialnumber"],
        name="hardwareinfo.serialnumber name", serial="hardwareinfo.serialnumber", owner="username",
    ),
    _layout(
        "Google Workspace", ["firstsync lastsync"],
        name="devicename serialnumber serialnumbermandatory deviceid resourceid",
        serial="serialnumber serialnumbermandatory", owner="email name",
    ),
    _layout(
        "Workspace ONE UEM", ["devicefriendlyname", "friendlyname"],
        name="devicefriendlyname friendlyname", serial="serialnumber",
        owner="useremailaddress emailaddress email username user",
    ),
    _layout(
        "Jamf Pro", ["computername", "displayname username", "devicename udid", "general.name", "general.displayname"],
        name="displayname computername general.displayname general.name devicename name",
        serial="serialnumber hardware.serialnumber",
        owner="username userandlocation.username emailaddress email userandlocation.emailaddress userandlocation.email",
    ),
    _layout(
        "Microsoft Intune", ["devicename"],
        name="devicename", serial="serialnumber",
        owner="primaryuserupn userprincipalname upn primaryuseremailaddress useremail emailaddress",
    ),
    _layout(
        "a table of devices", [""],
        name="name hostname displayname device", serial="serial serialnumber", owner="owner email user username",
        group="group",
    ),
)  # fmt: skip

_MENDS = {
    Column.NAME: "--name-column",
    Column.SERIAL: "--serial-column",
    Column.OWNER: "--owner-column",
    Column.GROUP: "--group-column",
}


def read_export(text: bytes, source: str, chosen: Mapping[Column, str]) -> Export:
    """Read an export.

    Args:
        text: CSV or JSON, in UTF-8 or UTF-16.
        source: What to call it in messages.
        chosen: Columns that the administrator names, in place of those that are known.

    Raises:
        PolicyError: Nothing of it can be used.
    """
    decoded = _decode(text, source)
    if decoded.lstrip(_BLANKS)[:1] in ("{", "["):
        rows, is_partial = _read_json(decoded, source)
    else:
        rows, is_partial = _read_table(decoded, source), False
    columns: dict[str, str] = {}
    for row in rows:
        for column in row.cells:
            columns.setdefault(_plain(column), column)
    layout = next(one for one in _LAYOUTS if any(marks <= columns.keys() for marks in one.marks))
    wanted = {
        column: (_plain(chosen[column]),) if column in chosen else layout.columns.get(column, ()) for column in Column
    }
    if rows:
        _check_columns(wanted, chosen, columns, source)
    reader = _Reader(source, wanted)
    for row in rows:
        reader.read(row)
    used = {
        column: found for column, names in wanted.items() if (found := tuple(columns[n] for n in names if n in columns))
    }
    read = {name for names in used.values() for name in names}
    passed_over = tuple(column for column in columns.values() if column not in read)
    return Export(layout.kind, tuple(reader.devices), tuple(reader.problems), used, passed_over, is_partial)


def one_line(written: str) -> str:
    """A name, serial or owner: one line of text that acts on no terminal.

    Raises:
        ValueError: Anything else, with what to write instead.
    """
    if len(written.encode("utf-8", "replace")) > MOST_OCTETS or not written.isprintable():
        raise ValueError(f"{shown(written)} is not a short text; write at most {MOST_OCTETS} characters on one line")
    return written


# ---- octets to rows -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: Mapping[str, str]
    problem: str = ""


def _decode(text: bytes, source: str) -> str:
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        coding = "utf-16"
    elif text[1:2] == b"\0" or text[:1] == b"\0":
        # UTF-16 without a mark at its beginning: a heading and JSON both begin with a character of ASCII.
        coding = "utf-16-le" if text[1:2] == b"\0" else "utf-16-be"
    else:
        coding = "utf-8-sig"
    try:
        return text.decode(coding)
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        raise _refused(source, line, "this is neither UTF-8 nor UTF-16; save the file as UTF-8") from None


def _refused(source: str, line: int, message: str) -> PolicyError:
    return PolicyError([Problem(source, line, 1, message)])


def _read_table(text: str, source: str) -> list[_Row]:
    skipped = 0
    delimiter = None
    if (found := _SEPARATOR_LINE.match(text)) is not None:
        text, delimiter, skipped = text[found.end() :], found.group(1), 1
    delimiter = delimiter or max(_DELIMITERS, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[_Row] = []
    try:
        heading = [column.strip() for column in next(reader, [])]
        plain = [_plain(column) for column in heading]
        if not any(plain):
            raise _refused(source, 1, "there is no heading; the first line must name the columns")
        if twice := next((name for i, name in enumerate(plain) if name and name in plain[:i]), None):
            raise _refused(source, 1, f"two columns are called {shown(twice)}; keep one of them")
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            problem = "" if len(cells) == len(heading) else f"{len(cells)} cells under {len(heading)} headings"
            row = dict(zip(heading, (cell.strip() for cell in cells), strict=False))
            rows.append(_Row(reader.line_num + skipped, row, problem))
    except csv.Error as error:
        line = reader.line_num + skipped
        raise _refused(source, line, f"this is not CSV ({error}); check the quotes") from None
    return rows


def _read_json(text: str, source: str) -> tuple[list[_Row], bool]:
    reader = _JsonReader(text)
    try:
        reader.read()
    except json.JSONDecodeError as error:
        raise _refused(source, error.lineno, f"this is not JSON ({error.msg}); export it again") from None
    except (ValueError, RecursionError) as error:
        raise _refused(source, reader.line, f"this is not JSON ({error}); export it again") from None
    if reader.rows is None:
        raise _refused(source, 1, 'there is no list of devices; it stands at the top, or under a key such as "value"')
    rows = [
        _Row(line, dict(_flat(value)) if isinstance(value, dict) else {}, "" if isinstance(value, dict) else "no keys")
        for line, value in reader.rows
    ]
    total = max((n for key in _TOTAL if isinstance(n := reader.beside.get(key), int)), default=0)
    return rows, total > len(rows) or any(reader.beside.get(key) for key in _NEXT_PAGE)


class _JsonReader:
    """Takes a document apart as far as its list of devices, so that each of them has its line."""

    def __init__(self, text: str) -> None:
        self.rows: list[tuple[int, object]] | None = None
        self.beside: dict[str, object] = {}
        self.line = 1
        self._text = text
        self._counted = 0
        self._decoder = json.JSONDecoder()

    def read(self) -> None:
        """Read it all; the first list of objects is that of the devices."""
        place = self._skip(0)
        place = self._read_list(place) if self._at(place) == "[" else self._read_keys(place)
        if self._skip(place) != len(self._text):
            raise ValueError("something follows the end")

    def _read_keys(self, place: int) -> int:
        place = self._skip(place + 1)
        while self._at(place) != "}":
            key, place = self._decoder.raw_decode(self._text, place)
            place = self._skip(self._after(place, ":"))
            if self._at(place) == "[" and not self.rows:
                place = self._read_list(place)
            else:
                value, place = self._decoder.raw_decode(self._text, place)
                self.beside[str(key)] = value
            place = self._next(place, "}")
        return place + 1

    def _read_list(self, place: int) -> int:
        rows: list[tuple[int, object]] = []
        place = self._skip(place + 1)
        while self._at(place) != "]":
            line = self._line_of(place)
            value, place = self._decoder.raw_decode(self._text, place)
            rows.append((line, value))
            place = self._next(place, "]")
        if any(isinstance(value, dict) for _, value in rows) or (not rows and self.rows is None):
            self.rows = rows
        return place + 1

    def _next(self, place: int, end: str) -> int:
        place = self._skip(place)
        if self._at(place) == end:
            return place
        place = self._skip(self._after(place, ","))
        if self._at(place) == end:
            raise ValueError("a comma stands before the end")
        return place

    def _after(self, place: int, mark: str) -> int:
        place = self._skip(place)
        if self._at(place) != mark:
            self._line_of(place)
            raise ValueError(f"{mark!r} is missing")
        return place + 1

    def _at(self, place: int) -> str:
        return self._text[place : place + 1]

    def _skip(self, place: int) -> int:
        while self._text[place : place + 1] in _BLANKS and place < len(self._text):
            place += 1
        return place

    def _line_of(self, place: int) -> int:
        self.line += self._text.count("\n", self._counted, place)
        self._counted = place
        return self.line


def _flat(value: Mapping[str, object], way: str = "", depth: int = 1) -> Iterator[tuple[str, str]]:
    for key, below in value.items():
        if isinstance(below, list):
            below = next(iter(below), None)
        if isinstance(below, dict):
            if depth < _DEEPEST:
                yield from _flat(below, f"{way}{key}.", depth + 1)
        elif not isinstance(below, list):
            yield f"{way}{key}", "" if below is None else str(below).strip()


@lru_cache(maxsize=4096)
def _plain(column: str) -> str:
    return re.sub("[^a-z0-9.]", "", column.lower())


# ---- rows to devices ------------------------------------------------------------------------------------------------


def _check_columns(
    wanted: Mapping[Column, Sequence[str]], chosen: Mapping[Column, str], columns: Mapping[str, str], source: str
) -> None:
    for written in chosen.values():
        if _plain(written) not in columns:
            said = did_you_mean(written, columns.values())
            raise _refused(source, 1, f"there is no column {shown(written)}{said}")
    if not any(name in columns for name in wanted[Column.NAME]):
        said = did_you_mean("name", columns.values())
        raise _refused(source, 1, f"no column is known to hold the names; name it with {_MENDS[Column.NAME]}{said}")


@dataclass(slots=True)
class _Reader:
    """Reads rows, and keeps what is wrong with some of them."""

    source: str
    wanted: Mapping[Column, Sequence[str]]
    devices: list[Listed] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    _lines: dict[tuple[Column, str], int] = field(default_factory=dict)

    def read(self, row: _Row) -> None:
        try:
            self.devices.append(self._device(row))
        except ValueError as error:
            self.problems.append(Problem(self.source, row.line, 1, str(error)))

    def _device(self, row: _Row) -> Listed:
        if row.problem:
            raise ValueError(f"this is no device: {row.problem}")
        cells = {_plain(column): cell for column, cell in row.cells.items()}
        found = {
            column: one_line(" ".join(next((cells[name] for name in names if cells.get(name)), "").split()))
            for column, names in self.wanted.items()
        }
        if not found[Column.NAME]:
            raise ValueError(f"the device has no name; give it one, or take another column with {_MENDS[Column.NAME]}")
        if found[Column.TOKEN] and not _TOKEN.fullmatch(found[Column.TOKEN]):
            raise ValueError(
                "this is no token of ours, which are 26 of a-z and 2-7; leave the cell empty for a fresh one"
            )
        unique = [(c, found[c]) for c in (Column.NAME, Column.SERIAL, Column.TOKEN) if found[c]]
        for column, value in unique:
            if (first := self._lines.get((column, value))) is not None:
                mend = f", or take another column with {_MENDS[column]}" if column in _MENDS else ""
                what = "the token" if column is Column.TOKEN else f"the {column} {shown(value)}"
                raise ValueError(f"{what} is on line {first} too; keep one of them{mend}")
        self._lines.update(dict.fromkeys(unique, row.line))
        return Listed(row.line, **{str(column): value for column, value in found.items()})
