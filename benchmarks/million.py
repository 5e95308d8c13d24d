"""The durable path over a million people: most of their leaves are in the store alone."""

from __future__ import annotations

from pathlib import Path

from benchmarks import workload
from benchmarks.crowd import Crowd, edge_of_clone, mask_of, masked
from benchmarks.durable import DurablePath
from benchmarks.measure import Row, Sample, interleaved, like_the_server, row, timed
from benchmarks.sampling import sampled
from benchmarks.workload import SKEWS, Sizes
from penstock.core.ids import LeafId
from penstock.core.leaf import decode_leaf, encode_leaf
from penstock.core.record import NO_VERSION
from penstock.ports.store import LeafWrite, StoredLeaf

FLOOR, GOAL = {"zipf": 80_000, "uniform": 25_000}, {"zipf": 150_000, "uniform": 50_000}
PAGE = 5_000


def measure(sizes: Sizes, work: Path) -> list[Row]:
    """Measure the path where everybody has a leaf; each round has events of its own."""
    project = workload.project()
    crowd = Crowd(sizes.people, sizes.crowd_events)
    people = sizes.people * sizes.clones
    path = DurablePath(work, workload.new_step(project))
    path.take(crowd.visits(0, sizes.people))
    copy_leaves(path, sizes.clones)
    path.fold.restart()
    turns = iter(range(1_000))
    like_the_server()

    def take(skew: str) -> Sample:
        stream = crowd.stream(people, sizes.crowd_events, skew, next(turns))
        sample = timed(len(stream.values), lambda: path.take(stream))
        assert not path.fold.owes(), "all that was folded is written"
        return sample

    samples = interleaved(
        sizes.crowd_rounds, {skew: lambda skew=skew: take(skew) for skew in SKEWS}
    )
    rows: list[Row] = []
    for skew in SKEWS:
        found = row(
            "durable", f"log + fold + leaves + offset, {people:,} people", skew, "events", samples[skew],
            floor=FLOOR[skew], goal=GOAL[skew],
            note=f"{path.fold.cached_max:,} leaves held; all others are read from the store",
        )  # fmt: skip
        stream = crowd.stream(people, sizes.crowd_events, skew, next(turns))
        found.spent = sampled(lambda stream=stream: path.take(stream))
        rows.append(found)
    path.close()
    return rows


def copy_leaves(path: DurablePath, clones: int) -> None:
    """Give the store the leaves of everybody's clones: they are what folding their visits would write."""
    plan, store, applied = path.fold.step.plan, path.store, path.store.applied(1, 0)
    for page in _pages(path):
        leaves = [
            decode_leaf(leaf_id, stored.version, stored.parts[0], plan) for leaf_id, stored in page
        ]
        for clone in range(1, clones):
            mask = mask_of(clone)
            writes: list[LeafWrite] = []
            for (leaf_id, stored), leaf in zip(page, leaves, strict=True):
                edges = [edge_of_clone(edge, mask) for edge in leaf.edges.values()]
                before, leaf.edges = leaf.edges, {(edge.a, edge.b): edge for edge in edges}
                writes.append(LeafWrite(
                    LeafId(masked(leaf_id, mask)), NO_VERSION, stored.version, (encode_leaf(leaf, plan),)
                ))  # fmt: skip
                leaf.edges = before
            store.write(1, writes, partition=0, applied=applied)


def _pages(path: DurablePath) -> list[list[tuple[LeafId, StoredLeaf]]]:
    pages: list[list[tuple[LeafId, StoredLeaf]]] = []
    after = None
    while page := path.store.scan(1, after, PAGE):
        pages.append(page)
        after = page[-1][0]
    return pages
