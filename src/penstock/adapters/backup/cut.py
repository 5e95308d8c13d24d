"""A data folder as it was at one instant, while a process goes on writing to it.

Several files can't be copied at once, and copies of several instants do not fit together: leaves
ahead of their log would take its next records for known. So every file is held still, for
milliseconds, by the write lock that its writer has to wait for; meanwhile a read transaction is
begun on each, and what is small is read. Then writers go on, and the copies are made from the read
transactions. What they hold is what a kill of every process at that instant would have left, and
that is a state which the engine starts from.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from penstock.adapters.files import sync_file
from penstock.adapters.sqlite import FileKind, connect, failure
from penstock.core.errors import DataCorrupt, SettingsError, Unavailable

HOLD_MS_MAX: Final = 50
"""How long one file's writer may keep the others waiting, before they are let go and all is tried again."""

PATIENCE_S: Final = 30.0
PAUSE_S: Final = 0.01
COPY_PAGES: Final = 2_048
"""Copied in one go: between two, progress is told and the process can be stopped."""

Progress = Callable[[int], None]
"""Told how many bytes more were copied."""


class Cut:
    """Read transactions on the files of a data folder, begun at one instant, and its small files.

    Args:
        folder: The data folder.
        kinds: What its SQLite files are, by name.
        readers: A connection to each, with a read transaction.
        small: The bytes of small files as they were at that instant, by name.
    """

    def __init__(
        self,
        folder: Path,
        kinds: Mapping[str, FileKind],
        readers: Mapping[str, sqlite3.Connection],
        small: Mapping[str, bytes],
    ) -> None:
        self._folder = folder
        self._kinds = kinds
        self._readers = readers
        self.small = small

    def size(self, name: str) -> int:
        """Return how many bytes a copy of a SQLite file has."""
        with _told(self._folder, name, self._kinds[name]):
            reader = self._readers[name]
            pages = reader.execute("PRAGMA page_count").fetchone()[0]
            return pages * reader.execute("PRAGMA page_size").fetchone()[0]

    def format(self, name: str) -> int:
        """Return the stored format of a SQLite file."""
        with _told(self._folder, name, self._kinds[name]):
            return self._readers[name].execute("PRAGMA user_version").fetchone()[0]

    def copy(self, name: str, to: Path, progress: Progress = lambda _: None) -> None:
        """Copy a SQLite file by its online backup, whole and durable, readable by its owner only."""
        reader, kind = self._readers[name], self._kinds[name]
        with _told(self._folder, name, kind):
            page_bytes = reader.execute("PRAGMA page_size").fetchone()[0]
            left = reader.execute("PRAGMA page_count").fetchone()[0]

        def step(_: int, remaining: int, __: int) -> None:
            nonlocal left
            progress((left - remaining) * page_bytes)
            left = remaining

        try:
            os.close(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            with closing(sqlite3.connect(to, isolation_level=None)) as target:
                # It is nothing until it is whole, and is synced once, at the end.
                target.execute("PRAGMA journal_mode=OFF")
                target.execute("PRAGMA synchronous=OFF")
                reader.backup(target, pages=COPY_PAGES, progress=step)
            sync_file(to)
        except sqlite3.Error as error:
            told = failure(kind, self._folder / name, error)
            if isinstance(told, DataCorrupt):
                raise told from error
            raise _not_copied(kind, to, error.sqlite_errorname) from error
        except OSError as error:
            raise _not_copied(kind, to, error.strerror) from error


@contextmanager
def cut(
    folder: Path, kinds: Mapping[str, FileKind], small: Sequence[str], *, patience_s: float = PATIENCE_S
) -> Iterator[Cut]:  # fmt: skip
    """Give a data folder as it is at one instant, for as long as the files are copied.

    Writers wait for milliseconds. While the transactions are open, write-ahead logs can't be cut
    back: they grow by what is written meanwhile.

    Args:
        folder: The data folder.
        kinds: Its SQLite files by name, those with the longest transactions first.
        small: Its small files: names, or patterns of names in a folder below it. What is not there
            is left out.
        patience_s: How long to try.

    Raises:
        SettingsError: A SQLite file is not there (E241).
        Unavailable: The files could not be held still (E440), or one does not answer.
        DataCorrupt: A file is damaged (E707), newer (E706) or of another kind (E707).
    """
    for name, kind in kinds.items():
        if not (folder / name).exists():
            raise SettingsError("E241", f"there is nothing to back up: {kind.what} is not there", where=str(folder / name),
                                fix="check `data_dir` in penstock.toml; run `penstock up` once, which makes what is missing")  # fmt: skip
    with ExitStack() as opened:
        readers: dict[str, sqlite3.Connection] = {}
        holders: dict[str, sqlite3.Connection] = {}
        for name, kind in kinds.items():
            with _told(folder, name, kind):
                readers[name] = opened.enter_context(closing(connect(folder / name, kind)))
                holders[name] = opened.enter_context(closing(connect(folder / name, kind)))
                holders[name].execute(f"PRAGMA busy_timeout={HOLD_MS_MAX}")
        with _held_still(folder, kinds, holders, patience_s):
            for name, kind in kinds.items():
                with _told(folder, name, kind):
                    readers[name].execute("BEGIN")
                    # A transaction begins with its first read.
                    readers[name].execute("SELECT count(*) FROM sqlite_schema").fetchone()
            found = _read_small(folder, small)
        yield Cut(folder, kinds, readers, found)


@contextmanager
def _held_still(
    folder: Path,
    kinds: Mapping[str, FileKind],
    holders: Mapping[str, sqlite3.Connection],
    patience_s: float,
) -> Iterator[None]:
    """Hold the write locks of all files at once, or of none."""
    until_s = time.monotonic() + patience_s
    while busy := _hold(folder, kinds, holders):
        _let_go(holders)
        if time.monotonic() > until_s:
            raise Unavailable("E440", f"{kinds[busy].what} was never still for a moment", where=str(folder / busy),
                              fix="try again; if it lasts, look for a process that holds the file open in a transaction")  # fmt: skip
        time.sleep(PAUSE_S)
    try:
        yield
    finally:
        _let_go(holders)


def _hold(
    folder: Path, kinds: Mapping[str, FileKind], holders: Mapping[str, sqlite3.Connection]
) -> str:
    """Take the write lock of each file; return the name of one that is written to, or nothing."""
    for name, holder in holders.items():
        try:
            holder.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise failure(kinds[name], folder / name, error) from error
            return name
    return ""


def _let_go(holders: Mapping[str, sqlite3.Connection]) -> None:
    for holder in holders.values():
        if holder.in_transaction:
            with suppress(sqlite3.Error):
                holder.execute("ROLLBACK")


def _read_small(folder: Path, patterns: Sequence[str]) -> dict[str, bytes]:
    try:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for pattern in patterns
            for path in sorted(folder.glob(pattern))
        }
    except OSError as error:
        raise Unavailable("E441", f"the data folder could not be read ({error.strerror})", where=str(folder),
                          fix="check its permissions and its disk") from error  # fmt: skip


@contextmanager
def _told(folder: Path, name: str, kind: FileKind) -> Iterator[None]:
    """Say what a failure of SQLite means, and of which file."""
    try:
        yield
    except sqlite3.Error as error:
        raise failure(kind, folder / name, error) from error


def _not_copied(kind: FileKind, to: Path, how: str | None) -> Unavailable:
    return Unavailable("E441", f"{kind.what} could not be copied ({how})", where=str(to),
                       fix="make room where the copy is written, and check that disk")  # fmt: skip


def check_file(path: Path, kind: FileKind) -> None:
    """Read a SQLite file through, page by page.

    Raises:
        DataCorrupt: It is damaged or of another kind (E707), or newer (E706).
        Unavailable: It can't be read.
    """
    with _told(path.parent, path.name, kind), closing(connect(path, kind, read_only=True)) as file:
        if file.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise DataCorrupt("E707", f"{kind.what} is damaged", where=str(path), fix=kind.remedy)
