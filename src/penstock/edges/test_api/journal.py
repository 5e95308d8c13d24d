"""What was not kept, and why: noted while it happens, for an SDK never hears of it again."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import msgspec

from penstock.core.codes import CODES
from penstock.core.errors import PenstockError
from penstock.core.event import Decoded
from penstock.edges.test_api.views import NotKept, RefusedRequest, RejectedEvent, RejectedView
from penstock.flows.collect import Intake

KEPT_MAX = 1_000
"""Of each kind the newest so many are told; all are counted."""

DISCARDS = {
    "consent_category_unknown": "None of the categories that the event speaks of is a purpose, or named in "
    "`consent.categories` of penstock.toml.",
    "consent_unknown": "Nothing says that this person permits any use of it: send `context.consent`, or give "
    "the source a `basis`.",
    "undeclared_event": "No declaration names this event: declare it in events.py, or set "
    "`project.undeclared` to keep or reject.",
}
"""Why nothing of an accepted event is kept, and what to do."""


class _Named(msgspec.Struct, rename="camel"):
    """What names an event, of whatever shape the rest is."""

    type: Any = None
    event: Any = None
    message_id: Any = None


_decode = msgspec.json.Decoder(_Named).decode


class Journal:
    """Notes refused events and requests in memory. Implements the collector's `Watch`; one event loop.

    Of an event only its name and message id are noted: what it says of a person is not needed to
    mend it.
    """

    def __init__(self) -> None:
        self.more = asyncio.Event()
        """Set, and another put in its place, when there is more in the log or here."""
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.count = 0
        self._events: deque[RejectedEvent] = deque(maxlen=KEPT_MAX)
        self._discarded: deque[NotKept] = deque(maxlen=KEPT_MAX)
        self._requests: deque[RefusedRequest] = deque(maxlen=KEPT_MAX)

    def took(self, source: str, decoded: Decoded, intake: Intake) -> None:
        """Note what a request's events came to; those that are kept are in the log."""
        self.count += len(intake.refused) + len(intake.discarded)
        for one in intake.refused:
            type_name, event, _ = _named(decoded, one.index)
            self._events.append(
                RejectedEvent(type_name, event, one.message_id, source, one.code, one.what, one.path,
                              CODES[one.code].fix)
            )  # fmt: skip
        for one in intake.discarded:
            self._discarded.append(
                NotKept(*_named(decoded, one.index), source, one.reason, DISCARDS[one.reason])
            )
        self._tell()

    def refused(self, route: str, error: PenstockError) -> None:
        """Note a request that was refused as a whole."""
        self.count += 1
        self._requests.append(RefusedRequest(route, error.code, error.what, error.where, error.fix))
        self._tell()

    def _tell(self) -> None:
        self.more.set()
        self.more = asyncio.Event()

    def view(self) -> RejectedView:
        """Return all that is noted."""
        return RejectedView(
            self.count, list(self._events), list(self._discarded), list(self._requests)
        )


def _named(decoded: Decoded, index: int) -> tuple[str, str, str]:
    """Return an event's type, name and message id, empty where it has none that can be read."""
    try:
        named = _decode(decoded.raw(index))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        named = _Named()
    texts = (named.type or decoded.type_name, named.event, named.message_id)
    type_name, event, message_id = (one if isinstance(one, str) else "" for one in texts)
    return type_name, event, message_id
