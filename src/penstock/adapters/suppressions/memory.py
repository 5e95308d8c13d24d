"""The register of suppressions in memory: the port's contract in its plainest form."""

import threading
from collections.abc import Iterable, Sequence

from penstock.core.errors import Unavailable
from penstock.core.ids import LeafId
from penstock.ports.suppressions import Entries, Suppression, SuppressionKey


class MemorySuppressions:
    """Keeps the register in a dictionary; gone with the process."""

    def __init__(self) -> None:
        self._entries: dict[bytes, dict[SuppressionKey, Suppression]] = {}
        self._lock = threading.Lock()
        self._closed = False

    def put(self, entries: Sequence[tuple[SuppressionKey, Suppression]]) -> None:
        """Merge entries into the register."""
        with self._lock:
            self._check_open()
            for key, entry in entries:
                held = self._entries.setdefault(key.leaf, {})
                held[key] = max(held.get(key, entry), entry)

    def get(self, leaves: Sequence[LeafId]) -> dict[SuppressionKey, Suppression]:
        """Return every entry of the leaves."""
        with self._lock:
            self._check_open()
            found: dict[SuppressionKey, Suppression] = {}
            for leaf in leaves:
                found.update(self._entries.get(leaf, {}))
            return found

    def whole(self) -> bool:
        """Return that it is: what was kept is there or the register does not answer."""
        return True

    def make_whole(self, everything: Iterable[Entries]) -> None:
        """Put what is given; it lacks nothing."""
        for entries in everything:
            self.put(entries)

    def close(self) -> None:
        """End the register."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("E403", "the register of suppressions is closed", fix="open it again")
