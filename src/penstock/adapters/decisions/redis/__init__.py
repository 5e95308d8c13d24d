"""The decision store on Redis: decisions with their outbox, reservations that lapse, and sends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from penstock.adapters.redis import Command, Purpose, RedisAddress, RedisServer, library
from penstock.core.decision.record import decision_id_of
from penstock.core.errors import Unavailable
from penstock.core.time import DAY_MS
from penstock.ports.decisions import Decided, DecisionKey, SendState

LAPSED_KEPT_MS: Final = 7 * DAY_MS
"""A lapsed reservation is kept so long: its email may have been sent after all, and be confirmed."""

DECISIONS: Final = 250
"""Decisions put by one call, all or none, and read in one round trip."""

SENDS: Final = 1_000
"""Sends read in one round trip."""

PURPOSE: Final = Purpose("the decision store", "E404")
LIBRARY: Final = library(__file__, "decisions")

_encode = msgspec.msgpack.Encoder().encode
_decision = msgspec.msgpack.Decoder(tuple[DecisionKey, bytes]).decode
_state = msgspec.msgpack.Decoder(SendState).decode
_whose = msgspec.msgpack.Decoder(tuple[bytes, str, str]).decode


class RedisDecisions:
    """The decision store in one Redis server: a key a decision, a sorted set a cap, a hash a send.

    What a call returned of is in as many replicas as the address says. Without replicas it is as durable
    as the server's append-only file: with `appendfsync always` nothing that was answered is lost with
    the server, with `everysec` a crash of the machine takes a second: what was decided in it may be
    decided again, and an email handed over in it may be handed over again.

    The log does not have all that is here, so an emptied server is not made whole by itself: nothing is
    answered (E404) until somebody says with `found` that it begins anew.

    Args:
        address: Where the server is.
        tenant: Part of every key.

    Raises:
        SettingsError: The server can't be used (E290 to E297).
        Unavailable: It did not answer (E404).
    """

    def __init__(self, address: RedisAddress, *, tenant: str = "default") -> None:
        self._server = RedisServer(address, tenant=tenant, purpose=PURPOSE, library=LIBRARY)
        self._founded = self._server.key("founded")
        self._decisions = self._server.key("decision", "").encode()
        self._outbox = self._server.key("outbox")

    def founded(self) -> bool:
        """Return whether this was begun, and not emptied since."""
        return self._server.run([("EXISTS", self._founded)]) == [1]

    def found(self) -> None:
        """Begin: what is not here now was never decided."""
        self._server.run([("SET", self._founded, 1)], confirm=True)

    # ---------------------------------------------------------------------------------- decisions

    def put_if_absent(self, items: Sequence[tuple[DecisionKey, bytes]]) -> list[Decided]:
        """Keep each record unless one stands already, with its place in the outbox; confirmed on return."""
        decided: list[Decided] = []
        for start in range(0, len(items), DECISIONS):
            some = [(_raw_id(key), _encode((key, record))) for key, record in items[start : start + DECISIONS]]  # fmt: skip
            keys = [self._outbox, self._server.key("sequence"), *(self._decisions + raw_id for raw_id, _ in some)]  # fmt: skip
            arguments = [one for item in some for one in item]
            put = self._server.call("put", keys, *arguments)
            answers, *_ = self._run([put, *self._marked()], confirm=True)
            decided += [
                Decided(_decision(raw)[1], created=bool(created)) for raw, created in answers
            ]
        return decided

    def get(self, keys: Sequence[DecisionKey]) -> list[bytes | None]:
        """Return the records that stand, in order; confirmed, since what is shown of one is to stand for good."""
        found = [
            None if raw is None else _decision(raw)[1] for raw in self._read(map(_raw_id, keys))
        ]
        if any(raw is not None for raw in found) and (marked := self._marked()):
            # Whoever put one may have been told that too few replicas have it.
            self._run(marked, confirm=True)
        return found

    def find(self, decision_id: str) -> tuple[DecisionKey, bytes] | None:
        """Return a decision by its id, or None."""
        try:
            raw_id = bytes.fromhex(decision_id)
        except ValueError:
            return None
        (raw,) = self._read([raw_id])
        return None if raw is None else _decision(raw)

    def outbox(self, limit: int) -> list[tuple[int, bytes]]:
        """Return up to `limit` records not yet in the log, oldest first."""
        if limit < 1:
            return []
        (some,) = self._run([("ZRANGE", self._outbox, 0, limit - 1, "WITHSCORES")])
        sequences = [int(float(score)) for score in some[1::2]]
        read = zip(sequences, self._read(some[::2]), strict=True)
        return [(sequence, _decision(raw)[1]) for sequence, raw in read if raw is not None]

    def outbox_done(self, sequences: Sequence[int]) -> None:
        """Forget outbox entries."""
        self._run([("ZREMRANGEBYSCORE", self._outbox, one, one) for one in sequences])

    # ------------------------------------------------------------------------------- reservations

    def reserve(
        self, recipient: bytes, cap: str, *, limit: int, token: str, until_ms: int, now_ms: int
    ) -> bool:
        """Reserve one unit of a frequency cap; counted and taken by one function."""
        keys = [self._cap(recipient, cap), self._server.key("token", token)]
        asked = self._server.call("reserve", keys, token, until_ms, now_ms, limit, LAPSED_KEPT_MS)
        return self._run([asked], confirm=True) == [1]

    def has_room(self, recipient: bytes, cap: str, *, limit: int, token: str, now_ms: int) -> bool:
        """Return what `reserve` would."""
        asked = self._server.call("has_room", [self._cap(recipient, cap)], token, now_ms, limit)
        return self._run([asked]) == [1]

    def confirm(self, token: str, until_ms: int) -> None:
        """Make a reservation last until `until_ms`, also one that has lapsed meanwhile."""
        key = self._server.key("token", token)
        (caps,) = self._run([("SMEMBERS", key)])
        if caps:
            self._run([self._server.call("confirm", [key, *caps], token, until_ms)], confirm=True)

    def release(self, token: str) -> None:
        """Give a reservation back."""
        key = self._server.key("token", token)
        (caps,) = self._run([("SMEMBERS", key)])
        self._run([*(("ZREM", cap, token) for cap in caps), ("UNLINK", key)], confirm=True)

    # -------------------------------------------------------------------------------------- sends

    def start_send(
        self, key: DecisionKey, message_id: str, now_ms: int, *, again_from: SendState | None = None
    ) -> SendState | None:
        """Record that an email is about to be handed over, unless it was; confirmed on return."""
        state = _encode(SendState("started", now_ms, message_id))
        after = b"" if again_from is None else _encode(again_from)
        keys = [self._sends(key.campaign, key.send)]
        asked = self._server.call("start", keys, _encode(_whose_of(key)), state, after)
        (standing,) = self._run([asked], confirm=True)
        return None if standing is None else _state(standing)

    def finish_send(self, key: DecisionKey, state: SendState) -> None:
        """Record the outcome of a hand-over; confirmed on return."""
        where = self._sends(key.campaign, key.send)
        self._run([("HSET", where, _encode(_whose_of(key)), _encode(state))], confirm=True)

    def sends(
        self, campaign: str, send: str, *, state: str = ""
    ) -> list[tuple[DecisionKey, SendState]]:
        """Return the emails of a send, ordered by recipient."""
        found: dict[bytes, bytes] = {}
        cursor = 0
        while True:
            ((after, page),) = self._run(
                [("HSCAN", self._sends(campaign, send), cursor, "COUNT", SENDS)]
            )
            found.update(zip(page[::2], page[1::2], strict=True))
            cursor = int(after)
            if not cursor:
                break
        read = sorted((_whose(whose), _state(raw)) for whose, raw in found.items())
        return [
            (DecisionKey(tenant, recipient, campaign, send, slot), standing)
            for (recipient, tenant, slot), standing in read
            if state in ("", standing.state)
        ]

    def close(self) -> None:
        """Close the connections; a second call does nothing."""
        self._server.close()

    # --------------------------------------------------------------------------------- the server

    def _run(self, commands: Sequence[Command], *, confirm: bool = False) -> list[Any]:
        *answers, founded = self._server.run(
            [*commands, ("EXISTS", self._founded)], confirm=confirm
        )
        if not founded:
            raise Unavailable("E404", "the decision store was emptied, or never begun: what was decided and sent is not known",
                              fix="put back a backup of the Redis server; or begin anew as docs/guides/redis.md says")  # fmt: skip
        return answers

    def _marked(self) -> list[Command]:
        """Return a write, if replicas are to confirm: they confirm all up to the last write of who asks, so one is made."""
        if not self._server.address.wait_replicas:
            return []
        return [("SET", self._server.key("confirming"), 1)]

    def _read(self, ids: Any) -> list[bytes | None]:
        keys = [self._decisions + raw_id for raw_id in ids]
        found: list[bytes | None] = []
        for start in range(0, len(keys), DECISIONS):
            found += self._run([("MGET", *keys[start : start + DECISIONS])])[0]
        return found

    def _cap(self, recipient: bytes, cap: str) -> bytes:
        return self._server.key("cap", "").encode() + recipient.hex().encode() + b":" + cap.encode()

    def _sends(self, campaign: str, send: str) -> str:
        # With the length of the first, so that two never make one key.
        return self._server.key("sends", str(len(campaign)), campaign, send)


def _raw_id(key: DecisionKey) -> bytes:
    return bytes.fromhex(decision_id_of(*key))


def _whose_of(key: DecisionKey) -> tuple[bytes, str, str]:
    return key.recipient, key.tenant, key.slot
