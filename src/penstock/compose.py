"""The one place where settings become objects: adapters are chosen here and parts are wired."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from threading import Lock
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from penstock.adapters.accelerator.native import accelerate_intake
from penstock.adapters.backup.data_folder import require_whole
from penstock.adapters.clock import SystemClock
from penstock.adapters.content.html_to_text import html_to_text
from penstock.adapters.decisions.memory import MemoryDecisions
from penstock.adapters.decisions.sqlite import SqliteDecisions
from penstock.adapters.esp.directory import DirectoryEsp
from penstock.adapters.esp.smtp import SmtpEsp
from penstock.adapters.files import clear_scratch
from penstock.adapters.keys.file import FileKeys
from penstock.adapters.keys.memory import MemoryKeys
from penstock.adapters.leaf_index.memory import MemoryLeafIndex
from penstock.adapters.leaf_index.sqlite import SqliteLeafIndex
from penstock.adapters.metrics.prometheus import PrometheusMetrics
from penstock.adapters.suppressions.memory import MemorySuppressions
from penstock.adapters.suppressions.sqlite import SqliteSuppressions
from penstock.adapters.versions.folder import FolderVersions
from penstock.adapters.versions.memory import MemoryVersions
from penstock.archives import make_archived_log
from penstock.candidates import (
    VERSIONS_FOLDER,
    CandidateParts,
    Standing,
    check_emails_of,
    load_changed,
    load_kept,
    make_candidate,
    standing_of,
)
from penstock.core.consent.suppression import Entries
from penstock.core.decision.pace import parse_caps, zone_of
from penstock.core.decision.record import decode_decision
from penstock.core.errors import DataCorrupt, SettingsError, Unavailable
from penstock.core.protect import Protector
from penstock.core.record import Record, decode_record
from penstock.core.step import Step
from penstock.core.time import HOUR_MS
from penstock.flows.archiving import ArchivedLog
from penstock.flows.collect import Collector, Source, source_of
from penstock.flows.editions import Edition, Editions
from penstock.flows.generations import gone_on, seal_of
from penstock.flows.history import History
from penstock.flows.pacing import Pacing
from penstock.flows.past import Past
from penstock.flows.permissions import make_whole
from penstock.flows.render import Links
from penstock.flows.replay import Epoch
from penstock.flows.send import Campaigning, Sender
from penstock.flows.serve import Serving
from penstock.flows.snapshot import Snapshot
from penstock.flows.tiered import TieredLog
from penstock.flows.track import decision_record
from penstock.housekeeping import begin_beside, keep_whole, upkeep_jobs
from penstock.logs import (
    LOG_FILE,
    open_log,
    open_spool,
    own_folder,
    require_empty,
    require_same_log,
    require_shared,
)
from penstock.ports.clock import Clock
from penstock.ports.decisions import Decided, DecisionKey, Decisions
from penstock.ports.esp import Esp
from penstock.ports.keys import IDENTIFIER_KEY, PSEUDONYM_KEY, TOKEN_KEY, Keys
from penstock.ports.leaf_index import LeafIndex
from penstock.ports.log import Log
from penstock.ports.metrics import Metrics
from penstock.ports.renderer import Renderer
from penstock.ports.spool import Spool
from penstock.ports.store import Store
from penstock.ports.suppressions import Suppressions
from penstock.ports.versions import Versions
from penstock.project import Project
from penstock.runtimes.embedded import EmbeddedEngine
from penstock.runtimes.engine import Engine, Sets
from penstock.runtimes.grouping import Grouper
from penstock.runtimes.leaf_sets import Follower
from penstock.runtimes.outbox import OutboxPump
from penstock.runtimes.popular import PopularFollowers
from penstock.runtimes.reading import ReadingEngine, ReadingSets
from penstock.runtimes.side_by_side import Candidate, SideBySide
from penstock.runtimes.upkeep import Upkeep
from penstock.settings import KINDS, EspSettings, Settings
from penstock.stores import cache_leaves, open_registers, open_store, require_its_own

KEY_BYTES = 32
KEYS_FILE = "keys.json"
CACHED_BESIDE = 5
"""A set of leaves that is folded beside has a fifth of the decoded leaves of the one that serves."""
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
    versions: Versions = field(default_factory=MemoryVersions)
    archived: ArchivedLog | None = None
    """The log in the archive, if the project has one; `log` reads from it what it was truncated of."""
    snapshots: Lock = field(default_factory=Lock)
    """Held while snapshots of leaves move on, or new leaves begin from one."""
    spool: Spool | None = None
    """Where batches wait that the log does not acknowledge, if the project has one."""
    release: Callable[[], None] = lambda: None
    """Gives the data folder back, if the log does not."""

    def close(self) -> None:
        """Release files and connections."""
        for part in (self.index, self.log, self.store, self.suppressions, self.decisions):
            part.close()
        if self.archived is not None:
            self.archived.archive.close()
        if self.spool is not None:
            self.spool.close()
        self.release()


def make_keys(keys: Keys) -> None:
    """Make the keys that are missing. Existing ones never change."""
    for name in KEY_NAMES:
        keys.put_if_absent(name, secrets.token_bytes(KEY_BYTES))


def open_stores(project: Project, clock: Clock | None = None) -> Stores:
    """Open a project's log, store, keys and small stores, and own them; the system's clock by default.

    Raises:
        SettingsError: A kind of adapter does not exist (E206), two kinds do not go together (E207),
            there is a log without its keys (E208), the data folder can't be made (E218), a restore into
            it was cut short (E243), or it is another tenant's (E250); the log can't be opened as declared
            (E280 to E283, E287), or leaves are of another log (E286); the store can't be used (E290 to E298).
        Unavailable: Another process owns the data folder (E407), or brokers (E401) or the store (E402) do not
            answer.
        DataCorrupt: The log lacks what leaves have applied (E760).
    """
    clock = clock or SystemClock()
    settings = project.settings
    memory = settings.log.kind == "memory"
    workers = settings.fold.by == "workers"
    folder = project.data_dir
    if workers:
        require_shared(settings)
    _require_kind("log.kind", settings.log.kind)
    _require_kind("store.kind", settings.store.kind)
    if memory and settings.store.kind != "memory":
        # What the store has applied would be skipped in the next run's log, which begins anew.
        raise SettingsError("E207", "a store that outlives its process cannot follow a log in memory", where="store.kind",
                            fix='set store.kind to "memory" too, or log.kind to "sqlite"')  # fmt: skip
    if not memory or settings.store.kind != "memory":
        _make_folder(folder)
        require_whole(folder)
    if not memory:
        _require_its_keys(folder)
    tenant = settings.project.tenant
    with ExitStack() as opened:
        # The log first: it holds the lock on the folder, and gives it back if the rest does not open.
        release = own_folder(project)
        opened.callback(release)
        log: Log = open_log(project, clock)
        opened.callback(log.close)
        keys: Keys = MemoryKeys() if memory else FileKeys(folder / KEYS_FILE)
        if log.shared and not (folder / KEYS_FILE).exists():
            require_empty(log, folder / KEYS_FILE)
        make_keys(keys)
        for beside in (folder, project.root):
            clear_scratch(beside)
        _require_tenant(log, tenant)
        archived = make_archived_log(project)
        if archived is not None:
            log = TieredLog(log, archived)
            opened.callback(archived.archive.close)
        store = open_store(project)
        opened.callback(store.close)
        require_same_log(log, store)
        require_its_own(store, log, keys)
        suppressions: Suppressions
        decisions: Decisions
        if registers := open_registers(project, log):
            suppressions, decisions = registers
        else:
            suppressions = (
                MemorySuppressions()
                if memory
                # Whoever owns the folder writes to the register alone, unless workers heal it.
                else SqliteSuppressions(
                    folder / "suppressions.db", tenant=tenant, owned=not workers
                )
            )
            decisions = MemoryDecisions() if memory else SqliteDecisions(folder / "decisions.db")
        opened.callback(suppressions.close)
        opened.callback(decisions.close)
        spool = open_spool(project)
        if spool is not None:
            opened.callback(spool.close)
        index: LeafIndex = MemoryLeafIndex() if memory else SqliteLeafIndex(folder / "index.db")
        opened.pop_all()
    versions: Versions = MemoryVersions() if memory else FolderVersions(folder / VERSIONS_FOLDER)
    return Stores(
        keys, log, store, suppressions, decisions, index, versions, archived, spool=spool, release=release,
    )  # fmt: skip


def _require_its_keys(folder: Path) -> None:
    if (folder / LOG_FILE).exists() and not (folder / KEYS_FILE).exists():
        raise SettingsError("E208", "the data folder holds a log, and its keys are missing",
                            where=str(folder / KEYS_FILE), fix="restore the keys from their backup; with "
                            "new ones every identifier would be somebody else")  # fmt: skip


def _require_tenant(log: Log, tenant: str) -> None:
    """Refuse a log of another tenant: everybody in it would be unknown, and so would what they said."""
    for partition in range(log.partitions):
        with suppress(DataCorrupt):  # damage is told of by whoever reads what is damaged
            kept = {
                decode_record(one.value).tenant
                for one in log.read(partition, log.first(partition), 1)
            }
            if kept - {tenant, ""}:
                raise SettingsError("E250", "the data folder is another tenant's", where="project.tenant",
                                    fix="set it back to what it was, or name another data folder; a tenant is "
                                    "never renamed, since every identifier is kept under it")  # fmt: skip


def _make_folder(folder: Path) -> None:
    try:
        # The log holds what people did: nobody but its owner looks into the folder.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError("E218", f"the data folder can't be made: {error.strerror}", where=str(folder),
                            fix="set `data_dir` to a folder that you may write to") from error  # fmt: skip


def _require_kind(name: str, kind: str) -> None:
    """Refuse, of settings that come from no file, what those of a file are refused for when they load."""
    known = KINDS[name]
    if kind not in known:
        raise SettingsError("E206", f"setting `{name}` names an adapter that does not exist",
                            where=name, fix=f"use one of {', '.join(known)}")  # fmt: skip


def make_esp(settings: EspSettings, root: Path) -> Esp:
    """Return who carries emails.

    Raises:
        SettingsError: The kind does not exist (E206).
    """
    _require_kind("esp.kind", settings.kind)
    if settings.kind == "directory":
        return DirectoryEsp(root / settings.path)
    return SmtpEsp(
        settings.host, settings.port, username=settings.username, password=settings.password,
        tls=settings.tls,
    )  # fmt: skip


def require_reachable_links(settings: Settings) -> None:
    """Refuse to send what strangers get with links that only this machine can follow.

    Files of `directory`, and a relay on this machine, are where emails are tried out.

    Raises:
        SettingsError: Emails go to another machine, and `server.public_url` is not set or names this
            machine (E253).
    """
    if settings.esp.kind != "smtp" or _is_here(settings.esp.host):
        return
    public_url = settings.server.public_url
    host = urlsplit(public_url).hostname
    if not host or _is_here(host):
        raise SettingsError("E253", "emails would go out with links that lead nowhere, the unsubscribe link among them: "
                            f"`server.public_url` {'names this machine' if public_url else 'is not set'}",
                            where="server.public_url", fix="set it in penstock.toml to how mail clients reach this server, "
                            'such as "https://mail.shop.example"')  # fmt: skip


def _is_here(host: str) -> bool:
    """Return whether a host is this machine: a loopback address, or the address of any interface."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


@dataclass
class Node:
    """A running project: one process that collects, folds, serves and sends."""

    project: Project
    """What was loaded from its folder when it started; `versions` knows what serves."""
    stores: Stores
    epoch: Epoch
    """The leaves that served at the start, and whether they were there."""
    clock: Clock
    metrics: Metrics
    engine: Engine
    collector: Collector
    versions: SideBySide
    sources: dict[str, Source]
    """By name."""
    decider: Grouper[tuple[DecisionKey, bytes], Decided]
    register: Grouper[Entries, None]
    """Writes suppressions: one transaction for all that arrive meanwhile."""
    pump: OutboxPump
    history: History
    upkeep: Upkeep
    popular: PopularFollowers
    load: Callable[[Project], Candidate]
    """Makes a candidate of a project that was loaded."""
    pending: bool = False
    """Whether `project` is not what serves, and is to be applied as soon as this runs."""
    on_replay: Callable[[], None] = lambda: None
    """Told before a replay without which there is nothing to serve."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def editions(self) -> Editions:
        """What requests go by."""
        return self.versions.editions

    @property
    def serving(self) -> Serving:
        """What answers by the definitions that serve now."""
        return self.editions.active.serving

    @property
    def renderer(self) -> Renderer:
        """The templates that serve now."""
        return self.serving.renderer

    def past(self, edition: Edition | None = None) -> Past:
        """Return what answers about the past, by the definitions that serve or others that are kept."""
        edition = edition or self.editions.active
        snapshot = Snapshot(self.stores.store, edition.epoch, edition.step.plan)
        return Past(edition.serving, self.history, edition.step, snapshot)

    async def start(self) -> None:
        """Catch up with the log, take up what is kept beside, and begin to pump decisions."""
        if not self.epoch.current and self.engine.folds_here:
            self.on_replay()
        await asyncio.to_thread(make_whole, self.stores.log, self.stores.suppressions)
        await self.engine.start()
        self.engine.appender.resume()
        if not self.epoch.current and self.engine.folds_here:
            await self.engine.settled()
        await self.versions.start()
        if self.pending:
            candidate = await asyncio.to_thread(self.load, self.project)
            await self.versions.replace(candidate, republish=True)
        self._tasks = [
            asyncio.create_task(self.pump.run(), name="penstock-outbox"),
            asyncio.create_task(self.upkeep.run(), name="penstock-upkeep"),
            asyncio.create_task(self.popular.run(), name="penstock-popular"),
        ]
        if self.stores.store.remote:
            keeping = keep_whole(self.stores.log, self.stores.suppressions)
            self._tasks.append(asyncio.create_task(keeping, name="penstock-register"))

    async def close(self) -> None:
        """Drain and write everything; the stores stay open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.popular.close()
        await self.decider.close()
        await self.register.close()
        await self.versions.stop()
        with suppress(Unavailable):
            await self.pump.pump()  # what stays in the outbox is pumped by the next start
        await self.engine.close()
        await self.versions.close()


def make_node(
    project: Project, stores: Stores, *, clock: Clock | None = None, metrics: Metrics | None = None,
) -> Node:  # fmt: skip
    """Wire a project's parts. Nothing runs until `start`.

    What serves is the version of the definitions that served before; if the folder has changed since,
    it is applied once the node runs, or waits for `penstock apply`, as the settings say.

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
    standing = standing_of(
        project, versions=stores.versions, store=stores.store, log=stores.log, clock=clock
    )
    serving = standing.project
    engine, sets = _make_engine(standing, stores, settings, clock, metrics)
    if stores.spool is not None:
        engine.appender.spool_into(stores.spool)
    identifier_key = stores.keys.get(IDENTIFIER_KEY)
    register = _register(stores.suppressions)
    collector = Collector(
        catalog=serving.catalog, protector=Protector(stores.keys.get(PSEUDONYM_KEY)),
        identity=serving.identity_rules(), consent=serving.consent_rules(),
        identifier_key=identifier_key, tenant=tenant, appender=engine.appender,
        suppressions=stores.suppressions, clock=clock, metrics=metrics, find_item=engine.find,
        put_suppressions=lambda entries: register.submit([entries]),
        accelerate=accelerate_intake() if settings.fold.accelerated else None,
    )  # fmt: skip
    decider: Grouper[tuple[DecisionKey, bytes], Decided] = Grouper(
        stores.decisions.put_if_absent, name="penstock-decide"
    )

    popular = PopularFollowers(stores.log, clock)
    parts = CandidateParts(
        project=project, identifier_key=identifier_key, decisions=stores.decisions,
        suppressions=stores.suppressions, versions=stores.versions, collector=collector,
        put_decisions=decider.submit, clock=clock, metrics=metrics, popular=popular, store=stores.store,
    )  # fmt: skip
    definitions = settings.definitions
    active = make_candidate(parts, serving, content=standing.content)
    versions = SideBySide(
        engine=engine, sets=sets, versions=stores.versions, table=standing.table, active=active,
        load=partial(load_kept, parts), clock=clock, metrics=metrics,
        keep_ms=definitions.keep_hours * HOUR_MS,
        cached_max=max(settings.store.cached_leaves_max // CACHED_BESIDE, 1),
        begin=partial(begin_beside, stores, engine),
    )  # fmt: skip

    def to_record(raw: bytes) -> Record:
        return decision_record(decode_decision(raw))

    differs = project.digest != serving.digest and not project.kept
    wanted = definitions.apply == "up" and project.digest != standing.table.declined
    return Node(
        project=project, stores=stores, epoch=standing.epoch, clock=clock, metrics=metrics, engine=engine,
        collector=collector, versions=versions,
        sources={
            name: source_of(name, source.kind, source.rank, source.basis, source.identity_keys)
            for name, source in settings.sources.items()
        },
        decider=decider, register=register,
        pump=OutboxPump(stores.decisions, engine.appender, to_record, metrics),
        history=History(stores.log, stores.index, partial(seal_of, stores.store)),
        upkeep=Upkeep(
            upkeep_jobs(project, stores, metrics, clock, versions), idle=lambda: engine.lag() == 0, metrics=metrics
        ),
        popular=popular,
        load=partial(load_changed, parts),
        pending=differs and wanted,
    )  # fmt: skip


def _make_engine(
    standing: Standing, stores: Stores, settings: Settings, clock: Clock, metrics: Metrics
) -> tuple[Engine, Sets]:
    """Return what takes records in and answers for their leaves: it folds, or workers do."""
    step, epoch = Step(standing.project.plan, standing.project.step_rules()), standing.epoch.number
    # A trial run in memory folds itself, whatever the settings say of the real one.
    if settings.fold.by == "workers" and stores.log.shared:
        reading = ReadingEngine(
            log=stores.log, store=stores.store, step=step, epoch=epoch, clock=clock, metrics=metrics,
            cache=cache_leaves(settings, stores.store),
        )  # fmt: skip
        return reading, ReadingSets(reading)
    if stores.log.generations.newest > stores.log.generations.first:
        raise gone_on()
    engine = EmbeddedEngine(
        log=stores.log, store=stores.store, suppressions=stores.suppressions, step=step, epoch=epoch,
        clock=clock, metrics=metrics, flush_ms=settings.store.flush_ms,
        cached_max=settings.store.cached_leaves_max, covered=standing.covered,
    )  # fmt: skip
    return engine, Follower(engine, share=settings.definitions.build_share)


def _register(suppressions: Suppressions) -> Grouper[Entries, None]:
    """Return the awaited way to write suppressions, in which as many may wait as memory holds."""

    def put(some: Sequence[Entries]) -> list[None]:
        suppressions.put([entry for entries in some for entry in entries])
        return [None] * len(some)

    return Grouper(put, name="penstock-register", waiting_max=1_000_000)


def make_links(node: Node, base_url: str) -> Links:
    """Return what makes the links in emails: the settings' public URL, or where this process listens."""
    public_url = node.project.settings.server.public_url or base_url
    return Links(public_url.rstrip("/"), node.stores.keys.get(TOKEN_KEY))


def make_campaigning(node: Node, links: Links, edition: Edition | None = None) -> Campaigning:
    """Return what scans audiences and sends campaigns, by the edition that serves or another."""
    project, edition = node.project, edition or node.editions.active
    email = project.settings.email

    def esp() -> Esp:
        require_reachable_links(project.settings)
        return make_esp(project.settings.esp, project.root)

    address = f"{email.sender_name} <{email.sender}>" if email.sender_name else email.sender
    return Campaigning(
        serving=edition.serving, store=node.stores.store, epoch=edition.epoch,
        appender=node.engine.appender, esp=esp,
        links=links, sender=Sender(address, email.sender.rpartition("@")[2], email.reply_to, tuple(email.seeds)),
        text_of_html=html_to_text, make_leaf=node.collector.make_leaf,
        connections=project.settings.esp.connections,
        pacing=Pacing(
            parse_caps(email.caps), zone_of(project.settings.project.timezone) or ZoneInfo("UTC"),
            email.timezone_trait,
        ),
    )  # fmt: skip


def check_emails(node: Node) -> None:
    """Render every campaign as a stranger gets it, before anybody does.

    Raises:
        DefinitionError: A template fails (E140), or an email is larger than mail clients show (E183).
    """
    check_emails_of(node.editions.active)
