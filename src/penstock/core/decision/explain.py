"""Why a decision came out as it did, from its record alone: as data and as lines of text."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.core.decision.eligibility import REASONS
from penstock.core.decision.record import Decision, SlotDecision
from penstock.core.time import format_instant

SERVED: Final = {
    "live": "decided on the live profile",
    "stale": "decided on a profile that lags behind",
    "holdout": "held out: sees what everybody would, so that the effect can be measured",
    "fallback": "decided without a profile",
}
_STATES: Final = {
    "asked": "asked",
    "when_false": "not asked: its `when` does not hold",
    "withheld": "not asked: consent withholds a value it reads",
    "consent": "not asked: the person does not permit the slot's purpose",
    "holdout": "not asked: held out",
    "no_profile": "not asked: no profile",
    "failed": "it raised an error",
}
FALLBACKS: Final = {
    "holdout": "the recipient is held out",
    "no_profile": "there is no profile",
    "consent": "the person does not permit the slot's purpose",
    "withheld": "consent withholds what the candidates depend on",
    "none_offered": "no source offered a candidate",
    "none_eligible": "no candidate was eligible",
}
VALUE_CHARS_MAX: Final = 120


class CandidateStory(msgspec.Struct, frozen=True):
    """One candidate's fate with its meaning."""

    key: str
    source: str
    reason: str
    meaning: str
    score: tuple[int, ...]


class SourceStory(msgspec.Struct, frozen=True):
    """One source: whether it was asked, and how much it offered."""

    source: str
    state: str
    offered: int


class SlotStory(msgspec.Struct, frozen=True):
    """One slot: what it shows with which probability, from what, by what."""

    slot: str
    shows: tuple[str, ...]
    propensities: tuple[str, ...]
    fallback_reason: str
    policy: str
    policy_version: str
    explored: bool
    eligible: int
    beyond: int
    sources: tuple[SourceStory, ...]
    candidates: tuple[CandidateStory, ...]
    features: dict[str, Any]
    traits: dict[str, Any]


class Explanation(msgspec.Struct, frozen=True):
    """A decision explained: the story of each slot, and the same as lines of text.

    `evidence` has, per feature, the events behind it, as the caller found them in the log.
    """

    decision_id: str
    campaign: str
    served: str
    reason: str
    permitted: tuple[str, ...]
    slots: tuple[SlotStory, ...]
    evidence: dict[str, list[str]]
    lines: tuple[str, ...]


def explain(
    decision: Decision, evidence: Mapping[str, Sequence[str]] | None = None,
    complete_since: Mapping[str, int] | None = None,
) -> Explanation:  # fmt: skip
    """Return why a decision came out as it did.

    Args:
        decision: The record.
        evidence: Per feature, one line per event behind it, for a caller who has read the log.
        complete_since: Features that lack history, with the instant from which they are complete.

    Laws:
        every candidate that a slot considered is in it with its fate.
    """
    found = {name: list(lines) for name, lines in sorted((evidence or {}).items())}
    stories = tuple(_story(slot) for slot in decision.slots)
    return Explanation(
        decision_id=decision.decision_id,
        campaign=decision.campaign,
        served=decision.served,
        reason=decision.reason,
        permitted=decision.permitted,
        slots=stories,
        evidence=found,
        lines=(
            *_opening(decision),
            *(line for story in stories for line in slot_lines(story, found, complete_since or {})),
        ),
    )


def features_used(decision: Decision) -> list[str]:
    """Return the names of the features that the decision read, sorted: what to look up events for."""
    return sorted({name for slot in decision.slots for name in slot.features})


def _story(slot: SlotDecision) -> SlotStory:
    return SlotStory(
        slot=slot.name,
        shows=tuple(chosen.key for chosen in slot.items),
        propensities=tuple(
            f"{one.propensity.numerator}/{one.propensity.denominator}" for one in slot.items
        ),
        fallback_reason=slot.fallback_reason,
        policy=slot.policy,
        policy_version=slot.policy_version,
        explored=slot.explored,
        eligible=slot.eligible,
        beyond=slot.beyond,
        sources=tuple(SourceStory(note.source, note.state, note.offered) for note in slot.sources),
        candidates=tuple(
            CandidateStory(fate.key, fate.source, fate.reason, meaning(fate.reason), fate.score)
            for fate in slot.fates
        ),
        features=slot.features,
        traits=slot.traits,
    )


def meaning(reason: str) -> str:
    """Return a reason code as a clause; a detail after its colon is named."""
    code, _, detail = reason.partition(":")
    text = REASONS.get(code, code)
    return f"{text}: {detail}" if detail else text


def _opening(decision: Decision) -> list[str]:
    served = SERVED.get(decision.served, decision.served)
    because = f" ({decision.reason})" if decision.reason else ""
    campaign = f"campaign {decision.campaign} v{decision.campaign_version}"
    return [
        f"decision {decision.decision_id}, {campaign}, send {decision.send}",
        f"{served}{because}, at {format_instant(decision.decided_at_ms)}",
        f"permitted: {', '.join(decision.permitted) or 'nothing'}",
    ]


def slot_lines(
    story: SlotStory, evidence: Mapping[str, Sequence[str]], since: Mapping[str, int] | None = None
) -> list[str]:
    """Return a slot's story as lines; what belongs to a line is indented below it.

    Args:
        story: The slot's.
        evidence: Per feature, one line per event behind it.
        since: Features that lack history, with the instant from which they are complete.
    """
    shown = ", ".join(
        f"{key} (probability {share})"
        for key, share in zip(story.shows, story.propensities, strict=True)
    )
    how = "drawn uniformly" if story.explored else "by rank"
    lines = [f"slot {story.slot}: {shown}"]
    if story.fallback_reason:
        lines.append(f"  fallback: {FALLBACKS.get(story.fallback_reason, story.fallback_reason)}")
    else:
        lines.append(f"  {how} among {story.eligible} eligible; policy {story.policy}")
    lines += [
        f"  source {one.source}: {_STATES.get(one.state, one.state)}, {one.offered} offered"
        for one in story.sources
    ]
    lines += [
        f"  {one.reason:<16} {one.key} from {one.source}: {one.meaning}" for one in story.candidates
    ]
    if story.beyond:
        lines.append(f"  {story.beyond} more were offered and not considered")
    for kind, values in (("feature", story.features), ("trait", story.traits)):
        for name, value in values.items():
            at_ms = (since or {}).get(name) if kind == "feature" else None
            late = f", complete since {format_instant(at_ms)}" if at_ms is not None else ""
            lines.append(f"  {kind} {name} = {_short(value)}{late}")
            lines += (
                [f"    {event}" for event in evidence.get(name, ())] if kind == "feature" else []
            )
    return lines


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= VALUE_CHARS_MAX else text[: VALUE_CHARS_MAX - 1] + "…"
