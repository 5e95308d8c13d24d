"""A schema registry: schemas by id for who reads records, and by subject for who publishes them."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Reference(NamedTuple):
    """Another schema that a schema uses: the name it uses, and where the registry has it."""

    name: str
    subject: str
    version: int


class Schema(NamedTuple):
    """A schema as it was registered.

    Attributes:
        kind: `AVRO`, `JSON` or `PROTOBUF`.
        text: Verbatim.
        references: What else it uses.
    """

    kind: str
    text: str
    references: tuple[Reference, ...] = ()


class Registered(NamedTuple):
    """A version of a subject."""

    version: int
    schema_id: int
    schema: Schema


class Verdict(NamedTuple):
    """Whether a schema may follow those of its subject, and what the registry says against it."""

    fits: bool
    reasons: tuple[str, ...] = ()
    """Empty if it fits; may be empty if it does not, since some registries say no more than no."""


class Registry(Protocol):
    """Schemas by id and by subject. Synchronous; safe to use from several threads.

    An id names one schema for ever. Registering a schema that its subject has already changes nothing
    and returns the id it has.

    Each method raises `Unavailable` if the registry does not answer (E490), and `SettingsError` if it
    does not let us in (E230).

    Conformance: `penstock.testing.conformance.registry`.
    """

    def schema(self, schema_id: int) -> Schema | None:
        """Return the schema of an id; None if there is none."""
        ...

    def version(self, subject: str, version: int) -> Registered | None:
        """Return a version of a subject; None if there is none."""
        ...

    def versions(self, subject: str) -> list[Registered]:
        """Return all versions of a subject, oldest first; empty if there is no such subject."""
        ...

    def find(self, subject: str, schema: Schema) -> Registered | None:
        """Return the version of a subject that is this schema; None if it has none."""
        ...

    def judge(self, subject: str, schema: Schema) -> Verdict:
        """Return whether a schema may be registered under a subject, by the compatibility it has."""
        ...

    def register(self, subject: str, schema: Schema) -> int:
        """Register a schema as the newest version of a subject, and return its id.

        Raises:
            DefinitionError: It does not fit those before (E195), or is no schema (E199).
        """
        ...

    def compatibility(self, subject: str) -> str:
        """Return a subject's own compatibility, in lower case; empty if it has none.

        A registry may forget that a subject was set to `none`, and say empty.
        """
        ...

    def set_compatibility(self, subject: str, compatibility: str) -> None:
        """Set a subject's compatibility: one of `penstock.core.catalog.published.COMPATIBILITIES`."""
        ...

    def close(self) -> None:
        """Release connections; a second call does nothing."""
        ...


def with_references(registry: Registry, schema: Schema) -> Sequence[tuple[str, Schema]] | None:
    """Return all that a schema uses, by the names it is used by, what is used before who uses it.

    None if the registry lacks some of it.
    """
    found: dict[str, Schema] = {}
    waiting = [(reference, False) for reference in reversed(schema.references)]
    while waiting:
        reference, opened = waiting.pop()
        if reference.name in found:
            continue
        registered = registry.version(reference.subject, reference.version)
        if registered is None or len(waiting) > REFERENCES_MAX:
            return None
        if opened or not registered.schema.references:
            found[reference.name] = registered.schema
            continue
        waiting.append((reference, True))
        waiting.extend((one, False) for one in reversed(registered.schema.references))
    return list(found.items())


REFERENCES_MAX = 1_000
"""How many schemas a schema may use, at any depth."""
