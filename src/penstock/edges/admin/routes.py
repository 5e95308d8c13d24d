"""The admin API's routes, for whoever shows the admin key; the command line is their only client."""

from __future__ import annotations

import asyncio
import difflib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from litestar import Request, Response, get, post
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.params import FromQuery, JSONBody
from litestar.response import Stream

from penstock.core import tokens
from penstock.core.codes import CODES
from penstock.core.decision.audience import Audience
from penstock.core.decision.campaign import Campaign
from penstock.core.decision.explain import explain
from penstock.core.decision.record import decode_decision
from penstock.core.errors import EventRejected, Overloaded, PenstockError, Unavailable
from penstock.core.ids import LeafId
from penstock.core.time import format_instant
from penstock.edges.admin.answers import NDJSON, documented, failure, operator_answer
from penstock.edges.admin.bodies import (
    AskProfiles,
    AskWhy,
    Letter,
    Letters,
    LettersReplayed,
    LoadRows,
    ProfilesPage,
    ReplayLetters,
    RowRefusal,
    RowsLoaded,
    SendReport,
    StartSend,
    Status,
    Why,
)
from penstock.edges.admin.definitions import DefinitionsParts, definitions_handlers
from penstock.edges.admin.identity import IdentityParts, identity_handlers
from penstock.edges.admin.sends import SEND_TASK
from penstock.edges.asgi import (
    Answer,
    error_answer,
    instant,
    json_answer,
    log_access,
)
from penstock.flows.collect import Collector, Source
from penstock.flows.editions import Edition, Editions
from penstock.flows.evidence import events_behind
from penstock.flows.export import export_page
from penstock.flows.history import History, Known
from penstock.flows.letters import FindLeaf, Replayed, replay_letters
from penstock.flows.load import load_rows
from penstock.flows.past import Past, since_line
from penstock.flows.send import Campaigning, Progress
from penstock.flows.serve import Outcome, Who
from penstock.ports.appender import NO_WAITS, Waits
from penstock.ports.decisions import DecisionKey
from penstock.ports.log import Log

LETTERS_SHOWN = 1_000
LOAD_WAITS_MS_MAX = 200
"""While anything has waited longer than this to be durable or folded, rows of files are put off."""
SAMPLE = 5
REPORT_EVERY = 20
"""Emails between two progress lines."""
LETTERS_AT_ONCE = 500


class AdminParts(NamedTuple):
    """What the admin routes call."""

    admin_key: str
    collector: Collector
    campaigning: Callable[[Edition], Campaigning]
    editions: Editions
    definitions: DefinitionsParts
    identity: IdentityParts
    log: Log
    history: History
    past: Callable[[Edition], Past]
    sources: Mapping[str, Source]
    find_leaf: FindLeaf
    """The leaf as it serves now."""
    find_who: Callable[[Any], Who]
    """The leaf that a request names; raises EventRejected."""
    status: Callable[[], Awaitable[Status]]
    waits: Callable[[], Waits] = lambda: NO_WAITS
    """How long events wait to be durable and to be folded."""


class AdminEdge:
    """Checks the admin key and does the work; an error becomes an answer with its code and fix.

    Args:
        parts: What it calls.
    """

    def __init__(self, parts: AdminParts) -> None:
        self.parts = parts
        self._sends: dict[tuple[str, str], asyncio.Task[Progress]] = {}
        """What is being sent now, by campaign and send."""

    def require_key(self, headers: Mapping[str, str]) -> None:
        """Refuse whoever does not show the admin key; compared in constant time.

        Raises:
            EventRejected: No key, or not the one of the settings (E379); answered 401.
        """
        kind, _, shown = headers.get("authorization", "").partition(" ")
        key = self.parts.admin_key
        good = hmac.compare_digest(shown.strip().encode(), key.encode())
        if not key or not good or kind.lower() != "bearer":
            shows = kind.lower() == "bearer" and shown.strip()
            what = (
                "the key that the request shows is not the admin key"
                if shows
                else "the request shows no admin key"
            )
            raise EventRejected("E379", what, where="Authorization",
                                fix="send `Authorization: Bearer KEY`, the key of `server.admin_key`")  # fmt: skip

    async def answer(
        self, request: Request[Any, Any, Any], work: Callable[[], Awaitable[Any]]
    ) -> Answer:
        """Return the answer to a request, counted and logged by its route."""
        serving = self.parts.editions.active.serving
        started = serving.clock.monotonic_ms()
        try:
            answer = json_answer(200, await work())
        except PenstockError as error:
            answer = operator_answer(error)
        route = request.scope["path_template"]
        serving.metrics.count("penstock_requests_total", route=route, status=str(answer.status))
        log_access(request.method, route, answer.status, serving.clock.monotonic_ms() - started)
        return answer

    async def load(self, data: LoadRows) -> RowsLoaded:
        """Keep rows, if nobody else waits: what sites send is lost if it is refused too often.

        Raises:
            Overloaded: Live events wait (E410): the same rows later.
        """
        if max(self.parts.waits()) > LOAD_WAITS_MS_MAX:
            raise Overloaded("E410", "live events wait, and rows of a file can", retry_after_s=1,
                             fix="send the same rows again after the time in Retry-After")  # fmt: skip
        source = self.parts.sources.get(data.source)
        if source is None:
            fix = _nearest(
                data.source, self.parts.sources, "declare `[sources.NAME]` in penstock.toml"
            )
            raise EventRejected(
                "E365", "no source of this name is declared", where="source", fix=fix
            )
        loaded = await load_rows(
            self.parts.collector,
            data.kind,
            data.rows,
            source=source,
            job=data.job,
            first=data.first,
        )
        return RowsLoaded(
            loaded.kept, [RowRefusal(r.index, r.code, r.what, r.path) for r in loaded.refused],
            dict(loaded.dropped), dict(loaded.undeclared), dict(loaded.meant), loaded.no_addresses,
        )  # fmt: skip

    async def profiles(self, data: AskProfiles) -> ProfilesPage:
        """Return a page of people for export."""
        parts = self.parts
        edition = parts.editions.active
        serving, past = edition.serving, parts.past(edition)
        campaigning = parts.campaigning(edition)
        if data.as_of:
            known = Known(at_ms=instant(data.as_of, "as_of"))
            serving = past.serving(known, past.instant_of(known))
        try:
            after = LeafId(bytes.fromhex(data.after)) if data.after else None
        except ValueError:
            raise EventRejected("E361", "`after` is none that a page answered", where="after",
                                fix="send what the page before answered") from None  # fmt: skip
        if after is None:
            await parts.definitions.versions.settled(edition)
        page = await export_page(
            serving, campaigning.store, campaigning.epoch, parts.collector.catalog.traits,
            after=after, limit=data.limit, identifiers=data.identifiers,
            audience=self._audience(edition, data.audience) if data.audience else None,
        )  # fmt: skip
        return ProfilesPage(
            page.rows, page.after.hex() if page.after else "", page.withheld,
            [leaf.hex() for leaf in page.damaged],
        )  # fmt: skip

    async def explain(self, data: AskWhy) -> Why:
        """Explain the decision that stands, or the one that would be made now; or then, at an instant."""
        parts = self.parts
        edition = parts.editions.of(data.campaign)
        serving, past = edition.serving, parts.past(edition)
        at_ms = instant(data.at, "at") if data.at else None
        if at_ms is not None:
            known = Known(at_ms=at_ms)
            serving = past.serving(known, past.instant_of(known))
        campaign = self._campaign(edition, data.campaign)
        who = parts.find_who(data)
        profile, person = await serving.profile(who)
        recipient = who.leaf if who.id_type == "email" else (profile.email_leaf or who.leaf)
        send = data.send or serving.default_send(campaign)
        key = DecisionKey(serving.rules.tenant, recipient, campaign.name, send)
        standing = (await asyncio.to_thread(serving.decisions.get, [key]))[0]
        decision = None if standing is None else decode_decision(standing)
        if decision is not None and at_ms is not None and decision.decided_at_ms > at_ms:
            decision = None
        recorded = decision is not None
        checked = None if decision is None else await past.check(decision, who)
        if decision is None:
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
            events_behind, parts.history, profile.leaves, decision, edition.plan.features
        )
        story = explain(decision, evidence, profile.complete_since)
        lines = [*([since_line(at_ms)] if at_ms is not None else []), *story.lines]
        if checked is not None:
            lines.append(checked.line)
        return Why(
            recorded, bool(person.leaves), lines, msgspec.to_builtins(story),
            {} if checked is None else msgspec.to_builtins(checked),
        )  # fmt: skip

    def _campaign(self, edition: Edition, name: str) -> Campaign:
        campaigns = edition.serving.campaigns
        if name not in campaigns:
            fix = _nearest(name, campaigns, "use the name of a file in campaigns/")
            raise EventRejected("E399", "there is no such campaign", where="campaign", fix=fix)
        return campaigns[name]

    def _audience(self, edition: Edition, name: str) -> Audience:
        audiences = edition.audiences
        if name not in audiences:
            fix = _nearest(
                name, audiences, "define it in audiences.py, or name another with --audience"
            )
            raise EventRejected("E367", "there is no such audience", where="audience", fix=fix)
        return audiences[name]

    def letters(self, reason: str) -> Letters:
        """List pending dead letters; what was sent stays where it is."""
        _require_reason(reason)
        pending = 0
        shown: list[Letter] = []
        for one in self.parts.log.dead_letters(reason=reason):
            pending += 1
            if len(shown) < LETTERS_SHOWN:
                shown.append(Letter(
                    one.letter_id, one.source, format_instant(one.received_at_ms), one.reason,
                    one.path, one.what, one.message_id,
                ))  # fmt: skip
        return Letters(shown, pending)

    async def replay(self, data: ReplayLetters) -> LettersReplayed:
        """Send dead letters in again, some at a time: there may be many."""
        _require_reason(data.reason)
        parts = self.parts
        letters = parts.log.dead_letters(reason=data.reason)
        total = Replayed(0, {}, 0)
        while some := await asyncio.to_thread(lambda: list(islice(letters, LETTERS_AT_ONCE))):
            done = await replay_letters(
                parts.collector, parts.log, some, parts.sources, find_leaf=parts.find_leaf
            )
            for code, number in done.refused.items():
                total.refused[code] = total.refused.get(code, 0) + number
            total = Replayed(
                total.accepted + done.accepted, total.refused, total.quarantined + done.quarantined,
                total.counted + done.counted,
            )  # fmt: skip
        return LettersReplayed(*total)

    async def status(self) -> Status:
        """Return how the node is, and how old what it served was when it was asked."""
        serving = self.parts.editions.active.serving
        read = await serving.profiles.read([])
        age_ms = max(serving.clock.now_ms() - read.as_of_ms, 0)
        return msgspec.structs.replace(await self.parts.status(), age_ms=age_ms)

    async def sending(self, data: StartSend) -> AsyncIterator[bytes]:
        """Yield the progress of a send, a JSON line each, and its report at the end."""
        try:
            async for report in self._sending(data):
                yield msgspec.json.encode(report) + b"\n"
        except PenstockError as error:
            report = SendReport(True, data.campaign, data.send, 0, {}, error=failure(error))
            yield msgspec.json.encode(report) + b"\n"

    async def _sending(self, data: StartSend) -> AsyncIterator[SendReport]:
        parts = self.parts
        edition = await self._edition(data)
        campaigning = parts.campaigning(edition)
        campaign = self._campaign(edition, data.campaign)
        audience = self._audience(edition, data.audience or campaign.audience)
        send = data.send or campaigning.serving.default_send(campaign)
        await parts.definitions.versions.settled(edition)
        if data.dry_run:
            seen, outcomes, sample = 0, dict[str, int](), list[str]()
            async for member, name in campaigning.foresee(audience, campaign, send):
                seen += 1
                outcomes[name] = outcomes.get(name, 0) + 1
                if member and len(sample) < SAMPLE:
                    sample.append(tokens.email_token(campaigning.links.token_key, member.recipient))
            yield SendReport(True, campaign.name, send, seen, outcomes, sample=sample)
            return
        final = Progress(0, {})
        async for final, ended in self._run(
            campaigning, campaign, audience, send, retry_in_doubt=data.retry_in_doubt
        ):
            if not ended:
                yield SendReport(False, campaign.name, send, final.seen, final.outcomes)
        doubtful = await asyncio.to_thread(
            lambda: campaigning.serving.decisions.sends(campaign.name, send, state="started")
        )
        yield SendReport(
            True, campaign.name, send, final.seen, final.outcomes,
            in_doubt=[tokens.email_token(campaigning.links.token_key, key.recipient) for key, _ in doubtful],
        )  # fmt: skip

    async def _edition(self, data: StartSend) -> Edition:
        """Return the edition that a send goes by; its first send publishes a campaign.

        Raises:
            DefinitionError: It was published with definitions that are not kept any more (E193).
            EventRejected: There is no such campaign (E399).
        """
        editions = self.parts.editions
        campaign = self._campaign(editions.of(data.campaign), data.campaign)
        if data.republish and not data.dry_run:
            await self.parts.definitions.versions.publish_again(campaign.name, campaign.version)
        if not (data.dry_run and data.republish):
            editions.require(campaign)
        if not data.dry_run:
            await editions.publish(campaign.name)
        return editions.of(campaign.name)

    async def _run(
        self, campaigning: Campaigning, campaign: Campaign, audience: Audience, send: str, *,
        retry_in_doubt: bool,
    ) -> AsyncIterator[tuple[Progress, bool]]:  # fmt: skip
        """Yield how far a send has come, and at last that it ended; it stops if nobody listens."""
        if (campaign.name, send) in self._sends:
            # Two at once would each take the other's emails for ones in doubt.
            raise Unavailable("E415", f"send `{send}` of campaign `{campaign.name}` is running already",
                              fix="wait until it ends; sending again then goes on where it was")  # fmt: skip
        queue: asyncio.Queue[Progress | None] = asyncio.Queue()
        task = asyncio.create_task(
            campaigning.send(
                campaign,
                audience,
                send,
                retry_in_doubt=retry_in_doubt,
                progress=queue.put_nowait,
            ),
            name=SEND_TASK,
        )
        self._sends[campaign.name, send] = task

        def ended(_: asyncio.Task[Progress]) -> None:
            del self._sends[campaign.name, send]
            queue.put_nowait(None)

        task.add_done_callback(ended)
        count = 0
        try:
            while (progress := await queue.get()) is not None:
                count += 1
                if count % REPORT_EVERY == 0:
                    yield progress, False
        finally:
            task.cancel()
        if task.cancelled():
            raise Unavailable("E416", "the engine is stopping, and the send with it",
                              fix="start `penstock up` and send again under the same id: it goes on where it was")  # fmt: skip
        yield await task, True


def _require_reason(reason: str) -> None:
    """Refuse a reason that no letter can have: a misspelt one would find nothing, and say so."""
    if reason and reason not in CODES:
        told = [code for code in CODES if code.startswith("E3")]
        raise EventRejected("E369", "there is no error code of this name", where="reason",
                            fix=_nearest(reason.upper(), told, "use a code that `penstock dead-letters list` shows"))  # fmt: skip


def _nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean `{near[0]}`? Or {otherwise}" if near else otherwise


def _refuse(_: Any, error: EventRejected) -> Response[bytes]:
    answer = error_answer(error, 401)
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, status_code=answer.status, headers=headers)


def admin_handlers(parts: AdminParts) -> list[HTTPRouteHandler]:
    """Return the admin API's route handlers."""
    edge = AdminEdge(parts)

    def require_key(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        edge.require_key(connection.headers)

    # A guard runs before the body is read: a stranger's is not even parsed.
    shared: dict[str, Any] = {
        "tags": ["admin"], "guards": [require_key], "exception_handlers": {EventRejected: _refuse},
    }  # fmt: skip
    return [
        *_letters_handlers(edge, shared),
        *_work_handlers(edge, shared),
        *definitions_handlers(parts.definitions, edge.answer, shared),
        *identity_handlers(parts.identity, edge.answer, shared),
    ]


def _letters_handlers(edge: AdminEdge, shared: dict[str, Any]) -> list[HTTPRouteHandler]:
    @get("/v1/admin/dead-letters", responses=documented(Letters, "The first of them, and how many there are"),
         summary="Pending dead letters, oldest first", **shared)  # fmt: skip
    async def letters(request: Request[Any, Any, Any], reason: FromQuery[str] = "") -> Answer:
        return await edge.answer(request, lambda: asyncio.to_thread(edge.letters, reason))

    @post("/v1/admin/dead-letters/replay", status_code=200,
          responses=documented(LettersReplayed, "What became of them"),
          summary="Send dead letters in again", **shared)  # fmt: skip
    async def replay(request: Request[Any, Any, Any], data: JSONBody[ReplayLetters]) -> Answer:
        return await edge.answer(request, lambda: edge.replay(data))

    return [letters, replay]


def _work_handlers(edge: AdminEdge, shared: dict[str, Any]) -> list[HTTPRouteHandler]:
    @post("/v1/admin/load", status_code=200, responses=documented(RowsLoaded, "What became of the rows"),
          summary="Keep rows of a file", **shared)  # fmt: skip
    async def load(request: Request[Any, Any, Any], data: JSONBody[LoadRows]) -> Answer:
        return await edge.answer(request, lambda: edge.load(data))

    @post("/v1/admin/profiles", status_code=200, responses=documented(ProfilesPage, "The people of a page"),
          summary="Profiles page by page, for export", **shared)  # fmt: skip
    async def profiles(request: Request[Any, Any, Any], data: JSONBody[AskProfiles]) -> Answer:
        return await edge.answer(request, lambda: edge.profiles(data))

    @post("/v1/admin/explain", status_code=200, responses=documented(Why, "The decision explained"),
          summary="Why a person sees what they see", **shared)  # fmt: skip
    async def why(request: Request[Any, Any, Any], data: JSONBody[AskWhy]) -> Answer:
        return await edge.answer(request, lambda: edge.explain(data))

    @get("/v1/admin/status", responses=documented(Status, "How it is"),
         summary="The conservation law over durable data", **shared)  # fmt: skip
    async def status(request: Request[Any, Any, Any]) -> Answer:
        return await edge.answer(request, edge.status)

    @post("/v1/admin/sends", status_code=200,
          responses=documented(SendReport, "One JSON object a line, the last of them `done`", NDJSON),
          summary="Send a campaign; progress as JSON lines", **shared)  # fmt: skip
    async def send(request: Request[Any, Any, Any], data: JSONBody[StartSend]) -> Stream:
        return Stream(edge.sending(data), media_type=NDJSON)

    return [load, profiles, why, status, send]
