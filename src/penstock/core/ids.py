"""Typed ids: leaf ids, event ids, the partitioner, and the hash that draws every lot."""

import hmac
from hashlib import blake2b
from typing import NewType

LeafId = NewType("LeafId", bytes)
"""16 bytes: a keyed hash of (tenant, identifier type, normalised value). Never reversed."""

LEAF_ID_BYTES = 16


def leaf_id(key: bytes, tenant: str, id_type: str, value: str) -> LeafId:
    """Return the leaf id of an identifier: HMAC-SHA256 under the identifier key, cut to 16 bytes.

    Args:
        key: The identifier key, 32 bytes, made at `init`; it never changes.
        tenant: The tenant's id.
        id_type: The identifier's type, such as `user_id`.
        value: The identifier, already normalised.
    """
    message = b"\x00".join((tenant.encode(), id_type.encode(), value.encode()))
    return LeafId(hmac.digest(key, message, "sha256")[:LEAF_ID_BYTES])


def event_id(leaf: bytes, message_id: str) -> int:
    """Return the 64-bit identity of an event: (leaf, messageId) as a keyed hash.

    The leaf id is itself secret, so it is the key. Per leaf the collision risk is n²/2⁶⁵.
    """
    digest = blake2b(message_id.encode(), digest_size=8, key=leaf).digest()
    return int.from_bytes(digest, "big")


def partition_of(leaf: bytes, partitions: int) -> int:
    """Return the partition of a leaf: its first 8 bytes, big-endian, modulo the partition count.

    A leaf id is already a uniform keyed hash, so nothing is hashed again. Pinned by
    `tests/golden/partitioner.json`: every log adapter and every runtime uses this one function.
    """
    return int.from_bytes(leaf[:8], "big") % partitions


def derived_message_id(message_id: str, part: str) -> str:
    """Return the message id of a record derived from another, such as a link of a primary."""
    return f"{message_id}#{part}"


def lot(*parts: str | bytes) -> float:
    """Draw a number in [0, 1) from a hash of the parts: the same parts, the same lot, for ever."""
    digest = blake2b(digest_size=8)
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(4, "big"))
        digest.update(raw)
    return (int.from_bytes(digest.digest(), "big") >> 11) / (1 << 53)


def as_hex(leaf: bytes) -> str:
    """Return the first 8 bytes of a leaf id as hex, enough to tell leaves apart in a message."""
    return leaf[:8].hex()
