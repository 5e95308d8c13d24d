"""Checks of the code itself: size, names, first lines, imports per layer, error codes, addresses."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from penstock.core.codes import CODES

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "penstock"
FILES = sorted(SRC.rglob("*.py"))
SHOWN = sorted(
    path for top in ("tools", "benchmarks", "examples") for path in (ROOT / top).rglob("*.py")
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))

MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base", "stuff"}

PURE = set(
    """
    __future__ abc array base64 binascii bisect collections copy csv dataclasses datetime decimal
    difflib email enum fractions functools graphlib hashlib heapq hmac html ipaddress itertools json
    keyword math operator re statistics string struct textwrap types typing unicodedata zoneinfo
    msgspec penstock
    """.split()  # noqa: SIM905 - one word a line would fill a screen
)
"""What the pure layers may import: no clock, no dice, no disk, no network, no threads."""

LAYERS: dict[str, set[str]] = {
    # The longest matching prefix decides.
    "core": PURE,
    "core/feature/aggregates/__init__": PURE | {"importlib", "pkgutil"},  # finds its own modules
    "dsl": PURE | {"sys"},  # a mistake is shown with the author's file and line
    "ports": PURE,
    "flows": PURE | {"contextlib", "asyncio", "urllib.parse"},  # awaits ports, within a time
}
THIRD_PARTY: dict[str, set[str]] = {
    "adapters": set(),
    "adapters/log/sqlite": {"zstandard"},
    "adapters/log/kafka": {"confluent_kafka"},
    "adapters/archive/s3": {"boto3", "botocore"},
    "adapters/archive/frames": {"zstandard"},
    "adapters/redis": {"hiredis", "redis"},
    "adapters/metrics/prometheus": {"prometheus_client"},
    "adapters/registry/confluent": {"httpx"},
    "adapters/topics/kafka": {"confluent_kafka"},
    "adapters/decoder/avro": {"fastavro"},
    "adapters/encoder/avro": {"fastavro"},
    "adapters/decoder/protobuf": {"google"},
    "adapters/content/liquid": {"liquid", "markupsafe"},  # the texts that it marks as safe
    "adapters/content/mjml": {"mjml"},
    "adapters/content/inline": {"css_inline"},
    "runtimes": set(),
    "edges": {"httptools", "litestar", "uvicorn"},
    "project": set(),
    "settings": set(),
    "connect_settings": set(),
    "compose": set(),
    "registries": set(),
    "connectors": set(),
    "application": {"litestar"},
    "cli": {"click", "rich", "uvicorn", "uvloop"},
    "cli/client": {"httpx"},
    "cli/top": {"httpx", "prometheus_client", "rich", "click"},
    "testing": {"litestar", "hypothesis", "pytest", "httpx"},
}
"""Which client libraries each part may import: an adapter its one product, nothing else any."""

ANYWHERE = {"msgspec", "penstock", "urllib.parse"} | set(sys.stdlib_module_names)

CODE = re.compile(r"E[1-7]\d\d")
RANGES = {
    "DefinitionError": "E1",
    "SettingsError": "E2",
    "EventRejected": "E3",
    "Unavailable": "E4",
    "Overloaded": "E4",
    "Conflict": "E5",
    "Fenced": "E6",
    "DataCorrupt": "E7",
    "DamagedLeaf": "E7",
}

# Single letters in brackets keep these patterns from finding themselves.
ADDRESS = re.compile(
    r"https?://[^ \"]*([p]ypi\.|files\.[p]ythonhosted|registry\.[n]pm|[r]epo1?\.maven"
    r"|[p]roxy\.golang|[d]eb\.debian|[i]ndex\.crates|[c]rates\.io/api)"
)
MACHINE = re.compile(r"(^|[^A-Za-z0-9_.-])/(wor[k]|far[m])/|/roo[t]/")


def rel(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def part(path: Path) -> str:
    return path.relative_to(SRC).with_suffix("").as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> set[str]:
    """The top-level names that are imported; of urllib the whole name, for only a part is pure."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name if name == "urllib.parse" else name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", FILES + SHOWN, ids=rel)
def test_a_module_is_small_named_for_what_it_holds_and_says_what_is_here(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    lines = text.count("\n")
    assert lines <= MODULE_LINES_MAX, "too long: split it by what changes together"
    assert path.stem not in BANNED_NAMES, "name the module after what it holds"
    if path.name == "__init__.py" and not text.strip():
        assert path in SHOWN, "first line must say what a newcomer finds here"
        return
    first = (ast.get_docstring(tree) or "").splitlines()[:1]
    assert first, "first line must say what a newcomer finds here"
    assert not first[0].startswith(("This module", "Module ", "TODO")), "say what is here"


@pytest.mark.parametrize("path", FILES + SHOWN, ids=rel)
def test_a_function_fits_on_a_screen(path: Path) -> None:
    long = {}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            lines -= _docstring_lines(node)
            if lines > FUNCTION_LINES_MAX:
                long[node.name] = lines
    assert {} == long


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    if ast.get_docstring(node) is None:
        return 0
    return (first.end_lineno or first.lineno) - first.lineno + 1


@pytest.mark.parametrize("path", TESTS, ids=rel)
def test_a_test_module_is_small(path: Path) -> None:
    assert path.read_text(encoding="utf-8").count("\n") <= MODULE_LINES_MAX


def test_test_files_have_names_of_their_own() -> None:
    names = Counter(path.name for path in TESTS if path.name.startswith("test_"))
    assert [] == [name for name, count in names.items() if count > 1]


@pytest.mark.parametrize("path", FILES, ids=rel)
def test_a_layer_imports_only_what_it_may(path: Path) -> None:
    names = imported(tree_of(path))
    pure = longest(part(path), LAYERS)
    if pure is not None:
        assert set() == names - LAYERS[pure]
        return
    client = longest(part(path), THIRD_PARTY)
    assert set() == names - ANYWHERE - (THIRD_PARTY[client] if client else set())


def longest(module: str, table: dict[str, set[str]]) -> str | None:
    """Return the longest entry of a table that is the module, or holds it."""
    found = [p for p in table if module == p or module.startswith((f"{p}/", f"{p}_"))]
    return max(found, key=len, default=None)


CODE_FILES = {
    "core/codes", "core/registry_codes", "core/request_codes", "core/service_codes", "core/stored_codes",
    "core/version_codes",
}  # fmt: skip


def codes_used() -> dict[str, list[str]]:
    """Error codes in src, each with the places that name it; the catalogue itself is left out."""
    used: dict[str, list[str]] = {}
    for path in FILES:
        if part(path) in CODE_FILES:
            continue
        for node in ast.walk(tree_of(path)):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and CODE.fullmatch(text):
                used.setdefault(text, []).append(f"{rel(path)}:{node.lineno}")
    return used


def test_a_code_means_one_thing() -> None:
    """The catalogue is put together from several files; a code in two of them would lose one meaning."""
    named = [
        node.value
        for path in FILES
        if part(path) in CODE_FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and CODE.fullmatch(str(node.value))
    ]
    assert [] == sorted(code for code, times in Counter(named).items() if times > 1)


def test_every_code_raised_is_in_the_catalogue() -> None:
    assert {} == {code: places for code, places in codes_used().items() if code not in CODES}


def test_every_code_in_the_catalogue_is_raised() -> None:
    assert [] == sorted(set(CODES) - set(codes_used()))


def test_no_entry_of_the_catalogue_is_empty() -> None:
    empty = [code for code, entry in CODES.items() if not all(text.strip() for text in entry)]
    assert [] == empty
    assert [] == [code for code in CODES if not CODE.fullmatch(code)]


@pytest.mark.parametrize("path", FILES, ids=rel)
def test_an_error_has_a_code_of_its_kind_and_a_fix(path: Path) -> None:
    wrong = []
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.Call):
            continue
        kind = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if kind not in RANGES or not node.args:
            continue
        code = node.args[0]
        if isinstance(code, ast.Constant) and not str(code.value).startswith(RANGES[kind]):
            wrong.append(f"{rel(path)}:{node.lineno} {kind} with {code.value}")
        fixes = [keyword.value for keyword in node.keywords if keyword.arg in {"fix", None}]
        if not fixes or any(isinstance(fix, ast.Constant) and not fix.value for fix in fixes):
            wrong.append(f"{rel(path)}:{node.lineno} {kind} without a fix")
    assert [] == wrong


def tracked() -> list[Path]:
    git = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    if git.returncode != 0:
        pytest.skip("not a git checkout: what is tracked is unknown")
    return [ROOT / name for name in git.stdout.decode().split("\0") if name]


def test_no_tracked_file_holds_a_registry_address_or_a_path_of_a_machine() -> None:
    found = []
    for path in tracked():
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if ADDRESS.search(line) or MACHINE.search(line):
                found.append(f"{rel(path)}:{number}")
    assert [] == found


def test_no_tracked_file_is_larger_than_a_mebibyte() -> None:
    assert [] == [rel(p) for p in tracked() if p.is_file() and p.stat().st_size > 1 << 20]


def test_the_lock_pins_everything_by_hash() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pins = re.findall(
        r"^([a-z0-9][^ =]*)==[^ ]+(.*?)(?=^[a-z0-9]|\Z)", lock, re.MULTILINE | re.DOTALL
    )
    assert [] == [name for name, rest in pins if "--hash=sha256:" not in rest]
    assert len(pins) > 50
    assert "://" not in lock


def test_python_floor() -> None:
    assert sys.version_info >= (3, 11)
