"""The settings of who folds, and how: `[fold]`, part of the tree in `penstock.settings`."""

from __future__ import annotations

from typing import Final

import msgspec


class FoldSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who folds the log into leaves: `[fold]`."""

    by: str = "up"
    flush_ms: int = 100
    group: str = ""
    member: str = ""
    protocol: str = "classic"
    session_ms: int = 10_000
    processes: int = 1
    host: str = "127.0.0.1"
    port: int = 8_081
    accelerated: bool = True


DOCS: Final[dict[str, str]] = {
    "fold.by": "Who folds: `up` (that process itself) or `workers` (`penstock worker`, as many as you start; needs `log.kind` "
    '`"kafka"`).',
    "fold.flush_ms": "How long a leaf that a worker has changed may wait to be written: so old may be what is served.",
    "fold.group": "What the name of the workers' consumer group begins with; tenant and set of leaves are added. Empty goes by `log.kafka.prefix`, so "
    "that projects with prefixes of their own have groups of their own: `penstock` with that of the default, else the prefix and `penstock`.",
    "fold.member": "Name of a worker's static membership, different for each: started again within `session_ms`, it gets back "
    "the partitions that it had. Empty for none. Or `env:NAME`.",
    "fold.protocol": "How the group shares partitions out: `classic`, or `consumer` with brokers of Kafka 4.0 or newer.",
    "fold.session_ms": "How long a worker may be silent before others get its partitions; with `consumer` the brokers' setting counts.",
    "fold.processes": "Processes that `penstock worker` starts, a core each; they share the partitions.",
    "fold.host": "Address on which a worker answers `/health`, `/ready` and `/metrics`.",
    "fold.accelerated": "Fold, and make records of requests, by the native accelerator where it is installed; leaves and records "
    "are the same byte for byte.",
    "fold.port": "Port of it; each further process has the next one. 0 picks free ones.",
}
"""What each setting means, as `penstock.settings.DOCS`."""

CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "fold.by": ("up", "workers"),
    "fold.protocol": ("classic", "consumer"),
}
"""What may be chosen from, as `penstock.settings.CHOICES`."""

RANGES: Final[dict[str, tuple[float, float]]] = {
    "fold.flush_ms": (1, 60_000),
    "fold.session_ms": (1_000, 1_800_000),
    "fold.processes": (1, 256),
    "fold.port": (0, 65_535),
}
"""The least and the greatest value, as `penstock.settings.RANGES`."""

SECRETS: Final[tuple[tuple[str, ...], ...]] = (("fold", "member"),)
"""Settings that may say `env:NAME`, as `penstock.settings.SECRETS`: a name that each process has of its own."""
