"""Where leaves are kept: the adapter that the settings name, opened to own or to look at beside its owner."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from penstock.adapters.store.memory import MemoryStore
from penstock.adapters.store.sqlite import SqliteStore
from penstock.core.errors import SettingsError
from penstock.ports.keys import IDENTIFIER_KEY, Keys
from penstock.ports.log import Log
from penstock.ports.store import Store
from penstock.project import Project

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


def _open_redis(project: Project) -> Store:
    try:
        from penstock.adapters.redis import RedisAddress  # noqa: PLC0415 - an extra
        from penstock.adapters.store.redis import RedisStore  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise SettingsError("E295", "Redis needs an extra that is not installed", where="store.kind",
                            fix="pip install 'penstock[redis]'") from error  # fmt: skip
    told = project.settings.store.redis
    address = RedisAddress(
        url=told.url, username=told.username, password=told.password,
        ca=str(Path(project.root, told.ca)) if told.ca else "",
        connect_timeout_ms=told.connect_timeout_ms, timeout_ms=told.timeout_ms,
        wait_replicas=told.wait_replicas,
    )  # fmt: skip
    return RedisStore(address, tenant=project.settings.project.tenant)


def require_its_own(store: Store, log: Log, keys: Keys) -> None:
    """Refuse the leaves of another project, and remove those that are ahead of the log.

    A store in the log's own folder has neither. One that stands apart has the second after the log was
    put back from a backup: its leaves know what the log does not. They are made again from the log.

    Raises:
        SettingsError: The store has the leaves of another project under this tenant (E298).
    """
    if not store.remote:
        return
    whose = blake2b(keys.get(IDENTIFIER_KEY), digest_size=8, person=b"store").hexdigest()
    kept = store.get_meta(LOG_OF)
    if kept is None:
        store.put_meta(LOG_OF, whose)
    elif kept != whose:
        raise SettingsError("E298", "the Redis server holds the leaves of another project under this tenant",
                            where="store.redis.url", fix="name another database of the server, such as `/1` at the end of the "
                            "URL; two projects share one only under different tenants")  # fmt: skip
    for epoch in store.epochs():
        applied = [store.applied(epoch, partition) for partition in range(log.partitions)]
        if any(one.generation == log.generation and one.offset >= log.head(partition)
               for partition, one in enumerate(applied)):  # fmt: skip
            store.drop(epoch)
