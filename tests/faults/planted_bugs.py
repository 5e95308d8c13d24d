"""Bugs to plant into a process of the shop, and the moments at which one is stalled or killed.

They are made by composition in the process that has them, before it runs its command: a part is replaced by
one that does wrong. Several may be joined by `+`.
"""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Final

import msgspec

import penstock.adapters.redis as on_redis
import penstock.cli.up as up_command
import penstock.cli.worker as worker_command
from penstock.adapters.clock import SystemClock
from penstock.adapters.store.redis import RedisStore, leaf_value
from penstock.core.record import NO_VERSION
from penstock.flows import native, process
from penstock.ports.log import Appended, Log
from penstock.ports.store import LeafWrite, Store, StoredLeaf, Verdict
from penstock.runtimes.reading import WrittenLeaves
from penstock.runtimes.worker import Worker
from penstock.testing.worker_bugs import WORKERS, WorkerBug


class Wrapped:
    """Stands before a part, and is that part in all that a subclass does not do itself."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def changed_worker(change: Callable[[Worker], None]) -> None:
    """Have something done to the worker of this process before it runs."""
    made = worker_command.make_worker

    def make(*given: Any, **named: Any) -> Worker:
        worker = made(*given, **named)
        change(worker)
        return worker

    worker_command.make_worker = make


def changed_stores(**change: Callable[[Any], Any]) -> None:
    """Have something put before the stores of `penstock up`."""
    opened = up_command.open_stores

    def open_stores(*given: Any, **named: Any) -> Any:
        stores = opened(*given, **named)
        return replace(
            stores, **{name: wrap(getattr(stores, name)) for name, wrap in change.items()}
        )

    up_command.open_stores = open_stores


def simulated(bug: WorkerBug) -> None:
    """Plant a bug that the simulation of workers has too."""

    def change(worker: Worker) -> None:
        worker.__class__ = WORKERS[bug]

    changed_worker(change)


# ----------------------------------------------------------------------------------- of the store


class CommitsFirst(Wrapped):
    """Notes the applied offset at once, and writes the leaves when the next ones come."""

    _held: tuple[int, list[LeafWrite], int, Any] | None = None

    def write(self, epoch, writes, *, partition, applied):
        if self._held is not None:
            held, self._held = self._held, None
            self._inner.write(held[0], held[1], partition=held[2], applied=held[3])
        self._inner.write(epoch, [], partition=partition, applied=applied)
        self._held = (epoch, list(writes), partition, applied)
        return [Verdict.ACCEPTED] * len(writes)

    def read(self, epoch, leaves):
        held = self._held[1] if self._held else ()
        newest = {write.leaf: StoredLeaf(write.new, write.parts) for write in held}
        stored = self._inner.read(epoch, leaves)
        return [newest.get(leaf, old) for leaf, old in zip(leaves, stored, strict=True)]

    def close(self):
        self._inner.close()


class RefusesOlderOnly(Wrapped):
    """Takes every write that is newer than what it has, whatever that was made from."""

    def write(self, epoch, writes, *, partition, applied):
        stored = self._inner.read(epoch, [one.leaf for one in writes])
        bases = [NO_VERSION if one is None else one.version for one in stored]
        rebased = [
            write._replace(base=base) if base < write.new else write
            for write, base in zip(writes, bases, strict=True)
        ]
        return self._inner.write(epoch, rebased, partition=partition, applied=applied)


class TakesWhateverComes(Wrapped):
    """Has what was written last, older or not."""

    def write(self, epoch, writes, *, partition, applied):
        store: RedisStore = self._inner
        commands = [("SET", store.key_of(epoch, one.leaf), leaf_value(one)) for one in writes]
        if commands:
            store.server.run(commands)
        store.write(epoch, [], partition=partition, applied=applied)
        return [Verdict.ACCEPTED] * len(writes)


def wrapped_store(wrap: Callable[[Store], Any]) -> Callable[[], None]:
    def change(worker: Worker) -> None:
        worker.store = wrap(worker.store)

    return lambda: changed_worker(change)


# --------------------------------------------------------------------------- of links, copies, register


class LinksLast(Worker):
    """Appends links when the leaves are written that cover their primaries."""

    def _keep(self, lane):
        if not lane.fold.dirty:
            super()._keep(lane)

    def _flush(self, lane):
        covered = lane.covered
        super()._flush(lane)
        lane.covered = covered
        super()._keep(lane)


def links_last() -> None:
    def change(worker: Worker) -> None:
        worker.__class__ = LinksLast

    changed_worker(change)


def links_lost() -> None:
    def change(worker: Worker) -> None:
        append = worker._append
        worker._append = lambda partition, links, letters: append(partition, (), letters)

    changed_worker(change)


def register_not_healed() -> None:
    class Deaf(Wrapped):
        def put(self, entries: Sequence[Any]) -> None:
            """Leave it to the edge alone."""

    def change(worker: Worker) -> None:
        worker.suppressions = Deaf(worker.suppressions)

    changed_worker(change)


def copies_not_known() -> None:
    """Leave copies to whoever merges leaves: a leaf takes each for an event of its own."""
    native._accelerated = lambda step: None  # the fold in Python has the bug
    decode, numbers = process.decode_records, count(1)
    process.decode_records = lambda values: [
        msgspec.structs.replace(one, event_id=(one.event_id + next(numbers)) % 2**64)
        for one in decode(values)
    ]


# ------------------------------------------------------------------------------ of Redis that fails


def wait_skipped() -> None:
    run = on_redis.RedisServer.run

    def unconfirmed(self: Any, commands: Any, *, confirm: bool = False, **rest: Any) -> list[Any]:
        return run(self, commands, **rest)

    on_redis.RedisServer.run = unconfirmed


def era_ignored() -> None:
    """Take whichever server answers for the one that was there before."""
    server = on_redis.RedisServer

    def greet(self: Any, connection: Any) -> None:
        self._identity = None
        greeted(self, connection)

    greeted = server._greet
    server._greet = greet
    server._verify = lambda self, marker, replication: None


# --------------------------------------------------------------------------------- of `penstock up`


class AnswersAtOnce(Wrapped):
    """Says that a batch is durable, and hands it to the brokers meanwhile."""

    def append(self, partition, values, letters=()):
        log: Log = self._inner
        threading.Thread(
            target=self._append, args=(partition, values, letters), daemon=True
        ).start()
        return Appended(log.head(partition), SystemClock().now_ms())

    def _append(self, *given: Any) -> None:
        try:
            self._inner.append(*given)
        except Exception:  # noqa: BLE001 - nobody waits for it any more
            return


def stale_said_live() -> None:
    WrittenLeaves.standing = lambda self: (SystemClock().now_ms(), True)


# ----------------------------------------------------------------------------------------- moments


def once(signal_number: int) -> Callable[[], None]:
    """Return what sends this process a signal, the first time."""
    left = [signal_number]

    def strike() -> None:
        if left:
            os.kill(os.getpid(), left.pop())

    return strike


def stalled_before_write() -> None:
    class Stalls(Wrapped):
        def write(self, epoch, writes, *, partition, applied):
            if writes:
                strike()
            return self._inner.write(epoch, writes, partition=partition, applied=applied)

    strike = once(signal.SIGSTOP)
    wrapped_store(Stalls)()


def killed_before_links() -> None:
    def change(worker: Worker) -> None:
        append, strike = worker._append, once(signal.SIGKILL)

        def struck(partition: int, links: Any, letters: Any) -> None:
            if links:
                strike()
            append(partition, links, letters)

        worker._append = struck

    changed_worker(change)


def killed_before_register() -> None:
    class Dies(Wrapped):
        def put(self, entries: Sequence[Any]) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

    changed_stores(suppressions=Dies)


BUGS: Final[dict[str, Callable[[], None]]] = {
    "commit before write": wrapped_store(CommitsFirst),
    "resume from the commit": lambda: simulated(WorkerBug.RESUME_FROM_COMMIT),
    "write without base check": wrapped_store(TakesWhateverComes),
    "refuse older only": wrapped_store(RefusesOlderOnly),
    "cache kept over revoked": lambda: simulated(WorkerBug.CACHE_OVER_REVOKED),
    "alternating workers": lambda: simulated(WorkerBug.ALTERNATING_WORKERS),
    "leaf before link": links_last,
    "revoked unwritten": lambda: simulated(WorkerBug.REVOKED_UNWRITTEN),
    "links lost": links_lost,
    "copies not known": copies_not_known,
    "register not healed": register_not_healed,
    "WAIT skipped": wait_skipped,
    "era ignored": era_ignored,
    "answered at once": lambda: changed_stores(log=AnswersAtOnce),
    "stale said live": stale_said_live,
    "stalled before write": stalled_before_write,
    "killed before links": killed_before_links,
    "killed before register": killed_before_register,
}
"""By name. The last three are no bugs: what is right survives them."""


def plant(names: str) -> None:
    """Plant what is named, of this process."""
    for name in names.split("+"):
        if name != "none":
            BUGS[name]()
