"""A project's definitions become a candidate: loaded, rendered once, and ready to get leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from penstock.adapters.content.html_to_text import html_to_text
from penstock.adapters.files import drop_scratch
from penstock.adapters.versions.folder import FolderVersions
from penstock.core.decision.popular import tallies_of
from penstock.core.definitions.changes import Changes
from penstock.core.definitions.retention import forgetting, whole_reach
from penstock.core.definitions.versions import Table, Version, first, rebuilt
from penstock.core.errors import DefinitionError
from penstock.core.feature.lasting import ALWAYS
from penstock.core.ids import LeafId
from penstock.core.step import Step
from penstock.edges.asgi import log_fault
from penstock.flows.collect import Collector
from penstock.flows.editions import Edition
from penstock.flows.person import Definitions, Since
from penstock.flows.render import Links, render_email
from penstock.flows.replay import (
    LIVE_EPOCH,
    Epoch,
    choose_epoch,
    covered_offsets,
    fingerprint_name,
)
from penstock.flows.serve import PutDecisions, ServeRules, Serving
from penstock.flows.snapshot import begin, since_by_feature, since_of
from penstock.ports.clock import Clock
from penstock.ports.decisions import Decisions
from penstock.ports.log import Log
from penstock.ports.metrics import Metrics
from penstock.ports.profiles import LeafRead, Profiles
from penstock.ports.store import Store
from penstock.ports.suppressions import Suppressions
from penstock.ports.versions import Versions
from penstock.project import Project, load_project, load_version
from penstock.runtimes.popular import PopularFollowers
from penstock.runtimes.side_by_side import Candidate
from penstock.settings import load_settings
from penstock.templates import make_renderer, require_templates

VERSIONS_FOLDER = "definitions"
"""In the data folder: the table of versions, and their files."""


class Standing(NamedTuple):
    """What serves when a node starts."""

    table: Table
    project: Project
    content: Path | None
    """Where its templates are, if not in the project's folder; removed once they are read."""
    epoch: Epoch
    covered: list[int]
    """By partition, the offset up to which all that records ask for is durable; empty for none."""


def standing_of(
    project: Project, *, versions: Versions, store: Store, log: Log, clock: Clock
) -> Standing:
    """Return what serves; what the table does not know yet becomes its first version.

    Raises:
        DefinitionError: What would be the first version has a template that shows a hole (E197).
        SettingsError: Leaves would have to be made from a log whose beginning is gone (E275).
    """
    table = versions.load()
    active = table.active
    if active is None:
        require_templates(project)
        live = int(store.get_meta(LIVE_EPOCH) or 0)
        epoch = choose_epoch(store, project.fingerprint)
        if not epoch.current:
            begin(log, store, epoch.number, project.plan, None)
        table = first(table, digest=project.digest, fingerprint=project.fingerprint, epoch=epoch.number,
                      now_ms=clock.now_ms())  # fmt: skip
        standing = table.active
        assert standing is not None, "it was just put there"
        versions.put_files(standing.number, project.files)
        versions.put(table)
        covered = [] if epoch.current else covered_offsets(log, store, live)
        return Standing(table, project, None, epoch, covered)
    content: Path | None = None
    serving = project
    if active.digest != project.digest or project.kept:
        serving, folder = load_version(
            versions.files(active.number), project.root, project.settings
        )
        content = folder / "content"
    if active.fingerprint != serving.fingerprint:
        # Another version of Penstock computes these definitions in another way: all leaves anew.
        taken = [*store.epochs(), *(one.epoch for one in table.versions)]
        # Or it is refused: no snapshot is of these.
        begin(log, store, max(taken) + 1, serving.plan, None)
        known = covered_of(table, log)
        durable = covered_offsets(log, store, active.epoch)
        table = rebuilt(table, active.number, max(taken) + 1, serving.fingerprint,
                        generation=log.generation, covered=[*map(max, known, durable)])  # fmt: skip
        versions.put(table)
        active = table.version(active.number)
    name = fingerprint_name(active.epoch)
    current = store.get_meta(name) == active.fingerprint
    if not current:
        begin(log, store, active.epoch, serving.plan, None)
    store.put_meta(name, active.fingerprint)
    covered = covered_of(table, log)
    return Standing(table, serving, content, Epoch(active.epoch, current), covered)


def covered_of(table: Table, log: Log) -> list[int]:
    """Return, by partition, the offset up to which the table says that all that records ask for is durable."""
    known = [*table.covered] if table.generation <= log.generation else []
    return known + [-1] * (log.partitions - len(known))


def serving_of(project: Project, versions: Versions) -> Project:
    """Return the definitions that serve: the project, unless its files have changed since they were applied.

    Raises:
        DefinitionError: The kept files do not load with this version of Penstock (E1xx).
    """
    active = versions.load().active
    if active is None or active.digest == project.digest:
        return project
    loaded, folder = load_version(versions.files(active.number), project.root, project.settings)
    drop_scratch(folder)
    return loaded


def load_serving(root: Path, *, always: bool = False) -> tuple[Project, DefinitionError | None]:
    """Return a project as its folder says it is; if that is wrong, as what serves says it is.

    A mistake in the files is no reason to stop what serves. While a project is written it is: its
    author wants to hear of it.

    Args:
        root: The project's folder.
        always: Fall back to what serves even where files come to serve by themselves.

    Returns:
        The project, and what is wrong with its files.

    Raises:
        SettingsError: `penstock.toml` is wrong.
        DefinitionError: The files are wrong, and nothing serves that could stand in.
    """
    try:
        return load_project(root), None
    except DefinitionError as error:
        settings = load_settings(root / "penstock.toml")
        versions = FolderVersions(root / settings.data_dir / VERSIONS_FOLDER)
        active = versions.load().active
        if active is None or (settings.definitions.apply == "up" and not always):
            raise
        return load_applied(root), error


def load_applied(root: Path) -> Project:
    """Return a project as what serves says it is, whatever its folder holds now.

    Raises:
        SettingsError: `penstock.toml` is wrong.
        DefinitionError: Nothing serves yet (E190), or what does is not loaded by this version of Penstock.
    """
    settings = load_settings(root / "penstock.toml")
    versions = FolderVersions(root / settings.data_dir / VERSIONS_FOLDER)
    active = versions.load().active
    if active is None:
        raise DefinitionError("E190", "no definitions serve yet", where=str(root),
                              fix="run `penstock up`, or `penstock apply`")  # fmt: skip
    project, folder = load_version(versions.files(active.number), root, settings)
    drop_scratch(folder)
    return project


def steps_of(project: Project, versions: Versions) -> dict[int, Step]:
    """Return what folds each set of leaves that is kept, by epoch.

    Raises:
        DefinitionError: The kept files of one do not load with this version of Penstock (E1xx).
    """
    steps: dict[int, Step] = {}
    for version in versions.load().versions:
        if version.state == "dropped" or version.epoch in steps:
            continue
        loaded, folder = load_version(
            versions.files(version.number), project.root, project.settings
        )
        drop_scratch(folder)
        steps[version.epoch] = Step(loaded.plan, loaded.step_rules())
    return steps


@dataclass(frozen=True)
class CandidateParts:
    """What every version of the definitions of one node shares.

    Attributes:
        project: As it was loaded: its folder and its settings are those of the process.
    """

    project: Project
    identifier_key: bytes
    decisions: Decisions
    suppressions: Suppressions
    versions: Versions
    collector: Collector
    put_decisions: PutDecisions
    clock: Clock
    metrics: Metrics
    popular: PopularFollowers
    store: Store


def load_kept(parts: CandidateParts, version: Version) -> Candidate:
    """Return a version as its kept files say it is.

    Raises:
        DefinitionError: They are not kept (E190), or do not load with this version of Penstock.
    """
    files = parts.versions.files(version.number)
    if not files:
        raise DefinitionError("E190", f"the files of definitions {version.number} are not kept",
                              fix="apply the files you want")  # fmt: skip
    loaded, folder = load_version(files, parts.project.root, parts.project.settings)
    return make_candidate(parts, loaded, content=folder / "content")


def incomplete(project: Project, changes: Changes) -> list[DefinitionError]:
    """Return an error for each new or changed feature that looks back further than the log is kept (E122).

    None if an archive holds what is gone from the log.
    """
    log = project.settings.log
    if not log.forget or not log.keep_ms or project.settings.archive.place:
        return []
    touched = [*changes.named("feature", "new"), *changes.named("feature", "changed")]
    return [*forgetting(project.plan, touched, log.keep_ms)]


def load_changed(parts: CandidateParts, project: Project) -> Candidate:
    """Return what the project's folder holds now, to be applied; its emails are rendered once.

    Raises:
        DefinitionError: A template is wrong (E140, E141, E144, E197), or an email is too large (E183).
    """
    require_templates(project)
    candidate = make_candidate(parts, project)
    check_emails_of(candidate.edition(0, NoLeaves(), 0))
    return candidate


def make_candidate(
    parts: CandidateParts, project: Project, *, content: Path | None = None
) -> Candidate:
    """Return a project's definitions, ready to get leaves and to serve.

    Args:
        parts: What versions share.
        project: The definitions.
        content: The folder of their templates if it is not the project's; it is removed, and the one
            that holds it.

    Raises:
        DefinitionError: A template is wrong (E141).
    """
    settings = project.settings
    try:
        renderer = make_renderer(project, content)
    finally:
        if content is not None:
            drop_scratch(content.parent)

    step = Step(project.plan, project.step_rules())
    sources = [(one.kind, one.args) for slot in project.slots.values()
               for one in (*slot.candidates, *slot.fallback)]  # fmt: skip
    popular = parts.popular.of(tallies_of(sources), project.consent_rules())

    def edition(number: int, leaves: Profiles, epoch: int) -> Edition:
        serving = Serving(
            profiles=leaves, decisions=parts.decisions, put_decisions=parts.put_decisions,
            suppressions=parts.suppressions, renderer=renderer, campaigns=project.campaigns,
            definitions=definitions_of(project, since_of(parts.store, epoch)),
            rules=ServeRules(
                settings.project.tenant, parts.identifier_key,
                global_holdout_ppm=round(settings.decision.global_holdout_share * 1_000_000),
                timeout_ms=settings.decision.serve_timeout_ms,
                stale_after_ms=settings.decision.stale_after_ms,
                definitions_number=number,
            ),
            clock=parts.clock, metrics=parts.metrics, on_fault=log_fault, popular=popular,
        )  # fmt: skip
        return Edition(number, epoch, serving, project.audiences, step)

    def adopt() -> None:
        parts.collector.adopt(project.catalog, project.identity_rules(), project.consent_rules())

    return Candidate(
        digest=project.digest, fingerprint=project.fingerprint,
        step=step, files=project.files, edition=edition, adopt=adopt,
        declared=project.declared(),
    )  # fmt: skip


class NoLeaves(Profiles):
    """Reads for an edition that is only looked at: it knows nobody."""

    async def read(self, leaves: Sequence[LeafId]) -> LeafRead:
        """Return that nothing is known."""
        return LeafRead([None] * len(leaves), 0, live=False)


def definitions_of(project: Project, since: Mapping[str, int] | None = None) -> Definitions:
    """Return what a read needs to know of a project.

    Args:
        project: The project.
        since: From when the states of its leaves are complete, of those that lack history.
    """
    late: dict[str, Since] = {}
    reaches = {feature.name: whole_reach(feature) for feature in project.plan.features}
    for name, since_ms in since_by_feature(project.plan, since or {}).items():
        reach_ms = reaches[name]
        late[name] = Since(since_ms, ALWAYS if reach_ms is None else since_ms + reach_ms)
    return Definitions(
        project.plan, project.identity_rules(), project.consent_rules(), project.trait_purposes(), late
    )  # fmt: skip


def check_emails_of(edition: Edition) -> None:
    """Render every campaign of an edition as a stranger gets it; errors as `check_emails`."""
    serving = edition.serving
    for name, campaign in serving.campaigns.items():
        if not campaign.template:
            continue
        answer = serving.static(name, "check").answer
        rendered = render_email(
            serving.renderer, campaign, answer, None, links=Links("https://links.example", bytes(32)),
            recipient=None, text_of_html=html_to_text, track=False,
        )  # fmt: skip
        if rendered.size.verdict == "refuse":
            raise DefinitionError("E183", f"campaign `{name}` renders to {rendered.size.bytes} bytes, "
                                  "which mail clients clip", where=campaign.where,
                                  fix="shorten the template to less than 100 kB")  # fmt: skip
