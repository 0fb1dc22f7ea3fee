"""What the hot modules see of `cython` when they run as plain Python: the same names, doing nothing.

A hot module opens with these lines, so that it imports with or without Cython installed and so that the type checker
reads this file instead of Cython's own stubs:

    if TYPE_CHECKING:
        from resolver.hot import cython_shim as cython
    else:
        try:
            import cython
        except ModuleNotFoundError:
            from resolver.hot import cython_shim as cython

Only names that mean the same plain and compiled are here; a hot module that needs another one adds it. Three things
differ all the same, and a hot module must not lean on them:

- C integers wrap and Python's do not: mask by hand (`h & 0xFFFFFFFF`) before a value can pass the type's range.
- Under `boundscheck(False)` and `wraparound(False)` an index outside the buffer is undefined when compiled; plain, it
  raises or counts from the end. Check the bounds first.
- A pointer is the buffer itself here: index it, never add to it.

What has no plain twin, the C type of a memoryview (`cython.uchar[::1]`) and all of `cython.cimports`, stands under
`if cython.compiled:`, in a class body as in a function, with its plain form under `else:`. The type checker reads the
latter only.
"""

import builtins
from typing import TYPE_CHECKING, TypeAlias, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_T = TypeVar("_T")

compiled: builtins.bool = False  # Cython replaces it with a true constant at compile time

# C types. Their widths are C's (LP64 on every platform this runs on), their plain behaviour is Python's.
bint: TypeAlias = builtins.bool
uchar: TypeAlias = builtins.int
int: TypeAlias = builtins.int
uint: TypeAlias = builtins.int
long: TypeAlias = builtins.int
longlong: TypeAlias = builtins.int
ulonglong: TypeAlias = builtins.int
Py_ssize_t: TypeAlias = builtins.int
double: TypeAlias = builtins.float
void: TypeAlias = None

# Pointers into a buffer that a Python object owns: keep the object alive for as long as the pointer is used.
p_const_uchar: TypeAlias = builtins.bytes | builtins.bytearray
p_uchar: TypeAlias = builtins.bytearray


class _Directive:
    """A compiler directive that does nothing: a decorator and a `with` block alike."""

    __slots__ = ()

    def __call__(self, decorated: _T, /) -> _T:
        return decorated

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        return None


# Directives used bare: `@cython.cfunc`, `with cython.nogil:`.
cclass = _Directive()
cfunc = _Directive()
ccall = _Directive()
inline = _Directive()
nogil = _Directive()


def boundscheck(_on: builtins.bool, /) -> _Directive:
    """Return a directive: whether an index is checked against the buffer's ends."""
    return _Directive()


def wraparound(_on: builtins.bool, /) -> _Directive:
    """Return a directive: whether a negative index counts from the end."""
    return _Directive()


def cdivision(_on: builtins.bool, /) -> _Directive:
    """Return a directive: whether `/`, `//` and `%` are C's. They differ from Python's for negative operands only."""
    return _Directive()


def locals(**_types: object) -> _Directive:
    """Return a directive: the C types of a function's local variables."""
    return _Directive()


@overload
def declare(kind: "Callable[[], _T]", /) -> _T: ...
@overload
def declare(kind: object, value: _T, /) -> _T: ...
def declare(kind: object, *value: object) -> object:
    """Return the value a variable of this C type starts with: the given one, else the type's zero."""
    if value:
        return value[0]
    return kind() if callable(kind) else None
