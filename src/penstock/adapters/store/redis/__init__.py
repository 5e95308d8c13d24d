"""The store on Redis: a leaf a key, written base-and-new by a function in the server."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final
from zlib import crc32

import msgspec

from penstock.adapters.redis import Command, Purpose, RedisAddress, RedisServer, library
from penstock.core.errors import DamagedLeaf
from penstock.core.ids import LeafId
from penstock.core.record import NO_VERSION, Version
from penstock.ports.store import LeafWrite, StoredLeaf, Verdict

BUCKET_BITS: Final = 10
BUCKETS: Final = 1 << BUCKET_BITS
"""Buckets of leaves, by the first bits of their ids: in a cluster each is in one slot."""

LEAF_BYTES: Final = 16
WRITES: Final = 500
"""Leaves written in one round trip."""

READS: Final = 500
"""Leaves read in one round trip."""

GONE: Final = 4
"""What the function that writes returns of a leaf that was there and is not."""

BUCKETS_READ: Final = 512
"""Buckets whose ids are listed in one round trip."""

PURPOSE: Final = Purpose("the store", "E402")
LIBRARY: Final = library(__file__, "store")

_VERSION: Final = struct.Struct(">QQ")
_CRC: Final = struct.Struct(">I")
_HEAD_BYTES: Final = _VERSION.size + _CRC.size

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[bytes, ...]).decode


class RedisStore:
    """Leaves in one Redis server; several processes may write, each its partitions.

    Leaves are decided one by one, and the applied offset is noted in a second round trip, if none was
    refused. A stop in between leaves leaves ahead of it, which is harmless: what they hold is skipped.

    What the server takes back when it fails is always the newest, in order, so an applied offset that
    is still there is covered by leaves that are. A reader that goes on from another era's cache would
    break that: see `era`.

    Args:
        address: Where the server is.
        tenant: Part of every key.

    Raises:
        SettingsError: The server can't be used (E290 to E297).
        Unavailable: It did not answer (E402).
    """

    remote = True

    def __init__(self, address: RedisAddress, *, tenant: str = "default") -> None:
        self._server = RedisServer(address, tenant=tenant, purpose=PURPOSE, library=LIBRARY)
        self._buckets = self._server.spread(BUCKETS)
        self._meta: dict[str, str] = {}
        """What this process has put: put back into a server that may have lost it."""
        self._server.remake = self._remake
        self._resumed: dict[tuple[int, int], int] = {}
        """By epoch and partition, the era in which its applied offset was asked for."""

    @property
    def era(self) -> int:
        """Ends when the server may lack what it had acknowledged; no round trip."""
        return self._server.era

    @property
    def server(self) -> RedisServer:
        """The server, for who looks after it."""
        return self._server

    def read(self, epoch: int, leaves: Sequence[LeafId]) -> list[StoredLeaf | None]:
        """Return the leaves in the order asked; one round trip a few hundred."""
        found: list[StoredLeaf | None] = []
        for start in range(0, len(leaves), READS):
            some = leaves[start : start + READS]
            keys = [self.key_of(epoch, leaf) for leaf in some]
            values = self.values_of(self._server.run(self.asking(keys)))
            for leaf, value in zip(some, values, strict=True):
                found.append(None if value is None else stored_leaf(leaf, value))
        return found

    def write(
        self, epoch: int, writes: Sequence[LeafWrite], *, partition: int, applied: Version
    ) -> list[Verdict]:
        """Write leaves, one by one, and note the partition's applied offset if none was refused.

        Raises:
            DamagedLeaf: One is gone that was there (E712); no offset is noted.
            Unavailable: As the port says (E402, E450).
        """
        assert len({write.leaf for write in writes}) == len(writes), "one write a leaf"
        assert all(write.base < write.new for write in writes), "a write moves a leaf on"
        era = self._resumed.setdefault((epoch, partition), self.era)
        verdicts: list[Verdict] = []
        # Before the leaves: of an epoch that is not listed nothing would ever be removed.
        listed: list[Command] = [("SADD", self._epochs(), epoch)]
        for start in range(0, max(len(writes), 1), WRITES):
            commands = [self._writing(epoch, write) for write in writes[start : start + WRITES]]
            answers = self._server.run([*listed, *commands], era=era)[len(listed) :]
            if GONE in answers:
                raise _gone(writes[start + answers.index(GONE)].leaf)
            verdicts += map(Verdict, answers)
            listed = []
        if applied > NO_VERSION and Verdict.REFUSED not in verdicts:
            keys = [self._applied(epoch), self._server.marker_key]
            noting = self._server.call(
                "note", keys, partition, _VERSION.pack(*_shifted(applied)), self._server.marker
            )
            self._server.run([noting], era=era)
        return verdicts

    def applied(self, epoch: int, partition: int) -> Version:
        """Return the applied offset of a partition."""
        era = self.era
        (raw,) = self._server.run([self.asking_applied(epoch, partition)])
        self._resumed[(epoch, partition)] = era
        return as_version(raw)

    def confirmed(self, epoch: int, partition: int) -> Version:
        """Return the applied offset, once as many replicas have it as the address says."""
        keys = [self._applied(epoch), self._server.key("confirming", str(epoch))]
        (raw,) = self._server.run([self._server.call("confirm", keys, partition)], confirm=True)
        return as_version(raw)

    def scan(self, epoch: int, after: LeafId | None, limit: int) -> list[tuple[LeafId, StoredLeaf]]:
        """Return up to `limit` leaves with id > `after`, ascending."""
        found: list[tuple[LeafId, StoredLeaf]] = []
        while limit > len(found) and (some := self.ids(epoch, after, limit - len(found))):
            read = zip(some, self.read(epoch, some), strict=True)
            found += [(leaf, stored) for leaf, stored in read if stored is not None]
            after = some[-1]
        return found

    def ids(self, epoch: int, after: LeafId | None, limit: int) -> list[LeafId]:
        """Return up to `limit` ids > `after`, ascending; the lists of ids alone are read."""
        found: list[LeafId] = []
        first = 0 if after is None else bucket_of(after)
        for start in range(first, BUCKETS, BUCKETS_READ):
            if len(found) >= limit:
                break
            commands: list[Command] = []
            for bucket in range(start, min(start + BUCKETS_READ, BUCKETS)):
                since = b"(" + after if after is not None and bucket == first else b"-"
                key = self._buckets[bucket] + b"ids:%d" % epoch
                commands.append(("ZRANGEBYLEX", key, since, "+", "LIMIT", 0, limit - len(found)))
            for ids in self._server.run(commands):
                found += map(LeafId, ids)
        return found[: max(limit, 0)]

    def epochs(self) -> list[int]:
        """Return the definitions epochs that hold anything, ascending."""
        (raw,) = self._server.run([("SMEMBERS", self._epochs())])
        return sorted(map(int, raw))

    def drop(self, epoch: int) -> None:
        """Remove everything of an epoch: the applied offsets first, then leaves, then its name.

        If it is cut short, leaves remain without an applied offset, which a fold from the log's start
        skips. Dropping again removes them.
        """
        self._server.run([("UNLINK", self._applied(epoch), self._server.key("confirming", str(epoch)))])  # fmt: skip
        for gone in self._pages(epoch):
            keys = [[self.key_of(epoch, leaf), self._ids(epoch, leaf)] for leaf in gone]
            self._server.run([self._server.call("drop", *one) for one in zip(keys, gone, strict=True)])  # fmt: skip
        self._server.run([("SREM", self._epochs(), epoch)])

    def get_meta(self, name: str) -> str | None:
        """Return a small named value."""
        (raw,) = self._server.run([("HGET", self._server.key("meta"), name)])
        return None if raw is None else raw.decode()

    def put_meta(self, name: str, value: str) -> None:
        """Keep a small named value, confirmed by as many replicas as the address says."""
        self._server.run([("HSET", self._server.key("meta"), name, value)], confirm=True)
        self._meta[name] = value

    def close(self) -> None:
        """Close the connections; a second call does nothing."""
        self._server.close()

    def check(self) -> None:
        """Look whether the server is the one that it was, and may still be used."""
        self._server.check()

    # -- keys, and what is asked of them

    def key_of(self, epoch: int, leaf: LeafId) -> bytes:
        """Return the key of a leaf."""
        # No more of its person than the leaf id, which is a keyed hash.
        return b"%bleaf:%d:%b" % (self._buckets[bucket_of(leaf)], epoch, leaf)

    def asking(self, keys: Sequence[bytes]) -> list[Command]:
        """Return the commands that read leaves by their keys."""
        if not keys:
            return []
        return [("GET", key) for key in keys] if self._server.clustered else [("MGET", *keys)]

    def values_of(self, answers: list[Any]) -> list[bytes | None]:
        """Return the values of what such commands answered."""
        return answers if self._server.clustered or not answers else answers[0]

    def asking_applied(self, epoch: int, partition: int) -> Command:
        """Return the command that asks for the applied offset of a partition."""
        return ("HGET", self._applied(epoch), partition)

    def _ids(self, epoch: int, leaf: LeafId) -> bytes:
        return self._buckets[bucket_of(leaf)] + b"ids:%d" % epoch

    def _applied(self, epoch: int) -> str:
        return self._server.key("applied", str(epoch))

    def _epochs(self) -> str:
        return self._server.key("epochs")

    # -- values

    def _remake(self) -> list[Command]:
        return [("HSET", self._server.key("meta"), *item) for item in self._meta.items()]

    def _writing(self, epoch: int, write: LeafWrite) -> Command:
        keys = [self.key_of(epoch, write.leaf), self._ids(epoch, write.leaf)]
        base = _VERSION.pack(*_shifted(write.base))
        return self._server.call("write", keys, base, write.leaf, leaf_value(write))

    def _pages(self, epoch: int) -> Iterator[list[LeafId]]:
        after: LeafId | None = None
        while page := self.ids(epoch, after, WRITES):
            yield page
            after = page[-1]


def bucket_of(leaf: LeafId) -> int:
    """Return the bucket of a leaf; ascending buckets hold ascending ids."""
    return int.from_bytes(leaf[:2], "big") >> (16 - BUCKET_BITS)


def leaf_value(write: LeafWrite) -> bytes:
    """Return what is kept of a leaf: version, checksum and parts."""
    head, blob = _VERSION.pack(*_shifted(write.new)), _encode(write.parts)
    return head + _CRC.pack(_crc(write.leaf, head, blob)) + blob


def stored_leaf(leaf: LeafId, value: bytes) -> StoredLeaf:
    """Return the leaf of its value.

    Raises:
        DamagedLeaf: It does not match its checksum (E704).
    """
    head, blob = value[: _VERSION.size], value[_HEAD_BYTES:]
    if value[_VERSION.size : _HEAD_BYTES] != _CRC.pack(_crc(leaf, head, blob)):
        raise DamagedLeaf("E704", f"leaf {leaf.hex()} of the store does not match its checksum", leaf=leaf,
                          fix="rebuild the store from the log with `penstock replay --accept`")  # fmt: skip
    return StoredLeaf(as_version(head), _decode(blob))


def _gone(leaf: LeafId) -> DamagedLeaf:
    return DamagedLeaf("E712", f"leaf {leaf.hex()} is gone from the store: it expired, was evicted or removed by hand", leaf=leaf,
                       fix="let no key of ours expire; make the leaves from the log with `penstock replay --accept`")  # fmt: skip


def _crc(leaf: bytes, head: bytes, blob: bytes) -> int:
    return crc32(blob, crc32(head, crc32(leaf)))


def _shifted(version: Version) -> tuple[int, int]:
    return version.generation, version.offset + 1


def as_version(raw: Any) -> Version:
    """Return the version of its 16 bytes; `NO_VERSION` of none."""
    if raw is None:
        return NO_VERSION
    generation, offset = _VERSION.unpack(raw)
    return Version(generation, offset - 1)
