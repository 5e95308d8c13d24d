"""What folds the log's bytes into leaves, and makes records of requests, without Python: optional.

One object is the fold of one partition, for one thread. It holds leaves, and folds slices of records:
`scan` looks them through and says what it lacks, `run` folds up to the first that it leaves to Python.
What crosses are encoded records and leaves, so the codec of leaves is all that both sides share.

`NativeIntake` makes records of a request's body, event by event, as far as it knows them.

Laws:
    The records of a body are those that `flows/collect.py` makes, byte for byte.
    After any history a leaf's bytes and version are those that `core/step.py` gives, however often it
    was handed over to Python and back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

from penstock.core.ids import LeafId
from penstock.core.record import LogRecord

FORMAT: Final = 4
"""Of these calls and of what is handed over; an accelerator of another one is not used."""

At: TypeAlias = tuple[int, int]
"""A version: generation and offset."""

Accelerate: TypeAlias = Callable[[bytes, bytes], "Accelerator"]
"""(`Plan.handed_over`, the rules as msgpack) -> accelerator; ValueError if it does not read them."""

AccelerateIntake: TypeAlias = Callable[[bytes, bytes, bytes], "NativeIntake"]
"""(definitions as msgpack, key of leaf ids, key of pseudonyms) -> intake; ValueError if it does not read them."""


class NativeIntake(Protocol):
    """The intake of one set of definitions. It refuses nothing: what it does not know it leaves to Python."""

    def judge(
        self, source: str, gpc: bool, said: list[tuple[str, bool]], evidence: bytes, used: str
    ) -> None:  # fmt: skip
        """Tell what is done with what a source's events say of consent: `collect`, `bare`, or why nothing is kept."""
        ...

    def take(
        self, body: bytes, kind: str | None, batch: bool, limits: tuple[int, int],
        source: tuple[str, int, bool, bool], gpc: bool, received_at_ms: int,
    ) -> tuple[list[bytes | None], list[int], list[tuple[int, str]], list[tuple[str, int]], int] | None:  # fmt: skip
        """Make records of a body.

        Args:
            body: In plain.
            kind: The type that the path says of its one event; None if the body does.
            batch: It holds a list of events.
            limits: Bytes of an event, and events of a batch.
            source: Its name, rank, whether it is verified, and whether it has keys of identity tokens.
            gpc: The request carried `Sec-GPC: 1`.
            received_at_ms: When it was received.

        Returns:
            None if all of it is left to Python; else a record for each event, None of those without one;
            places of events that are left to Python; places of those of which nothing is kept, and why;
            numbers of fields that nothing declares, by the event that metrics name; the number of identifiers
            that were left out.
        """
        ...


class Accelerator(Protocol):
    """The leaves of one partition, and their fold."""

    @property
    def broken(self) -> bool:
        """Whether a bug has ended it: whatever is asked of it but to `clear` raises RuntimeError."""
        ...

    @property
    def calendar(self) -> bool:
        """Whether calendar periods are folded, so that offsets of the time zone are to be told."""
        ...

    def scan(
        self, records: Sequence[LogRecord | bytes], start: int, stop: int, at: tuple[int, int] | None = None
    ) -> tuple[list[LeafId], list[int], list[int], list[int]]:  # fmt: skip
        """Take a slice of a list of records.

        Args:
            records: As they are read, or their bytes alone.
            start: The first of the slice.
            stop: Its end.
            at: Of bytes alone, the offset of the list's first and the stamp of all.

        Returns:
            Leaves that are not held; places of records that Python must read; places of records whose
            evidence is to be judged; quarters of an hour whose offset is to be told.
        """
        ...

    def judge(
        self, place: int, mask: int, permitted: Sequence[str], words: Sequence[tuple[str, bool, str]] | None
    ) -> None:  # fmt: skip
        """Tell what the evidence of a record permits and says, as `core.step.Verdict` does."""
        ...

    def tell(self, quarter: int, offset_ms: int | None) -> None:
        """Tell the offset of local time in a quarter of an hour; None if it changes within it."""
        ...

    def run(
        self, start: int, generation: int
    ) -> tuple[int, list[tuple[int, list[int]]], list[int], list[int]]:
        """Fold the slice from a place on.

        Returns:
            The place of the first record that Python must fold, or the slice's end; of those before it
            (place, edges that are news to their other leaf), dead ones, and those that speak of permission.
        """
        ...

    def put(self, leaf: LeafId, version: At, raw: bytes | None) -> bool:
        """Hold a leaf as the store has it, or a new one; False if Python must keep it."""
        ...

    def replace(self, leaf: LeafId, version: At, raw: bytes | None, dirty: int | None) -> bool:
        """Take back a leaf that Python changed, first by the record at `dirty`; False if Python must keep it."""
        ...

    def leaf(self, leaf: LeafId) -> tuple[At, At, bytes | None] | None:
        """Return a leaf's version, base and bytes; no bytes if Python keeps it, None if it is not held."""
        ...

    def version(self, leaf: LeafId) -> At | None:
        """Return a leaf's version; None if it is not held."""
        ...

    def versions(self, leaves: Sequence[LeafId]) -> list[At | None]:
        """Return the versions of leaves, in their order; None of those that are not held."""
        ...

    def absent(self, leaves: Sequence[bytes]) -> list[LeafId]:
        """Return which leaves are not held."""
        ...

    def take(self, limit: int, before: int | None) -> list[tuple[LeafId, At, At, bytes | None]]:
        """Take changed leaves, oldest change first: (leaf, base, version, bytes if Python does not keep it)."""
        ...

    def written(self, writes: Sequence[tuple[LeafId, At]]) -> None:
        """Note which versions the store has."""
        ...

    def oldest(self) -> int | None:
        """Return the offset of the first record that no written leaf covers."""
        ...

    def dirty(self) -> list[tuple[LeafId, int]]:
        """Return changed leaves with the first record that is not written, oldest first."""
        ...

    def dirty_count(self) -> int:
        """Return how many leaves changed and are not taken."""
        ...

    def clear_dirty(self) -> None:
        """Forget which leaves changed."""
        ...

    def evict(self, most: int) -> list[LeafId]:
        """Let go of the oldest loaded beyond a number, but for what is not written; return those that Python keeps."""
        ...

    def drop(self, leaves: Sequence[LeafId]) -> None:
        """Let go of some leaves, whatever of them is not written."""
        ...

    def clear(self) -> None:
        """Let go of all leaves."""
        ...

    def counted(self) -> Sequence[int]:
        """Return how many records had each `core.step.Outcome`, since the last call."""
        ...

    def leaves(self) -> list[LeafId]:
        """Return which leaves are held."""
        ...

    def __len__(self) -> int:
        """Return how many leaves are held."""
        ...

    def __contains__(self, leaf: object) -> bool:
        """Return whether a leaf is held."""
        ...
