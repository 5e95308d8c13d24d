"""The test endpoints' routes: accepted, rejected, profiles, reset. This machine only, as the preview."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery

from penstock.edges.asgi import Answer, json_answer
from penstock.edges.loopback import this_machine_only
from penstock.edges.test_api.journal import Journal
from penstock.edges.test_api.views import (
    AcceptedView,
    ProfilesView,
    accepted_event,
    person_view,
)
from penstock.flows.recording import Recording
from penstock.flows.serve import Who

TIMEOUT_S_MAX = 60
TIMEOUT_S = 10


class TestApiParts(NamedTuple):
    """What the test endpoints call."""

    recording: Recording
    journal: Journal
    find_who: Callable[[Any], Who]


class _Asked(NamedTuple):
    """Whom a request is about."""

    user_id: str | None
    anonymous_id: str | None
    email: None = None
    email_token: None = None


def test_api_handlers(parts: TestApiParts) -> list[HTTPRouteHandler]:
    """Return the test endpoints; only `penstock up` on a loopback address mounts them."""
    shared = this_machine_only()
    recording, journal = parts.recording, parts.journal

    @get("/_test/accepted", **shared)
    async def accepted(
        count: FromQuery[int] = 0, timeout_s: FromQuery[float] = TIMEOUT_S
    ) -> Answer:
        seen: list[int] = []
        events = []

        async def enough() -> bool:
            nonlocal seen, events
            if (heads := recording.heads()) != seen:
                events = await asyncio.to_thread(recording.events)
                seen = heads
            return len(events) >= count

        await _until(enough, journal, timeout_s)
        return json_answer(200, AcceptedView(len(events), [accepted_event(one) for one in events]))

    @get("/_test/rejected", **shared)
    async def rejected(
        count: FromQuery[int] = 0, timeout_s: FromQuery[float] = TIMEOUT_S
    ) -> Answer:
        async def enough() -> bool:
            return journal.count >= count

        await _until(enough, journal, timeout_s)
        return json_answer(200, journal.view())

    @get("/_test/profiles", **shared)
    async def profiles(
        user_id: FromQuery[str | None] = None, anonymous_id: FromQuery[str | None] = None
    ) -> Answer:
        asked = None
        if user_id is not None or anonymous_id is not None:
            asked = parts.find_who(_Asked(user_id, anonymous_id))
        people = [person_view(*one) for one in await recording.people(asked)]
        return json_answer(200, ProfilesView(sum(one.found for one in people), people))

    @post("/_test/reset", status_code=200, **shared)
    async def reset() -> Answer:
        recording.reset()
        journal.reset()
        return json_answer(200, {"ok": True})

    return [accepted, rejected, profiles, reset]


async def _until(enough: Callable[[], Awaitable[bool]], journal: Journal, timeout_s: float) -> None:
    """Wait until there is enough or the time is over: whoever asks sees what there is."""
    loop = asyncio.get_running_loop()
    until = loop.time() + min(timeout_s, TIMEOUT_S_MAX)
    while True:
        more = journal.more
        if await enough() or (left := until - loop.time()) <= 0:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(more.wait(), left)
