"""The error codes of servers that a project runs on: Kafka and Redis; part of `codes.CODES`."""

from penstock.core.registry_codes import REGISTRY
from penstock.core.stored_codes import Code

SERVICE: dict[str, Code] = {
    "E280": Code(
        "A topic of the project does not exist.",
        "Run `penstock apply`, which makes what `penstock plan` names; or correct `log.kafka.prefix`.",
    ),
    "E281": Code(
        "A topic has another number of partitions than the project declares.",
        "Run `penstock apply`, which opens a generation of the log with the declared number; or set `log.partitions` to what the topic has.",
    ),
    "E282": Code(
        "Brokers do not let this project in, or do not allow what it asks for.",
        "Check user, password, mechanism and certificates in `[log.kafka]`, and the ACLs that the guide on Kafka lists.",
    ),
    "E283": Code(
        "A topic is set up so that the log can't rely on it: it is compacted, stamped by producers, or takes no records of the size needed.",
        "See `penstock plan`, and run `penstock apply`.",
    ),
    "E284": Code(
        "A log on Kafka can't do this: its brokers do it, or it is not in the data folder.",
        "Do what the message says instead.",
    ),
    "E285": Code(
        "A setting of `[log.kafka]` can't be used.",
        "Change it as the message says.",
    ),
    "E286": Code(
        "The log is not the one that the leaves were folded from: its topic was made anew, or it is another cluster.",
        "Name the brokers and the prefix of before; or remove the leaves (`store.db`, or the tenant's keys on Redis) and `index.db`, and leaves are folded from this log.",
    ),
    "E287": Code(
        "The log is on Kafka, and this needs an extra that is not installed.",
        "pip install 'penstock[kafka]'",
    ),
    "E289": Code(
        "Brokers refuse a topic as the project declares it, or it can't become so.",
        "Change what `[log.kafka]` says, or the topic by the brokers' own tools.",
    ),
    "E436": Code(
        "The topic takes no record of that size. Nothing is lost: who sent it was told.",
        "Give the topic back the size that `penstock plan` names: `penstock apply`.",
    ),
    "E437": Code(
        "Brokers no longer let this project write. Nothing is lost: who sent events was told.",
        "Give its user back the ACLs that the guide on Kafka lists.",
    ),
    "E438": Code(
        "Too few replicas of a topic are in sync to count on a record. Nothing is lost: who sent it was told.",
        "Bring the brokers back that are away.",
    ),
    "E460": Code(
        "The log did not answer, and the spool on this machine's disk is full. Nothing is lost: who sent it was told.",
        "Look at the brokers; or give the spool more room, `log.kafka.spool_mb`.",
    ),
    "E461": Code(
        "The spool's file did not answer.",
        "Check that the disk of the data folder is not full, read-only or failing.",
    ),
    "E761": Code(
        "A batch that waited in the spool does not read back: the disk lost part of what was acknowledged.",
        "Keep `spool.db`, which has what is left of it. The batches after it are appended.",
    ),
    "E760": Code(
        "The log ends before what it had acknowledged, or before what leaves have applied: brokers lost records.",
        "Stop, and bring back the broker that has them. If none has, remove the store, and leaves are folded from what is left.",
    ),
    "E239": Code(
        "The Redis server lacks a command that is needed: its settings rename it, or it is another product.",
        "Take `rename-command` out of its settings, or run Redis 7.0 or newer itself.",
    ),
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
    "E299": Code(
        "The Redis server has no decisions of this tenant, and the log is not new: it was emptied, or they are elsewhere.",
        "Put back a backup of the server; or begin anew as docs/guides/redis.md says.",
    ),
    "E450": Code(
        "The Redis server may lack what it had acknowledged: it was restarted, emptied, or another has taken over.",
        "Nothing: each partition goes back to what the server has, and the log has the rest; profiles are `stale` meanwhile.",
    ),
    "E451": Code(
        "Fewer replicas than `store.redis.wait_replicas` confirmed what was written.",
        "Look at the replicas and at `timeout_ms`; it counts as soon as they have it.",
    ),
    "E453": Code(
        "The memory of the Redis server is nearly full.",
        "Give it more: leaves are written no more when it is full, and new definitions need room for a second set of them.",
    ),
    "E454": Code(
        "The clocks of this machine and of a server are more than five minutes apart.",
        "Set the clock that is wrong, and let NTP keep both.",
    ),
    "E474": Code(
        "Events come in, and nobody of the workers' group reads some partitions: what is served of them grows old.",
        "Start `penstock worker`; if it runs, see what it says.",
    ),
    "E452": Code(
        "The Redis server can't be used any more as it is: it evicts, or was replaced by an older one.",
        "Do as the message says; it is tried again every second.",
    ),
    "E470": Code(
        "The group that shares partitions out does not have this member, or cannot be reached.",
        "Look at the brokers; the process ends, and what supervises it starts another.",
    ),
    "E471": Code(
        "A worker's definitions serve nowhere and are not being applied, or `penstock up` has never run: not on this machine, "
        "if leaves or registers are in the data folder.",
        "Start `penstock up` with them first, or run `penstock apply`; `penstock worker --wait` waits for that. Workers on "
        'other machines need `store.kind = "redis"` and `store.redis.registers = true`.',
    ),
    "E472": Code(
        "The store has applied more of a partition than the log holds; the partition rests, and the others go on.",
        "Check that log and store belong together; after a log was put back from before, make the leaves anew with "
        "`penstock replay --accept`.",
    ),
    "E473": Code(
        "Another process has joined the group of workers under the same name.",
        "Give every worker a `fold.member` of its own, or none; end one of the two.",
    ),
    "E475": Code(
        "The native fold failed, which is a bug: nothing that it held is written, and the leaves go on in Python.",
        "Report it with what the process wrote to its standard error; `fold.accelerated = false` leaves it out.",
    ),
    "E480": Code(
        "The log goes on in another generation, of which this process has not heard yet.",
        "Nothing: it asks the brokers every second. If it lasts, look whether it may describe the topics of the prefix.",
    ),
    **REGISTRY,
}
