"""The key table in memory: for tests; its keys are gone with the process."""

import threading

from penstock.core.errors import Unavailable

KEY_BYTES = 32


class MemoryKeys:
    """Keeps keys in a dictionary."""

    def __init__(self) -> None:
        self._keys: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> bytes:
        """Return a key of 32 bytes."""
        with self._lock:
            key = self._keys.get(name)
        if key is None:
            raise Unavailable(
                "E405", f"there is no key `{name}`", fix="make it with `penstock init`"
            )
        return key

    def put_if_absent(self, name: str, secret: bytes) -> bytes:
        """Keep a key unless one of that name stands."""
        assert len(secret) == KEY_BYTES, "a key has 32 bytes"
        with self._lock:
            return self._keys.setdefault(name, secret)

    def names(self) -> list[str]:
        """Return the names of all keys, sorted."""
        with self._lock:
            return sorted(self._keys)
