"""`penstock top`: what two looks at the metrics say, and how it is shown."""

import io
import math
import re

import pytest
from rich.console import Console

from penstock.adapters.metrics.prometheus import PrometheusMetrics
from penstock.cli.top import Sample, _counts, figures, parse, quantile, screen, spark


def look(metrics: PrometheusMetrics, at_s: float) -> Sample:
    return parse(at_s, metrics.exposition().decode())


@pytest.fixture
def metrics() -> PrometheusMetrics:
    return PrometheusMetrics()


def busy(metrics: PrometheusMetrics) -> None:
    metrics.count("penstock_events_accepted_total", 1_000)
    metrics.count("penstock_events_applied_total", 900)
    metrics.count("penstock_events_deduplicated_total", 60)
    metrics.count("penstock_events_policy_dropped_total", 20)
    metrics.count("penstock_events_dead_lettered_total", 5, reason="E311")
    metrics.count("penstock_events_dead_lettered_total", 3, reason="E320")
    metrics.gauge("penstock_events_in_flight", 12)
    metrics.gauge("penstock_fold_lag_records", 14, partition="0")
    metrics.count("penstock_requests_total", 40, route="/v1/track", status="200")
    metrics.count("penstock_served_total", 7, served="live", reason="")
    for _ in range(99):
        metrics.observe("penstock_freshness_seconds", 0.004)
    metrics.observe("penstock_freshness_seconds", 0.2)


def test_rates_are_of_the_time_between_two_looks(metrics) -> None:
    first = look(metrics, 10.0)
    busy(metrics)
    seen = figures(first, first, look(metrics, 12.0))

    assert (500, 450, 30, 10, 4) == (
        seen.accepted_per_s, seen.applied_per_s, seen.deduplicated_per_s, seen.policy_dropped_per_s,
        seen.dead_lettered_per_s,
    )  # fmt: skip
    assert (20, 12, 14) == (seen.requests_per_s, seen.in_flight, seen.lag_records)
    assert {"E311": 5, "E320": 3} == seen.rejected


def test_what_is_counted_by_nobody_is_unaccounted_for(metrics) -> None:
    first = look(metrics, 0.0)
    busy(metrics)
    assert 0 == figures(first, first, look(metrics, 1.0)).unaccounted
    metrics.count("penstock_events_accepted_total", 2)
    assert 2 == figures(first, first, look(metrics, 2.0)).unaccounted


def test_what_was_before_the_first_look_is_not_counted(metrics) -> None:
    # Given an engine that folded a tail of the log at its start, which it did not accept itself
    metrics.count("penstock_events_applied_total", 5_000)
    first = look(metrics, 0.0)
    busy(metrics)
    assert 0 == figures(first, first, look(metrics, 1.0)).unaccounted


def test_quantiles_are_of_what_was_observed_since_the_last_look(metrics) -> None:
    busy(metrics)
    before = look(metrics, 0.0)
    assert math.isnan(quantile(before, look(metrics, 1.0), "penstock_freshness_seconds", 0.5))
    for _ in range(100):
        metrics.observe("penstock_freshness_seconds", 0.03)
    now = look(metrics, 2.0)
    assert 0.025 <= quantile(before, now, "penstock_freshness_seconds", 0.5) <= 0.05
    assert 0.025 <= quantile(before, now, "penstock_freshness_seconds", 0.99) <= 0.05


def test_a_quantile_beyond_the_last_bucket_is_its_bound(metrics) -> None:
    before = look(metrics, 0.0)
    metrics.observe("penstock_freshness_seconds", 1_000)
    assert 60 == quantile(before, look(metrics, 1.0), "penstock_freshness_seconds", 0.5)


@pytest.mark.parametrize(
    ("values", "bars"),
    [([], ""), ([0, 0], "▁▁"), ([1, 2, 4, 8], "▂▃▅█"), ([math.nan, 8], " █")],
)
def test_a_spark_is_a_bar_a_value(values, bars) -> None:
    assert bars == spark(values)


def shown(*history) -> str:
    console = Console(width=96, record=True, color_system=None, file=io.StringIO())
    console.print(screen("http://127.0.0.1:8080", history))
    return "\n".join(line.rstrip() for line in console.export_text().splitlines()) + "\n"


def test_the_screen(metrics, golden) -> None:
    first = look(metrics, 0.0)
    busy(metrics)
    golden("top.txt", shown(figures(first, first, look(metrics, 2.0))))


def test_where_workers_fold_nobody_is_alarmed_by_what_they_count(metrics) -> None:
    first = look(metrics, 0.0)
    metrics.count("penstock_events_accepted_total", 1_000)
    seen = figures(first, first, look(metrics, 1.0), folds=False)
    assert seen.unaccounted is None
    screen = shown(seen, seen, seen)
    assert "unaccounted" not in screen
    assert "workers fold" in screen
    assert "applied" not in screen


def test_what_waits_in_the_spool_is_shown_and_accounted_for(metrics) -> None:
    first = look(metrics, 0.0)
    assert "kept until" not in shown(figures(first, first, first))
    metrics.count("penstock_events_accepted_total", 7)
    metrics.gauge("penstock_spool_records", 7)
    seen = figures(first, first, look(metrics, 1.0))
    assert (seen.unaccounted, seen.spooled) == (0, 7)
    assert re.search(r"kept until the log is back +7 ", shown(seen, seen, seen))


def test_how_far_feeds_are_behind_is_shown_with_those_that_are_not(metrics) -> None:
    metrics.gauge("penstock_feed_lag_records", 0, feed="decisions")
    metrics.gauge("penstock_feed_lag_records", 1_200, feed="profiles")
    now = look(metrics, 1.0)
    assert "profiles 1,200 · decisions 0" in shown(figures(now, now, now))


def test_no_reason_is_cut_off_in_a_narrow_terminal() -> None:
    reasons = {f"reason_number_{number}": number * 1_000 for number in range(9)}
    lines = _counts("discarded", reasons).plain.split("\n")
    assert all(len(line) <= 76 for line in lines)
    assert [*reasons] == re.findall(r"reason_number_\d", " ".join(lines))
    assert _counts("discarded", {}).plain == "discarded   none"


def test_an_alarm_needs_three_looks_that_agree(metrics) -> None:
    first = look(metrics, 0.0)
    metrics.count("penstock_events_accepted_total", 3)
    seen = figures(first, first, look(metrics, 1.0))
    assert "unaccounted" not in shown(seen, seen)
    assert "+3 events unaccounted for: run `penstock doctor`" in shown(seen, seen, seen)
