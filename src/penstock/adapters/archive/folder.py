"""The archive in a folder: an object is a file that is linked into its place once it is on the disk."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from penstock.core.errors import Conflict, DataCorrupt, Unavailable
from penstock.ports.archive import Stored

NAME: Final = re.compile(r"[A-Za-z0-9_=%-][A-Za-z0-9._=%-]*(/[A-Za-z0-9_=%-][A-Za-z0-9._=%-]*)*")
BEING_WRITTEN: Final = ".part"
"""Ends the name of a file that is not an object yet; names of objects never begin with a dot."""


class FolderArchive:
    """Keeps objects as files of mode 0600, each fsynced with its name before `put` returns.

    Args:
        root: The folder; made when the first object is put.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, name: str, data: bytes) -> None:
        """Keep an object: written beside, fsynced, then linked, which fails if the name is taken."""
        path = self._path(name)
        beside = path.with_name(f".{path.name}{BEING_WRITTEN}")
        with self._answers():
            if path.exists():
                self._require_same(path, name, data)
                return
            self._make(path.parent)
            descriptor = os.open(
                beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
            )
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(beside, path)
            except FileExistsError:
                self._require_same(path, name, data)
            finally:
                beside.unlink(missing_ok=True)
            _sync(path.parent)

    def get(self, name: str) -> bytes:
        """Return an object."""
        with self._answers(name):
            return self._path(name).read_bytes()

    def read(self, name: str, start: int, size: int) -> bytes:
        """Return a range of an object."""
        with self._answers(name), self._path(name).open("rb") as file:
            file.seek(start)
            return file.read(size)

    def list(self, prefix: str) -> list[Stored]:
        """Return the objects whose names begin so, by name."""
        folder = self._root / prefix.rpartition("/")[0]
        found: list[Stored] = []
        with self._answers():
            for path in folder.rglob("*"):
                name = path.relative_to(self._root).as_posix()
                if name.startswith(prefix) and not path.name.startswith(".") and path.is_file():
                    found.append(Stored(name, path.stat().st_size))
        return sorted(found)

    def delete(self, name: str) -> None:
        """Remove an object."""
        with self._answers():
            self._path(name).unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing to release."""

    def _path(self, name: str) -> Path:
        assert NAME.fullmatch(name), "a name of an object"
        return self._root / name

    def _make(self, folder: Path) -> None:
        if not folder.exists():
            self._make(folder.parent)
            # It holds what people did: nobody but its owner looks into it.
            folder.mkdir(mode=0o700, exist_ok=True)
            _sync(folder.parent)

    def _require_same(self, path: Path, name: str, data: bytes) -> None:
        if path.read_bytes() != data:
            raise Conflict("E501", "the archive holds other bytes under this name", where=name,
                           fix="archive into an empty folder, or find out who else writes to this one")  # fmt: skip

    @contextlib.contextmanager
    def _answers(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if not name:
                raise self._unavailable(error) from error
            raise DataCorrupt("E731", "the archive has no object of this name", where=name,
                              fix="check the archive's place; restore the object from a copy") from error  # fmt: skip
        except OSError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: OSError) -> Unavailable:
        return Unavailable("E419", f"the archive did not answer ({error.strerror})", where=str(self._root),
                           fix="check the folder, who may write to it, and its disk")  # fmt: skip


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
