"""Leaves of the store on Redis kept in a process that does not fold, until the server says that they changed."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from penstock.adapters.redis import Command, at_start
from penstock.adapters.redis_stream import Stream
from penstock.adapters.store.redis import READS, RedisStore, as_version, stored_leaf
from penstock.core.errors import PenstockError
from penstock.core.ids import LeafId
from penstock.core.record import Version
from penstock.ports.store import StoredLeaf

VOUCHED_S: Final = 1.0
"""What is kept is used for so long after the server has answered; then it is asked first."""

AGE_S: Final = 60.0
"""And each leaf no longer than this: whatever stands between here and the server may lose what it says."""

ENTRY_BYTES: Final = 700
"""What an entry takes besides the parts of its leaf."""


class _Kept(NamedTuple):
    leaf: StoredLeaf | None
    """None where the server has none: that is said to have changed as well."""
    size_bytes: int
    read_s: float


class CachedLeaves:
    """Leaves as they were read, until they change; implements `ports.store.LeafCache`.

    Leaves, and how far they are written, are read over one connection, on which the server says as well
    which of the leaves read have changed (`CLIENT TRACKING`). It comes in the order in which it happened
    there, so a change that is made while a leaf is being read is heard of after the leaf, and whatever is
    applied has been heard of when it is told that it is applied.

    Args:
        store: Whose leaves are kept.
        bytes_max: What is kept takes no more memory than this.
        monotonic_s: The clock that ages go by.

    Raises:
        SettingsError: The server does not say what changes (E239), or denies it to the user (E294).
        Unavailable: It did not answer (E402), or its era ended (E450).
    """

    def __init__(
        self, store: RedisStore, bytes_max: int, *, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:  # fmt: skip
        self._store = store
        self._server = store.server
        self._bytes_max = bytes_max
        self._now_s = monotonic_s
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        """By their keys in the server, those used last at the end."""
        self._stream: Stream | None = None
        self._era = -1
        """In which the connection was made."""
        self._heard: set[bytes | None] = set()
        """What was said to have changed while an answer was waited for; None is all of them."""
        self._vouched_s = float("-inf")
        """When the server was last asked and answered."""
        self.size_bytes = 0
        self.hits = 0
        self.misses = 0
        with self._lock:
            try:
                self._exchange([])
            except PenstockError as error:
                raise at_start(error, self._server.address.url) from error

    def at_hand(self, epoch: int, leaves: Sequence[LeafId]) -> list[StoredLeaf | None] | None:
        """Return the leaves if all of them are here; None if one is not, or another thread is asking."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            if not self._good():
                return None
            found: list[StoredLeaf | None] = []
            for leaf in leaves:
                one = self._take(self._store.key_of(epoch, leaf))
                if one is None:
                    return None
                found.append(one.leaf)
            self.hits += len(found)
            return found
        finally:
            self._lock.release()

    def read(self, epoch: int, leaves: Sequence[LeafId]) -> list[StoredLeaf | None]:
        """Return the leaves in the order asked; those that are not here in one round trip a few hundred."""
        keys = {leaf: self._store.key_of(epoch, leaf) for leaf in leaves}
        found: dict[LeafId, StoredLeaf | None] = {}
        with self._lock:
            if not self._good():
                self._exchange([])
            for leaf, key in keys.items():
                if (one := self._take(key)) is not None:
                    found[leaf] = one.leaf
            missing = [leaf for leaf in keys if leaf not in found]
            self.hits += len(found)
            self.misses += len(missing)
            for start in range(0, len(missing), READS):
                some = missing[start : start + READS]
                found.update(self._fetch({leaf: keys[leaf] for leaf in some}))
        return [found[leaf] for leaf in leaves]

    def applied(self, epoch: int, partition: int) -> Version:
        """Return the applied offset of a partition; what it covers has been heard of."""
        with self._lock:
            (raw,) = self._exchange([self._store.asking_applied(epoch, partition)])
        return as_version(raw)

    def close(self) -> None:
        """Forget everything, and end the connection; a second call does nothing."""
        with self._lock:
            self._lose()

    # -- under the lock

    def _good(self) -> bool:
        """Return whether what is kept may be used, once what was said of it until now is taken in."""
        if self._stream is None or self._era != self._server.era:
            return False
        if not self._stream.drain():
            self._lose()
            return False
        return self._now_s() - self._vouched_s <= VOUCHED_S

    def _take(self, key: bytes) -> _Kept | None:
        one = self._kept.get(key)
        if one is None:
            return None
        if self._now_s() - one.read_s > AGE_S:
            self._forget(key)
            return None
        self._kept.move_to_end(key)
        return one

    def _fetch(self, keys: dict[LeafId, bytes]) -> dict[LeafId, StoredLeaf | None]:
        read_s = self._now_s()
        values = self._store.values_of(self._exchange(self._store.asking(list(keys.values()))))
        found: dict[LeafId, StoredLeaf | None] = {}
        for (leaf, key), value in zip(keys.items(), values, strict=True):
            found[leaf] = one = None if value is None else stored_leaf(leaf, value)
            # It may have changed after it was read and before the last of the answers: that was said once.
            if key not in self._heard and None not in self._heard:
                size_bytes = ENTRY_BYTES + (0 if value is None else len(value))
                self._keep(key, _Kept(one, size_bytes, read_s))
        return found

    def _keep(self, key: bytes, one: _Kept) -> None:
        self._forget(key)
        self._kept[key] = one
        self.size_bytes += one.size_bytes
        while self.size_bytes > self._bytes_max:
            _, gone = self._kept.popitem(last=False)
            self.size_bytes -= gone.size_bytes

    def _forget(self, key: bytes) -> None:
        if (gone := self._kept.pop(key, None)) is not None:
            self.size_bytes -= gone.size_bytes

    def _changed(self, keys: list[bytes] | None) -> None:
        if keys is None:  # the server was emptied
            self._heard.add(None)
            self._clear()
            return
        self._heard.update(keys)
        for key in keys:
            self._forget(key)

    def _clear(self) -> None:
        self._kept.clear()
        self.size_bytes = 0

    def _lose(self) -> None:
        """Forget everything: of what changes from now on nobody would hear."""
        self._clear()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    # -- ask

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Ask over the connection; whatever goes wrong ends it, and all that is kept."""
        if self._era != self._server.era:
            self._lose()
        self._heard.clear()
        asked_s = self._now_s()
        try:
            answers = self._server.run(commands, over=self._held)
        except PenstockError:
            self._lose()
            raise
        self._vouched_s = asked_s
        return answers

    @contextmanager
    def _held(self) -> Iterator[Stream]:
        if self._stream is None:
            # Before the connection: an era that ends meanwhile is noticed by the next who asks.
            era = self._server.era
            connection = self._server.connect_tracking()
            self._stream = Stream(connection, self._changed, self._server.address.timeout_ms / 1000)
            self._era = era
        yield self._stream
