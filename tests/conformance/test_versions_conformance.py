"""The keepers of definitions versions that ship, against the suite of the port."""

from pathlib import Path

from penstock.adapters.versions.folder import FolderVersions
from penstock.adapters.versions.memory import MemoryVersions
from penstock.testing.conformance.versions import DurableVersionsConformance, VersionsConformance


class TestMemoryVersions(VersionsConformance):
    def make(self, folder):
        return MemoryVersions()


class TestFolderVersions(DurableVersionsConformance):
    def make(self, folder):
        return FolderVersions(folder / "definitions")

    def damage(self, folder: Path) -> None:
        for name, at in (("versions.json", 5), ("0003.zip", 32)):
            path = folder / "definitions" / name
            raw = bytearray(path.read_bytes())
            raw[at] ^= 0xFF
            path.write_bytes(bytes(raw))

    def forbid(self, folder: Path) -> None:
        # What is written beside is in the way: a folder can't be replaced by a file.
        for name in ("versions.json.new", "0003.zip.new"):
            (folder / "definitions" / name).mkdir()
