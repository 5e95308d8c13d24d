"""The adapters on Redis, against the suites of their ports, on a real server."""

from hashlib import blake2b
from pathlib import Path

import pytest

from penstock.adapters.decisions.redis import RedisDecisions
from penstock.adapters.redis import RedisAddress
from penstock.adapters.store.redis import RedisStore
from penstock.adapters.suppressions.redis import RedisSuppressions
from penstock.testing.conformance.decisions import DurableDecisionsConformance
from penstock.testing.conformance.store import RemoteStoreConformance
from penstock.testing.conformance.suppressions import DurableSuppressionsConformance
from tools.services.redis import Servers

PATIENT = {"timeout_ms": 20_000, "connect_timeout_ms": 20_000}
"""The machine may be busy: how long an answer takes is not what is tested here."""


def tenant_of(folder: Path) -> str:
    """Return a tenant of a test's own: what a folder is to other stores."""
    return blake2b(str(folder).encode(), digest_size=6).hexdigest()


class TestRedisStore(RemoteStoreConformance):
    @pytest.fixture(autouse=True)
    def _server(self, redis_server: Servers) -> None:
        self.address = RedisAddress(redis_server.url, **PATIENT)

    @property
    def opened_by(self) -> str:
        return f"""
from hashlib import blake2b
from penstock.adapters.decisions.redis import RedisDecisions
from penstock.adapters.redis import RedisAddress
from penstock.adapters.store.redis import RedisStore
tenant = blake2b(str(folder).encode(), digest_size=6).hexdigest()
store = RedisStore(RedisAddress({self.address.url!r}, timeout_ms=20_000), tenant=tenant)
"""

    def make(self, folder):
        return RedisStore(self.address, tenant=tenant_of(folder))


class TestRedisStoreInACluster(TestRedisStore):
    """Every call keeps to one slot a command: a cluster refuses what does not."""

    @pytest.fixture(autouse=True)
    def _server(self, redis_cluster: Servers) -> None:
        self.address = RedisAddress(redis_cluster.url, **PATIENT)


class TestRedisSuppressions(DurableSuppressionsConformance):
    @pytest.fixture(autouse=True)
    def _server(self, redis_server: Servers) -> None:
        self.address = RedisAddress(redis_server.url, **PATIENT)

    def make(self, folder):
        register = RedisSuppressions(self.address, tenant=tenant_of(folder))
        register.make_whole([])
        return register


class TestRedisSuppressionsInACluster(TestRedisSuppressions):
    @pytest.fixture(autouse=True)
    def _server(self, redis_cluster: Servers) -> None:
        self.address = RedisAddress(redis_cluster.url, **PATIENT)


class TestRedisDecisions(DurableDecisionsConformance):
    @pytest.fixture(autouse=True)
    def _server(self, redis_server: Servers) -> None:
        self.address = RedisAddress(redis_server.url, **PATIENT)

    def make(self, folder):
        decisions = RedisDecisions(self.address, tenant=tenant_of(folder))
        decisions.found()
        return decisions


class TestRedisDecisionsInACluster(TestRedisDecisions):
    @pytest.fixture(autouse=True)
    def _server(self, redis_cluster: Servers) -> None:
        self.address = RedisAddress(redis_cluster.url, **PATIENT)
