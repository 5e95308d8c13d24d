"""What authors write in `slots.py`: slots, candidate sources, policies and predicates."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from penstock.core.catalog.expr_nodes import FieldRef
from penstock.core.decision.campaign import share_ppm
from penstock.core.decision.candidate import (
    Proposal,
    Reading,
    Source,
    SourceKind,
    anything_goes,
)
from penstock.core.decision.policy import Policy
from penstock.core.decision.popular import tally_name, tally_of
from penstock.core.decision.predicate import Node, Permitted, Reference, as_node
from penstock.core.decision.slot import Slot
from penstock.core.decision.sources import register
from penstock.core.errors import DefinitionError
from penstock.core.feature.window import Sliding
from penstock.core.time import DAY_MS

_A_DAY = Sliding(DAY_MS)

FallbackLike = Source | Mapping[str, Any] | str
"""A source, or static content: a mapping of fields, or the name of a block."""


def feature(name: str) -> Reference:
    """Return a feature to compare: `feature("views_7d") > 3`.

    Args:
        name: Its name in `features.py`.
    """
    return Reference("feature", name)


def trait(name: str) -> Reference:
    """Return a trait to compare: `trait("plan") == "pro"`.

    Args:
        name: Its name among the `traits(…)` of `events.py`.
    """
    return Reference("trait", name)


def item(name: str) -> Reference:
    """Return a field of the item under judgement, for `unless=`: `item("category") == "gift cards"`.

    Args:
        name: A field of items.
    """
    return Reference("item", name)


def permitted(purpose: str) -> Permitted:
    """Return: the person permits the purpose. Its negation finds nobody: a refusal selects no one.

    Args:
        purpose: A purpose of the project's consent.
    """
    return Permitted(purpose=purpose)


def fixed(
    *items: str, content: Mapping[str, Any] | None = None, block: str = "", order: str = "given",
    affinity: str = "", label: str = "",
) -> Source:  # fmt: skip
    """Return a source that offers the same to everybody.

    Args:
        *items: Ids of items, the best first.
        content: Fields for the template, in place of items.
        block: A template of its own, `content/<block>.liquid`, in place of the slot's.
        order: For items: `given`, `rank` (the item's own rank), `affinity` or `any`.
        affinity: For the order `affinity`: a feature that ranks categories.
        label: What records call it.
    """
    args: dict[str, Any] = {"items": list(items)} if items else {}
    if content:
        args["content"] = dict(content)
    if block:
        args["block"] = block
    return Source(kind="fixed", args=args, order=order, affinity=affinity, label=label)


def recently_viewed(feature: str, *, label: str = "") -> Source:
    """Return a source that offers the items a feature lists (`last_k` of item ids), the newest first.

    Args:
        feature: Lists item ids.
        label: What records call it.
    """
    return Source(kind="recently_viewed", args={"feature": feature}, label=label)


def viewed_not_bought(*, viewed: str, bought: str, label: str = "") -> Source:
    """Return a source that offers the items of one feature, the newest first, that are not in another.

    Args:
        viewed: A feature that lists item ids: what is offered.
        bought: A feature that lists item ids: what is left out.
        label: What records call it.
    """
    return Source(kind="viewed_not_bought", args={"viewed": viewed, "bought": bought}, label=label)


def top_of_favourite_category(
    feature: str, *, items: Mapping[str, Sequence[str]] | Sequence[str], categories: int = 1,
    order: str = "given", label: str = "",
) -> Source:  # fmt: skip
    """Return a source that offers the best items of the categories a feature ranks highest.

    Args:
        feature: Ranks categories: `top_k`, or a count by category.
        items: Item ids per category, the best first; or one list of items that have a `category`.
        categories: How many categories to offer of.
        order: `given`, or `rank`: the item's own rank, 1 is best.
        label: What records call it.
    """
    offered: Any = (
        {category: list(ids) for category, ids in items.items()}
        if isinstance(items, Mapping)
        else list(items)
    )
    args = {"feature": feature, "items": offered, "categories": categories}
    return Source(kind="top_of_favourite_category", args=args, order=order, label=label)


def popular(
    items: FieldRef, *, over: Sliding = _A_DAY, people: int = 10, by: FieldRef | None = None,
    feature: str = "", groups: int = 1, purpose: str = "personalisation", label: str = "",
) -> Source:  # fmt: skip
    """Return a source that offers what most people did something with lately.

    An item is offered only if at least `people` different identifiers are behind it, however often
    each of them came. The same for everybody, unless `feature` names what the person likes.

    Args:
        items: The field that holds an item's id: `product_viewed.product_id`, or one of `each(…)`.
        over: How far back, in the log's time; from an hour to 30 days.
        people: How many different identifiers an item needs, 3 to 32.
        by: Rank by this field separately, such as `product_viewed.category`.
        feature: Offer only of the groups that this feature of the person ranks highest.
        groups: How many of these.
        purpose: What an event must permit to count, besides the purposes of its fields.
        label: What records call it.

    Raises:
        DefinitionError: A field holds no plain text, or the two are of different events (E155).
    """
    for ref in (items,) if by is None else (items, by):
        if ref.kind not in ("string", "enum") or ref.protection != "plain":
            raise DefinitionError("E155", f"`popular` counts by `{ref.field}`, which is no plain text",
                                  fix="use a field that is a string or an enum, without protection",
                                  where=caller())  # fmt: skip
        if (ref.event, getattr(ref, "items", "")) != (items.event, getattr(items, "items", "")):
            raise DefinitionError("E155", "`popular` groups the items of one event by a field of another",
                                  fix="use fields of one event, or of one `each(…)`", where=caller())  # fmt: skip
    purposes = {purpose, items.purpose, items.purpose if by is None else by.purpose}
    args: dict[str, Any] = {
        "event": items.event, "items": getattr(items, "items", ""), "field": items.field,
        "group": "" if by is None else by.field, "over_ms": over.window_ms, "people": people,
        "purposes": sorted(purposes),
    }  # fmt: skip
    args["tally"] = tally_name(tally_of(args))
    if feature:
        args |= {"feature": feature, "groups": groups}
    return Source(kind="popular", args=args, label=label)


def source(
    kind: str, *, order: str = "given", affinity: str = "", label: str = "", **args: Any
) -> Source:
    """Return a source of any registered kind, such as one of your own made with `candidate_source`.

    Args:
        kind: The name that it is registered under.
        order: How its items rank: `given`, `rank` (the item's own rank), `affinity` or `any`.
        affinity: For the order `affinity`: a feature that ranks categories.
        label: What records call it.
        **args: What its function is given, plain data.
    """
    return Source(kind=kind, args=args, order=order, affinity=affinity, label=label)


def rule(
    *, when: Node | Reference, then: Source | Sequence[Source], label: str = ""
) -> tuple[Source, ...]:
    """Return sources that are asked only for people for whom a predicate holds.

    Args:
        when: The predicate.
        then: A source or several; a rule may stand in a rule.
        label: What records call them, in place of their own names.
    """
    guard = as_node(when)
    return tuple(
        Source(
            kind=one.kind,
            args=one.args,
            label=label or one.label,
            when=guard if one.when is None else guard & one.when,
            order=one.order,
            affinity=one.affinity,
        )
        for one in ((then,) if isinstance(then, Source) else then)
    )


def candidate_source(
    name: str,
    *,
    features: Sequence[str] = (),
    traits: Sequence[str] = (),
    check: Callable[[Mapping[str, Any]], str] = anything_goes,
) -> Callable[[Callable[[Mapping[str, Any], Reading], Sequence[Proposal]]], SourceKind]:
    """Register a function as a candidate source; use it in slots as `source(name, …)`.

    The function gets the arguments and the values it declared to read; it is pure: no clock, no
    dice, no network. It is not asked where consent withholds any of them. One that says a number:

    ```python
    from penstock.dsl.slots import Proposal, candidate_source, source


    @candidate_source("number_of", features=("feature",))
    def number_of(args, reading):
        number = reading.features[args["feature"]]
        return [Proposal(content={"number": number})] if number else []


    viewed = source("number_of", feature="views_7d")
    ```

    It belongs to the version of the project that it was loaded with: a campaign that was published
    with an earlier one goes on by the function as it was then.

    Args:
        name: How slots name it; no other source may have it.
        features: Which of its arguments hold the name of a feature.
        traits: Which of its arguments hold the name of a trait.
        check: From the arguments to what is wrong with them, or nothing.
    """

    def decorate(propose: Callable[[Mapping[str, Any], Reading], Sequence[Proposal]]) -> SourceKind:
        doc = (propose.__doc__ or "").strip().splitlines()
        return register(
            SourceKind(name, propose, tuple(features), tuple(traits), check, doc[0] if doc else "")
        )

    return decorate


def ranked() -> Policy:
    """Return the policy that takes the best."""
    return Policy("ranked")


def epsilon(share: float = 0.05) -> Policy:
    """Return the policy that takes the best, and for a share of decisions draws uniformly.

    Args:
        share: From 0 to 1.
    """
    return Policy("epsilon", share_ppm(share, "epsilon's share"))


def slot(  # noqa: PLR0913 - keyword-only, each with a default that suits most
    name: str,
    *,
    candidates: Sequence[Source | tuple[Source, ...]],
    fallback: FallbackLike | Sequence[FallbackLike | tuple[Source, ...]],
    policy: Policy | None = None,
    limit: int = 1,
    purpose: str = "personalisation",
    render: str = "",
    require: Sequence[str] = ("title", "url"),
    bought: str | Sequence[str] = (),
    stock: bool = True,
    dates: bool = True,
    unless: Node | Reference | None = None,
    show: Sequence[str] = (),
) -> Slot:
    """Declare a slot: a place in an email that is decided per person.

    Args:
        name: Unique in the project.
        candidates: Sources, the preferred first.
        fallback: What shows when nobody is eligible: sources tried one by one, the last of them static
            content (a mapping of fields, or the name of a block).
        policy: `ranked()` by default, or `epsilon(0.05)`.
        limit: How many to show, 1 to 12.
        purpose: What the person must permit for anything about them to be used.
        render: The template, `content/<render>.liquid`; by default the slot's name.
        require: Fields an item must have.
        bought: Features that list what the person has bought: not shown again.
        stock: Whether to refuse items that say they are out of stock.
        dates: Whether to refuse items outside [starts_at, ends_at).
        unless: Refuses each candidate for which it holds; may read `item(...)`.
        show: The fields of an item to record and render; all by default.

    Raises:
        DefinitionError: An argument is of another kind (E154). Names and the fallback are checked by
            `check_slot` when the project is loaded.
    """
    where = caller()
    chain: Sequence[FallbackLike | tuple[Source, ...]] = (
        [fallback] if isinstance(fallback, (Source, Mapping, str)) else fallback
    )
    return Slot(
        name=name,
        candidates=_flat(candidates, name, where),
        fallback=_flat([_fallback(one) for one in chain], name, where),
        policy=policy or ranked(),
        limit=limit,
        purpose=purpose,
        render=render,
        require=tuple(require),
        bought=(bought,) if isinstance(bought, str) else tuple(bought),
        stock=stock,
        dates=dates,
        unless=None if unless is None else as_node(unless),
        show=tuple(show),
        where=where,
    )


def _fallback(one: object) -> object:
    if isinstance(one, str):
        return fixed(block=one)
    return fixed(content=cast("Mapping[str, Any]", one)) if isinstance(one, Mapping) else one


def _flat(parts: Sequence[object], name: str, where: str) -> tuple[Source, ...]:
    found: list[Source] = []
    for part in parts:
        if isinstance(part, (tuple, list)):
            found += _flat(cast("Sequence[object]", part), name, where)
        elif isinstance(part, Source):
            found.append(part)
        else:
            raise DefinitionError(
                "E154",
                f"slot `{name}` has a {type(part).__name__} for a candidate source",
                fix="write a source, such as recently_viewed(...) or fixed(...)",
                where=where,
            )
    return tuple(found)


def caller() -> str:
    """Return the file and line of the author's call: the caller of our caller, such as `slots.py:12`."""
    try:
        raise LookupError
    except LookupError as here:
        frame = here.__traceback__.tb_frame if here.__traceback__ else None
    for _ in range(2):
        frame = frame.f_back if frame else None
    return f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}" if frame else ""
