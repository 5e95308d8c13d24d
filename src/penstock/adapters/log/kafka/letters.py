"""The dead letters: a topic of letters and of notes that some were replayed, as JSON that others can read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from penstock.adapters.log.kafka.cursors import Cursors, Gap, Gone
from penstock.core.errors import DataCorrupt
from penstock.core.record import DeadLetter

PAGE: Final = 500


class _Entry(msgspec.Struct, rename={"letter_id": "letter_id"}):
    """What is read of a record of the topic to know which letters there are."""

    letter_id: str
    reason: str = ""
    replayed_at_ms: int = 0


class _State:
    """One letter: where it stands, and when it was replayed."""

    __slots__ = ("offset", "replayed_at_ms")

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.replayed_at_ms = 0


_encode = msgspec.json.Encoder().encode
_entry = msgspec.json.Decoder(_Entry).decode
_letter = msgspec.json.Decoder(DeadLetter).decode


def letter_record(letter: DeadLetter) -> tuple[bytes, bytes]:
    """Return the key and the value of a letter's record."""
    return letter.letter_id.encode(), _encode(letter)


def replayed_record(letter_id: str, at_ms: int) -> tuple[bytes, bytes]:
    """Return the key and the value of the note that a letter was replayed."""
    return letter_id.encode(), _encode({"letter_id": letter_id, "replayed_at_ms": at_ms})


class Letters:
    """What the topic says, folded: of a letter that was kept twice the first counts, and of its replays.

    Nothing is read before somebody asks; then its ids stay in memory, about 200 bytes a letter, and
    what is new is read each time.

    Args:
        cursors: Read the topic.
        topic: Its name; it has one partition, so that letters have an order.
        bounds: Return its first offset and the one that the next record will get.
    """

    def __init__(self, cursors: Cursors, topic: str, bounds: Callable[[], tuple[int, int]]) -> None:
        self._cursors = cursors
        self._topic = topic
        self._bounds = bounds
        self._lock = threading.RLock()
        self._states: dict[str, _State] = {}
        self._next = 0

    def listed(self, *, reason: str, pending_only: bool) -> Iterator[DeadLetter]:
        """Yield letters, oldest first."""
        self._catch_up()
        for offset, value in self._records(0, self._next):
            entry = _read(value, offset)
            state = self._states.get(entry.letter_id)
            if (
                state is None
                or state.offset != offset
                or (reason and entry.reason != reason)
                or (pending_only and state.replayed_at_ms)
            ):
                continue
            yield msgspec.structs.replace(_letter(value), replayed_at_ms=state.replayed_at_ms)

    def pending(self, letter_ids: Iterable[str]) -> list[str]:
        """Return those of some letters that are there and were not replayed, each once."""
        self._catch_up()
        known = ((one, self._states.get(one)) for one in dict.fromkeys(letter_ids))
        return [one for one, state in known if state is not None and not state.replayed_at_ms]

    def counts(self) -> tuple[int, int]:
        """Return how many letters there are, and how many of them were replayed."""
        self._catch_up()
        with self._lock:
            replayed = sum(1 for state in self._states.values() if state.replayed_at_ms)
            return len(self._states), replayed

    def _catch_up(self) -> None:
        with self._lock:
            for offset, value in self._records(self._next, self._bounds()[1]):
                entry = _read(value, offset)
                state = self._states.get(entry.letter_id)
                if entry.reason:
                    if state is None:
                        self._states[entry.letter_id] = _State(offset)
                elif state is not None and not state.replayed_at_ms:
                    state.replayed_at_ms = entry.replayed_at_ms
                self._next = offset + 1

    def _records(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        start = max(start, self._bounds()[0])
        while start < end:
            try:
                page = self._cursors.read(self._topic, 0, start, min(PAGE, end - start))
            except Gone:
                # Its retention took them since its bounds were asked for.
                start = max(start + 1, self._bounds()[0])
                continue
            except Gap as gap:
                start = gap.args[1]
                continue
            for message in page:
                yield start, message.value() or b""
                start += 1


def _read(value: bytes, offset: int) -> _Entry:
    try:
        return _entry(value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataCorrupt("E703", f"the record at offset {offset} of the topic of dead letters is none of ours",
                          where="log.kafka.prefix", fix="give the topic to nobody else, or this project another prefix") from error  # fmt: skip


def records_of(letters: Sequence[DeadLetter]) -> list[dict[str, bytes]]:
    """Return letters as messages."""
    return [dict(zip(("key", "value"), letter_record(letter), strict=True)) for letter in letters]
