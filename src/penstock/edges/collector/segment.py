"""Segment's table: its paths, long and short, and the settings its browser SDK loads."""

from __future__ import annotations

from typing import Any

from penstock.core.event import SEGMENT, Decoded, decode_batch, decode_single
from penstock.edges.collector.door import Row

_SHORT = {"identify": "i", "track": "t", "page": "p", "screen": "s", "group": "g", "alias": "a"}


def _single(path: str, kind: str) -> Row:
    def decode(body: bytes, source: str) -> Decoded:
        return decode_single(body, kind, SEGMENT, source=source)

    return Row(path, decode, SEGMENT.event_bytes_max, batch=False, summary=f"Take one `{kind}`")


def _decode_batch(body: bytes, source: str) -> Decoded:
    return decode_batch(body, SEGMENT, source=source)


def _batch(path: str, summary: str, *, imports: bool = False) -> Row:
    limit = SEGMENT.batch_bytes_max
    return Row(path, _decode_batch, limit, batch=True, summary=summary, imports=imports)


SEGMENT_ROWS = (
    *(_single(f"/v1/{kind}", kind) for kind in _SHORT),
    *(_single(f"/v1/{letter}", kind) for kind, letter in _SHORT.items()),
    _batch("/v1/batch", "Take a batch of events"),
    _batch("/v1/b", "Take a batch of events from a browser"),
    _batch("/v1/import", "Take a batch of past events, as a job", imports=True),
)
"""Segment's rows of the collector's table."""


def settings_body(key: str, base_url: str) -> dict[str, Any]:
    """Return the settings that Segment's browser SDK must load before it starts.

    Exactly one integration: a second would make it load scripts we do not serve.

    Args:
        key: The write key.
        base_url: How browsers reach this server.
    """
    scheme, _, rest = base_url.rstrip("/").rpartition("://")
    return {
        "integrations": {
            "Segment.io": {
                "apiKey": key,
                "apiHost": f"{rest}/v1",
                "protocol": scheme or "https",
            }
        },
        "plan": {"track": {"__default": {"enabled": True, "integrations": {}}}},
        "metrics": {"sampleRate": 0},
    }
