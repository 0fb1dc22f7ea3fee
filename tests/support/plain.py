"""Hot modules as plain Python, beside their compiled selves."""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

_plain: dict[str, ModuleType] = {}


class _SourceFinder(MetaPathFinder):
    """Finds the `.py` of a `_cy` module, whatever compiled library lies beside it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.endswith("_cy"):
            return None
        file = f"{fullname.rpartition('.')[2]}.py"
        source = next((Path(folder, file) for folder in path or () if Path(folder, file).is_file()), None)
        return spec_from_file_location(fullname, source) if source else None


def load_uncompiled(module_name: str) -> ModuleType:
    """Return the module as its `.py` says it, and so are the `_cy` modules that it imports; always the same object.

    What `import` gives is left as it was.

    Args:
        module_name: Full name, such as "resolver.hot._scan_cy".
    """
    package = importlib.import_module(module_name.rpartition(".")[0])
    prefix = f"{package.__name__}."
    ordinary = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_hot(name, prefix)}
    sys.modules.update(_plain)
    finder = _SourceFinder()
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(module_name)
    finally:
        sys.meta_path.remove(finder)
        _plain.update({name: sys.modules.pop(name) for name in list(sys.modules) if _is_hot(name, prefix)})
        sys.modules.update(ordinary)
        for name in _plain:
            package.__dict__.pop(name.removeprefix(prefix), None)
        for name, module in ordinary.items():
            setattr(package, name.removeprefix(prefix), module)


def _is_hot(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and name.endswith("_cy")
