"""The archive: immutable objects by name, for segments of the log, snapshots and backups."""

from typing import NamedTuple, Protocol


class Stored(NamedTuple):
    """An object that is there: its name and its size in bytes."""

    name: str
    size: int


class Archive(Protocol):
    """Keeps objects that never change: a folder, or a bucket of an S3 API. Synchronous.

    A name is `part/part/…` of letters, digits, `.`, `_`, `-`, `=` and `%`. An object is there as a
    whole or not at all, and durable once `put` returns.

    Conformance: `penstock.testing.conformance.archive`.
    """

    def put(self, name: str, data: bytes) -> None:
        """Keep an object; the same bytes under the same name again change nothing.

        Raises:
            Conflict: Other bytes stand under this name (E501); nothing was changed.
            Unavailable: It is not known whether it was kept (E419); a retry is safe.
        """
        ...

    def get(self, name: str) -> bytes:
        """Return an object.

        Raises:
            DataCorrupt: There is none of this name (E731).
            Unavailable: The archive did not answer (E419).
        """
        ...

    def read(self, name: str, start: int, size: int) -> bytes:
        """Return a range of an object, shorter where the object ends. Errors as in `get`."""
        ...

    def list(self, prefix: str) -> list[Stored]:
        """Return the objects whose names begin so, by name."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is no error. For retention, and for what is damaged and written again."""
        ...

    def close(self) -> None:
        """Release connections; a second call does nothing."""
        ...
