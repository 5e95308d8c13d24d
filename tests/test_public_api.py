"""The public API: what `import penstock` offers, and nothing that is not meant."""

import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import penstock

SRC = Path(penstock.__file__).parent
MODULES = sorted(
    ".".join(("penstock", *path.relative_to(SRC).with_suffix("").parts)).removesuffix(".__init__")
    for path in SRC.rglob("*.py")
)


def public_names() -> list[str]:
    """Names in `penstock` that are no modules and do not start with an underscore."""
    return sorted(
        name
        for name, value in vars(penstock).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    )


def test_what_is_public_is_declared() -> None:
    assert public_names() == sorted(getattr(penstock, "__all__", []))


def test_what_is_declared_is_sorted_and_named_once() -> None:
    declared = list(getattr(penstock, "__all__", []))
    assert sorted(set(declared)) == sorted(declared)


def test_what_is_public_is_documented() -> None:
    bare = [
        name
        for name in public_names()
        if callable(getattr(penstock, name)) and not inspect.getdoc(getattr(penstock, name))
    ]
    assert [] == bare


def test_a_public_name_changes_only_on_purpose(golden: Callable[[str, object], None]) -> None:
    golden("public-api.txt", "".join(f"{line}\n" for line in signatures()))


def signatures() -> list[str]:
    """Each public name with its parameters; annotations and defaults that hold addresses left out."""
    lines = []
    for name in public_names():
        value = getattr(penstock, name)
        try:
            parameters = inspect.signature(value).parameters.values()
        except (TypeError, ValueError):
            lines.append(name)
            continue
        shown = []
        for parameter in parameters:
            star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
            default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
            default = re.sub(r" at 0x[0-9a-f]+", "", default)
            shown.append(f"{star.get(parameter.kind, '')}{parameter.name}{default}")
        lines.append(f"{name}({', '.join(shown)})")
    return lines


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name: str) -> None:
    assert name == importlib.import_module(name).__name__
