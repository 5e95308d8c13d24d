"""Runs a project's own cases: the functions `test_*` in its tests folder, each with a fresh driver."""

from __future__ import annotations

import importlib.util
import inspect
import linecache
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from penstock.core.errors import DefinitionError
from penstock.project import Project
from penstock.testing.driver import Driver


class Case(NamedTuple):
    """A case and how it went: no fault means that it passed."""

    name: str
    where: str
    fault: str


def run_cases(project: Project, words: Sequence[str] = ()) -> list[Case]:
    """Run the cases of a project, in the order of files and lines.

    Args:
        project: The loaded project.
        words: Only cases whose name holds one of these; none means all.

    Raises:
        DefinitionError: A file of the tests does not load (E181), or a case takes something else
            than the driver (E184).
    """
    results: list[Case] = []
    for path in sorted((project.root / "tests").glob("test_*.py")):
        for name, function in _cases_of(path, project.root):
            full = f"{path.relative_to(project.root)}::{name}"
            if not words or any(word in full for word in words):
                results.append(_run(project, full, function, path))
    return results


def _cases_of(path: Path, root: Path) -> list[tuple[str, Callable[..., Any]]]:
    spec = importlib.util.spec_from_file_location(f"penstock_case_{path.stem}", path)
    assert spec is not None, "a .py file always has a spec"
    assert spec.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DefinitionError("E181", f"{path.name} does not load: {type(error).__name__}: {error}",
                              where=str(path.relative_to(root)), fix="mend the line named") from error  # fmt: skip
    return [
        (name, value)
        for name, value in vars(module).items()
        if name.startswith("test_") and inspect.isfunction(value)
    ]


def _run(project: Project, name: str, function: Callable[..., Any], path: Path) -> Case:
    wanted = list(inspect.signature(function).parameters)
    line = function.__code__.co_firstlineno
    if wanted not in ([], ["driver"]):
        raise DefinitionError("E184", f"case `{name}` takes {', '.join(wanted)}", where=f"{path.name}:{line}",
                              fix="take one argument, `driver`")  # fmt: skip
    try:
        if wanted:
            with Driver(project) as driver:
                function(driver)
        else:
            function()
    except Exception as error:  # noqa: BLE001 - whatever a case raises is its result
        frames = [
            one for one in traceback.extract_tb(error.__traceback__) if one.filename == str(path)
        ]
        number = (frames[-1].lineno if frames else line) or line
        said = str(error) or linecache.getline(str(path), number).strip()
        return Case(
            name, f"{path.relative_to(project.root)}:{number}", f"{type(error).__name__}: {said}"
        )
    return Case(name, f"{path.relative_to(project.root)}:{line}", "")
