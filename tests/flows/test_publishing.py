"""Events are published whole or not at all, and again without any change."""

import pytest

from penstock.adapters.registry.memory import MemoryRegistry
from penstock.core.catalog.published import Naming, publish_all
from penstock.core.errors import DefinitionError
from penstock.dsl.events import event, integer, string
from penstock.flows.publishing import CHANGED, NEW, UNCHANGED, publish, standings
from penstock.ports.registry import Schema


def shop(**rated: object):
    events = [event("Rated", stars=integer(required=True), **rated), event("Seen", item=string())]
    return publish_all(events, "avro", Naming())


def whats(found):
    return [one.what for one in found]


def test_what_is_published_is_unchanged_the_next_time() -> None:
    registry = MemoryRegistry()
    first = publish(registry, standings(registry, shop(), "backward", {}))
    again = standings(registry, shop(), "backward", {})

    assert [NEW, NEW] == whats(first)
    assert [UNCHANGED, UNCHANGED] == whats(again)
    assert [one.schema_id for one in first] == [one.schema_id for one in publish(registry, again)]
    assert {1} == {len(registry.versions(one.subject)) for one in shop()}


def test_each_subject_has_the_compatibility_asked_before_its_first_version() -> None:
    registry = MemoryRegistry()
    publish(registry, standings(registry, shop(), "backward", {"Seen": "full"}))
    assert ("backward", "full") == (registry.compatibility("Rated"), registry.compatibility("Seen"))


def test_a_change_that_fits_is_a_version_more() -> None:
    registry = MemoryRegistry()
    publish(registry, standings(registry, shop(), "backward", {}))
    found = standings(registry, shop(text=string()), "backward", {})
    assert [CHANGED, UNCHANGED] == whats(found)
    publish(registry, found)
    assert 2 == len(registry.versions("Rated"))


def test_a_change_that_breaks_is_told_by_field_and_not_published() -> None:
    registry = MemoryRegistry()
    publish(registry, standings(registry, shop(), "backward", {}))
    found = standings(registry, shop(text=string(required=True)), "backward", {})
    assert [False, True] == [one.fits for one in found]
    assert ["$.properties.text"] == [one.path for one in found[0].breaks]
    with pytest.raises(AssertionError):
        publish(registry, found)


def test_what_the_registry_alone_knows_to_break_registers_nothing() -> None:
    """Somebody registered meanwhile, so that what was compared is not the newest any more."""
    registry = MemoryRegistry()
    publish(registry, standings(registry, shop(), "backward", {}))
    found = standings(registry, shop(text=string()), "backward", {})
    registry.register("Rated", Schema("AVRO", shop(text=integer())[0].text))
    with pytest.raises(DefinitionError, match="nothing was registered"):
        publish(registry, found)
    assert 2 == len(registry.versions("Rated"))


def test_an_old_version_is_not_registered_again() -> None:
    registry = MemoryRegistry()
    publish(registry, standings(registry, shop(), "backward", {}))
    publish(registry, standings(registry, shop(text=string()), "backward", {}))
    back = standings(registry, shop(), "backward", {})
    assert [UNCHANGED, UNCHANGED] == whats(back)
    assert back[0].before is not None
    assert 1 == back[0].before.version
