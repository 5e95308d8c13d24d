"""The schema registries that ship, against the suite of the port: one of them at a real server."""

import pytest

from penstock.adapters.registry.confluent import ConfluentRegistry
from penstock.adapters.registry.memory import MemoryRegistry
from penstock.testing.conformance.registry import RegistryConformance
from tools.services.service import Running


class TestMemoryRegistry(RegistryConformance):
    def make(self):
        return MemoryRegistry()


class TestConfluentRegistry(RegistryConformance):
    @pytest.fixture(autouse=True)
    def _server(self, registry_server: Running):
        self.server = registry_server

    def make(self):
        return ConfluentRegistry(self.server.address)
