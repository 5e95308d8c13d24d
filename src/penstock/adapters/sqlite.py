"""How every SQLite adapter opens its file: pragmas, format version, ownership and errors."""

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from penstock.adapters.files import sync_folder
from penstock.core.errors import DataCorrupt, PenstockError, Unavailable

BUSY_TIMEOUT_S: Final = 5.0
"""How long a writer waits for another process's transaction before it reports Unavailable."""

WAL_BYTES_MAX: Final = 64 * 1024 * 1024
"""A write-ahead log that grew beyond this in a burst is cut back at the next checkpoint."""

OWNER_WAIT_S: Final = 2.0
"""A command that looks, such as `penstock doctor`, owns a data folder for a moment: whoever comes meanwhile waits so long."""

OWNER_POLL_S: Final = 0.02

READ_CHUNKS: Final = (1, 16, 256)
"""Sizes of `IN (…)` lists. Few sizes keep few statements in the connection's cache."""

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class FileKind(NamedTuple):
    """What a file holds and how it is opened.

    Attributes:
        what: Its name in messages, such as `the log`.
        application_id: Written into the file's header, so that two files are not mixed up.
        format: The format this version writes; it reads every older one.
        schema: Statements that make an empty file.
        code: The error code of "did not answer".
        synchronous: `FULL` if a commit is a promise, `NORMAL` if the file can be rebuilt.
        page_bytes: Set when the file is made.
        cache_bytes: Pages that a connection keeps; a transaction that changes more spills early.
        checkpoint_bytes: The write-ahead log is copied into the file when it has grown by so much.
            A page that changes again and again is copied once a checkpoint.
        remedy: What to do when the file is damaged.
    """

    what: str
    application_id: int
    format: int
    schema: tuple[str, ...]
    code: str
    synchronous: str
    page_bytes: int = 4096
    cache_bytes: int = 4 * 1024 * 1024
    checkpoint_bytes: int = 4 * 1024 * 1024
    remedy: str = "stop, and restore the file from a backup"


class Session:
    """One connection, used by one thread at a time, that is dropped and opened afresh after a failure.

    A connection that failed in the middle of a commit is never used again: what it holds in memory
    may differ from the disk. `on_open` runs on every fresh connection that may write.
    """

    def __init__(
        self,
        path: Path,
        kind: FileKind,
        *,
        read_only: bool = False,
        on_open: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        self._path = path
        self._kind = kind
        self._read_only = read_only
        self._on_open = on_open
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    @contextlib.contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to this thread.

        Raises:
            Unavailable: SQLite failed, or the session is closed.
            DataCorrupt: The file is damaged (E707), newer (E706) or of another kind (E707).
        """
        with self._lock:
            if self._closed:
                raise Unavailable(
                    self._kind.code, f"{self._kind.what} is closed", fix="open it again"
                )
            try:
                if self._connection is None:
                    self._connection = self._open()
                yield self._connection
            except sqlite3.Error as error:
                self._drop()
                raise failure(self._kind, self._path, error) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to this thread inside one write transaction, committed at the end."""
        with self.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # SQLite may have rolled back by itself, as it does when the disk is full.
                if connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the connection for good; a second call does nothing."""
        with self._lock:
            self._closed = True
            self._drop()

    def _open(self) -> sqlite3.Connection:
        try:
            connection = connect(self._path, self._kind, read_only=self._read_only)
        except OSError as error:
            raise folder_failure(self._kind, self._path, error) from error
        try:
            if self._on_open is not None:
                self._on_open(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


class Ownership:
    """An advisory lock on a file's companion `….lock`, held until released or the process ends.

    The lock is not on the file itself: closing any descriptor of a SQLite file would drop the
    locks that SQLite holds on it.
    """

    def __init__(self, path: Path, kind: FileKind) -> None:
        try:
            self._descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise folder_failure(kind, path, error) from error
        until_s = time.monotonic() + OWNER_WAIT_S
        while not self._locked():
            if time.monotonic() >= until_s:
                self.release()
                raise Unavailable(
                    "E407",
                    f"another process owns this data folder: {kind.what} is open for writing",
                    fix="stop the other `penstock up`, or ask it over HTTP",
                    where=str(path),
                )
            time.sleep(OWNER_POLL_S)

    def _locked(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def release(self) -> None:
        """Let another process have the file; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def connect(path: Path, kind: FileKind, *, read_only: bool = False) -> sqlite3.Connection:
    """Return a connection in autocommit mode, to a file made if absent and not `read_only`.

    Raises:
        sqlite3.Error: SQLite could not open or make the file.
        DataCorrupt: The file is of a newer format (E706) or of another kind (E707).
    """
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        if not read_only and _is_empty(connection):
            _make(connection, path, kind)
        _check(connection, path, kind)
        connection.execute(f"PRAGMA synchronous={kind.synchronous}")
        connection.execute(f"PRAGMA cache_size={-kind.cache_bytes // 1024}")
        connection.execute(f"PRAGMA wal_autocheckpoint={kind.checkpoint_bytes // kind.page_bytes}")
        # What is removed is overwritten where that costs no write of its own.
        connection.execute("PRAGMA secure_delete=FAST")
        connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES_MAX}")
    except BaseException:
        connection.close()
        raise
    return connection


def failure(kind: FileKind, path: Path, error: sqlite3.Error) -> PenstockError:
    """Return what a failure of SQLite means to the caller. SQLite's text never quotes a value."""
    # Extended codes, such as "disk I/O error while syncing", carry the primary one in the low byte.
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if primary in _DAMAGED:
        return DataCorrupt(
            "E707",
            f"{kind.what} is damaged ({name})",
            fix=kind.remedy,
            where=str(path),
        )
    return Unavailable(
        kind.code,
        f"{kind.what} did not answer ({name})",
        fix="retry; if it lasts, check that the disk is not full, read-only or failing",
        where=str(path),
    )


def folder_failure(kind: FileKind, path: Path, error: OSError) -> Unavailable:
    """Return what a failure of the folder that holds a file means to the caller."""
    return Unavailable(
        kind.code,
        f"{kind.what} could not be opened ({error.strerror})",
        fix="make the data folder, or check its permissions and its disk",
        where=str(path),
    )


def chunked(keys: list[bytes]) -> Iterator[list[bytes]]:
    """Yield keys in lists of a few fixed sizes, the last one padded by repeating its last key."""
    start = 0
    while start < len(keys):
        left = len(keys) - start
        size = next((size for size in READ_CHUNKS if size >= left), READ_CHUNKS[-1])
        chunk = keys[start : start + size]
        yield chunk + chunk[-1:] * (size - len(chunk))
        start += size


def _is_empty(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0


def _make(connection: sqlite3.Connection, path: Path, kind: FileKind) -> None:
    connection.execute(f"PRAGMA page_size={kind.page_bytes}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have made the file between the look and the transaction.
        if _is_empty(connection):
            for statement in kind.schema:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={kind.application_id}")
            connection.execute(f"PRAGMA user_version={kind.format}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    sync_folder(path.absolute().parent)


def _check(connection: sqlite3.Connection, path: Path, kind: FileKind) -> None:
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    if application_id != kind.application_id:
        raise DataCorrupt(
            "E707",
            f"this file is not {kind.what}",
            fix="check the path in `penstock.toml`",
            where=str(path),
        )
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > kind.format:
        raise DataCorrupt(
            "E706",
            f"{kind.what} has format {version}; this version reads up to {kind.format}",
            fix="upgrade Penstock, or restore a backup made by this version",
            where=str(path),
        )
