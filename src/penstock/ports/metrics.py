"""The catalogue of metric names, each with its meaning and labels, and how to count."""

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

MetricName = Literal[
    "penstock_events_accepted_total",
    "penstock_events_applied_total",
    "penstock_events_deduplicated_total",
    "penstock_events_dead_lettered_total",
    "penstock_events_policy_dropped_total",
    "penstock_events_discarded_total",
    "penstock_events_in_flight",
    "penstock_fields_undeclared_total",
    "penstock_links_appended_total",
    "penstock_requests_total",
    "penstock_requests_shed_total",
    "penstock_connections",
    "penstock_connections_ended_total",
    "penstock_append_seconds",
    "penstock_archived_records_total",
    "penstock_archive_behind_records",
    "penstock_log_first_offset",
    "penstock_log_truncated_records_total",
    "penstock_upkeep_failures_total",
    "penstock_append_records",
    "penstock_fold_lag_records",
    "penstock_freshness_seconds",
    "penstock_leaves_dirty",
    "penstock_leaves_cached",
    "penstock_leaf_cache_reads_total",
    "penstock_leaf_cache_bytes",
    "penstock_leaves_quarantined_total",
    "penstock_store_write_seconds",
    "penstock_served_total",
    "penstock_serve_seconds",
    "penstock_decisions_total",
    "penstock_outbox_pending",
    "penstock_sends_total",
    "penstock_suppressions_written_total",
    "penstock_item_cache_miss_total",
    "penstock_identity_tokens_total",
    "penstock_definitions_version",
    "penstock_definitions_lag_records",
    "penstock_definitions_switches_total",
    "penstock_registry_failures_total",
    "penstock_connect_records_total",
    "penstock_connect_lag_records",
    "penstock_connect_failures_total",
    "penstock_fold_lag_seconds",
    "penstock_partition_resting",
    "penstock_partitions_owned",
    "penstock_rebalances_total",
    "penstock_worker_faults_total",
    "penstock_writes_refused_total",
    "penstock_feed_messages_total",
    "penstock_spool_records",
    "penstock_spool_bytes",
    "penstock_spool_since_seconds",
    "penstock_spool_damaged_batches",
    "penstock_spooled_records_total",
    "penstock_spool_drained_records_total",
    "penstock_feed_lag_records",
    "penstock_feed_failures_total",
]


class Metric(NamedTuple):
    """What a metric is: its kind (`counter`, `gauge`, `histogram`), labels and meaning."""

    kind: str
    labels: tuple[str, ...]
    help: str


METRICS: dict[MetricName, Metric] = {
    "penstock_events_accepted_total": Metric(
        "counter", (), "Primary records and dead letters appended."
    ),
    "penstock_events_applied_total": Metric(
        "counter", (), "Primary records applied to their leaf."
    ),
    "penstock_events_deduplicated_total": Metric("counter", (), "Primary records seen before."),
    "penstock_events_dead_lettered_total": Metric(
        "counter", ("reason",), "Events kept as dead letters, by error code."
    ),
    "penstock_events_policy_dropped_total": Metric(
        "counter", (), "Primary records that consent did not let count."
    ),
    "penstock_events_discarded_total": Metric(
        "counter", ("reason",), "Events discarded at the edge, never appended."
    ),
    "penstock_events_in_flight": Metric(
        "gauge", (), "Primary records appended and not yet folded."
    ),
    "penstock_fields_undeclared_total": Metric(
        "counter", ("event",), "Fields dropped because no declaration names them."
    ),
    "penstock_links_appended_total": Metric(
        "counter", (), "Link records appended by this runtime."
    ),
    "penstock_requests_total": Metric(
        "counter", ("route", "status"), "HTTP requests by route template and status."
    ),
    "penstock_requests_shed_total": Metric(
        "counter",
        ("reason",),
        "Requests refused with 429: for what others wait (`full_turn`, `slow_answers`, `slow_append`, `slow_fold`), for want of room "
        "(`in_flight`, `memory`, `connections`, `append_queue`, `fold_lag`), or for a key's `quota`.",
    ),
    "penstock_connections": Metric("gauge", (), "Connections that are open."),
    "penstock_connections_ended_total": Metric(
        "counter", ("reason",), "Connections that gave way to others: `idle`, `slow` or `refused`."
    ),
    "penstock_archived_records_total": Metric(
        "counter", (), "Records copied to the archive and read back."
    ),
    "penstock_archive_behind_records": Metric(
        "gauge",
        (),
        "Records of the log that are not in the archive; up to a segment a partition is usual.",
    ),
    "penstock_log_first_offset": Metric(
        "gauge",
        ("partition",),
        "Offset that the log was truncated up to; what is below is in the archive.",
    ),
    "penstock_log_truncated_records_total": Metric(
        "counter", (), "Records removed from the log by truncation."
    ),
    "penstock_upkeep_failures_total": Metric(
        "counter", ("code",), "Indexing or archiving that failed, and is tried again."
    ),
    "penstock_append_seconds": Metric("histogram", (), "Time of one durable append."),
    "penstock_append_records": Metric("histogram", (), "Records in one group commit."),
    "penstock_fold_lag_records": Metric(
        "gauge", ("partition",), "Records in the log not yet folded."
    ),
    "penstock_freshness_seconds": Metric(
        "histogram", (), "From receipt to folded, ready to be served."
    ),
    "penstock_leaves_dirty": Metric("gauge", (), "Leaves changed in memory and not yet written."),
    "penstock_leaves_cached": Metric("gauge", (), "Leaves held decoded in memory."),
    "penstock_leaf_cache_reads_total": Metric(
        "counter",
        ("outcome",),
        "Leaves on a server that were read where `store.redis.cache_mb` keeps them: `hit` or `miss`.",
    ),
    "penstock_leaf_cache_bytes": Metric("gauge", (), "What those kept take of memory, about."),
    "penstock_leaves_quarantined_total": Metric(
        "counter", (), "Identifiers set aside for their size."
    ),
    "penstock_store_write_seconds": Metric("histogram", (), "Time of one store transaction."),
    "penstock_served_total": Metric(
        "counter", ("served", "reason"), "Answers by how they were served and why."
    ),
    "penstock_serve_seconds": Metric("histogram", ("route",), "Time to answer, by route template."),
    "penstock_decisions_total": Metric(
        "counter", ("outcome",), "Decisions made, repeated or undecided."
    ),
    "penstock_outbox_pending": Metric("gauge", (), "Decisions not yet in the log."),
    "penstock_sends_total": Metric("counter", ("state",), "Emails by outcome of the hand-over."),
    "penstock_suppressions_written_total": Metric(
        "counter", ("reason",), "Suppressions and withdrawals written."
    ),
    "penstock_item_cache_miss_total": Metric(
        "counter", (), "Events stamped with no item because the cache had none."
    ),
    "penstock_identity_tokens_total": Metric(
        "counter", ("outcome",), "Signed identity tokens, by whether they vouched and why not."
    ),
    "penstock_definitions_version": Metric(
        "gauge", (), "Number of the definitions version that serves."
    ),
    "penstock_definitions_lag_records": Metric(
        "gauge", (), "Records that a version being built beside has yet to fold."
    ),
    "penstock_definitions_switches_total": Metric(
        "counter", (), "Times that another definitions version began to serve."
    ),
    "penstock_registry_failures_total": Metric(
        "counter", ("code",), "Questions that the schema registry did not answer, by error code."
    ),
    "penstock_connect_records_total": Metric(
        "counter",
        ("connector", "outcome"),
        "Records of other producers: `accepted`, `refused`, `parked` or `left_out`.",
    ),
    "penstock_connect_lag_records": Metric(
        "gauge", ("connector",), "Records of its topics that a connector has not copied yet."
    ),
    "penstock_connect_failures_total": Metric(
        "counter",
        ("connector", "code"),
        "Times that a connector could not go on and tried again, by error code.",
    ),
    "penstock_fold_lag_seconds": Metric(
        "gauge",
        ("partition",),
        "Age of the newest record that a worker has folded, while others wait to be folded; else 0.",
    ),
    "penstock_partition_resting": Metric(
        "gauge",
        ("partition",),
        "1 while a worker is not folding a partition it owns, for a fault that it tries again after a while.",
    ),
    "penstock_partitions_owned": Metric("gauge", (), "Partitions that this worker owns."),
    "penstock_rebalances_total": Metric(
        "counter",
        ("kind",),
        "Partitions that came to a worker or went: `assigned`, `revoked` or `lost`.",
    ),
    "penstock_worker_faults_total": Metric(
        "counter", ("code",), "Faults for which a worker let a partition rest, by error code."
    ),
    "penstock_writes_refused_total": Metric(
        "counter",
        (),
        "Flushes in which the store refused a leaf, because another worker had written it.",
    ),
    "penstock_spool_records": Metric(
        "gauge", (), "Records that wait on this machine's disk until the log takes them."
    ),
    "penstock_spool_bytes": Metric("gauge", (), "Their size; `log.kafka.spool_mb` bounds it."),
    "penstock_spool_since_seconds": Metric(
        "gauge", (), "When the oldest of them was kept, Unix time; 0 if none waits."
    ),
    "penstock_spool_damaged_batches": Metric(
        "gauge", (), "Batches of them that do not read back, and are not appended."
    ),
    "penstock_spooled_records_total": Metric(
        "counter",
        (),
        "Records kept on this machine's disk because the log did not acknowledge them.",
    ),
    "penstock_spool_drained_records_total": Metric(
        "counter", (), "Records of those that were appended to the log in the end."
    ),
    "penstock_feed_messages_total": Metric(
        "counter",
        ("feed", "kind"),
        "Messages told to other systems on `decisions` and `profiles`, by whether they are a `value` or a `tombstone`.",
    ),
    "penstock_feed_lag_records": Metric(
        "gauge",
        ("feed",),
        "Records that other systems were not told of yet; 0 in a process that stands by.",
    ),
    "penstock_feed_failures_total": Metric(
        "counter",
        ("feed", "code"),
        "Times that a feed could not go on and tried again or stood by, by error code.",
    ),
}


class Metrics(Protocol):
    """Counts things. Cheap enough for every batch; never called per event on a hot path."""

    def count(self, name: MetricName, value: float = 1, **labels: str) -> None:
        """Add to a counter."""
        ...

    def gauge(self, name: MetricName, value: float, **labels: str) -> None:
        """Set a gauge."""
        ...

    def observe(self, name: MetricName, value: float, **labels: str) -> None:
        """Record one observation of a histogram, in the metric's unit."""
        ...

    def bound(self, name: MetricName, **labels: str) -> Callable[[float], None]:
        """Return `count` of a counter, or `observe` of a histogram, with name and labels looked up once.

        For what is counted at every request.
        """
        ...

    def value(self, name: MetricName, **labels: str) -> float:
        """Return a counter's or gauge's present value, 0 if it was never touched."""
        ...

    def exposition(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        ...
