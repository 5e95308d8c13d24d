"""The read path: a person's leaves in one round trip, asynchronous."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf


class LeafRead(NamedTuple):
    """What a read of several leaves returned.

    `leaves` has an entry a leaf asked, in order, None where nothing is known of it. `as_of_ms` is
    the instant up to which the log is reflected: the stamp of the newest record folded, or now if
    nothing is waiting. `live` is False while a backlog or a replay is being worked off.
    """

    leaves: list[Leaf | None]
    as_of_ms: int
    live: bool


Versions: TypeAlias = list[tuple[int, int] | None]
"""Of leaves, in the order asked: generation and offset; None where nothing is known."""


class VersionRead(NamedTuple):
    """What a read of the versions of several leaves returned; the others as of `LeafRead`."""

    versions: Versions
    as_of_ms: int
    live: bool


class Profiles(Protocol):
    """Reads leaves for serving. The leaves returned are snapshots in effect: use them before the next await.

    Conformance: `penstock.testing.conformance.profiles`.
    """

    async def read(self, leaves: Sequence[LeafId]) -> LeafRead:
        """Return the leaves in the order asked.

        Raises:
            Unavailable: The store did not answer (E402); serving then degrades to its fallback.
        """
        ...

    def at_hand(self, leaves: Sequence[LeafId]) -> VersionRead | None:
        """Return the versions of leaves, in the order asked; None where that means to wait, or to fail."""
        return None


async def read_versions(profiles: Profiles, leaves: Sequence[LeafId]) -> VersionRead:
    """Return the versions of leaves, for less than the leaves where they are at hand.

    Raises:
        Unavailable: As `Profiles.read`.
    """
    found = profiles.at_hand(leaves)
    if found is None:
        read = await profiles.read(leaves)
        found = VersionRead(versions_of(read.leaves), read.as_of_ms, read.live)
    return found


def versions_of(leaves: Sequence[Leaf | None]) -> Versions:
    """Return the versions of leaves."""
    return [None if leaf is None else (leaf.generation, leaf.offset) for leaf in leaves]
