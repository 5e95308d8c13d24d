"""What every schema registry does: ids for ever, registration once, compatibility by subject."""

# ruff: noqa: SIM300 - asserts read `expected == actual`

import json
from collections.abc import Iterator
from itertools import count

import pytest

from penstock.core.catalog.fields import EventType, Field, event_type
from penstock.core.catalog.published import Naming, publish_all
from penstock.core.errors import DefinitionError
from penstock.ports.registry import Reference, Registry, Schema, with_references

_subjects = count(1)

ITEM = 'syntax = "proto3";\npackage shop;\nmessage Item { string id = 1; }\n'
ORDER = 'syntax = "proto3";\npackage shop;\nimport "item.proto";\nmessage Order { repeated Item items = 1; }\n'


def rated(*fields: Field, version: int = 1) -> EventType:
    """Return an event of a required number of stars, and more."""
    return event_type(
        "Rated", version, (Field(name="stars", kind="integer", required=True), *fields)
    )


def published(event: EventType, format_name: str = "avro") -> Schema:
    """Return the schema of an event."""
    one = publish_all([event], format_name, Naming())[0]
    return Schema(one.kind, one.text)


FIRST = published(rated())
SECOND = published(rated(Field(name="text", kind="string")))
BROKEN = published(rated(Field(name="text", kind="string", required=True)))


class RegistryConformance:
    """Subclass it as `Test…` and say how to make the registry."""

    def make(self) -> Registry:
        """Return a registry; it may hold subjects of other tests."""
        raise NotImplementedError

    @pytest.fixture
    def registry(self) -> Iterator[Registry]:
        registry = self.make()
        yield registry
        registry.close()

    @pytest.fixture
    def subject(self) -> str:
        """A subject of its own, with what needs quoting in an address."""
        return f"com.example/Rated of test {next(_subjects)}-value"

    def test_what_is_unknown_is_none(self, registry: Registry, subject: str):
        assert None is registry.schema(987_654)
        assert [] == registry.versions(subject)
        assert None is registry.version(subject, 1)
        assert None is registry.find(subject, FIRST)
        assert "" == registry.compatibility(subject)
        assert registry.judge(subject, FIRST).fits

    def test_a_schema_is_found_by_its_id_and_by_its_subject(self, registry: Registry, subject: str):
        schema_id = registry.register(subject, FIRST)
        assert FIRST == registry.schema(schema_id)
        found = registry.version(subject, 1)
        assert found is not None
        assert (1, schema_id, FIRST) == found
        assert found == registry.find(subject, FIRST)

    def test_registering_again_changes_nothing(self, registry: Registry, subject: str):
        first = registry.register(subject, FIRST)
        second = registry.register(subject, SECOND)
        assert first != second
        assert [first, second] == [registry.register(subject, one) for one in (FIRST, SECOND)]
        assert [1, 2] == [one.version for one in registry.versions(subject)]

    def test_one_schema_has_one_id_under_every_subject(self, registry: Registry, subject: str):
        assert registry.register(subject, FIRST) == registry.register(f"{subject}2", FIRST)

    def test_what_does_not_fit_is_refused_and_nothing_registered(
        self, registry: Registry, subject: str
    ):
        registry.set_compatibility(subject, "backward")
        registry.register(subject, FIRST)
        assert registry.judge(subject, SECOND).fits
        assert not registry.judge(subject, BROKEN).fits
        with pytest.raises(DefinitionError, match="E195"):
            registry.register(subject, BROKEN)
        assert [1] == [one.version for one in registry.versions(subject)]

    def test_compatibility_is_of_a_subject(self, registry: Registry, subject: str):
        for compatibility in ("backward", "full_transitive"):
            registry.set_compatibility(subject, compatibility)
            assert compatibility == registry.compatibility(subject)
        registry.set_compatibility(subject, "none")
        assert registry.compatibility(subject) in ("none", "")
        assert "" == registry.compatibility(f"{subject}2")
        registry.register(subject, FIRST)
        registry.register(subject, BROKEN)
        assert [1, 2] == [one.version for one in registry.versions(subject)]

    def test_what_is_no_schema_is_refused(self, registry: Registry, subject: str):
        with pytest.raises(DefinitionError, match="E199"):
            registry.register(subject, Schema("AVRO", "{nonsense"))

    def test_json_schemas_are_kept_too(self, registry: Registry, subject: str):
        schema, next_one = published(rated(), "json-schema"), published(
            rated(Field(name="text", kind="string")), "json-schema"
        )  # fmt: skip
        registry.set_compatibility(subject, "backward")
        schema_id = registry.register(subject, schema)
        assert schema == registry.schema(schema_id)
        assert "JSON" == schema.kind
        assert json.loads(schema.text)["title"] == "Rated"
        assert registry.judge(subject, next_one).fits
        lost = published(event_type("Rated", 1, ()), "json-schema")
        assert not registry.judge(subject, lost).fits

    def test_what_a_schema_uses_is_found(self, registry: Registry, subject: str):
        item = Schema("PROTOBUF", ITEM)
        registry.register(f"{subject}-item", item)
        order = Schema("PROTOBUF", ORDER, (Reference("item.proto", f"{subject}-item", 1),))
        kept = registry.schema(registry.register(subject, order))
        assert order == kept
        assert [("item.proto", item)] == with_references(registry, order)
        lacking = order._replace(references=(Reference("item.proto", f"{subject}-item", 9),))
        assert None is with_references(registry, lacking)
