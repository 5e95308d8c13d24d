"""Files and folders that are to survive a crash: names made durable, whole files, one writer at a time."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SCRATCH: Final = ".scratch"
"""Holds what is needed for a moment: of a process that was killed, until `clear_scratch`."""


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable, whoever wrote them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, chunks: Iterator[bytes]) -> None:
    """Write a file that is not there yet, readable by its owner only, and make its bytes durable."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def empty(folder: Path) -> None:
    """Remove what is in a folder, and not the folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def sync_tree(folder: Path) -> None:
    """Make the names in a folder, and in all below it, durable."""
    for one, _, _ in os.walk(folder):
        sync_folder(Path(one))


@contextlib.contextmanager
def sole_use(folder: Path) -> Iterator[bool]:
    """Hold an advisory lock on a folder, which may be renamed meanwhile; yield whether it was free."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


def new_scratch(beside: Path, name: str) -> Path:
    """Return an empty folder that only its owner may enter; whoever asks removes it.

    Args:
        beside: It is inside this folder; where that is none, or can't be written to, the system's
            folder for temporary files holds it.
        name: Its name begins so.
    """
    parent = beside / SCRATCH
    try:
        parent.mkdir(mode=0o700, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
    except OSError:
        return Path(tempfile.mkdtemp(prefix=f"penstock-{name}-"))


@contextlib.contextmanager
def scratch(beside: Path, name: str) -> Iterator[Path]:
    """Give an empty folder as `new_scratch` does, in use until it is removed at the end."""
    folder = new_scratch(beside, name)
    try:
        with sole_use(folder):
            yield folder
    finally:
        drop_scratch(folder)


def drop_scratch(folder: Path) -> None:
    """Remove a scratch folder, and what holds it if nothing else is there."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.name == SCRATCH:
        with contextlib.suppress(OSError):
            folder.parent.rmdir()


def clear_scratch(beside: Path) -> None:
    """Remove what killed processes have left; what another process uses now stays."""
    try:
        left = list((beside / SCRATCH).iterdir())
    except OSError:
        return
    for folder in left:
        with contextlib.suppress(OSError), sole_use(folder) as free:
            if free:
                drop_scratch(folder)
    # A process may have been killed between its folder and the one that held it.
    with contextlib.suppress(OSError):
        (beside / SCRATCH).rmdir()
