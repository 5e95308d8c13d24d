"""Runs every Python block of README.md and docs/**/*.md as a test, the blocks of a page in order."""

from collections.abc import Generator

import pytest
from sybil import Sybil
from sybil.integration.pytest import SybilItem
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from penstock.core.decision import sources

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
).pytest()


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """Undo the random order for blocks: a later one builds on an earlier one of its page."""
    yield
    places = [place for place, item in enumerate(items) if isinstance(item, SybilItem)]
    blocks = [item for item in items if isinstance(item, SybilItem)]
    blocks.sort(key=lambda block: (block.path, block.example.line))
    for place, block in zip(places, blocks, strict=True):
        items[place] = block


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Forget the candidate sources that a block registers: two pages may show the same one."""
    before = dict(sources._registered)  # noqa: SLF001 - there is no other way to forget
    try:
        return (yield)
    finally:
        if isinstance(item, SybilItem):
            sources._registered.clear()  # noqa: SLF001
            sources._registered.update(before)  # noqa: SLF001
