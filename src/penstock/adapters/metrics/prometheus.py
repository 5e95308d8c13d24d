"""Metrics on prometheus-client, in a registry of their own, built from the catalogue in ports."""

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from penstock.ports.metrics import METRICS, MetricName

SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
    60,
)  # fmt: skip
"""From an fsync to a backlog."""

RECORDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
"""From one event alone to a full group commit."""

WAITING_MAX: Final = 256
"""What was counted or observed so often is brought to its counter or bucket."""


class _Waiting:
    """What was counted and is not in its counter yet: of a counter that every request adds to."""

    __slots__ = ("_add", "_inc", "_values")

    def __init__(self, inc: Callable[[float], None]) -> None:
        self._inc = inc
        self._values: deque[float] = deque()
        self._add = self._values.append

    def add(self, value: float) -> None:
        """Add; a tenth of the time of the counter itself. A deque is safe to add to on any thread."""
        assert value >= 0, "a counter only grows"
        self._add(value)
        if len(self._values) >= WAITING_MAX:
            self.settle()

    def settle(self) -> None:
        """Add it to the counter."""
        if value := sum(_taken(self._values)):
            self._inc(value)


class _Histogram:
    """Observations of one set of labels, by bucket. The client's own takes ten times as long."""

    __slots__ = ("_add", "_bounds", "_counts", "_lock", "_sum", "_values")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._lock = threading.Lock()
        self._sum = 0.0
        self._values: deque[float] = deque()
        """Observed, and not in their buckets yet."""
        self._add = self._values.append

    def observe(self, value: float) -> None:
        """Record one observation."""
        self._add(value)
        if len(self._values) >= WAITING_MAX:
            self._settle()

    def _settle(self) -> None:
        with self._lock:
            for value in _taken(self._values):
                self._counts[bisect_left(self._bounds, value)] += 1
                self._sum += value

    def exposed(self) -> tuple[list[tuple[str, float]], float]:
        """Return (upper bound, observations up to it) of each bucket, and the sum of all."""
        self._settle()
        with self._lock:
            counts, total = [*self._counts], self._sum
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(bounds, map(float, accumulate(counts)), strict=True)), total


def _taken(values: deque[float]) -> Iterator[float]:
    """Take out what is there; another thread may take some of it."""
    with suppress(IndexError):
        while True:
            yield values.popleft()


class _Family(Collector):
    """The histograms of one metric."""

    def __init__(self, name: MetricName) -> None:
        self._name: MetricName = name
        self._bounds = SECONDS if name.endswith("_seconds") else RECORDS
        self._children: dict[tuple[str, ...], _Histogram] = {}
        if not METRICS[name].labels:
            self.child(())

    def child(self, labels: tuple[str, ...]) -> _Histogram:
        """Return the histogram of some labels, in the order declared."""
        return self._children.setdefault(labels, _Histogram(self._bounds))

    def collect(self) -> Iterator[Metric]:
        """Yield the family."""
        metric = METRICS[self._name]
        family = HistogramMetricFamily(self._name, metric.help, labels=metric.labels)
        for labels, child in [*self._children.items()]:
            buckets, total = child.exposed()
            family.add_metric(labels, buckets, total)
        yield family


class PrometheusMetrics:
    """Every metric of the catalogue, and no other. Unlabelled ones are exposed from the start, as 0."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=True)
        self._waiting: list[_Waiting] = []
        self._families: dict[str, Any] = {name: self._family(name) for name in METRICS}
        # `labels()` looks a child up under a lock; batches come often enough to keep it.
        self._children: dict[tuple[str, tuple[str, ...]], Any] = {}

    def count(self, name: MetricName, value: float = 1, **labels: str) -> None:
        """Add to a counter."""
        self._child(name, "counter", labels).inc(value)

    def gauge(self, name: MetricName, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._child(name, "gauge", labels).set(value)

    def observe(self, name: MetricName, value: float, **labels: str) -> None:
        """Record one observation of a histogram."""
        self._child(name, "histogram", labels).observe(value)

    def bound(self, name: MetricName, **labels: str) -> Callable[[float], None]:
        """Return `count` of a counter, or `observe` of a histogram, with name and labels looked up once."""
        kind = METRICS[name].kind
        child = self._child(name, kind, labels)
        if kind == "histogram":
            return child.observe
        waiting = _Waiting(child.inc)
        self._waiting.append(waiting)
        return waiting.add

    def value(self, name: MetricName, **labels: str) -> float:
        """Return a counter's or gauge's present value, 0 if it was never touched."""
        _check(name, METRICS[name].kind, labels)
        assert METRICS[name].kind != "histogram", "a histogram has no single value"
        self._settle()
        return self._registry.get_sample_value(name, labels) or 0.0

    def exposition(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        self._settle()
        return generate_latest(_WithoutCreated(self._registry))

    def _settle(self) -> None:
        for waiting in self._waiting:
            waiting.settle()

    def _family(self, name: MetricName) -> Any:
        metric = METRICS[name]
        make: dict[str, Callable[[], Any]] = {
            "counter": lambda: Counter(name, metric.help, metric.labels, registry=self._registry),
            "gauge": lambda: Gauge(name, metric.help, metric.labels, registry=self._registry),
            "histogram": lambda: _registered(self._registry, _Family(name)),
        }
        return make[metric.kind]()

    def _child(self, name: MetricName, kind: str, labels: dict[str, str]) -> Any:
        metric = _check(name, kind, labels)
        key = (name, tuple(labels[label] for label in metric))
        child = self._children.get(key)
        if child is None:
            family = self._families[name]
            if kind == "histogram":
                child = family.child(key[1])
            else:
                child = family.labels(**labels) if labels else family
            self._children[key] = child
        return child


def _registered(registry: CollectorRegistry, family: _Family) -> _Family:
    registry.register(family)
    return family


class _WithoutCreated(Collector):
    """The registry without the `…_created` gauges, which double the page and which nobody reads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Yield the families, each without its creation times."""
        for family in self._registry.collect():
            family.samples = [one for one in family.samples if not one.name.endswith("_created")]
            yield family


def _check(name: MetricName, kind: str, labels: dict[str, str]) -> tuple[str, ...]:
    """Return the labels of a declared metric; a name, kind or label not declared is our mistake."""
    metric = METRICS.get(name)
    assert metric is not None, f"metric `{name}` is declared in ports.metrics"
    assert metric.kind == kind, f"metric `{name}` is a {metric.kind}"
    assert labels.keys() == set(metric.labels), f"metric `{name}` has the labels {metric.labels}"
    return metric.labels
