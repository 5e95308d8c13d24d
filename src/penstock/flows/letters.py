"""Dead letters go in again: each with its original message id, counted once however often it is tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from penstock.core.errors import EventRejected
from penstock.core.event import RUDDERSTACK, decode_single
from penstock.core.record import DeadLetter
from penstock.flows.collect import Collector, Source
from penstock.ports.log import Log

REPLAY_JOB = "dead-letters"
"""The job whose id memory keeps a replayed letter from counting twice."""

QUARANTINED = "E360"


class Replayed(NamedTuple):
    """What became of letters: accepted now, refused again by code, and left because of quarantine."""

    accepted: int
    refused: dict[str, int]
    quarantined: int


class _Beside(msgspec.Struct):
    """What the edge noted in a letter's body beside the event; see `penstock.core.event.kept_body`."""

    gpc: Any = msgspec.field(default=None, name="_gpc")


_beside_decoder = msgspec.json.Decoder(_Beside)


async def replay_letters(
    collector: Collector, log: Log, letters: Sequence[DeadLetter], sources: Mapping[str, Source]
) -> Replayed:
    """Send letters through the collector again, by today's definitions.

    Args:
        collector: Takes them in.
        log: Notes which were replayed.
        letters: Pending letters.
        sources: By name; a letter of a source that is gone is refused again.

    Raises:
        Unavailable: The log did not take them; replaying again is safe.
    """
    accepted = quarantined = 0
    refused: dict[str, int] = {}
    for letter in letters:
        if letter.reason == QUARANTINED:
            quarantined += 1
            continue
        code = await _replay(collector, letter, sources.get(letter.source))
        if code:
            refused[code] = refused.get(code, 0) + 1
        else:
            accepted += 1
            log.mark_replayed([letter.letter_id], collector.clock.now_ms())
    return Replayed(accepted, refused, quarantined)


async def _replay(collector: Collector, letter: DeadLetter, source: Source | None) -> str:
    """Return the code of the refusal, or nothing if the letter is in the log now."""
    if source is None:
        return "E364"
    try:
        decoded = decode_single(letter.body, None, RUDDERSTACK, source=letter.source)
    except EventRejected as error:
        return error.code
    if decoded.rejected:
        return decoded.rejected[0].error.code
    gpc = _beside_decoder.decode(letter.body).gpc is True
    intake = await collector.take(
        source,
        decoded,
        gpc=gpc,
        job=REPLAY_JOB,
        letters=False,
        received_at_ms=letter.received_at_ms,
    )
    return intake.refused[0].code if intake.refused else ""
