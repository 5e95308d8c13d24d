"""Topics that other producers write: read once by a group, committed when copied, read again by place."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from penstock.core.foreign import Foreign, Place

Positions = Mapping[tuple[str, int], int]
"""By topic and partition, the offset of the next record to copy."""


class Topics(Protocol):
    """One member of a group that shares the partitions of some topics. Synchronous; one thread at a time.

    The group gives each partition to one member at a time, as far as it can know. What was committed is
    not read again, also if somebody sets the group's offsets back: it is noted in a second place.
    Records of transactions that were aborted are never seen.

    Each method raises `Unavailable` if the brokers do not answer (E494), and `SettingsError` if they do
    not let us in or lack a topic (E237).

    Conformance: `penstock.testing.conformance.topics`.
    """

    def poll(self, limit: int, wait_ms: int) -> list[Foreign]:
        """Return records that follow the last ones, those of a partition in their order.

        Args:
            limit: Records at most.
            wait_ms: How long to wait if there are none.
        """
        ...

    def hold(self) -> None:
        """Stay in the group without records, while those that were polled can't be copied yet."""
        ...

    def commit(self, positions: Positions) -> None:
        """Note that all records before some offsets were copied; durable on return.

        Of a partition that is another's by now nothing is noted.
        """
        ...

    def read(self, places: Sequence[Place]) -> list[Foreign | None]:
        """Read records again at their places, whoever owns the partitions; None where there is none."""
        ...

    def lag(self) -> int:
        """Return how many records of the partitions owned are still to be polled, as far as is known."""
        ...

    def close(self) -> None:
        """Leave the group; a second call does nothing."""
        ...
