"""The durable path: append with fsync, fold, links, leaf writes and applied offset; and replay."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmarks import workload
from benchmarks.duckdb_pass import DuckdbPass
from benchmarks.measure import Row, Sample, compare, interleaved, like_the_server, row, timed
from benchmarks.sampling import sampled
from benchmarks.workload import Sizes, Stream
from penstock.adapters.log.sqlite import SqliteLog
from penstock.adapters.store.sqlite import SqliteStore
from penstock.core.record import Record, encode_record
from penstock.core.step import Step
from penstock.flows.native import new_fold
from penstock.flows.replay import compare as compare_epochs
from penstock.flows.replay import replay
from penstock.runtimes.embedded import FLUSH_LEAVES
from penstock.testing.clock import HandClock

T = TypeVar("T")

GROUP = 5_000
FLUSH_RECORDS = 40_000
"""Records between two flushes: what arrives in a second of the engine at 40,000 a second."""
CACHED_MAX = 200_000
"""As `store.cached_leaves_max` is unless it is set."""
FLOOR_ZIPF, GOAL_ZIPF = 80_000, 150_000
FLOOR_APPEND, GOAL_APPEND = 600_000, 800_000
FLOOR_REPLAY, GOAL_REPLAY = 300_000, 500_000


class DurablePath:
    """The embedded engine's path of one partition, without its event loop: one thread does it all.

    Args:
        folder: Where log and store are.
        step: The step of the definitions.
        cached_max: Decoded leaves that are held.
    """

    def __init__(self, folder: Path, step: Step, cached_max: int = CACHED_MAX) -> None:
        self.clock = HandClock(workload.START_MS - 60_000)
        self.log = SqliteLog(folder / "log.db", self.clock)
        self.store = SqliteStore(folder / "store.db")
        self.fold = new_fold(
            step=step, store=self.store, epoch=1, partition=0, generation=1, cached_max=cached_max
        )
        self.links: list[Record] = []
        self.owed = 0

    def take(self, stream: Stream) -> None:
        """Take a stream in: every group durable in the log, then every leaf written."""
        values, stamps = stream.values, stream.stamps
        for start in range(0, len(values), GROUP):
            ahead_ms = stamps[start] - self.clock.now_ms()
            self.clock.advance(max(ahead_ms, 0))
            self._append(values[start : start + GROUP])
            if self.owed >= FLUSH_RECORDS:
                self.flush()
        self.flush()

    def _append(self, values: list[bytes]) -> None:
        landed = self.log.append(0, values)
        self.links.extend(self.fold.feed(landed.records(values)).links)
        self.owed += len(values)

    def flush(self) -> None:
        """Make links durable and fold them, then write leaves, as the engine does."""
        while self.links:
            links, self.links = self.links, []
            self._append([encode_record(link) for link in links])
        while (flush := self.fold.take(FLUSH_LEAVES)) is not None:
            self.fold.written(flush, self.fold.write(flush))
        self.owed = 0

    def warm(self) -> None:
        """Decode every leaf into the cache."""
        after = None
        while page := self.store.scan(1, after, 1_000):
            ids = [leaf for leaf, _ in page]
            for leaf_id, leaf in zip(ids, self.fold.fetch(ids), strict=True):
                assert leaf is not None, "it was just read"
                self.fold.cache[leaf_id] = leaf
            after = ids[-1]

    def close(self) -> None:
        """Close the files."""
        self.log.close()
        self.store.close()


def measure(sizes: Sizes, work: Path) -> list[Row]:
    """Measure the durable path and the log alone, in a folder on the disk that is used."""
    project = workload.project()
    prepared = work / "prepared"
    prepared.mkdir()
    before = DurablePath(prepared, workload.new_step(project))
    before.take(workload.first_visits(sizes.people))
    before.close()
    streams = {
        skew: workload.stream(sizes.people, sizes.durable_events, skew) for skew in workload.SKEWS
    }
    like_the_server()

    def path(skew: str, *, hot: bool, watch: Callable[[Callable[[], None]], T]) -> T:
        folder = work / "round"
        shutil.copytree(prepared, folder)
        engine = DurablePath(folder, workload.new_step(project))
        if hot:
            engine.warm()
        found = watch(lambda: engine.take(streams[skew]))
        assert not engine.fold.owes(), "all that was folded is written"
        engine.close()
        shutil.rmtree(folder)
        return found

    def round_of(skew: str, *, hot: bool) -> Sample:
        return path(skew, hot=hot, watch=partial(timed, len(streams[skew].values)))

    def append() -> Sample:
        folder = work / "append"
        folder.mkdir()
        log = SqliteLog(folder / "log.db", HandClock(workload.START_MS))
        values = streams["uniform"].values
        groups = [values[start : start + GROUP] for start in range(0, len(values), GROUP)]

        def fill() -> None:
            for group in groups:
                log.append(0, group)

        sample = timed(len(values), fill)
        log.close()
        shutil.rmtree(folder)
        return sample

    samples = interleaved(sizes.rounds, {
        "hot zipf": lambda: round_of("zipf", hot=True),
        "hot uniform": lambda: round_of("uniform", hot=True),
        "cold uniform": lambda: round_of("uniform", hot=False),
        "append": append,
    })  # fmt: skip
    name = f"log + fold + leaves + offset, {sizes.people:,} people"
    hot_zipf = row("durable", name, "zipf, hot", "events", samples["hot zipf"],
                   floor=FLOOR_ZIPF, goal=GOAL_ZIPF)  # fmt: skip
    hot_zipf.spent = path("zipf", hot=True, watch=sampled)
    return [
        hot_zipf,
        row("durable", name, "uniform, hot", "events", samples["hot uniform"]),
        row("durable", name, "uniform, cold", "events", samples["cold uniform"],
            note="every leaf is read from the store first"),
        row("durable", f"log append in groups of {GROUP:,}, fsynced", "uniform", "events",
            samples["append"], floor=FLOOR_APPEND, goal=GOAL_APPEND),
    ]  # fmt: skip


def measure_replay(sizes: Sizes, work: Path) -> list[Row]:
    """Measure a replay of a whole log of 12 days, beside DuckDB over the same records."""
    project = workload.project()
    folder = work / "history"
    folder.mkdir()
    live = DurablePath(folder, workload.new_step(project))
    stream = workload.stream(sizes.people, sizes.events, "zipf", history=True)
    live.take(stream)
    records = live.log.head(0)
    duckdb_pass = DuckdbPass(work, stream)
    epochs = iter(range(2, 2 + sizes.rounds))
    like_the_server()

    def again() -> Sample:
        epoch = next(epochs)
        sample = timed(
            records, lambda: replay(live.log, live.store, workload.new_step(project), epoch)
        )
        assert compare_epochs(live.store, 1, epoch).same, "a replay gives the same bytes"
        live.store.drop(epoch)
        return sample

    samples = interleaved(sizes.rounds, {"replay": again, "duckdb": duckdb_pass.run})
    spent = sampled(
        lambda: replay(live.log, live.store, workload.new_step(project), 2 + sizes.rounds)
    )
    duckdb_pass.check(live.fold, stream)
    duckdb_pass.close()
    live.close()
    ours = row("replay", f"whole log, 12 days, {sizes.people:,} people, store written",
               "zipf, cold", "events", samples["replay"], floor=FLOOR_REPLAY, goal=GOAL_REPLAY,
               note="leaves equal byte for byte")  # fmt: skip
    theirs = row("replay", "DuckDB, the same eight features in one pass over Parquet", "zipf, cold",
                 "events", samples["duckdb"], note="one thread; nothing decoded or stored, no consent")  # fmt: skip
    ours.spent = spent
    return [compare(ours, DuckDB=theirs), theirs]
