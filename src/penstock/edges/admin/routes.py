"""The admin API's routes, for whoever shows the admin key; the command line is their only client."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery, JSONBody
from litestar.response import Stream

from penstock.core import tokens
from penstock.core.decision.audience import Audience
from penstock.core.decision.explain import explain
from penstock.core.decision.record import decode_decision
from penstock.core.errors import EventRejected, PenstockError
from penstock.core.feature.plan import Plan
from penstock.core.time import format_instant
from penstock.edges.admin.bodies import (
    AskWhy,
    Letter,
    Letters,
    LettersReplayed,
    LoadRows,
    ReplayLetters,
    RowRefusal,
    RowsLoaded,
    SendReport,
    StartSend,
    Status,
    Why,
)
from penstock.edges.asgi import Answer, error_answer, json_answer
from penstock.flows.collect import Collector, Source
from penstock.flows.evidence import events_behind
from penstock.flows.letters import replay_letters
from penstock.flows.load import load_rows
from penstock.flows.send import Campaigning, Progress
from penstock.flows.serve import Outcome, Who
from penstock.ports.decisions import DecisionKey
from penstock.ports.log import Log

LETTERS_SHOWN = 1_000
SAMPLE = 5
REPORT_EVERY = 20
"""Emails between two progress lines."""

NDJSON = "application/x-ndjson"


class AdminParts(NamedTuple):
    """What the admin routes call."""

    admin_key: str
    collector: Collector
    campaigning: Campaigning
    log: Log
    plan: Plan
    audiences: Mapping[str, Audience]
    sources: Mapping[str, Source]
    find_who: Callable[[Any], Who]
    """The leaf that a request names; raises EventRejected."""
    status: Callable[[], Awaitable[Status]]
    settled: Callable[[], Awaitable[None]]
    """Waits until everything that is in the log is folded and written."""


class AdminEdge:
    """Checks the admin key and does the work; an error becomes an answer with its code and fix.

    Args:
        parts: What it calls.
    """

    def __init__(self, parts: AdminParts) -> None:
        self.parts = parts

    def require_key(self, request: Request[Any, Any, Any]) -> None:
        """Refuse whoever does not show the admin key.

        Raises:
            EventRejected: No key, or not the one of the settings (E379); answered 401.
        """
        shown = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        key = self.parts.admin_key
        if not key or not hmac.compare_digest(shown.encode(), key.encode()):
            raise EventRejected("E379", "the request does not show the admin key", where="Authorization",
                                fix="send `Authorization: Bearer KEY`, the key of `server.admin_key`")  # fmt: skip

    async def answer(
        self, request: Request[Any, Any, Any], work: Callable[[], Awaitable[Any]]
    ) -> Answer:
        """Return the answer to a request."""
        try:
            self.require_key(request)
            return json_answer(200, await work())
        except EventRejected as error:
            return error_answer(error, 401 if error.code == "E379" else 400)
        except PenstockError as error:
            return error_answer(error)

    async def load(self, data: LoadRows) -> RowsLoaded:
        """Keep rows."""
        source = self.parts.sources.get(data.source)
        if source is None:
            raise EventRejected("E365", "no source of this name is declared", where="source",
                                fix="declare `[sources.NAME]` in penstock.toml, or name another")  # fmt: skip
        loaded = await load_rows(
            self.parts.collector,
            data.kind,
            data.rows,
            source=source,
            job=data.job,
            first=data.first,
        )
        return RowsLoaded(
            loaded.kept, [RowRefusal(r.index, r.code, r.what, r.path) for r in loaded.refused]
        )

    async def explain(self, data: AskWhy) -> Why:
        """Explain the decision that stands, or the one that would be made now."""
        parts = self.parts
        serving = parts.campaigning.serving
        campaign = serving.campaigns.get(data.campaign)
        if campaign is None:
            raise EventRejected("E399", "there is no such campaign", where="campaign",
                                fix="use the name of a file in campaigns/")  # fmt: skip
        who = parts.find_who(data)
        profile, _ = await serving.profile(who)
        recipient = who.leaf if who.id_type == "email" else (profile.email_leaf or who.leaf)
        send = data.send or serving.default_send(campaign)
        key = DecisionKey(serving.rules.tenant, recipient, campaign.name, send)
        standing = (await asyncio.to_thread(serving.decisions.get, [key]))[0]
        if standing is not None:
            decision = decode_decision(standing)
        else:
            outcome: Outcome = await serving.decide(campaign.name, who, send, preview=True)
            decision = outcome.decision
        if decision is None:
            raise EventRejected("E366", "nothing can be decided for this person now", where="campaign",
                                fix="look at /ready and at the metrics")  # fmt: skip
        if data.slot:
            decision = msgspec.structs.replace(
                decision, slots=tuple(slot for slot in decision.slots if slot.name == data.slot)
            )
        evidence = await asyncio.to_thread(
            events_behind, parts.log, profile.leaves, decision, parts.plan.features
        )
        story = explain(decision, evidence)
        return Why(standing is not None, list(story.lines), msgspec.to_builtins(story))

    def letters(self, reason: str) -> Letters:
        """List pending dead letters; what was sent stays where it is."""
        found = list(self.parts.log.dead_letters(reason=reason))
        return Letters(
            [
                Letter(one.letter_id, one.source, format_instant(one.received_at_ms), one.reason,
                       one.path, one.what, one.message_id)
                for one in found[:LETTERS_SHOWN]
            ],
            len(found),
        )  # fmt: skip

    async def replay(self, data: ReplayLetters) -> LettersReplayed:
        """Send dead letters in again."""
        parts = self.parts
        found = await asyncio.to_thread(lambda: list(parts.log.dead_letters(reason=data.reason)))
        done = await replay_letters(parts.collector, parts.log, found, parts.sources)
        return LettersReplayed(done.accepted, done.refused, done.quarantined)

    async def sending(self, data: StartSend) -> AsyncIterator[bytes]:
        """Yield the progress of a send, a JSON line each, and its report at the end."""
        try:
            async for report in self._sending(data):
                yield msgspec.json.encode(report) + b"\n"
        except PenstockError as error:
            failure = {
                "code": error.code,
                "what": error.what,
                "fix": error.fix,
                "where": error.where,
            }
            report = SendReport(True, data.campaign, data.send, 0, {}, error=failure)
            yield msgspec.json.encode(report) + b"\n"

    async def _sending(self, data: StartSend) -> AsyncIterator[SendReport]:
        parts = self.parts
        campaigning = parts.campaigning
        campaign = campaigning.serving.campaigns.get(data.campaign)
        if campaign is None:
            raise EventRejected("E399", "there is no such campaign", where="campaign",
                                fix="use the name of a file in campaigns/")  # fmt: skip
        audience = parts.audiences.get(data.audience or campaign.audience)
        if audience is None:
            raise EventRejected("E367", "there is no such audience", where="audience",
                                fix="define it in audiences.py, or name another with --audience")  # fmt: skip
        send = data.send or campaigning.serving.default_send(campaign)
        await parts.settled()
        if data.dry_run:
            seen, outcomes, sample = 0, dict[str, int](), list[str]()
            async for member, reason in campaigning.members(audience, campaign):
                seen += 1
                name = "member" if member else f"skipped:{reason}"
                outcomes[name] = outcomes.get(name, 0) + 1
                if member and len(sample) < SAMPLE:
                    sample.append(tokens.email_token(campaigning.links.token_key, member.recipient))
            yield SendReport(True, campaign.name, send, seen, outcomes, sample=sample)
            return
        queue: asyncio.Queue[Progress | None] = asyncio.Queue()
        task = asyncio.create_task(
            campaigning.send(
                campaign,
                audience,
                send,
                retry_in_doubt=data.retry_in_doubt,
                progress=queue.put_nowait,
            )
        )
        task.add_done_callback(lambda _: queue.put_nowait(None))
        count = 0
        while (progress := await queue.get()) is not None:
            count += 1
            if count % REPORT_EVERY == 0:
                yield SendReport(False, campaign.name, send, progress.seen, progress.outcomes)
        final = await task
        doubtful = await asyncio.to_thread(
            lambda: campaigning.serving.decisions.sends(campaign.name, send, state="started")
        )
        yield SendReport(
            True, campaign.name, send, final.seen, final.outcomes,
            in_doubt=[tokens.email_token(campaigning.links.token_key, key.recipient) for key, _ in doubtful],
        )  # fmt: skip


def admin_handlers(parts: AdminParts) -> list[HTTPRouteHandler]:
    """Return the admin API's route handlers."""
    edge = AdminEdge(parts)

    @post("/v1/admin/load", status_code=200, tags=["admin"], summary="Keep rows of a file")
    async def load(request: Request[Any, Any, Any], data: JSONBody[LoadRows]) -> Answer:
        return await edge.answer(request, lambda: edge.load(data))

    @post(
        "/v1/admin/explain",
        status_code=200,
        tags=["admin"],
        summary="Why a person sees what they see",
    )
    async def why(request: Request[Any, Any, Any], data: JSONBody[AskWhy]) -> Answer:
        return await edge.answer(request, lambda: edge.explain(data))

    @get("/v1/admin/dead-letters", tags=["admin"], summary="Pending dead letters, oldest first")
    async def letters(request: Request[Any, Any, Any], reason: FromQuery[str] = "") -> Answer:
        return await edge.answer(request, lambda: asyncio.to_thread(edge.letters, reason))

    @post(
        "/v1/admin/dead-letters/replay",
        status_code=200,
        tags=["admin"],
        summary="Send dead letters in again",
    )
    async def replay(request: Request[Any, Any, Any], data: JSONBody[ReplayLetters]) -> Answer:
        return await edge.answer(request, lambda: edge.replay(data))

    @get("/v1/admin/status", tags=["admin"], summary="The conservation law over durable data")
    async def status(request: Request[Any, Any, Any]) -> Answer:
        return await edge.answer(request, parts.status)

    @post(
        "/v1/admin/sends",
        status_code=200,
        tags=["admin"],
        summary="Send a campaign; progress as JSON lines",
    )
    async def send(request: Request[Any, Any, Any], data: JSONBody[StartSend]) -> Any:
        try:
            edge.require_key(request)
        except EventRejected as error:
            return error_answer(error, 401)
        return Stream(edge.sending(data), media_type=NDJSON)

    return [load, why, letters, replay, status, send]
