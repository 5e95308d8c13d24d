"""Whether an email may go out now: quiet hours where the person lives, and caps reserved atomically."""

from collections.abc import Mapping
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from penstock.core.decision.campaign import Campaign
from penstock.core.decision.pace import (
    Cap,
    QuietHours,
    parse_quiet_hours,
    quiet_until_ms,
    zone_of,
)
from penstock.core.ids import LeafId
from penstock.core.profile import Profile
from penstock.core.time import HOUR_MS
from penstock.ports.decisions import Decisions

RESERVED_MS: Final = HOUR_MS
"""How long a reservation stands for an email of which nothing more is heard."""


class Pacing(NamedTuple):
    """What a project says of how often and when people are written to.

    Attributes:
        caps: By name.
        zone: The project's time zone, of people whose own is not known.
        timezone_trait: The trait that names a person's time zone.
    """

    caps: Mapping[str, Cap] = {}
    zone: ZoneInfo = ZoneInfo("UTC")
    timezone_trait: str = "timezone"

    def quiet_until_ms(self, campaign: Campaign, profile: Profile, now_ms: int) -> int | None:
        """Return until when a person is to be left alone, or None."""
        quiet: QuietHours | None = parse_quiet_hours(campaign.quiet_hours, campaign.where)
        if quiet is None:
            return None
        named = profile.traits.get(self.timezone_trait)
        zone = (zone_of(named) if isinstance(named, str) else None) or self.zone
        return quiet_until_ms(quiet, zone, now_ms)

    def reserve(
        self, decisions: Decisions, campaign: Campaign, recipient: LeafId, token: str, now_ms: int
    ) -> bool:
        """Reserve one email of the campaign's class; whether there was one left.

        The token is the email: asked for again, it counts once.
        """
        cap = self.caps.get(campaign.cap)
        if cap is None:
            return True
        return decisions.reserve(
            recipient, f"{campaign.channel}:{cap.name}", limit=cap.limit, token=token,
            until_ms=now_ms + RESERVED_MS, now_ms=now_ms,
        )  # fmt: skip

    def has_room(
        self, decisions: Decisions, campaign: Campaign, recipient: LeafId, token: str, now_ms: int
    ) -> bool:
        """Return what `reserve` would; nothing is reserved."""
        cap = self.caps.get(campaign.cap)
        return cap is None or decisions.has_room(
            recipient, f"{campaign.channel}:{cap.name}", limit=cap.limit, token=token, now_ms=now_ms
        )

    def settle(
        self, decisions: Decisions, campaign: Campaign, token: str, state: str, now_ms: int
    ) -> None:
        """Count an email that went out, or may have; give back the place of one that did not."""
        cap = self.caps.get(campaign.cap)
        if cap is None:
            return
        if state in ("accepted", "in_doubt"):
            decisions.confirm(token, now_ms + cap.span_ms)
        else:
            decisions.release(token)
