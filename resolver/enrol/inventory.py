"""The devices as administrators list them: a table (CSV with a heading), or a document (`devices:` in YAML or JSON).

Columns and keys are the same: `name` and `token`; `group`, `serial`; for WireGuard `addresses` (in a table separated by
spaces) and `wireguard_key`; for IKEv2 `identity`, a file with certificate and key (PKCS #12).
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_interface
from typing import Annotated

from resolver.enrol.profile import Device, EnrolError, Interface, parse_key, parse_token
from resolver.policy.source import Document, Page, PolicyError, Problem, Written, did_you_mean, read_page, shown
from resolver.policy.values import ShortText

COLUMNS = ("name", "token", "group", "serial", "addresses", "wireguard_key", "identity")

Identity = Callable[[str], bytes]
"""Gives the octets of an identity file that an inventory names."""


def _parse_text(parse: Callable[[str], str]) -> Callable[[object], str]:
    def parse_text(written: object) -> str:
        if not isinstance(written, str):
            raise ValueError(f"this is {shown(written)}, not text; put it in quotes")
        return parse(written)

    return parse_text


def _parse_interface(written: object) -> Interface:
    try:
        if isinstance(written, str):
            return ip_interface(written)
    except ValueError:
        pass
    raise ValueError(f'{shown(written)} is no address; write "10.9.0.7/32" or "2001:db8::7/128", in quotes')


class DeviceDocument(Document):
    """One device; `Device` says what each value is for."""

    name: ShortText
    token: Annotated[str, Written(_parse_text(parse_token), {"type": "string"})] | None = None
    group: ShortText | None = None
    serial: ShortText | None = None
    addresses: tuple[Annotated[Interface, Written(_parse_interface, {"type": "string"})], ...] = ()
    wireguard_key: Annotated[str, Written(_parse_text(parse_key), {"type": "string"})] | None = None
    identity: ShortText | None = None


class InventoryDocument(Document):
    """`devices`: all of them."""

    devices: tuple[DeviceDocument, ...]


def read_document(text: bytes, source: str, identity: Identity) -> list[Device]:
    """Read an inventory in YAML, and so in JSON.

    Raises:
        PolicyError: With every problem, each with file, line and column.
        EnrolError: From `identity`.
    """
    problems: list[Problem] = []
    page = read_page(text, source, InventoryDocument, problems)
    if page is None:
        raise PolicyError(problems)
    problems += _repeated(page)
    if problems:
        raise PolicyError(problems)
    return [
        Device(
            name=found.name,
            token=found.token,
            group=found.group,
            serial=found.serial,
            interfaces=found.addresses,
            wireguard_key=found.wireguard_key,
            identity=None if found.identity is None else identity(found.identity),
        )
        for found in page.document.devices
    ]


def read_table(text: bytes, source: str, identity: Identity) -> list[Device]:
    """Read an inventory in CSV.

    Raises:
        PolicyError: With every problem, each with file and line.
        EnrolError: From `identity`.
    """
    problems: list[Problem] = []
    devices: list[Device] = []
    first_lines: dict[tuple[str, str], int] = {}
    for line, row in _rows(text, source, problems):
        try:
            device = _device(row, identity)
        except EnrolError as error:
            problems.append(Problem(source, line, 1, str(error)))
            continue
        devices.append(device)
        for column, found in (("name", device.name), ("token", device.token)):
            if found is not None and (first := first_lines.setdefault((column, found), line)) != line:
                problems.append(Problem(source, line, 1, f"{shown(found)} is on line {first} too; keep one of them"))
    if problems:
        raise PolicyError(problems)
    return devices


def _rows(text: bytes, source: str, problems: list[Problem]) -> Iterator[tuple[int, Mapping[str, str]]]:
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        problems.append(Problem(source, line, 1, "this is not UTF-8; save the file as UTF-8"))
        return
    reader = csv.reader(io.StringIO(decoded, newline=""), strict=True)
    try:
        heading = [column.strip().lower() for column in next(reader, [])]
        unknown = [column for column in heading if column not in COLUMNS]
        for column in unknown:
            problems.append(
                Problem(source, 1, 1, f"the column {shown(column)} is unknown{did_you_mean(column, COLUMNS)}")
            )
        if "name" not in heading or len(set(heading)) != len(heading):
            problems.append(Problem(source, 1, 1, "the first line must name each column once, and one of them `name`"))
        if problems:
            return
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) > len(heading):
                problems.append(
                    Problem(source, reader.line_num, 1, f"{len(row)} cells under {len(heading)} headings; delete some")
                )
                continue
            yield reader.line_num, dict(zip(heading, (cell.strip() for cell in row), strict=False))
    except csv.Error as error:
        problems.append(Problem(source, reader.line_num, 1, f"this is not CSV ({error}); check the quotes"))


def _device(row: Mapping[str, str], identity: Identity) -> Device:
    try:
        interfaces = tuple(_parse_interface(address) for address in row.get("addresses", "").split())
    except ValueError as error:
        raise EnrolError(str(error)) from None
    path = row.get("identity", "")
    return Device(
        name=row.get("name", ""),
        token=row.get("token") or None,
        group=row.get("group") or None,
        serial=row.get("serial") or None,
        interfaces=interfaces,
        wireguard_key=row.get("wireguard_key") or None,
        identity=identity(path) if path else None,
    )


def _repeated(page: Page[InventoryDocument]) -> Iterator[Problem]:
    for key in ("name", "token"):
        seen: set[str] = set()
        for i, device in enumerate(page.document.devices):
            found = device.name if key == "name" else device.token
            if found is not None and found in seen:
                yield page.problem(("devices", i, key), f"{shown(found)} is another device's too; keep one of them")
            seen.add(found or "")
