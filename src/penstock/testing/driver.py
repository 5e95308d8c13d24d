"""A whole project without services: push events, turn the clock, read what a person would see."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from penstock.adapters.content.html_to_text import html_to_text
from penstock.adapters.decisions.memory import MemoryDecisions
from penstock.adapters.keys.memory import MemoryKeys
from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.metrics.memory import MemoryMetrics
from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.compose import Node, Stores, make_links, make_node
from penstock.core.decision.predicate import nearest
from penstock.core.errors import EventRejected
from penstock.core.event import RUDDERSTACK, decode_batch
from penstock.core.identity.identifier import normalise
from penstock.core.profile import Profile
from penstock.core.time import format_instant, parse_instant
from penstock.flows.collect import Intake
from penstock.flows.load import load_rows
from penstock.flows.render import Rendered, render_email
from penstock.flows.serve import Answer, Who
from penstock.project import Project
from penstock.testing.clock import HandClock

START = "2026-01-05T09:00:00Z"
"""Where the driver's clock begins, unless a case says otherwise: a Monday morning."""

Result = TypeVar("Result")
_KEY = b"the key of a project under test."


class Driver:
    """Drives a project in memory, synchronously. Use it as a context manager, or `close` it.

        driver.push({"type": "track", "event": "Product Viewed", "userId": "u1",
                     "properties": {"product_id": "p1"}})
        driver.clock.advance(days=1)
        assert driver.features(user_id="u1")["views_7d"] == 1

    Events without a `messageId` get one, and without a `timestamp` the clock's. Events without
    consent get the consent that `consent` says.

    Args:
        project: The loaded project.
        start: Where the clock begins, ISO 8601.
        consent: Category preferences of events that carry none; None leaves them without.
    """

    def __init__(
        self, project: Project, *, start: str = START, consent: dict[str, bool] | None = None
    ) -> None:
        self.project = project
        self.clock = HandClock(parse_instant(start))
        self.metrics = MemoryMetrics()
        self._loop = asyncio.new_event_loop()
        self._number = 0
        rules = project.consent_rules()
        categories = {*rules.categories, *rules.purposes}
        self.consent = dict.fromkeys(sorted(categories), True) if consent is None else consent
        keys = MemoryKeys()
        for name in ("identifier", "token", "pseudonym"):
            keys.put_if_absent(name, _KEY)
        self.stores = Stores(
            keys, MemoryLog(self.clock), MemoryStore(), MemorySuppressions(), MemoryDecisions()
        )
        self.node: Node = self._run(self._start())

    async def _start(self) -> Node:
        node = make_node(self.project, self.stores, clock=self.clock, metrics=self.metrics)
        await node.start()
        return node

    # -- events

    def push(self, *events: dict[str, Any], source: str = "") -> Intake:
        """Send events as a source would, and fold them.

        Args:
            *events: Segment-spec calls.
            source: A declared source; the first of kind `server` by default.
        """
        name = source or next(
            (name for name, one in self.node.sources.items() if one.verified), next(iter(self.node.sources))
        )  # fmt: skip
        body = msgspec.json.encode({"batch": [self._filled(event) for event in events]})

        async def take() -> Intake:
            intake = await self.node.collector.take(
                self.node.sources[name], decode_batch(body, RUDDERSTACK)
            )
            await self.node.engine.settled()
            return intake

        return self._run(take())

    def load_items(self, *rows: dict[str, Any]) -> None:
        """Load items, as `penstock load --as items` does.

        Raises:
            AssertionError: A row is refused; the message says why.
        """
        self._number += 1
        source = next(iter(self.node.sources.values()))

        async def load() -> None:
            loaded = await load_rows(
                self.node.collector,
                "items",
                rows,
                source=source,
                job=f"case-{self._number}",
                first=1,
            )
            assert not loaded.refused, f"items were refused: {loaded.refused}"
            await self.node.engine.settled()

        self._run(load())

    def _filled(self, event: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        filled = {
            "messageId": f"case-{self._number}",
            "timestamp": format_instant(self.clock.now_ms()),
            **event,
        }
        context = dict(filled.get("context", {}))
        if "consent" not in context and self.consent:
            context["consent"] = {"categoryPreferences": self.consent}
        return {**filled, "context": context}

    # -- what a person would see

    def profile(self, **person: str) -> Profile:
        """Return a person's profile now: `profile(user_id="u1")`, or by `anonymous_id` or `email`."""
        return self._run(self.node.serving.profile(self._who(person)))[0]

    def features(self, **person: str) -> dict[str, Any]:
        """Return a person's features now."""
        return self.profile(**person).features

    def decide(self, campaign: str, *, send: str | None = None, **person: str) -> Answer:
        """Return what a person sees in a campaign; decided once a send, as in production.

        Raises:
            EventRejected: There is no such campaign (E399): a case that names it wrongly would
                otherwise be told of a slot that is missing.
        """
        self._require_campaign(campaign)
        self._run(self.node.popular.refresh())
        return self._run(self.node.serving.decide(campaign, self._who(person), send)).answer

    def render(self, campaign: str, *, send: str | None = None, **person: str) -> Rendered:
        """Return the whole email of a person.

        Raises:
            EventRejected: There is no such campaign (E399).
        """
        self._require_campaign(campaign)
        self._run(self.node.popular.refresh())
        outcome = self._run(self.node.serving.decide(campaign, self._who(person), send))
        return render_email(
            self.node.renderer, self.project.campaigns[campaign], outcome.answer, outcome.profile,
            links=make_links(self.node, "https://links.example"), recipient=outcome.recipient,
            text_of_html=html_to_text,
        )  # fmt: skip

    def _require_campaign(self, name: str) -> None:
        known = self.project.campaigns
        if name not in known:
            raise EventRejected("E399", f"there is no campaign `{name}`", where="campaign",
                                fix=f"use the name of a file in campaigns/{nearest(name, frozenset(known))}")  # fmt: skip

    def _who(self, person: dict[str, str]) -> Who:
        assert len(person) == 1, "name a person by one identifier, such as user_id='u1'"
        id_type, value = next(iter(person.items()))
        text = normalise(id_type, value)
        assert text is not None, f"`{id_type}` can't be this value"
        return Who(self.node.collector.make_leaf(id_type, text), id_type)

    # -- life

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._loop.run_until_complete(work)

    def close(self) -> None:
        """End the engine and its threads; a second call does nothing."""
        if not self._loop.is_closed():
            self._run(self.node.close())
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
