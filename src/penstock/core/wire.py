"""The Confluent wire format: a zero byte, the id of a schema, and what was written by it."""

from __future__ import annotations

from typing import Final, NamedTuple

from penstock.core.errors import EventRejected

MAGIC: Final = 0
HEAD_BYTES: Final = 5
INDEXES_MAX: Final = 64
"""How deep a message may be nested in others."""
_VARINT_BYTES_MAX: Final = 5


class Framed(NamedTuple):
    """The id of a schema, and the bytes that were written by it."""

    schema_id: int
    payload: bytes


def unframe(value: bytes) -> Framed:
    """Return what the head of a record says.

    Raises:
        EventRejected: It is not in the wire format (E330).
    """
    if len(value) < HEAD_BYTES or value[0] != MAGIC:
        raise EventRejected("E330", "a record is not in the Confluent wire format", where="$",
                            fix="send it with a serializer of the registry, or set the `format` that it has")  # fmt: skip
    return Framed(int.from_bytes(value[1:HEAD_BYTES], "big"), value[HEAD_BYTES:])


def frame(schema_id: int, payload: bytes) -> bytes:
    """Return a record in the wire format.

    Laws:
        unframe(frame(i, p)) == (i, p)
    """
    return bytes((MAGIC, *schema_id.to_bytes(4, "big"))) + payload


def split_indexes(payload: bytes) -> tuple[tuple[int, ...], bytes]:
    """Return which message of a Protobuf schema was written, and its bytes.

    The indexes lead from the schema's messages to one nested in them: a count and as many numbers,
    zigzag varints all; a lone zero stands for the first message, which is what nearly all records are.

    Raises:
        EventRejected: They do not read back (E330).
    """
    count, at = _zigzag(payload, 0)
    if count == 0:
        return (0,), payload[at:]
    if not 0 < count <= INDEXES_MAX:
        raise _broken()
    indexes: list[int] = []
    for _ in range(count):
        index, at = _zigzag(payload, at)
        if index < 0:
            raise _broken()
        indexes.append(index)
    return tuple(indexes), payload[at:]


def join_indexes(indexes: tuple[int, ...], message: bytes) -> bytes:
    """Return a message with its indexes before it.

    Laws:
        split_indexes(join_indexes(i, m)) == (i, m)
    """
    if indexes == (0,):
        return b"\x00" + message
    return b"".join(_varint(2 * number) for number in (len(indexes), *indexes)) + message


def _zigzag(payload: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_VARINT_BYTES_MAX):
        if at + place >= len(payload):
            break
        byte = payload[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at + place + 1
    raise _broken()


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _broken() -> EventRejected:
    return EventRejected("E330", "a record does not say which message of its schema it is", where="$",
                         fix="send it with a Protobuf serializer of the registry")  # fmt: skip
