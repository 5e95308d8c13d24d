"""Records of other producers are decoded by the schemas that they name, with or without their registry.

A schema that was read once is never asked for again. One that is not known is waited for, up to a
deadline; after that the record is parked, and so is every record of the same schema until it is known.
A registry that does not answer is waited for once, not once for each schema.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, NamedTuple

import msgspec

from penstock.core.errors import EventRejected, Unavailable
from penstock.core.literal import Literal
from penstock.core.wire import unframe
from penstock.ports.clock import Clock
from penstock.ports.decoder import Compile, Decode
from penstock.ports.metrics import Metrics
from penstock.ports.registry import Registry, with_references

RETRY_MS_MIN: Final = 1_000
RETRY_MS_MAX: Final = 15_000
"""How long a schema that was not found is not asked for again: twice as long each time."""
LOOK_S: Final = 0.25
"""How long to wait between two questions before the deadline."""
WAITED_FOR_MAX: Final = 16
"""How many schemas that are not known are waited for; a record of one more is parked at once."""
SCHEMAS_MAX: Final = 10_000
"""How many schemas are held ready."""

SCHEMA: Final = "schema "

_json = msgspec.json.Decoder(float_hook=Literal)

Sleep = Callable[[float], Awaitable[None]]


class _Absence(NamedTuple):
    """A schema that is not known: until when it is not asked for, and how long the next time."""

    until_ms: int
    retry_ms: int


class Schemas:
    """The schemas of records, by id: read from a registry, compiled, and held.

    Args:
        registry: Who has them.
        kind: Of the records: `JSON`, `AVRO` or `PROTOBUF`.
        compile_schema: Makes of a schema what reads its records.
        park_after_ms: How long a record waits for a schema that is not known.
        clock: Its monotonic one counts.
        metrics: Where to count.
        sleep: Waits so many seconds.
    """

    def __init__(
        self, registry: Registry, kind: str, compile_schema: Compile, *, park_after_ms: int, clock: Clock,
        metrics: Metrics, sleep: Sleep = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._kind = kind
        self._compile = compile_schema
        self._park_after_ms = park_after_ms
        self._clock = clock
        self._metrics = metrics
        self._sleep = sleep
        self._ready: dict[int, Decode | EventRejected] = {}
        self._absent: dict[int, _Absence] = {}
        self._away = _Absence(0, RETRY_MS_MIN)

    async def learn(self, values: Iterable[bytes]) -> None:
        """Have the schemas of records ready, as far as they are known; within the deadline.

        Raises:
            SettingsError: The registry does not let us in (E230), or an extra is missing (E235).
        """
        named = (_schema_id(value) for value in values)
        await self.known(frozenset(one for one in named if one is not None))

    async def known(self, schema_ids: frozenset[int]) -> set[int]:
        """Have schemas ready, as far as they are known; return which are.

        Raises:
            SettingsError: The registry does not let us in (E230), or an extra is missing (E235).
        """
        now = self._clock.monotonic_ms()
        missing = [
            one for one in sorted(schema_ids - self._ready.keys()) if self._may_ask(one, now)
        ]
        # Who makes up ids makes nobody wait: a few that nobody knows are waited for, and no more.
        deadline = now + (self._park_after_ms if len(self._absent) < WAITED_FOR_MAX else 0)
        away = False
        while missing:
            away = await self._ask(missing)
            missing = [one for one in missing if one not in self._ready]
            now = self._clock.monotonic_ms()
            if not missing or now >= deadline:
                break
            await self._sleep(min(LOOK_S, (deadline - now) / 1_000))
        if away:
            self._away = _later(self._away, now)
        if len(self._absent) > SCHEMAS_MAX:
            self._absent.clear()
        for one in missing:
            self._absent[one] = _later(self._absent.get(one, _Absence(0, RETRY_MS_MIN)), now)
        return {one for one in schema_ids if one in self._ready}

    def decode(self, value: bytes) -> Any:
        """Return what a record says.

        Raises:
            EventRejected: It is not in the wire format (E330), does not read back (E331), its schema can't
                be used (E332), or is not known, so that it is to be parked (E333).
        """
        framed = unframe(value)
        ready = self._ready.get(framed.schema_id)
        if ready is None:
            raise EventRejected("E333", f"the schema of a record, id {framed.schema_id}, is not known yet",
                                where=schema_place(framed.schema_id),
                                fix="start the registry, or register it there; the record comes back by itself")  # fmt: skip
        if isinstance(ready, EventRejected):
            raise ready
        return ready(framed.payload)

    def _may_ask(self, schema_id: int, now: int) -> bool:
        absent = self._absent.get(schema_id)
        return now >= self._away.until_ms and (absent is None or now >= absent.until_ms)

    async def _ask(self, missing: list[int]) -> bool:
        """Ask for schemas; return whether the registry did not answer."""
        for schema_id in missing:
            try:
                await asyncio.to_thread(self._find, schema_id)
            except Unavailable as error:
                self._metrics.count("penstock_registry_failures_total", code=error.code)
                return True
        self._away = _Absence(0, RETRY_MS_MIN)
        return False

    def _find(self, schema_id: int) -> None:
        schema = self._registry.schema(schema_id)
        used = None if schema is None else with_references(self._registry, schema)
        if schema is None or used is None:
            return
        if len(self._ready) >= SCHEMAS_MAX:
            self._ready.clear()  # they are read again, if anybody has so many
        if schema.kind != self._kind:
            self._ready[schema_id] = EventRejected(
                "E332", f"the schema of a record, id {schema_id}, is of {schema.kind} and not of {self._kind}", where="$",
                fix="set the connector's `format` to what the topic has")  # fmt: skip
            return
        try:
            self._ready[schema_id] = self._compile(schema, used)
        except EventRejected as error:
            self._ready[schema_id] = error
        self._absent.pop(schema_id, None)


def schema_place(schema_id: int) -> str:
    """Return where the fault of a parked record is: its schema.

    Laws:
        schema_at(schema_place(i)) == i
    """
    return f"{SCHEMA}{schema_id}"


def schema_at(path: str) -> int | None:
    """Return the schema that a parked record waits for, from where its fault is; None if it says none."""
    number = path.removeprefix(SCHEMA)
    return int(number) if path.startswith(SCHEMA) and number.isdecimal() else None


def _later(before: _Absence, now: int) -> _Absence:
    return _Absence(now + before.retry_ms, min(2 * before.retry_ms, RETRY_MS_MAX))


def _schema_id(value: bytes) -> int | None:
    try:
        return unframe(value).schema_id
    except EventRejected:
        return None


def read_json(payload: bytes) -> Any:
    """Return what JSON says; decimals keep their digits.

    Raises:
        EventRejected: It is no JSON (E331).
    """
    try:
        return _json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EventRejected("E331", "a record is no JSON", where="$",
                            fix="send JSON, or set the `format` that the topic has") from error  # fmt: skip


def compile_json(schema: object, references: object) -> Decode:
    """Return what reads records of JSON Schema. The catalog checks them, and not their schema again."""
    return read_json
