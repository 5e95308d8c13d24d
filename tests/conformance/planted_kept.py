"""Indexes and archives with one bug each; run by `test_planted_bugs.py`, as `planted.py` is."""

from penstock.adapters.archive.folder import FolderArchive
from penstock.adapters.leaf_index.memory import MemoryLeafIndex
from penstock.testing.conformance.archive import ArchiveConformance
from penstock.testing.conformance.leaf_index import LeafIndexConformance

# ------------------------------------------------------------------------------- index by leaf


class _FindsInTheNewestSegment(MemoryLeafIndex):
    """Looks into the last segment only, as a cache of one would."""

    def find(self, partition, leaf):
        found = super().find(partition, leaf)
        newest = max(self._segments.get(partition, {0: 0}))
        return [one for one in found if one >= newest]


class PlantedFindsInTheNewestSegment(LeafIndexConformance):
    def make(self, folder):
        return _FindsInTheNewestSegment()


class _ReplacesIndexes(MemoryLeafIndex):
    """Writes a segment's index again."""

    def put(self, partition, first, end, buckets):
        self._segments.setdefault(partition, {}).pop(first, None)
        super().put(partition, first, end, buckets)


class PlantedReplacesIndexes(LeafIndexConformance):
    def make(self, folder):
        return _ReplacesIndexes()


class _CountsRecordsAsCovered(MemoryLeafIndex):
    """Counts what it indexed, which is wrong once it begins after the start."""

    def covered(self, partition):
        segments = self._segments.get(partition, {})
        return sum(end - first for first, (end, _) in segments.items())


class PlantedCountsRecordsAsCovered(LeafIndexConformance):
    def make(self, folder):
        return _CountsRecordsAsCovered()


# ------------------------------------------------------------------------------------ archives


class _WritesOver(FolderArchive):
    """Puts the newest bytes, as a plain object store does."""

    def put(self, name, data):
        self.delete(name)
        super().put(name, data)


class PlantedWritesOver(ArchiveConformance):
    def make(self, folder):
        return _WritesOver(folder / "archive")


class _IgnoresOthers(FolderArchive):
    """Takes a name that is taken for done, without a look at the bytes."""

    def put(self, name, data):
        if name not in [one.name for one in self.list(name)]:
            super().put(name, data)


class PlantedIgnoresOthers(ArchiveConformance):
    def make(self, folder):
        return _IgnoresOthers(folder / "archive")


class _ListsAPage(FolderArchive):
    """Forgets that a listing has pages."""

    def list(self, prefix):
        return super().list(prefix)[:1_000]


class PlantedListsAPage(ArchiveConformance):
    def make(self, folder):
        return _ListsAPage(folder / "archive")


class _RangeToTheEnd(FolderArchive):
    """Takes the size of a range for its last byte."""

    def read(self, name, start, size):
        return self.get(name)[start : size + 1]


class PlantedRangeToTheEnd(ArchiveConformance):
    def make(self, folder):
        return _RangeToTheEnd(folder / "archive")
