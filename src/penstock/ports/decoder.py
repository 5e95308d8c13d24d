"""What reads the records of one schema: bytes to values as JSON has them."""

from collections.abc import Callable, Sequence
from typing import Any

from penstock.ports.registry import Schema

Decode = Callable[[bytes], Any]
"""Return what a payload says, as JSON has it: objects, lists, texts, numbers, booleans and None. A
decimal is a `penstock.core.literal.Literal`, an instant its ISO 8601 text, bytes their base64.

Raises `EventRejected` if the payload does not decode (E331). No value is quoted.
"""

Compile = Callable[[Schema, Sequence[tuple[str, Schema]]], Decode]
"""Return what reads the payloads of a schema, given all that it uses, by name.

Raises `EventRejected` if the schema can't be used (E332), and `SettingsError` if an extra is missing
(E235).
"""
