"""Suppressions and withdrawals: a commutative register, written before the 200 and read at send and serve."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from penstock.core.consent.suppression import Entries, Suppression, SuppressionKey
from penstock.core.ids import LeafId

__all__ = ["Entries", "Suppression", "SuppressionKey", "Suppressions"]


class Suppressions(Protocol):
    """The register. Writes are synchronous and durable on return; the merge is commutative and idempotent.

    Conformance: `penstock.testing.conformance.suppressions`.
    """

    def put(self, entries: Sequence[tuple[SuppressionKey, Suppression]]) -> None:
        """Merge entries into the register, atomically; durable on return.

        Raises:
            Unavailable: Nothing was kept (E403); a retry is safe, and the edge answers 503.
        """
        ...

    def get(self, leaves: Sequence[LeafId]) -> dict[SuppressionKey, Suppression]:
        """Return every entry of the leaves; one round trip.

        Raises:
            Unavailable: The register did not answer, or may lack what it was told (E403); then nothing is
                sent or personalised.
        """
        ...

    def whole(self) -> bool:
        """Return whether it has all that it was told; a remote one may have lost some, and answers no `get` then."""
        ...

    def make_whole(self, everything: Iterable[Entries]) -> None:
        """Put what it may lack, all of which the log has, and answer again.

        Raises:
            Unavailable: It did not answer (E403), or lost something meanwhile (E450): begin again.
        """
        ...

    def close(self) -> None:
        """Release files and connections; a second call does nothing."""
        ...
