"""Jitsu's table: `/api/s/…` for browsers, `/api/s/s2s/…` for servers.

Its SDKs show their key as `X-Write-Key`, often as `keyId:secret`, and mask it in the body; `keys`
reads it. They ask `/v1/projects/…/settings`, `/v1/batch` and `/v1/b` as Segment's do.
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.core.event import SEGMENT
from penstock.edges.collector.door import Row, batch_row, single_row
from penstock.edges.collector.segment import LETTERS


def _rows() -> Iterator[Row]:
    for prefix in ("/api/s", "/api/s/s2s"):
        for kind, letter in LETTERS.items():
            yield single_row(f"{prefix}/{kind}", kind)
            yield single_row(f"{prefix}/{letter}", kind)
        for name in ("event", "e"):
            yield single_row(f"{prefix}/{name}", None)
        yield batch_row(f"{prefix}/batch", "Take a batch of events", SEGMENT)


JITSU_ROWS: tuple[Row, ...] = tuple(_rows())
"""Jitsu's rows of the collector's table."""
