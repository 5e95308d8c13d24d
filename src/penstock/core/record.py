"""What the log holds: primary records, links and seals, and their bytes.

A record is made at the edge, once, and carried verbatim by every runtime after that. Its place in
the log and the instant it was logged are not inside it: they are stamped by the log at append and
come back beside the bytes.
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from penstock.core.errors import DataCorrupt

RECORD_FORMAT: Final = 1
"""The first element of every record; version n reads n-1."""


class Kind(IntEnum):
    """What a record is: which law counts it and how the step treats it."""

    PRIMARY = 1
    """An event on its primary leaf. The conservation law counts these."""
    LINK = 2
    """What a primary says about another leaf. It has a law of its own."""
    CUT = 3
    """An edge undone: the later of join and cut wins."""
    SEAL = 4
    """The end of a partition in this generation."""
    LOST = 5
    """Stands where a record was that damage took: it is in no leaf, and no law counts it."""


class Identifier(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An identifier that an event mentions: its type, its leaf, and its protected raw value."""

    id_type: str
    leaf: bytes
    value: str | None = None


class Edge(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """A reversible edge between two leaves, with provenance. Its identity is (a, b).

    `a` is the leaf whose record said it; for an unverified edge a read of `b` includes `a`, never
    the reverse. A record states an edge: `joined`, or a cut of it, at `at_ms`. A leaf holds a
    register of such statements, merged by `penstock.core.identity.edges`: a verified statement
    outranks every unverified one; of equal trust the later of join and cut wins, and a cut wins a
    tie; `at_ms`, `event_id` and `rule` are those of the earliest join.
    """

    a_type: str
    a: bytes
    b_type: str
    b: bytes
    at_ms: int
    event_id: int
    rule: str
    verified: bool
    joined: bool = True
    """False for a cut."""
    seen_ms: int = 0
    """In a register: the latest join. Zero in a statement."""
    cut_ms: int = 0
    """In a register: the latest cut, zero if there is none. Zero in a statement."""


class Evidence(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The consent evidence stamped at the edge, strongest source first.

    `source` is `gpc`, `context`, `basis` or `unknown`: the strongest that said anything. A purpose
    in neither tuple is unknown.
    """

    source: str
    granted: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    regime: str = ""
    origins: tuple[tuple[str, str], ...] = ()
    """(purpose, source) of each purpose that a weaker source decided, and of each that a lawful
    basis granted, as in `("measurement", "basis:contract")`."""


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One record of the log. The fields are in a fixed order; new ones are added at the end."""

    format: int
    kind: int
    tenant: str
    leaf: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    id_type: str
    event_id: int
    message_id: str
    type: str
    """`identify`, `track`, `page`, `screen`, `group` or `alias`; empty for links and seals."""
    name: str
    """The event's name for `track`; `type` itself otherwise."""
    occurred_at_ms: int
    received_at_ms: int
    source: str
    source_rank: int
    verified: bool
    """Sent under a server key."""
    evidence: Evidence
    identifiers: tuple[Identifier, ...] = ()
    """All identifiers of the event, the primary's first."""
    edges: tuple[Edge, ...] = ()
    """For a primary: edges that touch its leaf. For a link or a cut: exactly one."""
    properties: dict[str, Any] = {}
    traits: dict[str, Any] = {}
    job: str = ""
    """The import job whose id memory de-duplicates this record, if any."""
    bare: bool = False
    """Denied at the edge: only evidence is carried, and the step counts it as policy-dropped."""


class LogRecord(NamedTuple):
    """A record as it is read from the log."""

    offset: int
    logged_at_ms: int
    value: bytes


class Version(NamedTuple):
    """The (generation, offset) of the last record that a leaf has applied."""

    generation: int
    offset: int


NO_VERSION: Final = Version(0, -1)
"""The version of a leaf that does not exist yet."""


_POSITION_BITS: Final = 40
"""Of a position, for the offset."""


def position_of(version: Version) -> int:
    """Return a version as one number of the same order: in the first generation, its offset."""
    generation, offset = version
    return offset if generation <= 1 else ((generation - 1) << _POSITION_BITS) + offset


def version_at(position: int) -> Version:
    """Return the version that a position stands for."""
    if position < 0:
        return NO_VERSION
    return Version((position >> _POSITION_BITS) + 1, position & ((1 << _POSITION_BITS) - 1))


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """An event that could not be processed, kept with its reason and the path of the fault.

    `body` is the event, completed with what stood beside it in its request and without what the edge
    would not let into the log (`penstock.flows.minimise`); `reason` is an error code; `path` is a JSON
    path. Neither of the two ever holds a value of the event.
    """

    letter_id: str
    source: str
    received_at_ms: int
    reason: str
    path: str
    what: str
    message_id: str
    body: bytes
    replayed_at_ms: int = 0


class _Format(msgspec.Struct, array_like=True):
    format: int


_ARRAY_16 = 0xDC
"""How msgpack opens an array of 16 elements or more; formats and kinds are single bytes after it."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)
_format_decoder = msgspec.msgpack.Decoder(_Format)


def encode_record(record: Record) -> bytes:
    """Return the bytes of a record."""
    return _encoder.encode(record)


def lost_record() -> bytes:
    """Return the bytes of what stands in the place of a record that is lost."""
    return encode_record(
        Record(RECORD_FORMAT, Kind.LOST, "", bytes(16), "", 0, "", "", "", 0, 0, "", 0, False,
               Evidence("unknown"))
    )  # fmt: skip


def decode_record(value: bytes) -> Record:
    """Return the record of some bytes.

    Raises:
        DataCorrupt: The bytes are not a record (E701), or a newer version wrote them (E702).
    """
    try:
        record = _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        if format_of(value) > RECORD_FORMAT:
            raise _newer(format_of(value)) from error
        raise DataCorrupt("E701", "a record of the log does not decode",
                          fix="run `penstock doctor`") from error  # fmt: skip
    if record.format > RECORD_FORMAT:
        raise _newer(record.format)
    return record


def format_of(value: bytes) -> int:
    """Return the format that stored bytes begin with, whatever follows; 0 if they begin with none."""
    try:
        return _format_decoder.decode(value).format
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return 0


def _newer(number: int) -> DataCorrupt:
    return DataCorrupt("E702", f"a record has format {number}, newer than this version reads",
                       fix="upgrade Penstock")  # fmt: skip


def decode_records(values: Iterable[bytes]) -> list[Record]:
    """Return the records of some bytes: `decode_record` of each, without the cost of as many calls.

    Raises:
        DataCorrupt: Bytes among them are not a record of this format (E701, E702).
    """
    values = tuple(values)
    decode = _decoder.decode
    try:
        records = [decode(value) for value in values]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return [decode_record(value) for value in values]  # says what is wrong
    for record in records:
        if record.format > RECORD_FORMAT:
            return [decode_record(value) for value in values]
    return records


def kind_of(value: bytes) -> int:
    """Return the kind of a record of its bytes, without decoding it: the second element of its array."""
    head = 3 if value[0] == _ARRAY_16 else 1
    return value[head + 1]


def leaf_of(value: bytes) -> bytes:
    """Return the leaf of a record of its bytes, without decoding it: the fourth element of its array.

    Raises:
        DataCorrupt: The bytes are too short for a record (E701).
    """
    try:
        head = 3 if value[0] == _ARRAY_16 else 1
        size = value[head + 2]
        # The tenant is a short string, with its length in its own byte or in the one after it.
        start = head + 5 + ((size & 0x1F) if size & 0xE0 == 0xA0 else 1 + value[head + 3])
        leaf = value[start : start + 16]
    except IndexError:
        leaf = b""
    if len(leaf) != 16:
        raise DataCorrupt(
            "E701", "a record of the log does not decode", fix="run `penstock doctor`"
        )
    return leaf
