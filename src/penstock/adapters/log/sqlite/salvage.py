"""What still reads back of a damaged SQLite log: a new log of it, with other copies filling the gaps.

Every batch carries a checksum over its place, stamp and bytes, so a batch either is what was
appended or counts as lost; between two good ones the number of lost records is known, since offsets
have no gaps. A page of the file that is damaged hides the batches on it and no others: they are
looked for from their far side.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import zstandard

from penstock.adapters.files import drop_scratch, new_scratch
from penstock.adapters.log import sqlite as log_file
from penstock.adapters.log.sqlite import truncation
from penstock.adapters.sqlite import connect, failure
from penstock.core.errors import DataCorrupt, SettingsError
from penstock.core.record import LogRecord, lost_record

FILLED_RECORDS: Final = 5_000
"""Records that were lost, for which one batch stands."""

CLAIMED_RECORDS_MAX: Final = 1_000_000
"""A batch at the end that does not match its checksum is not believed to have held more."""

_FIRST = """SELECT position, count, logged_at_ms, codec, crc, blob FROM batches
    WHERE position >= ? AND position < ? ORDER BY position LIMIT 1"""
_LETTER = "SELECT * FROM letters WHERE sequence >= ? AND sequence < ? ORDER BY sequence LIMIT 1"
_SEQUENCE_MAX: Final = 1 << 62

Row = tuple[int, int, int, int, int, bytes]
"""A row of `batches`."""

Before = Callable[[int, int, int, LogRecord], list[LogRecord]]
"""`before(generation, partition, first, record)`: the records that an archive has just before one that reads back."""


class Gap(NamedTuple):
    """Records that do not read back: offsets `first … end - 1` of a partition."""

    partition: int
    first: int
    end: int

    @property
    def records(self) -> int:
        """Return how many they are."""
        return self.end - self.first


class Survey(NamedTuple):
    """What does not read back."""

    gaps: list[Gap]
    marked: list[Gap]
    """What an earlier repair marked as lost: a copy that was not at hand then may have it."""
    letters: int
    """Dead letters that do not read back."""
    sound: bool
    """Whether the file is in order for SQLite. If not, it takes nothing more, even where all can be read."""

    @property
    def whole(self) -> bool:
        """Whether there is nothing to repair."""
        return self.sound and not (self.gaps or self.letters)


class Salvaged(NamedTuple):
    """What a new log has: records that were found in copies, and those that are lost for good."""

    restored: int
    lost: list[Gap]
    letters_lost: int


class _Unreadable(Exception):
    """A page on the way to a row is damaged."""


class DamagedLog:
    """Reads a log file row by row, around damage. Not while another process writes to it.

    Args:
        path: The file.

    Raises:
        DataCorrupt: Its first pages are damaged, so that nothing can be read (E707), or another
            version wrote it (E706).
    """

    def __init__(self, path: Path) -> None:
        self.path = self._read_from = path
        self._connection: sqlite3.Connection | None = None
        self._scratch: Path | None = None
        try:
            totals = self._totals()
        except (sqlite3.Error, DataCorrupt):
            try:
                self._scratch = new_scratch(path.parent, "repair")
                self._read_from = _with_new_first_page(path, self._scratch)
                totals = self._totals()
            except (sqlite3.Error, DataCorrupt) as error:
                self.close()
                raise _hopeless(path) from error
        self.generation, self.partitions = totals.get("generation", 0), totals.get("partitions", 0)
        self.letters_kept = totals.get("dead_letters", 0)
        self.marks = [(name, value) for name, value in totals.items() if ":" in name]
        """What it says of its truncation."""
        if not (0 < self.partitions < 1 << 15 and self.generation > 0):
            self.close()
            raise _hopeless(path)

    def close(self) -> None:
        """Close the file."""
        self._drop()
        if self._scratch is not None:
            drop_scratch(self._scratch)

    def is_sound(self) -> bool:
        """Return whether SQLite finds nothing wrong with the file itself; bytes inside a batch are not its."""
        if self._scratch is not None:
            return False
        try:
            return self._open().execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
        except sqlite3.DatabaseError:
            self._drop()
            return False

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _totals(self) -> dict[str, int]:
        try:
            return dict(self._open().execute("SELECT name, value FROM totals").fetchall())
        except sqlite3.Error:
            self._drop()
            raise

    def rows(self, partition: int, first: int = 0, end: int | None = None) -> Iterator[Row]:
        """Yield the batches that read back and match their checksums, in order; none that stands for what is lost."""
        return (
            row
            for row in self._rows(partition, first, end)
            if row is not None and _is_good(row) and not _is_filler(row)
        )

    def walk(
        self, partition: int, head: int, *, marked: bool = True
    ) -> Iterator[tuple[Gap | None, Row | None]]:
        """Yield the good batches in order, each with the gap before it; a gap at the end stands alone.

        Args:
            partition: Which one.
            head: An offset that the partition reaches, as others know; 0 if they do not.
            marked: Whether what an earlier repair marked as lost counts as a gap again.
        """
        expected = told = dict(self.marks).get(f"first:{partition}", 0)
        for row in self._rows(partition, 0, None):
            if row is None:
                told = expected + 1  # there was something more
                continue
            first = row[0] - log_file.position_of(partition, 0)
            if marked and _is_good(row) and _is_filler(row):
                told = max(told, first + row[1])
            elif not _is_good(row):
                # If it is where one should be, what it says of its length is the best there is.
                claimed = row[1] if first == expected and isinstance(row[1], int) else 1
                told = expected + min(max(claimed, 1), CLAIMED_RECORDS_MAX)
            elif first >= expected:
                yield (Gap(partition, expected, first) if first > expected else None), row
                expected = first + row[1]
        if max(head, told) > expected:
            yield Gap(partition, expected, max(head, told)), None

    def _rows(self, partition: int, first: int, end: int | None) -> Iterator[Row | None]:
        """Yield every batch that can be reached, good or not; None if damage hides all beyond."""
        start = log_file.position_of(partition, first)
        beyond = log_file.position_of(partition + 1, 0) if end is None else log_file.position_of(partition, end)  # fmt: skip
        while start < beyond:
            row, hidden = self._next(_FIRST, start, beyond)
            if row is not None or hidden:
                yield row
            if row is None:
                return
            # What a bad one says of its length cannot be believed.
            start = row[0] + (row[1] if _is_good(row) else 1)

    def marked(self, partition: int) -> Iterator[Gap]:
        """Yield what an earlier repair marked as lost, one gap a run of batches."""
        gap: Gap | None = None
        for row in self._rows(partition, 0, None):
            if row is None or not (_is_good(row) and _is_filler(row)):
                continue
            first = row[0] - log_file.position_of(partition, 0)
            if gap is not None and gap.end != first:
                yield gap
                gap = None
            gap = Gap(partition, first if gap is None else gap.first, first + row[1])
        if gap is not None:
            yield gap

    def letters(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of the dead letters that can be reached."""
        start = 0
        while (row := self._next(_LETTER, start, _SEQUENCE_MAX)[0]) is not None:
            yield row
            start = row[0] + 1

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect(self._read_from, log_file.KIND, read_only=True)
        return self._connection

    def _row(self, query: str, start: int, beyond: int) -> Any:
        try:
            return self._open().execute(query, (start, beyond)).fetchone()
        except sqlite3.DatabaseError as error:
            self._drop()  # a connection that met damage may hold a bad page in its cache
            if not isinstance(failure(log_file.KIND, self.path, error), DataCorrupt):
                raise
            raise _Unreadable from error

    def _next(self, query: str, start: int, beyond: int) -> tuple[Any, bool]:
        """Return the first row from `start` on that can be reached, or None, and whether damage hid any."""
        with contextlib.suppress(_Unreadable):
            return self._row(query, start, beyond), False
        # Somewhere above it is readable again, or nowhere. Gallop, then halve.
        found, bad, step = None, start, 1
        while (good := min(bad + step, beyond)) < beyond:
            try:
                found = self._row(query, good, beyond)
                break
            except _Unreadable:
                bad, step = good, step * 2
        while good - bad > 1:
            middle = (good + bad) // 2
            try:
                found, good = self._row(query, middle, beyond), middle
            except _Unreadable:
                bad = middle
        return found, True


def survey(path: Path, heads: Sequence[int] = ()) -> Survey:
    """Return what of a log does not read back.

    Args:
        path: The log's file.
        heads: By partition, an offset that the log must reach, such as the store's applied one.

    Raises:
        DataCorrupt: Nothing of it can be read (E707), or another version wrote it (E706).
    """
    with closing(DamagedLog(path)) as log:
        gaps: list[Gap] = []
        marked: list[Gap] = []
        for partition in range(log.partitions):
            head = _head(heads, partition)
            gaps += [gap for gap, _ in log.walk(partition, head, marked=False) if gap is not None]
            marked += log.marked(partition)
        read = sum(1 for _ in log.letters())
        return Survey(gaps, marked, max(log.letters_kept - read, 0), log.is_sound())


def salvage(
    path: Path, target: Path, copies: Sequence[Path] = (), heads: Sequence[int] = (),
    *, before: Before = lambda *_: [], progress: Callable[[int], None] = lambda _: None,
) -> Salvaged:  # fmt: skip
    """Write a new log of what reads back; in place of each lost record stands one that says so.

    Args:
        path: The damaged log; only read.
        target: The new file.
        copies: Logs that hold the same batches, such as those of backups, tried in this order.
        heads: By partition, an offset that the new log must reach: a shorter one would give new
            records offsets that leaves have applied already.
        before: What an archive has of records that no copy has.
        progress: Told how many records were written.

    Raises:
        DataCorrupt: Nothing of it can be read (E707).
        SettingsError: A copy is of another log (E248).
    """
    restored, lost = 0, list[Gap]()
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(closing(DamagedLog(path)))
        others = [stack.enter_context(closing(DamagedLog(copy))) for copy in copies]
        for other in others:
            _require_same(log, other)
        new = stack.enter_context(closing(connect(target, log_file.KIND)))
        new.execute("BEGIN IMMEDIATE")
        shape = ((log.generation, "generation"), (log.partitions, "partitions"))
        new.executemany("UPDATE totals SET value = ? WHERE name = ?", shape)
        truncation.put_marks(new, log.marks)

        def put(row: Row) -> None:
            new.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?)", row)
            progress(row[1])

        for partition in range(log.partitions):
            stamp_ms = 0
            for gap, row in log.walk(partition, _head(heads, partition)):
                for part, found in _filled(gap, others) if gap else ():
                    missing = part.end if found is None else part.first
                    archived = _archived(log, part, row, before) if found is None else []
                    if archived:
                        missing = archived[0].offset
                    if missing > part.first:
                        lost.append(part._replace(end=missing))
                        for filler in _fillers(lost[-1], stamp_ms):
                            put(filler)
                    for one in [found] if found is not None else _rows_of(partition, archived):
                        restored += one[1]
                        stamp_ms = max(stamp_ms, one[2])
                        put(one)
                if row is not None:
                    stamp_ms = max(stamp_ms, row[2])
                    put(row)
        kept = 0
        for letter in log.letters():
            kept += new.execute(f"INSERT OR IGNORE INTO letters VALUES ({','.join('?' * len(letter))})", letter).rowcount  # noqa: S608 # fmt: skip
        log_file.recount(new)
        new.execute("COMMIT")
        new.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return Salvaged(restored, lost, max(log.letters_kept - kept, 0))


def _filled(gap: Gap, copies: Sequence[DamagedLog]) -> Iterator[tuple[Gap, Row | None]]:
    """Yield the parts of a gap in order: a batch that a copy has, or None for what no copy has."""
    if not copies:
        yield gap, None
        return
    expected = gap.first
    for row in copies[0].rows(gap.partition, gap.first, gap.end):
        first = row[0] - log_file.position_of(gap.partition, 0)
        if first < expected or first + row[1] > gap.end:
            continue
        if first > expected:
            yield from _filled(Gap(gap.partition, expected, first), copies[1:])
        yield Gap(gap.partition, first, first + row[1]), row
        expected = first + row[1]
    if expected < gap.end:
        yield from _filled(Gap(gap.partition, expected, gap.end), copies[1:])


def _archived(log: DamagedLog, part: Gap, after: Row | None, before: Before) -> list[LogRecord]:
    """Return the end of a gap as an archive has it; nothing is proven of what no good batch follows."""
    if after is None or after[3] != log_file.CODEC_ZSTD:
        return []
    value = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(after[5]), type=list[bytes])[0]  # fmt: skip
    offset = after[0] - log_file.position_of(part.partition, 0)
    found = before(log.generation, part.partition, part.first, LogRecord(offset, after[2], value))
    found = [record for record in found if part.first <= record.offset < part.end]
    lost = [place for place, record in enumerate(found) if record.value == lost_record()]
    found = found[lost[-1] + 1 :] if lost else found
    return found if found and found[-1].offset == part.end - 1 else []


def _rows_of(partition: int, records: Sequence[LogRecord]) -> Iterator[Row]:
    """Yield batches of consecutive records, each of one stamp."""
    for stamp_ms, group in groupby(records, key=lambda record: record.logged_at_ms):
        alike = list(group)
        for start in range(0, len(alike), FILLED_RECORDS):
            part = alike[start : start + FILLED_RECORDS]
            yield _row_of(partition, part[0].offset, stamp_ms, [record.value for record in part])


def _row_of(partition: int, first: int, stamp_ms: int, values: Sequence[bytes]) -> Row:
    blob = zstandard.ZstdCompressor(level=3).compress(msgspec.msgpack.encode(values))
    place = log_file.position_of(partition, first)
    crc = log_file.checksum(place, len(values), stamp_ms, log_file.CODEC_ZSTD, blob)
    return place, len(values), stamp_ms, log_file.CODEC_ZSTD, crc, blob


def _fillers(gap: Gap, stamp_ms: int) -> Iterator[Row]:
    for first in range(gap.first, gap.end, FILLED_RECORDS):
        count = min(FILLED_RECORDS, gap.end - first)
        yield _row_of(gap.partition, first, stamp_ms, [lost_record()] * count)


def _is_good(row: Row) -> bool:
    place, count, stamp_ms, codec, crc, blob = row
    try:
        return count > 0 and crc == log_file.checksum(place, count, stamp_ms, codec, blob)
    except TypeError:  # a column of another type than it had
        return False


def _is_filler(row: Row) -> bool:
    """Return whether a good batch stands for records that are lost, as `_fillers` makes them."""
    if row[3] != log_file.CODEC_ZSTD:
        return False
    try:
        values = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(row[5]), type=list[bytes])  # fmt: skip
    except (zstandard.ZstdError, msgspec.MsgspecError):
        return False
    return bool(values) and values[0] == lost_record() == values[-1]


def _require_same(log: DamagedLog, copy: DamagedLog) -> None:
    """Check that a copy holds the same batches as a log, where both read back."""
    same = (log.generation, log.partitions) == (copy.generation, copy.partitions)
    for partition in range(log.partitions if same else 0):
        ours = {row[0]: row[4] for row in log.rows(partition)}
        same = same and all(ours.get(row[0], row[4]) == row[4] for row in copy.rows(partition))
    if not same:
        raise SettingsError("E248", "this copy is of another log", where=str(copy.path),
                            fix="name a backup of this project")  # fmt: skip


def _head(heads: Sequence[int], partition: int) -> int:
    return heads[partition] if partition < len(heads) else 0


def _with_new_first_page(path: Path, scratch: Path) -> Path:
    """Return a copy of a log whose first page, with header and schema, is that of a new one.

    Every log is made by the same statements, so its tables begin on the same pages.
    """
    new, copy = scratch / "new.db", scratch / "log.db"
    connect(new, log_file.KIND).close()
    page = bytearray(new.read_bytes()[: log_file.KIND.page_bytes])
    shutil.copyfile(path, copy)
    pages = copy.stat().st_size // log_file.KIND.page_bytes
    page[28:32] = pages.to_bytes(4, "big")
    page[32:40] = bytes(8)  # no list of free pages: nothing is written to this copy
    with copy.open("r+b") as file:
        file.write(page)
    return copy


def _hopeless(path: Path) -> DataCorrupt:
    return DataCorrupt("E707", "the log's first pages are damaged, so that nothing of it can be read", where=str(path),
                       fix="restore a backup, with `--later` naming this data folder")  # fmt: skip
