"""What the log says of permission, gone over again: a register that lost something is made whole with it."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.core.consent.suppression import PERMISSION_EVENTS, Entries, suppression_of
from penstock.core.record import decode_records
from penstock.ports.log import Log
from penstock.ports.suppressions import Suppressions

READ_RECORDS = 2_000

_NAMES = tuple(name.encode() for name in sorted(PERMISSION_EVENTS))


def make_whole(log: Log, suppressions: Suppressions) -> bool:
    """Make the register whole if it is not; return whether it had to be.

    All of the log is read, and the few records decoded that name an event about permission. Who
    suppresses and who lifts is decided as in the fold, and merging again changes nothing.

    Raises:
        Unavailable: The register did not answer (E403), or lost something meanwhile (E450): try again.
        SettingsError: The log was truncated, and its archive is not named any more (E271).
    """
    if suppressions.whole():
        return False
    suppressions.make_whole(_told(log))
    return True


def _told(log: Log) -> Iterator[Entries]:
    for partition in range(log.partitions):
        offset = log.first(partition)
        while batch := log.read(partition, offset, READ_RECORDS):
            offset = batch[-1].offset + 1
            values = [one.value for one in batch if any(name in one.value for name in _NAMES)]
            entries: Entries = []
            for record in decode_records(values):
                entries += suppression_of(record)
            if entries:
                yield entries
