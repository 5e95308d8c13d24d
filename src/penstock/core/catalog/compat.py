"""Whether a new version of an event type may take the place of an old one, and where it breaks.

    backward   the new definition takes what senders of the old one go on sending
    forward    the old definition takes what senders of the new one send
    full       both

A field may come and go, since undeclared fields are only dropped. In every mode a field that stays
must keep its meaning: its kind, scale, currency and protection decide what is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from penstock.core.catalog.fields import EventType, Field
from penstock.core.errors import DefinitionError

MODES: Final = ("backward", "forward", "full")


class Break(NamedTuple):
    """One reason against a new version: where, and what."""

    path: str
    what: str


def check(old: EventType, new: EventType, mode: str) -> list[Break]:
    """Return what breaks between two versions of an event type; empty if nothing does.

    Args:
        old: The version in use.
        new: The version to publish.
        mode: `backward`, `forward` or `full`.

    Raises:
        DefinitionError: There is no such mode (E109).
    """
    _check_mode(mode)
    path = f"event `{new.name}`"
    breaks = [] if old.name == new.name else [Break(path, f"was called `{old.name}`")]
    if new.version < old.version:
        breaks.append(Break(path, f"version {new.version} comes after version {old.version}"))
    breaks.extend(_check_fields(old.fields, new.fields, mode, "$.properties"))
    return breaks


def check_all(old: Mapping[str, EventType], new: Mapping[str, EventType], mode: str) -> list[Break]:
    """Return what breaks between two sets of event types by name.

    An event type that is gone breaks `backward`: its senders go on. One that is new breaks
    `forward`.

    Raises:
        DefinitionError: There is no such mode (E109).
    """
    _check_mode(mode)
    breaks: list[Break] = []
    for name, declared in old.items():
        if name in new:
            breaks.extend(
                Break(f"event `{name}`, {found.path}" if found.path[0] == "$" else found.path,
                      found.what)
                for found in check(declared, new[name], mode)
            )  # fmt: skip
        elif mode != "forward":
            breaks.append(Break(f"event `{name}`", "is no longer declared"))
    if mode != "backward":
        breaks.extend(
            Break(f"event `{name}`", "is not declared in the old version")
            for name in new
            if name not in old
        )
    return breaks


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise DefinitionError("E109", f"there is no compatibility mode `{mode}`",
                              fix=f"use one of {', '.join(MODES)}")  # fmt: skip


def _check_fields(
    old: Mapping[str, Field], new: Mapping[str, Field], mode: str, path: str
) -> Iterator[Break]:
    for name in [*old, *(name for name in new if name not in old)]:
        before, after, place = old.get(name), new.get(name), f"{path}.{name}"
        if before is not None and after is not None:
            yield from _check_meaning(before, after, place)
        if mode != "forward" and after is not None:
            yield from _check_reading(after, before, place, "events of old senders")
        if mode != "backward" and before is not None:
            yield from _check_reading(before, after, place, "events of new senders")
        if before is not None and after is not None and before.kind == after.kind == "objects":
            yield from _check_fields(
                {part.name: part for part in before.fields},
                {part.name: part for part in after.fields},
                mode,
                f"{place}[*]",
            )


def _check_meaning(old: Field, new: Field, place: str) -> Iterator[Break]:
    """Yield what makes the same value sent mean another value kept."""
    if old.kind != new.kind:
        yield Break(place, f"was {old.kind}, is {new.kind}")
        return
    if old.scale != new.scale:
        yield Break(place, f"had scale {old.scale}, has {new.scale}")
    if old.kind == "money" and (old.currency, old.currency_field) != (
        new.currency,
        new.currency_field,
    ):
        yield Break(place, "has its currency from elsewhere")
    if old.privacy.protection != new.privacy.protection:
        was, now = old.privacy.protection, new.privacy.protection
        yield Break(place, f"was protected by {was}, is by {now}")


def _check_reading(reader: Field, writer: Field | None, place: str, who: str) -> Iterator[Break]:
    """Yield what a reader's definition refuses of what a writer's allows."""
    if reader.required and (writer is None or not writer.required):
        yield Break(place, f"is required, and {who} may be without it")
    if writer is None or writer.kind != reader.kind:
        return
    if reader.kind in ("string", "strings") and reader.chars_max < writer.chars_max:
        yield Break(place, f"takes {reader.chars_max} characters where {writer.chars_max} are sent")
    if reader.kind in ("strings", "objects") and reader.items_max < writer.items_max:
        yield Break(place, f"takes {reader.items_max} items where {writer.items_max} are sent")
    lost = [value for value in writer.values if value not in reader.values]
    if reader.kind == "enum" and lost:
        shown = ", ".join(f"`{value}`" for value in lost)
        yield Break(place, f"does not take {shown}")
