"""The conservation law, counted over durable data: the log's records against the leaves' own counts."""

from __future__ import annotations

from typing import NamedTuple

from penstock.core.feature.plan import Plan
from penstock.core.leaf import decode_leaf
from penstock.core.record import Kind, decode_record
from penstock.flows.generations import folded_records
from penstock.ports.log import Log
from penstock.ports.store import Store

SCAN_LEAVES = 1_000
EDGE_LETTER = "edge-"


class Conservation(NamedTuple):
    """accepted = applied + deduplicated + policy-dropped + dead-lettered + in flight.

    Primaries are counted, and events that the edge refused and kept; links have a law of their own.
    """

    accepted: int
    applied: int
    deduplicated: int
    policy_dropped: int
    dead_lettered: int
    in_flight: int
    links: int
    leaves: int
    whole: bool = True
    """False if a retention took records that nobody counted: then the law can't be told to be broken."""

    @property
    def holds(self) -> bool:
        """Whether nothing is lost and nothing counted twice, as far as it was counted."""
        return not self.whole or self.accepted == (
            self.applied
            + self.deduplicated
            + self.policy_dropped
            + self.dead_lettered
            + self.in_flight
        )


def conservation(log: Log, store: Store, epoch: int, plan: Plan) -> Conservation:
    """Return the law's terms over durable data: what is written, not what a process remembers.

    In flight are the primaries beyond the version of their leaf: the tail that a restart folds.
    """
    # Before the leaves: what is written while they are scanned is in flight, and not lost.
    applied_to = [store.applied(epoch, partition) for partition in range(log.partitions)]
    applied = deduplicated = dropped = dead = leaves = 0
    versions: dict[bytes, tuple[int, int]] = {}
    after = None
    while page := store.scan(epoch, after, SCAN_LEAVES):
        for leaf_id, stored in page:
            leaf = decode_leaf(leaf_id, stored.version, stored.parts[0], plan)
            versions[leaf_id] = (leaf.generation, leaf.offset)
            applied += leaf.applied
            deduplicated += leaf.deduplicated
            dropped += leaf.dropped
            dead += leaf.dead
            leaves += 1
        after = page[-1][0]
    primaries = links = in_flight = 0
    for partition in range(log.partitions):
        # What was truncated was counted then, and every leaf had it.
        offset, gone_primaries, gone_links = log.truncation(partition)
        primaries, links = primaries + gone_primaries, links + gone_links
        generation = log.generations.generation(partition)
        for entry in folded_records(log, partition, offset):
            record = decode_record(entry.value)
            if record.kind != Kind.PRIMARY:
                links += record.kind != Kind.LOST
                continue
            primaries += 1
            at = (generation, entry.offset)
            # At or below the applied offset a record is in its leaf, or it is lost.
            if at > versions.get(record.leaf, (0, -1)) and at > applied_to[partition]:
                in_flight += 1
    refused = sum(
        letter.letter_id.startswith(EDGE_LETTER) for letter in log.dead_letters(pending_only=False)
    )
    return Conservation(
        primaries + refused,
        applied,
        deduplicated,
        dropped,
        dead + refused,
        in_flight,
        links,
        leaves,
        # A log that is told to give records up counts them; a retention does not.
        not log.shared or not any(log.first(partition) for partition in range(log.partitions)),
    )
