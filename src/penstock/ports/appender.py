"""The async edge's way into the log: many callers, one durable group commit at a time."""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from penstock.core.record import DeadLetter, Record


class Waits(NamedTuple):
    """How long the oldest of those that wait has waited, in ms; 0 if none waits."""

    durable_ms: int
    """To be on disk."""
    folded_ms: int
    """To be folded, since it is on disk."""


NO_WAITS: Final = Waits(0, 0)


class Appender(Protocol):
    """Appends records for the edges. Returns only when they are durable.

    Records of one call land in one group commit a partition; a call that fails kept nothing of the
    partitions that failed, and a retry is safe because the step de-duplicates.
    """

    async def append(
        self,
        records: Sequence[Record | bytes],
        letters: Sequence[DeadLetter] = (),
        *,
        urgent: bool = False,
    ) -> None:
        """Append records and dead letters; durable on return.

        Args:
            records: Any partitions, in order; each may be its bytes already.
            letters: Dead letters of the same request.
            urgent: Consent, unsubscribe and complaint: never shed.

        Raises:
            Overloaded: The queue is full or its oldest entry waits too long (E410).
            Unavailable: The log did not take it (E401).
        """
        ...
