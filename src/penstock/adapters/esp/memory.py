"""An ESP that keeps emails in memory, for tests and previews; it can be told how to answer."""

from collections.abc import Callable
from email.message import EmailMessage
from typing import NamedTuple

from penstock.ports.esp import HandOver


class Delivered(NamedTuple):
    """One email that was taken: its envelope and its bytes as they would go over the wire."""

    sender: str
    recipient: str
    message_id: str
    raw: bytes


class MemoryEsp:
    """Keeps every accepted email in `delivered`, in order; implements `penstock.ports.esp.Esp`."""

    def __init__(self, answer: Callable[[str], HandOver] | None = None) -> None:
        """Make an empty outbox.

        Args:
            answer: Given the recipient, says the outcome; may raise. Every email is accepted without.
        """
        self.delivered: list[Delivered] = []
        self._answer = answer

    def send(self, message: EmailMessage, *, sender: str, recipient: str) -> HandOver:
        """Keep one message, unless the answer is something other than `accepted`."""
        outcome = self._answer(recipient) if self._answer else HandOver("accepted", "250")
        if outcome.state == "accepted":
            raw = message.as_bytes(policy=message.policy.clone(linesep="\r\n"))
            self.delivered.append(Delivered(sender, recipient, str(message["Message-ID"]), raw))
        return outcome

    def close(self) -> None:
        """Do nothing: what was delivered can still be read."""
