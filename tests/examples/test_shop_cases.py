"""The example shop passes its own cases, as `penstock test` runs them."""

from pathlib import Path

from penstock.project import load_project
from penstock.testing.cases import run_cases

SHOP = Path(__file__).parent.parent.parent / "examples" / "shop"


def test_the_shop_passes_its_own_cases():
    cases = run_cases(load_project(SHOP))
    assert {} == {case.name: case.fault for case in cases if case.fault}
    assert len(cases) >= 9
