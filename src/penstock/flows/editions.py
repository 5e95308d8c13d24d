"""Which definitions a request goes by: those that serve, or those its campaign was published with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from penstock.core.decision.audience import Audience
from penstock.core.decision.campaign import Campaign
from penstock.core.definitions.changes import Declared
from penstock.core.definitions.versions import Table, Version, edition, pinned
from penstock.core.errors import DefinitionError, PenstockError
from penstock.core.feature.plan import Plan
from penstock.core.profile import Profile
from penstock.core.step import Step
from penstock.flows.person import Person
from penstock.flows.recall import Look
from penstock.flows.serve import Outcome, Serving, Who
from penstock.ports.profiles import Profiles

Publish = Callable[[str, int], Awaitable[None]]
"""Makes durable that a campaign's version goes by the active definitions, unless it is pinned."""


class Edition(NamedTuple):
    """One version of the definitions, ready to answer: everything that a request goes by."""

    number: int
    epoch: int
    serving: Serving
    audiences: Mapping[str, Audience]
    step: Step

    @property
    def plan(self) -> Plan:
        """What its profiles are computed by."""
        return self.step.plan


class Editions:
    """Answers as `Serving` does, by the edition that a campaign was published with.

    A request goes by one edition from its beginning to its end, even if another begins to serve
    meanwhile.

    Args:
        active: The edition that serves.
        table: The table of versions as it is now.
        publish: Pins a campaign at its first decision that counts.
    """

    def __init__(self, active: Edition, table: Callable[[], Table], publish: Publish) -> None:
        self.active = active
        self._table = table
        self._publish = publish
        self._kept: dict[int, Edition] = {active.number: active}
        self._routes: dict[str, Edition] = {}
        self._pins: Mapping[str, int] = {}

    def keep(self, one: Edition) -> None:
        """Have an edition for the campaigns that pin it."""
        self._kept[one.number] = one
        self._routes.clear()

    def forget(self, number: int) -> None:
        """Forget an edition, which does not serve."""
        self._kept.pop(number, None)
        self._routes.clear()

    def serve(self, one: Edition) -> None:
        """Let an edition serve, from the next request on."""
        self._kept[one.number] = one
        self.active = one
        self._routes.clear()

    # -- by campaign

    def of(self, campaign_name: str) -> Edition:
        """Return the edition that a campaign goes by: the one that serves, if it is not pinned."""
        pins = self._table().pins
        if pins is not self._pins:
            self._pins = pins
            self._routes.clear()
        found = self._routes.get(campaign_name)
        if found is None:
            found = self._find(campaign_name)
            if len(self._routes) < 1_000:  # names come from callers
                self._routes[campaign_name] = found
        return found

    def _find(self, campaign_name: str) -> Edition:
        table = self._table()
        campaign = self.active.serving.campaigns.get(campaign_name)
        if campaign is not None:
            version = pinned(table, campaign_name, campaign.version)
            return self.active if version is None else self._kept.get(version.number, self.active)
        # It is gone from the files; what was published goes on for as long as it is kept.
        for number, one in sorted(self._kept.items(), reverse=True):
            gone = one.serving.campaigns.get(campaign_name)
            if gone and table.pins.get(edition(campaign_name, gone.version)) == number:
                return one
        return self.active

    def require(self, campaign: Campaign) -> Edition:
        """Return the edition that a send of a campaign goes by.

        Raises:
            DefinitionError: It was published with definitions that are not kept any more (E193).
        """
        version = pinned(self._table(), campaign.name, campaign.version)
        if version is not None and version.number not in self._kept:
            raise DefinitionError("E193", f"campaign `{campaign.name}`, version {campaign.version}, was published with "
                                  f"definitions {version.number}, which are not kept any more", where=campaign.where,
                                  fix=f"raise its `version` in the file and run `penstock apply`; or go over to what serves "
                                  f"now with `penstock send {campaign.name} --republish`")  # fmt: skip
        return self.of(campaign.name)

    async def publish(self, campaign_name: str) -> None:
        """Pin a campaign to the definitions that serve, unless it is pinned already."""
        campaign = self._unpublished(campaign_name)
        if campaign is not None:
            await self._publish(campaign_name, campaign.version)

    def _unpublished(self, campaign_name: str) -> Campaign | None:
        """Return the campaign that serves under a name if it is not pinned yet."""
        campaign = self.active.serving.campaigns.get(campaign_name)
        if campaign is None or edition(campaign_name, campaign.version) in self._table().pins:
            return None
        return campaign

    # -- as Serving

    async def profile(self, who: Who, as_of_ms: int | None = None) -> tuple[Profile, Person]:
        """Return a person's profile, by the definitions that serve. See `Serving.profile`."""
        return await self.active.serving.profile(who, as_of_ms)

    async def look(self, whom: Sequence[Who]) -> Look:
        """Return several people as of now, by the definitions that serve. See `Serving.look`."""
        return await self.active.serving.look(whom)

    async def decide(
        self, campaign_name: str, who: Who, send: str | None = None, *, preview: bool = False
    ) -> Outcome:
        """Return what a person sees; the first decision that counts publishes its campaign."""
        serving = await self.serving(campaign_name, preview=preview)
        return await serving.decide(campaign_name, who, send, preview=preview)

    async def serving(self, campaign_name: str, *, preview: bool) -> Serving:
        """Return who answers for a campaign; what counts publishes it."""
        if not preview:
            with suppress(
                PenstockError
            ):  # an answer does not wait for a disk: the next one pins it
                await self.publish(campaign_name)
        return self.of(campaign_name).serving

    def published(self, campaign_name: str) -> Serving | None:
        """Return who answers for a campaign that nothing is left to publish of; else None."""
        if self._unpublished(campaign_name) is not None:
            return None
        return self.of(campaign_name).serving

    def fallback(self, campaign_name: str, reason: str) -> Outcome:
        """Return the content that needs no person. See `Serving.fallback`."""
        return self.of(campaign_name).serving.fallback(campaign_name, reason)


@dataclass(frozen=True)
class Candidate:
    """A version's definitions, loaded and checked, before they have leaves.

    Attributes:
        digest: Of the files.
        fingerprint: Of what the leaves depend on.
        step: Of the definitions.
        files: What they were loaded from.
        edition: Makes the edition, given its number, its leaves and their epoch.
        adopt: Has the edge shape events by them, from the next one on.
        declared: What they define, to be compared with others.
    """

    digest: str
    fingerprint: str
    step: Step
    files: Mapping[str, bytes]
    edition: Callable[[int, Profiles, int], Edition]
    adopt: Callable[[], None]
    declared: Declared


class Progress(NamedTuple):
    """How far an apply has come."""

    number: int
    state: str
    """`building`, `checking`, `active` or `failed`."""
    folded: int
    """Records of the log that the new leaves reflect."""
    total: int
    per_s: int
    """Records a second, lately; 0 if it is not known yet."""
    remaining_s: int | None
    """None if it is not known yet."""
    agreed_leaves: int = 0
    agreed_states: int = 0
    """What was compared with the leaves that serve, and has the same bytes."""
    error: PenstockError | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.state in ("active", "failed")


class Cost(NamedTuple):
    """What a version that does not serve costs."""

    version: Version
    lag: int
    records: int
    """Records folded beside, since the process started."""
    cpu_s: float
    since_s: float
    """How long the process has folded it."""


class SideBySide(Protocol):
    """The versions of a project's definitions in a running engine, as its operator handles them."""

    table: Table
    progress: Progress | None
    """How far the last apply is; None before it has begun."""

    def begin(self, candidate: Candidate, *, republish: bool = False) -> object:
        """Begin to apply definitions; raises Conflict (E502) if others are being applied."""
        ...

    async def moved(self) -> Progress | None:
        """Wait for news of an apply, at most a moment."""
        ...

    async def give_up(self) -> bool:
        """Stop applying; return whether there was anything to stop."""
        ...

    async def roll_back(self, number: int = 0) -> Version:
        """Let an earlier version serve again."""
        ...

    async def publish_again(self, campaign: str, version: int) -> None:
        """Pin a campaign to the definitions that serve."""
        ...

    async def settled(self, edition: Edition) -> None:
        """Wait until all that is in the log is folded and written."""
        ...

    def costs(self) -> list[Cost]:
        """Return what the versions cost that do not serve."""
        ...
