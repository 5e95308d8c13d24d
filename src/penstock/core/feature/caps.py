"""Caps that do not depend on order: of many keys, keep the n whose keyed hash is smallest.

A capped map holds exact values for the keys it keeps: a key that is among the n smallest at the
end was among them at every earlier moment, so nothing of it was ever thrown away. Merging two
capped maps and capping again gives what capping the whole would have given.

A map that dropped a key holds `TRUNCATED` beside its keys; its value is the greatest hash kept, a
bound that lets most later keys be refused without a look at the rest.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, TypeAlias

Key: TypeAlias = str | int | bool
"""What one can group by and count the distinct values of."""

TRUNCATED: Final = None
"""The key of the mark in a capped map; it is never a group."""

CapMap: TypeAlias = dict[Any, Any]
"""key -> value, and `TRUNCATED` -> the greatest hash kept if a key was dropped."""

_PERSON: Final = b"penstock-caps-1"


@lru_cache(maxsize=1 << 16, typed=True)
def rank(key: Key) -> int:
    """Return a key's place in the order of caps: a 64-bit hash under a constant of the format."""
    text = f"{type(key).__name__}:{key}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8, person=_PERSON).digest(), "big")


def admits(kept: CapMap, key: Key, cap: int) -> bool:
    """Return whether a key that is not in a map may enter, and make room if it may."""
    if len(kept) < cap:
        return True
    bound = kept.get(TRUNCATED)
    if bound is None:
        bound = kept[TRUNCATED] = max(map(rank, kept))
    if rank(key) > bound:
        return False
    ranks = {rank(k): k for k in kept if k is not TRUNCATED}
    del kept[ranks.pop(bound)]
    kept[TRUNCATED] = max(rank(key), *ranks) if ranks else rank(key)
    return True


def merged(many: Iterable[CapMap], join: Callable[[Any, Any], Any], cap: int | None) -> CapMap:
    """Return the union of capped maps as a new map, capped again; None: not capped again.

    Args:
        many: Maps; they are left as they are.
        join: Joins the values of a key that several maps hold, or copies one if the other is None.
        cap: How many keys to keep.
    """
    union: CapMap = {}
    truncated = False
    for one in many:
        for key, value in one.items():
            if key is TRUNCATED:
                truncated = True
            else:
                union[key] = join(union.get(key), value)
    if cap is not None and len(union) > cap:
        truncated = True
        union = {key: union[key] for key in sorted(union, key=rank)[:cap]}
    if truncated:
        union[TRUNCATED] = max(map(rank, union), default=0)
    return union


def encoded(kept: CapMap, encode: Callable[[Any], Any] | None) -> list[Any]:
    """Return a capped map as `[truncated, key, value, …]`, keys ascending; None: values as they are."""
    truncated = TRUNCATED in kept
    flat: list[Any] = [1 if truncated else 0]
    if encode is None and len(kept) == 1 and not truncated:
        for pair in kept.items():  # the most frequent case
            flat += pair
        return flat
    for key in sorted(key for key in kept if key is not TRUNCATED) if truncated else sorted(kept):
        flat += (key, encode(kept[key]) if encode else kept[key])
    return flat


def decoded(raw: list[Any], decode: Callable[[Any], Any]) -> CapMap:
    """Return the capped map of its encoding."""
    kept: CapMap = {raw[i]: decode(raw[i + 1]) for i in range(1, len(raw), 2)}
    if raw[0]:
        kept[TRUNCATED] = max(map(rank, kept), default=0)
    return kept
