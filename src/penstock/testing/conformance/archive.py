"""What every archive does: an object is there as a whole or not at all, and never becomes another."""

# ruff: noqa: SIM300 - asserts read `expected == actual`

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.core.errors import Conflict, DataCorrupt
from penstock.ports.archive import Archive, Stored

ODD = "tenant%20a/p=0/0001-0002.seg"


class ArchiveConformance:
    """Subclass it as `Test…` and say how to make the archive."""

    def make(self, folder: Path) -> Archive:
        """Return an archive in a folder: a new one, or the one that is there."""
        raise NotImplementedError

    @pytest.fixture
    def archive(self, tmp_path: Path) -> Iterator[Archive]:
        archive = self.make(tmp_path)
        yield archive
        archive.close()

    def test_an_empty_archive_has_nothing(self, archive: Archive):
        assert [] == archive.list("")
        assert [] == archive.list("log/")
        for read in (archive.get, lambda name: archive.read(name, 0, 9)):
            with pytest.raises(DataCorrupt) as caught:
                read("log/a")
            assert "E731" == caught.value.code

    @pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 5_000])
    def test_an_object_is_kept_as_it_is(self, archive: Archive, data: bytes):
        archive.put(ODD, data)
        assert data == archive.get(ODD)
        assert [Stored(ODD, len(data))] == archive.list("")

    def test_an_object_never_changes(self, archive: Archive):
        archive.put("a/b", b"first")
        archive.put("a/b", b"first")
        with pytest.raises(Conflict) as caught:
            archive.put("a/b", b"other")
        assert "E501" == caught.value.code
        assert b"first" == archive.get("a/b")

    def test_a_range_is_cut_at_the_end(self, archive: Archive):
        archive.put("a", b"0123456789")
        assert b"345" == archive.read("a", 3, 3)
        assert b"89" == archive.read("a", 8, 5)
        assert b"" == archive.read("a", 10, 5)
        assert b"" == archive.read("a", 3, 0)

    def test_names_are_listed_by_prefix_in_order(self, archive: Archive):
        names = ["log/p1/b", "log/p0/a", "log/p0/b", "logs", "snapshots/x"]
        for name in names:
            archive.put(name, name.encode())
        assert ["log/p0/a", "log/p0/b", "log/p1/b"] == [one.name for one in archive.list("log/")]
        assert ["log/p0/a", "log/p0/b"] == [one.name for one in archive.list("log/p0/")]
        assert ["log/p1/b"] == [one.name for one in archive.list("log/p1/b")]
        assert sorted(names) == [one.name for one in archive.list("")]
        assert 4 == archive.list("logs")[0].size

    def test_more_objects_than_a_page_are_listed(self, archive: Archive):
        for number in range(1_050):
            archive.put(f"many/{number:05}", b"x")
        assert 1_050 == len(archive.list("many/"))

    def test_what_is_deleted_is_gone_and_may_be_deleted_again(self, archive: Archive):
        archive.put("a", b"1")
        archive.put("b", b"2")
        archive.delete("a")
        archive.delete("a")
        assert ["b"] == [one.name for one in archive.list("")]
        archive.put("a", b"3")
        assert b"3" == archive.get("a")

    def test_everything_is_there_after_opening_again(self, tmp_path: Path):
        first = self.make(tmp_path)
        first.put("a/b", b"kept")
        first.close()
        again = self.make(tmp_path)
        assert b"kept" == again.get("a/b")
        again.close()
