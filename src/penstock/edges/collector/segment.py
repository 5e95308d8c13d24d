"""Segment's table: its paths, long and short, and the settings its browser SDK loads."""

from __future__ import annotations

from functools import partial
from typing import Any

from penstock.core.event import Limits, decode_batch, decode_single
from penstock.edges.collector.door import Row

LIMITS = Limits()

_SHORT = {"identify": "i", "track": "t", "page": "p", "screen": "s", "group": "g", "alias": "a"}


def _single(path: str, kind: str) -> Row:
    return Row(path, partial(decode_single, kind=kind, limits=LIMITS), LIMITS.event_bytes_max,
               batch=False, summary=f"Take one `{kind}`")  # fmt: skip


def _batch(path: str, summary: str, *, imports: bool = False) -> Row:
    return Row(path, partial(decode_batch, limits=LIMITS), LIMITS.batch_bytes_max,
               batch=True, summary=summary, imports=imports)  # fmt: skip


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
