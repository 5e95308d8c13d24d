"""Where definitions versions are kept: the table that says which one serves, and each version's files."""

from collections.abc import Mapping
from typing import Protocol

from penstock.core.definitions.versions import Table


class Versions(Protocol):
    """The table of versions, put as a whole, and the files that each version was made of.

    It is no copy of anything: a store that was thrown away is rebuilt by what is kept here, and not
    by whatever the project's folder holds that day. It has one writer, the process that owns the log.

    Conformance: `penstock.testing.conformance.versions`.
    """

    def load(self) -> Table:
        """Return the table as it was last put; an empty one if none was.

        Raises:
            Unavailable: It can't be read (E417).
            DataCorrupt: It does not read back (E740), or is newer (E741).
        """
        ...

    def put(self, table: Table) -> None:
        """Put a table in place of the one before: atomically, and durable on return.

        Raises:
            Unavailable: It is not kept (E417); the one before stands.
        """
        ...

    def put_files(self, number: int, files: Mapping[str, bytes]) -> None:
        """Keep the files of a version, by their paths in the project; durable on return.

        Raises:
            Unavailable: They are not kept (E417).
        """
        ...

    def files(self, number: int) -> dict[str, bytes]:
        """Return the files of a version; none if they are not kept.

        Raises:
            Unavailable: They can't be read (E417).
            DataCorrupt: They are not what was put (E740).
        """
        ...

    def drop_files(self, number: int) -> None:
        """Forget the files of a version; that of one without any does nothing."""
        ...
