"""The store in memory: the port's contract in its plainest form, for tests and trials."""

import threading
from bisect import bisect_right
from collections.abc import Sequence

from penstock.core.errors import Unavailable
from penstock.core.ids import LeafId
from penstock.core.record import NO_VERSION, Version
from penstock.ports.store import LeafWrite, StoredLeaf, Verdict


class MemoryStore:
    """Keeps leaves in dictionaries; gone with the process."""

    era = 0
    remote = False

    def __init__(self) -> None:
        self._leaves: dict[int, dict[LeafId, StoredLeaf]] = {}
        self._applied: dict[tuple[int, int], Version] = {}
        self._meta: dict[str, str] = {}
        self._lock = threading.Lock()
        self._closed = False

    def read(self, epoch: int, leaves: Sequence[LeafId]) -> list[StoredLeaf | None]:
        """Return the leaves in the order asked."""
        with self._lock:
            self._check_open()
            held = self._leaves.get(epoch, {})
            return [held.get(leaf) for leaf in leaves]

    def write(
        self, epoch: int, writes: Sequence[LeafWrite], *, partition: int, applied: Version
    ) -> list[Verdict]:
        """Write leaves and note the partition's applied offset."""
        assert len({write.leaf for write in writes}) == len(writes), "one write a leaf"
        with self._lock:
            self._check_open()
            held = self._leaves.setdefault(epoch, {})
            verdicts = [self._write_one(held, write) for write in writes]
            key = (epoch, partition)
            if Verdict.REFUSED not in verdicts and applied > self._applied.get(key, NO_VERSION):
                self._applied[key] = applied
            return verdicts

    def applied(self, epoch: int, partition: int) -> Version:
        """Return the applied offset of a partition."""
        with self._lock:
            self._check_open()
            return self._applied.get((epoch, partition), NO_VERSION)

    def confirmed(self, epoch: int, partition: int) -> Version:
        """Return the applied offset."""
        return self.applied(epoch, partition)

    def check(self) -> None:
        """Do nothing: what is in this process is what it was."""

    def scan(self, epoch: int, after: LeafId | None, limit: int) -> list[tuple[LeafId, StoredLeaf]]:
        """Return up to `limit` leaves with id > `after`, ascending."""
        with self._lock:
            self._check_open()
            held = self._leaves.get(epoch, {})
            ids = sorted(held)
            start = 0 if after is None else bisect_right(ids, after)
            return [(leaf, held[leaf]) for leaf in ids[start : start + limit]]

    def ids(self, epoch: int, after: LeafId | None, limit: int) -> list[LeafId]:
        """Return up to `limit` ids > `after`, ascending."""
        return [leaf for leaf, _ in self.scan(epoch, after, limit)]

    def epochs(self) -> list[int]:
        """Return the definitions epochs that hold anything, ascending."""
        with self._lock:
            self._check_open()
            full = {epoch for epoch, held in self._leaves.items() if held}
            return sorted(full | {epoch for epoch, _ in self._applied})

    def drop(self, epoch: int) -> None:
        """Remove everything of an epoch."""
        with self._lock:
            self._check_open()
            self._leaves.pop(epoch, None)
            for key in [key for key in self._applied if key[0] == epoch]:
                del self._applied[key]

    def get_meta(self, name: str) -> str | None:
        """Return a small named value."""
        with self._lock:
            self._check_open()
            return self._meta.get(name)

    def put_meta(self, name: str, value: str) -> None:
        """Keep a small named value."""
        with self._lock:
            self._check_open()
            self._meta[name] = value

    def close(self) -> None:
        """End the store."""
        self._closed = True

    def _write_one(self, held: dict[LeafId, StoredLeaf], write: LeafWrite) -> Verdict:
        assert write.base < write.new, "a write moves a leaf on"
        stored = held.get(write.leaf)
        version = NO_VERSION if stored is None else stored.version
        if version == write.base:
            held[write.leaf] = StoredLeaf(write.new, write.parts)
            return Verdict.ACCEPTED
        return Verdict.ALREADY if version >= write.new else Verdict.REFUSED

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("E402", "the store is closed", fix="open it again")
