"""How brokers are reached, and what it means if they do not answer or do not let us in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from confluent_kafka import KafkaError, KafkaException

from penstock.core.errors import PenstockError, SettingsError, Unavailable

BROKERS: Final = "log.kafka.brokers"
"""The setting that is named where brokers do not answer."""

T = TypeVar("T")

_SILENT: Final = logging.getLogger("penstock.kafka")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False

_LET_IN: Final = frozenset({
    KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL,  # noqa: SLF001 - its names
    KafkaError.ILLEGAL_SASL_STATE, KafkaError.UNSUPPORTED_SASL_MECHANISM,
})  # fmt: skip
_ALLOWED: Final = frozenset({
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
})  # fmt: skip


class Connection(NamedTuple):
    """A cluster of brokers, and the topics of one project on it."""

    client: Mapping[str, Any]
    """What every client is told, as librdkafka names it: brokers, security, credentials."""
    prefix: str = "penstock."
    """What the names of all topics begin with."""
    open_timeout_s: float = 10.0
    append_timeout_s: float = 5.0
    read_timeout_s: float = 10.0
    compression: str = "lz4"

    def log_topic(self, generation: int) -> str:
        """Return the topic of a generation of the log: each has a number of partitions for good."""
        return f"{self.prefix}log-{generation}"

    @property
    def letters_topic(self) -> str:
        """The topic of dead letters."""
        return f"{self.prefix}dead-letters"

    @property
    def decisions_topic(self) -> str:
        """The topic of decisions, for other systems."""
        return f"{self.prefix}decisions"

    @property
    def profiles_topic(self) -> str:
        """The topic of profiles, for other systems."""
        return f"{self.prefix}profiles"


class Heard:
    """What a client was last told of its brokers, which no call returns: why they do not answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._error: KafkaError | None = None

    def hear(self, error: KafkaError) -> None:
        """Note an error of the connection. What is told of a login outweighs that nobody answers."""
        with self._lock:
            if self._error is None or self._error.code() not in _LET_IN:
                self._error = error

    def forget(self) -> None:
        """The brokers answered."""
        with self._lock:
            self._error = None

    @property
    def error(self) -> KafkaError | None:
        """The error that counts, if any."""
        with self._lock:
            return self._error


def client(connection: Connection, heard: Heard, **own: Any) -> dict[str, Any]:
    """Return the configuration of a client.

    Args:
        connection: The cluster.
        heard: Told why brokers do not answer.
        own: More of it, with `_` for `.` in the names.
    """
    return {
        # A broker that comes back is found within a second, by clients that were there all the time.
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "socket.keepalive.enable": True,
        "socket.nagle.disable": True,
        "socket.connection.setup.timeout.ms": 5_000,
        "log_level": 0,
        "logger": _SILENT,
        **connection.client,
        "error_cb": heard.hear,
        **{name.replace("_", "."): value for name, value in own.items()},
    }


def refused(error: KafkaError | None, what: str, *, where: str = BROKERS) -> PenstockError:
    """Return what an error means when something is opened: what the operator sets, or that nobody answers.

    Args:
        error: What was told; None if nothing was.
        what: What was asked for, such as `the log`.
        where: The setting or topic that it is about.
    """
    code = error.code() if error is not None else None
    if code in _LET_IN:
        assert error is not None, "it has a code"
        return SettingsError("E282", f"the brokers did not let us in: {_told(error)}", where="log.kafka.security",
                             fix="check the user, its password and the mechanism, the certificate to trust, or whether `token_url` answers")  # fmt: skip
    if code in _ALLOWED:
        return SettingsError("E282", f"the brokers do not allow this user to use {what}", where=where,
                             fix="let it describe, read and write the topics of the prefix; the guide on Kafka lists the ACLs")  # fmt: skip
    return away(error, what)


def away(error: KafkaError | None, what: str) -> Unavailable:
    """Return that brokers did not do what was asked, while a process runs: it goes on trying."""
    told = f": {_told(error)}" if error is not None else ""
    return Unavailable("E401", f"{what} did not answer{told}", where=BROKERS,
                       fix="retry; if it lasts, look at the brokers, or run `penstock doctor`")  # fmt: skip


def told_by(error: KafkaException) -> KafkaError:
    """Return the error that an exception carries."""
    found = error.args[0]
    assert isinstance(found, KafkaError), "their exceptions carry their errors"
    return found


def asked(
    work: Callable[[], T], heard: Heard, what: str, *, listen: Callable[[], object], where: str = BROKERS
) -> T:  # fmt: skip
    """Ask the brokers for something while a log is opened.

    Args:
        work: Asks.
        heard: What was told meanwhile.
        what: What is asked for.
        listen: Lets the client tell `heard` what it was told; it does not by itself.
        where: The setting or topic that it is about.

    Raises:
        SettingsError: They do not let us in, or do not allow it (E282).
        Unavailable: They do not answer (E401).
    """
    try:
        return work()
    except KafkaException as exception:
        error = told_by(exception)
        listen()
        # A wrong password shows as silence to whoever asks; the reason was told to the connection.
        known = error if error.code() in _LET_IN | _ALLOWED else heard.error or error
        raise refused(known, what, where=where) from exception


def _told(error: KafkaError) -> str:
    """Return an error's name. Its text may hold addresses and users, and goes nowhere."""
    return str(error.name())
