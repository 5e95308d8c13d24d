"""What every way of counting does: the catalogue's metrics with their labels, and no others."""

# ruff: noqa: SIM300 - asserts read `expected == actual`

from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.ports.metrics import METRICS, MetricName, Metrics


class MetricsConformance:
    """Subclass it as `Test…` and say how to make the metrics."""

    def make(self) -> Metrics:
        """Return metrics in which nothing was counted."""
        raise NotImplementedError

    @pytest.fixture
    def metrics(self) -> Metrics:
        return self.make()

    def test_what_was_never_touched_is_0(self, metrics: Metrics):
        assert 0 == metrics.value("penstock_events_accepted_total")
        assert 0 == metrics.value("penstock_events_dead_lettered_total", reason="E301")
        assert 0 == metrics.value("penstock_events_in_flight")

    def test_counters_add_up_by_label(self, metrics: Metrics):
        metrics.count("penstock_events_dead_lettered_total", reason="E301")
        metrics.count("penstock_events_dead_lettered_total", 4, reason="E301")
        metrics.count("penstock_events_dead_lettered_total", reason="E302")
        assert 5 == metrics.value("penstock_events_dead_lettered_total", reason="E301")
        assert 1 == metrics.value("penstock_events_dead_lettered_total", reason="E302")

    def test_label_order_does_not_matter(self, metrics: Metrics):
        metrics.count("penstock_requests_total", route="/v1/batch", status="200")
        metrics.count("penstock_requests_total", status="200", route="/v1/batch")
        assert 2 == metrics.value("penstock_requests_total", route="/v1/batch", status="200")

    def test_a_bound_metric_is_the_same_metric(self, metrics: Metrics):
        count = metrics.bound("penstock_requests_total", route="/v1/batch", status="200")
        count(1)
        count(2)
        metrics.count("penstock_requests_total", route="/v1/batch", status="200")
        assert 4 == metrics.value("penstock_requests_total", route="/v1/batch", status="200")
        metrics.bound("penstock_append_seconds")(0.5)
        metrics.observe("penstock_append_seconds", 0.25)
        assert "penstock_append_seconds_sum 0.75" in metrics.exposition().decode()
        with pytest.raises(AssertionError, match="has the labels"):
            metrics.bound("penstock_requests_total", route="/v1/batch")

    def test_a_gauge_is_set(self, metrics: Metrics):
        metrics.gauge("penstock_fold_lag_records", 9, partition="0")
        metrics.gauge("penstock_fold_lag_records", 3, partition="0")
        assert 3 == metrics.value("penstock_fold_lag_records", partition="0")

    def test_what_is_not_declared_is_a_mistake(self, metrics: Metrics):
        name: MetricName = "penstock_unheard_of_total"  # type: ignore[assignment]
        with pytest.raises(AssertionError, match="is declared in"):
            metrics.count(name)
        with pytest.raises(AssertionError, match="has the labels"):
            metrics.count("penstock_events_accepted_total", person="someone")
        with pytest.raises(AssertionError, match="has the labels"):
            metrics.count("penstock_events_dead_lettered_total")
        with pytest.raises(AssertionError, match="is a gauge"):
            metrics.count("penstock_events_in_flight")
        with pytest.raises(AssertionError, match="is a counter"):
            metrics.gauge("penstock_events_accepted_total", 1)
        with pytest.raises(AssertionError, match="is a gauge"):
            metrics.observe("penstock_events_in_flight", 1)

    def test_every_metric_of_the_catalogue_is_exposed(self, metrics: Metrics):
        for name, metric in METRICS.items():
            labels = dict.fromkeys(metric.labels, 'a "label"\\')
            record = {
                "counter": metrics.count,
                "gauge": metrics.gauge,
                "histogram": metrics.observe,
            }
            record[metric.kind](name, 2, **labels)
        lines = metrics.exposition().decode().splitlines()
        for name, metric in METRICS.items():
            assert f"# TYPE {name} {metric.kind}" in lines
            braces = ",".join(rf'{label}="a \"label\"\\"' for label in sorted(metric.labels))
            braces = f"{{{braces}}}" if braces else ""
            sample = f"{name}_sum{braces} 2" if metric.kind == "histogram" else f"{name}{braces} 2"
            assert any(line in (sample, f"{sample}.0") for line in lines), sample

    def test_a_histogram_counts_its_observations(self, metrics: Metrics):
        for seconds in (0.25, 0.5, 100):
            metrics.observe("penstock_append_seconds", seconds)
        text = metrics.exposition().decode()
        assert 'penstock_append_seconds_bucket{le="+Inf"} 3' in text
        assert "penstock_append_seconds_sum 100.75" in text

    def test_threads_lose_no_count(self, metrics: Metrics):
        def count(_: int) -> None:
            for _ in range(500):
                metrics.count("penstock_events_accepted_total", 2)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(count, range(4)))
        assert 4_000 == metrics.value("penstock_events_accepted_total")
