"""Stores on Redis with one bug each, most of them in the function inside the server; run by `test_planted_bugs.py`."""

from hashlib import blake2b

import pytest

from penstock.adapters import redis as servers
from penstock.adapters.redis import Library, RedisAddress
from penstock.adapters.store import redis as adapter
from penstock.adapters.store.redis import LIBRARY, RedisStore
from penstock.core.record import NO_VERSION
from penstock.testing.conformance.store import StoreConformance
from tools.services.redis import Servers


class _Planted(RedisStore):
    """A store whose functions are others."""

    library: Library

    def __init__(self, address, *, tenant):
        super().__init__(address, tenant=tenant)
        self._server.close()
        self._server = servers.RedisServer(
            address, tenant=tenant, purpose=adapter.PURPOSE, library=self.library
        )


def _library(name: str, right: str, wrong: str) -> Library:
    assert right in LIBRARY.source
    planted = f"penstock_planted_{name}"
    return Library(planted, LIBRARY.source.replace(right, wrong).replace(LIBRARY.name, planted))


class _WritesFromAnyBase(_Planted):
    """Compares versions only: a higher version from a stale base overwrites newer work."""

    library = _library("base", "stored == args[1]", "before(stored, string.sub(args[3], 1, 16))")


class _ComparesAsText(_Planted):
    """Goes by the length of numbers that were written out: the tenth version is before the ninth."""

    library = _library(
        "text",
        "  local a, b, c, d = struct.unpack('>I4I4I4I4', one)\n  local e, f, g, h = struct.unpack('>I4I4I4I4', other)",
        "  local a, b, c, d = 0, 0, 0, string.byte(one, 16)\n  local e, f, g, h = 0, 0, 0, string.byte(other, 16)",
    )


class _ForgetsTheIds(_Planted):
    """Writes the leaf, and its id into no list: a scan never visits it."""

    library = _library(
        "ids", "if stored == NONE then redis.call('ZADD'", "if false then redis.call('ZADD'"
    )


class _NotesAfterARefusal(RedisStore):
    """Notes the applied offset although a write was refused: its records are lost."""

    def write(self, epoch, writes, *, partition, applied):
        verdicts = super().write(epoch, writes, partition=partition, applied=NO_VERSION)
        super().write(epoch, [], partition=partition, applied=applied)
        return verdicts


def _suite_of(store):
    class Suite(StoreConformance):
        @pytest.fixture(autouse=True)
        def _server(self, redis_server: Servers) -> None:
            self.url = redis_server.url

        def make(self, folder):
            tenant = blake2b(str(folder).encode(), digest_size=6).hexdigest()
            return store(RedisAddress(self.url, timeout_ms=20_000), tenant=tenant)

    return Suite


PlantedWritesFromAnyBase = _suite_of(_WritesFromAnyBase)
PlantedComparesAsText = _suite_of(_ComparesAsText)
PlantedForgetsTheIds = _suite_of(_ForgetsTheIds)
PlantedNotesAfterARefusal = _suite_of(_NotesAfterARefusal)
