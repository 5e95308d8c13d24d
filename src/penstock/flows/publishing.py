"""Declared events go to a schema registry: compared here first, then by the registry, then registered.

Nothing is registered unless everything fits, and what is registered already is left as it is: publishing
twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from penstock.core.catalog.compat import Break
from penstock.core.catalog.published import Published, breaks_of
from penstock.core.errors import DefinitionError
from penstock.ports.registry import Registered, Registry, Schema, Verdict

NEW: Final = "new"
CHANGED: Final = "changed"
UNCHANGED: Final = "unchanged"


class Standing(NamedTuple):
    """How an event stands to what is registered under its subject.

    Attributes:
        one: The event as it is to be published.
        what: `new`, `changed` or `unchanged`.
        before: The newest version that is registered; None if there is none.
        compatibility: The one that it is compared by.
        breaks: What breaks, field by field, compared here.
        reasons: What the registry says against it; asked only if nothing breaks here.
        refused: Whether the registry refuses it.
    """

    one: Published
    what: str
    before: Registered | None
    compatibility: str
    breaks: Sequence[Break] = ()
    reasons: Sequence[str] = ()
    refused: bool = False

    @property
    def fits(self) -> bool:
        """Whether it may be published."""
        return not (self.breaks or self.refused)


class Receipt(NamedTuple):
    """What became of an event: the id that its schema has, and whether that is new."""

    one: Published
    schema_id: int
    what: str


def standings(
    registry: Registry, published: Sequence[Published], compatibility: str,
    exceptions: Mapping[str, str],
) -> list[Standing]:  # fmt: skip
    """Return how events stand to what is registered. The registry is only asked.

    Args:
        registry: Where they would go.
        published: The events.
        compatibility: One of `penstock.core.catalog.published.COMPATIBILITIES`.
        exceptions: Subject to the compatibility that it has instead.

    Raises:
        Unavailable: The registry does not answer (E490).
        SettingsError: It does not let us in (E230).
    """
    return [
        _standing(registry, one, exceptions.get(one.subject, compatibility)) for one in published
    ]


def _standing(registry: Registry, one: Published, compatibility: str) -> Standing:
    schema = _schema(one)
    versions = registry.versions(one.subject)
    before = versions[-1] if versions else None
    if before is None:
        return Standing(one, NEW, None, compatibility)
    # The registry knows better than a comparison of texts which schemas are the same.
    found = before if before.schema == schema else registry.find(one.subject, schema)
    if found is not None:
        return Standing(one, UNCHANGED, found, compatibility)
    breaks = breaks_of(one, [version.schema.text for version in versions], compatibility)
    if breaks:
        return Standing(one, CHANGED, before, compatibility, breaks)
    if registry.compatibility(one.subject) != compatibility:
        # It would judge by another compatibility than the one that `publish` sets before.
        return Standing(one, CHANGED, before, compatibility)
    verdict = registry.judge(one.subject, schema)
    return Standing(one, CHANGED, before, compatibility, (), verdict.reasons, not verdict.fits)


def publish(registry: Registry, standing: Sequence[Standing]) -> list[Receipt]:
    """Register events that fit, and return what became of each. Again is safe, also if cut short.

    Raises:
        DefinitionError: The registry refuses one, by its own comparison (E195) or as no schema (E199).
        Unavailable: The registry does not answer (E490).
        SettingsError: It does not let us in (E230).
    """
    assert all(one.fits for one in standing), "what does not fit is not published"
    for one in standing:
        # Before the first version: a registry's default may be to take anything.
        if registry.compatibility(one.one.subject) != one.compatibility:
            registry.set_compatibility(one.one.subject, one.compatibility)
    for one in standing:
        if one.what == CHANGED:
            _require_fit(one.one, registry.judge(one.one.subject, _schema(one.one)))
    receipts: list[Receipt] = []
    for one in standing:
        if one.what == UNCHANGED and one.before is not None:
            receipts.append(Receipt(one.one, one.before.schema_id, UNCHANGED))
        else:
            schema_id = registry.register(one.one.subject, _schema(one.one))
            receipts.append(Receipt(one.one, schema_id, one.what))
    return receipts


def _require_fit(one: Published, verdict: Verdict) -> None:
    """Refuse before the first is registered what would be refused after some were."""
    if not verdict.fits:
        said = f": {'; '.join(verdict.reasons)}" if verdict.reasons else ""
        raise DefinitionError("E195", f"the registry refuses event `{one.event.name}`{said}", where=one.subject,
                              fix="keep what others go on sending or reading; nothing was registered")  # fmt: skip


def _schema(one: Published) -> Schema:
    return Schema(one.kind, one.text)
