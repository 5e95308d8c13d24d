"""Registries and readers of topics with one bug each; run by `test_planted_bugs.py`, as `planted.py` is."""

from itertools import count

from penstock.adapters.registry.memory import MemoryRegistry
from penstock.adapters.topics.memory import MemoryTopics
from penstock.core.foreign import Foreign
from penstock.ports.registry import Registered, Verdict
from penstock.testing.conformance.registry import RegistryConformance
from penstock.testing.conformance.topics import TopicsConformance

_numbers = count(1)

# ------------------------------------------------------------------------------------ registries


class _RegistersAgain(MemoryRegistry):
    """Makes a version of everything that it is sent."""

    def register(self, subject, schema):
        if self.find(subject, schema) is None:
            return super().register(subject, schema)
        versions = self._subjects[subject]
        versions.append(Registered(len(versions) + 1, self._ids[schema], schema))
        return self._ids[schema]


class PlantedRegistersAgain(RegistryConformance):
    def make(self):
        return _RegistersAgain()


class _TakesAnything(MemoryRegistry):
    """Knows compatibility, and does not go by it."""

    def judge(self, subject, schema):
        return Verdict(fits=True)


class PlantedTakesAnything(RegistryConformance):
    def make(self):
        return _TakesAnything()


class _OneCompatibility(MemoryRegistry):
    """Has one compatibility for all subjects."""

    def compatibility(self, subject):
        return next(reversed(self._compatibility.values()), "")


class PlantedOneCompatibility(RegistryConformance):
    def make(self):
        return _OneCompatibility()


# ------------------------------------------------------------------------- topics of other producers


class _OfTopics(TopicsConformance):
    """Topics in memory, read by what is planted."""

    patience_s = 0.1
    kind = MemoryTopics
    topics = {}
    groups = {}

    def new_topic(self, partitions):
        name = f"planted-{next(_numbers)}"
        self.topics.update({(name, partition): [] for partition in range(partitions)})
        return name

    def write(self, topic, partition, values):
        records = self.topics[topic, partition]
        for value in values:
            records.append(Foreign(topic, "id", partition, len(records), 1_700_000_000_000, b"k", value, (("h", b"v"),)))  # fmt: skip

    def join(self, topic, group):
        mine = {key: records for key, records in self.topics.items() if key[0] == topic}
        return self.kind(mine, self.groups.setdefault(group, {}))


class _CommitsWhatItPolls(MemoryTopics):
    """Notes records as copied when it hands them out, as automatic commits do."""

    def poll(self, limit, wait_ms):
        found = super().poll(limit, wait_ms)
        self.commit({(one.topic, one.partition): one.offset + 1 for one in found})
        return found


class PlantedCommitsWhatItPolls(_OfTopics):
    kind = _CommitsWhatItPolls


class _ReadsTheNext(MemoryTopics):
    """Seeks to a place and takes what comes."""

    def _at(self, place):
        records = self._topics.get((place.topic, place.partition), [])
        return super()._at(place) or (records[-1] if records else None)


class PlantedReadsTheNext(_OfTopics):
    kind = _ReadsTheNext


class _DropsWhatItHolds(MemoryTopics):
    """Throws away what comes while it is held."""

    def hold(self):
        self.poll(1_000, 0)


class PlantedDropsWhatItHolds(_OfTopics):
    kind = _DropsWhatItHolds
