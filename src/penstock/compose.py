"""The one place where settings become objects: adapters are chosen here and parts are wired."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from litestar import Litestar
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig

from penstock import __version__
from penstock.adapters.clock import SystemClock
from penstock.adapters.content.html_to_text import html_to_text
from penstock.adapters.content.inline import inline_css
from penstock.adapters.content.liquid import LiquidRenderer
from penstock.adapters.content.mjml import compile_mjml
from penstock.adapters.decisions.memory import MemoryDecisions
from penstock.adapters.decisions.sqlite import SqliteDecisions
from penstock.adapters.esp.directory import DirectoryEsp
from penstock.adapters.esp.smtp import SmtpEsp
from penstock.adapters.keys.file import FileKeys
from penstock.adapters.keys.memory import MemoryKeys
from penstock.adapters.leaf_index.memory import MemoryLeafIndex
from penstock.adapters.leaf_index.sqlite import SqliteLeafIndex
from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.log.sqlite import SqliteLog
from penstock.adapters.metrics.prometheus import PrometheusMetrics
from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.store.sqlite import SqliteStore
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.adapters.suppressions.sqlite import SqliteSuppressions
from penstock.core.decision.pace import parse_caps, zone_of
from penstock.core.decision.popular import tallies_of
from penstock.core.decision.record import decode_decision
from penstock.core.errors import DefinitionError, SettingsError, Unavailable
from penstock.core.protect import Protector
from penstock.core.record import Record
from penstock.core.step import Step
from penstock.edges.admin.bodies import Status
from penstock.edges.admin.routes import AdminParts, admin_handlers
from penstock.edges.asgi import log_fault, refuse, refuse_fault
from penstock.edges.collector.keys import write_key
from penstock.edges.collector.routes import collector_handlers
from penstock.edges.operations import operations_handlers
from penstock.edges.preview.routes import PreviewParts, preview_handlers
from penstock.edges.serving.asks import ReadKeys, who_of
from penstock.edges.serving.mail import mail_handlers
from penstock.edges.serving.routes import ServingParts, serving_handlers
from penstock.flows.collect import Collector, Source, source_of
from penstock.flows.feedback import Feedback
from penstock.flows.history import History
from penstock.flows.pacing import Pacing
from penstock.flows.past import Past
from penstock.flows.person import Definitions
from penstock.flows.render import Links, render_email
from penstock.flows.replay import LIVE_EPOCH, Epoch, choose_epoch, covered_offsets, make_live
from penstock.flows.send import Campaigning, Sender
from penstock.flows.serve import ServeRules, Serving, Who
from penstock.flows.shelf import ShelfItem, shelf
from penstock.flows.status import conservation
from penstock.flows.track import decision_record
from penstock.ports.clock import Clock
from penstock.ports.decisions import Decided, DecisionKey, Decisions
from penstock.ports.esp import Esp
from penstock.ports.keys import IDENTIFIER_KEY, PSEUDONYM_KEY, TOKEN_KEY, Keys
from penstock.ports.leaf_index import LeafIndex
from penstock.ports.log import Log
from penstock.ports.metrics import Metrics
from penstock.ports.store import Store
from penstock.ports.suppressions import Suppressions
from penstock.project import Project
from penstock.runtimes.embedded import EmbeddedEngine
from penstock.runtimes.grouping import Grouper
from penstock.runtimes.outbox import OutboxPump
from penstock.runtimes.popular import PopularFollower
from penstock.runtimes.upkeep import Upkeep
from penstock.settings import EspSettings

KEY_BYTES = 32
KEYS_FILE = "keys.json"
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
PREVIEW_ITEMS_MAX = 200
KEY_NAMES = (IDENTIFIER_KEY, TOKEN_KEY, PSEUDONYM_KEY)


@dataclass(frozen=True)
class Stores:
    """Everything of a project that is kept."""

    keys: Keys
    log: Log
    store: Store
    suppressions: Suppressions
    decisions: Decisions
    index: LeafIndex = field(default_factory=MemoryLeafIndex)
    """Of the log by leaf; made again from the log if it is lost."""

    def close(self) -> None:
        """Release files and connections."""
        for part in (self.index, self.log, self.store, self.suppressions, self.decisions):
            part.close()


def make_keys(keys: Keys) -> None:
    """Make the keys that are missing. Existing ones never change."""
    for name in KEY_NAMES:
        keys.put_if_absent(name, secrets.token_bytes(KEY_BYTES))


def open_stores(project: Project, clock: Clock | None = None) -> Stores:
    """Open a project's log, store, keys and small stores, and own them; the system's clock by default.

    Raises:
        SettingsError: A kind of adapter does not exist (E206), two kinds do not go together (E207),
            there is a log without its keys (E208), or the data folder can't be made (E218).
        Unavailable: Another process owns the data folder (E407).
    """
    clock = clock or SystemClock()
    settings = project.settings
    memory = settings.log.kind == "memory"
    folder = project.data_dir
    _require_kind("log.kind", settings.log.kind, ("sqlite", "memory"))
    _require_kind("store.kind", settings.store.kind, ("sqlite", "memory"))
    if memory and settings.store.kind != "memory":
        # What the store has applied would be skipped in the next run's log, which begins anew.
        raise SettingsError("E207", "a store on disk cannot follow a log in memory", where="store.kind",
                            fix='set store.kind to "memory" too, or log.kind to "sqlite"')  # fmt: skip
    if not memory or settings.store.kind != "memory":
        _make_folder(folder)
    if not memory and (folder / "log.db").exists() and not (folder / KEYS_FILE).exists():
        raise SettingsError("E208", "the data folder holds a log, and its keys are missing",
                            where=str(folder / KEYS_FILE), fix="restore the keys from their backup; with "
                            "new ones every identifier would be somebody else")  # fmt: skip
    keys: Keys = MemoryKeys() if memory else FileKeys(folder / KEYS_FILE)
    make_keys(keys)
    tenant = settings.project.tenant
    with ExitStack() as opened:
        # The log first: it holds the lock on the folder, and gives it back if the rest does not open.
        log: Log = (
            MemoryLog(clock, partitions=settings.log.partitions)
            if memory
            else SqliteLog(folder / "log.db", clock, partitions=settings.log.partitions)
        )
        opened.callback(log.close)
        store: Store = (
            MemoryStore()
            if settings.store.kind == "memory"
            else SqliteStore(folder / "store.db", tenant=tenant)
        )
        opened.callback(store.close)
        suppressions: Suppressions = (
            MemorySuppressions()
            if memory
            else SqliteSuppressions(folder / "suppressions.db", tenant=tenant)
        )
        opened.callback(suppressions.close)
        decisions: Decisions = (
            MemoryDecisions() if memory else SqliteDecisions(folder / "decisions.db")
        )
        opened.callback(decisions.close)
        index: LeafIndex = MemoryLeafIndex() if memory else SqliteLeafIndex(folder / "index.db")
        opened.pop_all()
    return Stores(keys, log, store, suppressions, decisions, index)


def _make_folder(folder: Path) -> None:
    try:
        # The log holds what people did: nobody but its owner looks into the folder.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError("E218", f"the data folder can't be made: {error.strerror}", where=str(folder),
                            fix="set `data_dir` to a folder that you may write to") from error  # fmt: skip


def _require_kind(name: str, kind: str, known: Sequence[str]) -> None:
    if kind not in known:
        raise SettingsError("E206", f"setting `{name}` names an adapter that does not exist",
                            where=name, fix=f"use one of {', '.join(known)}")  # fmt: skip


def make_esp(settings: EspSettings, root: Path) -> Esp:
    """Return who carries emails.

    Raises:
        SettingsError: The kind does not exist (E206).
    """
    _require_kind("esp.kind", settings.kind, ("directory", "smtp"))
    if settings.kind == "directory":
        return DirectoryEsp(root / settings.path)
    return SmtpEsp(
        settings.host, settings.port, username=settings.username, password=settings.password,
        tls=settings.tls,
    )  # fmt: skip


def make_renderer(project: Project) -> LiquidRenderer:
    """Return the renderer of a project's templates, all of them parsed.

    Raises:
        DefinitionError: A template does not parse (E141) or its MJML does not compile.
    """

    def prepare_html(name: str, source: str) -> str:
        return inline_css(name, compile_mjml(name, source) if ".mjml" in name else source)

    return LiquidRenderer(project.root / "content", prepare_html=prepare_html)


@dataclass
class Node:
    """A running project: one process that collects, folds, serves and sends."""

    project: Project
    stores: Stores
    epoch: Epoch
    clock: Clock
    metrics: Metrics
    engine: EmbeddedEngine
    collector: Collector
    serving: Serving
    renderer: LiquidRenderer
    sources: dict[str, Source]
    """By name."""
    decider: Grouper[tuple[DecisionKey, bytes], Decided]
    pump: OutboxPump
    history: History
    past: Past
    upkeep: Upkeep
    popular: PopularFollower
    on_replay: Callable[[], None] = lambda: None
    """Told before a replay that new definitions ask for."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        """Catch up with the log, switch to the epoch if it is new, and begin to pump decisions."""
        if not self.epoch.current:
            self.on_replay()
        await self.engine.start()
        if not self.epoch.current:
            await self.engine.settled()
            make_live(self.stores.store, self.epoch.number)
        self._tasks = [
            asyncio.create_task(self.pump.run(), name="penstock-outbox"),
            asyncio.create_task(self.upkeep.run(), name="penstock-upkeep"),
            asyncio.create_task(self.popular.run(), name="penstock-popular"),
        ]

    async def close(self) -> None:
        """Drain and write everything; the stores stay open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.popular.close()
        await self.decider.close()
        with suppress(Unavailable):
            await self.pump.pump()  # what stays in the outbox is pumped by the next start
        await self.engine.close()


def make_node(
    project: Project, stores: Stores, *, clock: Clock | None = None, metrics: Metrics | None = None,
) -> Node:  # fmt: skip
    """Wire a project's parts. Nothing runs until `start`.

    Args:
        project: The loaded project.
        stores: Its stores.
        clock: The system's, unless a test turns one by hand.
        metrics: A fresh Prometheus registry by default.
    """
    clock = clock or SystemClock()
    metrics = metrics or PrometheusMetrics()
    settings = project.settings
    tenant = settings.project.tenant
    epoch = choose_epoch(stores.store, project.fingerprint)
    live = int(stores.store.get_meta(LIVE_EPOCH) or 0)
    step = Step(project.plan, project.step_rules())
    engine = EmbeddedEngine(
        log=stores.log, store=stores.store, suppressions=stores.suppressions,
        step=step, epoch=epoch.number, clock=clock, metrics=metrics,
        flush_ms=settings.store.flush_ms, cached_max=settings.store.cached_leaves_max,
        covered=[] if epoch.current else covered_offsets(stores.log, stores.store, live),
    )  # fmt: skip
    identifier_key = stores.keys.get(IDENTIFIER_KEY)
    collector = Collector(
        catalog=project.catalog, protector=Protector(stores.keys.get(PSEUDONYM_KEY)),
        identity=project.identity_rules(), consent=project.consent_rules(),
        identifier_key=identifier_key, tenant=tenant, appender=engine.appender,
        suppressions=stores.suppressions, clock=clock, metrics=metrics, find_item=engine.find,
    )  # fmt: skip
    decider: Grouper[tuple[DecisionKey, bytes], Decided] = Grouper(
        stores.decisions.put_if_absent, name="penstock-decide"
    )
    renderer = make_renderer(project)
    sources = [(one.kind, one.args) for slot in project.slots.values()
               for one in (*slot.candidates, *slot.fallback)]  # fmt: skip
    popular = PopularFollower(stores.log, tallies_of(sources), project.consent_rules(), clock)
    serving = Serving(
        profiles=engine, decisions=stores.decisions, put_decisions=decider.submit,
        suppressions=stores.suppressions, renderer=renderer, campaigns=project.campaigns,
        definitions=definitions_of(project),
        rules=ServeRules(
            tenant, identifier_key,
            global_holdout_ppm=round(settings.decision.global_holdout_share * 1_000_000),
            timeout_ms=settings.decision.serve_timeout_ms,
            stale_after_ms=settings.decision.stale_after_ms,
        ),
        clock=clock, metrics=metrics, on_fault=log_fault, popular=popular.rankings,
    )  # fmt: skip

    history = History(stores.log, stores.index)

    def to_record(raw: bytes) -> Record:
        return decision_record(decode_decision(raw))

    return Node(
        project=project, stores=stores, epoch=epoch, clock=clock, metrics=metrics, engine=engine,
        collector=collector, serving=serving, renderer=renderer,
        sources={
            name: source_of(name, source.kind, source.rank, source.basis, source.identity_keys)
            for name, source in settings.sources.items()
        },
        decider=decider,
        pump=OutboxPump(stores.decisions, engine.appender, to_record, metrics),
        history=history, past=Past(serving, history, Step(project.plan, project.step_rules())),
        upkeep=Upkeep(stores.log, stores.index, idle=lambda: engine.lag() == 0), popular=popular,
    )  # fmt: skip


def definitions_of(project: Project) -> Definitions:
    """Return what a read needs to know of a project."""
    return Definitions(
        project.plan, project.identity_rules(), project.consent_rules(), project.trait_purposes()
    )


def make_links(node: Node, base_url: str) -> Links:
    """Return what makes the links in emails: the settings' public URL, or where this process listens."""
    public_url = node.project.settings.server.public_url or base_url
    return Links(public_url.rstrip("/"), node.stores.keys.get(TOKEN_KEY))


def make_campaigning(node: Node, links: Links) -> Campaigning:
    """Return what scans audiences and sends campaigns."""
    project = node.project
    email = project.settings.email
    address = f"{email.sender_name} <{email.sender}>" if email.sender_name else email.sender
    return Campaigning(
        serving=node.serving, store=node.stores.store, epoch=node.epoch.number,
        appender=node.engine.appender, esp=lambda: make_esp(project.settings.esp, project.root),
        links=links, sender=Sender(address, email.sender.rpartition("@")[2], email.reply_to, tuple(email.seeds)),
        text_of_html=html_to_text, make_leaf=node.collector.make_leaf,
        connections=project.settings.esp.connections,
        pacing=Pacing(
            parse_caps(email.caps), zone_of(project.settings.project.timezone) or ZoneInfo("UTC"),
            email.timezone_trait,
        ),
    )  # fmt: skip


def admin_parts(node: Node, links: Links) -> AdminParts:
    """Return what the admin routes call."""
    stores, engine, project = node.stores, node.engine, node.project

    async def status() -> Status:
        await engine.settled()
        law = await asyncio.to_thread(
            conservation, stores.log, stores.store, node.epoch.number, project.plan
        )
        ready, reason = engine.ready()
        return Status(
            ready=ready, reason=reason, live=engine.live(), epoch=node.epoch.number,
            head=sum(stores.log.head(partition) for partition in range(stores.log.partitions)),
            lag=engine.lag(), accepted=law.accepted, applied=law.applied,
            deduplicated=law.deduplicated, policy_dropped=law.policy_dropped,
            dead_lettered=law.dead_lettered, in_flight=law.in_flight, conserved=law.holds,
            links=law.links, leaves=law.leaves,
        )  # fmt: skip

    def find_who(asked: Any) -> Who:
        return who_of(asked, node.collector.make_leaf, links.token_key)

    return AdminParts(
        admin_key=project.settings.server.admin_key, collector=node.collector,
        campaigning=make_campaigning(node, links), log=stores.log, history=node.history, past=node.past,
        plan=project.plan,
        audiences=project.audiences, sources=node.sources, find_who=find_who, status=status,
        settled=engine.settled,
    )  # fmt: skip


def preview_parts(node: Node, links: Links) -> PreviewParts:
    """Return what the preview's routes call.

    Raises:
        SettingsError: The server's address is not loopback, or a folder does not exist (E219).
    """
    project, store = node.project, node.stores.store
    settings = project.settings
    if settings.server.host not in LOOPBACK_HOSTS:
        raise SettingsError("E219", "the preview shows shoppers' emails without a key, and the server's "
                            "address is not loopback", where="development.preview",
                            fix='set it to false, or server.host to "127.0.0.1"')  # fmt: skip
    images = {
        prefix: project.root / folder for prefix, folder in settings.development.images.items()
    }
    for prefix, folder in images.items():
        if not folder.is_dir():
            raise SettingsError("E219", "the folder of a preview's pictures does not exist", where=prefix,
                                fix="make it, or remove the line from development.images")  # fmt: skip

    async def items() -> list[ShelfItem]:
        return await asyncio.to_thread(
            shelf, store, node.epoch.number, project.plan, PREVIEW_ITEMS_MAX
        )

    return PreviewParts(
        name=settings.project.name,
        write_key=next(
            (one.write_key for one in settings.sources.values() if one.kind == "browser" and one.write_key), ""
        ),
        consent=sorted({*settings.consent.categories} or {*project.consent_rules().purposes}),
        serving=node.serving, links=links, text_of_html=html_to_text,
        find_who=lambda asked: who_of(asked, node.collector.make_leaf, links.token_key),
        history=node.history, shelf=items, images=images,
    )  # fmt: skip


def check_emails(node: Node) -> None:
    """Render every campaign as a stranger gets it, before anybody does.

    Raises:
        DefinitionError: A template fails (E140), or an email is larger than mail clients show (E183).
    """
    for name, campaign in node.project.campaigns.items():
        if not campaign.template:
            continue
        answer = node.serving.fallback(name, "check").answer
        rendered = render_email(
            node.renderer, campaign, answer, None, links=make_links(node, "https://links.example"),
            recipient=None, text_of_html=html_to_text, track=False,
        )  # fmt: skip
        if rendered.size.verdict == "refuse":
            raise DefinitionError("E183", f"campaign `{name}` renders to {rendered.size.bytes} bytes, "
                                  "which mail clients clip", where=campaign.where,
                                  fix="shorten the template to less than 100 kB")  # fmt: skip


def make_app(node: Node, base_url: str = "http://127.0.0.1:8080") -> Litestar:
    """Return the HTTP application of a node: collector, serving, mail links, operations, admin.

    Args:
        node: The node; it is started and closed by whoever made it.
        base_url: Where this process listens, for links if the settings name no public URL.
    """
    settings, clock, metrics = node.project.settings, node.clock, node.metrics
    links = make_links(node, base_url)
    feedback = Feedback(
        decisions=node.stores.decisions, appender=node.engine.appender,
        suppressions=node.stores.suppressions, token_key=links.token_key,
        tenant=settings.project.tenant, clock=clock, metrics=metrics,
    )  # fmt: skip
    write_keys = [
        write_key(source.write_key, name, source.kind, source.rank, basis=source.basis,
                  origins=source.origins, identity_keys=source.identity_keys)
        for name, source in settings.sources.items() if source.write_key
    ]  # fmt: skip
    parts = ServingParts(
        serving=node.serving, make_leaf=node.collector.make_leaf, links=links,
        read_keys=ReadKeys([*settings.server.read_keys, settings.server.admin_key]),
        text_of_html=html_to_text, clock=clock, metrics=metrics, past=node.past,
    )  # fmt: skip
    return Litestar(
        route_handlers=[
            *collector_handlers(
                node.collector, write_keys, clock=clock, metrics=metrics,
                requests_max=settings.server.requests_max,
                requests_per_s_per_key=settings.server.requests_per_s_per_key,
                public_url=settings.server.public_url,
            ),
            *serving_handlers(parts),
            *mail_handlers(feedback),
            *admin_handlers(admin_parts(node, links)),
            *operations_handlers(node.engine.ready, metrics, node.engine.publish),
            *(preview_handlers(preview_parts(node, links)) if settings.development.preview else ()),
        ],
        openapi_config=OpenAPIConfig(title="Penstock", version=__version__, path="/schema"),
        exception_handlers={HTTPException: refuse, Exception: refuse_fault},
        logging_config=None,
    )  # fmt: skip
