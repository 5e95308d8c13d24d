"""A feeder: reads the log after the fold, on a thread of its own, and tells other systems what it says.

It holds nothing that could be lost: up to where it has come is committed with what it said, and whoever
goes on reads from there. Of two processes the one that started last tells; the other stands by, and takes
over when nobody goes on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from penstock.core.errors import Fenced, PenstockError
from penstock.core.record import LogRecord
from penstock.flows.feeding import Source
from penstock.ports.clock import Clock
from penstock.ports.feed import Feed
from penstock.ports.log import Log
from penstock.ports.metrics import Metrics

log_feed = logging.getLogger("penstock.feed")

RECORDS_MAX: Final = 2_000
"""Records that are read before what they say is told."""

SHARE: Final = 0.5
"""The most of a thread's time that a feed takes while it is behind: what serves in this process goes on."""

RETRY_MS: Final = 500
RETRY_MS_MAX: Final = 30_000
STAND_BY_MS: Final = 5_000
STAND_BY_LOOKS: Final = 3
"""Who stands by takes over if nothing was told in so many looks, though there was something to be told."""


class Feeder:
    """Tells what a source says about the log on a feed. `turn` is called by one thread.

    Args:
        name: `decisions` or `profiles`, for metrics and messages.
        log: The log.
        source: What serves now is to be told of; another one when that changes.
        open_feed: Opens the feed under a source's name.
        clock: For waiting times.
        metrics: Where to count.
        every_ms: How often to look.
    """

    def __init__(
        self, name: str, *, log: Log, source: Callable[[], Source], open_feed: Callable[[str], Feed], clock: Clock,
        metrics: Metrics, every_ms: int = 1_000,
    ) -> None:  # fmt: skip
        self.name = name
        self._log = log
        self._source = source
        self._open_feed = open_feed
        self._clock = clock
        self._metrics = metrics
        self._every_ms = every_ms
        self._stopping = threading.Event()
        self._feed: Feed | None = None
        self._current: Source | None = None
        self._positions: list[int] | None = None
        """Where it goes on; None while it does not write."""
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
        except PenstockError as error:
            self._failed(error)
            wait_ms, self._retry_ms = self._retry_ms, min(2 * self._retry_ms, RETRY_MS_MAX)
            return wait_ms
        self._retry_ms, self._fault = RETRY_MS, ""
        if not told:
            return self._every_ms
        took_ms = self._clock.monotonic_ms() - began_ms
        behind = self.lag() > 0
        return round(took_ms * (1 - SHARE) / SHARE) if behind else self._every_ms

    def _failed(self, error: PenstockError) -> None:
        self._positions = None
        self._metrics.count("penstock_feed_failures_total", feed=self.name, code=error.code)
        if error.code != self._fault:
            self._fault = error.code
            log_feed.warning("%s: %s: %s; fix: %s", self.name, error.code, error.what, error.fix)

    def _takes_over(self) -> bool:
        """Return whether who wrote last has stopped, though there is something to tell."""
        feed = self._opened()
        positions = feed.positions()
        behind = any(self._end(partition) > offset for partition, offset in enumerate(positions))
        self._idle_looks = self._idle_looks + 1 if behind and positions == self._seen else 0
        self._seen = positions
        self._fenced = self._idle_looks < STAND_BY_LOOKS
        return not self._fenced

    # -- a turn

    def turn(self) -> int:
        """Tell what the next records say; return how many records that were.

        Raises:
            Fenced: Another process writes now (E607).
            PenstockError: The log, the store or the brokers did not do what was asked; nothing was told, or
                it is not known, and is asked again.
        """
        feed = self._opened()
        source = self._current
        assert source is not None, "a feed is opened for a source"
        if self._positions is None:
            source.forget()
            self._positions = feed.take_over()
        positions = [*self._positions]
        batch: dict[int, list[LogRecord]] = {}
        for partition in range(len(positions)):
            records = self._read(partition, positions[partition])
            if records:
                batch[partition] = records
                positions[partition] = records[-1].offset + 1
        self._gauge()
        if not batch:
            return 0
        messages = source.messages(batch)
        feed.put(messages, positions)
        source.said(messages)
        self._positions = positions
        gone = sum(one.value is None for one in messages)
        self._metrics.count(
            "penstock_feed_messages_total", len(messages) - gone, feed=self.name, kind="value"
        )
        self._metrics.count("penstock_feed_messages_total", gone, feed=self.name, kind="tombstone")  # fmt: skip
        self._gauge()
        return sum(map(len, batch.values()))

    def _opened(self) -> Feed:
        """Return the feed of what serves now; if that is another than before, begin where that one stands."""
        source = self._source()
        # One more generation of the log has places of its own.
        grown = self._positions is not None and len(self._positions) < self._log.partitions
        if (
            self._feed is None
            or self._current is None
            or source.name != self._current.name
            or grown
        ):
            if self._feed is not None:
                self._feed.close()
            self._feed, self._positions = None, None
            self._feed = self._open_feed(source.name)
            self._current = source
        return self._feed

    def _read(self, partition: int, offset: int) -> list[LogRecord]:
        # What retention took before it was told is told no more.
        offset = max(offset, self._log.first(partition))
        limit = min(self._end(partition) - offset, max(RECORDS_MAX // self._log.partitions, 1))
        return self._log.read(partition, offset, limit) if limit > 0 else []

    def _end(self, partition: int) -> int:
        assert self._current is not None, "a feed is opened for a source"
        return self._current.end(partition)

    def lag(self) -> int:
        """Return how many records there are to be told of."""
        if self._positions is None or self._current is None:
            return 0
        with suppress(PenstockError):
            return sum(
                max(self._end(partition) - offset, 0)
                for partition, offset in enumerate(self._positions)
            )
        return 0

    def _gauge(self) -> None:
        self._metrics.gauge("penstock_feed_lag_records", self.lag(), feed=self.name)
