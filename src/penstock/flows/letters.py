"""Dead letters go in again: each with its original message id, counted once however often it is tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from penstock.core.errors import DataCorrupt, EventRejected
from penstock.core.event import RUDDERSTACK, decode_single
from penstock.core.ids import LeafId
from penstock.core.leaf import Leaf
from penstock.core.record import DeadLetter, decode_record
from penstock.flows.collect import Collector, Source
from penstock.flows.process import QUARANTINE_CODE, place_of
from penstock.ports.log import Log

REPLAY_JOB = "dead-letters"
"""The job whose id memory keeps a replayed letter from counting twice."""

FindLeaf = Callable[[LeafId], Leaf | None]


class Replayed(NamedTuple):
    """What became of letters: accepted now, refused again by code, and those of quarantined identifiers."""

    accepted: int
    refused: dict[str, int]
    quarantined: int
    """Left as they are: the identifier is quarantined still."""
    counted: int = 0
    """Settled: by the definitions that serve now the identifier is not, and the log's event counts."""


class _Beside(msgspec.Struct):
    """What the edge noted in a letter's body beside the event; see `penstock.core.event.kept_body`."""

    gpc: Any = msgspec.field(default=None, name="_gpc")


_beside_decoder = msgspec.json.Decoder(_Beside)


async def replay_letters(
    collector: Collector, log: Log, letters: Sequence[DeadLetter], sources: Mapping[str, Source], *,
    find_leaf: FindLeaf,
) -> Replayed:  # fmt: skip
    """Send letters through the collector again, by today's definitions.

    A letter of a quarantined identifier is never sent: its event is in the log, where definitions
    with a higher limit find it, and a second record would count twice by them. It is settled once
    the leaf that serves has folded it.

    Args:
        collector: Takes them in.
        log: Notes which were replayed.
        letters: Pending letters.
        sources: By name; a letter of a source that is gone is refused again.
        find_leaf: The leaf as it serves now.

    Raises:
        Unavailable: The log did not take them; replaying again is safe.
    """
    accepted = 0
    refused: dict[str, int] = {}
    aside = [letter for letter in letters if letter.reason == QUARANTINE_CODE]
    counted = _counted(aside, find_leaf)
    if counted:
        log.mark_replayed(counted, collector.clock.now_ms())
    for letter in letters:
        if letter.reason == QUARANTINE_CODE:
            continue
        code = await _replay(collector, letter, sources.get(letter.source))
        if code:
            refused[code] = refused.get(code, 0) + 1
        else:
            accepted += 1
            log.mark_replayed([letter.letter_id], collector.clock.now_ms())
    return Replayed(accepted, refused, len(aside) - len(counted), len(counted))


def _counted(letters: Sequence[DeadLetter], find_leaf: FindLeaf) -> list[str]:
    """Return the ids of the letters whose record the leaf that serves has folded, unquarantined."""
    leaves: dict[LeafId, Leaf | None] = {}
    counted: list[str] = []
    for letter in letters:
        place = place_of(letter.letter_id)
        if place is None:
            continue
        try:
            leaf_id = LeafId(decode_record(letter.body).leaf)
        except DataCorrupt:
            continue  # Whose it is cannot be read: it stays, for a person to see.
        if leaf_id not in leaves:
            leaves[leaf_id] = find_leaf(leaf_id)
        leaf = leaves[leaf_id]
        if leaf is not None and not leaf.quarantined and place <= leaf.version:
            counted.append(letter.letter_id)
    return counted


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
