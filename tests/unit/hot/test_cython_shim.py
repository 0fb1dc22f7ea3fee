"""The stand-in for Cython: the same names as Cython's own, doing nothing."""

import importlib

import pytest

from resolver.hot import cython_shim

IMPORTED = {"TYPE_CHECKING", "TypeAlias", "TypeVar", "builtins", "overload"}
NAMES = sorted(name for name in vars(cython_shim) if not name.startswith("_") and name not in IMPORTED)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_one_of_cythons(name: str) -> None:
    """A hot module that runs with the stand-in runs with Cython too."""
    cython = importlib.import_module("cython")

    assert hasattr(cython, name)


@pytest.mark.parametrize(
    "directive",
    [
        cython_shim.cclass,
        cython_shim.cfunc,
        cython_shim.ccall,
        cython_shim.inline,
        cython_shim.nogil,
        cython_shim.boundscheck(False),
        cython_shim.wraparound(False),
        cython_shim.cdivision(True),
        cython_shim.locals(i=cython_shim.int),
    ],
)
def test_a_directive_leaves_what_it_decorates_alone(directive: object) -> None:
    """The decorated function is the very same object, and an error inside a `with` block passes through."""

    def f() -> None: ...

    assert callable(directive)
    assert directive(f) is f


def test_an_error_leaves_a_with_block() -> None:
    """`with cython.nogil:` swallows nothing."""
    with pytest.raises(ZeroDivisionError), cython_shim.nogil:
        _ = 1 // 0


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (cython_shim.declare(cython_shim.uint), 0),
        (cython_shim.declare(cython_shim.bint), False),
        (cython_shim.declare(cython_shim.double), 0.0),
        (cython_shim.declare(cython_shim.ulonglong, 7), 7),
        (cython_shim.declare(cython_shim.p_const_uchar, b"x"), b"x"),
    ],
)
def test_declare_starts_a_variable(declared: object, value: object) -> None:
    """A declared variable holds the value it was given, or the type's zero."""
    assert declared == value
    assert type(declared) is type(value)


def test_plain_python_says_so() -> None:
    """`cython.compiled` is false wherever the stand-in is read."""
    assert cython_shim.compiled is False
