"""One person at one instant: features, traits, consent and identifiers, merged from their leaves."""

from typing import Any

import msgspec

from penstock.core.ids import LeafId


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a person as of an instant; what consent forbids is not in it.

    `features` and `traits` are plain values ready for JSON and templates. `consent` maps each
    purpose to `granted`, `denied` or `unknown`; `permitted` holds the purposes that may be served
    under the project's regime. `identifiers` maps types to raw values, sorted. `email` is the
    winning verified email, `email_leaf` its leaf.
    """

    leaves: tuple[LeafId, ...]
    identifiers: dict[str, list[str]]
    features: dict[str, Any]
    traits: dict[str, Any]
    consent: dict[str, str]
    permitted: frozenset[str]
    email: str | None
    email_leaf: LeafId | None
    clock_ms: int
    """The greatest T of the leaves: `as_of` is never before it."""
    as_of_ms: int
    definitions: str
    """Fingerprint of the definitions the features were computed by."""
    withheld: tuple[str, ...] = ()
    """Features and traits that are declared and not served for lack of consent, sorted by name."""
    complete_since: dict[str, int] = {}
    """Features whose window reaches back beyond what is known of anybody, with the instant from which
    they are complete, ms UTC: the log had been truncated when they were new."""
