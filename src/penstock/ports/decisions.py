"""Decisions: made once per (recipient, campaign, send), with an outbox to the log; reservations for caps."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class DecisionKey(NamedTuple):
    """Whom, which campaign and which send a decision is for."""

    tenant: str
    recipient: bytes
    campaign: str
    send: str
    slot: str = ""
    """Empty for the record of all slots; a slot's name if it is decided at open time."""


class Decided(NamedTuple):
    """The decision that stands, and whether this call made it."""

    record: bytes
    created: bool


class SendState(NamedTuple):
    """How far the hand-over of one email has come: `started`, `accepted`, `refused` or `skipped`."""

    state: str
    at_ms: int
    detail: str
    """A reason code or the Message-ID; never an address."""


class Decisions(Protocol):
    """The decision store. Synchronous; `put_if_absent` is awaited before content is served.

    Conformance: `penstock.testing.conformance.decisions`.
    """

    def put_if_absent(self, items: Sequence[tuple[DecisionKey, bytes]]) -> list[Decided]:
        """Keep each record unless one stands already; return what stands. Durable on return.

        A created record is also put in the outbox, in the same transaction.

        Raises:
            Unavailable: It is not known whether they were kept (E404); serve the fallback.
        """
        ...

    def get(self, keys: Sequence[DecisionKey]) -> list[bytes | None]:
        """Return the records that stand, in order."""
        ...

    def find(self, decision_id: str) -> tuple[DecisionKey, bytes] | None:
        """Return a decision by its id (the hash of its key), or None."""
        ...

    def outbox(self, limit: int) -> list[tuple[int, bytes]]:
        """Return up to `limit` records not yet in the log, as (sequence, record), oldest first."""
        ...

    def outbox_done(self, sequences: Sequence[int]) -> None:
        """Forget outbox entries whose records are durable in the log."""
        ...

    def reserve(
        self, recipient: bytes, cap: str, *, limit: int, token: str, until_ms: int, now_ms: int
    ) -> bool:
        """Reserve one unit of a frequency cap, atomically; the same token counts once.

        A reservation lapses at `until_ms` unless confirmed. Returns False at the limit.
        """
        ...

    def has_room(self, recipient: bytes, cap: str, *, limit: int, token: str, now_ms: int) -> bool:
        """Return what `reserve` would; nothing is reserved."""
        ...

    def confirm(self, token: str, until_ms: int) -> None:
        """Make a reservation last until `until_ms`: the email was sent."""
        ...

    def release(self, token: str) -> None:
        """Give a reservation back."""
        ...

    def start_send(
        self, key: DecisionKey, message_id: str, now_ms: int, *, again_from: SendState | None = None
    ) -> SendState | None:
        """Record that an email is about to be handed over; durable on return.

        With `again_from` it is recorded again if exactly that state stands: of two who want to repeat
        a hand-over one may.

        Returns None if this call recorded it, else the state that stands already: `started` means
        that an earlier attempt is in doubt.
        """
        ...

    def finish_send(self, key: DecisionKey, state: SendState) -> None:
        """Record the outcome of a hand-over; durable on return."""
        ...

    def sends(
        self, campaign: str, send: str, *, state: str = ""
    ) -> list[tuple[DecisionKey, SendState]]:
        """Return the emails of a send, with a state only those, ordered by recipient."""
        ...

    def close(self) -> None:
        """Release files and connections; a second call does nothing."""
        ...
