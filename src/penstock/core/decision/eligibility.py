"""Who may see what: every reason for which a candidate is refused, in the order they are tried."""

from typing import Any, Final, NamedTuple

from penstock.core.decision.candidate import Proposal
from penstock.core.decision.item import Item, date_refusal, in_stock
from penstock.core.decision.predicate import (
    WITHHELD,
    Operand,
    View,
    judge,
    value_of,
)
from penstock.core.decision.ready import ReadySlot
from penstock.core.decision.slot import Slot
from penstock.core.decision.values import members

REASONS: Final = {
    "chosen": "it was eligible and ranked or drawn first",
    "ranked_below": "it was eligible, and others took the places",
    "duplicate": "an earlier source had proposed it already",
    "no_item": "the catalogue holds no such item",
    "missing": "the item lacks a field that the slot requires",
    "out_of_stock": "the item says that it is not available",
    "not_started": "the item starts later",
    "ended": "the item has ended",
    "unreadable": "a date of the item does not read as one",
    "other_category": "the item is of another category",
    "consent": "the person does not permit the slot's purpose, and a rule needs to know them",
    "withheld": "a rule needs a value that consent withholds",
    "already_bought": "the person has bought it",
    "unless": "the slot's `unless` holds for it",
}
"""Each reason code and what it means; a code may carry a detail after a colon, such as `missing:url`."""


class Rules(NamedTuple):
    """A slot's rules with what they need to know about the person, read once for all candidates.

    Attributes:
        ready: The slot.
        view: The person, without an item.
        bar: Why nothing about the person may be used, or empty.
        strict: Whether a rule that may not be judged refuses; a fallback is the same for everybody,
            so there it lets pass.
        as_of_ms: The instant decided for.
        bought: Ids bought, or the reason for which they are not known.
    """

    ready: ReadySlot
    view: View
    bar: str
    strict: bool
    as_of_ms: int
    bought: frozenset[str] | str


def rules_of(ready: ReadySlot, view: View, *, bar: str, strict: bool, as_of_ms: int) -> Rules:
    """Return the rules of a slot for one person at one instant."""
    return Rules(ready, view, bar, strict, as_of_ms, _bought(ready.slot, view, bar))


def _bought(slot: Slot, view: View, bar: str) -> frozenset[str] | str:
    if not slot.bought:
        return frozenset()
    if bar:
        return bar
    values: list[Any] = [value_of(Operand("feature", name), view) for name in slot.bought]
    if WITHHELD in values:
        return "withheld"
    return frozenset(item_id for value in values for item_id in members(value))


def refusal(rules: Rules, proposal: Proposal, item: Item | None) -> str:
    """Return why a candidate may not be shown, as a reason code; empty if it may.

    Laws:
        a bar, or withholding a feature, never makes a refused candidate eligible if `strict`.
    """
    if proposal.item_id:
        reason = _item_refusal(rules, proposal, item)
        if reason:
            return reason
    elif not rules.strict:
        return ""  # content in a fallback chain: nothing may leave a slot empty
    unless = rules.ready.slot.unless
    if unless is None:
        return ""
    if rules.bar and rules.ready.unless_about_person:
        return rules.bar if rules.strict else ""
    holds = judge(
        unless,
        View(profile=rules.view.profile, item=item, refused_topics=rules.view.refused_topics),
    )
    if holds is None:
        return "withheld" if rules.strict else ""
    return "unless" if holds else ""


def _item_refusal(rules: Rules, proposal: Proposal, item: Item | None) -> str:
    slot = rules.ready.slot
    if item is None or not item.fields:
        return "no_item"
    for name in slot.require:
        if item.fields.get(name) in (None, ""):
            return f"missing:{name}"
    if slot.stock and not in_stock(item):
        return "out_of_stock"
    if slot.dates:
        reason = date_refusal(item, rules.as_of_ms)
        if reason:
            return reason
    if proposal.categories and item.fields.get("category") not in proposal.categories:
        return "other_category"
    if isinstance(rules.bought, str):
        return rules.bought if rules.strict else ""
    return "already_bought" if proposal.item_id in rules.bought else ""
