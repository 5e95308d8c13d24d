"""The `driver` fixture for pytest: put `from penstock.testing.plugin import driver` in a conftest.py."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from penstock.project import Project, load_project
from penstock.testing.driver import Driver


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """Drive the project that the case is part of, in memory: the same as under `penstock test`."""
    root = next((one for one in request.path.parents if (one / "penstock.toml").exists()), None)
    if root is None:
        pytest.fail(f"{request.path.name} is in no project: no folder above it has a penstock.toml")
    with Driver(_project(root)) as opened:
        yield opened


@lru_cache
def _project(root: Path) -> Project:
    return load_project(root)
