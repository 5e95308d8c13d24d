"""The store's write path: versioned leaves, written base-and-new, with applied offsets."""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

from penstock.core.ids import LeafId
from penstock.core.record import Version


class StoredLeaf(NamedTuple):
    """A leaf as stored: its version and its parts (one part, the head, to begin with)."""

    version: Version
    parts: tuple[bytes, ...]


class LeafWrite(NamedTuple):
    """A write of one leaf: accepted only from `base`, harmless if `new` is already there."""

    leaf: LeafId
    base: Version
    new: Version
    parts: tuple[bytes, ...]


class Verdict(IntEnum):
    """What became of a write. A refused worker drops the partition's cache and seeks back."""

    ACCEPTED = 1
    """The stored version was `base`; it is now `new`."""
    ALREADY = 2
    """The stored version is at or past `new`; nothing changed."""
    REFUSED = 3
    """Neither: this writer worked from a stale base; nothing changed."""


class Store(Protocol):
    """Leaves under (tenant, definitions epoch, leaf id). Synchronous and batched.

    Every leaf write is atomic under one condition: accepted if the stored version equals `base`
    (an absent leaf has version `NO_VERSION`), a no-op if it is at or past `new`, else refused.
    Versions compare as (generation, offset). An embedded store commits the leaf writes and the
    applied offset of one call in one transaction; a remote store decides leaf by leaf and keeps
    the applied offset only if no write of the call was refused. An epoch is a number other than 0: the
    snapshot that a set of leaves begins from is kept under its number with the other sign.

    What is cached of a store is good for one `era` of it. A remote store may lack, after a failure,
    what it had acknowledged; its era ends then, and a caller is told before anything else is answered
    (E450). Whoever folds asks `applied` anew, before the next write of that partition: it is a state
    that the store was in, and the log has the rest.

    Conformance: `penstock.testing.conformance.store`.
    """

    @property
    def era(self) -> int:
        """Counts how often the store may have lost what it had acknowledged; no round trip."""
        ...

    @property
    def remote(self) -> bool:
        """Whether a call may wait on a network: then an event loop asks on another thread."""
        ...

    def read(self, epoch: int, leaves: Sequence[LeafId]) -> list[StoredLeaf | None]:
        """Return the leaves in the order asked, None where there is none: one round trip."""
        ...

    def write(
        self, epoch: int, writes: Sequence[LeafWrite], *, partition: int, applied: Version
    ) -> list[Verdict]:
        """Write leaves and note the partition's applied offset.

        Args:
            epoch: The definitions epoch the leaves belong to.
            writes: At most one write a leaf.
            partition: Whose applied offset this is.
            applied: Every record at or below it is covered by a written leaf or changed nothing.
                If any write is refused it is not noted; it never goes back otherwise.

        Raises:
            Unavailable: It is not known what was written (E402); writing again is safe. Or the era
                ended since `applied` was asked of this partition (E450).
        """
        ...

    def applied(self, epoch: int, partition: int) -> Version:
        """Return the applied offset of a partition; `NO_VERSION` if nothing was applied."""
        ...

    def confirmed(self, epoch: int, partition: int) -> Version:
        """Return the applied offset, once what it covers outlasts the server as far as was asked for.

        Up to there, and no further, a log may be told that its records are done with.

        Raises:
            Unavailable: Too few copies have it yet (E451), or it did not answer (E402).
        """
        ...

    def check(self) -> None:
        """Look whether the store is still what it was and may be used; at most a round trip.

        Raises:
            Unavailable: It did not answer (E402), its era ended (E450), or it can't be used (E452).
        """
        ...

    def scan(self, epoch: int, after: LeafId | None, limit: int) -> list[tuple[LeafId, StoredLeaf]]:
        """Return up to `limit` leaves with id > `after`, ascending. Pages visit each leaf once."""
        ...

    def ids(self, epoch: int, after: LeafId | None, limit: int) -> list[LeafId]:
        """Return the ids that `scan` visits, also of leaves that do not read back."""
        ...

    def epochs(self) -> list[int]:
        """Return the definitions epochs that hold anything, ascending."""
        ...

    def drop(self, epoch: int) -> None:
        """Remove everything of an epoch; used by replay and when definitions change."""
        ...

    def get_meta(self, name: str) -> str | None:
        """Return a small named value, such as the live epoch or its definitions' fingerprint."""
        ...

    def put_meta(self, name: str, value: str) -> None:
        """Keep a small named value; durable on return."""
        ...

    def close(self) -> None:
        """Release files and connections; a second call does nothing."""
        ...


class LeafCache(Protocol):
    """Leaves that others write, kept in memory until they change, for a process that only reads.

    What `applied` says is in every leaf that is read after it, whether that was kept or not: a leaf is never
    older than what the reader knows to be applied. Nothing but leaves is kept.
    """

    @property
    def size_bytes(self) -> int:
        """What is kept takes about so much memory."""
        ...

    @property
    def hits(self) -> int:
        """How many leaves were found in memory."""
        ...

    @property
    def misses(self) -> int:
        """How many had to be asked for."""
        ...

    def at_hand(self, epoch: int, leaves: Sequence[LeafId]) -> list[StoredLeaf | None] | None:
        """Return what `read` would, if that waits for nothing; else None. For an event loop."""
        ...

    def read(self, epoch: int, leaves: Sequence[LeafId]) -> list[StoredLeaf | None]:
        """Return the leaves in the order asked; see `Store.read`, also for what it raises."""
        ...

    def applied(self, epoch: int, partition: int) -> Version:
        """Return the applied offset of a partition; see `Store.applied`, also for what it raises."""
        ...

    def close(self) -> None:
        """Forget all, and release the connection; a second call does nothing."""
        ...
