"""What a node needs of its engine, whether it folds itself or workers fold for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf
from penstock.core.step import Step
from penstock.ports.appender import Waits
from penstock.ports.clock import Clock
from penstock.ports.log import Log
from penstock.ports.profiles import LeafRead, Profiles, VersionRead
from penstock.ports.store import Store
from penstock.runtimes.appender import GroupAppender

Commit = Callable[[list[int]], Awaitable[None]]
"""Makes a switch durable, given the offset by partition up to which all that records ask for is."""


class Engine(Protocol):
    """Takes records in, and answers for the leaves that serve. Lives on one event loop."""

    log: Log
    store: Store
    clock: Clock
    appender: GroupAppender
    folds_here: bool
    """Whether this process folds; else it must not wait for it."""

    @property
    def step(self) -> Step:
        """The step of what serves."""
        ...

    @property
    def epoch(self) -> int:
        """The epoch of what serves."""
        ...

    async def start(self) -> None:
        """Begin; one that folds catches up with the log first."""
        ...

    async def close(self) -> None:
        """Drain, and end the threads."""
        ...

    async def read(self, leaves: Sequence[LeafId]) -> LeafRead:
        """Return leaves as of now; see `ports.profiles.Profiles`."""
        ...

    def at_hand(self, leaves: Sequence[LeafId]) -> VersionRead | None:
        """Return the versions of leaves that are at hand; see `ports.profiles.Profiles`."""
        ...

    def find(self, leaf: LeafId) -> Leaf | None:
        """Return one leaf as it is now, for the edge in this process."""
        ...

    def standing(self) -> tuple[int, bool]:
        """Return up to when the log is reflected, and whether that is `live`."""
        ...

    def live(self) -> bool:
        """Return whether reads reflect everything up to a second ago."""
        ...

    def lag(self) -> int:
        """Return how many records of the log are not folded yet."""
        ...

    async def settled(self) -> None:
        """Wait until everything that is in the log is folded and written; one that does not fold, a while."""
        ...

    def waits(self) -> Waits:
        """Return how long the oldest has waited to be on disk, and to be folded."""
        ...

    def ready(self) -> tuple[bool, str]:
        """Return whether events can be taken, and if not, why."""
        ...

    def publish(self) -> None:
        """Bring the metrics up to date."""
        ...


class Leaves(Profiles, Protocol):
    """The leaves of one epoch, whoever folds them."""

    step: Step
    epoch: int
    records: int
    """Records folded beside what serves, by this process."""
    cpu_s: float
    """What that has cost."""

    def serves(self) -> bool:
        """Return whether these are the leaves that serve."""
        ...

    def lag(self) -> int:
        """Return how many records they are behind what serves."""
        ...

    def folded(self) -> int:
        """Return how many records of the log they reflect."""
        ...


class Sets(Protocol):
    """The sets of leaves of one engine: the one that serves, and those that are built or kept beside it."""

    on_failure: Callable[[BaseException], None]
    """Told of what stopped the sets beside."""

    @property
    def sets(self) -> Sequence[Any]:
        """Those beside what serves."""
        ...

    def serving(self) -> Leaves:
        """Return the leaves that serve."""
        ...

    def beside(self, step: Step, epoch: int, cached_max: int) -> Leaves:
        """Return leaves that nobody folds yet."""
        ...

    def add(self, leaves: Any) -> None:
        """Begin to fold a set beside."""
        ...

    async def remove(self, leaves: Any) -> None:
        """Stop to fold a set."""
        ...

    async def settled(self, leaves: Any) -> None:
        """Wait until a set has caught up and is written."""
        ...

    async def close_behind(self, leaves: Any) -> None:
        """Wait until a set is close enough behind what serves to take over; raises if it never will be."""
        ...

    async def switch(self, leaves: Any, commit: Commit, swapped: Callable[[], None]) -> None:
        """Let a set serve that is close behind; see `EmbeddedEngine.switch`."""
        ...

    async def close(self) -> None:
        """Write what is folded beside, and end."""
        ...
