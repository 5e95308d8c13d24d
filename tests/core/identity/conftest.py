"""A small world of leaves: events are routed, folded and linked as the engine does."""

import sys
from pathlib import Path

import pytest

from penstock.core import ids
from penstock.core.errors import EventRejected
from penstock.core.identity.graph import fold_edge, frontier, resolve
from penstock.core.identity.identifier import IdentityRules
from penstock.core.identity.resolution import HOPS_MAX
from penstock.core.identity.routing import cut_records, missing_links, route
from penstock.core.record import Evidence, Kind, Record

sys.path.insert(0, str(Path(__file__).parent))

KEY = b"k" * 32


class World:
    """Leaves and their edges, made by events; links may wait until `settle`."""

    def __init__(self, rules=None):
        self.rules = rules or IdentityRules()
        self.edges = {}
        self.names = {}
        self.waiting = []
        self.reads = 0

    def leaf(self, id_type, value):
        found = ids.leaf_id(KEY, "t", id_type, str(value))
        self.names[found] = f"{id_type}:{value}"
        return found

    def event(
        self, at_ms, *, verified=True, type_name="track", message_id=None, settle=True, **mention
    ):
        given = {"user_id": None, "anonymous_id": None, "previous_id": None, "group_id": None,
                 "external_ids": (), "email": None, **mention}  # fmt: skip
        message_id = (
            message_id or f"{at_ms}-{verified}-{type_name}-{sorted(given.items(), key=str)}"
        )
        try:
            routing = route(**given, type_name=type_name, message_id=message_id, occurred_at_ms=at_ms,
                            verified=verified, make_leaf=self.leaf, rules=self.rules)  # fmt: skip
        except EventRejected:
            return
        primary = Record(
            1, Kind.PRIMARY, "t", routing.primary.leaf, routing.primary.id_type, 1, message_id,
            type_name, type_name, at_ms, at_ms, "s", 0, verified, Evidence("unknown"),
            routing.identifiers, routing.edges,
        )  # fmt: skip
        held = self.edges.setdefault(primary.leaf, {})
        missing = missing_links(primary, held)
        for edge in primary.edges:
            fold_edge(held, edge)
        self.waiting.extend(missing)
        if settle:
            self.settle()

    def settle(self):
        for link in self.waiting:
            fold_edge(self.edges.setdefault(link.leaf, {}), link.edges[0])
        self.waiting.clear()

    def cut(self, one, other, at_ms):
        for edge in list(self.edges.get(one, {}).values()):
            if {edge.a, edge.b} == {one, other}:
                for record in cut_records(
                    edge, tenant="t", message_id=f"cut-{at_ms}", at_ms=at_ms, source="op"
                ):
                    fold_edge(self.edges.setdefault(record.leaf, {}), record.edges[0])

    def read(self, start):
        known = {}
        self.reads = 0
        while self.reads <= HOPS_MAX and (wanted := frontier(start, known, self.rules)):
            self.reads += 1
            for one in wanted:
                known[one] = list(self.edges.get(one, {}).values())
        return resolve(start, known, self.rules)

    def everything(self):
        return {one: list(held.values()) for one, held in self.edges.items()}

    def person(self, id_type, value):
        resolution = self.read(self.leaf(id_type, value))
        assert not resolution.bounded
        return sorted(self.names[one] for one in resolution.leaves)

    def why(self, id_type, value):
        resolution = self.read(self.leaf(id_type, value))
        return {self.names[one.leaf]: one.reason for one in resolution.excluded}


@pytest.fixture
def world():
    return World()


@pytest.fixture(scope="session")
def make_world():
    return World
