"""What a new set of leaves will take: measured on a sample of this log, by the step that will fold it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from penstock.core.record import Kind, LogRecord, kind_of
from penstock.core.step import Step
from penstock.flows.agree import measure
from penstock.flows.native import new_fold
from penstock.flows.process import flush_all
from penstock.ports.log import Log
from penstock.ports.store import Store

STRETCHES = 20
STRETCH_RECORDS = 1_000
"""Records that are read in a row: a person's events mostly come together."""

SLICE_RECORDS = 250


class Estimate(NamedTuple):
    """What folding the whole log into a new set of leaves will take.

    Attributes:
        records: Of the log.
        sampled: Of them, folded to measure.
        per_s: Records folded a second, by one core that does nothing else; 0 if there were none.
        seconds: For all records at the share given.
        leaves, size_bytes: Of the new set; None if there was nothing to go by.
    """

    records: int
    sampled: int
    per_s: int
    seconds: float
    leaves: int | None
    size_bytes: int | None


def estimate(
    log: Log, new: Step, make_store: Callable[[], Store], timer: Callable[[], float], *, share: float,
    budget_s: float = 1.0, old: tuple[Store, int, Step] | None = None,
) -> Estimate:  # fmt: skip
    """Fold a sample of the log, and conclude from it.

    Args:
        log: The log; only read.
        new: The step of the new definitions.
        make_store: Makes a store in memory.
        timer: Seconds of processor time.
        share: The share of a core that the fold will have, in (0, 1].
        budget_s: Processor time to spend on the sample.
        old: The store, the epoch and the step of what serves: how large its leaves are in the sample
            and on the whole says how large the new ones will be.
    """
    total = sum(log.head(partition) - log.first(partition) for partition in range(log.partitions))
    sample = _sample(log)
    store = make_store()
    began = timer()
    sampled = _fold(sample, new, store, lambda: timer() - began < budget_s)
    took_s = timer() - began
    per_s = round(sampled / took_s) if sampled and took_s > 0 else 0
    leaves = size = None
    if old is not None and sampled:
        before = make_store()
        _fold(sample[:sampled], old[2], before, lambda: True)
        all_leaves, all_bytes = measure(old[0], old[1])
        (_, new_bytes), (_, old_bytes) = measure(store, 1), measure(before, 1)
        if old_bytes:
            leaves, size = all_leaves, all_bytes * new_bytes // old_bytes
    seconds = total / per_s / share if per_s else 0.0
    return Estimate(total, sampled, per_s, seconds, leaves, size)


def _sample(log: Log) -> list[LogRecord]:
    """Return stretches of the log from its beginning to its end, in its order."""
    found: list[LogRecord] = []
    for partition in range(log.partitions):
        first, head = log.first(partition), log.head(partition)
        step = max((head - first) // STRETCHES, STRETCH_RECORDS)
        for start in range(first, head, step):
            records = log.read(partition, start, STRETCH_RECORDS)
            # What is folded as one partition has no end in the middle.
            found.extend(one for one in records if kind_of(one.value) != Kind.SEAL)
    return found


def _fold(sample: list[LogRecord], step: Step, store: Store, go_on: Callable[[], bool]) -> int:
    """Fold records as if they were a log of one partition; return how many."""
    fold = new_fold(step=step, store=store, epoch=1, partition=0, generation=1)
    folded = 0
    while folded < len(sample) and go_on():
        some = sample[folded : folded + SLICE_RECORDS]
        fold.feed([one._replace(offset=folded + index) for index, one in enumerate(some)])
        folded += len(some)
    flush_all(fold)
    return folded
