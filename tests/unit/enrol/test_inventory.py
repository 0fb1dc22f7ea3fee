"""The inventory: the same devices from a table and from a document, and every mistake at its place."""

import contextlib
import csv
import io
import json
from collections.abc import Callable
from ipaddress import ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.enrol.inventory import COLUMNS, read_document, read_table
from resolver.enrol.profile import Device
from resolver.policy.source import PolicyError
from tests.support.enrolled import KEY

DEVICES = [
    Device(
        name="phone-7",
        token="k3v9",
        group="phones",
        serial="S1",
        interfaces=(ip_interface("10.9.0.7/32"), ip_interface("2001:db8:9::7/128")),
        wireguard_key=KEY,
        identity=b"id.p12",
    ),
    Device(name='Büro "Ost", 2. Stock'),
]


def table(text: str) -> list[Device]:
    return read_table(text.encode(), "devices.csv", str.encode)


def test_a_table_lists_devices() -> None:
    """One line for each; what is empty is not known; cells may be quoted."""
    assert (
        table(
            "name,token,group,serial,addresses,wireguard_key,identity\n"
            f"phone-7,k3v9,phones,S1,10.9.0.7/32 2001:db8:9::7/128,{KEY},id.p12\n"
            "\n"
            '"Büro ""Ost"", 2. Stock",,,,,,\n'
        )
        == DEVICES
    )


def test_a_document_lists_the_same() -> None:
    """YAML, and so JSON."""
    written = {
        "devices": [
            {
                "name": "phone-7",
                "token": "k3v9",
                "group": "phones",
                "serial": "S1",
                "addresses": ["10.9.0.7/32", "2001:db8:9::7/128"],
                "wireguard_key": KEY,
                "identity": "id.p12",
            },
            {"name": 'Büro "Ost", 2. Stock'},
        ]
    }

    assert read_document(json.dumps(written).encode(), "devices.json", str.encode) == DEVICES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,tokne\nx,y\n", 'devices.csv:1:1: the column "tokne" is unknown; did you mean "token"?'),
        ("token\nx\n", "devices.csv:1:1: the first line must name each column once, and one of them `name`"),
        ("name,name\nx,y\n", "devices.csv:1:1: the first line"),
        ("", "devices.csv:1:1: the first line"),
        ("name,token\nx,Y\n", 'devices.csv:2:1: "Y" is no token'),
        ("name,token\n,y\n", "devices.csv:2:1: a device has no name"),
        ("name,addresses\nx,vpn\n", 'devices.csv:2:1: "vpn" is no address'),
        ("name,token\nx,a\ny,a\n", 'devices.csv:3:1: "a" is on line 2 too'),
        ("name,token\nx,a\n\nx,b\n", 'devices.csv:4:1: "x" is on line 2 too'),
        ("name\nx,y\n", "devices.csv:2:1: 2 cells under 1 headings"),
        ('name\n"x\n', "is not CSV"),
    ],
)
def test_a_mistake_in_a_table_is_told_at_its_line(text: str, said: str) -> None:
    """With what to do about it."""
    with pytest.raises(PolicyError) as caught:
        table(text)

    assert said in str(caught.value)


def test_octets_that_are_no_text_are_told() -> None:
    """The line is that of the first such octet."""
    with pytest.raises(PolicyError, match=r"devices\.csv:2:1: this is not UTF-8"):
        read_table(b"name\n\xff\n", "devices.csv", str.encode)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("devices:\n  - {name: x, token: Y}\n", 'd.yaml:2:22: "Y" is no token'),
        ("devices:\n  - {name: x, token: a}\n  - {name: y, token: a}\n", 'd.yaml:3:22: "a" is another device\'s too'),
        ("devices:\n  - {name: x}\n  - {name: x}\n", 'd.yaml:3:12: "x" is another'),
        ("devices:\n  - {name: x, addresses: [vpn]}\n", 'd.yaml:2:27: "vpn" is no address'),
        ("devices:\n  - {name: x, token: 1}\n", "d.yaml:2:22: this is 1, not text"),
    ],
)
def test_a_mistake_in_a_document_is_told_at_its_column(text: str, said: str) -> None:
    """As in all other documents."""
    with pytest.raises(PolicyError) as caught:
        read_document(text.encode(), "d.yaml", str.encode)

    assert said in str(caught.value)


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(str.strip).filter(bool),
        unique=True,
    )
)
def test_any_names_come_back_from_a_table(names: list[str]) -> None:
    """Names with commas, quotes and line ends are read as the csv module writes them."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerows([["name"], *([name] for name in names)])

    assert [device.name for device in table(out.getvalue())] == names


@given(st.binary(), st.sampled_from([read_table, read_document]))
def test_any_octets_are_read_or_refused(octets: bytes, read: Callable[..., list[Device]]) -> None:
    """An inventory is read, or its problems are told; nothing else happens."""
    for text in (octets, ",".join(COLUMNS).encode() + b"\n" + octets):
        with contextlib.suppress(PolicyError):
            assert isinstance(read(text, "devices", lambda name: b""), list)
