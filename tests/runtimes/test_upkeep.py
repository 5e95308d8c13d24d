"""Upkeep: pieces while there is time; a job that fails is counted and holds up no other."""

import pytest

from penstock.adapters.metrics.prometheus import PrometheusMetrics
from penstock.core.errors import Unavailable
from penstock.runtimes.upkeep import Upkeep

pytestmark = pytest.mark.anyio


def fails() -> int:
    raise Unavailable("E419", "the archive did not answer", where="a", fix="look")


async def test_a_job_that_fails_is_counted_and_holds_up_no_other():
    metrics, left = PrometheusMetrics(), [3, 2]
    upkeep = Upkeep([fails, lambda: left.pop() if left else 0], idle=lambda: True, metrics=metrics)
    assert 5 == await upkeep.once()
    assert 1 == metrics.value("penstock_upkeep_failures_total", code="E419")


async def test_nothing_is_done_while_there_is_work():
    upkeep = Upkeep([lambda: 1], idle=lambda: False, metrics=PrometheusMetrics())
    assert 0 == await upkeep.once()
