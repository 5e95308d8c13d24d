"""The error codes of servers that a project runs on: Kafka; part of `codes.CODES`."""

from penstock.core.stored_codes import Code

SERVICE: dict[str, Code] = {
    "E280": Code(
        "A topic of the project does not exist.",
        "Run `penstock apply`, which makes what `penstock plan` names; or correct `log.kafka.prefix`.",
    ),
    "E281": Code(
        "A topic has another number of partitions than the project declares.",
        "Set `log.partitions` to what the topic has: a generation of the log has its number of partitions for good.",
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
        "Name the brokers and the prefix of before; or remove `store.db` and `index.db`, and leaves are folded from this log.",
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
    "E760": Code(
        "The log ends before what it had acknowledged, or before what leaves have applied: brokers lost records.",
        "Stop, and bring back the broker that has them. If none has, remove the store, and leaves are folded from what is left.",
    ),
}
