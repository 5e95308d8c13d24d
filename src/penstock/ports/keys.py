"""Keys: named secrets that are made once and never change, such as the identifier key."""

from typing import Protocol

IDENTIFIER_KEY = "identifier"
TOKEN_KEY = "token"
PSEUDONYM_KEY = "pseudonym"


class Keys(Protocol):
    """The key table. A key is durable before anything that needs it is written.

    Conformance: `penstock.testing.conformance.keys`.
    """

    def get(self, name: str) -> bytes:
        """Return a key of 32 bytes.

        Raises:
            Unavailable: The key table did not answer or holds no such key (E405).
        """
        ...

    def put_if_absent(self, name: str, secret: bytes) -> bytes:
        """Keep a key unless one of that name stands; return the one that stands, durable."""
        ...

    def names(self) -> list[str]:
        """Return the names of all keys, sorted."""
        ...
