"""A backup in a folder of its own: written beside it under another name, and renamed once it is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from penstock.adapters.files import empty, sole_use, sync_folder, sync_tree, write_new
from penstock.core.backup import MANIFEST_BYTES_MAX, MANIFEST_FILE, BackupFile
from penstock.core.errors import DataCorrupt, SettingsError, Unavailable

CHUNK_BYTES: Final = 1024 * 1024


class FolderBackup:
    """One backup in a folder. Nobody but its owner looks into it: it holds keys, and what people did.

    Args:
        folder: Where it is, or is to be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self.where = str(folder)

    @contextmanager
    def making(self) -> Iterator[Path]:
        """Give an empty folder to put the files into; `publish` makes it the backup.

        What an earlier attempt left there is removed, and so is this one's if it does not get so far.

        Raises:
            SettingsError: There is something at its place already (E240).
            Unavailable: Another process makes a backup there (E442), or the folder can't be written (E441).
        """
        beside = self._folder.with_name(f".{self._folder.name}.part")
        if os.path.lexists(self._folder):
            raise SettingsError("E240", "there is something at this place already, and a backup overwrites nothing",
                                where=self.where, fix="name a folder that does not exist yet")  # fmt: skip
        try:
            beside.parent.mkdir(parents=True, exist_ok=True)
            beside.mkdir(mode=0o700, exist_ok=True)
            with sole_use(beside) as free:
                if not free:
                    raise Unavailable("E442", "another process makes this backup", where=self.where,
                                      fix="wait for it, or name another folder")  # fmt: skip
                empty(beside)
                try:
                    yield beside
                finally:
                    shutil.rmtree(beside, ignore_errors=True)
        except OSError as error:
            raise _unavailable(self.where, error) from error

    def publish(self, beside: Path, manifest: bytes) -> None:
        """Make a folder of files the backup, whole or not at all."""
        write_new(beside / MANIFEST_FILE, iter([manifest]))
        sync_tree(beside)
        # A folder takes the place of nothing but an empty one.
        beside.rename(self._folder)
        sync_folder(self._folder.parent)

    def manifest(self) -> bytes:
        """Return the bytes of the manifest.

        Raises:
            DataCorrupt: There is no backup here (E750).
            Unavailable: The folder can't be read (E441).
        """
        try:
            with (self._folder / MANIFEST_FILE).open("rb") as file:
                return file.read(MANIFEST_BYTES_MAX)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataCorrupt("E750", f"this is no backup: it has no `{MANIFEST_FILE}`", where=self.where,
                              fix="name the folder of a backup; one that was cut short is none") from error  # fmt: skip
        except OSError as error:
            raise _unavailable(self.where, error) from error

    def read(self, file: BackupFile) -> Iterator[bytes]:
        """Yield the bytes of a file.

        Raises:
            DataCorrupt: It is not there (E751).
            Unavailable: It can't be read (E441).
        """
        path = self._folder / file.name
        try:
            with path.open("rb") as opened:
                while chunk := opened.read(CHUNK_BYTES):
                    yield chunk
        except FileNotFoundError as error:
            raise DataCorrupt("E751", f"the backup lacks its file `{file.name}`", where=self.where,
                              fix="use another backup: this one is not whole") from error  # fmt: skip
        except OSError as error:
            raise _unavailable(str(path), error) from error


def _unavailable(where: str, error: OSError) -> Unavailable:
    return Unavailable("E441", f"the backup could not be written or read ({error.strerror})", where=where,
                       fix="check the folder, who may use it, and that its disk is not full")  # fmt: skip
