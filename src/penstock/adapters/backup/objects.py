"""A backup as objects under a prefix of an archive: files in parts, and the manifest last."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from penstock.adapters.files import empty, sole_use
from penstock.core.backup import MANIFEST_FILE, BackupFile
from penstock.core.errors import DataCorrupt, SettingsError, Unavailable
from penstock.ports.archive import Archive

PART_BYTES: Final = 64 * 1024 * 1024
"""A part is in memory as a whole; a file that is shorter is one."""

BESIDE: Final = ".backup.part"


class ObjectsBackup:
    """One backup in an archive. It is there when its manifest is, which is put last.

    Args:
        archive: Where it is, or is to be, under a prefix of its own.
        where: The same for messages.
        scratch: A folder on a disk with room for all its files.
        part_bytes: The longest part.
    """

    def __init__(
        self, archive: Archive, where: str, scratch: Path, *, part_bytes: int = PART_BYTES
    ) -> None:
        self._archive = archive
        self._scratch = scratch
        self._part_bytes = part_bytes
        self.where = where

    @contextmanager
    def making(self) -> Iterator[Path]:
        """Give an empty folder to put the files into; `publish` makes them the backup.

        Raises:
            SettingsError: There are objects at its place already (E240).
            Unavailable: Another process makes a backup (E442), or the folder can't be written (E441).
        """
        if self._archive.list(""):
            # Nothing here deletes objects: what a backup that was cut short left is for its owner to remove.
            raise SettingsError("E240", "there is something at this place already, and a backup overwrites nothing",
                                where=self.where, fix="name a prefix that holds nothing yet")  # fmt: skip
        beside = self._scratch / BESIDE
        try:
            beside.mkdir(mode=0o700, exist_ok=True)
            with sole_use(beside) as free:
                if not free:
                    raise Unavailable("E442", "another process makes a backup of this project", where=str(beside),
                                      fix="wait for it")  # fmt: skip
                empty(beside)
                try:
                    yield beside
                finally:
                    shutil.rmtree(beside, ignore_errors=True)
        except OSError as error:
            raise Unavailable("E441", f"the files could not be gathered ({error.strerror})", where=str(beside),
                              fix="check the data folder's permissions, and that its disk has room for a copy") from error  # fmt: skip

    def publish(self, beside: Path, manifest: bytes) -> None:
        """Put a folder's files, and the manifest when all of them are there."""
        for path in sorted(path for path in beside.rglob("*") if path.is_file()):
            name = path.relative_to(beside).as_posix()
            with path.open("rb") as file:
                for number in range(self._parts(path.stat().st_size)):
                    self._archive.put(_part(name, number), file.read(self._part_bytes))
        self._archive.put(MANIFEST_FILE, manifest)

    def manifest(self) -> bytes:
        """Return the bytes of the manifest.

        Raises:
            DataCorrupt: There is no backup here (E750).
            Unavailable: The archive does not answer (E419).
        """
        try:
            return self._archive.get(MANIFEST_FILE)
        except DataCorrupt as error:
            raise DataCorrupt("E750", f"this is no backup: it has no `{MANIFEST_FILE}`", where=self.where,
                              fix="name the prefix of a backup; one that was cut short is none") from error  # fmt: skip

    def read(self, file: BackupFile) -> Iterator[bytes]:
        """Yield the bytes of a file.

        Raises:
            DataCorrupt: A part of it is not there (E751).
            Unavailable: The archive does not answer (E419).
        """
        # However long its parts are: another version may have cut them otherwise.
        left, number = file.bytes, 0
        while number == 0 or left > 0:
            try:
                part = self._archive.get(_part(file.name, number))
            except DataCorrupt as error:
                raise DataCorrupt("E751", f"the backup lacks a part of its file `{file.name}`", where=self.where,
                                  fix="use another backup: this one is not whole") from error  # fmt: skip
            yield part
            left, number = left - max(len(part), 1), number + 1

    def _parts(self, size: int) -> int:
        return max(1, -(-size // self._part_bytes))


def _part(name: str, number: int) -> str:
    return f"{name}.{number:04}"
