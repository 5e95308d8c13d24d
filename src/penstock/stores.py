"""Where leaves are kept: the adapter that the settings name, opened to own or to look at beside its owner."""

from __future__ import annotations

from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.store.sqlite import SqliteStore
from penstock.core.errors import SettingsError
from penstock.ports.clock import Clock
from penstock.ports.decisions import Decisions
from penstock.ports.keys import IDENTIFIER_KEY, Keys
from penstock.ports.log import Log
from penstock.ports.store import LeafCache, Store
from penstock.ports.suppressions import Suppressions
from penstock.project import Project
from penstock.settings import Settings

if TYPE_CHECKING:
    from penstock.adapters.redis import Facts, RedisAddress


class Asked(NamedTuple):
    """What a Redis server said of itself, and when it was asked and answered by this machine's clock."""

    facts: Facts
    before_ms: int
    after_ms: int


LOG_OF = "log_of"
"""Under which name a store that stands apart from its log keeps whose leaves it has."""


def open_store(project: Project) -> Store:
    """Open the project's store of leaves, to write to it.

    Raises:
        SettingsError: Redis needs an extra that is not installed (E295), the server can't be used (E290 to
            E297), or it would have the only copy of history (E296).
        Unavailable: The store does not answer (E402).
    """
    settings = project.settings
    if settings.store.kind == "memory":
        return MemoryStore()
    if settings.store.kind == "sqlite":
        return SqliteStore(project.data_dir / "store.db", tenant=settings.project.tenant)
    if settings.log.forget and not settings.archive.place:
        raise SettingsError("E296", "what is truncated of the log would be in Redis alone, which may lose it",
                            where="log.forget", fix='set `archive.place` instead, or `store.kind` to "sqlite"')  # fmt: skip
    return _open_redis(project)


def open_store_beside(project: Project) -> Store | None:
    """Open the project's store to look at it, beside whoever owns it; None if there is none.

    Raises:
        SettingsError: As `open_store`.
        Unavailable: The store does not answer (E402).
    """
    settings = project.settings
    if settings.store.kind == "redis":
        return _open_redis(project)
    path = project.data_dir / "store.db"
    if settings.store.kind == "memory" or not path.exists():
        return None
    return SqliteStore(path, tenant=settings.project.tenant, read_only=True)


def cache_leaves(settings: Settings, store: Store) -> LeafCache | None:
    """Return what keeps leaves of a store on a server in memory; None if the settings ask for nothing of it.

    Raises:
        SettingsError: The server can't say what changes (E239), or denies it to this user (E294).
        Unavailable: It did not answer (E402).
    """
    size_mb = settings.store.redis.cache_mb
    if settings.store.kind != "redis" or not size_mb:
        return None
    from penstock.adapters.store.redis import RedisStore  # noqa: PLC0415 - an extra
    from penstock.adapters.store.redis.cache import CachedLeaves  # noqa: PLC0415 - an extra

    assert isinstance(store, RedisStore), "it was opened by these settings"
    return CachedLeaves(store, size_mb << 20)


def registers_on_server(settings: Settings) -> bool:
    """Return whether suppressions and decisions are kept beside the leaves, and not in the data folder."""
    return settings.store.kind == "redis" and settings.store.redis.registers


def open_register(project: Project) -> Suppressions | None:
    """Open the suppressions of a project that keeps them beside its leaves; None of another.

    Raises:
        SettingsError: As `open_store`.
        Unavailable: The server does not answer (E403).
    """
    if not registers_on_server(project.settings):
        return None
    address = _redis_address(project)
    from penstock.adapters.suppressions.redis import RedisSuppressions  # noqa: PLC0415 - an extra

    return RedisSuppressions(address, tenant=project.settings.project.tenant)


def open_registers(project: Project, log: Log) -> tuple[Suppressions, Decisions] | None:
    """Open the suppressions and the decisions of a project that keeps them beside its leaves; else None.

    Raises:
        SettingsError: As `open_store`, or the server has no decisions and the log is not new (E299).
        Unavailable: The server does not answer (E403, E404).
    """
    settings = project.settings
    if not registers_on_server(settings):
        return None
    address = _redis_address(project)
    from penstock.adapters.decisions.redis import RedisDecisions  # noqa: PLC0415 - an extra

    tenant = settings.project.tenant
    with ExitStack() as opened:
        decisions = RedisDecisions(address, tenant=tenant)
        opened.callback(decisions.close)
        if not decisions.founded():
            if any(log.head(partition) for partition in range(log.partitions)):
                raise SettingsError("E299", "the Redis server has no decisions of this tenant, and the log is not new",
                                    where="store.redis.registers", fix="put back a backup of the server; or, if it may be "
                                    "decided and sent again, begin anew as docs/guides/redis.md says")  # fmt: skip
            decisions.found()
        suppressions = open_register(project)
        assert suppressions is not None, "they are there"
        opened.pop_all()
    return suppressions, decisions


def ask_redis(project: Project, clock: Clock) -> Asked:
    """Return what the project's Redis server says of itself.

    Raises:
        SettingsError: As `open_store`.
        Unavailable: The server does not answer (E402).
    """
    address = _redis_address(project)
    from penstock.adapters.store.redis import RedisStore  # noqa: PLC0415 - an extra

    store = RedisStore(address, tenant=project.settings.project.tenant)
    try:
        before_ms = clock.now_ms()
        return Asked(store.server.facts(), before_ms, clock.now_ms())
    finally:
        store.close()


def _open_redis(project: Project) -> Store:
    address = _redis_address(project)
    from penstock.adapters.store.redis import RedisStore  # noqa: PLC0415 - an extra

    return RedisStore(address, tenant=project.settings.project.tenant)


def _redis_address(project: Project) -> RedisAddress:
    try:
        from penstock.adapters.redis import RedisAddress  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise SettingsError("E295", "Redis needs an extra that is not installed", where="store.kind",
                            fix="pip install 'penstock[redis]'") from error  # fmt: skip
    told = project.settings.store.redis
    return RedisAddress(
        url=told.url, username=told.username, password=told.password,
        ca=str(Path(project.root, told.ca)) if told.ca else "",
        connect_timeout_ms=told.connect_timeout_ms, timeout_ms=told.timeout_ms,
        wait_replicas=told.wait_replicas,
    )  # fmt: skip


def require_its_own(store: Store, log: Log, keys: Keys) -> None:
    """Refuse the leaves of another project, and remove those that are ahead of the log.

    A store in the log's own folder has neither. One that stands apart has the second after the log was
    put back from a backup: its leaves know what the log does not. They are made again from the log. Of a
    log that others append to nothing is removed: its end may be a second old here, while workers go on, and
    leaves that it does not reach have been refused before (`logs.require_same_log`).

    Raises:
        SettingsError: The store has the leaves of another project under this tenant (E298).
    """
    if not store.remote:
        return
    whose = blake2b(keys.get(IDENTIFIER_KEY), digest_size=8, person=b"store").hexdigest()
    kept = store.get_meta(LOG_OF)
    if kept not in (None, whose):
        raise SettingsError("E298", "the Redis server holds the leaves of another project under this tenant",
                            where="store.redis.url", fix="name another database of the server, such as `/1` at the end of the "
                            "URL; two projects share one only under different tenants")  # fmt: skip
    # Put each time: what this process has put it puts back into a server that was emptied.
    store.put_meta(LOG_OF, whose)
    if log.shared:
        return
    for epoch in store.epochs():
        applied = [store.applied(epoch, partition) for partition in range(log.partitions)]
        if any(one.generation == log.generations.generation(partition) and one.offset >= log.head(partition)
               for partition, one in enumerate(applied)):  # fmt: skip
            store.drop(epoch)
