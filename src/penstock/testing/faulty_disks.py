"""Disks that fail, die with their process, or hold a planted bug: what the engine's simulation writes to."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple

from penstock.adapters.decisions.memory import MemoryDecisions
from penstock.adapters.keys.memory import MemoryKeys
from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.core.errors import Unavailable
from penstock.core.record import Kind, Version, kind_of
from penstock.ports.clock import Clock
from penstock.ports.decisions import Decided
from penstock.ports.log import Appended
from penstock.ports.store import LeafWrite, Verdict


class Planted(Enum):
    """Bugs of the engine's protocols, each of which some history must show."""

    NONE = "none"
    ACK_BEFORE_APPEND = "a batch is answered before the log has it"
    APPEND_LOSES_TAIL = "a group commit keeps all but its last record, and says that it kept all"
    LETTERS_LOST = "dead letters are not kept with their batch"
    LINKS_LOST = "links are never appended"
    REGISTER_LATE = "unsubscribes are written some time after they were answered"
    REGISTER_FORGETS = "the register loses with a crash what it was told before"
    STORE_LIES = "the store says that it wrote a leaf that it did not"
    APPLIED_TOO_FAR = "the store notes more records as applied than it has written"
    TORN_WRITE = "a crash leaves half of a store's transaction, with its applied offset"
    DECISION_NOT_KEPT = "a decision is answered that was not kept"
    ANSWER_OF_ANOTHER = "the answers of a group of decisions are given to the wrong callers"
    OUTBOX_DROPPED = "the outbox is emptied before its records are in the log"
    LIVE_TOO_EARLY = "answers are called live while the log is being caught up with"


class Disks(NamedTuple):
    """What outlives a process."""

    log: MemoryLog
    store: MemoryStore
    suppressions: MemorySuppressions
    decisions: MemoryDecisions
    keys: MemoryKeys


def new_disks(clock: Clock, key: bytes) -> Disks:
    """Return empty disks, with the keys a project needs."""
    keys = MemoryKeys()
    for name in ("identifier", "token", "pseudonym"):
        keys.put_if_absent(name, key)
    return Disks(MemoryLog(clock), MemoryStore(), MemorySuppressions(), MemoryDecisions(), keys)


class World(NamedTuple):
    """What a disk may do to its process."""

    dice: random.Random
    faults: float
    """Chance that a call which may fail does."""
    planted: Planted
    note: Callable[[str], None]
    later: Callable[[float, Callable[[], None]], None]
    """Does something after so many seconds, if the process still lives."""
    die: Callable[[str], None]


class Disk:
    """One disk as one process sees it.

    A call may fail, having done what it was asked or not; when the process is dead nothing reaches it.

    Args:
        inner: What outlives the process.
        world: Dice, faults, and the bug that is planted.
        fails: Calls that may fail.
        all_or_nothing: Of those, the ones that have done nothing when they fail.
    """

    def __init__(
        self, inner: Any, world: World, *, fails: Sequence[str], all_or_nothing: bool = False
    ) -> None:
        self.inner = inner
        self.alive = True
        self._world = world
        self._fails = frozenset(fails)
        self._all_or_nothing = all_or_nothing

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        planted = (
            getattr(self, f"planted_{name}", None) if not name.startswith("planted_") else None
        )
        return self._guarded(name, planted or found) if callable(found) else found

    def _guarded(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        world = self._world

        def guarded(*args: Any, **named: Any) -> Any:
            if not self.alive:
                raise Unavailable("E401", "the process is dead", fix="start another")
            if name == "close":
                return None
            if name in self._fails and world.dice.random() < world.faults:
                if not self._all_or_nothing and world.dice.random() < 0.5:
                    call(*args, **named)
                    world.note(f"{name} was done, and failed")
                else:
                    world.note(f"{name} failed")
                raise Unavailable("E402", "the disk did not answer", fix="retry")
            return call(*args, **named)

        guarded.__qualname__ = f"{type(self.inner).__name__}.{name}"
        return guarded

    def _planted(self, bug: Planted, chance: float = 1.0) -> bool:
        return self._world.planted is bug and self._world.dice.random() < chance


class LogDisk(Disk):
    """The log; see `Planted` for what may be wrong with it."""

    def __init__(self, inner: MemoryLog, world: World) -> None:
        super().__init__(inner, world, fails=("append",), all_or_nothing=True)
        self._held: tuple[Any, ...] | None = None

    def planted_append(
        self, partition: int, values: Sequence[bytes], letters: Any = ()
    ) -> Appended:
        """Append, as it should be or not."""
        inner: MemoryLog = self.inner
        self._write_held()
        if self._planted(Planted.ACK_BEFORE_APPEND, 0.3):
            self._held = (partition, values, letters)
            return Appended(inner.head(partition), inner.last_logged_at_ms(partition))
        if self._planted(Planted.LETTERS_LOST):
            letters = ()
        kept = list(values)
        if self._planted(Planted.LINKS_LOST):
            kept = [value for value in values if kind_of(value) != Kind.LINK]
        if self._planted(Planted.APPEND_LOSES_TAIL, 0.2) and len(kept) > 1:
            kept.pop()
        return inner.append(partition, kept, letters)

    def planted_head(self, partition: int) -> int:
        """Return the head, with what is held back."""
        return self.inner.head(partition) + (len(self._held[1]) if self._held else 0)

    def planted_read(self, partition: int, offset: int, limit: int) -> Any:
        """Read, after what is held back was written."""
        self._write_held()
        return self.inner.read(partition, offset, limit)

    def _write_held(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self.inner.append(*held)


class StoreDisk(Disk):
    """The store; see `Planted` for what may be wrong with it."""

    def __init__(self, inner: MemoryStore, world: World) -> None:
        super().__init__(inner, world, fails=("write",))

    def planted_write(
        self, epoch: int, writes: Sequence[LeafWrite], *, partition: int, applied: Version
    ) -> list[Verdict]:
        """Write, as it should be or not."""
        inner: MemoryStore = self.inner
        if self._planted(Planted.APPLIED_TOO_FAR):
            applied = Version(applied.generation, applied.offset + 2)
        if self._planted(Planted.STORE_LIES, 0.2) and writes:
            inner.write(epoch, writes[1:], partition=partition, applied=applied)
            return [Verdict.ACCEPTED] * len(writes)
        if self._planted(Planted.TORN_WRITE, 0.1) and len(writes) > 1:
            inner.write(epoch, writes[::2], partition=partition, applied=applied)
            self._world.die("in the middle of a store's transaction")
            return [Verdict.ACCEPTED] * len(writes)
        return inner.write(epoch, writes, partition=partition, applied=applied)


class RegisterDisk(Disk):
    """The suppressions; see `Planted` for what may be wrong with them."""

    def __init__(self, inner: MemorySuppressions, world: World) -> None:
        super().__init__(inner, world, fails=("put",))

    def planted_put(self, entries: Any) -> None:
        """Write, now or late."""
        entries = list(entries)
        if self._planted(Planted.REGISTER_LATE):
            self._world.later(2.0, lambda: self.inner.put(entries))
            return
        self.inner.put(entries)


class DecisionsDisk(Disk):
    """The decisions; see `Planted` for what may be wrong with them."""

    def __init__(self, inner: MemoryDecisions, world: World) -> None:
        super().__init__(inner, world, fails=("put_if_absent",))

    def planted_put_if_absent(self, items: Sequence[Any]) -> list[Decided]:
        """Keep decisions, or not."""
        if self._planted(Planted.DECISION_NOT_KEPT, 0.3):
            return [Decided(record, created=True) for _, record in items]
        kept = self.inner.put_if_absent(items)
        return kept[::-1] if self._planted(Planted.ANSWER_OF_ANOTHER) else kept

    def planted_outbox(self, limit: int) -> list[tuple[int, bytes]]:
        """Return what waits, and forget it too early."""
        found = self.inner.outbox(limit)
        if self._planted(Planted.OUTBOX_DROPPED):
            self.inner.outbox_done([number for number, _ in found])
        return found
