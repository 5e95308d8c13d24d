"""Which log a project has: opened to own it or beside whoever does; and the topics of one on Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.adapters.clock import SystemClock
from penstock.adapters.log.memory import MemoryLog
from penstock.adapters.log.sqlite import SqliteLog
from penstock.adapters.spool.sqlite import SqliteSpool
from penstock.adapters.sqlite import FileKind, Ownership
from penstock.core.errors import DataCorrupt, SettingsError
from penstock.ports.clock import Clock
from penstock.ports.log import Log
from penstock.ports.store import Store
from penstock.project import Project
from penstock.service_settings import KafkaSettings
from penstock.settings import Settings, keep_ms

if TYPE_CHECKING:
    from penstock.adapters.log.kafka.connection import Connection
    from penstock.adapters.log.kafka.topics import Found, Topic, TopicChange

LOG_IDENTITY = "log"
"""Under it the store says which log its leaves are of, if there may be others."""

FOLDER = FileKind(
    "the data folder", application_id=0, format=1, schema=(), code="E401", synchronous="FULL"
)
"""What is owned where the log is no file."""

LOG_FILE = "log.db"

_LEAVES = "`store.db` (or on Redis the keys of `penstock:{TENANT`) and `index.db`"
SPOOL_FILE = "spool.db"
MIB = 1024 * 1024

KNOWN_S = 5.0
"""How long it may take until a process knows what others have appended."""

GENERATION = 1
"""The first, by which groups are called."""

THE_LOG = "the log"

OPENS = (
    "opens another generation of the log: events go there at once",
    "workers fold the generation before to its end first: profiles are `stale` until then, and no event waits",
    "the topic before stays, and is read when leaves are made anew",
)


def open_log(project: Project, clock: Clock) -> Log:
    """Open a project's log to append to it.

    Raises:
        Unavailable: Another process owns it (E407), or it can't be opened or reached (E401).
        SettingsError: Brokers do not let us in (E282), or topics are missing (E280) or others than those
            declared (E281, E283); or Kafka needs an extra that is not installed (E287).
        DataCorrupt: A file is damaged (E707), newer (E706) or of another shape (E708).
    """
    log = project.settings.log
    if log.kind == "memory":
        return MemoryLog(clock, partitions=log.partitions)
    if log.kind == "kafka":
        return _kafka(project, read_only=False)
    return SqliteLog(project.data_dir / LOG_FILE, clock, partitions=log.partitions)


def open_log_alone(project: Project, path: Path | None = None) -> Log:
    """Open a project's log for reading only, beside whoever appends to it, without what is in its archive.

    Args:
        project: The project.
        path: The file, if it is not the project's own, such as a copy of it.

    Raises:
        Unavailable: It can't be opened or reached (E401).
        SettingsError: As `open_log`.
        DataCorrupt: It is damaged or newer (E706, E707).
    """
    if path is None and project.settings.log.kind == "kafka":
        return _kafka(project, read_only=True)
    return SqliteLog(path or project.data_dir / LOG_FILE, SystemClock(), read_only=True)


def open_spool(project: Project, *, read_only: bool = False) -> SqliteSpool | None:
    """Open where batches wait that the log did not acknowledge; None if nothing does, and nothing is to.

    What waits is appended also if no more is to be kept.

    Raises:
        Unavailable: It can't be opened (E461).
        DataCorrupt: It is damaged (E707) or newer (E706).
    """
    log, path = project.settings.log, project.data_dir / SPOOL_FILE
    if log.kind != "kafka" or not (path.exists() or (log.kafka.spool_mb and not read_only)):
        return None
    return SqliteSpool(path, log.kafka.spool_mb * MIB, read_only=read_only)


def has_log(project: Project) -> bool:
    """Return whether there is a log to be opened beside whoever owns it, as far as is known without asking."""
    kind = project.settings.log.kind
    return kind == "kafka" or (kind == "sqlite" and (project.data_dir / LOG_FILE).exists())


def require_in_folder(project: Project, what: str, instead: str) -> None:
    """Refuse what is done to the file of a log, if the log is on brokers.

    Args:
        project: The project.
        what: What is not done, such as `a backup`.
        instead: What to do, in the imperative.

    Raises:
        SettingsError: The log is not in the data folder (E284).
    """
    if project.settings.log.kind == "kafka":
        raise SettingsError("E284", f"the log is on Kafka, not in the data folder: {what}", where="log.kind", fix=instead)  # fmt: skip


def require_shared(settings: Settings) -> None:
    """Refuse that workers fold where no other process than `penstock up` reaches the log or the leaves.

    Raises:
        SettingsError: `log.kind` or `store.kind` does not go with `fold.by = "workers"` (E207).
    """
    if settings.log.kind != "kafka":
        raise SettingsError("E207", "workers can't fold a log that one process owns", where="log.kind",
                            fix='set log.kind to "kafka", or fold.by to "up"')  # fmt: skip
    if settings.store.kind == "memory":
        raise SettingsError("E207", "workers write leaves where others read them, not into their own memory", where="store.kind",
                            fix='set store.kind to "redis", or to "sqlite" for workers on this machine')  # fmt: skip


# -- a log that is not in the data folder

DEFAULT_BEGIN = "penstock"
"""What groups of a project with the default prefix of topics begin with."""


def default_begin(prefix: str) -> str:
    """Return what the names of a project's groups begin with, unless they are given."""
    return DEFAULT_BEGIN if prefix == KafkaSettings().prefix else f"{prefix}{DEFAULT_BEGIN}"


def own_folder(project: Project) -> Callable[[], None]:
    """Own a data folder, unless its log does; return what gives it back.

    Raises:
        Unavailable: Another process owns it (E407).
    """
    if project.settings.log.kind != "kafka":
        return lambda: None
    return Ownership(project.data_dir / LOG_FILE, FOLDER).release


def require_empty(log: Log, keys: Path) -> None:
    """Refuse to make new keys for a log that has records: everybody in it would be somebody else.

    Raises:
        SettingsError: It has records (E208).
    """
    if any(log.head(partition) for partition in range(log.partitions)):
        raise SettingsError("E208", "the log has records, and the keys that they were written with are not here", where=str(keys),
                            fix="copy `keys.json` from the process that wrote it, or restore it from its backup; with new ones "
                            "every identifier would be somebody else")  # fmt: skip


def require_same_log(log: Log, store: Store) -> None:
    """Refuse leaves of another log, and a log that lacks what its leaves have applied.

    Raises:
        SettingsError: The leaves are of another log (E286).
        DataCorrupt: The log lacks records that were applied (E760).
    """
    if not log.identity:
        return
    require_known_log(log, store)
    for epoch in store.epochs():
        for partition in range(log.partitions):
            applied = store.applied(epoch, partition)
            if applied.generation == log.generations.generation(partition) and not _reaches(
                log, partition, applied.offset
            ):
                head = log.head(partition)
                raise DataCorrupt("E760", f"partition {partition} of the log ends at offset {head}, and leaves have applied records "
                                  f"up to offset {applied.offset}", where="log.kafka", fix="bring back the broker that has them. "
                                  f"If none has, remove {_LEAVES}, and leaves are folded from what is left")  # fmt: skip
    store.put_meta(LOG_IDENTITY, log.identity)


def require_known_log(log: Log, store: Store) -> None:
    """Refuse leaves of another log, as far as they say which one they are of.

    Raises:
        SettingsError: They are of another log (E286).
    """
    known = store.get_meta(LOG_IDENTITY)
    if known and log.identity and known != log.identity:
        raise SettingsError("E286", "the leaves were folded from another log than this one", where="log.kafka",
                            fix=f"name the brokers and the prefix of before; or remove {_LEAVES}, and leaves are folded from this log")  # fmt: skip


def _reaches(log: Log, partition: int, offset: int) -> bool:
    """Return whether a log has an offset: what others append is known a moment later."""
    until = time.monotonic() + KNOWN_S
    while log.head(partition) <= offset:
        if not log.shared or time.monotonic() > until:
            return False
        time.sleep(KNOWN_S / 50)
    return True


# -- Kafka


def connection_of(project: Project) -> Connection:
    """Return how a project reaches its brokers, as its settings say.

    Raises:
        SettingsError: Kafka needs an extra that is not installed (E287).
    """
    try:
        from penstock.adapters.log.kafka.connection import Connection  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise SettingsError("E287", "Kafka needs an extra that is not installed", where="log.kind",
                            fix="pip install 'penstock[kafka]'") from error  # fmt: skip
    kafka = project.settings.log.kafka
    return Connection(
        client_of(project), kafka.prefix, kafka.open_timeout_ms / 1000, kafka.append_timeout_ms / 1000,
        kafka.read_timeout_ms / 1000, kafka.compression,
    )  # fmt: skip


def topics_of(project: Project, logs: Mapping[str, Found] | None = None) -> list[Topic]:
    """Return the topics that a project declares.

    Args:
        project: The project.
        logs: Those of the log's generations that are there. A generation has its number of partitions for
            good: where another is declared, that is the next generation's.
    """
    from penstock.adapters.log.kafka import feeds, topics  # noqa: PLC0415 - an extra

    log, feed = project.settings.log, project.settings.feed
    connection = connection_of(project)
    copies = {"replication": log.kafka.replication, "in_sync": max(log.kafka.replication - 1, 1)}
    counts = [one.partitions for one in (logs or {}).values()]
    if not counts or counts[-1] != log.partitions:
        counts.append(log.partitions)
    declared = [
        *(topics.log_topic(connection, generation, count, retention_ms=keep_ms(log.kafka.retention), **copies)
          for generation, count in enumerate(counts, 1)),
        topics.letters_topic(connection, retention_ms=keep_ms(log.kafka.letters_retention), **copies),
    ]  # fmt: skip
    if feed.decisions:
        kept_ms = keep_ms(feed.decisions_retention)
        declared.append(feeds.decisions_topic(connection, counts[0], retention_ms=kept_ms, **copies))  # fmt: skip
    if feed.profiles:
        declared.append(feeds.profiles_topic(connection, counts[0], **copies))
    return declared


def topic_changes(project: Project) -> list[TopicChange]:
    """Return what is to be done so that the topics are as the project declares them; empty without Kafka.

    Raises:
        SettingsError: Brokers do not let us in or do not let us look (E282).
        Unavailable: They do not answer (E401).
    """
    if project.settings.log.kind != "kafka":
        return []
    connection = connection_of(project)
    from penstock.adapters.log.kafka.topics import Admin, changes_of, log_topics  # noqa: PLC0415 - an extra

    admin = Admin(connection)
    logs = log_topics(admin, connection)
    declared = topics_of(project, logs)
    changes = changes_of(declared, admin.look([one.name for one in declared]))
    fault = (
        ""
        if project.settings.fold.by == "workers"
        else 'only workers go over to it, and `fold.by` is "up"'
    )
    return [
        one._replace(details=(*one.details, *OPENS), opens=True, fault=fault)
        if logs and one.how == "new" and one.topic.fixed and one.topic.what == THE_LOG else one
        for one in changes
    ]  # fmt: skip


def change_topics(project: Project, changes: Sequence[TopicChange]) -> None:
    """Make and alter topics.

    Raises:
        SettingsError: One can't become as it is declared, or brokers refuse it (E289) or us (E282).
        Unavailable: They do not answer (E401); doing it again is safe.
    """
    for one in changes:
        if one.fault:
            raise SettingsError("E289", f"topic {one.topic.name} can't become as it is declared: {one.fault}", where="log.kafka",
                                fix="declare it as it is: `log.partitions`, `log.kafka.replication`")  # fmt: skip
    opens = any(one.opens for one in changes)
    if changes:
        from penstock.adapters.log.kafka.topics import Admin  # noqa: PLC0415 - an extra

        Admin(connection_of(project)).change(changes)
    if opens and any(one.opens for one in topic_changes(project)):
        raise SettingsError("E289", "another process has just opened a generation of the log with another number of partitions",
                            where="log.partitions", fix="set it to that number; or run `penstock plan`, which names the generation "
                            "after it")  # fmt: skip


def _kafka(project: Project, *, read_only: bool) -> Log:
    connection = connection_of(project)
    from penstock.adapters.log.kafka import KafkaLog  # noqa: PLC0415 - an extra

    if not read_only and project.settings.definitions.apply == "up":
        # Another generation is opened by whoever asks for it.
        missing = [one for one in topic_changes(project) if one.how == "new" and not one.opens]
        change_topics(project, missing)
    follow = read_only or project.settings.fold.by == "workers"
    return KafkaLog(connection, partitions=project.settings.log.partitions, read_only=read_only, follow=follow)  # fmt: skip


def client_of(project: Project) -> dict[str, Any]:
    """Return what `[log.kafka]` says of reaching brokers, as librdkafka names it."""
    kafka = project.settings.log.kafka
    protocol = ("SASL_" if kafka.sasl else "") + (
        "SSL" if kafka.tls else "PLAINTEXT" if kafka.sasl else ""
    )
    told: dict[str, Any] = {
        "bootstrap.servers": ",".join(kafka.brokers),
        "security.protocol": protocol or "PLAINTEXT",
        "ssl.ca.location": _path(project, kafka.ca),
        "ssl.certificate.location": _path(project, kafka.certificate),
        "ssl.key.location": _path(project, kafka.key),
        "ssl.key.password": kafka.key_password,
        "sasl.mechanism": kafka.sasl,
    }
    if kafka.sasl == "OAUTHBEARER":
        told |= {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.id": kafka.username,
            "sasl.oauthbearer.client.secret": kafka.password,
            "sasl.oauthbearer.token.endpoint.url": kafka.token_url,
            "sasl.oauthbearer.scope": kafka.token_scope,
        }
    elif kafka.sasl:
        told |= {"sasl.username": kafka.username, "sasl.password": kafka.password}
    return {name: value for name, value in told.items() if value}


def _path(project: Project, name: str) -> str:
    return str(project.root / name) if name else ""
