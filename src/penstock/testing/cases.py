"""Runs a project's own cases: the functions `test_*` in its tests folder, each with a fresh driver."""

from __future__ import annotations

import importlib.util
import inspect
import linecache
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from penstock.core.errors import DefinitionError
from penstock.project import MODULES, Project
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
    with _importable(project.root):
        for path in sorted((project.root / "tests").glob("test_*.py")):
            for name, function in _cases_of(path, project.root):
                full = f"{path.relative_to(project.root)}::{name}"
                if not words or any(word in full for word in words):
                    results.append(_run(project, full, function, path))
    return results


@contextmanager
def _importable(root: Path) -> Iterator[None]:
    """Let cases import the project's files and one another, as under pytest; leave no trace."""
    places = [str(root / "tests"), str(root)]
    before = dict(sys.modules)
    for name in MODULES:
        sys.modules.pop(name, None)  # another project's
    sys.path[:0] = places
    try:
        yield
    finally:
        for place in places:
            sys.path.remove(place)
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if name not in before and file and Path(file).is_relative_to(root):
                del sys.modules[name]
        sys.modules.update({name: before[name] for name in MODULES if name in before})


def _cases_of(path: Path, root: Path) -> list[tuple[str, Callable[..., Any]]]:
    spec = importlib.util.spec_from_file_location(f"penstock_case_{path.stem}", path)
    assert spec is not None, "a .py file always has a spec"
    assert spec.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        line = error.lineno if isinstance(error, SyntaxError) else _line(error, path)
        raise DefinitionError("E181", f"{path.name} does not load: {type(error).__name__}: {error}",
                              where=f"{path.relative_to(root)}:{line or 1}", fix="mend the line named") from error  # fmt: skip
    return [
        (name, value)
        for name, value in vars(module).items()
        if name.startswith("test_") and inspect.isfunction(value)
    ]


def _run(project: Project, name: str, function: Callable[..., Any], path: Path) -> Case:
    wanted = list(inspect.signature(function).parameters)
    line = function.__code__.co_firstlineno
    where = path.relative_to(project.root)
    if wanted not in ([], ["driver"]) or inspect.iscoroutinefunction(function):
        takes = "awaits" if inspect.iscoroutinefunction(function) else f"takes {', '.join(wanted)}"
        raise DefinitionError("E184", f"case `{name}` {takes}", where=f"{where}:{line}",
                              fix="write a plain function that takes one argument, `driver`")  # fmt: skip
    try:
        if wanted:
            with Driver(project) as driver:
                function(driver)
        else:
            function()
    except Exception as error:  # noqa: BLE001 - whatever a case raises is its result
        number = _line(error, path) or line
        said = str(error) or linecache.getline(str(path), number).strip()
        return Case(name, f"{where}:{number}", f"{type(error).__name__}: {said}")
    return Case(name, f"{where}:{line}", "")


def _line(error: BaseException, path: Path) -> int:
    """Return the last line of a file that an error passed, or 0."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename == str(path)]
    return (frames[-1].lineno or 0) if frames else 0
