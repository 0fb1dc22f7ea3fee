"""Folders of YAML files, a kind of document in a folder each (`KINDS`), all mistakes of all files told at once.

A file is named after the id of what it holds, so that the id is unique in its folder and a reader finds the file.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from resolver.policy.additions import Documents, Exemption, LocalRule, WayRound
from resolver.policy.documents import ActKind, App, Entry, Order
from resolver.policy.source import KeyPath, Page, PolicyError, Problem, did_you_mean, read_page, shown

MAX_FILE_OCTETS = 16 << 20  # The largest file of the catalogue has some 20 KiB; a list of a million names fits.

_SUFFIX = ".yaml"

_Kind = TypeVar("_Kind", bound=Entry)

KINDS: Mapping[str, type[Entry]] = {
    "apps": App,
    "orders": Order,
    "exemptions": Exemption,
    "rules": LocalRule,
    "ways-round": WayRound,
}
"""What lies in which folder."""


def shipped() -> Path:
    """The folder of the catalogue that comes with the product: in a checkout beside the package, else inside it."""
    checkout = Path(__file__).resolve().parents[2] / "blocklists"
    if (checkout / "apps").is_dir():
        return checkout
    return Path(__file__).resolve().parents[1] / "shipped"


def read_documents(folders: Sequence[Path]) -> Documents:
    """Read every document of some folders.

    Raises:
        PolicyError: With every problem of every file: unreadable, too large, invalid, not named after its id, an id
            that was there before, an order or exemption that names an app or an order nobody describes.
    """
    problems: list[Problem] = []
    found: dict[str, dict[str, Page[Entry]]] = {sub: {} for sub in KINDS}
    intended: dict[str, set[str]] = {sub: set() for sub in KINDS}
    for folder in folders:
        if not any((folder / sub).is_dir() for sub in KINDS) and not _is_empty(folder):
            message = f"there is no {', '.join(f'{sub}/' for sub in KINDS)} here; write the path of a folder with one"
            problems.append(Problem(str(folder), 1, 1, message))
            continue
        for sub, kind in KINDS.items():
            for file in _files(folder / sub, problems):
                intended[sub].add(file.name.removesuffix(_SUFFIX))
                _add(file, kind, found[sub], problems)
    # What has a file with problems of its own is told about there; documents that name it are not wrong for that.
    known = {sub: found[sub].keys() | intended[sub] for sub in KINDS}
    for sub in ("orders", "exemptions"):
        for page in found[sub].values():
            problems += _unknown(page, known)
    if problems:
        raise PolicyError(problems)
    return Documents(
        apps=_all(found["apps"], App),
        orders=_all(found["orders"], Order),
        exemptions=_all(found["exemptions"], Exemption),
        rules=_all(found["rules"], LocalRule),
        ways_round=_all(found["ways-round"], WayRound),
    )


def problem_at(folders: Sequence[Path], sub: str, id_: str, path: KeyPath, message: str) -> Problem:
    """A problem with a document that was read before, at its place in its file."""
    for folder in folders:
        file = folder / sub / f"{id_}{_SUFFIX}"
        octets = _read(file, []) if file.is_file() else None
        page = None if octets is None else read_page(octets, str(file), KINDS[sub], [])
        if page is not None:
            return page.problem(path, message)
    return Problem(f"{sub}/{id_}{_SUFFIX}", 1, 1, message)


def _all(pages: Mapping[str, Page[Entry]], kind: type[_Kind]) -> dict[str, _Kind]:
    return {id_: page.document for id_, page in pages.items() if isinstance(page.document, kind)}


def _is_empty(folder: Path) -> bool:
    """Whether the folder is there and has nothing in it yet: a place for records to come."""
    try:
        return not any(folder.iterdir())
    except OSError:
        return False


def _unknown(page: Page[Entry], known: Mapping[str, set[str]]) -> Iterator[Problem]:
    """Ids that a document names and nobody describes."""
    document = page.document
    assert isinstance(document, Order | Exemption)
    named: list[tuple[KeyPath, str, str]] = [(("apps", i), "app", id_) for i, id_ in enumerate(document.apps)]
    if isinstance(document, Exemption):
        named += [(("orders", i), "order", id_) for i, id_ in enumerate(document.orders)]
    else:
        superseding = ((i, act) for i, act in enumerate(document.acts) if act.act is ActKind.SUPERSEDED)
        named += [(("acts", i, "by"), "order", act.by) for i, act in superseding]
    for path, what, id_ in named:
        if id_ not in known[f"{what}s"]:
            mend = did_you_mean(id_, known[f"{what}s"] - {document.id}) or f"; write {what}s/<id>.yaml first"
            yield page.problem(path, f"no {what} has the id {shown(id_)}{mend}")


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


def _add(file: Path, kind: type[Entry], pages: dict[str, Page[Entry]], problems: list[Problem]) -> None:
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
