"""`interdict profile`: makes the profiles that point devices here, one or a whole inventory at a time, and checks them.

Service and devices come from files; `load_service` and `load_devices` are the one place that knows so. What holds a
token or key is written for its owner's eyes alone (mode 0600), and always whole or not at all.

What signs, draws and reads documents is imported when it is called: the verbs stand beside `serve`, which needs none.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from resolver.cli.main import profile
from resolver.cli.options import Broken, exit_codes, print_json, speaks_json
from resolver.enrol.lint import MOST_OCTETS, lint
from resolver.enrol.platforms import PLATFORMS, Platform
from resolver.enrol.profile import Device, EnrolError, File, Options, Profile, Protocol, Service, folder_of
from resolver.enrol.traps import Delivery, Trap
from resolver.policy.source import PolicyError, shown

if TYPE_CHECKING:
    from resolver.enrol.signing import Signer

_F = TypeVar("_F", bound=Callable[..., object])
_T = TypeVar("_T")

_PRIVATE, _OPEN = 0o600, 0o644
_UNUSABLE = "wrong usage, or a service or inventory that can not be used"
_MAKERS = exit_codes("a device of the inventory got no profile", _UNUSABLE)


@dataclass(frozen=True, slots=True)
class Made:
    """A device with the profile that was made for it."""

    device: Device
    profile: Profile


def load_service(path: Path) -> Service:
    """Read the service from its file; the files of authorities that it names lie beside it.

    Raises:
        Broken: Something is wrong with it, or it can not be read.
    """
    from resolver.enrol.service import read_service
    from resolver.enrol.signing import read_certificates

    return _or_refuse(
        lambda: read_service(_read(path), str(path), lambda name: _parsed(path.parent / name, read_certificates))
    )


def load_devices(path: Path) -> list[Device]:
    """Read the devices of an inventory: CSV by the file's name, else YAML or JSON.

    Raises:
        Broken: Something is wrong with it, or it can not be read.
    """
    from resolver.enrol.inventory import read_document, read_table

    reader = read_table if path.suffix.lower() == ".csv" else read_document
    return _or_refuse(lambda: reader(_read(path), str(path), lambda name: _read(path.parent / name)))


def make(platform: Platform, service: Service, device: Device, options: Options, signer: "Signer | None") -> Profile:
    """Make the profile of one device; signed where a signer is given.

    Raises:
        EnrolError: Something that the platform needs is missing.
    """
    profile = platform.make(service, device, options)
    if signer is None or not platform.can_be_signed:
        return profile
    return replace(profile, files=tuple(replace(file, octets=signer.sign(file.octets)) for file in profile.files))


def write(folder: Path, platform: str, made: Made) -> list[Path]:
    """Write a profile under FOLDER/DEVICE/PLATFORM, with its QR code as qr.png.

    Raises:
        Broken: A file can not be written.
    """
    from resolver.enrol import qr

    target = folder / folder_of(made.device.name) / platform
    files = list(made.profile.files)
    if made.profile.qr is not None:
        with contextlib.suppress(EnrolError):  # too long for a picture: the file is there all the same
            files.append(File("qr.png", qr.to_png(made.profile.qr), "image/png"))
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in files:
            _write_whole(target / file.name, file.octets, _PRIVATE if file.secret else _OPEN)
    except OSError as error:
        raise Broken(f"can not write {error.filename} ({error.strerror}); name another --out") from None
    return [target / file.name for file in files]


def _write_whole(path: Path, octets: bytes, mode: int) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with open(descriptor, "wb") as out:
        os.fchmod(descriptor, mode)
        out.write(octets)
    os.replace(aside, path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Broken(f"can not read {path} ({error.strerror}); name a file that is there") from None


def _read_signer(path: Path) -> "Signer":
    from resolver.enrol.signing import read_signer

    return _or_refuse(lambda: _parsed(path, read_signer))


def _parsed(path: Path, parse: Callable[[bytes], _T]) -> _T:
    try:
        return parse(_read(path))
    except EnrolError as error:
        raise EnrolError(f"{path}: {error}") from None


def _or_refuse(load: Callable[[], _T]) -> _T:
    try:
        return load()
    except (PolicyError, EnrolError) as error:
        raise Broken(str(error)) from None


# ---- the verbs ------------------------------------------------------------------------------------------------------


@profile.command("list", epilog=exit_codes())
@speaks_json
def list_(as_json: bool) -> None:
    """List the platforms, and how each names the device.

    \b
    Examples:
      interdict profile list
      interdict profile list --json | jq -r '.[].platform'
    """
    if as_json:
        listed = [{"platform": n, "title": p.title, "names_device_by": p.names_device_by} for n, p in PLATFORMS.items()]
        print_json(listed)
        return
    from resolver.cli import table

    rows = [(name, platform.title, platform.names_device_by) for name, platform in PLATFORMS.items()]
    table.show(table.table(("platform", "for", "names the device by"), rows))


@profile.command("lint", epilog=exit_codes("something was found", _UNUSABLE))
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--service", "service_file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="Compare addresses with those of this service.",
)  # fmt: skip
@click.option(
    "--delivery", type=click.Choice([d.value for d in Delivery]), default=Delivery.UNKNOWN.value, show_default=True,
    help="How the files come to the devices: some payloads act otherwise when an MDM installs them.",
)  # fmt: skip
@click.option("--traps", is_flag=True, help="List the traps that are looked for, and end.")
@speaks_json
def lint_(files: Sequence[Path], service_file: Path | None, delivery: str, traps: bool, as_json: bool) -> None:
    """Look for traps in profiles, of whatever origin.

    Signed profiles are read too; pictures are passed over. Exit code 1 where something was found.

    \b
    Examples:
      interdict profile lint --delivery mdm phone.mobileconfig
      interdict profile lint --service service.yaml profiles/*/*/*
    """
    if traps:
        from resolver.cli import table

        table.show(table.table(("trap", "what it does"), [(trap.word, trap.says) for trap in Trap]))
        return
    if not files:
        raise click.UsageError("name the files to check; `interdict profile lint --traps` lists what is looked for")
    service = load_service(service_file) if service_file is not None else None
    found = [
        (path, finding)
        for path in files
        if path.suffix.lower() != ".png"
        for finding in lint(_head(path), service, Delivery(delivery))
    ]
    if as_json:
        listed = [
            {
                "file": str(path),
                "line": f.line,
                "trap": f.trap.word,
                "place": f.place,
                "says": f.trap.says,
                "mend": f.mend,
            }
            for path, f in found
        ]
        print_json(listed)
    else:
        for path, f in found:
            click.echo(
                f"{path}:{f'{f.line}:' if f.line else ''} {f.trap.word} at {f.place}: {f.trap.says} Mend: {f.mend}"
            )
    sys.exit(1 if found else 0)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MOST_OCTETS + 1)
    except OSError as error:
        raise Broken(f"can not read {path} ({error.strerror}); name a file that is there") from None


def _makes(name: str, platform: Platform) -> None:
    """Add the verb of one platform."""

    words = f"interdict profile {name} --service service.yaml"
    examples = (
        f"  {words} --device phone-7 --token k3v9 --out profiles\n  {words} --inventory devices.csv --out profiles"
    )

    @profile.command(name, help=f"Make profiles for {platform.title}.\n\n\b\nExamples:\n{examples}", epilog=_MAKERS)
    @_takes_choices
    def verb(
        service_file: Path, device: str | None, token: str | None, inventory: Path | None, group: str | None,
        out: Path | None, show_qr: bool, protocol: str, unlocked: bool, audit: bool, sign: Path | None,
    ) -> None:  # fmt: skip
        options = Options(Protocol(protocol), locked=not unlocked, audited=audit)
        service = load_service(service_file)
        signer = None if sign is None else _read_signer(sign)
        if signer is not None and not platform.can_be_signed:
            raise click.UsageError(f"profiles for {name} are not signed; leave --sign out")
        devices = _choose(device, token, inventory, group)
        if inventory is None or device is not None:
            _make_one(name, platform, service, devices[0], options, signer, out, show_qr)
        else:
            if out is None:
                raise click.UsageError("name the folder for the profiles of an inventory with --out")
            _make_all(name, platform, service, devices, options, signer, out)


def _takes_choices(verb: _F) -> _F:
    for option in reversed(_OPTIONS):
        verb = option(verb)
    return verb


_FILE = click.Path(dir_okay=False, path_type=Path)
_OPTIONS: Sequence[Callable[[_F], _F]] = [
    click.option("--service", "service_file", metavar="FILE", type=_FILE, required=True, help="The service (YAML)."),
    click.option("--device", metavar="NAME", help="The device."),
    click.option("--token", metavar="TOKEN", envvar="INTERDICT_TOKEN", help="Its token; or in $INTERDICT_TOKEN."),
    click.option("--inventory", metavar="FILE", type=_FILE, help="The devices: CSV, JSON or YAML."),
    click.option("--group", metavar="NAME", help="Of the inventory, the devices of this group."),
    click.option("--out", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help="Where files go."),
    click.option("--qr", "show_qr", is_flag=True, help="Show the QR code here, for a phone."),
    click.option(
        "--protocol", type=click.Choice([p.value for p in Protocol]), default=Protocol.HTTPS.value, show_default=True,
        help="Apple's systems and ZTDNS can do both.",
    ),
    click.option("--unlocked", is_flag=True, help="Users may switch it off: devices that nobody supervises."),
    click.option("--audit", is_flag=True, help="Zero Trust DNS: tell what would be cut off, and cut nothing off."),
    click.option("--sign", metavar="FILE", type=_FILE, help="Sign Apple's profiles: key and certificates, in PEM."),
]  # fmt: skip


def _choose(name: str | None, token: str | None, inventory: Path | None, group: str | None) -> list[Device]:
    if inventory is None:
        if name is None:
            raise click.UsageError("name a device with --device, or all devices with --inventory")
        if group is not None:
            raise click.UsageError("a group is one of an inventory; add --inventory, or leave --group out")
        return [_or_refuse(lambda: Device(name, token))]
    listed = load_devices(inventory)
    devices = [d for d in listed if name in (None, d.name) and group in (None, d.group)]
    if not devices:
        wanted = " and ".join(f"{w} {shown(v)}" for w, v in (("device", name), ("group", group)) if v) or "device"
        raise Broken(f"{inventory} has no {wanted}; it has {len(listed)} devices")
    if token is not None and name is None:
        raise click.UsageError("one token is for one device; name it with --device, or write tokens in the inventory")
    return devices if token is None else _or_refuse(lambda: [replace(d, token=token) for d in devices])


def _make_one(
    name: str, platform: Platform, service: Service, device: Device, options: Options,
    signer: "Signer | None", out: Path | None, show_qr: bool,
) -> None:  # fmt: skip
    made = Made(device, _or_refuse(lambda: make(platform, service, device, options, signer)))
    if out is not None:
        for path in write(out, name, made):
            click.echo(str(path))
    elif not show_qr:
        if len(made.profile.files) > 1:
            raise click.UsageError(f"{name} has {len(made.profile.files)} files; name a folder for them with --out")
        sys.stdout.buffer.write(made.profile.files[0].octets)
        sys.stdout.buffer.flush()
    if show_qr:
        from resolver.enrol import qr

        text = made.profile.qr
        if text is None:
            raise Broken(f"a phone can not read this profile of {name} by camera; leave --qr out")
        click.echo(_or_refuse(lambda: qr.to_terminal(text)))
    for note in made.profile.notes:
        click.echo(f"note: {note}", err=True)


def _make_all(
    name: str, platform: Platform, service: Service, devices: Sequence[Device], options: Options,
    signer: "Signer | None", out: Path,
) -> None:  # fmt: skip
    notes: dict[str, int] = {}
    refused: list[str] = []
    for device in _tracked(devices, f"profiles for {name}"):
        try:
            made = Made(device, make(platform, service, device, options, signer))
        except EnrolError as error:
            refused.append(f"{shown(device.name)}: {error}")
            continue
        write(out, name, made)
        for note in made.profile.notes:
            notes[note] = notes.get(note, 0) + 1
    written = len(devices) - len(refused)
    click.echo(f"{written} of {len(devices)} devices have a profile in {out}", err=True)
    for note, count in notes.items():
        if count == written:  # what differs from device to device is told when its profile is made alone
            click.echo(f"note: {note}", err=True)
    for line in refused:
        click.echo(line, err=True)
    sys.exit(1 if refused else 0)


def _tracked(devices: Sequence[Device], title: str) -> Iterator[Device]:
    from rich.console import Console
    from rich.progress import track

    return iter(track(devices, title, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()))


for _name, _platform in PLATFORMS.items():
    _makes(_name, _platform)
