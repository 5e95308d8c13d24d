"""What is wrong with a JSON text, and where, without a word of what it says.

The fast decoder says only that a text is wrong. What follows here runs when it does, or when a
cheap look at the bytes finds a backslash, deep nesting or a key too many.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, cast

import msgspec

from penstock.core.errors import EventRejected
from penstock.core.literal import Literal

SPEC_NAMES: Final = frozenset(
    (
        "batch", "type", "event", "name", "category", "messageId", "userId", "anonymousId", "groupId",
        "previousId", "properties", "traits", "context", "timestamp", "originalTimestamp", "sentAt",
        "integrations", "writeKey", "externalIds", "campaign", "page", "consent", "products",
    )
)  # fmt: skip
"""Names that a path may show; any other key may be a value in disguise, and is shown by its place."""

SPLIT_DEPTH_MAX: Final = 10_000
SPLIT_TOKENS_MAX: Final = 1_000_000

_PATH = re.compile(r" - at `([$A-Za-z0-9.\[\]]+)`$")
_BYTE = re.compile(r"\(byte (\d+)\)$")
_NOT_BRACKETS: Final = bytes(sorted(set(range(256)) - set(b"{}[]")))
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["{}\[\],:]', re.DOTALL)

_loose_decoder = msgspec.json.Decoder(float_hook=Literal)
_encoder = msgspec.json.Encoder(enc_hook=str)
_plain_decoder = msgspec.json.Decoder()
_plain_encoder = msgspec.json.Encoder()


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as the list of its pairs, so that a key that is there twice can be seen."""


def decode_loosely(raw: bytes) -> Any:
    """Return any JSON value, decimals as `Literal`.

    Raises:
        EventRejected: It is not JSON, or nothing can hold it (E300, E304, E308, E314, E323).
    """
    try:
        return _loose_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise syntax_fault(raw, error) from None


def check_text(raw: bytes, *, depth_max: int, unique_keys: bool) -> None:
    """Raise if an event that decodes holds what nothing downstream may meet.

    Args:
        raw: JSON that decodes.
        depth_max: How deep objects and lists may nest.
        unique_keys: Whether a key may be only once in an object.

    Raises:
        EventRejected: It nests too deep (E304), holds a NUL (E307), a key twice (E309), or a text that
            is not UTF-8 (E314).
    """
    if raw.count(b"{") + raw.count(b"[") > depth_max and _deeper_than(raw, depth_max):
        raise _too_deep(depth_max)
    escaped = b"\\" in raw
    if escaped and b"\\u0000" in raw:
        for place, text in _texts(decode_loosely(raw)):
            if "\x00" in text:
                raise EventRejected("E307", "a text holds the character NUL",
                                    fix="send the text without it", where=place)  # fmt: skip
    if unique_keys and _may_repeat_a_key(raw, escaped):
        _check_keys(raw)


def syntax_fault(raw: bytes, error: Exception) -> EventRejected:
    """Return what is wrong with a text that the decoder refused; the caller raises it `from None`.

    The decoder's own error is not chained: it can hold the text.
    """
    if isinstance(error, RecursionError):
        return _too_deep(None)
    if isinstance(error, UnicodeDecodeError):
        return EventRejected("E314", "a text is not UTF-8",
                             fix="encode the request as UTF-8", where=f"byte {error.start}")  # fmt: skip
    if isinstance(error, msgspec.ValidationError):
        return EventRejected("E323", "a number is too long for any reader",
                             fix="send it as a text", where=shown_path(error))  # fmt: skip
    if b"\\u" in raw and (place := _find_surrogate(raw)) is not None:
        return EventRejected("E308", "a text holds half of a surrogate pair, which is no character",
                             fix="cut texts between characters, not inside an emoji", where=place)  # fmt: skip
    found = _BYTE.search(str(error))
    return EventRejected("E300", "the request is not well-formed JSON",
                         fix="check it with a JSON linter; NaN, Infinity and comments are not JSON",
                         where=f"byte {found[1]}" if found else f"byte {len(raw)}, the end")  # fmt: skip


def shown_path(error: msgspec.ValidationError) -> str:
    """Return the JSON path of a decoder's error; the rest of its message may quote a value."""
    found = _PATH.search(str(error))
    return found[1] if found else "$"


def split_batch(body: bytes, fault: EventRejected) -> tuple[bytes, list[bytes]]:
    """Return a batch without its events, and the bytes of each event, decoding none of them.

    Args:
        body: A batch that does not decode as a whole.
        fault: Raised if even its brackets do not match.

    Raises:
        EventRejected: `fault`; or it nests beyond any use (E304), or has `batch` twice (E309).
    """
    items: list[bytes] = []
    closers: list[bytes] = []
    key, start, opened, closed = b"", -1, -1, -1
    for count, token in enumerate(_TOKEN.finditer(body)):
        mark = token[0]
        if count > SPLIT_TOKENS_MAX or mark == b'"' or (not closers and mark != b"{"):
            raise fault
        if mark in (b"{", b"["):
            if len(closers) == 1 and mark == b"[" and key == b'"batch"':
                if opened >= 0:
                    raise _twice("$.batch")
                opened = start = token.end()
            closers.append(b"}" if mark == b"{" else b"]")
            if len(closers) > SPLIT_DEPTH_MAX:
                raise _too_deep(None)
        elif mark in (b"}", b"]"):
            if closers.pop() != mark:
                raise fault
            if len(closers) == 1 and start >= 0:
                items.append(body[start : token.start()].strip())
                closed, start = token.start(), -1
            if not closers and body[token.end() :].strip():
                raise fault
        elif len(closers) == 2 and start >= 0 and mark == b",":
            items.append(body[start : token.start()].strip())
            start = token.end()
        elif len(closers) == 1 and mark[:1] == b'"':
            key = mark
        elif len(closers) == 1 and mark == b",":
            key = b""
    if closers or closed < 0:
        raise fault
    return body[:opened] + body[closed:], [] if items == [b""] else items


def _deeper_than(raw: bytes, depth_max: int) -> bool:
    """Say whether brackets nest deeper, by taking off the innermost pairs, one layer at a time."""
    brackets = raw.translate(None, _NOT_BRACKETS)
    for _ in range(depth_max):
        if not brackets:
            return False
        brackets = brackets.replace(b"{}", b"").replace(b"[]", b"")
    # What is left is deep, or stands in texts, where brackets need not match.
    return bool(brackets) and _depth(decode_loosely(raw)) > depth_max


def _depth(value: Any) -> int:
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        one, depth = waiting.pop()
        parts = _inside(one)
        if parts is not None:
            deepest = max(deepest, depth)
            waiting.extend((part, depth + 1) for _, part in parts)
    return deepest


def _may_repeat_a_key(raw: bytes, escaped: bool) -> bool:
    """Say whether a key may be twice in an object: every key has a colon, and one was lost.

    Colons inside texts are as many before and after, unless one was written as an escape.
    """
    if escaped and b"\\u003" in raw:
        return True
    # The fast decoder skips fields it does not know, so this may find what it did not.
    try:
        # A number has no colon, so it may as well be a float here: no call for each decimal.
        kept = _plain_encoder.encode(_plain_decoder.decode(raw))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        kept = _encoder.encode(decode_loosely(raw))  # 1e999 is no float, but it is a number
    return kept.count(b":") != raw.count(b":")


def _check_keys(raw: bytes) -> None:
    try:
        pairs = _parse_pairs(raw)
    except UnicodeDecodeError as error:
        # The fast decoder reads no text of a member that it does not know.
        raise syntax_fault(raw, error) from None
    for place, value in _parts(pairs):
        if isinstance(value, _Pairs):
            seen: set[str] = set()
            for index, (key, _) in enumerate(value):
                if key in seen:
                    raise _twice(_step(place, key, index))
                seen.add(key)


def _find_surrogate(raw: bytes) -> str | None:
    """Return the place of the first text with half a surrogate pair; None if the fault is another."""
    try:
        pairs = _parse_pairs(raw)
    except (ValueError, RecursionError):
        return None
    for place, text in _texts(pairs):
        if any("\ud800" <= char <= "\udfff" for char in text):
            return place
    return None


def _parse_pairs(raw: bytes) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(
        raw.decode(),
        object_pairs_hook=_Pairs,
        parse_constant=refuse,
        parse_float=str,
        parse_int=str,
    )


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every value inside a value with its place, outermost first."""
    waiting: list[tuple[str, Any]] = [("$", value)]
    while waiting:
        place, one = waiting.pop()
        yield place, one
        steps = [
            (f"{place}[{index}]" if key is None else _step(place, key, index), part)
            for index, (key, part) in enumerate(_inside(one) or ())
        ]
        waiting.extend(reversed(steps))


def _texts(value: Any) -> Iterator[tuple[str, str]]:
    """Yield every text and every key with its place."""
    for place, one in _parts(value):
        if isinstance(one, str):
            yield place, one
        for index, (key, _) in enumerate(_inside(one) or ()):
            if key is not None:
                yield _step(place, key, index), key


def _inside(value: Any) -> list[tuple[str | None, Any]] | None:
    """Return what an object or a list holds, with its keys; None for a plain value."""
    if isinstance(value, _Pairs):
        return list(value)
    if isinstance(value, dict):
        return list(cast("dict[str, Any]", value).items())
    if isinstance(value, list):
        return [(None, part) for part in cast("list[Any]", value)]
    return None


def _step(place: str, key: str, index: int) -> str:
    return f"{place}.{key}" if key in SPEC_NAMES else f"{place}.<key {index + 1}>"


def _too_deep(depth_max: int | None) -> EventRejected:
    levels = f"more than {depth_max} levels" if depth_max else "too many levels"
    return EventRejected("E304", f"objects and lists nest {levels} deep",
                         fix="send flat properties", where="$")  # fmt: skip


def _twice(place: str) -> EventRejected:
    return EventRejected("E309", "a key is there twice in one object",
                         fix="send each key once", where=place)  # fmt: skip
