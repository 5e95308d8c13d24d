"""The settings of topics that other systems consume: `[feed]`, part of the tree in `penstock.settings`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

import msgspec

from penstock.core.consent.purpose import PURPOSES
from penstock.core.errors import SettingsError
from penstock.core.toml_lines import Places
from penstock.service_settings import keep_ms


class FeedSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What other systems are told on topics of Kafka: `[feed]`."""

    decisions: bool = False
    decisions_retention: str = "30d"
    profiles: bool = False
    purpose: str = "personalisation"
    traits: tuple[str, ...] = ()
    format: str = "json"
    every_ms: int = 1_000

    @property
    def any(self) -> bool:
        """Whether anything is told."""
        return self.decisions or self.profiles


DOCS: Final[dict[str, str]] = {
    "feed.decisions": "Tell each decision that is in the log on the topic `decisions`, after the prefix; needs a log on Kafka.",
    "feed.decisions_retention": 'How long that topic keeps them, such as `"30d"`; empty keeps all.',
    "feed.profiles": "Tell the newest profile of everybody on the compacted topic `profiles`, after the prefix; needs a log on Kafka.",
    "feed.purpose": "What other systems use profiles for: who does not permit that purpose has none on the topic.",
    "feed.traits": "Traits that are told besides features, by name; none by default. They are told as they are kept, unprotected ones raw.",
    "feed.format": "What their values are: `json`, or `json-schema` or `avro` in the Confluent wire format, by schemas that "
    "`penstock schemas publish` registers.",
    "feed.every_ms": "How often it is looked what is to be told: changes of a profile in between are told once.",
}
"""What each setting means, as `penstock.settings.DOCS`."""

CHOICES: Final[dict[str, tuple[str, ...]]] = {"feed.format": ("json", "json-schema", "avro")}
"""What may be chosen from, as `penstock.settings.CHOICES`."""

RANGES: Final[dict[str, tuple[float, float]]] = {"feed.every_ms": (10, 3_600_000)}
"""The least and the greatest value, as `penstock.settings.RANGES`."""


def require_feed(
    feed: FeedSettings, log_kind: str, registry: str, purposes: Sequence[str], places: Places
) -> None:
    """Refuse to tell other systems what can't be told.

    Args:
        feed: The settings.
        log_kind: Where the log is.
        registry: The address of the schema registry; empty for none.
        purposes: The project's own.
        places: Where settings stand.

    Raises:
        SettingsError: The log is not on Kafka, there is no registry, a retention is no span, or a purpose is
            none (E229).
    """
    if feed.format != "json" and not registry:
        raise SettingsError("E229", "setting `feed.format` can't be used: there is no schema registry",
                            where=places.of("feed", "format"), fix='set `registry.url`, or use "json"')  # fmt: skip
    for name, what, fix in _faults(feed, log_kind == "kafka", (*PURPOSES, *purposes)):
        raise SettingsError("E229", f"setting `feed.{name}` can't be used: {what}", where=places.of("feed", name), fix=fix)  # fmt: skip


def _faults(
    feed: FeedSettings, on_kafka: bool, purposes: Collection[str]
) -> Iterator[tuple[str, str, str]]:
    if feed.any and not on_kafka:
        name = "decisions" if feed.decisions else "profiles"
        yield name, "the log is not on Kafka", 'set log.kind to "kafka", or remove it'
    if feed.decisions_retention and not keep_ms(feed.decisions_retention):
        yield (
            "decisions_retention",
            "it is no span of days or hours",
            'write it such as "30d"; empty keeps all',
        )
    if feed.purpose not in purposes:
        yield (
            "purpose",
            "it is not a purpose",
            f"use one of {', '.join(purposes)}, or add yours to `consent.purposes`",
        )
