"""The error codes of servers that leaves are kept on; part of `codes.CODES`."""

from penstock.core.stored_codes import Code

SERVER: dict[str, Code] = {
    "E290": Code(
        "The address of the Redis server is none, has a password in it, or its file of certificates is missing.",
        'Write it such as "redis://127.0.0.1:6379/0" or "rediss://…"; user and password have settings of their own.',
    ),
    "E291": Code(
        "The Redis server evicts: profiles would vanish without a word when its memory is full.",
        "Set `maxmemory-policy noeviction`.",
    ),
    "E292": Code(
        "The Redis server is older than 7.0, which functions came with.", "Run Redis 7.0 or newer."
    ),
    "E293": Code(
        "The Redis server does not know the user or the password.",
        "Set `store.redis.username` and `store.redis.password`.",
    ),
    "E294": Code(
        "The Redis server denies its user a command or a key that is needed.",
        "Give the user what docs/guides/redis.md lists.",
    ),
    "E295": Code("Redis needs an extra that is not installed.", "Install `penstock[redis]`."),
    "E296": Code(
        "What is truncated of the log would be kept in Redis alone, which may lose it.",
        "Set `archive.place` instead of `log.forget`, or `store.kind` to `sqlite`.",
    ),
    "E297": Code(
        "The Redis server is a replica, and takes no writes.",
        "Name the primary, or an address that follows it.",
    ),
    "E298": Code(
        "The Redis server holds the leaves of another project under this tenant.",
        "Name another database of the server; two projects share one only under different tenants.",
    ),
    "E450": Code(
        "The Redis server may lack what it had acknowledged: it was restarted, emptied, or another has taken over.",
        "Nothing: each partition goes back to what the server has, and the log has the rest; profiles are `stale` meanwhile.",
    ),
    "E451": Code(
        "Fewer replicas than `store.redis.wait_replicas` confirmed what was written.",
        "Look at the replicas and at `timeout_ms`; it counts as soon as they have it.",
    ),
    "E452": Code(
        "The Redis server can't be used any more as it is: it evicts, or was replaced by an older one.",
        "Do as the message says; it is tried again every second.",
    ),
}
