"""Definitions versions in a folder: `versions.json`, and one archive of files a version."""

import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

from penstock.adapters.files import sync_folder
from penstock.core.definitions.versions import Table, decode_table, encode_table
from penstock.core.errors import DataCorrupt, Unavailable

TABLE_FILE: Final = "versions.json"
TABLE_BYTES_MAX: Final = 8 * 1024 * 1024
_SINCE: Final = (1980, 1, 1, 0, 0, 0)
"""The time of every file in an archive: equal files, equal bytes."""


class FolderVersions:
    """Keeps versions in a folder that only its owner may read. Every file is replaced as a whole.

    Args:
        folder: Made with the first file; the one above it exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> Table:
        """Return the table as it was last put; an empty one if none was."""
        raw = self._read(self._folder / TABLE_FILE)
        return Table() if raw is None else decode_table(raw)

    def put(self, table: Table) -> None:
        """Put a table in place of the one before: atomically, and fsynced."""
        self._write(self._folder / TABLE_FILE, encode_table(table))

    def put_files(self, number: int, files: Mapping[str, bytes]) -> None:
        """Keep the files of a version in one archive, which any tool opens."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in sorted(files.items()):
                archive.writestr(zipfile.ZipInfo(name, _SINCE), content)
            archive.comment = _check(files)
        self._write(self._archive(number), packed.getvalue())

    def files(self, number: int) -> dict[str, bytes]:
        """Return the files of a version; none if they are not kept."""
        path = self._archive(number)
        raw = self._read(path)
        if raw is None:
            return {}
        try:
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                found = {name: archive.read(name) for name in archive.namelist()}
                good = archive.comment == _check(found)
        except (
            zipfile.BadZipFile,
            zlib.error,
            ValueError,
            OSError,
            EOFError,
            NotImplementedError,
        ) as error:
            raise _corrupt(path) from error
        if not good:
            raise _corrupt(path)
        return found

    def drop_files(self, number: int) -> None:
        """Forget the files of a version."""
        with suppress(OSError):  # a file that stays takes room, and nothing else
            self._archive(number).unlink(missing_ok=True)

    def _archive(self, number: int) -> Path:
        return self._folder / f"{number:04}.zip"

    def _read(self, path: Path) -> bytes | None:
        try:
            with path.open("rb") as file:
                return file.read(TABLE_BYTES_MAX if path.name == TABLE_FILE else -1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unavailable(path, error) from error

    def _write(self, path: Path, raw: bytes) -> None:
        beside = path.with_name(f"{path.name}.new")
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            beside.unlink(missing_ok=True)
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            sync_folder(self._folder)
            sync_folder(self._folder.parent)
        except OSError as error:
            raise _unavailable(path, error) from error


def _check(files: Mapping[str, bytes]) -> bytes:
    digest = blake2b(digest_size=16, person=b"definitions")
    for name, content in sorted(files.items()):
        digest.update(f"{len(name)} {name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest().encode()


def _unavailable(path: Path, error: OSError) -> Unavailable:
    return Unavailable("E417", f"the definitions versions did not answer ({error.strerror})", where=str(path),
                       fix="check the folder's permissions and its disk, and try again")  # fmt: skip


def _corrupt(path: Path) -> DataCorrupt:
    return DataCorrupt("E740", "the files of a definitions version do not read back", where=str(path),
                       fix="restore the file from a backup, or move it away and apply the project's files")  # fmt: skip
