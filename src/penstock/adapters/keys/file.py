"""The key table in one file that only its owner may read, made anew atomically for every key."""

import contextlib
import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

from penstock.adapters.files import sync_folder
from penstock.core.errors import DataCorrupt, Unavailable

KEY_BYTES: Final = 32
KEYS_FORMAT: Final = 1
FILE_BYTES_MAX: Final = 1024 * 1024


class _Format(msgspec.Struct):
    format: int


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """What the file holds. A flipped bit in a key would change every leaf id: `check` finds it."""

    format: int
    keys: dict[str, str]
    check: str


class FileKeys:
    """Keys in a file of mode 0600. A key is on the disk, name and all, before it is returned.

    Args:
        path: The file; its folder exists. It is made with the first key.

    Raises:
        Unavailable: The file can't be read (E405), or may be read by others (E408).
        DataCorrupt: The file does not read back (E709), or is newer (E706).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._keys: dict[str, bytes] = {}
        with self._lock:
            self._keys = self._load()

    def get(self, name: str) -> bytes:
        """Return a key of 32 bytes."""
        with self._lock:
            # Keys never change, so one that was read once needs no second look at the file.
            if name not in self._keys:
                self._keys = self._load()
            key = self._keys.get(name)
        if key is None:
            raise Unavailable(
                "E405",
                f"there is no key `{name}` in the key file",
                fix="restore the key file from its backup, or make a new project with `penstock init`",
                where=str(self._path),
            )
        return key

    def put_if_absent(self, name: str, secret: bytes) -> bytes:
        """Keep a key unless one of that name stands; return the one that stands, fsynced."""
        assert len(secret) == KEY_BYTES, "a key has 32 bytes"
        with self._lock, self._sole_writer():
            self._keys = self._load()
            if name not in self._keys:
                keys = {**self._keys, name: secret}
                self._store(keys)
                self._keys = keys
            return self._keys[name]

    def names(self) -> list[str]:
        """Return the names of all keys, sorted."""
        with self._lock:
            self._keys = self._load()
            return sorted(self._keys)

    @contextlib.contextmanager
    def _sole_writer(self) -> Iterator[None]:
        # The lock has a file of its own, because every write puts another file at `path`.
        try:
            descriptor = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unavailable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _load(self) -> dict[str, bytes]:
        try:
            with self._path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                raw = file.read(FILE_BYTES_MAX)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._unavailable(error) from error
        if mode & 0o077:
            raise Unavailable(
                "E408",
                f"the key file may be used by others than its owner (mode {mode:04o})",
                fix=f"run `chmod 600 {self._path}`, and ask who has read the keys",
                where=str(self._path),
            )
        return self._parse(raw)

    def _parse(self, raw: bytes) -> dict[str, bytes]:
        try:
            # Not `from error`: the text of a JSON error may quote what is in the file.
            found = msgspec.json.decode(raw, type=_Format).format
            if found > KEYS_FORMAT:
                raise DataCorrupt("E706", f"the key file has format {found}; this version reads up to {KEYS_FORMAT}",
                                  fix="upgrade Penstock", where=str(self._path))  # fmt: skip
            file = msgspec.json.decode(raw, type=_File)
            keys = {name: bytes.fromhex(secret) for name, secret in file.keys.items()}
        except ValueError:
            raise self._corrupt("does not decode") from None
        if file.check != _check(keys) or any(len(key) != KEY_BYTES for key in keys.values()):
            raise self._corrupt("does not match its checksum")
        return keys

    def _store(self, keys: dict[str, bytes]) -> None:
        named = {name: key.hex() for name, key in sorted(keys.items())}
        raw = msgspec.json.format(
            msgspec.json.encode(_File(KEYS_FORMAT, named, _check(keys))), indent=2
        )
        beside = Path(f"{self._path}.new")
        try:
            beside.unlink(missing_ok=True)
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
            sync_folder(self._path.absolute().parent)
        except OSError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: OSError) -> Unavailable:
        return Unavailable(
            "E405",
            f"the key file did not answer ({error.strerror})",
            fix="make its folder, or check its permissions and its disk",
            where=str(self._path),
        )

    def _corrupt(self, what: str) -> DataCorrupt:
        return DataCorrupt(
            "E709",
            f"the key file {what}",
            fix="restore it from its backup; new keys would orphan every profile",
            where=str(self._path),
        )


def _check(keys: dict[str, bytes]) -> str:
    digest = blake2b(digest_size=8, person=b"keys")
    for name, key in sorted(keys.items()):
        digest.update(f"{name} {key.hex()}\n".encode())
    return digest.hexdigest()
