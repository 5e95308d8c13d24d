"""The fold: decode, de-duplication, consent, identity and eight features, in memory."""

from __future__ import annotations

from pathlib import Path

from benchmarks import workload
from benchmarks.bytewax_peer import BytewaxPeer, PeerMissing
from benchmarks.measure import Row, Sample, compare, interleaved, like_the_server, row, timed
from benchmarks.sampling import sampled
from benchmarks.workload import Sizes
from penstock.adapters.store.memory import MemoryStore
from penstock.core.record import LogRecord
from penstock.core.step import Step
from penstock.flows.native import new_fold
from penstock.flows.process import PartitionFold, flush_all

GROUP = 5_000
FLOOR_HOT_ZIPF, GOAL_HOT_ZIPF = 180_000, 240_000
AGAINST_BYTEWAX = (2.5, 4.0)


def fold_of(step: Step, store: MemoryStore | None = None) -> PartitionFold:
    """Return the fold of one partition over a store."""
    return new_fold(step=step, store=store or MemoryStore(), epoch=1, partition=0, generation=1)


def feed(fold: PartitionFold, records: list[LogRecord]) -> None:
    """Feed records in groups; links are yielded and dropped."""
    for start in range(0, len(records), GROUP):
        fold.feed(records[start : start + GROUP])


def measure(sizes: Sizes, work: Path) -> tuple[list[Row], list[str]]:
    """Measure the fold: hot, every leaf in the cache; cold, every leaf decoded from a store first.

    Args:
        sizes: How much.
        work: A folder for the records that Bytewax reads.

    Returns:
        The rows, and what was left out.
    """
    project = workload.project()
    first = workload.first_visits(sizes.people).log_records()
    streams = {
        skew: workload.stream(sizes.people, sizes.events, skew).log_records(len(first))
        for skew in workload.SKEWS
    }
    like_the_server()

    def filled() -> PartitionFold:
        fold = fold_of(workload.new_step(project))
        feed(fold, first)
        return fold

    def hot(skew: str) -> Sample:
        fold = filled()
        sample = timed(len(streams[skew]), lambda: feed(fold, streams[skew]))
        assert fold.tally.applied > 0.9 * (len(first) + len(streams[skew])), "nearly all count"
        return sample

    def cold(skew: str) -> Sample:
        store, step = MemoryStore(), workload.new_step(project)
        fold = fold_of(step, store)
        feed(fold, first)
        flush_all(fold)
        fold = fold_of(step, store)
        return timed(len(streams[skew]), lambda: feed(fold, streams[skew]))

    measurements = {
        "hot zipf": lambda: hot("zipf"),
        "hot uniform": lambda: hot("uniform"),
        "cold uniform": lambda: cold("uniform"),
    }
    left_out: list[str] = []
    try:
        peer = BytewaxPeer(work, first, streams["zipf"])
        measurements["bytewax"] = peer.run
    except PeerMissing as missing:
        left_out.append(f"Bytewax: {missing}")
    samples = interleaved(sizes.rounds, measurements)
    people = f"{sizes.people:,} people"
    hot_zipf = row("fold", f"fold, {people}", "zipf, hot", "events", samples["hot zipf"], floor=FLOOR_HOT_ZIPF,
                   goal=GOAL_HOT_ZIPF, against={"Bytewax": AGAINST_BYTEWAX})  # fmt: skip
    fold = filled()
    hot_zipf.spent = sampled(lambda: feed(fold, streams["zipf"]))
    rows = [
        hot_zipf,
        row("fold", f"fold, {people}", "uniform, hot", "events", samples["hot uniform"]),
        row("fold", f"fold, {people}", "uniform, cold", "events", samples["cold uniform"],
            note="the first event of a leaf decodes it"),
    ]  # fmt: skip
    if "bytewax" in samples:
        theirs = row("fold", f"Bytewax, the same eight features, {people}", "zipf, hot", "events",
                     samples["bytewax"], note="one worker, no recovery")  # fmt: skip
        compare(hot_zipf, Bytewax=theirs)
        rows.insert(1, theirs)
    return rows, left_out
