"""The register of suppressions on Redis: merged by a function in the server, and never taken for empty."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from penstock.adapters.redis import Command, Purpose, RedisAddress, RedisServer, library
from penstock.core.errors import Unavailable
from penstock.core.ids import LeafId
from penstock.ports.suppressions import Entries, Suppression, SuppressionKey

ENTRIES: Final = 500
"""Entries merged by one call, all or none."""

LEAVES: Final = 500
"""Leaves read in one round trip."""

PURPOSE: Final = Purpose("the register of suppressions", "E403")
LIBRARY: Final = library(__file__, "register")

_ENTRY: Final = struct.Struct(">Q?Q")
_BETWEEN: Final = b"\x00"
"""Between a plane and a name, which are printable."""


class RedisSuppressions:
    """The register in one Redis server: a hash a leaf, all in one slot of a cluster.

    What `put` returned of is in as many replicas as the address says. Without replicas it is as durable
    as the server's append-only file: of `appendfsync everysec` a crash of the machine takes a second.

    A register that lost something must not be taken for one that never had it: people would be written to
    who said no. So it says once that it is whole, of one process and history of the server; after a
    restart, a failover or a flush nothing is read until the log has been gone over again (`make_whole`).

    Args:
        address: Where the server is.
        tenant: Part of every key.

    Raises:
        SettingsError: The server can't be used (E290 to E297).
        Unavailable: It did not answer (E403).
    """

    def __init__(self, address: RedisAddress, *, tenant: str = "default") -> None:
        self._server = RedisServer(address, tenant=tenant, purpose=PURPOSE, library=LIBRARY)
        self._leaves = self._server.key("register", "").encode()
        self._whole = self._server.key("whole")

    def put(self, entries: Sequence[tuple[SuppressionKey, Suppression]]) -> None:
        """Merge entries into the register; confirmed on return."""
        commands: list[Command] = []
        for start in range(0, len(entries), ENTRIES):
            some = entries[start : start + ENTRIES]
            places = {
                leaf: n for n, leaf in enumerate(dict.fromkeys(key.leaf for key, _ in some), 1)
            }
            arguments: list[bytes | int] = []
            for key, entry in some:
                name = key.plane.encode() + _BETWEEN + key.name.encode()
                arguments += [places[key.leaf], name, _encoded(entry)]
            keys = [self._leaves + leaf for leaf in places]
            commands.append(self._server.call("merge", keys, *arguments))
        if commands:
            self._server.run(commands, confirm=True)

    def get(self, leaves: Sequence[LeafId]) -> dict[SuppressionKey, Suppression]:
        """Return every entry of the leaves; one round trip a few hundred.

        Raises:
            Unavailable: The register did not answer, or may lack what it was told (E403).
        """
        found: dict[SuppressionKey, Suppression] = {}
        for start in range(0, len(leaves), LEAVES):
            some = leaves[start : start + LEAVES]
            asked: list[Command] = [("HGETALL", self._leaves + leaf) for leaf in some]
            *hashes, whole = self._server.run([*asked, ("GET", self._whole)])
            if whole != self._server.history:
                raise Unavailable("E403", "the register of suppressions may lack what it was told, and is being made whole",
                                  fix="wait: it is made again from the log; until then nothing is sent")  # fmt: skip
            for leaf, told in zip(some, hashes, strict=True):
                for name, raw in zip(told[::2], told[1::2], strict=True):
                    plane, _, one = name.partition(_BETWEEN)
                    found[SuppressionKey(leaf, plane.decode(), one.decode())] = _decoded(raw)
        return found

    def whole(self) -> bool:
        """Return whether it has all that it was told."""
        (told,) = self._server.run([("GET", self._whole)])
        return told == self._server.history

    def make_whole(self, everything: Iterable[Entries]) -> None:
        """Put what it may lack, and say from then on that it is whole.

        Raises:
            Unavailable: It did not answer (E403), or something was lost meanwhile (E450): begin again.
        """
        self.whole()  # of the era that is known from here on
        era = self._server.era
        for entries in everything:
            self.put(entries)
        said: list[Command] = [("SET", self._whole, self._server.history)]
        self._server.run(said, confirm=True, era=era)

    def close(self) -> None:
        """Close the connections; a second call does nothing."""
        self._server.close()


def _encoded(entry: Suppression) -> bytes:
    return _ENTRY.pack(entry.at_ms, entry.denied, entry.event_id) + entry.reason.encode()


def _decoded(raw: bytes) -> Suppression:
    at_ms, denied, event_id = _ENTRY.unpack_from(raw)
    return Suppression(at_ms, denied, event_id, raw[_ENTRY.size :].decode())
