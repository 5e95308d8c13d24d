"""The table of definitions versions: which one serves, which are built, kept or gone, and who pins what.

    building ──► ready ──► active ──► retiring ──► dropped
        │                     ▲           │
        └──► dropped          └───────────┘  rolled back, or applied again, while it is kept

Every function returns a new table; keeping one is the switch. Versions whose leaves depend on the
same things share an epoch, so a change of content costs no second set of leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from penstock.core.errors import DataCorrupt, DefinitionError

TABLE_FORMAT: Final = 1

KEPT_MAX: Final = 2
"""Retired sets of leaves that go on folding; one more, and the oldest is dropped."""

GONE_MAX: Final = 20
"""Dropped versions that the table remembers."""

PINS_MAX: Final = 10_000


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a project's definitions.

    Attributes:
        number: From 1, never used again.
        digest: A hash of its files and the settings they go by.
        fingerprint: What its leaves depend on: versions that share it share their leaves.
        epoch: Where the store keeps its leaves.
        state: `building`, `ready`, `active`, `retiring` or `dropped`.
        created_at_ms: When it was first applied.
        switched_at_ms: When it last began to serve, or ended; 0 if it never did.
        keep_until_ms: While `retiring`, until when it can be rolled back to; else 0.
    """

    number: int
    digest: str
    fingerprint: str
    epoch: int
    state: str
    created_at_ms: int
    switched_at_ms: int = 0
    keep_until_ms: int = 0


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """All versions of a project's definitions.

    Attributes:
        format: Of the stored table.
        versions: By number, ascending.
        pins: `<campaign>@<its version>` -> the number of the definitions it was published with.
        declined: The digest of what was rolled back; it is not applied again unasked.
        generation: The log's generation that `covered` counts in.
        covered: By partition, the offset up to which all that records ask for was durable at the
            last switch: folding up to there appends nothing, whichever version does it.
    """

    format: int = TABLE_FORMAT
    versions: tuple[Version, ...] = ()
    pins: dict[str, int] = {}
    declined: str = ""
    generation: int = 0
    covered: tuple[int, ...] = ()

    @property
    def active(self) -> Version | None:
        """The version that serves; None before the first."""
        return next((one for one in self.versions if one.state == "active"), None)

    @property
    def candidate(self) -> Version | None:
        """The version that is being built, or is ready to serve."""
        return next((one for one in self.versions if one.state in ("building", "ready")), None)

    @property
    def retiring(self) -> tuple[Version, ...]:
        """The versions that can be rolled back to, the latest that served first."""
        kept = [one for one in self.versions if one.state == "retiring"]
        return tuple(sorted(kept, key=lambda one: (-one.switched_at_ms, -one.number)))

    def version(self, number: int) -> Version:
        """Return a version.

        Raises:
            DefinitionError: There is none, or it is gone (E190).
        """
        found = next((one for one in self.versions if one.number == number), None)
        if found is None or found.state == "dropped":
            raise DefinitionError("E190", f"definitions {number} are not kept",
                                  fix="`penstock versions` lists those that are; apply the files you want")  # fmt: skip
        return found

    def epochs(self) -> frozenset[int]:
        """Return the epochs whose leaves are needed; every other is to be removed."""
        return frozenset(one.epoch for one in self.versions if one.state != "dropped")


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Table)


class _Head(msgspec.Struct):
    format: int


_head = msgspec.json.Decoder(_Head)


def encode_table(table: Table) -> bytes:
    """Return the bytes of a table: JSON that people can read."""
    return msgspec.json.format(_encoder.encode(table), indent=2)


def decode_table(raw: bytes) -> Table:
    """Return the table of its bytes.

    Raises:
        DataCorrupt: The bytes are no table (E740), or a newer version wrote them (E741).
    """
    try:
        newer = _head.decode(raw).format > TABLE_FORMAT
        if not newer:
            return _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise DataCorrupt("E740", "the table of definitions versions does not decode",
                          fix="restore it from a backup; or move it away, and `penstock up` begins a new one "
                          "with the project's files") from None  # fmt: skip
    raise DataCorrupt("E741", f"the table of definitions versions has a format newer than {TABLE_FORMAT}",
                      fix="upgrade Penstock to the version that wrote it")  # fmt: skip


# -- what happens to versions


def begin(
    table: Table, *, digest: str, fingerprint: str, now_ms: int, taken: Iterable[int] = ()
) -> tuple[Table, Version]:
    """Return the table with a candidate of these definitions, and the candidate.

    One that stands already is taken up again, whether a crash left it half built or it was rolled
    back and is still kept. A candidate of other definitions is given up.

    Args:
        table: The table.
        digest: Of the files.
        fingerprint: Of what their leaves depend on.
        now_ms: The present instant.
        taken: Epochs that the store holds anything of.
    """
    standing = table.candidate
    if standing is not None and (standing.digest, standing.fingerprint) == (digest, fingerprint):
        return table, standing
    if standing is not None:
        table = _put(table, _gone(standing))
    for kept in table.retiring:
        if (kept.digest, kept.fingerprint) == (digest, fingerprint):
            return table, kept
    # Leaves that are folded already, by the active version or one that is kept, are used again.
    shared = [one for one in table.versions
              if one.state in ("active", "retiring") and one.fingerprint == fingerprint]  # fmt: skip
    if shared:
        epoch, state = shared[0].epoch, "ready"
    else:
        epoch = max((0, *taken, *(one.epoch for one in table.versions))) + 1
        state = "building"
    number = max((one.number for one in table.versions), default=0) + 1
    version = Version(number=number, digest=digest, fingerprint=fingerprint, epoch=epoch, state=state,
                      created_at_ms=now_ms)  # fmt: skip
    return _put(table, version), version


def built(table: Table, number: int) -> Table:
    """Return the table with a candidate whose leaves have caught up."""
    version = table.version(number)
    assert version.state in ("building", "ready", "retiring"), "only a candidate is built"
    return _put(table, _with(version, state="ready")) if version.state == "building" else table


def switch(
    table: Table, number: int, *, now_ms: int, keep_ms: int, generation: int = 0,
    covered: Sequence[int] = (), republish: bool = False,
) -> Table:  # fmt: skip
    """Return the table in which a version serves, and the one before is kept for a while.

    Args:
        table: The table.
        number: A version that is `ready`, or `retiring` and kept.
        now_ms: The present instant.
        keep_ms: How long the one before can be rolled back to; 0 drops it at once.
        generation: The log's generation.
        covered: See `Table.covered`.
        republish: Whether published campaigns go over to the new version.
    """
    version, before = table.version(number), table.active
    assert version.state != "active", "it serves already"
    assert version.state in ("ready", "retiring"), "only a version that has caught up serves"
    table = _put(table, _with(version, state="active", switched_at_ms=now_ms, keep_until_ms=0))
    if before is not None:
        kept = _with(
            before, state="retiring", switched_at_ms=now_ms, keep_until_ms=now_ms + keep_ms
        )
        table = _put(table, kept if keep_ms else _gone(kept))
    pins = {} if republish else table.pins
    table = msgspec.structs.replace(
        table, pins=pins, generation=generation, covered=tuple(covered),
        declined="" if version.digest == table.declined else table.declined,
    )  # fmt: skip
    return _bounded(table)


def roll_back(
    table: Table, *, now_ms: int, keep_ms: int, generation: int = 0, covered: Sequence[int] = (),
    number: int = 0,
) -> Table:  # fmt: skip
    """Return the table in which an earlier version serves again.

    What was published with the version rolled back from is published anew, with what serves then.

    Args:
        table: The table.
        now_ms: The present instant.
        keep_ms: How long the version rolled back from is kept.
        generation: The log's generation.
        covered: See `Table.covered`.
        number: Which; 0 for the one that served before.

    Raises:
        DefinitionError: There is none to roll back to (E191), or it is gone (E190).
    """
    target, before = rollback_target(table, number), table.active
    assert before is not None, "there is a version to roll back from"
    table = switch(table, target.number, now_ms=now_ms, keep_ms=keep_ms, generation=generation,
                   covered=covered)  # fmt: skip
    pins = {edition: pinned for edition, pinned in table.pins.items() if pinned != before.number}
    return msgspec.structs.replace(table, pins=pins, declined=before.digest)


def rollback_target(table: Table, number: int = 0) -> Version:
    """Return the version that a roll back goes to; errors as `roll_back`."""
    if number:
        found = table.version(number)
        if found.state == "retiring":
            return found
    elif table.retiring:
        return table.retiring[0]
    raise DefinitionError("E191", "there are no earlier definitions to roll back to",
                          fix="`penstock versions` lists what is kept; put the old files back and run "
                          "`penstock apply`, which builds them anew")  # fmt: skip


def expire(table: Table, now_ms: int) -> Table:
    """Return the table without the versions whose time to be rolled back to is over."""
    for version in table.retiring:
        if version.keep_until_ms <= now_ms:
            table = _put(table, _gone(version))
    return _bounded(table)


def give_up(table: Table, number: int = 0) -> Table:
    """Return the table without a version that does not serve; 0 for its candidate."""
    standing = table.version(number) if number else table.candidate
    assert standing is None or standing.state != "active", "what serves is not given up"
    return table if standing is None else _bounded(_put(table, _gone(standing)))


def rebuilt(
    table: Table, number: int, epoch: int, fingerprint: str, *, generation: int = 0,
    covered: Sequence[int] = (),
) -> Table:  # fmt: skip
    """Return the table in which a version has its leaves elsewhere: they are made anew from the log.

    Versions that shared them go with it. Another version of Penstock may need the same definitions'
    leaves in another form, so their fingerprint is given.

    Args:
        table: The table.
        number: The version.
        epoch: Where its leaves are from now on.
        fingerprint: What they depend on.
        generation: The log's generation that `covered` counts in.
        covered: By partition, what the leaves before covered; empty to leave what the table says.
    """
    if covered:
        table = msgspec.structs.replace(table, generation=generation, covered=tuple(covered))
    before = table.version(number).epoch
    for version in table.versions:
        if version.epoch == before and version.state != "dropped":
            table = _put(table, _with(version, epoch=epoch, fingerprint=fingerprint))
    return table


def first(table: Table, *, digest: str, fingerprint: str, epoch: int, now_ms: int) -> Table:
    """Return the table in which definitions serve that were not built beside others."""
    number = max((one.number for one in table.versions), default=0) + 1
    version = Version(
        number=number, digest=digest, fingerprint=fingerprint, epoch=epoch, state="active",
        created_at_ms=now_ms, switched_at_ms=now_ms,
    )  # fmt: skip
    before = table.active
    return _put(table if before is None else _put(table, _gone(before)), version)


# -- pins


def edition(campaign: str, version: int) -> str:
    """Return the name under which a campaign's version is pinned."""
    return f"{campaign}@{version}"


def pin(table: Table, campaign: str, version: int) -> Table:
    """Return the table in which a campaign is published with the active definitions.

    A campaign that is published already stays as it is, and so does one whose definitions are gone.
    """
    active = table.active
    name = edition(campaign, version)
    if active is None or name in table.pins or len(table.pins) >= PINS_MAX:
        return table
    return msgspec.structs.replace(table, pins={**table.pins, name: active.number})


def publish_again(table: Table, campaign: str, version: int) -> Table:
    """Return the table in which a campaign is pinned to the active definitions, whatever it was."""
    pins = {name: to for name, to in table.pins.items() if name != edition(campaign, version)}
    return pin(msgspec.structs.replace(table, pins=pins), campaign, version)


def pinned(table: Table, campaign: str, version: int) -> Version | None:
    """Return the version that a campaign was published with, `dropped` or not; None if it was not."""
    number = table.pins.get(edition(campaign, version))
    return next((one for one in table.versions if one.number == number), None)


# -- parts


def _with(version: Version, **changes: int | str) -> Version:
    return msgspec.structs.replace(version, **changes)


def _gone(version: Version) -> Version:
    return _with(version, state="dropped", keep_until_ms=0)


def _put(table: Table, version: Version) -> Table:
    others = [one for one in table.versions if one.number != version.number]
    versions = sorted([*others, version], key=lambda one: one.number)
    return msgspec.structs.replace(table, versions=tuple(versions))


def _bounded(table: Table) -> Table:
    """Drop the oldest sets of leaves beyond `KEPT_MAX`, and forget what was dropped long ago."""
    active = table.active
    serving = frozenset[int]() if active is None else frozenset({active.epoch})
    kept: list[int] = []
    for version in table.retiring:
        if version.epoch not in serving and version.epoch not in kept:
            if len(kept) == KEPT_MAX:
                table = _put(table, _gone(version))
                continue
            kept.append(version.epoch)
    gone = [one for one in table.versions if one.state == "dropped"]
    pinned_to = set(table.pins.values())
    forgotten = {one.number for one in gone[:-GONE_MAX] if one.number not in pinned_to}
    return msgspec.structs.replace(
        table, versions=tuple(one for one in table.versions if one.number not in forgotten)
    )
