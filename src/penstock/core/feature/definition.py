"""What an author declared: a feature, before it is checked and compiled."""

from dataclasses import dataclass
from typing import Any, Final

from penstock.core.catalog.expr_nodes import Node
from penstock.core.feature.window import Lifetime, Window

GROUPS_MAX: Final = 100
"""Groups of `by=` kept per tile unless the feature says otherwise."""

DEFAULT_PURPOSE: Final = "personalisation"


@dataclass(frozen=True, eq=False)
class Feature:
    """One feature as it was declared.

    Attributes:
        name: Its name in profiles, templates and decisions; empty for the part of another.
        aggregate: A name from `algebra.REGISTRY`, or from `derived.DERIVED` if it has `parts`.
        event: The name of the event it folds.
        items: The event's list whose line items it folds one by one; empty for the event itself.
        value: What is folded: (name, expression) pairs, several for a record of fields.
        key: The field that makes values distinct, for `last_k`.
        where: The filter; None lets everything through.
        by: The expression to group by; None for one value.
        groups_max: Groups kept per tile.
        window: The span it looks back over.
        params: The aggregate's parameters.
        purpose: What it may be used for.
        description: For the generated reference.
        place: Where it was written, as `features.py:14`.
        parts: The features that a derived one is computed from.
    """

    name: str = ""
    aggregate: str = ""
    event: str = ""
    items: str = ""
    value: tuple[tuple[str, Node], ...] = ()
    key: Node | None = None
    where: Node | None = None
    by: Node | None = None
    groups_max: int = GROUPS_MAX
    window: Window = Lifetime()  # noqa: RUF009 - frozen
    params: tuple[tuple[str, Any], ...] = ()
    purpose: str = DEFAULT_PURPOSE
    description: str = ""
    place: str = ""
    parts: tuple["Feature", ...] = ()
