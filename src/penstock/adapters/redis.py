"""How every Redis adapter reaches its server: deadlines, functions, and whether anything was lost.

A Redis server acknowledges what it holds in memory. A restart, a failover or a flush may take some of
it back, and the connection looks the same afterwards. So whoever reads or writes here goes by an *era*:
it ends when the server is another process, follows another history (its replication id) or lacks the
marker that was put into it. What ended an era is told once, as `Unavailable`, before anything else is
answered; whoever had cached something forgets it then and goes by what the server has.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn
from urllib.parse import quote, urlsplit

import hiredis
import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.connection import Connection, ConnectionPool, parse_url
from redis.retry import Retry

from penstock.core.errors import PenstockError, SettingsError, Unavailable

PREFIX: Final = "penstock"
"""What every key begins with: an ACL user of ours needs no other."""

VERSION_LEAST: Final = (7, 0)
"""Functions are of Redis 7.0."""

REST_S: Final = 0.25
"""After a failure nothing is tried for so long: what waits on the event loop waits once, not every time."""

NEEDED: Final = ("FCALL", "FCALL_RO", "FUNCTION", "WAIT")
"""What servers may lack though they say that they are new enough: by their settings, or as another product."""

COMMANDS: Final = "+@read +@write +@connection +@transaction +fcall +fcall_ro +function|load +info +wait -@dangerous +info"
"""What a user of ours may do, besides `~penstock:*`; the guide and `E294` name it."""

Command = tuple[Any, ...]

Lend = Callable[[], AbstractContextManager[Any]]
"""Lends a connection for one round trip."""


class RedisAddress(NamedTuple):
    """Where a server is and how it is spoken to."""

    url: str
    """`redis://HOST:PORT/DB`, `rediss://…` for TLS, or `unix:///PATH`."""
    username: str = ""
    password: str = ""
    ca: str = ""
    """File of the certificates that are trusted, of `rediss://`; empty for the system's."""
    connect_timeout_ms: int = 1_000
    timeout_ms: int = 1_000
    """How long an answer may take, before it counts as none."""
    wait_replicas: int = 0
    """How many replicas have what is to outlast a server, before that is said."""


class Library(NamedTuple):
    """Functions that run in the server, under a name with their version: `penstock_store_2`."""

    name: str
    source: str
    """Lua, with `@DIGEST@` where it tells what it is."""

    @property
    def digest(self) -> str:
        """What tells one text of the library from another."""
        return blake2b(self.source.encode(), digest_size=8).hexdigest()

    @property
    def code(self) -> str:
        """What is loaded."""
        return self.source.replace("@DIGEST@", self.digest)


def library(beside: str, name: str) -> Library:
    """Return the library of the file `NAME.lua` beside a module."""
    source = Path(beside).with_name(f"{name}.lua").read_text(encoding="utf-8")
    return Library(source.partition("name=")[2].split()[0], source)


class Purpose(NamedTuple):
    """Who asks: what it is called in messages, and its code of "did not answer"."""

    what: str
    code: str


class Facts(NamedTuple):
    """What a server says of itself."""

    version: tuple[int, ...]
    run_id: str
    replication_id: str
    role: str
    policy: str
    clustered: bool
    appends: bool
    """Whether it has an append-only file."""
    memory_bytes: int
    memory_bytes_max: int
    """What it may take: its own limit, else the machine's memory; 0 if it does not say."""
    replicas: int
    time_ms: int
    """Its clock, when it answered; 0 if it does not say."""


class _Moved(redis.RedisError):
    """The era has ended: the server may lack what it had acknowledged."""


class _Unfit(redis.RedisError):
    """The server can't be used as it is; holds why, as a `PenstockError`."""

    def __init__(self, why: PenstockError) -> None:
        super().__init__(why.what)
        self.why = why


class RedisServer:
    """One server, as one adapter sees it. Safe to use from several threads.

    Args:
        address: Where it is.
        tenant: Part of every key.
        purpose: Who asks.
        library: The functions that it needs; loaded where they are missing.

    Raises:
        SettingsError: The address is none (E290), the server evicts (E291), is older than Redis 7.0
            (E292) or lacks a command (E239), does not know the user (E293), denies it what is needed (E294), or is a replica (E297).
        Unavailable: It did not answer (the purpose's code).
    """

    def __init__(
        self, address: RedisAddress, *, tenant: str, purpose: Purpose, library: Library
    ) -> None:
        self.address = address
        self.scope = quote(tenant, safe="")
        self._purpose = purpose
        self._library = library
        self._pool = ConnectionPool(**arguments(address), redis_connect_func=self._greet)
        self._lock = threading.Lock()
        self._identity: tuple[str, str] | None = None
        self._marker: bytes | None = None
        self._prepared = False
        self._told = False
        """That an era has ended, and the next has not begun yet: what is found meanwhile belongs to it."""
        self._rests_until = 0.0
        self._closed = False
        self._unfit: Unavailable | None = None
        self.remake: Callable[[], Sequence[Command]] = tuple
        """What puts back, into a server that may have lost it, what its owner has put there."""
        self.clustered = False
        self.era = 0
        """Ends when the server may lack what it had acknowledged; no round trip."""
        try:
            self.run([])
        except PenstockError as error:
            self._pool.disconnect()
            raise at_start(error, address.url) from error

    # -- keys

    def key(self, *parts: str) -> str:
        """Return the key of something of the tenant as a whole: all of them are in one slot of a cluster."""
        return ":".join((f"{PREFIX}:{{{self.scope}}}", *parts))

    def spread(self, buckets: int) -> list[bytes]:
        """Return what keys begin with by bucket: a bucket is in one slot of a cluster, and all are spread over it."""
        return [f"{PREFIX}:{{{self.scope}/{bucket:x}}}:".encode() for bucket in range(buckets)]

    # -- ask

    def call(self, function: str, keys: Sequence[Any], *arguments: Any) -> Command:
        """Return the command that calls a function of the library."""
        return ("FCALL", f"{self._library.name}_{function}", len(keys), *keys, *arguments)

    def run(
        self, commands: Sequence[Command], *, confirm: bool = False, era: int | None = None,
        over: Lend | None = None,
    ) -> list[Any]:  # fmt: skip
        """Run commands in one round trip, and return what they answered.

        Args:
            commands: In order; not a transaction.
            confirm: Wait until so many replicas as the address says have what was written.
            era: The era that the caller goes by; if it has ended, nothing is run (E450).
            over: Lends the caller's own connection (`connect_tracking`); else one of the pool is taken.

        Raises:
            Unavailable: The server did not answer (the purpose's code), may lack what it had
                acknowledged (E450), too few replicas have it (E451), or it can't be used as it is (E452).
        """
        if self._closed:
            raise Unavailable(self._purpose.code, f"{self._purpose.what} is closed", fix="open it again")  # fmt: skip
        if self._unfit is not None:
            raise self._unfit
        if time.monotonic() < self._rests_until:
            raise self._away("it did not answer a moment ago")
        try:
            waits = confirm and self.address.wait_replicas > 0
            return self._run(commands, era, over or self._connection, confirm=waits)
        except _Unfit as error:
            raise _at_run_time(error.why) from error
        except _Moved as error:
            raise Unavailable("E450", f"{self._purpose.what}: {error}", where=self.address.url,
                              fix="nothing: what was lost is made again from the log") from error  # fmt: skip
        except (redis.TimeoutError, redis.ConnectionError, OSError) as error:
            if not isinstance(error, redis.AuthenticationError):
                self._rests_until = time.monotonic() + REST_S
            raise self._away(_reason(error)) from error
        except redis.RedisError as error:
            raise self._away(_reason(error)) from error

    def _run(
        self, commands: Sequence[Command], era: int | None, lend: Lend, *, confirm: bool
    ) -> list[Any]:
        with lend() as connection:
            if not self._prepared:
                self._prepare(connection)
            # Looked at with the connection in hand: it is of this era, or leads to a server that is gone.
            if era is not None and era != self.era:
                raise _Moved(
                    "it may lack what it had acknowledged, and this writer has not asked since"
                )
            asked = [*commands, *self._seal()]
            if confirm:
                wait_ms = max(self.address.timeout_ms // 2, 1)
                asked.append(("WAIT", self.address.wait_replicas, wait_ms))
            answers = _ask(connection, asked)
        self._verify(answers[len(commands)], answers[len(commands) + 1])
        for answer in answers:
            if isinstance(answer, redis.ResponseError):
                raise answer
        if confirm and answers[-1] < self.address.wait_replicas:
            raise _Unfit(Unavailable(
                "E451", f"{answers[-1]} of {self.address.wait_replicas} replicas confirmed what was written",
                fix="look at the replicas; what was written counts once they have it", where=self.address.url))  # fmt: skip
        return answers[: len(commands)]

    def connect_tracking(self) -> Any:
        """Return a connection of the caller's own, on which the server says which keys read over it have changed.

        Raises:
            redis.RedisError: As connections of the pool; call it where `run` lends one (`over`).
        """
        connection = self._pool.connection_class(**{**self._pool.connection_kwargs, "protocol": 3})
        try:
            connection.connect()
            (told,) = _ask(connection, [("CLIENT", "TRACKING", "ON")])
            if isinstance(told, exceptions.NoPermissionError):
                raise told
            if isinstance(told, redis.ResponseError):
                raise _Unfit(SettingsError(
                    "E239", "the server does not say which keys change (`CLIENT TRACKING`)", where=self.address.url,
                    fix="set `store.redis.cache_mb` to 0, or name a Redis server itself"))  # fmt: skip
        except BaseException:
            connection.disconnect()
            raise
        return connection

    @property
    def marker(self) -> bytes:
        """What a function compares to know that its caller has seen this history."""
        assert self._marker is not None, "it was prepared"
        return self._marker

    @property
    def history(self) -> bytes:
        """What this process of the server is, with what it held when the era began.

        Raises:
            Unavailable: It is not known, since another thread has found the era to have ended (E450).
        """
        with self._lock:
            identity, marker = self._identity, self._marker
        if identity is None or marker is None:
            raise Unavailable("E450", f"{self._purpose.what}: the server may lack what it had acknowledged", where=self.address.url,
                              fix="nothing: what was lost is made again from the log")  # fmt: skip
        return b"/".join((marker, *(one.encode() for one in identity)))

    @property
    def marker_key(self) -> str:
        """Where the marker is."""
        return self.key("marker")

    def facts(self) -> Facts:
        """Return what the server says of itself now."""
        (raw,) = self.run([("INFO",)])
        return _facts(raw)

    def check(self) -> None:
        """Look whether the server may still be used: what may be set while it runs.

        Raises:
            Unavailable: It may not (E452), or did not answer.
        """
        self._unfit = None
        unfit = _unfit(self.facts(), self.address.url)
        if unfit is not None:
            self._unfit = _at_run_time(unfit)
            raise self._unfit

    def close(self) -> None:
        """Close every connection; a second call does nothing."""
        self._closed = True
        self._pool.disconnect()

    # -- eras

    def _seal(self) -> list[Command]:
        # Asked last: what was read before is of the era that these two still belong to.
        return [("GET", self.marker_key), ("INFO", "replication")]

    def _verify(self, marker: Any, replication: Any) -> None:
        with self._lock:
            if marker is None or marker != self._marker:
                self._end_era("the marker is gone: the server was emptied")
            if isinstance(replication, bytes) and self._identity is not None:
                told = _lines(replication)
                if (told.get("master_replid"), told.get("role")) != (self._identity[1], "master"):
                    self._end_era("the server follows another history")

    def _end_era(self, why: str) -> NoReturn:
        self.era += 1
        self._told, self._prepared = True, False
        self._identity = None
        self._pool.disconnect(inuse_connections=False)
        raise _Moved(why)

    def _greet(self, connection: Any) -> None:
        """Make the acquaintance of the server at the other end of a new connection."""
        connection.on_connect()
        (raw,) = _ask(connection, [("INFO",)])
        if isinstance(raw, redis.ResponseError):
            raise raw
        facts = _facts(raw)
        unfit = _unfit(facts, self.address.url)
        if unfit is not None:
            raise _Unfit(unfit)
        identity = (facts.run_id, facts.replication_id)
        with self._lock:
            known, self._identity = self._identity, identity
            self.clustered = facts.clustered
            if known is not None and known != identity:
                self.era += 1
                self._told, self._prepared = True, False
                raise _Moved("the server is another process, or has taken over from another")

    def _prepare(self, connection: Any) -> None:
        """Have the functions and the marker there."""
        name = self._library.name
        supported, told = _ask(connection, [("COMMAND", "INFO", *NEEDED), ("FCALL_RO", f"{name}_digest", 0)])  # fmt: skip
        lacks = [] if isinstance(supported, redis.ResponseError) else [one for one, has in zip(NEEDED, supported, strict=True) if not has]  # fmt: skip
        if lacks:
            raise _Unfit(SettingsError(
                "E239", f"the server has no {', '.join(lacks)}", where=self.address.url,
                fix="take `rename-command` of it out of its settings, or run Redis 7.0 or newer itself"))  # fmt: skip
        if isinstance(told, redis.ResponseError) and "not found" not in str(told):
            raise told
        if told != self._library.digest.encode():
            (loaded,) = _ask(connection, [("FUNCTION", "LOAD", "REPLACE", self._library.code)])
            if isinstance(loaded, redis.ResponseError):
                raise loaded
        fresh = f"{self._identity}:{time.monotonic_ns()}:{id(self)}".encode()
        mark = blake2b(fresh, digest_size=16).hexdigest()
        put, marker = _ask(
            connection, [("SET", self.marker_key, mark, "NX"), ("GET", self.marker_key)]
        )
        for answer in (put, marker):
            if isinstance(answer, redis.ResponseError):
                raise answer
        with self._lock:
            known, self._marker = self._marker, marker
        if known is not None:
            _ask(connection, self.remake())
        with self._lock:
            told, self._told, self._prepared = self._told, False, True
            if known is not None and known != marker and not told:
                # The connection may be the same, and what was read through it is not there any more.
                self.era += 1
                raise _Moved("the marker is another: the server was emptied")

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Any]:
        connection = self._pool.get_connection()
        try:
            yield connection
        except BaseException:
            # Answers that nobody read would be taken for those of the next.
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)

    def _away(self, why: str) -> Unavailable:
        return Unavailable(self._purpose.code, f"{self._purpose.what} did not answer: {why}", where=self.address.url,
                           fix="look at the Redis server; it is tried again, and nothing is lost")  # fmt: skip


def arguments(address: RedisAddress) -> dict[str, Any]:
    """Return what connections to a server are made with, synchronous or not.

    Raises:
        SettingsError: The address is none, or has a password in it (E290).
    """
    wrong = SettingsError("E290", "`store.redis.url` is no address of a Redis server", where="store.redis.url",
                          fix='write it such as "redis://127.0.0.1:6379/0", "rediss://…" for TLS, or "unix:///PATH"; user and '
                          "password have settings of their own")  # fmt: skip
    try:
        parts = urlsplit(address.url)
        told = parse_url(address.url)
    except ValueError:
        raise wrong from None
    if parts.username or parts.password or not (parts.hostname or parts.path):
        raise wrong
    if parts.scheme == "rediss" and address.ca:
        if not Path(address.ca).is_file():
            raise SettingsError("E290", "the file of `store.redis.ca` does not exist", where=address.ca,
                                fix="name the file with the certificate that signed the server's")  # fmt: skip
        told["ssl_ca_certs"] = address.ca
    return {
        **told,
        "username": address.username or None,
        "password": address.password or None,
        "socket_connect_timeout": address.connect_timeout_ms / 1000,
        "socket_timeout": address.timeout_ms / 1000,
        # Failing is an answer: who asked knows better than the client whether to ask again.
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "client_name": PREFIX,
    }  # fmt: skip


def _ask(connection: Connection, commands: Sequence[Command]) -> list[Any]:
    """Send commands at once and return their answers; what the server refused is among them as an error."""
    # As one piece: the client would send the system a call for every 6 KB, and look at each argument twice.
    connection.send_packed_command([b"".join(map(hiredis.pack_command, commands))])
    answers: list[Any] = []
    for _ in commands:
        try:
            answers.append(connection.read_response())
        except redis.ResponseError as error:
            answers.append(error)
    return answers


def _lines(raw: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in raw.decode().splitlines())
    return {name: value for name, colon, value in pairs if colon}


def _facts(raw: bytes) -> Facts:
    told = _lines(raw)
    number = told.get("redis_version", "0").split(".")
    return Facts(
        version=tuple(int(one) for one in number if one.isdecimal()),
        run_id=told.get("run_id", ""),
        replication_id=told.get("master_replid", ""),
        role=told.get("role", ""),
        policy=told.get("maxmemory_policy", ""),
        clustered=told.get("cluster_enabled") == "1",
        appends=told.get("aof_enabled") == "1",
        memory_bytes=int(told.get("used_memory", 0)),
        memory_bytes_max=int(told.get("maxmemory", 0)) or int(told.get("total_system_memory", 0)),
        replicas=int(told.get("connected_slaves", 0)),
        time_ms=int(told.get("server_time_usec", 0)) // 1_000,
    )


def _unfit(facts: Facts, url: str) -> SettingsError | None:
    """Return why a server can't be used; None if it can."""
    if facts.version < VERSION_LEAST:
        return SettingsError("E292", f"the server is Redis {'.'.join(map(str, facts.version))}, and functions came with 7.0",
                             fix="run Redis 7.0 or newer", where=url)  # fmt: skip
    if facts.role != "master":
        return SettingsError("E297", "the server is a replica, and takes no writes",
                             fix="name the primary in `store.redis.url`, or an address that follows it", where=url)  # fmt: skip
    if facts.policy != "noeviction":
        return SettingsError("E291", f"the server evicts: its `maxmemory-policy` is `{facts.policy}`", where=url,
                             fix="set `maxmemory-policy noeviction` (`CONFIG SET maxmemory-policy noeviction`): profiles would "
                             "vanish without a word")  # fmt: skip
    return None


def _at_run_time(why: PenstockError) -> Unavailable:
    """Return what is told of a server that has come to be unfit: somebody may put it right."""
    if isinstance(why, Unavailable):
        return why
    return Unavailable("E452", why.what, fix=why.fix, where=why.where)


def at_start(error: PenstockError, url: str) -> PenstockError:
    """Return what is told at the start of what nobody can wait for."""
    cause = error.__cause__
    if isinstance(cause, _Unfit):
        return cause.why
    if isinstance(cause, redis.AuthenticationError):
        return SettingsError("E293", "the Redis server does not know this user and password", where=url,
                             fix="set `store.redis.username` and `store.redis.password`")  # fmt: skip
    if isinstance(cause, exceptions.NoPermissionError):
        return SettingsError("E294", "the Redis server denies this user a command or a key that is needed", where=url,
                             fix=f"give it `ACL SETUSER … ~{PREFIX}:* {COMMANDS}`")  # fmt: skip
    return error


def _reason(error: BaseException) -> str:
    """Return why there was no answer; never what was asked, which holds keys."""
    if isinstance(error, exceptions.NoPermissionError):
        return "the user may not do what is needed"
    if isinstance(error, redis.AuthenticationError):
        return "it does not know this user and password"
    if isinstance(error, exceptions.OutOfMemoryError):
        return "its memory is full"
    if isinstance(error, exceptions.ReadOnlyError):
        return "it has become a replica"
    if isinstance(error, exceptions.BusyLoadingError):
        return "it is loading its data"
    if isinstance(error, redis.TimeoutError | TimeoutError):
        return "the time was up"
    if isinstance(error, redis.ResponseError):
        return f"it refused with `{str(error).split(' ', 1)[0]}`"
    return "the connection failed"
