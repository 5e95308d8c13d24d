"""Checks of the documentation: links resolve, pages can be reached, decisions have their shape."""

import re
import tomllib
from pathlib import Path

import pytest

from penstock.core.codes import CODES
from penstock.ports.metrics import METRICS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TOP = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = TOP + sorted(DOCS.rglob("*.md"))
DECISIONS = sorted(DOCS.glob("decisions/0*.md"))

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
PAGE_LINES_MAX = 60


def rel(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def links(path: Path) -> list[str]:
    return LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8")))


def anchors(path: Path) -> set[str]:
    """The anchors that a Markdown renderer gives to a page's headings."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in headings}


@pytest.mark.parametrize("path", PAGES, ids=rel)
def test_every_link_inside_the_project_leads_somewhere(path: Path) -> None:
    broken = []
    for link in links(path):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        there = target.exists()
        if there and anchor and target.suffix == ".md":
            there = anchor in anchors(target)
        if not there:
            broken.append(link)
    assert [] == broken


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md", DOCS / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or not page.exists():
            continue
        reached.add(page)
        for link in links(page):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md":
                waiting.append(target)
    assert [] == [rel(page) for page in PAGES if page not in reached and page not in TOP]


@pytest.mark.parametrize("path", PAGES, ids=rel)
def test_every_page_starts_with_its_title(path: Path) -> None:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("<!--")]
    assert lines, "an empty page"
    assert lines[0].startswith(("# ", "<"))


def test_the_readme_shows_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [] == [command for command in ("make demo", "make test") if command not in text]


@pytest.mark.parametrize("path", DECISIONS, ids=rel)
def test_a_decision_is_one_page_and_says_what_would_change_our_mind(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert ["Context", "Decision", "Consequences", "What would change our mind"] == sections
    assert text.count("\n") <= PAGE_LINES_MAX
    assert text.startswith(f"# {path.name[:4]}. ")


def test_each_decision_has_a_number_of_its_own() -> None:
    numbers = [path.name[:4] for path in DECISIONS]  # given out before a page is written
    assert sorted(set(numbers)) == numbers


def test_the_architecture_is_one_page() -> None:
    assert (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").count("\n") <= 90


def test_every_error_and_metric_is_in_the_reference() -> None:
    errors = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")
    metrics = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8")
    assert [] == [code for code in CODES if f"### {code}\n" not in errors]
    assert [] == [name for name in METRICS if f"`{name}`" not in metrics]


def test_every_dependency_is_in_the_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pinned = set(re.findall(r"^([a-z0-9][a-z0-9.-]*)(?:\[[^\]]*\])?==", lock, re.MULTILINE))
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    names = {re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0].lower() for line in wanted}
    assert [] == sorted(names - pinned)


def test_every_guarantee_names_a_test_that_exists() -> None:
    text = (DOCS / "concepts" / "guarantees.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text)
    assert len(named) > 20
    absent = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).is_file() or f"def {name}(" not in (ROOT / file).read_text()
    ]
    assert [] == absent
    promises = [
        line for line in text.splitlines() if line.startswith("| ") and "promise" not in line
    ]
    assert [] == [line for line in promises if "::test_" not in line and "---" not in line]
