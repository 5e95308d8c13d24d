"""What happens to an email becomes events in the log: decided, opened, clicked, unsubscribed."""

from __future__ import annotations

from typing import Any

from penstock.core.decision.record import Decision
from penstock.core.ids import LeafId, event_id
from penstock.core.record import RECORD_FORMAT, Evidence, Identifier, Kind, Record

INTERNAL_SOURCE = "penstock"
DECIDED = "Decision Made"
OPENED = "Email Opened"
CLICKED = "Email Link Clicked"
UNSUBSCRIBED = "Unsubscribed"


def decision_record(decision: Decision) -> Record:
    """Return the log's record of a decision; its message id is the decision id."""
    return _record(
        tenant=decision.tenant,
        leaf=decision.recipient,
        id_type=decision.recipient_type,
        message_id=decision.decision_id,
        name=DECIDED,
        at_ms=decision.decided_at_ms,
        granted=decision.permitted,
        properties=_properties(decision) | {"served": decision.served},
    )


def email_event(
    decision: Decision, name: str, *, at_ms: int, message_id: str, properties: dict[str, Any] | None = None,
    granted: tuple[str, ...] | None = None,
) -> Record:  # fmt: skip
    """Return the record of an open or a click of a decided email.

    Args:
        decision: The decision that the email carries.
        name: `Email Opened` or `Email Link Clicked`.
        at_ms: When it was seen.
        message_id: The same for the same fetch, so that a retry counts once.
        granted: What is permitted now; by default what was permitted when it was decided.
        properties: Beyond campaign, send and decision: the link, the slot, the kind of fetcher.
    """
    return _record(
        tenant=decision.tenant,
        leaf=decision.recipient,
        id_type=decision.recipient_type,
        message_id=message_id,
        name=name,
        at_ms=at_ms,
        granted=decision.permitted if granted is None else granted,
        properties=_properties(decision) | (properties or {}),
    )


def unsubscribe_record(
    recipient: LeafId, topic: str, *, tenant: str, at_ms: int, message_id: str
) -> Record:
    """Return the record of an unsubscribe, which needs no permission to be kept."""
    return _record(
        tenant=tenant,
        leaf=recipient,
        # A link may name any leaf that an email was rendered for: the token does not say of what type.
        id_type="",
        message_id=message_id,
        name=UNSUBSCRIBED,
        at_ms=at_ms,
        granted=(),
        properties={"topic": topic},
    )


def _properties(decision: Decision) -> dict[str, Any]:
    return {
        "campaign_id": decision.campaign,
        "campaign_version": decision.campaign_version,
        "send": decision.send,
        "email_id": decision.decision_id,
    }


def _record(
    *, tenant: str, leaf: bytes, id_type: str, message_id: str, name: str, at_ms: int,
    granted: tuple[str, ...], properties: dict[str, Any],
) -> Record:  # fmt: skip
    return Record(
        format=RECORD_FORMAT,
        kind=Kind.PRIMARY,
        tenant=tenant,
        leaf=leaf,
        id_type=id_type,
        event_id=event_id(leaf, message_id),
        message_id=message_id,
        type="track",
        name=name,
        occurred_at_ms=at_ms,
        received_at_ms=at_ms,
        source=INTERNAL_SOURCE,
        source_rank=0,
        verified=True,
        # Judged by what the person permitted when the content was decided.
        evidence=Evidence("basis", granted=granted),
        identifiers=(Identifier(id_type, leaf),),
        properties=properties,
    )
