"""What every keeper of definitions versions does: a table is put as a whole, files come back as they were."""

# ruff: noqa: SIM300 - asserts read `expected == actual`

from pathlib import Path

import pytest

from penstock.core.definitions.versions import Table, begin, first, pin
from penstock.core.errors import DataCorrupt, Unavailable
from penstock.ports.versions import Versions

FILES = {"features.py": b"x = 1\n", "content/hero.liquid": "é".encode(), "empty.py": b""}


def a_table(number: int = 1) -> Table:
    """Return a table with a version that serves and a candidate."""
    table = first(Table(), digest="d1", fingerprint="f1", epoch=number, now_ms=1_000)
    table, _ = begin(table, digest="d2", fingerprint="f2", now_ms=2_000)
    return pin(table, "welcome", 1)


class VersionsConformance:
    """Subclass it as `Test…` and say how to make the keeper."""

    def make(self, folder: Path) -> Versions:
        """Return a keeper in a folder: a new one, or the one that is there."""
        raise NotImplementedError

    @pytest.fixture
    def versions(self, tmp_path: Path) -> Versions:
        return self.make(tmp_path)

    def test_there_is_an_empty_table_before_the_first(self, versions: Versions):
        assert Table() == versions.load()
        assert {} == versions.files(1)

    def test_a_table_takes_the_place_of_the_one_before(self, versions: Versions):
        versions.put(a_table(1))
        versions.put(a_table(7))
        assert a_table(7) == versions.load()

    def test_files_come_back_as_they_were(self, versions: Versions):
        versions.put_files(3, FILES)
        versions.put_files(4, {"features.py": b"x = 2\n"})
        assert FILES == versions.files(3)
        assert {"features.py": b"x = 2\n"} == versions.files(4)

    def test_files_put_again_take_the_place_of_those_before(self, versions: Versions):
        versions.put_files(3, FILES)
        versions.put_files(3, {"other.py": b""})
        assert {"other.py": b""} == versions.files(3)

    def test_files_that_are_dropped_are_gone_and_so_are_none(self, versions: Versions):
        versions.put_files(3, FILES)
        versions.drop_files(3)
        versions.drop_files(3)
        assert {} == versions.files(3)


class DurableVersionsConformance(VersionsConformance):
    """For a keeper that outlives its process."""

    def damage(self, folder: Path) -> None:
        """Flip a byte of the table and of the files of version 3."""
        raise NotImplementedError

    def forbid(self, folder: Path) -> None:
        """Have every write fail."""
        raise NotImplementedError

    def test_all_is_there_when_it_is_opened_again(self, tmp_path: Path):
        one = self.make(tmp_path)
        one.put(a_table())
        one.put_files(3, FILES)
        other = self.make(tmp_path)
        assert a_table() == other.load()
        assert FILES == other.files(3)

    def test_damage_is_told_from_nothing(self, tmp_path: Path):
        versions = self.make(tmp_path)
        versions.put(a_table())
        versions.put_files(3, FILES)
        self.damage(tmp_path)
        with pytest.raises(DataCorrupt, match="E740"):
            versions.load()
        with pytest.raises(DataCorrupt, match="E740"):
            versions.files(3)

    def test_a_write_that_fails_leaves_what_was_before(self, tmp_path: Path):
        versions = self.make(tmp_path)
        versions.put(a_table(1))
        versions.put_files(3, FILES)
        self.forbid(tmp_path)
        with pytest.raises(Unavailable, match="E417"):
            versions.put(a_table(2))
        with pytest.raises(Unavailable, match="E417"):
            versions.put_files(3, {})
        assert a_table(1) == versions.load()
        assert FILES == versions.files(3)
