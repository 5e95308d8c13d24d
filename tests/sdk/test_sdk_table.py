"""The table of SDKs and behaviours: every cell names a test that is there."""

import ast
import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_every_cell_names_a_test(request: pytest.FixtureRequest):
    if request.config.getoption("--update-golden"):
        return  # it is being written
    tests = {
        f"{path.name}::{node.name}"
        for path in HERE.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    table = json.loads((HERE / "behaviours.json").read_text())
    named = {test for behaviours in table.values() for test in behaviours.values()}
    assert set() == named - tests
    assert 10 == len(table)
