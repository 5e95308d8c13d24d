"""Who an email comes from and goes to: one address, with or without a name beside it."""

import re
from typing import Final

_ADDRESS: Final = re.compile(
    r"[^\s@<>()\[\]\\,;:\"\x00-\x1f\x7f]{1,64}@[^\s@<>()\[\]\\,;:\"\x00-\x1f\x7f]{1,255}"
)
_NAMED: Final = re.compile(r"\s*(?P<name>[^<>\"]*|\"[^\"\\]*\")\s*<(?P<address>[^<>]+)>\s*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def is_address(text: str) -> bool:
    """Return whether a text is exactly one email address, without a name."""
    return _ADDRESS.fullmatch(text) is not None


def is_sender(text: str) -> bool:
    """Return whether emails can come from `Shop <news@shop.example>`, or from an address alone.

    Left of the `@` a sender is ASCII: not every server between us and the reader takes more.
    """
    if _CONTROL.search(text):
        return False
    _, address = mailbox_of(text)
    return is_address(address) and address.rpartition("@")[0].isascii()


def mailbox_of(text: str) -> tuple[str, str]:
    """Return the name and the address of a sender, as written; neither is checked."""
    match = _NAMED.fullmatch(text)
    if match is None:
        return "", text
    return match.group("name").strip().strip('"'), match.group("address")
