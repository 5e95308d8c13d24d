"""The catalog's names in one place: what to import to declare event types or to meet them."""

from penstock.core.catalog.catalog import Catalog
from penstock.core.catalog.fields import (
    EventType,
    Field,
    NoSuchField,
    Privacy,
    event_type,
    field_ref,
)
from penstock.core.catalog.normalise import Normalised

__all__ = [
    "Catalog", "EventType", "Field", "NoSuchField", "Normalised", "Privacy", "event_type", "field_ref",
]  # fmt: skip
