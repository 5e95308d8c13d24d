"""A generation of the log and the next one: where one ends, and when all of it is in the leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from penstock.core.errors import SettingsError, Unavailable
from penstock.core.generations import Generations
from penstock.core.record import Kind, LogRecord, Version, kind_of
from penstock.ports.log import Log
from penstock.ports.store import Store

READ_RECORDS: Final = 5_000


def seal_of(store: Store, partition: int) -> int | None:
    """Return the offset of the seal that ends a partition, once a fold has come there; None before."""
    told = store.get_meta(_name(partition))
    return None if told is None else int(told)


def note_seal(store: Store, partition: int, offset: int) -> None:
    """Note where a partition ends, for whoever folds it later from behind there."""
    store.put_meta(_name(partition), str(offset))


def _name(partition: int) -> str:
    return f"seal:{partition}"


def drained(store: Store, epoch: int, generations: Generations, generation: int) -> bool:
    """Return whether all of a generation is in a set of leaves: each partition, up to its seal.

    The store says so, and goes on saying so: whoever asks, after whatever crash, hears the same.
    """
    for partition in generations.of(generation):
        seal = seal_of(store, partition)
        if seal is None or store.applied(epoch, partition) < Version(generation, seal):
            return False
    return True


def require_heard(generations: Generations, generation: int) -> None:
    """Refuse to append for a generation that has ended, while the next one is not known here.

    Raises:
        Unavailable: It is heard of within seconds (E480).
    """
    if generations.newest <= generation:
        raise Unavailable("E480", "the log goes on in a generation that this process has not heard of yet",
                          fix="nothing: it asks the brokers every second")  # fmt: skip


def gone_on() -> SettingsError:
    """Return what the process is told that folds itself, when the log has gone on in another generation."""
    return SettingsError("E207", "the log has gone on in another number of partitions, and only workers fold it",
                         where="fold.by", fix='set it to "workers", restart `penstock up`, and start `penstock worker`')  # fmt: skip


def folded_records(log: Log, partition: int, first: int | None = None) -> Iterator[LogRecord]:
    """Yield the records of a partition that are folded: those before its seal.

    Args:
        log: Only read.
        partition: Which.
        first: Where to begin, if not where the log does; before the seal.
    """
    ends = log.generations.ended(partition)
    for record in _records(log, partition, log.first(partition) if first is None else first):
        if ends and kind_of(record.value) == Kind.SEAL:
            return
        yield record


def late_records(log: Log, partition: int) -> Iterator[LogRecord]:
    """Yield the records behind the seal of a partition: they count where they are copied to."""
    sealed = False
    for record in (
        _records(log, partition, log.first(partition)) if log.generations.ended(partition) else ()
    ):
        if kind_of(record.value) == Kind.SEAL:
            sealed = True
        elif sealed:
            yield record


def _records(log: Log, partition: int, offset: int) -> Iterator[LogRecord]:
    while batch := log.read(partition, offset, READ_RECORDS):
        offset = batch[-1].offset + 1
        yield from batch
