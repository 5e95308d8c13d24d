"""A person who was read before is answered from memory, exactly, until anything it was made of changes.

An answer is a function of the person's leaves, of the register's entries about them, of the
definitions and of `as_of`. All four are looked at on every read: the versions of the leaves, the
entries themselves, the definitions by identity, and `as_of` against the instant until which the
windows stay what they are (`core/feature/lasting.py`). Nothing is remembered for a time and hoped
to be right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from penstock.core.consent.suppression import Suppression, SuppressionKey
from penstock.core.errors import DamagedLeaf, Unavailable
from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf
from penstock.core.profile import Profile
from penstock.core.record import position_of
from penstock.flows.person import Definitions, find_person, lasting_profile_of, register_leaves
from penstock.ports.clock import Clock
from penstock.ports.profiles import Profiles, VersionRead, Versions, read_versions, versions_of
from penstock.ports.suppressions import Suppressions

RECALLED_MAX = 20_000
"""People remembered; those remembered longest are forgotten first, a twentieth at a time."""

Register = Mapping[SuppressionKey, Suppression]


class Recalled:
    """One person as they were read, and all that it was read from.

    Attributes:
        profile: As of `from_ms`; features that move with `as_of` are computed anew by `moving`.
        moving: Name and function of those features, in the order of the profile's.
        found: Whether anything is known of the person.
        bounded: Whether the identity bound cut them short.
        known_at: The greatest log offset of their leaves; -1 if there are none.
        register: The register's entries about them.
        reflects_ms: Up to when the log was reflected when this was last found to stand, by the monotonic clock:
            one that is set wrong and put right again changes no age.
        shown: For whoever shows them: what is made of this once, such as JSON.
    """

    __slots__ = (
        "bounded", "clock_ms", "found", "from_ms", "known_at", "later", "leaves", "moving", "profile", "reflects_ms", "register",
        "register_leaves", "shown", "until_ms", "versions",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - made in one place
        self, *, profile: Profile, moving: tuple[tuple[str, Callable[[int], Any]], ...],
        until_ms: int, known: Mapping[LeafId, Leaf | None], register: Register,
        register_leaves: Sequence[LeafId], found: bool, bounded: bool, known_at: int,
        reflects_ms: int,
    ) -> None:  # fmt: skip
        self.profile = profile
        self.moving = moving
        self.later = tuple(later for _, later in moving)
        self.clock_ms = profile.clock_ms
        self.from_ms = profile.as_of_ms
        self.until_ms = until_ms
        self.leaves = tuple(known)
        self.versions = versions_of([*known.values()])
        self.register = register
        self.register_leaves = tuple(register_leaves)
        self.found = found
        self.bounded = bounded
        self.known_at = known_at
        self.reflects_ms = reflects_ms
        self.shown: Any = None


class Seen(NamedTuple):
    """One person in an answer: what is remembered of them, and what moved since."""

    person: Recalled
    as_of_ms: int
    """The end of every window."""
    moved: Sequence[Any]
    """The values at `as_of_ms` of `person.moving`, in its order."""
    stale: str = ""
    """Why this is what was last known rather than what is; empty if it is what is."""
    log_as_of_ms: int = 0
    """Up to when the log was reflected, if this is what was last known."""

    def profile(self) -> Profile:
        """Return the profile as of now, as the plain path makes it."""
        old = self.person.profile
        if self.as_of_ms == old.as_of_ms:
            return old
        features = old.features
        if self.moved:
            features = dict(features)
            for (name, _), value in zip(self.person.moving, self.moved, strict=True):
                features[name] = value
        return Profile(
            leaves=old.leaves, identifiers=old.identifiers, features=features, traits=old.traits,
            consent=old.consent, permitted=old.permitted, email=old.email,
            email_leaf=old.email_leaf, clock_ms=old.clock_ms, as_of_ms=self.as_of_ms,
            definitions=old.definitions, withheld=old.withheld, complete_since=old.complete_since,
        )  # fmt: skip


class Unread(NamedTuple):
    """A person of whom nothing is at hand, with the reason."""

    reason: str


class Look(NamedTuple):
    """Several people as of one instant, in the order asked."""

    people: list[Seen | Unread]
    now_ms: int
    log_as_of_ms: int
    """The instant up to which the log is reflected."""
    live: bool


class Read(NamedTuple):
    """One person as of now, never what was last known: what a decision is made on."""

    seen: Seen
    now_ms: int
    log_as_of_ms: int
    """The instant up to which the log is reflected."""
    live: bool

    @property
    def person(self) -> Recalled:
        """What is remembered of them."""
        return self.seen.person

    @property
    def profile(self) -> Profile:
        """The profile as of now; made at each call."""
        return self.seen.profile()


def unavailable(error: Unavailable | DamagedLeaf) -> str:
    """Return the reason of an answer without what did not answer, or does not read back."""
    return f"unavailable_{error.code}" if isinstance(error, Unavailable) else error.code


class Recall:
    """Reads people, remembering what it can. Lives on one event loop.

    Args:
        profiles: The read path.
        suppressions: Read at every look.
        clock: Tells now.
        limit: People remembered.
    """

    def __init__(
        self, profiles: Profiles, suppressions: Suppressions, clock: Clock, limit: int = RECALLED_MAX
    ) -> None:  # fmt: skip
        self._profiles = profiles
        self._suppressions = suppressions
        self._clock = clock
        self._limit = limit
        self._people: dict[LeafId, Recalled] = {}
        self._definitions: Definitions | None = None

    def now(self, start: LeafId, definitions: Definitions) -> Look | None:
        """Return one person as of now, if that takes no wait: remembered, and nothing has changed since.

        It is the commonest by far. None of anybody else, and where anything fails: `look` says what.
        """
        self._use(definitions)
        one = self._people.get(start)
        if one is None:
            return None
        read = self._profiles.at_hand(one.leaves)
        if read is None:
            return None
        try:
            return self._look_at(one, read)
        except Unavailable:
            return None

    def _look_at(self, one: Recalled, read: VersionRead) -> Look | None:
        now_ms = self._clock.now_ms()
        seen = self._seen(one, read.versions, now_ms, read.as_of_ms)
        return None if seen is None else Look([seen], now_ms, read.as_of_ms, read.live)

    async def look(
        self, starts: Sequence[LeafId], definitions: Definitions, *, hurry: str = ""
    ) -> Look:
        """Return the people whom some leaves belong to, as of now.

        A person whose store does not answer is what was last known of them, or unread; so is one
        whose leaves are damaged, which is nobody else's concern.

        Args:
            starts: Leaves of people.
            definitions: Whose features are shown.
            hurry: Why a person alone who has changed since is what was last known of them; empty to
                read them anew.
        """
        self._use(definitions)
        try:
            if len(starts) == 1 and (one := self._people.get(starts[0])) is not None:
                read = await read_versions(self._profiles, one.leaves)
                look = self._look_at(one, read)
                if look is not None:
                    return look
                if hurry and isinstance(known := self._last_known(starts[0], hurry), Seen):
                    now_ms = self._clock.now_ms()
                    return Look([known], now_ms, now_ms, live=False)
            return await self._look(starts, definitions)
        except Unavailable as error:
            return self.at_hand(starts, definitions, unavailable(error))
        except DamagedLeaf:
            # They were read together: one by one each is what they are.
            now_ms = self._clock.now_ms()
            read = [await self._read(start, definitions, now_ms) for start in starts]
            people = [person for person, _, _ in read]
            return Look(
                people, now_ms, min(at for _, at, _ in read), all(live for *_, live in read)
            )

    async def read(self, start: LeafId, definitions: Definitions) -> Read:
        """Return the person a leaf belongs to as of now, remembered if nothing has changed.

        Raises:
            Unavailable: The store or the register did not answer (E402, E403).
        """
        self._use(definitions)
        one = self._people.get(start)
        if one is not None:
            read = await read_versions(self._profiles, one.leaves)
            now_ms = self._clock.now_ms()
            seen = self._seen(one, read.versions, now_ms, read.as_of_ms)
            if seen is not None:
                return Read(seen, now_ms, read.as_of_ms, read.live)
        now_ms = self._clock.now_ms()
        seen, as_of_ms, live = await self._read_anew(start, definitions, now_ms)
        return Read(seen, now_ms, as_of_ms, live)

    def remembered(self, start: LeafId, definitions: Definitions) -> Read | None:
        """Return the person a leaf belongs to as last known, if nothing was withdrawn since; None if not at hand.

        It is for a decision that stands already, whose content does not depend on what came since.
        """
        self._use(definitions)
        seen = self._last_known(start, "")
        if not isinstance(seen, Seen):
            return None
        now_ms = self._clock.now_ms()
        return Read(seen, now_ms, seen.log_as_of_ms, live=False)

    async def _look(self, starts: Sequence[LeafId], definitions: Definitions) -> Look:
        remembered = [self._people.get(start) for start in starts]
        known = [one for one in remembered if one is not None]
        read = await read_versions(self._profiles, [leaf for one in known for leaf in one.leaves])
        now_ms = self._clock.now_ms()
        standing = self._all_seen(known, read.versions, now_ms, read.as_of_ms)
        found: list[Seen | Unread | None] = [
            None if one is None else next(standing) for one in remembered
        ]
        as_of_ms, live = read.as_of_ms, read.live
        if None in found:
            for index, start in enumerate(starts):
                if found[index] is None:
                    found[index], log_as_of_ms, alive = await self._read(start, definitions, now_ms)
                    as_of_ms, live = min(as_of_ms, log_as_of_ms), live and alive
        return Look(found, now_ms, as_of_ms, live)  # type: ignore[arg-type] - none is missing

    def at_hand(self, starts: Sequence[LeafId], definitions: Definitions, reason: str) -> Look:
        """Return what was last known of people, without asking the store; unread where that is nothing.

        What has been withdrawn since is not served: the register is asked, and is in memory.

        Args:
            starts: Leaves of people.
            definitions: Whose features are shown.
            reason: Why the store is not asked.
        """
        self._use(definitions)
        now_ms = self._clock.now_ms()
        people = [self._last_known(start, reason) for start in starts]
        return Look(people, now_ms, now_ms, live=False)

    def _last_known(self, start: LeafId, reason: str) -> Seen | Unread:
        one = self._people.get(start)
        if one is None:
            return Unread(reason)
        try:
            unchanged = self._suppressions.get(one.register_leaves) == one.register
        except Unavailable as error:
            return Unread(unavailable(error))
        if not unchanged:
            return Unread(reason)
        moved = [one.profile.features[name] for name, _ in one.moving]
        age_ms = self._clock.monotonic_ms() - one.reflects_ms
        return Seen(one, one.from_ms, moved, reason, self._clock.now_ms() - age_ms)

    def _use(self, definitions: Definitions) -> None:
        if definitions is not self._definitions:
            self._people.clear()
            self._definitions = definitions

    def _seen(
        self, one: Recalled, versions: Versions, now_ms: int, log_as_of_ms: int
    ) -> Seen | None:
        """Return a remembered person as of now, or None if anything has changed."""
        as_of_ms = max(one.clock_ms, now_ms)
        if not one.from_ms <= as_of_ms < one.until_ms or versions != one.versions:
            return None
        if self._suppressions.get(one.register_leaves) != one.register:
            return None
        one.reflects_ms = self._clock.monotonic_ms() - (now_ms - log_as_of_ms)
        # Now, while the leaves are what they are: after the next await they may not be.
        return Seen(one, as_of_ms, [later(as_of_ms) for later in one.later])

    def _all_seen(
        self, people: Sequence[Recalled], versions: Versions, now_ms: int, log_as_of_ms: int
    ) -> Iterator[Seen | None]:  # fmt: skip
        """Yield what `_seen` returns of each of several people, of whom the register is asked once.

        Args:
            people: Who is remembered.
            versions: Of their leaves, one after the other.
            now_ms: The present instant.
            log_as_of_ms: Up to when the log is reflected.
        """
        register = self._suppressions.get([leaf for one in people for leaf in one.register_leaves])
        named = {key.leaf for key in register}
        reflects_ms = self._clock.monotonic_ms() - (now_ms - log_as_of_ms)
        place = 0
        for one in people:
            start = place
            place += len(one.leaves)
            as_of_ms = max(one.clock_ms, now_ms)
            stands = (
                one.from_ms <= as_of_ms < one.until_ms and versions[start:place] == one.versions
            )
            if named or one.register:
                # Rare: nearly nobody has an entry.
                yield (
                    self._seen(one, versions[start:place], now_ms, log_as_of_ms) if stands else None
                )
            elif stands:
                one.reflects_ms = reflects_ms
                # Now, while the leaves are what they are: after the next await they may not be.
                yield Seen(one, as_of_ms, [later(as_of_ms) for later in one.later])
            else:
                yield None

    async def _read(
        self, start: LeafId, definitions: Definitions, now_ms: int
    ) -> tuple[Seen | Unread, int, bool]:
        try:
            return await self._read_anew(start, definitions, now_ms)
        except (Unavailable, DamagedLeaf) as error:
            # One person's leaf that cannot be read must not cost the others their answer.
            return self._last_known(start, unavailable(error)), now_ms, True

    async def _read_anew(
        self, start: LeafId, definitions: Definitions, now_ms: int
    ) -> tuple[Seen, int, bool]:
        known: dict[LeafId, Leaf | None] = {}
        person = await find_person(self._profiles, start, definitions, known)
        of_register = register_leaves(person)
        register = self._suppressions.get(of_register)
        profile, lasting = lasting_profile_of(person, definitions, now_ms, register)
        moving = tuple(lasting.moving.items())
        recalled = Recalled(
            profile=profile, moving=moving, until_ms=lasting.until_ms, known=known,
            register=register, register_leaves=of_register, found=person.found,
            bounded=person.bounded,
            known_at=max((position_of(leaf.version) for leaf in person.leaves), default=-1),
            reflects_ms=self._clock.monotonic_ms() - (self._clock.now_ms() - person.as_of_ms),
        )  # fmt: skip
        self._remember(start, recalled)
        moved = [profile.features[name] for name, _ in moving]
        return Seen(recalled, profile.as_of_ms, moved), person.as_of_ms, person.live

    def __len__(self) -> int:
        """Return how many people are remembered."""
        return len(self._people)

    def _remember(self, start: LeafId, recalled: Recalled) -> None:
        people = self._people
        people.pop(start, None)
        if len(people) >= self._limit:
            for oldest in list(people)[: max(self._limit // 20, 1)]:
                del people[oldest]
        people[start] = recalled
