"""The decision: one person, one campaign, one instant, in; what each slot shows and why, out.

Pure and total: it always answers with content. Two phases: `wanted_items` says which items to fetch, then
`decide` judges, ranks and chooses among them.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from penstock.core.decision.campaign import Campaign
from penstock.core.decision.candidate import Candidate, Gathered, gather
from penstock.core.decision.eligibility import Rules, refusal, rules_of
from penstock.core.decision.item import Item
from penstock.core.decision.policy import Choice, Ranked, choose
from penstock.core.decision.popular import NOTHING_POPULAR, Popular
from penstock.core.decision.predicate import WITHHELD, Operand, View, value_of
from penstock.core.decision.ready import ReadySlot, barred, candidates_of, ready_slot, wants
from penstock.core.decision.record import (
    DECISION_FORMAT,
    Chosen,
    Decision,
    Fate,
    SlotDecision,
)
from penstock.core.decision.slot import Slot
from penstock.core.decision.values import members
from penstock.core.ids import LeafId
from penstock.core.profile import Profile

_LAST: Final = 1 << 31
"""The score of an item without what its source ranks by: behind all others."""


def wanted_items(
    campaign: Campaign, profile: Profile | None, *, holdout: str = "", slot: str = "",
    refused_topics: frozenset[str] = frozenset(), popular: Popular = NOTHING_POPULAR,
) -> list[str]:  # fmt: skip
    """Return the raw ids of the items to fetch before `decide`, in a stable order, once each.

    The arguments are those that `decide` will get.
    """
    view = View(
        profile=None if holdout else profile, refused_topics=refused_topics, popular=popular
    )
    found: dict[str, None] = {}
    for one in campaign.slots:
        if slot in ("", one.name):
            ready = ready_slot(one, campaign.uniform_share_ppm)
            bar = "holdout" if holdout else barred(one, profile)
            found.update(dict.fromkeys(wants(ready, view, bar)))
    return list(found)


def decide(  # noqa: PLR0913 - a decision depends on all of these, and on nothing else
    campaign: Campaign,
    profile: Profile | None,
    items: Mapping[str, Item],
    *,
    tenant: str,
    recipient: LeafId,
    send: str,
    decision_id: str,
    as_of_ms: int,
    offset_known_at: int,
    holdout: str = "",
    freshness: str = "live",
    reason: str = "",
    slot: str = "",
    refused_topics: frozenset[str] = frozenset(),
    recipient_type: str = "",
    popular: Popular = NOTHING_POPULAR,
    definitions_number: int = 0,
) -> Decision:
    """Return the decision for one recipient; the same arguments give the same bytes.

    Args:
        campaign: The campaign with its slots.
        profile: The person as of about `as_of_ms`; None if it can't be read: then every slot shows
            its fallback, and `reason` says why.
        items: The items that `wanted_items` asked for, those that exist, in any order.
        tenant: The tenant's id.
        recipient: The leaf that the decision belongs to.
        send: Which send of the campaign.
        decision_id: `decision_id_of` the key; seeds every draw.
        as_of_ms: The instant decided for, ms UTC.
        offset_known_at: The log offset that the profile reflects; -1 if there is none.
        holdout: `holdout_of` the recipient; not empty means: nothing of the person is read, and
            every slot shows a fallback that is the same for everybody.
        freshness: `live` or `stale`.
        reason: Why it is stale, or why there is no profile.
        slot: The one slot to decide, at open time; empty for all.
        refused_topics: Topics refused, from the suppressions.
        recipient_type: The identifier type of the recipient's leaf.
        popular: What is popular at about `as_of_ms`.
        definitions_number: The version of the definitions that the campaign and the profile are of.
    """
    person = None if holdout else profile
    view = View(profile=person, refused_topics=refused_topics, popular=popular)
    if holdout:
        served, reason = "holdout", holdout
    elif profile is None:
        served, reason = "fallback", reason or "no_profile"
    else:
        served = freshness
    return Decision(
        format=DECISION_FORMAT,
        decision_id=decision_id,
        tenant=tenant,
        recipient=recipient,
        campaign=campaign.name,
        campaign_version=campaign.version,
        send=send,
        slot=slot,
        decided_at_ms=as_of_ms,
        profile_as_of_ms=profile.as_of_ms if profile else 0,
        known_at=offset_known_at if profile else -1,
        definitions=profile.definitions if profile else "",
        served=served,
        reason=reason,
        permitted=tuple(sorted(person.permitted)) if person else (),
        recipient_type=recipient_type,
        definitions_number=definitions_number,
        slots=tuple(
            _decide_slot(
                ready_slot(one, campaign.uniform_share_ppm),
                _Asked(view, items, decision_id, as_of_ms),
                "holdout" if holdout else barred(one, person),
            )
            for one in campaign.slots
            if slot in ("", one.name)
        ),
    )


class _Asked(NamedTuple):
    """What is the same for all slots of a decision."""

    view: View
    items: Mapping[str, Item]
    decision_id: str
    as_of_ms: int


class _Stage(NamedTuple):
    """What one list of sources came to: the choice, and the fate of each candidate."""

    shown: tuple[Chosen, ...]
    explored: bool
    eligible: int
    gathered: Gathered
    fates: list[Fate]


def _decide_slot(ready: ReadySlot, asked: _Asked, bar: str) -> SlotDecision:
    gathered = candidates_of(ready, asked.view, bar)
    rules = rules_of(ready, asked.view, bar=bar, strict=True, as_of_ms=asked.as_of_ms)
    first = _stage(rules, gathered, asked, ready.share_ppm)
    second = None if first.shown else _fall_back(ready, asked, bar)
    features, traits = _values_used(ready, asked.view, bar)
    return SlotDecision(
        name=ready.slot.name,
        items=second.shown if second else first.shown,
        fallback_used=second is not None,
        fallback_reason=_fallback_reason(bar, first) if second else "",
        policy=ready.policy,
        policy_version=ready.policy_version,
        explored=first.explored,
        eligible=first.eligible,
        beyond=first.gathered.beyond,
        sources=(*first.gathered.notes, *(second.gathered.notes if second else ())),
        fates=(*first.fates, *(second.fates if second else ())),
        features=features,
        traits=traits,
    )


def _fall_back(ready: ReadySlot, asked: _Asked, bar: str) -> _Stage:
    """Return the first fallback source that has anything to show; the last one always has."""
    rules = rules_of(ready, asked.view, bar=bar, strict=False, as_of_ms=asked.as_of_ms)
    gathered = gather(ready.fallback, asked.view, barred=bar)
    fates: list[Fate] = []
    for rung in range(len(ready.fallback)):
        here = [candidate for candidate in gathered.candidates if candidate.rung == rung]
        stage = _stage(rules, Gathered(here, gathered.notes[: rung + 1], 0), asked, 0)
        fates += stage.fates
        if stage.shown:
            return stage._replace(fates=fates)
    raise AssertionError("the last fallback is static content, which check_slot has made sure of")


def _stage(rules: Rules, gathered: Gathered, asked: _Asked, share_ppm: int) -> _Stage:
    eligible: dict[str, tuple[Candidate, tuple[int, ...]]] = {}
    refused: list[str] = []
    for candidate in gathered.candidates:
        item = asked.items.get(candidate.proposal.item_id)
        reason = refusal(rules, candidate.proposal, item)
        if not reason and candidate.key in eligible:
            reason = "duplicate"
        if not reason:
            eligible[candidate.key] = (candidate, _score(candidate, item, asked.view))
        refused.append(reason)
    slot = rules.ready.slot
    choice = choose(
        [Ranked(key, score) for key, (_, score) in eligible.items()],
        slot=slot.name,
        decision_id=asked.decision_id,
        share_ppm=share_ppm,
        limit=slot.limit,
    )
    shown = tuple(_shown(slot, eligible, asked.items, choice))
    fates = [
        _fate(candidate, reason, eligible, choice)
        for candidate, reason in zip(gathered.candidates, refused, strict=True)
    ]
    return _Stage(shown, choice.explored, len(eligible), gathered, fates)


def _score(candidate: Candidate, item: Item | None, view: View) -> tuple[int, ...]:
    """Return what a candidate ranks by: its source, its category among those asked, its source's order."""
    fields = item.fields if item else {}
    categories = candidate.proposal.categories
    category = fields.get("category")
    return (
        candidate.rung,
        categories.index(category) if category in categories else 0,
        _order(candidate, fields, view),
    )


def _order(candidate: Candidate, fields: Mapping[str, Any], view: View) -> int:
    source = candidate.source.source
    if source.order == "given":
        return candidate.place
    if source.order == "rank":
        rank = fields.get("rank")
        return min(rank, _LAST) if isinstance(rank, int) and not isinstance(rank, bool) else _LAST
    if source.order == "affinity":
        liked = members(value_of(Operand("feature", source.affinity), view))
        category = fields.get("category")
        return liked.index(category) if category in liked else _LAST
    return 0


def _shown(
    slot: Slot,
    eligible: Mapping[str, tuple[Candidate, Any]],
    items: Mapping[str, Item],
    choice: Choice,
) -> Iterable[Chosen]:
    for key, propensity in zip(choice.keys, choice.propensities, strict=True):
        candidate = eligible[key][0]
        proposal = candidate.proposal
        item = items[proposal.item_id] if proposal.item_id else None
        fields = dict(item.fields if item else proposal.content)
        if item and slot.show:
            fields = {name: fields[name] for name in slot.show if name in fields}
        yield Chosen(
            key=key,
            item_id=proposal.item_id,
            item_version=item.version if item else 0,
            fields=fields,
            block=proposal.block,
            source=candidate.source.label,
            propensity=propensity,
        )


def _fate(candidate: Candidate, reason: str, eligible: Mapping[str, Any], choice: Choice) -> Fate:
    if reason:
        return Fate(candidate.key, candidate.source.label, reason)
    outcome = "chosen" if candidate.key in choice.keys else "ranked_below"
    return Fate(candidate.key, candidate.source.label, outcome, eligible[candidate.key][1])


def _fallback_reason(bar: str, first: _Stage) -> str:
    if bar:
        return bar
    if first.gathered.candidates:
        return "none_eligible"
    return (
        "withheld"
        if any(note.state == "withheld" for note in first.gathered.notes)
        else "none_offered"
    )


def _values_used(ready: ReadySlot, view: View, bar: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the features and the traits that the slot read, by name; nothing where it was barred."""
    features: dict[str, Any] = {}
    traits: dict[str, Any] = {}
    for operand in () if bar else ready.reads:
        value = value_of(operand, view)
        if value is not WITHHELD:
            (features if operand.kind == "feature" else traits)[operand.name] = value
    return features, traits
