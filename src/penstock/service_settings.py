"""The settings of servers that a project may run on: part of the tree in `penstock.settings`."""

import re
from collections.abc import Iterator

import msgspec

from penstock.core.time import DAY_MS, HOUR_MS

KEEP = re.compile(r"(\d{1,5})([dh])")

PREFIX = re.compile(r"[A-Za-z0-9._-]{1,200}")
"""What the name of a topic can begin with."""


class KafkaSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which brokers hold the log, if `log.kind` is `kafka`: `[log.kafka]`."""

    brokers: tuple[str, ...] = ("127.0.0.1:9092",)
    prefix: str = "penstock."
    replication: int = 3
    retention: str = ""
    letters_retention: str = ""
    tls: bool = False
    ca: str = ""
    certificate: str = ""
    key: str = ""
    key_password: str = ""
    sasl: str = ""
    username: str = ""
    password: str = ""
    token_url: str = ""
    token_scope: str = ""
    compression: str = "lz4"
    open_timeout_ms: int = 10_000
    append_timeout_ms: int = 5_000
    read_timeout_ms: int = 10_000
    spool_mb: int = 0


class RedisSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which Redis server holds the leaves, if `store.kind` is `redis`: `[store.redis]`."""

    url: str = "redis://127.0.0.1:6379/0"
    username: str = ""
    password: str = ""
    ca: str = ""
    connect_timeout_ms: int = 1_000
    timeout_ms: int = 1_000
    wait_replicas: int = 0
    registers: bool = False
    cache_mb: int = 0


DOCS: dict[str, str] = {
    "log.kafka.brokers": "Brokers to begin with, `HOST:PORT` each; the others are learnt from them.",
    "log.kafka.prefix": "What the names of all topics begin with. Two projects on one cluster need one each.",
    "log.kafka.replication": "Copies of each topic; a record counts once all but one of them have it.",
    "log.kafka.retention": 'How long the topic of the log keeps records, such as `"90d"`; what is older can be replayed no more. '
    "Empty keeps all.",
    "log.kafka.letters_retention": "How long the topic of dead letters keeps them; empty keeps all.",
    "log.kafka.tls": "Speak TLS to the brokers.",
    "log.kafka.ca": "File of the certificates that are trusted, relative to the project; empty for the system's.",
    "log.kafka.certificate": "File of a client certificate, relative to the project, where brokers ask for one.",
    "log.kafka.key": "File of its key.",
    "log.kafka.key_password": "Password of that key. Or `env:NAME`.",
    "log.kafka.sasl": "How this project says who it is: `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`; empty if it does not.",
    "log.kafka.username": "User, or the client's id for `OAUTHBEARER`. Or `env:NAME`.",
    "log.kafka.password": "Its password, or the client's secret. Or `env:NAME`.",
    "log.kafka.token_url": "Where `OAUTHBEARER` gets tokens (OIDC, client credentials).",
    "log.kafka.token_scope": "Scope that is asked for there; empty for none.",
    "log.kafka.compression": "Of batches: `lz4`, `zstd`, `snappy`, `gzip` or `none`.",
    "log.kafka.open_timeout_ms": "How long brokers may take to answer at the start.",
    "log.kafka.append_timeout_ms": "How long they may take to acknowledge a batch; then its senders are told 503.",
    "log.kafka.read_timeout_ms": "How long they may take to hand out records that are there.",
    "log.kafka.spool_mb": "How many MiB of events wait on this machine's disk, answered 200, while brokers do not acknowledge; 0 is none: "
    "they are answered 503, and their senders keep them.",
    "store.redis.url": "Address of the primary, or one that follows it: `redis://HOST:PORT/DB`, `rediss://…` for TLS or `unix:///PATH`.",
    "store.redis.username": "ACL user; empty is the server's default user. Or `env:NAME`.",
    "store.redis.password": "Its password. Or `env:NAME`.",
    "store.redis.ca": "File of the certificates that are trusted, of `rediss://`, relative to the project; empty for the system's.",
    "store.redis.connect_timeout_ms": "How long a connection may take to be made.",
    "store.redis.timeout_ms": "How long an answer may take; then the server counts as away.",
    "store.redis.wait_replicas": "How many replicas confirm what is to outlast the primary before it counts.",
    "store.redis.registers": "Keep suppressions and decisions there too, for processes on several machines; their durability is "
    "then the server's.",
    "store.redis.cache_mb": "MiB of leaves that `penstock up` keeps in memory while workers fold (`fold.by`), until the server says that they "
    "change; 0 keeps none: each read asks the server.",
}
"""What each setting means, as `penstock.settings.DOCS`."""

CHOICES: dict[str, tuple[str, ...]] = {
    "log.kafka.sasl": ("", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"),
    "log.kafka.compression": ("lz4", "zstd", "snappy", "gzip", "none"),
}
"""What may be chosen from, as `penstock.settings.CHOICES`."""

RANGES: dict[str, tuple[float, float]] = {
    "log.kafka.replication": (1, 9),
    "log.kafka.open_timeout_ms": (100, 300_000),
    "log.kafka.append_timeout_ms": (100, 300_000),
    "log.kafka.read_timeout_ms": (100, 300_000),
    "log.kafka.spool_mb": (0, 1_000_000),
    "store.redis.connect_timeout_ms": (1, 60_000),
    "store.redis.timeout_ms": (1, 60_000),
    "store.redis.wait_replicas": (0, 16),
    "store.redis.cache_mb": (0, 1_000_000),
}
"""The least and the greatest value, as `penstock.settings.RANGES`."""

SECRETS: tuple[tuple[str, ...], ...] = (
    ("log", "kafka", "username"),
    ("log", "kafka", "password"),
    ("log", "kafka", "key_password"),
    ("store", "redis", "username"),
    ("store", "redis", "password"),
)
"""Those that may say `env:NAME`, as `penstock.settings.SECRETS`."""


def keep_ms(text: str) -> int:
    """Return the milliseconds of a span such as `90d` or `36h`; 0 for an empty one, or one that is none."""
    told = KEEP.fullmatch(text)
    return int(told[1]) * (DAY_MS if told[2] == "d" else HOUR_MS) if told else 0


def kafka_faults(kafka: KafkaSettings) -> Iterator[tuple[str, str, str]]:
    """Yield what can't be used of `[log.kafka]`: the setting's name, what is wrong, and the fix."""
    if not kafka.brokers:
        yield "brokers", "no broker is named", 'name one at least, such as ["127.0.0.1:9092"]'
    if not PREFIX.fullmatch(kafka.prefix):
        yield (
            "prefix",
            "it is nothing that a topic's name can begin with",
            "use letters, digits, `.`, `-` and `_`",
        )
    for name in ("retention", "letters_retention"):
        span = getattr(kafka, name)
        if span and not keep_ms(span):
            yield (
                name,
                "it is no span of days or hours",
                'write it such as "90d"; remove it to keep all',
            )
    if kafka.sasl and not (kafka.username and kafka.password):
        missing = "password" if kafka.username else "username"
        yield (
            missing,
            "it is not said who asks",
            "set `username` and `password`, which may be env:NAME",
        )
    if kafka.sasl == "OAUTHBEARER" and not kafka.token_url:
        yield (
            "token_url",
            "nothing says where tokens come from",
            "set it to the token endpoint of your identity provider",
        )
    if kafka.sasl == "PLAIN" and not kafka.tls:
        yield (
            "sasl",
            "a password would be sent in the clear",
            "set `log.kafka.tls = true`, or use SCRAM-SHA-512",
        )
    if bool(kafka.certificate) != bool(kafka.key):
        yield "certificate", "a certificate and its key belong together", "set both, or neither"
