"""Who carries an email: hand one message over, learn whether it was taken."""

from email.message import EmailMessage
from typing import NamedTuple, Protocol


class HandOver(NamedTuple):
    """The outcome of a hand-over.

    `state` is `accepted`, `refused` (the ESP said no; it was not sent) or `in_doubt` (the connection
    broke after the message may have been taken). `detail` is a status code or path, never an address.
    """

    state: str
    detail: str


class Esp(Protocol):
    """Carries emails. Called from a worker thread, one message at a time a connection.

    Conformance: `penstock.testing.conformance.esp`.
    """

    def send(self, message: EmailMessage, *, sender: str, recipient: str) -> HandOver:
        """Hand one message over.

        Raises:
            Unavailable: The ESP could not be reached and has not seen the message (E406).
        """
        ...

    def close(self) -> None:
        """End the connection; a second call does nothing."""
        ...
