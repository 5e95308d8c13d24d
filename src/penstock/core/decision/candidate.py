"""What a candidate is, what a candidate source is, and how a slot gathers candidates from its sources.

A source is a *named function*: from its arguments and the features it declares to read, to a list of
proposals, the best first. It never sees an item: the engine fetches the items proposed, judges who
may see them and ranks. A source of a third party is registered exactly as ours are (`sources.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec

from penstock.core.decision.popular import NOTHING_POPULAR, Popular
from penstock.core.decision.predicate import (
    WITHHELD,
    Node,
    Operand,
    View,
    about_person,
    judge,
    value_of,
)

CANDIDATES_MAX: Final = 36
"""Candidates that a slot considers; those that sources propose beyond are counted as `beyond`."""

FALLBACKS_MAX: Final = 14
"""Candidates that a slot's fallback chain considers."""

ORDERS: Final = ("given", "rank", "any", "affinity")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate source as an author declared it: the name of a function and its arguments.

    Attributes:
        kind: The registered name of the function.
        args: Its arguments, plain data.
        label: What records call it.
        when: The guard: a person for whom it does not hold is offered nothing by this source.
        order: How its candidates rank: `given` (as proposed), `rank` (the item's own `rank`, 1 is
            best), `affinity` (the place of the item's category in the feature `affinity`), `any`.
        affinity: For the order `affinity`: a feature that ranks categories.
    """

    kind: str
    args: dict[str, Any] = {}
    label: str = ""
    when: Node | None = None
    order: str = "given"
    affinity: str = ""


class Proposal(NamedTuple):
    """One thing that a source offers: an item to look up, or content that needs none.

    Attributes:
        item_id: The raw id of an item; empty for content.
        content: Fields for the template, for content.
        block: A template of its own in place of the slot's.
        categories: If any, the item's category must be one of these; an earlier one ranks higher.
    """

    item_id: str = ""
    content: Mapping[str, Any] = {}
    block: str = ""
    categories: tuple[str, ...] = ()


class Reading(NamedTuple):
    """The values of the features and traits that a source declared to read; None where absent."""

    features: Mapping[str, Any]
    traits: Mapping[str, Any]
    popular: Popular = NOTHING_POPULAR
    """What is popular now, by tally; of nobody in particular."""


def anything_goes(args: Mapping[str, Any]) -> str:
    """Return that nothing is wrong with a source's arguments."""
    del args
    return ""


class SourceKind(NamedTuple):
    """A registered candidate source.

    Attributes:
        name: How definitions and records name it.
        propose: From arguments and what was read to proposals, the best first. Pure.
        features: Which arguments hold the name of a feature it reads.
        traits: Which arguments hold the name of a trait it reads.
        check: From arguments to what is wrong with them, or nothing.
        doc: One line for the generated reference.
    """

    name: str
    propose: Callable[[Mapping[str, Any], Reading], Sequence[Proposal]]
    features: tuple[str, ...] = ()
    traits: tuple[str, ...] = ()
    check: Callable[[Mapping[str, Any]], str] = anything_goes
    doc: str = ""
    varies: bool = False
    """Whether it offers something else from one moment to the next without reading a person."""


class SourceNote(msgspec.Struct, frozen=True, array_like=True):
    """What became of a source: `asked`, `when_false`, `withheld`, `consent`, `holdout` or `failed`."""

    source: str
    state: str
    offered: int = 0


def key_of(proposal: Proposal) -> str:
    """Return the identity of what is proposed: two sources that propose one item agree on it."""
    if proposal.item_id:
        return f"item:{proposal.item_id}"
    if not proposal.content:
        return f"block:{proposal.block}"
    raw = msgspec.json.encode([proposal.block, dict(proposal.content)], order="deterministic")
    return f"content:{blake2b(raw, digest_size=6).hexdigest()}"


def reads_of(source: Source, kind: SourceKind) -> list[Operand]:
    """Return the features and traits of the person that a source reads to propose and to rank."""
    found = [Operand("feature", source.args[arg]) for arg in kind.features if source.args.get(arg)]
    found += [Operand("trait", source.args[arg]) for arg in kind.traits if source.args.get(arg)]
    if source.order == "affinity":
        found.append(Operand("feature", source.affinity))
    return found


def personal(source: Source, kind: SourceKind) -> bool:
    """Return whether a source needs to know anything about the person."""
    return bool(reads_of(source, kind)) or (source.when is not None and about_person(source.when))


class ReadySource(NamedTuple):
    """A source with all that depends on its definition alone."""

    source: Source
    kind: SourceKind
    label: str
    reads: tuple[Operand, ...]
    personal: bool
    room: int
    """How many of its proposals are considered."""


class Candidate(NamedTuple):
    """A proposal under consideration: which source made it and at which place."""

    key: str
    rung: int
    """The place of its source in the slot's list."""
    place: int
    """Its place among the source's proposals."""
    source: ReadySource
    proposal: Proposal


class Gathered(NamedTuple):
    """The candidates of some sources, with a note for each source and the number left out."""

    candidates: list[Candidate]
    notes: list[SourceNote]
    beyond: int


def ready_sources(pairs: Sequence[tuple[Source, SourceKind]], most: int) -> tuple[ReadySource, ...]:
    """Return sources made ready, with room for `most` candidates among them.

    Each has room of its own that depends on the definitions only: else one source falling silent
    would let in what another proposes further down its list. What sources that are the same for
    everybody leave of theirs goes to the rest.
    """
    equal = most // len(pairs) if pairs else 0
    nobody = View(profile=None)
    ready = [
        ReadySource(
            source,
            kind,
            label,
            tuple(reads_of(source, kind)),
            personal(source, kind),
            equal,
        )
        for (source, kind), label in zip(pairs, _labels(pairs), strict=True)
    ]
    rooms = [
        equal if one.personal or one.kind.varies else min(equal, len(_ask(one, nobody, "")[1]))
        for one in ready
    ]
    hungry = [place for place, one in enumerate(ready) if one.personal or one.kind.varies]
    for turn in range(most - sum(rooms) if hungry else 0):
        rooms[hungry[turn % len(hungry)]] += 1
    return tuple(one._replace(room=room) for one, room in zip(ready, rooms, strict=True))


def _labels(pairs: Sequence[tuple[Source, SourceKind]]) -> list[str]:
    """Return what records call sources: those of one kind without a label by what they read, or by number."""
    kinds = [source.kind for source, _ in pairs if not source.label]
    names: list[str] = []
    for source, kind in pairs:
        read = ", ".join(one.name for one in reads_of(source, kind))
        several = not source.label and kinds.count(source.kind) > 1
        names.append(f"{source.kind}({read})" if several and read else source.label or source.kind)
    alike = [name for name, (source, _) in zip(names, pairs, strict=True) if not source.label]
    return [
        f"{name}#{names[:place].count(name) + 1}" if not source.label and alike.count(name) > 1 else name
        for place, (name, (source, _)) in enumerate(zip(names, pairs, strict=True))
    ]  # fmt: skip


def gather(sources: Sequence[ReadySource], view: View, *, barred: str) -> Gathered:
    """Return what sources propose for a person, in the order of the sources.

    Args:
        sources: The sources, the preferred first.
        view: The person, without an item.
        barred: Why sources that need to know the person are not asked (`consent`, `holdout`,
            `no_profile`); empty if they are.

    Laws:
        barring, or withholding a feature, never adds a candidate.
    """
    candidates: list[Candidate] = []
    notes: list[SourceNote] = []
    beyond = 0
    for rung, one in enumerate(sources):
        state, proposals = _ask(one, view, barred)
        notes.append(SourceNote(one.label, state, len(proposals)))
        beyond += max(0, len(proposals) - one.room)
        for place, proposal in enumerate(proposals[: one.room]):
            candidates.append(Candidate(key_of(proposal), rung, place, one, proposal))
    return Gathered(candidates, notes, beyond)


def _ask(one: ReadySource, view: View, barred: str) -> tuple[str, Sequence[Proposal]]:
    if barred and one.personal:
        return barred, ()
    if one.source.when is not None:
        holds = judge(one.source.when, view)
        if not holds:
            return ("withheld" if holds is None else "when_false"), ()
    features: dict[str, Any] = {}
    traits: dict[str, Any] = {}
    for operand in one.reads:
        value = value_of(operand, view)
        if value is WITHHELD:
            return "withheld", ()
        (features if operand.kind == "feature" else traits)[operand.name] = value
    try:
        return "asked", list(
            one.kind.propose(one.source.args, Reading(features, traits, view.popular))
        )
    except Exception:  # noqa: BLE001 - a source that fails costs its candidates, never the email
        return "failed", ()
