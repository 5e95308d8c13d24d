"""What a mail client does with an email: an unsubscribe, an open, a click; kept before it is answered."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from penstock.core import tokens
from penstock.core.consent.suppression import PURPOSE_PLANE, Entries, suppression_of
from penstock.core.decision.record import Decision, decode_decision
from penstock.core.errors import EventRejected
from penstock.core.ids import LeafId, event_id
from penstock.core.record import Record
from penstock.flows.collect import PutSuppressions
from penstock.flows.serve import refused_topics
from penstock.flows.track import CLICKED, OPENED, email_event, unsubscribe_record
from penstock.ports.appender import Appender
from penstock.ports.clock import Clock
from penstock.ports.decisions import Decisions
from penstock.ports.metrics import Metrics
from penstock.ports.suppressions import Suppressions

FETCH_BUCKET_MS = 10_000
"""Fetches of the same link within this span are one event: clients and proxies repeat themselves."""


class Fetch(NamedTuple):
    """How an open or a click looked to the server; what it stands for is judged, not stored."""

    user_agent: str
    method: str = "GET"


def fetcher_of(fetch: Fetch) -> str:
    """Return who fetched: `human_likely`, `proxy`, `prefetch`, `scanner` or `unknown`.

    Opens by machines are classed here, kept, and never optimised for. Gmail's proxy fetches when a
    person opens; Apple's and Gmail's prefetches come without one. Source: `docs/concepts/impact.md`.
    """
    agent = fetch.user_agent
    if fetch.method == "HEAD":
        return "scanner"
    if "GoogleImageProxy" in agent:
        return "proxy"
    if agent.strip() == "Mozilla/5.0" or "Edge/12.246 Mozilla/5.0" in agent:
        return "prefetch"
    lowered = agent.lower()
    if any(
        sign in lowered
        for sign in ("bot", "crawler", "spider", "scan", "preview", "curl/", "python-")
    ):
        return "scanner"
    return "human_likely" if agent else "unknown"


class Feedback:
    """Takes in what mail clients do. One a project.

    Args:
        decisions: Where an open's or a click's decision stands.
        appender: The way into the log.
        suppressions: Written before an unsubscribe is answered.
        token_key: Verifies links.
        tenant: Part of every record.
        clock: Tells now.
        metrics: Where to count.
        put_suppressions: Writes to `suppressions`, awaited; a thread of its own for each by default.
    """

    def __init__(
        self, *, decisions: Decisions, appender: Appender, suppressions: Suppressions, token_key: bytes,
        tenant: str, clock: Clock, metrics: Metrics, put_suppressions: PutSuppressions | None = None,
    ) -> None:  # fmt: skip
        self.decisions = decisions
        self.appender = appender
        self.suppressions = suppressions
        self.token_key = token_key
        self.tenant = tenant
        self.clock = clock
        self.metrics = metrics
        self.put_suppressions = put_suppressions or self._put_alone

    async def _put_alone(self, entries: Entries) -> None:
        await asyncio.to_thread(self.suppressions.put, entries)

    def read_unsubscribe(self, token: str) -> tokens.Unsubscribe:
        """Return whom and what a token unsubscribes; changes nothing.

        Raises:
            EventRejected: The token is not one of ours (E350 to E352).
        """
        return tokens.verify_unsubscribe(self.token_key, token)

    def all_topics(self, wish: tokens.Unsubscribe) -> str:
        """Return the token with which the same recipient ends every topic."""
        return tokens.sign_unsubscribe(self.token_key, wish.recipient)

    def refused(self, wish: tokens.Unsubscribe) -> list[str]:
        """Return the topics that a recipient gets no emails about, by name; `*` is all of them.

        Raises:
            Unavailable: The register did not answer (E403).
        """
        register = self.suppressions.get([wish.recipient])
        return sorted(refused_topics(register, "email"))

    async def unsubscribe(self, token: str) -> tokens.Unsubscribe:
        """Unsubscribe; durable in the log and in the register on return. Repeating changes nothing.

        Raises:
            EventRejected: The token is not one of ours (E350 to E352).
            Unavailable: It is not durable (E401, E403); a retry is safe.
        """
        wish = self.read_unsubscribe(token)
        now = self.clock.now_ms()
        record = unsubscribe_record(
            wish.recipient, wish.topic, tenant=self.tenant, at_ms=now,
            message_id=f"unsubscribe:{wish.recipient.hex()}:{wish.topic}:{now // FETCH_BUCKET_MS}",
        )  # fmt: skip
        await self.appender.append([record], urgent=True)
        entries = suppression_of(record)
        await self.put_suppressions(entries)
        self.metrics.count("penstock_events_accepted_total")
        self.metrics.count(
            "penstock_suppressions_written_total", len(entries), reason="unsubscribe"
        )
        return wish

    async def click(self, token: str, url: str, fetch: Fetch) -> str:
        """Record a click and return where to go: the very target that the link was signed for.

        Raises:
            EventRejected: The token was not made for this target (E350 to E353).
            Unavailable: The click could not be kept; the caller redirects all the same.
        """
        click = tokens.verify_click(self.token_key, token, url)
        decision = self._decision(click.decision_id)
        if decision is not None:
            properties = {"link_url": url, "slot": click.slot, "fetcher": fetcher_of(fetch)}
            await self._keep(decision, CLICKED, properties, url)
        return url

    async def open(self, token: str, fetch: Fetch) -> None:
        """Record an open.

        Raises:
            EventRejected: The token is not one of ours (E350 to E352).
            Unavailable: The open could not be kept; the caller serves the pixel all the same.
        """
        decision = self._decision(tokens.verify_open(self.token_key, token))
        if decision is not None:
            await self._keep(decision, OPENED, {"fetcher": fetcher_of(fetch)}, "")

    def _decision(self, decision_id: str) -> Decision | None:
        found = self.decisions.find(decision_id)
        return None if found is None else decode_decision(found[1])

    async def _keep(
        self, decision: Decision, name: str, properties: dict[str, str], what: str
    ) -> Record:
        now = self.clock.now_ms()
        # A target may be long, and may name somebody: its hash tells targets apart as well.
        digest = event_id(decision.recipient, what)
        register = await asyncio.to_thread(self.suppressions.get, [LeafId(decision.recipient)])
        withdrawn = {key.name for key, entry in register.items()
                     if key.plane == PURPOSE_PLANE and entry.denied}  # fmt: skip
        record = email_event(
            decision, name, at_ms=now, properties=properties,
            granted=tuple(one for one in decision.permitted if one not in withdrawn),
            message_id=f"{decision.decision_id}:{name}:{digest:016x}:{now // FETCH_BUCKET_MS}",
        )  # fmt: skip
        await self.appender.append([record])
        self.metrics.count("penstock_events_accepted_total")
        return record


def require_url(url: str | None) -> str:
    """Return a click's target.

    Raises:
        EventRejected: There is none (E354).
    """
    if not url:
        raise EventRejected("E354", "a click names no target", where="u",
                            fix="follow the link as it stands in the email")  # fmt: skip
    return url
