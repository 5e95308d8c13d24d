"""Suppressions and withdrawals: a commutative register, written before the 200 and read at send and serve."""

from collections.abc import Sequence
from typing import Protocol

from penstock.core.consent.suppression import Suppression, SuppressionKey
from penstock.core.ids import LeafId

__all__ = ["Suppression", "SuppressionKey", "Suppressions"]


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
            Unavailable: The register did not answer (E403); then nothing is sent or personalised.
        """
        ...

    def close(self) -> None:
        """Release files and connections; a second call does nothing."""
        ...
