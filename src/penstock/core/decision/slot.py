"""A slot: a place in an email that is decided per person; its candidates, its rules and its fallback."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

import msgspec

from penstock.core.decision.candidate import ORDERS, Source, SourceKind, reads_of
from penstock.core.decision.policy import MILLION, Policy
from penstock.core.decision.predicate import (
    Names,
    Node,
    Operand,
    check_feature,
    check_predicate,
    check_purpose,
    check_trait,
    nearest,
    operands,
)
from penstock.core.decision.sources import get_kind
from penstock.core.errors import DefinitionError

LIMIT_MAX: Final = 12
"""Items a slot shows at most."""

SOURCES_MAX: Final = 12


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """A slot as an author declared it.

    Attributes:
        name: Unique in the project.
        candidates: Sources, the preferred first: candidates of an earlier one rank higher.
        fallback: Sources tried one by one when nobody is eligible; the last one is static content.
        policy: How to choose among the eligible.
        limit: How many to show.
        purpose: What the person must permit for anything about them to be used.
        render: The template, `content/<render>.liquid`; by default the slot's name.
        require: Fields an item must have.
        bought: Features that list what the person has bought: not shown again.
        stock: Whether items out of stock are refused.
        dates: Whether items outside [starts_at, ends_at) are refused.
        unless: Refuses a candidate for which it holds; may read `item(...)`.
        show: The fields of an item to record and render; empty for all.
        where: File and line of the definition.
        own: Candidate sources of the project's own, as they were when it was loaded.
    """

    name: str
    candidates: tuple[Source, ...]
    fallback: tuple[Source, ...]
    policy: Policy = Policy()
    limit: int = 1
    purpose: str = "personalisation"
    render: str = ""
    require: tuple[str, ...] = ("title", "url")
    bought: tuple[str, ...] = ()
    stock: bool = True
    dates: bool = True
    unless: Node | None = None
    show: tuple[str, ...] = ()
    where: str = ""
    own: Mapping[str, SourceKind] = {}


def template_of(slot: Slot) -> str:
    """Return the name of the template that renders a slot."""
    return slot.render or slot.name


def slots_by_name(slots: Iterable[Slot]) -> dict[str, Slot]:
    """Return slots by their names, sorted.

    Raises:
        DefinitionError: Two have one name (E156).
    """
    found: dict[str, Slot] = {}
    for slot in slots:
        if found.setdefault(slot.name, slot) is not slot:
            raise DefinitionError(
                "E156",
                f"two slots are called `{slot.name}`",
                fix=f"rename one; the other is at {found[slot.name].where or 'another place'}",
                where=slot.where,
            )
    return dict(sorted(found.items()))


def check_slot(slot: Slot, names: Names) -> None:
    """Check a slot against what the project defines.

    Raises:
        DefinitionError: A feature (E150), trait (E151), purpose (E157) or template (E163) is not
            defined; a predicate (E152), the fallback chain (E153), a bound (E154) or a source (E155)
            is wrong.
    """
    owner, where = f"slot `{slot.name}`", slot.where
    _check_bounds(slot, owner)
    check_purpose(slot.purpose, names, owner=owner, where=where)
    for source in (*slot.candidates, *slot.fallback):
        _check_source(source, slot, names, owner)
    for name in slot.bought:
        check_feature(name, names, owner=owner, where=where)
    if slot.unless is not None:
        check_predicate(slot.unless, names, owner=owner, where=where, items=True)
    _check_fallback(slot, owner)
    _check_templates(slot, names, owner)


def _check_bounds(slot: Slot, owner: str) -> None:
    wrong = ""
    if not slot.name.isidentifier():
        wrong = "needs a name of letters, digits and underscores"
    elif not 1 <= slot.limit <= LIMIT_MAX:
        wrong = f"has limit {slot.limit}; it shows between 1 and {LIMIT_MAX}"
    elif not 0 <= slot.policy.share_ppm <= MILLION:
        wrong = "draws a share outside 0 to 1"
    elif len(slot.candidates) > SOURCES_MAX or len(slot.fallback) > SOURCES_MAX:
        wrong = f"has more than {SOURCES_MAX} sources"
    elif not slot.candidates:
        wrong = "has no candidates"
    if wrong:
        raise DefinitionError("E154", f"{owner} {wrong}", where=slot.where,
                              fix="change the argument in the slot's definition")  # fmt: skip


def _check_source(source: Source, slot: Slot, names: Names, owner: str) -> None:
    where = slot.where
    kind = get_kind(source.kind, slot.own, owner=owner, where=where)
    complaint = kind.check(source.args)
    if not complaint and source.order not in ORDERS:
        complaint = f"has order `{source.order}`; known are {', '.join(ORDERS)}"
    if not complaint and bool(source.affinity) is not (source.order == "affinity"):
        complaint = 'needs order="affinity" and affinity="<feature>" together'
    if complaint:
        raise DefinitionError("E155", f"{owner}: candidate source `{source.kind}` {complaint}",
                              fix="change its arguments", where=where)  # fmt: skip
    if source.kind == "popular":
        for purpose in source.args["purposes"]:
            check_purpose(purpose, names, owner=f"{owner}: `popular`", where=where)
    for operand in reads_of(source, kind):
        check = check_feature if operand.kind == "feature" else check_trait
        check(operand.name, names, owner=owner, where=where)
    if source.when is not None:
        check_predicate(source.when, names, owner=owner, where=where)


def _check_fallback(slot: Slot, owner: str) -> None:
    last = slot.fallback[-1] if slot.fallback else None
    if last is None or last.kind != "fixed" or last.when is not None or last.args.get("items"):
        raise DefinitionError("E153", f"{owner} has no static content at the end of its fallback", where=slot.where,
                              fix="end it with content that needs neither an item nor a person, such as "
                              'fallback=fixed(content={"title": "New in"}) or a block')  # fmt: skip


def _check_templates(slot: Slot, names: Names, owner: str) -> None:
    if names.templates is None:
        return
    blocks = [source.args.get("block") for source in (*slot.candidates, *slot.fallback)]
    for template in (template_of(slot), *blocks):
        if template and template not in names.templates:
            raise DefinitionError("E163", f"{owner} names template `{template}`, which does not exist",
                                  fix=f"write content/{template}.liquid{nearest(template, names.templates)}",
                                  where=slot.where)  # fmt: skip


def reads(slot: Slot) -> list[Operand]:
    """Return every feature and trait of the person that a slot may read, sorted, once each."""
    found = {Operand("feature", name) for name in slot.bought}
    for source, kind in with_kinds(slot, (*slot.candidates, *slot.fallback)):
        found.update(reads_of(source, kind))
        if source.when is not None:
            found.update(operands(source.when))
    if slot.unless is not None:
        found.update(operands(slot.unless))
    whole = {Operand(one.kind, one.name) for one in found if one.kind != "item"}
    return sorted(whole, key=lambda one: (one.kind, one.name))


def policy_version(slot: Slot, uniform_share_ppm: int = 0) -> str:
    """Return a fingerprint of everything in the definition that bears on a choice."""
    data = plain(slot)
    del data["where"], data["render"]
    data["uniform_share_ppm"] = uniform_share_ppm
    raw = msgspec.json.encode(data, order="deterministic")
    return blake2b(raw, digest_size=8).hexdigest()


def plain(slot: Slot) -> dict[str, Any]:
    """Return a slot's definition as plain data; what its own sources do is code, and not in it."""
    data: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(slot, own={}))
    del data["own"]
    return data


def with_kinds(slot: Slot, sources: Sequence[Source]) -> list[tuple[Source, SourceKind]]:
    """Return sources of a slot with their registered functions.

    Raises:
        DefinitionError: One is not registered (E155).
    """
    owner = f"slot `{slot.name}`"
    return [
        (source, get_kind(source.kind, slot.own, owner=owner, where=slot.where))
        for source in sources
    ]
