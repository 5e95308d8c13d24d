"""The serving API: profiles, decisions and whole emails, for whoever shows a read key; no framework."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from penstock.core.errors import EventRejected, PenstockError
from penstock.edges.asgi import Answer as Reply
from penstock.edges.asgi import (
    error_answer,
    fault_answer,
    instant,
    json_answer,
    log_access,
)
from penstock.edges.serving.asks import (
    DecideMany,
    MakeLeaf,
    ReadKeys,
    Recipient,
    require_room,
    require_type,
    who_of,
)
from penstock.edges.serving.hot import (
    NAMED_MAX,
    Reads,
    hot_reads,
)
from penstock.edges.serving.shown import people_json
from penstock.edges.serving.views import ManyAnswers, profile_view
from penstock.flows.editions import Editions
from penstock.flows.history import Known
from penstock.flows.past import Past
from penstock.flows.recall import Seen, Unread
from penstock.flows.render import Links, Rendered, render_email
from penstock.flows.serve import Answer, Outcome, Serving, Who
from penstock.ports.clock import Clock
from penstock.ports.metrics import Metrics

TEXT = (b"content-type", b"text/plain; charset=utf-8")
HTML = (b"content-type", b"text/html; charset=utf-8")
PARTS = ("html", "text")
RECIPIENTS_AT_ONCE = 100
DECIDES_MAX = 64
"""Decisions under way for callers who ask for one person; beyond it they get the fallback at once, rather
than after the time that a decision may take."""
DECIDES_HURRIED_MAX = 4
"""The same while events are refused: those who get the fallback leave the loop to those who do not."""
HURRY = "overload"
"""The reason of an answer that spares the loop what it can."""
OFFSET_DIGITS = 15

REPLAYS_MAX = 2
"""Questions about the past that read the log at once; the others wait."""


class ServingParts(NamedTuple):
    """What the serving routes call."""

    serving: Editions
    make_leaf: MakeLeaf
    links: Links
    read_keys: ReadKeys
    text_of_html: Callable[[str], str]
    clock: Clock
    metrics: Metrics
    past: Callable[[], Past]
    hurried: Callable[[], bool] = lambda: False
    """Whether more arrives than can be taken."""


class ServingEdge:
    """Answers the serving API's requests, counts and logs them by route template.

    Args:
        parts: What it calls.
    """

    def __init__(self, parts: ServingParts) -> None:
        self.parts = parts
        self._deciding = 0
        self._replays = asyncio.Semaphore(REPLAYS_MAX)
        # Most recipients are asked about again, and to make a leaf's id is a tenth of a read.
        self.find_recipient: Callable[[Recipient], Who] = lru_cache(NAMED_MAX)(self.find_who)
        self.hot = hot_reads(
            Reads(
                self.at_hand, self.now, self.profile, self.profiles, self.again, self.decide_in_time, self.find_recipient
            ),
            read_keys=parts.read_keys, make_leaf=parts.make_leaf, clock=parts.clock, metrics=parts.metrics,
        )  # fmt: skip

    def find_who(self, asked: Any) -> Who:
        """Return whom a request names.

        Raises:
            EventRejected: It names nobody; see `who_of`.
        """
        return who_of(asked, self.parts.make_leaf, self.parts.links.token_key)

    async def answer(
        self,
        method: str,
        headers: dict[bytes, bytes],
        template: str,
        work: Callable[[], Awaitable[Reply]],
    ) -> Reply:
        """Check the key, do the work, and make an answer of whatever comes of it."""
        parts = self.parts
        started = parts.clock.monotonic_ms()
        try:
            parts.read_keys.require(headers)
            reply = await work()
        except EventRejected as error:
            reply = error_answer(error, 401 if error.code == "E391" else 400)
        except PenstockError as error:
            reply = error_answer(error)
        except Exception as error:  # noqa: BLE001 - a caller must hear what to do next
            reply = fault_answer(error)
        took_ms = parts.clock.monotonic_ms() - started
        parts.metrics.count("penstock_requests_total", route=template, status=str(reply.status))
        parts.metrics.observe("penstock_serve_seconds", took_ms / 1000, route=template)
        log_access(method, template, reply.status, took_ms)
        return reply

    def at_hand(self, whom: Who) -> Reply | None:
        """Return a profile as of now, of somebody known of whom nothing has changed since they were read."""
        serving = self.parts.serving.active.serving
        look = serving.recall.now(whom.leaf, serving.definitions)
        if look is None or not look.people[0].person.found:  # type: ignore[union-attr] - it is seen
            return None
        return Reply(200, people_json(look, self.parts.links.token_key))

    async def now(self, whom: Who) -> Reply:
        """Return a profile as of now: from memory, where nothing has changed since it was read.

        While events are refused it may be as last known, though something has changed.
        """
        serving = self.parts.serving.active.serving
        hurry = HURRY if self.parts.hurried() else ""
        look = await serving.recall.look((whom.leaf,), serving.definitions, hurry=hurry)
        one = look.people[0]
        if one.__class__ is Seen and not one.person.found:  # type: ignore[union-attr] - it is seen
            self._require_type(whom)
        return Reply(200, people_json(look, self.parts.links.token_key))

    async def profile(self, whom: Who, as_of: str | None, known_at: str | None) -> Reply:
        """Return a profile as of now or an instant, from all that is known or was known then."""
        if as_of is None and known_at is None:
            return await self.now(whom)
        parts = self.parts
        as_of_ms = None if as_of is None else instant(as_of)
        if known_at is None:
            profile, person = await parts.serving.profile(whom, as_of_ms)
        else:
            async with self._replays:
                profile, person = await parts.past().profile(whom, known(known_at), as_of_ms)
        if not person.found:
            self._require_type(whom)
        view = profile_view(
            profile, person, now_ms=parts.clock.now_ms(), token_key=parts.links.token_key,
            past=known_at is not None,
        )  # fmt: skip
        return json_answer(200, view)

    def _require_type(self, whom: Who) -> None:
        require_type(whom.id_type, self.parts.serving.active.serving.definitions.identity)

    async def profiles(self, people: Sequence[Who | str]) -> Reply:
        """Return many people's profiles in order; whoever is not named well costs only themselves.

        Args:
            people: Whom, or why one of them is nobody.
        """
        whom = [one for one in people if one.__class__ is Who]
        look = await self.parts.serving.look(whom)  # type: ignore[arg-type] - they are Who
        if len(whom) < len(people):
            for place, one in enumerate(people):  # ascending: each lands where it was asked
                if isinstance(one, str):
                    look.people.insert(place, Unread(one))
        return Reply(200, b'{"profiles":[%s]}' % people_json(look, self.parts.links.token_key))

    async def again(self, campaign: str, asked: Recipient, send: str | None) -> Answer | None:
        """Return what one recipient saw before, if it is at hand; None to have it decided."""
        serving = self.parts.serving.published(campaign)
        if serving is None:
            return None
        try:
            whom = self.find_recipient(asked)
        except EventRejected:
            return None
        return await serving.again(campaign, whom, send, hurry=self._full())

    async def decide(
        self, campaign: str, asked: Recipient, send: str | None, *, preview: bool
    ) -> Outcome:
        """Return what one recipient sees; whoever names nobody gets the fallback, not an error."""
        serving = await self.parts.serving.serving(campaign, preview=preview)
        return await self._decided(serving, campaign, asked, send, preview=preview)

    def _full(self) -> bool:
        most = DECIDES_HURRIED_MAX if self.parts.hurried() else DECIDES_MAX
        return self._deciding >= most

    async def decide_in_time(
        self, campaign: str, asked: Recipient, send: str | None, *, preview: bool
    ) -> Outcome:
        """Return what one recipient sees; the fallback while too many others wait for a decision."""
        if self._full() and not preview:
            serving = await self.parts.serving.serving(campaign, preview=preview)
            return serving.fallback(campaign, HURRY)
        self._deciding += 1
        try:
            return await self.decide(campaign, asked, send, preview=preview)
        finally:
            self._deciding -= 1

    async def _decided(
        self, serving: Serving, campaign: str, asked: Recipient, send: str | None, *, preview: bool
    ) -> Outcome:
        try:
            whom = self.find_recipient(asked)
        except EventRejected as error:
            return serving.fallback(campaign, error.code)
        return await serving.decide(campaign, whom, send, preview=preview)

    async def decide_many(self, campaign: str, asked: DecideMany) -> Reply:
        """Return what many recipients see; one that names nobody gets a fallback, not an error."""
        require_room(len(asked.recipients), "recipients")
        answers: list[Answer] = []
        for start in range(0, len(asked.recipients), RECIPIENTS_AT_ONCE):
            outcomes = await asyncio.gather(
                *(
                    self.decide(campaign, one, asked.send, preview=asked.preview)
                    for one in asked.recipients[start : start + RECIPIENTS_AT_ONCE]
                )
            )
            answers.extend(outcome.answer for outcome in outcomes)
        return json_answer(200, ManyAnswers(answers))

    async def render(
        self, campaign_name: str, asked: Recipient, send: str | None, part: str, *, preview: bool
    ) -> Reply:
        """Return the whole email of one recipient, as HTML or text."""
        parts = self.parts
        if part not in PARTS:
            raise EventRejected("E397", "an email has no such part", where="part",
                                fix=f"ask for `part={PARTS[0]}`, which it is without one, or `part={PARTS[1]}`")  # fmt: skip
        serving = await parts.serving.serving(campaign_name, preview=preview)
        outcome = await self._decided(serving, campaign_name, asked, send, preview=preview)
        campaign = serving.campaigns.get(campaign_name)
        if campaign is None:
            raise EventRejected("E399", "there is no such campaign", where="campaign",
                                fix="use the name of a file in campaigns/")  # fmt: skip
        rendered: Rendered = render_email(
            serving.renderer, campaign, outcome.answer, outcome.profile, links=parts.links,
            recipient=outcome.recipient, text_of_html=parts.text_of_html, track=not preview,
        )  # fmt: skip
        headers = (
            (b"x-penstock-served", outcome.answer.served.encode()),
            (b"x-penstock-reason", outcome.answer.reason.encode()),
            (b"x-penstock-decision", outcome.answer.decision_id.encode()),
            (b"x-penstock-size", b"%d %s" % (rendered.size.bytes, rendered.size.verdict.encode())),
        )
        if part == "text":
            return Reply(200, rendered.text.encode(), (TEXT, *headers))
        return Reply(200, rendered.html.encode(), (HTML, *headers))


def known(text: str) -> Known:
    """Return the point of the log that a `known_at` names: an offset or an instant.

    Raises:
        EventRejected: It is neither (E396).
    """
    if text.isascii() and text.isdigit() and len(text) <= OFFSET_DIGITS:
        return Known(offset=int(text))
    return Known(at_ms=instant(text, "known_at"))
