"""The house rules that no other tool checks: what lies where, what is named where, what is written nowhere."""

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.peers import PACKAGES_FILE, read_packages

ROOT = Path(__file__).parents[1]
RESOLVER = ROOT / "resolver"
SOURCES = sorted(RESOLVER.rglob("*.py"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

TOP_LEVEL = {"README.md", "blocklists", "deploy", "pyproject.toml", "resolver", "tests"}

# Files without a unit test of their own, each with the test that holds it instead.
TESTED_ELSEWHERE = {
    "__main__.py": "the entry of the process; tests/e2e starts it as people do",
    "app/supervisor.py": "opens sockets, forks and signals; tests/e2e does it with real ones",
    "app/windows.py": "the listeners of a worker; tests/e2e comes in by each",
    "app/worker.py": "the body of a forked process; tests/e2e asks it over real sockets",
}

MOST_LINES = 600

# In two parts, so that this file obeys the rule it checks.
REGISTRY_HOSTS = ["pypi" + ".org", "files.python" + "hosted.org", "registry.npm" + "js.org", "deb.debian" + ".org"]
MACHINE_PATH = re.compile(r"(?<![\w.~)}-])/(?:work|root|home|tmp|Users)/")


def relative(paths: typing.Iterable[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


def tracked_files() -> list[Path]:
    """Return what git tracks or would track."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return sorted(ROOT / name for name in set(listing.split("\0")) if name and (ROOT / name).is_file())


def is_docstring_only(source: Path) -> bool:
    return all(
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for node in ast.parse(source.read_text()).body
    )


def unit_test_of(source: Path) -> Path:
    inside = source.relative_to(RESOLVER)
    return ROOT / "tests" / "unit" / inside.parent / f"test_{inside.stem.lstrip('_')}.py"


def test_every_source_file_has_its_test_file() -> None:
    """resolver/x/y.py is tested by tests/unit/x/test_y.py."""
    untested = [
        source
        for source in SOURCES
        if source.name != "__init__.py"
        and source.relative_to(RESOLVER).as_posix() not in TESTED_ELSEWHERE
        and not is_docstring_only(source)
        and not unit_test_of(source).is_file()
    ]

    assert relative(untested) == []


def test_every_unit_test_file_has_its_source_file() -> None:
    """tests/unit mirrors resolver/ and holds nothing else."""
    expected = {unit_test_of(source) for source in SOURCES}
    orphans = [test for test in sorted((ROOT / "tests" / "unit").rglob("test_*.py")) if test not in expected]

    assert relative(orphans) == []


def test_every_exemption_is_needed() -> None:
    """A file tested elsewhere exists and has no unit test after all."""
    stale = [
        name for name in TESTED_ELSEWHERE if not (RESOLVER / name).is_file() or unit_test_of(RESOLVER / name).is_file()
    ]

    assert stale == []


def test_an_init_file_exports_nothing() -> None:
    """Every name has one path: an __init__.py imports nothing."""
    importing = [
        source
        for source in SOURCES
        if source.name == "__init__.py"
        and any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(ast.parse(source.read_text())))
    ]

    assert relative(importing) == []


def test_no_source_file_is_bottomless() -> None:
    """A file of more than 600 lines says in its docstring why it has so many lines."""
    bottomless = [
        source
        for source in SOURCES
        if len(source.read_text().splitlines()) > MOST_LINES
        and "lines" not in (ast.get_docstring(ast.parse(source.read_text())) or "")
    ]

    assert relative(bottomless) == []


def test_hot_modules_are_those_that_the_build_compiles() -> None:
    """A `_cy` file on disk is an extension module in pyproject.toml, and the other way round."""
    declared = PYPROJECT["tool"]["setuptools"]["ext-modules"]
    on_disk = {relative([source])[0] for source in SOURCES if source.stem.endswith("_cy")}

    assert {source for module in declared for source in module["sources"]} == on_disk
    assert {module["name"] for module in declared} == {name.removesuffix(".py").replace("/", ".") for name in on_disk}
    assert all(module["optional"] for module in declared)


def test_packages_are_those_that_the_build_ships() -> None:
    """Each folder with code is in the wheel, and the catalogue as resolver.shipped."""
    on_disk = {name.replace("/", ".") for name in relative({source.parent for source in SOURCES})}

    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == on_disk | {"resolver.shipped"}


def test_top_level_holds_only_what_it_should() -> None:
    """Six names, and dotfiles."""
    top = {path.relative_to(ROOT).parts[0] for path in tracked_files()}

    assert {name for name in top if not name.startswith(".")} == TOP_LEVEL


@pytest.mark.parametrize("command", ["deploy/run", "tests/run", ".ci/run"])
def test_a_command_can_be_run(command: str) -> None:
    """The commands are executable."""
    assert os.access(ROOT / command, os.X_OK)


def find_miscitations(text: str) -> list[str]:
    """Return every mention of a numbered RFC that is not of the form `RFC 8914 §4.16`."""
    mention = re.compile(r"\brfc[\s_-]*\d+(?:,?\s*(?:§|section|sec\.|s\.)\s*[\w.]*)?", re.IGNORECASE)
    good = re.compile(r"RFC \d{3,5}( §[\d.]+)?")
    return [found for found in mention.findall(text) if not good.fullmatch(found)]


@pytest.mark.parametrize(
    "wrong",
    [
        "RFC1035",
        "rfc 1035",
        "RFC-1035",
        "RFC  1035",
        "RFC\n1035",
        "RFC 1035 section 4.1",
        "RFC 1035, §4",
        "RFC 1035 § 4",
    ],
)
def test_a_miscitation_is_found(wrong: str) -> None:
    """The check below can fail."""
    assert find_miscitations(f"as in {wrong} it says")


def test_citations_have_one_form() -> None:
    """RFC 8914 §4.16, so that grep is the index."""
    wrong = {
        relative([path])[0]: found
        for path in [*SOURCES, *sorted(RESOLVER.rglob("*.md"))]
        if (found := find_miscitations(path.read_text()))
    }

    assert wrong == {}


def test_no_file_names_a_registry_or_a_place_on_somebodys_machine() -> None:
    """What is tracked works wherever it is cloned, with whatever package index is configured there."""
    found = []
    for path in tracked_files():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if any(host in line for host in REGISTRY_HOSTS) or MACHINE_PATH.search(line):
                found.append(f"{relative([path])[0]}:{number}: {line.strip()[:100]}")

    assert found == []


def read_pins(lock: Path) -> dict[str, str]:
    """Return name and version of what a lock file pins; each must have a hash."""
    pins = {}
    for requirement in re.split(r"\n(?=\w)", lock.read_text()):
        if match := re.match(r"([\w-]+)==(\S+)", requirement):
            assert "--hash=sha256:" in requirement, match[0]
            pins[match[1]] = match[2]
    return pins


def test_tests_run_with_the_versions_that_are_deployed() -> None:
    """tests/requirements.lock holds all of deploy/requirements.lock, and that all that pyproject.toml asks for."""
    deployed = read_pins(ROOT / "deploy" / "requirements.lock")
    asked = [*PYPROJECT["project"]["dependencies"], *PYPROJECT["build-system"]["requires"]]

    assert deployed.items() <= read_pins(ROOT / "tests" / "requirements.lock").items()
    assert {re.split(r"[^\w-]", requirement)[0] for requirement in asked} <= set(deployed)


@pytest.mark.parametrize("lock", ["deploy/requirements.lock", "tests/requirements.lock"])
def test_a_lock_names_no_index(lock: str) -> None:
    """Where packages come from is the machine's business."""
    assert "://" not in (ROOT / lock).read_text()


def test_each_program_comes_from_one_package() -> None:
    """tests/debian-packages.txt lists a program once."""
    text = PACKAGES_FILE.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]

    assert len(read_packages(text)) == sum(len(line.partition("#")[2].split()) for line in lines)


def option_paths(model: type, prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every option; a list's members go by the list's name."""
    for name, field in model.model_fields.items():
        nested = list(models_in(field.annotation))
        if not nested:
            yield f"{prefix}{name}"
        for inner in nested:
            yield from option_paths(inner, f"{prefix}{name}.")


def models_in(annotation: object) -> Iterator[type]:
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from models_in(argument)


def test_every_option_is_in_the_operators_guide() -> None:
    """deploy/README.md names each option of interdict.yaml by its path, such as `cache.size`."""
    config = importlib.import_module("resolver.config")
    guide = (ROOT / "deploy" / "README.md").read_text()

    missing = [path for path in option_paths(config.Config) if not re.search(rf"(?<![\w.]){re.escape(path)}\b", guide)]

    assert missing == []


def test_every_metric_is_in_the_operators_guide() -> None:
    """deploy/README.md names each metric."""
    metrics = importlib.import_module("resolver.observe.metrics").METRICS
    guide = (ROOT / "deploy" / "README.md").read_text()

    names = [getattr(metric, "name", metric) for metric in metrics]

    assert names
    assert [name for name in names if not re.search(rf"\b{re.escape(name)}\b", guide)] == []


def verbs() -> Iterator[str]:
    """Yield every command line verb: "serve", "order list"."""
    click = importlib.import_module("click")
    package = importlib.import_module("resolver.cli")
    modules = [
        package,
        *(importlib.import_module(m.name) for m in pkgutil.iter_modules(package.__path__, "resolver.cli.")),
    ]
    groups = {
        id(thing): thing for module in modules for thing in vars(module).values() if isinstance(thing, click.Group)
    }
    inner = {id(command) for group in groups.values() for command in group.commands.values()}

    def walk(group: typing.Any, prefix: str) -> Iterator[str]:
        for name, command in group.commands.items():
            if isinstance(command, click.Group):
                yield from walk(command, f"{prefix}{name} ")
            else:
                yield f"{prefix}{name}"

    for group in groups.values():
        if id(group) not in inner:
            yield from walk(group, "")


def test_every_verb_is_in_the_readme() -> None:
    """README.md shows each verb of the command, the operator's guide each verb below one."""
    readme, guide = (ROOT / "README.md").read_text(), (ROOT / "deploy" / "README.md").read_text()
    known = list(verbs())

    assert known
    assert [verb for verb in known if f"interdict {verb.split()[0]}" not in readme] == []
    assert [verb for verb in known if f"interdict {verb}" not in readme + guide] == []


def test_the_shipped_catalogue_parses() -> None:
    """Every YAML file in blocklists/ is a document that the product reads, in a checkout from there."""
    files = importlib.import_module("resolver.feeds.files")
    documents = files.read_documents([files.shipped()])
    read = {f"{kind}/{id_}.yaml" for kind in files.KINDS for id_ in getattr(documents, kind.replace("-", "_"))}

    assert read
    assert read == {path.relative_to(ROOT / "blocklists").as_posix() for path in (ROOT / "blocklists").rglob("*.y*ml")}
