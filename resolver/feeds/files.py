"""Folders of YAML files: `apps/*.yaml` and `orders/*.yaml`, all mistakes of all files told at once.

A file is named after the id of what it holds, so that the id is unique in its folder and a reader finds the file.
"""

from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TypeVar

from resolver.policy.documents import ActKind, App, Documents, Entry, Order
from resolver.policy.source import Page, PolicyError, Problem, did_you_mean, read_page, shown

MAX_FILE_OCTETS = 16 << 20  # The largest file of the catalogue has some 20 KiB; a list of a million names fits.

_SUFFIX = ".yaml"

_Kind = TypeVar("_Kind", bound=Entry)


def shipped() -> Path:
    """The folder of the catalogue that comes with the product: in a checkout beside the package, else inside it."""
    checkout = Path(__file__).resolve().parents[2] / "blocklists"
    if (checkout / "apps").is_dir():
        return checkout
    return Path(str(resources.files("resolver.shipped")))


def read_documents(folders: Sequence[Path]) -> Documents:
    """Read every app and order of some folders.

    Raises:
        PolicyError: With every problem of every file: unreadable, too large, invalid, not named after its id, an id
            that was there before, an order that names an app or a later order nobody describes.
    """
    problems: list[Problem] = []
    apps: dict[str, Page[App]] = {}
    orders: dict[str, Page[Order]] = {}
    intended_apps: set[str] = set()
    intended_orders: set[str] = set()
    for folder in folders:
        if not any((folder / sub).is_dir() for sub in ("apps", "orders")):
            message = "there is no apps/ or orders/ here; write the path of a folder with one"
            problems.append(Problem(str(folder), 1, 1, message))
            continue
        for file in _files(folder / "apps", problems):
            intended_apps.add(file.name.removesuffix(_SUFFIX))
            _add(file, App, apps, problems)
        for file in _files(folder / "orders", problems):
            intended_orders.add(file.name.removesuffix(_SUFFIX))
            _add(file, Order, orders, problems)
    # What has a file with problems of its own is told about there; the orders that name it are not wrong for that.
    known_apps, known_orders = apps.keys() | intended_apps, orders.keys() | intended_orders
    for page in orders.values():
        for i, app in enumerate(page.document.apps):
            if app not in known_apps:
                mend = did_you_mean(app, known_apps) or "; write apps/<id>.yaml first"
                problems.append(page.problem(("apps", i), f"no app has the id {shown(app)}{mend}"))
        for i, act in enumerate(page.document.acts):
            if act.act is ActKind.SUPERSEDED and act.by not in known_orders:
                mend = did_you_mean(act.by, known_orders - {page.document.id}) or "; write orders/<id>.yaml first"
                problems.append(page.problem(("acts", i, "by"), f"no order has the id {shown(act.by)}{mend}"))
    if problems:
        raise PolicyError(problems)
    return Documents(
        {id_: page.document for id_, page in apps.items()}, {id_: page.document for id_, page in orders.items()}
    )


def _files(folder: Path, problems: list[Problem]) -> Iterator[Path]:
    """The YAML files of a folder by name; a missing folder is an empty one."""
    if not folder.is_dir():
        return
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        problems.append(_unreadable(folder, error))
        return
    for file in found:
        if file.suffix == ".yml":
            problems.append(Problem(str(file), 1, 1, f"files end in {_SUFFIX}; rename it to {file.stem}{_SUFFIX}"))
        elif file.suffix == _SUFFIX and not file.name.startswith("."):
            yield file


def _add(file: Path, kind: type[_Kind], pages: dict[str, Page[_Kind]], problems: list[Problem]) -> None:
    octets = _read(file, problems)
    page = None if octets is None else read_page(octets, str(file), kind, problems)
    if page is None:
        return
    id_ = page.document.id
    if file.name != id_ + _SUFFIX:
        message = f'the file is named "{file.name}"; rename it to "{id_}{_SUFFIX}", or write id: {file.stem}'
        problems.append(page.problem(("id",), message))
    elif (earlier := pages.get(id_)) is not None:
        problems.append(page.problem(("id",), f'"{id_}" is described in {earlier.source} too; remove one of the files'))
    else:
        pages[id_] = page


def _read(file: Path, problems: list[Problem]) -> bytes | None:
    try:
        if not file.is_file():
            problems.append(Problem(str(file), 1, 1, "this is not a regular file; put a text file in its place"))
            return None
        with file.open("rb") as opened:
            octets = opened.read(MAX_FILE_OCTETS + 1)
    except OSError as error:
        problems.append(_unreadable(file, error))
        return None
    if len(octets) > MAX_FILE_OCTETS:
        message = f"the file is larger than {MAX_FILE_OCTETS >> 20} MiB; is it the right one? Otherwise split it"
        problems.append(Problem(str(file), 1, 1, message))
        return None
    return octets


def _unreadable(path: Path, error: OSError) -> Problem:
    return Problem(str(path), 1, 1, f"cannot be read ({error.strerror}); check that it is there and its permissions")
