"""A store on a server that loses what it had acknowledged: for simulations, and for tests of who writes to it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from penstock.adapters.store.memory import MemoryStore
from penstock.core.errors import Unavailable
from penstock.core.ids import LeafId
from penstock.core.record import NO_VERSION, Version
from penstock.ports.store import LeafWrite, StoredLeaf, Verdict


class _State(NamedTuple):
    leaves: dict[int, dict[LeafId, StoredLeaf]]
    applied: dict[tuple[int, int], Version]
    meta: dict[str, str]


class LosingStore(MemoryStore):
    """What the server has. It may be found as it was a while ago, but not from before it was confirmed."""

    def __init__(self) -> None:
        super().__init__()
        self.history = 0
        """Another one after each loss."""
        self.losses = 0
        self._confirmed: dict[tuple[int, int], Version] = {}
        self._past = [self._state()]
        """Every state since the last one that replicas are known to have, oldest first."""

    def write(
        self, epoch: int, writes: Sequence[LeafWrite], *, partition: int, applied: Version
    ) -> list[Verdict]:
        """Write leaves and note the partition's applied offset."""
        verdicts = super().write(epoch, writes, partition=partition, applied=applied)
        self._past.append(self._state())
        return verdicts

    def put_meta(self, name: str, value: str) -> None:
        """Keep a small named value."""
        super().put_meta(name, value)
        self._past.append(self._state())

    def confirm(self) -> None:
        """Wait until replicas have everything: it is not lost any more with the server."""
        del self._past[:-1]
        for place, version in self._applied.items():
            self._confirmed[place] = max(version, self._confirmed.get(place, NO_VERSION))

    def outlasts(self, epoch: int, partition: int) -> Version:
        """Return up to where a partition has been confirmed, at any time."""
        return self._confirmed.get((epoch, partition), NO_VERSION)

    def fail_over(self, dice: random.Random) -> None:
        """Be found as some replica has it."""
        self._become(dice.choice(self._past))

    def empty(self) -> None:
        """Be found empty."""
        self._become(_State({}, {}, {}))

    def _become(self, state: _State) -> None:
        self._leaves = {epoch: dict(leaves) for epoch, leaves in state.leaves.items()}
        self._applied = dict(state.applied)
        self._meta = dict(state.meta)
        self._past = [self._state()]
        self.history += 1
        self.losses += 1

    def _state(self) -> _State:
        leaves = {epoch: dict(leaves) for epoch, leaves in self._leaves.items()}
        return _State(leaves, dict(self._applied), dict(self._meta))


class LosingClient:
    """How one process sees the server, as `ports.store.Store` promises it."""

    remote = True

    def __init__(self, server: LosingStore) -> None:
        self.server = server
        self.era = 0
        self._history = server.history
        self._resumed: dict[tuple[int, int], int] = {}

    def look(self) -> None:
        """Find out whether anything was lost.

        Raises:
            Unavailable: It was (E450).
        """
        if self._history != self.server.history:
            self._history = self.server.history
            self.era += 1
            raise _ended()

    def read(self, epoch: int, leaves: Sequence[LeafId]) -> list[StoredLeaf | None]:
        """Return leaves."""
        self.look()
        return self.server.read(epoch, leaves)

    def write(
        self, epoch: int, writes: Sequence[LeafWrite], *, partition: int, applied: Version
    ) -> list[Verdict]:
        """Write leaves of who goes by what the server has."""
        self.look()
        if self._resumed.setdefault((epoch, partition), self.era) != self.era:
            raise _ended()
        return self.server.write(epoch, writes, partition=partition, applied=applied)

    def applied(self, epoch: int, partition: int) -> Version:
        """Return the applied offset of a partition."""
        era = self.era
        self.look()
        self._resumed[(epoch, partition)] = era
        return self.server.applied(epoch, partition)

    def confirmed(self, epoch: int, partition: int) -> Version:
        """Return the applied offset, once replicas have it."""
        self.look()
        self.server.confirm()
        return self.server.applied(epoch, partition)

    def get_meta(self, name: str) -> str | None:
        """Return a small named value."""
        self.look()
        return self.server.get_meta(name)

    def put_meta(self, name: str, value: str) -> None:
        """Keep a small named value."""
        self.look()
        self.server.put_meta(name, value)

    def check(self) -> None:
        """Look whether the server is what it was."""
        self.look()


def _ended() -> Unavailable:
    return Unavailable("E450", "the store may lack what it had acknowledged", fix="ask what it has")
