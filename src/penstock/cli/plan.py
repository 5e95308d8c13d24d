"""`penstock plan`: what differs between the project's files and what serves, before anything changes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from penstock.adapters.clock import SystemClock
from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.versions.folder import FolderVersions
from penstock.archives import open_log_beside
from penstock.candidates import VERSIONS_FOLDER, incomplete, serving_of
from penstock.cli.main import JSON, PROJECT, err, out, show
from penstock.core.definitions.changes import Change, Changes, changes_of
from penstock.core.definitions.retention import whole_reach
from penstock.core.definitions.versions import Table, Version
from penstock.core.errors import DefinitionError, PenstockError
from penstock.core.step import Step
from penstock.core.time import format_instant
from penstock.flows.estimate import Estimate, estimate
from penstock.flows.snapshot import Snapshot, since_by_feature, since_from
from penstock.logs import has_log, topic_changes
from penstock.project import Project, load_project
from penstock.stores import open_store_beside
from penstock.templates import template_faults

if TYPE_CHECKING:
    from penstock.adapters.log.kafka.topics import TopicChange

CHANGED = 2
REFUSED = 1
"""Exit codes, for a check in CI; 0 is that nothing differs."""

SIGNS = {"new": "+", "changed": "~", "dropped": "-"}
MIB = 1024 * 1024


class Planned(NamedTuple):
    """A plan: what serves, what differs, what is wrong, and what it will take."""

    table: Table
    active: Version | None
    changes: Changes | None
    """None if nothing serves yet."""
    faults: list[DefinitionError]
    cost: Estimate | None
    """None if no leaves are to be folded, or there is no log."""
    complete_since: dict[str, int] = {}  # noqa: RUF012 - never changed
    """Features that would lack history, since the log was truncated without an archive, ms UTC."""
    topics: Sequence[TopicChange] = ()
    """What is to become of topics, if the log is on Kafka."""


@click.command()
@click.option("--source", is_flag=True, help="Show the Python that the fold is compiled to.")
@PROJECT
@JSON
def command(source: bool, project_dir: Path, as_json: bool) -> None:
    """Compare the project's files with what serves: features, slots, privacy, and what a build will take.

    Ends with 0 if nothing differs, 2 if something does, and 1 if it does not load or can't be applied.
    """
    try:
        _compare(source, project_dir, as_json)
    except DefinitionError as error:
        # Its own exit code is that of a plan with differences, which a check in CI lets through.
        err.print(str(error))
        raise SystemExit(REFUSED) from None


def _compare(source: bool, project_dir: Path, as_json: bool) -> None:
    if source:
        click.echo(load_project(project_dir).plan.source(), nl=False)
        return
    faults: list[DefinitionError] = []
    project = load_project(project_dir, faults=faults)
    faults += template_faults(project, broken=bool(faults))
    planned = plan(project, faults)._replace(topics=topic_changes(project))
    show(_plain(planned, project), as_json, lambda: _say(planned, project))
    refused = (
        planned.faults
        or _incomplete(planned, project)
        or (planned.changes is not None and planned.changes.breaks)
        or any(one.fault for one in planned.topics)
    )
    if refused:
        raise SystemExit(REFUSED)
    if _differs(planned):
        raise SystemExit(CHANGED)


def plan(project: Project, faults: list[DefinitionError]) -> Planned:
    """Return a project's plan; it only reads, and may run beside `penstock up`."""
    versions = FolderVersions(project.data_dir / VERSIONS_FOLDER)
    table = versions.load()
    active = table.active
    if project.settings.log.kind == "memory" or active is None:
        return Planned(Table(), None, None, faults, None)
    serving = serving_of(project, versions)
    mode = project.settings.definitions.compatibility
    changes = changes_of(serving.declared(), project.declared(), mode)
    if not changes.rebuilds or faults or not has_log(project):
        return Planned(table, active, changes, faults, None)
    cost, late = _build(project, serving, active)
    return Planned(table, active, changes, faults, cost, late)


def _build(project: Project, serving: Project, active: Version) -> tuple[Estimate, dict[str, int]]:
    """Return what folding the new leaves will take, and which features will lack history."""
    late: dict[str, int] = {}
    with ExitStack() as opened:
        log = opened.enter_context(open_log_beside(project))
        old = None
        store = open_store_beside(project)
        if store is not None:
            opened.callback(store.close)
            old = (store, active.epoch, _step(serving))
            snapshot = Snapshot(store, active.epoch, serving.plan)
            since = since_from(log, snapshot, project.plan)
            late = since_by_feature(project.plan, since)
        cost = estimate(
            log, _step(project), MemoryStore, time.process_time, old=old,
            share=project.settings.definitions.build_share,
        )  # fmt: skip
        return cost, {name: at_ms for name, at_ms in late.items() if _lacks(project, name, at_ms)}


def _lacks(project: Project, name: str, since_ms: int) -> bool:
    """Return whether a feature looks back beyond an instant now."""
    (feature,) = [one for one in project.plan.features if one.name == name]
    reach_ms = whole_reach(feature)
    return reach_ms is None or SystemClock().now_ms() - reach_ms < since_ms


def _incomplete(planned: Planned, project: Project) -> list[DefinitionError]:
    """Return what looks back further than the log is kept, and is applied only where that is allowed."""
    return [] if planned.changes is None else incomplete(project, planned.changes)


def _step(project: Project) -> Step:
    return Step(project.plan, project.step_rules())


def _differs(planned: Planned) -> bool:
    changes = planned.changes
    return _changed(changes) or bool(planned.topics)


def _changed(changes: Changes | None) -> bool:
    return changes is None or bool(changes.changes or changes.effects or changes.rebuilds)


# -- for machines


def _plain(planned: Planned, project: Project) -> dict[str, Any]:
    changes = planned.changes
    return {
        "active": None if planned.active is None else planned.active.number,
        "differs": _differs(planned),
        "broken": [_fault(error) for error in planned.faults],
        **(msgspec.to_builtins(changes) if changes is not None else {}),
        "backfill": None if planned.cost is None else planned.cost._asdict(),
        "complete_since": {name: format_instant(at) for name, at in planned.complete_since.items()},
        "incomplete": [_fault(error) for error in _incomplete(planned, project)],
        "pinned_campaigns": _pins(planned, project),
        "kept_versions": [one.number for one in planned.table.retiring],
        "topics": [
            {"name": one.topic.name, "how": one.how, "details": [*one.details], "fault": one.fault}
            for one in planned.topics
        ],
    }


def _fault(error: PenstockError) -> dict[str, str]:
    return {"code": error.code, "what": error.what, "where": error.where, "fix": error.fix}


def _pins(planned: Planned, project: Project) -> list[str]:
    """Return the campaigns of today that go on with other definitions than those to be applied."""
    now = {f"{name}@{campaign.version}" for name, campaign in project.campaigns.items()}
    return sorted(name for name in planned.table.pins if name in now)


# -- for people


def _say(planned: Planned, project: Project) -> None:
    changes = planned.changes
    if changes is None:
        out.print(
            "Nothing serves yet: `penstock up` or `penstock apply` makes these definitions 1."
        )
    elif not _changed(changes):
        assert planned.active is not None, "something serves"
        out.print(f"Nothing differs from definitions {planned.active.number}, which serve.")
    else:
        assert planned.active is not None, "something serves"
        out.print(
            f"The project's files, compared with definitions {planned.active.number}, which serve:"
        )
        _say_changes(changes)
        _say_privacy(changes)
        _say_build(planned, changes)
        _say_late(planned)
        _say_campaigns(planned, project)
    _say_topics(planned)
    _say_wrong(planned, project)
    wrong = (
        planned.faults or _incomplete(planned, project) or any(one.fault for one in planned.topics)
    )
    if _differs(planned) and changes is not None and not wrong and not changes.breaks:
        out.print("\n`penstock apply` goes over to them; what serves goes on serving until then.")


def _say_changes(changes: Changes) -> None:
    kinds = dict.fromkeys(one.what for one in changes.changes)
    for what in kinds:
        out.print(f"\n{what}s" if what != "content" else "\ncontent")
        for change in changes.changes:
            if change.what == what:
                _say_change(change)
        if what == "feature":
            out.print(f"  = {changes.unchanged_features} unchanged")


def _say_change(change: Change) -> None:
    where = f"   ({change.where})" if change.where not in ("", change.name) else ""
    first = f": {change.details[0]}" if len(change.details) == 1 else ""
    out.print(f"  {SIGNS[change.how]} {change.name}{first}{where}")
    if len(change.details) > 1:
        for detail in change.details:
            out.print(f"      {detail}")


def _say_privacy(changes: Changes) -> None:
    if not changes.effects:
        return
    out.print("\nprivacy")
    for effect in changes.effects:
        out.print(f"  {'!' if effect.wider else ' '} {effect.path} {effect.what}")


def _say_build(planned: Planned, changes: Changes) -> None:
    out.print("\nbuild")
    if not changes.rebuilds:
        out.print("  none: the leaves stay as they are, and the switch is at once")
        return
    cost = planned.cost
    if planned.faults:
        out.print("  a second set of leaves; it is measured once nothing is broken")
        return
    if cost is None or not cost.per_s:
        out.print("  a second set of leaves; the log is empty, so it is at once")
        return
    out.print(
        f"  a second set of leaves from {cost.records:,} records: about {_duration(cost.seconds)}, beside live traffic"
    )
    out.print(
        f"  measured here: {cost.per_s:,} records a second of processor time, over {cost.sampled:,} records"
    )
    if cost.size_bytes is not None:
        out.print(
            f"  about {cost.size_bytes / MIB:.1f} MiB for {cost.leaves:,} leaves, beside those that serve while both are kept"
        )


def _say_late(planned: Planned) -> None:
    for name, at_ms in planned.complete_since.items():
        out.print(f"  {name} is complete since {format_instant(at_ms)} only: the log was truncated of what was before")  # fmt: skip


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "a second"
    if seconds < 120:
        return f"{round(seconds)} s"
    return f"{round(seconds / 60)} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _say_campaigns(planned: Planned, project: Project) -> None:
    pins = _pins(planned, project)
    if pins and planned.active is not None:
        out.print("\ncampaigns")
        for name in pins:
            out.print(f"  {name} was published with definitions {planned.table.pins[name]} and goes on with them while they "
                      "are kept; raise its `version`, or apply with --republish")  # fmt: skip


def _say_topics(planned: Planned) -> None:
    if planned.topics:
        out.print("\ntopics")
    for one in planned.topics:
        out.print(f"  {SIGNS[one.how]} {one.topic.name}: {one.topic.what}")
        for detail in one.details:
            out.print(f"      {detail}")
        if one.fault:
            out.print(f"    ! {one.fault}")
            out.print(
                "      fix: declare it as it is, with `log.partitions` and `log.kafka.replication`"
            )


def _say_wrong(planned: Planned, project: Project) -> None:
    changes = planned.changes
    if changes is not None and changes.doubts:
        out.print("\nlook at")
        for doubt in changes.doubts:
            out.print(f"  ? {doubt.owner} {doubt.what}   ({doubt.where})")
    if changes is not None and changes.breaks:
        out.print("\nbreaks events")
        for path, what in changes.breaks:
            out.print(f"  ! {path} {what}")
        out.print(
            "  fix: keep what senders go on sending; or, once they have changed, apply with --allow-breaks"
        )
    for title, errors in (
        ("lacks history", _incomplete(planned, project)),
        ("broken", planned.faults),
    ):
        if errors:
            out.print(f"\n{title}")
        for error in errors:
            out.print(f"  ! {error.code}: {error.what}   ({error.where})")
            out.print(f"    fix: {error.fix}")
