"""Metrics in memory: what was counted, without a client library."""

import threading
from collections.abc import Callable

from penstock.ports.metrics import METRICS, MetricName

Labels = tuple[tuple[str, str], ...]


class MemoryMetrics:
    """Keeps counters, gauges and observations in dictionaries."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, Labels], float] = {}
        self._observed: dict[tuple[str, Labels], list[float]] = {}
        self._lock = threading.Lock()

    def count(self, name: MetricName, value: float = 1, **labels: str) -> None:
        """Add to a counter."""
        key = _key(name, "counter", labels)
        assert value >= 0, "a counter only grows"
        with self._lock:
            self._values[key] = self._values.get(key, 0) + value

    def gauge(self, name: MetricName, value: float, **labels: str) -> None:
        """Set a gauge."""
        key = _key(name, "gauge", labels)
        with self._lock:
            self._values[key] = value

    def observe(self, name: MetricName, value: float, **labels: str) -> None:
        """Record one observation of a histogram."""
        key = _key(name, "histogram", labels)
        with self._lock:
            self._observed.setdefault(key, []).append(value)

    def bound(self, name: MetricName, **labels: str) -> Callable[[float], None]:
        """Return `count` of a counter, or `observe` of a histogram, with name and labels looked up once."""
        record = self.count if METRICS[name].kind == "counter" else self.observe
        _key(name, METRICS[name].kind, labels)
        return lambda value: record(name, value, **labels)

    def value(self, name: MetricName, **labels: str) -> float:
        """Return a counter's or gauge's present value, 0 if it was never touched."""
        key = _key(name, METRICS[name].kind, labels)
        assert METRICS[name].kind != "histogram", "a histogram has no single value"
        with self._lock:
            return self._values.get(key, 0)

    def observed(self, name: MetricName, **labels: str) -> list[float]:
        """Return every observation of a histogram, in order."""
        key = _key(name, "histogram", labels)
        with self._lock:
            return list(self._observed.get(key, ()))

    def exposition(self) -> bytes:
        """Return all metrics in the Prometheus text format; a histogram has the bucket `+Inf` only."""
        with self._lock:
            values, observed = dict(self._values), dict(self._observed)
        lines: list[str] = []
        for name, metric in METRICS.items():
            lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
            if metric.kind != "histogram" and not metric.labels:
                values.setdefault((name, ()), 0)
            lines += [
                f"{name}{_braces(labels)} {value}"
                for (of, labels), value in sorted(values.items())
                if of == name
            ]
            for (of, labels), seen in sorted(observed.items()):
                if of == name:
                    every = (*labels, ("le", "+Inf"))
                    lines.append(f"{name}_bucket{_braces(every)} {len(seen)}")
                    lines.append(f"{name}_count{_braces(labels)} {len(seen)}")
                    lines.append(f"{name}_sum{_braces(labels)} {sum(seen)}")
        return ("\n".join(lines) + "\n").encode()


def _key(name: str, kind: str, labels: dict[str, str]) -> tuple[str, Labels]:
    metric = METRICS.get(name)  # type: ignore[call-overload]
    assert metric is not None, f"metric `{name}` is declared in ports.metrics"
    assert metric.kind == kind, f"metric `{name}` is a {metric.kind}"
    assert set(labels) == set(metric.labels), f"metric `{name}` has the labels {metric.labels}"
    return name, tuple((label, labels[label]) for label in metric.labels)


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(labels)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
