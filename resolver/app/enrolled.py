"""What is kept of devices, as values, and what an export of device management changes about them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from resolver.policy.register import Proof
from resolver.policy.source import shown

if TYPE_CHECKING:
    from resolver.enrol.exports import Listed  # of the command alone; what else it brings, the server has no use for


@dataclass(frozen=True, slots=True)
class Credential:
    """What proves a device. `certificate` is the name in a certificate, empty of a token; `until` None has no end."""

    id: int
    proof: Proof
    certificate: str
    made: float
    until: float | None
    revoked: float | None

    def is_in_force(self, at: float) -> bool:
        """Whether it proves anything at a moment (Unix seconds)."""
        return self.revoked is None and (self.until is None or at < self.until)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A device as it is kept. `revoked` is when it was, or None."""

    number: int
    name: str
    group: str
    owner: str
    serial: str
    notes: str
    created: float
    revoked: float | None
    credentials: tuple[Credential, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A device to be; `token` is of `new_token`, or empty where certificates alone prove it."""

    name: str
    group: str
    owner: str = ""
    serial: str = ""
    notes: str = ""
    certificates: tuple[str, ...] = ()
    token: str = ""


@dataclass(frozen=True, slots=True)
class Issued:
    """A device that was added or renewed, with its token: the one time that it is seen. Empty where it has none."""

    name: str
    group: str
    serial: str
    token: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What an import would do.

    Attributes:
        serial: Of the devices that it was made for.
        added: New devices.
        updated: Those that are known, and listed otherwise.
        same: How many are listed as they are known.
        revoked: Those that are listed and were revoked, and stay so.
        missing: Those of the groups of this import that are no longer listed.
        held: How many devices these groups have.
        problems: What can not be taken, and why.
    """

    serial: int
    added: "tuple[Listed, ...]"
    updated: "tuple[tuple[Enrolled, Listed], ...]"
    same: int
    revoked: tuple[Enrolled, ...]
    missing: tuple[Enrolled, ...]
    held: int
    problems: "tuple[tuple[Listed, str], ...]"


def plan_import(held: Sequence[Enrolled], serial: int, listed: "Sequence[Listed]") -> Plan:
    """Compare what an export lists with what is known: by serial number, else by name.

    A known device keeps its tokens whatever is listed, so that importing twice changes nothing.

    Args:
        held: All devices.
        serial: Of these.
        listed: Those of the export, each with its group, each name and serial once.
    """
    by_serial = {device.serial: device for device in held if device.serial}
    by_name = {device.name: device for device in held}
    matched = {i: device for i, one in enumerate(listed) if (device := by_serial.get(one.serial)) is not None}
    taken = {device.number for device in matched.values()}
    for i, one in enumerate(listed):
        device = by_name.get(one.name)
        if i not in matched and device is not None and device.number not in taken:
            matched[i] = device
            taken.add(device.number)
    # A name or serial is free where nobody has it, or who has it is listed, and so has another one afterwards or is
    # this very device.
    names = {device.name: device.number for device in held if device.number not in taken or device.revoked is not None}
    added: list[Listed] = []
    updated: list[tuple[Enrolled, Listed]] = []
    revoked: list[Enrolled] = []
    problems: list[tuple[Listed, str]] = []
    same = 0
    for i, one in enumerate(listed):
        device = matched.get(i)
        if device is not None and device.revoked is not None:
            revoked.append(device)
        elif names.get(one.name) is not None:
            problems.append((one, f"another device is called {shown(one.name)}; rename one of them"))
        elif device is None:
            added.append(one)
        elif _as_listed(device, one) == (device.name, device.serial, device.owner, device.group):
            same += 1
        else:
            name, serial_, owner, group = _as_listed(device, one)
            updated.append((device, replace(one, name=name, serial=serial_, owner=owner, group=group, token="")))
    groups = {one.group for one in listed}
    in_groups = [device for device in held if device.group in groups and device.revoked is None]
    missing = tuple(device for device in in_groups if device.number not in taken)
    return Plan(serial, tuple(added), tuple(updated), same, tuple(revoked), missing, len(in_groups), tuple(problems))


def _as_listed(device: Enrolled, one: "Listed") -> tuple[str, str, str, str]:
    """What the export does not say stays as it is."""
    return one.name, one.serial or device.serial, one.owner or device.owner, one.group
