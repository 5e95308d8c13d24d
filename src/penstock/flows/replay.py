"""The log, from its beginning, becomes a fresh store, and the two are compared byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import NamedTuple

from penstock.core.ids import LeafId
from penstock.core.record import encode_record
from penstock.core.step import Step
from penstock.flows.native import new_fold
from penstock.flows.process import Folded, PartitionFold, Tally, catch_up, flush_all
from penstock.ports.log import Log
from penstock.ports.store import Store, StoredLeaf
from penstock.ports.suppressions import Suppressions

SCAN_LEAVES = 1_000
LIVE_EPOCH = "live_epoch"
EPOCHS = "epochs"
"""Under it the store says, for workers, which sets of leaves are to be folded, and by what definitions."""


class Epoch(NamedTuple):
    """The set of leaves to serve, and whether it was made by the definitions at hand."""

    number: int
    current: bool


def fingerprint_name(epoch: int) -> str:
    """Return the name under which the store keeps an epoch's definitions fingerprint."""
    return f"fingerprint:{epoch}"


def choose_epoch(store: Store, fingerprint: str) -> Epoch:
    """Return the epoch to fold into: the live one if its definitions are these, else a new one.

    A new epoch that a crash left unfinished is taken up again.
    """
    live = int(store.get_meta(LIVE_EPOCH) or 0)
    if live and store.get_meta(fingerprint_name(live)) == fingerprint:
        return Epoch(live, current=True)
    for epoch in store.epochs():
        if epoch > live and store.get_meta(fingerprint_name(epoch)) == fingerprint:
            return Epoch(epoch, current=False)
    number = max([live, *store.epochs()]) + 1
    store.put_meta(fingerprint_name(number), fingerprint)
    return Epoch(number, current=False)


def make_live(store: Store, epoch: int, keep: Container[int] = ()) -> None:
    """Switch serving to an epoch and drop the others, but for those to keep."""
    store.put_meta(LIVE_EPOCH, str(epoch))
    for other in store.epochs():
        # A set of leaves goes with its snapshot.
        if abs(other) != epoch and abs(other) not in keep:
            store.drop(other)


def tell_epochs(store: Store, epochs: Mapping[int, str]) -> None:
    """Say which sets of leaves are to be folded; put each time, so that a server that was emptied gets it back.

    Args:
        store: Where workers look.
        epochs: Epoch -> the fingerprint of its definitions.
    """
    told = ",".join(f"{epoch}={fingerprint}" for epoch, fingerprint in sorted(epochs.items()))
    store.put_meta(EPOCHS, told)


def told_epochs(store: Store) -> dict[int, str]:
    """Return which sets of leaves are to be folded: epoch -> the fingerprint of its definitions."""
    pairs = (one.partition("=") for one in (store.get_meta(EPOCHS) or "").split(",") if one)
    return {int(epoch): fingerprint for epoch, _, fingerprint in pairs}


def covered_offsets(log: Log, store: Store, epoch: int) -> list[int]:
    """Return, by partition, the last offset that an epoch's written leaves cover, -1 for none.

    What records up to there ask for (links, letters, suppressions) is durable: it was made so before
    the leaves were written.
    """
    return [covered_offset(log, store, epoch, one) for one in range(log.partitions)]


def covered_offset(log: Log, store: Store, epoch: int, partition: int) -> int:
    """Return the last offset of a partition that an epoch's written leaves cover, -1 for none."""
    applied = store.applied(epoch, partition)
    return applied.offset if applied.generation == log.generations.generation(partition) else -1


def covered_by_live(log: Log, store: Store, epoch: int) -> Callable[[int], int]:
    """Return what tells, by partition, up to where the links of records are in the log for another set of leaves.

    That is the set that serves: whoever folds it appends them before it writes the leaves. For who folds
    that set itself it is nothing.

    Args:
        log: The log.
        store: Of all sets.
        epoch: Of who asks.
    """

    def covered(partition: int) -> int:
        live = int(store.get_meta(LIVE_EPOCH) or 0)
        if live in (0, epoch):
            return -1
        return covered_offset(log, store, live, partition)

    return covered


def keeper(log: Log, suppressions: Suppressions) -> Callable[[Folded], None]:
    """Return what makes durable what a batch asks for, as the live runtime does before it writes."""

    def keep(folded: Folded) -> None:
        if folded.suppressions:
            suppressions.put(folded.suppressions)
        if folded.letters:
            log.append(0, [], folded.letters)
        known = log.generations
        shares: dict[int, list[bytes]] = {}
        for record in [*folded.links, *(one.record for one in folded.late)]:
            shares.setdefault(known.partition(record.leaf), []).append(encode_record(record))
        for partition, values in shares.items():
            log.append(partition, values)

    return keep


def replay(
    log: Log, store: Store, step: Step, epoch: int, *, progress: Callable[[int], None] | None = None,
    covered: Sequence[int] | None = None, keep: Callable[[Folded], None] = lambda _: None,
) -> Tally:  # fmt: skip
    """Fold the whole log into an epoch that is empty or was left unfinished.

    Replay never appends: links and dead letters of the log's records are in the log already. Only
    of the tail that no leaf covered when the last process ended that is not known: what it asks for
    is kept as the runtime would have done. A generation of the log that has not ended yet ends the replay.

    Args:
        log: The log; only read.
        store: Where the leaves go.
        step: The step of the definitions.
        epoch: The epoch to fill.
        progress: Told how many records were folded, after every batch.
        covered: By partition, the last offset that the live leaves cover; None for all.
        keep: Makes durable what the records beyond it ask for; see `keeper`.
    """
    total = Tally()
    empty = not store.scan(epoch, None, 1)
    generations, drained = log.generations, True
    for partition in range(generations.partitions):
        # Those of the first generation share no leaf; a later one goes on with leaves that are there.
        generation = generations.generation(partition)
        if partition == generations.of(generation)[0] and not drained:
            break  # what is still to come of the one before would be too late
        fold = new_fold(
            step=step, store=store, epoch=epoch, partition=partition, generation=generation,
            empty=empty and generation == generations.first,
        )  # fmt: skip

        end = log.head(partition) if covered is None else covered[partition]
        fold.asks_from = end + 1

        def read(offset: int, limit: int, partition: int = partition, end: int = end) -> list:
            if offset <= end:
                limit = min(limit, end - offset + 1)
            pieces = log.batches(partition, offset, limit)
            if pieces and progress is not None:
                progress(sum(map(len, pieces)))
            return pieces

        def keep_tail(folded: Folded, fold: PartitionFold = fold, end: int = end) -> None:
            if fold.next_offset > end + 1:
                keep(folded)

        catch_up(fold, read, keep=keep_tail)
        flush_all(fold)
        drained = drained and fold.drained()
        for name in Tally.__slots__:
            setattr(total, name, getattr(total, name) + getattr(fold.tally, name))
    return total


class Comparison(NamedTuple):
    """How two epochs compare: leaves in both that are equal, that differ, and in one only."""

    equal: int
    different: list[LeafId]
    only_first: list[LeafId]
    only_second: list[LeafId]

    @property
    def same(self) -> bool:
        """Whether every leaf of one is in the other with the same bytes."""
        return not (self.different or self.only_first or self.only_second)


def compare(store: Store, first: int, second: int) -> Comparison:
    """Compare two epochs leaf by leaf, by bytes and not by version."""
    equal = 0
    different: list[LeafId] = []
    only: tuple[list[LeafId], list[LeafId]] = ([], [])
    left, right = _leaves(store, first), _leaves(store, second)
    a, b = next(left, None), next(right, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a[0] < b[0]):
            assert a is not None, "one of the two is there"
            only[0].append(a[0])
            a = next(left, None)
        elif a is None or b[0] < a[0]:
            only[1].append(b[0])
            b = next(right, None)
        else:
            if a[1].parts == b[1].parts:
                equal += 1
            else:
                different.append(a[0])
            a, b = next(left, None), next(right, None)
    return Comparison(equal, different, *only)


def _leaves(store: Store, epoch: int) -> Iterator[tuple[LeafId, StoredLeaf]]:
    after: LeafId | None = None
    while page := store.scan(epoch, after, SCAN_LEAVES):
        yield from page
        after = page[-1][0]
