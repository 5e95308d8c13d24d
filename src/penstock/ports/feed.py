"""A feed: a topic that other systems consume, and up to where in the log it has come."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from penstock.core.errors import Fenced
from penstock.core.ids import LeafId


class Message(NamedTuple):
    """What is said about a leaf; None says that nothing is to be kept of what was said before."""

    leaf: LeafId
    value: bytes | None


class Feed(Protocol):
    """A topic with one writer at a time. Synchronous; one thread.

    What is put, and up to where in the log that reflects it, becomes visible in one step. Who takes over
    ends every writer before, also one that sleeps and does not know it yet: nothing that it puts is ever
    read. So what is said of a leaf stands in the topic in the order in which it was put, by whomever.

    Conformance: `penstock.testing.conformance.feed`.
    """

    def take_over(self, mark: str) -> list[int] | None:
        """Become the writer; return, by partition of the log, the offset to go on from.

        Args:
            mark: By what is told from now on. None is returned if nothing was put by it last: then all is
                told anew.

        Raises:
            SettingsError: The brokers do not let us (E282), or there is no such topic (E280).
            Unavailable: They do not answer (E401).
        """
        ...

    def positions(self) -> list[int]:
        """Return, by partition of the log, the offset to go on from, as the writer has it; needs not be it.

        Raises:
            Unavailable: The brokers do not answer (E401).
        """
        ...

    def put(self, messages: Sequence[Message], positions: Sequence[int], mark: str) -> None:
        """Say these in this order, and note where to go on, and by what they were told: all, or nothing.

        Raises:
            Fenced: Another process has taken over (E607).
            Unavailable: It is not known whether it was done (E401): take over again, and ask where to go on.
        """
        ...

    def close(self) -> None:
        """Release connections; a second call does nothing."""
        ...


def fenced(topic: str) -> Fenced:
    """Return what a writer is told that is none any more."""
    return Fenced("E607", f"another process writes to {topic} now",
                  fix="nothing: this one stands by, and takes over if the other ends")  # fmt: skip
