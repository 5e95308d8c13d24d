"""Definitions versions in memory: the port's contract in its plainest form."""

from collections.abc import Mapping

from penstock.core.definitions.versions import Table


class MemoryVersions:
    """Keeps versions in dictionaries; gone with the process."""

    def __init__(self) -> None:
        self._table = Table()
        self._files: dict[int, dict[str, bytes]] = {}

    def load(self) -> Table:
        """Return the table as it was last put."""
        return self._table

    def put(self, table: Table) -> None:
        """Put a table in place of the one before."""
        self._table = table

    def put_files(self, number: int, files: Mapping[str, bytes]) -> None:
        """Keep the files of a version."""
        self._files[number] = dict(files)

    def files(self, number: int) -> dict[str, bytes]:
        """Return the files of a version; none if they are not kept."""
        return dict(self._files.get(number, {}))

    def drop_files(self, number: int) -> None:
        """Forget the files of a version."""
        self._files.pop(number, None)
