"""Features and fields that are for a purpose which does not exist: nobody could ever permit it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from penstock.core.catalog.catalog import Catalog
from penstock.core.catalog.fields import Field
from penstock.core.decision.predicate import Names, check_purpose
from penstock.core.errors import DefinitionError
from penstock.core.feature.definition import Feature
from penstock.core.feature.plan import Plan

FindPlace = Callable[[str], str]
"""Returns file and line of a word in the file of events."""


def astray(
    plan: Plan, catalog: Catalog, names: Names, find_place: FindPlace
) -> Iterator[DefinitionError]:
    """Yield an error for each field and each feature that names a purpose which is none (E157).

    Args:
        plan: The features.
        catalog: The events and traits.
        names: The purposes that there are; None for any.
        find_place: Where the word stands: a field does not know where it was declared.
    """
    for owner, purpose, where in (*_of_fields(catalog), *_of_features(plan)):
        try:
            check_purpose(purpose, names, owner=owner, where=where)
        except DefinitionError as error:
            error.where = error.where or find_place(purpose)
            yield error


def _of_fields(catalog: Catalog) -> Iterator[tuple[str, str, str]]:
    tables: list[tuple[str, Mapping[str, Field]]] = [
        *((f"of event `{name}`", one.fields) for name, one in catalog.event_types.items()),
        ("of the traits", catalog.traits),
        ("of the group traits", catalog.group_traits),
        ("of the items", catalog.items),
    ]
    for whose, fields in tables:
        for field in fields.values():
            for part in (field, *field.fields):
                yield f"field `{part.name}` {whose}", part.privacy.purpose, ""


def _of_features(plan: Plan) -> Iterator[tuple[str, str, str]]:
    def parts(feature: Feature) -> Iterator[Feature]:
        yield feature
        for inner in feature.parts:
            yield from parts(inner)

    for feature in plan.features:
        for part in parts(feature):
            yield f"feature `{feature.name}`", part.purpose, part.place or feature.place
