"""Requests by the native accelerator: the same records, byte for byte, at a fraction of the cost.

It makes records of the plain events of a body. What it does not know, an event or a whole body, is taken
in by `collect.py`, which alone refuses and says why; and what events say of consent is judged there, once
for all that say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from penstock.core.catalog.catalog import Catalog
from penstock.core.catalog.handover import catalog_parts
from penstock.core.consent.suppression import PERMISSION_EVENTS
from penstock.core.event import Decoded, Limits, decode_batch, decode_single
from penstock.core.identity import vouch
from penstock.core.identity.identifier import (
    ANONYMOUS,
    CLAIMED_USER,
    EMAIL,
    GROUP,
    USER,
    IdentityRules,
)
from penstock.core.protect import Protector
from penstock.core.record import RECORD_FORMAT, Evidence, Kind, Record
from penstock.ports.accelerator import AccelerateIntake, NativeIntake
from penstock.ports.metrics import Metrics

_TYPES = (USER, ANONYMOUS, EMAIL, GROUP, CLAIMED_USER)

EVIDENCES_MAX = 10_000
PREFERENCES_MAX = 64
PREFERENCES_CHARS_MAX = 1_000


def is_short(said: Sequence[tuple[str, object]]) -> bool:
    """Return whether what an event says of consent is remembered: senders choose its names, and their length."""
    chars = sum(len(category) for category, _ in said)
    return len(said) <= PREFERENCES_MAX and chars <= PREFERENCES_CHARS_MAX


class Reading(NamedTuple):
    """How a request's body is read.

    Attributes:
        batch: An object with a list of events, not one event.
        kind: The type that the path says of its one event; None if the body does.
        limits: How much it may hold.
    """

    batch: bool
    kind: str | None
    limits: Limits

    def decode(self, body: bytes, source: str, only: Sequence[int] | None = None) -> Decoded:
        """Return the events of a body; of a batch only those at some places, if these are given.

        Raises:
            EventRejected: There is nothing to read in it, as `decode_single` and `decode_batch` say.
        """
        if self.batch:
            return decode_batch(body, self.limits, source=source, only=only)
        return decode_single(body, self.kind, self.limits, source=source)


class Taken(NamedTuple):
    """What the accelerator made of a body.

    Attributes:
        records: The bytes of a record for each event; None for the others.
        rest: Places of events that are left to Python.
        discarded: Places of events of which nothing is kept, and why.
        undeclared: Fields that nothing declares, by the event that metrics name.
        blocked: How many identifiers were left out.
    """

    records: list[bytes | None]
    rest: Sequence[int]
    discarded: Sequence[tuple[int, str]]
    undeclared: Sequence[tuple[str, int]]
    blocked: int

    def tally(self, metrics: Metrics) -> None:
        """Count what was left out of the records."""
        for name, count in self.undeclared:
            metrics.count("penstock_fields_undeclared_total", count, event=name)
        if self.blocked:
            metrics.count(
                "penstock_events_discarded_total", self.blocked, reason="blocked_identifier"
            )

    def joined(
        self, places: Sequence[int], records: Sequence[Record | bytes]
    ) -> list[Record | bytes]:
        """Return all records of the body in its order, given those that Python made and their places."""
        by_place: list[Record | bytes | None] = [*self.records]
        for place, record in zip(places, records, strict=True):
            by_place[place] = record
        return [record for record in by_place if record is not None]


class FastIntake:
    """The native intake of one set of definitions.

    Args:
        native: The accelerator's part.
    """

    def __init__(self, native: NativeIntake) -> None:
        self._native = native

    def judge(
        self, source: str, said: Sequence[tuple[str, bool]], evidence: Evidence, use: str, *, gpc: bool
    ) -> None:  # fmt: skip
        """Remember what is done with events that say this of consent.

        Args:
            source: The source's name.
            said: By category.
            evidence: To stamp.
            use: `collect`, `bare`, or the reason of a discard.
            gpc: Their requests carry `Sec-GPC: 1`.
        """
        self._native.judge(source, gpc, list(said), msgspec.msgpack.encode(evidence), use)

    def take(
        self, body: bytes, reading: Reading, source: tuple[str, int, bool, bool], received_at_ms: int,
        *, gpc: bool,
    ) -> Taken | None:  # fmt: skip
        """Return what it made of a body; None if Python is to read all of it.

        Args:
            body: As it was sent, in plain.
            reading: How it is read.
            source: Its name, rank, whether it is verified, and whether it has keys of identity tokens.
            received_at_ms: When it was received.
            gpc: The request carried `Sec-GPC: 1`.
        """
        limits = reading.limits
        if len(body) > (limits.batch_bytes_max if reading.batch else limits.event_bytes_max):
            return None
        taken = self._native.take(
            body, reading.kind, reading.batch, (limits.event_bytes_max, limits.batch_events_max),
            source, gpc, received_at_ms,
        )  # fmt: skip
        return None if taken is None else Taken(*taken)


def fast_intake(
    accelerate: AccelerateIntake | None, *, catalog: Catalog, identity: IdentityRules, protector: Protector,
    identifier_key: bytes, tenant: str,
) -> FastIntake | None:  # fmt: skip
    """Return the native intake of some definitions; None if it is not there, or does not read them.

    Args:
        accelerate: Makes it, if it is installed and wanted.
        catalog: Declared events and traits.
        identity: Identifier rules.
        protector: Has the key of pseudonyms.
        identifier_key: The key of leaf ids.
        tenant: Part of every leaf id.
    """
    if accelerate is None:
        return None
    guards = {name: field.privacy.protection for name, field in catalog.traits.items()}
    definitions = catalog_parts(catalog) | {
        "tenant": tenant,
        "format": RECORD_FORMAT,
        "kind": int(Kind.PRIMARY),
        "permission_events": sorted(PERMISSION_EVENTS),
        "identity_token": vouch.MEMBER,
        "identity": {
            "blocked": sorted(identity.blocked),
            "priorities": {id_type: identity.rule(id_type).priority for id_type in _TYPES},
            "guards": {id_type: guards.get(id_type, "plain") for id_type in _TYPES},
        },
    }
    try:
        return FastIntake(
            accelerate(msgspec.msgpack.encode(definitions), identifier_key, protector.key)
        )
    except (ValueError, OverflowError):
        return None  # definitions that it does not read
