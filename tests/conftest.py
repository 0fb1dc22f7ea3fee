"""Fixtures for every test: peer programs, and the hot modules in both builds."""

import importlib
from collections.abc import Callable
from types import ModuleType

import pytest

from tests.support.peers import require_peer, skip_or_fail
from tests.support.plain import load_uncompiled


@pytest.fixture
def peer() -> Callable[[str], str]:
    """`peer("dig")` is the path of dig, or the end of the test."""
    return require_peer


@pytest.fixture(params=["plain", "compiled"])
def hot(request: pytest.FixtureRequest) -> Callable[[str], ModuleType]:
    """`hot("_scan_cy")` is that module of resolver.hot, once plain and once compiled."""

    def load(name: str) -> ModuleType:
        full_name = f"resolver.hot.{name}"
        if request.param == "plain":
            return load_uncompiled(full_name)
        module = importlib.import_module(full_name)
        if str(module.__file__).endswith(".py"):
            skip_or_fail(f"{full_name} is not compiled (Debian packages gcc and libc6-dev, then tests/run)")
        return module

    return load
