"""Exports of device management: each maker's columns, every coding, and every bad line told."""

import contextlib
import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.enrol.exports import Column, Export, Listed, one_line, read_export
from resolver.policy.source import PolicyError

TOKEN = "abcdefghijklmnopqrstuvwx23"


def read(text: str | bytes, chosen: Mapping[Column, str] | None = None) -> Export:
    return read_export(text.encode() if isinstance(text, str) else text, "export", chosen or {})


@pytest.mark.parametrize(
    ("text", "kind", "listed"),
    [
        (
            '"Device ID","Device name","Managed by","OS","Serial number","Primary user UPN"\n'
            '"1f","JDOE-PC","Intune","Windows","S1","jdoe@example.org"\n',
            "Microsoft Intune",
            Listed(2, "JDOE-PC", "S1", "jdoe@example.org"),
        ),
        (
            "DeviceName,SerialNumber,UPN\nJDOE-PC,S1,jdoe@example.org\n",
            "Microsoft Intune",
            Listed(2, "JDOE-PC", "S1", "jdoe@example.org"),
        ),
        (
            "Display Name,Serial Number,Username,Model\niPad of J,S1,jdoe,iPad\n",
            "Jamf Pro",
            Listed(2, "iPad of J", "S1", "jdoe"),
        ),
        ("Computer Name,Serial Number\nmac-1,S1\n", "Jamf Pro", Listed(2, "mac-1", "S1")),
        (
            "Friendly Name,Serial Number,Email Address\nphone 7,S1,jdoe@example.org\n",
            "Workspace ONE UEM",
            Listed(2, "phone 7", "S1", "jdoe@example.org"),
        ),
        (
            "Device Name,Name,Email,Type,First Sync,Last Sync,Serial Number (mandatory)\n"
            ",J. Doe,jdoe@example.org,Android,a,b,S1\n",
            "Google Workspace",
            Listed(2, "S1", "S1", "jdoe@example.org"),
        ),
        (
            f"name,token,group,serial\nphone-7,{TOKEN},phones,S1\n",
            "the inventory of this house",
            Listed(2, "phone-7", "S1", "", "phones", TOKEN),
        ),
        ("Name;Owner;Group\nphone-7;jdoe;phones\n", "a table of devices", Listed(2, "phone-7", "", "jdoe", "phones")),
    ],
)
def test_a_table_of_each_maker_is_read(text: str, kind: str, listed: Listed) -> None:
    """By the names of its columns."""
    export = read(text)

    assert (export.kind, export.devices, export.problems) == (kind, (listed,), ())


@pytest.mark.parametrize(
    ("document", "kind", "listed"),
    [
        (
            {"value": [{"id": "1", "deviceName": "pc-1", "serialNumber": "S1", "userPrincipalName": "j@example.org"}]},
            "Microsoft Intune",
            Listed(1, "pc-1", "S1", "j@example.org"),
        ),
        (
            {
                "mobile_devices": [
                    {"name": "x", "device_name": "pad", "udid": "u", "serial_number": "S1", "username": "j"}
                ]
            },
            "Jamf Pro",
            Listed(1, "pad", "S1", "j"),
        ),
        (
            {
                "totalCount": 1,
                "results": [
                    {
                        "general": {"displayName": "pad"},
                        "hardware": {"serialNumber": "S1"},
                        "userAndLocation": {"username": "j"},
                    }
                ],
            },
            "Jamf Pro",
            Listed(1, "pad", "S1", "j"),
        ),
        (
            {"Devices": [{"DeviceFriendlyName": "ph", "SerialNumber": "S1", "UserEmailAddress": "j@x"}], "Total": 1},
            "Workspace ONE UEM",
            Listed(1, "ph", "S1", "j@x"),
        ),
        (
            {"devices": [{"name": "enterprises/E/devices/D", "hardwareInfo": {"serialNumber": "S1"}, "userName": "u"}]},
            "Google Android Management",
            Listed(1, "S1", "S1", "u"),
        ),
        (
            {
                "kind": "k",
                "mobiledevices": [
                    {"name": ["J. Doe"], "email": ["j@x"], "serialNumber": "S1", "firstSync": "a", "lastSync": "b"}
                ],
            },
            "Google Workspace",
            Listed(1, "S1", "S1", "j@x"),
        ),
        ([{"name": "phone-7", "serial": 17}], "a table of devices", Listed(1, "phone-7", "17")),
    ],
)
def test_a_document_of_each_maker_is_read(document: object, kind: str, listed: Listed) -> None:
    """Wherever in it the list stands."""
    export = read(json.dumps(document))

    assert (export.kind, export.devices, export.problems, export.is_partial) == (kind, (listed,), (), False)


@pytest.mark.parametrize(
    "octets",
    [
        "name,serial\nBüro,S1\n".encode("utf-8-sig"),
        "name,serial\nBüro,S1\n".encode("utf-16"),
        "name,serial\nBüro,S1\n".encode("utf-16-le"),
        "name,serial\nBüro,S1\n".encode("utf-16-be"),
        "name;serial\r\nBüro;S1\r\n".encode(),
        "name\tserial\nBüro\tS1\n".encode(),
        'sep=;\r\n"name";"serial"\r\n"Büro";"S1"\r\n'.encode(),
        "name,serial\n\n  Büro\u00a0 , S1 \n".encode(),
        json.dumps([{"name": "Büro", "serial": "S1"}]).encode("utf-16"),
        b'\xef\xbb\xbf [ {"name": "B\\u00fcro", "serial": "S1"} ] ',
    ],
)
def test_every_coding_and_delimiter_is_read(octets: bytes) -> None:
    """With a mark at the beginning or without, as spreadsheets and consoles write them."""
    assert [(one.name, one.serial) for one in read(octets).devices] == [("Büro", "S1")]


def test_what_was_read_is_told() -> None:
    """Which column is which, and which nobody reads."""
    export = read("Device name,Serial number,OS,Primary user UPN\npc,S1,Windows,j\n")

    assert export.used == {
        Column.NAME: ("Device name",), Column.SERIAL: ("Serial number",), Column.OWNER: ("Primary user UPN",)
    }  # fmt: skip
    assert export.passed_over == ("OS",)


def test_the_administrator_may_name_columns() -> None:
    """In place of those that are known."""
    chosen = {Column.NAME: "asset tag", Column.GROUP: "Unit"}

    (found,) = read("Device name,Asset Tag,Unit\npc,A-7,phones\n", chosen).devices

    assert (found.name, found.group) == ("A-7", "phones")


def test_bad_lines_are_told_and_the_others_read() -> None:
    """Each with its line, and how to mend it."""
    export = read(
        "name,serial,token\n"
        "a,S1,\n"
        ",S2,\n"
        "a,S3,\n"
        "b,S1,\n"
        "c,S4\n"
        '"d\x1b[2J",S5,\n'
        f"{'x' * 300},S6,\n"
        "e,S7,k3v9\n"
        f"f,S8,{TOKEN}\n"
        f"g,S9,{TOKEN}\n"
    )

    assert [one.name for one in export.devices] == ["a", "f"]
    assert [(one.line, one.message) for one in export.problems] == [
        (3, "the device has no name; give it one, or take another column with --name-column"),
        (4, 'the name "a" is on line 2 too; keep one of them, or take another column with --name-column'),
        (5, 'the serial "S1" is on line 2 too; keep one of them, or take another column with --serial-column'),
        (6, "this is no device: 2 cells under 3 headings"),
        (7, '"d\\x1b[2J" is not a short text; write at most 255 characters on one line'),
        (8, f'"{"x" * 57}..." is not a short text; write at most 255 characters on one line'),
        (9, "this is no token of ours, which are 26 of a-z and 2-7; leave the cell empty for a fresh one"),
        (11, "the token is on line 10 too; keep one of them"),
    ]


def test_bad_entries_of_a_document_have_their_line() -> None:
    """As editors count them."""
    export = read('{"value": [\n  {"deviceName": "a"},\n  "b",\n  {"deviceName": null},\n  {"deviceName": "a"}\n]}')

    assert [one.name for one in export.devices] == ["a"]
    assert [one.line for one in export.problems] == [3, 4, 5]


@pytest.mark.parametrize(
    "document",
    [
        {"value": [{"deviceName": "a"}], "@odata.nextLink": "https://example.org/next"},
        {"devices": [{"deviceName": "a"}], "nextPageToken": "x"},
        {"totalCount": 2, "results": [{"deviceName": "a"}]},
        {"Devices": [{"DeviceFriendlyName": "a"}], "Total": 500},
    ],
)
def test_one_page_of_several_is_noticed(document: object) -> None:
    """So that nobody takes what is on the next one for missing."""
    assert read(json.dumps(document)).is_partial


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "export:1:1: there is no heading"),
        (b"\n\n", "export:1:1: there is no heading"),
        (b"name,Name\n", 'export:1:1: two columns are called "name"'),
        (
            b"colour,size\nred,7\n",
            "export:1:1: no column is known to hold the names; name it with --name-column",
        ),
        (b'name\n"a\n', "export:2:1: this is not CSV"),
        (b"name\n\xff\xffb\xfcro\n", "export:2:1: this is neither UTF-8 nor UTF-16"),
        (b'{"value": [\n{"deviceName": ]}', "export:2:1: this is not JSON (Expecting value)"),
        (b'{"value": [{}] x}', "export:1:1: this is not JSON"),
        (b'{"value": [{},]}', "export:1:1: this is not JSON (a comma stands before the end)"),
        (b'{"value": [{}]} {}', "export:1:1: this is not JSON (something follows the end)"),
        (b'{"value": 7}', "export:1:1: there is no list of devices"),
        (b"[" * 100_000, "export:1:1: this is not JSON"),
    ],
)
def test_what_can_not_be_used_is_refused(text: bytes, said: str) -> None:
    """With the line, and what to do."""
    with pytest.raises(PolicyError) as error:
        read(text)

    assert str(error.value).startswith(said)


def test_a_column_that_is_not_there_is_told() -> None:
    """With the nearest that is."""
    with pytest.raises(PolicyError, match='there is no column "Serial Nr"; did you mean "Serial No"'):
        read("name,Serial No\na,1\n", {Column.SERIAL: "Serial Nr"})


def test_an_empty_export_lists_nobody() -> None:
    """Which is no mistake of its form."""
    assert read("name,serial\n").devices == read('{"value": []}').devices == ()


def test_a_list_of_something_else_is_passed_over() -> None:
    """The devices are the first list of keys and values."""
    assert [one.name for one in read('{"errors": [], "tags": ["x"], "value": [{"deviceName": "a"}]}').devices] == ["a"]


@pytest.mark.parametrize("text", ["a\nb", "\x00", "x" * 256, "é" * 128])
def test_what_acts_on_terminals_is_no_name(text: str) -> None:
    """Nor what is long."""
    with pytest.raises(ValueError, match="not a short text"):
        one_line(text)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.text('abn,;\n"{}[]: ', max_size=80).map(str.encode),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda below: (
                st.lists(below, max_size=4)
                | st.dictionaries(st.sampled_from(["value", "name", "deviceName", "serialNumber"]), below, max_size=4)
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_any_octets_are_read_or_refused(octets: bytes) -> None:
    """Whatever they are, nothing else is raised, and no name comes twice."""
    with contextlib.suppress(PolicyError):
        export = read(octets)
        names = [one.name for one in export.devices]
        assert len(set(names)) == len(names)
        assert all(names)
