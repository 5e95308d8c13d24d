"""A feeder: reads the log after the fold, on a thread of its own, and tells other systems what it says.

It holds nothing that could be lost: up to where it has come is committed with what it said, and whoever
goes on reads from there. Of two processes the one that started last tells; the other stands by, and takes
over when nobody goes on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from penstock.core.errors import Fenced, PenstockError, Unavailable
from penstock.core.ids import LeafId
from penstock.core.record import LogRecord
from penstock.flows.feeding import Source
from penstock.ports.clock import Clock
from penstock.ports.feed import Feed, Message
from penstock.ports.log import Log
from penstock.ports.metrics import Metrics

log_feed = logging.getLogger("penstock.feed")

RECORDS_MAX: Final = 5_000
"""Records that are read before what they say is told."""

PAGE_LEAVES: Final = 1_000
"""Leaves that are told of at a time where all is told anew."""

SHARE: Final = 0.5
"""The most of a thread's time that a feed takes while it is behind: what serves in this process goes on."""

RETRY_MS: Final = 500
RETRY_MS_MAX: Final = 30_000
STAND_BY_MS: Final = 5_000
STAND_BY_LOOKS: Final = 3
"""Who stands by takes over if nothing was told in so many looks, though there was something to be told."""


Write = Callable[[bytes], bytes]
"""Returns a value, which is JSON, as it is to stand in the topic."""


class Feeder:
    """Tells what a source says about the log on a feed. `turn` is called by one thread.

    Args:
        name: `decisions` or `profiles`, for metrics and messages.
        log: The log.
        source: What serves now is to be told of; another one when that changes.
        open_feed: Opens the feed.
        clock: For waiting times.
        metrics: Where to count.
        every_ms: How often to look.
        writing: Returns how values are written; asked until it says so, before anything is told.
    """

    def __init__(
        self, name: str, *, log: Log, source: Callable[[], Source], open_feed: Callable[[], Feed], clock: Clock,
        metrics: Metrics, every_ms: int = 1_000, writing: Callable[[], Write] = lambda: bytes,
    ) -> None:  # fmt: skip
        self.name = name
        self._log = log
        self._source = source
        self._open_feed = open_feed
        self._clock = clock
        self._metrics = metrics
        self._every_ms = every_ms
        self._writing = writing
        self._write: Write | None = None
        self._stopping = threading.Event()
        self._feed: Feed | None = None
        self._current: Source | None = None
        self._positions: list[int] | None = None
        """Where it goes on; None while it does not write."""
        self._ends: list[int] = []
        self._places = 0
        """How many partitions the log had when the feed was opened."""
        self._first = 0
        """The partition that is read first."""
        self._anew = False
        """Whether all is being told anew, up to `_after`."""
        self._after: LeafId | None = None
        self._retry_ms = RETRY_MS
        self._fault = ""
        self._fenced = False
        self._seen: list[int] = []
        self._idle_looks = 0

    # -- life

    def start(self) -> threading.Thread:
        """Run on a thread of its own, until `stop`."""
        thread = threading.Thread(target=self.run, name=f"penstock-feed-{self.name}", daemon=True)
        thread.start()
        return thread

    def run(self) -> None:
        """Tell what there is to tell, until it is stopped."""
        try:
            while not self._stopping.is_set():
                self._stopping.wait(self.step() / 1000)
        finally:
            self.close()

    def stop(self) -> None:
        """End after what is being told; any thread may ask."""
        self._stopping.set()

    def close(self) -> None:
        """Release connections."""
        if self._feed is not None:
            self._feed.close()
            self._feed = None
        self._positions = None

    def step(self) -> int:
        """Do a turn, and return after how many ms the next is due; a fault is told, and tried again."""
        began_ms = self._clock.monotonic_ms()
        try:
            if self._fenced and not self._takes_over():
                return STAND_BY_MS
            told = self.turn()
        except Fenced as error:
            self._failed(error)
            self._fenced, self._seen, self._idle_looks = True, [], 0
            return STAND_BY_MS
        except Exception as error:  # noqa: BLE001 - a thread that ended would tell nobody
            self._failed(error if isinstance(error, PenstockError) else unforeseen(error))
            wait_ms, self._retry_ms = self._retry_ms, min(2 * self._retry_ms, RETRY_MS_MAX)
            return wait_ms
        self._retry_ms, self._fault = RETRY_MS, ""
        if not told:
            return self._every_ms
        took_ms = self._clock.monotonic_ms() - began_ms
        return round(took_ms * (1 - SHARE) / SHARE) if self._anew or self.lag() else self._every_ms

    def _failed(self, error: PenstockError) -> None:
        self._positions = None
        self._metrics.count("penstock_feed_failures_total", feed=self.name, code=error.code)
        if error.code != self._fault:
            self._fault = error.code
            log_feed.warning("%s: %s: %s; fix: %s", self.name, error.code, error.what, error.fix)

    def _takes_over(self) -> bool:
        """Return whether who wrote last has stopped, though there is something to tell."""
        positions = self._opened().positions()
        behind = any(end > offset for end, offset in zip(self._source().ends(), positions, strict=False))  # fmt: skip
        self._idle_looks = self._idle_looks + 1 if behind and positions == self._seen else 0
        self._seen = positions
        self._fenced = self._idle_looks < STAND_BY_LOOKS
        return not self._fenced

    # -- a turn

    def turn(self) -> int:
        """Tell what the next records say; return how many records or leaves that were.

        Raises:
            Fenced: Another process writes now (E607).
            PenstockError: The log, the store or the brokers did not do what was asked; nothing was told, or
                it is not known, and is asked again.
        """
        source, feed = self._source(), self._opened()
        if self._positions is None or self._current is None or source.mark != self._current.mark:
            self._begin(source, feed)
        self._current = source
        assert self._positions is not None, "it has begun"
        self._ends = source.ends()
        if self._anew:
            return self._tell_anew(source, feed)
        positions, batch = self._next(self._positions)
        if batch:
            self._put(source, feed, source.messages(batch), positions, source.mark)
        self._gauge()
        return sum(map(len, batch.values()))

    def _begin(self, source: Source, feed: Feed) -> None:
        """Become the writer, and find out where to go on."""
        if self._write is None:
            self._write = self._writing()
        source.forget()
        self._positions = feed.take_over(source.mark)
        self._anew, self._after = self._positions is None, None
        if self._positions is None:
            self._positions = source.begin()

    def _tell_anew(self, source: Source, feed: Feed) -> int:
        """Tell of the next of all leaves. Until the last of them, whoever takes over begins anew."""
        assert self._positions is not None, "it has begun"
        page = source.everybody(self._after, PAGE_LEAVES)
        self._after = page[-1] if page else None
        self._anew = len(page) == PAGE_LEAVES
        self._put(
            source, feed, source.about(page), self._positions, "" if self._anew else source.mark
        )
        return max(len(page), 1)

    def _put(
        self, source: Source, feed: Feed, messages: Sequence[Message], positions: list[int], mark: str
    ) -> None:  # fmt: skip
        assert self._write is not None, "it has begun"
        feed.put([_written(one, self._write) for one in messages], positions, mark)
        source.said(messages)
        self._positions = positions
        gone = sum(one.value is None for one in messages)
        for kind, number in (("value", len(messages) - gone), ("tombstone", gone)):
            self._metrics.count("penstock_feed_messages_total", number, feed=self.name, kind=kind)

    def _opened(self) -> Feed:
        # One more generation of the log has places of its own.
        if self._feed is not None and self._places != self._log.partitions:
            self._feed.close()
            self._feed, self._positions = None, None
        if self._feed is None:
            self._places = self._log.partitions
            self._feed = self._open_feed()
        return self._feed

    def _next(self, positions: Sequence[int]) -> tuple[list[int], dict[int, list[LogRecord]]]:
        """Return the records that come next, and where to go on after them."""
        after, batch = [*positions], dict[int, list[LogRecord]]()
        room = RECORDS_MAX
        self._first += 1  # one that is far behind leaves the others room
        for place in range(len(positions)):
            partition = (self._first + place) % len(positions)
            # What retention took before it was told is told no more.
            offset = max(after[partition], self._log.first(partition))
            limit = min(self._ends[partition] - offset, room)
            records = self._log.read(partition, offset, limit) if limit > 0 else []
            if records:
                batch[partition] = records
                after[partition] = records[-1].offset + 1
                room -= len(records)
        return after, batch

    def lag(self) -> int:
        """Return how many records there were to be told of when it was looked last; 0 if this does not write."""
        if self._positions is None:
            return 0
        return sum(max(end - offset, 0) for end, offset in zip(self._ends, self._positions, strict=False))  # fmt: skip

    def _gauge(self) -> None:
        self._metrics.gauge("penstock_feed_lag_records", self.lag(), feed=self.name)


def unforeseen(error: Exception) -> Unavailable:
    """Return what an exception that nobody foresaw is told as: by its type, since its text may hold values."""
    return Unavailable("E401", f"the feed failed: {type(error).__name__}", fix="it is tried again; see `penstock doctor`")  # fmt: skip


def _written(message: Message, write: Write) -> Message:
    return message if message.value is None else Message(message.leaf, write(message.value))
