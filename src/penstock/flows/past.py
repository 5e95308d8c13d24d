"""What was known and decided then: past profiles by replay, and past decisions checked against one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from penstock.core.decision.record import Decision
from penstock.core.errors import EventRejected
from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf
from penstock.core.profile import Profile
from penstock.core.record import version_at
from penstock.core.step import Step
from penstock.core.time import format_instant
from penstock.flows.history import History, Known, PastProfiles
from penstock.flows.person import Person
from penstock.flows.serve import Serving, Who
from penstock.flows.snapshot import Snapshot

_canonical = msgspec.msgpack.Encoder(order="deterministic").encode


class StoppedClock(NamedTuple):
    """A clock that stands at an instant, ms UTC."""

    at_ms: int

    def now_ms(self) -> int:
        """Return the instant."""
        return self.at_ms

    def monotonic_ms(self) -> int:
        """Return the instant too: no time passes in the past."""
        return self.at_ms


class Checked(msgspec.Struct, frozen=True):
    """What a replay says of a recorded decision.

    `state` is `agrees`, `differs`, `withheld` (what can be compared agrees, and consent withholds the
    rest now), `other_definitions` (what both have agrees; the rest can't be compared), `gone` (the log
    was truncated of what was known then) or `nothing_read` (a holdout or a fallback: no value was used).
    """

    state: str
    known_at: int
    differing: dict[str, list[str]] = {}
    """By slot, the features and traits whose recorded value is not the replayed one."""
    uncompared: list[str] = []
    """Names that were recorded and are not in the replay."""

    @property
    def line(self) -> str:
        """The same in a sentence."""
        where = f"replayed from the log up to offset {self.known_at}"
        if self.state == "nothing_read":
            return "no value of the person was used, so there is nothing to replay"
        if self.state == "gone":
            return "not replayed: the log was truncated of what was known then"
        if self.state == "differs":
            names = sorted({name for names in self.differing.values() for name in names})
            return f"{where}: the recorded values DIFFER in {', '.join(names)}"
        tail = f"; not compared: {', '.join(self.uncompared)}" if self.uncompared else ""
        if self.state == "other_definitions":
            return f"{where} by other definitions than it was made by: what both have agrees{tail}"
        if self.state == "withheld":
            return f"{where}: the recorded values agree, but for what consent withholds now{tail}"
        return f"{where}: the recorded values agree"


class Past:
    """Answers questions about the past from the log. One a project.

    What a person has since forbidden is not shown, whatever was permitted then: the register of
    withdrawals that gates the present gates the past too.

    Args:
        serving: The serving of the present.
        history: Finds records.
        step: The step of the live definitions.
        snapshot: What their leaves began from, where the log does not have their beginning.
    """

    def __init__(
        self, serving: Serving, history: History, step: Step, snapshot: Snapshot | None = None
    ) -> None:
        self._serving = serving
        self._history = history
        self._step = step
        self._snapshot = snapshot

    def serving(self, known: Known, at_ms: int) -> Serving:
        """Return a serving whose profiles are those of then and whose clock stands.

        It must only be asked for previews and profiles: decisions belong to the present.
        """
        begun = self._snapshot.leaves if self._snapshot is not None else _nobody
        profiles = PastProfiles(self._history, self._step, known, at_ms, begun)
        return self._serving.over(profiles, clock=StoppedClock(at_ms))

    async def profile(
        self, who: Who, known: Known, as_of_ms: int | None = None
    ) -> tuple[Profile, Person]:
        """Return a person's profile from what was known at a point of the log.

        Args:
            who: Whom.
            known: Up to where the log is known.
            as_of_ms: The end of every window; the instant of `known` by default, which gives what
                was served then.

        Raises:
            EventRejected: The point is in the future (E388), or `as_of` is before it (E390).
        """
        at_ms = self.instant_of(known)
        return await self.serving(known, at_ms).profile(who, as_of_ms)

    def instant_of(self, known: Known) -> int:
        """Return the instant of a point of the log: of an offset, the stamp of its record.

        Raises:
            EventRejected: The point is beyond the log or the present, or before what the log holds (E388).
        """
        if not self._holds(known):
            raise EventRejected("E388", "`known_at` is before what the log still holds", where="known_at",
                                fix="ask for a later point: without an archive, what was truncated is gone")  # fmt: skip
        log = self._history.log
        now_ms = self._serving.clock.now_ms()
        if known.offset is None:
            at_ms = now_ms if known.at_ms is None else known.at_ms
            if at_ms > now_ms:
                raise _beyond("now")
            return at_ms
        at = version_at(known.offset)
        if known.offset >= 0 and at.generation > log.generations.newest:
            raise _beyond("the newest record")
        partitions = log.generations.of(max(at.generation, log.generations.first))
        stamps: list[int] = []
        for partition in partitions:
            newest = min(at.offset, log.head(partition) - 1)
            stamps += (
                [one.logged_at_ms for one in log.read(partition, newest, 1)] if newest >= 0 else []
            )
        if at.offset >= max(log.head(partition) for partition in partitions):
            raise _beyond("the newest record")
        return max(stamps, default=0)

    def _holds(self, known: Known) -> bool:
        """Return whether no partition was truncated, without an archive, of what was known at a point."""
        log = self._history.log
        for partition in range(log.partitions):
            end = self._snapshot.end(log, partition) if self._snapshot is not None else 0
            if not end:
                continue
            # The snapshot is what was known at its last record, if that still has its stamp.
            bound = known.within(log.generations.generation(partition)).offset
            if bound is not None and bound < max(end - 1, log.first(partition)):
                return False
            if known.offset is None and known.at_ms is not None:
                kept = log.read(partition, end, 1)
                if known.at_ms < (kept[0].logged_at_ms if kept else log.last_logged_at_ms(partition)):  # fmt: skip
                    return False
        return True

    async def check(self, decision: Decision, who: Who) -> Checked:
        """Return whether a recorded decision's values are those of a replay.

        Args:
            decision: The record.
            who: Whom it was asked for; resolved by the edges known then.
        """
        if decision.known_at < 0 or decision.served in {"holdout", "fallback"}:
            return Checked("nothing_read", decision.known_at)
        at_ms = decision.profile_as_of_ms
        # With one partition the offset says it all; of several it is the greatest, and the instant
        # of the decision bounds the others.
        several = self._history.log.partitions > 1
        known = Known(decision.known_at, decision.decided_at_ms if several else None)
        if not self._holds(known):
            return Checked("gone", decision.known_at)
        profile, _ = await self.serving(known, at_ms).profile(who, at_ms)
        differing: dict[str, list[str]] = {}
        uncompared: set[str] = set()
        for slot in decision.slots:
            names: list[str] = []
            for recorded, replayed in (
                (slot.features, profile.features),
                (slot.traits, profile.traits),
            ):
                for name, value in recorded.items():
                    # A trait that was absent then is recorded as null.
                    if name not in replayed and value is not None:
                        uncompared.add(name)
                    elif not _equal(value, replayed, name):
                        names.append(name)
            if names:
                differing[slot.name] = sorted(names)
        unexplained = uncompared - set(profile.withheld)
        if decision.definitions != profile.definitions:
            state = "other_definitions"
        elif differing or unexplained:
            state = "differs"
            if unexplained:
                differing[""] = sorted(unexplained)
        else:
            state = "withheld" if uncompared else "agrees"
        return Checked(state, decision.known_at, differing, sorted(uncompared))


def _nobody(_: Sequence[LeafId]) -> dict[LeafId, Leaf]:
    return {}


def _equal(recorded: Any, replayed: Mapping[str, Any], name: str) -> bool:
    return _canonical(recorded) == _canonical(replayed.get(name))


def _beyond(what: str) -> EventRejected:
    return EventRejected("E388", f"`known_at` is beyond {what}", where="known_at",
                         fix="ask for an offset of the log, or for an instant that has been")  # fmt: skip


def since_line(at_ms: int) -> str:
    """Return how an answer about the past begins."""
    return f"As it was known at {format_instant(at_ms)}."
