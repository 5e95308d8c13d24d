"""What `penstock doctor` asks Kafka: who may do what, whether topics are as declared, how far groups are."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from penstock.adapters.clock import SystemClock
from penstock.cli.client import running_url
from penstock.cli.finding import OK, SKIP, Finding, check, fault, require_together, since
from penstock.connectors import client_for, group_of, require_whole
from penstock.core.errors import PenstockError, SettingsError, Unavailable
from penstock.flows.replay import LIVE_EPOCH, told_epochs
from penstock.logs import GENERATION, connection_of, topic_changes, topics_of
from penstock.project import Project
from penstock.stores import open_store_beside
from penstock.workers import group_begins, group_of_workers

if TYPE_CHECKING:
    from penstock.adapters.log.kafka.examining import Behind
    from penstock.adapters.log.kafka.topics import Admin, TopicChange

TOPIC, GROUP = "topic", "group"


def kafka(project: Project) -> Generator[Finding, None, bool]:
    """Yield what is found of the brokers of the log; return whether the log can be opened there."""
    try:
        from penstock.adapters.log.kafka.topics import Admin, log_topics

        admin = Admin(connection_of(project))
    except (PenstockError, ImportError) as error:
        yield fault("kafka", _extra(error))
        return False
    reached = check("kafka", lambda: _reached(admin))
    yield reached
    if reached.exit_code:
        yield Finding(
            SKIP, "kafka permissions, topics, clock and workers: they need brokers that answer"
        )
        return False
    denied = list(_permissions(project, admin))
    yield from denied or [Finding(OK, "kafka permissions: this user may do all that is needed with the topics and groups that there are")]  # fmt: skip
    try:
        changes = topic_changes(project)
    except PenstockError as error:
        yield fault("kafka topics", error)
        return False
    if changes:
        yield fault("kafka topics", _otherwise(changes))
        yield from _to_make(admin, changes)
        return False
    logs = {name: one.partitions for name, one in log_topics(admin, admin.connection).items()}
    topic = topics_of(project)[0]
    newest, partitions = [*logs.items()][-1]
    copies = f"{topic.replication} {'copy' if topic.replication == 1 else 'copies'}"
    generation = f" in its generation {len(logs)}" if len(logs) > 1 else ""
    yield Finding(OK, f"kafka topics: as they are declared; the log has {partitions} partitions{generation}, {copies}")  # fmt: skip
    if denied:
        return False
    yield check("kafka clock", lambda: _clock(admin, newest, partitions))
    if project.settings.fold.by == "workers":
        yield from _workers(project, admin, logs)
    return True


def connectors(project: Project) -> Iterator[Finding]:
    """Yield what is found of each connector: what it may do, and how far behind it is."""
    for name in project.settings.connect:
        try:
            yield from _connector(project, name)
        except PenstockError as error:
            yield fault(f"connector {name}", error)


def _extra(error: Exception) -> PenstockError:
    if isinstance(error, PenstockError):
        return error
    return SettingsError("E287", "Kafka needs an extra that is not installed", where="log.kind",
                         fix="pip install 'penstock[kafka]'")  # fmt: skip


def _reached(admin: Admin) -> str:
    from penstock.adapters.log.kafka.examining import brokers_of

    started = time.perf_counter()
    brokers = brokers_of(admin)
    return (
        f"{brokers} {'broker answers' if brokers == 1 else 'brokers answer'} in {since(started)} ms"
    )


# -- who may do what


def _permissions(project: Project, admin: Admin) -> Iterator[Finding]:
    """Yield what this user lacks with the topics of the project and the workers' group."""
    from penstock.adapters.log.kafka.examining import OF_THE_LOG, lacking_of_group, seen_topics

    kafka = project.settings.log.kafka
    names = [one.name for one in topics_of(project)]
    for name, seen in seen_topics(admin, names, OF_THE_LOG).items():
        if seen.lacking:
            yield fault(
                "kafka permissions", _denied(seen.lacking, TOPIC, name, kafka.prefix, kafka.brokers)
            )
    if project.settings.fold.by == "workers":
        group = group_of_workers(project, GENERATION, 1)
        if lacking := lacking_of_group(admin, group):
            begin = f"{group_begins(project.settings)}-"
            yield fault("kafka permissions", _denied(lacking, GROUP, group, begin, kafka.brokers))


def _denied(
    lacking: Sequence[str], kind: str, name: str, begin: str, brokers: Sequence[str], *, exact: bool = False
) -> SettingsError:  # fmt: skip
    """Return that something is not allowed, with the command that allows it."""
    operations = " ".join(f"--operation {one}" for one in lacking)
    pattern = "" if exact else " --resource-pattern-type prefixed"
    return SettingsError(
        "E282", f"this user may not {', '.join(lacking)} {kind} {name}", where="log.kafka.username",
        fix=f"allow it: kafka-acls --bootstrap-server {brokers[0]} --add --allow-principal User:NAME {operations} "
        f"--{kind} {begin}{pattern}",
    )  # fmt: skip


# -- topics


def _otherwise(changes: Sequence[TopicChange]) -> SettingsError:
    told = [
        f"{one.topic.name} ({'not opened yet' if one.opens else 'missing' if one.how == 'new' else '; '.join(one.details)})"
        for one in changes
    ]
    broken = next((one.fault for one in changes if one.fault), "")
    fix = (f"declare it as it is, in `[log]` and `[log.kafka]`: {broken}" if broken else
           "`penstock plan` shows what differs, `penstock apply` makes it so")  # fmt: skip
    return SettingsError(
        "E283",
        f"topics are not as they are declared: {', '.join(told)}",
        where="log.kafka",
        fix=fix,
    )


def _to_make(admin: Admin, changes: Sequence[TopicChange]) -> Iterator[Finding]:
    """Yield why topics that are missing could not be made."""
    from penstock.adapters.log.kafka.examining import TO_MAKE, is_denial, lacking_to_make

    new = [one.topic for one in changes if one.how == "new"]
    prefix, brokers = (
        admin.connection.prefix,
        [admin.connection.client["bootstrap.servers"].split(",")[0]],
    )
    for name, why in lacking_to_make(admin, new).items() if new else ():
        if is_denial(why):
            yield fault("kafka permissions", _denied([TO_MAKE], TOPIC, name, prefix, brokers))
        else:
            yield fault("kafka topics", SettingsError(
                "E289", f"the brokers refuse topic {name} as it is declared: {why}", where="log.kafka",
                fix="change what `[log.kafka]` says of partitions, replication and retention"))  # fmt: skip


def _clock(admin: Admin, topic: str, partitions: int) -> str:
    """Compare with the stamps of the log, which are the brokers': an old one says nothing, a later one does."""
    from penstock.adapters.log.kafka.examining import newest_stamp_ms

    newest_ms = newest_stamp_ms(admin, topic, partitions)
    ahead_ms = max(newest_ms - SystemClock().now_ms(), 0)
    if newest_ms < 0:
        return "nothing is stamped yet"
    return f"by their last stamp {require_together(ahead_ms, 'the clock of the brokers', 'log.kafka.brokers')}"


# -- groups


def _workers(project: Project, admin: Admin, logs: dict[str, int]) -> Iterator[Finding]:
    try:
        store = open_store_beside(project)
    except PenstockError as error:
        yield fault("workers", error)
        return
    if store is None:
        yield Finding(
            SKIP, "workers: there are no leaves yet; `penstock up` says which are to be folded"
        )
        return
    try:
        epochs = sorted(told_epochs(store))
        live = int(store.get_meta(LIVE_EPOCH) or 0)
    except PenstockError as error:
        yield fault("workers", error)
        return
    finally:
        store.close()
    if not epochs:
        yield Finding(
            SKIP, "workers: there are no leaves yet; `penstock up` says which are to be folded"
        )
    up = bool(running_url(project.data_dir))
    for epoch in epochs:
        yield _group_finding(
            f"workers of set {epoch}", admin, [group_of_workers(project, GENERATION, epoch)],
            logs, wanted=up and epoch == live,
        )  # fmt: skip


def _group_finding(
    name: str, admin: Admin, groups: Sequence[str], topics: dict[str, int], *, wanted: bool
) -> Finding:
    """Return how far a group is, partition by partition; it is a fault if nobody does what is wanted."""
    from penstock.adapters.log.kafka.examining import behind

    try:
        found = behind(admin, groups, topics)
    except PenstockError as error:
        return fault(name, error)
    told = _told(found)
    details = {
        f"{one.topic}/{one.partition}": f"{one.records} behind{'' if one.member else ', nobody reads it'}"
        for one in found
    }
    alone = [one for one in found if not one.member]
    if wanted and alone:
        return fault(name, Unavailable(
            "E474", f"nobody reads {len(alone)} of {len(found)} partitions; {told}", where=f"group {groups[0]}",
            fix="start `penstock worker`; if it runs, see what it says, and `/ready` of it"))._replace(details=details)  # fmt: skip
    read = f"{len(found) - len(alone)} of {len(found)} partitions are read"
    return Finding(OK, f"{name}: {read}; {told}", details=details)


def _told(found: Iterable[Behind]) -> str:
    late = sorted((one for one in found if one.records), key=lambda one: -one.records)
    if not late:
        return "nothing is behind"
    where = ", ".join(f"{one.topic}/{one.partition} {one.records}" for one in late[:3])
    return f"{sum(one.records for one in late)} records behind ({where}{', …' if len(late) > 3 else ''})"


def _connector(project: Project, name: str) -> Iterator[Finding]:
    require_whole(project, name)
    settings = project.settings.connect[name]
    title = f"connector {name}"
    from penstock.adapters.log.kafka.connection import Connection
    from penstock.adapters.log.kafka.examining import OF_READERS, lacking_of_group, seen_topics
    from penstock.adapters.log.kafka.topics import Admin
    from penstock.adapters.topics.kafka import COPIED

    timeout_s = project.settings.log.kafka.open_timeout_ms / 1000
    client = client_for(project, settings)
    brokers = client["bootstrap.servers"].split(",")
    admin = Admin(Connection(client, open_timeout_s=timeout_s))
    seen = seen_topics(admin, settings.topics, OF_READERS)
    faults = [
        fault(title, _denied(one.lacking, TOPIC, topic, topic, brokers, exact=True))
        for topic, one in seen.items() if one.lacking
    ]  # fmt: skip
    faults += [
        fault(title, SettingsError("E237", f"there is no topic {topic}", where=f"connect.{name}.topics",
                                   fix="correct its name, or have it made by whoever writes to it"))
        for topic in settings.topics if topic not in seen
    ]  # fmt: skip
    group = group_of(project, name)
    groups = [group, f"{group}{COPIED}"]
    faults += [
        fault(title, _denied(lacking, GROUP, group, group, brokers, exact=True))
        for group in groups if (lacking := lacking_of_group(admin, group))
    ]  # fmt: skip
    yield from faults or [_group_finding(title, admin, groups, {topic: one.partitions for topic, one in seen.items()}, wanted=False)]  # fmt: skip
