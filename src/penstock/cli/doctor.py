"""`penstock doctor`: what is right, what is wrong, and the fix for each."""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
import time
import tomllib
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from pathlib import Path
from shutil import disk_usage
from typing import Any

import click
import msgspec

from penstock import __version__
from penstock.adapters.accelerator import native
from penstock.adapters.backup.data_folder import ARRIVING, VERIFIED
from penstock.adapters.clock import SystemClock
from penstock.adapters.log.sqlite.salvage import survey
from penstock.candidates import serving_of
from penstock.cli import doctor_kafka, doctor_servers, doctor_spool
from penstock.cli.client import Admin, in_process, running_url, with_admin
from penstock.cli.finding import APART_MS_MAX, Finding, check, fault, since
from penstock.cli.main import JSON, PROJECT, out, show
from penstock.cli.repair import heads_of, named
from penstock.compose import Stores, open_stores, require_reachable_links
from penstock.core.errors import DataCorrupt, PenstockError, Unavailable
from penstock.core.ids import LeafId
from penstock.core.record import NO_VERSION, Kind, Version, decode_record
from penstock.core.step import Step
from penstock.flows.generations import seal_of
from penstock.flows.history import History, Known
from penstock.flows.refold import SAMPLE_LEAVES, refold, reread, sample
from penstock.flows.replay import LIVE_EPOCH, fingerprint_name
from penstock.flows.status import conservation
from penstock.fold_settings import FoldSettings
from penstock.logs import LOG_FILE
from penstock.project import Project, load_project
from penstock.settings import ArchiveSettings, LogSettings, SourceSettings, StoreSettings
from penstock.templates import make_renderer, require_templates

PYTHON = (3, 11)
DISK_FREE_BYTES = 1 << 30
ESP_TIMEOUT_S = 2.0
SECRET = {"read_keys", "admin_key", "write_key", "password", "seeds", "identity_keys"}
PROBE_KEY = "doctor"
GAPS_SHOWN = 20
"""Damaged places of the log that are named one by one."""


@click.command()
@click.option(
    "--verbose", "-v", is_flag=True, help="Show every setting and where it came from; no secrets."
)
@PROJECT
@JSON
def command(verbose: bool, project_dir: Path, as_json: bool) -> None:
    """Check the installation, the project and its data, in order, and say the fix for each fault."""
    findings = list(examine(project_dir))
    result = [finding._asdict() for finding in findings]

    def say() -> None:
        for one in findings:
            out.print(f"{one.state:>5}  {one.what}")
            for name, value in one.details.items() if verbose else ():
                out.print(f"         {name} = {value}")
            if one.fix:
                out.print(f"         fix: {one.fix}")

    show(result, as_json, say)
    sys.exit(max(one.exit_code for one in findings))


def examine(project_dir: Path) -> Iterator[Finding]:
    """Yield the findings, in the order of what depends on what."""
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= PYTHON
    yield Finding("ok" if good else "FAIL", f"python {version}, penstock {__version__}",
                  "" if good else "install Python 3.11 or newer", 0 if good else 1)  # fmt: skip
    if sys.flags.optimize:
        yield Finding("FAIL", "python runs with -O, which removes checks", "start it without -O", 1)
    try:
        project = load_project(project_dir)
    except PenstockError as error:
        yield fault("project", error)
        yield Finding("skip", "the rest: it needs a project that loads")
        return
    yield _settings(project)
    yield _accelerator(project)
    yield _keys_of(project)
    yield Finding("ok", f"definitions of `{project.settings.project.name}`: {len(project.catalog.event_types)} events, "
                  f"{len(project.plan.features)} features, {len(project.audiences)} audiences, "
                  f"{len(project.slots)} slots, {len(project.campaigns)} campaigns")  # fmt: skip
    templates = check("templates", lambda: _templates(project))
    yield templates
    yield check("esp", lambda: _esp(project))
    if project.settings.store.kind == "redis":
        yield from doctor_servers.redis(project)
    if project.settings.registry.url:
        yield from doctor_servers.registry(project)
    if templates.exit_code:
        yield Finding("skip", "probe event: it needs templates that parse")
    else:
        yield check("probe event", lambda: asyncio.run(_probe(project)))
    yield _disk(project)
    yield from doctor_spool.spool(project)
    opens = True
    if project.settings.log.kind == "kafka":
        opens = yield from doctor_kafka.kafka(project)
    yield from doctor_kafka.connectors(project)
    if not opens:
        yield Finding("skip", "log and store: they need brokers that let us in, and their topics")
        return
    if running_url(project.data_dir):
        yield check("running", lambda: with_admin(project_dir, _ask))
        yield Finding(
            "skip", "log and store: `penstock up` owns them; stop it to read every byte back"
        )
    elif not _holds_data(project.data_dir):
        yield Finding("skip", "log and store: there is no data yet")
    else:
        yield from _data(project)


def _holds_data(folder: Path) -> bool:
    """Return whether there is anything to look at; a folder that is none is to be complained of."""
    if folder.is_dir():
        return any((folder / name).exists() for name in (LOG_FILE, "store.db", ARRIVING, VERIFIED))
    return folder.exists()


# -- the installation and the project


def _settings(project: Project) -> Finding:
    told = tomllib.loads((project.root / "penstock.toml").read_text(encoding="utf-8"))
    values = dict(_flat(project.settings, told))
    ours = sum(origin != "default" for _, origin in values.values())
    return Finding(
        "ok", f"settings: {len(values)} values ({len(values) - ours} default, {ours} penstock.toml)",
        details={name: f"{_shown(name, value)} ({origin})" for name, (value, origin) in values.items()},
    )  # fmt: skip


def _flat(
    struct: msgspec.Struct, told: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Yield each setting's dotted name, its value, and where the value came from."""
    for name in struct.__struct_fields__:
        value, said = getattr(struct, name), told.get(name)
        if isinstance(value, msgspec.Struct):
            yield from _flat(value, said or {}, f"{prefix}{name}.")
        elif name == "sources":
            for source, entry in value.items():
                assert isinstance(entry, SourceSettings), "a source is a struct"
                yield from _flat(entry, (said or {}).get(source, {}), f"{prefix}{name}.{source}.")
        else:
            yield f"{prefix}{name}", (value, "default" if said is None else "penstock.toml")


def _shown(name: str, value: Any) -> str:
    if name.rpartition(".")[2] not in SECRET or not value:
        return repr(value)
    return f"{len(value)} not shown" if isinstance(value, list) else "not shown"


def _keys_of(project: Project) -> Finding:
    server = project.settings.server
    missing = [name for name, key in (("server.read_keys", server.read_keys), ("server.admin_key", server.admin_key),
               *((f"sources.{name}.write_key", source.write_key)
                 for name, source in project.settings.sources.items() if source.kind == "browser"))
               if not key]  # fmt: skip
    if missing:
        return Finding(
            "FAIL", f"keys: {', '.join(missing)} not set", "set them in penstock.toml", 3
        )
    writing = sum(bool(source.write_key) for source in project.settings.sources.values())
    return Finding("ok", f"keys: 1 admin, {len(server.read_keys)} read, {writing} write")


def _templates(project: Project) -> str:
    require_templates(project)
    return f"{len(make_renderer(project).names())} parsed"


def _esp(project: Project) -> str:
    esp = project.settings.esp
    if esp.kind == "directory":
        return f"emails become files in {esp.path}"
    require_reachable_links(project.settings)
    started = time.perf_counter()
    try:
        with socket.create_connection((esp.host, esp.port), ESP_TIMEOUT_S):
            pass
    except OSError as error:
        raise Unavailable("E406", f"{esp.host} port {esp.port} could not be reached: {error.strerror or 'no answer'}",
                          fix="check esp.host and esp.port in penstock.toml, and the network", where="esp") from error  # fmt: skip
    return f"smtp {esp.host} port {esp.port} answers in {since(started)} ms"


async def _probe(project: Project) -> str:
    """Send one event through the whole engine, in memory, and read what became of it."""
    settings = msgspec.structs.replace(
        project.settings,
        log=LogSettings(kind="memory"), store=StoreSettings(kind="memory"), archive=ArchiveSettings(), fold=FoldSettings(),
        sources={PROBE_KEY: SourceSettings(kind="server", write_key=PROBE_KEY)},
    )  # fmt: skip
    probed = replace(project, settings=settings)
    rules = project.consent_rules()
    granted = dict.fromkeys([*rules.categories, *rules.purposes], True)
    body = {"type": "identify", "messageId": "probe", "userId": "probe", "writeKey": PROBE_KEY,
            "context": {"consent": {"categoryPreferences": granted}}}  # fmt: skip
    started = time.perf_counter()
    stores = open_stores(probed)
    try:
        async with in_process(probed, stores) as (node, http):
            answer = await http.post("/v1/identify", json=body)
            await node.engine.settled()
            leaf = node.collector.make_leaf("user_id", "probe")
            read = await node.engine.read([leaf])
    finally:
        stores.close()
    if answer.status_code != 200 or read.leaves[0] is None:
        raise Unavailable("E414", f"it was answered {answer.status_code} and did not reach its profile",
                          fix="look at `consent` and `project.undeclared` in penstock.toml")  # fmt: skip
    return f"in and out of the engine in {since(started)} ms, in memory"


def _accelerator(project: Project) -> Finding:
    if not project.settings.fold.accelerated:
        return Finding("ok", "fold and intake: in Python, as `fold.accelerated` says")
    installed = native.found()
    if installed is None:
        return Finding("ok", "fold and intake: in Python, as `penstock-native` is not installed")
    if native.accelerate() is None:
        return Finding(
            "skip",
            f"fold and intake: in Python, as {installed} is of another version; install the one that came with this",
        )
    return Finding("ok", f"fold and intake: by {installed}")


def _disk(project: Project) -> Finding:
    folder = project.data_dir if project.data_dir.exists() else project.root
    free = disk_usage(folder).free
    if free < DISK_FREE_BYTES:
        return Finding(
            "FAIL",
            f"disk: {free >> 20} MiB free",
            "make room: events are refused when it is full",
            1,
        )
    return Finding("ok", "disk: more than 1 GiB free")


# -- a process that runs


def _ask(admin: Admin) -> Awaitable[str]:
    async def work() -> str:
        started = time.perf_counter()
        status = await admin.get("/v1/admin/status")
        took_ms = since(started)
        if not status["ready"]:
            raise Unavailable("E414", f"`penstock up` takes no events: {status['reason']}",
                              fix="see what it printed; restart it")  # fmt: skip
        if not status["conserved"]:
            raise _not_conserved(status["accepted"])
        return (
            f"`penstock up` answers in {took_ms} ms; {status['head']} records, lag {status['lag']}, epoch "
            f"{status['epoch']}, {status['leaves']} leaves; conserved: {status['accepted']} accepted"
        )

    return work()


# -- the data


def _data(project: Project) -> Iterator[Finding]:
    try:
        stores = open_stores(project)
    except DataCorrupt as error:
        yield fault("data", error)
        yield from _damage(project)
        return
    except PenstockError as error:
        yield fault("data", error)
        return
    try:
        yield Finding("ok", "keys.json: there, and only its owner reads it")
        yield check("clock", lambda: _clock(stores))
        log = check("log", lambda: _log(stores))
        yield log
        yield check("suppressions and decisions", lambda: _small(stores))
        if log.exit_code:
            yield from _damage(project)
            yield Finding("skip", "store: it needs a log that reads back")
        else:
            yield check("store", lambda: _store(project, stores))
            if project.settings.archive.place:
                yield check("archive", lambda: _archive(stores))
    finally:
        stores.close()


def _damage(project: Project) -> Iterator[Finding]:
    """Name every place of the log that does not read back."""
    folder = project.data_dir
    if project.settings.log.kind != "sqlite" or not (folder / LOG_FILE).exists():
        return
    try:
        found = survey(folder / LOG_FILE, heads_of(project))
    except PenstockError as error:
        yield fault("log", error)
        return
    if found.whole:
        return
    places = "; ".join(map(named, found.gaps[:GAPS_SHOWN]))
    more = (
        f" and {len(found.gaps) - GAPS_SHOWN} more places" if len(found.gaps) > GAPS_SHOWN else ""
    )
    letters = f"{found.letters} dead letters" if found.letters else ""
    what = ", ".join(filter(None, (places + more, letters)))
    yield Finding("FAIL", f"damage: {what} do not read back" if what else "damage: all of the log reads back, and its file is not in order",
                  "`penstock repair --from BACKUP` puts back what a backup or the archive has and goes around the rest", DataCorrupt.exit_code)  # fmt: skip


def _archive(stores: Stores) -> str:
    archived, log = stores.archived, stores.log
    assert archived is not None, "it has a place"
    kept = archived.segments()
    for one in kept:
        archived.check(one)
    partitions = range(log.partitions)
    # What the log gave up must be there: nothing else has it.
    for gone in (one for partition in partitions for one in log.archived(partition)):
        archived.open_named(gone)
    covered = sum(
        archived.covered(log, partition) - log.first(partition) for partition in partitions
    )
    return f"{len(kept)} segments read back; {covered} records of this log are in it without a gap"


def _clock(stores: Stores) -> str:
    log = stores.log
    last = max(log.last_logged_at_ms(partition) for partition in range(log.partitions))
    if last - SystemClock().now_ms() > APART_MS_MAX:
        raise Unavailable("E411", "the clock is more than five minutes behind the log's last stamp",
                          fix="set the clock, and let NTP keep it")  # fmt: skip
    return "not behind the log's last stamp"


def _log(stores: Stores) -> str:
    log = stores.log
    read = gone = 0
    for partition in range(log.partitions):
        offset = log.truncation(partition).end
        gone += offset
        while batch := log.read(partition, offset, 5_000):
            offset = batch[-1].offset + 1
            read += len(batch)
    counts = log.counts()
    pending = counts["dead_letters"] - counts["replayed"]
    truncated = f" after {gone} that were truncated" if gone else ""
    return f"{read} records read back{truncated}, {pending} dead letters pending"


def _small(stores: Stores) -> str:
    stores.suppressions.get([LeafId(bytes(16))])
    waiting = len(stores.decisions.outbox(1_000))
    return f"readable, {waiting} decisions wait for the log"


def _store(project: Project, stores: Stores) -> str:
    live = int(stores.store.get_meta(LIVE_EPOCH) or 0)
    if not live:
        return "empty; `penstock up` fills it"
    project = serving_of(project, stores.versions)
    if stores.store.get_meta(fingerprint_name(live)) != project.fingerprint:
        return "made by another version of Penstock; `penstock up` replays the log"
    law = conservation(stores.log, stores.store, live, project.plan)
    if lost := _lost(stores, live):
        raise DataCorrupt("E711", f"{lost} events that the store says it applied are in no leaf",
                          fix="copy the data folder, then rebuild the store with `penstock replay --accept`")  # fmt: skip
    if not law.holds:
        raise _not_conserved(law.accepted)
    leaves = sample(stores.store, live, SAMPLE_LEAVES, secrets.randbits(32))
    step = Step(project.plan, project.step_rules())
    truncated = any(stores.log.truncation(one).end for one in range(stores.log.partitions))
    # Found by the index, what is in the archive alone is not read as a whole.
    history = History(stores.log, stores.index)
    entries = history.entries(leaves, Known()) if truncated else reread(stores.log, leaves)
    refold(entries, stores.log, stores.store, step, live, leaves)
    counted = (
        f"conserved: {law.accepted} accepted, {law.in_flight} in flight" if law.whole else
        "not counted: the topic's retention took what was before"
    )  # fmt: skip
    return (
        f"{law.leaves} leaves decoded; {counted}; "
        f"{len(leaves)} leaves refolded from the log, equal byte for byte"
    )


def _lost(stores: Stores, epoch: int) -> int:
    """Count the events that the applied offset covers and no leaf does: no restart folds them."""
    log, store = stores.log, stores.store
    versions: dict[LeafId, Version] = {}
    after = None
    while page := store.scan(epoch, after, 1_000):
        versions.update((leaf, stored.version) for leaf, stored in page)
        after = page[-1][0]
    lost = 0
    for partition in range(log.partitions):
        applied = store.applied(epoch, partition)
        generation = log.generations.generation(partition)
        end = applied.offset if applied.generation == generation else -1
        seal = seal_of(store, partition)
        end = end if seal is None else min(end, seal)
        for start in range(log.truncation(partition).end, end + 1, 5_000):
            for entry in log.read(partition, start, min(5_000, end + 1 - start)):
                record = decode_record(entry.value)
                covered = versions.get(LeafId(record.leaf), NO_VERSION) >= (
                    generation,
                    entry.offset,
                )
                lost += record.kind == Kind.PRIMARY and not covered
    return lost


def _not_conserved(accepted: int) -> DataCorrupt:
    return DataCorrupt("E711", f"{accepted} events were accepted, and the leaves account for another number",
                       fix="copy the data folder, then rebuild the store with `penstock replay --accept`")  # fmt: skip
