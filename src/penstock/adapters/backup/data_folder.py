"""A data folder that is put back: verified in a folder inside it first, and refused until it is whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from penstock.adapters.files import SCRATCH, sole_use, sync_folder, sync_tree
from penstock.core.errors import SettingsError, Unavailable

ARRIVING: Final = ".restore.part"
"""Files are written here, and compared with what their manifest says of them."""

VERIFIED: Final = ".restore"
"""All files, durable and verified. They move to their places from here; it is renamed when all have."""

FINISHED: Final = ".restored"
"""What is left of it then, for a moment."""

BESIDE: Final = frozenset({ARRIVING, VERIFIED, FINISHED, SCRATCH, "lost+found"})
"""What an empty data folder may hold."""


def require_whole(folder: Path) -> None:
    """Refuse a data folder into which a restore was cut short.

    Raises:
        SettingsError: It was (E243).
    """
    for name in (ARRIVING, VERIFIED):
        if (folder / name).exists():
            raise SettingsError("E243", "a restore into this data folder was cut short", where=str(folder),
                                fix="run the same `penstock restore` again; it goes on")  # fmt: skip


def verified_manifest(folder: Path, manifest: str) -> bytes | None:
    """Return the manifest of a restore that was verified and not finished; None if there is none."""
    try:
        return (folder / VERIFIED / manifest).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unavailable(folder, error) from error


@contextmanager
def arriving(folder: Path) -> Iterator[Path]:
    """Give an empty folder inside a data folder to put files into; `put_in_place` puts them in their places.

    Raises:
        SettingsError: The data folder holds something (E242).
        Unavailable: Another process restores into it (E442), or it can't be written (E441).
    """
    try:
        # It holds what people did: nobody but its owner looks into it.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with sole_use(folder) as free:
            if not free:
                raise Unavailable("E442", "another process restores into this data folder", where=str(folder),
                                  fix="wait for it")  # fmt: skip
            held = {path.name for path in folder.iterdir()} - BESIDE
            if held and not (folder / VERIFIED).exists():
                raise SettingsError("E242", "the data folder is not empty, and a restore overwrites nothing",
                                    where=str(folder), fix="move it away and name it with `--later`: it may hold "
                                    "unsubscribes and sends that the backup does not")  # fmt: skip
            for left in (ARRIVING, FINISHED):
                shutil.rmtree(folder / left, ignore_errors=True)
            (folder / ARRIVING).mkdir(mode=0o700)
            try:
                yield folder / ARRIVING
            finally:
                shutil.rmtree(folder / ARRIVING, ignore_errors=True)
    except OSError as error:
        raise _unavailable(folder, error) from error


def put_in_place(folder: Path, names: Sequence[str]) -> None:
    """Move files that have arrived to their places in the data folder; it goes on where it was cut short.

    Args:
        folder: The data folder.
        names: In the order in which they are put in place.
    """
    verified = folder / VERIFIED
    if not verified.exists():
        sync_tree(folder / ARRIVING)
        (folder / ARRIVING).rename(verified)
        sync_folder(folder)
    for name in names:
        if (verified / name).exists():
            (folder / name).parent.mkdir(mode=0o700, exist_ok=True)
            (verified / name).rename(folder / name)
    sync_tree(folder)
    verified.rename(folder / FINISHED)
    sync_folder(folder)
    shutil.rmtree(folder / FINISHED, ignore_errors=True)


def _unavailable(folder: Path, error: OSError) -> Unavailable:
    return Unavailable("E441", f"the data folder could not be written ({error.strerror})", where=str(folder),
                       fix="check its permissions, and that its disk is not full")  # fmt: skip
