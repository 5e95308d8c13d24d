"""Who is held out, for ever: by a hash of the recipient, never by a list."""

from typing import Final

from penstock.core.ids import LeafId, lot

GLOBAL: Final = "*"
"""The scope of the standing holdout: the same recipients in every campaign."""

_MILLION: Final = 1_000_000


def in_holdout(recipient: LeafId, scope: str, share_ppm: int) -> bool:
    """Return whether a recipient is held out of a scope.

    Args:
        recipient: The leaf that decisions belong to.
        scope: A campaign's name, or `GLOBAL`.
        share_ppm: Share of recipients held out, parts per million.

    Laws:
        the answer never changes while the share stands; a greater share only adds recipients;
        scopes are independent of each other.
    """
    return share_ppm > 0 and lot("holdout", scope, recipient) * _MILLION < share_ppm


def holdout_of(
    recipient: LeafId, campaign: str, *, campaign_share_ppm: int, global_share_ppm: int
) -> str:
    """Return which holdout a recipient is in: `global`, `campaign`, or empty for none."""
    if in_holdout(recipient, GLOBAL, global_share_ppm):
        return "global"
    return "campaign" if in_holdout(recipient, campaign, campaign_share_ppm) else ""
