"""What an event itself says of consent, in the two forms that SDKs send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from penstock.core.event import Event, object_or_none, wrong_type


def consent_preferences(event: Event, *, deny_unreadable: bool = False) -> dict[str, Any] | None:
    """Return what the event says of consent, by category, or None if it says nothing.

    See `preferences_of`, which says what it raises.
    """
    return preferences_of(event.context, deny_unreadable=deny_unreadable)


def preferences_of(
    context: Mapping[str, Any], *, deny_unreadable: bool = False
) -> dict[str, Any] | None:
    """Return the consent in an event's context, by category, or None if there is none.

    Segment's `consent.categoryPreferences` is read, and RudderStack's `consentManagement` with its
    lists `allowedConsentIds` and `deniedConsentIds`. Where both speak of a category a denial wins.
    The texts `true` and `false` are what they say.

    Args:
        context: The event's.
        deny_unreadable: A category's preference that can't be read is a denial, of an event that must
            not be refused; else it is refused.

    Raises:
        EventRejected: It is not what it should be (E306): a preference that cannot be read must not
            count as none.
    """
    preferences: dict[str, Any] | None = None
    value = context.get("consent")
    if value is not None:
        consent = object_or_none(value)
        if consent is None:
            raise wrong_type("$.context.consent", "an object")
        value = consent.get("categoryPreferences")
        preferences = object_or_none(value)
        if value is not None and preferences is None:
            raise wrong_type("$.context.consent.categoryPreferences", "an object")
        if preferences is not None:
            preferences = {
                category: one if one.__class__ is bool or one is None
                else _preference(one, number, deny_unreadable=deny_unreadable)
                for number, (category, one) in enumerate(preferences.items())
            }  # fmt: skip
    if context.get("consentManagement") is None:
        return preferences
    allowed, denied = _listed_consent(context["consentManagement"])
    said = dict.fromkeys(allowed, True) | (preferences or {}) | dict.fromkeys(denied, False)
    return said or preferences


def _preference(value: Any, number: int, *, deny_unreadable: bool) -> bool:
    if value in ("true", "false"):
        return value == "true"
    if deny_unreadable:
        return False
    # By its place, not its name: a key may be a value in disguise.
    raise wrong_type(f"$.context.consent.categoryPreferences.<key {number + 1}>", "true or false")


def _listed_consent(value: Any) -> tuple[list[str], list[str]]:
    """Return the categories that RudderStack's `consentManagement` allows, and those it denies."""
    path = "$.context.consentManagement"
    consent = object_or_none(value)
    if consent is None:
        raise wrong_type(path, "an object")
    found: list[list[str]] = []
    for name in ("allowedConsentIds", "deniedConsentIds"):
        listed: Any = consent.get(name)
        ids = cast("list[Any]", [] if listed is None else listed)
        if type(ids) is not list or any(type(one) is not str for one in ids):
            raise wrong_type(f"{path}.{name}", "a list of texts")
        found.append(ids)
    return found[0], found[1]
