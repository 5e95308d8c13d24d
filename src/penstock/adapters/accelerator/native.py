"""The accelerator of `native/`, an optional module: `make env` builds it where there is a Rust compiler."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from penstock.ports.accelerator import FORMAT, Accelerate, AccelerateIntake

try:
    _module: Any = import_module("penstock_native")
except ImportError:
    _module = None

_NAME: Final = "penstock-native"


def accelerate() -> Accelerate | None:
    """Return what makes the accelerator of a fold; None if it is not there, or of another version."""
    return _module.Fold if _module is not None and _module.FORMAT == FORMAT else None


def accelerate_intake() -> AccelerateIntake | None:
    """Return what makes the accelerator of an intake; None if it is not there, or of another version."""
    return _module.Intake if _module is not None and _module.FORMAT == FORMAT else None


def found() -> str | None:
    """Return the name and version of the module that is installed; None if there is none."""
    return None if _module is None else f"{_NAME} {_module.__version__}"
