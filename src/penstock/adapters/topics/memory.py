"""Topics of other producers in memory: the port's contract in its plainest form."""

from collections.abc import Sequence

from penstock.core.foreign import Foreign, Place
from penstock.ports.topics import Positions


class MemoryTopics:
    """Reads lists of records by topic and partition; what is committed outlives it in `committed`.

    Args:
        topics: By topic and partition, its records with ascending offsets; they may grow.
        committed: What was committed before.
    """

    def __init__(
        self, topics: dict[tuple[str, int], list[Foreign]],
        committed: dict[tuple[str, int], int] | None = None,
    ) -> None:  # fmt: skip
        self._topics = topics
        self.committed = committed if committed is not None else {}
        self._next = dict(self.committed)

    def poll(self, limit: int, wait_ms: int) -> list[Foreign]:
        """Return records that follow the last ones."""
        found: list[Foreign] = []
        for key, records in self._topics.items():
            first = self._next.get(key, 0)
            found += [one for one in records if one.offset >= first][: limit - len(found)]
            if found and (found[-1].topic, found[-1].partition) == key:
                self._next[key] = found[-1].offset + 1
        return found

    def hold(self) -> None:
        """Do nothing: there is no group."""

    def commit(self, positions: Positions) -> None:
        """Note that all records before some offsets were copied."""
        for key, offset in positions.items():
            self.committed[key] = max(offset, self.committed.get(key, 0))

    def read(self, places: Sequence[Place]) -> list[Foreign | None]:
        """Read records again at their places."""
        return [self._at(place) for place in places]

    def _at(self, place: Place) -> Foreign | None:
        records = self._topics.get((place.topic, place.partition), ())
        found = (
            one for one in records if one.offset == place.offset and one.topic_id == place.topic_id
        )
        return next(found, None)

    def lag(self) -> int:
        """Return how many records are still to be polled."""
        return sum(
            sum(one.offset >= self._next.get(key, 0) for one in records)
            for key, records in self._topics.items()
        )

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
