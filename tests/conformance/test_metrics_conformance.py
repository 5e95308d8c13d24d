"""The ways of counting that ship, against the suite of the port."""

from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.adapters.metrics.prometheus import PrometheusMetrics
from penstock.testing.conformance.metrics import MetricsConformance


class TestMemoryMetrics(MetricsConformance):
    def make(self):
        return MemoryMetrics()


class TestPrometheusMetrics(MetricsConformance):
    def make(self):
        return PrometheusMetrics()
