"""The decision store in memory: the port's contract in its plainest form."""

import threading
from collections.abc import Sequence

from penstock.core.decision.record import decision_id_of
from penstock.core.errors import Unavailable
from penstock.ports.decisions import Decided, DecisionKey, SendState


class MemoryDecisions:
    """Keeps decisions, reservations and sends in dictionaries; gone with the process."""

    def __init__(self) -> None:
        self._records: dict[DecisionKey, bytes] = {}
        self._keys: dict[str, DecisionKey] = {}
        self._outbox: dict[int, bytes] = {}
        self._next_sequence = 1
        self._reservations: dict[tuple[bytes, str], dict[str, int]] = {}
        self._sends: dict[DecisionKey, SendState] = {}
        self._lock = threading.Lock()
        self._closed = False

    def put_if_absent(self, items: Sequence[tuple[DecisionKey, bytes]]) -> list[Decided]:
        """Keep each record unless one stands already; return what stands."""
        with self._lock:
            self._check_open()
            return [self._put_one(key, record) for key, record in items]

    def get(self, keys: Sequence[DecisionKey]) -> list[bytes | None]:
        """Return the records that stand, in order."""
        with self._lock:
            self._check_open()
            return [self._records.get(key) for key in keys]

    def find(self, decision_id: str) -> tuple[DecisionKey, bytes] | None:
        """Return a decision by its id, or None."""
        with self._lock:
            self._check_open()
            key = self._keys.get(decision_id)
            return None if key is None else (key, self._records[key])

    def outbox(self, limit: int) -> list[tuple[int, bytes]]:
        """Return up to `limit` records not yet in the log, oldest first."""
        with self._lock:
            self._check_open()
            return list(self._outbox.items())[:limit]

    def outbox_done(self, sequences: Sequence[int]) -> None:
        """Forget outbox entries."""
        with self._lock:
            self._check_open()
            for sequence in sequences:
                self._outbox.pop(sequence, None)

    def reserve(
        self, recipient: bytes, cap: str, *, limit: int, token: str, until_ms: int, now_ms: int
    ) -> bool:
        """Reserve one unit of a frequency cap."""
        with self._lock:
            self._check_open()
            held = self._reservations.setdefault((recipient, cap), {})
            if held.get(token, now_ms) > now_ms:
                return True
            if sum(1 for until in held.values() if until > now_ms) >= limit:
                return False
            held[token] = until_ms
            return True

    def has_room(self, recipient: bytes, cap: str, *, limit: int, token: str, now_ms: int) -> bool:
        """Return what `reserve` would."""
        with self._lock:
            self._check_open()
            held = self._reservations.get((recipient, cap), {})
            standing = {one for one, until_ms in held.items() if until_ms > now_ms}
            return token in standing or len(standing) < limit

    def confirm(self, token: str, until_ms: int) -> None:
        """Make a reservation last until `until_ms`."""
        with self._lock:
            self._check_open()
            for held in self._reservations.values():
                if token in held:
                    held[token] = until_ms

    def release(self, token: str) -> None:
        """Give a reservation back."""
        with self._lock:
            self._check_open()
            for held in self._reservations.values():
                held.pop(token, None)

    def start_send(
        self, key: DecisionKey, message_id: str, now_ms: int, *, again_from: SendState | None = None
    ) -> SendState | None:
        """Record that an email is about to be handed over."""
        with self._lock:
            self._check_open()
            standing = self._sends.get(key)
            if standing is not None and standing != again_from:
                return standing
            self._sends[key] = SendState("started", now_ms, message_id)
            return None

    def finish_send(self, key: DecisionKey, state: SendState) -> None:
        """Record the outcome of a hand-over."""
        with self._lock:
            self._check_open()
            self._sends[key] = state

    def sends(
        self, campaign: str, send: str, *, state: str = ""
    ) -> list[tuple[DecisionKey, SendState]]:
        """Return the emails of a send, ordered by recipient."""
        with self._lock:
            self._check_open()
            found = [
                (key, standing)
                for key, standing in self._sends.items()
                if (key.campaign, key.send) == (campaign, send) and state in ("", standing.state)
            ]
        return sorted(found, key=lambda item: (item[0].recipient, item[0].tenant, item[0].slot))

    def close(self) -> None:
        """End the store."""
        self._closed = True

    def _put_one(self, key: DecisionKey, record: bytes) -> Decided:
        standing = self._records.get(key)
        if standing is not None:
            return Decided(standing, created=False)
        self._records[key] = record
        self._keys[decision_id_of(*key)] = key
        self._outbox[self._next_sequence] = record
        self._next_sequence += 1
        return Decided(record, created=True)

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("E404", "the decision store is closed", fix="open it again")
