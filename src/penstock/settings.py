"""The settings tree of `penstock.toml`: every value, its default, and where each came from."""

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin
from urllib.parse import urlsplit

import msgspec

from penstock import connect_settings, feed_settings, fold_settings, service_settings
from penstock.connect_settings import ConnectSettings, RegistrySettings
from penstock.core.consent.purpose import BASES, PURPOSES
from penstock.core.decision.mailbox import is_address, is_sender
from penstock.core.errors import SettingsError
from penstock.core.toml_lines import Places, lines_of
from penstock.service_settings import KafkaSettings, RedisSettings, keep_ms


class ProjectSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who this is: `[project]`."""

    name: str = "shop"
    tenant: str = "default"
    timezone: str = "UTC"
    currency: str = "USD"
    undeclared: str = "drop"


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where HTTP is served: `[server]`."""

    host: str = "127.0.0.1"
    port: int = 8080
    public_url: str = ""
    read_keys: list[str] = []
    admin_key: str = ""
    requests_max: int = 1024
    requests_per_s_per_key: int = 0
    connections_max: int = 16_000
    idle_connections_max: int = 12_000
    keep_alive_s: int = 75
    head_timeout_s: int = 15
    request_timeout_s: int = 30


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the log is kept: `[log]`."""

    kind: str = "sqlite"
    partitions: int = 1
    keep: str = ""
    forget: bool = False
    kafka: KafkaSettings = KafkaSettings()

    @property
    def keep_ms(self) -> int:
        """How long records stay at least; 0 for ever."""
        return keep_ms(self.keep)


class ArchiveSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where closed parts of the log are copied to: `[archive]`."""

    place: str = ""


class StoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where leaves are kept: `[store]`."""

    kind: str = "sqlite"
    flush_ms: int = 1_000
    cached_leaves_max: int = 200_000
    leaf_bytes_max: int = 256 * 1024
    redis: RedisSettings = RedisSettings()


class SourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One source of events: `[sources.NAME]`."""

    kind: str = "browser"
    write_key: str = ""
    rank: int = 0
    basis: dict[str, str] = {}
    origins: list[str] = []
    identity_keys: dict[str, str] = {}


class ConsentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How consent is read: `[consent]`."""

    regime: str = "opt_in"
    purposes: list[str] = []
    categories: dict[str, list[str]] = {}
    gpc_denies: tuple[str, ...] = PURPOSES


class IdentitySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is one person: `[identity]`."""

    blocked_values: list[str] = []
    limits: dict[str, int] = {}
    shared_anonymous: str = "neither"


class EmailSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every email carries: `[email]`."""

    sender: str = "shop@example.com"
    sender_name: str = ""
    reply_to: str = ""
    seeds: list[str] = []
    topics: list[str] = []
    caps: dict[str, str] = {}
    cap: str = ""
    quiet_hours: str = ""
    timezone_trait: str = "timezone"


class EspSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who carries emails: `[esp]`."""

    kind: str = "directory"
    path: str = "outbox"
    host: str = "127.0.0.1"
    port: int = 25
    username: str = ""
    password: str = ""
    tls: str = "starttls"
    connections: int = 4


class DecisionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every campaign starts from: `[decision]`."""

    holdout_share: float = 0.05
    global_holdout_share: float = 0.0
    stale_after_ms: int = 60_000
    serve_timeout_ms: int = 1_000


class DevelopmentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What helps while a project is written, on a loopback address only: `[development]`."""

    preview: bool = False
    test_api: bool = False
    items: str = ""
    images: dict[str, str] = {}


class DefinitionsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How changed definitions come to serve: `[definitions]`."""

    apply: str = "up"
    keep_hours: int = 24
    build_share: float = 0.5
    compatibility: str = "backward"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of `penstock.toml`. Every value has a default that runs on a laptop."""

    project: ProjectSettings = ProjectSettings()
    data_dir: str = "data"
    server: ServerSettings = ServerSettings()
    log: LogSettings = LogSettings()
    archive: ArchiveSettings = ArchiveSettings()
    store: StoreSettings = StoreSettings()
    fold: fold_settings.FoldSettings = fold_settings.FoldSettings()
    feed: feed_settings.FeedSettings = feed_settings.FeedSettings()
    sources: dict[str, SourceSettings] = {}
    consent: ConsentSettings = ConsentSettings()
    identity: IdentitySettings = IdentitySettings()
    email: EmailSettings = EmailSettings()
    esp: EspSettings = EspSettings()
    decision: DecisionSettings = DecisionSettings()
    development: DevelopmentSettings = DevelopmentSettings()
    definitions: DefinitionsSettings = DefinitionsSettings()
    registry: RegistrySettings = RegistrySettings()
    connect: dict[str, ConnectSettings] = {}


DOCS: dict[str, str] = {
    "data_dir": "Folder for the log, the store, keys and decisions, relative to the project.",
    "project.name": "The project's name, as people read it.",
    "project.tenant": "Part of every key. Never change it once there is data.",
    "project.timezone": "Time zone of calendar days, an IANA name.",
    "project.currency": "ISO 4217 currency of amounts that do not say theirs.",
    "project.undeclared": "What becomes of event types that are not declared: `reject`, `keep` or `drop`.",
    "server.host": "Address to listen on.",
    "server.port": "Port to listen on; 0 picks a free one.",
    "server.public_url": "How mail clients reach this server; links in emails start with it. Nothing is sent to an SMTP server elsewhere without it.",
    "server.read_keys": "Bearer keys of those who read profiles and decisions. `env:NAME` is read from the environment, here and in every secret.",
    "server.admin_key": "Bearer key of the command line; made at `penstock init`. Or `env:NAME`.",
    "server.requests_max": "Requests in flight, beyond which new ones are answered 429.",
    "server.requests_per_s_per_key": "Token bucket of each write key, requests a second; 0 is no limit.",
    "server.connections_max": "Connections open at once; beyond it those that have waited the longest give way to new ones. "
    "The system's limit of open files may be lower, and then counts.",
    "server.idle_connections_max": "Connections open at once without a request; beyond it the longest idle are closed.",
    "server.keep_alive_s": "How long a connection may be idle.",
    "server.head_timeout_s": "Time in which the headers of a request must arrive, from its first byte; else 408.",
    "server.request_timeout_s": "Time in which a whole request must arrive, from its first byte; else 408.",
    "log.kind": "Which log adapter: `sqlite`, `kafka` or `memory`.",
    "log.partitions": "Partitions of a new log. On Kafka, with workers, `penstock apply` lets the log go on in another number of them.",
    "log.keep": 'How long records stay in the log at least, such as `"90d"` or `"36h"`; what is older and in the archive is '
    "removed from it. Empty keeps all.",
    "log.forget": "Truncate the log though there is no archive: what is older than `log.keep` is gone for good.",
    **service_settings.DOCS,
    "archive.place": "Where closed segments of the log are copied: a folder, relative to the project, or `s3://BUCKET/PREFIX`; "
    "empty is nowhere.",
    "store.kind": "Which store adapter: `sqlite`, `redis` or `memory`.",
    "store.flush_ms": "How long a changed leaf may wait in memory before it is written.",
    "store.cached_leaves_max": "Decoded leaves held in memory a partition.",
    "store.leaf_bytes_max": "Size beyond which an identifier is quarantined.",
    **fold_settings.DOCS,
    **feed_settings.DOCS,
    "sources": "The declared sources of events, by name.",
    "sources.*.kind": "`browser` (public key, links are unverified) or `server` (secret key).",
    "sources.*.write_key": "The key its SDK is given. Or `env:NAME`.",
    "sources.*.rank": "Of two values of a trait the one from the higher rank wins.",
    "sources.*.basis": "Lawful basis by purpose, where the source's events carry no consent: `consent`, `contract`, "
    "`legal_obligation`, `vital_interests`, `public_task` or `legitimate_interest`.",
    "sources.*.origins": "Web origins a browser key may be used from; empty is any.",
    "sources.*.identity_keys": "Keys of signed identity tokens by `kid`, 32 characters at least; docs/guides/identity-tokens.md. Or `env:NAME`.",
    "consent.regime": "`opt_in` (unknown is denied) or `opt_out` (unknown is granted).",
    "consent.purposes": "Purposes of your own, besides `personalisation`, `measurement`, `analytics` and `advertising`.",
    "consent.categories": "Purposes that each category of your consent platform stands for.",
    "consent.gpc_denies": "Purposes that a `Sec-GPC: 1` header denies.",
    "identity.blocked_values": "Identifier values that never join anybody, besides the usual junk.",
    "identity.limits": "Most identifiers a person may have, by type; types of your own are named here.",
    "identity.shared_anonymous": "Whose events of a device used by two people are: `neither` or `first`.",
    "email.sender": "Address that emails come from.",
    "email.sender_name": "Name shown beside it.",
    "email.reply_to": "Address that replies go to.",
    "email.seeds": "Addresses that get copies without a decision, holdout or exposure.",
    "email.topics": "Topics that campaigns may be about; empty allows any.",
    "email.caps": 'How many emails of a class a person gets: `{ marketing = "3 in 7 days" }`.',
    "email.cap": "The class of campaigns that name none.",
    "email.quiet_hours": 'When people are not written to, in their own time, such as `"21:00-08:00"`.',
    "email.timezone_trait": "The trait that names a person's time zone; without it the project's counts.",
    "esp.kind": "Who carries emails: `directory` or `smtp`.",
    "esp.path": "Folder of `.eml` files for `directory`, relative to the project.",
    "esp.host": "Host of the SMTP server.",
    "esp.port": "Port of the SMTP server.",
    "esp.username": "SMTP user; empty is no login. Or `env:NAME`.",
    "esp.password": "SMTP password. Or `env:NAME`.",
    "esp.tls": "`starttls`, `tls` or `none`.",
    "esp.connections": "SMTP connections used side by side.",
    "decision.holdout_share": "Share of recipients that a campaign keeps as holdout unless it says otherwise.",
    "decision.global_holdout_share": "Share of recipients kept out of personalisation everywhere.",
    "decision.stale_after_ms": "Age of a profile beyond which an answer is `stale`.",
    "decision.serve_timeout_ms": "Time after which an answer falls back.",
    "development.preview": "Serve the live preview at `/preview`; needs a loopback address.",
    "development.test_api": "Serve `/_test/…`, by which tests ask what was accepted; needs a loopback address.",
    "development.items": "File of items that `penstock up` loads when it starts, relative to the project.",
    "development.images": "Folder of pictures by the address prefix they stand in for, in the preview.",
    "definitions.apply": "When changed files come to serve: `up` (as soon as `penstock up` starts, and published campaigns "
    "go over to them) or `command` (by `penstock apply` only; for production).",
    "definitions.keep_hours": "How long a version can be rolled back to, and goes on folding; 0 drops it at once.",
    "definitions.build_share": "The most of the engine's time that folding beside what serves takes while it is busy.",
    "definitions.compatibility": "How a new version of an event must fit the one before: `backward`, `forward`, `full` or "
    "`none`; `penstock apply` refuses what does not.",
    **connect_settings.DOCS,
}
"""What each setting means; `docs/reference/settings.md` is made from it, and a test keeps it whole."""

CHOICES: dict[str, tuple[str, ...]] = {
    "project.undeclared": ("reject", "keep", "drop"),
    "sources.*.kind": ("browser", "server"),
    "consent.regime": ("opt_in", "opt_out"),
    "identity.shared_anonymous": ("neither", "first"),
    "definitions.apply": ("up", "command"),
    "definitions.compatibility": ("backward", "forward", "full", "none"),
    "esp.tls": ("starttls", "tls", "none"),
    **service_settings.CHOICES,
    **(connect_settings.CHOICES | fold_settings.CHOICES | feed_settings.CHOICES),
}
KINDS: dict[str, tuple[str, ...]] = {
    "log.kind": ("sqlite", "kafka", "memory"),
    "store.kind": ("sqlite", "redis", "memory"),
    "esp.kind": ("directory", "smtp"),
}
"""The adapters there are: `penstock plan` opens none of them, and must find a kind that does not exist."""


RANGES: dict[str, tuple[float, float]] = {
    "server.port": (0, 65_535),
    "server.requests_max": (1, 1_000_000),
    "server.requests_per_s_per_key": (0, 1_000_000),
    "server.connections_max": (16, 1_000_000),
    "server.idle_connections_max": (1, 1_000_000),
    "server.keep_alive_s": (1, 3_600),
    "server.head_timeout_s": (1, 3_600),
    "server.request_timeout_s": (1, 3_600),
    "log.partitions": (1, 4_096),
    **service_settings.RANGES,
    "store.flush_ms": (1, 60_000),
    "store.cached_leaves_max": (100, 100_000_000),
    "store.leaf_bytes_max": (4_096, 1_048_576),
    **fold_settings.RANGES,
    **feed_settings.RANGES,
    "sources.*.rank": (0, 1_000_000),
    "esp.port": (1, 65_535),
    "esp.connections": (1, 256),
    "decision.holdout_share": (0, 1),
    "decision.global_holdout_share": (0, 1),
    "decision.stale_after_ms": (1, 86_400_000),
    "decision.serve_timeout_ms": (1, 60_000),
    "definitions.keep_hours": (0, 8_760),
    "definitions.build_share": (0.01, 1),
    **connect_settings.RANGES,
}
"""The least and the greatest value. Ranks begin at 0 because claims of public keys rank below."""


SECRETS: tuple[tuple[str, ...], ...] = (
    ("server", "read_keys", "*"),
    ("server", "admin_key"),
    ("sources", "*", "write_key"),
    ("sources", "*", "identity_keys", "*"),
    ("esp", "username"),
    ("esp", "password"),
    *service_settings.SECRETS,
    *connect_settings.SECRETS,
    *fold_settings.SECRETS,
)
"""Settings that may say `env:NAME`: the environment has them, and the file can be shown."""

ENVIRONMENT = "env:"


def load_settings(path: Path) -> Settings:
    """Read `penstock.toml`.

    Raises:
        SettingsError: The file is missing (E200), is not TOML (E201), has a key that does not exist
            (E202), a value of the wrong type (E203), one that is not among the choices (E204),
            an adapter that does not exist (E206), one that is out of its range (E207), an address that
            no email can carry (E260), a URL that no link can start with (E261), a lawful basis that is
            none (E251), a purpose that is none (E252), a log that is to be truncated after what is no
            span (E270) or without an archive (E272), a log on Kafka that is not said enough of (E285) or
            too much (E284), a feed that can't be (E229), or a secret that is to be in the environment and is not (E217); each names
            the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SettingsError("E200", "there is no penstock.toml here", where=str(path),
                            fix="run `penstock init DIR`, or give the project's folder") from None  # fmt: skip
    except OSError as error:
        raise SettingsError("E201", f"penstock.toml cannot be read: {error.strerror}", where=str(path),
                            fix="check what it is and who may read it") from error  # fmt: skip
    except UnicodeDecodeError as error:
        raise SettingsError("E201", f"penstock.toml is not UTF-8 text, from byte {error.start} on",
                            where=str(path), fix="save it as UTF-8") from error  # fmt: skip
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError("E201", f"penstock.toml is not TOML: {error}", where=str(path),
                            fix="mend the line named") from error  # fmt: skip
    lines = lines_of(text)
    for name in SECRETS:
        _take_secrets(raw, name, (), os.environ, Places(str(path), lines))
    return parse_settings(raw, str(path), lines)


def _take_secrets(
    value: Any, name: tuple[str, ...], path: tuple[str, ...], environment: Mapping[str, str], places: Places
) -> None:  # fmt: skip
    """Put what the environment has in the place of `env:NAME`, wherever `name` leads to.

    Values of a wrong type stay as they are, for who checks types.
    """
    key, *rest = name
    if isinstance(value, list):
        found: list[Any] = list(range(len(value))) if key == "*" else []
    elif isinstance(value, dict):
        found = list(value) if key == "*" else [key] if key in value else []
    else:
        return
    for one in found:
        # A list stands on the line of its name.
        place = path if isinstance(value, list) else (*path, one)
        if rest:
            _take_secrets(value[one], tuple(rest), place, environment, places)
        elif isinstance(value[one], str) and value[one].startswith(ENVIRONMENT):
            variable = value[one].removeprefix(ENVIRONMENT).strip()
            if not environment.get(variable):
                raise SettingsError("E217", f"`{'.'.join(place)}` is to come from the environment, which has no `{variable}`",
                                    where=places.of(*place),
                                    fix="set that variable for every `penstock` command, `penstock up` among them")  # fmt: skip
            value[one] = environment[variable]


def parse_settings(
    raw: dict[str, Any],
    where: str = "penstock.toml",
    lines: Mapping[tuple[str, ...], int] | None = None,
) -> Settings:
    """Return settings from parsed TOML. See `load_settings` for the errors.

    Args:
        raw: What TOML says.
        where: The file, as errors name it.
        lines: On which line each key stands; None if that is not known.
    """
    places = Places(where, lines or {})
    _require_known(raw, Settings, (), places)
    try:
        settings = msgspec.convert(raw, Settings)
    except msgspec.ValidationError as error:
        # msgspec names the type and the path; it quotes no value for plain types.
        raise SettingsError("E203", f"a setting has the wrong type: {error}",
                            where=places.of(*_unfit(raw, Settings)),
                            fix="see docs/reference/settings.md for its type") from None  # fmt: skip
    _require_choices(settings, places)
    _require_ranges(settings, places)
    _require_addresses(settings.email, places)
    _require_public_url(settings.server.public_url, places)
    _require_keep(settings, places)
    _require_kafka(settings, places)
    feed_settings.require_feed(settings.feed, settings.log.kind, settings.registry.url, settings.consent.purposes, places)  # fmt: skip
    _require_compatibilities(settings, places)
    _require_purposes(settings, places)
    return settings


def _require_purposes(settings: Settings, places: Places) -> None:
    """Refuse a purpose or a lawful basis that nothing else knows: it would silently permit nothing."""
    consent = settings.consent
    known = (*PURPOSES, *consent.purposes)
    named: list[tuple[tuple[str, ...], str]] = []
    named += [(("consent", "gpc_denies"), one) for one in consent.gpc_denies]
    named += [(("consent", "categories", category), one)
              for category, purposes in consent.categories.items() for one in purposes]  # fmt: skip
    for source, declared in settings.sources.items():
        for purpose, basis in declared.basis.items():
            path = ("sources", source, "basis", purpose)
            named.append((path, purpose))
            if basis not in BASES:
                raise SettingsError("E251", f"`{basis}` is not a lawful basis of article 6 GDPR", where=places.of(*path),
                                    fix=_meant(basis, BASES, f"use one of {', '.join(BASES)}"))  # fmt: skip
    for path, purpose in named:
        if purpose not in known:
            raise SettingsError("E252", f"`{purpose}` in `{'.'.join(path[:3])}` is not a purpose", where=places.of(*path),
                                fix=_meant(purpose, known, "add a purpose of your own to `consent.purposes`"))  # fmt: skip


def _meant(name: str, known: Sequence[str], otherwise: str) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean `{near[0]}`? Or {otherwise}" if near else otherwise


def _unfit(value: Any, kind: Any) -> tuple[str, ...]:
    """Return the path of the first value that is not of its kind; empty if the fault is `value` itself."""
    if not isinstance(value, dict):
        return ()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        kinds = {field.name: field.type for field in msgspec.structs.fields(kind)}
    elif get_origin(kind) is dict:
        kinds = dict.fromkeys(value, get_args(kind)[1])
    else:
        return ()
    for name, one in value.items():
        try:
            msgspec.convert(one, kinds[name])
        except msgspec.ValidationError:
            return (name, *_unfit(one, kinds[name]))
    return ()


def _require_known(
    raw: dict[str, Any], struct: type[msgspec.Struct], path: tuple[str, ...], places: Places
) -> None:
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    prefix = "".join(f"{name}." for name in path)
    for key, value in raw.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            hint = (
                f"did you mean `{prefix}{near[0]}`?"
                if near
                else f"remove it; known are {', '.join(fields)}"
            )
            raise SettingsError("E202", f"there is no setting `{prefix}{key}`", where=places.of(*path, key),
                                fix=hint)  # fmt: skip
        kind = fields[key].type
        if isinstance(value, dict):
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                _require_known(value, kind, (*path, key), places)
            elif (inner := _struct_by_name(kind)) is not None:
                for name, one in value.items():
                    if isinstance(one, dict):
                        _require_known(one, inner, (*path, key, name), places)


def _struct_by_name(kind: Any) -> type[msgspec.Struct] | None:
    """Return what a table of tables holds by name, if that is a struct."""
    inner = get_args(kind)[1] if get_origin(kind) is dict else None
    return inner if isinstance(inner, type) and issubclass(inner, msgspec.Struct) else None


def _require_choices(settings: Settings, places: Places) -> None:
    for dotted, choices in {**KINDS, **CHOICES}.items():
        for path, value in _values(settings, dotted):
            if value not in choices:
                code, what = (
                    ("E206", "names an adapter that does not exist") if dotted in KINDS else
                    ("E204", "is none of its choices")
                )  # fmt: skip
                raise SettingsError(code, f"setting `{'.'.join(path)}` {what}", where=places.of(*path),
                                    fix=_meant(value, choices, f"use one of {', '.join(choices)}"))  # fmt: skip
    taken: set[str] = set()
    for name, source in settings.sources.items():
        if source.write_key and source.write_key in taken:
            raise SettingsError("E205", "two sources have the same write key",
                                where=places.of("sources", name, "write_key"),
                                fix="give each source a key of its own")  # fmt: skip
        taken.add(source.write_key)


def _require_ranges(settings: Settings, places: Places) -> None:
    for dotted, (least, most) in RANGES.items():
        for path, value in _values(settings, dotted):
            if not least <= value <= most:
                raise SettingsError("E207", f"setting `{'.'.join(path)}` is out of its range",
                                    where=places.of(*path), fix=f"give it a value between {least} and {most}")  # fmt: skip


def _require_keep(settings: Settings, places: Places) -> None:
    """Refuse to truncate the log where nothing says after how long, or nothing has the rest."""
    if settings.log.keep and not settings.log.keep_ms:
        raise SettingsError("E270", "setting `log.keep` is no span of days or hours", where=places.of("log", "keep"),
                            fix='write it such as "90d" or "36h"; remove it to keep all')  # fmt: skip
    if settings.log.keep and not (settings.archive.place or settings.log.forget):
        raise SettingsError("E272", "the log is to be truncated, and there is no archive that would have the rest",
                            where=places.of("log", "keep"), fix="set `archive.place`; or `log.forget = true` if history may go")  # fmt: skip


def _require_kafka(settings: Settings, places: Places) -> None:
    """Refuse a log on Kafka of which it is not said where it is, or who asks; and what it can't do."""
    if settings.log.kind != "kafka":
        return
    for name, what, fix in service_settings.kafka_faults(settings.log.kafka):
        raise SettingsError("E285", f"setting `log.kafka.{name}` can't be used: {what}",
                            where=places.of("log", "kafka", name), fix=fix)  # fmt: skip
    if settings.log.keep:
        raise SettingsError("E284", "a log on Kafka is not truncated: its topic's retention removes what is old",
                            where=places.of("log", "keep"), fix="remove it, and set `log.kafka.retention`")  # fmt: skip


def _require_compatibilities(settings: Settings, places: Places) -> None:
    for fault in connect_settings.registry_faults(settings.registry):
        raise SettingsError(fault.code, f"setting `{'.'.join(fault.path)}` {fault.what}", where=places.of(*fault.path),
                            fix=fault.fix)  # fmt: skip


def _require_public_url(url: str, places: Places) -> None:
    """Refuse what no link can start with: nobody could unsubscribe with it."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, usable = urlsplit(""), False
    if url and (not usable or parts.query or parts.fragment or not url.isprintable() or " " in url):
        raise SettingsError("E261", "setting `server.public_url` is nothing that a link can start with",
                            where=places.of("server", "public_url"),
                            fix='write it with its scheme, such as "https://mail.shop.example"')  # fmt: skip


def _require_addresses(email: EmailSettings, places: Places) -> None:
    """Refuse what no email can come from or go to: found at the first email, it is found at every one."""
    sender = f"{email.sender_name} <{email.sender}>" if email.sender_name else email.sender
    wrong = {
        "sender": not is_address(email.sender) or not is_sender(email.sender),
        "sender_name": is_sender(email.sender) and not is_sender(sender),
        "reply_to": bool(email.reply_to) and not is_sender(email.reply_to),
        "seeds": not all(is_address(one) for one in email.seeds),
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            fix = (
                'write a name without `<`, `>` or `"`' if name == "sender_name" else
                'write an address alone, such as "news@shop.example"; a name goes into `email.sender_name`'
            )  # fmt: skip
            raise SettingsError("E260", f"setting `email.{name}` is nothing that an email can carry",
                                where=places.of("email", name), fix=fix)  # fmt: skip


def _values(settings: Settings, dotted: str) -> list[tuple[tuple[str, ...], Any]]:
    found: list[tuple[tuple[str, ...], Any]] = [((), settings)]
    for name in dotted.split("."):
        if name == "*":
            found = [((*path, key), one) for path, value in found for key, one in value.items()]
        else:
            found = [((*path, name), getattr(value, name)) for path, value in found]
    return found
