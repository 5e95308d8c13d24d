"""The record of a decision: what was chosen, from what, by which policy, with which values; its bytes.

A record answers "why did she get this" without a replay, and the click goes to what it says was
shown. Kept for long: fields are only added, at the end; version n reads n-1.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

import msgspec

from penstock.core.decision.candidate import SourceNote
from penstock.core.decision.policy import Propensity
from penstock.core.errors import DataCorrupt

DECISION_FORMAT: Final = 2
"""Format 1 has no `definitions_number`."""

FATES_MAX: Final = 50
"""Candidates whose fate a slot records: all it considers, by `CANDIDATES_MAX` and `FALLBACKS_MAX`."""


class Fate(msgspec.Struct, frozen=True, array_like=True):
    """What became of one candidate.

    `reason` is `chosen`, `ranked_below`, `duplicate` or why it was refused; `score` is what it was
    ranked by, the smaller the better, empty for the refused.
    """

    key: str
    source: str
    reason: str
    score: tuple[int, ...] = ()


class Chosen(msgspec.Struct, frozen=True, array_like=True):
    """One candidate shown: the values shown, and the probability that it took this place."""

    key: str
    item_id: str
    """Empty for content."""
    item_version: int
    fields: dict[str, Any]
    """What the template got; a click goes to its `url`."""
    block: str
    """A template of its own, or empty."""
    source: str
    propensity: Propensity


class SlotDecision(msgspec.Struct, frozen=True, array_like=True):
    """What one slot shows, and why."""

    name: str
    items: tuple[Chosen, ...]
    fallback_used: bool
    fallback_reason: str
    policy: str
    policy_version: str
    explored: bool
    """Whether the order was drawn uniformly."""
    eligible: int
    """How many candidates were eligible."""
    beyond: int
    """How many proposals were not considered for lack of room."""
    sources: tuple[SourceNote, ...]
    fates: tuple[Fate, ...]
    features: dict[str, Any]
    """The features the slot reads, with the values used; withheld ones are not in it."""
    traits: dict[str, Any]


class Decision(msgspec.Struct, frozen=True, array_like=True):
    """One decision, for one recipient, campaign and send."""

    format: int
    decision_id: str
    tenant: str
    recipient: bytes
    campaign: str
    campaign_version: int
    send: str
    slot: str
    """Empty for all slots of the campaign; a slot's name if it alone is decided, at open time."""
    decided_at_ms: int
    profile_as_of_ms: int
    known_at: int
    """The log offset up to which the profile reflects the log; -1 without a profile."""
    definitions: str
    """Fingerprint of the feature definitions."""
    served: str
    """`live`, `stale`, `holdout` or `fallback`."""
    reason: str
    permitted: tuple[str, ...]
    """The purposes that were permitted, sorted; empty in a holdout, where nothing was read."""
    slots: tuple[SlotDecision, ...]
    recipient_type: str = ""
    """The identifier type of the recipient's leaf; only an `email` counts in impact."""
    definitions_number: int = 0
    """The version of the definitions that it went by; 0 if it was not recorded."""


class _Head(msgspec.Struct, array_like=True):
    format: int


IDS_MAX: Final = 4_096
"""Ids kept: each is asked for when its decision is looked up, made and recorded."""

_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(Decision)
_head = msgspec.msgpack.Decoder(_Head)


@lru_cache(maxsize=IDS_MAX)
def decision_id_of(tenant: str, recipient: bytes, campaign: str, send: str, slot: str = "") -> str:
    """Return the id of a decision: 32 hex digits of a hash of its key, so that it exists once."""
    digest = blake2b(digest_size=16, person=b"decision")
    for part in (tenant.encode(), recipient, campaign.encode(), send.encode(), slot.encode()):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.hexdigest()


def encode_decision(decision: Decision) -> bytes:
    """Return the canonical bytes of a decision: equal decisions, equal bytes."""
    return _encoder.encode(decision)


def decode_decision(raw: bytes) -> Decision:
    """Return the decision of its bytes.

    Raises:
        DataCorrupt: The bytes are not a decision (E720), or a newer version wrote them (E721).
    """
    try:
        newer = _head.decode(raw).format > DECISION_FORMAT
        if not newer:
            return _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # The cause is left out on purpose: it may quote a value.
        raise DataCorrupt("E720", "a stored decision does not decode",
                          fix="run `penstock doctor`; it names the record") from None  # fmt: skip
    raise DataCorrupt("E721", f"a stored decision has a format newer than {DECISION_FORMAT}",
                      fix="upgrade Penstock to the version that wrote it")  # fmt: skip
