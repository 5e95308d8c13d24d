"""The key tables that ship, against the suite of the port."""

from penstock.adapters.keys.file import FileKeys
from penstock.adapters.keys.memory import MemoryKeys
from penstock.testing.conformance.keys import DurableKeysConformance, KeysConformance


class TestMemoryKeys(KeysConformance):
    def make(self, folder):
        return MemoryKeys()


class TestFileKeys(DurableKeysConformance):
    def make(self, folder):
        return FileKeys(folder / "keys.json")
